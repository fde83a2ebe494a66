//! OutlierDetectionPolicy: which endpoints are left alone for a while, because they fail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::DestinationSelector;
use crate::crd::Duration;

/// Ejection of endpoints that fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetectionPolicy {
    /// Virtual destinations and external services; empty means all of the workspace.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// When and for how long.
    pub config: Option<OutlierDetection>,
}

/// When endpoints are ejected, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Answers 5xx, and connections that fail, in a row; at least 1, left out means 5.
    pub consecutive_errors: Option<u32>,
    /// Answers 502, 503 and 504, and connections that fail, in a row; left out or 0 means that these do not count apart.
    pub consecutive_gateway_errors: Option<u32>,
    /// Between two looks at all endpoints, at least 1ms; left out means 10s.
    pub interval: Option<Duration>,
    /// For the first ejection, longer with each further one; at least 1ms, left out means 30s.
    pub base_ejection_time: Option<Duration>,
    /// The largest part of the endpoints that may be ejected, in percent; left out means 100, and 0 means 10.
    pub max_ejection_percent: Option<u32>,
}
