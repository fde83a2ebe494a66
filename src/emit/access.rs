//! Who may call what, as rules of Envoy's `rbac` filters: of clusters, of HTTP listeners, and of whole connections.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::rbac::v3 as rules_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_pb;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_pb;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3 as mtls_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;

use crate::ir::Guard;
use crate::ir::policy::TextPattern;
use crate::ir::policy::access::{AccessEntry, Behalf, Caller, Cidr, HeaderRule};
use crate::model::{EnvoyRelease, Name, ObjectName};

use super::filter::principal;
use super::{clients, pb, wire};

use matcher_pb::string_matcher::MatchPattern;
use rules_pb::permission::{Rule, Set as Rules};
use rules_pb::principal::{Identifier, Set as Identifiers};

/// In front of the names of what is evaluated only, in metadata and in statistics.
const DRY_RUN: &str = "chancery_dry_run_";

/// The first release of which every patch has the fix of CVE-2026-26308, without which lines of a header are joined by commas
/// before they are compared (seen on 1.36.4 and 1.37.0).
const TELLS_LINES_APART: EnvoyRelease = EnvoyRelease::new(1, 38);

/// The rules for requests.
///
/// # Rule
/// The policy reference in the manual, "AccessPolicy": no rules allow everything, rules without entries nothing.
pub(super) fn emit_http(guard: &Guard, release: EnvoyRelease) -> http_pb::Rbac {
    let access = &guard.access;
    let rules = |entries: &[AccessEntry<Caller>]| rules(entries, release);
    http_pb::Rbac {
        rules: access.enforced.as_deref().map(rules),
        shadow_rules: access.dry_run.as_deref().map(rules),
        shadow_rules_stat_prefix: if access.dry_run.is_some() { DRY_RUN.to_owned() } else { String::new() },
        ..Default::default()
    }
}

/// The rules for connections; of entries nothing counts but callers and addresses, so [`Guard::for_connections`] comes first.
pub(super) fn emit_network(guard: &Guard, stat_prefix: String) -> network_pb::Rbac {
    let rules = |entries: &[AccessEntry<Caller>]| rules(entries, EnvoyRelease::OLDEST);
    network_pb::Rbac { rules: guard.access.enforced.as_deref().map(rules), stat_prefix, ..Default::default() }
}

fn rules(entries: &[AccessEntry<Caller>], release: EnvoyRelease) -> rules_pb::Rbac {
    let policies = entries.iter().map(|entry| {
        let ObjectName { cluster, namespace, name, .. } = &*entry.policy;
        let policy = rules_pb::Policy {
            permissions: vec![permission(entry, release)],
            principals: vec![principal(entry)],
            ..Default::default()
        };
        (format!("{cluster}/{namespace}/{name}#{}", entry.index), policy)
    });
    rules_pb::Rbac { action: rules_pb::rbac::Action::Allow.into(), policies: policies.collect(), ..Default::default() }
}

// ---- what may be called -------------------------------------------------------------------------------------------

fn permission(entry: &AccessEntry<Caller>, release: EnvoyRelease) -> rules_pb::Permission {
    let mut all: Vec<Rule> = Vec::new();
    if !entry.paths.is_empty() && !entry.paths.contains(&TextPattern::Any) {
        all.push(any_rule(entry.paths.iter().map(path)));
    }
    if !entry.methods.is_empty() {
        let method = |method: &Name| header(":method", MatchPattern::Exact(method.to_string()));
        all.push(any_rule(entry.methods.iter().map(method)));
    }
    for (name, rule) in &entry.headers {
        all.extend(header_rules(name, rule, release));
    }
    let permission = |rule| rules_pb::Permission { rule: Some(rule) };
    match all.len() {
        0 => permission(Rule::Any(true)),
        1 => permission(all.remove(0)),
        _ => permission(Rule::AndRules(Rules { rules: all.into_iter().map(permission).collect() })),
    }
}

fn any_rule(rules: impl Iterator<Item = Rule>) -> Rule {
    let mut rules: Vec<Rule> = rules.collect();
    if rules.len() == 1 {
        return rules.remove(0);
    }
    Rule::OrRules(Rules { rules: rules.into_iter().map(|rule| rules_pb::Permission { rule: Some(rule) }).collect() })
}

/// Envoy compares the path without query, as it normalised it.
fn path(pattern: &TextPattern) -> Rule {
    let matcher = pb::string_matcher(text(pattern), false);
    Rule::UrlPath(matcher_pb::PathMatcher { rule: Some(matcher_pb::path_matcher::Rule::Path(matcher)) })
}

/// Of a header in several lines Envoy asks whether one fits; that none is there that does not is asked beside it. Where it may
/// join the lines first, nothing with a comma fits: `a` and `z` would together fit `a*z`.
fn header_rules(name: &Name, rule: &HeaderRule, release: EnvoyRelease) -> Vec<Rule> {
    // Envoy keeps the host as a part of the request line.
    let (name, is_host) = if name == "host" { (":authority", true) } else { (name.as_str(), false) };
    let value = |pattern: &TextPattern| match is_host {
        true => MatchPattern::SafeRegex(pb::regex(&format!("(?i){}", host(pattern)))),
        false => text(pattern),
    };
    let mut rules = Vec::new();
    if rule.values.contains(&TextPattern::Any) {
        rules.push(present(name));
    } else if !rule.values.is_empty() {
        rules.push(any_rule(rule.values.iter().map(|pattern| {
            let one = header(name, value(pattern));
            // There is but one host.
            match unlike::unlike(pattern).filter(|_| !is_host) {
                Some(other) => both(one, not(header(name, MatchPattern::SafeRegex(pb::regex(&other))))),
                None => one,
            }
        })));
    }
    if !rule.values.is_empty() && !rule.values.contains(&TextPattern::Any) && !is_host && release < TELLS_LINES_APART {
        rules.push(not(header(name, MatchPattern::Contains(",".to_owned()))));
    }
    for pattern in &rule.not_values {
        let found = match pattern {
            TextPattern::Any => present(name),
            pattern => header(name, MatchPattern::SafeRegex(pb::regex(&among_values(pattern, is_host)))),
        };
        rules.push(not(found));
    }
    rules
}

fn both(one: Rule, other: Rule) -> Rule {
    Rule::AndRules(Rules { rules: [one, other].map(|rule| rules_pb::Permission { rule: Some(rule) }).into() })
}

fn not(rule: Rule) -> Rule {
    Rule::NotRule(Box::new(rules_pb::Permission { rule: Some(rule) }))
}

/// A pattern for a header in which one of several values fits. Envoy joins the values of a repeated header with commas
/// before it compares, so that a value in the middle would hide behind others.
///
/// `\C` is any byte: `.` is a character, and a byte that is none would hide what follows it.
fn among_values(pattern: &TextPattern, is_host: bool) -> String {
    let (flags, one) = if is_host { ("(?i)", host(pattern)) } else { ("", bytes(pattern)) };
    format!(r"{flags}(?:\C*,)?[ \t]*(?:{one})[ \t]*(?:,\C*)?")
}

/// The expression for a host: hosts are alike in either case, with the dot of a whole name, and with any port, as where the
/// route was chosen (R68).
fn host(pattern: &TextPattern) -> String {
    format!(r"(?:{})\.?(?::[0-9]*)?", bytes(pattern))
}

/// The expression for a text.
fn bytes(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Any => r"\C*".to_owned(),
        TextPattern::Exact(text) => regex::escape(text),
        TextPattern::Prefix(text) => format!(r"{}\C*", regex::escape(text)),
        TextPattern::Suffix(text) => format!(r"\C*{}", regex::escape(text)),
        // Made of literal parts, in which neither character stands by itself, and of `.*` between them.
        TextPattern::Regex(glob) => glob.replace(".*", r"\C*"),
    }
}

fn header(name: &str, pattern: MatchPattern) -> Rule {
    use route_pb::header_matcher::HeaderMatchSpecifier;
    Rule::Header(route_pb::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pb::string_matcher(pattern, false))),
        ..Default::default()
    })
}

fn present(name: &str) -> Rule {
    use route_pb::header_matcher::HeaderMatchSpecifier;
    Rule::Header(route_pb::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    })
}

/// A pattern for a whole text; [`TextPattern::Any`] wants one that is there.
fn text(pattern: &TextPattern) -> MatchPattern {
    match pattern {
        TextPattern::Any => MatchPattern::SafeRegex(pb::regex(r"\C+")),
        TextPattern::Exact(text) => MatchPattern::Exact(text.to_string()),
        TextPattern::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        TextPattern::Suffix(text) => MatchPattern::Suffix(text.to_string()),
        TextPattern::Regex(regex) => MatchPattern::SafeRegex(pb::regex(regex)),
    }
}

// ---- who may call -------------------------------------------------------------------------------------------------

fn principal(entry: &AccessEntry<Caller>) -> rules_pb::Principal {
    let mut all: Vec<Identifier> = Vec::new();
    if let Some(callers) = &entry.clients {
        all.push(any_id(callers.iter().map(caller)));
    }
    if !entry.peers.is_empty() {
        all.push(any_id(entry.peers.iter().map(|block| Identifier::DirectRemoteIp(range(block)))));
    }
    if !entry.remotes.is_empty() {
        all.push(any_id(entry.remotes.iter().map(|block| Identifier::RemoteIp(range(block)))));
    }
    all_ids(all)
}

fn all_ids(mut all: Vec<Identifier>) -> rules_pb::Principal {
    let principal = |identifier| rules_pb::Principal { identifier: Some(identifier) };
    match all.len() {
        0 => principal(Identifier::Any(true)),
        1 => principal(all.remove(0)),
        _ => principal(Identifier::AndIds(Identifiers { ids: all.into_iter().map(principal).collect() })),
    }
}

/// One of them; of none nobody.
fn any_id(ids: impl Iterator<Item = Identifier>) -> Identifier {
    let mut ids: Vec<Identifier> = ids.collect();
    if ids.len() == 1 {
        return ids.remove(0);
    }
    if ids.is_empty() {
        let everybody = rules_pb::Principal { identifier: Some(Identifier::Any(true)) };
        return Identifier::NotId(Box::new(everybody));
    }
    let ids = ids.into_iter().map(|identifier| rules_pb::Principal { identifier: Some(identifier) });
    Identifier::OrIds(Identifiers { ids: ids.collect() })
}

fn caller(caller: &Caller) -> Identifier {
    let mut all: Vec<Identifier> = Vec::new();
    all.extend(behalf(&caller.behalf));
    if let Some(identities) = &caller.identities {
        all.push(any_id(identities.iter().map(identity)));
    }
    if !caller.principals.is_empty() {
        all.push(bears_one(&caller.principals));
    }
    if !caller.not_principals.is_empty() {
        let not = |identifier| Identifier::NotId(Box::new(rules_pb::Principal { identifier: Some(identifier) }));
        all.push(not(bears_one(&caller.not_principals)));
        all.push(not(state(principal::MORE, MatchPattern::Exact("yes".to_owned()))));
    }
    all_ids(all).identifier.unwrap_or(Identifier::Any(true))
}

/// On whose behalf the gateway calls.
fn behalf(behalf: &Behalf) -> Option<Identifier> {
    let not = |identifier| Identifier::NotId(Box::new(rules_pb::Principal { identifier: Some(identifier) }));
    match behalf {
        Behalf::Any => None,
        Behalf::Own => Some(not(state(clients::STATE, MatchPattern::SafeRegex(pb::regex(r"\C+"))))),
        // Of `workspace/namespace/account`, none of which has a slash.
        Behalf::Pods(pods) => Some(any_id(pods.iter().map(|(namespace, account)| {
            state(clients::STATE, MatchPattern::Suffix(format!("/{namespace}/{account}")))
        }))),
    }
}

/// Whose request has a verified token of one of these principals.
fn bears_one(principals: &BTreeSet<TextPattern>) -> Identifier {
    any_id(principal::keys().flat_map(|key| principals.iter().map(move |pattern| bears(&key, pattern))))
}

fn bears(key: &str, pattern: &TextPattern) -> Identifier {
    let matched = state(key, text(pattern));
    if *pattern != TextPattern::Any {
        return matched;
    }
    let nobody =
        rules_pb::Principal { identifier: Some(state(key, MatchPattern::Exact(principal::NO_TOKEN.to_owned()))) };
    all_ids(vec![matched, Identifier::NotId(Box::new(nobody))]).identifier.unwrap_or(Identifier::Any(false))
}

/// What the state of a request has under a key; without the key nothing matches.
fn state(key: &str, pattern: MatchPattern) -> Identifier {
    let matcher = matcher_pb::filter_state_matcher::Matcher::StringMatch(pb::string_matcher(pattern, false));
    Identifier::FilterState(matcher_pb::FilterStateMatcher { key: key.to_owned(), matcher: Some(matcher) })
}

/// Who has a verified certificate with this URI.
fn identity(uri: &Name) -> Identifier {
    let config = mtls_pb::Config {
        san_matcher: Some(tls_pb::SubjectAltNameMatcher {
            san_type: tls_pb::subject_alt_name_matcher::SanType::Uri.into(),
            matcher: Some(pb::string_matcher(MatchPattern::Exact(uri.to_string()), false)),
            ..Default::default()
        }),
        ..Default::default()
    };
    Identifier::Custom(core_pb::TypedExtensionConfig {
        name: "envoy.rbac.principals.mtls_authenticated".to_owned(),
        typed_config: Some(wire::any(&config)),
    })
}

fn range(block: &Cidr) -> core_pb::CidrRange {
    core_pb::CidrRange { address_prefix: block.address.to_string(), prefix_len: pb::uint32(u32::from(block.prefix)) }
}

mod unlike;

#[cfg(test)]
mod tests;
