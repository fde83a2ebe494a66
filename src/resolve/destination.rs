//! What a reference to a destination means: which object and port, and whether a gateway may use it.

use crate::ir::upstream::{Purpose, UpstreamId};
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, ObjectRef, WorkspaceId};

use super::access;
use super::crossing::Way;
use super::external;
use super::facts::{
    DestinationKind, DestinationReference, DestinationSelector, Fault, Port, Service, ServicePort, VirtualDestination,
    VirtualPort,
};
use super::origination::{self, Opener, Secrets};
use super::remote::reach;
use super::selection::{Holder, destination_labels, find_destination, full_reference};
use super::upstream::behind;
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
/// The object must be visible to the owner of the table that names it, and to the owner of the root table. `field` says
/// where it is named.
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
    field: &dyn Fn() -> FieldPath,
    speaks: Speaks,
    findings: &mut Findings,
) -> Result<UpstreamId, Fault> {
    let fault = |code, message: String| Fault { code, field: field(), message };
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
            .at(field())
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
    let mut upstream = UpstreamId { subset: written.subset.clone(), ..UpstreamId::new(&found.id, port) };
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
    let way = (id.kind == Kind::Service && id.cluster != *gateway_cluster).then(|| {
        let from = Opener { world, gateway, owner: gateway_owner };
        across(&from, upstream, &mut Secrets::new(), &mut Findings::new())
    });
    match way {
        Some(Err(fault)) if fault.0 < Code::ServiceIsolated => return Err(fault),
        _ => {}
    }
    // What a filter asks there, Envoy compares with no rules.
    let is_judged = || upstream.purpose.is_judged() && access::replaces_isolation(world, upstream);
    if let Some(reason) = isolated_from(world, gateway_owner, id).filter(|_| !is_judged()) {
        return Err((Code::ServiceIsolated, reason));
    }
    way.map_or(Ok(()), |way| way.map(drop))
}

/// How a gateway reaches a Service of another cluster that a route names.
pub(super) fn across<W: World + ?Sized>(
    from: &Opener<'_, W>,
    upstream: &UpstreamId,
    secrets: &mut Secrets,
    findings: &mut Findings,
) -> Result<Way, (Code, String)> {
    let service = from.world.service(&upstream.object);
    let port = service.as_ref().and_then(|own| own.ports.iter().find(|port| port.number == upstream.port));
    let (Some(service), Some(port)) = (&service, port) else {
        return Err((Code::DestinationNotFound, format!("`{}` is gone", upstream.object)));
    };
    reach(from, (service, port), None, upstream, secrets, findings)
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
