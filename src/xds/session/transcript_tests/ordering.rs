//! Order, batches and sizes: cases 31 to 35.

use super::*;

#[test]
fn first_load() {
    check(
        "→ CDS
         snapshot SDS s@1 | CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1
         ← CDS #1 a@1 b@1
         → EDS +a +b
         ← EDS #2 a@1 b@1
         → EDS ack 2
         → CDS ack 1
         → LDS
         ← LDS #3 l@1
         → LDS ack 3
         → RDS +r
         ← RDS #4 r@1
         → SDS +s
         ← SDS #5 s@1
         → RDS ack 4
         → SDS ack 5",
    );
}

#[test]
fn case_31_make_before_break() {
    check(
        "at 5s
         snapshot CDS old@1 | EDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → EDS +old have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS new@1 | EDS new@1 | LDS l@2 | RDS r@2
         ← CDS #1 new@1
         → EDS +new
         ← EDS #2 new@1
         → EDS ack 2
         → CDS ack 1
         ← LDS #3 l@2
         → LDS ack 3
         ← RDS #4 r@2
         → RDS ack 4
         ← CDS #5 -old
         → EDS -old
         → CDS ack 5",
    );
}

#[test]
fn case_31_a_part_goes_with_its_scope_and_its_cluster_after_it() {
    let begin = "at 5s
         snapshot CDS old@1 | EDS old@1 | LDS l@1 | SRDS p@1 q@1 | RDS p@1 q@1
         → CDS have old@1
         → EDS +old have old@1
         → LDS have l@1
         → SRDS have p@1 have q@1
         → RDS +p +q have p@1 have q@1
         snapshot CDS | EDS | SRDS q@1 | RDS q@1
         ← SRDS #1 -p";
    // Envoy gives up the routes of a scope that goes, before or after it says that it went.
    check(&format!(
        "{begin}
         → RDS -p
         → SRDS ack 1
         ← CDS #2 -old
         → EDS -old
         → CDS ack 2"
    ));
    check(&format!(
        "{begin}
         → SRDS ack 1
         ← RDS #2 -p
         → RDS -p ack 2
         ← CDS #3 -old
         → EDS -old
         → CDS ack 3"
    ));
}

#[test]
fn case_31_scopes_stay_until_the_whole_is_there() {
    check(
        "at 5s
         snapshot LDS l@1 | SRDS p@1 | RDS p@1
         → LDS have l@1
         → SRDS have p@1
         → RDS +p have p@1
         snapshot LDS l@2 | SRDS | RDS whole@1
         ← LDS #1 l@2
         → RDS +whole
         → LDS ack 1
         ← RDS #2 whole@1
         → RDS ack 2
         ← SRDS #3 -p
         → RDS -p
         → SRDS ack 3",
    );
}

#[test]
fn case_31_a_removal_on_its_way_lets_no_route_pass_a_new_cluster() {
    check(
        "at 5s
         snapshot CDS a@1 b@1 | LDS l@1 | RDS r@1
         → CDS have a@1 have b@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS a@1
         ← CDS #1 -b
         snapshot CDS a@1 c@1 | RDS r@2
         → CDS ack 1
         ← CDS #2 c@1
         → CDS ack 2
         ← RDS #3 r@2",
    );
}

#[test]
fn case_31_removals_wait_for_routes_that_a_new_listener_will_ask_for() {
    check(
        "at 5s
         snapshot CDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS new@1 | LDS l@2 | RDS q@1
         ← CDS #1 new@1
         → CDS ack 1
         ← LDS #2 l@2
         → LDS ack 2
         ← RDS #3 -r
         → RDS +q -r
         → RDS ack 3
         ← RDS #4 q@1
         → RDS ack 4
         ← CDS #5 -old",
    );
}

#[test]
fn case_31_what_a_refused_route_still_uses_stays() {
    check(
        "at 5s
         snapshot CDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS | RDS r@2
         ← RDS #1 r@2
         → RDS nack 1: no
         ! RDS #1 exact r@2 (RouteTable/shop/r@c1): no
         at 1000s
         snapshot RDS r@3
         ← RDS #2 r@3
         → RDS ack 2
         ← CDS #3 -old",
    );
}

#[test]
fn case_31_a_listener_takes_an_address_over_in_one_response() {
    check(
        "snapshot LDS old@1
         → LDS have old@1
         snapshot LDS new@1
         ← LDS #1 new@1 -old
         → LDS nack 1: no
         ! LDS #1 suspected new@1 (RouteTable/shop/new@c1): no
         ← LDS #2 -old
         → LDS ack 2
         ← LDS #3 new@1",
    );
}

#[test]
fn case_32_a_client_that_never_acknowledges_clusters() {
    check(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → LDS
         at 19s
         at 20s
         ← LDS #2 l@1
         → LDS ack 2
         snapshot CDS a@1 | RDS r@1
         → RDS +r
         ← RDS #3 r@1",
    );
}

#[test]
fn case_33_snapshots_in_between_collapse_into_the_newest() {
    check(
        "snapshot EDS a@1
         → EDS +a
         ← EDS #1 a@1
         snapshot EDS a@2
         snapshot EDS a@3
         snapshot EDS a@4
         → EDS ack 1
         ← EDS #2 a@4
         → EDS ack 2",
    );
}

#[test]
fn case_34_thousands_of_changes_collapse_into_the_newest() {
    let changes: String = (2..=5000).map(|version| format!("snapshot EDS a@{version}\n")).collect();
    check(&format!(
        "snapshot EDS a@1
         → EDS +a
         ← EDS #1 a@1
         {changes}
         → EDS ack 1
         ← EDS #2 a@5000
         → EDS ack 2"
    ));
    check_state(&format!(
        "snapshot EDS a@1
         → EDS a
         ← EDS #1 a@1
         {changes}
         → EDS a ack 1
         ← EDS #2 a@5000
         → EDS a ack 2"
    ));
}

#[test]
fn case_36_what_is_wanted_for_several_reasons_is_sent_once() {
    check(
        "snapshot CDS a@1 | EDS a@1
         → CDS +* +a
         ← CDS #1 a@1
         → EDS +a +a
         ← EDS #2 a@1
         → CDS ack 1
         → EDS +a ack 2
         ← EDS #3 a@1
         → EDS ack 3
         snapshot CDS a@2 | EDS a@2
         ← CDS #4 a@2
         ← EDS #5 a@2",
    );
}

#[test]
fn case_35_responses_stay_below_the_limit_where_they_can() {
    let mut session = Session::new(SessionSettings::default(), Variant::Delta);
    let big = |name: &str, bytes: usize| Arc::new(Resource { body: vec![0; bytes].into(), ..resource(name) });
    let resources: Resources = [("a@1", 3 << 20), ("b@1", 3 << 20), ("c@1", 9 << 20), ("d@1", 10)]
        .into_iter()
        .map(|(name, bytes)| (resource(name).name, big(name, bytes)))
        .collect();
    let snapshot = Snapshot::new().with_shared(ResourceType::Cluster, Arc::new(resources));
    let mut sent = Vec::new();
    assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
    let mut outputs = session.request(Duration::ZERO, &request("CDS")).unwrap();
    while let Some(Output::Respond(response)) = outputs.last() {
        sent.push(response.resources.iter().map(|resource| resource.name.to_string()).collect::<Vec<_>>().join(" "));
        outputs = session.request(Duration::ZERO, &request(&format!("CDS ack {}", response.nonce))).unwrap();
    }
    assert_eq!(sent, ["a", "b", "c", "d"]);
}

/// A client that holds no endpoints of what is protected.
const HOLDS_NONE: &str = "at 5s
         snapshot CDS vault@1 a@1 | EDS vault@none a@none | LDS l@1 | RDS r@1
         → CDS have vault@1 have a@1
         → EDS +vault +a have vault@none have a@none
         → LDS have l@1
         → RDS +r have r@1
         ";

#[test]
fn r130_first_endpoints_come_after_the_routes_that_protect_them() {
    check(&format!(
        "{HOLDS_NONE}
         snapshot EDS vault@1 a@1 | RDS r@2
         ← EDS #1 a@1
         ← RDS #2 r@2
         → EDS ack 1
         → RDS ack 2
         ← EDS #3 vault@1
         → EDS ack 3
         snapshot EDS vault@2 a@1 | RDS r@3
         ← EDS #4 vault@2
         ← RDS #5 r@3"
    ));
}

#[test]
fn r130_a_cluster_that_warms_is_told_that_there_are_no_endpoints_until_it_protects_them() {
    check(&format!(
        "{HOLDS_NONE}
         snapshot CDS vault@2 a@1 | EDS vault@1 a@none
         ← CDS #1 vault@2
         ← EDS #2 vault@none
         → EDS ack 2
         → CDS ack 1
         ← EDS #3 vault@1
         → EDS ack 3"
    ));
}

/// Edits that go on do not hold them up: one acknowledgement is enough.
#[test]
fn r130_first_endpoints_wait_for_the_routes_of_their_edit_and_no_others() {
    check(&format!(
        "{HOLDS_NONE}
         snapshot RDS r@2
         ← RDS #1 r@2
         snapshot EDS vault@1 a@none
         snapshot RDS r@3
         → RDS ack 1
         ← RDS #2 r@3
         snapshot RDS r@4
         → RDS ack 2
         ← EDS #3 vault@1
         ← RDS #4 r@4"
    ));
}

/// A client that never answers gets them in the end.
#[test]
fn r130_first_endpoints_wait_no_longer_than_anything_else() {
    check(&format!(
        "{HOLDS_NONE}
         snapshot EDS vault@1 a@none | RDS r@2
         ← RDS #1 r@2
         at 24s
         at 25s
         ← EDS #2 vault@1"
    ));
}

/// They wait too for a client that connects again, until it has said what routes it holds.
#[test]
fn r130_first_endpoints_wait_for_routes_of_the_stream_before() {
    check(
        "snapshot CDS vault@1 | EDS vault@1 | LDS l@1 | RDS r@2
         → CDS have vault@1
         → EDS +vault have vault@none
         → LDS have l@1
         → RDS +r have r@1
         ← RDS #1 r@2
         → RDS ack 1
         ← EDS #2 vault@1",
    );
}
