//! The switch that refuses what requires authentication and has none, on a real Envoy.

use serde_json::json;

use crate::support::chancery::Settings;
use crate::support::delegated::{Delegated, request};
use crate::support::issuer::{Issuer, base64};
use crate::support::manifests::{self, Manifest};

/// The label comes from the delegating route of another workspace as well.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: open, matchers: [{uri: {prefix: /open}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: asks, labels: {gateway.gloo.solo.io/require_auth: 'true', case: asks}, matchers: [{uri: {prefix: /asks}}], forwardTo: *stock}
      - {name: moved, labels: {gateway.gloo.solo.io/require_auth: 'true', case: moved}, matchers: [{uri: {prefix: /moved}}], redirect: {hostRedirect: elsewhere.example}}
";

/// R51.
#[tokio::test]
async fn r51_what_requires_authentication_and_has_none_is_refused() -> anyhow::Result<()> {
    let settings = Settings { require_auth: true, ..Settings::default() };
    let mut world = Delegated::start_with(WORLD, settings).await?;
    world.answers(&request("GET", "/open"), 200).await?;
    for path in ["/asks", "/moved"] {
        assert_eq!(world.outcome(&request("GET", path)).await?, (403, 0), "{path} without a policy");
    }
    let issuer = Issuer::ec("https://a")?;
    let policy = |keys: &str| Manifest {
        cluster: "cluster-1".to_owned(),
        object: json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
            "metadata": {"name": "tokens", "namespace": "shop"},
            "spec": {
                "applyToRoutes": [{"route": {"labels": {"case": "asks"}}}],
                "config": {"providers": {"a": {"issuer": "https://a", "local": {"inline": keys}}}},
            },
        }),
    };
    manifests::write(world.mesh.directory(), &[policy(&issuer.jwks())])?;
    let good = request("GET", "/asks").header("authorization", &format!("Bearer {}", issuer.token(&json!({}))?));
    world.answers(&good, 200).await?;
    assert_eq!(world.outcome(&request("GET", "/asks")).await?, (401, 0), "with a policy, without a token");
    assert_eq!(world.outcome(&good).await?, (200, 1));
    assert_eq!(world.outcome(&request("GET", "/moved")).await?, (403, 0), "the policy is for another route");
    // What a server or the gateway itself asks for is authentication as well. The hash is that of `wonder`.
    let users = json!({"alice": {"hashedPassword": "c37424cc626cc035d6e4e2991c0270d0510b8df3"}});
    let passwords = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ExtAuthPolicy",
        "metadata": {"name": "passwords", "namespace": "shop"},
        "spec": {
            "applyToRoutes": [{"route": {"labels": {"case": "moved"}}}],
            "config": {"glooAuth": {"configs": [{"basicAuth": {"encryption": {"sha1": {}}, "userList": {"users": users}}}]}},
        },
    });
    manifests::write(world.mesh.directory(), &[Manifest { cluster: "cluster-1".to_owned(), object: passwords }])?;
    world.answers(&request("GET", "/moved"), 401).await?;
    let alice = format!("Basic {}", base64("alice:wonder"));
    assert_eq!(world.outcome(&request("GET", "/moved").header("authorization", &alice)).await?, (301, 0));
    manifests::write(world.mesh.directory(), &[policy("no keys")])?;
    world.answers(&good, 500).await?;
    assert_eq!(world.outcome(&request("GET", "/asks")).await?, (500, 0), "an invalid policy closes");
    Ok(())
}
