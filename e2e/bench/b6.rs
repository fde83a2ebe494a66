//! B6: endpoints change in files, thousands of times a second; how old what a gateway holds is meanwhile, and whether
//! route edits still arrive as fast.
//!
//! Each edit names a new address in the slice of one app, a file each. A light client holds all endpoints; an edit is as
//! stale as it takes until the client has its address or a later one of the same app. A real Envoy follows everything too, and
//! a route of it is edited ten times a second.
//! Files are written by this process, on the same cores; in [memory](MEMORY) where there is such a file system, because what
//! is measured is not the disk: replacing a file takes ext4 up to half a millisecond of CPU, and tmpfs 30 µs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::snapshot::ResourceType;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use tempfile::TempDir;
use tokio::time::MissedTickBehavior;

use super::ads::{Follower, Received, World as Held, connect, envoy_node, of_node, subscriptions};
use super::cpu::Clock;
use super::probe::Probe;
use super::report::{Report, Samples, milliseconds, spread};
use super::scene::{Scene, change, envoy, ratio, rename, served};
use crate::support::bench_world::{GATEWAY_NAME, World, slice_file, slice_text};
use crate::support::manifests;
use crate::support::wait::PATIENCE;

/// The two answers of the edited route.
const ANSWERS: [&str; 2] = ["first", "other"];

/// Between two bursts of edits.
const TICK: Duration = Duration::from_millis(2);

/// Between two edits of the route meanwhile. One after the other without a pause they, and a client that asks all the time
/// whether they are there, would take all of the machine that is left.
const EDIT_EVERY: Duration = Duration::from_millis(100);

/// The first octet of the addresses that edits name; the world has none of them.
const OCTET: u8 = 11;

/// An edit of an app's slice, by its number.
#[derive(Clone, Copy, Debug)]
struct Written {
    app: usize,
    number: u32,
    at: Instant,
}

/// Where files stand in memory.
const MEMORY: &str = "/dev/shm";

/// A folder for the files, and what is to be said of it.
fn folder() -> anyhow::Result<(TempDir, &'static str)> {
    match tempfile::tempdir_in(MEMORY) {
        Ok(folder) => Ok((folder, "files in memory")),
        Err(_) => Ok((tempfile::tempdir().context("make a folder for the manifests")?, "files on disk")),
    }
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let world = World { tables: report.scale.pick(10_000, 20) };
    let (rates, duration) =
        report.scale.pick((vec![5_000], Duration::from_secs(20)), (vec![200], Duration::from_secs(1)));
    let samples = report.scale.pick(30, 2);
    let (folder, place) = folder()?;
    let scene = Scene::start_in(folder, world, "first", |directory| world.write_slices(directory)).await?;
    let bind = scene.address()?;
    let gateway = envoy(bind, scene.chancery.xds()).await?;
    let (mut probe, _) = served(bind, world.first_probe(), "first").await?;
    // As one more gateway of the same kind, so that both are served the same.
    let node = envoy_node("endpoints", GATEWAY_NAME, &bind.to_string());
    let first = of_node(node, &subscriptions(&[ResourceType::Endpoint], &Held::default()));
    let mut follower = Follower::open(connect(scene.chancery.xds()).await?, &first).await?;
    let mut known = 0;
    while known < world.apps() {
        let received = follower.next_within(PATIENCE).await?.context("not every cluster has endpoints")?;
        known += received.response.resources.len();
    }
    let (mut clock, mut main) = (Clock::of(scene.chancery.pid()), Clock::of(gateway.envoy.pid()));
    clock.quiet().await?;
    let mut idle = Samples::default();
    for sample in 0..samples {
        let took;
        (probe, took) = edit(&scene, probe, sample).await?;
        idle.push(took);
        clock.quiet().await?;
    }
    report.line(&format!(
        "{} clusters, {place}; route edits when nothing else happens: {} ms (median / 99th percentile of {samples})",
        world.apps(),
        spread(&idle)
    ))?;
    report.line(&format!(
        "{:>9} {:>9} {:>8} {:>21} {:>9} {:>13} {:>14} {:>21} {:>5}",
        "offered/s",
        "written/s",
        "edits",
        "staleness ms",
        "messages",
        "CPU per edit",
        "Envoy CPU",
        "route edits ms",
        "runs"
    ))?;
    let mut number = 0;
    for rate in rates {
        main.quiet().await?;
        let ran = (clock.read()?, main.read()?);
        let (sender, written) = mpsc::channel();
        let files: Vec<PathBuf> = (0..world.apps()).map(|app| slice_file(scene.directory(), app)).collect();
        let first = number + 1;
        let writer = tokio::task::spawn_blocking(move || write(&files, rate, duration, first, &sender));
        let watch = tokio::spawn(watch(follower, written));
        let mut meanwhile = Samples::default();
        let begun = Instant::now();
        let mut sample = 0;
        // Edits that are not done in time are not made up for.
        let mut turns = tokio::time::interval(EDIT_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while begun.elapsed() < duration {
            turns.tick().await;
            let took;
            (probe, took) = edit(&scene, probe, sample + samples).await.map_err(|error| scene.with_log(error))?;
            meanwhile.push(took);
            sample += 1;
        }
        // The next round begins with the same answer.
        if sample % 2 == 1 {
            (probe, _) = edit(&scene, probe, sample + samples).await?;
        }
        let took = writer.await??;
        let staleness;
        let messages;
        (follower, staleness, messages) = watch.await??;
        clock.quiet().await?;
        main.quiet().await?;
        let edits = u32::try_from(staleness.len())?;
        number += edits;
        let ran = (clock.read()? - ran.0, main.read()? - ran.1);
        report.line(&format!(
            "{rate:>9} {:>9.0} {edits:>8} {:>21} {messages:>9} {:>13} {:>14} {:>21} {:>5}",
            f64::from(edits) / took.as_secs_f64(),
            spread(&staleness),
            format!("{:.1} µs", milliseconds(ran.0 / edits) * 1e3),
            format!("{:.2} s", ran.1.as_secs_f64()),
            spread(&meanwhile),
            meanwhile.len(),
        ))?;
        // Who writes fewer measures something else.
        let short = f64::from(rate) * took.as_secs_f64() / f64::from(edits);
        report.goal(&format!("B6 offered over written, at {rate} edits/s"), short, 1.05, "")?;
        report.goal(
            &format!("B6 staleness p99 at {rate} edits/s"),
            milliseconds(staleness.percentile(99)),
            20.0,
            "ms",
        )?;
        let slower = ratio(meanwhile.median(), idle.median());
        report.goal(&format!("B6 route edits at {rate} edits/s over idle ones, p50"), slower, 1.5, "")?;
    }
    Ok(())
}

/// Edits a route, and waits until it is served.
async fn edit(scene: &Scene, probe: Probe, sample: usize) -> anyhow::Result<(Probe, Duration)> {
    let asks = scene.world.first_probe();
    let (old, new) = (ANSWERS[sample % 2], ANSWERS[(sample + 1) % 2]);
    let act = rename(&asks.file(scene.directory()), &asks.table(new))?;
    change(probe, (old, new), act).await
}

/// Writes edits at a rate, app after app, for so long. Says how long it took.
fn write(
    files: &[PathBuf],
    rate: u32,
    duration: Duration,
    first: u32,
    sender: &mpsc::Sender<Written>,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < duration {
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while count < due && begun.elapsed() < duration {
            let (app, number) = (count as usize % files.len(), first + count);
            let file: &Path = &files[app];
            let [_, high, middle, low] = number.to_be_bytes();
            let text = slice_text(app, Ipv4Addr::new(OCTET, high, middle, low));
            let at = Instant::now();
            manifests::replace(file, &text)?;
            sender.send(Written { app, number, at })?;
            count += 1;
        }
        std::thread::sleep(TICK);
    }
    Ok(begun.elapsed())
}

/// Takes endpoints until every edit that was written has arrived, and says how long each took.
async fn watch(mut follower: Follower, written: mpsc::Receiver<Written>) -> anyhow::Result<(Follower, Samples, usize)> {
    let mut pending: BTreeMap<usize, VecDeque<Written>> = BTreeMap::new();
    let mut newest: BTreeMap<usize, (u32, Instant)> = BTreeMap::new();
    let (mut staleness, mut messages, mut is_over) = (Samples::default(), 0, false);
    while !is_over || !pending.is_empty() {
        let received = follower.next_within(if is_over { PATIENCE } else { LOOK }).await?;
        ensure!(received.is_some() || !is_over, "{} apps never got the last of their addresses", pending.len());
        let mut touched = BTreeSet::new();
        loop {
            match written.try_recv() {
                Ok(edit) => {
                    touched.insert(edit.app);
                    pending.entry(edit.app).or_default().push_back(edit);
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    is_over = true;
                    break;
                }
            }
        }
        if let Some(received) = received {
            messages += 1;
            for (app, number) in addresses(&received)? {
                touched.insert(app);
                newest.insert(app, (number, received.at));
            }
        }
        // An address may arrive before its edit is noted here, and the other way round.
        for app in touched {
            let (Some(edits), Some((number, at))) = (pending.get_mut(&app), newest.get(&app)) else { continue };
            let arrived = edits.partition_point(|edit| edit.number <= *number);
            staleness.extend(edits.drain(..arrived).map(|edit| at.saturating_duration_since(edit.at)));
            if edits.is_empty() {
                pending.remove(&app);
            }
        }
    }
    Ok((follower, staleness, messages))
}

/// How long the watch waits for endpoints before it looks at what was written.
const LOOK: Duration = Duration::from_millis(100);

/// The apps in a response and the numbers that their addresses stand for.
fn addresses(received: &Received) -> anyhow::Result<Vec<(usize, u32)>> {
    let mut found = Vec::new();
    for item in received.items()? {
        let load = ClusterLoadAssignment::decode(Any::decode(item.body)?.value.as_slice())?;
        let text = format!("{:?}", load.cluster_name);
        let addresses = load.endpoints.iter().flat_map(|group| &group.lb_endpoints).filter_map(|endpoint| {
            use envoy_types::pb::envoy::config::core::v3::address::Address;
            use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
            let Some(Address::SocketAddress(socket)) = &endpoint.address.as_ref()?.address else { return None };
            socket.address.parse::<Ipv4Addr>().ok()
        });
        let ours = addresses.map(|address| address.octets()).find(|octets| octets[0] == OCTET);
        let Some([_, high, middle, low]) = ours else { continue };
        // The name holds that of the Service: app-17.
        let digits =
            text.split("app-").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let app =
            digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("a cluster of no app: {text}"))?;
        found.push((app, u32::from_be_bytes([0, high, middle, low])));
    }
    Ok(found)
}
