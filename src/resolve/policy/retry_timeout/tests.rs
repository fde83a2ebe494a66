use super::super::tests::{Meaning, meaning};
use super::*;
use crate::ir::policy::Policy;
use crate::model::Kind;

fn policy(config: &str) -> Meaning {
    meaning(Kind::RetryTimeoutPolicy, config)
}

fn valid(config: &str) -> RetryTimeout {
    match policy(config).valid() {
        Policy::RetryTimeout(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn retries(config: &str) -> Retries {
    valid(&format!("retries: {config}")).retries.expect("retries")
}

fn names(list: &[&str]) -> Vec<Name> {
    list.iter().map(|name| Name::from(*name)).collect()
}

#[test]
fn every_field_has_its_effect() {
    let config = "
requestTimeout: 1m0.5s
retries:
  attempts: 3
  perTryTimeout: 500ms
  retryOn: ' 5xx, reset ,502, 404,502'
  retryRemoteLocalities: true
";
    let expected = RetryTimeout {
        request_timeout: Some(Duration::from_millis(60_500)),
        retries: Some(Retries {
            attempts: 3,
            per_try_timeout: Some(Duration::from_millis(500)),
            retry_on: names(&["5xx", "reset", "retriable-status-codes"]),
            retriable_status_codes: vec![404, 502],
            retry_remote_localities: true,
        }),
    };
    assert_eq!(valid(config), expected);
    assert_eq!(policy(config).remarks, Vec::<String>::new());
}

#[test]
fn what_is_left_out_has_its_default() {
    let expected = Retries {
        attempts: 2,
        per_try_timeout: None,
        retry_on: names(DEFAULT_CONDITIONS),
        retriable_status_codes: vec![503],
        retry_remote_localities: false,
    };
    assert_eq!(valid("retries: {}"), RetryTimeout { request_timeout: None, retries: Some(expected) });
    // The baseline of retries stays.
    let timeout = RetryTimeout { request_timeout: Some(Duration::from_secs(2)), retries: None };
    assert_eq!(valid("requestTimeout: 2s"), timeout);
}

#[test]
fn zero_attempts_switch_retries_off_and_stand_alone() {
    assert_eq!(retries("{attempts: 0}").attempts, 0);
    for other in ["perTryTimeout: 1s", "retryOn: 5xx", "retryRemoteLocalities: true"] {
        assert_eq!(policy(&format!("retries: {{attempts: 0, {other}}}")).fault(), "spec.config.retries.attempts");
    }
    assert_eq!(retries("{attempts: 0, retryRemoteLocalities: false}").attempts, 0);
}

#[test]
fn a_request_timeout_of_zero_is_none() {
    assert_eq!(valid("requestTimeout: 0s").request_timeout, None);
}

#[test]
fn every_known_condition_is_accepted() {
    for condition in CONDITIONS {
        assert!(retries(&format!("{{retryOn: {condition}}}")).retry_on.contains(&Name::from(*condition)));
    }
    assert_eq!(retries("{retryOn: '100,599'}").retriable_status_codes, [100, 599]);
    assert_eq!(retries("{retryOn: '503'}").retry_on, names(&["retriable-status-codes"]));
    assert_eq!(retries("{retryOn: ' , '}").retry_on, names(DEFAULT_CONDITIONS), "nothing but commas is nothing");
}

#[test]
fn what_envoy_would_take_silently_is_refused() {
    for (field, config) in [
        ("requestTimeout", "requestTimeout: 999us"),
        ("requestTimeout", "requestTimeout: 1.0005s"),
        ("requestTimeout", "requestTimeout: -1s"),
        ("requestTimeout", "requestTimeout: '5'"),
        ("retries.perTryTimeout", "retries: {perTryTimeout: 0s, retryOn: 5xx}"),
        ("retries.perTryTimeout", "retries: {perTryTimeout: 100ns, retryOn: 5xx}"),
        ("retries.attempts", "retries: {attempts: -1}"),
        ("retries.attempts", "retries: {attempts: 1.5}"),
        ("retries.retryOn", "retries: {retryOn: 5XX}"),
        ("retries.retryOn", "retries: {retryOn: '5xx,unknown'}"),
        ("retries.retryOn", "retries: {retryOn: 5xx reset}"),
        ("retries.retryOn", "retries: {retryOn: '99'}"),
        ("retries.retryOn", "retries: {retryOn: '600'}"),
        ("retries.retryOn", "retries: {retryOn: '+200'}"),
        ("retries.retryOn", "retries: {retryOn: '70000'}"),
    ] {
        assert_eq!(policy(config).fault(), format!("spec.config.{field}"), "{config}");
    }
}

#[test]
fn settings_that_work_differently_than_expected_are_remarked() {
    for (fields, config) in [
        (&["retryOn"][..], "retries: {retryOn: retriable-headers}"),
        // The default list does not retry a try that times out.
        (&["perTryTimeout"], "retries: {perTryTimeout: 1s}"),
        (&["perTryTimeout"], "retries: {perTryTimeout: 1s, retryOn: 'connect-failure,503'}"),
        (&[], "retries: {perTryTimeout: 1s, retryOn: gateway-error}"),
        (&[], "retries: {perTryTimeout: 1s, retryOn: reset}"),
        (&["perTryTimeout"], "{requestTimeout: 1s, retries: {perTryTimeout: 1s, retryOn: 5xx}}"),
        (&[], "{requestTimeout: 1001ms, retries: {perTryTimeout: 1s, retryOn: 5xx}}"),
        (&[], "{requestTimeout: 0s, retries: {perTryTimeout: 1s, retryOn: 5xx}}"),
    ] {
        let expected: Vec<String> = fields.iter().map(|field| format!("spec.config.retries.{field}")).collect();
        assert_eq!(policy(config).remarks, expected, "{config}");
    }
}
