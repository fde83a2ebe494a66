//! Events of the file system, as marks on paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::events::{Events, Waiter, What};
use super::path::{RelPath, is_hidden, is_ignored_folder, is_manifest};
use super::scan::{Identity, Observer, reason};

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

/// What arrived since the last look. Bounded: too many marks become one, on everything, so that none is lost for ever.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Paths where something happened.
    pub(super) paths: BTreeMap<PathBuf, Haste>,
    /// Whether events were lost, so that everything has to be looked at.
    pub(super) lost: bool,
}

impl Marks {
    /// Marks beyond which looking at everything is cheaper than at each; as many events as the system keeps by default.
    const MOST: usize = 16_384;

    fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.lost
    }

    /// Takes in what happened to a path. `is_odd` says whether something is read through a name of which nothing else is.
    fn take(&mut self, path: PathBuf, what: What, is_odd: bool) {
        let is_manifest = |path: &Path| path.file_name().is_some_and(is_manifest);
        match what {
            What::Changed => self.mark(path, Haste::Quiet, is_odd),
            What::Placed => self.mark(path, Haste::Placed, is_odd),
            // An editor that renames the file away to a backup is about to write it anew.
            What::Renamed { from } if is_manifest(&from) && !is_manifest(&path) => {}
            What::Renamed { from } => {
                self.mark(from, Haste::Moved, is_odd);
                self.mark(path, Haste::Moved, is_odd);
            }
        }
    }

    fn mark(&mut self, path: PathBuf, haste: Haste, is_odd: bool) {
        let name = path.file_name().unwrap_or_default();
        // Whoever writes a file beside its place is not to have it looked for before it is in place.
        if is_ignored_folder(name) && !is_hidden(name) && !is_odd {
            return;
        }
        // A file that was renamed into place and is written since then is no longer complete.
        let is_written = haste.is_quiet() && is_manifest(name);
        let known = self.paths.entry(path).or_insert(haste);
        *known = if is_written { haste } else { haste.max(*known) };
        if self.paths.len() > Self::MOST {
            self.paths.clear();
            self.lost = true;
        }
    }
}

/// The watches, by real folder, and which paths of ours an event there is about.
///
/// Only real folders are watched, each for itself, so that two ways to one folder share one watch and both are told.
#[derive(Debug, Default)]
pub(super) struct Watches {
    events: Option<Events>,
    /// Real folders that are ours, with all their paths.
    folders: BTreeMap<PathBuf, BTreeSet<RelPath>>,
    /// Names in real folders through which links lead.
    hops: BTreeMap<PathBuf, BTreeMap<OsString, Hop>>,
    /// Paths of links that lead elsewhere than when they were scanned before.
    moved: BTreeSet<RelPath>,
    watched: BTreeMap<PathBuf, Option<Identity>>,
    /// Whether something is read through a name of which nothing else is read.
    is_odd: bool,
    /// Why some folder could not be watched.
    failure: Option<String>,
    /// Whether a watch may have ended with that of another path.
    doubtful: bool,
}

/// A name through which links lead.
#[derive(Debug, Default)]
struct Hop {
    /// Their paths.
    links: BTreeSet<RelPath>,
    /// What stood there: device, inode, and seconds and nanoseconds of its last change.
    was: Option<(u64, u64, i64, i64)>,
}

impl Watches {
    /// Prepares to watch.
    pub(super) fn new() -> Self {
        match Events::new() {
            Ok(events) => Self { events: Some(events), ..Self::none() },
            Err(error) => Self { failure: Some(reason(&error)), ..Self::none() },
        }
    }

    /// Watches nothing.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// To wait for what happens, until the other end of a connection is closed.
    ///
    /// # Errors
    /// Those of [`Waiter::new`].
    pub(super) fn waiter(&self, end: UnixStream) -> io::Result<Waiter> {
        Waiter::new(self.events.as_ref(), end)
    }

    /// What happened, waiting for the first of it until a time; none at the end.
    pub(super) fn wait(&mut self, waiter: &mut Waiter, until: Instant) -> Option<Marks> {
        let (mut marks, is_odd) = (Marks::default(), self.is_odd);
        loop {
            if let Some(events) = &mut self.events {
                marks.lost |= events.read(|path, what| marks.take(path, what, is_odd));
            }
            if !marks.is_empty() || Instant::now() >= until {
                return Some(marks);
            }
            if !waiter.wait(until) {
                return None;
            }
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

    /// Notes which folders those are that a scan came to, where none of them was watched.
    pub(super) fn identify(&mut self) {
        let paths = self.folders.keys().chain(self.hops.keys()).cloned();
        self.watched = paths.map(|path| (path.clone(), Identity::of(&path).ok())).collect();
    }

    /// Whether the same folders and links were come to, and the same are watched.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        fn links(of: &Watches) -> impl Iterator<Item = (&PathBuf, &OsString, &BTreeSet<RelPath>)> {
            of.hops.iter().flat_map(|(real, names)| names.iter().map(move |(name, hop)| (real, name, &hop.links)))
        }
        self.folders == other.folders && self.watched == other.watched && links(self).eq(links(other))
    }

    /// Before everything is scanned: forgets what the scan will find again, and tries again what failed.
    pub(super) fn begin(&mut self) {
        self.folders.clear();
        self.hops.clear();
        if self.events.is_some() {
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
            if let Some(events) = &mut self.events {
                events.unwatch(&path);
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
        let Some(events) = &mut self.events else { return };
        let identity = Identity::of(real).ok();
        if identity.is_some() && self.watched.get(real) == Some(&identity) {
            return;
        }
        match events.watch(real) {
            Ok(()) => drop(self.watched.insert(real.to_owned(), identity)),
            // It went away meanwhile, which is an event of the folder above.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.failure = Some(reason(&error)),
        }
    }
}

impl Observer for Watches {
    fn folder(&mut self, real: &Path, folder: &RelPath) {
        self.folders.entry(real.to_owned()).or_default().insert(folder.clone());
        self.watch(real);
    }

    fn hop(&mut self, real: &Path, name: &OsStr, entry: &RelPath) {
        self.is_odd |= is_ignored_folder(name) && !is_hidden(name);
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
    use super::*;

    #[test]
    fn what_is_written_after_its_rename_waits_for_a_quiet_moment() {
        let (renamed, written) = (What::Placed, What::Changed);
        for (path, happened, expected) in [
            ("d/a.yaml", [&renamed, &renamed], Haste::Placed),
            ("d/a.yaml", [&renamed, &written], Haste::Quiet),
            ("d/a.yaml", [&written, &renamed], Haste::Placed),
            ("d/..data", [&renamed, &written], Haste::Placed),
        ] {
            let mut marks = Marks::default();
            happened.into_iter().for_each(|what| marks.take(path.into(), what.clone(), false));
            assert_eq!(marks.paths[Path::new(path)], expected, "{path} {happened:?}");
        }
    }

    #[test]
    fn rows_of_renames() {
        for (from, to, expected) in [
            ("d/a.yaml.tmp", "d/a.yaml", &[("d/a.yaml", Haste::Moved)][..]),
            ("d/a.yaml", "d/b.yaml", &[("d/a.yaml", Haste::Moved), ("d/b.yaml", Haste::Moved)]),
            ("d/a.yaml", "d/a.yaml~", &[("d/a.yaml", Haste::Quiet)]),
            ("d/..data_tmp", "d/..data", &[("d/..data", Haste::Moved), ("d/..data_tmp", Haste::Moved)]),
        ] {
            let mut marks = Marks::default();
            marks.take(from.into(), What::Changed, false);
            marks.take(to.into(), What::Renamed { from: from.into() }, false);
            let found: Vec<_> = marks.paths.iter().map(|(path, haste)| (path.to_str().unwrap(), *haste)).collect();
            assert_eq!(found, expected, "{from} to {to}");
        }
    }
}
