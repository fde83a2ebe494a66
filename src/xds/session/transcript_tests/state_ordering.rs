//! State of the world: order, batches and sizes: cases 31 to 35.

use super::*;

#[test]
fn first_load() {
    check_state(
        "→ CDS
         snapshot SDS s@1 | CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1
         ← CDS #1 a@1 b@1
         → EDS a b
         ← EDS #2 a@1 b@1
         → EDS a b holds a@1,b@1 ack 2
         → CDS holds a@1,b@1 ack 1
         → LDS
         ← LDS #3 l@1
         → LDS ack 3
         → RDS r
         ← RDS #4 r@1
         → SDS s
         ← SDS #5 s@1
         → RDS r ack 4
         → SDS s ack 5",
    );
}

#[test]
fn case_31_make_before_break() {
    check_state(
        "at 5s
         snapshot CDS old@1 | EDS old@1 | LDS l@1 | RDS r@1
         → CDS holds old@1
         → EDS old holds old@1
         ← EDS #1 old@1
         → EDS old ack 1
         → LDS holds l@1
         → RDS r holds r@1
         ← RDS #2 r@1
         → RDS r ack 2
         snapshot CDS new@1 | EDS new@1 | LDS l@2 | RDS r@2
         ← CDS #3 new@1 old@1 ~
         → EDS new old ack 1
         ← EDS #4 new@1
         → EDS new old ack 4
         → CDS ack 3
         ← LDS #5 l@2
         → LDS ack 5
         ← RDS #6 r@2
         → RDS r ack 6
         ← CDS #7 new@1 -old
         → EDS new ack 4
         → CDS ack 7",
    );
}

#[test]
fn case_31_what_a_refused_route_still_uses_stays() {
    check_state(
        "at 5s
         snapshot CDS new@1 old@1 | LDS l@1 | RDS r@1
         → CDS holds new@1,old@1
         → LDS holds l@1
         → RDS r holds r@1
         ← RDS #1 r@1
         → RDS r ack 1
         snapshot CDS new@1 | RDS r@2
         ← RDS #2 r@2
         → RDS r nack 2: no
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no
         at 1000s
         snapshot CDS new@2
         ← CDS #3 new@2 old@1 ~
         → CDS ack 3
         snapshot RDS r@3
         ← RDS #4 r@3
         → RDS r ack 4
         ← CDS #5 new@2 -old",
    );
}

#[test]
fn case_31_a_listener_takes_an_address_over_in_one_response() {
    check_state(
        "snapshot LDS old@1
         → LDS holds old@1
         snapshot LDS new@1
         ← LDS #1 new@1 -old
         → LDS ack 1",
    );
}

#[test]
fn case_32_a_client_that_never_acknowledges_clusters() {
    check_state(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → LDS
         at 19s
         at 20s
         ← LDS #2 l@1
         → LDS ack 2
         snapshot CDS a@1 | RDS r@1
         → RDS r
         ← RDS #3 r@1",
    );
}

/// Case 33; case 34.
#[test]
fn case_33_and_34_snapshots_in_between_collapse_into_the_newest() {
    check_state(
        "snapshot EDS a@1 | CDS a@1
         → EDS a
         ← EDS #1 a@1
         → CDS
         ← CDS #2 a@1
         snapshot EDS a@2 | CDS a@2 b@1
         snapshot EDS a@3 | CDS a@3
         snapshot EDS a@4 | CDS a@4
         → EDS a ack 1
         ← EDS #3 a@4
         → CDS ack 2
         ← CDS #4 a@4
         → EDS a ack 3
         ← EDS #5 a@4
         → EDS a ack 5",
    );
}

#[test]
fn case_35_clusters_travel_together_whatever_their_size_and_endpoints_apart() {
    let mut session = Session::new(SessionSettings::default(), Variant::StateOfTheWorld);
    let big = |name: &str, bytes: usize| Arc::new(Resource { body: vec![0; bytes].into(), ..resource(name) });
    let resources: Resources = [("a@1", 3 << 20), ("b@1", 3 << 20), ("c@1", 17 << 20)]
        .into_iter()
        .map(|(name, bytes)| (resource(name).name, big(name, bytes)))
        .collect();
    let resources = Arc::new(resources);
    let snapshot = Snapshot::new()
        .with_shared(ResourceType::Cluster, resources.clone())
        .with_shared(ResourceType::Endpoint, resources);
    assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
    for (asked, expected) in [("CDS", vec!["a b c"]), ("EDS a b c", vec!["a", "b", "c"])] {
        let mut sent = Vec::new();
        let mut outputs = session.request_state(Duration::ZERO, &state_request(asked)).unwrap();
        while let Some(Output::Respond(response)) = outputs.last() {
            sent.push(response.resources.iter().map(|r| r.name.to_string()).collect::<Vec<_>>().join(" "));
            let answer = state_request(&format!("{asked} ack {}", response.nonce));
            outputs = session.request_state(Duration::ZERO, &answer).unwrap();
        }
        assert_eq!(sent, expected);
    }
}
