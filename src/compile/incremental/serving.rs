//! The plan of one class of gateways, kept in parts: bodies per tree, virtual hosts, upstreams.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::inputs::Inputs;
use crate::ir::route::changed;
use crate::ir::{GatewayPlan, Listener, Serves, UpstreamId, VirtualHost};
use crate::memo::Reads;
use crate::model::{Findings, GatewayId, Host as Domain, Name, ObjectRef, WorkspaceId};
use crate::resolve::facts::ListenerProtocol;
use crate::resolve::gateway::{
    ArrangedHost, Bindings, Difference, GrownTree, HostKey, Hosts, ListenerKey, OpenEntries, PlainPort, Rows, Served,
    Sharing, is_implemented_by, listeners, owner_of, serve_on, sharing, upstreams_of, virtual_host,
};
use crate::resolve::mesh::{Mesh, MeshPort};
use crate::resolve::upstream::resolve_upstream;
use crate::resolve::world::World;

use super::Step;
use super::crossing::{Crossing, Exposed};
use super::endpoints::{Backed, note_backing};
use super::mesh::Clients;
use super::outcome::{Count, Origin, Outcome};
use super::slots::{Reader, Recording, Slot};

/// The plan of a gateway with what it is put together from.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) gateway: GatewayId,
    owner: Option<WorkspaceId>,
    pub(super) plan: Arc<GatewayPlan>,
    pub(super) pieces: BTreeMap<ObjectRef, Pieces>,
    hosts: BTreeMap<HostKey, Host>,
    by_root: BTreeMap<ObjectRef, Vec<HostKey>>,
    /// Ports whose domains are settled one by one.
    plain: BTreeMap<u16, PlainPort>,
    /// Likewise those for clients inside the cluster.
    mesh: BTreeMap<u16, MeshPort>,
    /// Which virtual host each of those domains has.
    domains: BTreeMap<(u16, Domain), HostKey>,
    /// How many virtual hosts name an upstream, and the routes of whole connections once more.
    pub(super) wanted: BTreeMap<UpstreamId, usize>,
    /// Those of routes of whole connections.
    of_streams: BTreeSet<UpstreamId>,
    /// Those that policies share for all routes.
    pub(super) of_extensions: BTreeSet<UpstreamId>,
    /// How many pieces give an owner a say in what policies share.
    pub(super) sharers: BTreeMap<WorkspaceId, usize>,
    /// What it counts by itself on a host, by root table: nothing where that is none.
    pub(super) open: BTreeMap<ObjectRef, OpenEntries>,
    /// Whether what policies share is to be made anew.
    pub(super) is_sharing_stale: bool,
    /// What it sends to other clusters, and receives from them.
    pub(super) crossing: Crossing,
}

/// The pieces of a tree: as every gateway has them, as this one has them, and their numbers.
#[derive(Debug)]
pub(super) struct Pieces {
    tree: Arc<GrownTree>,
    sources: Vec<Served>,
    served: Vec<Served>,
    /// What each says of what policies share.
    pub(super) sharing: Vec<Sharing>,
    numbers: Vec<u64>,
}

#[derive(Debug)]
struct Host {
    arranged: ArrangedHost,
    /// Port and position of the chain, where hosts are in the order of their domains.
    places: Vec<(u16, usize)>,
    is_used: bool,
}

/// What a gateway is made from.
pub(super) struct Around<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) bindings: &'a Bindings,
    pub(super) trees: &'a OrdMap<ObjectRef, Arc<GrownTree>>,
    pub(super) mesh: &'a Mesh,
    pub(super) clients: &'a BTreeMap<Name, Clients>,
    pub(super) reads: &'a mut Reads<Slot, Reader>,
    pub(super) outcome: &'a mut Outcome,
    pub(super) numbers: &'a mut u64,
    pub(super) backed: &'a mut Backed,
    pub(super) exposed: &'a mut Exposed,
    pub(super) step: &'a mut Step,
}

/// Hosts that somebody serves now and did not before, or the other way round.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// On listeners of virtual gateways.
    pub(super) bound: BTreeSet<(ListenerKey, Domain)>,
    /// For clients inside the clusters.
    pub(super) mesh: BTreeSet<Domain>,
}

/// What of a gateway must be made anew.
#[derive(Debug, Default)]
pub(super) struct Stale {
    pub(super) listeners: bool,
    /// Domains, with their port, that other tables may serve.
    pub(super) domains: BTreeSet<(u16, Domain)>,
    /// Root tables whose tree is another, or of which some pieces go to other destinations.
    pub(super) roots: BTreeMap<ObjectRef, BTreeSet<u64>>,
    pub(super) extensions: bool,
    pub(super) upstreams: BTreeSet<UpstreamId>,
    /// Who it is to others.
    pub(super) identity: bool,
}

impl Serving {
    pub(super) fn new(gateway: &GatewayId, inputs: &Inputs) -> Self {
        let plan = GatewayPlan {
            gateway: gateway.clone(),
            listeners: BTreeMap::new(),
            extensions: Arc::default(),
            guard: None,
            clients: None,
            upstreams: OrdMap::new(),
            secrets: BTreeMap::new(),
        };
        Self {
            gateway: gateway.clone(),
            owner: owner_of(inputs, gateway),
            plan: Arc::new(plan),
            pieces: BTreeMap::new(),
            hosts: BTreeMap::new(),
            by_root: BTreeMap::new(),
            plain: BTreeMap::new(),
            mesh: BTreeMap::new(),
            domains: BTreeMap::new(),
            wanted: BTreeMap::new(),
            of_streams: BTreeSet::new(),
            of_extensions: BTreeSet::new(),
            sharers: BTreeMap::new(),
            open: BTreeMap::new(),
            is_sharing_stale: true,
            crossing: Crossing::default(),
        }
    }

    /// Whether a root table is served here.
    pub(super) fn serves(&self, root: &ObjectRef) -> bool {
        self.pieces.contains_key(root)
    }

    /// The domains of ports here that claims are about.
    pub(super) fn domains_of(&self, claims: &Claims) -> BTreeSet<(u16, Domain)> {
        let mut domains = BTreeSet::new();
        for (port, plain) in &self.plain {
            let own = claims.bound.iter().filter(|(listener, _)| plain.has(listener));
            domains.extend(own.map(|(_, domain)| (*port, domain.clone())));
        }
        for port in self.mesh.keys() {
            domains.extend(claims.mesh.iter().map(|domain| (*port, domain.clone())));
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
        for (root, numbers) in &stale.roots {
            if !self.pieces.contains_key(root) {
                continue;
            }
            match around.trees.get(root) {
                Some(tree) => {
                    if self.make_pieces(root, tree, numbers, &owner, around) {
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
            counted.append(&mut self.share(&mut plan, around));
            for id in counted {
                match (self.wanted.contains_key(&id), plan.upstreams.contains_key(&id)) {
                    (true, false) => drop(touched.insert(id)),
                    (false, true) => gone.push(id),
                    _ => {}
                }
            }
        }
        self.lead(gone, touched, &owner, &mut plan, around);
        self.settle_secrets(&mut plan, stale.identity, around);
        self.plan = plan;
    }

    /// Brings up to date what gateways of other clusters connect to.
    pub(super) fn receive(&mut self, identities: &BTreeMap<GatewayId, Name>, around: &mut Around<'_>) {
        let Some(owner) = self.owner.clone() else { return };
        around.step.crossings += 1;
        let mut plan = self.plan.clone();
        let counted = self.cross(&mut plan, identities, around);
        let (touched, gone) = counted.into_iter().partition::<BTreeSet<_>, _>(|id| self.wanted.contains_key(id));
        self.lead(gone.into_iter().collect(), touched, &owner, &mut plan, around);
        self.settle_secrets(&mut plan, false, around);
        self.plan = plan;
    }

    /// Drops some upstreams, and makes others anew.
    fn lead(
        &mut self,
        gone: Vec<UpstreamId>,
        touched: BTreeSet<UpstreamId>,
        owner: &WorkspaceId,
        plan: &mut Arc<GatewayPlan>,
        around: &mut Around<'_>,
    ) {
        for id in gone {
            let before = Arc::make_mut(plan).upstreams.remove(&id);
            self.note_upstream(&id, before.as_deref(), None, around.exposed);
            note_backing(around.backed, around.reads, (&self.gateway, &id), &BTreeSet::new());
            around.reads.forget(&Reader::Upstream(self.gateway.clone(), id.clone()));
            around.outcome.forget(&Origin::Upstream(self.gateway.clone(), id));
        }
        for id in touched {
            if !self.wanted.contains_key(&id) {
                continue;
            }
            around.step.upstreams += 1;
            let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
            let upstream = resolve_upstream(&world, &self.gateway, owner, &id, &mut findings);
            let slots = world.into_slots();
            note_backing(around.backed, around.reads, (&self.gateway, &id), &slots);
            around.reads.record(&Reader::Upstream(self.gateway.clone(), id.clone()), slots);
            around.outcome.set(Origin::Upstream(self.gateway.clone(), id.clone()), findings);
            let known = plan.upstreams.get(&id);
            if known.is_none_or(|known| **known != upstream) {
                self.note_upstream(&id, known.map(AsRef::as_ref), Some(&upstream), around.exposed);
                Arc::make_mut(plan).upstreams.insert(id, Arc::new(upstream));
            }
        }
        let clients = around.clients.get(&self.gateway.cluster).map(|own| &own.all);
        let clients = clients.filter(|_| plan.has_mesh());
        if plan.clients.as_ref() != clients {
            Arc::make_mut(plan).clients = clients.cloned();
        }
    }

    /// Whether the clients of the cluster are others than those that the plan has.
    pub(super) fn has_other_clients(&self, clients: &BTreeMap<Name, Clients>) -> bool {
        let now = clients.get(&self.gateway.cluster).map(|own| &own.all).filter(|_| self.plan.has_mesh());
        now.map(Arc::as_ptr) != self.plan.clients.as_ref().map(Arc::as_ptr)
    }

    /// Whether the routes of a tree are others than before. `stale` are pieces that go to other destinations.
    fn make_pieces(
        &mut self,
        root: &ObjectRef,
        tree: &Arc<GrownTree>,
        stale: &BTreeSet<u64>,
        owner: &WorkspaceId,
        around: &mut Around<'_>,
    ) -> bool {
        let (gateway, numbers) = (&self.gateway, &mut *around.numbers);
        let mut is_other = !self.pieces.contains_key(root);
        let kept = self.pieces.entry(root.clone()).or_insert_with(|| Pieces {
            tree: tree.clone(),
            sources: Vec::new(),
            served: Vec::new(),
            sharing: Vec::new(),
            numbers: Vec::new(),
        });
        // Whether it is frozen is told with its routes.
        is_other |= kept.tree.frozen.is_some() != tree.frozen.is_some();
        kept.tree = tree.clone();
        let sources: Vec<Served> = tree.pieces().cloned().collect();
        let (gone, new) = changed(&kept.sources, &sources, Arc::ptr_eq);
        is_other |= gone != new;
        let mut before = kept.numbers[gone.clone()].iter().copied();
        let mut made = Vec::with_capacity(new.len());
        for _ in new.clone() {
            made.push(before.next().unwrap_or_else(|| {
                *numbers += 1;
                *numbers
            }));
        }
        for number in before {
            around.reads.forget(&Reader::Piece(gateway.clone(), root.clone(), number));
            around.outcome.forget(&Origin::Piece(gateway.clone(), root.clone(), number));
        }
        kept.numbers.splice(gone.clone(), made);
        kept.served.splice(gone.clone(), sources[new.clone()].iter().cloned());
        let mut reshared: Vec<(Sharing, Sharing)> = kept
            .sharing
            .splice(gone, new.clone().map(|_| Sharing::default()))
            .map(|before| (before, Sharing::default()))
            .collect();
        kept.sources = sources;
        let again = (0..kept.numbers.len()).filter(|at| !stale.is_empty() && stale.contains(&kept.numbers[*at]));
        let again: Vec<usize> = new.clone().chain(again.filter(|at| !new.contains(at))).collect();
        for at in again {
            around.step.pieces += 1;
            let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
            let made = serve_on(&world, gateway, owner, tree, &kept.sources[at], &mut findings);
            let shared = sharing(&world, tree, &made);
            if kept.sharing[at] != shared {
                reshared.push((std::mem::replace(&mut kept.sharing[at], shared.clone()), shared));
            }
            let number = kept.numbers[at];
            around.reads.record(&Reader::Piece(gateway.clone(), root.clone(), number), world.into_slots());
            around.outcome.set(Origin::Piece(gateway.clone(), root.clone(), number), findings);
            if new.contains(&at) || kept.served[at] != made {
                is_other = true;
                kept.served[at] = made;
            }
        }
        // Owners that come before those that go, so that one in both is never gone.
        reshared.sort_by_key(|(_, now)| now.owners.is_empty());
        for (before, now) in reshared {
            self.reshare(root, &before, &now);
        }
        is_other
    }

    /// Makes a virtual host from what is kept of its tables. Returns how it differs from the one before.
    fn make_host(&mut self, key: &HostKey, around: &mut Around<'_>) -> Difference {
        around.step.hosts += 1;
        let kept: Vec<&Pieces> = key.tables.iter().filter_map(|root| self.pieces.get(root)).collect();
        let rows: Vec<Rows<'_>> = kept.iter().map(|kept| Rows::new(&kept.tree, &kept.served)).collect();
        let (host, difference) = match self.hosts.entry(key.clone()) {
            Entry::Occupied(host) => {
                let host = host.into_mut();
                let difference = host.arranged.update(key, &rows);
                (host, difference)
            }
            Entry::Vacant(place) => {
                let arranged = ArrangedHost::new(key, &rows);
                let came = arranged.upstreams().cloned().collect();
                let difference = Difference { is_other: true, came, gone: Vec::new() };
                (place.insert(Host { arranged, places: Vec::new(), is_used: true }), difference)
            }
        };
        around.outcome.set(Origin::Host(self.gateway.clone(), key.clone()), host.arranged.findings());
        difference
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
            let (plain, within) = (self.plain.get(port).cloned(), self.mesh.get(port).cloned());
            let (bindings, trees, mesh) = (around.bindings, around.trees, around.mesh);
            // Those that are there are looked at later, where their trees are others.
            let mut keeper = Keeper { serving: self, moved: &nothing, owner, around, made: BTreeSet::new() };
            let now = match (plain, within) {
                (Some(plain), _) => plain.host(bindings, trees, domain, &mut keeper),
                (None, Some(within)) => within.host(mesh, trees, domain, &mut keeper),
                (None, None) => continue,
            };
            made.append(&mut keeper.made);
            let before = self.domains.get(place).cloned();
            if before.as_ref() == now.as_ref().map(|(key, _)| key) {
                continue;
            }
            let listener = Arc::make_mut(plan).listeners.get_mut(port).map(Arc::make_mut);
            let chain = listener.and_then(|listener| listener.chains.first_mut());
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
            for id in host.arranged.upstreams() {
                *self.wanted.entry(id.clone()).or_default() += 1;
                counted.insert(id.clone());
            }
        }
        host.places.push((port, 0));
        self.is_sharing_stale |= key.tables.iter().any(|root| self.open.contains_key(root));
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
        self.is_sharing_stale |= key.tables.iter().any(|root| self.open.contains_key(root));
        if !host.places.is_empty() {
            return;
        }
        if let Some(host) = self.hosts.remove(key) {
            for id in host.arranged.upstreams() {
                self.release(id);
                counted.insert(id.clone());
            }
        }
        around.outcome.forget(&Origin::Host(self.gateway.clone(), key.clone()));
        for root in &key.tables {
            let Some(keys) = self.by_root.get_mut(root) else { continue };
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_root.remove(root);
                self.drop_pieces(root, around);
            }
        }
    }

    /// How often the routes of a root table stand in listeners.
    pub(super) fn times_served(&self, root: &ObjectRef) -> u64 {
        let keys: BTreeSet<&HostKey> = self.by_root.get(root).into_iter().flatten().collect();
        let places = |key: &HostKey| self.hosts.get(key).map_or(0, |host| host.places.len() as u64);
        keys.into_iter().map(|key| places(key) * key.times(root)).sum()
    }

    /// One virtual host fewer names an upstream.
    pub(super) fn release(&mut self, id: &UpstreamId) {
        if let Some(uses) = self.wanted.get_mut(id) {
            *uses -= 1;
            if *uses == 0 {
                self.wanted.remove(id);
            }
        }
    }

    fn drop_pieces(&mut self, root: &ObjectRef, around: &mut Around<'_>) {
        let Some(kept) = self.pieces.remove(root) else { return };
        for number in kept.numbers {
            around.reads.forget(&Reader::Piece(self.gateway.clone(), root.clone(), number));
            around.outcome.forget(&Origin::Piece(self.gateway.clone(), root.clone(), number));
        }
        for sharing in kept.sharing {
            self.reshare(root, &sharing, &Sharing::default());
        }
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
            let difference = self.make_host(&key, around);
            if !difference.is_other {
                continue;
            }
            let Some(kept) = self.hosts.get(&key) else { continue };
            let changed = Arc::make_mut(plan);
            for (port, chain) in &kept.places {
                let listener = changed.listeners.get_mut(port).map(Arc::make_mut);
                let chain = listener.and_then(|listener| listener.chains.get_mut(*chain));
                if let Some(Serves::Http(http)) = chain.map(|chain| &mut chain.serves)
                    && let Ok(position) = http.virtual_hosts.binary_search_by(|host| host.domain.cmp(&key.domain))
                {
                    http.virtual_hosts[position] = kept.arranged.host().clone();
                }
            }
            // One that another chain serves instead names nothing.
            if kept.places.is_empty() {
                continue;
            }
            for id in difference.came {
                *self.wanted.entry(id.clone()).or_default() += 1;
                counted.insert(id);
            }
            for id in difference.gone {
                self.release(&id);
                counted.insert(id);
            }
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
        let sources = (around.bindings, around.trees, around.mesh);
        let (world, mut findings) = (Recording::new(inputs), Findings::new());
        let mut keeper = Keeper { serving: self, moved, owner, around, made: BTreeSet::new() };
        let gateway = keeper.serving.gateway.clone();
        let arranged = listeners(&world, &gateway, sources, &mut keeper, &mut findings);
        let (listeners, secrets, guard) = (arranged.listeners, arranged.secrets, arranged.guard);
        self.plain = arranged.plain;
        self.mesh = arranged.mesh;
        world.note(Slot::MeshPorts);
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
        self.crossing.are_secrets_stale |= self.crossing.of_listeners != secrets;
        self.crossing.of_listeners = secrets;
        // What was there for other clusters stays until it is looked at with these.
        self.crossing.taken = listeners.keys().copied().collect();
        let received = self.crossing.listeners.iter().filter(|(port, _)| !listeners.contains_key(port));
        let received: Vec<(u16, Arc<Listener>)> = received.map(|(port, listener)| (*port, listener.clone())).collect();
        let mut listeners = listeners;
        listeners.extend(received);
        if plan.listeners != listeners || plan.guard != guard {
            let changed = Arc::make_mut(plan);
            changed.listeners = listeners;
            changed.guard = guard;
        }
    }

    /// Notes where virtual hosts are, and drops those that are nowhere.
    fn place(&mut self, listeners: &BTreeMap<u16, Arc<Listener>>, around: &mut Around<'_>) {
        // Limits may stand on more hosts or fewer.
        self.is_sharing_stale |= !self.open.is_empty();
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
                    Serves::Relay { .. } => {}
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
        for id in self.of_streams.iter().chain(&self.of_extensions).chain(self.crossing.upstreams()) {
            *self.wanted.entry(id.clone()).or_default() += 1;
        }
        for (key, host) in &mut self.hosts {
            host.places = places.remove(&Arc::as_ptr(host.arranged.host())).unwrap_or_default();
            for root in &key.tables {
                self.by_root.entry(root.clone()).or_default().push(key.clone());
            }
            let is_settled = |port: &u16| self.plain.contains_key(port) || self.mesh.contains_key(port);
            for (port, _) in host.places.iter().filter(|(port, _)| is_settled(port)) {
                self.domains.insert((*port, key.domain.clone()), key.clone());
            }
            // One that another chain serves instead is made and not used.
            if !host.places.is_empty() {
                for id in host.arranged.upstreams() {
                    *self.wanted.entry(id.clone()).or_default() += 1;
                }
            }
        }
        let gone: Vec<ObjectRef> =
            self.pieces.keys().filter(|root| !self.by_root.contains_key(*root)).cloned().collect();
        gone.iter().for_each(|root| self.drop_pieces(root, around));
    }

    /// Leaves nothing of the gateway behind.
    pub(super) fn forget(
        self,
        reads: &mut Reads<Slot, Reader>,
        backed: &mut Backed,
        outcome: &mut Outcome,
        exposed: &mut Exposed,
    ) {
        let gateway = &self.gateway;
        self.forget_crossing(exposed);
        for (reader, origin) in [
            (Reader::Identity(gateway.clone()), Origin::Identity(gateway.clone())),
            (Reader::Crossing(gateway.clone()), Origin::Crossing(gateway.clone())),
        ] {
            reads.forget(&reader);
            outcome.forget(&origin);
        }
        reads.forget(&Reader::Extensions(gateway.clone()));
        outcome.forget(&Origin::Extensions(gateway.clone()));
        reads.forget(&Reader::Listeners(gateway.clone()));
        outcome.forget(&Origin::Listeners(gateway.clone()));
        for (root, kept) in &self.pieces {
            for number in &kept.numbers {
                reads.forget(&Reader::Piece(gateway.clone(), root.clone(), *number));
                outcome.forget(&Origin::Piece(gateway.clone(), root.clone(), *number));
            }
        }
        for key in self.hosts.keys() {
            outcome.forget(&Origin::Host(gateway.clone(), key.clone()));
        }
        for id in self.plan.upstreams.keys() {
            note_backing(backed, reads, (gateway, id), &BTreeSet::new());
            reads.forget(&Reader::Upstream(gateway.clone(), id.clone()));
            outcome.forget(&Origin::Upstream(gateway.clone(), id.clone()));
        }
    }

    /// How many parts are held.
    pub(super) fn len(&self) -> usize {
        let pieces: usize = self.pieces.values().map(|kept| kept.numbers.len()).sum();
        let parts = pieces + self.hosts.len() + self.by_root.len() + self.domains.len() + self.open.len();
        parts + self.wanted.len() + self.plan.upstreams.len() + self.crossing.len()
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
                self.serving.make_pieces(root, tree, &BTreeSet::new(), self.owner, self.around);
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
                kept.arranged.host().clone()
            }
            None => Arc::new(virtual_host(&key, &[], &mut Findings::new())),
        }
    }
}
