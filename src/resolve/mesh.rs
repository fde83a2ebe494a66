//! What clients inside a cluster find on its east-west gateways, each those hosts that his workspace may see.
//!
//! Whoever gives clients a host makes an [`Offer`]: a root table without gateways, a virtual destination, a federated
//! Service, an external service. An offer depends on its object and on the roster alone, so that one that comes or goes concerns its hosts and no
//! others. What has no table of its own is served by one that is made up for it ([`table_for`]), so that its routes are
//! checked, get policies and are explained like all others.
//!
//! # Rule
//! R76, R152 to R155, R164 to R166, R186 to R189.

pub mod clients;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::ir::VirtualHost;
use crate::ir::route::Matcher;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Host, Kind, Labels, Name, ObjectRef, WorkspaceId};

use super::eastwest::{crossing_ports, east_west_services};
use super::facts::{
    Age, DestinationKind, DestinationPlace, DestinationReference, ExternalService, Port, Reference, RootTable, Service,
    ServicePort, StreamMatcher, StreamRoute, Table, TableAction, TableForward, TableRole, TableRoute,
    VirtualDestination,
};
use super::gateway::{GrownTree, HostKey, Hosts, View};
use super::roster::{Roster, list};
use super::visibility::is_visible;
use super::world::World;

/// From how many federated Services on their number is worth a warning: each is a host with routes of its own on every
/// east-west gateway of every cluster.
const MANY_FEDERATED: usize = 100;

/// Where HTTP clients go that are told no port.
const HTTP_PORT: u16 = 80;

/// What an object offers to clients inside the clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The root table, or what a table is made up for.
    pub root: ObjectRef,
    age: Age,
    rank: Rank,
    hosts: Vec<Host>,
    /// Ports that HTTP clients use because of it. What has no table serves on these alone.
    ports: BTreeSet<u16>,
    /// Ports on which it takes whole connections.
    streams: BTreeSet<u16>,
    /// Whether it says itself where requests go.
    has_routes: bool,
    /// Whose it is.
    owner: WorkspaceId,
    /// The workspaces to which it is visible.
    audience: BTreeSet<WorkspaceId>,
}

impl Offer {
    /// Whether it is visible to a workspace.
    #[must_use]
    pub fn is_for(&self, workspace: &WorkspaceId) -> bool {
        self.audience.contains(workspace)
    }

    fn all_ports(&self) -> impl Iterator<Item = u16> {
        self.ports.union(&self.streams).copied()
    }
}

/// Who serves a host that several offer to one workspace, where it has none of its own: a table takes it over from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Table,
    VirtualDestination,
    External,
    Federated,
}

/// What an object offers; nothing where it is no offer, or is not there.
///
/// # Cost
/// In proportion to the workspaces.
///
/// # Rule
/// R76, R149, R153.
pub fn offer<W: World + ?Sized>(world: &W, root: &ObjectRef) -> Option<Offer> {
    let owner = world.roster().owner_of(root)?;
    let audience = |labels: &Labels| -> BTreeSet<WorkspaceId> {
        let all = world.roster().workspaces.keys();
        all.filter(|user| is_visible(world, user, root, labels)).cloned().collect()
    };
    let made_up = |table: &Table, rank: Rank, labels: &Labels| {
        let TableRole::Root(role) = &table.role else { return None };
        Some(Offer {
            root: root.clone(),
            age: table.age.clone(),
            rank,
            hosts: role.hosts.clone(),
            ports: table.routes.iter().flat_map(|route| &route.matchers).filter_map(|own| own.port).collect(),
            streams: stream_ports(table),
            has_routes: true,
            owner: owner.clone(),
            audience: audience(labels),
        })
    };
    match root.kind {
        Kind::RouteTable => {
            let table = world.table(root)?;
            let TableRole::Root(role) = &table.role else { return None };
            if !role.serves_mesh || role.hosts.is_empty() {
                return None;
            }
            let matchers = table.routes.iter().flat_map(|route| &route.matchers);
            let has_http = !table.routes.is_empty() || table.streams.is_empty();
            Some(Offer {
                root: root.clone(),
                age: table.age.clone(),
                rank: Rank::Table,
                hosts: role.hosts.clone(),
                ports: matchers.filter_map(|matcher| matcher.port).chain(has_http.then_some(HTTP_PORT)).collect(),
                streams: stream_ports(&table),
                has_routes: true,
                owner: owner.clone(),
                audience: audience(&table.labels),
            })
        }
        Kind::VirtualDestination => {
            let vd = world.virtual_destination(root)?;
            let offer = made_up(&table_of_virtual_destination(&vd)?, Rank::VirtualDestination, &vd.labels)?;
            Some(Offer { has_routes: vd.has_backends(), ..offer })
        }
        Kind::ExternalService => {
            let service = world.external_service(root)?;
            made_up(&table_of_external_service(&service)?, Rank::External, &service.labels)
        }
        Kind::Service => {
            let service = world.service(root)?;
            made_up(&table_of_service(world.roster(), &service)?, Rank::Federated, &service.labels)
        }
        _ => None,
    }
}

/// The ports whose connections a table takes whole.
fn stream_ports(table: &Table) -> BTreeSet<u16> {
    let ports = table.streams.iter().filter_map(|stream| match &stream.matcher {
        StreamMatcher::Tcp(ports) => Some(ports),
        StreamMatcher::Sni(_) => None,
    });
    ports.flatten().copied().collect()
}

/// The table that serves an offer: its own, or one that is made up.
pub fn table_for<W: World + ?Sized>(world: &W, root: &ObjectRef) -> Option<Arc<Table>> {
    let made_up = match root.kind {
        Kind::RouteTable => return world.table(root),
        Kind::VirtualDestination => {
            let vd = world.virtual_destination(root)?;
            table_of_virtual_destination(&vd).filter(|_| vd.has_backends())
        }
        Kind::ExternalService => table_of_external_service(&*world.external_service(root)?),
        Kind::Service => table_of_service(world.roster(), &*world.service(root)?),
        _ => None,
    };
    made_up.map(Arc::new)
}

/// All requests for one of its hosts and ports go to a virtual destination (R166).
fn table_of_virtual_destination(vd: &VirtualDestination) -> Option<Table> {
    let hosts: Vec<Host> = vd.hosts.iter().filter_map(|host| Host::parse(host).ok()).collect();
    let ports = vd.ports.iter().enumerate();
    let ports: Vec<(usize, u16, bool)> =
        ports.map(|(index, port)| (index, port.number, port.protocol.is_some())).collect();
    (!hosts.is_empty()).then(|| table(&vd.id, &vd.age, hosts, &ports, DestinationKind::VirtualDestination))
}

/// The same for an external service (R149).
fn table_of_external_service(service: &ExternalService) -> Option<Table> {
    let ports = service.ports.iter().enumerate().filter(|(_, port)| port.fault.is_none());
    let ports: Vec<(usize, u16, bool)> =
        ports.map(|(index, port)| (index, port.number, port.protocol.is_some())).collect();
    let is_one = service.fault.is_none() && !service.hosts.is_empty();
    is_one.then(|| table(&service.id, &service.age, service.hosts.clone(), &ports, DestinationKind::ExternalService))
}

/// The same for a federated Service (R153).
fn table_of_service(roster: &Roster, service: &Service) -> Option<Table> {
    let federated = federated_ports(roster, service);
    let ports = service.ports.iter().enumerate().filter(|(_, port)| port.tcp && federated.contains(&port.number));
    let is_http = |port: &ServicePort| port.protocol.is_some() && !port.is_stream;
    let ports: Vec<(usize, u16, bool)> = ports.map(|(index, port)| (index, port.number, is_http(port))).collect();
    let host = federated_host(roster, service).filter(|_| !ports.is_empty())?;
    Some(table(&service.id, &service.age, vec![host], &ports, DestinationKind::Service))
}

/// A table of ports, each with its position and whether it speaks HTTP.
fn table(id: &ObjectRef, age: &Age, hosts: Vec<Host>, ports: &[(usize, u16, bool)], kind: DestinationKind) -> Table {
    let field = |index: usize| FieldPath::new("spec.ports").index(index);
    let destination = |(_, port, _): &(usize, u16, bool)| DestinationReference {
        reference: Reference {
            name: id.name.clone(),
            namespace: Some(id.namespace.clone()),
            cluster: Some(id.cluster.clone()),
        },
        kind,
        port: Some(Port::Number(*port)),
        subset: Labels::new(),
        weight: 100,
        place: DestinationPlace::Route,
    };
    let route = |own: &(usize, u16, bool)| {
        let (index, port, _) = own;
        let forward = TableForward { destinations: [destination(own)].into(), path_rewrite: None, host_rewrite: None };
        TableRoute {
            name: format!("port-{port}").into(),
            index: *index,
            labels: [].into(),
            matchers: [Matcher { port: Some(*port), ..Matcher::any() }].into(),
            action: TableAction::Forward(forward.into()),
            faults: Vec::new(),
        }
    };
    let stream = |own: &(usize, u16, bool)| StreamRoute {
        field: field(own.0),
        matcher: StreamMatcher::Tcp(vec![own.1]),
        destinations: [destination(own)].into(),
        fault: None,
    };
    Table {
        id: id.clone(),
        age: age.clone(),
        labels: Labels::new(),
        role: TableRole::Root(RootTable { hosts, serves_mesh: true, ..RootTable::default() }),
        is_for_some_clients: false,
        weight: 0,
        routes: ports.iter().filter(|(.., is_http)| *is_http).map(route).collect(),
        streams: ports.iter().filter(|(.., is_http)| !is_http).map(stream).collect(),
    }
}

/// The ports of a Service that federation gives a host.
///
/// # Rule
/// R152.
#[must_use]
pub fn federated_ports(roster: &Roster, service: &Service) -> BTreeSet<u16> {
    let owner = roster.owner_of(&service.id);
    let federation = owner.and_then(|owner| roster.workspaces.get(owner)).and_then(|member| member.federation());
    let Some(federation) = federation else { return BTreeSet::new() };
    let picks =
        |selector: &super::facts::Selector| selector.fits(&service.id, &service.labels) && selector.fits_owner(owner);
    if !federation.services.is_empty() && !federation.services.iter().any(picks) {
        return BTreeSet::new();
    }
    let is_wanted = |port: &&ServicePort| {
        federation.ports.is_empty()
            || federation.ports.iter().any(|wanted| match wanted {
                Port::Number(number) => *number == port.number,
                Port::Name(name) => *name == port.name,
            })
    };
    service.ports.iter().filter(is_wanted).map(|port| port.number).collect()
}

/// The host of a federated Service.
///
/// # Rule
/// R153, D25.
fn federated_host(roster: &Roster, service: &Service) -> Option<Host> {
    let owner = roster.owner_of(&service.id)?;
    let suffix = &roster.workspaces.get(owner)?.federation()?.suffix;
    let id = &service.id;
    let dot = if suffix.is_empty() { "" } else { "." };
    Host::parse(&format!("{}.{}.svc.{}{dot}{suffix}", id.name, id.namespace, id.cluster)).ok()
}

/// All offers, found by their hosts.
///
/// # Cost
/// A clone shares everything; an offer more or less costs the logarithm of all hosts.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    by_root: OrdMap<ObjectRef, Arc<Offer>>,
    by_host: OrdMap<Host, OrdMap<(Rank, Age), Arc<Offer>>>,
    wildcards: OrdSet<Host>,
    /// By the ports that they use, oldest first.
    by_port: OrdMap<u16, OrdMap<Age, Arc<Offer>>>,
    /// How many take whole connections on a port.
    streams: OrdMap<u16, usize>,
    /// How many Services of a workspace are federated.
    federated: OrdMap<WorkspaceId, usize>,
}

impl Mesh {
    /// Takes an offer in place of the one that its object made before. Returns the hosts of both where they differ, and
    /// whether other ports are in use now, or whole connections may go elsewhere.
    pub fn put(&mut self, root: &ObjectRef, now: Option<Offer>) -> (BTreeSet<Host>, bool) {
        let before = self.by_root.get(root).cloned();
        if before.as_deref() == now.as_ref() {
            return (BTreeSet::new(), false);
        }
        let ports: Vec<u16> = self.by_port.keys().copied().collect();
        let own: BTreeSet<u16> = before.iter().map(|offer| &**offer).chain(&now).flat_map(Offer::all_ports).collect();
        let takes_whole = |mesh: &Self| own.iter().any(|port| mesh.streams.contains_key(port));
        let mut is_moved = takes_whole(self);
        let mut hosts = BTreeSet::new();
        if let Some(before) = before {
            self.by_root.remove(root);
            for host in &before.hosts {
                hosts.insert(host.clone());
                if let Some(offers) = self.by_host.get_mut(host) {
                    offers.remove(&(before.rank, before.age.clone()));
                    if offers.is_empty() {
                        self.by_host.remove(host);
                        self.wildcards.remove(host);
                    }
                }
            }
            if before.rank == Rank::Federated
                && let Some(count) = self.federated.get_mut(&before.owner)
            {
                *count -= 1;
                if *count == 0 {
                    self.federated.remove(&before.owner);
                }
            }
            for port in before.all_ports() {
                if let Some(offers) = self.by_port.get_mut(&port) {
                    offers.remove(&before.age);
                    if offers.is_empty() {
                        self.by_port.remove(&port);
                    }
                }
            }
            for port in &before.streams {
                if let Some(uses) = self.streams.get_mut(port) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.streams.remove(port);
                    }
                }
            }
        }
        if let Some(now) = now.map(Arc::new) {
            self.by_root.insert(root.clone(), now.clone());
            for host in &now.hosts {
                hosts.insert(host.clone());
                self.by_host.entry(host.clone()).or_default().insert((now.rank, now.age.clone()), now.clone());
                if host.is_wildcard() {
                    self.wildcards.insert(host.clone());
                }
            }
            if now.rank == Rank::Federated {
                *self.federated.entry(now.owner.clone()).or_default() += 1;
            }
            for port in now.all_ports() {
                self.by_port.entry(port).or_default().insert(now.age.clone(), now.clone());
            }
            for port in &now.streams {
                *self.streams.entry(*port).or_default() += 1;
            }
        }
        is_moved |= takes_whole(self) || !self.by_port.keys().eq(ports.iter());
        (hosts, is_moved)
    }

    /// Whether an object makes an offer.
    #[must_use]
    pub fn has(&self, root: &ObjectRef) -> bool {
        self.by_root.contains_key(root)
    }

    /// What makes an offer.
    pub fn roots(&self) -> impl Iterator<Item = &ObjectRef> {
        self.by_root.keys()
    }

    /// How many offers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_root.len()
    }

    /// Whether nobody offers anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_root.is_empty()
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.by_host.keys()
    }

    /// Hosts whose routes may be others where something is different about some of them: those that a wildcard takes
    /// where it is the best that a workspace has are among its own.
    #[must_use]
    pub fn concerned(&self, hosts: BTreeSet<Host>) -> BTreeSet<Host> {
        let wildcards: Vec<&Host> = hosts.iter().filter(|host| host.is_wildcard()).collect();
        let below = self.hosts().filter(|host| wildcards.iter().any(|wild| covers(wild, host))).cloned();
        let below: BTreeSet<Host> = if wildcards.is_empty() { BTreeSet::new() } else { below.collect() };
        hosts.into_iter().chain(below).collect()
    }

    /// What a workspace finds under a host: of what is visible to it, what names the host most closely, and of that what
    /// [`served`] says.
    fn chosen(&self, domain: &Host, workspace: &WorkspaceId) -> Vec<&Arc<Offer>> {
        let patterns = std::iter::once(domain).filter(|domain| self.by_host.contains_key(*domain));
        let wider = self.wildcards.iter().filter(|wild| *wild != domain && covers(wild, domain));
        let mut patterns: Vec<&Host> = patterns.chain(wider).collect();
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.specificity()));
        for pattern in patterns {
            let offers = self.by_host.get(pattern).into_iter().flat_map(OrdMap::values);
            let served = served(offers.filter(|offer| offer.audience.contains(workspace)).collect(), workspace);
            if !served.is_empty() {
                return served;
            }
        }
        Vec::new()
    }

    /// Those whom a workspace sees on a port, by age. Where it serves HTTP itself, nobody else takes whole connections.
    fn contenders(&self, port: u16, workspace: &WorkspaceId) -> impl Iterator<Item = &Arc<Offer>> {
        let all = || self.by_port.get(&port).into_iter().flat_map(OrdMap::values);
        let has_http = all().any(|offer| offer.owner == *workspace && offer.ports.contains(&port));
        all().filter(move |offer| {
            let is_out = has_http && offer.owner != *workspace && offer.streams.contains(&port);
            offer.audience.contains(workspace) && !is_out
        })
    }

    /// Who takes the connections of a workspace's clients to one of some ports whole: the oldest of the contenders there, if it
    /// does so.
    fn stream(&self, ports: &BTreeSet<u16>, workspace: &WorkspaceId) -> Option<(&Arc<Offer>, u16)> {
        let offers = ports.iter().flat_map(|port| {
            let mut all = self.contenders(*port, workspace);
            all.next().map(|offer| (offer, *port))
        });
        let first = offers.min_by(|(a, _), (b, _)| a.age.cmp(&b.age));
        first.filter(|(offer, port)| offer.has_routes && offer.streams.contains(port))
    }

    /// Whether somebody serves HTTP on one of some ports.
    fn has_http(&self, ports: &BTreeSet<u16>) -> bool {
        let offers = |port: &u16| self.by_port.get(port).into_iter().flat_map(OrdMap::values);
        ports.iter().any(|port| offers(port).any(|offer| offer.ports.contains(port)))
    }

    /// Tells those whose host others have for the same workspace. A table that takes a host over for its own workspace, or from
    /// its own objects, is meant to.
    ///
    /// # Findings
    /// [`Code::BeatenByOlder`], and [`Code::PolicyRemark`] where it is not age that decides.
    ///
    /// # Rule
    /// R165, R166, R186.
    #[must_use]
    pub fn conflicts(&self, host: &Host) -> Findings {
        let offers: Vec<&Arc<Offer>> = self.by_host.get(host).into_iter().flat_map(OrdMap::values).collect();
        let mut lost: BTreeMap<(&ObjectRef, &ObjectRef, Reason), Vec<String>> = BTreeMap::new();
        let all: BTreeSet<&WorkspaceId> = offers.iter().flat_map(|offer| &offer.audience).collect();
        for workspace in all.into_iter().filter(|_| offers.len() > 1) {
            let visible: Vec<&Arc<Offer>> =
                offers.iter().copied().filter(|offer| offer.audience.contains(workspace)).collect();
            let served = served(visible.clone(), workspace);
            let Some(winner) = served.first() else { continue };
            for loser in visible.iter().filter(|offer| !served.iter().any(|own| own.root == offer.root)) {
                let is_meant = match winner.rank {
                    Rank::Table => winner.owner == *workspace || winner.owner == loser.owner || !loser.has_routes,
                    // It names the host of a Service on purpose.
                    _ => winner.owner == loser.owner && winner.rank < loser.rank && loser.rank == Rank::Federated,
                };
                let reason = if winner.rank == loser.rank {
                    Reason::Older
                } else if winner.owner == *workspace && loser.owner != *workspace {
                    Reason::TheirOwn
                } else {
                    Reason::Kind
                };
                if !is_meant {
                    lost.entry((&loser.root, &winner.root, reason)).or_default().push(workspace.to_string());
                }
            }
        }
        let finding = |((loser, winner, reason), workspaces): ((&ObjectRef, &ObjectRef, Reason), Vec<String>)| {
            let (code, belongs) = match reason {
                Reason::Older => (Code::BeatenByOlder, format!("the older `{winner}`, which they see too")),
                Reason::TheirOwn => (Code::PolicyRemark, format!("`{winner}`, which is their own")),
                Reason::Kind => (Code::PolicyRemark, format!("`{winner}`, whose kind goes before")),
            };
            let message = format!(
                "for clients of {} host `{host}` belongs to {belongs}; choose another host",
                list(&workspaces, 5)
            );
            let finding = Finding::warning(loser, code, message).with(winner);
            // A federated Service has no hosts of its own.
            if loser.kind == Kind::Service { finding } else { finding.at(FieldPath::new("spec.hosts")) }
        };
        lost.into_iter().map(finding).collect()
    }
}

/// Why somebody has a host, and not another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Older,
    TheirOwn,
    Kind,
}

/// Who serves a host to a workspace, of those whom it sees there, in the order of ranks: its own before those of others that
/// have another rank, then tables all together, else the first. What leaves its routes to a table takes nothing from one.
fn served<'o>(mut visible: Vec<&'o Arc<Offer>>, workspace: &WorkspaceId) -> Vec<&'o Arc<Offer>> {
    let own =
        visible.iter().filter(|offer| offer.owner == *workspace && offer.has_routes).map(|offer| offer.rank).min();
    if let Some(rank) = own {
        visible.retain(|offer| offer.owner == *workspace || offer.rank == rank);
    }
    let Some(first) = visible.first().copied() else { return visible };
    visible.retain(|offer| first.rank == Rank::Table && offer.rank == Rank::Table);
    if visible.is_empty() { vec![first] } else { visible }
}

impl Mesh {
    /// Tells those who take whole connections on a port, or would, of who goes before them for the same workspace.
    ///
    /// # Findings
    /// [`Code::BeatenByOlder`], and [`Code::PolicyRemark`] where it is not age that decides.
    ///
    /// # Rule
    /// R188.
    #[must_use]
    pub fn port_conflicts<'m>(&'m self, port: u16) -> Findings {
        let mut findings = Findings::new();
        let Some(offers) = self.by_port.get(&port).filter(|_| self.streams.contains_key(&port)) else {
            return findings;
        };
        let is_whole = |offer: &Offer| offer.streams.contains(&port);
        let mut lost: BTreeMap<(&ObjectRef, &ObjectRef, bool), Vec<String>> = BTreeMap::new();
        let all: BTreeSet<&WorkspaceId> = offers.values().flat_map(|offer| &offer.audience).collect();
        for workspace in all {
            let mut lose = |loser: &'m Offer, winner: &'m Offer, is_their_own: bool| {
                lost.entry((&loser.root, &winner.root, is_their_own)).or_default().push(workspace.to_string());
            };
            let (mut oldest, mut whole): (Option<&Offer>, Option<&Offer>) = (None, None);
            for own in self.contenders(port, workspace) {
                // HTTP is told apart by hosts.
                if let Some(winner) = if is_whole(own) { oldest } else { whole } {
                    lose(own, winner, false);
                }
                oldest = oldest.or(Some(&**own));
                whole = whole.or(Some(&**own).filter(|own| is_whole(own)));
            }
            let http = offers.values().find(|offer| offer.owner == *workspace && offer.ports.contains(&port));
            let others = offers.values().filter(|offer| is_whole(offer) && offer.owner != *workspace);
            for (own, winner) in others.filter(|offer| offer.is_for(workspace)).filter_map(|own| Some((own, http?))) {
                lose(own, winner, true);
            }
        }
        for ((loser, winner, is_their_own), workspaces) in lost {
            let (code, belongs) = if is_their_own {
                (Code::PolicyRemark, format!("`{winner}`, which is their own"))
            } else {
                (Code::BeatenByOlder, format!("the older `{winner}`"))
            };
            let message = format!(
                "for clients of {} port {port} belongs to {belongs}: whole connections are told apart by their ports alone, so use another port",
                list(&workspaces, 5)
            );
            let finding = Finding::warning(loser, code, message).with(winner);
            // Tables and federated Services have no ports of their own.
            let has_ports = !matches!(loser.kind, Kind::RouteTable | Kind::Service);
            findings.push(if has_ports { finding.at(FieldPath::new("spec.ports")) } else { finding });
        }
        findings
    }

    /// The workspaces that federate Services, with how many.
    pub fn federated(&self) -> impl Iterator<Item = (&WorkspaceId, usize)> {
        self.federated.iter().map(|(workspace, count)| (workspace, *count))
    }

    /// Warns a workspace that federates many Services.
    ///
    /// # Findings
    /// [`Code::PolicyRemark`] on its settings.
    ///
    /// # Rule
    /// R152.
    #[must_use]
    pub fn told_of_many(&self, roster: &Roster, workspace: &WorkspaceId) -> Findings {
        let count = self.federated.get(workspace).copied().unwrap_or_default();
        let Some(member) = roster.workspaces.get(workspace).filter(|_| count > MANY_FEDERATED) else {
            return Findings::new();
        };
        let own = member.settings.as_ref().filter(|settings| settings.options.federation.is_some());
        let subject = own.map_or(&member.workspace.id, |settings| &settings.id);
        let message = format!(
            "federation gives {count} Services of workspace `{workspace}` a host each on every east-west gateway, which is meant for tests and a first migration: select fewer Services, or group them in virtual destinations"
        );
        vec![
            Finding::warning(subject, Code::PolicyRemark, message)
                .at(FieldPath::new("spec.options.federation.serviceSelector")),
        ]
    }

    /// Whose settings decide on an object's offer.
    #[must_use]
    pub fn owner_of(&self, root: &ObjectRef) -> Option<&WorkspaceId> {
        self.by_root.get(root).map(|offer| &offer.owner)
    }

    /// The ports that are in use.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }

    /// The ports that an object's offer uses.
    #[must_use]
    pub fn ports_of(&self, root: &ObjectRef) -> BTreeSet<u16> {
        self.by_root.get(root).map(|offer| offer.all_ports().collect()).unwrap_or_default()
    }
}

/// Whether a pattern takes all hosts of another.
fn covers(wide: &Host, narrow: &Host) -> bool {
    wide.overlap(narrow).as_ref() == Some(narrow)
}

/// A port that an east-west gateway binds for clients inside its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPort {
    pub(super) service_ports: BTreeSet<u16>,
    /// The workspaces that have clients in the cluster.
    clients: Vec<WorkspaceId>,
}

/// The ports that a gateway binds for clients inside its cluster.
///
/// # Rule
/// R186, R188.
pub fn mesh_ports<W: World + ?Sized>(world: &W, gateway: &GatewayId, mesh: &Mesh) -> BTreeMap<u16, MeshPort> {
    let roster = world.roster();
    let mut ports: BTreeMap<u16, MeshPort> = BTreeMap::new();
    for service in east_west_services(world, gateway) {
        for (number, bind_port) in exposed(roster, &service) {
            if mesh.by_port.contains_key(&number) {
                let port = ports.entry(bind_port).or_insert_with(|| MeshPort {
                    service_ports: BTreeSet::new(),
                    clients: roster.workspaces_in(&gateway.cluster),
                });
                port.service_ports.insert(number);
            }
        }
    }
    ports
}

/// The ports of an east-west gateway's Service that clients inside the cluster may use, with what Envoy binds: those that
/// carry no traffic between clusters, nor lead where such traffic goes.
fn exposed(roster: &Roster, service: &Service) -> impl Iterator<Item = (u16, u16)> {
    let crossing = crossing_ports(roster, service);
    let target = |port: &ServicePort| match port.target {
        Port::Number(target) => Some(target),
        Port::Name(_) => None,
    };
    let own = service.ports.iter().filter(|port| port.tcp);
    let taken: BTreeSet<u16> = own.clone().filter(|port| crossing.contains(&port.number)).filter_map(target).collect();
    own.filter_map(move |port| Some((port.number, target(port)?))).filter(move |(_, bound)| !taken.contains(bound))
}

impl MeshPort {
    /// Who takes the connections of which workspace's clients whole, and for which port.
    pub(super) fn streams<'m>(&'m self, mesh: &'m Mesh) -> impl Iterator<Item = (&'m WorkspaceId, &'m ObjectRef, u16)> {
        self.clients.iter().filter_map(|client| {
            let (offer, port) = mesh.stream(&self.service_ports, client)?;
            Some((client, &offer.root, port))
        })
    }

    /// Whether somebody serves HTTP there.
    pub(super) fn has_http(&self, mesh: &Mesh) -> bool {
        mesh.has_http(&self.service_ports)
    }

    /// The virtual host of one domain, and what it is made from; none where no client finds anything.
    ///
    /// # Cost
    /// In proportion to the workspaces with clients, and to those who offer the host.
    pub fn host(
        &self,
        mesh: &Mesh,
        trees: &OrdMap<ObjectRef, Arc<GrownTree>>,
        domain: &Host,
        hosts: &mut dyn Hosts,
    ) -> Option<(HostKey, Arc<VirtualHost>)> {
        let serves = |offer: &&Arc<Offer>| {
            offer.has_routes && (offer.rank == Rank::Table || !offer.ports.is_disjoint(&self.service_ports))
        };
        let mut places: BTreeMap<Vec<ObjectRef>, Range<usize>> = BTreeMap::new();
        let (mut tables, mut views) = (Vec::new(), Vec::new());
        for client in &self.clients {
            let chosen = mesh.chosen(domain, client);
            let chosen = chosen.into_iter().filter(serves).map(|offer| &offer.root);
            let chosen: Vec<ObjectRef> =
                chosen.filter(|root| trees.get(*root).is_some_and(|tree| tree.claims_http())).cloned().collect();
            if chosen.is_empty() {
                continue;
            }
            let place = places.entry(chosen).or_insert_with_key(|chosen| {
                let start = tables.len();
                tables.extend(chosen.iter().cloned());
                start..tables.len()
            });
            views.push(View { client: client.clone(), tables: (place.start, place.end) });
        }
        if views.is_empty() {
            return None;
        }
        let service_ports = self.service_ports.clone();
        let key = HostKey { domain: domain.clone(), service_ports, redirects_to_https: false, tables, views };
        let trees: Vec<&Arc<GrownTree>> = key.tables.iter().filter_map(|root| trees.get(root)).collect();
        let host = hosts.host(key.clone(), &trees);
        Some((key, host))
    }
}

/// Tells a virtual destination of east-west gateways whose clients cannot reach it, because the gateway's Service lacks a
/// port; and a table for clients of gateways that are not there.
///
/// # Findings
/// [`Code::ListenerPort`].
///
/// # Rule
/// R76, R188.
pub fn unexposed<W: World + ?Sized>(world: &W, root: &ObjectRef, classes: &BTreeSet<GatewayId>) -> Findings {
    let mut findings = Findings::new();
    let Some(offer) = offer(world, root).filter(|offer| offer.rank != Rank::Federated) else { return findings };
    let roster = world.roster();
    let mut services: BTreeMap<ObjectRef, Arc<Service>> = BTreeMap::new();
    for class in classes {
        if roster.workspaces_in(&class.cluster).iter().any(|workspace| offer.audience.contains(workspace)) {
            let own = east_west_services(world, class);
            services.extend(own.into_iter().map(|service| (service.id.clone(), service)));
        }
    }
    if offer.rank == Rank::Table {
        if services.is_empty() {
            let message = "no east-west gateway is in a cluster of a workspace that sees the table, so clients inside the clusters do not reach it; label a gateway Service `istio: eastwestgateway` or choose one in `eastWestGateways`, or name a virtual gateway";
            findings.push(Finding::warning(root, Code::ListenerPort, message));
        }
        return findings;
    }
    for service in services.values() {
        for number in offer.all_ports() {
            if !exposed(roster, service).any(|(exposed, _)| exposed == number) {
                let message = format!(
                    "`{}` has no port {number} for clients inside its cluster, so they cannot reach the hosts there; add a port with a numeric `targetPort` to the gateway's Service",
                    service.id
                );
                let field = FieldPath::new("spec.ports");
                findings.push(Finding::warning(root, Code::ListenerPort, message).at(field).with(&service.id));
            }
        }
    }
    findings
}

/// Whether a gateway is one of those that clients inside its cluster use.
pub fn has_clients<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> bool {
    !east_west_services(world, gateway).is_empty()
}

/// The clusters whose clients some gateway serves.
pub fn clusters_with_clients<'g, W: World + ?Sized>(
    world: &W,
    gateways: impl Iterator<Item = &'g GatewayId>,
) -> BTreeSet<Name> {
    gateways.filter(|gateway| has_clients(world, gateway)).map(|gateway| gateway.cluster.clone()).collect()
}
