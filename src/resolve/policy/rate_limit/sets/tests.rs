//! The compiled form against the meaning of sets: a small service that walks trees as the open one does, and a plain
//! reading of the rules, asked the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ir::policy::rate_limit::{Limit, LimitUnit, MetadataSource};
use crate::model::Kind;

fn config() -> ObjectRef {
    ObjectRef::new(Kind::RateLimitServerConfig, "c1", "shop", "orders")
}

/// A rule as `key=value key`, with `!` in front where it always applies.
fn rule(text: &str, requests: u32) -> SetRule {
    let (text, always_apply) = text.strip_prefix('!').map_or((text, false), |rest| (rest, true));
    let mut entries: Vec<(Name, Option<Name>)> = text
        .split_whitespace()
        .map(|entry| match entry.split_once('=') {
            Some((key, value)) => (key.into(), Some(value.into())),
            None => (entry.into(), None),
        })
        .collect();
    entries.sort();
    SetRule { entries, limit: Limit { unit: LimitUnit::Minute, requests }, always_apply }
}

fn rules(texts: &[&str]) -> Vec<SetRule> {
    texts.iter().zip(1..).map(|(text, requests)| rule(text, requests)).collect()
}

fn header(key: &str) -> LimitAction {
    LimitAction::RequestHeader { header: format!("x-{key}").into(), key: key.into() }
}

fn generic(value: &str) -> LimitAction {
    LimitAction::Generic { key: None, value: value.into() }
}

/// What a gateway makes of an item for a request with some headers; nothing where an action yields none.
fn descriptor(item: &LimitItem, request: &BTreeMap<String, String>) -> Option<Vec<(String, String)>> {
    let entry = |action: &LimitAction| {
        let value = match action {
            LimitAction::Generic { value, .. } => value.to_string(),
            LimitAction::RequestHeader { header, .. } => request.get(header.as_str())?.clone(),
            other => panic!("{other:?}"),
        };
        Some((action.key().to_owned(), value))
    };
    item.actions.iter().map(entry).collect()
}

/// The limit on which a walk ends, by value, else by bare key, and never back.
fn walk<'a>(nodes: &'a [LimitNode], descriptor: &[(String, String)]) -> Option<&'a NamedLimit> {
    let ((key, value), rest) = descriptor.split_first()?;
    let of_key = |node: &&LimitNode| node.key == *key.as_str();
    let by_value = nodes.iter().filter(of_key).find(|node| node.value.as_deref() == Some(value));
    let node = by_value.or_else(|| nodes.iter().filter(of_key).find(|node| node.value.is_none()))?;
    if rest.is_empty() { node.limit.as_ref() } else { walk(&node.nodes, rest) }
}

/// Positions of the rules that count for a request, as the service decides.
fn counted(rules: &[SetRule], actions: &[LimitAction], request: &BTreeMap<String, String>) -> Vec<u32> {
    let nodes = nodes(&config(), rules).unwrap().nodes;
    let items = items(&config(), rules, actions, None).items;
    let root =
        [LimitNode { key: super::super::CONFIG_KEY.into(), value: Some("c1/shop/orders".into()), limit: None, nodes }];
    let matched: Vec<&NamedLimit> =
        items.iter().filter_map(|item| descriptor(item, request)).filter_map(|d| walk(&root, &d)).collect();
    let mut counted: Vec<u32> = matched
        .iter()
        .filter(|limit| !matched.iter().any(|other| other.replaces.contains(&limit.name)))
        .map(|limit| limit.limit.requests)
        .collect();
    counted.sort_unstable();
    counted.dedup();
    counted
}

/// The same by the plain reading: the first that matches, and all that always apply.
fn expected(rules: &[SetRule], actions: &[LimitAction], request: &BTreeMap<String, String>) -> Vec<u32> {
    let yields: Vec<(String, String)> = actions
        .iter()
        .filter_map(|action| match action {
            LimitAction::Generic { value, .. } => Some(("generic_key".to_owned(), value.to_string())),
            LimitAction::RequestHeader { header, key } => {
                Some((key.to_string(), request.get(header.as_str())?.clone()))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let matches = |rule: &SetRule| {
        rule.entries.iter().all(|(key, value)| {
            yields.iter().any(|(k, v)| *k == **key && value.as_ref().is_none_or(|value| **value == **v))
        })
    };
    let mut found = false;
    let mut counted = Vec::new();
    for rule in rules.iter().filter(|rule| matches(rule)) {
        if !found || rule.always_apply {
            counted.push(rule.limit.requests);
        }
        found = true;
    }
    counted
}

fn request(headers: &[(&str, &str)]) -> BTreeMap<String, String> {
    headers.iter().map(|(key, value)| (format!("x-{key}"), (*value).to_owned())).collect()
}

#[test]
fn the_example_of_the_reference() {
    let rules = rules(&["account tier=free", "account tier=paid", "!"]);
    let account = LimitAction::Metadata {
        key: "account".into(),
        path: MetadataPath { filter: "envoy.filters.http.ext_authz".into(), steps: vec!["account".into()] },
        default: None,
        source: MetadataSource::Dynamic,
    };
    let found = items(&config(), &rules, &[header("tier"), account.clone()], None);
    assert_eq!(found.remarks, Vec::<String>::new());
    assert_eq!(found.items.len(), 2, "two rules share an item");
    assert_eq!(found.items[0].actions[2..], [account, header("tier")], "sorted by key");
    assert_eq!(found.items[1].actions.len(), 2);
    let set = LimitAction::Generic { key: Some("chancery.set".into()), value: "r-empty".into() };
    assert_eq!(found.items[1].actions[1], set);
    let nodes = nodes(&config(), &rules).unwrap();
    assert_eq!(nodes.unreachable, Vec::<usize>::new());
    let shared = &nodes.nodes[0];
    assert_eq!(
        (shared.key.as_str(), shared.nodes[0].key.as_str(), &shared.nodes[0].value),
        ("chancery.set", "account", &None)
    );
    let leaves: Vec<String> = shared.nodes[0]
        .nodes
        .iter()
        .map(|leaf| {
            let limit = leaf.limit.as_ref().unwrap();
            let replaces: Vec<&str> = limit.replaces.iter().map(Name::as_str).collect();
            format!("{}={:?} {} {:?}", leaf.key, leaf.value.as_deref().unwrap(), limit.name, replaces)
        })
        .collect();
    assert_eq!(
        leaves,
        ["tier=\"free\" c1/shop/orders#r0 [\"c1/shop/orders#r1\"]", "tier=\"paid\" c1/shop/orders#r1 []"],
        "names tell configurations apart, because they cancel each other in a whole request"
    );
    assert_eq!(nodes.nodes[1].limit.as_ref().unwrap().name, "c1/shop/orders#r2");
}

#[test]
fn the_first_rule_counts_and_all_that_always_apply() {
    let all = rules(&["a=1 b", "!a=1", "b", "", "!b=2"]);
    let actions = [header("a"), header("b")];
    for (headers, wanted) in [
        (&[("a", "1"), ("b", "2")][..], &[1, 2, 5][..]),
        (&[("a", "1")], &[2]),
        (&[("b", "2")], &[3, 5]),
        (&[("b", "3")], &[3]),
        (&[], &[4]),
    ] {
        assert_eq!(counted(&all, &actions, &request(headers)), wanted, "{headers:?}");
    }
}

#[test]
fn a_rule_without_a_value_fits_under_every_value_of_others() {
    // The walk never goes back, so the bare rule is below the value of the first, too.
    let all = rules(&["a=1 b=1", "a b=2", "a b"]);
    let actions = [header("a"), header("b")];
    assert_eq!(counted(&all, &actions, &request(&[("a", "1"), ("b", "2")])), [2]);
    assert_eq!(counted(&all, &actions, &request(&[("a", "1"), ("b", "9")])), [3]);
}

#[test]
fn rules_that_never_count_are_told() {
    let found = nodes(&config(), &rules(&["a", "a=1", "a b", "!a=2", "b=1", "b=1", "", "c"])).unwrap();
    assert_eq!(found.unreachable, [1, 2, 5, 7]);
}

#[test]
fn equal_rules_that_always_apply_do_not_collide() {
    let found = nodes(&config(), &rules(&["!a", "!a", "!a"])).unwrap();
    let names: BTreeSet<&Name> = found.nodes.iter().filter_map(|node| node.value.as_ref()).collect();
    assert_eq!(names.len(), 3, "the service refuses siblings of one name");
}

#[test]
fn actions_with_one_key_are_combined() {
    let all = rules(&["generic_key=one", "generic_key=two x", "generic_key=other"]);
    let found = items(&config(), &all, &[generic("one"), generic("two"), header("x")], None);
    assert_eq!(found.items.len(), 2, "{found:?}: what a fixed value excludes is not sent");
    let many: Vec<LimitAction> =
        (0..20).map(|i| LimitAction::RequestHeader { header: format!("h{i}").into(), key: "a".into() }).collect();
    let found = items(&config(), &rules(&["a"]), &many, None);
    assert_eq!((found.items.len(), found.remarks.len()), (16, 1));
}

#[test]
fn what_has_no_effect_is_remarked() {
    let remarks = |rules: &[SetRule], actions: &[LimitAction]| items(&config(), rules, actions, None).remarks.len();
    assert_eq!(remarks(&[], &[header("a")]), 1, "no rules of this form");
    assert_eq!(remarks(&rules(&["b"]), &[header("a")]), 1, "no rule with these keys");
    assert_eq!(remarks(&rules(&["b", "a"]), &[header("a")]), 0);
    assert_eq!(remarks(&rules(&["b"]), &[]), 0, "the policy has no such actions");
}

#[test]
fn a_limit_of_the_request_goes_with_every_item() {
    let path = MetadataPath { filter: "f".into(), steps: vec!["a".into()] };
    let found = items(&config(), &rules(&["a", "b"]), &[header("a"), header("b")], Some(&path));
    assert!(found.items.len() == 2 && found.items.iter().all(|item| item.limit.as_ref() == Some(&path)));
}

#[test]
fn a_tree_with_too_many_values_is_refused() {
    let texts: Vec<String> = (0..110).flat_map(|i| [format!("a={i} b"), format!("a b={i}")]).collect();
    let rules: Vec<SetRule> = texts.iter().map(|text| rule(text, 1)).collect();
    assert!(nodes(&config(), &rules).unwrap_err().contains("`a`, `b`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_service_decides_as_the_rules_say(
        written in proptest::collection::vec((proptest::collection::btree_map("[a-c]", proptest::option::of("[1-2]"), 0..3), any::<bool>()), 1..7),
        headers in proptest::collection::btree_map("x-[a-c]", "[1-3]", 0..4),
    ) {
        let rules: Vec<SetRule> = written.into_iter().zip(1..).map(|((entries, always_apply), requests)| SetRule {
            entries: entries.into_iter().map(|(key, value)| (key.into(), value.map(Name::from))).collect(),
            limit: Limit { unit: LimitUnit::Second, requests },
            always_apply,
        }).collect();
        let actions = [header("a"), header("b"), header("c")];
        prop_assert_eq!(counted(&rules, &actions, &headers), expected(&rules, &actions, &headers));
    }
}
