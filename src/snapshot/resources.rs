//! The resources of one type: a map that shares with its versions before and after what they have in common.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::{Resource, Version};
use crate::model::Name;

/// The resources of one type, by name.
///
/// Reads are those of an ordered map. It is changed through its own methods only, because it keeps its
/// [version](Self::version).
///
/// # Cost
/// A copy costs nothing, a change the logarithm of the size. Comparing two versions of one map costs what differs.
#[derive(Clone, Default)]
pub struct Resources {
    by_name: OrdMap<Name, Arc<Resource>>,
    /// The sum of what [`digest`] makes of each.
    sum: u128,
    /// The sum as text, once it was asked for: many hold it, so they share its bytes.
    version: OnceLock<Version>,
}

impl Resources {
    /// No resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a resource under a name; the one that was there.
    pub fn insert(&mut self, name: Name, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let came = digest(&resource);
        let before = self.by_name.insert(name, resource);
        self.add(came.wrapping_sub(before.as_deref().map_or(0, digest)));
        before
    }

    /// Takes a resource away.
    pub fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let before = self.by_name.remove(name);
        self.add(before.as_deref().map_or(0, digest).wrapping_neg());
        before
    }

    fn add(&mut self, difference: u128) {
        if difference != 0 {
            self.sum = self.sum.wrapping_add(difference);
            self.version.take();
        }
    }

    /// Takes all away that a question does not approve.
    pub fn retain(&mut self, keep: impl Fn(&Name, &Arc<Resource>) -> bool) {
        let gone: Vec<Name> = self
            .by_name
            .iter()
            .filter(|(name, resource)| !keep(name, resource))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// The version of all of them together, from names and versions.
    ///
    /// # Cost
    /// None. All who ask the same resources share one text.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version.get_or_init(|| Version::of_hash(self.sum)).clone()
    }

    /// What differs from an older version.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Changes {
        let mut changes = Changes::default();
        for item in older.by_name.diff(&self.by_name) {
            match item {
                DiffItem::Add(name, _) => changes.came.push(name.clone()),
                DiffItem::Update { new: (name, _), .. } => changes.differ.push(name.clone()),
                DiffItem::Remove(name, _) => changes.went.push(name.clone()),
            }
        }
        changes
    }

    /// The sum over some resources, which [`Version::of_resources`] is made of.
    pub(super) fn sum_of<'a>(resources: impl Iterator<Item = &'a Resource>) -> u128 {
        resources.fold(0, |sum, resource| sum.wrapping_add(digest(resource)))
    }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        // What two maps share is passed over.
        self.sum == other.sum && self.by_name.diff(&other.by_name).next().is_none()
    }
}

impl Eq for Resources {}

/// What a resource adds to the sum of its type.
fn digest(resource: &Resource) -> u128 {
    let (name, version) = (resource.name.as_bytes(), resource.version.as_str().as_bytes());
    let mut bytes = Vec::with_capacity(name.len() + version.len() + 1);
    bytes.extend_from_slice(name);
    // No name has this byte in it, which UTF-8 never has.
    bytes.push(0xff);
    bytes.extend_from_slice(version);
    Version::hash(&bytes)
}

impl Deref for Resources {
    type Target = OrdMap<Name, Arc<Resource>>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_name.values()).finish()
    }
}

impl Extend<(Name, Arc<Resource>)> for Resources {
    fn extend<I: IntoIterator<Item = (Name, Arc<Resource>)>>(&mut self, resources: I) {
        for (name, resource) in resources {
            self.insert(name, resource);
        }
    }
}

impl FromIterator<(Name, Arc<Resource>)> for Resources {
    fn from_iter<I: IntoIterator<Item = (Name, Arc<Resource>)>>(resources: I) -> Self {
        let mut all = Self::new();
        all.extend(resources);
        all
    }
}

/// Names of resources of one type that differ between two snapshots, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Only the newer has them.
    pub came: Vec<Name>,
    /// Only the older has them.
    pub went: Vec<Name>,
    /// Both have them, with another content or other owners.
    pub differ: Vec<Name>,
}

impl Changes {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Name> {
        self.came.iter().chain(&self.went).chain(&self.differ)
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.came.is_empty() && self.went.is_empty() && self.differ.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn resource(name: u8, body: u8) -> Arc<Resource> {
        Arc::new(Resource::from_content(format!("r{name}").into(), vec![body].into(), Arc::from([])))
    }

    proptest! {
        /// After any changes: the content, the version, and what differs from before.
        #[test]
        fn what_is_kept_on_the_way_is_what_a_fresh_look_finds(
            script in proptest::collection::vec((0..200_u8, proptest::option::of(0..3_u8)), 0..300),
            split in 0..300_usize,
        ) {
            let (mut resources, mut expected) = (Resources::new(), BTreeMap::new());
            let mut older = (resources.clone(), expected.clone());
            for (step, (name, body)) in script.into_iter().enumerate() {
                // A version that was asked for on the way is no obstacle to the next.
                let _ = resources.version();
                if step == split {
                    older = (resources.clone(), expected.clone());
                }
                match body {
                    Some(body) => {
                        let made = resource(name, body);
                        expected.insert(made.name.clone(), made.clone());
                        resources.insert(made.name.clone(), made);
                    }
                    None => {
                        let name = Name::from(format!("r{name}"));
                        prop_assert_eq!(resources.remove(&name), expected.remove(&name));
                    }
                }
            }
            prop_assert!(resources.iter().eq(expected.iter()));
            prop_assert_eq!(resources.version(), Version::of_resources(expected.values().map(AsRef::as_ref)));
            prop_assert!(resources == expected.clone().into_iter().collect());
            let (older, had) = older;
            let changes = resources.changes_since(&older);
            let all: std::collections::BTreeSet<&Name> = had.keys().chain(expected.keys()).collect();
            let mut found = Changes::default();
            for name in all.into_iter().filter(|name| had.get(*name) != expected.get(*name)).cloned() {
                match (had.contains_key(&name), expected.contains_key(&name)) {
                    (false, _) => found.came.push(name),
                    (true, false) => found.went.push(name),
                    (true, true) => found.differ.push(name),
                }
            }
            prop_assert_eq!(&changes, &found);
            prop_assert_eq!(changes.is_empty(), resources == older);
        }
    }

    #[test]
    fn the_version_tells_name_and_version_apart() {
        let named = |name: &str, version: &str| {
            let body = bytes::Bytes::new();
            Arc::new(Resource { name: name.into(), version: Version::new(version), body, owners: Arc::from([]) })
        };
        let of = |resources: &[Arc<Resource>]| -> Version {
            resources.iter().map(|resource| (resource.name.clone(), resource.clone())).collect::<Resources>().version()
        };
        assert_ne!(of(&[named("ab", "c")]), of(&[named("a", "bc")]));
        assert_ne!(of(&[named("a", "1"), named("b", "2")]), of(&[named("a", "2"), named("b", "1")]));
        assert_ne!(of(&[]), of(&[named("a", "1")]));
    }
}
