//! HeaderManipulationPolicy: native header lists of routes and destinations, no filter.
//!
//! Envoy handles these inside the router: on a request after every filter, on a response first. At each level it
//! removes before it adds, and a destination's lists go before its route's.
//!
//! # Rule
//! The policy reference in the manual, HeaderManipulationPolicy: remove then add, sorted by name; `Host` becomes a
//! rewritten host.

use crate::ir::policy::HeaderManipulation;

use super::super::route::RouteBuilder;

/// Puts the lists on the route, or on the destination that the builder is at.
pub(super) fn apply(policy: &HeaderManipulation, route: &mut RouteBuilder<'_>) {
    let scope = route.scope();
    scope.request.remove.extend(policy.remove_request.iter().cloned());
    scope.request.add.extend(policy.append_request.iter().map(|(name, value)| (name.clone(), value.clone())));
    scope.response.remove.extend(policy.remove_response.iter().cloned());
    scope.response.add.extend(policy.append_response.iter().map(|(name, value)| (name.clone(), value.clone())));
    if let Some(host) = &policy.host {
        scope.host = Some(host.clone());
    }
}
