//! B1: from the rename of a file to the first request that a real Envoy answers anew, for an edit of one route.
//!
//! Two layouts: many hosts, whose routes are cut so that an edit sends a small part, and one host so large that most of the
//! routes are one resource whatever is done. Beside it the floor: the same change as ready bytes, from the moment at which they are sent. Samples of both alternate.

use std::path::Path;

use super::ads::{Holder, envoy_node};
use super::cpu::{Clock, quiet};
use super::floor::Floor;
use super::report::{Report, Samples, milliseconds, spread};
use super::scene::{SILENCE, Scene, change, envoy, ratio, rename, served};
use crate::support::bench_world::{self, GATEWAY_NAME, World, write_large_tree};
use crate::support::chancery::{Chancery, Settings};

/// The two answers of the edited route.
const ANSWERS: [&str; 2] = ["first", "other"];

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
    /// What the edit sends.
    bytes: usize,
}

/// Whose route is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// That of one host among all hosts of a world of so many tables.
    Hosts(usize),
    /// That of a host with so many tables, beside a small world.
    OneHost(usize),
}

impl Layout {
    /// The world that is there beside.
    fn world(self) -> World {
        match self {
            Self::Hosts(tables) => World { tables },
            Self::OneHost(_) => World { tables: 10 },
        }
    }

    /// The route that is edited.
    fn probe(self) -> bench_world::Probe {
        match self {
            Self::Hosts(_) => self.world().first_probe(),
            Self::OneHost(tables) => bench_world::Probe::Leaf(tables),
        }
    }

    fn write(self, directory: &Path) -> anyhow::Result<()> {
        match self {
            Self::Hosts(_) => Ok(()),
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
            World { tables }.routes(),
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

async fn measure(layout: Layout, samples: usize) -> anyhow::Result<Cell> {
    let [first, other] = ANSWERS;
    let asks = layout.probe();
    let scene = Scene::start(layout.world(), first, |directory| layout.write(directory)).await?;
    let (below, above) = (scene.address()?, scene.address()?);
    // What Chancery sends the floor's gateway before and after the edit; another one, so that the one that is measured has
    // but one gateway.
    let replica = Chancery::serve(scene.directory(), &Settings::default()).await?;
    let mut holder = Holder::open(replica.xds(), envoy_node("holder", GATEWAY_NAME, &below.to_string())).await?;
    holder.settle(SILENCE).await?;
    let before = holder.world.clone();
    asks.answer(scene.directory(), other)?;
    holder.settle(SILENCE).await?;
    let after = holder.world;
    drop((holder.follower, replica));
    let messages = [before.changes(&after)?, after.changes(&before)?];
    let bytes = messages[0].iter().map(bytes::Bytes::len).sum();

    let floor = std::sync::Arc::new(Floor::start(after)?);
    let below_envoy = envoy(below, floor.address()).await?;
    let above_envoy = envoy(above, scene.chancery.xds()).await?;
    let (mut below_probe, _) = served(below, asks, other).await?;
    let (mut above_probe, _) = served(above, asks, other).await?;

    let mut clocks = [scene.chancery.pid(), above_envoy.envoy.pid(), below_envoy.envoy.pid()].map(Clock::of);
    let mut cell = Cell {
        floor: Samples::default(),
        chancery: Samples::default(),
        cpu: Samples::default(),
        envoy_cpu: Samples::default(),
        floor_cpu: Samples::default(),
        bytes,
    };
    for sample in 0..samples {
        let (old, new) = (ANSWERS[(sample + 1) % 2], ANSWERS[sample % 2]);
        let took;
        quiet(&mut clocks).await?;
        let ran = clocks[2].main_thread()?;
        let push = (floor.clone(), messages[sample % 2].clone());
        let act = Box::new(move || {
            push.0.push(&push.1);
            Ok(())
        });
        (below_probe, took) = change(below_probe, (old, new), act).await?;
        cell.floor.push(took);
        quiet(&mut clocks).await?;
        cell.floor_cpu.push(clocks[2].main_thread()? - ran);

        let took;
        let act = rename(&asks.file(scene.directory()), &asks.table(new))?;
        quiet(&mut clocks).await?;
        let ran = (clocks[0].read()?, clocks[1].main_thread()?);
        let changed = change(above_probe, (old, new), act).await;
        (above_probe, took) = changed.map_err(|error| scene.with_log(error))?;
        cell.chancery.push(took);
        quiet(&mut clocks).await?;
        cell.cpu.push(clocks[0].read()? - ran.0);
        cell.envoy_cpu.push(clocks[1].main_thread()? - ran.1);
    }
    Ok(cell)
}
