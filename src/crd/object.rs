//! An object as its author wrote it: metadata, spec, and what could not be read of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{
    ExtAuthServer, ExternalEndpoint, ExternalService, KubernetesCluster, RateLimitServerConfig,
    RateLimitServerSettings, RootTrustPolicy, RouteTable, VirtualDestination, VirtualGateway, Workspace,
    WorkspaceSettings, core, policy, schema,
};
use crate::model::{FieldPath, Kind, Labels, Location, Name, ObjectRef};

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Identity, labels, age.
    pub meta: Meta,
    /// What the author wants; [`Object::spec`] reads it.
    pub spec: Kept,
    /// Values that could not be read. The spec holds the field's default in their place, so whoever gives a field its
    /// meaning asks first whether it, or something below it, is defective.
    pub defects: Vec<Defect>,
}

impl Object {
    /// What the author wants.
    ///
    /// # Cost
    /// Decodes the kept text, about a microsecond for each route; whoever needs it often keeps what it made of it.
    #[must_use]
    pub fn spec(&self) -> Cow<'_, Spec> {
        self.spec.read()
    }

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

/// How the annotations begin that mean something to Chancery; all others are notes.
pub const OWN_ANNOTATIONS: &str = "chancery/";

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
    ServiceAccount(Box<core::ServiceAccount>),
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
    RateLimitClientConfig(Box<policy::RateLimitClientConfig>),
    AccessPolicy(Box<policy::AccessPolicy>),
    ClientTlsPolicy(Box<policy::ClientTlsPolicy>),
    CorsPolicy(Box<policy::CorsPolicy>),
    CsrfPolicy(Box<policy::CsrfPolicy>),
    ExtAuthPolicy(Box<policy::ExtAuthPolicy>),
    FailoverPolicy(Box<policy::FailoverPolicy>),
    OutlierDetectionPolicy(Box<policy::OutlierDetectionPolicy>),
    FaultInjectionPolicy(Box<policy::FaultInjectionPolicy>),
    HeaderManipulationPolicy(Box<policy::HeaderManipulationPolicy>),
    JwtPolicy(Box<policy::JwtPolicy>),
    RateLimitPolicy(Box<policy::RateLimitPolicy>),
    RetryTimeoutPolicy(Box<policy::RetryTimeoutPolicy>),
    #[cfg(test)]
    TeapotPolicy(Box<policy::TeapotPolicy>),
    /// A policy kind that is not yet supported: only its selectors are known.
    Opaque(Box<policy::OpaquePolicy>),
    /// A kind of which nothing is read.
    Unsupported,
}

/// A spec as it is kept: in the fewest bytes, because a large mesh has a hundred thousand routes and each is read once.
///
/// Two are equal where they say the same, however it is written.
#[derive(Clone)]
pub struct Kept(Form);

#[derive(Clone)]
enum Form {
    /// What the schema made of the manifest, as JSON. It always decodes.
    Text(Kind, Box<str>),
    /// For what may be secret, so that no second copy of it lies about, and for what is empty.
    Whole(Box<Spec>),
}

impl Kept {
    /// Keeps a text that fits the schema of its kind.
    ///
    /// # Errors
    /// Where a secret cannot be read; what is kept is then an empty one.
    pub(super) fn new(kind: Kind, text: String) -> (Self, Result<(), serde_json::Error>) {
        if matches!(kind, Kind::Secret | Kind::ConfigMap) {
            let (spec, result) = schema::read_spec(kind, &text);
            return (spec.into(), result);
        }
        debug_assert!(schema::read_spec(kind, &text).1.is_ok(), "normalised texts decode: {text}");
        (Self(Form::Text(kind, text.into_boxed_str())), Ok(()))
    }

    /// Whether two are kept as the same bytes, which is seen without reading them; of two that are not, both may say the same.
    #[must_use]
    pub fn is_kept_alike(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Text(kind, text), Form::Text(other_kind, other_text)) => (kind, text) == (other_kind, other_text),
            (Form::Whole(spec), Form::Whole(other)) => spec == other,
            _ => false,
        }
    }

    /// The text that is kept; none for what may be secret, and for what is empty.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.0 {
            Form::Text(_, text) => Some(text),
            Form::Whole(_) => None,
        }
    }

    pub(super) fn read(&self) -> Cow<'_, Spec> {
        match &self.0 {
            Form::Text(kind, text) => Cow::Owned(schema::read_spec(*kind, text).0),
            Form::Whole(spec) => Cow::Borrowed(spec),
        }
    }
}

impl From<Spec> for Kept {
    fn from(spec: Spec) -> Self {
        Self(Form::Whole(Box::new(spec)))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Text(kind, text), Form::Text(other_kind, other_text)) if text == other_text => kind == other_kind,
            _ => self.read() == other.read(),
        }
    }
}

/// Shows the spec, in which secrets have no text.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// A change of the inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An object is new or different.
    Put(Arc<Object>),
    /// An object is gone.
    Delete(ObjectRef),
}

impl Change {
    /// The object that it is about.
    #[must_use]
    pub fn id(&self) -> &ObjectRef {
        match self {
            Self::Put(object) => &object.meta.id,
            Self::Delete(id) => id,
        }
    }
}
