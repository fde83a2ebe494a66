//! What crosses, and by which way: whole connections, gateways known by name, and clusters whose objects are out of reach.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Tap, WEB, answer_from, answers, ask, gateway, start, start_with};
use crate::support::chancery;
use crate::support::dns::Dns;
use crate::support::http::{Client, Request};
use crate::support::load::{Load, Pace};
use crate::support::net::Network;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::trust::Root;

/// A queue in both clusters, whole connections to which come in at the ingress gateway, and at the east-west gateway of the other
/// cluster from a Pod there.
const QUEUE: &str = "
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: raw, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{tcp: {}, port: {number: 9000}}]}
---
apiVersion: v1
kind: Service
metadata: {name: queue, namespace: apps, labels: {app: queue}}
spec: {ports: [{name: tcp, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: queue-1, namespace: apps, labels: {kubernetes.io/service-name: queue}}
ports: [{name: tcp, port: 9081}]
endpoints: [{addresses: [10.1.0.21], targetRef: {kind: Pod, name: queue-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: queue, namespace: apps, labels: {app: queue}, annotations: {in: cluster-2}}
spec: {ports: [{name: tcp, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: queue-1, namespace: apps, labels: {kubernetes.io/service-name: queue}, annotations: {in: cluster-2}}
ports: [{name: tcp, port: 9081}]
endpoints: [{addresses: [10.2.0.21], targetRef: {kind: Pod, name: queue-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: queue, namespace: apps, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  hosts: [queue.mesh]
  services: [{labels: {app: queue}}]
  ports: [{number: 9000, protocol: TCP, targetPort: {number: 80}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: apps}
spec:
  hosts: [queue.example]
  virtualGateways: [{name: raw, namespace: apps}]
  tcp: [{forwardTo: {destinations: [{ref: {name: queue, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 9000}}]}}]
";

/// The east-west gateway of the ingress gateway's cluster, which serves Pods there, and such a Pod.
const INSIDE: &str = "
apiVersion: v1
kind: Service
metadata: {name: inner, namespace: apps, labels: {istio: eastwestgateway}}
spec: {selector: {app: inner}, ports: [{name: tls, port: 15443, targetPort: 15443}, {name: raw, port: 9000, targetPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: batch-0, namespace: apps}
status: {phase: Running, podIPs: [{ip: 10.1.0.31}]}
";

const SNI: &str = "tcp_.80_._.queue.apps.svc.cluster-2";

/// Waits until whole connections end in exactly these clusters.
async fn connections_end_in(mesh: &Mesh, client: impl Fn() -> Client, clusters: &[&str]) -> anyhow::Result<()> {
    until(PATIENCE, &format!("connections to {clusters:?}"), async || {
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..16 {
            let answer = client().send(&Request::get("queue.example", "/")).await;
            let answer = answer.map_err(|error| Not::Yet(format!("{error:#}")))?;
            let echo = answer.json().map_err(|error| Not::Yet(format!("{error:#}")))?;
            found.insert(echo["cluster"].as_str().unwrap_or_default().to_owned());
        }
        if found.iter().eq(clusters) { Ok(()) } else { Err(Not::Yet(format!("{found:?}"))) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

fn address(mesh: &Mesh, service: &str, port: u16) -> anyhow::Result<SocketAddr> {
    mesh.gateways.iter().find(|running| running.gateway.service == service).context("no gateway")?.address(port)
}

/// R183, R188: whole connections of users and of Pods go to both clusters, a direct route to one, and nobody else gets in.
#[tokio::test(flavor = "multi_thread")]
async fn r183_whole_connections_cross_as_requests_do() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start_with(&root, &format!("{QUEUE}---{INSIDE}"), &Speech::default()).await?;
    let both = ["cluster-1", "cluster-2"];
    let raw = address(&mesh, "web", 9000)?;
    connections_end_in(&mesh, || Client::new(raw), &both).await?;
    let pod = mesh.manifests.iter().find(|manifest| manifest.name() == "batch-0").context("no Pod")?;
    let pod = crate::support::manifests::text(&pod.object, "/status/podIPs/0/ip").parse()?;
    let inner = address(&mesh, "inner", 9000)?;
    connections_end_in(&mesh, || Client::from(pod, inner), &both).await?;
    let stranger = mesh.free_address("cluster-1")?;
    // There are federated hosts on that port as well, so he is told that there is nothing for him.
    let answer = Client::from(stranger, inner).send(&Request::get("queue.example", "/")).await?;
    assert_eq!(answer.status, 404, "who is no Pod");

    // The gateway in front of it lets in whom the compiler gave a path.
    assert_eq!(ask(&mesh, SNI, &root, Some(&root.identity(WEB)?)).await?, 200);
    let stranger = root.identity("spiffe://cluster-1/ns/apps/sa/stranger")?;
    for (shows, who) in [(None, "nobody in particular"), (Some(&stranger), "a gateway without a path")] {
        let answer = ask(&mesh, SNI, &root, shows).await;
        ensure!(answer.is_err(), "{who} gets in: {answer:?}");
    }

    // The far copy ends as Pods do, and is back.
    let slice = "EndpointSlice/apps/queue-1@cluster-2";
    mesh.edit(slice, |object| object["endpoints"][0]["conditions"] = json!({"ready": false}))?;
    connections_end_in(&mesh, || Client::new(raw), &["cluster-1"]).await?;
    mesh.edit(slice, |object| object["endpoints"][0]["conditions"] = json!({"ready": true}))?;
    connections_end_in(&mesh, || Client::new(raw), &both).await?;

    // R156: the Service of the other cluster, by name.
    mesh.edit("RouteTable/apps/raw@cluster-1", |object| {
        object["spec"]["tcp"][0]["forwardTo"]["destinations"] =
            json!([{"ref": {"name": "queue", "namespace": "apps", "cluster": "cluster-2"}, "port": {"number": 80}}]);
    })?;
    connections_end_in(&mesh, || Client::new(raw), &["cluster-2"]).await
}

/// A second Pod of the cart in `cluster-2`, and whole connections to the same Service port for those who come in at port 9000,
/// once the table names that gateway.
const BOTH_KINDS: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-2, namespace: apps, labels: {kubernetes.io/service-name: cart}, annotations: {in: cluster-2}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.2.0.12], targetRef: {kind: Pod, name: cart-1}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: raw, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{tcp: {}, port: {number: 9000}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: raw, namespace: apps}
spec: {services: [{labels: {app: cart}}], ports: [{number: 9000, protocol: TCP, targetPort: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: apps}
spec:
  hosts: [raw.example]
  virtualGateways: [{name: not-yet, namespace: apps}]
  tcp: [{forwardTo: {destinations: [{ref: {name: raw, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 9000}}]}}]
";

/// The Pods of `cluster-2` that answer the requests of one connection.
async fn pods_of_one_connection(mesh: &Mesh) -> anyhow::Result<std::collections::BTreeSet<String>> {
    let mut client = Client::new(gateway(mesh, "web")?);
    let mut found = std::collections::BTreeSet::new();
    for _ in 0..32 {
        let response = client.send(&Request::get("shop.example", "/there")).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        found.insert(response.json()?["pod"].as_str().unwrap_or_default().to_owned());
    }
    Ok(found)
}

/// Who sends whole connections to a Service port leaves the requests of others what they are: balanced one by one, and
/// not interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn r183_requests_and_whole_connections_to_one_port_cross_beside_each_other() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start_with(&root, BOTH_KINDS, &Speech::default()).await?;
    let both = ["cart-0".to_owned(), "cart-1".to_owned()].into();
    until(PATIENCE, "the requests of a connection to be balanced", async || {
        let found = pods_of_one_connection(&mesh).await.map_err(|error| Not::Yet(format!("{error:#}")))?;
        if found == both { Ok(()) } else { Err(Not::Yet(format!("{found:?}"))) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    let requests = ["/there", "/two"].iter().map(|path| Request::get("shop.example", path)).collect();
    let load = Load::start(gateway(&mesh, "web")?, 4, Pace::PerSecond(100), requests, |_, response| {
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    });

    mesh.edit("RouteTable/apps/raw@cluster-1", |object| {
        object["spec"]["virtualGateways"] = json!([{"name": "raw", "namespace": "apps"}]);
    })?;
    let raw = address(&mesh, "web", 9000)?;
    connections_end_in(&mesh, || Client::new(raw), &["cluster-1", "cluster-2"]).await?;
    assert_eq!(pods_of_one_connection(&mesh).await?, both, "requests are balanced as before");
    let web = root.identity(WEB)?;
    for name in ["outbound_.80_._.cart.apps.svc.cluster-2", "tcp_.80_._.cart.apps.svc.cluster-2"] {
        assert_eq!(ask(&mesh, name, &root, Some(&web)).await?, 200, "{name}");
        let stranger = ask(&mesh, name, &root, Some(&root.identity("spiffe://cluster-1/ns/apps/sa/stranger")?)).await;
        ensure!(stranger.is_err(), "{name}: a gateway without a path gets in: {stranger:?}");
    }
    load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))
}

/// Waits until something passes by here.
async fn is_used(mesh: &Mesh, tap: &Tap) -> anyhow::Result<()> {
    until(PATIENCE, "traffic at the address of the name", async || match tap.seen().len() {
        0..1024 => Err(Not::Yet("nothing".to_owned())),
        _ => Ok(()),
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// R184: the address of a gateway may be a name, as load balancers have it; traffic follows where it leads.
#[tokio::test(flavor = "multi_thread")]
async fn r184_a_gateway_is_found_by_name_and_followed_where_the_name_leads() -> anyhow::Result<()> {
    let (root, network) = (Root::new("root")?, Network::claim()?);
    let dns = Dns::start(network.next_address()?).await?;
    let mut mesh = start_with(&root, "", &Speech { dns: Some(&dns), ..Speech::default() }).await?;
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    let ew = gateway(&mesh, "ew")?;
    let (first, second) = (mesh.free_address("cluster-2")?, mesh.free_address("cluster-2")?);
    let (one, two) = (
        Tap::start(SocketAddr::from((first, ew.port())), ew).await?,
        Tap::start(SocketAddr::from((second, ew.port())), ew).await?,
    );
    let web = gateway(&mesh, "web")?;
    let paths = vec![Request::get("shop.example", "/"), Request::get("shop.example", "/there")];
    let load = Load::start(web, 4, Pace::PerSecond(60), paths, |_, answer| {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    });
    load.goes_on(20).await?;
    dns.set("ew.example", &[first]);
    mesh.edit("Service/apps/ew@cluster-2", |object| {
        object["status"]["loadBalancer"]["ingress"] = json!([{"hostname": "ew.example"}]);
    })?;
    is_used(&mesh, &one).await?;
    load.goes_on(20).await?;
    dns.set("ew.example", &[second]);
    is_used(&mesh, &two).await?;
    load.goes_on(20).await?;
    load.end().await.map_err(|error| mesh.with_logs(error))?;
    assert_eq!(answers(&mesh, "/there").await?.len(), 1);

    // Nobody has the name any more: what is here serves, and what is there is told to be away.
    dns.set("ew.example", &[]);
    answer_from(&mesh, "/", &["cluster-1"]).await?;
    let there = Client::new(web).send(&Request::get("shop.example", "/there")).await?;
    assert_eq!(there.status, 503, "{}", there.text());
    dns.set("ew.example", &[first]);
    answer_from(&mesh, "/", &["cluster-1", "cluster-2"]).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await
}

/// Adds a route to the table of the first cluster, and waits until it is served.
async fn serves(mesh: &mut Mesh, path: &str) -> anyhow::Result<()> {
    mesh.edit("RouteTable/apps/shop@cluster-1", |object| {
        let route = json!({"matchers": [{"uri": {"prefix": path}}], "directResponse": {"status": 204}});
        object["spec"]["http"].as_array_mut().expect("routes").insert(0, route);
    })?;
    let web = gateway(mesh, "web")?;
    until(PATIENCE, "the new route", async || match Client::new(web).send(&Request::get("shop.example", path)).await {
        Ok(response) if response.status == 204 => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}

/// R11: what was known of a cluster stays while its objects are out of reach, and goes with its registration.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_cluster_out_of_reach_keeps_its_endpoints_until_it_is_removed() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    let both = ["cluster-1", "cluster-2"];
    answer_from(&mesh, "/", &both).await?;
    // As it is with a mount: the folder of the cluster leads elsewhere.
    let (folder, mounted) = (mesh.directory().join("cluster-2"), mesh.directory().join(".mounted"));
    std::fs::rename(&folder, &mounted)?;
    std::os::unix::fs::symlink(&mounted, &folder)?;
    // The folder was gone for a moment; what is written after it is seen after it.
    serves(&mut mesh, "/mounted").await?;
    answer_from(&mesh, "/", &both).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;

    let paths = vec![Request::get("shop.example", "/"), Request::get("shop.example", "/there")];
    let load = Load::start(gateway(&mesh, "web")?, 4, Pace::PerSecond(60), paths, |_, response| {
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    });
    let away = mesh.directory().join(".away");
    std::fs::rename(&mounted, &away)?;
    until(PATIENCE, "the loss to be told", async || {
        let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
        let told = status.to_string();
        if told.contains("cluster-2") && told.contains("stay in force") { Ok(()) } else { Err(Not::Yet(told)) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    // Edits elsewhere are served as ever.
    serves(&mut mesh, "/edited").await?;
    load.goes_on(40).await?;
    answer_from(&mesh, "/", &both).await?;
    load.end().await.map_err(|error| mesh.with_logs(error))?;

    // It is within reach again, and what happened there meanwhile counts.
    let slice = away.join("apps").join("endpointslice-cart-1.yaml");
    let written = std::fs::read_to_string(&slice).context("the slice")?;
    std::fs::remove_file(&slice)?;
    std::fs::rename(&away, &mounted)?;
    answer_from(&mesh, "/", &["cluster-1"]).await?;
    std::fs::write(mounted.join("apps").join("endpointslice-cart-1.yaml"), written)?;
    answer_from(&mesh, "/", &both).await?;

    // Out of reach again, and given up.
    std::fs::rename(&mounted, &away)?;
    let index = mesh.manifests.iter().position(|m| m.key() == "KubernetesCluster/gloo-mesh/cluster-2@mgmt");
    std::fs::remove_file(&mesh.files[index.context("no cluster")?])?;
    answer_from(&mesh, "/", &["cluster-1"]).await
}
