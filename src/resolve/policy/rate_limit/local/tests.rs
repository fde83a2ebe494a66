//! What gateways count by themselves is what a service would count by the same rules.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tests::annotated;
use super::super::{LOCAL, ordered_item, sets};
use super::*;
use crate::ir::policy::rate_limit::{LimitAction, LimitUnit};
use crate::model::Kind;

fn config() -> ObjectRef {
    ObjectRef::new(Kind::RateLimitServerConfig, "c1", "shop", "rules")
}

fn local(raw: &str) -> LimitRules {
    annotated(Some(LOCAL.1), &format!("{{raw: {raw}}}")).valid()
}

fn header(key: &str) -> LimitAction {
    LimitAction::RequestHeader { header: format!("x-{key}").into(), key: key.into() }
}

fn generic(value: &str) -> LimitAction {
    LimitAction::Generic { key: None, value: value.into() }
}

/// The buckets for actions in their order, as `key=value>key requests`, without the first entry.
fn tree(rules: &str, actions: &[LimitAction]) -> Result<Vec<String>, String> {
    let rules = local(rules);
    let item = ordered_item(&config(), actions, None);
    Ok(shown_all(&buckets(&serving::node(&config(), &rules), &[item])?))
}

fn shown_all(buckets: &BTreeSet<Bucket>) -> Vec<String> {
    let show = |bucket: &Bucket| {
        let entries = bucket.entries.iter().skip(1).map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_string(),
        });
        let entries: Vec<String> = entries.collect();
        format!(
            "{} {}",
            entries.join(">"),
            bucket.limit.map_or_else(|| "any".to_owned(), |limit| limit.requests.to_string())
        )
    };
    buckets.iter().map(show).collect()
}

#[test]
fn each_value_has_its_limit_and_the_rest_the_one_for_any() {
    let rules = "{descriptors: [{key: plan, rateLimit: {unit: DAY, requestsPerUnit: 2}}, \
         {key: plan, value: gold, rateLimit: {unit: DAY, requestsPerUnit: 4}}, {key: plan, value: vip}, \
         {key: other, rateLimit: {unit: DAY, requestsPerUnit: 9}}]}";
    assert_eq!(tree(rules, &[header("plan")]), Ok(vec!["plan 2".into(), "plan=gold 4".into(), "plan=vip any".into()]));
    let nested = "{descriptors: [{key: generic_key, value: a, descriptors: [{key: who, rateLimit: {unit: DAY, \
         requestsPerUnit: 2}}]}, {key: generic_key, descriptors: [{key: who, rateLimit: {unit: DAY, requestsPerUnit: 3}}]}]}";
    assert_eq!(tree(nested, &[generic("a"), header("who")]), Ok(vec!["generic_key=a>who 2".into()]));
    assert_eq!(tree(nested, &[generic("b"), header("who")]), Ok(vec!["generic_key=b>who 3".into()]));
    assert_eq!(tree(nested, &[header("nobody")]), Ok(vec![]));
}

#[test]
fn of_sets_with_the_same_keys_the_first_counts() {
    let rules = local(
        "{setDescriptors: [{simpleDescriptors: [{key: account}, {key: tier, value: free}], rateLimit: {unit: DAY, \
         requestsPerUnit: 1}}, {simpleDescriptors: [{key: account}, {key: tier, value: paid}], rateLimit: {unit: DAY, \
         requestsPerUnit: 4}}]}",
    );
    let items = sets::items(&config(), &rules.sets, &[header("account"), header("tier")], None).items;
    let buckets = shown_all(&buckets(&serving::node(&config(), &rules), &items).expect("told apart"));
    let ends: Vec<&str> = buckets.iter().filter_map(|bucket| bucket.split_once('>')).map(|(_, end)| end).collect();
    assert_eq!(ends, ["account>tier=free 1", "account>tier=paid 4"]);
}

#[test]
fn rules_that_gateways_cannot_tell_apart_are_not_given_to_them() {
    let crossing = "{descriptors: [{key: a, value: x, descriptors: [{key: b, rateLimit: {unit: DAY, requestsPerUnit: 1}}]}, \
         {key: a, descriptors: [{key: b, value: y, rateLimit: {unit: DAY, requestsPerUnit: 2}}, \
         {key: b, rateLimit: {unit: DAY, requestsPerUnit: 3}}]}]}";
    let message = tree(crossing, &[header("a"), header("b")]).expect_err("both are for `a` of `x`");
    assert!(message.starts_with("gateways cannot tell the rules for `a`, `b` apart"), "{message}");
    let hidden = "{descriptors: [{key: a, value: x, descriptors: [{key: b, value: y, rateLimit: {unit: DAY, \
         requestsPerUnit: 1}}]}, {key: a, descriptors: [{key: b, rateLimit: {unit: DAY, requestsPerUnit: 2}}]}]}";
    assert!(tree(hidden, &[header("a"), header("b")]).is_err(), "the service lets `a` of `x` with any other `b` pass");
}

#[test]
fn rules_for_too_many_values_are_not_given_to_gateways() {
    let list = |number: usize| {
        let one = |index| format!("{{key: a, value: v{index}, rateLimit: {{unit: DAY, requestsPerUnit: 1}}}}");
        format!("{{descriptors: [{}]}}", (0..number).map(one).collect::<Vec<_>>().join(", "))
    };
    assert_eq!(tree(&list(256), &[header("a")]).map(|buckets| buckets.len()), Ok(256));
    for number in [257, 1025] {
        let message = tree(&list(number), &[header("a")]).expect_err("too many");
        assert!(message.contains("too many for gateways"), "{message}");
    }
}

#[test]
fn whoever_counts_is_said_by_one_word_and_no_server_is_needed() {
    let raw = "raw: {descriptors: [{key: a, value: b*, rateLimit: {unit: MINUTE, requestsPerUnit: 1}}]}";
    let own = annotated(Some("local"), &format!("{{{raw}}}"));
    assert_eq!(own.remarks, Vec::<String>::new(), "a `*` is one for gateways");
    assert!(own.valid().enforcers.services().is_empty());
    let beside = annotated(Some("local"), &format!("{{destinationServers: [{{ref: {{name: limiter}}}}], {raw}}}"));
    assert_eq!(beside.remarks, ["spec.destinationServers"]);
    for word in ["", "global", "Local", "true"] {
        let field = annotated(Some(word), &format!("{{{raw}}}")).fault();
        assert_eq!(field, "metadata.annotations.chancery/rate-limiting", "{word}");
    }
}

#[test]
fn what_a_bucket_cannot_say_is_refused_and_what_it_says_otherwise_is_told() {
    let zero = "{unit: DAY, requestsPerUnit: 0}";
    for (raw, field) in [
        (
            format!("{{descriptors: [{{key: a, descriptors: [{{key: b, rateLimit: {zero}}}]}}]}}"),
            "spec.raw.descriptors",
        ),
        (format!("{{setDescriptors: [{{rateLimit: {zero}}}]}}"), "spec.raw.setDescriptors[0].rateLimit"),
    ] {
        assert_eq!(annotated(Some("local"), &format!("{{raw: {raw}}}")).unsupported().0, field);
    }
    let limit = "rateLimit: {unit: MINUTE, requestsPerUnit: 1}";
    let long = |unit: &str| format!("rateLimit: {{unit: {unit}, requestsPerUnit: 1}}");
    for (raw, is_told) in [
        (format!("{{descriptors: [{{key: a, {limit}}}]}}"), false),
        // Counting begins anew with every edit of a route.
        (format!("{{descriptors: [{{key: a, descriptors: [{{key: b, {}}}]}}]}}", long("HOUR")), true),
        (format!("{{setDescriptors: [{{simpleDescriptors: [{{key: a}}], {}}}]}}", long("DAY")), true),
        (format!("{{descriptors: [{{key: a, {limit}, weight: 1}}, {{key: b, {limit}}}]}}"), true),
        (format!("{{descriptors: [{{key: a, {limit}, weight: 1}}, {{key: b, {limit}, weight: 1}}]}}"), false),
        (
            format!(
                "{{setDescriptors: [{{simpleDescriptors: [{{key: a}}], {limit}}}, {{simpleDescriptors: [{{key: b}}], {limit}}}]}}"
            ),
            true,
        ),
        (
            format!(
                "{{setDescriptors: [{{simpleDescriptors: [{{key: a, value: x}}], {limit}}}, {{simpleDescriptors: [{{key: a}}], {limit}}}]}}"
            ),
            false,
        ),
        (
            format!(
                "{{setDescriptors: [{{simpleDescriptors: [{{key: a}}], {limit}}}, {{{limit}, alwaysApply: true}}]}}"
            ),
            false,
        ),
    ] {
        let found = annotated(Some("local"), &format!("{{raw: {raw}}}"));
        assert_eq!(found.remarks, if is_told { vec!["spec.raw"] } else { vec![] }, "{raw}");
    }
}

/// What Envoy finds for a descriptor: the bucket of all its values, else any that fits, in no order.
fn found(buckets: &BTreeSet<Bucket>, descriptor: &[(&str, &str)]) -> BTreeSet<Option<Limit>> {
    let fits = |bucket: &&Bucket| {
        bucket.entries.len() == descriptor.len()
            && bucket
                .entries
                .iter()
                .zip(descriptor)
                .all(|((key, value), (own, its))| key == own && value.as_ref().is_none_or(|value| value == its))
    };
    let is_exact = |bucket: &&Bucket| bucket.entries.iter().all(|(_, value)| value.is_some());
    match buckets.iter().filter(fits).find(is_exact) {
        Some(exact) => [exact.limit].into(),
        None => buckets.iter().filter(fits).map(|bucket| bucket.limit).collect(),
    }
}

/// What the service finds: one walk down, without turning back.
fn asked(nodes: &[LimitNode], descriptor: &[(&str, &str)]) -> Option<Limit> {
    let ((key, value), rest) = descriptor.split_first()?;
    let by = |wanted: Option<&str>| nodes.iter().find(|node| node.key == *key && node.value.as_deref() == wanted);
    let node = by(Some(value)).or_else(|| by(None))?;
    match rest {
        [] => node.limit.as_ref().map(|named| named.limit),
        rest => asked(&node.nodes, rest),
    }
}

fn rules() -> impl Strategy<Value = Value> {
    let node = || (0..2_usize, prop::option::of(prop::sample::select(vec!["x", "y"])), prop::option::of(1..4_u32));
    let made = |key: &str, (_, value, limit): (usize, Option<&str>, Option<u32>), below: Vec<Value>| {
        let mut node = json!({"key": key, "descriptors": below});
        if let Some(value) = value {
            node["value"] = json!(value);
        }
        if let Some(limit) = limit {
            node["rateLimit"] = json!({"unit": "DAY", "requestsPerUnit": limit});
        }
        node
    };
    let last = prop::collection::vec(node().prop_map(move |node| made("b", node, vec![])), 0..4);
    prop::collection::vec((node(), last).prop_map(move |(node, below)| made("a", node, below)), 1..4)
        .prop_map(|tree| json!({"raw": {"descriptors": tree}}))
}

proptest! {
    #[test]
    fn gateways_allow_what_the_service_would_or_get_nothing(
        spec in rules(), fixed in prop::option::of(prop::sample::select(vec!["x", "z"]))
    ) {
        let Some(rules) = annotated(Some("local"), &spec.to_string()).accepted() else { return Ok(()) };
        let first = match fixed {
            Some(value) => LimitAction::Generic { key: Some("a".into()), value: value.into() },
            None => header("a"),
        };
        let node = serving::node(&config(), &rules);
        let items = [ordered_item(&config(), std::slice::from_ref(&first), None), ordered_item(&config(), &[first, header("b")], None)];
        let Ok(buckets) = buckets(&node, &items) else { return Ok(()) };
        let top = ("chancery.config", "c1/shop/rules");
        let values = fixed.map_or_else(|| vec!["x", "y", "z"], |fixed| vec![fixed]);
        for value in values {
            let short = vec![top, ("a", value)];
            let long = ["x", "y", "z"].map(|other| vec![top, ("a", value), ("b", other)]);
            for descriptor in std::iter::once(short).chain(long) {
                let local = found(&buckets, &descriptor);
                let wanted = asked(std::slice::from_ref(&node), &descriptor);
                let is_same = match wanted {
                    None => local.iter().all(Option::is_none),
                    Some(limit) => local == [Some(limit)].into(),
                };
                prop_assert!(is_same, "{descriptor:?}: {local:?} in place of {wanted:?}");
            }
        }
    }
}

#[test]
fn units_are_kept() {
    let raw = "{descriptors: [{key: a, rateLimit: {unit: HOUR, requestsPerUnit: 5}}]}";
    let made = buckets(&serving::node(&config(), &local(raw)), &[ordered_item(&config(), &[header("a")], None)]);
    let limit = made.expect("told apart").pop_first().and_then(|bucket| bucket.limit);
    assert_eq!(limit, Some(Limit { unit: LimitUnit::Hour, requests: 5 }));
}
