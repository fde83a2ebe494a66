//! What only newer releases of Envoy can do, and what becomes of it on older ones.
//!
//! Plans know no release. Where a gateway's release lacks what a policy on a route needs, the route is closed for that
//! release: its match stays and the answer is 500, so that no request passes unprotected. Where it lacks what guards a
//! destination, that has no hosts there ([`as_served`]). Which policies these are is
//! told beside the snapshot ([`Beyond`]), and whoever publishes makes findings of it.
//!
//! A kind that needs a newer release for all or a part of what it does has a row in [`NEWER`].
//!
//! # Rule
//! The manual's page on policies, "Releases of Envoy"; R130.

use std::borrow::Cow;

use crate::ir::route::Attachment;
use crate::ir::upstream::Closed;
use crate::ir::{Action, Guard, Policy, Route, Upstream, UpstreamId};
use crate::model::{EnvoyRelease, Kind, ObjectRef};

/// Something that a kind does, which the oldest release that is served cannot do.
#[derive(Clone, Copy, Debug)]
pub struct Newer {
    /// The kind.
    pub kind: Kind,
    /// What it is, in words that complete "needs Envoy 1.40 for".
    pub what: &'static str,
    /// The first release that can do it.
    pub since: EnvoyRelease,
    /// Whether a policy of the kind does it.
    has: fn(&Policy) -> bool,
}

/// Older ones have no filter `rbac` in clusters, and refuse a cluster with one (seen on 1.36.4, 1.37.0 and 1.38.3). No route
/// has such a policy: see [`as_served`].
const JUDGED_UPSTREAM: Newer = Newer {
    kind: Kind::AccessPolicy,
    what: "who may call a destination",
    since: EnvoyRelease::new(1, 39),
    has: |_| false,
};

/// Everything that takes a newer release than the oldest that is served.
pub const NEWER: &[Newer] = &[
    JUDGED_UPSTREAM,
    // Older ones do not know `claim_path` (validated on 1.36.4, 1.37.0, 1.38.3 and 1.39.3).
    Newer {
        kind: Kind::JwtPolicy,
        what: "claims whose names are URLs",
        since: EnvoyRelease::new(1, 40),
        has: |policy| matches!(policy, Policy::Jwt(verification) if verification.reads_url_claims()),
    },
    // The holder takes no filter from routes before 1.39, and none that asks a service before 1.40 (validated on 1.36.4,
    // 1.37.0, 1.38.3 and 1.39.3).
    Newer {
        kind: Kind::RateLimitPolicy,
        what: "the counting of requests by a service",
        since: EnvoyRelease::new(1, 40),
        has: |policy| matches!(policy, Policy::RateLimit(limits) if limits.iter().any(|limits| limits.counter.service().is_some())),
    },
    Newer {
        kind: Kind::RateLimitPolicy,
        what: "the counting of requests by the gateway",
        since: EnvoyRelease::new(1, 39),
        has: |policy| matches!(policy, Policy::RateLimit(limits) if limits.iter().any(|limits| limits.counter.service().is_none())),
    },
    // Older ones do not know `path_override` (validated on 1.36.4 and 1.37.0), and would ask for the client's path.
    Newer {
        kind: Kind::ExtAuthPolicy,
        what: "`passThroughAuth` over HTTP",
        since: EnvoyRelease::new(1, 38),
        has: |policy| matches!(policy, Policy::ExtAuth(auth) if auth.asks_fixed_paths()),
    },
    // Before, a holder does not take the filter, or is refused itself (validated on 1.36.4, 1.37.0, 1.38.3 and 1.39.3).
    Newer {
        kind: Kind::ExtAuthPolicy,
        what: "user name and password",
        since: EnvoyRelease::new(1, 39),
        has: |policy| matches!(policy, Policy::ExtAuth(auth) if auth.basic.is_some()),
    },
    Newer {
        kind: Kind::ExtAuthPolicy,
        what: "the `realm` of user name and password",
        since: EnvoyRelease::new(1, 40),
        has: |policy| matches!(policy, Policy::ExtAuth(auth) if auth.basic.as_ref().is_some_and(|basic| basic.realm.is_some())),
    },
    Newer {
        kind: Kind::ExtAuthPolicy,
        what: "API keys",
        since: EnvoyRelease::new(1, 40),
        has: |policy| matches!(policy, Policy::ExtAuth(auth) if auth.key.as_ref().is_some_and(|key| !key.is_optional)),
    },
    #[cfg(test)]
    Newer {
        kind: Kind::TeapotPolicy,
        what: "iced tea",
        since: EnvoyRelease::new(1, 38),
        has: |policy| matches!(policy, Policy::Teapot(teapot) if teapot.tea.contains("iced")),
    },
    #[cfg(test)]
    Newer {
        kind: Kind::TeapotPolicy,
        what: "tea without water",
        since: EnvoyRelease::new(9, 9),
        has: |policy| matches!(policy, Policy::Teapot(teapot) if teapot.tea.contains("dry")),
    },
];

/// The first release that can do what a policy does.
#[must_use]
pub fn needs(policy: &Policy) -> EnvoyRelease {
    newer(policy).map(|row| row.since).max().unwrap_or(EnvoyRelease::OLDEST)
}

fn newer(policy: &Policy) -> impl Iterator<Item = &'static Newer> {
    NEWER.iter().filter(move |row| row.kind == policy.kind() && (row.has)(policy))
}

/// A policy that a release cannot do; its routes are closed there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beyond {
    /// The policy.
    pub policy: ObjectRef,
    /// What it needs the release for.
    pub what: &'static str,
    /// The first release that can do it.
    pub since: EnvoyRelease,
    /// What it selects is closed; else it is only left out, since it refuses nobody anyway.
    pub closes: bool,
}

/// The policies on a route that a release cannot do; of policies that are merged, all of the kind.
pub(in super::super) fn beyond(route: &Route, release: EnvoyRelease) -> Vec<Beyond> {
    let mut found = Vec::new();
    for (policy, destination) in policies(route).filter(|(policy, _)| needs(policy) > release) {
        let on = |attached: &&Attachment| {
            let is_there = match (&attached.destination, destination) {
                (Some(selected), Some(destination)) => selected.is_edition_of(destination),
                (selected, destination) => selected.is_none() && destination.is_none(),
            };
            is_there && attached.policy.kind == policy.kind()
        };
        for row in newer(policy).filter(|row| row.since > release) {
            let tell = |attached: &Attachment| Beyond {
                policy: attached.policy.clone(),
                what: row.what,
                since: row.since,
                closes: true,
            };
            found.extend(route.body.attached.iter().filter(on).map(tell));
        }
    }
    found
}

/// Whether a release cannot do some policy on a route.
pub(in super::super) fn is_beyond(route: &Route, release: EnvoyRelease) -> bool {
    policies(route).any(|(policy, _)| needs(policy) > release)
}

/// The policies on a destination that a release cannot do.
pub(in super::super) fn beyond_at(upstream: &Upstream, release: EnvoyRelease) -> Vec<Beyond> {
    if release >= JUDGED_UPSTREAM.since {
        return Vec::new();
    }
    let tell = |guard: &Guard| {
        let closes = guard.access.enforced.is_some();
        let Newer { what, since, .. } = JUDGED_UPSTREAM;
        guard
            .policies
            .iter()
            .map(move |policy| Beyond { policy: policy.clone(), what, since, closes })
            .collect::<Vec<_>>()
    };
    upstream.guards.iter().flat_map(tell).collect()
}

/// A destination as a release can serve it: without hosts where the release cannot refuse requests to it.
pub(in super::super) fn as_served(upstream: &Upstream, release: EnvoyRelease) -> Cow<'_, Upstream> {
    let refuses = upstream.closed == Some(Closed::Deny) || upstream.guards.iter().any(|g| g.access.enforced.is_some());
    if release >= JUDGED_UPSTREAM.since || (upstream.guards.is_empty() && !refuses) {
        return Cow::Borrowed(upstream);
    }
    let closed = if refuses { Some(Closed::BlackHole) } else { upstream.closed.clone() };
    Cow::Owned(Upstream { closed, guards: Vec::new(), ..upstream.clone() })
}

/// The policies on a route, and on which of its destinations.
fn policies(route: &Route) -> impl Iterator<Item = (&Policy, Option<&UpstreamId>)> {
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let of_destinations = destinations
        .iter()
        .flat_map(|destination| destination.policies.iter().map(|policy| (policy, Some(&destination.upstream))));
    route.body.policies.iter().map(|policy| (policy, None)).chain(of_destinations)
}
