//! Every question that the rules may ask about the inputs, and no others.
//!
//! The from-scratch compile answers from plain maps. Whatever later answers from a cache must record what was asked:
//! asking for something absent is also an answer.

use std::sync::Arc;

use crate::model::{Name, ObjectRef, WorkspaceId};

use super::Options;
use super::facts::{
    ExternalService, Node, Pod, PolicyObject, Secret, Selector, Service, Slice, Table, VirtualDestination,
    VirtualGateway,
};
use super::roster::Roster;
use super::trust::RootOfTrust;

/// Questions about the inputs.
///
/// Lists come in age order. Objects of the v2 kinds are only those that count: owned by a workspace, in a namespace that
/// is read for configuration (R21, R24).
pub trait World {
    /// The settings that rules depend on.
    fn options(&self) -> &Options;
    /// Who owns what, and each workspace's settings.
    fn roster(&self) -> &Roster;
    /// One table.
    fn table(&self, id: &ObjectRef) -> Option<Arc<Table>>;
    /// All tables that a selector picks by labels, name, namespace and cluster, whoever owns them.
    fn tables(&self, selector: &Selector) -> Vec<Arc<Table>>;
    /// All root tables.
    fn root_tables(&self) -> Vec<Arc<Table>>;
    /// One virtual gateway.
    fn virtual_gateway(&self, id: &ObjectRef) -> Option<Arc<VirtualGateway>>;
    /// All virtual gateways.
    fn virtual_gateways(&self) -> Vec<Arc<VirtualGateway>>;
    /// One Service.
    fn service(&self, id: &ObjectRef) -> Option<Arc<Service>>;
    /// All Services that a selector picks, whoever owns them.
    fn services(&self, selector: &Selector) -> Vec<Arc<Service>>;
    /// What all gateways trust, and what signs for them.
    fn trust(&self) -> &RootOfTrust;
    /// One Secret.
    fn secret(&self, id: &ObjectRef) -> Option<Arc<Secret>>;
    /// The slices of a Service.
    fn slices(&self, service: &ObjectRef) -> Vec<Arc<Slice>>;
    /// One Pod.
    fn pod(&self, id: &ObjectRef) -> Option<Arc<Pod>>;
    /// The Pods of a namespace.
    fn pods(&self, cluster: &Name, namespace: &Name) -> Vec<Arc<Pod>>;
    /// One Node.
    fn node(&self, cluster: &Name, name: &Name) -> Option<Arc<Node>>;
    /// One virtual destination.
    fn virtual_destination(&self, id: &ObjectRef) -> Option<Arc<VirtualDestination>>;
    /// All virtual destinations that a selector picks, whoever owns them.
    fn virtual_destinations(&self, selector: &Selector) -> Vec<Arc<VirtualDestination>>;
    /// One external service.
    fn external_service(&self, id: &ObjectRef) -> Option<Arc<ExternalService>>;
    /// All external services that a selector picks, whoever owns them.
    fn external_services(&self, selector: &Selector) -> Vec<Arc<ExternalService>>;
    /// The policies of a workspace, found by what they select.
    fn policies(&self, owner: &WorkspaceId) -> Arc<PolicyIndex>;
    /// All workspaces that own policies.
    fn policy_owners(&self) -> Vec<WorkspaceId>;
}

/// The policies of one workspace, arranged so that a route finds its candidates without asking each policy.
#[derive(Clone, Debug, Default)]
pub struct PolicyIndex {
    /// All of them, in age order.
    pub all: Vec<Arc<PolicyObject>>,
    /// Positions of those with a route selector that names no label.
    pub unlabelled: Vec<usize>,
    /// Positions by the first label pair of each of their route selectors.
    pub labelled: std::collections::BTreeMap<(Name, Name), Vec<usize>>,
    /// Positions of those that select destinations.
    pub on_destinations: Vec<usize>,
    /// Positions of those that select workloads.
    pub on_workloads: Vec<usize>,
}

impl PolicyIndex {
    /// Arranges policies.
    #[must_use]
    pub fn new(mut all: Vec<Arc<PolicyObject>>) -> Self {
        use super::facts::RouteSelector;
        all.sort_by(|a, b| a.age.cmp(&b.age));
        let mut index = Self::default();
        for (position, policy) in all.iter().enumerate() {
            let mut labels: Vec<Option<(Name, Name)>> = Vec::new();
            let first = |labels: &crate::model::Labels| labels.iter().next().map(|(k, v)| (k.clone(), v.clone()));
            for selector in &policy.targets.routes {
                labels.push(match selector {
                    RouteSelector::Route(route) => first(&route.labels),
                    RouteSelector::All | RouteSelector::WithDestinations(_) => None,
                });
            }
            labels.extend(policy.targets.route_destinations.iter().map(|item| first(&item.route.labels)));
            if labels.contains(&None) {
                index.unlabelled.push(position);
            } else {
                labels.sort();
                labels.dedup();
                for pair in labels.into_iter().flatten() {
                    index.labelled.entry(pair).or_default().push(position);
                }
            }
            if !policy.targets.destinations.is_empty() {
                index.on_destinations.push(position);
            }
            if !policy.targets.workloads.is_empty() {
                index.on_workloads.push(position);
            }
        }
        index.all = all;
        index
    }

    /// The policies whose route selectors may match a route with these labels, in age order.
    ///
    /// # Cost
    /// In proportion to the candidates and the route's labels, not to the policies.
    #[must_use]
    pub fn candidates<'a>(&self, labels: impl Iterator<Item = (&'a Name, &'a Name)>) -> Vec<&Arc<PolicyObject>> {
        let mut positions = self.unlabelled.clone();
        if !self.labelled.is_empty() {
            for (key, value) in labels {
                if let Some(found) = self.labelled.get(&(key.clone(), value.clone())) {
                    positions.extend_from_slice(found);
                }
            }
        }
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| &self.all[position]).collect()
    }
}
