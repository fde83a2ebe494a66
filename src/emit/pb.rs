//! Small protobuf values that every message needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::envoy::r#type::v3 as type_pb;
use envoy_types::pb::google::protobuf as google_pb;

use crate::model::ObjectRef;

pub(super) fn boolean(value: bool) -> Option<google_pb::BoolValue> {
    Some(google_pb::BoolValue { value })
}

pub(super) fn uint32(value: u32) -> Option<google_pb::UInt32Value> {
    Some(google_pb::UInt32Value { value })
}

/// A duration; what does not fit is the longest that Envoy takes for sure.
pub(super) fn duration(value: Duration) -> google_pb::Duration {
    const LONGEST_SECONDS: i64 = 9_000_000_000;
    let seconds = i64::try_from(value.as_secs()).unwrap_or(LONGEST_SECONDS).min(LONGEST_SECONDS);
    // Below one billion, so it fits.
    let nanos = i32::try_from(value.subsec_nanos()).unwrap_or_default();
    google_pb::Duration { seconds, nanos }
}

/// A share in parts per million.
pub(super) fn per_million(numerator: u32) -> type_pb::FractionalPercent {
    let denominator = type_pb::fractional_percent::DenominatorType::Million.into();
    type_pb::FractionalPercent { numerator, denominator }
}

/// RE2 with Envoy's default engine.
pub(super) fn regex(expression: &str) -> matcher_pb::RegexMatcher {
    matcher_pb::RegexMatcher { regex: expression.to_owned(), engine_type: None }
}

/// A condition on a text.
pub(super) fn string_matcher(
    pattern: matcher_pb::string_matcher::MatchPattern,
    ignore_case: bool,
) -> matcher_pb::StringMatcher {
    matcher_pb::StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

/// The stream that the resource itself came on.
pub(super) fn over_ads() -> core_pb::ConfigSource {
    core_pb::ConfigSource {
        resource_api_version: core_pb::ApiVersion::V3.into(),
        config_source_specifier: Some(core_pb::config_source::ConfigSourceSpecifier::Ads(
            core_pb::AggregatedConfigSource::default(),
        )),
        ..Default::default()
    }
}

/// An IP address and a TCP port.
pub(super) fn socket_address(address: String, port: u16) -> core_pb::Address {
    let port_specifier = Some(core_pb::socket_address::PortSpecifier::PortValue(u32::from(port)));
    let socket = core_pb::SocketAddress { address, port_specifier, ..Default::default() };
    core_pb::Address { address: Some(core_pb::address::Address::SocketAddress(socket)) }
}

/// A Unix socket.
pub(super) fn pipe(path: String) -> core_pb::Address {
    core_pb::Address { address: Some(core_pb::address::Address::Pipe(core_pb::Pipe { path, ..Default::default() })) }
}

/// `filter_metadata["chancery"]`: which objects something was made from, for whoever reads a dump of Envoy.
///
/// Names only: a generation number would turn every edit without effect into a push.
pub(super) fn provenance(key: &str, objects: &[ObjectRef]) -> Option<core_pb::Metadata> {
    let names = objects
        .iter()
        .map(|object| google_pb::Value { kind: Some(google_pb::value::Kind::StringValue(object.to_string())) })
        .collect();
    let list = google_pb::value::Kind::ListValue(google_pb::ListValue { values: names });
    let fields = [(key.to_owned(), google_pb::Value { kind: Some(list) })].into();
    let filter_metadata = [("chancery".to_owned(), google_pb::Struct { fields })].into();
    Some(core_pb::Metadata { filter_metadata, ..Default::default() })
}

/// What endpoints in another cluster, or of an external service, carry, and the transport socket towards them asks for.
/// `is_passed` says that TLS is passed through to the Pods of the other cluster.
pub(super) fn leading_to(via: &str, is_passed: bool) -> google_pb::Struct {
    let value = google_pb::Value { kind: Some(google_pb::value::Kind::StringValue(via.to_owned())) };
    // No cluster has a slash in its name.
    let what = match via.contains('/') {
        true => "external",
        false if is_passed => "pods",
        false => "cluster",
    };
    google_pb::Struct { fields: [(what.to_owned(), value)].into() }
}

/// Owners of a resource, each once, in order.
pub(super) fn owners<'a>(objects: impl IntoIterator<Item = &'a ObjectRef>) -> Arc<[ObjectRef]> {
    objects.into_iter().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}
