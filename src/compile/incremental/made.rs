//! The layers between objects and gateways: bindings, trees, and what is said across them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::full::{beaten_in, closed, orphan, reached, told as told_of, unimplemented_gateways};
use crate::compile::inputs::Inputs;
use crate::ir::GatewayPlan;
use crate::ir::frozen::{AcceptedRoute, Remembered};
use crate::ir::route::changed;
use crate::memo::Reads;
use crate::model::{Findings, GatewayId, Kind, ObjectRef};
use crate::resolve::Options;
use crate::resolve::attachment::{Beaten, beaten_findings, no_effect};
use crate::resolve::balancing::Place;
use crate::resolve::crossing::east_west_findings;
use crate::resolve::delegation::expand;
use crate::resolve::delegation::fragments::share;
use crate::resolve::destination;
use crate::resolve::external::judge;
use crate::resolve::facts::{Table, TableRole};
use crate::resolve::gateway::{
    Bindings, GrownTree, Segment, TableBindings, bind_table, carry_over_table, class_of_one, freeze, known_gateways,
    require_auth_findings, serves,
};
use crate::resolve::lower::Lowered;
use crate::resolve::mesh::{Mesh, table_for};
use crate::resolve::policy;
use crate::resolve::roster::Roster;
use crate::resolve::trust::KeptRoot;
use crate::resolve::world::World;

use super::crossing::{Exposed, identities};
use super::endpoints::Backed;
use super::fragments::{self, Keeper};
use super::outcome::{Count, Origin, Outcome};
use super::serving::{Around, Claims, Serving, Stale};
use super::slots::{Dirty, Reader, Recording, Slot, take, touch, touch_object};
use super::{Fact, Made, Step, may_freeze};

impl Made {
    pub(super) fn new(options: &Options, roster: Arc<Roster>) -> Self {
        Self {
            targeting: BTreeMap::new(),
            referring: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            limits: OrdMap::new(),
            inputs: Inputs::empty(options, roster),
            reads: Reads::default(),
            bindings: Bindings::default(),
            bound: BTreeMap::new(),
            mesh: Mesh::default(),
            clients: BTreeMap::new(),
            trees: OrdMap::new(),
            groves: BTreeMap::new(),
            numbers: 0,
            backed: Backed::default(),
            broken: BTreeSet::new(),
            reached: BTreeMap::new(),
            reaches: BTreeMap::new(),
            beaten: BTreeMap::new(),
            known: BTreeSet::new(),
            classes: BTreeSet::new(),
            serving: BTreeMap::new(),
            exposed: Exposed::default(),
            places: BTreeMap::new(),
            plans: OrdMap::new(),
            outcome: Outcome::default(),
        }
    }

    /// What workspaces own (R135).
    pub(super) fn count_roster(&mut self) {
        let roster = self.inputs.roster();
        let mut counts = Vec::new();
        for (id, member) in &roster.workspaces {
            let owned: Vec<_> = roster.namespaces_of(id).collect();
            let clusters: BTreeSet<_> = owned.iter().map(|(cluster, _)| cluster).collect();
            counts.push(Count::new(&member.workspace.id, "numSelectedNamespaces", owned.len()));
            counts.push(Count::new(&member.workspace.id, "numSelectedClusters", clusters.len()));
        }
        self.outcome.count(&Origin::Roster, counts);
    }

    /// Takes a change of one object in.
    pub(super) fn turn(&mut self, id: &ObjectRef, before: Option<&Fact>, now: Option<&Fact>, dirty: &mut Dirty) {
        let owner = self.inputs.roster().owner_of(id).cloned();
        let is_same = before.map(|fact| &fact.lowered) == now.map(|fact| &fact.lowered);
        let counts = |fact: &&Fact| !fact.is_misplaced;
        if let Some(fact) = before.filter(counts) {
            self.inputs.dismiss(id, &fact.lowered);
            self.targeting.remove(id);
            if !is_same {
                touch_object(&self.reads, id, &fact.lowered, owner.as_ref(), dirty);
            }
        }
        let refers = |fact: &Fact| matches!(&fact.lowered, Lowered::Policy(policy) if policy::refers(policy));
        if !now.filter(counts).is_some_and(refers) {
            self.no_longer_refers(id, dirty);
        }
        let mut findings = now.map(|fact| fact.findings.clone()).unwrap_or_default();
        if let Some(fact) = now.filter(counts) {
            let refusal = self.inputs.admit(id, &fact.lowered);
            if let (Lowered::Policy(policy), None) = (&fact.lowered, &refusal)
                && !(policy.targets.destinations.is_empty() && policy.targets.workloads.is_empty())
            {
                self.targeting.insert(id.clone(), policy.clone());
            }
            match &fact.lowered {
                Lowered::Policy(policy) if refers(fact) && refusal.is_none() => self.refer(id, policy, dirty),
                _ => self.no_longer_refers(id, dirty),
            }
            findings.extend(refusal);
            if !is_same {
                touch_object(&self.reads, id, &fact.lowered, owner.as_ref(), dirty);
            }
        }
        self.outcome.set(Origin::Object(id.clone()), findings);
    }

    /// Decides where the gateways are of which somebody asks that, if something may have `moved` them.
    ///
    /// # Cost
    /// In proportion to these gateways and to the Pods beside them.
    pub(super) fn settle_places(&mut self, moved: bool, dirty: &mut Dirty) {
        let nobody = GatewayId::new("", "", Vec::new());
        let slots = self.reads.within(Slot::Place(nobody)..).map_while(|(slot, _)| match slot {
            Slot::Place(gateway) => Some(gateway.clone()),
            _ => None,
        });
        let asked: BTreeSet<GatewayId> = slots.collect();
        self.places.retain(|gateway, _| asked.contains(gateway));
        for gateway in asked {
            let known = self.places.get(&gateway);
            if known.is_some() && !moved {
                continue;
            }
            let now = Place::of(&self.inputs, &gateway);
            if known != Some(&now) {
                touch(&self.reads, &Slot::Place(gateway.clone()), dirty);
                self.places.insert(gateway, now);
            }
        }
    }

    /// Decides what all gateways trust.
    pub(super) fn settle_trust(&mut self, kept: &KeptRoot, dirty: &mut Dirty) {
        if !dirty.remove(&Reader::Trust) {
            return;
        }
        let (secrets, mut findings) = (RefCell::new(BTreeSet::new()), Findings::new());
        let read = |id: &ObjectRef| {
            secrets.borrow_mut().insert(Slot::Object(id.clone()));
        };
        let is_other = self.inputs.settle_trust(kept, read, &mut findings);
        self.reads.record(&Reader::Trust, secrets.into_inner());
        self.outcome.set(Origin::Trust, findings);
        if is_other {
            touch(&self.reads, &Slot::Trust, dirty);
        }
    }

    fn root(&self, id: &ObjectRef) -> Option<Arc<Table>> {
        let table = table_for(&self.inputs, id).filter(|table| matches!(table.role, TableRole::Root(_)))?;
        // What has no table of its own has one only for clients inside the clusters.
        (id.kind == Kind::RouteTable || self.mesh.has(id)).then_some(table)
    }

    /// Binds root tables. Hosts that one binds now and did not before, or the other way round, are added to `claims`.
    pub(super) fn bind(&mut self, dirty: &mut Dirty, claims: &mut Claims, step: &mut Step) {
        for reader in take(dirty, |reader| matches!(reader, Reader::Binding(_))) {
            let Reader::Binding(id) = &reader else { continue };
            let origin = Origin::Binding(id.clone());
            let before = self.bound.remove(id);
            let now = self.root(id).map(|table| {
                step.bindings += 1;
                let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
                let own = bind_table(&world, &table, &mut findings);
                self.reads.record(&reader, world.into_slots());
                self.outcome.set(origin.clone(), findings);
                let listeners = own.listeners.iter().map(|((gateway, _), ..)| gateway);
                let mut counts: Vec<Count> =
                    listeners.map(|gateway| Count::of(gateway, "routeTablesCount", id)).collect();
                if !own.gateways.is_empty() {
                    counts.push(Count::new(id, "numAllowedVirtualGateways", own.gateways.len()));
                }
                self.outcome.count(&origin, counts);
                own
            });
            if now.is_none() && before.is_some() {
                self.reads.forget(&reader);
                self.outcome.forget(&origin);
            }
            let is_same = match (&before, &now) {
                (None, None) => continue,
                (Some(before), Some(now)) => {
                    before.table.age == now.table.age
                        && before.gateways == now.gateways
                        && before.listeners == now.listeners
                }
                _ => false,
            };
            if !is_same {
                for own in before.iter().chain(&now) {
                    claim(own, &self.reads, dirty, claims);
                }
                if let Some(before) = &before {
                    self.bindings.remove(before);
                }
                if let Some(now) = &now {
                    self.bindings.insert(now);
                }
                // Whether it has a tree, and whether what the tree reaches is served.
                dirty.insert(Reader::Tree(id.clone()));
            }
            if let Some(now) = now {
                self.bound.insert(id.clone(), now);
            }
        }
    }

    /// A tree claims its hosts now and did not before, or the other way round.
    pub(super) fn claim(&self, root: &ObjectRef, dirty: &mut Dirty, claims: &mut Claims) {
        if let Some(own) = self.bound.get(root) {
            claim(own, &self.reads, dirty, claims);
        }
    }

    /// Makes the tree of a root table, of which some fragments are stale. Returns what is remembered of it; tables that it
    /// begins or ceases to reach are added to `children`.
    ///
    /// # Cost
    /// In proportion to the fragments that are made, with those around them, and a word or two for every other part of the
    /// tree; if the root table may freeze, in proportion to its routes.
    pub(super) fn grow(
        &mut self,
        root: &ObjectRef,
        stale: BTreeSet<u64>,
        (before, is_unread): (&Remembered, bool),
        children: &mut BTreeSet<ObjectRef>,
        step: &mut Step,
    ) -> Remembered {
        let (reader, origin) = (Reader::Tree(root.clone()), Origin::Tree(root.clone()));
        let mut after = Remembered::default();
        if is_unread && let Some(accepted) = before.accepted.get(root) {
            after.accepted.insert(root.clone(), accepted.clone());
        }
        let table = self.root(root);
        if let Some(table) = table.as_ref().filter(|table| table.id.kind == Kind::RouteTable) {
            carry_over_table(&self.inputs, table, before, &mut after);
        }
        let table = table.filter(|_| self.bindings.gateways.contains_key(root) || self.mesh.has(root));
        let world = Recording::new(&self.inputs);
        let old = self.trees.get(root).cloned();
        let mut grove = self.groves.remove(root).unwrap_or_default();
        let tree = table.as_ref().and_then(|table| {
            let kept = std::mem::take(&mut grove.fragments);
            let mut keeper = Keeper::new(&self.inputs, root, kept, stale, &mut self.reads, &mut self.numbers);
            let tree = expand(&world, table, &mut keeper);
            step.fragments += keeper.made;
            grove.fragments = keeper.finish();
            tree
        });
        let Some(mut tree) = tree else {
            fragments::forget(root, grove.fragments, &mut self.reads);
            if old.is_some() {
                self.reads.forget(&reader);
                self.outcome.forget(&origin);
                self.trees.remove(root);
                self.tell(root, &mut grove.told, &[]);
                self.beat(root, &[], old.as_deref(), None);
                self.reach(root, BTreeSet::new(), children);
            }
            return after;
        };
        step.trees += 1;
        if let Some(old) = &old {
            share(&mut tree.segments, &old.tree.segments);
        }
        let mut findings = tree.findings.clone();
        let mut grown = GrownTree::new(tree);
        if may_freeze(&grown.tree.root) {
            world.note(Slot::Broken(root.clone()));
            grown.tree.parents.keys().for_each(|child| world.note(Slot::Broken(child.clone())));
        }
        freeze(&world, &mut grown, &self.broken, before, &mut after, &mut findings);
        self.reads.record(&reader, world.into_slots());
        self.outcome.set(origin.clone(), findings);
        let others = self.tell(root, &mut grove.told, if grown.frozen.is_none() { &grown.tree.segments } else { &[] });
        self.groves.insert(root.clone(), grove);
        let is_served = self.mesh.has(root) || self.bound.get(root).is_some_and(|own| !own.listeners.is_empty());
        let has_same_parents = old.as_ref().is_some_and(|old| {
            old.frozen.is_none() && grown.frozen.is_none() && old.tree.parents == grown.tree.parents
        });
        if !has_same_parents || self.reaches.contains_key(root) != (is_served && !grown.tree.parents.is_empty()) {
            let reach = if is_served { reached(&grown).cloned().collect() } else { BTreeSet::new() };
            self.reach(root, reach, children);
        }
        if old.as_deref() != Some(&grown) {
            if !has_same_parents {
                self.outcome.count(&origin, counts(&grown));
            }
            self.beat(root, &others, old.as_deref(), Some(&grown));
            self.trees.insert(root.clone(), Arc::new(grown));
        }
        after
    }

    /// Tells what is wrong with policies on the segments of a tree, and counts these. Returns those that were told before
    /// and are not now, and those that were not.
    fn tell(
        &mut self,
        root: &ObjectRef,
        told: &mut Vec<(Arc<Segment>, u64)>,
        segments: &[Arc<Segment>],
    ) -> Vec<Arc<Segment>> {
        let before: Vec<Arc<Segment>> = told.iter().map(|(segment, _)| segment.clone()).collect();
        let (gone, new) = changed(&before, segments, Arc::ptr_eq);
        // One that takes another's place says what differs.
        let mut numbers = told[gone.clone()].iter().map(|(_, number)| *number).collect::<Vec<u64>>().into_iter();
        let made: Vec<(Arc<Segment>, u64)> = segments[new]
            .iter()
            .map(|segment| (segment.clone(), numbers.next().unwrap_or_else(|| self.number())))
            .collect();
        let mut others: Vec<Arc<Segment>> = made.iter().map(|(segment, _)| segment.clone()).collect();
        for (segment, number) in &made {
            let origin = Origin::Segment(root.clone(), *number);
            let mut findings = closed(segment);
            require_auth_findings(&self.inputs, segment, &mut findings);
            findings.extend(told_of(segment));
            self.outcome.set(origin.clone(), findings);
            if root.kind == Kind::RouteTable {
                self.outcome.count(&origin, counts_on(segment.served.iter()));
            }
        }
        for number in numbers {
            self.outcome.forget(&Origin::Segment(root.clone(), number));
        }
        others.extend(told.splice(gone, made).map(|(segment, _)| segment));
        others
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn reach(&mut self, root: &ObjectRef, now: BTreeSet<ObjectRef>, children: &mut BTreeSet<ObjectRef>) {
        let before = self.reaches.remove(root).unwrap_or_default();
        for child in now.difference(&before) {
            *self.reached.entry(child.clone()).or_default() += 1;
            children.insert(child.clone());
        }
        for child in before.difference(&now) {
            if let Some(uses) = self.reached.get_mut(child) {
                *uses -= 1;
                if *uses == 0 {
                    self.reached.remove(child);
                }
            }
            children.insert(child.clone());
        }
        if !now.is_empty() {
            self.reaches.insert(root.clone(), now);
        }
    }

    /// Tells who lost to whom, if that may be different: `others` are segments of one of the two trees and not of the other.
    fn beat(&mut self, root: &ObjectRef, others: &[Arc<Segment>], before: Option<&GrownTree>, now: Option<&GrownTree>) {
        fn beaten(grown: &GrownTree) -> impl Iterator<Item = (&Beaten, String)> {
            grown.tree.segments.iter().flat_map(|segment| beaten_in(segment))
        }
        let has_same_freezing = before.map(|tree| tree.frozen.is_some()) == now.map(|tree| tree.frozen.is_some());
        let is_plain = |tree: &GrownTree| tree.frozen.is_none();
        if has_same_freezing
            && now.is_some_and(is_plain)
            && !others.iter().any(|segment| beaten_in(segment).next().is_some())
        {
            return;
        }
        let mut new: BTreeMap<Beaten, Vec<String>> = BTreeMap::new();
        for (beaten, _) in before.into_iter().flat_map(beaten) {
            new.entry(beaten.clone()).or_default();
        }
        for (beaten, route) in now.into_iter().flat_map(beaten) {
            new.entry(beaten.clone()).or_default().push(route);
        }
        for (beaten, routes) in new {
            let all = self.beaten.entry(beaten.clone()).or_default();
            if routes.is_empty() {
                all.remove(root);
            } else {
                all.insert(root.clone(), routes);
            }
            let mut routes: Vec<String> = all.values().flatten().cloned().collect();
            routes.sort();
            routes.dedup();
            let findings = if routes.is_empty() {
                self.beaten.remove(&beaten);
                Findings::new()
            } else {
                beaten_findings(&BTreeMap::from([(beaten.clone(), routes)]))
            };
            self.outcome.set(Origin::Beaten(beaten), findings);
        }
    }

    /// Tells a child table whether anybody delegates to it (R91).
    pub(super) fn look_after(&mut self, id: &ObjectRef) {
        let is_child = self.inputs.table(id).is_some_and(|table| matches!(table.role, TableRole::Child));
        let is_orphan = is_child && !self.reached.contains_key(id);
        let findings = if is_orphan { vec![orphan(id)] } else { Findings::new() };
        self.outcome.set(Origin::Orphan(id.clone()), findings);
    }

    /// What is said of virtual destinations, of policies by themselves and of virtual gateways; and which classes of gateways
    /// there are.
    pub(super) fn tell_others(
        &mut self,
        dirty: &mut Dirty,
        services: &BTreeSet<ObjectRef>,
        wanted: &BTreeSet<GatewayId>,
    ) {
        for reader in take(dirty, |reader| matches!(reader, Reader::Backing(_))) {
            let Reader::Backing(id) = &reader else { continue };
            let origin = Origin::Backing(id.clone());
            let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
            let external = self.inputs.external_service(id);
            let count = match (self.inputs.virtual_destination(id), external) {
                (Some(vd), _) => {
                    let backends = destination::judge(&world, &vd, &mut findings);
                    Count::new(id, "numSelectedBackingServices", backends)
                }
                (None, Some(service)) => {
                    let endpoints = judge(&world, &service, &mut findings);
                    Count::new(id, "numSelectedExternalEndpoints", endpoints)
                }
                (None, None) => {
                    self.reads.forget(&reader);
                    self.outcome.forget(&origin);
                    continue;
                }
            };
            self.reads.record(&reader, world.into_slots());
            self.outcome.set(origin.clone(), findings);
            self.outcome.count(&origin, vec![count]);
        }
        if dirty.remove(&Reader::Classes) {
            self.known = known_gateways(&self.inputs);
            self.reads.record(&Reader::Classes, [Slot::Gateways].into());
        } else if !services.is_empty() {
            let gateways = self.inputs.virtual_gateways();
            for id in services {
                let service = self.inputs.service(id);
                if service.is_some_and(|service| serves(&self.inputs, &gateways, &service)) {
                    self.known.insert(class_of_one(id));
                } else {
                    self.known.remove(&class_of_one(id));
                }
            }
        }
        let classes: BTreeSet<GatewayId> = self.known.union(wanted).cloned().collect();
        if classes != self.classes {
            self.classes = classes;
            touch(&self.reads, &Slot::Classes, dirty);
        }
        for reader in take(dirty, |reader| matches!(reader, Reader::NoEffect(_))) {
            let Reader::NoEffect(id) = &reader else { continue };
            let policy = self.targeting.get(id).cloned();
            let owner = self.inputs.roster().owner_of(id).cloned();
            let Some((policy, owner)) = policy.zip(owner) else {
                self.reads.forget(&reader);
                self.outcome.forget(&Origin::NoEffect(id.clone()));
                continue;
            };
            let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
            world.note(Slot::Classes);
            let reach = no_effect(&world, &owner, &policy, &self.classes, &mut findings);
            self.reads.record(&reader, world.into_slots());
            let origin = Origin::NoEffect(id.clone());
            self.outcome.set(origin.clone(), findings);
            let counts = reach.counts().map(|(what, number)| Count::new(id, what, number)).collect();
            self.outcome.count(&origin, counts);
        }
        if dirty.remove(&Reader::EastWest) {
            let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
            east_west_findings(&world, &mut findings);
            self.reads.record(&Reader::EastWest, world.into_slots());
            self.outcome.set(Origin::EastWest, findings);
        }
        if dirty.remove(&Reader::Unimplemented) {
            let world = Recording::new(&self.inputs);
            world.note(Slot::Classes);
            let findings = unimplemented_gateways(&world, &self.classes);
            self.reads.record(&Reader::Unimplemented, world.into_slots());
            self.outcome.set(Origin::Unimplemented, findings);
        }
    }

    /// Takes plans of before a restart in place of equal ones.
    pub(super) fn keep_plans(&mut self, before: &OrdMap<GatewayId, Arc<GatewayPlan>>) {
        for (gateway, plan) in before {
            if let Some(serving) = self.serving.get_mut(gateway).filter(|serving| serving.plan == *plan) {
                serving.plan = plan.clone();
                self.plans.insert(gateway.clone(), plan.clone());
            }
        }
    }

    /// Brings the plans up to date.
    pub(super) fn serve(
        &mut self,
        dirty: Dirty,
        changed_trees: &BTreeSet<ObjectRef>,
        claims: &Claims,
        step: &mut Step,
    ) {
        let mut stale: BTreeMap<GatewayId, Stale> = BTreeMap::new();
        let mut crossing: BTreeSet<GatewayId> = BTreeSet::new();
        for reader in dirty {
            match reader {
                Reader::Listeners(gateway) => stale.entry(gateway).or_default().listeners = true,
                Reader::Piece(gateway, root, number) => {
                    let pieces = stale.entry(gateway).or_default().roots.entry(root).or_default();
                    pieces.insert(number);
                }
                Reader::Extensions(gateway) => stale.entry(gateway).or_default().extensions = true,
                Reader::Upstream(gateway, id) => drop(stale.entry(gateway).or_default().upstreams.insert(id)),
                Reader::Identity(gateway) => stale.entry(gateway).or_default().identity = true,
                Reader::Crossing(gateway) => drop(crossing.insert(gateway)),
                _ => {}
            }
        }
        let gone: Vec<GatewayId> =
            self.serving.keys().filter(|gateway| !self.classes.contains(*gateway)).cloned().collect();
        for gateway in gone {
            if let Some(serving) = self.serving.remove(&gateway) {
                serving.forget(&mut self.reads, &mut self.backed, &mut self.outcome, &mut self.exposed);
            }
            self.plans.remove(&gateway);
        }
        for gateway in &self.classes {
            if !self.serving.contains_key(gateway) {
                self.serving.insert(gateway.clone(), Serving::new(gateway, &self.inputs));
                stale.entry(gateway.clone()).or_default().listeners = true;
            }
        }
        for (gateway, serving) in &self.serving {
            // Others of the cluster may send requests now.
            if serving.has_other_clients(&self.clients) {
                stale.entry(gateway.clone()).or_default();
            }
            let roots: Vec<&ObjectRef> = changed_trees.iter().filter(|root| serving.serves(root)).collect();
            let domains = serving.domains_of(claims);
            if !domains.is_empty() || !roots.is_empty() {
                let stale = stale.entry(gateway.clone()).or_default();
                stale.domains = domains;
                for root in roots {
                    stale.roots.entry(root.clone()).or_default();
                }
            }
        }
        let mut around = Around {
            inputs: &self.inputs,
            bindings: &self.bindings,
            trees: &self.trees,
            mesh: &self.mesh,
            clients: &self.clients,
            reads: &mut self.reads,
            outcome: &mut self.outcome,
            numbers: &mut self.numbers,
            backed: &mut self.backed,
            exposed: &mut self.exposed,
            step,
        };
        let mut others: BTreeSet<GatewayId> = BTreeSet::new();
        for (gateway, stale) in stale {
            let Some(serving) = self.serving.get_mut(&gateway) else { continue };
            // Another port may be taken.
            crossing.extend(stale.listeners.then(|| gateway.clone()));
            serving.update(stale, &mut around);
            others.insert(gateway);
        }
        let clusters = around.exposed.take_stale();
        crossing.extend(self.serving.keys().filter(|gateway| clusters.contains(&gateway.cluster)).cloned());
        let known = if crossing.is_empty() { BTreeMap::new() } else { identities(&self.serving) };
        for gateway in crossing {
            let Some(serving) = self.serving.get_mut(&gateway) else { continue };
            serving.receive(&known, &mut around);
            others.insert(gateway);
        }
        for gateway in others {
            let Some(serving) = self.serving.get(&gateway) else { continue };
            if self.plans.get(&gateway).is_none_or(|plan| !Arc::ptr_eq(plan, &serving.plan)) {
                self.plans.insert(gateway, serving.plan.clone());
            }
        }
    }
}

/// Adds the hosts that a root table binds, and whoever looks at all bindings of its gateways.
fn claim(own: &TableBindings, reads: &Reads<Slot, Reader>, dirty: &mut Dirty, claims: &mut Claims) {
    for gateway in &own.gateways {
        touch(reads, &Slot::Bound(gateway.clone()), dirty);
    }
    for (listener, _, bound) in &own.listeners {
        claims.bound.extend(bound.1.iter().map(|(host, _)| (listener.clone(), host.clone())));
    }
}

/// What a tree adds to counts, beside what its segments do while it is not frozen (R135).
fn counts(grown: &GrownTree) -> Vec<Count> {
    let mut counts = match grown.frozen {
        Some(_) => counts_on(grown.served()),
        None => Vec::new(),
    };
    for (child, above) in &grown.tree.parents {
        counts.extend(above.iter().map(|parent| Count::of(child, "numParentRouteTables", parent)));
    }
    counts
}

/// What routes in force add to counts.
fn counts_on<'r>(routes: impl Iterator<Item = &'r AcceptedRoute>) -> Vec<Count> {
    let mut selected: BTreeMap<&ObjectRef, usize> = BTreeMap::new();
    let mut applied: BTreeMap<(&ObjectRef, Kind), usize> = BTreeMap::new();
    for served in routes {
        // One that is on several destinations of a route is on one route.
        let policies: BTreeSet<&ObjectRef> = served.body.attached.iter().map(|a| &a.policy).collect();
        for policy in policies {
            *selected.entry(policy).or_default() += 1;
            if let Some(last) = served.body.chain.last() {
                *applied.entry((&last.table, policy.kind)).or_default() += 1;
            }
        }
    }
    let mut counts = Vec::new();
    for (policy, routes) in selected {
        counts.push(Count::new(policy, "numSelectedRoutes", routes));
    }
    for ((table, kind), policies) in applied {
        let what = format!("numAppliedRoutePolicies.{}, Kind={kind}", kind.group().api_version());
        counts.push(Count::new(table, &what, policies));
    }
    counts
}
