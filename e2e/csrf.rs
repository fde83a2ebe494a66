//! CSRFPolicy on a real Envoy: who is refused, by which policy, and what an invalid one leaves.

use serde_json::{Value, json};

use crate::support::delegated::{Delegated, HOST, request};
use crate::support::http::Request;
use crate::support::manifests::{list, text};

/// Each route has its label `case`, but for `/plain`.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: csrf, labels: {case: csrf}, matchers: [{uri: {prefix: /csrf}}], forwardTo: *stock}
      - {name: both, labels: {case: csrf, young: 'yes'}, matchers: [{uri: {prefix: /both}}], forwardTo: *stock}
      - {name: half, labels: {case: half}, matchers: [{uri: {prefix: /half}}], forwardTo: *stock}
      - {name: shadow, labels: {case: shadow}, matchers: [{uri: {prefix: /shadow}}], forwardTo: *stock}
      - {name: off, labels: {case: 'off'}, matchers: [{uri: {prefix: /off}}], forwardTo: *stock}
      - {name: young, labels: {young: 'yes'}, matchers: [{uri: {prefix: /young}}], forwardTo: *stock}
      - {name: said, labels: {case: csrf}, matchers: [{uri: {prefix: /said}}], directResponse: {status: 200, body: hello}}
      - {name: moved, labels: {case: csrf}, matchers: [{uri: {prefix: /moved}}], redirect: {pathRedirect: /plain}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: csrf, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: csrf}}}]
    config:
      filterEnabled: true
      additionalOrigins: [{exact: 'login.example.com:8443'}, {suffix: .friend.test, ignoreCase: true}, {regex: '[a-z]+[.]partner[.]test'}]
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: young, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {young: 'yes'}}}]
    config: {filterEnabled: true, additionalOrigins: [{exact: young.test}]}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: half, namespace: shop, creationTimestamp: '2023-01-01T00:00:00Z', @}
  spec: {applyToRoutes: [{route: {labels: {case: half}}}], config: {filterEnabled: true, percentage: 50}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: shadow, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: shadow}}}], config: {shadowEnabled: true, percentage: 50}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: neither, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: 'off'}}}], config: {additionalOrigins: [{exact: a.test}]}}
";

fn from(method: &str, path: &str, origin: &str) -> Request {
    request(method, path).header("origin", origin)
}

#[tokio::test]
async fn requests_that_change_state_come_from_their_own_host_or_an_allowed_one() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let own = format!("https://{HOST}");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for (request, expected) in [
            (from(method, "/plain", "https://evil.test"), (200, 1)),
            (from(method, "/csrf", "https://evil.test"), (403, 0)),
            (request(method, "/csrf"), (403, 0)),
            (from(method, "/csrf", &own), (200, 1)),
        ] {
            assert_eq!(world.outcome(&request).await?, expected, "{request:?}");
        }
    }
    for (request, expected) in [
        // What changes nothing is not judged.
        (from("GET", "/csrf", "https://evil.test"), (200, 1)),
        (from("OPTIONS", "/csrf", "https://evil.test"), (200, 1)),
        // Without an origin the referer counts; with one it does not.
        (request("POST", "/csrf").header("referer", &format!("{own}/form?a=b")), (200, 1)),
        (request("POST", "/csrf").header("referer", "https://evil.test/www.example.com"), (403, 0)),
        (from("POST", "/csrf", "https://evil.test").header("referer", &own), (403, 0)),
        (from("POST", "/csrf", "null"), (403, 0)),
        (from("POST", "/csrf", ""), (403, 0)),
        // Additional origins, whole and with their port.
        (from("POST", "/csrf", "https://login.example.com:8443"), (200, 1)),
        (from("POST", "/csrf", "https://login.example.com"), (403, 0)),
        (from("POST", "/csrf", "https://a.FRIEND.test"), (200, 1)),
        (from("POST", "/csrf", "https://a.friend.test.evil.test"), (403, 0)),
        (from("POST", "/csrf", "https://b.partner.test"), (200, 1)),
        (from("POST", "/csrf", "https://b.partner.test.evil.test"), (403, 0)),
        (from("POST", "/csrf", "https://bxpartner.test"), (403, 0)),
        // Another port is another origin.
        (from("POST", "/csrf", &format!("{own}:8443")), (403, 0)),
        // Answers of the gateway itself are protected like those of backends.
        (from("POST", "/said", "https://evil.test"), (403, 0)),
        (from("POST", "/said", &own), (200, 0)),
        (from("POST", "/moved", "https://evil.test"), (403, 0)),
        (from("POST", "/moved", &own), (301, 0)),
        // Neither switch is on.
        (from("POST", "/off", "https://evil.test"), (200, 1)),
    ] {
        assert_eq!(world.outcome(&request).await?, expected, "{request:?}");
        let said = world.explained(&request)?;
        let answer = said.pointer("/outcome/status").and_then(Value::as_u64);
        assert_eq!(answer == Some(403), expected.0 == 403, "{request:?}: {said:#}");
    }
    let refused = world.send(&from("POST", "/csrf", "https://evil.test")).await?;
    assert_eq!(refused.text(), "Invalid origin");
    Ok(())
}

/// A fractional shadow would refuse about a quarter of these.
#[tokio::test]
async fn a_shadow_refuses_nothing_and_a_share_refuses_a_share() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    for _ in 0..60 {
        assert_eq!(world.outcome(&from("POST", "/shadow", "https://evil.test")).await?, (200, 1));
    }
    let counted = world.mesh.gateways[0].envoy.stats(r"csrf\.request_invalid$").await?;
    assert_eq!(counted.values().sum::<u64>(), 60, "{counted:?}");
    let (approval, message, _) = world.verdict("CSRFPolicy/shop/shadow@cluster-1")?;
    assert!(approval == "WARNING" && message.contains("POLICY_REMARK"), "{approval} {message}");

    // All the same, with odds of one to 2^99 against it.
    let (mut refused, mut reached) = (0, 0);
    for _ in 0..100 {
        match world.outcome(&from("POST", "/half", "https://evil.test")).await? {
            (403, 0) => refused += 1,
            (200, 1) => reached += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0 && reached > 0, "{refused} refused, {reached} reached the backend");
    Ok(())
}

/// R126, R129.
#[tokio::test]
async fn the_oldest_policy_decides_and_the_loser_is_told() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let (older, younger) = ("https://a.friend.test", "https://young.test");
    for (path, origin, expected) in [
        ("/both", older, (200, 1)),
        ("/both", younger, (403, 0)),
        ("/young", older, (403, 0)),
        ("/young", younger, (200, 1)),
    ] {
        assert_eq!(world.outcome(&from("POST", path, origin)).await?, expected, "{path}, {origin}");
    }
    let (winner, loser) = ("CSRFPolicy/shop/csrf@cluster-1", "CSRFPolicy/team/young@cluster-1");
    assert_eq!(world.verdict(winner)?, ("ACCEPTED".to_owned(), String::new(), 4));
    let (approval, message, routes) = world.verdict(loser)?;
    assert_eq!((approval.as_str(), routes), ("WARNING", 1));
    assert!(message.contains("BEATEN_BY_OLDER") && message.contains(winner), "{message}");
    let said = world.explained(&from("POST", "/both", younger))?;
    let policies: Vec<&str> = list(&said, "/policies").iter().map(|policy| text(policy, "/policy")).collect();
    assert_eq!(policies, [winner], "{said:#}");
    assert!(said.to_string().contains("OLDER_POLICY_WINS"), "{said:#}");

    // When the winner no longer selects the route, the next oldest takes over.
    world
        .mesh
        .edit(winner, |policy| policy["spec"]["applyToRoutes"][0]["route"]["labels"] = json!({"case": "none"}))?;
    world.answers(&from("POST", "/both", younger), 200).await?;
    assert_eq!(world.outcome(&from("POST", "/both", older)).await?, (403, 0));
    assert_eq!(world.outcome(&from("POST", "/csrf", "https://evil.test")).await?, (200, 1), "nothing protects it now");
    Ok(())
}

/// R130: the strict form stands for a policy that is invalid, whatever it said, and opens nothing to others' routes.
#[tokio::test]
async fn an_invalid_policy_refuses_every_foreign_origin() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let policy = "CSRFPolicy/shop/shadow@cluster-1";
    assert_eq!(world.outcome(&from("POST", "/shadow", "https://evil.test")).await?, (200, 1));
    for (config, field) in [
        (json!({"shadowEnabled": true, "percentage": 101}), "spec.config.percentage"),
        (json!({"filterEnabled": true, "percentage": "half"}), "spec.config.percentage"),
        (
            json!({"additionalOrigins": [{"exact": "good.test"}, {"exact": "https://a.test"}]}),
            "spec.config.additionalOrigins[1]",
        ),
        (
            json!({"additionalOrigins": [{"exact": "good.test"}, {"regex": "a(?=b)"}]}),
            "spec.config.additionalOrigins[1].regex",
        ),
        (json!({"additionalOrigins": [{}]}), "spec.config.additionalOrigins[0]"),
        (json!(null), "spec.config"),
    ] {
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = json!({"shadowEnabled": true}))?;
        world.answers(&from("POST", "/shadow", "https://evil.test"), 200).await?;
        let readable = config.to_string().contains("good.test");
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = config.clone())?;
        world.answers(&from("POST", "/shadow", "https://evil.test"), 403).await?;
        assert_eq!(world.outcome(&request("DELETE", "/shadow")).await?, (403, 0), "{config}");
        let own = from("POST", "/shadow", &format!("https://{HOST}"));
        assert_eq!(world.outcome(&own).await?, (200, 1), "{config}");
        let expected = if readable { (200, 1) } else { (403, 0) };
        assert_eq!(world.outcome(&from("POST", "/shadow", "https://good.test")).await?, expected, "{config}");
        let (approval, message, routes) = world.verdict(policy)?;
        assert_eq!((approval.as_str(), routes), ("INVALID", 1), "{config}: {message}");
        assert_eq!(world.blamed_field(policy)?, field, "{config}: {message}");
    }

    // A younger one that is invalid closes what the winner leaves open, and adds nothing to what it allows.
    world.mesh.edit("CSRFPolicy/team/young@cluster-1", |policy| {
        policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": "half"}}}]);
        policy["spec"]["config"] = json!({"additionalOrigins": [{"exact": "young.test"}, {}]});
    })?;
    world.answers(&from("POST", "/young", "https://evil.test"), 200).await?;
    for _ in 0..40 {
        assert_eq!(world.outcome(&from("POST", "/half", "https://evil.test")).await?, (403, 0));
        assert_eq!(world.outcome(&from("POST", "/half", "https://young.test")).await?, (403, 0));
    }
    Ok(())
}
