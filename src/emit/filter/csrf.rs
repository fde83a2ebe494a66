//! CSRFPolicy: the CSRF filter, in slot `chancery.csrf`.
//!
//! # Rule
//! The policy reference in the manual, CSRFPolicy.

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::http::csrf::v3 as csrf_pb;

use crate::ir::policy::csrf::Csrf;

use super::super::route::RouteBuilder;
use super::super::{pb, wire};

/// Puts the judgement on the route; one that neither refuses nor counts leaves the route as it is.
///
/// The shadow is all or nothing: between the two, Envoy draws twice and refuses requests of which the draws differ (seen
/// on 1.40).
pub(super) fn apply(policy: &Csrf, route: &mut RouteBuilder<'_>) {
    if policy.enforced_per_million == 0 && !policy.shadow {
        return;
    }
    let csrf = csrf_pb::CsrfPolicy {
        filter_enabled: Some(share(policy.enforced_per_million)),
        shadow_enabled: policy.shadow.then(|| share(1_000_000)),
        additional_origins: policy.additional_origins.iter().map(super::cors::emit_origin).collect(),
    };
    route.scope().slots.insert(super::CSRF, wire::any(&csrf));
}

/// A share of requests, which no runtime setting of a gateway changes.
pub(super) fn share(per_million: u32) -> core_pb::RuntimeFractionalPercent {
    core_pb::RuntimeFractionalPercent { default_value: Some(pb::per_million(per_million)), ..Default::default() }
}
