//! What to send, given what a client holds.
//!
//! Pure set work over one type: no order, no batching, no acknowledgement. The caller keeps the table of what the
//! client holds and says what must be sent whatever the versions are.
//!
//! The one rule about content lives here too: a cluster that is sent again has its endpoints sent again with it
//! ([`endpoints_of`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Resource, Resources, Version};
use crate::model::Name;

/// What is known of one resource at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The client acknowledged this version, or stated it when it connected.
    Version(Version),
    /// The client may hold this resource, in a version that nobody knows: it was in a response that the client refused
    /// as a whole and may have taken in part.
    Uncertain,
}

/// What a client holds of one type, by name.
pub type Holdings = BTreeMap<Name, Holding>;

/// A content that a client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The version that it refused.
    pub version: Version,
    /// The client's words.
    pub reason: Arc<str>,
    /// Whether it refused this content; else it refused several, at least one of them for what it is.
    pub exact: bool,
}

/// What a client refused of one type, by name.
pub type Objections = BTreeMap<Name, Objection>;

/// What one client wants and holds of one type.
#[derive(Clone, Copy, Debug)]
pub struct ClientView<'a> {
    /// Whether it wants every resource of the type.
    pub everything: bool,
    /// What it asked for by name.
    pub names: &'a BTreeSet<Name>,
    /// What it holds.
    pub held: &'a Holdings,
    /// What must be sent whatever the version.
    pub again: &'a BTreeSet<Name>,
    /// What it refused; not sent again in that version unless it is in `again`.
    pub refused: &'a Objections,
}

/// What one client should be sent of one type, all in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New and changed resources, and those that must be sent again.
    pub changed: Vec<Arc<Resource>>,
    /// What the client holds, or may hold, and should drop.
    pub removed: Vec<Name>,
    /// What the client asked for by name, doesn't hold, and doesn't exist.
    pub missing: Vec<Name>,
}

/// What to send to a client of the resources of one type.
///
/// # Cost
/// With a wildcard, one lookup per resource; else one per name that was asked for; and one per resource held.
///
/// # Rule
/// `reliability.md` cases 3, 6, 9, 12, 17, 18, 22 to 25.
#[must_use]
pub fn diff(resources: &Resources, client: &ClientView<'_>) -> Difference {
    let mut difference = Difference::default();
    let due = |resource: &Resource| {
        client.again.contains(&resource.name) || (!holds(client.held, resource) && !refuses(client.refused, resource))
    };
    if client.everything {
        difference.changed.extend(resources.values().filter(|resource| due(resource)).cloned());
        let asked = client.names.union(client.again);
        difference.missing.extend(asked.filter(|name| is_missing(resources, client, name)).cloned());
    } else {
        let known = client.names.iter().filter_map(|name| resources.get(name));
        difference.changed.extend(known.filter(|resource| due(resource)).cloned());
        difference.missing.extend(client.names.iter().filter(|name| is_missing(resources, client, name)).cloned());
    }
    difference.removed.extend(client.held.keys().filter(|name| !resources.contains_key(*name)).cloned());
    difference
}

/// Whether a client is known to hold exactly this resource.
#[must_use]
pub fn holds(held: &Holdings, resource: &Resource) -> bool {
    matches!(held.get(&resource.name), Some(Holding::Version(version)) if *version == resource.version)
}

/// Whether a client refused exactly this resource.
#[must_use]
pub fn refuses(refused: &Objections, resource: &Resource) -> bool {
    refused.get(&resource.name).is_some_and(|objection| objection.version == resource.version)
}

fn is_missing(resources: &Resources, client: &ClientView<'_>, name: &Name) -> bool {
    !resources.contains_key(name) && !client.held.contains_key(name)
}

/// The name of the `ClusterLoadAssignment` that a cluster takes its endpoints from.
///
/// `eds_cluster_config.service_name` if it is set, else the cluster's own name. For a cluster of another kind, or for
/// bytes that are no cluster, that name belongs to no resource, which does no harm.
///
/// Whoever sends a cluster must send this resource after it, changed or not: Envoy neither asks for it again nor
/// acknowledges the cluster without it, and stalls for 15 s.
///
/// # Cost
/// One pass over the top-level fields of the cluster.
///
/// # Rule
/// `performance.md` section 4, "Cluster without its EDS"; `reliability.md` case 24. Fields 3 and 2 as in Envoy 1.40.
#[must_use]
pub fn endpoints_of(cluster: &Resource) -> Name {
    let named = <ClusterEndpoints as prost::Message>::decode(cluster.body.clone()).unwrap_or_default();
    match named.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => config.service_name.into(),
        _ => cluster.name.clone(),
    }
}

/// The part of `envoy.config.cluster.v3.Cluster` that names its endpoints; every other field is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct ClusterEndpoints {
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
}

/// The part of `Cluster.EdsClusterConfig` that names a resource.
#[derive(Clone, PartialEq, prost::Message)]
struct EdsClusterConfig {
    #[prost(string, tag = "2")]
    service_name: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn resources(text: &str) -> Resources {
        pairs(text)
            .map(|(name, version)| {
                let (body, owners) = (version.to_owned().into(), Arc::from([]));
                (name.into(), Arc::new(Resource { name: name.into(), version: Version::new(version), body, owners }))
            })
            .collect()
    }

    fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
        text.split_whitespace().map(|pair| pair.split_once('@').unwrap())
    }

    fn names(text: &str) -> BTreeSet<Name> {
        text.split_whitespace().map(Name::from).collect()
    }

    /// Reason, resources, what is asked for, held, to be sent again and refused, and what comes of it.
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

    /// Runs one row; `asked` of `*` is the wildcard, `held` of `a@?` is an uncertain holding.
    fn check((reason, existing, asked, held, again, refused, expected): Row<'_>) {
        let mut asked = names(asked);
        let everything = asked.remove("*");
        let held = pairs(held)
            .map(|(name, version)| {
                let holding = if version == "?" { Holding::Uncertain } else { Holding::Version(Version::new(version)) };
                (Name::from(name), holding)
            })
            .collect();
        let objection = |version| Objection { version: Version::new(version), reason: "no".into(), exact: true };
        let refused = pairs(refused).map(|(name, version)| (name.into(), objection(version))).collect();
        let again = names(again);
        let client = ClientView { everything, names: &asked, held: &held, again: &again, refused: &refused };
        let difference = diff(&resources(existing), &client);
        let mut words: Vec<String> =
            difference.changed.iter().map(|resource| format!("{}@{}", resource.name, resource.version)).collect();
        words.extend(difference.removed.iter().map(|name| format!("-{name}")));
        words.extend(difference.missing.iter().map(|name| format!("?{name}")));
        assert_eq!(words.join(" "), expected, "{reason}");
    }

    #[test]
    fn rows() {
        for row in [
            ("first load", "a@1 b@1", "*", "", "", "", "a@1 b@1"),
            ("case 3: up to date", "a@1 b@1", "*", "a@1 b@1", "", "", ""),
            ("one changed", "a@1 b@2", "*", "a@1 b@1", "", "", "b@2"),
            ("case 22: one gone", "a@1", "*", "a@1 b@1", "", "", "-b"),
            ("case 12: nothing asked for", "a@1", "", "", "", "", ""),
            ("only what was asked for", "a@1 b@1", "b", "", "", "", "b@1"),
            ("case 18: missing", "a@1", "a c", "a@1", "", "", "?c"),
            ("held and gone is removed, not missing", "", "a", "a@1", "", "", "-a"),
            ("case 17: again although equal", "a@1", "a", "a@1", "a", "", "a@1"),
            ("again, but not asked for", "a@1", "", "", "a", "", ""),
            ("case 13: owed an answer, and gone", "", "*", "", "a", "", "?a"),
            ("case 6: refused is withheld", "a@2 b@1", "*", "a@1", "", "a@2", "b@1"),
            ("refused, then changed", "a@3", "*", "a@1", "", "a@2", "a@3"),
            ("refused, then back", "a@1", "*", "a@1", "", "a@2", ""),
            ("refused, and asked for again", "a@2", "a", "", "a", "a@2", "a@2"),
            ("uncertain is sent again", "a@1", "*", "a@?", "", "", "a@1"),
            ("uncertain and gone is removed", "", "*", "a@?", "", "", "-a"),
        ] {
            check(row);
        }
    }

    #[test]
    fn endpoints_are_named_by_the_cluster() {
        let cluster = |body: Vec<u8>| Resource::from_content("svc/a".into(), body.into(), Arc::from([]));
        let named =
            ClusterEndpoints { eds_cluster_config: Some(EdsClusterConfig { service_name: "endpoints/a".to_owned() }) };
        assert_eq!(endpoints_of(&cluster(named.encode_to_vec())), "endpoints/a");
        assert_eq!(endpoints_of(&cluster(ClusterEndpoints::default().encode_to_vec())), "svc/a");
        assert_eq!(endpoints_of(&cluster(b"\xff no protobuf".to_vec())), "svc/a");
    }
}
