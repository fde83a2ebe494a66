//! What is limited, in words.

use std::sync::Arc;
use std::time::Duration;

use crate::ir::Policy;
use crate::ir::policy::Phase;
use crate::ir::policy::rate_limit::{
    Bucket, LimitAction, LimitItem, LimitService, LimitStep, Limits, MOST_VALUES, StepCounter, steps,
};

/// What policies of a route, or of one of its destinations, ask about a request, one line for each step; none where they
/// do not limit. So many values of an entry without one a gateway counts apart there.
#[must_use]
pub fn describe_limits(policies: &[Policy], values: u32) -> Vec<String> {
    let limits = policies.iter().find_map(|policy| match policy {
        Policy::RateLimit(limits) => Some(limits.as_slice()),
        _ => None,
    });
    let limits = limits.unwrap_or_default();
    [(Phase::PreAuthz, "before"), (Phase::PostAuthz, "after")]
        .into_iter()
        .flat_map(|(phase, word)| of_phase(limits, phase, word, values))
        .collect()
}

fn of_phase(limits: &[Arc<Limits>], phase: Phase, word: &str, values: u32) -> Vec<String> {
    let line = |step: LimitStep<'_>| {
        let items: Vec<String> = step.items.iter().map(|item| describe(item)).collect();
        format!(
            "{word} authorization, priority {}: {} about {}",
            step.priority,
            counter(&step.counter, values),
            items.join("; ")
        )
    };
    steps(limits, phase).into_iter().map(line).collect()
}

fn counter(counter: &StepCounter<'_>, values: u32) -> String {
    match counter {
        StepCounter::Service(asked) => service(asked),
        StepCounter::Gateways(buckets) => {
            let buckets: Vec<String> = buckets.iter().map(|one| bucket(one)).collect();
            let few = match values < MOST_VALUES {
                true => format!(" (of each entry without a value only the last {values} values apart)"),
                false => String::new(),
            };
            format!("the gateway allows {}{few}", buckets.join("; "))
        }
    }
}

/// The entries of a bucket behind the first, as [`describe`] shows those of items.
fn bucket(bucket: &Bucket) -> String {
    let entries = bucket.entries.iter().skip(1).map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.to_string(),
    });
    let allowed = match &bucket.limit {
        Some(limit) => format!("{} per {}", limit.requests, format!("{:?}", limit.unit).to_lowercase()),
        None => "any number".to_owned(),
    };
    format!("{allowed} of {}", entries.collect::<Vec<_>>().join(", "))
}

fn service(service: &LimitService) -> String {
    let LimitService { server, timeout, deny_on_fail } = service;
    let patience = if *timeout == Duration::ZERO { "without end".to_owned() } else { format!("{timeout:?}") };
    let otherwise = if *deny_on_fail { "refuses" } else { "passes" };
    format!("asks {server} ({patience}, {otherwise} without an answer)")
}

/// The entries of an item behind the first, which says whose rules are meant and stands in front.
fn describe(item: &LimitItem) -> String {
    let of = |action: &LimitAction| match action.fixed_value() {
        Some(value) => format!("{}={value}", action.key()),
        None => action.key().to_owned(),
    };
    let whose = item.actions.first().and_then(LimitAction::fixed_value);
    let entries: Vec<String> = item.actions.iter().skip(1).map(of).collect();
    format!("{} {}", whose.map(ToString::to_string).unwrap_or_default(), entries.join(", "))
}
