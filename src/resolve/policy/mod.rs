//! Policy kinds: what each selects, how several combine, and what it means.
//!
//! # Adding a kind
//!
//! 1. `model/id.rs`: its name, group and plural, unless it is there as a kind that is not supported yet.
//! 2. `crd/policy/<kind>.rs`: the manifest. It is registered in `crd/policy/mod.rs`, as a variant of `Spec` in
//!    `crd/object.rs`, and in the table of kinds and manifests in `crd/schema.rs`.
//! 3. `ir/policy.rs`, or a file below it where it is large: a value for what it does, and its variant of [`Policy`].
//! 4. `resolve/policy/<kind>.rs`: `lower` from the one to the other; one line in [`lower`] and, unless the oldest simply
//!    wins, one in [`merge`]. Targets, the default without a selector and how several combine are its row of `rules`.
//! 5. `emit/filter/<kind>.rs`: `apply` to a route under construction; one line in `emit/filter/mod.rs`, and the neutral
//!    form of its slot there if it is a filter.
//!
//! A kind that refers to Secrets, servers, destinations or configurations has a variant of [`Draft`] as well: `lower` gives
//! the draft, and `settle` of its file makes the [`Policy`] of it, once for all routes (`settling.rs` says how). One that
//! shares something for all routes of a gateway adds it in `ir/extension.rs`, and `emit/filter/` emits it from there. One
//! whose filter a route brings whole stands in a lane: `ir/policy/lane.rs` ranks it, `emit/filter/lanes.rs` holds it.
//!
//! Selection, delegation, age order, findings, status, counts and `explain` need nothing. `testing/teapot.rs` shows it
//! with a made-up kind and lists every file that knows of one.

pub mod access;
mod balancing;
pub mod client_tls;
pub mod cors;
pub mod csrf;
pub mod ext_auth;
pub mod failover;
pub mod fault_injection;
pub mod header_manipulation;
pub mod jwt;
pub mod outlier_detection;
mod parts;
pub mod rate_limit;
pub mod retry_timeout;
mod settling;
#[cfg(test)]
pub mod teapot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::crd::policy::{OpaquePolicy, selector};
use crate::crd::{Object, Spec};
use crate::ir::policy::rate_limit::Counter;
use crate::ir::policy::{OriginMatch, OriginPattern, Policy};
use crate::model::{Code, FieldPath, Finding, Findings, Kind};

use parts::config;
pub use settling::{refers, settle};

use super::attachment::Beaten;
use super::facts::{
    Age, DestinationKind, DestinationSelector, Draft, Fault, PolicyEffect, PolicyObject, RouteDestinationSelector,
    RouteLabelSelector, RouteSelector, Selector, Targets,
};
use super::lower::{labels, lower_destination_selector, lower_selector, optional};

/// How several policies of one kind on one target combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// The oldest applies.
    Oldest,
    /// All apply; each kind says how.
    All,
}

/// What a policy without any selector covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoSelector {
    /// Nothing.
    Nothing,
    /// All routes whose chain contains its owner (R114).
    AllRoutes,
    /// All Services of its owner.
    AllServices,
    /// All destinations of its owner, of every kind.
    AllDestinations,
    /// All gateways of its owner.
    AllGateways,
}

/// What a protecting kind selects, and so closes where it cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// `applyToRoutes`.
    Routes,
    /// `applyToDestinations`.
    Destinations,
    /// `applyToWorkloads`.
    Workloads,
}

impl Target {
    /// The field that selects it.
    fn field(self) -> FieldPath {
        FieldPath::new(match self {
            Self::Routes => "spec.applyToRoutes",
            Self::Destinations => "spec.applyToDestinations",
            Self::Workloads => "spec.applyToWorkloads",
        })
    }

    /// Whether something selects it.
    fn is_written(self, selectors: &OpaquePolicy) -> bool {
        match self {
            Self::Routes => !selectors.apply_to_routes.is_empty(),
            Self::Destinations => !selectors.apply_to_destinations.is_empty(),
            Self::Workloads => !selectors.apply_to_workloads.is_empty(),
        }
    }
}

/// The row of R123 for a kind.
struct Rules {
    no_selector: NoSelector,
    combine: Combine,
    /// Empty for kinds that do not protect (R130).
    protects: &'static [Target],
}

/// The table of R123.
fn rules(kind: Kind) -> Rules {
    use Combine::{All, Oldest};
    use NoSelector::{AllDestinations, AllGateways, AllRoutes, AllServices, Nothing};
    use Target::{Destinations, Routes, Workloads};
    let row = |no_selector, combine, protects| Rules { no_selector, combine, protects };
    match kind {
        Kind::HeaderManipulationPolicy => row(AllRoutes, All, &[]),
        Kind::AccessPolicy => row(AllServices, All, &[Destinations, Workloads]),
        Kind::ExtAuthPolicy => row(AllServices, Oldest, &[Routes, Destinations]),
        Kind::JwtPolicy | Kind::LuaPolicy => row(AllRoutes, Oldest, &[Routes, Destinations]),
        Kind::CsrfPolicy | Kind::DlpPolicy => row(AllRoutes, Oldest, &[Routes]),
        Kind::WafPolicy => row(AllRoutes, All, &[Routes]),
        Kind::ClientTlsPolicy => row(Nothing, Oldest, &[Destinations]),
        Kind::GraphQlAllowedQueryPolicy => row(Nothing, Oldest, &[Routes]),
        Kind::RateLimitPolicy => row(AllServices, All, &[]),
        Kind::HttpBufferPolicy
        | Kind::ActiveHealthCheckPolicy
        | Kind::ProxyProtocolPolicy
        | Kind::ListenerConnectionPolicy
        | Kind::GraphQlPersistedQueryCachePolicy => row(Nothing, Oldest, &[]),
        Kind::FailoverPolicy
        | Kind::OutlierDetectionPolicy
        | Kind::LoadBalancerPolicy
        | Kind::ConnectionPolicy
        | Kind::AdaptiveRequestConcurrencyPolicy => row(AllDestinations, Oldest, &[]),
        Kind::AccessLogPolicy | Kind::TrimProxyConfigPolicy => row(AllGateways, Oldest, &[]),
        Kind::WasmDeploymentPolicy => row(AllGateways, All, &[]),
        // TransformationPolicy, MirrorPolicy, RetryTimeoutPolicy, FaultInjectionPolicy, CORSPolicy.
        _ => row(AllRoutes, Oldest, &[]),
    }
}

/// How several policies of a kind on one target combine.
///
/// # Rule
/// R123, R126, R127.
#[must_use]
pub fn combine(kind: Kind) -> Combine {
    rules(kind).combine
}

/// Whether what a policy selects must be kept closed, because it protects and cannot be applied.
///
/// # Rule
/// R130, D24.
#[must_use]
pub fn closes(policy: &PolicyObject) -> bool {
    matches!(policy.effect, PolicyEffect::Invalid(_)) && !rules(policy.id.kind).protects.is_empty()
}

/// Whether a policy shares something for all routes of a gateway, as [`Extensions::add`] takes it.
///
/// [`Extensions::add`]: crate::ir::Extensions::add
#[must_use]
pub fn shares(effect: &Policy) -> bool {
    matches!(effect, Policy::Jwt(_) | Policy::ExtAuth(_))
}

/// Whether policies of a kind that are limited to a destination come from its owner, whoever owns the route; those of
/// other kinds select pairs of route and destination.
///
/// # Rule
/// R117, R118.
#[must_use]
pub fn is_of_destinations_owner(kind: Kind) -> bool {
    kind != Kind::HeaderManipulationPolicy
}

/// Whether no route has to know of an effect, because it belongs to how gateways open connections to a destination.
#[must_use]
pub fn is_of_connections(effect: &Policy) -> bool {
    matches!(effect, Policy::ClientTls(_) | Policy::Outlier(_) | Policy::Failover(_))
}

/// Roughly the bytes that an effect takes on each entry that it is on.
#[must_use]
pub fn bytes(effect: &Policy) -> usize {
    /// What a filter's configuration takes without any text.
    const LEAST: usize = 64;
    let texts = |texts: &mut dyn Iterator<Item = usize>| texts.map(|text| text + LEAST).sum::<usize>();
    LEAST
        + match effect {
            Policy::Jwt(verification) => {
                let jwt = &verification.jwt;
                let headers = jwt.providers.values().flat_map(|provider| provider.claims_to_headers.iter());
                let headers = texts(&mut headers.map(|(header, claim)| header.len() + claim.claim.len()));
                headers + jwt::conditions(&jwt.claims, &jwt.scopes).saturating_mul(jwt.providers.len())
            }
            Policy::HeaderManipulation(headers) => {
                let added = headers.append_request.iter().chain(&headers.append_response);
                let removed = headers.remove_request.iter().chain(&headers.remove_response);
                texts(&mut added.map(|(name, value)| name.len() + value.len()).chain(removed.map(|name| name.len())))
            }
            Policy::Cors(cors) => {
                let lists = cors.allow_methods.iter().chain(&cors.allow_headers).chain(&cors.expose_headers);
                texts(&mut lists.map(|text| text.len())) + origins(&cors.allow_origins)
            }
            Policy::Csrf(csrf) => origins(&csrf.additional_origins),
            Policy::ExtAuth(authorization) => {
                let told = authorization.checks.iter().flat_map(|check| &check.context);
                let told = texts(&mut told.map(|(name, value)| name.len() + value.len()));
                told + authorization.bytes_of_secrets()
            }
            Policy::RateLimit(limits) => {
                let actions = limits.iter().flat_map(|limits| &limits.items).map(|item| item.actions.len() + 1);
                let buckets = limits.iter().map(|limits| match &limits.counter {
                    Counter::Service(_) => 0,
                    Counter::Gateways(buckets) => buckets.iter().map(|bucket| bucket.entries.len() + 1).sum(),
                });
                // What an action or entry takes with its names; few have long texts.
                (actions.sum::<usize>() + buckets.sum::<usize>()) * 256
            }
            // A few numbers, or nothing on routes.
            _ => 0,
        }
}

fn origins(origins: &[OriginMatch]) -> usize {
    let text = |origin: &OriginMatch| match &origin.pattern {
        OriginPattern::Exact(text)
        | OriginPattern::Prefix(text)
        | OriginPattern::Suffix(text)
        | OriginPattern::Regex(text) => text.len() + 32,
    };
    origins.iter().map(text).sum()
}

/// Whether an effect stands for a policy that is invalid, in a strict form that its kind has in place of closing.
///
/// # Rule
/// R130.
#[must_use]
pub fn is_strict(effect: &Policy) -> bool {
    matches!(effect, Policy::Csrf(csrf) if csrf.is_strict)
}

/// Makes what applies as strict as an invalid policy of its kind, which it has won over.
///
/// # Rule
/// R130.
pub fn harden(effect: &mut Policy) {
    if let Policy::Csrf(csrf) = effect {
        csrf::harden(csrf);
    }
}

/// The joint effect of the policies of one kind on one target, oldest first; `None` for none.
///
/// # Findings
/// What a younger policy loses to an older one goes to `beaten`.
#[must_use]
pub fn merge(policies: &[(&PolicyObject, &Policy)], beaten: &mut Vec<Beaten>) -> Option<Policy> {
    let (_, first) = policies.first()?;
    Some(match first {
        Policy::HeaderManipulation(_) => {
            let all = policies.iter().filter_map(|(policy, effect)| match effect {
                Policy::HeaderManipulation(headers) => Some((&policy.id, headers)),
                _ => None,
            });
            Policy::HeaderManipulation(header_manipulation::merge(all, beaten))
        }
        Policy::RateLimit(_) => {
            let all = policies.iter().flat_map(|(_, effect)| match effect {
                Policy::RateLimit(limits) => limits.as_slice(),
                _ => &[],
            });
            Policy::RateLimit(all.cloned().collect())
        }
        // Exclusive kinds have one policy left here.
        _ => (*first).clone(),
    })
}

/// A policy manifest in its checked form; nothing for objects that are no policies.
///
/// # Findings
/// [`Code::InvalidField`] and [`Code::Unsupported`] as errors on the policy; remarks as warnings.
#[must_use]
pub fn lower(object: &Object, findings: &mut Findings) -> Option<PolicyObject> {
    let id = &object.meta.id;
    if !id.kind.is_policy() {
        return None;
    }
    let mut remarks = Findings::new();
    let (selectors, effect) = match &*object.spec() {
        Spec::HeaderManipulationPolicy(policy) => (
            OpaquePolicy {
                apply_to_routes: policy.apply_to_routes.clone(),
                apply_to_route_destinations: policy.apply_to_route_destinations.clone(),
                ..OpaquePolicy::default()
            },
            valid(header_manipulation::lower(id, policy, &mut remarks).map(Policy::HeaderManipulation)),
        ),
        Spec::RetryTimeoutPolicy(policy) => (
            routes_only(&policy.apply_to_routes),
            valid(retry_timeout::lower(id, policy, &mut remarks).map(Policy::RetryTimeout)),
        ),
        Spec::FaultInjectionPolicy(policy) => {
            (routes_only(&policy.apply_to_routes), valid(fault_injection::lower(policy).map(Policy::FaultInjection)))
        }
        Spec::CorsPolicy(policy) => {
            (routes_only(&policy.apply_to_routes), valid(cors::lower(policy).map(Policy::Cors)))
        }
        Spec::AccessPolicy(policy) => {
            let access = access::lower(id, policy, &mut remarks);
            (access::selectors(policy), valid(access.map(|access| Policy::Access(Arc::new(access)))))
        }
        Spec::ClientTlsPolicy(policy) => (
            routes_and_destinations(&[], &policy.apply_to_destinations),
            valid(client_tls::lower(policy).map(|tls| Policy::ClientTls(tls.map(Arc::new)))),
        ),
        Spec::OutlierDetectionPolicy(policy) => (
            routes_and_destinations(&[], &policy.apply_to_destinations),
            valid(outlier_detection::lower(id, policy, &mut remarks).map(Policy::Outlier)),
        ),
        Spec::FailoverPolicy(policy) => (
            routes_and_destinations(&[], &policy.apply_to_destinations),
            valid(failover::lower(id, policy, &mut remarks).map(|order| Policy::Failover(Arc::new(order)))),
        ),
        Spec::CsrfPolicy(policy) => {
            (routes_only(&policy.apply_to_routes), valid(csrf::lower(id, policy, &mut remarks).map(Policy::Csrf)))
        }
        Spec::ExtAuthPolicy(policy) => (
            routes_and_destinations(&policy.apply_to_routes, &policy.apply_to_destinations),
            ext_auth::lower(id, policy, &mut remarks).map(|auth| PolicyEffect::Draft(Draft::ExtAuth(Arc::new(auth)))),
        ),
        Spec::JwtPolicy(policy) => (
            routes_and_destinations(&policy.apply_to_routes, &policy.apply_to_destinations),
            jwt::lower(id, policy, &mut remarks).map(|jwt| PolicyEffect::Draft(Draft::Jwt(Arc::new(jwt)))),
        ),
        Spec::RateLimitPolicy(policy) => (
            routes_and_destinations(&policy.apply_to_routes, &policy.apply_to_destinations),
            rate_limit::lower(id, policy, &mut remarks)
                .map(|limits| PolicyEffect::Draft(Draft::RateLimit(Arc::new(limits)))),
        ),
        #[cfg(test)]
        Spec::TeapotPolicy(policy) => {
            (routes_only(&policy.apply_to_routes), valid(teapot::lower(policy).map(Policy::Teapot)))
        }
        Spec::Opaque(policy) => ((**policy).clone(), Err(unsupported(id.kind))),
        _ => (OpaquePolicy::default(), Err(unsupported(id.kind))),
    };
    let defect = object.defects.first().map(|defect| Fault {
        code: Code::InvalidField,
        field: defect.field.clone(),
        message: defect.message.clone(),
    });
    let effect = match (defect, effect) {
        // The decoder has reported defects of fields already.
        (Some(fault), _) => PolicyEffect::Invalid(Arc::new(fault)),
        (None, Err(fault)) => {
            findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
            PolicyEffect::Invalid(Arc::new(fault))
        }
        (None, Ok(effect)) => {
            findings.extend(remarks);
            effect
        }
    };
    let effect = match (effect, &*object.spec()) {
        (PolicyEffect::Invalid(_), Spec::CsrfPolicy(policy)) => PolicyEffect::Valid(Policy::Csrf(csrf::closed(policy))),
        (effect, _) => effect,
    };
    let no_spec = object.defects.iter().any(|defect| defect.field == FieldPath::new("spec"));
    let is_stray = object.defects.iter().any(|defect| is_stray(&defect.field));
    let unreadable = |target: Target| {
        no_spec || object.defect_within(&target.field()).is_some() || (is_stray && !target.is_written(&selectors))
    };
    let targets = targets(id.kind, &selectors, unreadable);
    Some(PolicyObject { id: id.clone(), age: Age::new(object.meta.created, id), targets, effect })
}

/// Whether a field stands beside `config` and the selectors: it may be meant to select, and nobody knows what.
fn is_stray(field: &FieldPath) -> bool {
    let spec = FieldPath::new("spec");
    let selectors = [Target::Routes, Target::Destinations, Target::Workloads].map(Target::field);
    let known = |field: &FieldPath| selectors.iter().chain([&config()]).any(|known| field.is_within(known));
    *field != spec && field.is_within(&spec) && !known(field)
}

/// What a policy comes to that refers to nothing.
fn valid(checked: Result<Policy, Fault>) -> Result<PolicyEffect, Fault> {
    checked.map(PolicyEffect::Valid)
}

fn unsupported(kind: Kind) -> Fault {
    let closed = if rules(kind).protects.is_empty() {
        " and has no effect"
    } else {
        ", so what it selects is closed until it is removed"
    };
    Fault { code: Code::Unsupported, field: FieldPath::root(), message: format!("{kind} is not supported yet{closed}") }
}

fn routes_only(routes: &[selector::RouteSelector]) -> OpaquePolicy {
    OpaquePolicy { apply_to_routes: routes.to_vec(), ..OpaquePolicy::default() }
}

fn routes_and_destinations(
    routes: &[selector::RouteSelector],
    destinations: &[selector::DestinationSelector],
) -> OpaquePolicy {
    OpaquePolicy {
        apply_to_routes: routes.to_vec(),
        apply_to_destinations: destinations.to_vec(),
        ..OpaquePolicy::default()
    }
}

/// Selectors with the kind's default for none worked in (R114, R123, R124).
///
/// A selector of a protecting policy that cannot be read counts as the widest one of its target: what it would select is
/// closed, and nothing of other targets.
fn targets(kind: Kind, written: &OpaquePolicy, unreadable: impl Fn(Target) -> bool) -> Targets {
    let rules = rules(kind);
    let mut targets = Targets {
        routes: written.apply_to_routes.iter().map(lower_route_selector).collect(),
        route_destinations: written
            .apply_to_route_destinations
            .iter()
            .map(|item| RouteDestinationSelector {
                route: item.route.as_ref().map(lower_label_selector).unwrap_or_default(),
                destinations: item.on_destinations.iter().map(lower_destination_selector).collect(),
            })
            .collect(),
        destinations: written.apply_to_destinations.iter().map(lower_destination_selector).collect(),
        // Unlike in a virtual gateway, an item without a selector is every workload.
        workloads: written
            .apply_to_workloads
            .iter()
            .map(|item| item.selector.as_ref().map(lower_selector).unwrap_or_default())
            .collect(),
    };
    if !rules.protects.is_empty() {
        // A selector that the kind does not have selects nothing and switches no default off.
        let has = |target| rules.protects.contains(&target);
        targets.routes.retain(|_| has(Target::Routes));
        targets.route_destinations.clear();
        targets.destinations.retain(|_| has(Target::Destinations));
        targets.workloads.retain(|_| has(Target::Workloads));
    }
    let all_of = |kind| DestinationSelector { selector: Selector::default(), kind, port: None };
    let every_kind =
        [DestinationKind::Service, DestinationKind::VirtualDestination, DestinationKind::ExternalService].map(all_of);
    for target in rules.protects.iter().filter(|target| unreadable(**target)) {
        match target {
            Target::Routes => targets.routes.push(RouteSelector::All),
            Target::Destinations => targets.destinations.extend(every_kind.clone()),
            Target::Workloads => targets.workloads.push(Selector::default()),
        }
    }
    if targets == Targets::default() {
        match rules.no_selector {
            NoSelector::Nothing => {}
            NoSelector::AllRoutes => targets.routes.push(RouteSelector::All),
            NoSelector::AllServices => targets.destinations.push(all_of(DestinationKind::Service)),
            NoSelector::AllDestinations => targets.destinations.extend(every_kind),
            NoSelector::AllGateways => targets.workloads.push(Selector::default()),
        }
    }
    targets
}

fn lower_route_selector(written: &selector::RouteSelector) -> RouteSelector {
    match (&written.route, &written.with_destinations) {
        (Some(route), _) => RouteSelector::Route(lower_label_selector(route)),
        (None, Some(destination)) => RouteSelector::WithDestinations(lower_destination_selector(destination)),
        (None, None) => RouteSelector::All,
    }
}

fn lower_label_selector(written: &selector::RouteLabelSelector) -> RouteLabelSelector {
    RouteLabelSelector {
        labels: labels(&written.labels),
        namespace: optional(&written.namespace),
        cluster: optional(&written.cluster),
        workspace: optional(&written.workspace),
    }
}

/// A fault at a field of `spec.config`, or at all of it.
fn config_fault(field: &str, message: impl Into<String>) -> Fault {
    let config = FieldPath::new("spec.config");
    let field = if field.is_empty() { config } else { FieldPath::new(format!("{config}.{field}")) };
    Fault { code: Code::InvalidField, field, message: message.into() }
}

/// A policy without `spec.config`.
fn no_config() -> Fault {
    Fault {
        code: Code::InvalidField,
        field: FieldPath::new("spec.config"),
        message: "the policy has no `config`, so it does nothing: write one or remove the policy".to_owned(),
    }
}

/// A share of requests in percent as parts per million.
///
/// # Errors
/// A fault at the field when it is not 0 or 0.0001 to 100.
fn per_million(field: &str, percentage: Option<f64>) -> Result<u32, Fault> {
    let percentage = percentage.unwrap_or(100.0);
    if percentage == 0.0 || (0.0001..=100.0).contains(&percentage) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to lie within 0 to 1,000,000"
        )]
        return Ok((percentage * 10_000.0).round() as u32);
    }
    Err(config_fault(field, format!("{percentage} is no percentage: write 0, or 0.0001 to 100")))
}

/// Whether a text is an HTTP header name: a token of RFC 9110.
#[must_use]
pub fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
