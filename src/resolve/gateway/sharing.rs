//! What the policies of a gateway share for all its routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::extension::{CHECK_SLOTS, CheckSet, Extensions, Level, STRICT_SLOTS, check_sets};
use crate::ir::frozen::AcceptedRoute;
use crate::ir::policy::rate_limit::{Limits, MOST_VALUES, OnTheWay, on_the_way};
use crate::ir::route::{Action, RouteBody, RouteFault};
use crate::ir::upstream::{Dial, Purpose, Server, UpstreamId};
use crate::ir::{Policy, entries};
use crate::model::{Code, Finding, Findings, GatewayId, Name, ObjectRef, WorkspaceId};
use crate::resolve::LoopbackEndpoints;
use crate::resolve::facts::{Age, PolicyEffect, Port, ServicePort};
use crate::resolve::hidden::{leads_to_hidden, services_at, stands_for_own_host};
use crate::resolve::upstream::{behind, may_be_asked};
use crate::resolve::world::World;

use super::{GrownTree, owner_of};

/// What a piece of a tree on a gateway says of what policies share there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Who may put policies on its routes and on their destinations.
    pub owners: BTreeSet<WorkspaceId>,
    /// What routes name that are kept as they were accepted, whatever their policies are now (R140).
    pub kept: Extensions,
    /// What is counted on its routes, for one host.
    pub open: OpenEntries,
}

/// How many entries a gateway counts each value of by itself, as clients send them: by the owner of their routes and by policy.
pub type OpenEntries = BTreeMap<(WorkspaceId, ObjectRef), u64>;

/// Most numbers that a gateway keeps for limits that it counts by itself. Some hundred megabytes, if clients fill them all.
const MOST_NUMBERS: u64 = 1_000_000;

/// With fewer values apart than this, Envoy's own default, clients who take turns are hardly limited.
const FEW_VALUES: u32 = 20;

/// What a piece of a tree says, as it is served on a gateway.
///
/// # Cost
/// In proportion to its routes.
pub fn sharing<W: World + ?Sized>(world: &W, grown: &GrownTree, piece: &[AcceptedRoute]) -> Sharing {
    let mut sharing = Sharing::default();
    let mut seen = BTreeSet::new();
    for body in piece.iter().map(|route| &route.body) {
        for hop in body.chain.iter() {
            if !sharing.owners.contains(&hop.owner) {
                sharing.owners.insert(hop.owner.clone());
            }
        }
        let Action::Forward(forward) = &body.action else { continue };
        for destination in forward.destinations.iter() {
            if seen.insert(&destination.upstream) {
                let targets = behind(world, &destination.upstream);
                let owners = targets.iter().filter_map(|target| world.roster().owner_of(&target.object));
                sharing.owners.extend(owners.cloned());
            }
        }
    }
    for route in piece {
        count(route, &mut sharing.open);
    }
    if grown.frozen.is_some() {
        for body in piece.iter().map(|route| &route.body) {
            body.policies.iter().for_each(|policy| sharing.kept.add(Level::Route, policy));
            if let Action::Forward(forward) = &body.action {
                let policies = forward.destinations.iter().flat_map(|destination| destination.policies.iter());
                policies.for_each(|policy| sharing.kept.add(Level::Destination, policy));
            }
        }
    }
    sharing
}

/// Adds the open entries of a route: Envoy has a route for each form of each of its matchers, and each counts by itself.
fn count(route: &AcceptedRoute, open: &mut OpenEntries) {
    let Some(owner) = route.body.owner() else { return };
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let forms =
        || route.matchers.iter().map(|matcher| entries::count(matcher, route.body.policies.iter())).sum::<u64>();
    let mut add = |limits: &[Arc<Limits>]| {
        for limits in limits {
            let own = limits.counter.open();
            if own > 0 {
                *open.entry((owner.clone(), limits.policy.clone())).or_default() += own * forms();
            }
        }
    };
    match on_the_way(&route.body.policies, destinations.iter().map(|destination| &destination.policies[..])) {
        OnTheWay::Route(limits) => add(limits),
        OnTheWay::Destinations(limits) => limits.into_iter().for_each(add),
    }
}

/// On whose routes a gateway counts fewer values of an open entry apart, and how many, so that its room suffices.
///
/// Each workspace with such routes has its part of the room, and what some leave of theirs the others have. Of whoever needs
/// more, each entry has half as many values, or a quarter and so on: so nobody's limits end for what another does, an edit
/// moves others rarely, and no limit ends at all.
///
/// # Findings
/// [`Code::LimitExceeded`] on the policies that are on these routes: as warnings, and as errors where so few values are left
/// that clients who take turns are hardly limited.
///
/// # Cost
/// In proportion to what is given, which are the open entries of a gateway, by the owner of their routes and by policy.
pub fn values(gateway: &GatewayId, open: &OpenEntries, findings: &mut Findings) -> BTreeMap<WorkspaceId, u32> {
    let mut needs: BTreeMap<&WorkspaceId, u64> = BTreeMap::new();
    for ((owner, _), own) in open {
        let need = needs.entry(owner).or_default();
        *need = need.saturating_add(*own);
    }
    let mut order: Vec<(u64, &WorkspaceId)> = needs.iter().map(|(owner, own)| (*own, *owner)).collect();
    order.sort();
    let (mut room, mut fewer) = (MOST_NUMBERS, BTreeMap::new());
    for (index, (own, owner)) in order.iter().enumerate() {
        let part = room / (order.len() - index) as u64;
        let mut values = MOST_VALUES;
        while values > 1 && own.saturating_mul(u64::from(values)) > part {
            values /= 2;
        }
        room = room.saturating_sub(own.saturating_mul(u64::from(values)));
        if values < MOST_VALUES {
            fewer.insert((*owner).clone(), values);
        }
    }
    let mut concerned: BTreeMap<&ObjectRef, BTreeSet<(u32, &WorkspaceId)>> = BTreeMap::new();
    for (owner, policy) in open.keys() {
        if let Some(values) = fewer.get(owner) {
            concerned.entry(policy).or_default().insert((*values, owner));
        }
    }
    for (policy, owners) in concerned {
        let Some((values, owner)) = owners.first() else { continue };
        let others = match owners.len() {
            1 => String::new(),
            many => format!(", and fewer than {MOST_VALUES} on those of {} more workspaces", many - 1),
        };
        let message = format!(
            "gateway `{gateway}` keeps {MOST_NUMBERS} numbers at most for what it counts by itself, and each workspace has its part: the limits on routes of workspace `{owner}` have {} entries without a value, counted on each route, matcher and host, so of each the last {values} values are counted apart in place of {MOST_VALUES}{others}; let policies select fewer routes, write values out, or let a service count",
            needs[owner]
        );
        findings.push(match *values < FEW_VALUES {
            true => Finding::error(policy, Code::LimitExceeded, message),
            false => Finding::warning(policy, Code::LimitExceeded, message),
        });
    }
    fewer
}

/// What policies of some owners share, beside what routes name that are kept.
///
/// # Findings
/// [`Code::DestinationNotFound`] as errors on policies that ask, by name or address, for what their workspace may not use, or
/// not in this way; those of [`may_be_asked`].
/// [`Code::Unsupported`] as errors on policies that ask servers by settings for which the gateway has no room: workspaces have
/// it in turn, each for its oldest policies first, so that none takes the room that others need.
///
/// # Cost
/// In proportion to the owners and to those of their policies that share something.
///
/// # Rule
/// R37, R130.
pub fn extensions<'a, W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    owners: impl Iterator<Item = &'a WorkspaceId>,
    kept: impl Iterator<Item = &'a Extensions>,
    findings: &mut Findings,
) -> Extensions {
    let mut extensions = Extensions::default();
    // In which turn a set of settings has its room, and how old the oldest policy is that uses it; of what is kept nobody knows,
    // so that comes first.
    let mut turns: BTreeMap<CheckSet, (usize, Option<Age>)> = BTreeMap::new();
    let gateway_owner = owner_of(world, gateway);
    for kept in kept.filter(|kept| !kept.is_empty()) {
        let mut kept = kept.clone();
        // Keys are fetched though no route is served that needs them.
        kept.retain(|own| {
            let owner = world.roster().owner_of(&own.policy);
            let effect = Policy::Jwt(Arc::new(own.clone()));
            barred(world, (gateway, gateway_owner.as_ref()), owner, &effect, &mut Findings::new()).is_empty()
        });
        extensions.join(&kept);
        turns.extend(kept.checks.keys().map(|set| (set.clone(), (0, None))));
    }
    for owner in owners {
        let mut ages: BTreeMap<CheckSet, Age> = BTreeMap::new();
        for policy in world.sharing_policies(owner) {
            let PolicyEffect::Valid(effect) = &policy.effect else { continue };
            let levels = [
                (Level::Route, !policy.targets.routes.is_empty()),
                (Level::Destination, !policy.targets.destinations.is_empty()),
            ];
            let levels: Vec<Level> = levels.into_iter().filter_map(|(level, is_for)| is_for.then_some(level)).collect();
            if levels.is_empty() {
                continue;
            }
            let barred = barred(world, (gateway, gateway_owner.as_ref()), Some(owner), effect, findings);
            for (dial, why) in &barred {
                let message = format!(
                    "`{}` leads gateway `{gateway}` to {}, so it is not asked, and the policy's routes answer 500 there; {}",
                    dial.host,
                    why.what(Some(owner)),
                    why.advice()
                );
                let finding = Finding::error(&policy.id, why.code(), message);
                findings.push(why.service().into_iter().fold(finding, Finding::with));
            }
            for level in levels.into_iter().filter(|_| barred.is_empty()) {
                extensions.add(level, effect);
                let Policy::ExtAuth(authorization) = effect else { continue };
                for (set, _) in check_sets(level, authorization) {
                    let oldest = ages.entry(set).or_insert_with(|| policy.age.clone());
                    *oldest = policy.age.clone().min(oldest.clone());
                }
            }
        }
        let mut own: Vec<(Age, CheckSet)> = ages.into_iter().map(|(set, age)| (age, set)).collect();
        own.sort();
        let (open, strict): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, set)| set.settings.failure_mode_allow);
        for (turn, (age, set)) in strict.into_iter().enumerate().chain(open.into_iter().enumerate()) {
            let own = (turn, Some(age));
            let first = turns.entry(set).or_insert_with(|| own.clone());
            *first = own.min(first.clone());
        }
    }
    let mut order: Vec<((usize, Option<Age>), CheckSet)> = turns.into_iter().map(|(set, turn)| (turn, set)).collect();
    order.sort();
    let order: Vec<&CheckSet> = order.iter().map(|(_, set)| set).collect();
    extensions.settle_slots(order.iter().copied());
    crowded_out(gateway, &extensions, &order, findings);
    removed_headers(gateway, &extensions, findings);
    extensions
}

/// Which policies would ask on a gateway what their owners may not use.
pub(super) struct Asked<'a, W: World + ?Sized> {
    world: &'a W,
    gateway: &'a GatewayId,
    gateway_owner: &'a WorkspaceId,
    /// By policy and what it says, as one that is kept may say something else.
    known: BTreeMap<Policy, Option<RouteFault>>,
}

impl<'a, W: World + ?Sized> Asked<'a, W> {
    pub(super) fn new(world: &'a W, gateway: &'a GatewayId, gateway_owner: &'a WorkspaceId) -> Self {
        Self { world, gateway, gateway_owner, known: BTreeMap::new() }
    }

    /// Why the gateway cannot serve a route: for one of its policies it would ask what the policy's owner may not use. Of a kept
    /// policy whose namespace belongs to nobody any more that is everything of a workspace.
    ///
    /// # Rule
    /// R37, R130.
    pub(super) fn fault(&mut self, body: &RouteBody) -> Option<RouteFault> {
        let destinations = match &body.action {
            Action::Forward(forward) => &forward.destinations[..],
            Action::Redirect(_) | Action::Direct(_) => &[],
        };
        let of_destinations = destinations.iter().flat_map(|destination| &destination.policies);
        body.policies.iter().chain(of_destinations).find_map(|policy| {
            let id = match policy {
                Policy::Jwt(verification) => &verification.policy,
                Policy::ExtAuth(authorization) => &authorization.policy,
                _ => return None,
            };
            if let Some(known) = self.known.get(policy) {
                return known.clone();
            }
            let owner = self.world.roster().owner_of(id);
            let on = (self.gateway, Some(self.gateway_owner));
            let barred = barred(self.world, on, owner, policy, &mut Findings::new());
            let fault = barred.into_iter().next().map(|(dial, why)| {
                let message = format!("`{id}` asks `{}`, which leads there to {}", dial.host, why.what(owner));
                RouteFault { code: why.code(), message, gateway_specific: true }
            });
            self.known.insert(policy.clone(), fault.clone());
            fault
        })
    }
}

/// Why an address is not asked.
enum Barred {
    /// It is not shared with the policy's workspace.
    Hidden,
    /// What its owner says of it holds for whoever names the Service itself.
    Protected(ObjectRef),
    /// It stands for the gateway's own host.
    OwnHost,
}

impl Barred {
    fn what(&self, owner: Option<&WorkspaceId>) -> String {
        match (self, owner) {
            (Self::Hidden, Some(owner)) => {
                format!("a Service or Pod that is not shared with workspace `{owner}`")
            }
            (Self::Hidden, None) => "a Service or Pod of a workspace, and the policy is of none".to_owned(),
            (Self::OwnHost, _) => "the gateway's own host, for which a Service or Pod of that name stands".to_owned(),
            (Self::Protected(service), _) => {
                format!("`{service}`, whose owner does not let filters of this gateway ask it")
            }
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::OwnHost => Code::UnsafeEndpoint,
            Self::Hidden | Self::Protected(_) => Code::DestinationNotFound,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Hidden => "have the owner export the Service and import it here, or name another host",
            Self::OwnHost => "let the Service lead elsewhere, or name another host",
            Self::Protected(_) => {
                "have the owner let the gateway call everything there, with no policy that judges requests on the way, or name another host"
            }
        }
    }

    fn service(&self) -> Option<&ObjectRef> {
        match self {
            Self::Hidden | Self::OwnHost => None,
            Self::Protected(service) => Some(service),
        }
    }
}

/// The addresses that a policy asks, and that lead a gateway to what its owner may not use, or not in this way: of another's
/// Service what he says of it holds, however it is named.
///
/// # Findings
/// Those of [`may_be_asked`].
///
/// # Rule
/// R37, R122.
fn barred<'p, W: World + ?Sized>(
    world: &W,
    (gateway, gateway_owner): (&GatewayId, Option<&WorkspaceId>),
    owner: Option<&WorkspaceId>,
    policy: &'p Policy,
    findings: &mut Findings,
) -> BTreeMap<&'p Dial, Barred> {
    let servers: Vec<&Server> = match policy {
        Policy::Jwt(verification) => verification.servers().collect(),
        Policy::ExtAuth(authorization) => authorization.servers().collect(),
        _ => Vec::new(),
    };
    let dials = servers.into_iter().filter_map(|server| match server {
        Server::Dial(dial) => Some(dial),
        Server::Upstream(_) => None,
    });
    let mut barred = BTreeMap::new();
    for dial in dials {
        if leads_to_hidden(world, owner, &gateway.cluster, &dial.host) {
            barred.insert(dial, Barred::Hidden);
            continue;
        }
        let is_refused = world.options().loopback_endpoints == LoopbackEndpoints::Refused;
        if is_refused && stands_for_own_host(world, &gateway.cluster, &dial.host) {
            barred.insert(dial, Barred::OwnHost);
            continue;
        }
        let purpose = if dial.http2 { Purpose::GrpcServer } else { Purpose::HttpServer };
        let others = services_at(world, &gateway.cluster, &dial.host).into_iter();
        for service in others.filter(|service| world.roster().owner_of(&service.id) != owner) {
            // Pods have numbers of their own, which names of headless Services lead to as well.
            let is_named = service.ports.iter().any(|port| port.number == dial.port);
            let may_lead_to = |port: &ServicePort| match &port.target {
                Port::Number(number) => *number == dial.port,
                Port::Name(_) => true,
            };
            let ports = service.ports.iter();
            let ports = ports.filter(|port| !is_named || port.number == dial.port || may_lead_to(port));
            let ids = ports.map(|port| UpstreamId { purpose, ..UpstreamId::new(&service.id, port.number) });
            let may = |id: &UpstreamId, findings: &mut Findings| {
                gateway_owner.is_some_and(|own| may_be_asked(world, gateway, own, id, findings))
            };
            // All of them, so that each policy is told.
            if ids.filter(|id| !may(id, findings)).count() > 0 {
                barred.insert(dial, Barred::Protected(service.id.clone()));
            }
        }
    }
    barred
}

/// Tells policies that found no room whose sets of settings have it.
///
/// # Findings
/// [`Code::Unsupported`] as errors, with one policy for each of these sets.
fn crowded_out(gateway: &GatewayId, extensions: &Extensions, by_age: &[&CheckSet], findings: &mut Findings) {
    let uses = || by_age.iter().filter_map(|set| extensions.checks.get_key_value(*set));
    let mut told: BTreeSet<(&ObjectRef, bool)> = BTreeSet::new();
    for (set, crowded) in uses().filter(|(_, uses)| uses.slot.is_none()) {
        let is_open = set.settings.failure_mode_allow;
        // Of a set whose routes are kept as they were nobody may have a policy any more.
        let holders =
            uses().filter(|(other, uses)| uses.slot.is_some() && other.settings.failure_mode_allow == is_open);
        let holders: BTreeSet<&ObjectRef> = holders.filter_map(|(_, uses)| uses.policies.first()).collect();
        let shown: Vec<String> = holders.iter().map(|policy| format!("`{policy}`")).collect();
        let (room, sort) = match is_open {
            true => (CHECK_SLOTS - STRICT_SLOTS, "that let requests pass when a server fails"),
            false => (STRICT_SLOTS, "that refuse requests when a server fails"),
        };
        let message = format!(
            "gateway `{gateway}` has room for {room} sets of settings {sort} (`failureModeAllow`, `statusOnError`, `statPrefix`, headers of HTTP servers), and others have it ({}): the policy's routes answer 500 there until it uses the settings of another",
            shown.join(", ")
        );
        for policy in &crowded.policies {
            if told.insert((policy, is_open)) {
                let finding = Finding::error(policy, Code::Unsupported, message.clone());
                findings.push(holders.iter().fold(finding, |finding, holder| finding.with(holder)));
            }
        }
    }
}

/// Tells policies of headers that they read or keep, and that others make of claims: Envoy removes those from the requests of
/// all that are verified beside each other.
///
/// # Findings
/// [`Code::PolicyRemark`] as warnings.
fn removed_headers(gateway: &GatewayId, extensions: &Extensions, findings: &mut Findings) {
    let mut told: BTreeSet<(&ObjectRef, &Name, &ObjectRef)> = BTreeSet::new();
    for verifications in extensions.tokens.values() {
        let providers = || {
            let all = verifications.values();
            all.flat_map(|own| own.jwt.providers.values().map(move |provider| (&own.policy, provider)))
        };
        let mut removed: BTreeMap<&Name, BTreeSet<&ObjectRef>> = BTreeMap::new();
        for (policy, provider) in providers() {
            let set = provider.claims_to_headers.iter().filter(|(_, claim)| !claim.append).map(|(header, _)| header);
            for header in set.chain(&provider.payload_header) {
                removed.entry(header).or_default().insert(policy);
            }
        }
        for (policy, provider) in providers() {
            let kept = provider.claims_to_headers.iter().filter(|(_, claim)| claim.append).map(|(header, _)| header);
            let read = provider.headers.iter().map(|header| &header.name);
            for header in kept.chain(read) {
                let mut others = removed.get(header).into_iter().flatten().filter(|other| **other != policy);
                told.extend(others.next().map(|other| (policy, header, *other)));
            }
        }
    }
    for (policy, header, other) in told {
        let message = format!(
            "on gateway `{gateway}` header `{header}` is removed from requests before this policy reads or keeps it, because `{other}` makes it of a claim in the same phase; use another header"
        );
        findings.push(Finding::warning(policy, Code::PolicyRemark, message).with(other));
    }
}

#[cfg(test)]
mod tests;
