//! Destinations beyond Services: VirtualDestination, ExternalService, ExternalEndpoint.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ClientMode, Locality, ObjectReference, ObjectSelector, PortSelector};

/// One destination made of Services, one per cluster, or ExternalServices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualDestination {
    /// Internal host names, without wildcards; may be empty when something is selected.
    pub hosts: Vec<String>,
    /// Backing Services; empty means none, an element `{}` means every visible one.
    pub services: Vec<ObjectSelector>,
    /// Backing ExternalServices; empty means none.
    pub external_services: Vec<ObjectSelector>,
    /// Backing workloads outside the clusters; without meaning for gateways.
    pub external_workloads: Vec<ObjectSelector>,
    /// Ports served; at least one is required.
    pub ports: Vec<VirtualDestinationPort>,
    /// How traffic crosses to another cluster; left out means the workspace's setting.
    pub client_mode: Option<ClientMode>,
}

/// A port of a virtual destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualDestinationPort {
    /// Port that references use, 1 to 65535; required.
    pub number: u32,
    /// Protocol of the backends, in any case: `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP` or `TLS`; required.
    pub protocol: String,
    /// Port of the backing Services; left out means `number`.
    pub target_port: Option<PortSelector>,
}

/// A destination outside the clusters: by DNS name, by address, or by ExternalEndpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalService {
    /// Names; excludes `addresses`.
    pub hosts: Vec<String>,
    /// IP addresses or ranges; excludes `hosts`.
    pub addresses: Vec<String>,
    /// Ports; at least one is required.
    pub ports: Vec<ExternalServicePort>,
    /// Labels of ExternalEndpoints in the same workspace; empty selects none.
    pub selector: BTreeMap<String, String>,
    /// Accepted names in the server's certificate.
    pub subject_alt_names: Vec<String>,
}

/// A port of an external service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalServicePort {
    /// Port that references use, 1 to 65535, and that is dialled without `targetPort`; required.
    pub number: u32,
    /// Name.
    pub name: String,
    /// Protocol, in any case: `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP` or `TLS`; required.
    pub protocol: String,
    /// Port to dial; left out means `number`.
    pub target_port: Option<PortSelector>,
    /// Originate TLS; `{}` is enough.
    pub clientside_tls: Option<ClientsideTls>,
    /// Reach the service through egress gateways; without effect.
    pub egress_gateway_routes: Option<EgressGatewayRoutes>,
}

/// TLS that the gateway originates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientsideTls {
    /// What to present and verify; `SIMPLE` when left out.
    pub mode: ClientsideTlsMode,
    /// Server name; empty means the host, when there is exactly one.
    pub sni: String,
    /// File with the client certificate, in the gateway's container.
    pub client_certificate: String,
    /// File with the key, in the gateway's container.
    pub private_key: String,
    /// File with the CA, in the gateway's container; empty means the system's roots.
    pub ca_certificates: String,
    /// Secret with client certificate and CA, in the gateway's namespace.
    pub credential_name: String,
    /// Verify neither CA nor names; `false` when left out.
    pub insecure_skip_verify: Option<bool>,
}

/// What TLS towards an external service presents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientsideTlsMode {
    /// No client certificate; the default.
    #[default]
    Simple,
    /// No TLS.
    Disable,
    /// A client certificate.
    Mutual,
    /// The gateway's identity.
    IstioMutual,
}

/// Egress gateways in front of an external service; without effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressGatewayRoutes {
    /// Port that clients inside use; 0 means 80.
    pub port_match: u32,
    /// The egress gateways.
    pub virtual_gateway_refs: Vec<ObjectReference>,
}

/// One address with ports, picked up by ExternalServices through its labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEndpoint {
    /// IP address, full DNS name without wildcard, or `unix:///absolute/path`; required.
    pub address: String,
    /// Ports where it listens; required for IP addresses and names.
    pub ports: Vec<ExternalEndpointPort>,
    /// Failure domain.
    pub locality: Option<Locality>,
}

/// A port of an external endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEndpointPort {
    /// Name, which `targetPort.name` matches; required where there are several.
    pub name: String,
    /// Port number, 1 to 65535; required.
    pub number: u32,
}
