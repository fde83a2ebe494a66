//! What gateways refused, and what they took before that.
//!
//! A pure table with one purpose: a resource that Envoy refuses keeps its last accepted version on all gateways, also on
//! those that connect later, and everything else proceeds. [`Refusals::overlay`] puts the accepted version back into a
//! compiled snapshot, together with what it refers to and the new snapshot no longer has.
//!
//! A refusal is about bytes: a name and a version, at one release of Envoy. It holds for every gateway of that release, since
//! all of them understand the same; an older Envoy that refuses holds nobody else back. A listener is another matter: whether
//! a port is free and a file is there depends on the machine, so the refusal of one holds for the gateways of its class only.
//!
//! A refusal ends
//!
//! - as soon as no compiled snapshot contains those bytes any more;
//! - when the last node that refused has acknowledged them after all;
//! - when none of the nodes that refused has been connected for [`GRACE`]: then the bytes are tried again. A node is its id,
//!   at a release: one that was replaced or upgraded has left. One that comes back sooner under its old id has not, because
//!   a stream that was cut cannot be told from an Envoy that was started again.
//!
//! # Cost
//! Accepted resources are shared with the snapshots they came in; at most two versions of each are kept.
//!
//! # Rule
//! `reliability.md` F2 to F5, cases 6 to 11; R132; R136.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{EnvoyRelease, GatewayId, Name, ObjectRef};
use crate::publish::GatewayKey;
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot, Version};

pub mod blame;
pub mod document;
pub mod references;

use references::Known;

/// Most nodes of a class that are remembered by id; beyond, a count may be too small.
const NODES: usize = 1024;

/// How long gateways that refused something may be away before it is tried again. Envoy waits for up to 30 s between two
/// attempts to connect; half of this would end refusals because a server was restarted, double would make authors wait.
pub const GRACE: Duration = Duration::from_secs(60);

/// What was refused: bytes, at one release of Envoy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    /// The release that refused them.
    pub envoy: EnvoyRelease,
    /// The class of those that refused them, if it means nothing to other classes: of listeners.
    pub class: Option<GatewayId>,
    /// The type.
    pub resource_type: ResourceType,
    /// The resource's name.
    pub name: Name,
    /// The resource's version.
    pub version: Version,
}

/// What is known about refused bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first client's words. Foreign text: quote it where it is shown.
    pub message: Arc<str>,
    /// Who refused, by class of gateways.
    pub nodes: BTreeMap<GatewayId, BTreeSet<Name>>,
    /// The gateways by one of which it was refused first.
    pub first: GatewayKey,
    /// The objects that are to blame; all that the resource was made from unless it is known better.
    pub blamed: Arc<[ObjectRef]>,
    /// Whether somebody looked already who is to blame.
    pub is_judged: bool,
    /// Since when none of the nodes is connected, as far as somebody looked.
    pub left: Option<Instant>,
}

/// Everything that was refused, and what was accepted last.
///
/// A copy is cheap: it shares all resources. Whoever reads much reads a copy, so that streams don't wait.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    refused: BTreeMap<Bytes, Refused>,
    gateways: BTreeMap<GatewayKey, Gateways>,
    /// What an earlier run kept of gateways that are not served yet.
    earlier: Arc<document::Document>,
}

/// The gateways of one key.
#[derive(Clone, Debug, Default)]
struct Gateways {
    /// What is published, and what was before that.
    published: Option<Published>,
    before: Option<Published>,
    accepted: BTreeMap<ResourceType, Accepted>,
}

#[derive(Clone, Debug)]
struct Published {
    snapshot: Arc<Snapshot>,
    versions: BTreeMap<ResourceType, Version>,
}

/// What the gateways of one key accepted of one type.
///
/// A client that holds a type in full may not have asked for each resource of it, so that one that another client refuses
/// may stand here; therefore the version before is kept as well.
#[derive(Clone, Debug, Default)]
struct Accepted {
    /// Resources that were acknowledged one by one since all were.
    single: BTreeMap<Name, Single>,
    /// All resources when they were last acknowledged in full.
    all: Arc<Resources>,
    /// The same, before that.
    all_before: Arc<Resources>,
}

#[derive(Clone, Debug)]
struct Single {
    last: Arc<Resource>,
    before: Option<Arc<Resource>>,
}

/// Who is to blame for what; nobody has an opinion where there is none.
pub type Verdicts = BTreeMap<Bytes, Option<Arc<[ObjectRef]>>>;

/// A snapshot with accepted versions in place of refused ones.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The snapshot to publish; the very same if nothing had to be replaced.
    pub snapshot: Arc<Snapshot>,
    /// What was replaced.
    pub kept: BTreeSet<(ResourceType, Name)>,
    /// What stands in for it, with what that refers to.
    pub stand_ins: BTreeMap<(ResourceType, Name), Arc<Resource>>,
}

impl Refusals {
    /// A table without a refusal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy to read what is refused from: without what was accepted, if nothing is refused.
    #[must_use]
    pub fn copy(&self) -> Self {
        if self.refused.is_empty() { Self { earlier: self.earlier.clone(), ..Self::default() } } else { self.clone() }
    }

    /// Notes that a node refused a resource; whether that says anything new.
    pub fn refuse(
        &mut self,
        key: &GatewayKey,
        node: &Name,
        bytes: Bytes,
        owners: Arc<[ObjectRef]>,
        words: &str,
    ) -> bool {
        let refused = self.refused.entry(bytes).or_insert_with(|| Refused {
            message: words.into(),
            nodes: BTreeMap::new(),
            first: key.clone(),
            blamed: owners,
            is_judged: false,
            left: None,
        });
        let nodes = refused.nodes.entry(key.gateway.clone()).or_default();
        nodes.len() < NODES && nodes.insert(node.clone())
    }

    /// Notes that a node holds these resources, which it may have refused before; whether that ends a refusal.
    ///
    /// # Cost
    /// A lookup per resource, while something is refused.
    pub fn reconsider<'a>(
        &mut self,
        key: &GatewayKey,
        node: &Name,
        resource_type: ResourceType,
        resources: impl Iterator<Item = (&'a Name, &'a Version)>,
    ) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        let mut has_ended = false;
        for (name, version) in resources {
            let bytes = Bytes::new(key, resource_type, name, version);
            let Some(refused) = self.refused.get_mut(&bytes) else { continue };
            let Some(nodes) = refused.nodes.get_mut(&key.gateway) else { continue };
            nodes.remove(node);
            refused.nodes.retain(|_, nodes| !nodes.is_empty());
            if refused.nodes.is_empty() {
                self.refused.remove(&bytes);
                has_ended = true;
            }
        }
        has_ended
    }

    /// Forgets refusals of nodes that have left: those of which none was present for [`GRACE`]; whether there were such.
    ///
    /// `is_present` says whether some node of a class is connected at a release.
    ///
    /// # Cost
    /// A question per refusal and class.
    pub fn expire(
        &mut self,
        now: Instant,
        is_present: impl Fn(EnvoyRelease, &GatewayId, &BTreeSet<Name>) -> bool,
    ) -> bool {
        let before = self.refused.len();
        self.refused.retain(|bytes, refused| {
            if refused.nodes.iter().any(|(class, nodes)| is_present(bytes.envoy, class, nodes)) {
                refused.left = None;
                return true;
            }
            let left = *refused.left.get_or_insert(now);
            now.saturating_duration_since(left) < GRACE
        });
        before != self.refused.len()
    }

    /// When to look again at who is present; never, if somebody was present of each refusal at the last look.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.refused.values().filter_map(|refused| refused.left).min().map(|left| left + GRACE)
    }

    /// Notes what a client of a key holds: these resources, and if nothing is outstanding all of that version of the type.
    ///
    /// # Cost
    /// In proportion to the named resources; none if the type is held in full.
    pub fn accept<'a>(
        &mut self,
        key: &GatewayKey,
        resource_type: ResourceType,
        version: &Version,
        resources: impl Iterator<Item = (&'a Name, &'a Version)>,
        outstanding: usize,
    ) {
        let Some(Gateways { published: Some(published), before, accepted }) = self.gateways.get_mut(key) else {
            return;
        };
        let accepted = accepted.entry(resource_type).or_default();
        if outstanding == 0 {
            let is_meant = |published: &&Published| published.versions.get(&resource_type) == Some(version);
            let newest = published.snapshot.resources(resource_type);
            if is_meant(&&*published) {
                accepted.single.clear();
                accepted.take_all(newest);
                return;
            }
            // A slow client is no reason to forget what a quick one took.
            let is_behind = Arc::ptr_eq(&accepted.all, &newest);
            if let Some(before) = before.as_ref().filter(is_meant).filter(|_| !is_behind) {
                accepted.take_all(before.snapshot.resources(resource_type));
                return;
            }
        }
        for (name, version) in resources {
            let [newest, older] = [Some(&*published), before.as_ref()]
                .map(|published| published.and_then(|published| published.snapshot.get(resource_type, name)));
            let is_meant = |resource: &&Arc<Resource>| resource.version == *version;
            let taken = accepted.usable(name, |_| true);
            if let Some(resource) = newest.filter(is_meant) {
                accepted.take(resource);
            } else if let Some(resource) = older.filter(is_meant)
                && taken.is_none_or(|taken| newest.is_none_or(|newest| taken.version != newest.version))
            {
                accepted.take(resource);
            }
        }
    }

    /// Notes what the gateways of a key are sent from now on.
    ///
    /// # Cost
    /// One pass over names and versions, if the snapshot is a new one.
    pub fn published(&mut self, key: &GatewayKey, snapshot: &Arc<Snapshot>) {
        let gateways = self.gateways.entry(key.clone()).or_default();
        if gateways.published.as_ref().is_some_and(|published| Arc::ptr_eq(&published.snapshot, snapshot)) {
            return;
        }
        let versions = ResourceType::ALL.map(|resource_type| (resource_type, snapshot.type_version(resource_type)));
        let published = Published { snapshot: snapshot.clone(), versions: versions.into() };
        gateways.before = gateways.published.replace(published);
    }

    /// Forgets refused bytes that no compiled snapshot contains any more, and keys that are not served any more; whether
    /// there were such refusals.
    pub fn retain<'a>(&mut self, compiled: impl Fn(&GatewayKey) -> Option<&'a Arc<Snapshot>>) -> bool {
        self.gateways.retain(|key, _| compiled(key).is_some());
        let before = self.refused.len();
        let keys = &self.gateways;
        self.refused.retain(|bytes, _| {
            let mut snapshots = keys.keys().filter(|key| bytes.concern(key)).filter_map(&compiled);
            snapshots.any(|snapshot| bytes.are_in(snapshot))
        });
        before != self.refused.len()
    }

    /// What is known about bytes, if they are refused.
    #[must_use]
    pub fn get(&self, bytes: &Bytes) -> Option<&Refused> {
        self.refused.get(bytes)
    }

    /// Everything that is refused now.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Refused)> {
        self.refused.iter()
    }

    /// What somebody says who is to blame for what was not judged yet, given the last accepted version of the resource.
    #[must_use]
    pub fn verdicts(
        &self,
        mut judge: impl FnMut(&Bytes, &Refused, Option<&Resource>) -> Option<Arc<[ObjectRef]>>,
    ) -> Verdicts {
        let unjudged = self.refused.iter().filter(|(_, refused)| !refused.is_judged);
        let verdict = |(bytes, refused): (&Bytes, &Refused)| {
            let accepted = self.accepted(&refused.first, bytes.resource_type, &bytes.name);
            (bytes.clone(), judge(bytes, refused, accepted.map(AsRef::as_ref)))
        };
        unjudged.map(verdict).collect()
    }

    /// Takes verdicts over; those without an opinion leave all owners to blame.
    pub fn judged(&mut self, verdicts: &Verdicts) {
        for (bytes, blamed) in verdicts {
            if let Some(refused) = self.refused.get_mut(bytes) {
                refused.is_judged = true;
                refused.blamed = blamed.clone().unwrap_or_else(|| refused.blamed.clone());
            }
        }
    }

    /// Whether nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// Whether these bytes are refused at some release.
    #[must_use]
    pub fn is_refused(&self, resource_type: ResourceType, name: &Name, version: &Version) -> bool {
        self.refused
            .keys()
            .any(|bytes| bytes.resource_type == resource_type && bytes.name == *name && bytes.version == *version)
    }

    /// The newest version of a resource that a gateway of the key took and that none of its release refused.
    ///
    /// Failing that, one of the same class and release at another address, unless it is a listener, which has the address
    /// in it.
    #[must_use]
    pub fn accepted(&self, key: &GatewayKey, resource_type: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        let of = |key: &GatewayKey| {
            self.gateways.get(key)?.accepted.get(&resource_type)?.usable(name, |resource| {
                !self.refused.contains_key(&Bytes::new(key, resource_type, &resource.name, &resource.version))
            })
        };
        of(key).or_else(|| {
            let siblings = self.gateways.keys().filter(|other| {
                *other != key
                    && other.gateway == key.gateway
                    && other.envoy == key.envoy
                    && resource_type != ResourceType::Listener
            });
            siblings.filter_map(of).next()
        })
    }

    /// A compiled snapshot with the last accepted version of every resource whose version is refused, and with what those
    /// refer to and the snapshot no longer has.
    ///
    /// A resource without an accepted version, or one of which something that it refers to is not known any more, stays as
    /// compiled: each session withholds it after its own refusal. Secrets and endpoints that only the refused version uses
    /// are left out: nobody may be sent a secret that it does not need.
    ///
    /// # Cost
    /// A lookup per refusal; and per replaced resource a pass over its bytes, and one over the names of the changed types.
    /// If something may have to be left out, a pass over the bytes of all listeners and clusters.
    #[must_use]
    pub fn overlay(&self, key: &GatewayKey, compiled: &Arc<Snapshot>) -> Overlay {
        self.overlay_with(key, compiled, &mut Known::default())
    }

    /// The same, given what is known from the last time: then the cost is that of names, and of the bytes that are new.
    #[must_use]
    pub fn overlay_with(&self, key: &GatewayKey, compiled: &Arc<Snapshot>, known: &mut Known) -> Overlay {
        known.begin();
        let mut changed: BTreeMap<(ResourceType, Name), Arc<Resource>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for bytes in self.refused.keys().filter(|bytes| bytes.concern(key) && bytes.are_in(compiled)) {
            let Some(resource) = self.accepted(key, bytes.resource_type, &bytes.name) else { continue };
            if let Some(companions) = self.companions(key, compiled, (bytes.resource_type, resource), known) {
                changed.extend(companions);
                changed.insert((bytes.resource_type, bytes.name.clone()), resource.clone());
                kept.insert((bytes.resource_type, bytes.name.clone()));
            }
        }
        if kept.is_empty() {
            return Overlay { snapshot: compiled.clone(), kept, stand_ins: BTreeMap::new() };
        }
        let mut types: BTreeMap<ResourceType, Resources> = BTreeMap::new();
        for ((resource_type, name), resource) in &changed {
            let resources =
                types.entry(*resource_type).or_insert_with(|| (*compiled.resources(*resource_type)).clone());
            // What is replaced for a refusal of its own has been accepted too, and wins over a companion's copy of it.
            resources.insert(name.clone(), resource.clone());
        }
        let snapshot = types.into_iter().fold((**compiled).clone(), |snapshot, (resource_type, resources)| {
            snapshot.with_shared(resource_type, Arc::new(resources))
        });
        let unused = unused(compiled, &changed, known);
        let snapshot = without_unused(snapshot, unused, known);
        Overlay { snapshot: Arc::new(snapshot), kept, stand_ins: changed }
    }

    /// What a resource refers to, directly or not, and a snapshot doesn't have; none if some of it is not known any more.
    fn companions(
        &self,
        key: &GatewayKey,
        compiled: &Snapshot,
        (resource_type, resource): (ResourceType, &Arc<Resource>),
        known: &mut Known,
    ) -> Option<BTreeMap<(ResourceType, Name), Arc<Resource>>> {
        let mut companions = BTreeMap::new();
        let mut open = vec![(resource_type, resource.clone())];
        while let Some((resource_type, resource)) = open.pop() {
            for (wanted, name) in known.references(resource_type, &resource).iter() {
                if compiled.get(*wanted, name).is_some() || companions.contains_key(&(*wanted, name.clone())) {
                    continue;
                }
                let found = self.accepted(key, *wanted, name)?;
                companions.insert((*wanted, name.clone()), found.clone());
                open.push((*wanted, found.clone()));
            }
        }
        Some(companions)
    }
}

/// Secrets and endpoints that the compiled versions of replaced resources use, and what stands in for them does not.
fn unused(
    compiled: &Snapshot,
    changed: &BTreeMap<(ResourceType, Name), Arc<Resource>>,
    known: &mut Known,
) -> BTreeSet<(ResourceType, Name)> {
    let (mut used, mut stays) = (BTreeSet::new(), BTreeSet::new());
    for ((of, name), resource) in changed {
        if let Some(replaced) = compiled.get(*of, name) {
            used.extend(known.references(*of, replaced).iter().cloned());
        }
        stays.extend(known.references(*of, resource).iter().cloned());
    }
    let may_go = |(of, _): &&(ResourceType, Name)| matches!(of, ResourceType::Secret | ResourceType::Endpoint);
    used.difference(&stays).filter(may_go).cloned().collect()
}

/// A snapshot without those of some resources that no listener and no cluster of it uses.
fn without_unused(snapshot: Snapshot, mut unused: BTreeSet<(ResourceType, Name)>, known: &mut Known) -> Snapshot {
    for user in [ResourceType::Listener, ResourceType::Cluster] {
        for resource in snapshot.resources(user).values() {
            if unused.is_empty() {
                return snapshot;
            }
            for used in known.references(user, resource).iter() {
                unused.remove(used);
            }
        }
    }
    let types: BTreeSet<ResourceType> = unused.iter().map(|(of, _)| *of).collect();
    types.into_iter().fold(snapshot, |snapshot, of| {
        let mut resources = (*snapshot.resources(of)).clone();
        resources.retain(|name, _| !unused.contains(&(of, name.clone())));
        snapshot.with_shared(of, Arc::new(resources))
    })
}

impl Bytes {
    /// Those of a resource that a gateway of a key was sent.
    #[must_use]
    pub fn new(key: &GatewayKey, resource_type: ResourceType, name: &Name, version: &Version) -> Self {
        let class = (resource_type == ResourceType::Listener).then(|| key.gateway.clone());
        Self { envoy: key.envoy, class, resource_type, name: name.clone(), version: version.clone() }
    }

    /// Whether their refusal means anything to the gateways of a key.
    #[must_use]
    pub fn concern(&self, key: &GatewayKey) -> bool {
        self.envoy == key.envoy && self.class.as_ref().is_none_or(|class| *class == key.gateway)
    }

    /// Whether a snapshot contains them.
    #[must_use]
    pub fn are_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.get(self.resource_type, &self.name).is_some_and(|resource| resource.version == self.version)
    }
}

impl Accepted {
    fn take_all(&mut self, resources: Arc<Resources>) {
        if !Arc::ptr_eq(&self.all, &resources) {
            self.all_before = std::mem::replace(&mut self.all, resources);
        }
    }

    fn take(&mut self, resource: &Arc<Resource>) {
        match self.single.get_mut(&resource.name) {
            Some(single) if single.last.version == resource.version => {}
            Some(single) => single.before = Some(std::mem::replace(&mut single.last, resource.clone())),
            None => {
                self.single.insert(resource.name.clone(), Single { last: resource.clone(), before: None });
            }
        }
    }

    /// The newest version of a resource for which a condition holds.
    fn usable(&self, name: &str, condition: impl Fn(&Resource) -> bool) -> Option<&Arc<Resource>> {
        let single = self.single.get(name).into_iter().flat_map(|single| [Some(&single.last), single.before.as_ref()]);
        let all = [&self.all, &self.all_before].into_iter().map(|resources| resources.get(name));
        single.chain(all).flatten().find(|resource| condition(resource))
    }
}

#[cfg(test)]
mod tests;
