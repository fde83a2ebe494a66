//! A request whose route changes after a header was rewritten is judged by the route that it ends on: for every kind that
//! protects or limits, on a real Envoy. More about tokens is in `jwt.rs` and `tokens.rs`, about servers in `ext_auth.rs`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use crate::policies::preflight;
use crate::support::authorizer::{Authorizer, Check, Verdict};
use crate::support::delegated::{Delegated, HOST, VAULT, request};
use crate::support::http::Request;
use crate::support::issuer::{Issuer, base64};
use crate::support::limiter::Limiter;
use crate::support::wait::{Not, PATIENCE, until};

/// All requests begin on route `start`, whose JWTPolicy makes a header of a claim; `$A`, `$C` stand for keys, `$HASH` for
/// the hash of a password, `$GRPC` and `$HTTP` for a server's address.
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: safe, namespace: team, @}
  spec: {selector: {app: safe}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: safe-1, namespace: team, labels: {kubernetes.io/service-name: safe}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.13], targetRef: {kind: Pod, name: safe-0}}]
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: csrf, labels: {case: csrf}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: csrf}]}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: vault, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: vault}]}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: password, labels: {case: password}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: password}]}], forwardTo: *stock}
      - {name: key, labels: {case: key}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: key}]}], forwardTo: *stock}
      - {name: token, labels: {case: token}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: token}]}], forwardTo: *stock}
      - {name: either, labels: {case: either}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: either}]}], forwardTo: *stock}
      - {name: closed, labels: {case: closed}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: closed}]}], forwardTo: *stock}
      - {name: server, labels: {case: server}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: server}]}], forwardTo: *stock}
      - {name: service, labels: {case: service}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: service}]}], forwardTo: *stock}
      - {name: found, labels: {case: found}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: found}]}], forwardTo: *stock}
      - {name: signed, labels: {case: signed}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: signed}]}], forwardTo: *stock}
      - {name: late, labels: {case: late}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: late}]}], forwardTo: *stock}
      - {name: safe, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: safe}]}], forwardTo: {destinations: [{ref: {name: safe}}]}}
      - {name: cors, labels: {case: cors}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: cors}]}], forwardTo: *stock}
      - {name: first, labels: {case: first}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: first}]}], forwardTo: *stock}
      - {name: then, labels: {case: then}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: then}]}], forwardTo: *stock}
      - {name: last, labels: {case: last}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: last}]}], forwardTo: *stock}
      - {name: here, labels: {case: here}, matchers: [{uri: {prefix: /}, headers: [{name: x-to, value: here}]}], forwardTo: *stock}
      - {name: start, labels: {case: start}, matchers: [{uri: {prefix: /}}], forwardTo: *stock}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: start, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: start}}}]
    config: {providers: {a: {issuer: https://a, local: {inline: $A}, tokenSource: {headers: [{name: x-token}]}, claimsToHeaders: [{claim: to, header: x-to}]}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: CSRFPolicy, metadata: {name: csrf, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: csrf}}}], config: {filterEnabled: true}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: AccessPolicy, metadata: {name: vault, namespace: team, @}, spec: {applyToDestinations: [{selector: {name: vault}}], config: {authzList: [{allowedMethods: [GET]}]}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: password, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: password}}}]
    config: {glooAuth: {configs: [{basicAuth: &users {realm: shop, encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: $HASH}}}}}]}}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: alice, namespace: team, labels: {keys: shop}, @}
  stringData: {api-key: correct-horse-battery, user-id: alice}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: key, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: key}}}]
    config: {glooAuth: {configs: [{apiKeyAuth: &keys {headerName: x-key, k8sSecretApikeyStorage: {labelSelector: {keys: shop}}, headersFromMetadataEntry: {x-user-id: {name: user-id}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: token, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: token}}}]
    config: {glooAuth: {configs: [{oauth2: {accessTokenValidation: {jwt: {issuer: https://c, localJwks: {inlineString: $C}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: either, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: either}}}]
    config: {glooAuth: {booleanExpr: user || key, configs: [{name: user, basicAuth: *users}, {name: key, apiKeyAuth: {headerName: x-key, k8sSecretApikeyStorage: {labelSelector: {keys: shop}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: server, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: server}}}], config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: $GRPC, connectionTimeout: 9s}}}]}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: service, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: service}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {http: {url: $HTTP, connectionTimeout: 9s, request: {allowedHeaders: [x-pass]}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: found, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: found}}}], config: {glooAuth: {configs: [{jwt: {}}]}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: found, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: found}}}], config: {validationPolicy: ALLOW_MISSING_OR_FAILED, providers: &c {c: {issuer: https://c, local: {inline: $C}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: signed, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: signed}}}], config: {providers: *c}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: late, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: late}}}], config: {phase: {postAuthz: {}}, providers: *c}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: safe, namespace: team, @}, spec: {applyToDestinations: [{selector: {name: safe}}], config: {providers: *c}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CORSPolicy
  metadata: {name: cors, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: cors}}}], config: {allowOrigins: [{exact: 'https://app.test'}], allowMethods: [GET]}}
- {apiVersion: v1, kind: Service, metadata: {name: limiter, namespace: team, @}, spec: {selector: {app: limiter}, ports: [{name: grpc, port: 9000}]}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerConfig, metadata: {name: limits, namespace: team, @}, spec: {destinationServers: [{ref: {name: limiter}, port: {name: grpc}}], raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: limits, namespace: team, @}, spec: {destinationServer: {ref: {name: limiter}, port: {name: grpc}}, requestTimeout: 9s, denyOnFail: true}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerConfig, metadata: {name: here, namespace: team, annotations: {cluster.solo.io/cluster: cluster-1, chancery/rate-limiting: local}}, spec: {raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: WAFPolicy, metadata: {name: closed, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: closed}}}], config: {disableCoreRuleSet: true}}}
";

/// A limit on what `x-who` says, in a phase.
fn limit(case: &str, phase: &str) -> String {
    format!(
        "- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: RateLimitPolicy
  metadata: {{name: {case}, namespace: team, @}}
  spec:
    applyToRoutes: [{{route: {{labels: {{case: {case}}}}}}}]
    config:
      phase: {phase}
      ratelimitServerConfig: {{name: limits}}
      serverSettings: {{name: limits}}
      raw: {{rateLimits: [{{actions: [{{requestHeaders: {{headerName: x-who, descriptorKey: who}}}}]}}]}}
"
    )
}

/// The world, and who signs tokens in it.
struct World {
    team: Delegated,
    a: Issuer,
    c: Issuer,
    _authz: Authorizer,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let (a, c) = (Issuer::ec("https://a")?, Issuer::ec("https://c")?);
        let judge =
            |check: &Check| if check.header("x-pass") == "yes" { Verdict::pass() } else { Verdict::refuse(401) };
        let authz = Authorizer::start(([127, 0, 0, 1], 0).into(), judge).await?;
        let hash = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"wonder").as_ref());
        // The gateway counts this one by itself.
        let here = limit("here", "{postAuthz: {}}").replace("      serverSettings: {name: limits}\n", "");
        let limits = [
            here.replace("{name: limits}", "{name: here}"),
            limit("first", "{preAuthz: {priority: -1}}"),
            limit("then", "{preAuthz: {}}"),
            limit("last", "{postAuthz: {}}"),
        ];
        let objects = format!("{VAULT}{WORLD}{}", limits.concat())
            .replace("$A", &json!(a.jwks()).to_string())
            .replace("$C", &json!(c.jwks()).to_string())
            .replace("$HASH", &json!(hash).to_string())
            .replace("$GRPC", &json!(authz.address.to_string()).to_string())
            .replace("$HTTP", &json!(format!("http://{}/verify", authz.address)).to_string());
        let mut world = Self { team: Delegated::start(&objects).await?, a, c, _authz: authz };
        let request = world.to("GET", "nowhere")?;
        world.team.answers(&request, 200).await?;
        Ok(world)
    }

    /// A request that a token leads to a route.
    fn to(&self, method: &str, route: &str) -> anyhow::Result<Request> {
        Ok(request(method, "/").header("x-token", &self.a.token(&json!({"to": route}))?))
    }

    async fn judges(&mut self, rows: &[(&str, Request, (u16, u64))]) -> anyhow::Result<()> {
        for (why, request, expected) in rows {
            assert_eq!(self.team.outcome(request).await?, *expected, "{why}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn whoever_moves_to_a_route_is_judged_by_it() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let to = |method: &str, route: &str| world.to(method, route);
    let basic = |password: &str| format!("Basic {}", base64(format!("alice:{password}").as_bytes()));
    let bearer = |issuer: &Issuer| -> anyhow::Result<String> { Ok(format!("Bearer {}", issuer.token(&json!({}))?)) };
    let (of_a, of_c) = (bearer(&world.a)?, bearer(&world.c)?);
    let own = format!("https://{HOST}");
    let rows = [
        ("no token of the first route", request("GET", "/"), (401, 0)),
        ("another origin", to("POST", "csrf")?.header("origin", "https://evil.test"), (403, 0)),
        ("its own origin", to("POST", "csrf")?.header("origin", &own), (200, 1)),
        ("what the destination does not allow", to("PUT", "vault")?, (403, 0)),
        ("what it allows", to("GET", "vault")?, (200, 1)),
        ("no password", to("GET", "password")?, (401, 0)),
        ("a wrong password", to("GET", "password")?.header("authorization", &basic("x")), (401, 0)),
        ("a password", to("GET", "password")?.header("authorization", &basic("wonder")), (200, 1)),
        ("no key", to("GET", "key")?.header("x-user-id", "alice"), (401, 0)),
        ("a wrong key", to("GET", "key")?.header("x-key", "x"), (401, 0)),
        ("a key", to("GET", "key")?.header("x-key", "correct-horse-battery"), (200, 1)),
        ("no access token", to("GET", "token")?, (401, 0)),
        ("another issuer's", to("GET", "token")?.header("authorization", &of_a), (401, 0)),
        ("an access token", to("GET", "token")?.header("authorization", &of_c), (200, 1)),
        ("neither", to("GET", "either")?, (403, 0)),
        ("the key of both", to("GET", "either")?.header("x-key", "correct-horse-battery"), (200, 1)),
        ("refused by a server over gRPC", to("GET", "server")?, (401, 0)),
        ("let pass by it", to("GET", "server")?.header("x-pass", "yes"), (200, 1)),
        ("refused by a server over HTTP", to("GET", "service")?, (401, 0)),
        ("let pass by it", to("GET", "service")?.header("x-pass", "yes"), (200, 1)),
        // Tokens are verified on the first route: those of others have been looked at by nobody.
        ("a method that counts a token, without one", to("GET", "found")?, (403, 0)),
        ("with one that nobody has looked at", to("GET", "found")?.header("authorization", &of_c), (403, 0)),
        ("no token", to("GET", "signed")?, (403, 0)),
        ("one that nobody has looked at", to("GET", "signed")?.header("authorization", &of_c), (403, 0)),
        ("no token, after authorization", to("GET", "late")?, (403, 0)),
        ("one that nobody looks at there", to("GET", "late")?.header("authorization", &of_c), (403, 0)),
        ("no token for the destination", to("GET", "safe")?, (403, 0)),
        ("one that nobody looks at for it", to("GET", "safe")?.header("authorization", &of_c), (403, 0)),
        ("a closed route", to("GET", "closed")?, (500, 0)),
    ];
    world.judges(&rows).await
}

/// R125: what counts behind the verification of tokens counts on the route of then. What counts before it does so on the
/// first route, and limits the requests that were on its own from the start.
#[tokio::test]
async fn whoever_moves_to_a_route_is_counted_there() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let limiter = Limiter::start("ratelimit~cluster-1~team~limiter", world.team.mesh.chancery.xds()).await;
    let limiter = limiter.map_err(|error| world.team.mesh.with_logs(error))?;
    world.team.leads("limiter", "grpc", limiter.address)?;
    let moved =
        |world: &World, route: &str, who: &str| Ok::<_, anyhow::Error>(world.to("GET", route)?.header("x-who", who));
    let direct = |route: &str, who: &str| request("GET", "/").header("x-to", route).header("x-who", who);
    // Until the service is there, a request is refused; what it counts meanwhile is of nobody else.
    until(PATIENCE, "the service", async || match world.team.outcome(&direct("last", "nobody")).await {
        Ok((429, 0)) => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    })
    .await?;
    for route in ["then", "last"] {
        for expected in [(200, 1), (200, 1), (429, 0), (429, 0)] {
            let request = moved(&world, route, route)?;
            assert_eq!(world.team.outcome(&request).await?, expected, "moved to {route}");
        }
        assert_eq!(world.team.outcome(&direct(route, route)).await?, (429, 0), "there by itself, too often");
    }
    for expected in [(200, 1), (200, 1), (429, 0)] {
        assert_eq!(world.team.outcome(&direct("first", "first")).await?, expected, "there by itself");
        let request = moved(&world, "here", "here")?;
        assert_eq!(world.team.outcome(&request).await?, expected, "moved to where the gateway counts by itself");
    }
    let request = moved(&world, "first", "first")?;
    assert_eq!(world.team.outcome(&request).await?, (200, 1), "counted where it came in");
    Ok(())
}

/// Browsers are told by the route on which a request comes in, before anybody looks at tokens, which preflights do not have.
#[tokio::test]
async fn browsers_are_told_by_the_route_on_which_a_request_comes_in() -> anyhow::Result<()> {
    const APP: &str = "https://app.test";
    let mut world = World::start().await?;
    let allowed = async |world: &mut World, request: Request| {
        let response = world.team.send(&request.header("origin", APP)).await?;
        Ok::<_, anyhow::Error>((response.status, response.header("access-control-allow-origin")))
    };
    let moved = world.to("GET", "cors")?;
    assert_eq!(allowed(&mut world, moved).await?, (200, None));
    let direct = request("GET", "/").header("x-to", "cors");
    assert_eq!(allowed(&mut world, direct).await?, (200, Some(APP.to_owned())));
    // A preflight moves nowhere: here without a token, there by the header that it would carry.
    assert_eq!(world.team.outcome(&preflight("/", APP, "GET")).await?, (401, 0));
    assert_eq!(world.team.outcome(&preflight("/", APP, "GET").header("x-to", "cors")).await?, (200, 0));
    Ok(())
}
