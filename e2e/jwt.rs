//! JWTPolicy on a real Envoy: tokens that real keys signed, keys from real servers, and backends that count.
//!
//! Workspace `shop` owns the gateway and delegates everything to a table of workspace `team`; policies of both select its
//! routes by label, and those of `team` its Services.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::delegated::{Delegated, VAULT, echo, request};
use crate::support::http::{Client, Request, Response};
use crate::support::issuer::{Issuer, KeyServer, now};
use crate::support::load::{Load, Pace};
use crate::support::wait::{Not, PATIENCE, until};

/// Beside [`VAULT`].
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: idp, namespace: team, @}
  spec: {selector: {app: idp}, ports: [{name: http, port: 8080}]}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: require, labels: {case: require}, matchers: [{uri: {prefix: /require}}], forwardTo: *stock}
      - {name: missing, labels: {case: missing}, matchers: [{uri: {prefix: /missing}}], forwardTo: *stock}
      - {name: failed, labels: {case: failed}, matchers: [{uri: {prefix: /failed}}], forwardTo: *stock}
      - {name: claims, labels: {case: claims}, matchers: [{uri: {prefix: /claims}}], forwardTo: *stock}
      - {name: gold, labels: {case: gold}, matchers: [{uri: {prefix: /move}, headers: [{name: x-org, value: gold}]}], forwardTo: *stock}
      - {name: move, labels: {case: headers}, matchers: [{uri: {prefix: /move}}], forwardTo: *stock}
      - {name: same, labels: {case: headers}, matchers: [{uri: {prefix: /same}, headers: [{name: x-org, value: gold}]}], directResponse: {status: 299}}
      - {name: headers, labels: {case: headers}, matchers: [{uri: {prefix: /}, headers: [{name: x-case, value: headers}]}], forwardTo: *stock}
      - {name: rest, labels: {case: headers}, matchers: [{uri: {prefix: /same}}], forwardTo: *stock}
      - {name: secret, labels: {case: secret}, matchers: [{uri: {prefix: /secret}}], forwardTo: *stock}
      - {name: server, labels: {case: server}, matchers: [{uri: {prefix: /server}}], forwardTo: *stock}
      - {name: lost, labels: {case: lost}, matchers: [{uri: {prefix: /lost}}], forwardTo: *stock}
      - {name: private, labels: {case: private}, matchers: [{uri: {prefix: /private}}], forwardTo: *stock}
      - {name: foreign, labels: {case: foreign}, matchers: [{uri: {prefix: /foreign}}], forwardTo: *stock}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: both, labels: {case: require}, matchers: [{uri: {prefix: /both}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - name: half
        matchers: [{uri: {prefix: /half}}]
        forwardTo: {destinations: [{ref: {name: vault}, weight: 50}, {ref: {name: stock}, weight: 50}]}
- apiVersion: v1
  kind: Secret
  metadata: {name: keys, namespace: team, @}
  stringData: {idp.pem: $PEM_C}
- apiVersion: v1
  kind: Secret
  metadata: {name: keys, namespace: shop, @}
  stringData: {idp.pem: $PEM_C}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: require, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: require}}}]
    config:
      providers:
        a: &a {issuer: https://a, audiences: [shop, other], local: {inline: $PEM_A}}
        b: &b {issuer: https://b, remote: {url: $URL_B}, tokenSource: {headers: [{name: x-token, prefix: 'T '}], queryParams: [token]}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: younger, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}, spec: {applyToRoutes: [{route: {labels: {case: require}}}], config: {providers: {a: *a}, validationPolicy: ALLOW_MISSING_OR_FAILED}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: missing, namespace: shop, @}, spec: {applyToRoutes: [{route: {labels: {case: missing}}}], config: {providers: {a: *a}, validationPolicy: ALLOW_MISSING}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: failed, namespace: shop, @}, spec: {applyToRoutes: [{route: {labels: {case: failed}}}], config: {providers: {a: *a}, validationPolicy: ALLOW_MISSING_OR_FAILED}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: claims, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: claims}}}]
    config:
      providers: {a: {issuer: https://a, local: {inline: $PEM_A}}, c: {issuer: https://c, local: {inline: $JWKS_C}}}
      claims:
        - {key: groups, values: [admins, 'dev-*', '7', 'true']}
        - {key: org.team, nestedClaimDelimiter: ., values: ['*']}
        - {key: banned, notValues: ['true']}
      requiredScopes: [read]
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: headers, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: headers}}}]
    config:
      providers:
        a:
          issuer: https://a
          local: {inline: $PEM_A}
          claimsToHeaders:
            - {claim: org, header: X-Org}
            - {claim: 'https://a/role', header: x-role}
            - {claim: deep.er, header: x-deep, append: true}
          outputPayloadToHeader: x-payload
          keepToken: true
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: gold, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: gold}}}], config: {providers: {c: {issuer: https://c, local: {inline: $JWKS_C}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: secret, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: secret}}}], config: {phase: {postAuthz: {}}, providers: {c: {issuer: https://c, local: {secretRef: {objectRef: {name: keys}, key: idp.pem}}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: server, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: server}}}], config: {providers: {d: {issuer: https://d, audiences: [shop], remote: {url: 'http://idp.example/keys', destinationRef: {ref: {name: idp}, port: {number: 8080}}, enableAsyncFetch: true, cacheDuration: 1h}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: lost, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: lost}}}], config: {providers: {c: {local: {secretRef: {objectRef: {name: keys}, key: gone}}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: private, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: private}}}], config: {providers: {c: {local: {inline: no keys}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: foreign, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: foreign}}}], config: {providers: {c: {local: {secretRef: {objectRef: {name: keys, namespace: shop}, key: idp.pem}}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: vault, namespace: team, @}, spec: {applyToDestinations: [{selector: {labels: {guard: 'yes'}}}], config: {providers: {c: {issuer: https://c, local: {inline: $JWKS_C}, tokenSource: {headers: [{name: x-vault}]}}}}}}
";

/// The world with its issuers: `a` has an RSA key, the others EC keys.
struct World {
    team: Delegated,
    a: Issuer,
    b: Issuer,
    c: Issuer,
    d: Issuer,
    /// Serves the keys of `b`, by URL, and of `d`, as a Service.
    servers: [KeyServer; 2],
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let (a, b) = (Issuer::rsa("https://a")?, Issuer::ec("https://b")?);
        let (c, d) = (Issuer::ec("https://c")?, Issuer::ec("https://d")?);
        let servers = [KeyServer::start(b.jwks()).await?, KeyServer::start(d.jwks()).await?];
        let quoted = |text: String| json!(text).to_string();
        let world = format!("{VAULT}{WORLD}")
            .replace("$PEM_A", &quoted(a.pem()?))
            .replace("$PEM_C", &quoted(c.pem()?))
            .replace("$JWKS_C", &quoted(c.jwks()))
            .replace("$URL_B", &quoted(format!("http://{}/keys", servers[0].address)));
        let team = Delegated::start(&world).await?;
        team.leads("idp", "http", servers[1].address)?;
        Ok(Self { team, a, b, c, d, servers })
    }

    /// The answer to a request with a token in the usual place.
    async fn bearing(&mut self, path: &str, token: &str) -> anyhow::Result<Response> {
        self.team.send(&with(path, token)).await
    }

    /// Asserts the status of requests, and that those which are refused reach no backend.
    async fn judges(&mut self, rows: &[(&str, Request, u16)]) -> anyhow::Result<()> {
        for (why, request, status) in rows {
            let expected = (*status, u64::from(*status == 200));
            assert_eq!(self.team.outcome(request).await?, expected, "{why}: requests that reach a backend");
        }
        Ok(())
    }
}

fn with(path: &str, token: &str) -> Request {
    request("GET", path).header("authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn only_good_tokens_pass_and_each_mode_is_its_own() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let good = world.a.token(&json!({"aud": "shop"}))?;
    let listed = world.a.token(&json!({"aud": ["x", "other"]}))?;
    let expired = world.a.token(&json!({"aud": "shop", "exp": now() - 3600}))?;
    let early = world.a.token(&json!({"aud": "shop", "nbf": now() + 3600}))?;
    let elsewhere = world.a.token(&json!({"aud": "elsewhere"}))?;
    let stranger = world.a.token(&json!({"aud": "shop", "iss": "https://x"}))?;
    let forged = Issuer::rsa("https://a")?.token(&json!({"aud": "shop"}))?;
    let unsigned = world.a.unsigned();
    let cut = good.rsplit_once('.').map(|(head, _)| format!("{head}.")).unwrap_or_default();
    let of_b = world.b.token(&json!({}))?;
    world
        .judges(&[
            ("without the policy", request("GET", "/plain"), 200),
            ("no token", request("GET", "/require"), 401),
            ("a good token", with("/require", &good), 200),
            ("one of several audiences", with("/require", &listed), 200),
            ("expired", with("/require", &expired), 401),
            ("not valid yet", with("/require", &early), 401),
            ("another audience", with("/require", &elsewhere), 403),
            ("another issuer", with("/require", &stranger), 401),
            ("another key", with("/require", &forged), 401),
            ("alg none", with("/require", &unsigned), 401),
            ("without its signature", with("/require", &cut), 401),
            ("no token at all", with("/require", "x"), 401),
            (
                "of the other provider, in its header",
                request("GET", "/require").header("x-token", &format!("T {of_b}")),
                200,
            ),
            ("in its query parameter", request("GET", &format!("/require?token={of_b}")), 200),
            ("of the other provider, in the wrong place", with("/require", &of_b), 401),
            ("two headers, one bad", with("/require", &good).header("authorization", "Bearer x"), 401),
            ("missing where that is allowed", request("GET", "/missing"), 200),
            ("good where it may be missing", with("/missing", &good), 200),
            ("bad where it may be missing", with("/missing", &expired), 401),
            ("missing where it may fail", request("GET", "/failed"), 200),
            ("bad where it may fail", with("/failed", &forged), 200),
        ])
        .await?;
    assert!(world.servers[0].requests() > 0, "the keys of b came from its server");
    let refused = world.team.send(&request("GET", "/require?access_token=secret-text")).await?;
    assert_eq!(refused.status, 401);
    assert!(!format!("{refused:?}").contains("secret-text"), "the answer repeats no token: {refused:?}");
    Ok(())
}

#[tokio::test]
async fn claims_and_scopes_are_wanted_of_every_token() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let base = json!({"groups": "admins", "org": {"team": "x"}, "scope": "write read"});
    let mut rows = Vec::new();
    for (why, change, status) in [
        ("all that is asked", json!({}), 200),
        ("a list of groups", json!({"groups": ["x", "dev-1"]}), 200),
        ("a number", json!({"groups": 7}), 200),
        ("a list of numbers", json!({"groups": [1, 7]}), 200),
        ("a truth", json!({"groups": true}), 200),
        ("another group", json!({"groups": "users"}), 403),
        ("a number that is none of them", json!({"groups": 8}), 403),
        ("no group", json!({"groups": null}), 403),
        ("no team", json!({"org": {}}), 403),
        ("the path as one name", json!({"org": null, "org.team": "x"}), 403),
        ("banned", json!({"banned": true}), 403),
        ("banned in words", json!({"banned": ["true"]}), 403),
        ("not banned", json!({"banned": false}), 200),
        ("another scope", json!({"scope": "write"}), 403),
        ("half of a scope", json!({"scope": "reading"}), 403),
        ("scopes as a list", json!({"scope": ["read"]}), 200),
    ] {
        let mut claims = base.clone();
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        rows.push((why, with("/claims", &world.a.token(&claims)?), status));
        rows.push((why, with("/claims", &world.c.token(&claims)?), status));
    }
    rows.push(("no token", request("GET", "/claims"), 401));
    world.judges(&rows).await
}

#[tokio::test]
async fn claims_become_headers_and_no_client_can_write_them() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let token = world.a.token(&json!({"org": "iron", "https://a/role": "cook", "deep": {"er": "down"}}))?;
    let request = with("/", &token).header("x-case", "headers").header("x-role", "king").header("x-deep", "up");
    let seen = echo(&world.team.send(&request).await?)?;
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-org"), header("x-role"), header("x-deep")), (Some("iron"), Some("cook"), Some("up, down")));
    assert!(header("x-payload").is_some_and(|payload| payload.len() > 40));
    assert_eq!(header("authorization"), Some(format!("Bearer {token}").as_str()));
    let told = world.a.token(&json!({"org": "%REQ(x-secret)%", "deep": {"er": "%REQ(x-secret)% %"}}))?;
    let request = with("/", &told).header("x-case", "headers").header("x-secret", "s3cret");
    let seen = echo(&world.team.send(&request).await?)?;
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-org"), header("x-deep")), (Some("%REQ(x-secret)%"), Some("%REQ(x-secret)% %")));
    let bare = world.a.token(&json!({}))?;
    let request = with("/", &bare).header("x-case", "headers").header("x-role", "king").header("x-org", "mine");
    let seen = echo(&world.team.send(&request).await?)?;
    assert_eq!((seen.headers.get("x-role"), seen.headers.get("x-org"), seen.headers.get("x-deep")), (None, None, None));
    let token = world.a.token(&json!({"aud": "shop"}))?;
    let seen = echo(&world.bearing("/missing", &token).await?)?;
    assert_eq!(seen.headers.get("authorization"), None, "the token goes no further unless it is kept");
    Ok(())
}

#[tokio::test]
async fn a_request_that_moves_to_another_route_is_judged_there() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let gold = world.a.token(&json!({"org": "gold"}))?;
    let iron = world.a.token(&json!({"org": "iron"}))?;
    let of_c = world.c.token(&json!({}))?;
    world
        .judges(&[
            ("stays where it was", with("/move", &iron), 200),
            ("moved to a route that wants a token of c", with("/move", &gold), 403),
            ("there by itself, with the token of a", with("/move", &gold).header("x-org", "gold"), 401),
            ("there by itself, with a token of c", with("/move", &of_c).header("x-org", "gold"), 200),
            ("nobody", request("GET", "/move"), 401),
            ("moved under the same policy", with("/same", &gold), 299),
            ("not moved under the same policy", with("/same", &iron), 200),
        ])
        .await
}

#[tokio::test]
async fn keys_come_from_secrets_and_servers_and_bad_sources_close() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (of_c, of_d) = (world.c.token(&json!({}))?, world.d.token(&json!({"aud": "shop"}))?);
    let expired = world.d.token(&json!({"aud": "shop", "exp": now() - 3600}))?;
    let elsewhere = world.d.token(&json!({"aud": "x"}))?;
    let stranger = world.d.token(&json!({"aud": "shop", "iss": "https://x"}))?;
    let unsigned = world.d.unsigned();
    world.team.answers(&with("/server", &of_d), 200).await?;
    world
        .judges(&[
            ("by a Secret, after authorization", with("/secret", &of_c), 200),
            ("another key", with("/secret", &of_d), 401),
            ("no token", request("GET", "/secret"), 401),
            ("by a Service", with("/server", &of_d), 200),
            ("by a Service, another key", with("/server", &of_c), 401),
            ("by a Service, expired", with("/server", &expired), 401),
            ("by a Service, another audience", with("/server", &elsewhere), 403),
            ("by a Service, another issuer", with("/server", &stranger), 401),
            ("by a Service, unsigned", with("/server", &unsigned), 401),
            ("by a Service, no token", request("GET", "/server"), 401),
            ("a Secret without the entry", with("/lost", &of_c), 500),
            ("keys that are none", with("/private", &of_c), 500),
            ("a Secret of another workspace", with("/foreign", &of_c), 500),
        ])
        .await?;
    let asked = world.servers[1].requests();
    for _ in 0..50 {
        assert_eq!(world.bearing("/server", &of_d).await?.status, 200);
    }
    assert!(world.servers[1].requests() <= asked + 1, "keys are kept: {} fetches", world.servers[1].requests());
    for (name, expected) in [
        ("younger", "BEATEN_BY_OLDER"),
        ("younger", "JWTPolicy/shop/require@cluster-1"),
        ("lost", "has no entry"),
        ("private", "spec.config.providers.c.local.inline"),
        ("foreign", "does not exist in workspace `team`"),
    ] {
        let told = world.team.checked(&format!("JWTPolicy/team/{name}@cluster-1"))?.to_string();
        assert!(told.contains(expected), "{name}: {told}");
    }
    Ok(())
}

/// R118, R122.
#[tokio::test]
async fn r118_what_protects_a_destination_holds_on_every_route_to_it() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (of_a, of_c) = (world.a.token(&json!({"aud": "shop"}))?, world.c.token(&json!({}))?);
    let vault = |path: &str, token: &str| request("GET", path).header("x-vault", token);
    world
        .judges(&[
            ("no token", request("GET", "/vault"), 401),
            ("a token of the destination's", vault("/vault", &of_c), 200),
            ("one of another issuer", vault("/vault", &of_a), 401),
            ("the route's alone", with("/both", &of_a), 401),
            ("the destination's alone", vault("/both", &of_c), 401),
            ("both", with("/both", &of_a).header("x-vault", &of_c), 200),
        ])
        .await?;
    let vault = |backend: &&Backend| backend.identity.service == "vault";
    let reached = world.team.mesh.backends.iter().filter(vault).map(Backend::requests).sum::<u64>();
    let mut seen = [0, 0];
    for _ in 0..60 {
        let response = world.team.send(&request("GET", "/half")).await?;
        seen[usize::from(response.status == 200)] += 1;
        assert!([200, 401].contains(&response.status), "{}", response.text());
    }
    assert!(seen[0] > 5 && seen[1] > 5, "half of the requests go to a destination without the policy: {seen:?}");
    assert_eq!(world.team.mesh.backends.iter().filter(vault).map(Backend::requests).sum::<u64>(), reached);
    Ok(())
}

/// Policies come, change and go while requests with good tokens are sent: none fails, and no listener changes.
#[tokio::test]
async fn attaching_and_editing_costs_no_request_and_no_listener() -> anyhow::Result<()> {
    const MISSING: &str = "JWTPolicy/shop/missing@cluster-1";
    let mut world = World::start().await?;
    let address = world.team.mesh.entrance("shop/www")?.1;
    let listeners = "listener_manager.listener_(modified|added|in_place_updated)";
    let before = world.team.mesh.gateways[0].envoy.stats(listeners).await?;
    let good = world.a.token(&json!({"aud": "shop"}))?;
    let requests = ["/missing", "/plain", "/require"].map(|path| with(path, &good));
    let load = Load::start(address, 4, Pace::PerSecond(200), requests.clone().to_vec(), |_, response| {
        anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(())
    });
    for step in 0..12_usize {
        // In turn: another provider, other routes, and no routes at all.
        let label = ["missing", "other", "missing"][step % 3];
        world.team.mesh.edit(MISSING, |policy| {
            policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": label}}}]);
            policy["spec"]["config"]["providers"]["a"]["clockSkewSeconds"] = json!(60 + step / 3);
            policy["spec"]["config"]["validationPolicy"] = json!("REQUIRE_VALID");
        })?;
        let expected = if label == "missing" { 401 } else { 200 };
        until(PATIENCE, "the edit", async || match Client::new(address).send(&request("GET", "/missing")).await {
            Ok(response) if response.status == expected => Ok(()),
            other => Err(Not::Yet(format!("{other:?}"))),
        })
        .await
        .map_err(|error| world.team.mesh.with_logs(error))?;
        load.goes_on(requests.len()).await?;
    }
    load.end().await.map_err(|error| world.team.mesh.with_logs(error))?;
    assert_eq!(world.team.mesh.gateways[0].envoy.stats(listeners).await?, before, "listeners are as they were");
    assert_eq!(world.team.send(&request("GET", "/missing")).await?.status, 401);
    Ok(())
}
