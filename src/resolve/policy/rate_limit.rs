//! RateLimitPolicy and what it refers to. All policies on a target apply, by phase, priority, then age.

mod actions;
mod server;
pub mod sets;
pub mod tree;

use crate::crd::policy::{RateLimitClientConfig, RateLimitPolicy};
use crate::ir::policy::Phase;
use crate::ir::policy::rate_limit::{LimitAction, LimitActions, LimitSource, MetadataPath, RateLimit};
use crate::model::{FieldPath, Findings, Kind, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::no_config;
use super::parts::{config, fault, place, reference, remark};

pub use server::{rules, server};

/// First key of every descriptor: whose rules are meant.
const CONFIG_KEY: &str = "chancery.config";

/// What a RateLimitPolicy means.
///
/// # Errors
/// A reference without name; an action that is none, or lacks what it needs. An invalid policy limits nothing.
///
/// # Rule
/// R123, R125.
pub fn lower(id: &ObjectRef, policy: &RateLimitPolicy, remarks: &mut Findings) -> Result<RateLimit, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let root = self::config();
    let refer = |name: &str, kind: Kind, written: &Option<crate::crd::common::ObjectReference>| match written {
        Some(written) => reference(&root.field(name), kind, written, id).map(Some),
        None => Ok(None),
    };
    let rules = refer("ratelimitServerConfig", Kind::RateLimitServerConfig, &config.ratelimit_server_config)?;
    if rules.is_none() {
        let why = "nothing is limited without `ratelimitServerConfig`; name one";
        remark(id, &root.field("ratelimitServerConfig"), why, remarks);
    }
    let server = refer("serverSettings", Kind::RateLimitServerSettings, &config.server_settings)?;
    let client = refer("ratelimitClientConfig", Kind::RateLimitClientConfig, &config.ratelimit_client_config)?;
    let source = match (&config.raw, client) {
        (Some(raw), _) => LimitSource::Here(actions::lower(id, &root.field("raw"), raw, remarks)?),
        (None, Some(client)) => LimitSource::Client(client),
        (None, None) => {
            remark(id, &root, "nothing is limited: write `raw` or `ratelimitClientConfig`", remarks);
            LimitSource::Nothing
        }
    };
    Ok(RateLimit { place: place(config.phase.as_ref(), Phase::PostAuthz), rules, server, source })
}

/// What a RateLimitClientConfig means.
///
/// # Errors
/// As [`lower`]; a faulty one limits nothing wherever it is used.
pub fn client(
    id: &ObjectRef,
    config: &RateLimitClientConfig,
    remarks: &mut Findings,
) -> Result<Vec<LimitActions>, Fault> {
    let field = FieldPath::new("spec.raw");
    let Some(raw) = &config.raw else { return Err(fault(&field, "there are no actions: write `raw`")) };
    actions::lower(id, &field, raw, remarks)
}

/// How rules of a configuration are kept apart from those of others: `<cluster>/<namespace>/<name>`.
fn config_name(config: &ObjectRef) -> String {
    format!("{}/{}/{}", config.cluster, config.namespace, config.name)
}

/// The entry with which every descriptor starts.
fn prefix(config: &ObjectRef) -> LimitAction {
    LimitAction::Generic { key: Some(CONFIG_KEY.into()), value: config_name(config).into() }
}

/// What gateways send for actions whose order counts, for the rules of a configuration that are trees.
#[must_use]
pub fn ordered_item(
    config: &ObjectRef,
    actions: &[LimitAction],
    limit: Option<&MetadataPath>,
) -> crate::ir::policy::rate_limit::LimitItem {
    let mut all = vec![prefix(config)];
    all.extend_from_slice(actions);
    crate::ir::policy::rate_limit::LimitItem { actions: all, limit: limit.cloned() }
}

/// The name of a limit: unique within all configurations of a service, because names cancel each other there.
fn limit_name(config: &ObjectRef, rule: &str) -> Name {
    format!("{}#{rule}", config_name(config)).into()
}

#[cfg(test)]
mod tests;
