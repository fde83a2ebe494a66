//! Endpoints ahead of the next compile: what upstreams of the last plans lead to while only slices are others.
//!
//! A slice changes what a cluster leads to and nothing else, so that can be told without compiling. Pods and Nodes are taken
//! in too, because slices name them and policies select Pods; everything else stays as it was compiled. Where an upstream
//! would then differ in more than endpoints, nothing is told: that is for the compile.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::compile::full::Compiled;
use crate::compile::inputs::Inputs;
use crate::crd::{Change, Object};
use crate::ir::upstream::Purpose;
use crate::ir::{GatewayPlan, Upstream, UpstreamId};
use crate::memo::Reads;
use crate::model::{Findings, GatewayId, Kind, Labels, ObjectRef};
use crate::resolve::destination::resolve_upstream;
use crate::resolve::gateway::owner_of;
use crate::resolve::lower::{Lowered, lower};
use crate::store::Store;

use super::slots::{Reader, Recording, Slot};

/// The upstreams that take the endpoints of Services other than the one that they name, by such a Service.
pub(super) type Backed = OrdSet<(ObjectRef, Option<(GatewayId, UpstreamId)>)>;

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
    now: Option<(Arc<Object>, Lowered)>,
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
            Change::Put(object) => Some((object.clone(), lower(object).0)),
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

    /// Takes a change in. Returns the Services whose slices changed.
    ///
    /// # Cost
    /// In proportion to the object.
    pub fn take(&mut self, turn: &Moved) -> BTreeSet<ObjectRef> {
        let mut services = BTreeSet::new();
        if let Some(before) = self.store.get(&turn.id) {
            let before = lower(before).0;
            services.extend(service_of(&before));
            self.inputs.dismiss(&turn.id, &before);
        }
        let change = match &turn.now {
            Some((object, now)) => {
                services.extend(service_of(now));
                self.inputs.admit(&turn.id, now);
                Change::Put(object.clone())
            }
            None => Change::Delete(turn.id.clone()),
        };
        self.store.apply([change]);
        services
    }

    /// The upstreams that take a Service's endpoints.
    ///
    /// # Cost
    /// In proportion to them and to the gateways.
    pub fn led_to<'a>(&'a self, service: &'a ObjectRef) -> impl Iterator<Item = (&'a GatewayId, &'a UpstreamId)> {
        let named = self.plans.iter().flat_map(move |(gateway, plan)| {
            let first =
                UpstreamId { object: service.clone(), port: 0, subset: Labels::new(), purpose: Purpose::default() };
            let own = plan.upstreams.range(first..).take_while(move |(id, _)| id.object == *service);
            own.map(move |(id, _)| (gateway, id))
        });
        let backed = self.backed.range((service.clone(), None)..).take_while(move |(other, _)| other == service);
        named.chain(backed.filter_map(|(_, user)| user.as_ref()).map(|(gateway, id)| (gateway, id)))
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
        (!has_to_wait && is_the_same_but_for_endpoints(&compiled, &now)).then_some(Led { compiled, now })
    }
}

fn service_of(fact: &Lowered) -> Option<ObjectRef> {
    match fact {
        Lowered::Slice(slice) => Some(slice.service.clone()),
        _ => None,
    }
}

fn is_the_same_but_for_endpoints(before: &Upstream, now: &Upstream) -> bool {
    // Names are looked up by the cluster itself, which has the endpoints then.
    let is_apart = !before.is_looked_up() && !now.is_looked_up();
    let Upstream { id, protocol, hostname, endpoints: _, shares, outlier, .. } = before;
    let Upstream { tls, externals, remotes, secrets, closed, guards, .. } = before;
    is_apart
        && (shares.is_empty(), outlier) == (now.shares.is_empty(), &now.outlier)
        && (id, protocol, hostname, closed, guards) == (&now.id, &now.protocol, &now.hostname, &now.closed, &now.guards)
        && (tls, externals, remotes, secrets) == (&now.tls, &now.externals, &now.remotes, &now.secrets)
}

/// Notes from which Services an upstream takes endpoints, beside the one that it names, before its reads are recorded.
pub(super) fn note_backing(
    backed: &mut Backed,
    reads: &Reads<Slot, Reader>,
    (gateway, id): (&GatewayId, &UpstreamId),
    now: &BTreeSet<Slot>,
) {
    // A Service has no other slices than its own.
    if id.object.kind == Kind::Service {
        return;
    }
    let entry = |slot: &Slot| match slot {
        Slot::Slices(service) => Some((service.clone(), Some((gateway.clone(), id.clone())))),
        _ => None,
    };
    for gone in reads.read_by(&Reader::Upstream(gateway.clone(), id.clone())).filter_map(entry) {
        backed.remove(&gone);
    }
    backed.extend(now.iter().filter_map(entry));
}
