use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::model::FieldPath;
use crate::resolve::Options;
use crate::testing::{cluster_of, compile_manifests, yaml};

/// The objects of all cases on status together: a world with verdicts of every approval.
fn manifests() -> Vec<(String, Value)> {
    let text = include_str!("../../cases/status.md");
    let mut seen = BTreeSet::new();
    text.split("```yaml\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .flat_map(|block| yaml::documents(block).expect("cases are YAML"))
        .filter(|manifest| {
            let text = |pointer: &str| manifest.pointer(pointer).map(ToString::to_string);
            seen.insert([text("/kind"), text("/metadata/namespace"), text("/metadata/name")])
        })
        .map(|manifest| (cluster_of(&manifest), manifest))
        .collect()
}

fn verdicts_of(manifests: Vec<(String, Value)>) -> OrdMap<ObjectRef, Arc<Verdict>> {
    compile_manifests(manifests, &Options::default()).verdicts
}

/// R137: whoever writes statuses compares verdicts, so equal inputs must give equal ones, in every order of arrival.
#[test]
fn equal_inputs_give_equal_verdicts() {
    let verdicts = verdicts_of(manifests());
    for approval in [Approval::Pending, Approval::Accepted, Approval::Warning, Approval::Invalid, Approval::Failed] {
        assert!(verdicts.values().any(|verdict| verdict.approval == approval), "{approval}");
    }
    assert_eq!(verdicts_of(manifests()), verdicts);
    let mut turned = manifests();
    turned.reverse();
    assert_eq!(verdicts_of(turned), verdicts);
}

/// R132, R137: a new generation of one object that says the same changes that object's verdict, and no other.
#[test]
fn a_verdict_names_the_generation_that_it_is_about() {
    let before = verdicts_of(manifests());
    let mut edited = manifests();
    let table = edited.iter_mut().find(|(_, manifest)| manifest["kind"] == "RouteTable").expect("a table");
    table.1["metadata"]["generation"] = 7.into();
    let after = verdicts_of(edited);
    let changed: Vec<(&ObjectRef, i64)> = after
        .iter()
        .filter(|(id, verdict)| before.get(*id) != Some(*verdict))
        .map(|(id, verdict)| (id, verdict.generation))
        .collect();
    let [(id, 7)] = changed.as_slice() else { panic!("{changed:?}") };
    assert_eq!(id.kind, Kind::RouteTable);
    assert_eq!((before[*id].approval, &before[*id].message), (after[*id].approval, &after[*id].message));
}

#[test]
fn a_message_keeps_its_bound_and_counts_the_rest() {
    let id: ObjectRef = "RouteTable/shop/www@cluster-1".parse().expect("a name");
    let long = "x".repeat(1_000);
    let findings: Vec<Finding> = (0..100).map(|_| Finding::error(&id, Code::Weights, long.clone())).collect();
    let text = message(&findings);
    assert!(text.len() <= MAX_MESSAGE + 32 && text.starts_with("WEIGHTS: x"), "{}", text.len());
    assert!(text.ends_with(&format!("; and {} more", 100 - text.matches("WEIGHTS").count())));
}

/// R132: of a field that is unknown or wrong the message says where it stands.
#[test]
fn a_message_says_which_of_many_fields_is_meant() {
    let id: ObjectRef = "RouteTable/shop/www@cluster-1".parse().expect("a name");
    let unknown = Finding::warning(&id, Code::UnknownField, "unknown field `matcher` is ignored");
    let wrong = Finding::error(&id, Code::InvalidField, "70000 is no port");
    let findings = [
        wrong.clone().at(FieldPath::new("spec.http[1].redirect.port")),
        wrong,
        unknown.at(FieldPath::new("spec.http[0].matcher")),
        Finding::error(&id, Code::Weights, "no weights").at(FieldPath::new("spec.http[0]")),
    ];
    assert_eq!(
        message(&findings),
        "INVALID_FIELD: 70000 is no port (spec.http[1].redirect.port); INVALID_FIELD: 70000 is no port; \
         UNKNOWN_FIELD: unknown field `matcher` is ignored (spec.http[0].matcher); WEIGHTS: no weights"
    );
}

/// R132: what Envoy refused is FAILED, also where something else is wrong; but what nobody owns is not processed.
#[test]
fn a_refusal_by_envoy_is_the_gravest() {
    let table: ObjectRef = "RouteTable/shop/www@cluster-1".parse().expect("a name");
    let refused = Finding::error(&table, Code::RefusedByGateway, "1 of 2 Envoys refused `route/8080`");
    let invalid = Finding::error(&table, Code::DestinationNotFound, "no Service `cart`");
    let unsupported = Finding::error(&table, Code::Unsupported, "no `awsLambda`");
    for (findings, counted, expected) in [
        (vec![refused.clone()], true, Approval::Failed),
        (vec![invalid.clone(), refused.clone()], true, Approval::Failed),
        (vec![invalid], true, Approval::Invalid),
        (vec![unsupported.clone()], true, Approval::Invalid),
        (vec![refused.clone()], false, Approval::Pending),
    ] {
        assert_eq!(approval(Kind::RouteTable, &findings, counted), expected, "{findings:?}");
    }
    assert_eq!(approval(Kind::CorsPolicy, &[refused], true), Approval::Failed);
    assert_eq!(approval(Kind::CorsPolicy, &[unsupported], true), Approval::Failed);
}
