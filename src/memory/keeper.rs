//! Writes documents on a thread of its own, so that nobody who compiles or publishes waits for a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use serde::Serialize;

use super::document::Documents;

/// A document on its way to the disk.
type Document = Box<dyn FnOnce(&Documents) -> std::io::Result<()> + Send>;

/// By document, why it could not be written the last time.
pub(super) type Failures = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// Takes documents and writes them, the newest of each name. Dropped, it writes what it has and ends.
#[derive(Debug)]
pub struct Keeper {
    sender: Option<mpsc::Sender<(&'static str, Document)>>,
    thread: Option<JoinHandle<()>>,
    failures: Failures,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn start(documents: Documents) -> std::io::Result<Self> {
        let (sender, inbox) = mpsc::channel::<(&'static str, Document)>();
        let failures = Failures::default();
        let told = failures.clone();
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while let Ok(first) = inbox.recv() {
                // What arrived while the last one was written replaces what is older.
                let newest: BTreeMap<&'static str, Document> = std::iter::once(first).chain(inbox.try_iter()).collect();
                for (name, document) in newest {
                    settle(&documents, &told, name, document(&documents));
                }
            }
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread), failures })
    }

    /// Hands a document over.
    pub fn keep<T: Serialize + Send + 'static>(&self, name: &'static str, value: T) {
        let document: Document = Box::new(move |documents| documents.save(name, &value));
        if let Some(sender) = &self.sender {
            // The thread ends only after this sender does.
            let _ = sender.send((name, document));
        }
    }

    /// Whether the last attempt to write a document failed.
    #[must_use]
    pub fn has_failed(&self, name: &str) -> bool {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // It ends with an error only when it panicked, which is logged, and nothing is left to do about it.
            let _ = thread.join();
        }
    }
}

/// Logs the outcome of writing a document where it is another one than the last.
pub(super) fn settle(documents: &Documents, failures: &Failures, name: &'static str, written: std::io::Result<()>) {
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    let file = documents.path(name);
    match written {
        Ok(()) => {
            if failures.remove(name).is_some() {
                tracing::info!(file = %file.display(), "a state file is written again");
            }
        }
        Err(error) => {
            let reason = error.to_string();
            let last = failures.insert(name, reason.clone());
            if last.as_ref() != Some(&reason) {
                tracing::error!(file = %file.display(), "a state file cannot be written, so a restart finds an older one or none; serving goes on: {reason}");
            }
        }
    }
}
