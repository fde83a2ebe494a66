//! An object as its author wrote it: metadata, spec, and what could not be read of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    ExtAuthServer, ExternalEndpoint, ExternalService, KubernetesCluster, RateLimitServerConfig,
    RateLimitServerSettings, RootTrustPolicy, RouteTable, VirtualDestination, VirtualGateway, Workspace,
    WorkspaceSettings, core, policy,
};
use crate::model::{FieldPath, Labels, Location, Name, ObjectRef};

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Identity, labels, age.
    pub meta: Meta,
    /// What the author wants.
    pub spec: Spec,
    /// Values that could not be read. The spec holds the field's default in their place, so whoever gives a field its
    /// meaning asks first whether it, or something below it, is defective.
    pub defects: Vec<Defect>,
}

impl Object {
    /// The first defect at or below a field.
    #[must_use]
    pub fn defect_within(&self, field: &FieldPath) -> Option<&Defect> {
        self.defects.iter().find(|defect| defect.field.is_within(field))
    }
}

/// A value of the wrong type or form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// Where.
    pub field: FieldPath,
    /// What is wrong and what to do.
    pub message: String,
}

/// What Kubernetes keeps about every object, as far as Chancery needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Kind, cluster, namespace, name.
    pub id: ObjectRef,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<Name, Name>,
    /// `metadata.creationTimestamp`; manifests seldom carry one.
    pub created: Option<jiff::Timestamp>,
    /// `metadata.generation`, 0 where no API server counted.
    pub generation: i64,
    /// Where the object stands in a file, if it comes from one: the place of its first line.
    pub location: Option<Location>,
}

/// The spec of one kind: what stands below `spec`, or for Kubernetes' own kinds the whole object without metadata.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub enum Spec {
    Namespace(Box<core::Namespace>),
    Service(Box<core::Service>),
    EndpointSlice(Box<core::EndpointSlice>),
    Pod(Box<core::Pod>),
    Node(Box<core::Node>),
    Secret(Box<core::Secret>),
    ConfigMap(Box<core::ConfigMap>),
    KubernetesCluster(Box<KubernetesCluster>),
    Workspace(Box<Workspace>),
    WorkspaceSettings(Box<WorkspaceSettings>),
    RootTrustPolicy(Box<RootTrustPolicy>),
    ExtAuthServer(Box<ExtAuthServer>),
    RateLimitServerSettings(Box<RateLimitServerSettings>),
    RateLimitServerConfig(Box<RateLimitServerConfig>),
    VirtualGateway(Box<VirtualGateway>),
    RouteTable(Box<RouteTable>),
    VirtualDestination(Box<VirtualDestination>),
    ExternalService(Box<ExternalService>),
    ExternalEndpoint(Box<ExternalEndpoint>),
    CorsPolicy(Box<policy::CorsPolicy>),
    FaultInjectionPolicy(Box<policy::FaultInjectionPolicy>),
    HeaderManipulationPolicy(Box<policy::HeaderManipulationPolicy>),
    RetryTimeoutPolicy(Box<policy::RetryTimeoutPolicy>),
    #[cfg(test)]
    TeapotPolicy(Box<policy::TeapotPolicy>),
    /// A policy kind that is not yet supported: only its selectors are known.
    Opaque(Box<policy::OpaquePolicy>),
    /// A kind that is not yet supported and selects nothing.
    Unsupported,
}

/// A change of the inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An object is new or different.
    Put(Arc<Object>),
    /// An object is gone.
    Delete(ObjectRef),
}
