//! What the compiler does for one edit, in this process and without files: the part of B2 that must not grow with the world.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use chancery::compile::{Compiled, Compiler, compile};
use chancery::crd::{Change, yaml};
use chancery::ir::GatewayPlan;
use chancery::ir::frozen::Remembered;
use chancery::resolve::Options;
use chancery::source;
use chancery::store::Store;

use super::measure::memory;
use super::report::{Report, Samples, exponent, mebibytes, milliseconds, spread};
use crate::support::bench_world::{
    CLUSTER_NAME, World, auth_policy, large_table, large_tree, large_tree_files, reaching_policy, slice_text,
    token_policy,
};

/// What is done again and again, by turns in two ways.
type Edit = (&'static str, fn(World) -> [Vec<Step>; 2]);

/// A file that is written, or whose object is deleted.
pub(crate) enum Step {
    /// Written.
    Put(String),
    /// Deleted.
    Delete(String),
}

const EDITS: [Edit; 6] = [
    ("a route", |world| ["one", "two"].map(|answer| vec![Step::Put(world.first_probe().table(answer))])),
    ("a host comes and goes", |_| {
        let table = || large_table(Path::new(""), 1, "new").1;
        [vec![Step::Put(table())], vec![Step::Delete(table())]]
    }),
    ("a policy of 20 routes", |_| {
        ["one", "two"].map(|value| vec![Step::Put(reaching_policy(Path::new(""), 20, value).1)])
    }),
    ("a JWTPolicy of 20", |_| {
        ["one", "two"].map(|audience| vec![Step::Put(token_policy(Path::new(""), 20, audience).1)])
    }),
    ("an ExtAuthPolicy of 20", |_| ["one", "two"].map(|host| vec![Step::Put(auth_policy(Path::new(""), 20, host).1)])),
    ("endpoints", |_| [1, 2].map(|last| vec![Step::Put(slice_text(0, Ipv4Addr::new(10, 99, 0, last)))])),
];

/// Children of one root table, to see what a leaf of a large tree costs.
const CHILDREN: [usize; 3] = [10, 100, 1_000];

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let sizes = report.scale.pick(vec![100, 1_000, 10_000], vec![100]);
    let samples = report.scale.pick(40, 2);
    report.line("milliseconds, median / 99th percentile; memory before and for the first step")?;
    let heads: String = EDITS.iter().map(|(name, _)| format!(" {name:>22}")).collect();
    report.line(&format!("{:>7} {:>12} {:>12} {:>12}{heads}", "routes", "from scratch", "first step", "memory"))?;
    let mut costs: Vec<Vec<(f64, f64)>> = vec![Vec::new(); EDITS.len()];
    for tables in sizes {
        let world = World { tables };
        let mut kept = Kept::load(world)?;
        let loaded = memory()?;
        let (compiled, first) = timed(|| kept.compile());
        let held = memory()?.saturating_sub(loaded);
        let (_, afresh) = timed(|| kept.afresh());
        if let Some(finding) = compiled.findings.first() {
            return Err(anyhow!("{} findings, the first: {finding:?}", compiled.findings.len()));
        }
        let mut row = String::new();
        for ((name, edit), costs) in EDITS.iter().zip(&mut costs) {
            let spent = kept.measure(&edit(world), samples).with_context(|| (*name).to_owned())?;
            costs.push((world.routes() as f64, milliseconds(spent.median())));
            row.push_str(&format!(" {:>22}", spread(&spent)));
        }
        report.line(&format!(
            "{:>7} {:>12.1} {:>12.1} {:>12}{row}",
            world.routes(),
            milliseconds(afresh),
            milliseconds(first),
            format!("{:.0}+{:.0} MiB", mebibytes(loaded), mebibytes(held))
        ))?;
    }
    for ((name, _), costs) in EDITS.iter().zip(&costs).filter(|(_, costs)| costs.len() > 1) {
        let growth = exponent(costs);
        report.line(&format!("growth exponent of {name}: {growth:.3}"))?;
        report.goal(&format!("growth exponent of {name}, compiled"), growth, 0.05, "")?;
    }
    let mut large = Vec::new();
    for children in report.scale.pick(&CHILDREN[..], &CHILDREN[..1]) {
        let mut kept = Kept::load(World { tables: 100 })?;
        kept.edit(&[Step::Put(large_tree(*children, "first"))])?;
        let edits = ["one", "two"].map(|answer| vec![Step::Put(large_tree_leaf(*children, answer))]);
        let spent = kept.measure(&edits, samples)?;
        large.push((*children as f64, milliseconds(spent.median())));
        report.line(&format!("{:>21} {children:>5} {}", "a leaf of a tree of", spread(&spent)))?;
    }
    if large.len() > 1 {
        report.line(&format!("growth exponent of a leaf, in leaves of its tree: {:.3}", exponent(&large)))?;
    }
    Ok(())
}

fn large_tree_leaf(children: usize, answer: &str) -> String {
    large_tree_files(children, answer).1
}

/// A world that is compiled step by step.
pub(crate) struct Kept {
    store: Store,
    compiler: Compiler,
    remembered: Arc<Remembered>,
    last: Option<Compiled>,
    /// Where edits are.
    cluster: &'static str,
}

impl Kept {
    /// Reads a world.
    pub(crate) fn load(world: World) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the manifests")?;
        world.write(folder.path())?;
        Self::of(folder.path(), CLUSTER_NAME)
    }

    /// Reads what is in a folder, to be edited in a cluster.
    pub(crate) fn of(folder: &Path, cluster: &'static str) -> anyhow::Result<Self> {
        let loaded = source::read(&[folder.to_owned()], &source::Options::default())?;
        let store = Store::from_objects(loaded.objects);
        Ok(Self {
            store,
            compiler: Compiler::new(&Options::default()),
            remembered: Arc::default(),
            last: None,
            cluster,
        })
    }

    /// Compiles it from scratch.
    pub(crate) fn afresh(&self) -> Compiled {
        compile(&self.store, &[], &Options::default(), &BTreeSet::new(), &self.remembered)
    }

    /// Compiles what is not compiled yet.
    pub(crate) fn compile(&mut self) -> Compiled {
        let nobody = BTreeSet::new();
        let compiled = self.compiler.step(&self.store, &[], &Options::default(), &nobody, &self.remembered);
        self.remembered = compiled.remembered.clone();
        self.last = Some(compiled.clone());
        compiled
    }

    /// The plan of the first gateway.
    pub(crate) fn plan(&self) -> Option<&GatewayPlan> {
        self.last.as_ref()?.plans.values().next().map(|plan| &**plan)
    }

    /// Makes an edit, and says how long the store and the compiler took.
    pub(crate) fn edit(&mut self, steps: &[Step]) -> anyhow::Result<Duration> {
        let mut changes = Vec::new();
        for step in steps {
            let (Step::Put(text) | Step::Delete(text)) = step;
            let source = yaml::Source {
                file: "edit.yaml".into(),
                cluster: self.cluster.into(),
                default_namespace: "default".into(),
            };
            let decoded = yaml::decode(text.as_bytes(), &source, &yaml::Limits::default());
            let decoded = decoded.map_err(|finding| anyhow!("{finding:?}"))?;
            ensure!(decoded.findings.is_empty(), "{:?}", decoded.findings);
            changes.extend(decoded.objects.into_iter().map(|object| match step {
                Step::Put(_) => Change::Put(Arc::new(object)),
                Step::Delete(_) => Change::Delete(object.meta.id.clone()),
            }));
        }
        let ((), spent) = timed(|| {
            self.store.apply(changes);
            self.compile();
        });
        Ok(spent)
    }

    /// Makes two edits by turns.
    pub(crate) fn measure(&mut self, edits: &[Vec<Step>; 2], samples: usize) -> anyhow::Result<Samples> {
        for edit in edits {
            self.edit(edit)?;
        }
        let mut spent = Samples::default();
        for sample in 0..samples {
            let before = self.last.as_ref().map(|compiled| compiled.plans.clone());
            spent.push(self.edit(&edits[sample % 2])?);
            let is_other = self.last.as_ref().map(|compiled| &compiled.plans) != before.as_ref();
            ensure!(is_other, "an edit changes no plan");
        }
        Ok(spent)
    }
}

/// Does something, and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}
