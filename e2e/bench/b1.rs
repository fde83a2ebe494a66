//! B1: from the rename of a file to the first request that a real Envoy answers anew, for an edit of one route.
//!
//! Beside it the floor: the same change as ready bytes, from the moment at which they are sent. Samples of both alternate.

use chancery::snapshot::ResourceType;

use super::cpu::{Clock, quiet};
use super::floor::Floor;
use super::report::{Report, Samples, milliseconds, spread};
use super::scene::{SILENCE, Scene, change, envoy, ratio, rename, served};
use crate::support::bench_world::World;

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
    is_cut: bool,
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let sizes = report.scale.pick(vec![(10, 60), (1_000, 30), (10_000, 10)], vec![(10, 4), (20, 4)]);
    report.line("milliseconds, median / 99th percentile; CPU per edit, median / 99th percentile")?;
    report.line(&format!(
        "{:>7} {:>7} {:>4} {:>17} {:>17} {:>6} {:>17} {:>19} {:>19}",
        "tables",
        "routes",
        "runs",
        "floor",
        "chancery",
        "C/F",
        "chancery CPU",
        "Envoy main CPU (C)",
        "Envoy main CPU (F)"
    ))?;
    let mut cells = Vec::new();
    for (tables, samples) in sizes {
        let world = World { tables };
        let cell = measure(world, samples).await?;
        let times = ratio(cell.chancery.median(), cell.floor.median());
        report.line(&format!(
            "{tables:>7} {:>7} {samples:>4} {:>17} {:>17} {times:>6.2} {:>17} {:>19} {:>19}{}",
            world.routes(),
            spread(&cell.floor),
            spread(&cell.chancery),
            spread(&cell.cpu),
            spread(&cell.envoy_cpu),
            spread(&cell.floor_cpu),
            if cell.floor.drift() > DRIFT { "  noisy" } else { "" },
        ))?;
        cells.push((tables, cell));
    }
    for (tables, cell) in &cells {
        report.goal(&format!("B1 p50 at {tables} tables"), milliseconds(cell.chancery.median()), 3.0, "ms")?;
        report.goal(&format!("B1 p99 at {tables} tables"), milliseconds(cell.chancery.percentile(99)), 10.0, "ms")?;
        if !cell.is_cut {
            let times = ratio(cell.chancery.median(), cell.floor.median());
            report.goal(&format!("B1 chancery over floor, uncut, at {tables} tables"), times, 1.1, "")?;
        }
    }
    if let (Some((least, first)), Some((most, last))) = (cells.first(), cells.last()) {
        let growth = ratio(last.chancery.median(), first.chancery.median());
        report.goal(&format!("B1 p50 at {most} tables over that at {least}"), growth, 1.3, "")?;
    }
    Ok(())
}

async fn measure(world: World, samples: usize) -> anyhow::Result<Cell> {
    let [first, other] = ANSWERS;
    let scene = Scene::start(world, first, |_| Ok(())).await?;
    let (below, above) = (scene.address()?, scene.address()?);
    // What Chancery sends the floor's gateway before and after the edit.
    let mut holder = scene.holder(below).await?;
    let before = holder.world.clone();
    scene.edit(other)?;
    holder.settle(SILENCE).await?;
    let after = holder.world;
    drop(holder.follower);
    let is_cut = after.0.get(&ResourceType::Route).is_some_and(|routes| routes.len() > 1);
    let messages = [before.changes(&after)?, after.changes(&before)?];

    let floor = std::sync::Arc::new(Floor::start(after)?);
    let below_envoy = envoy(below, floor.address()).await?;
    let above_envoy = envoy(above, scene.chancery.xds()).await?;
    let asks = world.first_probe();
    let (mut below_probe, _) = served(below, asks, other).await?;
    let (mut above_probe, _) = served(above, asks, other).await?;

    let mut clocks = [scene.chancery.pid(), above_envoy.envoy.pid(), below_envoy.envoy.pid()].map(Clock::of);
    let mut cell = Cell {
        floor: Samples::default(),
        chancery: Samples::default(),
        cpu: Samples::default(),
        envoy_cpu: Samples::default(),
        floor_cpu: Samples::default(),
        is_cut,
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
