//! Policies that are read but not yet supported.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{
    DestinationSelector, ListenerSelector, RouteDestinationSelector, RouteSelector, WorkloadSelector,
};

/// A policy of a kind that is not yet supported: what it applies to is known, what it does is not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct OpaquePolicy {
    /// Routes.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Destinations of routes.
    pub apply_to_route_destinations: Vec<RouteDestinationSelector>,
    /// Destinations.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// Listeners.
    pub apply_to_listeners: Vec<ListenerSelector>,
    /// Workloads.
    pub apply_to_workloads: Vec<WorkloadSelector>,
    /// What the policy does, as written.
    pub config: Option<serde_json::Value>,
}
