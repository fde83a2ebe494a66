//! The same as [`compile`](super::compile()), at the cost of what changed.
//!
//! [`Compiler`] keeps every part of its last result with what the part was made from, and makes anew only parts that read
//! something that is different now. In this order, each layer reading only those above it:
//!
//! | layer | kept by | made anew when |
//! |---|---|---|
//! | checked form | object | the object is another |
//! | rules of a rate-limit service | configuration | it, or a server that it names, is another |
//! | settled policy | policy | an object, Secret or destination that it refers to is another |
//! | trust | – | a policy of it, a Secret that they name or the kept root is another |
//! | roster | – | a cluster, workspace, settings or namespace is another; if it differs, all below is made anew |
//! | offer to clients inside the clusters | object | the object is another |
//! | clients | namespace of a cluster with an east-west gateway | a Pod there is another |
//! | binding | root table | what it read changed (`slots`) |
//! | tree with policies | root table | the same, or where it binds, or what is remembered of it |
//! | fragment | delegation, and table below it, of a tree | what stands above it, or what it read, changed |
//! | piece | gateway, tree and run of its routes | the routes, or a destination's sharing, changed |
//! | listeners | gateway | virtual gateways, their Services or secrets changed; bindings too, where there is a port with TLS or TCP |
//! | domains | gateway and plain HTTP port | tables that claim the domain are others |
//! | virtual host | gateway and domain | its tables, or their pieces, changed; of many pieces, only those that are others |
//! | what policies share | gateway | such a policy of an owner of its tables and destinations is another, or there are others |
//! | upstream | gateway and destination | its object, endpoints or protection changed, or the way to its cluster |
//! | identity | gateway that sends or receives | trust or its Pods' account changed |
//! | crossing | gateway | somebody sends to something else in its cluster, or is somebody else |
//! | findings, verdict | object | something else is said or counted about it (`outcome`) |
//!
//! Rules see only [`World`], whose recording form notes every question, also those without an answer. A part that comes
//! out equal is the same part, so that nothing below it is made. Deleting an object frees everything made from it.

mod crossing;
mod endpoints;
mod fragments;
mod limits;
mod made;
mod mesh;
mod outcome;
mod serving;
mod settling;
mod sharing;
mod slots;

pub use endpoints::{Endpoints, Led, Moved};
pub use slots::SecretRead;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::crd::Object;
use crate::ir::GatewayPlan;
use crate::ir::frozen::Remembered;
use crate::ir::policy::rate_limit::LimitPlan;
use crate::memo::Reads;
use crate::model::{Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef};
use crate::resolve::Options;
use crate::resolve::attachment::Beaten;
use crate::resolve::balancing::Place;
use crate::resolve::facts::{FailureMode, PolicyObject, Table, TableRole};
use crate::resolve::gateway::{Bindings, GrownTree, Segment, TableBindings, is_remembered, is_unread};
use crate::resolve::lower::{Lowered, lower};
use crate::resolve::mesh::Mesh;
use crate::resolve::policy::rate_limit::serving::Delivery;
use crate::resolve::roster::{RosterInputs, resolve_roster};
use crate::resolve::world::World;
use crate::store::Store;

use super::full::Compiled;
use super::inputs::{Inputs, misplaced, namespace_of};
use crossing::Exposed;
use endpoints::Backed;
use outcome::{Origin, Outcome};
use serving::{Claims, Serving};
use settling::Referring;
use slots::{Dirty, Reader, Slot, take, touch};

/// How many parts of each layer a step made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Whether the roster is another, or nothing was kept, so that everything but checked forms was made.
    pub is_restart: bool,
    /// Objects that were checked.
    pub lowered: usize,
    /// Root tables that were bound.
    pub bindings: usize,
    /// Trees that were expanded and got their policies.
    pub trees: usize,
    /// Parts of these that were expanded.
    pub fragments: usize,
    /// Pieces of trees whose destinations were checked for a gateway.
    pub pieces: usize,
    /// Gateways whose listeners were arranged.
    pub listeners: usize,
    /// Virtual hosts.
    pub hosts: usize,
    /// Upstreams.
    pub upstreams: usize,
    /// Gateways that looked at what others send to them.
    pub crossings: usize,
    /// Verdicts.
    pub verdicts: usize,
}

/// Compiles again and again.
#[derive(Debug)]
pub struct Compiler {
    kept: Kept,
    last: Step,
}

/// The checked form of an object.
#[derive(Clone, Debug, PartialEq)]
struct Fact {
    lowered: Lowered,
    findings: Findings,
    /// An admin object where it does not count.
    is_misplaced: bool,
}

/// A change of one object: its checked form before and now.
type Turn = (ObjectRef, Option<Arc<Fact>>, Option<Arc<Fact>>);

/// What the roster is made from.
#[derive(Debug, Default)]
struct RosterFacts {
    /// How many objects name a namespace.
    namespaces: BTreeMap<(Name, Name), usize>,
    /// Labels, clusters, workspaces and settings.
    facts: BTreeMap<ObjectRef, Lowered>,
    is_changed: bool,
}

/// Everything that is kept.
#[derive(Debug)]
struct Kept {
    /// Whether anything was compiled.
    is_begun: bool,
    store: Store,
    given: Findings,
    remembered: Arc<Remembered>,
    /// Root tables whose memory is another than the one that their tree was made with.
    recalled: BTreeSet<ObjectRef>,
    /// Whether some file holds nothing that can be read.
    is_unread: bool,
    /// Root tables of which something is remembered only because of that.
    held_back: BTreeSet<ObjectRef>,
    facts: BTreeMap<ObjectRef, Arc<Fact>>,
    roster: RosterFacts,
    made: Made,
}

/// What is made under one roster.
#[derive(Debug)]
struct Made {
    /// Policies that select destinations or workloads.
    targeting: BTreeMap<ObjectRef, Arc<PolicyObject>>,
    /// Policies that refer to other objects.
    referring: BTreeMap<ObjectRef, Referring>,
    /// Where configurations of limits go.
    deliveries: BTreeMap<ObjectRef, Delivery>,
    /// What each rate-limit service is told.
    limits: OrdMap<ObjectRef, Arc<LimitPlan>>,
    inputs: Inputs,
    reads: Reads<Slot, Reader>,
    bindings: Bindings,
    bound: BTreeMap<ObjectRef, TableBindings>,
    mesh: Mesh,
    clients: BTreeMap<Name, mesh::Clients>,
    trees: OrdMap<ObjectRef, Arc<GrownTree>>,
    /// What trees are put together from.
    groves: BTreeMap<ObjectRef, Grove>,
    /// Fragments, segments and pieces that were ever made.
    numbers: u64,
    backed: Backed,
    broken: BTreeSet<ObjectRef>,
    /// How many bound trees serve a table.
    reached: BTreeMap<ObjectRef, usize>,
    /// What each tree adds to [`Made::reached`].
    reaches: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    beaten: BTreeMap<Beaten, BTreeMap<ObjectRef, Vec<String>>>,
    /// Gateway Services that some virtual gateway is served by.
    known: BTreeSet<GatewayId>,
    classes: BTreeSet<GatewayId>,
    serving: BTreeMap<GatewayId, Serving>,
    /// Who sends to what in other clusters.
    exposed: Exposed,
    /// Where gateways are, of which somebody asked that.
    places: BTreeMap<GatewayId, Place>,
    plans: OrdMap<GatewayId, Arc<GatewayPlan>>,
    outcome: Outcome,
}

/// What a tree is put together from.
#[derive(Debug, Default)]
struct Grove {
    fragments: Vec<fragments::Kept>,
    /// The segments of which something is told, each with its number; none while the tree is frozen.
    told: Vec<(Arc<Segment>, u64)>,
}

impl Compiler {
    /// A compiler that keeps nothing yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { kept: Kept::new(options), last: Step::default() }
    }

    /// Compiles everything, as [`compile`](super::compile()) does with the same arguments.
    ///
    /// # Cost
    /// In proportion to what is different since the last step and what was made from it, and the logarithm of the rest; a
    /// new plan copies two words for each of its hosts.
    ///
    /// # Rule
    /// R2.
    pub fn step(
        &mut self,
        store: &Store,
        given: &[Finding],
        options: &Options,
        wanted: &BTreeSet<GatewayId>,
        remembered: &Arc<Remembered>,
    ) -> Compiled {
        let mut step = Step::default();
        // Nothing of a step that panics is used again.
        let mut kept = std::mem::replace(&mut self.kept, Kept::new(options));
        let is_recalled = Arc::ptr_eq(&kept.remembered, remembered) || *kept.remembered == **remembered;
        // Another kept root is a part like any other.
        let before = kept.made.inputs.options();
        let has_same_options = Options { kept_root: before.kept_root.clone(), ..options.clone() } == *before;
        if !is_recalled || !has_same_options {
            kept = Kept { remembered: remembered.clone(), ..Kept::new(options) };
        }
        let compiled = kept.step(options, store, given, wanted, &mut step);
        self.kept = kept;
        self.last = step;
        compiled
    }

    /// The endpoints of what the last step came to, to go on with.
    #[must_use]
    pub fn endpoints(&self, compiled: &Compiled) -> Endpoints {
        Endpoints::new(compiled, self.kept.made.backed.clone())
    }

    /// Which Secrets the last step, and those before it whose parts are kept, asked for: by identity, whether they are there or
    /// not, and by label.
    ///
    /// # Cost
    /// In proportion to the answers.
    pub fn secrets(&self) -> impl Iterator<Item = SecretRead<'_>> {
        self.kept.made.reads.secrets()
    }

    /// What the last step made.
    #[must_use]
    pub fn last(&self) -> Step {
        self.last
    }

    /// How many parts and reads are held.
    #[must_use]
    pub fn held(&self) -> usize {
        let made = &self.kept.made;
        let (readers, slots) = made.reads.len();
        let serving: usize = made.serving.values().map(Serving::len).sum();
        let maps = [
            self.kept.facts.len(),
            self.kept.roster.namespaces.len(),
            self.kept.roster.facts.len(),
            self.kept.recalled.len(),
            self.kept.held_back.len(),
            made.bound.len(),
            made.mesh.len(),
            made.clients.values().map(mesh::Clients::len).sum(),
            made.trees.len(),
            made.groves.values().map(|grove| fragments::count(&grove.fragments) + grove.told.len()).sum(),
            made.targeting.len(),
            made.referring.len(),
            made.broken.len(),
            made.reached.len(),
            made.reaches.len(),
            made.beaten.len(),
            made.known.len(),
            made.backed.len(),
            made.deliveries.len(),
            made.limits.len(),
            made.exposed.len(),
            made.places.len(),
        ];
        readers + slots + serving + made.outcome.len() + maps.iter().sum::<usize>()
    }
}

impl RosterFacts {
    fn change(&mut self, id: &ObjectRef, before: Option<&Fact>, now: Option<&Fact>) {
        if let Some(namespace) = namespace_of(id) {
            let place = (id.cluster.clone(), namespace.clone());
            match (before.is_some(), now.is_some()) {
                (false, true) => {
                    let uses = self.namespaces.entry(place).or_default();
                    *uses += 1;
                    self.is_changed |= *uses == 1;
                }
                (true, false) => {
                    if let Some(uses) = self.namespaces.get_mut(&place) {
                        *uses -= 1;
                        if *uses == 0 {
                            self.namespaces.remove(&place);
                            self.is_changed = true;
                        }
                    }
                }
                _ => {}
            }
        }
        let matters = |fact: &&Fact| {
            !fact.is_misplaced
                && matches!(
                    fact.lowered,
                    Lowered::Namespace(_) | Lowered::Cluster(_) | Lowered::Workspace(_) | Lowered::Settings(_)
                )
        };
        let now = now.filter(matters).map(|fact| fact.lowered.clone());
        if self.facts.get(id) != now.as_ref() {
            self.is_changed = true;
            match now {
                Some(fact) => drop(self.facts.insert(id.clone(), fact)),
                None => drop(self.facts.remove(id)),
            }
        }
    }

    fn inputs(&self) -> RosterInputs {
        let mut inputs = RosterInputs::default();
        for (cluster, namespace) in self.namespaces.keys() {
            inputs.namespaces.entry(cluster.clone()).or_default().insert(namespace.clone(), Labels::new());
        }
        for (id, fact) in &self.facts {
            match fact {
                Lowered::Namespace(labels) => {
                    let namespaces = inputs.namespaces.entry(id.cluster.clone()).or_default();
                    namespaces.insert(id.name.clone(), labels.clone());
                }
                Lowered::Cluster(cluster) => inputs.clusters.push(cluster.clone()),
                Lowered::Workspace(workspace) => inputs.workspaces.push(workspace.clone()),
                Lowered::Settings(settings) => inputs.settings.push(settings.clone()),
                _ => {}
            }
        }
        inputs
    }
}

impl Kept {
    fn new(options: &Options) -> Self {
        Self {
            is_begun: false,
            store: Store::default(),
            given: Findings::new(),
            remembered: Arc::default(),
            recalled: BTreeSet::new(),
            is_unread: false,
            held_back: BTreeSet::new(),
            facts: BTreeMap::new(),
            roster: RosterFacts::default(),
            made: Made::new(options, Arc::default()),
        }
    }

    fn step(
        &mut self,
        options: &Options,
        store: &Store,
        given: &[Finding],
        wanted: &BTreeSet<GatewayId>,
        step: &mut Step,
    ) -> Compiled {
        let mut turns = self.take_in(options, store, step);
        let mut dirty = Dirty::new();
        let mut plans = OrdMap::new();
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if std::mem::take(&mut self.roster.is_changed) || is_first {
            let (roster, found) = resolve_roster(&self.roster.inputs(), options);
            if is_first || roster != *self.made.inputs.roster() {
                step.is_restart = true;
                self.given.clear();
                plans = std::mem::take(&mut self.made.plans);
                self.made = Made::new(options, Arc::new(roster));
                self.made.count_roster();
                dirty.extend([Reader::Trust, Reader::Classes, Reader::Unimplemented, Reader::EastWest]);
                // What is remembered of tables that are no more is dropped.
                dirty.extend(self.remembered.accepted.keys().cloned().map(Reader::Tree));
                dirty.extend(self.remembered.replacing.iter().cloned().map(Reader::Tree));
                turns = self.facts.iter().map(|(id, fact)| (id.clone(), None, Some(fact.clone()))).collect();
                turns.iter().for_each(|(id, ..)| self.made.outcome.changed(id));
            }
            self.made.outcome.set(Origin::Roster, found);
        }
        if self.given != given {
            self.given = given.to_vec();
            self.made.outcome.set(Origin::Given, given.to_vec());
        }
        self.is_unread = is_unread(given);
        if !self.is_unread {
            dirty.extend(std::mem::take(&mut self.held_back).into_iter().map(Reader::Tree));
        }
        if self.made.inputs.options().kept_root != options.kept_root {
            dirty.insert(Reader::Trust);
        }
        let made = &mut self.made;
        let mut children: BTreeSet<ObjectRef> = BTreeSet::new();
        let mut services: BTreeSet<ObjectRef> = BTreeSet::new();
        // What may be offered to clients inside the clusters.
        let mut offering: BTreeSet<ObjectRef> = BTreeSet::new();
        // What says where gateways are.
        let moves = turns.iter().any(|(id, ..)| matches!(id.kind, Kind::Pod | Kind::Node | Kind::Service));
        for (id, before, now) in turns {
            made.turn(&id, before.as_deref(), now.as_deref(), &mut dirty);
            if matches!(id.kind, Kind::RouteTable | Kind::VirtualDestination | Kind::ExternalService | Kind::Service) {
                offering.insert(id.clone());
            }
            match id.kind {
                Kind::RouteTable => {
                    children.insert(id.clone());
                    dirty.extend([Reader::Binding(id.clone()), Reader::Tree(id)]);
                }
                Kind::RateLimitServerConfig => drop(dirty.insert(Reader::Delivery(id))),
                Kind::VirtualDestination | Kind::ExternalService => drop(dirty.insert(Reader::Backing(id))),
                Kind::Service => drop(services.insert(id)),
                Kind::RootTrustPolicy => drop(dirty.insert(Reader::Trust)),
                _ if id.kind.is_v2() => drop(dirty.insert(Reader::NoEffect(id))),
                _ => {}
            }
        }
        dirty.extend(std::mem::take(&mut self.recalled).into_iter().map(Reader::Tree));
        made.settle_places(moves, &mut dirty);
        made.settle_trust(&options.kept_root, &mut dirty);
        made.settle_policies(&mut dirty);
        made.deliver(&mut dirty);
        let mut claims = Claims::default();
        made.bind(&mut dirty, &mut claims, step);
        claims.mesh = made.offer(offering, &mut dirty);
        for (table, is_broken) in made.outcome.take_early() {
            let changed = if is_broken { made.broken.insert(table.clone()) } else { made.broken.remove(&table) };
            if changed {
                touch(&made.reads, &Slot::Broken(table), &mut dirty);
            }
        }
        let mut stale: BTreeMap<ObjectRef, BTreeSet<u64>> = BTreeMap::new();
        for reader in take(&mut dirty, |reader| matches!(reader, Reader::Fragment(..))) {
            let Reader::Fragment(root, number) = reader else { continue };
            stale.entry(root.clone()).or_default().insert(number);
            dirty.insert(Reader::Tree(root));
        }
        let mut changed_trees: BTreeSet<ObjectRef> = BTreeSet::new();
        for reader in take(&mut dirty, |reader| matches!(reader, Reader::Tree(_))) {
            let Reader::Tree(root) = &reader else { continue };
            let before = self.made.trees.get(root).cloned();
            let stale = stale.remove(root).unwrap_or_default();
            let remembered = self.made.grow(root, stale, (&self.remembered, self.is_unread), &mut children, step);
            self.recall(root, &remembered);
            let now = self.made.trees.get(root);
            if before.as_ref().map(Arc::as_ptr) != now.map(Arc::as_ptr) {
                changed_trees.insert(root.clone());
                // A tree that comes or goes does so with its bindings.
                if before.as_ref().zip(now).is_some_and(|(before, now)| before.claims_http() != now.claims_http()) {
                    self.made.claim(root, &mut dirty, &mut claims);
                }
            }
        }
        let made = &mut self.made;
        for child in children {
            made.look_after(&child);
        }
        made.tell_others(&mut dirty, &services, wanted);
        made.tell_clients(&mut dirty);
        made.serve(dirty, &changed_trees, &claims, step);
        // What somebody asked for the first time is known as it is now.
        made.settle_places(false, &mut Dirty::new());
        made.keep_plans(&plans);
        step.verdicts = made.outcome.render(store, &made.inputs);
        self.store = store.clone();
        Compiled {
            inputs: made.inputs.clone(),
            trees: made.trees.clone(),
            bindings: made.bindings.clone(),
            mesh: made.mesh.clone(),
            plans: made.plans.clone(),
            findings: made.outcome.reported.clone(),
            verdicts: made.outcome.verdicts.clone(),
            limits: made.limits.clone(),
            remembered: self.remembered.clone(),
            objects: store.clone(),
        }
    }

    /// Checks objects that are others than before.
    fn take_in(&mut self, options: &Options, store: &Store, step: &mut Step) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (before, now) in store.changes(&self.store) {
            let Some(id) = now.or(before).map(|object| object.meta.id.clone()) else { continue };
            self.made.outcome.changed(&id);
            let known = self.facts.get(&id).cloned();
            let fact = now.map(|object| {
                step.lowered += 1;
                check(object, options)
            });
            if known.as_deref() == fact.as_ref() {
                continue;
            }
            self.roster.change(&id, known.as_deref(), fact.as_ref());
            let fact = fact.map(Arc::new);
            match &fact {
                Some(fact) => drop(self.facts.insert(id.clone(), fact.clone())),
                None => drop(self.facts.remove(&id)),
            }
            turns.push((id, known, fact));
        }
        turns
    }

    /// Takes over what is remembered of a root table now.
    fn recall(&mut self, root: &ObjectRef, now: &Remembered) {
        if self.is_unread && now.accepted.contains_key(root) && !is_remembered(&self.made.inputs, root, now) {
            self.held_back.insert(root.clone());
        } else {
            self.held_back.remove(root);
        }
        let (accepted, is_replacing) = (now.accepted.get(root), now.replacing.contains(root));
        let is_same =
            self.remembered.accepted.get(root) == accepted && self.remembered.replacing.contains(root) == is_replacing;
        if is_same {
            return;
        }
        let after = Arc::make_mut(&mut self.remembered);
        match accepted {
            Some(accepted) => drop(after.accepted.insert(root.clone(), accepted.clone())),
            None => drop(after.accepted.remove(root)),
        }
        if is_replacing {
            after.replacing.insert(root.clone());
        } else {
            after.replacing.remove(root);
        }
        if self.made.inputs.table(root).is_some_and(|table| may_freeze(&table)) {
            self.recalled.insert(root.clone());
        }
    }
}

/// Whether what is remembered of a root table matters to its tree.
fn may_freeze(table: &Table) -> bool {
    matches!(&table.role, TableRole::Root(root) if root.failure_mode != FailureMode::RouteReplacement)
}

/// Checks one object.
fn check(object: &Object, options: &Options) -> Fact {
    match misplaced(&object.meta.id, options) {
        Some(finding) => Fact { lowered: Lowered::Nothing, findings: vec![finding], is_misplaced: true },
        None => {
            let (lowered, findings) = lower(object);
            Fact { lowered, findings, is_misplaced: false }
        }
    }
}

#[cfg(test)]
mod tests;
