//! What is kept after which refusals, and what comes along with it.

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::references::references;
use super::*;
use ResourceType::{Cluster, Endpoint, Listener, Route, Secret};

fn any<M: prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn secret(name: &str) -> tls_pb::SdsSecretConfig {
    tls_pb::SdsSecretConfig { name: name.to_owned(), ..Default::default() }
}

fn socket(config: Any) -> Option<core_pb::TransportSocket> {
    let config_type = Some(core_pb::transport_socket::ConfigType::TypedConfig(config));
    Some(core_pb::TransportSocket { config_type, ..Default::default() })
}

fn common(secrets: &[&str]) -> Option<tls_pb::CommonTlsContext> {
    let tls_certificate_sds_secret_configs = secrets.iter().map(|name| secret(name)).collect();
    Some(tls_pb::CommonTlsContext { tls_certificate_sds_secret_configs, ..Default::default() })
}

/// A listener with one chain that takes its routes by name and presents a secret.
fn listener(routes: &str, secret: &str) -> listener_pb::Listener {
    let rds = hcm_pb::Rds { route_config_name: routes.to_owned(), ..Default::default() };
    let manager = hcm_pb::HttpConnectionManager {
        route_specifier: Some(hcm_pb::http_connection_manager::RouteSpecifier::Rds(rds)),
        ..Default::default()
    };
    let tls = tls_pb::DownstreamTlsContext { common_tls_context: common(&[secret]), ..Default::default() };
    listener_pb::Listener { filter_chains: vec![chain(any(&manager), socket(any(&tls)))], ..Default::default() }
}

fn chain(config: Any, transport_socket: Option<core_pb::TransportSocket>) -> listener_pb::FilterChain {
    let config_type = Some(listener_pb::filter::ConfigType::TypedConfig(config));
    let filters = vec![listener_pb::Filter { config_type, ..Default::default() }];
    listener_pb::FilterChain { filters, transport_socket, ..Default::default() }
}

/// Routes with one host, one route for each cluster.
fn routes(clusters: &[&str]) -> route_pb::RouteConfiguration {
    use route_pb::route_action::ClusterSpecifier;
    let route = |cluster: &&str| {
        let cluster_specifier = Some(ClusterSpecifier::Cluster((*cluster).to_owned()));
        let action = route_pb::RouteAction { cluster_specifier, ..Default::default() };
        route_pb::Route { action: Some(route_pb::route::Action::Route(action)), ..Default::default() }
    };
    let host = route_pb::VirtualHost { routes: clusters.iter().map(route).collect(), ..Default::default() };
    route_pb::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() }
}

fn eds(name: &str, service: &str) -> cluster_pb::Cluster {
    use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
    cluster_pb::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { service_name: service.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn what_a_resource_needs_is_read_from_its_bytes() {
    let plain = tcp_pb::TcpProxy {
        cluster_specifier: Some(tcp_pb::tcp_proxy::ClusterSpecifier::Cluster("plain".to_owned())),
        ..Default::default()
    };
    let weighted = tcp_pb::tcp_proxy::weighted_cluster::ClusterWeight { name: "half".to_owned(), ..Default::default() };
    let weighted = tcp_pb::tcp_proxy::WeightedCluster { clusters: vec![weighted] };
    let weighted = tcp_pb::TcpProxy {
        cluster_specifier: Some(tcp_pb::tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)),
        ..Default::default()
    };
    let tcp = listener_pb::Listener {
        filter_chains: vec![chain(any(&plain), None)],
        default_filter_chain: Some(chain(any(&weighted), None)),
        ..Default::default()
    };
    let combined = tls_pb::common_tls_context::CombinedCertificateValidationContext {
        validation_context_sds_secret_config: Some(secret("roots")),
        ..Default::default()
    };
    let mutual = tls_pb::CommonTlsContext {
        validation_context_type: Some(tls_pb::common_tls_context::ValidationContextType::CombinedValidationContext(
            combined,
        )),
        ..common(&["own"]).unwrap_or_default()
    };
    let tls = tls_pb::UpstreamTlsContext { common_tls_context: Some(mutual), ..Default::default() };
    let roots = tls_pb::CommonTlsContext {
        validation_context_type: Some(
            tls_pb::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret("roots")),
        ),
        ..Default::default()
    };
    let matched = tls_pb::UpstreamTlsContext { common_tls_context: Some(roots), ..Default::default() };
    let matching =
        cluster_pb::cluster::TransportSocketMatch { transport_socket: socket(any(&matched)), ..Default::default() };
    let mut mirrored = routes(&["a", "b"]);
    let Some(route_pb::route::Action::Route(action)) = &mut mirrored.virtual_hosts[0].routes[1].action else {
        panic!()
    };
    let mirror = route_pb::route_action::RequestMirrorPolicy { cluster: "m".to_owned(), ..Default::default() };
    action.request_mirror_policies = vec![mirror];
    let mut split = routes(&["x"]);
    let Some(route_pb::route::Action::Route(action)) = &mut split.virtual_hosts[0].routes[0].action else { panic!() };
    let weight = |name: &str| route_pb::weighted_cluster::ClusterWeight { name: name.to_owned(), ..Default::default() };
    action.cluster_specifier =
        Some(route_pb::route_action::ClusterSpecifier::WeightedClusters(route_pb::WeightedCluster {
            clusters: vec![weight("a"), weight("b")],
            ..Default::default()
        }));
    for (what, resource_type, body, expected) in [
        ("a listener", Listener, listener("r", "s").encode_to_vec(), "Secret s, Route r"),
        ("plain connections", Listener, tcp.encode_to_vec(), "Cluster half, Cluster plain"),
        ("routes and mirrors", Route, mirrored.encode_to_vec(), "Cluster a, Cluster b, Cluster m"),
        ("weights", Route, split.encode_to_vec(), "Cluster a, Cluster b"),
        ("a cluster by its own name", Cluster, eds("c", "").encode_to_vec(), "Endpoint c"),
        ("a cluster by another", Cluster, eds("c", "e").encode_to_vec(), "Endpoint e"),
        (
            "a cluster with TLS",
            Cluster,
            { cluster_pb::Cluster { transport_socket: socket(any(&tls)), ..eds("c", "") }.encode_to_vec() },
            "Secret own, Secret roots, Endpoint c",
        ),
        (
            "a cluster with TLS for some",
            Cluster,
            { cluster_pb::Cluster { transport_socket_matches: vec![matching], ..Default::default() }.encode_to_vec() },
            "Secret roots",
        ),
        (
            "a cluster without discovery",
            Cluster,
            { cluster_pb::Cluster { name: "c".to_owned(), ..Default::default() }.encode_to_vec() },
            "",
        ),
        ("endpoints", Endpoint, b"\x0a\x01c".to_vec(), ""),
        ("no message at all", Listener, b"\xff\xff".to_vec(), ""),
    ] {
        let found = references(resource_type, &body);
        let found: Vec<String> = found.iter().map(|(of, name)| format!("{of:?} {name}")).collect();
        assert_eq!(found.join(", "), expected, "{what}");
    }
}

fn key(gateway: &str, bind: &str, minor: u32) -> GatewayKey {
    let envoy = EnvoyRelease::serving(Some((1, minor)));
    GatewayKey { gateway: gateway.parse().unwrap(), bind: bind.into(), envoy }
}

fn edge() -> GatewayKey {
    key("c1/edge/web", "0.0.0.0", 40)
}

/// One resource: type, name and body. Its version is its content's.
type Row = (ResourceType, &'static str, Vec<u8>);

fn text(resource_type: ResourceType, name: &'static str, body: &str) -> Row {
    (resource_type, name, body.as_bytes().to_vec())
}

fn snapshot(rows: &[Row]) -> Arc<Snapshot> {
    let snapshot = ResourceType::ALL.into_iter().fold(Snapshot::new(), |snapshot, wanted| {
        let rows = rows.iter().filter(|(of, ..)| *of == wanted);
        let owner = |name: &str| ObjectRef::new(crate::model::Kind::RouteTable, "c1", "shop", name);
        let resource = |(_, name, body): &Row| {
            Resource::from_content((*name).into(), body.clone().into(), Arc::from([owner(name)]))
        };
        snapshot.with(wanted, rows.map(resource))
    });
    Arc::new(snapshot)
}

/// Publishes a snapshot to a key, whose gateways accept all of it.
fn accept(refusals: &mut Refusals, key: &GatewayKey, snapshot: &Arc<Snapshot>) {
    refusals.published(key, snapshot);
    for resource_type in ResourceType::ALL {
        refusals.accept(key, resource_type, &snapshot.type_version(resource_type), each(&[]), 0);
    }
}

/// Names and versions, as a client is known to hold them.
fn each(resources: &[(Name, Version)]) -> impl Iterator<Item = (&Name, &Version)> {
    resources.iter().map(|(name, version)| (name, version))
}

fn refuse(
    refusals: &mut Refusals,
    key: &GatewayKey,
    node: &str,
    resource_type: ResourceType,
    resource: &Resource,
) -> bool {
    let bytes = Bytes::new(key, resource_type, &resource.name, &resource.version);
    refusals.refuse(key, &node.into(), bytes, resource.owners.clone(), "no")
}

/// What a snapshot holds, with bodies that are texts.
fn shown(snapshot: &Snapshot) -> String {
    let rows = ResourceType::ALL.into_iter().flat_map(|resource_type| {
        let resources = snapshot.resources(resource_type);
        let show = |resource: &Arc<Resource>| format!("{resource_type:?} {}", resource.name);
        resources.values().map(show).collect::<Vec<_>>()
    });
    rows.collect::<Vec<_>>().join(", ")
}

#[test]
fn an_accepted_listener_comes_back_with_all_that_it_needs() {
    let mut refusals = Refusals::new();
    let old = snapshot(&[
        (Listener, "l", listener("old", "cert").encode_to_vec()),
        (Route, "old", routes(&["c", "shared"]).encode_to_vec()),
        (Cluster, "c", eds("c", "e").encode_to_vec()),
        (Cluster, "shared", eds("shared", "").encode_to_vec()),
        text(Endpoint, "e", "1"),
        text(Endpoint, "shared", "1"),
        text(Secret, "cert", "1"),
        text(Secret, "unused", "1"),
    ]);
    let new = snapshot(&[
        (Listener, "l", listener("new", "other").encode_to_vec()),
        (Route, "new", routes(&["shared"]).encode_to_vec()),
        (Cluster, "shared", eds("shared", "").encode_to_vec()),
        text(Endpoint, "shared", "2"),
        text(Secret, "other", "1"),
    ]);
    accept(&mut refusals, &edge(), &old);
    refusals.published(&edge(), &new);
    assert!(Arc::ptr_eq(&refusals.overlay(&edge(), &new).snapshot, &new), "nothing is refused yet");
    assert!(refuse(&mut refusals, &edge(), "envoy-1", Listener, new.get(Listener, "l").unwrap()));

    let overlay = refusals.overlay(&edge(), &new);
    assert_eq!(overlay.kept, BTreeSet::from([(Listener, "l".into())]));
    assert_eq!(
        shown(&overlay.snapshot),
        "Secret cert, Cluster c, Cluster shared, Endpoint e, Endpoint shared, Listener l, Route new, Route old"
    );
    assert_eq!(overlay.snapshot.get(Listener, "l"), old.get(Listener, "l"));
    assert_eq!(overlay.snapshot.get(Endpoint, "shared"), new.get(Endpoint, "shared"), "everything else is the newest");
}

#[test]
fn what_cannot_work_any_more_does_not_come_back() {
    let mut refusals = Refusals::new();
    // The cluster was never accepted, so nobody knows it once it is gone.
    let old = snapshot(&[(Route, "r", routes(&["c"]).encode_to_vec()), (Cluster, "c", eds("c", "").encode_to_vec())]);
    let new = snapshot(&[(Route, "r", routes(&[]).encode_to_vec())]);
    refusals.published(&edge(), &old);
    refusals.accept(&edge(), Route, &old.type_version(Route), each(&[]), 0);
    refusals.published(&edge(), &new);
    refuse(&mut refusals, &edge(), "envoy-1", Route, new.get(Route, "r").unwrap());
    let overlay = refusals.overlay(&edge(), &new);
    assert!(overlay.kept.is_empty() && Arc::ptr_eq(&overlay.snapshot, &new));
}

#[test]
fn only_what_was_acknowledged_counts_as_accepted() {
    let mut refusals = Refusals::new();
    let (one, two) = (
        snapshot(&[text(Cluster, "a", "1"), text(Cluster, "b", "1")]),
        snapshot(&[text(Cluster, "a", "2"), text(Cluster, "b", "2")]),
    );
    let named = |snapshot: &Snapshot, name: &str| {
        let resource = snapshot.get(Cluster, name).unwrap();
        vec![(resource.name.clone(), resource.version.clone())]
    };
    let body = |refusals: &Refusals, name: &str| {
        refusals.accepted(&edge(), Cluster, name).map(|resource| String::from_utf8_lossy(&resource.body).into_owned())
    };
    refusals.published(&edge(), &one);
    refusals.accept(&edge(), Cluster, &one.type_version(Cluster), each(&named(&one, "a")), 1);
    assert_eq!((body(&refusals, "a").as_deref(), body(&refusals, "b")), (Some("1"), None));
    refusals.accept(&edge(), Cluster, &one.type_version(Cluster), each(&named(&one, "b")), 0);
    refusals.published(&edge(), &two);
    // An answer to what was sent before the new snapshot came, and one to the new.
    refusals.accept(&edge(), Cluster, &one.type_version(Cluster), each(&named(&one, "a")), 2);
    refusals.accept(&edge(), Cluster, &two.type_version(Cluster), each(&named(&two, "b")), 1);
    assert_eq!((body(&refusals, "a").as_deref(), body(&refusals, "b").as_deref()), (Some("1"), Some("2")));
    // One gateway accepts what another one refuses: the version before counts.
    assert!(refuse(&mut refusals, &edge(), "envoy-2", Cluster, two.get(Cluster, "b").unwrap()));
    assert_eq!(body(&refusals, "b").as_deref(), Some("1"));
    // The same if one that didn't ask for it holds the type in full.
    refusals.accept(&edge(), Cluster, &two.type_version(Cluster), each(&[]), 0);
    assert_eq!((body(&refusals, "a").as_deref(), body(&refusals, "b").as_deref()), (Some("2"), Some("1")));
    // A version that nobody was sent, and a key that nobody is served under.
    refusals.accept(&edge(), Cluster, &Version::new("?"), each(&[("a".into(), Version::new("?"))]), 0);
    refusals.accept(&key("c1/edge/web", "0.0.0.0", 36), Cluster, &two.type_version(Cluster), each(&[]), 0);
    assert_eq!(body(&refusals, "a").as_deref(), Some("2"));
}

#[test]
fn a_slow_gateway_does_not_make_a_quick_ones_version_forgotten() {
    let snapshots = ["1", "2", "3"].map(|body| snapshot(&[text(Cluster, "a", body), text(Cluster, "b", body)]));
    let all = |snapshot: &Arc<Snapshot>| snapshot.type_version(Cluster);
    let one = |snapshot: &Arc<Snapshot>| vec![("a".into(), snapshot.get(Cluster, "a").unwrap().version.clone())];
    for (quick, slow) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut refusals = Refusals::new();
        refusals.published(&edge(), &snapshots[0]);
        refusals.published(&edge(), &snapshots[1]);
        refusals.accept(&edge(), Cluster, &all(&snapshots[1]), each(&one(&snapshots[1])), quick);
        refusals.accept(&edge(), Cluster, &all(&snapshots[0]), each(&one(&snapshots[0])), slow);
        refusals.published(&edge(), &snapshots[2]);
        refuse(&mut refusals, &edge(), "envoy-1", Cluster, snapshots[2].get(Cluster, "a").unwrap());
        let kept = refusals.overlay(&edge(), &snapshots[2]).snapshot;
        assert_eq!(kept.get(Cluster, "a").unwrap().body, "2", "outstanding: {quick}, and then {slow}");
    }
}

#[test]
fn a_refusal_is_about_bytes_at_one_release_of_any_class() {
    let mut refusals = Refusals::new();
    let (good, bad) = (snapshot(&[text(Cluster, "a", "good")]), snapshot(&[text(Cluster, "a", "bad")]));
    let keys = [edge(), key("c1/inner/web", "0.0.0.0", 40), key("c1/edge/web", "0.0.0.0", 36)];
    for key in &keys {
        accept(&mut refusals, key, &good);
        refusals.published(key, &bad);
    }
    assert!(refuse(&mut refusals, &keys[0], "envoy-1", Cluster, bad.get(Cluster, "a").unwrap()));
    let kept = keys.iter().map(|key| !refusals.overlay(key, &bad).kept.is_empty());
    assert_eq!(kept.collect::<Vec<_>>(), [true, true, false], "itself, another class, an older release");

    // Case 10: the same node again is no news, another one is.
    assert!(!refuse(&mut refusals, &keys[0], "envoy-1", Cluster, bad.get(Cluster, "a").unwrap()));
    assert!(refuse(&mut refusals, &keys[1], "envoy-1", Cluster, bad.get(Cluster, "a").unwrap()));
    assert_eq!(refusals.iter().count(), 1);
}

#[test]
fn gateways_at_another_address_help_out_except_with_listeners() {
    let mut refusals = Refusals::new();
    let rows = |body: &str| snapshot(&[text(Cluster, "a", body), text(Listener, "l", body)]);
    let (good, bad) = (rows("good"), rows("bad"));
    let other = key("c1/edge/web", "127.0.0.2", 40);
    accept(&mut refusals, &other, &good);
    refusals.published(&edge(), &bad);
    refuse(&mut refusals, &edge(), "envoy-1", Cluster, bad.get(Cluster, "a").unwrap());
    refuse(&mut refusals, &edge(), "envoy-1", Listener, bad.get(Listener, "l").unwrap());
    assert_eq!(refusals.overlay(&edge(), &bad).kept, BTreeSet::from([(Cluster, "a".into())]));
}

#[test]
fn case_8_a_refusal_is_forgotten_with_the_last_snapshot_that_has_its_bytes() {
    let mut refusals = Refusals::new();
    let (good, bad) = (snapshot(&[text(Cluster, "a", "good")]), snapshot(&[text(Cluster, "a", "bad")]));
    let (first, second) = (edge(), key("c1/inner/web", "0.0.0.0", 40));
    for key in [&first, &second] {
        refusals.published(key, &bad);
    }
    refuse(&mut refusals, &first, "envoy-1", Cluster, bad.get(Cluster, "a").unwrap());
    let (name, version) = ("a".into(), bad.get(Cluster, "a").unwrap().version.clone());
    assert!(!refusals.retain(|key| Some(if *key == first { &good } else { &bad })), "another class still has them");
    assert!(refusals.is_refused(Cluster, &name, &version));
    assert!(refusals.retain(|_| Some(&good)));
    assert!(refusals.is_empty() && !refusals.is_refused(Cluster, &name, &version));
    // A gateway that is no longer served is forgotten with all that it took.
    accept(&mut refusals, &first, &good);
    refusals.retain(|_| None);
    assert_eq!(refusals.accepted(&first, Cluster, "a"), None);
}

#[test]
fn the_number_of_nodes_that_are_remembered_is_bounded() {
    let mut refusals = Refusals::new();
    let bad = snapshot(&[text(Cluster, "a", "bad")]);
    for index in 0..2 * NODES {
        refuse(&mut refusals, &edge(), &format!("envoy-{index}"), Cluster, bad.get(Cluster, "a").unwrap());
    }
    let (_, refused) = refusals.iter().next().unwrap();
    assert_eq!(refused.nodes[&edge().gateway].len(), NODES);
}

#[test]
fn a_listener_that_a_machine_refuses_holds_no_other_class_back() {
    let mut refusals = Refusals::new();
    let rows = |body: &str| snapshot(&[text(Listener, "l", body), text(Cluster, "a", body)]);
    let (good, bad) = (rows("good"), rows("bad"));
    let other = key("c1/inner/web", "0.0.0.0", 40);
    for key in [&edge(), &other] {
        accept(&mut refusals, key, &good);
        refusals.published(key, &bad);
    }
    for of in [Listener, Cluster] {
        refuse(&mut refusals, &edge(), "envoy-1", of, bad.resources(of).values().next().unwrap());
    }
    let own = edge();
    let kept = |key: &GatewayKey| -> Vec<ResourceType> {
        refusals.overlay(key, &bad).kept.into_iter().map(|(of, _)| of).collect()
    };
    assert_eq!(BTreeSet::from_iter(kept(&own)), [Listener, Cluster].into());
    assert_eq!(kept(&other), [Cluster], "its port is free, and it has its files");
    // The class changed, and the other one still has the same bytes.
    refusals.retain(|key| Some(if *key == edge() { &good } else { &bad }));
    assert_eq!(refusals.iter().map(|(bytes, _)| bytes.resource_type).collect::<Vec<_>>(), [Cluster]);
}

fn assignment(name: &str) -> Vec<u8> {
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() }.encode_to_vec()
}

#[test]
fn endpoints_that_only_a_refused_cluster_takes_are_left_out() {
    let mut refusals = Refusals::new();
    let old = snapshot(&[(Cluster, "c", eds("c", "old").encode_to_vec()), (Endpoint, "old", assignment("old"))]);
    let new = snapshot(&[
        (Cluster, "c", eds("c", "new").encode_to_vec()),
        (Cluster, "d", eds("d", "both").encode_to_vec()),
        (Endpoint, "new", assignment("new")),
        (Endpoint, "both", assignment("both")),
    ]);
    accept(&mut refusals, &edge(), &old);
    refusals.published(&edge(), &new);
    refuse(&mut refusals, &edge(), "envoy-1", Cluster, new.get(Cluster, "c").unwrap());
    let overlay = refusals.overlay(&edge(), &new).snapshot;
    assert_eq!(shown(&overlay), "Cluster c, Cluster d, Endpoint both, Endpoint old");
    assert_eq!(crate::snapshot::verify::verify(&overlay), []);
}

#[test]
fn refusals_end_a_while_after_the_last_that_refused_has_left() {
    let mut refusals = Refusals::new();
    let bad = snapshot(&[text(Cluster, "a", "bad")]);
    refuse(&mut refusals, &edge(), "envoy-1", Cluster, bad.get(Cluster, "a").unwrap());
    refuse(&mut refusals, &edge(), "envoy-2", Cluster, bad.get(Cluster, "a").unwrap());
    let begin = Instant::now();
    let at = |share: u32| begin + GRACE / 4 * share;
    let is_connected = |node: &'static str| move |_, _: &GatewayId, nodes: &BTreeSet<Name>| nodes.contains(node);
    assert!(!refusals.expire(at(0), is_connected("envoy-2")));
    assert_eq!(refusals.due(), None, "one of them is there");
    assert!(!refusals.expire(at(1), is_connected("envoy-3")));
    assert_eq!(refusals.due(), Some(at(5)));
    assert!(!refusals.expire(at(4), is_connected("envoy-1")), "it came back");
    assert!(!refusals.expire(at(6), is_connected("nobody")) && !refusals.expire(at(9), is_connected("nobody")));
    assert!(refusals.expire(at(10), is_connected("nobody")) && refusals.is_empty());
}
