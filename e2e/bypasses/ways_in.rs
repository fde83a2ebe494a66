//! Every way into a gateway: in the clear and over TLS, in both versions of HTTP, with a server name that a listener has,
//! with one that none has, and without any. A policy holds on each of them.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::support::authorizer::{Authorizer, Check, Verdict};
use crate::support::backend::Backend;
use crate::support::chancery::Settings;
use crate::support::delegated::{HOST, VAULT, manifests, request};
use crate::support::http::{Client, Protocol, Request};
use crate::support::issuer::{Issuer, base64};
use crate::support::manifests::Manifest;
use crate::support::tls::{Authority, Dial};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;

/// `$KEYS` stands for the issuer's, `$GRPC` for a server's address.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: token, labels: {case: token}, matchers: [{uri: {prefix: /token}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: guarded, labels: {case: guarded}, matchers: [{uri: {prefix: /guarded}}], forwardTo: *stock}
      - {name: closed, labels: {case: closed}, matchers: [{uri: {prefix: /closed}}], forwardTo: *stock}
      - {name: asked, labels: {case: asked}, matchers: [{uri: {prefix: /asked}}], forwardTo: *stock}
      - {name: password, labels: {case: password}, matchers: [{uri: {prefix: /password}}], forwardTo: *stock}
      - {name: vault, matchers: [{uri: {prefix: /vault}}], forwardTo: {destinations: [{ref: {name: vault}}]}}
      - {name: open, matchers: [{uri: {prefix: /}}], forwardTo: *stock}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: token, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: token}}}], config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}}}}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: guarded, namespace: team, @}
  spec: {applyToRoutes: [{route: {labels: {case: guarded}}}], config: {filterEnabled: true}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: asked, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: asked}}}]
    config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: $GRPC, connectionTimeout: 9s}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {name: password, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: password}}}]
    config: {glooAuth: {configs: [{basicAuth: {encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: c37424cc626cc035d6e4e2991c0270d0510b8df3}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: vault, namespace: team, @}
  spec: {applyToDestinations: [{selector: {name: vault}}], config: {authzList: [{allowedMethods: [GET]}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: door, namespace: shop, @}
  spec: {applyToWorkloads: [{}], config: {authzList: [{match: {request: {headers: {x-banned: {notValues: ['*']}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: WAFPolicy
  metadata: {name: closed, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: closed}}}], config: {disableCoreRuleSet: true}}
";

/// A host for which no listener has a name of its own, so that the chain for what is left serves it.
const OTHER: &str = "other.example.com";

/// The world with a TLS port of two listeners: one for the host of everything, one for what is left.
fn world(authority: &Authority, issuer: &Issuer, server: SocketAddr) -> anyhow::Result<Vec<Manifest>> {
    let objects = format!("{VAULT}{WORLD}")
        .replace("$KEYS", &json!(issuer.jwks()).to_string())
        .replace("$GRPC", &json!(server.to_string()).to_string());
    let mut all = manifests(&objects)?;
    for manifest in all.iter_mut().filter(|manifest| manifest.name() == "ingress") {
        let (list, items) = match manifest.kind() {
            "Service" => (
                "ports",
                json!([
                    {"name": "http", "port": 80, "targetPort": 8080},
                    {"name": "redirect", "port": 81, "targetPort": 8081},
                    {"name": "https", "port": 443, "targetPort": 8443},
                ]),
            ),
            _ => (
                "listeners",
                json!([
                    {"http": {}, "port": {"number": 80}},
                    {"http": {}, "port": {"number": 81}, "httpsRedirect": true},
                    {"http": {}, "port": {"number": 443}, "tls": {"mode": "SIMPLE", "secretName": "rest"}},
                    {"http": {}, "port": {"number": 443}, "tls": {"mode": "SIMPLE", "secretName": "named"},
                     "allowedRouteTables": [{"host": HOST}]},
                ]),
            ),
        };
        manifest.object["spec"][list] = items;
    }
    for table in all.iter_mut().filter(|manifest| manifest.kind() == "RouteTable" && manifest.name() == "www") {
        table.object["spec"]["hosts"] = json!([HOST, OTHER]);
    }
    for (name, host) in [("rest", "rest.example"), ("named", HOST)] {
        let object = authority.sign(host, name)?.secret("shop", name);
        all.push(Manifest { cluster: "cluster-1".to_owned(), object });
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_holds_on_every_way_in() -> anyhow::Result<()> {
    let (authority, issuer) = (Authority::new("servers")?, Issuer::ec("https://a")?);
    let judge = |check: &Check| if check.header("x-pass") == "yes" { Verdict::pass() } else { Verdict::refuse(401) };
    let server = Authorizer::start(([127, 0, 0, 1], 0).into(), judge).await?;
    let mesh = Mesh::start(world(&authority, &issuer, server.address)?, Settings::default()).await?;
    let gateway = &mesh.gateways[0];
    let (plain, tls) = (gateway.address(80)?, gateway.address(443)?);
    let over_tls = |name: Option<&str>, protocol| {
        let dial = Dial::under(&authority.pem(), None)?.asking(name, protocol)?;
        Ok::<_, anyhow::Error>((format!("TLS, {name:?}, {protocol:?}"), Client::with_tls(tls, protocol, dial)))
    };
    let mut ways = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        ways.push((format!("in the clear, {protocol:?}"), Client::speaking(plain, protocol)));
        for name in [Some(HOST), Some("rest.example"), Some("unknown.example"), None] {
            ways.push(over_tls(name, protocol)?);
        }
    }
    let token = format!("Bearer {}", issuer.token(&json!({}))?);
    let forged = format!("Bearer {}", Issuer::ec("https://a")?.token(&json!({}))?);
    let password = |text: &str| format!("Basic {}", base64(format!("alice:{text}")));
    let received = || mesh.backends.iter().map(Backend::requests).sum::<u64>();
    let mut served = Vec::new();
    for (way, client) in &mut ways {
        for host in [HOST, OTHER] {
            let to = |request: Request| Request { host: host.to_owned(), ..request };
            let open = to(request("GET", "/"));
            until(PATIENCE, way, async || match client.send(&open).await {
                Ok(answer) if [200, 404, 421].contains(&answer.status) => Ok(()),
                other => Err(Not::Yet(format!("{other:?}"))),
            })
            .await
            .map_err(|error| mesh.with_logs(error))?;
            // A chain that does not serve the host serves none of its routes.
            let serves = client.send(&open).await?.status == 200;
            if serves {
                served.push(format!("{host} {way}"));
            }
            for (request, status) in [
                (request("GET", "/token"), 401),
                (request("GET", "/token").header("authorization", &forged), 401),
                (request("GET", "/token").header("authorization", &token), 200),
                (request("POST", "/guarded").header("origin", "https://evil.test"), 403),
                (request("POST", "/guarded").header("origin", &format!("https://{host}")), 200),
                (request("GET", "/asked"), 401),
                (request("GET", "/asked").header("x-pass", "yes"), 200),
                (request("GET", "/password"), 401),
                (request("GET", "/password").header("authorization", &password("x")), 401),
                (request("GET", "/password").header("authorization", &password("wonder")), 200),
                (request("PUT", "/vault"), 403),
                (request("GET", "/vault"), 200),
                (request("GET", "/").header("x-banned", "1"), 403),
                (request("GET", "/closed"), 500),
            ] {
                let (request, before) = (to(request), received());
                let answer = client.send(&request).await.with_context(|| way.clone())?;
                if serves {
                    assert_eq!(answer.status, status, "{way}: {request:?}");
                }
                let forwarded = u64::from(serves && status == 200);
                assert_eq!(received() - before, forwarded, "{way}: {request:?} was answered {}", answer.status);
            }
        }
    }
    // In the clear both hosts, over TLS one by its own chain, and the other by the chain for what is left, in three ways.
    ensure!(served.len() == 2 * (2 + 1 + 3), "{served:#?}");
    redirects(gateway.address(81)?).await?;
    Ok(())
}

/// Where all is redirected to https nothing is let in.
async fn redirects(address: SocketAddr) -> anyhow::Result<()> {
    for path in ["/", "/token", "/closed"] {
        let answer = Client::new(address).send(&Request::get(HOST, path)).await?;
        assert_eq!(answer.status, 301, "{path}");
    }
    Ok(())
}
