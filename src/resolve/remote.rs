//! How a gateway reaches a Service of another cluster, and where TLS ends on the way: at the gateway there, or at the Pod.
//!
//! TLS is passed through to Pods that speak it where `clientMode` says so, and only where nobody counts on the gateway
//! between: it asks no client for a certificate then, so that whoever reaches its port reaches the Pods.
//!
//! # Rule
//! R168, R169.

use crate::ir::client_tls::ClientTls;
use crate::ir::upstream::{Purpose, UpstreamId};
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef, WorkspaceId};

use super::access;
use super::attachment::is_protected;
use super::crossing::{Way, way};
use super::facts::{ClientMode, Service, ServicePort};
use super::origination::{self, Opener, Secrets, Through};
use super::world::World;

/// The way to a port of a Service of another cluster for what a gateway sends to `id`: the Service itself, or the virtual
/// destination through which it is reached.
///
/// # Errors
/// The code and message of a fault that holds on this gateway.
///
/// # Findings
/// [`Code::NotApplicable`] on a virtual destination whose TLS is not passed through although that is wanted.
///
/// # Rule
/// R169, R170, R178, R192.
pub(super) fn reach<W: World + ?Sized>(
    from: &Opener<'_, W>,
    own: (&Service, &ServicePort),
    through: Through<'_>,
    id: &UpstreamId,
    secrets: &mut Secrets,
    findings: &mut Findings,
) -> Result<Way, (Code, String)> {
    let (service, port) = own;
    let target = UpstreamId { subset: id.subset.clone(), ..UpstreamId::new(&service.id, port.number) };
    if !id.purpose.is_stream() && wants_to_pass(from.world, own, through) {
        // What is needed of the gateway's own is needed where there is a way.
        let mut own_secrets = Secrets::new();
        match hindrance(from, &service.id, through, id) {
            None => match origination::to_service(from, own, through, id.purpose, &mut own_secrets, findings) {
                origination::Way::Plain => {}
                origination::Way::Closed(reason) => return Err((Code::Certificate, reason)),
                origination::Way::Tls(tls) => {
                    let mut way = way(from.world, from.gateway, &target, Purpose::Passing)?;
                    own_secrets.retain(|(id, _)| !secrets.iter().any(|(known, _)| known == id));
                    secrets.extend(own_secrets);
                    let server_name = Some(way.remote.server_name.clone());
                    way.remote.tls = Some(ClientTls { server_name, ..tls });
                    return Ok(way);
                }
            },
            Some(reason) => {
                let message = format!(
                    "TLS is not passed through to `{}`: {reason}; the gateway that receives it ends the TLS of gateways",
                    service.id
                );
                let (subject, field) = match through {
                    Some((vd, _)) => (vd.id.clone(), "spec.clientMode"),
                    None => said_by(from.world, &service.id),
                };
                let finding = Finding::warning(&subject, Code::NotApplicable, message).with(&service.id);
                findings.push(finding.at(FieldPath::new(field)));
            }
        }
    }
    way(from.world, from.gateway, &target, origination::crosses_as(from.world, own, through, id.purpose)?)
}

/// What the settings of a workspace say.
fn of_workspace<W: World + ?Sized>(world: &W, workspace: Option<&WorkspaceId>) -> ClientMode {
    let member = workspace.and_then(|workspace| world.roster().workspaces.get(workspace));
    member.and_then(|member| member.options.client_mode).unwrap_or_default()
}

/// Where the settings stand that decide on a Service which is named straight; the Service itself where its workspace has none
/// of its own.
fn said_by<W: World + ?Sized>(world: &W, service: &ObjectRef) -> (ObjectRef, &'static str) {
    let roster = world.roster();
    let member = roster.owner_of(service).and_then(|owner| roster.workspaces.get(owner));
    let settings = member.and_then(|member| member.settings.as_ref());
    match settings.filter(|settings| settings.options.client_mode.is_some()) {
        Some(settings) => (settings.id.clone(), "spec.options.virtualDestClientMode"),
        None => (service.clone(), ""),
    }
}

/// Whether TLS with the Pods is to pass the gateway of their cluster: said by the virtual destination or the settings of its
/// owner, of a port that speaks TLS.
///
/// # Rule
/// R168, D26.
fn wants_to_pass<W: World + ?Sized>(
    world: &W,
    (service, port): (&Service, &ServicePort),
    through: Through<'_>,
) -> bool {
    let owner_of = |id: &ObjectRef| world.roster().owner_of(id);
    let (mode, is_tls) = match through {
        Some((vd, own)) => (vd.client_mode.unwrap_or_else(|| of_workspace(world, owner_of(&vd.id))), own.is_tls),
        None => (of_workspace(world, owner_of(&service.id)), port.protocol.is_none()),
    };
    mode == ClientMode::Pod && is_tls
}

/// Why the gateway of the other cluster has to end TLS all the same, in words.
fn hindrance<W: World + ?Sized>(
    from: &Opener<'_, W>,
    service: &ObjectRef,
    through: Through<'_>,
    id: &UpstreamId,
) -> Option<String> {
    let roster = from.world.roster();
    let owner = roster.owner_of(service)?;
    let is_owners_own = through.is_none_or(|(vd, _)| roster.owner_of(&vd.id) == Some(owner));
    // It opens the Pods to whoever reaches the gateway, and is not for others to say.
    if !is_owners_own && of_workspace(from.world, Some(owner)) != ClientMode::Pod {
        return Some(format!(
            "workspace `{owner}`, which owns it, has to say so too, by `virtualDestClientMode: {{sniRouting: {{}}}}` in its settings"
        ));
    }
    if roster.workspaces.get(owner).is_some_and(|member| member.is_isolated()) {
        return Some(format!("workspace `{owner}` is isolated, and the gateway in front of it tells who may come in"));
    }
    let routes = UpstreamId::new(&id.object, id.port);
    let is_judged =
        is_protected(from.world, &routes) || !access::at_destination(from.world, from.gateway, &routes).is_empty();
    is_judged.then(|| "policies judge who may call it, and connections that pass through come from anybody".to_owned())
}
