use super::*;
use crate::model::{FieldPath, ObjectRef};

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-02-01T00:00:00Z";

fn id() -> ObjectRef {
    ObjectRef::new(Kind::RouteTable, "mgmt", "shop", "cart")
}

fn judged<'a>(
    approval: Approval,
    findings: &'a [Finding],
    counts: &'a BTreeMap<String, u64>,
    programmed: Option<Programmed>,
) -> Judged<'a> {
    Judged {
        kind: Kind::RouteTable,
        generation: 3,
        approval,
        message: findings.first().map_or("", |finding| &finding.message),
        counts,
        workspace: None,
        findings,
        programmed,
        connection: None,
    }
}

/// `type=status/reason` of each condition.
fn shown(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = status["conditions"].as_array().unwrap();
    let line = |c: &Value| format!("{}={}/{}", text(&c["type"]), text(&c["status"]), text(&c["reason"]));
    conditions.iter().map(line).collect()
}

fn all(gateways: usize, acknowledged: usize, refused: usize) -> Option<Programmed> {
    Some(Programmed { gateways, acknowledged, refused })
}

#[test]
fn r132_r135_the_api_s_own_fields_stand_where_its_readers_look() {
    let counts = [
        ("numParentRouteTables".to_owned(), 2),
        ("numAppliedRoutePolicies.security.policy.gloo.solo.io/v2, Kind=CORSPolicy".to_owned(), 5),
    ]
    .into();
    let workspace = Name::from("shop");
    let judged = Judged { workspace: Some(&workspace), ..judged(Approval::Accepted, &[], &counts, all(2, 2, 0)) };
    let status = document(&judged, &Value::Null, NOW);
    let state = json!({"approval": "ACCEPTED", "message": "", "observedGeneration": 3});
    assert_eq!(status["common"], json!({"State": state}));
    assert_eq!(status["numParentRouteTables"], 2);
    let applied = json!({"security.policy.gloo.solo.io/v2, Kind=CORSPolicy": 5});
    assert_eq!((&status["numAppliedRoutePolicies"], &status["ownedByWorkspace"]), (&applied, &json!("shop")));
    assert_eq!(status["gateways"], "2/2");
    assert_eq!(
        shown(&status),
        ["Accepted=True/Accepted", "ResolvedRefs=True/Resolved", "Programmed=True/Acknowledged"]
    );
    // Two kinds have it flat.
    let flat = document(&Judged { kind: Kind::RootTrustPolicy, ..judged }, &Value::Null, NOW);
    assert_eq!(
        (&flat["state"], &flat["observedGeneration"], &flat["common"]),
        (&json!("ACCEPTED"), &json!(3), &Value::Null)
    );
}

#[test]
fn r132_conditions_refine_the_verdict_and_never_contradict_it() {
    let none = BTreeMap::new();
    let missing = [Finding::error(&id(), Code::DestinationNotFound, "no Service `cart`")];
    let beaten = [Finding::warning(&id(), Code::BeatenByOlder, "`other` is older")];
    let refused = [Finding::error(&id(), Code::RefusedByGateway, "1 Envoy refused it")];
    let rows: [(_, _, &[Finding], _, &[&str]); 6] = [
        (
            "not there",
            Approval::Invalid,
            &missing,
            all(1, 1, 0),
            &[
                "Accepted=False/DestinationNotFound",
                "ResolvedRefs=False/DestinationNotFound",
                "Programmed=True/Acknowledged",
                "PartiallyInvalid=True/DestinationNotFound",
            ],
        ),
        (
            "beaten",
            Approval::Warning,
            &beaten,
            None,
            &[
                "Accepted=True/BeatenByOlder",
                "ResolvedRefs=True/Resolved",
                "Programmed=Unknown/NoGateways",
                "Conflicted=True/BeatenByOlder",
            ],
        ),
        (
            "refused",
            Approval::Failed,
            &refused,
            all(2, 0, 2),
            &["Accepted=False/RefusedByGateway", "ResolvedRefs=True/Resolved", "Programmed=False/Refused"],
        ),
        (
            "on its way",
            Approval::Accepted,
            &[],
            all(2, 1, 0),
            &["Accepted=True/Accepted", "ResolvedRefs=True/Resolved", "Programmed=False/Pending"],
        ),
        (
            "refused by one",
            Approval::Accepted,
            &[],
            all(2, 1, 1),
            &["Accepted=True/Accepted", "ResolvedRefs=True/Resolved", "Programmed=False/Refused"],
        ),
        (
            "nobody's",
            Approval::Pending,
            &[],
            None,
            &["Accepted=Unknown/Pending", "ResolvedRefs=True/Resolved", "Programmed=Unknown/NoGateways"],
        ),
    ];
    for (why, approval, findings, programmed, expected) in rows {
        let status = document(&judged(approval, findings, &none, programmed), &Value::Null, NOW);
        assert_eq!(shown(&status), expected, "{why}");
        assert_eq!(status["common"]["State"]["approval"], approval.as_str(), "{why}");
    }
}

#[test]
fn r137_the_time_of_a_condition_moves_only_with_its_value() {
    let none = BTreeMap::new();
    let first = document(&judged(Approval::Accepted, &[], &none, all(1, 0, 0)), &Value::Null, THEN);
    let again = document(&judged(Approval::Accepted, &[], &none, all(1, 0, 0)), &first, NOW);
    assert_eq!(first, again, "an hour later nothing is another");
    assert!(says(&first, &again));
    let later = document(&judged(Approval::Accepted, &[], &none, all(1, 1, 0)), &first, NOW);
    assert!(!says(&first, &later));
    let time = |status: &Value, name: &str| condition(status, name).unwrap()["lastTransitionTime"].clone();
    assert_eq!((time(&later, "Accepted"), time(&later, "Programmed")), (json!(THEN), json!(NOW)));
}

#[test]
fn r137_what_others_write_beside_it_is_no_difference() {
    let none = BTreeMap::new();
    let wanted = document(&judged(Approval::Accepted, &[], &none, None), &Value::Null, NOW);
    let mut there = wanted.clone();
    there["somebody"] = json!({"else": true});
    there["common"]["workspaceConditions"] = json!({"ACCEPTED": 1});
    there["conditions"].as_array_mut().unwrap().push(json!({"type": "Theirs", "status": "True"}));
    assert!(says(&there, &wanted));
    // One of ours that is over is to go.
    there["conditions"].as_array_mut().unwrap().push(json!({"type": "Shadowed", "status": "True"}));
    assert!(!says(&there, &wanted));
}

#[test]
fn r10_a_cluster_that_was_connected_once_says_so_for_the_next_run() {
    let none = BTreeMap::new();
    let with = |is_connected, is_synced, message, before: &Value| {
        let connection = Connection { is_connected, is_synced, message };
        let kind = Kind::KubernetesCluster;
        let judged = Judged { kind, connection: Some(connection), ..judged(Approval::Accepted, &[], &none, None) };
        document(&judged, before, NOW)
    };
    let never = with(false, false, "no answer", &Value::Null);
    assert_eq!(shown(&never)[2..], ["Connected=False/Unreachable", "Synced=False/NeverConnected"]);
    let synced = with(true, true, "", &never);
    assert_eq!(shown(&synced)[2..], ["Connected=True/Connected", "Synced=True/Synced"]);
    let lost = with(false, true, "no answer", &synced);
    assert_eq!(shown(&lost)[2..], ["Connected=False/Unreachable", "Synced=False/Lost"]);
    // Of another run, which never read it.
    assert_eq!(shown(&with(false, false, "", &lost))[2..], ["Connected=False/Connecting", "Synced=False/Lost"]);
}

#[test]
fn what_does_not_apply_is_listed_with_its_path() {
    let none = BTreeMap::new();
    let path = FieldPath::new("spec.workloadSelectors");
    let findings = [Finding::info(&id(), Code::NotApplicable, "gateways only").at(path)];
    let status = document(&judged(Approval::Accepted, &findings, &none, None), &Value::Null, NOW);
    assert_eq!(status["notApplicable"], json!([{"path": "spec.workloadSelectors", "reason": "gateways only"}]));
    assert_eq!(shown(&status)[0], "Accepted=True/Accepted");
}

#[test]
fn reasons_are_codes_in_camel_case() {
    assert_eq!(camel(Code::DestinationNotFound), "DestinationNotFound");
    assert_eq!(camel(Code::Weights), "Weights");
}
