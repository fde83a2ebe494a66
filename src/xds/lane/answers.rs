//! A client's answers: what an acknowledgement or a refusal says about what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::observation::{Acknowledgement, Blame, Gained, Refusal, RefusedResource, excerpt};
use super::{Attempt, InFlight, Lane, blame};
use crate::model::Name;
use crate::snapshot::Resource;
use crate::snapshot::diff::{Holding, Objection, refuses};

/// Bytes of a client's error text that are kept.
const MESSAGE_BYTES: usize = 4096;

/// Bytes of it that are remembered as long as the resource is withheld, and of how many resources.
const REASON_BYTES: usize = 1024;
const REASONS: usize = 256;

/// What a client's answer came to.
#[derive(Debug)]
pub(in crate::xds) enum Answer {
    /// The nonce isn't that of the response in flight.
    Stale,
    /// Acknowledged; the report follows when the lane knows what is left to do.
    Acknowledged,
    /// Refused; nothing to report if it is a part of a response that was reported already.
    Refused(Vec<Refusal>),
}

impl Lane {
    /// Takes in the answer to a response.
    pub(in crate::xds) fn answer(&mut self, nonce: &str, error: Option<&str>, now: Duration) -> Answer {
        let Some(flight) = self.in_flight.take_if(|flight| flight.nonce == *nonce) else { return Answer::Stale };
        let Some(message) = error else {
            self.acknowledge(*flight, now);
            return Answer::Acknowledged;
        };
        let message = super::super::observation::quotable(self.resource_type, message);
        self.stale = true;
        if flight.state.is_some() {
            // What a response left out is gone whether or not the rest was taken, or goes with the next.
            self.forget(&flight.removed);
        }
        let several = flight.resources.len() + usize::from(!flight.removed.is_empty()) > 1;
        if !several {
            match flight.resources.as_slice() {
                [resource] => self.withhold(resource, message),
                // There is nothing to try again with a removal, and nobody to blame.
                _ => self.forget(&flight.removed),
            }
            return Answer::Refused(vec![self.refusal(&flight.nonce, &flight.resources, Blame::Exact, message)]);
        }
        let named = blame::named(self.resource_type, message, &flight.resources);
        if !named.is_empty() {
            return Answer::Refused(self.withhold_named(&flight, &named));
        }
        if flight.state.is_some() {
            self.withhold_all(&flight.resources, message);
        } else {
            self.split(&flight.resources);
        }
        let news = (!flight.part).then(|| self.refusal(&flight.nonce, &flight.resources, Blame::Suspected, message));
        Answer::Refused(news.into_iter().collect())
    }

    fn refusal(&self, nonce: &Name, resources: &[Arc<Resource>], blame: Blame, message: &str) -> Refusal {
        Refusal {
            resource_type: self.resource_type,
            nonce: nonce.clone(),
            resources: resources.iter().map(|resource| refused_resource(resource)).collect(),
            blame,
            message: excerpt(message, MESSAGE_BYTES),
        }
    }

    fn acknowledge(&mut self, flight: InFlight, now: Duration) {
        self.whole = self.whole.max(flight.completes.unwrap_or_default());
        for resource in &flight.resources {
            self.attempts.remove(&resource.name);
            self.suspects.remove(&resource.name);
            // What stands in for a refused content says nothing about that.
            if !self.carries_all() || refuses(&self.refused, resource) {
                self.refused.remove(&resource.name);
            }
            // What is gone meanwhile must be removed now.
            self.stale |= !self.resources.contains_key(&resource.name);
            // Given up while it was on its way: the client has dropped it.
            if self.interest.wants(&resource.name) {
                self.held.set(&resource.name, Some(Holding::Version(resource.version.clone())), &self.resources);
            }
        }
        self.forget(&flight.removed);
        if let Some(mut state) = flight.state {
            if state.keys().any(|name| !self.interest.wants(name)) {
                Arc::make_mut(&mut state).retain(|name, _| self.interest.wants(name));
            }
            self.accepted = state;
        }
        self.answered = Some(Box::new(Acknowledgement {
            resource_type: self.resource_type,
            version: flight.version,
            resources: Gained::Listed(flight.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect()),
            removed: flight.removed,
            outstanding: 0,
            after: Some(now.saturating_sub(flight.sent)),
        }));
    }

    fn forget(&mut self, removed: &[Name]) {
        for name in removed {
            if self.interest.wants(name) {
                self.held.set(name, None, &self.resources);
            }
            self.disown(name);
            self.attempts.remove(name);
            // It knows that the name is gone, so it needn't be told that it is missing.
            if self.interest.names().contains(name) {
                self.told.insert(name.clone());
            }
        }
    }

    /// Forgets what the client took last of a name.
    fn disown(&mut self, name: &Name) {
        if self.accepted.contains_key(name) {
            Arc::make_mut(&mut self.accepted).remove(name);
        }
    }

    /// Resources that a refusal names. The others are good as far as the client says: it may hold them, and they are sent
    /// again together, so that it acknowledges them.
    fn withhold_named(&mut self, flight: &InFlight, named: &BTreeMap<Name, String>) -> Vec<Refusal> {
        let (bad, rest): (Vec<_>, Vec<_>) = flight.resources.iter().cloned().partition(|r| named.contains_key(&r.name));
        self.doubt(&rest);
        for resource in &rest {
            self.refused.remove(&resource.name);
        }
        let report = |resource: Arc<Resource>| {
            let words = named.get(&resource.name)?;
            self.withhold(&resource, words);
            Some(self.refusal(&flight.nonce, std::slice::from_ref(&resource), Blame::Exact, words))
        };
        bad.into_iter().filter_map(report).collect()
    }

    /// A resource that was refused alone, or by name: the client holds what it held before.
    fn withhold(&mut self, resource: &Resource, message: &str) {
        if !self.interest.wants(&resource.name) {
            return;
        }
        match self.attempts.remove(&resource.name) {
            Some(Attempt { version, before }) if version == resource.version => {
                self.held.set(&resource.name, before, &self.resources);
            }
            // Another version may have been taken before; or there was no doubt at all.
            Some(_) | None => {}
        }
        if self.accepted.get(&resource.name).is_some_and(|taken| taken.version == resource.version) {
            // What stood in for a refused content is refused by now; nothing is left to send.
            self.disown(&resource.name);
            return;
        }
        self.suspects.insert(resource.name.clone());
        let (version, reason) = (resource.version.clone(), self.reason(message));
        self.refused.insert(resource.name.clone(), Objection { version, reason, exact: true });
    }

    /// What is remembered of the client's words. One client can't make us remember them for every resource there is.
    fn reason(&self, message: &str) -> Arc<str> {
        let bytes = if self.refused.len() < REASONS { REASON_BYTES } else { 0 };
        excerpt(message, bytes).into()
    }

    /// Resources that were refused together, and that can only travel together: all wait until something changes.
    fn withhold_all(&mut self, resources: &[Arc<Resource>], message: &str) {
        let reason = self.reason(message);
        for resource in self.doubt(resources) {
            let objection = Objection { version: resource.version.clone(), reason: reason.clone(), exact: false };
            self.refused.insert(resource.name.clone(), objection);
        }
    }

    /// Resources that were refused together: all are uncertain, and travel in halves from now on.
    fn split(&mut self, resources: &[Arc<Resource>]) {
        let wanted = self.doubt(resources);
        let (first, second) = wanted.split_at(wanted.len().div_ceil(2));
        for half in [second, first].into_iter().filter(|half| !half.is_empty()) {
            self.batches.push_front(half.iter().map(|resource| resource.name.clone()).collect());
        }
    }

    /// Marks as uncertain what may have been taken or not; gives back what of it is still wanted.
    fn doubt<'a>(&mut self, resources: &'a [Arc<Resource>]) -> Vec<&'a Arc<Resource>> {
        let wanted: Vec<&Arc<Resource>> = resources.iter().filter(|r| self.interest.wants(&r.name)).collect();
        for resource in &wanted {
            let held = self.held.get(&resource.name, &self.resources);
            self.held.set(&resource.name, Some(Holding::Uncertain), &self.resources);
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
        wanted
    }

    /// What is to be reported of what the client holds now.
    pub(in crate::xds) fn report(&mut self) -> Option<Acknowledgement> {
        if let Some(answered) = self.answered.take() {
            let outstanding = self.outstanding();
            self.reported = Some((answered.version.clone(), outstanding));
            return Some(Acknowledgement { outstanding, ..*answered });
        }
        let resting = self.opened && self.is_served && !self.stale && self.in_flight.is_none();
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
            resources: if first { self.stated() } else { Gained::default() },
            removed: Vec::new(),
            outstanding: state.1,
            after: None,
        })
    }

    /// What the client holds as the snapshot has it.
    fn stated(&self) -> Gained {
        let existing = self.interest.names().len() - self.absent.len();
        let is_all = self.interest.everything() || existing == self.resources.len();
        if is_all && self.held.differing().is_empty() {
            return Gained::All(self.resources.clone());
        }
        let wanted = self.resources.values().filter(|resource| self.interest.wants(&resource.name));
        let held = wanted.filter(|resource| self.held.holds(resource, &self.resources));
        Gained::Listed(held.map(|resource| (resource.name.clone(), resource.version.clone())).collect())
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
