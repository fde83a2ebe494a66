//! For one request: which listener, host, route, policies and destinations, and why. For one object: what became of it.
//!
//! Reads the same plan that is emitted, and matches as Envoy does (`wire`). Nothing here decides anything.

mod access;
mod client;
mod limits;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::emit::route_entries;
use crate::ir::client::{Client, is_of};
use crate::ir::extension::Level;
use crate::ir::frozen::AcceptedRoute;
use crate::ir::listener::{HttpHosts, Purpose};
use crate::ir::policy::csrf::Csrf;
use crate::ir::policy::{Cors, OriginMatch, OriginPattern, Policy};
use crate::ir::route::{Action, DirectResponse, LabelOrigin, Matcher, Route, RouteBody, ValueMatch};
use crate::ir::upstream::{Upstream, UpstreamId};
use crate::ir::{Chain, GatewayPlan, Guard, Listener, Serves, VirtualHost};
use crate::model::{Code, Finding, GatewayId, Host, Kind, Name, ObjectRef};
use crate::resolve::attachment::{
    Attached, NotAttached, explain_frozen_off, explain_off, explain_one_frozen_off, explain_one_off,
};
use crate::resolve::delegation::FinalRoute;

use super::full::Compiled;
use super::report::Verdict;
pub use access::describe_guard;
pub use limits::describe_limits;
use wire::{Wire, host_of, whole};

/// Parts per million that are all.
const ALWAYS: u32 = 1_000_000;

/// A request as a client sends it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Port of the gateway Service that the client dials; absent takes the gateway's only listener, or its lowest port.
    pub port: Option<u16>,
    /// Host header, with or without a port.
    pub host: String,
    /// The name that the client states as it opens a TLS connection; absent takes the host's, an empty one is none.
    pub server_name: Option<String>,
    /// Path with query.
    pub path: String,
    /// Method, upper case.
    pub method: String,
    /// Other headers, in order.
    pub headers: Vec<(String, String)>,
    /// Who sends it, where the listener is for clients inside the cluster: an address, a Pod as `namespace/name`, or a
    /// workspace. Absent is somebody whom nobody knows.
    pub client: Option<String>,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub struct Explanation<'c> {
    /// The gateway.
    pub gateway: GatewayId,
    /// The port that Envoy binds; `None` where the gateway has no such listener.
    pub listener: Option<u16>,
    /// The chain of a listener that tells TLS connections apart.
    pub chain: Option<&'c Chain>,
    /// Who sends it, as far as the gateway knows: only where the listener is for clients inside the cluster.
    pub client: Option<Client>,
    /// The domain that took the request.
    pub virtual_host: Option<Name>,
    /// Who may call what on the gateway itself; for whole connections, who may open one.
    pub guards: Vec<&'c Guard>,
    /// The route that took it.
    pub route: Option<MatchedRoute<'c>>,
    /// What the client gets where the gateway itself answers.
    pub answer: Option<Answer>,
}

/// An answer that the gateway gives without asking an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Why, or the body.
    pub body: String,
    /// Where a redirect leads.
    pub location: Option<String>,
}

/// The route that takes a request, with everything that is known about it.
#[derive(Clone, Debug)]
pub struct MatchedRoute<'c> {
    /// As in Envoy.
    pub name: Name,
    /// What it matched.
    pub matcher: Matcher,
    /// What it does and who said so.
    pub body: &'c RouteBody,
    /// Whether it is as it was accepted last, whatever its tables say now (R140).
    pub is_frozen: bool,
    /// Policies that are not on it, each with the step that dropped it.
    pub off: Vec<NotAttached>,
    /// How many values of an entry without one the gateway counts apart on it, where it counts by itself.
    pub values: u32,
    /// Where requests may go, with weights.
    pub destinations: Vec<(&'c UpstreamId, u32, Option<&'c Arc<Upstream>>)>,
}

impl MatchedRoute<'_> {
    /// Where a label comes from, in words.
    #[must_use]
    pub fn label_origin(&self, key: &str) -> String {
        let Some(label) = self.body.labels.get(key) else { return String::new() };
        let Some(hop) = self.body.chain.get(label.hop) else { return String::new() };
        match label.origin {
            LabelOrigin::Table => format!("table {}", hop.table.short()),
            LabelOrigin::Route => format!("route {hop}"),
        }
    }
}

/// Says what a gateway does with a request.
///
/// # Errors
/// A sentence where no such gateway is known, naming those that are.
///
/// # Cost
/// In proportion to the routes of the host, and to all policies.
pub fn explain<'c>(compiled: &'c Compiled, gateway: &GatewayId, request: &Request) -> Result<Explanation<'c>, String> {
    let plan = compiled.plans.get(gateway).ok_or_else(|| {
        let known: Vec<String> = compiled.plans.keys().map(|id| format!("`{id}`")).collect();
        if known.is_empty() {
            format!("there is no gateway `{gateway}`, nor any other: no VirtualGateway selects a Service")
        } else {
            format!("there is no gateway `{gateway}`; there are {}", known.join(", "))
        }
    })?;
    let mut explanation = Explanation {
        gateway: gateway.clone(),
        listener: None,
        chain: None,
        client: None,
        virtual_host: None,
        guards: Vec::new(),
        route: None,
        answer: None,
    };
    let no_connection = |why: &str| Some(Answer { status: 0, body: why.to_owned(), location: None });
    let Some(listener) = pick_listener(plan, request.port) else {
        explanation.answer = no_connection("no listener on that port: the connection is refused");
        return Ok(explanation);
    };
    explanation.listener = Some(listener.bind_port);
    let server_name = match &request.server_name {
        Some(name) => Some(name.to_ascii_lowercase()).filter(|name| !name.is_empty()),
        None => Some(host_of(request)),
    };
    let is_for_clients = listener.purpose == Purpose::Mesh;
    if is_for_clients {
        let named = request.client.as_deref().map(|text| client::named(compiled, plan, text)).transpose()?;
        explanation.client = named.flatten();
    }
    let chain = match is_for_clients {
        true => listener.chain_of(explanation.client.as_ref().map(|client| &client.workspace)),
        false => listener.chain_for(server_name.as_deref()),
    };
    let Some(chain) = chain else {
        explanation.answer = no_connection("no listener of that port has this server name: the connection is closed");
        return Ok(explanation);
    };
    explanation.chain = listener.reads_tls().then_some(chain);
    explanation.guards = match chain.serves {
        Serves::Http(_) => plan.guard.iter().map(AsRef::as_ref).collect(),
        Serves::Tcp(_) | Serves::Relay { .. } => chain.guards.iter().collect(),
    };
    let scheme = if chain.tls.is_some() { "https" } else { "http" };
    let tagged = is_for_clients.then(|| client::tagged(request, explanation.client.as_ref()));
    let wire = Wire::new(tagged.as_ref().unwrap_or(request), scheme);
    let http = match &chain.serves {
        Serves::Http(http) => http,
        Serves::Relay { upstream } => {
            let why = format!(
                "gateways of other clusters connect here and nobody else: what they send goes to `{}`",
                upstream.object
            );
            explanation.answer = no_connection(&why);
            return Ok(explanation);
        }
        Serves::Tcp(Some(route)) => {
            explanation.route = Some(matched(compiled, plan, route));
            return Ok(explanation);
        }
        Serves::Tcp(None) => {
            explanation.answer = no_connection("no route takes connections here: they are closed");
            return Ok(explanation);
        }
    };
    if wire.has_escaped_slash {
        explanation.answer = Some(Answer {
            status: 307,
            body: "the path has escaped slashes: the gateway redirects to the same path with plain ones".to_owned(),
            location: Some(wire.path_and_query),
        });
        return Ok(explanation);
    }
    let not_found = |why: &str| Some(Answer { status: 404, body: why.to_owned(), location: None });
    let (host, other) = (pick_host(http, &wire.host), pick(&http.misdirected, &wire.host, |host| host));
    if other.is_some_and(|other| host.is_none_or(|host| host.domain.specificity() < other.specificity())) {
        explanation.answer = Some(Answer {
            status: 421,
            body: "another listener of that port serves this host: the client should open a connection for it"
                .to_owned(),
            location: None,
        });
        return Ok(explanation);
    }
    let Some(host) = host else {
        explanation.answer = not_found("no route table serves this host here");
        return Ok(explanation);
    };
    explanation.virtual_host = Some(host.domain.name().clone());
    if host.redirects_to_https {
        let location = Some(format!("https://{}{}", wire.authority, wire.path_and_query));
        let body = "the listener redirects every request to https".to_owned();
        explanation.answer = Some(Answer { status: 301, body, location });
        return Ok(explanation);
    }
    let first = host.routes.iter().find_map(|route| {
        let entry = route_entries(route).into_iter().find(|(_, matcher)| wire.matches(matcher))?;
        Some((route, entry))
    });
    let Some((route, (name, matcher))) = first else {
        explanation.answer = match &explanation.client {
            None if is_for_clients => not_found("nobody knows who sends it: the address is of no Pod of a workspace"),
            Some(client)
                if !host.routes.iter().any(|route| route.matcher.headers.contains(&is_of(&client.workspace))) =>
            {
                not_found(&format!("clients of workspace `{}` find nothing under this host", client.workspace))
            }
            _ => not_found("no route of this host matches"),
        };
        return Ok(explanation);
    };
    explanation.answer = closed(plan, route).or_else(|| answer(route, &wire, scheme));
    explanation.route = Some(MatchedRoute { name, matcher, ..matched(compiled, plan, route) });
    Ok(explanation)
}

fn pick_listener(plan: &GatewayPlan, port: Option<u16>) -> Option<&Listener> {
    let mut all = plan.listeners.values();
    let found = match port {
        None => all.min_by_key(|listener| listener.service_ports.first().copied()),
        Some(port) => all.find(|listener| listener.service_ports.contains(&port)).or_else(|| plan.listeners.get(&port)),
    };
    found.map(AsRef::as_ref)
}

/// R68.
fn pick_host<'p>(http: &'p HttpHosts, host: &str) -> Option<&'p VirtualHost> {
    pick(http.virtual_hosts.iter().map(AsRef::as_ref), host, |candidate| &candidate.domain)
}

fn pick<'p, T>(candidates: impl IntoIterator<Item = &'p T>, host: &str, domain: impl Fn(&T) -> &Host) -> Option<&'p T> {
    let fitting = candidates.into_iter().filter(|candidate| domain(candidate).matches(host));
    fitting.max_by_key(|candidate| domain(candidate).specificity())
}

/// What a route answers whose gateway has no filter for what one of its policies asks.
///
/// # Rule
/// R130.
fn closed(plan: &GatewayPlan, route: &Route) -> Option<Answer> {
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Direct(_) | Action::Redirect(_) => &[],
    };
    let of_destinations = destinations.iter().flat_map(|destination| &destination.policies);
    let of_route = route.body.policies.iter().map(|policy| (Level::Route, policy));
    let mut all = of_route.chain(of_destinations.map(|policy| (Level::Destination, policy)));
    let is_closed =
        all.any(|(level, policy)| matches!(policy, Policy::ExtAuth(own) if !plan.extensions.have_room_for(level, own)));
    is_closed.then(|| {
        let DirectResponse { status, body } = DirectResponse::misconfigured(Code::Unsupported);
        Answer { status, body: body.to_string(), location: None }
    })
}

/// Filters answer before the route's action does, in the order of the kinds; the CORS filter only on routes that
/// forward.
fn answer(route: &Route, wire: &Wire, scheme: &str) -> Option<Answer> {
    let mut policies: Vec<&Policy> = route.body.policies.iter().collect();
    if let Action::Forward(forward) = &route.body.action
        && let [destination] = &forward.destinations[..]
    {
        policies.extend(&destination.policies);
    }
    let of_filter = policies.into_iter().find_map(|policy| match policy {
        Policy::FaultInjection(fault) => {
            let abort = fault.abort.as_ref().filter(|abort| abort.per_million >= ALWAYS)?;
            Some(Answer { status: abort.http_status, body: "fault filter abort".to_owned(), location: None })
        }
        Policy::Cors(cors) => {
            let forwards = matches!(route.body.action, Action::Forward(_));
            (forwards && is_preflight(cors, wire)).then(|| Answer { status: 200, body: String::new(), location: None })
        }
        Policy::Csrf(csrf) => {
            is_forged(csrf, wire).then(|| Answer { status: 403, body: "Invalid origin".to_owned(), location: None })
        }
        _ => None,
    });
    of_filter.or_else(|| match &route.body.action {
        Action::Forward(_) => None,
        Action::Direct(direct) => Some(Answer { status: direct.status, body: direct.body.to_string(), location: None }),
        Action::Redirect(redirect) => {
            let host = redirect.host.as_deref().unwrap_or(&wire.authority);
            let path = match redirect.path.as_deref() {
                Some(path) if path.contains('?') => path.to_owned(),
                // The query stays.
                Some(path) => format!("{path}{}", &wire.path_and_query[wire.path.len()..]),
                None => wire.path_and_query.clone(),
            };
            Some(Answer {
                status: redirect.status,
                body: String::new(),
                location: Some(format!("{scheme}://{host}{path}")),
            })
        }
    })
}

/// Whether the gateway answers a preflight itself; one from a foreign origin goes on.
fn is_preflight(cors: &Cors, wire: &Wire) -> bool {
    let Some(origin) = wire.filled("origin") else { return false };
    is_one_of(&cors.allow_origins, origin)
        && wire.has_method("OPTIONS")
        && wire.filled("access-control-request-method").is_some()
}

/// Whether the gateway refuses a request that changes state, because it comes from another origin or from nowhere. A share
/// of requests is not told.
fn is_forged(csrf: &Csrf, wire: &Wire) -> bool {
    let changes = ["POST", "PUT", "DELETE", "PATCH"].iter().any(|method| wire.has_method(method));
    if csrf.enforced_per_million < ALWAYS || !changes {
        return false;
    }
    let source = wire.filled("origin").or_else(|| wire.filled("referer")).map(host_and_port);
    source.is_none_or(|source| source != wire.authority && !is_one_of(&csrf.additional_origins, source))
}

/// Host and port of a URL; what is none, as it is.
fn host_and_port(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else { return url };
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_one_of(origins: &[OriginMatch], origin: &str) -> bool {
    origins.iter().any(|allowed| {
        let fold = |text: &str| if allowed.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        match &allowed.pattern {
            OriginPattern::Exact(text) => fold(origin) == fold(text),
            OriginPattern::Prefix(text) => fold(origin).starts_with(&fold(text)),
            OriginPattern::Suffix(text) => fold(origin).ends_with(&fold(text)),
            OriginPattern::Regex(expression) => {
                whole(expression).is_some_and(|regex| regex.is_match(origin.as_bytes()))
            }
        }
    })
}

fn matched<'c>(compiled: &'c Compiled, plan: &'c GatewayPlan, route: &'c Route) -> MatchedRoute<'c> {
    let body = &*route.body;
    let is_frozen = is_frozen(compiled, body);
    let off = match find_final(compiled, body) {
        _ if is_frozen => explain_frozen_off(&compiled.inputs, body),
        // A fault that holds on this gateway only is not in the tree.
        Some((final_route, _)) if body.fault.as_ref().is_some_and(|fault| fault.gateway_specific) => {
            let mut invalid = final_route.clone();
            invalid.fault.clone_from(&body.fault);
            explain_off(&compiled.inputs, &invalid, &Attached::default())
        }
        Some((final_route, attached)) => explain_off(&compiled.inputs, final_route, attached),
        None => Vec::new(),
    };
    let destinations = match &body.action {
        Action::Forward(forward) => forward
            .destinations
            .iter()
            .map(|destination| (&destination.upstream, destination.weight, plan.upstreams.get(&destination.upstream)))
            .collect(),
        Action::Redirect(_) | Action::Direct(_) => Vec::new(),
    };
    let values = plan.extensions.values_on(body);
    MatchedRoute {
        name: route.name.clone(),
        matcher: route.matcher.clone(),
        body,
        is_frozen,
        off,
        values,
        destinations,
    }
}

/// Whether the tree of a plan's route keeps what was accepted last.
fn is_frozen(compiled: &Compiled, body: &RouteBody) -> bool {
    let root = body.chain.first().and_then(|root| compiled.trees.get(&root.table));
    root.is_some_and(|grown| grown.frozen.is_some())
}

/// The final route that a plan's route came from.
fn find_final<'c>(compiled: &'c Compiled, body: &RouteBody) -> Option<(&'c FinalRoute, &'c Attached)> {
    let root = body.chain.first()?;
    let grown = compiled.trees.get(&root.table)?;
    grown.own().find(|(route, _)| route.chain == body.chain && (route.fault.is_none() || body.fault.is_some()))
}

/// What became of an object.
#[derive(Clone, Debug)]
pub struct ObjectExplanation<'c> {
    /// Its verdict; none for Kubernetes' own kinds.
    pub verdict: Option<&'c Verdict>,
    /// The workspace that owns it.
    pub owner: Option<Name>,
    /// What is wrong with it.
    pub findings: Vec<&'c Finding>,
    /// Routes that it is on: of a table those whose chain it is part of, of a policy those that it is attached to, of a
    /// destination those that lead there.
    pub routes: Vec<RouteSummary>,
    /// Of a policy that selects routes: the routes that it is not on, each with the step that dropped it.
    pub not_on: Vec<(Vec<String>, NotAttached)>,
    /// What else it has to do with, as a heading and objects.
    pub related: Vec<(&'static str, Vec<String>)>,
}

/// One final route in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSummary {
    /// `namespace/table:route` from the root to the end.
    pub chain: Vec<String>,
    /// What it matches, in words.
    pub matches: Vec<String>,
    /// Effective labels.
    pub labels: BTreeMap<Name, Name>,
    /// Attached policies.
    pub policies: Vec<ObjectRef>,
    /// The code of its fault, if it has one.
    pub fault: Option<String>,
    /// Whether it is as it was accepted last, whatever its tables say now (R140).
    pub is_frozen: bool,
}

/// Says what became of an object.
///
/// # Errors
/// A sentence where no such object is known.
pub fn explain_object<'c>(
    compiled: &'c Compiled,
    known: bool,
    id: &ObjectRef,
) -> Result<ObjectExplanation<'c>, String> {
    use crate::resolve::world::World;
    if !known {
        return Err(format!("there is no object `{id}`"));
    }
    let mut routes = Vec::new();
    let mut not_on = Vec::new();
    for grown in compiled.trees.values() {
        let mut own = grown.own();
        for served in grown.served() {
            let (body, own) = (&served.body, own.next());
            let concerned = body.chain.iter().any(|hop| hop.table == *id)
                || body.attached.iter().any(|attachment| attachment.policy == *id)
                || matches!(&body.action, Action::Forward(forward)
                    if forward.destinations.iter().any(|destination| destination.upstream.object == *id));
            if concerned {
                routes.push(summary(served, grown.frozen.is_some()));
            } else if id.kind.is_policy() {
                let off = match (&grown.frozen, own) {
                    (None, Some((own, attached))) => explain_one_off(&compiled.inputs, own, attached, id),
                    _ => explain_one_frozen_off(&compiled.inputs, body, id),
                };
                not_on.extend(off.map(|off| (body.chain.iter().map(ToString::to_string).collect(), off)));
            }
        }
    }
    let mut related: Vec<(&'static str, Vec<String>)> = Vec::new();
    let mut relate = |heading, list: Vec<String>| {
        if !list.is_empty() {
            related.push((heading, list));
        }
    };
    match id.kind {
        Kind::RouteTable => {
            let parents: BTreeSet<&ObjectRef> =
                compiled.trees.values().filter_map(|grown| grown.tree.parents.get(id)).flatten().collect();
            relate("parents", parents.into_iter().map(ToString::to_string).collect());
            let gateways = compiled.bindings.gateways.get(id);
            relate(
                "gateways",
                gateways.into_iter().flat_map(|gateways| gateways.iter()).map(ToString::to_string).collect(),
            );
        }
        Kind::VirtualGateway => {
            let tables: BTreeSet<&ObjectRef> = compiled
                .bindings
                .tables
                .iter()
                .filter(|((gateway, _), _)| gateway == id)
                .flat_map(|(_, tables)| tables.values().map(|bound| &bound.0))
                .collect();
            relate("tables", tables.into_iter().map(ToString::to_string).collect());
            let plans = compiled.plans.values();
            let classes = plans.filter(|plan| plan.listeners.values().any(|listener| listener.gateways.contains(id)));
            relate("served by", classes.map(|plan| plan.gateway.to_string()).collect());
        }
        Kind::Workspace => {
            let workspace = crate::model::WorkspaceId(id.name.clone());
            let namespaces = compiled.inputs.roster().namespaces_of(&workspace);
            relate("namespaces", namespaces.map(|(cluster, namespace)| format!("{namespace}@{cluster}")).collect());
        }
        _ => {}
    }
    Ok(ObjectExplanation {
        verdict: compiled.verdicts.get(id).map(|verdict| &**verdict),
        owner: compiled.inputs.roster().owner_of(id).map(|owner| owner.0.clone()),
        findings: compiled.findings.about(id).iter().collect(),
        routes,
        not_on,
        related,
    })
}

fn summary(served: &AcceptedRoute, is_frozen: bool) -> RouteSummary {
    let body = &served.body;
    RouteSummary {
        chain: body.chain.iter().map(ToString::to_string).collect(),
        matches: served.matchers.iter().map(describe).collect(),
        labels: body.labels.iter().map(|(key, label)| (key.clone(), label.value.clone())).collect(),
        policies: body.attached.iter().map(|attachment| attachment.policy.clone()).collect(),
        fault: body.fault.as_ref().map(|fault| fault.code.to_string()),
        is_frozen,
    }
}

/// A matcher in words.
#[must_use]
pub fn describe(matcher: &Matcher) -> String {
    let value = |value: &ValueMatch| match value {
        ValueMatch::Present => " present".to_owned(),
        ValueMatch::Exact(text) => format!("={text}"),
        ValueMatch::Prefix(text) => format!("={text}..."),
        ValueMatch::Regex(text) => format!("~{text}"),
    };
    let mut parts = vec![matcher.path.to_string()];
    parts.extend(matcher.method.iter().map(|method| format!("method {method}")));
    for header in &matcher.headers {
        let not = if header.invert { "not " } else { "" };
        parts.push(format!("{not}header {}{}", header.name, value(&header.value)));
    }
    parts.extend(matcher.query_parameters.iter().map(|p| format!("query {}{}", p.name, value(&p.value))));
    parts.extend(matcher.port.iter().map(|port| format!("port {port}")));
    parts.join(", ")
}
