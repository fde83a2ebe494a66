//! VirtualGateway: listeners on a set of gateways, and who may use them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Empty, ObjectSelector, PortSelector, RouteFilter, WorkloadSelector};

/// Listeners on a set of gateway Envoys, and which RouteTables may use them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualGateway {
    /// Gateways of the same workspace; empty means every gateway of the workspace.
    pub workloads: Vec<WorkloadSelector>,
    /// The listeners; at least one is required.
    pub listeners: Vec<Listener>,
}

/// One port, its protocol, and who may use it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["http", "tcp"], ["tls", "httpsRedirect"]]))]
pub struct Listener {
    /// A port of the gateway Service; required.
    pub port: Option<PortSelector>,
    /// Serve HTTP.
    pub http: Option<HttpListener>,
    /// Serve TCP or TLS; also when neither is set.
    pub tcp: Option<Empty>,
    /// Hint for the protocol, in any case: `HTTP`, `HTTPS`, `GRPC`, `GRPC-WEB`, `HTTP2`, `HTTP_PROXY`, `TCP`, `TLS`,
    /// `MONGO`, `MYSQL` or `REDIS`.
    pub app_protocol: String,
    /// Answer every request with a redirect to https; HTTP listeners only.
    pub https_redirect: Option<bool>,
    /// TLS settings; left out means plaintext.
    pub tls: Option<ListenerTls>,
    /// Who may bind; empty means any RouteTable.
    pub allowed_route_tables: Vec<AllowedRouteTable>,
    /// ExternalServices served as egress.
    pub exposed_external_services: Vec<ExposedExternalService>,
}

/// Settings of an HTTP listener: none yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct HttpListener {}

/// TLS settings of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["secretName", "files"]]))]
pub struct ListenerTls {
    /// What becomes of TLS; `PASSTHROUGH` when left out.
    pub mode: ListenerTlsMode,
    /// Secret in the namespace and cluster of the gateway, not of the VirtualGateway.
    pub secret_name: Option<String>,
    /// Certificates on the gateway's disk.
    pub files: Option<TlsFiles>,
    /// Accepted names in the client's certificate; needs a CA.
    pub verify_subject_alt_name: Vec<String>,
    /// Protocol versions and ciphers; left out means Envoy's defaults.
    pub parameters: Option<TlsParameters>,
}

/// What becomes of TLS on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ListenerTlsMode {
    /// Not terminated: routed by server name; the default.
    #[default]
    Passthrough,
    /// Terminated with a server certificate.
    Simple,
    /// Terminated; the client must present a certificate.
    Mutual,
    /// The server name says the destination; without meaning for gateways.
    AutoPassthrough,
    /// Terminated with the gateway's identity; the client must present one of the same root.
    IstioMutual,
}

/// Paths of certificates in the gateway's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsFiles {
    /// Certificate chain.
    pub server_cert: String,
    /// Private key.
    pub private_key: String,
    /// CA for client certificates.
    pub ca_certs: String,
}

/// Protocol versions and ciphers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsParameters {
    /// Lowest version; `TLS_AUTO` means `TLSv1_2`.
    pub minimum_protocol_version: TlsProtocol,
    /// Highest version; `TLS_AUTO` means `TLSv1_3`.
    pub maximum_protocol_version: TlsProtocol,
    /// Ciphers for TLS 1.2 and below; empty means Envoy's default.
    pub cipher_suites: Vec<String>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsProtocol {
    /// Envoy's choice; the default.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSv1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSv1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSv1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSv1_3")]
    V1_3,
}

/// RouteTables that may bind to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRouteTable {
    /// `[namespace/]name`: namespace `*` (the default), `.` or a name; name with an optional wildcard first label, or
    /// `*`. Required.
    pub host: String,
    /// The RouteTables; left out means every one that the gateway's workspace sees.
    pub selector: Option<ObjectSelector>,
    /// Conditions on cloud functions.
    pub allowed_routes: Vec<RouteFilter>,
}

/// ExternalServices that a listener serves as egress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExposedExternalService {
    /// As `host` of allowed RouteTables, against the hosts of the ExternalService. Required.
    pub host: String,
    /// The ExternalServices; left out means any.
    pub selector: Option<ObjectSelector>,
}
