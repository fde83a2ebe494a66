//! One snapshot that is clean, and what each kind of damage to it is called.

use super::super::Resource;
use super::*;
use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType};
use hcm_pb::scoped_routes as scopes_pb;
use route_pb::route_action::ClusterSpecifier;

/// The parts of a clean snapshot, to be damaged.
struct Parts {
    cluster: cluster_pb::Cluster,
    endpoints: Vec<endpoint_pb::ClusterLoadAssignment>,
    listener: listener_pb::Listener,
    manager: hcm_pb::HttpConnectionManager,
    routes: route_pb::RouteConfiguration,
    more: Vec<(ResourceType, Resource)>,
}

fn any<M: prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn http_filter(name: &str, config: Any) -> hcm_pb::HttpFilter {
    let config_type = Some(hcm_pb::http_filter::ConfigType::TypedConfig(config));
    hcm_pb::HttpFilter { name: name.to_owned(), config_type, ..Default::default() }
}

fn router() -> hcm_pb::HttpFilter {
    use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
    http_filter("router", any(&Router::default()))
}

fn forward(specifier: ClusterSpecifier) -> Option<route_pb::route::Action> {
    let timeout = Some(envoy_types::pb::google::protobuf::Duration::default());
    let action = route_pb::RouteAction { cluster_specifier: Some(specifier), timeout, ..Default::default() };
    Some(route_pb::route::Action::Route(action))
}

fn header(key: &str, value: &str) -> core_pb::HeaderValueOption {
    let header = core_pb::HeaderValue { key: key.to_owned(), value: value.to_owned(), ..Default::default() };
    core_pb::HeaderValueOption { header: Some(header), ..Default::default() }
}

fn listener(name: &str, port: u32) -> listener_pb::Listener {
    let socket = core_pb::SocketAddress {
        address: "0.0.0.0".to_owned(),
        port_specifier: Some(core_pb::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    let address = core_pb::Address { address: Some(core_pb::address::Address::SocketAddress(socket)) };
    listener_pb::Listener { name: name.to_owned(), address: Some(address), ..Default::default() }
}

fn resource(name: &str, message: &impl Message) -> Resource {
    Resource::from_content(name.into(), message.encode_to_vec().into(), [].into())
}

impl Parts {
    fn clean() -> Self {
        let route = route_pb::Route {
            name: "r".to_owned(),
            r#match: Some(route_pb::RouteMatch {
                path_specifier: Some(route_pb::route_match::PathSpecifier::Prefix("/".to_owned())),
                ..Default::default()
            }),
            action: forward(ClusterSpecifier::Cluster("c".to_owned())),
            ..Default::default()
        };
        let host = route_pb::VirtualHost {
            name: "h".to_owned(),
            domains: vec!["h.example".to_owned()],
            routes: vec![route],
            ..Default::default()
        };
        let rds = hcm_pb::Rds { route_config_name: "routes".to_owned(), ..Default::default() };
        Self {
            cluster: cluster_pb::Cluster {
                name: "c".to_owned(),
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
                ..Default::default()
            },
            endpoints: vec![endpoint_pb::ClusterLoadAssignment { cluster_name: "c".to_owned(), ..Default::default() }],
            listener: listener("l", 80),
            manager: hcm_pb::HttpConnectionManager {
                http_filters: vec![http_filter("slot", Any::default()), router()],
                route_specifier: Some(hcm_pb::http_connection_manager::RouteSpecifier::Rds(rds)),
                ..Default::default()
            },
            routes: route_pb::RouteConfiguration {
                name: "routes".to_owned(),
                virtual_hosts: vec![host],
                ..Default::default()
            },
            more: Vec::new(),
        }
    }

    fn host(&mut self) -> &mut route_pb::VirtualHost {
        &mut self.routes.virtual_hosts[0]
    }

    fn route(&mut self) -> &mut route_pb::Route {
        &mut self.routes.virtual_hosts[0].routes[0]
    }

    fn matcher(&mut self) -> &mut route_pb::RouteMatch {
        self.route().r#match.as_mut().unwrap()
    }

    fn snapshot(mut self) -> Snapshot {
        if !self.manager.http_filters.is_empty() {
            let config = Some(listener_pb::filter::ConfigType::TypedConfig(any(&self.manager)));
            let filter = listener_pb::Filter { name: "hcm".to_owned(), config_type: config };
            self.listener.filter_chains =
                vec![listener_pb::FilterChain { filters: vec![filter], ..Default::default() }];
        }
        let mut snapshot = Snapshot::new();
        for resource_type in ResourceType::ALL {
            let mut resources = match resource_type {
                ResourceType::Cluster => vec![resource("c", &self.cluster)],
                ResourceType::Endpoint => {
                    self.endpoints.iter().map(|endpoints| resource(&endpoints.cluster_name, endpoints)).collect()
                }
                ResourceType::Listener => vec![resource("l", &self.listener)],
                ResourceType::Route => vec![resource("routes", &self.routes)],
                ResourceType::Secret
                | ResourceType::Extension
                | ResourceType::ScopedRoute
                | ResourceType::RateLimit => Vec::new(),
            };
            let more = self.more.iter().filter(|(other, _)| *other == resource_type);
            resources.extend(more.map(|(_, resource)| resource.clone()));
            snapshot = snapshot.with(resource_type, resources);
        }
        snapshot
    }
}

#[test]
fn a_clean_snapshot_passes() {
    assert_eq!(verify(&Parts::clean().snapshot()), []);
    assert_eq!(verify(&Snapshot::new()), []);
}

/// Damages a clean snapshot and expects exactly these complaints.
fn check(expected: &[&str], damage: impl FnOnce(&mut Parts)) {
    let mut parts = Parts::clean();
    damage(&mut parts);
    let said: Vec<String> = verify(&parts.snapshot()).iter().map(ToString::to_string).collect();
    assert_eq!(said, expected);
}

#[test]
fn references_are_closed() {
    let unknown = "Route `routes`: host `h`, route `r`: forwards to cluster `x`, which does not exist";
    check(&[unknown], |parts| parts.route().action = forward(ClusterSpecifier::Cluster("x".to_owned())));
    check(&["Cluster `c`: has no endpoints `c`, so Envoy would wait for them"], |parts| parts.endpoints.clear());
    check(&["Endpoint `x`: no cluster takes these endpoints"], |parts| {
        parts.endpoints.push(endpoint_pb::ClusterLoadAssignment { cluster_name: "x".to_owned(), ..Default::default() });
    });
    check(&["Listener `l`: waits for routes `x`, which do not exist"], |parts| {
        let rds = hcm_pb::Rds { route_config_name: "x".to_owned(), ..Default::default() };
        parts.manager.route_specifier = Some(hcm_pb::http_connection_manager::RouteSpecifier::Rds(rds));
    });
    check(&["Listener `l`: takes its routes from nowhere"], |parts| parts.manager.route_specifier = None);
}

#[test]
fn names_and_addresses_are_unique() {
    check(
        &[
            "Cluster `c`: calls itself `d`",
            "Cluster `c`: has no endpoints `d`, so Envoy would wait for them",
            "Endpoint `c`: no cluster takes these endpoints",
        ],
        |parts| parts.cluster.name = "d".to_owned(),
    );
    check(&["Listener `m`: binds 0.0.0.0:80, as `l` does", "Listener `m`: has no filter chain"], |parts| {
        parts.more.push((ResourceType::Listener, resource("m", &listener("m", 80))));
    });
    check(&["Listener `l`: has no socket address"], |parts| parts.listener.address = None);
    check(
        &[
            "Route `routes`: host `h`: domain `H.example` is taken already",
            "Route `routes`: host `h`: has the name of another",
        ],
        |parts| {
            let mut twin = parts.host().clone();
            twin.domains = vec!["H.example".to_owned()];
            parts.routes.virtual_hosts.push(twin);
        },
    );
    check(&["Route `routes`: host `h`: has no domain"], |parts| parts.host().domains.clear());
}

#[test]
fn bytes_decode() {
    let broken = Resource::from_content("x".into(), vec![0x0a, 0xff].into(), [].into());
    let mut parts = Parts::clean();
    parts.more.push((ResourceType::Listener, broken));
    let said = verify(&parts.snapshot());
    assert_eq!(said.len(), 1);
    assert!(said[0].message.starts_with("does not decode: "), "{}", said[0]);
}

#[test]
fn every_configured_slot_stands_in_the_chain() {
    let config = || [("x".to_owned(), Any::default()), ("slot".to_owned(), Any::default())].into();
    let ignored = "configures `x`, which `l` does not have, so it would be ignored";
    check(&[&format!("Route `routes`: {ignored}")], |parts| parts.routes.typed_per_filter_config = config());
    check(&[&format!("Route `routes`: host `h`: {ignored}")], |parts| {
        parts.host().typed_per_filter_config = config();
    });
    check(&[&format!("Route `routes`: host `h`, route `r`: {ignored}")], |parts| {
        parts.route().typed_per_filter_config = config();
    });
    check(&[&format!("Route `routes`: host `h`, route `r`: {ignored}")], |parts| {
        let entry = route_pb::weighted_cluster::ClusterWeight {
            name: "c".to_owned(),
            weight: Some(envoy_types::pb::google::protobuf::UInt32Value { value: 100 }),
            typed_per_filter_config: config(),
            ..Default::default()
        };
        let weighted = route_pb::WeightedCluster { clusters: vec![entry], ..Default::default() };
        parts.route().action = forward(ClusterSpecifier::WeightedClusters(weighted));
    });
}

#[test]
fn filter_chains_end_as_they_must() {
    let not_last = "Listener `l`: its HTTP filters do not end with the one router";
    check(&[not_last], |parts| parts.manager.http_filters.reverse());
    check(&[not_last], |parts| {
        parts.manager.http_filters.pop();
    });
    check(&["Listener `l`: has two HTTP filters `router`", not_last], |parts| {
        parts.manager.http_filters.push(router());
    });
    check(&["Listener `l`: HTTP filter `slot` has no configuration"], |parts| {
        parts.manager.http_filters[0].config_type = None;
    });
    check(&["Cluster `c`: its HTTP filters do not end with the upstream codec"], |parts| {
        let options = upstream_http_pb::HttpProtocolOptions { http_filters: vec![router()], ..Default::default() };
        parts.cluster.typed_extension_protocol_options = [("options".to_owned(), any(&options))].into();
    });
}

#[test]
fn weights_are_percentages() {
    let entry = |value| route_pb::weighted_cluster::ClusterWeight {
        name: "c".to_owned(),
        weight: Some(envoy_types::pb::google::protobuf::UInt32Value { value }),
        ..Default::default()
    };
    for (weights, expected) in [
        (vec![60, 40], vec![]),
        (vec![60, 41], vec!["Route `routes`: host `h`, route `r`: weights add up to 101 and not to 100"]),
        (vec![], vec!["Route `routes`: host `h`, route `r`: weights add up to 0 and not to 100"]),
    ] {
        check(&expected, |parts| {
            let clusters = weights.into_iter().map(entry).collect();
            let weighted = route_pb::WeightedCluster { clusters, ..Default::default() };
            parts.route().action = forward(ClusterSpecifier::WeightedClusters(weighted));
        });
    }
}

#[test]
fn expressions_compile() {
    let bad = || matcher_pb::RegexMatcher { regex: "(?!a)".to_owned(), ..Default::default() };
    let condition = || matcher_pb::StringMatcher {
        match_pattern: Some(matcher_pb::string_matcher::MatchPattern::SafeRegex(bad())),
        ..Default::default()
    };
    let expected = "Route `routes`: host `h`, route `r`: expression `(?!a)` is not valid: `(?!a)` is no RE2 expression: look-around, including \
                    look-ahead and look-behind, is not supported";
    check(&[expected], |parts| {
        parts.matcher().path_specifier = Some(route_pb::route_match::PathSpecifier::SafeRegex(bad()));
    });
    check(&[expected], |parts| {
        use route_pb::header_matcher::HeaderMatchSpecifier;
        parts.matcher().headers = vec![route_pb::HeaderMatcher {
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(condition())),
            ..Default::default()
        }];
    });
    check(&[expected], |parts| {
        use route_pb::query_parameter_matcher::QueryParameterMatchSpecifier;
        parts.matcher().query_parameters = vec![route_pb::QueryParameterMatcher {
            query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(condition())),
            ..Default::default()
        }];
    });
    check(&[expected], |parts| {
        let Some(route_pb::route::Action::Route(action)) = &mut parts.route().action else { unreachable!() };
        action.regex_rewrite =
            Some(matcher_pb::RegexMatchAndSubstitute { pattern: Some(bad()), substitution: String::new() });
    });
    check(&[expected], |parts| {
        let cors = cors_pb::CorsPolicy { allow_origin_string_match: vec![condition()], ..Default::default() };
        parts.route().typed_per_filter_config = [("slot".to_owned(), any(&cors))].into();
    });
}

#[test]
fn direct_responses_keep_their_limits() {
    let direct = |status, size: usize| {
        let specifier = Some(core_pb::data_source::Specifier::InlineString("x".repeat(size)));
        let body = Some(core_pb::DataSource { specifier, ..Default::default() });
        let action = route_pb::DirectResponseAction { status, body, body_format: None };
        Some(route_pb::route::Action::DirectResponse(action))
    };
    check(&[], |parts| parts.route().action = direct(200, 4096));
    check(&["Route `routes`: host `h`, route `r`: answers with 4097 bytes, more than 4096"], |parts| {
        parts.route().action = direct(200, 4097);
    });
    check(&["Route `routes`: host `h`, route `r`: answers with status 600"], |parts| {
        parts.route().action = direct(600, 0);
    });
}

#[test]
fn routes_are_whole() {
    check(&["Route `routes`: host `h`, route `r`: does nothing"], |parts| parts.route().action = None);
    check(&["Route `routes`: host `h`, route `r`: matches nothing"], |parts| parts.route().r#match = None);
    check(&["Route `routes`: host `h`, route `r`: has no path to match"], |parts| {
        parts.matcher().path_specifier = None;
    });
    check(&["Route `routes`: host `h`, route `r`: has no timeout, which is 15 s and not none"], |parts| {
        let Some(route_pb::route::Action::Route(action)) = &mut parts.route().action else { unreachable!() };
        action.timeout = None;
    });
}

#[test]
fn header_changes_are_such_as_envoy_takes() {
    let at = "Route `routes`: host `h`, route `r`:";
    check(&[&format!("{at} value of header `a`: `%` is not a command; a lone `%` is written `%%`")], |parts| {
        parts.route().request_headers_to_add = vec![header("a", "100%"), header("b", "%PROTOCOL%")];
    });
    check(&[&format!("{at} adds header `Host`"), &format!("{at} adds header `a b`")], |parts| {
        parts.route().response_headers_to_add = vec![header("Host", "x"), header("a b", "x")];
    });
    check(&[&format!("{at} removes header `:path`")], |parts| {
        parts.route().request_headers_to_remove = vec![":path".to_owned(), "a".to_owned()];
    });
}

/// Envoy counts bytes of names and values, and refuses the whole configuration for one too many (seen on 1.40).
#[test]
fn headers_that_a_filter_changes_are_checked_too() {
    use mutation_pb::header_mutation::Action;
    let long = |length: usize| "v".repeat(length);
    let slots = |actions: Vec<Action>| {
        let request_mutations =
            actions.into_iter().map(|action| mutation_pb::HeaderMutation { action: Some(action) }).collect();
        let mutations = header_mutation_pb::Mutations { request_mutations, ..Default::default() };
        let config = header_mutation_pb::HeaderMutationPerRoute { mutations: Some(mutations) };
        std::collections::HashMap::from([("slot".to_owned(), any(&config))])
    };
    check(&[], |parts| {
        let name = long(16_384);
        parts.route().typed_per_filter_config =
            slots(vec![Action::Append(header(&name, &name)), Action::Remove("a".to_owned())]);
    });
    let at = "Route `routes`: host `h`, route `r`:";
    let too_long = format!("{at} adds a header or value of more than 16384 bytes");
    check(&[&too_long, &too_long], |parts| {
        let (name, value) = (long(16_385), long(16_385));
        parts.route().typed_per_filter_config =
            slots(vec![Action::Append(header(&name, "a")), Action::Append(header("a", &value))]);
    });
    let said = [format!("{at} adds header `host`"), format!("{at} removes header `:path`")];
    check(&[&said[0], &said[1]], |parts| {
        parts.route().typed_per_filter_config =
            slots(vec![Action::Append(header("host", "a")), Action::Remove(":path".to_owned())]);
    });
}

/// Envoy reads these only at the first request, and ends over one that it cannot read (seen on 1.40).
#[test]
fn headers_for_a_server_that_is_asked_are_checked_too() {
    use ext_authz_pb::check_settings::ServiceOverride;
    let asking = |value: &str| {
        let headers_to_add = vec![header("a", value).header.unwrap()];
        let request = ext_authz_pb::AuthorizationRequest { headers_to_add, ..Default::default() };
        let service = ext_authz_pb::HttpService { authorization_request: Some(request), ..Default::default() };
        let service_override = Some(ServiceOverride::HttpService(service));
        let settings = ext_authz_pb::CheckSettings { service_override, ..Default::default() };
        let settings = ext_authz_pb::ext_authz_per_route::Override::CheckSettings(settings);
        any(&ext_authz_pb::ExtAuthzPerRoute { r#override: Some(settings) })
    };
    let said = "value of header `a`: `%` is not a command; a lone `%` is written `%%`";
    for (value, problems) in [("100%", vec![said]), ("100%%", vec![]), ("%PROTOCOL%", vec![])] {
        for is_route in [true, false] {
            let place = if is_route { "host `h`, route `r`" } else { "host `h`" };
            let problems: Vec<String> =
                problems.iter().map(|said| format!("Route `routes`: {place}: {said}")).collect();
            check(&problems.iter().map(String::as_str).collect::<Vec<_>>(), |parts| {
                parts.manager.http_filters.insert(0, http_filter("slot/HTTP", Any::default()));
                let slots = [("slot".to_owned(), asking(value))].into();
                match is_route {
                    true => parts.route().typed_per_filter_config = slots,
                    false => parts.host().typed_per_filter_config = slots,
                }
            });
        }
    }
}

/// A chain that ends TLS for `h.example`, shows secret `s` and passes connections on to cluster `c`.
fn tls_chain() -> listener_pb::FilterChain {
    let sds = tls_pb::SdsSecretConfig { name: "s".to_owned(), ..Default::default() };
    let context = tls_pb::DownstreamTlsContext {
        common_tls_context: Some(tls_pb::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![sds],
            ..Default::default()
        }),
        ..Default::default()
    };
    let proxy = tcp_pb::TcpProxy {
        cluster_specifier: Some(tcp_pb::tcp_proxy::ClusterSpecifier::Cluster("c".to_owned())),
        ..Default::default()
    };
    listener_pb::FilterChain {
        filter_chain_match: Some(listener_pb::FilterChainMatch {
            server_names: vec!["h.example".to_owned()],
            transport_protocol: "tls".to_owned(),
            ..Default::default()
        }),
        filters: vec![listener_pb::Filter {
            name: "tcp".to_owned(),
            config_type: Some(listener_pb::filter::ConfigType::TypedConfig(any(&proxy))),
        }],
        transport_socket: Some(socket(&context)),
        ..Default::default()
    }
}

fn socket(context: &tls_pb::DownstreamTlsContext) -> core_pb::TransportSocket {
    let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(any(context)));
    core_pb::TransportSocket { name: "tls".to_owned(), config_type }
}

/// Checks a TLS listener `t` beside the clean one.
fn check_tls(expected: &[&str], damage: impl Fn(&mut listener_pb::Listener)) {
    use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
    check(expected, |parts| {
        let mut tls = listener("t", 443);
        tls.listener_filters = vec![listener_pb::ListenerFilter {
            name: "inspector".to_owned(),
            config_type: Some(listener_pb::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
            ..Default::default()
        }];
        tls.filter_chains = vec![tls_chain()];
        damage(&mut tls);
        parts.more.push((ResourceType::Listener, resource("t", &tls)));
        let secret = tls_pb::Secret { name: "s".to_owned(), ..Default::default() };
        parts.more.push((ResourceType::Secret, resource("s", &secret)));
    });
}

#[test]
fn r178_what_is_for_another_cluster_is_never_sent_as_to_others() {
    use envoy_types::pb::google::protobuf as google_pb;
    let asks = || google_pb::Struct {
        fields: [(
            "cluster".to_owned(),
            google_pb::Value { kind: Some(google_pb::value::Kind::StringValue("b".to_owned())) },
        )]
        .into(),
    };
    let lead = |parts: &mut Parts| {
        let filter_metadata = [("envoy.transport_socket_match".to_owned(), asks())].into();
        let metadata = Some(core_pb::Metadata { filter_metadata, ..Default::default() });
        let endpoint = endpoint_pb::LbEndpoint { metadata, ..Default::default() };
        let place = endpoint_pb::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
        parts.endpoints[0].endpoints = vec![place];
    };
    let lacks = "Endpoint `c`: an endpoint asks for a transport that its cluster lacks, so it would get the usual one";
    check(&[lacks], lead);
    let transport = |transport_socket| cluster_pb::cluster::TransportSocketMatch {
        name: "b".to_owned(),
        r#match: Some(asks()),
        transport_socket,
    };
    check(&["Cluster `c`: transport `b` opens no TLS"], |parts| {
        lead(parts);
        apart(parts);
        parts.cluster.transport_socket_matches = vec![transport(None)];
    });
    check(&["Cluster `c`: transport `b` shows nobody, or takes anybody"], |parts| {
        lead(parts);
        apart(parts);
        let common = Some(tls_pb::CommonTlsContext::default());
        let context = tls_pb::UpstreamTlsContext { common_tls_context: common, ..Default::default() };
        let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(any(&context)));
        let socket = core_pb::TransportSocket { name: "tls".to_owned(), config_type };
        parts.cluster.transport_socket_matches = vec![transport(Some(socket))];
    });
}

#[test]
fn r181_what_ends_tls_of_other_clusters_names_who_may_come_and_what_passes_it_through_need_not() {
    let named = |name: &'static str| {
        move |tls: &mut listener_pb::Listener| {
            tls.filter_chains[0].filter_chain_match.as_mut().unwrap().server_names = vec![name.to_owned()];
        }
    };
    let everybody = ["Listener `t`: chain `` lets everybody through to a destination"];
    check_tls(&everybody, named("outbound_.80_._.cart.apps.svc.b"));
    check_tls(&everybody, named("tls_.443_._.cart.apps.svc.b"));
    check_tls(&[], named("passthrough_.443_._.cart.apps.svc.b"));
}

#[test]
fn r169_tls_with_pods_of_another_cluster_is_tls() {
    use envoy_types::pb::google::protobuf as google_pb;
    let kind = Some(google_pb::value::Kind::StringValue("b".to_owned()));
    let asks = || google_pb::Struct { fields: [("pods".to_owned(), google_pb::Value { kind: kind.clone() })].into() };
    let transport = |transport_socket| cluster_pb::cluster::TransportSocketMatch {
        name: "b".to_owned(),
        r#match: Some(asks()),
        transport_socket,
    };
    check(&["Cluster `c`: transport `b` opens no TLS"], |parts| {
        parts.cluster.transport_socket_matches = vec![transport(None)];
        apart(parts);
    });
    let common = Some(tls_pb::CommonTlsContext::default());
    let context = tls_pb::UpstreamTlsContext { common_tls_context: common, ..Default::default() };
    let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(any(&context)));
    check(&[], |parts| {
        let socket = core_pb::TransportSocket { name: "tls".to_owned(), config_type: config_type.clone() };
        parts.cluster.transport_socket_matches = vec![transport(Some(socket))];
        apart(parts);
    });
}

#[test]
fn r181_a_relay_lets_through_whom_it_names_and_leads_somewhere() {
    use hcm_pb::http_connection_manager::RouteSpecifier;
    let expected = [
        "Listener `l`: chain `` lets everybody through to a destination",
        "Listener `l`: relays to cluster `x`, which does not exist",
    ];
    check(&expected, |parts| {
        let mut own = parts.routes.clone();
        own.virtual_hosts[0].routes[0].action = forward(ClusterSpecifier::Cluster("x".to_owned()));
        parts.manager.route_specifier = Some(RouteSpecifier::RouteConfig(own));
    });
}

#[test]
fn r57_each_server_name_has_one_chain_that_envoy_can_choose() {
    check_tls(&[], |_| {});
    check_tls(&["Listener `t`: has two chains for h.example"], |tls| tls.filter_chains.push(tls_chain()));
    check_tls(&["Listener `t`: chooses a chain by `*h.example`, which Envoy cannot"], |tls| {
        tls.filter_chains[0].filter_chain_match.as_mut().unwrap().server_names = vec!["*h.example".to_owned()];
    });
    check_tls(&["Listener `t`: tells TLS connections apart without looking into them"], |tls| {
        tls.listener_filters.clear();
    });
    check_tls(&["Listener `t`: has a chain with server names that takes plaintext too"], |tls| {
        tls.filter_chains[0].filter_chain_match.as_mut().unwrap().transport_protocol.clear();
    });
}

#[test]
fn r60_no_chain_waits_for_a_secret_in_vain_or_falls_back() {
    check_tls(
        &["Secret `s`: nothing uses it, so it must not be sent", "Listener `t`: ends TLS without a certificate"],
        |tls| tls.filter_chains[0].transport_socket = Some(socket(&tls_pb::DownstreamTlsContext::default())),
    );
    check_tls(
        &[
            "Secret `s`: nothing uses it, so it must not be sent",
            "Listener `t`: waits for secret `other`, which does not exist",
        ],
        |tls| {
            let sds = tls_pb::SdsSecretConfig { name: "other".to_owned(), ..Default::default() };
            let common =
                tls_pb::CommonTlsContext { tls_certificate_sds_secret_configs: vec![sds], ..Default::default() };
            let context = tls_pb::DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
            tls.filter_chains[0].transport_socket = Some(socket(&context));
        },
    );
    check_tls(&["Listener `t`: demands client certificates and trusts nobody"], |tls| {
        let sds = tls_pb::SdsSecretConfig { name: "s".to_owned(), ..Default::default() };
        let common = tls_pb::CommonTlsContext { tls_certificate_sds_secret_configs: vec![sds], ..Default::default() };
        let required = envoy_types::pb::google::protobuf::BoolValue { value: true };
        tls.filter_chains[0].transport_socket = Some(socket(&tls_pb::DownstreamTlsContext {
            common_tls_context: Some(common),
            require_client_certificate: Some(required),
            ..Default::default()
        }));
    });
    check_tls(&["Listener `t`: passes connections on to cluster `gone`, which does not exist"], |tls| {
        let specifier = tcp_pb::tcp_proxy::ClusterSpecifier::Cluster("gone".to_owned());
        let proxy = tcp_pb::TcpProxy { cluster_specifier: Some(specifier), ..Default::default() };
        tls.filter_chains[0].filters[0].config_type = Some(listener_pb::filter::ConfigType::TypedConfig(any(&proxy)));
    });
}

/// A clean snapshot whose chain is cut, with one part.
fn cut(parts: &mut Parts) {
    use scopes_pb::scope_key_builder::{FragmentBuilder, fragment_builder};
    let extractor = fragment_builder::HeaderValueExtractor { name: "x-part".to_owned(), ..Default::default() };
    let fragment = FragmentBuilder { r#type: Some(fragment_builder::Type::HeaderValueExtractor(extractor)) };
    let scoped = hcm_pb::ScopedRoutes {
        name: "routes".to_owned(),
        scope_key_builder: Some(scopes_pb::ScopeKeyBuilder { fragments: vec![fragment] }),
        ..Default::default()
    };
    let specifier = hcm_pb::http_connection_manager::RouteSpecifier::ScopedRoutes(scoped);
    parts.manager.route_specifier = Some(specifier);
    let code = "headers:replace(\"x-part\", format(\"%03x\", hash % 1024))".to_owned();
    let specifier = Some(core_pb::data_source::Specifier::InlineString(code));
    let source = core_pb::DataSource { specifier, ..Default::default() };
    let lua = lua_pb::Lua { default_source_code: Some(source), ..Default::default() };
    parts.manager.http_filters.insert(0, http_filter("part", any(&lua)));
    parts.routes.virtual_hosts.clear();
    parts.more.push((ResourceType::Route, part("routes/289", "h.example")));
    parts.more.push((ResourceType::ScopedRoute, scope("routes/289", "routes/289")));
}

fn part(name: &str, domain: &str) -> Resource {
    let host = route_pb::VirtualHost { name: "h".to_owned(), domains: vec![domain.to_owned()], ..Default::default() };
    let routes =
        route_pb::RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..Default::default() };
    resource(name, &routes)
}

fn scope(name: &str, key: &str) -> Resource {
    use route_pb::scoped_route_configuration::{Key, key};
    let fragments = vec![key::Fragment { r#type: Some(key::fragment::Type::StringKey(key.to_owned())) }];
    let scope = route_pb::ScopedRouteConfiguration {
        name: name.to_owned(),
        route_configuration_name: name.to_owned(),
        key: Some(Key { fragments }),
        ..Default::default()
    };
    resource(name, &scope)
}

#[test]
fn r67_every_request_finds_its_part() {
    check(&[], cut);
    check(&["Route `routes/000`: host `h`: requests for `h.example` look in another part"], |parts| {
        cut(parts);
        parts.more.truncate(0);
        parts.more.push((ResourceType::Route, part("routes/000", "h.example")));
        parts.more.push((ResourceType::ScopedRoute, scope("routes/000", "routes/000")));
    });
    check(&["Route `routes`: has hosts with wildcards and 1 parts of 1024"], |parts| {
        cut(parts);
        parts.more[0].1 = part("routes/289", "*.example");
    });
    // Of the fine parts there are more, and their names are longer.
    check(&["Route `routes`: has none of the parts that its listener asks for"], |parts| {
        cut(parts);
        parts.more.truncate(0);
        parts.more.push((ResourceType::Route, part("routes/0689", "h.example")));
        parts.more.push((ResourceType::ScopedRoute, scope("routes/0689", "routes/0689")));
    });
    check(&["Route `routes/0289`: host `h`: requests for `h.example` look in another part"], |parts| {
        cut(parts);
        parts.more.push((ResourceType::Route, part("routes/0289", "h.example")));
        parts.more.push((ResourceType::ScopedRoute, scope("routes/0289", "routes/0289")));
    });
    check(&["Route `routes/289`: no scope leads to it"], |parts| {
        cut(parts);
        parts.more.truncate(1);
    });
    let whole = "Route `routes`: is whole, and its listener asks for parts";
    check(&["ScopedRoute `routes/289`: waits for routes `routes/289`, which do not exist", whole], |parts| {
        cut(parts);
        parts.more.remove(0);
    });
    check(&[whole], |parts| {
        cut(parts);
        parts.more.clear();
    });
    check(&["ScopedRoute `routes/289`: its key is not `routes/289`"], |parts| {
        cut(parts);
        parts.more[1].1 = scope("routes/289", "routes/fff");
    });
    check(&["Listener `l`: chooses routes by header `x-part`, which its first filter does not write"], |parts| {
        cut(parts);
        parts.manager.http_filters.remove(0);
    });
    check(&["Listener `l`: its first filter names no part that there can be"], |parts| {
        cut(parts);
        let code = "headers:replace(\"x-part\", format(\"%03x\", hash % 4096))".to_owned();
        let specifier = Some(core_pb::data_source::Specifier::InlineString(code));
        let source = core_pb::DataSource { specifier, ..Default::default() };
        let lua = lua_pb::Lua { default_source_code: Some(source), ..Default::default() };
        parts.manager.http_filters[0] = http_filter("part", any(&lua));
    });
}

/// A clean snapshot whose chain is whole, and was cut.
fn standing_by(parts: &mut Parts) {
    parts.more.push((ResourceType::Route, part("routes/289", "h.example")));
    parts.more.push((ResourceType::ScopedRoute, scope("routes/289", "routes/289")));
}

#[test]
fn r67_what_stands_by_is_fit_to_be_used() {
    check(&[], standing_by);
    check(&["Route `routes/289`: host `h`: requests for `other.example` look in another part"], |parts| {
        standing_by(parts);
        parts.more[0].1 = part("routes/289", "other.example");
    });
    check(&["Route `routes/289`: no scope leads to it"], |parts| {
        standing_by(parts);
        parts.more.truncate(1);
    });
    check(&["ScopedRoute `routes/289`: waits for routes `routes/289`, which do not exist"], |parts| {
        standing_by(parts);
        parts.more.remove(0);
    });
}

/// Gives the endpoints of the clean cluster a name of their own.
fn apart(parts: &mut Parts) {
    let service_name = "c@1".to_owned();
    parts.cluster.eds_cluster_config =
        Some(cluster_pb::cluster::EdsClusterConfig { service_name, ..Default::default() });
    parts.endpoints[0].cluster_name = "c@1".to_owned();
}

#[test]
fn r178_endpoints_of_other_transports_have_another_name() {
    let socket = || Some(core_pb::TransportSocket { name: "tls".to_owned(), config_type: None });
    check(&[], |parts| {
        parts.cluster.transport_socket = socket();
        apart(parts);
    });
    check(&["Cluster `c`: has transports, and endpoints of the name that it had without"], |parts| {
        parts.cluster.transport_socket = socket();
    });
}

/// Lets the clean cluster start TLS with a way to verify servers.
fn starting(parts: &mut Parts, validation: tls_pb::CertificateValidationContext) {
    use tls_pb::common_tls_context::ValidationContextType;
    let common = tls_pb::CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(any(&context)));
    parts.cluster.transport_socket = Some(core_pb::TransportSocket { name: "tls".to_owned(), config_type });
    apart(parts);
}

#[test]
fn d32_a_server_is_verified_by_authorities_and_name_or_not_at_all() {
    let authorities = Some(core_pb::DataSource::default());
    let named = vec![tls_pb::SubjectAltNameMatcher::default()];
    let validation = |trusted_ca, match_typed_subject_alt_names| tls_pb::CertificateValidationContext {
        trusted_ca,
        match_typed_subject_alt_names,
        ..Default::default()
    };
    check(&[], |parts| starting(parts, validation(authorities.clone(), named.clone())));
    let said = "Cluster `c`: verifies servers without a name, or without authorities";
    check(&[said], |parts| starting(parts, validation(authorities, Vec::new())));
    check(&[said], |parts| starting(parts, validation(None, named)));
}

#[test]
fn r197_a_cluster_that_looks_names_up_has_its_endpoints() {
    let strict = Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into()));
    check(&["Cluster `c`: has no endpoints, and takes none"], |parts| {
        parts.cluster.cluster_discovery_type = strict.clone();
        parts.endpoints.clear();
    });
    check(&[], |parts| {
        parts.cluster.cluster_discovery_type = strict;
        parts.cluster.load_assignment = Some(endpoint_pb::ClusterLoadAssignment::default());
        parts.endpoints.clear();
    });
}
