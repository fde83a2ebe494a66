//! Looking at everything from time to time, by a thread of its own: what events tell meanwhile does not wait for it.
//!
//! A sweep changes nothing. Where it saw something else than is known, the path is marked and looked at like any other; where
//! it came to folders or links that are not watched, everything is looked at by the thread that watches.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::path::RelPath;
use super::scan::{Identity, Listing, Root, real, scan};
use super::watch::Watches;

/// Looks at everything when it is asked to.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    thread: Option<Thread>,
    is_out: bool,
}

/// Who looks around. Ends with this.
#[derive(Debug)]
struct Thread {
    asked: SyncSender<(Root, usize)>,
    swept: Receiver<io::Result<Swept>>,
}

/// What a sweep saw.
#[derive(Debug)]
pub(super) struct Swept {
    /// Of the directory itself.
    pub(super) identity: Identity,
    /// The folder that its path leads to.
    pub(super) real: PathBuf,
    /// What stands there.
    pub(super) listing: Listing,
    /// What would have to be watched.
    pub(super) watches: Watches,
}

impl Sweeper {
    /// Whether a sweep was asked for whose result was not taken yet.
    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }

    /// Asks for a sweep of at most so many files; false where no thread can be had for it.
    pub(super) fn ask(&mut self, root: &Root, most: usize) -> bool {
        if self.is_out {
            return true;
        }
        if self.thread.is_none() {
            self.thread = start().inspect_err(|error| tracing::debug!(%error, "no thread for looking around")).ok();
        }
        self.is_out = self.thread.as_ref().is_some_and(|thread| thread.asked.send((root.clone(), most)).is_ok());
        self.is_out
    }

    /// The result of the last sweep, once there is one.
    pub(super) fn take(&mut self) -> Option<io::Result<Swept>> {
        match self.thread.as_ref().filter(|_| self.is_out)?.swept.try_recv() {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                (self.thread, self.is_out) = (None, false);
                Some(Err(io::Error::other("looking around failed, this is a fault of Chancery")))
            }
            Ok(swept) => {
                self.is_out = false;
                Some(swept)
            }
        }
    }
}

fn start() -> io::Result<Thread> {
    let ((asked, asking), (found, swept)) = (sync_channel::<(Root, usize)>(1), sync_channel(1));
    std::thread::Builder::new().name("sweep".to_owned()).spawn(move || {
        while let Ok((root, most)) = asking.recv() {
            if found.send(sweep(root, most)).is_err() {
                return;
            }
        }
    })?;
    Ok(Thread { asked, swept })
}

fn sweep(mut root: Root, most: usize) -> io::Result<Swept> {
    let mut watches = Watches::none();
    let identity = Identity::of(&root.path)?;
    let real = real(&root, &mut watches)?;
    root.real = Some(real.clone());
    let listing = scan(&root, &RelPath::root(), most, &mut watches)?;
    watches.identify();
    Ok(Swept { identity, real, listing, watches })
}
