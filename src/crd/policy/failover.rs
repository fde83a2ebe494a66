//! FailoverPolicy: which endpoints take over from which, by where they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::DestinationSelector;

/// The order in which endpoints are used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverPolicy {
    /// Services and virtual destinations; empty means all of the workspace.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// The order.
    pub config: Option<Failover>,
}

/// The order, by place or by label; by place where both are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// By the gateway's own place; empty keeps to the nearest.
    pub locality_mappings: Vec<LocalityMapping>,
    /// By labels that endpoints have in common with the gateway.
    pub priority_labels: Option<PriorityLabels>,
}

/// Where gateways of a place send to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityMapping {
    /// The place of the gateways; `region` is required.
    pub from: Option<Locality>,
    /// Where to, in order; with weights, in these shares.
    pub to: Vec<WeightedLocality>,
}

/// A place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone; empty means any.
    pub zone: String,
    /// Sub-zone; empty means any.
    pub sub_zone: String,
}

/// A place and its share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedLocality {
    /// Region; required.
    pub region: String,
    /// Zone; empty means any.
    pub zone: String,
    /// Sub-zone; empty means any.
    pub sub_zone: String,
    /// In percent; all together are 100.
    pub weight: Option<u32>,
}

/// Labels, the most important first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityLabels {
    /// `key`, to be as on the gateway, or `key=value`; one form for all.
    pub labels: Vec<String>,
}
