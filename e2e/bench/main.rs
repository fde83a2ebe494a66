//! `make bench`: what a change costs, from a file to a gateway, beside its floor.
//!
//! | variable | effect |
//! |---|---|
//! | `ONLY=B1,B3` | only these, in the order of the list |
//! | `BENCH_SMALL=1` | small sizes, in seconds, without goals |
//! | `BENCH_STRICT=1` | a missed goal makes the exit code 1; else only a cell that fails does |
//!
//! B2, B3 and B6 to B9 have no floor beside them: they count CPU, bytes and answers, or compare with the same run at rest, and a
//! replay of ready bytes does not follow files. A cell fails on any wrong answer; then it has no figures. What the goals are about is two cores with nothing else to do.

#[path = "cells.rs"]
mod cells;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};
use mimalloc::MiMalloc;

use cells::CELLS;
use cells::compile::ONCE;
use cells::report::{Report, Scale};

/// That of the program, for the cells that compile in this process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut out = std::io::stdout();
    if let Some(at) = arguments.iter().position(|argument| argument == ONCE) {
        let directory = arguments.get(at + 1).context("a directory follows --once")?;
        let run = cells::measure::measure(Path::new(directory))?;
        writeln!(out, "{}", serde_json::to_string(&run)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
    let scale = if is_set("BENCH_SMALL") { Scale::Small } else { Scale::Full };
    let chosen = chosen(&std::env::var("ONLY").unwrap_or_default())?;
    writeln!(out, "Machine: {}. Profile: {}.", machine(), if cfg!(debug_assertions) { "debug" } else { "release" })?;
    writeln!(
        out,
        "Chancery: {}. Envoy: {}.",
        version(&support::chancery::binary()?),
        version(&support::envoy::find()?)
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(scale, &mut out);
    let mut failed = Vec::new();
    for (name, what) in chosen {
        let begun = Instant::now();
        report.line(&format!("\n{name}: {what}"))?;
        if let Err(error) = runtime.block_on(cells::run(name, &mut report)) {
            report.line(&format!("  FAILED: {error:#}"))?;
            failed.push(name);
        }
        report.line(&format!("  ({:.0} s, load {})", begun.elapsed().as_secs_f64(), load()))?;
    }
    let (goals, missed) = (report.goals(), report.missed());
    report.line(&format!("\n{goals}{missed} goals missed, failed cells: {failed:?}"))?;
    let is_bad = !failed.is_empty() || (missed > 0 && is_set("BENCH_STRICT"));
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The cells that a list names, all of them if it is empty.
fn chosen(only: &str) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let wanted: Vec<&str> = only.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let is_known = |wanted: &&&str| CELLS.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if let Some(unknown) = wanted.iter().find(|name| !is_known(name)) {
        let names: Vec<&str> = CELLS.iter().map(|(name, _)| *name).collect();
        bail!("ONLY names {unknown}; there are {names:?}");
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
    Ok(CELLS.iter().copied().filter(|(name, _)| is_wanted(name)).collect())
}

/// Number of cores and model of the processor.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {}, Linux {}", model.unwrap_or("an unknown processor"), kernel.trim())
}

/// What a program says of its version.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown").to_owned()
}

/// How busy the machine was in the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
