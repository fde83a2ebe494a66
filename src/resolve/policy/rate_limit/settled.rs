//! A RateLimitPolicy with its references followed.

use std::sync::Arc;

use crate::ir::policy::rate_limit::{
    Counter, Enforcers, LimitActions, LimitItem, LimitRules, LimitServer, LimitService, LimitSource, Limits, RateLimit,
};
use crate::ir::policy::reference::DestinationRef;
use crate::ir::upstream::{Purpose, UpstreamId};
use crate::model::{FieldPath, Kind, Labels, ObjectRef};
use crate::resolve::facts::Fault;
use crate::resolve::policy::parts::{config, fault, unsupported};
use crate::resolve::policy::settling::References;
use crate::resolve::world::World;

use super::{LimitContent, LimitObject, local, ordered_item, serving, sets};

/// Namespace and name of the service that is asked where nobody names one.
const USUAL_SERVICE: (&str, &str) = ("gloo-mesh", "rate-limiter");

/// Follows the references of a policy. One that limits nothing is none.
///
/// # Errors
/// An object that is not there, belongs to another workspace or is invalid; a service that is not there. Such a policy
/// limits nothing, whatever its settings say of a service that does not answer.
pub(in crate::resolve::policy) fn settle<W: World + ?Sized>(
    references: &mut References<'_, W>,
    policy: &RateLimit,
) -> Result<Vec<Arc<Limits>>, Fault> {
    let root = config();
    let rules = match &policy.rules {
        Some(id) => Some(rules(references, &root.field("ratelimitServerConfig"), id)?),
        None => None,
    };
    let client;
    let actions = match &policy.source {
        LimitSource::Here(actions) => actions,
        LimitSource::Client(id) => {
            let field = root.field("ratelimitClientConfig");
            client = object(references, &field, id)?;
            match &client.content {
                Ok(LimitContent::Actions(actions)) => actions,
                _ => return Err(other(&field, id)),
            }
        }
        LimitSource::Nothing => &Vec::new(),
    };
    let field = root.field("serverSettings");
    let settings = match &policy.server {
        Some(id) => settings(references, &field, id)?,
        None => LimitServer::default(),
    };
    let Some((id, rules)) = rules else { return Ok(Vec::new()) };
    let items = items(references, &id, &rules, actions);
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let counter = match &rules.enforcers {
        Enforcers::Services(services) => {
            Counter::Service(asked(references, &field, &settings, (&id, services.as_slice()))?)
        }
        Enforcers::Gateways => {
            if policy.server.is_some() {
                references.remark(&field, format!("nobody is asked, because gateways enforce `{id}` by themselves"));
            }
            let root = root.field("ratelimitServerConfig");
            if items.iter().any(|item| item.limit.is_some()) {
                let message =
                    format!("gateways that enforce `{id}` by themselves know no `limit` of a request; remove it");
                return Err(unsupported(&root, message));
            }
            let buckets = local::buckets(&serving::node(&id, &rules), &items);
            Counter::Gateways(buckets.map_err(|reason| unsupported(&root, reason))?)
        }
    };
    Ok(vec![Arc::new(Limits { policy: references.policy.clone(), place: policy.place, counter, items })])
}

/// How the service is asked.
fn asked<W: World + ?Sized>(
    references: &mut References<'_, W>,
    field: &FieldPath,
    settings: &LimitServer,
    (id, services): (&ObjectRef, &[DestinationRef]),
) -> Result<LimitService, Fault> {
    let server = service(references, field, settings.destination.as_ref())?;
    let world = references.world;
    let reached = serving::destinations(world, id, references.owner, services, &mut Vec::new());
    if serving::services(world, &server).all(|service| !reached.contains(&service)) {
        let text = format!(
            "`{server}` does not get the rules of `{id}`, so nothing is limited; name it in `destinationServers` there"
        );
        references.remark(field, text);
    }
    Ok(LimitService { server, timeout: settings.timeout, deny_on_fail: settings.deny_on_fail })
}

/// An object of the policy's own workspace.
fn object<W: World + ?Sized>(
    references: &References<'_, W>,
    field: &FieldPath,
    id: &ObjectRef,
) -> Result<Arc<LimitObject>, Fault> {
    let found = references.limit_object(field, id)?;
    match &found.content {
        Ok(_) => Ok(found),
        Err(reason) => Err(fault(field, format!("`{id}` is invalid: {}", reason.message))),
    }
}

/// An object of a kind that the field cannot name. Fields decide kinds, so there is none.
fn other(field: &FieldPath, id: &ObjectRef) -> Fault {
    fault(field, format!("`{id}` is of another kind"))
}

fn rules<W: World + ?Sized>(
    references: &References<'_, W>,
    field: &FieldPath,
    id: &ObjectRef,
) -> Result<(ObjectRef, LimitRules), Fault> {
    match &object(references, field, id)?.content {
        Ok(LimitContent::Rules(rules)) => Ok((id.clone(), rules.clone())),
        _ => Err(other(field, id)),
    }
}

fn settings<W: World + ?Sized>(
    references: &References<'_, W>,
    field: &FieldPath,
    id: &ObjectRef,
) -> Result<LimitServer, Fault> {
    match &object(references, field, id)?.content {
        Ok(LimitContent::Server(server)) => Ok(server.clone()),
        _ => Err(other(field, id)),
    }
}

/// What gateways send, for all entries of a list.
fn items<W: World + ?Sized>(
    references: &mut References<'_, W>,
    id: &ObjectRef,
    rules: &LimitRules,
    actions: &[LimitActions],
) -> Vec<LimitItem> {
    let mut items: Vec<LimitItem> = Vec::new();
    let field = config();
    for entry in actions {
        let limit = entry.limit.as_ref();
        if !entry.actions.is_empty() {
            if rules.tree.is_empty() {
                references.remark(&field, format!("`actions` have no effect, because `{id}` has no `descriptors`"));
            } else {
                items.push(ordered_item(id, &entry.actions, limit));
            }
        }
        let sets::Items { items: of_sets, remarks } = sets::items(id, &rules.sets, &entry.set_actions, limit);
        remarks.into_iter().for_each(|remark| references.remark(&field, remark));
        items.extend(of_sets);
    }
    // The service would count the same twice.
    let mut known: Vec<LimitItem> = Vec::with_capacity(items.len());
    for item in items {
        if !known.contains(&item) {
            known.push(item);
        }
    }
    known
}

/// The service that is asked: in the cluster that is written, else in another one that has it.
fn service<W: World + ?Sized>(
    references: &mut References<'_, W>,
    field: &FieldPath,
    written: Option<&DestinationRef>,
) -> Result<UpstreamId, Fault> {
    let usual = DestinationRef {
        object: ObjectRef::new(Kind::Service, &references.policy.cluster, USUAL_SERVICE.0, USUAL_SERVICE.1),
        port: None,
        subset: Labels::new(),
    };
    references.upstream(field, written.unwrap_or(&usual), Purpose::GrpcServer)
}
