//! What compiling from scratch costs, by size.
//!
//! Each size is measured several times, each time in a process of its own, so that neither memory nor caches of one run
//! help or hurt the next. One process reads and decodes the files, compiles, emits and verifies once, as `serve` does at
//! its start; then it compiles once more, as the oracle of every edit does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::measure::{Run, measure};
use super::report::{Report, Samples, Scale, mebibytes, spread};
use crate::support::bench_world::World;

/// A name, how to read it from a run, the most that it may be, and its unit.
type Budget = (&'static str, fn(&Run) -> f64, f64, &'static str);

/// At the largest size, on one core but for reading: half of each leaves no room for other work on the machine, double
/// is where a restart is felt.
const BUDGETS: &[Budget] = &[
    ("compile", |run| run.compile.as_secs_f64(), 1.0, "s"),
    ("cold start", |run| run.cold_start().as_secs_f64(), 2.0, "s"),
    ("peak memory", |run| mebibytes(run.peak_memory), 350.0, "MiB"),
];

/// The argument that makes the program measure one directory, once, and print the run as JSON.
pub(crate) const ONCE: &str = "--once";

/// A part of a run and how to read it.
type Part = (&'static str, fn(&Run) -> Duration);

const PARTS: [Part; 6] = [
    ("load", |run| run.load),
    ("compile", |run| run.compile),
    ("emit", |run| run.emit),
    ("verify", |run| run.verify),
    ("cold start", Run::cold_start),
    ("recompile", |run| run.recompile),
];

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    // Odd, so that the median is a run.
    let sizes = report.scale.pick(vec![(100, 9), (1_000, 5), (10_000, 3)], vec![(20, 1)]);
    report.line("milliseconds, median / 99th percentile; memory as the median")?;
    let heads: String = PARTS.iter().map(|(name, _)| format!(" {name:>17}")).collect();
    report.line(&format!(
        "{:>7} {:>7} {:>7} {:>4}{heads} {:>11} {:>12}",
        "tables", "routes", "objects", "runs", "peak memory", "snapshot"
    ))?;
    let mut last = Vec::new();
    for (tables, times) in sizes {
        let runs = runs(World { tables }, times, report.scale)?;
        let result = &runs[0].result;
        let parts = PARTS.iter().map(|(_, part)| {
            let mut samples = Samples::default();
            samples.extend(runs.iter().map(part));
            format!(" {:>17}", spread(&samples))
        });
        let (parts, memory) = (parts.collect::<String>(), median(&runs, |run| mebibytes(run.peak_memory)));
        report.line(&format!(
            "{tables:>7} {:>7} {:>7} {times:>4}{parts} {:>11} {:>12}",
            result.routes,
            result.objects,
            format!("{memory:.0} MiB"),
            format!("{} B", result.snapshot)
        ))?;
        last = runs;
    }
    for (what, value, most, unit) in BUDGETS {
        report.goal(
            &format!("budget of {what} from scratch, at the largest size"),
            median(&last, value),
            *most,
            unit,
        )?;
    }
    Ok(())
}

/// Writes a world and measures it.
fn runs(world: World, times: usize, scale: Scale) -> anyhow::Result<Vec<Run>> {
    let folder = tempfile::tempdir().context("make a folder for the manifests")?;
    world.write(folder.path())?;
    // A test is a program that does not know the argument.
    let once = || if scale == Scale::Full { run_in_child(folder.path()) } else { measure(folder.path()) };
    let runs: Vec<Run> = (0..times).map(|_| once()).collect::<anyhow::Result<_>>()?;
    let first = &runs[0].result;
    let whole = (world.routes(), world.routes(), world.apps());
    if (first.routes, first.with_policies, first.clusters) != whole || runs.iter().any(|run| run.result != *first) {
        bail!("the runs did not all compile the whole world: {first:?}");
    }
    Ok(runs)
}

fn run_in_child(directory: &Path) -> anyhow::Result<Run> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    let output = command.arg(ONCE).arg(directory).output().context("start a run")?;
    if !output.status.success() {
        bail!("a run failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("read the result of a run")
}

fn median(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
