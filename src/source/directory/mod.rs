//! Objects from manifests in a directory.
//!
//! `DIR/<cluster>/**/*.yaml`: each first-level folder is a cluster, files directly in the directory belong to the
//! management cluster. Files end in `.yaml`, `.yml` or `.json`; hidden files and what editors leave behind are not
//! read; links are followed.
//!
//! Two ways in: [`read()`] loads files once, for commands that look and leave; [`Listed`] and [`Directory`] keep watching, the
//! one gives what changed to whoever takes it, on its own thread, of the other it is asked.
//!
//! # How watching works
//! An event of the file system says that something happened, never what. It marks a path; the path is looked at, and
//! looked at again after a quiet moment; only what looks the same both times is read, and only if it still looks the
//! same after reading. So half a file is never applied. What was renamed into place is complete and is read at once.
//! What happens within 2 ms after a batch comes together in the next, so a burst has a bounded number of batches.
//! Everything is looked at again from time to time, and whenever events were lost, by a thread of its own: events that come
//! meanwhile are followed. Where slices change all the time, an edit of anything else passes them.
//!
//! # What goes wrong, and what then
//! - A file that does not parse, or cannot be read, keeps the objects that it held last. A file that is gone loses
//!   them.
//! - If the directory itself disappears, or an empty one stands in its place, everything stays in force until it is
//!   back: total loss is more likely an accident than a wish.
//! - If there are more folders than the system lets a program watch, they are polled.
//! - All of it is in the findings, for as long as it lasts.
//!
//! # Cost
//! An event reads the file that it is about. Looking at everything is one `stat` per file.

mod events;
mod follow;
mod load;
mod path;
mod read;
mod scan;
mod sweep;
mod tree;
mod watch;

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

pub use read::{Loaded, read};

use self::follow::Follower;
use super::{Batch, Places, Source};
use crate::crd::yaml;
use crate::model::Name;

/// How a directory is read and watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the management cluster.
    pub management: Name,
    /// Limits of one file.
    pub limits: yaml::Limits,
    /// Most files. Beyond it, files that come later in path order are not read.
    pub max_files: usize,
    /// Most bytes in all files together. Beyond it, files that come later in path order are not read.
    pub max_bytes: u64,
    /// How long nothing must happen before files that were written in place are read.
    pub quiet: Duration,
    /// How long a file that is complete waits at most while others keep changing.
    pub max_delay: Duration,
    /// How often everything is looked at again, whatever the events said. Network file systems send none.
    pub resync: Duration,
    /// The same where there are no events, or the directory is gone.
    pub poll: Duration,
    /// Whether to use events.
    pub watching: Watching,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// By events of the file system, and by polling where there are none.
    Events,
    /// By polling only.
    Polling,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            management: Name::from("mgmt"),
            limits: yaml::Limits::default(),
            max_files: 100_000,
            max_bytes: 1 << 30,
            quiet: Duration::from_millis(10),
            max_delay: Duration::from_millis(200),
            resync: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            watching: Watching::Events,
        }
    }
}

/// Why nothing can be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file or directory.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A directory was expected.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The system refuses to read it.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No thread could be started to watch.
    #[error("the thread that watches `{}` cannot be started", path.display())]
    Thread {
        /// The path as it was given.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Unreadable { path, source },
        }
    }
}

/// A directory that was read, and is about to be watched.
#[derive(Debug)]
pub struct Listed {
    follower: Follower,
    places: Places,
}

impl Listed {
    /// Reads everything. The batch is complete.
    ///
    /// # Errors
    /// Where the directory does not exist, is none, or cannot be read. Nothing else is an error: what is wrong inside
    /// is a finding.
    ///
    /// # Cost
    /// Blocks while it reads: 10,000 files take well under a second.
    pub fn open(root: &Path, options: Options) -> Result<(Self, Batch), SourceError> {
        let (follower, first) = Follower::start(root, options).map_err(|source| SourceError::new(root, source))?;
        let places = follower.places().clone();
        Ok((Self { follower, places }, first))
    }

    /// Where objects stand in files, kept current.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Watches, by a thread of its own, which gives every difference to what was given before. While it is taken, further
    /// changes come together in the next. Ends when nobody wants more, or with what this returns.
    ///
    /// # Errors
    /// [`SourceError::Thread`].
    pub fn deliver(self, mut take: impl FnMut(Batch) -> bool + Send + 'static) -> Result<Watched, SourceError> {
        let Self { mut follower, .. } = self;
        let path = follower.path().to_owned();
        let start = || {
            let (kept, end) = UnixStream::pair()?;
            let mut waiter = follower.waiter(end)?;
            let thread = std::thread::Builder::new().name("directory".to_owned());
            thread.spawn(move || follower.run(&mut waiter, &mut take))?;
            Ok(Watched { _kept: kept })
        };
        start().map_err(|source| SourceError::Thread { path, source })
    }
}

/// A directory that is watched for as long as this is kept.
#[derive(Debug)]
pub struct Watched {
    /// The thread ends when this is closed.
    _kept: UnixStream,
}

/// A directory that is watched, whose differences are waited for.
#[derive(Debug)]
pub struct Directory {
    batches: mpsc::Receiver<Batch>,
    places: Places,
    _watched: Watched,
}

impl Directory {
    /// Reads everything and starts to watch. The batch is complete.
    ///
    /// # Errors
    /// Those of [`Listed::open`] and [`Listed::deliver`].
    ///
    /// # Cost
    /// That of [`Listed::open`].
    pub fn open(root: &Path, options: Options) -> Result<(Self, Batch), SourceError> {
        let (listed, first) = Listed::open(root, options)?;
        let places = listed.places().clone();
        // Room for one: while nobody takes it, further changes come together in the next.
        let (sender, batches) = mpsc::channel(1);
        let watched = listed.deliver(move |batch| sender.blocking_send(batch).is_ok())?;
        Ok((Self { batches, places, _watched: watched }, first))
    }

    /// Waits for the next difference to what was given before.
    ///
    /// May be dropped while it waits: nothing is lost, the next call gives it.
    pub async fn next(&mut self) -> Batch {
        match self.batches.recv().await {
            Some(batch) => batch,
            None => {
                tracing::error!("the thread that watches the directory ended; changes of files have no effect");
                std::future::pending().await
            }
        }
    }

    /// Where objects stand in files, kept current.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }
}

impl Source for Directory {
    async fn next(&mut self) -> Batch {
        Directory::next(self).await
    }
}
