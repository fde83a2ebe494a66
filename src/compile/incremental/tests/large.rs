//! One root table with many child tables: what an edit of one of them leaves alone, and what it does not.

use super::*;
use crate::testing::{cluster_of, yaml};

/// More than it takes to keep a virtual host in pieces.
const CHILDREN: usize = 20;

/// Everything around the tables.
const AROUND: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}, {name: a}]}]}
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
apiVersion: v1
kind: Service
metadata: {name: one, namespace: a}
spec: {selector: {app: one}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: a}
spec: {selector: {app: two}, ports: [{port: 80}]}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: HeaderManipulationPolicy
metadata: {name: headers, namespace: a}
spec:
  applyToRoutes: [{route: {labels: {marked: yes}}}]
  config: {appendResponseHeaders: {x-marked: yes}}
";

/// How the root table finds its children.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Finding {
    /// Each by a route of its own, below a path of its own.
    EachBelowItsPath,
    /// Each by a route of its own, all below the same path.
    Each,
    /// All by one route.
    Together,
    /// All by one route, in the order of how specific they are.
    Sorted,
}

fn table(name: &str, spec: &Value) -> (String, Value) {
    let namespace = if name == "root" { "edge" } else { "a" };
    let table = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": name, "namespace": namespace, "labels": {"below": "root"}}, "spec": spec,
    });
    ("cluster-1".to_owned(), table)
}

fn world(finding: Finding) -> World {
    world_of(finding, CHILDREN)
}

fn world_of(finding: Finding, children: usize) -> World {
    let delegates: Vec<Value> = match finding {
        Finding::Together => vec![json!({"delegate": {"routeTables": [{"labels": {"below": "root"}}]}})],
        Finding::Sorted => vec![json!({
            "delegate": {"routeTables": [{"labels": {"below": "root"}}], "sortMethod": "ROUTE_SPECIFICITY"},
        })],
        Finding::Each | Finding::EachBelowItsPath => (0..children)
            .map(|child| {
                let path = if finding == Finding::Each { "/".to_owned() } else { format!("/{child}/") };
                json!({
                    "matchers": [{"uri": {"prefix": path}}],
                    "delegate": {"routeTables": [{"name": format!("t{child}"), "namespace": "a"}]},
                })
            })
            .collect(),
    };
    let root = json!({"hosts": ["large.example"], "virtualGateways": [{"name": "web"}], "http": delegates});
    let documents = yaml::documents(AROUND).expect("YAML");
    let around = documents.into_iter().map(|object| (cluster_of(&object), object));
    let children = (0..children).map(|child| {
        let http =
            [route("one", "prefix", &format!("/own-{child}")), route("two", "exact", &format!("/other-{child}"))];
        table(&format!("t{child}"), &json!({"http": http}))
    });
    around.chain([table("root", &root)]).chain(children).collect()
}

fn route(service: &str, how: &str, path: &str) -> Value {
    json!({
        "name": service, "matchers": [{"uri": {how: path}}],
        "forwardTo": {"destinations": [{"ref": {"name": service}, "port": {"number": 80}}]},
    })
}

fn child<'w>(world: &'w mut World, name: &str) -> &'w mut Value {
    let mut tables = world.iter_mut().filter(|(_, object)| object["kind"] == "RouteTable");
    let (_, table) = tables.find(|(_, object)| object["metadata"]["name"] == name).expect("there is a table");
    table
}

/// For each piece of the virtual host, whether it is the very same as before.
fn kept_pieces(before: &Compiled, after: &Compiled) -> Vec<bool> {
    let pieces = |compiled: &Compiled| {
        let plan = compiled.plans.values().next().expect("a gateway").clone();
        let hosts: Vec<_> = plan.listeners.values().flat_map(|listener| listener.virtual_hosts()).cloned().collect();
        hosts.iter().flat_map(|host| host.routes.pieces().to_vec()).collect::<Vec<_>>()
    };
    pieces(before).iter().zip(&pieces(after)).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
}

#[test]
fn an_edit_of_one_table_of_many_makes_its_routes_alone() {
    // Few are arranged as a whole, and what comes of it is shared all the same.
    for (finding, children) in
        [(Finding::EachBelowItsPath, CHILDREN), (Finding::Together, CHILDREN), (Finding::EachBelowItsPath, 5)]
    {
        let mut world = world_of(finding, children);
        let mut pair = Pair::new();
        let given = pair.put(&world);
        let (before, _) = pair.compile(&given);
        assert_eq!(before.plans.values().next().unwrap().upstreams.len(), 2);
        child(&mut world, "t3")["spec"]["http"][0] = route("two", "prefix", "/new");
        let given = pair.put(&world);
        let (after, afresh) = pair.compile(&given);
        same(&after, &afresh).unwrap();
        let step = pair.compiler.last();
        let made = (step.trees, step.fragments, step.pieces, step.hosts, step.upstreams);
        assert_eq!(made, (1, 2, 1, 1, 0), "{finding:?}: the table and what delegates to it");
        let kept = kept_pieces(&before, &after);
        assert_eq!(kept.len(), children, "{finding:?}");
        let position = kept.iter().position(|is_kept| !is_kept);
        let others = kept.iter().filter(|is_kept| **is_kept).count();
        assert_eq!((position.is_some(), others), (true, children - 1), "{finding:?} of {children}");
    }
}

#[test]
fn r91_a_table_that_goes_leaves_nothing_behind() {
    let mut world = world(Finding::Together);
    let mut pair = Pair::new();
    pair.step(&world).unwrap();
    let held = pair.compiler.held();
    for turn in 0..5 {
        let mut more = child(&mut world, "t3").clone();
        more["metadata"]["name"] = json!(format!("more-{turn}"));
        world.push(("cluster-1".to_owned(), more));
        pair.step(&world).unwrap();
        assert!(pair.compiler.held() > held);
        world.pop();
        pair.step(&world).unwrap();
        assert_eq!(pair.compiler.held(), held);
    }
}

/// Routes that get into each other's way now and then.
fn routes() -> impl Strategy<Value = Vec<Value>> {
    let path = prop::sample::select(vec!["/", "/a", "/a/b", "/a/bc", "/b", "/own-3", "/own-3/x", "/other-5", "/own-"]);
    let how = prop::sample::select(vec!["prefix", "exact", "regex"]);
    let service = prop::sample::select(vec!["one", "two", "missing"]);
    let own =
        (path, how, service, any::<bool>(), any::<bool>()).prop_map(|(path, how, service, has_method, is_marked)| {
            let mut route = route(service, how, path);
            if has_method {
                route["matchers"][0]["method"] = json!("GET");
            }
            if is_marked {
                route["labels"] = json!({"marked": "yes"});
            }
            route
        });
    prop::collection::vec(own, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r2_tables_of_a_large_tree_that_hide_each_other_are_as_if_compiled_from_scratch(
        finding in prop::sample::select(vec![Finding::EachBelowItsPath, Finding::Each, Finding::Together, Finding::Sorted]),
        script in prop::collection::vec((0..CHILDREN, routes(), 0..12_u8), 1..10),
    ) {
        let first = world(finding);
        let mut world = first.clone();
        let mut pair = Pair::new();
        pair.step(&world)?;
        for (position, routes, how) in script {
            let name = format!("t{position}");
            match how {
                // Back to what it was.
                0..3 => {
                    let mut first = first.clone();
                    *child(&mut world, &name) = child(&mut first, &name).clone();
                }
                3 => child(&mut world, &name)["spec"]["weight"] = json!(position),
                4 => child(&mut world, &name)["metadata"]["labels"] = json!({"below": "nobody", "marked": "yes"}),
                5 => {
                    let to = json!({"delegate": {"routeTables": [{"name": format!("t{}", (position + 1) % CHILDREN), "namespace": "a"}]}});
                    child(&mut world, &name)["spec"]["http"] = json!([to]);
                }
                6 => {
                    let http = child(&mut world, "root")["spec"]["http"].as_array_mut().expect("routes");
                    http.rotate_left(1);
                    http.extend(routes);
                }
                _ => child(&mut world, &name)["spec"]["http"] = json!(routes),
            }
            pair.step(&world)?;
        }
    }
}
