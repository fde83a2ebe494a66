//! What a client holds, told by what it holds otherwise than the current snapshot has it.
//!
//! A client at rest holds exactly what the snapshot has, so at rest there is nothing to remember, and a change costs what
//! it touches: how many other resources the client holds doesn't matter.

use std::collections::BTreeMap;

use super::super::commons::Changes;
use super::super::subscription::Interest;
use crate::model::Name;
use crate::snapshot::diff::Holding;
use crate::snapshot::{Resource, Resources, Version};

/// What a client holds of one type.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By name: what it holds, or that it holds nothing. Only of names that it asks for, and never what the snapshot has: of
    /// what isn't here it holds what that has.
    differs: BTreeMap<Name, Option<Holding>>,
}

impl Held {
    /// What the client holds of a name that it asks for.
    pub(super) fn get(&self, name: &Name, resources: &Resources) -> Option<Holding> {
        match self.differs.get(name) {
            Some(holding) => holding.clone(),
            None => resources.get(name).map(|resource| Holding::Version(resource.version.clone())),
        }
    }

    /// Whether the client is known to hold exactly this resource, which it asks for.
    pub(super) fn holds(&self, resource: &Resource, resources: &Resources) -> bool {
        let is_it = |version: &Version| *version == resource.version;
        match self.differs.get(&resource.name) {
            Some(Some(Holding::Version(version))) => is_it(version),
            Some(Some(Holding::Uncertain) | None) => false,
            None => resources.get(&resource.name).is_some_and(|current| is_it(&current.version)),
        }
    }

    /// Notes what the client holds of a name that it asks for.
    pub(super) fn set(&mut self, name: &Name, holding: Option<Holding>, resources: &Resources) {
        let is_as_it_should_be = match (&holding, resources.get(name)) {
            (Some(Holding::Version(version)), Some(resource)) => *version == resource.version,
            (None, None) => true,
            _ => false,
        };
        if is_as_it_should_be {
            self.differs.remove(name);
        } else {
            self.differs.insert(name.clone(), holding);
        }
    }

    /// Forgets what the client doesn't ask for any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Name) -> bool) {
        self.differs.retain(|name, _| wanted(name));
    }

    /// The client holds exactly what the snapshot has.
    pub(super) fn settle(&mut self) {
        self.differs.clear();
    }

    /// The client holds nothing.
    pub(super) fn clear(&mut self, interest: &Interest, resources: &Resources) {
        let wanted = resources.values().filter(|resource| interest.wants(&resource.name));
        self.differs = wanted.map(|resource| (resource.name.clone(), None)).collect();
    }

    /// What the client holds, or doesn't, otherwise than the snapshot has it.
    pub(super) fn differing(&self) -> &BTreeMap<Name, Option<Holding>> {
        &self.differs
    }

    /// What the client holds, or may hold, and what isn't in the snapshot.
    pub(super) fn gone(&self, resources: &Resources) -> impl Iterator<Item = &Name> {
        let is_gone = |(name, holding): &(&Name, &Option<Holding>)| holding.is_some() && !resources.contains_key(*name);
        self.differs.iter().filter(is_gone).map(|(name, _)| name)
    }

    /// Follows the snapshot: what the client holds stays what it is, so what has changed differs from now on.
    ///
    /// # Cost
    /// In proportion to the changes.
    pub(super) fn follow(&mut self, changes: &Changes, interest: &Interest) {
        let holding = |resource: &Resource| Holding::Version(resource.version.clone());
        for (old, new) in changes.changed.iter().filter(|(_, new)| interest.wants(&new.name)) {
            match self.differs.get(&new.name) {
                Some(Some(Holding::Version(version))) if *version == new.version => {
                    self.differs.remove(&new.name);
                }
                Some(_) => {}
                None => {
                    self.differs.insert(new.name.clone(), old.as_deref().map(holding));
                }
            }
        }
        for old in changes.removed.iter().filter(|old| interest.wants(&old.name)) {
            match self.differs.get(&old.name) {
                Some(None) => {
                    self.differs.remove(&old.name);
                }
                Some(Some(_)) => {}
                None => {
                    self.differs.insert(old.name.clone(), Some(holding(old)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::commons::Commons;
    use super::*;

    fn resources(text: &str) -> Arc<Resources> {
        let resource = |(name, version): (Name, &str)| {
            let version = Version::new(version);
            (name.clone(), Arc::new(Resource { name, version, body: "".into(), owners: Arc::from([]) }))
        };
        Arc::new(pairs(text).map(resource).collect())
    }

    fn pairs(text: &str) -> impl Iterator<Item = (Name, &str)> {
        text.split_whitespace().map(|word| word.split_once('@').unwrap()).map(|(name, version)| (name.into(), version))
    }

    fn holding(version: &str) -> Holding {
        if version == "?" { Holding::Uncertain } else { Holding::Version(Version::new(version)) }
    }

    /// A client that holds something, as snapshots pass by; what it is remembered to hold otherwise at the end.
    #[track_caller]
    fn check(held: &str, snapshots: &[&str], expected: &str) {
        let commons = Commons::default();
        let mut interest = Interest::default();
        let names = [Name::from("*")];
        let limits = Default::default();
        let kind = crate::snapshot::ResourceType::Cluster;
        interest.apply_delta(kind, true, &names, &[], &limits, &commons).unwrap();
        let mut current = resources(snapshots[0]);
        let mut client = Held::default();
        client.clear(&interest, &current);
        for (name, version) in pairs(held) {
            client.set(&name, Some(holding(version)), &current);
        }
        for next in &snapshots[1..] {
            let next = resources(next);
            client.follow(&commons.changes(&current, &next), &interest);
            current = next;
            // However the snapshot changes, what the client holds stays.
            for name in ["a", "b", "c"].map(Name::from) {
                let expected = pairs(held).find(|(held, _)| *held == name).map(|(_, version)| holding(version));
                assert_eq!(client.get(&name, &current), expected, "{name} with {current:?}");
            }
        }
        let word = |(name, holding): (&Name, &Option<Holding>)| match holding {
            Some(Holding::Version(version)) => format!("{name}@{version}"),
            Some(Holding::Uncertain) => format!("{name}@?"),
            None => format!("{name}@"),
        };
        assert_eq!(client.differing().iter().map(word).collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn only_what_differs_is_remembered() {
        check("a@1 b@1", &["a@1 b@1"], "");
        check("", &["a@1 b@1"], "a@ b@");
        check("a@1", &["a@1 b@1"], "b@");
        check("a@1 b@1", &["a@1 b@1", "a@2 b@1"], "a@1");
        check("a@1 b@1", &["a@1 b@1", "a@2 b@1", "a@1 b@1"], "");
        check("a@1 b@1", &["a@1 b@1", "b@1"], "a@1");
        check("a@1 b@1", &["a@1 b@1", "b@1", "a@1 b@1"], "");
        check("a@1", &["a@1", "a@1 b@1 c@1", "a@1 c@2"], "c@");
        check("a@1", &["a@1", "a@1 b@1", "a@1"], "");
        check("a@? b@1", &["a@1 b@1", "a@2 b@2", "b@3"], "a@? b@1");
    }
}
