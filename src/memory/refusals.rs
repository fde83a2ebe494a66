//! What gateways refused, and what they took before that.
//!
//! A pure table with one purpose: a resource that Envoy refuses keeps its last accepted version on all gateways, also on
//! those that connect later, and everything else proceeds. [`Refusals::overlay`] puts the accepted version back into a
//! compiled snapshot, together with what it refers to and the new snapshot no longer has.
//!
//! A refusal is about bytes: a name and a version, at one release of Envoy. It holds for every gateway of that release, since
//! all of them understand the same; an older Envoy that refuses holds nobody else back. It is dropped as soon as no
//! compiled snapshot contains those bytes any more.
//!
//! # Cost
//! Accepted resources are shared with the snapshots they came in; at most two versions of each are kept.
//!
//! # Rule
//! `reliability.md` F2 to F5, cases 6 to 11; R132; R136.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{EnvoyRelease, GatewayId, Name, ObjectRef};
use crate::publish::GatewayKey;
use crate::snapshot::{Resource, ResourceType, Resources, Snapshot, Version};

pub mod blame;
pub mod references;

/// Most nodes of a class that are remembered by id; beyond, a count may be too small.
const NODES: usize = 1024;

/// What was refused: bytes, at one release of Envoy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    /// The release that refused them.
    pub envoy: EnvoyRelease,
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
}

/// Everything that was refused, and what was accepted last.
#[derive(Debug, Default)]
pub struct Refusals {
    refused: BTreeMap<Bytes, Refused>,
    gateways: BTreeMap<GatewayKey, Gateways>,
}

/// The gateways of one key.
#[derive(Debug, Default)]
struct Gateways {
    /// What is published, and what was before that.
    published: Option<Published>,
    before: Option<Published>,
    accepted: BTreeMap<ResourceType, Accepted>,
}

#[derive(Debug)]
struct Published {
    snapshot: Arc<Snapshot>,
    versions: BTreeMap<ResourceType, Version>,
}

/// What the gateways of one key accepted of one type.
///
/// A client that holds a type in full may not have asked for each resource of it, so that one that another client refuses
/// may stand here; therefore the version before is kept as well.
#[derive(Debug, Default)]
struct Accepted {
    /// Resources that were acknowledged one by one since all were.
    single: BTreeMap<Name, Single>,
    /// All resources when they were last acknowledged in full.
    all: Arc<Resources>,
    /// The same, before that.
    all_before: Arc<Resources>,
}

#[derive(Debug)]
struct Single {
    last: Arc<Resource>,
    before: Option<Arc<Resource>>,
}

/// A snapshot with accepted versions in place of refused ones.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The snapshot to publish; the very same if nothing had to be replaced.
    pub snapshot: Arc<Snapshot>,
    /// What was replaced.
    pub kept: BTreeSet<(ResourceType, Name)>,
}

impl Refusals {
    /// A table without a refusal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        });
        let nodes = refused.nodes.entry(key.gateway.clone()).or_default();
        nodes.len() < NODES && nodes.insert(node.clone())
    }

    /// Notes what a client of a key holds: these resources, and if nothing is outstanding all of that version of the type.
    ///
    /// # Cost
    /// In proportion to the named resources; none if the type is held in full.
    pub fn accept(
        &mut self,
        key: &GatewayKey,
        resource_type: ResourceType,
        version: &Version,
        resources: &[(Name, Version)],
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
            let mut snapshots = keys.keys().filter(|key| key.envoy == bytes.envoy).filter_map(&compiled);
            snapshots.any(|snapshot| bytes.are_in(snapshot))
        });
        before != self.refused.len()
    }

    /// Everything that is refused now.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Refused)> {
        self.refused.iter()
    }

    /// Lets somebody say who is to blame for what was not judged yet, given the last accepted version of the resource; what
    /// that was.
    pub fn judge(
        &mut self,
        mut judge: impl FnMut(&Bytes, &Refused, Option<&Resource>) -> Option<Arc<[ObjectRef]>>,
    ) -> BTreeSet<Bytes> {
        let unjudged = self.refused.iter().filter(|(_, refused)| !refused.is_judged);
        let verdicts: Vec<(Bytes, Option<Arc<[ObjectRef]>>)> = unjudged
            .map(|(bytes, refused)| {
                let accepted = self.accepted(&refused.first, bytes.resource_type, &bytes.name);
                (bytes.clone(), judge(bytes, refused, accepted.map(AsRef::as_ref)))
            })
            .collect();
        for (bytes, blamed) in &verdicts {
            if let Some(refused) = self.refused.get_mut(bytes) {
                refused.is_judged = true;
                refused.blamed = blamed.clone().unwrap_or_else(|| refused.blamed.clone());
            }
        }
        verdicts.into_iter().map(|(bytes, _)| bytes).collect()
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
                let Resource { name, version, .. } = resource;
                let bytes = Bytes { envoy: key.envoy, resource_type, name: name.clone(), version: version.clone() };
                !self.refused.contains_key(&bytes)
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
    /// compiled: each session withholds it after its own refusal.
    ///
    /// # Cost
    /// A lookup per refusal; and per replaced resource a pass over its bytes, and one over the names of the changed types.
    #[must_use]
    pub fn overlay(&self, key: &GatewayKey, compiled: &Arc<Snapshot>) -> Overlay {
        let mut changed: BTreeMap<(ResourceType, Name), Arc<Resource>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for bytes in self.refused.keys().filter(|bytes| bytes.envoy == key.envoy && bytes.are_in(compiled)) {
            let Some(resource) = self.accepted(key, bytes.resource_type, &bytes.name) else { continue };
            if let Some(companions) = self.companions(key, compiled, bytes.resource_type, resource) {
                changed.extend(companions);
                changed.insert((bytes.resource_type, bytes.name.clone()), resource.clone());
                kept.insert((bytes.resource_type, bytes.name.clone()));
            }
        }
        if kept.is_empty() {
            return Overlay { snapshot: compiled.clone(), kept };
        }
        let mut types: BTreeMap<ResourceType, Resources> = BTreeMap::new();
        for ((resource_type, name), resource) in changed {
            let resources = types.entry(resource_type).or_insert_with(|| (*compiled.resources(resource_type)).clone());
            // What is replaced for a refusal of its own has been accepted too, and wins over a companion's copy of it.
            resources.insert(name, resource);
        }
        let snapshot = types.into_iter().fold((**compiled).clone(), |snapshot, (resource_type, resources)| {
            snapshot.with_shared(resource_type, Arc::new(resources))
        });
        Overlay { snapshot: Arc::new(snapshot), kept }
    }

    /// What a resource refers to, directly or not, and a snapshot doesn't have; none if some of it is not known any more.
    fn companions(
        &self,
        key: &GatewayKey,
        compiled: &Snapshot,
        resource_type: ResourceType,
        resource: &Arc<Resource>,
    ) -> Option<BTreeMap<(ResourceType, Name), Arc<Resource>>> {
        let mut companions = BTreeMap::new();
        let mut open = vec![(resource_type, resource.clone())];
        while let Some((resource_type, resource)) = open.pop() {
            for (wanted, name) in references::references(resource_type, &resource.body) {
                if compiled.get(wanted, &name).is_some() || companions.contains_key(&(wanted, name.clone())) {
                    continue;
                }
                let found = self.accepted(key, wanted, &name)?;
                companions.insert((wanted, name), found.clone());
                open.push((wanted, found.clone()));
            }
        }
        Some(companions)
    }
}

impl Bytes {
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
