//! JWTPolicy: verifies tokens and checks their claims.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::{DestinationSelector, RouteSelector};
use crate::crd::Duration;
use crate::crd::common::{DestinationReference, ObjectReference, PrioritizedPhase};

/// Verifies tokens on routes or on the way to Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtPolicy {
    /// Routes; with the next list also empty, all routes of the workspace.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Services.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// What is verified.
    pub config: Option<Jwt>,
}

/// What is verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Jwt {
    /// Issuers by a name of their own; a token of any of them suffices. At least one is required.
    pub providers: BTreeMap<String, JwtProvider>,
    /// Where the policy runs; before authorization when left out.
    pub phase: Option<PrioritizedPhase>,
    /// What becomes of requests without a valid token.
    pub validation_policy: JwtValidationPolicy,
    /// The same as `ALLOW_MISSING_OR_FAILED`. Deprecated: write `validationPolicy`.
    pub allow_missing_or_failed: bool,
    /// Whether the route is chosen again after verification.
    pub clear_route_cache: ClearRouteCache,
    /// What the token must claim; all must hold.
    pub claims: Vec<JwtClaim>,
    /// Scopes that the token must have, all of them.
    pub required_scopes: Vec<String>,
}

/// What becomes of requests without a valid token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JwtValidationPolicy {
    /// They are refused; the default.
    #[default]
    RequireValid,
    /// Requests without a token pass.
    AllowMissing,
    /// Requests without a token or with a bad one pass.
    AllowMissingOrFailed,
}

/// Whether the route is chosen again after a filter. In YAML, `TRUE` and `FALSE` need no quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClearRouteCache {
    /// Where it can make a difference; the default.
    #[default]
    Auto,
    /// Never.
    False,
    /// Always.
    True,
}

/// An issuer of tokens. One of `local` and `remote` is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["local", "remote"]]))]
pub struct JwtProvider {
    /// What `iss` must be; empty means anything.
    pub issuer: String,
    /// One of them must be in `aud`; empty means anything.
    pub audiences: Vec<String>,
    /// Where the token stands; left out means the header `Authorization: Bearer` and the parameter `access_token`.
    pub token_source: Option<JwtTokenSource>,
    /// Keys that are written here or in a Secret.
    pub local: Option<JwtLocalKeys>,
    /// Keys that are fetched.
    pub remote: Option<JwtRemoteKeys>,
    /// Claims that become request headers.
    pub claims_to_headers: Vec<JwtClaimToHeader>,
    /// Header that gets the whole payload in base64; empty means none.
    pub output_payload_to_header: String,
    /// Leave the token in the request; `false` when left out.
    pub keep_token: bool,
    /// Tolerance for times in tokens, in seconds; left out means 60.
    pub clock_skew_seconds: Option<u32>,
}

/// Where the token stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtTokenSource {
    /// Headers.
    pub headers: Vec<JwtTokenHeader>,
    /// Query parameters.
    pub query_params: Vec<String>,
}

/// A header that holds a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtTokenHeader {
    /// Name of the header; required.
    pub name: String,
    /// What stands before the token, with the space at its end.
    pub prefix: String,
}

/// Keys that are written here or in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["inline", "secretRef"]]))]
pub struct JwtLocalKeys {
    /// Public keys in PEM, or a JWKS document.
    pub inline: Option<String>,
    /// The same in a Secret.
    pub secret_ref: Option<JwtSecretKey>,
}

/// An entry of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtSecretKey {
    /// The Secret; required.
    pub object_ref: Option<ObjectReference>,
    /// Its entry; required.
    pub key: String,
}

/// Keys that are fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRemoteKeys {
    /// Where the JWKS document is; required.
    pub url: String,
    /// What serves it; left out means the host of `url`.
    pub destination_ref: Option<DestinationReference>,
    /// How long keys are kept, at least 1ms; left out means 5 minutes.
    pub cache_duration: Option<Duration>,
    /// Time for one fetch, at least 1ms; left out means 5 seconds.
    pub timeout: Option<Duration>,
    /// Fetch before the first request; `false` when left out.
    pub enable_async_fetch: bool,
}

/// A claim that becomes a request header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtClaimToHeader {
    /// The claim; required.
    pub claim: String,
    /// The header; required.
    pub header: String,
    /// Keep values that the header has; `false` when left out.
    pub append: bool,
}

/// What a token must claim. At least one of the two lists is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtClaim {
    /// Name of the claim; required.
    pub key: String,
    /// One of these must match; `*` stands for any run of characters.
    pub values: Vec<String>,
    /// None of these may match; an absent claim satisfies that.
    pub not_values: Vec<String>,
    /// What separates the names of nested claims in `key`; empty means that `key` is one name.
    pub nested_claim_delimiter: String,
}
