//! B7: a thousand gateways lose their replica and connect to another, which made everything by itself from the same files.
//!
//! Each names what it holds with its version, as Envoy does; nothing has changed, so nothing may be sent. It is quiet when
//! the replica has nothing to do any more. Then a client whose version of one resource is old must get exactly that, and
//! everybody a change that is made afterwards.

use std::time::Instant;

use anyhow::{Context, ensure};
use chancery::snapshot::ResourceType;

use super::ads::{Follower, TYPES, connect, envoy_node, of_node, subscriptions};
use super::cpu::{self, Clock};
use super::crowd::Crowd;
use super::report::{Report, mebibytes, milliseconds};
use super::scene::{SILENCE, Scene};
use crate::support::bench_world::{GATEWAY_NAME, World};
use crate::support::chancery::{Chancery, Settings};
use crate::support::wait::PATIENCE;

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let world = World { tables: report.scale.pick(10_000, 20) };
    let gateways = report.scale.pick(vec![1_000], vec![10]);
    let mut scene = Scene::start(world, "first", |_| Ok(())).await?;
    let bind = scene.address()?;
    let known = scene.holder(bind).await?.world;
    let replica = Chancery::serve(scene.directory(), &Settings::default()).await?;
    scene.chancery.kill();
    let messages = subscriptions(&TYPES, &known);
    let up: usize = messages.iter().map(bytes::Bytes::len).sum();
    report.line(&format!("each of them holds {} resources and names them in {up} bytes", known.len()))?;
    report.line(&format!(
        "{:>9} {:>16} {:>13} {:>15} {:>15} {:>19} {:>15} {:>22}",
        "gateways",
        "configuration",
        "other bytes",
        "until quiet",
        "CPU, whole",
        "CPU per reconnect",
        "peak / before",
        "RSS per stream (first)"
    ))?;
    let mut clock = Clock::of(replica.pid());
    for count in gateways {
        clock.quiet().await?;
        // The replica has made what this kind of gateway gets; a first client pays for that.
        let first = of_node(envoy_node("first", GATEWAY_NAME, &bind.to_string()), &messages);
        let mut witness = Follower::open(connect(replica.xds()).await?, &first).await?;
        clock.quiet().await?;
        cpu::forget_peak(replica.pid())?;
        let (ran, before, begun) = (clock.read()?, cpu::memory(replica.pid())?, Instant::now());
        let own = (bind.to_string(), messages.clone());
        let first = move |client| of_node(envoy_node(&format!("gateway-{client}"), GATEWAY_NAME, &own.0), &own.1);
        let mut crowd = Crowd::open(replica.xds(), count, first).await?;
        let quiet = clock.quiet().await? - begun;
        let (ran, after) = (clock.read()? - ran, cpu::memory(replica.pid())?);
        let news = crowd.so_far().await?;
        let configuration: usize = news.iter().filter(|news| news.resources > 0).map(|news| news.bytes).sum();
        let other: usize = news.iter().filter(|news| news.resources == 0).map(|news| news.bytes).sum();
        ensure!(
            witness.next_within(SILENCE).await?.is_none_or(|sent| sent.response.resources.is_empty()),
            "the first client was sent something"
        );
        let each = milliseconds(ran) / count as f64;
        let growth = after.peak as f64 / before.now as f64;
        // What they were sent is freed by then, and the allocator still has it.
        let settled = cpu::settled(replica.pid()).await?;
        let [first, held] = [after, settled].map(|now| now.now.saturating_sub(before.now) as f64 / count as f64 / 1e3);
        report.line(&format!(
            "{count:>9} {:>16} {other:>13} {:>15} {:>15} {:>19} {:>15} {:>22}",
            format!("{configuration} B"),
            format!("{:.0} ms", milliseconds(quiet)),
            format!("{:.0} ms", milliseconds(ran)),
            format!("{each:.2} ms"),
            format!("{:.0} / {:.0} MiB", mebibytes(after.peak), mebibytes(before.now)),
            format!("{held:.1} ({first:.1}) kB"),
        ))?;
        ensure!(configuration == 0, "{configuration} bytes were sent to gateways that held everything");
        report.goal(&format!("B7 {count} gateways, until quiet"), quiet.as_secs_f64(), 1.5, "s")?;
        report.goal(&format!("B7 {count} gateways, CPU of each"), each, 0.5, "ms")?;
        report.goal(&format!("B7 {count} gateways, peak memory over that before"), growth, 1.5, "")?;
        let what = format!("B4 memory of each of {count} streams that hold {} resources", known.len());
        report.goal(&what, held, 32.0, "kB")?;

        // All are there: each gets a change, and it alone.
        let answer = format!("after-{count}");
        scene.edit(&answer)?;
        let news = crowd.all(PATIENCE).await?;
        ensure!(news.iter().all(|news| news.resources == 1) && news.len() == count, "more than the change was sent");
    }
    only_what_is_old(&replica, &known, bind).await
}

/// A gateway with one old version gets that resource. The edits have changed another, which it gets too.
async fn only_what_is_old(
    replica: &Chancery,
    known: &super::ads::World,
    bind: std::net::Ipv4Addr,
) -> anyhow::Result<()> {
    let mut known = known.clone();
    let cluster = known.0.get_mut(&ResourceType::Cluster).and_then(|items| items.values_mut().next());
    let cluster = cluster.context("there is no cluster")?;
    let mut old = (**cluster).clone();
    let name = old.name.clone();
    old.version = "old".to_owned();
    *cluster = old.into();
    let first = of_node(envoy_node("late", GATEWAY_NAME, &bind.to_string()), &subscriptions(&TYPES, &known));
    let mut follower = Follower::open(connect(replica.xds()).await?, &first).await?;
    let mut sent = std::collections::BTreeSet::new();
    while let Some(received) = follower.next_within(if sent.is_empty() { PATIENCE } else { SILENCE }).await? {
        let kind = ResourceType::from_url(&received.response.type_url).context("an unknown type")?;
        sent.extend(received.items()?.into_iter().map(|item| (kind, item.name)));
    }
    let routes: Vec<_> = sent.iter().filter(|(kind, _)| *kind == ResourceType::Route).collect();
    let others = sent.iter().filter(|(kind, _)| *kind != ResourceType::Route);
    // A cluster is never sent without its endpoints.
    ensure!(
        routes.len() == 1 && others.clone().all(|(_, sent)| *sent == name) && others.count() == 2,
        "not what is old, but {sent:?}"
    );
    Ok(())
}
