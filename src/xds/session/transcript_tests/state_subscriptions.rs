//! State of the world: what a client asks for: cases 12 to 21.

use super::*;

#[test]
fn case_12_empty_subscriptions() {
    check_state(
        "snapshot SDS s@1 | CDS a@1 | EDS a@1 | LDS l@1 | ECDS x@1 | RDS r@1
         → RDS
         → EDS
         → SDS
         → ECDS
         → CDS
         ← CDS #1 a@1
         → CDS ack 1
         → LDS
         ← LDS #2 l@1",
    );
}

#[test]
fn case_12_a_wildcard_is_answered_even_if_there_is_nothing() {
    check_state(
        "snapshot LDS l@1
         → CDS
         ← CDS #1
         → CDS ack 1
         → LDS
         ← LDS #2 l@1",
    );
}

#[test]
fn case_13_explicit_wildcard() {
    check_state(
        "snapshot CDS a@1 b@1 | RDS r@1
         → CDS *
         ← CDS #1 a@1 b@1
         → CDS * a ack 1
         → CDS * a ack 1
         snapshot CDS a@2 b@2
         ← CDS #2 a@2 b@2
         → CDS a ack 2
         snapshot CDS a@3 b@3
         ← CDS #3 a@3
         → CDS a ack 3
         → RDS *
         ← RDS #4 r@1",
    );
}

#[test]
fn case_14_names_end_the_wildcard_for_good() {
    check_state(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS a ack 1
         snapshot CDS a@1 b@2
         snapshot CDS a@2 b@2
         ← CDS #2 a@2
         → CDS a ack 2
         → CDS ack 2
         snapshot CDS a@3 b@3
         → CDS b ack 2
         ← CDS #3 b@3",
    );
}

#[test]
fn case_15_the_empty_name_is_no_resource() {
    check_state(
        "snapshot CDS a@1 | LDS l@1 | RDS r@1
         → CDS ''
         → LDS ''
         → RDS ''",
    );
}

#[test]
fn case_16_unsubscribed_is_silent() {
    check_state(
        "snapshot RDS r@1
         → RDS r
         ← RDS #1 r@1
         → RDS r ack 1
         → RDS ack 1
         snapshot RDS r@2
         → RDS r ack 1
         ← RDS #2 r@2
         → RDS r ack 2
         → RDS ack 2
         → RDS r ack 2
         ← RDS #3 r@2",
    );
}

#[test]
fn case_16_unsubscribed_while_in_flight() {
    check_state(
        "snapshot EDS a@1 b@1
         → EDS a b
         ← EDS #1 a@1 b@1
         → EDS a ack 1
         snapshot EDS a@1 b@2
         → EDS a b ack 1
         ← EDS #2 b@2",
    );
}

#[test]
fn case_17_naming_again_is_no_question() {
    check_state(
        "snapshot RDS r@1
         → RDS r
         ← RDS #1 r@1
         → RDS r ack 1
         → RDS r ack 1",
    );
}

#[test]
fn case_18_silent_about_unknown_names_until_they_appear() {
    check_state(
        "snapshot RDS r@1 | EDS a@1
         → RDS later r
         ← RDS #1 r@1
         → RDS later r ack 1
         → EDS a later
         ← EDS #2 a@1
         → EDS a later ack 2
         snapshot RDS r@1 later@1 | EDS a@1 later@1
         ← EDS #3 later@1
         → EDS a later ack 3
         ← RDS #4 later@1",
    );
}

#[test]
fn case_19_two_names_one_created_later() {
    check_state(
        "snapshot LDS l@1 | EDS a@1
         → LDS l m
         ← LDS #1 l@1
         → LDS l m ack 1
         → EDS a b
         ← EDS #2 a@1
         → EDS a b ack 2
         snapshot LDS l@1 m@1 | EDS a@1 b@1
         ← EDS #3 b@1
         → EDS a b ack 3
         ← LDS #4 l@1 m@1",
    );
}

#[test]
fn case_20_repetitions() {
    check_state(
        "snapshot RDS r@1
         → RDS r r r
         ← RDS #1 r@1
         → RDS r r ack 1",
    );
}

#[test]
fn case_21_names_with_control_characters_are_names() {
    check_state(
        "snapshot RDS r@1
         → RDS \u{1b}[31m r
         ← RDS #1 r@1",
    );
}

#[test]
fn case_21_a_hundred_thousand_names_and_no_more() {
    let session = || Session::new(SessionSettings::default(), Variant::StateOfTheWorld);
    let names = |count: usize| (0..count).map(|i| i.to_string().into()).collect();
    for (count, expected) in [(200_000, true), (200_001, false)] {
        let request = StateRequest { names: names(count), ..state_request("RDS") };
        let result = session().request_state(Duration::ZERO, &request);
        assert_eq!(result.is_ok(), expected, "{count} names");
    }
    let long = StateRequest { names: vec!["x".repeat(10_000).into()], ..state_request("RDS") };
    let error = session().request_state(Duration::ZERO, &long).unwrap_err();
    assert!(error.to_string().starts_with("a resource name of 10000 bytes"), "{error}");
}
