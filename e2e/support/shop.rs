//! A small world that is edited while it serves: everything that is asked of it must be answered at every moment.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::http::{Client, Request, Response};
use super::load::{Load, Pace};
use super::manifests::{Manifest, by_annotation, list};
use super::wait::{Not, PATIENCE, until};
use super::world::Mesh;
use super::yaml;

/// The host of the first table.
const HOST: &str = "www.example.com";

/// What says which edit is in force.
const NUMBER: &str = "/number";

const WWW: &str = "RouteTable/shop/www@cluster-1";
const HOSTS: &str = "RouteTable/shop/hosts@cluster-1";

/// `@` stands for the annotation that places an object in `cluster-1`. Each Service listens under several names, so that
/// clusters can come and go while their backends stay.
const WORLD: &str = r"
- apiVersion: admin.gloo.solo.io/v2
  kind: KubernetesCluster
  metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
- apiVersion: admin.gloo.solo.io/v2
  kind: Workspace
  metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
  spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
- apiVersion: v1
  kind: Service
  metadata: {name: ingress, namespace: shop, @}
  spec: {selector: {app: ingress}, ports: [{name: http, port: 80, targetPort: 8080}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: VirtualGateway
  metadata: {name: ingress, namespace: shop, @}
  spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 80}}]}
- apiVersion: v1
  kind: Service
  metadata: {name: stock, namespace: shop, @}
  spec: {selector: {app: stock}, ports: [{name: web, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: stock-1, namespace: shop, labels: {kubernetes.io/service-name: stock}, @}
  ports: [{name: web, port: 8080}]
  endpoints:
    - {addresses: [10.1.0.11], targetRef: {kind: Pod, name: stock-0}}
    - {addresses: [10.1.0.12], targetRef: {kind: Pod, name: stock-1}}
- apiVersion: v1
  kind: Service
  metadata: {name: cart, namespace: shop, @}
  spec: {selector: {app: cart}, ports: [{name: web, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}, @}
  ports: [{name: web, port: 8080}]
  endpoints: [{addresses: [10.1.0.13], targetRef: {kind: Pod, name: cart-0}}]
- apiVersion: v1
  kind: Service
  metadata: {name: spare, namespace: shop, @}
  spec: {selector: {app: spare}, ports: [{name: web, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: spare-1, namespace: shop, labels: {kubernetes.io/service-name: spare}, @}
  ports: [{name: web, port: 8080}]
  endpoints: [{addresses: [10.1.0.14], targetRef: {kind: Pod, name: spare-0}}]
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: www, namespace: shop, @}
  spec:
    hosts: [www.example.com, '*.hosts.example']
    virtualGateways: [{name: ingress}]
    http:
      - {name: number, matchers: [{uri: {prefix: /number}}], directResponse: {status: 200, body: '0'}}
      - {name: moving, matchers: [{uri: {prefix: /moving}}], forwardTo: {destinations: [{ref: {name: cart}}]}}
      - name: weights
        matchers: [{uri: {prefix: /}}]
        forwardTo: {destinations: [{ref: {name: stock}, weight: 50}, {ref: {name: stock}, subset: {version: v1}, weight: 50}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: hosts, namespace: shop, @}
  spec:
    hosts: [one.hosts.example]
    virtualGateways: [{name: ingress}]
    http: [{name: all, matchers: [{uri: {prefix: /}}], forwardTo: {destinations: [{ref: {name: stock}}]}}]
- apiVersion: v1
  kind: Pod
  metadata: {name: stock-0, namespace: shop, labels: {app: stock, version: v1}, @}
  status: {podIP: 10.1.0.11}
- apiVersion: v1
  kind: Pod
  metadata: {name: stock-1, namespace: shop, labels: {app: stock, version: v2}, @}
  status: {podIP: 10.1.0.12}
";

/// The objects.
pub(crate) fn manifests() -> anyhow::Result<Vec<Manifest>> {
    let world = WORLD.replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}");
    let mut manifests = Vec::new();
    for document in yaml::documents(&world)? {
        manifests.extend(by_annotation(list(&document, ""))?);
    }
    Ok(manifests)
}

/// Makes the edit of a number: weights (of 100) and the number itself change each time, with them in turn the cluster of a route,
/// the hosts, the endpoints, and the protocol of a cluster. Several files, saved one after the other.
pub(crate) fn edit(mesh: &mut Mesh, number: u64) -> anyhow::Result<()> {
    // None is 0, which would mean that none is stated.
    let weight = 1 + number % 99;
    let odd = (number / 4) % 2 == 1;
    match number % 4 {
        0 => {}
        1 => mesh.edit(HOSTS, |table| {
            let hosts =
                if odd { json!(["one.hosts.example"]) } else { json!(["two.hosts.example", "*.hosts.example"]) };
            table["spec"]["hosts"] = hosts;
        })?,
        2 => mesh.edit("EndpointSlice/shop/stock-1@cluster-1", |slice| {
            slice["endpoints"][1]["conditions"] = json!({"ready": odd});
        })?,
        _ => mesh.edit("Service/shop/stock@cluster-1", |service| {
            service["spec"]["ports"][0]["appProtocol"] = json!(if odd { "http" } else { "kubernetes.io/h2c" });
        })?,
    }
    mesh.edit(WWW, |table| {
        let routes = &mut table["spec"]["http"];
        routes[0]["directResponse"]["body"] = json!(number.to_string());
        if number.is_multiple_of(4) {
            routes[1]["forwardTo"]["destinations"][0]["ref"]["name"] = json!(if odd { "cart" } else { "spare" });
        }
        routes[2]["forwardTo"]["destinations"][0]["weight"] = json!(weight);
        routes[2]["forwardTo"]["destinations"][1]["weight"] = json!(100 - weight);
    })
}

/// Waits until every worker of a gateway has the edit of a number, or the first that answers.
pub(crate) async fn shows(address: SocketAddr, number: u64, workers: Workers) -> anyhow::Result<()> {
    let times = match workers {
        Workers::Any => 1,
        // The kernel spreads connections by chance: the odds that all meet one of two workers are one to two thousand.
        Workers::All => 12,
    };
    until(PATIENCE, &format!("edit {number} at {address}"), async || {
        for _ in 0..times {
            let answer = Client::new(address).send(&Request::get(HOST, NUMBER)).await;
            let answer = answer.map_err(|error| format!("{error:#}"))?.text();
            if answer != number.to_string() {
                return Err(Not::Yet(answer));
            }
        }
        Ok(())
    })
    .await
}

/// How many of a gateway's workers must have an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One, by chance.
    Any,
    /// All of them.
    All,
}

/// Hosts and paths that are served at every moment.
const EVERYTHING: [(&str, &str); 5] = [
    (HOST, "/"),
    ("one.hosts.example", "/"),
    ("two.hosts.example", "/"),
    (HOST, "/moving"),
    ("three.hosts.example", "/moving"),
];

/// Waits until a gateway serves everything.
pub(crate) async fn serves(address: SocketAddr) -> anyhow::Result<()> {
    until(PATIENCE, &format!("everything at {address}"), async || {
        for (host, path) in EVERYTHING {
            let answer = Client::new(address).send(&Request::get(host, path)).await;
            let answer = answer.and_then(|answer| answered(&answer));
            answer.map_err(|error| format!("{host}{path}: {error:#}"))?;
        }
        Ok(())
    })
    .await
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Everything.
    Everything,
    /// All but the route whose cluster is replaced by one of another name.
    WhatStays,
}

/// Requests at so many a second; each must be answered by a backend.
pub(crate) fn load(address: SocketAddr, asked: Asked, connections: usize, per_second: u32) -> Load {
    let asked = |path: &str| asked == Asked::Everything || path != "/moving";
    let requests = EVERYTHING.iter().filter(|(_, path)| asked(path)).map(|(host, path)| Request::get(host, path));
    Load::start(address, connections, Pace::PerSecond(per_second), requests.collect(), |_, response| answered(response))
}

fn answered(response: &Response) -> anyhow::Result<()> {
    ensure!(response.status == 200, "{}: {}", response.status, response.text());
    let body: Value = response.json()?;
    body.get("service").and_then(Value::as_str).context("no backend answered").map(drop)
}
