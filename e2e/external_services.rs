//! External services and TLS that gateways start, with servers that are what they claim to be, and with others.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::support::backend::{Backend, Identity};
use crate::support::chancery::Settings;
use crate::support::dns::Dns;
use crate::support::http::{Client, Protocol, Request, Response, get};
use crate::support::issuer::base64;
use crate::support::load::{Load, Pace};
use crate::support::manifests::{self, Manifest, port, text};
use crate::support::net::Network;
use crate::support::tls::{Authority, Dial, Handshake, Pair, TlsFront};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::support::yaml;
use crate::trust::{Root, from_secret, policy};

/// A gateway, and a Service whose one Pod is not started with the world.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}, {name: apps}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec:
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: tls, port: 8443, targetPort: 8444}
    - {name: tcp, port: 9000, targetPort: 9000}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners:
    - {http: {}, port: {number: 80}}
    - {tcp: {}, port: {number: 8443}, tls: {mode: PASSTHROUGH}}
    - {tcp: {}, port: {number: 9000}}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: apps, labels: {app: vault}}
spec: {selector: {app: vault}, ports: [{name: http, port: 8200, targetPort: 8200}]}
---
apiVersion: v1
kind: Pod
metadata: {name: vault-1, namespace: apps, labels: {app: vault}}
status: {podIP: 10.0.0.9}
";

/// The world as it runs, and what is outside it.
struct Running {
    mesh: Mesh,
    network: Network,
    dns: Dns,
    /// Signs the certificates of servers.
    authority: Authority,
    folder: TempDir,
}

/// What is there before the world is.
struct Outside {
    network: Network,
    dns: Dns,
    authority: Authority,
    folder: TempDir,
}

impl Outside {
    async fn start() -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let dns = Dns::start(network.next_address()?).await?;
        let outside = Self { network, dns, authority: Authority::new("servers")?, folder: tempfile::tempdir()? };
        std::fs::write(outside.authorities(), outside.authority.pem())?;
        Ok(outside)
    }

    /// A file with the authority, for the gateway.
    fn authorities(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Starts the world with further objects.
    async fn run(self, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<Running> {
        let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
        manifests.extend(objects.into_iter().map(place));
        let Self { network, dns, authority, folder } = self;
        // What Envoy refuses servers for is in the statistics of clusters.
        let speech = Speech { dns: Some(&dns), flags: &["--cluster-stats"], ..Speech::default() };
        let mesh = Mesh::start_speaking(manifests, Settings::default(), &speech).await?;
        Ok(Running { mesh, network, dns, authority, folder })
    }
}

fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

fn external(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "ExternalService",
        "metadata": {"name": name, "namespace": "apps"},
    });
    object["spec"] = spec;
    object
}

fn endpoint(name: &str, label: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "ExternalEndpoint",
        "metadata": {"name": name, "namespace": "apps", "labels": {"app": label}},
    });
    object["spec"] = spec;
    object
}

/// A table with a route `/name` for each external service.
fn table(names: &[&str]) -> Value {
    let route = |name: &&str| {
        json!({
            "name": name, "matchers": [{"uri": {"prefix": format!("/{name}")}}],
            "forwardTo": {"destinations": [{"ref": {"name": name}, "kind": "EXTERNAL_SERVICE"}]},
        })
    };
    json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "shop", "namespace": "apps"},
        "spec": {
            "hosts": ["shop.example"], "virtualGateways": [{"name": "web", "namespace": "edge"}],
            "http": names.iter().map(route).collect::<Vec<_>>(),
        },
    })
}

/// A backend that is known by its Pod.
async fn backend(pod: &str, address: SocketAddr) -> anyhow::Result<Backend> {
    let identity = Identity { cluster: "outside".to_owned(), pod: pod.to_owned(), ..Identity::default() };
    Backend::start(identity, address).await
}

fn pod(answer: &Response) -> anyhow::Result<String> {
    Ok(answer.json()?["pod"].as_str().unwrap_or_default().to_owned())
}

/// A TLS server of its own in front of a backend of its own.
struct Server {
    address: SocketAddr,
    backend: Backend,
    front: TlsFront,
}

impl Running {
    fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.mesh.gateways[0].address(port)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        get(self.address(80)?, "shop.example", path).await
    }

    /// Waits for an answer with a status.
    async fn answers(&self, path: &str, status: u16) -> anyhow::Result<Response> {
        until(PATIENCE, &format!("{status} from {path}"), async || match self.get(path).await {
            Ok(answer) if answer.status == status => Ok(answer),
            Ok(answer) => Err(Not::Yet(format!("{} {}", answer.status, answer.text()))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// Waits for an answer of a Pod.
    async fn is_answered_by(&self, path: &str, wanted: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("{wanted} behind {path}"), async || match self.get(path).await {
            Ok(answer) if answer.status == 200 => match pod(&answer) {
                Ok(pod) if pod == wanted => Ok(()),
                other => Err(Not::Yet(format!("{other:?}"))),
            },
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// How often the gateway has refused the certificates of a destination for a reason.
    async fn refusals(&self, destination: &str, reason: &str) -> anyhow::Result<u64> {
        let counted = self.mesh.gateways[0].envoy.stats("fail_verify").await?;
        let own = counted.iter().filter(|(name, _)| name.contains(destination) && name.ends_with(reason));
        Ok(own.map(|(_, count)| count).sum())
    }

    /// Waits for an answer that is an error, as it is where something speaks plaintext to TLS.
    async fn fails(&self, path: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("an error from {path}"), async || match self.get(path).await {
            Ok(answer) if matches!(answer.status, 502 | 503) => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// Adds an object, or puts it in place of the one of its name.
    fn put(&self, object: Value) -> anyhow::Result<()> {
        manifests::write(self.mesh.directory(), &[place(object)]).map(drop)
    }

    fn remove(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let folder = self.mesh.directory().join("cluster-1").join(namespace);
        std::fs::remove_file(folder.join(format!("{}-{name}.yaml", kind.to_lowercase()))).context("remove a file")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r199_d32_servers_are_verified_by_authority_name_and_time() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let stranger = Authority::new("stranger")?;
    let own = &outside.authority;
    let authorities = json!(outside.authorities());
    let ca = json!({"caCertificates": authorities});
    let host = |name: &str| json!({"hosts": [format!("{name}.example")]});
    // Name, what it says of itself beside its port, TLS of its port, the server's certificate; the server name that it is
    // asked for if requests reach it, else what Envoy counts when it refuses the server.
    let good = own.sign("good.example", "good")?;
    let cases = [
        ("good", host("good"), ca.clone(), good.clone(), Ok(Some("good.example"))),
        (
            "sni",
            host("sni"),
            json!({"caCertificates": authorities, "sni": "good.example"}),
            good.clone(),
            Ok(Some("good.example")),
        ),
        (
            "names",
            json!({"hosts": ["names.example"], "subjectAltNames": ["other.example", "good.example"]}),
            ca.clone(),
            good.clone(),
            Ok(Some("names.example")),
        ),
        (
            "below",
            json!({"hosts": ["*.below.example"], "selector": {"app": "below"}}),
            ca.clone(),
            own.sign("a.below.example", "below")?,
            Ok(None),
        ),
        (
            "skip",
            host("skip"),
            json!({"insecureSkipVerify": true}),
            stranger.sign("any.example", "any")?,
            Ok(Some("skip.example")),
        ),
        ("renamed", host("renamed"), ca.clone(), good.clone(), Err("fail_verify_san")),
        ("ended", host("ended"), ca.clone(), own.sign_ended("ended.example")?, Err("fail_verify_error")),
        (
            "foreign",
            host("foreign"),
            ca.clone(),
            stranger.sign("foreign.example", "foreign")?,
            Err("fail_verify_error"),
        ),
        // Nobody but the system's authorities is trusted unless it is said.
        ("system", host("system"), json!({}), own.sign("system.example", "system")?, Err("fail_verify_error")),
        (
            "above",
            json!({"hosts": ["*.above.example"], "selector": {"app": "above"}}),
            ca.clone(),
            own.sign("above.example", "above")?,
            Err("fail_verify_san"),
        ),
    ];
    let mut objects = vec![table(&[
        "good", "sni", "names", "below", "skip", "renamed", "ended", "foreign", "system", "above", "address",
    ])];
    let mut servers = Vec::new();
    for (name, spec, tls, pair, _) in &cases {
        let ip = outside.network.next_address()?;
        let address = SocketAddr::from((ip, outside.network.free_port()?));
        let backend = backend(name, SocketAddr::from((outside.network.next_address()?, 0))).await?;
        let front = TlsFront::start(address, pair, backend.address).await?;
        outside.dns.set(&format!("{name}.example"), &[ip]);
        let mut spec = spec.clone();
        spec["ports"] = json!([{
            "number": 80, "protocol": "HTTP", "targetPort": {"number": address.port()}, "clientsideTls": tls,
        }]);
        objects.push(external(name, spec));
        if ["below", "above"].contains(name) {
            let spec = json!({"address": ip.to_string(), "ports": [{"number": address.port()}]});
            objects.push(endpoint(name, name, spec));
        }
        servers.push(Server { address, backend, front });
    }
    // By address, with an address in the certificate.
    let ip = outside.network.next_address()?;
    let address = SocketAddr::from((ip, outside.network.free_port()?));
    let by_address = backend("address", SocketAddr::from((outside.network.next_address()?, 0))).await?;
    let front = TlsFront::start(address, &own.sign(&ip.to_string(), "address")?, by_address.address).await?;
    objects.push(external(
        "address",
        json!({"addresses": [ip.to_string()], "ports": [{"number": address.port(), "protocol": "HTTPS", "clientsideTls": ca}]}),
    ));
    let running = outside.run(objects).await?;
    running.answers("/good", 200).await?;
    for ((name, .., expected), server) in cases.iter().zip(&servers) {
        let answer = running.get(&format!("/{name}")).await?;
        match expected {
            Ok(server_name) => {
                ensure!(answer.status == 200, "{name} at {}: {} {}", server.address, answer.status, answer.text());
                // The Host header stays the client's.
                assert_eq!(answer.json()?["host"], "shop.example", "{name}");
                let server_name = server_name.map(ToOwned::to_owned);
                assert_eq!(server.front.handshakes().pop(), Some(Handshake { server_name, client: None }), "{name}");
            }
            Err(why) => {
                assert_eq!(answer.status, 503, "{name}: {}", answer.text());
                assert_eq!(server.backend.requests(), 0, "{name}");
                ensure!(running.refusals(&format!("/{name}/"), why).await? > 0, "{name} is refused for another reason");
            }
        }
    }
    assert_eq!(running.get("/address").await?.status, 200);
    assert_eq!(front.handshakes().pop(), Some(Handshake { server_name: None, client: None }));
    Ok(())
}

/// The same server once more: connections to it are new ones.
async fn again(
    front: TlsFront,
    (address, pair, clients): (SocketAddr, &Pair, &Authority),
    backend: SocketAddr,
) -> anyhow::Result<TlsFront> {
    drop(front);
    until(PATIENCE, "the server's address", async || {
        let started = TlsFront::start_asking(address, pair, Some(clients), backend).await;
        started.map_err(|error| Not::Yet(format!("{error:#}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r199_a_credential_is_shown_renewed_and_never_done_without() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let (clients, others) = (Authority::new("clients")?, Authority::new("others")?);
    let ip = outside.network.next_address()?;
    let address = SocketAddr::from((ip, outside.network.free_port()?));
    let behind = backend("bank", SocketAddr::from((outside.network.next_address()?, 0))).await?;
    let pair = outside.authority.sign("bank.example", "bank")?;
    let front = TlsFront::start_asking(address, &pair, Some(&clients), behind.address).await?;
    outside.dns.set("bank.example", &[ip]);
    let ca = outside.authority.pem();
    let credential = |pair: &Pair| {
        let mut secret = pair.secret("edge", "bank");
        secret["stringData"]["ca.crt"] = json!(ca);
        secret
    };
    let first = clients.sign("gateway.example", "first")?;
    let spec = json!({"hosts": ["bank.example"], "ports": [{
        "number": 80, "protocol": "HTTP", "targetPort": {"number": address.port()},
        "clientsideTls": {"mode": "MUTUAL", "credentialName": "bank"},
    }]});
    let gateway = yaml::documents(
        "
apiVersion: v1
kind: Service
metadata: {name: other, namespace: edge}
spec: {selector: {app: other}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: other, namespace: edge}
spec: {workloads: [{selector: {labels: {app: other}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: other, namespace: edge}
spec: {hosts: [other.example], virtualGateways: [{name: other}], http: [{directResponse: {status: 200}}]}
",
    )?;
    let objects = [table(&["bank"]), external("bank", spec), credential(&first)];
    let running = outside.run(objects.into_iter().chain(gateway)).await?;
    running.answers("/bank", 200).await?;
    let shown =
        |client: &str| Handshake { server_name: Some("bank.example".to_owned()), client: Some(client.to_owned()) };
    assert_eq!(front.handshakes().pop(), Some(shown("first")));

    // The key is with the gateway that uses it, and with no other.
    let of =
        |name: &str| running.mesh.gateways.iter().find(|running| running.gateway.service == name).expect("a gateway");
    // A connection keeps the certificate that it began with: whoever wants to see another waits until Envoy has it.
    let has = async |pair: &Pair| {
        let certificate = base64(&pair.certificate);
        until(PATIENCE, "a certificate to arrive", async || match of("web").envoy.admin("/config_dump").await {
            Ok(dump) if dump.contains(&certificate) => Ok(()),
            Ok(_) => Err(Not::Yet("not there".to_owned())),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
    };
    let secret = "secret/cluster-1/edge/bank";
    let dump = of("web").envoy.admin("/config_dump").await?;
    ensure!(dump.contains(secret), "the gateway that uses it");
    let dump = of("other").envoy.admin("/config_dump").await?;
    ensure!(!dump.contains(secret), "a gateway that does not use it");

    // A new certificate costs no request, and new connections show it.
    let requests = vec![Request::get("shop.example", "/bank")];
    let load = Load::start(running.address(80)?, 4, Pace::PerSecond(200), requests, |_, answer| {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    });
    load.goes_on(50).await?;
    let second = clients.sign("gateway.example", "second")?;
    running.put(credential(&second))?;
    has(&second).await?;
    load.goes_on(200).await?;
    load.end().await?;
    let front = again(front, (address, &pair, &clients), behind.address).await?;
    until(PATIENCE, "the second certificate", async || {
        let _ = running.get("/bank").await;
        match front.handshakes().pop() {
            Some(last) if last == shown("second") => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        }
    })
    .await?;

    // One that the server does not take, and then none at all: nothing gets there, least of all without TLS.
    let third = others.sign("gateway.example", "third")?;
    running.put(credential(&third))?;
    has(&third).await?;
    let front = again(front, (address, &pair, &clients), behind.address).await?;
    running.answers("/bank", 503).await?;
    ensure!(front.handshakes().iter().all(|seen| seen.client.as_deref() != Some("third")), "{:?}", front.handshakes());
    running.remove("Secret", "edge", "bank")?;
    until(PATIENCE, "no endpoints", async || match running.get("/bank").await {
        Ok(answer) if answer.status == 503 && answer.text().contains("no healthy upstream") => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    let before = behind.requests();
    assert_eq!(running.get("/bank").await?.status, 503);
    assert_eq!(behind.requests(), before);
    running.put(credential(&first))?;
    running.answers("/bank", 200).await?;
    Ok(())
}

/// With `ISTIO_MUTUAL` a gateway is who it is between clusters: its own identity is shown, and one under the same root is wanted.
#[tokio::test(flavor = "multi_thread")]
async fn r199_istio_mutual_shows_the_identity_of_the_gateway_and_wants_one_under_the_root() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let (root, next, foreign) = (Root::new("root")?, Root::new("next")?, Root::new("foreign")?);
    // One is in the mesh, one says so and is under another root, one is the first and does not show who it is.
    let mut objects =
        vec![table(&["friend", "foreign", "named"]), root.secret("ca").object, policy(&from_secret()).object];
    let mut servers = Vec::new();
    for (name, authority, uri) in [
        ("friend", &root, "spiffe://elsewhere/ns/bank/sa/server"),
        ("foreign", &foreign, "spiffe://elsewhere/ns/bank/sa/server"),
        ("named", &root, "spiffe://elsewhere/ns/bank/sa/other"),
    ] {
        let ip = outside.network.next_address()?;
        let address = SocketAddr::from((ip, outside.network.free_port()?));
        let backend = backend(name, SocketAddr::from((outside.network.next_address()?, 0))).await?;
        let pair = authority.identity(uri)?;
        let front = TlsFront::start_under(address, &pair, Some(&root.certificate), backend.address).await?;
        outside.dns.set(&format!("{name}.example"), &[ip]);
        let mut spec = json!({"hosts": [format!("{name}.example")], "ports": [{
            "number": 80, "protocol": "HTTP", "targetPort": {"number": address.port()},
            "clientsideTls": {"mode": "ISTIO_MUTUAL"},
        }]});
        if name == "named" {
            spec["subjectAltNames"] = json!(["spiffe://elsewhere/ns/bank/sa/server"]);
        }
        objects.push(external(name, spec));
        servers.push(Server { address, backend, front });
    }
    let running = outside.run(objects).await?;
    let front = &servers[0].front;
    running.answers("/friend", 200).await.with_context(|| format!("{:?}", front.refusals()))?;
    let own = vec!["spiffe://cluster-1/ns/edge/sa/default".to_owned()];
    assert_eq!(front.identities().pop(), Some(own.clone()));
    for (path, reason) in [("foreign", "fail_verify_error"), ("named", "fail_verify_san")] {
        running.answers(&format!("/{path}"), 503).await?;
        ensure!(running.refusals(&format!("apps/{path}/"), reason).await? > 0, "{path} is refused for another reason");
    }
    assert_eq!(servers[1].backend.requests() + servers[2].backend.requests(), 0);

    // Another root, and the server follows; without any nothing gets there, least of all without TLS.
    running.put(next.secret("ca").object)?;
    let Server { address, backend, front } = servers.remove(0);
    drop(front);
    let pair = next.identity("spiffe://elsewhere/ns/bank/sa/server")?;
    let front = until(PATIENCE, "the address to be free", async || {
        let front = TlsFront::start_under(address, &pair, Some(&next.certificate), backend.address).await;
        front.map_err(|error| Not::Yet(format!("{error:#}")))
    })
    .await?;
    running.answers("/friend", 200).await.with_context(|| format!("{:?}", front.refusals()))?;
    assert_eq!(front.identities().pop(), Some(own));
    std::fs::remove_file(running.mesh.directory().join("mgmt/gloo-mesh/roottrustpolicy-root.yaml"))?;
    until(PATIENCE, "no endpoints", async || match running.get("/friend").await {
        Ok(answer) if answer.status == 503 && answer.text().contains("no healthy upstream") => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r197_gateways_follow_dns_endpoints_and_sockets() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let port = outside.network.free_port()?;
    let at = |ip: Ipv4Addr| SocketAddr::from((ip, port));
    let (one, two) = (outside.network.next_address()?, outside.network.next_address()?);
    let (first, second) = (backend("one", at(one)).await?, backend("two", at(two)).await?);
    outside.dns.set("pay.example", &[one]);
    // What a search list would make of a name: somebody's Pod `lost` of a Service `example`.
    outside.dns.set("lost.example.svc.cluster.local", &[two]);
    let http = |target: Value| json!([{"number": 80, "protocol": "HTTP", "targetPort": target}]);
    let socket = outside.folder.path().join("pay.sock");
    let listener = UnixListener::bind(&socket)?;
    let behind = first.address;
    let relay = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut front, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut back = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut front, &mut back).await
            });
        }
    });
    let objects = [
        table(&["name", "static", "mixed", "socket", "lost"]),
        external("name", json!({"hosts": ["pay.example"], "ports": http(json!({"number": port}))})),
        external(
            "static",
            json!({"hosts": ["gone.example"], "selector": {"app": "static"}, "ports": http(json!({"name": "web"}))}),
        ),
        endpoint("static", "static", json!({"address": one.to_string(), "ports": [{"name": "web", "number": port}]})),
        external(
            "mixed",
            json!({"hosts": ["gone.example"], "selector": {"app": "mixed"}, "ports": http(json!({"number": port}))}),
        ),
        endpoint("mixed-1", "mixed", json!({"address": "pay.example", "ports": [{"number": port}]})),
        endpoint("mixed-2", "mixed", json!({"address": two.to_string(), "ports": [{"number": port}]})),
        external(
            "socket",
            json!({"hosts": ["gone.example"], "selector": {"app": "socket"}, "ports": [{"number": 80, "protocol": "HTTP"}]}),
        ),
        endpoint("socket", "socket", json!({"address": format!("unix://{}", socket.display())})),
        external("lost", json!({"hosts": ["lost.example"], "ports": http(json!({"number": port}))})),
    ];
    let running = outside.run(objects).await?;
    for path in ["/name", "/static", "/socket"] {
        running.is_answered_by(path, "one").await?;
    }
    // Names and addresses side by side.
    running.is_answered_by("/mixed", "one").await?;
    running.is_answered_by("/mixed", "two").await?;
    // A name that does not exist has no endpoints, whatever it would be in a list of domains.
    assert_eq!(running.get("/lost").await?.status, 503);

    // An endpoint moves, and no request fails.
    let requests = vec![Request::get("shop.example", "/static")];
    let load = Load::start(running.address(80)?, 4, Pace::PerSecond(200), requests, |_, answer| {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    });
    load.goes_on(50).await?;
    running.put(endpoint(
        "static",
        "static",
        json!({"address": two.to_string(), "ports": [{"name": "web", "number": port}]}),
    ))?;
    running.is_answered_by("/static", "two").await?;
    load.goes_on(50).await?;
    load.end().await?;

    // The name has another address, and then none.
    running.dns.set("pay.example", &[two]);
    running.is_answered_by("/name", "two").await?;
    running.dns.set("pay.example", &[]);
    running.answers("/name", 503).await?;
    drop((first, second));
    relay.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r195_a_client_tls_policy_comes_and_goes() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let pair = outside.authority.sign("vault.apps.svc.cluster.local", "vault")?;
    let ca = outside.authority.pem();
    let table = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "shop", "namespace": "apps"},
        "spec": {
            "hosts": ["shop.example"], "virtualGateways": [{"name": "web", "namespace": "edge"}],
            "http": [{"name": "vault", "forwardTo": {"destinations": [{"ref": {"name": "vault"}}]}}],
        },
    });
    let trusted = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-ca", "namespace": "edge"},
        "stringData": {"ca.crt": ca},
    });
    let mut running = outside.run([table, trusted]).await?;
    let manifest =
        |key: &str| running.mesh.manifests.iter().find(|manifest| manifest.key() == key).context("an object");
    let ip: Ipv4Addr = text(&manifest("Pod/apps/vault-1@cluster-1")?.object, "/status/podIP").parse()?;
    let number =
        port(&manifest("Service/apps/vault@cluster-1")?.object, "/spec/ports/0/targetPort").context("a port")?;
    let behind = backend("vault", SocketAddr::from((running.network.next_address()?, 0))).await?;
    let front = TlsFront::start(SocketAddr::from((ip, number)), &pair, behind.address).await?;
    let policy = |config: Value| {
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ClientTLSPolicy",
            "metadata": {"name": "vault", "namespace": "apps"},
            "spec": {"applyToDestinations": [{"selector": {"labels": {"app": "vault"}}}], "config": config},
        })
    };

    // In plaintext nothing gets there.
    running.fails("/").await?;
    assert_eq!((behind.requests(), front.handshakes().len()), (0, 0));
    running.put(policy(json!({"simple": {"config": {"credentialName": "vault-ca"}}})))?;
    running.answers("/", 200).await?;
    let server_name = Some("vault.apps.svc.cluster.local".to_owned());
    assert_eq!(front.handshakes().pop(), Some(Handshake { server_name, client: None }));

    // A name that the server does not have; a policy that cannot be honoured; a Secret that is not there.
    running.put(policy(json!({"simple": {"config": {"sni": "else.example", "credentialName": "vault-ca"}}})))?;
    running.answers("/", 503).await?;
    let before = behind.requests();
    ensure!(running.refusals("apps/vault/", "fail_verify_san").await? > 0, "it is refused for another reason");
    for config in
        [json!({"mutual": {}}), json!({"mutual": {"config": {"credentialName": "gone"}}}), json!({"istioMutual": {}})]
    {
        running.put(policy(config.clone()))?;
        until(PATIENCE, &format!("no endpoints with {config}"), async || match running.get("/").await {
            Ok(answer) if answer.status == 503 && answer.text().contains("no healthy upstream") => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await?;
    }
    assert_eq!(behind.requests(), before);
    running.put(policy(json!({"simple": {"config": {"credentialName": "vault-ca"}}})))?;
    running.answers("/", 200).await?;

    // Without the policy it is plaintext again. A port for HTTPS is verified with the system's authorities.
    running.remove("ClientTLSPolicy", "apps", "vault")?;
    running.fails("/").await?;
    let before = behind.requests();
    running.mesh.edit("Service/apps/vault@cluster-1", |service| {
        service["spec"]["ports"][0]["appProtocol"] = json!("https");
    })?;
    until(PATIENCE, "the server to be refused", async || {
        let answer = running.get("/").await.map_err(|error| Not::Yet(format!("{error:#}")))?;
        match running.refusals("apps/vault/", "fail_verify_error").await {
            Ok(count) if count > 0 && answer.status == 503 => Ok(()),
            other => Err(Not::Yet(format!("{} {other:?}", answer.status))),
        }
    })
    .await?;
    assert_eq!(behind.requests(), before);
    running.put(policy(json!({"simple": {"config": {"credentialName": "vault-ca"}}})))?;
    running.answers("/", 200).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r199_whole_connections_go_out_in_tls_or_as_they_are() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let ip = outside.network.next_address()?;
    let address = SocketAddr::from((ip, outside.network.free_port()?));
    let behind = backend("pay", SocketAddr::from((outside.network.next_address()?, 0))).await?;
    let front = TlsFront::start(address, &outside.authority.sign("pay.example", "pay")?, behind.address).await?;
    outside.dns.set("pay.example", &[ip]);
    let target = json!({"number": address.port()});
    let tls = json!({"caCertificates": outside.authorities()});
    let service = external(
        "pay",
        json!({"hosts": ["pay.example"], "ports": [
            {"number": 1, "protocol": "TCP", "targetPort": target, "clientsideTls": tls},
            {"number": 2, "protocol": "TLS", "targetPort": target},
        ]}),
    );
    let to = |port: u16| json!({"destinations": [{"ref": {"name": "pay"}, "kind": "EXTERNAL_SERVICE", "port": {"number": port}}]});
    let table = json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "shop", "namespace": "apps"},
        "spec": {
            "hosts": ["pay.example"], "virtualGateways": [{"name": "web", "namespace": "edge"}],
            "tcp": [{"forwardTo": to(1)}],
            "tls": [{"matchers": [{"sniHosts": ["pay.example"]}], "forwardTo": to(2)}],
        },
    });
    let running = outside.run([service, table]).await?;
    // The gateway starts TLS on what comes in plaintext.
    let (plain, passed) = (running.address(9000)?, running.address(8443)?);
    let answer = until(PATIENCE, "an answer", async || match get(plain, "any.example", "/").await {
        Ok(answer) if answer.status == 200 => Ok(answer),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    assert_eq!(pod(&answer)?, "pay");
    let dial = Dial::under(&running.authority.pem(), None)?.asking(Some("pay.example"), Protocol::Http1)?;
    assert_eq!(dial.shown(passed).await?, "pay");
    let mut client = Client::with_tls(passed, Protocol::Http1, dial);
    assert_eq!(client.send(&Request::get("any.example", "/")).await?.status, 200);
    ensure!(front.handshakes().iter().all(|seen| seen.server_name.as_deref() == Some("pay.example")));
    drop(running.folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r167_external_services_are_backends_of_a_virtual_destination() -> anyhow::Result<()> {
    let outside = Outside::start().await?;
    let network = &outside.network;
    let (secure, open) = (network.next_address()?, network.next_address()?);
    let (https, http) = (network.free_port()?, network.free_port()?);
    let behind = backend("secure", SocketAddr::from((network.next_address()?, 0))).await?;
    let pair = outside.authority.sign("pay.example", "pay")?;
    let front = TlsFront::start(SocketAddr::from((secure, https)), &pair, behind.address).await?;
    let plain = backend("open", SocketAddr::from((open, http))).await?;
    outside.dns.set("pay.example", &[secure]);
    let inside = yaml::documents(
        "
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: apps}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pay-1, namespace: apps, labels: {kubernetes.io/service-name: pay}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: inside, namespace: apps}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: pay, namespace: apps}
spec:
  hosts: [pay.mesh]
  services: [{name: pay}]
  externalServices: [{name: secure}, {name: open}]
  ports: [{number: 80, protocol: HTTP}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: edge}]
  http: [{name: pay, forwardTo: {destinations: [{ref: {name: pay}, kind: VIRTUAL_DESTINATION}]}}]
",
    )?;
    let services = [
        external(
            "secure",
            json!({"hosts": ["pay.example"], "ports": [{
                "number": 80, "protocol": "HTTP", "targetPort": {"number": https},
                "clientsideTls": {"caCertificates": outside.authorities()},
            }]}),
        ),
        external(
            "open",
            json!({"addresses": [open.to_string()], "ports": [{"number": 80, "protocol": "HTTP", "targetPort": {"number": http}}]}),
        ),
    ];
    let running = outside.run(inside.into_iter().chain(services)).await?;
    for pod in ["inside", "secure", "open"] {
        running.is_answered_by("/", pod).await?;
    }
    let server_name = Some("pay.example".to_owned());
    assert_eq!(front.handshakes().pop(), Some(Handshake { server_name, client: None }));
    // One of them goes, and the others serve on.
    running.remove("ExternalService", "apps", "open")?;
    until(PATIENCE, "the last request to it", async || {
        let before = plain.requests();
        for _ in 0..20 {
            let answer = running.get("/").await.map_err(|error| Not::Yet(format!("{error:#}")))?;
            if answer.status != 200 {
                return Err(Not::Ever(format!("{} {}", answer.status, answer.text())));
            }
        }
        if plain.requests() == before { Ok(()) } else { Err(Not::Yet("it is still used".to_owned())) }
    })
    .await?;
    for pod in ["inside", "secure"] {
        running.is_answered_by("/", pod).await?;
    }
    Ok(())
}
