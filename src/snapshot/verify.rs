//! Independent checker of snapshots: judges the bytes that a gateway would get, and shares no code with their maker.
//!
//! Much of what is wrong with a configuration Envoy accepts without a word: a route to a cluster that does not exist
//! (503 at run time), configuration for a filter that the listener does not have (ignored, so the policy is off), a
//! listener whose routes never come (no traffic). And what it refuses, it refuses by the resource. So a snapshot is
//! checked before it is published; a violation is a defect of Chancery, never of a user's object.
//!
//! # Cost
//! Decodes everything once, one virtual host at a time, and compiles each distinct expression once, which costs as much
//! as decoding a hundred routes. Measured by `make bench`.
//!
//! # Rule
//! The policy reference in the manual, "Filter slots" and "Values".

mod apart;
mod chosen;
mod extensions;
mod format;
mod holders;
mod incremental;
mod scopes;
mod transports;

pub use holders::asked_cluster;
pub use incremental::Verifier;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_pb;
use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3 as composite_pb;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_pb;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz_pb;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation_pb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3 as lua_pb;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as rate_limit_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::r#type::matcher::v3 as matching_pb;
use prost::Message;

use crate::model::Name;

use super::{Resource, ResourceType, Resources, Snapshot};
use transports::Wanted;

/// Weights of a route's clusters are percentages.
const TOTAL_WEIGHT: u64 = 100;
/// Envoy's own limit where a route configuration sets none.
const DEFAULT_DIRECT_RESPONSE_BYTES: u32 = 4096;

/// Something that must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// Name of the resource.
    pub resource: Name,
    /// What is wrong, and where in the resource.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} `{}`: {}", self.resource_type, self.resource, self.message)
    }
}

/// Everything that is wrong with a snapshot, in order; empty if it may be published.
///
/// Looks at everything; a [`Verifier`] comes to the same by looking at what changed.
#[must_use]
pub fn verify(snapshot: &Snapshot) -> Vec<Violation> {
    let mut checker = Checker::new(World::Snapshot(snapshot));
    let mut taken: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    let mut secrets = BTreeSet::new();
    for (name, resource) in snapshot.resources(ResourceType::Cluster).iter() {
        let wanted = checker.check_cluster(name, resource);
        secrets.extend(wanted.secrets.iter().cloned());
        if let Some(endpoints) = &wanted.endpoints {
            checker.check_wanted_endpoints(name, endpoints);
            taken.entry(endpoints.clone()).or_default().push(wanted);
        }
    }
    for (name, resource) in snapshot.resources(ResourceType::Endpoint).iter() {
        let takers: Vec<&Wanted> = taken.get(name.as_str()).into_iter().flatten().collect();
        checker.check_endpoints(name, resource, Some(&takers));
    }
    let mut chains = checker.check_listeners(&secrets);
    checker.check_extensions(&mut chains);
    checker.check_scopes(&chains);
    let mut wildcards = scopes::Wildcards::new();
    for (name, resource) in snapshot.resources(ResourceType::Route).iter() {
        let users = (&*chains.users(name), chains.is_part(name));
        if let Some(hosts) = checker.check_route_configuration(name, resource, users, &mut NoMemory) {
            wildcards.insert(name.clone(), hosts);
        }
    }
    checker.check_wildcards(&chains, &wildcards, &BTreeSet::new());
    checker.verdict()
}

/// Everything that is wrong with endpoints by themselves, for a snapshot of which a cluster takes endpoints of this name.
#[must_use]
pub fn verify_endpoints(resource: &Resource) -> Vec<Violation> {
    let mut checker = Checker::new(World::Anything);
    checker.check_endpoints(&resource.name, resource, None);
    checker.verdict()
}

/// What uses route configurations, and the HTTP filters there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chains {
    /// By route configuration: the listeners that use it.
    whole: BTreeMap<String, Vec<User>>,
    /// By what the names of their parts begin with: the chains that are cut.
    cut: BTreeMap<String, Vec<User>>,
    /// By the same: with how many digits their requests name a part.
    digits: BTreeMap<String, Option<usize>>,
    /// The HTTP filters whose configuration is a resource.
    discovered: extensions::Discovered,
}

/// A listener, and the names of the HTTP filters of a chain of it; where routes name something in a filter, with that.
type User = (Name, BTreeSet<String>);

impl Chains {
    /// Who uses a route configuration.
    fn users(&self, name: &str) -> Vec<User> {
        self.whole.get(name).into_iter().chain(self.users_of_part(name)).flatten().cloned().collect()
    }

    /// Who uses a route configuration as a part: chains that are cut, and such as were.
    fn users_of_part(&self, name: &str) -> Option<&Vec<User>> {
        let (prefix, _) = name.rsplit_once('/')?;
        self.cut.get(prefix).or_else(|| self.whole.get(prefix))
    }

    /// Whether a route configuration is a part of a chain that is cut, or was.
    fn is_part(&self, name: &str) -> bool {
        self.users_of_part(name).is_some()
    }
}

/// What there is beside the resource at hand.
enum World<'a> {
    /// What a snapshot has.
    Snapshot(&'a Snapshot),
    /// Anything, for what is to be known of a resource in every snapshot.
    Anything,
}

/// What a check asked about others.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// Whether these exist.
    resources: BTreeSet<(ResourceType, Name)>,
    /// Whether the listeners have these filters.
    slots: BTreeSet<String>,
}

struct Checker<'a> {
    world: World<'a>,
    violations: Vec<Violation>,
    /// Kept only where somebody wants to know.
    asked: Option<Asked>,
    expressions: Expressions,
}

/// Expressions seen so far; each is compiled once.
type Expressions = BTreeMap<String, Result<(), String>>;

/// The resource at hand.
#[derive(Clone, Copy)]
struct Place<'a> {
    resource_type: ResourceType,
    resource: &'a Name,
}

impl<'a> Checker<'a> {
    fn new(world: World<'a>) -> Self {
        Self { world, violations: Vec::new(), asked: None, expressions: Expressions::new() }
    }

    /// All complaints, in order.
    fn verdict(mut self) -> Vec<Violation> {
        self.violations.sort();
        self.violations
    }

    fn report(&mut self, place: Place<'_>, message: impl Into<String>) {
        let Place { resource_type, resource } = place;
        self.violations.push(Violation { resource_type, resource: resource.clone(), message: message.into() });
    }

    /// Whether there is a resource of a name.
    fn exists(&mut self, resource_type: ResourceType, name: &str) -> bool {
        if let Some(asked) = &mut self.asked {
            asked.resources.insert((resource_type, name.into()));
        }
        match self.world {
            World::Snapshot(snapshot) => snapshot.get(resource_type, name).is_some(),
            World::Anything => true,
        }
    }

    /// All resources of a type.
    fn resources(&self, resource_type: ResourceType) -> Arc<Resources> {
        match self.world {
            World::Snapshot(snapshot) => snapshot.resources(resource_type),
            World::Anything => Arc::default(),
        }
    }

    /// Decodes the resources of a type.
    fn decode<M: Message + Default>(
        &mut self,
        resource_type: ResourceType,
        own_name: impl Fn(&M) -> &str,
    ) -> Vec<(Name, M)> {
        let resources = self.resources(resource_type);
        let decoded = resources.iter().filter_map(|(name, resource)| {
            Some((name.clone(), self.decode_one(Place { resource_type, resource: name }, resource, &own_name)?))
        });
        decoded.collect()
    }

    /// Decodes a resource; if it does not decode, or calls itself something else, it is reported.
    fn decode_one<M: Message + Default>(
        &mut self,
        place: Place<'_>,
        resource: &Resource,
        own_name: impl Fn(&M) -> &str,
    ) -> Option<M> {
        match M::decode(resource.body.clone()) {
            Ok(message) => {
                if own_name(&message) != place.resource.as_str() || resource.name != *place.resource {
                    self.report(place, format!("calls itself `{}`", own_name(&message)));
                }
                Some(message)
            }
            Err(error) => {
                self.report(place, format!("does not decode: {error}"));
                None
            }
        }
    }

    fn unpack<M: Message + Default + prost::Name>(&mut self, place: Place<'_>, any: Option<&Any>) -> Option<M> {
        let any = any.filter(|any| any.type_url == M::type_url())?;
        match M::decode(any.value.as_slice()) {
            Ok(message) => Some(message),
            Err(error) => {
                self.report(place, format!("a {} inside does not decode: {error}", M::full_name()));
                None
            }
        }
    }

    /// Checks a cluster by itself; what it wants.
    fn check_cluster(&mut self, name: &Name, resource: &Resource) -> Wanted {
        let place = Place { resource_type: ResourceType::Cluster, resource: name };
        let mut wanted = Wanted::default();
        let cluster = self.decode_one(place, resource, |cluster: &cluster_pb::Cluster| &cluster.name);
        let Some(cluster) = cluster else { return wanted };
        for options in by_key(&cluster.typed_extension_protocol_options) {
            let Some(options) = self.unpack::<upstream_http_pb::HttpProtocolOptions>(place, Some(options)) else {
                continue;
            };
            if let Some(last) = options.http_filters.last() {
                self.check_filters(place, &options.http_filters);
                let wanted = "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
                if filter_type(last) != Some(wanted) {
                    self.report(place, "its HTTP filters do not end with the upstream codec");
                }
            }
        }
        self.check_transports(place, &cluster, &mut wanted);
        wanted.endpoints = endpoints_of(&cluster);
        let has_transports = cluster.transport_socket.is_some() || !cluster.transport_socket_matches.is_empty();
        if has_transports && wanted.endpoints.as_deref() == Some(&cluster.name) {
            // While it is warming, the cluster before would take them as well, and speak to them as it does.
            self.report(place, "has transports, and endpoints of the name that it had without");
        }
        match &cluster.load_assignment {
            Some(own) if wanted.endpoints.is_none() => self.check_leads(place, own, &[&wanted]),
            None if wanted.endpoints.is_none() => self.report(place, "has no endpoints, and takes none"),
            _ => {}
        }
        wanted
    }

    fn check_wanted_endpoints(&mut self, cluster: &Name, wanted: &str) {
        if !self.exists(ResourceType::Endpoint, wanted) {
            let place = Place { resource_type: ResourceType::Cluster, resource: cluster };
            self.report(place, format!("has no endpoints `{wanted}`, so Envoy would wait for them"));
        }
    }

    /// Checks endpoints, for the clusters that take them if it is known which do.
    fn check_endpoints(&mut self, name: &Name, resource: &Resource, takers: Option<&[&Wanted]>) {
        let place = Place { resource_type: ResourceType::Endpoint, resource: name };
        let decoded: Option<endpoint_pb::ClusterLoadAssignment> =
            self.decode_one(place, resource, |a: &endpoint_pb::ClusterLoadAssignment| &a.cluster_name);
        let (Some(decoded), Some(takers)) = (decoded, takers) else { return };
        if takers.is_empty() {
            self.report(place, "no cluster takes these endpoints");
        }
        self.check_leads(place, &decoded, takers);
    }

    /// Checks listeners, and the secrets that they and the clusters wait for.
    fn check_listeners(&mut self, of_clusters: &BTreeSet<String>) -> Chains {
        let mut chains = Chains::default();
        let mut addresses: BTreeMap<(String, u32), Name> = BTreeMap::new();
        let listeners = self.decode(ResourceType::Listener, |listener: &listener_pb::Listener| listener.name.as_str());
        for (name, listener) in &listeners {
            let place = Place { resource_type: ResourceType::Listener, resource: name };
            match listener.address.as_ref().and_then(socket_address) {
                None => self.report(place, "has no socket address"),
                Some(address) => {
                    if let Some(other) = addresses.get(&address) {
                        let (ip, port) = &address;
                        self.report(place, format!("binds {ip}:{port}, as `{other}` does"));
                    }
                    addresses.insert(address, name.clone());
                }
            }
            self.check_chains(place, listener, &mut chains);
        }
        self.check_secrets(&listeners, of_clusters);
        chains
    }

    fn check_chains(&mut self, place: Place<'_>, listener: &listener_pb::Listener, chains: &mut Chains) {
        let mut names: BTreeSet<Option<String>> = BTreeSet::new();
        let inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
        let inspects = listener.listener_filters.iter().any(|filter| match &filter.config_type {
            Some(listener_pb::listener_filter::ConfigType::TypedConfig(config)) => config.type_url == inspector,
            _ => false,
        });
        if listener.filter_chains.is_empty() {
            self.report(place, "has no filter chain");
        }
        if let Some(matcher) = &listener.filter_chain_matcher {
            self.check_chosen(place, matcher, listener);
        }
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            let server_names = chain.filter_chain_match.as_ref().map_or(&[][..], |wanted| &wanted.server_names);
            let own: Vec<Option<String>> = if server_names.is_empty() {
                vec![None]
            } else {
                server_names.iter().map(|name| Some(name.to_ascii_lowercase())).collect()
            };
            for name in own {
                let shown = name.as_deref().unwrap_or("any server name").to_owned();
                if name.as_ref().is_some_and(|name| name.trim_start_matches("*.").contains('*')) {
                    self.report(place, format!("chooses a chain by `{shown}`, which Envoy cannot"));
                }
                if !names.insert(name) && listener.filter_chain_matcher.is_none() {
                    self.report(place, format!("has two chains for {shown}"));
                }
            }
            let needs_tls = chain.filter_chain_match.as_ref().is_some_and(|wanted| wanted.transport_protocol == "tls");
            if (needs_tls || !server_names.is_empty() || chain.transport_socket.is_some()) && !inspects {
                self.report(place, "tells TLS connections apart without looking into them");
            }
            if !server_names.is_empty() && !needs_tls {
                self.report(place, "has a chain with server names that takes plaintext too");
            }
            self.check_crossing(place, chain, server_names);
            let Some(filter) = chain.filters.last() else {
                self.report(place, "has a chain without filters");
                continue;
            };
            let config = match &filter.config_type {
                Some(listener_pb::filter::ConfigType::TypedConfig(config)) => Some(config),
                _ => None,
            };
            if let Some(manager) = self.unpack::<hcm_pb::HttpConnectionManager>(place, config) {
                if needs_tls && chain.transport_socket.is_none() {
                    self.report(place, "reads HTTP where TLS is not ended");
                }
                self.check_manager(place, &manager, chains);
                self.check_relay(place, chain, &manager);
            } else if let Some(proxy) = self.unpack::<tcp_pb::TcpProxy>(place, config) {
                self.check_tcp_proxy(place, &proxy);
            }
        }
    }

    fn check_tcp_proxy(&mut self, place: Place<'_>, proxy: &tcp_pb::TcpProxy) {
        use tcp_pb::tcp_proxy::ClusterSpecifier;
        let clusters: Vec<&str> = match &proxy.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => vec![cluster],
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                weighted.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
            }
            None => Vec::new(),
        };
        if clusters.is_empty() {
            self.report(place, "passes connections on to nothing");
        }
        for cluster in clusters {
            if !self.exists(ResourceType::Cluster, cluster) {
                self.report(place, format!("passes connections on to cluster `{cluster}`, which does not exist"));
            }
        }
    }

    fn check_manager(&mut self, place: Place<'_>, manager: &hcm_pb::HttpConnectionManager, chains: &mut Chains) {
        use hcm_pb::http_connection_manager::RouteSpecifier;
        self.check_filters(place, &manager.http_filters);
        self.check_discovered(place, &manager.http_filters, &mut chains.discovered);
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        let routers = manager.http_filters.iter().filter(|filter| filter_type(filter) == Some(router)).count();
        if routers != 1 || manager.http_filters.last().and_then(filter_type) != Some(router) {
            self.report(place, "its HTTP filters do not end with the one router");
        }
        match &manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => {
                if !self.exists(ResourceType::Route, &rds.route_config_name) {
                    let wanted = &rds.route_config_name;
                    self.report(place, format!("waits for routes `{wanted}`, which do not exist"));
                }
                let filters = manager.http_filters.iter().map(|filter| filter.name.clone()).collect();
                let users = chains.whole.entry(rds.route_config_name.clone()).or_default();
                users.push((place.resource.clone(), filters));
            }
            // Nobody may change it, so it is checked with its chain.
            Some(RouteSpecifier::RouteConfig(_)) => {}
            Some(RouteSpecifier::ScopedRoutes(scoped)) => self.check_scoped_routes(place, manager, scoped, chains),
            _ => self.report(place, "takes its routes from nowhere"),
        }
    }

    fn check_filters(&mut self, place: Place<'_>, filters: &[hcm_pb::HttpFilter]) {
        let mut names = BTreeSet::new();
        for filter in filters {
            if filter.config_type.is_none() {
                self.report(place, format!("HTTP filter `{}` has no configuration", filter.name));
            }
            if !names.insert(&filter.name) {
                self.report(place, format!("has two HTTP filters `{}`", filter.name));
            }
        }
    }

    /// Checks a route configuration; of a part, its domains with wildcards.
    fn check_route_configuration(
        &mut self,
        name: &Name,
        resource: &Resource,
        (users, is_part): (&[User], bool),
        memory: &mut impl Memory,
    ) -> Option<BTreeSet<String>> {
        let place = Place { resource_type: ResourceType::Route, resource: name };
        let configuration: RouteConfiguration =
            self.decode_one(place, resource, |configuration: &RouteConfiguration| &configuration.name)?;
        let largest_body = configuration
            .max_direct_response_body_size_bytes
            .as_ref()
            .map_or(DEFAULT_DIRECT_RESPONSE_BYTES, |limit| limit.value);
        let mut routes = Routes { checker: self, place, users, is_part, largest_body };
        routes.check_slots(At::default(), &configuration.typed_per_filter_config);
        Some(routes.check_virtual_hosts(&configuration.virtual_hosts, memory))
    }

    fn check_expression(&mut self, place: Place<'_>, at: At<'_>, expression: &str) {
        let compiled = self
            .expressions
            .entry(expression.to_owned())
            .or_insert_with(|| crate::model::expression::check(expression).map(drop));
        if let Err(problem) = compiled.clone() {
            self.report(place, format!("{at}expression `{expression}` is not valid: {problem}"));
        }
    }
}

/// Where in a route configuration; written out only where something is wrong.
#[derive(Clone, Copy, Default)]
struct At<'a> {
    host: Option<&'a str>,
    route: Option<&'a str>,
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.route) {
            (Some(host), Some(route)) => write!(f, "host `{host}`, route `{route}`: "),
            (Some(host), None) => write!(f, "host `{host}`: "),
            (None, _) => Ok(()),
        }
    }
}

/// What a virtual host is called.
#[derive(Debug)]
struct Identity {
    name: String,
    domains: Vec<String>,
}

/// What was found out about virtual hosts before.
trait Memory {
    /// What a virtual host is called, if nothing is to be said against the rest of it.
    fn recall(&mut self, routes: &mut Routes<'_, '_, '_>, bytes: &bytes::Bytes) -> Option<Arc<Identity>>;
}

/// Remembers nothing.
struct NoMemory;

impl Memory for NoMemory {
    fn recall(&mut self, _: &mut Routes<'_, '_, '_>, _: &bytes::Bytes) -> Option<Arc<Identity>> {
        None
    }
}

/// One route configuration being checked.
struct Routes<'c, 's, 'a> {
    checker: &'c mut Checker<'s>,
    place: Place<'a>,
    users: &'a [User],
    /// Whether it is a part of a chain that is cut.
    is_part: bool,
    largest_body: u32,
}

impl Routes<'_, '_, '_> {
    fn report(&mut self, at: At<'_>, message: impl fmt::Display) {
        self.checker.report(self.place, format!("{at}{message}"));
    }

    /// Checks all virtual hosts; their domains with wildcards.
    fn check_virtual_hosts(&mut self, hosts: &[bytes::Bytes], memory: &mut impl Memory) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut domains = BTreeSet::new();
        for bytes in hosts {
            let identity = match memory.recall(self, bytes) {
                Some(identity) => identity,
                None => match route_pb::VirtualHost::decode(bytes.clone()) {
                    Ok(host) => {
                        self.check_virtual_host(&host);
                        Arc::new(Identity { name: host.name, domains: host.domains })
                    }
                    Err(error) => {
                        self.report(At::default(), format_args!("does not decode: {error}"));
                        continue;
                    }
                },
            };
            let at = At { host: Some(&identity.name), route: None };
            if !names.insert(identity.name.clone()) {
                self.report(at, "has the name of another");
            }
            if identity.domains.is_empty() {
                self.report(at, "has no domain");
            }
            for domain in &identity.domains {
                if !domains.insert(domain.to_ascii_lowercase()) {
                    self.report(at, format_args!("domain `{domain}` is taken already"));
                }
                if self.is_part && self.is_misplaced(domain) {
                    self.report(at, format_args!("requests for `{domain}` look in another part"));
                }
            }
        }
        domains.retain(|domain| domain.contains('*'));
        domains
    }

    /// Checks what a virtual host says beside its name and domains.
    fn check_virtual_host(&mut self, host: &route_pb::VirtualHost) {
        let at = At { host: Some(&host.name), route: None };
        self.check_slots(at, &host.typed_per_filter_config);
        self.check_headers(at, &host.request_headers_to_add, &host.request_headers_to_remove);
        self.check_headers(at, &host.response_headers_to_add, &host.response_headers_to_remove);
        for route in &host.routes {
            self.check_route(At { route: Some(&route.name), ..at }, route);
        }
    }

    fn check_route(&mut self, at: At<'_>, route: &route_pb::Route) {
        match &route.r#match {
            Some(matcher) => self.check_match(at, matcher),
            None => self.report(at, "matches nothing"),
        }
        self.check_slots(at, &route.typed_per_filter_config);
        self.check_mutations(at, &route.typed_per_filter_config);
        for config in by_key(&route.typed_per_filter_config) {
            if let Some(cors) = self.checker.unpack::<cors_pb::CorsPolicy>(self.place, Some(config)) {
                for origin in &cors.allow_origin_string_match {
                    self.check_string_matcher(at, origin);
                }
            }
        }
        self.check_headers(at, &route.request_headers_to_add, &route.request_headers_to_remove);
        self.check_headers(at, &route.response_headers_to_add, &route.response_headers_to_remove);
        match &route.action {
            Some(route_pb::route::Action::Route(action)) => self.check_forward(at, action),
            Some(route_pb::route::Action::DirectResponse(direct)) => self.check_direct_response(at, direct),
            Some(_) => {}
            None => self.report(at, "does nothing"),
        }
    }

    fn check_match(&mut self, at: At<'_>, matcher: &route_pb::RouteMatch) {
        use route_pb::header_matcher::HeaderMatchSpecifier;
        use route_pb::query_parameter_matcher::QueryParameterMatchSpecifier;
        use route_pb::route_match::PathSpecifier;
        match &matcher.path_specifier {
            Some(PathSpecifier::SafeRegex(regex)) => {
                self.checker.check_expression(self.place, at, &regex.regex);
            }
            Some(_) => {}
            None => self.report(at, "has no path to match"),
        }
        for header in &matcher.headers {
            if let Some(HeaderMatchSpecifier::StringMatch(condition)) = &header.header_match_specifier {
                self.check_string_matcher(at, condition);
            }
        }
        for parameter in &matcher.query_parameters {
            if let Some(QueryParameterMatchSpecifier::StringMatch(condition)) =
                &parameter.query_parameter_match_specifier
            {
                self.check_string_matcher(at, condition);
            }
        }
    }

    fn check_string_matcher(&mut self, at: At<'_>, condition: &matcher_pb::StringMatcher) {
        if let Some(matcher_pb::string_matcher::MatchPattern::SafeRegex(regex)) = &condition.match_pattern {
            self.checker.check_expression(self.place, at, &regex.regex);
        }
    }

    fn check_forward(&mut self, at: At<'_>, action: &route_pb::RouteAction) {
        use route_pb::route_action::ClusterSpecifier;
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => self.check_cluster(at, cluster),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let mut total = 0;
                for entry in &weighted.clusters {
                    self.check_cluster(at, &entry.name);
                    self.check_slots(at, &entry.typed_per_filter_config);
                    self.check_mutations(at, &entry.typed_per_filter_config);
                    self.check_headers(at, &entry.request_headers_to_add, &entry.request_headers_to_remove);
                    self.check_headers(at, &entry.response_headers_to_add, &entry.response_headers_to_remove);
                    total += entry.weight.as_ref().map_or(0, |weight| u64::from(weight.value));
                }
                if total != TOTAL_WEIGHT {
                    self.report(at, format_args!("weights add up to {total} and not to {TOTAL_WEIGHT}"));
                }
            }
            Some(_) => {}
            None => self.report(at, "forwards to nothing"),
        }
        for mirror in &action.request_mirror_policies {
            self.check_cluster(at, &mirror.cluster);
        }
        let pattern = action.regex_rewrite.as_ref().and_then(|rewrite| rewrite.pattern.as_ref());
        if let Some(pattern) = pattern {
            self.checker.check_expression(self.place, at, &pattern.regex);
        }
        if action.timeout.is_none() {
            self.report(at, "has no timeout, which is 15 s and not none");
        }
    }

    fn check_cluster(&mut self, at: At<'_>, cluster: &str) {
        if !self.checker.exists(ResourceType::Cluster, cluster) {
            self.report(at, format_args!("forwards to cluster `{cluster}`, which does not exist"));
        }
    }

    fn check_direct_response(&mut self, at: At<'_>, direct: &route_pb::DirectResponseAction) {
        use core_pb::data_source::Specifier;
        if !(200..600).contains(&direct.status) {
            self.report(at, format_args!("answers with status {}", direct.status));
        }
        let size = match direct.body.as_ref().and_then(|body| body.specifier.as_ref()) {
            Some(Specifier::InlineString(text)) => text.len(),
            Some(Specifier::InlineBytes(bytes)) => bytes.len(),
            _ => 0,
        };
        let limit = self.largest_body;
        if size > limit as usize {
            self.report(at, format_args!("answers with {size} bytes, more than {limit}"));
        }
    }

    fn check_slots(&mut self, at: At<'_>, slots: &std::collections::HashMap<String, Any>) {
        let asked = by_key(slots).filter_map(|config| asked_cluster(&config.type_url, &config.value));
        for cluster in asked.collect::<BTreeSet<String>>() {
            if !self.checker.exists(ResourceType::Cluster, &cluster) {
                self.report(at, format_args!("asks cluster `{cluster}`, which does not exist"));
            }
        }
        for header in by_key(slots).flat_map(extensions::told) {
            self.check_value(at, &header);
        }
        let named = slots.iter().filter_map(|(slot, config)| extensions::named(slot, config));
        let slots: BTreeSet<String> = slots.keys().cloned().chain(named).collect();
        if let Some(asked) = &mut self.checker.asked {
            asked.slots.extend(slots.iter().cloned());
        }
        for slot in slots {
            for (listener, filters) in self.users {
                if !filters.contains(&slot) {
                    self.report(
                        at,
                        format_args!("configures `{slot}`, which `{listener}` does not have, so it would be ignored"),
                    );
                }
            }
        }
    }

    fn check_headers(&mut self, at: At<'_>, added: &[core_pb::HeaderValueOption], removed: &[String]) {
        for header in added.iter().filter_map(|option| option.header.as_ref()) {
            self.check_added(at, header);
        }
        for name in removed {
            self.check_removed(at, name);
        }
    }

    /// Checks headers that a filter changes on a route or a destination.
    fn check_mutations(&mut self, at: At<'_>, slots: &std::collections::HashMap<String, Any>) {
        use mutation_pb::header_mutation::Action;
        for config in by_key(slots) {
            let config = self.checker.unpack::<header_mutation_pb::HeaderMutationPerRoute>(self.place, Some(config));
            let Some(mutations) = config.and_then(|config| config.mutations) else { continue };
            for mutation in mutations.request_mutations.iter().chain(&mutations.response_mutations) {
                match &mutation.action {
                    Some(Action::Remove(name)) => self.check_removed(at, name),
                    Some(Action::Append(option)) => match &option.header {
                        Some(header) => self.check_added(at, header),
                        None => self.report(at, "adds a header without a name"),
                    },
                    _ => self.report(at, "changes headers in a way that is not known here"),
                }
            }
        }
    }

    fn check_added(&mut self, at: At<'_>, header: &core_pb::HeaderValue) {
        if format::is_refused(&header.key) {
            self.report(at, format_args!("adds header `{}`", header.key));
        }
        if header.key.len().max(header.value.len()) > format::LONGEST {
            self.report(at, format_args!("adds a header or value of more than {} bytes", format::LONGEST));
        }
        self.check_value(at, header);
    }

    fn check_value(&mut self, at: At<'_>, header: &core_pb::HeaderValue) {
        if let Err(problem) = format::check(&header.value) {
            self.report(at, format_args!("value of header `{}`: {problem}", header.key));
        }
    }

    fn check_removed(&mut self, at: At<'_>, name: &str) {
        if format::is_refused(name) {
            self.report(at, format_args!("removes header `{name}`"));
        }
    }
}

/// A route configuration with its hosts as bytes: decoded all at once, they take twenty times the memory.
#[derive(Clone, PartialEq, prost::Message)]
struct RouteConfiguration {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    virtual_hosts: Vec<bytes::Bytes>,
    #[prost(message, optional, tag = "11")]
    max_direct_response_body_size_bytes: Option<envoy_types::pb::google::protobuf::UInt32Value>,
    #[prost(map = "string, message", tag = "16")]
    typed_per_filter_config: std::collections::HashMap<String, Any>,
}

/// The values of a protobuf map in a fixed order, so that complaints have one.
fn by_key(map: &std::collections::HashMap<String, Any>) -> impl Iterator<Item = &Any> {
    map.iter().collect::<BTreeMap<_, _>>().into_values()
}

/// The name of a cluster's endpoints, if they come over EDS.
fn endpoints_of(cluster: &cluster_pb::Cluster) -> Option<String> {
    use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType};
    let eds = i32::from(DiscoveryType::Eds);
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(eds)) {
        return None;
    }
    let service = cluster.eds_cluster_config.as_ref().map(|config| config.service_name.as_str());
    Some(service.filter(|service| !service.is_empty()).unwrap_or(&cluster.name).to_owned())
}

/// The names of the secrets that a chain waits for.
fn secrets_of(context: &tls_pb::CommonTlsContext) -> impl Iterator<Item = String> {
    use tls_pb::common_tls_context::ValidationContextType;
    let trust = match &context.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => Some(config),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.validation_context_sds_secret_config.as_ref()
        }
        _ => None,
    };
    context.tls_certificate_sds_secret_configs.iter().chain(trust).map(|config| config.name.clone())
}

fn socket_address(address: &core_pb::Address) -> Option<(String, u32)> {
    match address.address.as_ref()? {
        core_pb::address::Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            core_pb::socket_address::PortSpecifier::PortValue(port) => Some((socket.address.clone(), *port)),
            core_pb::socket_address::PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

fn filter_type(filter: &hcm_pb::HttpFilter) -> Option<&str> {
    match filter.config_type.as_ref()? {
        hcm_pb::http_filter::ConfigType::TypedConfig(config) => Some(&config.type_url),
        hcm_pb::http_filter::ConfigType::ConfigDiscovery(_) => None,
    }
}

#[cfg(test)]
mod tests;
