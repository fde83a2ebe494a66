//! The checker that looks at what changed.
//!
//! A [`Verifier`] keeps, for each resource, what was found and what the finding depends on, and looks again where the
//! resource or that changed. What it comes to is what [`verify`](super::verify) comes to, which a property test holds it to.
//!
//! | changed | looked at again |
//! |---|---|
//! | a cluster, endpoints | it, and who wants or takes these endpoints |
//! | a cluster comes or goes | also the route configurations and listeners that name it |
//! | a listener, a secret, what clusters show and trust, a discovered filter, a scope | all of these; if a listener's filters or routes changed, all routes |
//! | a route configuration | it, in it the virtual hosts whose bytes are others, and in these the [routes](super::apart) that are |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;

use super::apart::{Apart, apart, name_of, others};
use super::scopes::Wildcards;
use super::transports::Wanted;
use super::{
    Asked, At, Chains, Checker, Expressions, Identity, Memory, Name, ResourceType, Routes, Snapshot, User, Violation,
    World, route_pb,
};
use crate::snapshot::Changes;

/// Most expressions whose verdict is remembered from one check to the next. Virtual hosts that did not change are not looked
/// at, so this saves little more than an edit of a host with many; whoever edits on and on must not make it grow.
const EXPRESSIONS: usize = 4096;

/// Verdicts that do not depend on what else there is, or say on what.
type Violations = Vec<Violation>;

/// Checks the snapshots of one gateway, one after the other.
///
/// One per [`GatewayKey`](crate::publish::GatewayKey), kept by whoever publishes; snapshots that it is shown need not
/// have been published.
///
/// # Cost
/// A comparison of the bytes of changed resources, and the full check of what the table in the module says.
#[derive(Debug, Default)]
pub struct Verifier {
    last: Snapshot,
    clusters: BTreeMap<Name, ClusterFacts>,
    /// By name of endpoints: the clusters that want them.
    takers: BTreeMap<String, BTreeSet<Name>>,
    /// By secret: how many clusters wait for it.
    secrets: BTreeMap<String, usize>,
    listeners: ListenerFacts,
    routes: BTreeMap<Name, RouteFacts>,
    wildcards: Wildcards,
    /// Route configurations that stood in for others at the last check.
    stand_ins: BTreeSet<Name>,
    /// What is wrong, where anything is.
    wrong: BTreeMap<(ResourceType, Name), Violations>,
    /// What is wrong with the listeners, secrets and scopes together, and with wildcards.
    wrong_together: Violations,
    expressions: Expressions,
}

#[derive(Debug, Default)]
struct ClusterFacts {
    by_itself: Violations,
    wants: Wanted,
}

#[derive(Debug, Default)]
struct ListenerFacts {
    violations: Violations,
    asked: Asked,
    chains: Chains,
}

/// What is known of a route configuration.
#[derive(Debug, Default)]
struct RouteFacts {
    asked: Asked,
    hosts: Hosts,
}

/// Virtual hosts of the last check, in their order.
#[derive(Debug, Default)]
struct Hosts {
    largest_body: u32,
    known: Vec<Host>,
    /// Where those are that come next, if nothing is another.
    next: usize,
    /// Those of the check that is going on.
    seen: Vec<Host>,
    /// Whether what they ask about others has the same answers as at the last check.
    is_settled: bool,
}

/// A virtual host as it was checked.
#[derive(Clone, Debug)]
struct Host {
    /// Of the configuration that was checked last: nothing else is kept for these.
    bytes: bytes::Bytes,
    facts: Arc<HostFacts>,
    /// Whether there was nothing against it, in the snapshot.
    is_clean: bool,
}

/// What is known in every snapshot of some routes of a virtual host, or of the whole.
#[derive(Clone, Debug)]
struct Facts {
    is_clean: bool,
    /// In order: what must exist.
    resources: Arc<[(ResourceType, Name)]>,
    /// In order: what the listeners must have.
    slots: Arc<[String]>,
}

/// What is known of a virtual host in every snapshot.
#[derive(Debug)]
struct HostFacts {
    identity: Arc<Identity>,
    whole: Facts,
    /// How many names were found when all of it was looked at; routes that are gone may be the only ones that have some more.
    looked_at: usize,
    /// Whether all of it was looked at.
    is_exact: bool,
}

impl Verifier {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that is wrong with a snapshot, in order; empty if it may be published.
    pub fn verify(&mut self, snapshot: &Snapshot) -> Vec<Violation> {
        self.verify_with(snapshot, BTreeSet::new())
    }

    /// The same of a snapshot in which some route configurations, accepted once, stand in for what gateways refused: as parts
    /// of a chain, they need not have the wildcards of the others.
    pub fn verify_with(&mut self, snapshot: &Snapshot, stand_ins: BTreeSet<Name>) -> Vec<Violation> {
        let changes: BTreeMap<ResourceType, Changes> = ResourceType::ALL
            .into_iter()
            .map(|resource_type| (resource_type, snapshot.changes_since(&self.last, resource_type)))
            .collect();
        let of = |resource_type| &changes[&resource_type];
        let came_or_went: BTreeSet<(ResourceType, Name)> = changes
            .iter()
            .flat_map(|(resource_type, changes)| {
                changes.came.iter().chain(&changes.went).map(|name| (*resource_type, name.clone()))
            })
            .collect();
        let secrets_changed = self.verify_clusters(snapshot, of(ResourceType::Cluster), of(ResourceType::Endpoint));
        let together =
            [ResourceType::Listener, ResourceType::Secret, ResourceType::Extension, ResourceType::ScopedRoute];
        let chains_changed = (secrets_changed
            || together.iter().any(|resource_type| !of(*resource_type).is_empty())
            || self.listeners.asked.resources.iter().any(|asked| came_or_went.contains(asked)))
            && self.verify_listeners(snapshot);
        let routes = of(ResourceType::Route);
        let wildcards_changed = self.verify_routes(snapshot, routes, &came_or_went, chains_changed);
        let others_stand_in = self.stand_ins != stand_ins;
        self.stand_ins = stand_ins;
        if chains_changed || wildcards_changed || others_stand_in || !of(ResourceType::ScopedRoute).is_empty() {
            let mut checker = self.checker(World::Snapshot(snapshot));
            checker.check_wildcards(&self.listeners.chains, &self.wildcards, &self.stand_ins);
            self.wrong_together = checker.violations;
            self.expressions = checker.expressions;
        }
        self.last = snapshot.clone();
        if self.expressions.len() > EXPRESSIONS {
            self.expressions = Expressions::new();
        }
        let mut violations: Vec<Violation> = self.wrong.values().flatten().cloned().collect();
        violations.extend(self.wrong_together.iter().chain(&self.listeners.violations).cloned());
        violations.sort();
        violations
    }

    /// A checker with the expressions seen so far, which are to be given back.
    fn checker<'a>(&mut self, world: World<'a>) -> Checker<'a> {
        Checker { expressions: std::mem::take(&mut self.expressions), ..Checker::new(world) }
    }

    fn set(&mut self, resource_type: ResourceType, name: &Name, violations: Violations) {
        let key = (resource_type, name.clone());
        if violations.is_empty() {
            self.wrong.remove(&key);
        } else {
            self.wrong.insert(key, violations);
        }
    }

    /// Looks at clusters and endpoints; whether they wait for other secrets.
    fn verify_clusters(&mut self, snapshot: &Snapshot, clusters: &Changes, endpoints: &Changes) -> bool {
        let secrets_before: Vec<String> =
            if clusters.is_empty() { Vec::new() } else { self.secrets.keys().cloned().collect() };
        let mut look: BTreeSet<Name> = BTreeSet::new();
        let mut look_at_endpoints: BTreeSet<Name> = endpoints.all().cloned().collect();
        for name in clusters.all() {
            let before = self.clusters.remove(name).map(|facts| facts.wants).unwrap_or_default();
            for secret in before.secrets {
                if let Some(uses) = self.secrets.get_mut(&secret) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.secrets.remove(&secret);
                    }
                }
            }
            if let Some(wanted) = before.endpoints {
                if let Some(takers) = self.takers.get_mut(&wanted) {
                    takers.remove(name);
                    if takers.is_empty() {
                        self.takers.remove(&wanted);
                    }
                }
                look_at_endpoints.insert(wanted.into());
            }
            if let Some(resource) = snapshot.get(ResourceType::Cluster, name) {
                let mut checker = self.checker(World::Anything);
                let wants = checker.check_cluster(name, resource);
                let by_itself = std::mem::take(&mut checker.violations);
                self.expressions = checker.expressions;
                for secret in &wants.secrets {
                    *self.secrets.entry(secret.clone()).or_default() += 1;
                }
                if let Some(wanted) = &wants.endpoints {
                    self.takers.entry(wanted.clone()).or_default().insert(name.clone());
                    look_at_endpoints.insert(wanted.into());
                }
                self.clusters.insert(name.clone(), ClusterFacts { by_itself, wants });
            }
            look.insert(name.clone());
        }
        for name in endpoints.came.iter().chain(&endpoints.went) {
            look.extend(self.takers.get(name.as_str()).into_iter().flatten().cloned());
        }
        for name in look {
            let mut checker = self.checker(World::Snapshot(snapshot));
            if let Some(facts) = self.clusters.get(&name) {
                checker.violations.clone_from(&facts.by_itself);
                if let Some(wanted) = &facts.wants.endpoints {
                    checker.check_wanted_endpoints(&name, wanted);
                }
            }
            self.expressions = checker.expressions;
            self.set(ResourceType::Cluster, &name, checker.violations);
        }
        for name in look_at_endpoints {
            let mut checker = self.checker(World::Snapshot(snapshot));
            if let Some(resource) = snapshot.get(ResourceType::Endpoint, &name) {
                let takers = self.takers.get(name.as_str()).into_iter().flatten();
                let takers: Vec<&Wanted> =
                    takers.filter_map(|taker| self.clusters.get(taker)).map(|facts| &facts.wants).collect();
                checker.check_endpoints(&name, resource, Some(&takers));
            }
            self.expressions = checker.expressions;
            self.set(ResourceType::Endpoint, &name, checker.violations);
        }
        !clusters.is_empty() && !self.secrets.keys().eq(&secrets_before)
    }

    /// Looks at all listeners, secrets, discovered filters and scopes; whether who uses which routes is another matter now.
    fn verify_listeners(&mut self, snapshot: &Snapshot) -> bool {
        let mut checker = self.checker(World::Snapshot(snapshot));
        checker.asked = Some(Asked::default());
        let mut chains = checker.check_listeners(&self.secrets.keys().cloned().collect());
        checker.check_extensions(&mut chains);
        checker.check_scopes(&chains);
        self.expressions = checker.expressions;
        let changed = chains != self.listeners.chains;
        self.listeners =
            ListenerFacts { violations: checker.violations, asked: checker.asked.unwrap_or_default(), chains };
        changed
    }

    /// Looks at route configurations; whether their domains with wildcards differ, or which there are.
    fn verify_routes(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        came_or_went: &BTreeSet<(ResourceType, Name)>,
        chains_changed: bool,
    ) -> bool {
        let mut wildcards_changed = false;
        let is_settled = !chains_changed && came_or_went.is_empty();
        let mut look: BTreeSet<Name> = changes.all().cloned().collect();
        if chains_changed {
            look.extend(self.routes.keys().cloned());
        } else if !came_or_went.is_empty() {
            let depends = |facts: &RouteFacts| came_or_went.iter().any(|name| facts.depends_on(name));
            look.extend(self.routes.iter().filter(|(_, facts)| depends(facts)).map(|(name, _)| name.clone()));
        }
        for name in look {
            let before = self.routes.remove(&name);
            let wildcards_before = self.wildcards.remove(&name);
            let Some(resource) = snapshot.get(ResourceType::Route, &name) else {
                self.set(ResourceType::Route, &name, Violations::new());
                wildcards_changed |= wildcards_before.is_some();
                continue;
            };
            let mut hosts = before.map(|facts| facts.hosts).unwrap_or_default();
            hosts.is_settled = is_settled;
            let users = self.listeners.chains.users(&name);
            let is_part = self.listeners.chains.is_part(&name);
            let mut checker = self.checker(World::Snapshot(snapshot));
            checker.asked = Some(Asked::default());
            let wildcards = checker.check_route_configuration(&name, resource, (&users, is_part), &mut hosts);
            self.expressions = checker.expressions;
            let asked = checker.asked.unwrap_or_default();
            (hosts.known, hosts.next) = (std::mem::take(&mut hosts.seen), 0);
            self.set(ResourceType::Route, &name, checker.violations);
            wildcards_changed |= wildcards != wildcards_before;
            if let Some(wildcards) = wildcards {
                self.wildcards.insert(name.clone(), wildcards);
            }
            self.routes.insert(name, RouteFacts { asked, hosts });
        }
        wildcards_changed
    }
}

impl RouteFacts {
    fn depends_on(&self, name: &(ResourceType, Name)) -> bool {
        let asks = |host: &Host| host.facts.whole.resources.binary_search(name).is_ok();
        self.asked.resources.contains(name) || self.hosts.known.iter().any(asks)
    }
}

impl Hosts {
    /// The host of the last check that has these bytes, or at least the name in them.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        if self.known.get(self.next).is_some_and(|host| *host.bytes == *bytes) {
            return Some(self.next);
        }
        let name = name_of(bytes)?;
        self.known.iter().position(|host| host.facts.identity.name.as_bytes() == name)
    }
}

impl Memory for Hosts {
    fn recall(&mut self, routes: &mut Routes<'_, '_, '_>, bytes: &bytes::Bytes) -> Option<Arc<Identity>> {
        if self.largest_body != routes.largest_body {
            self.known.clear();
            self.largest_body = routes.largest_body;
        }
        let at = self.find(bytes);
        self.next = at.map_or(self.next, |at| at + 1);
        let before = at.and_then(|at| self.known.get(at));
        let host = match before.filter(|host| host.bytes == *bytes) {
            Some(host) if self.is_settled => Host { bytes: bytes.clone(), ..host.clone() },
            same => {
                let facts = match same {
                    Some(host) => host.facts.clone(),
                    None => Arc::new(HostFacts::of(routes, bytes, before)?),
                };
                let mut host = Host { bytes: bytes.clone(), is_clean: facts.is_clean(routes), facts };
                // What is missing may be what only routes named that are gone.
                if !host.is_clean && !host.facts.is_exact {
                    host.facts = Arc::new(HostFacts::of(routes, bytes, None)?);
                    host.is_clean = host.facts.is_clean(routes);
                }
                host
            }
        };
        let identity = host.is_clean.then(|| host.facts.identity.clone());
        self.seen.push(host);
        identity
    }
}

impl HostFacts {
    /// Whether there is nothing against it in a snapshot.
    fn is_clean(&self, routes: &Routes<'_, '_, '_>) -> bool {
        let Facts { is_clean, resources, slots } = &self.whole;
        let exists = |(resource_type, name): &(ResourceType, Name)| match routes.checker.world {
            World::Snapshot(snapshot) => snapshot.get(*resource_type, name).is_some(),
            World::Anything => true,
        };
        let has_slots = |(_, filters): &User| slots.iter().all(|slot| filters.contains(slot));
        *is_clean && resources.iter().all(exists) && routes.users.iter().all(has_slots)
    }

    /// Looks at a virtual host as if everything that it names existed, but at no route that the one of its name had before.
    fn of(routes: &mut Routes<'_, '_, '_>, bytes: &bytes::Bytes, before: Option<&Host>) -> Option<Self> {
        let now = apart(bytes)?;
        let before = before.filter(|host| host.facts.whole.is_clean);
        let same = before.and_then(|host| Some((apart(&host.bytes)?, &host.facts)));
        let Some((before, known)) = same.filter(|(before, _)| before.shell == now.shell) else {
            return Self::of_all(routes, &now);
        };
        let own = &now.routes[others(&before.routes, &now.routes)];
        let whole = known.whole.and(&Facts::of_routes(routes, &known.identity.name, own));
        if whole.resources.len() > 2 * known.looked_at + MORE {
            return Self::of_all(routes, &now);
        }
        Some(Self { identity: known.identity.clone(), whole, looked_at: known.looked_at, is_exact: false })
    }

    fn of_all(routes: &mut Routes<'_, '_, '_>, now: &Apart<'_>) -> Option<Self> {
        let host = route_pb::VirtualHost::decode(&*now.shell).ok()?;
        let shell = Facts::of(routes, |routes| {
            routes.check_virtual_host(&host);
            true
        });
        let whole = shell.and(&Facts::of_routes(routes, &host.name, &now.routes));
        let looked_at = whole.resources.len();
        let identity = Arc::new(Identity { name: host.name, domains: host.domains });
        Some(Self { identity, whole, looked_at, is_exact: true })
    }
}

/// How many names more than twice those that a virtual host has are remembered before all of it is looked at again.
const MORE: usize = 16;

impl Facts {
    /// Looks at something as if everything that it names existed; `check` says whether it could.
    fn of(routes: &mut Routes<'_, '_, '_>, check: impl FnOnce(&mut Routes<'_, '_, '_>) -> bool) -> Self {
        let mut checker = Checker {
            expressions: std::mem::take(&mut routes.checker.expressions),
            asked: Some(Asked::default()),
            ..Checker::new(World::Anything)
        };
        let could = check(&mut Routes { checker: &mut checker, users: &[], ..*routes });
        routes.checker.expressions = checker.expressions;
        let Asked { resources, slots } = checker.asked.unwrap_or_default();
        Self {
            is_clean: could && checker.violations.is_empty(),
            resources: resources.into_iter().collect(),
            slots: slots.into_iter().collect(),
        }
    }

    /// Looks at routes of a host.
    fn of_routes(routes: &mut Routes<'_, '_, '_>, host: &str, own: &[&[u8]]) -> Self {
        Self::of(routes, |routes| {
            own.iter().all(|route| match route_pb::Route::decode(*route) {
                Ok(route) => {
                    routes.check_route(At { host: Some(host), route: Some(&route.name) }, &route);
                    true
                }
                Err(_) => false,
            })
        })
    }

    /// Both together.
    fn and(&self, other: &Self) -> Self {
        Self {
            is_clean: self.is_clean && other.is_clean,
            resources: union(&self.resources, &other.resources),
            slots: union(&self.slots, &other.slots),
        }
    }
}

/// Two ordered lists as one; the very first where it has all of the second.
fn union<T: Ord + Clone>(all: &Arc<[T]>, more: &[T]) -> Arc<[T]> {
    if more.iter().all(|one| all.binary_search(one).is_ok()) {
        return all.clone();
    }
    all.iter().chain(more).cloned().collect::<BTreeSet<T>>().into_iter().collect()
}
