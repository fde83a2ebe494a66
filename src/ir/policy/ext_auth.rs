//! ExtAuthPolicy: how a request shows who sends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jwt::Keys;
use super::reference::{DestinationRef, HostPort, HttpUrl};
use crate::model::{Labels, Name, ObjectRef};

/// How a request is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExtAuth {
    /// By a server of the author's own.
    Custom(CustomAuth),
    /// By methods that are built in.
    Chain(AuthChain),
}

/// A check by a server of the author's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomAuth {
    /// The ExtAuthServer; absent means the oldest of the workspace.
    pub server: Option<ObjectRef>,
    /// What the server is told beside the request; for gRPC servers.
    pub context: BTreeMap<Name, Name>,
}

/// Methods that are built in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthChain {
    /// The methods that count, in the order written; at least one.
    pub methods: Vec<AuthMethod>,
    /// Positions of methods that must pass each by itself, ascending.
    pub mandatory: Vec<usize>,
    /// What must hold beside that, over methods of which [`Method::can_be_optional`] holds.
    pub rule: Option<AuthRule>,
    /// Answer 401 where a method would redirect to a login.
    pub fail_on_redirect: bool,
}

/// A method with its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthMethod {
    /// Unique within the policy.
    pub name: Name,
    /// What it is.
    pub method: Method,
}

/// A combination of methods, by their positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AuthRule {
    /// It passes.
    Method(usize),
    /// It does not hold.
    Not(Box<AuthRule>),
    /// All hold; at least two.
    All(Vec<AuthRule>),
    /// One holds; at least two.
    Any(Vec<AuthRule>),
}

/// A way to show who sends a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Method {
    /// User name and password.
    Basic(Basic),
    /// A key in a header.
    ApiKey(ApiKey),
    /// An access token that is a JWT.
    AccessToken(AccessToken),
    /// What a JWTPolicy on the same target found. Below an `or` or a `not` that policy must let every request pass.
    Jwt,
    /// A gRPC server of the author's own.
    Grpc(GrpcServer),
    /// An HTTP server of the author's own.
    Http(HttpServer),
}

impl Method {
    /// Whether a request may pass without it, so that it can stand below an `or` or a `not`.
    #[must_use]
    pub fn can_be_optional(&self) -> bool {
        matches!(self, Self::Basic(_) | Self::ApiKey(_) | Self::AccessToken(_) | Self::Jwt)
    }
}

/// User name and password. The users with their hashes stay in the policy: they are secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Basic {
    /// What a browser shows.
    pub realm: Option<Name>,
    /// The policy that lists the users.
    pub policy: ObjectRef,
    /// Position of the method in the policy's `configs`, where they stand.
    pub config: usize,
}

/// A key in a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApiKey {
    /// Lower case.
    pub header: Name,
    /// Secrets by name.
    pub secrets: BTreeSet<ObjectRef>,
    /// Further Secrets by label; never empty.
    pub secret_labels: Option<Labels>,
    /// Request headers, in lower case, out of other entries of the client's Secret.
    pub headers: BTreeMap<Name, SecretEntry>,
}

/// An entry of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Its name.
    pub name: Name,
    /// A key without this entry is not valid.
    pub required: bool,
}

/// An access token that is a JWT, in the usual places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessToken {
    /// What `iss` must be.
    pub issuer: Option<Name>,
    /// What tokens are verified with; not in a Secret.
    pub keys: Keys,
    /// All must be in the `scope` claim.
    pub scopes: BTreeSet<Name>,
}

/// A server that speaks Envoy's authorization protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrpcServer {
    /// Where it is.
    pub address: HostPort,
    /// Speak TLS.
    pub tls: bool,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Retries.
    pub retries: Option<CheckRetries>,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
}

/// Retries of a check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckRetries {
    /// After the first try.
    pub attempts: u32,
    /// Before the first retry, at least 1 ms.
    pub base_interval: Duration,
    /// At most, and not less than the base; absent means ten times as much.
    pub max_interval: Option<Duration>,
}

/// A server that answers requests like the client's. Header names are lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpServer {
    /// Where it is; no query.
    pub url: HttpUrl,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Headers of the client to forward.
    pub request_headers: BTreeSet<Name>,
    /// Headers to set, by name.
    pub added_headers: BTreeMap<Name, Name>,
    /// Headers of the answer added to the upstream request.
    pub upstream_append: BTreeSet<Name>,
    /// Headers of the answer that replace those of the upstream request.
    pub upstream_overwrite: BTreeSet<Name>,
    /// Headers of the answer that the client gets on denial.
    pub client_on_denied: BTreeSet<Name>,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
}

/// ExtAuthServer: how gateways ask a server of the author's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthServer {
    /// A Service or VirtualDestination; absent means the Service `ext-auth-service` in `gloo-mesh` of the gateway's
    /// cluster.
    pub destination: Option<DestinationRef>,
    /// What it speaks.
    pub protocol: Protocol,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
    /// Send the body too.
    pub body: Option<BodyToServer>,
    /// Choose the route again after a permitted check that changed headers.
    pub clear_route_cache: bool,
    /// Status when the server cannot be reached: one that Envoy has.
    pub status_on_error: u16,
    /// Further prefix of statistics.
    pub stat_prefix: Option<Name>,
}

/// What an authorization server speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Envoy's authorization protocol.
    Grpc,
    /// HTTP. Header names are lower case.
    Http {
        /// Prefix for the request's path; starts with a slash.
        path_prefix: Option<Name>,
        /// Headers of the client to forward.
        request_headers: BTreeSet<Name>,
        /// Headers to set, by name.
        added_headers: BTreeMap<Name, Name>,
        /// Headers of the answer copied onto the upstream request.
        upstream_headers: BTreeSet<Name>,
        /// Headers of the answer that the client gets on denial; empty means all but `Host`.
        client_headers: BTreeSet<Name>,
    },
}

/// How much of a body a server gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyToServer {
    /// Above 0; larger bodies are answered 413.
    pub max_bytes: u32,
    /// Send the first bytes in place of 413.
    pub allow_partial: bool,
    /// Send raw bytes; gRPC only.
    pub as_bytes: bool,
}
