//! CORSPolicy: the CORS filter, in slot `chancery.cors`.
//!
//! # Rule
//! The policy reference in the manual, CORSPolicy. A preflight is an OPTIONS request and must match a route, so a
//! matcher with another method gets a twin for it ([`RouteBuilder::answer_preflights`]).

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;

use crate::ir::policy::{Cors, OriginMatch, OriginPattern};
use crate::model::Name;

use super::super::route::RouteBuilder;
use super::super::{pb, wire};

/// Puts the rules on the route.
///
/// Preflights from a foreign origin go on to the upstream (`forward_not_matching_preflights` keeps its default).
pub(super) fn apply(policy: &Cors, route: &mut RouteBuilder<'_>) {
    let cors = cors_pb::CorsPolicy {
        allow_origin_string_match: policy.allow_origins.iter().map(emit_origin).collect(),
        allow_methods: joined(&policy.allow_methods),
        allow_headers: joined(&policy.allow_headers),
        expose_headers: joined(&policy.expose_headers),
        max_age: policy.max_age_seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.and_then(pb::boolean),
        ..Default::default()
    };
    route.scope().slots.insert(super::CORS, wire::any(&cors));
    route.answer_preflights();
}

fn joined(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

pub(super) fn emit_origin(origin: &OriginMatch) -> matcher_pb::StringMatcher {
    use matcher_pb::string_matcher::MatchPattern;
    match &origin.pattern {
        OriginPattern::Exact(text) => pb::string_matcher(MatchPattern::Exact(text.to_string()), origin.ignore_case),
        OriginPattern::Prefix(text) => pb::string_matcher(MatchPattern::Prefix(text.to_string()), origin.ignore_case),
        OriginPattern::Suffix(text) => pb::string_matcher(MatchPattern::Suffix(text.to_string()), origin.ignore_case),
        OriginPattern::Regex(expression) => pb::string_matcher(MatchPattern::SafeRegex(pb::regex(expression)), false),
    }
}
