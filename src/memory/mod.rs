//! What is kept over a restart, under `--state DIR`: small documents of what cannot be made again from the objects.
//!
//! | file | holds | without it |
//! |---|---|---|
//! | `refused.json` | what gateways refused, and the accepted versions that stand in for it ([`refusals::document`]) | gateways refuse it once more |
//! | `shared.json` | what JWTPolicies and ExtAuthPolicies share for the routes of a gateway ([`shared`]) | a policy that was edited meanwhile refuses requests until gateways have its new routes |
//! | `frozen.json` | the last accepted routes of trees with `failureMode: FREEZE_CONFIG` ([`frozen`]) | R141 |
//! | `objects.json` | what API servers told last, Secrets included ([`source::kubernetes`](crate::source::kubernetes)) | nothing is served while they do not answer |
//!
//! Serving never depends on it. What is damaged is put aside and named in the log; what cannot be read otherwise is left as it
//! is; what cannot be written is named in the log once, and tried again with the next change. In the first three nothing is secret:
//! `SecretBytes` cannot be serialised, and routes with passwords or keys are not among what is accepted.
//!
//! The key of a generated root of trust stands beside them, in a file of [`trust`](crate::trust)'s own.
//!
//! One process has a directory at a time, by a lock on its file `lock`; another one that starts on it ends with an error.

mod document;
pub mod frozen;
mod keeper;
pub mod refusals;
pub mod shared;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::ir::Extensions;
use crate::ir::frozen::Remembered;
use crate::publish::GatewayKey;

pub use document::{Documents, ReadError, Taken};
pub use frozen::FROZEN;
pub use keeper::Keeper;

use refusals::document::{Document, REFUSED};
use shared::{SHARED, Shared};

/// What is remembered beyond the objects: taken in after each compile, kept after publishing.
#[derive(Debug)]
pub struct Memory {
    frozen: Arc<Remembered>,
    /// What was last given to the keeper.
    kept: Arc<Remembered>,
    refused: Document,
    shared: Shared,
    keeper: Option<Keeper>,
    /// Held as long as the directory is ours; dropped after the keeper.
    _lock: Option<File>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The thread that writes cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

impl Memory {
    /// Remembers only as long as the process lives.
    #[must_use]
    pub fn of_this_run() -> Self {
        let (frozen, refused, shared) = (Arc::default(), Document::default(), Shared::default());
        Self { frozen, kept: Arc::default(), refused, shared, keeper: None, _lock: None }
    }

    /// Begins with what a directory has, which is created if it is missing, and keeps there what changes.
    ///
    /// # Errors
    /// Another process has the directory, or the thread that writes cannot be started. Whatever else is wrong with the
    /// directory is logged.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let mut documents = Documents::open(directory);
        let lock = documents.lock()?;
        let frozen = Arc::new(frozen::load(&mut documents));
        let refused = documents.load(REFUSED).unwrap_or_default();
        let shared = Shared::of_earlier_run(documents.load(SHARED).unwrap_or_default());
        Ok(Self { kept: frozen.clone(), frozen, refused, shared, keeper: Some(Keeper::start(documents)?), _lock: lock })
    }

    /// What the next compile is told of the one before.
    #[must_use]
    pub fn frozen(&self) -> &Arc<Remembered> {
        &self.frozen
    }

    /// What gateways refused in an earlier run, or in this one as far as it was kept.
    #[must_use]
    pub fn refused(&self) -> &Document {
        &self.refused
    }

    /// What routes of these gateways may name of what policies share, from an earlier run or this one.
    #[must_use]
    pub fn shared(&self, key: &GatewayKey) -> Extensions {
        self.shared.of(key)
    }

    /// Remembers what policies share for the gateways of all keys that are served, and keeps it if it is another.
    ///
    /// # Cost
    /// A comparison of pointers per key.
    pub fn share<'a>(&mut self, now: impl Iterator<Item = (&'a GatewayKey, &'a Arc<Extensions>)>) {
        let changed = self.shared.replace(now);
        let Some(keeper) = &self.keeper else { return };
        if changed || keeper.has_failed(SHARED) {
            keeper.keep(SHARED, self.shared.document());
        }
    }

    /// Takes over what a compile hands on.
    pub fn take(&mut self, frozen: &Arc<Remembered>) {
        self.frozen = frozen.clone();
    }

    /// Keeps what has changed since it was last kept, and what could not be kept then. Returns at once; the writing is done on
    /// a thread of its own. To be called after publishing: gateways do not wait for a disk.
    ///
    /// # Cost
    /// In proportion to the trees that freeze, not to their routes unless they changed, and to what was refused, which is asked
    /// only where there is a directory.
    pub fn keep(&mut self, refused: impl FnOnce() -> Document) {
        let Some(keeper) = &self.keeper else { return };
        let refused = refused();
        if self.refused != refused || keeper.has_failed(REFUSED) {
            keeper.keep(REFUSED, refused.clone());
            self.refused = refused;
        }
        let changed = self.kept.accepted != self.frozen.accepted;
        if changed || keeper.has_failed(FROZEN) {
            keeper.keep(FROZEN, frozen::document(&self.frozen));
            self.kept = self.frozen.clone();
        }
    }
}

#[cfg(test)]
mod tests;
