//! RouteTable: hosts and ordered routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{
    ClusterObjectRef, DestinationReference, HttpRequestMatcher, ObjectReference, ObjectSelector, RouteFilter,
    TcpRequestMatcher, TlsRequestMatcher, WorkloadSelector,
};
use super::policy::selector::DestinationSelector;

/// Hosts and ordered routes. A root table has hosts; a child table has none and is reached by delegation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTable {
    /// Names served, with an optional wildcard at the left of the first label; empty for child tables.
    pub hosts: Vec<String>,
    /// Gateways that serve the table; root tables only.
    pub virtual_gateways: Vec<ObjectReference>,
    /// Clients inside the mesh.
    pub workload_selectors: Vec<WorkloadSelector>,
    /// Routing on the producer's side; without meaning for gateways.
    pub apply_to_destinations: Vec<DestinationSelector>,
    /// Where `forwardTo` routes go that name no destination.
    pub default_destination: Option<DestinationReference>,
    /// HTTP routes in order.
    pub http: Vec<HttpRoute>,
    /// TCP routes.
    pub tcp: Vec<TcpRoute>,
    /// Routes of TLS connections that are passed through by server name.
    pub tls: Vec<TlsRoute>,
    /// Order among sibling child tables, higher first; 0 when left out.
    pub weight: i32,
    /// API product that the table belongs to.
    pub portal_metadata: Option<PortalMetadata>,
    /// What happens when a route is wrong; root tables only, for the whole tree.
    pub failure_mode: FailureMode,
    /// Annotations of a generated mesh object; without meaning for gateways.
    pub virtual_service_annotations: BTreeMap<String, String>,
}

/// What happens when a route of a tree is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureMode {
    /// That route answers 500, everything else is applied; the default.
    #[default]
    RouteReplacement,
    /// The whole tree keeps its last accepted state.
    FreezeConfig,
}

// Nearly all routes forward, so the other actions are boxed: a large mesh has a hundred thousand routes.
/// An HTTP route: matchers and one action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["forwardTo", "delegate", "redirect", "directResponse", "graphql"]]))]
pub struct HttpRoute {
    /// Name, unique in the table; generated when left out.
    pub name: String,
    /// Labels by which policies select the route.
    pub labels: BTreeMap<String, String>,
    /// Any of these must match; empty means every request.
    pub matchers: Vec<HttpRequestMatcher>,
    /// Forward to destinations.
    pub forward_to: Option<ForwardTo>,
    /// Hand over to child tables.
    pub delegate: Option<Box<DelegateAction>>,
    /// Redirect.
    pub redirect: Option<Box<RedirectAction>>,
    /// Answer from the gateway.
    pub direct_response: Option<Box<DirectResponse>>,
    /// Execute as GraphQL.
    pub graphql: Option<Box<GraphQlAction>>,
}

/// Forwards to destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["pathRewrite", "regexRewrite"], ["hostRewrite", "autoHostRewrite"]]))]
pub struct ForwardTo {
    /// The destinations, at most 100; empty means the table's `defaultDestination`.
    pub destinations: Vec<DestinationReference>,
    /// Replaces the matched prefix, or the whole path of an exact match; the query stays.
    pub path_rewrite: Option<String>,
    /// Rewrites the path by an expression; the query stays.
    pub regex_rewrite: Option<RegexRewrite>,
    /// New Host.
    pub host_rewrite: Option<String>,
    /// Host becomes the host name of the chosen upstream.
    pub auto_host_rewrite: Option<bool>,
}

/// A rewrite of the path by an expression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// What to replace; required.
    pub pattern: Option<RegexPattern>,
    /// The replacement, with `\1` and so on for groups.
    pub substitution: String,
}

/// An expression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexPattern {
    /// RE2 expression for the parts of the path to replace; required.
    pub regex: String,
    /// Option of older engines; without effect.
    pub google_re2: Option<GoogleRe2>,
}

/// Option of older expression engines; without effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GoogleRe2 {
    /// Largest size of the compiled expression.
    pub max_program_size: Option<u32>,
}

/// Hands over to child tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DelegateAction {
    /// The child tables; at least one item is required.
    pub route_tables: Vec<ObjectSelector>,
    /// Conditions on cloud functions.
    pub allowed_routes: Vec<RouteFilter>,
    /// Order of the children's routes.
    pub sort_method: SortMethod,
}

/// Order of delegated routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SortMethod {
    /// By the tables' weights, then as written; the default.
    #[default]
    TableWeight,
    /// Most specific path first.
    RouteSpecificity,
}

/// Redirects the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["pathRedirect"]]))]
pub struct RedirectAction {
    /// New host; empty means the request's.
    pub host_redirect: String,
    /// New whole path; left out means the request's. The query stays unless this has one.
    pub path_redirect: Option<String>,
    /// Status of the answer.
    pub response_code: RedirectResponseCode,
}

/// Status of a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectResponseCode {
    /// 301; the default.
    #[default]
    MovedPermanently,
    /// 302.
    Found,
    /// 303.
    SeeOther,
    /// 307.
    TemporaryRedirect,
    /// 308.
    PermanentRedirect,
}

/// Answers from the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DirectResponse {
    /// HTTP status, 200 to 599; required.
    pub status: u32,
    /// Body, at most 1 MiB; empty means none.
    pub body: String,
}

/// Executes a request as GraphQL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-oneof" = [["schema", "stitchedSchema"]]))]
pub struct GraphQlAction {
    /// The GraphQL schema.
    pub schema: Option<ClusterObjectRef>,
    /// The stitched GraphQL schema.
    pub stitched_schema: Option<ClusterObjectRef>,
    /// Options.
    pub options: Option<GraphQlOptions>,
}

/// Options of GraphQL execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GraphQlOptions {
    /// Log requests and responses at debug level; `false` when left out.
    pub log_sensitive_info: Option<bool>,
}

/// A TCP route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Any of these must match; empty means every connection.
    pub matchers: Vec<TcpRequestMatcher>,
    /// Where to forward; required. Rewrites are not possible.
    pub forward_to: Option<ForwardTo>,
}

/// A route of TLS connections that are passed through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Server names and ports; at least one is required.
    pub matchers: Vec<TlsRequestMatcher>,
    /// Where to forward; required.
    pub forward_to: Option<TlsForwardTo>,
}

/// Forwards a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsForwardTo {
    /// The destinations, 1 to 100.
    pub destinations: Vec<DestinationReference>,
}

/// The API product that a table belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortalMetadata {
    /// Groups several tables into one API product; required, without spaces.
    pub api_product_id: String,
    /// Name to show; empty means `apiProductId`.
    pub api_product_display_name: String,
    /// Version, unique within the product; required.
    pub api_version: String,
    /// OpenAPI title.
    pub title: String,
    /// OpenAPI description.
    pub description: String,
    /// OpenAPI terms of service, a URL.
    pub terms_of_service: String,
    /// OpenAPI contact, an e-mail address.
    pub contact: String,
    /// OpenAPI license, a name.
    pub license: String,
    /// Stage of the lifecycle.
    pub lifecycle: String,
    /// More data, shown in the portal and added to usage data.
    pub custom_metadata: BTreeMap<String, String>,
}
