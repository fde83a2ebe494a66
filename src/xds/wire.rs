//! Envoy's discovery messages to the session's values and back; no rule lives here.

use envoy_types::pb::envoy::service::discovery::v3 as discovery_pb;
use envoy_types::pb::google::protobuf::Any;

use super::session::{DeltaRequest, DeltaResponse};
use crate::model::Name;
use crate::snapshot::Resource;

/// What a delta request says; its node is left out.
pub(super) fn decode_request(request: discovery_pb::DeltaDiscoveryRequest) -> DeltaRequest {
    let names = |names: Vec<String>| names.into_iter().map(Name::from).collect();
    DeltaRequest {
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
    }
}

/// The message of a delta response.
///
/// # Cost
/// Copies the bodies once; the codec copies them again into the stream's buffer.
pub(super) fn encode_response(response: &DeltaResponse) -> discovery_pb::DeltaDiscoveryResponse {
    let type_url = response.resource_type.type_url();
    discovery_pb::DeltaDiscoveryResponse {
        system_version_info: response.version.to_string(),
        resources: response.resources.iter().map(|resource| encode_resource(type_url, resource)).collect(),
        type_url: type_url.to_owned(),
        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
        nonce: response.nonce.to_string(),
        ..discovery_pb::DeltaDiscoveryResponse::default()
    }
}

fn encode_resource(type_url: &str, resource: &Resource) -> discovery_pb::Resource {
    discovery_pb::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }),
        ..discovery_pb::Resource::default()
    }
}
