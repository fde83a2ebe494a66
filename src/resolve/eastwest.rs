//! Which gateways are east-west gateways: those that carry traffic into a workspace's clusters, and serve the clients inside
//! their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{GatewayId, Kind, Name, ObjectRef, WorkspaceId};

use super::facts::{DialledAddress, EastWestItem, Port, Selector, Service, ServicePort};
use super::roster::{Member, Roster};
use super::visibility::is_visible;
use super::world::World;

/// The label of gateway Services that are meant where the settings name none.
const DEFAULT_LABEL: (&str, &str) = ("istio", "eastwestgateway");

/// The port that passes TLS through, where the settings name none.
const PASSING_PORT: &str = "tls";

/// The port that ends TLS, where the settings name none.
const ENDING_PORT: &str = "https";

/// A gateway Service that the settings of a workspace choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EastWestGateway {
    /// The gateway Service.
    pub service: Arc<Service>,
    /// Position in `eastWestGateways` of the first item that chooses it; none by the default.
    pub item: Option<usize>,
    /// Its port that passes TLS through, if it has one.
    pub passing: Option<ServicePort>,
    /// Its port that ends TLS, if it has one.
    pub ending: Option<ServicePort>,
    /// Addresses to dial in place of the discovered ones; empty takes those.
    pub overrides: Vec<DialledAddress>,
}

impl EastWestGateway {
    /// The port for traffic whose TLS ends at the gateway: with only one of the two ports, that one. None if it has neither,
    /// so that nothing can cross by it.
    ///
    /// # Rule
    /// D29.
    #[must_use]
    pub fn ending_port(&self) -> Option<&ServicePort> {
        self.ending.as_ref().or(self.passing.as_ref())
    }

    /// The same for TLS that it passes through.
    #[must_use]
    pub fn passing_port(&self) -> Option<&ServicePort> {
        self.passing.as_ref().or(self.ending.as_ref())
    }
}

/// The gateway Services of a cluster that the settings of a workspace choose, in age order; those too that have neither of the
/// two ports. Without settings those that it sees and that have the label.
///
/// # Rule
/// R185.
pub fn east_west_gateways<W: World + ?Sized>(
    world: &W,
    cluster: &Name,
    workspace: &WorkspaceId,
) -> Vec<EastWestGateway> {
    let Some(member) = world.roster().workspaces.get(workspace) else { return Vec::new() };
    // A label is anybody's to write: it makes a gateway of strangers nobody's way in.
    choose(world, cluster, items(member), |index, service| {
        index.is_some() || is_visible(world, workspace, &service.id, &service.labels)
    })
}

/// The gateway Services of a cluster that have the label, whoever sees them.
pub fn labelled<W: World + ?Sized>(world: &W, cluster: &Name) -> Vec<EastWestGateway> {
    choose(world, cluster, std::iter::once((None, EastWestItem::default())), |_, _| true)
}

fn choose<W: World + ?Sized>(
    world: &W,
    cluster: &Name,
    items: impl Iterator<Item = (Option<usize>, EastWestItem)>,
    is_meant: impl Fn(Option<usize>, &Service) -> bool,
) -> Vec<EastWestGateway> {
    let mut chosen: Vec<EastWestGateway> = Vec::new();
    for (index, item) in items {
        let here = Selector { cluster: Some(cluster.clone()), ..selector(&item) };
        // One that is for another cluster finds nothing in this one.
        if selector(&item).cluster.is_some_and(|wanted| wanted != *cluster) {
            continue;
        }
        for service in world.services(&here) {
            let is_new = !chosen.iter().any(|known| known.service.id == service.id);
            if is_new && picks(world.roster(), &item, &service) && is_meant(index, &service) {
                let port = |written: &Option<Port>, name: &str| {
                    let wanted = written.clone().unwrap_or_else(|| Port::Name(name.into()));
                    let mut ports = service.ports.iter().filter(|port| port.tcp);
                    ports.find(|port| is_port(port, &wanted)).cloned()
                };
                chosen.push(EastWestGateway {
                    passing: port(&item.port, PASSING_PORT),
                    ending: port(&item.termination_port, ENDING_PORT),
                    overrides: item.overrides.clone(),
                    item: index,
                    service,
                });
            }
        }
    }
    chosen.sort_by(|a, b| a.service.age.cmp(&b.service.age));
    chosen
}

/// Whether a gateway Service is an east-west gateway: the settings of some workspace choose it.
///
/// # Cost
/// In proportion to the items of all workspaces' settings.
#[must_use]
pub fn is_east_west(roster: &Roster, service: &Service) -> bool {
    let chooses = |item: &EastWestItem| picks(roster, item, service) && has_a_port(item, service);
    let written = || roster.workspaces.values().map(|member| &member.options.east_west);
    let is_default = || written().any(Option::is_none) && chooses(&EastWestItem::default());
    !service.selector.is_empty() && (is_default() || written().flatten().flatten().any(chooses))
}

/// Whether a gateway Service serves clients inside its cluster: the settings that count for its own workspace choose it.
///
/// What others choose makes it a way into the cluster (R185) and nothing else, or they could say of any Service that its Pods
/// are gateways.
#[must_use]
pub fn serves_clients(roster: &Roster, service: &Service) -> bool {
    own_items(roster, service).any(|(_, item)| has_a_port(&item, service))
}

/// The ports of an east-west gateway's Service that carry traffic between clusters, by the settings that count for its own
/// workspace: others take none from the clients inside.
#[must_use]
pub fn crossing_ports(roster: &Roster, service: &Service) -> BTreeSet<u16> {
    let mut crossing = BTreeSet::new();
    for (_, item) in own_items(roster, service) {
        for (written, name) in [(&item.port, PASSING_PORT), (&item.termination_port, ENDING_PORT)] {
            let wanted = written.clone().unwrap_or_else(|| Port::Name(name.into()));
            crossing.extend(service.ports.iter().filter(|port| is_port(port, &wanted)).map(|port| port.number));
        }
    }
    crossing
}

/// What the settings that count for a Service's own workspace say of it, with their places.
fn own_items<'a>(
    roster: &'a Roster,
    service: &'a Service,
) -> impl Iterator<Item = (Option<usize>, EastWestItem)> + use<'a> {
    let owner = roster.owner_of(&service.id).and_then(|owner| roster.workspaces.get(owner));
    owner.into_iter().flat_map(|member| items(member)).filter(|(_, item)| picks(roster, item, service))
}

/// Whether a Service has one of the two ports of an item.
fn has_a_port(item: &EastWestItem, service: &Service) -> bool {
    [(&item.port, PASSING_PORT), (&item.termination_port, ENDING_PORT)].into_iter().any(|(written, name)| {
        let wanted = written.clone().unwrap_or_else(|| Port::Name(name.into()));
        service.ports.iter().any(|port| port.tcp && is_port(port, &wanted))
    })
}

/// The Services of a class of gateways that serve clients inside their cluster.
pub fn east_west_services<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> Vec<Arc<Service>> {
    let service = |name: &Name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
    let services = gateway.services.iter().filter_map(|name| world.service(&service(name)));
    services.filter(|service| serves_clients(world.roster(), service)).collect()
}

/// What the settings of a workspace say, with their places; the default where they say nothing.
fn items(member: &Member) -> impl Iterator<Item = (Option<usize>, EastWestItem)> {
    let written =
        member.options.east_west.iter().flatten().enumerate().map(|(index, item)| (Some(index), item.clone()));
    written.chain(member.options.east_west.is_none().then(|| (None, EastWestItem::default())))
}

fn selector(item: &EastWestItem) -> Selector {
    item.selector.clone().unwrap_or_else(|| {
        let (key, value) = DEFAULT_LABEL;
        Selector { labels: [(key.into(), value.into())].into_iter().collect(), ..Selector::default() }
    })
}

/// Whether an item picks a Service, which must have Pods.
fn picks(roster: &Roster, item: &EastWestItem, service: &Service) -> bool {
    let selector = selector(item);
    !service.selector.is_empty()
        && selector.fits(&service.id, &service.labels)
        && selector.fits_owner(roster.owner_of(&service.id))
}

fn is_port(port: &ServicePort, wanted: &Port) -> bool {
    match wanted {
        Port::Number(number) => port.number == *number,
        Port::Name(name) => port.name == *name,
    }
}
