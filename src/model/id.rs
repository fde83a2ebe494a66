//! Identifiers: what an object, a workspace or a gateway is called.
//!
//! `Display` is the stable text form that findings, `explain` and logs use.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Name;

/// API group of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// `v1`
    Core,
    /// `discovery.k8s.io/v1`
    Discovery,
    /// `admin.gloo.solo.io/v2`
    Admin,
    /// `networking.gloo.solo.io/v2`
    Networking,
    /// `security.policy.gloo.solo.io/v2`
    Security,
    /// `trafficcontrol.policy.gloo.solo.io/v2`
    TrafficControl,
    /// `resilience.policy.gloo.solo.io/v2`
    Resilience,
    /// `observability.policy.gloo.solo.io/v2`
    Observability,
    /// `extensions.policy.gloo.solo.io/v2`
    Extensions,
}

impl Group {
    /// The `apiVersion` of the group's kinds as manifests write it.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Core => "v1",
            Self::Discovery => "discovery.k8s.io/v1",
            Self::Admin => "admin.gloo.solo.io/v2",
            Self::Networking => "networking.gloo.solo.io/v2",
            Self::Security => "security.policy.gloo.solo.io/v2",
            Self::TrafficControl => "trafficcontrol.policy.gloo.solo.io/v2",
            Self::Resilience => "resilience.policy.gloo.solo.io/v2",
            Self::Observability => "observability.policy.gloo.solo.io/v2",
            Self::Extensions => "extensions.policy.gloo.solo.io/v2",
        }
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $text:literal in $group:ident as $plural:literal;)+) => {
        /// Every kind of object that Chancery reads.
        ///
        /// A kind that is not listed here but belongs to one of the groups is reported and ignored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the names are the API's own")]
        pub enum Kind {
            $($(#[$meta])* $kind,)+
        }

        impl Kind {
            /// All kinds, in the order of their declaration.
            pub const ALL: &'static [Kind] = &[$($(#[$meta])* Kind::$kind,)+];

            /// The kind as manifests write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($(#[$meta])* Self::$kind => $text,)+ }
            }

            /// The group that the kind belongs to.
            #[must_use]
            pub fn group(self) -> Group {
                match self { $($(#[$meta])* Self::$kind => Group::$group,)+ }
            }

            /// The plural resource name, as in URLs and `kubectl get`.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $($(#[$meta])* Self::$kind => $plural,)+ }
            }
        }
    };
}

kinds! {
    Namespace = "Namespace" in Core as "namespaces";
    Service = "Service" in Core as "services";
    EndpointSlice = "EndpointSlice" in Discovery as "endpointslices";
    Pod = "Pod" in Core as "pods";
    Node = "Node" in Core as "nodes";
    Secret = "Secret" in Core as "secrets";
    ServiceAccount = "ServiceAccount" in Core as "serviceaccounts";
    ConfigMap = "ConfigMap" in Core as "configmaps";
    KubernetesCluster = "KubernetesCluster" in Admin as "kubernetesclusters";
    Workspace = "Workspace" in Admin as "workspaces";
    WorkspaceSettings = "WorkspaceSettings" in Admin as "workspacesettings";
    RootTrustPolicy = "RootTrustPolicy" in Admin as "roottrustpolicies";
    ExtAuthServer = "ExtAuthServer" in Admin as "extauthservers";
    RateLimitServerSettings = "RateLimitServerSettings" in Admin as "ratelimitserversettings";
    RateLimitServerConfig = "RateLimitServerConfig" in Admin as "ratelimitserverconfigs";
    VirtualGateway = "VirtualGateway" in Networking as "virtualgateways";
    RouteTable = "RouteTable" in Networking as "routetables";
    VirtualDestination = "VirtualDestination" in Networking as "virtualdestinations";
    ExternalService = "ExternalService" in Networking as "externalservices";
    ExternalEndpoint = "ExternalEndpoint" in Networking as "externalendpoints";
    AccessPolicy = "AccessPolicy" in Security as "accesspolicies";
    ClientTlsPolicy = "ClientTLSPolicy" in Security as "clienttlspolicies";
    CorsPolicy = "CORSPolicy" in Security as "corspolicies";
    CsrfPolicy = "CSRFPolicy" in Security as "csrfpolicies";
    DlpPolicy = "DLPPolicy" in Security as "dlppolicies";
    ExtAuthPolicy = "ExtAuthPolicy" in Security as "extauthpolicies";
    JwtPolicy = "JWTPolicy" in Security as "jwtpolicies";
    WafPolicy = "WAFPolicy" in Security as "wafpolicies";
    GraphQlAllowedQueryPolicy = "GraphQLAllowedQueryPolicy" in Security as "graphqlallowedquerypolicies";
    HeaderManipulationPolicy = "HeaderManipulationPolicy" in TrafficControl as "headermanipulationpolicies";
    HttpBufferPolicy = "HTTPBufferPolicy" in TrafficControl as "httpbufferpolicies";
    LoadBalancerPolicy = "LoadBalancerPolicy" in TrafficControl as "loadbalancerpolicies";
    MirrorPolicy = "MirrorPolicy" in TrafficControl as "mirrorpolicies";
    ProxyProtocolPolicy = "ProxyProtocolPolicy" in TrafficControl as "proxyprotocolpolicies";
    RateLimitPolicy = "RateLimitPolicy" in TrafficControl as "ratelimitpolicies";
    RateLimitClientConfig = "RateLimitClientConfig" in TrafficControl as "ratelimitclientconfigs";
    TransformationPolicy = "TransformationPolicy" in TrafficControl as "transformationpolicies";
    ActiveHealthCheckPolicy = "ActiveHealthCheckPolicy" in Resilience as "activehealthcheckpolicies";
    AdaptiveRequestConcurrencyPolicy = "AdaptiveRequestConcurrencyPolicy" in Resilience as "adaptiverequestconcurrencypolicies";
    ConnectionPolicy = "ConnectionPolicy" in Resilience as "connectionpolicies";
    FailoverPolicy = "FailoverPolicy" in Resilience as "failoverpolicies";
    FaultInjectionPolicy = "FaultInjectionPolicy" in Resilience as "faultinjectionpolicies";
    GraphQlPersistedQueryCachePolicy = "GraphQLPersistedQueryCachePolicy" in Resilience as "graphqlpersistedquerycachepolicies";
    ListenerConnectionPolicy = "ListenerConnectionPolicy" in Resilience as "listenerconnectionpolicies";
    OutlierDetectionPolicy = "OutlierDetectionPolicy" in Resilience as "outlierdetectionpolicies";
    RetryTimeoutPolicy = "RetryTimeoutPolicy" in Resilience as "retrytimeoutpolicies";
    TrimProxyConfigPolicy = "TrimProxyConfigPolicy" in Resilience as "trimproxyconfigpolicies";
    AccessLogPolicy = "AccessLogPolicy" in Observability as "accesslogpolicies";
    LuaPolicy = "LuaPolicy" in Extensions as "luapolicies";
    WasmDeploymentPolicy = "WasmDeploymentPolicy" in Extensions as "wasmdeploymentpolicies";
    // The made-up kind by which the tests show what adding a policy kind takes.
    #[cfg(test)]
    TeapotPolicy = "TeapotPolicy" in TrafficControl as "teapotpolicies";
}

impl Kind {
    /// Finds a kind by its name and `apiVersion`.
    #[must_use]
    pub fn find(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.as_str() == kind && k.group().api_version() == api_version)
    }

    /// Whether objects of this kind live in no namespace.
    #[must_use]
    pub fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::Namespace | Self::Node)
    }

    /// Whether the kind is one of the v2 API (and so carries a status that Chancery renders).
    #[must_use]
    pub fn is_v2(self) -> bool {
        !matches!(self.group(), Group::Core | Group::Discovery)
    }

    /// Whether policies of the kind protect what they select, so that it is closed where one cannot be applied.
    ///
    /// # Rule
    /// R130, D24.
    #[must_use]
    pub fn protects(self) -> bool {
        matches!(
            self,
            Self::AccessPolicy
                | Self::ExtAuthPolicy
                | Self::JwtPolicy
                | Self::LuaPolicy
                | Self::CsrfPolicy
                | Self::DlpPolicy
                | Self::WafPolicy
                | Self::ClientTlsPolicy
                | Self::GraphQlAllowedQueryPolicy
        )
    }

    /// Whether the kind is a policy that selects routes, destinations, listeners or workloads.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(
            self.group(),
            Group::Security | Group::TrafficControl | Group::Resilience | Group::Observability | Group::Extensions
        ) && self != Self::RateLimitClientConfig
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no kind")))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object: kind, cluster, namespace and name.
///
/// Shown as `RouteTable/shop/cart@cluster-1`; a cluster-scoped object has no namespace part. Sorted by kind, cluster, namespace
/// and name.
///
/// # Cost
/// One word; cloning is one atomic increment, and comparing one with its clone looks at neither.
///
/// # Rule
/// R6.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef(Arc<ObjectName>);

/// The parts of an [`ObjectRef`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The kind.
    pub kind: Kind,
    /// Name of the `KubernetesCluster`, or of the management cluster.
    pub cluster: Name,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Name,
    /// Name within the namespace.
    pub name: Name,
}

impl ObjectRef {
    /// Builds a reference from its parts.
    #[must_use]
    pub fn new(kind: Kind, cluster: impl Into<Name>, namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        let (cluster, namespace, name) = (cluster.into(), namespace.into(), name.into());
        Self(Arc::new(ObjectName { kind, cluster, namespace, name }))
    }

    /// `namespace/name`, the short form where kind and cluster are clear from the context.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Deref for ObjectRef {
    type Target = ObjectName;

    fn deref(&self) -> &ObjectName {
        &self.0
    }
}

impl Ord for ObjectRef {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ObjectRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_cluster_scoped() {
            write!(f, "{}/{}@{}", self.kind, self.name, self.cluster)
        } else {
            write!(f, "{}/{}/{}@{}", self.kind, self.namespace, self.name, self.cluster)
        }
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an object reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an object: write Kind/namespace/name@cluster, for instance RouteTable/shop/cart@cluster-1")]
pub struct ParseObjectRefError {
    text: String,
}

impl FromStr for ObjectRef {
    type Err = ParseObjectRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseObjectRefError { text: text.to_owned() };
        let (path, cluster) = text.split_once('@').ok_or_else(fail)?;
        let mut parts = path.split('/');
        let kind = parts.next().ok_or_else(fail)?;
        let kind = Kind::ALL.iter().copied().find(|k| k.as_str() == kind).ok_or_else(fail)?;
        let (namespace, name) = match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) if kind.is_cluster_scoped() => ("", name),
            (Some(namespace), Some(name), None) => (namespace, name),
            _ => return Err(fail()),
        };
        if name.is_empty() || cluster.is_empty() {
            return Err(fail());
        }
        Ok(Self::new(kind, cluster, namespace, name))
    }
}

/// A workspace, by its name in the admin namespace of the management cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WorkspaceId(pub Name);

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A class of gateway Envoys: the Services whose selectors pick them.
///
/// Usually one Service; an Envoy Pod that several Services of its namespace select gets the
/// configuration of all of them. Shown as `cluster/namespace/service`, several joined by `+`.
///
/// # Cost
/// One word; cloning is one atomic increment, and comparing one with its clone looks at neither.
///
/// # Rule
/// R14, R15.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatewayId(Arc<GatewayName>);

/// The parts of a [`GatewayId`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GatewayName {
    /// Cluster of the gateway.
    pub cluster: Name,
    /// Namespace of the gateway Services.
    pub namespace: Name,
    /// Names of the gateway Services, sorted, at least one.
    pub services: Vec<Name>,
}

impl GatewayId {
    /// Builds an identifier from its parts; the names of Services are sorted, and at least one.
    #[must_use]
    pub fn new(cluster: impl Into<Name>, namespace: impl Into<Name>, services: Vec<Name>) -> Self {
        Self(Arc::new(GatewayName { cluster: cluster.into(), namespace: namespace.into(), services }))
    }
}

impl Deref for GatewayId {
    type Target = GatewayName;

    fn deref(&self) -> &GatewayName {
        &self.0
    }
}

impl Ord for GatewayId {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for GatewayId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.cluster, self.namespace)?;
        for (i, service) in self.services.iter().enumerate() {
            if i > 0 {
                f.write_str("+")?;
            }
            f.write_str(service)?;
        }
        Ok(())
    }
}

impl FromStr for GatewayId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(namespace), Some(services), None)
                if !cluster.is_empty() && !namespace.is_empty() && !services.is_empty() =>
            {
                let mut services: Vec<Name> = services.split('+').map(Name::from).collect();
                services.sort();
                Ok(Self::new(cluster, namespace, services))
            }
            _ => Err(format!("`{text}` is not a gateway: write cluster/namespace/service")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_refs_read_back_what_they_show() {
        for text in ["RouteTable/shop/cart@cluster-1", "Namespace/shop@mgmt"] {
            assert_eq!(text.parse::<ObjectRef>().unwrap().to_string(), text);
        }
        for text in ["RouteTable/cart@c", "Nope/shop/cart@c", "RouteTable/shop/cart", "x", "RouteTable/a/b/c@d"] {
            assert!(text.parse::<ObjectRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn gateways_read_back_what_they_show() {
        let id: GatewayId = "cluster-1/edge/web+api".parse().unwrap();
        assert_eq!(id.to_string(), "cluster-1/edge/api+web");
        assert!("edge/web".parse::<GatewayId>().is_err());
    }
}
