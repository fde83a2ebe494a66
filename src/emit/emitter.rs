//! Emission that costs what changed.
//!
//! An [`Emitter`] keeps what it made last, by the values it was made from, and makes again only what differs. A value that
//! is the same in memory is the same; other values are compared. The result is always what
//! [`emit_gateway_after`](super::emit_gateway_after) makes of the same plan, which a property test holds it to.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::ir::listener::HttpHosts;
use crate::ir::{Chain, GatewayPlan, Listener, Secret, SecretId, Serves, Upstream, UpstreamId, VirtualHost};
use crate::model::{Host, Name, ObjectRef};
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot};

use super::layout::{self, Layout, PARTS, Place, WHOLE, Weight};
use super::route::HostPart;
use super::{EmitOptions, cluster, endpoint, filter, listener, name, route, secret};

/// Emits the plans of one gateway, one after the other.
///
/// One per [`GatewayKey`](crate::publish::GatewayKey), kept by whoever publishes. It holds the plan's values and the
/// resources that it made, both shared with the plan and the snapshot.
///
/// What it returns shares with the snapshot before: a type in which nothing changed is the same `Arc`, so is a resource
/// that did not change.
///
/// # Cost
/// One comparison of pointers per virtual host and per upstream near one that differs; encoding of what differs; splicing of each route
/// configuration with a changed host; and a copy of the list of each type in which a resource changed, which is a
/// pointer and a count per resource. A host that comes or goes costs a pass over the chain's list of hosts.
#[derive(Debug, Default)]
pub struct Emitter {
    state: Option<State>,
}

impl Emitter {
    /// An emitter that made nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that the Envoys of one gateway should hold.
    ///
    /// Other options, or a gateway of another cluster, make everything new.
    pub fn emit(&mut self, plan: &GatewayPlan, options: &EmitOptions) -> Snapshot {
        let fits = |state: &State| state.options == *options && state.cluster == plan.gateway.cluster;
        if !self.state.as_ref().is_some_and(fits) {
            self.state = None;
        }
        let state = self.state.get_or_insert_with(|| State::new(options, plan.gateway.cluster.clone()));
        state.update_upstreams(&plan.upstreams);
        state.update_secrets(&plan.secrets);
        state.update_listeners(&plan.listeners);
        state.made.snapshot()
    }

    /// The chains that are cut now.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        for (port, state) in self.state.iter().flat_map(|state| &state.listeners) {
            for (name, chain) in &state.chains {
                layout.set(*port, name, chain.is_cut);
            }
        }
        layout
    }
}

/// The resources of all types.
#[derive(Debug, Default)]
struct Made {
    clusters: Arc<Resources>,
    endpoints: Arc<Resources>,
    listeners: Arc<Resources>,
    extensions: Arc<Resources>,
    scopes: Arc<Resources>,
    routes: Arc<Resources>,
    secrets: Arc<Resources>,
}

impl Made {
    fn snapshot(&self) -> Snapshot {
        Snapshot::new()
            .with_shared(ResourceType::Cluster, self.clusters.clone())
            .with_shared(ResourceType::Endpoint, self.endpoints.clone())
            .with_shared(ResourceType::Listener, self.listeners.clone())
            .with_shared(ResourceType::Extension, self.extensions.clone())
            .with_shared(ResourceType::ScopedRoute, self.scopes.clone())
            .with_shared(ResourceType::Route, self.routes.clone())
            .with_shared(ResourceType::Secret, self.secrets.clone())
    }
}

/// Replaces a resource, if it differs.
fn put(resources: &mut Arc<Resources>, resource: Resource) {
    if resources.get(&resource.name).is_none_or(|before| **before != resource) {
        Arc::make_mut(resources).insert(resource.name.clone(), Arc::new(resource));
    }
}

fn remove(resources: &mut Arc<Resources>, name: &Name) {
    if resources.contains_key(name) {
        Arc::make_mut(resources).remove(name);
    }
}

#[derive(Debug)]
struct State {
    options: EmitOptions,
    cluster: Name,
    upstreams: OrdMap<UpstreamId, Arc<Upstream>>,
    secrets: BTreeMap<SecretId, Secret>,
    listeners: BTreeMap<u16, ListenerState>,
    made: Made,
}

impl State {
    fn new(options: &EmitOptions, cluster: Name) -> Self {
        let mut made = Made::default();
        for extension in filter::emit_extensions() {
            put(&mut made.extensions, extension);
        }
        Self {
            options: options.clone(),
            cluster,
            upstreams: OrdMap::new(),
            secrets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            made,
        }
    }

    fn update_upstreams(&mut self, upstreams: &OrdMap<UpstreamId, Arc<Upstream>>) {
        // What two maps share is passed over.
        for item in self.upstreams.diff(upstreams) {
            match item {
                DiffItem::Remove(id, _) => {
                    let name = name::cluster(id);
                    remove(&mut self.made.clusters, &name);
                    remove(&mut self.made.endpoints, &name);
                }
                DiffItem::Add(_, upstream) | DiffItem::Update { new: (_, upstream), .. } => {
                    put(&mut self.made.clusters, cluster::emit_cluster(upstream, &self.cluster));
                    put(&mut self.made.endpoints, endpoint::emit_endpoints(upstream));
                }
            }
        }
        self.upstreams = upstreams.clone();
    }

    fn update_secrets(&mut self, secrets: &BTreeMap<SecretId, Secret>) {
        let (gone, new) = difference(&self.secrets, secrets, |before, now| before == now);
        for id in gone {
            remove(&mut self.made.secrets, &name::secret(&id));
            self.secrets.remove(&id);
        }
        for (id, content) in new {
            put(&mut self.made.secrets, secret::emit_secret(id, content));
            self.secrets.insert(id.clone(), content.clone());
        }
    }

    fn update_listeners(&mut self, listeners: &BTreeMap<u16, Listener>) {
        let gone: Vec<u16> = self.listeners.keys().filter(|port| !listeners.contains_key(port)).copied().collect();
        for port in gone {
            remove(&mut self.made.listeners, &name::listener(port));
            for (_, chain) in self.listeners.remove(&port).map(|state| state.chains).into_iter().flatten() {
                chain.forget(&mut self.made);
            }
        }
        for (port, listener) in listeners {
            let state = self.listeners.entry(*port).or_default();
            state.update(listener, &self.options, &mut self.made);
        }
    }
}

/// Keys that only the older map has, and entries of the newer that are not the same in the older.
///
/// # Cost
/// One question per entry whether it is the same, and a comparison of keys only where it is not.
fn difference<'a, K: Ord + Clone, V>(
    older: &BTreeMap<K, V>,
    newer: &'a BTreeMap<K, V>,
    is_same: impl Fn((&K, &V), (&K, &V)) -> bool,
) -> (Vec<K>, Vec<(&'a K, &'a V)>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut before, mut now) = (older.iter().peekable(), newer.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return (gone, new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(now)) if is_same(*before, *now) => Ordering::Equal,
            (Some((before, _)), Some((now, _))) => before.cmp(now),
        };
        let left = before.next_if(|_| order.is_le());
        let right = now.next_if(|_| order.is_ge());
        match (left, right) {
            (Some(before), Some(now)) if is_same(before, now) => {}
            (_, Some(now)) => new.push(now),
            (Some((key, _)), None) => gone.push(key.clone()),
            (None, None) => {}
        }
    }
}

/// A listener as it was emitted last.
#[derive(Debug, Default)]
struct ListenerState {
    /// Without virtual hosts: what its own resource is made from, with the layout of its chains.
    shell: Option<(Listener, Vec<bool>)>,
    /// HTTP chains by name.
    chains: BTreeMap<Name, ChainState>,
}

impl ListenerState {
    fn update(&mut self, listener: &Listener, options: &EmitOptions, made: &mut Made) {
        let port = listener.bind_port;
        let http: BTreeMap<&Name, (&Chain, &HttpHosts)> =
            listener.chains.iter().filter_map(|chain| Some((&chain.name, (chain, chain.serves.http()?)))).collect();
        let gone: Vec<Name> = self.chains.keys().filter(|name| !http.contains_key(name)).cloned().collect();
        for chain in gone.iter().filter_map(|name| self.chains.remove(name)) {
            chain.forget(made);
        }
        let mut cut: BTreeSet<&Name> = BTreeSet::new();
        for (name, (chain, http)) in http {
            let state = self.chains.entry(name.clone()).or_default();
            state.update(port, chain, http, options, made);
            if state.is_cut {
                cut.insert(name);
            }
        }
        let is_cut = |chain: &Chain| cut.contains(&chain.name);
        let shell = (shell(listener), listener.chains.iter().map(is_cut).collect());
        if self.shell.as_ref() != Some(&shell) {
            put(&mut made.listeners, listener::emit_listener(listener, options, &is_cut));
            self.shell = Some(shell);
        }
    }
}

/// A listener without what only its route configurations are made from.
fn shell(listener: &Listener) -> Listener {
    let chain = |chain: &Chain| Chain {
        name: chain.name.clone(),
        gateways: chain.gateways.clone(),
        server_names: chain.server_names.clone(),
        tls: chain.tls.clone(),
        serves: match &chain.serves {
            Serves::Http(_) => Serves::Http(HttpHosts::default()),
            Serves::Tcp(route) => Serves::Tcp(route.clone()),
        },
    };
    Listener {
        bind_port: listener.bind_port,
        service_ports: listener.service_ports.clone(),
        gateways: listener.gateways.clone(),
        chains: listener.chains.iter().map(chain).collect(),
    }
}

/// A virtual host as it was encoded last.
#[derive(Debug)]
struct HostState {
    host: Arc<VirtualHost>,
    place: Place,
    encoded: HostPart,
}

impl HostState {
    fn new(host: &Arc<VirtualHost>) -> Self {
        Self { host: host.clone(), place: Place::of(&host.domain), encoded: route::encode_host(host) }
    }
}

/// The hosts of an HTTP chain as they were emitted last.
#[derive(Debug, Default)]
struct ChainState {
    is_emitted: bool,
    is_cut: bool,
    gateways: Vec<ObjectRef>,
    misdirected_hosts: BTreeSet<Host>,
    /// In the order of the plan.
    hosts: Vec<HostState>,
    weight: Weight,
    misdirected: BTreeMap<u16, HostPart>,
    /// The parts that exist, and what they are called.
    parts: BTreeMap<u16, Name>,
}

/// Places with a change, and whether the change moves owners.
type Touched = BTreeMap<Place, bool>;

impl ChainState {
    fn update(&mut self, port: u16, chain: &Chain, http: &HttpHosts, options: &EmitOptions, made: &mut Made) {
        let touched = self.update_hosts(&http.virtual_hosts);
        let is_cut = self.weight.is_cut(&http.misdirected, self.is_cut, options);
        let is_new = !self.is_emitted
            || is_cut != self.is_cut
            || self.gateways != chain.gateways
            || self.misdirected_hosts != http.misdirected;
        if is_new {
            self.is_emitted = true;
            self.is_cut = is_cut;
            self.gateways.clone_from(&chain.gateways);
            self.misdirected_hosts.clone_from(&http.misdirected);
            self.misdirected = layout::encode_all_misdirected(http, is_cut);
        }
        let all = is_new || touched.contains_key(&Place::Everywhere);
        let moves_everywhere = is_new || touched.get(&Place::Everywhere) == Some(&true);
        let parts: BTreeMap<u16, bool> = if is_cut {
            let moves = |part: u16| moves_everywhere || touched.get(&Place::Part(part)) == Some(&true);
            let is_touched = |part: &u16| all || touched.contains_key(&Place::Part(*part));
            (0..PARTS).filter(is_touched).map(|part| (part, moves(part))).collect()
        } else if all || !touched.is_empty() {
            [(WHOLE, is_new || touched.values().any(|moves| *moves))].into()
        } else {
            BTreeMap::new()
        };
        let before: BTreeMap<u16, Name> = parts.keys().filter_map(|part| self.parts.remove_entry(part)).collect();
        let left_over = if is_new { std::mem::take(&mut self.parts) } else { BTreeMap::new() };
        self.emit_parts(port, chain, &parts, made);
        let names: BTreeSet<&Name> = self.parts.values().collect();
        for name in before.values().chain(left_over.values()).filter(|name| !names.contains(name)) {
            remove(&mut made.routes, name);
        }
        for name in before.values().chain(left_over.values()).filter(|name| !is_cut || !names.contains(name)) {
            remove(&mut made.scopes, name);
        }
    }

    /// Takes the hosts of a plan over; where they stand that differ.
    fn update_hosts(&mut self, hosts: &[Arc<VirtualHost>]) -> Touched {
        let mut touched = Touched::new();
        let same_domains = self.hosts.len() == hosts.len()
            && self
                .hosts
                .iter()
                .zip(hosts)
                .all(|(before, host)| Arc::ptr_eq(&before.host, host) || before.host.domain == host.domain);
        if same_domains {
            for (before, host) in self.hosts.iter_mut().zip(hosts) {
                if !Arc::ptr_eq(&before.host, host) {
                    replace(before, host, &mut self.weight, &mut touched);
                }
            }
            return touched;
        }
        let mut before: BTreeMap<Host, HostState> =
            std::mem::take(&mut self.hosts).into_iter().map(|state| (state.host.domain.clone(), state)).collect();
        self.hosts.reserve(hosts.len());
        for host in hosts {
            let state = match before.remove(&host.domain) {
                Some(mut state) => {
                    if !Arc::ptr_eq(&state.host, host) {
                        replace(&mut state, host, &mut self.weight, &mut touched);
                    }
                    state
                }
                None => {
                    let state = HostState::new(host);
                    self.weight.add(host);
                    touched.insert(state.place, true);
                    state
                }
            };
            self.hosts.push(state);
        }
        for state in before.into_values() {
            self.weight.remove(&state.host);
            touched.insert(state.place, true);
        }
        touched
    }

    fn emit_parts(&mut self, port: u16, chain: &Chain, parts: &BTreeMap<u16, bool>, made: &mut Made) {
        // One pass over the hosts, however many parts there are.
        let mut everywhere: Vec<(usize, &HostState)> = Vec::new();
        let mut members: BTreeMap<u16, Vec<(usize, &HostState)>> = BTreeMap::new();
        for entry in self.hosts.iter().enumerate().filter(|_| !parts.is_empty()) {
            match entry.1.place {
                _ if !self.is_cut => members.entry(WHOLE).or_default().push(entry),
                Place::Everywhere => everywhere.push(entry),
                Place::Part(part) if parts.contains_key(&part) => members.entry(part).or_default().push(entry),
                Place::Part(_) => {}
            }
        }
        for (part, moves_owners) in parts {
            let mut hosts = members.remove(part).unwrap_or_default();
            hosts.extend(&everywhere);
            hosts.sort_by_key(|(position, _)| *position);
            let misdirected = self.misdirected.get(part);
            if self.is_cut && hosts.is_empty() && misdirected.is_none() {
                continue;
            }
            let name = layout::part_name(port, chain, self.is_cut, *part);
            let hosts = hosts.into_iter().map(|(_, state)| &state.encoded).chain(misdirected);
            let before = made.routes.get(&name).filter(|_| !moves_owners).map(|resource| resource.owners.clone());
            let owners = before.unwrap_or_else(|| route::owners(&chain.gateways, hosts.clone()));
            let header = self.is_cut.then_some(layout::PART_HEADER);
            put(&mut made.routes, route::emit_route_configuration(name.clone(), header, hosts, owners));
            if self.is_cut && (*moves_owners || !made.scopes.contains_key(&name)) {
                put(&mut made.scopes, layout::emit_scope(&name, chain));
            }
            self.parts.insert(*part, name);
        }
    }

    /// Takes away what the chain was emitted as.
    fn forget(&self, made: &mut Made) {
        for name in self.parts.values() {
            remove(&mut made.routes, name);
            remove(&mut made.scopes, name);
        }
    }
}

/// Puts another value in place of a host's.
fn replace(state: &mut HostState, host: &Arc<VirtualHost>, weight: &mut Weight, touched: &mut Touched) {
    if state.host != *host {
        weight.remove(&state.host);
        weight.add(host);
        let encoded = route::encode_host(host);
        let moves_owners = encoded.owners != state.encoded.owners;
        *touched.entry(state.place).or_default() |= moves_owners;
        state.encoded = encoded;
    }
    state.host = host.clone();
}
