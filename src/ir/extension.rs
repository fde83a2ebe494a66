//! What policies share for all routes of a gateway: routes name it, and bring nothing of it themselves.
//!
//! It comes from every policy that could be attached, not from those that are, so that attaching a policy by label
//! changes routes alone. An entry never changes: what is different has another name. So what routes name before a change
//! and after it can stand side by side for the time between.
//!
//! Filters that ask servers are few, and each has one set of settings. A set keeps the filter that it has for as long as
//! some route may name it; [`Extensions::settle_slots`] decides which it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Policy;
use super::policy::Phase;
use super::policy::ext_auth::{AccessTokens, Authorization, Check, CheckSettings};
use super::policy::jwt::Verification;
use super::policy::rate_limit::MOST_VALUES;
use super::route::RouteBody;
use super::upstream::{Dial, Server, UpstreamId};
use crate::model::{Name, ObjectRef, WorkspaceId};

/// How many sets of settings for checks by servers a gateway has room for. A filter for each stands in every chain.
pub const CHECK_SLOTS: usize = 6;

/// How many of them, the first, are for sets that refuse requests when their server fails; the others are for those that let
/// them pass. Where it is forgotten which slot a set had, a route that names one meets for a moment whatever has it now, and so none that lets more
/// pass.
pub const STRICT_SLOTS: usize = 4;

/// What of a request a policy is for. A policy for each may be on one route; then both must let the request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// The route.
    Route,
    /// The destination that was chosen.
    Destination,
}

/// A set of settings that needs a filter of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckSet {
    /// What the policies that use it are for.
    pub level: Level,
    /// Which of the checks of one policy with these settings it is for, from 0.
    pub nth: usize,
    /// The settings, but for what routes bring themselves.
    pub settings: CheckSettings,
}

/// Who uses a set of settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CheckUse {
    /// The filter that has it, below [`CHECK_SLOTS`]; absent where there is no room. What new routes name is
    /// [`CheckUse::named`].
    pub slot: Option<usize>,
    /// The policies.
    pub policies: BTreeSet<ObjectRef>,
    /// The servers that are asked.
    pub servers: BTreeSet<Server>,
    /// What it has its filter for.
    #[serde(default)]
    pub standing: Standing,
}

/// What a set of settings has its filter for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Policies use it.
    #[default]
    InUse,
    /// Policies use it, and older ones have the room now: only routes may name it that gateways have not replaced yet.
    Crowded,
    /// No policy uses it any more, and only routes may that gateways have not replaced yet.
    Leaving,
}

impl CheckUse {
    /// The filter that new routes name; absent where they are closed.
    #[must_use]
    pub fn named(&self) -> Option<usize> {
        self.slot.filter(|_| self.standing != Standing::Crowded)
    }
}

/// Everything that the policies of a gateway share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// Which tokens are verified, by where that happens and by the name of the verification.
    pub tokens: BTreeMap<(Phase, Level), BTreeMap<Name, Arc<Verification>>>,
    /// Which access tokens are verified, by the name of the verification.
    pub access_tokens: BTreeMap<Name, Arc<AccessTokens>>,
    /// How servers are asked.
    pub checks: BTreeMap<CheckSet, CheckUse>,
    /// On whose routes the gateway counts fewer values of an open entry apart than [`MOST_VALUES`], and how many.
    pub values: BTreeMap<WorkspaceId, u32>,
}

/// The sets of settings that a policy needs, each with its check's position.
///
/// How much of a body a server gets is said on routes, so that none is ever asked with less.
pub fn check_sets(level: Level, authorization: &Authorization) -> impl Iterator<Item = (CheckSet, usize)> {
    let of_filter = |check: &Check| CheckSettings { body: None, ..check.settings.clone() };
    let checks = &authorization.checks;
    checks.iter().enumerate().map(move |(index, check)| {
        let settings = of_filter(check);
        let nth = checks[..index].iter().filter(|before| of_filter(before) == settings).count();
        (CheckSet { level, nth, settings }, index)
    })
}

impl Extensions {
    /// Adds what a policy shares.
    pub fn add(&mut self, level: Level, policy: &Policy) {
        match policy {
            Policy::Jwt(verification) => {
                let here = self.tokens.entry((verification.jwt.place.phase, level)).or_default();
                here.insert(verification.name.clone(), verification.clone());
            }
            Policy::ExtAuth(authorization) => {
                if let Some(tokens) = &authorization.tokens {
                    self.access_tokens.insert(tokens.verification.name.clone(), tokens.clone());
                }
                for (set, index) in check_sets(level, authorization) {
                    let uses = self.checks.entry(set).or_default();
                    uses.policies.insert(authorization.policy.clone());
                    uses.servers.insert(authorization.checks[index].server.clone());
                }
            }
            _ => {}
        }
    }

    /// Whether the gateway has a filter for each server that a policy asks; without, it closes the policy's routes.
    #[must_use]
    pub fn have_room_for(&self, level: Level, authorization: &Authorization) -> bool {
        check_sets(level, authorization).all(|(set, _)| self.checks.get(&set).and_then(CheckUse::named).is_some())
    }

    /// Adds what others share.
    pub fn join(&mut self, other: &Self) {
        for (place, verifications) in &other.tokens {
            let here = self.tokens.entry(*place).or_default();
            here.extend(verifications.iter().map(|(name, verification)| (name.clone(), verification.clone())));
        }
        self.access_tokens.extend(other.access_tokens.iter().map(|(name, tokens)| (name.clone(), tokens.clone())));
        for (set, uses) in &other.checks {
            let here = self.checks.entry(set.clone()).or_default();
            here.policies.extend(uses.policies.iter().cloned());
            here.servers.extend(uses.servers.iter().cloned());
        }
    }

    /// What is in this and not in the other. Servers that a set of settings has in the other are not in it. A set without a slot
    /// is named by no route, so here it is in neither.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (place, verifications) in &mut rest.tokens {
            let Some(others) = other.tokens.get(place) else { continue };
            verifications.retain(|name, _| !others.contains_key(name));
        }
        rest.tokens.retain(|_, verifications| !verifications.is_empty());
        rest.access_tokens.retain(|name, _| !other.access_tokens.contains_key(name));
        rest.checks.retain(|set, uses| {
            let Some(others) = other.checks.get(set).filter(|others| others.slot.is_some()) else {
                return uses.slot.is_some();
            };
            uses.servers.retain(|server| !others.servers.contains(server));
            uses.slot.is_some() && !uses.servers.is_empty()
        });
        rest
    }

    /// Keeps the verifications for which a condition holds.
    pub fn retain(&mut self, keep: impl Fn(&Verification) -> bool) {
        for verifications in self.tokens.values_mut() {
            verifications.retain(|_, verification| keep(verification));
        }
        self.tokens.retain(|_, verifications| !verifications.is_empty());
        self.access_tokens.retain(|_, tokens| keep(&tokens.verification));
    }

    /// Everything that has a name which routes may state.
    pub fn verifications(&self) -> impl Iterator<Item = &Verification> {
        let tokens = self.tokens.values().flat_map(BTreeMap::values).map(AsRef::as_ref);
        tokens.chain(self.access_tokens.values().map(|tokens| &tokens.verification))
    }

    /// Whether nothing is shared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.values().all(BTreeMap::is_empty) && self.access_tokens.is_empty() && self.checks.is_empty()
    }

    /// Whether all of the other is in this, wherever its sets of settings are: nothing is [left](Extensions::without) of it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let tokens = other.tokens.iter().all(|(place, verifications)| {
            self.tokens.get(place).is_some_and(|own| verifications.keys().all(|name| own.contains_key(name)))
        });
        let checks = || {
            let mut named = other.checks.iter().filter(|(_, uses)| uses.slot.is_some());
            named.all(|(set, uses)| {
                let own = self.checks.get(set).filter(|own| own.slot.is_some());
                own.is_some_and(|own| own.servers.is_superset(&uses.servers))
            })
        };
        tokens && other.access_tokens.keys().all(|name| self.access_tokens.contains_key(name)) && checks()
    }

    /// Gives sets of settings their slots, first come, first served; the rest has none.
    ///
    /// One begins to look for a free slot at one that its content says, so that a set more or less moves no other as long as
    /// there is room.
    pub fn settle_slots<'a>(&mut self, in_order: impl Iterator<Item = &'a CheckSet>) {
        let mut free: BTreeSet<usize> = (0..CHECK_SLOTS).collect();
        self.checks.values_mut().for_each(|uses| uses.slot = None);
        for set in in_order {
            if let Some(uses) = self.checks.get_mut(set).filter(|uses| uses.slot.is_none()) {
                uses.slot = free_slot(set, &mut free);
            }
        }
    }

    /// This with what is leaving, after `before` was in force: sets of settings stay where they are. One that comes and finds
    /// its slot taken gets another.
    ///
    /// Where none is free, it takes that of a set that leaves, if it [may stand in](CheckSettings::stands_in_for) for that
    /// one. Else it has to wait. One that lost its room to older ones leaves like those that nobody uses, as far as it is among
    /// what is leaving: routes that gateways still have are asked about as their policy says.
    #[must_use]
    pub fn after(&self, leaving: &Self, before: &Self) -> Self {
        let mut now = self.clone();
        now.join(leaving);
        let mut free: BTreeSet<usize> = (0..CHECK_SLOTS).collect();
        let mut coming: Vec<(CheckSet, usize)> = Vec::new();
        for (set, uses) in &mut now.checks {
            let wanted = self.checks.get(set).map(|uses| uses.slot);
            let had = before.checks.get(set).and_then(|uses| uses.slot).filter(|slot| slots_for(set).contains(slot));
            (uses.slot, uses.standing) = match wanted {
                Some(None) if leaving.checks.contains_key(set) && had.is_some() => (had, Standing::Crowded),
                Some(None) => (None, Standing::InUse),
                Some(Some(_)) => (had, Standing::InUse),
                None => (had, Standing::Leaving),
            };
            match (uses.slot, wanted.flatten()) {
                (Some(slot), _) => drop(free.remove(&slot)),
                (None, Some(wanted)) => coming.push((set.clone(), wanted)),
                (None, None) => {}
            }
        }
        for (set, wanted) in coming {
            let slot = Some(wanted).filter(|wanted| free.remove(wanted)).or_else(|| free_slot(&set, &mut free));
            let slot = slot.or_else(|| {
                let mut others = now.checks.iter_mut().filter(|(_, uses)| uses.standing != Standing::InUse);
                let (_, left) =
                    others.find(|(left, uses)| uses.slot.is_some() && set.settings.stands_in_for(&left.settings))?;
                left.slot.take()
            });
            if let Some(uses) = now.checks.get_mut(&set) {
                uses.slot = slot;
            }
        }
        now
    }

    /// Whether any route that was made with the other may be different with this, for the slots that it names.
    #[must_use]
    pub fn changes_routes_of(&self, before: &Self) -> bool {
        let mut wanted = self.checks.iter().filter(|(_, uses)| uses.standing != Standing::Leaving);
        wanted.any(|(set, uses)| before.checks.get(set).is_some_and(|before| before.named() != uses.named()))
    }

    /// How many values of an open entry the gateway counts apart on a route.
    #[must_use]
    pub fn values_on(&self, route: &RouteBody) -> u32 {
        route.owner().and_then(|owner| self.values.get(owner)).copied().unwrap_or(MOST_VALUES)
    }

    /// On whose routes another number of values is counted apart than with the other.
    #[must_use]
    pub fn recounts(&self, before: &Self) -> BTreeSet<WorkspaceId> {
        let owners = self.values.keys().chain(before.values.keys());
        owners.filter(|owner| self.values.get(*owner) != before.values.get(*owner)).cloned().collect()
    }

    /// Sets of settings that are to have a filter as wanted and have none yet, because others leave theirs: who uses one, and
    /// who those are, as far as they are still known.
    #[must_use]
    pub fn waiting<'a>(&'a self, wanted: &Self) -> Vec<(&'a BTreeSet<ObjectRef>, BTreeSet<&'a ObjectRef>)> {
        let is_promised = |set: &CheckSet| wanted.checks.get(set).is_some_and(|uses| uses.slot.is_some());
        let mut waiting = Vec::new();
        for (set, uses) in self.checks.iter().filter(|(set, uses)| uses.slot.is_none() && is_promised(set)) {
            let slots = slots_for(set);
            let leave = |uses: &&CheckUse| {
                uses.standing != Standing::InUse && uses.slot.is_some_and(|slot| slots.contains(&slot))
            };
            let before = self.checks.values().filter(leave).flat_map(|uses| &uses.policies);
            waiting.push((&uses.policies, before.collect()));
        }
        waiting
    }

    /// What gateways ask because of it.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        let checks = self.checks.values().flat_map(|uses| &uses.servers);
        self.verifications().flat_map(Verification::servers).chain(checks)
    }

    /// Destinations that gateways ask.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamId> {
        self.servers().filter_map(|server| match server {
            Server::Upstream(upstream) => Some(upstream),
            Server::Dial(_) => None,
        })
    }

    /// The policies because of which gateways ask addresses outside the mesh.
    #[must_use]
    pub fn askers(&self) -> BTreeMap<&Dial, BTreeSet<&ObjectRef>> {
        let mut askers: BTreeMap<&Dial, BTreeSet<&ObjectRef>> = BTreeMap::new();
        let verifications = self.verifications();
        let tokens = verifications.flat_map(|own| own.servers().map(|server| (server, &own.policy)));
        let checks = self.checks.values();
        let checks = checks
            .flat_map(|uses| uses.servers.iter().flat_map(|server| uses.policies.iter().map(move |by| (server, by))));
        for (server, policy) in tokens.chain(checks) {
            if let Server::Dial(dial) = server {
                askers.entry(dial).or_default().insert(policy);
            }
        }
        askers
    }

    /// Addresses outside the mesh that gateways ask.
    pub fn dials(&self) -> impl Iterator<Item = &Dial> {
        self.servers().filter_map(|server| match server {
            Server::Upstream(_) => None,
            Server::Dial(dial) => Some(dial),
        })
    }
}

/// The slots that a set may have.
fn slots_for(set: &CheckSet) -> Range<usize> {
    if set.settings.failure_mode_allow { STRICT_SLOTS..CHECK_SLOTS } else { 0..STRICT_SLOTS }
}

/// Takes the first free slot from the one on that a set's content says, of those that are for such sets.
fn free_slot(set: &CheckSet, free: &mut BTreeSet<usize>) -> Option<usize> {
    let own = slots_for(set);
    // The form has an order of its own for everything, so equal values give equal texts.
    let wanted = xxh3_64(format!("{set:?}").as_bytes()) % own.len() as u64;
    let wanted = own.start + usize::try_from(wanted).unwrap_or(0);
    let slot = free.range(wanted..own.end).chain(free.range(own.start..wanted)).next().copied()?;
    free.remove(&slot);
    Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::policy::ext_auth::{BodyToServer, Call};

    fn set(status: u16) -> CheckSet {
        let settings = CheckSettings {
            failure_mode_allow: false,
            status_on_error: status,
            stat_prefix: None,
            body: None,
            http: None,
        };
        CheckSet { level: Level::Route, nth: 0, settings }
    }

    fn shared(statuses: &[u16]) -> Extensions {
        let mut shared = Extensions::default();
        let sets: Vec<CheckSet> = statuses.iter().map(|status| set(*status)).collect();
        shared.checks.extend(sets.iter().map(|set| (set.clone(), CheckUse::default())));
        shared.settle_slots(sets.iter());
        shared
    }

    fn slot(shared: &Extensions, status: u16) -> Option<usize> {
        shared.checks[&set(status)].slot
    }

    #[test]
    fn four_strict_sets_have_slots_of_their_own_and_a_younger_one_has_none() {
        let statuses = [401, 402, 403, 404, 405];
        let all = shared(&statuses);
        let slots: BTreeSet<usize> = statuses[..4].iter().filter_map(|status| slot(&all, *status)).collect();
        assert_eq!(slots.len(), 4);
        assert_eq!(slot(&all, 405), None);
        for some in 1..4 {
            let fewer = shared(&statuses[..some]);
            for status in &statuses[..some] {
                assert_eq!(slot(&fewer, *status), slot(&all, *status), "a younger set moves no other");
            }
        }
    }

    #[test]
    fn a_set_stays_where_it_is_while_routes_may_name_it() {
        for gone in [401, 402, 403, 404] {
            let before = shared(&[401, 402, 403, 404]);
            let rest: Vec<u16> = [401, 402, 403, 404, 405].into_iter().filter(|status| *status != gone).collect();
            let plan = shared(&rest);
            let both = plan.after(&before.without(&plan), &before);
            for status in rest.iter().filter(|status| **status != 405) {
                assert_eq!(slot(&both, *status), slot(&before, *status));
            }
            assert_eq!(slot(&both, 405), slot(&before, gone), "it may stand in for the one that leaves");
            assert!(!both.changes_routes_of(&before));
            let now = plan.after(&Extensions::default(), &both);
            assert!(!now.changes_routes_of(&both) && !now.checks.contains_key(&set(gone)));
        }
    }

    fn lenient(status: u16) -> CheckSet {
        let mut set = set(status);
        set.settings.failure_mode_allow = true;
        set
    }

    /// Where slots are forgotten, as after a restart without state, routes that ask by a strict set may name the slot of any
    /// other for a moment; that must never be one that lets requests pass when its server fails.
    #[test]
    fn sets_that_let_requests_pass_have_slots_that_strict_ones_never_have() {
        let sets: Vec<CheckSet> = (401..=404).map(set).chain((401..=403).map(lenient)).collect();
        for rotation in 0..sets.len() {
            let mut shared = Extensions::default();
            shared.checks.extend(sets.iter().map(|set| (set.clone(), CheckUse::default())));
            let order: Vec<&CheckSet> = sets.iter().cycle().skip(rotation).take(sets.len()).collect();
            shared.settle_slots(order.into_iter());
            let of = |is_lenient: bool| -> Vec<Option<usize>> {
                let own = shared.checks.iter().filter(|(set, _)| set.settings.failure_mode_allow == is_lenient);
                own.map(|(_, uses)| uses.slot).collect()
            };
            let strict: BTreeSet<usize> = of(false).into_iter().flatten().collect();
            let open: BTreeSet<usize> = of(true).into_iter().flatten().collect();
            assert_eq!(strict, (0..4).collect());
            assert_eq!(open, (4..6).collect());
            assert_eq!(of(true).iter().filter(|slot| slot.is_none()).count(), 1, "the youngest has to do without");
        }
    }

    #[test]
    fn a_set_that_lets_requests_pass_takes_no_slot_of_a_strict_one_that_leaves() {
        let before = shared(&[401, 402, 403, 404]);
        let mut plan = shared(&[401, 402, 403]);
        let open = lenient(405);
        plan.checks.insert(open.clone(), CheckUse { slot: Some(4), ..CheckUse::default() });
        let both = plan.after(&before.without(&plan), &before);
        assert_eq!((both.checks[&open].slot, slot(&both, 404)), (Some(4), slot(&before, 404)));
        // What was remembered by a version that made no difference is not kept.
        let mut earlier = before.clone();
        earlier.checks.insert(open.clone(), CheckUse { slot: slot(&before, 404), ..CheckUse::default() });
        let now = plan.after(&Extensions::default(), &earlier);
        assert_eq!(now.checks[&open].slot, Some(4));
        assert!(now.changes_routes_of(&earlier), "its routes are made again");
    }

    fn over_http(status: u16) -> CheckSet {
        let mut set = set(status);
        set.settings.http = Some([Name::from(format!("x-{status}"))].into());
        set
    }

    fn shared_over_http(statuses: &[u16]) -> Extensions {
        let mut shared = Extensions::default();
        let sets: Vec<CheckSet> = statuses.iter().map(|status| over_http(*status)).collect();
        shared.checks.extend(sets.iter().map(|set| (set.clone(), CheckUse::default())));
        shared.settle_slots(sets.iter());
        shared
    }

    /// Four strict sets are in use, and an older policy comes with a fifth: the youngest's server would be asked with other
    /// headers by routes that gateways still have.
    #[test]
    fn a_set_that_lost_its_room_keeps_its_filter_until_routes_name_it_no_more() {
        let before = shared_over_http(&[402, 403, 404, 405]);
        let plan = shared_over_http(&[401, 402, 403, 404, 405]);
        let (old, new) = (over_http(401), over_http(405));
        assert!(!plan.covers(&before), "something is left over, so there is a second step");
        let left = before.without(&plan);
        assert_eq!(left.checks.keys().collect::<Vec<_>>(), [&new]);
        let both = plan.after(&left, &before);
        assert_eq!(both.checks[&new].slot, before.checks[&new].slot, "its filter is as it was");
        assert_eq!(both.checks[&new].named(), None, "and its new routes are closed");
        assert_eq!(both.checks[&old].named(), None, "whoever asks otherwise waits");
        assert!(both.changes_routes_of(&before));
        for status in [402, 403, 404] {
            let set = over_http(status);
            assert_eq!(both.checks[&set].named(), before.checks[&set].slot);
        }
        // Whatever else changes meanwhile.
        assert!(plan.covers(&plan) && plan.without(&plan).is_empty());
        assert_eq!(plan.after(&left.without(&plan), &both), both);
        // Gateways have taken routes that do not name it.
        let then = plan.after(&Extensions::default(), &both);
        assert_eq!(then.checks[&old].named(), before.checks[&new].slot);
        assert_eq!((then.checks[&new].slot, then.checks[&new].named()), (None, None));
        assert!(then.changes_routes_of(&both));
    }

    #[test]
    fn a_set_that_asks_alike_takes_the_slot_of_one_that_lost_its_room_at_once() {
        let before = shared(&[402, 403, 404, 405]);
        let plan = shared(&[401, 402, 403, 404, 405]);
        let now = plan.after(&before.without(&plan), &before);
        assert_eq!((slot(&now, 405), slot(&now, 401)), (None, slot(&before, 405)));
        assert!(now.changes_routes_of(&before));
    }

    #[test]
    fn a_set_that_gets_its_room_back_in_time_has_not_moved() {
        let before = shared_over_http(&[402, 403, 404, 405]);
        let plan = shared_over_http(&[401, 402, 403, 404, 405]);
        let left = before.without(&plan);
        let crowded = plan.after(&left, &before);
        let back = before.after(&left.without(&before), &crowded);
        assert_eq!(back, before.after(&Extensions::default(), &before));
        assert!(back.changes_routes_of(&crowded), "its routes are opened again");
    }

    /// How much of a body a server gets is part of no set.
    #[test]
    fn sets_that_differ_in_bodies_alone_are_one() {
        let check = |max_bytes| Check {
            server: Server::Dial(Dial { host: "a".into(), port: 1, tls: false, http2: true }),
            timeout: std::time::Duration::from_secs(1),
            context: BTreeMap::new(),
            settings: CheckSettings {
                body: Some(BodyToServer { max_bytes, allow_partial: false, as_bytes: false }),
                ..set(403).settings
            },
            call: Call::Grpc(None),
        };
        let policy = ObjectRef::new(crate::model::Kind::ExtAuthPolicy, "c1", "shop", "p");
        let checks = vec![check(1), check(2)];
        let both = Authorization { policy, checks, tokens: None, basic: None, key: None, rule: None };
        let sets: Vec<(CheckSet, usize)> = check_sets(Level::Route, &both).collect();
        let second = CheckSet { nth: 1, ..set(403) };
        assert_eq!(sets, [(set(403), 0), (second, 1)], "two filters all the same, for one policy asks twice");
    }
}
