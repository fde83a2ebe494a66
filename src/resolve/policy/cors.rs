//! CORSPolicy: cross-origin rules for routes. The oldest applies.

use crate::crd::policy::CorsPolicy;
use crate::ir::policy::Cors;
use crate::model::Name;
use crate::resolve::facts::Fault;

use super::parts::{config, string_match};
use super::{config_fault, is_header_name, no_config};

/// What a CORSPolicy means.
///
/// # Errors
/// An origin without a condition or with a bad expression, a method or header that is no token, a `maxAge` that is not
/// whole seconds. Without the policy browsers refuse cross-origin calls, which is the closed state.
///
/// # Rule
/// The manual's page on policies, CORSPolicy.
pub fn lower(policy: &CorsPolicy) -> Result<Cors, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let mut cors = Cors { allow_credentials: config.allow_credentials, ..Cors::default() };
    let list = self::config().field("allowOrigins");
    for (index, origin) in config.allow_origins.iter().enumerate() {
        cors.allow_origins.push(string_match(&list.index(index), origin)?);
    }
    cors.allow_methods = tokens("allowMethods", &config.allow_methods)?;
    cors.allow_headers = tokens("allowHeaders", &config.allow_headers)?;
    cors.expose_headers = tokens("exposeHeaders", &config.expose_headers)?;
    if let Some(age) = config.max_age {
        let age = age.get();
        if age.subsec_nanos() != 0 {
            return Err(config_fault(
                "maxAge",
                "the cache time of preflights counts in whole seconds, for instance `24h`",
            ));
        }
        cors.max_age_seconds = Some(age.as_secs());
    }
    Ok(cors)
}

/// Methods and headers travel in one comma-separated header: anything but a token would change the list.
fn tokens(field: &str, written: &[String]) -> Result<Vec<Name>, Fault> {
    written
        .iter()
        .enumerate()
        .map(|(index, text)| {
            if is_header_name(text) {
                Ok(Name::from(text))
            } else {
                Err(config_fault(&format!("{field}[{index}]"), format!("`{text}` is not one name; write one per item")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
