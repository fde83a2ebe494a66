//! A shop behind an API server, with Envoys that serve it and a backend.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::support::backend::{Backend, Identity};
use crate::support::http::{Client, Request};
use crate::support::load::{Load, Pace};
use crate::support::manifests::Manifest;
use crate::support::net::Network;
use crate::support::proxy::Proxy;
use crate::support::world::{self, RunningGateway, Speech};

/// The host of its table.
pub(super) const HOST: &str = "shop.example.com";

/// The table, for kubectl.
pub(super) const TABLE: [&str; 2] = ["routetable", "cart"];

/// See the module.
pub(super) struct Shop {
    pub(super) kube: Kube,
    pub(super) gateways: Vec<RunningGateway>,
    network: Network,
    /// The port that its gateways listen on.
    port: u16,
    _backend: Backend,
}

impl Shop {
    /// An API server with the objects, of a gateway with so many Pods.
    pub(super) async fn start(name: &str, pods: u8) -> anyhow::Result<Self> {
        let network = Network::claim_routed()?;
        let kube = Kube::start_defined(name).await?;
        let (port, target) = (network.free_port()?, network.free_port()?);
        let backend = Backend::start(
            Identity { service: "cart".to_owned(), ..Identity::default() },
            SocketAddr::from((network.next_address()?, target)),
        )
        .await?;
        let mut shop = objects("mgmt");
        for object in &mut shop {
            match (object["kind"].as_str(), object["metadata"]["name"].as_str()) {
                (Some("Service"), Some("web")) => object["spec"]["ports"][0]["targetPort"] = json!(port),
                (Some("EndpointSlice"), _) => {
                    object["ports"][0]["port"] = json!(target);
                    object["endpoints"][0]["addresses"] = json!([backend.address.ip().to_string()]);
                }
                _ => {}
            }
        }
        shop.retain(|object| !matches!(object["kind"].as_str(), Some("Pod" | "RouteTable")));
        shop.extend((0..pods).map(pod));
        shop.push(numbered(0));
        kube.apply(&shop)?;
        Ok(Self { kube, gateways: Vec::new(), network, port, _backend: backend })
    }

    /// Starts the Envoy of the next Pod, and waits until it listens.
    pub(super) async fn join(&mut self, chancery: &Chancery, through: Option<&Proxy>) -> anyhow::Result<SocketAddr> {
        let service = json!({
            "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": self.port}]},
        });
        let gateway = world::gateway(&Manifest { cluster: "mgmt".to_owned(), object: service });
        let (pod, bind): (_, Ipv4Addr) = (format!("web-{}", self.gateways.len()), self.network.next_address()?);
        let speech = Speech { through, ..Speech::default() };
        let running = RunningGateway::start_speaking(gateway, &pod, bind, chancery.xds(), &speech).await?;
        self.gateways.push(running);
        let address = SocketAddr::from((bind, self.port));
        let joined = self.gateways.last_mut().context("no gateway")?;
        joined.envoy.listens(address).await.map_err(|error| error.context(chancery.log_tail()))?;
        Ok(address)
    }

    /// Makes an edit of the table, by its number.
    pub(super) fn edit(&self, number: u64) -> anyhow::Result<()> {
        self.kube.apply(&[numbered(number)]).map(drop)
    }
}

/// A Pod of the gateway.
fn pod(number: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{number}"), "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
    })
}

/// The table, which says its number under `/number` and leads to the backend elsewhere.
pub(super) fn numbered(number: u64) -> Value {
    let mut table = table("/");
    let says = json!({
        "name": "number", "matchers": [{"uri": {"prefix": "/number"}}],
        "directResponse": {"status": 200, "body": number.to_string()},
    });
    let all = table["spec"]["http"][0].take();
    table["spec"]["http"] = json!([says, all]);
    table
}

/// Waits until a gateway says a number, by every worker: they change one after the other, and the kernel spreads connections by
/// chance, so that the odds that all meet one of two workers are one to two thousand.
pub(super) async fn shows(address: SocketAddr, number: u64) -> anyhow::Result<()> {
    until(PATIENCE, &format!("edit {number} at {address}"), async || {
        for _ in 0..12 {
            let answer = Client::new(address).send(&Request::get(HOST, "/number")).await;
            let answer = answer.map_err(|error| format!("{error:#}"))?.text();
            if answer != number.to_string() {
                return Err(Not::Yet(answer));
            }
        }
        Ok(())
    })
    .await
}

/// Requests that lead to the backend; each must be answered by it.
pub(super) fn load(address: SocketAddr) -> Load {
    Load::start(address, 4, Pace::PerSecond(200), vec![Request::get(HOST, "/cart")], |_, response| {
        ensure!(response.status == 200, "{}: {}", response.status, response.text());
        ensure!(response.json()?["service"] == "cart", "no backend answered: {}", response.text());
        Ok(())
    })
}
