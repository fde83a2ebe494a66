//! ExtAuthPolicy: authenticates and authorizes requests.
//!
//! What a password is checked against stands in the manifest, so most types here cannot be serialised, and printing them
//! shows no secret. Methods of which nothing is read yet are free-form.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::selector::{DestinationSelector, RouteSelector};
use crate::crd::Duration;
use crate::crd::common::{Empty, ObjectRef, ObjectReference};
use crate::crd::secret::SecretText;

/// Authenticates and authorizes requests on routes or on the way to Services.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthPolicy {
    /// Routes.
    pub apply_to_routes: Vec<RouteSelector>,
    /// Services; with the list before also empty, all of the workspace.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// How.
    pub config: Option<ExtAuth>,
}

/// How requests are checked. One of `glooAuth` and `customAuth` is required.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["disable", "glooAuth", "customAuth"]]))]
pub struct ExtAuth {
    /// Deprecated, and refused whatever its value.
    pub disable: Option<bool>,
    /// By methods that are built in.
    pub gloo_auth: Option<GlooAuth>,
    /// By a server of one's own.
    pub custom_auth: Option<CustomAuth>,
    /// The ExtAuthServer for `customAuth`; left out means the oldest of the workspace. Ignored beside `glooAuth`.
    pub server: Option<ObjectReference>,
}

/// A check by a server of one's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomAuth {
    /// What the server is told beside the request; for gRPC servers.
    pub context_extensions: BTreeMap<String, String>,
}

/// Checks by methods that are built in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GlooAuth {
    /// The methods; all must pass, in this order, unless `booleanExpr` says otherwise. At least one is required.
    pub configs: Vec<AuthMethod>,
    /// Which must pass: names with `&&`, `||`, `!` and parentheses; empty means all.
    pub boolean_expr: String,
    /// Answer 401 where a method would redirect to a login; `false` when left out.
    pub fail_on_redirect: bool,
}

/// One method. Exactly one field beside `name` is required.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["basicAuth", "oauth", "oauth2", "apiKeyAuth", "pluginAuth", "opaAuth", "ldap", "jwt",
    "passThroughAuth", "hmacAuth", "opaServerAuth"]]))]
pub struct AuthMethod {
    /// Its name for `booleanExpr`; left out means `config_` with its position, counted from 0.
    pub name: Option<String>,
    /// User name and password.
    pub basic_auth: Option<BasicAuth>,
    /// Deprecated: write `oauth2`. Not supported.
    pub oauth: Option<Value>,
    /// OAuth 2 and OpenID Connect.
    pub oauth2: Option<OAuth2>,
    /// A key in a header.
    pub api_key_auth: Option<ApiKeyAuth>,
    /// A plug-in; not supported.
    pub plugin_auth: Option<Value>,
    /// Rego rules; not supported.
    pub opa_auth: Option<Value>,
    /// LDAP; not supported.
    pub ldap: Option<Value>,
    /// What a JWTPolicy on the same target found.
    pub jwt: Option<Empty>,
    /// A server of one's own.
    pub pass_through_auth: Option<PassThroughAuth>,
    /// Signed requests; not supported.
    pub hmac_auth: Option<Value>,
    /// Rego rules on a server; not supported.
    pub opa_server_auth: Option<Value>,
}

/// User name and password: either `apr`, or `encryption` with `userList`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BasicAuth {
    /// What the browser shows; empty means nothing in particular.
    pub realm: String,
    /// Users with APR1 hashes; not supported.
    pub apr: Option<UserList>,
    /// How the passwords of `userList` are hashed.
    pub encryption: Option<PasswordEncryption>,
    /// Users.
    pub user_list: Option<UserList>,
}

/// How passwords are hashed. Exactly one is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["apr", "sha1"]]))]
pub struct PasswordEncryption {
    /// APR1; not supported.
    pub apr: Option<Empty>,
    /// SHA-1.
    pub sha1: Option<Empty>,
}

/// Users by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserList {
    /// Users by name; at least one is required.
    pub users: BTreeMap<String, BasicAuthUser>,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BasicAuthUser {
    /// What is hashed with the password; only empty is supported.
    pub salt: SecretText,
    /// The hash: 40 hexadecimal digits, or base64; required.
    pub hashed_password: SecretText,
}

/// OAuth 2 and OpenID Connect. Exactly one is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["oidcAuthorizationCode", "accessTokenValidation", "oauth2"]]))]
pub struct OAuth2 {
    /// Login by OpenID Connect; not supported.
    pub oidc_authorization_code: Option<Value>,
    /// Access tokens that the client brings.
    pub access_token_validation: Option<AccessTokenValidation>,
    /// Login by plain OAuth 2; not supported.
    pub oauth2: Option<Value>,
}

/// Access tokens that the client brings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["jwt", "introspection", "introspectionUrl"]]))]
pub struct AccessTokenValidation {
    /// Tokens that are JWTs.
    pub jwt: Option<AccessTokenJwt>,
    /// Ask the issuer about each; not supported.
    pub introspection: Option<Value>,
    /// Deprecated form of `introspection`; not supported.
    pub introspection_url: Option<String>,
    /// Scopes that the token must have, all of them.
    pub required_scopes: Option<RequiredScopes>,
    /// Ask the issuer about the user; not supported.
    pub userinfo_url: String,
    /// How long answers of the issuer are kept; without effect on JWTs.
    pub cache_timeout: Option<Duration>,
    /// Claims for later filters, by their name there.
    pub dynamic_metadata_from_claims: BTreeMap<String, String>,
}

/// Access tokens that are JWTs. One of the sources of keys is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["remoteJwks", "localJwks"]]))]
pub struct AccessTokenJwt {
    /// Keys that are fetched.
    pub remote_jwks: Option<RemoteJwks>,
    /// Keys that are written here.
    pub local_jwks: Option<LocalJwks>,
    /// What `iss` must be; empty means anything.
    pub issuer: String,
}

/// Keys that are fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RemoteJwks {
    /// Where the JWKS document is; required.
    pub url: String,
    /// How long keys are kept, at least 1ms; left out means 5 minutes.
    pub refresh_interval: Option<Duration>,
}

/// Keys that are written here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalJwks {
    /// A JWKS document; required.
    pub inline_string: String,
}

/// Scopes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequiredScopes {
    /// All of them.
    pub scope: Vec<String>,
}

/// A key in a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["k8sSecretApikeyStorage", "aerospikeApikeyStorage"]]))]
pub struct ApiKeyAuth {
    /// The header; empty means `api-key`.
    pub header_name: String,
    /// Keys in Secrets.
    pub k8s_secret_apikey_storage: Option<ApiKeySecrets>,
    /// Keys in another database; not supported.
    pub aerospike_apikey_storage: Option<Value>,
    /// Deprecated: write it below `k8sSecretApikeyStorage`, beside which this is ignored.
    pub label_selector: BTreeMap<String, String>,
    /// Deprecated: write it below `k8sSecretApikeyStorage`, beside which this is ignored.
    pub api_key_secret_refs: Vec<ObjectRef>,
    /// Request headers out of the other entries of the client's Secret.
    pub headers_from_metadata_entry: BTreeMap<String, SecretEntry>,
    /// Deprecated: write `headersFromMetadataEntry`, which decides where both name a header.
    pub headers_from_metadata: BTreeMap<String, SecretEntry>,
}

/// Keys in Secrets of the type `extauth.solo.io/apikey`, by label and by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiKeySecrets {
    /// Labels that the Secret must carry; empty selects none.
    pub label_selector: BTreeMap<String, String>,
    /// Secrets by name.
    pub api_key_secret_refs: Vec<ObjectRef>,
}

/// An entry of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretEntry {
    /// Its name; required.
    pub name: String,
    /// A key without this entry is not valid; `false` when left out.
    pub required: bool,
}

/// A server of one's own. One of `grpc` and `http` is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["grpc", "http"]]))]
pub struct PassThroughAuth {
    /// It speaks Envoy's authorization protocol.
    pub grpc: Option<PassThroughGrpc>,
    /// It answers requests like the client's.
    pub http: Option<PassThroughHttp>,
    /// What the server is told beside the request; not supported.
    pub config: Option<Value>,
    /// Let requests pass when the server fails; `false` when left out.
    pub failure_mode_allow: bool,
}

/// A server that speaks Envoy's authorization protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughGrpc {
    /// `host:port`; required.
    pub address: String,
    /// Time allowed, at least 1ms; left out means 5 seconds.
    pub connection_timeout: Option<Duration>,
    /// Speak TLS; `{}` is enough.
    pub tls_config: Option<Empty>,
    /// Retries; left out means none.
    pub retry_policy: Option<PassThroughRetries>,
}

/// Retries of a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughRetries {
    /// Retries after the first try; left out means 1.
    pub num_retries: Option<u32>,
    /// Time between tries.
    pub retry_back_off: Option<PassThroughBackOff>,
}

/// Time between tries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughBackOff {
    /// Before the first retry, at least 1ms; left out means 1 second.
    pub base_interval: Option<Duration>,
    /// At most, and not less than `baseInterval`; left out means ten times as much.
    pub max_interval: Option<Duration>,
}

/// A server that answers requests like the client's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughHttp {
    /// Where it is; required.
    pub url: String,
    /// What it gets.
    pub request: Option<PassThroughRequest>,
    /// What becomes of its answer.
    pub response: Option<PassThroughResponse>,
    /// Time allowed, at least 1ms; left out means 5 seconds.
    pub connection_timeout: Option<Duration>,
}

/// What the server gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughRequest {
    /// Headers of the client to forward.
    pub allowed_headers: Vec<String>,
    /// Headers to set.
    pub headers_to_add: BTreeMap<String, String>,
    /// What earlier methods found; not supported.
    pub pass_through_state: bool,
    /// What earlier filters found; not supported.
    pub pass_through_filter_metadata: bool,
    /// The body; not supported.
    pub pass_through_body: bool,
}

/// What becomes of the server's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PassThroughResponse {
    /// Headers of the answer added to the upstream request.
    pub allowed_upstream_headers: Vec<String>,
    /// Headers of the answer that replace those of the upstream request.
    pub allowed_upstream_headers_to_overwrite: Vec<String>,
    /// Headers of the answer that the client gets on denial.
    pub allowed_client_headers_on_denied: Vec<String>,
    /// What later methods find; not supported.
    pub read_state_from_response: bool,
}
