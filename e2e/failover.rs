//! Three clusters, two of them near each other: the nearest serves, and the next takes over when it dies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::crossing::place;
use crate::support::backend::Backend;
use crate::support::chancery::Settings;
use crate::support::http::{Client, Request};
use crate::support::manifests::Manifest;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, RunningGateway, Speech};
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// What is there once.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: apps}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: apps, labels: {app: web}}
spec: {nodeName: node}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: apps}
spec: {services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: OutlierDetectionPolicy
metadata: {name: cart, namespace: apps}
spec:
  applyToDestinations: [{kind: VIRTUAL_DESTINATION}]
  config: {consecutiveErrors: 2, interval: 100ms, baseEjectionTime: 1s}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: FailoverPolicy
metadata: {name: cart, namespace: apps}
spec:
  applyToDestinations: [{kind: VIRTUAL_DESTINATION}]
  config: {}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: apps}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: cart, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

/// What is in each cluster.
const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: node, labels: {topology.kubernetes.io/region: REGION, topology.kubernetes.io/zone: ZONE}}
---
apiVersion: v1
kind: Service
metadata: {name: ew, namespace: apps, labels: {istio: eastwestgateway}}
spec: {selector: {app: ew}, ports: [{name: tls, port: 15443, targetPort: 15443}]}
status: {loadBalancer: {ingress: [{ip: 10.9.0.2}]}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: apps, labels: {app: cart}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: apps, labels: {kubernetes.io/service-name: cart}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.1.0.11], nodeName: node, targetRef: {kind: Pod, name: cart-0}}]
";

async fn start() -> anyhow::Result<Mesh> {
    let root = Root::new("root")?;
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    manifests.extend([root.secret("ca"), policy(&from_secret())]);
    for (cluster, region, zone) in [("cluster-1", "eu", "a"), ("cluster-2", "eu", "b"), ("cluster-3", "us", "c")] {
        manifests.push(place(json!({
            "apiVersion": "admin.gloo.solo.io/v2", "kind": "KubernetesCluster",
            "metadata": {"name": cluster, "namespace": "gloo-mesh", "annotations": {"in": "mgmt"}},
        })));
        let own = yaml::documents(&CLUSTER.replace("REGION", region).replace("ZONE", zone))?.into_iter();
        manifests.extend(own.map(|object| Manifest { cluster: cluster.to_owned(), object }));
    }
    let mut mesh = Mesh::start(manifests, Settings::default()).await?;
    for running in mesh.gateways.iter_mut().filter(|running| running.gateway.service == "ew") {
        // Nobody comes through the one in the first cluster.
        if running.gateway.cluster != "cluster-1" {
            let port = *running.gateway.ports.keys().next().context("no port")?;
            let address = running.address(port)?;
            running.envoy.listens(address).await?;
        }
    }
    Ok(mesh)
}

fn web(mesh: &Mesh) -> anyhow::Result<SocketAddr> {
    mesh.gateways.iter().find(|running| running.gateway.service == "web").context("no gateway")?.address(80)
}

/// The cluster that answers a request; a failure is none.
async fn answer(client: &mut Client) -> Option<String> {
    let response =
        client.send(&Request::get("shop.example", "/")).await.ok().filter(|response| response.status == 200)?;
    response.json().ok()?["cluster"].as_str().map(str::to_owned)
}

/// How another cluster came to answer.
struct Takeover {
    /// How long after the first request it was.
    after: Duration,
    /// How many requests failed until then.
    failed: usize,
}

impl Takeover {
    /// For who runs the test with `--nocapture`; how long it takes is judged nowhere.
    #[expect(clippy::print_stdout, reason = "a measurement is to be read")]
    fn is_told(&self, what: &str) {
        println!("{what}: after {} ms, {} requests failed", self.after.as_millis(), self.failed);
    }
}

/// Asks until sixteen answers in a row come from one cluster.
async fn settles_on(mesh: &Mesh, cluster: &str) -> anyhow::Result<Takeover> {
    let (mut client, started, mut in_a_row) = (Client::new(web(mesh)?), Instant::now(), 0);
    let mut takeover = Takeover { after: Duration::ZERO, failed: 0 };
    while in_a_row < 16 {
        ensure!(
            started.elapsed() < PATIENCE,
            mesh.with_logs(anyhow::anyhow!("no answers of {cluster}, {} failed", takeover.failed))
        );
        match answer(&mut client).await {
            Some(found) if found == cluster => {
                if in_a_row == 0 {
                    takeover.after = started.elapsed();
                }
                in_a_row += 1;
            }
            Some(_) => in_a_row = 0,
            None => {
                takeover.failed += 1;
                in_a_row = 0;
            }
        }
    }
    Ok(takeover)
}

/// Waits until all ways are open, so that what is measured afterwards is nothing else.
async fn settled(mesh: &Mesh) -> anyhow::Result<()> {
    settles_on(mesh, "cluster-1").await?;
    let is_healthy = |line: &&str| line.starts_with("vd/") && line.ends_with("::health_flags::healthy");
    until(PATIENCE, "three endpoints", async || {
        let running = mesh.gateways.iter().find(|running| running.gateway.service == "web");
        let running = running.ok_or("no gateway".to_owned())?;
        match running.envoy.admin("/clusters").await {
            Ok(text) if text.lines().filter(is_healthy).count() == 3 => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    settles_on(mesh, "cluster-1").await.map(drop)
}

/// Ends the backend of a cluster as a crash does; what is needed to start it again.
fn kill(mesh: &mut Mesh, cluster: &str) -> anyhow::Result<(crate::support::backend::Identity, SocketAddr)> {
    let at = mesh.backends.iter().position(|backend| backend.identity.cluster == cluster).context("no backend")?;
    let backend = mesh.backends.remove(at);
    Ok((backend.identity.clone(), backend.address))
}

/// The own cluster serves, then the one in the same region, then the far one; and each gives back what is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn r173_the_nearest_serve_and_others_take_over_and_give_back() -> anyhow::Result<()> {
    let mut mesh = start().await?;
    settled(&mesh).await?;

    let first = kill(&mut mesh, "cluster-1")?;
    settles_on(&mesh, "cluster-2").await?.is_told("the local copy is killed, and the second cluster takes over");
    let second = kill(&mut mesh, "cluster-2")?;
    // Two errors end it, and what is asked until all workers know; one who asks after the other, so few.
    let third = settles_on(&mesh, "cluster-3").await?;
    third.is_told("the second copy is killed, and the third cluster takes over");
    ensure!(third.failed < 20, "{} requests failed until the third cluster took over", third.failed);
    mesh.backends.push(Backend::start(second.0, second.1).await?);
    settles_on(&mesh, "cluster-2").await?.is_told("the second copy is back");
    mesh.backends.push(Backend::start(first.0, first.1).await?);
    settles_on(&mesh, "cluster-1").await?.is_told("the local copy is back");
    Ok(())
}

/// The gateway of a cluster stands for all of it: when it dies, its Pods are out of reach, and the next cluster takes over.
#[tokio::test(flavor = "multi_thread")]
async fn r173_the_next_cluster_takes_over_when_a_gateway_dies() -> anyhow::Result<()> {
    let mut mesh = start().await?;
    settled(&mesh).await?;
    kill(&mut mesh, "cluster-1")?;
    settles_on(&mesh, "cluster-2").await?;

    let is_it = |running: &RunningGateway| running.gateway.cluster == "cluster-2" && running.gateway.service == "ew";
    let at = mesh.gateways.iter().position(is_it).context("no gateway")?;
    // Dropped, it is killed.
    let RunningGateway { gateway, bind, .. } = mesh.gateways.remove(at);
    let third = settles_on(&mesh, "cluster-3").await?;
    third.is_told("the gateway of the second cluster is killed, and the third takes over");
    ensure!(third.failed < 20, "{} requests failed until the third cluster took over", third.failed);

    let port = *gateway.ports.keys().next().context("no port")?;
    let fresh = mesh.join(&gateway, bind, &Speech::default()).await?;
    let address = fresh.address(port)?;
    fresh.envoy.listens(address).await?;
    let back = settles_on(&mesh, "cluster-2").await?;
    back.is_told("the gateway is back");
    // Who is tried again too early is left alone for longer; nobody notices but by the place of the answer.
    ensure!(back.failed == 0, "{} requests failed while the second cluster came back", back.failed);
    Ok(())
}

/// Lets gateways in Europe send to other places.
fn lead(mesh: &mut Mesh, to: &Value) -> anyhow::Result<()> {
    mesh.edit("FailoverPolicy/apps/cart@cluster-1", |object| {
        object["spec"]["config"] = json!({"localityMappings": [{"from": {"region": "eu"}, "to": to}]});
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn r176_requests_go_where_a_policy_leads_them() -> anyhow::Result<()> {
    let mut mesh = start().await?;
    settles_on(&mesh, "cluster-1").await?;
    lead(&mut mesh, &json!([{"region": "us", "weight": 100}]))?;
    settles_on(&mesh, "cluster-3").await?;
    // Without weights the own region comes first.
    lead(&mut mesh, &json!([{"region": "us"}]))?;
    settles_on(&mesh, "cluster-1").await?;
    kill(&mut mesh, "cluster-1")?;
    settles_on(&mesh, "cluster-2").await?;
    kill(&mut mesh, "cluster-2")?;
    settles_on(&mesh, "cluster-3").await?;
    Ok(())
}
