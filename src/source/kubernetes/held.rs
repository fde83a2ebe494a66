//! What API servers told so far, as one set of objects: pure, no I/O.
//!
//! A watch gives complete lists and single changes; a list replaces what the same watch gave before. A cluster takes part
//! once every kind of it was listed, or is known not to be served: before that none of its objects is handed on, so nobody
//! ever sees half of one (R10). What cannot be read any more stays as it was last (R11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::definitions::Defined;
use super::kept::{self, Manifest, Recalled};
use crate::crd::{Change, Object};
use crate::model::finding::sort_findings;
use crate::model::{Code, Finding, Findings, Kind, Location, Name, ObjectRef, Severity};
use crate::source::{Batch, Extent, same_content};

/// What one watch is about, within a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// All objects of a kind.
    Kind(Kind),
    /// One Secret.
    Secret(Name, Name),
    /// The Secrets with these labels, in all namespaces.
    Secrets(BTreeMap<Name, Name>),
    /// The Secret with the credential of a registered cluster, of the admin namespace. Never handed on.
    Credential(Name),
    /// The Secrets with the roots of trust that Chancery made, of the admin namespace. Handed on apart from the objects.
    Roots,
    /// The definitions of kinds, of which only their marks are looked at.
    Definitions,
}

/// One object as an API server told it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) object: Arc<Object>,
    pub(super) findings: Findings,
    /// Its text, where something is wrong with it and it is to be kept over a restart.
    pub(super) text: Option<Arc<str>>,
}

/// Why a watch gets nothing at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server does not serve the kind.
    NotServed,
    /// The server refuses: who asks may not, or is not known.
    Refused(String),
    /// No answer, or one that means nothing.
    Unreachable(String),
}

/// The objects of all clusters.
#[derive(Debug)]
pub(super) struct Held {
    management: Name,
    clusters: BTreeMap<Name, Cluster>,
    /// Clusters for which the first batch waits.
    awaited: BTreeSet<Name>,
    /// Whether the first batch was given.
    is_given: bool,
    /// What changed since the last batch: the object now, or none.
    pending: BTreeMap<ObjectRef, Option<Arc<Object>>>,
    given_findings: Findings,
    /// What is wrong with registered clusters themselves.
    on_clusters: BTreeMap<Name, Finding>,
    /// Names of namespaces that objects share.
    names: BTreeSet<Name>,
    /// Counts what changed.
    revision: u64,
}

#[derive(Debug, Default)]
struct Cluster {
    /// The `KubernetesCluster`; none for a management cluster without one.
    registration: Option<ObjectRef>,
    /// Kinds that were not listed yet.
    unlisted: BTreeSet<Kind>,
    /// Whether its objects are handed on.
    takes_part: bool,
    objects: BTreeMap<ObjectRef, Arc<Object>>,
    findings: BTreeMap<ObjectRef, Findings>,
    /// Which Secrets each watch of Secrets found.
    secrets: BTreeMap<What, BTreeSet<ObjectRef>>,
    troubles: BTreeMap<What, Trouble>,
    /// Since when its objects are those of an earlier run, where they are.
    recalled: Option<Timestamp>,
    /// What changed while they are, and is given once every kind was listed.
    deferred: BTreeMap<ObjectRef, Option<Arc<Object>>>,
    /// Texts of objects with which something is wrong.
    texts: BTreeMap<ObjectRef, Arc<str>>,
    /// What is defined there; none while that is unknown.
    defined: Option<Defined>,
}

/// The kinds that are watched as a whole. Secrets are watched where they are named, and nobody reads ConfigMaps.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| !matches!(kind, Kind::Secret | Kind::ConfigMap))
}

/// Most kinds that a finding names.
const NAMED: usize = 3;

impl Held {
    pub(super) fn new(management: &Name) -> Self {
        let mut held = Self {
            management: management.clone(),
            clusters: BTreeMap::new(),
            awaited: BTreeSet::from([management.clone()]),
            is_given: false,
            pending: BTreeMap::new(),
            given_findings: Findings::new(),
            on_clusters: BTreeMap::new(),
            names: BTreeSet::new(),
            revision: 0,
        };
        held.add(management, None);
        held
    }

    /// Takes a cluster in, or learns of its registration.
    pub(super) fn add(&mut self, name: &Name, registration: Option<ObjectRef>) {
        let new = || Cluster { unlisted: kinds().collect(), ..Cluster::default() };
        self.clusters.entry(name.clone()).or_insert_with(new).registration = registration;
    }

    /// Lets the first batch wait for a cluster that took part before this run.
    ///
    /// # Rule
    /// R10.
    pub(super) fn wait_for(&mut self, name: &Name) {
        if !self.is_given {
            self.awaited.insert(name.clone());
        }
    }

    /// Drops a cluster with everything in it.
    ///
    /// # Rule
    /// R11: only when its `KubernetesCluster` is deleted.
    pub(super) fn remove(&mut self, name: &Name) {
        self.awaited.remove(name);
        self.on_clusters.remove(name);
        let Some(cluster) = self.clusters.remove(name) else { return };
        if cluster.takes_part && self.is_given {
            self.pending.extend(cluster.objects.into_keys().map(|id| (id, None)));
        }
    }

    /// The clusters that are known.
    pub(super) fn clusters(&self) -> impl Iterator<Item = &Name> {
        self.clusters.keys()
    }

    /// Whether a cluster's objects are handed on.
    pub(super) fn takes_part(&self, name: &Name) -> bool {
        self.clusters.get(name).is_some_and(|cluster| cluster.takes_part)
    }

    /// Whether the management cluster was listed completely, in this run or in an earlier one.
    pub(super) fn is_managed(&self) -> bool {
        self.clusters
            .get(&self.management)
            .is_some_and(|cluster| cluster.unlisted.is_empty() || cluster.recalled.is_some())
    }

    /// Objects of the management cluster.
    pub(super) fn managed(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectRef::new(kind, self.management.clone(), "", "");
        let objects = self.clusters.get(&self.management).map(|cluster| &cluster.objects);
        let from = objects.into_iter().flat_map(move |objects| objects.range(first.clone()..));
        from.map(|(_, object)| object).take_while(move |object| object.meta.id.kind == kind)
    }

    /// What the first batch waits for, for people.
    pub(super) fn missing(&self) -> Vec<String> {
        let unlisted = |name: &Name| {
            let cluster = self.clusters.get(name)?;
            let kind = cluster.unlisted.first()?;
            let trouble = cluster.troubles.get(&What::Kind(*kind)).map(Trouble::text).unwrap_or_default();
            Some(format!("cluster `{name}`: {} kinds are not listed, {kind} for one{trouble}", cluster.unlisted.len()))
        };
        self.awaited
            .iter()
            .filter(|name| !self.takes_part(name))
            .map(|name| unlisted(name).unwrap_or_else(|| format!("cluster `{name}` is not connected")))
            .collect()
    }

    /// The clusters that the first batch waits for, each with the gravest that is wrong there.
    pub(super) fn awaited(&self) -> Vec<(&Name, Option<(&What, &Trouble)>)> {
        let gravest = |name: &Name| {
            let troubles = &self.clusters.get(name)?.troubles;
            let counts = |(what, trouble): &(&What, &Trouble)| **trouble != Trouble::NotServed || !what.is_optional();
            troubles.iter().rev().filter(counts).max_by_key(|(_, trouble)| trouble.gravity())
        };
        let missing = self.awaited.iter().filter(|name| !self.takes_part(name));
        missing.map(|name| (name, gravest(name))).collect()
    }

    /// The same name as others have it, so that it is kept once.
    fn shared(&mut self, object: Arc<Object>) -> Arc<Object> {
        let id = &object.meta.id;
        let known = self.clusters.get(&id.cluster).and_then(|cluster| cluster.objects.get_key_value(id));
        let id = match known {
            Some((known, _)) => known.clone(),
            None => {
                let namespace = match self.names.get(&id.namespace) {
                    Some(name) => name.clone(),
                    None => {
                        self.names.insert(id.namespace.clone());
                        id.namespace.clone()
                    }
                };
                ObjectRef::new(id.kind, id.cluster.clone(), namespace, id.name.clone())
            }
        };
        let mut object = Arc::unwrap_or_clone(object);
        object.meta.id = id;
        Arc::new(object)
    }

    /// A complete list of a watch.
    pub(super) fn listed(&mut self, name: &Name, what: &What, told: Vec<Told>) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.troubles.remove(what);
        let now: BTreeSet<ObjectRef> = told.iter().map(|told| told.object.meta.id.clone()).collect();
        let before: BTreeSet<ObjectRef> = match what {
            What::Kind(kind) => cluster.of_kind(*kind, name).cloned().collect(),
            what => cluster.secrets.get(what).cloned().unwrap_or_default(),
        };
        for id in before.difference(&now) {
            self.deleted(name, what, id);
        }
        for told in told {
            self.put(name, what, told);
        }
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        match what {
            What::Kind(kind) => {
                cluster.unlisted.remove(kind);
                self.look_at(name);
            }
            // Also where there is nothing: then that is known.
            what => {
                cluster.secrets.entry(what.clone()).or_default();
                self.revision += 1;
            }
        }
    }

    /// Takes a cluster as an earlier run kept it, as far as it was not listed in this one. Once every kind is listed, what is
    /// different is given; until then it stays as it is, so that nobody sees half of it.
    ///
    /// # Rule
    /// R10, R11.
    pub(super) fn recall(&mut self, name: &Name, recalled: Recalled) {
        let Some(cluster) = self.clusters.get_mut(name).filter(|cluster| !cluster.takes_part) else { return };
        for told in recalled.told {
            let id = told.object.meta.id.clone();
            if cluster.unlisted.contains(&id.kind) || id.kind == Kind::Secret {
                if !told.findings.is_empty() {
                    cluster.findings.entry(id.clone()).or_insert(told.findings);
                }
                cluster.objects.entry(id).or_insert(told.object);
            }
        }
        for (what, found) in recalled.secrets {
            cluster.secrets.entry(what).or_insert(found);
        }
        (cluster.recalled, cluster.takes_part) = (Some(recalled.at), true);
        if self.is_given {
            let objects = cluster.objects.iter().map(|(id, object)| (id.clone(), Some(object.clone())));
            self.pending.extend(objects);
        }
    }

    /// Since when a cluster's objects are those of an earlier run, where they are.
    pub(super) fn recalled(&self, name: &Name) -> Option<Timestamp> {
        self.clusters.get(name)?.recalled
    }

    /// Whether some kind of a cluster was listed in this run.
    pub(super) fn has_begun(&self, name: &Name) -> bool {
        self.clusters.get(name).is_some_and(|cluster| cluster.unlisted.len() < kinds().count())
    }

    /// Whether its API server does not answer some question.
    pub(super) fn is_away(&self, name: &Name) -> bool {
        let troubles = self.clusters.get(name).map(|cluster| &cluster.troubles);
        troubles.is_some_and(|troubles| troubles.values().any(|trouble| matches!(trouble, Trouble::Unreachable(_))))
    }

    /// Counts what changed.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.clusters.values().map(|cluster| cluster.objects.len()).sum()
    }

    /// A cluster that takes part, as it is to be kept.
    pub(super) fn kept(&self, name: &Name, now: Timestamp, roots: &[Arc<Object>]) -> Option<kept::Cluster<Manifest>> {
        let cluster = self.clusters.get(name).filter(|cluster| cluster.takes_part)?;
        let objects = cluster.objects.iter().map(|(id, object)| (object, cluster.texts.get(id)));
        Some(kept::Cluster::new(cluster.recalled.unwrap_or(now), objects, &cluster.secrets, roots.iter()))
    }

    /// A new or different object.
    pub(super) fn put(&mut self, name: &Name, what: &What, told: Told) {
        let object = self.shared(told.object);
        let id = object.meta.id.clone();
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if !matches!(what, What::Kind(_)) {
            cluster.secrets.entry(what.clone()).or_default().insert(id.clone());
        }
        if told.findings.is_empty() {
            cluster.findings.remove(&id);
        } else {
            cluster.findings.insert(id.clone(), told.findings);
        }
        match told.text {
            Some(text) => cluster.texts.insert(id.clone(), text),
            None => cluster.texts.remove(&id),
        };
        if cluster.objects.get(&id).is_some_and(|known| same_content(known, &object)) {
            return;
        }
        cluster.objects.insert(id.clone(), object.clone());
        self.changed(name, id, Some(object));
    }

    /// Notes a difference for the next batch.
    fn changed(&mut self, name: &Name, id: ObjectRef, object: Option<Arc<Object>>) {
        self.revision += 1;
        let Some(cluster) = self.clusters.get_mut(name).filter(|cluster| cluster.takes_part && self.is_given) else {
            return;
        };
        // A Secret is asked for by itself, and its answer counts at once.
        let is_deferred = cluster.recalled.is_some() && id.kind != Kind::Secret;
        let pending = if is_deferred { &mut cluster.deferred } else { &mut self.pending };
        pending.insert(id, object);
    }

    /// An object that a watch does not find any more.
    pub(super) fn deleted(&mut self, name: &Name, what: &What, id: &ObjectRef) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if let Some(found) = cluster.secrets.get_mut(what) {
            found.remove(id);
        }
        if id.kind == Kind::Secret && cluster.secrets.values().any(|found| found.contains(id)) {
            return;
        }
        cluster.findings.remove(id);
        cluster.texts.remove(id);
        if cluster.objects.remove(id).is_some() {
            self.changed(name, id.clone(), None);
        }
    }

    /// A watch that gets nothing at present: what it gave stays.
    pub(super) fn troubled(&mut self, name: &Name, what: &What, trouble: Trouble) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let is_absent = trouble == Trouble::NotServed;
        cluster.troubles.insert(what.clone(), trouble);
        if is_absent {
            self.settle_absent(name);
        }
    }

    /// Which kinds an API server has definitions of.
    pub(super) fn defined(&mut self, name: &Name, defined: Defined) {
        if let Some(cluster) = self.clusters.get_mut(name) {
            cluster.defined = Some(defined);
            self.settle_absent(name);
        }
    }

    /// A kind that a server neither serves nor has a definition of has no objects. One that is defined will be served: a server
    /// that starts knows its kinds a little later than itself, and until then nothing of it counts.
    ///
    /// # Rule
    /// R10.
    fn settle_absent(&mut self, name: &Name) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let Some(defined) = &cluster.defined else { return };
        let is_absent = |kind: &Kind| {
            let what = What::Kind(*kind);
            what.is_optional()
                && !defined.expected.contains(kind)
                && cluster.troubles.get(&what) == Some(&Trouble::NotServed)
        };
        let absent: Vec<Kind> = cluster.unlisted.iter().filter(|kind| is_absent(kind)).copied().collect();
        if !absent.is_empty() {
            cluster.unlisted.retain(|kind| !absent.contains(kind));
            self.look_at(name);
        }
    }

    /// A watch that goes on.
    pub(super) fn recovered(&mut self, name: &Name, what: &What) {
        if let Some(cluster) = self.clusters.get_mut(name) {
            cluster.troubles.remove(what);
        }
    }

    /// Nobody asks for some Secrets any more.
    pub(super) fn forget(&mut self, name: &Name, what: &What) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.troubles.remove(what);
        let found = cluster.secrets.remove(what).unwrap_or_default();
        for id in found {
            self.deleted(name, what, &id);
        }
    }

    /// Says what is wrong with a registered cluster as a whole; none if nothing is.
    pub(super) fn say(&mut self, name: &Name, finding: Option<Finding>) {
        match finding {
            Some(finding) => self.on_clusters.insert(name.clone(), finding),
            None => self.on_clusters.remove(name),
        };
    }

    /// Whether it is known which Secrets a watch finds, or that it may not know.
    pub(super) fn is_answered(&self, name: &Name, what: &What) -> bool {
        self.clusters.get(name).is_none_or(|cluster| {
            let is_denied = |trouble: &Trouble| !matches!(trouble, Trouble::Unreachable(_));
            cluster.secrets.contains_key(what) || cluster.troubles.get(what).is_some_and(is_denied)
        })
    }

    /// What is wrong with a cluster, for its status; none if nothing is.
    pub(super) fn ailment(&self, name: &Name) -> Option<String> {
        let cluster = self.clusters.get(name)?;
        let grave = cluster.troubles.iter().find(|(_, trouble)| **trouble != Trouble::NotServed);
        grave.map(|(what, trouble)| format!("{} cannot be read{}", what.text(), trouble.text()))
    }

    /// Hands a cluster's objects on if it is complete now.
    fn look_at(&mut self, name: &Name) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if !cluster.unlisted.is_empty() {
            return;
        }
        if cluster.takes_part {
            if cluster.recalled.take().is_some() {
                tracing::info!(cluster = %name, "listed completely, in place of what was kept");
            }
            self.pending.append(&mut cluster.deferred);
            return;
        }
        cluster.takes_part = true;
        if self.is_given {
            let objects = cluster.objects.iter().map(|(id, object)| (id.clone(), Some(object.clone())));
            self.pending.extend(objects);
        }
    }

    /// Whether what is wrong is something else than was given last, and nothing else changed.
    pub(super) fn is_only_said(&self) -> bool {
        self.is_given && self.pending.is_empty() && self.findings() != self.given_findings
    }

    /// What changed since the last batch; none before the first complete lists, and where nothing did.
    ///
    /// `is_known` says whether all clusters are known that the first batch has to wait for.
    ///
    /// # Rule
    /// R10.
    pub(super) fn batch(&mut self, is_known: bool) -> Option<Batch> {
        if !self.is_given {
            if !is_known || self.awaited.iter().any(|name| !self.takes_part(name)) {
                return None;
            }
            self.is_given = true;
            let part = self.clusters.values().filter(|cluster| cluster.takes_part);
            let objects: BTreeMap<&ObjectRef, &Arc<Object>> = part.flat_map(|cluster| &cluster.objects).collect();
            let changes = objects.into_values().cloned().map(Change::Put).collect();
            let findings = self.findings();
            self.given_findings.clone_from(&findings);
            return Some(Batch { extent: Extent::Complete, changes, findings });
        }
        let findings = self.findings();
        if self.pending.is_empty() && findings == self.given_findings {
            return None;
        }
        self.given_findings.clone_from(&findings);
        let change = |(id, object): (ObjectRef, Option<_>)| object.map_or(Change::Delete(id), Change::Put);
        let changes = std::mem::take(&mut self.pending).into_iter().map(change).collect();
        Some(Batch { extent: Extent::Changes, changes, findings })
    }

    fn findings(&self) -> Findings {
        let mut findings: Findings = self.on_clusters.values().cloned().collect();
        for (name, cluster) in self.clusters.iter().filter(|(_, cluster)| cluster.takes_part) {
            findings.extend(cluster.findings.values().flatten().cloned());
            findings.extend(cluster.trouble(name, *name == self.management));
        }
        sort_findings(&mut findings);
        findings
    }
}

impl What {
    /// Whether a server may do without it.
    fn is_optional(&self) -> bool {
        matches!(self, Self::Kind(kind) if kind.is_v2())
    }
}

impl Trouble {
    /// How much of a server it concerns.
    pub(super) fn gravity(&self) -> u8 {
        match self {
            Self::NotServed => 0,
            Self::Refused(_) => 1,
            Self::Unreachable(_) => 2,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NotServed => ", which is not served".to_owned(),
            Self::Refused(words) | Self::Unreachable(words) => format!(": {words}"),
        }
    }
}

impl Cluster {
    fn of_kind(&self, kind: Kind, cluster: &Name) -> impl Iterator<Item = &ObjectRef> {
        let first = ObjectRef::new(kind, cluster.clone(), "", "");
        self.objects.range(first..).map(|(id, _)| id).take_while(move |id| id.kind == kind)
    }

    /// What is told of watches that get nothing: of each sort once, because they mostly come together.
    fn trouble(&self, name: &Name, is_management: bool) -> Vec<Finding> {
        let finding = |code, message: String| match &self.registration {
            Some(registration) => Finding::warning(registration, code, message),
            None => {
                let place = Location { file: Arc::from(format!("cluster {name}")), line: 0, column: 0 };
                Finding::in_file(place, Severity::Warning, code, message)
            }
        };
        let mut findings = Vec::new();
        let of_sort = |is: fn(&Trouble) -> bool| self.troubles.iter().filter(move |(_, trouble)| is(trouble));
        let absent: Vec<String> = of_sort(|trouble| *trouble == Trouble::NotServed)
            .filter_map(|(what, _)| match what {
                // Policies of other clusters count as those of the management cluster do, and few have them there.
                What::Kind(kind) if is_management || self.of_kind(*kind, name).next().is_some() => {
                    Some(format!("`{}.{}`", kind.plural(), kind.group().api_version()))
                }
                _ => None,
            })
            .collect();
        if !absent.is_empty() {
            let more = absent.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} other kinds") };
            let message = format!(
                "the API server of cluster `{name}` does not serve {}{more}: no objects of them can be written there, and \
                 those that were read before stay in force; apply what `chancery crds` prints",
                absent[..absent.len().min(NAMED)].join(", "),
            );
            findings.push(finding(Code::KindNotServed, message));
        }
        let outdated =
            self.defined.iter().flat_map(|defined| &defined.outdated).map(|kind| format!("`{}`", kind.plural()));
        let outdated: Vec<String> = outdated.collect();
        if !outdated.is_empty() {
            let more = outdated.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} other kinds") };
            let message = format!(
                "the definitions of {}{more} at the API server of cluster `{name}` are those of another version of Chancery: \
                 what they refuse and show may differ from this manual, and objects go on as they are; apply those of this \
                 version: `chancery crds | kubectl apply -f -`",
                outdated[..outdated.len().min(NAMED)].join(", "),
            );
            findings.push(finding(Code::DefinitionOutdated, message));
        }
        let refused = of_sort(|trouble| matches!(trouble, Trouble::Refused(_)));
        if let Some((what, trouble)) = refused.clone().next() {
            let more = refused.count() - 1;
            let more = if more == 0 { String::new() } else { format!(", and {more} more") };
            let message = format!(
                "the API server of cluster `{name}` refuses to let Chancery read {}{}{more}: what was read last stays in \
                 force; grant `list` and `watch`, or correct the credential",
                what.text(),
                trouble.text(),
            );
            findings.push(finding(Code::ClusterRefuses, message));
        }
        let unreachable = of_sort(|trouble| matches!(trouble, Trouble::Unreachable(_)));
        if let Some((_, trouble)) = unreachable.clone().next() {
            let kept =
                self.recalled.map(|at| format!(", as it was kept at {at:.0} over a restart")).unwrap_or_default();
            let message = format!(
                "the API server of cluster `{name}` does not answer{}: what was read last stays in force{kept}, and it is \
                 asked again and again; look at the server and the way to it",
                trouble.text(),
            );
            findings.push(finding(Code::ClusterUnreachable, message));
        }
        findings
    }
}

impl What {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Kind(kind) => format!("`{}`", kind.plural()),
            Self::Secret(namespace, name) => format!("the Secret `{namespace}/{name}`"),
            Self::Secrets(_) => "the Secrets that a policy selects by labels".to_owned(),
            Self::Credential(name) => format!("the Secret `{name}` of the admin namespace"),
            Self::Definitions => "the definitions of kinds".to_owned(),
            Self::Roots => "the Secrets with roots of trust of the admin namespace".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
