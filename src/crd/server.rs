//! Servers that gateways ask: ExtAuthServer, RateLimitServerSettings, RateLimitServerConfig.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;
use super::common::DestinationReference;

/// How gateways reach the external authorization server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthServer {
    /// Service or VirtualDestination; left out means the Service `ext-auth-service` in `gloo-mesh` of the gateway's
    /// cluster.
    pub destination_server: Option<DestinationReference>,
    /// Speak HTTP; left out means gRPC.
    pub http_service: Option<HttpAuthService>,
    /// Time allowed; left out means 2 seconds.
    pub request_timeout: Option<Duration>,
    /// Let requests pass when the server fails; `false` when left out.
    pub failure_mode_allow: bool,
    /// Send the body too; `{}` is enough.
    pub request_body: Option<BufferSettings>,
    /// Choose the route again after a permitted check that changed headers; `false` when left out.
    pub clear_route_cache: bool,
    /// HTTP status when the server cannot be reached; 0 means 403.
    pub status_on_error: u32,
    /// Version of the protocol; all compile alike.
    pub transport_api_version: TransportApiVersion,
    /// Further prefix of statistics.
    pub stat_prefix: String,
}

/// Version of the authorization protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TransportApiVersion {
    /// Chosen by the platform; the default.
    #[default]
    GlooMeshAuto,
    /// Chosen by Envoy.
    EnvoyAuto,
    /// Version 3.
    V3,
}

/// Authorization over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuthService {
    /// Prefix for the request's path.
    pub path_prefix: String,
    /// What the server gets.
    pub request: Option<HttpAuthRequest>,
    /// What becomes of the server's answer.
    pub response: Option<HttpAuthResponse>,
}

/// What an HTTP authorization server gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuthRequest {
    /// Headers of the client to forward.
    pub allowed_headers: Vec<String>,
    /// Headers to set; they override the client's.
    pub headers_to_add: BTreeMap<String, String>,
}

/// What becomes of an HTTP authorization server's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuthResponse {
    /// Headers of the answer copied onto the upstream request, overriding it.
    pub allowed_upstream_headers: Vec<String>,
    /// Headers of the answer returned to the client on denial; empty means all but Host.
    pub allowed_client_headers: Vec<String>,
}

/// How much of a body is sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BufferSettings {
    /// Largest body in bytes; 0 means 4096. Larger ones get 413.
    pub max_request_bytes: u32,
    /// Send the first bytes instead of 413; `false` when left out.
    pub allow_partial_message: bool,
    /// Send raw bytes, gRPC only; `false` when left out.
    pub pack_as_bytes: bool,
}

/// How gateways reach the rate-limit service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitServerSettings {
    /// The service to ask; left out means the Service `rate-limiter` in `gloo-mesh`.
    pub destination_server: Option<DestinationReference>,
    /// Time allowed; left out means 100 milliseconds.
    pub request_timeout: Option<Duration>,
    /// Refuse requests when the service does not answer; `false` when left out.
    pub deny_on_fail: bool,
}

/// The rules that the rate-limit service enforces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["raw"]]))]
pub struct RateLimitServerConfig {
    /// Rules in the server's own format.
    pub raw: Option<RateLimitRules>,
    /// The servers that get these rules; at least one is required.
    pub destination_servers: Vec<DestinationReference>,
}

/// Rules in the server's own format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitRules {
    /// Rules as trees.
    pub descriptors: Vec<Descriptor>,
    /// Rules as sets.
    pub set_descriptors: Vec<SetDescriptor>,
}

/// A rule of a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Key of the entry; required.
    pub key: String,
    /// Value of the entry; empty means any, counted separately per value.
    pub value: String,
    /// The limit; left out without nested rules means none.
    pub rate_limit: Option<RateLimit>,
    /// Nested rules; the most specific match applies.
    pub descriptors: Vec<Descriptor>,
    /// Priority among top-level rules, only the highest that match count; 0 when left out.
    pub weight: u32,
    /// Evaluate whatever the weight; `false` when left out.
    pub always_apply: bool,
}

/// A rule of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SetDescriptor {
    /// Entries that the request must contain, in any order; empty means every request.
    pub simple_descriptors: Vec<SimpleDescriptor>,
    /// The limit; required.
    pub rate_limit: Option<RateLimit>,
    /// Evaluate even when an earlier rule matched; `false` when left out.
    pub always_apply: bool,
}

/// An entry of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SimpleDescriptor {
    /// Key; required.
    pub key: String,
    /// Value; empty means any, counted separately per value.
    pub value: String,
}

/// Requests per time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// The window; required.
    pub unit: RateLimitUnit,
    /// Requests per window; 0 means none.
    pub requests_per_unit: u32,
}

/// Window of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RateLimitUnit {
    /// Not said, which is an error.
    #[default]
    Unknown,
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
}
