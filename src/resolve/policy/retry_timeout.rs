//! RetryTimeoutPolicy: request timeout and retries. The oldest applies.

use std::time::Duration;

use crate::crd::policy::RetryTimeoutPolicy;
use crate::ir::policy::{Retries, RetryTimeout};
use crate::model::{Code, FieldPath, Finding, Findings, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::{config_fault, no_config};

/// Conditions that Envoy knows, for HTTP and for gRPC.
const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// What a policy with `retries` but without `retryOn` retries on, beside status 503.
const DEFAULT_CONDITIONS: &[&str] =
    &["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"];

/// What a RetryTimeoutPolicy means.
///
/// # Errors
/// Neither `retries` nor `requestTimeout`; a duration below 1 ms or finer than milliseconds; negative attempts; an unknown
/// condition or a status outside 100 to 599; `attempts: 0` together with other fields of `retries`.
///
/// # Rule
/// The manual's page on policies, RetryTimeoutPolicy.
pub fn lower(id: &ObjectRef, policy: &RetryTimeoutPolicy, remarks: &mut Findings) -> Result<RetryTimeout, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    if config.request_timeout.is_none() && config.retries.is_none() {
        return Err(config_fault("", "the policy changes nothing: write `requestTimeout`, `retries` or both"));
    }
    let request_timeout = match config.request_timeout {
        // An explicit zero is no timeout, as without the policy.
        Some(timeout) if timeout.get().is_zero() => None,
        Some(timeout) => Some(milliseconds("requestTimeout", timeout.get())?),
        None => None,
    };
    let mut remark = |field: &str, message: &str| {
        remarks.push(
            Finding::warning(id, Code::PolicyRemark, message.to_owned())
                .at(FieldPath::new(format!("spec.config.{field}"))),
        );
    };
    let Some(written) = &config.retries else { return Ok(RetryTimeout { request_timeout, retries: None }) };
    let attempts = u32::try_from(written.attempts.unwrap_or(2))
        .map_err(|_| config_fault("retries.attempts", "attempts are 0 or more; 0 switches retries off"))?;
    let per_try_timeout = match written.per_try_timeout {
        Some(timeout) => Some(milliseconds("retries.perTryTimeout", timeout.get())?),
        None => None,
    };
    let remote = written.retry_remote_localities.unwrap_or(false);
    if attempts == 0 && (per_try_timeout.is_some() || !written.retry_on.is_empty() || remote) {
        return Err(config_fault(
            "retries.attempts",
            "`attempts: 0` switches retries off, so the other fields of `retries` must be left out",
        ));
    }
    let (retry_on, retriable_status_codes) = conditions(&written.retry_on)?;
    if retry_on.iter().any(|c| *c == "retriable-headers") {
        remark("retries.retryOn", "`retriable-headers` has no headers to look for here, so it never holds");
    }
    if let (Some(per_try), Some(whole)) = (per_try_timeout, request_timeout)
        && per_try >= whole
    {
        remark(
            "retries.perTryTimeout",
            "the first try may use up `requestTimeout`, so nothing is left for a retry; make it shorter",
        );
    }
    if per_try_timeout.is_some() && !retry_on.iter().any(|c| matches!(c.as_str(), "5xx" | "gateway-error" | "reset")) {
        remark(
            "retries.perTryTimeout",
            "a try that times out is not retried by these conditions; add `5xx`, `gateway-error` or `reset` to `retryOn`",
        );
    }
    let retries =
        Retries { attempts, per_try_timeout, retry_on, retriable_status_codes, retry_remote_localities: remote };
    Ok(RetryTimeout { request_timeout, retries: Some(retries) })
}

/// A duration of at least 1 ms, in whole milliseconds.
fn milliseconds(field: &str, duration: Duration) -> Result<Duration, Fault> {
    if duration.is_zero() || !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(config_fault(field, "the duration is at least 1ms and counts in whole milliseconds"));
    }
    Ok(duration)
}

/// `retryOn` as Envoy's conditions and status codes.
fn conditions(written: &str) -> Result<(Vec<Name>, Vec<u16>), Fault> {
    let mut names: Vec<Name> = Vec::new();
    let mut codes: Vec<u16> = Vec::new();
    for token in written.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        if let (true, Ok(code)) = (token.bytes().all(|b| b.is_ascii_digit()), token.parse::<u16>()) {
            if !(100..=599).contains(&code) {
                return Err(config_fault("retries.retryOn", format!("{code} is no HTTP status: write 100 to 599")));
            }
            codes.push(code);
        } else if CONDITIONS.contains(&token) {
            names.push(token.into());
        } else {
            return Err(config_fault(
                "retries.retryOn",
                format!("`{token}` is no condition: write a status or some of {}", CONDITIONS.join(", ")),
            ));
        }
    }
    if names.is_empty() && codes.is_empty() {
        return Ok((DEFAULT_CONDITIONS.iter().map(|c| Name::from(*c)).collect(), vec![503]));
    }
    if !codes.is_empty() && !names.iter().any(|c| *c == "retriable-status-codes") {
        names.push("retriable-status-codes".into());
    }
    names.dedup();
    codes.sort_unstable();
    codes.dedup();
    Ok((names, codes))
}

#[cfg(test)]
mod tests;
