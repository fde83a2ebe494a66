//! FaultInjectionPolicy: delays and errors for a share of requests. The oldest applies.

use crate::crd::policy::FaultInjectionPolicy;
use crate::ir::policy::{FaultAbort, FaultDelay, FaultInjection};
use crate::resolve::facts::Fault;

use super::{config_fault, no_config, per_million};

/// What a FaultInjectionPolicy means.
///
/// # Errors
/// Neither `delay` nor `abort`; a delay below 1 ms or finer than milliseconds; a status outside 200 to 599; a percentage
/// that is not 0 or 0.0001 to 100.
///
/// # Rule
/// The manual's page on policies, FaultInjectionPolicy.
pub fn lower(policy: &FaultInjectionPolicy) -> Result<FaultInjection, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let mut faults = FaultInjection::default();
    if let Some(delay) = &config.delay {
        let Some(fixed) = delay.fixed_delay.map(crate::crd::Duration::get) else {
            return Err(config_fault("delay.fixedDelay", "a delay needs its length, for instance `2s`"));
        };
        if fixed.is_zero() || !fixed.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(config_fault("delay.fixedDelay", "a delay is at least 1ms and counts in whole milliseconds"));
        }
        let per_million = per_million("delay.percentage", delay.percentage)?;
        faults.delay = Some(FaultDelay { fixed_delay: fixed, per_million });
    }
    if let Some(abort) = &config.abort {
        let status = abort.http_status.unwrap_or(0);
        let http_status =
            u16::try_from(status).ok().filter(|status| (200..=599).contains(status)).ok_or_else(|| {
                config_fault("abort.httpStatus", format!("{status} is no status that can be sent: write 200 to 599"))
            })?;
        let per_million = per_million("abort.percentage", abort.percentage)?;
        faults.abort = Some(FaultAbort { http_status, per_million });
    }
    if faults == FaultInjection::default() {
        return Err(config_fault("", "the policy injects nothing: write `delay`, `abort` or both"));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests;
