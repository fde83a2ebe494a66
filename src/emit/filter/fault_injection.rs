//! FaultInjectionPolicy: the fault filter, in slot `chancery.fault`.
//!
//! # Rule
//! The policy reference in the manual, FaultInjectionPolicy. Clients cannot ask for faults by header.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault_pb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_pb;

use crate::ir::policy::{FaultAbort, FaultDelay, FaultInjection};

use super::super::route::RouteBuilder;
use super::super::{pb, wire};

/// Puts the faults on the route.
pub(super) fn apply(policy: &FaultInjection, route: &mut RouteBuilder<'_>) {
    let fault = fault_pb::HttpFault {
        delay: policy.delay.as_ref().map(emit_delay),
        abort: policy.abort.as_ref().map(emit_abort),
        // Otherwise one set of statistics for each client that names itself in a header.
        disable_downstream_cluster_stats: true,
        ..Default::default()
    };
    route.scope().slots.insert(super::FAULT, wire::any(&fault));
}

fn emit_delay(delay: &FaultDelay) -> common_fault_pb::FaultDelay {
    use common_fault_pb::fault_delay::FaultDelaySecifier;
    common_fault_pb::FaultDelay {
        percentage: Some(pb::per_million(delay.per_million)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(pb::duration(delay.fixed_delay))),
    }
}

fn emit_abort(abort: &FaultAbort) -> fault_pb::FaultAbort {
    use fault_pb::fault_abort::ErrorType;
    fault_pb::FaultAbort {
        percentage: Some(pb::per_million(abort.per_million)),
        error_type: Some(ErrorType::HttpStatus(u32::from(abort.http_status))),
        ..Default::default()
    }
}
