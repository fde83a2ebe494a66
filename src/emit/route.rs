//! Route configurations: hosts, and the routes of each in the order in which Envoy tries them.
//!
//! Order comes from the plan; nothing is sorted here. A route of the plan is one Envoy route, with two exceptions: a
//! negated header condition that needs two alternatives, and the twin that takes preflights for a matcher with a
//! method.
//!
//! # Rule
//! R67 to R69, R72 to R80, and the reference of the core API, "Assembly".

mod matcher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::entries::{alternatives, preflight};
use crate::ir::extension;
use crate::ir::policy::rate_limit::{OnTheWay, on_the_way};
use crate::ir::route::{DirectResponse, Forward, HostRewrite, PathRewrite, Redirect, changed};
use crate::ir::{Action, Extensions, Matcher, Policy, Route, RouteBody, VirtualHost};
use crate::model::{Code, EnvoyRelease, Host, Name, ObjectRef};
use crate::snapshot::Resource;

use super::filter::{Beyond, lanes};
use super::{filter, name, pb, wire};

/// The most that a direct response may answer with; Envoy's default is 4 KiB.
const LARGEST_DIRECT_RESPONSE: u32 = 1 << 20;

/// `Misdirected Request`: the client should use a connection of its own for the host.
const MISDIRECTED: u16 = 421;

/// Numbers of the fields `virtual_hosts` of a route configuration and `routes` of a virtual host.
const VIRTUAL_HOSTS: u32 = 2;
const ROUTES: u32 = 3;

/// What routes are emitted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// The release of the Envoys.
    pub(super) release: EnvoyRelease,
    /// What policies share there.
    pub(super) extensions: &'a Extensions,
}

/// A virtual host, encoded, and the objects that a refusal of it concerns.
#[derive(Clone, Debug)]
pub(super) struct HostPart {
    part: wire::Part,
    /// Of each piece of its routes, whether one of them forwards.
    forwards: Vec<bool>,
    pub(super) owners: Arc<[ObjectRef]>,
    /// The policies that the release cannot do, once for each route that is closed for it. Nearly always empty.
    pub(super) beyond: Vec<Beyond>,
}

/// Encodes one virtual host.
///
/// One at a time: as messages, the routes of a large mesh take twenty times the memory of their bytes.
pub(super) fn encode_host(host: &VirtualHost, target: Target<'_>) -> HostPart {
    let pieces = if host.redirects_to_https { &[] } else { host.routes.pieces() };
    let (entries, forwards): (Vec<_>, Vec<_>) = pieces.iter().map(|piece| encode_piece(piece, target)).unzip();
    HostPart {
        part: encode_around(host, entries, &forwards),
        forwards,
        owners: pb::owners(concerned(host)),
        beyond: beyond(host, target.release),
    }
}

/// Encodes a virtual host of which another value was encoded.
///
/// # Cost
/// That of encoding the routes that are others in the pieces that are, and a copy of the rest.
pub(super) fn encode_host_after(
    (before, encoded): (&VirtualHost, &mut HostPart),
    host: &VirtualHost,
    target: Target<'_>,
) -> HostPart {
    let is_alike = !before.redirects_to_https && !host.redirects_to_https && encoded.beyond.is_empty();
    if !is_alike {
        return encode_host(host, target);
    }
    let (older, newer) = (before.routes.pieces(), host.routes.pieces());
    let (gone, came) = changed(older, newer, Arc::ptr_eq);
    let mut forwards = std::mem::take(&mut encoded.forwards);
    let mut entries = encoded.part.take_entries();
    let (replaced, is_paired) = (gone.clone(), gone.len() == came.len());
    let known = |at: usize| is_paired.then(|| (&*older[replaced.start + at], &entries[replaced.start + at]));
    let (new, new_forwards): (Vec<_>, Vec<_>) = newer[came.clone()]
        .iter()
        .enumerate()
        .map(|(at, piece)| {
            known(at).map_or_else(|| encode_piece(piece, target), |known| encode_after(known, piece, target))
        })
        .unzip();
    entries.splice(gone.clone(), new);
    forwards.splice(gone.clone(), new_forwards);
    let (older, newer) = (&older[gone], &newer[came]);
    let is_owned_alike = before.tables == host.tables && concerned_by(older) == concerned_by(newer);
    let owners = if is_owned_alike { encoded.owners.clone() } else { pb::owners(concerned(host)) };
    let beyond =
        newer.iter().flat_map(|piece| piece.iter()).flat_map(|route| filter::beyond(route, target.release)).collect();
    HostPart { part: encode_around(host, entries, &forwards), forwards, owners, beyond }
}

fn encode_piece(piece: &[Route], target: Target<'_>) -> (wire::Entries, bool) {
    (wire::Entries::new(ROUTES, piece.iter().map(|route| emit_route(route, target))), forwards(piece))
}

/// A piece of which another one was encoded.
fn encode_after(
    (before, encoded): (&[Route], &wire::Entries),
    piece: &[Route],
    target: Target<'_>,
) -> (wire::Entries, bool) {
    let (gone, came) = changed(before, piece, |old, new| old == new);
    let new = wire::Entries::new(ROUTES, piece[came].iter().map(|route| emit_route(route, target)));
    (encoded.with(gone, &new), forwards(piece))
}

/// Whether a route of a piece forwards.
fn forwards(piece: &[Route]) -> bool {
    piece.iter().any(|route| matches!(route.body.action, Action::Forward(_)))
}

fn encode_around(host: &VirtualHost, entries: Vec<wire::Entries>, forwards: &[bool]) -> wire::Part {
    let shell = emit_virtual_host(host, forwards.contains(&true));
    wire::Part::around(VIRTUAL_HOSTS, &shell, ROUTES, entries)
}

/// The policies of a virtual host that a release cannot do, once for each route that is closed for it.
pub(super) fn beyond(host: &VirtualHost, release: EnvoyRelease) -> Vec<Beyond> {
    match host.redirects_to_https {
        true => Vec::new(),
        false => host.routes.iter().flat_map(|route| filter::beyond(route, release)).collect(),
    }
}

/// Encodes the virtual host that answers 421 for hosts of other chains.
pub(super) fn encode_misdirected<'a>(hosts: impl Iterator<Item = &'a Host>) -> HostPart {
    let part = wire::Part::new(VIRTUAL_HOSTS, &emit_misdirected(hosts));
    HostPart { part, forwards: Vec::new(), owners: [].into(), beyond: Vec::new() }
}

/// The owners of a route configuration: the gateways of its chain, and everything behind its hosts.
pub(super) fn owners<'a>(gateways: &[ObjectRef], hosts: impl Iterator<Item = &'a HostPart>) -> Arc<[ObjectRef]> {
    pb::owners(gateways.iter().chain(hosts.flat_map(|host| host.owners.iter())))
}

/// The routes of one HTTP chain, or of a part of it. Without virtual hosts every request gets 404 (R67).
pub(super) fn emit_route_configuration<'a>(
    name: Name,
    headers_to_remove: impl Iterator<Item = &'static str>,
    hosts: impl Iterator<Item = &'a HostPart> + Clone,
    owners: Arc<[ObjectRef]>,
) -> Resource {
    let message = route_pb::RouteConfiguration {
        name: name.to_string(),
        request_headers_to_remove: headers_to_remove.map(str::to_owned).collect(),
        // The port in a Host header says nothing about the host (R68).
        ignore_port_in_host_matching: true,
        // Routes may arrive before their clusters; one missing cluster must not cost all routes.
        validate_clusters: pb::boolean(false),
        max_direct_response_body_size_bytes: pb::uint32(LARGEST_DIRECT_RESPONSE),
        typed_per_filter_config: filter::by_default(),
        ..Default::default()
    };
    let (body, version) = wire::splice(&message, VIRTUAL_HOSTS, hosts.map(|host| &host.part));
    Resource { name, version, body, owners }
}

/// Sends everything to one cluster, for as long as the sender waits. It retries nothing but what reached nobody: the rest is
/// the sender's to retry, who knows how often.
pub(super) fn emit_relay(cluster: &str) -> route_pb::RouteConfiguration {
    let action = route_pb::RouteAction {
        cluster_specifier: Some(route_pb::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(pb::duration(Duration::ZERO)),
        ..Default::default()
    };
    let route = route_pb::Route {
        name: "relay".to_owned(),
        r#match: Some(any_request()),
        action: Some(route_pb::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route_pb::VirtualHost {
        name: "relay".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        retry_policy: Some(filter::relay_retries()),
        ..Default::default()
    };
    route_pb::RouteConfiguration {
        name: "relay".to_owned(),
        virtual_hosts: vec![host],
        validate_clusters: pb::boolean(false),
        ..Default::default()
    }
}

/// Sends clients that reuse a connection for another chain's hosts to a connection of their own (R204).
fn emit_misdirected<'a>(hosts: impl Iterator<Item = &'a Host>) -> route_pb::VirtualHost {
    let answer = emit_direct_response(&DirectResponse {
        status: MISDIRECTED,
        body: "chancery: another connection serves this host".into(),
    });
    let route = route_pb::Route {
        name: "misdirected".to_owned(),
        r#match: Some(any_request()),
        action: Some(route_pb::route::Action::DirectResponse(answer)),
        ..Default::default()
    };
    route_pb::VirtualHost {
        name: "misdirected".to_owned(),
        domains: hosts.map(Host::to_string).collect(),
        routes: vec![route],
        ..Default::default()
    }
}

/// The objects that a refusal of a virtual host concerns: all tables on the way, all attached policies.
fn concerned(host: &VirtualHost) -> BTreeSet<&ObjectRef> {
    let mut objects = concerned_by(host.routes.pieces());
    objects.extend(host.tables.iter());
    objects
}

fn concerned_by(pieces: &[Arc<[Route]>]) -> BTreeSet<&ObjectRef> {
    let mut objects: BTreeSet<&ObjectRef> = BTreeSet::new();
    let mut before: Option<&RouteBody> = None;
    for route in pieces.iter().flat_map(|piece| piece.iter()) {
        let body = &*route.body;
        // Neighbours come from one table nearly always, and have the same policies.
        let same =
            |before: &RouteBody| before.chain.iter().map(|hop| &hop.table).eq(body.chain.iter().map(|hop| &hop.table));
        if !before.is_some_and(same) {
            objects.extend(body.chain.iter().map(|hop| &hop.table));
        }
        if before.is_none_or(|before| !Arc::ptr_eq(&before.attached, &body.attached)) {
            objects.extend(body.attached.iter().map(|attachment| &attachment.policy));
        }
        before = Some(body);
    }
    objects
}

/// A virtual host without the routes that the plan has for it.
fn emit_virtual_host(host: &VirtualHost, forwards: bool) -> route_pb::VirtualHost {
    route_pb::VirtualHost {
        name: host.domain.to_string(),
        domains: vec![host.domain.to_string()],
        routes: host.redirects_to_https.then(emit_https_redirect).into_iter().collect(),
        metadata: pb::provenance("tables", &host.tables),
        // Here and not on each route: it is five times as large as a lean route.
        retry_policy: forwards.then(filter::baseline_retries),
        ..Default::default()
    }
}

/// Sends every request to HTTPS (R61).
///
/// Not by `require_tls`: the route that Envoy makes up for it lacks what routes have [by default](filter::by_default), and
/// gets 403 (seen on 1.40).
fn emit_https_redirect() -> route_pb::Route {
    use route_pb::redirect_action::SchemeRewriteSpecifier;
    let redirect = route_pb::RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        ..Default::default()
    };
    route_pb::Route {
        name: "https".to_owned(),
        r#match: Some(any_request()),
        action: Some(route_pb::route::Action::Redirect(redirect)),
        ..Default::default()
    }
}

fn any_request() -> route_pb::RouteMatch {
    route_pb::RouteMatch {
        path_specifier: Some(route_pb::route_match::PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// A route; closed where the release cannot do one of its policies, or the gateway has no room for it.
fn emit_route(route: &Route, target: Target<'_>) -> Vec<route_pb::Route> {
    let builder = build(route, target.extensions);
    let is_closed = builder.is_closed || filter::is_beyond(route, target.release);
    if is_closed { builder.close() } else { builder.finish() }
}

/// The names and matchers that a route of the plan has in Envoy's list, in order. Nearly always its own.
#[must_use]
pub fn route_entries(route: &Route) -> Vec<(Name, Matcher)> {
    build(route, &Extensions::default()).entries()
}

/// A route with its policies on it.
fn build<'a>(route: &'a Route, extensions: &'a Extensions) -> RouteBuilder<'a> {
    let mut builder = RouteBuilder::new(route, extensions);
    for policy in route.body.policies.iter() {
        filter::apply(policy, &mut builder);
    }
    let own = &route.body.policies;
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let limits = on_the_way(own, destinations.iter().map(|destination| &destination.policies[..]));
    if let OnTheWay::Route(limits) = limits {
        lanes::fill(limits, &own.iter(), &mut builder);
    }
    for (index, destination) in destinations.iter().enumerate() {
        builder.level = Level::Destination(index);
        for policy in &destination.policies {
            filter::apply(policy, &mut builder);
        }
        if let OnTheWay::Destinations(limits) = &limits {
            lanes::fill(limits[index], &own.iter().chain(&destination.policies), &mut builder);
        }
    }
    builder
}

/// A route while policies are being put on it.
#[derive(Debug)]
pub(super) struct RouteBuilder<'a> {
    route: &'a Route,
    /// What policies share on the gateway.
    pub(super) extensions: &'a Extensions,
    level: Level,
    own: Scope,
    destinations: Vec<Scope>,
    takes_preflights: bool,
    /// Whether nothing may pass, because a policy cannot be put on the route.
    pub(super) is_closed: bool,
    /// Of the whole request, retries included; zero is none.
    pub(super) timeout: Duration,
    /// Retries in place of the virtual host's.
    pub(super) retry: Option<route_pb::RetryPolicy>,
}

/// What the policy at hand is put on.
#[derive(Clone, Copy, Debug)]
enum Level {
    Route,
    Destination(usize),
}

/// What Envoy lets a route and each of its destinations have of their own.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope {
    /// Headers towards the upstream.
    pub(super) request: HeaderChanges,
    /// Headers towards the client.
    pub(super) response: HeaderChanges,
    /// The Host header towards the upstream.
    pub(super) host: Option<Name>,
    /// Configuration of filters, by the names of their slots.
    pub(super) slots: BTreeMap<&'static str, Any>,
}

/// Headers that are removed, then added.
#[derive(Debug, Default, PartialEq)]
pub(super) struct HeaderChanges {
    pub(super) remove: BTreeSet<Name>,
    pub(super) add: BTreeMap<Name, Name>,
}

impl<'a> RouteBuilder<'a> {
    fn new(route: &'a Route, extensions: &'a Extensions) -> Self {
        let destinations = match &route.body.action {
            Action::Forward(forward) => forward.destinations.iter().map(|_| Scope::default()).collect(),
            Action::Redirect(_) | Action::Direct(_) => Vec::new(),
        };
        Self {
            route,
            extensions,
            level: Level::Route,
            own: Scope::default(),
            destinations,
            takes_preflights: false,
            is_closed: false,
            timeout: Duration::ZERO,
            retry: None,
        }
    }

    /// Where the policy at hand goes: the route, or one of its destinations.
    pub(super) fn scope(&mut self) -> &mut Scope {
        match self.level {
            Level::Route => &mut self.own,
            Level::Destination(index) => &mut self.destinations[index],
        }
    }

    /// What the policy at hand is for.
    pub(super) fn level(&self) -> extension::Level {
        match self.level {
            Level::Route => extension::Level::Route,
            Level::Destination(_) => extension::Level::Destination,
        }
    }

    /// The policies on what the policy at hand is for.
    pub(super) fn policies(&self) -> &'a [Policy] {
        match (self.level, &self.route.body.action) {
            (Level::Route, _) => &self.route.body.policies,
            (Level::Destination(index), Action::Forward(forward)) => &forward.destinations[index].policies,
            (Level::Destination(_), Action::Redirect(_) | Action::Direct(_)) => &[],
        }
    }

    /// How many values of an entry the gateway counts apart on the route.
    pub(super) fn values(&self) -> u32 {
        self.extensions.values_on(&self.route.body)
    }

    /// Lets OPTIONS requests that announce the matcher's method take the route as well.
    pub(super) fn answer_preflights(&mut self) {
        self.takes_preflights = true;
    }

    /// One entry for each alternative of the matcher, and then its twin's.
    fn entries(&self) -> Vec<(Name, Matcher)> {
        let own = alternatives(&self.route.matcher);
        let twin = if self.takes_preflights { preflight(&self.route.matcher) } else { None };
        let twins = twin.iter().flat_map(alternatives).map(|matcher| ("#preflight", matcher));
        let mut entries: Vec<(Name, Matcher)> = Vec::with_capacity(own.len());
        for (suffix, matcher) in own.into_iter().map(|matcher| ("", matcher)).chain(twins) {
            let mut name = format!("{}{suffix}", self.route.name);
            if entries.last().is_some_and(|(before, _)| before.starts_with(&name)) {
                name = format!("{name}#{}", entries.len() + 1);
            }
            entries.push((name.into(), matcher));
        }
        entries
    }

    fn finish(self) -> Vec<route_pb::Route> {
        let entries = self.entries();
        let mut route = route_pb::Route {
            request_headers_to_add: emit_added(&self.own.request),
            request_headers_to_remove: emit_removed(&self.own.request),
            response_headers_to_add: emit_added(&self.own.response),
            response_headers_to_remove: emit_removed(&self.own.response),
            typed_per_filter_config: emit_slots(&self.own),
            ..Default::default()
        };
        route.action = Some(match &self.route.body.action {
            Action::Forward(forward) => route_pb::route::Action::Route(self.emit_forward(forward)),
            Action::Redirect(redirect) => route_pb::route::Action::Redirect(emit_redirect(redirect)),
            Action::Direct(direct) => route_pb::route::Action::DirectResponse(emit_direct_response(direct)),
        });
        let with = |(name, matcher): (Name, Matcher)| route_pb::Route {
            name: name.to_string(),
            r#match: Some(matcher::emit_matcher(&matcher)),
            ..route.clone()
        };
        entries.into_iter().map(with).collect()
    }

    /// In place of everything an answer that says nothing of the policy; what it matches stays.
    ///
    /// # Rule
    /// R130, shape poison.
    fn close(self) -> Vec<route_pb::Route> {
        let answer = DirectResponse::misconfigured(Code::Unsupported);
        let with = |(name, matcher): (Name, Matcher)| route_pb::Route {
            name: name.to_string(),
            r#match: Some(matcher::emit_matcher(&matcher)),
            action: Some(route_pb::route::Action::DirectResponse(emit_direct_response(&answer))),
            ..Default::default()
        };
        self.entries().into_iter().map(with).collect()
    }

    fn emit_forward(&self, forward: &Forward) -> route_pb::RouteAction {
        use route_pb::route_action::{HostRewriteSpecifier, MaxStreamDuration};
        let (prefix_rewrite, regex_rewrite) = match &forward.path_rewrite {
            // Of an exact match Envoy replaces the whole path, as R78 wants.
            Some(PathRewrite::Prefix(path)) => (path.to_string(), None),
            Some(PathRewrite::Regex { pattern, substitution }) => {
                let substitution = substitution.to_string();
                let rewrite = matcher_pb::RegexMatchAndSubstitute { pattern: Some(pb::regex(pattern)), substitution };
                (String::new(), Some(rewrite))
            }
            None => (String::new(), None),
        };
        let host_rewrite_specifier = match (&self.own.host, &forward.host_rewrite) {
            (Some(host), _) | (None, Some(HostRewrite::Literal(host))) => {
                Some(HostRewriteSpecifier::HostRewriteLiteral(host.to_string()))
            }
            (None, Some(HostRewrite::Auto)) => pb::boolean(true).map(HostRewriteSpecifier::AutoHostRewrite),
            (None, None) => None,
        };
        route_pb::RouteAction {
            cluster_specifier: Some(self.emit_destinations(forward)),
            prefix_rewrite,
            regex_rewrite,
            host_rewrite_specifier,
            // Absent, it would be a limit that nobody asked for: 15 s.
            timeout: Some(pb::duration(self.timeout)),
            // Its presence alone makes Envoy ignore `timeout` (seen on 1.40), so it stands only where there is none.
            max_stream_duration: self.timeout.is_zero().then(|| MaxStreamDuration {
                grpc_timeout_header_max: Some(pb::duration(self.timeout)),
                ..Default::default()
            }),
            retry_policy: self.retry.clone(),
            ..Default::default()
        }
    }

    fn emit_destinations(&self, forward: &Forward) -> route_pb::route_action::ClusterSpecifier {
        use route_pb::route_action::ClusterSpecifier;
        if let ([destination], [scope]) = (&forward.destinations[..], self.destinations.as_slice())
            && *scope == Scope::default()
        {
            return ClusterSpecifier::Cluster(name::cluster(&destination.upstream).to_string());
        }
        // A lone destination has all the weight, whatever it says.
        let lone = forward.destinations.len() == 1;
        let clusters = forward.destinations.iter().zip(&self.destinations).map(|(destination, scope)| {
            let name = name::cluster(&destination.upstream).to_string();
            emit_cluster_weight(name, if lone { 100 } else { destination.weight }, scope)
        });
        ClusterSpecifier::WeightedClusters(route_pb::WeightedCluster {
            clusters: clusters.collect(),
            ..Default::default()
        })
    }
}

fn emit_cluster_weight(name: String, weight: u32, scope: &Scope) -> route_pb::weighted_cluster::ClusterWeight {
    use route_pb::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    route_pb::weighted_cluster::ClusterWeight {
        name,
        weight: pb::uint32(weight),
        request_headers_to_add: emit_added(&scope.request),
        request_headers_to_remove: emit_removed(&scope.request),
        response_headers_to_add: emit_added(&scope.response),
        response_headers_to_remove: emit_removed(&scope.response),
        typed_per_filter_config: emit_slots(scope),
        host_rewrite_specifier: scope
            .host
            .as_ref()
            .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
        ..Default::default()
    }
}

fn emit_added(changes: &HeaderChanges) -> Vec<core_pb::HeaderValueOption> {
    use core_pb::header_value_option::HeaderAppendAction;
    let option = |(name, value): (&Name, &Name)| core_pb::HeaderValueOption {
        header: Some(core_pb::HeaderValue { key: name.to_string(), value: value.to_string(), raw_value: Vec::new() }),
        append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
        ..Default::default()
    };
    changes.add.iter().map(option).collect()
}

fn emit_removed(changes: &HeaderChanges) -> Vec<String> {
    changes.remove.iter().map(Name::to_string).collect()
}

fn emit_slots(scope: &Scope) -> std::collections::HashMap<String, Any> {
    scope.slots.iter().map(|(slot, config)| ((*slot).to_owned(), config.clone())).collect()
}

/// R79.
fn emit_redirect(redirect: &Redirect) -> route_pb::RedirectAction {
    use route_pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode};
    let response_code = match redirect.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    route_pb::RedirectAction {
        host_redirect: redirect.host.as_ref().map(Name::to_string).unwrap_or_default(),
        path_rewrite_specifier: redirect.path.as_ref().map(|path| PathRewriteSpecifier::PathRedirect(path.to_string())),
        response_code: response_code.into(),
        ..Default::default()
    }
}

/// R79, and R142 for routes that are misconfigured.
fn emit_direct_response(direct: &DirectResponse) -> route_pb::DirectResponseAction {
    let body = (!direct.body.is_empty()).then(|| core_pb::DataSource {
        specifier: Some(core_pb::data_source::Specifier::InlineString(direct.body.to_string())),
        ..Default::default()
    });
    route_pb::DirectResponseAction { status: u32::from(direct.status), body, body_format: None }
}
