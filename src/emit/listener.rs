//! Listeners: one per bound port, byte-stable.
//!
//! A listener says how to tell connections apart, how to read requests and which filters stand in line; which hosts and
//! routes there are comes over RDS, keys and certificates over SDS. Nothing of a table's HTTP routes or of a policy is in
//! it, so attaching one never drains a connection. Routes of whole connections have no other place than here.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector_pb;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3 as closing_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as network_inputs_pb;
use envoy_types::pb::google::protobuf as google_pb;
use envoy_types::pb::xds::core::v3 as xds_core_pb;
use envoy_types::pb::xds::r#type::matcher::v3 as matching_pb;

use crate::ir::listener::{Chain, Purpose, Serves};
use crate::ir::{Action, Clients, Guard, Listener, Route, UpstreamId};
use crate::model::{Host, ObjectRef};
use crate::snapshot::Resource;

use super::{EmitOptions, Parts, access, clients, filter, layout, name, pb, route, tls, wire};

/// How long a stream may be silent in both directions. Envoy's own default, written out because it is the only limit on
/// routes without a timeout; half of it cuts slow long polls, double keeps dead streams longer.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// What HTTP chains offer to clients that negotiate.
const HTTP_PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// The listener of one bound port.
///
/// # Rule
/// R57; filter order and connection manager as the policy reference in the manual has them (slot 0).
pub(super) fn emit_listener(
    listener: &Listener,
    clients: Option<&Clients>,
    options: &EmitOptions,
    cut: &impl Fn(&Chain) -> Option<Parts>,
) -> Resource {
    let name = name::listener(listener.bind_port);
    let message = listener_pb::Listener {
        name: name.to_string(),
        address: Some(pb::socket_address(options.bind.to_string(), listener.bind_port)),
        listener_filters: listener.reads_tls().then(tls_inspector).into_iter().collect(),
        filter_chains: listener.chains.iter().map(|chain| emit_chain(listener, chain, cut(chain))).collect(),
        filter_chain_matcher: listener.tells_clients_apart().then(|| emit_clients_apart(listener, clients)),
        ..Default::default()
    };
    Resource::from_content(name, wire::encode(&message), pb::owners(concerned(listener)))
}

/// The objects that a refusal of a listener concerns: its virtual gateways, tables whose routes stand in it, and Services
/// that other clusters reach through it.
fn concerned(listener: &Listener) -> impl Iterator<Item = &ObjectRef> {
    let policies = listener.chains.iter().flat_map(|chain| &chain.guards).flat_map(|guard| &guard.policies);
    let tables = listener.streams().flat_map(|route| route.body.chain.iter().map(|hop| &hop.table));
    let relayed = listener.relayed().map(|upstream| &upstream.object);
    listener.gateways.iter().chain(tables).chain(policies).chain(relayed)
}

/// What a chain for whoever is left is called, where chains are told apart by clients; Envoy wants a name then.
const REST: &str = "rest";

/// Chooses a chain by the address that a connection comes from: the one place where a client's address is in a listener. One
/// more changes it in place; no chain drains.
///
/// # Rule
/// R188.
fn emit_clients_apart(listener: &Listener, clients: Option<&Clients>) -> matching_pb::Matcher {
    use matching_pb::matcher::matcher_tree::{MatchMap, TreeType};
    use matching_pb::matcher::on_match::OnMatch as Taken;
    use matching_pb::matcher::{MatcherTree, MatcherType, OnMatch};
    let extension =
        |name: &str, config| xds_core_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    let to = |chain: &str| OnMatch {
        on_match: Some(Taken::Action(extension("filter-chain-name", wire::any(&chain.to_owned())))),
        ..Default::default()
    };
    let chain_of = |workspace| listener.chains.iter().find(|chain| chain.client.as_ref() == Some(workspace));
    let known = clients.into_iter().flat_map(|clients| &clients.0);
    let map = known.filter_map(|(address, client)| Some((address.to_string(), to(&chain_of(&client.workspace)?.name))));
    let map: HashMap<String, OnMatch> = map.collect();
    let rest = listener.chains.iter().any(|chain| chain.client.is_none()).then(|| Box::new(to(REST)));
    let tree = MatcherTree {
        input: Some(extension("source-ip", wire::any(&network_inputs_pb::SourceIpInput::default()))),
        tree_type: Some(TreeType::ExactMatchMap(MatchMap { map })),
    };
    // Envoy wants an entry in a tree.
    let is_known = matches!(&tree.tree_type, Some(TreeType::ExactMatchMap(known)) if !known.map.is_empty());
    matching_pb::Matcher { matcher_type: is_known.then_some(MatcherType::MatcherTree(tree)), on_no_match: rest }
}

/// Reads the server name out of the first message of a TLS connection.
fn tls_inspector() -> listener_pb::ListenerFilter {
    use listener_pb::listener_filter::ConfigType;
    listener_pb::ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(ConfigType::TypedConfig(wire::any(&tls_inspector_pb::TlsInspector::default()))),
        ..Default::default()
    }
}

fn emit_chain(listener: &Listener, chain: &Chain, cut: Option<Parts>) -> listener_pb::FilterChain {
    let bind_port = listener.bind_port;
    let protocols = match &chain.serves {
        Serves::Http(_) => HTTP_PROTOCOLS,
        Serves::Relay { upstream } if !upstream.purpose.is_crossing_whole() => HTTP_PROTOCOLS,
        Serves::Tcp(_) | Serves::Relay { .. } => &[],
    };
    let filter = match &chain.serves {
        Serves::Http(_) => network_filter(
            "envoy.filters.network.http_connection_manager",
            wire::any(&connection_manager(listener, chain, cut)),
        ),
        Serves::Relay { upstream } if !upstream.purpose.is_crossing_whole() => {
            network_filter("envoy.filters.network.http_connection_manager", wire::any(&relay(bind_port, upstream)))
        }
        Serves::Relay { upstream } => {
            let specifier = tcp_pb::tcp_proxy::ClusterSpecifier::Cluster(name::cluster(upstream).to_string());
            let stat_prefix = bind_port.to_string();
            let proxy = tcp_pb::TcpProxy { stat_prefix, cluster_specifier: Some(specifier), ..Default::default() };
            network_filter("envoy.filters.network.tcp_proxy", wire::any(&proxy))
        }
        Serves::Tcp(Some(route)) => {
            network_filter("envoy.filters.network.tcp_proxy", wire::any(&tcp_proxy(bind_port, route)))
        }
        // Answers with nothing and closes.
        Serves::Tcp(None) => {
            network_filter("envoy.filters.network.direct_response", wire::any(&closing_pb::Config::default()))
        }
    };
    let is_plain = chain.tls.is_none() && chain.server_names.is_empty() && chain.name.is_empty();
    listener_pb::FilterChain {
        name: if is_plain && listener.tells_clients_apart() { REST.to_owned() } else { chain.name.to_string() },
        filter_chain_match: (!is_plain && chain.client.is_none()).then(|| listener_pb::FilterChainMatch {
            server_names: chain.server_names.iter().map(Host::to_string).collect(),
            // Plaintext on a TLS port is nobody's.
            transport_protocol: "tls".to_owned(),
            ..Default::default()
        }),
        filters: chain.guards.iter().map(|guard| judge(bind_port, guard)).chain([filter]).collect(),
        transport_socket: chain.tls.as_ref().map(|tls| tls::emit_downstream(tls, protocols)),
        ..Default::default()
    }
}

fn network_filter(name: &str, config: google_pb::Any) -> listener_pb::Filter {
    listener_pb::Filter {
        name: name.to_owned(),
        config_type: Some(listener_pb::filter::ConfigType::TypedConfig(config)),
    }
}

/// Closes connections of those who may not open one, before anything of them is passed on.
fn judge(bind_port: u16, guard: &Guard) -> listener_pb::Filter {
    network_filter("envoy.filters.network.rbac", wire::any(&access::emit_network(guard, bind_port.to_string())))
}

/// Passes whole connections on.
fn tcp_proxy(bind_port: u16, route: &Route) -> tcp_pb::TcpProxy {
    use tcp_pb::tcp_proxy::weighted_cluster::ClusterWeight;
    use tcp_pb::tcp_proxy::{ClusterSpecifier, WeightedCluster};
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let specifier = match destinations {
        [only] => ClusterSpecifier::Cluster(name::cluster(&only.upstream).to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|destination| ClusterWeight {
                    name: name::cluster(&destination.upstream).to_string(),
                    weight: destination.weight,
                    ..Default::default()
                })
                .collect(),
        }),
    };
    tcp_pb::TcpProxy { stat_prefix: bind_port.to_string(), cluster_specifier: Some(specifier), ..Default::default() }
}

/// Passes requests of another cluster's gateway on as they are: that has routed, judged and rewritten them. Its routes never
/// change, so they stand in the listener.
///
/// # Rule
/// R183.
fn relay(bind_port: u16, upstream: &UpstreamId) -> hcm_pb::HttpConnectionManager {
    use hcm_pb::http_connection_manager as hcm;
    let name = name::cluster(upstream);
    hcm_pb::HttpConnectionManager {
        codec_type: hcm::CodecType::Auto.into(),
        stat_prefix: bind_port.to_string(),
        // The client's address, identity and request are what the sender says of them.
        use_remote_address: pb::boolean(false),
        skip_xff_append: true,
        forward_client_cert_details: hcm::ForwardClientCertDetails::AlwaysForwardOnly.into(),
        generate_request_id: pb::boolean(false),
        preserve_external_request_id: true,
        path_with_escaped_slashes_action: hcm::PathWithEscapedSlashesAction::KeepUnchanged.into(),
        // How long anything may take is the sender's to say.
        stream_idle_timeout: Some(pb::duration(Duration::ZERO)),
        http_filters: vec![filter::router()],
        route_specifier: Some(hcm::RouteSpecifier::RouteConfig(route::emit_relay(&name))),
        ..Default::default()
    }
}

fn connection_manager(listener: &Listener, chain: &Chain, cut: Option<Parts>) -> hcm_pb::HttpConnectionManager {
    use hcm_pb::http_connection_manager as hcm;

    let bind_port = listener.bind_port;

    // A listener whose routes are missing would answer 404 to everything: wait for them. `verify` keeps a snapshot from
    // naming routes that it does not have.
    let mut config_source = pb::over_ads();
    config_source.initial_fetch_timeout = Some(pb::duration(Duration::ZERO));
    let route_specifier = if cut.is_some() {
        hcm::RouteSpecifier::ScopedRoutes(layout::emit_scoped_routes(bind_port, chain, config_source))
    } else {
        let route_config_name = name::route_configuration(bind_port, &chain.name).to_string();
        hcm::RouteSpecifier::Rds(hcm_pb::Rds { config_source: Some(config_source), route_config_name })
    };
    let knows_clients = (listener.purpose == Purpose::Mesh).then(clients::emit_filters);
    let chooses_part = cut.map(|parts| layout::emit_filter(bind_port, chain, parts));
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
        http_filters: knows_clients.into_iter().flatten().chain(chooses_part).chain(filter::chain()).collect(),
        route_specifier: Some(route_specifier),
        ..Default::default()
    }
}
