//! The statuses that objects of the v2 API have at the API server now, for whoever writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::watch;

use crate::model::{Kind, Name, ObjectRef};

/// What stands at the API server beside an object's spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// `metadata.uid`: another object of the same name has another.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status`; null where there is none.
    pub status: Arc<Value>,
}

/// Statuses by object. Clones are the same.
#[derive(Clone, Debug)]
pub struct Observed {
    /// With how often each was another.
    table: Arc<Mutex<BTreeMap<ObjectRef, (Written, u64)>>>,
    /// How often all objects of a kind were listed, by cluster.
    lists: Arc<Mutex<BTreeMap<(Kind, Name), u64>>>,
    changes: watch::Sender<u64>,
}

impl Default for Observed {
    fn default() -> Self {
        Self { table: Arc::default(), lists: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Written {
    /// Takes the status out of an object.
    pub(super) fn of(object: &mut DynamicObject) -> Self {
        let status = object.data.as_object_mut().and_then(|data| data.remove("status"));
        Self {
            uid: Arc::from(object.metadata.uid.as_deref().unwrap_or_default()),
            generation: object.metadata.generation.unwrap_or_default(),
            status: Arc::new(status.unwrap_or_default()),
        }
    }
}

impl Observed {
    /// What stands beside an object; none where it is not there.
    #[must_use]
    pub fn get(&self, id: &ObjectRef) -> Option<Written> {
        self.lock().get(id).map(|(written, _)| written.clone())
    }

    /// Another number once something else was read of an object, or all of its kind and cluster were listed again.
    #[must_use]
    pub fn readings(&self, id: &ObjectRef) -> u64 {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = lists.get(&(id.kind, id.cluster.clone())).copied().unwrap_or_default();
        lists + self.lock().get(id).map_or(0, |(_, times)| *times)
    }

    /// Tells when something is another than before.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn note(&self, id: &ObjectRef, written: Written) {
        let mut table = self.lock();
        let known = table.get(id);
        if known.is_none_or(|(known, _)| *known != written) {
            let times = known.map_or(0, |(_, times)| *times) + 1;
            table.insert(id.clone(), (written, times));
            drop(table);
            self.changed();
        }
    }

    pub(super) fn forget(&self, id: &ObjectRef) {
        if self.lock().remove(id).is_some() {
            self.changed();
        }
    }

    /// Forgets what is not in a list of all objects of a kind.
    pub(super) fn list(&self, kind: Kind, cluster: &Name, ids: &BTreeSet<ObjectRef>) {
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, cluster.clone())).or_default() += 1;
        let first = ObjectRef::new(kind, cluster.clone(), "", "");
        let mut table = self.lock();
        let known = table.range(first..).map(|(id, _)| id);
        let known = known.take_while(|id| id.kind == kind && id.cluster == *cluster);
        let gone: Vec<ObjectRef> = known.filter(|id| !ids.contains(*id)).cloned().collect();
        for id in &gone {
            table.remove(id);
        }
        drop(table);
        if !gone.is_empty() {
            self.changed();
        }
    }

    /// Forgets a cluster.
    pub(super) fn forget_cluster(&self, cluster: &Name) {
        self.lock().retain(|id, _| id.cluster != *cluster);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, (Written, u64)>> {
        // Nothing is left half done by a panic elsewhere.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
