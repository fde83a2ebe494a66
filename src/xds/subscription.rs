//! What one client asked for, for one type.
//!
//! A small value: requests go in, wanted names come out. It knows neither what exists nor what the client holds.
//! A delta request changes the interest, a state-of-the-world request replaces it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commons::{Commons, NameSet};
use crate::model::Name;
use crate::snapshot::ResourceType;

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// How much one client may make us remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names that one client may ask for, per type. At double, a hostile client costs us twice the memory (about 100
    /// bytes a name); with half, a gateway asks for too many that has 25 listeners, each cut into as many parts as there can be.
    pub names: usize,
    /// Length of a name in bytes.
    pub name_bytes: usize,
    /// Length of all names together in bytes, per type.
    pub total_bytes: usize,
    /// Versions that one client may state on its first request of a type.
    pub versions: usize,
}

impl Default for Limits {
    /// 200,000 names of up to 4 KiB each and 16 MiB together; 400,000 versions.
    fn default() -> Self {
        Self { names: 200_000, name_bytes: 4096, total_bytes: 16 << 20, versions: 400_000 }
    }
}

/// A request that goes beyond [`Limits`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// More names than [`Limits::names`].
    #[error("a subscription to more than {limit} resources of type {type_url}: ask for fewer, or for `*`")]
    Names {
        /// The type.
        type_url: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A name longer than [`Limits::name_bytes`].
    #[error("a resource name of {length} bytes in a request of type {type_url}: the limit is {limit}")]
    NameLength {
        /// The type.
        type_url: &'static str,
        /// Length of the name.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Names that are longer together than [`Limits::total_bytes`].
    #[error("a subscription of more than {limit} bytes of names of type {type_url}: ask for fewer, or for `*`")]
    TotalLength {
        /// The type.
        type_url: &'static str,
        /// The limit.
        limit: usize,
    },
    /// More initial versions than [`Limits::versions`].
    #[error("more than {limit} initial versions of type {type_url}")]
    Versions {
        /// The type.
        type_url: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// What one client asked for, for one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    everything: bool,
    names: Arc<NameSet>,
    /// Whether a state-of-the-world request ever named anything: an empty one then means nothing, not everything.
    has_named: bool,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterestChange {
    /// Names that the request asks for, new or not, without repetitions.
    pub asked: Vec<Name>,
    /// Those of them that were not asked for by name before.
    pub added: Vec<Name>,
    /// Names that are no longer asked for by name while the wildcard stays: the client is owed an answer on each.
    pub released: Vec<Name>,
    /// Whether something that was wanted no longer is.
    pub narrowed: bool,
    /// Whether everything is wanted, and was not before.
    pub widened: bool,
}

impl Interest {
    /// Takes in a delta request.
    ///
    /// `first` says that it is the first of its type on the stream.
    ///
    /// # Errors
    /// [`LimitExceeded`]; the stream must end then, since the interest may have changed in part.
    ///
    /// # Cost
    /// In proportion to the names in the request, unless nobody else asks for what comes of it; then a copy of the set.
    ///
    /// # Rule
    /// xDS protocol, "How the client specifies what resources to return" and "Unsubscribing from resources";
    /// `reliability.md` F1 and cases 12, 13, 16, 17, 20, 21.
    pub(super) fn apply_delta(
        &mut self,
        resource_type: ResourceType,
        first: bool,
        subscribe: &[Name],
        unsubscribe: &[Name],
        limits: &Limits,
        commons: &Commons,
    ) -> Result<InterestChange, LimitExceeded> {
        let mut change = InterestChange::default();
        let was_everything = self.everything;
        // Legacy wildcard: a first request that names nothing asks for everything, for clusters and listeners. Names
        // that are added later add to it (they don't end it, as they would in the state-of-the-world protocol).
        if first && subscribe.is_empty() && resource_type.has_wildcard() {
            self.everything = true;
        }
        let mut asked = BTreeSet::new();
        for name in subscribe {
            check_name(resource_type, name, limits)?;
            // Explicit wildcard, for every type. Asked for twice it is no new question.
            if name == WILDCARD {
                self.everything = true;
                continue;
            }
            // A name that is asked for again is a new question, whatever the client holds.
            asked.insert(name.clone());
        }
        let is_new = |name: &&Name| !self.names.names().contains(*name);
        let new = asked.iter().filter(is_new).map(|name| name.len());
        check(
            resource_type,
            limits,
            self.names.names().len() + new.clone().count(),
            self.names.bytes() + new.sum::<usize>(),
        )?;
        let mut given_up = BTreeSet::new();
        // A name that is in both lists ends up unsubscribed.
        for name in unsubscribe {
            // Unsubscribing the wildcard leaves the names.
            if name == WILDCARD {
                change.narrowed |= std::mem::take(&mut self.everything);
                continue;
            }
            // A name that was never asked for can't be given up.
            if !asked.remove(name) && !self.names.names().contains(name) {
                continue;
            }
            given_up.insert(name.clone());
            change.narrowed = true;
        }
        change.added = asked.iter().filter(|name| !self.names.names().contains(*name)).cloned().collect();
        let dropped: Vec<Name> = given_up.iter().filter(|name| self.names.names().contains(*name)).cloned().collect();
        commons.changed(&mut self.names, &change.added, &dropped);
        // While the wildcard stays, a name that was given up is still served, and the client must be told its state:
        // it can't know whether the wildcard covers it. Without the wildcard the client has dropped it.
        if self.everything {
            change.released = given_up.into_iter().collect();
        }
        change.asked = asked.into_iter().collect();
        change.widened = self.everything && !was_everything;
        Ok(change)
    }

    /// Takes in a first delta request that asks for a set that is known, whose names are within the limits of length.
    ///
    /// # Errors
    /// [`LimitExceeded`], as [`apply_delta`](Self::apply_delta).
    pub(super) fn adopt(
        &mut self,
        resource_type: ResourceType,
        names: &Arc<NameSet>,
        limits: &Limits,
    ) -> Result<(), LimitExceeded> {
        check(resource_type, limits, names.names().len(), names.bytes())?;
        self.names = names.clone();
        Ok(())
    }

    /// Takes in a state-of-the-world request; `names` is a list or a set that is known.
    ///
    /// # Errors
    /// [`LimitExceeded`]; the stream must end then.
    ///
    /// # Cost
    /// In proportion to the names; none if they are a set that is known and was asked for before.
    ///
    /// # Rule
    /// xDS protocol, "How the client specifies what resources to return"; `reliability.md` F1 and cases 12, 14, 15 and 20.
    pub(super) fn replace(
        &mut self,
        resource_type: ResourceType,
        names: &Asked<'_>,
        limits: &Limits,
        commons: &Commons,
    ) -> Result<InterestChange, LimitExceeded> {
        let is_nothing = match names {
            Asked::Names(names) => names.is_empty(),
            Asked::Known(set) => set.names().is_empty(),
        };
        // Legacy wildcard: clusters and listeners, as long as no request of the stream named anything.
        self.has_named |= !is_nothing;
        let mut everything = !self.has_named && resource_type.has_wildcard();
        let next = match names {
            Asked::Known(set) => Arc::clone(set),
            Asked::Names(names) => {
                for name in *names {
                    check_name(resource_type, name, limits)?;
                }
                everything |= names.iter().any(|name| name == WILDCARD);
                let set = NameSet::of(names.iter().filter(|name| *name != WILDCARD).cloned());
                if set == *self.names { self.names.clone() } else { commons.learn(Arc::new(set)) }
            }
        };
        check(resource_type, limits, next.names().len(), next.bytes())?;
        let mut change = InterestChange {
            narrowed: self.everything && !everything,
            widened: everything && !self.everything,
            ..InterestChange::default()
        };
        if !Arc::ptr_eq(&next, &self.names) {
            change.narrowed |= !self.names.names().is_subset(next.names());
            change.asked = next.names().difference(self.names.names()).cloned().collect();
            change.added.clone_from(&change.asked);
        }
        self.everything = everything;
        self.names = next;
        Ok(change)
    }

    /// Whether the client wants every resource of the type.
    #[must_use]
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// What the client asked for by name.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<Name> {
        self.names.names()
    }

    /// Whether these are the very names that the client asked for.
    pub(super) fn is_of(&self, names: &Arc<NameSet>) -> bool {
        Arc::ptr_eq(&self.names, names)
    }

    /// Whether the client wants this resource.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.everything || self.names().contains(name)
    }
}

/// The names of a state-of-the-world request.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    /// As they were stated.
    Names(&'a [Name]),
    /// A set that others ask for too, without the wildcard and with names within the limits of length.
    Known(&'a Arc<NameSet>),
}

fn check(resource_type: ResourceType, limits: &Limits, names: usize, bytes: usize) -> Result<(), LimitExceeded> {
    let type_url = resource_type.type_url();
    if names > limits.names {
        return Err(LimitExceeded::Names { type_url, limit: limits.names });
    }
    if bytes > limits.total_bytes {
        return Err(LimitExceeded::TotalLength { type_url, limit: limits.total_bytes });
    }
    Ok(())
}

fn check_name(resource_type: ResourceType, name: &Name, limits: &Limits) -> Result<(), LimitExceeded> {
    if name.len() <= limits.name_bytes {
        return Ok(());
    }
    let (length, limit) = (name.len(), limits.name_bytes);
    Err(LimitExceeded::NameLength { type_url: resource_type.type_url(), length, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Name> {
        text.split_whitespace().map(Name::from).collect()
    }

    /// Requests as `+name` and `-name`, separated by `;`, the first one being the stream's first; what is wanted then,
    /// and what the last request changed.
    fn check(resource_type: ResourceType, requests: &str, wanted: &str, changed: &str) {
        let commons = Commons::default();
        let mut interest = Interest::default();
        let mut change = InterestChange::default();
        for (position, request) in requests.split(';').enumerate() {
            let of = |sign| names(request).iter().filter_map(|word| word.strip_prefix(sign).map(Name::from)).collect();
            let (subscribe, unsubscribe): (Vec<Name>, Vec<Name>) = (of('+'), of('-'));
            let first = position == 0;
            change = interest
                .apply_delta(resource_type, first, &subscribe, &unsubscribe, &Limits::default(), &commons)
                .expect("within limits");
        }
        let star = interest.everything().then_some("*");
        let shown: Vec<&str> = star.into_iter().chain(interest.names().iter().map(Name::as_str)).collect();
        assert_eq!(shown.join(" "), wanted, "wanted after {requests}");
        let asked = change.asked.iter().map(|name| format!("+{name}"));
        let released = change.released.iter().map(|name| format!("~{name}"));
        let narrowed = change.narrowed.then(|| "narrowed".to_owned());
        let shown: Vec<String> = asked.chain(released).chain(narrowed).collect();
        assert_eq!(shown.join(" "), changed, "changed by {requests}");
    }

    #[test]
    fn rows() {
        use ResourceType::{Cluster, Listener, Route, Secret};
        check(Cluster, "", "*", "");
        check(Listener, "", "*", "");
        check(Route, "", "", "");
        check(Secret, "", "", "");
        check(Cluster, "+*", "*", "");
        check(Route, "+*", "*", "");
        check(Cluster, "+a", "a", "+a");
        check(Cluster, "+a;", "a", "");
        check(Cluster, ";+a", "* a", "+a");
        check(Cluster, ";+a;-a", "*", "~a narrowed");
        check(Cluster, "+* +a;-*", "a", "narrowed");
        check(Cluster, ";+a;-*", "a", "narrowed");
        check(Cluster, ";+*;+*", "*", "");
        check(Route, "+a;-a", "", "narrowed");
        check(Route, "+a;-a;+a", "a", "+a");
        check(Route, "+a;+a", "a", "+a");
        check(Route, "+a +a +a", "a", "+a");
        check(Route, "+a -a", "", "narrowed");
        check(Route, "+a;-b", "a", "");
        check(Cluster, "+*;-b", "*", "");
    }

    /// Requests as names, separated by `;`, and what is wanted then; `''` is the empty name.
    fn check_state(resource_type: ResourceType, requests: &str, wanted: &str, narrowed: bool) {
        let mut interest = Interest::default();
        let mut change = InterestChange::default();
        let commons = Commons::default();
        for request in requests.split(';') {
            let named: Vec<Name> = request.split_whitespace().map(|name| name.trim_matches('\'').into()).collect();
            change = interest
                .replace(resource_type, &Asked::Names(&named), &Limits::default(), &commons)
                .expect("within limits");
        }
        let star = interest.everything().then_some("*");
        let shown: Vec<&str> = star.into_iter().chain(interest.names().iter().map(Name::as_str)).collect();
        assert_eq!((shown.join(" ").as_str(), change.narrowed), (wanted, narrowed), "wanted after {requests}");
    }

    #[test]
    fn rows_of_the_state_of_the_world() {
        use ResourceType::{Cluster, Endpoint, Listener, Route};
        check_state(Cluster, "", "*", false);
        check_state(Listener, ";;", "*", false);
        check_state(Route, "", "", false);
        check_state(Endpoint, ";a", "a", false);
        // Case 14: names end the wildcard, and it doesn't come back by itself.
        check_state(Cluster, ";a b", "a b", true);
        check_state(Cluster, ";a b;", "", true);
        check_state(Cluster, "a;", "", true);
        check_state(Cluster, "a;*", "*", true);
        check_state(Cluster, "a;* a", "* a", false);
        check_state(Cluster, "* a;*", "*", true);
        check_state(Cluster, "*;", "", true);
        check_state(Route, "*;a", "a", true);
        // Case 15.
        check_state(Cluster, "''", "", false);
        check_state(Cluster, "'';", "", true);
        // Case 20.
        check_state(Route, "a a a;b a b", "a b", false);
        check_state(Route, "a b;a", "a", true);
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { names: 2, name_bytes: 3, total_bytes: 4, versions: 0 };
        let apply = |text: &str| {
            let commons = Commons::default();
            Interest::default().apply_delta(ResourceType::Route, true, &names(text), &[], &limits, &commons).map(|_| ())
        };
        assert_eq!(apply("a b"), Ok(()));
        let error = apply("a b c").unwrap_err().to_string();
        assert!(error.starts_with("a subscription to more than 2 resources"), "{error}");
        let error = apply("abc ab").unwrap_err().to_string();
        assert!(error.starts_with("a subscription of more than 4 bytes"), "{error}");
        let error = apply("abcd").unwrap_err().to_string();
        assert!(error.starts_with("a resource name of 4 bytes"), "{error}");
    }
}
