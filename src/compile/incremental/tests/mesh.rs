//! Clients inside the clusters, in scripts.

use proptest::sample::Index;
use serde_json::{Value, json};

use crate::testing::mutation::World;

use super::replace;

/// An east-west gateway or what one serves, beside a Service, in place of what was there.
pub(super) fn mesh(world: &mut World, beside: Index, which: Index) {
    let services: Vec<&(String, Value)> = world.iter().filter(|(_, object)| object["kind"] == "Service").collect();
    if services.is_empty() {
        return;
    }
    let (cluster, service) = beside.get(&services);
    let (name, namespace) = (&service["metadata"]["name"], &service["metadata"]["namespace"]);
    let port = &service["spec"]["ports"][0]["port"];
    let metadata = |name: &str, labels: Value| json!({"name": name, "namespace": namespace, "labels": labels});
    let gateway = |labels: Value, ports: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("east", labels),
            "spec": {"selector": {"app": "east"}, "ports": ports},
        })
    };
    let ports = json!([
        {"name": "tls", "port": 15443}, {"name": "http", "port": 80, "targetPort": 8080}, {"name": "more", "port": 9000},
    ]);
    let vd = |name: &str, host: &str, port: Value, labels: Value| {
        json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualDestination", "metadata": metadata(name, labels),
            "spec": {"hosts": [host], "services": [{"namespace": namespace}], "ports": [port]},
        })
    };
    let http = |number: u16| json!({"number": number, "protocol": "HTTP", "targetPort": {"number": port}});
    let tcp = json!({"number": 80, "protocol": "TCP", "targetPort": {"number": port}});
    let table = |name: &str, spec: Value| json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable", "metadata": metadata(name, json!({})), "spec": spec});
    let forward = json!({"destinations": [{"ref": {"name": name}, "port": {"number": port}}]});
    let pod = |name: &str, address: &str, account: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(name, json!({"app": "one"})),
            "spec": {"serviceAccountName": account}, "status": {"podIPs": [{"ip": address}]},
        })
    };
    let settings = |options: Value| {
        json!({
            "apiVersion": "admin.gloo.solo.io/v2", "kind": "WorkspaceSettings", "metadata": metadata("mesh-settings", json!({})),
            "spec": {"options": options, "importFrom": [{"workspaces": [{}]}], "exportTo": [{"workspaces": [{}]}]},
        })
    };
    let objects = [
        gateway(json!({"istio": "eastwestgateway"}), ports.clone()),
        gateway(json!({"istio": "eastwestgateway"}), json!([{"name": "tls", "port": 15443}])),
        gateway(json!({"app": "east"}), ports),
        vd("mesh-one", "one.mesh", http(80), json!({"a": "b"})),
        vd("mesh-one", "two.mesh", http(9000), json!({})),
        vd("mesh-two", "one.mesh", http(80), json!({})),
        vd("mesh-two", "one.mesh", tcp, json!({})),
        table("mesh-table", json!({"hosts": ["one.mesh", "*.mesh"], "http": [{"forwardTo": forward}]})),
        table(
            "mesh-table",
            json!({"hosts": ["two.mesh"], "workloadSelectors": [{"selector": {"labels": {"a": "b"}}}], "http": [{"forwardTo": forward}]}),
        ),
        table(
            "mesh-table",
            json!({"hosts": ["raw.mesh"], "tcp": [{"matchers": [{"port": 9000}], "forwardTo": forward}]}),
        ),
        pod("client-one", "10.7.0.1", "one"),
        pod("client-one", "10.7.0.2", "two"),
        pod("client-two", "10.7.0.1", "one"),
        settings(json!({})),
        settings(json!({"federation": {"enabled": true, "hostSuffix": "global"}})),
        settings(json!({"eastWestGateways": [{"selector": {"labels": {"app": "east"}}, "port": {"name": "tls"}}]})),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    replace(world, object);
}
