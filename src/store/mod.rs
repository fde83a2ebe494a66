//! Ring 2: the inputs of now. Single writer, no I/O.
//!
//! Holds objects by their identity and applies batches of changes; a batch that changes nothing says so.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::crd::{Change, OWN_ANNOTATIONS, Object};
use crate::model::{Name, ObjectRef};

/// All objects that the sources have delivered.
///
/// # Cost
/// A clone shares everything with the original.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: OrdMap<ObjectRef, Held>,
}

/// An object, the same only as itself.
#[derive(Clone, Debug)]
struct Held(Arc<Object>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a batch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The objects are what they were.
    Nothing,
    /// Something is different.
    Changed,
}

impl Store {
    /// A store with these objects; of two with one identity the last counts.
    #[must_use]
    pub fn from_objects(objects: impl IntoIterator<Item = Arc<Object>>) -> Self {
        Self { objects: objects.into_iter().map(|object| (object.meta.id.clone(), Held(object))).collect() }
    }

    /// Applies a batch as a whole.
    ///
    /// # Cost
    /// In proportion to the batch.
    pub fn apply(&mut self, batch: impl IntoIterator<Item = Change>) -> Applied {
        let mut applied = Applied::Nothing;
        for change in batch {
            match change {
                Change::Put(object) => {
                    let same = self.objects.get(&object.meta.id).is_some_and(|held| same_meaning(&held.0, &object));
                    self.objects.insert(object.meta.id.clone(), Held(object));
                    if !same {
                        applied = Applied::Changed;
                    }
                }
                Change::Delete(id) => {
                    if self.objects.remove(&id).is_some() {
                        applied = Applied::Changed;
                    }
                }
            }
        }
        applied
    }

    /// What is different from an earlier store: each object that was there, that is there now, or both.
    ///
    /// # Cost
    /// In proportion to what is different, where the two come from one another.
    pub fn changes<'a>(
        &'a self,
        earlier: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Object>>, Option<&'a Arc<Object>>)> {
        earlier.objects.diff(&self.objects).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(&new.0)),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(&old.0), Some(&new.0)),
            DiffItem::Remove(_, old) => (Some(&old.0), None),
        })
    }

    /// The objects in the order of their identity.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().map(|held| &held.0)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, id: &ObjectRef) -> Option<&Arc<Object>> {
        self.objects.get(id).map(|held| &held.0)
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn contains(&self, id: &ObjectRef) -> bool {
        self.objects.contains_key(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Whether two versions of an object plainly mean the same: everything but the place in a file and annotations that are not
/// [Chancery's own](OWN_ANNOTATIONS). Another generation is no other meaning, and yet its author waits for a verdict that
/// names it.
///
/// A spec that says the same otherwise counts as another: reading both costs more than finding that nothing comes of it.
fn same_meaning(a: &Object, b: &Object) -> bool {
    a.spec.is_kept_alike(&b.spec)
        && a.defects == b.defects
        && a.meta.labels == b.meta.labels
        && own_annotations(a).eq(own_annotations(b))
        && (a.meta.created, a.meta.generation) == (b.meta.created, b.meta.generation)
}

fn own_annotations(object: &Object) -> impl Iterator<Item = (&Name, &Name)> {
    object.meta.annotations.iter().filter(|(name, _)| name.starts_with(OWN_ANNOTATIONS))
}
