//! TeapotPolicy: a made-up kind that shows what adding a policy kind takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::RouteSelector;

/// Makes routes say what tea they serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TeapotPolicy {
    /// Routes; empty means all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// The tea.
    pub config: Option<Teapot>,
}

/// A teapot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Teapot {
    /// Kind of tea; required.
    pub tea: String,
}
