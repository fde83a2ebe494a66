//! Ring 2: the inputs of now. Single writer, no I/O.
//!
//! Holds objects by their identity and applies batches of changes; a batch that changes nothing says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crd::{Change, Object};
use crate::model::ObjectRef;

/// All objects that the sources have delivered.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<ObjectRef, Arc<Object>>,
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
        Self { objects: objects.into_iter().map(|object| (object.meta.id.clone(), object)).collect() }
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
                    let same = self.objects.get(&object.meta.id).is_some_and(|held| same_meaning(held, &object));
                    self.objects.insert(object.meta.id.clone(), object);
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

    /// The objects in the order of their identity.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, id: &ObjectRef) -> Option<&Arc<Object>> {
        self.objects.get(id)
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

/// Whether two versions of an object mean the same: everything but the place in a file, the generation and annotations.
fn same_meaning(a: &Object, b: &Object) -> bool {
    a.spec == b.spec && a.defects == b.defects && a.meta.labels == b.meta.labels && a.meta.created == b.meta.created
}
