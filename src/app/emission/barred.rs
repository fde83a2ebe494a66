//! Verifications that gateways refused: they are left out, and their routes closed, so that everybody else's go on.
//!
//! Envoy takes a filter whole or not at all, and a gateway that starts without it answers 500 to everybody. A refusal
//! names nobody, but what the accepted filter does not have is new in the refused one. All of that is left out; of several
//! that were refused together, halves are let in again one after the other, until the bad ones stand alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::route::DirectResponse;
use crate::ir::{Action, Extensions, GatewayPlan, Policy, Route, RouteBody, Serves, VirtualHost};
use crate::memory::refusals::references::verifications;
use crate::memory::refusals::{Bytes, Refusals};
use crate::model::{Code, Name};
use crate::publish::GatewayKey;
use crate::snapshot::{ResourceType, Snapshot};

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct Barred {
    groups: Vec<Group>,
    /// Let in again, until gateways say what they think of it.
    tried: Option<Group>,
    /// Hosts as they are and as they are served, by the place of the first in memory, for `closed_for`.
    hosts: BTreeMap<usize, (Arc<VirtualHost>, Arc<VirtualHost>)>,
    closed_for: BTreeSet<Name>,
}

/// What was refused together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    names: BTreeSet<Name>,
    /// Envoy's. Foreign text: quote it where it is shown.
    words: Arc<str>,
    /// Whether nothing else can have been meant.
    is_certain: bool,
}

impl Barred {
    /// Looks what gateways said of the filters that they were sent; whether other verifications are left out now.
    pub(super) fn look(&mut self, key: &GatewayKey, compiled: &Snapshot, refusals: &Refusals) -> bool {
        let (mut changed, mut are_taken) = (false, true);
        for filter in compiled.resources(ResourceType::Extension).values() {
            let accepted = || refusals.accepted(key, ResourceType::Extension, &filter.name);
            match refusals.get(&Bytes::new(key, ResourceType::Extension, &filter.name, &filter.version)) {
                Some(refused) => {
                    let known = accepted().map(|accepted| verifications(&accepted.body)).unwrap_or_default();
                    let new = verifications(&filter.body).difference(&known).cloned().collect();
                    changed |= self.refused(new, &refused.message);
                    are_taken = false;
                }
                None if self.is_open() => are_taken &= accepted().is_some_and(|taken| taken.version == filter.version),
                None => {}
            }
        }
        changed || (are_taken && self.is_open() && self.taken())
    }

    /// Notes that a filter was refused that has these and the accepted one has not.
    fn refused(&mut self, new: BTreeSet<Name>, words: &Arc<str>) -> bool {
        if new.is_empty() {
            return false;
        }
        let group = |names: BTreeSet<Name>, is_certain| Group { names, words: words.clone(), is_certain };
        let is_alone = new.len() == 1;
        let mut bad = vec![new];
        if let Some(tried) = self.tried.take_if(|tried| !tried.names.is_disjoint(&bad[0])) {
            // With what came meanwhile; each is tried by itself.
            let rest = bad[0].difference(&tried.names).cloned().collect();
            bad = vec![tried.names, rest];
        }
        for names in bad.into_iter().filter(|names| !names.is_empty()) {
            let names: Vec<Name> = names.into_iter().collect();
            let (first, second) = names.split_at(names.len().div_ceil(2));
            for half in [second, first].into_iter().filter(|half| !half.is_empty()) {
                self.groups.push(group(half.iter().cloned().collect(), is_alone));
            }
        }
        true
    }

    /// Notes that gateways took what is let in; whether more is let in now.
    fn taken(&mut self) -> bool {
        self.tried = None;
        let next = self.groups.iter().rposition(|group| !group.is_certain);
        self.tried = next.map(|next| self.groups.remove(next));
        self.tried.is_some()
    }

    /// Whether what gateways take next says more about who is bad.
    pub(super) fn is_open(&self) -> bool {
        self.tried.is_some() || self.groups.iter().any(|group| !group.is_certain)
    }

    /// What is left out, with Envoy's words.
    pub(super) fn names(&self) -> impl Iterator<Item = (&Name, &Arc<str>)> {
        self.groups.iter().flat_map(|group| group.names.iter().map(|name| (name, &group.words)))
    }

    /// A plan without what is left out; the routes that name it are closed.
    ///
    /// # Cost
    /// None if nothing is left out; else a lookup per virtual host, and a pass over those that are new.
    ///
    /// # Rule
    /// R130, shape poison.
    pub(super) fn close<'p>(&mut self, plan: Cow<'p, GatewayPlan>) -> Cow<'p, GatewayPlan> {
        let mut wanted: BTreeSet<&Name> = BTreeSet::new();
        wanted.extend(plan.extensions.verifications().map(|verification| &verification.name));
        for group in self.groups.iter_mut().chain(&mut self.tried) {
            group.names.retain(|name| wanted.contains(name));
        }
        self.groups.retain(|group| !group.names.is_empty());
        self.tried.take_if(|group| group.names.is_empty());
        let names: BTreeSet<Name> = self.names().map(|(name, _)| name.clone()).collect();
        let mut before = std::mem::take(&mut self.hosts);
        if names != self.closed_for {
            before.clear();
            self.closed_for.clone_from(&names);
        }
        if names.is_empty() {
            return plan;
        }
        let mut plan = plan.into_owned();
        let mut extensions = Extensions::clone(&plan.extensions);
        extensions.retain(|verification| !names.contains(&verification.name));
        plan.extensions = Arc::new(extensions);
        for chain in plan.listeners.values_mut().flat_map(|listener| &mut Arc::make_mut(listener).chains) {
            let Serves::Http(http) = &mut chain.serves else { continue };
            for host in &mut http.virtual_hosts {
                let place = Arc::as_ptr(host).addr();
                let known = self.hosts.get(&place).cloned().or_else(|| before.remove(&place));
                let (own, served) = known.unwrap_or_else(|| (host.clone(), closed(host, &names)));
                *host = served.clone();
                self.hosts.insert(place, (own, served));
            }
        }
        Cow::Owned(plan)
    }
}

/// A host whose routes that name some verifications are closed.
fn closed(host: &Arc<VirtualHost>, names: &BTreeSet<Name>) -> Arc<VirtualHost> {
    if !host.routes.iter().any(|route| states(route, names)) {
        return host.clone();
    }
    let closed = |route: &Route| match states(route, names) {
        true => Route { body: Arc::new(poison(&route.body)), ..route.clone() },
        false => route.clone(),
    };
    let VirtualHost { domain, tables, redirects_to_https, routes } = &**host;
    let routes = routes.iter().map(closed).collect();
    Arc::new(VirtualHost {
        domain: domain.clone(),
        tables: tables.clone(),
        redirects_to_https: *redirects_to_https,
        routes,
    })
}

/// Whether a route, or a destination of it, names one of some verifications.
fn states(route: &Route, names: &BTreeSet<Name>) -> bool {
    let is_one = |policy: &Policy| match policy {
        Policy::Jwt(verification) => names.contains(&verification.name),
        Policy::ExtAuth(own) => own.tokens.as_ref().is_some_and(|tokens| names.contains(&tokens.verification.name)),
        _ => false,
    };
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    route.body.policies.iter().any(is_one)
        || destinations.iter().any(|destination| destination.policies.iter().any(is_one))
}

/// An answer that says nothing of the policy, in place of everything.
fn poison(body: &RouteBody) -> RouteBody {
    let answer = DirectResponse::misconfigured(Code::RefusedByGateway);
    RouteBody { action: Action::Direct(answer), policies: [].into(), ..body.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> BTreeSet<Name> {
        text.split_whitespace().map(Name::from).collect()
    }

    /// Gateways that refuse every filter with one of some names; what is left out when they are content, and after how many
    /// filters.
    #[track_caller]
    fn settle(accepted: &str, wanted: &str, bad: &str) -> (String, usize) {
        let (mut barred, mut taken) = (Barred::default(), words(accepted));
        let (wanted, bad) = (words(wanted), words(bad));
        let refused: Arc<str> = "no".into();
        for sent in 1..100 {
            let out: BTreeSet<Name> = barred.names().map(|(name, _)| name.clone()).collect();
            let filter: BTreeSet<Name> = wanted.difference(&out).cloned().collect();
            let moved = if filter.is_disjoint(&bad) {
                taken.clone_from(&filter);
                barred.is_open() && barred.taken()
            } else {
                barred.refused(filter.difference(&taken).cloned().collect(), &refused)
            };
            if !moved {
                let out: Vec<&str> = barred.names().map(|(name, _)| name.as_str()).collect();
                return (out.join(" "), sent);
            }
        }
        panic!("no end: {barred:?}");
    }

    #[test]
    fn only_the_bad_ones_are_left_out() {
        assert_eq!(settle("a b", "a b c", ""), (String::new(), 1));
        assert_eq!(settle("a b", "a b c", "c"), ("c".into(), 2), "at once, where only one is new");
        assert_eq!(settle("", "a b c d e f g h", "f").0, "f");
        assert_eq!(settle("", "a b", "b").0, "b");
        let (out, _) = settle("", "a b c d e f g h", "a f h");
        assert_eq!(words(&out), words("a f h"));
        let (out, sent) = settle("", &(0..64).map(|n| format!("v{n} ")).collect::<String>(), "v17");
        assert!(out == "v17" && sent <= 24, "{out} after {sent}");
    }
}
