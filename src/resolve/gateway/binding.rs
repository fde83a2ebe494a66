//! Which root table binds to which listener of which virtual gateway, and on which hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Code, FieldPath, Finding, Findings, Host, Kind, ObjectRef};
use crate::resolve::facts::{
    GatewayListener, ListenerProtocol, Reference, RootTable, StreamMatcher, StreamRoute, Table, TableRole, TlsMode,
    VirtualGateway,
};
use crate::resolve::visibility::is_visible;
use crate::resolve::world::World;

/// A root table on a listener, with the hosts that it has there: as the listener narrows them, and as the table writes them.
pub type Bound = (ObjectRef, Vec<(Host, Host)>);

/// Which root tables a listener of a virtual gateway serves, and on which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// By virtual gateway and listener position: tables with the hosts they have there, tables in age order.
    pub tables: BTreeMap<(ObjectRef, usize), Vec<Bound>>,
    /// The virtual gateways that each table may use.
    pub gateways: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
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
        let TableRole::Root(root) = &table.role else { continue };
        for (index, reference) in root.gateways.iter().enumerate() {
            let field = FieldPath::new("spec.virtualGateways").index(index);
            bind_one(world, &table, root, reference, &field, &mut bindings, findings);
        }
    }
    bindings
}

fn bind_one<W: World + ?Sized>(
    world: &W,
    table: &Arc<Table>,
    root: &RootTable,
    reference: &Reference,
    field: &FieldPath,
    bindings: &mut Bindings,
    findings: &mut Findings,
) {
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
    bindings.gateways.entry(table.id.clone()).or_default().insert(gateway.id.clone());
    let mut served = false;
    let mut hosts_of: Vec<(usize, Vec<(Host, Host)>)> = Vec::new();
    for listener in &gateway.listeners {
        let hosts = admitted(world, listener, table, root);
        if !hosts.is_empty() {
            served = true;
            hosts_of.push((listener.index, hosts));
        }
    }
    for (index, hosts) in hosts_of {
        bindings.tables.entry((gateway.id.clone(), index)).or_default().push((table.id.clone(), hosts));
    }
    streams_served(table, &gateway, &bindings.tables, field, findings);
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
    bound: &BTreeMap<(ObjectRef, usize), Vec<Bound>>,
    field: &FieldPath,
    findings: &mut Findings,
) {
    let admits = |listener: &&GatewayListener| {
        let tables = bound.get(&(gateway.id.clone(), listener.index)).into_iter().flatten();
        listener.fault.is_none() && tables.into_iter().any(|(other, _)| *other == table.id)
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
