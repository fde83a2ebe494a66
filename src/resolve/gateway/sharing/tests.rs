use serde_json::{Value, json};

use super::*;
use crate::model::Severity;
use crate::resolve::Options;
use crate::testing::{cluster_of, compile_manifests, yaml};

const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: team}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: shop, namespace: shop}
spec: {importFrom: [{workspaces: [{name: team}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: team}
spec: {exportTo: [{workspaces: [{name: shop}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerConfig
metadata: {name: rules, namespace: shop, annotations: {chancery/rate-limiting: local}}
spec: {raw: {descriptors: [{key: who, rateLimit: {unit: MINUTE, requestsPerUnit: 5}}]}}
";

/// A policy for the routes with a label of its name; the larger `month`, the younger.
fn policy(name: &str, month: u32) -> Value {
    json!({
        "apiVersion": "trafficcontrol.policy.gloo.solo.io/v2", "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2024-{month:02}-01T00:00:00Z")},
        "spec": {"applyToRoutes": [{"route": {"labels": {"limit": name}}}], "config": {
            "ratelimitServerConfig": {"name": "rules"},
            "raw": {"rateLimits": [{"actions": [{"requestHeaders": {"headerName": "x-who", "descriptorKey": "who"}}]}]},
        }},
    })
}

/// What clients send fills numbers on every gateway, so these have an end: routes of whoever needs more than his part count
/// fewer values apart, and those of others as many as before.
#[test]
fn what_a_gateway_counts_by_itself_has_an_end() {
    let compiled = |hosts: &[&str], matchers: usize| {
        let mut manifests = yaml::documents(WORLD).expect("the world is YAML");
        let matchers: Vec<_> = (0..matchers).map(|index| json!({"uri": {"exact": format!("/{index}")}})).collect();
        let route = json!({"labels": {"limit": "who"}, "matchers": matchers, "directResponse": {"status": 200}});
        let one = json!({"labels": {"limit": "who"}, "directResponse": {"status": 200}});
        let table = |name: &str, namespace: &str, spec: Value| {
            json!({
                "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            })
        };
        let to = |namespace: &str| {
            json!({"matchers": [{"uri": {"prefix": format!("/{namespace}")}}],
            "delegate": {"routeTables": [{"name": namespace, "namespace": namespace}]}})
        };
        manifests.push(table(
            "www",
            "shop",
            json!({"hosts": hosts, "virtualGateways": [{"name": "web"}], "http": [to("team"), route]}),
        ));
        manifests.push(table("team", "team", json!({"http": [one]})));
        manifests.push(policy("who", 1));
        compile_manifests(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)), &Options::default())
    };
    let fewer = |compiled: &crate::compile::Compiled| -> Vec<(String, u32)> {
        let plan = compiled.plans.values().next().expect("a gateway");
        plan.extensions.values.iter().map(|(owner, values)| (owner.to_string(), *values)).collect()
    };
    let told = |compiled: &crate::compile::Compiled| -> Vec<(Severity, String)> {
        let told = compiled.findings.iter().filter(|finding| finding.code == Code::LimitExceeded);
        told.map(|finding| (finding.severity, finding.message.clone())).collect()
    };
    // Those of the matchers, and one on the same host of the other workspace.
    assert_eq!(fewer(&compiled(&["a.example"], 998)), []);
    // Twice as many on two hosts: of those of the workspace that needs little, none is counted less well.
    let two = compiled(&["a.example", "b.example"], 990);
    assert_eq!(fewer(&two), [("shop".to_owned(), 500)]);
    let messages = told(&two);
    let [(Severity::Warning, message)] = &messages[..] else { panic!("{messages:?}") };
    assert!(message.contains("`shop` have 1980 entries") && message.contains("the last 500 values"), "{message}");
    // However much there is, each counts some, and clients who take turns are told of.
    let hosts: Vec<String> = (0..60).map(|index| format!("{index}.example")).collect();
    let many = compiled(&hosts.iter().map(String::as_str).collect::<Vec<_>>(), 990);
    assert_eq!(fewer(&many), [("shop".to_owned(), 15)]);
    let messages = told(&many);
    assert!(matches!(&messages[..], [(Severity::Error, _)]), "{messages:?}");
}

/// Who needs little has it first, and what is left over the others share.
#[test]
fn room_is_shared_between_workspaces() {
    let shares = |needs: &[(&str, u64)]| -> Vec<u32> {
        let policy = ObjectRef::new(crate::model::Kind::RateLimitPolicy, "cluster-1", "shop", "p");
        let open = needs.iter().map(|(owner, own)| ((WorkspaceId((*owner).into()), policy.clone()), *own)).collect();
        let fewer = values(&"cluster-1/shop/web".parse().unwrap(), &open, &mut Findings::new());
        needs.iter().map(|(owner, _)| *fewer.get(&WorkspaceId((*owner).into())).unwrap_or(&MOST_VALUES)).collect()
    };
    for (needs, expected) in [
        (&[("a", 1000)][..], &[1000][..]),
        (&[("a", 1001)], &[500]),
        (&[("a", 500), ("b", 500)], &[1000, 1000]),
        (&[("a", 499), ("b", 502)], &[1000, 500]),
        // Of what `b` leaves, `a` and `c` have 450,000 each.
        (&[("a", 900), ("b", 100), ("c", 1800)], &[500, 1000, 250]),
        (&[("a", u64::MAX), ("b", 100), ("c", 1)], &[1, 1000, 1000]),
        (&[("a", 2_000_000)], &[1]),
    ] {
        assert_eq!(shares(needs), expected, "{needs:?}");
    }
}

/// A route for each form of a matcher counts by itself: preflights of one with a method have a route of their own.
#[test]
fn what_envoy_makes_several_routes_of_counts_several_times() {
    let entries = |cors: &[Value], matcher: Value| -> u64 {
        let mut manifests = yaml::documents(WORLD).expect("the world is YAML");
        let route = json!({"labels": {"limit": "who"}, "matchers": [matcher], "directResponse": {"status": 200}});
        manifests.push(json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": "www", "namespace": "shop"},
            "spec": {"hosts": ["a.example"], "virtualGateways": [{"name": "web"}], "http": [route]},
        }));
        manifests.push(policy("who", 1));
        manifests.extend(cors.iter().cloned());
        let compiled = compile_manifests(
            manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)),
            &Options::default(),
        );
        let tree = compiled.trees.values().next().expect("a tree");
        let all = tree.pieces().map(|piece| sharing(&compiled.inputs, tree, piece));
        all.flat_map(|sharing| sharing.open.into_values()).sum()
    };
    let cors = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "CORSPolicy",
        "metadata": {"name": "cors", "namespace": "shop"}, "spec": {"config": {"allowOrigins": [{"exact": "https://a"}]}},
    });
    let method = json!({"method": "POST", "uri": {"prefix": "/"}});
    assert_eq!(entries(&[], method.clone()), 1);
    assert_eq!(entries(std::slice::from_ref(&cors), method), 2);
    assert_eq!(entries(&[cors], json!({"uri": {"prefix": "/"}})), 1);
    let inverted = json!({"headers": [{"name": "x-a", "value": ".*", "regex": true, "invertMatch": true}]});
    assert_eq!(entries(&[], inverted), 2);
}
