//! Clusters: how to speak to a destination, and what stands in the way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_pb;
use envoy_types::pb::envoy::config::rbac::v3 as rules_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::extensions::filters::http::upstream_codec::v3 as upstream_codec_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as lb_pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request_pb;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http_pb;
use envoy_types::pb::envoy::r#type::v3 as type_pb;

use crate::ir::policy::balancing::Outlier;
use crate::ir::upstream::{Closed, Dial, Remote, UpstreamProtocol};
use crate::ir::{Extensions, Guard, Upstream};
use crate::model::{EnvoyRelease, Kind, Name, ObjectRef};
use crate::snapshot::{Resource, Version};

use super::{access, endpoint, filter, name, pb, tls, upstream_tls, wire};

/// How long opening a connection may take, TLS included. The source platform's default; half of it fails distant
/// clusters under load, double makes a dead endpoint cost a retry twice as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Envoy's own thresholds (1,024 connections, pending and active requests, 3 retries) throttle without a word.
const UNLIMITED: u32 = u32::MAX;

/// The key of what says how a cluster speaks HTTP.
const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of one upstream.
///
/// # Rule
/// The baseline for clusters of the policy reference in the manual; R130 and the shapes deny and black hole for a
/// destination that is kept closed.
pub(super) fn emit_cluster(upstream: &Upstream, gateway_cluster: &Name) -> Resource {
    use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig};

    let is_looked_up = upstream.is_looked_up();
    let discovery = if is_looked_up { DiscoveryType::StrictDns } else { DiscoveryType::Eds };
    let name = name::cluster(&upstream.id);
    let transports = Transports::of(upstream);
    let endpoints = transports.endpoints(&name);
    let service_name = if endpoints == name { String::new() } else { endpoints.to_string() };
    let eds = EdsClusterConfig { eds_config: Some(pb::over_ads()), service_name };
    let protocol_options = wire::any(&protocol_options(upstream));
    let policies = upstream.guards.iter().flat_map(|guard| &guard.policies);
    let concerned: Vec<ObjectRef> = [&upstream.id.object].into_iter().chain(policies).cloned().collect();
    let message = cluster_pb::Cluster {
        name: name.to_string(),
        alt_stat_name: name::stat(&upstream.id, gateway_cluster),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        eds_cluster_config: (!is_looked_up).then_some(eds),
        load_assignment: is_looked_up.then(|| endpoint::assignment(upstream, &name)),
        // Many nodes have no way to IPv6, and names often have such addresses all the same.
        dns_lookup_family: if is_looked_up { DnsLookupFamily::V4Preferred.into() } else { 0 },
        connect_timeout: Some(pb::duration(CONNECT_TIMEOUT)),
        load_balancing_policy: Some(least_request(!upstream.shares.is_empty())),
        outlier_detection: upstream.outlier.as_ref().map(outlier),
        // Who has failed gets nothing, also when few are left.
        common_lb_config: upstream.outlier.as_ref().map(|_| cluster_pb::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(type_pb::Percent { value: 0.0 }),
            // By default a second change of health within a second is told to workers when that is over (seen on 1.40: whoever
            // takes over and fails too goes on getting requests).
            update_merge_window: Some(pb::duration(Duration::ZERO)),
            ..Default::default()
        }),
        circuit_breakers: Some(unlimited()),
        typed_extension_protocol_options: [(PROTOCOL_OPTIONS.to_owned(), protocol_options)].into(),
        transport_socket: transports.direct,
        transport_socket_matches: transports.others,
        metadata: pb::provenance("objects", &concerned),
        ..Default::default()
    };
    Resource::from_content(name, wire::encode(&message), pb::owners(&concerned))
}

/// How the endpoints of a cluster are spoken to.
pub(super) struct Transports {
    /// Those that are reached straight; none for plaintext.
    direct: Option<core_pb::TransportSocket>,
    /// Those that say which of these they want.
    others: Vec<cluster_pb::cluster::TransportSocketMatch>,
    /// Of a group, whose members come and go: the policies that say who may call it.
    guards: Vec<ObjectRef>,
}

impl Transports {
    pub(super) fn of(upstream: &Upstream) -> Self {
        let remotes = upstream.remotes.iter().map(|remote| crossing(remote, upstream.protocol));
        Self {
            direct: upstream_tls::emit_direct(upstream),
            others: remotes.chain(upstream_tls::emit_externals(upstream)).collect(),
            guards: match upstream.id.object.kind {
                Kind::VirtualDestination => upstream.guards.iter().flat_map(|guard| &guard.policies).cloned().collect(),
                _ => Vec::new(),
            },
        }
    }

    /// The name of the endpoints of a cluster with these transports.
    ///
    /// Other transports have other names, and so have other policies of a group: endpoints go out with the cluster that they
    /// belong to, and as long as that is warming, the one before still serves. It must not take endpoints that it would speak
    /// to in another way, least of all in plaintext (seen on 1.40), or let everybody to.
    pub(super) fn endpoints(&self, cluster: &Name) -> Name {
        if self.direct.is_none() && self.others.is_empty() && self.guards.is_empty() {
            return cluster.clone();
        }
        let (transport_socket, transport_socket_matches) = (self.direct.clone(), self.others.clone());
        let metadata = pb::provenance("guards", &self.guards);
        let own = cluster_pb::Cluster { transport_socket, transport_socket_matches, metadata, ..Default::default() };
        name::endpoints(cluster, &Version::of_content(&wire::encode(&own)))
    }
}

/// How endpoints in another cluster are spoken to, or what is behind those that pass TLS through; others are spoken to as the
/// cluster says.
fn crossing(
    (cluster, remote): (&Name, &Remote),
    protocol: UpstreamProtocol,
) -> cluster_pb::cluster::TransportSocketMatch {
    cluster_pb::cluster::TransportSocketMatch {
        name: cluster.to_string(),
        r#match: Some(pb::leading_to(cluster, remote.tls.is_some())),
        transport_socket: Some(match &remote.tls {
            None => tls::emit_crossing(cluster, remote, protocol),
            Some(tls) => upstream_tls::emit(tls),
        }),
    }
}

/// The clusters of addresses outside the mesh that gateways ask, each with the policies because of which they do.
pub(super) fn dialled(extensions: &Extensions) -> BTreeMap<&Dial, Arc<[ObjectRef]>> {
    let askers = extensions.askers();
    let owners = |dial: &Dial| pb::owners(askers.get(dial).into_iter().flatten().copied());
    extensions.dials().map(|dial| (dial, owners(dial))).collect()
}

/// The cluster of an address outside the mesh: Envoy looks its name up, and verifies who answers.
pub(super) fn emit_dialled(dial: &Dial, owners: Arc<[ObjectRef]>) -> Resource {
    use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily};

    let name = name::dial(dial);
    let is_literal = dial.host.parse::<IpAddr>().is_ok();
    let discovery = if is_literal { DiscoveryType::Static } else { DiscoveryType::StrictDns };
    let protocol = if dial.http2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
    let endpoint = endpoint_pb::Endpoint {
        address: Some(pb::socket_address(pb::absolute(&dial.host), dial.port)),
        hostname: dial.host.to_string(),
        ..Default::default()
    };
    let endpoint = endpoint_pb::LbEndpoint {
        host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    let message = cluster_pb::Cluster {
        name: name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        load_assignment: Some(endpoint_pb::ClusterLoadAssignment {
            cluster_name: name.to_string(),
            endpoints: vec![endpoint_pb::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        // Many nodes have no way to IPv6, and names often have such addresses all the same.
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        connect_timeout: Some(pb::duration(CONNECT_TIMEOUT)),
        load_balancing_policy: Some(least_request(false)),
        circuit_breakers: Some(unlimited()),
        transport_socket: dial.tls.then(|| tls::emit_dialled(&dial.host, dial.http2)),
        typed_extension_protocol_options: [(PROTOCOL_OPTIONS.to_owned(), wire::any(&speaking(protocol)))].into(),
        ..Default::default()
    };
    Resource::from_content(name, wire::encode(&message), owners)
}

fn speaking(protocol: UpstreamProtocol) -> upstream_http_pb::HttpProtocolOptions {
    use upstream_http_pb::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream_http_pb::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    };

    let explicit = |protocol_config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(protocol_config) })
    };
    let options = match protocol {
        UpstreamProtocol::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(core_pb::Http1ProtocolOptions::default()))
        }
        UpstreamProtocol::Http2 => {
            explicit(ProtocolConfig::Http2ProtocolOptions(core_pb::Http2ProtocolOptions::default()))
        }
        UpstreamProtocol::AsClient => {
            // Without options of its own a protocol is not used.
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(core_pb::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(core_pb::Http2ProtocolOptions::default()),
                ..Default::default()
            })
        }
    };
    upstream_http_pb::HttpProtocolOptions { upstream_protocol_options: Some(options), ..Default::default() }
}

/// The protocol, and the filters that run once a host of the cluster is to be chosen.
fn protocol_options(upstream: &Upstream) -> upstream_http_pb::HttpProtocolOptions {
    upstream_http_pb::HttpProtocolOptions {
        http_filters: match upstream.closed {
            Some(Closed::Deny) => deny_everything(),
            Some(Closed::BlackHole) => Vec::new(),
            None => guards(upstream),
        },
        ..speaking(upstream.protocol)
    }
}

/// Judges requests when a host is to be chosen: before any connection, and by the path as it was rewritten.
fn guards(upstream: &Upstream) -> Vec<hcm_pb::HttpFilter> {
    if upstream.guards.is_empty() {
        return Vec::new();
    }
    let one = |(index, guard): (usize, &Guard)| {
        let name = if index == 0 { filter::ACCESS.to_owned() } else { format!("{}.{index}", filter::ACCESS) };
        // Older ones have no such filter, and are not given the hosts.
        filter::http_filter(&name, wire::any(&access::emit_http(guard, EnvoyRelease::NEWEST)))
    };
    upstream.guards.iter().enumerate().map(one).chain([codec()]).collect()
}

/// What every chain of a cluster ends with.
fn codec() -> hcm_pb::HttpFilter {
    let codec = upstream_codec_pb::UpstreamCodec::default();
    filter::http_filter("envoy.filters.http.upstream_codec", wire::any(&codec))
}

/// Rules that allow by policies, and no policies: 403 on every route to the cluster, before any connection.
fn deny_everything() -> Vec<hcm_pb::HttpFilter> {
    let rules = rules_pb::Rbac { action: rules_pb::rbac::Action::Allow.into(), ..Default::default() };
    let deny = rbac_pb::Rbac { rules: Some(rules), ..Default::default() };
    vec![filter::http_filter("chancery.deny", wire::any(&deny)), codec()]
}

/// The longest that an endpoint is left alone, whatever it is written as for the first time. Envoy's default.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// When endpoints that fail are left alone. What Envoy would eject for of its own accord is off, and one may always be,
/// however few there are.
///
/// # Rule
/// R174.
fn outlier(outlier: &Outlier) -> cluster_pb::OutlierDetection {
    let gateway_errors = outlier.consecutive_gateway_errors;
    cluster_pb::OutlierDetection {
        consecutive_5xx: pb::uint32(outlier.consecutive_errors),
        enforcing_consecutive_5xx: pb::uint32(100),
        consecutive_gateway_failure: gateway_errors.and_then(pb::uint32),
        enforcing_consecutive_gateway_failure: pb::uint32(if gateway_errors.is_some() { 100 } else { 0 }),
        interval: Some(pb::duration(outlier.interval)),
        base_ejection_time: Some(pb::duration(outlier.base_ejection_time)),
        max_ejection_time: Some(pb::duration(outlier.base_ejection_time.max(LONGEST_EJECTION))),
        max_ejection_percent: pb::uint32(outlier.max_ejection_percent),
        enforcing_success_rate: pb::uint32(0),
        always_eject_one_host: pb::boolean(true),
        ..Default::default()
    }
}

/// Whoever has the least to do; `by_place`, after a place is chosen by its share.
fn least_request(by_place: bool) -> cluster_pb::LoadBalancingPolicy {
    let locality_lb_config = by_place.then(|| lb_pb::LocalityLbConfig {
        locality_config_specifier: Some(lb_pb::locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            Default::default(),
        )),
    });
    let extension = core_pb::TypedExtensionConfig {
        name: "envoy.load_balancing_policies.least_request".to_owned(),
        typed_config: Some(wire::any(&least_request_pb::LeastRequest { locality_lb_config, ..Default::default() })),
    };
    cluster_pb::LoadBalancingPolicy {
        policies: vec![cluster_pb::load_balancing_policy::Policy { typed_extension_config: Some(extension) }],
    }
}

fn unlimited() -> cluster_pb::CircuitBreakers {
    let thresholds = cluster_pb::circuit_breakers::Thresholds {
        max_connections: pb::uint32(UNLIMITED),
        max_pending_requests: pb::uint32(UNLIMITED),
        max_requests: pb::uint32(UNLIMITED),
        max_retries: pb::uint32(UNLIMITED),
        ..Default::default()
    };
    cluster_pb::CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}
