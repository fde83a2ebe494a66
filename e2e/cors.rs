//! CORSPolicy on a real Envoy: whose browsers may call, by which policy, and what an invalid one leaves.
//!
//! What the fields do to the headers is in `policies.rs`.

use serde_json::json;

use crate::policies::preflight;
use crate::support::delegated::{Delegated, GATEWAY, echo, request};
use crate::support::http::{Request, Response};
use crate::support::issuer::Issuer;
use crate::support::manifests::{list, text};
use crate::support::wait::{Not, PATIENCE, until};

const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: cors, labels: {case: cors}, matchers: [{uri: {prefix: /cors}}], forwardTo: *stock}
      - {name: both, labels: {case: cors, young: 'yes'}, matchers: [{uri: {prefix: /both}}], forwardTo: *stock}
      - {name: young, labels: {young: 'yes'}, matchers: [{uri: {prefix: /young}}], forwardTo: *stock}
      - name: put
        labels: {case: cors}
        matchers: [{uri: {prefix: /put}, method: PUT, headers: [{name: x-tenant, value: a}]}]
        forwardTo: *stock
      - {name: closed, labels: {case: cors, guard: 'yes'}, matchers: [{uri: {prefix: /closed}, method: POST}], forwardTo: *stock}
      - {name: csrf, labels: {case: cors, csrf: 'yes'}, matchers: [{uri: {prefix: /csrf}}], forwardTo: *stock}
      - {name: said, labels: {case: cors}, matchers: [{uri: {prefix: /said}}], directResponse: {status: 200, body: hello}}
      - {name: moved, labels: {case: cors}, matchers: [{uri: {prefix: /moved}}], redirect: {pathRedirect: /plain}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CORSPolicy
  metadata: {name: cors, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: cors}}}]
    config: {allowOrigins: [{exact: 'https://app.test'}], allowMethods: ['*'], allowCredentials: true}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CORSPolicy
  metadata: {name: young, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {young: 'yes'}}}]
    config: {allowOrigins: [{exact: 'https://young.test'}], allowMethods: [GET], allowCredentials: false}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: csrf, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {csrf: 'yes'}}}], config: {filterEnabled: true}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: WAFPolicy
  metadata: {name: guard, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {guard: 'yes'}}}], config: {disableCoreRuleSet: true}}
";

const APP: &str = "https://app.test";

fn allowed(response: &Response) -> Option<String> {
    response.header("access-control-allow-origin")
}

fn call(method: &str, path: &str, origin: &str) -> Request {
    request(method, path).header("origin", origin)
}

/// A preflight carries no credentials, so it is answered before anything that protects; a foreign one goes the way of any
/// other request.
#[tokio::test]
async fn preflights_are_answered_here_and_foreign_ones_go_on() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    for (path, method) in [("/cors", "GET"), ("/cors", "DELETE"), ("/csrf", "POST")] {
        let before = world.received();
        let response = world.send(&preflight(path, APP, method)).await?;
        assert_eq!((response.status, allowed(&response).as_deref()), (200, Some(APP)), "{path}");
        // With credentials `*` would mean the method of that name, so the one that was asked for is named.
        assert_eq!(response.header("access-control-allow-methods").as_deref(), Some(method), "{path}");
        assert_eq!(response.header("access-control-allow-credentials").as_deref(), Some("true"), "{path}");
        assert_eq!(world.received(), before, "the gateway answers");
        let said = world.explained(&preflight(path, APP, method))?;
        assert_eq!(said.pointer("/outcome/status"), Some(&json!(200)), "{said:#}");
    }
    let unequal =
        ["https://app.test.evil.test", "http://app.test", "https://app.test:8443", "https://APP.test", "null"];
    for origin in unequal {
        let response = world.send(&preflight("/cors", origin, "GET")).await?;
        assert_eq!((echo(&response)?.method.as_str(), allowed(&response)), ("OPTIONS", None), "{origin}");
        let response = world.send(&call("GET", "/cors", origin)).await?;
        assert_eq!((echo(&response)?.method.as_str(), allowed(&response)), ("GET", None), "{origin}");
    }
    // An origin among others is not that origin.
    let twice = call("GET", "/cors", APP).header("origin", "https://evil.test");
    assert_eq!(allowed(&world.send(&twice).await?), None);
    // The other protecting kinds hold for the call itself.
    assert_eq!(world.outcome(&call("POST", "/csrf", APP)).await?, (403, 0));
    // Envoy answers preflights on routes that forward only. Without the headers the browser does not call.
    for (path, status) in [("/said", 200), ("/moved", 301)] {
        let response = world.send(&preflight(path, APP, "GET")).await?;
        assert_eq!((response.status, allowed(&response)), (status, None), "{path}");
    }
    Ok(())
}

/// A preflight that CORS does not answer is a request like any other: without credentials it is refused.
#[tokio::test]
async fn foreign_preflights_go_on_to_authentication() -> anyhow::Result<()> {
    const JWT: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: token, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {young: 'yes'}}}], config: {providers: {a: {local: {inline: $KEYS}}}}}
";
    let issuer = Issuer::ec("https://a")?;
    let jwt = JWT.replace("$KEYS", &json!(issuer.jwks()).to_string());
    let mut world = Delegated::start(&format!("{WORLD}{jwt}")).await?;
    let token = format!("Bearer {}", issuer.token(&json!({}))?);
    for (request, expected) in [
        (preflight("/both", APP, "GET"), (200, 0)),
        (preflight("/both", "https://evil.test", "GET"), (401, 0)),
        (request("OPTIONS", "/both"), (401, 0)),
        (call("GET", "/both", APP), (401, 0)),
        (call("GET", "/both", APP).header("authorization", &token), (200, 1)),
        (preflight("/both", "https://evil.test", "GET").header("authorization", &token), (200, 1)),
    ] {
        assert_eq!(world.outcome(&request).await?, expected, "{request:?}");
    }
    Ok(())
}

/// The twin has every condition of its route, and a closed route has none.
#[tokio::test]
async fn a_twin_takes_the_preflights_of_its_route_and_nothing_else() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let asked = |origin: &str, method: &str| preflight("/put", origin, method).header("x-tenant", "a");
    let answered = world.send(&asked(APP, "PUT")).await?;
    assert_eq!((answered.status, allowed(&answered).as_deref()), (200, Some(APP)));
    let foreign = world.send(&asked("https://evil.test", "PUT")).await?;
    assert_eq!((echo(&foreign)?.method.as_str(), allowed(&foreign)), ("OPTIONS", None));
    for request in [
        asked(APP, "POST"),
        preflight("/put", APP, "PUT"),
        preflight("/put", APP, "PUT").header("x-tenant", "b"),
        request("OPTIONS", "/put").header("x-tenant", "a").header("origin", APP),
        call("GET", "/put", APP).header("x-tenant", "a"),
    ] {
        assert_eq!(world.outcome(&request).await?, (404, 0), "{request:?}");
    }
    assert_eq!(world.outcome(&call("POST", "/closed", APP)).await?, (500, 0));
    assert_eq!(
        world.outcome(&preflight("/closed", APP, "POST")).await?,
        (404, 0),
        "a closed route carries no policies"
    );
    Ok(())
}

/// R126, R129.
#[tokio::test]
async fn the_oldest_policy_decides_and_the_loser_is_told() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let young = "https://young.test";
    for (path, origin, expected) in
        [("/both", APP, Some(APP)), ("/both", young, None), ("/young", young, Some(young)), ("/young", APP, None)]
    {
        let response = world.send(&call("GET", path, origin)).await?;
        assert_eq!(allowed(&response).as_deref(), expected, "{path}, {origin}");
    }
    let credentials = world.send(&call("GET", "/young", young)).await?;
    assert_eq!(credentials.header("access-control-allow-credentials"), None, "not allowed");
    let (winner, loser) = ("CORSPolicy/shop/cors@cluster-1", "CORSPolicy/team/young@cluster-1");
    assert_eq!(world.verdict(winner)?.0, "ACCEPTED");
    let (approval, message, routes) = world.verdict(loser)?;
    assert_eq!((approval.as_str(), routes), ("WARNING", 1));
    assert!(message.contains("BEATEN_BY_OLDER") && message.contains(winner), "{message}");
    let said = world.explained(&call("GET", "/both", young))?;
    let policies: Vec<&str> = list(&said, "/policies").iter().map(|policy| text(policy, "/policy")).collect();
    assert_eq!((text(&said, "/gateway"), policies), (GATEWAY, vec![winner]), "{said:#}");
    assert!(said.to_string().contains("OLDER_POLICY_WINS"), "{said:#}");
    // Once the winner is invalid, it attaches nowhere and the younger takes over.
    world.mesh.edit(winner, |policy| policy["spec"]["config"]["allowOrigins"] = json!([{}]))?;
    until_allowed(&mut world, &call("GET", "/both", young), Some(young)).await
}

/// Without the headers browsers refuse calls from other origins, which is the closed state.
#[tokio::test]
async fn an_invalid_policy_allows_no_origin() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let policy = "CORSPolicy/shop/cors@cluster-1";
    let valid = json!({"allowOrigins": [{"exact": APP}]});
    for (change, field) in [
        (json!({"allowOrigins": [{"exact": APP}, {}]}), "spec.config.allowOrigins[1]"),
        (json!({"allowOrigins": [{"exact": APP}, {"regex": "("}]}), "spec.config.allowOrigins[1].regex"),
        (json!({"allowOrigins": [{"exact": APP}], "maxAge": "1500ms"}), "spec.config.maxAge"),
        (json!({"allowOrigins": [{"exact": APP}], "maxAge": "-1s"}), "spec.config.maxAge"),
        (json!({"allowOrigins": [{"exact": APP}], "allowHeaders": ["x-a\r\nx-b: 1"]}), "spec.config.allowHeaders[0]"),
        (json!({"corsPolicy": {"allowOrigins": [{"exact": APP}]}}), "spec.config.corsPolicy"),
        (json!(null), "spec.config"),
    ] {
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = valid.clone())?;
        until_allowed(&mut world, &call("GET", "/cors", APP), Some(APP)).await?;
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = change.clone())?;
        until_allowed(&mut world, &call("GET", "/cors", APP), None).await?;
        assert_eq!(world.verdict(policy)?.0, "INVALID", "{change}");
        assert_eq!(world.blamed_field(policy)?, field, "{change}");
        // Everything else is served as ever.
        assert_eq!(world.outcome(&request("GET", "/cors")).await?, (200, 1), "{change}");
    }
    Ok(())
}

async fn until_allowed(world: &mut Delegated, request: &Request, origin: Option<&str>) -> anyhow::Result<()> {
    until(PATIENCE, &format!("{origin:?} to be allowed"), async || {
        let response = world.send(request).await.map_err(|error| format!("{error:#}"))?;
        let seen = allowed(&response);
        if seen.as_deref() == origin { Ok(()) } else { Err(Not::Yet(format!("{seen:?}"))) }
    })
    .await
}
