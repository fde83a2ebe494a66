//! What can be known of a client and one resource: what it holds, and what it refused.
//!
//! The one rule about content lives here too: a cluster that is sent again has its endpoints sent again with it
//! ([`endpoints_of`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Resource, Version};
use crate::model::Name;

/// What is known of one resource at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The client acknowledged this version, or stated it when it connected.
    Version(Version),
    /// The client may hold this resource, in a version that nobody knows: it was in a response that the client refused
    /// as a whole and may have taken in part.
    Uncertain,
}

/// A content that a client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The version that it refused.
    pub version: Version,
    /// The client's words.
    pub reason: Arc<str>,
    /// Whether it refused this content; else it refused several, at least one of them for what it is.
    pub exact: bool,
}

/// What a client refused of one type, by name.
pub type Objections = BTreeMap<Name, Objection>;

/// Whether a client refused exactly this resource.
#[must_use]
pub fn refuses(refused: &Objections, resource: &Resource) -> bool {
    refused.get(&resource.name).is_some_and(|objection| objection.version == resource.version)
}

/// The name of the `ClusterLoadAssignment` that a cluster takes its endpoints from.
///
/// `eds_cluster_config.service_name` if it is set, else the cluster's own name. For a cluster of another kind, or for
/// bytes that are no cluster, that name belongs to no resource, which does no harm.
///
/// Whoever sends a cluster must send this resource after it, changed or not: Envoy neither asks for it again nor
/// acknowledges the cluster without it, and stalls for 15 s.
///
/// # Cost
/// One pass over the top-level fields of the cluster.
///
/// # Rule
/// `performance.md` section 4, "Cluster without its EDS"; `reliability.md` case 24. Fields 3 and 2 as in Envoy 1.40.
#[must_use]
pub fn endpoints_of(cluster: &Resource) -> Name {
    let named = <ClusterEndpoints as prost::Message>::decode(cluster.body.clone()).unwrap_or_default();
    match named.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => config.service_name.into(),
        _ => cluster.name.clone(),
    }
}

/// The endpoints of a name that has none, which Envoy answers with 503.
///
/// Its version is that of what is emitted without endpoints, so that it shows whether a client that states a version holds any.
///
/// # Cost
/// In proportion to the name.
#[must_use]
pub fn without_endpoints(endpoints: &Resource) -> Resource {
    let assignment = Assignment { cluster_name: endpoints.name.to_string() };
    let body = prost::Message::encode_to_vec(&assignment).into();
    Resource::from_content(endpoints.name.clone(), body, endpoints.owners.clone())
}

/// The part of `envoy.config.endpoint.v3.ClusterLoadAssignment` that names it.
#[derive(Clone, PartialEq, prost::Message)]
struct Assignment {
    #[prost(string, tag = "1")]
    cluster_name: String,
}

/// The part of `envoy.config.cluster.v3.Cluster` that names its endpoints; every other field is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct ClusterEndpoints {
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
}

/// The part of `Cluster.EdsClusterConfig` that names a resource.
#[derive(Clone, PartialEq, prost::Message)]
struct EdsClusterConfig {
    #[prost(string, tag = "2")]
    service_name: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn endpoints_are_named_by_the_cluster() {
        let cluster = |body: Vec<u8>| Resource::from_content("svc/a".into(), body.into(), Arc::from([]));
        let named =
            ClusterEndpoints { eds_cluster_config: Some(EdsClusterConfig { service_name: "endpoints/a".to_owned() }) };
        assert_eq!(endpoints_of(&cluster(named.encode_to_vec())), "endpoints/a");
        assert_eq!(endpoints_of(&cluster(ClusterEndpoints::default().encode_to_vec())), "svc/a");
        assert_eq!(endpoints_of(&cluster(b"\xff no protobuf".to_vec())), "svc/a");
    }
}
