//! One type on one stream: what the client asked for, what it holds, what it refused, and what is on its way.
//!
//! A lane decides *what* to send; [`super::ordering`] decides *when*. At most one response is in flight: as long as its
//! answer is out, changes only mark the lane, so any number of snapshots in between collapse into the newest.
//!
//! A resource counts as held when it was acknowledged, never before. A refused response of several resources tells
//! nothing about any of them (Envoy takes the good ones of some types and none of others), so each becomes uncertain
//! and is sent again in halves, until the bad ones stand alone; those are withheld until their content changes.
//!
//! A lane speaks one variant of the protocol. What follows here is common to both, or delta; [`state`] is how the other
//! differs, and [`answers`] is what a client's answers say.
//!
//! # Rule
//! `reliability.md` F2 to F4 and section 2.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::commons::Commons;
use super::message::{DeltaRequest, Response, Variant};
use super::observation::Acknowledgement;
use super::ordering::Standing;
use super::subscription::{Interest, InterestChange, LimitExceeded, Limits};
use crate::model::Name;
use crate::snapshot::diff::{Holding, Objections, refuses};
use crate::snapshot::{Resource, ResourceType, Resources, Version};
use held::Held;

pub(super) use answers::Answer;
pub(super) use state::Turn;

mod answers;
mod blame;
mod firsts;
mod held;
mod inspect;
mod state;

/// Bytes that one resource costs in a response beside its body and texts: field tags, lengths, the `Any` and its URL.
const RESOURCE_OVERHEAD: usize = 128;

/// One type on one stream.
#[derive(Debug)]
pub(super) struct Lane {
    resource_type: ResourceType,
    variant: Variant,
    opened: bool,
    /// Whether the client asked for everything, isn't known to hold anything and had no answer yet. Envoy opens no listener
    /// before its first answers, so that it gets one even if there is nothing.
    awaited: bool,
    interest: Interest,
    held: Held,
    /// What the client asked for by name and what doesn't exist.
    absent: BTreeSet<Name>,
    /// What must be sent whatever the version: asked for again, or endpoints of a cluster that was sent.
    again: BTreeSet<Name>,
    /// The endpoints of clusters that were sent, as they were then. The client waits for them even if they are gone by
    /// the time that they can be sent.
    pinned: BTreeMap<Name, Arc<Resource>>,
    refused: Objections,
    /// Names that were refused for what they were, and of which nothing was taken since.
    suspects: BTreeSet<Name>,
    /// For what is uncertain: what was tried, and what was held before.
    attempts: BTreeMap<Name, Attempt>,
    /// Missing names that the client was told about.
    told: BTreeSet<Name>,
    /// Parts of refused responses that must travel apart.
    batches: VecDeque<Vec<Name>>,
    in_flight: Option<Box<InFlight>>,
    /// The nonce of the last response.
    last_nonce: Option<Name>,
    /// The version that a state-of-the-world client stated first, until there is a snapshot to compare it with.
    claimed: Option<Version>,
    /// What the client took last, where responses carry everything that it shall hold.
    accepted: Arc<Resources>,
    /// Whether there was a snapshot; until then there are no resources.
    is_served: bool,
    resources: Arc<Resources>,
    version: Version,
    /// The number of the snapshot that these are of.
    serial: u64,
    /// That of the newest snapshot of which the client is known to have taken everything.
    whole: u64,
    /// First endpoints that wait, with the number of the snapshot in which they came.
    firsts: BTreeMap<Name, u64>,
    firsts_since: Option<Duration>,
    /// What the difference came to, unless `stale`.
    additions: VecDeque<Arc<Resource>>,
    removals: Vec<Name>,
    missing: Vec<Name>,
    stale: bool,
    /// Whether a change came while a response was in flight, and its additions weren't looked for yet.
    unseen: bool,
    /// Whether additions wait behind the response in flight.
    behind: bool,
    expecting: bool,
    additions_since: Option<Duration>,
    removals_since: Option<Duration>,
    /// An acknowledgement that is to be reported.
    answered: Option<Box<Acknowledgement>>,
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
    /// What the client isn't known to hold.
    resources: Vec<Arc<Resource>>,
    removed: Vec<Name>,
    /// Everything that the client shall hold, where responses carry that.
    state: Option<Arc<Resources>>,
    opens: bool,
    /// Whether it is a part of a response that was refused.
    part: bool,
    /// The number of the snapshot of which the client has everything with it; none if more follows.
    completes: Option<u64>,
}

/// What a lane may do now, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permission {
    pub(super) add: bool,
    pub(super) remove: bool,
    /// Whether the wait for removals begins anew.
    pub(super) clung_to: bool,
    /// The number of the newest snapshot of which everything is in force that may protect endpoints.
    pub(super) in_force: u64,
    /// The nonce to use, as a number.
    pub(super) nonce: u64,
    /// Bytes that a response should stay below.
    pub(super) response_bytes: usize,
}

impl Lane {
    pub(super) fn new(resource_type: ResourceType, variant: Variant) -> Self {
        Self {
            resource_type,
            variant,
            opened: false,
            awaited: false,
            interest: Interest::default(),
            held: Held::default(),
            absent: BTreeSet::new(),
            again: BTreeSet::new(),
            pinned: BTreeMap::new(),
            refused: Objections::new(),
            suspects: BTreeSet::new(),
            attempts: BTreeMap::new(),
            told: BTreeSet::new(),
            batches: VecDeque::new(),
            in_flight: None,
            last_nonce: None,
            claimed: None,
            accepted: Arc::default(),
            is_served: false,
            resources: Arc::default(),
            version: Version::new(""),
            serial: 0,
            whole: 0,
            firsts: BTreeMap::new(),
            firsts_since: None,
            additions: VecDeque::new(),
            removals: Vec::new(),
            missing: Vec::new(),
            stale: false,
            unseen: false,
            behind: false,
            expecting: false,
            additions_since: None,
            removals_since: None,
            answered: None,
            reported: None,
        }
    }

    /// Takes in what a request says about subscriptions.
    pub(super) fn subscribe(
        &mut self,
        request: &DeltaRequest,
        limits: &Limits,
        commons: &Commons,
    ) -> Result<(), LimitExceeded> {
        let first = !std::mem::replace(&mut self.opened, true);
        let names = &request.recognised.names;
        match names {
            Some(names) if first && request.unsubscribe.is_empty() => {
                self.interest.adopt(self.resource_type, names, limits)?;
            }
            None if !first && request.subscribe.is_empty() && request.unsubscribe.is_empty() => return Ok(()),
            _ => {
                let listed = names.iter().flat_map(|names| names.names());
                let subscribe: Vec<Name> = listed.chain(&request.subscribe).map(|name| self.shared(name)).collect();
                let (of, was_everything) = (self.resource_type, self.interest.everything());
                let unsubscribe = &request.unsubscribe;
                let change = self.interest.apply_delta(of, first, &subscribe, unsubscribe, limits, commons)?;
                if !first {
                    self.ask_for(&change, was_everything);
                    for name in change.asked.iter().chain(&change.released) {
                        self.told.remove(name);
                    }
                    self.again.extend(change.asked);
                }
                self.again.extend(change.released);
            }
        }
        if first {
            let is_new = request.initial_versions.is_empty() && request.recognised.held.is_none();
            self.awaited = self.interest.everything() && is_new;
            self.take_initial_versions(request, limits)?;
            self.look_for_absent(commons);
        }
        self.stale = true;
        self.unseen = true;
        Ok(())
    }

    /// Follows a change of what the client asks for: it holds nothing of what it didn't ask for before, and has dropped
    /// what it no longer asks for.
    fn ask_for(&mut self, change: &InterestChange, was_everything: bool) {
        let (interest, resources) = (&self.interest, &self.resources);
        self.absent.extend(change.added.iter().filter(|name| !resources.contains_key(*name)).cloned());
        if change.widened {
            let is_new = |name: &&Name| !interest.names().contains(*name) || change.added.binary_search(name).is_ok();
            resources.keys().filter(is_new).for_each(|name| self.held.set(name, None, resources));
        } else if !was_everything {
            change.added.iter().for_each(|name| self.held.set(name, None, resources));
        }
        if change.narrowed {
            self.drop_unwanted();
        }
    }

    /// Finds out what of all that the client asks for by name doesn't exist.
    fn look_for_absent(&mut self, commons: &Commons) {
        let is_all = self.resources.len() == self.interest.names().len()
            && self.interest.is_of(&commons.content(&self.resources).0);
        let absent = |name: &&Name| !self.resources.contains_key(*name);
        self.absent =
            if is_all { BTreeSet::new() } else { self.interest.names().iter().filter(absent).cloned().collect() };
    }

    /// Forgets what the client no longer asks for: it has dropped that.
    fn drop_unwanted(&mut self) {
        let interest = &self.interest;
        self.held.retain(|name| interest.wants(name));
        self.absent.retain(|name| interest.names().contains(name));
        if self.accepted.keys().any(|name| !interest.wants(name)) {
            Arc::make_mut(&mut self.accepted).retain(|name, _| interest.wants(name));
        }
        self.again.retain(|name| interest.wants(name));
        if self.variant == Variant::Delta {
            self.pinned.retain(|name, _| interest.wants(name));
        }
        self.refused.retain(|name, _| interest.wants(name));
        self.suspects.retain(|name| interest.wants(name));
        self.attempts.retain(|name, _| interest.wants(name));
        self.told.retain(|name| interest.wants(name));
    }

    /// What a client states to hold when it connects again. Versions are compared, never trusted to exist.
    fn take_initial_versions(&mut self, request: &DeltaRequest, limits: &Limits) -> Result<(), LimitExceeded> {
        let type_url = self.resource_type.type_url();
        let recognised = request.recognised.held.as_ref();
        if recognised.map_or(0, |held| held.len()) + request.initial_versions.len() > limits.versions {
            return Err(LimitExceeded::Versions { type_url, limit: limits.versions });
        }
        if recognised.is_some_and(|held| Arc::ptr_eq(held, &self.resources)) {
            self.held.settle();
            return Ok(());
        }
        let recognised = recognised.into_iter().flat_map(|held| held.values());
        let recognised = recognised.map(|resource| (&resource.name, resource.version.as_str()));
        let listed = request.initial_versions.iter().map(|(name, version)| (name, version.as_str()));
        self.held.clear(&self.interest, &self.resources);
        for (name, version) in recognised.chain(listed) {
            if name.len() > limits.name_bytes {
                let (length, limit) = (name.len(), limits.name_bytes);
                return Err(LimitExceeded::NameLength { type_url, length, limit });
            }
            if !self.interest.wants(name) {
                continue;
            }
            let holding = match self.resources.get(name) {
                Some(resource) if resource.version.as_str() == version => Holding::Version(resource.version.clone()),
                // A text of that length is no version that anybody chose.
                _ if version.len() > limits.name_bytes => Holding::Uncertain,
                _ => Holding::Version(Version::new(version)),
            };
            self.held.set(&self.shared(name), Some(holding), &self.resources);
        }
        Ok(())
    }

    /// The snapshot's own copy of a name, so that a thousand clients share its bytes.
    fn shared(&self, name: &Name) -> Name {
        self.resources.get(name).map_or_else(|| name.clone(), |resource| resource.name.clone())
    }

    /// Takes in the resources of a new snapshot, which has a number.
    ///
    /// # Cost
    /// In proportion to what has changed for this client since the snapshot before; the first stream compares for all.
    pub(super) fn update(&mut self, resources: Arc<Resources>, serial: u64, commons: &Commons) {
        self.whole = self.whole();
        self.serial = serial;
        if self.is_served && Arc::ptr_eq(&self.resources, &resources) {
            return;
        }
        if self.opened {
            let changes = commons.changes(&self.resources, &resources);
            if self.is_served && changes.is_empty() {
                self.resources = resources;
                return;
            }
            self.held.follow(&changes, &self.interest);
            for (_, new) in changes.changed.iter().filter(|(old, _)| old.is_none()) {
                self.absent.remove(&new.name);
            }
            let gone = changes.removed.iter().map(|old| &old.name);
            self.absent.extend(gone.filter(|name| self.interest.names().contains(*name)).cloned());
        }
        self.is_served = true;
        self.version = resources.version();
        self.resources = resources;
        self.stale = true;
        self.unseen = true;
    }

    /// Doesn't trust what the client states to hold: what exists is sent again, what doesn't is told so.
    pub(super) fn distrust(&mut self) {
        self.held.clear(&self.interest, &self.resources);
        self.stale = true;
    }

    /// Makes sure that the client gets an answer on a resource that it waits for, once it asks for it or if it did.
    ///
    /// What is gone is answered as it was `before`, if that is known. Gives back what the answer is; none if it is that
    /// there is nothing.
    pub(super) fn require(&mut self, name: &str, before: Option<&Arc<Resource>>) -> Option<Arc<Resource>> {
        let current = self.resources.get(name);
        let answer = current.or(before).cloned();
        if let Some(resource) = &answer {
            self.again.extend(current.map(|resource| resource.name.clone()));
            self.pinned.insert(resource.name.clone(), resource.clone());
            self.stale = true;
        } else if self.told.remove(name) {
            // That it is missing is an answer too.
            self.stale = true;
        }
        answer
    }

    /// Forgets what a removed cluster would have waited for.
    pub(super) fn release(&mut self, name: &str) {
        if !self.interest.wants(name) {
            self.pinned.remove(name);
        }
    }

    /// Finds out what there is to send, if that may have changed and nothing is in flight.
    pub(super) fn refresh(&mut self) {
        if !self.is_served {
            return;
        }
        let resources = self.resources.clone();
        if let Some(flight) = &self.in_flight {
            if std::mem::take(&mut self.unseen) {
                self.behind = self.has_news(&resources, flight);
            }
            return;
        }
        if !self.stale {
            return;
        }
        self.stale = false;
        let existing = self.interest.names().len() - self.absent.len();
        self.expecting = !self.interest.everything() && existing < resources.len();
        if !self.opened {
            return;
        }
        self.check_claim(&resources);
        self.refused.retain(|name, objection| resources.get(name).is_some_and(|r| r.version == objection.version));
        // What was gone when a client was owed it, and is there again by now.
        let back = self.pinned.keys().filter(|name| resources.contains_key(*name));
        self.again.extend(back.cloned());
        let due = self.due();
        let changed = self.set_firsts_apart(due);
        let removed: Vec<Name> = self.held.gone(&resources).cloned().collect();
        // What exists again may go missing again; what was given up is nobody's business any more.
        self.told.retain(|name| !resources.contains_key(name));
        self.missing = self.lacking();
        self.missing.retain(|name| !self.told.contains(name));
        self.again.retain(|name| resources.contains_key(name));
        for batch in &mut self.batches {
            batch.retain(|name| resources.contains_key(name) && self.interest.wants(name));
        }
        self.batches.retain(|batch| !batch.is_empty());
        let interest = &self.interest;
        // State of the world can't tell a client that something is missing, so it gets it when it asks.
        let is_silent = self.variant == Variant::StateOfTheWorld;
        self.pinned.retain(|name, _| is_silent || interest.wants(name) || resources.contains_key(name));
        let pinned = &self.pinned;
        let is_late = |name: &Name| pinned.contains_key(name) && !resources.contains_key(name);
        let apart: BTreeSet<&Name> = self.batches.iter().flatten().collect();
        self.additions = changed.into_iter().filter(|r| !apart.contains(&r.name)).collect();
        let late = pinned.values().filter(|resource| is_late(&resource.name) && interest.wants(&resource.name));
        self.additions.extend(late.cloned());
        self.removals = removed;
        self.removals.retain(|name| !is_late(name));
        self.missing.retain(|name| !is_late(name));
        if self.variant == Variant::StateOfTheWorld && !self.carries_all() {
            self.keep_removals_quiet();
        }
        if self.carries_all() {
            self.missing.clear();
        }
    }

    /// New and changed resources, and those that must be sent again, in the order of names.
    ///
    /// # Cost
    /// In proportion to what the client holds otherwise than the snapshot has it.
    ///
    /// # Rule
    /// `reliability.md` cases 3, 6, 9, 12, 17 and 23 to 25.
    fn due(&self) -> Vec<Arc<Resource>> {
        let names: BTreeSet<&Name> = self.held.differing().keys().chain(&self.again).collect();
        let wanted = names.into_iter().filter(|name| self.interest.wants(name));
        let known = wanted.filter_map(|name| self.resources.get(name));
        known.filter(|r| self.again.contains(&r.name) || !refuses(&self.refused, r)).cloned().collect()
    }

    /// What the client asked for by name, or is owed an answer on, doesn't hold, and doesn't exist.
    ///
    /// # Rule
    /// `reliability.md` cases 13, 18 and 22.
    fn lacking(&self) -> Vec<Name> {
        let owed = self.again.iter().filter(|_| self.interest.everything());
        let owed = owed.filter(|name| !self.resources.contains_key(*name));
        let names: BTreeSet<&Name> = self.absent.iter().chain(owed).collect();
        names.into_iter().filter(|name| self.held.get(name, &self.resources).is_none()).cloned().collect()
    }

    /// Whether there is something that later types may need and that is neither held nor on its way.
    fn has_news(&self, resources: &Resources, flight: &InFlight) -> bool {
        let on_its_way: BTreeMap<&Name, &Version> = flight.resources.iter().map(|r| (&r.name, &r.version)).collect();
        let names = self.held.differing().keys().chain(on_its_way.keys().copied());
        let wanted = names.filter(|name| self.interest.wants(name)).filter_map(|name| resources.get(name));
        wanted.into_iter().any(|resource| {
            let held = self.held.get(&resource.name, resources);
            match (self.resource_type, held, on_its_way.get(&resource.name)) {
                // Endpoints of known clusters are no news to anybody else.
                (ResourceType::Endpoint, held, sent) => held.is_none() && sent.is_none(),
                (_, _, Some(version)) => **version != resource.version,
                (_, Some(Holding::Version(version)), None) => {
                    version != resource.version && !refuses(&self.refused, resource)
                }
                (_, Some(Holding::Uncertain) | None, None) => !refuses(&self.refused, resource),
            }
        })
    }

    /// How the lane stands, for the decision what may be sent.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            in_flight: self.in_flight.as_ref().map(|flight| flight.sent),
            opens: self.in_flight.as_ref().is_some_and(|flight| flight.opens || self.behind),
            additions: !self.additions.is_empty() || !self.batches.is_empty(),
            additions_since: self.additions_since,
            firsts_since: self.firsts_since,
            removals: !self.removals.is_empty(),
            removals_since: self.removals_since,
            clings: self.refused.keys().any(|name| self.held.get(name, &self.resources).is_some()),
            unopened: !self.opened,
            held_back_since: None,
            expecting: self.expecting,
        }
    }

    /// Whether nothing can be sent, whatever the other types do.
    pub(super) fn has_nothing_to_send(&mut self) -> bool {
        if self.in_flight.is_some() || !self.opened || !self.is_served {
            return true;
        }
        let is_idle = self.additions.is_empty()
            && self.batches.is_empty()
            && self.firsts.is_empty()
            && self.removals.is_empty()
            && self.missing.is_empty()
            && !self.awaited;
        if is_idle {
            (self.additions_since, self.firsts_since, self.removals_since) = (None, None, None);
        }
        is_idle
    }

    /// The next response, if there is something to send that may be sent.
    pub(super) fn send(&mut self, now: Duration, permission: Permission) -> Option<Response> {
        // What carries everything can't be cut.
        let mut room = if self.carries_all() { usize::MAX } else { permission.response_bytes };
        let clung_to = permission.clung_to;
        self.release_firsts(now, permission.in_force);
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
        let nothing_else = self.additions.is_empty() && self.batches.is_empty() && self.removals.is_empty();
        let awaited = self.awaited && nothing_else;
        let due = !resources.is_empty() || !removed.is_empty() || !missing.is_empty() || awaited;
        let response = due.then(|| self.launch(now, permission.nonce, resources, removed, missing, part));
        if self.additions.is_empty() {
            // After a large load, its queue would stay as large for the rest of the stream.
            self.additions = VecDeque::new();
        }
        let standing = self.standing();
        let waits = |pending: bool, since: Option<Duration>| pending.then(|| since.unwrap_or(now));
        self.additions_since = waits(standing.additions && self.in_flight.is_none(), self.additions_since);
        self.removals_since = waits(standing.removals, self.removals_since.filter(|_| !clung_to));
        response
    }

    /// Puts a response on its way.
    fn launch(
        &mut self,
        now: Duration,
        nonce: u64,
        resources: Vec<Arc<Resource>>,
        removed: Vec<Name>,
        missing: Vec<Name>,
        part: bool,
    ) -> Response {
        self.awaited = false;
        self.behind = false;
        self.told.extend(missing.iter().cloned());
        let opens = self.opens(&resources);
        let completes = (self.additions.is_empty() && self.batches.is_empty()).then_some(self.serial);
        for resource in &resources {
            self.again.remove(&resource.name);
            self.pinned.remove(&resource.name);
        }
        let (state, version) = if self.carries_all() {
            let (state, version) = self.compose(&removed);
            (Some(state), version)
        } else {
            (None, self.version.clone())
        };
        let carried = state.as_ref().map_or_else(|| resources.clone(), |state| state.values().cloned().collect());
        let nonce = Name::from(nonce.to_string());
        self.last_nonce = Some(nonce.clone());
        self.in_flight = Some(Box::new(InFlight {
            nonce: nonce.clone(),
            sent: now,
            version: self.version.clone(),
            resources: state.as_ref().map_or(resources, |state| self.doubtful(state)),
            removed: removed.clone(),
            state,
            opens,
            part,
            completes,
        }));
        let removed = removed.into_iter().chain(missing).collect();
        Response { resource_type: self.resource_type, nonce, version, resources: carried, removed }
    }

    /// What is on its way that the client wasn't known to hold.
    pub(super) fn unacknowledged(&self) -> &[Arc<Resource>] {
        self.in_flight.as_ref().map_or(&[], |flight| &flight.resources)
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
                .any(|r| self.held.get(&r.name, &self.resources).is_none() || self.again.contains(&r.name)),
            _ => !resources.is_empty(),
        }
    }

    /// The next additions: a part of a refused response, else what fits.
    fn take_additions(&mut self, room: &mut usize) -> Vec<Arc<Resource>> {
        // A refusal of these names nobody, and takes down all that travel together. Routes are many where they are cut: a
        // gateway that starts must not wait for each, so of them those travel alone that were refused before.
        let of = self.resource_type;
        let suspects = &self.suspects;
        let goes_alone = move |name: &Name| match of {
            ResourceType::Secret | ResourceType::Extension => true,
            ResourceType::Route => suspects.contains(name),
            ResourceType::Cluster
            | ResourceType::Endpoint
            | ResourceType::Listener
            | ResourceType::ScopedRoute
            | ResourceType::RateLimit => false,
        };
        let Some(batch) = self.batches.pop_front() else {
            return take_resources(&mut self.additions, room, goes_alone);
        };
        let resources = self.resources.clone();
        let mut batch: VecDeque<Arc<Resource>> = batch.iter().filter_map(|name| resources.get(name)).cloned().collect();
        let taken = take_resources(&mut batch, room, goes_alone);
        if !batch.is_empty() {
            self.batches.push_front(batch.iter().map(|resource| resource.name.clone()).collect());
        }
        taken
    }
}

/// Takes resources from the front while they fit; one that fits nowhere travels alone, and so does whatever must.
fn take_resources(
    queue: &mut VecDeque<Arc<Resource>>,
    room: &mut usize,
    goes_alone: impl Fn(&Name) -> bool,
) -> Vec<Arc<Resource>> {
    let mut taken = Vec::new();
    while let Some(resource) = queue.front() {
        let texts = resource.name.len() + resource.version.as_str().len();
        let size = resource.body.len() + texts + RESOURCE_OVERHEAD;
        let is_alone = goes_alone(&resource.name);
        if !taken.is_empty() && (is_alone || size > *room) {
            break;
        }
        *room = room.saturating_sub(size);
        taken.extend(queue.pop_front());
        if is_alone {
            break;
        }
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

#[cfg(test)]
mod tests;
