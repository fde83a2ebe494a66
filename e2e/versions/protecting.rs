//! What protects, on every release: each answers as the table says, which is 500 where a release cannot do what a policy asks
//! for, and then the policy says so and no backend is reached.

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use super::{Tested, complaints, start};
use crate::support::authorizer::{Authorizer, Check, Verdict};
use crate::support::backend::Backend;
use crate::support::chancery::{self, Settings};
use crate::support::delegated::{VAULT, echo, manifests, request};
use crate::support::http::Request;
use crate::support::issuer::{Issuer, base64, now};
use crate::support::manifests::{Manifest, list, text, write};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;

/// `$KEYS` stands for the issuer's.
const WORLD: &str = r"
- apiVersion: v1
  kind: Service
  metadata: {name: shed, namespace: team, @}
  spec: {selector: {app: shed}, ports: [{name: http, port: 8080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: shed-1, namespace: team, labels: {kubernetes.io/service-name: shed}, @}
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.1.0.13], targetRef: {kind: Pod, name: shed-0}}]
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: token, labels: {case: token}, matchers: [{uri: {prefix: /token}}], forwardTo: *stock}
      - {name: role, labels: {case: role}, matchers: [{uri: {prefix: /role}}], forwardTo: *stock}
      - {name: csrf, labels: {case: csrf}, matchers: [{uri: {prefix: /csrf}}], forwardTo: *stock}
      - {name: waf, labels: {case: waf}, matchers: [{uri: {prefix: /waf}}], forwardTo: *stock}
      - {name: shed, matchers: [{uri: {prefix: /shed}}], forwardTo: {destinations: [{ref: {name: shed}}]}}
      - {name: asked, labels: {case: asked}, matchers: [{uri: {prefix: /asked}}], forwardTo: *stock}
      - {name: body, labels: {case: body}, matchers: [{uri: {prefix: /body}}], forwardTo: *stock}
      - {name: password, labels: {case: password}, matchers: [{uri: {prefix: /password}}], forwardTo: *stock}
      - {name: realm, labels: {case: realm}, matchers: [{uri: {prefix: /realm}}], forwardTo: *stock}
      - {name: key, labels: {case: key}, matchers: [{uri: {prefix: /key}}], forwardTo: *stock}
      - {name: access, labels: {case: access}, matchers: [{uri: {prefix: /access}}], forwardTo: *stock}
      - {name: limited, labels: {case: limited}, matchers: [{uri: {prefix: /limited}}], forwardTo: *stock}
      - {name: vault, labels: {case: token}, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: token, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: token}}}]
    config:
      providers:
        a:
          issuer: https://a
          local: {inline: $KEYS}
          claimsToHeaders: [{claim: org, header: x-org}, {claim: deep.er, header: x-deep, append: true}]
      claims: [{key: groups, values: [admins, 'dev-*', '7']}, {key: banned, notValues: ['true']}]
      requiredScopes: [read]
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: role, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: role}}}]
    config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}, claimsToHeaders: [{claim: 'https://a/role', header: x-role}]}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: csrf, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: csrf}}}], config: {filterEnabled: true}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: WAFPolicy
  metadata: {name: waf, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: waf}}}], config: {disableCoreRuleSet: true}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: shed, namespace: team, @}
  spec: {applyToDestinations: [{selector: {name: shed}}], config: {authzList: [{allowedMethods: ['']}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: vault, namespace: team, @}
  spec:
    applyToDestinations: [{selector: {labels: {guard: 'yes'}}}]
    config:
      authzList:
        - {allowedMethods: [GET], allowedClients: [{requestIdentityMatcher: {requestPrincipals: ['*/alice'], notRequestPrincipals: ['https://b/*']}}]}
        - {match: {request: {headers: {x-rank: {values: ['a*z'], notValues: [guest]}}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: asked, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: asked}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: password, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: password}}}]
    config: {glooAuth: {configs: [{basicAuth: {encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: $HASH}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: realm, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: realm}}}]
    config: {glooAuth: {configs: [{basicAuth: {realm: shop, encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: $HASH}}}}}]}}
- {apiVersion: v1, kind: Secret, type: extauth.solo.io/apikey, metadata: {name: alice, namespace: team, @}, stringData: {api-key: correct-horse-battery}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: key, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: key}}}]
    config: {glooAuth: {configs: [{apiKeyAuth: {headerName: x-key, k8sSecretApikeyStorage: {apiKeySecretRefs: [{name: alice}]}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: access, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: access}}}]
    config: {glooAuth: {configs: [{oauth2: {accessTokenValidation: {jwt: {localJwks: {inlineString: $KEYS}, issuer: https://a}, requiredScopes: {scope: [read]}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: door, namespace: shop, @}
  spec:
    applyToWorkloads: [{}]
    config:
      authzList:
        - {match: {request: {headers: {x-lines: {notValues: ['*']}}}}}
        - {match: {request: {headers: {x-lines: {values: ['a*z', 'b,c']}}}}}
- {apiVersion: v1, kind: Service, metadata: {name: authz, namespace: team, @}, spec: {selector: {app: authz}, ports: [{name: grpc, port: 9000}]}}
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {name: body, namespace: team, @}
  spec: {destinationServer: {ref: {name: authz}, port: {number: 9000}}, requestTimeout: 9s, requestBody: {maxRequestBytes: 64}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: body, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: body}}}], config: {customAuth: {}, server: {name: body}}}
- {apiVersion: v1, kind: Service, metadata: {name: limiter, namespace: team, @}, spec: {selector: {app: limiter}, ports: [{name: grpc, port: 9000}]}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerConfig, metadata: {name: limits, namespace: team, @}, spec: {destinationServers: [{ref: {name: limiter}, port: {name: grpc}}], raw: {descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: limits, namespace: team, @}, spec: {destinationServer: {ref: {name: limiter}, port: {name: grpc}}}}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: RateLimitPolicy
  metadata: {name: limited, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: limited}}}]
    config: {ratelimitServerConfig: {name: limits}, serverSettings: {name: limits}, raw: {rateLimits: [{actions: [{requestHeaders: {headerName: x-who, descriptorKey: who}}]}]}}
";

/// The oldest release that is served, by its minor version.
const ALWAYS: u32 = 36;

/// The first release that guards destinations, as it stands in rows of requests to one: older ones have no hosts for them.
const GUARDED: u32 = 139;

/// The first release that surely tells the lines of a header apart, as it stands in rows of requests that need it: older ones
/// join them before they compare, and refuse what may have been joined.
const APART: u32 = 138;

/// A request, its answer where the release can do it, and since which minor version that is.
type Row = (&'static str, Request, u16, u32);

fn rows(issuer: &Issuer) -> anyhow::Result<Vec<Row>> {
    let good = json!({"groups": "admins", "scope": "write read", "org": "iron", "deep": {"er": "down"}, "https://a/role": "cook"});
    let with = |path: &str, change: serde_json::Value| {
        let mut claims = good.clone();
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let token = issuer.token(&claims)?;
        Ok::<_, anyhow::Error>(request("GET", path).header("authorization", &format!("Bearer {token}")))
    };
    let unsigned = request("GET", "/token").header("authorization", &format!("Bearer {}", issuer.unsigned()));
    let password =
        |path: &str| request("GET", path).header("authorization", &format!("Basic {}", base64("alice:wonder")));
    let lines = |one: &str, other: &str| request("GET", "/plain").header("x-lines", one).header("x-lines", other);
    let from = |origin: &str| request("POST", "/csrf").header("origin", origin);
    Ok(vec![
        ("no policy", request("GET", "/plain"), 200, ALWAYS),
        ("no token", request("GET", "/token"), 401, ALWAYS),
        ("a good token", with("/token", json!({}))?, 200, ALWAYS),
        ("a number among the groups", with("/token", json!({"groups": [1, 7]}))?, 200, ALWAYS),
        ("another group", with("/token", json!({"groups": "users"}))?, 403, ALWAYS),
        ("banned", with("/token", json!({"banned": true}))?, 403, ALWAYS),
        ("without the scope", with("/token", json!({"scope": "reading"}))?, 403, ALWAYS),
        ("expired", with("/token", json!({"exp": now() - 3600}))?, 401, ALWAYS),
        ("another issuer", with("/token", json!({"iss": "https://b"}))?, 401, ALWAYS),
        ("unsigned", unsigned, 401, ALWAYS),
        ("a claim whose name is a URL", with("/role", json!({}))?, 200, 40),
        ("no token there", request("GET", "/role"), 401, 40),
        ("foreign", from("https://evil.test"), 403, ALWAYS),
        ("its own", from("https://www.example.com"), 200, ALWAYS),
        ("a kind that nobody can do", request("GET", "/waf"), 500, ALWAYS),
        ("a principal", with("/vault", json!({"sub": "alice"}))?, 200, GUARDED),
        ("another principal", with("/vault", json!({"sub": "bob"}))?, 403, GUARDED),
        ("a rank instead", with("/vault", json!({"sub": "bob"}))?.header("x-rank", "a-z"), 200, GUARDED),
        (
            "a rank and a bad one",
            with("/vault", json!({}))?.header("x-rank", "a-z").header("x-rank", "guest"),
            403,
            GUARDED,
        ),
        ("a line that fits", request("GET", "/plain").header("x-lines", "a-z"), 200, ALWAYS),
        ("a line that does not", request("GET", "/plain").header("x-lines", "a-y"), 403, ALWAYS),
        ("two lines that fit together only", lines("a", "z"), 403, ALWAYS),
        ("two lines, one of which fits", lines("a-z", "z"), 403, ALWAYS),
        ("two lines that are an item together", lines("b", "c"), 403, ALWAYS),
        ("two lines that fit each", lines("a-z", "a+z"), 200, APART),
        ("a line with a comma that fits", request("GET", "/plain").header("x-lines", "a,z"), 200, APART),
        ("a server that wants a body and gets none", request("POST", "/body"), 401, ALWAYS),
        ("a server that gets the body that it wants", request("POST", "/body").with_body("open"), 200, ALWAYS),
        ("a server that refuses", request("GET", "/asked"), 401, ALWAYS),
        ("a server that lets pass", request("GET", "/asked").header("x-pass", "yes"), 200, ALWAYS),
        ("no access token", request("GET", "/access"), 401, ALWAYS),
        ("an access token", with("/access", json!({}))?, 200, ALWAYS),
        ("an access token without the scope", with("/access", json!({"scope": "write"}))?, 403, ALWAYS),
        ("no password", request("GET", "/password"), 401, 39),
        ("a password", password("/password"), 200, 39),
        ("no password for a realm", request("GET", "/realm"), 401, 40),
        ("a password for a realm", password("/realm"), 200, 40),
        ("no key", request("GET", "/key"), 401, 40),
        ("a key", request("GET", "/key").header("x-key", "correct-horse-battery"), 200, 40),
        // Its service does not run, and its settings let requests pass then.
        ("a limit", request("GET", "/limited").header("x-who", "a"), 200, 40),
        ("an invalid policy of a destination", request("GET", "/shed"), 403, GUARDED),
    ])
}

/// The policies that some release cannot do, with the release that they need.
const BEYOND: &[(&str, &str)] = &[
    ("JWTPolicy/shop/role@cluster-1", "1.40"),
    ("AccessPolicy/team/vault@cluster-1", "1.39"),
    ("ExtAuthPolicy/team/password@cluster-1", "1.39"),
    ("ExtAuthPolicy/team/realm@cluster-1", "1.40"),
    ("ExtAuthPolicy/team/key@cluster-1", "1.40"),
    ("RateLimitPolicy/team/limited@cluster-1", "1.40"),
];

/// The minor version of its release.
pub(super) fn minor(tested: &Tested) -> anyhow::Result<u32> {
    let text = tested.release.trim_end_matches('.').rsplit('.').next();
    text.context("no minor version")?.parse().context("the minor version")
}

async fn judge(mesh: &mut Mesh, issuer: &Issuer) -> anyhow::Result<()> {
    let mut tested = start(mesh, "shop", "ingress", &[80]).await?;
    let rows = rows(issuer)?;
    let mut faults = Vec::new();
    for tested in &mut tested {
        let minor = minor(tested)?;
        let (_, client) = tested.clients.first_mut().context("no client")?;
        for (why, request, status, since) in &rows {
            let before: u64 = mesh.backends.iter().map(Backend::requests).sum();
            let answer = client.send(request).await.with_context(|| tested.what.clone())?;
            let reached = mesh.backends.iter().map(Backend::requests).sum::<u64>() - before;
            let expected = match *since {
                GUARDED if minor < 39 => 503,
                APART if minor < 38 => 403,
                GUARDED | APART => *status,
                since if minor < since => 500,
                _ => *status,
            };
            if (answer.status, reached) != (expected, u64::from(expected == 200)) {
                faults.push(format!(
                    "{}, {why}: {} and {reached} at a backend, not {expected}",
                    tested.what, answer.status
                ));
            }
            if expected == 200 && *why == "a good token" {
                let seen = echo(&answer)?.headers;
                let header = |name: &str| seen.get(name).map(String::as_str);
                if (header("x-org"), header("x-deep")) != (Some("iron"), Some("down")) {
                    faults.push(format!("{}: {seen:?}", tested.what));
                }
            }
        }
    }
    faults.extend(complaints(mesh, &tested).await?);
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    for (policy, release) in BEYOND {
        until(PATIENCE, &format!("{policy} to be told"), async || {
            let status = chancery::status(mesh.chancery.admin()).map_err(|error| Not::Ever(format!("{error:#}")))?;
            let item = list(&status, "/items").iter().find(|item| text(item, "/object") == *policy);
            let told = item.map(ToString::to_string).unwrap_or_default();
            let is_told = ["UNSUPPORTED", &format!("needs {release} or newer")].iter().all(|part| told.contains(part));
            if is_told { Ok(()) } else { Err(Not::Yet(status.to_string())) }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn five_releases_protect_or_refuse_and_say_so() -> anyhow::Result<()> {
    let issuer = Issuer::ec("https://a")?;
    let judge_one = |check: &Check| match check.header("x-pass") == "yes" || &check.body[..] == b"open" {
        true => Verdict::pass(),
        false => Verdict::refuse(401),
    };
    let authz = Authorizer::start(([127, 0, 0, 1], 0).into(), judge_one).await?;
    let hash = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, b"wonder"));
    let world = format!("{VAULT}{WORLD}")
        .replace("$KEYS", &json!(issuer.jwks()).to_string())
        .replace("$GRPC", &authz.address.to_string())
        .replace("$HASH", &hash);
    let objects = manifests(&world)?;
    let mut mesh = Mesh::start_without_gateways(objects, Settings::default()).await?;
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "authz-1", "namespace": "team", "labels": {"kubernetes.io/service-name": "authz"}},
        "ports": [{"name": "grpc", "port": authz.address.port()}],
        "endpoints": [{"addresses": [authz.address.ip().to_string()]}],
    });
    write(mesh.directory(), &[Manifest { cluster: "cluster-1".to_owned(), object }])?;
    let outcome = judge(&mut mesh, &issuer).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
