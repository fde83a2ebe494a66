//! Editions: which guarded members are behind a virtual destination.
//!
//! What guards a Service stands partly on routes: tokens, authorization, limits, and whose clients are shut out. Gateways get
//! endpoints before routes, so that a guarded Service which joins a group that serves already would be reached for a moment
//! by routes that know nothing of its guards, and for as long as it takes if a gateway refuses the new ones. So the edition
//! is part of the name of the group's cluster: routes as they were lead to the cluster with the members of then, and new
//! ones to the new.
//!
//! An edition is made of members, not of what guards them: an edit of a policy is in force when gateways have it, as
//! everywhere, and makes no cluster anew. Pods, and members that nothing guards, come and go in one edition.

use crate::ir::upstream::UpstreamId;

use super::access;
use super::upstream::is_closed_by_policy;
use super::world::World;

/// The edition of a destination, of which [`behind`](super::upstream::behind) says what is behind it: a hash of its guarded
/// members; 0 where there are none, and for what is no group.
///
/// `is_selected` says whether policies that routes bear select a member.
///
/// # Cost
/// None for what is no group; else in proportion to its members, and to the AccessPolicies that select them.
///
/// # Rule
/// R45, R118, R122.
pub(super) fn edition_of<W: World + ?Sized>(
    world: &W,
    targets: &[UpstreamId],
    is_selected: impl Fn(&UpstreamId) -> bool,
) -> u64 {
    let Some((group, members)) = targets.split_first() else { return 0 };
    let roster = world.roster();
    let owner = roster.owner_of(&group.object);
    // Whose clients are shut out from a group because of it stands on routes.
    let is_isolated = |member: &UpstreamId| {
        let theirs = roster.owner_of(&member.object);
        theirs != owner && theirs.and_then(|theirs| roster.workspaces.get(theirs)).is_some_and(|own| own.is_isolated())
    };
    // Who may open connections that are passed on whole is asked by listeners.
    let has_rules = |member: &UpstreamId| !access::selecting(world, member).is_empty();
    let guarded = members.iter().filter(|member| is_selected(member) || is_isolated(member) || has_rules(member));
    // It is left out until then, and joins like any other.
    let guarded = guarded.filter(|member| !is_closed_by_policy(world, member));
    let mut guarded: Vec<String> = guarded.map(ToString::to_string).collect();
    if guarded.is_empty() {
        return 0;
    }
    guarded.sort();
    xxhash_rust::xxh3::xxh3_64(guarded.join("\n").as_bytes()).max(1)
}

#[cfg(test)]
mod tests;
