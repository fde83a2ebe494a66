//! B4: one change to many streams, until the last of them has it and has acknowledged, and what the streams cost.
//!
//! Light clients, each on a connection of its own, follow route configurations; the floor sends the same bytes to as many.
//! The clock of Chancery starts at the rename, that of the floor when the ready bytes are sent.

use std::time::Instant;

use chancery::snapshot::ResourceType;

use super::ads::{Holder, World as Held, node, of_node, subscriptions};
use super::cpu::{self, Clock};
use super::crowd::Crowd;
use super::floor::Floor;
use super::report::{Report, Samples, mebibytes, milliseconds, spread};
use super::scene::{Act, SILENCE, Scene, ratio, rename};
use crate::support::bench_world::{GATEWAY_NAME, OTHER_NAME, World, large_table, place, second_gateway};
use crate::support::wait::PATIENCE;

/// Routes of the large table: 410 kB, what a table of 10,000 lean routes takes.
const LARGE: usize = 3_060;

/// One kind of change: whose it is, and the file and text for an answer.
struct Kind {
    name: &'static str,
    gateway: &'static str,
    edit: fn(&std::path::Path, &str) -> (std::path::PathBuf, String),
}

const SMALL_CHANGE: Kind = Kind { name: "small", gateway: OTHER_NAME, edit: second_gateway };
const LARGE_CHANGE: Kind =
    Kind { name: "large", gateway: GATEWAY_NAME, edit: |directory, answer| large_table(directory, LARGE, answer) };

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    report.line("milliseconds, median / 99th percentile")?;
    report.line(&format!(
        "{:>7} {:>8} {:>8} {:>4} {:>19} {:>19} {:>6} {:>15} {:>15} {:>17}",
        "change",
        "bytes",
        "streams",
        "runs",
        "floor",
        "chancery",
        "C/F",
        "CPU per stream",
        "RSS per stream",
        "peak above idle"
    ))?;
    let small = report.scale.pick(vec![(100, 30), (1_000, 30), (5_000, 30)], vec![(50, 3)]);
    for (streams, samples) in small {
        measure(report, &SMALL_CHANGE, streams, samples).await?;
    }
    let (streams, samples) = report.scale.pick((1_000, 10), (20, 2));
    measure(report, &LARGE_CHANGE, streams, samples).await
}

async fn measure(report: &mut Report<'_>, kind: &Kind, streams: usize, samples: usize) -> anyhow::Result<()> {
    let scene = Scene::start(World { tables: 10 }, "same", |directory| {
        let (file, text) = (kind.edit)(directory, "first");
        place(&file, &text)
    })
    .await?;
    let bind = scene.address()?.to_string();
    let edit = |answer: &str| {
        let (file, text) = (kind.edit)(scene.directory(), answer);
        rename(&file, &text)
    };
    let mut holder = Holder::open(scene.chancery.xds(), node("holder", kind.gateway, &bind)).await?;
    holder.settle(SILENCE).await?;
    let before = holder.world.clone();
    edit("other")?()?;
    holder.settle(SILENCE).await?;
    let after = holder.world;
    drop(holder.follower);
    let messages = [before.changes(&after)?, after.changes(&before)?];
    let bytes: usize = messages[0].iter().map(bytes::Bytes::len).sum();

    // They hold everything already, so that what comes first is the change.
    let first = subscriptions(&[ResourceType::Route], &after);
    let (gateway, own) = (kind.gateway, bind.clone());
    let clients = move |client| of_node(node(&format!("client-{client}"), gateway, &own), &first);
    let mut clock = Clock::of(scene.chancery.pid());
    clock.quiet().await?;
    let alone = cpu::memory(scene.chancery.pid())?;
    let mut above = Crowd::open(scene.chancery.xds(), streams, clients.clone()).await?;
    // The floor does not compare versions: nothing is what it holds when they come.
    let floor = Floor::start(Held::default())?;
    let mut below = Crowd::open(floor.address(), streams, clients).await?;
    below.all(PATIENCE).await?;
    clock.quiet().await?;
    above.so_far().await?;
    let idle = cpu::memory(scene.chancery.pid())?;
    cpu::forget_peak(scene.chancery.pid())?;

    let (mut floors, mut times, mut cpus) = (Samples::default(), Samples::default(), Samples::default());
    for sample in 0..samples {
        clock.quiet().await?;
        let begun = Instant::now();
        floor.push(&messages[1 - sample % 2]);
        floors.push(last(&mut below, begun).await?);
        let act: Act = edit(["first", "other"][sample % 2])?;
        clock.quiet().await?;
        let (ran, begun) = (clock.read()?, Instant::now());
        act()?;
        times.push(last(&mut above, begun).await?);
        clock.quiet().await?;
        cpus.push((clock.read()? - ran) / u32::try_from(streams)?);
    }
    let peak = cpu::memory(scene.chancery.pid())?.peak.saturating_sub(idle.now);
    let each = idle.now.saturating_sub(alone.now) as f64 / streams as f64 / 1e3;
    let times_floor = ratio(times.median(), floors.median());
    report.line(&format!(
        "{:>7} {bytes:>8} {streams:>8} {samples:>4} {:>19} {:>19} {times_floor:>6.2} {:>15} {:>15} {:>17}",
        kind.name,
        spread(&floors),
        spread(&times),
        format!("{:.1} µs", milliseconds(cpus.median()) * 1e3),
        format!("{each:.1} kB"),
        format!("{:.1} MiB", mebibytes(peak)),
    ))?;
    let what = format!("B4 {} change to {streams} streams", kind.name);
    if kind.name == SMALL_CHANGE.name && streams >= 1_000 {
        report.goal(&format!("{what}, chancery over floor"), times_floor, 1.3, "")?;
        report.goal(&format!("{what}, memory of each"), each, 32.0, "kB")?;
        report.goal(&format!("{what}, CPU of each"), milliseconds(cpus.median()) * 1e3, 15.0, "µs")?;
    }
    if kind.name == LARGE_CHANGE.name {
        report.goal(&format!("{what}, peak above idle"), peak as f64 / 1e6, 60.0, "MB")?;
    }
    Ok(())
}

/// When the last client had it.
async fn last(crowd: &mut Crowd, begun: Instant) -> anyhow::Result<std::time::Duration> {
    let news = crowd.all(PATIENCE).await?;
    anyhow::ensure!(news.iter().all(|news| news.resources == 1), "more than the change was sent");
    let last = news.iter().map(|news| news.at).max().unwrap_or(begun);
    Ok(last - begun)
}
