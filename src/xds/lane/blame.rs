//! Whom a refusal names.
//!
//! Envoy takes the good clusters and listeners of a refused response, and its error text names the bad ones:
//!
//! ```text
//! Error adding/updating cluster(s) svc/a: LOGICAL_DNS clusters must have a single host, svc/b: unknown extension
//! Error adding/updating listener(s) listener/80: missing filter chains
//! listener/443: unknown filter
//! ```
//!
//! A message that can't be decoded is refused before that, without a name and with all that travelled with it; so is
//! every refusal of another type.
//!
//! # Rule
//! `reliability.md` F2; seen on Envoy 1.36 and 1.40, both variants.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::observation::truncated;
use crate::model::Name;
use crate::snapshot::{Resource, ResourceType};

/// Bytes of an error text that are searched. Envoy cuts its texts at 4 KiB; who is named beyond that is refused again.
const SEARCHED_BYTES: usize = 64 << 10;

/// The resources that an error text names, each with the text that its own refusal would have had.
///
/// Only names of the refused response count, and only where Envoy writes a name: at the beginning and after a
/// separator. Empty if the text isn't of that form.
///
/// # Cost
/// One pass over the text, with a lookup per separator.
pub(super) fn named(resource_type: ResourceType, message: &str, resources: &[Arc<Resource>]) -> BTreeMap<Name, String> {
    let (prefix, separator) = match resource_type {
        ResourceType::Cluster => ("Error adding/updating cluster(s) ", ", "),
        ResourceType::Listener => ("Error adding/updating listener(s) ", "\n"),
        ResourceType::Secret
        | ResourceType::Endpoint
        | ResourceType::Extension
        | ResourceType::ScopedRoute
        | ResourceType::Route
        | ResourceType::RateLimit => {
            return BTreeMap::new();
        }
    };
    let message = truncated(message, SEARCHED_BYTES);
    let Some(list) = message.strip_prefix(prefix) else { return BTreeMap::new() };
    let known: BTreeMap<&str, &Name> = resources.iter().map(|r| (r.name.as_str(), &r.name)).collect();
    let places = std::iter::once(0).chain(list.match_indices(separator).map(|(at, _)| at + separator.len()));
    let begins: Vec<(usize, &Name)> = places
        .filter_map(|at| {
            let (name, _) = list[at..].split_once(": ")?;
            Some((at, *known.get(name)?))
        })
        .collect();
    let mut named = BTreeMap::new();
    for (position, (begin, name)) in begins.iter().enumerate() {
        let end = begins.get(position + 1).map_or(list.len(), |(next, _)| next - separator.len());
        named.entry((*name).clone()).or_insert_with(|| format!("{prefix}{}", list[*begin..end].trim_end()));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Version;

    fn check(resource_type: ResourceType, names: &[&str], message: &str, expected: &[(&str, &str)]) {
        let resource = |name: &&str| {
            let version = Version::new("1");
            Arc::new(Resource { name: (*name).into(), version, body: "".into(), owners: Arc::from([]) })
        };
        let resources: Vec<_> = names.iter().map(resource).collect();
        let named = named(resource_type, message, &resources);
        let named: Vec<(&str, &str)> = named.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
        assert_eq!(named, expected, "{message}");
    }

    #[test]
    fn f2_clusters_are_named_with_their_own_words() {
        check(
            ResourceType::Cluster,
            &["svc/a", "svc/a, 1", "svc/b"],
            "Error adding/updating cluster(s) svc/a: needs one, and only one, host, svc/a, 1: no, svc/b",
            &[
                ("svc/a", "Error adding/updating cluster(s) svc/a: needs one, and only one, host"),
                ("svc/a, 1", "Error adding/updating cluster(s) svc/a, 1: no, svc/b"),
            ],
        );
        check(
            ResourceType::Cluster,
            &["svc/a", "svc/b", "svc/good"],
            "Error adding/updating cluster(s) svc/a: needs one, and only one, host, svc/b: no",
            &[
                ("svc/a", "Error adding/updating cluster(s) svc/a: needs one, and only one, host"),
                ("svc/b", "Error adding/updating cluster(s) svc/b: no"),
            ],
        );
    }

    #[test]
    fn f2_listeners_are_named_line_by_line() {
        check(
            ResourceType::Listener,
            &["listener/80", "listener/8080", "listener/443"],
            "Error adding/updating listener(s) listener/80: no, listener/443: says nothing\nlistener/8080: no\n",
            &[
                ("listener/80", "Error adding/updating listener(s) listener/80: no, listener/443: says nothing"),
                ("listener/8080", "Error adding/updating listener(s) listener/8080: no"),
            ],
        );
    }

    #[test]
    fn who_is_not_named_is_not_blamed() {
        for message in [
            "",
            "Invalid duration: svc/a: no",
            "Error adding/updating cluster(s) ",
            "Error adding/updating cluster(s) svc/other: no",
            "Error adding/updating cluster(s) svc/abc: no",
            "Error adding/updating cluster(s) svc/a",
        ] {
            check(ResourceType::Cluster, &["svc/a", "svc/b"], message, &[]);
        }
        // The text of another type, and a type whose texts name nobody.
        check(ResourceType::Listener, &["a", "b"], "Error adding/updating cluster(s) a: no", &[]);
        check(ResourceType::Route, &["a", "b"], "Error adding/updating cluster(s) a: no", &[]);
    }

    #[test]
    fn case_11_the_search_is_bounded() {
        let long = format!("Error adding/updating cluster(s) a: {}, b: no", "ü, b".repeat(1 << 20));
        let resources = ["a", "b"].map(|name| {
            let version = Version::new("1");
            Arc::new(Resource { name: name.into(), version, body: "".into(), owners: Arc::from([]) })
        });
        let named = named(ResourceType::Cluster, &long, &resources);
        assert_eq!(named.keys().collect::<Vec<_>>(), ["a"]);
        assert!(named["a"].len() <= SEARCHED_BYTES);
    }
}
