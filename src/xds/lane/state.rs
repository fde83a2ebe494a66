//! The state-of-the-world variant of a lane: what differs from delta, and nothing else.
//!
//! - A request replaces the whole interest. What a client holds when it connects again is one version for the type, not
//!   one per name.
//! - A response of clusters or listeners carries *all* that the client shall hold, so that a resource is removed by
//!   being left out. What may not be removed yet is therefore carried on, in the version that the client took last; so is
//!   what stands in for a refused resource. Of all other types a response carries what is new, and removals are not sent:
//!   the client drops them when it no longer asks.
//! - A refusal of clusters or listeners that doesn't tell which of several is bad can't be narrowed down by sending
//!   parts. All of them wait until something changes; Envoy takes the good ones of a refused response (F2).
//!
//! The version of clusters and listeners stands for everything that a client holds of the type, equal on every replica;
//! a response that differs from the snapshot has a version of its own, with a `~`, which no state ever has. So a client
//! that connects again with the version of now needs nothing. Of all other types it is sent everything that it names: its
//! version doesn't prove that it holds what it names, since a cluster or listener that went and came back in between took
//! its endpoints or routes with it.
//!
//! What stays worse than with delta: a client that connects again with a version that isn't the current one may hold
//! clusters that are gone. Nobody knows which, so they can't be carried on, and Envoy drops them with the first response,
//! before it is given the routes that no longer use them. And a client that took a part of a refused response states the
//! version of before; if what it refused was taken back while it was away, it isn't told to give up that part until
//! something changes.
//!
//! Seen on Envoy 1.40: clusters of a response that are as before are skipped, without warming. A changed one warms until
//! its endpoints come; Envoy then repeats its request for endpoints with the version and the nonce of before, which looks
//! like any other acknowledgement, so it is the cluster that makes the endpoints go out again.
//!
//! # Rule
//! xDS protocol, "State of the world"; `reliability.md` F2, F3 and F7, cases 4, 6, 14, 15, 19 and 22.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::commons::Commons;
use super::super::message::{StateRequest, Variant};
use super::super::subscription::{Asked, LimitExceeded, Limits};
use super::{Answer, Lane};
use crate::model::Name;
use crate::snapshot::diff::Holding;
use crate::snapshot::{Resource, Resources, Version};

/// Marks the version of a response that leaves something out.
const INCOMPLETE: &str = "~";

/// What a request of the state-of-the-world variant says with its nonce.
#[derive(Debug)]
pub(in crate::xds) enum Turn {
    /// It answers the response in flight, or nothing; its names count.
    Current(Option<Answer>),
    /// Its nonce was never used here; its names count, because nothing was sent on this stream yet.
    Foreign,
    /// It was written before the client saw the last response; another will follow, so it has no effect but what it
    /// tells about what the client dropped.
    Outdated,
}

impl Lane {
    /// Whether a response carries all that the client shall hold of the type.
    pub(in crate::xds) fn carries_all(&self) -> bool {
        self.variant == Variant::StateOfTheWorld && self.resource_type.has_wildcard()
    }

    /// Takes in the nonce of a request, and its error if it has one.
    pub(in crate::xds) fn turn(&mut self, request: &StateRequest, now: Duration) -> Turn {
        match &self.last_nonce {
            Some(last) if **last != *request.nonce => {
                self.note_absence(request);
                Turn::Outdated
            }
            Some(_) => match self.answer(&request.nonce, request.error.as_deref(), now) {
                // Answered before; the client only changes its names.
                Answer::Stale => Turn::Current(None),
                answer => Turn::Current(Some(answer)),
            },
            None if request.nonce.is_empty() => Turn::Current(None),
            None => Turn::Foreign,
        }
    }

    /// What an outdated request doesn't name, the client had dropped when it wrote it; it may name that again by now.
    fn note_absence(&mut self, request: &StateRequest) {
        if self.carries_all() || self.interest.everything() {
            return;
        }
        let listed: BTreeSet<&Name> = request.names.iter().collect();
        let known = request.recognised.names.as_ref();
        let is_named = |name: &Name| known.is_some_and(|known| known.names().contains(name)) || listed.contains(name);
        let resources = &self.resources;
        for name in self.interest.names().iter().filter(|name| !is_named(name)) {
            self.held.set(name, None, resources);
        }
        self.stale = true;
    }

    /// Takes in the names of a request.
    pub(in crate::xds) fn replace_interest(
        &mut self,
        request: &StateRequest,
        limits: &Limits,
        commons: &Commons,
    ) -> Result<(), LimitExceeded> {
        let first = !std::mem::replace(&mut self.opened, true);
        let names: Vec<Name> = request.names.iter().map(|name| self.shared(name)).collect();
        let asked = request.recognised.names.as_ref().map_or(Asked::Names(&names), Asked::Known);
        let was_everything = self.interest.everything();
        let change = self.interest.replace(self.resource_type, &asked, limits, commons)?;
        self.ask_for(&change, was_everything);
        if first {
            // A text of that length is no version that anybody chose.
            let version = if request.version.len() > limits.name_bytes { INCOMPLETE } else { &request.version };
            self.claimed = Some(Version::new(version));
        }
        self.stale = true;
        self.unseen = true;
        Ok(())
    }

    /// Compares the version that the client stated first with what it should hold: equal, and it holds exactly that.
    pub(super) fn check_claim(&mut self, resources: &Resources) {
        let Some(claimed) = self.claimed.take().filter(|_| self.carries_all()) else { return };
        if claimed.as_str().is_empty() || claimed != self.state_version(resources) {
            // What the client holds is unknown. It must hear that there is nothing, too.
            self.awaited = self.interest.everything() || !claimed.as_str().is_empty();
            return;
        }
        self.accepted = self.wanted();
        self.held.settle();
    }

    /// What exists of all that the client wants.
    fn wanted(&self) -> Arc<Resources> {
        if self.interest.everything() {
            return self.resources.clone();
        }
        let wanted = self.resources.iter().filter(|(name, _)| self.interest.wants(name));
        Arc::new(wanted.map(|(name, resource)| (name.clone(), resource.clone())).collect())
    }

    /// Forgets removals, which can't be sent: what is still asked for stays with the client as it was.
    pub(super) fn keep_removals_quiet(&mut self) {
        for name in std::mem::take(&mut self.removals) {
            if !self.interest.names().contains(&name) {
                self.held.set(&name, None, &self.resources);
            }
        }
        self.missing.clear();
    }

    /// All that the client shall hold after the next response, and the version of that.
    pub(super) fn compose(&self, removed: &[Name]) -> (Arc<Resources>, Version) {
        let resources = &self.resources;
        let is_whole = !self.held.gone(resources).any(|name| !removed.contains(name));
        if is_whole && self.refused.is_empty() {
            return (self.wanted(), self.state_version(resources));
        }
        let mut state = Resources::new();
        let mut complete = true;
        for (name, resource) in resources.iter().filter(|(name, _)| self.interest.wants(name)) {
            let body = if self.is_withheld(resource) { self.accepted.get(name) } else { Some(resource) };
            complete &= body.is_some_and(|body| body.version == resource.version);
            state.extend(body.map(|body| (name.clone(), body.clone())));
        }
        for name in self.held.gone(resources).filter(|name| !removed.contains(name)) {
            complete = false;
            state.extend(self.accepted.get(name).map(|body| (name.clone(), body.clone())));
        }
        let version = if complete {
            self.state_version(resources)
        } else {
            Version::new(&format!("{}{INCOMPLETE}", self.version))
        };
        (Arc::new(state), version)
    }

    /// The version of all that the client wants.
    fn state_version(&self, resources: &Resources) -> Version {
        if self.interest.everything() {
            return self.version.clone();
        }
        Version::of_resources(self.interest.names().iter().filter_map(|name| resources.get(name)).map(AsRef::as_ref))
    }

    /// Whether this content was refused, and nothing else can have been meant.
    fn is_withheld(&self, resource: &Resource) -> bool {
        let is_uncertain = matches!(self.held.get(&resource.name, &self.resources), Some(Holding::Uncertain));
        let objection = self.refused.get(&resource.name).filter(|objection| objection.version == resource.version);
        objection.is_some_and(|objection| objection.exact || !is_uncertain)
    }

    /// What of a state the client isn't known to hold.
    pub(super) fn doubtful(&self, state: &Resources) -> Vec<Arc<Resource>> {
        state.values().filter(|resource| !self.held.holds(resource, &self.resources)).cloned().collect()
    }
}
