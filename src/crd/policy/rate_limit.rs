//! RateLimitPolicy and RateLimitClientConfig: what the rate-limit service is told about a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{DestinationSelector, RouteSelector};
use crate::crd::common::{Empty, ObjectReference, PrioritizedPhase};

/// Limits requests on routes or on the way to Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitPolicy {
    /// Routes.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Services; with the list before also empty, all of the workspace.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// Which limits.
    pub config: Option<RateLimits>,
}

/// Which limits. At most one of `raw` and `ratelimitClientConfig` is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["raw", "ratelimitClientConfig"]]))]
pub struct RateLimits {
    /// Where the policy runs; after authorization when left out.
    pub phase: Option<PrioritizedPhase>,
    /// The RateLimitServerConfig; left out, nothing is limited.
    pub ratelimit_server_config: Option<ObjectReference>,
    /// The RateLimitServerSettings; left out means the usual server.
    pub server_settings: Option<ObjectReference>,
    /// What the server is told.
    pub raw: Option<RawRateLimits>,
    /// The RateLimitClientConfig that says what the server is told.
    pub ratelimit_client_config: Option<ObjectReference>,
}

/// What a rate-limit server is told, for several policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["raw"]]))]
pub struct RateLimitClientConfig {
    /// What the server is told; required.
    pub raw: Option<RawRateLimits>,
}

/// What a rate-limit server is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RawRateLimits {
    /// Each makes its own entries.
    pub rate_limits: Vec<RateLimitActions>,
}

/// Entries for a request. At least one of the two lists is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitActions {
    /// In this order, for rules that are trees; sent only if each yields an entry.
    pub actions: Vec<RateLimitAction>,
    /// In any order, for rules that are sets.
    pub set_actions: Vec<RateLimitAction>,
    /// A limit that the request itself carries.
    pub limit: Option<RateLimitOverride>,
}

/// One entry. Exactly one field is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["sourceCluster", "destinationCluster", "requestHeaders", "remoteAddress", "genericKey",
    "headerValueMatch", "metadata"]]))]
pub struct RateLimitAction {
    /// `source_cluster` with the gateway's own name.
    pub source_cluster: Option<Empty>,
    /// `destination_cluster` with the name of the upstream.
    pub destination_cluster: Option<Empty>,
    /// A key with the value of a request header.
    pub request_headers: Option<RateLimitRequestHeaders>,
    /// `remote_address` with the client's address.
    pub remote_address: Option<Empty>,
    /// `generic_key` with a fixed value.
    pub generic_key: Option<RateLimitGenericKey>,
    /// `header_match` with a fixed value, where headers match.
    pub header_value_match: Option<RateLimitHeaderValueMatch>,
    /// A key with a value out of metadata.
    pub metadata: Option<RateLimitMetadata>,
}

/// A key with the value of a request header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitRequestHeaders {
    /// The header; required.
    pub header_name: String,
    /// The key; required.
    pub descriptor_key: String,
}

/// A fixed entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitGenericKey {
    /// The value; required.
    pub descriptor_value: String,
}

/// An entry where headers match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitHeaderValueMatch {
    /// The value; required.
    pub descriptor_value: String,
    /// `false`: where the headers do not match; left out means `true`.
    pub expect_match: Option<bool>,
    /// All must match; at least one is required.
    pub headers: Vec<RateLimitHeader>,
}

/// A condition on a header; the header must be there where nothing is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["exactMatch", "regexMatch", "rangeMatch", "presentMatch", "prefixMatch",
    "suffixMatch"]]))]
pub struct RateLimitHeader {
    /// The header; required.
    pub name: String,
    /// The whole value.
    pub exact_match: Option<String>,
    /// An RE2 expression for the whole value, at most 1024 bytes.
    pub regex_match: Option<String>,
    /// The value is a whole number in a range.
    pub range_match: Option<Int64Range>,
    /// Whether the header is there.
    pub present_match: Option<bool>,
    /// The head of the value.
    pub prefix_match: Option<String>,
    /// The tail of the value.
    pub suffix_match: Option<String>,
    /// The condition must not hold; `false` when left out.
    pub invert_match: bool,
}

/// Whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Int64Range {
    /// The first.
    pub start: i64,
    /// The first that no longer belongs to it.
    pub end: i64,
}

/// A key with a value out of metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitMetadata {
    /// The key; required.
    pub descriptor_key: String,
    /// Where the value stands, which must be a text; required.
    pub metadata_key: Option<MetadataKey>,
    /// The value where there is none; empty means no entry.
    pub default_value: String,
    /// Whose metadata.
    pub source: RateLimitMetadataSource,
}

/// Whose metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RateLimitMetadataSource {
    /// The request's; the default.
    #[default]
    Dynamic,
    /// The route's.
    RouteEntry,
}

/// A place in metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetadataKey {
    /// The filter that wrote it; required.
    pub key: String,
    /// The way to the value; at least one step is required.
    pub path: Vec<MetadataPathSegment>,
}

/// A step in metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["key"]]))]
pub struct MetadataPathSegment {
    /// The field; required.
    pub key: Option<String>,
}

/// A limit that the request itself carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["dynamicMetadata"]]))]
pub struct RateLimitOverride {
    /// Where it stands.
    pub dynamic_metadata: Option<DynamicMetadataLimit>,
}

/// A limit in the request's metadata: an object with `requests_per_unit` and `unit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DynamicMetadataLimit {
    /// Where it stands; required.
    pub metadata_key: Option<MetadataKey>,
}
