//! The harness alone, without the control plane: a static Envoy in front of an echo backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::backend::{Backend, Echo, Identity};
use crate::support::envoy::Envoy;
use crate::support::http::{Client, Protocol, Request};
use crate::support::load::{Load, Pace};
use crate::support::manifests::by_annotation;
use crate::support::net::Network;
use crate::support::wait::{self, Not, PATIENCE};
use crate::support::{http, world, yaml};

/// An Envoy that sends everything to one backend.
fn static_bootstrap(listen: SocketAddr, backend: SocketAddr) -> String {
    let address = |a: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", a.ip(), a.port());
    format!(
        r#"
admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
static_resources:
  listeners:
  - name: in
    address: {listen}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: out}}}}]
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: out
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {backend}}}}}]}}]
"#,
        listen = address(listen),
        backend = address(backend),
    )
}

fn identity() -> Identity {
    Identity {
        cluster: "cluster-1".to_owned(),
        namespace: "shop".to_owned(),
        service: "cart".to_owned(),
        pod: "cart-0".to_owned(),
        version: "v1".to_owned(),
    }
}

#[tokio::test]
async fn an_envoy_in_front_of_an_echo_backend_answers() -> anyhow::Result<()> {
    let network = Network::claim()?;
    let backend = Backend::start(identity(), SocketAddr::from((network.next_address()?, 0))).await?;
    let gateway = SocketAddr::from((network.next_address()?, network.free_port()?));
    let mut envoy = Envoy::start("static", &static_bootstrap(gateway, backend.address)).await?;
    envoy.listens(gateway).await?;

    let mut client = Client::new(gateway);
    let request = Request::get("shop.example", "/cart?id=1").header("x-probe", "a").header("x-probe", "b");
    for count in 1..=3 {
        let response = client.send(&request).await?;
        assert_eq!(response.status, 200, "{}", envoy.log_tail());
        let echo: Echo = serde_json::from_value(response.json()?)?;
        assert_eq!(echo.identity, identity());
        assert_eq!(
            (echo.method.as_str(), echo.host.as_str(), echo.path.as_str()),
            ("GET", "shop.example", "/cart?id=1")
        );
        assert_eq!(echo.headers["x-probe"], "a, b");
        assert_eq!(echo.count, count);
    }
    assert_eq!(backend.requests(), 3);
    let stats = envoy.stats("^http.in.downstream_rq_total$").await?;
    assert_eq!(stats.get("http.in.downstream_rq_total"), Some(&3));
    Ok(())
}

#[tokio::test]
async fn an_echo_backend_speaks_http2_with_prior_knowledge() -> anyhow::Result<()> {
    let backend = Backend::start(identity(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let mut client = Client::speaking(backend.address, Protocol::Http2);
    let response = client.send(&Request::get("shop.example", "/")).await?;
    let echo: Echo = serde_json::from_value(response.json()?)?;
    assert_eq!((echo.protocol.as_str(), echo.host.as_str()), ("HTTP/2.0", "shop.example"));
    Ok(())
}

#[tokio::test]
async fn a_dropped_backend_closes_its_port_and_its_connections() -> anyhow::Result<()> {
    let backend = Backend::start(identity(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = backend.address;
    let mut client = Client::new(address);
    assert_eq!(client.send(&Request::get("shop.example", "/")).await?.status, 200);
    drop(backend);
    wait::until(wait::PATIENCE, "the backend to be gone", async || {
        match client.send(&Request::get("shop.example", "/")).await {
            Ok(response) => Err(Not::Yet(format!("it answers {}", response.status))),
            Err(_) => Ok(()),
        }
    })
    .await
}

#[tokio::test]
async fn an_envoy_that_cannot_start_says_why() -> anyhow::Result<()> {
    let Err(error) = Envoy::start("broken", "admin: {address: nonsense}").await else {
        anyhow::bail!("Envoy accepted a broken bootstrap");
    };
    let text = format!("{error:#}");
    assert!(text.contains("ended with") && text.contains("nonsense"), "{text}");
    Ok(())
}

#[tokio::test]
async fn waiting_ends_at_once_when_hope_does() {
    let start = std::time::Instant::now();
    let waited: anyhow::Result<()> =
        wait::until(wait::PATIENCE, "a process", async || Err(Not::Ever("it ended".to_owned()))).await;
    assert!(start.elapsed() < wait::PATIENCE);
    let text = waited.map_err(|error| error.to_string()).unwrap_err();
    assert_eq!(text, "waited for a process, in vain: it ended");
}

#[tokio::test]
async fn waiting_in_vain_says_for_what_and_what_was_seen() {
    let mut asked = 0;
    let waited: anyhow::Result<()> = wait::until(Duration::from_millis(50), "the third answer", async || {
        asked += 1;
        Err(Not::Yet(format!("answer {asked}")))
    })
    .await;
    let text = waited.map_err(|error| error.to_string()).unwrap_err();
    assert!(text.contains("waited 50ms for the third answer; last seen: answer "), "{text}");
}

#[test]
fn networks_are_never_handed_out_twice() -> anyhow::Result<()> {
    let (one, two) = (Network::claim()?, Network::claim()?);
    assert_ne!(one.prefix(), two.prefix());
    let (first, second) = (one.next_address()?, one.next_address()?);
    assert_ne!(first, second);
    assert!(first.is_loopback() && first.to_string().starts_with(&one.prefix()));
    Ok(())
}

/// A gateway and a Service with two versions, on addresses that do not exist here.
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: ingress, namespace: edge, annotations: &one {cluster.solo.io/cluster: cluster-1}}
  spec: {selector: {app: ingress}, ports: [{port: 80, targetPort: 8080}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: VirtualGateway
  metadata: {name: ingress, namespace: edge, annotations: *one}
  spec:
    workloads: [{selector: {labels: {app: ingress}}}]
    listeners: [{http: {}, port: {number: 80}}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}, annotations: *one}
  ports: [{name: http, port: 8080}]
  endpoints:
    - {addresses: [10.1.0.11], targetRef: {kind: Pod, name: cart-v1}}
    - {addresses: [10.1.0.12], targetRef: {kind: Pod, name: cart-v2}}
- apiVersion: v1
  kind: Pod
  metadata: {name: cart-v2, namespace: shop, labels: {version: v2}, annotations: *one}
  status: {podIP: 10.1.0.12}
";

#[tokio::test]
async fn a_world_moves_to_a_network_of_its_own_and_its_backends_answer() -> anyhow::Result<()> {
    let documents = yaml::documents(WORLD)?;
    let objects = documents[0].as_array().cloned().unwrap_or_default();
    let mut manifests = by_annotation(&objects)?;
    let relocation = world::relocate(&mut manifests)?;

    let backends = world::start_backends(&manifests).await?;
    let versions: Vec<&str> = backends.iter().map(|backend| backend.identity.version.as_str()).collect();
    assert_eq!(versions, ["", "v2"], "the version is the Pod's label");
    for backend in &backends {
        assert!(backend.address.ip().is_loopback());
        let echo: Echo = serde_json::from_value(http::get(backend.address, "cart", "/").await?.json()?)?;
        assert_eq!(echo.identity.backend(), "cluster-1/shop/cart");
    }
    assert_ne!(backends[0].address.ip(), backends[1].address.ip());
    assert_eq!(backends[0].address.port(), backends[1].address.port());
    assert_eq!(manifests[3].object["status"]["podIP"], backends[1].address.ip().to_string());

    let (gateway, port) = world::gateway_of(&manifests, ("cluster-1", "edge", "ingress"))?;
    assert_eq!((gateway.id().as_str(), port), ("cluster-1/edge/ingress", 80));
    assert_ne!(gateway.ports[&80], 8080, "the system picks the port");
    let bind = relocation.bind(&gateway);
    assert!(bind.is_loopback() && backends.iter().all(|backend| backend.address.ip() != bind));
    Ok(())
}

#[test]
fn yaml_scalars_have_the_types_that_json_has() -> anyhow::Result<()> {
    let documents =
        yaml::documents("{a: 1, b: '1', c: true, d: ~, e: 5s, f: v1, g: 0.5, h: 10.1.0.11, i: -x}\n---\n---\n[x]")?;
    let expected = serde_json::json!([
        {"a": 1, "b": "1", "c": true, "d": null, "e": "5s", "f": "v1", "g": 0.5, "h": "10.1.0.11", "i": "-x"},
        ["x"]
    ]);
    assert_eq!(serde_json::Value::Array(documents), expected);
    Ok(())
}

/// A load that never counted a failure would prove nothing.
#[tokio::test]
async fn a_load_counts_every_request_that_is_not_answered_as_it_should_be() -> anyhow::Result<()> {
    let network = Network::claim()?;
    let backend = Backend::start(identity(), SocketAddr::from((network.next_address()?, 0))).await?;
    let requests = vec![Request::get("shop.example", "/right"), Request::get("shop.example", "/wrong?fail=1000000")];
    let load = Load::start(backend.address, 4, Pace::PerSecond(400), requests, |_, response| {
        anyhow::ensure!(response.status == 200, "status {}", response.status);
        Ok(())
    });
    wait::until(PATIENCE, "100 requests", async || match backend.requests() {
        100.. => Ok(()),
        count => Err(Not::Yet(format!("{count}"))),
    })
    .await?;
    let tally = load.tally().await?;
    assert_eq!(u64::try_from(tally.sent)?, backend.requests());
    assert_eq!(u64::try_from(tally.failed)?, backend.tries("/wrong?fail=1000000"));
    assert!(tally.failures[0].contains("/wrong?fail=1000000: status 503"), "{:?}", tally.failures);
    assert!(tally.is_flawless().is_err());
    assert!(tally.rate() < 800.0, "it keeps its pace: {}", tally.rate());

    let address = backend.address;
    drop(backend);
    let load = Load::start(address, 1, Pace::PerSecond(1000), vec![Request::get("shop.example", "/")], |_, _| Ok(()));
    let tally = load.tally().await?;
    assert!(tally.sent > 0 && tally.failed == tally.sent, "nobody listens: {tally:?}");
    Ok(())
}
