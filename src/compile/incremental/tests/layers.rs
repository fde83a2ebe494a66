//! Which layers an edit runs, and that nothing stays behind.

use super::*;
use crate::testing::mutation::spanning;
use crate::testing::{cluster_of, yaml};

/// Two hosts of one gateway, each with a child table of a team, its Service and its endpoints. A policy of team `a`
/// selects the routes of its table by label.
pub(super) const TWO: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}, {name: a}, {name: b}, {name: spare}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: spare}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: a, namespace: edge}
spec:
  hosts: [a.example]
  virtualGateways: [{name: web}]
  http: [{matchers: [{uri: {prefix: /}}], delegate: {routeTables: [{labels: {host: a}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: b, namespace: edge}
spec:
  hosts: [b.example]
  virtualGateways: [{name: web}]
  http: [{matchers: [{uri: {prefix: /}}], delegate: {routeTables: [{labels: {host: b}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: a, labels: {host: a, team: a}}
spec: {http: [{name: all, matchers: [{uri: {prefix: /a}}], forwardTo: {destinations: [{ref: {name: app}}]}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: b, labels: {host: b, team: b}}
spec: {http: [{name: all, matchers: [{uri: {prefix: /b}}], forwardTo: {destinations: [{ref: {name: app}}]}}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: a}
spec: {selector: {app: a}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: b}
spec: {selector: {app: b}, ports: [{port: 80, name: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app-1, namespace: a, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: http, port: 80}]
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: HeaderManipulationPolicy
metadata: {name: headers, namespace: a}
spec:
  applyToRoutes: [{route: {labels: {team: a}}}]
  config: {appendResponseHeaders: {x-team: a}}
";

pub(super) fn world(text: &str) -> World {
    let documents = yaml::documents(text).expect("YAML");
    documents.into_iter().map(|document| (cluster_of(&document), document)).collect()
}

pub(super) fn find<'w>(world: &'w mut World, kind: &str, namespace: &str, name: &str) -> &'w mut Value {
    let is_it = |object: &Value| {
        object["kind"] == kind && object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name
    };
    let found = world.iter_mut().find(|(_, object)| is_it(object));
    &mut found.unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}")).1
}

/// Compiles [`TWO`], edits it, and compiles again; the result is what it is from scratch.
fn edited(edit: impl FnOnce(&mut World)) -> (Compiled, Compiled, Step) {
    let (before, after, step) = edited_in(world(TWO), edit);
    assert_eq!(before.findings.to_vec(), [], "the world is well");
    (before, after, step)
}

/// The same with another world.
pub(super) fn edited_in(mut world: World, edit: impl FnOnce(&mut World)) -> (Compiled, Compiled, Step) {
    let mut pair = Pair::new();
    let given = pair.put(&world);
    let (before, afresh) = pair.compile(&given);
    same(&before, &afresh).unwrap();
    edit(&mut world);
    let given = pair.put(&world);
    let (after, afresh) = pair.compile(&given);
    same(&after, &afresh).unwrap();
    (before, after, pair.compiler.last())
}

/// Whether each host of the gateway is the very same as before, in the order of the domains.
pub(super) fn kept_hosts(before: &Compiled, after: &Compiled) -> Vec<bool> {
    let hosts = |compiled: &Compiled| -> Vec<Arc<crate::ir::VirtualHost>> {
        let plans = compiled.plans.values();
        let chains = plans.flat_map(|plan| plan.listeners.values()).flat_map(|listener| listener.chains.clone());
        let http: Vec<_> = chains.filter_map(|chain| chain.serves.http().cloned()).collect();
        http.into_iter().flat_map(|http| http.virtual_hosts).collect()
    };
    hosts(before).iter().zip(&hosts(after)).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
}

fn kept_upstreams(before: &Compiled, after: &Compiled) -> Vec<bool> {
    let upstreams = |compiled: &Compiled| -> Vec<Arc<crate::ir::Upstream>> {
        compiled.plans.values().flat_map(|plan| plan.upstreams.values().cloned()).collect()
    };
    upstreams(before).iter().zip(&upstreams(after)).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
}

#[test]
fn nothing_is_made_where_nothing_changed() {
    let (before, after, step) = edited(|_| {});
    assert_eq!(step, Step::default());
    assert!(before.plans.ptr_eq(&after.plans) && Arc::ptr_eq(&before.remembered, &after.remembered));
}

#[test]
fn an_edit_of_a_route_makes_the_tree_and_the_host_that_it_is_in() {
    let (before, after, step) = edited(|world| {
        find(world, "RouteTable", "b", "shop")["spec"]["http"][0]["matchers"][0]["uri"] = json!({"prefix": "/b/new"});
    });
    // Of the verdicts only that of the table may be another, and it is not.
    assert_eq!(step, Step { lowered: 1, trees: 1, fragments: 2, pieces: 1, hosts: 1, verdicts: 1, ..Step::default() });
    assert_eq!(kept_hosts(&before, &after), [true, false]);
    assert_eq!(kept_upstreams(&before, &after), [true, true]);
}

#[test]
fn an_edit_of_endpoints_makes_their_upstream_and_no_route() {
    let (before, after, step) = edited(|world| {
        find(world, "EndpointSlice", "a", "app-1")["endpoints"] = json!([{"addresses": ["10.0.0.2"]}]);
    });
    assert_eq!(step, Step { lowered: 1, upstreams: 1, ..Step::default() });
    assert_eq!(kept_hosts(&before, &after), [true, true]);
    assert_eq!(kept_upstreams(&before, &after), [false, true]);
    let listeners = |compiled: &Compiled| -> Vec<Arc<crate::ir::Listener>> {
        compiled.plans.values().flat_map(|plan| plan.listeners.values().cloned()).collect()
    };
    let is_same = |(a, b): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(a, b);
    assert!(
        listeners(&before).iter().zip(&listeners(&after)).all(is_same),
        "a Pod costs no copy of what it is no part of"
    );
}

#[test]
fn a_pod_of_another_cluster_makes_what_leads_there_and_opens_nothing() {
    let (before, after, step) = edited_in(spanning(), |world| {
        let is_it =
            |(cluster, object): &&mut (String, Value)| cluster == "cluster-2" && object["kind"] == "EndpointSlice";
        let slice = &mut world.iter_mut().find(is_it).expect("a slice").1;
        slice["endpoints"] =
            json!([{"addresses": ["10.2.0.1"], "nodeName": "a"}, {"addresses": ["10.2.0.2"], "nodeName": "a"}]);
    });
    // The virtual destination and the Service where they are sent to, and the Service where it is let in.
    assert_eq!(step, Step { lowered: 1, upstreams: 3, ..Step::default() });
    for (gateway, plan) in &before.plans {
        assert!(plan.listeners == after.plans[gateway].listeners, "{gateway}");
    }
    assert!(
        before.plans.values().any(|plan| plan.listeners.values().any(|listener| listener.relayed().next().is_some()))
    );
}

#[test]
fn a_pod_beside_gateways_moves_no_way_between_clusters() {
    let (_, _, step) = edited_in(spanning(), |world| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "apps", "labels": {"app": "x"}}});
        world.push(("cluster-1".to_owned(), pod));
    });
    assert_eq!((step.upstreams, step.crossings, step.listeners), (0, 0, 0));
}

#[test]
fn the_first_slice_of_a_service_is_seen_though_there_was_none() {
    let (before, after, step) = edited(|world| {
        let mut slice = find(world, "EndpointSlice", "a", "app-1").clone();
        slice["metadata"]["namespace"] = json!("b");
        world.push(("cluster-1".to_owned(), slice));
    });
    assert_eq!(step, Step { lowered: 1, upstreams: 1, ..Step::default() });
    assert_eq!(kept_upstreams(&before, &after), [true, false]);
}

#[test]
fn an_edit_of_a_policy_makes_the_trees_with_routes_that_it_selects() {
    let (before, after, step) = edited(|world| {
        find(world, "HeaderManipulationPolicy", "a", "headers")["spec"]["config"] =
            json!({"appendResponseHeaders": {"x-team": "new"}});
    });
    assert_eq!(step, Step { lowered: 1, trees: 1, fragments: 2, pieces: 1, hosts: 1, verdicts: 1, ..Step::default() });
    assert_eq!(kept_hosts(&before, &after), [false, true]);
}

#[test]
fn a_label_that_nothing_selects_by_changes_no_host() {
    let (before, after, step) = edited(|world| {
        find(world, "Service", "b", "app")["metadata"]["labels"] = json!({"colour": "blue"});
    });
    assert_eq!((step.lowered, step.listeners, step.hosts), (1, 0, 0), "the tree comes out equal");
    assert!(before.plans.ptr_eq(&after.plans));
    assert!(before.trees.ptr_eq(&after.trees));
}

#[test]
fn another_generation_changes_the_verdict_alone() {
    let (before, after, step) = edited(|world| {
        find(world, "RouteTable", "b", "shop")["metadata"]["generation"] = json!(7);
        find(world, "RouteTable", "b", "shop")["spec"]["weight"] = json!(0);
    });
    assert_eq!(step, Step { lowered: 1, verdicts: 1, ..Step::default() });
    assert!(before.plans.ptr_eq(&after.plans));
}

#[test]
fn what_a_selector_did_not_find_is_found_when_it_comes() {
    let (before, after, step) = edited(|world| {
        let mut table = find(world, "RouteTable", "b", "shop").clone();
        table["metadata"]["name"] = json!("more");
        table["spec"]["http"][0]["matchers"][0]["uri"] = json!({"prefix": "/more"});
        world.push(("cluster-1".to_owned(), table));
    });
    assert_eq!((step.lowered, step.trees, step.hosts, step.listeners, step.bindings), (1, 1, 1, 0, 0));
    assert_eq!(kept_hosts(&before, &after), [true, false]);
    let (before, after, step) = edited(|world| {
        find(world, "RouteTable", "b", "shop")["metadata"]["labels"] = json!({"host": "c"});
    });
    assert_eq!((step.lowered, step.trees, step.hosts, step.listeners), (1, 1, 1, 0), "it is lost in the same way");
    assert_eq!(kept_hosts(&before, &after), [true, false]);
}

#[test]
fn another_host_is_put_among_the_others_and_they_are_kept() {
    let (before, after, step) = edited(|world| {
        find(world, "RouteTable", "edge", "b")["spec"]["hosts"] = json!(["b.example", "c.example"]);
    });
    assert_eq!(
        (step.bindings, step.trees, step.listeners, step.hosts),
        (1, 1, 0, 1),
        "its other host has the same routes"
    );
    assert_eq!(kept_hosts(&before, &after), [true, true], "c.example is new");
    let (before, after, step) = edited(|world| world.retain(|(_, object)| object["metadata"]["name"] != "a"));
    assert_eq!((step.trees, step.listeners, step.hosts), (0, 0, 0));
    assert_eq!(before.plans.values().next().unwrap().upstreams.len(), 2);
    assert_eq!(after.plans.values().next().unwrap().upstreams.len(), 1, "what only it reached is gone");
    let (before, after, step) = edited(|world| {
        let mut younger = find(world, "RouteTable", "edge", "b").clone();
        younger["metadata"]["name"] = json!("c");
        world.push(("cluster-1".to_owned(), younger));
    });
    assert_eq!((step.trees, step.listeners, step.hosts), (1, 0, 1), "it shares a host with another");
    assert_eq!(kept_hosts(&before, &after), [true, false]);
}

#[test]
fn an_edit_of_a_namespace_that_changes_no_owner_makes_nothing() {
    let (_, _, step) = edited(|world| {
        let namespace = world.iter_mut().find(|(_, object)| object["kind"] == "Namespace").expect("a namespace");
        namespace.1["metadata"]["labels"] = json!({"colour": "blue"});
    });
    assert_eq!(step, Step { lowered: 1, ..Step::default() });
}

#[test]
fn another_owner_makes_everything_anew_but_checked_forms() {
    let (_, _, step) = edited(|world| {
        let workspace = world.iter_mut().find(|(_, object)| object["kind"] == "Workspace").expect("a workspace");
        workspace.1["spec"]["workloadClusters"][0]["namespaces"] = json!([{"name": "edge"}, {"name": "a"}]);
    });
    assert!(step.is_restart);
    assert_eq!(step.lowered, 1);
}

#[test]
fn what_is_deleted_leaves_nothing_behind() {
    let mut world = world(TWO);
    let mut pair = Pair::new();
    pair.step(&world).unwrap();
    let held = pair.compiler.held();
    let small = world.clone();
    for round in 0..3 {
        for index in 0..20 {
            let copies: Vec<(String, Value)> = small[4..]
                .iter()
                .map(|(cluster, object)| {
                    let mut copy = object.clone();
                    copy["metadata"]["name"] = json!(format!("{}-{round}-{index}", object["metadata"]["name"]));
                    if copy["spec"].get("hosts").is_some() {
                        copy["spec"]["hosts"] = json!([format!("h{round}-{index}.example")]);
                    }
                    (cluster.clone(), copy)
                })
                .collect();
            world.extend(copies);
        }
        pair.step(&world).unwrap();
        assert!(pair.compiler.held() > held);
        world.clone_from(&small);
        pair.step(&world).unwrap();
        assert_eq!(pair.compiler.held(), held);
    }
    world.clear();
    pair.step(&world).unwrap();
    assert_eq!(pair.compiler.held(), 4, "two readers that ask about all gateways, and their slots");
}

#[test]
fn a_gateway_that_nobody_asks_for_any_more_is_forgotten() {
    let mut pair = Pair::new();
    let given = pair.put(&world(TWO));
    pair.compile(&given);
    let held = pair.compiler.held();
    let wanted: GatewayId = "cluster-1/edge/other+web".parse().unwrap();
    pair.wanted.insert(wanted.clone());
    let (kept, afresh) = pair.compile(&given);
    same(&kept, &afresh).unwrap();
    assert!(kept.plans.contains_key(&wanted) && pair.compiler.held() > held);
    pair.wanted.clear();
    let (kept, afresh) = pair.compile(&given);
    same(&kept, &afresh).unwrap();
    assert!(!kept.plans.contains_key(&wanted));
    assert_eq!(pair.compiler.held(), held);
}

#[test]
fn r191_another_kept_root_arranges_the_listeners_that_show_an_identity_and_nothing_else() {
    let mut own = world(TWO);
    let mut pair = Pair::new();
    trust(&mut own, true);
    pair.options.kept_root = KeptRoot::Missing;
    pair.step(&own).unwrap();
    pair.options.kept_root = ROOTS[3].clone();
    let given = pair.put(&own);
    let (before, afresh) = pair.compile(&given);
    same(&before, &afresh).unwrap();
    let step = pair.compiler.last();
    assert!(!step.is_restart, "the kept root is a part like any other");
    assert_eq!((step.lowered, step.bindings, step.trees, step.listeners), (0, 0, 0, 1));
    let secrets = |compiled: &Compiled| compiled.plans.values().map(|plan| plan.secrets.len()).sum::<usize>();
    assert_eq!(secrets(&before), 2, "an identity and its roots");
    pair.options.kept_root = ROOTS[4].clone();
    let (after, afresh) = pair.compile(&given);
    same(&after, &afresh).unwrap();
    assert_eq!(kept_hosts(&before, &after), [true, true]);
    assert!(before.plans.values().ne(after.plans.values()), "another signer");
    // Where no listener shows an identity, nobody asks.
    let plain = world(TWO);
    pair.step(&plain).unwrap();
    pair.options.kept_root = ROOTS[3].clone();
    pair.step(&plain).unwrap();
    assert_eq!(pair.compiler.last(), Step::default());
}

#[test]
fn r191_a_secret_that_a_root_names_is_read_again_when_it_changes() {
    let mut own = world(TWO);
    let mut pair = Pair::new();
    trust(&mut own, false);
    let secret = own.pop().expect("the Secret is last");
    pair.step(&own).unwrap();
    own.push(secret);
    let given = pair.put(&own);
    let (kept, afresh) = pair.compile(&given);
    same(&kept, &afresh).unwrap();
    assert!(kept.inputs.trust().is_ok(), "it was missing, and is there now");
    assert_eq!((pair.compiler.last().trees, pair.compiler.last().listeners), (0, 1));
}

#[test]
fn r140_what_a_deleted_table_kept_is_remembered_while_a_file_is_unread_and_forgotten_after() {
    let mut own = world(TWO);
    freeze_some(&mut own, 1);
    let mut pair = Pair::new();
    pair.step(&own).unwrap();
    assert_eq!(pair.remembered.accepted.len(), 2);
    own.retain(|(_, object)| object["metadata"]["name"] != "b");
    pair.play(&Around::Unread(true));
    pair.step(&own).unwrap();
    assert_eq!(pair.remembered.accepted.len(), 2, "nobody knows whether it is gone");
    pair.play(&Around::Unread(false));
    pair.step(&own).unwrap();
    assert_eq!(pair.remembered.accepted.len(), 1);
    assert_eq!(pair.compiler.last().trees, 0, "no other tree is looked at");
}

#[test]
fn r130_r140_a_policy_that_comes_closes_what_a_frozen_tree_keeps() {
    let mut own = world(TWO);
    freeze_some(&mut own, 1);
    let mut pair = Pair::new();
    pair.step(&own).unwrap();
    find(&mut own, "RouteTable", "b", "shop")["spec"]["http"][0]["forwardTo"]["destinations"][0]["ref"] =
        json!({"name": "nobody"});
    pair.step(&own).unwrap();
    let frozen = |pair: &Pair| pair.compiler.kept.made.trees.values().filter(|tree| tree.frozen.is_some()).count();
    assert_eq!(frozen(&pair), 1);
    own.push(("cluster-1".to_owned(), json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {"name": "guard", "namespace": "b"}, "spec": {"applyToRoutes": [{"route": {"labels": {"team": "b"}}}]},
    })));
    let given = pair.put(&own);
    let (kept, afresh) = pair.compile(&given);
    same(&kept, &afresh).unwrap();
    assert_eq!((pair.compiler.last().trees, frozen(&pair)), (1, 1));
    let closed = kept.plans.values().flat_map(|plan| plan.listeners.values()).flat_map(|listener| listener.routes());
    assert_eq!(closed.filter(|route| route.body.fault.is_some()).count(), 1);
}
