//! OutlierDetectionPolicy: which endpoints of a destination are left alone for a while. The oldest applies.

use std::time::Duration;

use crate::crd::policy::OutlierDetectionPolicy;
use crate::ir::policy::balancing::Outlier;
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef};
use crate::resolve::facts::Fault;

use super::balancing::remark_on_kinds;
use super::{config_fault, no_config};
use crate::crd::common::DestinationKind;

/// What an OutlierDetectionPolicy means.
///
/// # Errors
/// No `config`; no errors at all; a duration below 1 ms; more than 100 percent.
///
/// # Rule
/// R174, R177.
pub fn lower(id: &ObjectRef, policy: &OutlierDetectionPolicy, remarks: &mut Findings) -> Result<Outlier, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    remark_on_kinds(id, &policy.apply_to_destinations, DestinationKind::Service, remarks);
    let consecutive_errors = config.consecutive_errors.unwrap_or(5);
    if consecutive_errors == 0 {
        return Err(config_fault("consecutiveErrors", "write at least 1; 5 is what holds when it is left out"));
    }
    let consecutive_gateway_errors = config.consecutive_gateway_errors.filter(|errors| *errors > 0);
    if consecutive_gateway_errors.is_some_and(|errors| errors >= consecutive_errors) {
        let message = "every such error counts for `consecutiveErrors` too, which is reached first; write fewer";
        let at = FieldPath::new("spec.config.consecutiveGatewayErrors");
        remarks.push(Finding::warning(id, Code::PolicyRemark, message).at(at));
    }
    let at_least = |field: &str, written: Option<crate::crd::Duration>, default: u64| match written {
        Some(duration) if duration.get() < Duration::from_millis(1) => {
            Err(config_fault(field, "the duration is at least 1ms"))
        }
        Some(duration) => Ok(duration.get()),
        None => Ok(Duration::from_secs(default)),
    };
    let max_ejection_percent = match config.max_ejection_percent {
        None => 100,
        Some(0) => 10,
        Some(percent) if percent <= 100 => percent,
        Some(percent) => {
            return Err(config_fault("maxEjectionPercent", format!("{percent} is no percentage: write 1 to 100")));
        }
    };
    Ok(Outlier {
        consecutive_errors,
        consecutive_gateway_errors,
        interval: at_least("interval", config.interval, 10)?,
        base_ejection_time: at_least("baseEjectionTime", config.base_ejection_time, 30)?,
        max_ejection_percent,
    })
}
