//! Which gateway an Envoy is matched to, and when it is served.

use serde_json::json;

use super::clients::match_node;
use super::*;
use crate::compile::compile;
use crate::crd::{Change, Object};
use crate::ir::policy::rate_limit::LimitPlan;
use crate::model::{EnvoyRelease, Kind, Labels};
use crate::testing::decode;
use crate::xds::caller::Caller;
use crate::xds::node::{Node, NodeError};
use crate::xds::source::SnapshotSource;

mod identities;
mod lane;
mod refusals;

/// Two overlapping gateway Services in `edge`, one elsewhere, one without selector, and a Pod.
fn objects() -> Vec<Arc<Object>> {
    let service = |namespace: &str, name: &str, selector: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        })
    };
    let manifests = [
        service("edge", "web", json!({"app": "web"})),
        service("edge", "api", json!({"app": "web", "tier": "api"})),
        service("edge", "headless", json!({})),
        service("else", "web", json!({"app": "web"})),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "edge", "labels": {"app": "web"}},
        }),
    ];
    let (objects, findings) = decode(manifests.map(|manifest| ("cluster-1".to_owned(), manifest)));
    assert_eq!(findings, []);
    objects
}

fn compiled() -> Compiled {
    compile(&Store::from_objects(objects()), &[], &Options::default(), &BTreeSet::new(), &Remembered::default())
}

fn node(cluster: &str, namespace: &str, pod: Option<&str>, labels: &[(&str, &str)]) -> Node {
    Node {
        id: "envoy-1".into(),
        cluster: Some(cluster.into()),
        namespace: Some(namespace.into()),
        pod: pod.map(Into::into),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        service_account: None,
        bind: "0.0.0.0".into(),
        revision: None,
        version: None,
    }
}

/// Who was matched by labels alone.
fn asker(labels: Labels) -> Arc<Asker> {
    Arc::new(Asker { labels, account: None, served_elsewhere: None })
}

#[test]
fn r15_an_envoy_gets_the_gateways_of_every_service_that_selects_its_pod() {
    let compiled = compiled();
    let api = [("app", "web"), ("tier", "api")];
    for (why, node, expected) in [
        ("one Service", node("cluster-1", "edge", None, &[("app", "web")]), "cluster-1/edge/web"),
        ("two Services", node("cluster-1", "edge", None, &api), "cluster-1/edge/api+web"),
        ("only those of its namespace", node("cluster-1", "else", None, &api), "cluster-1/else/web"),
        ("the Pod's labels, not the stated ones", node("cluster-1", "edge", Some("web-1"), &api), "cluster-1/edge/web"),
        (
            "the stated ones without such a Pod",
            node("cluster-1", "edge", Some("web-2"), &api),
            "cluster-1/edge/api+web",
        ),
    ] {
        let found = match_node(&compiled, &node, &Caller::Anybody, true).map(|(gateway, _)| gateway.to_string());
        assert_eq!(found, Ok(expected.to_owned()), "{why}");
    }
}

#[test]
fn r15_an_envoy_that_no_service_selects_is_refused_with_the_reason() {
    let compiled = compiled();
    for (node, part) in [
        (node("cluster-1", "edge", None, &[("app", "other")]), "selects a Pod with labels [\"app=other\"]"),
        (node("cluster-1", "edge", None, &[]), "no Service of namespace \"edge\" in cluster \"cluster-1\""),
        (node("cluster-2", "edge", None, &[("app", "web")]), "in cluster \"cluster-2\""),
        (Node { cluster: None, ..node("", "edge", None, &[]) }, "must state `cluster` and `namespace`"),
    ] {
        let error = match_node(&compiled, &node, &Caller::Anybody, true).expect_err("no gateway").to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// The Pod of `web` runs as `front`; `api` has no Pod, and nor has `else`.
#[test]
fn r193_a_credential_gets_its_own_gateway_and_no_other() {
    let mut objects = objects();
    let (pods, findings) = decode([(
        "cluster-1".to_owned(),
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"serviceAccountName": "front"},
            "metadata": {"name": "web-1", "namespace": "edge", "labels": {"app": "web"}},
        }),
    )]);
    assert_eq!(findings, []);
    objects.pop();
    objects.extend(pods);
    let store = Store::from_objects(objects);
    let compiled = compile(&store, &[], &Options::default(), &BTreeSet::new(), &Remembered::default());
    let account = |name: &str, namespace: &str| {
        Caller::Account(ObjectRef::new(Kind::ServiceAccount, "cluster-1", namespace, name))
    };
    let web = node("cluster-1", "edge", None, &[("app", "web")]);
    let both = node("cluster-1", "edge", None, &[("app", "web"), ("tier", "api")]);
    let elsewhere = node("cluster-1", "else", None, &[("app", "web")]);
    for (why, node, caller, is_let_in) in [
        ("its Pod runs as it", &web, account("front", "edge"), true),
        ("its Pod runs as another", &web, account("default", "edge"), false),
        ("labels of a class without Pods", &both, account("front", "edge"), false),
        ("the account of who has no Pods", &both, account("default", "edge"), true),
        ("another namespace", &elsewhere, account("front", "edge"), false),
        ("its own namespace", &elsewhere, account("default", "else"), true),
        ("nobody is asked", &web, Caller::Anybody, true),
    ] {
        let found = match_node(&compiled, node, &caller, true);
        assert_eq!(found.is_ok(), is_let_in, "{why}: {found:?}");
        assert!(is_let_in || matches!(found, Err(NodeError::Denied(_))), "{why}: {found:?}");
    }
    // Who runs elsewhere does not hear what there is.
    let stranger = account("front", "other");
    for node in [&web, &node("cluster-1", "edge", None, &[("app", "nobody")])] {
        let error = match_node(&compiled, node, &stranger, true).unwrap_err().to_string();
        assert!(error.starts_with("the node states namespace") && !error.contains("Service"), "{error}");
    }
}

/// A loop with its publisher and what it last made.
fn compile_loop() -> (CompileLoop, Arc<Publisher>, State) {
    let publisher = Arc::new(Publisher::new());
    let (sender, state) = watch::channel(None);
    let (memory, told) = (Memory::of_this_run(), (Arc::new(Ledger::new()), Arc::default()));
    let compile_loop = CompileLoop::new(Options::default(), publisher.clone(), sender, Places::default(), memory, told);
    (compile_loop, publisher, state)
}

#[test]
fn r10_nothing_is_served_before_the_first_complete_list() {
    let (mut compiler, publisher, state) = compile_loop();
    let key = GatewayKey {
        gateway: "cluster-1/edge/web".parse().unwrap(),
        bind: "0.0.0.0".into(),
        envoy: EnvoyRelease::OLDEST,
    };
    let mut snapshots = publisher.subscribe(&key);
    let labels = [("app".into(), "web".into())].into();
    let batch =
        |extent| Batch { extent, changes: objects().into_iter().map(Change::Put).collect(), findings: Findings::new() };

    compiler.step([Event::Gateway(key, asker(labels)), Event::Source(batch(Extent::Changes))].into_iter());
    assert!(state.borrow().is_none() && snapshots.borrow_and_update().is_none());

    compiler.step(std::iter::once(Event::Source(batch(Extent::Complete))));
    assert!(state.borrow().is_some() && snapshots.borrow_and_update().is_some());
}

/// R132, R137: its author waits for a verdict on it, though it says what it said before.
#[test]
fn an_edit_that_says_nothing_else_has_its_generation_judged() {
    let (mut compiler, _publisher, state) = compile_loop();
    let table = |generation: i64| {
        let manifest = json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": "routes", "namespace": "edge", "generation": generation},
            "spec": {"http": []},
        });
        let (objects, _) = decode([("cluster-1".to_owned(), manifest)]);
        objects.into_iter().map(Change::Put)
    };
    let mut step = |extent, changes: Vec<Change>| {
        let findings = Findings::new();
        compiler.step(std::iter::once(Event::Source(Batch { extent, changes, findings })));
        let compiled = state.borrow().clone().expect("compiled");
        let judged = compiled.verdicts.values().map(|verdict| verdict.generation).max();
        judged.expect("a verdict")
    };
    assert_eq!(step(Extent::Complete, objects().into_iter().map(Change::Put).chain(table(1)).collect()), 1);
    assert_eq!(step(Extent::Changes, table(2).collect()), 2);
}

#[tokio::test]
async fn r10_an_envoy_that_comes_early_waits() {
    let (sender, state) = watch::channel(None);
    let (events, _inbox) = std_mpsc::channel();
    let (publisher, limits) = (Arc::new(Publisher::new()), Arc::default());
    let gateways = Gateways { state, publisher, limits, events, trusts_labels: true };
    let node = node("cluster-1", "edge", None, &[("app", "web")]);
    let mut subscribed = Box::pin(gateways.subscribe(&node, &Caller::Anybody));
    tokio::select! {
        biased;
        _ = &mut subscribed => panic!("it is served before anything is known"),
        () = std::future::ready(()) => {}
    }
    sender.send_replace(Some(Arc::new(compiled())));
    assert_eq!(&*subscribed.await.expect("a gateway").gateway, "cluster-1/edge/web");
}

#[test]
fn r15_labels_of_envoys_that_are_gone_do_not_close_a_gateway_again() {
    let (mut compiler, publisher, _state) = compile_loop();
    let key = GatewayKey {
        gateway: "cluster-1/edge/web".parse().unwrap(),
        bind: "0.0.0.0".into(),
        envoy: EnvoyRelease::OLDEST,
    };
    let first = publisher.subscribe(&key);
    let put = |extent, objects: Vec<Arc<Object>>| {
        Event::Source(Batch {
            extent,
            changes: objects.into_iter().map(Change::Put).collect(),
            findings: Findings::new(),
        })
    };
    let pod = |version: &str| asker([("app".into(), "web".into()), ("version".into(), version.into())].into());
    let (one, two) = (pod("1"), pod("2"));
    let asks = |asker: &Arc<Asker>| Event::Gateway(key.clone(), asker.clone());
    // Envoys of two rollouts, and then a Service that picks the second one's Pods besides.
    compiler.step([put(Extent::Complete, objects()), asks(&one), asks(&two)].into_iter());
    let (canary, _) = decode([(
        "cluster-1".to_owned(),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "canary", "namespace": "edge"},
            "spec": {"selector": {"version": "2"}, "ports": [{"port": 80}]},
        }),
    )]);
    compiler.step(std::iter::once(put(Extent::Changes, canary)));
    assert!(first.has_changed().is_err(), "the Envoys are matched anew");

    // One of the first rollout comes back: it is served, and stays so.
    let again = publisher.subscribe(&key);
    compiler.step(std::iter::once(asks(&one)));
    assert!(again.has_changed().is_ok() && again.borrow().is_some());
}

#[test]
fn the_audit_finds_plans_and_limits_that_are_others_than_from_scratch() {
    let store = Store::from_objects(objects());
    let remembered = Arc::new(Remembered::default());
    let gateway: GatewayId = "cluster-1/edge/web".parse().unwrap();
    let wanted = BTreeSet::from([gateway.clone()]);
    let compiled = Compiler::new(&Options::default()).step(&store, &[], &Options::default(), &wanted, &remembered);
    let sample = |compiled| audit::Sample {
        options: Options::default(),
        given: Arc::default(),
        wanted: wanted.clone(),
        remembered: remembered.clone(),
        compiled: Arc::new(compiled),
    };
    assert_eq!(audit::differences(&sample(compiled.clone())), 0);
    let mut wrong = compiled.clone();
    wrong.plans.remove(&gateway);
    assert_eq!(audit::differences(&sample(wrong)), 1);
    let mut wrong = compiled;
    let server = ObjectRef::new(Kind::Service, "cluster-1", "team", "limiter");
    wrong.limits.insert(server.clone(), Arc::new(LimitPlan { server, configurations: Vec::new() }));
    assert_eq!(audit::differences(&sample(wrong)), 1, "nobody should be told these limits");
}
