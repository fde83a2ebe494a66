//! The API's own reports: the lists behind the counts of a status, under the API's names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::compile::Compiled;
use crate::ir::route::Hop;
use crate::model::{Kind, ObjectRef};
use crate::resolve::world::World;

/// The report of a route table or of a policy that selects routes. What has no entries is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Of a table: the policies on the routes that end in it, by kind as `group/version, Kind=kind`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub applied_route_policies: BTreeMap<String, AppliedRoutePolicies>,
    /// Of a table: the tables that delegate to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_route_tables: Vec<ObjectReference>,
    /// Of a table: the tables to which it delegates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delegated_to_route_tables: Vec<DelegatedTo>,
    /// Of a table: the gateways that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_virtual_gateways: Vec<ObjectReference>,
    /// Of a policy: the routes that it is on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected_routes: Vec<RouteReference>,
    /// The workspace that owns the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_workspace: Option<String>,
}

/// Policies of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRoutePolicies {
    /// Each with its route.
    pub policies: Vec<AppliedRoutePolicy>,
}

/// A policy on a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRoutePolicy {
    /// Position of the route in the table, from 0.
    pub route_index: usize,
    /// Name of the route.
    pub route_name: String,
    /// The policy.
    pub policy: ObjectReference,
    /// Where the table is delegated to: the root table by which the route is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_route_table: Option<ObjectReference>,
}

/// A route of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReference {
    /// The table.
    pub route_table: ObjectReference,
    /// Position in it, from 0.
    pub route_index: usize,
    /// Its name.
    pub route_name: String,
}

/// A direct delegation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelegatedTo {
    /// Position of the route that delegates, from 0.
    pub route_index: usize,
    /// The table to which it does.
    pub route_table: ObjectReference,
}

/// Another object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectReference {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&ObjectRef> for ObjectReference {
    fn from(id: &ObjectRef) -> Self {
        Self { cluster: id.cluster.to_string(), namespace: id.namespace.to_string(), name: id.name.to_string() }
    }
}

impl From<&Hop> for RouteReference {
    fn from(hop: &Hop) -> Self {
        Self { route_table: (&hop.table).into(), route_index: hop.index, route_name: hop.route.to_string() }
    }
}

/// The report of an object; none of kinds whose reports are not made.
///
/// # Cost
/// In proportion to all routes.
///
/// # Rule
/// R135: what is listed here is counted there.
#[must_use]
pub fn report(compiled: &Compiled, id: &ObjectRef) -> Option<Report> {
    let owner = compiled.inputs.roster().owner_of(id).map(|owner| owner.0.to_string());
    let mut report = Report { owner_workspace: owner, ..Report::default() };
    match id.kind {
        Kind::RouteTable => of_table(compiled, id, &mut report),
        kind if kind.is_policy() => of_policy(compiled, id, &mut report),
        _ => return None,
    }
    Some(report)
}

/// The chains and policies of all routes of tables.
fn routes(compiled: &Compiled) -> impl Iterator<Item = (&[Hop], BTreeSet<&ObjectRef>)> {
    let trees = compiled.trees.values().filter(|grown| grown.tree.root.id.kind == Kind::RouteTable);
    trees.flat_map(|grown| grown.served()).map(|served| {
        // One that is on several destinations of a route is on one route.
        (&*served.body.chain, served.body.attached.iter().map(|attachment| &attachment.policy).collect())
    })
}

fn of_table(compiled: &Compiled, id: &ObjectRef, report: &mut Report) {
    let mut applied: BTreeMap<String, BTreeSet<AppliedRoutePolicy>> = BTreeMap::new();
    let mut delegated = BTreeSet::new();
    for (chain, policies) in routes(compiled) {
        for (from, to) in chain.iter().zip(chain.iter().skip(1)).filter(|(from, _)| from.table == *id) {
            delegated.insert(DelegatedTo { route_index: from.index, route_table: (&to.table).into() });
        }
        let (Some(root), Some(last)) = (chain.first(), chain.last().filter(|last| last.table == *id)) else { continue };
        for policy in policies {
            let key = format!("{}, Kind={}", policy.kind.group().api_version(), policy.kind);
            applied.entry(key).or_default().insert(AppliedRoutePolicy {
                route_index: last.index,
                route_name: last.route.to_string(),
                policy: policy.into(),
                root_route_table: (root.table != *id).then(|| (&root.table).into()),
            });
        }
    }
    let list = |policies: BTreeSet<_>| AppliedRoutePolicies { policies: policies.into_iter().collect() };
    report.applied_route_policies = applied.into_iter().map(|(kind, policies)| (kind, list(policies))).collect();
    report.delegated_to_route_tables = delegated.into_iter().collect();
    let parents: BTreeSet<&ObjectRef> =
        compiled.trees.values().filter_map(|grown| grown.tree.parents.get(id)).flatten().collect();
    report.parent_route_tables = parents.into_iter().map(Into::into).collect();
    let gateways = compiled.bindings.gateways.get(id);
    report.allowed_virtual_gateways = gateways.into_iter().flat_map(|all| all.iter()).map(Into::into).collect();
}

fn of_policy(compiled: &Compiled, id: &ObjectRef, report: &mut Report) {
    let on = routes(compiled).filter(|(_, policies)| policies.contains(id));
    let selected: BTreeSet<RouteReference> = on.filter_map(|(chain, _)| chain.last().map(Into::into)).collect();
    report.selected_routes = selected.into_iter().collect();
}
