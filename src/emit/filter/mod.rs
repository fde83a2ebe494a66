//! Policies on routes: the HTTP filters of the chain, and one file per policy kind.
//!
//! A listener's chain is fixed: every filter that a policy may need stands in it from the start, enabled and doing
//! nothing, and a route that has the policy brings the configuration for its slot. Order comes from the ranks of
//! [`SLOTS`], never from what is attached. Envoy ignores configuration for a slot that the chain does not have, without
//! a word: only names of this table are ever written, and `snapshot::verify` checks it from the bytes.
//!
//! To add a policy kind: a variant of [`Policy`], a file here with one function `apply`, a line in `apply`, and, if
//! it is a filter and not a native field of routes, the neutral form of its slot. The neutral form costs one update of
//! all listeners, once.
//!
//! # Rule
//! The policy reference in the manual, "HTTP filter order" (order) and "Activation and re-routing" (why filters are
//! neutral and enabled rather than disabled).

mod cors;
mod fault_injection;
mod header_manipulation;
mod retry_timeout;
#[cfg(test)]
mod teapot;

pub(super) use retry_timeout::baseline as baseline_retries;

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_pb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_pb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::Policy;

use super::route::RouteBuilder;
use super::wire;

/// A place in the chain of HTTP filters.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Position; gaps are room for parts of a lane.
    pub rank: u16,
    /// Instance name: the key of `typed_per_filter_config`.
    pub name: &'static str,
    /// The form without a policy. A slot without one is reserved: its rank is decided, but it is in no chain yet.
    neutral: Option<fn() -> Any>,
}

/// Injected faults.
pub(super) const FAULT: &str = "chancery.fault";
/// Cross-origin rules.
pub(super) const CORS: &str = "chancery.cors";
const ROUTER: &str = "envoy.filters.http.router";

/// Every slot, in the order in which a request passes them; responses pass in reverse.
///
/// Reserved rows keep the order decided for kinds that are still to come; a lane's `pre` and `post` rows stand for its
/// ranks 0 to 5.
pub const SLOTS: &[Slot] = &[
    Slot { rank: 100, name: FAULT, neutral: Some(|| wire::any(&fault_pb::HttpFault::default())) },
    Slot { rank: 200, name: CORS, neutral: Some(|| wire::any(&cors_pb::Cors::default())) },
    reserved(300, "chancery.dlp"),
    reserved(400, "chancery.waf"),
    reserved(500, "chancery.pre"),
    reserved(530, "chancery.jwt.pre.0"),
    reserved(531, "chancery.jwt-claims.pre.0"),
    reserved(600, "chancery.principal"),
    reserved(700, "chancery.access"),
    reserved(800, "chancery.auth.oauth2"),
    reserved(810, "chancery.auth.jwt"),
    reserved(820, "chancery.auth.local"),
    reserved(900, "chancery.extauth.0"),
    reserved(1000, "chancery.auth.or"),
    reserved(1100, "chancery.post"),
    reserved(1130, "chancery.jwt.post.0"),
    reserved(1131, "chancery.jwt-claims.post.0"),
    reserved(1200, "chancery.buffer"),
    reserved(1300, "chancery.csrf"),
    reserved(1400, "chancery.wasm"),
    Slot { rank: 1500, name: ROUTER, neutral: Some(|| wire::any(&router_pb::Router::default())) },
];

const fn reserved(rank: u16, name: &'static str) -> Slot {
    Slot { rank, name, neutral: None }
}

/// The chain of every HTTP listener.
pub(super) fn chain() -> Vec<hcm_pb::HttpFilter> {
    SLOTS.iter().filter_map(|slot| Some(http_filter(slot.name, slot.neutral?()))).collect()
}

/// An HTTP filter with its configuration in place.
pub(super) fn http_filter(name: &str, config: Any) -> hcm_pb::HttpFilter {
    hcm_pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm_pb::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// Puts the effect of one policy on a route, or on the destination of it that the builder is at.
///
/// Envoy evaluates native header lists of destination and route both, but takes a slot's configuration of a destination
/// *in place of* the route's. A kind that has a slot and can be limited to destinations must therefore put the union of
/// both on the destination.
pub(super) fn apply(policy: &Policy, route: &mut RouteBuilder<'_>) {
    match policy {
        Policy::HeaderManipulation(policy) => header_manipulation::apply(policy, route),
        Policy::RetryTimeout(policy) => retry_timeout::apply(policy, route),
        Policy::FaultInjection(policy) => fault_injection::apply(policy, route),
        Policy::Cors(policy) => cors::apply(policy, route),
        #[cfg(test)]
        Policy::Teapot(policy) => teapot::apply(policy, route),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_rise_names_differ_and_the_router_ends_the_chain() {
        assert!(SLOTS.windows(2).all(|pair| pair[0].rank < pair[1].rank));
        let mut names: Vec<&str> = SLOTS.iter().map(|slot| slot.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SLOTS.len());
        let chain: Vec<String> = chain().into_iter().map(|filter| filter.name).collect();
        assert_eq!(chain, [FAULT, CORS, ROUTER]);
    }
}
