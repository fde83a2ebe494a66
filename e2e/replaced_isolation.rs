//! An AccessPolicy in place of isolation, on a real Envoy: for what is behind another workspace's virtual destination, on the
//! gateway of a third.

use serde_json::{Value, json};

use crate::support::backend::{Backend, Identity};
use crate::support::chancery::{Settings, check};
use crate::support::http::{Client, Request};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;

/// `gate` owns the gateway, `front` the table and the virtual destination, and `back` what is behind it: an external service at
/// `$PORT`, and a Service. `back` is isolated and shares with `front` alone.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: gate, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: gate}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: front, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: front}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: back, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: back}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: gate, namespace: gate}
spec: {importFrom: [{workspaces: [{name: front}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: front, namespace: front}
spec: {exportTo: [{workspaces: [{name: gate}]}], importFrom: [{workspaces: [{name: back}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: back, namespace: back}
spec: {exportTo: [{workspaces: [{name: front}]}], options: {serviceIsolation: {enabled: true}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: gate}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: gate}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: ExternalService
metadata: {name: vendor, namespace: back, labels: {group: pay}}
spec: {addresses: [127.0.0.1], ports: [{name: http, number: 80, protocol: HTTP, targetPort: {number: $PORT}}]}
---
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: back, labels: {group: pay}}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bank-1, namespace: back, labels: {kubernetes.io/service-name: bank}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: bank-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: pay, namespace: front}
spec:
  hosts: [pay.example]
  services: [{labels: {group: pay}}]
  externalServices: [{labels: {group: pay}}]
  ports: [{number: 80, protocol: HTTP, targetPort: {number: 80}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: front}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: gate}]
  http: [{name: pay, forwardTo: {destinations: [{ref: {name: pay}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

/// A policy of `back` for its external service, or its Service, that lets clients read.
fn readers(kind: &str) -> Manifest {
    place(json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": kind.to_ascii_lowercase().replace('_', "-"), "namespace": "back"},
        "spec": {
            "applyToDestinations": [{"kind": kind, "selector": {"labels": {"group": "pay"}}}],
            "config": {"authzList": [{"allowedMethods": ["GET"]}]},
        },
    }))
}

/// R46, R167: without a policy there is no way to either; with one, what it says holds for each of them, and it opens no other.
#[tokio::test(flavor = "multi_thread")]
async fn r46_a_policy_replaces_isolation_behind_a_virtual_destination() -> anyhow::Result<()> {
    let identity = Identity { pod: "vendor".to_owned(), ..Identity::default() };
    let vendor = Backend::start(identity, ([127, 0, 0, 1], 0).into()).await?;
    let world = WORLD.replace("$PORT", &vendor.address.port().to_string());
    let mesh = Mesh::start(yaml::documents(&world)?.into_iter().map(place).collect(), Settings::default()).await?;
    let address = mesh.gateways[0].address(80)?;
    let bank = &mesh.backends[0];
    let received = || (vendor.requests(), bank.requests());
    let asked = |method: &str| Request { method: method.to_owned(), ..Request::get("shop.example", "/") };
    let becomes = async |method: &str, status: u16| {
        let mut client = Client::new(address);
        until(PATIENCE, &format!("{method} answered with {status}"), async || {
            let response = client.send(&asked(method)).await.map_err(|error| format!("{error:#}"))?;
            if response.status == status { Ok(()) } else { Err(Not::Yet(response.status.to_string())) }
        })
        .await
        .map_err(|error| mesh.with_logs(error))
    };
    becomes("GET", 503).await?;
    assert_eq!(received(), (0, 0), "isolated, and shared with the owner of the group only");
    let left_out = || -> anyhow::Result<String> {
        let (report, _) = check(mesh.directory(), &mesh.settings)?;
        let items = list(&report, "/items").iter();
        let mut found = items.filter(|item| text(item, "/object") == "VirtualDestination/front/pay@cluster-1");
        Ok(found.next().map(Value::to_string).unwrap_or_default())
    };
    let told = left_out()?;
    for object in ["ExternalService/back/vendor@cluster-1", "Service/back/bank@cluster-1"] {
        assert!(told.contains(&format!("`{object}` is left out on some gateways")), "{told}");
    }
    for (kind, is_opened) in [("EXTERNAL_SERVICE", [true, false]), ("SERVICE", [false, true])] {
        let files = manifests::write(mesh.directory(), &[readers(kind)])?;
        becomes("GET", 200).await?;
        let before = received();
        let mut client = Client::new(address);
        for _ in 0..10 {
            assert_eq!(client.send(&asked("GET")).await?.status, 200, "{kind}");
            assert_eq!(client.send(&asked("POST")).await?.status, 403, "{kind}");
        }
        let now = received();
        let got = [now.0 - before.0, now.1 - before.1];
        assert_eq!(
            got,
            is_opened.map(|is_open| if is_open { 10 } else { 0 }),
            "{kind}: those that it is for, and reading alone"
        );
        files.iter().try_for_each(std::fs::remove_file)?;
        becomes("GET", 503).await?;
    }
    Ok(())
}
