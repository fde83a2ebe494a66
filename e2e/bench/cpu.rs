//! What processes ran and hold, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::support::wait::PATIENCE;

/// The run time of a process, by thread. Threads that end between two looks keep what they had at the last.
#[derive(Debug)]
pub(crate) struct Clock {
    pid: u32,
    threads: BTreeMap<u32, Duration>,
}

impl Clock {
    /// The clock of a process.
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, threads: BTreeMap::new() }
    }

    /// The run time of all threads so far.
    pub(crate) fn read(&mut self) -> anyhow::Result<Duration> {
        let folder = format!("/proc/{}/task", self.pid);
        for entry in fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may have ended since it was listed.
            if let Ok(ran) = run_time(self.pid, thread) {
                self.threads.insert(thread, ran);
            }
        }
        Ok(self.threads.values().sum())
    }

    /// The run time of the main thread so far.
    pub(crate) fn main_thread(&self) -> anyhow::Result<Duration> {
        run_time(self.pid, self.pid)
    }

    /// Waits until the process has nothing to do, and says when it last had, as far as one can see.
    pub(crate) async fn quiet(&mut self) -> anyhow::Result<Instant> {
        quiet(std::slice::from_mut(self)).await
    }
}

/// Waits until none of the processes has anything to do, and says when one last had, as far as one can see.
pub(crate) async fn quiet(clocks: &mut [Clock]) -> anyhow::Result<Instant> {
    let begun = Instant::now();
    let mut ran: Vec<Duration> = clocks.iter_mut().map(Clock::read).collect::<Result<_, _>>()?;
    let mut last = begun;
    let mut ticks = tokio::time::interval(LOOK);
    while last.elapsed() < QUIET && begun.elapsed() < 4 * PATIENCE {
        ticks.tick().await;
        for (clock, before) in clocks.iter_mut().zip(&mut ran) {
            let now = clock.read()?;
            if now.saturating_sub(*before) > NOTHING {
                last = Instant::now();
            }
            *before = now;
        }
    }
    Ok(last)
}

/// Between two looks at a process that is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// What a process runs in that time that has nothing to do: timers.
const NOTHING: Duration = Duration::from_micros(200);
/// How long that has to last.
const QUIET: Duration = Duration::from_millis(60);

fn run_time(pid: u32, thread: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).context("read schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("the system does not account run time")?))
}

/// Run time of a process with all threads that ever were, in steps of 10 ms.
pub(crate) fn whole(pid: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("read stat")?;
    let (_, rest) = text.rsplit_once(')').context("stat has another form")?;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Resident memory of a process now and at its most, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: u64,
    /// The most since the start, or since [`forget_peak`].
    pub(crate) peak: u64,
}

/// How many files a process may open.
pub(crate) fn files() -> anyhow::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits").context("read limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of files")?;
    // `unlimited` is enough.
    Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX))
}

/// Looks at the memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        kilobytes.map(|kilobytes| kilobytes << 10).with_context(|| format!("no {name}"))
    };
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// Waits until a process gives no more memory back, and looks at it: the allocator keeps what was freed for a second.
pub(crate) async fn settled(pid: u32) -> anyhow::Result<Memory> {
    let (begun, mut ticks) = (Instant::now(), tokio::time::interval(LOOK));
    let (mut least, mut since) = (memory(pid)?, Instant::now());
    while since.elapsed() < GIVES_BACK && begun.elapsed() < PATIENCE {
        ticks.tick().await;
        let now = memory(pid)?;
        if now.now < least.now {
            (least, since) = (now, Instant::now());
        }
    }
    Ok(least)
}

/// How long memory must not fall until it counts as settled.
const GIVES_BACK: Duration = Duration::from_secs(2);

/// Makes the peak what is resident now.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the peak of memory")
}
