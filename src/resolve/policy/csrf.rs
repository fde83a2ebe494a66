//! CSRFPolicy: requests that change state and come from another origin. The oldest applies.

use crate::crd::policy::CsrfPolicy;
use crate::crd::policy::csrf as written;
use crate::ir::policy::csrf::Csrf;
use crate::ir::policy::{OriginMatch, OriginPattern};
use crate::model::{FieldPath, Findings, ObjectRef};
use crate::resolve::facts::Fault;

use super::parts::{config, fault, quoted, remark, string_match};
use super::{no_config, per_million};

/// What a CSRFPolicy means.
///
/// # Errors
/// A percentage out of range; an origin without a condition, with a bad expression, or with a scheme or path, which no
/// request can have.
///
/// # Rule
/// R123, R130.
pub fn lower(id: &ObjectRef, policy: &CsrfPolicy, remarks: &mut Findings) -> Result<Csrf, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let share = per_million("percentage", config.percentage)?;
    let mut csrf = Csrf::default();
    for (field, written) in origins(config) {
        csrf.additional_origins.push(origin(&field, written)?);
        if written.regex.as_ref().is_some_and(|regex| regex.contains("://")) {
            let text = "origins are compared as `host` or `host:port`; an expression that wants a scheme never matches";
            remark(id, &field.field("regex"), text, remarks);
        }
    }
    let percentage = self::config().field("percentage");
    if config.filter_enabled {
        csrf.enforced_per_million = share;
        if share == 0 {
            remark(id, &percentage, "0 percent refuses nothing; leave it out to protect every request", remarks);
        }
    } else if config.shadow_enabled {
        csrf.shadow = share > 0;
        if share > 0 && share < 1_000_000 {
            remark(
                id,
                &percentage,
                "a part cannot be counted without refusing some; all requests are counted",
                remarks,
            );
        }
    }
    Ok(csrf)
}

/// What stands for a policy that is invalid: every request is judged, and only origins that can be read are allowed.
///
/// # Rule
/// R130.
#[must_use]
pub fn closed(policy: &CsrfPolicy) -> Csrf {
    let readable = policy.config.iter().flat_map(origins);
    let additional_origins = readable.filter_map(|(field, written)| origin(&field, written).ok()).collect();
    strict(additional_origins)
}

/// A valid policy, where a younger one is invalid: all that it leaves open is closed, and nothing more is allowed than it
/// allows.
///
/// # Rule
/// R130: no other policy takes the place of an invalid one, which must open nothing either.
pub fn harden(csrf: &mut Csrf) {
    *csrf = strict(std::mem::take(&mut csrf.additional_origins));
}

fn strict(additional_origins: Vec<OriginMatch>) -> Csrf {
    Csrf { enforced_per_million: 1_000_000, shadow: false, additional_origins, is_strict: true }
}

fn origins(config: &written::Csrf) -> impl Iterator<Item = (FieldPath, &crate::crd::common::StringMatch)> {
    let list = self::config().field("additionalOrigins");
    config.additional_origins.iter().enumerate().map(move |(index, written)| (list.index(index), written))
}

fn origin(field: &FieldPath, written: &crate::crd::common::StringMatch) -> Result<OriginMatch, Fault> {
    let origin = string_match(field, written)?;
    match &origin.pattern {
        OriginPattern::Exact(text) | OriginPattern::Prefix(text) | OriginPattern::Suffix(text)
            if text.contains('/') =>
        {
            Err(fault(field, format!("{} never matches: write `host` or `host:port`, without a scheme", quoted(text))))
        }
        _ => Ok(origin),
    }
}

#[cfg(test)]
mod tests;
