//! Kubernetes' own kinds, as far as routing needs them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Base64;
use crate::model::SecretBytes;

/// A namespace: only its labels matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// What the cluster observed.
    pub status: NodeStatus,
}

/// What the cluster observed of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Addresses of the node.
    pub addresses: Vec<NodeAddress>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAddress {
    /// `ExternalIP`, `InternalIP`, `Hostname` and so on.
    pub r#type: String,
    /// The address.
    pub address: String,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What the cluster observed.
    pub status: ServiceStatus,
}

/// What a Service wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Labels of the Pods; empty means that EndpointSlices are written by hand.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
    pub r#type: String,
    /// Virtual IP address; `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Virtual IP addresses, one per family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that reach the Service.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// DNS name that the Service stands for.
    pub external_name: String,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; may be empty where there is only one.
    pub name: String,
    /// Port number, 1 to 65535.
    pub port: u32,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    pub protocol: String,
    /// Application protocol.
    pub app_protocol: String,
    /// Port of the Pods; left out means `port`.
    pub target_port: Option<IntOrString>,
    /// Port on every node; 0 means none.
    pub node_port: u32,
}

/// A number or a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(u32),
    /// A name.
    String(String),
}

impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true})
    }
}

/// What the cluster observed of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The load balancer in front.
    pub load_balancer: LoadBalancerStatus,
}

/// The load balancer in front of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Its addresses.
    pub ingress: Vec<LoadBalancerIngress>,
}

/// An address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// IP address.
    pub ip: String,
    /// Host name.
    pub hostname: String,
}

/// Some of the endpoints of a Service, which its label `kubernetes.io/service-name` names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports of every endpoint.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses that mean the same endpoint.
    pub addresses: Vec<String>,
    /// Whether it serves.
    pub conditions: EndpointConditions,
    /// The Pod behind it.
    pub target_ref: Option<TargetRef>,
    /// Node on which it runs.
    pub node_name: String,
    /// Zone in which it runs.
    pub zone: String,
    /// Host name of the endpoint.
    pub hostname: String,
}

/// Whether an endpoint serves. Left out means unknown, which reads as ready and serving and not terminating.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Ready for traffic.
    pub ready: Option<bool>,
    /// Serving, perhaps while terminating.
    pub serving: Option<bool>,
    /// Terminating.
    pub terminating: Option<bool>,
}

/// The object behind an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Kind, usually `Pod`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A port of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service port.
    pub name: String,
    /// Port number; left out means all ports.
    pub port: Option<u32>,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    pub protocol: String,
    /// Application protocol.
    pub app_protocol: String,
}

/// An identity of workloads; only its labels are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccount {}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// What is wanted.
    pub spec: PodSpec,
    /// What the cluster observed.
    pub status: PodStatus,
}

/// What a Pod wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node on which it runs.
    pub node_name: String,
    /// Service account as which it runs.
    pub service_account_name: String,
    /// Whether it has the network of its node, and so the node's addresses.
    pub host_network: bool,
    /// Containers.
    pub containers: Vec<Container>,
}

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Ports where it listens.
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name.
    pub name: String,
    /// Port number, 1 to 65535.
    pub container_port: u32,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    pub protocol: String,
}

/// What the cluster observed of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// First address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    /// IP address.
    pub ip: String,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Name, for instance `Ready`.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Texts by key.
    pub data: BTreeMap<String, String>,
}

/// A Secret. It cannot be serialised, and printing it shows no content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "SecretManifest")]
pub struct Secret {
    /// `Opaque`, `kubernetes.io/tls` and so on; empty means `Opaque`.
    pub r#type: String,
    /// Bytes by key, from `data` and `stringData` together; the latter wins.
    pub data: BTreeMap<String, SecretBytes>,
}

/// A Secret as a manifest writes it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct SecretManifest {
    /// `Opaque`, `kubernetes.io/tls` and so on; empty means `Opaque`.
    r#type: String,
    /// Bytes by key, in base64.
    data: BTreeMap<String, Base64>,
    /// Texts by key, instead of `data`.
    string_data: BTreeMap<String, String>,
}

impl From<SecretManifest> for Secret {
    fn from(manifest: SecretManifest) -> Self {
        let mut data: BTreeMap<String, SecretBytes> =
            manifest.data.into_iter().map(|(key, value)| (key, value.0)).collect();
        for (key, value) in manifest.string_data {
            data.insert(key, SecretBytes::new(value.as_bytes()));
        }
        Self { r#type: manifest.r#type, data }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        SecretManifest::json_schema(generator)
    }
}
