//! One type on one stream: what the client asked for, what it holds, what it refused, and what is on its way.
//!
//! A lane decides *what* to send; [`super::ordering`] decides *when*. At most one response is in flight: as long as its
//! answer is out, changes only mark the lane, so any number of snapshots in between collapse into the newest.
//!
//! A resource counts as held when it was acknowledged, never before. A refused response of several resources tells
//! nothing about any of them (Envoy takes the good ones of some types and none of others), so each becomes uncertain
//! and is sent again in halves, until the bad ones stand alone; those are withheld until their content changes.
//!
//! # Rule
//! `reliability.md` F2 to F4 and section 2.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::observation::{Acknowledgement, Blame, Refusal, RefusedResource, truncated};
use super::ordering::Standing;
use super::session::{DeltaRequest, DeltaResponse};
use super::subscription::{Interest, LimitExceeded, Limits};
use crate::model::Name;
use crate::snapshot::diff::{ClientView, Holding, Holdings, diff, holds};
use crate::snapshot::{Resource, ResourceType, Resources, Version};

/// Bytes of a client's error text that are kept.
const MESSAGE_BYTES: usize = 4096;

/// Bytes that one resource costs in a response beside its body and texts: field tags, lengths, the `Any` and its URL.
const RESOURCE_OVERHEAD: usize = 128;

/// One type on one stream.
#[derive(Debug)]
pub(super) struct Lane {
    resource_type: ResourceType,
    opened: bool,
    /// Whether the client asked for everything, states to hold nothing and had no answer yet. Envoy opens no listener
    /// before its first answers, so that it gets one even if there is nothing.
    awaited: bool,
    interest: Interest,
    held: Holdings,
    /// What must be sent whatever the version: asked for again, or endpoints of a cluster that was sent.
    again: BTreeSet<Name>,
    /// The endpoints of clusters that were sent, as they were then. The client waits for them even if they are gone by
    /// the time that they can be sent.
    pinned: BTreeMap<Name, Arc<Resource>>,
    refused: BTreeMap<Name, Version>,
    /// For what is uncertain: what was tried, and what was held before.
    attempts: BTreeMap<Name, Attempt>,
    /// Missing names that the client was told about.
    told: BTreeSet<Name>,
    /// Parts of refused responses that must travel apart.
    batches: VecDeque<Vec<Name>>,
    in_flight: Option<InFlight>,
    resources: Option<Arc<Resources>>,
    version: Version,
    /// What the difference came to, unless `stale`.
    additions: VecDeque<Arc<Resource>>,
    removals: Vec<Name>,
    missing: Vec<Name>,
    stale: bool,
    expecting: bool,
    additions_since: Option<Duration>,
    removals_since: Option<Duration>,
    /// An acknowledgement that is to be reported.
    answered: Option<Acknowledgement>,
    /// Version and number of refused resources that were reported last.
    reported: Option<(Version, usize)>,
}

/// What was tried with a resource whose holding is uncertain.
#[derive(Debug)]
struct Attempt {
    version: Version,
    before: Option<Holding>,
}

/// A response that awaits its answer.
#[derive(Debug)]
struct InFlight {
    nonce: Name,
    sent: Duration,
    version: Version,
    resources: Vec<Arc<Resource>>,
    removed: Vec<Name>,
    opens: bool,
    /// Whether it is a part of a response that was refused.
    part: bool,
}

/// What a client's answer came to.
#[derive(Debug)]
pub(super) enum Answer {
    /// The nonce isn't that of the response in flight.
    Stale,
    /// Acknowledged; the report follows when the lane knows what is left to do.
    Acknowledged,
    /// Refused; nothing to report if it is a part of a response that was reported already.
    Refused(Option<Refusal>),
}

/// What a lane may do now, and how.
#[derive(Clone, Debug)]
pub(super) struct Permission {
    pub(super) add: bool,
    pub(super) remove: bool,
    /// Whether the wait for removals begins anew.
    pub(super) clung_to: bool,
    /// The nonce to use.
    pub(super) nonce: Name,
    /// Bytes that a response should stay below.
    pub(super) response_bytes: usize,
}

impl Lane {
    pub(super) fn new(resource_type: ResourceType) -> Self {
        Self {
            resource_type,
            opened: false,
            awaited: false,
            interest: Interest::default(),
            held: Holdings::new(),
            again: BTreeSet::new(),
            pinned: BTreeMap::new(),
            refused: BTreeMap::new(),
            attempts: BTreeMap::new(),
            told: BTreeSet::new(),
            batches: VecDeque::new(),
            in_flight: None,
            resources: None,
            version: Version::new(""),
            additions: VecDeque::new(),
            removals: Vec::new(),
            missing: Vec::new(),
            stale: false,
            expecting: false,
            additions_since: None,
            removals_since: None,
            answered: None,
            reported: None,
        }
    }

    /// Takes in what a request says about subscriptions.
    pub(super) fn subscribe(&mut self, request: &DeltaRequest, limits: &Limits) -> Result<(), LimitExceeded> {
        let first = !std::mem::replace(&mut self.opened, true);
        let subscribe: Vec<Name> = request.subscribe.iter().map(|name| self.shared(name)).collect();
        let change = self.interest.apply_delta(self.resource_type, first, &subscribe, &request.unsubscribe, limits)?;
        if first {
            self.awaited = self.interest.everything() && request.initial_versions.is_empty();
            self.take_initial_versions(request, limits)?;
        } else {
            self.again.extend(change.asked.iter().cloned());
        }
        for name in change.asked.iter().chain(&change.released) {
            self.told.remove(name);
        }
        self.again.extend(change.released);
        if change.narrowed {
            let interest = &self.interest;
            self.held.retain(|name, _| interest.wants(name));
            self.again.retain(|name| interest.wants(name));
            self.pinned.retain(|name, _| interest.wants(name));
            self.refused.retain(|name, _| interest.wants(name));
            self.attempts.retain(|name, _| interest.wants(name));
            self.told.retain(|name| interest.wants(name));
        }
        self.stale = true;
        Ok(())
    }

    /// What a client states to hold when it connects again. Versions are compared, never trusted to exist.
    fn take_initial_versions(&mut self, request: &DeltaRequest, limits: &Limits) -> Result<(), LimitExceeded> {
        let type_url = self.resource_type.type_url();
        if request.initial_versions.len() > limits.versions {
            return Err(LimitExceeded::Versions { type_url, limit: limits.versions });
        }
        for (name, version) in &request.initial_versions {
            if name.len() > limits.name_bytes {
                let (length, limit) = (name.len(), limits.name_bytes);
                return Err(LimitExceeded::NameLength { type_url, length, limit });
            }
            if !self.interest.wants(name) {
                continue;
            }
            let known = self.resources.as_ref().and_then(|resources| resources.get(name));
            let holding = match known {
                Some(resource) if resource.version.as_str() == version => Holding::Version(resource.version.clone()),
                // A text of that length is no version that anybody chose.
                _ if version.len() > limits.name_bytes => Holding::Uncertain,
                _ => Holding::Version(Version::new(version)),
            };
            self.held.insert(self.shared(name), holding);
        }
        Ok(())
    }

    /// The snapshot's own copy of a name, so that a thousand clients share its bytes.
    fn shared(&self, name: &Name) -> Name {
        let known = self.resources.as_ref().and_then(|resources| resources.get(name));
        known.map_or_else(|| name.clone(), |resource| resource.name.clone())
    }

    /// Takes in the resources of a new snapshot; `version` is asked for only if they differ.
    pub(super) fn update(&mut self, resources: Arc<Resources>, version: impl FnOnce() -> Version) {
        if self.resources.as_ref().is_some_and(|current| Arc::ptr_eq(current, &resources) || *current == resources) {
            return;
        }
        self.version = version();
        self.resources = Some(resources);
        self.stale = true;
    }

    /// Makes sure that the client gets an answer on a resource that it waits for, once it asks for it or if it did.
    pub(super) fn require(&mut self, name: &str) {
        let known = self.resources.as_ref().and_then(|resources| resources.get(name));
        if let Some(resource) = known {
            self.again.insert(resource.name.clone());
            self.pinned.insert(resource.name.clone(), resource.clone());
            self.stale = true;
        } else if self.told.remove(name) {
            // That it is missing is an answer too.
            self.stale = true;
        }
    }

    /// Finds out what there is to send, if that may have changed and nothing is in flight.
    pub(super) fn refresh(&mut self) {
        let Some(resources) = &self.resources else { return };
        if !self.stale || self.in_flight.is_some() {
            return;
        }
        self.stale = false;
        self.expecting =
            !self.interest.everything() && resources.keys().any(|name| !self.interest.names().contains(name));
        if !self.opened {
            return;
        }
        let refused_now = |name: &Name, version: &Version| resources.get(name).is_some_and(|r| r.version == *version);
        self.refused.retain(|name, version| refused_now(name, version));
        let client = ClientView {
            everything: self.interest.everything(),
            names: self.interest.names(),
            held: &self.held,
            again: &self.again,
            refused: &self.refused,
        };
        let difference = diff(resources, &client);
        // What exists again may go missing again; what was given up is nobody's business any more.
        self.told.retain(|name| !resources.contains_key(name));
        self.missing = difference.missing.into_iter().filter(|name| !self.told.contains(name)).collect();
        self.again.retain(|name| resources.contains_key(name));
        for batch in &mut self.batches {
            batch.retain(|name| resources.contains_key(name) && self.interest.wants(name));
        }
        self.batches.retain(|batch| !batch.is_empty());
        let interest = &self.interest;
        self.pinned.retain(|name, _| interest.wants(name) || resources.contains_key(name));
        let pinned = &self.pinned;
        let is_late = |name: &Name| pinned.contains_key(name) && !resources.contains_key(name);
        let apart: BTreeSet<&Name> = self.batches.iter().flatten().collect();
        self.additions = difference.changed.into_iter().filter(|r| !apart.contains(&r.name)).collect();
        self.additions.extend(pinned.values().filter(|resource| is_late(&resource.name)).cloned());
        self.removals = difference.removed;
        self.removals.retain(|name| !is_late(name));
        self.missing.retain(|name| !is_late(name));
    }

    /// How the lane stands, for the decision what may be sent.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            in_flight: self.in_flight.as_ref().map(|flight| flight.sent),
            opens: self.in_flight.as_ref().is_some_and(|flight| flight.opens),
            additions: !self.additions.is_empty() || !self.batches.is_empty(),
            additions_since: self.additions_since,
            removals: !self.removals.is_empty(),
            removals_since: self.removals_since,
            clings: self.refused.keys().any(|name| self.held.contains_key(name)),
            unopened: !self.opened,
            expecting: self.expecting,
        }
    }

    /// The next response, if there is something to send that may be sent.
    pub(super) fn send(&mut self, now: Duration, permission: Permission) -> Option<DeltaResponse> {
        if self.in_flight.is_some() || !self.opened || self.resources.is_none() {
            return None;
        }
        let mut room = permission.response_bytes;
        let clung_to = permission.clung_to;
        let removed = if permission.remove && self.removals_have_their_turn(&permission) {
            take_names(&mut self.removals, &mut room)
        } else {
            Vec::new()
        };
        let part = !self.batches.is_empty();
        let together = self.resource_type == ResourceType::Listener && !part;
        let resources = if permission.add && (removed.is_empty() || together) {
            self.take_additions(&mut room)
        } else {
            Vec::new()
        };
        let missing = take_names(&mut self.missing, &mut room);
        let is_something = !resources.is_empty() || !removed.is_empty() || !missing.is_empty();
        let is_nothing_left = self.additions.is_empty() && self.batches.is_empty() && self.removals.is_empty();
        let response = (is_something || (self.awaited && is_nothing_left)).then(|| {
            self.awaited = false;
            self.told.extend(missing.iter().cloned());
            // What appears while a first answer without content is on its way is needed by later types too.
            let opens = !is_something || self.opens(&resources);
            for resource in &resources {
                self.again.remove(&resource.name);
                self.pinned.remove(&resource.name);
            }
            self.in_flight = Some(InFlight {
                nonce: permission.nonce.clone(),
                sent: now,
                version: self.version.clone(),
                resources: resources.clone(),
                removed: removed.clone(),
                opens,
                part,
            });
            DeltaResponse {
                resource_type: self.resource_type,
                nonce: permission.nonce,
                version: self.version.clone(),
                resources,
                removed: removed.into_iter().chain(missing).collect(),
            }
        });
        let standing = self.standing();
        let waits = |pending: bool, since: Option<Duration>| pending.then(|| since.unwrap_or(now));
        self.additions_since = waits(standing.additions && self.in_flight.is_none(), self.additions_since);
        self.removals_since = waits(standing.removals, self.removals_since.filter(|_| !clung_to));
        response
    }

    /// Whether removals are next among what the lane itself has to send.
    fn removals_have_their_turn(&self, permission: &Permission) -> bool {
        match (self.resource_type, self.batches.is_empty()) {
            // Together with the additions; but apart from parts of a refused response, and before them.
            (ResourceType::Listener, true) => self.additions.is_empty() || permission.add,
            (ResourceType::Listener, false) => true,
            (_, no_batches) => self.additions.is_empty() && no_batches,
        }
    }

    /// Whether later types may need what is sent: for endpoints only those of new clusters, for all others everything.
    fn opens(&self, resources: &[Arc<Resource>]) -> bool {
        match self.resource_type {
            ResourceType::Endpoint => resources
                .iter()
                .any(|resource| !self.held.contains_key(&resource.name) || self.again.contains(&resource.name)),
            _ => !resources.is_empty(),
        }
    }

    /// The next additions: a part of a refused response, else what fits.
    fn take_additions(&mut self, room: &mut usize) -> Vec<Arc<Resource>> {
        let limit = match self.resource_type {
            // A refusal of these names nobody, and takes down all that travel together.
            ResourceType::Secret | ResourceType::Extension | ResourceType::Route => 1,
            ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Listener => usize::MAX,
        };
        let Some(batch) = self.batches.pop_front() else { return take_resources(&mut self.additions, room, limit) };
        let resources = self.resources.clone().unwrap_or_default();
        let mut batch: VecDeque<Arc<Resource>> = batch.iter().filter_map(|name| resources.get(name)).cloned().collect();
        let taken = take_resources(&mut batch, room, limit);
        if !batch.is_empty() {
            self.batches.push_front(batch.iter().map(|resource| resource.name.clone()).collect());
        }
        taken
    }

    /// Takes in the answer to a response.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<&str>, now: Duration) -> Answer {
        let Some(flight) = self.in_flight.take_if(|flight| flight.nonce == *nonce) else { return Answer::Stale };
        let Some(message) = error else {
            self.acknowledge(flight, now);
            return Answer::Acknowledged;
        };
        self.stale = true;
        let several = flight.resources.len() + usize::from(!flight.removed.is_empty()) > 1;
        let refusal = (!several || !flight.part).then(|| Refusal {
            resource_type: self.resource_type,
            nonce: flight.nonce.clone(),
            resources: flight.resources.iter().map(|resource| refused_resource(resource)).collect(),
            blame: if several { Blame::Suspected } else { Blame::Exact },
            message: truncated(message, MESSAGE_BYTES),
        });
        match (flight.resources.as_slice(), several) {
            // There is nothing to try again with a removal, and nobody to blame.
            ([], _) => self.forget(&flight.removed),
            ([resource], false) => self.withhold(resource),
            (resources, _) => self.split(resources),
        }
        Answer::Refused(refusal)
    }

    fn acknowledge(&mut self, flight: InFlight, now: Duration) {
        for resource in &flight.resources {
            self.attempts.remove(&resource.name);
            self.refused.remove(&resource.name);
            // What is gone meanwhile must be removed now.
            self.stale |= self.resources.as_ref().is_some_and(|resources| !resources.contains_key(&resource.name));
            // Given up while it was on its way: the client has dropped it.
            if self.interest.wants(&resource.name) {
                self.held.insert(resource.name.clone(), Holding::Version(resource.version.clone()));
            }
        }
        self.forget(&flight.removed);
        self.answered = Some(Acknowledgement {
            resource_type: self.resource_type,
            version: flight.version,
            resources: flight.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect(),
            removed: flight.removed,
            outstanding: 0,
            after: Some(now.saturating_sub(flight.sent)),
        });
    }

    fn forget(&mut self, removed: &[Name]) {
        for name in removed {
            self.held.remove(name);
            self.attempts.remove(name);
            // It knows that the name is gone, so it needn't be told that it is missing.
            if self.interest.names().contains(name) {
                self.told.insert(name.clone());
            }
        }
    }

    /// A resource that was refused alone: the client holds what it held before.
    fn withhold(&mut self, resource: &Resource) {
        if !self.interest.wants(&resource.name) {
            return;
        }
        match self.attempts.remove(&resource.name) {
            Some(Attempt { version, before: Some(holding) }) if version == resource.version => {
                self.held.insert(resource.name.clone(), holding);
            }
            Some(Attempt { version, before: None }) if version == resource.version => {
                self.held.remove(&resource.name);
            }
            // Another version may have been taken before; or there was no doubt at all.
            Some(_) | None => {}
        }
        self.refused.insert(resource.name.clone(), resource.version.clone());
    }

    /// Resources that were refused together: all are uncertain, and travel in halves from now on.
    fn split(&mut self, resources: &[Arc<Resource>]) {
        let wanted: Vec<&Arc<Resource>> = resources.iter().filter(|r| self.interest.wants(&r.name)).collect();
        for resource in &wanted {
            let held = self.held.insert(resource.name.clone(), Holding::Uncertain);
            let version = resource.version.clone();
            self.attempts
                .entry(resource.name.clone())
                .and_modify(|attempt| {
                    if attempt.version != version {
                        *attempt = Attempt { version: version.clone(), before: Some(Holding::Uncertain) };
                    }
                })
                .or_insert(Attempt { version, before: held });
        }
        let (first, second) = wanted.split_at(wanted.len().div_ceil(2));
        for half in [second, first].into_iter().filter(|half| !half.is_empty()) {
            self.batches.push_front(half.iter().map(|resource| resource.name.clone()).collect());
        }
    }

    /// What is to be reported of what the client holds now.
    pub(super) fn report(&mut self) -> Option<Acknowledgement> {
        if let Some(answered) = self.answered.take() {
            let outstanding = self.outstanding();
            self.reported = Some((answered.version.clone(), outstanding));
            return Some(Acknowledgement { outstanding, ..answered });
        }
        let resting = self.opened && self.resources.is_some() && !self.stale && self.in_flight.is_none();
        let state = (self.version.clone(), self.outstanding());
        // Who waits, or asked for nothing, holds nothing new.
        if !resting || state.1 > self.refused.len() || self.reported.as_ref() == Some(&state) {
            return None;
        }
        let first = self.reported.is_none();
        self.reported = Some(state.clone());
        Some(Acknowledgement {
            resource_type: self.resource_type,
            version: state.0,
            resources: if first { self.stated() } else { Vec::new() },
            removed: Vec::new(),
            outstanding: state.1,
            after: None,
        })
    }

    /// What the client holds as the snapshot has it.
    fn stated(&self) -> Vec<(Name, Version)> {
        let current = self.resources.as_ref().map(|resources| resources.values()).into_iter().flatten();
        let held = current.filter(|resource| holds(&self.held, resource));
        held.map(|resource| (resource.name.clone(), resource.version.clone())).collect()
    }

    fn outstanding(&self) -> usize {
        let parts: usize = self.batches.iter().map(Vec::len).sum();
        self.additions.len() + parts + self.removals.len() + self.refused.len()
    }
}

fn refused_resource(resource: &Resource) -> RefusedResource {
    let Resource { name, version, owners, .. } = resource;
    RefusedResource { name: name.clone(), version: version.clone(), owners: owners.clone() }
}

/// Takes resources from the front while they fit; one that fits nowhere travels alone.
fn take_resources(queue: &mut VecDeque<Arc<Resource>>, room: &mut usize, limit: usize) -> Vec<Arc<Resource>> {
    let mut taken = Vec::new();
    while let Some(resource) = queue.front() {
        let texts = resource.name.len() + resource.version.as_str().len();
        let size = resource.body.len() + texts + RESOURCE_OVERHEAD;
        if taken.len() == limit || (size > *room && !taken.is_empty()) {
            break;
        }
        *room = room.saturating_sub(size);
        taken.extend(queue.pop_front());
    }
    taken
}

/// Takes names from the front while they fit; at least one, so that there is progress.
fn take_names(names: &mut Vec<Name>, room: &mut usize) -> Vec<Name> {
    let mut count = 0;
    for name in names.iter() {
        let size = name.len() + 8;
        if size > *room && count > 0 {
            break;
        }
        *room = room.saturating_sub(size);
        count += 1;
    }
    let rest = names.split_off(count);
    std::mem::replace(names, rest)
}
