//! CORSPolicy: rules for requests from other origins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::RouteSelector;
use crate::crd::Duration;
use crate::crd::common::StringMatch;

/// Rules for requests from other origins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Routes; empty means all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// The rules.
    pub config: Option<Cors>,
}

/// What browsers are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Origins that are allowed: full URL origins, any may match; empty means none.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that are allowed; empty leaves the header out.
    pub allow_methods: Vec<String>,
    /// Request headers that are allowed; empty leaves the header out.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight is remembered, whole seconds; left out leaves the header out.
    pub max_age: Option<Duration>,
    /// Whether credentials are allowed; left out leaves the header out.
    pub allow_credentials: Option<bool>,
}
