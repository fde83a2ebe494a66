//! The services for one type: cases 22, 31 and 42, and requests that don't fit.

use super::*;

#[test]
fn case_42_no_stream_waits_for_another() {
    let script = |variant| match variant {
        Variant::Delta => {
            "snapshot CDS a@1 | LDS l@1 | RDS r@1
             → RDS +r
             ← RDS #1 r@1"
        }
        Variant::StateOfTheWorld => {
            "snapshot CDS a@1 | LDS l@1 | RDS r@1
             → RDS r
             ← RDS #1 r@1"
        }
    };
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        check_only(ResourceType::Route, variant, script(variant));
    }
}

#[test]
fn case_22_and_42_removals_wait_for_nobody() {
    check_only(
        ResourceType::Cluster,
        Variant::Delta,
        "snapshot CDS a@1 b@1 | LDS l@1 | RDS r@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         snapshot CDS a@1
         ← CDS #2 -b",
    );
    check_only(
        ResourceType::Cluster,
        Variant::StateOfTheWorld,
        "snapshot CDS a@1 b@1 | LDS l@1 | RDS r@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         snapshot CDS a@1
         ← CDS #2 a@1 -b",
    );
}

#[test]
fn requests_that_do_not_fit_end_the_stream() {
    let cds = || Session::of_one_type(SessionSettings::default(), Variant::Delta, ResourceType::Cluster);
    for asked in ["LDS", "type.googleapis.com/envoy.api.v2.Cluster"] {
        let error = cds().request(Duration::ZERO, &request(asked)).unwrap_err();
        assert!(matches!(error, RequestError::Type { .. }), "{error}");
        let error = cds().request_state(Duration::ZERO, &state_request(asked)).unwrap_err();
        assert!(error.to_string().contains("v3.Cluster, and a request asks for"), "{error}");
    }
}

#[test]
fn a_service_for_one_type_knows_the_type() {
    let mut session = Session::of_one_type(SessionSettings::default(), Variant::Delta, ResourceType::Cluster);
    assert!(session.request(Duration::ZERO, &DeltaRequest::default()).unwrap().is_empty());
    let snapshot = Snapshot::new().with(ResourceType::Cluster, [resource("a@1")]);
    let outputs = session.snapshot(Duration::ZERO, Arc::new(snapshot));
    assert!(matches!(outputs.as_slice(), [Output::Respond(_)]), "{outputs:?}");
}
