use serde_json::json;

use super::*;
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
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
";

/// Routes copy what policies say, so a large policy on many entries would be the end of every gateway that has them.
#[test]
fn what_policies_come_to_on_routes_has_an_end() {
    /// Of about a mebibyte in each entry, on as many entries as there may be, one less than half of them and the rest.
    const ENTRIES: [usize; 3] = [10, 30, 40];
    let headers: serde_json::Map<String, serde_json::Value> =
        (0..64).map(|index| (format!("x-{index}"), json!("v".repeat(16_384)))).collect();
    let route = |name: &str, entries: usize, labels: serde_json::Value| {
        let matchers: Vec<_> =
            (0..entries).map(|index| json!({"uri": {"exact": format!("/{name}/{index}")}})).collect();
        json!({"name": name, "labels": labels, "matchers": matchers, "directResponse": {"status": 200}})
    };
    let mut manifests = yaml::documents(WORLD).expect("the world is YAML");
    let large = json!({"large": "yes"});
    manifests.push(json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "www", "namespace": "shop"},
        "spec": {"hosts": ["www.example"], "virtualGateways": [{"name": "web"}], "http": [
            route("first", ENTRIES[0], large.clone()), route("second", ENTRIES[1], large.clone()),
            route("third", ENTRIES[2], large), route("bare", 1, json!({})),
        ]},
    }));
    manifests.push(json!({
        "apiVersion": "trafficcontrol.policy.gloo.solo.io/v2", "kind": "HeaderManipulationPolicy",
        "metadata": {"name": "large", "namespace": "shop"},
        "spec": {
            "applyToRoutes": [{"route": {"labels": {"large": "yes"}}}], "config": {"appendResponseHeaders": headers},
        },
    }));
    let compiled =
        compile_manifests(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)), &Options::default());
    let plan = compiled.plans.values().next().expect("a gateway");
    let mut found: Vec<(&str, Option<Code>)> = Vec::new();
    for route in plan.listeners.values().flat_map(|listener| listener.routes()) {
        let name = route.body.chain.last().map_or("", |hop| hop.route.as_str());
        found.push((name, route.body.fault.as_ref().map(|fault| fault.code)));
    }
    found.dedup();
    let closed = Some(Code::LimitExceeded);
    assert_eq!(found, [("first", None), ("second", None), ("third", closed), ("bare", None)]);
    let told = compiled.findings.iter().find(|finding| finding.code == Code::LimitExceeded).expect("a finding");
    assert!(told.message.contains("route `third` answers 500") && told.message.contains("shop/large"), "{told:?}");
}
