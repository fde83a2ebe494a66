//! The harness alone, without the control plane: a static Envoy in front of an echo backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::backend::{Backend, Echo, Identity};
use crate::support::envoy::Envoy;
use crate::support::http::{Client, Protocol, Request};
use crate::support::net::Network;
use crate::support::wait::{self, Not};

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
