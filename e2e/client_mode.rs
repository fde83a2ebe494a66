//! Where the TLS ends that crosses clusters: two clusters, and a Pod in the second that speaks TLS.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::crossing::place;
use crate::support::chancery::Settings;
use crate::support::http::{Client, Protocol, Request, Response, get};
use crate::support::manifests::{self, Manifest};
use crate::support::tls::{Authority, Dial, Pair, TlsFront};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// An ingress gateway in `cluster-1`, an east-west gateway with a port for each way in `cluster-2`. Of the Pods behind `vault`
/// and `safe`, which are one, only the Services are here; `cart` is there to be behind them.
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
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tls, port: 8443, targetPort: 8444}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: apps}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners: [{http: {}, port: {number: 80}}, {tcp: {}, port: {number: 8443}, tls: {mode: PASSTHROUGH}}]
---
apiVersion: v1
kind: Service
metadata: {name: ew, namespace: apps, labels: {istio: eastwestgateway}, annotations: {in: cluster-2}}
spec:
  selector: {app: ew}
  ports: [{name: tls, port: 15443, targetPort: 15443}, {name: https, port: 16443, targetPort: 16443}]
status: {loadBalancer: {ingress: [{ip: 10.9.0.2}]}}
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
metadata: {name: vault, namespace: apps, labels: {app: vault}, annotations: {in: cluster-2}}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: safe, namespace: apps, labels: {app: safe}, annotations: {in: cluster-2}}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: vault, namespace: apps}
spec: {services: [{labels: {app: vault}}], ports: [{number: 443, protocol: HTTPS}], clientMode: {sniRouting: {}}}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: safe, namespace: apps}
spec: {services: [{labels: {app: safe}}], ports: [{number: 443, protocol: TLS}]}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: ClientTLSPolicy
metadata: {name: vault, namespace: apps}
spec: {applyToDestinations: [{selector: {name: vault}}], config: {simple: {config: {credentialName: vault-ca}}}}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: apps}]
  http: [{name: vault, forwardTo: {destinations: [{ref: {name: vault}, kind: VIRTUAL_DESTINATION, port: {number: 443}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: safe, namespace: apps}
spec:
  hosts: [vault.apps.svc.cluster.local]
  virtualGateways: [{name: web, namespace: apps}]
  tls:
    - matchers: [{sniHosts: [vault.apps.svc.cluster.local]}]
      forwardTo: {destinations: [{ref: {name: safe}, kind: VIRTUAL_DESTINATION, port: {number: 443}}]}
";

/// What the Pod is called in its certificate.
const NAME: &str = "vault.apps.svc.cluster.local";
const PASSED: &str = "passthrough_.443_._.vault.apps.svc.cluster-2";
const ENDED: &str = "outbound_.443_._.vault.apps.svc.cluster-2";
const WHOLE: &str = "tls_.443_._.safe.apps.svc.cluster-2";

struct Running {
    mesh: Mesh,
    root: Root,
    /// Signs the certificate of the Pod.
    authority: Authority,
    front: TlsFront,
}

impl Running {
    async fn start() -> anyhow::Result<Self> {
        let (root, authority) = (Root::new("root")?, Authority::new("pods")?);
        let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
        manifests.extend([root.secret("ca"), policy(&from_secret())]);
        // Each gateway that starts TLS has what it trusts beside it.
        for cluster in ["cluster-1", "cluster-2"] {
            manifests.push(Manifest {
                cluster: cluster.to_owned(),
                object: json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-ca", "namespace": "apps"},
                    "stringData": {"ca.crt": authority.pem()},
                }),
            });
        }
        let mesh = Mesh::start(manifests, Settings::default()).await?;
        let behind = mesh.backends.first().context("no backend")?.address;
        let at = SocketAddr::from((mesh.free_address("cluster-2")?, 8443));
        let front = TlsFront::start(at, &authority.sign(NAME, "pod")?, behind).await?;
        for service in ["vault", "safe"] {
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{service}-1"), "namespace": "apps", "annotations": {"in": "cluster-2"},
                    "labels": {"kubernetes.io/service-name": service},
                },
                "ports": [{"name": "https", "port": at.port()}], "endpoints": [{"addresses": [at.ip().to_string()]}],
            });
            manifests::write(mesh.directory(), &[place(slice)])?;
        }
        Ok(Self { mesh, root, authority, front })
    }

    fn gateway(&self, service: &str, port: u16) -> anyhow::Result<SocketAddr> {
        let mut all = self.mesh.gateways.iter();
        all.find(|running| running.gateway.service == service).context("no gateway")?.address(port)
    }

    async fn get(&self) -> anyhow::Result<Response> {
        get(self.gateway("web", 80)?, "shop.example", "/").await
    }

    /// Waits until the Pod has answered somebody who asked for a server name.
    async fn is_asked_for(&self, name: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("a Pod that is asked for {name}"), async || match self.get().await {
            Ok(answer) if answer.status == 200 => match self.front.handshakes().pop() {
                Some(last) if last.server_name.as_deref() == Some(name) => Ok(()),
                other => Err(Not::Yet(format!("{other:?}"))),
            },
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// Whether the east-west gateway lets somebody in who asks for a server name: the names in what is shown to him.
    async fn knock(&self, port: u16, name: &str, root: &str, shows: Option<&Pair>) -> anyhow::Result<u16> {
        let dial = Dial::under(root, shows)?.asking(Some(name), Protocol::Http1)?;
        let mut client = Client::with_tls(self.gateway("ew", port)?, Protocol::Http1, dial);
        Ok(client.send(&Request::get("shop.example", "/")).await?.status)
    }

    fn set_mode(&mut self, mode: Value) -> anyhow::Result<()> {
        self.mesh.edit("VirtualDestination/apps/vault@cluster-1", |object| object["spec"]["clientMode"] = mode)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r168_r169_tls_ends_at_the_pod_or_at_the_gateway_as_it_is_said() -> anyhow::Result<()> {
    let mut running = Running::start().await?;
    let (pods, root) = (running.authority.pem(), running.root.certificate.clone());
    let web = running.root.identity("spiffe://cluster-1/ns/apps/sa/default")?;
    running.is_asked_for(PASSED).await?;
    // It is open to whoever reaches it, as the manual says, and nothing else is.
    ensure!(running.knock(15443, PASSED, &pods, None).await? == 200);
    for (port, name) in [(15443, ENDED), (16443, PASSED), (16443, ENDED)] {
        let answer = running.knock(port, name, &root, Some(&web)).await;
        ensure!(answer.is_err(), "{name} on {port}: {answer:?}");
    }

    running.set_mode(json!({"tlsTermination": {}}))?;
    running.is_asked_for(NAME).await?;
    // The old chain drains; then a gateway that shows who it is gets through, and nobody else.
    until(PATIENCE, "the other chain to be closed", async || match running.knock(15443, PASSED, &pods, None).await {
        Ok(status) => Err(Not::Yet(format!("{status}"))),
        Err(_) => Ok(()),
    })
    .await?;
    ensure!(running.knock(16443, ENDED, &root, Some(&web)).await? == 200);
    let answer = running.knock(16443, ENDED, &root, None).await;
    ensure!(answer.is_err(), "without a certificate: {answer:?}");

    // R122: with a policy that judges callers it stays so, whatever the mode says.
    manifests::write(
        running.mesh.directory(),
        &[place(json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
            "metadata": {"name": "readers", "namespace": "apps"},
            "spec": {"applyToDestinations": [{"selector": {"name": "vault"}}], "config": {"authzList": [{"allowedMethods": ["GET"]}]}},
        }))],
    )?;
    running.set_mode(json!({"sniRouting": {}}))?;
    let post = Request { method: "POST".to_owned(), ..Request::get("shop.example", "/") };
    until(PATIENCE, "POST to be refused", async || {
        let web = running.gateway("web", 80).map_err(|error| error.to_string())?;
        match Client::new(web).send(&post).await {
            Ok(answer) if answer.status == 403 => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await
    .map_err(|error| running.mesh.with_logs(error))?;
    ensure!(running.get().await?.status == 200);
    let answer = running.knock(15443, PASSED, &pods, None).await;
    ensure!(answer.is_err(), "a way around the policy: {answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r183_r195_connections_that_are_tls_already_reach_the_pod_of_another_cluster_as_they_are() -> anyhow::Result<()>
{
    let running = Running::start().await?;
    let address = running.gateway("web", 8443)?;
    let dial = running.authority.dial(NAME, None, Protocol::Http1)?;
    until(PATIENCE, "the Pod to be shown", async || {
        let mut client = Client::with_tls(address, Protocol::Http1, dial.clone());
        match client.send(&Request::get(NAME, "/")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await
    .map_err(|error| running.mesh.with_logs(error))?;
    // The Pod itself ended it, and between the gateways only gateways get in.
    let last = running.front.handshakes().pop().and_then(|last| last.server_name);
    ensure!(last.as_deref() == Some(NAME), "{last:?}");
    let (root, pods) = (running.root.certificate.clone(), running.authority.pem());
    for trusted in [&root, &pods] {
        let answer = running.knock(16443, WHOLE, trusted, None).await;
        ensure!(answer.is_err(), "without a certificate: {answer:?}");
    }
    Ok(())
}
