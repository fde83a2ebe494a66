//! The four policy kinds on a real Envoy: what each does to requests, beside a route without it.
//!
//! One world: workspace `shop` owns the gateway and delegates everything to a table of workspace `team`. Each route of
//! that table has a label `case`, and policies of both workspaces select by it; the route `/plain` has no label, so that
//! every effect is seen to be the policy's.

use std::time::{Duration, Instant};

use crate::support::backend::{Backend, Echo};
use crate::support::chancery::Settings;
use crate::support::http::{Client, Request, Response};
use crate::support::manifests::{Manifest, by_annotation, list};
use crate::support::two_teams::TWO_TEAMS;
use crate::support::world::Mesh;
use crate::support::yaml;

pub(crate) const HOST: &str = "www.example.com";

/// The least that a policy's 300 ms may take. Envoy counts from the time at which its event loop last looked at the
/// clock, which on a busy machine lies before the request.
const ABOUT_300_MS: Duration = Duration::from_millis(200);

/// Where everything is, beside [`TWO_TEAMS`]; `@` stands for the annotation that places an object in `cluster-1`.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: www, namespace: shop, @}
  spec:
    hosts: [www.example.com]
    virtualGateways: [{name: ingress}]
    http: [{name: team, delegate: {routeTables: [{name: child, namespace: team}]}}]
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: plain-post, matchers: [{uri: {prefix: /post/plain}, method: POST}], forwardTo: *stock}
      - {name: headers, labels: {case: headers}, matchers: [{uri: {prefix: /headers}}], forwardTo: *stock}
      - {name: timeout, labels: {case: timeout}, matchers: [{uri: {prefix: /timeout}}], forwardTo: *stock}
      - {name: retries, labels: {case: retries}, matchers: [{uri: {prefix: /retries}}], forwardTo: *stock}
      - {name: once, labels: {case: once}, matchers: [{uri: {prefix: /once}}], forwardTo: *stock}
      - {name: abort, labels: {case: abort}, matchers: [{uri: {prefix: /abort}}], forwardTo: *stock}
      - {name: never, labels: {case: never}, matchers: [{uri: {prefix: /never}}], forwardTo: *stock}
      - {name: slow, labels: {case: slow}, matchers: [{uri: {prefix: /slow}}], forwardTo: *stock}
      - {name: cors, labels: {case: cors}, matchers: [{uri: {prefix: /cors}}], forwardTo: *stock}
      - {name: cors-post, labels: {case: cors}, matchers: [{uri: {prefix: /post/cors}, method: POST}], forwardTo: *stock}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: HeaderManipulationPolicy
  metadata: {name: of-the-parent, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: headers}}}]
    config:
      removeRequestHeaders: [x-debug]
      appendRequestHeaders: {x-shop: '1', x-both: shop, x-share: 100%, x-was: '%REQ(x-id)%', Host: inner.example}
      removeResponseHeaders: [content-type, x-from-part]
      appendResponseHeaders: {x-shop: '2'}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: HeaderManipulationPolicy
  metadata: {name: of-the-child, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: headers}}}]
    config: {appendRequestHeaders: {x-team: '1', x-both: team}, appendResponseHeaders: {x-team: '2'}}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: HeaderManipulationPolicy
  metadata: {name: of-the-destination, namespace: shop, @}
  spec:
    applyToRouteDestinations:
      - {route: {labels: {case: headers}}, onDestinations: [{selector: {name: stock}}]}
    config: {appendRequestHeaders: {x-part: '1'}, appendResponseHeaders: {x-part: '2', x-from-part: '1'}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: RetryTimeoutPolicy
  metadata: {name: timeout, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: timeout}}}], config: {requestTimeout: 300ms}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: RetryTimeoutPolicy
  metadata: {name: retries, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: retries}}}]
    config: {retries: {attempts: 3, retryOn: '5xx', perTryTimeout: 400ms}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: RetryTimeoutPolicy
  metadata: {name: once, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: once}}}], config: {retries: {attempts: 0}}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: FaultInjectionPolicy
  metadata: {name: abort, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: abort}}}], config: {abort: {httpStatus: 418}}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: FaultInjectionPolicy
  metadata: {name: never, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: never}}}], config: {abort: {httpStatus: 418, percentage: 0}}}
- apiVersion: resilience.policy.gloo.solo.io/v2
  kind: FaultInjectionPolicy
  metadata: {name: slow, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: slow}}}], config: {delay: {fixedDelay: 300ms}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CORSPolicy
  metadata: {name: cors, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: cors}}}]
    config:
      allowOrigins: [{exact: 'https://www.example'}, {regex: 'https://[a-z]+[.]test'}]
      allowMethods: [GET, POST]
      allowHeaders: [x-id]
      exposeHeaders: [x-trace]
      maxAge: 1h
      allowCredentials: true
";

/// The objects.
pub(crate) fn manifests() -> anyhow::Result<Vec<Manifest>> {
    let world = format!("{TWO_TEAMS}{WORLD}").replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}");
    let mut manifests = Vec::new();
    for document in yaml::documents(&world)? {
        manifests.extend(by_annotation(list(&document, ""))?);
    }
    Ok(manifests)
}

/// The world with a client of its gateway.
struct World {
    mesh: Mesh,
    client: Client,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let mesh = Mesh::start(manifests()?, Settings::default()).await?;
        let client = Client::new(mesh.entrance("shop/www")?.1);
        Ok(Self { mesh, client })
    }

    async fn send(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.client.send(request).await.map_err(|error| self.mesh.with_logs(error))
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Response> {
        self.send(&Request::get(HOST, path)).await
    }

    /// How long a GET takes, with its answer.
    async fn timed(&mut self, path: &str) -> anyhow::Result<(Duration, Response)> {
        let start = Instant::now();
        let response = self.get(path).await?;
        Ok((start.elapsed(), response))
    }

    /// How often the backend has received a path.
    fn tries(&self, path: &str) -> u64 {
        self.mesh.backends.iter().map(|backend| backend.tries(path)).sum()
    }

    fn received(&self) -> u64 {
        self.mesh.backends.iter().map(Backend::requests).sum()
    }
}

fn echo(response: &Response) -> anyhow::Result<Echo> {
    Ok(serde_json::from_value(response.json()?)?)
}

#[tokio::test]
async fn headers_change_in_both_directions_on_route_and_destination() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let request =
        |path: &str| Request::get(HOST, path).header("x-debug", "1").header("x-id", "7").header("x-shop", "0");
    let plain = world.send(&request("/plain")).await?;
    let upstream = echo(&plain)?;
    assert_eq!(upstream.headers.get("x-debug").map(String::as_str), Some("1"));
    assert_eq!((upstream.host.as_str(), upstream.headers.get("x-part")), (HOST, None));
    assert_eq!(plain.header("content-type").as_deref(), Some("application/json"));
    assert_eq!((plain.header("x-shop"), plain.header("x-part")), (None, None));

    let changed = world.send(&request("/headers")).await?;
    let upstream = echo(&changed)?;
    let seen = |name: &str| upstream.headers.get(name).map(String::as_str);
    assert_eq!(seen("x-debug"), None);
    assert_eq!(seen("x-shop"), Some("0, 1"), "appended to what the client sent");
    assert_eq!(seen("x-team"), Some("1"), "policies of parent and child merge");
    assert_eq!(seen("x-both"), Some("shop"), "the older decides a header that both set");
    assert_eq!(seen("x-share"), Some("100%"), "no command, so taken as it is");
    assert_eq!(seen("x-was"), Some("7"));
    assert_eq!(seen("x-part"), Some("1"));
    assert_eq!(upstream.host, "inner.example");
    assert_eq!(changed.header("content-type"), None);
    assert_eq!(changed.header("x-shop").as_deref(), Some("2"));
    assert_eq!(changed.header("x-team").as_deref(), Some("2"));
    assert_eq!(changed.header("x-part").as_deref(), Some("2"));
    assert_eq!(changed.header("x-from-part"), None, "the route removes after the destination has added");
    Ok(())
}

/// `max_stream_duration` beside `timeout` would switch the timeout off, which only a slow backend shows.
#[tokio::test]
async fn a_request_timeout_ends_a_slow_answer_in_time() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (taken, response) = world.timed("/timeout?delay=8000").await?;
    assert_eq!(response.status, 504, "{}", response.text());
    assert!((ABOUT_300_MS..Duration::from_secs(4)).contains(&taken), "{taken:?}");
    assert_eq!(world.tries("/timeout?delay=8000"), 1);

    let (taken, response) = world.timed("/plain?delay=900").await?;
    assert_eq!(response.status, 200, "without the policy there is no timeout: {}", response.text());
    assert!(taken >= Duration::from_millis(900), "{taken:?}");
    assert_eq!(world.get("/timeout").await?.status, 200, "in time");
    Ok(())
}

#[tokio::test]
async fn retries_are_as_many_as_the_policy_says() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    for (path, status, tries) in [
        // Without a policy a 503 is not repeated, as that is not safe unasked.
        ("/plain?fail=1", 503, 1),
        ("/retries?fail=2", 200, 3),
        ("/retries?fail=3", 200, 4),
        ("/retries?fail=9", 503, 4),
        // Each try has its own time, and 5xx covers a try that times out.
        ("/retries?delay=8000", 504, 4),
        ("/once?fail=1", 503, 1),
    ] {
        let response = world.get(path).await?;
        assert_eq!((response.status, world.tries(path)), (status, tries), "{path}");
    }
    // What the baseline repeats, attempts 0 does not.
    for (path, status, tries) in [("/plain?unavailable=1", None, 2), ("/once?unavailable=1", Some("14"), 1)] {
        let response = world.get(path).await?;
        assert_eq!((response.header("grpc-status").as_deref(), world.tries(path)), (status, tries), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn faults_strike_the_share_of_requests_that_is_written() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    assert_eq!(world.get("/plain").await?.status, 200);
    let before = world.received();
    for _ in 0..20 {
        let response = world.get("/abort").await?;
        assert_eq!((response.status, response.text().as_str()), (418, "fault filter abort"));
    }
    assert_eq!(world.received(), before, "an aborted request reaches no backend");
    for _ in 0..20 {
        assert_eq!(world.get("/never").await?.status, 200);
    }
    assert_eq!(world.received(), before + 20);

    let (taken, response) = world.timed("/slow").await?;
    assert_eq!(response.status, 200);
    assert!(taken >= ABOUT_300_MS, "{taken:?}");
    // Clients cannot ask for faults.
    let asking = Request::get(HOST, "/never").header("x-envoy-fault-abort-request", "503");
    assert_eq!(world.send(&asking).await?.status, 200);
    Ok(())
}

/// A question of a browser before a request from another origin.
pub(crate) fn preflight(path: &str, origin: &str, method: &str) -> Request {
    let mut request = Request::get(HOST, path).header("origin", origin).header("access-control-request-method", method);
    request.method = "OPTIONS".to_owned();
    request
}

#[tokio::test]
async fn preflights_are_answered_for_allowed_origins() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let before = world.received();
    for origin in ["https://www.example", "https://app.test"] {
        let response = world.send(&preflight("/cors", origin, "GET")).await?;
        assert_eq!(response.status, 200);
        for (name, expected) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "x-id"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
        ] {
            assert_eq!(response.header(name).as_deref(), Some(expected), "{origin}: {name}");
        }
    }
    assert_eq!(world.received(), before, "the gateway answers");

    for (path, origin) in
        [("/cors", "https://www.example.evil"), ("/cors", "https://app.test.evil"), ("/plain", "https://www.example")]
    {
        let response = world.send(&preflight(path, origin, "GET")).await?;
        assert_eq!(echo(&response)?.method, "OPTIONS", "{path}, {origin}: goes on to the backend");
        assert_eq!(response.header("access-control-allow-origin"), None, "{path}, {origin}");
    }

    for (path, origin, allowed) in [
        ("/cors", "https://www.example", Some("https://www.example")),
        ("/cors", "https://else.example", None),
        ("/plain", "https://www.example", None),
    ] {
        let response = world.send(&Request::get(HOST, path).header("origin", origin)).await?;
        assert_eq!(echo(&response)?.method, "GET", "{path}, {origin}: every request is served");
        assert_eq!(response.header("access-control-allow-origin").as_deref(), allowed, "{path}, {origin}");
        let exposed = allowed.map(|_| "x-trace");
        assert_eq!(response.header("access-control-expose-headers").as_deref(), exposed, "{path}, {origin}");
    }
    Ok(())
}

#[tokio::test]
async fn a_route_for_one_method_takes_its_own_preflights_only() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let origin = "https://www.example";
    let response = world.send(&preflight("/post/cors", origin, "POST")).await?;
    assert_eq!((response.status, response.header("access-control-allow-origin").as_deref()), (200, Some(origin)));
    assert_eq!(world.send(&preflight("/post/cors", origin, "PUT")).await?.status, 404);
    assert_eq!(world.get("/post/cors").await?.status, 404, "the twin widens nothing else");
    let foreign = world.send(&preflight("/post/cors", "https://else.example", "POST")).await?;
    assert_eq!((echo(&foreign)?.method.as_str(), foreign.header("access-control-allow-origin")), ("OPTIONS", None));
    assert_eq!(world.send(&preflight("/post/plain", origin, "POST")).await?.status, 404, "without the policy");
    Ok(())
}
