//! Parts that are there before a listener uses them: whether gateways have them by now.
//!
//! A gateway that follows scopes asks for the routes of new ones when it has taken these, so it is looked at twice. Others
//! follow none yet, and ask for all when their listener does.
//!
//! A part that is refused when a chain is first cut closes its own hosts, and frees all others of waiting for them. One that is
//! refused while parts are in force would take its hosts from the accepted one that serves them: these stay in force until
//! it is corrected.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::app::refusals::own_streams;
use crate::publish::GatewayKey;
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::status::View;
use crate::status::view::StreamView;

/// Between two looks at what gateways took. Envoy asks within milliseconds; half of it would do.
pub(in crate::app) const LOOK: Duration = Duration::from_secs(1);

/// How long a gateway is waited for that takes nothing. One that comes back later is sent the listener first, and answers 404
/// until it has the scopes; half of it is too short for a gateway that loads a hundred thousand routes, double makes others
/// wait for one that is stuck.
pub(in crate::app) const PATIENCE: Duration = Duration::from_secs(60);

/// What is prepared for the gateways of a key.
#[derive(Debug)]
pub(super) struct Prepared {
    until: Instant,
    look_at: Instant,
    /// Whether no gateway lacked anything at the last look.
    had_all: bool,
    /// The versions of both types that have the parts.
    versions: BTreeSet<(ResourceType, Version)>,
}

impl Prepared {
    pub(super) fn new(now: Instant) -> Self {
        Self { until: now + PATIENCE, look_at: now + LOOK, had_all: false, versions: BTreeSet::new() }
    }

    /// Notes what is published with the parts in it.
    pub(super) fn published(&mut self, snapshot: &Snapshot) {
        let version = |of| (of, snapshot.type_version(of));
        self.versions.extend([ResourceType::ScopedRoute, ResourceType::Route].map(version));
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        self.look_at
    }

    /// Looks, if it is time; whether the parts may be used, in place of others or of the whole.
    pub(super) fn is_over<'v>(
        &mut self,
        key: &GatewayKey,
        (now, replaces_parts): (Instant, bool),
        connected: impl Fn() -> &'v View,
    ) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK;
        let mut is_refused = false;
        let mut has = |of, stream: &StreamView| {
            stream.types.get(&of).is_none_or(|held| {
                is_refused |= !held.refusals.is_empty();
                held.outstanding <= held.refusals.len()
                    && held.compared.as_ref().is_some_and(|version| self.versions.contains(&(of, version.clone())))
            })
        };
        let mut has_all = true;
        let follows = |stream: &&StreamView| stream.types.contains_key(&ResourceType::ScopedRoute);
        for stream in own_streams(connected(), key).filter(follows) {
            has_all &= has(ResourceType::ScopedRoute, stream);
            has_all &= has(ResourceType::Route, stream);
        }
        let had_all = std::mem::replace(&mut self.had_all, has_all);
        (!is_refused || !replaces_parts) && ((has_all && had_all) || now >= self.until)
    }
}
