//! ClientTLSPolicy: TLS that gateways start towards destinations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::DestinationSelector;
use crate::crd::common::Empty;

/// Sets the TLS that gateways start towards destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsPolicy {
    /// Destinations; empty means none.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// The TLS.
    pub config: Option<ClientTls>,
}

/// TLS towards destinations; one of the four is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["disable", "simple", "mutual", "istioMutual"]]))]
pub struct ClientTls {
    /// Plaintext, whatever the destination's port says.
    pub disable: Option<Empty>,
    /// The server shows a certificate.
    pub simple: Option<ClientTlsMode>,
    /// Server and gateway show certificates.
    pub mutual: Option<ClientTlsMode>,
    /// Certificates of a mesh; not supported.
    pub istio_mutual: Option<Empty>,
}

/// TLS with settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsMode {
    /// The settings.
    pub config: Option<ClientTlsConfig>,
}

/// Settings of TLS towards destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsConfig {
    /// Server name that is asked for and must be in the certificate; empty means the destination's first host.
    pub sni: String,
    /// Secret in the gateway's namespace, with the CA and for `mutual` certificate and key. Required for `mutual`; empty means
    /// the system's roots.
    pub credential_name: String,
}
