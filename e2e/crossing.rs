//! Two clusters, each on a network of its own: requests go to both through an east-west gateway, and nobody else gets in there.

mod bad_input;
mod identities;
mod pods;
mod sharing;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::support::chancery::Settings;
use crate::support::http::{Client, Protocol, Request, get};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::Manifest;
use crate::support::tls::{Dial, Pair, TlsFront};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// An ingress gateway in `cluster-1`, an east-west gateway in `cluster-2`, and a cart in each; `stock` is in `cluster-2` alone,
/// and nobody sends to it.
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
spec: {options: {federation: {enabled: true}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: raw, port: 9000, targetPort: 9000}]}
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
metadata: {name: cart, namespace: apps, labels: {app: cart}, annotations: {in: cluster-2}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: apps, labels: {kubernetes.io/service-name: cart}, annotations: {in: cluster-2}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.2.0.11], targetRef: {kind: Pod, name: cart-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: apps, annotations: {in: cluster-2}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: apps}
spec: {services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}, {number: 81, protocol: HTTP2, targetPort: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: apps}]
  http:
    - name: two
      matchers: [{uri: {prefix: /two}}]
      forwardTo: {destinations: [{ref: {name: cart, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 81}}]}
    - name: there
      matchers: [{uri: {prefix: /there}}]
      forwardTo: {destinations: [{ref: {name: cart, namespace: apps, cluster: cluster-2}, port: {number: 80}}]}
    - name: all
      forwardTo: {destinations: [{ref: {name: cart, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}
";

/// Who the ingress gateway is.
const WEB: &str = "spiffe://cluster-1/ns/apps/sa/default";
const STRANGER: &str = "spiffe://cluster-1/ns/apps/sa/stranger";
const CART: &str = "outbound_.80_._.cart.apps.svc.cluster-2";
const STOCK: &str = "outbound_.80_._.stock.apps.svc.cluster-2";

pub(crate) fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

async fn start(root: &Root) -> anyhow::Result<Mesh> {
    start_with(root, "", &Speech::default()).await
}

/// The same with further objects, and gateways that talk in a way of their own.
async fn start_with(root: &Root, further: &str, speech: &Speech<'_>) -> anyhow::Result<Mesh> {
    Mesh::start_speaking(world(root, further)?, Settings::default(), speech).await
}

/// The objects.
pub(crate) fn world(root: &Root, further: &str) -> anyhow::Result<Vec<Manifest>> {
    let documents = yaml::documents(WORLD)?.into_iter().chain(yaml::documents(further)?);
    let mut manifests: Vec<Manifest> = documents.map(place).collect();
    manifests.extend([root.secret("ca"), policy(&from_secret())]);
    Ok(manifests)
}

fn gateway(mesh: &Mesh, service: &str) -> anyhow::Result<SocketAddr> {
    let running = mesh.gateways.iter().find(|running| running.gateway.service == service).context("no gateway")?;
    let port = running.gateway.ports.keys().next().context("no port")?;
    running.address(*port)
}

/// The clusters that answer a path of the ingress gateway, with how often each of 24 requests got there.
async fn answers(mesh: &Mesh, path: &str) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    let mut client = Client::new(gateway(mesh, "web")?);
    for _ in 0..24 {
        let response = client.send(&Request::get("shop.example", path)).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        let echo = response.json()?;
        ensure!(echo["host"] == "shop.example" && echo["path"] == path, "{echo}");
        *found.entry(echo["cluster"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(found)
}

/// Waits until exactly these clusters answer.
async fn answer_from(mesh: &Mesh, path: &str, clusters: &[&str]) -> anyhow::Result<()> {
    until(PATIENCE, &format!("answers of {clusters:?}"), async || match answers(mesh, path).await {
        Ok(found) if found.keys().eq(clusters) => Ok(()),
        Ok(found) => Err(Not::Yet(format!("{found:?}"))),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// A request to the east-west gateway by somebody who says who he is, on a connection of its own.
async fn ask(mesh: &Mesh, server_name: &str, root: &Root, shows: Option<&Pair>) -> anyhow::Result<u16> {
    let dial = Dial::under(&root.certificate, shows)?.asking(Some(server_name), Protocol::Http1)?;
    let mut client = Client::with_tls(gateway(mesh, "ew")?, Protocol::Http1, dial);
    Ok(client.send(&Request::get("shop.example", "/")).await?.status)
}

/// Stands on the way to an address, and keeps what it is sent.
struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    task: AbortHandle,
}

impl Tap {
    async fn start(address: SocketAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await?;
                    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
                    let returns = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                    let mut buffer = vec![0; 16 << 10];
                    loop {
                        let count = from.read(&mut buffer).await?;
                        if count == 0 {
                            break;
                        }
                        kept.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
                        to.write_all(&buffer[..count]).await?;
                    }
                    drop(to);
                    returns.await?.map(drop)
                });
            }
        })
        .abort_handle();
        Ok(Self { address, seen, task })
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// How many listeners and clusters the gateways have taken and changed, in their order.
async fn made(mesh: &Mesh) -> anyhow::Result<Vec<BTreeMap<String, u64>>> {
    let counted = r"(listener|cluster)_(added|modified|removed)$";
    let mut all = Vec::new();
    for running in &mesh.gateways {
        let counts = running.envoy.stats(counted).await?;
        ensure!(counts.contains_key("cluster_manager.cluster_added"), "{counts:?}");
        all.push(counts);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn r178_to_r182_requests_cross_and_nobody_else_gets_in() -> anyhow::Result<()> {
    let (root, foreign) = (Root::new("root")?, Root::new("foreign")?);
    let mesh = start(&root).await?;
    let all = ["cluster-1", "cluster-2"];
    answer_from(&mesh, "/", &all).await?;
    answer_from(&mesh, "/two", &all).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;
    // R172: one Pod here and one there.
    let shares = answers(&mesh, "/").await?;
    ensure!(shares.values().all(|share| *share >= 6), "{shares:?}");
    // R163: HTTP/2 up to the Pod, where the port says so.
    let mut client = Client::new(gateway(&mesh, "web")?);
    for _ in 0..8 {
        let echo = client.send(&Request::get("shop.example", "/two")).await?.json()?;
        ensure!(echo["protocol"] == "HTTP/2.0", "{echo}");
    }
    let there = client.send(&Request::get("shop.example", "/there").header("x-forwarded-for", "203.0.113.9")).await?;
    let echo = there.json()?;
    ensure!(echo["protocol"] == "HTTP/1.1", "{echo}");
    // The chain of addresses ends with the client of the first gateway, as if there were no second.
    let addresses: Vec<&str> = echo["headers"]["x-forwarded-for"].as_str().unwrap_or_default().split(',').collect();
    ensure!(addresses.len() == 2 && addresses[0] == "203.0.113.9", "{echo}");

    let (web, stranger) = (root.identity(WEB)?, root.identity(STRANGER)?);
    assert_eq!(ask(&mesh, CART, &root, Some(&web)).await?, 200, "who has a path gets through");
    let dial = Dial::under(&root.certificate, Some(&web))?.asking(Some(CART), Protocol::Http1)?;
    assert_eq!(dial.uris(gateway(&mesh, "ew")?).await?, ["spiffe://cluster-2/ns/apps/sa/default"]);
    ensure!(get(gateway(&mesh, "ew")?, "shop.example", "/").await.is_err(), "plaintext gets in");
    // Each is told why; where nothing is exposed, the connection ends at the first word.
    for (server_name, root, shows, told, who) in [
        (CART, &root, None, "CertificateRequired", "a gateway without a certificate"),
        (CART, &root, Some(foreign.identity(WEB)?), "UnknownCA", "one of another root"),
        (CART, &root, Some(stranger), "CertificateUnknown", "one that has no path to the Service"),
        (STOCK, &root, Some(root.identity(WEB)?), "handshake", "one that asks for what nobody exposes"),
        ("shop.example", &root, Some(root.identity(WEB)?), "handshake", "one that asks for something else"),
        (CART, &foreign, Some(root.identity(WEB)?), "UnknownIssuer", "one that trusts another root"),
    ] {
        let answer = ask(&mesh, server_name, root, shows.as_ref()).await;
        ensure!(answer.is_err(), "{who} gets in: {answer:?}");
        let dial = Dial::under(&root.certificate, shows.as_ref())?.asking(Some(server_name), Protocol::Http1)?;
        let refused = dial.refusal(gateway(&mesh, "ew")?).await?;
        ensure!(refused.contains(told), "{who}: {told} is not in {refused}");
    }
    // The gateway counts whom it refuses for what.
    let called = mesh.gateways.iter().find(|running| running.gateway.service == "ew").context("no gateway")?;
    let counted = called.envoy.stats("ssl.fail_verify").await?;
    for reason in ["no_cert", "error", "san"] {
        let name = format!("ssl.fail_verify_{reason}");
        ensure!(counted.iter().any(|(stat, count)| stat.ends_with(&name) && *count > 0), "{name}: {counted:?}");
    }
    Ok(())
}

/// What passes between the clusters is seen on the way, by somebody in between.
#[tokio::test(flavor = "multi_thread")]
async fn r178_r185_r194_what_crosses_cannot_be_read_on_the_way_nor_taken_by_another() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;
    let at = SocketAddr::from((mesh.free_address("cluster-2")?, 0));
    let tap = Tap::start(at, gateway(&mesh, "ew")?).await?;
    let (address, port) = (tap.address.ip().to_string(), tap.address.port());
    let load = Load::start_with(
        {
            let web = gateway(&mesh, "web")?;
            move || Client::new(web)
        },
        Lasts::OneRequest,
        2,
        Pace::PerSecond(40),
        vec![Request::get("shop.example", "/there/and-back").header("x-secret", "do-not-read-me")],
        |_, response| {
            ensure!(response.status == 200, "{} {}", response.status, response.text());
            Ok(())
        },
    );
    mesh.edit("WorkspaceSettings/apps/team@cluster-1", |object| {
        object["spec"]["options"]["eastWestGateways"] = json!([{
            "selector": {"labels": {"istio": "eastwestgateway"}, "cluster": "cluster-2"},
            "hostInfoOverrides": [{"addr": address, "port": port}],
        }]);
    })?;
    until(PATIENCE, "traffic at the new address", async || match tap.seen().len() {
        0..4096 => Err(Not::Yet("nothing".to_owned())),
        _ => Ok(()),
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    load.goes_on(40).await?;
    load.tally().await?.is_flawless()?;
    let seen = tap.seen();
    // A TLS handshake, and in the open only what is asked for.
    ensure!(seen.starts_with(&[0x16, 0x03]) && has(&seen, CART), "{:?}", &seen[..64]);
    for text in ["and-back", "do-not-read-me", "shop.example", "HTTP/1.1"] {
        ensure!(!has(&seen, text), "{text} is in the open");
    }

    // R194: a gateway of a third cluster that stands there is not the second's, and one of the second is.
    let backend = mesh.backends.iter().find(|backend| backend.identity.cluster == "cluster-2").context("no backend")?;
    let backend = backend.address;
    for (identity, expected) in [("spiffe://cluster-3/ns/apps/sa/ew", 503), ("spiffe://cluster-2/ns/apps/sa/ew", 200)] {
        let at = SocketAddr::from((mesh.free_address("cluster-2")?, 15_443));
        let _front = TlsFront::start(at, &root.identity(identity)?, backend).await?;
        mesh.edit("WorkspaceSettings/apps/team@cluster-1", |object| {
            object["spec"]["options"]["eastWestGateways"][0]["hostInfoOverrides"] =
                json!([{"addr": at.ip().to_string(), "port": at.port()}]);
        })?;
        let request = Request::get("shop.example", "/there");
        until(PATIENCE, &format!("{expected} by {identity}"), async || {
            match Client::new(gateway(&mesh, "web").map_err(|error| error.to_string())?).send(&request).await {
                Ok(response) if response.status == expected => Ok(()),
                other => Err(Not::Yet(format!("{other:?}"))),
            }
        })
        .await
        .map_err(|error| mesh.with_logs(error))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_r171_the_other_cluster_serves_while_there_is_nothing_here_and_goes_with_its_registration()
-> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    let slice = |cluster: &str| format!("EndpointSlice/apps/cart-1@{cluster}");
    let web = gateway(&mesh, "web")?;
    let load = Load::start(web, 4, Pace::PerSecond(60), vec![Request::get("shop.example", "/")], |_, response| {
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    });
    // Its Pod ends as Pods do: first nobody is sent there, then it goes. No gateway gets another listener or cluster for it.
    let made = made(&mesh).await?;
    mesh.edit(&slice("cluster-1"), |object| object["endpoints"][0]["conditions"] = json!({"ready": false}))?;
    answer_from(&mesh, "/", &["cluster-2"]).await?;
    mesh.edit(&slice("cluster-1"), |object| object["endpoints"][0]["conditions"] = json!({"ready": true}))?;
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    assert_eq!(self::made(&mesh).await?, made);

    // Another Envoy takes over at another address: traffic follows.
    let old = mesh.gateways.iter().position(|running| running.gateway.service == "ew").context("no gateway")?;
    let (ew, bind) = (mesh.gateways[old].gateway.clone(), mesh.free_address("cluster-2")?);
    let port = *ew.ports.keys().next().context("no port")?;
    mesh.join(&ew, bind, &Speech::default()).await?.envoy.listens(SocketAddr::from((bind, port))).await?;
    mesh.edit("Service/apps/ew@cluster-2", |object| {
        object["status"]["loadBalancer"]["ingress"] = json!([{"ip": bind.to_string()}]);
    })?;
    let fresh = mesh.gateways.len() - 1;
    until(PATIENCE, "connections at the new gateway", async || {
        let stats = mesh.gateways[fresh].envoy.stats("downstream_rq_completed").await;
        let stats = stats.map_err(|error| Not::Yet(format!("{error:#}")))?;
        match stats.values().any(|count| *count > 0) {
            true => Ok(()),
            false => Err(Not::Yet(format!("{stats:?}"))),
        }
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    load.goes_on(60).await?;
    load.tally().await?.is_flawless()?;
    drop(mesh.gateways.remove(old));
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    // The same with the Pod of the other cluster.
    let made = self::made(&mesh).await?;
    mesh.edit(&slice("cluster-2"), |object| object["endpoints"][0]["conditions"] = json!({"ready": false}))?;
    answer_from(&mesh, "/", &["cluster-1"]).await?;
    mesh.edit(&slice("cluster-2"), |object| object["endpoints"][0]["conditions"] = json!({"ready": true}))?;
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    assert_eq!(self::made(&mesh).await?, made);

    // R11: without its registration a cluster has no part in anything.
    let index = mesh.manifests.iter().position(|m| m.key() == "KubernetesCluster/gloo-mesh/cluster-2@mgmt");
    std::fs::remove_file(&mesh.files[index.context("no cluster")?])?;
    answer_from(&mesh, "/", &["cluster-1"]).await?;
    Ok(())
}
