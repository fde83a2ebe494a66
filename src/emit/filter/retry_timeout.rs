//! RetryTimeoutPolicy, and what holds without one: native fields of a forwarding route, no filter.
//!
//! # Rule
//! The policy reference in the manual: RetryTimeoutPolicy, and the baseline when no policy selects a route.

use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts_pb;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3 as previous_priorities_pb;

use crate::ir::policy::{Retries, RetryTimeout};

use super::super::route::RouteBuilder;
use super::super::{pb, wire};

/// Conditions of the implicit retries. 503 is left out: to replay any 503 is not safe unasked.
const BASELINE_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// The source platform's number of implicit retries.
const BASELINE_RETRIES: u32 = 2;
/// How often Envoy looks for a host that was not tried yet before it takes one that was.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
/// Move to further priorities with every second retry.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// Puts timeout and retries on the route; a destination cannot have its own.
pub(super) fn apply(policy: &RetryTimeout, route: &mut RouteBuilder<'_>) {
    if let Some(timeout) = policy.request_timeout {
        route.timeout = timeout;
    }
    if let Some(retries) = &policy.retries {
        // Without conditions nothing is retried, and the host's baseline is out.
        let none = || route_pb::RetryPolicy { num_retries: pb::uint32(0), ..Default::default() };
        route.retry = Some(if retries.attempts == 0 { none() } else { emit_retries(retries) });
    }
}

/// The retries of routes without a policy, for their virtual host.
pub(in super::super) fn baseline() -> route_pb::RetryPolicy {
    retry_policy(BASELINE_RETRY_ON.to_owned(), BASELINE_RETRIES)
}

/// The retries of what another cluster's gateway sends: of requests that no endpoint has seen.
pub(in super::super) fn relay() -> route_pb::RetryPolicy {
    retry_policy("connect-failure,refused-stream".to_owned(), BASELINE_RETRIES)
}

fn emit_retries(retries: &Retries) -> route_pb::RetryPolicy {
    let conditions: Vec<&str> = retries.retry_on.iter().map(crate::model::Name::as_str).collect();
    let mut policy = retry_policy(conditions.join(","), retries.attempts);
    policy.retriable_status_codes = retries.retriable_status_codes.iter().map(|code| u32::from(*code)).collect();
    policy.per_try_timeout = retries.per_try_timeout.map(pb::duration);
    policy.retry_priority = retries.retry_remote_localities.then(further_priorities);
    policy
}

/// Retries that prefer a host which was not tried yet.
fn retry_policy(retry_on: String, retries: u32) -> route_pb::RetryPolicy {
    use route_pb::retry_policy::{RetryHostPredicate, retry_host_predicate::ConfigType};
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(ConfigType::TypedConfig(wire::any(&previous_hosts_pb::PreviousHostsPredicate::default()))),
    };
    route_pb::RetryPolicy {
        retry_on,
        num_retries: pb::uint32(retries),
        retry_host_predicate: vec![previous_hosts],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    }
}

fn further_priorities() -> route_pb::retry_policy::RetryPriority {
    use route_pb::retry_policy::{RetryPriority, retry_priority::ConfigType};
    let config = previous_priorities_pb::PreviousPrioritiesConfig { update_frequency: PRIORITY_UPDATE_FREQUENCY };
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(ConfigType::TypedConfig(wire::any(&config))),
    }
}
