//! What becomes of a resource that an Envoy refuses: a proxy between compiler and gateways makes it unacceptable.
//!
//! The gateway keeps what it accepted last, everything else goes on, the owner is told in Envoy's words, and a gateway
//! that comes later gets what was accepted. The fix lands once and ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::http::composite::v3::CompositePerRoute;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::{Message, Name};
use serde_json::{Value, json};

use crate::support::backend::Echo;
use crate::support::chancery::{self, Settings};
use crate::support::envoy::{OLDEST, find_release};
use crate::support::http::{self, Request};
use crate::support::load::{Load, Pace};
use crate::support::manifests::{Manifest, by_annotation, list, text};
use crate::support::proxy::Proxy;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Gateway, Mesh, Speech, gateway_of};
use crate::support::yaml;
use crate::variants::STATE_OF_THE_WORLD;

const HOST: &str = "www.example.com";

/// The path that makes a route configuration unacceptable to every Envoy, and the one that only a new one accepts.
const POISON: &str = "/poison-me";
const ONLY_NEW: &str = "/only-new";

/// The issuer of tokens that makes the filter unacceptable that verifies everybody's.
const BAD_ISSUER: &str = "https://poison";

/// Answers in a row, each on a connection of its own, after which every worker counts as changed: the kernel spreads them
/// by chance, so the odds that all of them meet one of two workers are one to two thousand.
const IN_A_ROW: usize = 12;

/// Two ports of one gateway with a virtual gateway and a table each; `@` places an object in `cluster-1`.
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
  spec:
    selector: {app: ingress}
    ports:
      - {name: www, port: 80, targetPort: 8080}
      - {name: other, port: 81, targetPort: 8081}
      - {name: good, port: 82, targetPort: 8082}
      - {name: poison, port: 83, targetPort: 8083}
- apiVersion: networking.gloo.solo.io/v2
  kind: VirtualGateway
  metadata: {name: www, namespace: shop, @}
  spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 80}}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: VirtualGateway
  metadata: {name: other, namespace: shop, @}
  spec: {workloads: [{selector: {labels: {app: ingress}}}], listeners: [{http: {}, port: {number: 81}}]}
- apiVersion: v1
  kind: Service
  metadata: {name: stock, namespace: shop, @}
  spec: {selector: {app: stock}, ports: [{name: web, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: stock-1, namespace: shop, labels: {kubernetes.io/service-name: stock}, @}
  ports: [{name: web, port: 8080}]
  endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: stock-0}}]
- apiVersion: v1
  kind: Service
  metadata: {name: cart, namespace: shop, @}
  spec: {selector: {app: cart}, ports: [{name: web, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}, @}
  ports: [{name: web, port: 8080}]
  endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: cart-0}}]
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: www, namespace: shop, @}
  spec:
    hosts: [www.example.com]
    virtualGateways: [{name: www}]
    http:
      - {name: says, matchers: [{uri: {prefix: /says}}], directResponse: {status: 200, body: first}}
      - {name: stock, matchers: [{uri: {prefix: /stock}}], forwardTo: {destinations: [{ref: {name: stock}}]}}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: other, namespace: shop, @}
  spec:
    hosts: [www.example.com]
    virtualGateways: [{name: other}]
    http:
      - {name: says, matchers: [{uri: {prefix: /says}}], directResponse: {status: 200, body: first}}
      - {name: cart, matchers: [{uri: {prefix: /cart}}], forwardTo: {destinations: [{ref: {name: cart}}]}}
";

const WWW: &str = "RouteTable/shop/www@cluster-1";
const OTHER: &str = "RouteTable/shop/other@cluster-1";
const OTHER_GATEWAY: &str = "VirtualGateway/shop/other@cluster-1";
const STOCK: &str = "Service/shop/stock@cluster-1";
const CART: &str = "Service/shop/cart@cluster-1";

/// The port that the poisoned listener binds; 0 as long as nobody has said which.
type PoisonedPort = Arc<AtomicU16>;

fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// Whether a route is for a path.
fn is_for(route: &Route, path: &str) -> bool {
    let specifier = route.r#match.as_ref().and_then(|matched| matched.path_specifier.as_ref());
    matches!(specifier, Some(PathSpecifier::Prefix(prefix)) if prefix == path)
}

/// What makes a resource unacceptable, from its content alone.
fn poison(port: &PoisonedPort, kind: &str, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match kind {
        "Listener" if name == format!("listener/{}", port.load(Ordering::Relaxed)) => {
            let mut listener: Listener = decoded(bytes)?;
            listener.address = None;
            Some(listener.encode_to_vec())
        }
        "Cluster" if name.contains("/stock/") => {
            let mut cluster: Cluster = decoded(bytes)?;
            let options = cluster.typed_extension_protocol_options.values().next()?;
            if !speaks_http2(options)? {
                return None;
            }
            cluster.connect_timeout = Some(Duration::default());
            Some(cluster.encode_to_vec())
        }
        "RouteConfiguration" => {
            let mut configuration: RouteConfiguration = decoded(bytes)?;
            let mut is_changed = false;
            for host in &mut configuration.virtual_hosts {
                if host.routes.iter().any(|route| is_for(route, POISON)) {
                    host.domains.extend(host.domains.clone());
                    is_changed = true;
                }
                for route in host.routes.iter_mut().filter(|route| is_for(route, ONLY_NEW)) {
                    let config = CompositePerRoute { matcher: Some(Default::default()) };
                    let config = Any { type_url: CompositePerRoute::type_url(), value: config.encode_to_vec() };
                    route.typed_per_filter_config.insert("new".to_owned(), config);
                    is_changed = true;
                }
            }
            is_changed.then(|| configuration.encode_to_vec())
        }
        "TypedExtensionConfig" => {
            let mut filter: TypedExtensionConfig = decoded(bytes)?;
            let config =
                filter.typed_config.as_mut().filter(|config| config.type_url == JwtAuthentication::type_url())?;
            let mut tokens: JwtAuthentication = decoded(&config.value)?;
            let mut bad = tokens.providers.values_mut().filter(|provider| provider.issuer == BAD_ISSUER).peekable();
            bad.peek()?;
            bad.for_each(|provider| provider.jwks_source_specifier = None);
            config.value = tokens.encode_to_vec();
            Some(filter.encode_to_vec())
        }
        _ => None,
    }
}

fn speaks_http2(options: &Any) -> Option<bool> {
    use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
    use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
    use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;

    let options: HttpProtocolOptions = decoded(&options.value)?;
    let UpstreamProtocolOptions::ExplicitHttpConfig(explicit) = options.upstream_protocol_options? else {
        return None;
    };
    Some(matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_))))
}

/// The world, and what stands between its gateways and the control plane.
struct Stage {
    mesh: Mesh,
    proxy: Proxy,
    poisoned: PoisonedPort,
    gateway: Gateway,
}

impl Stage {
    /// Without any gateway.
    async fn set() -> anyhow::Result<Self> {
        Self::set_with("").await
    }

    /// With further objects.
    async fn set_with(more: &str) -> anyhow::Result<Self> {
        let world = format!("{WORLD}{more}").replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}");
        let mut manifests: Vec<Manifest> = Vec::new();
        for document in yaml::documents(&world)? {
            manifests.extend(by_annotation(list(&document, ""))?);
        }
        let poisoned = PoisonedPort::default();
        let port = Arc::clone(&poisoned);
        let proxy = Proxy::start(move |kind, name, bytes| poison(&port, kind, name, bytes)).await?;
        let mesh = Mesh::start_without_gateways(manifests, Settings::default()).await?;
        let (gateway, _) = gateway_of(&mesh.manifests, ("cluster-1", "shop", "www"))?;
        Ok(Self { mesh, proxy, poisoned, gateway })
    }

    /// Starts one more Envoy behind the proxy, which serves both ports when this returns. Answers its node's id.
    async fn join(&mut self, bind: std::net::Ipv4Addr, speech: &Speech<'_>) -> anyhow::Result<String> {
        let number = self.mesh.gateways.len();
        let speech = Speech { through: Some(&self.proxy), ..*speech };
        let joined = self.mesh.join(&self.gateway, bind, &speech).await?;
        for port in [80, 81] {
            let address = joined.address(port)?;
            joined.envoy.listens(address).await?;
        }
        Ok(format!("cluster-1/shop/ingress-{number}"))
    }

    fn address(&self, gateway: usize, port: u16) -> anyhow::Result<SocketAddr> {
        self.mesh.gateways[gateway].address(port)
    }

    /// Waits until a gateway answers as wanted: the Service that answered and its protocol, or the body.
    async fn answers(&self, gateway: usize, port: u16, path: &str, wanted: &str) -> anyhow::Result<()> {
        let address = self.address(gateway, port)?;
        until(PATIENCE, &format!("`{wanted}` from {path} on port {port} of gateway {gateway}"), async || {
            for _ in 0..IN_A_ROW {
                let answer = ask(address, path).await.map_err(|error| format!("{error:#}"))?;
                if answer != wanted {
                    return Err(Not::Yet(answer));
                }
            }
            Ok(())
        })
        .await
    }

    /// Requests to what a port serves all along; each must be answered by 200.
    fn steady(&self, gateway: usize, port: u16) -> anyhow::Result<Load> {
        let paths = ["/says", if port == 80 { "/stock" } else { "/cart" }];
        let requests = paths.iter().map(|path| Request::get(HOST, path)).collect();
        Ok(Load::start(self.address(gateway, port)?, 4, Pace::PerSecond(50), requests, |_, response| {
            ensure!(response.status == 200, "{}: {}", response.status, response.text());
            Ok(())
        }))
    }

    /// What the other port says now; nobody refuses that.
    fn sibling(&mut self, says: &str) -> anyhow::Result<()> {
        self.mesh.edit(OTHER, |table| table["spec"]["http"][0]["directResponse"]["body"] = json!(says))
    }

    /// Waits until a node has refused something of a type in such words.
    async fn refuses(&self, node: &str, kind: &str, words: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("{node} to refuse a {kind}: {words}"), async || {
            let refused = self.proxy.refused();
            let fits = refused
                .iter()
                .any(|refused| refused.node == node && refused.kind == kind && refused.message.contains(words));
            if fits { Ok(()) } else { Err(Not::Yet(format!("{refused:?}"))) }
        })
        .await
    }

    /// Waits until the owner of what was refused is told who refused it and why.
    async fn owner_is_told(&self, owner: &str, node: &str, words: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("{owner} to be told that {node} refuses: {words}"), async || {
            let (told, findings) = told(&self.mesh, owner).map_err(|error| format!("{error:#}"))?;
            let fits = told.iter().any(|text| text.contains(node) && text.contains(words));
            if fits && findings > 0 { Ok(()) } else { Err(Not::Yet(format!("{findings} findings, {told:?}"))) }
        })
        .await
    }

    /// Waits until nobody is told anything any more.
    async fn all_is_well(&self) -> anyhow::Result<()> {
        until(PATIENCE, "no finding", async || {
            let (_, findings) = told(&self.mesh, "").map_err(|error| format!("{error:#}"))?;
            if findings == 0 { Ok(()) } else { Err(Not::Yet(format!("{findings} findings"))) }
        })
        .await
    }

    /// How often a resource went to a node after so many others had passed.
    fn sent(&self, after: usize, node: &str, kind: &str, part: &str) -> usize {
        let passed = self.proxy.passed();
        let later = passed.iter().skip(after);
        later.filter(|passed| passed.node == node && passed.kind == kind && passed.name.contains(part)).count()
    }
}

/// What `chancery status` says about refusals that concern an object which is FAILED for them, and how many findings there
/// are on all objects.
fn told(mesh: &Mesh, owner: &str) -> anyhow::Result<(Vec<String>, usize)> {
    let status = chancery::status(mesh.chancery.admin())?;
    let findings = list(&status, "/items").iter().map(|item| list(item, "/findings").len()).sum();
    // Kubernetes' own kinds have no approval of ours.
    let approval = if owner.starts_with("Service/") { "" } else { "FAILED" };
    let failed = |item: &&Value| text(item, "/object") == owner && text(item, "/approval") == approval;
    let own = list(&status, "/items").iter().filter(failed).flat_map(|item| list(item, "/findings"));
    let refusals = own.filter(|finding| text(finding, "/code") == "REFUSED_BY_GATEWAY");
    Ok((refusals.map(|finding| text(finding, "/message").to_owned()).collect(), findings))
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let response = http::get(address, HOST, path).await?;
    ensure!(response.status == 200, "{}: {}", response.status, response.text());
    match response.json().and_then(|body| Ok(serde_json::from_value::<Echo>(body)?)) {
        Ok(echo) => Ok(format!("{} {}", echo.identity.service, echo.protocol)),
        Err(_) => Ok(response.text()),
    }
}

/// Adds a route that answers by itself to a table.
fn add_route(table: &mut Value, path: &str) {
    let route = json!({"name": "added", "matchers": [{"uri": {"prefix": path}}],
        "directResponse": {"status": 200, "body": "added"}});
    if let Some(routes) = table["spec"]["http"].as_array_mut() {
        routes.push(route);
    }
}

/// What is refused, and how it ends.
struct Case {
    kind: &'static str,
    /// Part of the resource's name, once it is fixed.
    name: String,
    /// Envoy's words.
    words: &'static str,
    owner: &'static str,
    poison: fn(&mut Mesh) -> anyhow::Result<()>,
    /// Whether a version of the resource was accepted before. Without one, each gateway refuses for itself.
    is_accepted_before: bool,
    /// What the poisoned part keeps answering: port, path, answer.
    kept: (u16, &'static str, &'static str),
    fix: fn(&mut Mesh) -> anyhow::Result<()>,
    fixed: (u16, &'static str, &'static str),
}

async fn play(stage: &mut Stage, case: &Case, speech: &Speech<'_>) -> anyhow::Result<()> {
    let bind = stage.mesh.bind(&stage.gateway);
    let first = stage.join(bind, speech).await?;
    let load = [stage.steady(0, 80)?, stage.steady(0, 81)?];
    let (port, path, answer) = case.kept;
    stage.answers(0, port, path, answer).await?;

    (case.poison)(&mut stage.mesh)?;
    stage.sibling("second")?;
    stage.refuses(&first, case.kind, case.words).await?;
    stage.answers(0, 81, "/says", "second").await.context("a sibling of what is refused")?;
    stage.answers(0, port, path, answer).await.context("what was accepted last")?;
    stage.owner_is_told(case.owner, &first, case.words).await?;
    stage.sibling("third")?;
    stage.answers(0, 81, "/says", "third").await.context("a later edit of a sibling")?;

    // One that comes now gets what was accepted, and nothing that it would refuse. It binds what the first one binds,
    // so that it alone is asked when it is asked; the first one goes for that.
    let second = stage.join(bind, speech).await?;
    for load in load {
        load.end().await?;
    }
    stage.mesh.gateways.swap_remove(0);
    stage.answers(0, port, path, answer).await.context("what was accepted last, at a gateway that came later")?;
    stage.answers(0, 81, "/says", "third").await?;
    let refused = stage.proxy.refused();
    let by_second = refused.iter().filter(|refused| refused.node == second).count();
    ensure!((by_second == 0) == case.is_accepted_before, "the second refused {by_second} times: {refused:?}");

    let load = [stage.steady(0, 80)?, stage.steady(0, 81)?];
    let passed = stage.proxy.passed().len();
    (case.fix)(&mut stage.mesh)?;
    let (port, path, answer) = case.fixed;
    stage.answers(0, port, path, answer).await.context("the fix")?;
    // What the fix sent has passed before this.
    stage.sibling("fourth")?;
    stage.answers(0, 81, "/says", "fourth").await?;
    let sent = stage.sent(passed, &second, case.kind, &case.name);
    // What is back at what the gateway holds need not be sent at all.
    ensure!(sent <= 1, "the fix was sent {sent} times");
    stage.all_is_well().await?;
    for load in load {
        load.end().await?;
    }
    Ok(())
}

/// Plays a case in both variants of xDS.
async fn run(case: fn(&Stage) -> Case) -> anyhow::Result<()> {
    for (variant, speech) in [("delta", Speech::default()), ("state of the world", STATE_OF_THE_WORLD)] {
        let mut stage = Stage::set().await?;
        let case = case(&stage);
        let outcome = play(&mut stage, &case, &speech).await.context(variant);
        outcome.map_err(|error| stage.mesh.with_logs(error))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_route_configuration_keeps_the_one_before() -> anyhow::Result<()> {
    run(|stage| Case {
        kind: "RouteConfiguration",
        name: format!("route/{}", stage.gateway.ports[&80]),
        words: "Only unique values for domains are permitted",
        owner: WWW,
        is_accepted_before: true,
        poison: |mesh| {
            mesh.edit(WWW, |table| {
                table["spec"]["http"][0]["directResponse"]["body"] = json!("second");
                add_route(table, POISON);
            })
        },
        kept: (80, "/says", "first"),
        fix: |mesh| mesh.edit(WWW, |table| table["spec"]["http"][2]["matchers"][0]["uri"]["prefix"] = json!("/fine")),
        fixed: (80, "/fine", "added"),
    })
    .await
}

/// Makes HTTP/2 the protocol of a Service.
fn http2(mesh: &mut Mesh, service: &str) -> anyhow::Result<()> {
    mesh.edit(service, |service| service["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c"))
}

#[tokio::test]
async fn a_refused_cluster_keeps_the_one_before_and_others_change() -> anyhow::Result<()> {
    run(|_| Case {
        kind: "Cluster",
        name: "/stock/".to_owned(),
        words: "value must be greater than 0s",
        owner: STOCK,
        is_accepted_before: true,
        poison: |mesh| http2(mesh, STOCK),
        kept: (80, "/stock", "stock HTTP/1.1"),
        fix: |mesh| {
            mesh.edit(STOCK, |service| service["spec"]["ports"][0]["appProtocol"] = json!("http"))?;
            http2(mesh, CART)
        },
        fixed: (81, "/cart", "cart HTTP/2.0"),
    })
    .await
}

#[tokio::test]
async fn a_refused_listener_stops_no_other() -> anyhow::Result<()> {
    run(|stage| {
        stage.poisoned.store(stage.gateway.ports[&83], Ordering::Relaxed);
        Case {
            kind: "Listener",
            name: format!("listener/{}", stage.gateway.ports[&82]),
            words: "address",
            owner: OTHER_GATEWAY,
            is_accepted_before: false,
            poison: |mesh| {
                mesh.edit(OTHER_GATEWAY, |gateway| {
                    let listener = |port: u16| json!({"http": {}, "port": {"number": port}});
                    gateway["spec"]["listeners"] = json!([listener(81), listener(83)]);
                })
            },
            kept: (81, "/cart", "cart HTTP/1.1"),
            fix: |mesh| {
                mesh.edit(OTHER_GATEWAY, |gateway| gateway["spec"]["listeners"][1]["port"]["number"] = json!(82))
            },
            fixed: (82, "/cart", "cart HTTP/1.1"),
        }
    })
    .await
}

/// What only new Envoys know goes to an old one and a new one of one class.
async fn old_and_new(stage: &mut Stage, speech: &Speech<'_>) -> anyhow::Result<()> {
    let (old_bind, new_bind) = (stage.mesh.bind(&stage.gateway), stage.mesh.free_address("cluster-1")?);
    let binary = find_release(OLDEST)?;
    let old = stage.join(old_bind, &Speech { binary: Some(&binary), ..*speech }).await?;
    let new = stage.join(new_bind, speech).await?;
    let load = [stage.steady(0, 80)?, stage.steady(1, 80)?];

    stage.mesh.edit(WWW, |table| add_route(table, ONLY_NEW))?;
    stage.sibling("second")?;
    let words = "CompositePerRoute";
    stage.refuses(&old, "RouteConfiguration", words).await?;
    stage.answers(1, 80, ONLY_NEW, "added").await.context("the new one takes it")?;
    for gateway in [0, 1] {
        stage.answers(gateway, 81, "/says", "second").await?;
    }
    let absent = http::get(stage.address(0, 80)?, HOST, ONLY_NEW).await?;
    ensure!(absent.status == 404, "the old one keeps what it had: {}", absent.status);
    stage.owner_is_told(WWW, &old, words).await?;
    ensure!(stage.proxy.refused().iter().all(|refused| refused.node == old), "{:?}", stage.proxy.refused());

    let passed = stage.proxy.passed().len();
    stage.mesh.edit(WWW, |table| table["spec"]["http"][2]["matchers"][0]["uri"]["prefix"] = json!("/for-all"))?;
    stage.answers(0, 80, "/for-all", "added").await?;
    stage.answers(1, 80, "/for-all", "added").await?;
    stage.sibling("third")?;
    let name = format!("route/{}", stage.gateway.ports[&80]);
    for (gateway, node) in [(0, &old), (1, &new)] {
        stage.answers(gateway, 81, "/says", "third").await?;
        let sent = stage.sent(passed, node, "RouteConfiguration", &name);
        ensure!(sent == 1, "the fix was sent to {node} {sent} times");
    }
    stage.all_is_well().await?;
    for load in load {
        load.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_an_old_envoy_does_not_know_is_refused_by_it_alone() -> anyhow::Result<()> {
    for (variant, speech) in [("delta", Speech::default()), ("state of the world", STATE_OF_THE_WORLD)] {
        let mut stage = Stage::set().await?;
        let outcome = old_and_new(&mut stage, &speech).await.context(variant);
        outcome.map_err(|error| stage.mesh.with_logs(error))?;
    }
    Ok(())
}

/// A policy for a route of each table, for tokens that nobody has.
const TOKENS: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: www, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {tokens: www}}}], config: {providers: {p: {issuer: 'https://www', remote: {url: 'http://127.0.0.1:1/www'}}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: other, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {tokens: other}}}], config: {providers: {p: {issuer: 'https://other', remote: {url: 'http://127.0.0.1:1/other'}}}}}
";

impl Stage {
    /// Waits until a gateway answers with a status.
    async fn answers_with(&self, gateway: usize, port: u16, path: &str, status: u16) -> anyhow::Result<()> {
        let address = self.address(gateway, port)?;
        until(PATIENCE, &format!("status {status} from {path} on port {port} of gateway {gateway}"), async || {
            for _ in 0..IN_A_ROW {
                let answer = http::get(address, HOST, path).await.map_err(|error| format!("{error:#}"))?;
                if answer.status != status {
                    return Err(Not::Yet(format!("{} {}", answer.status, answer.text())));
                }
            }
            Ok(())
        })
        .await
    }

    /// Requests that a policy for tokens answers, and such as none is for.
    fn guarded(&self, gateway: usize) -> anyhow::Result<Load> {
        let requests = ["/says", "/stock"].iter().map(|path| Request::get(HOST, path)).collect();
        Ok(Load::start(self.address(gateway, 80)?, 4, Pace::PerSecond(50), requests, |index, response| {
            ensure!(response.status == [401, 200][index], "{}: {}", response.status, response.text());
            Ok(())
        }))
    }
}

/// Of the filter that verifies all tokens, only what is refused is left out, also at a gateway that comes later.
async fn leave_out(stage: &mut Stage, speech: &Speech<'_>) -> anyhow::Result<()> {
    let issuer = |mesh: &mut Mesh, issuer: &str| {
        mesh.edit("JWTPolicy/shop/other@cluster-1", |policy| {
            policy["spec"]["config"]["providers"]["p"]["issuer"] = json!(issuer);
        })
    };
    for (table, label) in [(WWW, "www"), (OTHER, "other")] {
        stage.mesh.edit(table, |table| table["spec"]["http"][0]["labels"] = json!({"tokens": label}))?;
    }
    let bind = stage.mesh.bind(&stage.gateway);
    let first = stage.join(bind, speech).await?;
    for port in [80, 81] {
        stage.answers_with(0, port, "/says", 401).await?;
    }
    let load = stage.guarded(0)?;
    issuer(&mut stage.mesh, BAD_ISSUER)?;
    stage.refuses(&first, "TypedExtensionConfig", "jwks_source_specifier").await?;
    stage.answers_with(0, 81, "/says", 500).await.context("what cannot be verified is closed")?;
    stage.answers_with(0, 81, "/cart", 200).await.context("a route without the policy")?;
    stage.owner_is_told("JWTPolicy/shop/other@cluster-1", "cluster-1/shop/ingress", "jwks_source_specifier").await?;
    load.goes_on(20).await?;

    let second = stage.join(bind, speech).await?;
    load.end().await.context("the other policy's tokens, meanwhile")?;
    stage.mesh.gateways.swap_remove(0);
    stage.answers_with(0, 80, "/says", 401).await.context("at a gateway that came later")?;
    stage.answers_with(0, 80, "/stock", 200).await?;
    stage.answers_with(0, 81, "/says", 500).await?;
    let refused = stage.proxy.refused();
    ensure!(refused.iter().all(|refused| refused.node != second), "the second refused something: {refused:?}");

    let load = stage.guarded(0)?;
    issuer(&mut stage.mesh, "https://fixed")?;
    stage.answers_with(0, 81, "/says", 401).await.context("the fix")?;
    stage.all_is_well().await?;
    load.end().await.map(drop)
}

#[tokio::test]
async fn r130_a_refused_verification_of_tokens_closes_its_own_routes_only() -> anyhow::Result<()> {
    for (variant, speech) in [("delta", Speech::default()), ("state of the world", STATE_OF_THE_WORLD)] {
        let mut stage = Stage::set_with(TOKENS).await?;
        let outcome = leave_out(&mut stage, &speech).await.context(variant);
        outcome.map_err(|error| stage.mesh.with_logs(error))?;
    }
    Ok(())
}
