//! Types that several kinds share: references, selectors, matchers, ports, certificate options.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// A message whose presence alone says everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Empty {}

/// Names one object. It has no workspace: ownership decides what is visible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Name of the object; required.
    pub name: String,
    /// Namespace; empty means the namespace of the object that holds the reference.
    pub namespace: String,
    /// `KubernetesCluster` name; empty means the cluster of the object that holds the reference.
    pub cluster: String,
}

/// A reference inside one cluster, in the older spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Name of the object.
    pub name: String,
    /// Namespace; empty means the holder's.
    pub namespace: String,
}

/// A reference across clusters, in the older spelling: `clusterName` instead of `cluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterObjectRef {
    /// Name of the object.
    pub name: String,
    /// Namespace; empty means the holder's.
    pub namespace: String,
    /// Cluster; empty means the holder's.
    pub cluster_name: String,
}

/// What a destination reference or selector is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DestinationKind {
    /// A Kubernetes Service; the default.
    #[default]
    Service,
    /// A VirtualDestination.
    VirtualDestination,
    /// An ExternalService.
    ExternalService,
}

/// Where a request may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["ref", "awsLambda"]]))]
pub struct DestinationReference {
    /// The Service, VirtualDestination or ExternalService.
    pub r#ref: Option<ObjectReference>,
    /// A cloud function.
    pub aws_lambda: Option<Box<AwsLambdaReference>>,
    /// Kind of `ref`; `SERVICE` when left out.
    pub kind: DestinationKind,
    /// Port of the destination (Service port, never a container port). May be left out where there is only one.
    pub port: Option<PortSelector>,
    /// Only endpoints whose Pod labels include these; empty means all endpoints.
    pub subset: BTreeMap<String, String>,
    /// Percentage, 1 to 100, where there are several destinations; 0 means an equal share of what is left.
    pub weight: u32,
}

/// An AWS Lambda function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsLambdaReference {
    /// The CloudProvider with account, region and role; required.
    pub cloud_provider: Option<ObjectReference>,
    /// Name of the function; required.
    pub function: String,
    /// Version or alias; empty means `$LATEST`.
    pub qualifier: String,
    /// How the function is called.
    pub options: Option<LambdaOptions>,
}

/// How a Lambda function is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LambdaOptions {
    /// What becomes of the request.
    pub request_transformation: LambdaRequestTransformation,
    /// What becomes of the function's answer.
    pub response_transformation: LambdaResponseTransformation,
    /// Whether the caller waits.
    pub invocation_style: LambdaInvocationStyle,
}

/// What a function gets of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LambdaRequestTransformation {
    /// Headers, query, path and method are wrapped into the event.
    #[default]
    RequestDefault,
    /// The body is sent as it is.
    RequestDisable,
}

/// What a client gets of a function's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LambdaResponseTransformation {
    /// Status, headers and body are taken from the function's JSON.
    #[default]
    ResponseDefault,
    /// The answer is returned as it is.
    ResponseDisable,
}

/// Whether the caller waits for the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LambdaInvocationStyle {
    /// It waits for the answer.
    #[default]
    Sync,
    /// It does not wait.
    Async,
}

/// Names one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadReference {
    /// The workload; required.
    pub r#ref: Option<ObjectReference>,
    /// Its kind.
    pub kind: WorkloadReferenceKind,
}

/// Kind of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadReferenceKind {
    /// A Deployment; the default.
    #[default]
    Deployment,
    /// A DaemonSet.
    DaemonSet,
    /// A StatefulSet.
    StatefulSet,
    /// A ReplicaSet.
    ReplicaSet,
}

/// Names one listener of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerPortReference {
    /// The VirtualGateway; required.
    pub gateway_ref: Option<ObjectReference>,
    /// Port of the listener, 1 to 65535; required.
    pub port: u32,
}

/// A port, by number or by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["number", "name"]]))]
pub struct PortSelector {
    /// Port number, 1 to 65535.
    pub number: Option<u32>,
    /// Port name.
    pub name: Option<String>,
}

/// A failure domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Locality {
    /// Region, for instance of a cloud.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

/// Selects objects. All that is written must hold; what is left out does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectSelector {
    /// Labels that the object must carry.
    pub labels: BTreeMap<String, String>,
    /// Exact name.
    pub name: String,
    /// Exact namespace.
    pub namespace: String,
    /// Exact cluster.
    pub cluster: String,
    /// Name of the owning workspace.
    pub workspace: String,
}

/// Selects objects of the kinds that workspaces share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TypedObjectSelector {
    /// Kind of the objects; `ALL` when left out.
    pub kind: TypedObjectKind,
    /// Labels that the object must carry.
    pub labels: BTreeMap<String, String>,
    /// Exact name.
    pub name: String,
    /// Exact namespace.
    pub namespace: String,
    /// Exact cluster.
    pub cluster: String,
}

/// Kinds that workspaces can share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TypedObjectKind {
    /// Every shareable kind; the default.
    #[default]
    All,
    /// RouteTables.
    RouteTable,
    /// Kubernetes Services.
    Service,
    /// VirtualDestinations.
    VirtualDestination,
    /// ExternalServices.
    ExternalService,
    /// API documents.
    ApiDoc,
    /// GraphQL resolver maps.
    #[serde(rename = "GRAPHQL_RESOLVER_MAP")]
    GraphQlResolverMap,
    /// GraphQL schemas.
    #[serde(rename = "GRAPHQL_SCHEMA")]
    GraphQlSchema,
    /// Stitched GraphQL schemas.
    #[serde(rename = "GRAPHQL_STITCHED_SCHEMA")]
    GraphQlStitchedSchema,
    /// Workloads outside the clusters.
    ExternalWorkload,
}

/// Selects workloads: for gateways, the Services in front of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels, name and place. Left out selects nothing, `{}` everything.
    pub selector: Option<ObjectSelector>,
    /// Kind of workload; `KUBE` when left out.
    pub kind: WorkloadKind,
    /// Port of the workload, for policies that pick one; left out means all ports.
    pub port: Option<PortSelector>,
}

/// Kind of a selected workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadKind {
    /// Pods; the default.
    #[default]
    Kube,
    /// Workloads outside the clusters.
    Vm,
}

/// Selects clusters, and namespaces in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSelector {
    /// Pattern of the cluster's name, `*` for any run of characters; empty means any.
    pub name: String,
    /// Labels that the KubernetesCluster must carry.
    pub selector: BTreeMap<String, String>,
    /// Namespaces in these clusters; at least one is required.
    pub namespaces: Vec<NamespaceSelector>,
    /// Read configuration from these clusters. Where no entry says `true`, all are read.
    pub config_enabled: Option<bool>,
}

/// Selects namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSelector {
    /// Pattern of the namespace's name, `*` for any run of characters.
    pub name: String,
    /// Labels that the namespace must carry; empty does not select all.
    pub labels: BTreeMap<String, String>,
    /// Read configuration from these namespaces. Where no entry says `true`, all are read.
    pub config_enabled: Option<bool>,
}

/// Selects workspaces. `{}` selects all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceSelector {
    /// Pattern of the workspace's name, `*` for any run of characters; empty means any.
    pub name: String,
    /// Labels that the Workspace must carry.
    pub selector: BTreeMap<String, String>,
}

/// Selects service meshes; without meaning for gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["istio"]]))]
pub struct MeshSelector {
    /// Istio installations.
    pub istio: Option<IstioMeshSelector>,
}

/// Selects Istio installations; without meaning for gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioMeshSelector {
    /// Expression for the revision.
    pub revision: String,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Labels of the cluster.
    pub cluster_selector: BTreeMap<String, String>,
    /// Labels of the control plane's Deployment.
    pub selector: BTreeMap<String, String>,
}

/// Keeps only routes that satisfy it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteFilter {
    /// Conditions on cloud functions.
    pub cloud_provider: Option<CloudProviderFilterOptions>,
}

/// Conditions on cloud functions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["aws"]]))]
pub struct CloudProviderFilterOptions {
    /// Conditions on AWS Lambda functions.
    pub aws: Option<AwsFilterOptions>,
}

/// Conditions on AWS Lambda functions. Every list that is not empty must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsFilterOptions {
    /// Exact account ids.
    pub account_ids: Vec<String>,
    /// RE2 expressions for the role that invokes.
    pub iam_roles: Vec<String>,
    /// Exact regions.
    pub regions: Vec<String>,
    /// RE2 expressions for the function's name.
    pub lambda_functions: Vec<String>,
}

/// A condition on a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["exact", "prefix", "regex", "suffix"]]))]
pub struct StringMatch {
    /// The text equals this.
    pub exact: Option<String>,
    /// The text starts with this, not on segment borders.
    pub prefix: Option<String>,
    /// The whole text matches this RE2 expression.
    pub regex: Option<String>,
    /// The text ends with this.
    pub suffix: Option<String>,
    /// Upper and lower case are the same; without effect on `regex`.
    pub ignore_case: bool,
}

/// Conditions on an HTTP request, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRequestMatcher {
    /// A name without effect.
    pub name: String,
    /// The path without query; left out means any.
    pub uri: Option<StringMatch>,
    /// Headers; all must match.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters; all must match.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// HTTP method in upper case; empty means any.
    pub method: String,
    /// Gateway Service port that the client addressed, up to 65535; 0 means any.
    pub port: u32,
}

/// A condition on a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderMatcher {
    /// Name of the header; required.
    pub name: String,
    /// Value; empty means that the header must be present.
    pub value: String,
    /// `value` is an RE2 expression for the whole value.
    pub regex: bool,
    /// The condition must not hold. An absent header satisfies a negated condition on a value.
    pub invert_match: bool,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryParameterMatcher {
    /// Name of the parameter; required.
    pub name: String,
    /// Value; empty means that the parameter must be present.
    pub value: String,
    /// `value` is an RE2 expression for the whole value.
    pub regex: bool,
}

/// A condition on an HTTP status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCodeMatcher {
    /// The status to compare with; required.
    pub value: u32,
    /// How to compare.
    pub comparator: StatusCodeComparator,
}

/// How a status is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StatusCodeComparator {
    /// Equal; the default.
    #[default]
    Eq,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
}

/// A condition on a TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRequestMatcher {
    /// Gateway Service port, up to 65535; 0 means any.
    pub port: u32,
}

/// Conditions on a TLS connection that is passed through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRequestMatcher {
    /// Server names, at least one; a leading `*.` stands for any first labels.
    pub sni_hosts: Vec<String>,
    /// Gateway Service port, up to 65535; 0 means any.
    pub port: u32,
}

/// How traffic crosses to another cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["auto", "sniRouting", "tlsTermination"]]))]
pub struct ClientMode {
    /// The same as `tlsTermination`; the default.
    pub auto: Option<Empty>,
    /// The east-west gateway passes TLS through to a backend that terminates it.
    pub sni_routing: Option<Empty>,
    /// The east-west gateway terminates TLS and forwards to the Service.
    pub tls_termination: Option<Empty>,
}

/// TCP keepalive. What is left out is the operating system's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: u32,
    /// Idle time before the first probe; whole seconds.
    pub time: Option<Duration>,
    /// Time between probes; whole seconds.
    pub interval: Option<Duration>,
}

/// Where a filter runs, seen from authorization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["preAuthz", "postAuthz"]]))]
pub struct PrioritizedPhase {
    /// Before authorization.
    pub pre_authz: Option<PhasePriority>,
    /// After authorization.
    pub post_authz: Option<PhasePriority>,
}

/// Order within a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PhasePriority {
    /// Lower runs first; negative values are allowed; 0 when left out.
    pub priority: i32,
}

/// Where isolation is enforced; without meaning for gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnforcementLayers {
    /// In the network plug-in.
    pub cni: bool,
    /// In the mesh.
    pub mesh: bool,
}

/// Properties of an issued certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CommonCertOptions {
    /// Validity in days; 0 means 365.
    pub ttl_days: u32,
    /// RSA key size in bits, despite the name; 0 means 4096.
    pub rsa_key_size_bytes: u32,
    /// Organization in the subject; empty means `gloo-mesh`.
    pub org_name: String,
    /// Rotate when this fraction of the lifetime is left, between 0 and 1; 0 means 0.1.
    pub secret_rotation_grace_period_ratio: f64,
}
