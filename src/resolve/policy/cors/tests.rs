use super::super::tests::{Meaning, meaning};
use super::*;
use crate::ir::policy::{OriginMatch, OriginPattern, Policy};
use crate::model::Kind;

fn policy(config: &str) -> Meaning {
    meaning(Kind::CorsPolicy, config)
}

fn valid(config: &str) -> Cors {
    match policy(config).valid() {
        Policy::Cors(cors) => cors,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_has_its_effect() {
    let config = r"
allowOrigins:
  - {exact: 'https://www.example.com', ignoreCase: true}
  - {prefix: 'https://app.'}
  - {suffix: .example.org}
  - {regex: 'https://[a-z]+\.example\.net'}
allowMethods: [GET, POST]
allowHeaders: [x-id, '*']
exposeHeaders: [x-trace]
maxAge: 1h
allowCredentials: true
";
    let origin = |pattern, ignore_case| OriginMatch { pattern, ignore_case };
    let expected = Cors {
        allow_origins: vec![
            origin(OriginPattern::Exact("https://www.example.com".into()), true),
            origin(OriginPattern::Prefix("https://app.".into()), false),
            origin(OriginPattern::Suffix(".example.org".into()), false),
            origin(OriginPattern::Regex(r"https://[a-z]+\.example\.net".into()), false),
        ],
        allow_methods: vec!["GET".into(), "POST".into()],
        allow_headers: vec!["x-id".into(), "*".into()],
        expose_headers: vec!["x-trace".into()],
        max_age_seconds: Some(3600),
        allow_credentials: Some(true),
    };
    assert_eq!(valid(config), expected);
}

#[test]
fn what_is_left_out_is_left_out() {
    assert_eq!(valid("{}"), Cors::default());
    assert_eq!(valid("{maxAge: 0s, allowCredentials: false}").max_age_seconds, Some(0));
    assert_eq!(valid("allowCredentials: false").allow_credentials, Some(false));
}

#[test]
fn bad_rules_make_the_policy_invalid() {
    for (field, config) in [
        ("allowOrigins[0]", "allowOrigins: [{}]"),
        ("allowOrigins[1]", "allowOrigins: [{exact: a}, {prefix: ''}]"),
        ("allowOrigins[0]", "allowOrigins: [{exact: ''}]"),
        ("allowOrigins[0]", "allowOrigins: [{suffix: ''}]"),
        ("allowOrigins[0].regex", "allowOrigins: [{regex: ''}]"),
        ("allowOrigins[0].regex", "allowOrigins: [{regex: '('}]"),
        ("allowOrigins[0].regex", "allowOrigins: [{regex: 'a(?=b)'}]"),
        ("allowMethods[1]", "allowMethods: [GET, 'POST, PUT']"),
        ("allowMethods[0]", "allowMethods: ['']"),
        ("allowHeaders[0]", "allowHeaders: ['x a']"),
        ("exposeHeaders[0]", "exposeHeaders: [\"x\\r\\nx-injected: 1\"]"),
        ("maxAge", "maxAge: 1500ms"),
        ("maxAge", "maxAge: -1s"),
        ("maxAge", "maxAge: soon"),
    ] {
        assert_eq!(policy(config).fault(), format!("spec.config.{field}"), "{config}");
    }
    // Two conditions in one match: which one is meant cannot be known.
    assert!(policy("allowOrigins: [{exact: a, prefix: b}]").fault().starts_with("spec.config.allowOrigins[0]"));
}
