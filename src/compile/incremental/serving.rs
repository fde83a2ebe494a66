//! The plan of one class of gateways, kept in parts: bodies per tree, virtual hosts, upstreams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::inputs::Inputs;
use crate::ir::{GatewayPlan, Listener, RouteBody, Serves, UpstreamId, VirtualHost};
use crate::memo::Reads;
use crate::model::{Findings, GatewayId, Host as Domain, ObjectRef, WorkspaceId};
use crate::resolve::destination::resolve_upstream;
use crate::resolve::facts::ListenerProtocol;
use crate::resolve::gateway::{
    Bindings, GrownTree, HostKey, Hosts, ListenerKey, PlainPort, Sharing, bodies, is_implemented_by, listeners,
    owner_of, sharing, upstreams_of, virtual_host,
};
use crate::resolve::world::World;

use super::Step;
use super::outcome::{Count, Origin, Outcome};
use super::slots::{Reader, Recording, Slot};

/// The plan of a gateway with what it is put together from.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) gateway: GatewayId,
    owner: Option<WorkspaceId>,
    pub(super) plan: Arc<GatewayPlan>,
    pub(super) bodies: BTreeMap<ObjectRef, Bodies>,
    hosts: BTreeMap<HostKey, Host>,
    by_root: BTreeMap<ObjectRef, Vec<HostKey>>,
    /// Ports whose domains are settled one by one.
    plain: BTreeMap<u16, PlainPort>,
    /// Which virtual host each of those domains has.
    domains: BTreeMap<(u16, Domain), HostKey>,
    /// How many virtual hosts name an upstream, and the routes of whole connections once more.
    pub(super) wanted: BTreeMap<UpstreamId, usize>,
    /// Those of routes of whole connections.
    of_streams: BTreeSet<UpstreamId>,
    /// Those that policies share for all routes.
    pub(super) of_extensions: BTreeSet<UpstreamId>,
    /// How many trees give an owner a say in what policies share.
    pub(super) sharers: BTreeMap<WorkspaceId, usize>,
    /// Whether what policies share is to be made anew.
    pub(super) is_sharing_stale: bool,
}

#[derive(Debug)]
pub(super) struct Bodies {
    tree: Arc<GrownTree>,
    bodies: Vec<Arc<RouteBody>>,
    pub(super) sharing: Sharing,
}

#[derive(Debug)]
struct Host {
    host: Arc<VirtualHost>,
    upstreams: BTreeSet<UpstreamId>,
    /// Port and position of the chain, where hosts are in the order of their domains.
    places: Vec<(u16, usize)>,
    is_used: bool,
}

/// What a gateway is made from.
pub(super) struct Around<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) bindings: &'a Bindings,
    pub(super) trees: &'a OrdMap<ObjectRef, Arc<GrownTree>>,
    pub(super) reads: &'a mut Reads<Slot, Reader>,
    pub(super) outcome: &'a mut Outcome,
    pub(super) step: &'a mut Step,
}

/// Hosts on listeners of virtual gateways that some table binds now and did not before, or the other way round.
pub(super) type Claims = BTreeSet<(ListenerKey, Domain)>;

/// What of a gateway must be made anew.
#[derive(Debug, Default)]
pub(super) struct Stale {
    pub(super) listeners: bool,
    /// Domains, with their port, that other tables may serve.
    pub(super) domains: BTreeSet<(u16, Domain)>,
    /// Root tables whose tree is another, or goes to other destinations.
    pub(super) roots: BTreeSet<ObjectRef>,
    pub(super) extensions: bool,
    pub(super) upstreams: BTreeSet<UpstreamId>,
}

impl Serving {
    pub(super) fn new(gateway: &GatewayId, inputs: &Inputs) -> Self {
        let plan = GatewayPlan {
            gateway: gateway.clone(),
            listeners: BTreeMap::new(),
            extensions: Arc::default(),
            guard: None,
            upstreams: OrdMap::new(),
            secrets: BTreeMap::new(),
        };
        Self {
            gateway: gateway.clone(),
            owner: owner_of(inputs, gateway),
            plan: Arc::new(plan),
            bodies: BTreeMap::new(),
            hosts: BTreeMap::new(),
            by_root: BTreeMap::new(),
            plain: BTreeMap::new(),
            domains: BTreeMap::new(),
            wanted: BTreeMap::new(),
            of_streams: BTreeSet::new(),
            of_extensions: BTreeSet::new(),
            sharers: BTreeMap::new(),
            is_sharing_stale: true,
        }
    }

    /// Whether a root table is served here.
    pub(super) fn serves(&self, root: &ObjectRef) -> bool {
        self.bodies.contains_key(root)
    }

    /// The domains of ports here that claims are about.
    pub(super) fn domains_of(&self, claims: &Claims) -> BTreeSet<(u16, Domain)> {
        let mut domains = BTreeSet::new();
        for (port, plain) in &self.plain {
            let own = claims.iter().filter(|(listener, _)| plain.has(listener));
            domains.extend(own.map(|(_, domain)| (*port, domain.clone())));
        }
        domains
    }

    /// Brings the plan up to date. An unchanged virtual host or upstream keeps its `Arc`, an unchanged plan too.
    ///
    /// # Cost
    /// In proportion to what is stale; with other listeners, to the hosts of the gateway. A new plan copies two words for
    /// each host.
    pub(super) fn update(&mut self, stale: Stale, around: &mut Around<'_>) {
        let Some(owner) = self.owner.clone() else { return };
        let mut moved = BTreeSet::new();
        for root in &stale.roots {
            if !self.bodies.contains_key(root) {
                continue;
            }
            match around.trees.get(root) {
                Some(tree) => {
                    if self.make_bodies(root, tree, &owner, around) {
                        moved.insert(root.clone());
                    }
                }
                // Its bindings are gone as well.
                None => drop(moved.insert(root.clone())),
            }
        }
        let mut plan = self.plan.clone();
        let mut touched = stale.upstreams;
        let mut gone: Vec<UpstreamId> = Vec::new();
        self.is_sharing_stale |= stale.extensions;
        if stale.listeners {
            self.arrange(&moved, &owner, &mut plan, around);
            self.share(&mut plan, around);
            gone.extend(plan.upstreams.keys().filter(|id| !self.wanted.contains_key(*id)).cloned());
            touched.extend(self.wanted.keys().filter(|id| !plan.upstreams.contains_key(*id)).cloned());
        } else {
            let (mut counted, made) = self.settle(&stale.domains, &owner, &mut plan, around);
            counted.extend(self.patch(&moved, &made, &mut plan, around));
            counted.extend(self.share(&mut plan, around));
            for id in counted {
                match (self.wanted.contains_key(&id), plan.upstreams.contains_key(&id)) {
                    (true, false) => drop(touched.insert(id)),
                    (false, true) => gone.push(id),
                    _ => {}
                }
            }
        }
        for id in gone {
            Arc::make_mut(&mut plan).upstreams.remove(&id);
            around.reads.forget(&Reader::Upstream(self.gateway.clone(), id.clone()));
            around.outcome.forget(&Origin::Upstream(self.gateway.clone(), id));
        }
        for id in touched {
            if !self.wanted.contains_key(&id) {
                continue;
            }
            around.step.upstreams += 1;
            let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
            let upstream = resolve_upstream(&world, &self.gateway, &owner, &id, &mut findings);
            around.reads.record(&Reader::Upstream(self.gateway.clone(), id.clone()), world.into_slots());
            around.outcome.set(Origin::Upstream(self.gateway.clone(), id.clone()), findings);
            if plan.upstreams.get(&id).is_none_or(|known| **known != upstream) {
                Arc::make_mut(&mut plan).upstreams.insert(id, Arc::new(upstream));
            }
        }
        self.plan = plan;
    }

    /// Whether the routes of a tree are others than before.
    fn make_bodies(
        &mut self,
        root: &ObjectRef,
        tree: &Arc<GrownTree>,
        owner: &WorkspaceId,
        around: &mut Around<'_>,
    ) -> bool {
        around.step.bodies += 1;
        let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
        let made = bodies(&world, &self.gateway, owner, tree, &mut findings);
        let sharing = sharing(&world, tree, &made);
        around.reads.record(&Reader::Bodies(self.gateway.clone(), root.clone()), world.into_slots());
        around.outcome.set(Origin::Bodies(self.gateway.clone(), root.clone()), findings);
        let is_same = self.bodies.get(root).is_some_and(|kept| Arc::ptr_eq(&kept.tree, tree) && kept.bodies == made);
        let before = self.bodies.get(root).map(|kept| kept.sharing.clone()).unwrap_or_default();
        self.reshare(&before, &sharing);
        match self.bodies.get_mut(root) {
            Some(kept) if is_same => kept.sharing = sharing,
            _ => drop(self.bodies.insert(root.clone(), Bodies { tree: tree.clone(), bodies: made, sharing })),
        }
        !is_same
    }

    /// Makes a virtual host from what is kept of its tables. Returns whether it is another than before.
    fn make_host(&mut self, key: &HostKey, around: &mut Around<'_>) -> bool {
        around.step.hosts += 1;
        let kept: Vec<&Bodies> = key.tables.iter().filter_map(|root| self.bodies.get(root)).collect();
        let trees: Vec<(&GrownTree, &[Arc<RouteBody>])> =
            kept.iter().map(|kept| (&*kept.tree, kept.bodies.as_slice())).collect();
        let mut findings = Findings::new();
        let host = virtual_host(key, &trees, &mut findings);
        around.outcome.set(Origin::Host(self.gateway.clone(), key.clone()), findings);
        let is_same = self.hosts.get(key).is_some_and(|kept| *kept.host == host);
        if !is_same {
            let upstreams = host.routes.iter().flat_map(|route| upstreams_of(&route.body)).cloned().collect();
            let places = self.hosts.get(key).map(|kept| kept.places.clone()).unwrap_or_default();
            self.hosts.insert(key.clone(), Host { host: Arc::new(host), upstreams, places, is_used: true });
        }
        !is_same
    }

    /// Settles domains anew of ports where that can be done one by one. Returns the upstreams that more or fewer virtual
    /// hosts name, and the virtual hosts that it made.
    fn settle(
        &mut self,
        domains: &BTreeSet<(u16, Domain)>,
        owner: &WorkspaceId,
        plan: &mut Arc<GatewayPlan>,
        around: &mut Around<'_>,
    ) -> (BTreeSet<UpstreamId>, BTreeSet<HostKey>) {
        let (mut counted, mut made, nothing) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for place in domains {
            let (port, domain) = place;
            let Some(plain) = self.plain.get(port).cloned() else { continue };
            let (bindings, trees) = (around.bindings, around.trees);
            // Those that are there are looked at later, where their trees are others.
            let mut keeper = Keeper { serving: self, moved: &nothing, owner, around, made: BTreeSet::new() };
            let now = plain.host(bindings, trees, domain, &mut keeper);
            made.append(&mut keeper.made);
            let before = self.domains.get(place).cloned();
            if before.as_ref() == now.as_ref().map(|(key, _)| key) {
                continue;
            }
            let chain = Arc::make_mut(plan).listeners.get_mut(port).and_then(|listener| listener.chains.first_mut());
            if let Some(Serves::Http(http)) = chain.map(|chain| &mut chain.serves) {
                let position = http.virtual_hosts.binary_search_by(|host| host.domain.cmp(domain));
                match (position, &now) {
                    (Ok(position), Some((_, host))) => http.virtual_hosts[position] = host.clone(),
                    (Err(position), Some((_, host))) => http.virtual_hosts.insert(position, host.clone()),
                    (Ok(position), None) => drop(http.virtual_hosts.remove(position)),
                    (Err(_), None) => {}
                }
            }
            // First, so that what both share stays.
            if let Some((key, _)) = now {
                self.domains.insert(place.clone(), key.clone());
                self.enter(&key, *port, &mut counted);
            } else {
                self.domains.remove(place);
            }
            if let Some(key) = before {
                self.leave(&key, *port, &mut counted, around);
            }
        }
        (counted, made)
    }

    /// A virtual host serves a plain port.
    fn enter(&mut self, key: &HostKey, port: u16, counted: &mut BTreeSet<UpstreamId>) {
        let Some(host) = self.hosts.get_mut(key) else { return };
        if host.places.is_empty() {
            for id in &host.upstreams {
                *self.wanted.entry(id.clone()).or_default() += 1;
                counted.insert(id.clone());
            }
        }
        host.places.push((port, 0));
        for root in &key.tables {
            let keys = self.by_root.entry(root.clone()).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }

    /// A virtual host does not serve a plain port any more.
    fn leave(&mut self, key: &HostKey, port: u16, counted: &mut BTreeSet<UpstreamId>, around: &mut Around<'_>) {
        let Some(host) = self.hosts.get_mut(key) else { return };
        host.places.retain(|place| *place != (port, 0));
        if !host.places.is_empty() {
            return;
        }
        if let Some(host) = self.hosts.remove(key) {
            for id in host.upstreams {
                self.release(&id);
                counted.insert(id);
            }
        }
        around.outcome.forget(&Origin::Host(self.gateway.clone(), key.clone()));
        for root in &key.tables {
            let Some(keys) = self.by_root.get_mut(root) else { continue };
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_root.remove(root);
                self.drop_bodies(root, around);
            }
        }
    }

    /// One virtual host fewer names an upstream.
    fn release(&mut self, id: &UpstreamId) {
        if let Some(uses) = self.wanted.get_mut(id) {
            *uses -= 1;
            if *uses == 0 {
                self.wanted.remove(id);
            }
        }
    }

    fn drop_bodies(&mut self, root: &ObjectRef, around: &mut Around<'_>) {
        if let Some(kept) = self.bodies.remove(root) {
            self.reshare(&kept.sharing, &Sharing::default());
        }
        around.reads.forget(&Reader::Bodies(self.gateway.clone(), root.clone()));
        around.outcome.forget(&Origin::Bodies(self.gateway.clone(), root.clone()));
    }

    /// Puts other virtual hosts in their places. Returns the upstreams that more or fewer of them name.
    fn patch(
        &mut self,
        moved: &BTreeSet<ObjectRef>,
        made: &BTreeSet<HostKey>,
        plan: &mut Arc<GatewayPlan>,
        around: &mut Around<'_>,
    ) -> BTreeSet<UpstreamId> {
        let mut counted = BTreeSet::new();
        let keys: BTreeSet<HostKey> =
            moved.iter().filter_map(|root| self.by_root.get(root)).flatten().cloned().collect();
        for key in keys.into_iter().filter(|key| !made.contains(key)) {
            let before = self.hosts.get(&key).map(|kept| kept.upstreams.clone()).unwrap_or_default();
            if !self.make_host(&key, around) {
                continue;
            }
            let Some(kept) = self.hosts.get(&key) else { continue };
            let changed = Arc::make_mut(plan);
            for (port, chain) in &kept.places {
                let chain = changed.listeners.get_mut(port).and_then(|listener| listener.chains.get_mut(*chain));
                if let Some(Serves::Http(http)) = chain.map(|chain| &mut chain.serves)
                    && let Ok(position) = http.virtual_hosts.binary_search_by(|host| host.domain.cmp(&key.domain))
                {
                    http.virtual_hosts[position] = kept.host.clone();
                }
            }
            // One that another chain serves instead names nothing.
            if kept.places.is_empty() {
                continue;
            }
            let now = kept.upstreams.clone();
            counted.extend(now.symmetric_difference(&before).cloned());
            for id in now.difference(&before) {
                *self.wanted.entry(id.clone()).or_default() += 1;
            }
            before.difference(&now).for_each(|id| self.release(id));
        }
        counted
    }

    /// Makes the listeners anew, with the virtual hosts that are as they were.
    fn arrange(
        &mut self,
        moved: &BTreeSet<ObjectRef>,
        owner: &WorkspaceId,
        plan: &mut Arc<GatewayPlan>,
        around: &mut Around<'_>,
    ) {
        around.step.listeners += 1;
        for host in self.hosts.values_mut() {
            host.is_used = false;
        }
        let inputs = around.inputs;
        let (bindings, trees) = (around.bindings, around.trees);
        let (world, mut findings) = (Recording::new(inputs), Findings::new());
        let mut keeper = Keeper { serving: self, moved, owner, around, made: BTreeSet::new() };
        let gateway = keeper.serving.gateway.clone();
        let arranged = listeners(&world, &gateway, bindings, trees, &mut keeper, &mut findings);
        let (listeners, secrets, guard) = (arranged.listeners, arranged.secrets, arranged.guard);
        self.plain = arranged.plain;
        for virtual_gateway in inputs.virtual_gateways() {
            let mut services = gateway.services.iter().filter_map(|name| {
                let kind = crate::model::Kind::Service;
                inputs.service(&ObjectRef::new(kind, &gateway.cluster, &gateway.namespace, name))
            });
            // Where all is settled domain by domain, claims say which.
            let is_plain = virtual_gateway.listeners.iter().all(|own| own.protocol == ListenerProtocol::Http);
            if !is_plain && services.any(|service| is_implemented_by(inputs, &virtual_gateway, &service)) {
                world.note(Slot::Bound(virtual_gateway.id.clone()));
            }
        }
        around.reads.record(&Reader::Listeners(gateway.clone()), world.into_slots());
        let origin = Origin::Listeners(gateway);
        around.outcome.set(origin.clone(), findings);
        let implemented: BTreeSet<&ObjectRef> = listeners.values().flat_map(|listener| &listener.gateways).collect();
        let counts = implemented.into_iter().map(|id| Count::new(id, "selectedWorkloadsCount", 1)).collect();
        around.outcome.count(&origin, counts);
        self.place(&listeners, around);
        if plan.listeners != listeners || plan.secrets != secrets || plan.guard != guard {
            let changed = Arc::make_mut(plan);
            changed.listeners = listeners;
            changed.secrets = secrets;
            changed.guard = guard;
        }
    }

    /// Notes where virtual hosts are, and drops those that are nowhere.
    fn place(&mut self, listeners: &BTreeMap<u16, Listener>, around: &mut Around<'_>) {
        let mut places: BTreeMap<*const VirtualHost, Vec<(u16, usize)>> = BTreeMap::new();
        self.of_streams.clear();
        for (port, listener) in listeners {
            for (index, chain) in listener.chains.iter().enumerate() {
                match &chain.serves {
                    Serves::Http(http) => {
                        for host in &http.virtual_hosts {
                            places.entry(Arc::as_ptr(host)).or_default().push((*port, index));
                        }
                    }
                    Serves::Tcp(route) => {
                        let upstreams = route.iter().flat_map(|route| upstreams_of(&route.body));
                        self.of_streams.extend(upstreams.cloned());
                    }
                }
            }
        }
        let unused: Vec<HostKey> =
            self.hosts.iter().filter(|(_, host)| !host.is_used).map(|(key, _)| key.clone()).collect();
        for key in unused {
            self.hosts.remove(&key);
            around.outcome.forget(&Origin::Host(self.gateway.clone(), key));
        }
        self.by_root.clear();
        self.domains.clear();
        self.wanted.clear();
        for id in self.of_streams.iter().chain(&self.of_extensions) {
            *self.wanted.entry(id.clone()).or_default() += 1;
        }
        for (key, host) in &mut self.hosts {
            host.places = places.remove(&Arc::as_ptr(&host.host)).unwrap_or_default();
            for root in &key.tables {
                self.by_root.entry(root.clone()).or_default().push(key.clone());
            }
            for (port, _) in host.places.iter().filter(|(port, _)| self.plain.contains_key(port)) {
                self.domains.insert((*port, key.domain.clone()), key.clone());
            }
            // One that another chain serves instead is made and not used.
            if !host.places.is_empty() {
                for id in &host.upstreams {
                    *self.wanted.entry(id.clone()).or_default() += 1;
                }
            }
        }
        let gone: Vec<ObjectRef> =
            self.bodies.keys().filter(|root| !self.by_root.contains_key(*root)).cloned().collect();
        gone.iter().for_each(|root| self.drop_bodies(root, around));
    }

    /// Leaves nothing of the gateway behind.
    pub(super) fn forget(self, reads: &mut Reads<Slot, Reader>, outcome: &mut Outcome) {
        let gateway = &self.gateway;
        reads.forget(&Reader::Extensions(gateway.clone()));
        reads.forget(&Reader::Listeners(gateway.clone()));
        outcome.forget(&Origin::Listeners(gateway.clone()));
        for root in self.bodies.keys() {
            reads.forget(&Reader::Bodies(gateway.clone(), root.clone()));
            outcome.forget(&Origin::Bodies(gateway.clone(), root.clone()));
        }
        for key in self.hosts.keys() {
            outcome.forget(&Origin::Host(gateway.clone(), key.clone()));
        }
        for id in self.plan.upstreams.keys() {
            reads.forget(&Reader::Upstream(gateway.clone(), id.clone()));
            outcome.forget(&Origin::Upstream(gateway.clone(), id.clone()));
        }
    }

    /// How many parts are held.
    pub(super) fn len(&self) -> usize {
        let parts = self.bodies.len() + self.hosts.len() + self.by_root.len() + self.domains.len();
        parts + self.wanted.len() + self.plan.upstreams.len()
    }
}

/// Hands out virtual hosts that are as they were, and makes the others.
struct Keeper<'s, 'b> {
    serving: &'s mut Serving,
    moved: &'s BTreeSet<ObjectRef>,
    owner: &'s WorkspaceId,
    around: &'s mut Around<'b>,
    /// Those that were made in this step.
    made: BTreeSet<HostKey>,
}

impl Hosts for Keeper<'_, '_> {
    fn host(&mut self, key: HostKey, trees: &[&Arc<GrownTree>]) -> Arc<VirtualHost> {
        for tree in trees {
            let root = &tree.tree.root.id;
            if !self.serving.serves(root) {
                self.serving.make_bodies(root, tree, self.owner, self.around);
            }
        }
        let is_known = self.serving.hosts.contains_key(&key);
        let is_moved = key.tables.iter().any(|root| self.moved.contains(root)) && !self.made.contains(&key);
        if !is_known || is_moved {
            self.serving.make_host(&key, self.around);
            self.made.insert(key.clone());
        }
        match self.serving.hosts.get_mut(&key) {
            Some(kept) => {
                kept.is_used = true;
                kept.host.clone()
            }
            None => Arc::new(virtual_host(&key, &[], &mut Findings::new())),
        }
    }
}
