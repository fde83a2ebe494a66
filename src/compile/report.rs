//! The verdict on each object: approval, message, counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::crd::Object;
use crate::ir::GatewayPlan;
use crate::model::{Approval, Code, Finding, GatewayId, Kind, ObjectRef, Severity};
use crate::resolve::access::reach;
use crate::resolve::gateway::{Bindings, GrownTree};
use crate::resolve::policy::rate_limit::serving::deliver;
use crate::resolve::world::World;
use crate::store::Store;

use super::inputs::Inputs;
use super::reported::Reported;

/// What an author is told about an object.
///
/// # Rule
/// R132 to R137.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub approval: Approval,
    /// Every finding, gravest first, as `CODE: message`, separated by `; `. Empty when there is none.
    pub message: String,
    /// Generation that was compiled.
    pub generation: i64,
    /// Counts by the API's own names (R135); zero counts are left out.
    pub counts: BTreeMap<String, u64>,
}

/// Renders the verdict on every object of the v2 API.
#[must_use]
pub fn verdicts(
    store: &Store,
    inputs: &Inputs,
    trees: &OrdMap<ObjectRef, Arc<GrownTree>>,
    bindings: &Bindings,
    plans: &OrdMap<GatewayId, Arc<GatewayPlan>>,
    findings: &Reported,
) -> OrdMap<ObjectRef, Arc<Verdict>> {
    let mut counts = count(inputs, trees, bindings, plans);
    store
        .objects()
        .filter(|object| object.meta.id.kind.is_v2())
        .map(|object| {
            let id = &object.meta.id;
            let counts = counts.remove(id).unwrap_or_default();
            let verdict = verdict(object, findings.about(id), inputs.is_counted(id), counts);
            (id.clone(), Arc::new(verdict))
        })
        .collect()
}

/// The verdict on one object.
pub(super) fn verdict(
    object: &Object,
    findings: &[Finding],
    is_counted: bool,
    counts: BTreeMap<String, u64>,
) -> Verdict {
    Verdict {
        approval: approval(object.meta.id.kind, findings, is_counted),
        message: message(findings),
        generation: object.meta.generation,
        counts,
    }
}

/// R132 and R133: what Envoy refused is FAILED, since nothing of the newest is in force; an invalid route makes a table INVALID
/// whatever its code; elsewhere what Envoy cannot express is FAILED.
fn approval(kind: Kind, findings: &[Finding], counted: bool) -> Approval {
    if !counted {
        return Approval::Pending;
    }
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    if !errors.is_empty() {
        let is_refused = errors.iter().any(|f| f.code == Code::RefusedByGateway);
        // Limits are valid without the service that they are asked of, and nothing comes of them.
        let has_nobody_to_ask = |code: Code| kind == Kind::RateLimitPolicy && code == Code::DestinationNotFound;
        let is_beyond_envoy =
            kind != Kind::RouteTable && errors.iter().all(|f| f.code == Code::Unsupported || has_nobody_to_ask(f.code));
        return if is_refused || is_beyond_envoy { Approval::Failed } else { Approval::Invalid };
    }
    if findings.iter().any(|f| f.severity == Severity::Warning) { Approval::Warning } else { Approval::Accepted }
}

/// Most bytes of a message; status objects are kept in etcd.
const MAX_MESSAGE: usize = 32 * 1024;

fn message(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut left = findings.len();
    for finding in findings {
        let prefix =
            if finding.code == Code::NotApplicable { "not applicable".to_owned() } else { finding.code.to_string() };
        // An API server shows no line of a file, and many fields have one name.
        let place = match finding.code {
            Code::UnknownField | Code::InvalidField if !finding.field.as_str().is_empty() => {
                format!(" ({})", finding.field)
            }
            _ => String::new(),
        };
        let part = format!("{prefix}: {}{place}", finding.message);
        if text.len() + part.len() > MAX_MESSAGE {
            text.push_str(&format!("; and {left} more"));
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&part);
        left -= 1;
    }
    text
}

/// R135.
fn count(
    inputs: &Inputs,
    trees: &OrdMap<ObjectRef, Arc<GrownTree>>,
    bindings: &Bindings,
    plans: &OrdMap<GatewayId, Arc<GatewayPlan>>,
) -> BTreeMap<ObjectRef, BTreeMap<String, u64>> {
    let mut counts: BTreeMap<ObjectRef, BTreeMap<String, u64>> = BTreeMap::new();
    let mut add = |id: &ObjectRef, what: &str, number: usize| {
        if number > 0 {
            *counts.entry(id.clone()).or_default().entry(what.to_owned()).or_default() += number as u64;
        }
    };
    let mut parents: BTreeMap<&ObjectRef, BTreeSet<&ObjectRef>> = BTreeMap::new();
    let mut selected: BTreeMap<&ObjectRef, usize> = BTreeMap::new();
    let mut applied: BTreeMap<(&ObjectRef, Kind), usize> = BTreeMap::new();
    for grown in trees.values() {
        for (child, above) in &grown.tree.parents {
            parents.entry(child).or_default().extend(above);
        }
        // What has no table of its own has no routes to count.
        if grown.tree.root.id.kind != Kind::RouteTable {
            continue;
        }
        for served in grown.served() {
            // One that is on several destinations of a route is on one route.
            let policies: BTreeSet<&ObjectRef> = served.body.attached.iter().map(|a| &a.policy).collect();
            for policy in policies {
                *selected.entry(policy).or_default() += 1;
                if let Some(last) = served.body.chain.last() {
                    *applied.entry((&last.table, policy.kind)).or_default() += 1;
                }
            }
        }
    }
    for (policy, routes) in selected {
        add(policy, "numSelectedRoutes", routes);
    }
    for ((table, kind), policies) in applied {
        let key = format!("numAppliedRoutePolicies.{}, Kind={kind}", kind.group().api_version());
        add(table, &key, policies);
    }
    for (child, above) in parents {
        add(child, "numParentRouteTables", above.len());
    }
    for (table, gateways) in &bindings.gateways {
        add(table, "numAllowedVirtualGateways", gateways.len());
    }
    let mut tables_of: BTreeMap<&ObjectRef, BTreeSet<&ObjectRef>> = BTreeMap::new();
    for ((gateway, _), tables) in &bindings.tables {
        tables_of.entry(gateway).or_default().extend(tables.values().map(|bound| &bound.0));
    }
    for (gateway, tables) in tables_of {
        add(gateway, "routeTablesCount", tables.len());
    }
    for virtual_gateway in inputs.virtual_gateways() {
        let implemented = plans
            .values()
            .filter(|plan| plan.listeners.values().any(|listener| listener.gateways.contains(&virtual_gateway.id)))
            .count();
        add(&virtual_gateway.id, "selectedWorkloadsCount", implemented);
    }
    for vd in inputs.all_virtual_destinations() {
        let backends = crate::resolve::upstream::backing_services(inputs, vd, &mut Vec::new());
        add(&vd.id, "numSelectedBackingServices", backends.len());
    }
    for service in inputs.all_external_services() {
        let endpoints = crate::resolve::external::judge(inputs, service, &mut Vec::new());
        add(&service.id, "numSelectedExternalEndpoints", endpoints);
    }
    let gateways: BTreeSet<GatewayId> = plans.keys().cloned().collect();
    for owner in inputs.policy_owners() {
        for policy in inputs.policies(&owner) {
            for (what, number) in reach(inputs, &owner, &policy, &gateways, &mut Vec::new()).counts() {
                add(&policy.id, what, number);
            }
        }
    }
    for object in inputs.all_limits() {
        let servers = deliver(inputs, object, &mut Vec::new()).map_or(0, |delivery| delivery.servers.len());
        add(&object.id, "numSelectedDestinationServers", servers);
    }
    for (id, member) in &inputs.roster().workspaces {
        let owned: Vec<_> = inputs.roster().namespaces_of(id).collect();
        let clusters: BTreeSet<_> = owned.iter().map(|(cluster, _)| cluster).collect();
        add(&member.workspace.id, "numSelectedNamespaces", owned.len());
        add(&member.workspace.id, "numSelectedClusters", clusters.len());
    }
    counts
}

#[cfg(test)]
mod tests;
