//! Two workspaces over two clusters: what the owner of a virtual destination says holds for every client in every cluster, what
//! its users say does not, and who is shut out gets in nowhere.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use serde_json::json;

use super::place;
use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Protocol, Request, Response};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::tls::Dial;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, RunningGateway};
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// `back` owns the cart, the virtual destination of both copies and the east-west gateways; `gate` the ingress gateway and a Pod
/// in each cluster.
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
metadata: {name: back, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: back}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: gate, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: gate}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: back, namespace: back}
spec: {exportTo: [{workspaces: [{name: gate}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: gate, namespace: gate}
spec: {importFrom: [{workspaces: [{name: back}]}]}
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
kind: VirtualDestination
metadata: {name: cart, namespace: back}
spec: {hosts: [cart.mesh], services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: back}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: gate}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: cart}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

/// What is in each cluster.
const CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata: {name: ew, namespace: back, labels: {istio: eastwestgateway}}
spec: {selector: {app: ew}, ports: [{name: tls, port: 15443, targetPort: 15443}, {name: http, port: 80, targetPort: 8080}]}
status: {loadBalancer: {ingress: [{ip: 10.9.0.2}]}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: back, labels: {app: cart}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: back, labels: {kubernetes.io/service-name: cart}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: cart-0}}]
---
apiVersion: v1
kind: Pod
metadata: {name: batch-0, namespace: gate}
status: {phase: Running, podIPs: [{ip: 10.1.0.31}]}
";

const CLUSTERS: [&str; 2] = ["cluster-1", "cluster-2"];

/// Who the ingress gateway is.
const WEB: &str = "spiffe://cluster-1/ns/gate/sa/default";
const CART: &str = "outbound_.80_._.cart.back.svc.cluster-2";

async fn start(root: &Root) -> anyhow::Result<Mesh> {
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    for cluster in CLUSTERS {
        let own = yaml::documents(CLUSTER)?.into_iter();
        manifests.extend(own.map(|object| Manifest { cluster: cluster.to_owned(), object }));
    }
    manifests.extend([root.secret("ca"), policy(&from_secret())]);
    Mesh::start(manifests, Settings::default()).await
}

fn running<'a>(mesh: &'a Mesh, cluster: &str, service: &str) -> anyhow::Result<&'a RunningGateway> {
    let is_it = |running: &&RunningGateway| running.gateway.cluster == cluster && running.gateway.service == service;
    mesh.gateways.iter().find(is_it).with_context(|| format!("no {service} in {cluster}"))
}

/// Somebody who asks for the cart.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// A user, at the ingress gateway.
    User,
    /// The Pod of a cluster, at its east-west gateway.
    Pod(&'static str),
}

const ALL: [Asker; 3] = [Asker::User, Asker::Pod("cluster-1"), Asker::Pod("cluster-2")];

impl Asker {
    /// The cluster of the gateway that he asks.
    fn cluster(self) -> &'static str {
        match self {
            Self::User => "cluster-1",
            Self::Pod(cluster) => cluster,
        }
    }

    async fn send(self, mesh: &Mesh, method: &str) -> anyhow::Result<Response> {
        let (mut client, host) = match self {
            Self::User => (Client::new(running(mesh, "cluster-1", "web")?.address(80)?), "shop.example"),
            Self::Pod(cluster) => {
                let is_it = |manifest: &&Manifest| manifest.cluster == cluster && manifest.name() == "batch-0";
                let pod = mesh.manifests.iter().find(is_it).context("no Pod")?;
                let from: Ipv4Addr = text(&pod.object, "/status/podIPs/0/ip").parse()?;
                (Client::from(from, running(mesh, cluster, "ew")?.address(80)?), "cart.mesh")
            }
        };
        client.send(&Request { method: method.to_owned(), ..Request::get(host, "/") }).await
    }

    /// Waits until all he asks is answered by exactly these clusters.
    async fn is_answered_by(self, mesh: &Mesh, clusters: &[&str]) -> anyhow::Result<()> {
        until(PATIENCE, &format!("answers of {clusters:?} to {self:?}"), async || {
            let mut found = BTreeSet::new();
            for _ in 0..16 {
                let answer = self.send(mesh, "GET").await.map_err(|error| Not::Yet(format!("{error:#}")))?;
                if answer.status != 200 {
                    return Err(Not::Yet(format!("{} {}", answer.status, answer.text())));
                }
                let echo = answer.json().map_err(|error| Not::Yet(format!("{error:#}")))?;
                found.insert(echo["cluster"].as_str().unwrap_or_default().to_owned());
            }
            if found.iter().eq(clusters) { Ok(()) } else { Err(Not::Yet(format!("{found:?}"))) }
        })
        .await
        .map_err(|error| mesh.with_logs(error))
    }

    /// Waits for a status.
    async fn gets(self, mesh: &Mesh, method: &str, status: u16) -> anyhow::Result<Response> {
        until(PATIENCE, &format!("{status} for {self:?}"), async || match self.send(mesh, method).await {
            Ok(answer) if answer.status == status => Ok(answer),
            Ok(answer) => Err(Not::Yet(format!("{} {}", answer.status, answer.text()))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
        .map_err(|error| mesh.with_logs(error))
    }
}

/// What the author of an object is told, once there is something.
async fn told(mesh: &Mesh, object: &str) -> anyhow::Result<String> {
    until(PATIENCE, &format!("a word about {object}"), async || {
        let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
        let item = list(&status, "/items").iter().find(|item| text(item, "/object") == object);
        let item = item.ok_or_else(|| Not::Yet(status.to_string()))?;
        Ok(format!("{} {}", text(item, "/approval"), text(item, "/findings/0/message")))
    })
    .await
}

/// The cart's policies, as a workspace writes them in its namespace.
fn policies(namespace: &str) -> Vec<Manifest> {
    let nearest = json!({
        "apiVersion": "resilience.policy.gloo.solo.io/v2", "kind": "OutlierDetectionPolicy",
        "metadata": {"name": "cart", "namespace": namespace},
        "spec": {"applyToDestinations": [{"kind": "VIRTUAL_DESTINATION", "selector": {"name": "cart"}}], "config": {}},
    });
    let readers = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": "cart", "namespace": namespace},
        "spec": {
            "applyToDestinations": [{"selector": {"labels": {"app": "cart"}}}],
            "config": {"authzList": [{"allowedMethods": ["GET"]}]},
        },
    });
    [nearest, readers].map(place).to_vec()
}

/// R118, R119, R149, R150: the owner's policies hold on every gateway that sends to the group, in every cluster; an importer's
/// hold on none.
#[tokio::test(flavor = "multi_thread")]
async fn r118_r119_policies_of_the_owner_hold_everywhere_and_those_of_importers_nowhere() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mesh = start(&root).await?;
    for asker in ALL {
        asker.is_answered_by(&mesh, &CLUSTERS).await?;
        asker.gets(&mesh, "POST", 200).await?;
    }
    let files = manifests::write(mesh.directory(), &policies("gate"))?;
    for kind in ["OutlierDetectionPolicy", "AccessPolicy"] {
        let told = told(&mesh, &format!("{kind}/gate/cart@cluster-1")).await?;
        ensure!(told.starts_with("WARNING"), "{kind}: {told}");
    }
    for asker in ALL {
        asker.is_answered_by(&mesh, &CLUSTERS).await?;
        asker.gets(&mesh, "POST", 200).await?;
    }
    for file in files {
        std::fs::remove_file(file)?;
    }
    let files = manifests::write(mesh.directory(), &policies("back"))?;
    for asker in ALL {
        // R173: each gateway has the copy of its own cluster nearest.
        asker.is_answered_by(&mesh, &[asker.cluster()]).await?;
        let refused = asker.gets(&mesh, "POST", 403).await?;
        ensure!(refused.text().contains("RBAC"), "{}", refused.text());
    }
    for file in files {
        std::fs::remove_file(file)?;
    }
    for asker in ALL {
        asker.is_answered_by(&mesh, &CLUSTERS).await?;
        asker.gets(&mesh, "POST", 200).await?;
    }
    Ok(())
}

/// R45, R47, R48: who is shut out by isolation gets in at none of the three places, the handshake between clusters among them.
#[tokio::test(flavor = "multi_thread")]
async fn r48_an_isolated_service_is_closed_at_the_gateway_at_the_crossing_and_for_pods() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = start(&root).await?;
    for asker in ALL {
        asker.is_answered_by(&mesh, &CLUSTERS).await?;
    }
    let ew = running(&mesh, "cluster-2", "ew")?;
    // The ports of the Service are moved; that for clients inside keeps its number.
    let crossing: SocketAddr =
        SocketAddr::from((ew.bind, *ew.gateway.ports.iter().find(|(port, _)| **port != 80).context("no port")?.1));
    let dial =
        |uri: &str| Dial::under(&root.certificate, Some(&root.identity(uri)?))?.asking(Some(CART), Protocol::Http1);
    let handshake = async |uri: &str| {
        let mut client = Client::with_tls(crossing, Protocol::Http1, dial(uri)?);
        anyhow::Ok(client.send(&Request::get("shop.example", "/")).await?.status)
    };
    let own = "spiffe://cluster-1/ns/back/sa/default";
    assert_eq!(handshake(WEB).await?, 200);
    assert_eq!(handshake(own).await?, 200);

    // Tables are shared as before, destinations no longer, and they are isolated.
    mesh.edit("WorkspaceSettings/back/back@cluster-1", |object| {
        object["spec"] = json!({
            "exportTo": [{"workspaces": [{"name": "gate"}], "resources": [{"kind": "ROUTE_TABLE"}]}],
            "options": {"serviceIsolation": {"enabled": true}},
        });
    })?;
    let closed = Asker::User.gets(&mesh, "GET", 500).await?;
    ensure!(closed.text().contains("SERVICE_ISOLATED"), "{}", closed.text());
    let told = told(&mesh, "RouteTable/back/shop@cluster-1").await?;
    ensure!(told.starts_with("INVALID") && told.contains("`back` is isolated"), "{told}");
    for cluster in CLUSTERS {
        Asker::Pod(cluster).gets(&mesh, "GET", 404).await?;
    }
    until(PATIENCE, "a refused handshake", async || match handshake(WEB).await {
        Ok(status) => Err(Not::Yet(status.to_string())),
        Err(_) => Ok(()),
    })
    .await?;
    let refused = dial(WEB)?.refusal(crossing).await?;
    ensure!(refused.contains("alert"), "{refused}");
    Ok(())
}
