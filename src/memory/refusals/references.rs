//! What a resource refers to, read from its bytes.
//!
//! Only the fields that name other resources are decoded; every other field is skipped, and bytes that are no such message
//! refer to nothing. Field numbers as in Envoy 1.40.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::Name;
use crate::snapshot::verify::asked_cluster;
use crate::snapshot::{Resource, ResourceType, Version};

/// `envoy.config.cluster.v3.Cluster.DiscoveryType.EDS`.
const EDS: i32 = 3;

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TOKENS: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const AUTHORIZATION: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

/// The resources that one resource needs in order to work.
///
/// A listener its route configurations, filters, secrets and, for plain connections, clusters; a filter the clusters that it
/// asks; a scope its route configuration; a route configuration its clusters, also those that filters on routes ask; a
/// cluster its endpoints and secrets; anything else nothing.
///
/// # Cost
/// One pass over the bytes.
#[must_use]
pub fn references(resource_type: ResourceType, body: &[u8]) -> BTreeSet<(ResourceType, Name)> {
    let mut found = Found::default();
    match resource_type {
        ResourceType::Listener => found.listener(&decoded(body)),
        ResourceType::Route => found.route_configuration(&decoded(body)),
        ResourceType::Cluster => found.cluster(&decoded(body)),
        ResourceType::ScopedRoute => {
            let scope: ScopedRouteConfiguration = decoded(body);
            found.add(ResourceType::Route, &scope.route_configuration_name);
        }
        ResourceType::Extension => found.filter(&decoded(body)),
        ResourceType::Secret | ResourceType::Endpoint | ResourceType::RateLimit => {}
    }
    found.0
}

/// The names of the verifications of tokens in a filter; none in another filter.
///
/// # Cost
/// One pass over the bytes.
#[must_use]
pub fn verifications(body: &[u8]) -> BTreeSet<Name> {
    let filter: TypedExtensionConfig = decoded(body);
    let tokens = filter.typed_config.filter(|config| config.message() == TOKENS);
    let tokens: JwtAuthentication = tokens.map(|config| decoded(&config.value)).unwrap_or_default();
    tokens.requirement_map.into_keys().map(Name::from).collect()
}

/// Whether a listener has a chain that chooses its routes by scopes.
///
/// # Cost
/// One pass over the bytes.
#[must_use]
pub fn chooses_scopes(listener: &[u8]) -> bool {
    let listener: Listener = decoded(listener);
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let mut managers = chains.flat_map(|chain| &chain.filters).filter_map(manager);
    managers.any(|manager| manager.scoped_routes.is_some())
}

/// The HTTP connection manager that a network filter is, if it is one.
fn manager(filter: &Filter) -> Option<HttpConnectionManager> {
    let config = filter.typed_config.as_ref().filter(|config| config.message() == MANAGER)?;
    Some(decoded(&config.value))
}

/// What resources refer to, remembered from one question to the next: what stands in for something stays the same from edit
/// to edit.
#[derive(Debug, Default)]
pub struct Known {
    now: BTreeMap<Bytes, Arc<References>>,
    before: BTreeMap<Bytes, Arc<References>>,
}

/// Types and names.
type References = BTreeSet<(ResourceType, Name)>;

/// Equal versions mean equal bytes.
type Bytes = (ResourceType, Name, Version);

impl Known {
    /// The resources that one needs in order to work.
    ///
    /// # Cost
    /// A lookup, if it was asked in this round or the last; else one pass over the bytes.
    pub fn references(&mut self, resource_type: ResourceType, resource: &Resource) -> Arc<References> {
        let bytes = (resource_type, resource.name.clone(), resource.version.clone());
        if let Some(known) = self.now.get(&bytes) {
            return known.clone();
        }
        let known = self.before.remove(&bytes);
        let found = known.unwrap_or_else(|| Arc::new(references(resource_type, &resource.body)));
        self.now.insert(bytes, found.clone());
        found
    }

    /// Begins a round: what is not asked in it is forgotten with the next.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

fn decoded<M: prost::Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).unwrap_or_default()
}

#[derive(Default)]
struct Found(BTreeSet<(ResourceType, Name)>);

impl Found {
    fn add(&mut self, resource_type: ResourceType, name: &str) {
        if !name.is_empty() {
            self.0.insert((resource_type, name.into()));
        }
    }

    fn listener(&mut self, listener: &Listener) {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            self.transport(chain.transport_socket.as_ref());
            for config in chain.filters.iter().filter_map(|filter| filter.typed_config.as_ref()) {
                match config.message() {
                    MANAGER => {
                        let manager: HttpConnectionManager = decoded(&config.value);
                        self.add(ResourceType::Route, &manager.rds.unwrap_or_default().route_config_name);
                        for filter in manager.http_filters.iter().filter(|filter| filter.config_discovery.is_some()) {
                            self.add(ResourceType::Extension, &filter.name);
                        }
                        if let Some(routes) = manager.route_config {
                            self.route_configuration(&routes);
                        }
                    }
                    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
                        let proxy: TcpProxy = decoded(&config.value);
                        self.add(ResourceType::Cluster, &proxy.cluster);
                        self.weighted(proxy.weighted_clusters);
                    }
                    _ => {}
                }
            }
        }
    }

    fn filter(&mut self, filter: &TypedExtensionConfig) {
        let Some(config) = &filter.typed_config else { return };
        match config.message() {
            TOKENS => {
                let tokens: JwtAuthentication = decoded(&config.value);
                for remote in tokens.providers.into_values().filter_map(|provider| provider.remote_jwks) {
                    self.add(ResourceType::Cluster, &remote.http_uri.unwrap_or_default().cluster);
                }
            }
            AUTHORIZATION => {
                let asked: ExtAuthz = decoded(&config.value);
                let grpc = asked.grpc_service.and_then(|service| service.envoy_grpc);
                let http = asked.http_service.and_then(|service| service.server_uri);
                self.add(ResourceType::Cluster, &grpc.unwrap_or_default().cluster_name);
                self.add(ResourceType::Cluster, &http.unwrap_or_default().cluster);
            }
            _ => {}
        }
    }

    fn route_configuration(&mut self, configuration: &RouteConfiguration) {
        for route in configuration.virtual_hosts.iter().flat_map(|host| &host.routes) {
            self.slots(&route.slots);
            let Some(action) = &route.route else { continue };
            self.add(ResourceType::Cluster, &action.cluster);
            self.weighted(action.weighted_clusters.clone());
            for mirror in &action.request_mirror_policies {
                self.add(ResourceType::Cluster, &mirror.cluster);
            }
        }
    }

    fn weighted(&mut self, clusters: Option<WeightedClusters>) {
        for cluster in clusters.unwrap_or_default().clusters {
            self.add(ResourceType::Cluster, &cluster.name);
            self.slots(&cluster.slots);
        }
    }

    /// What filters ask that are configured here.
    fn slots(&mut self, slots: &HashMap<String, Any>) {
        for cluster in slots.values().filter_map(|config| asked_cluster(&config.type_url, &config.value)) {
            self.add(ResourceType::Cluster, &cluster);
        }
    }

    fn cluster(&mut self, cluster: &Cluster) {
        if cluster.discovery_type == EDS {
            let service = cluster.eds_cluster_config.as_ref().map_or("", |config| &config.service_name);
            self.add(ResourceType::Endpoint, if service.is_empty() { &cluster.name } else { service });
        }
        self.transport(cluster.transport_socket.as_ref());
        for matching in &cluster.transport_socket_matches {
            self.transport(matching.transport_socket.as_ref());
        }
    }

    /// Secrets of a TLS context; downstream and upstream contexts have the common part at the same place.
    fn transport(&mut self, socket: Option<&TransportSocket>) {
        let Some(config) = socket.and_then(|socket| socket.typed_config.as_ref()) else { return };
        let is_tls = matches!(
            config.message(),
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
                | "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        );
        let Some(common) = is_tls.then(|| decoded::<TlsContext>(&config.value).common).flatten() else { return };
        let combined = common.combined_validation_context.unwrap_or_default().secret;
        let secrets = common.certificates.iter().chain(&common.validation_context).chain(&combined);
        for secret in secrets {
            self.add(ResourceType::Secret, &secret.name);
        }
    }
}

impl Any {
    /// The full name of the message inside.
    fn message(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listener {
    #[prost(message, repeated, tag = "3")]
    filter_chains: Vec<FilterChain>,
    #[prost(message, optional, tag = "25")]
    default_filter_chain: Option<FilterChain>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FilterChain {
    #[prost(message, repeated, tag = "3")]
    filters: Vec<Filter>,
    #[prost(message, optional, tag = "6")]
    transport_socket: Option<TransportSocket>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Filter {
    #[prost(message, optional, tag = "4")]
    typed_config: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransportSocket {
    #[prost(message, optional, tag = "3")]
    typed_config: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TlsContext {
    #[prost(message, optional, tag = "1")]
    common: Option<CommonTlsContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommonTlsContext {
    #[prost(message, repeated, tag = "6")]
    certificates: Vec<SecretConfig>,
    #[prost(message, optional, tag = "7")]
    validation_context: Option<SecretConfig>,
    #[prost(message, optional, tag = "8")]
    combined_validation_context: Option<CombinedValidationContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CombinedValidationContext {
    #[prost(message, optional, tag = "2")]
    secret: Option<SecretConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SecretConfig {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpConnectionManager {
    #[prost(message, optional, tag = "3")]
    rds: Option<Rds>,
    #[prost(message, optional, tag = "4")]
    route_config: Option<RouteConfiguration>,
    #[prost(message, repeated, tag = "5")]
    http_filters: Vec<HttpFilter>,
    /// Nothing of it matters but that it is there.
    #[prost(message, optional, tag = "31")]
    scoped_routes: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TypedExtensionConfig {
    #[prost(message, optional, tag = "2")]
    typed_config: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct JwtAuthentication {
    #[prost(btree_map = "string, message", tag = "1")]
    providers: BTreeMap<String, JwtProvider>,
    /// Nothing of a requirement matters but its name.
    #[prost(btree_map = "string, message", tag = "5")]
    requirement_map: BTreeMap<String, Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct JwtProvider {
    #[prost(message, optional, tag = "3")]
    remote_jwks: Option<RemoteJwks>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RemoteJwks {
    #[prost(message, optional, tag = "1")]
    http_uri: Option<HttpUri>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpUri {
    #[prost(string, tag = "2")]
    cluster: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExtAuthz {
    #[prost(message, optional, tag = "1")]
    grpc_service: Option<GrpcService>,
    #[prost(message, optional, tag = "3")]
    http_service: Option<HttpService>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GrpcService {
    #[prost(message, optional, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpService {
    #[prost(message, optional, tag = "1")]
    server_uri: Option<HttpUri>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpFilter {
    #[prost(string, tag = "1")]
    name: String,
    /// Nothing of it matters but that it is there.
    #[prost(message, optional, tag = "5")]
    config_discovery: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Rds {
    #[prost(string, tag = "2")]
    route_config_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TcpProxy {
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(message, optional, tag = "10")]
    weighted_clusters: Option<WeightedClusters>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RouteConfiguration {
    #[prost(message, repeated, tag = "2")]
    virtual_hosts: Vec<VirtualHost>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VirtualHost {
    #[prost(message, repeated, tag = "3")]
    routes: Vec<Route>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Route {
    #[prost(message, optional, tag = "2")]
    route: Option<RouteAction>,
    #[prost(map = "string, message", tag = "13")]
    slots: HashMap<String, Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RouteAction {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(message, optional, tag = "3")]
    weighted_clusters: Option<WeightedClusters>,
    #[prost(message, repeated, tag = "30")]
    request_mirror_policies: Vec<Mirror>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Mirror {
    #[prost(string, tag = "1")]
    cluster: String,
}

/// Of a route or of a TCP proxy: the names are at the same place.
#[derive(Clone, PartialEq, prost::Message)]
struct WeightedClusters {
    #[prost(message, repeated, tag = "1")]
    clusters: Vec<WeightedCluster>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WeightedCluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(map = "string, message", tag = "10")]
    slots: HashMap<String, Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    discovery_type: i32,
    #[prost(message, optional, tag = "3")]
    eds_cluster_config: Option<EdsClusterConfig>,
    #[prost(message, optional, tag = "24")]
    transport_socket: Option<TransportSocket>,
    #[prost(message, repeated, tag = "43")]
    transport_socket_matches: Vec<TransportSocketMatch>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EdsClusterConfig {
    #[prost(string, tag = "2")]
    service_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransportSocketMatch {
    #[prost(message, optional, tag = "3")]
    transport_socket: Option<TransportSocket>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopedRouteConfiguration {
    #[prost(string, tag = "2")]
    route_configuration_name: String,
}
