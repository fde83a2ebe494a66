//! CSRFPolicy: refuses requests that change state and come from other origins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::RouteSelector;
use crate::crd::common::StringMatch;

/// Refuses requests that change state and come from other origins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CsrfPolicy {
    /// Routes; empty means all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// What is refused.
    pub config: Option<Csrf>,
}

/// What is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Csrf {
    /// Refuse requests of other origins; `false` when left out.
    pub filter_enabled: bool,
    /// Only count them; ignored where `filterEnabled` is set; `false` when left out.
    pub shadow_enabled: bool,
    /// Share of requests in percent, 0 or 0.0001 to 100; left out means 100.
    pub percentage: Option<f64>,
    /// Origins that are allowed beside the host that is called: hosts with their port where it is not the usual one, and
    /// without a scheme.
    pub additional_origins: Vec<StringMatch>,
}
