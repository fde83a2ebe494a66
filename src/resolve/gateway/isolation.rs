//! Whose clients inside a cluster get no further at a gateway that leads to isolated destinations: what its owner may reach
//! is not theirs for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::UpstreamId;
use crate::ir::route::{RouteBody, RouteFault};
use crate::model::{Code, Finding, Findings, GatewayId, Kind, ObjectRef, WorkspaceId};
use crate::resolve::access::replaces_isolation;
use crate::resolve::destination::{isolated_from, service_port};
use crate::resolve::external;
use crate::resolve::mesh::{has_clients, offer};
use crate::resolve::upstream::backing_services;
use crate::resolve::world::World;

use super::{destinations_of, growth};

/// What is hidden from the clients of workspaces behind some destinations, on one gateway.
pub(super) struct Clients<'a, W: World + ?Sized> {
    world: &'a W,
    /// Those who find what is served there.
    clients: Vec<WorkspaceId>,
    /// What each destination has that is isolated and of others than whom it is found with.
    hidden: BTreeMap<UpstreamId, BTreeMap<WorkspaceId, ObjectRef>>,
}

impl<'a, W: World + ?Sized> Clients<'a, W> {
    /// Those who find what a root offers; none where nothing is isolated, or the gateway serves no clients.
    pub(super) fn of(world: &'a W, gateway: &GatewayId, root: &ObjectRef) -> Self {
        let roster = world.roster();
        let is_needed = roster.workspaces.values().any(|member| member.is_isolated()) && has_clients(world, gateway);
        let offer = is_needed.then(|| offer(world, root)).flatten();
        let clients = offer.map(|offer| {
            let here = roster.workspaces_in(&gateway.cluster);
            here.into_iter().filter(|client| offer.is_for(client)).collect()
        });
        Self { world, clients: clients.unwrap_or_default(), hidden: BTreeMap::new() }
    }

    /// The workspaces whose clients are shut out from a route, each with what it does not see.
    ///
    /// # Rule
    /// R45, R48.
    pub(super) fn shut_out(&mut self, body: &RouteBody) -> BTreeMap<WorkspaceId, ObjectRef> {
        let mut shut = BTreeMap::new();
        if !self.clients.is_empty() {
            for upstream in destinations_of(body) {
                let (world, clients) = (self.world, &self.clients);
                shut.extend(
                    self.hidden
                        .entry(upstream.clone())
                        .or_insert_with(|| hidden_from(world, clients, upstream))
                        .iter()
                        .map(|(client, hidden)| (client.clone(), hidden.clone())),
                );
            }
        }
        shut
    }
}

/// What is isolated of a destination, or behind it, and hidden from some workspaces. Who shares a virtual destination shares what
/// he owns behind it.
pub(super) fn hidden_from<W: World + ?Sized>(
    world: &W,
    clients: &[WorkspaceId],
    upstream: &UpstreamId,
) -> BTreeMap<WorkspaceId, ObjectRef> {
    let is_judged = |target: &UpstreamId| upstream.purpose.is_judged() && replaces_isolation(world, target);
    let mut behind: Vec<ObjectRef> = Vec::new();
    if !is_judged(upstream) {
        behind.push(upstream.object.clone());
    }
    if upstream.object.kind == Kind::VirtualDestination
        && let Some(vd) = world.virtual_destination(&upstream.object)
        && let Some(port) = vd.ports.iter().find(|port| port.number == upstream.port)
    {
        let owner = world.roster().owner_of(&vd.id);
        let is_others = |id: &ObjectRef| world.roster().owner_of(id) != owner;
        for service in backing_services(world, &vd, &mut Findings::new()) {
            let target = service_port(&service, Some(&port.target))
                .ok()
                .map(|target| UpstreamId::new(&service.id, target.number));
            if is_others(&service.id) && !target.is_some_and(|target| is_judged(&target)) {
                behind.push(service.id.clone());
            }
        }
        let external = external::backing(world, &vd);
        behind.extend(external.iter().map(|service| service.id.clone()).filter(is_others));
    }
    let hidden = |client: &WorkspaceId| {
        let first = behind.iter().find(|id| isolated_from(world, client, id).is_some())?;
        Some((client.clone(), first.clone()))
    };
    clients.iter().filter_map(hidden).collect()
}

/// A route as those find it who are shut out.
pub(super) fn shut(body: &RouteBody) -> Arc<RouteBody> {
    let message = "what is behind it is isolated, and not shared with the client's workspace".to_owned();
    let fault = RouteFault { code: Code::ServiceIsolated, message, gateway_specific: true };
    Arc::new(growth::misconfigured(body.clone(), fault))
}

/// Tells the table of a route whose clients are shut out.
pub(super) fn told(gateway: &GatewayId, body: &RouteBody, shut: &BTreeMap<WorkspaceId, ObjectRef>) -> Findings {
    let Some(last) = body.chain.last() else { return Findings::new() };
    let finding = |(client, hidden): (&WorkspaceId, &ObjectRef)| {
        let message = format!(
            "route `{}` answers 500 to clients of `{client}` on gateway `{gateway}`: the workspace of `{hidden}` is isolated and does not share it with them",
            last.route
        );
        Finding::warning(&last.table, Code::ServiceIsolated, message).with(hidden)
    };
    shut.iter().map(finding).collect()
}
