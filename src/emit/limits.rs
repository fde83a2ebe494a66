//! What a rate-limit service is told to allow, in its own form.
//!
//! # Rule
//! `ratelimit.config.ratelimit.v3`, as `envoyproxy/ratelimit` reads it: one resource for a domain, taken whole or not at
//! all.

use envoy_types::pb::ratelimit::config::ratelimit::v3 as limits_pb;

use crate::ir::policy::rate_limit::{LimitNode, LimitPlan, LimitUnit, NamedLimit};
use crate::snapshot::{Resource, ResourceType, Snapshot};

use super::filter::DOMAIN;
use super::{pb, wire};

/// The snapshot of a rate-limit service: one resource, or none where nothing is limited.
///
/// # Cost
/// In proportion to the rules.
#[must_use]
pub fn emit_limits(plan: &LimitPlan) -> Snapshot {
    let message = limits_pb::RateLimitConfig {
        name: DOMAIN.to_owned(),
        domain: DOMAIN.to_owned(),
        descriptors: plan.configurations.iter().map(|configuration| emit_node(&configuration.node)).collect(),
    };
    let owners = pb::owners(plan.configurations.iter().map(|configuration| &configuration.id));
    let resource = Resource::from_content(DOMAIN.into(), wire::encode(&message), owners);
    Snapshot::new().with(ResourceType::RateLimit, (!plan.configurations.is_empty()).then_some(resource))
}

fn emit_node(node: &LimitNode) -> limits_pb::RateLimitDescriptor {
    limits_pb::RateLimitDescriptor {
        key: node.key.to_string(),
        value: node.value.as_ref().map(ToString::to_string).unwrap_or_default(),
        rate_limit: node.limit.as_ref().map(emit_limit),
        descriptors: node.nodes.iter().map(emit_node).collect(),
        ..Default::default()
    }
}

fn emit_limit(named: &NamedLimit) -> limits_pb::RateLimitPolicy {
    let unit = match named.limit.unit {
        LimitUnit::Second => limits_pb::RateLimitUnit::Second,
        LimitUnit::Minute => limits_pb::RateLimitUnit::Minute,
        LimitUnit::Hour => limits_pb::RateLimitUnit::Hour,
        LimitUnit::Day => limits_pb::RateLimitUnit::Day,
    };
    limits_pb::RateLimitPolicy {
        unit: unit.into(),
        requests_per_unit: named.limit.requests,
        name: named.name.to_string(),
        replaces: named.replaces.iter().map(|name| limits_pb::RateLimitReplace { name: name.to_string() }).collect(),
        ..Default::default()
    }
}
