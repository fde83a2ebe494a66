//! Events of the file system, as marks on paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::path::{RelPath, is_hidden, is_ignored_folder, is_manifest};
use super::scan::{Identity, Observer};

/// How soon a marked path may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Haste {
    /// After a quiet moment: it may be half of something.
    Quiet,
    /// At once if it is readable: it was renamed into place, so it is complete.
    Placed,
    /// At once, even if it is gone: it was renamed to something that is read too.
    Moved,
}

impl Haste {
    /// Whether there is none.
    pub(super) fn is_quiet(self) -> bool {
        self == Self::Quiet
    }

    /// Whether there is some.
    pub(super) fn is_urgent(self) -> bool {
        self != Self::Quiet
    }
}

/// What arrived since the last look.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Paths where something happened.
    pub(super) paths: BTreeMap<PathBuf, Haste>,
    /// Whether events were lost, so that everything has to be looked at.
    pub(super) lost: bool,
    /// Whether to end.
    pub(super) stop: bool,
}

/// Where events wait. Bounded: too many marks become one, on everything, so that none is lost for ever.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    marks: Mutex<Marks>,
    arrived: Condvar,
    stopped: Condvar,
    /// The last rename of which only the old name is known: its other event is about to come.
    renaming: AtomicUsize,
    /// Whether something is read through a name of which nothing else is read.
    is_odd: AtomicBool,
}

impl Inbox {
    /// Marks beyond which looking at everything is cheaper than at each.
    const MOST: usize = 4096;

    /// Takes all marks, waiting for the first until a time.
    pub(super) fn wait(&self, until: Instant) -> Marks {
        let mut marks = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !marks.paths.is_empty() || marks.lost || marks.stop || left == Duration::ZERO {
                let stop = marks.stop;
                return Marks { stop, ..std::mem::take(&mut *marks) };
            }
            marks = self.arrived.wait_timeout(marks, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets marks gather until a time, or until the end.
    pub(super) fn pause(&self, until: Instant) {
        let mut marks = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if marks.stop || left == Duration::ZERO {
                return;
            }
            marks = self.stopped.wait_timeout(marks, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread that waits.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.arrived.notify_all();
        self.stopped.notify_all();
    }

    /// Takes in an event.
    pub(super) fn event(&self, event: notify::Result<notify::Event>) {
        let mut marks = self.lock();
        match event {
            Ok(event) if event.need_rescan() => marks.lost = true,
            Ok(event) => {
                if self.is_half(&event) {
                    return;
                }
                let Some(haste) = haste(&event) else { return };
                // Whoever writes a file beside its place is not to wake anybody before it is in place.
                let is_read = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default();
                    is_hidden(name) || !is_ignored_folder(name) || self.is_odd.load(Ordering::Relaxed)
                };
                let mut paths = event.paths.into_iter().filter(is_read).peekable();
                if paths.peek().is_none() {
                    return;
                }
                for path in paths {
                    // A file that was renamed into place and is written since then is no longer complete.
                    let is_written = haste.is_quiet() && path.file_name().is_some_and(is_manifest);
                    let known = marks.paths.entry(path).or_insert(haste);
                    *known = if is_written { haste } else { haste.max(*known) };
                }
            }
            Err(error) => {
                tracing::debug!(%error, "watching files failed");
                marks.lost = true;
            }
        }
        if marks.paths.len() > Self::MOST {
            marks.paths.clear();
            marks.lost = true;
        }
        drop(marks);
        self.arrived.notify_all();
    }

    /// Whether an event tells only the new name of a rename whose old name is known: one that tells both comes next, and
    /// applied without it the new name would stand beside the old one.
    fn is_half(&self, event: &notify::Event) -> bool {
        /// No rename: the system counts them from 1.
        const NONE: usize = 0;
        let tracker = event.tracker().unwrap_or(NONE);
        match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.renaming.store(tracker, Ordering::Relaxed);
                false
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                tracker != NONE && tracker == self.renaming.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event says of its paths; none for reading, which we do ourselves.
fn haste(event: &notify::Event) -> Option<Haste> {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Haste::Quiet),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Haste::Placed),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            // An editor that renames the file away to a backup is about to write it anew.
            let manifests: Vec<_> = event.paths.iter().map(|path| path.file_name().is_some_and(is_manifest)).collect();
            (manifests != [true, false]).then_some(Haste::Moved)
        }
        _ => Some(Haste::Quiet),
    }
}

/// The watches, by real folder, and which paths of ours an event there is about.
///
/// Only real folders are watched, each for itself, so that two ways to one folder share one watch and both are told.
pub(super) struct Watches {
    inbox: Option<Arc<Inbox>>,
    watcher: Option<RecommendedWatcher>,
    /// Real folders that are ours, with all their paths.
    folders: BTreeMap<PathBuf, BTreeSet<RelPath>>,
    /// Names in real folders through which links lead.
    hops: BTreeMap<PathBuf, BTreeMap<OsString, Hop>>,
    /// Paths of links that lead elsewhere than when they were scanned before.
    moved: BTreeSet<RelPath>,
    watched: BTreeMap<PathBuf, Option<Identity>>,
    /// Why some folder could not be watched.
    failure: Option<String>,
    /// Whether a watch may have ended with that of another path.
    doubtful: bool,
}

/// A name through which links lead.
#[derive(Default)]
struct Hop {
    /// Their paths.
    links: BTreeSet<RelPath>,
    /// What stood there: device, inode, and seconds and nanoseconds of its last change.
    was: Option<(u64, u64, i64, i64)>,
}

impl Watches {
    /// Prepares to watch.
    pub(super) fn new(inbox: &Arc<Inbox>) -> Self {
        let told = inbox.clone();
        let watcher = notify::recommended_watcher(move |event| told.event(event));
        let mut watches = Self { inbox: Some(inbox.clone()), ..Self::none() };
        match watcher {
            Ok(watcher) => watches.watcher = Some(watcher),
            Err(error) => watches.failure = Some(error.to_string()),
        }
        watches
    }

    /// Watches nothing.
    pub(super) fn none() -> Self {
        Self {
            inbox: None,
            watcher: None,
            folders: BTreeMap::new(),
            hops: BTreeMap::new(),
            moved: BTreeSet::new(),
            watched: BTreeMap::new(),
            failure: None,
            doubtful: false,
        }
    }

    /// Whether everything has to be scanned to be sure of the watches; asked once.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    /// Paths that lead elsewhere since some of them was scanned, because they share a link that was replaced; asked once.
    pub(super) fn take_moved(&mut self) -> BTreeSet<RelPath> {
        std::mem::take(&mut self.moved)
    }

    /// Why some folder is not watched.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Before everything is scanned: forgets what the scan will find again, and tries again what failed.
    pub(super) fn begin(&mut self) {
        self.folders.clear();
        self.hops.clear();
        if self.watcher.is_some() {
            self.failure = None;
        }
    }

    /// After everything was scanned: ends the watches of folders that the scan did not come to.
    pub(super) fn finish(&mut self) {
        let (folders, hops) = (&self.folders, &self.hops);
        let idle: Vec<_> = self
            .watched
            .keys()
            .filter(|path| !folders.contains_key(*path) && !hops.contains_key(*path))
            .cloned()
            .collect();
        for path in idle {
            if let Some(watcher) = &mut self.watcher {
                // Fails where the folder is gone, and then there is nothing to end.
                drop(watcher.unwatch(&path));
            }
            self.forget(&path);
        }
    }

    /// The paths of ours that a mark is about.
    pub(super) fn translate(&mut self, path: &Path) -> BTreeSet<RelPath> {
        let mut found = BTreeSet::new();
        self.forget(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return found };
        if let Some(hop) = self.hops.get(folder).and_then(|names| names.get(name)) {
            found.extend(hop.links.iter().cloned());
        }
        // Nothing of such a name is read, whatever it is: what editors write beside a file, before they rename it.
        if !is_ignored_folder(name)
            && let Some(folders) = self.folders.get(folder)
        {
            found.extend(folders.iter().map(|folder| folder.join(name)));
        }
        found
    }

    /// After something happened to a folder itself, its watch and those below may be gone; the next scan sets them up.
    ///
    /// The system keeps one watch for a folder, whatever its path. After a move, ending the watch of the old path ends
    /// that of the new one if it was set up before, so that is forgotten too.
    fn forget(&mut self, path: &Path) {
        let watched = self.watched.range(path.to_owned()..).take_while(|(watched, _)| watched.starts_with(path));
        let below: Vec<_> = watched.map(|(watched, identity)| (watched.clone(), *identity)).collect();
        for (path, identity) in below {
            self.watched.remove(&path);
            let before = self.watched.len();
            self.watched.retain(|_, other| identity.is_none() || *other != identity);
            self.doubtful |= self.watched.len() < before;
        }
    }

    fn watch(&mut self, real: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let identity = Identity::of(real).ok();
        if identity.is_some() && self.watched.get(real) == Some(&identity) {
            return;
        }
        match watcher.watch(real, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.watched.insert(real.to_owned(), identity)),
            Err(error) if is_gone(&error) => {}
            Err(error) => self.failure = Some(error.to_string()),
        }
    }
}

/// Whether a folder could not be watched because it went away meanwhile, which is an event of the folder above.
fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("watched", &self.watched).field("failure", &self.failure).finish()
    }
}

impl Observer for Watches {
    fn folder(&mut self, real: &Path, folder: &RelPath) {
        self.folders.entry(real.to_owned()).or_default().insert(folder.clone());
        self.watch(real);
    }

    fn hop(&mut self, real: &Path, name: &OsStr, entry: &RelPath) {
        if let Some(inbox) = self.inbox.as_ref().filter(|_| is_ignored_folder(name) && !is_hidden(name)) {
            inbox.is_odd.store(true, Ordering::Relaxed);
        }
        let is = fs::symlink_metadata(real.join(name)).ok();
        let is = is.map(|is| (is.dev(), is.ino(), is.ctime(), is.ctime_nsec()));
        let hop = self.hops.entry(real.to_owned()).or_default().entry(name.to_owned()).or_default();
        hop.links.insert(entry.clone());
        let was = std::mem::replace(&mut hop.was, is);
        if was.is_some() && was != is {
            self.moved.extend(hop.links.iter().cloned());
        }
        self.watch(real);
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, EventAttributes};

    use super::*;

    #[test]
    fn what_is_written_after_its_rename_waits_for_a_quiet_moment() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for (path, kinds, expected) in [
            ("d/a.yaml", [renamed, renamed], Haste::Placed),
            ("d/a.yaml", [renamed, written], Haste::Quiet),
            ("d/a.yaml", [written, renamed], Haste::Placed),
            ("d/..data", [renamed, written], Haste::Placed),
        ] {
            let inbox = Inbox::default();
            for kind in kinds {
                inbox.event(Ok(notify::Event { kind, paths: vec![path.into()], attrs: EventAttributes::new() }));
            }
            assert_eq!(inbox.wait(Instant::now()).paths[Path::new(path)], expected, "{path} {kinds:?}");
        }
    }
}
