//! Removals and reconnects: cases 22 to 28.

use super::*;

#[test]
fn case_22_removals_are_sent_once() {
    check(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         at 5s
         snapshot CDS a@1
         ← CDS #2 -b
         → CDS ack 2
         snapshot CDS a@1
         at 100s",
    );
}

#[test]
fn case_23_deleted_and_created_again_in_between() {
    check(
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
    check(
        "reports
         snapshot CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1
         → CDS have a@1 have b@1
         = CDS a@1 b@1, 0 outstanding
         → EDS +a +b have a@1 have b@1
         = EDS a@1 b@1, 0 outstanding
         → LDS have l@1
         = LDS l@1, 0 outstanding
         → RDS +r have r@1
         = RDS r@1, 0 outstanding",
    );
}

#[test]
fn case_24_a_cluster_that_is_sent_again_has_its_endpoints_sent_again() {
    check(
        "snapshot CDS a@2 b@1 | EDS a@1 b@1
         → CDS have a@1 have b@1
         ← CDS #1 a@2
         → EDS +a +b have a@1 have b@1
         ← EDS #2 a@1
         → EDS ack 2
         → CDS ack 1
         snapshot CDS a@2 b@2
         ← CDS #3 b@2
         ← EDS #4 b@1
         snapshot CDS a@2 b@3
         → CDS ack 3
         ← CDS #5 b@3
         → EDS ack 4
         ← EDS #6 b@1",
    );
}

/// Envoy asks for clusters only once the changed one is warm, which waits for endpoints of its own.
#[test]
fn case_24_a_client_that_asks_for_endpoints_before_clusters_warms_one() {
    check(
        "snapshot CDS a@2 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@2
         → EDS +a have a@1
         ← EDS #1 a@1
         → LDS have l@1
         → RDS +r have r@1
         → EDS ack 1
         → CDS have a@2
         ← CDS #2 b@1
         → EDS +b
         ← EDS #3 b@1
         → EDS ack 3
         → CDS ack 2
         ← RDS #4 r@2",
    );
}

#[test]
fn case_24_endpoints_that_are_gone_by_then_are_sent_all_the_same() {
    check(
        "at 5s
         snapshot CDS a@1 | EDS a@1
         → CDS have a@1
         → EDS +a have a@1
         snapshot CDS a@2 | EDS a@2
         ← CDS #1 a@2
         ← EDS #2 a@2
         snapshot CDS a@2 | EDS a@3
         snapshot CDS | EDS
         → EDS ack 2
         → CDS ack 1
         ← CDS #3 -a
         → CDS ack 3
         ← EDS #4 -a",
    );
    check(
        "snapshot CDS a@1 | EDS a@1
         → CDS have a@1
         → EDS +a
         ← EDS #1 a@1
         snapshot CDS a@2
         ← CDS #2 a@2
         snapshot CDS | EDS
         → EDS ack 1
         ← EDS #3 a@1
         → EDS ack 3
         → CDS ack 2
         at 5s
         ← CDS #4 -a
         → CDS ack 4
         ← EDS #5 -a",
    );
}

#[test]
fn case_24_who_asks_for_endpoints_first_waits_for_them_whatever_it_holds() {
    check(
        "snapshot CDS a@2 b@1 | EDS a@1 b@1 | RDS r@2
         → EDS +a +b +gone have a@1 have b@1 have gone@1
         ← EDS #1 a@1 b@1 -gone
         → LDS
         ← LDS #2
         → LDS ack 2
         → RDS +r have r@1
         → EDS ack 1
         → CDS have a@2
         ← CDS #3 b@1
         ← EDS #4 b@1
         → EDS ack 4
         → CDS ack 3
         ← RDS #5 r@2
         → RDS ack 5
         at 100s",
    );
}

#[test]
fn case_28_a_cluster_that_is_sent_again_is_told_again_that_it_has_no_endpoints() {
    check(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → EDS +a
         ← EDS #2 -a
         → EDS ack 2
         → CDS ack 1
         snapshot CDS a@2
         ← CDS #3 a@2
         ← EDS #4 -a",
    );
}

#[test]
fn case_25_reconnect_with_what_is_unknown_here() {
    check(
        "snapshot CDS a@1 b@1 | RDS r@1 | LDS l@1
         → CDS have a@0 have b@1 have gone@1
         ← CDS #1 a@1
         → LDS have l@1 have old@1
         ← LDS #2 -old
         → RDS +r have r@0
         → CDS ack 1
         ← RDS #3 r@1
         → LDS ack 2
         → RDS ack 3
         at 5s
         ← CDS #4 -gone",
    );
}

#[test]
fn case_26_nothing_is_sent_before_there_is_a_snapshot() {
    check(
        "→ CDS have a@1
         → LDS have l@1
         → RDS +r have r@1
         at 100s
         snapshot CDS a@1 | LDS l@1 | RDS r@1",
    );
}

#[test]
fn case_27_reconnect_after_a_refusal() {
    check(
        "snapshot CDS a@1 bad@1
         → CDS have a@1
         ← CDS #1 bad@1
         → CDS nack 1: bad
         ! CDS #1 exact bad@1 (RouteTable/shop/bad@c1): bad
         → LDS
         ← LDS #2
         → LDS ack 2
         snapshot CDS a@1 bad@2 | LDS l@1
         ← CDS #3 bad@2
         → CDS ack 3
         ← LDS #4 l@1",
    );
}

#[test]
fn case_28_a_cluster_without_endpoints_is_told_so() {
    check(
        "snapshot CDS a@1 b@1 | EDS a@empty
         → CDS
         ← CDS #1 a@1 b@1
         → EDS +a +b
         ← EDS #2 a@empty -b
         → EDS ack 2
         → CDS ack 1",
    );
}

#[test]
fn case_27_a_client_that_asks_for_no_clusters_is_reported_once() {
    let session = |variant| Session::new(SessionSettings::default(), variant);
    run(
        session(Variant::Delta),
        Variant::Delta,
        "snapshot CDS a@1 | LDS l@1
         at 10s
         → LDS have l@1
         at 69s
         at 70s
         stuck for 60s
         at 1000s
         → CDS have a@1",
    );
    run(
        session(Variant::StateOfTheWorld),
        Variant::StateOfTheWorld,
        "→ RDS r
         at 60s
         stuck for 60s
         → RDS r s
         at 1000s",
    );
    // Who asks late, but in time, isn't.
    run(
        session(Variant::Delta),
        Variant::Delta,
        "→ LDS
         at 59s
         → CDS
         at 1000s",
    );
    // The deadline is known beforehand, and other services have nothing to do with clusters.
    let mut listening = session(Variant::Delta);
    listening.request(Duration::from_secs(3), &request("LDS")).unwrap();
    assert_eq!(listening.next_deadline(Duration::from_secs(3)), Some(Duration::from_secs(63)));
    let mut routes = Session::of_one_type(SessionSettings::default(), Variant::Delta, ResourceType::Route);
    routes.request(Duration::ZERO, &request("RDS +r")).unwrap();
    assert_eq!(routes.next_deadline(Duration::ZERO), None);
    assert!(routes.tick(Duration::from_secs(1000)).is_empty());
}

/// Case 26; case 37.
#[test]
fn cases_26_and_37_replicas_agree_whatever_order_they_were_told_in() {
    let answer = |words: &[&str]| {
        let resources: Vec<Resource> = words
            .iter()
            .map(|name| Resource::from_content((*name).into(), (*name).to_owned().into(), Arc::from([])))
            .collect();
        let snapshot = Snapshot::new().with(ResourceType::Cluster, resources);
        let mut session = Session::new(settings(), Variant::Delta);
        assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
        session.request(Duration::ZERO, &request("CDS")).unwrap()
    };
    let expected = answer(&["a", "b", "c"]);
    for order in [["c", "b", "a"], ["b", "a", "c"]] {
        let elsewhere = std::thread::spawn(move || answer(&order)).join().unwrap();
        assert_eq!(elsewhere, expected);
    }
}
