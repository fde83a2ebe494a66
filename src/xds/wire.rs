//! Envoy's discovery messages to the session's values and back; no rule lives here.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::service::discovery::v3 as discovery_pb;
use envoy_types::pb::google::protobuf::Any;

use super::message::{DeltaRequest, RequestError, Response, StateRequest, Variant};
use super::session::{Output, Session};
use crate::model::Name;
use crate::snapshot::Resource;

/// How one variant of the protocol looks on the wire.
pub(super) trait Protocol: Send + Sync + 'static {
    /// The variant.
    const VARIANT: Variant;
    /// What clients send.
    type Request: Send + 'static;
    /// What the server sends.
    type Response: Send + 'static;

    /// What the client says about itself.
    fn node(request: &mut Self::Request) -> &mut Option<core_pb::Node>;

    /// Tells a session what a request says.
    fn request(session: &mut Session, now: Duration, request: Self::Request) -> Result<Vec<Output>, RequestError>;

    /// The message of a response.
    ///
    /// # Cost
    /// Copies the bodies once; the codec copies them again into the stream's buffer.
    fn encode(response: &Response) -> Self::Response;
}

/// Delta messages.
#[derive(Debug)]
pub(super) enum Delta {}

/// State-of-the-world messages.
#[derive(Debug)]
pub(super) enum StateOfTheWorld {}

impl Protocol for Delta {
    const VARIANT: Variant = Variant::Delta;
    type Request = discovery_pb::DeltaDiscoveryRequest;
    type Response = discovery_pb::DeltaDiscoveryResponse;

    fn node(request: &mut Self::Request) -> &mut Option<core_pb::Node> {
        &mut request.node
    }

    fn request(session: &mut Session, now: Duration, request: Self::Request) -> Result<Vec<Output>, RequestError> {
        let request = DeltaRequest {
            type_url: request.type_url,
            subscribe: names(request.resource_names_subscribe),
            unsubscribe: names(request.resource_names_unsubscribe),
            initial_versions: request
                .initial_resource_versions
                .into_iter()
                .map(|(name, version)| (name.into(), version))
                .collect(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        };
        session.request(now, &request)
    }

    fn encode(response: &Response) -> Self::Response {
        let type_url = response.resource_type.type_url();
        discovery_pb::DeltaDiscoveryResponse {
            system_version_info: response.version.to_string(),
            resources: response.resources.iter().map(|resource| named(type_url, resource)).collect(),
            type_url: type_url.to_owned(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            nonce: response.nonce.to_string(),
            ..discovery_pb::DeltaDiscoveryResponse::default()
        }
    }
}

impl Protocol for StateOfTheWorld {
    const VARIANT: Variant = Variant::StateOfTheWorld;
    type Request = discovery_pb::DiscoveryRequest;
    type Response = discovery_pb::DiscoveryResponse;

    fn node(request: &mut Self::Request) -> &mut Option<core_pb::Node> {
        &mut request.node
    }

    fn request(session: &mut Session, now: Duration, request: Self::Request) -> Result<Vec<Output>, RequestError> {
        let request = StateRequest {
            type_url: request.type_url,
            names: names(request.resource_names),
            version: request.version_info,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        };
        session.request_state(now, &request)
    }

    fn encode(response: &Response) -> Self::Response {
        let type_url = response.resource_type.type_url();
        discovery_pb::DiscoveryResponse {
            version_info: response.version.to_string(),
            resources: response.resources.iter().map(|resource| any(type_url, resource)).collect(),
            type_url: type_url.to_owned(),
            nonce: response.nonce.to_string(),
            ..discovery_pb::DiscoveryResponse::default()
        }
    }
}

fn names(names: Vec<String>) -> Vec<Name> {
    names.into_iter().map(Name::from).collect()
}

fn named(type_url: &str, resource: &Resource) -> discovery_pb::Resource {
    discovery_pb::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(any(type_url, resource)),
        ..discovery_pb::Resource::default()
    }
}

fn any(type_url: &str, resource: &Resource) -> Any {
    Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{ResourceType, Version};

    #[test]
    fn case_38_nothing_has_a_time_to_live_so_nothing_is_wrapped() {
        let version = Version::new("1");
        let resource = Arc::new(Resource {
            name: "a".into(),
            version: version.clone(),
            body: "a 1".into(),
            owners: Arc::from([]),
        });
        for resource_type in ResourceType::ALL {
            let url = resource_type.type_url();
            let response = Response {
                resource_type,
                nonce: "1".into(),
                version: version.clone(),
                resources: vec![resource.clone()],
                removed: Vec::new(),
            };
            let delta = Delta::encode(&response);
            assert!(delta.resources[0].ttl.is_none() && delta.resources[0].cache_control.is_none());
            // The message itself, not a `Resource` around it.
            let state = StateOfTheWorld::encode(&response);
            assert_eq!((state.resources[0].type_url.as_str(), state.resources[0].value.as_slice()), (url, &b"a 1"[..]));
        }
    }
}
