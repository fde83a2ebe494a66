//! Pods on the other side that end: those of a Service, the last one too, and those of a gateway.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{Tap, answer_from, gateway, start, start_with};
use crate::support::http::Request;
use crate::support::load::{Load, Pace};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::trust::Root;

/// How often the last Pod ends.
const ROUNDS: usize = 10;

const BOTH: [&str; 2] = ["cluster-1", "cluster-2"];

/// Requests that both clusters answer; none may fail.
fn load(mesh: &Mesh, path: &str) -> anyhow::Result<Load> {
    let requests = vec![Request::get("shop.example", path)];
    Ok(Load::start(gateway(mesh, "web")?, 8, Pace::PerSecond(400), requests, |_, response| {
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    }))
}

/// Waits until a gateway has an address among its endpoints.
async fn leads(mesh: &Mesh, service: &str, address: &str) -> anyhow::Result<()> {
    let running = mesh.gateways.iter().find(|running| running.gateway.service == service).context("no gateway")?;
    until(PATIENCE, &format!("{address} at {service}"), async || {
        let has = running.envoy.admin("/clusters").await.map_err(|error| Not::Ever(format!("{error:#}")))?;
        if has.contains(address) { Ok(()) } else { Err(Not::Yet(has)) }
    })
    .await
}

/// As Kubernetes ends a Pod: it is said to end, serves what is on its way, and is gone. As it begins one: it is there before
/// it is ready.
#[tokio::test(flavor = "multi_thread")]
async fn r171_r183_the_last_pod_of_a_cluster_ends_and_another_begins_under_load_and_no_request_fails()
-> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    answer_from(&mesh, "/", &BOTH).await?;
    let slice = "EndpointSlice/apps/cart-1@cluster-2";
    let pod = |mesh: &Mesh| -> anyhow::Result<Value> {
        let found = mesh.manifests.iter().find(|manifest| manifest.key() == slice).context("no slice")?;
        Ok(found.object["endpoints"][0].clone())
    };
    let pod = pod(&mesh)?;
    let address = pod["addresses"][0].as_str().context("no address")?.to_owned();
    let load = load(&mesh, "/")?;
    for _ in 0..ROUNDS {
        mesh.edit(slice, |object| {
            object["endpoints"][0]["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
        })?;
        answer_from(&mesh, "/", &BOTH[..1]).await?;
        load.goes_on(40).await?;
        mesh.edit(slice, |object| object["endpoints"] = json!([]))?;
        load.goes_on(40).await?;
        // Another comes, and says in its own time that it is ready.
        let mut new = pod.clone();
        new["conditions"] = json!({"ready": false});
        mesh.edit(slice, |object| object["endpoints"] = json!([new]))?;
        leads(&mesh, "ew", &address).await?;
        mesh.edit(slice, |object| object["endpoints"][0]["conditions"] = json!({"ready": true}))?;
        answer_from(&mesh, "/", &BOTH).await?;
    }
    load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))
}

/// A second gateway Service in `cluster-2`, which nobody takes for one yet, and its Pod, which is not ready.
const SPARE: &str = "
apiVersion: v1
kind: Service
metadata: {name: spare, namespace: apps, annotations: {in: cluster-2}}
spec: {selector: {app: spare}, ports: [{name: tls, port: 15443, targetPort: 15443}]}
status: {loadBalancer: {ingress: [{ip: 10.9.0.3}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: spare-0, namespace: apps, labels: {app: spare}, annotations: {in: cluster-2}}
status: {phase: Running, podIPs: [{ip: 10.2.0.31}], conditions: [{type: Ready, status: 'False'}]}
";

/// Somebody stands where the second gateway is said to be, and leads to the first: nothing comes by before a Pod is ready.
#[tokio::test(flavor = "multi_thread")]
async fn r171_a_gateway_without_a_ready_pod_gets_nothing() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start_with(&root, SPARE, &Speech::default()).await?;
    answer_from(&mesh, "/there", &["cluster-2"]).await?;
    let at = SocketAddr::from((mesh.free_address("cluster-2")?, 0));
    let tap = Tap::start(at, gateway(&mesh, "ew")?).await?;
    let load = load(&mesh, "/there")?;
    let address = tap.address;
    mesh.edit("Service/apps/spare@cluster-2", |object| {
        object["metadata"]["labels"] = json!({"istio": "eastwestgateway"});
        object["spec"]["ports"][0]["port"] = json!(address.port());
        object["status"]["loadBalancer"]["ingress"] = json!([{"ip": address.ip().to_string()}]);
    })?;
    told(&mesh, "no Pod of east-west gateway `Service/apps/spare@cluster-2` is ready").await?;
    load.goes_on(400).await?;
    ensure!(tap.seen().is_empty(), "somebody was sent there");

    let ready = |status: &'static str| {
        move |object: &mut Value| object["status"]["conditions"] = json!([{"type": "Ready", "status": status}])
    };
    let pod = "Pod/apps/spare-0@cluster-2";
    mesh.edit(pod, ready("True"))?;
    until(PATIENCE, "traffic at the second gateway", async || match tap.seen().len() {
        0..4096 => Err(Not::Yet("nothing".to_owned())),
        _ => Ok(()),
    })
    .await
    .map_err(|error| mesh.with_logs(error))?;
    load.end().await.map_err(|error| mesh.with_logs(error)).map(drop)
}

/// Waits until somebody is told something.
async fn told(mesh: &Mesh, text: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("a finding: {text}"), async || {
        let status = crate::support::chancery::status(mesh.chancery.admin());
        let status = status.map_err(|error| Not::Ever(format!("{error:#}")))?.to_string();
        if status.contains(text) { Ok(()) } else { Err(Not::Yet(status)) }
    })
    .await
    .map_err(|error| mesh.with_logs(error))
}
