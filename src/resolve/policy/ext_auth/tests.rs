use std::time::Duration;

use super::super::tests::{Checked, checked, faults};
use super::*;
use crate::crd::Spec;
use crate::ir::policy::ext_auth::{ApiKey, AuthServer, Method, Protocol};
use crate::ir::policy::jwt::Keys;
use crate::model::SecretBytes;

/// SHA-1 of `secret`, in both forms.
const HEX: &str = "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4";
const BASE64: &str = "5en6G6MezRroT3XKqkdPOmY/BfQ=";

fn spec(text: &str) -> Checked<ExtAuth> {
    checked(Kind::ExtAuthPolicy, text, |id, spec, remarks| match spec {
        Spec::ExtAuthPolicy(policy) => lower(id, policy, remarks),
        other => panic!("{other:?}"),
    })
}

fn policy(config: &str) -> Checked<ExtAuth> {
    spec(&format!("{{config: {config}}}"))
}

fn methods(configs: &str) -> Checked<ExtAuth> {
    policy(&format!("{{glooAuth: {{configs: [{configs}]}}}}"))
}

fn chain(config: &str) -> AuthChain {
    match policy(&format!("{{glooAuth: {config}}}")).valid() {
        ExtAuth::Chain(chain) => chain,
        other => panic!("{other:?}"),
    }
}

/// The only method of a policy.
fn method(config: &str) -> Method {
    chain(&format!("{{configs: [{config}]}}")).methods.remove(0).method
}

#[test]
fn custom_servers_are_named_with_what_they_are_told() {
    let config = "{server: {name: auth, namespace: admin}, customAuth: {contextExtensions: {team: shop}}}";
    let ExtAuth::Custom(custom) = policy(config).valid() else { panic!() };
    assert_eq!(custom.server.unwrap().to_string(), "ExtAuthServer/admin/auth@cluster-1");
    assert_eq!(custom.context["team"], "shop");
    let ExtAuth::Custom(custom) = policy("{customAuth: {}}").valid() else { panic!() };
    assert_eq!(custom.server, None, "the oldest of the workspace");
}

#[test]
fn a_server_beside_built_in_methods_is_ignored() {
    let both = "{server: {name: ext-auth-server}, glooAuth: {configs: [{jwt: {}}]}}";
    let found = policy(both);
    assert_eq!(found.remarks, Vec::<String>::new());
    assert!(matches!(found.valid(), ExtAuth::Chain(_)));
}

#[test]
fn users_of_basic_auth_are_sealed() {
    let config = format!(
        "{{basicAuth: {{realm: shop, encryption: {{sha1: {{}}}}, userList: {{users: {{alice: {{hashedPassword: {HEX}}}, \
         bob: {{hashedPassword: '{BASE64}'}}, carol: {{hashedPassword: '{{SHA}}{BASE64}', salt: ''}}}}}}}}}}"
    );
    let Method::Basic(basic) = method(&config) else { panic!() };
    assert_eq!(basic.realm.as_deref(), Some("shop"));
    let effect = methods(&config).valid();
    let shown = format!("{effect:?}");
    assert!(!shown.contains("alice") && !shown.contains(&HEX[..8]) && !shown.contains(&BASE64[..8]), "{shown}");
    let users = basic.users.get().unwrap();
    let expected: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&HEX[2 * i..2 * i + 2], 16).unwrap()).collect();
    for name in ["alice", "bob", "carol"] {
        assert_eq!(users[name], SecretBytes::new(&expected), "{name}");
    }
}

#[test]
fn only_plain_sha1_can_be_compared() {
    let user = |fields: &str| format!("userList: {{users: {{alice: {{{fields}}}}}}}");
    let hash = format!("hashedPassword: {HEX}");
    for (field, basic) in [
        ("apr", "apr: {users: {alice: {salt: a, hashedPassword: b}}}".to_owned()),
        ("encryption.apr", format!("encryption: {{apr: {{}}}}, {}", user(&hash))),
        (
            "userList.users.alice.salt",
            format!("encryption: {{sha1: {{}}}}, {}", user(&format!("salt: CANARY, {hash}"))),
        ),
    ] {
        let (place, reason) = methods(&format!("{{basicAuth: {{{basic}}}}}")).unsupported();
        assert_eq!(place, format!("spec.config.glooAuth.configs[0].basicAuth.{field}"));
        assert!(reason.contains("basicAuth") && !reason.contains("CANARY"), "{reason}");
    }
    let sha1 = "encryption: {sha1: {}}";
    for (field, basic) in [
        ("", String::new()),
        ("", sha1.to_owned()),
        ("", user(&hash)),
        (".apr", format!("apr: {{}}, {sha1}, {}", user(&hash))),
        (".encryption", format!("encryption: {{}}, {}", user(&hash))),
        (".userList.users", format!("{sha1}, userList: {{}}")),
        (".userList.users.alice.hashedPassword", format!("{sha1}, {}", user(""))),
        (".userList.users.alice.hashedPassword", format!("{sha1}, {}", user("hashedPassword: CANARY"))),
        (".userList.users.alice.hashedPassword", format!("{sha1}, {}", user("hashedPassword: Q0FOQVJZ"))),
        (".userList.users.a:b", format!("{sha1}, userList: {{users: {{'a:b': {{{hash}}}}}}}")),
        (".userList.users[\"a\\nb\"]", format!("{sha1}, userList: {{users: {{\"a\\nb\": {{{hash}}}}}}}")),
    ] {
        let found = methods(&format!("{{basicAuth: {{{basic}}}}}"));
        assert!(!format!("{found:?}").contains("CANARY"), "{found:?}");
        assert_eq!(found.fault(), format!("spec.config.glooAuth.configs[0].basicAuth{field}"), "{basic}");
    }
}

#[test]
fn api_keys_are_found_by_label_and_by_name() {
    let key = |config: &str| match method(&format!("{{apiKeyAuth: {config}}}")) {
        Method::ApiKey(key) => key,
        other => panic!("{other:?}"),
    };
    let found =
        key("{headerName: X-Key, k8sSecretApikeyStorage: {labelSelector: {team: a}, apiKeySecretRefs: [{name: b, \
         namespace: other}, {name: a}]}, headersFromMetadataEntry: {X-User: {name: user, required: true}}, \
         headersFromMetadata: {x-user: {name: old}, x-plan: {name: plan}}}");
    let secret = |namespace: &str, name: &str| ObjectRef::new(Kind::Secret, "cluster-1", namespace, name);
    assert_eq!(found.header, "x-key");
    let named: Vec<ObjectRef> = found.secrets.keys().cloned().collect();
    assert_eq!(named, [secret("other", "b"), secret("shop", "a")]);
    assert_eq!(found.secret_labels, Some([("team".into(), "a".into())].into()));
    assert_eq!((found.headers["x-user"].name.as_str(), found.headers["x-user"].required), ("user", true));
    assert_eq!(found.headers["x-plan"].name, "plan");
    let old = key("{labelSelector: {team: a}}");
    assert_eq!(old.secret_labels, found.secret_labels);
    assert_eq!((old.header.as_str(), old.secrets.len()), ("api-key", 0));
    let both =
        methods("{apiKeyAuth: {labelSelector: {a: b}, k8sSecretApikeyStorage: {apiKeySecretRefs: [{name: a}]}}}");
    assert_eq!(both.remarks, ["spec.config.glooAuth.configs[0].apiKeyAuth.labelSelector"]);
    let ExtAuth::Chain(both) = both.valid() else { panic!() };
    assert!(matches!(&both.methods[0].method, Method::ApiKey(ApiKey { secret_labels: None, .. })));
}

#[test]
fn access_tokens_that_are_jwts_are_checked_with_their_scopes() {
    let config = "{oauth2: {accessTokenValidation: {jwt: {issuer: i, remoteJwks: {url: 'https://a/k', refreshInterval: 1m}}, \
                  requiredScopes: {scope: [b, a]}, cacheTimeout: 1m, dynamicMetadataFromClaims: {a: b}}}}";
    let Method::AccessToken(token) = method(config) else { panic!() };
    assert_eq!(token.issuer.as_deref(), Some("i"));
    assert_eq!(token.scopes.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let Keys::Remote(remote) = token.keys else { panic!() };
    assert_eq!((remote.cache, remote.url.authority.port), (Duration::from_secs(60), 443));
    let field = "spec.config.glooAuth.configs[0].oauth2.accessTokenValidation";
    assert_eq!(
        methods(config).remarks,
        [format!("{field}.cacheTimeout"), format!("{field}.dynamicMetadataFromClaims")]
    );
}

#[test]
fn servers_of_ones_own_are_reached_by_address() {
    let config = "{passThroughAuth: {failureModeAllow: true, grpc: {address: 'auth.shop:9001', connectionTimeout: 1s, \
                  tlsConfig: {}, retryPolicy: {numRetries: 3, retryBackOff: {baseInterval: 100ms, maxInterval: 2s}}}}}";
    let Method::Grpc(server) = method(config) else { panic!() };
    assert_eq!((server.address.host.as_str(), server.address.port), ("auth.shop", 9001));
    assert!(server.tls && server.failure_mode_allow);
    assert_eq!(server.timeout, Duration::from_secs(1));
    let retries = server.retries.unwrap();
    assert_eq!((retries.attempts, retries.base_interval), (3, Duration::from_millis(100)));
    assert_eq!(retries.max_interval, Some(Duration::from_secs(2)));
    let Method::Grpc(server) = method("{passThroughAuth: {grpc: {address: 'a:1', retryPolicy: {}}}}") else { panic!() };
    assert_eq!((server.tls, server.failure_mode_allow, server.timeout), (false, false, Duration::from_secs(5)));
    let retries = server.retries.unwrap();
    assert_eq!((retries.attempts, retries.base_interval, retries.max_interval), (1, Duration::from_secs(1), None));
    let config = "{passThroughAuth: {http: {url: 'http://auth/check', request: {allowedHeaders: [X-A], headersToAdd: {X-B: c}}, \
                  response: {allowedUpstreamHeaders: [X-C], allowedUpstreamHeadersToOverwrite: [X-D], \
                  allowedClientHeadersOnDenied: [X-E]}}}}";
    let Method::Http(server) = method(config) else { panic!() };
    assert_eq!((server.url.path.as_str(), server.added_headers["x-b"].as_str()), ("/check", "c"));
    let sets = [&server.request_headers, &server.upstream_append, &server.upstream_overwrite, &server.client_on_denied];
    let names: Vec<&str> = sets.iter().flat_map(|names| names.iter()).map(Name::as_str).collect();
    assert_eq!(names, ["x-a", "x-c", "x-d", "x-e"]);
    assert_eq!(methods(config).remarks, ["spec.config.glooAuth.configs[0].passThroughAuth.http"]);
}

#[test]
fn methods_that_stock_envoy_does_not_have_are_named() {
    for (field, config) in [
        ("oauth", "{oauth: {clientId: a}}"),
        ("oauth2.oidcAuthorizationCode", "{oauth2: {oidcAuthorizationCode: {appUrl: a}}}"),
        ("oauth2.oauth2", "{oauth2: {oauth2: {clientId: a}}}"),
        ("oauth2.accessTokenValidation.introspection", "{oauth2: {accessTokenValidation: {introspection: {}}}}"),
        ("oauth2.accessTokenValidation.introspectionUrl", "{oauth2: {accessTokenValidation: {introspectionUrl: a}}}"),
        ("oauth2.accessTokenValidation.userinfoUrl", "{oauth2: {accessTokenValidation: {userinfoUrl: a, jwt: {}}}}"),
        ("pluginAuth", "{pluginAuth: {name: a}}"),
        ("opaAuth", "{opaAuth: {query: a}}"),
        ("opaServerAuth", "{opaServerAuth: {package: a}}"),
        ("ldap", "{ldap: {address: a}}"),
        ("hmacAuth", "{hmacAuth: {}}"),
        ("apiKeyAuth.aerospikeApikeyStorage", "{apiKeyAuth: {aerospikeApikeyStorage: {hostname: a}}}"),
        ("passThroughAuth.config", "{passThroughAuth: {grpc: {address: 'a:1'}, config: {a: b}}}"),
        (
            "passThroughAuth.http.request.passThroughBody",
            "{passThroughAuth: {http: {url: 'http://a', request: {passThroughBody: true}}}}",
        ),
        (
            "passThroughAuth.http.request.passThroughState",
            "{passThroughAuth: {http: {url: 'http://a', request: {passThroughState: true}}}}",
        ),
        (
            "passThroughAuth.http.response.readStateFromResponse",
            "{passThroughAuth: {http: {url: 'http://a', response: {readStateFromResponse: true}}}}",
        ),
    ] {
        let (place, reason) = methods(&format!("{{jwt: {{}}}}, {config}")).unsupported();
        assert_eq!(place, format!("spec.config.glooAuth.configs[1].{field}"), "{config}");
        let last = field.rsplit('.').next().unwrap();
        assert!(reason.contains(last) && reason.contains("not supported"), "{reason}");
    }
}

#[test]
fn without_an_expression_all_must_pass_in_order() {
    let found =
        chain("{configs: [{name: b, jwt: {}}, {passThroughAuth: {grpc: {address: 'a:1'}}}], failOnRedirect: true}");
    let names: Vec<&str> = found.methods.iter().map(|method| method.name.as_str()).collect();
    assert_eq!(names, ["b", "config_1"]);
    assert_eq!((found.mandatory, found.rule, found.fail_on_redirect), (vec![0, 1], None, true));
}

#[test]
fn expressions_fall_into_what_must_pass_and_a_rule() {
    use AuthRule::{All, Any, Method as One, Not};
    let not = |rule| Not(Box::new(rule));
    let configs = "{name: a, jwt: {}}, {name: b, jwt: {}}, {name: c, jwt: {}}, {name: s, passThroughAuth: {grpc: {address: 'a:1'}}}";
    let read = |expression: &str| {
        let found = chain(&format!("{{configs: [{configs}], booleanExpr: '{expression}'}}"));
        let names: Vec<String> = found.methods.iter().map(|method| method.name.to_string()).collect();
        (names.join(""), found.mandatory, found.rule)
    };
    for (expression, names, mandatory, rule) in [
        ("a && b && c && s", "abcs", vec![0, 1, 2, 3], None),
        ("s&&a", "as", vec![0, 1], None),
        ("a || b", "ab", vec![], Some(Any(vec![One(0), One(1)]))),
        ("s && (b || c)", "bcs", vec![2], Some(Any(vec![One(0), One(1)]))),
        ("a || b && !c", "abc", vec![], Some(Any(vec![One(0), All(vec![One(1), not(One(2))])]))),
        ("(a || b) && (b || c)", "abc", vec![], Some(All(vec![Any(vec![One(0), One(1)]), Any(vec![One(1), One(2)])]))),
        ("!!a", "a", vec![0], None),
        ("!(a || b)", "ab", vec![], Some(not(Any(vec![One(0), One(1)])))),
        ("a && a", "a", vec![0], None),
        ("((a) || ((b)))", "ab", vec![], Some(Any(vec![One(0), One(1)]))),
    ] {
        assert_eq!(read(expression), (names.to_owned(), mandatory, rule), "{expression}");
    }
    let unused = policy(&format!("{{glooAuth: {{configs: [{configs}], booleanExpr: a && b && c}}}}"));
    assert_eq!(unused.remarks, ["spec.config.glooAuth.booleanExpr"]);
}

#[test]
fn servers_stand_below_no_or_and_no_not() {
    let configs = "{name: a, jwt: {}}, {name: s, passThroughAuth: {grpc: {address: 'a:1'}}}";
    for expression in ["a || s", "!s", "a && (a || s)", "!(a && s)"] {
        let found = policy(&format!("{{glooAuth: {{configs: [{configs}], booleanExpr: '{expression}'}}}}"));
        let (field, reason) = found.unsupported();
        assert_eq!(field, "spec.config.glooAuth.booleanExpr");
        assert!(reason.contains("`s`"), "{reason}");
    }
}

#[test]
fn expressions_that_cannot_be_read() {
    for expression in [
        "b",
        "a &&",
        "&& a",
        "a b",
        "a & a",
        "a | a",
        "(a",
        "a)",
        "()",
        "!",
        "a && !",
        "a || || a",
        "a,a",
        "!!!",
        "a && (a || b)",
    ] {
        let found =
            policy(&format!("{{glooAuth: {{configs: [{{name: a, jwt: {{}}}}], booleanExpr: '{expression}'}}}}"));
        assert_eq!(found.fault(), "spec.config.glooAuth.booleanExpr", "{expression}");
    }
    for deep in [format!("{}a{}", "(".repeat(100), ")".repeat(100)), format!("{}a", "!".repeat(5000))] {
        let found = policy(&format!("{{glooAuth: {{configs: [{{name: a, jwt: {{}}}}], booleanExpr: '{deep}'}}}}"));
        assert_eq!(found.fault(), "spec.config.glooAuth.booleanExpr");
    }
}

#[test]
fn r130_bad_input_makes_the_policy_invalid() {
    faults(
        &[
            ("spec.config", "{}"),
            ("spec.config", "{config: {}}"),
            ("spec.config.disable", "{config: {disable: false}}"),
            ("spec.config.disable", "{config: {disable: true}}"),
            ("spec.config.server.name", "{config: {server: {}, customAuth: {}}}"),
            ("spec.config.glooAuth.configs", "{config: {glooAuth: {}}}"),
            ("spec.config.glooAuth.configs[0]", "{config: {glooAuth: {configs: [{}]}}}"),
            ("spec.config.glooAuth.configs[0]", "{config: {glooAuth: {configs: [{name: a}]}}}"),
            (
                "spec.config.glooAuth.configs[1].name",
                "{config: {glooAuth: {configs: [{name: config_1, jwt: {}}, {jwt: {}}]}}}",
            ),
            (
                "spec.applyToDestinations[0].kind",
                "{applyToDestinations: [{kind: VIRTUAL_DESTINATION}], config: {customAuth: {}}}",
            ),
        ],
        spec,
    );
    // Two ways at once.
    assert!(policy("{glooAuth: {configs: [{jwt: {}}]}, customAuth: {}}").fault().starts_with("spec.config."));
    assert!(methods("{jwt: {}, apiKeyAuth: {}}").fault().starts_with("spec.config.glooAuth.configs[0]."));
    for (field, config) in [
        ("oauth2", "{oauth2: {}}"),
        ("oauth2.accessTokenValidation", "{oauth2: {accessTokenValidation: {}}}"),
        ("oauth2.accessTokenValidation.jwt", "{oauth2: {accessTokenValidation: {jwt: {}}}}"),
        (
            "oauth2.accessTokenValidation.jwt.remoteJwks.url",
            "{oauth2: {accessTokenValidation: {jwt: {remoteJwks: {}}}}}",
        ),
        (
            "oauth2.accessTokenValidation.jwt.localJwks.inlineString",
            "{oauth2: {accessTokenValidation: {jwt: {localJwks: {}}}}}",
        ),
        (
            "oauth2.accessTokenValidation.requiredScopes.scope[0]",
            "{oauth2: {accessTokenValidation: {jwt: {remoteJwks: {url: 'https://a'}}, requiredScopes: {scope: ['']}}}}",
        ),
        ("apiKeyAuth", "{apiKeyAuth: {}}"),
        ("apiKeyAuth.k8sSecretApikeyStorage", "{apiKeyAuth: {k8sSecretApikeyStorage: {}}}"),
        ("apiKeyAuth.headerName", "{apiKeyAuth: {headerName: 'a b', labelSelector: {a: b}}}"),
        ("apiKeyAuth.apiKeySecretRefs[0].name", "{apiKeyAuth: {apiKeySecretRefs: [{}]}}"),
        (
            "apiKeyAuth.headersFromMetadataEntry.x.name",
            "{apiKeyAuth: {labelSelector: {a: b}, headersFromMetadataEntry: {x: {}}}}",
        ),
        (
            "apiKeyAuth.headersFromMetadataEntry.host",
            "{apiKeyAuth: {labelSelector: {a: b}, headersFromMetadataEntry: {host: {name: a}}}}",
        ),
        ("passThroughAuth", "{passThroughAuth: {}}"),
        ("passThroughAuth.grpc.address", "{passThroughAuth: {grpc: {}}}"),
        ("passThroughAuth.grpc.address", "{passThroughAuth: {grpc: {address: auth}}}"),
        (
            "passThroughAuth.grpc.connectionTimeout",
            "{passThroughAuth: {grpc: {address: 'a:1', connectionTimeout: 0s}}}",
        ),
        (
            "passThroughAuth.grpc.retryPolicy.retryBackOff.maxInterval",
            "{passThroughAuth: {grpc: {address: 'a:1', retryPolicy: {retryBackOff: {maxInterval: 10ms}}}}}",
        ),
        ("passThroughAuth.http.url", "{passThroughAuth: {http: {}}}"),
        ("passThroughAuth.http.url", "{passThroughAuth: {http: {url: 'http://a/b?c'}}}"),
        (
            "passThroughAuth.http.request.allowedHeaders[0]",
            "{passThroughAuth: {http: {url: 'http://a', request: {allowedHeaders: ['']}}}}",
        ),
        (
            "passThroughAuth.http.request.headersToAdd.x",
            "{passThroughAuth: {http: {url: 'http://a', request: {headersToAdd: {x: \"a\\r\\nb: c\"}}}}}",
        ),
        (
            "passThroughAuth.http.response.allowedUpstreamHeaders[0]",
            "{passThroughAuth: {http: {url: 'http://a', response: {allowedUpstreamHeaders: [Host]}}}}",
        ),
    ] {
        assert_eq!(methods(config).fault(), format!("spec.config.glooAuth.configs[0].{field}"), "{config}");
    }
}

fn server_of(spec: &str) -> Checked<AuthServer> {
    checked(Kind::ExtAuthServer, spec, |id, spec, _| match spec {
        Spec::ExtAuthServer(written) => server(id, written),
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_server_says_how_it_is_asked() {
    let plain = server_of("{}").valid();
    assert_eq!((plain.destination, plain.protocol, plain.body), (None, Protocol::Grpc, None));
    assert_eq!(plain.timeout, Duration::from_secs(2), "not Envoy's own 200 milliseconds");
    assert_eq!((plain.status_on_error, plain.failure_mode_allow, plain.clear_route_cache), (403, false, false));
    let full = server_of(
        "{destinationServer: {ref: {name: a}, port: {number: 1}, kind: VIRTUAL_DESTINATION}, httpService: {pathPrefix: /check, \
         request: {allowedHeaders: [X-A], headersToAdd: {X-B: c}}, response: {allowedUpstreamHeaders: [X-C], \
         allowedClientHeaders: [X-D]}}, requestTimeout: 1s, failureModeAllow: true, requestBody: {}, clearRouteCache: true, \
         statusOnError: 503, transportApiVersion: ENVOY_AUTO, statPrefix: auth}",
    );
    let full = full.valid();
    assert_eq!(full.destination.unwrap().object.to_string(), "VirtualDestination/shop/a@cluster-1");
    let Protocol::Http { path_prefix, request_headers, added_headers, upstream_headers, client_headers } =
        full.protocol
    else {
        panic!()
    };
    assert_eq!((path_prefix.as_deref(), added_headers["x-b"].as_str()), (Some("/check"), "c"));
    let names: Vec<&Name> = [&request_headers, &upstream_headers, &client_headers].into_iter().flatten().collect();
    assert_eq!(names, ["x-a", "x-c", "x-d"]);
    let body = full.body.unwrap();
    assert_eq!((body.max_bytes, body.allow_partial, body.as_bytes), (4096, false, false));
    assert_eq!(
        (full.status_on_error, full.timeout, full.stat_prefix.as_deref()),
        (503, Duration::from_secs(1), Some("auth"))
    );
}

#[test]
fn a_server_that_cannot_be_asked_is_invalid() {
    faults(
        &[
            ("spec.destinationServer.ref", "{destinationServer: {}}"),
            ("spec.destinationServer.kind", "{destinationServer: {ref: {name: a}, kind: EXTERNAL_SERVICE}}"),
            ("spec.requestTimeout", "{requestTimeout: 0s}"),
            ("spec.statusOnError", "{statusOnError: 418}"),
            ("spec.statusOnError", "{statusOnError: 700}"),
            ("spec.httpService.pathPrefix", "{httpService: {pathPrefix: check}}"),
            ("spec.httpService.request.allowedHeaders[0]", "{httpService: {request: {allowedHeaders: ['']}}}"),
            ("spec.httpService.request.headersToAdd.host", "{httpService: {request: {headersToAdd: {host: a}}}}"),
            (
                "spec.httpService.response.allowedUpstreamHeaders[0]",
                "{httpService: {response: {allowedUpstreamHeaders: [':path']}}}",
            ),
            (
                "spec.httpService.response.allowedClientHeaders[0]",
                "{httpService: {response: {allowedClientHeaders: ['a b']}}}",
            ),
        ],
        server_of,
    );
}
