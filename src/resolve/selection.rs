//! Which object does a reference or selector mean, among what its holder may see.

use crate::model::labels::contains_all;
use crate::model::{Labels, Name, ObjectRef, WorkspaceId};

use super::facts::{DestinationKind, Reference, Selector};
use super::visibility::is_visible;
use super::world::World;

impl Selector {
    /// Whether the selector's labels, name, namespace and cluster fit an object; `workspace` is for the caller.
    #[must_use]
    pub fn fits(&self, id: &ObjectRef, labels: &Labels) -> bool {
        self.name.as_ref().is_none_or(|name| *name == id.name)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
            && self.cluster.as_ref().is_none_or(|cluster| *cluster == id.cluster)
            && contains_all(labels, &self.labels)
    }

    /// Whether `workspace`, where given, is the owner.
    #[must_use]
    pub fn fits_owner(&self, owner: Option<&WorkspaceId>) -> bool {
        self.workspace.as_ref().is_none_or(|workspace| owner.is_some_and(|owner| owner.0 == *workspace))
    }

    /// The selector in words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let fields = [
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("cluster", &self.cluster),
            ("workspace", &self.workspace),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                parts.push(format!("{field} {value}"));
            }
        }
        if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
    }
}

/// Where a reference is written, which supplies what it leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The object that holds the reference.
    pub id: &'a ObjectRef,
    /// Its owner.
    pub owner: &'a WorkspaceId,
}

/// What a reference came down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referent {
    /// The object.
    pub id: ObjectRef,
    /// Its labels.
    pub labels: Labels,
    /// Others of the same name that were visible too; the oldest was taken (D5).
    pub others: usize,
}

/// Finds the destination that a reference names, among what its holder's owner may see.
///
/// Without `cluster`, the holder's own is tried first, then the one visible object of that kind, namespace and name in any
/// cluster; of several the oldest.
///
/// # Rule
/// R37, R38, R42, D5.
pub fn find_destination<W: World + ?Sized>(
    world: &W,
    holder: Holder<'_>,
    reference: &Reference,
    kind: DestinationKind,
) -> Option<Referent> {
    let namespace = reference.namespace.as_ref().unwrap_or(&holder.id.namespace);
    let cluster = reference.cluster.as_ref().unwrap_or(&holder.id.cluster);
    let id = ObjectRef::new(kind.kind(), cluster, namespace, &reference.name);
    if let Some(labels) = destination_labels(world, &id)
        && is_visible(world, holder.owner, &id, &labels)
    {
        return Some(Referent { id, labels, others: 0 });
    }
    if reference.cluster.is_some() {
        return None;
    }
    let anywhere =
        Selector { name: Some(reference.name.clone()), namespace: Some(namespace.clone()), ..Selector::default() };
    let mut visible: Vec<_> = destinations(world, &anywhere, kind)
        .into_iter()
        .filter(|(id, labels)| is_visible(world, holder.owner, id, labels))
        .collect();
    if visible.is_empty() {
        return None;
    }
    let others = visible.len() - 1;
    let (id, labels) = visible.swap_remove(0);
    Some(Referent { id, labels, others })
}

/// The labels of a destination, if it exists.
pub fn destination_labels<W: World + ?Sized>(world: &W, id: &ObjectRef) -> Option<Labels> {
    match id.kind {
        crate::model::Kind::Service => world.service(id).map(|service| service.labels.clone()),
        crate::model::Kind::VirtualDestination => world.virtual_destination(id).map(|vd| vd.labels.clone()),
        crate::model::Kind::ExternalService => world.external_service(id).map(|es| es.labels.clone()),
        _ => None,
    }
}

/// All destinations of a kind that a selector picks, in age order, whoever owns them.
pub fn destinations<W: World + ?Sized>(
    world: &W,
    selector: &Selector,
    kind: DestinationKind,
) -> Vec<(ObjectRef, Labels)> {
    match kind {
        DestinationKind::Service => {
            world.services(selector).into_iter().map(|s| (s.id.clone(), s.labels.clone())).collect()
        }
        DestinationKind::VirtualDestination => {
            world.virtual_destinations(selector).into_iter().map(|v| (v.id.clone(), v.labels.clone())).collect()
        }
        DestinationKind::ExternalService => {
            world.external_services(selector).into_iter().map(|e| (e.id.clone(), e.labels.clone())).collect()
        }
    }
}

/// Names of a holder's cluster and namespace, for messages.
#[must_use]
pub fn full_reference(holder: &ObjectRef, reference: &Reference, kind: DestinationKind) -> ObjectRef {
    let pick = |written: &Option<Name>, own: &Name| written.clone().unwrap_or_else(|| own.clone());
    ObjectRef::new(
        kind.kind(),
        pick(&reference.cluster, &holder.cluster),
        pick(&reference.namespace, &holder.namespace),
        &reference.name,
    )
}
