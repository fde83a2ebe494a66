//! What the policies of a gateway share for all its routes.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::Policy;
use crate::ir::extension::{CHECK_SLOTS, CheckSet, Extensions, Level, STRICT_SLOTS, check_sets};
use crate::ir::frozen::AcceptedRoute;
use crate::ir::route::Action;
use crate::model::{Code, Finding, Findings, GatewayId, Name, ObjectRef, WorkspaceId};
use crate::resolve::facts::{Age, PolicyEffect};
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
}

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

/// What policies of some owners share, beside what routes name that are kept.
///
/// # Findings
/// [`Code::Unsupported`] as errors on policies that ask servers by settings for which the gateway has no room: the oldest have
/// it, so that one that comes moves no other.
///
/// # Cost
/// In proportion to the owners and to those of their policies that share something.
///
/// # Rule
/// R130.
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
            for (level, _) in levels.into_iter().filter(|(_, is_for)| *is_for) {
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
    let crowded: BTreeSet<&ObjectRef> =
        extensions.checks.values().filter(|uses| uses.slot.is_none()).flat_map(|uses| &uses.policies).collect();
    for policy in crowded {
        let message = format!(
            "gateway `{gateway}` has room for {STRICT_SLOTS} sets of settings by which servers are asked, and {} that let requests pass when a server fails (`failureModeAllow`, `statusOnError`, `statPrefix`, `requestBody`, headers of HTTP servers), and older policies have it: the policy's routes answer 500 there until it uses the settings of another",
            CHECK_SLOTS - STRICT_SLOTS
        );
        findings.push(Finding::error(policy, Code::Unsupported, message));
    }
    removed_headers(gateway, &extensions, findings);
    extensions
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
