//! Which limits of a route's policies there is room for, and where on the route they stand.
//!
//! All policies apply, those of the route and those of the destination that is chosen. Envoy takes what a destination has
//! in place of what the route has, so where one destination has something of its own, each gets everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::policy::rate_limit::{Limits, OnTheWay, on_the_way, steps};
use crate::ir::policy::{Phase, Policy, lane};
use crate::ir::route::RouteFault;
use crate::ir::upstream::UpstreamId;
use crate::model::{Code, Finding, Findings, ObjectRef};
use crate::resolve::facts::Age;

/// Most items that one request is asked about.
const MOST_ITEMS: usize = 32;

/// What the author of a policy is told of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The policy.
    pub policy: ObjectRef,
    /// Whether nothing of it applies.
    pub is_left_out: bool,
    /// Why.
    pub message: String,
}

impl Told {
    /// The same as a finding, which names one of the routes.
    #[must_use]
    pub fn finding(&self, route: &str) -> Finding {
        let message = format!("on route `{route}` {}", self.message);
        match self.is_left_out {
            true => Finding::error(&self.policy, Code::Unsupported, message),
            false => Finding::warning(&self.policy, Code::PolicyRemark, message),
        }
    }
}

/// The policies on a route.
#[derive(Debug)]
pub struct OnRoute<'a> {
    /// On the route itself.
    pub own: &'a mut Vec<Policy>,
    /// On its destinations.
    pub destinations: &'a mut BTreeMap<UpstreamId, Vec<Policy>>,
    /// All destinations; empty where it does not forward.
    pub upstreams: &'a [UpstreamId],
    /// Ages of the policies that limit.
    pub ages: &'a BTreeMap<ObjectRef, Age>,
}

/// Limits of policies, each once.
type List = Vec<Arc<Limits>>;

/// Puts the limits on a route where they stand, and takes out those for which there is no room.
///
/// # Cost
/// In proportion to the policies and, for each destination, their items.
///
/// # Rule
/// R123, R125.
pub fn fit(mut on: OnRoute<'_>) -> Vec<Told> {
    let mut own = taken(on.own);
    let mut of_destinations: BTreeMap<&UpstreamId, List> = BTreeMap::new();
    for upstream in on.upstreams {
        of_destinations.insert(upstream, on.destinations.get_mut(upstream).map(taken).unwrap_or_default());
    }
    let has_tokens = |policies: &[Policy]| policies.iter().any(|policy| matches!(policy, Policy::Jwt(_)));
    let is_split = of_destinations.values().any(|list| !list.is_empty())
        || (!own.is_empty() && on.destinations.values().any(|policies| has_tokens(policies)));
    let mut told = Vec::new();
    if on.upstreams.is_empty() {
        // Gateways count requests that they answer themselves, too.
        let (local, asked): (List, List) = own.into_iter().partition(|limits| limits.counter.service().is_none());
        own = local;
        sort(&mut own, on.ages);
        let here: Vec<&Policy> = on.own.iter().collect();
        own = shortened(own, &here, on.ages, &mut told);
        on.put_back(own);
        let message = "nothing is limited, because Envoy asks only about requests that it forwards";
        let tell = |limits: Arc<Limits>| Told {
            policy: limits.policy.clone(),
            is_left_out: false,
            message: message.to_owned(),
        };
        told.extend(asked.into_iter().map(tell));
        told.sort();
        told.dedup();
        return told;
    }
    sort(&mut own, on.ages);
    if is_split {
        for (upstream, list) in of_destinations {
            let known: BTreeSet<ObjectRef> = own.iter().map(|limits| limits.policy.clone()).collect();
            let mut all: List = own.clone();
            all.extend(list.into_iter().filter(|limits| !known.contains(&limits.policy)));
            sort(&mut all, on.ages);
            let here: Vec<&Policy> = on.own.iter().chain(on.destinations.get(upstream).into_iter().flatten()).collect();
            let all = shortened(all, &here, on.ages, &mut told);
            if !all.is_empty() {
                let policies = on.destinations.entry(upstream.clone()).or_default();
                policies.push(Policy::RateLimit(all));
                policies.sort();
            }
        }
    } else {
        let here: Vec<&Policy> = on.own.iter().collect();
        own = shortened(own, &here, on.ages, &mut told);
    }
    on.put_back(own);
    told.sort();
    told.dedup();
    told
}

impl OnRoute<'_> {
    fn put_back(&mut self, own: List) {
        if !own.is_empty() {
            self.own.push(Policy::RateLimit(own));
        }
    }
}

/// Takes the limits out of a list of policies.
fn taken(policies: &mut Vec<Policy>) -> List {
    let mut list = List::new();
    policies.retain(|policy| match policy {
        Policy::RateLimit(limits) => {
            list.extend(limits.iter().cloned());
            false
        }
        _ => true,
    });
    list
}

/// By phase, priority and age.
fn sort(list: &mut List, ages: &BTreeMap<ObjectRef, Age>) {
    list.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| ages.get(&a.policy).cmp(&ages.get(&b.policy))));
}

/// What there is room for beside the other policies on the way.
fn shortened(mut list: List, others: &[&Policy], ages: &BTreeMap<ObjectRef, Age>, told: &mut Vec<Told>) -> List {
    for phase in [Phase::PreAuthz, Phase::PostAuthz] {
        let tokens = lane::tokens(others.iter().copied(), phase);
        loop {
            let priorities: Vec<i32> = steps(&list, phase).iter().map(|step| step.priority).collect();
            if lane::ranks(&priorities, tokens).is_some() {
                break;
            }
            let here = list.iter().filter(|limits| limits.place.phase == phase);
            let Some(youngest) = here.max_by_key(|limits| ages.get(&limits.policy)).cloned() else { break };
            list.retain(|limits| limits.policy != youngest.policy);
            told.push(Told {
                policy: youngest.policy.clone(),
                is_left_out: true,
                message: format!(
                    "nothing of this policy applies: older ones take all {} places of its phase, which differ in priority or service; give it the priority and settings of another",
                    lane::RANKS
                ),
            });
        }
    }
    let mut by_age: Vec<&mut Arc<Limits>> = list.iter_mut().collect();
    by_age.sort_by(|a, b| ages.get(&a.policy).cmp(&ages.get(&b.policy)));
    let mut room = MOST_ITEMS;
    for limits in by_age {
        let all = limits.items.len();
        if all > room {
            let message = format!(
                "only {room} of the {all} items of this policy are sent: a request is asked about at most {MOST_ITEMS} items in all"
            );
            told.push(Told { policy: limits.policy.clone(), is_left_out: room == 0, message });
            Arc::make_mut(limits).items.truncate(room);
        }
        room -= limits.items.len();
    }
    list.retain(|limits| !limits.items.is_empty());
    list
}

/// Why limits that a route had have no place beside the verification that it has now, so that it is closed; with the policy
/// of one of them. Only a route that is kept can have such: for others [`fit`] leaves policies out.
///
/// # Rule
/// R125, R140.
#[must_use]
pub fn clash(own: &[Policy], destinations: &[&[Policy]]) -> Option<(ObjectRef, RouteFault)> {
    let has_room = |limits: &[Arc<Limits>], beside: &[&Policy]| {
        [Phase::PreAuthz, Phase::PostAuthz].into_iter().all(|phase| {
            let priorities: Vec<i32> = steps(limits, phase).iter().map(|step| step.priority).collect();
            lane::ranks(&priorities, lane::tokens(beside.iter().copied(), phase)).is_some()
        })
    };
    let crowded = match on_the_way(own, destinations.iter().copied()) {
        OnTheWay::Route(limits) => (!has_room(limits, &own.iter().collect::<Vec<_>>())).then_some(limits),
        OnTheWay::Destinations(all) => {
            let mut ways = all.into_iter().zip(destinations);
            let is_crowded = |(limits, own_of_way): &(&[Arc<Limits>], &&[Policy])| {
                !has_room(limits, &own.iter().chain(own_of_way.iter()).collect::<Vec<_>>())
            };
            ways.find(is_crowded).map(|(limits, _)| limits)
        }
    };
    let policy = &crowded?.last()?.policy;
    let message = format!(
        "the limits that are kept of `{policy}` and others have no places beside the verification of tokens that holds now"
    );
    Some((policy.clone(), RouteFault { code: Code::Unsupported, message, gateway_specific: false }))
}

/// What authors are told of the routes of a list, each thing once with the first of the routes.
#[must_use]
pub fn findings<'a>(told: impl Iterator<Item = (&'a Told, String)>) -> Findings {
    let mut first: BTreeMap<&Told, String> = BTreeMap::new();
    for (told, route) in told {
        first.entry(told).or_insert(route);
    }
    first.into_iter().map(|(told, route)| told.finding(&route)).collect()
}

#[cfg(test)]
mod tests;
