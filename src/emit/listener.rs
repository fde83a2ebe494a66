//! Listeners: one per bound port, plain HTTP, byte-stable.
//!
//! A listener says how to read requests and which filters stand in line; which hosts and routes there are comes over
//! RDS. Nothing of a table or policy is in it, so attaching one never drains a connection.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use crate::ir::Listener;
use crate::snapshot::Resource;

use super::{EmitOptions, filter, name, pb, wire};

/// How long a stream may be silent in both directions. Envoy's own default, written out because it is the only limit on
/// routes without a timeout; half of it cuts slow long polls, double keeps dead streams longer.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The listener of one bound port.
///
/// # Rule
/// R57; filter order and connection manager as the policy reference in the manual has them (slot 0).
pub(super) fn emit_listener(listener: &Listener, options: &EmitOptions) -> Resource {
    let name = name::listener(listener.bind_port);
    let manager = listener_pb::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener_pb::filter::ConfigType::TypedConfig(wire::any(&connection_manager(
            listener.bind_port,
        )))),
    };
    let message = listener_pb::Listener {
        name: name.to_string(),
        address: Some(pb::socket_address(options.bind.to_string(), listener.bind_port)),
        filter_chains: vec![listener_pb::FilterChain { filters: vec![manager], ..Default::default() }],
        ..Default::default()
    };
    Resource::from_content(name, wire::encode(&message), pb::owners(&listener.gateways))
}

fn connection_manager(bind_port: u16) -> hcm_pb::HttpConnectionManager {
    use hcm_pb::http_connection_manager as hcm;

    // A listener whose routes are missing would answer 404 to everything: wait for them. `verify` keeps a snapshot from
    // naming routes that it does not have.
    let mut config_source = pb::over_ads();
    config_source.initial_fetch_timeout = Some(pb::duration(Duration::ZERO));
    let rds = hcm_pb::Rds {
        config_source: Some(config_source),
        route_config_name: name::route_configuration(bind_port).to_string(),
    };
    hcm_pb::HttpConnectionManager {
        codec_type: hcm::CodecType::Auto.into(),
        stat_prefix: bind_port.to_string(),
        // Path and client address: checks by filters can be bypassed without these.
        normalize_path: pb::boolean(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: hcm::PathWithEscapedSlashesAction::UnescapeAndRedirect.into(),
        use_remote_address: pb::boolean(true),
        forward_client_cert_details: hcm::ForwardClientCertDetails::SanitizeSet.into(),
        stream_idle_timeout: Some(pb::duration(STREAM_IDLE_TIMEOUT)),
        http_filters: filter::chain(),
        route_specifier: Some(hcm::RouteSpecifier::Rds(rds)),
        ..Default::default()
    }
}
