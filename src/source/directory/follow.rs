//! The thread that turns marks into batches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::events::Waiter;
use super::load::{Job, Outcome, load};
use super::path::{RelPath, is_manifest};
use super::scan::{Identity, Listing, Root, real, reason, scan};
use super::sweep::{Sweeper, Swept};
use super::tree::{Otherwise, Tree};
use super::watch::{Haste, Watches};
use super::{Options, Watching};
use crate::model::{Code, Finding, Severity};
use crate::source::{Batch, Extent, Places};

/// Between two looks at what happened: the first change of a burst is applied at once, those that follow come together.
/// Half of it doubles the batches of a burst; double adds as much to the second of two changes in a row.
const PACE: Duration = Duration::from_millis(2);

/// Where taking in what happened took longer than [`PACE`], the pause is as long, up to this: a burst keeps at most half of a
/// core busy, and more of it comes together. Half of it leaves less to others under churn, double lets changes wait longer.
const MOST_PACE: Duration = Duration::from_millis(4);

/// How often it is looked whether a sweep is done, if nothing else happens. Only what no event told waits for it.
const SWEPT: Duration = Duration::from_millis(100);

/// Files that may have changed without a trace and are read again at a time, about a millisecond's worth: an event waits for no more.
const AGAIN_AT_ONCE: usize = 32;

/// Between two such times. Where files change all the time, all of them are to be read again after each sweep: half of it takes
/// twice as much from what really changes, double finds what no event told that much later.
const AGAIN_EVERY: Duration = Duration::from_millis(100);

/// With so many slices beside them, other files are given first and by themselves: these are no edit of anybody but endpoints
/// that change all the time. Double lets an edit wait for more of them; with half, slices of one edit come apart from it.
const MANY_SLICES: usize = 8;

/// Names of the checks of the directory as a whole.
const LOST: &str = "lost";
const TRUNCATED: &str = "truncated";
const WATCHING: &str = "watching";

/// A marked path that waits for its moment.
#[derive(Debug)]
struct Pending {
    haste: Haste,
    /// When it was marked last.
    marked: Instant,
    /// Since when it looks as it was seen.
    since: Instant,
    /// What was there then.
    seen: Listing,
}

/// Everything that the thread owns.
#[derive(Debug)]
pub(super) struct Follower {
    root: Root,
    options: Options,
    watches: Watches,
    tree: Tree,
    identity: Identity,
    pending: BTreeMap<RelPath, Pending>,
    /// Those of the pending paths that do not wait for a quiet moment.
    urgent: BTreeSet<RelPath>,
    /// When a path that waits for a quiet moment was marked last.
    last: Option<Instant>,
    /// When the first of the pending paths was marked.
    opened: Option<Instant>,
    resync: Instant,
    sweeper: Sweeper,
    /// Whether events were lost since the last sweep began.
    is_blind: bool,
    /// Files that may have changed without a trace, and are read again a few at a time.
    unsure: BTreeSet<RelPath>,
    /// When the next of them may be read.
    again_at: Instant,
    /// Slices that wait until what is given before them is given.
    behind: BTreeMap<RelPath, Pending>,
}

impl Follower {
    /// Reads everything.
    ///
    /// # Errors
    /// What the system says of the directory itself.
    pub(super) fn start(path: &Path, options: Options) -> io::Result<(Self, Batch)> {
        let identity = Identity::of(path)?;
        let watches = match options.watching {
            Watching::Events => Watches::new(),
            Watching::Polling => Watches::none(),
        };
        let root =
            Root { path: path.to_owned(), real: None, prefix: PathBuf::new(), management: options.management.clone() };
        let tree = Tree::new(&options);
        let resync = Instant::now();
        let (pending, urgent, last, opened) = (BTreeMap::new(), BTreeSet::new(), None, None);
        let mut follower = Self {
            root,
            options,
            watches,
            tree,
            identity,
            pending,
            urgent,
            last,
            opened,
            resync,
            sweeper: Sweeper::default(),
            is_blind: false,
            unsure: BTreeSet::new(),
            again_at: resync,
            behind: BTreeMap::new(),
        };
        let everything = RelPath::root();
        let listing = follower.scan(&everything)?;
        // Files that are being written are not waited for: the watch sees them through.
        let seen = listing.clone();
        let now = Instant::now();
        follower.take(&everything, &Pending { haste: Haste::Quiet, marked: now, since: now, seen }, listing, now);
        follower.set_resync(now);
        let (changes, findings) =
            follower.tree.batch().map(|batch| (batch.changes, batch.findings)).unwrap_or_default();
        Ok((follower, Batch { extent: Extent::Complete, changes, findings }))
    }

    /// The directory as it was given.
    pub(super) fn path(&self) -> &Path {
        &self.root.path
    }

    /// Where objects stand.
    pub(super) fn places(&self) -> &Places {
        self.tree.places()
    }

    /// To wait for marks until the other end of a connection is closed.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn waiter(&self, end: UnixStream) -> io::Result<Waiter> {
        self.watches.waiter(end)
    }

    /// Turns marks into batches until nobody wants them any more, or until the end.
    pub(super) fn run(&mut self, waiter: &mut Waiter, take: &mut dyn FnMut(Batch) -> bool) {
        loop {
            let doubt = self.watches.take_doubt();
            let until = if doubt { Instant::now() } else { self.deadline() };
            let Some(marks) = self.watches.wait(waiter, until) else { return };
            let now = Instant::now();
            let is_due = now >= self.resync;
            if marks.lost {
                tracing::debug!(directory = %self.root.path.display(), "events of files were lost, everything is looked at");
                self.is_blind = true;
            }
            if doubt || is_due || (self.is_blind && !self.sweeper.is_out()) {
                self.set_resync(now);
                self.look_around(!doubt, now);
            }
            let mut hastes: BTreeMap<RelPath, Haste> = BTreeMap::new();
            for (path, haste) in marks.paths {
                for path in self.watches.translate(&path) {
                    let known = hastes.entry(path).or_insert(haste);
                    *known = haste.max(*known);
                }
            }
            for (path, haste) in hastes {
                self.mark(path, haste, now);
            }
            if let Some(swept) = self.sweeper.take() {
                self.take_swept(swept, now);
            }
            self.read_again(now);
            let mut is_given = false;
            loop {
                if let Some(batch) = self.settle(now) {
                    is_given = true;
                    if !take(batch) {
                        return;
                    }
                }
                if self.behind.is_empty() {
                    break;
                }
            }
            if is_given {
                let done = Instant::now();
                let until = (now + PACE).max(done + (done - now).min(MOST_PACE));
                // What happens meanwhile gathers where the system keeps it.
                if !waiter.pause(until) {
                    return;
                }
            }
        }
    }

    /// Has everything looked at, beside what happens meanwhile if the watches are sure: after events were lost, looking at
    /// everything first would lose more.
    fn look_around(&mut self, is_sure: bool, now: Instant) {
        let is_new = !self.sweeper.is_out();
        if is_sure && self.has_events() && self.sweeper.ask(&self.root, self.options.max_files) {
            // One that is out may have passed what was lost.
            self.is_blind &= !is_new;
        } else {
            self.is_blind = false;
            self.mark(RelPath::root(), Haste::Quiet, now);
        }
    }

    /// When there is something to do if nothing happens.
    fn deadline(&self) -> Instant {
        let is_next_sweep_due = self.is_blind && !self.sweeper.is_out();
        if !self.urgent.is_empty() || is_next_sweep_due {
            return Instant::now();
        }
        let again = (self.last.is_none() && !self.unsure.is_empty()).then_some(self.again_at);
        let quiet = self.last.map(|last| {
            let latest = self.opened.map_or(last, |opened| opened + self.options.max_delay);
            (last + self.options.quiet).min(latest)
        });
        let swept = self.sweeper.is_out().then(|| Instant::now() + SWEPT);
        [again, quiet, swept].into_iter().flatten().fold(self.resync, Instant::min)
    }

    /// Marks what a sweep saw otherwise than it is known.
    ///
    /// # Cost
    /// In proportion to the files, some milliseconds for 20,000; a `stat` for each that is marked.
    fn take_swept(&mut self, swept: io::Result<Swept>, now: Instant) {
        let is_truncated = self.tree.has_overall(TRUNCATED);
        let is_alike = |swept: &Swept| {
            (swept.identity, Some(&swept.real)) == (self.identity, self.root.real.as_ref())
                && (swept.listing.truncated, is_truncated) == (false, false)
                && self.watches.agrees(&swept.watches)
        };
        let Some(swept) = swept.ok().filter(is_alike).filter(|_| self.has_events()) else {
            return self.mark(RelPath::root(), Haste::Quiet, now);
        };
        let Otherwise { sure, unsure } = self.tree.otherwise(&swept.listing);
        for path in sure {
            // What waits is looked at anyway.
            if !self.pending.contains_key(&path) {
                self.mark(path, Haste::Quiet, now);
            }
        }
        self.unsure = unsure;
    }

    /// Marks a few of the files that are to be read again, while no others wait for a quiet moment.
    fn read_again(&mut self, now: Instant) {
        if self.last.is_none() && !self.unsure.is_empty() && now >= self.again_at {
            self.again_at = now + AGAIN_EVERY;
            for path in std::iter::from_fn(|| self.unsure.pop_first()).take(AGAIN_AT_ONCE).collect::<Vec<_>>() {
                if !self.pending.contains_key(&path) {
                    self.mark(path, Haste::Quiet, now);
                }
            }
        }
    }

    /// Removes the pending paths whose moment has come. What was renamed into place goes together: the files of a
    /// mounted `ConfigMap` are one change.
    ///
    /// # Cost
    /// The paths that are due; all that wait, once in the longest delay.
    fn due(&mut self, now: Instant) -> BTreeMap<RelPath, Pending> {
        let quiet = self.options.quiet;
        let is_quiet = self.last.is_some_and(|last| now >= last + quiet);
        let is_late = self.opened.is_some_and(|opened| now >= opened + self.options.max_delay);
        let urgent = std::mem::take(&mut self.urgent);
        let mut due: BTreeMap<_, _> = urgent.into_iter().filter_map(|path| self.pending.remove_entry(&path)).collect();
        if is_quiet {
            due.append(&mut self.pending);
        } else if is_late {
            let all = std::mem::take(&mut self.pending);
            let (rested, waiting) = all.into_iter().partition(|(_, pending)| now >= pending.marked + quiet);
            self.pending = waiting;
            due.extend::<BTreeMap<_, _>>(rested);
        }
        if self.pending.is_empty() {
            (self.opened, self.last) = (None, None);
        } else if is_late {
            self.opened = Some(now);
        }
        due
    }

    /// Looks at a marked path.
    ///
    /// A folder that is already waiting keeps its first look, so that marks in a row neither put it off for ever nor
    /// cost a scan each. A file is looked at anew: it changes as long as it is marked.
    fn mark(&mut self, path: RelPath, haste: Haste, now: Instant) {
        if !is_manifest(path.name())
            && let Some(known) = self.pending.get_mut(&path)
        {
            known.haste = known.haste.max(haste);
            if known.haste.is_urgent() {
                self.urgent.insert(path);
            }
            return;
        }
        // What is applied at once is looked at when it is applied.
        let seen = if haste.is_urgent() { Ok(Listing::default()) } else { self.scan(&path) };
        let is_known = haste.is_quiet() && seen.as_ref().is_ok_and(|seen| self.is_known(&path, seen));
        if is_known && !self.pending.contains_key(&path) {
            return;
        }
        self.wait_for(path, Pending { haste, marked: now, since: now, seen: seen.unwrap_or_default() });
    }

    /// Whether there is nothing to do about a path.
    fn is_known(&self, path: &RelPath, seen: &Listing) -> bool {
        let difference = self.tree.compare(path, seen);
        difference.read.is_empty()
            && difference.gone.is_empty()
            && self.tree.same_troubles(path, seen)
            && !self.tree.has_overall(LOST)
            && self.tree.has_overall(WATCHING) == self.watches.failure().is_some()
            && self.tree.has_overall(TRUNCATED) == seen.truncated
    }

    fn wait_for(&mut self, path: RelPath, pending: Pending) {
        self.opened.get_or_insert(pending.marked);
        if pending.haste.is_urgent() {
            self.urgent.insert(path.clone());
        } else {
            self.urgent.remove(&path);
            self.last = self.last.max(Some(pending.marked));
        }
        self.pending.insert(path, pending);
    }

    /// Waits for another quiet moment for one file.
    fn wait_again(&mut self, path: RelPath, listing: &Listing, now: Instant, since: Instant) {
        let mut seen = Listing { truncated: listing.truncated, ..Listing::default() };
        seen.files.extend(listing.files.get(&path).map(|signature| (path.clone(), *signature)));
        seen.problems.extend(
            listing.problems.iter().find(|(problem, _)| problem.holds(&path)).map(|(p, f)| (p.clone(), f.clone())),
        );
        self.wait_for(path, Pending { haste: Haste::Quiet, marked: now, since, seen });
    }

    /// Splits off the slices that change in place, if they are many and there is something else; that does not wait until
    /// all of them are read and served.
    fn split(&self, due: &mut BTreeMap<RelPath, Pending>) -> BTreeMap<RelPath, Pending> {
        let is_slice = |path: &RelPath, pending: &Pending| pending.haste.is_urgent() && self.tree.is_slices(path);
        let slices = due.iter().filter(|(path, pending)| is_slice(path, pending)).count();
        if slices < MANY_SLICES || slices == due.len() {
            return BTreeMap::new();
        }
        let (slices, others) = std::mem::take(due).into_iter().partition(|(path, pending)| is_slice(path, pending));
        *due = others;
        slices
    }

    /// Applies what is due, but for what is left [`behind`](Self::behind): that is due next.
    fn settle(&mut self, now: Instant) -> Option<Batch> {
        let mut due = std::mem::take(&mut self.behind);
        if due.is_empty() {
            due = self.due(now);
            self.behind = self.split(&mut due);
        }
        if due.is_empty() {
            return None;
        }
        if let Some(why) = self.lost() {
            if !self.tree.has_overall(LOST) {
                tracing::warn!(directory = %self.root.path.display(), "{why}");
            }
            let finding = self.root.trouble(&RelPath::root(), Code::SyntaxError, why);
            self.tree.set_overall(LOST, Some(finding));
            self.set_resync(now);
            return self.tree.batch();
        }
        if self.tree.has_overall(LOST) {
            self.tree.set_overall(LOST, None);
            tracing::info!(directory = %self.root.path.display(), "the directory is back");
            let everything = RelPath::root();
            if !due.contains_key(&everything) {
                due.clear();
                self.mark(everything, Haste::Quiet, now);
            }
        }
        for (path, pending) in due {
            match self.scan(&path) {
                Ok(listing) => self.take(&path, &pending, listing, now),
                Err(_) => self
                    .wait_for(path, Pending { haste: Haste::Quiet, marked: now, since: now, seen: Listing::default() }),
            }
        }
        self.take_moved(now);
        self.tree.batch()
    }

    /// Applies what leads elsewhere since it was seen last, because a link on the way was replaced: a mounted `ConfigMap` goes
    /// as a whole, also where one of its files is looked at before the event of the link is here.
    fn take_moved(&mut self, now: Instant) {
        /// Replacements while files are read; beyond, the events of the links tell.
        const MOST: usize = 4;
        for _ in 0..MOST {
            let moved = self.watches.take_moved();
            if moved.is_empty() {
                return;
            }
            for path in moved {
                if let Ok(listing) = self.scan(&path) {
                    let seen = Listing::default();
                    self.take(&path, &Pending { haste: Haste::Placed, marked: now, since: now, seen }, listing, now);
                }
            }
        }
    }

    /// Applies what is at a path, except for what does not look as it did when it was marked.
    ///
    /// An empty file waits for longer, however it came there: most programs empty a file before they write it.
    fn take(&mut self, path: &RelPath, pending: &Pending, mut listing: Listing, now: Instant) {
        let difference = self.tree.compare(path, &listing);
        let at_once = pending.haste.is_urgent();
        let mut again = Vec::new();
        let mut jobs = Vec::new();
        for key in difference.read {
            let same = pending.seen.files.get(&key) == listing.files.get(&key);
            let emptied = listing.files[&key].len == 0 && now < pending.since + self.options.max_delay;
            if (at_once || same) && !emptied {
                jobs.push(self.job(&key, &listing, jobs.last()));
            } else {
                again.push((key, if same { pending.since } else { now }));
            }
        }
        let mut gone = Vec::new();
        for key in difference.gone {
            let was_gone = !at_once && !pending.seen.files.contains_key(&key);
            if was_gone || pending.haste == Haste::Moved { gone.push(key) } else { again.push((key, now)) }
        }
        let problems = std::mem::take(&mut listing.problems);
        let (sure, unsure): (BTreeMap<_, _>, BTreeMap<_, _>) = problems
            .into_iter()
            .partition(|(key, _)| self.tree.has_trouble(key) || (!at_once && pending.seen.problems.contains_key(key)));
        self.tree.set_troubles(path, sure);
        listing.problems = unsure;
        again.extend(listing.problems.keys().map(|key| (key.clone(), now)));

        let (admitted, refused) = self.tree.admit(jobs);
        let outcomes = load(&admitted, &self.options.limits);
        for (job, outcome) in admitted.into_iter().zip(outcomes).chain(refused) {
            if matches!(outcome, Outcome::Moving) {
                again.push((job.key.clone(), now));
            }
            self.tree.apply(&job, outcome);
        }
        for key in gone {
            self.tree.remove(&key);
        }
        for (key, since) in again {
            self.wait_again(key, &listing, now, since);
        }
        self.check(path, &listing);
    }

    /// What can be said of the directory as a whole.
    fn check(&mut self, scope: &RelPath, listing: &Listing) {
        if scope.is_root() || listing.truncated {
            let finding = listing.truncated.then(|| {
                let message = format!(
                    "the directory has more than the limit of {} manifests or folders; those that come later in path \
                     order are not read",
                    self.options.max_files
                );
                self.root.trouble(&RelPath::root(), Code::LimitExceeded, message)
            });
            self.tree.set_overall(TRUNCATED, finding);
        }
        let finding = self.watches.failure().map(|why| {
            let message = format!(
                "not every folder can be watched ({}), so changes are looked for every {:?}; raise the limits \
                 `fs.inotify.max_user_watches` and `fs.inotify.max_user_instances` of the machine",
                why.trim_end_matches('.').to_lowercase(),
                self.options.poll
            );
            Finding { severity: Severity::Warning, ..self.root.trouble(&RelPath::root(), Code::LimitExceeded, message) }
        });
        if let Some(finding) = finding.as_ref().filter(|_| !self.tree.has_overall(WATCHING)) {
            tracing::warn!(directory = %self.root.path.display(), "{}", finding.message);
            self.resync = self.resync.min(Instant::now() + self.options.poll);
        }
        self.tree.set_overall(WATCHING, finding);
    }

    /// Why the directory does not count now, if it does not.
    fn lost(&mut self) -> Option<String> {
        let everything = "everything that was read last stays in force";
        let identity = match Identity::of(&self.root.path) {
            Ok(identity) => identity,
            Err(error) => return Some(format!("the directory cannot be read ({}); {everything}", reason(&error))),
        };
        if identity != self.identity {
            let listing = self.scan(&RelPath::root()).unwrap_or_default();
            if listing.files.is_empty() && !self.tree.is_empty() {
                return Some(format!("the directory was replaced by one without manifests; {everything}"));
            }
            self.identity = identity;
            let now = Instant::now();
            self.wait_for(RelPath::root(), Pending { haste: Haste::Quiet, marked: now, since: now, seen: listing });
        }
        None
    }

    fn scan(&mut self, scope: &RelPath) -> io::Result<Listing> {
        if scope.is_root() {
            self.watches.begin();
            // Where it leads to changes with its identity, or when a link on the way is marked; either looks at everything.
            self.root.real = Some(real(&self.root, &mut self.watches)?);
        }
        let listing = scan(&self.root, scope, self.tree.room(scope), &mut self.watches);
        if scope.is_root() && listing.is_ok() {
            self.watches.finish();
        }
        listing
    }

    fn job(&self, key: &RelPath, listing: &Listing, before: Option<&Job>) -> Job {
        let known = self.tree.hash(key);
        Job { known, ..Job::new(&self.root, key, key.clone(), listing.files[key], before) }
    }

    /// Whether events tell what happens in the whole directory.
    fn has_events(&self) -> bool {
        self.options.watching == Watching::Events && self.watches.failure().is_none() && !self.tree.has_overall(LOST)
    }

    fn set_resync(&mut self, now: Instant) {
        self.resync = now + if self.has_events() { self.options.resync } else { self.options.poll };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A mounted `ConfigMap` is one change, whichever of its files is looked at first.
    #[test]
    fn a_mounted_folder_is_never_taken_in_halves() {
        let dir = tempfile::tempdir().unwrap();
        let release = |revision: &str| {
            let name = format!("..{revision}");
            let folder = dir.path().join(&name);
            fs::create_dir(&folder).unwrap();
            for file in ["a", "b"] {
                let text = format!(
                    "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {file}, labels: {{rev: {revision}}}}}\n"
                );
                fs::write(folder.join(format!("{file}.yaml")), text).unwrap();
            }
            symlink(&name, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        release("one");
        for file in ["a.yaml", "b.yaml"] {
            symlink(Path::new("..data").join(file), dir.path().join(file)).unwrap();
        }
        let options = Options { watching: Watching::Polling, ..Options::default() };
        let (mut follower, first) = Follower::start(dir.path(), options).unwrap();
        assert_eq!((first.changes.len(), first.findings), (2, vec![]));
        release("two");
        let now = Instant::now();
        follower.mark(RelPath::new("a.yaml".as_ref()), Haste::Placed, now);
        let batch = follower.settle(now).unwrap();
        assert_eq!((batch.changes.len(), batch.findings), (2, vec![]), "both files, though only one was marked");
        assert!(follower.settle(now).is_none());
    }

    fn slice(name: &str, address: u8) -> String {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}}}\naddressType: IPv4\n\
             endpoints: [{{addresses: [10.0.0.{address}]}}]\n"
        )
    }

    /// Files in a directory of which no events come, and who follows them.
    fn followed(files: &[(String, String)], watching: Watching) -> (tempfile::TempDir, Follower) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let (follower, _) = Follower::start(dir.path(), Options { watching, ..Options::default() }).unwrap();
        (dir, follower)
    }

    /// What is given, by batch, of some slices and a table that were renamed into place before they were looked at.
    fn given(slices: usize, is_known: bool) -> Vec<Vec<String>> {
        let names: Vec<String> = (0..slices).map(|slice| format!("s{slice}")).collect();
        let table = |revision| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: table, labels: {{rev: {revision}}}}}\n")
        };
        let mut files = vec![("table.yaml".to_owned(), table("one"))];
        if is_known {
            files.extend(names.iter().map(|name| (format!("{name}.yaml"), slice(name, 1))));
        }
        let (dir, mut follower) = followed(&files, Watching::Polling);
        let now = Instant::now();
        for name in &names {
            let file = format!("{name}.yaml");
            fs::write(dir.path().join(&file), slice(name, 2)).unwrap();
            follower.mark(RelPath::new(file.as_ref()), Haste::Moved, now);
        }
        fs::write(dir.path().join("table.yaml"), table("two")).unwrap();
        follower.mark(RelPath::new("table.yaml".as_ref()), Haste::Moved, now);
        let batches = std::iter::from_fn(|| follower.settle(now));
        batches.map(|batch| batch.changes.iter().map(|change| change.id().name.to_string()).collect()).collect()
    }

    #[test]
    fn what_is_edited_passes_slices_that_are_many() {
        let names = |slices: usize| (0..slices).map(|slice| format!("s{slice}"));
        let together = |slices| vec![names(slices).chain(["table".to_owned()]).collect::<Vec<_>>()];
        let sorted = |mut batches: Vec<Vec<String>>| {
            batches.iter_mut().for_each(|batch| batch.sort());
            batches
        };
        assert_eq!(sorted(given(3, true)), together(3), "they may be one edit");
        assert_eq!(sorted(given(9, false)), together(9), "what the table leads to comes with it");
        assert_eq!(sorted(given(9, true)), [vec!["table".to_owned()], names(9).collect()]);
    }

    /// Takes what a sweep saw, once it is back.
    fn take_swept(follower: &mut Follower) {
        let latest = Instant::now() + Duration::from_secs(60);
        let swept = loop {
            if let Some(swept) = follower.sweeper.take() {
                break swept;
            }
            assert!(Instant::now() < latest, "a sweep comes back");
            std::thread::yield_now();
        };
        follower.take_swept(swept, Instant::now());
    }

    /// Who looks at everything himself loses what happens meanwhile.
    #[test]
    fn after_events_were_lost_everything_is_looked_at_by_another_thread() {
        let (dir, mut follower) = followed(&[("a.yaml".to_owned(), slice("a", 1))], Watching::Events);
        let now = Instant::now();
        // For its age; what is lost comes behind it.
        follower.look_around(true, now);
        follower.is_blind = true;
        follower.look_around(true, now);
        take_swept(&mut follower);
        assert!(follower.is_blind && follower.deadline() <= Instant::now(), "another is to follow at once");
        fs::write(dir.path().join("b.yaml"), slice("b", 1)).unwrap();
        follower.look_around(true, now);
        assert!(!follower.is_blind && !follower.pending.contains_key(&RelPath::root()));
        take_swept(&mut follower);
        follower.settle(Instant::now() + Duration::from_secs(1));
        assert_eq!(follower.tree.objects().count(), 2);
    }

    /// Files that were read right after they were written are read once more; under churn these are all.
    #[test]
    fn what_may_have_changed_without_a_trace_is_read_again_a_little_at_a_time() {
        let files: Vec<_> = (0..100).map(|file| (format!("s{file}.yaml"), slice(&format!("s{file}"), 1))).collect();
        let (dir, mut follower) = followed(&files, Watching::Events);
        // So young that a further write never shows.
        for (name, _) in &files {
            let file = fs::File::options().write(true).open(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).unwrap();
        }
        let now = Instant::now();
        follower.mark(RelPath::root(), Haste::Placed, now);
        assert!(follower.settle(now).is_none());
        follower.look_around(true, now);
        take_swept(&mut follower);
        assert_eq!((follower.unsure.len(), follower.pending.len()), (100, 0));
        let mut turns = 0_u32;
        while !follower.unsure.is_empty() {
            let now = now + turns * AGAIN_EVERY;
            follower.read_again(now);
            assert!((1..=AGAIN_AT_ONCE).contains(&follower.pending.len()), "a change waits for no more");
            follower.read_again(now + AGAIN_EVERY);
            assert!(follower.settle(now + Duration::from_secs(1)).is_none());
            let left = follower.unsure.len();
            follower.read_again(now + AGAIN_EVERY / 2);
            assert_eq!(follower.unsure.len(), left, "nor for the next of them at once");
            assert!(follower.unsure.is_empty() || follower.deadline() <= now + AGAIN_EVERY, "they have their turn");
            turns += 1;
        }
        assert_eq!(turns as usize, 100_usize.div_ceil(AGAIN_AT_ONCE), "no more while some wait");
    }
}
