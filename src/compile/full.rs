//! From objects to plans and verdicts, from scratch: the oracle, and the first thing to read.
//!
//! lower → roster → bindings → trees → policies on routes → one plan per gateway class → what these send to other clusters,
//! at the gateways there → findings. What is remembered from
//! one compile to the next is an input and an output of its own, so equal inputs give equal results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::ir::frozen::Remembered;
use crate::ir::policy::rate_limit::LimitPlan;
use crate::ir::{Clients, GatewayPlan};
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::Options;
use crate::resolve::attachment::{Beaten, beaten_findings, no_effect_findings};
use crate::resolve::crossing::{Exposure, east_west_findings, exposures};
use crate::resolve::delegation::expand;
use crate::resolve::delegation::fragments::Afresh;
use crate::resolve::destination;
use crate::resolve::external::judge;
use crate::resolve::facts::{Selector, Service, TableRole};
use crate::resolve::gateway::{
    Bindings, GrownTree, Segment, bind, broken_tables, carry_over, compose, cross, freeze, has_port, is_implemented_by,
    is_unread, known_gateways, membership, require_auth_findings,
};
use crate::resolve::mesh::clients::{self, Pods, in_cluster, in_namespace};
use crate::resolve::mesh::{Mesh, clusters_with_clients, offer, table_for, unexposed};
use crate::resolve::policy::rate_limit::fitting;
use crate::resolve::policy::rate_limit::serving::{self, Delivery};
use crate::resolve::world::World;
use crate::store::Store;

use super::inputs::Inputs;
use super::report::{Verdict, verdicts};
use super::reported::Reported;

/// The result of one compile.
///
/// # Cost
/// A clone shares everything with the original.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The arranged inputs, for questions about them.
    pub inputs: Inputs,
    /// Every bound root table's tree.
    pub trees: OrdMap<ObjectRef, Arc<GrownTree>>,
    /// Which tables bind where.
    pub bindings: Bindings,
    /// What clients inside the clusters are offered.
    pub mesh: Mesh,
    /// A plan per gateway class.
    pub plans: OrdMap<GatewayId, Arc<GatewayPlan>>,
    /// What is wrong, sorted by object.
    pub findings: Reported,
    /// The verdict on every object of the v2 API.
    pub verdicts: OrdMap<ObjectRef, Arc<Verdict>>,
    /// What each rate-limit service is told that some configuration names.
    pub limits: OrdMap<ObjectRef, Arc<LimitPlan>>,
    /// For the next compile.
    pub remembered: Arc<Remembered>,
    /// Every object that there is.
    pub objects: Store,
}

/// Compiles everything.
///
/// `given` are findings that the sources made about objects; they count for the verdicts.
/// Besides the gateways that virtual gateways name, plans are made for `wanted` ones: classes of several Services, or of
/// Services that no virtual gateway names, which some Envoy asked for.
/// `remembered` is what the compile before handed on, or what was kept of an earlier run; nothing to begin with.
///
/// # Cost
/// In proportion to all objects and, per gateway, to its routes.
///
/// # Rule
/// R2, R8, R140.
#[must_use]
pub fn compile(
    store: &Store,
    given: &[Finding],
    options: &Options,
    wanted: &BTreeSet<GatewayId>,
    remembered: &Remembered,
) -> Compiled {
    let (inputs, mut findings) = Inputs::new(store, options);
    findings.extend(given.iter().cloned());
    let bindings = bind(&inputs, &mut findings);
    let broken = broken_tables(&findings);
    let mut handed_on = carry_over(&inputs, remembered, is_unread(given));
    let mut trees: OrdMap<ObjectRef, Arc<GrownTree>> = OrdMap::new();
    let mesh = offers(&inputs);
    let is_bound = |table: &ObjectRef| bindings.gateways.contains_key(table);
    let tables = inputs.root_tables().into_iter().filter(|table| is_bound(&table.id) || mesh.has(&table.id));
    let made_up = mesh.roots().filter(|root| root.kind != Kind::RouteTable);
    for table in tables.chain(made_up.filter_map(|root| table_for(&inputs, root))) {
        if let Some(tree) = expand(&inputs, &table, &mut Afresh(&inputs)) {
            findings.extend(tree.findings.iter().cloned());
            let mut grown = GrownTree::new(tree);
            freeze(&inputs, &mut grown, &broken, remembered, &mut handed_on, &mut findings);
            if grown.frozen.is_none() {
                for segment in &grown.tree.segments {
                    require_auth_findings(&inputs, segment, &mut findings);
                    findings.extend(told(segment));
                }
            }
            trees.insert(table.id.clone(), Arc::new(grown));
        }
    }
    findings.extend(orphans(&inputs, &trees, &bindings, &mesh));
    findings.extend(mesh.hosts().flat_map(|host| mesh.conflicts(host)));
    findings.extend(mesh.ports().flat_map(|port| mesh.port_conflicts(port)));
    findings.extend(mesh.federated().flat_map(|(workspace, _)| mesh.told_of_many(inputs.roster(), workspace)));
    findings.extend(beaten_findings(&beaten(&trees)));
    let in_force = trees.values().filter(|grown| grown.frozen.is_none());
    findings.extend(in_force.flat_map(|grown| &grown.tree.segments).flat_map(|segment| closed(segment)));
    let limits = limits(&inputs, &mut findings);
    for vd in inputs.all_virtual_destinations() {
        destination::judge(&inputs, vd, &mut findings);
    }
    for service in inputs.all_external_services() {
        judge(&inputs, service, &mut findings);
    }
    let mut gateways = known_gateways(&inputs);
    gateways.extend(wanted.iter().cloned());
    findings.extend(no_effect_findings(&inputs, &gateways));
    findings.extend(mesh.roots().flat_map(|root| unexposed(&inputs, root, &gateways)));
    let clients = clients(&inputs, &gateways, &mut findings);
    let around = (&bindings, &trees, &mesh);
    let composed =
        gateways.iter().map(|gateway| compose(&inputs, gateway, around, clients.get(&gateway.cluster), &mut findings));
    let mut composed: Vec<GatewayPlan> = composed.collect();
    let exposed: BTreeSet<Exposure> = composed.iter().flat_map(exposures).collect();
    let identity = |gateway: &GatewayId| Some(membership(&inputs, gateway, &mut Findings::new())?.uri);
    for plan in &mut composed {
        let cluster = plan.gateway.cluster.clone();
        let here = exposed.iter().filter(|exposure| exposure.target.object.cluster == cluster);
        cross(&inputs, plan, here, identity, &mut findings);
    }
    east_west_findings(&inputs, &mut findings);
    let plans: OrdMap<GatewayId, Arc<GatewayPlan>> =
        composed.into_iter().map(|plan| (plan.gateway.clone(), Arc::new(plan))).collect();
    findings.extend(unimplemented_gateways(&inputs, &gateways));
    let findings = Reported::new(findings);
    let verdicts = verdicts(store, &inputs, &trees, &bindings, &plans, &findings);
    let objects = store.clone();
    let remembered = Arc::new(handed_on);
    Compiled { inputs, trees, bindings, mesh, plans, findings, verdicts, limits, remembered, objects }
}

/// What clients inside the clusters are offered.
fn offers(inputs: &Inputs) -> Mesh {
    let tables = inputs.root_tables().into_iter().map(|table| table.id.clone());
    let virtual_destinations = inputs.all_virtual_destinations().map(|vd| vd.id.clone());
    let services = inputs.services(&Selector::default()).into_iter().map(|service| service.id.clone());
    let external = inputs.all_external_services().map(|service| service.id.clone());
    let mut mesh = Mesh::default();
    for root in tables.chain(virtual_destinations).chain(external).chain(services) {
        mesh.put(&root, offer(inputs, &root));
    }
    mesh
}

/// The clients of the clusters in which some gateway serves them.
fn clients(inputs: &Inputs, gateways: &BTreeSet<GatewayId>, findings: &mut Findings) -> BTreeMap<Name, Arc<Clients>> {
    let mut clients = BTreeMap::new();
    for cluster in clusters_with_clients(inputs, gateways.iter()) {
        let namespaces = clients::namespaces(inputs, &cluster).into_iter();
        let pods: Vec<Pods> = namespaces.map(|namespace| in_namespace(inputs, &cluster, &namespace)).collect();
        let (own, found) = in_cluster(pods.iter());
        findings.extend(found);
        clients.insert(cluster, own);
    }
    clients
}

/// What each rate-limit service is told that some configuration names.
fn limits(inputs: &Inputs, findings: &mut Findings) -> OrdMap<ObjectRef, Arc<LimitPlan>> {
    let deliveries: Vec<Delivery> =
        inputs.all_limits().filter_map(|object| serving::deliver(inputs, object, findings)).collect();
    let servers: BTreeSet<&ObjectRef> = deliveries.iter().flat_map(|delivery| &delivery.servers).collect();
    let plan = |server: &ObjectRef| {
        let own = deliveries.iter().filter(|delivery| delivery.servers.contains(server));
        (server.clone(), Arc::new(serving::plan(server, own, findings)))
    };
    servers.into_iter().map(plan).collect()
}

/// What the authors of limits are told of the routes of a segment.
pub(super) fn told(segment: &Segment) -> Findings {
    let routes = segment.routes.iter().zip(&segment.attached);
    let told = routes.filter_map(|(route, attached)| Some((route.chain.last()?.to_string(), attached)));
    let told = told.flat_map(|(route, attached)| attached.told.iter().map(move |told| (told, route.clone())));
    fitting::findings(told)
}

/// Child tables that no bound root table reaches (R91).
fn orphans(inputs: &Inputs, trees: &OrdMap<ObjectRef, Arc<GrownTree>>, bindings: &Bindings, mesh: &Mesh) -> Findings {
    let bound = bindings.tables.values().flat_map(|tables| tables.values()).map(|bound| &bound.0);
    let bound: BTreeSet<&ObjectRef> = bound.chain(mesh.roots()).collect();
    let reached: BTreeSet<&ObjectRef> =
        trees.values().filter(|grown| bound.contains(&grown.tree.root.id)).flat_map(|grown| reached(grown)).collect();
    inputs
        .all_tables()
        .filter(|table| matches!(table.role, TableRole::Child) && !reached.contains(&table.id))
        .map(|table| orphan(&table.id))
        .collect()
}

/// The tables that a tree serves, below its root.
pub(super) fn reached(grown: &GrownTree) -> impl Iterator<Item = &ObjectRef> {
    let kept = grown.frozen.iter().flat_map(|accepted| &accepted.routes);
    grown.tree.parents.keys().chain(kept.flat_map(|route| route.body.chain.iter().map(|hop| &hop.table)))
}

/// R91.
pub(super) fn orphan(table: &ObjectRef) -> Finding {
    Finding::warning(
        table,
        Code::OrphanTable,
        "no root table that a gateway serves delegates to this table, so it serves nothing; add `hosts`, or select it in a `delegate`",
    )
}

/// Who lost to whom, with the routes it happened on.
fn beaten(trees: &OrdMap<ObjectRef, Arc<GrownTree>>) -> BTreeMap<Beaten, Vec<String>> {
    let mut all: BTreeMap<Beaten, Vec<String>> = BTreeMap::new();
    for grown in trees.values() {
        for (beaten, route) in grown.tree.segments.iter().flat_map(|segment| beaten_in(segment)) {
            all.entry(beaten.clone()).or_default().push(route);
        }
    }
    for routes in all.values_mut() {
        routes.sort();
        routes.dedup();
    }
    all
}

/// The same in one segment of a tree.
pub(super) fn beaten_in(segment: &Segment) -> impl Iterator<Item = (&Beaten, String)> {
    segment.routes.iter().zip(&segment.attached).flat_map(|(route, attached)| {
        let last = route.chain.last();
        last.into_iter().flat_map(|last| attached.beaten.iter().map(|beaten| (beaten, last.to_string())))
    })
}

/// Tells tables which of their routes a protecting policy keeps closed (R130). The policy itself carries the error.
pub(super) fn closed(segment: &Segment) -> Findings {
    let mut findings = Findings::new();
    for (route, attached) in segment.routes.iter().zip(&segment.attached) {
        if let (Some((policy, fault)), Some(last)) = (&attached.closed, route.chain.last()) {
            findings.push(
                Finding::warning(
                    &last.table,
                    fault.code,
                    format!("route `{}` answers 500: {}", last.route, fault.message),
                )
                .at(last.field())
                .with(policy),
            );
        }
    }
    findings
}

/// Virtual gateways that no gateway Service implements, and listeners of those for all gateways whose port none has.
pub(super) fn unimplemented_gateways<W: World>(inputs: &W, gateways: &BTreeSet<GatewayId>) -> Findings {
    let services: BTreeMap<ObjectRef, Arc<Service>> = gateways
        .iter()
        .flat_map(|gateway| {
            gateway
                .services
                .iter()
                .map(|name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name))
        })
        .filter_map(|id| inputs.service(&id).map(|service| (id, service)))
        .collect();
    let mut findings = Findings::new();
    for gateway in inputs.virtual_gateways() {
        let implementing: Vec<&Arc<Service>> =
            services.values().filter(|service| is_implemented_by(inputs, &gateway, service)).collect();
        if gateway.workloads.is_some() {
            if implementing.is_empty() {
                findings.push(Finding::warning(
                    &gateway.id,
                    Code::ListenerPort,
                    "`workloads` selects no gateway Service of this workspace, so nothing is served; compare it with the Service's name and `spec.selector`",
                ));
            }
            continue;
        }
        for listener in &gateway.listeners {
            if !implementing.iter().any(|service| has_port(service, listener)) {
                findings.push(
                    Finding::warning(
                        &gateway.id,
                        Code::ListenerPort,
                        format!(
                            "no Service of this workspace that selects Pods has port {}, so nothing is served there; correct the port, or the Service",
                            listener.port_text()
                        ),
                    )
                    .at(FieldPath::new("spec.listeners").index(listener.index).field("port")),
                );
            }
        }
    }
    findings
}
