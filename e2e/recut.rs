//! Listeners that are cut while another is, and cut otherwise: from files to a gateway under load, no request fails.
//!
//! All cut listeners of an Envoy follow one list of scopes, so one that asks for parts of which Envoy does not know yet would
//! answer 404 until it does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::support::chancery::{Chancery, Settings};
use crate::support::http::{Client, Request, Response};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::{list, replace, text};
use crate::support::net::Network;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Gateway, RunningGateway};

/// Hosts of a listener that is cut, and of one that is not; each has [`ROUTES`].
const MANY: usize = 220;
const FEW: usize = 50;
const ROUTES: usize = 10;

/// The two listeners: the port of the Service, the one that is bound, and the name of the virtual gateway.
const LISTENERS: [(u16, u16, &str); 2] = [(80, 8080, "one"), (81, 8081, "two")];

/// Requests a second to each listener, on connections that last and on new ones.
const RATE: u32 = 200;

const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh}
spec: {clusterDomain: cluster.local}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: edge, namespace: gloo-mesh}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}]}]}
";

const GATEWAY: &str = "
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: edge}
spec:
  selector: {app: ingress}
  ports: [{name: one, port: 80, targetPort: 8080}, {name: two, port: 81, targetPort: 8081}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: one, namespace: edge}
spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: two, namespace: edge}
spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 81}}]}
";

/// A table of a virtual gateway, each of whose hosts has all its routes; the last answers with the table's name.
fn table(name: &str, gateway: &str, hosts: &[String], routes: usize) -> String {
    let last = format!("{{name: last, directResponse: {{status: 200, body: {name}}}}}");
    let path =
        |n| format!("{{name: r{n}, matchers: [{{uri: {{prefix: /path-{n}}}}}], directResponse: {{status: 200}}}}");
    let routes: Vec<String> = (1..routes).map(path).chain([last]).collect();
    format!(
        "
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {{name: {name}, namespace: edge}}
spec:
  hosts: [{}]
  virtualGateways: [{{name: {gateway}, namespace: edge}}]
  http: [{}]
",
        hosts.join(", "),
        routes.join(", ")
    )
}

fn sites(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}.example")).collect()
}

/// Into how many parts the listener of a bound port is cut, by the digits with which it names one; none if it is whole.
async fn digits(gateway: &RunningGateway, port: u16) -> anyhow::Result<Option<char>> {
    let dump: Value = serde_json::from_str(&gateway.envoy.admin("/config_dump?resource=dynamic_listeners").await?)?;
    let name = format!("listener/{port}");
    let listener = list(&dump, "/configs").iter().find(|listener| text(listener, "/name") == name);
    let active = listener.with_context(|| format!("no {name}"))?["active_state"].to_string();
    Ok(active.split_once("%0").and_then(|(_, rest)| rest.chars().next()))
}

async fn is_cut(gateway: &RunningGateway, port: u16, wanted: char) -> anyhow::Result<()> {
    until(PATIENCE, &format!("listener {port} to be cut into parts of {wanted} digits"), async || {
        let found = digits(gateway, port).await.map_err(|error| format!("{error:#}"))?;
        if found == Some(wanted) { Ok(()) } else { Err(Not::Yet(format!("{found:?}"))) }
    })
    .await
}

/// Asks the first hosts of a table, on connections that last and on new ones.
fn loads(address: SocketAddr, name: &'static str) -> [Load; 2] {
    [Lasts::AllTheTime, Lasts::OneRequest].map(|lasts| {
        let requests: Vec<Request> = sites(name, FEW).iter().map(|host| Request::get(host, "/")).collect();
        let judge = move |_, response: &Response| {
            ensure!((response.status, response.text().as_str()) == (200, name), "{response:?}");
            Ok(())
        };
        Load::start_with(move || Client::new(address), lasts, 10, Pace::PerSecond(RATE), requests, judge)
    })
}

async fn start(directory: &Path, bind: Ipv4Addr) -> anyhow::Result<(Chancery, RunningGateway)> {
    let edge = directory.join("cluster-1").join("edge");
    std::fs::create_dir_all(&edge)?;
    std::fs::create_dir_all(directory.join("mgmt"))?;
    std::fs::write(directory.join("mgmt").join("world.yaml"), WORLD)?;
    std::fs::write(edge.join("gateway.yaml"), GATEWAY)?;
    for (name, count) in [("one", MANY), ("two", FEW)] {
        std::fs::write(edge.join(format!("{name}.yaml")), table(name, name, &sites(name, count), ROUTES))?;
    }
    let chancery = Chancery::serve(directory, &Settings::default()).await?;
    let gateway = Gateway {
        cluster: "cluster-1".to_owned(),
        namespace: "edge".to_owned(),
        service: "ingress".to_owned(),
        labels: [("app".to_owned(), "ingress".to_owned())].into_iter().collect(),
        ports: LISTENERS.map(|(port, bound, _)| (port, bound)).into_iter().collect(),
    };
    let mut gateway = RunningGateway::start(gateway, bind, chancery.xds()).await?;
    for (_, port, _) in LISTENERS {
        gateway.envoy.listens(SocketAddr::from((bind, port))).await?;
    }
    Ok((chancery, gateway))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r67_no_request_fails_when_listeners_are_cut_beside_one_that_is_and_otherwise() -> anyhow::Result<()> {
    let (folder, network) = (tempfile::tempdir()?, Network::claim()?);
    let bind = network.next_address()?;
    let (chancery, gateway) = start(folder.path(), bind).await?;
    let edge = folder.path().join("cluster-1").join("edge");
    ensure!((digits(&gateway, 8080).await?, digits(&gateway, 8081).await?) == (Some('4'), None), "not as it begins");
    let loads = LISTENERS.map(|(_, port, name)| loads(SocketAddr::from((bind, port)), name));

    replace(&edge.join("two.yaml"), &table("two", "two", &sites("two", MANY), ROUTES))?;
    is_cut(&gateway, 8081, '4').await.context(chancery.log_tail())?;
    // One host with a wildcard weighs more in many parts than all other routes, so there are to be fewer.
    replace(&edge.join("wild.yaml"), &table("wild", "one", &["'*.wild.example'".to_owned()], 1))?;
    is_cut(&gateway, 8080, '3').await.context(chancery.log_tail())?;

    for load in loads.into_iter().flatten() {
        load.end().await.context("while the listeners were cut")?;
    }
    for (_, port, name) in LISTENERS {
        let mut client = Client::new(SocketAddr::from((bind, port)));
        for host in sites(name, MANY) {
            let response = client.send(&Request::get(&host.to_uppercase(), "/")).await?;
            ensure!((response.status, response.text().as_str()) == (200, name), "{host}: {response:?}");
        }
    }
    let wild = Client::new(SocketAddr::from((bind, 8080))).send(&Request::get("any.wild.example", "/")).await?;
    ensure!((wild.status, wild.text().as_str()) == (200, "wild"), "{wild:?}");
    Ok(())
}
