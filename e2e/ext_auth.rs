//! ExtAuthPolicy on a real Envoy, with authorization servers that note what they are asked: over gRPC and over HTTP, named by
//! an ExtAuthServer or in the policy itself. The methods that Envoy has by itself are in `ext_auth/methods.rs`.
//!
//! Workspace `shop` owns the gateway and delegates everything to a table of workspace `team`, whose backends count. Each route
//! of that table has its label `case`, but for `/plain`.

mod methods;
mod servers_change;

use serde_json::{Value, json};

use crate::support::authorizer::{Asked, Authorizer, Check, Verdict};
use crate::support::delegated::{Delegated, VAULT, echo, request};
use crate::support::http::{Request, Response};
use crate::support::issuer::Issuer;
use crate::support::manifests::{list, text};
use crate::support::net::Network;

/// Routes, Services and servers; a test brings the policies. `$GRPC` and `$HTTP` stand for the servers' addresses.
const WORLD: &str = r"
- {apiVersion: v1, kind: Service, metadata: {name: authz, namespace: team, @}, spec: {selector: {app: authz}, ports: [{name: grpc, port: 9000}]}}
- {apiVersion: v1, kind: Service, metadata: {name: authz-http, namespace: team, @}, spec: {selector: {app: authz}, ports: [{name: http, port: 9000}]}}
- {apiVersion: v1, kind: Service, metadata: {name: nobody, namespace: team, @}, spec: {selector: {app: none}, ports: [{name: grpc, port: 9000}]}}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: custom, labels: {case: custom}, matchers: [{uri: {prefix: /custom}}], forwardTo: *stock}
      - {name: http, labels: {case: http}, matchers: [{uri: {prefix: /http}}], forwardTo: *stock}
      - {name: down, labels: {case: down}, matchers: [{uri: {prefix: /down}}], forwardTo: *stock}
      - {name: allow, labels: {case: allow}, matchers: [{uri: {prefix: /allow}}], forwardTo: *stock}
      - {name: more, labels: {case: more}, matchers: [{uri: {prefix: /more}}], forwardTo: *stock}
      - {name: said, labels: {case: custom}, matchers: [{uri: {prefix: /said}}], directResponse: {status: 200, body: hello}}
      - {name: gold, labels: {case: custom}, matchers: [{uri: {prefix: /move}, headers: [{name: x-org, value: gold}]}], forwardTo: *stock}
      - {name: move, labels: {case: move}, matchers: [{uri: {prefix: /move}}], forwardTo: *stock}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: both, labels: {case: custom}, matchers: [{uri: {prefix: /both}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - name: half
        matchers: [{uri: {prefix: /half}}]
        forwardTo: {destinations: [{ref: {name: vault}, weight: 50}, {ref: {name: stock}, weight: 50}]}
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: grpc, namespace: shop, @}
  spec: {destinationServer: {ref: {name: authz, namespace: team}, port: {number: 9000}}, requestTimeout: 9s}
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: grpc, namespace: team, @}
  spec: {destinationServer: {ref: {name: authz}, port: {number: 9000}}, requestTimeout: 9s}
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: http, namespace: shop, @}
  spec:
    destinationServer: {ref: {name: authz-http, namespace: team}, port: {number: 9000}}
    requestTimeout: 9s
    httpService:
      pathPrefix: /check
      request: {allowedHeaders: [x-pass], headersToAdd: {x-from: gateway, x-odd: '100% %REQ(x-secret', x-told: '%REQ(x-secret)%'}}
      response: {allowedUpstreamHeaders: [x-user], allowedClientHeaders: [x-why]}
";

/// Asks the gRPC server about `/custom` and what else has its label.
const CUSTOM: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: custom, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: custom}}}]
    config: {customAuth: {contextExtensions: {level: route}}, server: {name: grpc}}
";
const CUSTOM_POLICY: &str = "ExtAuthPolicy/shop/custom@cluster-1";

/// Lets requests pass that say so: to everybody, or to a level by its name.
fn judge(check: &Check) -> Verdict {
    let (asked, level) = (check.header("x-pass"), check.context.get("level"));
    if asked == "yes" || level.is_some_and(|level| asked.split(' ').any(|word| word == level)) {
        let removed = if asked == "yes" { vec!["x-pass"] } else { Vec::new() };
        return Verdict { removed, ..Verdict::pass().header("x-user", "alice").header("x-more", "b") };
    }
    let refused = Verdict::refuse(401).header("x-why", "nobody").header("x-inner", "1");
    Verdict { body: "who are you?".to_owned(), ..refused }
}

/// The world as it runs.
struct World {
    team: Delegated,
    grpc: Authorizer,
    http: Authorizer,
    _network: Network,
}

impl World {
    async fn start(policies: &str) -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let free = || Ok::<_, anyhow::Error>((network.next_address()?, network.free_port()?).into());
        let (grpc, http) = (Authorizer::start(free()?, judge).await?, Authorizer::start(free()?, judge).await?);
        let objects = format!("{VAULT}{WORLD}{policies}")
            .replace("$GRPC", &grpc.address.to_string())
            .replace("$HTTP", &http.address.to_string());
        let team = Delegated::start(&objects).await?;
        team.leads("authz", "grpc", grpc.address)?;
        team.leads("authz-http", "http", http.address)?;
        // Nobody answers there.
        team.leads("nobody", "grpc", free()?)?;
        Ok(Self { team, grpc, http, _network: network })
    }

    /// The same, once the servers answer for these paths.
    async fn asking(policies: &str, paths: &[&str]) -> anyhow::Result<Self> {
        let mut world = Self::start(policies).await?;
        for path in paths {
            world.team.answers(&pass(path), 200).await?;
        }
        Ok(world)
    }

    async fn send(&mut self, request: &Request) -> anyhow::Result<Response> {
        self.team.send(request).await
    }

    /// Sends requests; each must have its status, reach a backend so often, and make the servers be asked so often.
    async fn judges(&mut self, rows: &[(&str, Request, (u16, u64, usize))]) -> anyhow::Result<()> {
        for (why, request, expected) in rows {
            let (asked, reached) = (self.asked(), self.team.received());
            let response = self.send(request).await?;
            let seen = (response.status, self.team.received() - reached, self.asked() - asked);
            assert_eq!(seen, *expected, "{why}: {}", response.text());
        }
        Ok(())
    }

    /// How often the servers were asked.
    fn asked(&self) -> usize {
        self.grpc.count() + self.http.count()
    }
}

/// A request that the servers let pass.
fn pass(path: &str) -> Request {
    request("GET", path).header("x-pass", "yes")
}

fn nobody(path: &str) -> Request {
    request("GET", path)
}

/// Fails on routes without the policy; R113, R126.
#[tokio::test]
async fn a_grpc_server_judges_each_request() -> anyhow::Result<()> {
    const YOUNGER: &str = "ExtAuthPolicy/team/younger@cluster-1";
    let younger = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: younger, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}
  spec:
    applyToRoutes: [{route: {labels: {case: custom}}}]
    config: {customAuth: {contextExtensions: {level: younger}}, server: {name: grpc}}
";
    let mut world = World::asking(&format!("{CUSTOM}{younger}"), &["/custom"]).await?;
    world
        .judges(&[
            ("without the policy", nobody("/plain"), (200, 1, 0)),
            ("nobody", nobody("/custom"), (401, 0, 1)),
            ("somebody", pass("/custom"), (200, 1, 1)),
            ("nobody, where the gateway answers", nobody("/said"), (401, 0, 1)),
            ("somebody, where the gateway answers", pass("/said"), (200, 0, 1)),
            ("no route", nobody("/nowhere"), (404, 0, 0)),
            ("in the words of the loser", nobody("/custom").header("x-pass", "younger"), (401, 0, 1)),
        ])
        .await?;
    let refused = world.send(&nobody("/custom")).await?;
    assert_eq!((refused.text().as_str(), refused.header("x-why").as_deref()), ("who are you?", Some("nobody")));

    let sent = request("POST", "/custom/a?b=c").header("x-pass", "yes").header("x-user", "mallory").with_body("text");
    let seen = echo(&world.send(&sent).await?)?;
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-user"), header("x-pass")), (Some("alice"), None), "the server decides, not the client");
    let check = world.grpc.last()?;
    assert_eq!((check.by, check.method.as_str(), check.path.as_str()), (Asked::Grpc, "POST", "/custom/a?b=c"));
    assert_eq!((check.host.as_str(), check.header("x-user"), check.body.len()), ("www.example.com", "mallory", 0));
    assert_eq!(check.context.into_iter().collect::<Vec<_>>(), [("level".to_owned(), "route".to_owned())]);
    assert_eq!(world.http.count(), 0);

    let said = world.team.explained(&nobody("/custom"))?;
    let policies: Vec<&str> = list(&said, "/policies").iter().map(|policy| text(policy, "/policy")).collect();
    assert_eq!(policies, [CUSTOM_POLICY], "{said:#}");
    assert_eq!(world.team.verdict(CUSTOM_POLICY)?, ("ACCEPTED".to_owned(), String::new(), 4));
    let (approval, message, _) = world.team.verdict(YOUNGER)?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("BEATEN_BY_OLDER") && message.contains(CUSTOM_POLICY), "{message}");

    // When the winner no longer selects the routes, the next oldest takes over.
    world.team.mesh.edit(CUSTOM_POLICY, |policy| {
        policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": "none"}}}]);
    })?;
    world.team.answers(&nobody("/custom").header("x-pass", "younger"), 200).await?;
    world.judges(&[("nobody", nobody("/custom"), (401, 0, 1))]).await?;
    world.team.mesh.edit(YOUNGER, |policy| {
        policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": "none"}}}]);
    })?;
    world.team.answers(&nobody("/custom"), 200).await?;
    world.judges(&[("nothing protects it", nobody("/custom"), (200, 1, 0))]).await
}

#[tokio::test]
async fn an_http_server_judges_each_request() -> anyhow::Result<()> {
    const POLICY: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: http, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: http}}}], config: {customAuth: {}, server: {name: http}}}
";
    let mut world = World::asking(POLICY, &["/http"]).await?;
    world
        .judges(&[
            ("without the policy", nobody("/plain"), (200, 1, 0)),
            ("nobody", nobody("/http"), (401, 0, 1)),
            ("somebody", pass("/http"), (200, 1, 1)),
        ])
        .await?;
    let refused = world.send(&nobody("/http")).await?;
    let seen = (refused.text(), refused.header("x-why"), refused.header("x-inner"));
    assert_eq!(seen, ("who are you?".to_owned(), Some("nobody".to_owned()), None), "only what is listed");

    let sent = request("PUT", "/http/a?b=c").header("x-pass", "yes").header("x-user", "mallory").header("x-from", "me");
    let sent = sent.header("x-secret", "s3cret").header("x-odd", "me");
    let seen = echo(&world.send(&sent.header("x-other", "1").with_body("text")).await?)?;
    assert_eq!(seen.headers.get("x-user").map(String::as_str), Some("alice"));
    assert_eq!(seen.headers.get("x-more"), None, "only what is listed");
    let check = world.http.last()?;
    assert_eq!((check.by, check.method.as_str(), check.path.as_str()), (Asked::Http, "PUT", "/check/http/a?b=c"));
    assert_eq!((check.header("x-from"), check.header("x-other"), check.body.len()), ("gateway", "", 0));
    // Values are text and nothing else: they tell nothing of the request.
    assert_eq!((check.header("x-odd"), check.header("x-told")), ("100% %REQ(x-secret", "%REQ(x-secret)%"));
    assert_eq!(world.grpc.count(), 0);
    Ok(())
}

/// Servers that stand in the policy: no ExtAuthServer, no Service.
#[tokio::test]
async fn servers_may_stand_in_the_policy() -> anyhow::Result<()> {
    const POLICIES: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: grpc, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: custom}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: http, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: http}}}]
    config:
      glooAuth:
        configs:
          - passThroughAuth:
              http:
                url: http://$HTTP/verify
                connectionTimeout: 9s
                request: {allowedHeaders: [x-pass], headersToAdd: {x-from: gateway}}
                response: {allowedUpstreamHeaders: [x-more], allowedUpstreamHeadersToOverwrite: [x-user], allowedClientHeadersOnDenied: [x-why]}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: tls, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: more}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s, tlsConfig: {}}}}]}}
";
    let mut world = World::asking(POLICIES, &["/custom", "/http"]).await?;
    world
        .judges(&[
            ("without a policy", nobody("/plain"), (200, 1, 0)),
            ("nobody, gRPC", nobody("/custom"), (401, 0, 1)),
            ("somebody, gRPC", pass("/custom"), (200, 1, 1)),
            ("nobody, HTTP", nobody("/http"), (401, 0, 1)),
            ("somebody, HTTP", pass("/http"), (200, 1, 1)),
            ("a server that shows no certificate is not asked in the clear", pass("/more"), (403, 0, 0)),
        ])
        .await?;
    let check = world.http.last()?;
    assert_eq!((check.path.as_str(), check.header("x-from")), ("/verify", "gateway"));
    let seen = echo(&world.send(&pass("/http/a").header("x-user", "mallory").header("x-more", "a")).await?)?;
    assert_eq!(seen.headers.get("x-user").map(String::as_str), Some("alice"));
    let more = seen.headers.get("x-more").map(|more| more.replace(' ', ""));
    assert_eq!(more.as_deref(), Some("a,b"), "added to what the client sent");
    let refused = world.send(&nobody("/http")).await?;
    assert_eq!((refused.header("x-why").as_deref(), refused.header("x-inner")), (Some("nobody"), None));
    Ok(())
}

/// What is sent of a body is what the server asks for.
#[tokio::test]
async fn a_server_gets_the_body_that_it_asks_for() -> anyhow::Result<()> {
    const POLICIES: &str = r"
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: part, namespace: shop, @}
  spec:
    destinationServer: {ref: {name: authz, namespace: team}, port: {number: 9000}}
    requestTimeout: 9s
    requestBody: {maxRequestBytes: 8, allowPartialMessage: true}
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: whole, namespace: shop, @}
  spec:
    destinationServer: {ref: {name: authz, namespace: team}, port: {number: 9000}}
    requestTimeout: 9s
    requestBody: {maxRequestBytes: 8, packAsBytes: true}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: part, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: custom}}}], config: {customAuth: {}, server: {name: part}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: whole, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: more}}}], config: {customAuth: {}, server: {name: whole}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: none, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: http}}}], config: {customAuth: {}, server: {name: grpc}}}
";
    let mut world = World::asking(POLICIES, &["/custom", "/more", "/http"]).await?;
    let post = |path: &str, body: &'static str| Request { method: "POST".to_owned(), ..pass(path) }.with_body(body);
    let long = "0123456789";
    world.judges(&[("a long body, in part", post("/custom", long), (200, 1, 1))]).await?;
    assert_eq!(&world.grpc.last()?.body[..], b"01234567");
    let reached = echo(&world.send(&post("/custom", long)).await?)?;
    assert_eq!(reached.headers.get("content-length").map(String::as_str), Some("10"), "the backend gets all of it");
    world
        .judges(&[
            ("a body that fits", post("/more", "0123456"), (200, 1, 1)),
            ("a body that does not", post("/more", long), (413, 0, 0)),
        ])
        .await?;
    assert_eq!(&world.grpc.last()?.body[..], b"0123456");
    world.judges(&[("a body that nobody asks for", post("/http", long), (200, 1, 1))]).await?;
    assert_eq!(&world.grpc.last()?.body[..], b"");
    Ok(())
}

/// R123: of two policies on a route the older decides, whoever owns it, and the other one's author is told; it takes over when
/// the older one goes.
#[tokio::test]
async fn r123_the_oldest_policy_decides_and_the_loser_is_told() -> anyhow::Result<()> {
    const YOUNGER: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: younger, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z', @}
  spec: {applyToRoutes: [{route: {labels: {case: custom}}}], config: {customAuth: {contextExtensions: {level: younger}}, server: {name: grpc}}}
";
    let mut world = World::asking(&format!("{CUSTOM}{YOUNGER}"), &["/custom"]).await?;
    let to = |level: &str| request("GET", "/custom").header("x-pass", level);
    world
        .judges(&[
            ("nobody", nobody("/custom"), (401, 0, 1)),
            ("who passes the older", to("route"), (200, 1, 1)),
            ("who would pass the younger", to("younger"), (401, 0, 1)),
        ])
        .await?;
    let (approval, message, routes) = world.team.verdict("ExtAuthPolicy/team/younger@cluster-1")?;
    assert_eq!((approval.as_str(), routes), ("WARNING", 0), "{message}");
    assert!(
        message.contains("BEATEN_BY_OLDER") && message.contains("ExtAuthPolicy/shop/custom@cluster-1"),
        "{message}"
    );
    assert_eq!(world.team.verdict(CUSTOM_POLICY)?.0, "ACCEPTED");
    world.team.mesh.edit(CUSTOM_POLICY, |policy| {
        policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": "none"}}}]);
    })?;
    world.team.answers(&to("younger"), 200).await?;
    world.judges(&[("who passed the older", to("route"), (401, 0, 1))]).await
}

/// R118, R122: what protects a destination holds on every route to it, beside what protects the route.
#[tokio::test]
async fn r118_a_route_and_its_destination_are_each_asked_about() -> anyhow::Result<()> {
    const VAULT: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: vault, namespace: team, @}
  spec:
    applyToDestinations: [{selector: {labels: {guard: 'yes'}}}]
    config: {customAuth: {contextExtensions: {level: destination}}, server: {name: grpc}}
";
    let mut world = World::asking(&format!("{CUSTOM}{VAULT}"), &["/custom", "/vault"]).await?;
    let with = |path: &str, word: &str| request("GET", path).header("x-pass", word);
    world
        .judges(&[
            ("another destination", nobody("/plain"), (200, 1, 0)),
            ("nobody", nobody("/vault"), (401, 0, 1)),
            ("who may pass the destination", with("/vault", "destination"), (200, 1, 1)),
            ("who may pass routes alone", with("/vault", "route"), (401, 0, 1)),
            ("who may pass both", with("/both", "route destination"), (200, 1, 2)),
        ])
        .await?;
    for word in ["route", "destination", ""] {
        let (status, reached) = world.team.outcome(&with("/both", word)).await?;
        assert_eq!((status, reached), (401, 0), "{word:?} is not enough for both");
    }
    let mut seen = [0, 0];
    for _ in 0..60 {
        let response = world.send(&nobody("/half")).await?;
        assert!([200, 401].contains(&response.status), "{}", response.text());
        seen[usize::from(response.status == 200)] += 1;
        if response.status == 200 {
            assert_eq!(echo(&response)?.identity.service, "stock", "the protected half is closed");
        }
    }
    assert!(seen[0] > 5 && seen[1] > 5, "half of the requests go to a destination without the policy: {seen:?}");
    let (approval, message, _) = world.team.verdict("ExtAuthPolicy/team/vault@cluster-1")?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("ENFORCED_AT_GATEWAYS_ONLY"), "{message}");
    Ok(())
}

/// A request that a header moves to another route is judged where it ends.
#[tokio::test]
async fn a_request_that_moves_to_another_route_is_judged_there() -> anyhow::Result<()> {
    const MOVES: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: move, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: move}}}]
    config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}, claimsToHeaders: [{claim: org, header: x-org}]}}}
";
    let issuer = Issuer::ec("https://a")?;
    let moves = MOVES.replace("$KEYS", &json!(issuer.jwks()).to_string());
    let mut world = World::asking(&format!("{CUSTOM}{moves}"), &["/custom"]).await?;
    let with = |org: &str| {
        let token = issuer.token(&json!({"org": org}))?;
        Ok::<_, anyhow::Error>(nobody("/move").header("authorization", &format!("Bearer {token}")))
    };
    world
        .judges(&[
            ("no token", nobody("/move"), (401, 0, 0)),
            ("stays where it was", with("iron")?, (200, 1, 0)),
            ("moved to a route that asks the server", with("gold")?, (401, 0, 1)),
            ("moved there, and may pass", with("gold")?.header("x-pass", "yes"), (200, 1, 1)),
            ("there by itself", nobody("/move").header("x-org", "gold"), (401, 0, 1)),
        ])
        .await
}

/// Wrong policies, each with the field that is blamed.
fn faults() -> Vec<(Value, &'static str)> {
    let chain = |configs: Value| json!({"glooAuth": {"configs": configs}});
    let at = |rest: &str| format!("spec.config.glooAuth.configs[0]{rest}").leak() as &'static str;
    let key = json!({"k8sSecretApikeyStorage": {"labelSelector": {"a": "b"}}});
    vec![
        (json!(null), "spec.config"),
        (json!({}), "spec.config"),
        (json!({"disable": false}), "spec.config.disable"),
        (chain(json!([])), "spec.config.glooAuth.configs"),
        (chain(json!([{}])), at("")),
        (chain(json!([{"apiKeyAuth": key, "jwt": {}}])), at(".jwt")),
        (chain(json!([{"apiKeyAuth": {}}])), at(".apiKeyAuth")),
        (
            json!({"glooAuth": {"configs": [{"name": "a", "apiKeyAuth": key}], "booleanExpr": "a ||"}}),
            "spec.config.glooAuth.booleanExpr",
        ),
        (
            json!({"glooAuth": {"configs": [{"name": "a", "apiKeyAuth": key}], "booleanExpr": "b"}}),
            "spec.config.glooAuth.booleanExpr",
        ),
        (chain(json!([{"passThroughAuth": {}}])), at(".passThroughAuth")),
        (chain(json!([{"passThroughAuth": {"grpc": {"address": "no port"}}}])), at(".passThroughAuth.grpc.address")),
        (chain(json!([{"passThroughAuth": {"http": {"url": "nowhere"}}}])), at(".passThroughAuth.http.url")),
        (chain(json!([{"passThroughAuth": {"http": {"url": "ftp://a.test/"}}}])), at(".passThroughAuth.http.url")),
        (
            chain(json!([{"apiKeyAuth": {"k8sSecretApikeyStorage": {"apiKeySecretRefs": [{"name": "gone"}]}}}])),
            at(".apiKeyAuth.k8sSecretApikeyStorage.apiKeySecretRefs[0]"),
        ),
        (json!({"customAuth": {}, "server": {"name": "gone"}}), "spec.config.server"),
        (json!({"customAuth": {}, "server": {"name": "lost"}}), "spec.config.server"),
        (json!({"customAuth": {}, "server": {"name": "broken"}}), "spec.config.server"),
    ]
}

/// R130, R131: what is wrong closes what it selects and nothing else, and says where.
#[tokio::test]
async fn a_bad_policy_closes_its_own_routes_and_says_why() -> anyhow::Result<()> {
    const OTHERS: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: http, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: http}}}], config: {customAuth: {}, server: {name: http}}}
- {apiVersion: admin.gloo.solo.io/v2, kind: ExtAuthServer, metadata: {name: lost, namespace: shop, @}, spec: {destinationServer: {ref: {name: gone, namespace: team}, port: {number: 1}}}}
- {apiVersion: admin.gloo.solo.io/v2, kind: ExtAuthServer, metadata: {name: broken, namespace: shop, @}, spec: {destinationServer: {ref: {name: authz, namespace: team}, port: {number: 9000}}, statusOnError: 299}}
";
    let mut world = World::asking(&format!("{CUSTOM}{OTHERS}"), &["/custom", "/http"]).await?;
    let good = json!({"customAuth": {"contextExtensions": {"level": "route"}}, "server": {"name": "grpc"}});
    for (config, field) in faults() {
        world.team.mesh.edit(CUSTOM_POLICY, |policy| policy["spec"]["config"] = config.clone())?;
        world.team.answers(&pass("/custom"), 500).await.map_err(|error| error.context(config.to_string()))?;
        world
            .judges(&[
                ("closed", nobody("/custom"), (500, 0, 0)),
                ("another's policy", nobody("/http"), (401, 0, 1)),
                ("another's policy", pass("/http"), (200, 1, 1)),
                ("no policy", nobody("/plain"), (200, 1, 0)),
            ])
            .await
            .map_err(|error| error.context(config.to_string()))?;
        let (approval, message, _) = world.team.verdict(CUSTOM_POLICY)?;
        assert_eq!(approval, "INVALID", "{config}: {message}");
        assert_eq!(world.team.blamed_field(CUSTOM_POLICY)?, field, "{config}: {message}");
        world.team.mesh.edit(CUSTOM_POLICY, |policy| policy["spec"]["config"] = good.clone())?;
        world.team.answers(&pass("/custom"), 200).await?;
    }
    // A typing error leaves nobody in either.
    world.team.mesh.edit(CUSTOM_POLICY, |policy| {
        policy["spec"]["config"] = json!({"customAuth": {"contextExtension": {}}, "server": {"name": "grpc"}});
    })?;
    world.team.answers(&pass("/custom"), 500).await?;
    world.judges(&[("closed", nobody("/custom"), (500, 0, 0))]).await
}

/// What stock Envoy cannot do is said, and closed.
#[tokio::test]
async fn a_method_that_envoy_does_not_have_is_closed_and_said() -> anyhow::Result<()> {
    let mut world = World::asking(CUSTOM, &["/custom"]).await?;
    for method in [
        json!({"oauth2": {"oidcAuthorizationCode": {}}}),
        json!({"oauth2": {"accessTokenValidation": {"introspection": {}}}}),
        json!({"opaAuth": {}}),
        json!({"ldap": {}}),
        json!({"hmacAuth": {}}),
        json!({"pluginAuth": {}}),
        json!({"basicAuth": {"apr": {"users": {}}}}),
    ] {
        world.team.mesh.edit(CUSTOM_POLICY, |policy| {
            policy["spec"]["config"] = json!({"glooAuth": {"configs": [method]}});
        })?;
        world.team.answers(&pass("/custom"), 500).await.map_err(|error| error.context(method.to_string()))?;
        world.judges(&[("closed", nobody("/custom"), (500, 0, 0))]).await?;
        let (approval, message, _) = world.team.verdict(CUSTOM_POLICY)?;
        assert_eq!(approval, "FAILED", "{method}: {message}");
        assert!(message.contains("UNSUPPORTED"), "{method}: {message}");
        world.team.mesh.edit(CUSTOM_POLICY, |policy| {
            policy["spec"]["config"] = json!({"customAuth": {}, "server": {"name": "grpc"}});
        })?;
        world.team.answers(&pass("/custom"), 200).await?;
    }
    Ok(())
}
