//! AccessPolicies that ask who bears a token, `requestIdentityMatcher`, on a real Envoy: at destinations and on the gateway, with
//! tokens that policies of routes and of destinations verify.
//!
//! Workspace `shop` owns the gateway and delegates everything to a table of workspace `team`, whose backends count.

use anyhow::Context;
use serde_json::{Value, json};

use crate::support::delegated::{Delegated, request};
use crate::support::http::Request;
use crate::support::issuer::Issuer;
use crate::support::manifests::{self, Manifest};

/// `$A` and `$B` stand for the keys of two issuers, `$MANY` for five providers of `many`.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: pre, labels: {case: pre}, matchers: [{uri: {prefix: /pre}}], forwardTo: *stock}
      - {name: post, labels: {case: post}, matchers: [{uri: {prefix: /post}}], forwardTo: *stock}
      - {name: many, labels: {case: many}, matchers: [{uri: {prefix: /many}}], forwardTo: *stock}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: pre, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: pre}}}]
    config:
      providers:
        a: &a {issuer: https://a, local: {inline: $A}}
        b: {issuer: https://b, local: {inline: $B}, tokenSource: {headers: [{name: x-token}]}}
      validationPolicy: ALLOW_MISSING_OR_FAILED
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: post, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: post}}}], config: {phase: {postAuthz: {}}, providers: {a: *a}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: many, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: many}}}], config: {providers: {a: *a, b: *a, c: *a, d: *a, e: &b {issuer: https://b, local: {inline: $B}}}}}
";

/// Verifies tokens of `b` for the destination, in a header of its own.
const AT_DESTINATION: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: stock, namespace: team, @}
  spec:
    applyToDestinations: [{selector: {name: stock}}]
    config: {providers: {b: {issuer: https://b, local: {inline: $B}, tokenSource: {headers: [{name: x-stock}]}}}, validationPolicy: ALLOW_MISSING}
";

struct World {
    team: Delegated,
    a: Issuer,
    b: Issuer,
}

impl World {
    async fn start(more: &str) -> anyhow::Result<Self> {
        let (a, b) = (Issuer::ec("https://a")?, Issuer::ec("https://b")?);
        let quoted = |text: String| json!(text).to_string();
        let world = format!("{WORLD}{more}").replace("$A", &quoted(a.jwks())).replace("$B", &quoted(b.jwks()));
        Ok(Self { team: Delegated::start(&world).await?, a, b })
    }

    /// Puts a policy in force, and waits until `refused` is.
    async fn enforce(&mut self, policy: &Manifest, refused: &Request) -> anyhow::Result<()> {
        manifests::write(self.team.mesh.directory(), std::slice::from_ref(policy))?;
        self.team.answers(refused, 403).await
    }

    async fn judges(&mut self, rows: &[(&str, Request, bool)]) -> anyhow::Result<()> {
        for (why, request, passes) in rows {
            let expected = if *passes { (200, 1) } else { (403, 0) };
            assert_eq!(self.team.outcome(request).await?, expected, "{why}");
        }
        Ok(())
    }
}

fn policy(namespace: &str, target: (&str, Value), matcher: &Value) -> Manifest {
    let entries = json!([{"allowedClients": [{"requestIdentityMatcher": matcher}]}]);
    let mut object = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": "bearers", "namespace": namespace},
        "spec": {"config": {"authzList": entries}},
    });
    object["spec"][target.0] = target.1;
    Manifest { cluster: "cluster-1".to_owned(), object }
}

fn at_stock(matcher: &Value) -> Manifest {
    policy("team", ("applyToDestinations", json!([{"selector": {"name": "stock"}}])), matcher)
}

fn nobody(path: &str) -> Request {
    request("GET", path)
}

fn bearing(request: Request, header: &str, issuer: &Issuer, subject: &str) -> anyhow::Result<Request> {
    let token = issuer.token(&json!({"sub": subject}))?;
    let prefix = if header == "authorization" { "Bearer " } else { "" };
    Ok(request.header(header, &format!("{prefix}{token}")))
}

/// R118: at a destination, whatever the route there verified.
#[tokio::test]
async fn who_bears_a_token_is_told_from_others() -> anyhow::Result<()> {
    let mut world = World::start("").await?;
    let of_a = |path: &str, subject: &str| bearing(nobody(path), "authorization", &world.a, subject);
    let of_b = |path: &str, subject: &str| bearing(nobody(path), "x-token", &world.b, subject);
    let forged = bearing(nobody("/pre"), "authorization", &Issuer::ec("https://a")?, "alice")?;
    let both = |a: &str, b: &str| bearing(of_a("/pre", a)?, "x-token", &world.b, b);
    let (alice, bob, carol) = (of_a("/pre", "alice")?, of_a("/pre", "bob")?, of_b("/pre", "carol")?);
    let foreign = of_b("/pre", "alice")?;
    let (late, many, fifth) = (
        of_a("/post", "alice")?,
        of_a("/many", "alice")?,
        bearing(nobody("/many"), "authorization", &world.b, "carol")?,
    );
    let (alice_and_bad, bad_and_carol) = (both("alice", "bad")?, both("bad", "carol")?);
    let bad = of_b("/pre", "bad")?;
    const ASKED: &str = "AccessPolicy/team/bearers@cluster-1";
    for request in [&alice, &bob, &carol, &nobody("/pre"), &nobody("/plain"), &late, &many, &fifth] {
        assert_eq!(world.team.outcome(request).await?, (200, 1), "without the policy: {request:?}");
    }

    let named = json!({"requestPrincipals": ["https://a/alice", "*/carol"]});
    world.enforce(&at_stock(&named), &nobody("/pre")).await?;
    world
        .judges(&[
            ("named in full", alice.clone(), true),
            ("another subject", bob.clone(), false),
            ("of any issuer", carol.clone(), true),
            ("the subject of another issuer", foreign.clone(), false),
            ("a forged token", forged, false),
            ("nobody", nobody("/pre"), false),
            ("a route without tokens", nobody("/plain"), false),
            ("a header that only looks like it", nobody("/plain").header("authorization", "https://a/alice"), false),
            ("a token that is verified too late", late.clone(), false),
            ("one of many providers", many.clone(), true),
            ("one provider too many", fifth.clone(), false),
            ("with a second token", alice_and_bad.clone(), true),
        ])
        .await?;

    let (approval, message, _) = world.team.verdict(ASKED)?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("`JWTPolicy/shop/post@cluster-1` verifies tokens after authorization"), "{message}");

    let anybody = json!({"requestPrincipals": ["*"], "notRequestPrincipals": ["https://b/bad", "https://a/b*"]});
    world.enforce(&at_stock(&anybody), &bob).await?;
    world.team.answers(&foreign, 200).await?;
    world
        .judges(&[
            ("any token", alice.clone(), true),
            ("nobody", nobody("/pre"), false),
            ("excepted", bad.clone(), false),
            ("of two tokens of a route the first good one counts", alice_and_bad, true),
            ("as here", bad_and_carol, false),
            ("where some are not known", many.clone(), false),
            ("not known itself", fifth.clone(), false),
        ])
        .await?;

    let not_bad = json!({"notRequestPrincipals": ["https://b/bad"]});
    world.enforce(&at_stock(&not_bad), &bad).await?;
    world.team.answers(&nobody("/pre"), 200).await?;
    world
        .judges(&[
            ("nobody is not bad", nobody("/plain"), true),
            ("another", bob, true),
            ("the one", bad, false),
            ("nobody can tell", late, false),
            ("nobody can tell either", fifth, false),
        ])
        .await?;
    Ok(())
}

/// R118: tokens that are verified for the destination count beside those of the route.
#[tokio::test]
async fn tokens_of_a_destination_count_beside_those_of_a_route() -> anyhow::Result<()> {
    let mut world = World::start(AT_DESTINATION).await?;
    let of_b = bearing(nobody("/pre"), "x-stock", &world.b, "carol")?;
    let of_a = bearing(nobody("/pre"), "authorization", &world.a, "alice")?;
    let both = bearing(of_a.clone(), "x-stock", &world.b, "carol")?;
    let plain = bearing(nobody("/plain"), "x-stock", &world.b, "carol")?;
    let requests = [&of_b, &of_a, &both, &plain];
    let mut before = [true; 4];
    for (matcher, rows) in [
        (json!({"requestPrincipals": ["https://a/alice"]}), [false, true, true, false]),
        (json!({"requestPrincipals": ["https://b/*"]}), [true, false, true, true]),
        (json!({"notRequestPrincipals": ["*/alice"]}), [true, false, false, true]),
        (json!({"notRequestPrincipals": ["*/carol"]}), [false, true, false, false]),
    ] {
        // One that is answered otherwise than before tells that the policy is in force.
        let (request, passes) =
            (0..4).find(|row| rows[*row] != before[*row]).map(|row| (requests[row], rows[row])).context("another")?;
        before = rows;
        manifests::write(world.team.mesh.directory(), &[at_stock(&matcher)])?;
        world.team.answers(request, if passes { 200 } else { 403 }).await?;
        let why = matcher.to_string();
        let rows: Vec<_> =
            requests.into_iter().zip(rows).map(|(request, passes)| (why.as_str(), request.clone(), passes)).collect();
        world.judges(&rows).await?;
    }
    Ok(())
}

/// R120: on the gateway, before it asks anybody else.
#[tokio::test]
async fn a_gateway_tells_who_bears_a_token() -> anyhow::Result<()> {
    let mut world = World::start("").await?;
    let alice = bearing(nobody("/pre"), "authorization", &world.a, "alice")?;
    let bob = bearing(nobody("/pre"), "authorization", &world.a, "bob")?;
    let late = bearing(nobody("/post"), "authorization", &world.a, "alice")?;
    assert_eq!(world.team.outcome(&bob).await?, (200, 1), "without the policy");
    let door = |matcher: &Value| policy("shop", ("applyToWorkloads", json!([{}])), matcher);
    let before = world.team.mesh.gateways[0].envoy.stats("listener_manager.listener_modified").await?;
    world.enforce(&door(&json!({"requestPrincipals": ["https://a/al*"]})), &bob).await?;
    world
        .judges(&[
            ("named", alice.clone(), true),
            ("nobody", nobody("/plain"), false),
            ("verified too late", late.clone(), false),
        ])
        .await?;
    world.enforce(&door(&json!({"notRequestPrincipals": ["https://a/alice"]})), &alice).await?;
    world.team.answers(&bob, 200).await?;
    world
        .judges(&[("nobody", nobody("/plain"), true), ("nobody can tell", late, false), ("the one", alice, false)])
        .await?;
    assert_eq!(world.team.mesh.gateways[0].envoy.stats("listener_manager.listener_modified").await?, before);
    Ok(())
}
