//! `make bench`: what compiling from scratch costs, by size.
//!
//! For each size a world is written to files, and then measured several times, each time in a process of its own, so
//! that neither memory nor caches of one run help or hurt the next. One process reads and decodes the files, compiles,
//! emits and verifies once, as `serve` does at its start; then it compiles once more, as every edit does.
//!
//! Prints median and largest of each, and whether the budgets hold; the exit code is 1 if one does not.

mod measure;
#[path = "../support/bench_world.rs"]
mod world;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};

use measure::{Run, measure};
use world::World;

/// Route tables, and how often that size is measured. Odd, so that the median is a run.
const SIZES: &[(usize, usize)] = &[(100, 15), (1_000, 9), (10_000, 5)];

/// A name, how to read it from a run, the most that it may be, and its unit.
type Budget = (&'static str, fn(&Run) -> f64, f64, &'static str);

/// At the largest size, on one core but for reading: half of each leaves no room for other work on the machine, double
/// is where a restart is felt.
const BUDGETS: &[Budget] = &[
    ("compile", |run| run.compile.as_secs_f64(), 1.0, "s"),
    ("cold start", |run| run.cold_start().as_secs_f64(), 2.0, "s"),
    ("peak memory", |run| mebibytes(run.peak_memory), 350.0, "MiB"),
];

/// The argument that makes this program measure one directory, once, and print the run as JSON.
const ONCE: &str = "--once";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut out = std::io::stdout().lock();
    if let Some(at) = arguments.iter().position(|argument| argument == ONCE) {
        let directory = arguments.get(at + 1).context("a directory follows --once")?;
        writeln!(out, "{}", serde_json::to_string(&measure(Path::new(directory))?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "Machine: {}. Profile: {}.", machine(), if cfg!(debug_assertions) { "debug" } else { "release" })?;
    writeln!(out, "Milliseconds as median / largest of the runs, each run in a process of its own.")?;
    writeln!(out, "Cold start is load + compile + emit + verify; recompile is a second compile in the same process.")?;
    writeln!(out)?;
    let columns = ["load", "compile", "emit", "verify", "cold start", "recompile"];
    write!(out, "{:>7} {:>7} {:>7} {:>4}", "tables", "routes", "objects", "runs")?;
    for column in columns {
        write!(out, " {column:>15}")?;
    }
    writeln!(out, " {:>11} {:>12}", "peak memory", "snapshot")?;
    let mut last = Vec::new();
    for (tables, times) in SIZES {
        let runs = runs(World { tables: *tables }, *times)?;
        let result = &runs[0].result;
        write!(out, "{tables:>7} {:>7} {:>7} {times:>4}", result.routes, result.objects)?;
        let parts: [fn(&Run) -> Duration; 6] =
            [|r| r.load, |r| r.compile, |r| r.emit, |r| r.verify, Run::cold_start, |r| r.recompile];
        for part in parts {
            let (median, largest) = spread(&runs, |run| part(run).as_secs_f64() * 1e3);
            write!(out, " {:>15}", format!("{median:.1} / {largest:.1}"))?;
        }
        let (memory, _) = spread(&runs, |run| mebibytes(run.peak_memory));
        writeln!(out, " {:>11} {:>12}", format!("{memory:.0} MiB"), format!("{} B", result.snapshot))?;
        out.flush()?;
        last = runs;
    }
    writeln!(out)?;
    let mut kept = true;
    for (what, value, most, unit) in BUDGETS {
        let (median, _) = spread(&last, value);
        let verdict = if median <= *most { "kept" } else { "MISSED" };
        kept &= median <= *most;
        writeln!(out, "Budget at the largest size, {what}: {median:.2} of {most} {unit}: {verdict}")?;
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes a world and measures it.
fn runs(world: World, times: usize) -> anyhow::Result<Vec<Run>> {
    let folder = tempfile::tempdir().context("make a folder for the manifests")?;
    world.write(folder.path())?;
    let runs: Vec<Run> = (0..times).map(|_| run_in_child(folder.path())).collect::<anyhow::Result<_>>()?;
    let first = &runs[0].result;
    if first.routes != world.routes() || runs.iter().any(|run| run.result != *first) {
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

/// Median and largest.
fn spread(runs: &[Run], value: impl Fn(&Run) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Number of cores and model of the processor.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    format!("{cores} cores of {}", model.unwrap_or("an unknown processor"))
}
