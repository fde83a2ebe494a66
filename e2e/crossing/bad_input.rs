//! What somebody wrote wrongly is told to him with what to do, while everything else goes on crossing.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{answer_from, gateway, place, start};
use crate::support::chancery;
use crate::support::http::Request;
use crate::support::load::{Load, Pace};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;
use crate::trust::Root;

/// What is wrong, each in an object of its own, which is told at `told`; the code, and a part of the words.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: first, namespace: apps, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {hosts: [same.mesh], services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: second, namespace: apps, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {hosts: [same.mesh], services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
",
        "VirtualDestination/apps/second@cluster-1",
        "BEATEN_BY_OLDER",
        "choose another host",
    ),
    (
        "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: portless, namespace: apps}
spec: {services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP, targetPort: {number: 99}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: portless, namespace: apps}
spec:
  hosts: [portless.example]
  virtualGateways: [{name: web, namespace: apps}]
  http: [{forwardTo: {destinations: [{ref: {name: portless}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
",
        "VirtualDestination/apps/portless@cluster-1",
        "BACKEND_LEFT_OUT",
        "has no port 99; write 80",
    ),
    (
        "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: empty, namespace: apps}
spec: {hosts: [empty.mesh], services: [{labels: {app: nobody}}], ports: [{number: 80, protocol: HTTP}]}
",
        "VirtualDestination/apps/empty@cluster-1",
        "BACKEND_LEFT_OUT",
        "compare the selectors with names and labels",
    ),
    (
        "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: double, namespace: apps}
spec: {hosts: [double.mesh], services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: ExternalService
metadata: {name: double, namespace: apps}
spec: {hosts: [double.mesh], ports: [{number: 80, protocol: HTTP}]}
",
        "ExternalService/apps/double@cluster-1",
        "POLICY_REMARK",
        "whose kind goes before; choose another host",
    ),
    (
        "
apiVersion: networking.gloo.solo.io/v2
kind: ExternalService
metadata: {name: wild, namespace: apps}
spec: {hosts: ['*.pay.example'], ports: [{number: 80, protocol: HTTP}]}
",
        "ExternalService/apps/wild@cluster-1",
        "INVALID_FIELD",
        "let `selector` pick external endpoints",
    ),
    (
        "
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: apps, labels: {istio: eastwestgateway}, annotations: {in: cluster-2}}
spec: {selector: {app: bare}, ports: [{name: http, port: 80, targetPort: 8080}]}
status: {loadBalancer: {ingress: [{ip: 10.9.0.3}]}}
",
        "Service/apps/bare@cluster-2",
        "NO_EAST_WEST_GATEWAY",
        "has neither of the two ports",
    ),
    (
        "
apiVersion: admin.gloo.solo.io/v2
kind: RootTrustPolicy
metadata: {name: younger, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {config: {mgmtServerCa: {secretRef: {name: gone}}}}
",
        "RootTrustPolicy/gloo-mesh/younger@mgmt",
        "BEATEN_BY_OLDER",
        "delete one of them",
    ),
];

/// Waits until an object has a finding.
async fn is_told(mesh: &Mesh, object: &str, code: &str, words: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("{code} of {object}"), async || {
        let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
        let items = list(&status, "/items").iter().filter(|item| text(item, "/object") == object);
        let mut findings = items.flat_map(|item| list(item, "/findings"));
        let is_it = |finding: &Value| text(finding, "/code") == code && text(finding, "/message").contains(words);
        if findings.any(is_it) { Ok(()) } else { Err(Not::Yet(status.to_string())) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// Waits until nothing is said of an object.
async fn is_silent(mesh: &Mesh, object: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("no word of {object}"), async || {
        let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
        let mut items = list(&status, "/items").iter();
        if items.any(|item| text(item, "/object") == object) { Err(Not::Yet(status.to_string())) } else { Ok(()) }
    })
    .await
}

/// R136, R160 to R165, R185, R191, R200.
#[tokio::test(flavor = "multi_thread")]
async fn r136_mistakes_are_told_and_disturb_nobody_else() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    let both = ["cluster-1", "cluster-2"];
    answer_from(&mesh, "/", &both).await?;
    answer_from(&mesh, "/two", &both).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;
    let paths = ["/", "/two", "/there"].map(|path| Request::get("shop.example", path)).to_vec();
    let load = Load::start(gateway(&mesh, "web")?, 4, Pace::PerSecond(80), paths, |_, response| {
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    });
    for (objects, told, code, words) in MISTAKES {
        let objects: Vec<Manifest> = yaml::documents(objects)?.into_iter().map(place).collect();
        let files = manifests::write(mesh.directory(), &objects)?;
        is_told(&mesh, told, code, words).await?;
        load.goes_on(10).await?;
        for file in files {
            std::fs::remove_file(file)?;
        }
        is_silent(&mesh, told).await?;
    }
    // An authority that cannot be read is not trusted, and the others are.
    const POLICY: &str = "RootTrustPolicy/gloo-mesh/root@mgmt";
    let broken = place(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "broken", "namespace": "gloo-mesh", "annotations": {"in": "mgmt"}},
        "stringData": {"ca.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    }));
    manifests::write(mesh.directory(), &[broken])?;
    mesh.edit(POLICY, |object| {
        object["spec"]["config"]["passiveCertificateAuthorities"] = json!([{"secretRef": {"name": "broken"}}]);
    })?;
    is_told(&mesh, POLICY, "CERTIFICATE", "this authority is not trusted").await?;
    load.goes_on(20).await?;
    load.end().await.map_err(|error| mesh.with_logs(error))?;
    answer_from(&mesh, "/", &both).await
}
