//! The lane of endpoints: a change of slices is served without a compile, and never waits for one.
//!
//! ```text
//! directory ──► lane ─────────────────────────────► publisher
//!                 └──► events ──► compile thread ──► lane
//! ```
//!
//! The lane holds what was published last for each key, and which slices came since the compile behind it. It is the only one
//! that publishes: what the compile thread made goes through it, and gets the endpoints that the compile did not know yet.
//! So neither undoes what the other did. Its lock is held while endpoints are encoded and published, never while anything is
//! compiled.
//!
//! What is left to the compile, because it is more than endpoints, or must come together with something else:
//!
//! * a batch with anything but slices in it, which may be one edit; and the Services of its slices until it is compiled;
//! * upstreams that name a Service or a virtual destination which is not compiled yet;
//! * everything, while a policy is not compiled yet: what it protects must not be reached before it;
//! * upstreams that would differ in more than endpoints, because a policy selects Pods that are new;
//! * endpoints of a version that was refused, and of keys whose plan could not be published.
//!
//! What the lane served is compiled too, a little later and a little at a time ([`PutOff`]): verdicts count it, and the
//! next plans have it. What comes of it is the same, so nobody is woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use crate::compile::{Endpoints, Moved};
use crate::crd::Change;
use crate::emit::is_served_whole;
use crate::ir::UpstreamId;
use crate::memory::refusals::{Bytes, Refusals};
use crate::model::{GatewayId, Kind, Name, ObjectRef};
use crate::publish::{GatewayKey, Publisher};
use crate::snapshot::{ResourceType, Resources, Snapshot};
use crate::source::{Batch, Extent};
use crate::telemetry::metrics::Metrics;

use super::refusals;
use ahead::{Ahead, Own, Renewed};

mod ahead;
mod put_off;

pub(super) use put_off::PutOff;

/// Publishes; see the module.
pub(super) struct Lane {
    publisher: Arc<Publisher>,
    refusals: Arc<refusals::Shared>,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many batches came by.
    taken: u64,
    /// Everything waits until this batch is compiled.
    waits: Option<u64>,
    /// Batches that are not compiled yet and have something in them beside tables and slices.
    others: BTreeSet<u64>,
    /// Services, virtual destinations, and the batches whose compile they wait for.
    waiting: BTreeMap<ObjectRef, u64>,
    /// The youngest complete list that is not compiled yet: what slices come beside is not known before it is.
    listed: Option<u64>,
    /// The youngest change of each slice, Pod and Node that is not compiled yet.
    pending: BTreeMap<ObjectRef, Pending>,
    /// Those that are compiled with their batch; some may have a younger change by now.
    in_batches: BTreeMap<u64, Vec<ObjectRef>>,
    /// How many pending changes concern slices of a Service.
    concerned: BTreeMap<ObjectRef, usize>,
    /// The endpoints of now; none before the first compile.
    endpoints: Option<Endpoints>,
    served: BTreeMap<GatewayKey, Served>,
    /// What is served ahead of the compile.
    ahead: BTreeMap<GatewayId, Own>,
}

struct Pending {
    turn: Moved,
    batch: u64,
    /// Whether it is compiled by itself, apart from its batch.
    is_put_off: bool,
    /// The Services whose slices it changed.
    services: BTreeSet<ObjectRef>,
}

/// What is published under a key.
struct Served {
    /// What the compile thread made.
    made: Arc<Snapshot>,
    /// The same with what is ahead of it.
    snapshot: Arc<Snapshot>,
    /// Whether it was made from the plan of the last compile.
    is_of_plan: bool,
}

/// What a compile came to.
pub(super) struct Step {
    /// How many batches it has in it, but for those of which slices were put off.
    pub(super) batches: u64,
    /// Slices that were put off, and are in it.
    pub(super) put_off: Vec<(ObjectRef, u64)>,
    pub(super) endpoints: Endpoints,
}

/// What is to be published under a key.
pub(super) struct Made {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) is_of_plan: bool,
}

impl Lane {
    pub(super) fn new(publisher: Arc<Publisher>, refusals: Arc<refusals::Shared>, metrics: Metrics) -> Self {
        Self { publisher, refusals, metrics, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic the next compile puts everything right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything is compiled.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        let is_settled = state.pending.is_empty() && state.in_batches.is_empty() && state.concerned.is_empty();
        is_settled && state.waiting.is_empty() && state.waits.is_none() && state.ahead.is_empty()
    }

    /// Takes a batch in, before the compile thread does; whether all of it is served now.
    ///
    /// # Cost
    /// In proportion to the slices, Pods and Nodes in it, and to the endpoints of their Services.
    pub(super) fn take(&self, batch: &Batch) -> bool {
        let is_difference = batch.extent == Extent::Changes;
        let changes = if is_difference { &batch.changes[..] } else { &[] };
        let turns: Vec<Moved> = changes.iter().filter_map(Moved::of).collect();
        let is_slices =
            is_difference && !turns.is_empty() && changes.iter().all(|change| change.id().kind == Kind::EndpointSlice);
        let mut state = self.lock();
        state.taken += 1;
        let number = state.taken;
        if !is_difference || changes.iter().any(|change| change.id().kind.is_policy()) {
            state.waits = Some(number);
        }
        if !is_difference {
            state.listed = Some(number);
            state.pending.clear();
            state.concerned.clear();
        }
        let is_known = |change: &Change| matches!(change.id().kind, Kind::RouteTable | Kind::EndpointSlice);
        if !is_difference || !changes.iter().all(is_known) {
            state.others.insert(number);
        }
        for id in
            changes.iter().map(Change::id).filter(|id| matches!(id.kind, Kind::Service | Kind::VirtualDestination))
        {
            state.waiting.insert(id.clone(), number);
        }
        let touched = state.take(turns, number);
        if !is_slices {
            state.waiting.extend(touched.into_iter().map(|service| (service, number)));
            return false;
        }
        let is_served = self.serve(&mut state, &touched);
        if is_served {
            state.put_off(number);
        }
        is_served
    }

    /// Serves the endpoints of some Services as they are now; whether nothing of that has to wait.
    fn serve(&self, state: &mut State, services: &BTreeSet<ObjectRef>) -> bool {
        let Some(endpoints) = state.endpoints.as_ref() else { return false };
        let led = services.iter().flat_map(|service| endpoints.led_to(service));
        let led: BTreeSet<(GatewayId, UpstreamId)> = led.map(|(gateway, id)| (gateway.clone(), id.clone())).collect();
        let mut is_whole = state.lead(&led, &mut |_, _| {});
        let State { served, ahead, .. } = state;
        for (key, served) in served {
            let Some(ahead) = ahead.get(&key.gateway) else { continue };
            let own = led.iter().filter(|(gateway, _)| *gateway == key.gateway).filter_map(|(_, id)| ahead.get(id));
            let (snapshot, is_all) = self.with(key, &served.snapshot, own);
            is_whole &= is_all && served.is_of_plan;
            if served.is_of_plan && !Arc::ptr_eq(&snapshot, &served.snapshot) {
                served.snapshot = snapshot.clone();
                // First, so that no acknowledgement of it can come too early.
                self.refusals.lock().published(key, &snapshot);
                if self.publisher.renew(key, snapshot) {
                    self.metrics.published(UNIX_EPOCH.elapsed().unwrap_or_default());
                }
            }
        }
        is_whole
    }

    /// A snapshot with some endpoints, and whether it could be given all of them; the very same if nothing differs.
    fn with<'a>(
        &self,
        key: &GatewayKey,
        snapshot: &Arc<Snapshot>,
        ahead: impl Iterator<Item = &'a Ahead>,
    ) -> (Arc<Snapshot>, bool) {
        let before = snapshot.resources(ResourceType::Endpoint);
        let (mut resources, mut is_all): (Option<Resources>, bool) = (None, true);
        let refused = self.refusals.lock();
        for ahead in ahead {
            if !is_possible(key, ahead, &before, &refused) {
                is_all = false;
            } else if before.get(&ahead.resource.name) != Some(&ahead.resource) {
                let resources = resources.get_or_insert_with(|| (*before).clone());
                resources.insert(ahead.resource.name.clone(), ahead.resource.clone());
            }
        }
        drop(refused);
        let other = resources.map(|other| with_endpoints(snapshot, other));
        (other.unwrap_or_else(|| snapshot.clone()), is_all)
    }

    /// What was made with what is ahead of it, given what was served before and which resources are ahead otherwise since then;
    /// none where that does not tell.
    ///
    /// # Cost
    /// In proportion to what differs.
    fn follow(
        &self,
        key: &GatewayKey,
        before: &Served,
        made: &Arc<Snapshot>,
        (ahead, names): (&Own, &BTreeSet<Name>),
    ) -> Option<Arc<Snapshot>> {
        let refused = self.refusals.lock();
        // What was refused since then is ahead no more, whoever made it.
        if !before.is_of_plan || refused.iter().any(|(bytes, _)| bytes.resource_type == ResourceType::Endpoint) {
            return None;
        }
        let [compiled, now] = [&before.made, made].map(|snapshot| snapshot.resources(ResourceType::Endpoint));
        let changes = now.changes_since(&compiled);
        let mut resources = (*before.snapshot.resources(ResourceType::Endpoint)).clone();
        for name in changes.all().chain(names) {
            let ahead = ahead.named(name).filter(|ahead| is_possible(key, ahead, &now, &refused));
            match ahead.map(|ahead| &ahead.resource).or_else(|| now.get(name)) {
                Some(resource) if resources.get(name) == Some(resource) => {}
                Some(resource) => drop(resources.insert(name.clone(), resource.clone())),
                None => drop(resources.remove(name)),
            }
        }
        Some(with_endpoints(made, resources))
    }

    /// Publishes what a compile came to, with the endpoints that it did not know yet. Returns the keys under which that makes a
    /// difference; whatever is not in `made` is not served any more.
    ///
    /// # Cost
    /// In proportion to the keys and to what is other than before; where more than tables and slices was compiled, also to the
    /// changes that are not compiled yet.
    pub(super) fn publish(&self, step: Step, made: BTreeMap<GatewayKey, Made>) -> BTreeSet<GatewayKey> {
        let mut state = self.lock();
        let renewed = state.compiled(step);
        let (mut news, mut served, nothing) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for (key, Made { snapshot: made, is_of_plan }) in made {
            let before = state.served.get(&key);
            let ahead = state.ahead.get(&key.gateway).filter(|_| is_of_plan);
            let snapshot = match (ahead, before, &renewed) {
                (None, ..) => made.clone(),
                (Some(ahead), before, renewed) => {
                    let following = match (before, renewed) {
                        (Some(before), Renewed::These(names)) => {
                            let names = names.get(&key.gateway).unwrap_or(&nothing);
                            self.follow(&key, before, &made, (ahead, names))
                        }
                        _ => None,
                    };
                    following.unwrap_or_else(|| self.with(&key, &made, ahead.all()).0)
                }
            };
            #[cfg(test)]
            assert!(
                *snapshot == *self.with(&key, &made, ahead.into_iter().flat_map(Own::all)).0,
                "not what is ahead of what was made"
            );
            let known = before.map(|before| &before.snapshot).filter(|before| ***before == *snapshot);
            let is_known = known.is_some();
            let snapshot = known.cloned().unwrap_or(snapshot);
            if !is_known {
                // First, so that no acknowledgement of it can come too early.
                self.refusals.lock().published(&key, &snapshot);
            }
            if self.publisher.publish(&key, snapshot.clone()) {
                self.metrics.published(UNIX_EPOCH.elapsed().unwrap_or_default());
                news.insert(key.clone());
            }
            served.insert(key, Served { made, snapshot, is_of_plan });
        }
        state.served = served;
        news
    }
}

/// A snapshot with other endpoints.
fn with_endpoints(snapshot: &Arc<Snapshot>, endpoints: Resources) -> Arc<Snapshot> {
    Arc::new((**snapshot).clone().with_shared(ResourceType::Endpoint, Arc::new(endpoints)))
}

/// Whether endpoints that are ahead of some compiled ones may be served.
fn is_possible(key: &GatewayKey, ahead: &Ahead, compiled: &Resources, refused: &Refusals) -> bool {
    let Ahead { resource, compiled: upstream } = ahead;
    let bytes = || Bytes::new(key, ResourceType::Endpoint, &resource.name, &resource.version);
    // Where the release can serve less, the compile decides what.
    is_served_whole(upstream, key.envoy) && compiled.contains_key(&resource.name) && refused.get(&bytes()).is_none()
}

impl State {
    /// Takes changes of a batch in. Returns the Services whose slices they change.
    fn take(&mut self, turns: Vec<Moved>, number: u64) -> BTreeSet<ObjectRef> {
        let mut touched = BTreeSet::new();
        for turn in turns {
            let before = self.pending.remove(turn.id());
            let endpoints = self.endpoints.as_mut();
            let mut services =
                endpoints.map(|all| all.take(&turn, before.as_ref().map(|before| &before.turn))).unwrap_or_default();
            touched.extend(services.iter().cloned());
            if let Some(before) = before {
                self.let_go(&before.services);
                services.extend(before.services);
            }
            self.concern(&services);
            let id = turn.id().clone();
            self.in_batches.entry(number).or_default().push(id.clone());
            self.pending.insert(id, Pending { turn, batch: number, is_put_off: false, services });
        }
        touched
    }

    /// The changes of a batch are compiled by themselves.
    fn put_off(&mut self, number: u64) {
        for id in self.in_batches.remove(&number).unwrap_or_default() {
            if let Some(pending) = self.pending.get_mut(&id) {
                pending.is_put_off = true;
            }
        }
    }

    fn concern(&mut self, services: &BTreeSet<ObjectRef>) {
        for service in services {
            *self.concerned.entry(service.clone()).or_default() += 1;
        }
    }

    fn let_go(&mut self, services: &BTreeSet<ObjectRef>) {
        for service in services {
            if let Some(count) = self.concerned.get_mut(service) {
                *count -= 1;
                if *count == 0 {
                    self.concerned.remove(service);
                }
            }
        }
    }

    /// Forgets the pending changes that are compiled. Returns the Services that they concern.
    fn settle(&mut self, batches: u64, put_off: Vec<(ObjectRef, u64)>) -> BTreeSet<ObjectRef> {
        let later = self.in_batches.split_off(&(batches + 1));
        let compiled = std::mem::replace(&mut self.in_batches, later);
        let with_batches = compiled.into_values().flatten().map(|id| (id, batches, false));
        let by_themselves = put_off.into_iter().map(|(id, batch)| (id, batch, true));
        let mut settled = BTreeSet::new();
        for (id, last, is_put_off) in with_batches.chain(by_themselves) {
            let is_settled = self.pending.get(&id).is_some_and(|own| own.is_put_off == is_put_off && own.batch <= last);
            if is_settled && let Some(pending) = self.pending.remove(&id) {
                self.let_go(&pending.services);
                settled.extend(pending.services);
            }
        }
        settled
    }

    /// Takes in what a compile came to. Returns what is ahead of it otherwise than of the one before.
    fn compiled(&mut self, step: Step) -> Renewed {
        let Step { batches, put_off, endpoints } = step;
        let mut settled = self.settle(batches, put_off);
        // What came behind them while they waited could not be served.
        self.waiting.retain(|id, batch| {
            let is_compiled = *batch <= batches;
            if is_compiled {
                settled.insert(id.clone());
            }
            !is_compiled
        });
        self.waits = self.waits.filter(|batch| *batch > batches);
        let others = self.others.split_off(&(batches + 1));
        let has_others = !std::mem::replace(&mut self.others, others).is_empty();
        // Whatever came since the last list came by here.
        let before = self.endpoints.take().filter(|_| self.listed.is_none());
        self.listed = self.listed.filter(|batch| *batch > batches);
        let Some(before) = before else {
            self.catch_up(endpoints);
            return self.lead_all();
        };
        let mut places = if has_others { BTreeSet::new() } else { endpoints.changes_since(&before) };
        let endpoints = self.endpoints.insert(before.after(endpoints));
        if has_others {
            return self.lead_all();
        }
        // Where nothing but tables and other slices was compiled, what is ahead of an upstream that is the same is the same.
        let led = settled.iter().flat_map(|service| endpoints.led_to(service));
        places.extend(led.map(|(gateway, id)| (gateway.clone(), id.clone())));
        let mut names: BTreeMap<GatewayId, BTreeSet<Name>> = BTreeMap::new();
        let mut renew = |gateway: &GatewayId, name: Name| {
            names.entry(gateway.clone()).or_default().insert(name);
        };
        let mut again = BTreeSet::new();
        for place in places {
            let (gateway, id) = &place;
            let is_pending = endpoints.is_led_by(&place, |service| self.concerned.contains_key(service));
            if let Some(name) = self.ahead.get_mut(gateway).and_then(|own| own.remove(id)) {
                renew(gateway, name);
            }
            if is_pending && endpoints.compiled(gateway, id).is_some() {
                again.insert(place);
            }
        }
        self.lead(&again, &mut renew);
        self.ahead.retain(|_, own| !own.is_empty());
        Renewed::These(names)
    }

    /// Goes on from a compile with what is not in it.
    fn catch_up(&mut self, mut compiled: Endpoints) {
        let mut concerned: BTreeMap<ObjectRef, usize> = BTreeMap::new();
        for pending in self.pending.values_mut() {
            pending.services.extend(compiled.take(&pending.turn, None));
            pending.services.iter().for_each(|service| *concerned.entry(service.clone()).or_default() += 1);
        }
        (self.endpoints, self.concerned) = (Some(compiled), concerned);
    }

    /// Makes the endpoints anew of all upstreams that pending changes concern.
    fn lead_all(&mut self) -> Renewed {
        self.ahead.clear();
        if let Some(endpoints) = &self.endpoints {
            let all = self.concerned.keys().flat_map(|service| endpoints.led_to(service));
            let all = all.map(|(gateway, id)| (gateway.clone(), id.clone())).collect();
            self.lead(&all, &mut |_, _| {});
        }
        Renewed::All
    }

    /// Makes the endpoints of some upstreams as they are now, and tells the names of those that it could; whether it could all.
    fn lead(&mut self, upstreams: &BTreeSet<(GatewayId, UpstreamId)>, made: &mut impl FnMut(&GatewayId, Name)) -> bool {
        let Some(endpoints) = self.endpoints.as_ref().filter(|_| self.waits.is_none()) else { return false };
        let waits = |id: &ObjectRef| self.waiting.contains_key(id);
        let mut is_whole = true;
        for (gateway, id) in upstreams {
            let led = endpoints.lead(gateway, id, waits).and_then(|led| Ahead::new(gateway, led));
            is_whole &= led.is_some();
            if let Some(ahead) = led {
                made(gateway, ahead.resource.name.clone());
                self.ahead.entry(gateway.clone()).or_default().insert(id.clone(), ahead);
            }
        }
        is_whole
    }
}
