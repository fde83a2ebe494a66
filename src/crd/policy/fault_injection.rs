//! FaultInjectionPolicy: delays and aborts a share of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::RouteSelector;
use crate::crd::Duration;

/// Delays and aborts a share of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultInjectionPolicy {
    /// Routes; empty means all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// The faults.
    pub config: Option<FaultInjection>,
}

/// Faults; at least one of the two is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultInjection {
    /// Delay requests.
    pub delay: Option<FaultDelay>,
    /// Abort requests.
    pub abort: Option<FaultAbort>,
}

/// A delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// Length, at least 1ms, whole milliseconds; required.
    pub fixed_delay: Option<Duration>,
    /// Share of requests in percent, 0 or 0.0001 to 100; left out means 100.
    pub percentage: Option<f64>,
}

/// An abort.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// Status of the answer, 200 to 599; required.
    pub http_status: Option<i32>,
    /// Share of requests in percent, 0 or 0.0001 to 100; left out means 100.
    pub percentage: Option<f64>,
}
