//! B1: from the rename of a file to the first request that a real Envoy answers anew, for an edit of one route.
//!
//! Two layouts: many hosts, whose routes are cut so that an edit sends a small part, and one host so large that most of the
//! routes are one resource whatever is done. Of many hosts, edits are of routes all over the world, each in its turn: one route
//! might have a part of the cut to itself, or share it with two more hosts, and stand for no other. Beside it the floor: the
//! same change as ready bytes, from the moment at which they are sent. Samples of both alternate.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use super::ads::{Holder, World, envoy_node};
use super::cpu::{Clock, quiet};
use super::floor::Floor;
use super::probe::Probe;
use super::report::{Report, Samples, milliseconds, spread};
use super::scene::{SILENCE, Scene, change, envoy, ratio, rename, served};
use crate::support::bench_world::{self, GATEWAY_NAME, write_large_tree};
use crate::support::chancery::{Chancery, Settings};

/// The two answers of the edited route.
const ANSWERS: [&str; 2] = ["first", "other"];

/// How many routes are edited, at most.
const PROBES: usize = 20;

/// Above it, a round is called noisy: by how much the floor moves from its first half to its second.
const DRIFT: f64 = 0.25;

/// What was measured at one size.
#[derive(Debug)]
struct Cell {
    floor: Samples,
    chancery: Samples,
    cpu: Samples,
    envoy_cpu: Samples,
    floor_cpu: Samples,
    /// What an edit sends, in the median.
    bytes: usize,
}

/// Whose route is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Those of hosts all over a world of so many tables.
    Hosts(usize),
    /// That of a host with so many tables, beside a small world.
    OneHost(usize),
}

impl Layout {
    /// The world that is there beside.
    fn world(self) -> bench_world::World {
        match self {
            Self::Hosts(tables) => bench_world::World { tables },
            Self::OneHost(_) => bench_world::World { tables: 10 },
        }
    }

    /// The routes that are edited.
    fn probes(self) -> Vec<bench_world::Probe> {
        match self {
            Self::Hosts(_) => self.world().probes(PROBES),
            Self::OneHost(tables) => vec![bench_world::Probe::Leaf(tables)],
        }
    }

    fn write(self, directory: &Path) -> anyhow::Result<()> {
        match self {
            Self::Hosts(_) => self.probes().iter().try_for_each(|probe| probe.answer(directory, ANSWERS[0])),
            Self::OneHost(tables) => write_large_tree(directory, tables, ANSWERS[0]),
        }
    }

    /// Layout, tables and routes.
    fn row(self) -> (&'static str, usize) {
        match self {
            Self::Hosts(tables) => ("hosts", tables),
            Self::OneHost(tables) => ("one host", tables),
        }
    }
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let sizes = report.scale.pick(
        vec![
            (Layout::Hosts(10), 100),
            (Layout::Hosts(1_000), 100),
            (Layout::Hosts(10_000), 100),
            (Layout::OneHost(1_000), 40),
        ],
        vec![(Layout::Hosts(10), 4), (Layout::Hosts(20), 4), (Layout::OneHost(10), 4)],
    );
    report.line("milliseconds, median / 99th percentile; CPU per edit, median / 99th percentile")?;
    report.line(&format!(
        "{:>8} {:>7} {:>7} {:>4} {:>8} {:>17} {:>17} {:>6} {:>17} {:>19} {:>19}",
        "layout",
        "tables",
        "routes",
        "runs",
        "bytes",
        "floor",
        "chancery",
        "C/F",
        "chancery CPU",
        "Envoy main CPU (C)",
        "Envoy main CPU (F)"
    ))?;
    let mut cells = Vec::new();
    for (layout, samples) in sizes {
        let cell = measure(layout, samples).await?;
        let (name, tables) = layout.row();
        let times = ratio(cell.chancery.median(), cell.floor.median());
        report.line(&format!(
            "{name:>8} {tables:>7} {:>7} {samples:>4} {:>8} {:>17} {:>17} {times:>6.2} {:>17} {:>19} {:>19}{}",
            bench_world::World { tables }.routes(),
            cell.bytes,
            spread(&cell.floor),
            spread(&cell.chancery),
            spread(&cell.cpu),
            spread(&cell.envoy_cpu),
            spread(&cell.floor_cpu),
            if cell.floor.drift() > DRIFT { "  noisy" } else { "" },
        ))?;
        cells.push((layout, cell));
    }
    let mut hosts = Vec::new();
    for (layout, cell) in &cells {
        match layout {
            Layout::Hosts(tables) => {
                let (median, last) = (milliseconds(cell.chancery.median()), milliseconds(cell.chancery.percentile(99)));
                report.goal(&format!("B1 p50 at {tables} tables"), median, 3.0, "ms")?;
                report.goal(&format!("B1 p99 at {tables} tables"), last, 10.0, "ms")?;
                hosts.push((tables, cell));
            }
            Layout::OneHost(tables) => {
                let times = ratio(cell.chancery.median(), cell.floor.median());
                report.goal(&format!("B1 chancery over floor, one host of {tables} tables"), times, 1.1, "")?;
            }
        }
    }
    if let (Some((least, first)), Some((most, last))) = (hosts.first(), hosts.last()) {
        let growth = ratio(last.chancery.median(), first.chancery.median());
        report.goal(&format!("B1 p50 at {most} tables over that at {least}"), growth, 1.3, "")?;
    }
    Ok(())
}

/// What an edit, and taking it back, send.
type Messages = [Vec<bytes::Bytes>; 2];

/// What Chancery sends a gateway for each edit, and what that holds before and after.
async fn record(
    scene: &Scene,
    bind: Ipv4Addr,
    probes: &[bench_world::Probe],
) -> anyhow::Result<(World, Vec<Messages>)> {
    let replica = Chancery::serve(scene.directory(), &Settings::default()).await?;
    let mut holder = Holder::open(replica.xds(), envoy_node("holder", GATEWAY_NAME, &bind.to_string())).await?;
    holder.settle(SILENCE).await?;
    let mut messages = Vec::new();
    for probe in probes {
        let before = holder.world.clone();
        probe.answer(scene.directory(), ANSWERS[1])?;
        holder.settle(SILENCE).await?;
        messages.push([holder.world.changes(&before)?, before.changes(&holder.world)?]);
        probe.answer(scene.directory(), ANSWERS[0])?;
        holder.settle(SILENCE).await?;
    }
    Ok((holder.world, messages))
}

async fn measure(layout: Layout, samples: usize) -> anyhow::Result<Cell> {
    let asks = layout.probes();
    let scene = Scene::start(layout.world(), ANSWERS[0], |directory| layout.write(directory)).await?;
    let (below, above) = (scene.address()?, scene.address()?);
    // By a replica and for another gateway, so that the one that is measured has but one gateway.
    let (held, messages) = record(&scene, below, &asks).await?;
    let mut sizes: Vec<usize> = messages.iter().map(|[edit, _]| edit.iter().map(bytes::Bytes::len).sum()).collect();
    sizes.sort_unstable();

    let floor = Arc::new(Floor::start(held)?);
    let below_envoy = envoy(below, floor.address()).await?;
    let above_envoy = envoy(above, scene.chancery.xds()).await?;
    let mut probes = VecDeque::new();
    for (asks, messages) in asks.into_iter().zip(messages) {
        let (below, _) = served(below, asks, ANSWERS[0]).await?;
        let (above, _) = served(above, asks, ANSWERS[0]).await?;
        probes.push_back(Edited { asks, messages, below, above, is_edited: false });
    }

    let mut clocks = [scene.chancery.pid(), above_envoy.envoy.pid(), below_envoy.envoy.pid()].map(Clock::of);
    let mut cell = Cell {
        floor: Samples::default(),
        chancery: Samples::default(),
        cpu: Samples::default(),
        envoy_cpu: Samples::default(),
        floor_cpu: Samples::default(),
        bytes: sizes[sizes.len() / 2],
    };
    for _ in 0..samples {
        let Some(Edited { asks, messages, mut below, mut above, is_edited }) = probes.pop_front() else { break };
        let (old, new) = if is_edited { (ANSWERS[1], ANSWERS[0]) } else { (ANSWERS[0], ANSWERS[1]) };
        let took;
        quiet(&mut clocks).await?;
        let ran = clocks[2].main_thread()?;
        let push = (floor.clone(), messages[usize::from(is_edited)].clone());
        let act = Box::new(move || {
            push.0.push(&push.1);
            Ok(())
        });
        (below, took) = change(below, (old, new), act).await?;
        cell.floor.push(took);
        quiet(&mut clocks).await?;
        cell.floor_cpu.push(clocks[2].main_thread()? - ran);

        let took;
        let act = rename(&asks.file(scene.directory()), &asks.table(new))?;
        quiet(&mut clocks).await?;
        let ran = (clocks[0].read()?, clocks[1].main_thread()?);
        let changed = change(above, (old, new), act).await;
        (above, took) = changed.map_err(|error| scene.with_log(error))?;
        cell.chancery.push(took);
        quiet(&mut clocks).await?;
        cell.cpu.push(clocks[0].read()? - ran.0);
        cell.envoy_cpu.push(clocks[1].main_thread()? - ran.1);
        probes.push_back(Edited { asks, messages, below, above, is_edited: !is_edited });
    }
    Ok(cell)
}

/// A route that is edited now and then, and taken back the next time.
struct Edited {
    asks: bench_world::Probe,
    messages: Messages,
    below: Probe,
    above: Probe,
    is_edited: bool,
}
