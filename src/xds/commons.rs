//! What the streams of one server work out once for all of them.
//!
//! A thousand gateways of one class are told the same and ask for the same. So what changed between two snapshots is
//! compared once, a set of names that many ask for is kept once, and who connects again and states what it holds is
//! recognised by a sum, without looking at each name. Results are the same with and without; only the cost differs.
//!
//! Everything is found by what it is or by where it lies. Of what nobody else holds any more, only the last comparison is
//! kept, until the next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::BytesMut;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::wire;
use crate::model::Name;
use crate::snapshot::{Resource, Resources};

/// Comparisons and digests that are kept. A server has as many at a time as it has classes of gateways with streams that
/// follow at different speeds; what is lost is worked out again.
const KEPT: usize = 64;

/// Sets of names that are looked at before the first that nobody holds any more are forgotten.
const SETS: usize = 64;

/// A sum of hashes: equal for equal sets in whatever order, and else different but by a chance of 1 in 2¹²⁸.
///
/// The hashes have a secret of the process, which nothing that leaves it depends on. Without one, a client could find names
/// of its own with the sum of what others ask for, and these would be taken to ask for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sum(u128);

/// The hash's own is as long.
static SECRET: LazyLock<[u8; 192]> = LazyLock::new(|| {
    // The keys of it are of the system's making.
    let random = RandomState::new();
    let mut secret = [0; 192];
    for (index, part) in secret.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&random.hash_one(index).to_le_bytes());
    }
    secret
});

impl Sum {
    /// Adds a name, or whatever is summed up.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = self.0.wrapping_add(Self::hash(bytes));
    }

    fn subtract(&mut self, bytes: &[u8]) {
        self.0 = self.0.wrapping_sub(Self::hash(bytes));
    }

    fn hash(bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &*SECRET)
    }
}

/// A set of names, shared by all streams that ask for it.
#[derive(Clone, Debug, Default)]
pub(super) struct NameSet {
    names: BTreeSet<Name>,
    /// Length of all names together.
    bytes: usize,
    sum: Sum,
}

impl NameSet {
    pub(super) fn of(names: impl IntoIterator<Item = Name>) -> Self {
        let mut set = Self { names: names.into_iter().collect(), ..Self::default() };
        for name in &set.names {
            set.bytes += name.len();
            set.sum.add(name.as_bytes());
        }
        set
    }

    pub(super) fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartialEq for NameSet {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.names == other.names
    }
}

impl Eq for NameSet {}

/// What one type of a snapshot has more, less or otherwise than that of another.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// New and changed resources, each with what it was before.
    pub(super) changed: Vec<(Option<Arc<Resource>>, Arc<Resource>)>,
    /// Resources that are gone.
    pub(super) removed: Vec<Arc<Resource>>,
}

impl Changes {
    /// # Cost
    /// In proportion to what differs, if one was made from the other; else to both.
    fn between(before: &Resources, after: &Resources) -> Self {
        let differing = after.changes_since(before);
        // Who owns a resource is nothing to the clients.
        let is_sent = |name: &&Name| match (before.get(*name), after.get(*name)) {
            (Some(old), Some(new)) => old.version != new.version,
            _ => true,
        };
        let names = differing.came.iter().chain(differing.differ.iter().filter(is_sent));
        let pair = |name: &Name| Some((before.get(name).cloned(), after.get(name)?.clone()));
        Self {
            changed: names.filter_map(pair).collect(),
            removed: differing.went.iter().filter_map(|name| before.get(name)).cloned().collect(),
        }
    }

    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The names of the resources of one type of a snapshot, and the sum of names and versions, once somebody asked.
type Digest = OnceLock<(Arc<NameSet>, Sum)>;

/// Shared by all streams of a server; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Commons(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    changes: Vec<(Weak<Resources>, Weak<Resources>, Arc<Changes>)>,
    digests: Vec<(Weak<Resources>, Arc<Digest>)>,
    sets: BTreeMap<Sum, Weak<NameSet>>,
    /// How many sets there may be before dead ones are looked for.
    sets_until: usize,
}

impl Commons {
    /// What changed from some resources to others.
    ///
    /// # Cost
    /// For the first that asks, in proportion to what differs, if one was made from the other; else to both.
    pub(super) fn changes(&self, before: &Arc<Resources>, after: &Arc<Resources>) -> Arc<Changes> {
        let mut tables = self.lock();
        let is_known = |known: &&(Weak<Resources>, Weak<Resources>, _)| is(&known.0, before) && is(&known.1, after);
        // The newest are at the end.
        if let Some((_, _, changes)) = tables.changes.iter().rev().find(is_known) {
            return changes.clone();
        }
        let changes = Arc::new(Changes::between(before, after));
        tables.changes.retain(|(before, after, _)| before.strong_count() > 0 && after.strong_count() > 0);
        if tables.changes.len() >= KEPT {
            tables.changes.remove(0);
        }
        tables.changes.push((Arc::downgrade(before), Arc::downgrade(after), changes.clone()));
        changes
    }

    /// The names of some resources, and the sum of what a client says that holds them: names and versions, as
    /// [entries](wire::put_entry).
    ///
    /// # Cost
    /// A pass over them for the first that asks.
    pub(super) fn content(&self, resources: &Arc<Resources>) -> (Arc<NameSet>, Sum) {
        let digest = self.digest(resources);
        let content = digest.get_or_init(|| {
            let mut states = Sum::default();
            let mut entry = BytesMut::new();
            for resource in resources.values() {
                entry.clear();
                wire::put_entry(&resource.name, resource.version.as_str(), &mut entry);
                states.add(&entry);
            }
            let set = NameSet::of(resources.values().map(|resource| resource.name.clone()));
            let known = self.set(set.sum);
            (known.unwrap_or_else(|| self.learn(Arc::new(set))), states)
        });
        content.clone()
    }

    /// A set of names that somebody asks for, by its sum.
    pub(super) fn set(&self, sum: Sum) -> Option<Arc<NameSet>> {
        self.lock().sets.get(&sum)?.upgrade()
    }

    /// A set without some names and with others.
    ///
    /// # Cost
    /// In proportion to the change, if the set that comes of it is known or this is the only one who has the set; else a
    /// copy.
    pub(super) fn changed(&self, set: &mut Arc<NameSet>, added: &[Name], removed: &[Name]) {
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let mut sum = set.sum;
        added.iter().for_each(|name| sum.add(name.as_bytes()));
        removed.iter().for_each(|name| sum.subtract(name.as_bytes()));
        if let Some(known) = self.set(sum) {
            *set = known;
            return;
        }
        let own = Arc::make_mut(set);
        for name in added {
            own.bytes += name.len();
            own.names.insert(name.clone());
        }
        for name in removed {
            own.bytes -= name.len();
            own.names.remove(name);
        }
        own.sum = sum;
        self.learn(set.clone());
    }

    /// Keeps a set for others to find, as long as somebody has it.
    pub(super) fn learn(&self, set: Arc<NameSet>) -> Arc<NameSet> {
        let mut tables = self.lock();
        if tables.sets.len() >= tables.sets_until.max(SETS) {
            tables.sets.retain(|_, set| set.strong_count() > 0);
            tables.sets_until = tables.sets.len() * 2;
        }
        tables.sets.insert(set.sum, Arc::downgrade(&set));
        set
    }

    fn digest(&self, resources: &Arc<Resources>) -> Arc<Digest> {
        let mut tables = self.lock();
        if let Some((_, digest)) = tables.digests.iter().rev().find(|(known, _)| is(known, resources)) {
            return digest.clone();
        }
        tables.digests.retain(|(known, _)| known.strong_count() > 0);
        if tables.digests.len() >= KEPT {
            tables.digests.remove(0);
        }
        let digest = Arc::new(Digest::default());
        tables.digests.push((Arc::downgrade(resources), digest.clone()));
        digest
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic elsewhere leaves at worst something out that is worked out again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether that is where some resources lie. What is kept of them keeps their place from being used again.
fn is(known: &Weak<Resources>, resources: &Arc<Resources>) -> bool {
    std::ptr::eq(known.as_ptr(), Arc::as_ptr(resources))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Version;

    fn resources(text: &str) -> Arc<Resources> {
        let resource = |word: &str| {
            let (name, version) = word.split_once('@').unwrap();
            let (name, version) = (Name::from(name), Version::new(version));
            let resource = Resource { name: name.clone(), version, body: "".into(), owners: Arc::from([]) };
            (name, Arc::new(resource))
        };
        Arc::new(text.split_whitespace().map(resource).collect())
    }

    fn names(text: &str) -> Vec<Name> {
        text.split_whitespace().map(Name::from).collect()
    }

    #[test]
    fn rows_of_changes() {
        let commons = Commons::default();
        for (before, after, expected) in [
            ("", "", ""),
            ("", "a@1 b@1", "+a@1 +b@1"),
            ("a@1 b@1", "", "-a -b"),
            ("a@1 b@1 c@1", "a@1 b@1 c@1", ""),
            ("a@1 b@1 c@1", "a@1 b@2 c@1", "b@1→2"),
            ("b@1 d@1", "a@1 b@1 c@1 e@1", "+a@1 +c@1 +e@1 -d"),
        ] {
            let (before, after) = (resources(before), resources(after));
            let changes = commons.changes(&before, &after);
            let changed = changes.changed.iter().map(|(old, new)| match old {
                None => format!("+{}@{}", new.name, new.version),
                Some(old) => format!("{}@{}→{}", new.name, old.version, new.version),
            });
            let removed = changes.removed.iter().map(|old| format!("-{}", old.name));
            assert_eq!(changed.chain(removed).collect::<Vec<_>>().join(" "), expected);
            assert!(Arc::ptr_eq(&changes, &commons.changes(&before, &after)), "compared twice");
        }
    }

    #[test]
    fn what_is_gone_is_not_kept() {
        let commons = Commons::default();
        let mut current = resources("a@0");
        for version in 1..1000 {
            let next = resources(&format!("a@{version}"));
            assert_eq!(commons.changes(&current, &next).changed.len(), 1, "not what lay in the same place before");
            assert_eq!(commons.content(&next).0.names().len(), 1);
            drop(commons.learn(Arc::new(NameSet::of(names(&version.to_string())))));
            current = next;
        }
        let tables = commons.lock();
        assert!(tables.changes.len() <= 2 && tables.digests.len() <= 2 && tables.sets.len() <= 2 * SETS);
    }

    #[test]
    fn nobody_outside_can_work_a_sum_out() {
        let mut sum = Sum::default();
        sum.add(b"name");
        assert_ne!(sum.0, xxhash_rust::xxh3::xxh3_128(b"name"));
        assert_ne!(*SECRET, [SECRET[0]; 192]);
        assert_eq!(NameSet::of(names("name")).sum, sum, "the same for everybody inside");
    }

    #[test]
    fn equal_sets_are_one() {
        let commons = Commons::default();
        let [mut first, mut second] = [Arc::default(), Arc::default()];
        commons.changed(&mut first, &names("a b c"), &[]);
        commons.changed(&mut second, &names("c d"), &[]);
        assert!(!Arc::ptr_eq(&first, &second));
        commons.changed(&mut second, &names("a b"), &names("d"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.names().len(), first.bytes()), (3, 3));
        // Who changes it leaves the other alone.
        commons.changed(&mut second, &[], &names("a"));
        assert_eq!((first.names().len(), second.names().len(), second.bytes()), (3, 2, 2));
        let (set, states) = commons.content(&resources("b@1 c@2"));
        assert!(Arc::ptr_eq(&set, &second));
        assert_eq!(states, commons.content(&resources("b@1 c@2")).1);
        assert_ne!(states, commons.content(&resources("b@2 c@1")).1);
    }
}
