//! Rules that are sets, for a service that knows only trees.
//!
//! Plain rules with the same keys share one item and one tree, in which every leaf has the first rule that fits: the
//! service walks down by value, else by bare key, and never back. A rule that always applies has an item of its own.
//! Every limit names the later plain rules, which do not count beside it: so of all that match, the first counts.
//!
//! Both sides come from the rules alone, so that gateways and service agree without asking each other.
//!
//! # Rule
//! How `envoyproxy/ratelimit` reads its configuration: one walk for each descriptor, and `replaces` by name.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::ir::policy::rate_limit::{LimitAction, LimitItem, LimitNode, MetadataPath, NamedLimit, SetRule};
use crate::model::{Name, ObjectRef};

use super::{limit_name, prefix};

/// Second key of the descriptors of sets.
const SET_KEY: &str = "chancery.set";

/// Most items of one group of rules: where several actions have one key, each combination is one.
const MAX_COMBINATIONS: usize = 16;

/// Most leaves of the tree of one group of rules.
const MAX_LEAVES: usize = 10_000;

/// Rules that share an item.
#[derive(Debug)]
struct Group {
    /// How gateways and service call it.
    name: Name,
    /// In order.
    keys: Vec<Name>,
    /// Positions of the rules, in order.
    rules: Vec<usize>,
}

/// What a gateway sends for the rules of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// In the order of the groups.
    pub items: Vec<LimitItem>,
    /// What to tell the author of the actions.
    pub remarks: Vec<String>,
}

/// What a gateway sends, given the actions of a policy.
///
/// # Cost
/// In proportion to the rules and the items.
#[must_use]
pub fn items(config: &ObjectRef, rules: &[SetRule], actions: &[LimitAction], limit: Option<&MetadataPath>) -> Items {
    let mut result = Items::default();
    if actions.is_empty() {
        return result;
    }
    if rules.is_empty() {
        result.remarks.push(format!("`setActions` have no effect, because `{config}` has no `setDescriptors`"));
        return result;
    }
    for group in groups(rules) {
        // A rule that wants another fixed value than an action has cannot match by that action.
        let fits =
            |rule: usize, key: usize, action: &LimitAction| match (&rules[rule].entries[key].1, action.fixed_value()) {
                (Some(wanted), Some(fixed)) => wanted == fixed,
                _ => true,
            };
        let mut combinations: Vec<(Vec<&LimitAction>, Vec<usize>)> = vec![(Vec::new(), group.rules.clone())];
        for (position, key) in group.keys.iter().enumerate() {
            let producers: BTreeSet<&LimitAction> =
                actions.iter().filter(|action| action.key() == key.as_str()).collect();
            let mut longer = Vec::new();
            for (taken, alive) in &combinations {
                for producer in &producers {
                    let alive: Vec<usize> =
                        alive.iter().copied().filter(|rule| fits(*rule, position, producer)).collect();
                    if !alive.is_empty() {
                        let taken = taken.iter().copied().chain([*producer]).collect();
                        longer.push((taken, alive));
                    }
                }
            }
            if longer.len() > MAX_COMBINATIONS {
                result.remarks.push(format!(
                    "several actions have the same keys; of their combinations only {MAX_COMBINATIONS} are sent for the \
                     keys {}",
                    shown(&group.keys)
                ));
                longer.truncate(MAX_COMBINATIONS);
            }
            combinations = longer;
        }
        for (taken, _) in combinations {
            let mut all = vec![prefix(config)];
            all.push(LimitAction::Generic { key: Some(SET_KEY.into()), value: group.name.clone() });
            all.extend(taken.into_iter().cloned());
            result.items.push(LimitItem { actions: all, limit: limit.cloned() });
        }
    }
    if result.items.is_empty() {
        result
            .remarks
            .push(format!("no rule of `{config}` has keys that these `setActions` yield, so nothing is limited"));
    }
    result
}

/// What the service gets of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Below the configuration's own node.
    pub nodes: Vec<LimitNode>,
    /// Positions of rules that never count, because an earlier one does wherever they match.
    pub unreachable: Vec<usize>,
}

/// What the service gets.
///
/// # Errors
/// Rules with so many values for one set of keys that their tree is too large; one sentence for the author.
///
/// # Cost
/// In proportion to the square of the rules, and to the leaves.
pub fn nodes(config: &ObjectRef, rules: &[SetRule]) -> Result<Nodes, String> {
    let mut result = Nodes { nodes: Vec::new(), unreachable: unreachable(rules) };
    for group in groups(rules) {
        let mut tree = Tree { config, rules, keys: &group.keys, leaves: 0 };
        let (limit, nodes) = tree.below(0, &group.rules)?;
        result.nodes.push(LimitNode { key: SET_KEY.into(), value: Some(group.name), limit, nodes });
    }
    Ok(result)
}

/// The groups of the rules that can count, in the order of their first rules.
fn groups(rules: &[SetRule]) -> Vec<Group> {
    let unreachable = unreachable(rules);
    let mut groups: Vec<Group> = Vec::new();
    let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate().filter(|(index, _)| !unreachable.contains(index)) {
        let keys: Vec<Name> = rule.entries.iter().map(|(key, _)| key.clone()).collect();
        if rule.always_apply {
            let mut name =
                format!("r-{}", hash(rule.entries.iter().flat_map(|(key, value)| [Some(key), value.as_ref()])));
            let times = repeated.entry(name.clone()).or_default();
            *times += 1;
            if *times > 1 {
                name = format!("{name}-{times}");
            }
            groups.push(Group { name: name.into(), keys, rules: vec![index] });
            continue;
        }
        let name = Name::from(format!("k-{}", hash(keys.iter().map(Some))));
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.rules.push(index),
            None => groups.push(Group { name, keys, rules: vec![index] }),
        }
    }
    groups
}

/// A short name of a list of texts; each is written with its length, so that no two lists look alike.
fn hash<'a>(texts: impl Iterator<Item = Option<&'a Name>>) -> String {
    let mut bytes = Vec::new();
    for text in texts {
        // An absent text differs from an empty one.
        let length = text.map_or(u64::MAX, |text| text.len() as u64);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.map(|text| text.as_bytes()).unwrap_or_default());
    }
    if bytes.is_empty() {
        return "empty".to_owned();
    }
    format!("{:016x}", xxh3_64(&bytes))
}

/// Plain rules of which an earlier rule matches whatever they match.
fn unreachable(rules: &[SetRule]) -> Vec<usize> {
    let implies = |rule: &SetRule, earlier: &SetRule| {
        earlier.entries.iter().all(|(key, wanted)| {
            rule.entries.iter().any(|(own, value)| own == key && (wanted.is_none() || wanted == value))
        })
    };
    let is_beaten =
        |index: usize| !rules[index].always_apply && rules[..index].iter().any(|e| implies(&rules[index], e));
    (0..rules.len()).filter(|index| is_beaten(*index)).collect()
}

fn shown(keys: &[Name]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// The tree of a group under construction.
struct Tree<'a> {
    config: &'a ObjectRef,
    rules: &'a [SetRule],
    keys: &'a [Name],
    leaves: usize,
}

impl Tree<'_> {
    /// What stands below a node at which these rules still fit: the limit of a leaf, or nodes.
    fn below(&mut self, level: usize, fitting: &[usize]) -> Result<(Option<NamedLimit>, Vec<LimitNode>), String> {
        let Some(key) = self.keys.get(level).cloned() else {
            self.leaves += 1;
            if self.leaves > MAX_LEAVES {
                return Err(format!(
                    "the rules with the keys {} make more than {MAX_LEAVES} combinations of values; write fewer values",
                    shown(self.keys)
                ));
            }
            return Ok((fitting.first().map(|rule| self.limit(*rule)), Vec::new()));
        };
        let rules = self.rules;
        let value = |rule: usize| rules[rule].entries[level].1.as_ref();
        let values: BTreeSet<&Name> = fitting.iter().filter_map(|rule| value(*rule)).collect();
        let bare: Vec<usize> = fitting.iter().copied().filter(|rule| value(*rule).is_none()).collect();
        let mut nodes = Vec::new();
        for one in values {
            let fits = |rule: &usize| value(*rule).is_none_or(|wanted| wanted == one);
            let fitting: Vec<usize> = fitting.iter().copied().filter(fits).collect();
            let (limit, below) = self.below(level + 1, &fitting)?;
            nodes.push(LimitNode { key: key.clone(), value: Some(one.clone()), limit, nodes: below });
        }
        if !bare.is_empty() {
            let (limit, below) = self.below(level + 1, &bare)?;
            nodes.push(LimitNode { key, value: None, limit, nodes: below });
        }
        Ok((None, nodes))
    }

    /// The limit of a rule, which the later plain ones do not count beside.
    fn limit(&self, index: usize) -> NamedLimit {
        let name = |index: usize| limit_name(self.config, &format!("r{index}"));
        let later = (index + 1..self.rules.len()).filter(|later| !self.rules[*later].always_apply);
        NamedLimit { name: name(index), limit: self.rules[index].limit, replaces: later.map(name).collect() }
    }
}

#[cfg(test)]
mod tests;
