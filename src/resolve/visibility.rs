//! Who may refer to whom: own objects, and what another workspace exports and this one imports.

use crate::model::labels::{contains_all, glob};
use crate::model::{Kind, Labels, ObjectRef, WorkspaceId};

use super::facts::{ResourceFilter, ShareItem, Workspace};
use super::world::World;

/// The two halves of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The owner exports the object to the other workspace.
    pub exported: bool,
    /// The other workspace imports it.
    pub imported: bool,
}

impl Share {
    /// Whether both halves are there.
    ///
    /// # Rule
    /// R29.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.exported && self.imported
    }
}

/// Whether an object of one workspace is shared with another, by halves.
///
/// # Rule
/// R27 to R34.
pub fn share<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    user: &WorkspaceId,
    id: &ObjectRef,
    labels: &Labels,
) -> Share {
    let roster = world.roster();
    let (Some(owner), Some(user)) = (roster.workspaces.get(owner), roster.workspaces.get(user)) else {
        return Share { exported: false, imported: false };
    };
    let covers = |items: &[ShareItem], partner: &Workspace| items.iter().any(|item| covers(item, partner, id, labels));
    Share {
        exported: owner.settings.as_ref().is_some_and(|s| covers(&s.export_to, &user.workspace)),
        imported: user.settings.as_ref().is_some_and(|s| covers(&s.import_from, &owner.workspace)),
    }
}

/// Whether an object is owned by a workspace or shared with it.
///
/// # Rule
/// R37.
pub fn is_visible<W: World + ?Sized>(world: &W, user: &WorkspaceId, id: &ObjectRef, labels: &Labels) -> bool {
    match world.roster().owner_of(id) {
        None => false,
        Some(owner) => owner == user || share(world, owner, user, id, labels).is_whole(),
    }
}

/// R30 and R31.
fn covers(item: &ShareItem, partner: &Workspace, id: &ObjectRef, labels: &Labels) -> bool {
    let partner_matches = item.workspaces.iter().any(|pattern| {
        pattern.name.as_ref().is_none_or(|name| glob(name, &partner.id.name))
            && contains_all(&partner.labels, &pattern.labels)
    });
    partner_matches && (item.resources.is_empty() || item.resources.iter().any(|filter| takes(filter, id, labels)))
}

fn takes(filter: &ResourceFilter, id: &ObjectRef, labels: &Labels) -> bool {
    let kind = match filter.kind {
        None => matches!(id.kind, Kind::Service | Kind::VirtualDestination | Kind::ExternalService | Kind::RouteTable),
        Some(kind) => kind == Some(id.kind),
    };
    kind && contains_all(labels, &filter.labels)
        && filter.name.as_ref().is_none_or(|name| *name == id.name)
        && filter.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
        && filter.cluster.as_ref().is_none_or(|cluster| *cluster == id.cluster)
}
