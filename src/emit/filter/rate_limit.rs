//! RateLimitPolicy: the rate limit filter, as a route brings it into a holder of its lane.
//!
//! # Rule
//! The policy reference in the manual, RateLimitPolicy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::ratelimit::v3 as service_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as descriptor_pb;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as local_rate_limit_pb;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as rate_limit_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata_pb;
use envoy_types::pb::envoy::r#type::v3 as type_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::Policy;
use crate::ir::policy::TextPattern;
use crate::ir::policy::rate_limit::{
    Bucket, LimitAction, LimitHeader, LimitHeaderValue, LimitItem, LimitService, LimitStep, LimitUnit, MetadataPath,
    MetadataSource, StepCounter,
};
use crate::ir::upstream::UpstreamId;
use crate::model::Name;

use super::super::{name, pb, wire};

/// What services tell all that Chancery asks them from what others do.
pub(in super::super) const DOMAIN: &str = "chancery";

/// The namespace of metadata in which tokens' payloads are noted.
const TOKENS: &str = "envoy.filters.http.jwt_authn";

/// The names under which payloads are noted, by what the authors of policies beside a limit call their providers.
pub(super) type Payloads<'a> = BTreeMap<&'a Name, Name>;

/// The payloads of the verifications beside a limit; of two providers with one name the first's, the route's.
pub(super) fn payloads<'a>(beside: impl Iterator<Item = &'a Policy>) -> Payloads<'a> {
    let mut payloads = Payloads::new();
    for policy in beside {
        let Policy::Jwt(verification) = policy else { continue };
        for (index, provider) in verification.jwt.providers.keys().enumerate() {
            payloads.entry(provider).or_insert_with(|| verification.provider(index));
        }
    }
    payloads
}

/// The filter of one step. Of an entry that counts each value by itself the gateway counts so many apart.
pub(super) fn emit(step: &LimitStep<'_>, payloads: &Payloads<'_>, values: u32) -> Any {
    match &step.counter {
        StepCounter::Service(service) => emit_asking(service, step, payloads),
        StepCounter::Gateways(buckets) => emit_counting(buckets, step, payloads, values),
    }
}

/// Counts by itself. Buckets begin full and fill evenly.
fn emit_counting(buckets: &BTreeSet<&Bucket>, step: &LimitStep<'_>, payloads: &Payloads<'_>, values: u32) -> Any {
    let always = || core_pb::RuntimeFractionalPercent {
        default_value: Some(type_pb::FractionalPercent { numerator: 100, ..Default::default() }),
        ..Default::default()
    };
    wire::any(&local_rate_limit_pb::LocalRateLimit {
        stat_prefix: DOMAIN.to_owned(),
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        descriptors: buckets.iter().map(|bucket| emit_bucket(bucket)).collect(),
        max_dynamic_descriptors: pb::uint32(values),
        rate_limits: step.items.iter().map(|item| emit_item(item, payloads)).collect(),
        ..Default::default()
    })
}

fn emit_bucket(bucket: &Bucket) -> descriptor_pb::LocalRateLimitDescriptor {
    use descriptor_pb::rate_limit_descriptor::Entry;
    let entry = |(key, value): &(Name, Option<Name>)| Entry {
        key: key.to_string(),
        value: value.as_ref().map(Name::to_string).unwrap_or_default(),
    };
    let (tokens, interval) = match bucket.limit {
        Some(limit) => (limit.requests, window(limit.unit)),
        None => (u32::MAX, window(LimitUnit::Second)),
    };
    let bucket_of_tokens = type_pb::TokenBucket {
        max_tokens: tokens,
        tokens_per_fill: pb::uint32(tokens),
        fill_interval: Some(pb::duration(interval)),
    };
    descriptor_pb::LocalRateLimitDescriptor {
        entries: bucket.entries.iter().map(entry).collect(),
        token_bucket: Some(bucket_of_tokens),
        ..Default::default()
    }
}

fn window(unit: LimitUnit) -> Duration {
    Duration::from_secs(match unit {
        LimitUnit::Second => 1,
        LimitUnit::Minute => 60,
        LimitUnit::Hour => 60 * 60,
        LimitUnit::Day => 24 * 60 * 60,
    })
}

fn emit_asking(service: &LimitService, step: &LimitStep<'_>, payloads: &Payloads<'_>) -> Any {
    let LimitService { server, timeout, deny_on_fail } = service;
    wire::any(&rate_limit_pb::RateLimit {
        domain: DOMAIN.to_owned(),
        request_type: "both".to_owned(),
        timeout: Some(pb::duration(*timeout)),
        failure_mode_deny: *deny_on_fail,
        rate_limit_service: Some(service_pb::RateLimitServiceConfig {
            grpc_service: Some(emit_service(server)),
            transport_api_version: core_pb::ApiVersion::V3.into(),
        }),
        rate_limits: step.items.iter().map(|item| emit_item(item, payloads)).collect(),
        ..Default::default()
    })
}

/// The service. Without an authority Envoy states the name of the cluster, which is none.
fn emit_service(server: &UpstreamId) -> core_pb::GrpcService {
    use core_pb::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let target = EnvoyGrpc {
        cluster_name: name::cluster(server).to_string(),
        authority: format!("{}.{}", server.object.name, server.object.namespace),
        ..Default::default()
    };
    core_pb::GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..Default::default() }
}

fn emit_item(item: &LimitItem, payloads: &Payloads<'_>) -> route_pb::RateLimit {
    use route_pb::rate_limit::Override;
    use route_pb::rate_limit::r#override::{DynamicMetadata, OverrideSpecifier};
    let limit = item.limit.as_ref().map(|path| {
        let metadata = DynamicMetadata { metadata_key: Some(emit_path(path, payloads)) };
        Override { override_specifier: Some(OverrideSpecifier::DynamicMetadata(metadata)) }
    });
    let actions = item.actions.iter().map(|action| emit_action(action, payloads));
    route_pb::RateLimit { actions: actions.collect(), limit, ..Default::default() }
}

fn emit_action(action: &LimitAction, payloads: &Payloads<'_>) -> route_pb::rate_limit::Action {
    use route_pb::rate_limit::action as action_pb;
    use route_pb::rate_limit::action::ActionSpecifier;
    let specifier = match action {
        LimitAction::SourceCluster => ActionSpecifier::SourceCluster(action_pb::SourceCluster {}),
        LimitAction::DestinationCluster => ActionSpecifier::DestinationCluster(action_pb::DestinationCluster {}),
        LimitAction::RemoteAddress => ActionSpecifier::RemoteAddress(action_pb::RemoteAddress {}),
        LimitAction::RequestHeader { header, key } => ActionSpecifier::RequestHeaders(action_pb::RequestHeaders {
            header_name: header.to_string(),
            descriptor_key: key.to_string(),
            skip_if_absent: false,
        }),
        LimitAction::Generic { key, value } => ActionSpecifier::GenericKey(action_pb::GenericKey {
            descriptor_value: value.to_string(),
            descriptor_key: key.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..Default::default()
        }),
        LimitAction::HeaderMatch { value, expect, headers } => {
            ActionSpecifier::HeaderValueMatch(action_pb::HeaderValueMatch {
                descriptor_value: value.to_string(),
                expect_match: pb::boolean(*expect),
                headers: headers.iter().map(emit_header).collect(),
                ..Default::default()
            })
        }
        LimitAction::Metadata { key, path, default, source } => {
            use action_pb::meta_data::Source;
            let source = match source {
                MetadataSource::Dynamic => Source::Dynamic,
                MetadataSource::Route => Source::RouteEntry,
            };
            ActionSpecifier::Metadata(action_pb::MetaData {
                descriptor_key: key.to_string(),
                metadata_key: Some(emit_path(path, payloads)),
                default_value: default.as_ref().map(ToString::to_string).unwrap_or_default(),
                source: source.into(),
                skip_if_absent: false,
            })
        }
    };
    route_pb::rate_limit::Action { action_specifier: Some(specifier) }
}

/// A provider is called there as its author calls it, and in Envoy by a name that no other has.
fn emit_path(path: &MetadataPath, payloads: &Payloads<'_>) -> metadata_pb::MetadataKey {
    use metadata_pb::metadata_key::PathSegment;
    use metadata_pb::metadata_key::path_segment::Segment;
    let segment = |step: &Name| PathSegment { segment: Some(Segment::Key(step.to_string())) };
    let mut steps = path.steps.clone();
    if let (TOKENS, Some(first)) = (path.filter.as_str(), steps.first_mut())
        && let Some(payload) = payloads.get(first)
    {
        *first = payload.clone();
    }
    metadata_pb::MetadataKey { key: path.filter.to_string(), path: steps.iter().map(segment).collect() }
}

/// An absent header satisfies an inverted condition: it counts as an empty one, which satisfies none that is not inverted.
fn emit_header(header: &LimitHeader) -> route_pb::HeaderMatcher {
    use matcher_pb::string_matcher::MatchPattern;
    use route_pb::header_matcher::HeaderMatchSpecifier;
    let string = |pattern| HeaderMatchSpecifier::StringMatch(pb::string_matcher(pattern, false));
    let specifier = match &header.value {
        LimitHeaderValue::Present(is_present) => HeaderMatchSpecifier::PresentMatch(*is_present),
        LimitHeaderValue::Text(TextPattern::Any) => HeaderMatchSpecifier::PresentMatch(true),
        LimitHeaderValue::Text(TextPattern::Exact(text)) => string(MatchPattern::Exact(text.to_string())),
        LimitHeaderValue::Text(TextPattern::Prefix(text)) => string(MatchPattern::Prefix(text.to_string())),
        LimitHeaderValue::Text(TextPattern::Suffix(text)) => string(MatchPattern::Suffix(text.to_string())),
        LimitHeaderValue::Text(TextPattern::Regex(text)) => string(MatchPattern::SafeRegex(pb::regex(text))),
        LimitHeaderValue::Range(start, end) => {
            HeaderMatchSpecifier::RangeMatch(type_pb::Int64Range { start: *start, end: *end })
        }
    };
    route_pb::HeaderMatcher {
        name: header.name.to_string(),
        invert_match: header.invert,
        treat_missing_header_as_empty: header.invert && !matches!(header.value, LimitHeaderValue::Present(_)),
        header_match_specifier: Some(specifier),
    }
}
