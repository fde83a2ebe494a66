//! RetryTimeoutPolicy: how long a request may take and how often it is tried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::RouteSelector;
use crate::crd::Duration;

/// Time and tries of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryTimeoutPolicy {
    /// Routes; empty means all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Time and tries.
    pub config: Option<RetryTimeout>,
}

/// Time and tries; at least one of the two is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryTimeout {
    /// For the whole request with its retries, at least 1ms, whole milliseconds; left out or 0 means no limit.
    pub request_timeout: Option<Duration>,
    /// Retries; left out means the gateway's usual ones.
    pub retries: Option<RetryPolicy>,
}

/// Retries of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPolicy {
    /// Retries after the first try; left out means 2, 0 switches retries off.
    pub attempts: Option<i32>,
    /// For each try, at least 1ms; left out means no limit.
    pub per_try_timeout: Option<Duration>,
    /// Conditions and HTTP status codes, separated by commas; empty means the default list.
    pub retry_on: String,
    /// Try other localities; `false` when left out.
    pub retry_remote_localities: Option<bool>,
}
