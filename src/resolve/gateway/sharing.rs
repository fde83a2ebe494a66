//! What the policies of a gateway share for all its routes.

use std::collections::BTreeSet;

use crate::ir::extension::{Extensions, Level};
use crate::ir::frozen::AcceptedRoute;
use crate::ir::route::Action;
use crate::model::WorkspaceId;
use crate::resolve::destination::behind;
use crate::resolve::facts::PolicyEffect;
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
/// # Cost
/// In proportion to the owners and to those of their policies that share something.
pub fn extensions<'a, W: World + ?Sized>(
    world: &W,
    owners: impl Iterator<Item = &'a WorkspaceId>,
    kept: impl Iterator<Item = &'a Extensions>,
) -> Extensions {
    let mut extensions = Extensions::default();
    for owner in owners {
        for policy in world.sharing_policies(owner) {
            let PolicyEffect::Valid(effect) = &policy.effect else { continue };
            if !policy.targets.routes.is_empty() {
                extensions.add(Level::Route, effect);
            }
            if !policy.targets.destinations.is_empty() {
                extensions.add(Level::Destination, effect);
            }
        }
    }
    kept.for_each(|kept| extensions.join(kept));
    extensions
}
