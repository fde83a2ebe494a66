//! A tree of tables with its policies on it: what each of its routes does, wherever it is served.

use std::sync::Arc;

use crate::ir::frozen::Accepted;
use crate::ir::route::{
    Action, Attachment, DirectResponse, Forward, Hop, Matcher, RouteBody, RouteFault, WeightedDestination,
};
use crate::ir::upstream::UpstreamId;
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Name};
use crate::resolve::RequireAuth;
use crate::resolve::attachment::{Attached, attach, kept_route};
use crate::resolve::delegation::{FinalAction, FinalRoute, Tree};
use crate::resolve::world::World;

/// The label by which the default-deny switch finds routes (R51).
const REQUIRE_AUTH_LABEL: &str = "gateway.gloo.solo.io/require_auth";

/// A tree with what attaches to each of its routes; the same for every gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrownTree {
    /// The tree.
    pub tree: Tree,
    /// For each of its routes; neighbours share it where they have the same.
    pub attached: Vec<Arc<Attached>>,
    /// Each route's body, as it is where nothing gateway-specific is wrong.
    pub bodies: Vec<Arc<RouteBody>>,
    /// What is served in place of the routes, while one of them is invalid and the root table freezes (R140).
    pub frozen: Option<Arc<Accepted>>,
    /// The bodies of what is served in their place, with what must be refused now (R51, R130).
    pub kept: Vec<Arc<RouteBody>>,
}

/// A final route as it is served.
#[derive(Clone, Copy, Debug)]
pub struct Served<'t> {
    /// Alternatives; at least one.
    pub matchers: &'t [Matcher],
    /// Whether it is the error route that a delegation leaves for what no valid child serves (R89).
    pub is_remainder: bool,
    /// What it does, as it is where nothing gateway-specific is wrong.
    pub body: &'t Arc<RouteBody>,
}

impl GrownTree {
    /// The routes that are in force, in order: the tree's own, or those that it keeps.
    pub fn served(&self) -> impl Iterator<Item = Served<'_>> {
        let kept = self.frozen.iter().flat_map(|accepted| &accepted.routes).zip(&self.kept);
        let kept =
            kept.map(|(route, body)| Served { matchers: &route.matchers, is_remainder: route.is_remainder, body });
        let own = if self.frozen.is_some() { 0 } else { self.tree.routes.len() };
        let own = self.tree.routes.iter().zip(&self.bodies).take(own).map(|(route, body)| Served {
            matchers: &route.matchers,
            is_remainder: route.is_remainder,
            body,
        });
        kept.chain(own)
    }

    /// Whether the root table claims its hosts for HTTP: not if it has routes of whole connections alone (R81).
    #[must_use]
    pub fn claims_http(&self) -> bool {
        let root = &self.tree.root;
        self.frozen.is_some() || !root.routes.is_empty() || root.streams.is_empty()
    }
}

/// Attaches policies to a tree's routes.
///
/// # Cost
/// In proportion to the routes and their candidates.
pub fn grow<W: World + ?Sized>(world: &W, mut tree: Tree) -> GrownTree {
    share_destinations(&mut tree.routes);
    let mut attached: Vec<Arc<Attached>> = Vec::with_capacity(tree.routes.len());
    for route in &tree.routes {
        let mut own = attach(world, route);
        match attached.last() {
            Some(before) if **before == own => attached.push(before.clone()),
            Some(before) => {
                own.share_with(before);
                attached.push(Arc::new(own));
            }
            None => attached.push(Arc::new(own)),
        }
    }
    let mut bodies: Vec<Arc<RouteBody>> = Vec::with_capacity(tree.routes.len());
    for (route, attached) in tree.routes.iter().zip(&attached) {
        let mut own = body(world, route, attached);
        if let (Action::Forward(own), Some(Action::Forward(before))) =
            (&mut own.action, bodies.last().map(|before| &before.action))
            && own.destinations == before.destinations
        {
            own.destinations = before.destinations.clone();
        }
        bodies.push(Arc::new(own));
    }
    GrownTree { tree, attached, bodies, frozen: None, kept: Vec::new() }
}

/// Lets neighbours share their destinations, which they nearly always have in common.
fn share_destinations(routes: &mut [FinalRoute]) {
    for at in 1..routes.len() {
        let (before, own) = routes.split_at_mut(at);
        if let (
            Some(FinalAction::Forward { destinations: before, .. }),
            Some(FinalAction::Forward { destinations: own, .. }),
        ) = (before.last().map(|route| &route.action), own.first_mut().map(|route| &mut route.action))
            && own == before
        {
            *own = before.clone();
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
    let fault = route.fault.clone().or_else(|| attached.closed.as_ref().map(|(_, fault)| fault.clone()));
    if let Some(fault) = fault {
        return misconfigured(body, fault);
    }
    body.action = match &route.action {
        FinalAction::Forward { destinations, path_rewrite, host_rewrite } => Action::Forward(Forward {
            destinations: destinations
                .iter()
                .map(|(upstream, weight)| WeightedDestination {
                    upstream: upstream.clone(),
                    weight: *weight,
                    policies: attached.destinations.get(upstream).cloned().unwrap_or_default(),
                })
                .collect(),
            path_rewrite: path_rewrite.clone(),
            host_rewrite: host_rewrite.clone(),
        }),
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
    let on_destination = |upstream: &UpstreamId| by.iter().any(|a| a.destination.as_ref() == Some(upstream));
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
/// that it selects by what was kept, and the default-deny switch asks for authentication. A frozen tree must not be a way
/// around either.
///
/// # Findings
/// Warnings on the tables that had the routes. Where a kept route stood says nothing about its table now.
///
/// # Cost
/// As [`grow`].
///
/// # Rule
/// R51, R130, R140.
pub(super) fn guard<W: World + ?Sized>(world: &W, accepted: &Accepted) -> (Vec<Arc<RouteBody>>, Findings) {
    let mut findings = Findings::new();
    let guarded = accepted.routes.iter().map(|route| {
        let body = &route.body;
        if body.fault.is_some() {
            return body.clone();
        }
        if let Some((policy, fault)) = attach(world, &kept_route(body)).closed {
            if let Some(last) = body.chain.last() {
                let message = format!("route `{}`, as it is kept, answers 500: {}", last.route, fault.message);
                findings.push(Finding::warning(&last.table, fault.code, message).with(&policy));
            }
            return Arc::new(misconfigured((**body).clone(), fault));
        }
        if lacks_auth(world, body) {
            findings.extend(body.chain.last().map(told_of_auth));
            let mut refused = (**body).clone();
            refuse(&mut refused);
            return Arc::new(refused);
        }
        body.clone()
    });
    (guarded.collect(), findings)
}

/// The direct response of an invalid route; it carries no policies.
///
/// # Rule
/// R142.
pub(super) fn misconfigured(mut body: RouteBody, fault: RouteFault) -> RouteBody {
    let text = format!("chancery: route misconfigured ({})", fault.code);
    body.action = Action::Direct(DirectResponse { status: 500, body: text.into() });
    body.policies = Arc::default();
    body.attached = Arc::default();
    body.fault = Some(fault);
    body
}

/// Routes that the default-deny switch refuses, one warning per table (R51).
pub fn require_auth_findings<W: World + ?Sized>(world: &W, grown: &GrownTree, findings: &mut Findings) {
    for body in &grown.bodies {
        if body.fault.is_none()
            && lacks_auth(world, body)
            && let Some(last) = body.chain.last()
        {
            findings.push(told_of_auth(last).at(FieldPath::new("spec.http").index(last.index)));
        }
    }
}
