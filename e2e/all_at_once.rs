//! Every kind that protects or limits, at once on one route, in the documented order. The order is proven by effect: who
//! was asked, what was counted, and which refusal the client got.
//!
//! A limit's header has the rate-limit service asked at that place, and the authorization server answers late. So rows let a
//! filter pause before each one that refuses, those that a route brings whole among them: whoever is to be refused still is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::policies::preflight;
use crate::support::authorizer::{Authorizer, Check, Verdict};
use crate::support::delegated::{Delegated, HOST, echo, request};
use crate::support::http::Request;
use crate::support::issuer::{Issuer, base64};
use crate::support::limiter::Limiter;
use crate::support::manifests::{self, Manifest};
use crate::support::net::Network;

/// Routes, servers and limits; policies select by the labels `all` and `auth`.
pub(crate) const WORLD: &str = r"
- {apiVersion: v1, kind: Service, metadata: {name: limiter, namespace: team, @}, spec: {selector: {app: limiter}, ports: [{name: grpc, port: 9000}]}}
- {apiVersion: v1, kind: Service, metadata: {name: authz, namespace: team, @}, spec: {selector: {app: authz}, ports: [{name: grpc, port: 9000}]}}
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: plain, matchers: [{uri: {prefix: /plain}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: all, labels: {all: 'yes', auth: server}, matchers: [{uri: {prefix: /all}}], forwardTo: *stock}
      - {name: keys, labels: {all: 'yes', auth: keys}, matchers: [{uri: {prefix: /keys}}], forwardTo: *stock}
      - {name: faulty, labels: {all: 'yes', auth: server, fault: 'yes'}, matchers: [{uri: {prefix: /faulty}}], forwardTo: *stock}
      - {name: password, labels: {all: 'yes', auth: password}, matchers: [{uri: {prefix: /password}}], forwardTo: *stock}
      - {name: access, labels: {all: 'yes', auth: access}, matchers: [{uri: {prefix: /access}}], forwardTo: *stock}
      - {name: either, labels: {all: 'yes', auth: either}, matchers: [{uri: {prefix: /either}}], forwardTo: *stock}
      - {name: late, labels: {auth: server, token: late}, matchers: [{uri: {prefix: /late}}], forwardTo: *stock}
- apiVersion: admin.gloo.solo.io/v2
  kind: RateLimitServerConfig
  metadata: {name: limits, namespace: team, @}
  spec:
    destinationServers: [{ref: {name: limiter}, port: {name: grpc}}]
    raw:
      descriptors:
        - {key: early, rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {key: middle, rateLimit: {unit: DAY, requestsPerUnit: 2}}
        - {key: late, rateLimit: {unit: DAY, requestsPerUnit: 2}}
- {apiVersion: admin.gloo.solo.io/v2, kind: RateLimitServerSettings, metadata: {name: limits, namespace: team, @}, spec: {destinationServer: {ref: {name: limiter}, port: {name: grpc}}, requestTimeout: 9s, denyOnFail: true}}
- {apiVersion: admin.gloo.solo.io/v2, kind: ExtAuthServer, metadata: {name: authz, namespace: team, @}, spec: {destinationServer: {ref: {name: authz}, port: {number: 9000}}, requestTimeout: 9s}}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: alice, namespace: team, labels: {keys: shop}, @}
  stringData: {api-key: correct-horse-battery}
";

/// `$KEYS` stands for the issuer's. The hash is that of `wonder`.
const POLICIES: &str = r"
- {apiVersion: resilience.policy.gloo.solo.io/v2, kind: FaultInjectionPolicy, metadata: {name: fault, namespace: shop, @}, spec: {applyToRoutes: [{route: {labels: {fault: 'yes'}}}], config: {abort: {httpStatus: 418}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CORSPolicy
  metadata: {name: cors, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {all: 'yes'}}}], config: {allowOrigins: [{exact: 'https://app.test'}], allowMethods: [GET, POST]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: token, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {all: 'yes'}}}]
    config:
      providers:
        a:
          issuer: https://a
          local: {inline: $KEYS}
          tokenSource: {headers: [{name: x-token, prefix: 'Bearer '}]}
          claimsToHeaders: [{claim: sub, header: x-user}]
      claims: [{key: group, values: [staff]}]
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: door, namespace: shop, @}
  spec: {applyToWorkloads: [{}], config: {authzList: [{allowedClients: [{requestIdentityMatcher: {notRequestPrincipals: ['*/mallory']}}]}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: server, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {auth: server}}}], config: {customAuth: {}, server: {name: authz}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: keys, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {auth: keys}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s}}}, {apiKeyAuth: {headerName: x-key, k8sSecretApikeyStorage: {labelSelector: {keys: shop}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: password, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {auth: password}}}]
    config: {glooAuth: {configs: [{basicAuth: &users {encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: c37424cc626cc035d6e4e2991c0270d0510b8df3}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: access, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {auth: access}}}]
    config: {glooAuth: {configs: [{oauth2: {accessTokenValidation: {jwt: {localJwks: {inlineString: $KEYS}, issuer: https://a}, requiredScopes: {scope: [read]}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: either, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {auth: either}}}]
    config:
      glooAuth:
        booleanExpr: server && (user || key)
        configs:
          - {name: server, passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s}}}
          - {name: user, basicAuth: *users}
          - {name: key, apiKeyAuth: {headerName: x-key, k8sSecretApikeyStorage: {labelSelector: {keys: shop}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: csrf, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {all: 'yes'}}}], config: {filterEnabled: true}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: stock, namespace: team, @}
  spec: {applyToDestinations: [{selector: {name: stock}}], config: {authzList: [{allowedMethods: [GET, POST]}]}}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: HeaderManipulationPolicy
  metadata: {name: headers, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {all: 'yes'}}}], config: {appendRequestHeaders: {x-added: '1'}}}
- {apiVersion: resilience.policy.gloo.solo.io/v2, kind: RetryTimeoutPolicy, metadata: {name: timeout, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {all: 'yes'}}}], config: {requestTimeout: 9s}}}
";

/// Tokens that are looked at after authorization. The door would let nobody in there, as it cannot tell who it is.
const LATE: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: late, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {token: late}}}]
    config: {phase: {postAuthz: {}}, providers: {a: {issuer: https://a, local: {inline: $KEYS}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: server, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {auth: server}}}], config: {customAuth: {}, server: {name: authz}}}
";

/// A limit by the header and the rule of one name, in a phase.
pub(crate) fn limit(name: &str, phase: &Value) -> Manifest {
    let actions = json!([{"requestHeaders": {"headerName": format!("x-{name}"), "descriptorKey": name}}]);
    let config = json!({
        "ratelimitServerConfig": {"name": "limits"}, "serverSettings": {"name": "limits"},
        "phase": phase, "raw": {"rateLimits": [{"actions": actions}]},
    });
    let object = json!({
        "apiVersion": "trafficcontrol.policy.gloo.solo.io/v2", "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"applyToRoutes": [{"route": {"labels": {"all": "yes"}}}], "config": config},
    });
    Manifest { cluster: "cluster-1".to_owned(), object }
}

/// The world as it runs.
pub(crate) struct World {
    pub(crate) team: Delegated,
    pub(crate) authz: Authorizer,
    _limiter: Limiter,
    pub(crate) issuer: Issuer,
    _network: Network,
}

/// Answers late: other filters must not go on meanwhile.
fn judge(check: &Check) -> Verdict {
    let verdict = if check.header("x-pass") == "yes" { Verdict::pass() } else { Verdict::refuse(401) };
    Verdict { delay: Duration::from_millis(20), ..verdict }
}

impl World {
    /// Starts it with policies; `$KEYS` and `$GRPC` are replaced.
    pub(crate) async fn start(policies: &str) -> anyhow::Result<Self> {
        let (issuer, network) = (Issuer::ec("https://a")?, Network::claim()?);
        let authz = Authorizer::start((network.next_address()?, network.free_port()?).into(), judge).await?;
        let objects = format!("{WORLD}{policies}")
            .replace("$KEYS", &json!(issuer.jwks()).to_string())
            .replace("$GRPC", &authz.address.to_string());
        let team = Delegated::start(&objects).await?;
        let limiter = Limiter::start("ratelimit~cluster-1~team~limiter", team.mesh.chancery.xds()).await;
        let limiter = limiter.map_err(|error| team.mesh.with_logs(error))?;
        team.leads("authz", "grpc", authz.address)?;
        team.leads("limiter", "grpc", limiter.address)?;
        Ok(Self { team, authz, _limiter: limiter, issuer, _network: network })
    }

    /// Sends requests; each must have its status, reach a backend so often, and make the server be asked so often.
    async fn judges(&mut self, rows: &[(&str, Request, (u16, u64, usize))]) -> anyhow::Result<()> {
        for (why, request, expected) in rows {
            let (asked, reached) = (self.authz.count(), self.team.received());
            let response = self.team.send(request).await?;
            let seen = (response.status, self.team.received() - reached, self.authz.count() - asked);
            assert_eq!(seen, *expected, "{why}: {}", response.text());
        }
        Ok(())
    }

    /// A token of somebody.
    pub(crate) fn token(&self, subject: &str, group: &str) -> anyhow::Result<String> {
        Ok(format!("Bearer {}", self.issuer.token(&json!({"sub": subject, "group": group}))?))
    }
}

#[tokio::test]
async fn all_kinds_on_one_route_judge_in_the_documented_order() -> anyhow::Result<()> {
    let mut world = World::start(POLICIES).await?;
    let limits = [
        limit("early", &json!({"preAuthz": {"priority": -1}})),
        limit("middle", &json!({"preAuthz": {}})),
        limit("late", &json!({"postAuthz": {}})),
    ];
    manifests::write(world.team.mesh.directory(), &limits)?;
    let (alice, other, mallory) =
        (world.token("alice", "staff")?, world.token("alice", "guests")?, world.token("mallory", "staff")?);
    let by = |token: &str, request: Request| request.header("x-token", token);
    let get = || request("GET", "/all");
    let good = || by(&alice, get()).header("x-pass", "yes");
    let from = |method: &str, origin: &str| Request { method: method.to_owned(), ..good() }.header("origin", origin);
    let own = format!("https://{HOST}");
    world.team.answers(&good(), 200).await?;
    for name in ["x-early", "x-late"] {
        // All three are in force once they refuse.
        world.team.answers(&good().header(name, "first"), 429).await?;
    }
    let seen = echo(&world.team.send(&good().header("x-user", "mallory")).await?)?;
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-user"), header("x-added")), (Some("alice"), Some("1")));
    world
        .judges(&[
            ("no policy", request("GET", "/plain"), (200, 1, 0)),
            ("all is as it should be", good(), (200, 1, 1)),
            // Faults before preflights, preflights before all who want credentials.
            ("a preflight", preflight("/all", "https://app.test", "GET"), (200, 0, 0)),
            ("a preflight where a fault strikes", preflight("/faulty", "https://app.test", "GET"), (418, 0, 0)),
            ("a foreign preflight", preflight("/all", "https://evil.test", "GET"), (401, 0, 0)),
            // The first limit counts before tokens are looked at.
            ("no token", get().header("x-early", "a"), (401, 0, 0)),
            ("no token", get().header("x-early", "a"), (401, 0, 0)),
            ("no token, once too often", get().header("x-early", "a"), (429, 0, 0)),
            ("a good token, once too often", good().header("x-early", "a"), (429, 0, 0)),
            // The second behind them, and before the server is asked.
            ("no token", get().header("x-middle", "a"), (401, 0, 0)),
            ("no token", get().header("x-middle", "a"), (401, 0, 0)),
            ("another group", by(&other, get()).header("x-middle", "a"), (403, 0, 0)),
            ("not counted before", good().header("x-middle", "a"), (200, 1, 1)),
            ("not counted before", good().header("x-middle", "a"), (200, 1, 1)),
            ("once too often: nobody is asked", good().header("x-middle", "a"), (429, 0, 0)),
            // The door behind it, and before the server is asked.
            ("who must not call", by(&mallory, get()).header("x-pass", "yes"), (403, 0, 0)),
            (
                "who must not call, too often",
                by(&mallory, get()).header("x-pass", "yes").header("x-middle", "a"),
                (429, 0, 0),
            ),
            // The third limit counts what the server lets pass.
            ("refused by the server", by(&alice, get()).header("x-late", "a"), (401, 0, 1)),
            ("refused by the server", by(&alice, get()).header("x-late", "a"), (401, 0, 1)),
            ("refused by the server", by(&alice, get()).header("x-late", "a"), (401, 0, 1)),
            ("not counted before", good().header("x-late", "a"), (200, 1, 1)),
            ("counted although refused later", from("POST", "https://evil.test").header("x-late", "a"), (403, 0, 1)),
            (
                "once too often, for whom it would refuse too",
                from("POST", "https://evil.test").header("x-late", "a"),
                (429, 0, 1),
            ),
            // A service is asked, and so a filter pauses, before each that refuses.
            ("another group, after a pause", by(&other, get()).header("x-early", "b"), (403, 0, 0)),
            (
                "who must not call, after a pause",
                by(&mallory, get()).header("x-pass", "yes").header("x-middle", "b"),
                (403, 0, 0),
            ),
            ("once too often, after a pause", good().header("x-early", "b").header("x-middle", "a"), (429, 0, 0)),
            ("refused by the server, after a pause", by(&alice, get()).header("x-middle", "c"), (401, 0, 1)),
            // Other origins last on the gateway, and then what the destination's owner says.
            ("another origin", from("POST", "https://evil.test"), (403, 0, 1)),
            ("another origin, with a method that is not allowed", from("DELETE", "https://evil.test"), (403, 0, 1)),
            ("its own origin", from("POST", &own), (200, 1, 1)),
            ("a method that the destination does not allow", from("DELETE", &own), (403, 0, 1)),
            ("and after one more pause", from("DELETE", &own).header("x-late", "b"), (403, 0, 1)),
        ])
        .await?;
    let evil = world.team.send(&from("DELETE", "https://evil.test")).await?;
    assert_eq!(evil.text(), "Invalid origin", "the route's refusal comes first");
    let denied = world.team.send(&from("DELETE", &own)).await?;
    assert_eq!(denied.text(), "RBAC: access denied");

    // What Envoy compares itself comes before a server that is asked.
    let keys = || by(&alice, request("GET", "/keys"));
    world.team.answers(&keys().header("x-key", "correct-horse-battery").header("x-pass", "yes"), 200).await?;
    world
        .judges(&[
            ("no token", request("GET", "/keys").header("x-key", "correct-horse-battery"), (401, 0, 0)),
            ("no key: nobody is asked", keys().header("x-pass", "yes"), (401, 0, 0)),
            ("a wrong key: nobody is asked", keys().header("x-key", "wrong").header("x-pass", "yes"), (401, 0, 0)),
            (
                "a wrong key, after a pause",
                keys().header("x-key", "wrong").header("x-pass", "yes").header("x-middle", "d"),
                (401, 0, 0),
            ),
            ("a key, refused by the server", keys().header("x-key", "correct-horse-battery"), (401, 0, 1)),
            ("both", keys().header("x-key", "correct-horse-battery").header("x-pass", "yes"), (200, 1, 1)),
        ])
        .await?;
    credentials(&mut world, &alice).await
}

/// The other methods that a gateway judges by itself, each behind filters that pause: the service is asked for a limit's
/// header, the server where the policy says so.
async fn credentials(world: &mut World, alice: &str) -> anyhow::Result<()> {
    let to = |path: &str| request("GET", path).header("x-token", alice);
    let basic = |password: &str| format!("Basic {}", base64(format!("alice:{password}")));
    let (good, bad) = (basic("wonder"), basic("x"));
    let read = format!("Bearer {}", world.issuer.token(&json!({"scope": "read"}))?);
    let write = format!("Bearer {}", world.issuer.token(&json!({"scope": "write"}))?);
    let forged = format!("Bearer {}", Issuer::ec("https://a")?.token(&json!({"scope": "read"}))?);
    let with = |path: &str, credentials: &str, turn: &str| {
        to(path).header("authorization", credentials).header("x-early", turn).header("x-middle", turn)
    };
    let either = |turn: &str| to("/either").header("x-pass", "yes").header("x-middle", turn);
    world.team.answers(&to("/password").header("authorization", &good), 200).await?;
    world.team.answers(&to("/either").header("x-pass", "yes").header("x-key", "correct-horse-battery"), 200).await?;
    world
        .judges(&[
            ("no password", to("/password").header("x-middle", "e"), (401, 0, 0)),
            ("a wrong password", with("/password", &bad, "f"), (401, 0, 0)),
            ("a password", with("/password", &good, "g"), (200, 1, 0)),
            ("no access token", to("/access").header("x-middle", "h"), (401, 0, 0)),
            ("a forged access token", with("/access", &forged, "i"), (401, 0, 0)),
            ("an access token without the scope", with("/access", &write, "j"), (403, 0, 0)),
            ("an access token", with("/access", &read, "k"), (200, 1, 0)),
            ("neither key nor password", either("l"), (403, 0, 1)),
            ("a wrong key", either("m").header("x-key", "wrong"), (403, 0, 1)),
            ("the key", either("n").header("x-key", "correct-horse-battery"), (200, 1, 1)),
            ("the password", either("o").header("authorization", &good), (200, 1, 1)),
        ])
        .await
}

#[tokio::test]
async fn tokens_that_are_looked_at_last_are_so_behind_a_pause() -> anyhow::Result<()> {
    let mut world = World::start(LATE).await?;
    let late = || request("GET", "/late").header("x-pass", "yes");
    let alice = world.token("alice", "staff")?;
    let forged = format!("Bearer {}", Issuer::ec("https://a")?.token(&json!({}))?);
    world.team.answers(&late().header("authorization", &alice), 200).await?;
    world
        .judges(&[
            ("no token", late(), (401, 0, 1)),
            ("a forged one", late().header("authorization", &forged), (401, 0, 1)),
            ("a good one", late().header("authorization", &alice), (200, 1, 1)),
            ("a good one, refused by the server", request("GET", "/late").header("authorization", &alice), (401, 0, 1)),
        ])
        .await
}
