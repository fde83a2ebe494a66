//! Principals of requests: `issuer/subject` of the tokens that were verified before authorization, for who may call what.
//!
//! A token of each of several providers may have been verified, so each provider of a route has a key of its own in the
//! request's state; joined in one text they could hide each other. The keys are numbered by level and position and thereby
//! the same for all policies, so that rules in listeners and clusters need not know which of them a request has met.
//!
//! # Rule
//! The policy reference in the manual, "AccessPolicy".

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as state_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::extension::Level;
use crate::ir::policy::Phase;
use crate::ir::policy::jwt::Verification;

use super::super::wire;
use super::jwt::METADATA;

/// Writes down who sent a request.
pub(super) const SLOT: &str = "chancery.principal";

/// How many providers of one JWTPolicy have a principal, in the order of their names.
pub(in crate::emit) const MOST: usize = 4;

/// What stands for issuer and subject where no token of a provider was verified.
pub(in crate::emit) const NO_TOKEN: &str = "-/-";

/// Keys in the request's state that may hold a principal.
pub(in crate::emit) fn keys() -> impl Iterator<Item = String> {
    [Level::Route, Level::Destination].into_iter().flat_map(|level| (0..MOST).map(move |index| key(level, index)))
}

/// There where a token may have been verified that has no principal, or one is verified later. Nobody can be told there from
/// those who must not call.
pub(in crate::emit) const MORE: &str = "chancery.principal.more";

fn key(level: Level, index: usize) -> String {
    let level = match level {
        Level::Route => "route",
        Level::Destination => "destination",
    };
    format!("{SLOT}.{level}.{index}")
}

/// What a route or a destination with a verification writes down. After authorization it is too late for a principal.
pub(super) fn emit(verification: &Verification, level: Level) -> Any {
    let count = verification.jwt.providers.len();
    let known = if verification.jwt.place.phase == Phase::PreAuthz { count.min(MOST) } else { 0 };
    let mut values: Vec<state_pb::FilterStateValue> = (0..known)
        .map(|index| {
            let claim = |name| format!("%DYNAMIC_METADATA({METADATA}:{}:{name})%", verification.provider(index));
            value(key(level, index), format!("{}/{}", claim("iss"), claim("sub")))
        })
        .collect();
    if count > known {
        values.push(value(MORE.to_owned(), "yes".to_owned()));
    }
    wire::any(&set_filter_state_pb::Config { on_request_headers: values, ..Default::default() })
}

/// A value of a request's state; it has none where what is to be there is absent.
pub(in crate::emit) fn value_if_any(key: String, format: String) -> state_pb::FilterStateValue {
    let mut value = value(key, format);
    if let Some(state_pb::filter_state_value::Value::FormatString(format)) = &mut value.value {
        format.omit_empty_values = true;
    }
    value.skip_if_empty = true;
    value
}

fn value(key: String, format: String) -> state_pb::FilterStateValue {
    use core_pb::substitution_format_string::Format;
    let format = core_pb::SubstitutionFormatString {
        format: Some(Format::TextFormatSource(core_pb::DataSource {
            specifier: Some(core_pb::data_source::Specifier::InlineString(format)),
            ..Default::default()
        })),
        ..Default::default()
    };
    state_pb::FilterStateValue {
        factory_key: "envoy.string".to_owned(),
        key: Some(state_pb::filter_state_value::Key::ObjectKey(key)),
        value: Some(state_pb::filter_state_value::Value::FormatString(format)),
        ..Default::default()
    }
}
