//! Every question that the rules may ask about the inputs, and no others.
//!
//! The from-scratch compile answers from plain maps. Whatever later answers from a cache must record what was asked:
//! asking for something absent is also an answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::ir::Policy;
use crate::ir::route::EffectiveLabels;
use crate::model::{GatewayId, Labels, Name, ObjectRef, WorkspaceId};

use super::Options;
use super::balancing::Place;
use super::facts::{
    Account, Age, AuthServerObject, ExternalEndpoint, ExternalService, Node, Pod, PolicyEffect, PolicyObject, Secret,
    Selector, Service, Slice, Table, VirtualDestination, VirtualGateway,
};
use super::policy;
use super::policy::rate_limit::LimitObject;
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
    /// All ServiceAccounts that a selector picks, whoever owns them.
    fn accounts(&self, selector: &Selector) -> Vec<Arc<Account>>;
    /// What all gateways trust, and what signs for them.
    fn trust(&self) -> &RootOfTrust;
    /// One Secret.
    fn secret(&self, id: &ObjectRef) -> Option<Arc<Secret>>;
    /// All Secrets that a selector picks, whoever owns them.
    fn secrets(&self, selector: &Selector) -> Vec<Arc<Secret>>;
    /// One ExtAuthServer.
    fn auth_server(&self, id: &ObjectRef) -> Option<Arc<AuthServerObject>>;
    /// All ExtAuthServers, whoever owns them.
    fn auth_servers(&self) -> Vec<Arc<AuthServerObject>>;
    /// The slices of a Service.
    fn slices(&self, service: &ObjectRef) -> Vec<Arc<Slice>>;
    /// One Pod.
    fn pod(&self, id: &ObjectRef) -> Option<Arc<Pod>>;
    /// The Pods of a namespace.
    fn pods(&self, cluster: &Name, namespace: &Name) -> Vec<Arc<Pod>>;
    /// The Services and Pods of a cluster that have an IP address, in canonical form, as their own there.
    fn at_address(&self, cluster: &Name, address: IpAddr) -> Vec<ObjectRef>;
    /// One Node.
    fn node(&self, cluster: &Name, name: &Name) -> Option<Arc<Node>>;
    /// The Nodes of a cluster.
    fn nodes(&self, cluster: &Name) -> Vec<Arc<Node>>;
    /// Where a gateway is.
    fn place(&self, gateway: &GatewayId) -> Place;
    /// One virtual destination.
    fn virtual_destination(&self, id: &ObjectRef) -> Option<Arc<VirtualDestination>>;
    /// All virtual destinations that a selector picks, whoever owns them.
    fn virtual_destinations(&self, selector: &Selector) -> Vec<Arc<VirtualDestination>>;
    /// One external service.
    fn external_service(&self, id: &ObjectRef) -> Option<Arc<ExternalService>>;
    /// All external services that a selector picks, whoever owns them.
    fn external_services(&self, selector: &Selector) -> Vec<Arc<ExternalService>>;
    /// All external endpoints that a selector picks, whoever owns them.
    fn external_endpoints(&self, selector: &Selector) -> Vec<Arc<ExternalEndpoint>>;
    /// One object that RateLimitPolicies refer to.
    fn limit_object(&self, id: &ObjectRef) -> Option<Arc<LimitObject>>;
    /// The policies of a workspace whose route selectors may match a route with these labels, in age order.
    fn candidates(&self, owner: &WorkspaceId, labels: &EffectiveLabels) -> Vec<Arc<PolicyObject>>;
    /// The policies of a workspace that select destinations, and close them because they cannot be applied.
    fn closing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>>;
    /// The valid policies of a workspace whose destination selectors may pick one of its destinations, of this name and with
    /// these labels, in age order; but for AccessPolicies and those of [`World::connection_policies`].
    fn destination_candidates(
        &self,
        owner: &WorkspaceId,
        object: &ObjectRef,
        labels: &Labels,
    ) -> Vec<Arc<PolicyObject>>;
    /// The same for AccessPolicies, which no route has to know of.
    fn access_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>>;
    /// The same for those that belong to how gateways open connections to a destination.
    fn connection_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>>;
    /// The policies of a workspace that share something for all routes of a gateway.
    fn sharing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>>;
    /// The policies of a workspace that select workloads.
    fn workload_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>>;
    /// All policies of a workspace.
    fn policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>>;
    /// All workspaces that own policies.
    fn policy_owners(&self) -> Vec<WorkspaceId>;
}

/// The policies of one workspace, arranged so that a route finds its candidates without asking each policy.
///
/// # Cost
/// A clone shares everything; a change costs the logarithm of the policies.
#[derive(Clone, Debug, Default)]
pub struct PolicyIndex {
    all: Aged,
    /// Those with a route selector that names no label.
    unlabelled: Aged,
    /// By the first label pair of each of their route selectors.
    labelled: OrdMap<(Name, Name, Age), Arc<PolicyObject>>,
    /// Those that select destinations and close them.
    closing: Aged,
    /// Valid ones that select destinations, by what each of their destination selectors names.
    on_destinations: OrdMap<(DestinationKey, Age), Arc<PolicyObject>>,
    /// The same for AccessPolicies.
    access: OrdMap<(DestinationKey, Age), Arc<PolicyObject>>,
    /// The same for those that belong to how gateways open connections.
    connections: OrdMap<(DestinationKey, Age), Arc<PolicyObject>>,
    /// Those that share something for all routes of a gateway.
    sharing: Aged,
    /// Those that select workloads.
    on_workloads: Aged,
}

/// What a destination selector names, so that it is found from a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationKey {
    /// A name.
    Name(Name),
    /// A label pair, the first of several, and no name.
    Label(Name, Name),
    /// Neither.
    Any,
}

impl DestinationKey {
    fn of(selector: &Selector) -> Self {
        match (&selector.name, selector.labels.iter().next()) {
            (Some(name), _) => Self::Name(name.clone()),
            (None, Some((key, value))) => Self::Label(key.clone(), value.clone()),
            (None, None) => Self::Any,
        }
    }

    /// What selectors that pick a destination may name.
    pub fn picking(object: &ObjectRef, labels: &Labels) -> impl Iterator<Item = Self> {
        let labels = labels.iter().map(|(key, value)| Self::Label(key.clone(), value.clone()));
        labels.chain([Self::Name(object.name.clone()), Self::Any])
    }
}

/// Policies in age order.
type Aged = OrdMap<Age, Arc<PolicyObject>>;

/// Where an index holds a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyPlace {
    /// Among those with a route selector that names no label.
    Unlabelled,
    /// Among those with a route selector that begins with this label pair.
    Labelled(Name, Name),
    /// Among those that select destinations and close them.
    Closing,
    /// Among valid ones with a destination selector that names this.
    Destination(DestinationKey),
    /// Among valid AccessPolicies with a destination selector that names this.
    Access(DestinationKey),
    /// Among valid ones that belong to how gateways open connections, with a destination selector that names this.
    Connections(DestinationKey),
    /// Among those that share something for all routes of a gateway.
    Sharing,
    /// Among those that select workloads.
    Workloads,
}

impl PolicyPlace {
    /// All places of a policy.
    #[must_use]
    pub fn of(policy: &PolicyObject) -> Vec<Self> {
        use super::facts::RouteSelector;
        let mut labels: Vec<Option<(Name, Name)>> = Vec::new();
        let first = |labels: &crate::model::Labels| labels.iter().next().map(|(k, v)| (k.clone(), v.clone()));
        for selector in &policy.targets.routes {
            labels.push(match selector {
                RouteSelector::Route(route) => first(&route.labels),
                RouteSelector::All | RouteSelector::WithDestinations(_) => None,
            });
        }
        labels.extend(policy.targets.route_destinations.iter().map(|item| first(&item.route.labels)));
        let mut places: Vec<Self> = Vec::new();
        if labels.contains(&None) {
            places.push(Self::Unlabelled);
        } else {
            labels.sort();
            labels.dedup();
            places.extend(labels.into_iter().flatten().map(|(key, value)| Self::Labelled(key, value)));
        }
        if !policy.targets.destinations.is_empty() && policy::closes(policy) {
            places.push(Self::Closing);
        }
        if let PolicyEffect::Valid(effect) = &policy.effect {
            let keys: BTreeSet<DestinationKey> =
                policy.targets.destinations.iter().map(|item| DestinationKey::of(&item.selector)).collect();
            let place = match effect {
                Policy::Access(_) => Self::Access,
                effect if policy::is_of_connections(effect) => Self::Connections,
                _ => Self::Destination,
            };
            places.extend(keys.into_iter().map(place));
            if policy::shares(effect) {
                places.push(Self::Sharing);
            }
        }
        if !policy.targets.workloads.is_empty() {
            places.push(Self::Workloads);
        }
        places
    }
}

impl PolicyPlace {
    /// For each way in which a policy may reach something: the places of which whatever it reaches asks every one.
    #[must_use]
    pub fn asked(policy: &PolicyObject) -> Vec<Vec<Self>> {
        use super::facts::RouteSelector;
        let all = |labels: &crate::model::Labels| -> Vec<Self> {
            let pairs = labels.iter().map(|(key, value)| Self::Labelled(key.clone(), value.clone()));
            if labels.is_empty() { vec![Self::Unlabelled] } else { pairs.collect() }
        };
        let mut asked: Vec<Vec<Self>> = Vec::new();
        asked.extend(policy.targets.routes.iter().map(|selector| match selector {
            RouteSelector::Route(route) => all(&route.labels),
            RouteSelector::All | RouteSelector::WithDestinations(_) => vec![Self::Unlabelled],
        }));
        asked.extend(policy.targets.route_destinations.iter().map(|item| all(&item.route.labels)));
        let of_routes = |place: &Self| matches!(place, Self::Unlabelled | Self::Labelled(..));
        let others = Self::of(policy).into_iter().filter(|place| !of_routes(place));
        asked.extend(others.map(|place| vec![place]));
        asked
    }
}

impl PolicyIndex {
    /// Takes a policy in.
    pub fn insert(&mut self, policy: &Arc<PolicyObject>) {
        let age = policy.age.clone();
        self.all.insert(age.clone(), policy.clone());
        for place in PolicyPlace::of(policy) {
            let (age, policy) = (age.clone(), policy.clone());
            match place {
                PolicyPlace::Unlabelled => drop(self.unlabelled.insert(age, policy)),
                PolicyPlace::Labelled(key, value) => drop(self.labelled.insert((key, value, age), policy)),
                PolicyPlace::Closing => drop(self.closing.insert(age, policy)),
                PolicyPlace::Destination(key) => drop(self.on_destinations.insert((key, age), policy)),
                PolicyPlace::Access(key) => drop(self.access.insert((key, age), policy)),
                PolicyPlace::Connections(key) => drop(self.connections.insert((key, age), policy)),
                PolicyPlace::Sharing => drop(self.sharing.insert(age, policy)),
                PolicyPlace::Workloads => drop(self.on_workloads.insert(age, policy)),
            }
        }
    }

    /// Takes a policy out.
    pub fn remove(&mut self, policy: &PolicyObject) {
        let age = &policy.age;
        self.all.remove(age);
        for place in PolicyPlace::of(policy) {
            match place {
                PolicyPlace::Unlabelled => drop(self.unlabelled.remove(age)),
                PolicyPlace::Labelled(key, value) => drop(self.labelled.remove(&(key, value, age.clone()))),
                PolicyPlace::Closing => drop(self.closing.remove(age)),
                PolicyPlace::Destination(key) => drop(self.on_destinations.remove(&(key, age.clone()))),
                PolicyPlace::Access(key) => drop(self.access.remove(&(key, age.clone()))),
                PolicyPlace::Connections(key) => drop(self.connections.remove(&(key, age.clone()))),
                PolicyPlace::Sharing => drop(self.sharing.remove(age)),
                PolicyPlace::Workloads => drop(self.on_workloads.remove(age)),
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in age order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        self.all.values()
    }

    /// Those that select destinations and close them, in age order.
    pub fn closing(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        self.closing.values()
    }

    /// Valid ones whose destination selectors may pick a destination, in age order.
    ///
    /// # Cost
    /// In proportion to them and to the destination's labels, not to the policies.
    #[must_use]
    pub fn on_destination(&self, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        picking(&self.on_destinations, object, labels)
    }

    /// The same for AccessPolicies.
    #[must_use]
    pub fn on_access(&self, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        picking(&self.access, object, labels)
    }

    /// The same for those that belong to how gateways open connections.
    #[must_use]
    pub fn on_connections(&self, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        picking(&self.connections, object, labels)
    }

    /// Those that share something for all routes of a gateway, in age order.
    pub fn sharing(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        self.sharing.values()
    }

    /// Those that select workloads, in age order.
    pub fn on_workloads(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        self.on_workloads.values()
    }

    /// The policies whose route selectors may match a route with these labels, in age order.
    ///
    /// # Cost
    /// In proportion to the candidates and the route's labels, not to the policies.
    #[must_use]
    pub fn candidates(&self, labels: &EffectiveLabels) -> Vec<Arc<PolicyObject>> {
        let mut found: Vec<&Arc<PolicyObject>> = self.unlabelled.values().collect();
        if !self.labelled.is_empty() {
            for (key, label) in labels.iter() {
                let value = &label.value;
                let under = self.labelled.range((key.clone(), value.clone(), Age::first())..);
                let under = under.take_while(|((k, v, _), _)| k == key && v == value);
                found.extend(under.map(|(_, policy)| policy));
            }
        }
        found.sort_by(|a, b| a.age.cmp(&b.age));
        found.dedup_by(|a, b| a.id == b.id);
        found.into_iter().cloned().collect()
    }
}

fn picking(
    policies: &OrdMap<(DestinationKey, Age), Arc<PolicyObject>>,
    object: &ObjectRef,
    labels: &Labels,
) -> Vec<Arc<PolicyObject>> {
    if policies.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<Arc<PolicyObject>> = Vec::new();
    for key in DestinationKey::picking(object, labels) {
        let under = policies.range((key.clone(), Age::first())..).take_while(|((other, _), _)| *other == key);
        found.extend(under.map(|(_, policy)| policy.clone()));
    }
    found.sort_by(|a, b| a.age.cmp(&b.age));
    found.dedup_by(|a, b| a.id == b.id);
    found
}
