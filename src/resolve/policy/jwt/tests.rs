use super::super::tests::{Checked, checked, faults};
use super::*;
use crate::crd::Spec;
use crate::ir::policy::Place;

/// A provider with keys.
const PROVIDER: &str = "providers: {p: {remote: {url: 'https://issuer.example.com/keys'}}}";

fn spec(text: &str) -> Checked<Jwt> {
    checked(Kind::JwtPolicy, text, |id, spec, remarks| match spec {
        Spec::JwtPolicy(policy) => lower(id, policy, remarks),
        other => panic!("{other:?}"),
    })
}

fn policy(config: &str) -> Checked<Jwt> {
    spec(&format!("{{config: {config}}}"))
}

/// A policy with one provider and further fields.
fn with(fields: &str) -> Checked<Jwt> {
    policy(&format!("{{{PROVIDER}, {fields}}}"))
}

/// The provider of a policy with one.
fn provider(fields: &str) -> Provider {
    policy(&format!("{{providers: {{p: {{{fields}}}}}}}")).valid().providers.remove("p").unwrap()
}

#[test]
fn every_field_of_a_provider_has_its_effect() {
    let found = provider(
        "issuer: 'https://issuer', audiences: [b, a], tokenSource: {headers: [{name: X-Token, prefix: 'Bearer '}, \
         {name: jwt}], queryParams: [token]}, claimsToHeaders: [{claim: org, header: X-Org}, {claim: 'https://a/b', \
         header: x-url, append: true}], outputPayloadToHeader: X-Payload, keepToken: true, clockSkewSeconds: 7, \
         remote: {url: 'https://issuer:8443/keys', destinationRef: {ref: {name: idp}, kind: EXTERNAL_SERVICE, \
         port: {number: 443}}, cacheDuration: 1h, timeout: 500ms, enableAsyncFetch: true}",
    );
    assert_eq!(found.issuer.as_deref(), Some("https://issuer"));
    assert_eq!(found.audiences.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let header = |name: &str, prefix: &str| TokenHeader { name: name.into(), prefix: prefix.into() };
    assert_eq!(found.headers, [header("x-token", "Bearer "), header("jwt", "")]);
    assert_eq!(found.parameters, [Name::from("token")]);
    assert_eq!(found.claims_to_headers["x-org"], HeaderClaim { claim: "org".into(), is_url: false, append: false });
    assert_eq!(
        found.claims_to_headers["x-url"],
        HeaderClaim { claim: "https://a/b".into(), is_url: true, append: true }
    );
    assert_eq!(found.payload_header.as_deref(), Some("x-payload"));
    assert!(found.keep_token);
    assert_eq!(found.clock_skew_seconds, 7);
    let Keys::Remote(remote) = found.keys else { panic!() };
    assert_eq!((remote.url.authority.port, remote.url.path.as_str()), (8443, "/keys"));
    assert_eq!(remote.destination.unwrap().object.to_string(), "ExternalService/shop/idp@cluster-1");
    assert_eq!((remote.cache, remote.timeout), (Duration::from_secs(3600), Duration::from_millis(500)));
    assert!(remote.fetch_early);
}

#[test]
fn what_is_left_out_has_its_default() {
    let jwt = policy(&format!("{{{PROVIDER}}}"));
    assert_eq!(jwt.remarks, Vec::<String>::new());
    let jwt = jwt.valid();
    assert_eq!(jwt.mode, Mode::RequireValid);
    assert_eq!(jwt.place, Place { phase: Phase::PreAuthz, priority: 0 }, "R125");
    assert_eq!(jwt.clear_route_cache, ClearRouteCache::Auto);
    let found = &jwt.providers["p"];
    assert_eq!((found.clock_skew_seconds, found.keep_token, found.issuer.as_ref()), (60, false, None));
    let Keys::Remote(remote) = &found.keys else { panic!() };
    let times = (Duration::from_secs(300), Duration::from_secs(5));
    assert_eq!((remote.cache, remote.timeout), times, "not Envoy's own 10 minutes and 1 second");
    assert_eq!((remote.destination.as_ref(), remote.fetch_early), (None, false));
}

#[test]
fn r125_the_phase_says_where_the_policy_runs() {
    let place = |phase: &str| with(&format!("phase: {phase}")).valid().place;
    assert_eq!(place("{postAuthz: {priority: -3}}"), Place { phase: Phase::PostAuthz, priority: -3 });
    assert_eq!(place("{preAuthz: {}}"), Place { phase: Phase::PreAuthz, priority: 0 });
    assert_eq!(place("{}"), Place { phase: Phase::PreAuthz, priority: 0 });
    assert!(with("phase: {preAuthz: {}, postAuthz: {}}").fault().starts_with("spec.config.phase"));
}

#[test]
fn the_deprecated_switch_counts_where_the_policy_requires_tokens() {
    for (fields, mode, remarks) in [
        ("validationPolicy: ALLOW_MISSING", Mode::AllowMissing, 0),
        ("validationPolicy: ALLOW_MISSING_OR_FAILED", Mode::AllowMissingOrFailed, 0),
        ("allowMissingOrFailed: true", Mode::AllowMissingOrFailed, 1),
        ("allowMissingOrFailed: true, validationPolicy: REQUIRE_VALID", Mode::AllowMissingOrFailed, 1),
        ("allowMissingOrFailed: true, validationPolicy: ALLOW_MISSING", Mode::AllowMissing, 1),
        ("allowMissingOrFailed: false", Mode::RequireValid, 0),
    ] {
        let jwt = with(fields);
        assert_eq!(jwt.remarks.len(), remarks, "{fields}");
        assert_eq!(jwt.valid().mode, mode, "{fields}");
    }
}

#[test]
fn the_route_cache_setting_may_be_a_boolean() {
    for (written, expected) in [
        ("AUTO", ClearRouteCache::Auto),
        ("TRUE", ClearRouteCache::Always),
        ("'TRUE'", ClearRouteCache::Always),
        ("true", ClearRouteCache::Always),
        ("FALSE", ClearRouteCache::Never),
    ] {
        assert_eq!(with(&format!("clearRouteCache: {written}")).valid().clear_route_cache, expected, "{written}");
    }
}

#[test]
fn claims_are_matched_as_texts_and_as_what_they_say() {
    let jwt = with(
        "claims: [{key: 'https://a.b/c', values: [x]}, {key: a.b, nestedClaimDelimiter: ., values: ['10', 'true', 'x*', \
         'a*b', '*'], notValues: ['-1.5e3', '007', 'false']}]",
    );
    let claims = jwt.valid().claims;
    let paths: Vec<Vec<&str>> = claims.iter().map(|check| check.path.iter().map(Name::as_str).collect()).collect();
    assert_eq!(paths, [vec!["a", "b"], vec!["https://a.b/c"]]);
    let check = claims.first().unwrap();
    let literal = |values: &BTreeSet<ClaimValue>, wanted: TextPattern| {
        values.iter().find(|value| value.text == wanted).unwrap_or_else(|| panic!("{wanted:?}")).literal.clone()
    };
    let number = |text: &str| Some(Literal::Number(Decimal::parse(text).unwrap()));
    assert_eq!(literal(&check.values, TextPattern::Exact("10".into())), number("10"));
    assert_eq!(literal(&check.values, TextPattern::Exact("true".into())), Some(Literal::Bool(true)));
    assert_eq!(literal(&check.values, TextPattern::Prefix("x".into())), None);
    assert_eq!(literal(&check.values, TextPattern::Regex("(?s)a.*b".into())), None);
    assert_eq!(literal(&check.values, TextPattern::Any), None);
    assert_eq!(literal(&check.not_values, TextPattern::Exact("-1.5e3".into())), number("-1.5e3"));
    assert_eq!(literal(&check.not_values, TextPattern::Exact("007".into())), None, "no number of JSON");
    assert_eq!(literal(&check.not_values, TextPattern::Exact("false".into())), Some(Literal::Bool(false)));
}

#[test]
fn decimals_are_those_of_json() {
    for text in ["0", "10", "-2.5", "1e3", "123456789012345678901234567890"] {
        assert!((Decimal::parse(text).unwrap().get() - text.parse::<f64>().unwrap()).abs() < f64::EPSILON, "{text}");
    }
    for text in ["", "inf", "NaN", "0x10", "1e999", " 1", "1 ", "+1", ".5", "1_000"] {
        assert_eq!(Decimal::parse(text), None, "{text}");
    }
}

#[test]
fn checks_beside_an_open_mode_are_remarked() {
    for fields in ["claims: [{key: a, values: [b]}]", "requiredScopes: [a]"] {
        let jwt = with(&format!("validationPolicy: ALLOW_MISSING, {fields}"));
        assert_eq!(jwt.remarks, ["spec.config.validationPolicy"], "{fields}");
        assert_eq!(with(fields).remarks, Vec::<String>::new());
    }
}

#[test]
fn keys_stand_in_a_secret_by_reference_only() {
    let found = provider("local: {secretRef: {objectRef: {name: keys, namespace: team}, key: public.pem}}");
    let expected =
        Keys::Secret { secret: ObjectRef::new(Kind::Secret, "cluster-1", "team", "keys"), key: "public.pem".into() };
    assert_eq!(found.keys, expected);
}

#[test]
fn the_effect_can_be_remembered() {
    let jwt = with("claims: [{key: a, values: ['1']}], requiredScopes: [b]").valid();
    let text = serde_json::to_string(&jwt).unwrap();
    assert_eq!(serde_json::from_str::<Jwt>(&text).unwrap(), jwt);
}

#[test]
fn r130_bad_input_makes_the_policy_invalid() {
    let url = "remote: {url: 'https://a/k'}";
    for (field, fields) in [
        ("", ""),
        ("", "issuer: a"),
        (".local", "local: {}"),
        (".local.inline", "local: {inline: ''}"),
        (".local.inline", "local: {inline: not a key}"),
        (".local.inline", "local: {inline: '{\"keys\": []}'}"),
        (".local.secretRef.objectRef", "local: {secretRef: {key: a}}"),
        (".local.secretRef.objectRef.name", "local: {secretRef: {objectRef: {}, key: a}}"),
        (".local.secretRef.key", "local: {secretRef: {objectRef: {name: a}}}"),
        (".remote.url", "remote: {}"),
        (".remote.url", "remote: {url: 'https://'}"),
        (".remote.url", "remote: {url: /keys}"),
        (".remote.destinationRef.ref", "remote: {url: 'https://a', destinationRef: {}}"),
        (".remote.destinationRef.ref.name", "remote: {url: 'https://a', destinationRef: {ref: {}}}"),
        (
            ".remote.destinationRef.port",
            "remote: {url: 'https://a', destinationRef: {ref: {name: a}, port: {number: 70000}}}",
        ),
        (".remote.cacheDuration", "remote: {url: 'https://a', cacheDuration: 0s}"),
        (".remote.timeout", "remote: {url: 'https://a', timeout: 100us}"),
        (".remote.timeout", "remote: {url: 'https://a', timeout: 2000000h}"),
        (".audiences[0]", "audiences: [''], remote: {url: 'https://a/k'}"),
        (".tokenSource.headers[0].name", "tokenSource: {headers: [{prefix: a}]}, remote: {url: 'https://a/k'}"),
        (".tokenSource.queryParams[0]", "tokenSource: {queryParams: ['']}, remote: {url: 'https://a/k'}"),
        (".claimsToHeaders[0].claim", "claimsToHeaders: [{header: a}], remote: {url: 'https://a/k'}"),
        (".claimsToHeaders[0].header", "claimsToHeaders: [{claim: a}], remote: {url: 'https://a/k'}"),
        (".claimsToHeaders[0].header", "claimsToHeaders: [{claim: a, header: Host}], remote: {url: 'https://a/k'}"),
        (
            ".claimsToHeaders[1].header",
            "claimsToHeaders: [{claim: a, header: x}, {claim: b, header: X}], remote: {url: 'https://a/k'}",
        ),
        (
            ".outputPayloadToHeader",
            "claimsToHeaders: [{claim: a, header: x}], outputPayloadToHeader: X, remote: {url: 'https://a/k'}",
        ),
    ] {
        let expected = format!("spec.config.providers.p{field}");
        assert_eq!(policy(&format!("{{providers: {{p: {{{fields}}}}}}}")).fault(), expected, "{fields}");
    }
    for (field, fields) in [
        ("claims[0]", "claims: [{key: a}]"),
        ("claims[0].key", "claims: [{values: [a]}]"),
        ("claims[0].key", "claims: [{key: a..b, nestedClaimDelimiter: ., values: [a]}]"),
        ("claims[0].values[0]", "claims: [{key: a, values: ['']}]"),
        ("requiredScopes[0]", "requiredScopes: ['a b']"),
        ("requiredScopes[1]", "requiredScopes: [a, '']"),
    ] {
        assert_eq!(with(fields).fault(), format!("spec.config.{field}"), "{fields}");
    }
    faults(
        &[
            ("spec.config", "{}"),
            ("spec.config.providers", "{config: {}}"),
            ("spec.applyToDestinations[0].kind", "{applyToDestinations: [{kind: EXTERNAL_SERVICE}], config: {}}"),
            ("spec.config.providers[\"\"]", "{config: {providers: {'': {remote: {url: 'https://a/k'}}}}}"),
        ],
        spec,
    );
    // Both issuers would set the header.
    let claims = "claimsToHeaders: [{claim: sub, header: x-user}]";
    let two = policy(&format!("{{providers: {{a: {{{claims}, {url}}}, b: {{{claims}, {url}}}}}}}"));
    assert_eq!(two.fault(), "spec.config.providers.b.claimsToHeaders[0].header");
    let function = "remote: {url: 'https://a', destinationRef: {awsLambda: {function: f}}}";
    let (field, _) = policy(&format!("{{providers: {{p: {{{function}}}}}}}")).unsupported();
    assert_eq!(field, "spec.config.providers.p.remote.destinationRef.awsLambda");
}

/// Envoy takes 0 for its default of 60 seconds.
#[test]
fn no_tolerance_at_all_is_a_second_and_remarked() {
    let found = policy("{providers: {p: {clockSkewSeconds: 0, remote: {url: 'https://a/k'}}}}");
    assert_eq!(found.remarks, ["spec.config.providers.p.clockSkewSeconds"]);
    assert_eq!(found.valid().providers["p"].clock_skew_seconds, 1);
}

/// What is longer, Envoy refuses together with the policies of everybody else.
#[test]
fn r130_what_is_too_long_for_envoy_is_refused_here() {
    let remote = "remote: {url: 'https://a/k'}";
    let keys = |cache: &str| provider(&format!("remote: {{url: 'https://a/k', cacheDuration: {cache}}}")).keys;
    let Keys::Remote(found) = keys("4611686017s") else { panic!() };
    assert_eq!(found.cache, LONGEST_CACHE);
    let (name, claim) = (|length| "x".repeat(length), |length| "c".repeat(length));
    provider(&format!(
        "claimsToHeaders: [{{claim: {}, header: {}, append: true}}], {remote}",
        claim(4096),
        name(16_384)
    ));
    for (field, fields) in [
        (".remote.cacheDuration", "remote: {url: 'https://a/k', cacheDuration: 4611686018s}".to_owned()),
        (".claimsToHeaders[0].header", format!("claimsToHeaders: [{{claim: a, header: {}}}], {remote}", name(16_385))),
        (".claimsToHeaders[0].claim", format!("claimsToHeaders: [{{claim: {}, header: a}}], {remote}", claim(4097))),
        (".outputPayloadToHeader", format!("outputPayloadToHeader: {}, {remote}", name(16_385))),
        (".tokenSource.headers[0].name", format!("tokenSource: {{headers: [{{name: {}}}]}}, {remote}", name(16_385))),
    ] {
        let expected = format!("spec.config.providers.p{field}");
        assert_eq!(policy(&format!("{{providers: {{p: {{{fields}}}}}}}")).fault(), expected);
    }
}

/// Routes copy what policies ask of tokens.
#[test]
fn r130_lists_have_an_end() {
    let list = |items: usize, item: &str| vec![item; items].join(", ");
    let providers = |count: usize| {
        let all: Vec<String> =
            (0..count).map(|index| format!("p{index}: {{remote: {{url: 'https://a/k'}}}}")).collect();
        all.join(", ")
    };
    let few = |fields: &str| policy(&format!("{{providers: {{{}}}, {fields}}}", providers(16)));
    assert_eq!(few("requiredScopes: [a]").valid().providers.len(), 16);
    assert_eq!(policy(&format!("{{providers: {{{}}}}}", providers(17))).fault(), "spec.config.providers");
    for (field, fields) in [
        ("claims", format!("claims: [{}]", list(65, "{key: a, values: [b]}"))),
        ("claims[0].values", format!("claims: [{{key: a, values: [{}]}}]", list(257, "b"))),
        ("claims[0].notValues", format!("claims: [{{key: a, notValues: [{}]}}]", list(257, "b"))),
        ("requiredScopes", format!("requiredScopes: [{}]", list(257, "b"))),
        // Each of them may be, but not for all providers.
        ("claims", format!("claims: [{{key: a, values: [{}]}}]", "b".repeat(4096))),
    ] {
        assert_eq!(few(&fields).fault(), format!("spec.config.{field}"));
    }
    with(&format!("claims: [{{key: a, values: [{}]}}]", "b".repeat(4096))).valid();
    for (field, fields) in [
        (".audiences", format!("audiences: [{}]", list(257, "a"))),
        (".tokenSource", format!("tokenSource: {{queryParams: [{}]}}", list(65, "a"))),
        (".claimsToHeaders", format!("claimsToHeaders: [{}]", list(65, "{claim: a, header: b}"))),
    ] {
        let found = policy(&format!("{{providers: {{p: {{{fields}, remote: {{url: 'https://a/k'}}}}}}}}"));
        assert_eq!(found.fault(), format!("spec.config.providers.p{field}"));
    }
}

/// A token would decide where its request ends, or what other proxies are told; and what clients send under a name is removed,
/// also from the requests of others.
#[test]
fn r130_no_claim_becomes_a_header_that_frames_messages_or_is_the_clients_own() {
    for name in [
        "Authorization",
        "cookie",
        "content-type",
        "accept-language",
        "If-Match",
        "Content-Length",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "keep-alive",
        "trailer",
        "proxy-authorization",
        "x-envoy-upstream-rq-timeout-ms",
        "X-Forwarded-For",
    ] {
        let fields = format!("claimsToHeaders: [{{claim: a, header: {name}}}], remote: {{url: 'https://a/k'}}");
        let found = policy(&format!("{{providers: {{p: {{{fields}}}}}}}"));
        assert_eq!(found.fault(), "spec.config.providers.p.claimsToHeaders[0].header", "{name}");
        let fields = format!("outputPayloadToHeader: {name}, remote: {{url: 'https://a/k'}}");
        let found = policy(&format!("{{providers: {{p: {{{fields}}}}}}}"));
        assert_eq!(found.fault(), "spec.config.providers.p.outputPayloadToHeader", "{name}");
    }
}
