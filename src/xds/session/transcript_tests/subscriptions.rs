//! What a client asks for: cases 12 to 21.

use super::*;

#[test]
fn case_12_empty_subscriptions() {
    check(
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
fn case_12_a_client_that_waits_for_everything_hears_that_there_is_nothing() {
    check(
        "snapshot RDS r@1
         → CDS
         ← CDS #1
         → CDS ack 1
         → LDS
         ← LDS #2
         → LDS ack 2
         → EDS
         snapshot CDS a@1
         ← CDS #3 a@1",
    );
}

#[test]
fn case_13_explicit_wildcard() {
    check(
        "snapshot CDS a@1 b@1
         → CDS +*
         ← CDS #1 a@1 b@1
         → CDS ack 1
         → CDS +a
         ← CDS #2 a@1
         → CDS ack 2
         → CDS -a
         ← CDS #3 a@1
         → CDS ack 3
         snapshot CDS a@2 b@2
         ← CDS #4 a@2 b@2
         → CDS ack 4
         → CDS +b
         ← CDS #5 b@2
         → CDS ack 5
         → CDS -*
         snapshot CDS a@3 b@3
         ← CDS #6 b@3",
    );
}

#[test]
fn case_13_a_missing_name_given_up_under_the_wildcard_is_answered() {
    check(
        "snapshot CDS a@1
         → CDS +* +gone
         ← CDS #1 a@1 -gone
         → CDS ack 1
         → CDS -gone
         ← CDS #2 -gone
         → CDS ack 2",
    );
}

#[test]
fn case_16_unsubscribed_is_silent() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS -r
         snapshot RDS r@2
         → RDS
         → RDS +r
         ← RDS #2 r@2",
    );
}

#[test]
fn case_16_unsubscribed_while_in_flight() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS -r
         → RDS ack 1
         snapshot RDS
         snapshot RDS r@1
         → RDS +r
         ← RDS #2 r@1",
    );
}

#[test]
fn case_17_subscribing_again_sends_again() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS +r
         ← RDS #2 r@1
         → RDS +r
         → RDS ack 2
         ← RDS #3 r@1
         → RDS nack 3: no
         ! RDS #3 exact r@1 (RouteTable/shop/r@c1): no
         → RDS +r
         ← RDS #4 r@1",
    );
}

#[test]
fn case_18_missing_names_are_told_once_and_sent_when_they_appear() {
    check(
        "at 5s
         snapshot RDS r@1
         → RDS +r +later
         ← RDS #1 r@1 -later
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS ack 2
         snapshot RDS r@2 later@1
         ← RDS #3 later@1
         → RDS ack 3
         snapshot RDS r@2
         ← RDS #4 -later
         → RDS ack 4
         snapshot RDS r@3
         ← RDS #5 r@3",
    );
}

#[test]
fn case_19_two_names_one_missing() {
    check(
        "snapshot EDS a@1
         → EDS +a +b
         ← EDS #1 a@1 -b
         → EDS ack 1
         snapshot EDS a@1 b@1
         ← EDS #2 b@1",
    );
}

#[test]
fn case_20_repetitions_and_contradictions() {
    check(
        "snapshot RDS r@1
         → RDS +r +r +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS +r -r
         snapshot RDS r@2",
    );
}

#[test]
fn case_21_names_with_control_characters_are_names() {
    check(
        "snapshot RDS r@1
         → RDS +\u{1b}[31m
         ← RDS #1 -\u{1b}[31m
         → RDS ack 1",
    );
}

#[test]
fn case_21_a_hundred_thousand_names_and_no_more() {
    let names = |count: usize| (0..count).map(|i| i.to_string().into()).collect();
    for (count, expected) in [(200_000, true), (200_001, false)] {
        let request = DeltaRequest { subscribe: names(count), ..request("RDS") };
        let result = Session::new(SessionSettings::default(), Variant::Delta).request(Duration::ZERO, &request);
        assert_eq!(result.is_ok(), expected, "{count} names");
    }
    let long = DeltaRequest { subscribe: vec!["x".repeat(10_000).into()], ..request("RDS") };
    let error = Session::new(SessionSettings::default(), Variant::Delta).request(Duration::ZERO, &long).unwrap_err();
    assert!(error.to_string().starts_with("a resource name of 10000 bytes"), "{error}");
}
