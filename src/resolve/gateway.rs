//! The plan of one class of gateway Envoys: which listeners, which tables on them, in which order.
//!
//! [`bind`] decides once for all gateways which root table binds to which listener of which virtual gateway;
//! [`compose`] makes one gateway's plan of it.

mod binding;
mod freezing;
mod growth;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::route::{Action, DirectResponse, EffectiveLabels, Matcher, Route, RouteBody, RouteFault};
use crate::ir::upstream::UpstreamId;
use crate::ir::{GatewayPlan, Listener, VirtualHost};
use crate::model::labels::contains_all;
use crate::model::{
    Code, FieldPath, Finding, Findings, GatewayId, Host, Kind, Name, ObjectRef, PathMatch, WorkspaceId,
};

use super::destination::{check_on_gateway, resolve_upstream};
use super::facts::{GatewayListener, ListenerProtocol, Port, Selector, Service, ServicePort, VirtualGateway};
use super::policy;
use super::world::World;

pub use binding::{Bindings, Bound, bind};
pub use freezing::{broken_tables, carry_over, freeze};
pub use growth::{GrownTree, Served, grow, require_auth_findings};

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
        for Served { body, .. } in grown.served() {
            let fault = self.fault_here(body, &mut checked);
            bodies.push(match fault {
                None => body.clone(),
                Some(fault) => {
                    self.report(body, &fault, grown.frozen.is_some());
                    Arc::new(growth::misconfigured((**body).clone(), fault))
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

    /// Tells every table of the chain, naming the gateway. Where a frozen route stood says nothing about its table now.
    fn report(&mut self, body: &RouteBody, fault: &RouteFault, is_frozen: bool) {
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
                    .at(if is_frozen {
                        FieldPath::root()
                    } else {
                        FieldPath::new("spec.http").index(hop.index)
                    }),
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
    is_frozen: bool,
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
        for (route, body) in grown.served().zip(bodies) {
            for matcher in route.matchers {
                if matcher.port.is_some_and(|port| !service_ports.contains(&port)) {
                    continue;
                }
                let entry = Entry {
                    matcher: matcher.clone(),
                    body: body.clone(),
                    root: grown.tree.root.id.clone(),
                    is_remainder: route.is_remainder,
                    is_frozen: grown.frozen.is_some(),
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
    // A frozen route may no longer be what its table says.
    if entry.is_remainder || entry.is_frozen {
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
