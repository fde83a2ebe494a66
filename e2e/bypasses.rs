//! Ways around a policy that other control planes left open, each tried on a real Envoy: odd spellings of paths, headers
//! twice and in mixed case, literals that land in an expression, format strings in values, policies of strangers. Which test
//! tries which way, those of other files among them, stands in the manual, "Ways around policies". That no text breaks out
//! into the script of cut chains is shown where it is written, `emit/layout.rs`.
//!
//! What protects here are a CSRFPolicy and a route that a WAFPolicy keeps closed, as its kind is not supported. A request must
//! never reach the backend by being written differently.

mod names;
mod ways_in;

use anyhow::Context;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::authorizer::{Authorizer, Verdict};
use crate::support::delegated::{Delegated, HOST, echo, request};
use crate::support::http::{Client, Protocol, Request};
use crate::support::issuer::Issuer;

const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: guarded, labels: {case: guarded}, matchers: [{uri: {prefix: /admin}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: closed, labels: {case: closed}, matchers: [{uri: {prefix: /closed}}], forwardTo: *stock}
      - name: tenant
        labels: {case: closed}
        matchers: [{uri: {prefix: /tenant}, headers: [{name: X-Tenant, value: a.b}]}]
        forwardTo: *stock
      - {name: headers, labels: {case: headers}, matchers: [{uri: {prefix: /headers}}], forwardTo: *stock}
      - {name: open, matchers: [{uri: {prefix: /}}], forwardTo: *stock}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: CSRFPolicy
  metadata: {name: guard, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: guarded}}}]
    config: {filterEnabled: true, additionalOrigins: [{exact: a.good.test}, {suffix: .friend.test}, {prefix: 'p[.]*'}]}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: WAFPolicy
  metadata: {name: closed, namespace: shop, @}
  spec: {applyToRoutes: [{route: {labels: {case: closed}}}], config: {disableCoreRuleSet: true}}
- apiVersion: trafficcontrol.policy.gloo.solo.io/v2
  kind: HeaderManipulationPolicy
  metadata: {name: headers, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: headers}}}]
    config: {appendRequestHeaders: {x-a: '%REQ(x-secret'}, appendResponseHeaders: {x-b: '50% %FILTER_STATE'}}
";

/// Sends a request as it is, byte for byte; the status of the answer.
async fn raw(address: std::net::SocketAddr, lines: &[&str]) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no answer to {lines:?}: {text}"))
}

/// Every spelling either leads to the protected route or is answered by the gateway itself.
#[tokio::test]
async fn no_spelling_of_a_path_leads_around_a_policy() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let address = world.mesh.entrance("shop/www")?.1;
    assert_eq!(world.outcome(&request("POST", "/other")).await?, (200, 1), "the catch-all takes what the others leave");
    let host = format!("Host: {HOST}");
    for (guarded, refused) in [("admin", 403), ("closed", 500)] {
        for (path, status) in [
            (format!("/{guarded}"), refused),
            (format!("//{guarded}"), refused),
            (format!("///{guarded}//x"), refused),
            (format!("/./{guarded}"), refused),
            (format!("/a/../{guarded}"), refused),
            (format!("/a/%2e%2e/{guarded}"), refused),
            (format!("/a/%2E%2e/{guarded}"), refused),
            (format!("/%2e/{guarded}"), refused),
            (format!("/{guarded};x=1"), refused),
            (format!("/a/..;/{guarded}"), refused),
            (format!("/{guarded}%3Bx"), refused),
            (format!("/{guarded}?a=/../b"), refused),
            (format!("/{guarded}#/other"), 400),
            // Redirected to the path with plain slashes, and judged there.
            (format!("/%2F{guarded}"), 307),
            (format!("/%2f{guarded}"), 307),
            (format!("/a%2F..%2F{guarded}"), 307),
            (format!("/a%5C..%5C{guarded}"), 307),
            (format!("/{guarded}%00"), 400),
        ] {
            let before = world.received();
            let answered = raw(address, &[&format!("POST {path} HTTP/1.1"), &host, "Content-Length: 0"]).await?;
            assert_eq!((answered, world.received() - before), (status, 0), "{path}");
        }
        // What only looks like it: the backend gets the very path that the route was chosen by.
        for path in [format!("/{}", guarded.to_uppercase()), format!("/;/{guarded}")] {
            let response = world.send(&request("POST", &path)).await?;
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            assert_eq!(echo(&response)?.path, path);
        }
        // An absolute URL in the request line is the same request.
        let before = world.received();
        let target = format!("POST http://{HOST}/{guarded} HTTP/1.1");
        assert_eq!(raw(address, &[&target, &host, "Content-Length: 0"]).await?, refused);
        assert_eq!(world.received(), before);
    }
    Ok(())
}

#[tokio::test]
async fn headers_twice_or_in_mixed_case_lead_around_nothing() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let address = world.mesh.entrance("shop/www")?.1;
    let (post, host, empty) = ("POST /admin HTTP/1.1", format!("Host: {HOST}"), "Content-Length: 0");
    let (own, good, evil) =
        (format!("Origin: https://{HOST}"), "Origin: https://a.good.test", "Origin: https://evil.test");
    for (lines, expected) in [
        (vec![own.as_str()], (200, 1)),
        (vec!["oRiGiN: https://a.good.test"], (200, 1)),
        (vec!["oRiGiN: https://evil.test"], (403, 0)),
        // One of several that is allowed is not enough, wherever it stands.
        (vec![good, evil], (403, 0)),
        (vec![evil, good], (403, 0)),
        (vec![&own, evil], (403, 0)),
        (vec![evil, "Referer: https://a.good.test/"], (403, 0)),
        (vec!["Origin:", evil], (403, 0)),
        (vec!["Origin: https://evil.test, https://a.good.test"], (403, 0)),
    ] {
        let before = world.received();
        let status = raw(address, &[&[post, &host, empty], lines.as_slice()].concat()).await?;
        assert_eq!((status, world.received() - before), expected, "{lines:?}");
    }
    // Matchers: names know no case. Of a header that is sent twice no line alone decides.
    let tenant = "POST /tenant HTTP/1.1";
    for (lines, expected) in
        [(vec!["x-tenant: a.b"], (500, 0)), (vec!["X-TENANT: a.b"], (500, 0)), (vec!["x-tenant: axb"], (200, 1))]
    {
        let before = world.received();
        let status = raw(address, &[&[tenant, &host, empty], lines.as_slice()].concat()).await?;
        assert_eq!((status, world.received() - before), expected, "{lines:?}");
    }
    // Two hosts are none that is served.
    let before = world.received();
    assert_eq!(raw(address, &[post, &host, "Host: other.example", empty]).await?, 404);
    assert_eq!(world.received(), before);
    // Neither protocol nor the spelling of the host makes a difference.
    let mut http2 = Client::speaking(address, Protocol::Http2);
    let before = world.received();
    assert_eq!(http2.send(&request("POST", "/admin").header("origin", "https://evil.test")).await?.status, 403);
    for host in ["WWW.example.com", "www.example.com:80", "www.EXAMPLE.com:8443"] {
        let asked = Request { host: host.to_owned(), ..request("POST", "/closed") };
        assert_eq!(world.send(&asked).await?.status, 500, "{host}");
    }
    assert_eq!(world.received(), before);
    Ok(())
}

/// A `.` that somebody wrote as text is a dot and nothing else.
#[tokio::test]
async fn literals_are_no_expressions() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    for (origin, expected) in [
        ("https://a.good.test", (200, 1)),
        ("https://axgood.test", (403, 0)),
        ("https://a.good-test", (403, 0)),
        ("https://x.friend.test", (200, 1)),
        ("https://xfriend.test", (403, 0)),
        ("https://x.friendxtest", (403, 0)),
        ("https://p.evil.test", (403, 0)),
        ("https://p", (403, 0)),
    ] {
        let asked = request("POST", "/admin").header("origin", origin);
        assert_eq!(world.outcome(&asked).await?, expected, "{origin}");
    }
    Ok(())
}

/// The same in patterns with `*`: of an AccessPolicy, at a destination and on the gateway, and of claims.
#[tokio::test]
async fn literals_beside_an_asterisk_are_no_expressions() -> anyhow::Result<()> {
    const POLICIES: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: patterns, namespace: team, @}
  spec:
    applyToDestinations: [{selector: {name: stock}}]
    config:
      authzList:
        - {allowedPaths: ['/v1.0*', '*.css', '/v[1]']}
        - {match: {request: {headers: {x-head: {values: ['a.b*']}}}}}
        - {match: {request: {headers: {x-tail: {values: ['*a.b']}}}}}
        - {match: {request: {headers: {x-both: {values: ['a.b*c.d', 'a+*z'], notValues: ['a.b*x']}}}}}
        - {allowedClients: [{requestIdentityMatcher: {requestPrincipals: ['https://a.b/*']}}]}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: AccessPolicy
  metadata: {name: door, namespace: shop, @}
  spec: {applyToWorkloads: [{}], config: {authzList: [{match: {request: {headers: {x-door: {notValues: ['a.b*']}}}}}]}}
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: claims, namespace: shop, @}
  spec:
    applyToRoutes: [{route: {labels: {case: headers}}}]
    config: {providers: {a: {issuer: https://a.b, local: {inline: $A}}, x: {issuer: https://axb, local: {inline: $X}}}, claims: [{key: org, values: ['a.b*', '*c.d', 'e.f*g.h']}]}
";
    let (a, x) = (Issuer::ec("https://a.b")?, Issuer::ec("https://axb")?);
    let quoted = |issuer: &Issuer| json!(issuer.jwks()).to_string();
    let policies = POLICIES.replace("$A", &quoted(&a)).replace("$X", &quoted(&x));
    let mut world = Delegated::start(&format!("{WORLD}{policies}")).await?;
    let get = |path: &str| request("GET", path);
    let with = |name: &str, value: &str| get("/other").header(name, value);
    let bearing = |issuer: &Issuer, org: &str| {
        let token = issuer.token(&json!({"org": org}))?;
        Ok::<_, anyhow::Error>(get("/headers").header("authorization", &format!("Bearer {token}")))
    };
    let (passes, refused) = ((200, 1), (403, 0));
    for (request, expected) in [
        (get("/other"), refused),
        (get("/v1.0/x"), passes),
        (get("/v1x0/x"), refused),
        (get("/a.css"), passes),
        (get("/axcss"), refused),
        (get("/v[1]"), passes),
        (get("/v1"), refused),
        (with("x-head", "a.bc"), passes),
        (with("x-head", "axbc"), refused),
        (with("x-tail", "ca.b"), passes),
        (with("x-tail", "caxb"), refused),
        (with("x-both", "a.b-c.d"), passes),
        (with("x-both", "axb-c.d"), refused),
        (with("x-both", "a.b-cxd"), refused),
        (with("x-both", "a+-z"), passes),
        (with("x-both", "aa-z"), refused),
        (with("x-both", "a.b-c.d").header("x-both", "a.b-x"), refused),
        (with("x-both", "a.b-c.d").header("x-door", "axb"), passes),
        (with("x-both", "a.b-c.d").header("x-door", "a.bc"), refused),
        // Issuers end where `/` begins, and are text as well.
        (bearing(&a, "a.bc")?, passes),
        (bearing(&x, "a.bc")?, refused),
        (bearing(&a, "axbc")?, refused),
        (bearing(&a, "xc.d")?, passes),
        (bearing(&a, "xcxd")?, refused),
        (bearing(&a, "e.f-g.h")?, passes),
        (bearing(&a, "exf-g.h")?, refused),
    ] {
        assert_eq!(world.outcome(&request).await?, expected, "{request:?}");
    }
    Ok(())
}

/// What a policy selects is what its owner may protect or open: one of a workspace to which nobody delegated changes nothing,
/// however old it is and whatever it selects.
#[tokio::test]
async fn policies_of_strangers_open_nothing_and_close_nothing() -> anyhow::Result<()> {
    const STRANGER: &str = r"
- apiVersion: admin.gloo.solo.io/v2
  kind: Workspace
  metadata: {name: stranger, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
  spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: stranger}]}]}
- {apiVersion: admin.gloo.solo.io/v2, kind: WorkspaceSettings, metadata: {name: stranger, namespace: stranger, @}, spec: {importFrom: [{workspaces: [{name: '*'}]}], exportTo: [{workspaces: [{name: '*'}]}]}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: CSRFPolicy, metadata: &old {name: old, namespace: stranger, creationTimestamp: '2001-01-01T00:00:00Z', @}, spec: {applyToRoutes: [{route: {}}], config: {shadowEnabled: true}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: CORSPolicy, metadata: *old, spec: {applyToRoutes: [{route: {}}], config: {allowOrigins: [{prefix: ''}, {prefix: http}]}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: *old, spec: {applyToRoutes: [{route: {}}], config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}}}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: ExtAuthPolicy, metadata: *old, spec: {applyToRoutes: [{route: {}}], applyToDestinations: [{}], config: {glooAuth: {configs: [{basicAuth: {encryption: {sha1: {}}, userList: {users: {alice: {hashedPassword: c37424cc626cc035d6e4e2991c0270d0510b8df3}}}}}]}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: AccessPolicy, metadata: *old, spec: {applyToDestinations: [{}], config: {authzList: [{}]}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: AccessPolicy, metadata: {name: door, namespace: stranger, @}, spec: {applyToWorkloads: [{}], config: {authzList: [{}]}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: WAFPolicy, metadata: *old, spec: {applyToRoutes: [{route: {}}], config: {disableCoreRuleSet: true}}}
- {apiVersion: trafficcontrol.policy.gloo.solo.io/v2, kind: HeaderManipulationPolicy, metadata: *old, spec: {applyToRoutes: [{route: {}}], config: {appendRequestHeaders: {x-stranger: '1'}}}}
";
    let stranger = STRANGER.replace("$KEYS", &json!(Issuer::ec("https://a")?.jwks()).to_string());
    let mut world = Delegated::start(&format!("{WORLD}{stranger}")).await?;
    for (request, expected) in [
        (request("POST", "/admin").header("origin", "https://evil.test"), (403, 0)),
        (request("POST", "/admin").header("origin", "https://a.good.test"), (200, 1)),
        (request("GET", "/closed"), (500, 0)),
        (request("GET", "/other"), (200, 1)),
    ] {
        assert_eq!(world.outcome(&request).await?, expected, "{request:?}");
    }
    let response = world.send(&request("GET", "/other").header("origin", "https://evil.test")).await?;
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(echo(&response)?.headers.get("x-stranger"), None);
    for kind in ["CSRFPolicy", "CORSPolicy", "JWTPolicy", "ExtAuthPolicy", "WAFPolicy", "HeaderManipulationPolicy"] {
        assert_eq!(world.verdict(&format!("{kind}/stranger/old@cluster-1"))?.2, 0, "{kind}");
    }
    Ok(())
}

/// R37: gateways ask no server for a policy whose workspace may not use it, whichever way it is written. What `shop` shares
/// with `team` are tables.
#[tokio::test]
async fn no_address_leads_a_policy_to_what_others_hide() -> anyhow::Result<()> {
    const HIDDEN: &str = r"
- {apiVersion: v1, kind: Service, metadata: {name: hidden, namespace: shop, @}, spec: {selector: {app: hidden}, clusterIP: 10.96.0.7, ports: [{name: grpc, port: 9000}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: hidden-0, namespace: shop, labels: {app: hidden}, @}, status: {podIP: 10.1.9.9}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: ExtAuthPolicy, metadata: {name: asks, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: headers}}}], config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: '$GRPC', connectionTimeout: 9s}}}]}}}}
";
    let server = Authorizer::start(([127, 0, 0, 1], 0).into(), |_| Verdict::pass()).await?;
    let hidden = HIDDEN.replace("$GRPC", &server.address.to_string());
    let mut world = Delegated::start(&format!("{WORLD}{hidden}")).await?;
    let asked = request("GET", "/headers");
    world.answers(&asked, 200).await?;
    let own = server.address.ip().to_string();
    let edits: [(&str, &str, &str); 2] = [
        ("Service/shop/hidden@cluster-1", "/spec/clusterIP", "10.96.0.7"),
        ("Pod/shop/hidden-0@cluster-1", "/status/podIP", "10.1.9.9"),
    ];
    for (object, field, other) in edits {
        let set = |object: &mut serde_json::Value, address: &str| {
            *object.pointer_mut(field).expect("the address") = json!(address);
        };
        world.mesh.edit(object, |object| set(object, &own))?;
        world.answers(&asked, 500).await?;
        let before = server.count();
        assert_eq!(world.outcome(&asked).await?, (500, 0), "{object}");
        assert_eq!(server.count(), before, "{object}: nobody is asked");
        let (approval, message, _) = world.verdict("ExtAuthPolicy/team/asks@cluster-1")?;
        assert_eq!(approval, "INVALID", "{message}");
        assert!(message.contains("that is not shared with workspace `team`"), "{message}");
        world.mesh.edit(object, |object| set(object, other))?;
        world.answers(&asked, 200).await?;
        assert!(server.count() > before, "{object}: and then it is");
    }
    Ok(())
}

/// `%…%` that is no command of Envoy stays text, and a broken one costs nobody else's routes.
#[tokio::test]
async fn a_value_of_a_header_leads_nowhere_else() -> anyhow::Result<()> {
    let mut world = Delegated::start(WORLD).await?;
    let response = world.send(&request("GET", "/headers").header("x-secret", "s3cret")).await?;
    let upstream = echo(&response)?;
    assert_eq!(upstream.headers.get("x-a").map(String::as_str), Some("%REQ(x-secret"));
    assert_eq!(response.header("x-b").as_deref(), Some("50% %FILTER_STATE"));
    let policy = "HeaderManipulationPolicy/shop/headers@cluster-1";
    for value in ["a\r\nx-injected: 1", "a\nb", "a\u{0}b"] {
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = json!({"appendRequestHeaders": {"x-a": value}}))?;
        let (approval, message, _) = world.verdict(policy)?;
        assert_eq!(approval, "INVALID", "{value:?}: {message}");
    }
    // Names end in no other header either.
    for name in ["x-a\r\nx-injected", "x a", "", ":path", "x-a: b"] {
        world.mesh.edit(policy, |policy| policy["spec"]["config"] = json!({"appendRequestHeaders": {name: "1"}}))?;
        assert_ne!(world.verdict(policy)?.0, "ACCEPTED", "{name:?}");
        let response = world.send(&request("GET", "/headers")).await?;
        assert_eq!(echo(&response)?.headers.get("x-injected"), None, "{name:?}");
    }
    Ok(())
}

/// A host is the same with a port behind it, as it is where the route is chosen.
#[tokio::test]
async fn a_port_behind_the_host_leads_around_nothing() -> anyhow::Result<()> {
    let policy = |rule: &str| {
        format!(
            "{WORLD}- {{apiVersion: security.policy.gloo.solo.io/v2, kind: AccessPolicy, metadata: {{name: hosts, \
             namespace: team, @}}, spec: {{applyToDestinations: [{{selector: {{name: stock}}}}], config: {{authzList: \
             [{{match: {{request: {{headers: {{Host: {rule}}}}}}}}}]}}}}}}\n"
        )
    };
    for (rule, expected) in [
        ("{notValues: [www.example.com]}", (403, 0)),
        ("{notValues: ['*.example.com']}", (403, 0)),
        ("{values: [www.example.com]}", (200, 1)),
    ] {
        let mut world = Delegated::start(&policy(rule)).await?;
        let address = world.mesh.entrance("shop/www")?.1;
        for host in ["www.example.com", "WWW.example.com", "www.example.com:80", "www.EXAMPLE.com:8443"] {
            let before = world.received();
            let status = raw(address, &["GET / HTTP/1.1", &format!("Host: {host}")]).await?;
            assert_eq!((status, world.received() - before), expected, "{rule} {host}");
        }
        let asked = Request { host: "www.example.com:81".to_owned(), ..request("GET", "/") };
        assert_eq!(world.outcome(&asked).await?, expected, "{rule}");
    }
    Ok(())
}
