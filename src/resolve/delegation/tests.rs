//! Trees that somebody built to hurt. What delegation means for everybody else stands in `src/cases`.

use serde_json::{Value, json};

use super::*;
use crate::compile::Compiled;
use crate::ir::Action;
use crate::resolve::Options;
use crate::testing::compile_manifests;

/// A child table, or the root table `root` when it has that name.
fn table(name: &str, routes: &[Value]) -> Value {
    let mut spec = json!({"http": routes});
    if name == "root" {
        spec["hosts"] = json!(["shop.example"]);
        spec["virtualGateways"] = json!([{"name": "web"}]);
    }
    json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": name, "namespace": "apps"}, "spec": spec,
    })
}

/// A route that answers.
fn answer(name: &str, matchers: &Value) -> Value {
    json!({"name": name, "matchers": matchers, "directResponse": {"status": 200}})
}

/// A route that delegates to one table.
fn to(name: &str, matchers: &Value, child: &str) -> Value {
    json!({"name": name, "matchers": matchers, "delegate": {"routeTables": [{"name": child}]}})
}

fn prefix(path: &str) -> Value {
    json!([{"uri": {"prefix": path}}])
}

/// Tables `t1` to `t15`, each of which delegates several times to the next; the last one has the routes given.
fn multiplying(times: usize, matchers: &Value, last: &[Value]) -> Vec<Value> {
    (1..=15)
        .map(|level| {
            let next = format!("t{}", level + 1);
            let routes: Vec<Value> = (0..times).map(|n| to(&format!("r{n}"), matchers, &next)).collect();
            table(&format!("t{level}"), if level < 15 { &routes } else { last })
        })
        .collect()
}

/// A gateway with the tables of one workspace.
fn compile(tables: impl IntoIterator<Item = Value>) -> Compiled {
    let admin = |kind: &str, name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "gloo-mesh"});
        let api = "admin.gloo.solo.io/v2";
        ("mgmt".to_owned(), json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}))
    };
    let workspace = json!({"workloadClusters": [{"name": "cluster-1", "namespaces": [{"name": "apps"}]}]});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "apps"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    let gateway = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualGateway",
        "metadata": {"name": "web", "namespace": "apps"},
        "spec": {"listeners": [{"http": {}, "port": {"number": 80}}]},
    });
    let here = [service, gateway].into_iter().chain(tables).map(|manifest| ("cluster-1".to_owned(), manifest));
    let there = [admin("KubernetesCluster", "cluster-1", json!({})), admin("Workspace", "team", workspace)];
    compile_manifests(there.into_iter().chain(here), &Options::default())
}

/// What the routes of the root table's tree hold on to.
fn size(compiled: &Compiled) -> usize {
    let trees = compiled.trees.values().flat_map(|grown| grown.tree.routes());
    trees.map(|route| route.chain.len() + route.labels.iter().count() + route.matchers.len()).sum()
}

/// The messages of a code on a table.
fn messages<'c>(compiled: &'c Compiled, name: &str, code: Code) -> Vec<&'c str> {
    let is_wanted = |finding: &&Finding| {
        finding.code == code && finding.subject.as_ref().is_some_and(|subject| subject.name == name)
    };
    compiled.findings.iter().filter(is_wanted).map(|finding| finding.message.as_str()).collect()
}

/// What the gateway serves, in order, as path and status.
fn served(compiled: &Compiled) -> Vec<String> {
    let plans = compiled.plans.values().flat_map(|plan| plan.listeners.values());
    let routes = plans.flat_map(|listener| listener.virtual_hosts()).flat_map(|host| &host.routes);
    routes
        .map(|route| {
            let Action::Direct(direct) = &route.body.action else { unreachable!("all routes here answer") };
            format!("{} {}", route.matcher.path, direct.status)
        })
        .collect()
}

#[test]
fn a_tree_that_doubles_at_every_level_is_cut_off_and_says_so() {
    let root = table(
        "root",
        &[
            to("early", &prefix("/early"), "small"),
            to("evil", &prefix("/evil"), "t1"),
            to("again", &prefix("/again"), "t1"),
            to("late", &prefix("/late"), "small"),
            answer("plain", &prefix("/plain")),
        ],
    );
    let small = table("small", &[answer("small", &prefix("/small"))]);
    let leaves = [answer("end", &prefix("/end"))];
    let compiled = compile(multiplying(2, &json!([]), &leaves).into_iter().chain([root, small]));
    assert!(size(&compiled) <= 2 * MAX_COST, "{} parts are more than a tree may have", size(&compiled));
    // What could be walked stands, and every delegation that could not answers 500 behind it.
    assert_eq!(
        served(&compiled),
        [
            "prefix /early/small 200",
            "prefix /evil/end 200",
            "prefix /again/end 200",
            "prefix /again 500",
            "prefix /late 500",
            "prefix /plain 200"
        ]
    );
    let said = messages(&compiled, "root", Code::DelegationTooDeep);
    assert!(matches!(said[..], [one] if one.contains("`again`") && one.contains("too large")), "{said:?}");
}

#[test]
fn tables_without_routes_of_their_own_are_counted_too() {
    let root = table("root", &[to("evil", &prefix("/evil"), "t1"), answer("plain", &prefix("/plain"))]);
    let compiled = compile(multiplying(5, &json!([]), &[]).into_iter().chain([root]));
    assert_eq!(messages(&compiled, "root", Code::DelegationTooDeep).len(), 1);
    assert!(served(&compiled).contains(&"prefix /plain 200".to_owned()));
}

#[test]
fn matchers_that_multiply_are_counted_too() {
    let pair = json!([{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}]);
    let root = table("root", &[to("evil", &prefix("/evil"), "t1"), answer("plain", &prefix("/plain"))]);
    let leaves = [answer("end", &prefix("/end"))];
    let compiled = compile(multiplying(2, &pair, &leaves).into_iter().chain([root]));
    assert!(size(&compiled) <= 2 * MAX_COST, "{} parts are more than a tree may have", size(&compiled));
    assert!(!messages(&compiled, "root", Code::Unsupported).is_empty());
    assert!(served(&compiled).contains(&"prefix /plain 200".to_owned()));
}

/// A route with more alternatives than are combined must not answer for what its neighbours serve.
#[test]
fn too_many_combinations_of_one_route_leave_its_siblings_alone() {
    let many: Vec<Value> = (0..=MAX_COMBINATIONS).map(|n| json!({"uri": {"exact": format!("/x{n}")}})).collect();
    let kid = table("kid", &[answer("many", &json!(many)), answer("fine", &prefix("/fine"))]);
    let compiled = compile([table("root", &[to("all", &prefix("/api"), "kid")]), kid]);
    let served = served(&compiled);
    assert_eq!(served.len(), MAX_COMBINATIONS + 1);
    assert_eq!(served[0], "exact /api/x0 500");
    assert_eq!(served[MAX_COMBINATIONS], "prefix /api/fine 200");
    let said = messages(&compiled, "kid", Code::Unsupported);
    assert!(matches!(said[..], [one] if one.contains("`many`") && one.contains("1000 combinations")), "{said:?}");
}

/// R90, R84: tables that all select each other by one label.
#[test]
fn r90_a_group_of_tables_that_select_each_other_ends() {
    let mesh = |name: &str| {
        let mut mesh = table(name, &[json!({"name": "all", "delegate": {"routeTables": [{"labels": {"mesh": "x"}}]}})]);
        mesh["metadata"]["labels"] = json!({"mesh": "x"});
        mesh
    };
    let names: Vec<String> = (0..12).map(|n| format!("m{n}")).collect();
    let root = [mesh("root"), table("other", &[])];
    let compiled = compile(names.iter().map(|name| mesh(name)).chain(root));
    assert!(!messages(&compiled, "m0", Code::DelegationCycle).is_empty());
    assert_eq!(messages(&compiled, "root", Code::DelegationTooDeep).len(), 1);
    assert_eq!(messages(&compiled, "root", Code::NotAChildTable).len(), 1);
}

#[test]
fn r79_bodies_that_hosts_and_matchers_multiply_are_bounded() {
    let matchers: Vec<Value> = (0..100).map(|n| json!({"uri": {"exact": format!("/{n}")}})).collect();
    let large =
        json!({"name": "large", "matchers": matchers, "directResponse": {"status": 200, "body": "x".repeat(1 << 20)}});
    let compiled = compile([table("root", &[large, answer("small", &prefix("/small"))])]);
    let plan = compiled.plans.values().next().expect("a gateway");
    let routes = &plan.listeners[&80].virtual_hosts().next().unwrap().routes;
    let bodies: usize = routes
        .iter()
        .map(|route| match &route.body.action {
            Action::Direct(direct) => direct.body.len(),
            _ => 0,
        })
        .sum();
    assert!(bodies < 64 << 20, "{bodies} bytes");
    let statuses: Vec<u16> = [routes.iter().next().unwrap(), routes.iter().last().unwrap()]
        .map(|route| match &route.body.action {
            Action::Direct(direct) => direct.status,
            _ => 0,
        })
        .to_vec();
    assert_eq!(statuses, [500, 200], "the large one is closed, its sibling serves");
    assert!(compiled.findings.iter().any(|finding| finding.code == Code::LimitExceeded));
}

#[test]
fn r70_a_table_has_a_bounded_number_of_hosts() {
    let mut root = table("root", &[answer("all", &json!([]))]);
    root["spec"]["hosts"] = (0..1_001).map(|n| json!(format!("h{n}.example"))).collect();
    let compiled = compile([root]);
    let plan = compiled.plans.values().next().expect("a gateway");
    assert_eq!(plan.listeners[&80].virtual_hosts().count(), 1_000);
    assert!(compiled.findings.iter().any(|f| f.code == Code::LimitExceeded && f.field.as_str() == "spec.hosts[1000]"));
}
