//! What an upstream is made of: what is behind a destination, and how a gateway reaches it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::Guard;
use crate::ir::upstream::{Closed, Endpoint, Locality, Purpose, Upstream, UpstreamId, UpstreamProtocol};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef, WorkspaceId};

use super::LoopbackEndpoints;
use super::access;
use super::attachment::{judging, protecting_policies};
use super::balancing::{Balancing, EndpointLabels, common_labels, topology};
use super::crossing::{Behind, add_remote};
use super::destination::{across, check_on_gateway, isolated_from, selects, service_port};
use super::external;
use super::facts::{Port, Service, ServicePort, SliceEndpoint, VirtualDestination};
use super::origination::{self, Opener};
use super::own_host::is_unsafe;
use super::policy;
use super::remote::reach;
use super::visibility::is_visible;
use super::world::World;

/// A destination with its endpoints and who may call it, as a gateway sees it.
///
/// # Findings
/// [`Code::UnsafeEndpoint`] on slices, Pods and Services with loopback or link-local addresses; [`Code::BackendLeftOut`] on
/// virtual destinations with remote or unusable backends.
///
/// # Cost
/// In proportion to its endpoints.
pub fn resolve_upstream<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    gateway_owner: &WorkspaceId,
    id: &UpstreamId,
    findings: &mut Findings,
) -> Upstream {
    let gateway_cluster = &gateway.cluster;
    let is_asked = id.purpose.is_asked();
    let closed = if is_asked { None } else { closed_by_policy(world, id) };
    // What another cluster sends it has judged, and would not have sent.
    let is_judged = is_asked || id.purpose.is_crossing();
    let guards = if is_judged { Vec::new() } else { access::at_destination(world, gateway, id) };
    // A group has an edition instead.
    let is_plain = !is_judged && id.object.kind != Kind::VirtualDestination;
    let mut protected_by = if is_plain { protecting_policies(world, id) } else { Vec::new() };
    protected_by.extend(guards.iter().filter(|_| is_plain).flat_map(|guard| guard.policies.iter().cloned()));
    protected_by.sort();
    protected_by.dedup();
    let mut upstream = Upstream {
        id: id.clone(),
        protocol: UpstreamProtocol::Http1,
        hostname: origination::hostname(world, &id.object),
        endpoints: BTreeMap::new(),
        shares: BTreeMap::new(),
        outlier: None,
        tls: None,
        externals: BTreeMap::new(),
        remotes: BTreeMap::new(),
        secrets: Vec::new(),
        closed,
        guards,
        protected_by,
    };
    if is_asked && !may_be_asked(world, gateway, gateway_owner, id, findings) {
        return upstream;
    }
    let from = Opener { world, gateway, owner: gateway_owner };
    let balancing = Balancing::of(world, id, findings);
    let mut labels = balancing.reads_labels().then(EndpointLabels::new);
    let mut behind: Vec<Behind> = Vec::new();
    match id.object.kind {
        Kind::ExternalService => external::lead(&from, &mut upstream, findings),
        Kind::Service => {
            if let Some(service) = world.service(&id.object)
                && let Some(port) = service.ports.iter().find(|port| port.number == id.port)
            {
                upstream.protocol = port.protocol.unwrap_or(UpstreamProtocol::Http1);
                let own = (&*service, port);
                let mut found = endpoints(world, own, (&id.subset, true), None, findings);
                // Who sends learns in his own time who is ready: what he sends before or after has nobody better.
                if id.purpose.is_crossing() && found.is_empty() {
                    found = endpoints(world, own, (&id.subset, false), None, findings);
                }
                if service.id.cluster == *gateway_cluster {
                    match origination::to_service(&from, own, None, id.purpose, &mut upstream.secrets, findings) {
                        origination::Way::Closed(_) => upstream.close(),
                        way => {
                            upstream.tls = way.tls();
                            upstream.endpoints = found;
                        }
                    }
                // Without a way no route leads here.
                } else if let Ok(way) = across(&from, id, &mut upstream.secrets, findings) {
                    behind.push(Behind { way, endpoints: found });
                }
            }
        }
        Kind::VirtualDestination => {
            if let Some(vd) = world.virtual_destination(&id.object)
                && let Some(port) = vd.ports.iter().find(|port| port.number == id.port)
            {
                upstream.protocol = port.protocol.unwrap_or(UpstreamProtocol::Http1);
                if let Some(host) = vd.hosts.first() {
                    upstream.hostname = host.clone();
                }
                for service in backing_services(world, &vd, findings) {
                    // Grouping does not pass on what an isolated workspace shared with the group's owner only.
                    let is_judged = || {
                        id.purpose.is_judged()
                            && service_port(&service, Some(&port.target))
                                .is_ok_and(|target| access::replaces_isolation(world, &upstream_of(&service, target)))
                    };
                    if let Some(reason) = isolated_from(world, gateway_owner, &service.id).filter(|_| !is_judged()) {
                        let message = format!("`{}` is left out on some gateways: {reason}", service.id);
                        findings.push(Finding::warning(&vd.id, Code::BackendLeftOut, message).with(&service.id));
                        continue;
                    }
                    match service_port(&service, Some(&port.target)) {
                        // What protects the Service holds on every way to it (R130).
                        Ok(target) if closed_by_policy(world, &upstream_of(&service, target)).is_some() => {
                            findings.push(
                                Finding::warning(
                                    &vd.id,
                                    Code::BackendLeftOut,
                                    format!(
                                        "`{}` is left out: a policy that protects it cannot be applied",
                                        service.id
                                    ),
                                )
                                .with(&service.id),
                            );
                        }
                        Ok(target) if service.id.cluster == *gateway_cluster => {
                            let through = Some((&*vd, port));
                            let own = (&*service, target);
                            let way = origination::to_service(
                                &from,
                                own,
                                through,
                                id.purpose,
                                &mut upstream.secrets,
                                findings,
                            );
                            if let origination::Way::Closed(reason) = way {
                                let message = format!("`{}` is left out on some gateways: {reason}", service.id);
                                let finding = Finding::warning(&vd.id, Code::BackendLeftOut, message);
                                findings.push(finding.with(&service.id));
                                continue;
                            }
                            upstream.tls = way.tls();
                            let found = endpoints(world, own, (&id.subset, true), labels.as_mut(), findings);
                            for (locality, list) in found {
                                upstream.endpoints.entry(locality).or_default().extend(list);
                            }
                        }
                        Ok(target) => {
                            let (own, through) = ((&*service, target), Some((&*vd, port)));
                            match reach(&from, own, through, id, &mut upstream.secrets, findings) {
                                Ok(way) => {
                                    let mut there = labels.as_ref().map(|_| EndpointLabels::new());
                                    let endpoints = endpoints(world, own, (&id.subset, true), there.as_mut(), findings);
                                    if let (Some(labels), Some(there)) = (&mut labels, there) {
                                        let common = common_labels(there.values());
                                        let all = way.gateways.iter().map(|gateway| (gateway.clone(), common.clone()));
                                        labels.extend(all);
                                    }
                                    behind.push(Behind { way, endpoints });
                                }
                                Err((code, reason)) => {
                                    let message = format!(
                                        "`{}` is left out on gateways of other clusters: {code}, {reason}",
                                        service.id
                                    );
                                    let finding = Finding::warning(&vd.id, Code::BackendLeftOut, message);
                                    findings.push(finding.with(&service.id));
                                }
                            }
                        }
                        Err(reason) => findings.push(
                            Finding::warning(
                                &vd.id,
                                Code::BackendLeftOut,
                                format!("a backend is left out: {reason} as `targetPort`"),
                            )
                            .at(FieldPath::new("spec.ports"))
                            .with(&service.id),
                        ),
                    }
                }
                external::join(&from, &vd, port, &mut upstream, findings);
            }
        }
        _ => {}
    }
    match id.purpose {
        Purpose::GrpcServer => upstream.protocol = UpstreamProtocol::Http2,
        // Who sends has chosen.
        _ if id.purpose.is_crossing() => upstream.protocol = UpstreamProtocol::AsClient,
        _ => {}
    }
    let remotes =
        behind.iter().map(|Behind { way, .. }| (way.remote.target.object.cluster.clone(), way.remote.clone()));
    upstream.remotes = remotes.collect();
    add_remote(&mut upstream.endpoints, behind);
    balancing.arrange(world, gateway, &labels.unwrap_or_default(), &mut upstream, findings);
    for list in upstream.endpoints.values_mut() {
        list.sort();
        list.dedup();
    }
    upstream
}

/// Whether the filters of a gateway may ask a destination, as far as its owner is concerned.
///
/// Envoy judges no request that a filter of its own makes (seen on 1.40), so it is decided here whether there may be any at
/// all. Filters of all gateways ask it, also of those that may not forward to it.
///
/// # Findings
/// [`Code::PolicyRemark`] on policies because of which it is not asked.
///
/// # Rule
/// R118, R122, R130.
pub fn may_be_asked<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    gateway_owner: &WorkspaceId,
    id: &UpstreamId,
    findings: &mut Findings,
) -> bool {
    if closed_by_policy(world, id).is_some() {
        return false;
    }
    let is_barred = bar(gateway, id, &access::at_destination(world, gateway, id), findings)
        | bar_judged(world, gateway, id, findings);
    !is_barred && check_on_gateway(world, gateway, gateway_owner, id).is_ok()
}

/// Whether the filters of a gateway may not ask a destination: its owner says who may call what there, and lets this gateway
/// call nothing, or not everything.
///
/// # Findings
/// [`Code::PolicyRemark`] on the policies that say so.
fn bar(gateway: &GatewayId, id: &UpstreamId, guards: &[Guard], findings: &mut Findings) -> bool {
    let mut is_barred = false;
    for guard in guards.iter().filter(|guard| !guard.allows_everything()) {
        is_barred = true;
        let message = format!(
            "filters of gateway `{gateway}` do not ask `{}`, because no entry lets its account call everything there: Envoy does not compare what a filter asks with paths, methods, headers and addresses",
            id.object
        );
        let told = guard.policies.iter();
        findings
            .extend(told.map(|policy| Finding::warning(policy, Code::PolicyRemark, message.clone()).with(&id.object)));
    }
    is_barred
}

/// Whether a filter must not ask a destination, because policies judge requests on the way there.
fn bar_judged<W: World + ?Sized>(world: &W, gateway: &GatewayId, id: &UpstreamId, findings: &mut Findings) -> bool {
    let judging = judging(world, id);
    if judging.is_empty() {
        return false;
    }
    let message = format!(
        "filters of gateway `{gateway}` do not ask `{}`, because this policy judges requests on the way there, and those of a filter take no such way: let the policy not select it, or ask another",
        id.object
    );
    let tell = |policy| Finding::warning(policy, Code::PolicyRemark, message.clone()).with(&id.object);
    findings.extend(judging.iter().map(tell));
    true
}

fn upstream_of(service: &Service, port: &ServicePort) -> UpstreamId {
    UpstreamId::new(&service.id, port.number)
}

/// The Services behind a virtual destination, one per cluster.
///
/// # Rule
/// R160, R161.
pub fn backing_services<W: World + ?Sized>(
    world: &W,
    vd: &VirtualDestination,
    findings: &mut Findings,
) -> Vec<Arc<Service>> {
    let Some(owner) = world.roster().owner_of(&vd.id).cloned() else { return Vec::new() };
    let mut by_cluster: BTreeMap<Name, Arc<Service>> = BTreeMap::new();
    let mut found: Vec<Arc<Service>> = vd
        .services
        .iter()
        .flat_map(|selector| {
            world
                .services(selector)
                .into_iter()
                .filter(|service| selector.fits_owner(world.roster().owner_of(&service.id)))
                .filter(|service| is_visible(world, &owner, &service.id, &service.labels))
                .collect::<Vec<_>>()
        })
        .collect();
    found.sort_by(|a, b| a.age.cmp(&b.age));
    found.dedup_by(|a, b| a.id == b.id);
    for service in found {
        match by_cluster.get(&service.id.cluster) {
            None => {
                by_cluster.insert(service.id.cluster.clone(), service);
            }
            Some(oldest) => findings.push(
                Finding::warning(
                    &vd.id,
                    Code::BackendLeftOut,
                    format!(
                        "`{}` is left out: the older `{}` is the one Service of its cluster",
                        service.id, oldest.id
                    ),
                )
                .with(&service.id),
            ),
        }
    }
    by_cluster.into_values().collect()
}

/// What is wrong with a virtual destination beyond itself, whether or not somebody uses it. Returns how many Services are
/// behind it.
///
/// # Findings
/// [`Code::BackendLeftOut`] where nothing is behind it, or behind one of its ports, and those of [`backing_services`].
///
/// # Cost
/// In proportion to its ports and to what is behind it.
///
/// # Rule
/// R160 to R162, R167.
pub fn judge<W: World + ?Sized>(world: &W, vd: &VirtualDestination, findings: &mut Findings) -> usize {
    let services = backing_services(world, vd, findings);
    let external = external::backing(world, vd);
    let mut tell = |field: &str, message: String| {
        let finding = Finding::warning(&vd.id, Code::BackendLeftOut, message);
        findings.push(finding.at(FieldPath::new(field)));
    };
    if vd.has_backends() && services.is_empty() && external.is_empty() {
        let field = if vd.services.is_empty() { "spec.externalServices" } else { "spec.services" };
        let message = "nothing is selected that this workspace sees, so requests to it answer 503: compare the selectors with names and labels, or have the owner of the Services export them and import them here";
        tell(field, message.to_owned());
        return 0;
    }
    for port in &vd.ports {
        let of_services = services.iter().map(|service| service_port(service, Some(&port.target)).map(drop));
        let of_external = external.iter().map(|service| external::find_port(service, Some(&port.target)).map(drop));
        let problems: Vec<Result<(), String>> = of_services.chain(of_external).collect();
        // Where some have it, those that do not are told where they are left out.
        if let Some(Err(first)) = problems.first()
            && problems.iter().all(Result::is_err)
        {
            let number = port.number;
            tell("spec.ports", format!("nothing is behind port {number}, which answers 503: {first} as `targetPort`"));
        }
    }
    services.len()
}

/// A destination, and the Services and external services behind it, each as a destination of its own: what its owner says of them holds on every
/// way to them.
pub fn behind<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> Vec<UpstreamId> {
    let mut targets = vec![upstream.clone()];
    if let Some(vd) = world.virtual_destination(&upstream.object)
        && let Some(port) = vd.ports.iter().find(|port| port.number == upstream.port)
    {
        for service in backing_services(world, &vd, &mut Findings::new()) {
            if let Ok(target) = service_port(&service, Some(&port.target)) {
                targets.push(upstream_of(&service, target));
            }
        }
        for service in external::backing(world, &vd) {
            if let Ok(target) = external::find_port(&service, Some(&port.target)) {
                targets.push(UpstreamId::new(&service.id, target.number));
            }
        }
    }
    targets
}

/// Whether a protecting policy that cannot be applied selects a destination (R130).
pub fn is_closed_by_policy<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> bool {
    closed_by_policy(world, upstream).is_some()
}

/// Whether a protecting policy that cannot be honoured closes a destination, selected as such or by a Pod behind it.
///
/// # Rule
/// R118, R120, R130.
fn closed_by_policy<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> Option<Closed> {
    let owner = world.roster().owner_of(&upstream.object)?;
    let mut closed: Option<Closed> = None;
    for policy in world.closing_policies(owner) {
        if policy.targets.destinations.iter().any(|selector| selects(world, selector, upstream)) {
            let shape = if policy.id.kind == Kind::ClientTlsPolicy { Closed::BlackHole } else { Closed::Deny };
            // The stricter of two shapes: a denial needs no connection at all.
            closed = Some(closed.map_or(shape.clone(), |other| other.min(shape)));
        }
    }
    let on_pods = access::on_pods_of(world, owner, &upstream.object, policy::closes);
    if on_pods.is_empty() { closed } else { Some(Closed::Deny) }
}

/// The endpoints of a Service port that are ready, or those that are not, by locality.
///
/// From its slices; where it has none, from the Pods that its selector picks, so that a directory without slices works.
/// Where they are wanted, their labels are noted, those of their places among them.
///
/// # Rule
/// R12, R13.
fn endpoints<W: World + ?Sized>(
    world: &W,
    (service, port): (&Service, &ServicePort),
    (subset, is_ready): (&Labels, bool),
    mut labels: Option<&mut EndpointLabels>,
    findings: &mut Findings,
) -> BTreeMap<Locality, Vec<Endpoint>> {
    let mut result: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    let slices = world.slices(&service.id);
    for slice in &slices {
        let Some(number) = slice.ports.iter().find(|(name, _)| *name == port.name).map(|(_, number)| *number) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.is_ready == is_ready) {
            let pod = endpoint.pod.as_ref().and_then(|pod| world.pod(pod));
            if !subset.is_empty() && !pod.as_ref().is_some_and(|pod| contains_all(&pod.labels, subset)) {
                continue;
            }
            let node = endpoint.node.clone().or_else(|| pod.as_ref().and_then(|pod| pod.node.clone()));
            let locality = locality(world, &service.id.cluster, node.as_ref(), endpoint.zone.as_ref());
            if let (Some(labels), Some(address)) = (&mut labels, endpoint.addresses.first()) {
                let mut own = pod.map(|pod| pod.labels.clone()).unwrap_or_default();
                own.extend(topology(&locality));
                labels.insert((address.clone(), number), own);
            }
            add(world, &mut result, &slice.id, endpoint, number, locality, findings);
        }
    }
    if slices.is_empty() && !service.selector.is_empty() {
        for pod in world.pods(&service.id.cluster, &service.id.namespace) {
            let is_meant = pod.ready == is_ready && !pod.has_ended;
            if !is_meant || !contains_all(&pod.labels, &service.selector) || !contains_all(&pod.labels, subset) {
                continue;
            }
            let number = match &port.target {
                Port::Number(number) => Some(*number),
                Port::Name(name) => pod.ports.get(name).copied(),
            };
            let Some(number) = number else { continue };
            let locality = locality(world, &service.id.cluster, pod.node.as_ref(), None);
            if let (Some(labels), Some(address)) = (&mut labels, pod.addresses.first()) {
                let own = pod.labels.clone().into_iter().chain(topology(&locality)).collect();
                labels.insert((address.clone(), number), own);
            }
            let entry = SliceEndpoint { addresses: pod.addresses.clone(), pod: None, node: None, zone: None, is_ready };
            add(world, &mut result, &pod.id, &entry, number, locality, findings);
        }
    }
    result
}

/// Adds an endpoint's first address, unless it may reach the gateway's own host.
fn add<W: World + ?Sized>(
    world: &W,
    result: &mut BTreeMap<Locality, Vec<Endpoint>>,
    origin: &ObjectRef,
    endpoint: &SliceEndpoint,
    port: u16,
    locality: Locality,
    findings: &mut Findings,
) {
    // An endpoint's addresses are alternatives for one target; Envoy gets the first.
    let Some(address) = endpoint.addresses.first() else { return };
    match address.parse::<IpAddr>() {
        Err(_) => findings.push(Finding::warning(
            origin,
            Code::InvalidField,
            format!("`{address}` is no IP address; the endpoint is left out"),
        )),
        Ok(ip) if is_unsafe(ip) && world.options().loopback_endpoints == LoopbackEndpoints::Refused => {
            findings.push(Finding::warning(
                origin,
                Code::UnsafeEndpoint,
                format!("endpoint {address} could reach the gateway's own host and is left out; `--allow-loopback-endpoints` permits it for a mesh on one machine"),
            ));
        }
        Ok(_) => result.entry(locality).or_default().push(Endpoint::direct(address.clone(), port)),
    }
}

/// R13: the Node's labels, with the slice's own zone as fallback.
fn locality<W: World + ?Sized>(world: &W, cluster: &Name, node: Option<&Name>, zone: Option<&Name>) -> Locality {
    let mut locality = node
        .and_then(|node| world.node(cluster, node))
        .map(|node| Locality { region: node.region.clone(), zone: node.zone.clone(), sub_zone: node.sub_zone.clone() })
        .unwrap_or_default();
    if locality.zone.is_empty()
        && let Some(zone) = zone
    {
        locality.zone = zone.clone();
    }
    locality
}
