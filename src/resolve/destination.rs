//! What a destination comes down to: which object and port, whether this gateway may use it, and its endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::Guard;
use crate::ir::upstream::{Closed, Endpoint, Locality, Purpose, Upstream, UpstreamId, UpstreamProtocol};
use crate::model::labels::contains_all;
use crate::model::{Code, Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef, WorkspaceId};

use super::LoopbackEndpoints;
use super::access;
use super::attachment::judging;
use super::balancing::{Balancing, EndpointLabels, common_labels, topology};
use super::crossing::{Behind, Way, add_remote, way};
use super::external;
use super::facts::{
    DestinationKind, DestinationReference, DestinationSelector, Fault, Port, Service, ServicePort, SliceEndpoint,
    VirtualDestination, VirtualPort,
};
use super::origination::{self, Opener};
use super::policy;
use super::selection::{Holder, destination_labels, find_destination, full_reference};
use super::visibility::is_visible;
use super::world::World;

/// What a route speaks to its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP, in plaintext.
    Http,
    /// Whatever the client does: connections are passed on as they are.
    Anything,
}

/// Finds the destination that a route names.
///
/// The object must be visible to the owner of the table that names it, and to the owner of the root table.
///
/// # Errors
/// A fault of the route with one of the `DESTINATION_*` codes or `UNSUPPORTED`.
///
/// # Rule
/// R37 to R43, D5, D6.
pub fn resolve_destination<W: World + ?Sized>(
    world: &W,
    holder: Holder<'_>,
    root_owner: &WorkspaceId,
    written: &DestinationReference,
    speaks: Speaks,
    findings: &mut Findings,
) -> Result<UpstreamId, Fault> {
    let fault = |code, message: String| Fault { code, field: written.field.clone(), message };
    let Some(found) = find_destination(world, holder, &written.reference, written.kind) else {
        let wanted = full_reference(holder.id, &written.reference, written.kind);
        return Err(fault(
            Code::DestinationNotFound,
            format!(
                "`{wanted}` does not exist or is not shared with workspace `{}`; check the reference, or have its owner export it and import it here",
                holder.owner
            ),
        ));
    };
    if found.others > 0 {
        findings.push(
            Finding::warning(
                holder.id,
                Code::AmbiguousReference,
                format!(
                    "the reference names no cluster and finds {} objects; the oldest, `{}`, is used; write the cluster",
                    found.others + 1,
                    found.id
                ),
            )
            .at(written.field.clone())
            .with(&found.id),
        );
    }
    if root_owner != holder.owner && !is_visible(world, root_owner, &found.id, &found.labels) {
        return Err(fault(
            Code::DestinationNotVisible,
            format!(
                "`{}` is visible to workspace `{}` but not to `{root_owner}`, which owns the root table; its owner must export it to `{root_owner}`, which must import it",
                found.id, holder.owner
            ),
        ));
    }
    let port = match written.kind {
        DestinationKind::Service => {
            let Some(service) = world.service(&found.id) else {
                return Err(fault(Code::DestinationNotFound, format!("`{}` is gone", found.id)));
            };
            let port = service_port(&service, written.port.as_ref()).map_err(|m| fault(Code::DestinationPort, m))?;
            port.number
        }
        DestinationKind::VirtualDestination => {
            let Some(vd) = world.virtual_destination(&found.id) else {
                return Err(fault(Code::DestinationNotFound, format!("`{}` is gone", found.id)));
            };
            let port = virtual_port(&vd, written.port.as_ref()).map_err(|m| fault(Code::DestinationPort, m))?;
            if port.protocol.is_none() && speaks == Speaks::Http {
                return Err(fault(
                    Code::Unsupported,
                    format!(
                        "port {} of `{}` does not speak HTTP; name a port with protocol HTTP, HTTPS, HTTP2 or GRPC, or forward whole connections",
                        port.number, found.id
                    ),
                ));
            }
            if vd.services.is_empty() && vd.external.is_empty() {
                return Err(fault(
                    Code::Unsupported,
                    format!("`{}` selects no backends; write `services` or `externalServices`", found.id),
                ));
            }
            port.number
        }
        DestinationKind::ExternalService => {
            if !written.subset.is_empty() {
                return Err(fault(
                    Code::InvalidField,
                    format!(
                        "`{}` is an external service, whose endpoints have no labels; leave out `subset`",
                        found.id
                    ),
                ));
            }
            let Some(service) = world.external_service(&found.id) else {
                return Err(fault(Code::DestinationNotFound, format!("`{}` is gone", found.id)));
            };
            let port =
                external::find_port(&service, written.port.as_ref()).map_err(|m| fault(Code::DestinationPort, m))?;
            external::check(world, &service, port).map_err(|own| {
                fault(Code::Unsupported, format!("`{}` cannot be a destination: {}", found.id, own.message))
            })?;
            if port.protocol.is_none() && speaks == Speaks::Http {
                return Err(fault(
                    Code::Unsupported,
                    format!(
                        "port {} of `{}` does not speak HTTP; name a port with protocol HTTP, HTTPS, HTTP2 or GRPC, or forward whole connections",
                        port.number, found.id
                    ),
                ));
            }
            port.number
        }
    };
    let mut upstream = UpstreamId { object: found.id, port, subset: written.subset.clone(), purpose: Purpose::Routes };
    let differs = |target: &UpstreamId| origination::differs_for_connections(world, target);
    if speaks == Speaks::Anything && behind(world, &upstream).iter().any(differs) {
        upstream.purpose = Purpose::Connections;
    }
    Ok(upstream)
}

/// R40 for Services.
pub(super) fn service_port<'a>(service: &'a Service, wanted: Option<&Port>) -> Result<&'a ServicePort, String> {
    let choice = || {
        choice(service.ports.iter().map(|port| match &*port.name {
            "" => port.number.to_string(),
            name => format!("{} (`{name}`)", port.number),
        }))
    };
    match wanted {
        None => match service.ports.as_slice() {
            [only] => Ok(only),
            _ => Err(format!("the reference names no port of `{}`; {}", service.id, choice())),
        },
        Some(Port::Number(number)) => service
            .ports
            .iter()
            .find(|port| port.number == *number)
            .ok_or_else(|| format!("`{}` has no port {number}; {}", service.id, choice())),
        Some(Port::Name(name)) => service
            .ports
            .iter()
            .find(|port| port.name == *name)
            .ok_or_else(|| format!("`{}` has no port named `{name}`; {}", service.id, choice())),
    }
}

/// What to do about a port that is not there.
fn choice(ports: impl Iterator<Item = String>) -> String {
    let ports: Vec<String> = ports.collect();
    match ports.as_slice() {
        [] => "it has no port at all".to_owned(),
        [only] => format!("write {only}"),
        several => format!("write one of {}", several.join(", ")),
    }
}

/// R40 for virtual destinations.
fn virtual_port<'a>(vd: &'a VirtualDestination, wanted: Option<&Port>) -> Result<&'a VirtualPort, String> {
    let choice = || choice(vd.ports.iter().map(|port| port.number.to_string()));
    match (wanted, vd.ports.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("the reference names no port of `{}`; {}", vd.id, choice())),
        (Some(Port::Number(number)), all) => all
            .iter()
            .find(|port| port.number == *number)
            .ok_or_else(|| format!("`{}` has no port {number}; {}", vd.id, choice())),
        (Some(Port::Name(name)), _) => Err(format!(
            "ports of a virtual destination have numbers only, and `{name}` is none of `{}`; {}",
            vd.id,
            choice()
        )),
    }
}

/// Whether a selector picks a destination and port.
///
/// # Rule
/// R118.
pub fn selects<W: World + ?Sized>(world: &W, selector: &DestinationSelector, upstream: &UpstreamId) -> bool {
    if selector.kind.kind() != upstream.object.kind {
        return false;
    }
    let port = match &selector.port {
        None => true,
        Some(Port::Number(number)) => *number == upstream.port,
        Some(Port::Name(name)) => {
            let of_service = world.service(&upstream.object);
            let of_external = world.external_service(&upstream.object);
            of_service.is_some_and(|s| s.ports.iter().any(|p| p.name == *name && p.number == upstream.port))
                || of_external.is_some_and(|s| s.ports.iter().any(|p| p.name == *name && p.number == upstream.port))
        }
    };
    port && destination_labels(world, &upstream.object)
        .is_some_and(|labels| selector.selector.fits(&upstream.object, &labels))
        && selector.selector.fits_owner(world.roster().owner_of(&upstream.object))
}

/// Whether a gateway may forward to a destination, beyond what its route table may.
///
/// # Errors
/// The code and message of a fault that holds on this gateway.
///
/// # Rule
/// R46, R47, R146, R156, R170, R192.
pub fn check_on_gateway<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    gateway_owner: &WorkspaceId,
    upstream: &UpstreamId,
) -> Result<(), (Code, String)> {
    let (id, gateway_cluster) = (&upstream.object, &gateway.cluster);
    let roster = world.roster();
    let owner = roster.owner_of(id);
    let member = owner.and_then(|owner| roster.workspaces.get(owner));
    if id.kind == Kind::Service && id.cluster != *gateway_cluster {
        let federated = member.and_then(|member| member.federation()).is_some_and(|federation| {
            let Some(service) = world.service(id) else { return false };
            let picked = federation.services.is_empty()
                || federation.services.iter().any(|s| s.fits(id, &service.labels) && s.fits_owner(owner));
            let port = federation.ports.is_empty()
                || federation.ports.iter().any(|port| match port {
                    Port::Number(number) => *number == upstream.port,
                    Port::Name(name) => service.ports.iter().any(|p| p.name == *name && p.number == upstream.port),
                });
            picked && port
        });
        if !federated {
            return Err((
                Code::RemoteServiceNotFederated,
                format!(
                    "`{id}` is in another cluster than the gateway and not federated; its workspace must federate it, or the route must name a virtual destination"
                ),
            ));
        }
    }
    // Where several hold, the first in the order of codes is told (R145).
    let way = (id.kind == Kind::Service && id.cluster != *gateway_cluster).then(|| across(world, gateway, upstream));
    match way {
        Some(Err(fault)) if fault.0 < Code::ServiceIsolated => return Err(fault),
        _ => {}
    }
    // What a filter asks there, Envoy compares with no rules.
    let is_judged = || upstream.purpose == Purpose::Routes && access::replaces_isolation(world, upstream);
    if let Some(reason) = isolated_from(world, gateway_owner, id).filter(|_| !is_judged()) {
        return Err((Code::ServiceIsolated, reason));
    }
    way.map_or(Ok(()), |way| way.map(drop))
}

/// How a gateway reaches a Service of another cluster that a route names.
fn across<W: World + ?Sized>(world: &W, gateway: &GatewayId, upstream: &UpstreamId) -> Result<Way, (Code, String)> {
    if let Some(service) = world.service(&upstream.object)
        && let Some(port) = service.ports.iter().find(|port| port.number == upstream.port)
    {
        origination::may_cross(world, (&service, port), None, upstream.purpose)?;
    }
    way(world, gateway, upstream)
}

/// Why the owner of a gateway may not reach a destination whose workspace is isolated.
///
/// # Rule
/// R45, R47.
pub(super) fn isolated_from<W: World + ?Sized>(
    world: &W,
    gateway_owner: &WorkspaceId,
    id: &ObjectRef,
) -> Option<String> {
    let roster = world.roster();
    let owner = roster.owner_of(id)?;
    if owner == gateway_owner || !roster.workspaces.get(owner)?.is_isolated() {
        return None;
    }
    let labels = destination_labels(world, id).unwrap_or_default();
    (!is_visible(world, gateway_owner, id, &labels)).then(|| {
        format!(
            "workspace `{owner}` is isolated and does not share `{id}` with `{gateway_owner}`, which owns the gateway; `{owner}` must export it there, and `{gateway_owner}` import it"
        )
    })
}

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
    let closed = closed_by_policy(world, id);
    // What another cluster sends it has judged, and would not have sent.
    let guards = if id.purpose == Purpose::Crossing { Vec::new() } else { access::at_destination(world, gateway, id) };
    // Envoy judges no request that a filter of its own makes (seen on 1.40), so that it is decided here whether there may be
    // any at all.
    let is_asked = id.purpose.is_asked();
    let is_barred = is_asked
        && (closed.is_some() || bar(gateway, id, &guards, findings) | bar_judged(world, gateway, id, findings));
    let (closed, guards) = if is_asked { (None, Vec::new()) } else { (closed, guards) };
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
    };
    // Filters of all gateways ask it, also of those that may not forward to it.
    if is_asked && (is_barred || check_on_gateway(world, gateway, gateway_owner, id).is_err()) {
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
                let found = endpoints(world, (&service, port), &id.subset, None, findings);
                if service.id.cluster == *gateway_cluster {
                    let own = (&*service, port);
                    match origination::to_service(&from, own, None, id.purpose, &mut upstream.secrets, findings) {
                        origination::Way::Closed(_) => upstream.close(),
                        way => {
                            upstream.tls = way.tls();
                            upstream.endpoints = found;
                        }
                    }
                // Without a way no route leads here.
                } else if let Ok(way) = across(world, gateway, id) {
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
                        id.purpose == Purpose::Routes
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
                            let found = endpoints(world, (&service, target), &id.subset, labels.as_mut(), findings);
                            for (locality, list) in found {
                                upstream.endpoints.entry(locality).or_default().extend(list);
                            }
                        }
                        Ok(target) => {
                            let remote = UpstreamId { subset: id.subset.clone(), ..upstream_of(&service, target) };
                            let through = Some((&*vd, port));
                            let crossing = origination::may_cross(world, (&service, target), through, id.purpose);
                            match crossing.and_then(|()| way(world, gateway, &remote)) {
                                Ok(way) => {
                                    let mut there = labels.as_ref().map(|_| EndpointLabels::new());
                                    let own = (&*service, target);
                                    let endpoints = endpoints(world, own, &id.subset, there.as_mut(), findings);
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
        Purpose::Crossing => upstream.protocol = UpstreamProtocol::AsClient,
        Purpose::Routes | Purpose::Connections | Purpose::HttpServer => {}
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
    UpstreamId { object: service.id.clone(), port: port.number, subset: Labels::new(), purpose: Purpose::Routes }
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
                targets.push(UpstreamId {
                    object: service.id.clone(),
                    port: target.number,
                    subset: Labels::new(),
                    purpose: Purpose::Routes,
                });
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

/// The ready endpoints of a Service port, by locality.
///
/// From its slices; where it has none, from the Pods that its selector picks, so that a directory without slices works.
/// Where they are wanted, their labels are noted, those of their places among them.
///
/// # Rule
/// R12, R13.
fn endpoints<W: World + ?Sized>(
    world: &W,
    (service, port): (&Service, &ServicePort),
    subset: &Labels,
    mut labels: Option<&mut EndpointLabels>,
    findings: &mut Findings,
) -> BTreeMap<Locality, Vec<Endpoint>> {
    let mut result: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    let slices = world.slices(&service.id);
    for slice in &slices {
        let Some(number) = slice.ports.iter().find(|(name, _)| *name == port.name).map(|(_, number)| *number) else {
            continue;
        };
        for endpoint in &slice.endpoints {
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
            if !pod.ready || !contains_all(&pod.labels, &service.selector) || !contains_all(&pod.labels, subset) {
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
            let entry = SliceEndpoint { addresses: pod.addresses.clone(), pod: None, node: None, zone: None };
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

/// Loopback, link-local and unspecified addresses, also where mapped into IPv6.
pub fn is_unsafe(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_unsafe(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unspecified() || (v6.segments()[0] & 0xffc0) == 0xfe80,
        },
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
