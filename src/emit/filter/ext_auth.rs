//! ExtAuthPolicy: servers that are asked, users, keys, access tokens, and rules over them.
//!
//! A filter that asks servers has its settings from [`Extensions`], which decide which of the six it is; whom it asks comes
//! with the route, which switches it on.
//!
//! # Rule
//! The policy reference in the manual, "ExtAuthPolicy" and "Filter slots".

mod native;

#[cfg(test)]
pub(super) use native::SCRIPT_CODE;
pub(super) use native::scripts;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::envoy::r#type::v3 as type_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::extension::{CheckSet, CheckUse, Extensions, check_sets};
use crate::ir::policy::ext_auth::{Authorization, BodyToServer, Call, CallPath, Check, CheckRetries, HttpCall};
use crate::model::{Name, ObjectRef};

use super::super::route::RouteBuilder;
use super::super::{name, pb, wire};
use super::EXT_AUTH;

/// What servers learn of earlier filters.
const METADATA: &str = "envoy.filters.http.jwt_authn";

/// A cluster that does not exist.
const NOBODY: &str = "chancery.nobody";

/// Puts a policy on a route or destination; closes the route where the gateway lacks a filter for it, or its secrets.
pub(super) fn apply(authorization: &Authorization, route: &mut RouteBuilder<'_>) {
    if !authorization.is_complete() {
        route.is_closed = true;
        return;
    }
    for (set, index) in check_sets(route.level(), authorization) {
        let slot = route.extensions.checks.get(&set).and_then(CheckUse::named).and_then(|slot| EXT_AUTH.get(slot));
        let (Some(slot), Some(check)) = (slot, authorization.checks.get(index)) else {
            route.is_closed = true;
            return;
        };
        route.scope().slots.insert(slot, wire::any(&emit_check(check)));
    }
    native::apply(authorization, route);
}

/// What a slot has that policies of this kind share, and whose it is; nothing for other slots, and where nobody uses it.
pub(super) fn emit_shared(slot: &str, extensions: &Extensions) -> Option<(Any, Vec<ObjectRef>)> {
    if slot == native::TOKENS {
        return Some(native::emit_tokens(extensions));
    }
    let position = EXT_AUTH.iter().position(|name| *name == slot)?;
    let (set, uses) = extensions.checks.iter().find(|(_, uses)| uses.slot == Some(position))?;
    Some((wire::any(&emit_settings(set)), uses.policies.iter().cloned().collect()))
}

/// A service that does not exist.
pub(super) fn nobody() -> core_pb::GrpcService {
    let nobody = core_pb::grpc_service::EnvoyGrpc { cluster_name: NOBODY.to_owned(), ..Default::default() };
    core_pb::GrpcService {
        target_specifier: Some(core_pb::grpc_service::TargetSpecifier::EnvoyGrpc(nobody)),
        ..Default::default()
    }
}

/// The filter for a set of settings. It asks nobody by itself: every route says whom.
fn emit_settings(set: &CheckSet) -> ext_authz_pb::ExtAuthz {
    use ext_authz_pb::ext_authz::Services;
    let settings = &set.settings;
    let services = match &settings.http {
        None => Services::GrpcService(nobody()),
        Some(_) => Services::HttpService(ext_authz_pb::HttpService {
            server_uri: Some(core_pb::HttpUri {
                uri: format!("http://{NOBODY}"),
                // Envoy wants one; every route brings its own.
                timeout: Some(pb::duration(std::time::Duration::from_secs(1))),
                http_upstream_type: Some(core_pb::http_uri::HttpUpstreamType::Cluster(NOBODY.to_owned())),
            }),
            ..Default::default()
        }),
    };
    ext_authz_pb::ExtAuthz {
        transport_api_version: core_pb::ApiVersion::V3.into(),
        failure_mode_allow: settings.failure_mode_allow,
        with_request_body: settings.body.as_ref().map(emit_body),
        status_on_error: Some(type_pb::HttpStatus { code: i32::from(settings.status_on_error) }),
        stat_prefix: settings.stat_prefix.as_ref().map(Name::to_string).unwrap_or_default(),
        allowed_headers: settings.http.as_ref().and_then(emit_names),
        metadata_context_namespaces: vec![METADATA.to_owned()],
        include_peer_certificate: true,
        include_tls_session: true,
        services: Some(services),
        ..Default::default()
    }
}

fn emit_body(body: &BodyToServer) -> ext_authz_pb::BufferSettings {
    ext_authz_pb::BufferSettings {
        max_request_bytes: body.max_bytes,
        allow_partial_message: body.allow_partial,
        pack_as_bytes: body.as_bytes,
    }
}

fn emit_check(check: &Check) -> ext_authz_pb::ExtAuthzPerRoute {
    use ext_authz_pb::check_settings::ServiceOverride;
    use ext_authz_pb::ext_authz_per_route::Override;
    let service = match &check.call {
        Call::Grpc(retries) => ServiceOverride::GrpcService(emit_grpc(check, retries.as_ref())),
        Call::Http(call) => ServiceOverride::HttpService(emit_http(check, call)),
    };
    let context = match &check.call {
        Call::Grpc(_) => check.context.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        Call::Http(_) => Default::default(),
    };
    let settings = ext_authz_pb::CheckSettings {
        context_extensions: context,
        service_override: Some(service),
        with_request_body: check.settings.body.as_ref().map(emit_body),
        ..Default::default()
    };
    ext_authz_pb::ExtAuthzPerRoute { r#override: Some(Override::CheckSettings(settings)) }
}

fn emit_grpc(check: &Check, retries: Option<&CheckRetries>) -> core_pb::GrpcService {
    let server = core_pb::grpc_service::EnvoyGrpc {
        cluster_name: name::server(&check.server).to_string(),
        authority: name::authority(&check.server),
        ..Default::default()
    };
    core_pb::GrpcService {
        timeout: Some(pb::duration(check.timeout)),
        retry_policy: retries.map(|retries| core_pb::RetryPolicy {
            num_retries: pb::uint32(retries.attempts),
            retry_on: "connect-failure,refused-stream,reset,unavailable".to_owned(),
            retry_back_off: Some(core_pb::BackoffStrategy {
                base_interval: Some(pb::duration(retries.base_interval)),
                max_interval: retries.max_interval.map(pb::duration),
            }),
            ..Default::default()
        }),
        target_specifier: Some(core_pb::grpc_service::TargetSpecifier::EnvoyGrpc(server)),
        ..Default::default()
    }
}

fn emit_http(check: &Check, call: &HttpCall) -> ext_authz_pb::HttpService {
    let uri = core_pb::HttpUri {
        uri: format!("http://{}", name::authority(&check.server)),
        timeout: Some(pb::duration(check.timeout)),
        http_upstream_type: Some(core_pb::http_uri::HttpUpstreamType::Cluster(name::server(&check.server).to_string())),
    };
    let (path_prefix, path_override) = match &call.path {
        CallPath::Prefix(prefix) => (prefix.to_string(), String::new()),
        CallPath::Fixed(path) => (String::new(), path.to_string()),
    };
    ext_authz_pb::HttpService {
        server_uri: Some(uri),
        path_prefix,
        path_override,
        authorization_request: Some(ext_authz_pb::AuthorizationRequest {
            headers_to_add: emit_headers(&call.added_headers),
            ..Default::default()
        }),
        authorization_response: Some(ext_authz_pb::AuthorizationResponse {
            allowed_upstream_headers: emit_names(&call.upstream_headers),
            allowed_upstream_headers_to_append: emit_names(&call.upstream_append),
            allowed_client_headers: emit_names(&call.client_headers),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Headers that a server gets as they are written. Envoy takes values for format strings, and at the first request it ends
/// over one that it cannot read.
fn emit_headers(headers: &BTreeMap<Name, Name>) -> Vec<core_pb::HeaderValue> {
    let header = |(name, value): (&Name, &Name)| core_pb::HeaderValue {
        key: name.to_string(),
        value: value.replace('%', "%%"),
        raw_value: Vec::new(),
    };
    headers.iter().map(header).collect()
}

/// Header names as patterns; nothing for none.
fn emit_names(names: &BTreeSet<Name>) -> Option<matcher_pb::ListStringMatcher> {
    use matcher_pb::string_matcher::MatchPattern;
    let pattern = |name: &Name| pb::string_matcher(MatchPattern::Exact(name.to_string()), true);
    (!names.is_empty()).then(|| matcher_pb::ListStringMatcher { patterns: names.iter().map(pattern).collect() })
}
