//! Editions: what guards a destination, so far as routes must not be older or younger than its cluster.
//!
//! What guards a Service stands partly on routes: tokens, authorization, limits, and whose clients are shut out. Gateways get
//! clusters and endpoints before routes. So a guarded Service that joins a group which serves already would be reached for a
//! moment by routes that know nothing of its guards, and so would one that was closed because of a policy which is mended;
//! and for as long as it takes, if a gateway refuses the new routes. So the edition is part of the name of the cluster:
//! routes as they were lead to the cluster of then, and new ones to the new.
//!
//! An edition is made of the guarded members of a group, and of whether a destination is closed; not of what guards them: an
//! edit of a policy is in force when gateways have it, as everywhere, and makes no cluster anew. Pods, and members that
//! nothing guards, come and go in one edition; the first and the last Pod that a policy selects by itself do not.

use crate::ir::upstream::{Edition, UpstreamId};

use super::access;
use super::upstream::is_closed_by_policy;
use super::world::World;

/// The edition of a destination, of which [`behind`](super::upstream::behind) says what is behind it.
///
/// `is_selected` says whether policies that routes bear select a member.
///
/// # Cost
/// In proportion to its members, and to the AccessPolicies that select them; for what is no group, to its owner's policies
/// that cannot be applied.
///
/// # Rule
/// R45, R46, R118, R122, R130.
pub(super) fn edition_of<W: World + ?Sized>(
    world: &W,
    targets: &[UpstreamId],
    is_selected: impl Fn(&UpstreamId) -> bool,
) -> Edition {
    let Some((own, members)) = targets.split_first() else { return Edition::default() };
    let roster = world.roster();
    let owner = roster.owner_of(&own.object);
    // Whose clients are shut out from a group because of it stands on routes.
    let is_isolated = |member: &UpstreamId| {
        let theirs = roster.owner_of(&member.object);
        theirs != owner && theirs.and_then(|theirs| roster.workspaces.get(theirs)).is_some_and(|own| own.is_isolated())
    };
    let mut guarded: Vec<String> = Vec::new();
    // One that is closed is left out until it is not, and joins then like any other.
    for member in members.iter().filter(|member| !is_closed_by_policy(world, member)) {
        // Who may open connections that are passed on whole is asked by listeners; and such rules let gateways reach what is
        // isolated (R46), which is a way to join, too.
        let has_rules = access::replaces_isolation(world, member);
        if has_rules || is_selected(member) || is_isolated(member) {
            guarded.push(format!("{member}{}", if has_rules { " rules" } else { "" }));
        }
    }
    guarded.sort();
    if is_closed_by_policy(world, own) {
        guarded.push("closed".to_owned());
    }
    if guarded.is_empty() { Edition::default() } else { Edition::of(&guarded.join("\n")) }
}

#[cfg(test)]
mod tests;
