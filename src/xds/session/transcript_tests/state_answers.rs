//! State of the world: acknowledgements, refusals, nonces: cases 3 to 11 and 40.

use super::*;

#[test]
fn case_3_acknowledged_is_silent() {
    check_state(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → CDS holds a@1 ack 1
         → CDS holds a@1 ack 1
         → CDS holds a@1 ack 1
         snapshot CDS a@1",
    );
}

#[test]
fn case_4_a_stale_nonce_has_no_reply_and_the_newer_state_wins() {
    check_state(
        "snapshot RDS r@1 s@1 t@1
         → RDS r
         ← RDS #1 r@1
         → RDS r holds r@1 ack 1
         snapshot RDS r@2 s@1 t@1
         ← RDS #2 r@2
         → RDS r s holds r@1 ack 1
         ~ RDS stale nonce
         → RDS r t holds r@2 ack 2
         ← RDS #3 t@1
         → RDS r s holds r@1 ack 1
         ~ RDS stale nonce
         → RDS r t holds r@2,t@1 ack 3
         snapshot RDS r@2 s@2 t@1",
    );
}

#[test]
fn case_4_names_that_cross_the_first_response_come_with_its_answer() {
    check_state(
        "snapshot EDS a@1 b@1
         → EDS a
         ← EDS #1 a@1
         → EDS a b
         ~ EDS stale nonce
         → EDS a b ack 1
         ← EDS #2 b@1",
    );
}

#[test]
fn case_4_what_was_dropped_and_named_again_is_sent_again() {
    check_state(
        "snapshot RDS r@1
         → RDS r s
         ← RDS #1 r@1
         snapshot RDS r@1 s@1
         → RDS r s ack 1
         ← RDS #2 s@1
         → RDS s ack 1
         ~ RDS stale nonce
         → RDS r s ack 2
         ← RDS #3 r@1",
    );
}

#[test]
fn case_5_a_nonce_of_another_type_is_stale() {
    check_state(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → CDS ack 1
         → LDS
         ← LDS #2 l@1
         → LDS ack 1
         ~ LDS stale nonce
         → CDS ack 2
         ~ CDS stale nonce
         → LDS ack 2",
    );
}

#[test]
fn case_5_a_nonce_before_anything_was_sent_is_reported_and_the_names_count() {
    check_state(
        "snapshot RDS r@1
         → RDS r ack 7
         ~ RDS stale nonce
         ← RDS #1 r@1",
    );
}

#[test]
fn case_6_refused_is_withheld_until_it_changes() {
    check_state(
        "snapshot RDS r@1
         → RDS r
         ← RDS #1 r@1
         → RDS r holds r@1 ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS r holds r@1 nack 2: no such cluster
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no such cluster
         snapshot RDS r@2
         → RDS r holds r@1 ack 2
         at 100s
         snapshot RDS r@3
         ← RDS #3 r@3
         → RDS r holds r@3 ack 3
         snapshot RDS r@3",
    );
}

#[test]
fn case_6_several_clusters_refused_together_wait_for_a_change() {
    check_state(
        "snapshot CDS a@1 bad@1
         → CDS
         ← CDS #1 a@1 bad@1
         → CDS holds a@1,bad@1 ack 1
         snapshot CDS a@2 bad@2
         ← CDS #2 a@2 bad@2
         → CDS holds a@1,bad@1 nack 2: no
         ! CDS #2 suspected a@2 (RouteTable/shop/a@c1) bad@2 (RouteTable/shop/bad@c1): no
         at 1000s
         snapshot CDS a@2 bad@2
         snapshot CDS a@2 bad@3
         ← CDS #3 a@2 bad@3
         → CDS ack 3
         snapshot CDS a@2 bad@3",
    );
}

#[test]
fn case_9_one_bad_cluster_never_stops_another() {
    check_state(
        "snapshot CDS a@1 bad@1
         → CDS holds a@1,bad@1
         snapshot CDS a@1 bad@2
         ← CDS #1 a@1 bad@2
         → CDS holds a@1,bad@1 nack 1: no
         ! CDS #1 exact bad@2 (RouteTable/shop/bad@c1): no
         snapshot CDS a@2 bad@2 c@1
         ← CDS #2 a@2 bad@1 c@1 ~
         → CDS ack 2
         snapshot CDS a@2 bad@3 c@1
         ← CDS #3 a@2 bad@3 c@1
         → CDS ack 3",
    );
}

#[test]
fn case_9_a_new_bad_listener_is_left_out() {
    check_state(
        "snapshot LDS l@1
         → LDS holds l@1
         snapshot LDS bad@1 l@1
         ← LDS #1 bad@1 l@1
         → LDS nack 1: no
         ! LDS #1 exact bad@1 (RouteTable/shop/bad@c1): no
         snapshot LDS bad@1 l@2
         ← LDS #2 l@2 ~
         → LDS ack 2
         snapshot LDS l@2",
    );
}

#[test]
fn case_9_clusters_that_the_refusal_names_are_withheld_and_the_rest_lands_at_once() {
    check_state(
        "reports
         snapshot CDS a@1 bad@1
         → CDS holds a@1,bad@1
         = CDS a@1 bad@1, 0 outstanding
         snapshot CDS a@2 bad@2 new@1 worse@1
         ← CDS #1 a@2 bad@2 new@1 worse@1
         → CDS holds a@1,bad@1 nack 1: Error adding/updating cluster(s) bad: no, worse: never
         ! CDS #1 exact bad@2 (RouteTable/shop/bad@c1): Error adding/updating cluster(s) bad: no
         ! CDS #1 exact worse@1 (RouteTable/shop/worse@c1): Error adding/updating cluster(s) worse: never
         ← CDS #2 a@2 bad@1 new@1 ~
         → CDS ack 2
         = CDS a@2 new@1, 2 outstanding
         at 1000s
         snapshot CDS a@2 bad@3 new@1 worse@1
         ← CDS #3 a@2 bad@3 new@1 ~
         → CDS ack 3
         = CDS bad@3, 1 outstanding
         snapshot CDS a@2 bad@3 new@1
         = CDS, 0 outstanding",
    );
}

#[test]
fn case_9_who_is_named_at_last_is_sent_as_it_was_taken_last() {
    check_state(
        "snapshot LDS bad@1 l@1
         → LDS holds bad@1,l@1
         snapshot LDS bad@2 l@2
         ← LDS #1 bad@2 l@2
         → LDS nack 1: can't be read
         ! LDS #1 suspected bad@2 (RouteTable/shop/bad@c1) l@2 (RouteTable/shop/l@c1): can't be read
         snapshot LDS bad@3 l@2
         ← LDS #2 bad@3 l@2
         → LDS nack 2: Error adding/updating listener(s) bad: no
         ! LDS #2 exact bad@3 (RouteTable/shop/bad@c1): Error adding/updating listener(s) bad: no
         ← LDS #3 bad@1 l@2 ~
         → LDS ack 3
         at 100s",
    );
}

#[test]
fn case_9_endpoints_refused_together_are_sent_apart() {
    check_state(
        "snapshot EDS a@1 bad@1
         → EDS a bad
         ← EDS #1 a@1 bad@1
         → EDS a bad nack 1: no
         ! EDS #1 suspected a@1 (RouteTable/shop/a@c1) bad@1 (RouteTable/shop/bad@c1): no
         ← EDS #2 a@1
         → EDS a bad ack 2
         ← EDS #3 bad@1
         → EDS a bad nack 3: no
         ! EDS #3 exact bad@1 (RouteTable/shop/bad@c1): no
         at 100s",
    );
}

#[test]
fn case_7_a_refusal_may_change_names() {
    check_state(
        "snapshot RDS r@1 s@1
         → RDS r
         ← RDS #1 r@1
         → RDS r s nack 1: no
         ! RDS #1 exact r@1 (RouteTable/shop/r@c1): no
         ← RDS #2 s@1
         → RDS s ack 2
         snapshot RDS r@2 s@1",
    );
}

#[test]
fn case_8_a_fix_is_sent_once() {
    check_state(
        "reports
         snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → CDS nack 1: no
         ! CDS #1 exact a@1 (RouteTable/shop/a@c1): no
         = CDS, 1 outstanding
         snapshot CDS a@2
         ← CDS #2 a@2
         → CDS holds a@2 ack 2
         = CDS a@2, 0 outstanding
         at 100s",
    );
}

/// Case 39; case 40.
#[test]
fn cases_39_and_40_unknown_types_are_ignored() {
    check_state(
        "snapshot CDS a@1
         → type.googleapis.com/envoy.api.v2.Cluster
         ~ type.googleapis.com/envoy.api.v2.Cluster unknown type
         → CDS error: what?
         ~ CDS error without a nonce
         ← CDS #1 a@1
         → type.googleapis.com/envoy.config.route.v3.VirtualHost r/host
         ~ type.googleapis.com/envoy.config.route.v3.VirtualHost unknown type
         → CDS ack 1
         snapshot CDS a@2
         ← CDS #2 a@2",
    );
}

#[test]
fn f3_route_configurations_travel_together_until_one_is_refused() {
    check_state(
        "snapshot RDS r@1 q@1
         → RDS r q
         ← RDS #1 q@1 r@1
         → RDS r q nack 1: no
         ! RDS #1 suspected q@1 (RouteTable/shop/q@c1) r@1 (RouteTable/shop/r@c1): no
         ← RDS #2 q@1
         → RDS r q ack 2
         ← RDS #3 r@1
         → RDS r q nack 3: no
         ! RDS #3 exact r@1 (RouteTable/shop/r@c1): no
         snapshot RDS r@2 q@2
         ← RDS #4 q@2
         → RDS r q ack 4
         ← RDS #5 r@2",
    );
}

#[test]
fn f3_one_secret_or_extension_per_response() {
    check_state(
        "snapshot SDS s@1 t@1 | ECDS x@1 y@1
         → SDS s t
         ← SDS #1 s@1
         → SDS s t ack 1
         ← SDS #2 t@1
         → SDS s t ack 2
         → ECDS x y
         ← ECDS #3 x@1
         → ECDS x y ack 3
         ← ECDS #4 y@1
         → ECDS x y ack 4",
    );
}
