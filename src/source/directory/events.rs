//! Events of the file system, as the system queues them.
//!
//! Whoever follows a directory reads them itself, without a thread and a queue in between: an edit wakes one thread. What is
//! opened and read is not told, so that reading a file wakes nobody.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

/// Bytes of events that are read at a time, a few hundred of them.
const BUFFER_BYTES: usize = 16 << 10;

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It came, went, or is another; what of these, a look tells.
    Changed,
    /// It was renamed to this from where nobody watches.
    Placed,
    /// It was renamed to this.
    Renamed {
        /// From this, which was told as a change before.
        from: PathBuf,
    },
}

/// The folders that are watched, each for what happens to it and to its entries.
#[derive(Debug)]
pub(super) struct Events {
    queue: Inotify,
    watched: Watched,
}

#[derive(Debug, Default)]
struct Watched {
    folders: BTreeMap<WatchDescriptor, PathBuf>,
    watches: BTreeMap<PathBuf, WatchDescriptor>,
    /// The rename of which only the old name is known so far: its number, and that name.
    renamed: Option<(u32, PathBuf)>,
}

impl Events {
    /// Prepares to watch.
    ///
    /// # Errors
    /// What the system says; mostly that there are as many users of events as it lets there be.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { queue: Inotify::init()?, watched: Watched::default() })
    }

    /// Watches a folder, from now on by this path.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn watch(&mut self, folder: &Path) -> io::Result<()> {
        let wanted = WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::MOVE_SELF;
        let watch = self.queue.watches().add(folder, wanted).map_err(|error| match error.kind() {
            ErrorKind::StorageFull => io::Error::other("there are as many watches as the system allows"),
            _ => error,
        })?;
        let Watched { folders, watches, .. } = &mut self.watched;
        // The system keeps one watch for a folder, whatever its path.
        if let Some(before) = folders.insert(watch.clone(), folder.to_owned()) {
            watches.remove(&before);
        }
        if let Some(before) = watches.insert(folder.to_owned(), watch.clone()).filter(|before| *before != watch) {
            folders.remove(&before);
            end(&self.queue, before);
        }
        Ok(())
    }

    /// Ends the watch of a folder.
    pub(super) fn unwatch(&mut self, folder: &Path) {
        if let Some(watch) = self.watched.watches.remove(folder) {
            self.watched.folders.remove(&watch);
            end(&self.queue, watch);
        }
    }

    /// Tells what happened since the last look, in order; whether some of it was lost.
    pub(super) fn read(&mut self, mut tell: impl FnMut(PathBuf, What)) -> bool {
        let mut is_lost = false;
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            match self.queue.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        is_lost |= event.mask.contains(EventMask::Q_OVERFLOW);
                        self.watched.take(&self.queue, &event, &mut tell);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return is_lost,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "watching files failed");
                    return true;
                }
            }
        }
    }
}

impl Watched {
    /// Ends the watch of a folder that is elsewhere now, and those of the folders in it.
    fn unwatch(&mut self, queue: &Inotify, folder: &Path) {
        let below = self.watches.range(folder.to_owned()..).take_while(|(path, _)| path.starts_with(folder));
        let below: Vec<(PathBuf, WatchDescriptor)> = below.map(|(path, watch)| (path.clone(), watch.clone())).collect();
        for (path, watch) in below {
            self.watches.remove(&path);
            self.folders.remove(&watch);
            end(queue, watch);
        }
    }

    fn take(&mut self, queue: &Inotify, event: &Event<&OsStr>, tell: &mut impl FnMut(PathBuf, What)) {
        let is = event.mask;
        if is.contains(EventMask::IGNORED) {
            // The folder is gone, or nobody wants its watch any more.
            if let Some(folder) = self.folders.remove(&event.wd) {
                self.watches.remove(&folder);
            }
            return;
        }
        // Of a watch that was ended, events may still be in the queue.
        let Some(folder) = self.folders.get(&event.wd) else { return };
        let path = event.name.map_or_else(|| folder.clone(), |name| folder.join(name));
        if is.intersects(EventMask::MOVED_FROM | EventMask::DELETE | EventMask::DELETE_SELF) {
            self.unwatch(queue, &path);
        }
        if is.contains(EventMask::MOVED_FROM) {
            self.renamed = Some((event.cookie, path.clone()));
        } else if is.contains(EventMask::MOVED_TO) {
            let from = self.renamed.take_if(|(of, _)| *of == event.cookie);
            return tell(path, from.map_or(What::Placed, |(_, from)| What::Renamed { from }));
        }
        tell(path, What::Changed);
    }
}

/// Fails where the folder is gone, and then there is nothing to end.
fn end(queue: &Inotify, watch: WatchDescriptor) {
    let _ = queue.watches().remove(watch);
}

/// Waits for events, or for the end.
#[derive(Debug)]
pub(super) struct Waiter {
    events: Poll,
    /// For the end alone.
    pause: Poll,
    heard: mio::Events,
    /// Closed at the other end when it is time to end.
    _end: UnixStream,
}

impl Waiter {
    const END: Token = Token(0);
    const EVENTS: Token = Token(1);

    /// Prepares to wait.
    ///
    /// # Errors
    /// What the system says; mostly that the process has as many open files as it may.
    pub(super) fn new(events: Option<&Events>, end: UnixStream) -> io::Result<Self> {
        let (all, pause) = (Poll::new()?, Poll::new()?);
        for poll in [&all, &pause] {
            poll.registry().register(&mut SourceFd(&end.as_raw_fd()), Self::END, Interest::READABLE)?;
        }
        if let Some(events) = events {
            all.registry().register(&mut SourceFd(&events.queue.as_raw_fd()), Self::EVENTS, Interest::READABLE)?;
        }
        Ok(Self { events: all, pause, heard: mio::Events::with_capacity(2), _end: end })
    }

    /// Waits until there are events that were not there when all were read last, or until a time; false at the end.
    pub(super) fn wait(&mut self, until: Instant) -> bool {
        wait(&mut self.events, &mut self.heard, until)
    }

    /// Waits until a time, whatever happens; false at the end.
    pub(super) fn pause(&mut self, until: Instant) -> bool {
        wait(&mut self.pause, &mut self.heard, until)
    }
}

fn wait(poll: &mut Poll, heard: &mut mio::Events, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    match poll.poll(heard, Some(left)) {
        Ok(()) => !heard.iter().any(|event| event.token() == Waiter::END),
        Err(error) if error.kind() == ErrorKind::Interrupted => true,
        Err(error) => {
            tracing::error!(%error, "waiting for events of files failed, this is a fault of Chancery");
            false
        }
    }
}
