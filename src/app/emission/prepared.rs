//! Parts that are there before a listener uses them: whether gateways have them by now.
//!
//! A gateway that follows scopes asks for the routes of new ones when it has taken these, so it is looked at twice. Others
//! follow none yet, and ask for all when their listener does.
//!
//! A part that is refused when a chain is first cut closes its own hosts, and frees all others of waiting for them. One that is
//! refused while parts are in force would take its hosts from the accepted one that serves them: these stay in force until
//! it is corrected.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::app::refusals::own_nodes;
use crate::emit::{Prepares, Ready};
use crate::model::Name;
use crate::publish::GatewayKey;
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::status::View;
use crate::status::view::StreamView;
use crate::xds::observation::Blame;

/// Between two looks at what gateways took. Envoy asks within milliseconds; half of it would do.
pub(in crate::app) const LOOK: Duration = Duration::from_secs(1);

/// How long a gateway is waited for that takes nothing, and after that between two looks. One that comes back later is sent the
/// listener first, and answers 404 until it has the scopes; half of it is too short for a gateway that loads a hundred thousand
/// routes, double makes others wait for one that is stuck.
pub(in crate::app) const PATIENCE: Duration = Duration::from_secs(60);

/// What is prepared for the gateways of a key.
#[derive(Debug)]
pub(super) struct Prepared {
    chains: BTreeSet<Prepares>,
    until: Instant,
    look_at: Instant,
    /// Whether no gateway lacked anything at the last look.
    had_all: bool,
    /// The youngest versions of both types that have the parts.
    versions: VecDeque<(ResourceType, Version)>,
}

/// How many of these are known: gateways that are further behind are waited for.
const VERSIONS: usize = 1024;

impl Prepared {
    /// Takes over for which chains parts are prepared now. Of one more, gateways have nothing yet.
    pub(super) fn follow(prepared: &mut Option<Self>, chains: BTreeSet<Prepares>, now: Instant) {
        match prepared {
            _ if chains.is_empty() => *prepared = None,
            Some(known) if chains.is_subset(&known.chains) => {
                known.chains = chains;
                // What was refused may be corrected now.
                known.look_at = known.look_at.min(now + LOOK);
            }
            _ => {
                let (until, look_at) = (now + PATIENCE, now + LOOK);
                *prepared = Some(Self { chains, until, look_at, had_all: false, versions: VecDeque::new() });
            }
        }
    }

    /// Notes what is published with the parts in it.
    pub(super) fn published(&mut self, snapshot: &Snapshot) {
        for version in [ResourceType::ScopedRoute, ResourceType::Route].map(|of| (of, snapshot.type_version(of))) {
            if !self.versions.contains(&version) {
                self.versions.push_back(version);
            }
        }
        self.versions.drain(..self.versions.len().saturating_sub(VERSIONS));
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        self.look_at
    }

    /// Looks, if it is time; which parts may be used.
    pub(super) fn look<'v>(&mut self, key: &GatewayKey, now: Instant, connected: impl Fn() -> &'v View) -> Ready {
        if now < self.look_at {
            return Ready::Nothing;
        }
        let is_late = now >= self.until;
        self.look_at = now + if is_late { PATIENCE } else { LOOK };
        let (mut has_all, mut is_refused) = (true, false);
        for streams in own_nodes(connected(), key) {
            has_all &= self.has_all(&streams);
            let refusals =
                streams.iter().flat_map(|stream| stream.types.values()).flat_map(|held| held.refusals.keys());
            is_refused |= refusals.into_iter().any(|name| self.is_prepared(name));
        }
        let had_all = std::mem::replace(&mut self.had_all, has_all);
        let is_ready = (had_all && has_all) || is_late;
        match is_refused {
            false if is_ready => Ready::Everything,
            true if is_ready && self.chains.iter().any(|chain| !chain.replaces_parts) => Ready::OfWhole,
            _ => Ready::Nothing,
        }
    }

    fn is_prepared(&self, name: &Name) -> bool {
        self.chains.iter().any(|chain| chain.has(name))
    }

    /// Whether a gateway has all parts, but for those that it refuses; or follows no scopes.
    fn has_all(&self, streams: &[&StreamView]) -> bool {
        let of = |wanted| streams.iter().filter_map(move |stream| stream.types.get(&wanted));
        // One that has just come may follow them and not have said so, the more so while it waits for clusters.
        let has_come = streams.iter().all(|stream| stream.connected_for >= 2 * LOOK);
        if of(ResourceType::ScopedRoute).next().is_none() {
            return has_come && of(ResourceType::Cluster).all(|clusters| clusters.outstanding == 0);
        }
        [ResourceType::ScopedRoute, ResourceType::Route].into_iter().all(|wanted| {
            of(wanted).all(|held| {
                // Of those that travelled together it is not known yet which is refused.
                let refused = held.refusals.values().filter(|refusal| refusal.blame == Blame::Exact).count();
                held.outstanding <= refused
                    && held.compared.as_ref().is_some_and(|version| self.versions.contains(&(wanted, version.clone())))
            })
        })
    }
}
