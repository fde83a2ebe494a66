//! RateLimitPolicy without a service: gateways count by themselves.

use serde_json::{Value, json};

use crate::support::chancery::status;
use crate::support::delegated::{Delegated, request};
use crate::support::envoy::find_release;
use crate::support::http::{Client, Request};
use crate::support::issuer::Issuer;
use crate::support::manifests::{list, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{self, Speech};

/// Each route has its label `case`. There is no rate-limit service.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: tree, labels: {case: tree}, matchers: [{uri: {prefix: /tree}}], forwardTo: *stock}
      - {name: sets, labels: {case: sets}, matchers: [{uri: {prefix: /sets}}], forwardTo: *stock}
      - {name: who, labels: {case: who}, matchers: [{uri: {prefix: /who}}], forwardTo: *stock}
      - {name: who-else, labels: {case: who}, matchers: [{uri: {prefix: /else}}], forwardTo: *stock}
      - {name: both, labels: {case: who, more: 'yes'}, matchers: [{uri: {prefix: /both}}], forwardTo: *stock}
      - {name: said, labels: {case: who}, matchers: [{uri: {prefix: /said}}], directResponse: {status: 299}}
      - {name: first, labels: {case: first}, matchers: [{uri: {prefix: /first}}], forwardTo: *stock}
      - {name: then, labels: {case: then}, matchers: [{uri: {prefix: /then}}], forwardTo: *stock}
      - {name: claims, labels: {case: claims}, matchers: [{uri: {prefix: /claims}}], forwardTo: *stock}
      - {name: bad, labels: {case: bad}, matchers: [{uri: {prefix: /bad}}], forwardTo: *stock}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
- apiVersion: v1
  kind: Service
  metadata: {name: vault, namespace: team, labels: {guard: 'yes'}, @}
  spec: {selector: {app: vault}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: vault-1, namespace: team, labels: {kubernetes.io/service-name: vault}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: vault-0}}]
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: orders, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: local}}
  spec:
    raw:
      descriptors:
        - key: generic_key
          value: plans
          descriptors:
            - {key: plan, rateLimit: {unit: DAY, requestsPerUnit: 2}}
            - {key: plan, value: gold, rateLimit: {unit: DAY, requestsPerUnit: 4}}
            - {key: plan, value: free pass}
        - {key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {key: whose, rateLimit: {unit: DAY, requestsPerUnit: 3}}
        - {key: org, rateLimit: {unit: HOUR, requestsPerUnit: 2}}
        - {key: a, value: x, descriptors: [{key: b, value: y, rateLimit: {unit: DAY, requestsPerUnit: 1}}]}
        - {key: a, descriptors: [{key: b, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}
      setDescriptors:
        - {simpleDescriptors: [{key: account}, {key: tier, value: free}], rateLimit: {unit: DAY, requestsPerUnit: 1}}
        - {simpleDescriptors: [{key: account}, {key: tier, value: paid}], rateLimit: {unit: DAY, requestsPerUnit: 4}}
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: never, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: local}}
  spec: {raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 0}}]}}
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: typo, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: locally}}
  spec: {raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 1}}]}}
";

const WHO: &str = "{actions: [{requestHeaders: {headerName: x-who, descriptorKey: who}}]}";
const WHOSE: &str = "{actions: [{requestHeaders: {headerName: x-whose, descriptorKey: whose}}]}";

/// A policy of `team` with a selector, the rules that it names, and actions.
fn policy(name: &str, selector: &str, rules: &str, phase: &str, actions: &str) -> String {
    format!(
        "- {{apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: RateLimitPolicy, metadata: {{name: {name}, namespace: team, @}}, spec: {{{selector}, config: {{{phase}ratelimitServerConfig: {{name: {rules}}}, raw: {{rateLimits: [{actions}]}}}}}}}}\n"
    )
}

fn routes(label: &str) -> String {
    format!("applyToRoutes: [{{route: {{labels: {{{label}}}}}}}]")
}

fn policies() -> String {
    let on = |case: &str, actions: &str| policy(case, &routes(&format!("case: {case}")), "orders", "", actions);
    let before = "phase: {preAuthz: {priority: -7}}, ";
    let wrong = |name: &str, rules: &str, actions: &str| policy(name, &routes("case: bad"), rules, "", actions);
    [
        on(
            "tree",
            "{actions: [{genericKey: {descriptorValue: plans}}, {requestHeaders: {headerName: x-plan, descriptorKey: plan}}]}",
        ),
        on(
            "sets",
            "{setActions: [{requestHeaders: {headerName: x-account, descriptorKey: account}}, {requestHeaders: {headerName: x-tier, descriptorKey: tier}}]}",
        ),
        on("who", WHO),
        policy("more", &routes("more: 'yes'"), "orders", "", &format!("{WHO}, {WHOSE}")),
        policy("vault", "applyToDestinations: [{selector: {labels: {guard: 'yes'}}}]", "orders", "", WHOSE),
        policy("first", &routes("case: first"), "orders", before, WHO),
        on("then", WHO),
        on(
            "claims",
            "{actions: [{metadata: {descriptorKey: org, metadataKey: {key: envoy.filters.http.jwt_authn, path: [{key: a}, {key: org}]}}}]}",
        ),
        wrong("never", "never", WHO),
        wrong("typo", "typo", WHO),
        wrong(
            "crossing",
            "orders",
            "{actions: [{requestHeaders: {headerName: x-a, descriptorKey: a}}, {requestHeaders: {headerName: x-b, descriptorKey: b}}]}",
        ),
        wrong(
            "own-limit",
            "orders",
            "{actions: [{requestHeaders: {headerName: x-who, descriptorKey: who}}], limit: {dynamicMetadata: {metadataKey: {key: a, path: [{key: b}]}}}}",
        ),
    ]
    .concat()
}

async fn start() -> anyhow::Result<(Delegated, Issuer)> {
    let issuer = Issuer::rsa("https://a")?;
    let pem = json!(issuer.pem()?);
    let tokens = ["first", "then", "claims"].map(|case| {
        format!(
            "- {{apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {{name: {case}, namespace: shop, @}}, spec: {{applyToRoutes: [{{route: {{labels: {{case: {case}}}}}}}], config: {{providers: {{a: {{issuer: https://a, local: {{inline: {pem}}}}}}}}}}}}}\n"
        )
    });
    let world = Delegated::start(&format!("{WORLD}{}{}", policies(), tokens.concat())).await?;
    Ok((world, issuer))
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request {
    headers.iter().fold(request("GET", path), |request, (name, value)| request.header(name, value))
}

/// Asserts that so many requests pass, and that the next three are refused and reach no backend.
async fn allows(world: &mut Delegated, request: Request, passing: usize) -> anyhow::Result<()> {
    for count in 1..=passing {
        assert_eq!(world.outcome(&request).await?, (200, 1), "request {count} of {passing}: {request:?}");
    }
    for _ in 0..3 {
        assert_eq!(world.outcome(&request).await?, (429, 0), "after {passing}: {request:?}");
    }
    Ok(())
}

async fn allows_all(world: &mut Delegated, request: Request) -> anyhow::Result<()> {
    for _ in 0..8 {
        assert_eq!(world.outcome(&request).await?, (200, 1), "{request:?}");
    }
    Ok(())
}

/// What fails without the policies stands in its first line.
#[tokio::test]
async fn gateways_count_by_themselves_where_the_rules_say_so() -> anyhow::Result<()> {
    let (mut world, _) = start().await?;
    allows_all(&mut world, get("/plain", &[("x-who", "a"), ("x-plan", "a"), ("x-account", "a")])).await?;
    // Each value by itself, a value with a limit of its own, and one that is exempt.
    for (plan, passing) in [("a", 2), ("b", 2), ("gold", 4)] {
        allows(&mut world, get("/tree", &[("x-plan", plan)]), passing).await?;
    }
    allows_all(&mut world, get("/tree", &[("x-plan", "free pass")])).await?;
    allows_all(&mut world, get("/tree", &[])).await?;
    for (tier, passing) in [("free", 1), ("paid", 4)] {
        allows(&mut world, get("/sets", &[("x-account", "a"), ("x-tier", tier)]), passing).await?;
    }
    allows_all(&mut world, get("/sets", &[("x-account", "a"), ("x-tier", "other")])).await?;
    // Every route counts by itself.
    allows(&mut world, get("/who", &[("x-who", "a")]), 2).await?;
    allows(&mut world, get("/else", &[("x-who", "a")]), 2).await?;
    // R123: all policies apply, and what two of them say alike counts once. R118: that of a destination too.
    allows(&mut world, get("/both", &[("x-who", "a")]), 2).await?;
    allows(&mut world, get("/both", &[("x-whose", "a")]), 3).await?;
    allows(&mut world, get("/vault", &[("x-whose", "a")]), 3).await?;
    allows_all(&mut world, get("/vault", &[("x-who", "a")])).await?;
    // What the gateway answers itself is counted as well.
    for status in [299, 299, 429, 429] {
        assert_eq!(world.outcome(&get("/said", &[("x-who", "a")])).await?, (status, 0));
    }
    let shown = world.explained(&get("/tree", &[]))?;
    let line = text(&shown, "/limits/0");
    assert!(
        line.starts_with("after authorization, priority 0: the gateway allows 2 per day of generic_key=plans, plan;"),
        "{line}"
    );
    assert!(line.contains("any number of generic_key=plans, plan=free pass"), "{line}");
    let (approval, message, _) = world.verdict("RateLimitServerConfig/team/orders@cluster-1")?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("count anew when any route of the listener changes"), "what a DAY means: {message}");
    assert_eq!(world.verdict("RateLimitPolicy/team/who@cluster-1")?.0, "ACCEPTED");
    Ok(())
}

/// R125.
#[tokio::test]
async fn r125_what_gateways_count_stands_before_tokens_or_behind_them() -> anyhow::Result<()> {
    let (mut world, issuer) = start().await?;
    // Before: what has no token is counted, and refused for being too much.
    for status in [401, 401, 429, 429] {
        assert_eq!(world.outcome(&get("/first", &[("x-who", "a")])).await?, (status, 0));
    }
    // After authorization only what has a token is counted.
    for _ in 0..4 {
        assert_eq!(world.outcome(&get("/then", &[("x-who", "a")])).await?, (401, 0));
    }
    let bearing = |path: &str, claims: Value| -> anyhow::Result<Request> {
        Ok(get(path, &[("x-who", "a"), ("authorization", &format!("Bearer {}", issuer.token(&claims)?))]))
    };
    allows(&mut world, bearing("/then", json!({}))?, 2).await?;
    for org in ["a", "b"] {
        allows(&mut world, bearing("/claims", json!({"org": org}))?, 2).await?;
    }
    allows_all(&mut world, bearing("/claims", json!({}))?).await
}

/// What gateways cannot count as a service would is told, and nothing is limited (limits do not protect).
#[tokio::test]
async fn what_gateways_cannot_count_is_told_and_not_limited() -> anyhow::Result<()> {
    let (mut world, _) = start().await?;
    allows_all(&mut world, get("/bad", &[("x-who", "a"), ("x-a", "x"), ("x-b", "y")])).await?;
    for (object, approval, expected) in [
        ("RateLimitServerConfig/team/never", "FAILED", "cannot refuse everything"),
        ("RateLimitPolicy/team/never", "INVALID", "cannot refuse everything"),
        ("RateLimitServerConfig/team/typo", "INVALID", "`locally` is not known; write `local` or remove it"),
        ("RateLimitPolicy/team/typo", "INVALID", "is invalid"),
        ("RateLimitPolicy/team/crossing", "FAILED", "gateways cannot tell the rules for `a`, `b` apart"),
        ("RateLimitPolicy/team/own-limit", "FAILED", "know no `limit` of a request"),
    ] {
        let (found, message, _) = world.verdict(&format!("{object}@cluster-1"))?;
        assert_eq!(found, approval, "{object}: {message}");
        assert!(message.contains(expected), "{object}: {message}");
    }
    Ok(())
}

/// What the manual says: Envoy makes its buckets anew with the routes beside them, whoever edits one, and not with endpoints.
#[tokio::test]
async fn counting_begins_anew_when_a_route_of_the_listener_changes() -> anyhow::Result<()> {
    let (mut world, _) = start().await?;
    allows(&mut world, get("/who", &[("x-who", "a")]), 2).await?;
    world.mesh.edit("RouteTable/team/child@cluster-1", |table| {
        table["spec"]["http"][0]["matchers"][0]["uri"]["prefix"] = json!("/moved");
    })?;
    world.answers(&get("/moved", &[]), 200).await?;
    allows(&mut world, get("/who", &[("x-who", "a")]), 2).await?;
    // Rules change with the routes that have them, and without the word nobody counts: they name no service.
    world.mesh.edit("RateLimitServerConfig/team/orders@cluster-1", |config| {
        config["spec"]["raw"]["descriptors"][1]["rateLimit"]["requestsPerUnit"] = json!(5);
    })?;
    allows_soon(&mut world, 5).await?;
    world.mesh.edit("RateLimitServerConfig/team/orders@cluster-1", |config| {
        config["metadata"]["annotations"].as_object_mut().expect("a map").remove("chancery/rate-limiting");
    })?;
    allows_soon(&mut world, 8).await?;
    let (approval, message, _) = world.verdict("RateLimitServerConfig/team/orders@cluster-1")?;
    assert_eq!(approval, "INVALID", "{message}");
    assert!(message.contains("with the annotation `chancery/rate-limiting: local`"), "{message}");
    Ok(())
}

/// Waits until so many of eight requests for a value that nobody has sent pass.
async fn allows_soon(world: &mut Delegated, passing: usize) -> anyhow::Result<()> {
    let mut round = 0;
    let what = format!("{passing} of 8 requests pass");
    until(PATIENCE, &what, async || {
        round += 1;
        let who = format!("{passing}-{round}");
        let mut passed = 0;
        for _ in 0..8 {
            let response = world.send(&get("/who", &[("x-who", &who)])).await.map_err(|error| format!("{error:#}"))?;
            passed += usize::from(response.status == 200);
        }
        if passed == passing { Ok(()) } else { Err(Not::Yet(format!("{passed} passed"))) }
    })
    .await
}

/// The routes of `shop` beside those of `team`, and its own limit.
const NEIGHBOUR: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: own, namespace: shop, @}
  spec:
    hosts: [own.example.com]
    virtualGateways: [{name: ingress}]
    http: [{name: own, labels: {case: own}, matchers: [{uri: {prefix: /}}], directResponse: {status: 299}}]
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: own, namespace: shop, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: local}}
  spec: {raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}}
- {apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: RateLimitPolicy, metadata: {name: own, namespace: shop, @}, spec: {applyToRoutes: [{route: {labels: {case: own}}}], config: {ratelimitServerConfig: {name: own}, raw: {rateLimits: [{actions: [{requestHeaders: {headerName: x-who, descriptorKey: who}}]}]}}}}
";

/// A gateway has room for so many values, and each workspace its part: whoever asks for more has fewer values counted apart on
/// its routes, is told, and takes nothing from others.
#[tokio::test]
async fn room_for_values_ends_and_nobody_loses_it_to_others() -> anyhow::Result<()> {
    let mut world = Delegated::start(&format!("{WORLD}{}{NEIGHBOUR}", policies())).await?;
    let own = |who: &str| Request { host: "own.example.com".to_owned(), ..get("/", &[("x-who", who)]) };
    let theirs = |who: &str| get("/who", &[("x-who", who)]);
    // Of 600 values one is still known as the first, on either side.
    for (asked, passing) in [(&own as &dyn Fn(&str) -> Request, 299), (&theirs, 200)] {
        assert_eq!(kept(&mut world, asked, passing).await?, 429, "{passing}");
    }
    world.mesh.edit("RouteTable/team/child@cluster-1", |table| {
        let routes = table["spec"]["http"].as_array_mut().expect("routes");
        for (name, count) in [("who", 600), ("who-else", 600)] {
            let who = routes.iter_mut().find(|route| route["name"] == json!(name)).expect("the route");
            let more = (0..count).map(|index| json!({"uri": {"exact": format!("/more/{name}/{index}")}}));
            who["matchers"].as_array_mut().expect("matchers").extend(more);
        }
    })?;
    world.answers(&get("/more/who-else/599", &[]), 200).await?;
    assert_eq!(kept(&mut world, &theirs, 200).await?, 200, "it has half as many, so the first is forgotten");
    assert_eq!(kept(&mut world, &own, 299).await?, 429, "and its neighbour has as many as before");
    let shown = world.explained(&theirs("a"))?;
    let line = text(&shown, "/limits/0");
    assert!(line.contains("(of each entry without a value only the last 500 values apart)"), "{line}");
    let (approval, message, _) = world.verdict("RateLimitPolicy/team/who@cluster-1")?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("the last 500 values are counted apart in place of 1000"), "{message}");
    assert_eq!(world.verdict("RateLimitPolicy/shop/own@cluster-1")?.0, "ACCEPTED");
    Ok(())
}

/// How a value is answered that has used its limit up, after 600 others came.
async fn kept(world: &mut Delegated, asked: &dyn Fn(&str) -> Request, passing: u16) -> anyhow::Result<u16> {
    for status in [passing, passing, 429] {
        assert_eq!(world.send(&asked("first")).await?.status, status);
    }
    for other in 0..600 {
        assert_eq!(world.send(&asked(&format!("other-{other}"))).await?.status, passing);
    }
    Ok(world.send(&asked("first")).await?.status)
}

/// R130.
#[tokio::test]
async fn r130_an_envoy_that_cannot_count_serves_no_limited_route() -> anyhow::Result<()> {
    let (mut world, _) = start().await?;
    let (gateway, _) = world::gateway_of(&world.mesh.manifests, ("cluster-1", "shop", "ingress"))?;
    for (release, can) in [("1.36.4", false), ("1.38.3", false), ("1.39.3", true)] {
        let (binary, bind) = (find_release(release)?, world.mesh.free_address("cluster-1")?);
        let speech = Speech { binary: Some(&binary), ..Speech::default() };
        let running = world.mesh.join(&gateway, bind, &speech).await?;
        let address = running.address(80)?;
        running.envoy.listens(address).await?;
        let mut client = Client::new(address);
        assert_eq!(client.send(&get("/plain", &[])).await?.status, 200, "{release}");
        let before = world.received();
        let expected = if can { [200, 200, 429, 429] } else { [500; 4] };
        for status in expected {
            assert_eq!(client.send(&get("/who", &[("x-who", "a")])).await?.status, status, "{release}");
        }
        assert_eq!(world.received() - before, if can { 2 } else { 0 }, "{release}");
        let shown = status(world.mesh.chancery.admin())?;
        let items = list(&shown, "/items").iter();
        let mut told = items.filter(|entry| text(entry, "/object") == "RateLimitPolicy/team/who@cluster-1");
        let told = told.next().map(Value::to_string).unwrap_or_default();
        assert!(told.contains("the counting of requests by the gateway needs 1.39 or newer"), "{release}: {told}");
    }
    Ok(())
}
