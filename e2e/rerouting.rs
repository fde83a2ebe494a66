//! A request whose route changes after a header was rewritten is judged by the route that it ends on: for every kind that
//! protects, on a real Envoy. Tokens of JWTPolicies are in `jwt.rs` and `tokens.rs`, servers in `ext_auth.rs`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use crate::support::delegated::{Delegated, HOST, request};
use crate::support::http::Request;
use crate::support::issuer::{Issuer, base64};

/// All requests begin on route `start`, whose JWTPolicy makes a header of a claim; `$A`, `$C` stand for keys, `$HASH` for
/// the hash of a password.
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: vault, namespace: team, @}
  spec: {selector: {app: vault}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: vault-1, namespace: team, labels: {kubernetes.io/service-name: vault}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: vault-0}}]
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
- {apiVersion: security.policy.gloo.solo.io/v2, kind: WAFPolicy, metadata: {name: closed, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: closed}}}], config: {disableCoreRuleSet: true}}}
";

#[tokio::test]
async fn whoever_moves_to_a_route_is_judged_by_it() -> anyhow::Result<()> {
    let (a, c) = (Issuer::ec("https://a")?, Issuer::ec("https://c")?);
    let hash = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"wonder").as_ref());
    let world = WORLD
        .replace("$A", &json!(a.jwks()).to_string())
        .replace("$C", &json!(c.jwks()).to_string())
        .replace("$HASH", &json!(hash).to_string());
    let mut world = Delegated::start(&world).await?;
    let to = |method: &str, claim: &str| -> anyhow::Result<Request> {
        Ok(request(method, "/").header("x-token", &a.token(&json!({"to": claim}))?))
    };
    let basic = |password: &str| format!("Basic {}", base64(format!("alice:{password}").as_bytes()));
    let bearer = |issuer: &Issuer| -> anyhow::Result<String> { Ok(format!("Bearer {}", issuer.token(&json!({}))?)) };
    let own = format!("https://{HOST}");
    world.answers(&to("GET", "nowhere")?, 200).await?;
    for (why, request, expected) in [
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
        ("another issuer's", to("GET", "token")?.header("authorization", &bearer(&a)?), (401, 0)),
        ("an access token", to("GET", "token")?.header("authorization", &bearer(&c)?), (200, 1)),
        ("neither", to("GET", "either")?, (403, 0)),
        ("the key of both", to("GET", "either")?.header("x-key", "correct-horse-battery"), (200, 1)),
        ("a closed route", to("GET", "closed")?, (500, 0)),
    ] {
        assert_eq!(world.outcome(&request).await?, expected, "{why}");
    }
    Ok(())
}
