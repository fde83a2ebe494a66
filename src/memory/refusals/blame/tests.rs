//! What differs between two route configurations, and whose it is.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route_pb;
use prost::Message as _;

use super::*;
use crate::ir::listener::{HttpHosts, Purpose};
use crate::ir::route::{Attachment, DirectResponse, Hop};
use crate::ir::{Action, Chain, Listener, Matcher, Route, RouteBody, Serves};
use crate::model::{Host, Kind, WorkspaceId};

/// A route configuration in words: `host: route=content route=content | host: …`.
fn configuration(text: &str) -> Vec<u8> {
    let host = |part: &str| {
        let (name, routes) = part.split_once(':').unwrap();
        let route = |word: &str| {
            let (name, content) = word.split_once('=').unwrap();
            route_pb::Route { name: name.to_owned(), stat_prefix: content.to_owned(), ..Default::default() }
        };
        route_pb::VirtualHost {
            name: name.trim().to_owned(),
            routes: routes.split_whitespace().map(route).collect(),
            ..Default::default()
        }
    };
    let virtual_hosts = text.split('|').map(host).collect();
    route_pb::RouteConfiguration { name: "r".to_owned(), virtual_hosts, ..Default::default() }.encode_to_vec()
}

#[test]
fn only_what_is_new_or_differs_counts_as_changed() {
    for (why, older, newer, expected) in [
        ("nothing", "h: a=1 b=1", "h: a=1 b=1", ""),
        ("one route", "h: a=1 b=1 | i: c=1", "h: a=1 b=2 | i: c=1", "h: b"),
        ("a new route", "h: a=1", "h: a=1 b=1", "h: b"),
        ("a new host", "h: a=1", "h: a=1 | i: c=1", "i: c"),
        ("routes in both hosts", "h: a=1 | i: c=1", "h: a=2 | i: c=2", "h: a; i: c"),
        ("a route is gone", "h: a=1 b=1", "h: a=1", "h:"),
        ("another order", "h: a=1 b=1", "h: b=1 a=1", "h:"),
        ("a host is gone", "h: a=1 | i: c=1", "h: a=1", ""),
    ] {
        let changes = changes(&configuration(older), &configuration(newer));
        let show = |(host, routes): (&String, &BTreeSet<String>)| {
            format!("{host}: {}", routes.iter().cloned().collect::<Vec<_>>().join(" ")).trim_end().to_owned()
        };
        assert_eq!(changes.hosts.iter().map(show).collect::<Vec<_>>().join("; "), expected, "{why}");
        assert!(!changes.settings, "{why}");
    }
}

#[test]
fn settings_and_bytes_that_are_no_message_are_told_apart() {
    let older = configuration("h: a=1");
    let mut newer = older.clone();
    newer.extend(
        route_pb::RouteConfiguration { ignore_port_in_host_matching: true, ..Default::default() }.encode_to_vec(),
    );
    assert!(changes(&older, &newer).settings);
    // Never a panic, whatever the bytes are.
    for cut in 0..older.len() {
        let _ = changes(&older[..cut], &older);
        let _ = changes(&older, &older[..cut]);
    }
    let _ = changes(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x12\xff\xff\xff\xff\x0f");
}

fn table(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RouteTable, "c1", "shop", name)
}

fn route(name: &str, tables: &[&str], policy: &str) -> Route {
    let owner = WorkspaceId("shop".into());
    let hop = |name: &&str| Hop { table: table(name), owner: owner.clone(), route: "r".into(), index: 0 };
    let attachment = Attachment {
        policy: ObjectRef::new(Kind::CorsPolicy, "c1", "shop", policy),
        owner: owner.clone(),
        selected_by: "all routes".into(),
        destination: None,
    };
    let body = RouteBody {
        action: Action::Direct(DirectResponse { status: 200, body: "".into() }),
        policies: [].into(),
        chain: tables.iter().map(hop).collect(),
        labels: Default::default(),
        attached: [attachment].into(),
        fault: None,
    };
    Route { name: name.into(), matcher: Matcher::any(), body: Arc::new(body) }
}

#[test]
fn the_objects_behind_what_changed_are_to_blame() {
    let host = |domain: &str, root: &str, routes: Vec<Route>| VirtualHost {
        domain: Host::parse(domain).unwrap(),
        tables: vec![table(root)],
        redirects_to_https: false,
        routes: routes.into_iter().collect(),
    };
    let virtual_hosts = [
        host("a.example", "a", vec![route("shop/a:x", &["a"], "p"), route("shop/child:y", &["a", "child"], "q")]),
        host("b.example", "b", vec![route("shop/b:x", &["b"], "p")]),
    ];
    let chain = Chain {
        name: "".into(),
        gateways: Vec::new(),
        client: None,
        server_names: BTreeSet::new(),
        tls: None,
        guards: Vec::new(),
        serves: Serves::Http(HttpHosts {
            virtual_hosts: virtual_hosts.map(Arc::new).into(),
            misdirected: BTreeSet::new(),
        }),
    };
    let listener = Listener {
        bind_port: 8080,
        purpose: Purpose::Gateway,
        service_ports: [80].into(),
        gateways: Vec::new(),
        chains: vec![chain],
    };
    let plan = GatewayPlan {
        gateway: "c1/edge/web".parse().unwrap(),
        listeners: [(8080, Arc::new(listener))].into(),
        extensions: Default::default(),
        guard: None,
        clients: None,
        upstreams: Default::default(),
        secrets: Default::default(),
    };
    for (why, host, routes, expected) in [
        ("a route", "a.example", vec!["shop/a:x"], "a p"),
        ("a delegated route", "a.example", vec!["shop/child:y"], "a child q"),
        ("its further forms", "a.example", vec!["shop/child:y#preflight#2"], "a child q"),
        ("an alternative", "b.example", vec!["shop/b:x#2"], "b p"),
        ("the host as a whole", "b.example", vec![], "b"),
        ("what the plan doesn't know", "c.example", vec!["shop/a:x"], "nobody in particular"),
    ] {
        let routes = routes.into_iter().map(str::to_owned).collect();
        let changes = Changes { settings: false, hosts: [(host.to_owned(), routes)].into() };
        let blamed = blamed(&plan, &changes).map_or("nobody in particular".to_owned(), |objects| {
            objects.iter().map(|object| object.name.to_string()).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(blamed, expected, "{why}");
    }
    let everything = Changes { settings: true, hosts: [("b.example".to_owned(), BTreeSet::new())].into() };
    assert_eq!(blamed(&plan, &everything), None, "settings of the whole concern everybody");
}
