//! Acknowledgements, refusals, nonces: cases 3 to 11 and 40.

use super::*;

#[test]
fn case_3_acknowledged_is_silent() {
    check(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → CDS ack 1
         → CDS ack 1
         ~ CDS stale nonce
         → CDS ack 1
         ~ CDS stale nonce
         snapshot CDS a@1",
    );
}

#[test]
fn case_5_a_nonce_of_another_type_is_stale() {
    check(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → LDS ack 1
         ~ LDS stale nonce
         → CDS ack 1
         ← LDS #2 l@1
         → CDS ack 2
         ~ CDS stale nonce
         → LDS ack 2",
    );
}

#[test]
fn case_6_refused_is_withheld_until_it_changes() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS nack 2: no such cluster
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no such cluster
         snapshot RDS r@2
         at 100s
         snapshot RDS r@3
         ← RDS #3 r@3
         → RDS ack 3
         snapshot RDS r@3",
    );
}

#[test]
fn case_6_back_to_what_is_held_is_silent() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS nack 2: no
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no
         snapshot RDS r@1
         snapshot RDS r@2
         ← RDS #3 r@2",
    );
}

#[test]
fn case_7_a_refusal_may_change_subscriptions() {
    check(
        "snapshot RDS r@1 s@1
         → RDS +r
         ← RDS #1 r@1
         → RDS +s nack 1: no
         ! RDS #1 exact r@1 (RouteTable/shop/r@c1): no
         ← RDS #2 s@1
         → RDS -r ack 2
         snapshot RDS r@2 s@1",
    );
}

#[test]
fn case_8_a_fix_is_sent_once() {
    check(
        "reports
         snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS nack 1: no
         ! RDS #1 exact r@1 (RouteTable/shop/r@c1): no
         = RDS, 1 outstanding
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS ack 2
         = RDS r@2, 0 outstanding
         at 100s",
    );
}

#[test]
fn case_9_the_good_land_and_the_bad_is_withheld() {
    check(
        "snapshot CDS a@1 bad@1 c@1
         → CDS
         ← CDS #1 a@1 bad@1 c@1
         → CDS ack 1
         snapshot CDS a@2 bad@2 c@2
         ← CDS #2 a@2 bad@2 c@2
         → CDS nack 2: no
         ! CDS #2 suspected a@2 (RouteTable/shop/a@c1) bad@2 (RouteTable/shop/bad@c1) c@2 (RouteTable/shop/c@c1): no
         ← CDS #3 a@2 bad@2
         → CDS nack 3: no
         ← CDS #4 a@2
         → CDS ack 4
         ← CDS #5 bad@2
         → CDS nack 5: no
         ! CDS #5 exact bad@2 (RouteTable/shop/bad@c1): no
         ← CDS #6 c@2
         → CDS ack 6
         snapshot CDS a@2 bad@1 c@2
         snapshot CDS a@2 bad@3 c@2
         ← CDS #7 bad@3",
    );
}

#[test]
fn case_9_uncertain_members_are_sent_even_if_they_go_back() {
    check(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         snapshot CDS a@2 b@2
         ← CDS #2 a@2 b@2
         snapshot CDS a@1
         → CDS nack 2: no
         ! CDS #2 suspected a@2 (RouteTable/shop/a@c1) b@2 (RouteTable/shop/b@c1): no
         ← CDS #3 a@1
         → CDS ack 3
         at 5s
         ← CDS #4 -b",
    );
}

#[test]
fn case_9_a_new_resource_that_may_have_landed_is_removed() {
    check(
        "snapshot LDS bad@1 l@1
         → LDS
         ← LDS #1 bad@1 l@1
         snapshot LDS
         → LDS nack 1: no
         ! LDS #1 suspected bad@1 (RouteTable/shop/bad@c1) l@1 (RouteTable/shop/l@c1): no
         ← LDS #2 -bad -l
         → LDS ack 2",
    );
}

#[test]
fn case_9_clusters_that_the_refusal_names_are_withheld_and_the_rest_lands_at_once() {
    check(
        "reports
         snapshot CDS a@1 bad@1 c@1 worse@1
         → CDS
         ← CDS #1 a@1 bad@1 c@1 worse@1
         → CDS nack 1: Error adding/updating cluster(s) bad: no, really, worse: never
         ! CDS #1 exact bad@1 (RouteTable/shop/bad@c1): Error adding/updating cluster(s) bad: no, really
         ! CDS #1 exact worse@1 (RouteTable/shop/worse@c1): Error adding/updating cluster(s) worse: never
         ← CDS #2 a@1 c@1
         → CDS ack 2
         = CDS a@1 c@1, 2 outstanding
         snapshot CDS a@1 bad@2 c@1 worse@1
         ← CDS #3 bad@2
         → CDS ack 3
         = CDS bad@2, 1 outstanding
         at 100s",
    );
}

#[test]
fn case_9_a_removal_that_travelled_with_a_named_listener_is_said_again() {
    check(
        "snapshot LDS bad@1 l@1 old@1
         → LDS
         ← LDS #1 bad@1 l@1 old@1
         → LDS ack 1
         snapshot LDS bad@2 l@2
         ← LDS #2 bad@2 l@2 -old
         → LDS nack 2: Error adding/updating listener(s) bad: no
         ! LDS #2 exact bad@2 (RouteTable/shop/bad@c1): Error adding/updating listener(s) bad: no
         ← LDS #3 l@2 -old
         → LDS ack 3
         snapshot LDS bad@1 l@2",
    );
}

#[test]
fn case_9_a_name_that_was_not_in_the_response_is_no_help() {
    check(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS nack 1: Error adding/updating cluster(s) c: no
         ! CDS #1 suspected a@1 (RouteTable/shop/a@c1) b@1 (RouteTable/shop/b@c1): Error adding/updating cluster(s) c: no
         ← CDS #2 a@1
         → CDS ack 2
         ← CDS #3 b@1
         → CDS ack 3",
    );
}

#[test]
fn case_39_virtual_hosts_on_demand_are_an_unknown_type() {
    check(
        "snapshot RDS r@1
         → type.googleapis.com/envoy.config.route.v3.VirtualHost +r/shop.example
         ~ type.googleapis.com/envoy.config.route.v3.VirtualHost unknown type
         → RDS +r
         ← RDS #1 r@1",
    );
}

/// Case 39; case 40.
#[test]
fn cases_39_and_40_unknown_types_are_ignored() {
    check(
        "snapshot CDS a@1
         → type.googleapis.com/envoy.api.v2.Cluster
         ~ type.googleapis.com/envoy.api.v2.Cluster unknown type
         → CDS error: what?
         ~ CDS error without a nonce
         ← CDS #1 a@1
         → type.googleapis.com/envoy.config.route.v3.VirtualHost +r/host
         ~ type.googleapis.com/envoy.config.route.v3.VirtualHost unknown type
         → CDS ack 1
         snapshot CDS a@2
         ← CDS #2 a@2",
    );
}

#[test]
fn case_40_unknown_types_are_reported_eight_times_and_cost_nothing() {
    let mut session = Session::new(settings(), Variant::Delta);
    let asks = |number| DeltaRequest { type_url: format!("type/{number}"), ..DeltaRequest::default() };
    let reports: usize = (0..1000).map(|number| session.request(Duration::ZERO, &asks(number)).unwrap().len()).sum();
    assert_eq!(reports, 8);
}

#[test]
fn f4_route_configurations_travel_together_until_one_is_refused() {
    check(
        "snapshot RDS a@1 b@1 c@1 d@1
         → RDS +a +b +c +d
         ← RDS #1 a@1 b@1 c@1 d@1
         → RDS nack 1: no
         ! RDS #1 suspected a@1 (RouteTable/shop/a@c1) b@1 (RouteTable/shop/b@c1) c@1 (RouteTable/shop/c@c1) d@1 (RouteTable/shop/d@c1): no
         ← RDS #2 a@1 b@1
         → RDS ack 2
         ← RDS #3 c@1 d@1
         → RDS nack 3: no
         ← RDS #4 c@1
         → RDS nack 4: no
         ! RDS #4 exact c@1 (RouteTable/shop/c@c1): no
         ← RDS #5 d@1
         → RDS ack 5
         snapshot RDS a@2 b@2 c@2 d@2
         ← RDS #6 a@2 b@2
         → RDS ack 6
         ← RDS #7 c@2
         → RDS ack 7
         ← RDS #8 d@2
         → RDS ack 8
         snapshot RDS a@3 b@3 c@3 d@3
         ← RDS #9 a@3 b@3 c@3 d@3",
    );
}

#[test]
fn f4_one_secret_or_extension_per_response() {
    check(
        "snapshot SDS s@1 t@1 | ECDS x@1 y@1
         → SDS +s +t
         ← SDS #1 s@1
         → SDS ack 1
         ← SDS #2 t@1
         → SDS ack 2
         → ECDS +x +y
         ← ECDS #3 x@1
         → ECDS ack 3
         ← ECDS #4 y@1
         → ECDS ack 4",
    );
}

#[test]
fn case_11_long_errors_are_cut() {
    let mut session = Session::new(settings(), Variant::Delta);
    let snapshot = Snapshot::new().with(ResourceType::Route, [resource("r@1")]);
    assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
    session.request(Duration::ZERO, &request("RDS +r")).unwrap();
    let refusal = DeltaRequest { error: Some("ü".repeat(1 << 20)), ..request("RDS ack 1") };
    let outputs = session.request(Duration::ZERO, &refusal).unwrap();
    let [Output::Refused(refusal), ..] = outputs.as_slice() else { panic!("{outputs:?}") };
    let (head, tail) = refusal.message.split_once(" […] ").unwrap();
    assert!(refusal.message.len() <= 4096 && head.len() + tail.len() > 4080, "{} bytes", refusal.message.len());
    assert!((head.chars().chain(tail.chars())).all(|letter| letter == 'ü'), "cut between characters");
}
