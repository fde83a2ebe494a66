//! Who may call what, on a real Envoy: AccessPolicies for destinations and for the gateway itself.
//!
//! Every test first sees that the requests pass without the policy, and counts what reaches backends.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Protocol, Request};
use crate::support::load::{Load, Pace};
use crate::support::manifests::{self, Manifest};
use crate::support::tls::{Authority, Pair};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::yaml;

const HOST: &str = "www.example.com";
const BANK: &str = "bank.example.com";

/// Workspace `shop` owns the gateway, whose Pods run as `ingress`, and delegates everything to a table of `team`.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: team}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: shop, namespace: shop}
spec:
  exportTo: [{workspaces: [{name: team}], resources: [{kind: ROUTE_TABLE}]}]
  importFrom: [{workspaces: [{name: team}], resources: [{kind: SERVICE}]}]
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: team}
spec:
  exportTo: [{workspaces: [{name: shop}], resources: [{kind: SERVICE}]}]
  importFrom: [{workspaces: [{name: shop}], resources: [{kind: ROUTE_TABLE}]}]
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: shop}
spec:
  selector: {app: ingress}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: https, port: 443, targetPort: 8443}
    - {name: tcp, port: 9000, targetPort: 9000}
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-0, namespace: shop, labels: {app: ingress}}
spec: {serviceAccountName: ingress}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: ingress, namespace: shop}
spec:
  workloads: [{selector: {labels: {app: ingress}}}]
  listeners:
    - {http: {}, port: {number: 80}}
    - {http: {}, port: {number: 443}, tls: {mode: MUTUAL, secretName: bank}, allowedRouteTables: [{host: bank.example.com}]}
    - {tcp: {}, port: {number: 9000}}
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: team, labels: {guard: 'yes'}}
spec: {selector: {app: stock}, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stock-1, namespace: team, labels: {kubernetes.io/service-name: stock}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: stock-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: team}
spec: {selector: {app: cart}, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: team, labels: {kubernetes.io/service-name: cart}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: cart-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: www, namespace: shop}
spec:
  hosts: [www.example.com, bank.example.com]
  virtualGateways: [{name: ingress}]
  http: [{name: team, delegate: {routeTables: [{name: child, namespace: team}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw.example.com]
  virtualGateways: [{name: ingress}]
  tcp: [{forwardTo: {destinations: [{ref: {name: cart, namespace: team}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: child, namespace: team}
spec:
  http:
    - {name: cart, matchers: [{uri: {prefix: /cart}}], forwardTo: {destinations: [{ref: {name: cart}}]}}
    - {name: old, matchers: [{uri: {prefix: /old}}], forwardTo: {pathRewrite: /read, destinations: [{ref: {name: stock}}]}}
    - {name: odd, matchers: [{uri: {prefix: /read/odd}}], forwardTo: {pathRewrite: /odd, destinations: [{ref: {name: stock}}]}}
    - name: split
      matchers: [{uri: {prefix: /split}}]
      forwardTo: {destinations: [{ref: {name: stock}, weight: 50}, {ref: {name: cart}, weight: 50}]}
    - {name: stock, forwardTo: {destinations: [{ref: {name: stock}}]}}
";

struct World {
    mesh: Mesh,
    authority: Authority,
    clients: Authority,
}

fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

/// An AccessPolicy of a workspace, which is its namespace too.
fn policy(namespace: &str, name: &str, spec: &Value) -> Manifest {
    place(json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }))
}

/// One for the Service `stock`, by its label, with entries.
fn on_stock(name: &str, entries: &Value) -> Manifest {
    let selector = json!({"labels": {"guard": "yes"}});
    let spec = json!({"applyToDestinations": [{"selector": selector}], "config": {"authzList": entries}});
    policy("team", name, &spec)
}

fn request(method: &str, path: &str) -> Request {
    Request { method: method.to_owned(), ..Request::get(HOST, path) }
}

impl World {
    async fn start(policies: Vec<Manifest>) -> anyhow::Result<Self> {
        Self::start_without("", policies).await
    }

    /// The same without a table.
    async fn start_without(table: &str, policies: Vec<Manifest>) -> anyhow::Result<Self> {
        let (authority, clients) = (Authority::new("servers")?, Authority::new("clients")?);
        let mut all: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
        let mut bank = authority.sign(BANK, "bank")?.secret("shop", "bank");
        bank["stringData"]["ca.crt"] = json!(clients.pem());
        all.push(place(bank));
        all.extend(policies);
        all.retain(|manifest| manifest.kind() != "RouteTable" || manifest.name() != table);
        let mesh = Mesh::start(all, Settings::default()).await?;
        Ok(Self { mesh, authority, clients })
    }

    fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.mesh.gateways[0].address(port)
    }

    async fn status(&self, request: &Request) -> anyhow::Result<u16> {
        let answer = Client::new(self.address(80)?).send(request).await;
        Ok(answer.map_err(|error| self.mesh.with_logs(error))?.status)
    }

    /// Waits until a request is answered with a status.
    async fn becomes(&self, request: &Request, status: u16) -> anyhow::Result<()> {
        let what = format!("{status} for {} {}", request.method, request.path);
        until(PATIENCE, &what, async || match self.status(request).await {
            Ok(found) if found == status => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await
    }

    /// Over TLS, showing a certificate.
    async fn with_certificate(&self, pair: &Pair, path: &str) -> anyhow::Result<u16> {
        let dial = self.authority.dial(BANK, Some(pair), Protocol::Http1)?;
        let mut client = Client::with_tls(self.address(443)?, Protocol::Http1, dial);
        Ok(client.send(&Request::get(BANK, path)).await?.status)
    }

    fn write(&self, policies: &[Manifest]) -> anyhow::Result<()> {
        manifests::write(self.mesh.directory(), policies).map(drop)
    }

    fn remove(&self, policy: &Manifest) -> anyhow::Result<()> {
        let files = manifests::write(self.mesh.directory(), std::slice::from_ref(policy))?;
        files.iter().try_for_each(std::fs::remove_file).context("remove the policy")
    }

    /// How many requests a Service has received.
    fn received(&self, service: &str) -> u64 {
        let own = self.mesh.backends.iter().filter(|backend| backend.identity.service == service);
        own.map(Backend::requests).sum()
    }

    async fn sum(&self, stats: &str) -> anyhow::Result<u64> {
        Ok(self.mesh.gateways[0].envoy.stats(stats).await?.values().sum())
    }
}

/// Sends bytes as they are; the status of the answer.
async fn raw(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
    }
    let line = String::from_utf8_lossy(&answer);
    line.split_whitespace().nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("no status: {line}"))
}

fn rules() -> Manifest {
    on_stock(
        "rules",
        &json!([
            {"allowedPaths": ["/read*", "*.css"], "allowedMethods": ["GET"]},
            {"allowedMethods": ["PUT"], "match": {"request": {"headers": {
                "X-Role": {"values": ["admin", "op*s"], "notValues": ["guest", "*bad*"]}, "x-a": {"notValues": ["*"]}}}}},
            {"allowedMethods": ["DELETE"], "allowedRemoteIpBlocks": ["203.0.113.0/24"]},
            {"allowedMethods": ["PATCH"], "allowedRemoteIpBlocks": ["127.0.0.0/8"], "allowedIpBlocks": ["127.0.0.0/8"]},
            {"allowedMethods": ["POST"], "allowedClients": [
                {"serviceAccountSelector": {"name": "ingress", "namespace": "shop", "cluster": "cluster-1"}}]},
            {"allowedMethods": ["OPTIONS"], "allowedClients": [
                {"serviceAccountSelector": {"name": "other", "namespace": "shop", "cluster": "cluster-1"}}]},
        ]),
    )
}

/// Requests, and whether they pass the rules.
fn requests() -> Vec<(Request, bool)> {
    let put = || request("PUT", "/write").header("x-role", "admin");
    vec![
        (request("GET", "/read"), true),
        (request("GET", "/read/more?a=/x"), true),
        (request("GET", "/style/a.css"), true),
        (request("GET", "/write"), false),
        (request("GET", "/write?/read"), false),
        (request("GET", "/write?a.css"), false),
        (request("HEAD", "/read"), false),
        // The destination's own path is judged, as routes rewrite it.
        (request("GET", "/old"), true),
        (request("GET", "/read/odd"), false),
        // Tricks with paths come to what the backend sees.
        (request("GET", "/read/../write"), false),
        (request("GET", "/read/%2e%2e/write"), false),
        (request("GET", "/read/%2E%2e/./write"), false),
        (request("GET", "/x/..//read"), true),
        (request("GET", "//write//a"), false),
        (request("GET", "/READ"), false),
        (put(), true),
        (request("PUT", "/write"), false),
        (request("PUT", "/write").header("x-role", "opas"), true),
        (request("PUT", "/write").header("X-ROLE", "admin"), true),
        (request("PUT", "/write").header("x-role", "Admin"), false),
        (request("PUT", "/write").header("x-role", "opXs").header("x-role", "guest"), false),
        (request("PUT", "/write").header("x-role", "guest").header("X-Role", "ops"), false),
        (request("PUT", "/write").header("x-role", "ops, guest ,ops"), false),
        (request("PUT", "/write").header("x-role", "opbads"), false),
        // Of several lines every one must fit: a backend may take either.
        (put().header("x-role", "other"), false),
        (request("PUT", "/write").header("x-role", "other").header("X-Role", "admin"), false),
        (request("PUT", "/write").header("x-role", "opas").header("x-role", "op"), false),
        (request("PUT", "/write").header("x-role", "opas").header("x-role", "xops"), false),
        (put().header("x-role", ""), false),
        (put().header("x-role", "opas"), false),
        (put().header("x-role", "admin"), true),
        (request("PUT", "/write").header("x-role", "opas").header("x-role", "op,s"), true),
        (put().header("x-a", "1"), false),
        (put().header("x-a", ""), false),
        // Who claims to come from elsewhere is still who connects.
        (request("DELETE", "/write").header("x-forwarded-for", "203.0.113.9"), false),
        (request("PATCH", "/write"), true),
        (request("POST", "/write"), true),
        (request("OPTIONS", "/write"), false),
    ]
}

/// R118, R122, R205: what the owner of a destination says holds on the delegated routes of another workspace's gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_called_by_those_who_may() -> anyhow::Result<()> {
    let world = World::start(Vec::new()).await?;
    for (request, _) in requests() {
        assert_eq!(world.status(&request).await?, 200, "without the policy: {request:?}");
    }
    world.write(&[rules()])?;
    world.becomes(&request("GET", "/write"), 403).await?;
    for (request, passes) in requests() {
        let before = world.received("stock");
        assert_eq!(world.status(&request).await?, if passes { 200 } else { 403 }, "{request:?}");
        assert_eq!(world.received("stock") - before, u64::from(passes), "{request:?}");
    }
    // An escaped slash is no way around either: the client is told the plain path.
    assert_eq!(world.status(&request("GET", "/read/..%2fwrite")).await?, 307);
    let address = world.address(80)?;
    let sent = |headers: &[u8]| [b"PUT /write HTTP/1.1\r\nHost: www.example.com\r\n", headers, b"\r\n\r\n"].concat();
    assert_eq!(raw(address, &sent(b"X-rOLE: ops")).await?, 200);
    assert_eq!(
        raw(address, &sent(b"x-role: ops\r\nx-role: op\xff,guest,ops")).await?,
        403,
        "behind bytes that are no text"
    );
    assert_eq!(raw(address, &sent(b"x-role: op\xffs\r\nX-ROLE: guest")).await?, 403);
    assert_eq!(raw(address, &sent(b"x-role: op\xffbad,s")).await?, 403);
    assert_eq!(raw(address, &sent(b"x-role: admin\r\nx-role: \xffother")).await?, 403);
    // The neighbour without a policy is open, and a route with both is judged by where a request goes.
    assert_eq!(world.status(&request("DELETE", "/cart")).await?, 200);
    let mut seen = BTreeSet::new();
    for _ in 0..64 {
        seen.insert(world.status(&request("GET", "/split")).await?);
    }
    assert_eq!(seen, BTreeSet::from([200, 403]));
    Ok(())
}

/// D2: nobody who is refused makes the gateway connect, and a refusal is not tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_makes_no_connection() -> anyhow::Result<()> {
    let world = World::start(vec![on_stock("none", &json!([{}]))]).await?;
    world.becomes(&request("GET", "/read"), 403).await?;
    for path in ["/read", "/old", "/anything"] {
        assert_eq!(world.status(&request("GET", path)).await?, 403, "{path}");
    }
    assert_eq!((world.received("stock"), world.sum("team/stock.*upstream_cx_total$").await?), (0, 0));
    Ok(())
}

/// R123, R130: what one of two allows passes; an invalid third closes, until it is repaired.
#[tokio::test(flavor = "multi_thread")]
async fn policies_unite_and_an_invalid_one_closes() -> anyhow::Result<()> {
    let get = on_stock("get", &json!([{"allowedMethods": ["GET"]}]));
    let world = World::start(vec![get]).await?;
    let (read, write, other) = (request("GET", "/a"), request("PUT", "/a"), request("POST", "/a"));
    world.becomes(&write, 403).await?;
    assert_eq!(world.status(&read).await?, 200);

    let put = on_stock("put", &json!([{"allowedMethods": ["PUT"]}]));
    world.write(std::slice::from_ref(&put))?;
    world.becomes(&write, 200).await?;
    assert_eq!((world.status(&read).await?, world.status(&other).await?), (200, 403));

    // A field that nobody knows would let more in without it.
    for entry in [json!({"allowedMethods": [""]}), json!({"allowedMethods": ["POST"], "allowedClient": [{}]})] {
        let before = world.received("stock");
        world.write(&[on_stock("put", &json!([entry]))])?;
        world.becomes(&read, 403).await?;
        assert_eq!((world.status(&write).await?, world.status(&other).await?), (403, 403));
        let (report, _) = chancery::check(world.mesh.directory(), &world.mesh.settings)?;
        ensure!(report.to_string().contains("spec.config.authzList[0].allowed"), "{report}");
        let passed = world.received("stock") - before;
        world.write(std::slice::from_ref(&put))?;
        world.becomes(&write, 200).await?;
        ensure!(passed <= 100, "{passed} requests passed while the policy was replaced");
    }
    Ok(())
}

/// Entries that are only evaluated refuse nobody; on a gateway Envoy counts what they would do.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_refuses_nobody() -> anyhow::Result<()> {
    let entries = json!([{"dryRun": true, "allowedMethods": ["PUT"]}]);
    let door = policy("shop", "door", &json!({"applyToWorkloads": [{}], "config": {"authzList": entries}}));
    let world = World::start(vec![on_stock("dry", &entries), door]).await?;
    for (method, result) in [("GET", "denied"), ("PUT", "allowed")] {
        assert_eq!(world.status(&request(method, "/a")).await?, 200, "{method}");
        let counted = world.sum(&format!("chancery_dry_run_.*shadow_{result}$")).await?;
        ensure!(counted == 1, "{counted} {:?}", world.mesh.gateways[0].envoy.stats("shadow").await?);
    }
    Ok(())
}

/// R120: on a gateway, by client certificate, path and address; and for whole connections by address.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_called_by_those_who_may() -> anyhow::Result<()> {
    let world = World::start(Vec::new()).await?;
    let friend = world.clients.sign_uri("spiffe://cluster-9/ns/apps/sa/friend")?;
    let stranger = world.clients.sign_uri("spiffe://cluster-9/ns/apps/sa/stranger")?;
    for pair in [&friend, &stranger] {
        assert_eq!(world.with_certificate(pair, "/cart").await?, 200);
    }
    let tcp = || async { raw(world.address(9000)?, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await };
    assert_eq!(tcp().await?, 200);

    let account = json!({"name": "friend", "namespace": "apps", "cluster": "cluster-9"});
    let door =
        |entries: Value| policy("shop", "door", &json!({"applyToWorkloads": [{}], "config": {"authzList": entries}}));
    let friends = json!({"allowedClients": [{"serviceAccountSelector": account}], "allowedPaths": ["/cart*"]});
    world.write(&[door(json!([friends.clone()]))])?;
    let anybody = request("GET", "/cart");
    world.becomes(&anybody, 403).await?;
    let before = (world.received("cart"), world.received("stock"));
    assert_eq!(world.with_certificate(&stranger, "/cart").await?, 403);
    assert_eq!(world.with_certificate(&friend, "/read").await?, 403);
    assert_eq!(
        world
            .status(&anybody.clone().header("x-forwarded-client-cert", "URI=spiffe://cluster-9/ns/apps/sa/friend"))
            .await?,
        403
    );
    ensure!(tcp().await.is_err(), "of a connection nothing is known that the entry asks for");
    assert_eq!((world.received("cart"), world.received("stock")), before, "nobody reached a backend");
    assert_eq!(world.with_certificate(&friend, "/cart").await?, 200);

    world.write(&[door(json!([friends.clone(), {"allowedIpBlocks": ["127.0.0.0/8"]}]))])?;
    world.becomes(&anybody, 200).await?;
    assert_eq!(world.with_certificate(&stranger, "/read").await?, 200);
    until(PATIENCE, "connections from here", async || match tcp().await {
        Ok(200) => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;

    // An invalid one closes all of it (D3).
    world.write(&[door(json!([{"allowedIpBlocks": ["everywhere"]}]))])?;
    world.becomes(&anybody, 403).await?;
    assert_eq!(world.with_certificate(&friend, "/cart").await?, 403);
    until(PATIENCE, "closed connections", async || match tcp().await {
        Err(_) => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await
}

/// A policy comes, changes and goes without a failed request of those who may, and without another listener.
#[tokio::test(flavor = "multi_thread")]
async fn policies_come_and_go_under_load() -> anyhow::Result<()> {
    // The rules for routes of whole connections are part of the listener.
    let world = World::start_without("raw", Vec::new()).await?;
    let (read, write) = (request("GET", "/read"), request("PUT", "/a"));
    world.becomes(&write, 200).await?;
    let modified = world.sum("listener_manager.listener_(modified|added)$").await?;
    let judge = |_: usize, answer: &crate::support::http::Response| {
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    };
    let load =
        Load::start(world.address(80)?, 4, Pace::PerSecond(200), vec![read.clone(), request("GET", "/cart")], judge);
    let stock = on_stock("turns", &json!([{"allowedMethods": ["GET"]}]));
    let entries = json!([{"allowedMethods": ["GET"]}]);
    let door = policy("shop", "turns", &json!({"applyToWorkloads": [{}], "config": {"authzList": entries}}));
    for _ in 0..5 {
        for policy in [&stock, &door] {
            world.write(std::slice::from_ref(policy))?;
            world.becomes(&write, 403).await?;
            world.remove(policy)?;
            world.becomes(&write, 200).await?;
            load.goes_on(4).await?;
        }
    }
    let tally = load.tally().await?;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert_eq!(world.sum("listener_manager.listener_(modified|added)$").await?, modified);
    assert_eq!(world.sum("listener_manager.total_listeners_draining$").await?, 0);
    Ok(())
}
