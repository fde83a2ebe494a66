//! Matchers: what a request must look like, in Envoy's form.
//!
//! # Rule
//! R73 and the reference of the core API, "Matchers"; inverted header matches as the policy reference in the manual
//! says.

use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;

use crate::ir::Matcher;
use crate::ir::entries::takes_empty;
use crate::ir::route::{HeaderMatch, QueryMatch, ValueMatch};
use crate::model::PathMatch;

use super::super::pb;

/// One of the [`alternatives`](crate::ir::entries::alternatives) of a matcher.
pub(super) fn emit_matcher(matcher: &Matcher) -> route_pb::RouteMatch {
    let (case_sensitive, path) = match &matcher.path {
        PathMatch::Any => (None, route_pb::route_match::PathSpecifier::Prefix("/".to_owned())),
        // On segment borders it would not take `/foobar` for `/foo` (R73), so it is never `path_separated_prefix`.
        PathMatch::Prefix(path) => {
            let path = if path.is_empty() { "/" } else { path };
            (case(matcher), route_pb::route_match::PathSpecifier::Prefix(path.to_owned()))
        }
        PathMatch::Exact(path) => (case(matcher), route_pb::route_match::PathSpecifier::Path(path.to_string())),
        PathMatch::Regex(expression) => (None, route_pb::route_match::PathSpecifier::SafeRegex(pb::regex(expression))),
    };
    let method = matcher.method.as_ref().map(|method| exact_header(":method", method));
    route_pb::RouteMatch {
        case_sensitive,
        headers: method.into_iter().chain(matcher.headers.iter().map(emit_header)).collect(),
        query_parameters: matcher.query_parameters.iter().map(emit_query).collect(),
        path_specifier: Some(path),
        ..Default::default()
    }
}

fn case(matcher: &Matcher) -> Option<envoy_types::pb::google::protobuf::BoolValue> {
    if matcher.ignore_case { pb::boolean(false) } else { None }
}

/// A header that equals a text.
pub(super) fn exact_header(name: &str, value: &str) -> route_pb::HeaderMatcher {
    let pattern = matcher_pb::string_matcher::MatchPattern::Exact(value.to_owned());
    route_pb::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(route_pb::header_matcher::HeaderMatchSpecifier::StringMatch(pb::string_matcher(
            pattern, false,
        ))),
        ..Default::default()
    }
}

/// One condition. Inverted, Envoy alone would not take a request without the header, so the absent header counts as an
/// empty value, which satisfies the negation; unless the empty text is what is negated.
fn emit_header(header: &HeaderMatch) -> route_pb::HeaderMatcher {
    use route_pb::header_matcher::HeaderMatchSpecifier;
    let specifier = match string_matcher(&header.value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    route_pb::HeaderMatcher {
        name: header.name.to_string(),
        invert_match: header.invert,
        treat_missing_header_as_empty: header.invert
            && header.value != ValueMatch::Present
            && !takes_empty(&header.value),
        header_match_specifier: Some(specifier),
    }
}

fn emit_query(query: &QueryMatch) -> route_pb::QueryParameterMatcher {
    use route_pb::query_parameter_matcher::QueryParameterMatchSpecifier;
    let specifier = match string_matcher(&query.value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    route_pb::QueryParameterMatcher { name: query.name.to_string(), query_parameter_match_specifier: Some(specifier) }
}

fn string_matcher(value: &ValueMatch) -> Option<matcher_pb::StringMatcher> {
    use matcher_pb::string_matcher::MatchPattern;
    match value {
        ValueMatch::Present => None,
        ValueMatch::Exact(text) => Some(pb::string_matcher(MatchPattern::Exact(text.to_string()), false)),
        ValueMatch::Prefix(text) => Some(pb::string_matcher(MatchPattern::Prefix(text.to_string()), false)),
        ValueMatch::Regex(expression) => {
            Some(pb::string_matcher(MatchPattern::SafeRegex(pb::regex(expression)), false))
        }
    }
}
