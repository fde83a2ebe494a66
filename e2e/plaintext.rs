//! A remote backend joins a group that serves already: nothing of that is ever in the open, and nobody notices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::crossing::place;
use crate::support::chancery::Settings;
use crate::support::http::{Client, Request};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::Manifest;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// How often the backend joins. The window that this looks for was open in three of eight attempts.
const ROUNDS: usize = 20;

/// What a connection over TLS begins with.
const HANDSHAKE: u8 = 0x16;

/// A gateway in `cluster-1` and an east-west gateway in `cluster-2`. The group has a backend in `cluster-1`; the one in
/// `cluster-2` lacks its label.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-2, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: apps}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: apps}
spec: {}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: ew, namespace: apps, labels: {istio: eastwestgateway}, annotations: {in: cluster-2}}
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
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: cart-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: apps, labels: {app: not-yet}, annotations: {in: cluster-2}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: apps, labels: {kubernetes.io/service-name: cart}, annotations: {in: cluster-2}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.2.0.11], targetRef: {kind: Pod, name: cart-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: apps}
spec: {services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: apps}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: cart, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

/// Stands before the east-west gateway. Connections that do not begin as TLS does are kept and end there.
struct Tap {
    address: SocketAddr,
    in_the_open: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Tap {
    async fn start(address: SocketAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let in_the_open: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&in_the_open);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut first = [0; 512];
                    let count = client.peek(&mut first).await?;
                    if count > 0 && first[0] != HANDSHAKE {
                        let count = client.read(&mut first).await?;
                        let text = String::from_utf8_lossy(&first[..count]).into_owned();
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                        return Ok(());
                    }
                    let mut server = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
                });
            }
        })
        .abort_handle();
        Ok(Self { address, in_the_open, task })
    }

    fn in_the_open(&self) -> Vec<String> {
        self.in_the_open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address_of(mesh: &Mesh, service: &str) -> anyhow::Result<SocketAddr> {
    let running = mesh.gateways.iter().find(|running| running.gateway.service == service).context("no gateway")?;
    running.address(*running.gateway.ports.keys().next().context("no port")?)
}

/// Waits until exactly these clusters answer, among requests that are sent one after the other.
async fn answer_from(mesh: &Mesh, clusters: &[&str]) -> anyhow::Result<()> {
    let web = address_of(mesh, "web")?;
    until(PATIENCE, &format!("answers of {clusters:?}"), async || {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut client = Client::new(web);
        for _ in 0..12 {
            let response = client.send(&Request::get("shop.example", "/")).await;
            let echo = response.and_then(|response| response.json());
            let echo = echo.map_err(|error| Not::Yet(format!("{error:#}")))?;
            *found.entry(echo["cluster"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        if found.keys().eq(clusters) { Ok(()) } else { Err(Not::Yet(format!("{found:?}"))) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// The endpoints of a cluster are named by its transports, so the cluster that is still there while the new one is warming
/// never sees the gateway of the other, which it would speak to in plaintext.
#[tokio::test(flavor = "multi_thread")]
async fn r178_r184_a_remote_backend_that_joins_is_never_spoken_to_in_plaintext() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    manifests.extend([root.secret("ca"), policy(&from_secret())]);
    let mut mesh = Mesh::start(manifests, Settings::default()).await?;
    answer_from(&mesh, &["cluster-1"]).await?;
    let at = SocketAddr::from((mesh.free_address("cluster-2")?, 0));
    let tap = Tap::start(at, address_of(&mesh, "ew")?).await?;
    mesh.edit("WorkspaceSettings/apps/team@cluster-1", |object| {
        object["spec"]["options"]["eastWestGateways"] = json!([{
            "selector": {"labels": {"istio": "eastwestgateway"}, "cluster": "cluster-2"},
            "hostInfoOverrides": [{"addr": tap.address.ip().to_string(), "port": tap.address.port()}],
        }]);
    })?;
    let web = address_of(&mesh, "web")?;
    let requests = vec![Request::get("shop.example", "/top-secret").header("x-secret", "do-not-read-me")];
    let load = Load::start_with(
        move || Client::new(web),
        Lasts::OneRequest,
        4,
        Pace::PerSecond(150),
        requests,
        |_, response| {
            ensure!(response.status == 200, "{} {}", response.status, response.text());
            Ok(())
        },
    );
    for _ in 0..ROUNDS {
        for (label, clusters) in [("cart", &["cluster-1", "cluster-2"][..]), ("not-yet", &["cluster-1"][..])] {
            mesh.edit("Service/apps/cart@cluster-2", |object| object["metadata"]["labels"] = json!({"app": label}))?;
            answer_from(&mesh, clusters).await?;
        }
        ensure!(tap.in_the_open().is_empty(), "in the open: {:?}", tap.in_the_open());
    }
    load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))
}
