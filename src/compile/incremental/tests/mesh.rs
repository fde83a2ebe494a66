//! Clients inside the clusters, in scripts.

use super::*;
use crate::testing::{cluster_of, yaml};

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
    let https = json!({"number": 80, "protocol": "HTTPS", "targetPort": {"number": port}});
    let passing = |name: &str| {
        let mut object = vd(name, "one.mesh", https.clone(), json!({}));
        object["spec"]["clientMode"] = json!({"sniRouting": {}});
        object
    };
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
        vd("mesh-two", "one.mesh", https.clone(), json!({})),
        passing("mesh-one"),
        passing("mesh-two"),
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
        settings(json!({"virtualDestClientMode": {"sniRouting": {}}})),
        settings(json!({"serviceIsolation": {"enabled": true}, "virtualDestClientMode": {"sniRouting": {}}})),
        settings(json!({"eastWestGateways": [{"selector": {"labels": {"app": "east"}}, "port": {"name": "tls"}}]})),
    ];
    let object = (cluster.clone(), which.get(&objects).clone());
    replace(world, object);
}

/// An east-west gateway, a team with a Service, a virtual destination and a Pod.
const INSIDE: &str = "
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
metadata: {name: east, namespace: edge, labels: {istio: eastwestgateway}}
spec: {selector: {app: east}, ports: [{name: tls, port: 15443}, {name: http, port: 80, targetPort: 8080}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: a}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: a}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: app, namespace: a}
spec: {hosts: [app.mesh], services: [{name: app}], ports: [{number: 80, protocol: HTTP}]}
";

fn inside() -> World {
    let documents = yaml::documents(INSIDE).expect("YAML");
    documents.into_iter().map(|document| (cluster_of(&document), document)).collect()
}

/// Compiles [`INSIDE`], adds an object, and compiles again; the result is what it is from scratch.
fn with_one_more(object: Value) -> (Compiled, Compiled, Step) {
    let mut world = inside();
    let mut pair = Pair::new();
    let given = pair.put(&world);
    let (before, _) = pair.compile(&given);
    assert_eq!(before.findings.to_vec(), [], "the world is well");
    world.push(("cluster-1".to_owned(), object));
    let given = pair.put(&world);
    let (after, afresh) = pair.compile(&given);
    same(&after, &afresh).unwrap();
    (before, after, pair.compiler.last())
}

/// R187.
#[test]
fn one_client_more_is_in_no_listener_and_makes_nothing_else() {
    let (before, after, step) = with_one_more(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two", "namespace": "a"},
        "status": {"podIPs": [{"ip": "10.0.0.2"}]},
    }));
    assert_eq!((step.trees, step.listeners, step.hosts, step.pieces), (0, 0, 0, 0));
    let ([before], [after]) = (&*before.plans.values().collect::<Vec<_>>(), &*after.plans.values().collect::<Vec<_>>())
    else {
        panic!("one gateway")
    };
    let count = |plan: &GatewayPlan| plan.clients.as_ref().map(|clients| clients.0.len());
    assert_eq!((count(before), count(after)), (Some(1), Some(2)));
    assert_eq!((&before.listeners, &before.upstreams), (&after.listeners, &after.upstreams));
}

/// R186: another virtual destination on a port that is in use costs its own host and tree.
#[test]
fn one_virtual_destination_more_makes_its_own_host() {
    let (_, after, step) = with_one_more(json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualDestination",
        "metadata": {"name": "other", "namespace": "a"},
        "spec": {"hosts": ["other.mesh"], "services": [{"name": "app"}], "ports": [{"number": 80, "protocol": "HTTP"}]},
    }));
    assert_eq!((step.trees, step.listeners, step.hosts, step.pieces), (1, 0, 1, 1));
    let hosts: usize =
        after.plans.values().flat_map(|plan| plan.listeners.values()).map(|own| own.virtual_hosts().count()).sum();
    assert_eq!(hosts, 2);
}

/// R152: from many federated Services on, settings are told what that costs.
#[test]
fn r152_many_federated_services_are_warned_of() {
    let mut world = inside();
    world.push((
        "cluster-1".to_owned(),
        json!({
            "apiVersion": "admin.gloo.solo.io/v2", "kind": "WorkspaceSettings",
            "metadata": {"name": "all", "namespace": "a"}, "spec": {"options": {"federation": {"enabled": true}}},
        }),
    ));
    let mut pair = Pair::new();
    // Two are there already.
    for (more, is_warned) in [(98, false), (99, true), (98, false)] {
        let mut now = world.clone();
        now.extend((0..more).map(|number| {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{number}"), "namespace": "a"},
                "spec": {"ports": [{"port": 80, "name": "http"}]},
            });
            ("cluster-1".to_owned(), service)
        }));
        let given = pair.put(&now);
        let (kept, afresh) = pair.compile(&given);
        same(&kept, &afresh).unwrap();
        let told = kept.findings.iter().filter(|finding| finding.message.contains("101 Services")).count();
        assert_eq!(told, usize::from(is_warned), "{more} more");
    }
}

/// R152: where federation is too much is told from one Service on, and not before; compiled in both ways.
#[test]
fn more_than_a_hundred_federated_services_are_told() {
    let settings = json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "WorkspaceSettings",
        "metadata": {"name": "all", "namespace": "a"}, "spec": {"options": {"federation": {
            "enabled": true, "serviceSelector": [{"namespace": "a"}],
        }}},
    });
    let service = |number: usize| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s-{number}"), "namespace": "a"},
            "spec": {"ports": [{"port": 80, "name": "http"}]},
        });
        ("cluster-1".to_owned(), service)
    };
    let mut world = inside();
    world.push(("cluster-1".to_owned(), settings));
    // With the one that is there.
    world.extend((1..100).map(service));
    let mut pair = Pair::new();
    let mut told = |world: &World| {
        let given = pair.put(world);
        let (kept, afresh) = pair.compile(&given);
        same(&kept, &afresh).unwrap();
        let about = kept.findings.about(&"WorkspaceSettings/a/all@cluster-1".parse().unwrap()).to_vec();
        about.into_iter().map(|finding| (finding.code, finding.field.to_string(), finding.message)).collect::<Vec<_>>()
    };
    assert_eq!(told(&world), []);
    world.push(service(100));
    let said = told(&world);
    let [(Code::PolicyRemark, field, message)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(field, "spec.options.federation.serviceSelector");
    assert!(message.contains("101 Services") && message.contains("select fewer Services"), "{message}");
    world.pop();
    assert_eq!(told(&world), []);
}
