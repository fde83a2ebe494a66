//! Where snapshots come from, as far as the server knows.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::caller::Caller;
use super::node::{Node, NodeError};
use crate::model::Name;
use crate::snapshot::Snapshot;

/// Where snapshots come from: the compiler behind [`publish`](crate::publish), or a caller's own.
pub trait SnapshotSource: Send + Sync + 'static {
    /// The snapshots for a gateway that states this node. What it may have follows from who the caller is.
    ///
    /// Waits while the gateway isn't known yet (R10). The future is dropped when the client leaves or the server stops.
    ///
    /// # Errors
    /// [`NodeError`]: closes the stream with its text (R15).
    fn subscribe(&self, node: &Node, caller: &Caller) -> impl Future<Output = Result<Subscription, NodeError>> + Send;
}

/// What one stream is given.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Text of the gateway's class.
    pub gateway: Name,
    /// The snapshots; `None` until one was published, and the stream stays silent as long. When the channel closes, the
    /// stream ends, so that the client connects again and is matched anew.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Anything that the source wants to be dropped when the stream ends.
    pub held: Option<Arc<dyn Any + Send + Sync>>,
}
