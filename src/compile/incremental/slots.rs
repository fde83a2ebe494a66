//! What may be read, who reads it, and what a change touches.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::compile::inputs::Inputs;
use crate::ir::UpstreamId;
use crate::ir::route::EffectiveLabels;
use crate::memo::Reads;
use crate::model::{GatewayId, Kind, Labels, Name, ObjectRef, WorkspaceId};
use crate::resolve::Options;
use crate::resolve::balancing::Place;
use crate::resolve::facts::{
    Account, AuthServerObject, ExternalEndpoint, ExternalService, Node, Pod, PolicyObject, Secret, Selector, Service,
    Slice, Table, VirtualDestination, VirtualGateway,
};
use crate::resolve::lower::Lowered;
use crate::resolve::policy::rate_limit::LimitObject;
use crate::resolve::roster::Roster;
use crate::resolve::trust::RootOfTrust;
use crate::resolve::world::{DestinationKey, PolicyPlace, World};

/// Something that may be read. The roster is not among them, nor are the options, but for the kept root, which comes with
/// what all gateways trust: where they change, everything is made anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// An object, or that there is none.
    Object(ObjectRef),
    /// All objects of a kind that a selector picks.
    Selected(Kind, Box<(Bucket, Selector)>),
    /// All virtual gateways.
    Gateways,
    /// All root tables.
    Roots,
    /// The slices of a Service.
    Slices(ObjectRef),
    /// The Pods of a namespace.
    Pods(Name, Name),
    /// A Node.
    Node(Name, Name),
    /// The Nodes of a cluster.
    Nodes(Name),
    /// Where a gateway is.
    Place(GatewayId),
    /// Some policies of a workspace.
    Policies(WorkspaceId, PolicyPlace),
    /// All policies.
    AllPolicies,
    /// Whether a table has an error in its routes by itself.
    Broken(ObjectRef),
    /// Which tables are bound to a virtual gateway.
    Bound(ObjectRef),
    /// What all gateways trust.
    Trust,
    /// Which classes of gateways there are.
    Classes,
    /// Which ports clients inside the clusters use.
    MeshPorts,
}

/// A question for Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRead<'a> {
    /// For one.
    One(&'a ObjectRef),
    /// For all that a selector picks.
    Selected(&'a Selector),
}

impl Slot {
    /// The question for Secrets that it is.
    fn secret(&self) -> Option<SecretRead<'_>> {
        match self {
            Self::Object(id) if id.kind == Kind::Secret => Some(SecretRead::One(id)),
            Self::Selected(Kind::Secret, picked) => Some(SecretRead::Selected(&picked.1)),
            _ => None,
        }
    }
}

impl Reads<Slot, Reader> {
    /// The questions for Secrets that somebody's answer depends on.
    pub(super) fn secrets(&self) -> impl Iterator<Item = SecretRead<'_>> {
        let first = Slot::Object(ObjectRef::new(Kind::Secret, "", "", ""));
        let least = (Bucket::Label(Name::default(), Name::default()), Selector::default());
        let selected = self.within(Slot::Selected(Kind::Secret, Box::new(least))..);
        self.within(first..).map_while(|(slot, _)| slot.secret()).chain(selected.map_while(|(slot, _)| slot.secret()))
    }
}

/// Where a selector is looked for when an object changes: it picks only what is in its bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bucket {
    /// It asks for this label pair.
    Label(Name, Name),
    /// It asks for this namespace, and for no label.
    Namespace(Name),
    /// It asks for neither.
    All,
}

impl Bucket {
    fn of(selector: &Selector) -> Self {
        match (selector.labels.iter().next(), &selector.namespace) {
            (Some((key, value)), _) => Self::Label(key.clone(), value.clone()),
            (None, Some(namespace)) => Self::Namespace(namespace.clone()),
            (None, None) => Self::All,
        }
    }

    fn holding(id: &ObjectRef, labels: &Labels) -> impl Iterator<Item = Self> {
        let labels = labels.iter().map(|(key, value)| Self::Label(key.clone(), value.clone()));
        labels.chain([Self::Namespace(id.namespace.clone()), Self::All])
    }
}

/// Something that is kept, and was made from what it read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    /// What all gateways trust.
    Trust,
    /// What a policy with references comes to.
    Policy(ObjectRef),
    /// Which rate-limit services get a configuration.
    Delivery(ObjectRef),
    /// Where a root table binds.
    Binding(ObjectRef),
    /// The tree of a root table with its policies.
    Tree(ObjectRef),
    /// What a delegation, or a table below one, brings to the tree of a root table.
    Fragment(ObjectRef, u64),
    /// The Services behind a virtual destination, or the endpoints of an external service.
    Backing(ObjectRef),
    /// Whether the selectors of a policy have an effect.
    NoEffect(ObjectRef),
    /// Which Services are gateways.
    Classes,
    /// Which virtual gateways are served by nobody.
    Unimplemented,
    /// What is wrong with the east-west gateways that workspaces choose.
    EastWest,
    /// Which east-west gateways lack a port of a virtual destination.
    Unexposed(ObjectRef),
    /// The clients in one namespace of a cluster.
    Clients(Name, Name),
    /// The listeners of a gateway.
    Listeners(GatewayId),
    /// What is wrong with a piece of a root table's tree on one gateway.
    Piece(GatewayId, ObjectRef, u64),
    /// What policies share for all routes of a gateway.
    Extensions(GatewayId),
    /// A destination with its endpoints, for one gateway.
    Upstream(GatewayId, UpstreamId),
    /// Who a gateway is to others.
    Identity(GatewayId),
    /// What gateways of other clusters connect to on one gateway.
    Crossing(GatewayId),
}

/// What must be made anew.
pub(super) type Dirty = BTreeSet<Reader>;

/// Takes readers of one layer out.
pub(super) fn take(dirty: &mut Dirty, is_of_layer: impl Fn(&Reader) -> bool) -> Vec<Reader> {
    let mut taken = Vec::new();
    dirty.retain(|reader| {
        let is_taken = is_of_layer(reader);
        if is_taken {
            taken.push(reader.clone());
        }
        !is_taken
    });
    taken
}

/// Adds those who read a slot.
pub(super) fn touch(reads: &Reads<Slot, Reader>, slot: &Slot, dirty: &mut Dirty) {
    dirty.extend(reads.of(slot).cloned());
}

/// Adds those who read something that an object with this checked form answers, whether it comes or goes.
///
/// # Cost
/// In proportion to the readers, and to the selectors that ask for a label or namespace of the object.
pub(super) fn touch_object(
    reads: &Reads<Slot, Reader>,
    id: &ObjectRef,
    fact: &Lowered,
    owner: Option<&WorkspaceId>,
    dirty: &mut Dirty,
) {
    touch(reads, &Slot::Object(id.clone()), dirty);
    let no_labels = Labels::new();
    let mut labels = None;
    match fact {
        Lowered::Table(table) => {
            touch(reads, &Slot::Roots, dirty);
            labels = Some(&table.labels);
        }
        Lowered::Service(service) => labels = Some(&service.labels),
        Lowered::Account(account) => labels = Some(&account.labels),
        Lowered::VirtualDestination(vd) => labels = Some(&vd.labels),
        Lowered::ExternalService(service) => labels = Some(&service.labels),
        Lowered::ExternalEndpoint(endpoint) => labels = Some(&endpoint.labels),
        Lowered::Gateway(_) => touch(reads, &Slot::Gateways, dirty),
        Lowered::Slice(slice) => touch(reads, &Slot::Slices(slice.service.clone()), dirty),
        Lowered::Pod(_) => touch(reads, &Slot::Pods(id.cluster.clone(), id.namespace.clone()), dirty),
        Lowered::Node(_) => {
            touch(reads, &Slot::Node(id.cluster.clone(), id.name.clone()), dirty);
            touch(reads, &Slot::Nodes(id.cluster.clone()), dirty);
        }
        Lowered::Policy(policy) => {
            touch(reads, &Slot::AllPolicies, dirty);
            for places in PolicyPlace::asked(policy) {
                if let Some(owner) = owner {
                    let slots = places.into_iter().map(|place| Slot::Policies(owner.clone(), place));
                    dirty.extend(reads.of_all(&slots.collect::<Vec<_>>()).cloned());
                }
            }
        }
        Lowered::Secret(secret) => labels = Some(&secret.labels),
        Lowered::AuthServer(_) => labels = Some(&no_labels),
        Lowered::Namespace(_)
        | Lowered::Trust(_)
        | Lowered::Limits(_)
        | Lowered::Cluster(_)
        | Lowered::Workspace(_)
        | Lowered::Settings(_)
        | Lowered::Nothing => {}
    }
    if labels.is_none() {
        return;
    }
    let labels = labels.unwrap_or(&no_labels);
    for bucket in Bucket::holding(id, labels) {
        let first = Slot::Selected(id.kind, Box::new((bucket.clone(), Selector::default())));
        for (slot, readers) in reads.within(first..) {
            let Slot::Selected(kind, selected) = slot else { break };
            let (other, selector) = &**selected;
            if *kind != id.kind || *other != bucket {
                break;
            }
            if selector.fits(id, labels) {
                dirty.extend(readers.cloned());
            }
        }
    }
}

/// Answers from the inputs and notes every question.
pub(super) struct Recording<'a> {
    inputs: &'a Inputs,
    slots: RefCell<BTreeSet<Slot>>,
    /// The object that was asked for last; neighbours often ask for the same.
    last: RefCell<Option<ObjectRef>>,
    /// Label pairs that are noted, by where the texts of owner, key and value are. Their slots hold these texts, so that
    /// nothing else can be there meanwhile.
    pairs: RefCell<HashSet<[*const u8; 3]>>,
}

impl<'a> Recording<'a> {
    pub(super) fn new(inputs: &'a Inputs) -> Self {
        Self { inputs, slots: RefCell::default(), last: RefCell::default(), pairs: RefCell::default() }
    }

    /// Notes what was read by other ways.
    pub(super) fn note(&self, slot: Slot) {
        self.slots.borrow_mut().insert(slot);
    }

    pub(super) fn into_slots(self) -> BTreeSet<Slot> {
        self.slots.into_inner()
    }

    fn object(&self, id: &ObjectRef) {
        let mut last = self.last.borrow_mut();
        if last.as_ref() != Some(id) {
            self.note(Slot::Object(id.clone()));
            *last = Some(id.clone());
        }
    }

    /// Notes that policies of a workspace were asked for that select by a label pair.
    fn pair(&self, owner: &WorkspaceId, key: &Name, value: &Name) {
        let texts = [owner.0.as_str().as_ptr(), key.as_str().as_ptr(), value.as_str().as_ptr()];
        if self.pairs.borrow().contains(&texts) {
            return;
        }
        let slot = Slot::Policies(owner.clone(), PolicyPlace::Labelled(key.clone(), value.clone()));
        // Where an equal one is there, it holds other texts.
        if self.slots.borrow_mut().insert(slot) {
            self.pairs.borrow_mut().insert(texts);
        }
    }

    fn selected(&self, kind: Kind, selector: &Selector) {
        self.note(Slot::Selected(kind, Box::new((Bucket::of(selector), selector.clone()))));
    }
}

impl World for Recording<'_> {
    fn options(&self) -> &Options {
        self.inputs.options()
    }

    fn roster(&self) -> &Roster {
        self.inputs.roster()
    }

    fn table(&self, id: &ObjectRef) -> Option<Arc<Table>> {
        self.object(id);
        self.inputs.table(id)
    }

    fn tables(&self, selector: &Selector) -> Vec<Arc<Table>> {
        self.selected(Kind::RouteTable, selector);
        self.inputs.tables(selector)
    }

    fn root_tables(&self) -> Vec<Arc<Table>> {
        self.note(Slot::Roots);
        self.inputs.root_tables()
    }

    fn virtual_gateway(&self, id: &ObjectRef) -> Option<Arc<VirtualGateway>> {
        self.object(id);
        self.inputs.virtual_gateway(id)
    }

    fn virtual_gateways(&self) -> Vec<Arc<VirtualGateway>> {
        self.note(Slot::Gateways);
        self.inputs.virtual_gateways()
    }

    fn service(&self, id: &ObjectRef) -> Option<Arc<Service>> {
        self.object(id);
        self.inputs.service(id)
    }

    fn services(&self, selector: &Selector) -> Vec<Arc<Service>> {
        self.selected(Kind::Service, selector);
        self.inputs.services(selector)
    }

    fn accounts(&self, selector: &Selector) -> Vec<Arc<Account>> {
        self.selected(Kind::ServiceAccount, selector);
        self.inputs.accounts(selector)
    }

    fn trust(&self) -> &RootOfTrust {
        self.note(Slot::Trust);
        self.inputs.trust()
    }

    fn secret(&self, id: &ObjectRef) -> Option<Arc<Secret>> {
        self.object(id);
        self.inputs.secret(id)
    }

    fn secrets(&self, selector: &Selector) -> Vec<Arc<Secret>> {
        self.selected(Kind::Secret, selector);
        self.inputs.secrets(selector)
    }

    fn auth_server(&self, id: &ObjectRef) -> Option<Arc<AuthServerObject>> {
        self.object(id);
        self.inputs.auth_server(id)
    }

    fn auth_servers(&self) -> Vec<Arc<AuthServerObject>> {
        self.selected(Kind::ExtAuthServer, &Selector::default());
        self.inputs.auth_servers()
    }

    fn slices(&self, service: &ObjectRef) -> Vec<Arc<Slice>> {
        self.note(Slot::Slices(service.clone()));
        self.inputs.slices(service)
    }

    fn pod(&self, id: &ObjectRef) -> Option<Arc<Pod>> {
        self.object(id);
        self.inputs.pod(id)
    }

    fn pods(&self, cluster: &Name, namespace: &Name) -> Vec<Arc<Pod>> {
        self.note(Slot::Pods(cluster.clone(), namespace.clone()));
        self.inputs.pods(cluster, namespace)
    }

    fn node(&self, cluster: &Name, name: &Name) -> Option<Arc<Node>> {
        self.note(Slot::Node(cluster.clone(), name.clone()));
        self.inputs.node(cluster, name)
    }

    fn nodes(&self, cluster: &Name) -> Vec<Arc<Node>> {
        self.note(Slot::Nodes(cluster.clone()));
        self.inputs.nodes(cluster)
    }

    fn place(&self, gateway: &GatewayId) -> Place {
        self.note(Slot::Place(gateway.clone()));
        self.inputs.place(gateway)
    }

    fn virtual_destination(&self, id: &ObjectRef) -> Option<Arc<VirtualDestination>> {
        self.object(id);
        self.inputs.virtual_destination(id)
    }

    fn virtual_destinations(&self, selector: &Selector) -> Vec<Arc<VirtualDestination>> {
        self.selected(Kind::VirtualDestination, selector);
        self.inputs.virtual_destinations(selector)
    }

    fn external_service(&self, id: &ObjectRef) -> Option<Arc<ExternalService>> {
        self.object(id);
        self.inputs.external_service(id)
    }

    fn external_services(&self, selector: &Selector) -> Vec<Arc<ExternalService>> {
        self.selected(Kind::ExternalService, selector);
        self.inputs.external_services(selector)
    }

    fn external_endpoints(&self, selector: &Selector) -> Vec<Arc<ExternalEndpoint>> {
        self.selected(Kind::ExternalEndpoint, selector);
        self.inputs.external_endpoints(selector)
    }

    fn limit_object(&self, id: &ObjectRef) -> Option<Arc<LimitObject>> {
        self.object(id);
        self.inputs.limit_object(id)
    }

    fn candidates(&self, owner: &WorkspaceId, labels: &EffectiveLabels) -> Vec<Arc<PolicyObject>> {
        self.note(Slot::Policies(owner.clone(), PolicyPlace::Unlabelled));
        for (key, label) in labels.iter() {
            self.pair(owner, key, &label.value);
        }
        self.inputs.candidates(owner, labels)
    }

    fn closing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.note(Slot::Policies(owner.clone(), PolicyPlace::Closing));
        self.inputs.closing_policies(owner)
    }

    fn destination_candidates(
        &self,
        owner: &WorkspaceId,
        object: &ObjectRef,
        labels: &Labels,
    ) -> Vec<Arc<PolicyObject>> {
        for key in DestinationKey::picking(object, labels) {
            self.note(Slot::Policies(owner.clone(), PolicyPlace::Destination(key)));
        }
        self.inputs.destination_candidates(owner, object, labels)
    }

    fn access_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        for key in DestinationKey::picking(object, labels) {
            self.note(Slot::Policies(owner.clone(), PolicyPlace::Access(key)));
        }
        self.inputs.access_policies(owner, object, labels)
    }

    fn connection_policies(&self, owner: &WorkspaceId, object: &ObjectRef, labels: &Labels) -> Vec<Arc<PolicyObject>> {
        for key in DestinationKey::picking(object, labels) {
            self.note(Slot::Policies(owner.clone(), PolicyPlace::Connections(key)));
        }
        self.inputs.connection_policies(owner, object, labels)
    }

    fn sharing_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.note(Slot::Policies(owner.clone(), PolicyPlace::Sharing));
        self.inputs.sharing_policies(owner)
    }

    fn workload_policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.note(Slot::Policies(owner.clone(), PolicyPlace::Workloads));
        self.inputs.workload_policies(owner)
    }

    fn policies(&self, owner: &WorkspaceId) -> Vec<Arc<PolicyObject>> {
        self.note(Slot::AllPolicies);
        self.inputs.policies(owner)
    }

    fn policy_owners(&self) -> Vec<WorkspaceId> {
        self.note(Slot::AllPolicies);
        self.inputs.policy_owners()
    }
}
