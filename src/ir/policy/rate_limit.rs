//! RateLimitPolicy and what it refers to: what the rate-limit service is told about a request, and what it is told to
//! allow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reference::DestinationRef;
use super::{Phase, Place, Policy, TextPattern};
use crate::ir::upstream::UpstreamId;
use crate::model::{Name, ObjectRef};

/// Limits on a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RateLimit {
    /// Where the policy runs.
    pub place: Place,
    /// The RateLimitServerConfig; absent limits nothing.
    pub rules: Option<ObjectRef>,
    /// The RateLimitServerSettings; absent means [`LimitServer`]'s defaults.
    pub server: Option<ObjectRef>,
    /// What the service is told.
    pub source: LimitSource,
}

/// A RateLimitPolicy with its references followed, which limits something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// The policy.
    pub policy: ObjectRef,
    /// Where it runs.
    pub place: Place,
    /// Who counts.
    // What was kept before gateways could count has a service, under this name.
    #[serde(alias = "service")]
    pub counter: Counter,
    /// What is counted, at least one.
    pub items: Vec<LimitItem>,
}

/// Who counts requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counter {
    /// A service that gateways ask.
    Service(LimitService),
    /// Each gateway for itself, what these allow. No two are for the same entries.
    Gateways(BTreeSet<Bucket>),
}

impl Counter {
    /// How many of its buckets count each value of an entry by itself, as clients send them.
    #[must_use]
    pub fn open(&self) -> u64 {
        let is_open = |bucket: &&Bucket| bucket.entries.iter().any(|(_, value)| value.is_none());
        match self {
            Self::Service(_) => 0,
            Self::Gateways(buckets) => buckets.iter().filter(is_open).count() as u64,
        }
    }

    /// The service that is asked.
    #[must_use]
    pub fn service(&self) -> Option<&LimitService> {
        match self {
            Self::Service(service) => Some(service),
            Self::Gateways(_) => None,
        }
    }
}

/// Most values of one bucket with an open entry that a gateway counts separately, on each route; of more it forgets the longest
/// unseen. Each takes some hundred bytes, and whoever sends values at will fills them.
pub const MOST_VALUES: u32 = 1_000;

/// What a gateway allows for descriptors of these entries.
///
/// One without an absent value counts before those with one, of which never two with different limits are for one descriptor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket {
    /// In order, all of a descriptor's; an absent value is any, counted separately.
    pub entries: Vec<(Name, Option<Name>)>,
    /// More than 0 requests; absent allows everything.
    pub limit: Option<Limit>,
}

/// How gateways ask a rate-limit service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitService {
    /// The service, for gRPC.
    pub server: UpstreamId,
    /// Time allowed; zero means without end.
    pub timeout: Duration,
    /// Refuse requests when the service does not answer.
    pub deny_on_fail: bool,
}

/// What policies of one place ask one service at once, or count in one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStep<'a> {
    /// Lower runs first.
    pub priority: i32,
    /// Who counts.
    pub counter: StepCounter<'a>,
    /// What is counted, in the order of the policies.
    pub items: Vec<&'a LimitItem>,
}

/// Who counts in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepCounter<'a> {
    /// A service.
    Service(&'a LimitService),
    /// The gateway, what all of the policies allow.
    Gateways(BTreeSet<&'a Bucket>),
}

/// The steps of one phase, in order, for policies by priority and age. Those of one priority that ask one service alike are
/// one step, and those for which gateways count.
#[must_use]
pub fn steps(limits: &[Arc<Limits>], phase: Phase) -> Vec<LimitStep<'_>> {
    let mut steps: Vec<LimitStep<'_>> = Vec::new();
    for limits in limits.iter().filter(|limits| limits.place.phase == phase) {
        let priority = limits.place.priority;
        let mut of_priority = steps.iter_mut().filter(|step| step.priority == priority);
        let counter = match &limits.counter {
            Counter::Service(service) => {
                let wanted = StepCounter::Service(service);
                if let Some(step) = of_priority.find(|step| step.counter == wanted) {
                    step.items.extend(&limits.items);
                    continue;
                }
                wanted
            }
            Counter::Gateways(buckets) => {
                let local = of_priority.filter_map(|step| match &mut step.counter {
                    StepCounter::Gateways(known) => Some((known, &mut step.items)),
                    StepCounter::Service(_) => None,
                });
                if let Some((known, items)) = local.last() {
                    known.extend(buckets);
                    // Envoy would count the same twice.
                    items.extend(limits.items.iter().filter(|item| !items.contains(item)).collect::<Vec<_>>());
                    continue;
                }
                StepCounter::Gateways(buckets.iter().collect())
            }
        };
        steps.push(LimitStep { priority, counter, items: limits.items.iter().collect() });
    }
    steps
}

/// The limits that hold on a route: on the route itself, or on the way to each of its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnTheWay<'a> {
    /// Wherever a request goes.
    Route(&'a [Arc<Limits>]),
    /// To each destination, in their order.
    Destinations(Vec<&'a [Arc<Limits>]>),
}

/// The limits of a route, by its own policies and those of its destinations.
///
/// Where a destination verifies tokens, the places of a route's limits depend on the way, so they stand there.
#[must_use]
pub fn on_the_way<'a>(own: &'a [Policy], destinations: impl Iterator<Item = &'a [Policy]> + Clone) -> OnTheWay<'a> {
    let of = |policies: &'a [Policy]| {
        policies.iter().find_map(|policy| match policy {
            Policy::RateLimit(limits) => Some(limits.as_slice()),
            _ => None,
        })
    };
    let of_route = of(own).unwrap_or_default();
    let verifies = |policies: &[Policy]| policies.iter().any(|policy| matches!(policy, Policy::Jwt(_)));
    if destinations.clone().any(|policies| of(policies).is_some()) {
        OnTheWay::Destinations(destinations.map(|policies| of(policies).unwrap_or_default()).collect())
    } else if !of_route.is_empty() && destinations.clone().any(verifies) {
        OnTheWay::Destinations(destinations.map(|_| of_route).collect())
    } else {
        OnTheWay::Route(of_route)
    }
}

/// Where it stands what the service is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitSource {
    /// Nowhere: nothing is limited.
    Nothing,
    /// In the policy.
    Here(Vec<LimitActions>),
    /// In a RateLimitClientConfig.
    Client(ObjectRef),
}

/// Entries for a request; one of the lists is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitActions {
    /// In this order, for rules that are trees.
    pub actions: Vec<LimitAction>,
    /// In any order, for rules that are sets.
    pub set_actions: Vec<LimitAction>,
    /// Where the request carries a limit of its own.
    pub limit: Option<MetadataPath>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitAction {
    /// `source_cluster` with the gateway's own name.
    SourceCluster,
    /// `destination_cluster` with the name of the upstream.
    DestinationCluster,
    /// A key with the value of a request header.
    RequestHeader {
        /// Lower case.
        header: Name,
        /// The key.
        key: Name,
    },
    /// `remote_address` with the client's address.
    RemoteAddress,
    /// `generic_key` with a fixed value; `key` is written by the compiler alone.
    Generic {
        /// The key; absent means `generic_key`.
        key: Option<Name>,
        /// The value, as it is.
        value: Name,
    },
    /// `header_match` with a fixed value, where headers match.
    HeaderMatch {
        /// The value.
        value: Name,
        /// `false`: where they do not.
        expect: bool,
        /// All must match; at least one.
        headers: Vec<LimitHeader>,
    },
    /// A key with a text out of metadata.
    Metadata {
        /// The key.
        key: Name,
        /// Where it stands.
        path: MetadataPath,
        /// The value where there is none; absent means no entry.
        default: Option<Name>,
        /// Whose metadata.
        source: MetadataSource,
    },
}

impl LimitAction {
    /// The key of its entry.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::SourceCluster => "source_cluster",
            Self::DestinationCluster => "destination_cluster",
            Self::RemoteAddress => "remote_address",
            Self::Generic { key, .. } => key.as_deref().unwrap_or("generic_key"),
            Self::HeaderMatch { .. } => "header_match",
            Self::RequestHeader { key, .. } | Self::Metadata { key, .. } => key,
        }
    }

    /// The value of its entry, where every request has the same.
    #[must_use]
    pub fn fixed_value(&self) -> Option<&Name> {
        match self {
            Self::Generic { value, .. } | Self::HeaderMatch { value, .. } => Some(value),
            _ => None,
        }
    }
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitHeader {
    /// Lower case.
    pub name: Name,
    /// The condition.
    pub value: LimitHeaderValue,
    /// It must not hold; an absent header satisfies that.
    pub invert: bool,
}

/// What a header must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitHeaderValue {
    /// It is there or not.
    Present(bool),
    /// Its text; [`TextPattern::Any`] does not occur.
    Text(TextPattern),
    /// A whole number, from the first up to but without the second, which is larger.
    Range(i64, i64),
}

/// A place in metadata.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetadataPath {
    /// The filter that wrote it.
    pub filter: Name,
    /// The way to the value; at least one step.
    pub steps: Vec<Name>,
}

/// Whose metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MetadataSource {
    /// The request's.
    Dynamic,
    /// The route's.
    Route,
}

/// RateLimitServerSettings: how gateways ask the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitServer {
    /// The service; absent means `rate-limiter` in `gloo-mesh`. Looked up first in the cluster of the gateway.
    pub destination: Option<DestinationRef>,
    /// Time allowed; zero means without end.
    pub timeout: Duration,
    /// Refuse requests when the service does not answer.
    pub deny_on_fail: bool,
}

impl Default for LimitServer {
    fn default() -> Self {
        Self { destination: None, timeout: Duration::from_millis(100), deny_on_fail: false }
    }
}

/// RateLimitServerConfig: what the service allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitRules {
    /// Who enforces the rules.
    pub enforcers: Enforcers,
    /// Rules that are trees, in the order written.
    pub tree: Vec<TreeRule>,
    /// Rules that are sets, in the order written; the first that matches counts, and all that always apply.
    pub sets: Vec<SetRule>,
}

/// Who enforces rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Enforcers {
    /// The services that get them; at least one.
    Services(Vec<DestinationRef>),
    /// Gateways by themselves.
    Gateways,
}

impl Enforcers {
    /// The services that get the rules; none where nobody is asked.
    #[must_use]
    pub fn services(&self) -> &[DestinationRef] {
        match self {
            Self::Services(services) => services,
            Self::Gateways => &[],
        }
    }
}

/// A rule of a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreeRule {
    /// Key of the entry.
    pub key: Name,
    /// Its value; absent means any, counted separately per value.
    pub value: Option<Name>,
    /// The limit; absent without rules below it exempts.
    pub limit: Option<Limit>,
    /// Rules for the next entry. No two siblings collide in the service.
    pub rules: Vec<TreeRule>,
    /// Of the rules that match a request, those of the highest weight count.
    pub weight: u32,
    /// Counts whatever the weight.
    pub always_apply: bool,
}

/// A rule of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetRule {
    /// Entries that the request must have, by key; an absent value is any, counted separately. Each key once, in their
    /// order; none is every request.
    pub entries: Vec<(Name, Option<Name>)>,
    /// The limit.
    pub limit: Limit,
    /// Counts even when an earlier rule matched.
    pub always_apply: bool,
}

/// Requests per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// The window.
    pub unit: LimitUnit,
    /// Requests per window; 0 allows none.
    pub requests: u32,
}

/// Window of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitUnit {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
}

/// Entries that a gateway sends for a request: one descriptor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitItem {
    /// In order; the first says whose rules are meant. Each must yield an entry, or the item is not sent.
    pub actions: Vec<LimitAction>,
    /// Where the request carries a limit of its own.
    pub limit: Option<MetadataPath>,
}

/// A node of the service's tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitNode {
    /// Key of the entry.
    pub key: Name,
    /// Its value; absent means any.
    pub value: Option<Name>,
    /// What counts where a descriptor ends here.
    pub limit: Option<NamedLimit>,
    /// For the next entry.
    pub nodes: Vec<LimitNode>,
}

/// A limit that others can cancel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedLimit {
    /// Unique to the rule within all configurations of a service.
    pub name: Name,
    /// The limit.
    pub limit: Limit,
    /// Names of limits that do not count where this one does; never its own.
    pub replaces: Vec<Name>,
}

/// Everything that one rate-limit service is told to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitPlan {
    /// The service.
    pub server: ObjectRef,
    /// By configuration, each below a node of its own.
    pub configurations: Vec<Arc<ConfigurationLimits>>,
}

/// What one RateLimitServerConfig allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationLimits {
    /// The configuration.
    pub id: ObjectRef,
    /// The node that every descriptor for it begins with.
    pub node: LimitNode,
}
