//! The holders of the lanes: filters that a route brings whole, each in the place that its priority gives it.
//!
//! # Rule
//! R125; the manual's page on policies, "Filter slots".

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3 as composite_pb;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::r#type::matcher::v3 as matching_pb;

use crate::ir::policy::rate_limit::{Limits, steps};
use crate::ir::policy::{Phase, Policy, lane};

use super::super::route::RouteBuilder;
use super::super::wire;
use super::rate_limit;

/// The holders of each lane, in order.
const HOLDERS: [(Phase, [&str; lane::RANKS]); 2] = [
    (
        Phase::PreAuthz,
        ["chancery.pre.0", "chancery.pre.1", "chancery.pre.2", "chancery.pre.3", "chancery.pre.4", "chancery.pre.5"],
    ),
    (
        Phase::PostAuthz,
        [
            "chancery.post.0",
            "chancery.post.1",
            "chancery.post.2",
            "chancery.post.3",
            "chancery.post.4",
            "chancery.post.5",
        ],
    ),
];

/// Fills the holders of a route, or of one of its destinations, beside these policies.
///
/// The route is closed where there are more steps than places. Resolving leaves no such route, whatever it kept: its authors
/// are told there.
pub(in super::super) fn fill<'a>(
    limits: &[Arc<Limits>],
    beside: &(impl Iterator<Item = &'a Policy> + Clone),
    route: &mut RouteBuilder<'_>,
) {
    let payloads = rate_limit::payloads(beside.clone());
    let values = route.values();
    for (phase, holders) in HOLDERS {
        let steps = steps(limits, phase);
        let priorities: Vec<i32> = steps.iter().map(|step| step.priority).collect();
        let Some(ranks) = lane::ranks(&priorities, lane::tokens(beside.clone(), phase)) else {
            route.is_closed = true;
            return;
        };
        for (rank, step) in ranks.into_iter().zip(&steps) {
            route
                .scope()
                .slots
                .insert(holders[rank], held("chancery.limit", rate_limit::emit(step, &payloads, values)));
        }
    }
}

/// A filter in a holder, for all requests.
fn held(name: &str, filter: Any) -> Any {
    use matching_pb::matcher::OnMatch;
    use matching_pb::matcher::on_match::OnMatch as Taken;
    let extension =
        |name: &str, config: Any| core_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    let action =
        composite_pb::ExecuteFilterAction { typed_config: Some(extension(name, filter)), ..Default::default() };
    let action = envoy_types::pb::xds::core::v3::TypedExtensionConfig {
        name: "composite-action".to_owned(),
        typed_config: Some(wire::any(&action)),
    };
    let matcher = matching_pb::Matcher {
        on_no_match: Some(Box::new(OnMatch { on_match: Some(Taken::Action(action)), ..Default::default() })),
        ..Default::default()
    };
    wire::any(&composite_pb::CompositePerRoute { matcher: Some(matcher) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_holder_stands_in_the_chain() {
        let chain: Vec<&str> = super::super::SLOTS.iter().map(|slot| slot.name).collect();
        for holder in HOLDERS.iter().flat_map(|(_, holders)| holders) {
            assert!(chain.contains(holder), "{holder}");
        }
    }
}
