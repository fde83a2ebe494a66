//! Who may call what, in words.

use std::fmt::Display;

use crate::ir::Guard;
use crate::ir::policy::TextPattern;
use crate::ir::policy::access::{AccessEntry, Behalf, Caller, Cidr};

/// What each entry of a guard allows, one line for each; where nothing is allowed, one that says so.
#[must_use]
pub fn describe_guard(guard: &Guard) -> Vec<String> {
    let policies: Vec<String> = guard.policies.iter().map(ToString::to_string).collect();
    let lists = [("allows", &guard.access.enforced), ("would allow, as a dry run,", &guard.access.dry_run)];
    let mut lines = Vec::new();
    for (verb, list) in lists {
        let Some(entries) = list else { continue };
        if entries.is_empty() {
            lines.push(format!("{} {verb} nothing here", policies.join(" + ")));
        }
        lines
            .extend(entries.iter().map(|entry| format!("{}#{} {verb} {}", entry.policy, entry.index, describe(entry))));
    }
    lines
}

fn describe(entry: &AccessEntry<Caller>) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(clients) = &entry.clients {
        parts.push(any_of(clients.iter().map(caller)));
    }
    let mut one_of = |what: &str, list: Vec<String>| {
        if !list.is_empty() {
            parts.push(format!("{what} {}", any_of(list.into_iter())));
        }
    };
    one_of("path", entry.paths.iter().map(pattern).collect());
    one_of("method", entry.methods.iter().map(ToString::to_string).collect());
    for (name, rule) in &entry.headers {
        one_of(&format!("header {name}"), rule.values.iter().map(pattern).collect());
        one_of(&format!("header {name} not"), rule.not_values.iter().map(pattern).collect());
    }
    one_of("connections from", entry.peers.iter().map(block).collect());
    one_of("client address", entry.remotes.iter().map(block).collect());
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

fn any_of(list: impl Iterator<Item = impl Display>) -> String {
    list.map(|item| item.to_string()).collect::<Vec<_>>().join(" or ")
}

fn caller(caller: &Caller) -> String {
    let mut parts: Vec<String> = Vec::new();
    match &caller.behalf {
        Behalf::Any => {}
        Behalf::Own => parts.push("the gateway itself".to_owned()),
        Behalf::Pods(pods) => {
            parts.push(format!(
                "Pods of {}",
                any_of(pods.iter().map(|(namespace, account)| format!("{namespace}/{account}")))
            ));
        }
    }
    if let Some(identities) = &caller.identities {
        parts.push(any_of(identities.iter()));
    }
    if !caller.principals.is_empty() {
        parts.push(format!("token of {}", any_of(caller.principals.iter().map(pattern))));
    }
    if !caller.not_principals.is_empty() {
        parts.push(format!("no token of {}", any_of(caller.not_principals.iter().map(pattern))));
    }
    if parts.is_empty() { "anybody".to_owned() } else { parts.join(" with ") }
}

fn pattern(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Any => "*".to_owned(),
        TextPattern::Exact(text) => text.to_string(),
        TextPattern::Prefix(text) => format!("{text}*"),
        TextPattern::Suffix(text) => format!("*{text}"),
        TextPattern::Regex(regex) => format!("~{regex}"),
    }
}

fn block(block: &Cidr) -> String {
    format!("{}/{}", block.address, block.prefix)
}
