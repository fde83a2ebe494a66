//! Rules for gateways that count by themselves: a bucket for each descriptor.
//!
//! A gateway compares all entries of a descriptor with all of its buckets at once, where the service walks down a tree. A
//! bucket without absent values goes first; of those with some it takes any that fits. So rules are only given to gateways
//! where both come to the same whatever the values of a request are, and else the policy is told.
//!
//! # Rule
//! How Envoy's `local_ratelimit` finds its buckets (seen on 1.39.3 and 1.40.0).

use std::collections::BTreeSet;

use crate::ir::policy::rate_limit::{Bucket, Limit, LimitItem, LimitNode, LimitRules, LimitUnit};
use crate::model::{FieldPath, Findings, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::super::parts::{remark, unsupported};
use super::serving;

/// Most combinations of values of one descriptor that are looked at.
const MOST_CLASSES: usize = 1024;

/// Most buckets of one policy: each of its routes has them all.
const MOST_BUCKETS: usize = 256;

/// Checks rules that gateways are to enforce.
///
/// # Findings
/// As warnings, what gateways count otherwise than a service.
///
/// # Errors
/// A limit of 0, which no bucket has: it begins full.
pub(super) fn check(id: &ObjectRef, rules: &LimitRules, remarks: &mut Findings) -> Result<(), Fault> {
    let raw = FieldPath::new("spec.raw");
    let (tree, sets) = (raw.field("descriptors"), raw.field("setDescriptors"));
    let node = serving::node(id, rules);
    if let Some(index) = rules.sets.iter().position(|rule| rule.limit.requests == 0) {
        return Err(none_allowed(&sets.index(index).field("rateLimit")));
    }
    if limits(&node).any(|limit| limit.requests == 0) {
        return Err(none_allowed(&tree));
    }
    let of_sets = rules.sets.iter().map(|rule| rule.limit);
    if limits(&node).chain(of_sets).any(|limit| matches!(limit.unit, LimitUnit::Hour | LimitUnit::Day)) {
        let why = "gateways count anew when any route of the listener changes, whoever changed it, so far more than a limit of an HOUR or a DAY may pass in that time: write limits of seconds or minutes, or let a service count";
        remark(id, &raw, why, remarks);
    }
    // Each of the nodes has the rules of which one alone counts, for a request with these keys.
    let cancels_others = node.nodes.iter().any(|group| {
        let own: BTreeSet<&Name> = named(group).map(|(name, _)| name).collect();
        let replaced: BTreeSet<&Name> = named(group).flat_map(|(_, replaced)| replaced).collect();
        let mut others = node.nodes.iter().flat_map(named).map(|(name, _)| name).filter(|name| !own.contains(name));
        others.any(|name| replaced.contains(name))
    });
    if cancels_others {
        let why = "gateways count by every rule that matches, not by the first or the one of the highest weight alone";
        remark(id, &raw, why, remarks);
    }
    Ok(())
}

fn none_allowed(field: &FieldPath) -> Fault {
    unsupported(field, "gateways that count by themselves cannot refuse everything: write a limit of 1 or more")
}

/// All below a node.
fn all(node: &LimitNode) -> Box<dyn Iterator<Item = &LimitNode> + '_> {
    Box::new(std::iter::once(node).chain(node.nodes.iter().flat_map(all)))
}

fn limits(node: &LimitNode) -> impl Iterator<Item = Limit> {
    all(node).filter_map(|node| node.limit.as_ref()).map(|named| named.limit)
}

fn named(node: &LimitNode) -> impl Iterator<Item = (&Name, &[Name])> {
    all(node).filter_map(|node| node.limit.as_ref()).map(|named| (&named.name, named.replaces.as_slice()))
}

/// An entry of an item: its key, and its value where all requests have the same.
type Entry<'a> = (&'a str, Option<&'a Name>);

/// The values of an item's entries; an absent one is any that no rule has.
type Values<'a> = Vec<Option<&'a Name>>;

/// What gateways allow for items of a policy, by the rules of its configuration.
///
/// # Errors
/// Rules that gateways cannot tell apart, and too many; one sentence for the author.
///
/// # Cost
/// In proportion to the items, to the combinations of values that the rules have for each, and to the rules.
pub(super) fn buckets(rules: &LimitNode, items: &[LimitItem]) -> Result<BTreeSet<Bucket>, String> {
    let mut buckets = BTreeSet::new();
    for item in items {
        let entries: Vec<Entry<'_>> = item.actions.iter().map(|action| (action.key(), action.fixed_value())).collect();
        of_item(rules, &entries, &mut buckets)?;
        if buckets.len() > MOST_BUCKETS {
            return Err(format!(
                "the rules come to more than {MOST_BUCKETS} combinations of values, which are too many for gateways; write fewer values, or let a service count"
            ));
        }
    }
    Ok(buckets)
}

fn of_item(rules: &LimitNode, entries: &[Entry<'_>], buckets: &mut BTreeSet<Bucket>) -> Result<(), String> {
    let top = std::slice::from_ref(rules);
    let mut known: Vec<BTreeSet<&Name>> = vec![BTreeSet::new(); entries.len()];
    let mut open: Vec<(Values<'_>, Limit)> = Vec::new();
    collect(top, entries, &mut Vec::new(), &mut known, &mut open);
    open.retain(|(values, _)| values.contains(&None));
    let mut classes: Vec<Values<'_>> = vec![Vec::new()];
    for ((_, fixed), known) in entries.iter().zip(&known) {
        let values: Values<'_> = match fixed {
            Some(value) => vec![Some(value)],
            None => known.iter().copied().map(Some).chain([None]).collect(),
        };
        if classes.len().saturating_mul(values.len()) > MOST_CLASSES {
            return Err(format!(
                "the rules for {} come to more than {MOST_CLASSES} combinations of values, which are too many for gateways; write fewer values, or let a service count",
                shown(entries)
            ));
        }
        let mut longer = Vec::with_capacity(classes.len() * values.len());
        for taken in &classes {
            longer.extend(values.iter().map(|value| [taken.as_slice(), &[*value]].concat()));
        }
        classes = longer;
    }
    let bucket = |values: &Values<'_>, limit| Bucket {
        entries: entries.iter().zip(values).map(|((key, _), value)| (Name::from(*key), value.cloned())).collect(),
        limit,
    };
    for class in &classes {
        let allowed = walk(top, entries, class);
        let fits = |values: &Values<'_>| values.iter().zip(class).all(|(value, own)| value.is_none() || value == own);
        let mut found = open.iter().filter(|(values, _)| fits(values)).map(|(_, limit)| Some(*limit)).peekable();
        let is_same = found.peek().is_some() == allowed.is_some() && found.all(|limit| limit == allowed);
        match (is_same, class.contains(&None)) {
            (true, _) => {}
            (false, false) => drop(buckets.insert(bucket(class, allowed))),
            (false, true) => {
                return Err(format!(
                    "gateways cannot tell the rules for {} apart, because two of them leave values open and are for one request; give one of them the values of the other, or let a service count",
                    shown(entries)
                ));
            }
        }
    }
    buckets.extend(open.iter().map(|(values, limit)| bucket(values, Some(*limit))));
    Ok(())
}

/// The values that rules with these keys have at each place, and the limits of those that have all of the keys.
fn collect<'a>(
    nodes: &'a [LimitNode],
    entries: &[Entry<'a>],
    above: &mut Values<'a>,
    known: &mut [BTreeSet<&'a Name>],
    found: &mut Vec<(Values<'a>, Limit)>,
) {
    let Some((key, fixed)) = entries.get(above.len()) else { return };
    // Of a fixed value there is one way down, as in the service.
    let nodes: Vec<&LimitNode> = match fixed {
        Some(_) => child(nodes, key, *fixed).into_iter().collect(),
        None => nodes.iter().filter(|node| node.key == *key).collect(),
    };
    for node in nodes {
        known[above.len()].extend(&node.value);
        above.push(fixed.or(node.value.as_ref()));
        match &node.limit {
            Some(named) if above.len() == entries.len() => found.push((above.clone(), named.limit)),
            _ => collect(&node.nodes, entries, above, known, found),
        }
        above.pop();
    }
}

/// What the service would allow, which never turns back.
fn walk(top: &[LimitNode], entries: &[Entry<'_>], values: &Values<'_>) -> Option<Limit> {
    let mut nodes = top;
    let mut last = None;
    for ((key, _), value) in entries.iter().zip(values) {
        let node = child(nodes, key, *value)?;
        nodes = &node.nodes;
        last = node.limit.as_ref();
    }
    last.map(|named| named.limit)
}

/// The node for an entry: that with its value, else the one for any.
fn child<'a>(nodes: &'a [LimitNode], key: &str, value: Option<&Name>) -> Option<&'a LimitNode> {
    let with = |wanted: Option<&Name>| nodes.iter().find(|node| node.key == key && node.value.as_ref() == wanted);
    value.and_then(|value| with(Some(value))).or_else(|| with(None))
}

/// The keys behind the first, which says whose rules are meant.
fn shown(entries: &[Entry<'_>]) -> String {
    let own = entries.iter().skip(1).filter(|(key, _)| !key.starts_with("chancery."));
    own.map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
