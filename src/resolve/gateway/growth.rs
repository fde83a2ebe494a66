//! A tree of tables with its policies on it: what each of its routes does, wherever it is served.

use std::sync::Arc;

use crate::ir::frozen::{Accepted, AcceptedRoute};
use crate::ir::policy::Policy;
use crate::ir::route::{Action, Attachment, DirectResponse, Forward, Hop, RouteBody, RouteFault, WeightedDestination};
use crate::ir::upstream::UpstreamId;
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Name, ObjectRef};
use crate::resolve::RequireAuth;
use crate::resolve::attachment::{Attached, attach, kept_route};
use crate::resolve::delegation::{FinalAction, FinalRoute, Tree};
use crate::resolve::facts::PolicyEffect;
use crate::resolve::policy;
use crate::resolve::world::World;

/// The label by which the default-deny switch finds routes (R51).
const REQUIRE_AUTH_LABEL: &str = "gateway.gloo.solo.io/require_auth";

/// Most bytes of policies on the routes of one segment, counted for each entry; as much as of direct responses on a tree.
const MAX_POLICY_BYTES: usize = 64 << 20;

/// Final routes that follow each other, with what attaches to each; the same for every gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The routes.
    pub routes: Vec<FinalRoute>,
    /// For each of them; neighbours share it where they have the same.
    pub attached: Vec<Arc<Attached>>,
    /// Each as it is served where nothing gateway-specific is wrong.
    pub served: Served,
}

/// Routes that follow each other, as they are served.
pub type Served = Arc<[AcceptedRoute]>;

impl Segment {
    /// Attaches policies to routes.
    ///
    /// What policies on routes come to has an end: from where it is too much, the routes that have some are closed.
    ///
    /// # Cost
    /// In proportion to the routes and their candidates.
    pub fn grow(world: &dyn World, mut routes: Vec<FinalRoute>) -> Self {
        routes.shrink_to_fit();
        share_destinations(&mut routes);
        let mut attached: Vec<Arc<Attached>> = Vec::with_capacity(routes.len());
        let mut bytes: usize = 0;
        for route in &routes {
            let mut own = attach(world, route);
            bytes = bytes.saturating_add(own.bytes().saturating_mul(route.matchers.len()));
            if bytes > MAX_POLICY_BYTES {
                own.close_as_too_large(MAX_POLICY_BYTES);
            }
            match attached.last() {
                Some(before) if **before == own => attached.push(before.clone()),
                Some(before) => {
                    own.share_with(before);
                    attached.push(Arc::new(own));
                }
                None => attached.push(Arc::new(own)),
            }
        }
        let mut served: Vec<AcceptedRoute> = Vec::with_capacity(routes.len());
        for (route, attached) in routes.iter().zip(&attached) {
            let mut own = body(world, route, attached);
            if let (Action::Forward(own), Some(Action::Forward(before))) =
                (&mut own.action, served.last().map(|before| &before.body.action))
                && own.destinations == before.destinations
            {
                if own == before {
                    *own = before.clone();
                } else {
                    Arc::make_mut(own).destinations = before.destinations.clone();
                }
            }
            let (matchers, is_remainder) = (route.matchers.clone(), route.is_remainder);
            served.push(AcceptedRoute { matchers, is_remainder, body: Arc::new(own), shut_out: Arc::default() });
        }
        Self { routes, attached, served: served.into() }
    }

    /// The routes of several segments in the order of a key; equals stay in theirs.
    pub fn sorted<K: Ord>(segments: &[Arc<Self>], key: impl Fn(&FinalRoute) -> K) -> Self {
        let all = segments.iter().flat_map(|segment| (0..segment.routes.len()).map(move |at| (segment, at)));
        let mut order: Vec<(K, (&Arc<Self>, usize))> =
            all.map(|(segment, at)| (key(&segment.routes[at]), (segment, at))).collect();
        order.sort_by(|(a, _), (b, _)| a.cmp(b));
        let order = || order.iter().map(|(_, place)| *place);
        Self {
            routes: order().map(|(segment, at)| segment.routes[at].clone()).collect(),
            attached: order().map(|(segment, at)| segment.attached[at].clone()).collect(),
            served: order().map(|(segment, at)| segment.served[at].clone()).collect(),
        }
    }
}

/// A tree as it is in force; the same for every gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrownTree {
    /// The tree, with what attaches to each of its routes.
    pub tree: Tree,
    /// What is served in place of the routes, while one of them is invalid and the root table freezes (R140).
    pub frozen: Option<Arc<Accepted>>,
    /// The routes that are served in their place, with what must be refused now (R51, R130).
    pub kept: Served,
}

impl GrownTree {
    /// A tree whose own routes are in force.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self { tree, frozen: None, kept: Arc::default() }
    }

    /// What is in force, in order: the tree's own routes, or those that it keeps.
    pub fn pieces(&self) -> impl Iterator<Item = &Served> {
        let is_frozen = self.frozen.is_some();
        let own = self.tree.segments.iter().filter(move |_| !is_frozen).map(|segment| &segment.served);
        std::iter::once(&self.kept).filter(move |_| is_frozen).chain(own)
    }

    /// The routes that are in force, in order.
    pub fn served(&self) -> impl Iterator<Item = &AcceptedRoute> {
        self.pieces().flat_map(|piece| piece.iter())
    }

    /// The tree's own routes, in order, each with what attaches to it.
    pub fn own(&self) -> impl Iterator<Item = (&FinalRoute, &Attached)> {
        let segments = self.tree.segments.iter();
        segments.flat_map(|segment| segment.routes.iter().zip(segment.attached.iter().map(AsRef::as_ref)))
    }

    /// Whether the root table claims its hosts for HTTP: not if it has routes of whole connections alone (R81).
    #[must_use]
    pub fn claims_http(&self) -> bool {
        let root = &self.tree.root;
        self.frozen.is_some() || !root.routes.is_empty() || root.streams.is_empty()
    }
}

/// Lets neighbours share their destinations, or the whole action, which they nearly always have in common.
fn share_destinations(routes: &mut [FinalRoute]) {
    for at in 1..routes.len() {
        let (before, own) = routes.split_at_mut(at);
        if let (Some(FinalAction::Forward(before)), Some(FinalAction::Forward(own))) =
            (before.last().map(|route| &route.action), own.first_mut().map(|route| &mut route.action))
            && own.destinations == before.destinations
        {
            if own == before {
                *own = before.clone();
            } else {
                Arc::make_mut(own).destinations = before.destinations.clone();
            }
        }
    }
}

/// A final route with its policies as what the gateway does.
fn body<W: World + ?Sized>(world: &W, route: &FinalRoute, attached: &Attached) -> RouteBody {
    let mut body = RouteBody {
        action: Action::Direct(DirectResponse { status: 500, body: Name::default() }),
        policies: attached.route.clone(),
        chain: route.chain.clone(),
        labels: route.labels.clone(),
        attached: attached.attachments.clone(),
        fault: None,
    };
    let fault = route.fault.as_deref().or_else(|| attached.closed.as_ref().map(|(_, fault)| fault)).cloned();
    if let Some(fault) = fault {
        return misconfigured(body, fault);
    }
    body.action = match &route.action {
        FinalAction::Forward(forward) => Action::Forward(Arc::new(Forward {
            destinations: forward
                .destinations
                .iter()
                .map(|(upstream, weight)| WeightedDestination {
                    upstream: attached.in_its_edition(upstream),
                    weight: *weight,
                    policies: attached.destinations.get(upstream).cloned().unwrap_or_default(),
                })
                .collect(),
            path_rewrite: forward.path_rewrite.clone(),
            host_rewrite: forward.host_rewrite.clone(),
        })),
        FinalAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        FinalAction::Direct(direct) => Action::Direct(direct.clone()),
        // A route without an action has a fault.
        FinalAction::None => return body,
    };
    if lacks_auth(world, &body) {
        refuse(&mut body);
    }
    body
}

/// R51: the switch is on, the route is labelled, and no policy on it authenticates.
fn lacks_auth<W: World + ?Sized>(world: &W, body: &RouteBody) -> bool {
    world.options().require_auth == RequireAuth::On
        && body.labels.get(REQUIRE_AUTH_LABEL).is_some_and(|label| label.value == "true")
        && !authenticates(body)
}

/// Whether a policy that authenticates is on the route, or one on each of its destinations.
fn authenticates(body: &RouteBody) -> bool {
    let by: Vec<&Attachment> =
        body.attached.iter().filter(|a| matches!(a.policy.kind, Kind::ExtAuthPolicy | Kind::JwtPolicy)).collect();
    let on_destination =
        |upstream: &UpstreamId| by.iter().any(|a| a.destination.as_ref().is_some_and(|at| at.is_edition_of(upstream)));
    by.iter().any(|a| a.destination.is_none())
        || matches!(&body.action, Action::Forward(forward)
            if forward.destinations.iter().all(|destination| on_destination(&destination.upstream)))
}

/// R51: whatever the route did, it answers 403.
fn refuse(body: &mut RouteBody) {
    body.action = Action::Direct(DirectResponse {
        status: 403,
        body: "chancery: this route requires authentication, and no policy provides it".into(),
    });
}

fn told_of_auth(last: &Hop) -> Finding {
    let route = &last.route;
    let message =
        format!("route `{route}` requires authentication and no policy provides it, so every request gets 403");
    Finding::warning(&last.table, Code::PolicyRemark, message)
}

/// The bodies of kept routes with what must be refused all the same: a protecting policy that cannot be applied closes those
/// that it selects by what was kept, the default-deny switch asks for authentication, and owners of destinations say what
/// holds there. A frozen tree must not be a way around any of them.
///
/// # Findings
/// Warnings on the tables that had the routes. Where a kept route stood says nothing about its table now.
///
/// # Cost
/// As [`Segment::grow`].
///
/// # Rule
/// R51, R118, R130, R140.
pub(super) fn guard<W: World + ?Sized>(world: &W, accepted: &Accepted) -> (Served, Findings) {
    let mut findings = Findings::new();
    let mut guarded = |body: &Arc<RouteBody>| {
        if body.fault.is_some() {
            return body.clone();
        }
        let now = attach(world, &kept_route(body));
        let served = with_secrets_of_now(world, &at_destinations(body, &now));
        if let Some((policy, fault)) = now.closed.clone().or_else(|| clash_on(&served)) {
            if let Some(last) = body.chain.last() {
                let message = format!("route `{}`, as it is kept, answers 500: {}", last.route, fault.message);
                findings.push(Finding::warning(&last.table, fault.code, message).with(&policy));
            }
            return Arc::new(misconfigured((**body).clone(), fault));
        }
        let body = served;
        if lacks_auth(world, &body) {
            findings.extend(body.chain.last().map(told_of_auth));
            let mut refused = (*body).clone();
            refuse(&mut refused);
            return Arc::new(refused);
        }
        match now.route.iter().find(|effect| policy::is_strict(effect)) {
            Some(strict) => Arc::new(kept_strictly(&body, strict, &now)),
            None => body,
        }
    };
    let routes = accepted.routes.iter();
    let served = routes.map(|route| AcceptedRoute { body: guarded(&route.body), ..route.clone() }).collect();
    (served, findings)
}

/// Why what a kept route asks of requests cannot be asked beside what its destinations ask now.
fn clash_on(body: &RouteBody) -> Option<(ObjectRef, RouteFault)> {
    let destinations = match &body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let own = destinations.iter().map(|destination| (destination.upstream.clone(), destination.policies.clone()));
    policy::ext_auth::clash(&body.policies, &own.collect()).or_else(|| {
        let all: Vec<&[Policy]> = destinations.iter().map(|destination| &destination.policies[..]).collect();
        policy::rate_limit::fitting::clash(&body.policies, &all)
    })
}

/// A kept route with the policies that the owners of its destinations have now: they are no part of the tree, and whoever
/// keeps it frozen must keep nobody from protecting what is his, or from replacing a key.
fn at_destinations(body: &Arc<RouteBody>, now: &Attached) -> Arc<RouteBody> {
    let Action::Forward(forward) = &body.action else { return body.clone() };
    let destinations = forward.destinations.iter().map(|kept| {
        let own = kept.policies.iter().filter(|policy| !policy::is_of_destinations_owner(policy.kind()));
        let upstream = kept.upstream.of_any_edition();
        let theirs = now.destinations.get(&upstream).into_iter().flatten();
        let theirs = theirs.filter(|policy| policy::is_of_destinations_owner(policy.kind()));
        let policies = own.chain(theirs).cloned().collect();
        WeightedDestination { upstream: now.in_its_edition(&upstream), policies, weight: kept.weight }
    });
    let destinations: Arc<[WeightedDestination]> = destinations.collect();
    let is_theirs = |attachment: &&Attachment| {
        attachment.destination.is_some() && policy::is_of_destinations_owner(attachment.policy.kind)
    };
    let own = body.attached.iter().filter(|attachment| !is_theirs(attachment));
    let attached: Arc<[Attachment]> = own.chain(now.attachments.iter().filter(is_theirs)).cloned().collect();
    if destinations == forward.destinations && attached == body.attached {
        return body.clone();
    }
    let action = Action::Forward(Arc::new(Forward { destinations, ..(**forward).clone() }));
    Arc::new(RouteBody { action, attached, ..(**body).clone() })
}

/// A kept route with the passwords and keys that its policies have now: one that is withdrawn must not live on.
fn with_secrets_of_now<W: World + ?Sized>(world: &W, body: &Arc<RouteBody>) -> Arc<RouteBody> {
    let fresh = |policy: &Policy| match policy {
        Policy::ExtAuth(kept) => {
            let owner = world.roster().owner_of(&kept.policy);
            let own = owner.map(|owner| world.sharing_policies(owner)).unwrap_or_default();
            let now = own.iter().find(|now| now.id == kept.policy).and_then(|now| match &now.effect {
                PolicyEffect::Valid(Policy::ExtAuth(now)) => Some(&**now),
                _ => None,
            });
            Policy::ExtAuth(Arc::new(kept.with_secrets_of(now)))
        }
        other => other.clone(),
    };
    let destinations = match &body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let mut all = body.policies.iter().chain(destinations.iter().flat_map(|destination| &destination.policies));
    if !all.any(|policy| matches!(policy, Policy::ExtAuth(_))) {
        return body.clone();
    }
    let mut now = RouteBody { policies: body.policies.iter().map(fresh).collect(), ..(**body).clone() };
    if let Action::Forward(forward) = &mut now.action {
        let with_fresh = |destination: &WeightedDestination| WeightedDestination {
            policies: destination.policies.iter().map(fresh).collect(),
            ..destination.clone()
        };
        Arc::make_mut(forward).destinations = forward.destinations.iter().map(with_fresh).collect();
    }
    Arc::new(now)
}

/// A kept route with the strict form of a policy that is invalid now, in place of what it had of the kind.
fn kept_strictly(body: &RouteBody, strict: &Policy, now: &Attached) -> RouteBody {
    let kind = strict.kind();
    let others = body.policies.iter().filter(|policy| policy.kind() != kind);
    let mut policies: Vec<Policy> = others.chain([strict]).cloned().collect();
    policies.sort();
    let before = body.attached.iter().filter(|attachment| attachment.policy.kind != kind);
    let attached = before.chain(now.attachments.iter().filter(|attachment| attachment.policy.kind == kind));
    RouteBody { policies: policies.into(), attached: attached.cloned().collect(), ..body.clone() }
}

/// The direct response of an invalid route; it carries no policies.
///
/// # Rule
/// R142.
pub(super) fn misconfigured(mut body: RouteBody, fault: RouteFault) -> RouteBody {
    body.action = Action::Direct(DirectResponse::misconfigured(fault.code));
    body.policies = Arc::default();
    body.attached = Arc::default();
    body.fault = Some(fault.into());
    body
}

/// Routes that the default-deny switch refuses, one warning per table (R51).
pub fn require_auth_findings<W: World + ?Sized>(world: &W, segment: &Segment, findings: &mut Findings) {
    for body in segment.served.iter().map(|route| &route.body) {
        if body.fault.is_none()
            && lacks_auth(world, body)
            && let Some(last) = body.chain.last()
        {
            findings.push(told_of_auth(last).at(FieldPath::new("spec.http").index(last.index)));
        }
    }
}

#[cfg(test)]
mod tests;
