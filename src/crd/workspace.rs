//! Tenancy and trust: Workspace, WorkspaceSettings, KubernetesCluster, RootTrustPolicy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{
    ClientMode, ClusterSelector, CommonCertOptions, EnforcementLayers, MeshSelector, ObjectRef, ObjectSelector,
    PortSelector, TypedObjectSelector, WorkspaceSelector,
};

/// A set of namespaces across clusters whose objects see each other, and everything else only by import.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Workspace {
    /// Clusters and namespaces that the workspace owns; empty means that it owns nothing.
    pub workload_clusters: Vec<ClusterSelector>,
}

/// Sharing, federation, east-west gateways and isolation of one workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceSettings {
    /// What to take from whom; empty means nothing.
    pub import_from: Vec<WorkspaceObjectSelector>,
    /// What to offer to whom; empty means nothing.
    pub export_to: Vec<WorkspaceObjectSelector>,
    /// Options; what is left out has its default.
    pub options: Option<WorkspaceOptions>,
}

/// Objects shared with workspaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceObjectSelector {
    /// The partners; empty selects no workspace, an element `{}` selects all.
    pub workspaces: Vec<WorkspaceSelector>,
    /// The objects; empty means every shareable object.
    pub resources: Vec<TypedObjectSelector>,
}

/// Options of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceOptions {
    /// Whether the workspace's Services refuse other workspaces; left out means they do not.
    pub service_isolation: Option<ServiceIsolation>,
    /// Whether Services can be reached from other clusters; left out means they cannot.
    pub federation: Option<Federation>,
    /// Gateways that carry traffic into the workspace's clusters; empty means those with the default label.
    pub east_west_gateways: Vec<EastWestGatewaySelector>,
    /// How traffic crosses clusters where a VirtualDestination does not say; left out means `auto`.
    pub virtual_dest_client_mode: Option<ClientMode>,
    /// Trim the configuration of sidecars; without meaning for gateways.
    pub trim_all_proxy_config: bool,
}

/// Isolation of a workspace's Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceIsolation {
    /// Refuse clients of workspaces that do not import; `false` when left out.
    pub enabled: bool,
    /// Trim the configuration of sidecars; without meaning for gateways.
    pub trim_proxy_config: Option<bool>,
    /// Where isolation is enforced; without meaning for gateways.
    pub enforcement_layers: Option<EnforcementLayers>,
}

/// Reach of Services across clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Federation {
    /// Give the selected Services a host for other clusters; `false` when left out.
    pub enabled: bool,
    /// Suffix of the generated hosts; empty means none.
    pub host_suffix: String,
    /// The Services; empty means every owned Service.
    pub service_selector: Vec<ObjectSelector>,
    /// Ports that cross clusters; empty means all.
    pub ports: Vec<PortSelector>,
}

/// Gateways that carry traffic between clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EastWestGatewaySelector {
    /// The gateway Services; left out means those labelled `istio: eastwestgateway`.
    pub selector: Option<ObjectSelector>,
    /// Port that passes TLS through by server name; left out means the port named `tls`.
    pub port: Option<PortSelector>,
    /// Port that terminates TLS; left out means the port named `https`.
    pub tls_termination_port: Option<PortSelector>,
    /// Addresses to dial instead of the discovered ones; several share the load.
    pub host_info_overrides: Vec<HostInfo>,
}

/// An address to dial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostInfo {
    /// IP address or host name; required.
    pub addr: String,
    /// Port, up to 65535; 0 means the discovered one.
    pub port: u32,
}

/// Registers a cluster under the name that all references use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesCluster {
    /// DNS suffix of the cluster's Services; empty means `cluster.local`.
    pub cluster_domain: String,
    /// Do not hold back the first push until this cluster has been read; `false` when left out.
    pub skip_warming: bool,
}

/// The root of trust: the authority behind the identities of gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RootTrustPolicy {
    /// Meshes to apply to; without meaning for gateways.
    pub apply_to_meshes: Vec<MeshSelector>,
    /// The authority; left out means that a self-signed root is generated.
    pub config: Option<RootTrustPolicyConfig>,
}

/// An authority and what it issues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["mgmtServerCa", "agentCa"]]))]
pub struct RootTrustPolicyConfig {
    /// An authority that the control plane holds.
    pub mgmt_server_ca: Option<CertificateAuthority>,
    /// An authority outside the control plane.
    pub agent_ca: Option<AgentCertificateAuthority>,
    /// The intermediate of each cluster that signs the certificates of gateways.
    pub intermediate_cert_options: Option<CommonCertOptions>,
    /// Restart workloads after issuance; without meaning for gateways.
    pub auto_restart_pods: bool,
    /// Further roots that verify but never sign, for rotation.
    pub passive_certificate_authorities: Vec<CertificateAuthority>,
}

/// An authority that the control plane holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["generated", "secretRef"]]))]
pub struct CertificateAuthority {
    /// Generate a self-signed root with these properties.
    pub generated: Option<CommonCertOptions>,
    /// Take the authority from a Secret in the policy's own namespace.
    pub secret_ref: Option<ObjectRef>,
}

/// An authority outside the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["vault"]]))]
pub struct AgentCertificateAuthority {
    /// Vault signs the intermediates.
    pub vault: Option<VaultCa>,
}

/// Vault as an authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["caBundle", "caSecretRef", "caLocalPath"], ["tokenSecretRef", "kubernetesAuth"]]))]
pub struct VaultCa {
    /// Path that signs, for instance `mount/sign/role`; required.
    pub ca_path: String,
    /// Path that generates and exports; required.
    pub csr_path: String,
    /// Address of the Vault server; required.
    pub server: String,
    /// CA of the Vault server, in base64.
    pub ca_bundle: Option<String>,
    /// Secret with the CA of the Vault server under `root-cert.pem`.
    pub ca_secret_ref: Option<ObjectRef>,
    /// File with the CA of the Vault server.
    pub ca_local_path: Option<String>,
    /// Vault namespace.
    pub namespace: String,
    /// Secret with a token.
    pub token_secret_ref: Option<ObjectRef>,
    /// Log in as a Kubernetes service account.
    pub kubernetes_auth: Option<VaultKubernetesAuth>,
}

/// Login to Vault as a Kubernetes service account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["serviceAccountRef", "mountedSaPath"]]))]
pub struct VaultKubernetesAuth {
    /// Path of the login, without the final `/login`; empty means `/v1/auth/kubernetes`.
    pub mount_path: String,
    /// Vault role; required.
    pub role: String,
    /// Key that holds the token; empty means `token`.
    pub secret_token_key: String,
    /// Another service account.
    pub service_account_ref: Option<ObjectRef>,
    /// Directory with the token.
    pub mounted_sa_path: Option<String>,
}
