//! What a policy applies to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::crd::common::WorkloadSelector;
use crate::crd::common::{DestinationKind, ObjectSelector, PortSelector};

/// Selects routes. `{}` selects every route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["route", "withDestinations"]]))]
pub struct RouteSelector {
    /// Routes by their effective labels and by their table.
    pub route: Option<RouteLabelSelector>,
    /// `forwardTo` routes by where they go, whatever their labels.
    pub with_destinations: Option<DestinationSelector>,
}

/// Selects routes by their effective labels and by their table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteLabelSelector {
    /// Labels that the route must have.
    pub labels: BTreeMap<String, String>,
    /// Namespace of the RouteTable; empty means any.
    pub namespace: String,
    /// Cluster of the RouteTable; empty means any.
    pub cluster: String,
    /// Workspace of the RouteTable; empty means any.
    pub workspace: String,
}

/// Selects destinations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationSelector {
    /// Labels, name and place; left out means any.
    pub selector: Option<ObjectSelector>,
    /// Kind of the destinations; `SERVICE` when left out.
    pub kind: DestinationKind,
    /// Port of the destination; left out means all ports.
    pub port: Option<PortSelector>,
}

/// Selects some destinations of some routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestinationSelector {
    /// The routes; left out means every route.
    pub route: Option<RouteLabelSelector>,
    /// The destinations of those routes; empty means all.
    pub on_destinations: Vec<DestinationSelector>,
}

/// Selects listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSelector {
    /// The VirtualGateways; left out means any.
    pub virtual_gateway: Option<ObjectSelector>,
    /// Port of the listener; left out means every listener.
    pub port: Option<PortSelector>,
}

/// Selects workloads in AccessPolicies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceWorkloadSelector {
    /// Labels and place of the workloads; left out means any.
    pub selector: Option<WorkloadPlace>,
}

/// Labels and place of workloads. All that is written must hold; what is left out does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadPlace {
    /// Labels that the workload must carry.
    pub labels: BTreeMap<String, String>,
    /// Exact namespace.
    pub namespace: String,
    /// Exact cluster.
    pub cluster: String,
    /// Name of the owning workspace.
    pub workspace: String,
}

/// Selects clients. All that is written must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentitySelector {
    /// Service accounts of clients.
    pub service_account_selector: Option<ObjectSelector>,
    /// Workloads outside the clusters; without meaning for gateways.
    pub external_workload_selector: Option<ObjectSelector>,
    /// What a verified token must say.
    pub request_identity_matcher: Option<RequestIdentityMatcher>,
}

/// What a verified token must say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestIdentityMatcher {
    /// Accepted `issuer/subject` pairs, with `*` for any run of characters at one end; empty means any.
    pub request_principals: Vec<String>,
    /// Refused `issuer/subject` pairs, in the same form.
    pub not_request_principals: Vec<String>,
}
