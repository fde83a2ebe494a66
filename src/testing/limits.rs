//! Limits as lines of text: who is asked about which requests, and what rate-limit services are told.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::compile::Compiled;
use crate::emit::emit_limits;
use crate::ir::policy::rate_limit::{Bucket, LimitAction, LimitItem, LimitNode, Limits, StepCounter, steps};
use crate::ir::policy::{Phase, lane};
use crate::ir::{Action, Policy, Route};
use crate::resolve::Options;
use crate::resolve::policy::rate_limit::serving::bytes;
use crate::snapshot::ResourceType;

use super::{cluster_of, compile_manifests, yaml};

/// For each route with limits, and for each of its destinations where they differ:
/// `gateway route [-> upstream]: phase.rank server items; …`. Then for each service and configuration:
/// `server configuration keys: limit; …`.
pub(super) fn listing(compiled: &Compiled) -> Vec<String> {
    let mut list = Vec::new();
    for plan in compiled.plans.values() {
        for route in plan.listeners.values().flat_map(|listener| listener.routes()) {
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
            let counter = match &step.counter {
                StepCounter::Service(service) if service.deny_on_fail => format!("{} denies", service.server),
                StepCounter::Service(service) => service.server.to_string(),
                StepCounter::Gateways(buckets) => {
                    let buckets: Vec<String> = buckets.iter().map(|bucket| of_bucket(bucket)).collect();
                    format!("gateway [{}]", buckets.join(", "))
                }
            };
            all.push(format!("{name}.{rank} {counter} {}", items.join(" ")));
        }
    }
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

/// The entries of a bucket behind the first, with what is allowed of them.
fn of_bucket(bucket: &Bucket) -> String {
    let entries = bucket.entries.iter().skip(1).map(|(key, value)| match value {
        // What sets are called is a hash.
        Some(value) if key != "chancery.set" => format!("{key}={value}"),
        _ => key.to_string(),
    });
    let limit = bucket.limit.map_or_else(|| "any".to_owned(), |limit| format!("{}/{:?}", limit.requests, limit.unit));
    format!("{} {limit}", entries.collect::<Vec<_>>().join(">"))
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

/// The service takes only so many bytes at once, so what is left out for that must be known before it is written.
#[test]
fn rules_are_never_longer_than_was_thought() {
    let shared = include_str!("../cases/limits.md").split("```").nth(1).and_then(|block| block.strip_prefix("yaml"));
    let mut manifests = yaml::documents(shared.expect("what the cases share")).expect("YAML");
    let limit = json!({"unit": "DAY", "requestsPerUnit": u32::MAX});
    let rule = |number: usize| {
        let entry = json!({"key": format!("k{number}"), "value": "v".repeat(number * 4)});
        json!({"simpleDescriptors": [entry], "rateLimit": limit})
    };
    let rules: Vec<Value> = (0..60).map(rule).collect();
    let tree = json!([{"key": "a", "descriptors": [{"key": "b", "value": "c", "rateLimit": limit, "weight": 2}]}]);
    manifests.push(json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "RateLimitServerConfig",
        "metadata": {"name": "many", "namespace": "team"},
        "spec": {"destinationServers": [{"ref": {"name": "limiter"}}], "raw": {"setDescriptors": rules, "descriptors": tree}},
    }));
    let manifests = manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest));
    let compiled = compile_manifests(manifests, &Options::default());
    let plan = compiled.limits.values().next().expect("a service");
    assert_eq!(plan.configurations.len(), 2);
    let thought: usize = plan.configurations.iter().map(|configuration| bytes(&configuration.node)).sum();
    let snapshot = emit_limits(plan);
    let resource = snapshot.get(ResourceType::RateLimit, "chancery").expect("its limits");
    let is = resource.body.len();
    assert!(is <= thought && thought <= 2 * is, "{is} bytes, thought to be {thought}");
}
