//! What policies share for all routes of a gateway: routes name it, and bring nothing of it themselves.
//!
//! It comes from every policy that could be attached, not from those that are, so that attaching a policy by label
//! changes routes alone. An entry never changes: what is different has another name. So what routes name before a change
//! and after it can stand side by side for the time between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Policy;
use super::policy::Phase;
use super::policy::jwt::Verification;
use super::upstream::{Dial, Server, UpstreamId};
use crate::model::{Name, ObjectRef};

/// What of a request a policy is for. A policy for each may be on one route; then both must let the request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// The route.
    Route,
    /// The destination that was chosen.
    Destination,
}

/// Everything that the policies of a gateway share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// Which tokens are verified, by where that happens and by the name of the verification.
    pub tokens: BTreeMap<(Phase, Level), BTreeMap<Name, Arc<Verification>>>,
}

impl Extensions {
    /// Adds what a policy shares.
    pub fn add(&mut self, level: Level, policy: &Policy) {
        if let Policy::Jwt(verification) = policy {
            let here = self.tokens.entry((verification.jwt.place.phase, level)).or_default();
            here.insert(verification.name.clone(), verification.clone());
        }
    }

    /// Adds what others share.
    pub fn join(&mut self, other: &Self) {
        for (place, verifications) in &other.tokens {
            let here = self.tokens.entry(*place).or_default();
            here.extend(verifications.iter().map(|(name, verification)| (name.clone(), verification.clone())));
        }
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (place, verifications) in &mut rest.tokens {
            let Some(others) = other.tokens.get(place) else { continue };
            verifications.retain(|name, _| !others.contains_key(name));
        }
        rest.tokens.retain(|_, verifications| !verifications.is_empty());
        rest
    }

    /// Keeps the verifications for which a condition holds.
    pub fn retain(&mut self, keep: impl Fn(&Verification) -> bool) {
        for verifications in self.tokens.values_mut() {
            verifications.retain(|_, verification| keep(verification));
        }
        self.tokens.retain(|_, verifications| !verifications.is_empty());
    }

    /// Everything that has a name which routes may state, with what it is for.
    pub fn verifications(&self) -> impl Iterator<Item = (Level, &Arc<Verification>)> {
        self.tokens.iter().flat_map(|((_, level), here)| here.values().map(|verification| (*level, verification)))
    }

    /// Whether nothing is shared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.values().all(BTreeMap::is_empty)
    }

    /// Whether all of the other is in this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.tokens.iter().all(|(place, verifications)| {
            self.tokens.get(place).is_some_and(|own| verifications.keys().all(|name| own.contains_key(name)))
        })
    }

    /// What gateways ask because of it.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.tokens.values().flat_map(BTreeMap::values).flat_map(|verification| verification.servers())
    }

    /// Destinations that gateways ask.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamId> {
        self.servers().filter_map(|server| match server {
            Server::Upstream(upstream) => Some(upstream),
            Server::Dial(_) => None,
        })
    }

    /// The policies because of which gateways ask addresses outside the mesh.
    #[must_use]
    pub fn askers(&self) -> BTreeMap<&Dial, BTreeSet<&ObjectRef>> {
        let mut askers: BTreeMap<&Dial, BTreeSet<&ObjectRef>> = BTreeMap::new();
        for verification in self.tokens.values().flat_map(BTreeMap::values) {
            for server in verification.servers() {
                if let Server::Dial(dial) = server {
                    askers.entry(dial).or_default().insert(&verification.policy);
                }
            }
        }
        askers
    }

    /// Addresses outside the mesh that gateways ask.
    pub fn dials(&self) -> impl Iterator<Item = &Dial> {
        self.servers().filter_map(|server| match server {
            Server::Upstream(_) => None,
            Server::Dial(dial) => Some(dial),
        })
    }
}
