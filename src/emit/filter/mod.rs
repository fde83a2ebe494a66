//! Policies on routes: the HTTP filters of the chain, and one file per policy kind.
//!
//! A listener's chain is fixed: every filter that a policy may need stands in it from the start, enabled and doing
//! nothing (`by_default` says which are off), and a route that has the policy brings the configuration for its slot.
//! Order comes from the ranks of
//! [`SLOTS`], never from what is attached. Envoy ignores configuration for a slot that the chain does not have, without
//! a word: only names of this table are ever written, and `snapshot::verify` checks it from the bytes.
//!
//! To add a policy kind: a variant of [`Policy`], a file here with one function `apply`, a line in `apply`, and, if
//! it is a filter and not a native field of routes, the neutral form of its slot. The neutral form costs one update of
//! all listeners, once. What only newer releases of Envoy can do has a row in [`NEWER`].
//!
//! # Rule
//! The policy reference in the manual, "Filter slots" (order, and why filters are
//! neutral and enabled rather than disabled).

mod cors;
mod csrf;
mod ext_auth;
mod fault_injection;
mod header_manipulation;
mod jwt;
pub(super) mod lanes;
pub(super) mod principal;
mod rate_limit;
mod release;
mod retry_timeout;
#[cfg(test)]
mod teapot;

pub(super) use rate_limit::DOMAIN;
pub use release::{Beyond, NEWER, Newer, needs};
pub(super) use release::{as_served, beyond, beyond_at, is_beyond};
pub(super) use retry_timeout::{baseline as baseline_retries, relay as relay_retries};

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3 as composite_pb;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_pb;
use envoy_types::pb::envoy::extensions::filters::http::csrf::v3 as csrf_pb;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as ext_authz_pb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_pb;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation_pb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::extension::CHECK_SLOTS;
use crate::ir::{Extensions, Guard, Policy};
use crate::model::EnvoyRelease;
use crate::snapshot::Resource;

use super::route::RouteBuilder;
use super::{access, pb, wire};

/// A place in the chain of HTTP filters.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Position; gaps are room for slots to come.
    pub rank: u16,
    /// Instance name: the key of `typed_per_filter_config`.
    pub name: &'static str,
    form: Form,
}

/// How the filter of a slot gets what it is without a policy.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Its rank is decided, but it is in no chain yet.
    Reserved,
    /// It stands in the listener. Nothing that policies bring is ever in it.
    InPlace(fn() -> Any),
    /// It comes over ECDS, so that what policies share for all routes of a gateway changes no listener. The form without
    /// any policy.
    Discovered(fn() -> Any),
}

/// Injected faults.
pub(super) const FAULT: &str = "chancery.fault";
/// Cross-origin rules.
pub(super) const CORS: &str = "chancery.cors";
/// Requests of other origins that change state.
pub(super) const CSRF: &str = "chancery.csrf";
/// Who may call what on the gateway, and in clusters at a destination.
pub(super) const ACCESS: &str = "chancery.access";
const ROUTER: &str = "envoy.filters.http.router";
/// Authorization by servers, one slot for each set of settings.
pub(super) const EXT_AUTH: [&str; CHECK_SLOTS] = [
    "chancery.extauth.0",
    "chancery.extauth.1",
    "chancery.extauth.2",
    "chancery.extauth.3",
    "chancery.extauth.4",
    "chancery.extauth.5",
];

/// The name of a filter for checks by servers, below [`CHECK_SLOTS`]. In a route configuration it stands once to turn the
/// filter off, and once more for each route or destination that turns it on.
#[must_use]
pub fn check_slot(slot: usize) -> &'static str {
    EXT_AUTH[slot]
}

/// Every slot, in the order in which a request passes them; responses pass in reverse.
///
/// Reserved rows keep the order decided for kinds that are still to come. A lane stands on both sides of authentication
/// and authorization, `pre` and `post`: six holders, with the verification of tokens between the third and the fourth. There
/// is one for routes and one for destinations, and claims are checked after both, on the route that the first may lead to.
///
/// Marks come before everything, so that they are of the route that a request was on first: the verification of tokens is
/// off (`by_default`) where nothing needs it, and then Envoy makes no filter for a request, wherever that ends.
pub const SLOTS: &[Slot] = &[
    in_place(10, "chancery.jwt-mark.pre.0", state_of_requests),
    in_place(11, "chancery.jwt-mark.pre.1", state_of_requests),
    in_place(12, "chancery.jwt-mark.post.0", state_of_requests),
    in_place(13, "chancery.jwt-mark.post.1", state_of_requests),
    in_place(100, FAULT, || wire::any(&fault_pb::HttpFault::default())),
    in_place(200, CORS, || wire::any(&cors_pb::Cors::default())),
    reserved(300, "chancery.dlp"),
    reserved(400, "chancery.waf"),
    in_place(500, "chancery.pre.0", holder),
    in_place(510, "chancery.pre.1", holder),
    in_place(520, "chancery.pre.2", holder),
    in_place(529, "chancery.jwt-strip.pre.0", header_changes),
    discovered(530, "chancery.jwt.pre.0", tokens),
    in_place(532, "chancery.jwt-strip.pre.1", header_changes),
    discovered(533, "chancery.jwt.pre.1", tokens),
    in_place(534, "chancery.jwt-claims.pre.0", rules),
    in_place(535, "chancery.jwt-claims.pre.1", rules),
    in_place(536, "chancery.jwt-headers.pre.0", header_changes),
    in_place(537, "chancery.jwt-headers.pre.1", header_changes),
    in_place(540, "chancery.pre.3", holder),
    in_place(550, "chancery.pre.4", holder),
    in_place(560, "chancery.pre.5", holder),
    in_place(600, principal::SLOT, state_of_requests),
    discovered(700, ACCESS, rules),
    reserved(800, "chancery.auth.oauth2"),
    discovered(810, "chancery.auth.jwt", tokens),
    in_place(811, "chancery.auth.jwt-claims", rules),
    in_place(820, "chancery.auth.basic", holder),
    in_place(830, "chancery.auth.key", holder),
    in_place(831, "chancery.auth.key-headers", || wire::any(&ext_auth::scripts())),
    discovered(900, EXT_AUTH[0], nobody_to_ask),
    discovered(901, EXT_AUTH[1], nobody_to_ask),
    discovered(902, EXT_AUTH[2], nobody_to_ask),
    discovered(903, EXT_AUTH[3], nobody_to_ask),
    discovered(904, EXT_AUTH[4], nobody_to_ask),
    discovered(905, EXT_AUTH[5], nobody_to_ask),
    in_place(1000, "chancery.auth.or", rules),
    in_place(1100, "chancery.post.0", holder),
    in_place(1110, "chancery.post.1", holder),
    in_place(1120, "chancery.post.2", holder),
    in_place(1129, "chancery.jwt-strip.post.0", header_changes),
    discovered(1130, "chancery.jwt.post.0", tokens),
    in_place(1131, "chancery.jwt-strip.post.1", header_changes),
    discovered(1132, "chancery.jwt.post.1", tokens),
    in_place(1133, "chancery.jwt-claims.post.0", rules),
    in_place(1134, "chancery.jwt-claims.post.1", rules),
    in_place(1135, "chancery.jwt-headers.post.0", header_changes),
    in_place(1136, "chancery.jwt-headers.post.1", header_changes),
    in_place(1140, "chancery.post.3", holder),
    in_place(1150, "chancery.post.4", holder),
    in_place(1160, "chancery.post.5", holder),
    reserved(1200, "chancery.buffer"),
    in_place(1300, CSRF, || wire::any(&csrf_unenforced())),
    reserved(1400, "chancery.wasm"),
    in_place(1500, ROUTER, || wire::any(&router_pb::Router::default())),
];

const fn reserved(rank: u16, name: &'static str) -> Slot {
    Slot { rank, name, form: Form::Reserved }
}

const fn in_place(rank: u16, name: &'static str, neutral: fn() -> Any) -> Slot {
    Slot { rank, name, form: Form::InPlace(neutral) }
}

const fn discovered(rank: u16, name: &'static str, neutral: fn() -> Any) -> Slot {
    Slot { rank, name, form: Form::Discovered(neutral) }
}

/// The script that sets headers by whose key a request has.
#[cfg(test)]
pub(super) fn key_headers_script() -> &'static str {
    ext_auth::SCRIPT_CODE
}

/// A holder of one filter, which a route brings whole.
fn holder() -> Any {
    wire::any(&composite_pb::Composite::default())
}

/// Verifies no token, and answers without repeating the URL, which may have a token in it.
fn tokens() -> Any {
    wire::any(&jwt_pb::JwtAuthentication { strip_failure_response: true, ..Default::default() })
}

/// Without rules everything is allowed.
fn rules() -> Any {
    wire::any(&rbac_pb::Rbac::default())
}

fn state_of_requests() -> Any {
    wire::any(&set_filter_state_pb::Config::default())
}

fn header_changes() -> Any {
    wire::any(&header_mutation_pb::HeaderMutation::default())
}

/// Asks a cluster that does not exist. Routes have the slot [off](by_default) unless they say who is asked.
fn nobody_to_ask() -> Any {
    wire::any(&ext_authz_pb::ExtAuthz {
        transport_api_version: core_pb::ApiVersion::V3.into(),
        services: Some(ext_authz_pb::ext_authz::Services::GrpcService(ext_auth::nobody())),
        ..Default::default()
    })
}

fn csrf_unenforced() -> csrf_pb::CsrfPolicy {
    csrf_pb::CsrfPolicy { filter_enabled: Some(csrf::share(0)), ..Default::default() }
}

/// The chain of every HTTP listener.
pub(super) fn chain() -> Vec<hcm_pb::HttpFilter> {
    let filter = |slot: &Slot| match slot.form {
        Form::Reserved => None,
        Form::InPlace(neutral) => Some(http_filter(slot.name, neutral())),
        Form::Discovered(neutral) => Some(discovered_filter(slot.name, neutral().type_url)),
    };
    SLOTS.iter().filter_map(filter).collect()
}

/// The filter that forwards, alone.
pub(super) fn router() -> hcm_pb::HttpFilter {
    http_filter(ROUTER, wire::any(&router_pb::Router::default()))
}

/// What the chain's slots have that come over ECDS, each under the name of its slot: what policies share, or the neutral form.
/// One is left to [`emit_guard`].
pub(super) fn emit_extensions(extensions: &Extensions, release: EnvoyRelease) -> impl Iterator<Item = Resource> {
    SLOTS.iter().filter_map(move |slot| {
        let Form::Discovered(neutral) = slot.form else { return None };
        if slot.name == ACCESS {
            return None;
        }
        let (config, owners) = jwt::emit_tokens(slot.name, extensions, release)
            .or_else(|| ext_auth::emit_shared(slot.name, extensions))
            .unwrap_or_else(|| (neutral(), Vec::new()));
        let message = core_pb::TypedExtensionConfig { name: slot.name.to_owned(), typed_config: Some(config) };
        Some(Resource::from_content(slot.name.into(), wire::encode(&message), pb::owners(&owners)))
    })
}

/// What the slot for who may call what on the gateway has.
pub(super) fn emit_guard(guard: Option<&Guard>, release: EnvoyRelease) -> Resource {
    let config = guard.map_or_else(rules, |guard| wire::any(&access::emit_http(guard, release)));
    let message = core_pb::TypedExtensionConfig { name: ACCESS.to_owned(), typed_config: Some(config) };
    let owners = guard.map(|guard| pb::owners(&guard.policies)).unwrap_or_default();
    Resource::from_content(ACCESS.into(), wire::encode(&message), owners)
}

/// What routes have of slots unless they bring their own. Authorization by a server, which has no form that asks nobody, is
/// off.
///
/// So is the verification of tokens, and in the way that makes no filter at all: from 1.40 on it removes from every request
/// the headers that any of its providers sets, whoever's they are, and even where its own configuration of the route is off.
/// A request that begins on such a route and moves to one with a policy is refused there by the rules for claims, which want
/// what that policy alone leaves behind.
pub(super) fn by_default() -> HashMap<String, Any> {
    use ext_authz_pb::ext_authz_per_route::Override;
    let off = ext_authz_pb::ExtAuthzPerRoute { r#override: Some(Override::Disabled(true)) };
    let nobody_asked = EXT_AUTH.iter().map(|slot| ((*slot).to_owned(), wire::any(&off)));
    let no_filter = wire::any(&route_pb::FilterConfig { disabled: true, ..Default::default() });
    let unverified = jwt::SLOTS.iter().map(|(.., slots)| (slots.tokens.to_owned(), no_filter.clone()));
    nobody_asked.chain(unverified).collect()
}

/// An HTTP filter with its configuration in place.
pub(super) fn http_filter(name: &str, config: Any) -> hcm_pb::HttpFilter {
    hcm_pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm_pb::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// An HTTP filter whose configuration is the resource of its name.
///
/// A listener waits for it, for as long as it takes: without it, it would answer every request with 500.
pub(super) fn discovered_filter(name: &str, type_url: String) -> hcm_pb::HttpFilter {
    let mut config_source = pb::over_ads();
    config_source.initial_fetch_timeout = Some(pb::duration(Duration::ZERO));
    let source = core_pb::ExtensionConfigSource {
        config_source: Some(config_source),
        type_urls: vec![type_url],
        ..Default::default()
    };
    hcm_pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm_pb::http_filter::ConfigType::ConfigDiscovery(source)),
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
        Policy::Jwt(verification) => jwt::apply(verification, route),
        Policy::ExtAuth(authorization) => ext_auth::apply(authorization, route),
        Policy::Csrf(policy) => csrf::apply(policy, route),
        // Clusters and listeners have the one; the other goes into lanes, all at once.
        Policy::Access(_) | Policy::ClientTls(_) | Policy::Outlier(_) | Policy::Failover(_) | Policy::RateLimit(_) => {}
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
        let first = chain.iter().find(|name| !name.starts_with("chancery.jwt-mark."));
        assert_eq!(first.map(String::as_str), Some(FAULT), "but for what marks requests");
        assert_eq!(chain.last().map(String::as_str), Some(ROUTER));
    }
}
