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

use crate::ir::listener::{HttpHosts, Purpose};
use crate::ir::{
    Chain, Clients, Extensions, GatewayPlan, Guard, Listener, Route, Secret, SecretId, Serves, Upstream, UpstreamId,
    VirtualHost,
};
use crate::model::{Host, Name, ObjectRef, WorkspaceId};
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot};

use super::filter::Beyond;
use super::layout::{self, Form, Layout, Parts, Piece, Place, Ready, Turn, Weight};
use super::route::HostPart;
use super::{EmitOptions, clients, cluster, endpoint, filter, listener, name, route, secret};

/// Emits the plans of one gateway, one after the other.
///
/// One per [`GatewayKey`](crate::publish::GatewayKey), kept by whoever publishes. It holds the plan's values and the
/// resources that it made, both shared with the plan and the snapshot.
///
/// What it returns shares with the snapshot before: a type in which nothing changed is the same `Arc`, so is a resource
/// that did not change.
///
/// # Cost
/// One comparison of pointers per virtual host and per upstream near one that differs; encoding of what differs; and
/// splicing of each route configuration with a changed host. A host that comes or goes costs a pass over the chain's list
/// of hosts.
#[derive(Debug, Default)]
pub struct Emitter {
    state: Option<State>,
    layout: Layout,
}

impl Emitter {
    /// An emitter that made nothing yet, for gateways that have nothing yet, or what a layout says.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { state: None, layout }
    }

    /// Everything that the Envoys of one gateway should hold.
    ///
    /// Another address to bind, another release or a gateway of another cluster makes everything new, and so does a set of
    /// settings that gets or loses the filter which routes name for it. Where more or fewer values are counted apart, hosts with
    /// such routes are made anew.
    pub fn emit(&mut self, plan: &GatewayPlan, options: &EmitOptions) -> Snapshot {
        let fits = |state: &State| {
            (state.options.bind, state.options.release) == (options.bind, options.release)
                && state.cluster == plan.gateway.cluster
                && !plan.extensions.changes_routes_of(&state.extensions)
        };
        if !self.state.as_ref().is_some_and(fits) {
            self.state = None;
        }
        let state = self.state.get_or_insert_with(|| State::new(options, plan.gateway.cluster.clone()));
        state.options = options.clone();
        state.recount(&plan.extensions.recounts(&state.extensions));
        state.update_extensions(&plan.extensions);
        if state.guard != plan.guard {
            put(&mut state.made.extensions, filter::emit_guard(plan.guard.as_deref(), options.release));
            state.guard.clone_from(&plan.guard);
        }
        if state.clients != plan.clients {
            for (name, part) in clients::emit_clients(plan.clients.as_deref()) {
                match part {
                    Some(part) => put(&mut state.made.extensions, part),
                    None => remove(&mut state.made.extensions, &name),
                }
            }
            state.clients.clone_from(&plan.clients);
        }
        state.update_upstreams(&plan.upstreams);
        state.update_secrets(&plan.secrets);
        state.update_listeners(&plan.listeners, &mut self.layout);
        state.made.snapshot()
    }

    /// The policies that the release cannot do.
    ///
    /// # Cost
    /// In proportion to these policies and to the chains.
    #[must_use]
    pub fn beyond(&self) -> BTreeSet<Beyond> {
        let listeners = self.state.iter().flat_map(|state| state.listeners.values());
        let of_routes = listeners.flat_map(|listener| listener.chains.values()).flat_map(|chain| chain.beyond.keys());
        let of_upstreams = self.state.iter().flat_map(|state| state.beyond.values().flatten());
        of_routes.chain(of_upstreams).cloned().collect()
    }

    /// How the chains are laid out now.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// No gateway has connections any more from a time when a chain was cut that is whole now: with the next emission,
    /// what stands by for them goes.
    pub fn settle(&mut self) {
        self.layout.settle();
    }

    /// All gateways have these of the parts that are prepared: with the next emission, listeners use them.
    pub fn ready(&mut self, ready: Ready) {
        self.layout.ready(ready);
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
    extensions: Arc<Extensions>,
    guard: Option<Arc<Guard>>,
    clients: Option<Arc<Clients>>,
    upstreams: OrdMap<UpstreamId, Arc<Upstream>>,
    /// By upstream: the policies on it that the release cannot do. Nearly always empty.
    beyond: BTreeMap<UpstreamId, Vec<Beyond>>,
    secrets: BTreeMap<SecretId, Secret>,
    listeners: BTreeMap<u16, ListenerState>,
    made: Made,
}

impl State {
    fn new(options: &EmitOptions, cluster: Name) -> Self {
        let mut made = Made::default();
        let extensions = Arc::new(Extensions::default());
        for extension in filter::emit_extensions(&extensions, options.release) {
            put(&mut made.extensions, extension);
        }
        put(&mut made.extensions, filter::emit_guard(None, options.release));
        Self {
            options: options.clone(),
            cluster,
            extensions,
            guard: None,
            clients: None,
            upstreams: OrdMap::new(),
            beyond: BTreeMap::new(),
            secrets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            made,
        }
    }

    fn update_extensions(&mut self, extensions: &Arc<Extensions>) {
        if Arc::ptr_eq(&self.extensions, extensions) || self.extensions == *extensions {
            return;
        }
        for extension in filter::emit_extensions(extensions, self.options.release) {
            put(&mut self.made.extensions, extension);
        }
        let (before, now) = (cluster::dialled(&self.extensions), cluster::dialled(extensions));
        for gone in before.keys().filter(|dial| !now.contains_key(*dial)) {
            remove(&mut self.made.clusters, &name::dial(gone));
        }
        for (dial, owners) in now {
            if before.get(dial) != Some(&owners) {
                put(&mut self.made.clusters, cluster::emit_dialled(dial, owners));
            }
        }
        self.extensions = extensions.clone();
    }

    /// Notes hosts with routes of these workspaces on which values are counted apart: they are to be made anew.
    ///
    /// # Cost
    /// None without such workspaces; else a look at each route of the gateway.
    fn recount(&mut self, owners: &BTreeSet<WorkspaceId>) {
        if owners.is_empty() {
            return;
        }
        let is_other = |route: &Route| {
            route.body.owner().is_some_and(|owner| owners.contains(owner)) && route.body.counts_values()
        };
        let chains = self.listeners.values_mut().flat_map(|listener| listener.chains.values_mut());
        for state in chains.flat_map(|chain| &mut chain.hosts) {
            state.is_stale |= state.host.routes.iter().any(is_other);
        }
    }

    fn update_upstreams(&mut self, upstreams: &OrdMap<UpstreamId, Arc<Upstream>>) {
        // What two maps share is passed over.
        for item in self.upstreams.diff(upstreams) {
            if let DiffItem::Remove(_, before) | DiffItem::Update { old: (_, before), .. } = &item {
                let before = filter::as_served(before, self.options.release);
                let now = match &item {
                    DiffItem::Update { new: (_, now), .. } => Some(filter::as_served(now, self.options.release)),
                    DiffItem::Add(..) | DiffItem::Remove(..) => None,
                };
                let now = now.filter(|now| !now.is_looked_up()).map(|now| endpoint::name_of(&now));
                let before = endpoint::name_of(&before);
                if now.as_ref() != Some(&before) {
                    remove(&mut self.made.endpoints, &before);
                }
            }
            match item {
                DiffItem::Remove(id, _) => {
                    remove(&mut self.made.clusters, &name::cluster(id));
                    self.beyond.remove(id);
                }
                // Its cluster says nothing of that.
                DiffItem::Update { old: (_, old), new: (_, upstream) } if old.is_same_but_for_endpoints(upstream) => {
                    let served = filter::as_served(upstream, self.options.release);
                    put(&mut self.made.endpoints, endpoint::emit_endpoints(&served));
                }
                DiffItem::Add(id, upstream) | DiffItem::Update { new: (id, upstream), .. } => {
                    let served = filter::as_served(upstream, self.options.release);
                    put(&mut self.made.clusters, cluster::emit_cluster(&served, &self.cluster));
                    if !served.is_looked_up() {
                        put(&mut self.made.endpoints, endpoint::emit_endpoints(&served));
                    }
                    match filter::beyond_at(upstream, self.options.release) {
                        none if none.is_empty() => self.beyond.remove(id),
                        some => self.beyond.insert(id.clone(), some),
                    };
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

    fn update_listeners(&mut self, listeners: &BTreeMap<u16, Arc<Listener>>, layout: &mut Layout) {
        let gone: Vec<u16> = self.listeners.keys().filter(|port| !listeners.contains_key(port)).copied().collect();
        for port in gone {
            remove(&mut self.made.listeners, &name::listener(port));
            for (_, chain) in self.listeners.remove(&port).map(|state| state.chains).into_iter().flatten() {
                chain.forget(&mut self.made);
            }
        }
        let turn = layout.turn();
        for (port, listener) in listeners {
            let state = self.listeners.entry(*port).or_default();
            let target = route::Target { release: self.options.release, extensions: &self.extensions };
            state.update(listener, (&self.options, target), self.clients.as_ref(), (turn, layout), &mut self.made);
        }
        layout.emitted();
        layout.retain(|port, chain| self.listeners.get(&port).is_some_and(|state| state.chains.contains_key(chain)));
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
    /// What its own resource was made from.
    shell: Option<Shell>,
    /// The listener of the last time.
    last: Option<Arc<Listener>>,
    /// HTTP chains by name.
    chains: BTreeMap<Name, ChainState>,
}

impl ListenerState {
    fn update(
        &mut self,
        listener: &Arc<Listener>,
        (options, target): (&EmitOptions, route::Target<'_>),
        clients: Option<&Arc<Clients>>,
        (turn, layout): (Turn, &mut Layout),
        made: &mut Made,
    ) {
        let port = listener.bind_port;
        let http: BTreeMap<&Name, (&Chain, &HttpHosts)> =
            listener.chains.iter().filter_map(|chain| Some((&chain.name, (chain, chain.serves.http()?)))).collect();
        let gone: Vec<Name> = self.chains.keys().filter(|name| !http.contains_key(name)).cloned().collect();
        for chain in gone.iter().filter_map(|name| self.chains.remove(name)) {
            chain.forget(made);
        }
        let mut cut: BTreeMap<Name, Parts> = BTreeMap::new();
        for (name, (chain, http)) in http {
            let state = self.chains.entry(name.clone()).or_default();
            let hosts = state.update_hosts(&http.virtual_hosts, target);
            let before = layout.form(port, name);
            let form = state.weight.form(&http.misdirected, before, turn, options);
            layout.set(port, name, form);
            state.update((listener, chain, http), form, &hosts, made);
            if let Some(parts) = form.cut() {
                cut.insert(name.clone(), parts);
            }
        }
        let clients = clients.filter(|_| listener.tells_clients_apart()).cloned();
        // Others may have hundreds of chains, and most edits are of something else.
        let is_kept = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, listener));
        self.last = Some(listener.clone());
        let has_same_shell = |before: &Shell| is_kept || has_shell(listener, &before.listener);
        let is_same = |before: &Shell| before.cut == cut && before.clients == clients && has_same_shell(before);
        if !self.shell.as_ref().is_some_and(is_same) {
            let into = |chain: &Chain| cut.get(&chain.name).copied();
            let resource = listener::emit_listener(listener, clients.as_deref(), options, &into);
            put(&mut made.listeners, resource);
            self.shell = Some(Shell { listener: shell(listener), cut, clients });
        }
    }
}

/// What the resource of a listener was made from.
#[derive(Debug)]
struct Shell {
    /// Without virtual hosts.
    listener: Listener,
    /// Which chains are cut, and into what.
    cut: BTreeMap<Name, Parts>,
    /// Where they are told apart.
    clients: Option<Arc<Clients>>,
}

/// A listener without what only its route configurations are made from.
fn shell(listener: &Listener) -> Listener {
    let chain = |chain: &Chain| Chain {
        name: chain.name.clone(),
        gateways: chain.gateways.clone(),
        client: chain.client.clone(),
        server_names: chain.server_names.clone(),
        tls: chain.tls.clone(),
        guards: chain.guards.clone(),
        serves: match &chain.serves {
            Serves::Http(_) => Serves::Http(HttpHosts::default()),
            other => other.clone(),
        },
    };
    Listener {
        bind_port: listener.bind_port,
        purpose: listener.purpose,
        service_ports: listener.service_ports.clone(),
        gateways: listener.gateways.clone(),
        chains: listener.chains.iter().map(chain).collect(),
    }
}

/// Whether a listener is a shell but for its virtual hosts.
fn has_shell(listener: &Listener, shell: &Listener) -> bool {
    let Listener { bind_port, purpose, service_ports, gateways, chains } = listener;
    let is_same = |chain: &Chain, shell: &Chain| {
        let Chain { name, gateways, client, server_names, tls, guards, serves } = chain;
        let serves_alike = match (serves, &shell.serves) {
            (Serves::Http(_), Serves::Http(_)) => true,
            (now, before) => now == before,
        };
        serves_alike
            && (name, gateways, server_names) == (&shell.name, &shell.gateways, &shell.server_names)
            && (tls, guards, client) == (&shell.tls, &shell.guards, &shell.client)
    };
    (bind_port, purpose) == (&shell.bind_port, &shell.purpose)
        && (service_ports, gateways) == (&shell.service_ports, &shell.gateways)
        && chains.len() == shell.chains.len()
        && chains.iter().zip(&shell.chains).all(|(chain, shell)| is_same(chain, shell))
}

/// A virtual host as it was encoded last.
#[derive(Debug)]
struct HostState {
    host: Arc<VirtualHost>,
    place: Place,
    encoded: HostPart,
    /// Whether it is to be encoded anew, though the host is the same.
    is_stale: bool,
}

impl HostState {
    fn new(host: &Arc<VirtualHost>, target: route::Target<'_>) -> Self {
        let encoded = route::encode_host(host, target);
        Self { host: host.clone(), place: Place::of(&host.domain), encoded, is_stale: false }
    }
}

/// The hosts of an HTTP chain as they were emitted last.
#[derive(Debug, Default)]
struct ChainState {
    /// None before it was emitted.
    form: Option<Form>,
    /// Whom its listener is for.
    purpose: Option<Purpose>,
    gateways: Vec<ObjectRef>,
    misdirected_hosts: BTreeSet<Host>,
    /// In the order of the plan.
    hosts: Vec<HostState>,
    /// Where in that list the hosts of a place are.
    index: BTreeMap<Place, Vec<usize>>,
    weight: Weight,
    /// The policies that the release cannot do, with the number of their routes.
    beyond: BTreeMap<Beyond, usize>,
    misdirected: BTreeMap<Piece, HostPart>,
    /// The route configurations that exist, and what they are called.
    pieces: BTreeMap<Piece, Name>,
}

/// Places with a change, and whether the change moves owners.
type Touched = BTreeMap<Place, bool>;

impl ChainState {
    /// Brings the route configurations and scopes up to date with the hosts.
    fn update(
        &mut self,
        (listener, chain, http): (&Listener, &Chain, &HttpHosts),
        form: Form,
        touched: &Touched,
        made: &mut Made,
    ) {
        let (port, purpose) = (listener.bind_port, listener.purpose);
        let is_new = self.form != Some(form)
            || self.purpose != Some(purpose)
            || self.gateways != chain.gateways
            || self.misdirected_hosts != http.misdirected;
        if is_new {
            self.form = Some(form);
            self.purpose = Some(purpose);
            self.gateways.clone_from(&chain.gateways);
            self.misdirected_hosts.clone_from(&http.misdirected);
            self.misdirected = layout::encode_all_misdirected(http, form);
        }
        let everywhere = touched.get(&Place::Everywhere);
        let pieces: BTreeMap<Piece, bool> = if is_new || everywhere.is_some() {
            let moves = |piece: Piece| is_new || touched.iter().any(|(place, moves)| *moves && piece.has(*place));
            form.pieces().map(|piece| (piece, moves(piece))).collect()
        } else {
            let mut pieces = BTreeMap::new();
            for (place, moves) in touched {
                for piece in form.pieces_at(*place) {
                    *pieces.entry(piece).or_default() |= *moves;
                }
            }
            pieces
        };
        let mut left_over = if is_new { std::mem::take(&mut self.pieces) } else { BTreeMap::new() };
        left_over.extend(pieces.keys().filter_map(|piece| self.pieces.remove_entry(piece)));
        self.emit_pieces(port, chain, &pieces, made);
        // A chain's name stands in the names of its pieces, so the same piece has the same name.
        for (piece, name) in left_over {
            if !self.pieces.contains_key(&piece) {
                remove(&mut made.routes, &name);
                remove(&mut made.scopes, &name);
            }
        }
    }

    /// Takes the hosts of a plan over; where they stand that differ.
    fn update_hosts(&mut self, hosts: &[Arc<VirtualHost>], target: route::Target<'_>) -> Touched {
        let mut touched = Touched::new();
        let same_domains = self.hosts.len() == hosts.len()
            && self
                .hosts
                .iter()
                .zip(hosts)
                .all(|(before, host)| Arc::ptr_eq(&before.host, host) || before.host.domain == host.domain);
        if same_domains {
            for (before, host) in self.hosts.iter_mut().zip(hosts) {
                if before.is_stale || !Arc::ptr_eq(&before.host, host) {
                    replace(before, host, target, (&mut self.weight, &mut self.beyond), &mut touched);
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
                    if state.is_stale || !Arc::ptr_eq(&state.host, host) {
                        replace(&mut state, host, target, (&mut self.weight, &mut self.beyond), &mut touched);
                    }
                    state
                }
                None => {
                    let state = HostState::new(host, target);
                    self.weight.add(host);
                    add(&mut self.beyond, &state.encoded.beyond);
                    touched.insert(state.place, true);
                    state
                }
            };
            self.hosts.push(state);
        }
        for state in before.into_values() {
            self.weight.remove(&state.host);
            subtract(&mut self.beyond, &state.encoded.beyond);
            touched.insert(state.place, true);
        }
        self.index.clear();
        for (position, state) in self.hosts.iter().enumerate() {
            self.index.entry(state.place).or_default().push(position);
        }
        touched
    }

    /// Emits some pieces, of which it is known whether their owners may have changed.
    fn emit_pieces(&mut self, port: u16, chain: &Chain, pieces: &BTreeMap<Piece, bool>, made: &mut Made) {
        let at = |place: Place| self.index.get(&place).into_iter().flatten().copied();
        for (piece, moves_owners) in pieces {
            let own: Vec<&HostPart> = match piece {
                Piece::Whole => self.hosts.iter().map(|state| &state.encoded).collect(),
                Piece::Part(..) => {
                    let mut own: Vec<usize> = piece.places().flat_map(at).collect();
                    own.sort_unstable();
                    own.into_iter().map(|position| &self.hosts[position].encoded).collect()
                }
            };
            let own = own.into_iter().chain(self.misdirected.get(piece));
            if *piece != Piece::Whole && own.clone().next().is_none() {
                continue;
            }
            let name = piece.name(port, chain);
            let before = made.routes.get(&name).filter(|_| !moves_owners).map(|resource| resource.owners.clone());
            let owners = before.unwrap_or_else(|| route::owners(&chain.gateways, own.clone()));
            let removed = layout::headers_to_remove(*piece, self.purpose == Some(Purpose::Mesh));
            put(&mut made.routes, route::emit_route_configuration(name.clone(), removed, own, owners));
            if *piece != Piece::Whole && (*moves_owners || !made.scopes.contains_key(&name)) {
                put(&mut made.scopes, layout::emit_scope(&name, chain));
            }
            self.pieces.insert(*piece, name);
        }
    }

    /// Takes away what the chain was emitted as.
    fn forget(&self, made: &mut Made) {
        for name in self.pieces.values() {
            remove(&mut made.routes, name);
            remove(&mut made.scopes, name);
        }
    }
}

/// Puts another value in place of a host's.
fn replace(
    state: &mut HostState,
    host: &Arc<VirtualHost>,
    target: route::Target<'_>,
    (weight, beyond): (&mut Weight, &mut BTreeMap<Beyond, usize>),
    touched: &mut Touched,
) {
    if state.is_stale || state.host != *host {
        weight.remove(&state.host);
        weight.add(host);
        subtract(beyond, &state.encoded.beyond);
        let encoded = match std::mem::take(&mut state.is_stale) {
            true => route::encode_host(host, target),
            false => route::encode_host_after((&state.host, &mut state.encoded), host, target),
        };
        add(beyond, &encoded.beyond);
        let moves_owners = encoded.owners != state.encoded.owners;
        *touched.entry(state.place).or_default() |= moves_owners;
        state.encoded = encoded;
    }
    state.host = host.clone();
}

fn add(counted: &mut BTreeMap<Beyond, usize>, more: &[Beyond]) {
    for beyond in more {
        *counted.entry(beyond.clone()).or_default() += 1;
    }
}

fn subtract(counted: &mut BTreeMap<Beyond, usize>, fewer: &[Beyond]) {
    for beyond in fewer {
        if let Some(count) = counted.get_mut(beyond) {
            *count -= 1;
            if *count == 0 {
                counted.remove(beyond);
            }
        }
    }
}
