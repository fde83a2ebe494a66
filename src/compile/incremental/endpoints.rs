//! Endpoints ahead of the next compile: what upstreams of the last plans lead to while only slices are others.
//!
//! A slice changes what a cluster leads to and nothing else, so that can be told without compiling. Pods and Nodes are taken
//! in too, because slices name them and policies select Pods; everything else stays as it was compiled. Where an upstream
//! would then differ in more than endpoints, nothing is told: that is for the compile.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::compile::full::Compiled;
use crate::compile::inputs::Inputs;
use crate::crd::Change;
use crate::ir::{GatewayPlan, Upstream, UpstreamId};
use crate::memo::Reads;
use crate::model::{Findings, GatewayId, Kind, ObjectRef};
use crate::resolve::gateway::owner_of;
use crate::resolve::lower::{Lowered, lower, service_of_slice};
use crate::resolve::upstream::resolve_upstream;
use crate::store::Store;

use super::slots::{Reader, Recording, Slot};

/// The upstreams that take the endpoints of Services other than the one that they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Backed {
    /// By such a Service.
    users: OrdSet<(ObjectRef, Option<Place>)>,
    /// By upstream.
    services: OrdSet<(Place, Option<ObjectRef>)>,
}

/// An upstream of a gateway.
type Place = (GatewayId, UpstreamId);

impl Backed {
    fn insert(&mut self, service: &ObjectRef, place: &Place) {
        self.users.insert((service.clone(), Some(place.clone())));
        self.services.insert((place.clone(), Some(service.clone())));
    }

    fn remove(&mut self, service: &ObjectRef, place: &Place) {
        self.users.remove(&(service.clone(), Some(place.clone())));
        self.services.remove(&(place.clone(), Some(service.clone())));
    }

    fn users<'a>(&'a self, service: &'a ObjectRef) -> impl Iterator<Item = &'a Place> {
        let all = self.users.range((service.clone(), None)..).take_while(move |(other, _)| other == service);
        all.filter_map(|(_, place)| place.as_ref())
    }

    fn services<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a ObjectRef> {
        let all = self.services.range((place.clone(), None)..).take_while(move |(other, _)| other == place);
        all.filter_map(|(_, service)| service.as_ref())
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

/// The endpoints of all upstreams, from the last compile on.
///
/// # Cost
/// A clone shares everything with the original, and a new one with the compile.
#[derive(Clone, Debug)]
pub struct Endpoints {
    inputs: Inputs,
    store: Store,
    plans: OrdMap<GatewayId, Arc<GatewayPlan>>,
    backed: Backed,
}

/// A change of a slice, a Pod or a Node, in checked form.
#[derive(Clone, Debug)]
pub struct Moved {
    id: ObjectRef,
    now: Option<Lowered>,
}

/// An upstream with its endpoints as they are now.
#[derive(Clone, Debug)]
pub struct Led {
    /// The upstream as it was compiled.
    pub compiled: Arc<Upstream>,
    /// The same with the endpoints of now.
    pub now: Upstream,
}

impl Moved {
    /// A change, if it is of such an object. What is wrong with the object is for the compile to tell.
    #[must_use]
    pub fn of(change: &Change) -> Option<Self> {
        let id = change.id();
        if !matches!(id.kind, Kind::EndpointSlice | Kind::Pod | Kind::Node) {
            return None;
        }
        let now = match change {
            Change::Put(object) => Some(lower(object).0),
            Change::Delete(_) => None,
        };
        Some(Self { id: id.clone(), now })
    }

    /// The object.
    #[must_use]
    pub fn id(&self) -> &ObjectRef {
        &self.id
    }
}

impl Endpoints {
    pub(super) fn new(compiled: &Compiled, backed: Backed) -> Self {
        Self { inputs: compiled.inputs.clone(), store: compiled.objects.clone(), plans: compiled.plans.clone(), backed }
    }

    /// An upstream as it was compiled.
    #[must_use]
    pub fn compiled(&self, gateway: &GatewayId, id: &UpstreamId) -> Option<&Arc<Upstream>> {
        self.plans.get(gateway)?.upstreams.get(id)
    }

    /// The same after another compile, for upstreams as it made them, with the slices, Pods and Nodes that are here.
    ///
    /// # Cost
    /// None.
    #[must_use]
    pub fn after(self, compiled: Self) -> Self {
        Self { inputs: compiled.inputs.with_places_of(self.inputs), ..compiled }
    }

    /// Takes a change in, of an object that changed to `before` since the compile, or did not. Returns the Services whose slices
    /// changed.
    ///
    /// # Cost
    /// In proportion to the object.
    pub fn take(&mut self, turn: &Moved, before: Option<&Moved>) -> BTreeSet<ObjectRef> {
        let mut services = BTreeSet::new();
        match (before, self.store.get(&turn.id)) {
            (Some(Moved { now: Some(before), .. }), _) => {
                services.extend(service_of(before));
                self.inputs.dismiss(&turn.id, before);
            }
            (Some(Moved { now: None, .. }), _) | (None, None) => {}
            // What it names is all that matters of it.
            (None, Some(before)) if turn.id.kind == Kind::EndpointSlice => {
                if let Some(service) = service_of_slice(before) {
                    self.inputs.dismiss_slice(&service, &turn.id);
                    services.insert(service);
                }
            }
            (None, Some(before)) => self.inputs.dismiss(&turn.id, &lower(before).0),
        }
        if let Some(now) = &turn.now {
            services.extend(service_of(now));
            self.inputs.admit(&turn.id, now);
        }
        services
    }

    /// The upstreams that take a Service's endpoints.
    ///
    /// # Cost
    /// In proportion to them and to the gateways.
    pub fn led_to<'a>(&'a self, service: &'a ObjectRef) -> impl Iterator<Item = (&'a GatewayId, &'a UpstreamId)> {
        let named = self.plans.iter().flat_map(move |(gateway, plan)| {
            let first = UpstreamId::new(service, 0);
            let own = plan.upstreams.range(first..).take_while(move |(id, _)| id.object == *service);
            own.map(move |(id, _)| (gateway, id))
        });
        named.chain(self.backed.users(service).map(|(gateway, id)| (gateway, id)))
    }

    /// Whether an upstream takes the endpoints of some Service of which a question approves.
    ///
    /// # Cost
    /// In proportion to its Services.
    #[must_use]
    pub fn is_led_by(&self, place: &(GatewayId, UpstreamId), is_one: impl Fn(&ObjectRef) -> bool) -> bool {
        is_one(&place.1.object) || self.backed.services(place).any(is_one)
    }

    /// The upstreams that are others than in an earlier compile.
    ///
    /// # Cost
    /// In proportion to them and to the gateways.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> BTreeSet<(GatewayId, UpstreamId)> {
        let none = OrdMap::new();
        let mut others = BTreeSet::new();
        for gateway in self.plans.keys().chain(earlier.plans.keys()) {
            let [before, now] = [earlier, self].map(|of| of.plans.get(gateway));
            if before.map(Arc::as_ptr) == now.map(Arc::as_ptr) {
                continue;
            }
            let [before, now] = [before, now].map(|plan| plan.map_or(&none, |plan| &plan.upstreams));
            let ids = before.diff(now).map(|item| match item {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) | DiffItem::Update { new: (id, _), .. } => id,
            });
            others.extend(ids.map(|id| (gateway.clone(), id.clone())));
        }
        others
    }

    /// An upstream with its endpoints; none where it has to wait for the compile, because more than these would differ, or
    /// because it depends on an object that waits.
    ///
    /// # Cost
    /// In proportion to its endpoints.
    #[must_use]
    pub fn lead(&self, gateway: &GatewayId, id: &UpstreamId, waits: impl Fn(&ObjectRef) -> bool) -> Option<Led> {
        let compiled = self.compiled(gateway, id)?.clone();
        let owner = owner_of(&self.inputs, gateway)?;
        let world = Recording::new(&self.inputs);
        let now = resolve_upstream(&world, gateway, &owner, id, &mut Findings::new());
        let has_to_wait = world.into_slots().iter().any(|slot| match slot {
            Slot::Object(id) | Slot::Slices(id) => waits(id),
            _ => false,
        });
        (!has_to_wait && compiled.is_same_but_for_endpoints(&now)).then_some(Led { compiled, now })
    }
}

fn service_of(fact: &Lowered) -> Option<ObjectRef> {
    match fact {
        Lowered::Slice(slice) => Some(slice.service.clone()),
        _ => None,
    }
}

/// Notes on the slices of which Services an upstream depends, beside the one that it names, before its reads are recorded:
/// those that it takes endpoints from, and the gateways on the way.
pub(super) fn note_backing(
    backed: &mut Backed,
    reads: &Reads<Slot, Reader>,
    (gateway, id): (&GatewayId, &UpstreamId),
    now: &BTreeSet<Slot>,
) {
    // Whoever names a Service is found by that.
    let service = |slot: &Slot| match slot {
        Slot::Slices(service) if *service != id.object => Some(service.clone()),
        _ => None,
    };
    let place = (gateway.clone(), id.clone());
    for gone in reads.read_by(&Reader::Upstream(gateway.clone(), id.clone())).filter_map(service) {
        backed.remove(&gone, &place);
    }
    now.iter().filter_map(service).for_each(|service| backed.insert(&service, &place));
}
