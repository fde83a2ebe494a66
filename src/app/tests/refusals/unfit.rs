//! What stands in for a refused listener, and the rest of the snapshot: together they must be fit to be sent.

use std::sync::LazyLock;

use super::*;
use crate::snapshot::verify::verify;

/// A gateway that ends TLS; `CERTIFICATE` is what it shows.
const HOSTS: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {selector: {app: web}, ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: v1
kind: Secret
metadata: {name: shop, namespace: edge}
---
apiVersion: v1
kind: Secret
metadata: {name: poison, namespace: edge}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners:
    - {http: {}, port: {number: 443}, tls: {mode: SIMPLE, secretName: CERTIFICATE}, allowedRouteTables: [{host: shop.example}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: edge}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: edge}]
  http: [{name: front, matchers: [{uri: {prefix: PATH}}], directResponse: {status: 200}}]
";

const LISTENER: &str = "listener/8443";
const SHOP: &str = "secret/cluster-1/edge/shop";
const POISON: &str = "secret/cluster-1/edge/poison";

/// A certificate and its key, the same in all edits.
static PAIR: LazyLock<serde_json::Value> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("a certificate");
    json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()})
});

/// All objects, with the certificate of the host and the path of its route.
fn hosts(certificate: &str, path: &str) -> Event {
    let text = HOSTS.replace("CERTIFICATE", certificate).replace("PATH", path);
    let manifests = yaml::documents(&text).expect("YAML").into_iter().map(|mut manifest| {
        if manifest["kind"] == "Secret" {
            manifest["stringData"] = PAIR.clone();
        }
        (cluster_of(&manifest), manifest)
    });
    let (objects, findings) = decode(manifests);
    assert_eq!(findings, []);
    Event::Source(Batch { extent: Extent::Complete, changes: objects.into_iter().map(Change::Put).collect(), findings })
}

#[test]
fn a_refused_certificate_leaves_the_listener_as_it_was_and_the_new_secret_behind() {
    let mut world = world(GOOD);
    world.compiler.step(std::iter::once(hosts("shop", "/a")));
    let mut envoy = world.connect(1, 40, "poison");
    envoy.only = Some(ResourceType::Listener);
    assert!(envoy.holds(ResourceType::Listener, LISTENER) && envoy.holds(ResourceType::Secret, SHOP));
    world.compiler.step(std::iter::once(hosts("poison", "/new")));
    world.settle(&mut [&mut envoy]);

    let served = world.publisher.current(&key(40)).expect("a snapshot");
    assert_eq!(verify(&served), []);
    assert_eq!(served.resources(ResourceType::Secret).keys().collect::<Vec<_>>(), [SHOP]);
    assert!(String::from_utf8_lossy(&served.get(ResourceType::Listener, LISTENER).unwrap().body).contains(SHOP));
    assert!(
        String::from_utf8_lossy(&served.resources(ResourceType::Route).values().next().unwrap().body).contains("/new")
    );
    assert!(envoy.holds(ResourceType::Secret, SHOP) && !envoy.holds(ResourceType::Secret, POISON));
    // One that connects now has a listener that works.
    let mut late = world.connect(2, 40, "poison");
    assert!(late.holds(ResourceType::Listener, LISTENER));
    let not_in_force = world.publisher.not_in_force(&key(40));
    let (refused, withheld) = not_in_force.first_key_value().expect("a listener");
    assert_eq!((refused, &*withheld.message), (&(ResourceType::Listener, LISTENER.into()), WORDS));

    world.compiler.step(std::iter::once(hosts("shop", "/new")));
    world.settle(&mut [&mut envoy, &mut late]);
    assert!(world.publisher.not_in_force(&key(40)).is_empty());
}
