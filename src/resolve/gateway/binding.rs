//! Which root table binds to which listener of which virtual gateway, and on which hosts.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use crate::model::{Code, FieldPath, Finding, Findings, Host, Kind, ObjectRef};
use crate::resolve::facts::{
    Age, GatewayListener, ListenerProtocol, Reference, RootTable, StreamMatcher, StreamRoute, Table, TableRole,
    TlsMode, VirtualGateway,
};
use crate::resolve::visibility::is_visible;
use crate::resolve::world::World;

/// A root table on a listener, with the hosts that it has there: as the listener narrows them, and as the table writes them.
pub type Bound = (ObjectRef, Vec<(Host, Host)>);

/// Which root tables a listener of a virtual gateway serves, and on which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// By virtual gateway and listener position: tables with the hosts they have there, in age order and the order of
    /// their references.
    pub tables: OrdMap<ListenerKey, OrdMap<(Age, usize), Arc<Bound>>>,
    /// The same by host as well.
    by_host: OrdMap<(ListenerKey, Host, Age, usize), Arc<Bound>>,
    /// The virtual gateways that each table may use.
    pub gateways: OrdMap<ObjectRef, Arc<BTreeSet<ObjectRef>>>,
}

/// A virtual gateway and the position of one of its listeners.
pub type ListenerKey = (ObjectRef, usize);

/// Where one root table binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableBindings {
    /// The table.
    pub table: Arc<Table>,
    /// The virtual gateways that it may use.
    pub gateways: BTreeSet<ObjectRef>,
    /// The listeners that let it in, each with the position of the reference that led there.
    pub listeners: Vec<(ListenerKey, usize, Arc<Bound>)>,
}

impl Bindings {
    /// Takes a table's bindings in.
    pub fn insert(&mut self, own: &TableBindings) {
        if !own.gateways.is_empty() {
            self.gateways.insert(own.table.id.clone(), Arc::new(own.gateways.clone()));
        }
        for (listener, reference, bound) in &own.listeners {
            let age = (own.table.age.clone(), *reference);
            self.tables.entry(listener.clone()).or_default().insert(age, bound.clone());
            for (host, _) in &bound.1 {
                let key = (listener.clone(), host.clone(), own.table.age.clone(), *reference);
                self.by_host.insert(key, bound.clone());
            }
        }
    }

    /// The tables that have a host on a listener, each with its own pattern for the host.
    pub(super) fn of_host(&self, listener: &ListenerKey, host: &Host) -> impl Iterator<Item = (&ObjectRef, &Host)> {
        let first = (listener.clone(), host.clone(), Age::first(), 0);
        let bound = self
            .by_host
            .range(first..)
            .take_while(move |((other, claimed, ..), _)| other == listener && claimed == host);
        bound.flat_map(move |(_, bound)| {
            let (table, hosts) = &**bound;
            let from = hosts.partition_point(|(other, _)| other < host);
            hosts[from..].iter().take_while(move |(other, _)| other == host).map(move |(_, written)| (table, written))
        })
    }

    /// Takes a table's bindings out.
    pub fn remove(&mut self, own: &TableBindings) {
        self.gateways.remove(&own.table.id);
        for (listener, reference, bound) in &own.listeners {
            for (host, _) in &bound.1 {
                self.by_host.remove(&(listener.clone(), host.clone(), own.table.age.clone(), *reference));
            }
            if let Some(bound) = self.tables.get_mut(listener) {
                bound.remove(&(own.table.age.clone(), *reference));
                if bound.is_empty() {
                    self.tables.remove(listener);
                }
            }
        }
    }
}

/// Decides which root tables bind to which listeners.
///
/// # Findings
/// [`Code::GatewayNotUsable`] and [`Code::ListenerFilter`] on tables.
///
/// # Rule
/// R62 to R66.
pub fn bind<W: World + ?Sized>(world: &W, findings: &mut Findings) -> Bindings {
    let mut bindings = Bindings::default();
    for table in world.root_tables() {
        bindings.insert(&bind_table(world, &table, findings));
    }
    bindings
}

/// The same for one root table.
///
/// # Rule
/// R62 to R66.
pub fn bind_table<W: World + ?Sized>(world: &W, table: &Arc<Table>, findings: &mut Findings) -> TableBindings {
    let mut own = TableBindings { table: table.clone(), gateways: BTreeSet::new(), listeners: Vec::new() };
    if let TableRole::Root(root) = &table.role {
        for (index, reference) in root.gateways.iter().enumerate() {
            bind_one(world, table, root, (index, reference), &mut own, findings);
        }
    }
    own
}

fn bind_one<W: World + ?Sized>(
    world: &W,
    table: &Arc<Table>,
    root: &RootTable,
    (position, reference): (usize, &Reference),
    own: &mut TableBindings,
    findings: &mut Findings,
) {
    let field = &FieldPath::new("spec.virtualGateways").index(position);
    let (gateway, others) = find_gateway(world, &table.id, reference);
    if others > 0
        && let Some(gateway) = &gateway
    {
        findings.push(
            Finding::warning(
                &table.id,
                Code::AmbiguousReference,
                format!(
                    "the reference names no cluster and finds {} virtual gateways; the oldest, `{}`, is used; write the cluster",
                    others + 1,
                    gateway.id
                ),
            )
            .at(field.clone())
            .with(&gateway.id),
        );
    }
    let mut not_usable = |message: String| {
        findings.push(Finding::error(&table.id, Code::GatewayNotUsable, message).at(field.clone()));
    };
    let Some(gateway) = gateway else {
        let namespace = reference.namespace.as_ref().unwrap_or(&table.id.namespace);
        let place = match &reference.cluster {
            Some(cluster) => format!("cluster `{cluster}`"),
            None => "any cluster".to_owned(),
        };
        not_usable(format!(
            "there is no virtual gateway `{namespace}/{}` in {place}, so the hosts are not served there; correct the reference",
            reference.name
        ));
        return;
    };
    let Some(owner) = world.roster().owner_of(&gateway.id) else { return };
    if !is_visible(world, owner, &table.id, &table.labels) {
        not_usable(format!(
            "workspace `{owner}`, which owns `{}`, does not see this table: export it there (`exportTo`, kind ROUTE_TABLE) and import it there; its hosts are not served on that gateway",
            gateway.id
        ));
        return;
    }
    own.gateways.insert(gateway.id.clone());
    let mut served = false;
    for listener in &gateway.listeners {
        let hosts = admitted(world, listener, table, root);
        if !hosts.is_empty() {
            served = true;
            let key = (gateway.id.clone(), listener.index);
            own.listeners.push((key, position, Arc::new((table.id.clone(), hosts))));
        }
    }
    streams_served(table, &gateway, own, field, findings);
    if !served && !gateway.listeners.is_empty() && !root.hosts.is_empty() {
        findings.push(
            Finding::warning(
                &table.id,
                Code::ListenerFilter,
                format!("no listener of `{}` lets these hosts in; its `allowedRouteTables` decides", gateway.id),
            )
            .at(field.clone())
            .with(&gateway.id),
        );
    }
}

/// Tells a table whose routes of whole connections no listener that lets it in can take (R81).
fn streams_served(
    table: &Table,
    gateway: &VirtualGateway,
    own: &TableBindings,
    field: &FieldPath,
    findings: &mut Findings,
) {
    let admits = |listener: &&GatewayListener| {
        let mut keys = own.listeners.iter().map(|(key, ..)| key);
        listener.fault.is_none() && keys.any(|(other, index)| *other == gateway.id && *index == listener.index)
    };
    let passes = |listener: &GatewayListener| listener.tls == Some(TlsMode::Passthrough);
    let mut tell = |kind: &str, does: &str| {
        let message = format!(
            "no listener of `{}` that lets the table in {does}, so its `{kind}` routes serve nothing",
            gateway.id
        );
        let finding = Finding::warning(&table.id, Code::ListenerFilter, message).at(field.clone());
        findings.push(finding.with(&gateway.id));
    };
    let is_tcp = |stream: &StreamRoute| matches!(stream.matcher, StreamMatcher::Tcp(_));
    let whole = |listener: &&GatewayListener| {
        matches!(listener.protocol, ListenerProtocol::Tcp | ListenerProtocol::Tls) && !passes(listener)
    };
    if table.streams.iter().any(is_tcp) && !gateway.listeners.iter().filter(whole).any(|l| admits(&l)) {
        tell("tcp", "takes whole connections");
    }
    let mut passing = gateway.listeners.iter().filter(|listener| passes(listener));
    if table.streams.iter().any(|stream| !is_tcp(stream)) && !passing.any(|l| admits(&l)) {
        tell("tls", "passes TLS through");
    }
}

/// R38 and D5 for virtual gateways, which a table may name in any workspace (R37); and how many others there are.
fn find_gateway<W: World + ?Sized>(
    world: &W,
    holder: &ObjectRef,
    reference: &Reference,
) -> (Option<Arc<VirtualGateway>>, usize) {
    let namespace = reference.namespace.as_ref().unwrap_or(&holder.namespace);
    let cluster = reference.cluster.as_ref().unwrap_or(&holder.cluster);
    let exact = ObjectRef::new(Kind::VirtualGateway, cluster, namespace, &reference.name);
    let found = world.virtual_gateway(&exact);
    if found.is_some() || reference.cluster.is_some() {
        return (found, 0);
    }
    let mut elsewhere =
        world.virtual_gateways().into_iter().filter(|g| g.id.namespace == *namespace && g.id.name == reference.name);
    (elsewhere.next(), elsewhere.count())
}

/// The hosts that a listener lets a table have, each with the table's own pattern (R63, R64, D10).
fn admitted<W: World + ?Sized>(
    world: &W,
    listener: &GatewayListener,
    table: &Table,
    root: &RootTable,
) -> Vec<(Host, Host)> {
    let owner = world.roster().owner_of(&table.id);
    let mut hosts: Vec<(Host, Host)> = match &listener.allowed {
        None => root.hosts.iter().map(|host| (host.clone(), host.clone())).collect(),
        Some(items) => items
            .iter()
            .filter(|item| {
                item.namespace.as_ref().is_none_or(|namespace| *namespace == table.id.namespace)
                    && item.selector.fits(&table.id, &table.labels)
                    && item.selector.fits_owner(owner)
            })
            .flat_map(|item| root.hosts.iter().filter_map(|host| Some((host.overlap(&item.host)?, host.clone()))))
            .collect(),
    };
    hosts.sort();
    hosts.dedup();
    hosts
}
