use serde_json::{Value, json};

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

/// What clients send fills numbers on every gateway, so these have an end, and the oldest policies have the room.
#[test]
fn what_a_gateway_counts_by_itself_has_an_end() {
    let route = |name: &str, matchers: usize| {
        let matchers: Vec<_> =
            (0..matchers).map(|index| json!({"uri": {"exact": format!("/{name}/{index}")}})).collect();
        json!({"name": name, "labels": {"limit": name}, "matchers": matchers, "directResponse": {"status": 200}})
    };
    let compiled = |hosts: &[&str]| {
        let mut manifests = yaml::documents(WORLD).expect("the world is YAML");
        manifests.push(json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": "www", "namespace": "shop"},
            "spec": {"hosts": hosts, "virtualGateways": [{"name": "web"}],
                "http": [route("small", 10), route("old", 300), route("young", 200)]},
        }));
        manifests.extend([policy("small", 3), policy("young", 2), policy("old", 1)]);
        compile_manifests(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)), &Options::default())
    };
    let left_out = |compiled: &crate::compile::Compiled| -> Vec<String> {
        let plan = compiled.plans.values().next().expect("a gateway");
        plan.extensions.uncounted.iter().map(|policy| policy.name.to_string()).collect()
    };
    // 510 matchers of a thousand numbers, on one host.
    assert_eq!(left_out(&compiled(&["a.example"])), Vec::<String>::new());
    // On two hosts the oldest needs 600,000, the next 400,000 and the youngest 20,000.
    let two = compiled(&["a.example", "b.example"]);
    assert_eq!(left_out(&two), ["small"]);
    let told: Vec<&Finding> = two.findings.iter().filter(|finding| finding.code == Code::LimitExceeded).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].message.contains("this one needs 20000") && told[0].message.contains("room for 0"), "{told:?}");
    // Whoever does not fit leaves room to those who do.
    assert_eq!(left_out(&compiled(&["a.example", "b.example", "c.example"])), ["young"]);
}
