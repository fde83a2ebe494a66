//! Routes of a virtual host: what they match, what they do, and who said so.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Code, FieldPath, Kind, Name, ObjectRef, PathMatch, WorkspaceId};

use super::upstream::Server;
use super::{Policy, UpstreamId};

/// One entry of a virtual host: one way to match, and the body that all ways of one final route share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Unique and readable within the virtual host: `namespace/table:route`, with `[n]` for further matchers or chains.
    pub name: Name,
    /// What a request must look like.
    pub matcher: Matcher,
    /// What happens then, and why.
    pub body: Arc<RouteBody>,
}

/// Routes in order, in pieces, so that a compiler that makes one of them anew shares all others.
///
/// # Cost
/// A clone is two words for each piece. Equal pieces that are the same in memory are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Routes(Vec<Arc<[Route]>>);

impl Routes {
    /// Puts pieces together.
    #[must_use]
    pub fn new(pieces: Vec<Arc<[Route]>>) -> Self {
        Self(pieces)
    }

    /// The pieces, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Arc<[Route]>] {
        &self.0
    }

    /// All routes, in order.
    pub fn iter(&self) -> RoutesIter<'_> {
        self.0.iter().flat_map(|piece| piece.iter())
    }

    /// How many there are.
    ///
    /// # Cost
    /// In proportion to the pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All routes, in order.
pub type RoutesIter<'a> = std::iter::FlatMap<
    std::slice::Iter<'a, Arc<[Route]>>,
    std::slice::Iter<'a, Route>,
    fn(&'a Arc<[Route]>) -> std::slice::Iter<'a, Route>,
>;

impl<'a> IntoIterator for &'a Routes {
    type Item = &'a Route;
    type IntoIter = RoutesIter<'a>;

    fn into_iter(self) -> RoutesIter<'a> {
        self.iter()
    }
}

impl FromIterator<Route> for Routes {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        Self(vec![routes.into_iter().collect()])
    }
}

/// Where two lists differ, between what both begin and end with.
#[must_use]
pub fn changed<T>(older: &[T], newer: &[T], is_same: impl Fn(&T, &T) -> bool) -> (Range<usize>, Range<usize>) {
    let front = older.iter().zip(newer).take_while(|(old, new)| is_same(old, new)).count();
    let back = older[front..].iter().rev().zip(newer[front..].iter().rev());
    let back = back.take_while(|(old, new)| is_same(old, new)).count();
    (front..older.len() - back, front..newer.len() - back)
}

/// Conditions that must all hold.
///
/// # Rule
/// R73.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Matcher {
    /// The path without the query.
    pub path: PathMatch,
    /// For exact and prefix paths only.
    pub ignore_case: bool,
    /// Request method, upper case.
    pub method: Option<Name>,
    /// All must hold.
    pub headers: Vec<HeaderMatch>,
    /// All must hold.
    pub query_parameters: Vec<QueryMatch>,
    /// The port of the gateway Service that the client dialled; it decides at compile time on which listener the route exists.
    pub port: Option<u16>,
}

impl Matcher {
    /// Takes every request.
    #[must_use]
    pub fn any() -> Self {
        Self {
            path: PathMatch::Any,
            ignore_case: false,
            method: None,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            port: None,
        }
    }

    /// Whether every request of the listener matches.
    ///
    /// # Rule
    /// R69.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        self.path.takes_everything()
            && self.method.is_none()
            && self.headers.is_empty()
            && self.query_parameters.is_empty()
    }
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ValueMatch {
    /// The header or parameter is there.
    Present,
    /// The whole value equals the text.
    Exact(Name),
    /// The whole value matches the RE2 expression.
    Regex(Name),
    /// The value begins with the text.
    Prefix(Name),
}

/// A condition on a request header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: Name,
    /// The condition.
    pub value: ValueMatch,
    /// Negated; an absent header satisfies a negated value condition.
    pub invert: bool,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Case counts.
    pub name: Name,
    /// The condition.
    pub value: ValueMatch,
}

/// What a final route does and where it comes from; the same for all its matchers.
///
/// There is one per final route, a hundred thousand in a large mesh, so what routes have in common is shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteBody {
    /// What the gateway does with a matching request.
    pub action: Action,
    /// What attached policies do to the route, merged and in the order of [`Policy`]'s variants, at most one of each.
    pub policies: Arc<[Policy]>,
    /// From the root table to the table that ends the route; for a refused delegation, down to the delegating route.
    pub chain: Arc<[Hop]>,
    /// Effective labels with where each comes from (R103).
    pub labels: EffectiveLabels,
    /// Every policy that is attached, in age order within its kind (R109).
    pub attached: Arc<[Attachment]>,
    /// Why the route answers with an error in place of what its author wrote.
    pub fault: Option<Box<RouteFault>>,
}

impl RouteBody {
    /// What gateways ask for a policy that is on the route or on one of its destinations.
    #[must_use]
    pub fn servers_of(&self, policy: &ObjectRef) -> BTreeSet<&Server> {
        let destinations = match &self.action {
            Action::Forward(forward) => &forward.destinations[..],
            Action::Redirect(_) | Action::Direct(_) => &[],
        };
        let on_destinations = destinations.iter().flat_map(|destination| &destination.policies);
        let mut servers = BTreeSet::new();
        for effect in self.policies.iter().chain(on_destinations) {
            match effect {
                Policy::ExtAuth(authorization) if authorization.policy == *policy => {
                    servers.extend(authorization.servers());
                }
                Policy::Jwt(verification) if verification.policy == *policy => servers.extend(verification.servers()),
                _ => {}
            }
        }
        servers
    }

    /// Who wrote the route: the owner of the table that ends it.
    #[must_use]
    pub fn owner(&self) -> Option<&WorkspaceId> {
        self.chain.last().map(|hop| &hop.owner)
    }

    /// Whether a gateway counts requests on it by itself, and each value of some entry apart.
    #[must_use]
    pub fn counts_values(&self) -> bool {
        let counts = |policy: &Policy| match policy {
            Policy::RateLimit(limits) => limits.iter().any(|limits| limits.counter.open() > 0),
            _ => false,
        };
        let destinations = match &self.action {
            Action::Forward(forward) => &forward.destinations[..],
            Action::Redirect(_) | Action::Direct(_) => &[],
        };
        self.policies.iter().chain(destinations.iter().flat_map(|to| &to.policies)).any(counts)
    }

    /// The owners of the chain's tables, in order, each once.
    #[must_use]
    pub fn owners(&self) -> Vec<WorkspaceId> {
        let mut owners: Vec<WorkspaceId> = Vec::new();
        for hop in self.chain.iter() {
            if !owners.contains(&hop.owner) {
                owners.push(hop.owner.clone());
            }
        }
        owners
    }
}

/// One table and route on the way from the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hop {
    /// The table.
    pub table: ObjectRef,
    /// The workspace that owns it.
    pub owner: WorkspaceId,
    /// Name of the route in the table (R80), made up as `route-<index>` where it has none.
    pub route: Name,
    /// Position in the table's `spec.http`, counted from 0.
    pub index: usize,
}

impl Hop {
    /// Where in its object the route stands. What has no table of its own has a route for each of its ports.
    #[must_use]
    pub fn field(&self) -> FieldPath {
        let list = if self.table.kind == Kind::RouteTable { "spec.http" } else { "spec.ports" };
        FieldPath::new(list).index(self.index)
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.table.namespace, self.table.name, self.route)
    }
}

/// The effective labels of a route (R103), in the order of their keys.
///
/// # Cost
/// One block of memory, shared by clones; a map of its own would take four times as much for every route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EffectiveLabels(Arc<[(Name, Label)]>);

impl EffectiveLabels {
    /// These labels, and over them those of a table or route.
    ///
    /// # Rule
    /// R103 to R106.
    #[must_use]
    pub fn with<'l>(
        &self,
        own: impl IntoIterator<Item = (&'l Name, &'l Name)>,
        hop: usize,
        origin: LabelOrigin,
    ) -> Self {
        let mut own = own.into_iter().peekable();
        if own.peek().is_none() {
            return self.clone();
        }
        let mut labels = Vec::with_capacity(self.0.len() + own.size_hint().0);
        labels.extend_from_slice(&self.0);
        for (key, value) in own {
            let label = Label { value: value.clone(), hop, origin };
            match labels.binary_search_by(|(known, _)| known.cmp(key)) {
                Ok(position) => labels[position].1 = label,
                Err(position) => labels.insert(position, (key.clone(), label)),
            }
        }
        Self(labels.into())
    }

    /// The label of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Label> {
        let position = self.0.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(&self.0[position].1)
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Label)> {
        self.0.iter().map(|(key, label)| (key, label))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An effective label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// Its value.
    pub value: Name,
    /// Position in the chain of the table or route that set it.
    pub hop: usize,
    /// Whether the table or the route set it.
    pub origin: LabelOrigin,
}

/// Which part of a hop set a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LabelOrigin {
    /// `metadata.labels` of the table.
    Table,
    /// `labels` of the route.
    Route,
}

/// A policy on a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The policy.
    pub policy: ObjectRef,
    /// The workspace that owns it, and so must own a table of the chain.
    pub owner: WorkspaceId,
    /// How it selected the route, in words: `labels val=foo`, `all routes`, ….
    pub selected_by: Name,
    /// The destination of the route that it is limited to, if it is.
    pub destination: Option<UpstreamId>,
}

/// Why a final route is invalid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteFault {
    /// The first reason in the order of R144.
    pub code: Code,
    /// For the author: what is wrong and what to do.
    pub message: String,
    /// Whether it holds on this gateway only (R146).
    pub gateway_specific: bool,
}

/// What the gateway does with a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Forward to one destination of several.
    Forward(Arc<Forward>),
    /// Answer with a redirect.
    Redirect(Arc<Redirect>),
    /// Answer from the gateway.
    Direct(DirectResponse),
}

/// Forwarding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// At least one; weights add up to 100 where there are several. Neighbours share it where they have the same.
    pub destinations: Arc<[WeightedDestination]>,
    /// How the path changes.
    pub path_rewrite: Option<PathRewrite>,
    /// How the host changes.
    pub host_rewrite: Option<HostRewrite>,
}

/// One destination of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightedDestination {
    /// Where to.
    pub upstream: UpstreamId,
    /// Share in percent, 1 to 100.
    pub weight: u32,
    /// What policies that are limited to this destination do.
    pub policies: Vec<Policy>,
}

/// A change of the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathRewrite {
    /// Replaces the matched prefix, or the whole path of an exact match (R78).
    Prefix(Name),
    /// Replaces what matches.
    Regex {
        /// RE2.
        pattern: Name,
        /// With `\1` and so on for groups.
        substitution: Name,
    },
}

/// A change of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostRewrite {
    /// This host.
    Literal(Name),
    /// The host name of the endpoint that is chosen.
    Auto,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// New host; absent keeps the request's.
    pub host: Option<Name>,
    /// New path; absent keeps the request's.
    pub path: Option<Name>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// An answer from the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// At most 1 MiB.
    pub body: Name,
}

impl DirectResponse {
    /// What a route answers that must not be served, and why.
    #[must_use]
    pub fn misconfigured(code: Code) -> Self {
        Self { status: 500, body: format!("chancery: route misconfigured ({code})").into() }
    }
}
