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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::compile::{Endpoints, Led, Moved};
use crate::crd::Change;
use crate::emit::{emit_endpoints, is_served_whole};
use crate::ir::{Upstream, UpstreamId};
use crate::memory::refusals::Bytes;
use crate::model::{GatewayId, Kind, ObjectRef};
use crate::publish::{GatewayKey, Publisher};
use crate::snapshot::verify::verify_endpoints;
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot};
use crate::source::{Batch, Extent};
use crate::telemetry::metrics::Metrics;

use super::refusals;

/// How long slices that are served already may wait to be compiled, so that many are compiled at once. Half of it costs
/// more steps under churn, double lets verdicts on slices be late.
const TOGETHER: Duration = Duration::from_millis(20);

/// Most slices of these that one step takes, about a millisecond's worth: an edit of routes waits for no more.
const AT_ONCE: usize = 64;

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
    /// The youngest change of each slice, Pod and Node that is not compiled yet.
    pending: BTreeMap<ObjectRef, Pending>,
    /// The endpoints of now; none before the first compile.
    endpoints: Option<Endpoints>,
    /// Whether pending changes are in there.
    is_caught_up: bool,
    served: BTreeMap<GatewayKey, Served>,
    /// What is served ahead of the compile.
    ahead: AheadOf,
}

/// By gateway and upstream.
type AheadOf = BTreeMap<GatewayId, BTreeMap<UpstreamId, Ahead>>;

struct Pending {
    turn: Moved,
    batch: u64,
    /// Whether it is compiled by itself, apart from its batch.
    is_put_off: bool,
    /// The Services whose slices it changed.
    services: BTreeSet<ObjectRef>,
}

/// Endpoints that are not compiled yet.
struct Ahead {
    compiled: Arc<Upstream>,
    resource: Arc<Resource>,
}

impl Ahead {
    /// Encodes what an upstream leads to now; none if the checker has something against it, which is logged.
    fn new(gateway: &GatewayId, led: Led) -> Option<Self> {
        let resource = Arc::new(emit_endpoints(&led.now));
        let violations = verify_endpoints(&resource);
        for violation in &violations {
            tracing::error!(%gateway, "not published, this is a fault of Chancery: {violation}");
        }
        violations.is_empty().then_some(Self { compiled: led.compiled, resource })
    }
}

/// What is published under a key.
struct Served {
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
        state.pending.is_empty() && state.waiting.is_empty() && state.waits.is_none() && state.ahead.is_empty()
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
            state.pending.clear();
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
        state.catch_up();
        let mut touched = BTreeSet::new();
        for turn in turns {
            let services = state.endpoints.as_mut().map(|endpoints| endpoints.take(&turn)).unwrap_or_default();
            if !is_slices {
                state.waiting.extend(services.iter().map(|service| (service.clone(), number)));
            }
            touched.extend(services.iter().cloned());
            let mut pending = Pending { turn, batch: number, is_put_off: false, services };
            if let Some(before) = state.pending.remove(pending.turn.id()) {
                pending.services.extend(before.services);
            }
            state.pending.insert(pending.turn.id().clone(), pending);
        }
        if !is_slices || !self.serve(&mut state, &touched) {
            return false;
        }
        let own = state.pending.values_mut().filter(|pending| pending.batch == number);
        own.for_each(|pending| pending.is_put_off = true);
        true
    }

    /// Serves the endpoints of some Services as they are now; whether nothing of that has to wait.
    fn serve(&self, state: &mut State, services: &BTreeSet<ObjectRef>) -> bool {
        let Some(endpoints) = state.endpoints.as_ref() else { return false };
        let led = services.iter().flat_map(|service| endpoints.led_to(service));
        let led: BTreeSet<(GatewayId, UpstreamId)> = led.map(|(gateway, id)| (gateway.clone(), id.clone())).collect();
        let mut is_whole = state.lead(&led);
        for (key, served) in &mut state.served {
            let Some(ahead) = state.ahead.get(&key.gateway) else { continue };
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
        for Ahead { resource, compiled } in ahead {
            // Where the release can serve less, the compile decides what.
            if !is_served_whole(compiled, key.envoy) {
                is_all = false;
                continue;
            }
            let Some(known) = before.get(&resource.name) else {
                is_all = false;
                continue;
            };
            if known == resource {
                continue;
            }
            if refused.get(&Bytes::new(key, ResourceType::Endpoint, &resource.name, &resource.version)).is_some() {
                is_all = false;
                continue;
            }
            let resources = resources.get_or_insert_with(|| (*before).clone());
            resources.insert(resource.name.clone(), resource.clone());
        }
        drop(refused);
        let other =
            resources.map(|other| Arc::new((**snapshot).clone().with_shared(ResourceType::Endpoint, Arc::new(other))));
        (other.unwrap_or_else(|| snapshot.clone()), is_all)
    }

    /// Publishes what a compile came to, with the endpoints that it did not know yet. Returns the keys under which that makes a
    /// difference; whatever is not in `made` is not served any more.
    ///
    /// # Cost
    /// In proportion to the keys and to the changes that are not compiled yet.
    pub(super) fn publish(&self, step: Step, made: BTreeMap<GatewayKey, Made>) -> BTreeSet<GatewayKey> {
        let mut state = self.lock();
        state.compiled(step);
        let mut news = BTreeSet::new();
        let mut served = BTreeMap::new();
        for (key, Made { snapshot, is_of_plan }) in made {
            let own = state.ahead.get(&key.gateway).into_iter().flat_map(BTreeMap::values).filter(|_| is_of_plan);
            let (snapshot, _) = self.with(&key, &snapshot, own);
            let before = state.served.get(&key).map(|served| &served.snapshot);
            let is_known = before.is_some_and(|before| **before == *snapshot);
            let snapshot = before.filter(|_| is_known).cloned().unwrap_or(snapshot);
            if !is_known {
                // First, so that no acknowledgement of it can come too early.
                self.refusals.lock().published(&key, &snapshot);
            }
            if self.publisher.publish(&key, snapshot.clone()) {
                self.metrics.published(UNIX_EPOCH.elapsed().unwrap_or_default());
                news.insert(key.clone());
            }
            served.insert(key, Served { snapshot, is_of_plan });
        }
        state.served = served;
        news
    }
}

impl State {
    /// Takes in what a compile came to.
    fn compiled(&mut self, step: Step) {
        let Step { batches, put_off, endpoints } = step;
        let put_off: BTreeMap<ObjectRef, u64> = put_off.into_iter().collect();
        let mut settled: BTreeSet<ObjectRef> = BTreeSet::new();
        self.pending.retain(|id, pending| {
            let last = if pending.is_put_off { put_off.get(id).copied().unwrap_or_default() } else { batches };
            let is_settled = pending.batch <= last;
            if is_settled {
                settled.append(&mut pending.services);
            }
            !is_settled
        });
        self.waiting.retain(|_, batch| *batch > batches);
        self.waits = self.waits.filter(|batch| *batch > batches);
        // Where nothing but tables and other slices was compiled, what is ahead of an upstream that is the same is the same.
        let mut before = std::mem::take(&mut self.ahead);
        let others = self.others.split_off(&(batches + 1));
        if !std::mem::replace(&mut self.others, others).is_empty() {
            before.clear();
        }
        let mut again = BTreeSet::new();
        for (gateway, id) in settled.iter().flat_map(|service| endpoints.led_to(service)) {
            if let Some(own) = before.get_mut(gateway) {
                own.remove(id);
            }
        }
        let services: BTreeSet<&ObjectRef> = self.pending.values().flat_map(|pending| &pending.services).collect();
        for (gateway, id) in services.into_iter().flat_map(|service| endpoints.led_to(service)) {
            let Some(compiled) = endpoints.compiled(gateway, id) else { continue };
            match before.get_mut(gateway).and_then(|own| own.remove(id)) {
                Some(ahead) if Arc::ptr_eq(&ahead.compiled, compiled) => {
                    self.ahead.entry(gateway.clone()).or_default().insert(id.clone(), ahead);
                }
                _ => drop(again.insert((gateway.clone(), id.clone()))),
            }
        }
        // Two Services may lead to one upstream.
        again.retain(|(gateway, id)| !self.ahead.get(gateway).is_some_and(|own| own.contains_key(id)));
        self.endpoints = Some(endpoints);
        self.is_caught_up = self.pending.is_empty();
        if !again.is_empty() {
            self.catch_up();
            self.lead(&again);
        }
    }

    /// Brings the endpoints to what they are now.
    fn catch_up(&mut self) {
        if let Some(endpoints) = self.endpoints.as_mut().filter(|_| !self.is_caught_up) {
            for pending in self.pending.values_mut() {
                pending.services.extend(endpoints.take(&pending.turn));
            }
        }
        self.is_caught_up = true;
    }

    /// Makes the endpoints of some upstreams as they are now; whether none has to wait.
    fn lead(&mut self, upstreams: &BTreeSet<(GatewayId, UpstreamId)>) -> bool {
        let Some(endpoints) = self.endpoints.as_ref().filter(|_| self.waits.is_none()) else { return false };
        let waits = |id: &ObjectRef| self.waiting.contains_key(id);
        let mut is_whole = true;
        for (gateway, id) in upstreams {
            let led = endpoints.lead(gateway, id, waits).and_then(|led| Ahead::new(gateway, led));
            is_whole &= led.is_some();
            if let Some(ahead) = led {
                self.ahead.entry(gateway.clone()).or_default().insert(id.clone(), ahead);
            }
        }
        is_whole
    }
}

/// Slices that are served already and wait to be compiled: the youngest change of each.
#[derive(Default)]
pub(super) struct PutOff {
    order: VecDeque<ObjectRef>,
    changes: BTreeMap<ObjectRef, (u64, Change)>,
    /// Since when there are any.
    since: Option<Instant>,
}

impl PutOff {
    /// Puts a batch off.
    pub(super) fn add(&mut self, batch: u64, changes: Vec<Change>, now: Instant) {
        for change in changes {
            let id = change.id().clone();
            if self.changes.insert(id.clone(), (batch, change)).is_none() {
                self.order.push_back(id);
            }
        }
        self.since = self.since.or((!self.order.is_empty()).then_some(now));
    }

    /// Forgets what a younger batch replaces.
    pub(super) fn replaced_by(&mut self, batch: &Batch) {
        if batch.extent == Extent::Complete {
            *self = Self::default();
        } else if !self.order.is_empty() {
            let ids: BTreeSet<&ObjectRef> =
                batch.changes.iter().map(Change::id).filter(|id| self.changes.contains_key(*id)).collect();
            if !ids.is_empty() {
                self.order.retain(|id| !ids.contains(id));
                self.changes.retain(|id, _| !ids.contains(id));
            }
        }
    }

    /// When some are to be compiled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.filter(|_| !self.order.is_empty()).map(|since| since + TOGETHER)
    }

    /// Takes out those that are to be compiled now, each with its batch.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(u64, Change)> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let ids: Vec<ObjectRef> = self.order.drain(..self.order.len().min(AT_ONCE)).collect();
        if self.order.is_empty() {
            self.since = None;
        }
        ids.iter().filter_map(|id| self.changes.remove(id)).collect()
    }
}
