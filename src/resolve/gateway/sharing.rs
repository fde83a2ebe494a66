//! What the policies of a gateway share for all its routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::Policy;
use crate::ir::extension::{CHECK_SLOTS, CheckSet, Extensions, Level, STRICT_SLOTS, check_sets};
use crate::ir::frozen::AcceptedRoute;
use crate::ir::policy::rate_limit::{Limits, MOST_VALUES, OnTheWay, on_the_way};
use crate::ir::route::{Action, RouteBody, RouteFault};
use crate::ir::upstream::{Dial, Server};
use crate::model::{Code, Finding, Findings, GatewayId, Name, ObjectRef, WorkspaceId};
use crate::resolve::facts::{Age, PolicyEffect, TableRole};
use crate::resolve::hidden::leads_to_hidden;
use crate::resolve::upstream::behind;
use crate::resolve::world::World;

use super::GrownTree;

/// What a piece of a tree on a gateway says of what policies share there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Who may put policies on its routes and on their destinations.
    pub owners: BTreeSet<WorkspaceId>,
    /// What routes name that are kept as they were accepted, whatever their policies are now (R140).
    pub kept: Extensions,
    /// By policy, how many numbers gateways may have to keep for what they count by themselves, for one host.
    pub numbers: BTreeMap<ObjectRef, u64>,
}

/// Most numbers that a gateway keeps for limits that it counts by itself. Some hundred megabytes, if clients fill them all.
const MOST_NUMBERS: u64 = 1_000_000;

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
        count(route, &mut sharing.numbers);
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

/// Adds the numbers that a gateway keeps for a route: Envoy has a route for each of its matchers, and each counts by itself.
fn count(route: &AcceptedRoute, numbers: &mut BTreeMap<ObjectRef, u64>) {
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let mut add = |limits: &[Arc<Limits>]| {
        for limits in limits {
            let own = limits.counter.numbers();
            if own > 0 {
                *numbers.entry(limits.policy.clone()).or_default() += own * route.matchers.len() as u64;
            }
        }
    };
    match on_the_way(&route.body.policies, destinations.iter().map(|destination| &destination.policies[..])) {
        OnTheWay::Route(limits) => add(limits),
        OnTheWay::Destinations(limits) => limits.into_iter().for_each(add),
    }
}

/// Policies that let a gateway count, and for whose numbers it has no room: the oldest have it, each as a whole or not at all.
///
/// # Findings
/// [`Code::LimitExceeded`] as errors on these policies.
///
/// # Cost
/// In proportion to the pieces of the gateway that have such policies; where there is not enough room, to the policies of their
/// owners.
pub fn uncounted<'a, W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    sharing: impl Iterator<Item = (&'a ObjectRef, &'a Sharing)>,
    findings: &mut Findings,
) -> BTreeSet<ObjectRef> {
    let mut hosts: BTreeMap<&ObjectRef, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<&ObjectRef, u64> = BTreeMap::new();
    for (root, sharing) in sharing.filter(|(_, sharing)| !sharing.numbers.is_empty()) {
        let hosts = *hosts.entry(root).or_insert_with(|| {
            world.table(root).map_or(1, |table| match &table.role {
                TableRole::Root(root) => root.hosts.len().max(1) as u64,
                TableRole::Child => 1,
            })
        });
        for (policy, own) in &sharing.numbers {
            *numbers.entry(policy).or_default() += own.saturating_mul(hosts);
        }
    }
    if numbers.values().sum::<u64>() <= MOST_NUMBERS {
        return BTreeSet::new();
    }
    let owners: BTreeSet<&WorkspaceId> = numbers.keys().filter_map(|policy| world.roster().owner_of(policy)).collect();
    let policies = owners.into_iter().flat_map(|owner| world.policies(owner));
    let ages: BTreeMap<ObjectRef, Age> = policies.map(|policy| (policy.id.clone(), policy.age.clone())).collect();
    let mut order: Vec<(&ObjectRef, u64)> = numbers.into_iter().collect();
    // Of what is kept of a policy that is gone nobody knows the age: it comes last.
    order.sort_by_key(|(policy, _)| (!ages.contains_key(*policy), ages.get(policy).cloned(), (*policy).clone()));
    let mut room = MOST_NUMBERS;
    let mut uncounted = BTreeSet::new();
    for (policy, own) in order {
        if own <= room {
            room -= own;
            continue;
        }
        let message = format!(
            "gateway `{gateway}` keeps {MOST_NUMBERS} numbers at most for what it counts by itself, {MOST_VALUES} for each entry without a value on each route and host, and older policies leave room for {room}; this one needs {own}, so nothing of it is limited there: let it select fewer routes, write values out, or let a service count"
        );
        findings.push(Finding::error(policy, Code::LimitExceeded, message));
        uncounted.insert(policy.clone());
    }
    uncounted
}

/// What policies of some owners share, beside what routes name that are kept.
///
/// # Findings
/// [`Code::DestinationNotFound`] as errors on policies that ask, by name or address, for what their workspace may not use.
/// [`Code::Unsupported`] as errors on policies that ask servers by settings for which the gateway has no room: the oldest have
/// it, so that one that comes moves no other.
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
    // How old the oldest policy is that uses a set of settings; of what is kept nobody knows, so that comes first.
    let mut ages: BTreeMap<CheckSet, Option<Age>> = BTreeMap::new();
    for kept in kept {
        extensions.join(kept);
        ages.extend(kept.checks.keys().map(|set| (set.clone(), None)));
    }
    for owner in owners {
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
            let hidden = hidden(world, &gateway.cluster, owner, effect);
            for dial in &hidden {
                let message = format!(
                    "`{}` leads gateway `{gateway}` to a Service or Pod that is not shared with workspace `{owner}`, so it is not asked, and the policy's routes answer 500 there; have the owner export the Service and import it here, or name another host",
                    dial.host
                );
                findings.push(Finding::error(&policy.id, Code::DestinationNotFound, message));
            }
            for level in levels.into_iter().filter(|_| hidden.is_empty()) {
                extensions.add(level, effect);
                let Policy::ExtAuth(authorization) = effect else { continue };
                for (set, _) in check_sets(level, authorization) {
                    let age = Some(policy.age.clone());
                    ages.entry(set).and_modify(|oldest| *oldest = age.clone().min(oldest.clone())).or_insert(age);
                }
            }
        }
    }
    let mut order: Vec<(Option<Age>, CheckSet)> = ages.into_iter().map(|(set, age)| (age, set)).collect();
    order.sort();
    extensions.settle_slots(order.iter().map(|(_, set)| set));
    let by_age: Vec<&CheckSet> = order.iter().map(|(_, set)| set).collect();
    crowded_out(gateway, &extensions, &by_age, findings);
    removed_headers(gateway, &extensions, findings);
    extensions
}

/// Why a gateway cannot serve a route: for one of its policies it would ask what the policy's owner may not use.
///
/// # Rule
/// R37, R130.
pub(super) fn asks_hidden<W: World + ?Sized>(world: &W, gateway: &GatewayId, body: &RouteBody) -> Option<RouteFault> {
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
        let owner = world.roster().owner_of(id)?;
        let dial = hidden(world, &gateway.cluster, owner, policy).into_iter().next()?;
        let message = format!(
            "`{id}` asks `{}`, which leads there to a Service or Pod that is not shared with workspace `{owner}`",
            dial.host
        );
        Some(RouteFault { code: Code::DestinationNotFound, message, gateway_specific: true })
    })
}

/// The addresses that a policy asks, and that lead gateways of a cluster to what its owner may not use.
///
/// # Rule
/// R37.
fn hidden<'p, W: World + ?Sized>(
    world: &W,
    cluster: &Name,
    owner: &WorkspaceId,
    policy: &'p Policy,
) -> BTreeSet<&'p Dial> {
    let servers: Vec<&Server> = match policy {
        Policy::Jwt(verification) => verification.servers().collect(),
        Policy::ExtAuth(authorization) => authorization.servers().collect(),
        _ => Vec::new(),
    };
    let dials = servers.into_iter().filter_map(|server| match server {
        Server::Dial(dial) => Some(dial),
        Server::Upstream(_) => None,
    });
    dials.filter(|dial| leads_to_hidden(world, owner, cluster, &dial.host)).collect()
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
        let holders: Vec<&ObjectRef> = holders.filter_map(|(_, uses)| uses.policies.first()).collect();
        let shown: Vec<String> = holders.iter().map(|policy| format!("`{policy}`")).collect();
        let (room, sort) = match is_open {
            true => (CHECK_SLOTS - STRICT_SLOTS, "that let requests pass when a server fails"),
            false => (STRICT_SLOTS, "that refuse requests when a server fails"),
        };
        let message = format!(
            "gateway `{gateway}` has room for {room} sets of settings {sort} (`failureModeAllow`, `statusOnError`, `statPrefix`, headers of HTTP servers), and older policies have it ({}): the policy's routes answer 500 there until it uses the settings of another",
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
