//! The plan of one class of gateway Envoys: which listeners, which tables on them, in which order.
//!
//! [`bind`] decides once for all gateways which root table binds to which listener of which virtual gateway;
//! [`compose`] makes one gateway's plan of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::route::{
    Action, DirectResponse, EffectiveLabels, Forward, Matcher, Route, RouteBody, RouteFault, WeightedDestination,
};
use crate::ir::upstream::UpstreamId;
use crate::ir::{GatewayPlan, Listener, VirtualHost};
use crate::model::labels::contains_all;
use crate::model::{
    Code, FieldPath, Finding, Findings, GatewayId, Host, Kind, Name, ObjectRef, PathMatch, WorkspaceId,
};

use super::RequireAuth;
use super::attachment::{Attached, attach};
use super::delegation::{FinalAction, FinalRoute, Tree};
use super::destination::{check_on_gateway, resolve_upstream};
use super::facts::{
    GatewayListener, ListenerProtocol, Port, Reference, RootTable, Selector, Service, ServicePort, Table, TableRole,
    VirtualGateway,
};
use super::policy;
use super::visibility::is_visible;
use super::world::World;

/// The label by which the default-deny switch finds routes (R51).
const REQUIRE_AUTH_LABEL: &str = "gateway.gloo.solo.io/require_auth";

/// A tree with what attaches to each of its routes; the same for every gateway.
#[derive(Clone, Debug)]
pub struct GrownTree {
    /// The tree.
    pub tree: Tree,
    /// For each of its routes.
    pub attached: Vec<Attached>,
    /// Each route's body, as it is where nothing gateway-specific is wrong.
    pub bodies: Vec<Arc<RouteBody>>,
}

/// Attaches policies to a tree's routes.
///
/// # Cost
/// In proportion to the routes and their candidates.
pub fn grow<W: World + ?Sized>(world: &W, tree: Tree) -> GrownTree {
    let mut attached: Vec<Attached> = Vec::with_capacity(tree.routes.len());
    for route in &tree.routes {
        let mut own = attach(world, route);
        if let Some(before) = attached.last() {
            own.share_with(before);
        }
        attached.push(own);
    }
    let bodies =
        tree.routes.iter().zip(&attached).map(|(route, attached)| Arc::new(body(world, route, attached))).collect();
    GrownTree { tree, attached, bodies }
}

/// A final route with its policies as what the gateway does.
fn body<W: World + ?Sized>(world: &W, route: &FinalRoute, attached: &Attached) -> RouteBody {
    let mut body = RouteBody {
        action: Action::Direct(DirectResponse { status: 500, body: Name::default() }),
        policies: attached.route.clone(),
        chain: route.chain.clone(),
        labels: route.labels.clone(),
        attached: attached.attachments.clone(),
        fault: None,
    };
    let fault = route.fault.clone().or_else(|| attached.closed.as_ref().map(|(_, fault)| fault.clone()));
    if let Some(fault) = fault {
        return misconfigured(body, fault);
    }
    body.action = match &route.action {
        FinalAction::Forward { destinations, path_rewrite, host_rewrite } => Action::Forward(Forward {
            destinations: destinations
                .iter()
                .map(|(upstream, weight)| WeightedDestination {
                    upstream: upstream.clone(),
                    weight: *weight,
                    policies: attached.destinations.get(upstream).cloned().unwrap_or_default(),
                })
                .collect(),
            path_rewrite: path_rewrite.clone(),
            host_rewrite: host_rewrite.clone(),
        }),
        FinalAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        FinalAction::Direct(direct) => Action::Direct(direct.clone()),
        // A route without an action has a fault.
        FinalAction::None => return body,
    };
    if needs_auth(world, route) && !has_auth(attached) {
        body.action = Action::Direct(DirectResponse {
            status: 403,
            body: "chancery: this route requires authentication, and no policy provides it".into(),
        });
    }
    body
}

/// R51: the switch is on and the route is labelled.
fn needs_auth<W: World + ?Sized>(world: &W, route: &FinalRoute) -> bool {
    world.options().require_auth == RequireAuth::On
        && route.labels.get(REQUIRE_AUTH_LABEL).is_some_and(|label| label.value == "true")
}

fn has_auth(attached: &Attached) -> bool {
    attached.attachments.iter().any(|a| matches!(a.policy.kind, Kind::ExtAuthPolicy | Kind::JwtPolicy))
}

/// The direct response of an invalid route; it carries no policies.
///
/// # Rule
/// R142.
fn misconfigured(mut body: RouteBody, fault: RouteFault) -> RouteBody {
    let text = format!("chancery: route misconfigured ({})", fault.code);
    body.action = Action::Direct(DirectResponse { status: 500, body: text.into() });
    body.policies = Arc::default();
    body.attached = Arc::default();
    body.fault = Some(fault);
    body
}

/// A root table on a listener, with the hosts that it has there: as the listener narrows them, and as the table writes them.
pub type Bound = (ObjectRef, Vec<(Host, Host)>);

/// Which root tables a listener of a virtual gateway serves, and on which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// By virtual gateway and listener position: tables with the hosts they have there, tables in age order.
    pub tables: BTreeMap<(ObjectRef, usize), Vec<Bound>>,
    /// The virtual gateways that each table may use.
    pub gateways: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
}

/// Decides which root tables bind to which listeners.
///
/// # Findings
/// [`Code::GatewayNotUsable`] and [`Code::ListenerFilter`] on tables.
///
/// # Rule
/// R62 to R66.
pub fn bind<W: World + ?Sized>(world: &W, findings: &mut Findings) -> Bindings {
    let mut bindings = Bindings::default();
    for table in world.root_tables() {
        let TableRole::Root(root) = &table.role else { continue };
        for (index, reference) in root.gateways.iter().enumerate() {
            let field = FieldPath::new("spec.virtualGateways").index(index);
            bind_one(world, &table, root, reference, &field, &mut bindings, findings);
        }
    }
    bindings
}

fn bind_one<W: World + ?Sized>(
    world: &W,
    table: &Arc<Table>,
    root: &RootTable,
    reference: &Reference,
    field: &FieldPath,
    bindings: &mut Bindings,
    findings: &mut Findings,
) {
    let (gateway, others) = find_gateway(world, &table.id, reference);
    if others > 0
        && let Some(gateway) = &gateway
    {
        findings.push(
            Finding::warning(
                &table.id,
                Code::AmbiguousReference,
                format!(
                    "the reference names no cluster and finds {} virtual gateways; the oldest, `{}`, is used; write the cluster",
                    others + 1,
                    gateway.id
                ),
            )
            .at(field.clone())
            .with(&gateway.id),
        );
    }
    let mut not_usable = |message: String| {
        findings.push(Finding::error(&table.id, Code::GatewayNotUsable, message).at(field.clone()));
    };
    let Some(gateway) = gateway else {
        let namespace = reference.namespace.as_ref().unwrap_or(&table.id.namespace);
        let place = match &reference.cluster {
            Some(cluster) => format!("cluster `{cluster}`"),
            None => "any cluster".to_owned(),
        };
        not_usable(format!(
            "there is no virtual gateway `{namespace}/{}` in {place}, so the hosts are not served there; correct the reference",
            reference.name
        ));
        return;
    };
    let Some(owner) = world.roster().owner_of(&gateway.id) else { return };
    if !is_visible(world, owner, &table.id, &table.labels) {
        not_usable(format!(
            "workspace `{owner}`, which owns `{}`, does not see this table: export it there (`exportTo`, kind ROUTE_TABLE) and import it there; its hosts are not served on that gateway",
            gateway.id
        ));
        return;
    }
    bindings.gateways.entry(table.id.clone()).or_default().insert(gateway.id.clone());
    let mut served = false;
    let mut hosts_of: Vec<(usize, Vec<(Host, Host)>)> = Vec::new();
    for listener in &gateway.listeners {
        let hosts = admitted(world, listener, table, root);
        if !hosts.is_empty() {
            served = true;
            hosts_of.push((listener.index, hosts));
        }
    }
    for (index, hosts) in hosts_of {
        bindings.tables.entry((gateway.id.clone(), index)).or_default().push((table.id.clone(), hosts));
    }
    if !served && !gateway.listeners.is_empty() && !root.hosts.is_empty() {
        findings.push(
            Finding::warning(
                &table.id,
                Code::ListenerFilter,
                format!("no listener of `{}` lets these hosts in; its `allowedRouteTables` decides", gateway.id),
            )
            .at(field.clone())
            .with(&gateway.id),
        );
    }
}

/// R38 and D5 for virtual gateways, which a table may name in any workspace (R37); and how many others there are.
fn find_gateway<W: World + ?Sized>(
    world: &W,
    holder: &ObjectRef,
    reference: &Reference,
) -> (Option<Arc<VirtualGateway>>, usize) {
    let namespace = reference.namespace.as_ref().unwrap_or(&holder.namespace);
    let cluster = reference.cluster.as_ref().unwrap_or(&holder.cluster);
    let exact = ObjectRef::new(Kind::VirtualGateway, cluster, namespace, &reference.name);
    let found = world.virtual_gateway(&exact);
    if found.is_some() || reference.cluster.is_some() {
        return (found, 0);
    }
    let mut elsewhere =
        world.virtual_gateways().into_iter().filter(|g| g.id.namespace == *namespace && g.id.name == reference.name);
    (elsewhere.next(), elsewhere.count())
}

/// The hosts that a listener lets a table have, each with the table's own pattern (R63, R64, D10).
fn admitted<W: World + ?Sized>(
    world: &W,
    listener: &GatewayListener,
    table: &Table,
    root: &RootTable,
) -> Vec<(Host, Host)> {
    let owner = world.roster().owner_of(&table.id);
    let mut hosts: Vec<(Host, Host)> = match &listener.allowed {
        None => root.hosts.iter().map(|host| (host.clone(), host.clone())).collect(),
        Some(items) => items
            .iter()
            .filter(|item| {
                item.namespace.as_ref().is_none_or(|namespace| *namespace == table.id.namespace)
                    && item.selector.fits(&table.id, &table.labels)
                    && item.selector.fits_owner(owner)
            })
            .flat_map(|item| root.hosts.iter().filter_map(|host| Some((host.overlap(&item.host)?, host.clone()))))
            .collect(),
    };
    hosts.sort();
    hosts.dedup();
    hosts
}

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

/// The gateway Services that some virtual gateway is implemented by, each as a class of its own.
///
/// A virtual gateway without `workloads` counts for Services that have one of its ports.
#[must_use]
pub fn known_gateways<W: World + ?Sized>(world: &W) -> BTreeSet<GatewayId> {
    let mut known = BTreeSet::new();
    let gateways = world.virtual_gateways();
    if gateways.is_empty() {
        return known;
    }
    for service in world.services(&Selector::default()) {
        let serves = gateways.iter().any(|gateway| {
            is_implemented_by(world, gateway, &service)
                && (gateway.workloads.is_some()
                    || gateway.listeners.iter().any(|listener| has_port(&service, listener)))
        });
        if serves {
            known.insert(GatewayId {
                cluster: service.id.cluster.clone(),
                namespace: service.id.namespace.clone(),
                services: vec![service.id.name.clone()],
            });
        }
    }
    known
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
    (!services.is_empty()).then(|| GatewayId { cluster: cluster.clone(), namespace: namespace.clone(), services })
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

/// What one bound port of a gateway is made of.
struct BoundPort {
    protocol: ListenerProtocol,
    /// The virtual gateway whose listener decided on the protocol.
    oldest: ObjectRef,
    service_ports: BTreeSet<u16>,
    gateways: Vec<ObjectRef>,
    /// Virtual gateway, listener position.
    listeners: Vec<(ObjectRef, usize)>,
    first_hosts: BTreeMap<Name, (ObjectRef, usize)>,
}

/// Makes the plan of one class of gateway Envoys.
///
/// # Findings
/// [`Code::ListenerPort`] and [`Code::ListenerConflict`] on virtual gateways; faults that hold on this gateway only on the
/// tables of the chain (R146); [`Code::RouteShadowed`] and [`Code::BeatenByOlder`] on tables (R69).
///
/// # Cost
/// In proportion to the routes and endpoints that the gateway serves.
pub fn compose<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    bindings: &Bindings,
    trees: &BTreeMap<ObjectRef, GrownTree>,
    findings: &mut Findings,
) -> GatewayPlan {
    let mut plan = GatewayPlan { gateway: gateway.clone(), listeners: BTreeMap::new(), upstreams: BTreeMap::new() };
    let Some(owner) = world.roster().owner(&gateway.cluster, &gateway.namespace).map(|o| o.workspace.clone()) else {
        return plan;
    };
    let ports = bound_ports(world, gateway, findings);
    let is_closed = is_closed_by_policy(world, gateway, &owner);
    for (bind_port, bound) in ports {
        // A listener with a fault keeps its port from others, and is not bound.
        if bound.protocol != ListenerProtocol::Http || bound.listeners.is_empty() {
            continue;
        }
        let mut listener = Listener {
            bind_port,
            service_ports: bound.service_ports.clone(),
            gateways: bound.gateways.clone(),
            virtual_hosts: Vec::new(),
        };
        if is_closed {
            listener.virtual_hosts = vec![closed_host()];
        } else {
            let mut here = OnGateway { world, gateway, owner: &owner, bodies: BTreeMap::new(), findings };
            listener.virtual_hosts = virtual_hosts(&mut here, &bound, bindings, trees);
        }
        plan.listeners.insert(bind_port, listener);
    }
    let mut wanted: BTreeSet<UpstreamId> = BTreeSet::new();
    for route in plan.listeners.values().flat_map(|l| &l.virtual_hosts).flat_map(|host| &host.routes) {
        if let Action::Forward(forward) = &route.body.action {
            for destination in &forward.destinations {
                if !wanted.contains(&destination.upstream) {
                    wanted.insert(destination.upstream.clone());
                }
            }
        }
    }
    for id in wanted {
        let upstream = resolve_upstream(world, &gateway.cluster, &owner, &id, findings);
        plan.upstreams.insert(id, Arc::new(upstream));
    }
    plan
}

/// The ports that a gateway binds, with the listeners on each (R53 to R57).
fn bound_ports<W: World + ?Sized>(world: &W, gateway: &GatewayId, findings: &mut Findings) -> BTreeMap<u16, BoundPort> {
    let mut ports: BTreeMap<u16, BoundPort> = BTreeMap::new();
    let services: Vec<Arc<Service>> = gateway
        .services
        .iter()
        .filter_map(|name| world.service(&ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name)))
        .collect();
    for virtual_gateway in world.virtual_gateways() {
        for service in &services {
            if !is_implemented_by(world, &virtual_gateway, service) {
                continue;
            }
            for listener in &virtual_gateway.listeners {
                let field = FieldPath::new("spec.listeners").index(listener.index);
                let Some(port) = find_port(service, &listener.port) else {
                    if virtual_gateway.workloads.is_some() {
                        findings.push(
                            Finding::warning(
                                &virtual_gateway.id,
                                Code::ListenerPort,
                                format!(
                                    "`{}` has no port {}; the listener is left out there",
                                    service.id,
                                    listener.port_text()
                                ),
                            )
                            .at(field.field("port"))
                            .with(&service.id),
                        );
                    }
                    continue;
                };
                let Port::Number(bind_port) = port.target else {
                    findings.push(
                        Finding::warning(
                            &virtual_gateway.id,
                            Code::ListenerPort,
                            format!("port {} of `{}` has a named `targetPort`, Envoy binds numbers; the listener is left out there", port.number, service.id),
                        )
                        .at(field.field("port"))
                        .with(&service.id),
                    );
                    continue;
                };
                add_listener(&mut ports, bind_port, port.number, &virtual_gateway, listener, &field, findings);
            }
        }
    }
    ports
}

/// Adds a listener to its port, unless an older one excludes it (R55, R56).
fn add_listener(
    ports: &mut BTreeMap<u16, BoundPort>,
    bind_port: u16,
    service_port: u16,
    virtual_gateway: &VirtualGateway,
    listener: &GatewayListener,
    field: &FieldPath,
    findings: &mut Findings,
) {
    let bound = ports.entry(bind_port).or_insert_with(|| BoundPort {
        protocol: listener.protocol,
        oldest: virtual_gateway.id.clone(),
        service_ports: BTreeSet::new(),
        gateways: Vec::new(),
        listeners: Vec::new(),
        first_hosts: BTreeMap::new(),
    });
    let own = (virtual_gateway.id.clone(), listener.index);
    if bound.protocol != listener.protocol {
        findings.push(
            Finding::error(
                &virtual_gateway.id,
                Code::ListenerConflict,
                format!(
                    "port {} already carries {} for an older listener of `{}`, and this one wants {}; use another port",
                    listener.port_text(),
                    bound.protocol.as_str(),
                    bound.oldest,
                    listener.protocol.as_str()
                ),
            )
            .at(field.clone())
            .with(&bound.oldest),
        );
        return;
    }
    match bound.first_hosts.get(&listener.first_host) {
        Some(older) if *older != own => {
            findings.push(
                Finding::error(
                    &virtual_gateway.id,
                    Code::ListenerConflict,
                    format!(
                        "an older listener of `{}` has the same port and first host `{}`; change one of the two",
                        older.0, listener.first_host
                    ),
                )
                .at(field.clone())
                .with(&older.0),
            );
            return;
        }
        Some(_) => {}
        None => {
            bound.first_hosts.insert(listener.first_host.clone(), own.clone());
        }
    }
    if listener.fault.is_some() {
        // It keeps its port from younger listeners of another protocol, and serves nothing.
        return;
    }
    bound.service_ports.insert(service_port);
    if !bound.gateways.contains(&virtual_gateway.id) {
        bound.gateways.push(virtual_gateway.id.clone());
    }
    if !bound.listeners.contains(&own) {
        bound.listeners.push(own);
    }
}

/// Whether a protecting policy selects a gateway and cannot be applied (R120, R130).
///
/// Its labels are those of the gateway's Pods: what the Service selects them by, or what one of them carries.
fn is_closed_by_policy<W: World + ?Sized>(world: &W, gateway: &GatewayId, owner: &WorkspaceId) -> bool {
    let index = world.policies(owner);
    let mut policies = index.on_workloads.iter().map(|position| &index.all[*position]).filter(|p| policy::closes(p));
    policies.any(|policy| {
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
    VirtualHost { domain: Host::any(), tables: Vec::new(), routes: vec![route] }
}

/// What is looked up once per gateway.
struct OnGateway<'a, W: World + ?Sized> {
    world: &'a W,
    gateway: &'a GatewayId,
    owner: &'a WorkspaceId,
    bodies: BTreeMap<ObjectRef, Vec<Arc<RouteBody>>>,
    findings: &'a mut Findings,
}

impl<W: World + ?Sized> OnGateway<'_, W> {
    /// The bodies of a tree's routes with what is wrong on this gateway only (R146).
    fn bodies(&mut self, grown: &GrownTree) -> Vec<Arc<RouteBody>> {
        let root = &grown.tree.root.id;
        if let Some(bodies) = self.bodies.get(root) {
            return bodies.clone();
        }
        let mut checked: BTreeMap<UpstreamId, Option<(Code, String)>> = BTreeMap::new();
        let mut bodies = Vec::with_capacity(grown.bodies.len());
        for body in &grown.bodies {
            let fault = self.fault_here(body, &mut checked);
            bodies.push(match fault {
                None => body.clone(),
                Some(fault) => {
                    self.report(body, &fault);
                    Arc::new(misconfigured((**body).clone(), fault))
                }
            });
        }
        self.bodies.insert(root.clone(), bodies.clone());
        bodies
    }

    fn fault_here(
        &self,
        body: &RouteBody,
        checked: &mut BTreeMap<UpstreamId, Option<(Code, String)>>,
    ) -> Option<RouteFault> {
        let Action::Forward(forward) = &body.action else { return None };
        forward
            .destinations
            .iter()
            .filter_map(|destination| {
                checked
                    .entry(destination.upstream.clone())
                    .or_insert_with(|| {
                        check_on_gateway(self.world, &self.gateway.cluster, self.owner, &destination.upstream).err()
                    })
                    .clone()
            })
            .min()
            .map(|(code, message)| RouteFault { code, message, gateway_specific: true })
    }

    /// Tells every table of the chain, naming the gateway.
    fn report(&mut self, body: &RouteBody, fault: &RouteFault) {
        let Some(last) = body.chain.last() else { return };
        let mut told: BTreeSet<&ObjectRef> = BTreeSet::new();
        for hop in body.chain.iter() {
            if told.insert(&hop.table) {
                self.findings.push(
                    Finding::error(
                        &hop.table,
                        fault.code,
                        format!("route `{}` is invalid on gateway `{}`: {}", last.route, self.gateway, fault.message),
                    )
                    .at(FieldPath::new("spec.http").index(hop.index)),
                );
            }
        }
    }
}

/// The virtual hosts of one bound port (R64, R67 to R69).
fn virtual_hosts<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    bound: &BoundPort,
    bindings: &Bindings,
    trees: &BTreeMap<ObjectRef, GrownTree>,
) -> Vec<VirtualHost> {
    let mut by_domain: BTreeMap<Host, Vec<(&Host, &GrownTree)>> = BTreeMap::new();
    for listener in &bound.listeners {
        for (table, hosts) in bindings.tables.get(listener).into_iter().flatten() {
            let Some(grown) = trees.get(table) else { continue };
            for (host, written) in hosts {
                by_domain.entry(host.clone()).or_default().push((written, grown));
            }
        }
    }
    by_domain
        .into_iter()
        .map(|(domain, claims)| {
            // A listener that narrows a wildcard to one host must not let it take that host from a table that names it
            // (R68); among equals the older goes first (R69).
            let most = claims.iter().map(|(written, _)| written.specificity()).max();
            let mut tables: Vec<&GrownTree> = claims
                .into_iter()
                .filter(|(written, _)| Some(written.specificity()) == most)
                .map(|(_, grown)| grown)
                .collect();
            tables.sort_by(|a, b| a.tree.root.age.cmp(&b.tree.root.age));
            tables.dedup_by(|a, b| a.tree.root.id == b.tree.root.id);
            virtual_host(here, domain, &tables, &bound.service_ports)
        })
        .collect()
}

/// One entry of a virtual host before it has its name.
struct Entry {
    matcher: Matcher,
    body: Arc<RouteBody>,
    root: ObjectRef,
    is_remainder: bool,
}

/// The routes of one domain: tables in age order, catch-alls of several tables last (R69, D11).
fn virtual_host<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    domain: Host,
    tables: &[&GrownTree],
    service_ports: &BTreeSet<u16>,
) -> VirtualHost {
    let mut entries: Vec<Entry> = Vec::new();
    let mut catch_alls: Vec<Entry> = Vec::new();
    for grown in tables {
        let bodies = here.bodies(grown);
        for (route, body) in grown.tree.routes.iter().zip(bodies) {
            for matcher in &route.matchers {
                if matcher.port.is_some_and(|port| !service_ports.contains(&port)) {
                    continue;
                }
                let entry = Entry {
                    matcher: matcher.clone(),
                    body: body.clone(),
                    root: grown.tree.root.id.clone(),
                    is_remainder: route.is_remainder,
                };
                if tables.len() > 1 && matcher.is_catch_all() {
                    catch_alls.push(entry);
                } else {
                    entries.push(entry);
                }
            }
        }
    }
    entries.append(&mut catch_alls);
    let entries = unshadowed(entries, &domain, here.findings);
    VirtualHost {
        domain,
        tables: tables.iter().map(|grown| grown.tree.root.id.clone()).collect(),
        routes: named(entries),
    }
}

/// Leaves out entries that an earlier one hides completely: one that takes everything, or the very same matcher, or a prefix
/// without further conditions.
fn unshadowed(entries: Vec<Entry>, domain: &Host, findings: &mut Findings) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut seen: BTreeMap<Matcher, usize> = BTreeMap::new();
    let mut prefixes: BTreeMap<Name, usize> = BTreeMap::new();
    let mut catch_all: Option<usize> = None;
    for entry in entries {
        let mut key = entry.matcher.clone();
        key.port = None;
        let hidden_by = catch_all.or_else(|| seen.get(&key).copied()).or_else(|| below(&key, &prefixes));
        if let Some(position) = hidden_by {
            shadowed(&entry, &kept[position], domain, findings);
            continue;
        }
        if let PathMatch::Prefix(path) = &key.path
            && key == (Matcher { path: key.path.clone(), ..Matcher::any() })
        {
            prefixes.insert(path.clone(), kept.len());
        }
        seen.insert(key, kept.len());
        if entry.matcher.is_catch_all() {
            catch_all = Some(kept.len());
        }
        kept.push(entry);
    }
    kept
}

/// The prefix, of those that take all requests below them, that takes everything that a matcher does.
fn below(matcher: &Matcher, prefixes: &BTreeMap<Name, usize>) -> Option<usize> {
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &matcher.path else { return None };
    if matcher.ignore_case || prefixes.is_empty() {
        return None;
    }
    path.char_indices().find_map(|(at, character)| prefixes.get(&path[..at + character.len_utf8()]).copied())
}

/// Tells the table whose route can never match.
fn shadowed(entry: &Entry, by: &Entry, domain: &Host, findings: &mut Findings) {
    // The remainder of a delegation is ours, not an author's: where valid children serve everything, nothing is left.
    let (Some(last), Some(winner)) = (entry.body.chain.last(), by.body.chain.last()) else { return };
    if entry.is_remainder {
        return;
    }
    let code = if entry.root == by.root { Code::RouteShadowed } else { Code::BeatenByOlder };
    let older = if entry.root == by.root { "an earlier route" } else { "the older table" };
    findings.push(
        Finding::warning(
            &last.table,
            code,
            format!(
                "on host `{domain}` route `{}` ({}) is never reached: {older} `{winner}` takes {} first",
                last.route, entry.matcher.path, by.matcher.path
            ),
        )
        .at(FieldPath::new("spec.http").index(last.index))
        .with(&winner.table),
    );
}

/// Gives entries names that are unique within the virtual host and say where they come from.
fn named(entries: Vec<Entry>) -> Vec<Route> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    entries
        .into_iter()
        .map(|entry| {
            let base = entry.body.chain.last().map_or_else(|| "route".to_owned(), ToString::to_string);
            let count = counts.entry(base.clone()).or_insert(0);
            *count += 1;
            let name: Name = if *count == 1 { base.into() } else { format!("{base}[{}]", *count - 1).into() };
            Route { name, matcher: entry.matcher, body: entry.body }
        })
        .collect()
}

/// Routes that the default-deny switch refuses, one warning per table (R51).
pub fn require_auth_findings<W: World + ?Sized>(world: &W, grown: &GrownTree, findings: &mut Findings) {
    for ((route, attached), body) in grown.tree.routes.iter().zip(&grown.attached).zip(&grown.bodies) {
        if body.fault.is_none()
            && needs_auth(world, route)
            && !has_auth(attached)
            && let Some(last) = route.chain.last()
        {
            findings.push(
                Finding::warning(
                    &last.table,
                    Code::PolicyRemark,
                    format!(
                        "route `{}` requires authentication and no policy provides it, so every request gets 403",
                        last.route
                    ),
                )
                .at(FieldPath::new("spec.http").index(last.index)),
            );
        }
    }
}
