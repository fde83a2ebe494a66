//! Bad JWTPolicies and AccessPolicies on a real Envoy: each class of them closes what it selects and nothing else, and says
//! where it is wrong.

use serde_json::{Map, Value, json};

use crate::support::delegated::{Delegated, VAULT, request};
use crate::support::issuer::Issuer;

const TOKENS: &str = "JWTPolicy/shop/tokens@cluster-1";
const GUARD: &str = "AccessPolicy/team/guard@cluster-1";

/// `$KEYS` stands for the issuer's.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: {destinations: [{ref: {name: stock}}]}}
      - {name: guarded, labels: {case: guarded}, matchers: [{uri: {prefix: /guarded}}], forwardTo: {destinations: [{ref: {name: stock}}]}}
      - {name: other, labels: {case: other}, matchers: [{uri: {prefix: /other}}], forwardTo: {destinations: [{ref: {name: stock}}]}}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: tokens, namespace: shop, @}, spec: {applyToRoutes: [{route: {labels: {case: guarded}}}], config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: other, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: other}}}], config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: AccessPolicy, metadata: {name: guard, namespace: team, @}, spec: {applyToDestinations: [{selector: {name: vault}}], config: {authzList: [{allowedMethods: [GET]}]}}}
";

/// R130, R131.
#[tokio::test]
async fn a_bad_jwt_policy_closes_its_own_routes_and_says_why() -> anyhow::Result<()> {
    let issuer = Issuer::ec("https://a")?;
    let keys = issuer.jwks();
    let mut world = Delegated::start(&format!("{VAULT}{}", WORLD.replace("$KEYS", &json!(keys).to_string()))).await?;
    let bearer = format!("Bearer {}", issuer.token(&json!({}))?);
    let good = |path: &str| request("GET", path).header("authorization", &bearer);
    world.answers(&good("/guarded"), 200).await?;
    let provider = |more: Value| {
        let mut provider = json!({"issuer": "https://a", "local": {"inline": keys}});
        provider.as_object_mut().into_iter().for_each(|own| own.extend(more.as_object().cloned().unwrap_or_default()));
        json!({"providers": {"a": provider}})
    };
    let remote = |remote: Value| json!({"providers": {"a": {"remote": remote}}});
    for (config, field) in [
        (json!(null), "spec.config"),
        (json!({"providers": {}}), "spec.config.providers"),
        (json!({"providers": {"a": {"issuer": "https://a"}}}), "spec.config.providers.a"),
        (
            json!({"providers": {"a": {"local": {"inline": "-----BEGIN nothing"}}}}),
            "spec.config.providers.a.local.inline",
        ),
        (remote(json!({"url": "nowhere"})), "spec.config.providers.a.remote.url"),
        (remote(json!({"url": "ftp://keys.example/"})), "spec.config.providers.a.remote.url"),
        (
            remote(json!({"url": "http://keys/", "destinationRef": {"ref": {"name": "gone", "namespace": "team"}}})),
            "spec.config.providers.a.remote.destinationRef",
        ),
        (
            provider(json!({"claimsToHeaders": [{"claim": "sub", "header": "content-length"}]})),
            "spec.config.providers.a.claimsToHeaders[0].header",
        ),
        (
            provider(json!({"claimsToHeaders": [{"claim": "sub", "header": "x-a"}, {"claim": "b", "header": "X-A"}]})),
            "spec.config.providers.a.claimsToHeaders[1].header",
        ),
        (provider(json!({"audience": ["x"]})), "spec.config.providers.a.audience"),
        (
            provider(json!({"claimsToHeaders": [{"claim": "https://a/b", "header": "x-a", "append": true}]})),
            "spec.config.providers.a.claimsToHeaders",
        ),
        (provider(json!({"audiences": ["a".repeat(4097)]})), "spec.config.providers.a.audiences[0]"),
        (
            json!({"providers": (0..17).map(|n| (format!("p{n}"), json!({"local": {"inline": keys}}))).collect::<Map<_, _>>()}),
            "spec.config.providers",
        ),
    ] {
        let before = world.mesh.manifests.clone();
        world.mesh.edit(TOKENS, |policy| policy["spec"]["config"] = config.clone())?;
        let told = |error: anyhow::Error| error.context(config.to_string());
        world.answers(&good("/guarded"), 500).await.map_err(told)?;
        for (path, expected) in [("/guarded", (500, 0)), ("/other", (200, 1)), ("/plain", (200, 1))] {
            assert_eq!(world.outcome(&good(path)).await?, expected, "{path}: {config}");
        }
        assert_eq!(world.outcome(&request("GET", "/other")).await?, (401, 0), "another's policy: {config}");
        assert_eq!(world.blamed_field(TOKENS)?, field, "{config}: {:?}", world.verdict(TOKENS)?);
        let whole = before.iter().find(|manifest| manifest.key() == TOKENS).map(|manifest| manifest.object.clone());
        world.mesh.edit(TOKENS, |policy| *policy = whole.clone().unwrap_or_default())?;
        world.answers(&good("/guarded"), 200).await.map_err(told)?;
    }
    Ok(())
}

/// R130, R131.
#[tokio::test]
async fn a_bad_access_policy_closes_its_destination_and_says_why() -> anyhow::Result<()> {
    let keys = Issuer::ec("https://a")?.jwks();
    let mut world = Delegated::start(&format!("{VAULT}{}", WORLD.replace("$KEYS", &json!(keys).to_string()))).await?;
    let vault = request("GET", "/vault");
    world.answers(&request("PUT", "/vault"), 403).await?;
    world.answers(&vault, 200).await?;
    let entry = |entry: Value| json!({"authzList": [entry]});
    let headers = |headers: Value| entry(json!({"match": {"request": {"headers": headers}}}));
    for (config, field) in [
        (json!(null), "spec.config"),
        (entry(json!({"allowedMethods": ["GE T"]})), "spec.config.authzList[0].allowedMethods[0]"),
        (entry(json!({"allowedPaths": [""]})), "spec.config.authzList[0].allowedPaths[0]"),
        (entry(json!({"allowedMethod": ["GET"]})), "spec.config.authzList[0].allowedMethod"),
        (entry(json!({"allowedIpBlocks": ["10.0.0.0/33"]})), "spec.config.authzList[0].allowedIpBlocks[0]"),
        (headers(json!({"x-a": {}})), "spec.config.authzList[0].match.request.headers.x-a"),
        (headers(json!({"x a": {"values": ["b"]}})), "spec.config.authzList[0].match.request.headers.x a"),
        (
            headers(json!({"X-A": {"values": ["b"]}, "x-a": {"values": ["c"]}})),
            "spec.config.authzList[0].match.request.headers.x-a",
        ),
        (
            headers(json!({"x-a": {"values": ["b".repeat(4097)]}})),
            "spec.config.authzList[0].match.request.headers.x-a.values[0]",
        ),
    ] {
        world.mesh.edit(GUARD, |policy| policy["spec"]["config"] = config.clone())?;
        let told = |error: anyhow::Error| error.context(config.to_string());
        world.answers(&vault, 403).await.map_err(told)?;
        assert_eq!(world.outcome(&vault).await?, (403, 0), "{config}");
        assert_eq!(world.outcome(&request("GET", "/plain")).await?, (200, 1), "another destination: {config}");
        assert_eq!(world.blamed_field(GUARD)?, field, "{config}: {:?}", world.verdict(GUARD)?);
        world
            .mesh
            .edit(GUARD, |policy| policy["spec"]["config"] = json!({"authzList": [{"allowedMethods": ["GET"]}]}))?;
        world.answers(&vault, 200).await.map_err(told)?;
    }
    Ok(())
}
