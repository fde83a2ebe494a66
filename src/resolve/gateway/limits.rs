//! Which rate-limit services a gateway asks: of services with one name in several clusters its own cluster's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::policy::rate_limit::{Counter, LimitService, Limits};
use crate::ir::route::{Action, Forward, RouteBody, WeightedDestination};
use crate::ir::{Policy, UpstreamId};
use crate::model::{Code, Finding, Findings, GatewayId, Kind, ObjectRef, WorkspaceId};
use crate::resolve::destination::check_on_gateway;
use crate::resolve::policy::rate_limit::serving::reaches;
use crate::resolve::visibility::is_visible;
use crate::resolve::world::World;

/// The services that limits on a route are asked of, once for each time.
pub(super) fn servers_of(body: &RouteBody) -> impl Iterator<Item = &UpstreamId> {
    all(body).filter_map(|limits| limits.counter.service()).map(|service| &service.server)
}

fn limits(policy: &Policy) -> &[Arc<Limits>] {
    match policy {
        Policy::RateLimit(limits) => limits,
        _ => &[],
    }
}

/// What a gateway finds of the services that routes name.
pub(super) struct Reach<'a, W: World + ?Sized> {
    world: &'a W,
    gateway: &'a GatewayId,
    owner: &'a WorkspaceId,
    /// By service and the policy that asks it.
    known: BTreeMap<(UpstreamId, ObjectRef), Result<UpstreamId, String>>,
    /// Policies whose rules the service does not get that this gateway asks in place of the one that they name.
    unruled: BTreeSet<(ObjectRef, UpstreamId)>,
}

impl<'a, W: World + ?Sized> Reach<'a, W> {
    pub(super) fn new(world: &'a W, gateway: &'a GatewayId, owner: &'a WorkspaceId) -> Self {
        Self { world, gateway, owner, known: BTreeMap::new(), unruled: BTreeSet::new() }
    }

    /// A route with the services that this gateway asks; nothing where they are those that it names.
    ///
    /// Limits of a service that is not there are dropped, whatever their settings say of one that does not answer.
    pub(super) fn on_gateway(&mut self, body: &RouteBody) -> Option<RouteBody> {
        // Nearly no route has limits of services elsewhere.
        let mut is_same = true;
        for limits in all(body) {
            let Some(service) = limits.counter.service() else { continue };
            is_same &= self.find(limits, service).as_ref() == Ok(&service.server);
        }
        if is_same {
            return None;
        }
        let mut body = body.clone();
        body.policies = self.replaced(&body.policies).into();
        if let Action::Forward(forward) = &body.action {
            let destinations = forward.destinations.iter().map(|destination| WeightedDestination {
                policies: self.replaced(&destination.policies),
                ..destination.clone()
            });
            let forward = Forward { destinations: destinations.collect(), ..(**forward).clone() };
            body.action = Action::Forward(forward.into());
        }
        Some(body)
    }

    fn replaced(&mut self, policies: &[Policy]) -> Vec<Policy> {
        let mut replaced = Vec::with_capacity(policies.len());
        for policy in policies {
            let Policy::RateLimit(limits) = policy else {
                replaced.push(policy.clone());
                continue;
            };
            let here = limits.iter().filter_map(|limits| {
                let Some(service) = limits.counter.service() else { return Some(limits.clone()) };
                let server = self.find(limits, service).as_ref().ok()?.clone();
                let counter = Counter::Service(LimitService { server, ..service.clone() });
                Some(Arc::new(Limits { counter, ..(**limits).clone() }))
            });
            let here: Vec<Arc<Limits>> = here.collect();
            // Without any, a destination must not fall back on what the route has.
            replaced.push(Policy::RateLimit(here));
        }
        replaced
    }

    /// The service that the gateway asks, or why there is none.
    fn find(&mut self, limits: &Limits, service: &LimitService) -> &Result<UpstreamId, String> {
        let (server, policy) = (&service.server, &limits.policy);
        let (world, unruled) = (self.world, &mut self.unruled);
        self.known.entry((server.clone(), policy.clone())).or_insert_with(|| {
            let found = look(world, self.gateway, self.owner, server, policy)?;
            if found != *server && !reaches(world, limits, &found) {
                unruled.insert((policy.clone(), found.clone()));
            }
            Ok(found)
        })
    }

    /// What authors of limits are told that this gateway cannot ask about.
    pub(super) fn findings(self) -> Findings {
        let lost: BTreeSet<(&ObjectRef, &String)> =
            self.known.iter().filter_map(|((_, policy), found)| Some((policy, found.as_ref().err()?))).collect();
        let tell = |(policy, reason): (&ObjectRef, &String)| {
            let message = format!("nothing of this policy is limited on gateway `{}`: {reason}", self.gateway);
            Finding::error(policy, Code::Unsupported, message)
        };
        let warn = |(policy, server): &(ObjectRef, UpstreamId)| {
            let message = format!(
                "gateway `{}` asks `{server}`, which does not get the rules, so nothing is limited there: name it in `destinationServers` too",
                self.gateway
            );
            Finding::warning(policy, Code::PolicyRemark, message)
        };
        lost.into_iter().map(tell).chain(self.unruled.iter().map(warn)).collect()
    }
}

fn all(body: &RouteBody) -> impl Iterator<Item = &Arc<Limits>> {
    let destinations = match &body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    body.policies.iter().chain(destinations.iter().flat_map(|destination| &destination.policies)).flat_map(limits)
}

/// The Service of the same name in the gateway's cluster, if it has that port and the policy's workspace may use it; else
/// the one that is named, if the gateway may.
fn look<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    owner: &WorkspaceId,
    server: &UpstreamId,
    policy: &ObjectRef,
) -> Result<UpstreamId, String> {
    let reachable = |id: &UpstreamId| check_on_gateway(world, gateway, owner, id).map_err(|(_, why)| why);
    if server.object.kind == Kind::Service && server.object.cluster != gateway.cluster {
        let far = &server.object;
        let near = ObjectRef::new(far.kind, &gateway.cluster, &far.namespace, &far.name);
        let near = UpstreamId { object: near, ..server.clone() };
        let has_it = world.service(&near.object).is_some_and(|service| {
            let user = world.roster().owner_of(policy);
            service.ports.iter().any(|port| port.number == near.port)
                && user.is_some_and(|user| is_visible(world, user, &near.object, &service.labels))
        });
        if has_it && reachable(&near).is_ok() {
            return Ok(near);
        }
    }
    reachable(server).map(|()| server.clone())
}
