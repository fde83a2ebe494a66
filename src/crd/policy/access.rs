//! AccessPolicy: which clients may call what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{DestinationSelector, IdentitySelector, NamespaceWorkloadSelector};
use crate::crd::common::EnforcementLayers;

/// Says which clients may call what on some destinations or workloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPolicy {
    /// Destinations; ignored where workloads are selected. With both empty, all Services of the workspace.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// Workloads; `{}` selects all of the workspace.
    pub apply_to_workloads: Vec<NamespaceWorkloadSelector>,
    /// Who may do what.
    pub config: Option<Access>,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Whether clients must show a certificate.
    pub authn: Option<AccessAuthentication>,
    /// One entry. Deprecated: write `authzList`, beside which this is ignored.
    pub authz: Option<Authorization>,
    /// Entries; a request passes that one of them allows. An entry without fields allows nothing, so that everything is
    /// denied that no other entry allows.
    pub authz_list: Vec<Authorization>,
    /// Where the policy is enforced.
    pub enforcement_layers: Option<EnforcementLayers>,
}

/// Whether clients must show a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessAuthentication {
    /// `DISABLE` when left out.
    pub tls_mode: PeerTlsMode,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PeerTlsMode {
    /// They need not; the default.
    #[default]
    Disable,
    /// They may.
    Permissive,
    /// They must.
    Strict,
}

/// What some clients may call. All that is written must hold; of each list, one item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorization {
    /// Who calls; `{}` is any client. Empty means any client where another field is written.
    pub allowed_clients: Vec<IdentitySelector>,
    /// Paths without query: `/exact`, `/head*`, `*tail` or `*`; for gRPC `/package.Service/Method`. Empty means any.
    pub allowed_paths: Vec<String>,
    /// HTTP methods in upper case; for gRPC always `POST`. Empty means any.
    pub allowed_methods: Vec<String>,
    /// Further conditions on the request.
    pub r#match: Option<AccessMatch>,
    /// Addresses or CIDR blocks that the connection may come from; empty means any.
    pub allowed_ip_blocks: Vec<String>,
    /// Addresses or CIDR blocks that the client may have, as proxies on the way report it; empty means any.
    pub allowed_remote_ip_blocks: Vec<String>,
    /// Only evaluate and log; `false` when left out.
    pub dry_run: bool,
}

/// Conditions on a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessMatch {
    /// Conditions on the request.
    pub request: Option<AccessRequest>,
}

/// Conditions on a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessRequest {
    /// By name of the header.
    pub headers: BTreeMap<String, AccessHeader>,
}

/// Values of a header; at least one of the two lists is required. `*` stands for any run of characters, anywhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessHeader {
    /// One of these must match.
    pub values: Vec<String>,
    /// None of these may match; an absent header satisfies that.
    pub not_values: Vec<String>,
}
