use super::super::tests::{Checked, checked, faults};
use super::*;
use crate::crd::Spec;
use crate::model::Kind;

fn policy(config: &str) -> Checked<Csrf> {
    checked(Kind::CsrfPolicy, &format!("config: {config}"), |id, spec, remarks| match spec {
        Spec::CsrfPolicy(policy) => lower(id, policy, remarks),
        other => panic!("{other:?}"),
    })
}

fn closed_of(config: &str) -> Csrf {
    checked(Kind::CsrfPolicy, &format!("config: {config}"), |_, spec, _| match spec {
        Spec::CsrfPolicy(policy) => Ok(closed(policy)),
        other => panic!("{other:?}"),
    })
    .valid()
}

#[test]
fn every_field_has_its_effect() {
    let csrf = policy(
        "{filterEnabled: true, percentage: 12.5, additionalOrigins: [{exact: 'login.example.com:8443'}, \
                       {suffix: .example.org, ignoreCase: true}, {regex: '[a-z]+\\.example\\.net'}]}",
    );
    assert_eq!(csrf.remarks, Vec::<String>::new());
    let csrf = csrf.valid();
    assert_eq!((csrf.enforced_per_million, csrf.shadow), (125_000, false));
    let origin = |pattern, ignore_case| OriginMatch { pattern, ignore_case };
    let expected = [
        origin(OriginPattern::Exact("login.example.com:8443".into()), false),
        origin(OriginPattern::Suffix(".example.org".into()), true),
        origin(OriginPattern::Regex(r"[a-z]+\.example\.net".into()), false),
    ];
    assert_eq!(csrf.additional_origins, expected);
}

#[test]
fn both_switches_off_do_nothing() {
    for config in ["{}", "{filterEnabled: false, shadowEnabled: false, percentage: 50}"] {
        let csrf = policy(config);
        assert_eq!(csrf.remarks, Vec::<String>::new());
        assert_eq!(csrf.valid(), Csrf::default(), "{config}");
    }
}

#[test]
fn a_shadow_is_never_a_share_because_the_proxy_would_refuse_some() {
    for (percentage, shadow, remarks) in [("100", true, 0), ("50", true, 1), ("0.0001", true, 1), ("0", false, 0)] {
        let csrf = policy(&format!("{{shadowEnabled: true, percentage: {percentage}}}"));
        assert_eq!(csrf.remarks.len(), remarks, "{percentage}");
        assert_eq!(csrf.valid(), Csrf { enforced_per_million: 0, shadow, ..Csrf::default() }, "{percentage}");
    }
    // Beside enforcement it is ignored.
    let both = policy("{filterEnabled: true, shadowEnabled: true, percentage: 50}").valid();
    assert_eq!((both.enforced_per_million, both.shadow), (500_000, false));
}

#[test]
fn what_protects_nothing_is_remarked() {
    assert_eq!(policy("{filterEnabled: true, percentage: 0}").remarks, ["spec.config.percentage"]);
    let regex = policy("{filterEnabled: true, additionalOrigins: [{regex: 'https://a'}]}");
    assert_eq!(regex.remarks, ["spec.config.additionalOrigins[0].regex"]);
}

#[test]
fn r130_bad_input_makes_the_policy_invalid() {
    faults(
        &[
            ("spec.config.percentage", "{percentage: 100.1}"),
            ("spec.config.percentage", "{percentage: -1}"),
            ("spec.config.percentage", "{percentage: 0.00001}"),
            ("spec.config.percentage", "{percentage: half}"),
            ("spec.config.additionalOrigins[0]", "{additionalOrigins: [{}]}"),
            ("spec.config.additionalOrigins[0]", "{additionalOrigins: [{exact: ''}]}"),
            (
                "spec.config.additionalOrigins[1]",
                "{additionalOrigins: [{exact: a}, {exact: 'https://login.example.com'}]}",
            ),
            ("spec.config.additionalOrigins[0]", "{additionalOrigins: [{prefix: 'http://'}]}"),
            ("spec.config.additionalOrigins[0].regex", "{additionalOrigins: [{regex: 'a(?=b)'}]}"),
        ],
        policy,
    );
}

#[test]
fn r130_an_invalid_policy_stands_for_the_strict_one_with_the_origins_that_can_be_read() {
    let strict =
        closed_of("{shadowEnabled: true, percentage: 1000, additionalOrigins: [{exact: a}, {exact: 'http://b'}]}");
    assert_eq!((strict.enforced_per_million, strict.shadow), (1_000_000, false));
    let expected = OriginMatch { pattern: OriginPattern::Exact("a".into()), ignore_case: false };
    assert_eq!(strict.additional_origins, [expected]);
}
