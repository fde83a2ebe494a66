//! Limits as lines of text: who is asked about which requests, and what rate-limit services are told.

use std::sync::Arc;

use crate::compile::Compiled;
use crate::ir::policy::rate_limit::{LimitAction, LimitItem, LimitNode, Limits, steps};
use crate::ir::policy::{Phase, lane};
use crate::ir::{Action, Listener, Policy, Route};

/// For each route with limits, and for each of its destinations where they differ:
/// `gateway route [-> upstream]: phase.rank server items; …`. Then for each service and configuration:
/// `server configuration keys: limit; …`.
pub(super) fn listing(compiled: &Compiled) -> Vec<String> {
    let mut list = Vec::new();
    for plan in compiled.plans.values() {
        for route in plan.listeners.values().flat_map(Listener::routes) {
            list.extend(of_route(route).into_iter().map(|line| format!("{} {line}", plan.gateway)));
        }
    }
    for (server, plan) in &compiled.limits {
        for configuration in &plan.configurations {
            let mut leaves = Vec::new();
            configuration.node.nodes.iter().for_each(|node| of_node(node, "", &mut leaves));
            list.push(format!("{server} {}: {}", configuration.id, leaves.join("; ")));
        }
    }
    list
}

fn of_route(route: &Route) -> Vec<String> {
    let own = &route.body.policies;
    let destinations = match &route.body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Redirect(_) | Action::Direct(_) => &[],
    };
    let mut lines = Vec::new();
    for destination in destinations {
        if let Some(limits) = limits(&destination.policies) {
            let beside: Vec<&Policy> = own.iter().chain(&destination.policies).collect();
            lines.push(format!("{} -> {}: {}", route.name, destination.upstream, shown(limits, &beside)));
        }
    }
    if let (true, Some(limits)) = (lines.is_empty(), limits(own)) {
        lines.push(format!("{}: {}", route.name, shown(limits, &own.iter().collect::<Vec<_>>())));
    }
    lines
}

fn limits(policies: &[Policy]) -> Option<&[Arc<Limits>]> {
    policies.iter().find_map(|policy| match policy {
        Policy::RateLimit(limits) => Some(limits.as_slice()),
        _ => None,
    })
}

fn shown(limits: &[Arc<Limits>], beside: &[&Policy]) -> String {
    let mut all = Vec::new();
    for (phase, name) in [(Phase::PreAuthz, "pre"), (Phase::PostAuthz, "post")] {
        let steps = steps(limits, phase);
        let priorities: Vec<i32> = steps.iter().map(|step| step.priority).collect();
        let ranks = lane::ranks(&priorities, lane::tokens(beside.iter().copied(), phase)).expect("all have a place");
        for (rank, step) in ranks.into_iter().zip(steps) {
            let items: Vec<String> = step.items.iter().map(|item| of_item(item)).collect();
            let deny = if step.service.deny_on_fail { " denies" } else { "" };
            all.push(format!("{name}.{rank} {}{deny} {}", step.service.server, items.join(" ")));
        }
    }
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

/// The keys of an item behind the first, which says whose rules are meant.
fn of_item(item: &LimitItem) -> String {
    let keys: Vec<&str> = item.actions.iter().skip(1).map(LimitAction::key).collect();
    keys.join("+")
}

fn of_node(node: &LimitNode, above: &str, leaves: &mut Vec<String>) {
    // What sets are called is a hash.
    let value = node.value.as_ref().filter(|_| node.key != "chancery.set");
    let value = value.map(|value| format!("={value}")).unwrap_or_default();
    let path = format!("{above}{}{value}", node.key);
    if let Some(named) = &node.limit {
        leaves.push(format!("{path} {}/{:?}", named.limit.requests, named.limit.unit));
    }
    node.nodes.iter().for_each(|below| of_node(below, &format!("{path}>"), leaves));
}
