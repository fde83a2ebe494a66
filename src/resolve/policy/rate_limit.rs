//! RateLimitPolicy and what it refers to. All policies on a target apply, by phase, priority, then age.

mod actions;
pub mod fitting;
mod local;
mod server;
pub mod serving;
pub mod sets;
mod settled;
pub mod tree;

use crate::crd::policy::{RateLimitClientConfig, RateLimitPolicy};
use crate::crd::{Object, Spec};
use crate::ir::policy::Phase;
use crate::ir::policy::rate_limit::{
    LimitAction, LimitActions, LimitItem, LimitRules, LimitServer, LimitSource, MetadataPath, RateLimit,
};
use crate::model::{FieldPath, Finding, Findings, Kind, Name, ObjectRef};
use crate::resolve::facts::{Age, Fault};

use super::no_config;
use super::parts::{config, fault, place, reference, remark};

pub use server::{rules, server};
pub(super) use settled::settle;

/// An object that RateLimitPolicies refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitObject {
    /// The object.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// What it says, or why it says nothing.
    pub content: Result<LimitContent, Fault>,
}

/// What such an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitContent {
    /// RateLimitClientConfig: what the service is told.
    Actions(Vec<LimitActions>),
    /// RateLimitServerConfig: what the service allows.
    Rules(LimitRules),
    /// RateLimitServerSettings: how it is asked.
    Server(LimitServer),
}

/// Checks an object that RateLimitPolicies refer to; nothing for others.
///
/// # Findings
/// [`InvalidField`](crate::model::Code::InvalidField) and [`Unsupported`](crate::model::Code::Unsupported) as errors,
/// [`PolicyRemark`](crate::model::Code::PolicyRemark) as warnings, on the object.
#[must_use]
pub fn referenced(object: &Object, findings: &mut Findings) -> Option<LimitObject> {
    let id = &object.meta.id;
    let mut remarks = Findings::new();
    let content = match &*object.spec() {
        Spec::RateLimitClientConfig(config) => client(id, config, &mut remarks).map(LimitContent::Actions),
        Spec::RateLimitServerConfig(config) => rules(&object.meta, config, &mut remarks).map(LimitContent::Rules),
        Spec::RateLimitServerSettings(settings) => server(id, settings).map(LimitContent::Server),
        _ => return None,
    };
    let defect = object.defects.first().map(|defect| fault(&defect.field, defect.message.clone()));
    let content = match (defect, content) {
        // The decoder has reported defects of fields already.
        (Some(defect), _) => Err(defect),
        (None, Ok(content)) => {
            findings.extend(remarks);
            Ok(content)
        }
        (None, Err(fault)) => {
            findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
            Err(fault)
        }
    };
    Some(LimitObject { id: id.clone(), age: Age::new(object.meta.created, id), content })
}

/// The annotation by which a RateLimitServerConfig says that gateways enforce it themselves, and its word. A field of `spec`
/// would be dropped by API servers that have the kind as others define it.
pub const LOCAL: (&str, &str) = ("chancery/rate-limiting", "local");

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

/// The configuration whose rules an item is for.
#[must_use]
pub fn configuration_of(item: &LimitItem) -> Option<ObjectRef> {
    let mut parts = item.actions.first()?.fixed_value()?.split('/');
    let (cluster, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ObjectRef::new(Kind::RateLimitServerConfig, cluster, namespace, name))
}

/// What gateways send for actions whose order counts, for the rules of a configuration that are trees.
#[must_use]
pub fn ordered_item(config: &ObjectRef, actions: &[LimitAction], limit: Option<&MetadataPath>) -> LimitItem {
    let mut all = vec![prefix(config)];
    all.extend_from_slice(actions);
    LimitItem { actions: all, limit: limit.cloned() }
}

/// The name of a limit: unique within all configurations of a service, because names cancel each other there.
fn limit_name(config: &ObjectRef, rule: &str) -> Name {
    format!("{}#{rule}", config_name(config)).into()
}

#[cfg(test)]
mod tests;
