//! Which policies reach which route, and why the others do not.
//!
//! The six steps of the manual's page on attachment, for one final route at a time: chain, owners, labels, candidates,
//! selection, conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::ir::policy::Policy;
use crate::ir::route::{Action, Attachment, EffectiveLabels, Hop, RouteBody, RouteFault};
use crate::ir::upstream::{Edition, Server, UpstreamId};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Labels, ObjectRef, WorkspaceId};

use super::access;
use super::delegation::{FinalAction, FinalForward, FinalRoute};
use super::destination::selects;
use super::edition::edition_of;
use super::facts::{
    Age, DestinationSelector, Pod, PolicyEffect, PolicyObject, RouteLabelSelector, RouteSelector, Selector,
};
use super::policy::rate_limit::fitting::{OnRoute, Told, fit};
use super::policy::{self, Combine};
use super::selection::{destination_labels, destinations};
use super::upstream::behind;
use super::visibility::is_visible;
use super::world::World;

/// What attaches to one final route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Merged effects on the route, in the order of the kinds.
    pub route: Arc<[Policy]>,
    /// Merged effects on single destinations.
    pub destinations: BTreeMap<UpstreamId, Vec<Policy>>,
    /// The editions of those destinations that have one.
    pub editions: BTreeMap<UpstreamId, Edition>,
    /// Every policy that is attached.
    pub attachments: Arc<[Attachment]>,
    /// Who lost to whom on this route: loser, winner, and what was lost in words.
    pub beaten: Vec<Beaten>,
    /// Of these the policies of which others apply at a destination of the route; what was lost is all there.
    pub beaten_there: Vec<(UpstreamId, Beaten)>,
    /// What the authors of limits are told of this route.
    pub told: Vec<Told>,
    /// Set when a protecting policy cannot be honoured: the route is closed (R130).
    pub closed: Option<(ObjectRef, RouteFault)>,
}

impl Attached {
    /// Roughly the bytes that the policies take on each entry of the route.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.route.iter().chain(self.destinations.values().flatten()).map(policy::bytes).sum()
    }

    /// A destination of the route as the route leads to it.
    #[must_use]
    pub fn in_its_edition(&self, destination: &UpstreamId) -> UpstreamId {
        UpstreamId { edition: self.editions.get(destination).copied().unwrap_or_default(), ..destination.clone() }
    }

    /// Closes the route, if it has policies: they are too much together with those of the routes before.
    pub fn close_as_too_large(&mut self, most: usize) {
        let Some(first) = self.attachments.first() else { return };
        let message = format!(
            "the policies of the routes around come to more than {most} bytes, copied for each of them; shorten what \
             policies such as `{}` say, or let them select fewer routes",
            first.policy
        );
        let fault = RouteFault { code: Code::LimitExceeded, message, gateway_specific: false };
        *self = Self { closed: Some((first.policy.clone(), fault)), ..Self::default() };
    }

    /// Shares what is equal with what another route has; neighbours of one table nearly always have the same.
    pub fn share_with(&mut self, other: &Self) {
        if self.route == other.route {
            self.route = other.route.clone();
        }
        if self.attachments == other.attachments {
            self.attachments = other.attachments.clone();
        }
    }
}

/// A policy that does not apply, in whole or in part, because of an older one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beaten {
    /// The younger policy.
    pub loser: ObjectRef,
    /// The older policy.
    pub winner: ObjectRef,
    /// What the winner decides; empty for everything.
    pub part: String,
}

/// Why a policy is not on a route: the step that dropped it.
///
/// # Rule
/// R109.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Off {
    /// Step 1: the route is invalid and carries no policies.
    RouteInvalid,
    /// Step 4: its owner owns no table on the chain.
    OwnerNotOnChain,
    /// Step 5: no selector item fits the route.
    LabelMismatch,
    /// Step 6: an older policy of an exclusive kind applies.
    OlderPolicyWins,
    /// The policy is invalid or its kind is not supported (R130).
    PolicyInvalid,
    /// The route is as it was accepted last, and the policy was not on it then (R140).
    RouteFrozen,
}

impl Off {
    /// The stable text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RouteInvalid => "ROUTE_INVALID",
            Self::OwnerNotOnChain => "OWNER_NOT_ON_CHAIN",
            Self::LabelMismatch => "LABEL_MISMATCH",
            Self::OlderPolicyWins => "OLDER_POLICY_WINS",
            Self::PolicyInvalid => "POLICY_INVALID",
            Self::RouteFrozen => "ROUTE_FROZEN",
        }
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy that is not on a route, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAttached {
    /// The policy.
    pub policy: ObjectRef,
    /// The step.
    pub off: Off,
    /// In words.
    pub reason: String,
}

/// Decides what attaches to a final route.
///
/// # Cost
/// In proportion to the route's labels and candidates, not to all policies.
///
/// # Rule
/// R109 to R117, R126 to R130.
pub fn attach<W: World + ?Sized>(world: &W, route: &FinalRoute) -> Attached {
    if route.fault.is_some() {
        return Attached::default();
    }
    let mut gathered = Gathered::default();
    let mut owners: Vec<&WorkspaceId> = owners_of(route).collect();
    owners.sort();
    owners.dedup();
    let mut found: Vec<(Arc<PolicyObject>, WorkspaceId)> = Vec::new();
    for owner in owners {
        let candidates = world.candidates(owner, &route.labels);
        found.extend(candidates.into_iter().map(|policy| (policy, owner.clone())));
    }
    found.sort_by(|(a, _), (b, _)| a.id.kind.cmp(&b.id.kind).then_with(|| a.age.cmp(&b.age)));
    let mut rest = found.as_slice();
    while let Some((first, _)) = rest.first() {
        let kind = first.id.kind;
        let same = rest.iter().take_while(|(policy, _)| policy.id.kind == kind).count();
        let (group, others) = rest.split_at(same);
        rest = others;
        attach_kind(world, route, kind, group, &mut gathered);
    }
    for (upstream, _) in forwards_to(route) {
        attach_to_destination(world, upstream, &mut gathered);
    }
    if gathered.closed.is_none() {
        gathered.closed = policy::ext_auth::clash(&gathered.route, &gathered.destinations);
    }
    let told = fit_limits(route, &mut gathered);
    if let Some(closed) = gathered.closed {
        // A closed route carries no policies, so nothing wins or loses there.
        return Attached { closed: Some(closed), ..Attached::default() };
    }
    let Gathered { mut route, destinations, editions, attachments, beaten, beaten_there, ages: _, closed: _ } =
        gathered;
    route.sort();
    let (route, attachments) = (route.into(), attachments.into());
    Attached { route, destinations, editions, attachments, beaten, beaten_there, told, closed: None }
}

/// The owners of the tables on a chain. What has no table of its own is on it too, and policies for routes do not reach it.
fn owners_of(route: &FinalRoute) -> impl Iterator<Item = &WorkspaceId> {
    route.chain.iter().filter(|hop| hop.table.kind == Kind::RouteTable).map(|hop| &hop.owner)
}

/// Makes room for limits, and drops those that have none.
fn fit_limits(route: &FinalRoute, gathered: &mut Gathered) -> Vec<Told> {
    if gathered.ages.is_empty() || gathered.closed.is_some() {
        return Vec::new();
    }
    let mut upstreams: Vec<UpstreamId> = forwards_to(route).iter().map(|(upstream, _)| upstream.clone()).collect();
    upstreams.sort();
    upstreams.dedup();
    let told = fit(OnRoute {
        own: &mut gathered.route,
        destinations: &mut gathered.destinations,
        upstreams: &upstreams,
        ages: &gathered.ages,
    });
    let is_left_out = |policy: &ObjectRef| told.iter().any(|told| told.is_left_out && told.policy == *policy);
    gathered.attachments.retain(|attachment| !is_left_out(&attachment.policy));
    told
}

/// [`Attached`] while it grows.
#[derive(Default)]
struct Gathered {
    route: Vec<Policy>,
    destinations: BTreeMap<UpstreamId, Vec<Policy>>,
    editions: BTreeMap<UpstreamId, Edition>,
    attachments: Vec<Attachment>,
    beaten: Vec<Beaten>,
    beaten_there: Vec<(UpstreamId, Beaten)>,
    /// Of policies that limit.
    ages: BTreeMap<ObjectRef, Age>,
    closed: Option<(ObjectRef, RouteFault)>,
}

impl Gathered {
    /// Merges policies of one kind on one target.
    fn merge(&mut self, policies: &[(&PolicyObject, &Policy)]) -> Option<Policy> {
        let limiting = policies.iter().filter(|(_, effect)| matches!(effect, Policy::RateLimit(_)));
        self.ages.extend(limiting.map(|(policy, _)| (policy.id.clone(), policy.age.clone())));
        policy::merge(policies, &mut self.beaten)
    }
}

/// Policies that select a destination of the route, and those of what is behind a virtual one: they come from its owner,
/// whoever owns the route.
///
/// One that cannot be applied closes the destination itself, so that it is not looked at here.
///
/// # Rule
/// R118, R122.
fn attach_to_destination<W: World + ?Sized>(world: &W, upstream: &UpstreamId, attached: &mut Gathered) {
    let mut by_kind: BTreeMap<Kind, Vec<Vec<Candidate>>> = BTreeMap::new();
    let targets = behind(world, upstream);
    let mut selected: BTreeSet<&UpstreamId> = BTreeSet::new();
    for target in &targets {
        let mut here: BTreeMap<Kind, Vec<Candidate>> = BTreeMap::new();
        for candidate in protecting(world, target) {
            here.entry(candidate.0.id.kind).or_default().push(candidate);
        }
        if !here.is_empty() {
            selected.insert(target);
        }
        for (kind, candidates) in here {
            by_kind.entry(kind).or_default().push(candidates);
        }
    }
    let edition = edition_of(world, &targets, |member| selected.contains(member));
    if !edition.is_plain() {
        attached.editions.insert(upstream.clone(), edition);
    }
    for (kind, targets) in by_kind {
        let mut applied: Vec<Candidate> = Vec::new();
        for mut candidates in targets {
            if policy::combine(kind) == Combine::Oldest {
                let winner = candidates[0].0.id.clone();
                for (loser, _) in candidates.drain(1..) {
                    let beaten = Beaten { loser: loser.id.clone(), winner: winner.clone(), part: String::new() };
                    attached.beaten_there.push((upstream.clone(), beaten.clone()));
                    if !attached.beaten.contains(&beaten) {
                        attached.beaten.push(beaten);
                    }
                }
            }
            for candidate in candidates {
                if !applied.iter().any(|(policy, _)| policy.id == candidate.0.id) {
                    applied.push(candidate);
                }
            }
        }
        applied.sort_by(|(a, _), (b, _)| a.age.cmp(&b.age));
        if let ([(first, _), (second, _), ..], Combine::Oldest) = (applied.as_slice(), policy::combine(kind)) {
            // Which of them a request must pass is known only once an endpoint is chosen.
            let message = format!(
                "closed, because `{upstream}` groups Services with different policies of one kind, `{}` and `{}`: name the Services in the route, or let one policy select all",
                first.id, second.id
            );
            let fault = RouteFault { code: Code::Unsupported, message, gateway_specific: false };
            attached.closed.get_or_insert((second.id.clone(), fault));
            continue;
        }
        let effects: Vec<(&PolicyObject, &Policy)> =
            applied.iter().filter_map(|(p, _)| Some((&**p, valid(p)?))).collect();
        if let Some(effect) = attached.merge(&effects) {
            attached.destinations.entry(upstream.clone()).or_default().push(effect);
        }
        attached.attachments.extend(applied.iter().map(|(policy, owner)| Attachment {
            policy: policy.id.clone(),
            owner: owner.clone(),
            selected_by: format!("destination {upstream}").into(),
            destination: Some(upstream.clone()),
        }));
    }
}

/// A policy and its owner.
type Candidate = (Arc<PolicyObject>, WorkspaceId);

fn valid(policy: &PolicyObject) -> Option<&Policy> {
    match &policy.effect {
        PolicyEffect::Valid(effect) => Some(effect),
        PolicyEffect::Draft(_) | PolicyEffect::Invalid(_) => None,
    }
}

/// The valid policies that select a destination, in age order, each with its owner.
fn protecting<W: World + ?Sized>(world: &W, target: &UpstreamId) -> Vec<Candidate> {
    let Some(owner) = world.roster().owner_of(&target.object) else { return Vec::new() };
    let Some(labels) = destination_labels(world, &target.object) else { return Vec::new() };
    let candidates = world.destination_candidates(owner, &target.object, &labels).into_iter();
    let selected = candidates.filter(|policy| policy.targets.destinations.iter().any(|by| selects(world, by, target)));
    selected.map(|policy| (policy, owner.clone())).collect()
}

/// The valid policies that protect a destination and select it as such.
pub(super) fn protecting_policies<W: World + ?Sized>(world: &W, target: &UpstreamId) -> Vec<ObjectRef> {
    let policies = protecting(world, target).into_iter().map(|(policy, _)| policy.id.clone());
    policies.filter(|policy| policy.kind.protects()).collect()
}

/// The edition of a destination that connections are passed on to whole.
///
/// # Rule
/// R118, R122.
pub fn edition_for_connections<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> Edition {
    edition_of(world, &behind(world, upstream), |member| !protecting(world, member).is_empty())
}

/// Whether a valid policy selects a destination or what is behind it, so that only requests that a route has judged may
/// reach it.
///
/// # Rule
/// R118, R122.
pub fn is_protected<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> bool {
    let protects = |target: &UpstreamId| protecting(world, target).iter().any(|(policy, _)| policy.id.kind.protects());
    behind(world, upstream).iter().any(protects)
}

/// The valid policies that judge requests on the way to a destination or to what is behind it, so that a filter, whose
/// requests take no such way, must not ask it. A policy may ask what it selects itself, as one that selects everything does.
///
/// # Rule
/// R118, R122.
pub fn judging<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> Vec<ObjectRef> {
    let asks = |policy: &PolicyObject| {
        let is_it = |server: &Server| matches!(server, Server::Upstream(asked) if asked.object == upstream.object);
        match valid(policy) {
            Some(Policy::Jwt(verification)) => verification.servers().any(is_it),
            Some(Policy::ExtAuth(authorization)) => authorization.servers().any(is_it),
            _ => false,
        }
    };
    let mut judging = Vec::new();
    for target in behind(world, upstream) {
        let policies = protecting(world, &target).into_iter().map(|(policy, _)| policy);
        let judges = policies.filter(|policy| policy.id.kind.protects() && policy.id.kind != Kind::AccessPolicy);
        judging.extend(judges.filter(|policy| !asks(policy)).map(|policy| policy.id.clone()));
    }
    judging
}

/// Steps 5 and 6 for the candidates of one kind, in age order.
fn attach_kind<W: World + ?Sized>(
    world: &W,
    route: &FinalRoute,
    kind: Kind,
    candidates: &[(Arc<PolicyObject>, WorkspaceId)],
    attached: &mut Gathered,
) {
    let mut on_route: Vec<(&PolicyObject, &Policy)> = Vec::new();
    let mut on_destination: BTreeMap<UpstreamId, Vec<(&PolicyObject, &Policy)>> = BTreeMap::new();
    let mut attachments: Vec<Attachment> = Vec::new();
    for (policy, owner) in candidates {
        if let Some(by) = selects_route(world, route, policy) {
            match &policy.effect {
                PolicyEffect::Valid(effect) => {
                    on_route.push((policy, effect));
                    attachments.push(Attachment {
                        policy: policy.id.clone(),
                        owner: owner.clone(),
                        selected_by: match policy::is_strict(effect) {
                            true => format!("{by}; it is invalid, and its strict form applies").into(),
                            false => by.into(),
                        },
                        destination: None,
                    });
                }
                PolicyEffect::Invalid(fault) if policy::closes(policy) && attached.closed.is_none() => {
                    let fault = RouteFault {
                        code: fault.code,
                        message: format!(
                            "closed by `{}`, which protects it and cannot be applied: {}",
                            policy.id, fault.message
                        ),
                        gateway_specific: false,
                    };
                    attached.closed = Some((policy.id.clone(), fault));
                }
                // Rules see no drafts.
                PolicyEffect::Invalid(_) | PolicyEffect::Draft(_) => {}
            }
        }
        for upstream in selected_destinations(world, route, policy) {
            match &policy.effect {
                PolicyEffect::Valid(effect) => {
                    on_destination.entry(upstream.clone()).or_default().push((policy, effect));
                    attachments.push(Attachment {
                        policy: policy.id.clone(),
                        owner: owner.clone(),
                        selected_by: format!("destination {upstream}").into(),
                        destination: Some(upstream),
                    });
                }
                // A destination of the route is closed with the whole route: a share of requests cannot be refused alone.
                PolicyEffect::Invalid(fault) if policy::closes(policy) && attached.closed.is_none() => {
                    let fault = RouteFault {
                        code: fault.code,
                        message: format!(
                            "closed by `{}`, which protects `{upstream}` and cannot be applied: {}",
                            policy.id, fault.message
                        ),
                        gateway_specific: false,
                    };
                    attached.closed = Some((policy.id.clone(), fault));
                }
                PolicyEffect::Invalid(_) | PolicyEffect::Draft(_) => {}
            }
        }
    }
    let is_strict = on_route.iter().any(|(_, effect)| policy::is_strict(effect));
    if policy::combine(kind) == Combine::Oldest {
        beat(&mut on_route, attached);
        for (upstream, policies) in &mut on_destination {
            let before = attached.beaten.len();
            beat(policies, attached);
            let there = attached.beaten[before..].iter().map(|beaten| (upstream.clone(), beaten.clone()));
            attached.beaten_there.extend(there.collect::<Vec<_>>());
        }
        attachments.retain(|attachment| {
            let kept = match &attachment.destination {
                None => &on_route,
                Some(upstream) => match on_destination.get(upstream) {
                    Some(policies) => policies,
                    None => return false,
                },
            };
            kept.iter().any(|(policy, _)| policy.id == attachment.policy)
        });
    }
    attached.attachments.extend(attachments);
    if let Some(mut effect) = attached.merge(&on_route) {
        if is_strict {
            policy::harden(&mut effect);
        }
        attached.route.push(effect);
    }
    for (upstream, policies) in on_destination {
        if let Some(effect) = attached.merge(&policies) {
            attached.destinations.entry(upstream).or_default().push(effect);
        }
    }
}

/// Exclusive kinds keep the oldest (R126).
fn beat(policies: &mut Vec<(&PolicyObject, &Policy)>, attached: &mut Gathered) {
    if let Some((winner, _)) = policies.first().copied() {
        for (loser, _) in policies.drain(1..) {
            attached.beaten.push(Beaten { loser: loser.id.clone(), winner: winner.id.clone(), part: String::new() });
        }
    }
}

/// How a policy's route selectors pick a route, in words; nothing where they do not.
fn selects_route<W: World + ?Sized>(world: &W, route: &FinalRoute, policy: &PolicyObject) -> Option<String> {
    policy.targets.routes.iter().find_map(|selector| match selector {
        RouteSelector::All => Some("all routes".to_owned()),
        RouteSelector::Route(selector) => {
            fits(selector, &route.labels, route.chain.last()?).then(|| describe(selector))
        }
        RouteSelector::WithDestinations(selector) => forwards_to(route)
            .iter()
            .find(|(upstream, _)| picks(world, selector, policy, upstream))
            .map(|(upstream, _)| format!("destination {upstream}")),
    })
}

/// R117: the route first, then its destinations.
fn selected_destinations<W: World + ?Sized>(world: &W, route: &FinalRoute, policy: &PolicyObject) -> Vec<UpstreamId> {
    let mut selected = Vec::new();
    let Some(last) = route.chain.last() else { return selected };
    for item in &policy.targets.route_destinations {
        if !fits(&item.route, &route.labels, last) {
            continue;
        }
        for (upstream, _) in forwards_to(route) {
            let picked = item.destinations.is_empty()
                || item.destinations.iter().any(|selector| picks(world, selector, policy, upstream));
            if picked && !selected.contains(upstream) {
                selected.push(upstream.clone());
            }
        }
    }
    selected
}

fn forwards_to(route: &FinalRoute) -> &[(UpstreamId, u32)] {
    match &route.action {
        FinalAction::Forward(forward) => &forward.destinations,
        _ => &[],
    }
}

/// R113: labels against the effective ones; the rest against the table that holds the route (D19).
fn fits(selector: &RouteLabelSelector, labels: &EffectiveLabels, last: &Hop) -> bool {
    selector.labels.iter().all(|(key, value)| labels.get(key).is_some_and(|label| label.value == *value))
        && selector.namespace.as_ref().is_none_or(|namespace| *namespace == last.table.namespace)
        && selector.cluster.as_ref().is_none_or(|cluster| *cluster == last.table.cluster)
        && selector.workspace.as_ref().is_none_or(|workspace| *workspace == last.owner.0)
}

fn describe(selector: &RouteLabelSelector) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !selector.labels.is_empty() {
        parts.push(format!("labels {}", pairs(&selector.labels)));
    }
    for (what, value) in
        [("namespace", &selector.namespace), ("cluster", &selector.cluster), ("workspace", &selector.workspace)]
    {
        if let Some(value) = value {
            parts.push(format!("{what} {value}"));
        }
    }
    if parts.is_empty() { "all routes".to_owned() } else { parts.join(", ") }
}

fn pairs(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Every policy with a route selector that is not on a route, each with the step that dropped it.
///
/// # Cost
/// In proportion to all policies; for `explain`, not for compiling.
///
/// # Rule
/// R109.
pub fn explain_off<W: World + ?Sized>(world: &W, route: &FinalRoute, attached: &Attached) -> Vec<NotAttached> {
    explain_off_where(world, route, attached, |_| true)
}

/// The same for one policy; none where it is attached, or selects no routes.
///
/// # Rule
/// R109.
pub fn explain_one_off<W: World + ?Sized>(
    world: &W,
    route: &FinalRoute,
    attached: &Attached,
    policy: &ObjectRef,
) -> Option<NotAttached> {
    explain_off_where(world, route, attached, |id| id == policy).pop()
}

/// The same for a route that a frozen tree keeps.
///
/// # Rule
/// R109, R140.
pub fn explain_frozen_off<W: World + ?Sized>(world: &W, body: &RouteBody) -> Vec<NotAttached> {
    frozen_off_where(world, body, |_| true)
}

/// The same for one policy on a route that a frozen tree keeps.
///
/// # Rule
/// R109, R140.
pub fn explain_one_frozen_off<W: World + ?Sized>(
    world: &W,
    body: &RouteBody,
    policy: &ObjectRef,
) -> Option<NotAttached> {
    frozen_off_where(world, body, |id| id == policy).pop()
}

/// A route that a frozen tree keeps, as far as policies select by it.
#[must_use]
pub fn kept_route(body: &RouteBody) -> FinalRoute {
    let action = match &body.action {
        Action::Forward(forward) => FinalAction::Forward(Arc::new(FinalForward {
            destinations: forward.destinations.iter().map(|d| (d.upstream.of_any_edition(), d.weight)).collect(),
            path_rewrite: forward.path_rewrite.clone(),
            host_rewrite: forward.host_rewrite.clone(),
        })),
        Action::Redirect(redirect) => FinalAction::Redirect(redirect.clone()),
        Action::Direct(direct) => FinalAction::Direct(direct.clone()),
    };
    FinalRoute {
        matchers: Arc::default(),
        chain: body.chain.clone(),
        labels: body.labels.clone(),
        action,
        fault: body.fault.clone(),
        is_remainder: false,
    }
}

fn frozen_off_where<W: World + ?Sized>(
    world: &W,
    body: &RouteBody,
    wanted: impl Fn(&ObjectRef) -> bool,
) -> Vec<NotAttached> {
    let route = kept_route(body);
    let attached = Attached { attachments: body.attached.clone(), ..Attached::default() };
    let mut list = explain_off_where(world, &route, &attached, wanted);
    // The policies of now were not asked when the route was accepted.
    for not in list.iter_mut().filter(|not| !matches!(not.off, Off::RouteInvalid | Off::OwnerNotOnChain)) {
        not.off = Off::RouteFrozen;
        not.reason =
            "the route is as it was accepted last, without this policy, until every route of its tree is valid"
                .to_owned();
    }
    list
}

fn explain_off_where<W: World + ?Sized>(
    world: &W,
    route: &FinalRoute,
    attached: &Attached,
    wanted: impl Fn(&ObjectRef) -> bool,
) -> Vec<NotAttached> {
    let mut list = Vec::new();
    let owners: Vec<&WorkspaceId> = owners_of(route).collect();
    for owner in world.policy_owners() {
        for policy in world.policies(&owner).iter().filter(|policy| wanted(&policy.id)) {
            if attached.attachments.iter().any(|a| a.policy == policy.id) {
                continue;
            }
            let there = attached.beaten_there.iter().find(|(_, beaten)| beaten.loser == policy.id);
            let older = there.map(|(upstream, beaten)| {
                (Off::OlderPolicyWins, format!("at `{upstream}` `{}` is older and of the same kind", beaten.winner))
            });
            let selects_routes = !(policy.targets.routes.is_empty() && policy.targets.route_destinations.is_empty());
            let judged = selects_routes.then(|| judge(world, route, attached, &owners, &owner, policy));
            let not_for_it = |off: &Off| matches!(off, Off::LabelMismatch | Off::OwnerNotOnChain);
            let (off, reason) = match (judged, older) {
                (None, None) => continue,
                (Some(judged), None) => judged,
                (Some(judged), Some(_)) if !not_for_it(&judged.0) => judged,
                (_, Some(older)) => older,
            };
            list.push(NotAttached { policy: policy.id.clone(), off, reason });
        }
    }
    list.sort_by(|a, b| a.policy.cmp(&b.policy));
    list
}

fn judge<W: World + ?Sized>(
    world: &W,
    route: &FinalRoute,
    attached: &Attached,
    owners: &[&WorkspaceId],
    owner: &WorkspaceId,
    policy: &PolicyObject,
) -> (Off, String) {
    if route.fault.is_some() {
        return (Off::RouteInvalid, "the route is replaced by a direct response, which carries no policies".to_owned());
    }
    if !owners.contains(&owner) {
        return (Off::OwnerNotOnChain, format!("workspace `{owner}` owns no table on the way to the route"));
    }
    let on_route = selects_route(world, route, policy).is_some();
    if !on_route && selected_destinations(world, route, policy).is_empty() {
        return (Off::LabelMismatch, mismatch(route, policy));
    }
    if let PolicyEffect::Invalid(fault) = &policy.effect {
        return (Off::PolicyInvalid, fault.message.clone());
    }
    if let Some((closer, _)) = &attached.closed {
        return (Off::RouteInvalid, format!("the route is closed by `{closer}` and carries no policies"));
    }
    if let Some(told) = attached.told.iter().find(|told| told.is_left_out && told.policy == policy.id) {
        return (Off::PolicyInvalid, told.message.clone());
    }
    let is_winner = |other: &&Attachment| other.policy.kind == policy.id.kind && other.destination.is_none();
    let winner = attached.attachments.iter().find(is_winner).filter(|_| on_route);
    match winner {
        Some(winner) => (Off::OlderPolicyWins, format!("`{}` is older and of the same kind", winner.policy)),
        None => (Off::LabelMismatch, mismatch(route, policy)),
    }
}

/// What a policy asks for beside what the route has.
fn mismatch(route: &FinalRoute, policy: &PolicyObject) -> String {
    let asks: Vec<String> = policy
        .targets
        .routes
        .iter()
        .filter_map(|selector| match selector {
            RouteSelector::Route(selector) => Some(describe(selector)),
            RouteSelector::WithDestinations(selector) => {
                Some(format!("destinations with {}", selector.selector.describe()))
            }
            RouteSelector::All => None,
        })
        .chain(policy.targets.route_destinations.iter().map(|item| describe(&item.route)))
        .collect();
    let has: Vec<String> = route.labels.iter().map(|(key, label)| format!("{key}={}", label.value)).collect();
    let has = if has.is_empty() { "no labels".to_owned() } else { has.join(",") };
    format!("it selects {}; the route has {has}", asks.join(" or "))
}

/// Warnings for policies that lost, one per loser and winner, with how many routes and one of them.
///
/// # Rule
/// R126, R127, D22.
#[must_use]
pub fn beaten_findings(beaten: &BTreeMap<Beaten, Vec<String>>) -> Findings {
    beaten
        .iter()
        .map(|(beaten, routes)| {
            let on = match routes.as_slice() {
                [] => String::new(),
                [only] => format!("on route `{only}` "),
                [first, rest @ ..] => format!("on route `{first}` and {} more ", rest.len()),
            };
            let message = if beaten.part.is_empty() {
                format!("{on}the older `{}` applies in place of this policy", beaten.winner)
            } else {
                format!("{on}the older `{}` decides {}", beaten.winner, beaten.part)
            };
            Finding::warning(&beaten.loser, Code::BeatenByOlder, message).with(&beaten.winner)
        })
        .collect()
}

/// Warnings for selectors that pick only what their policy cannot reach.
///
/// A selector without any restriction means what its owner has, so there is nothing to tell about it.
///
/// # Rule
/// R119, R120.
pub fn no_effect_findings<W: World + ?Sized>(world: &W, gateways: &BTreeSet<GatewayId>) -> Findings {
    let mut findings = Findings::new();
    for owner in world.policy_owners() {
        for policy in world.policies(&owner) {
            let _ = no_effect(world, &owner, &policy, gateways, &mut findings);
        }
    }
    findings
}

/// The same for one policy, with what it reaches.
///
/// # Rule
/// R119, R120.
pub fn no_effect<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    policy: &PolicyObject,
    gateways: &BTreeSet<GatewayId>,
    findings: &mut Findings,
) -> access::Reach {
    if let Some(imported) = only_imported(world, owner, policy) {
        findings.push(
            Finding::warning(
                &policy.id,
                Code::SelectorNoEffect,
                format!("`applyToDestinations` finds imported destinations only, for instance `{imported}`: policies for a destination come from the workspace that owns it"),
            )
            .at(FieldPath::new("spec.applyToDestinations"))
            .with(&imported),
        );
    }
    let reach = access::reach(world, owner, policy, gateways, findings);
    // An AccessPolicy reaches the Services before such Pods, as `access::reach` says.
    if policy.targets.workloads.is_empty() || policy.id.kind == Kind::AccessPolicy {
        return reach;
    }
    if let Some(other) = other_workload(world, owner, policy, gateways) {
        findings.push(
            Finding::warning(
                &policy.id,
                Code::SelectorNoEffect,
                format!("`applyToWorkloads` selects `{other}`, which is no gateway: there are no sidecars, so nothing applies there"),
            )
            .at(FieldPath::new("spec.applyToWorkloads"))
            .with(&other),
        );
    }
    reach
}

/// The first imported destination that a policy selects, if it selects none that its workspace owns.
fn only_imported<W: World + ?Sized>(world: &W, owner: &WorkspaceId, policy: &PolicyObject) -> Option<ObjectRef> {
    let mut imported = None;
    for selector in &policy.targets.destinations {
        if selector.selector == Selector::default() {
            return None;
        }
        for (id, labels) in destinations(world, &selector.selector, selector.kind) {
            let owner_there = world.roster().owner_of(&id);
            if !selector.selector.fits_owner(owner_there) {
                continue;
            }
            if owner_there == Some(owner) {
                return None;
            }
            if imported.is_none() && is_visible(world, owner, &id, &labels) {
                imported = Some(id);
            }
        }
    }
    imported
}

/// The first Pod of the policy's workspace that it selects and that belongs to no gateway.
fn other_workload<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    policy: &PolicyObject,
    gateways: &BTreeSet<GatewayId>,
) -> Option<ObjectRef> {
    let is_gateway = |pod: &Pod| {
        let here = gateways.iter().filter(|g| g.cluster == pod.id.cluster && g.namespace == pod.id.namespace);
        here.flat_map(|g| &g.services).any(|name| {
            let service = ObjectRef::new(Kind::Service, &pod.id.cluster, &pod.id.namespace, name);
            world.service(&service).is_some_and(|service| contains_all(&pod.labels, &service.selector))
        })
    };
    let selects = |pod: &Pod| {
        policy.targets.workloads.iter().any(|selector| {
            *selector != Selector::default() && selector.fits(&pod.id, &pod.labels) && selector.fits_owner(Some(owner))
        })
    };
    world.roster().namespaces_of(owner).find_map(|(cluster, namespace)| {
        let pods = world.pods(cluster, namespace);
        pods.iter().find(|pod| selects(pod) && !is_gateway(pod)).map(|pod| pod.id.clone())
    })
}

/// Whether a selector of a policy picks a destination, among what is visible to the policy's owner (R37, R113).
fn picks<W: World + ?Sized>(
    world: &W,
    selector: &DestinationSelector,
    policy: &PolicyObject,
    upstream: &UpstreamId,
) -> bool {
    selects(world, selector, upstream)
        && world.roster().owner_of(&policy.id).is_some_and(|owner| {
            let labels = destination_labels(world, &upstream.object).unwrap_or_default();
            is_visible(world, owner, &upstream.object, &labels)
        })
}
