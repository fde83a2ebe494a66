//! The plan of one class of gateway Envoys: which listeners, which tables on them, in which order.
//!
//! [`bind`] decides once for all gateways which root table binds to which listener of which virtual gateway;
//! [`compose`] makes one gateway's plan of it.

mod binding;
mod chains;
mod freezing;
mod growth;
mod hosts;
mod identity;
mod isolation;
mod limits;
mod ports;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::ir::frozen::AcceptedRoute;
use crate::ir::listener::{HttpHosts, Purpose};
use crate::ir::route::{Action, DirectResponse, EffectiveLabels, Matcher, Route, RouteBody, RouteFault};
use crate::ir::upstream::UpstreamId;
use crate::ir::{Chain, Clients, GatewayPlan, Guard, Listener, Secret, SecretId, Serves, VirtualHost};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Host, Kind, Name, ObjectRef, WorkspaceId};

use super::access;
use super::crossing::{Exposure, crossings};
use super::destination::check_on_gateway;
use super::eastwest::is_east_west;
use super::facts::{
    GatewayListener, ListenerProtocol, PolicyObject, Port, Selector, Service, ServicePort, VirtualGateway,
};
use super::mesh::{Mesh, MeshPort, mesh_ports};
use super::policy;
use super::upstream::resolve_upstream;
use super::world::World;

pub use binding::{Bindings, Bound, ListenerKey, TableBindings, bind, bind_table};
pub use freezing::{broken_tables, carry_over, carry_over_table, freeze, is_broken, is_remembered, is_unread};
pub use growth::{GrownTree, Segment, Served, require_auth_findings};
pub use hosts::arranged::{Arranged as ArrangedHost, Difference};
pub use hosts::{HostKey, Hosts, PlainPort, Rows, View, virtual_host};
pub use identity::{Membership, account_of, membership, mesh_secrets, runs_as};
pub use sharing::{OpenEntries, Sharing, extensions, sharing, values};

use chains::{chains, client_chains};
use ports::bound_ports;

/// Whether a virtual gateway is implemented by a gateway Service (R52).
pub fn is_implemented_by<W: World + ?Sized>(world: &W, gateway: &VirtualGateway, service: &Service) -> bool {
    if service.selector.is_empty() || world.roster().owner_of(&gateway.id) != world.roster().owner_of(&service.id) {
        return false;
    }
    match &gateway.workloads {
        None => true,
        Some(selectors) => selectors.iter().any(|selector| picks_service(world, selector, service)),
    }
}

/// A workload selector on a gateway Service: labels against the Service's own selector, the rest against its name.
fn picks_service<W: World + ?Sized>(world: &W, selector: &Selector, service: &Service) -> bool {
    selector.fits(&service.id, &service.selector) && selector.fits_owner(world.roster().owner_of(&service.id))
}

/// The gateway Services that some virtual gateway is implemented by, or that are east-west gateways, each as a class of its own.
///
/// A virtual gateway without `workloads` counts for Services that have one of its ports.
#[must_use]
pub fn known_gateways<W: World + ?Sized>(world: &W) -> BTreeSet<GatewayId> {
    let mut known = BTreeSet::new();
    let gateways = world.virtual_gateways();
    for service in world.services(&Selector::default()) {
        if serves(world, &gateways, &service) {
            known.insert(class_of_one(&service.id));
        }
    }
    known
}

/// Whether a Service implements one of these virtual gateways, or is an east-west gateway, so that it is a class of its own.
pub fn serves<W: World + ?Sized>(world: &W, gateways: &[Arc<VirtualGateway>], service: &Service) -> bool {
    is_east_west(world.roster(), service) || gateways.iter().any(|gateway| implements_a_port(world, gateway, service))
}

/// Whether a Service implements a virtual gateway, and where that says nothing of `workloads` has one of its ports.
pub fn implements_a_port<W: World + ?Sized>(world: &W, gateway: &VirtualGateway, service: &Service) -> bool {
    is_implemented_by(world, gateway, service)
        && (gateway.workloads.is_some() || gateway.listeners.iter().any(|listener| has_port(service, listener)))
}

/// The class of a gateway Service alone.
#[must_use]
pub fn class_of_one(service: &ObjectRef) -> GatewayId {
    GatewayId::new(&service.cluster, &service.namespace, vec![service.name.clone()])
}

/// The class of the Envoy that states a cluster, namespace and labels: every Service of the namespace that selects it.
///
/// # Rule
/// R15.
pub fn class_of<W: World + ?Sized>(
    world: &W,
    cluster: &Name,
    namespace: &Name,
    labels: &crate::model::Labels,
) -> Option<GatewayId> {
    let here = Selector { namespace: Some(namespace.clone()), cluster: Some(cluster.clone()), ..Selector::default() };
    let mut services: Vec<Name> = world
        .services(&here)
        .into_iter()
        .filter(|service| !service.selector.is_empty() && contains_all(labels, &service.selector))
        .map(|service| service.id.name.clone())
        .collect();
    services.sort();
    (!services.is_empty()).then(|| GatewayId::new(cluster, namespace, services))
}

/// Whether a Service has the port that a listener names (R54).
#[must_use]
pub fn has_port(service: &Service, listener: &GatewayListener) -> bool {
    find_port(service, &listener.port).is_some()
}

fn find_port<'a>(service: &'a Service, port: &Port) -> Option<&'a ServicePort> {
    service.ports.iter().filter(|candidate| candidate.tcp).find(|candidate| match port {
        Port::Number(number) => candidate.number == *number,
        Port::Name(name) => candidate.name == *name,
    })
}

/// Makes the plan of one class of gateway Envoys; `clients` are those of its cluster.
///
/// # Findings
/// Those of [`listeners`], [`serve_on`], [`virtual_host`] and [`resolve_upstream`].
///
/// # Cost
/// In proportion to the routes and endpoints that the gateway serves.
pub fn compose<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    (bindings, trees, mesh): (&Bindings, &OrdMap<ObjectRef, Arc<GrownTree>>, &Mesh),
    clients: Option<&Arc<Clients>>,
    findings: &mut Findings,
) -> GatewayPlan {
    let mut plan = GatewayPlan {
        gateway: gateway.clone(),
        listeners: BTreeMap::new(),
        extensions: Arc::default(),
        guard: None,
        clients: None,
        upstreams: OrdMap::new(),
        secrets: BTreeMap::new(),
    };
    let Some(owner) = owner_of(world, gateway) else { return plan };
    let (pieces, keys) = (BTreeMap::new(), BTreeMap::new());
    let mut hosts = Afresh { world, gateway, owner: &owner, pieces, keys, findings: Findings::new() };
    let arranged = listeners(world, gateway, (bindings, trees, mesh), &mut hosts, findings);
    (plan.listeners, plan.secrets, plan.guard) = (arranged.listeners, arranged.secrets, arranged.guard);
    plan.clients = clients.filter(|_| plan.has_mesh()).cloned();
    findings.append(&mut hosts.findings);
    let pieces = hosts.pieces.iter().filter_map(|(root, pieces)| Some((trees.get(root)?, pieces)));
    let shares: Vec<Sharing> =
        pieces.flat_map(|(tree, pieces)| pieces.iter().map(|piece| sharing(world, tree, piece))).collect();
    let owners: BTreeSet<&WorkspaceId> = shares.iter().flat_map(|sharing| &sharing.owners).collect();
    let kept = shares.iter().map(|sharing| &sharing.kept);
    let mut extensions = extensions(world, gateway, owners.into_iter(), kept, findings);
    let roots = hosts.pieces.iter().filter(|(root, _)| trees.contains_key(*root));
    let roots = roots.flat_map(|(root, pieces)| pieces.iter().map(move |_| root));
    let served = plan.listeners.values().flat_map(|listener| &listener.chains).filter_map(|chain| chain.serves.http());
    let mut times: BTreeMap<&ObjectRef, u64> = BTreeMap::new();
    for host in served.flat_map(|http| &http.virtual_hosts) {
        let Some(key) = hosts.keys.get(&Arc::as_ptr(host)) else { continue };
        for root in key.tables.iter().collect::<BTreeSet<_>>() {
            *times.entry(root).or_default() += key.times(root);
        }
    }
    let mut open = OpenEntries::new();
    for (root, sharing) in roots.zip(&shares) {
        let times = times.get(root).copied().unwrap_or(0);
        for (whose, own) in sharing.open.iter().filter(|_| times > 0) {
            *open.entry(whose.clone()).or_default() += own.saturating_mul(times);
        }
    }
    extensions.values = values(gateway, &open, findings);
    plan.extensions = Arc::new(extensions);
    let mut wanted: BTreeSet<&UpstreamId> = plan.extensions.upstreams().collect();
    for route in plan.listeners.values().flat_map(|listener| listener.routes()) {
        wanted.extend(upstreams_of(&route.body));
    }
    for id in wanted {
        let upstream = resolve_upstream(world, gateway, &owner, id, findings);
        plan.secrets.extend(upstream.secrets.iter().cloned());
        plan.upstreams.insert(id.clone(), Arc::new(upstream));
    }
    complete_secrets(world, &mut plan, findings);
    plan
}

/// Adds what the upstreams of a plan need, and what gateways of other clusters are shown.
///
/// # Findings
/// Those of [`membership`].
fn complete_secrets<W: World + ?Sized>(world: &W, plan: &mut GatewayPlan, findings: &mut Findings) {
    let own: Vec<(SecretId, Secret)> =
        plan.upstreams.values().flat_map(|upstream| upstream.secrets.iter().cloned()).collect();
    plan.secrets.extend(own);
    if is_in_mesh(plan) {
        plan.secrets.extend(membership(world, &plan.gateway, findings).into_iter().flat_map(|own| own.secrets));
    }
}

/// Whether a gateway sends to other clusters, or receives from them.
#[must_use]
pub fn is_in_mesh(plan: &GatewayPlan) -> bool {
    let receives = plan.listeners.values().any(|listener| listener.ends_crossings());
    receives || plan.upstreams.values().any(|upstream| upstream.needs_identity())
}

/// Adds to a plan what gateways of other clusters connect to, once it is known who sends to what.
///
/// # Findings
/// Those of [`crossings`], and of what is behind.
///
/// # Cost
/// In proportion to what others send to in the gateway's cluster.
///
/// # Rule
/// R180 to R183.
pub fn cross<'e, W: World + ?Sized>(
    world: &W,
    plan: &mut GatewayPlan,
    exposures: impl Iterator<Item = &'e Exposure>,
    identity: impl Fn(&GatewayId) -> Option<Name>,
    findings: &mut Findings,
) {
    let Some(owner) = owner_of(world, &plan.gateway) else { return };
    let taken: BTreeSet<u16> = plan.listeners.keys().copied().collect();
    let listeners = crossings(world, &plan.gateway, exposures, identity, &taken, findings);
    for id in listeners.values().flat_map(|listener| listener.relayed()) {
        let upstream = resolve_upstream(world, &plan.gateway, &owner, id, findings);
        plan.upstreams.insert(id.clone(), Arc::new(upstream));
    }
    plan.listeners.extend(listeners);
    complete_secrets(world, plan, findings);
}

/// The workspace that owns the Services of a class of gateways.
pub fn owner_of<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> Option<WorkspaceId> {
    world.roster().owner(&gateway.cluster, &gateway.namespace).map(|ownership| ownership.workspace.clone())
}

/// The upstreams that a route names, once for each time: where it forwards to, and what its policies ask.
pub fn upstreams_of(body: &RouteBody) -> impl Iterator<Item = &UpstreamId> {
    destinations_of(body).chain(limits::servers_of(body))
}

/// The destinations of a route, once for each time.
fn destinations_of(body: &RouteBody) -> impl Iterator<Item = &UpstreamId> {
    let forward = match &body.action {
        Action::Forward(forward) => Some(forward),
        _ => None,
    };
    forward.into_iter().flat_map(|forward| forward.destinations.iter()).map(|destination| &destination.upstream)
}

/// The listeners of a gateway.
#[derive(Debug, Default)]
pub struct Arranged {
    /// By bound port.
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    /// What they show to clients.
    pub secrets: BTreeMap<SecretId, Secret>,
    /// Who may call what on all of them.
    pub guard: Option<Arc<Guard>>,
    /// Those ports whose only chain is arranged domain by domain.
    pub plain: BTreeMap<u16, PlainPort>,
    /// Likewise those for clients inside the cluster.
    pub mesh: BTreeMap<u16, MeshPort>,
}

/// The listeners of a gateway, with what they show to clients: the plan but for its upstreams.
///
/// # Findings
/// [`Code::ListenerPort`], [`Code::ListenerConflict`] and [`Code::Certificate`] on virtual gateways; on tables what is wrong
/// with their routes of whole connections.
///
/// # Cost
/// In proportion to the hosts that the gateway serves, beside what `hosts` does.
pub fn listeners<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    (bindings, trees, mesh): (&Bindings, &OrdMap<ObjectRef, Arc<GrownTree>>, &Mesh),
    hosts: &mut dyn Hosts,
    findings: &mut Findings,
) -> Arranged {
    let mut arranged = Arranged::default();
    let Some(owner) = owner_of(world, gateway) else { return arranged };
    let ports = bound_ports(world, gateway, findings);
    let is_closed = is_closed_by_policy(world, gateway, &owner);
    arranged.guard = access::at_gateway(world, gateway, &owner).map(Arc::new);
    let mut without_client_tls = BTreeSet::new();
    for (bind_port, bound) in ports {
        // A listener with a fault keeps its port from others, and is not bound.
        if bound.listeners.is_empty() {
            continue;
        }
        let mut here = OnGateway {
            world,
            gateway,
            owner: &owner,
            bindings,
            trees,
            is_closed,
            guard: arranged.guard.as_deref(),
            hosts: &mut *hosts,
            secrets: &mut arranged.secrets,
            findings,
        };
        let chains = chains(&mut here, &bound);
        if chains.is_empty() {
            continue;
        }
        let (service_ports, gateways) = (bound.service_ports, bound.gateways);
        if chains.iter().any(|chain| chain.tls.as_ref().is_none_or(|tls| tls.client.is_none())) {
            without_client_tls.extend(service_ports.first());
        }
        if bound.protocol == ListenerProtocol::Http && !is_closed {
            let plain = PlainPort { listeners: bound.listeners, service_ports: service_ports.clone() };
            arranged.plain.insert(bind_port, plain);
        }
        let purpose = Purpose::Gateway;
        let listener = Listener { bind_port, purpose, service_ports, gateways, chains };
        arranged.listeners.insert(bind_port, Arc::new(listener));
    }
    for (bind_port, port) in mesh_ports(world, gateway, mesh) {
        // What a virtual gateway says is said of this very gateway.
        if arranged.listeners.contains_key(&bind_port) {
            continue;
        }
        let mut here = OnGateway {
            world,
            gateway,
            owner: &owner,
            bindings,
            trees,
            is_closed,
            guard: arranged.guard.as_deref(),
            hosts: &mut *hosts,
            secrets: &mut arranged.secrets,
            findings,
        };
        let mut chains = client_chains(&mut here, mesh, &port);
        if port.has_http(mesh) {
            let virtual_hosts = if is_closed {
                vec![Arc::new(closed_host())]
            } else {
                mesh.hosts().filter_map(|domain| Some(port.host(mesh, trees, domain, hosts)?.1)).collect()
            };
            chains.push(Chain {
                name: Name::default(),
                gateways: Vec::new(),
                client: None,
                server_names: BTreeSet::new(),
                tls: None,
                guards: Vec::new(),
                serves: Serves::Http(HttpHosts { virtual_hosts, misdirected: BTreeSet::new() }),
            });
        }
        if chains.is_empty() {
            continue;
        }
        let is_settled = !is_closed && matches!(&*chains, [only] if only.serves.http().is_some());
        let service_ports = port.service_ports.clone();
        without_client_tls.extend(service_ports.first());
        let (purpose, gateways) = (Purpose::Mesh, Vec::new());
        let listener = Listener { bind_port, purpose, service_ports, gateways, chains };
        arranged.listeners.insert(bind_port, Arc::new(listener));
        if is_settled {
            arranged.mesh.insert(bind_port, port);
        }
    }
    access::peer_tls_findings(world, gateway, &owner, &without_client_tls, findings);
    arranged
}

/// Whether a protecting policy selects a gateway and cannot be applied (R120, R130).
pub(super) fn is_closed_by_policy<W: World + ?Sized>(world: &W, gateway: &GatewayId, owner: &WorkspaceId) -> bool {
    let policies = world.workload_policies(owner);
    policies.iter().any(|policy| policy::closes(policy) && selects_gateway(world, gateway, policy))
}

/// Whether a policy selects a gateway as a workload.
///
/// Its labels are those of the gateway's Pods: what the Service selects them by, or what one of them carries.
///
/// # Rule
/// R120.
pub fn selects_gateway<W: World + ?Sized>(world: &W, gateway: &GatewayId, policy: &PolicyObject) -> bool {
    gateway.services.iter().any(|name| {
        let id = ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
        let Some(service) = world.service(&id) else { return false };
        let mut selectors = policy.targets.workloads.iter();
        selectors.any(|selector| {
            picks_service(world, selector, &service)
                || world.pods(&gateway.cluster, &gateway.namespace).iter().any(|pod| {
                    contains_all(&pod.labels, &service.selector)
                        && selector.fits(&service.id, &pod.labels)
                        && selector.fits_owner(world.roster().owner_of(&service.id))
                })
        })
    })
}

/// Refuses every request.
fn closed_host() -> VirtualHost {
    let body = RouteBody {
        action: Action::Direct(DirectResponse {
            status: 403,
            body: "chancery: closed, because a policy that protects this gateway cannot be applied".into(),
        }),
        policies: Arc::default(),
        chain: Arc::default(),
        labels: EffectiveLabels::default(),
        attached: Arc::default(),
        fault: None,
    };
    let route = Route { name: "closed".into(), matcher: Matcher::any(), body: Arc::new(body) };
    VirtualHost {
        domain: Host::any(),
        tables: Vec::new(),
        redirects_to_https: false,
        routes: [route].into_iter().collect(),
    }
}

/// What is looked up once per gateway.
struct OnGateway<'a, W: World + ?Sized> {
    world: &'a W,
    gateway: &'a GatewayId,
    owner: &'a WorkspaceId,
    bindings: &'a Bindings,
    trees: &'a OrdMap<ObjectRef, Arc<GrownTree>>,
    /// Whether a protecting policy keeps the whole gateway closed.
    is_closed: bool,
    /// Who may call what on the gateway.
    guard: Option<&'a Guard>,
    hosts: &'a mut dyn Hosts,
    /// What the chains so far need.
    secrets: &'a mut BTreeMap<SecretId, Secret>,
    findings: &'a mut Findings,
}

/// Makes every virtual host.
struct Afresh<'a, W: World + ?Sized> {
    world: &'a W,
    gateway: &'a GatewayId,
    owner: &'a WorkspaceId,
    pieces: BTreeMap<ObjectRef, Vec<Served>>,
    /// What those are made from that are kept, by their places in memory.
    keys: BTreeMap<*const VirtualHost, HostKey>,
    findings: Findings,
}

impl<W: World + ?Sized> Hosts for Afresh<'_, W> {
    fn host(&mut self, key: HostKey, trees: &[&Arc<GrownTree>]) -> Arc<VirtualHost> {
        for grown in trees {
            let root = &grown.tree.root.id;
            if !self.pieces.contains_key(root) {
                let served = |piece| serve_on(self.world, self.gateway, self.owner, grown, piece, &mut self.findings);
                self.pieces.insert(root.clone(), grown.pieces().map(served).collect());
            }
        }
        let rows: Vec<Rows<'_>> =
            trees.iter().map(|grown| Rows::new(grown, &self.pieces[&grown.tree.root.id])).collect();
        let host = Arc::new(virtual_host(&key, &rows, &mut self.findings));
        // Of one that nobody kept another may have the place by now.
        self.keys.insert(Arc::as_ptr(&host), key);
        host
    }
}

/// A piece of a tree with what is wrong on a gateway only; the same where nothing is.
///
/// # Findings
/// Faults that hold on this gateway only, on the tables of the chain; on policies whose rate-limit service is not there.
///
/// # Rule
/// R146.
pub fn serve_on<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    owner: &WorkspaceId,
    grown: &GrownTree,
    piece: &Served,
    findings: &mut Findings,
) -> Served {
    let mut checked: BTreeMap<&UpstreamId, Option<(Code, String)>> = BTreeMap::new();
    let mut replaced: Option<Vec<AcceptedRoute>> = None;
    let mut limits = limits::Reach::new(world, gateway, owner);
    let mut clients = isolation::Clients::of(world, gateway, &grown.tree.root.id);
    let mut asked = sharing::Asked::new(world, gateway, owner);
    for (position, route) in piece.iter().enumerate() {
        let mut faults: Vec<(Code, String)> = Vec::new();
        for upstream in destinations_of(&route.body) {
            let fault =
                checked.entry(upstream).or_insert_with(|| check_on_gateway(world, gateway, owner, upstream).err());
            faults.extend(fault.clone());
        }
        if let Some((code, message)) = faults.into_iter().min() {
            let fault = RouteFault { code, message, gateway_specific: true };
            report(gateway, &route.body, &fault, grown.frozen.is_some(), findings);
            let body = growth::misconfigured((*route.body).clone(), fault);
            replaced.get_or_insert_with(|| piece.to_vec())[position].body = Arc::new(body);
            continue;
        }
        if let Some(fault) = asked.fault(&route.body) {
            // Its author is told with what policies share.
            let body = growth::misconfigured((*route.body).clone(), fault);
            replaced.get_or_insert_with(|| piece.to_vec())[position].body = Arc::new(body);
            continue;
        }
        access::late_token_findings(world, gateway, owner, &route.body, findings);
        if let Some(body) = limits.on_gateway(&route.body) {
            replaced.get_or_insert_with(|| piece.to_vec())[position].body = Arc::new(body);
        }
        let shut = clients.shut_out(&route.body);
        if !shut.is_empty() {
            findings.extend(isolation::told(gateway, &route.body, &shut));
            replaced.get_or_insert_with(|| piece.to_vec())[position].shut_out = shut.into_keys().collect();
        }
    }
    findings.append(&mut limits.findings());
    replaced.map_or_else(|| piece.clone(), Into::into)
}

/// Tells every table of the chain, naming the gateway. Where a frozen route stood says nothing about its table now.
fn report(gateway: &GatewayId, body: &RouteBody, fault: &RouteFault, is_frozen: bool, findings: &mut Findings) {
    let Some(last) = body.chain.last() else { return };
    let mut told: BTreeSet<&ObjectRef> = BTreeSet::new();
    for hop in body.chain.iter() {
        if told.insert(&hop.table) {
            findings.push(
                Finding::error(
                    &hop.table,
                    fault.code,
                    format!("route `{}` is invalid on gateway `{}`: {}", last.route, gateway, fault.message),
                )
                .at(if is_frozen { FieldPath::root() } else { hop.field() }),
            );
        }
    }
}
