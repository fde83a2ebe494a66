//! Who is connected and how each of their resources stands, asked of the streams themselves.
//!
//! There is no second table: the task of a stream answers from its [`Session`](super::session::Session). A stream that
//! nobody asks about costs its row and an empty list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::message::Variant;
use super::observation::{Peer, StreamId};
use crate::model::Name;
use crate::snapshot::diff::Objection;
use crate::snapshot::{ResourceType, Version};

/// How one resource stands at one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceState {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: Name,
    /// The version that the client holds; none if it holds none, or nobody knows which.
    pub version: Option<Version>,
    /// How far it is.
    pub status: SyncStatus,
}

/// How far the newest content of a resource, or its removal, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// The client acknowledged it, or stated it when it connected.
    Synced,
    /// It was not sent yet.
    NotSent,
    /// It was sent and not answered yet.
    Sent,
    /// The client refused it; it is withheld until it changes.
    Refused(Objection),
    /// The client asks for it, and it doesn't exist.
    Missing,
}

/// One stream and how each of its resources stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Whose stream it is.
    pub peer: Arc<Peer>,
    /// The variant that it speaks.
    pub variant: Variant,
    /// The one type that its service serves; none on ADS.
    pub only: Option<ResourceType>,
    /// What the client asked for, or holds.
    pub resources: Vec<ResourceState>,
}

/// More resources than one answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} resources of these gateways together: ask for fewer gateways")]
pub struct TooMany(pub usize);

/// What a stream's task is asked.
pub(super) type Question = oneshot::Sender<Vec<ResourceState>>;

/// The streams that are served now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<BTreeMap<StreamId, Row>>>);

#[derive(Clone, Debug)]
struct Row {
    peer: Arc<Peer>,
    variant: Variant,
    only: Option<ResourceType>,
    door: Arc<Door>,
}

/// Where a stream is asked. Questions that are left when it ends have no answer.
#[derive(Debug, Default)]
struct Door {
    questions: Mutex<Vec<Question>>,
    bell: Notify,
}

impl Door {
    fn questions(&self) -> MutexGuard<'_, Vec<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream in the table; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Registration {
    sessions: Sessions,
    stream: StreamId,
    door: Arc<Door>,
}

impl Registration {
    /// The next questions; at least one.
    pub(super) async fn questions(&self) -> Vec<Question> {
        loop {
            let questions = std::mem::take(&mut *self.door.questions());
            if !questions.is_empty() {
                return questions;
            }
            self.door.bell.notified().await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.stream);
    }
}

impl Sessions {
    /// How the resources of all streams stand whose peer is `wanted`, in the order in which they connected.
    ///
    /// # Errors
    /// [`TooMany`] if they are more than `limit` together.
    ///
    /// # Cost
    /// A walk over what each stream asked for, in its own task.
    pub async fn inspect(
        &self,
        limit: usize,
        wanted: impl Fn(&Peer) -> bool + Send,
    ) -> Result<Vec<StreamState>, TooMany> {
        let rows: Vec<Row> = self.lock().values().filter(|row| wanted(&row.peer)).cloned().collect();
        let mut states = Vec::new();
        let mut left = limit;
        for Row { peer, variant, only, door } in rows {
            let (question, answer) = oneshot::channel();
            door.questions().push(question);
            door.bell.notify_one();
            // If the stream ends meanwhile, its door is gone with all questions.
            drop(door);
            let Ok(resources) = answer.await else { continue };
            left = left.checked_sub(resources.len()).ok_or(TooMany(limit))?;
            states.push(StreamState { peer, variant, only, resources });
        }
        Ok(states)
    }

    /// Whose streams are served now, in the order in which they connected.
    #[must_use]
    #[cfg(test)]
    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        self.lock().values().map(|row| row.peer.clone()).collect()
    }

    pub(super) fn register(&self, peer: Arc<Peer>, variant: Variant, only: Option<ResourceType>) -> Registration {
        let door = Arc::new(Door::default());
        let stream = peer.stream;
        self.lock().insert(stream, Row { peer, variant, only, door: door.clone() });
        Registration { sessions: self.clone(), stream, door }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StreamId, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
