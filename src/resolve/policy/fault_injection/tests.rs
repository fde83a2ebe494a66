use std::time::Duration;

use super::super::tests::{Meaning, meaning};
use super::*;
use crate::ir::policy::Policy;
use crate::model::Kind;

fn policy(config: &str) -> Meaning {
    meaning(Kind::FaultInjectionPolicy, config)
}

fn valid(config: &str) -> FaultInjection {
    match policy(config).valid() {
        Policy::FaultInjection(faults) => faults,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_has_its_effect() {
    let expected = FaultInjection {
        delay: Some(FaultDelay { fixed_delay: Duration::from_millis(1_500), per_million: 100_000 }),
        abort: Some(FaultAbort { http_status: 418, per_million: 5_000 }),
    };
    assert_eq!(
        valid("{delay: {fixedDelay: 1.5s, percentage: 10}, abort: {httpStatus: 418, percentage: 0.5}}"),
        expected
    );
}

#[test]
fn either_part_may_be_left_out_and_the_share_is_all_requests() {
    let delay = FaultDelay { fixed_delay: Duration::from_millis(1), per_million: 1_000_000 };
    assert_eq!(valid("delay: {fixedDelay: 1ms}"), FaultInjection { delay: Some(delay), abort: None });
    let abort = FaultAbort { http_status: 503, per_million: 1_000_000 };
    assert_eq!(valid("abort: {httpStatus: 503}"), FaultInjection { delay: None, abort: Some(abort) });
}

#[test]
fn shares_are_rounded_to_a_millionth() {
    for (written, millionths) in
        [("0", 0), ("0.0001", 1), ("0.00016", 2), ("33.33333", 333_333), ("99.99999", 1_000_000), ("100", 1_000_000)]
    {
        let abort = valid(&format!("abort: {{httpStatus: 500, percentage: {written}}}")).abort.expect("an abort");
        assert_eq!(abort.per_million, millionths, "{written}");
    }
}

#[test]
fn statuses_end_at_200_and_599() {
    for status in [200, 599] {
        let abort = valid(&format!("abort: {{httpStatus: {status}}}")).abort.expect("an abort");
        assert_eq!(i32::from(abort.http_status), status);
    }
}

#[test]
fn what_is_out_of_range_injects_nothing() {
    for (field, config) in [
        ("delay.fixedDelay", "delay: {}"),
        ("delay.fixedDelay", "delay: {percentage: 10}"),
        ("delay.fixedDelay", "delay: {fixedDelay: 0s}"),
        ("delay.fixedDelay", "delay: {fixedDelay: 999us}"),
        ("delay.fixedDelay", "delay: {fixedDelay: 1500us}"),
        ("delay.fixedDelay", "delay: {fixedDelay: -1s}"),
        ("delay.fixedDelay", "delay: {fixedDelay: 2}"),
        ("delay.percentage", "delay: {fixedDelay: 1s, percentage: -1}"),
        ("delay.percentage", "delay: {fixedDelay: 1s, percentage: 0.00009}"),
        ("delay.percentage", "delay: {fixedDelay: 1s, percentage: 100.00001}"),
        ("abort.httpStatus", "abort: {}"),
        ("abort.httpStatus", "abort: {httpStatus: 199}"),
        ("abort.httpStatus", "abort: {httpStatus: 600}"),
        ("abort.httpStatus", "abort: {httpStatus: -1}"),
        ("abort.percentage", "abort: {httpStatus: 500, percentage: 101}"),
        // One bad part makes the whole policy invalid.
        ("abort.httpStatus", "{delay: {fixedDelay: 1s}, abort: {httpStatus: 0}}"),
    ] {
        assert_eq!(policy(config).fault(), format!("spec.config.{field}"), "{config}");
    }
}
