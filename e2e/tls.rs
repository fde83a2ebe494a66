//! TLS on a real gateway: who is shown which certificate, who is let in, and what a change does to whom.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Protocol, Request, get};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::net::Network;
use crate::support::proxy::Proxy;
use crate::support::tls::{Authority, Dial, Pair, TlsFront};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};
use crate::support::yaml;
use crate::variants::STATE_OF_THE_WORLD;

mod cut;

/// Two workspaces' worth of nothing but what TLS needs: a gateway with four ports, a backend, a table per host.
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
    - {name: https, port: 443, targetPort: 8443}
    - {name: tls, port: 8443, targetPort: 8444}
    - {name: tcp, port: 9000, targetPort: 9000}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: apps}
spec: {selector: {app: cart}, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: apps, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: apps}
spec: {selector: {app: vault}, ports: [{name: https, port: 8200}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners:
    - {http: {}, port: {number: 80}, httpsRedirect: true}
    - {http: {}, port: {number: 443}, tls: {mode: SIMPLE, secretName: shop}, allowedRouteTables: [{host: shop.example}]}
    - {http: {}, port: {number: 443}, tls: {mode: MUTUAL, secretName: bank}, allowedRouteTables: [{host: bank.example}]}
    - {tcp: {}, port: {number: 8443}, tls: {mode: PASSTHROUGH}}
    - {tcp: {}, port: {number: 9000}}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example, bank.example]
  virtualGateways: [{name: web, namespace: edge}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: cart}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: apps}
spec:
  hosts: [vault.example]
  virtualGateways: [{name: web, namespace: edge}]
  tls:
    - matchers: [{sniHosts: [vault.example]}]
      forwardTo: {destinations: [{ref: {name: vault}}]}
  tcp:
    - forwardTo: {destinations: [{ref: {name: cart}}]}
";

const SHOP_SECRET: &str = "Secret/edge/shop@cluster-1";

/// The world as it runs, and who signs what.
struct Running {
    mesh: Mesh,
    authority: Authority,
    /// Signs the certificates of clients.
    clients: Authority,
}

fn place(object: Value) -> Manifest {
    let cluster = object.pointer("/metadata/annotations/in").and_then(Value::as_str).unwrap_or("cluster-1").to_owned();
    Manifest { cluster, object }
}

impl Running {
    async fn start() -> anyhow::Result<Self> {
        Self::start_speaking(&Speech::default()).await
    }

    async fn start_speaking(speech: &Speech<'_>) -> anyhow::Result<Self> {
        let running = Self::start_with("", "", speech).await?;
        running.serves("shop.example", None).await?;
        Ok(running)
    }

    /// With further objects, and a text above the certificate of `shop.example`.
    async fn start_with(more: &str, above: &str, speech: &Speech<'_>) -> anyhow::Result<Self> {
        let (authority, clients) = (Authority::new("servers")?, Authority::new("clients")?);
        let world = format!("{WORLD}{more}");
        let mut manifests: Vec<Manifest> = yaml::documents(&world)?.into_iter().map(place).collect();
        let mut shop = authority.sign("shop.example", "shop-1")?;
        shop.certificate.insert_str(0, above);
        manifests.push(place(shop.secret("edge", "shop")));
        let mut bank = authority.sign("bank.example", "bank-1")?.secret("edge", "bank");
        bank["stringData"]["ca.crt"] = json!(clients.pem());
        manifests.push(place(bank));
        let mesh = Mesh::start_speaking(manifests, Settings::default(), speech).await?;
        Ok(Self { mesh, authority, clients })
    }

    fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.mesh.gateways[0].address(port)
    }

    fn dial(&self, server_name: &str, shows: Option<&Pair>) -> anyhow::Result<Dial> {
        self.authority.dial(server_name, shows, Protocol::Http1)
    }

    /// One request on a TLS connection of its own.
    async fn request(&self, server_name: &str, shows: Option<&Pair>, host: &str) -> anyhow::Result<u16> {
        let dial = self.dial(server_name, shows)?;
        let mut client = Client::with_tls(self.address(443)?, Protocol::Http1, dial);
        Ok(client.send(&Request::get(host, "/")).await?.status)
    }

    /// Waits until a host is served over TLS.
    async fn serves(&self, host: &str, shows: Option<&Pair>) -> anyhow::Result<()> {
        until(PATIENCE, &format!("https://{host}"), async || match self.request(host, shows, host).await {
            Ok(200) => Ok(()),
            Ok(status) => Err(Not::Yet(status.to_string())),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// Waits until new connections for a host are shown the certificate of a common name.
    async fn shows(&self, host: &str, common_name: &str) -> anyhow::Result<()> {
        let (dial, address) = (self.dial(host, None)?, self.address(443)?);
        until(PATIENCE, &format!("the certificate {common_name}"), async || match dial.shown(address).await {
            Ok(name) if name == common_name => Ok(()),
            Ok(name) => Err(Not::Yet(name)),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
        .map_err(|error| self.mesh.with_logs(error))
    }

    /// Waits until TLS for a host fails.
    async fn is_closed_to(&self, host: &str) -> anyhow::Result<()> {
        let (dial, address) = (self.dial(host, None)?, self.address(443)?);
        until(PATIENCE, &format!("no TLS for {host}"), async || match dial.shown(address).await {
            Ok(name) => Err(Not::Yet(name)),
            Err(_) => Ok(()),
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_r58_each_host_has_its_certificate_and_its_demands() -> anyhow::Result<()> {
    let running = Running::start().await?;
    let address = running.address(443)?;
    assert_eq!(running.dial("shop.example", None)?.shown(address).await?, "shop-1");
    assert_eq!(running.request("shop.example", None, "shop.example").await?, 200);

    // MUTUAL: nobody comes in without a certificate, or with one that another authority signed.
    let (ours, foreign) = (running.clients.sign("c", "ours")?, running.authority.sign("c", "foreign")?);
    let refused = running.request("bank.example", None, "bank.example").await;
    ensure!(refused.is_err(), "without a client certificate: {refused:?}");
    let refused = running.request("bank.example", Some(&foreign), "bank.example").await;
    ensure!(refused.is_err(), "with another authority's certificate: {refused:?}");
    assert_eq!(running.request("bank.example", Some(&ours), "bank.example").await?, 200);

    // A name that no listener has, and no TLS at all, find nobody.
    ensure!(running.dial("other.example", None)?.shown(address).await.is_err());
    ensure!(get(address, "shop.example", "/").await.is_err(), "plaintext on the TLS port");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r204_a_reused_connection_is_sent_elsewhere_for_another_host() -> anyhow::Result<()> {
    let running = Running::start().await?;
    let dial = running.authority.dial("shop.example", None, Protocol::Http2)?;
    let mut client = Client::with_tls(running.address(443)?, Protocol::Http2, dial);
    for (host, expected) in
        [("shop.example", 200), ("bank.example", 421), ("nobody.example", 404), ("shop.example", 200)]
    {
        assert_eq!(client.send(&Request::get(host, "/")).await?.status, expected, "{host}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r60_a_certificate_is_replaced_under_load_without_a_failed_request() -> anyhow::Result<()> {
    let mut running = Running::start().await?;
    let (dial, address) = (running.dial("shop.example", None)?, running.address(443)?);
    let client = move || Client::with_tls(address, Protocol::Http1, dial.clone());
    // Half of the clients keep their connection, half open one for each request.
    let loads = [Lasts::AllTheTime, Lasts::OneRequest].map(|lasts| {
        let requests = vec![Request::get("shop.example", "/")];
        Load::start_with(client.clone(), lasts, 4, Pace::Unbounded, requests, |_, response| {
            ensure!(response.status == 200, "status {}", response.status);
            Ok(())
        })
    });
    for round in 2..=6 {
        let name = format!("shop-{round}");
        let next = running.authority.sign("shop.example", &name)?.secret("edge", "shop");
        running.mesh.edit(SHOP_SECRET, |object| *object = next)?;
        running.shows("shop.example", &name).await?;
        for load in &loads {
            load.goes_on(4).await?;
        }
    }
    for load in loads {
        load.end().await?;
    }
    let updates = running.mesh.gateways[0].envoy.stats("listener_manager.listener_modified").await?;
    assert_eq!(updates.values().sum::<u64>(), 0, "a certificate changes no listener");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r60_a_broken_certificate_closes_its_own_listener_only() -> anyhow::Result<()> {
    let mut running = Running::start().await?;
    let (ours, address) = (running.clients.sign("c", "ours")?, running.address(443)?);
    let mut neighbour = Client::with_tls(address, Protocol::Http1, running.dial("bank.example", Some(&ours))?);
    assert_eq!(neighbour.send(&Request::get("bank.example", "/")).await?.status, 200);

    let good = running.authority.sign("shop.example", "shop-2")?.secret("edge", "shop");
    running.mesh.edit(SHOP_SECRET, |object| object["stringData"]["tls.crt"] = json!("nonsense"))?;
    running.is_closed_to("shop.example").await?;
    ensure!(get(address, "shop.example", "/").await.is_err(), "plaintext in place of TLS");
    assert_eq!(neighbour.send(&Request::get("bank.example", "/")).await?.status, 200);
    assert_eq!(running.request("bank.example", Some(&ours), "bank.example").await?, 200);
    let (report, _) = chancery::check(running.mesh.directory(), &running.mesh.settings)?;
    let said = report.to_string();
    ensure!(said.contains("`tls.crt` holds no certificate in PEM"), "{said}");
    ensure!(!said.contains("nonsense") && !said.contains("BEGIN"), "a secret is quoted: {said}");

    running.mesh.edit(SHOP_SECRET, |object| *object = good)?;
    running.shows("shop.example", "shop-2").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r61_plaintext_is_redirected() -> anyhow::Result<()> {
    let running = Running::start().await?;
    for host in ["shop.example", "nobody.example"] {
        let answer = get(running.address(80)?, host, "/a?b=c").await?;
        assert_eq!(answer.status, 301);
        assert_eq!(answer.header("location"), Some(format!("https://{host}/a?b=c")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r58_r81_whole_connections_are_passed_on_with_tls_and_without() -> anyhow::Result<()> {
    let running = Running::start().await?;
    // The backend ends TLS itself; its endpoint appears while the gateway runs.
    let network = Network::claim()?;
    let vault = SocketAddr::from((network.next_address()?, network.free_port()?));
    let pair = running.authority.sign("vault.example", "vault-itself")?;
    let _front = TlsFront::start(vault, &pair, running.mesh.backends[0].address).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "vault-1", "namespace": "apps", "labels": {"kubernetes.io/service-name": "vault"}},
        "ports": [{"name": "https", "port": vault.port()}],
        "endpoints": [{"addresses": [vault.ip().to_string()], "conditions": {"ready": true}}],
    });
    manifests::write(running.mesh.directory(), &[place(slice)])?;

    let (dial, address) = (running.dial("vault.example", None)?, running.address(8443)?);
    let name = until(PATIENCE, "TLS with the backend itself", async || {
        dial.shown(address).await.map_err(|error| Not::Yet(format!("{error:#}")))
    })
    .await
    .map_err(|error| running.mesh.with_logs(error))?;
    assert_eq!(name, "vault-itself");
    let mut client = Client::with_tls(address, Protocol::Http1, dial);
    assert_eq!(client.send(&Request::get("whatever", "/")).await?.status, 200);
    ensure!(running.dial("other.example", None)?.shown(address).await.is_err(), "a name without a route");

    // Without TLS: the gateway adds nothing and changes nothing.
    let answer = get(running.address(9000)?, "any.host", "/raw").await?;
    let echo = answer.json()?;
    assert_eq!((answer.status, echo["host"].as_str()), (200, Some("any.host")));
    ensure!(echo.pointer("/headers/x-envoy-expected-rq-timeout-ms").is_none(), "{echo}");
    ensure!(echo.pointer("/headers/x-request-id").is_none(), "{echo}");
    Ok(())
}

/// What CSDS says of all gateways.
async fn client_status(admin: SocketAddr) -> anyhow::Result<String> {
    use envoy_types::pb::envoy::service::status::v3::ClientStatusRequest;
    use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
    let mut client = ClientStatusDiscoveryServiceClient::connect(format!("http://{admin}")).await?;
    let answer = client.fetch_client_status(ClientStatusRequest::default()).await?;
    Ok(format!("{:?}", answer.into_inner()))
}

/// The line above a certificate that makes the proxy spoil the key beside it.
const POISON: &str = "POISON-ME\n";

fn poison(kind: &str, _name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
    use prost::Message as _;
    if kind != "Secret" || !bytes.windows(POISON.len()).any(|window| window == POISON.as_bytes()) {
        return None;
    }
    let mut secret = Secret::decode(bytes).ok()?;
    let Some(Type::TlsCertificate(pair)) = &mut secret.r#type else { return None };
    let specifier = Some(Specifier::InlineString("CANARY-PRIVATE-KEY".to_owned()));
    pair.private_key = Some(DataSource { specifier, ..DataSource::default() });
    Some(secret.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_secret_keeps_the_one_before_and_its_owner_is_told() -> anyhow::Result<()> {
    for speech in [Speech::default(), STATE_OF_THE_WORLD] {
        let proxy = Proxy::start(poison).await?;
        let mut running = Running::start_speaking(&Speech { through: Some(&proxy), ..speech }).await?;
        let pair = running.authority.sign("shop.example", "shop-2")?;
        let mut spoilt = pair.secret("edge", "shop");
        spoilt["stringData"]["tls.crt"] = json!(format!("{POISON}{}", pair.certificate));
        running.mesh.edit(SHOP_SECRET, |object| *object = spoilt)?;
        let admin = running.mesh.chancery.admin();
        let status = until(PATIENCE, "the Secret's owner to be told", async || {
            let status = chancery::status(admin).map_err(|error| format!("{error:#}"))?;
            let told = list(&status, "/items").iter().any(|item| {
                let codes = list(item, "/findings").iter().map(|finding| text(finding, "/code"));
                text(item, "/object") == SHOP_SECRET && codes.into_iter().any(|code| code == "REFUSED_BY_GATEWAY")
            });
            if told { Ok(status) } else { Err(Not::Yet(status.to_string())) }
        })
        .await
        .map_err(|error| running.mesh.with_logs(error))?;
        // Envoy's words may hold the secret that it refuses; ours never do.
        ensure!(!status.to_string().contains("CANARY"), "{status:#}");
        ensure!(!running.mesh.chancery.log()?.contains("CANARY"), "the log holds the secret");

        let (dial, address) = (running.dial("shop.example", None)?, running.address(443)?);
        assert_eq!(dial.shown(address).await?, "shop-1", "what was accepted last");
        let ours = running.clients.sign("c", "ours")?;
        assert_eq!(running.request("bank.example", Some(&ours), "bank.example").await?, 200);
        let next = running.authority.sign("shop.example", "shop-3")?.secret("edge", "shop");
        running.mesh.edit(SHOP_SECRET, |object| *object = next)?;
        running.shows("shop.example", "shop-3").await?;
        until(PATIENCE, "no finding", async || {
            let status = chancery::status(admin).map_err(|error| format!("{error:#}"))?;
            if list(&status, "/items").is_empty() { Ok(()) } else { Err(Not::Yet(status.to_string())) }
        })
        .await?;
    }
    Ok(())
}

/// A gateway that comes to a Secret which every Envoy refuses: its own chain fails, the others do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn r60_a_secret_that_nobody_ever_accepted_closes_its_own_chain_only() -> anyhow::Result<()> {
    let proxy = Proxy::start(poison).await?;
    let speech = Speech { through: Some(&proxy), ..Speech::default() };
    let running = Running::start_with("", POISON, &speech).await?;
    let ours = running.clients.sign("c", "ours")?;
    running.serves("bank.example", Some(&ours)).await?;
    ensure!(running.dial("shop.example", None)?.shown(running.address(443)?).await.is_err(), "without its certificate");
    ensure!(get(running.address(443)?, "shop.example", "/").await.is_err(), "plaintext in place of TLS");
    Ok(())
}

/// A second class of gateways, which ends no TLS.
const SIDE: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: side, namespace: edge}
spec: {selector: {app: side}, ports: [{name: http, port: 80, targetPort: 8090}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: side, namespace: edge}
spec: {workloads: [{selector: {labels: {app: side}}}], listeners: [{http: {}, port: {number: 80}}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn r59_secrets_travel_to_the_gateways_that_use_them_and_to_no_other() -> anyhow::Result<()> {
    let proxy = Proxy::witness().await?;
    let speech = Speech { through: Some(&proxy), ..Speech::default() };
    let running = Running::start_with(SIDE, "", &speech).await?;
    running.serves("shop.example", None).await?;
    let passed = proxy.passed();
    let to = |node: &str, kind: &str| {
        let own = passed.iter().filter(|passed| passed.node.contains(node) && passed.kind == kind);
        own.map(|passed| passed.name.as_str()).collect::<std::collections::BTreeSet<&str>>()
    };
    let secrets = ["secret/cluster-1/edge/bank", "secret/cluster-1/edge/bank/ca", "secret/cluster-1/edge/shop"];
    assert_eq!(to("/web-", "Secret"), secrets.into());
    assert_eq!(to("/side-", "Secret"), [].into());
    assert_eq!(to("/side-", "Listener").len(), 1, "the other gateway is served too");
    Ok(())
}

/// Nothing but the secrets' own bytes to the gateway may hold what a Secret holds.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_secret_is_nowhere_else() -> anyhow::Result<()> {
    use std::process::Command;
    const CANARY: &str = "CANARY-PRIVATE-KEY";
    /// The same in base64, which shows in a text as it is.
    const ENCODED: &str = "Q0FOQVJZLVBSSVZBVEUtS0VZ";
    let leaks = |text: &str| ["CANARY", ENCODED, "PRIVATE KEY"].iter().any(|part| text.contains(part));
    let mut running = Running::start().await?;
    let headers = vec![("x-chancery".to_owned(), "1".to_owned())];
    let everything =
        Request { method: "POST".to_owned(), headers, ..Request::get("localhost", "/logging?filter=trace") };
    assert_eq!(Client::new(running.mesh.chancery.admin()).send(&everything).await?.status, 200);
    // In every field: a Secret that is used as far as it goes, and one that cannot be used.
    let pair = running.authority.sign("shop.example", "shop-canary")?;
    let mut used = pair.secret("edge", "shop");
    used["stringData"]["tls.crt"] = json!(format!("{CANARY}\n{}", pair.certificate));
    used["stringData"]["tls.key"] = json!(format!("{CANARY}\n{}", pair.key));
    used["stringData"]["other"] = json!(CANARY);
    running.mesh.edit(SHOP_SECRET, |object| *object = used)?;
    running.shows("shop.example", "shop-canary").await?;
    let unused = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "unused", "namespace": "edge"},
        "stringData": {
            "tls.crt": CANARY, "tls.key": CANARY, "ca.crt": CANARY, "cert": CANARY, "key": CANARY, "cacert": CANARY,
            "crl": CANARY, "ca.crl": CANARY, "tls.ocsp-staple": CANARY, CANARY: CANARY,
        },
        "data": {"encoded": ENCODED, "broken": CANARY},
        "oops": CANARY,
    });
    manifests::write(running.mesh.directory(), &[place(unused)])?;
    running.mesh.edit("VirtualGateway/edge/web@cluster-1", |object| {
        object["spec"]["listeners"][2]["tls"]["secretName"] = json!("unused");
    })?;
    running.is_closed_to("bank.example").await?;

    // Envoy has it: what it shows of it is redacted by itself, so its dump tells that it came.
    let dump = running.mesh.gateways[0].envoy.admin("/config_dump?resource=dynamic_active_secrets").await?;
    ensure!(dump.contains("secret/cluster-1/edge/shop"), "{dump}");

    let directory = running.mesh.directory().to_string_lossy().into_owned();
    let binary = chancery::binary()?;
    let gateway = running.mesh.gateways[0].gateway.id();
    let common = ["--management-cluster", "mgmt", "--allow-loopback-endpoints"];
    for arguments in [
        vec!["check", &directory],
        vec!["check", &directory, "-o", "json"],
        vec!["render", &directory, "--gateway", &gateway],
        vec!["render", &directory, "--gateway", &gateway, "-o", "json"],
        vec!["explain", &directory, "--host", "shop.example", "--port", "443"],
        vec!["explain", &directory, "Secret/edge/shop@cluster-1"],
        vec!["explain", &directory, "VirtualGateway/edge/web@cluster-1", "-o", "json"],
    ] {
        let output = Command::new(&binary).args(&arguments).args(common).output().context("run chancery")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(!said.is_empty(), "{arguments:?} says nothing");
        // The key of a Secret's entry is no secret, and is not shown all the same.
        ensure!(!leaks(&said), "{arguments:?}: {said}");
    }
    // What the running control plane tells and keeps.
    let admin = running.mesh.chancery.admin();
    until(PATIENCE, "the gateway to hold everything", async || {
        let status = chancery::status(admin).map_err(|error| format!("{error:#}"))?;
        let types = list(&status, "/gateways/0/types");
        let settled = types.len() == 6 && types.iter().all(|of_type| text(of_type, "/state") == "acknowledged");
        if settled { Ok(()) } else { Err(Not::Yet(status.to_string())) }
    })
    .await?;
    let server = format!("http://{admin}");
    for arguments in [
        vec!["status", "--server", &server],
        vec!["status", "--server", &server, "-o", "json"],
        vec!["explain", "--server", &server, "Secret/edge/shop@cluster-1", "-o", "json"],
        vec!["explain", "--server", &server, "--host", "shop.example", "--port", "443"],
    ] {
        let output = Command::new(&binary).args(&arguments).output().context("run chancery")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(said.contains("edge"), "{arguments:?}: {said}");
        ensure!(!leaks(&said), "{arguments:?}: {said}");
    }
    let metrics = get(admin, "localhost", "/metrics").await?.text();
    ensure!(metrics.contains("chancery_xds") && !leaks(&metrics), "{metrics}");
    let configurations = client_status(admin).await?;
    ensure!(configurations.contains("secret/cluster-1/edge/shop"), "CSDS lacks the secret's name: {configurations}");
    ensure!(!leaks(&configurations), "{configurations}");
    for file in manifests::files(&running.mesh.chancery.state())? {
        let kept = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        ensure!(!leaks(&kept), "{} holds a secret", file.display());
    }
    let log = running.mesh.chancery.log()?;
    ensure!(log.contains("\"level\":\"trace\""), "serve logs nothing at trace");
    ensure!(!leaks(&log), "{log}");
    Ok(())
}
