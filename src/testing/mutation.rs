//! Whatever users write: the demo's and the scenarios' objects, broken at random, through the whole pipeline.
//!
//! Never a panic, never a snapshot that `verify` objects to, never an outcome that depends on the order of arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

use crate::compile::explain::{Request, explain, explain_object};
use crate::compile::{Compiled, compile};
use crate::crd::{Object, yaml as manifests};
use crate::emit::{EmitOptions, emit_gateway};
use crate::ir::frozen::Remembered;
use crate::model::{Code, Findings, ObjectRef};
use crate::resolve::{LoopbackEndpoints, Options};
use crate::snapshot::verify::verify;
use crate::store::Store;

use super::{cluster_of, decode, yaml};

/// How many broken worlds one run makes; the whole takes some seconds without optimisation.
const WORLDS: u32 = 800;

/// How many of them break under trees that freeze.
const FROZEN_WORLDS: u32 = 200;

/// Texts that mean something to some part of the pipeline, or should not.
const TEXTS: &[&str] = &[
    "",
    " ",
    "*",
    "*.",
    "**",
    ".",
    "..",
    "/",
    "//",
    "/a/../b",
    "/a?b#c",
    "%",
    "%2F",
    "%REQ(x)% %",
    "%%",
    "it's \"quoted\"",
    "two\nlines",
    "tab\tand\r\nreturn",
    "nul\0",
    "\u{feff}bom",
    "ünïcöde-☃.example",
    "xn--n3h.example",
    "^(a+)+$",
    "[",
    "(?=x)",
    "(?P<a>.)\\1",
    "a{1000}{1000}",
    ".*",
    "\\",
    "{a}",
    "a=b,c=d",
    "x-header: y",
    ":path",
    "host",
    "Connection",
    "5s",
    "-5s",
    "0s",
    "999999999999h",
    "1.0000000001s",
    "true",
    "007",
    "127.0.0.1",
    "::1",
    "10.0.0.1:80",
    "*.*.example",
    "a..b",
    "-a-",
    "UPPER.example",
    "web.istioinaction.io",
    "www.example.com",
    "cluster-1",
    "cluster-2",
    "mgmt",
    "gloo-mesh",
    "gateway",
];

/// Values of every type at and beyond the edges of what fields take.
fn values() -> Vec<Value> {
    let mut deep = json!("deep");
    for _ in 0..70 {
        deep = json!([deep]);
    }
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(65_535),
        json!(65_536),
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(1e308),
        json!([]),
        json!({}),
        json!([null]),
        json!([[], {}]),
        json!({"": ""}),
        json!({"a": {"b": ["c"]}}),
        json!("x".repeat(70_000)),
        deep,
    ]
}

/// One thing that goes wrong. Every choice is an index into what there is.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    /// A field or item is gone.
    Drop(Index, Index),
    /// A field or item has another type or size.
    Value(Index, Index, Index),
    /// A text is another.
    Text(Index, Index, Index),
    /// A key is another.
    Key(Index, Index, Index),
    /// A list has an item twice.
    Repeat(Index, Index),
    /// An object stands there again under another name.
    Copy(Index, Index),
    /// A field has the value of any field of any object: references go astray, loops close, types clash.
    Link(Index, Index, Index, Index),
    /// A text is that of another object's name, namespace or cluster.
    Refer(Index, Index, Index, Index),
    /// An object lies in another cluster.
    Move(Index, Index),
    /// An object is gone.
    Delete(Index),
}

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let any = any::<Index>;
    prop_oneof![
        2 => (any(), any()).prop_map(|(object, at)| Mutation::Drop(object, at)),
        3 => (any(), any(), any()).prop_map(|(object, at, value)| Mutation::Value(object, at, value)),
        4 => (any(), any(), any()).prop_map(|(object, at, text)| Mutation::Text(object, at, text)),
        1 => (any(), any(), any()).prop_map(|(object, at, text)| Mutation::Key(object, at, text)),
        1 => (any(), any()).prop_map(|(object, at)| Mutation::Repeat(object, at)),
        1 => (any(), any()).prop_map(|(object, text)| Mutation::Copy(object, text)),
        2 => (any(), any(), any(), any()).prop_map(|(a, at, b, from)| Mutation::Link(a, at, b, from)),
        3 => (any(), any(), any(), any()).prop_map(|(a, at, b, part)| Mutation::Refer(a, at, b, part)),
        1 => (any(), any()).prop_map(|(object, cluster)| Mutation::Move(object, cluster)),
        1 => any().prop_map(Mutation::Delete),
    ]
}

pub(crate) type World = Vec<(String, Value)>;

/// The demo, the demo with protecting policies, the demo with what is outside, what spans clusters, then every scenario.
pub(crate) static WORLDS_AS_WRITTEN: LazyLock<Vec<World>> = LazyLock::new(|| {
    let mut worlds = vec![demo(), protected(demo()), with_outside(demo())];
    // Little else crosses, so that it comes up often enough.
    worlds.extend(std::iter::repeat_n(spanning(), 6));
    for scenario in super::scenarios::scenarios() {
        let objects = scenario["objects"].as_array().cloned().unwrap_or_default();
        worlds.push(objects.into_iter().map(|object| (cluster_of(&object), object)).collect());
    }
    worlds
});

/// What the cases of failover share: three clusters, with ways between them. The control plane keeps the root of trust.
pub(crate) fn spanning() -> World {
    let page = include_str!("../cases/failover.md");
    let shared = page.split("```").nth(1).and_then(|block| block.strip_prefix("yaml\n")).expect("a shared part");
    let mut objects = yaml::documents(shared).expect("the shared part is YAML");
    for object in objects.iter_mut().filter(|object| object["kind"] == "RootTrustPolicy") {
        object["spec"] = json!({});
    }
    let policy = json!({
        "apiVersion": "resilience.policy.gloo.solo.io/v2", "kind": "FailoverPolicy",
        "metadata": {"name": "cart", "namespace": "apps"},
        "spec": {"config": {"localityMappings": [{"from": {"region": "eu"}, "to": [{"region": "us"}]}]}},
    });
    let settings = json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "WorkspaceSettings",
        "metadata": {"name": "team", "namespace": "apps"},
        "spec": {"options": {
            "federation": {"enabled": true},
            "eastWestGateways": [{"selector": {"labels": {"istio": "eastwestgateway"}}, "port": {"name": "tls"}}],
        }},
    });
    let table = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "straight", "namespace": "apps"},
        "spec": {"hosts": ["www.example.com"], "virtualGateways": [{"name": "web"}], "http": [{"name": "there", "forwardTo": {
            "destinations": [{"ref": {"name": "cart", "cluster": "cluster-2"}, "port": {"number": 80}}],
        }}]},
    });
    objects.extend([policy, settings, table]);
    objects.into_iter().map(|object| (cluster_of(&object), object)).collect()
}

fn demo() -> World {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo");
    let mut files = Vec::new();
    files_below(&root, &mut files);
    let mut world = World::new();
    for file in files {
        let inside = file.strip_prefix(&root).expect("a file of the directory");
        let cluster = inside.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a readable manifest");
        let objects = yaml::documents(&text).expect("the demo is YAML");
        world.extend(objects.into_iter().map(|object| (cluster.clone(), object)));
    }
    world
}

/// With policies that refer to Secrets, servers and addresses, for routes and for destinations.
fn protected(mut world: World) -> World {
    let policy = |name: &str, namespace: &str, spec: Value| {
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        })
    };
    let keys = include_str!("../resolve/policy/jwt/jwks/p256.pem");
    let secret = json!({"local": {"secretRef": {"objectRef": {"name": "keys"}, "key": "idp.pem"}}});
    let server = json!({"issuer": "https://idp", "claimsToHeaders": [{"claim": "org", "header": "x-org"}],
        "remote": {"url": "http://idp/keys", "destinationRef": {"ref": {"name": "recs"}, "port": {"name": "http"}}}});
    let address = json!({"remote": {"url": "https://idp.example.com/keys"}});
    let labelled = json!([{"route": {"labels": {"expose": "recommendation"}}}]);
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "recommendation"},
            "stringData": {"idp.pem": keys},
        }),
        policy("by-secret", "recommendation", json!({"config": {"providers": {"idp": secret}}})),
        policy(
            "by-label",
            "gateway",
            json!({"applyToRoutes": labelled, "config": {
                "providers": {"idp": {"local": {"inline": keys}}}, "phase": {"postAuthz": {}},
                "claims": [{"key": "org.team", "nestedClaimDelimiter": ".", "values": ["1", "a*"], "notValues": ["b"]}],
            }}),
        ),
        policy(
            "by-server",
            "recommendation",
            json!({
                "applyToDestinations": [{"selector": {"name": "recs"}}, {"selector": {"labels": {"app": "recs"}}}],
                "config": {"providers": {"idp": server, "other": address}, "validationPolicy": "ALLOW_MISSING"},
            }),
        ),
    ];
    world.extend(objects.map(|object| ("cluster-1".to_owned(), object)));
    world
}

/// With external services, their endpoints and TLS, and routes that lead there.
fn with_outside(mut world: World) -> World {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": kind,
            "metadata": {"name": name, "namespace": "gateway", "labels": {"app": "pay"}}, "spec": spec,
        })
    };
    let to = |kind: &str, name: &str, port: u16| json!({"ref": {"name": name}, "kind": kind, "port": {"number": port}});
    let route = |path: &str, destinations: Vec<Value>| json!({"matchers": [{"uri": {"prefix": path}}], "forwardTo": {"destinations": destinations}});
    let secret = json!({"mode": "MUTUAL", "credentialName": "pay"});
    let objects = [
        object(
            "ExternalService",
            "pay",
            json!({"hosts": ["pay.example.com"], "subjectAltNames": ["pay.example.com"], "ports": [
                {"number": 80, "protocol": "HTTP", "targetPort": {"number": 443}, "clientsideTls": {"sni": "pay.example.com"}},
                {"number": 443, "protocol": "HTTPS"},
                {"number": 444, "protocol": "GRPC", "clientsideTls": secret},
            ]}),
        ),
        object(
            "ExternalService",
            "ends",
            json!({"hosts": ["*.example.com"], "selector": {"app": "pay"}, "ports": [{"number": 80, "protocol": "HTTPS", "targetPort": {"name": "web"}}]}),
        ),
        object(
            "ExternalEndpoint",
            "name",
            json!({"address": "a.example.com", "ports": [{"name": "web", "number": 80}]}),
        ),
        object(
            "ExternalEndpoint",
            "address",
            json!({"address": "192.0.2.1", "ports": [{"name": "web", "number": 80}], "locality": {"region": "eu", "zone": "a"}}),
        ),
        object(
            "VirtualDestination",
            "pays",
            json!({"services": [{}], "externalServices": [{"name": "pay"}, {"name": "ends"}], "ports": [{"number": 80, "protocol": "HTTP"}]}),
        ),
        object(
            "RouteTable",
            "outside",
            json!({"hosts": ["outside.example.com"], "virtualGateways": [{"name": "ingress", "namespace": "gateway"}], "http": [
                route("/a", vec![to("EXTERNAL_SERVICE", "pay", 80), to("EXTERNAL_SERVICE", "pay", 444)]),
                route("/b", vec![to("EXTERNAL_SERVICE", "ends", 80)]),
                route("/", vec![to("VIRTUAL_DESTINATION", "pays", 80)]),
            ]}),
        ),
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ClientTLSPolicy",
            "metadata": {"name": "tls", "namespace": "recommendation"},
            "spec": {"applyToDestinations": [{"selector": {"name": "recs"}}], "config": {"simple": {"config": {"sni": "recs.example"}}}},
        }),
    ];
    world.extend(objects.map(|object| ("cluster-1".to_owned(), object)));
    world
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the demo is part of the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The pointers of all values below a value, itself left out.
fn pointers(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, item)| (key.replace('~', "~0").replace('/', "~1"), item)).collect()
        }
        _ => return,
    };
    for (step, child) in children {
        let pointer = format!("{pointer}/{step}");
        pointers(child, &pointer, found);
        found.push(pointer);
    }
}

/// A pointer into an object; the fields that say what it is are left alone most of the time by being few.
fn pick(value: &Value, at: &Index) -> Option<String> {
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    (!found.is_empty()).then(|| at.get(&found).clone())
}

fn pick_text(value: &Value, at: &Index) -> Option<String> {
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    found.retain(|pointer| value.pointer(pointer).is_some_and(Value::is_string));
    (!found.is_empty()).then(|| at.get(&found).clone())
}

fn parent<'v>(value: &'v mut Value, pointer: &str) -> Option<(&'v mut Value, String)> {
    let (above, step) = pointer.rsplit_once('/')?;
    Some((value.pointer_mut(above)?, step.replace("~1", "/").replace("~0", "~")))
}

fn set(value: &mut Value, pointer: Option<String>, new: Value) {
    if let Some(place) = pointer.and_then(|pointer| value.pointer_mut(&pointer)) {
        *place = new;
    }
}

pub(crate) fn apply(world: &mut World, mutation: &Mutation) {
    if world.is_empty() {
        return;
    }
    let count = world.len();
    match mutation {
        Mutation::Drop(object, at) => {
            let object = &mut world[object.index(count)].1;
            let Some(pointer) = pick(object, at) else { return };
            match parent(object, &pointer) {
                Some((Value::Object(entries), key)) => drop(entries.shift_remove(&key)),
                Some((Value::Array(items), index)) => drop(items.remove(index.parse().expect("an index"))),
                _ => {}
            }
        }
        Mutation::Value(object, at, new) => {
            let object = &mut world[object.index(count)].1;
            let pointer = pick(object, at);
            set(object, pointer, new.get(&values()).clone());
        }
        Mutation::Text(object, at, new) => {
            let object = &mut world[object.index(count)].1;
            let pointer = pick_text(object, at);
            set(object, pointer, json!(new.get(TEXTS)));
        }
        Mutation::Key(object, at, new) => {
            let object = &mut world[object.index(count)].1;
            let Some(pointer) = pick(object, at) else { return };
            if let Some((Value::Object(entries), key)) = parent(object, &pointer) {
                let renamed: Map<String, Value> = std::mem::take(entries)
                    .into_iter()
                    .map(|(own, value)| if own == key { ((*new.get(TEXTS)).to_owned(), value) } else { (own, value) })
                    .collect();
                *entries = renamed;
            }
        }
        Mutation::Repeat(object, at) => {
            let object = &mut world[object.index(count)].1;
            let Some(pointer) = pick(object, at) else { return };
            if let Some((Value::Array(items), index)) = parent(object, &pointer) {
                let item = items[index.parse::<usize>().expect("an index")].clone();
                items.push(item);
            }
        }
        Mutation::Copy(object, name) => {
            let mut copy = world[object.index(count)].clone();
            set(&mut copy.1, Some("/metadata/name".to_owned()), json!(name.get(TEXTS)));
            world.push(copy);
        }
        Mutation::Link(object, at, other, from) => {
            let other = &world[other.index(count)].1;
            let Some(new) = pick(other, from).and_then(|pointer| other.pointer(&pointer).cloned()) else { return };
            let object = &mut world[object.index(count)].1;
            let pointer = pick(object, at);
            set(object, pointer, new);
        }
        Mutation::Refer(object, at, other, part) => {
            let (cluster, other) = &world[other.index(count)];
            let parts = [other["metadata"]["name"].clone(), other["metadata"]["namespace"].clone(), json!(cluster)];
            let new = part.get(&parts).clone();
            let object = &mut world[object.index(count)].1;
            let pointer = pick_text(object, at);
            set(object, pointer, new);
        }
        Mutation::Move(object, cluster) => {
            world[object.index(count)].0 = (*cluster.get(&["cluster-1", "cluster-2", "mgmt", ""])).to_owned();
        }
        Mutation::Delete(object) => drop(world.remove(object.index(count))),
    }
}

pub(crate) fn options() -> Options {
    Options { loopback_endpoints: LoopbackEndpoints::Allowed, ..Options::default() }
}

/// Compiles objects, each once, as a source gives them.
fn compiled(objects: impl IntoIterator<Item = Arc<Object>>, findings: &Findings) -> Compiled {
    compile(&Store::from_objects(objects), findings, &options(), &BTreeSet::new(), &Remembered::default())
}

/// Everything that must hold of a world, however broken.
fn holds(world: World) -> Result<(), TestCaseError> {
    let text = serde_json::to_string_pretty(&world.iter().map(|(_, object)| object).collect::<Vec<_>>());
    let (objects, findings) = decode(world);
    // The text as a file: places are looked for wherever something is wrong.
    let list = format!("{{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": {}}}", text.expect("JSON"));
    let source =
        manifests::Source { file: "all.yaml".into(), cluster: "cluster-1".into(), default_namespace: "default".into() };
    if let Ok(decoded) = manifests::decode(list.as_bytes(), &source, &manifests::Limits::default()) {
        for finding in &decoded.findings {
            prop_assert!(!finding.message.is_empty(), "{finding:?}");
        }
    }

    let mut once: BTreeMap<ObjectRef, Arc<Object>> = BTreeMap::new();
    for object in objects {
        once.entry(object.meta.id.clone()).or_insert(object);
    }
    let first = compiled(once.values().cloned(), &findings);
    let second = compiled(once.values().rev().cloned(), &findings);
    prop_assert_eq!(&first.findings, &second.findings);
    prop_assert!(first.plans == second.plans, "plans differ by order of arrival");
    for finding in first.findings.iter() {
        let message = &finding.message;
        prop_assert!(!message.trim().is_empty(), "a finding says nothing: {:?}", finding);
        let line = format!("{:?} {} {message}", finding.subject.as_ref().map(ToString::to_string), finding.field);
        prop_assert!(!line.contains(char::is_control), "more than one line: {:?}", line);
        prop_assert!(line.len() < 8192, "{} bytes: {:.200}", line.len(), line);
    }
    let bind = EmitOptions::default();
    for (gateway, plan) in &first.plans {
        let snapshot = emit_gateway(plan, &bind);
        let violations = verify(&snapshot);
        prop_assert!(violations.is_empty(), "{}: {:?}", gateway, violations);
        prop_assert!(snapshot == emit_gateway(&second.plans[gateway], &bind), "{} is emitted in two ways", gateway);
        for path in ["/", "/a/b", "/%2f/☃?x=%"] {
            let hosts = ["web.istioinaction.io", "www.example.com", "test.recommendation.istioinaction.io", "☃", ""];
            for host in hosts {
                let request = Request { host: host.to_owned(), path: path.to_owned(), ..Request::default() };
                prop_assert!(explain(&first, gateway, &request).is_ok());
            }
        }
    }
    for id in once.keys() {
        prop_assert!(explain_object(&first, true, id).is_ok(), "{}", id);
    }
    Ok(())
}

proptest! {
    // A failing world is worth a test of its own, with a name; seeds would pile up in the root.
    #![proptest_config(ProptestConfig {
        cases: WORLDS,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_written_is_compiled_emitted_and_explained(
        world in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 1..20),
    ) {
        let mut world = world.get(&WORLDS_AS_WRITTEN).clone();
        for mutation in &mutations {
            apply(&mut world, mutation);
        }
        holds(world)?;
    }
}

/// Compiles a world after an earlier compile.
fn compiled_after(world: World, remembered: &Remembered) -> Compiled {
    let (objects, findings) = decode(world);
    compile(&Store::from_objects(objects), &findings, &options(), &BTreeSet::new(), remembered)
}

/// Everything that must hold of trees that freeze when their world breaks (R140).
fn freezes(mut world: World, mutations: &[Mutation]) -> Result<(), TestCaseError> {
    for (_, table) in world.iter_mut().filter(|(_, object)| object["spec"].get("hosts").is_some()) {
        table["spec"]["failureMode"] = json!("FREEZE_CONFIG");
    }
    let before = compiled_after(world.clone(), &Remembered::default());
    for mutation in mutations {
        apply(&mut world, mutation);
    }
    let now = compiled_after(world.clone(), &before.remembered);
    for (root, grown) in &now.trees {
        let Some(frozen) = &grown.frozen else { continue };
        prop_assert_eq!(Some(frozen), before.remembered.accepted.get(root));
        prop_assert!(now.findings.iter().any(|f| f.subject.as_ref() == Some(root) && f.code == Code::FreezeConfig));
    }
    for (gateway, plan) in &now.plans {
        let violations = verify(&emit_gateway(plan, &EmitOptions::default()));
        prop_assert!(violations.is_empty(), "{}: {:?}", gateway, violations);
        for host in ["web.istioinaction.io", "www.example.com", "test.recommendation.istioinaction.io"] {
            let request = Request { host: host.to_owned(), path: "/".to_owned(), ..Request::default() };
            prop_assert!(explain(&now, gateway, &request).is_ok());
        }
    }
    for id in now.verdicts.keys() {
        prop_assert!(explain_object(&now, true, id).is_ok(), "{}", id);
    }
    // Compiling the same again changes nothing, and nothing is written again.
    let again = compiled_after(world, &now.remembered);
    prop_assert!(again.plans == now.plans && again.findings == now.findings, "another outcome without a change");
    prop_assert_eq!(&again.remembered.accepted, &now.remembered.accepted);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: FROZEN_WORLDS,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn r140_whatever_is_written_a_frozen_tree_keeps_what_it_was(
        world in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 1..10),
    ) {
        freezes(world.get(&WORLDS_AS_WRITTEN).clone(), &mutations)?;
    }
}

#[test]
fn what_is_written_well_holds_too() {
    for world in WORLDS_AS_WRITTEN.iter() {
        holds(world.clone()).expect("an unbroken world");
    }
}
