//! Methods that Envoy has by itself: passwords, API keys, access tokens, and combinations of them. No server is asked.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};

use super::{World, nobody};
use crate::support::delegated::{echo, request};
use crate::support::http::Request;
use crate::support::issuer::{Issuer, KeyServer, base64, now};
use crate::support::manifests::{self, Manifest};

/// The key in [`SECRETS`] that is good.
const KEY: &str = "correct-horse-battery";

/// Keys of clients; the twin and the foreign one are younger, or another workspace's.
const SECRETS: &str = r"
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: alice, namespace: team, labels: {keys: shop}, creationTimestamp: '2024-01-01T00:00:00Z', @}
  stringData: {api-key: correct-horse-battery, user-id: alice}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: twin, namespace: team, labels: {keys: shop}, creationTimestamp: '2024-02-01T00:00:00Z', @}
  stringData: {api-key: correct-horse-battery, user-id: twin}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: unnamed, namespace: team, labels: {keys: shop}, @}
  stringData: {api-key: key-without-a-user}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: bob, namespace: team, @}
  stringData: {api-key: key-by-name, user-id: bob}
- apiVersion: v1
  kind: Secret
  type: extauth.solo.io/apikey
  metadata: {name: foreign, namespace: shop, labels: {keys: shop}, @}
  stringData: {api-key: key-of-others, user-id: foreign}
";

/// A policy of `team` for routes with a label.
fn policy(name: &str, config: &Value) -> String {
    let object = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ExtAuthPolicy",
        "metadata": {"name": name, "namespace": "team", "annotations": {"cluster.solo.io/cluster": "cluster-1"}},
        "spec": {"applyToRoutes": [{"route": {"labels": {"case": name}}}], "config": {"glooAuth": config}},
    });
    // JSON is YAML too.
    format!("- {object}\n")
}

fn sha1(password: &str) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn basic() -> Value {
    let users = json!({
        "alice": {"hashedPassword": hex(&sha1("wonder"))},
        "bob": {"hashedPassword": base64(sha1("built"))},
    });
    json!({"realm": "shop", "encryption": {"sha1": {}}, "userList": {"users": users}})
}

fn key() -> Value {
    json!({
        "headerName": "X-Key",
        "k8sSecretApikeyStorage": {"labelSelector": {"keys": "shop"}, "apiKeySecretRefs": [{"name": "bob"}]},
        "headersFromMetadataEntry": {"x-user-id": {"name": "user-id", "required": true}},
    })
}

fn token(issuer: &Issuer) -> Value {
    let keys = json!({"inlineString": issuer.jwks()});
    json!({"accessTokenValidation": {
        "jwt": {"localJwks": keys, "issuer": issuer.name}, "requiredScopes": {"scope": ["read"]},
    }})
}

fn with_password(path: &str, user: &str, password: &str) -> Request {
    let credentials = base64(format!("{user}:{password}"));
    request("GET", path).header("authorization", &format!("Basic {credentials}"))
}

fn with_key(path: &str, key: &str) -> Request {
    request("GET", path).header("x-key", key)
}

fn with_token(path: &str, token: &str) -> Request {
    request("GET", path).header("authorization", &format!("Bearer {token}"))
}

/// That nothing which a command or a log tells has one of these texts in it.
fn is_silent_about(world: &World, path: &str, secrets: &[&str]) -> anyhow::Result<()> {
    let mesh = &world.team.mesh;
    let (report, _) = crate::support::chancery::check(mesh.directory(), &mesh.settings)?;
    let told = [report.to_string(), world.team.explained(&nobody(path))?.to_string(), mesh.chancery.log()?];
    for secret in secrets {
        assert!(told.iter().all(|text| !text.contains(secret)), "a secret is told");
    }
    Ok(())
}

#[tokio::test]
async fn passwords_are_compared_by_the_gateway() -> anyhow::Result<()> {
    let mut world = World::start(&policy("custom", &json!({"configs": [{"basicAuth": basic()}]}))).await?;
    world.team.answers(&nobody("/custom"), 401).await?;
    world
        .judges(&[
            ("without the policy", nobody("/plain"), (200, 1, 0)),
            ("nobody", nobody("/custom"), (401, 0, 0)),
            ("a hash in hexadecimal", with_password("/custom", "alice", "wonder"), (200, 1, 0)),
            ("a hash in base64", with_password("/custom", "bob", "built"), (200, 1, 0)),
            ("another's password", with_password("/custom", "alice", "built"), (401, 0, 0)),
            ("no password", with_password("/custom", "alice", ""), (401, 0, 0)),
            ("the hash as password", with_password("/custom", "alice", &hex(&sha1("wonder"))), (401, 0, 0)),
            ("a stranger", with_password("/custom", "mallory", "wonder"), (401, 0, 0)),
            ("another scheme", with_token("/custom", &base64("alice:wonder")), (401, 0, 0)),
            (
                "two, the second good",
                nobody("/custom")
                    .header("authorization", "Basic eDp5")
                    .header("authorization", &format!("Basic {}", base64("alice:wonder"))),
                (401, 0, 0),
            ),
        ])
        .await?;
    let refused = world.send(&nobody("/custom")).await?;
    assert_eq!(refused.header("www-authenticate").as_deref(), Some("Basic realm=\"shop\""));
    is_silent_about(&world, "/custom", &[&hex(&sha1("wonder")), &base64(sha1("wonder")), &base64(sha1("built"))])?;
    for (users, field) in [
        (json!({}), "userList.users"),
        (json!({"a:b": {"hashedPassword": hex(&sha1("x"))}}), "userList.users.a:b"),
        (json!({"alice": {"hashedPassword": "wonder"}}), "userList.users.alice.hashedPassword"),
    ] {
        let policy = "ExtAuthPolicy/team/custom@cluster-1";
        world.team.mesh.edit(policy, |policy| {
            policy["spec"]["config"]["glooAuth"]["configs"][0]["basicAuth"]["userList"]["users"] = users.clone();
        })?;
        world.team.answers(&with_password("/custom", "alice", "wonder"), 500).await?;
        let blamed = world.team.blamed_field(policy)?;
        assert_eq!(blamed, format!("spec.config.glooAuth.configs[0].basicAuth.{field}"));
        world.team.mesh.edit(policy, |policy| {
            policy["spec"]["config"]["glooAuth"]["configs"][0]["basicAuth"] = basic();
        })?;
        world.team.answers(&with_password("/custom", "alice", "wonder"), 200).await?;
    }
    Ok(())
}

#[tokio::test]
async fn api_keys_are_those_of_secrets() -> anyhow::Result<()> {
    let policies = policy("custom", &json!({"configs": [{"apiKeyAuth": key()}]}));
    let mut world = World::start(&format!("{SECRETS}{policies}")).await?;
    world.team.answers(&nobody("/custom"), 401).await?;
    world
        .judges(&[
            ("without the policy", nobody("/plain"), (200, 1, 0)),
            ("nobody", nobody("/custom"), (401, 0, 0)),
            ("a wrong key", with_key("/custom", "wrong"), (401, 0, 0)),
            ("a part of the key", with_key("/custom", &KEY[..8]), (401, 0, 0)),
            ("by label", with_key("/custom", KEY), (200, 1, 0)),
            ("by name", with_key("/custom", "key-by-name"), (200, 1, 0)),
            ("without what is required of it", with_key("/custom", "key-without-a-user"), (401, 0, 0)),
            ("another workspace's", with_key("/custom", "key-of-others"), (401, 0, 0)),
            ("in another header", request("GET", "/custom").header("api-key", KEY), (401, 0, 0)),
            ("a wrong key and the key", with_key("/custom", "wrong").header("X-KEY", KEY), (401, 0, 0)),
            ("an empty one and the key", with_key("/custom", "").header("x-key", KEY), (401, 0, 0)),
            ("parts of the key", with_key("/custom", &KEY[..8]).header("x-key", &KEY[8..]), (401, 0, 0)),
        ])
        .await?;
    let sent = with_key("/custom", KEY).header("x-user-id", "mallory").header("x-chancery-api-client", "mallory");
    let seen = echo(&world.send(&sent).await?)?;
    assert_eq!(seen.headers.get("x-user-id").map(String::as_str), Some("alice"), "of the older of two Secrets");
    assert!(!format!("{:?}", seen.headers).contains("mallory"), "{:?}", seen.headers);
    assert_eq!(seen.headers.get("x-chancery-api-client"), None);
    // Of a header that is sent twice the first line counts, for who it is as well.
    for (first, second, user) in [(KEY, "wrong", "alice"), (KEY, "key-by-name", "alice"), ("key-by-name", KEY, "bob")] {
        let seen = echo(&world.send(&with_key("/custom", first).header("x-key", second)).await?)?;
        assert_eq!(seen.headers.get("x-user-id").map(String::as_str), Some(user), "{first} before {second}");
    }
    let (approval, message, _) = world.team.verdict("ExtAuthPolicy/team/custom@cluster-1")?;
    assert_eq!(approval, "WARNING", "{message}");
    assert!(message.contains("Secret/team/twin@cluster-1"), "{message}");
    is_silent_about(&world, "/custom", &[KEY, "key-by-name", "key-without-a-user", "key-of-others"])?;

    // Keys come and go with their Secrets.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "extauth.solo.io/apikey",
        "metadata": {"name": "carol", "namespace": "team", "labels": {"keys": "shop"}},
        "stringData": {"api-key": "a-new-key", "user-id": "carol"},
    });
    let added =
        manifests::write(world.team.mesh.directory(), &[Manifest { cluster: "cluster-1".to_owned(), object: secret }])?;
    world.team.answers(&with_key("/custom", "a-new-key"), 200).await?;
    for file in added {
        std::fs::remove_file(file)?;
    }
    world.team.answers(&with_key("/custom", "a-new-key"), 401).await?;

    // What stands in a Secret reaches the script that sets headers as text, whatever it is.
    for (number, text) in
        ["\"] os.exit() --", "]] os.exit()", "%s%n%REQ(:path)%", r"\", "'..\"..'"].into_iter().enumerate()
    {
        let (name, key) = (format!("odd-{number}"), format!("odd-key-{number}"));
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "extauth.solo.io/apikey",
            "metadata": {"name": name, "namespace": "team", "labels": {"keys": "shop"}},
            "stringData": {"api-key": key, "user-id": text},
        });
        let secret = Manifest { cluster: "cluster-1".to_owned(), object: secret };
        manifests::write(world.team.mesh.directory(), &[secret])?;
        world.team.answers(&with_key("/custom", &key), 200).await?;
        let seen = echo(&world.send(&with_key("/custom", &key)).await?)?;
        assert_eq!(seen.headers.get("x-user-id").map(String::as_str), Some(text));
    }
    world.judges(&[("the others stay", with_key("/custom", KEY), (200, 1, 0))]).await?;

    // A Secret of another type is no key: the policy says so, and closes.
    world.team.mesh.edit("Secret/team/bob@cluster-1", |secret| secret["type"] = json!("Opaque"))?;
    world.team.answers(&with_key("/custom", KEY), 500).await?;
    let (approval, message, _) = world.team.verdict("ExtAuthPolicy/team/custom@cluster-1")?;
    assert_eq!(approval, "INVALID", "{message}");
    assert!(message.contains("Secret/team/bob@cluster-1"), "{message}");
    Ok(())
}

/// With keys in the policy, and with those of a server.
#[tokio::test]
async fn access_tokens_are_verified_with_their_scopes() -> anyhow::Result<()> {
    let issuer = Issuer::ec("https://a")?;
    let server = KeyServer::start(issuer.jwks()).await?;
    let mut remote = token(&issuer);
    remote["accessTokenValidation"]["jwt"] =
        json!({"remoteJwks": {"url": format!("http://{}/keys", server.address)}, "issuer": issuer.name});
    let policies = [("custom", token(&issuer)), ("http", remote)];
    let policies = policies.map(|(name, tokens)| policy(name, &json!({"configs": [{"oauth2": tokens}]})));
    let mut world = World::start(&policies.concat()).await?;
    let forged = Issuer::ec("https://a")?.token(&json!({"scope": "read"}))?;
    world.judges(&[("without the policy", nobody("/plain"), (200, 1, 0))]).await?;
    for path in ["/custom", "/http"] {
        let of = |claims: Value| Ok::<_, anyhow::Error>(with_token(path, &issuer.token(&claims)?));
        world.team.answers(&of(json!({"scope": "read"}))?, 200).await?;
        world
            .judges(&[
                ("nobody", nobody(path), (401, 0, 0)),
                ("a good token", of(json!({"scope": "write read"}))?, (200, 1, 0)),
                ("without the scope", of(json!({"scope": "write"}))?, (403, 0, 0)),
                ("without any scope", of(json!({}))?, (403, 0, 0)),
                ("expired", of(json!({"scope": "read", "exp": now() - 3600}))?, (401, 0, 0)),
                ("not valid yet", of(json!({"scope": "read", "nbf": now() + 3600}))?, (401, 0, 0)),
                ("another issuer", of(json!({"scope": "read", "iss": "https://b"}))?, (401, 0, 0)),
                ("another key", with_token(path, &forged), (401, 0, 0)),
                ("unsigned", with_token(path, &issuer.unsigned()), (401, 0, 0)),
            ])
            .await?;
    }
    assert!(server.requests() > 0, "the keys came from their server");
    const POLICY: &str = "ExtAuthPolicy/team/custom@cluster-1";
    let good = with_token("/custom", &issuer.token(&json!({"scope": "read"}))?);
    for (jwt, field) in [
        (json!({"issuer": "https://a"}), "jwt"),
        (json!({"localJwks": {"inlineString": "no keys"}}), "jwt.localJwks.inlineString"),
        (json!({"remoteJwks": {"url": "nowhere"}}), "jwt.remoteJwks.url"),
    ] {
        world.team.mesh.edit(POLICY, |policy| {
            policy["spec"]["config"]["glooAuth"]["configs"][0]["oauth2"]["accessTokenValidation"]["jwt"] = jwt.clone();
        })?;
        world.team.answers(&good, 500).await?;
        world.judges(&[("closed", good.clone(), (500, 0, 0))]).await?;
        let blamed = world.team.blamed_field(POLICY)?;
        assert_eq!(blamed, format!("spec.config.glooAuth.configs[0].oauth2.accessTokenValidation.{field}"));
        world.team.mesh.edit(POLICY, |policy| {
            policy["spec"]["config"]["glooAuth"]["configs"][0]["oauth2"] = token(&issuer);
        })?;
        world.team.answers(&good, 200).await?;
    }
    Ok(())
}

/// `booleanExpr`, with the method whose failure is answered in its own way.
#[tokio::test]
async fn methods_are_combined_as_the_expression_says() -> anyhow::Result<()> {
    let issuer = Issuer::ec("https://a")?;
    let configs = json!([
        {"name": "password", "basicAuth": basic()},
        {"name": "key", "apiKeyAuth": key()},
        {"name": "token", "oauth2": token(&issuer)},
    ]);
    let rule = |text: &str| json!({"configs": configs, "booleanExpr": text});
    let policies = [
        policy("custom", &rule("password || key || token")),
        policy("http", &rule("token && (password || key)")),
        policy("more", &rule("key && !password")),
    ]
    .concat();
    let mut world = World::start(&format!("{SECRETS}{policies}")).await?;
    world.team.answers(&nobody("/custom"), 403).await?;
    let good = issuer.token(&json!({"scope": "read"}))?;
    let weak = issuer.token(&json!({"scope": "write"}))?;
    let forged = Issuer::ec("https://a")?.token(&json!({"scope": "read"}))?;
    for (why, request, any, token_and, key_alone) in [
        ("nobody", nobody("/"), 403, 401, 403),
        ("the password", with_password("/", "alice", "wonder"), 200, 401, 403),
        ("the key", with_key("/", KEY), 200, 401, 200),
        ("a wrong key", with_key("/", "wrong"), 403, 401, 403),
        ("the token", with_token("/", &good), 200, 403, 403),
        ("a token without the scope", with_token("/", &weak), 403, 403, 403),
        ("a forged token", with_token("/", &forged), 403, 401, 403),
        ("token and key", with_token("/", &good).header("x-key", KEY), 200, 200, 200),
        ("token and a wrong key", with_token("/", &good).header("x-key", "wrong"), 200, 403, 403),
        ("password and key", with_password("/", "bob", "built").header("x-key", KEY), 200, 401, 403),
        ("wrong keys", with_key("/", "wrong").header("x-key", "other"), 403, 401, 403),
        ("parts of the key", with_key("/", &KEY[..8]).header("x-key", &KEY[8..]), 403, 401, 403),
    ] {
        for (path, status) in [("/custom", any), ("/http", token_and), ("/more", key_alone)] {
            let request = Request { path: path.to_owned(), ..request.clone() };
            let (answered, reached) = world.team.outcome(&request).await?;
            // Who is refused may be told 401 or 403, by the method that looks first.
            let expected = if status == 200 { answered == 200 } else { [401, 403].contains(&answered) };
            assert!(expected, "{why} at {path}: {answered}, not {status}");
            assert_eq!(reached, u64::from(status == 200), "{why} at {path}");
        }
    }
    Ok(())
}

/// What a JWTPolicy on the same routes found counts as a method; without such a policy nothing could be found.
#[tokio::test]
async fn the_finding_of_a_jwt_policy_is_a_method() -> anyhow::Result<()> {
    const JWT: &str = r"
- apiVersion: security.policy.gloo.solo.io/v2
  kind: JWTPolicy
  metadata: {name: custom, namespace: team, @}
  spec:
    applyToRoutes: [{route: {labels: {case: custom}}}]
    config: {providers: {a: {issuer: https://a, local: {inline: $KEYS}}}, validationPolicy: ALLOW_MISSING_OR_FAILED}
";
    let issuer = Issuer::ec("https://a")?;
    let configs = json!([{"name": "token", "jwt": {}}, {"name": "key", "apiKeyAuth": key()}]);
    let either = json!({"configs": configs, "booleanExpr": "token || key"});
    let jwt = JWT.replace("$KEYS", &json!(issuer.jwks()).to_string());
    let objects = [SECRETS.to_owned(), jwt, policy("custom", &either), policy("more", &either)].concat();
    let mut world = World::start(&objects).await?;
    world.team.answers(&nobody("/custom"), 403).await?;
    let forged = Issuer::ec("https://a")?.token(&json!({}))?;
    world
        .judges(&[
            ("nobody", nobody("/custom"), (403, 0, 0)),
            ("the token", with_token("/custom", &issuer.token(&json!({}))?), (200, 1, 0)),
            ("a forged one", with_token("/custom", &forged), (403, 0, 0)),
            ("the key", with_key("/custom", KEY), (200, 1, 0)),
            ("a forged token beside the key", with_token("/custom", &forged).header("x-key", KEY), (200, 1, 0)),
        ])
        .await?;
    world.team.answers(&with_key("/more", KEY), 500).await?;
    world.judges(&[("no JWTPolicy", nobody("/more"), (500, 0, 0))]).await
}
