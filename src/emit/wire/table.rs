//! Which messages Chancery emits, and where they hold maps.
//!
//! Read from the descriptors of the pinned `envoy-types`; a test of [`super`] compares every row with them, so a
//! message that is added to the second list fails there until its rows are complete. Messages without a row have no
//! maps.

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_pb;
use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::api_key_auth::v3 as api_key_auth_pb;
use envoy_types::pb::envoy::extensions::filters::http::basic_auth::v3 as basic_auth_pb;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3 as composite_pb;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_pb;
use envoy_types::pb::envoy::extensions::filters::http::csrf::v3 as csrf_pb;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz_pb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_pb;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation_pb;
use envoy_types::pb::envoy::extensions::filters::http::ip_tagging::v3 as tagging_pb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as local_rate_limit_pb;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3 as lua_pb;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as rate_limit_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::envoy::extensions::filters::http::upstream_codec::v3 as upstream_codec_pb;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector_pb;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3 as closing_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac_pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request_pb;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as network_inputs_pb;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3 as mtls_authenticated_pb;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts_pb;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3 as previous_priorities_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http_pb;
use envoy_types::pb::ratelimit::config::ratelimit::v3 as rate_limits_pb;

use super::{Emitted, Field, Shape};

macro_rules! field {
    (map) => {
        Field::Map(None)
    };
    (map $value:ident) => {
        Field::Map(Some(&$value))
    };
    ($inner:ident) => {
        Field::Message(&$inner)
    };
}

macro_rules! shapes {
    ($($shape:ident = $name:literal: $($number:literal => $target:ident $($value:ident)?),+;)+) => {
        $(pub(super) static $shape: Shape =
            Shape { name: $name, fields: &[$(($number, field!($target $($value)?))),+] };)+

        /// Every row, for the test.
        #[cfg(test)]
        pub(super) static SHAPES: &[&Shape] = &[$(&$shape),+];
    };
}

macro_rules! emitted {
    ($($message:ty = $name:literal $(=> $shape:ident)?;)+) => {
        $(impl Emitted for $message {
            const SHAPE: Option<&'static Shape> = emitted!(@shape $($shape)?);
        })+

        /// Every message, for the test.
        #[cfg(test)]
        pub(super) static EMITTED: &[(&str, Option<&Shape>)] = &[$(($name, emitted!(@shape $($shape)?))),+];
    };
    (@shape) => { None };
    (@shape $shape:ident) => { Some(&$shape) };
}

// Type, then its fields: `map` with the type of the values, or the type of the message, where those hold maps.
shapes! {
    CLUSTER = "envoy.config.cluster.v3.Cluster":
        3 => CLUSTER_EDS_CLUSTER_CONFIG, 8 => HEALTH_CHECK, 22 => CLUSTER_LB_SUBSET_CONFIG, 25 => METADATA,
        33 => CLUSTER_LOAD_ASSIGNMENT, 36 => map, 40 => UPSTREAM_NETWORK_FILTER, 42 => CONFIG_SOURCE,
        43 => CLUSTER_TRANSPORT_SOCKET_MATCH, 59 => MATCHER;
    CLUSTER_EDS_CLUSTER_CONFIG = "envoy.config.cluster.v3.Cluster.EdsClusterConfig": 1 => CONFIG_SOURCE;
    CLUSTER_LB_SUBSET_CONFIG = "envoy.config.cluster.v3.Cluster.LbSubsetConfig": 2 => STRUCT;
    CLUSTER_TRANSPORT_SOCKET_MATCH = "envoy.config.cluster.v3.Cluster.TransportSocketMatch": 2 => STRUCT;
    UPSTREAM_NETWORK_FILTER = "envoy.config.cluster.v3.Filter": 3 => EXTENSION_CONFIG_SOURCE;
    API_CONFIG_SOURCE = "envoy.config.core.v3.ApiConfigSource": 4 => GRPC_SERVICE;
    CONFIG_SOURCE = "envoy.config.core.v3.ConfigSource": 2 => API_CONFIG_SOURCE;
    EVENT_SERVICE_CONFIG = "envoy.config.core.v3.EventServiceConfig": 1 => GRPC_SERVICE;
    EXTENSION_CONFIG_SOURCE = "envoy.config.core.v3.ExtensionConfigSource": 1 => CONFIG_SOURCE;
    GRPC_SERVICE = "envoy.config.core.v3.GrpcService": 2 => GRPC_SERVICE_GOOGLE_GRPC;
    GRPC_SERVICE_GOOGLE_GRPC = "envoy.config.core.v3.GrpcService.GoogleGrpc":
        6 => STRUCT, 8 => GRPC_SERVICE_GOOGLE_GRPC_CHANNEL_ARGS;
    GRPC_SERVICE_GOOGLE_GRPC_CHANNEL_ARGS = "envoy.config.core.v3.GrpcService.GoogleGrpc.ChannelArgs": 1 => map;
    HEALTH_CHECK = "envoy.config.core.v3.HealthCheck":
        9 => HEALTH_CHECK_TCP_HEALTH_CHECK, 22 => EVENT_SERVICE_CONFIG, 23 => STRUCT;
    HEALTH_CHECK_TCP_HEALTH_CHECK = "envoy.config.core.v3.HealthCheck.TcpHealthCheck": 3 => PROXY_PROTOCOL_CONFIG;
    KEY_VALUE_APPEND = "envoy.config.core.v3.KeyValueAppend": 3 => KEY_VALUE_PAIR;
    KEY_VALUE_MUTATION = "envoy.config.core.v3.KeyValueMutation": 1 => KEY_VALUE_APPEND;
    KEY_VALUE_PAIR = "envoy.config.core.v3.KeyValuePair": 2 => VALUE;
    METADATA = "envoy.config.core.v3.Metadata": 1 => map STRUCT, 2 => map;
    PROXY_PROTOCOL_CONFIG = "envoy.config.core.v3.ProxyProtocolConfig": 3 => TLV_ENTRY;
    SUBSTITUTION_FORMAT_STRING = "envoy.config.core.v3.SubstitutionFormatString": 2 => STRUCT;
    TLV_ENTRY = "envoy.config.core.v3.TlvEntry": 3 => SUBSTITUTION_FORMAT_STRING;
    CLUSTER_LOAD_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment": 2 => LOCALITY_LB_ENDPOINTS, 5 => map;
    LB_ENDPOINT = "envoy.config.endpoint.v3.LbEndpoint": 3 => METADATA;
    LEDS_CLUSTER_LOCALITY_CONFIG = "envoy.config.endpoint.v3.LedsClusterLocalityConfig": 1 => CONFIG_SOURCE;
    LOCALITY_LB_ENDPOINTS = "envoy.config.endpoint.v3.LocalityLbEndpoints":
        2 => LB_ENDPOINT, 7 => LOCALITY_LB_ENDPOINTS_LB_ENDPOINT_LIST, 8 => LEDS_CLUSTER_LOCALITY_CONFIG,
        9 => METADATA;
    LOCALITY_LB_ENDPOINTS_LB_ENDPOINT_LIST = "envoy.config.endpoint.v3.LocalityLbEndpoints.LbEndpointList":
        1 => LB_ENDPOINT;
    NETWORK_FILTER = "envoy.config.listener.v3.Filter": 5 => EXTENSION_CONFIG_SOURCE;
    FILTER_CHAIN = "envoy.config.listener.v3.FilterChain": 3 => NETWORK_FILTER, 5 => METADATA;
    LISTENER = "envoy.config.listener.v3.Listener":
        3 => FILTER_CHAIN, 6 => METADATA, 9 => LISTENER_FILTER, 25 => FILTER_CHAIN, 32 => MATCHER,
        36 => LISTENER_FCDS_CONFIG;
    LISTENER_FCDS_CONFIG = "envoy.config.listener.v3.Listener.FcdsConfig": 2 => CONFIG_SOURCE;
    LISTENER_FILTER = "envoy.config.listener.v3.ListenerFilter": 5 => EXTENSION_CONFIG_SOURCE;
    RATE_LIMIT_SERVICE_CONFIG = "envoy.config.ratelimit.v3.RateLimitServiceConfig": 2 => GRPC_SERVICE;
    POLICY = "envoy.config.rbac.v3.Policy": 4 => CHECKED_EXPR;
    RBAC_RBAC = "envoy.config.rbac.v3.RBAC": 2 => map POLICY;
    DIRECT_RESPONSE_ACTION = "envoy.config.route.v3.DirectResponseAction": 3 => SUBSTITUTION_FORMAT_STRING;
    ROUTE = "envoy.config.route.v3.Route": 2 => ROUTE_ACTION, 4 => METADATA, 7 => DIRECT_RESPONSE_ACTION, 13 => map;
    ROUTE_ACTION = "envoy.config.route.v3.RouteAction":
        3 => WEIGHTED_CLUSTER, 4 => METADATA, 25 => ROUTE_ACTION_UPGRADE_CONFIG;
    ROUTE_ACTION_UPGRADE_CONFIG = "envoy.config.route.v3.RouteAction.UpgradeConfig":
        3 => ROUTE_ACTION_UPGRADE_CONFIG_CONNECT_CONFIG;
    ROUTE_ACTION_UPGRADE_CONFIG_CONNECT_CONFIG = "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig":
        1 => PROXY_PROTOCOL_CONFIG;
    ROUTE_CONFIGURATION = "envoy.config.route.v3.RouteConfiguration":
        2 => VIRTUAL_HOST, 9 => VHDS, 16 => map, 17 => METADATA;
    SCOPED_ROUTE_CONFIGURATION = "envoy.config.route.v3.ScopedRouteConfiguration": 5 => ROUTE_CONFIGURATION;
    VHDS = "envoy.config.route.v3.Vhds": 1 => CONFIG_SOURCE;
    VIRTUAL_HOST = "envoy.config.route.v3.VirtualHost": 3 => ROUTE, 15 => map, 21 => MATCHER, 24 => METADATA;
    WEIGHTED_CLUSTER = "envoy.config.route.v3.WeightedCluster": 1 => WEIGHTED_CLUSTER_CLUSTER_WEIGHT;
    WEIGHTED_CLUSTER_CLUSTER_WEIGHT = "envoy.config.route.v3.WeightedCluster.ClusterWeight": 3 => METADATA, 10 => map;
    FILTER_STATE_VALUE = "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue":
        2 => SUBSTITUTION_FORMAT_STRING;
    COMPOSITE = "envoy.extensions.filters.http.composite.v3.Composite": 1 => map, 2 => MATCHER;
    COMPOSITE_PER_ROUTE = "envoy.extensions.filters.http.composite.v3.CompositePerRoute": 1 => MATCHER;
    DYNAMIC_CONFIG = "envoy.extensions.filters.http.composite.v3.DynamicConfig": 2 => EXTENSION_CONFIG_SOURCE;
    EXECUTE_FILTER_ACTION = "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction": 2 => DYNAMIC_CONFIG;
    CHECK_SETTINGS = "envoy.extensions.filters.http.ext_authz.v3.CheckSettings": 1 => map, 4 => GRPC_SERVICE;
    EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz": 1 => GRPC_SERVICE, 28 => STRUCT;
    EXT_AUTHZ_PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute": 2 => CHECK_SETTINGS;
    HTTP_FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault": 16 => STRUCT;
    HEADER_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation": 1 => MUTATIONS;
    HEADER_MUTATION_PER_ROUTE = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute":
        1 => MUTATIONS;
    MUTATIONS = "envoy.extensions.filters.http.header_mutation.v3.Mutations": 3 => KEY_VALUE_MUTATION;
    FILTER_STATE_RULE = "envoy.extensions.filters.http.jwt_authn.v3.FilterStateRule": 3 => map;
    JWT_AUTHENTICATION = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication":
        1 => map, 3 => FILTER_STATE_RULE, 5 => map;
    LUA = "envoy.extensions.filters.http.lua.v3.Lua": 2 => map, 6 => STRUCT;
    LUA_PER_ROUTE = "envoy.extensions.filters.http.lua.v3.LuaPerRoute": 4 => STRUCT;
    RATE_LIMIT = "envoy.extensions.filters.http.ratelimit.v3.RateLimit": 7 => RATE_LIMIT_SERVICE_CONFIG;
    HTTP_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC":
        1 => RBAC_RBAC, 2 => RBAC_RBAC, 4 => MATCHER, 5 => MATCHER;
    RBACPER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute": 2 => HTTP_RBAC;
    ROUTER = "envoy.extensions.filters.http.router.v3.Router": 8 => HTTP_FILTER;
    SET_FILTER_STATE_CONFIG = "envoy.extensions.filters.http.set_filter_state.v3.Config": 1 => FILTER_STATE_VALUE;
    HTTP_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
        3 => RDS, 4 => ROUTE_CONFIGURATION, 5 => HTTP_FILTER, 23 => HTTP_CONNECTION_MANAGER_UPGRADE_CONFIG,
        31 => SCOPED_ROUTES, 38 => LOCAL_REPLY_CONFIG, 60 => MATCHER;
    HTTP_CONNECTION_MANAGER_UPGRADE_CONFIG =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig":
        2 => HTTP_FILTER;
    HTTP_FILTER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter":
        5 => EXTENSION_CONFIG_SOURCE;
    LOCAL_REPLY_CONFIG = "envoy.extensions.filters.network.http_connection_manager.v3.LocalReplyConfig":
        1 => RESPONSE_MAPPER, 2 => SUBSTITUTION_FORMAT_STRING;
    RDS = "envoy.extensions.filters.network.http_connection_manager.v3.Rds": 1 => CONFIG_SOURCE;
    RESPONSE_MAPPER = "envoy.extensions.filters.network.http_connection_manager.v3.ResponseMapper":
        4 => SUBSTITUTION_FORMAT_STRING;
    SCOPED_RDS = "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRds": 1 => CONFIG_SOURCE;
    SCOPED_ROUTE_CONFIGURATIONS_LIST =
        "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRouteConfigurationsList":
        1 => SCOPED_ROUTE_CONFIGURATION;
    SCOPED_ROUTES = "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes":
        3 => CONFIG_SOURCE, 4 => SCOPED_ROUTE_CONFIGURATIONS_LIST, 5 => SCOPED_RDS;
    NETWORK_RBAC_RBAC = "envoy.extensions.filters.network.rbac.v3.RBAC":
        1 => RBAC_RBAC, 2 => RBAC_RBAC, 6 => MATCHER, 7 => MATCHER;
    TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
        9 => METADATA, 10 => TCP_PROXY_WEIGHTED_CLUSTER, 14 => TCP_PROXY_ON_DEMAND, 19 => TLV_ENTRY;
    TCP_PROXY_ON_DEMAND = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.OnDemand": 1 => CONFIG_SOURCE;
    TCP_PROXY_WEIGHTED_CLUSTER = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":
        1 => TCP_PROXY_CLUSTER_WEIGHT;
    TCP_PROXY_CLUSTER_WEIGHT = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight":
        3 => METADATA;
    COMMON_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext":
        6 => SDS_SECRET_CONFIG, 7 => SDS_SECRET_CONFIG, 8 => COMBINED_VALIDATION_CONTEXT;
    COMBINED_VALIDATION_CONTEXT =
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext":
        2 => SDS_SECRET_CONFIG;
    DOWNSTREAM_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
        1 => COMMON_TLS_CONTEXT, 5 => SDS_SECRET_CONFIG;
    GENERIC_SECRET = "envoy.extensions.transport_sockets.tls.v3.GenericSecret": 2 => map;
    SDS_SECRET_CONFIG = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": 2 => CONFIG_SOURCE;
    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret": 5 => GENERIC_SECRET;
    UPSTREAM_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": 1 => COMMON_TLS_CONTEXT;
    HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": 6 => HTTP_FILTER;
    CHECKED_EXPR = "google.api.expr.v1alpha1.CheckedExpr": 2 => map, 3 => map, 5 => SOURCE_INFO;
    SOURCE_INFO = "google.api.expr.v1alpha1.SourceInfo": 4 => map, 5 => map;
    LIST_VALUE = "google.protobuf.ListValue": 1 => VALUE;
    STRUCT = "google.protobuf.Struct": 1 => map VALUE;
    VALUE = "google.protobuf.Value": 5 => STRUCT, 6 => LIST_VALUE;
    RATE_LIMIT_CONFIG = "ratelimit.config.ratelimit.v3.RateLimitConfig": 3 => RATE_LIMIT_DESCRIPTOR;
    RATE_LIMIT_DESCRIPTOR = "ratelimit.config.ratelimit.v3.RateLimitDescriptor":
        4 => RATE_LIMIT_DESCRIPTOR, 8 => STRUCT;
    MATCHER = "xds.type.matcher.v3.Matcher":
        1 => MATCHER_MATCHER_LIST, 2 => MATCHER_MATCHER_TREE, 3 => MATCHER_ON_MATCH;
    MATCHER_MATCHER_LIST = "xds.type.matcher.v3.Matcher.MatcherList": 1 => MATCHER_MATCHER_LIST_FIELD_MATCHER;
    MATCHER_MATCHER_LIST_FIELD_MATCHER = "xds.type.matcher.v3.Matcher.MatcherList.FieldMatcher": 2 => MATCHER_ON_MATCH;
    MATCHER_MATCHER_TREE = "xds.type.matcher.v3.Matcher.MatcherTree":
        2 => MATCHER_MATCHER_TREE_MATCH_MAP, 3 => MATCHER_MATCHER_TREE_MATCH_MAP;
    MATCHER_MATCHER_TREE_MATCH_MAP = "xds.type.matcher.v3.Matcher.MatcherTree.MatchMap": 1 => map MATCHER_ON_MATCH;
    MATCHER_ON_MATCH = "xds.type.matcher.v3.Matcher.OnMatch": 1 => MATCHER;
}

// What `emit` encodes or packs into an `Any`.
emitted! {
    cluster_pb::Cluster = "envoy.config.cluster.v3.Cluster" => CLUSTER;
    core_pb::TypedExtensionConfig = "envoy.config.core.v3.TypedExtensionConfig";
    endpoint_pb::ClusterLoadAssignment = "envoy.config.endpoint.v3.ClusterLoadAssignment" => CLUSTER_LOAD_ASSIGNMENT;
    listener_pb::Listener = "envoy.config.listener.v3.Listener" => LISTENER;
    route_pb::Route = "envoy.config.route.v3.Route" => ROUTE;
    route_pb::FilterConfig = "envoy.config.route.v3.FilterConfig";
    route_pb::RouteConfiguration = "envoy.config.route.v3.RouteConfiguration" => ROUTE_CONFIGURATION;
    route_pb::ScopedRouteConfiguration = "envoy.config.route.v3.ScopedRouteConfiguration" => SCOPED_ROUTE_CONFIGURATION;
    route_pb::VirtualHost = "envoy.config.route.v3.VirtualHost" => VIRTUAL_HOST;
    api_key_auth_pb::ApiKeyAuth = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth";
    basic_auth_pb::BasicAuth = "envoy.extensions.filters.http.basic_auth.v3.BasicAuth";
    composite_pb::Composite = "envoy.extensions.filters.http.composite.v3.Composite" => COMPOSITE;
    composite_pb::CompositePerRoute =
        "envoy.extensions.filters.http.composite.v3.CompositePerRoute" => COMPOSITE_PER_ROUTE;
    composite_pb::ExecuteFilterAction =
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction" => EXECUTE_FILTER_ACTION;
    cors_pb::Cors = "envoy.extensions.filters.http.cors.v3.Cors";
    cors_pb::CorsPolicy = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    csrf_pb::CsrfPolicy = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy";
    ext_authz_pb::ExtAuthz = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" => EXT_AUTHZ;
    ext_authz_pb::ExtAuthzPerRoute =
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute" => EXT_AUTHZ_PER_ROUTE;
    fault_pb::HttpFault = "envoy.extensions.filters.http.fault.v3.HTTPFault" => HTTP_FAULT;
    header_mutation_pb::HeaderMutation =
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => HEADER_MUTATION;
    header_mutation_pb::HeaderMutationPerRoute =
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => HEADER_MUTATION_PER_ROUTE;
    tagging_pb::IpTagging = "envoy.extensions.filters.http.ip_tagging.v3.IPTagging";
    jwt_pb::JwtAuthentication = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => JWT_AUTHENTICATION;
    jwt_pb::PerRouteConfig = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
    local_rate_limit_pb::LocalRateLimit = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    lua_pb::Lua = "envoy.extensions.filters.http.lua.v3.Lua" => LUA;
    lua_pb::LuaPerRoute = "envoy.extensions.filters.http.lua.v3.LuaPerRoute" => LUA_PER_ROUTE;
    rate_limit_pb::RateLimit = "envoy.extensions.filters.http.ratelimit.v3.RateLimit" => RATE_LIMIT;
    rbac_pb::Rbac = "envoy.extensions.filters.http.rbac.v3.RBAC" => HTTP_RBAC;
    rbac_pb::RbacPerRoute = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => RBACPER_ROUTE;
    router_pb::Router = "envoy.extensions.filters.http.router.v3.Router" => ROUTER;
    set_filter_state_pb::Config = "envoy.extensions.filters.http.set_filter_state.v3.Config" => SET_FILTER_STATE_CONFIG;
    upstream_codec_pb::UpstreamCodec = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
    tls_inspector_pb::TlsInspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    closing_pb::Config = "envoy.extensions.filters.network.direct_response.v3.Config";
    hcm_pb::HttpConnectionManager =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => HTTP_CONNECTION_MANAGER;
    network_rbac_pb::Rbac = "envoy.extensions.filters.network.rbac.v3.RBAC" => NETWORK_RBAC_RBAC;
    tcp_pb::TcpProxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => TCP_PROXY;
    least_request_pb::LeastRequest = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
    network_inputs_pb::SourceIpInput = "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput";
    String = "google.protobuf.StringValue";
    mtls_authenticated_pb::Config = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
    previous_hosts_pb::PreviousHostsPredicate = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    previous_priorities_pb::PreviousPrioritiesConfig =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    raw_buffer_pb::RawBuffer = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    tls_pb::DownstreamTlsContext =
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => DOWNSTREAM_TLS_CONTEXT;
    tls_pb::Secret = "envoy.extensions.transport_sockets.tls.v3.Secret" => SECRET;
    tls_pb::UpstreamTlsContext = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => UPSTREAM_TLS_CONTEXT;
    upstream_http_pb::HttpProtocolOptions =
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" => HTTP_PROTOCOL_OPTIONS;
    rate_limits_pb::RateLimitConfig = "ratelimit.config.ratelimit.v3.RateLimitConfig" => RATE_LIMIT_CONFIG;
}
