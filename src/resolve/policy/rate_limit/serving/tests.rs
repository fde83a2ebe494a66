//! What the service would refuse never reaches it: its own checks, written a second time, against rules at random.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tests::rules_of;
use super::*;
use crate::ir::policy::rate_limit::{Limit, LimitUnit, NamedLimit};

fn config(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RateLimitServerConfig, "c1", "shop", name)
}

/// Why the service would refuse nodes, as its loader does.
fn refused(nodes: &[LimitNode]) -> Option<String> {
    let mut known = BTreeSet::new();
    nodes.iter().find_map(|node| {
        let LimitNode { key, value, limit, nodes } = node;
        if key.is_empty() {
            return Some("an empty key".to_owned());
        }
        let composite = value.as_ref().map_or_else(|| key.to_string(), |value| format!("{key}_{value}"));
        if !known.insert(composite.clone()) {
            return Some(format!("twice {composite}"));
        }
        let replaced = limit.iter().flat_map(|limit| limit.replaces.iter().map(move |name| (limit, name)));
        for (NamedLimit { name, .. }, other) in replaced {
            if other.is_empty() || other == name {
                return Some(format!("{name} replaces {other:?}"));
            }
        }
        refused(nodes)
    })
}

/// Texts that are hard to tell apart once they are joined.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "b", "a_b", "b_a", "a_b_a", "_", "*", "a*", "chancery.set", "chancery"])
        .prop_map(str::to_owned)
}

fn limit() -> impl Strategy<Value = Value> {
    (0_u32..3, any::<bool>()).prop_map(|(number, is_known)| {
        let unit = if is_known { json!("DAY") } else { json!("UNKNOWN") };
        json!({"unit": if number == 0 { unit } else { json!("HOUR") }, "requestsPerUnit": number})
    })
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = (text(), text(), limit())
        .prop_map(|(key, value, limit)| json!({"key": key, "value": value, "rateLimit": limit}));
    leaf.prop_recursive(3, 12, 4, |inner| {
        (text(), text(), prop::collection::vec(inner, 1..4), 0_u32..3, any::<bool>()).prop_map(
            |(key, value, below, weight, always)| {
                json!({"key": key, "value": value, "descriptors": below, "weight": weight, "alwaysApply": always})
            },
        )
    })
}

fn set() -> impl Strategy<Value = Value> {
    let entries = prop::collection::vec((text(), text()), 0..4);
    (entries, limit(), any::<bool>()).prop_map(|(entries, limit, always)| {
        let entries: Vec<Value> = entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        json!({"simpleDescriptors": entries, "rateLimit": limit, "alwaysApply": always})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_the_service_takes(
        trees in prop::collection::vec(tree(), 0..4),
        sets in prop::collection::vec(set(), 0..6),
    ) {
        let spec = json!({"destinationServers": [{"ref": {"name": "l"}}], "raw": {"descriptors": trees, "setDescriptors": sets}});
        if let Some(rules) = rules_of(&spec.to_string()).accepted() {
            let node = node(&config("orders"), &rules);
            prop_assert_eq!(refused(std::slice::from_ref(&node)), None, "{}", spec);
        }
    }
}

#[test]
fn rules_that_cannot_be_told_apart_are_refused_by_both() {
    let spec = json!({"destinationServers": [{"ref": {"name": "l"}}], "raw": {"descriptors": [{"key": "a", "value": "b_c"}, {"key": "a_b", "value": "c"}]}});
    assert!(rules_of(&spec.to_string()).accepted().is_none());
    let leaf =
        |key: &str, value: &str| LimitNode { key: key.into(), value: Some(value.into()), limit: None, nodes: vec![] };
    assert_eq!(refused(&[leaf("a", "b_c"), leaf("a_b", "c")]).as_deref(), Some("twice a_b_c"));
}

/// A delivery of so many bytes, the younger the later its name.
fn delivery(name: &str, bytes: usize) -> Delivery {
    let id = config(name);
    let limit = NamedLimit { name: name.into(), limit: Limit { unit: LimitUnit::Day, requests: 1 }, replaces: vec![] };
    let node = LimitNode { key: "k".into(), value: None, limit: Some(limit), nodes: Vec::new() };
    let age = Age::new(None, &id);
    Delivery { servers: BTreeSet::new(), age, limits: Arc::new(ConfigurationLimits { id, node }), bytes }
}

#[test]
fn the_youngest_configurations_go_where_there_is_no_room() {
    let server = ObjectRef::new(Kind::Service, "c1", "shop", "limiter");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let all: Vec<Delivery> = names.iter().map(|name| delivery(name, LARGEST)).collect();
    let mut findings = Findings::new();
    let made = plan(&server, all.iter().rev(), &mut findings);
    let kept: Vec<&str> = made.configurations.iter().map(|configuration| &*configuration.id.name).collect();
    assert_eq!(kept, ["a", "b", "c", "d", "e", "f", "g"], "4 MiB are not quite eight times 512 KiB");
    let told: Vec<String> = findings.iter().filter_map(|f| f.subject.as_ref()).map(|id| id.name.to_string()).collect();
    assert_eq!(told, ["h", "i"]);
    assert!(findings.iter().all(|finding| finding.code == Code::Unsupported));
}

#[test]
fn rules_that_are_too_many_for_one_configuration_are_refused() {
    // Each names all later ones.
    let rule = |number: usize| json!({"simpleDescriptors": [{"key": format!("a rather long key, number {number}")}], "rateLimit": {"unit": "DAY", "requestsPerUnit": 1}});
    let spec = |count: usize| {
        let rules: Vec<Value> = (0..count).map(rule).collect();
        json!({"destinationServers": [{"ref": {"name": "l"}}], "raw": {"setDescriptors": rules}}).to_string()
    };
    assert!(rules_of(&spec(100)).accepted().is_some());
    assert_eq!(rules_of(&spec(450)).fault(), "spec.raw");
}
