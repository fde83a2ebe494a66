//! The state of a directory: what each file holds, which file an object counts from, and what was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Options;
use super::load::{Content, Decoding, Job, Outcome};
use super::path::{RelPath, within};
use super::scan::{KEPT, Listing, Signature, trouble};
use crate::crd::{Change, Object};
use crate::model::finding::sort_findings;
use crate::model::{Code, Finding, Findings, Kind, Location, Name, ObjectRef, Severity};
use crate::source::places::{Place, Text};
use crate::source::{Batch, Extent, Places, same_content};

/// Everything known of a directory.
///
/// # Cost
/// Applying a file costs its objects, old and new; assembling a batch costs the findings that there are.
#[derive(Debug)]
pub(super) struct Tree {
    management: Name,
    max_files: usize,
    max_bytes: u64,
    files: BTreeMap<RelPath, Entry>,
    /// Files and folders that cannot be read. Files below keep their objects.
    troubles: BTreeMap<RelPath, Finding>,
    /// What is wrong with the directory as a whole, by the name of the check that found it.
    overall: BTreeMap<&'static str, Finding>,
    /// Files with findings.
    flawed: BTreeSet<RelPath>,
    /// Where each object is defined, in path order. The first place counts.
    claims: BTreeMap<ObjectRef, Vec<Claim>>,
    /// Objects that are defined more than once.
    contested: BTreeSet<ObjectRef>,
    /// Folders that are clusters, by name in messages, with the number of their files.
    clusters: BTreeMap<Arc<str>, (Name, usize)>,
    /// Objects whose claims changed since the last batch.
    touched: BTreeSet<ObjectRef>,
    given: BTreeMap<ObjectRef, Arc<Object>>,
    given_findings: Findings,
    bytes: u64,
    places: Places,
    /// Names of clusters and namespaces.
    names: BTreeSet<Name>,
    /// How many of them there may be before unused ones are looked for.
    names_until: usize,
}

/// A file and a position in it, counted from 0.
type Claim = (RelPath, usize);

#[derive(Debug)]
struct Entry {
    label: Arc<str>,
    text: Text,
    /// Folder and name of the cluster, for files that lie in the folder of another than the management cluster.
    folder: Option<(Arc<str>, Name)>,
    signature: Option<Signature>,
    /// Its state as it was listed when it was read last, though a further write may not show in it.
    seen: Option<Signature>,
    hash: Option<u128>,
    len: u64,
    /// The last good content.
    objects: Vec<Arc<Object>>,
    findings: Findings,
}

/// What a listing says against what is known.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Files that are new or look different.
    pub(super) read: Vec<RelPath>,
    /// Files that are gone.
    pub(super) gone: Vec<RelPath>,
}

/// What a listing of everything says otherwise than is known.
#[derive(Debug, Default)]
pub(super) struct Otherwise {
    /// What is new, different, gone, or unreadable otherwise than before.
    pub(super) sure: BTreeSet<RelPath>,
    /// Files that were read so soon after they were written that a further write may not show.
    pub(super) unsure: BTreeSet<RelPath>,
}

impl Tree {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            management: options.management.clone(),
            max_files: options.max_files,
            max_bytes: options.max_bytes,
            files: BTreeMap::new(),
            troubles: BTreeMap::new(),
            overall: BTreeMap::new(),
            flawed: BTreeSet::new(),
            claims: BTreeMap::new(),
            contested: BTreeSet::new(),
            clusters: BTreeMap::new(),
            touched: BTreeSet::new(),
            given: BTreeMap::new(),
            given_findings: Findings::new(),
            bytes: 0,
            places: Places::default(),
            names: BTreeSet::new(),
            names_until: 0,
        }
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The hash of a file's content as it was decoded last.
    pub(super) fn hash(&self, key: &RelPath) -> Option<u128> {
        self.files.get(key)?.hash
    }

    /// How many files may stand below a path, given those elsewhere.
    pub(super) fn room(&self, scope: &RelPath) -> usize {
        if scope.is_root() {
            return self.max_files;
        }
        self.max_files.saturating_sub(self.files.len() - within(&self.files, scope).count())
    }

    /// What is new, different or gone. A file that an event names is read whatever its metadata says.
    pub(super) fn compare(&self, scope: &RelPath, listing: &Listing) -> Difference {
        let is_gone = |key: &&RelPath| !listing.problems.keys().any(|problem| problem.holds(key));
        let (mut difference, mut known) = (Difference::default(), within(&self.files, scope).peekable());
        let mut missing = Vec::new();
        // Both are in path order.
        for (key, signature) in &listing.files {
            missing.extend(std::iter::from_fn(|| known.next_if(|(other, _)| *other < key)).map(|(other, _)| other));
            let entry = known.next_if(|(other, _)| *other == key).map(|(_, entry)| entry);
            if key == scope || entry.and_then(|entry| entry.signature) != Some(*signature) {
                difference.read.push(key.clone());
            }
        }
        if !listing.truncated {
            missing.extend(known.map(|(other, _)| other));
            difference.gone = missing.into_iter().filter(is_gone).cloned().collect();
        }
        difference
    }

    /// Whether a path is a file that holds slices and nothing else.
    pub(super) fn is_slices(&self, key: &RelPath) -> bool {
        let is_slice = |object: &Arc<Object>| object.meta.id.kind == Kind::EndpointSlice;
        let objects = self.files.get(key).map_or(&[][..], |entry| &entry.objects);
        !objects.is_empty() && objects.iter().all(is_slice)
    }

    /// The paths of which a listing of everything says something else than is known.
    ///
    /// # Cost
    /// In proportion to the files.
    pub(super) fn otherwise(&self, listing: &Listing) -> Otherwise {
        let Difference { read, gone } = self.compare(&RelPath::root(), listing);
        let is_unsure = |key: &RelPath| {
            self.files.get(key).is_some_and(|entry| {
                entry.signature.is_none() && entry.hash.is_some() && entry.seen.as_ref() == listing.files.get(key)
            })
        };
        let (unsure, read): (BTreeSet<_>, BTreeSet<_>) = read.into_iter().partition(is_unsure);
        let (known, seen) = (&self.troubles, &listing.problems);
        let over = known.keys().filter(|path| !seen.contains_key(*path));
        let new = seen.iter().filter(|(path, trouble)| known.get(*path) != Some(trouble)).map(|(path, _)| path);
        let sure = read.into_iter().chain(gone).chain(over.chain(new).cloned()).collect();
        Otherwise { sure, unsure }
    }

    /// Whether the same files and folders of a scope are unreadable as before.
    pub(super) fn same_troubles(&self, scope: &RelPath, listing: &Listing) -> bool {
        within(&self.troubles, scope).eq(&listing.problems)
    }

    /// Whether a path was unreadable before.
    pub(super) fn has_trouble(&self, key: &RelPath) -> bool {
        self.troubles.contains_key(key)
    }

    /// Replaces what cannot be read at a path and below it, and on the way to it.
    pub(super) fn set_troubles(&mut self, scope: &RelPath, problems: BTreeMap<RelPath, Finding>) {
        self.troubles.retain(|key, _| !scope.holds(key) && !key.holds(scope));
        self.troubles.extend(problems);
    }

    /// Sets or clears what one check says of the directory as a whole.
    pub(super) fn set_overall(&mut self, check: &'static str, finding: Option<Finding>) {
        match finding {
            Some(finding) => self.overall.insert(check, finding),
            None => self.overall.remove(check),
        };
    }

    pub(super) fn has_overall(&self, check: &'static str) -> bool {
        self.overall.contains_key(check)
    }

    /// Splits off, in path order, the files that would go beyond the limit of total size.
    pub(super) fn admit(&self, jobs: Vec<Job>) -> (Vec<Job>, Vec<(Job, Outcome)>) {
        let known = |job: &Job| self.files.get(&job.key).map_or(0, |entry| entry.len);
        let mut total = self.bytes - jobs.iter().map(known).sum::<u64>();
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        for job in jobs {
            if total.saturating_add(job.signature.len) > self.max_bytes {
                let message = format!(
                    "the directory has more than the limit of {} bytes in total, and this file is not read; {KEPT}",
                    self.max_bytes
                );
                let finding = trouble(job.label.clone(), Code::LimitExceeded, message);
                total += known(&job);
                refused.push((job, Outcome::Refused(finding)));
            } else {
                total += job.signature.len;
                admitted.push(job);
            }
        }
        (admitted, refused)
    }

    /// Takes over what became of reading a file; `Moving` changes nothing.
    pub(super) fn apply(&mut self, job: &Job, outcome: Outcome) {
        if matches!(outcome, Outcome::Moving) {
            return;
        }
        if !self.files.contains_key(&job.key) {
            self.files.insert(job.key.clone(), Entry::new(job, &self.management));
            self.count(&job.key, 1);
        }
        let Some(entry) = self.files.get_mut(&job.key) else { return };
        let mut objects: Option<Vec<Object>> = None;
        match outcome {
            Outcome::Moving => {}
            Outcome::Refused(finding) => {
                // Looked at again each time, because the reason may lie outside of the file.
                entry.signature = None;
                entry.hash = None;
                entry.findings = vec![finding];
            }
            Outcome::Read(Content { signature, hash, len, decoding }) => {
                self.bytes = self.bytes - entry.len + len;
                (entry.signature, entry.hash, entry.len) = (signature, Some(hash), len);
                entry.seen = Some(job.signature);
                match decoding {
                    Decoding::Same => {}
                    Decoding::Failed(finding) => entry.findings = vec![finding],
                    Decoding::Done(decoded) => {
                        entry.findings = decoded.findings;
                        objects = Some(decoded.objects);
                    }
                }
            }
        }
        if entry.findings.is_empty() {
            self.flawed.remove(&job.key);
        } else {
            self.flawed.insert(job.key.clone());
        }
        if let Some(objects) = objects {
            // Not collected, which would keep the room that the objects themselves took.
            let mut shared = Vec::with_capacity(objects.len());
            shared.extend(objects.into_iter().map(|object| Arc::new(self.called_alike(object))));
            let objects = shared;
            self.replace(&job.key, objects);
        }
    }

    /// Keeps the text of a file that can be read only once.
    pub(super) fn keep_text(&mut self, key: &RelPath, text: &[u8]) {
        if let Some(entry) = self.files.get_mut(key) {
            entry.text = Text::Kept(Arc::from(text));
        }
    }

    /// Forgets a file and its objects.
    pub(super) fn remove(&mut self, key: &RelPath) {
        self.replace(key, Vec::new());
        self.count(key, -1);
        self.flawed.remove(key);
        if let Some(entry) = self.files.remove(key) {
            self.bytes -= entry.len;
        }
    }

    /// Counts a file of a cluster's folder in or out.
    fn count(&mut self, key: &RelPath, by: isize) {
        let Some((folder, cluster)) = self.files.get(key).and_then(|entry| entry.folder.as_ref()) else { return };
        let (_, files) = self.clusters.entry(folder.clone()).or_insert_with(|| (cluster.clone(), 0));
        *files = files.saturating_add_signed(by);
        if *files == 0 {
            self.clusters.remove(folder);
        }
    }

    /// The same object, called by the very reference that it was called by before; a new one by the very names of its cluster
    /// and namespace that others there are called by. What is the same is then seen without looking at texts.
    fn called_alike(&mut self, mut object: Object) -> Object {
        if let Some((known, _)) = self.claims.get_key_value(&object.meta.id) {
            object.meta.id = known.clone();
            return object;
        }
        let id = &object.meta.id;
        let (cluster, namespace) = (self.shared_name(&id.cluster), self.shared_name(&id.namespace));
        object.meta.id = ObjectRef::new(id.kind, cluster, namespace, &id.name);
        object
    }

    fn shared_name(&mut self, name: &Name) -> Name {
        /// Names that are kept before the first that nobody else has are forgotten.
        const NAMES: usize = 256;
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= self.names_until.max(NAMES) {
            self.names.retain(Name::is_shared);
            self.names_until = 2 * self.names.len();
        }
        self.names.insert(name.clone());
        name.clone()
    }

    /// Replaces the objects of a file.
    fn replace(&mut self, key: &RelPath, objects: Vec<Arc<Object>>) {
        let Some(entry) = self.files.get_mut(key) else { return };
        let old = std::mem::replace(&mut entry.objects, objects);
        for object in &old {
            let id = &object.meta.id;
            if let Some(claims) = self.claims.get_mut(id) {
                claims.retain(|(file, _)| file != key);
            }
            self.touched.insert(id.clone());
        }
        for (index, object) in entry.objects.iter().enumerate() {
            let id = &object.meta.id;
            let claims = self.claims.entry(id.clone()).or_default();
            let claim = (key.clone(), index);
            let at = claims.partition_point(|other| *other < claim);
            claims.insert(at, claim);
            self.touched.insert(id.clone());
        }
    }

    /// What changed since the last batch; none if nothing did.
    pub(super) fn batch(&mut self) -> Option<Batch> {
        let changes = self.changes();
        let findings = self.findings();
        if changes.is_empty() && findings == self.given_findings {
            return None;
        }
        self.given_findings.clone_from(&findings);
        Some(Batch { extent: Extent::Changes, changes, findings })
    }

    /// The objects that count, sorted.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.given.values()
    }

    /// The files that are read, in path order.
    pub(super) fn labels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.values().map(|entry| &entry.label)
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut places = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let claims = self.claims.get(&id).map_or(&[][..], Vec::as_slice);
            if claims.len() > 1 {
                self.contested.insert(id.clone());
            } else {
                self.contested.remove(&id);
            }
            let Some((entry, object)) = claims.first().and_then(|claim| self.claimed(claim)) else {
                self.claims.remove(&id);
                places.push((id.clone(), None));
                if self.given.remove(&id).is_some() {
                    changes.push(Change::Delete(id));
                }
                continue;
            };
            places.push((id.clone(), Some(entry.place(object))));
            let object = object.clone();
            if self.given.get(&id).is_none_or(|given| !same_content(given, &object)) {
                self.given.insert(id, object.clone());
                changes.push(Change::Put(object));
            }
        }
        self.places.update(places);
        changes
    }

    fn claimed(&self, (file, index): &Claim) -> Option<(&Entry, &Arc<Object>)> {
        let entry = self.files.get(file)?;
        Some((entry, entry.objects.get(*index)?))
    }

    fn findings(&self) -> Findings {
        let mut findings: Findings = self.overall.values().chain(self.troubles.values()).cloned().collect();
        findings.extend(self.flawed.iter().filter_map(|key| self.files.get(key)).flat_map(|e| e.findings.clone()));
        for id in &self.contested {
            let places: Vec<_> = self.claims[id]
                .iter()
                .filter_map(|claim| self.claimed(claim))
                .map(|(entry, object)| entry.place(object).location)
                .collect();
            if let Some((winner, losers)) = places.split_first() {
                findings.extend(losers.iter().map(|loser| duplicate(id, winner, loser)));
            }
        }
        let registered = self.registered();
        for (folder, (cluster, _)) in &self.clusters {
            if !registered.contains(cluster) {
                findings.push(self.not_registered(folder, cluster));
            }
        }
        sort_findings(&mut findings);
        findings
    }

    /// Names of the clusters that have a `KubernetesCluster`.
    fn registered(&self) -> BTreeSet<&Name> {
        let first = ObjectRef::new(Kind::KubernetesCluster, self.management.clone(), "", "");
        self.given
            .range(&first..)
            .map(|(id, _)| id)
            .take_while(|id| id.kind == first.kind && id.cluster == first.cluster)
            .map(|id| &id.name)
            .collect()
    }

    fn not_registered(&self, folder: &Arc<str>, cluster: &Name) -> Finding {
        let message = format!(
            "the folder is a cluster without a `KubernetesCluster`, so its objects have no effect; add a manifest with \
             `apiVersion: admin.gloo.solo.io/v2`, `kind: KubernetesCluster` and `metadata.name: {cluster}` in the \
             admin namespace (`gloo-mesh` by default) of the management cluster, whose folder is `{}`",
            self.management
        );
        let location = Location { file: folder.clone(), line: 0, column: 0 };
        Finding::in_file(location, Severity::Warning, Code::ClusterNotRegistered, message)
    }
}

impl Entry {
    fn new(job: &Job, management: &Name) -> Self {
        let folder = job.folder.clone().filter(|_| job.cluster != *management);
        Self {
            label: job.label.clone(),
            text: Text::File(job.path.clone()),
            folder: folder.map(|folder| (folder, job.cluster.clone())),
            signature: None,
            seen: None,
            hash: None,
            len: 0,
            objects: Vec::new(),
            findings: Findings::new(),
        }
    }

    fn place(&self, object: &Object) -> Place {
        let location = object.meta.location.clone();
        let location = location.unwrap_or_else(|| Location { file: self.label.clone(), line: 0, column: 0 });
        Place { text: self.text.clone(), location }
    }
}

/// The finding about a second definition.
fn duplicate(id: &ObjectRef, winner: &Location, loser: &Location) -> Finding {
    let message = format!("also defined at `{winner}`, which is first in path order and counts; remove one of the two");
    Finding::error(id, Code::DuplicateObject, message).located(loser.clone())
}
