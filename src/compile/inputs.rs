//! The answers to the rules' questions, from plain maps, and which questions a change answers anew.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::crd::Object;
use crate::ir::route::EffectiveLabels;
use crate::ir::trust::Terms;
use crate::model::{Code, Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef, WorkspaceId};
use crate::resolve::Options;
use crate::resolve::balancing::Place;
use crate::resolve::facts::{
    Account, Age, AuthServerObject, ExternalEndpoint, ExternalService, Node, Pod, PolicyObject, Secret, Selector,
    Service, Slice, Table, TableRole, TrustPolicy, VirtualDestination, VirtualGateway,
};
use crate::resolve::lower::{Lowered, lower};
use crate::resolve::policy;
use crate::resolve::policy::rate_limit::LimitObject;
use crate::resolve::roster::{Roster, RosterInputs, resolve_roster};
use crate::resolve::trust::{self, KeptRoot, RootOfTrust, resolve_trust};
use crate::resolve::world::{PolicyIndex, World};
use crate::store::Store;

/// Everything that the rules may ask about.
///
/// # Cost
/// A clone shares everything with the original; an object more or less costs the logarithm of its kind's objects.
#[derive(Clone, Debug)]
pub struct Inputs {
    options: Options,
    roster: Arc<Roster>,
    tables: Collection<Table>,
    gateways: Collection<VirtualGateway>,
    services: Collection<Service>,
    accounts: Collection<Account>,
    /// By Service and slice.
    slices: OrdMap<(ObjectRef, ObjectRef), Arc<Slice>>,
    pods: OrdMap<ObjectRef, Arc<Pod>>,
    /// Services by cluster and address.
    services_at: OrdSet<(Name, IpAddr, ObjectRef)>,
    /// The same for Pods.
    pods_at: OrdSet<(Name, IpAddr, ObjectRef)>,
    nodes: OrdMap<(Name, Name), Arc<Node>>,
    secrets: Collection<Secret>,
    auth_servers: Collection<AuthServerObject>,
    trust_policies: OrdMap<ObjectRef, Arc<TrustPolicy>>,
    /// What the policies, their Secrets and the kept root come down to.
    trust: trust::Resolved,
    virtual_destinations: Collection<VirtualDestination>,
    external_services: Collection<ExternalService>,
    external_endpoints: Collection<ExternalEndpoint>,
    policies: OrdMap<WorkspaceId, PolicyIndex>,
    /// What RateLimitPolicies refer to.
    limits: OrdMap<ObjectRef, Arc<LimitObject>>,
    /// Objects of the v2 API that count: owned and read for configuration, or admin objects in their place.
    counted: OrdSet<ObjectRef>,
}

/// Objects of one kind in age order, found by identity or by what a selector names.
#[derive(Clone, Debug)]
struct Collection<T> {
    by_age: OrdMap<Age, Arc<T>>,
    by_id: OrdMap<ObjectRef, Arc<T>>,
    // One map for all labels: a map of its own for each would take a kilobyte for a single entry.
    by_label: OrdMap<(Name, Name, Age), Arc<T>>,
    by_namespace: OrdMap<(Name, Age), Arc<T>>,
}

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self { by_age: OrdMap::new(), by_id: OrdMap::new(), by_label: OrdMap::new(), by_namespace: OrdMap::new() }
    }
}

/// What a collection needs to know of its members.
trait Member {
    fn id(&self) -> &ObjectRef;
    fn labels(&self) -> &Labels;
    fn age(&self) -> &Age;
}

macro_rules! members {
    ($($kind:ty),+ ; $labels:expr) => {
        $(impl Member for $kind {
            fn id(&self) -> &ObjectRef {
                &self.id
            }
            fn labels(&self) -> &Labels {
                let labels: fn(&$kind) -> &Labels = $labels;
                labels(self)
            }
            fn age(&self) -> &Age {
                &self.age
            }
        })+
    };
}

members!(Table, Service, Account, Secret, VirtualDestination, ExternalService, ExternalEndpoint; |member| &member.labels);
members!(VirtualGateway, AuthServerObject; |_| &NO_LABELS);

/// Nothing selects virtual gateways and servers by label here.
static NO_LABELS: Labels = Labels::new();

impl<T: Member> Collection<T> {
    fn insert(&mut self, member: &Arc<T>) {
        let age = member.age();
        self.by_age.insert(age.clone(), member.clone());
        self.by_id.insert(member.id().clone(), member.clone());
        self.by_namespace.insert((member.id().namespace.clone(), age.clone()), member.clone());
        for (key, value) in member.labels() {
            self.by_label.insert((key.clone(), value.clone(), age.clone()), member.clone());
        }
    }

    fn remove(&mut self, member: &T) {
        let age = member.age();
        self.by_age.remove(age);
        self.by_id.remove(member.id());
        self.by_namespace.remove(&(member.id().namespace.clone(), age.clone()));
        for (key, value) in member.labels() {
            self.by_label.remove(&(key.clone(), value.clone(), age.clone()));
        }
    }

    fn get(&self, id: &ObjectRef) -> Option<Arc<T>> {
        self.by_id.get(id).cloned()
    }

    /// # Cost
    /// In proportion to the objects under the selector's first label, or in its namespace, or to all.
    fn select(&self, selector: &Selector) -> Vec<Arc<T>> {
        let fits = |member: &&Arc<T>| selector.fits(member.id(), member.labels());
        match (selector.labels.iter().next(), &selector.namespace) {
            (Some((key, value)), _) => {
                let range = self.by_label.range((key.clone(), value.clone(), Age::first())..);
                let members = range.take_while(|((k, v, _), _)| k == key && v == value).map(|(_, member)| member);
                members.filter(fits).cloned().collect()
            }
            (None, Some(namespace)) => {
                let range = self.by_namespace.range((namespace.clone(), Age::first())..);
                let members = range.take_while(|((n, _), _)| n == namespace).map(|(_, member)| member);
                members.filter(fits).cloned().collect()
            }
            (None, None) => self.by_age.values().filter(fits).cloned().collect(),
        }
    }
}

/// Findings about an admin object in a place where it does not count.
pub(super) fn misplaced(id: &ObjectRef, options: &Options) -> Option<Finding> {
    (is_admin_kind(id.kind) && !is_in_admin_namespace(id, options)).then(|| {
        Finding::warning(
            id,
            Code::NotInAdminNamespace,
            format!(
                "{} counts only in namespace `{}` of the management cluster `{}`; move it there",
                id.kind, options.admin_namespace, options.management_cluster
            ),
        )
    })
}

/// The namespace that exists because of an object: a manifest of it, or any object in it.
pub(super) fn namespace_of(id: &ObjectRef) -> Option<&Name> {
    match id.kind {
        Kind::Node => None,
        Kind::Namespace => Some(&id.name),
        _ => Some(&id.namespace),
    }
}

/// The addresses that a Service or Pod has as its own, as [`World::at_address`] finds them.
pub(super) fn places_of(id: &ObjectRef, fact: &Lowered) -> impl Iterator<Item = (Name, IpAddr, ObjectRef)> {
    let addresses: Vec<IpAddr> = match fact {
        Lowered::Service(service) => service.addresses.clone(),
        Lowered::Pod(pod) if pod.is_client => {
            pod.addresses.iter().filter_map(|address| Some(address.parse::<IpAddr>().ok()?.to_canonical())).collect()
        }
        _ => Vec::new(),
    };
    addresses.into_iter().map(|address| (id.cluster.clone(), address, id.clone()))
}

impl Inputs {
    /// Lowers all objects and decides which of them count.
    ///
    /// # Findings
    /// Those of [`lower`] and of the roster; [`Code::NoWorkspace`], [`Code::NotInAdminNamespace`].
    ///
    /// # Cost
    /// In proportion to all objects.
    #[must_use]
    pub fn new(store: &Store, options: &Options) -> (Self, Findings) {
        let mut findings = Findings::new();
        let mut roster_inputs = RosterInputs::default();
        let mut lowered: Vec<(&Arc<Object>, Lowered)> = Vec::with_capacity(store.len());
        for object in store.objects() {
            let id = &object.meta.id;
            if let Some(namespace) = namespace_of(id) {
                roster_inputs.namespaces.entry(id.cluster.clone()).or_default().entry(namespace.clone()).or_default();
            }
            let (fact, found) = lower(object);
            if let Some(misplaced) = misplaced(id, options) {
                findings.push(misplaced);
                continue;
            }
            findings.extend(found);
            match &fact {
                Lowered::Namespace(labels) => {
                    roster_inputs
                        .namespaces
                        .entry(id.cluster.clone())
                        .or_default()
                        .insert(id.name.clone(), labels.clone());
                }
                Lowered::Cluster(cluster) => roster_inputs.clusters.push(cluster.clone()),
                Lowered::Workspace(workspace) => roster_inputs.workspaces.push(workspace.clone()),
                Lowered::Settings(settings) => roster_inputs.settings.push(settings.clone()),
                _ => {}
            }
            lowered.push((object, fact));
        }
        let (roster, found) = resolve_roster(&roster_inputs, options);
        findings.extend(found);
        let mut inputs = Self::empty(options, Arc::new(roster));
        for (object, fact) in &lowered {
            findings.extend(inputs.admit(&object.meta.id, fact));
        }
        inputs.settle_trust(&options.kept_root, |_| {}, &mut findings);
        // Settling asks for objects and never for policies, so the order of policies does not matter.
        for (object, fact) in &lowered {
            if let Lowered::Policy(policy) = fact
                && policy::refers(policy)
                && inputs.is_counted(&object.meta.id)
            {
                let settled = Arc::new(policy::settle(&inputs, policy, &mut findings));
                inputs.admit_policy(&settled);
            }
        }
        (inputs, findings)
    }

    /// Decides anew what is trusted, once all objects are in; `read` is told which Secrets were asked for. Returns whether
    /// that made a difference.
    ///
    /// # Findings
    /// Those of [`resolve_trust`].
    pub(super) fn settle_trust(&mut self, kept: &KeptRoot, read: impl Fn(&ObjectRef), findings: &mut Findings) -> bool {
        self.options.kept_root.clone_from(kept);
        let policies: Vec<Arc<TrustPolicy>> = self.trust_policies.values().cloned().collect();
        let secret = |id: &ObjectRef| {
            read(id);
            self.secrets.get(id)
        };
        let trust = resolve_trust(&policies, secret, kept, findings);
        let is_other = trust != self.trust;
        self.trust = trust;
        is_other
    }

    /// Without objects.
    pub(super) fn empty(options: &Options, roster: Arc<Roster>) -> Self {
        Self {
            options: options.clone(),
            roster,
            tables: Collection::default(),
            gateways: Collection::default(),
            services: Collection::default(),
            accounts: Collection::default(),
            slices: OrdMap::new(),
            pods: OrdMap::new(),
            services_at: OrdSet::new(),
            pods_at: OrdSet::new(),
            nodes: OrdMap::new(),
            secrets: Collection::default(),
            auth_servers: Collection::default(),
            trust_policies: OrdMap::new(),
            trust: resolve_trust(&[], |_| None, &options.kept_root, &mut Findings::new()),
            virtual_destinations: Collection::default(),
            external_services: Collection::default(),
            external_endpoints: Collection::default(),
            policies: OrdMap::new(),
            limits: OrdMap::new(),
            counted: OrdSet::new(),
        }
    }

    /// Takes an object in, if it counts where it stands.
    ///
    /// # Findings
    /// [`Code::NoWorkspace`].
    pub(super) fn admit(&mut self, id: &ObjectRef, fact: &Lowered) -> Option<Finding> {
        if id.kind.is_v2() {
            if let Err(reason) = counts(id, &self.roster, &self.options) {
                return Some(Finding::info(id, Code::NoWorkspace, reason));
            }
            self.counted.insert(id.clone());
        }
        match fact {
            Lowered::Service(service) => {
                self.services_at.extend(places_of(&service.id, fact));
                self.services.insert(service);
            }
            Lowered::Account(account) => self.accounts.insert(account),
            Lowered::Slice(slice) => {
                self.slices.insert((slice.service.clone(), slice.id.clone()), slice.clone());
            }
            Lowered::Pod(pod) => {
                self.pods_at.extend(places_of(&pod.id, fact));
                self.pods.insert(pod.id.clone(), pod.clone());
            }
            Lowered::Node(node) => {
                self.nodes.insert((node.id.cluster.clone(), node.id.name.clone()), node.clone());
            }
            Lowered::Secret(secret) => self.secrets.insert(secret),
            Lowered::AuthServer(server) => self.auth_servers.insert(server),
            Lowered::Trust(policy) => drop(self.trust_policies.insert(policy.id.clone(), policy.clone())),
            Lowered::Gateway(gateway) => self.gateways.insert(gateway),
            Lowered::Table(table) => self.tables.insert(table),
            Lowered::VirtualDestination(vd) => self.virtual_destinations.insert(vd),
            Lowered::ExternalService(service) => self.external_services.insert(service),
            Lowered::ExternalEndpoint(endpoint) => self.external_endpoints.insert(endpoint),
            // Rules see it once its references are followed.
            Lowered::Policy(policy) if policy::refers(policy) => {}
            Lowered::Policy(policy) => self.admit_policy(policy),
            Lowered::Limits(limits) => drop(self.limits.insert(limits.id.clone(), limits.clone())),
            Lowered::Namespace(_)
            | Lowered::Cluster(_)
            | Lowered::Workspace(_)
            | Lowered::Settings(_)
            | Lowered::Nothing => {}
        }
        None
    }

    /// Takes an object out that was admitted so.
    pub(super) fn dismiss(&mut self, id: &ObjectRef, fact: &Lowered) {
        if id.kind.is_v2() && self.counted.remove(id).is_none() {
            return;
        }
        match fact {
            Lowered::Service(service) => {
                places_of(&service.id, fact).for_each(|place| drop(self.services_at.remove(&place)));
                self.services.remove(service);
            }
            Lowered::Account(account) => self.accounts.remove(account),
            Lowered::Slice(slice) => self.dismiss_slice(&slice.service, &slice.id),
            Lowered::Pod(pod) => {
                places_of(&pod.id, fact).for_each(|place| drop(self.pods_at.remove(&place)));
                self.pods.remove(&pod.id);
            }
            Lowered::Node(node) => drop(self.nodes.remove(&(node.id.cluster.clone(), node.id.name.clone()))),
            Lowered::Secret(secret) => self.secrets.remove(secret),
            Lowered::AuthServer(server) => self.auth_servers.remove(server),
            Lowered::Trust(policy) => drop(self.trust_policies.remove(&policy.id)),
            Lowered::Gateway(gateway) => self.gateways.remove(gateway),
            Lowered::Table(table) => self.tables.remove(table),
            Lowered::VirtualDestination(vd) => self.virtual_destinations.remove(vd),
            Lowered::ExternalService(service) => self.external_services.remove(service),
            Lowered::ExternalEndpoint(endpoint) => self.external_endpoints.remove(endpoint),
            Lowered::Policy(policy) if policy::refers(policy) => {}
            Lowered::Policy(policy) => self.dismiss_policy(policy),
            Lowered::Limits(limits) => drop(self.limits.remove(&limits.id)),
            Lowered::Namespace(_)
            | Lowered::Cluster(_)
            | Lowered::Workspace(_)
            | Lowered::Settings(_)
            | Lowered::Nothing => {}
        }
    }

    /// Takes a slice of a Service out.
    pub(super) fn dismiss_slice(&mut self, service: &ObjectRef, slice: &ObjectRef) {
        self.slices.remove(&(service.clone(), slice.clone()));
    }

    /// The same with the slices, Pods and Nodes of others.
    pub(super) fn with_places_of(self, others: Self) -> Self {
        Self { slices: others.slices, pods: others.pods, pods_at: others.pods_at, nodes: others.nodes, ..self }
    }

    /// Takes a policy in that refers to nothing any more.
    pub(super) fn admit_policy(&mut self, policy: &Arc<PolicyObject>) {
        if let Some(owner) = self.roster.owner_of(&policy.id) {
            self.policies.entry(owner.clone()).or_default().insert(policy);
        }
    }

    /// Takes a policy out that was admitted so.
    pub(super) fn dismiss_policy(&mut self, policy: &PolicyObject) {
        if let Some(owner) = self.roster.owner_of(&policy.id)
            && let Some(index) = self.policies.get_mut(owner)
        {
            index.remove(policy);
            if index.is_empty() {
                self.policies.remove(owner);
            }
        }
    }

    /// Whether an object of the v2 API counts.
    #[must_use]
    pub fn is_counted(&self, id: &ObjectRef) -> bool {
        self.counted.contains(id)
    }

    /// How a root of trust is to be made, where the policies ask for one that the control plane keeps.
    #[must_use]
    pub fn generated_root(&self) -> Option<&Terms> {
        self.trust.generated.as_ref()
    }

    /// All tables, in age order.
    pub fn all_tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.by_age.values()
    }

    /// All objects that RateLimitPolicies refer to.
    pub fn all_limits(&self) -> impl Iterator<Item = &Arc<LimitObject>> {
        self.limits.values()
    }

    /// All external services, in age order.
    pub fn all_external_services(&self) -> impl Iterator<Item = &Arc<ExternalService>> {
        self.external_services.by_age.values()
    }

    /// All virtual destinations, in age order.
    pub fn all_virtual_destinations(&self) -> impl Iterator<Item = &Arc<VirtualDestination>> {
        self.virtual_destinations.by_age.values()
    }
}

/// Kinds that count only in the admin namespace of the management cluster.
///
/// # Rule
/// R3, R17, R191.
fn is_admin_kind(kind: Kind) -> bool {
    matches!(kind, Kind::KubernetesCluster | Kind::Workspace | Kind::RootTrustPolicy)
}

fn is_in_admin_namespace(id: &ObjectRef, options: &Options) -> bool {
    id.cluster == options.management_cluster && id.namespace == options.admin_namespace
}

/// Whether an object of the v2 API counts where it stands.
///
/// # Rule
/// R21, R24, R49.
fn counts(id: &ObjectRef, roster: &Roster, options: &Options) -> Result<(), String> {
    if is_admin_kind(id.kind) {
        return Ok(());
    }
    if id.kind == Kind::WorkspaceSettings && id.name == "global" && is_in_admin_namespace(id, options) {
        return Ok(());
    }
    match roster.owner(&id.cluster, &id.namespace) {
        Some(owner) if owner.config => Ok(()),
        Some(owner) => Err(format!(
            "workspace `{}` owns namespace `{}` of cluster `{}` without its configuration; set `configEnabled: true` on its entry to read it",
            owner.workspace, id.namespace, id.cluster
        )),
        None if !roster.clusters.contains_key(&id.cluster) => Err(format!(
            "cluster `{}` is not registered: add a KubernetesCluster of that name in the admin namespace",
            id.cluster
        )),
        None => Err(format!(
            "no workspace owns namespace `{}` of cluster `{}`; add it to the `workloadClusters` of a Workspace",
            id.namespace, id.cluster
        )),
    }
}

impl World for Inputs {
    fn options(&self) -> &Options {
        &self.options
    }

    fn roster(&self) -> &Roster {
        &self.roster
    }

    fn table(&self, id: &ObjectRef) -> Option<Arc<Table>> {
        self.tables.get(id)
    }

    fn tables(&self, selector: &Selector) -> Vec<Arc<Table>> {
        self.tables.select(selector)
    }

    fn root_tables(&self) -> Vec<Arc<Table>> {
        self.tables.by_age.values().filter(|table| matches!(table.role, TableRole::Root(_))).cloned().collect()
    }

    fn virtual_gateway(&self, id: &ObjectRef) -> Option<Arc<VirtualGateway>> {
        self.gateways.get(id)
    }

    fn virtual_gateways(&self) -> Vec<Arc<VirtualGateway>> {
        self.gateways.by_age.values().cloned().collect()
    }

    fn service(&self, id: &ObjectRef) -> Option<Arc<Service>> {
        self.services.get(id)
    }

    fn services(&self, selector: &Selector) -> Vec<Arc<Service>> {
        self.services.select(selector)
    }

    fn accounts(&self, selector: &Selector) -> Vec<Arc<Account>> {
        self.accounts.select(selector)
    }

    fn trust(&self) -> &RootOfTrust {
        &self.trust.root
    }

    fn secret(&self, id: &ObjectRef) -> Option<Arc<Secret>> {
        self.secrets.get(id)
    }

    fn secrets(&self, selector: &Selector) -> Vec<Arc<Secret>> {
        self.secrets.select(selector)
    }

    fn auth_server(&self, id: &ObjectRef) -> Option<Arc<AuthServerObject>> {
        self.auth_servers.get(id)
    }

    fn auth_servers(&self) -> Vec<Arc<AuthServerObject>> {
        self.auth_servers.by_age.values().cloned().collect()
    }

    fn slices(&self, service: &ObjectRef) -> Vec<Arc<Slice>> {
        let first = (service.clone(), ObjectRef::new(Kind::ALL[0], "", "", ""));
        let range = self.slices.range(first..).take_while(|((other, _), _)| other == service);
        range.map(|(_, slice)| slice.clone()).collect()
    }

    fn pod(&self, id: &ObjectRef) -> Option<Arc<Pod>> {
        self.pods.get(id).cloned()
    }

    fn pods(&self, cluster: &Name, namespace: &Name) -> Vec<Arc<Pod>> {
        let start = ObjectRef::new(Kind::Pod, cluster, namespace, "");
        self.pods
            .range(start..)
            .take_while(|(id, _)| id.cluster == *cluster && id.namespace == *namespace)
            .map(|(_, pod)| pod.clone())
            .collect()
    }

    fn at_address(&self, cluster: &Name, address: IpAddr) -> Vec<ObjectRef> {
        let first = (cluster.clone(), address, ObjectRef::new(Kind::ALL[0], "", "", ""));
        let under = |all: &OrdSet<(Name, IpAddr, ObjectRef)>| -> Vec<ObjectRef> {
            let range = all.range(first.clone()..).take_while(|(c, ip, _)| (c, *ip) == (cluster, address));
            range.map(|(.., id)| id.clone()).collect()
        };
        [under(&self.services_at), under(&self.pods_at)].concat()
    }

    fn node(&self, cluster: &Name, name: &Name) -> Option<Arc<Node>> {
        self.nodes.get(&(cluster.clone(), name.clone())).cloned()
    }

    fn nodes(&self, cluster: &Name) -> Vec<Arc<Node>> {
        let own = self.nodes.range((cluster.clone(), Name::default())..).take_while(|((other, _), _)| other == cluster);
        own.map(|(_, node)| node.clone()).collect()
    }

    fn place(&self, gateway: &GatewayId) -> Place {
        Place::of(self, gateway)
    }

    fn virtual_destination(&self, id: &ObjectRef) -> Option<Arc<VirtualDestination>> {
        self.virtual_destinations.get(id)
    }

    fn virtual_destinations(&self, selector: &Selector) -> Vec<Arc<VirtualDestination>> {
        self.virtual_destinations.select(selector)
    }

    fn external_service(&self, id: &ObjectRef) -> Option<Arc<ExternalService>> {
        self.external_services.get(id)
    }

    fn external_services(&self, selector: &Selector) -> Vec<Arc<ExternalService>> {
        self.external_services.select(selector)
    }

    fn external_endpoints(&self, selector: &Selector) -> Vec<Arc<ExternalEndpoint>> {
        self.external_endpoints.select(selector)
    }

    fn limit_object(&self, id: &ObjectRef) -> Option<Arc<LimitObject>> {
        self.limits.get(id).cloned()
    }

    fn candidates(&self, owner: &WorkspaceId, labels: &EffectiveLabels) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).map(|index| index.candidates(labels)).unwrap_or_default()
    }

    fn closing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).into_iter().flat_map(PolicyIndex::closing).cloned().collect()
    }

    fn destination_candidates(
        &self,
        owner: &WorkspaceId,
        object: &ObjectRef,
        labels: &Labels,
    ) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).map(|index| index.on_destination(object, labels)).unwrap_or_default()
    }

    fn access_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).map(|index| index.on_access(object, labels)).unwrap_or_default()
    }

    fn connection_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).map(|index| index.on_connections(object, labels)).unwrap_or_default()
    }

    fn sharing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).into_iter().flat_map(PolicyIndex::sharing).cloned().collect()
    }

    fn workload_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).into_iter().flat_map(PolicyIndex::on_workloads).cloned().collect()
    }

    fn policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.policies.get(owner).into_iter().flat_map(PolicyIndex::all).cloned().collect()
    }

    fn policy_owners(&self) -> Vec<WorkspaceId> {
        self.policies.keys().cloned().collect()
    }
}
