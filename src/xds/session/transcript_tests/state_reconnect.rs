//! State of the world: removals and reconnects: cases 22 to 28.

use super::*;

#[test]
fn case_22_clusters_and_listeners_shrink() {
    check_state(
        "at 5s
         snapshot CDS a@1 b@1 | LDS l@1 m@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         → LDS
         ← LDS #2 l@1 m@1
         → LDS ack 2
         at 10s
         snapshot CDS a@1 b@1 | LDS l@1
         ← LDS #3 l@1 -m
         → LDS ack 3
         at 20s
         snapshot CDS a@1
         ← CDS #4 a@1 -b
         → CDS ack 4
         snapshot CDS
         ← CDS #5 -a
         → CDS ack 5",
    );
}

#[test]
fn case_22_endpoints_and_routes_are_left_alone() {
    check_state(
        "reports
         snapshot EDS a@1 b@1 | RDS r@1
         → EDS a b
         ← EDS #1 a@1 b@1
         → EDS a b ack 1
         = EDS a@1 b@1, 0 outstanding
         → RDS r
         ← RDS #2 r@1
         → RDS r ack 2
         = RDS r@1, 0 outstanding
         snapshot EDS a@1 | RDS
         = EDS, 0 outstanding
         = RDS, 0 outstanding
         → EDS a ack 1
         snapshot EDS a@1 b@1 | RDS r@2
         = EDS, 0 outstanding
         ← RDS #3 r@2",
    );
}

#[test]
fn case_23_deleted_and_created_again_in_between() {
    check_state(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         snapshot CDS
         snapshot CDS a@2
         → CDS ack 1
         ← CDS #2 a@2
         → CDS ack 2",
    );
}

#[test]
fn case_24_reconnect_with_everything_current() {
    check_state(
        "reports
         snapshot CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1 s@1
         → CDS holds a@1,b@1
         = CDS a@1 b@1, 0 outstanding
         → LDS holds l@1
         = LDS l@1, 0 outstanding
         → EDS a b holds a@1,b@1
         ← EDS #1 a@1 b@1
         → EDS a b holds a@1,b@1 ack 1
         = EDS a@1 b@1, 0 outstanding
         → RDS r holds r@1
         ← RDS #2 r@1
         → RDS r holds r@1 ack 2
         = RDS r@1, 0 outstanding",
    );
}

#[test]
fn case_24_a_cluster_that_is_sent_again_has_its_endpoints_sent_again() {
    check_state(
        "snapshot CDS a@2 b@1 | EDS a@1 b@1
         → CDS holds a@1,b@1
         ← CDS #1 a@2 b@1
         → EDS a b holds a@1,b@1
         ← EDS #2 a@1 b@1
         → EDS a b holds a@1,b@1 ack 2
         → CDS holds a@2,b@1 ack 1
         snapshot CDS a@2 b@2
         ← CDS #3 a@2 b@2
         ← EDS #4 b@1
         → EDS a b holds a@1,b@1 ack 4
         → CDS ack 3",
    );
}

#[test]
fn case_24_endpoints_that_are_gone_by_then_are_sent_all_the_same() {
    check_state(
        "at 5s
         snapshot CDS a@1 | EDS a@1
         → CDS holds a@1
         → EDS a holds a@1
         ← EDS #1 a@1
         snapshot CDS a@2 | EDS a@2
         ← CDS #2 a@2
         snapshot CDS | EDS
         → EDS a ack 1
         ← EDS #3 a@2
         → EDS a ack 3
         → CDS ack 2
         ← CDS #4 -a
         → CDS ack 4
         → EDS ack 3",
    );
}

#[test]
fn case_24_endpoints_that_are_gone_before_they_are_asked_for() {
    check_state(
        "snapshot CDS a@1 b@1 | EDS a@1 b@1
         → EDS
         → CDS
         ← CDS #1 a@1 b@1
         snapshot CDS b@1 | EDS b@1
         → EDS a b
         ← EDS #2 b@1 a@1
         → EDS a b ack 2
         → CDS ack 1
         at 5s
         ← CDS #3 b@1 -a",
    );
}

#[test]
fn case_24_a_version_proves_no_endpoints() {
    check_state(
        "snapshot CDS a@1 | EDS a@1
         → CDS holds a@1
         → EDS a holds a@1
         ← EDS #1 a@1",
    );
}

#[test]
fn case_25_reconnect_with_what_is_unknown_here() {
    check_state(
        "snapshot CDS a@1 | LDS l@1 | RDS r@1 s@1
         → CDS holds a@0,gone@1
         ← CDS #1 a@1
         → CDS ack 1
         → LDS holds nonsense
         ← LDS #2 l@1
         → LDS ack 2
         → RDS r s holds r@1
         ← RDS #3 r@1 s@1",
    );
}

#[test]
fn case_25_reconnect_when_nothing_is_left() {
    check_state(
        "snapshot CDS a@1
         → LDS holds l@1
         ← LDS #1
         → LDS ack 1
         → CDS gone holds gone@1
         ← CDS #2
         → CDS gone ack 2",
    );
}

#[test]
fn case_25_a_state_that_holds_more_is_another_state() {
    let mut session = Session::new(SessionSettings::default(), Variant::StateOfTheWorld);
    let snapshot =
        |words: &[&str]| Arc::new(Snapshot::new().with(ResourceType::Cluster, words.iter().map(|w| resource(w))));
    assert!(session.snapshot(Duration::ZERO, snapshot(&["a@1", "b@1"])).is_empty());
    session.request_state(Duration::ZERO, &state_request("CDS holds a@1,b@1")).unwrap();
    // `a` must stay until no route can use it.
    let outputs = session.snapshot(Duration::ZERO, snapshot(&["b@2"]));
    let [Output::Respond(more)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(more.resources.len(), 2);
    let mut session = Session::new(SessionSettings::default(), Variant::StateOfTheWorld);
    assert!(session.snapshot(Duration::ZERO, snapshot(&["b@2"])).is_empty());
    let again = StateRequest { version: more.version.to_string(), ..state_request("CDS") };
    let outputs = session.request_state(Duration::ZERO, &again).unwrap();
    assert!(matches!(outputs.as_slice(), [Output::Respond(_)]), "{outputs:?}");
}

#[test]
fn case_26_nothing_is_sent_before_there_is_a_snapshot() {
    check_state(
        "→ CDS holds a@1
         → LDS holds l@1
         → RDS r holds r@1
         at 100s
         snapshot CDS a@1 | LDS l@1 | RDS r@1
         ← RDS #1 r@1",
    );
}

#[test]
fn case_27_reconnect_after_a_refusal() {
    check_state(
        "snapshot CDS a@1 bad@1
         → CDS holds a@1
         ← CDS #1 a@1 bad@1
         → CDS holds a@1 nack 1: bad
         ! CDS #1 suspected a@1 (RouteTable/shop/a@c1) bad@1 (RouteTable/shop/bad@c1): bad
         → LDS
         ← LDS #2
         → LDS ack 2
         snapshot CDS a@1 bad@2 | LDS l@1
         ← CDS #3 a@1 bad@2
         → CDS ack 3
         ← LDS #4 l@1",
    );
}

#[test]
fn case_28_empty_endpoints_are_endpoints() {
    check_state(
        "snapshot CDS a@1 | EDS a@empty
         → CDS
         ← CDS #1 a@1
         → EDS a
         ← EDS #2 a@empty
         → EDS a ack 2
         → CDS ack 1",
    );
}
