//! Random worlds: everything that routing can be made of, from a small vocabulary, so that things collide.
//!
//! The frame of all worlds is the same: four workspaces, their Services with endpoints, two gateways. A [`World`] is what
//! stands in the frame: sharing, tables, policies. One seed gives one world, on every machine.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::http::Request;
use super::manifests::Manifest;

/// The cluster of everything but the workspaces.
const CLUSTER: &str = "cluster-1";

/// One namespace each, of the same name.
const WORKSPACES: [&str; 4] = ["red", "green", "blue", "grey"];

/// The workspace of the markers, which no policy of the others reaches.
const MARKS: &str = "marks";

/// The gateways: namespace, name of Service and VirtualGateway, Service ports.
pub(crate) const GATEWAYS: [(&str, &str, &[u16]); 2] = [("red", "front", &[80, 81]), ("green", "side", &[80])];

/// The host whose answer says which world a gateway has.
pub(crate) const MARKER_HOST: &str = "marker.example";

/// The response header in which every route says its name.
pub(crate) const ROUTE_HEADER: &str = "x-route";

/// The response header in which every route says which endpoint answered.
pub(crate) const ENDPOINT_HEADER: &str = "x-endpoint";

/// SplitMix64: deterministic numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that fall as the seed says.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// One of several texts.
    pub(crate) fn word<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// A random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// By which a client sees that a policy applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A response header of this name.
    Header(String),
    /// The upstream is told this many milliseconds.
    Timeout(u64),
    /// The answer has this status.
    Abort(u16),
    /// Allowed origins get this exposed header.
    Cors(String),
    /// None that is looked at.
    Unseen,
}

/// One random world.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// What it was made from.
    pub(crate) seed: u64,
    /// All objects beside the frame.
    pub(crate) objects: Vec<Value>,
    /// Effects by `Kind/namespace/name@cluster`.
    pub(crate) effects: BTreeMap<String, Effect>,
}

fn manifest(cluster: &str, object: Value) -> Manifest {
    Manifest { cluster: cluster.to_owned(), object }
}

/// What all worlds have in common.
pub(crate) fn frame() -> Vec<Manifest> {
    let mut frame = vec![manifest(
        "mgmt",
        json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "KubernetesCluster",
            "metadata": {"name": CLUSTER, "namespace": "gloo-mesh"}, "spec": {"clusterDomain": "cluster.local"}}),
    )];
    for name in WORKSPACES.iter().chain([&MARKS]) {
        frame.push(manifest(
            "mgmt",
            json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "Workspace",
                "metadata": {"name": name, "namespace": "gloo-mesh"},
                "spec": {"workloadClusters": [{"name": CLUSTER, "namespaces": [{"name": name}]}]}}),
        ));
    }
    for (index, name) in WORKSPACES.iter().enumerate() {
        frame.extend(service(name, "one", &[format!("10.0.{index}.1"), format!("10.0.{index}.2")]));
    }
    frame.extend(service("red", "two", &["10.0.9.1".to_owned()]));
    frame.extend(service("blue", "empty", &[]));
    for (namespace, name, ports) in GATEWAYS {
        frame.extend(gateway(namespace, name, ports));
    }
    frame
}

fn gateway(namespace: &str, name: &str, ports: &[u16]) -> [Manifest; 2] {
    let service_port = |port: &u16| json!({"name": format!("http-{port}"), "port": port, "targetPort": port + 8000});
    let listener = |port: &u16| json!({"http": {}, "port": {"number": port}});
    [
        manifest(
            CLUSTER,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"gateway": name}, "ports": ports.iter().map(service_port).collect::<Vec<_>>()}}),
        ),
        manifest(
            CLUSTER,
            json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualGateway",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"workloads": [{"selector": {"labels": {"gateway": name}}}],
                    "listeners": ports.iter().map(listener).collect::<Vec<_>>()}}),
        ),
    ]
}

/// A Service with one Pod per address, of versions v1, v2 and so on.
pub(crate) fn service(namespace: &str, name: &str, addresses: &[String]) -> Vec<Manifest> {
    let pod = |index: usize| format!("{name}-{index}");
    let endpoint = |(index, address): (usize, &String)| {
        json!({"addresses": [address], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod(index), "namespace": namespace}})
    };
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080, "targetPort": 9080}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
            "endpoints": addresses.iter().enumerate().map(endpoint).collect::<Vec<_>>()}),
    ];
    objects.extend(addresses.iter().enumerate().map(|(index, address)| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod(index), "namespace": namespace,
                "labels": {"app": name, "version": format!("v{}", index + 1)}},
            "status": {"phase": "Running", "podIP": address}})
    }));
    objects.into_iter().map(|object| manifest(CLUSTER, object)).collect()
}

/// The policy by which every route of a workspace's chains says its name.
pub(crate) fn route_marker(namespace: &str) -> Value {
    json!({"apiVersion": "trafficcontrol.policy.gloo.solo.io/v2", "kind": "HeaderManipulationPolicy",
        "metadata": {"name": "marker", "namespace": namespace},
        "spec": {"config": {"appendResponseHeaders":
            {(ROUTE_HEADER): "%ROUTE_NAME%", (ENDPOINT_HEADER): "%UPSTREAM_HOST%"}}}})
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = Self { seed, objects: Vec::new(), effects: BTreeMap::new() };
        world.objects.push(settings(MARKS, &json!([{"workspaces": [{"name": "*"}]}]), &json!([])));
        for name in WORKSPACES {
            world.objects.push(sharing(&mut dice, name));
            world.objects.push(route_marker(name));
        }
        for (namespace, name, _) in GATEWAYS {
            world.objects.push(json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
                "metadata": {"name": format!("world-{name}"), "namespace": MARKS},
                "spec": {"hosts": [MARKER_HOST], "virtualGateways": [{"name": name, "namespace": namespace}],
                    "http": [{"directResponse": {"status": 200, "body": seed.to_string()}}]}}));
        }
        for index in 0..3 + dice.below(3) {
            let table = table(&mut dice, &format!("root-{index}"), true);
            world.objects.push(table);
        }
        for index in 0..3 + dice.below(4) {
            let table = table(&mut dice, &format!("child-{index}"), false);
            world.objects.push(table);
        }
        for index in 0..2 + dice.below(6) {
            world.policy(&mut dice, index);
        }
        world
    }

    fn policy(&mut self, dice: &mut Dice, index: usize) {
        let namespace = *dice.pick(&WORKSPACES);
        let (kind, group, config, effect) = match dice.below(10) {
            0..4 => {
                let header = format!("x-policy-{index}");
                let config = json!({"appendResponseHeaders": {(header.clone()): "on"}});
                ("HeaderManipulationPolicy", "trafficcontrol", config, Effect::Header(header))
            }
            4..6 => {
                // Long enough never to end a request.
                let timeout = 20 + index;
                let effect = Effect::Timeout(u64::try_from(timeout).unwrap_or(0) * 1000);
                ("RetryTimeoutPolicy", "resilience", json!({"requestTimeout": format!("{timeout}s")}), effect)
            }
            6 => {
                let status = u16::try_from(460 + index).unwrap_or(460);
                let config = json!({"abort": {"httpStatus": status}});
                ("FaultInjectionPolicy", "resilience", config, Effect::Abort(status))
            }
            7 | 8 => {
                let header = format!("x-cors-{index}");
                let origin = dice
                    .pick(&[
                        json!({"exact": "https://ok.test"}),
                        json!({"regex": "https://.*[.]test"}),
                        json!({"suffix": "OK.test", "ignoreCase": true}),
                    ])
                    .clone();
                let config =
                    json!({"allowOrigins": [origin], "allowMethods": ["GET"], "exposeHeaders": [header.clone()]});
                ("CORSPolicy", "security", config, Effect::Cors(header))
            }
            // Not built: what it selects answers 500.
            _ => ("ExtAuthPolicy", "security", json!({}), Effect::Unseen),
        };
        let mut spec = Map::new();
        spec.insert("config".to_owned(), config);
        if kind == "HeaderManipulationPolicy" && dice.chance(25) {
            let version = json!({"selector": {"labels": {"app": dice.pick(&["one", "two"])}}});
            let item = json!({"route": {"labels": labels(dice, 60)}, "onDestinations": [version]});
            spec.insert("applyToRouteDestinations".to_owned(), json!([item]));
        } else if dice.chance(85) || kind == "ExtAuthPolicy" {
            let item = if dice.chance(15) && kind != "ExtAuthPolicy" {
                json!({"withDestinations": {"selector": {"name": "one"}}})
            } else {
                let own = if kind == "ExtAuthPolicy" { json!({"l": "a", "m": "b"}) } else { labels(dice, 60) };
                json!({"route": {"labels": own}})
            };
            spec.insert("applyToRoutes".to_owned(), json!([item]));
        }
        let name = format!("policy-{index}");
        self.effects.insert(format!("{kind}/{namespace}/{name}@{CLUSTER}"), effect);
        self.objects.push(json!({"apiVersion": format!("{group}.policy.gloo.solo.io/v2"), "kind": kind,
            "metadata": metadata(dice, namespace, &name, &json!({})), "spec": spec}));
    }
}

/// Some objects are older than others, some are of one age, some have none.
fn metadata(dice: &mut Dice, namespace: &str, name: &str, labels: &Value) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    if dice.chance(60) {
        metadata["creationTimestamp"] = json!(format!("2024-01-0{}T00:00:00Z", 1 + dice.below(4)));
    }
    metadata
}

/// Most workspaces share with most.
fn sharing(dice: &mut Dice, namespace: &str) -> Value {
    let mut side = || {
        let everyone = [json!({"workspaces": [{"name": "*"}]})];
        let some: Vec<Value> =
            WORKSPACES.iter().filter(|_| dice.chance(60)).map(|name| json!({"workspaces": [{"name": name}]})).collect();
        if dice.chance(65) { everyone.to_vec() } else { some }
    };
    let (exports, mut imports) = (side(), side());
    imports.push(json!({"workspaces": [{"name": MARKS}]}));
    settings(namespace, &json!(exports), &json!(imports))
}

fn settings(namespace: &str, exports: &Value, imports: &Value) -> Value {
    json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "WorkspaceSettings",
        "metadata": {"name": namespace, "namespace": namespace},
        "spec": {"exportTo": exports, "importFrom": imports}})
}

fn labels(dice: &mut Dice, percent: usize) -> Value {
    let mut labels = Map::new();
    for key in ["l", "m"] {
        if dice.chance(percent) {
            labels.insert(key.to_owned(), json!(dice.pick(&["a", "b"])));
        }
    }
    Value::Object(labels)
}

fn table(dice: &mut Dice, name: &str, is_root: bool) -> Value {
    // Roots are mostly where the gateways are, so that most of them are served.
    let at_gateway = is_root && dice.chance(60);
    let namespace = if at_gateway { dice.pick(&GATEWAYS).0 } else { *dice.pick(&WORKSPACES) };
    let mut own = labels(dice, 30);
    own["t"] = json!(dice.pick(&["x", "y"]));
    let mut spec = Map::new();
    if is_root {
        let hosts: Vec<&str> = (0..1 + dice.below(2))
            .map(|_| *dice.pick(&["a.test", "a.test", "b.test", "*.test", "*.a.test", "*-x.test", "*"]))
            .collect();
        spec.insert("hosts".to_owned(), json!(hosts));
        let mut gateways: Vec<Value> = Vec::new();
        for (gateway_namespace, gateway, _) in GATEWAYS {
            if dice.chance(90) {
                gateways.push(json!({"name": gateway, "namespace": gateway_namespace}));
            }
        }
        if gateways.is_empty() || dice.chance(5) {
            gateways.push(json!({"name": "nowhere", "namespace": "red"}));
        }
        spec.insert("virtualGateways".to_owned(), json!(gateways));
    }
    if dice.chance(40) {
        spec.insert("weight".to_owned(), json!(dice.below(3)));
    }
    let routes: Vec<Value> = (0..1 + dice.below(4)).map(|index| route(dice, index, is_root)).collect();
    spec.insert("http".to_owned(), json!(routes));
    json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": metadata(dice, namespace, name, &own), "spec": spec})
}

fn route(dice: &mut Dice, index: usize, is_root: bool) -> Value {
    let mut route = json!({"name": format!("r{index}"), "labels": labels(dice, 30)});
    let matchers: Vec<Value> = (0..*dice.pick(&[0, 1, 1, 1, 1, 2, 2, 3])).map(|_| matcher(dice, is_root)).collect();
    if !matchers.is_empty() {
        route["matchers"] = json!(matchers);
    }
    let delegations = if is_root { 50 } else { 15 };
    if dice.chance(delegations) {
        let items: Vec<Value> = (0..1 + dice.below(2)).map(|_| selector(dice)).collect();
        let sort = dice.pick(&["TABLE_WEIGHT", "ROUTE_SPECIFICITY"]);
        route["delegate"] = json!({"routeTables": items, "sortMethod": sort});
        return route;
    }
    match dice.below(12) {
        0 => {
            let status = *dice.pick(&[200, 202, 418, 503]);
            route["directResponse"] = json!({"status": status, "body": format!("direct {index}")});
        }
        1 | 2 => {
            let mut redirect = json!({"responseCode": dice.pick(&["MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"])});
            if dice.chance(50) {
                redirect["hostRedirect"] = json!("to.test");
            }
            if dice.chance(50) {
                redirect["pathRedirect"] = json!(dice.pick(&["/new", "/new?z=1"]));
            }
            route["redirect"] = redirect;
        }
        _ => {
            let count = *dice.pick(&[1, 1, 1, 2, 3]);
            let mut destinations: Vec<Value> = (0..count).map(|_| destination(dice)).collect();
            if count > 1 {
                destinations[0]["weight"] = json!(dice.pick(&[1, 50, 98]));
            }
            route["forwardTo"] = json!({"destinations": destinations});
            if dice.chance(10) {
                route["forwardTo"]["pathRewrite"] = json!("/rewritten");
            }
        }
    }
    route
}

fn selector(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0 => json!({"name": format!("child-{}", dice.below(4)), "namespace": dice.pick(&WORKSPACES)}),
        1 => json!({"labels": {"t": "none"}}),
        2..5 => json!({"labels": {"t": dice.pick(&["x", "y"])}, "workspace": dice.pick(&WORKSPACES)}),
        _ => json!({"labels": {"t": dice.pick(&["x", "y"])}}),
    }
}

fn destination(dice: &mut Dice) -> Value {
    let (name, namespace) = match dice.below(20) {
        0 => ("missing", "red"),
        1 => ("empty", "blue"),
        2..4 => ("two", "red"),
        _ => ("one", *dice.pick(&WORKSPACES)),
    };
    let mut destination = json!({"ref": {"name": name, "namespace": namespace}, "port": {"number": 8080}});
    if dice.chance(30) {
        destination["subset"] = json!({"version": dice.pick(&["v1", "v2"])});
    }
    destination
}

/// Parents have short prefixes mostly, so that children can be below them.
fn matcher(dice: &mut Dice, is_root: bool) -> Value {
    let mut matcher = json!({});
    let wide = if is_root { 60 } else { 35 };
    if dice.chance(wide) {
        matcher["uri"] = json!({"prefix": dice.pick(&["/", "/a", "/a", "/b", "/a/", "/A"])});
    } else if dice.chance(85) {
        matcher["uri"] = match dice.below(4) {
            0 => json!({"exact": dice.pick(&["/a", "/a/b", "/b", "/", "b", "/ab"])}),
            1 => json!({"prefix": dice.pick(&["/a/b", "/b/", "b", "/ab", "/a/b/a"])}),
            2 => json!({"regex": dice.pick(&["/a.*", "/(a|b)/?", "b/.*", ".*", "/a/[ab]+", "/b|/a", "/\\w+"])}),
            _ => json!({"prefix": dice.pick(&["/a", "/B"]), "ignoreCase": true}),
        };
        if dice.chance(3) {
            matcher["uri"] = json!({"suffix": "/b"});
        }
    }
    if dice.chance(25) {
        let headers: Vec<Value> = (0..1 + dice.below(2)).map(|_| header(dice)).collect();
        matcher["headers"] = json!(headers);
    }
    if dice.chance(15) {
        let parameter = dice
            .pick(&[
                json!({"name": "x"}),
                json!({"name": "x", "value": "1"}),
                json!({"name": "x", "value": "[12]+", "regex": true}),
                json!({"name": "y", "value": ".*", "regex": true}),
                json!({"name": "y", "value": "1"}),
            ])
            .clone();
        matcher["queryParameters"] = json!([parameter]);
    }
    if dice.chance(15) {
        matcher["method"] = json!(dice.pick(&["GET", "GET", "POST", "HEAD", "OPTIONS"]));
    }
    if dice.chance(8) {
        matcher["port"] = json!(dice.pick(&[80, 81]));
    }
    matcher
}

fn header(dice: &mut Dice) -> Value {
    if dice.chance(8) {
        return dice
            .pick(&[
                json!({"name": ":path", "value": "/a/b"}),
                json!({"name": ":authority", "value": "a.test"}),
                json!({"name": "Host", "value": "a.test.*", "regex": true}),
                json!({"name": "x-forwarded-proto", "value": "http"}),
            ])
            .clone();
    }
    let mut header = json!({"name": dice.pick(&["x-one", "X-Two"])});
    match dice.below(6) {
        0 => {}
        1 | 2 => header["value"] = json!(dice.pick(&["1", "22"])),
        _ => {
            header["value"] = json!(dice.pick(&["[12]+", "1|", ".*", "*", "1,2+"]));
            header["regex"] = json!(true);
        }
    }
    if dice.chance(40) {
        header["invertMatch"] = json!(true);
    }
    header
}

/// A random request, and the gateway and Service port that get it.
pub(crate) fn request(dice: &mut Dice) -> (usize, u16, Request) {
    let gateway = dice.below(GATEWAYS.len());
    let port = *dice.pick(GATEWAYS[gateway].2);
    let hosts = [
        "a.test",
        "a.test",
        "a.test",
        "b.test",
        "b.test",
        "A.Test",
        "a.test:8080",
        "c.a.test",
        "q-x.test",
        "else.example",
    ];
    let paths = [
        "/a",
        "/a",
        "/a/b",
        "/a/b",
        "/b",
        "/",
        "/a/",
        "/a/b/a",
        "/ab",
        "/a/a",
        "/a/b/b",
        "/b/a",
        "/A/b",
        "/b/",
        "/a/a/b",
        "//a",
        "/a//b",
        "/c/../a",
        "/a/./b",
        "/a//../b",
        "/a%2Fb",
        "/%61",
        "/a%5cb",
        "/a/%2e%2e/b",
        "/%7Ea",
        "/a%20b",
        "//",
        "/..a",
        "/a/..",
    ];
    let queries =
        ["", "", "", "?x=1", "?x", "?x=2&y=1", "?y=1&x=1", "?x=1&x=3", "?x=%31", "?&y", "?x=1?y=1", "?y=a//b%2Fc"];
    let methods = ["GET", "GET", "GET", "GET", "POST", "HEAD", "OPTIONS"];
    let mut request = Request::get(dice.word(&hosts), &format!("{}{}", dice.word(&paths), dice.word(&queries)));
    dice.word(&methods).clone_into(&mut request.method);
    for name in ["x-one", "x-two", "x-one"] {
        if dice.chance(20) {
            request = request.header(name, dice.word(&["1", "22", "", "3", "2"]));
        }
    }
    if dice.chance(4) {
        request = request.header("X-Forwarded-Proto", "https");
    }
    if dice.chance(30) {
        request = request.header("Origin", dice.word(&["https://ok.test", "https://ok.test", "https://bad.example"]));
        if dice.chance(50) {
            "OPTIONS".clone_into(&mut request.method);
            request = request.header("Access-Control-Request-Method", dice.word(&["GET", "POST", "HEAD"]));
        }
    }
    (gateway, port, request)
}
