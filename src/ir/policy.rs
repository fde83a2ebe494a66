//! What attached policies do to a route or to one of its destinations.
//!
//! One variant per kind, checked and merged: `resolve::policy` makes them, `emit::filter` turns them into Envoy's form.
//! The files below this one hold the larger kinds.
//!
//! What a policy says has names of Secrets, servers and other configurations; following them is a step of its own. What is
//! attached is remembered in files, so a value of this module holds a secret only if it is [`sealed`].

pub mod access;
pub mod balancing;
pub mod csrf;
pub mod ext_auth;
pub mod jwt;
pub mod lane;
pub mod rate_limit;
pub mod reference;
pub mod sealed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_tls::Origination;
use crate::model::{Kind, Name};

/// The effect of one policy kind on a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// HeaderManipulationPolicy.
    HeaderManipulation(HeaderManipulation),
    /// RetryTimeoutPolicy.
    RetryTimeout(RetryTimeout),
    /// FaultInjectionPolicy.
    FaultInjection(FaultInjection),
    /// CORSPolicy.
    Cors(Cors),
    /// CSRFPolicy.
    Csrf(csrf::Csrf),
    /// AccessPolicy. It is no part of routes: upstreams and plans have it as a [`Guard`](access::Guard).
    Access(Arc<access::Access>),
    /// ClientTLSPolicy: absent starts none. It is no part of routes: upstreams have it as a [`ClientTls`](super::ClientTls).
    ClientTls(Option<Arc<Origination>>),
    /// OutlierDetectionPolicy. It is no part of routes: upstreams have it.
    Outlier(balancing::Outlier),
    /// FailoverPolicy. It is no part of routes: upstreams have their endpoints in its order.
    Failover(Arc<balancing::Failover>),
    /// JWTPolicy.
    Jwt(Arc<jwt::Verification>),
    /// RateLimitPolicy: each by itself, by phase, priority and age. Where one of a route's destinations has this, each has
    /// all that holds on the way to it, and the route's own is not looked at.
    RateLimit(Vec<Arc<rate_limit::Limits>>),
    /// ExtAuthPolicy.
    ExtAuth(Arc<ext_auth::Authorization>),
    /// The made-up kind of the tests: answers with a header of its own.
    #[cfg(test)]
    Teapot(Teapot),
}

impl Policy {
    /// The kind that it is of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::HeaderManipulation(_) => Kind::HeaderManipulationPolicy,
            Self::RetryTimeout(_) => Kind::RetryTimeoutPolicy,
            Self::FaultInjection(_) => Kind::FaultInjectionPolicy,
            Self::Cors(_) => Kind::CorsPolicy,
            Self::Csrf(_) => Kind::CsrfPolicy,
            Self::Access(_) => Kind::AccessPolicy,
            Self::ClientTls(_) => Kind::ClientTlsPolicy,
            Self::Outlier(_) => Kind::OutlierDetectionPolicy,
            Self::Failover(_) => Kind::FailoverPolicy,
            Self::Jwt(_) => Kind::JwtPolicy,
            Self::RateLimit(_) => Kind::RateLimitPolicy,
            Self::ExtAuth(_) => Kind::ExtAuthPolicy,
            #[cfg(test)]
            Self::Teapot(_) => Kind::TeapotPolicy,
        }
    }
}

/// Headers that are removed and added, on the way up and on the way back.
///
/// Names are lower case and valid tokens. Values are Envoy format strings that parse.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderManipulation {
    /// Added to the request after removal.
    pub append_request: BTreeMap<Name, Name>,
    /// Removed from the request first.
    pub remove_request: BTreeSet<Name>,
    /// Added to the response after removal.
    pub append_response: BTreeMap<Name, Name>,
    /// Removed from the response first.
    pub remove_response: BTreeSet<Name>,
    /// A `Host` that was to be appended: it becomes the rewritten host.
    pub host: Option<Name>,
}

/// Timeout and retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetryTimeout {
    /// Whole request with retries; `None` means none is set, which is no timeout.
    pub request_timeout: Option<Duration>,
    /// `None` keeps the baseline.
    pub retries: Option<Retries>,
}

/// Retries in place of the baseline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Retries {
    /// Retries after the first try; 0 switches them off.
    pub attempts: u32,
    /// Each try.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions, in the order written and never empty; `retriable-status-codes` among them where there are codes.
    pub retry_on: Vec<Name>,
    /// Statuses that are retried as well, 100 to 599.
    pub retriable_status_codes: Vec<u16>,
    /// Retry in further priorities.
    pub retry_remote_localities: bool,
}

/// Injected faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultInjection {
    /// Delay before anything else.
    pub delay: Option<FaultDelay>,
    /// Answer in place of the upstream's.
    pub abort: Option<FaultAbort>,
}

/// A share of requests that wait.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultDelay {
    /// At least 1 ms, whole milliseconds.
    pub fixed_delay: Duration,
    /// Share in parts per million, 0 to 1,000,000.
    pub per_million: u32,
}

/// A share of requests that are answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultAbort {
    /// 200 to 599.
    pub http_status: u16,
    /// Share in parts per million, 0 to 1,000,000.
    pub per_million: u32,
}

/// Cross-origin rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cors {
    /// Origins that are allowed; empty allows none.
    pub allow_origins: Vec<OriginMatch>,
    /// Empty leaves the header out.
    pub allow_methods: Vec<Name>,
    /// Empty leaves the header out.
    pub allow_headers: Vec<Name>,
    /// Empty leaves the header out.
    pub expose_headers: Vec<Name>,
    /// Whole seconds; absent leaves the header out.
    pub max_age_seconds: Option<u64>,
    /// Absent leaves it unset.
    pub allow_credentials: Option<bool>,
}

/// Where a filter stands beside authorization.
///
/// # Rule
/// R125.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The side.
    pub phase: Phase,
    /// Lower runs first.
    pub priority: i32,
}

/// The side of authorization on which a filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Before it.
    PreAuthz,
    /// After it.
    PostAuthz,
}

/// A condition on a text in which `*` stood for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TextPattern {
    /// Any text that is there.
    Any,
    /// The whole text.
    Exact(Name),
    /// Its head.
    Prefix(Name),
    /// Its tail.
    Suffix(Name),
    /// RE2, the whole text.
    Regex(Name),
}

/// One way to match an origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginMatch {
    /// The condition.
    pub pattern: OriginPattern,
    /// Not for expressions.
    pub ignore_case: bool,
}

/// The condition on an origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OriginPattern {
    /// The whole origin.
    Exact(Name),
    /// Its head.
    Prefix(Name),
    /// Its tail.
    Suffix(Name),
    /// RE2, the whole origin.
    Regex(Name),
}

/// What the made-up kind does.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Teapot {
    /// What stands in the response header `x-teapot`.
    pub tea: Name,
}
