//! HeaderManipulationPolicy: removes and adds headers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{RouteDestinationSelector, RouteSelector};

/// Removes or adds headers on routes, or on some destinations of routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderManipulationPolicy {
    /// Routes; with the next list also empty, all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Destinations of routes.
    pub apply_to_route_destinations: Vec<RouteDestinationSelector>,
    /// What to change.
    pub config: Option<HeaderManipulation>,
}

/// Headers to remove and to add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderManipulation {
    /// Headers that the upstream does not get.
    pub remove_request_headers: Vec<String>,
    /// Headers added before the upstream.
    pub append_request_headers: BTreeMap<String, String>,
    /// Headers that the client does not get.
    pub remove_response_headers: Vec<String>,
    /// Headers added before the client.
    pub append_response_headers: BTreeMap<String, String>,
}
