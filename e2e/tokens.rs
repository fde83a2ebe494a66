//! Ways around a JWTPolicy, each tried on a real Envoy: requests that move to another route, headers that a client writes in
//! place of a token, a destination behind a frozen tree; and the largest policy that may be.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::delegated::{Delegated, VAULT, echo, request};
use crate::support::http::Request;
use crate::support::issuer::Issuer;
use crate::support::wait::PATIENCE;

/// Where `x-org` decides between two routes; `$…` are the policies.
const ROUTES: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: gold, labels: {case: gold}, matchers: [{uri: {prefix: /gold}}, {uri: {prefix: /move}, headers: [{name: x-org, value: gold}]}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: iron, labels: {case: iron}, matchers: [{uri: {prefix: /iron}}, {uri: {prefix: /move}, headers: [{name: x-org, value: iron}]}], forwardTo: *stock}
      - {name: steel, labels: {case: steel}, matchers: [{uri: {prefix: /steel}}, {uri: {prefix: /move}, headers: [{name: x-org, value: steel}]}], forwardTo: *stock}
      - {name: move, labels: {case: move}, matchers: [{uri: {prefix: /move}}], forwardTo: *stock}
      - {name: same, labels: {case: same}, matchers: [{uri: {prefix: /same}, headers: [{name: x-org, value: gold}]}], forwardTo: *stock}
      - {name: from, labels: {case: same}, matchers: [{uri: {prefix: /same}}], forwardTo: *stock}
      - {name: several, labels: {case: several}, matchers: [{uri: {prefix: /several}}], forwardTo: *stock}
      - {name: late, labels: {case: late}, matchers: [{uri: {prefix: /late}}], forwardTo: *stock}
      - {name: large, labels: {case: large}, matchers: [{uri: {prefix: /large}}], forwardTo: *stock}
      - {name: open, matchers: [{uri: {prefix: /}}], forwardTo: *stock}
";

/// A JWTPolicy for the routes of a case.
fn on(case: &str, config: &Value) -> String {
    let policy = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {
            "name": case, "namespace": "shop", "annotations": {"cluster.solo.io/cluster": "cluster-1"},
        },
        "spec": {"applyToRoutes": [{"route": {"labels": {"case": case}}}], "config": config},
    });
    format!("- {policy}\n")
}

/// A provider with the keys of an issuer.
fn provider(issuer: &Issuer, more: &Value) -> anyhow::Result<Value> {
    let mut provider = json!({"issuer": issuer.name, "local": {"inline": issuer.pem()?}});
    for (field, value) in more.as_object().into_iter().flatten() {
        provider[field] = value.clone();
    }
    Ok(provider)
}

fn with(path: &str, token: &str) -> Request {
    request("GET", path).header("authorization", &format!("Bearer {token}"))
}

/// What a backend saw of a header.
async fn seen(world: &mut Delegated, asked: &Request, header: &str) -> anyhow::Result<Option<String>> {
    let response = world.send(asked).await?;
    assert_eq!(response.status, 200, "{asked:?}: {}", response.text());
    Ok(echo(&response)?.headers.get(header).cloned())
}

/// A claim becomes a header and moves the request to a route whose policy lets requests without a token pass. That policy
/// has not looked at it: neither at a bad token, nor at what the client wrote in place of a claim.
#[tokio::test]
async fn a_request_does_not_move_onto_a_route_that_would_not_look_at_it() -> anyhow::Result<()> {
    let (a, c) = (Issuer::ec("https://a")?, Issuer::ec("https://c")?);
    let user = json!({"claimsToHeaders": [{"claim": "email", "header": "x-user"}], "tokenSource": {"headers": [{"name": "x-token"}]}});
    let moving = json!({"claimsToHeaders": [{"claim": "org", "header": "x-org"}]});
    let open = |mode: &str| -> anyhow::Result<Value> {
        Ok(json!({"providers": {"c": provider(&c, &user)?}, "validationPolicy": mode}))
    };
    let mut late = open("ALLOW_MISSING")?;
    late["phase"] = json!({"postAuthz": {}});
    let policies = [
        on("move", &json!({"providers": {"a": provider(&a, &moving)?}})),
        on("gold", &open("ALLOW_MISSING")?),
        on("iron", &open("ALLOW_MISSING_OR_FAILED")?),
        on("steel", &late),
        on("same", &json!({"providers": {"a": provider(&a, &moving)?}, "validationPolicy": "ALLOW_MISSING"})),
    ]
    .concat();
    let mut world = Delegated::start(&format!("{ROUTES}{policies}")).await?;
    for org in ["gold", "iron", "steel"] {
        let moved = with("/move", &a.token(&json!({"org": org}))?);
        for asked in [moved.clone(), moved.clone().header("x-user", "king"), moved.header("x-token", "bad")] {
            assert_eq!(world.outcome(&asked).await?, (403, 0), "{org}: {asked:?}");
        }
        // There by itself: the policy's own answer.
        let direct = request("GET", &format!("/{org}"));
        assert_eq!(seen(&mut world, &direct.clone().header("x-user", "king"), "x-user").await?, None, "{org}");
        let known = direct.clone().header("x-token", &c.token(&json!({"email": "a@b"}))?);
        assert_eq!(seen(&mut world, &known, "x-user").await?.as_deref(), Some("a@b"), "{org}");
        let bad = world.outcome(&direct.header("x-token", "bad")).await?;
        assert_eq!(bad, if org == "iron" { (200, 1) } else { (401, 0) }, "{org}");
    }
    // What stays, and what moves under the same policy, passes.
    assert_eq!(world.outcome(&with("/move", &a.token(&json!({"org": "tin"}))?)).await?, (200, 1));
    assert_eq!(world.outcome(&with("/same", &a.token(&json!({"org": "gold"}))?)).await?, (200, 1));
    assert_eq!(world.outcome(&request("GET", "/same")).await?, (200, 1));
    assert_eq!(world.outcome(&request("GET", "/")).await?, (200, 1));
    Ok(())
}

/// A request on a route whose destination's policy lets requests without a token pass is marked for that policy. It moves to
/// a second route, whose destination's policy would move it on to a third, which leads to the destination of the first: the
/// mark would let it pass there with what nobody has looked at. A policy of a destination never chooses the route again.
#[tokio::test]
async fn no_mark_is_carried_to_a_third_route() -> anyhow::Result<()> {
    const CHAIN: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: third, matchers: [{uri: {prefix: /chain}, headers: [{name: x-next, value: go}]}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: second, matchers: [{uri: {prefix: /chain}, headers: [{name: x-org, value: b}]}], forwardTo: {destinations: [{ref: {name: stock}}]}}
      - {name: first, labels: {case: chain}, matchers: [{uri: {prefix: /chain}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: alone, matchers: [{uri: {prefix: /alone}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
";
    let (a, d, e) = (Issuer::ec("https://a")?, Issuer::ec("https://d")?, Issuer::ec("https://e")?);
    let at = |service: &str, config: Value| {
        let policy = json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
            "metadata": {
                "name": service, "namespace": "team", "annotations": {"cluster.solo.io/cluster": "cluster-1"},
            },
            "spec": {"applyToDestinations": [{"selector": {"name": service}}], "config": config},
        });
        format!("- {policy}\n")
    };
    let claim = |claim: &str, header: &str, token: &str| json!({"claimsToHeaders": [{"claim": claim, "header": header}], "tokenSource": {"headers": [{"name": token}]}});
    let policies = [
        on("chain", &json!({"providers": {"a": provider(&a, &claim("org", "x-org", "x-a"))?}})),
        at(
            "vault",
            json!({"providers": {"d": provider(&d, &claim("email", "x-user", "x-d"))?}, "validationPolicy": "ALLOW_MISSING"}),
        ),
        at(
            "stock",
            json!({"providers": {"e": provider(&e, &claim("next", "x-next", "x-e"))?}, "clearRouteCache": "TRUE"}),
        ),
    ]
    .concat();
    let mut world = Delegated::start(&format!("{VAULT}{CHAIN}{policies}")).await?;
    let asked = request("GET", "/chain").header("x-a", &a.token(&json!({"org": "b"}))?);
    let moving = asked.header("x-e", &e.token(&json!({"next": "go"}))?);
    for spoofed in
        [moving.clone().header("x-user", "king"), moving.clone().header("x-d", "bad").header("x-user", "king")]
    {
        let response = world.send(&spoofed).await?;
        assert_eq!(response.status, 200, "it ends on the second: {}", response.text());
        assert_eq!(echo(&response)?.identity.service, "stock", "never at the vault: {}", response.text());
    }
    // What the vault's policy does where it looks.
    let alone = request("GET", "/alone").header("x-user", "king");
    assert_eq!(seen(&mut world, &alone, "x-user").await?, None);
    assert_eq!(world.outcome(&alone.header("x-d", "bad")).await?, (401, 0));
    // Who moves once is not let in on the mark of the first.
    let first = request("GET", "/chain").header("x-a", &a.token(&json!({"org": "none"}))?);
    assert_eq!(world.outcome(&first.clone().header("x-d", "bad")).await?, (401, 0));
    assert_eq!(seen(&mut world, &first.header("x-user", "king"), "x-user").await?, None);
    Ok(())
}

/// What becomes of claims under one policy takes nothing from requests on other routes.
#[tokio::test]
async fn the_headers_of_a_policy_are_removed_on_its_own_routes_alone() -> anyhow::Result<()> {
    let a = Issuer::ec("https://a")?;
    let claims =
        json!({"claimsToHeaders": [{"claim": "role", "header": "x-role"}], "outputPayloadToHeader": "x-payload"});
    let early = on("several", &json!({"providers": {"a": provider(&a, &claims)?}}));
    let late = on("late", &json!({"providers": {"a": provider(&a, &claims)?}, "phase": {"postAuthz": {}}}));
    let mut world = Delegated::start(&format!("{ROUTES}{early}{late}")).await?;
    let token = a.token(&json!({"role": "cook"}))?;
    for header in ["x-role", "x-payload"] {
        let open = request("GET", "/").header(header, "own");
        assert_eq!(seen(&mut world, &open, header).await?.as_deref(), Some("own"), "{header}");
        for path in ["/several", "/late"] {
            let found = seen(&mut world, &with(path, &token).header(header, "king"), header).await?;
            assert!(
                found.as_ref().is_some_and(|found| found != "king" && found != "own"),
                "{path} {header}: {found:?}"
            );
        }
    }
    Ok(())
}

/// Envoy before 1.40 tries no provider after the first that fits, and removes the headers of those alone
/// that it tried.
#[tokio::test]
async fn with_several_providers_no_client_writes_the_header_of_any() -> anyhow::Result<()> {
    let (a, b) = (Issuer::ec("https://a")?, Issuer::ec("https://b")?);
    let claims =
        json!({"claimsToHeaders": [{"claim": "role", "header": "x-role"}], "outputPayloadToHeader": "x-payload"});
    let providers = json!({"a": provider(&a, &json!({}))?, "b": provider(&b, &claims)?});
    let policies = [
        on("several", &json!({"providers": providers})),
        on("late", &json!({"providers": providers, "phase": {"postAuthz": {}}})),
    ]
    .concat();
    let mut world = Delegated::start(&format!("{ROUTES}{policies}")).await?;
    let (of_a, of_b) = (a.token(&json!({}))?, b.token(&json!({"role": "cook"}))?);
    for path in ["/several", "/late"] {
        for header in ["x-role", "x-payload"] {
            let spoofed = with(path, &of_a).header(header, "king");
            assert_eq!(seen(&mut world, &spoofed, header).await?, None, "{path} {header}");
        }
        let honest = with(path, &of_b).header("x-role", "king");
        assert_eq!(seen(&mut world, &honest, "x-role").await?.as_deref(), Some("cook"), "{path}");
        assert_eq!(world.outcome(&request("GET", path)).await?, (401, 0), "{path}");
    }
    Ok(())
}

/// R118, R140: a team that forwards to the Service of another and keeps its tree frozen does not keep that other team from
/// protecting its Service, nor from replacing a key.
#[tokio::test]
async fn r140_owners_of_destinations_protect_them_behind_frozen_trees_too() -> anyhow::Result<()> {
    const ROOT: &str = "RouteTable/shop/www@cluster-1";
    const GUARD: &str = "JWTPolicy/team/guard@cluster-1";
    let (old, new) = (Issuer::ec("https://old")?, Issuer::ec("https://new")?);
    let guard = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {"name": "guard", "namespace": "team", "annotations": {"cluster.solo.io/cluster": "cluster-1"}},
        "spec": {
            "applyToDestinations": [{"selector": {"name": "other"}}],
            "config": {"providers": {"p": provider(&old, &json!({}))?}},
        },
    });
    let selects = |policy: &mut Value, name: &str| {
        policy["spec"]["applyToDestinations"][0]["selector"]["name"] = json!(name);
    };
    let mut world = Delegated::start(&format!("{ROUTES}- {guard}\n")).await?;
    let own = json!({
        "name": "own", "matchers": [{"uri": {"prefix": "/own"}}],
        "forwardTo": {"destinations": [{"ref": {"name": "stock", "namespace": "team"}}]},
    });
    let lost = json!({
        "name": "lost", "matchers": [{"uri": {"prefix": "/lost"}}],
        "forwardTo": {"destinations": [{"ref": {"name": "nowhere"}}]},
    });
    let said = json!({"name": "said", "directResponse": {"status": 299}});
    world.mesh.edit(ROOT, |table| {
        table["spec"]["failureMode"] = json!("FREEZE_CONFIG");
        table["spec"]["http"] = json!([own, said]);
    })?;
    world.answers(&request("GET", "/"), 299).await?;
    world.mesh.edit(ROOT, |table| table["spec"]["http"] = json!([lost, own]))?;
    world.mesh.edit(GUARD, |policy| selects(policy, "stock"))?;
    world.answers(&request("GET", "/own"), 401).await?;
    assert_eq!(world.outcome(&request("GET", "/")).await?, (299, 0), "the tree is frozen");
    let (by_old, by_new) = (with("/own", &old.token(&json!({}))?), with("/own", &new.token(&json!({}))?));
    assert_eq!((world.outcome(&by_old).await?, world.outcome(&by_new).await?), ((200, 1), (401, 0)));
    // The old key has leaked.
    let providers = json!({"p": provider(&new, &json!({}))?});
    world.mesh.edit(GUARD, |policy| policy["spec"]["config"]["providers"] = providers.clone())?;
    world.answers(&by_new, 200).await?;
    assert_eq!(world.outcome(&by_old).await?, (401, 0));
    // The owner lets go.
    world.mesh.edit(GUARD, |policy| selects(policy, "other"))?;
    world.answers(&request("GET", "/own"), 200).await?;
    assert_eq!(world.outcome(&request("GET", "/")).await?, (299, 0), "the tree is frozen");
    Ok(())
}

/// Whatever is accepted, Envoy takes: what it refuses costs everybody's routes.
#[tokio::test]
async fn the_largest_policy_that_is_accepted_is_taken_by_envoy() -> anyhow::Result<()> {
    let issuer = Issuer::ec("https://a")?;
    let large = json!({
        "claimsToHeaders": [
            {"claim": "c".repeat(4096), "header": "h".repeat(16_384), "append": true},
            {"claim": "d".repeat(4096), "header": "i".repeat(16_384)},
        ],
        "tokenSource": {
            "headers": [{"name": "Authorization", "prefix": "Bearer "}, {"name": "j".repeat(16_384), "prefix": "p".repeat(4096)}],
            "queryParams": ["q".repeat(4096)],
        },
        "audiences": ["shop", "a".repeat(4096)],
    });
    let remote = json!({
        "issuer": "https://other", "tokenSource": {"headers": [{"name": "x-other"}]},
        "remote": {"url": "http://issuer.example.com/keys", "cacheDuration": "4611686017s", "timeout": "4294967295s"},
    });
    let policies = on(
        "large",
        &json!({
            "providers": {"a": provider(&issuer, &large)?, "b": remote},
            "claims": [{"key": "org", "values": ["shop", "v".repeat(4096), format!("{}*", ".".repeat(4095))]}],
        }),
    );
    let access = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": "large", "namespace": "team", "annotations": {"cluster.solo.io/cluster": "cluster-1"}},
        "spec": {
            "applyToDestinations": [{"selector": {"name": "stock"}}],
            "config": {"authzList": [{"match": {"request": {"headers": {
                "host": {"notValues": [".".repeat(4096), "*.".repeat(1000), format!("*{}", "é".repeat(2047))]},
                "x-a": {"notValues": ["?".repeat(4096), "*a".repeat(1200)]},
            }}}}]},
        },
    });
    let mut world = Delegated::start(&format!("{ROUTES}{policies}- {access}\n")).await?;
    for object in ["JWTPolicy/shop/large@cluster-1", "AccessPolicy/team/large@cluster-1"] {
        let (approval, message, _) = world.verdict(object)?;
        assert!(["ACCEPTED", "WARNING"].contains(&approval.as_str()), "{object}: {approval} {message}");
    }
    let token = issuer.token(&json!({"aud": "shop", "org": "shop"}))?;
    assert_eq!(world.outcome(&with("/large", &token)).await?, (200, 1));
    assert_eq!(world.outcome(&request("GET", "/large")).await?, (401, 0));
    let refused = world.mesh.gateways[0].envoy.stats("(update_rejected|config_fail)$").await?;
    assert!(refused.values().all(|count| *count == 0), "{refused:?}");
    Ok(())
}

/// R122: a JWTPolicy is no way to call a Service whose owner does not let the gateway.
#[tokio::test]
async fn r122_gateways_ask_no_service_for_keys_whose_owner_does_not_let_them() -> anyhow::Result<()> {
    const GUARD: &str = "AccessPolicy/team/guard@cluster-1";
    let issuer = Issuer::ec("https://a")?;
    let keys = json!({"url": "http://keys/secrets", "destinationRef": {"ref": {"name": "stock", "namespace": "team"}}});
    let asking = on("several", &json!({"providers": {"a": {"issuer": issuer.name, "remote": keys}}}));
    let guard = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": "guard", "namespace": "team", "annotations": {"cluster.solo.io/cluster": "cluster-1"}},
        "spec": {
            "applyToDestinations": [{"selector": {"name": "stock"}}],
            "config": {"authzList": [{"allowedClients": [{}]}]},
        },
    });
    let mut world = Delegated::start(&format!("{ROUTES}{asking}- {guard}\n")).await?;
    let asked = with("/several", &issuer.token(&json!({}))?);
    let (status, received) = world.outcome(&asked).await?;
    assert_eq!(status, 401, "what the backend answers are no keys");
    assert!(received > 0, "the gateway has asked for them");
    world.mesh.edit(GUARD, |policy| policy["spec"]["config"]["authzList"] = json!([{"allowedMethods": ["GET"]}]))?;
    world.answers(&request("POST", "/"), 403).await?;
    // The endpoints that are gone come by themselves.
    let before = world.mesh.gateways[0].envoy.stats("update_rejected$").await?;
    let (mut quiet, started) = (0, Instant::now());
    while quiet < 5 {
        assert!(started.elapsed() < PATIENCE, "the gateway goes on asking");
        let (status, received) = world.outcome(&asked).await?;
        assert_eq!(status, 401);
        quiet = if received == 0 { quiet + 1 } else { 0 };
    }
    assert_eq!(world.outcome(&request("GET", "/")).await?, (200, 1), "the owner lets requests of clients pass");
    assert_eq!(world.mesh.gateways[0].envoy.stats("update_rejected$").await?, before);
    Ok(())
}
