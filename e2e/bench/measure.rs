//! One measured run: a directory of manifests to the snapshot of its gateway, as `serve` does it at its start.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chancery::compile::{Compiled, compile};
use chancery::emit::{EmitOptions, emit_gateway};
use chancery::ir::frozen::Remembered;
use chancery::model::Findings;
use chancery::resolve::Options;
use chancery::snapshot::verify::verify;
use chancery::snapshot::{ResourceType, Snapshot};
use chancery::source;
use chancery::store::Store;
use serde::{Deserialize, Serialize};

/// What one run took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Reading and decoding the files.
    pub(crate) load: Duration,
    /// Objects to plans and verdicts.
    pub(crate) compile: Duration,
    /// Plan to snapshot.
    pub(crate) emit: Duration,
    /// The checker before publishing.
    pub(crate) verify: Duration,
    /// Largest resident memory until here, in bytes.
    pub(crate) peak_memory: u64,
    /// Compiling the same objects once more, with the first result still alive: what every edit costs.
    pub(crate) recompile: Duration,
    /// What came out.
    pub(crate) result: Outcome,
}

impl Run {
    /// From files to a snapshot that may be published.
    pub(crate) fn cold_start(&self) -> Duration {
        self.load + self.compile + self.emit + self.verify
    }
}

/// The size of what a run produced; the same in every run of one world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Objects that were read.
    pub(crate) objects: usize,
    /// Routes of all virtual hosts.
    pub(crate) routes: usize,
    /// Routes with a policy.
    pub(crate) with_policies: usize,
    /// Clusters.
    pub(crate) clusters: usize,
    /// Bytes of all resources.
    pub(crate) snapshot: u64,
}

/// Runs once.
///
/// # Errors
/// Where the world is not what it should be: findings, no gateway, or a snapshot that would not be published.
pub(crate) fn measure(directory: &Path) -> anyhow::Result<Run> {
    let begun = Instant::now();
    let loaded = source::read(&[directory.to_owned()], &source::Options::default())?;
    let store = Store::from_objects(loaded.objects.iter().cloned());
    let load = begun.elapsed();

    let (compiled, compile) = timed(|| compile_all(&store, &loaded.findings));
    let plan = compiled.plans.values().next().context("there is no gateway")?;
    let (snapshot, emit) = timed(|| emit_gateway(plan, &EmitOptions::default()));
    let (violations, verify) = timed(|| verify(&snapshot));
    let peak_memory = peak_memory()?;
    let (_, recompile) = timed(|| compile_all(&store, &loaded.findings));

    if let Some(finding) = compiled.findings.first() {
        bail!("{} findings, the first: {finding:?}", compiled.findings.len());
    }
    if let Some(violation) = violations.first() {
        bail!("{} violations, the first: {violation}", violations.len());
    }
    let result = outcome(store.len(), &compiled, &snapshot);
    Ok(Run { load, compile, emit, verify, peak_memory, recompile, result })
}

fn compile_all(store: &Store, findings: &Findings) -> Compiled {
    compile(store, findings, &Options::default(), &BTreeSet::new(), &Remembered::default())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

fn outcome(objects: usize, compiled: &Compiled, snapshot: &Snapshot) -> Outcome {
    let hosts =
        compiled.plans.values().flat_map(|plan| plan.listeners.values()).flat_map(|listener| listener.virtual_hosts());
    let routes: Vec<_> = hosts.flat_map(|host| &host.routes).collect();
    let bodies =
        ResourceType::ALL.into_iter().flat_map(|kind| snapshot.resources(kind).values().cloned().collect::<Vec<_>>());
    Outcome {
        objects,
        routes: routes.len(),
        with_policies: routes.iter().filter(|route| !route.body.policies.is_empty()).count(),
        clusters: snapshot.resources(ResourceType::Cluster).len(),
        snapshot: bodies.map(|resource| resource.body.len() as u64).sum(),
    }
}

/// The largest resident memory of this process so far, in bytes.
fn peak_memory() -> anyhow::Result<u64> {
    counted("VmHWM:")
}

/// The resident memory of this process, in bytes.
pub(crate) fn memory() -> anyhow::Result<u64> {
    counted("VmRSS:")
}

fn counted(what: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read the state of this process")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("the system counts no memory")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("the system counts in kB")?;
    Ok(kibibytes * 1024)
}
