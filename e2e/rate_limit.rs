//! RateLimitPolicy on a real Envoy, with the real rate-limit service: it reads its limits from Chancery over xDS, and
//! requests above them are refused.
//!
//! Workspace `shop` owns the gateway and delegates everything to a table of workspace `team`; policies of both select its
//! routes by label, and those of `team` its Services. Limits are per day, so that no window ends during a test, and each
//! test counts by values of its own.

use anyhow::Context;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitConfig;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::support::backend::Backend;
use crate::support::chancery::{Settings, check, explain, status};
use crate::support::envoy::{OLDEST, find_release};
use crate::support::http::{Client, Request, Response};
use crate::support::issuer::Issuer;
use crate::support::limiter::Limiter;
use crate::support::manifests::{self, Manifest, by_annotation, list, text};
use crate::support::two_teams::TWO_TEAMS;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{self, Mesh, Speech};
use crate::support::yaml;
use crate::xds_port::node;

const HOST: &str = "www.example.com";

const ORDERS: &str = "RateLimitServerConfig/team/orders@cluster-1";

/// Beside [`TWO_TEAMS`]; `@` stands for the annotation that places an object in `cluster-1`.
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: vault, namespace: team, labels: {guard: 'yes'}, @}
  spec: {selector: {app: vault}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: vault-1, namespace: team, labels: {kubernetes.io/service-name: vault}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: vault-0}}]
- apiVersion: v1
  kind: Service
  metadata: {name: limiter, namespace: team, @}
  spec: {selector: {app: limiter}, ports: [{name: grpc, port: 8081}]}
- apiVersion: v1
  kind: Service
  metadata: {name: nobody, namespace: team, @}
  spec: {selector: {app: nobody}, ports: [{name: grpc, port: 8081}]}
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
      - {name: never, labels: {case: never}, matchers: [{uri: {prefix: /never}}], forwardTo: *stock}
      - {name: tree, labels: {case: tree}, matchers: [{uri: {prefix: /tree}}], forwardTo: *stock}
      - {name: sets, labels: {case: sets}, matchers: [{uri: {prefix: /sets}}], forwardTo: *stock}
      - {name: who, labels: {case: who}, matchers: [{uri: {prefix: /who}}], forwardTo: *stock}
      - {name: both, labels: {case: both}, matchers: [{uri: {prefix: /both}}], forwardTo: *stock}
      - {name: first, labels: {case: first}, matchers: [{uri: {prefix: /first}}], forwardTo: *stock}
      - {name: then, labels: {case: then}, matchers: [{uri: {prefix: /then}}], forwardTo: *stock}
      - {name: last, labels: {case: last}, matchers: [{uri: {prefix: /last}}], forwardTo: *stock}
      - {name: claims, labels: {case: claims}, matchers: [{uri: {prefix: /claims}}], forwardTo: *stock}
      - {name: open, labels: {case: open}, matchers: [{uri: {prefix: /open}}], forwardTo: *stock}
      - {name: shut, labels: {case: shut}, matchers: [{uri: {prefix: /shut}}], forwardTo: *stock}
      - {name: absent, labels: {case: absent}, matchers: [{uri: {prefix: /absent}}], forwardTo: *stock}
      - {name: many, labels: {case: many}, matchers: [{uri: {prefix: /many}}], forwardTo: *stock}
      - {name: crowd, labels: {case: crowd}, matchers: [{uri: {prefix: /crowd}}], forwardTo: *stock}
      - {name: bad, labels: {case: bad}, matchers: [{uri: {prefix: /bad}}], forwardTo: *stock}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - name: half
        labels: {case: who}
        matchers: [{uri: {prefix: /half}}]
        forwardTo: {destinations: [{ref: {name: vault}, weight: 50}, {ref: {name: stock}, weight: 50}]}
      - {name: direct, labels: {case: who}, matchers: [{uri: {prefix: /direct}}], directResponse: {status: 299}}
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: orders, namespace: team, @}
  spec:
    destinationServers: [{ref: {name: limiter}, port: {name: grpc}}]
    raw:
      descriptors:
        - {key: generic_key, value: never, rateLimit: {unit: DAY, requestsPerUnit: 0}}
        - key: generic_key
          value: plans
          descriptors:
            - {key: plan, rateLimit: {unit: DAY, requestsPerUnit: 2}}
            - {key: plan, value: gold, rateLimit: {unit: DAY, requestsPerUnit: 4}}
            - {key: plan, value: free pass}
        - {key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {key: whose, rateLimit: {unit: DAY, requestsPerUnit: 3}}
        - {key: org, rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {key: header_match, value: robot, rateLimit: {unit: DAY, requestsPerUnit: 1}}
      setDescriptors:
        - {simpleDescriptors: [{key: account}, {key: tier, value: free}], rateLimit: {unit: DAY, requestsPerUnit: 1}}
        - {simpleDescriptors: [{key: account}, {key: tier, value: paid}], rateLimit: {unit: DAY, requestsPerUnit: 4}}
        - {simpleDescriptors: [{key: account}], rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {simpleDescriptors: [{key: all}], rateLimit: {unit: DAY, requestsPerUnit: 3}, alwaysApply: true}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: ours, namespace: team, @}, spec: {destinationServer: {ref: {name: limiter}, port: {name: grpc}}, requestTimeout: 10s}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: strict, namespace: team, @}, spec: {destinationServer: {ref: {name: limiter}, port: {name: grpc}}, requestTimeout: 10s, denyOnFail: true}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: lost, namespace: team, @}, spec: {destinationServer: {ref: {name: gone}}, denyOnFail: true}}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: RateLimitClientConfig
  metadata: {name: who, namespace: team, @}
  spec: {raw: {rateLimits: [{actions: [{requestHeaders: {headerName: X-Who, descriptorKey: who}}]}]}}
";

/// A policy of `team` on the routes of a case, with further fields of its configuration.
fn policy(name: &str, case: &str, config: &str) -> String {
    format!(
        "- {{apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: RateLimitPolicy, metadata: {{name: {name}, namespace: team, @}}, spec: {{applyToRoutes: [{{route: {{labels: {{case: {case}}}}}}}], config: {{{config}}}}}}}\n"
    )
}

/// The same with the usual rules and service.
fn usual(name: &str, case: &str, config: &str) -> String {
    policy(name, case, &format!("ratelimitServerConfig: {{name: orders}}, serverSettings: {{name: ours}}, {config}"))
}

const WHO: &str = "raw: {rateLimits: [{actions: [{requestHeaders: {headerName: X-Who, descriptorKey: who}}]}]}";
const WHOSE: &str = "raw: {rateLimits: [{actions: [{requestHeaders: {headerName: X-Whose, descriptorKey: whose}}]}]}";

fn policies() -> String {
    let mut all = vec![
        usual("never", "never", "raw: {rateLimits: [{actions: [{genericKey: {descriptorValue: never}}]}]}"),
        usual(
            "tree",
            "tree",
            "raw: {rateLimits: [{actions: [{genericKey: {descriptorValue: plans}}, {requestHeaders: {headerName: X-Plan, descriptorKey: plan}}]}, {actions: [{headerValueMatch: {descriptorValue: robot, headers: [{name: user-agent, prefixMatch: robot}]}}]}]}",
        ),
        usual(
            "sets",
            "sets",
            "raw: {rateLimits: [{setActions: [{requestHeaders: {headerName: X-Account, descriptorKey: account}}, {requestHeaders: {headerName: X-Tier, descriptorKey: tier}}, {requestHeaders: {headerName: X-All, descriptorKey: all}}]}]}",
        ),
        usual("who", "who", "ratelimitClientConfig: {name: who}"),
        usual("both-who", "both", WHO),
        usual(
            "claims",
            "claims",
            "raw: {rateLimits: [{actions: [{metadata: {descriptorKey: org, metadataKey: {key: envoy.filters.http.jwt_authn, path: [{key: a}, {key: org}]}}}], limit: {dynamicMetadata: {metadataKey: {key: envoy.filters.http.jwt_authn, path: [{key: a}, {key: limit}]}}}}]}",
        ),
        usual("first", "first", &format!("phase: {{preAuthz: {{priority: -7}}}}, {WHO}")),
        usual("then", "then", &format!("phase: {{preAuthz: {{}}}}, {WHO}")),
        usual("last", "last", WHO),
        policy(
            "shut",
            "shut",
            &format!("ratelimitServerConfig: {{name: orders}}, serverSettings: {{name: strict}}, {WHO}"),
        ),
        usual("open", "open", WHO),
        policy(
            "absent",
            "absent",
            &format!("ratelimitServerConfig: {{name: orders}}, serverSettings: {{name: lost}}, {WHO}"),
        ),
        policy(
            "no-rules",
            "bad",
            &format!("ratelimitServerConfig: {{name: gone}}, serverSettings: {{name: ours}}, {WHO}"),
        ),
        usual("no-client", "bad", "ratelimitClientConfig: {name: gone}"),
        usual(
            "two-at-once",
            "bad",
            "raw: {rateLimits: [{actions: [{remoteAddress: {}, genericKey: {descriptorValue: a}}]}]}",
        ),
        usual("no-field", "bad", "raw: {rateLimits: [{actions: [{requestHeaders: {headerName: a}}]}]}"),
        usual(
            "expression",
            "bad",
            "raw: {rateLimits: [{actions: [{headerValueMatch: {descriptorValue: a, headers: [{name: a, regexMatch: 'a(?=b)'}]}}]}]}",
        ),
        policy(
            "unfit",
            "bad",
            "ratelimitServerConfig: {name: trees}, serverSettings: {name: ours}, raw: {rateLimits: [{setActions: [{remoteAddress: {}}]}]}",
        ),
    ];
    // One more than there are places, and one item more than are sent; of policies without an age the name decides.
    let nothing = "raw: {rateLimits: [{actions: [{genericKey: {descriptorValue: nothing}}]}]}";
    for priority in 0..6 {
        all.push(usual(
            &format!("many-{priority}"),
            "many",
            &format!("phase: {{postAuthz: {{priority: {priority}}}}}, {nothing}"),
        ));
    }
    all.push(usual("many-z", "many", &format!("phase: {{postAuthz: {{priority: 99}}}}, {WHO}")));
    let items: Vec<String> =
        (0..32).map(|item| format!("{{actions: [{{genericKey: {{descriptorValue: '{item}'}}}}]}}")).collect();
    all.push(usual("crowd-a", "crowd", &format!("raw: {{rateLimits: [{}]}}", items.join(", "))));
    all.push(usual("crowd-b", "crowd", WHOSE));
    // Where a token is wanted, too: before authorization by a lower priority, at the same one, and after it.
    all.push(r"
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerConfig, metadata: {name: trees, namespace: team, @}, spec: {destinationServers: [{ref: {name: limiter}, port: {name: grpc}}], raw: {descriptors: [{key: remote_address, rateLimit: {unit: DAY, requestsPerUnit: 1}}]}}}
- {apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: RateLimitPolicy, metadata: {name: vault, namespace: team, @}, spec: {applyToDestinations: [{selector: {labels: {guard: 'yes'}}}], config: {ratelimitServerConfig: {name: orders}, serverSettings: {name: ours}, $WHOSE}}}
".replace("$WHOSE", WHOSE));
    // The gateway's owner limits as well, by rules of its own and the same service.
    all.push(format!(r"
- {{apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerConfig, metadata: {{name: theirs, namespace: shop, @}}, spec: {{destinationServers: [{{ref: {{name: limiter, namespace: team}}}}], raw: {{descriptors: [{{key: whose, rateLimit: {{unit: DAY, requestsPerUnit: 3}}}}]}}}}}}
- {{apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {{name: theirs, namespace: shop, @}}, spec: {{destinationServer: {{ref: {{name: limiter, namespace: team}}}}, requestTimeout: 10s}}}}
- {{apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: RateLimitPolicy, metadata: {{name: both-whose, namespace: shop, @}}, spec: {{applyToRoutes: [{{route: {{labels: {{case: both}}}}}}], config: {{phase: {{preAuthz: {{}}}}, ratelimitServerConfig: {{name: theirs}}, serverSettings: {{name: theirs}}, {WHOSE}}}}}}}
"));
    for case in ["first", "then", "last", "claims"] {
        all.push(format!(
            "- {{apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {{name: {case}, namespace: shop, @}}, spec: {{applyToRoutes: [{{route: {{labels: {{case: {case}}}}}}}], config: {{providers: {{a: {{issuer: https://a, local: {{inline: $PEM}}}}}}}}}}}}\n"
        ));
    }
    all.concat()
}

/// The world with its rate-limit service.
struct World {
    mesh: Mesh,
    client: Client,
    limiter: Limiter,
    issuer: Issuer,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let issuer = Issuer::rsa("https://a")?;
        let world = format!("{TWO_TEAMS}{WORLD}{}", policies())
            .replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}")
            .replace("$PEM", &json!(issuer.pem()?).to_string());
        let mut all = Vec::new();
        for document in yaml::documents(&world)? {
            all.extend(by_annotation(list(&document, ""))?);
        }
        let mesh = Mesh::start(all, Settings::default()).await?;
        let limiter = Limiter::start("ratelimit~cluster-1~team~limiter", mesh.chancery.xds()).await;
        let limiter = limiter.map_err(|error| mesh.with_logs(error))?;
        // No echo backend is to answer there.
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "limiter-1", "namespace": "team", "labels": {"kubernetes.io/service-name": "limiter"}},
            "ports": [{"name": "grpc", "port": limiter.address.port()}],
            "endpoints": [{"addresses": [limiter.address.ip().to_string()]}],
        });
        manifests::write(mesh.directory(), &[Manifest { cluster: "cluster-1".to_owned(), object: slice }])?;
        let client = Client::new(mesh.entrance("shop/www")?.1);
        let mut world = Self { mesh, client, limiter, issuer };
        world.answers("/never", 429).await?;
        Ok(world)
    }

    async fn send(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.client.send(request).await.map_err(|error| self.mesh.with_logs(error))
    }

    /// Waits until a path answers with a status.
    async fn answers(&mut self, path: &str, status: u16) -> anyhow::Result<()> {
        let (client, request, what) = (&mut self.client, Request::get(HOST, path), format!("{status} from {path}"));
        let answered = until(PATIENCE, &what, async || match client.send(&request).await {
            Ok(response) if response.status == status => Ok(()),
            Ok(response) => Err(Not::Yet(format!("{}: {}", response.status, response.text()))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        });
        answered.await.map_err(|error| self.mesh.with_logs(error))
    }

    /// How many requests have reached any backend.
    fn received(&self) -> u64 {
        self.mesh.backends.iter().map(Backend::requests).sum()
    }

    /// Asserts that so many requests pass, and that the next three are refused and reach no backend.
    async fn allows(&mut self, request: Request, passing: usize) -> anyhow::Result<()> {
        for count in 1..=passing {
            let response = self.send(&request).await?;
            assert_eq!(response.status, 200, "request {count} of {passing}: {request:?}: {}", response.text());
        }
        let before = self.received();
        for _ in 0..3 {
            let response = self.send(&request).await?;
            assert_eq!(response.status, 429, "after {passing}: {request:?}: {}", response.text());
            assert_eq!(response.header("x-envoy-ratelimited").as_deref(), Some("true"), "{request:?}");
        }
        assert_eq!(self.received(), before, "refused requests reach no backend: {request:?}");
        Ok(())
    }

    /// Asserts that nothing is limited.
    async fn allows_all(&mut self, request: Request) -> anyhow::Result<()> {
        for _ in 0..8 {
            assert_eq!(self.send(&request).await?.status, 200, "{request:?}");
        }
        Ok(())
    }

    /// What `chancery check` says of an object.
    fn told(&self, object: &str) -> anyhow::Result<String> {
        let (report, _) = check(self.mesh.directory(), &self.mesh.settings)?;
        let found = list(&report, "/items").iter().find(|entry| text(entry, "/object") == object);
        Ok(found.map(Value::to_string).unwrap_or_default())
    }
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request {
    headers.iter().fold(Request::get(HOST, path), |request, (name, value)| request.header(name, value))
}

/// A fails-without-the-policy test stands in its first line.
#[tokio::test]
async fn rules_of_both_forms_limit_what_they_count() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.allows_all(get("/plain", &[("x-who", "a"), ("x-plan", "gold"), ("x-account", "a")])).await?;
    // Trees: the most specific node counts, by each value; one without a limit exempts.
    world.allows(get("/tree", &[("x-plan", "a")]), 2).await?;
    world.allows(get("/tree", &[("x-plan", "b")]), 2).await?;
    world.allows(get("/tree", &[("x-plan", "gold")]), 4).await?;
    world.allows_all(get("/tree", &[("x-plan", "free pass")])).await?;
    world.allows_all(get("/tree", &[])).await?;
    world.allows(get("/tree", &[("user-agent", "robot/1"), ("x-plan", "free pass")]), 1).await?;
    // Sets: the first rule that fits counts, and those that always apply.
    world.allows(get("/sets", &[("x-account", "a"), ("x-tier", "free")]), 1).await?;
    world.allows(get("/sets", &[("x-account", "a"), ("x-tier", "paid")]), 4).await?;
    world.allows(get("/sets", &[("x-account", "a")]), 2).await?;
    world.allows(get("/sets", &[("x-account", "b"), ("x-tier", "other")]), 2).await?;
    world.allows(get("/sets", &[("x-account", "c"), ("x-tier", "paid"), ("x-all", "c")]), 3).await?;
    world.allows_all(get("/sets", &[("x-tier", "free")])).await?;
    // What a client configuration says, for a policy that names it.
    world.allows(get("/who", &[("x-who", "a")]), 2).await?;
    world.allows_all(get("/who", &[])).await
}

/// R123: all policies apply. R118: those of a destination too, on every route to it.
#[tokio::test]
async fn r123_all_policies_of_a_route_and_its_destination_apply() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.allows(get("/both", &[("x-who", "a")]), 2).await?;
    world.allows(get("/both", &[("x-whose", "a")]), 3).await?;
    world.allows(get("/both", &[("x-who", "b"), ("x-whose", "b")]), 2).await?;
    world.allows(get("/vault", &[("x-whose", "c")]), 3).await?;
    world.allows_all(get("/vault", &[("x-who", "c")])).await?;
    // The route's own holds for both destinations, that of the one for it alone.
    world.allows(get("/half", &[("x-who", "d")]), 2).await?;
    let (mut refused, mut passed_after) = (0, 0);
    for _ in 0..200 {
        match world.send(&get("/half", &[("x-whose", "d")])).await?.status {
            429 => refused += 1,
            200 => passed_after += usize::from(refused > 0),
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0 && passed_after > 0, "{refused} refused, {passed_after} passed after that");
    let shown = explain(world.mesh.directory(), &world.mesh.settings, "cluster-1/shop/ingress", &get("/half", &[]))?;
    let on_the_way = list(&shown, "/destinations").iter().map(|destination| list(destination, "/limits").len());
    assert_eq!((on_the_way.collect::<Vec<_>>(), list(&shown, "/limits").len()), (vec![1, 1], 0), "{shown:#}");
    let of_vault = text(&shown, "/destinations/0/limits/0");
    assert!(
        of_vault.contains("after authorization, priority 0: asks Service/team/limiter@cluster-1:8081#grpc"),
        "{of_vault}"
    );
    // Of policies without an age the name decides: `vault`, then `who`.
    assert!(of_vault.contains("cluster-1/team/orders whose; cluster-1/team/orders who"), "{of_vault}");
    // Nothing that Envoy answers itself is counted, and the policy says so.
    for _ in 0..5 {
        assert_eq!(world.send(&get("/direct", &[("x-who", "e")])).await?.status, 299);
    }
    let told = world.told("RateLimitPolicy/team/who@cluster-1")?;
    assert!(told.contains("nothing is limited, because Envoy asks only about requests that it forwards"), "{told}");
    assert!(told.contains("team/child:direct"), "{told}");
    Ok(())
}

/// R125.
#[tokio::test]
async fn r125_limits_stand_before_tokens_or_behind_them() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let token = format!("Bearer {}", world.issuer.token(&json!({}))?);
    let good = |path: &str, who: &str| get(path, &[("x-who", who), ("authorization", &token)]);
    // Before: what has no token is counted, and refused for being too much.
    for status in [401, 401, 429, 429] {
        assert_eq!(world.send(&get("/first", &[("x-who", "a")])).await?.status, status);
    }
    world.allows(good("/first", "b"), 2).await?;
    // Of equal priority, and after authorization: only what has a token is counted.
    for path in ["/then", "/last"] {
        for _ in 0..4 {
            assert_eq!(world.send(&get(path, &[("x-who", path)])).await?.status, 401, "{path}");
        }
        world.allows(good(path, path), 2).await?;
    }
    // What a token claims is counted, and may bring a limit of its own.
    let bearing = |token: String| get("/claims", &[("authorization", &format!("Bearer {token}"))]);
    world.allows(bearing(world.issuer.token(&json!({"org": "a"}))?), 2).await?;
    world.allows(bearing(world.issuer.token(&json!({"org": "b"}))?), 2).await?;
    let own = json!({"org": "c", "limit": {"requests_per_unit": 5, "unit": "DAY"}});
    world.allows(bearing(world.issuer.token(&own)?), 5).await?;
    world.allows_all(bearing(world.issuer.token(&json!({}))?)).await
}

#[tokio::test]
async fn limits_change_while_the_service_runs_and_faulty_ones_change_nothing() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.allows(get("/who", &[("x-who", "a")]), 2).await?;
    world.mesh.edit(ORDERS, |config| {
        config["spec"]["raw"]["descriptors"][2]["rateLimit"]["requestsPerUnit"] = json!(5);
    })?;
    let (who, more) = ("orders.who: unit=DAY requests_per_unit=2", "orders.who: unit=DAY requests_per_unit=5");
    world.limiter.shows("five requests", |limits| limits.contains(more) && !limits.contains(who)).await?;
    world.allows(get("/who", &[("x-who", "b")]), 5).await?;
    // One that the service would refuse is left out, and the others stay.
    world.mesh.edit("RateLimitServerConfig/team/trees@cluster-1", |config| {
        config["spec"]["raw"]["descriptors"] = json!([{"key": "a", "value": "b_c"}, {"key": "a_b", "value": "c"}]);
    })?;
    world.limiter.shows("one configuration", |limits| !limits.contains("trees") && limits.contains(more)).await?;
    let told = world.told("RateLimitServerConfig/team/trees@cluster-1")?;
    assert!(told.contains("spec.raw.descriptors[1]"), "{told}");
    world.allows(get("/who", &[("x-who", "c")]), 5).await?;
    // Without rules nothing is limited.
    world.mesh.edit(ORDERS, |config| config["spec"]["destinationServers"][0]["ref"]["name"] = json!("nobody"))?;
    world.limiter.shows("the rules of others alone", |limits| !limits.contains("team/")).await?;
    world.allows_all(get("/who", &[("x-who", "c")])).await?;
    let log = world.mesh.chancery.log()?;
    assert!(!log.contains("refused its limits"), "{log}");
    Ok(())
}

#[tokio::test]
async fn without_its_service_a_policy_does_what_its_settings_say() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.allows(get("/shut", &[("x-who", "a")]), 2).await?;
    world.allows(get("/open", &[("x-who", "b")]), 2).await?;
    world.limiter.kill();
    world.allows_all(get("/open", &[("x-who", "b")])).await?;
    let before = world.received();
    for _ in 0..3 {
        assert_eq!(world.send(&get("/shut", &[("x-who", "c")])).await?.status, 500);
    }
    assert_eq!(world.received(), before, "refused requests reach no backend");
    // Its counters went with it, its limits come back.
    world.limiter.restart().await?;
    world.answers("/never", 429).await?;
    world.allows(get("/shut", &[("x-who", "a")]), 2).await?;
    // A service that there is not is a fault of the settings, whatever they say of one that fails.
    world.allows_all(get("/absent", &[("x-who", "a")])).await?;
    let told = world.told("RateLimitPolicy/team/absent@cluster-1")?;
    assert!(told.contains("FAILED") && told.contains("does not exist"), "{told}");
    Ok(())
}

/// R130: what a release cannot do is closed there, and told to the policy; newer gateways beside it go on.
#[tokio::test]
async fn r130_an_envoy_that_cannot_limit_serves_no_limited_route() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (gateway, _) = world::gateway_of(&world.mesh.manifests, ("cluster-1", "shop", "ingress"))?;
    let (binary, bind) = (find_release(OLDEST)?, world.mesh.free_address("cluster-1")?);
    let running = world.mesh.join(&gateway, bind, &Speech { binary: Some(&binary), ..Speech::default() }).await?;
    let address = running.address(80)?;
    running.envoy.listens(address).await?;
    let mut old = Client::new(address);
    assert_eq!(old.send(&get("/plain", &[])).await?.status, 200);
    let before = world.received();
    for path in ["/who", "/half", "/vault", "/both"] {
        assert_eq!(old.send(&get(path, &[("x-who", "a")])).await?.status, 500, "{path}");
    }
    assert_eq!(world.received(), before, "refused requests reach no backend");
    world.allows(get("/who", &[("x-who", "a")]), 2).await?;
    let shown = status(world.mesh.chancery.admin())?;
    let entry =
        list(&shown, "/items").iter().find(|entry| text(entry, "/object") == "RateLimitPolicy/team/who@cluster-1");
    let told = entry.map(Value::to_string).unwrap_or_default();
    assert!(
        told.contains("UNSUPPORTED") && told.contains("the counting of requests by a service needs 1.40 or newer"),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn bad_policies_limit_nothing_and_say_why() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    for path in ["/bad", "/many"] {
        world.allows_all(get(path, &[("x-who", "a")])).await?;
    }
    world.allows_all(get("/crowd", &[("x-whose", "a")])).await?;
    for (name, approval, expected) in [
        ("no-rules", "INVALID", "RateLimitServerConfig/team/gone@cluster-1` does not exist in workspace `team`"),
        ("no-client", "INVALID", "RateLimitClientConfig/team/gone@cluster-1` does not exist in workspace `team`"),
        ("two-at-once", "INVALID", "spec.config.raw.rateLimits[0].actions[0]"),
        ("no-field", "INVALID", "spec.config.raw.rateLimits[0].actions[0].requestHeaders.descriptorKey"),
        ("expression", "INVALID", "regexMatch"),
        ("unfit", "WARNING", "has no `setDescriptors`"),
        ("many-z", "FAILED", "older ones take all 6 places of its phase"),
        ("crowd-b", "FAILED", "at most 32 items"),
    ] {
        let told = world.told(&format!("RateLimitPolicy/team/{name}@cluster-1"))?;
        assert!(told.contains(approval) && told.contains(expected), "{name}: {told}");
    }
    Ok(())
}

const LIMITS: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";
const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// A client of the xDS port that asks for everything of one type.
struct Subscriber {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    type_url: &'static str,
}

impl Subscriber {
    async fn start(xds: std::net::SocketAddr, node: Node, type_url: &'static str) -> anyhow::Result<Self> {
        let (requests, outgoing) = mpsc::channel(8);
        let first = DiscoveryRequest { node: Some(node), type_url: type_url.to_owned(), ..DiscoveryRequest::default() };
        requests.send(first).await?;
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{xds}")).await?;
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let responses = client.stream_aggregated_resources(outgoing).await?.into_inner();
        Ok(Self { requests, responses, type_url })
    }

    /// The next response, which is acknowledged.
    async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        self.answer(None).await
    }

    /// The next response, which is acknowledged or refused in these words.
    async fn answer(&mut self, words: Option<&str>) -> Result<DiscoveryResponse, Status> {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let response = response.map_err(|_| Status::deadline_exceeded("no response"))??;
        let response = response.ok_or_else(|| Status::cancelled("the stream ended"))?;
        let answer = DiscoveryRequest {
            type_url: self.type_url.to_owned(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: words.map(|words| RpcStatus { message: words.to_owned(), ..RpcStatus::default() }),
            ..DiscoveryRequest::default()
        };
        let _ = self.requests.send(answer).await;
        Ok(response)
    }

    /// The configurations of the next response, which has at most one resource.
    async fn configurations(&mut self) -> anyhow::Result<Vec<String>> {
        let response = self.next().await?;
        assert!(response.resources.len() < 2, "one domain");
        let Some(resource) = response.resources.first() else { return Ok(Vec::new()) };
        let config = RateLimitConfig::decode(resource.value.as_slice()).context("limits")?;
        assert_eq!((config.name.as_str(), config.domain.as_str()), ("chancery", "chancery"));
        Ok(config.descriptors.into_iter().map(|node| format!("{}={}", node.key, node.value)).collect())
    }
}

/// What a rate-limit service gets, and others do not.
#[tokio::test]
async fn a_service_gets_its_own_limits_and_nothing_else() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let xds = world.mesh.chancery.xds();
    let service = |name: &str| node(&format!("ratelimit~cluster-1~team~{name}"), &[]);
    let mut subscriber = Subscriber::start(xds, service("limiter"), LIMITS).await?;
    let [orders, trees, theirs] =
        ["team/orders", "team/trees", "shop/theirs"].map(|name| format!("chancery.config=cluster-1/{name}"));
    assert_eq!(subscriber.configurations().await?, [theirs.clone(), orders.clone(), trees.clone()]);
    // Edits of routes and policies send it nothing: the next response is the one with other rules.
    world.mesh.edit("RouteTable/team/child@cluster-1", |table| {
        table["spec"]["http"][0]["matchers"][0]["uri"]["prefix"] = json!("/plain-again");
    })?;
    world.answers("/plain-again", 200).await?;
    world.mesh.edit("RateLimitServerConfig/team/trees@cluster-1", |config| {
        config["spec"]["destinationServers"][0]["ref"]["name"] = json!("nobody");
    })?;
    assert_eq!(subscriber.configurations().await?, [theirs, orders]);
    assert_eq!(Subscriber::start(xds, service("nobody"), LIMITS).await?.configurations().await?, [trees]);
    // Of what gateways get it has nothing, and a gateway nothing of this.
    assert_eq!(Subscriber::start(xds, service("limiter"), CLUSTERS).await?.next().await?.resources, []);
    let labels = crate::xds_port::labels(&[("app", "ingress")]);
    let gateway = node(
        "gw",
        &[
            ("cluster", crate::xds_port::text("cluster-1")),
            ("namespace", crate::xds_port::text("shop")),
            ("labels", labels),
        ],
    );
    assert_eq!(Subscriber::start(xds, gateway, LIMITS).await?.next().await?.resources, []);
    for id in ["ratelimit~cluster-1~team~gone", "ratelimit~cluster-1", "ratelimit~"] {
        let refused = Subscriber::start(xds, node(id, &[]), LIMITS).await?.next().await.err().context("no refusal")?;
        assert_eq!(refused.code(), Code::NotFound, "{id}: {refused}");
        assert!(refused.message().contains("ratelimit~<cluster>~<namespace>~<Service>"), "{refused}");
    }
    // An operator sees it among the gateways.
    let shown = status(world.mesh.chancery.admin())?;
    let entry =
        list(&shown, "/gateways").iter().find(|entry| text(entry, "/gateway") == "ratelimit~cluster-1~team~limiter");
    let types = entry.map(|entry| list(entry, "/types").to_vec()).unwrap_or_default();
    let limits = types.iter().find(|of_type| text(of_type, "/typeUrl") == LIMITS).context("its limits")?;
    assert_eq!(text(limits, "/state"), "acknowledged", "{shown:#}");
    Ok(())
}

/// R132: what a service refuses is told to the configurations that it is made of, in its words, until it takes it.
#[tokio::test]
async fn r132_a_service_that_refuses_its_limits_is_told_of() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let xds = world.mesh.chancery.xds();
    // Nobody else is told of what is meant for this one.
    world.mesh.edit("RateLimitServerConfig/team/trees@cluster-1", |config| {
        config["spec"]["destinationServers"][0]["ref"]["name"] = json!("nobody");
    })?;
    let mut subscriber = Subscriber::start(xds, node("ratelimit~cluster-1~team~nobody", &[]), LIMITS).await?;
    while subscriber.answer(Some("duplicate descriptor \"poison\"")).await?.resources.is_empty() {}
    let admin = world.mesh.chancery.admin();
    let shown = |object: &str| -> anyhow::Result<String> {
        let shown = status(admin)?;
        let entry = list(&shown, "/items").iter().find(|entry| text(entry, "/object") == object);
        Ok(entry.map(Value::to_string).unwrap_or_default())
    };
    let trees = "RateLimitServerConfig/team/trees@cluster-1";
    until(PATIENCE, "a finding", async || match shown(trees) {
        Ok(told) if told.contains("REFUSED_BY_GATEWAY") => Ok(()),
        told => Err(Not::Yet(format!("{told:?}"))),
    })
    .await?;
    let told = shown(trees)?;
    for part in ["FAILED", "Service/team/nobody@cluster-1", "duplicate descriptor", "poison"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!shown(ORDERS)?.contains("REFUSED_BY_GATEWAY"), "it is told elsewhere");
    // Other rules, which it takes.
    world.mesh.edit(trees, |config| {
        config["spec"]["raw"]["descriptors"][0]["rateLimit"]["requestsPerUnit"] = json!(7);
    })?;
    subscriber.next().await?;
    until(PATIENCE, "no finding", async || match shown(trees) {
        Ok(told) if !told.contains("REFUSED_BY_GATEWAY") => Ok(()),
        told => Err(Not::Yet(format!("{told:?}"))),
    })
    .await
}
