//! Rules that are trees, for a service that knows nothing of weights.
//!
//! A limit names those that do not count beside it: all of its configuration with a smaller weight, except those that
//! always apply.

use crate::ir::policy::rate_limit::{LimitNode, NamedLimit, TreeRule};
use crate::model::{Name, ObjectRef};

use super::limit_name;

/// A limit among all of a configuration.
struct Weighted {
    name: Name,
    weight: u32,
    always_apply: bool,
}

/// The nodes below a configuration's own one.
///
/// # Cost
/// In proportion to the square of the limits, where they have different weights.
#[must_use]
pub fn nodes(config: &ObjectRef, rules: &[TreeRule]) -> Vec<LimitNode> {
    let mut limits = Vec::new();
    collect(config, rules, "", &mut limits);
    build(config, rules, "", &limits)
}

/// Where a rule stands, as part of its name: positions do not depend on the texts of keys.
fn place(path: &str, index: usize) -> String {
    if path.is_empty() { format!("t{index}") } else { format!("{path}.{index}") }
}

fn collect(config: &ObjectRef, rules: &[TreeRule], path: &str, limits: &mut Vec<Weighted>) {
    for (index, rule) in rules.iter().enumerate() {
        let path = place(path, index);
        if rule.limit.is_some() {
            let name = limit_name(config, &path);
            limits.push(Weighted { name, weight: rule.weight, always_apply: rule.always_apply });
        }
        collect(config, &rule.rules, &path, limits);
    }
}

fn build(config: &ObjectRef, rules: &[TreeRule], path: &str, limits: &[Weighted]) -> Vec<LimitNode> {
    let nodes = rules.iter().enumerate().map(|(index, rule)| {
        let path = place(path, index);
        let lighter = limits.iter().filter(|other| other.weight < rule.weight && !other.always_apply);
        LimitNode {
            key: rule.key.clone(),
            value: rule.value.clone(),
            limit: rule.limit.map(|limit| NamedLimit {
                name: limit_name(config, &path),
                limit,
                replaces: lighter.map(|other| other.name.clone()).collect(),
            }),
            nodes: build(config, &rule.rules, &path, limits),
        }
    });
    nodes.collect()
}
