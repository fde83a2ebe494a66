//! The answers to the rules' questions, from plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crd::Object;
use crate::ir::trust::Terms;
use crate::model::{Code, Finding, Findings, Kind, Labels, Name, ObjectRef, WorkspaceId};
use crate::resolve::Options;
use crate::resolve::facts::{
    ExternalService, Node, Pod, PolicyObject, Secret, Selector, Service, Slice, Table, TableRole, TrustPolicy,
    VirtualDestination, VirtualGateway,
};
use crate::resolve::lower::{Lowered, lower};
use crate::resolve::roster::{Roster, RosterInputs, resolve_roster};
use crate::resolve::trust::{self, RootOfTrust, resolve_trust};
use crate::resolve::world::{PolicyIndex, World};
use crate::store::Store;

/// Everything that the rules may ask about, arranged once per compile.
#[derive(Debug)]
pub struct Inputs {
    options: Options,
    roster: Roster,
    tables: Collection<Table>,
    gateways: Collection<VirtualGateway>,
    services: Collection<Service>,
    slices: BTreeMap<ObjectRef, Vec<Arc<Slice>>>,
    pods: BTreeMap<ObjectRef, Arc<Pod>>,
    nodes: BTreeMap<(Name, Name), Arc<Node>>,
    secrets: BTreeMap<ObjectRef, Arc<Secret>>,
    trust: trust::Resolved,
    virtual_destinations: Collection<VirtualDestination>,
    external_services: Collection<ExternalService>,
    policies: BTreeMap<WorkspaceId, Arc<PolicyIndex>>,
    no_policies: Arc<PolicyIndex>,
    /// Objects of the v2 API that count: owned and read for configuration, or admin objects in their place.
    counted: BTreeSet<ObjectRef>,
}

/// Objects of one kind in age order, found by identity or by what a selector names.
#[derive(Debug)]
struct Collection<T> {
    by_age: Vec<Arc<T>>,
    by_id: BTreeMap<ObjectRef, usize>,
    by_label: BTreeMap<(Name, Name), Vec<usize>>,
    by_namespace: BTreeMap<Name, Vec<usize>>,
}

/// What a collection needs to know of its members.
trait Member {
    fn id(&self) -> &ObjectRef;
    fn labels(&self) -> &Labels;
    fn age(&self) -> &crate::resolve::facts::Age;
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
            fn age(&self) -> &crate::resolve::facts::Age {
                &self.age
            }
        })+
    };
}

members!(Table, Service, VirtualDestination, ExternalService; |member| &member.labels);
members!(VirtualGateway; |_| &NO_LABELS);

/// Nothing selects virtual gateways by label here.
static NO_LABELS: Labels = Labels::new();

impl<T: Member> Collection<T> {
    fn new(mut members: Vec<Arc<T>>) -> Self {
        members.sort_by(|a, b| a.age().cmp(b.age()));
        let mut collection = Self {
            by_age: Vec::new(),
            by_id: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_namespace: BTreeMap::new(),
        };
        for (position, member) in members.iter().enumerate() {
            collection.by_id.insert(member.id().clone(), position);
            collection.by_namespace.entry(member.id().namespace.clone()).or_default().push(position);
            for (key, value) in member.labels() {
                collection.by_label.entry((key.clone(), value.clone())).or_default().push(position);
            }
        }
        collection.by_age = members;
        collection
    }

    fn get(&self, id: &ObjectRef) -> Option<Arc<T>> {
        self.by_id.get(id).map(|position| self.by_age[*position].clone())
    }

    /// # Cost
    /// In proportion to the objects under the selector's first label, or in its namespace, or to all.
    fn select(&self, selector: &Selector) -> Vec<Arc<T>> {
        let fits = |member: &&Arc<T>| selector.fits(member.id(), member.labels());
        let label = selector.labels.iter().next().map(|(key, value)| (key.clone(), value.clone()));
        let positions = match (&label, &selector.namespace) {
            (Some(pair), _) => self.by_label.get(pair),
            (None, Some(namespace)) => self.by_namespace.get(namespace),
            (None, None) => return self.by_age.iter().filter(fits).cloned().collect(),
        };
        positions.into_iter().flatten().map(|position| &self.by_age[*position]).filter(fits).cloned().collect()
    }
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
            // A namespace exists where a manifest or any object names it.
            let namespace = if id.kind == Kind::Namespace { &id.name } else { &id.namespace };
            if id.kind != Kind::Node {
                roster_inputs.namespaces.entry(id.cluster.clone()).or_default().entry(namespace.clone()).or_default();
            }
            let (fact, found) = lower(object);
            if is_admin_kind(id.kind) && !is_in_admin_namespace(id, options) {
                findings.push(Finding::warning(
                    id,
                    Code::NotInAdminNamespace,
                    format!(
                        "{} counts only in namespace `{}` of the management cluster `{}`; move it there",
                        id.kind, options.admin_namespace, options.management_cluster
                    ),
                ));
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
        let inputs = Self::arrange(lowered, roster, options, &mut findings);
        (inputs, findings)
    }

    fn arrange(
        lowered: Vec<(&Arc<Object>, Lowered)>,
        roster: Roster,
        options: &Options,
        findings: &mut Findings,
    ) -> Self {
        let mut counted = BTreeSet::new();
        let (mut tables, mut gateways, mut services) = (Vec::new(), Vec::new(), Vec::new());
        let (mut virtual_destinations, mut external_services) = (Vec::new(), Vec::new());
        let mut slices: BTreeMap<ObjectRef, Vec<Arc<Slice>>> = BTreeMap::new();
        let (mut pods, mut nodes, mut secrets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut policies: BTreeMap<WorkspaceId, Vec<Arc<PolicyObject>>> = BTreeMap::new();
        let mut roots: Vec<Arc<TrustPolicy>> = Vec::new();
        for (object, fact) in lowered {
            let id = &object.meta.id;
            if id.kind.is_v2() {
                if let Err(reason) = counts(id, &roster, options) {
                    findings.push(Finding::info(id, Code::NoWorkspace, reason));
                    continue;
                }
                counted.insert(id.clone());
            }
            match fact {
                Lowered::Service(service) => services.push(service),
                Lowered::Slice(slice) => slices.entry(slice.service.clone()).or_default().push(slice),
                Lowered::Pod(pod) => {
                    pods.insert(pod.id.clone(), pod);
                }
                Lowered::Node(node) => {
                    nodes.insert((node.id.cluster.clone(), node.id.name.clone()), node);
                }
                Lowered::Secret(secret) => {
                    secrets.insert(secret.id.clone(), secret);
                }
                Lowered::Trust(policy) => roots.push(policy),
                Lowered::Gateway(gateway) => gateways.push(gateway),
                Lowered::Table(table) => tables.push(table),
                Lowered::VirtualDestination(vd) => virtual_destinations.push(vd),
                Lowered::ExternalService(service) => external_services.push(service),
                Lowered::Policy(policy) => {
                    if let Some(owner) = roster.owner_of(&policy.id) {
                        policies.entry(owner.clone()).or_default().push(policy);
                    }
                }
                Lowered::Namespace(_)
                | Lowered::Cluster(_)
                | Lowered::Workspace(_)
                | Lowered::Settings(_)
                | Lowered::Nothing => {}
            }
        }
        let trust = resolve_trust(&roots, |id| secrets.get(id).cloned(), &options.kept_root, findings);
        Self {
            options: options.clone(),
            roster,
            tables: Collection::new(tables),
            gateways: Collection::new(gateways),
            services: Collection::new(services),
            slices,
            pods,
            nodes,
            secrets,
            trust,
            virtual_destinations: Collection::new(virtual_destinations),
            external_services: Collection::new(external_services),
            policies: policies.into_iter().map(|(owner, list)| (owner, Arc::new(PolicyIndex::new(list)))).collect(),
            no_policies: Arc::new(PolicyIndex::default()),
            counted,
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
    #[must_use]
    pub fn all_tables(&self) -> &[Arc<Table>] {
        &self.tables.by_age
    }

    /// All virtual destinations, in age order.
    #[must_use]
    pub fn all_virtual_destinations(&self) -> &[Arc<VirtualDestination>] {
        &self.virtual_destinations.by_age
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
        self.tables.by_age.iter().filter(|table| matches!(table.role, TableRole::Root(_))).cloned().collect()
    }

    fn virtual_gateway(&self, id: &ObjectRef) -> Option<Arc<VirtualGateway>> {
        self.gateways.get(id)
    }

    fn virtual_gateways(&self) -> Vec<Arc<VirtualGateway>> {
        self.gateways.by_age.clone()
    }

    fn service(&self, id: &ObjectRef) -> Option<Arc<Service>> {
        self.services.get(id)
    }

    fn services(&self, selector: &Selector) -> Vec<Arc<Service>> {
        self.services.select(selector)
    }

    fn trust(&self) -> &RootOfTrust {
        &self.trust.root
    }

    fn secret(&self, id: &ObjectRef) -> Option<Arc<Secret>> {
        self.secrets.get(id).cloned()
    }

    fn slices(&self, service: &ObjectRef) -> Vec<Arc<Slice>> {
        self.slices.get(service).cloned().unwrap_or_default()
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

    fn node(&self, cluster: &Name, name: &Name) -> Option<Arc<Node>> {
        self.nodes.get(&(cluster.clone(), name.clone())).cloned()
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

    fn policies(&self, owner: &WorkspaceId) -> Arc<PolicyIndex> {
        self.policies.get(owner).unwrap_or(&self.no_policies).clone()
    }

    fn policy_owners(&self) -> Vec<WorkspaceId> {
        self.policies.keys().cloned().collect()
    }
}
