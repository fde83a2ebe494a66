//! The compiler that keeps against the one that does not, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::compile::{Compiled, compile};
use crate::crd::{Change, Object};
use crate::model::ObjectRef;
use crate::resolve::world::World as _;
use crate::testing::decode;
use crate::testing::mutation::{Mutation, WORLDS_AS_WRITTEN, World, apply, mutation, options};

use super::*;

mod layers;

/// How many scripts are tried.
const SCRIPTS: u32 = 150;

/// A compiler, the store that it follows, and what it remembers.
struct Pair {
    store: Store,
    compiler: Compiler,
    remembered: Arc<Remembered>,
    wanted: BTreeSet<GatewayId>,
}

impl Pair {
    fn new() -> Self {
        let compiler = Compiler::new(&options());
        Self { store: Store::default(), compiler, remembered: Arc::default(), wanted: BTreeSet::new() }
    }

    /// Makes the store hold a world, by changes alone.
    fn put(&mut self, world: &World) -> Findings {
        let (objects, findings) = decode(world.clone());
        let mut once: BTreeMap<ObjectRef, Arc<Object>> = BTreeMap::new();
        for object in objects {
            once.entry(object.meta.id.clone()).or_insert(object);
        }
        let gone: Vec<ObjectRef> =
            self.store.objects().map(|object| object.meta.id.clone()).filter(|id| !once.contains_key(id)).collect();
        let changed = once.into_values().filter(|object| self.store.get(&object.meta.id) != Some(object));
        let batch: Vec<Change> = changed.map(Change::Put).chain(gone.into_iter().map(Change::Delete)).collect();
        self.store.apply(batch);
        findings
    }

    /// Compiles in both ways.
    fn compile(&mut self, given: &Findings) -> (Compiled, Compiled) {
        let kept = self.compiler.step(&self.store, given, &self.wanted, &self.remembered);
        let afresh = compile(&self.store, given, &options(), &self.wanted, &self.remembered);
        self.remembered = kept.remembered.clone();
        (kept, afresh)
    }

    fn step(&mut self, world: &World) -> Result<(), TestCaseError> {
        let given = self.put(world);
        let (kept, afresh) = self.compile(&given);
        same(&kept, &afresh)
    }
}

/// Whether two results are the same, by everything that can be asked of them.
fn same(kept: &Compiled, afresh: &Compiled) -> Result<(), TestCaseError> {
    prop_assert_eq!(kept.findings.to_vec(), afresh.findings.to_vec());
    prop_assert_eq!(kept.findings.len(), afresh.findings.len());
    prop_assert_eq!(&kept.bindings, &afresh.bindings);
    prop_assert!(kept.trees == afresh.trees, "other trees");
    let gateways = |compiled: &Compiled| compiled.plans.keys().cloned().collect::<Vec<_>>();
    prop_assert_eq!(gateways(kept), gateways(afresh));
    for (gateway, plan) in &afresh.plans {
        let own = &kept.plans[gateway];
        prop_assert_eq!(&own.listeners, &plan.listeners);
        prop_assert_eq!(&own.upstreams, &plan.upstreams);
        prop_assert!(own == plan, "another plan of {}", gateway);
    }
    prop_assert_eq!(&kept.verdicts, &afresh.verdicts);
    prop_assert_eq!(&kept.remembered, &afresh.remembered);
    prop_assert_eq!(kept.inputs.roster(), afresh.inputs.roster());
    let ids = |compiled: &Compiled| compiled.objects.objects().map(|object| object.meta.id.clone()).collect::<Vec<_>>();
    prop_assert_eq!(ids(kept), ids(afresh));
    Ok(())
}

/// Lets some root tables freeze.
fn freeze_some(world: &mut World, every: usize) {
    let roots = world.iter_mut().filter(|(_, object)| object["spec"].get("hosts").is_some());
    for (_, table) in roots.step_by(every) {
        table["spec"]["failureMode"] = json!("FREEZE_CONFIG");
    }
}

/// What one step of a script does.
#[derive(Clone, Debug)]
enum Act {
    /// Several things go wrong at once.
    Break(Vec<Mutation>),
    /// Everything is as it was in the beginning.
    Restore,
    /// One object is as it was in the beginning, or there again.
    Mend(Index),
    /// One object is gone.
    Delete(Index),
    /// Nothing changes.
    Nothing,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(mutation(), 1..4).prop_map(Act::Break),
        1 => Just(Act::Restore),
        3 => any::<Index>().prop_map(Act::Mend),
        2 => any::<Index>().prop_map(Act::Delete),
        1 => Just(Act::Nothing),
    ]
}

fn play(world: &mut World, first: &World, act: &Act) {
    match act {
        Act::Break(mutations) => mutations.iter().for_each(|mutation| apply(world, mutation)),
        Act::Restore => world.clone_from(first),
        Act::Mend(index) => {
            let (cluster, object) = index.get(first);
            let is_it = |other: &Value| other["kind"] == object["kind"] && other["metadata"] == object["metadata"];
            world.retain(|(_, other)| !is_it(other));
            world.push((cluster.clone(), object.clone()));
        }
        Act::Delete(index) => {
            if !world.is_empty() {
                world.remove(index.index(world.len()));
            }
        }
        Act::Nothing => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: SCRIPTS,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn r2_after_every_step_the_result_is_what_compiling_from_scratch_gives(
        world in any::<Index>(),
        freezing in 0_usize..4,
        script in prop::collection::vec(act(), 1..12),
    ) {
        let mut first = world.get(&WORLDS_AS_WRITTEN).clone();
        if freezing > 0 {
            freeze_some(&mut first, freezing);
        }
        let mut world = first.clone();
        let mut pair = Pair::new();
        pair.step(&world)?;
        for act in &script {
            play(&mut world, &first, act);
            pair.step(&world)?;
        }
    }

    #[test]
    fn r2_the_order_of_arrival_does_not_matter_to_what_is_kept(
        world in any::<Index>(),
        order in any::<u64>(),
        batch in 1_usize..5,
    ) {
        let world = world.get(&WORLDS_AS_WRITTEN).clone();
        let mut arriving: Vec<(u64, (String, Value))> = world.iter().cloned().enumerate().map(|(index, object)| {
            let mixed = (index as u64 + 1).wrapping_mul(order | 1).rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed, object)
        }).collect();
        arriving.sort_by_key(|(mixed, _)| *mixed);
        let mut pair = Pair::new();
        let mut now = World::new();
        for objects in arriving.chunks(batch) {
            now.extend(objects.iter().map(|(_, object)| object.clone()));
            pair.step(&now)?;
        }
    }
}
