//! The way between clusters: which east-west gateways lead into a cluster, and whom these let through to what.
//!
//! The gateway that sends and the one that receives never speak of it. Both follow from the same objects: who sends to a
//! Service of another cluster dials the east-west gateways that the Service's owner chose there, and asks by server name;
//! these have one chain for each Service that somebody sends to, and let in those gateways and no others.
//!
//! # Rule
//! R170, R178 to R185, R192.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::listener::{
    CertificateSource, Chain, ClientCertificate, Purpose as ListenerPurpose, Serves, Tls, TlsVersion, TrustSource,
};
use crate::ir::secret::AltName;
use crate::ir::trust::Identity;
use crate::ir::upstream::{Endpoint, Locality, Purpose, Remote};
use crate::ir::{GatewayPlan, Listener, UpstreamId};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Host, Kind, Name, ObjectRef, Severity, WorkspaceId};

use super::LoopbackEndpoints;
use super::access;
use super::eastwest::{EastWestGateway, east_west_gateways, labelled};
use super::facts::{EastWestItem, Port, Service, ServicePort};
use super::gateway::{is_closed_by_policy as is_gateway_closed, mesh_secrets};
use super::own_host::{is_unsafe, may_reach_itself};
use super::upstream::is_closed_by_policy;
use super::world::World;

/// Weights are exact while the numbers of gateways of the clusters have no larger common multiple.
const FINEST: u32 = 1_000;

/// A port of an east-west gateway Service, for gateways of other clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    service: Arc<Service>,
    service_port: u16,
    bind_port: u16,
    /// What others dial.
    addresses: BTreeSet<(Name, u16)>,
}

/// What of a gateway Service cannot be used, in words.
struct Unusable {
    severity: Severity,
    message: String,
}

/// How a gateway reaches a Service of another cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What is on the other side.
    pub remote: Remote,
    /// The east-west gateways there; those without a ready Pod are not among them.
    pub gateways: BTreeSet<(Name, u16)>,
}

/// `purpose` says where TLS ends, and so which port it is.
fn door<W: World + ?Sized>(world: &W, gateway: &EastWestGateway, purpose: Purpose) -> Result<Door, Unusable> {
    let unusable = |severity, message| Unusable { severity, message };
    let service = &gateway.service;
    let id = &service.id;
    if world.roster().owner_of(id).is_none() {
        let message = format!("east-west gateway `{id}` is nobody's: no workspace owns its namespace");
        return Err(unusable(Severity::Warning, message));
    }
    let port = if purpose == Purpose::Passing { gateway.passing_port() } else { gateway.ending_port() };
    let Some(port) = port else {
        let message = format!(
            "east-west gateway `{id}` has neither of the two ports by which other clusters reach it, `https` and `tls` unless the settings name others; add one, or write `tlsTerminationPort`"
        );
        return Err(unusable(Severity::Error, message));
    };
    let Port::Number(bind_port) = port.target else {
        let message = format!(
            "port {} of east-west gateway `{id}` has a named `targetPort`, and Envoy binds numbers; write the number",
            port.number
        );
        return Err(unusable(Severity::Error, message));
    };
    let lets_loopback = world.options().loopback_endpoints == LoopbackEndpoints::Allowed;
    let is_name = |address: &str| Host::parse(address).is_ok_and(|host| !host.is_wildcard());
    let mut problem = None;
    let mut addresses = BTreeSet::new();
    let found: Vec<(Name, u16)> = if gateway.overrides.is_empty() {
        discovered(world, service, port)
    } else {
        gateway.overrides.iter().map(|own| (own.address.clone(), own.port.unwrap_or(port.number))).collect()
    };
    for (address, port) in found {
        match address.parse::<IpAddr>() {
            // Gateways look it up themselves.
            Err(_) if is_name(&address) && (lets_loopback || !may_reach_itself(&address)) => {
                addresses.insert((address, port));
            }
            // Told where it is written.
            Err(_) if address.is_empty() => {
                let text = "none of its `hostInfoOverrides` can be used, and what is discovered is not wanted";
                problem = problem.or_else(|| Some(format!("east-west gateway `{id}` has no address: {text}")));
            }
            Err(_) => {
                let message = format!(
                    "`{address}`, where east-west gateway `{id}` is said to be reached, is neither an IP address nor a host name that leads elsewhere; write one in `hostInfoOverrides`"
                );
                problem = Some(message);
            }
            Ok(ip) if is_unsafe(ip) && !lets_loopback => {
                let message = format!(
                    "address {address} of east-west gateway `{id}` would lead gateways to their own hosts; `--allow-loopback-endpoints` permits it for a mesh on one machine"
                );
                problem = Some(message);
            }
            Ok(_) => drop(addresses.insert((address, port))),
        }
    }
    if addresses.is_empty() {
        let message = problem.unwrap_or_else(|| {
            format!("east-west gateway `{id}` has no address outside its cluster: neither a load balancer's, nor `externalIPs`, nor a node port; write `hostInfoOverrides`")
        });
        return Err(unusable(Severity::Warning, message));
    }
    Ok(Door { service: service.clone(), service_port: port.number, bind_port, addresses })
}

/// R14.
fn discovered<W: World + ?Sized>(world: &W, service: &Service, port: &ServicePort) -> Vec<(Name, u16)> {
    if !service.outside.is_empty() {
        return service.outside.iter().map(|address| (address.clone(), port.number)).collect();
    }
    let Some(node_port) = port.node_port else { return Vec::new() };
    let nodes = world.nodes(&service.id.cluster);
    nodes.iter().flat_map(|node| &node.addresses).map(|address| (address.clone(), node_port)).collect()
}

/// The east-west gateways of a cluster that a workspace chose, or why none of them can be used.
fn doors<W: World + ?Sized>(
    world: &W,
    owner: &WorkspaceId,
    cluster: &Name,
    purpose: Purpose,
) -> Result<Vec<Door>, String> {
    let mut problem = None;
    let mut doors = Vec::new();
    for gateway in east_west_gateways(world, cluster, owner) {
        match door(world, &gateway, purpose) {
            Ok(door) => doors.push(door),
            Err(unusable) => problem = problem.or(Some(unusable.message)),
        }
    }
    if doors.is_empty() {
        return Err(problem.unwrap_or_else(|| {
            format!("workspace `{owner}` has no east-west gateway in cluster `{cluster}`: no Service there is one that its settings choose, or is labelled `istio: eastwestgateway` and its own or shared with it")
        }));
    }
    Ok(doors)
}

/// Whether connections to a gateway Service find a Pod, as far as anything is known of its Pods.
fn has_ready_pods<W: World + ?Sized>(world: &W, service: &Service) -> bool {
    let slices = world.slices(&service.id);
    if !slices.is_empty() {
        return slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.is_ready);
    }
    let pods = world.pods(&service.id.cluster, &service.id.namespace);
    let mut own = pods.iter().filter(|pod| contains_all(&pod.labels, &service.selector)).peekable();
    own.peek().is_none() || own.any(|pod| pod.ready)
}

/// The east-west gateways by which all workspaces can be reached from other clusters, by address and port.
///
/// # Cost
/// In proportion to the workspaces and the clusters.
pub(super) fn all_doors<W: World + ?Sized>(world: &W) -> BTreeMap<(Name, u16), ObjectRef> {
    let roster = world.roster();
    let each = roster.clusters.keys().flat_map(|cluster| roster.workspaces.keys().map(move |owner| (cluster, owner)));
    let chosen = each.flat_map(|(cluster, owner)| east_west_gateways(world, cluster, owner));
    let doors = chosen.filter_map(|gateway| door(world, &gateway, Purpose::Crossing).ok());
    doors.flat_map(|door| door.addresses.into_iter().map(move |at| (at, door.service.id.clone()))).collect()
}

/// How a gateway reaches a Service of another cluster, for a purpose of gateways of other clusters.
///
/// # Errors
/// The code and message of a fault that holds on this gateway.
///
/// # Rule
/// R170, R178, R185, R192.
pub fn way<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    service: &UpstreamId,
    purpose: Purpose,
) -> Result<Way, (Code, String)> {
    let id = &service.object;
    let owner = world.roster().owner_of(id);
    let owner = owner.ok_or_else(|| (Code::NoEastWestGateway, format!("no workspace owns `{id}`")))?;
    let doors = doors(world, owner, &id.cluster, purpose).map_err(|reason| (Code::NoEastWestGateway, reason))?;
    let trusted = world.trust().as_ref().map(|_| ()).map_err(Name::to_string);
    trusted.and_then(|()| Identity::uri(&gateway.cluster, &gateway.namespace, "default").map(drop)).map_err(
        |reason| (Code::NoSharedTrust, format!("gateways of two clusters need a shared root of trust: {reason}")),
    )?;
    let target = UpstreamId { purpose, ..service.clone() };
    let server_name = target.server_name().map_err(|reason| (Code::Unsupported, reason))?;
    let namespaces = doors.iter().map(|door| door.service.id.namespace.clone()).collect();
    let ready = doors.into_iter().filter(|door| has_ready_pods(world, &door.service));
    let gateways = ready.flat_map(|door| door.addresses).collect();
    Ok(Way { remote: Remote { target, server_name, tls: None, namespaces }, gateways })
}

/// What is behind the east-west gateways of another cluster.
pub(super) struct Behind {
    pub(super) way: Way,
    /// Its ready endpoints there.
    pub(super) endpoints: BTreeMap<Locality, Vec<Endpoint>>,
}

/// Adds the east-west gateways of other clusters to what is reached straight, each cluster with the weight of what is ready
/// there, and without any of that not at all.
///
/// # Rule
/// R171, R172, R184.
pub(super) fn add_remote(endpoints: &mut BTreeMap<Locality, Vec<Endpoint>>, behind: Vec<Behind>) {
    let mut ready: Vec<(Way, u32, Locality)> = Vec::new();
    for Behind { way, endpoints } in behind {
        let addresses: BTreeSet<_> = endpoints.values().flatten().map(|one| (&one.address, one.port)).collect();
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        if count > 0 && !way.gateways.is_empty() {
            let places = endpoints.iter().filter(|(_, list)| !list.is_empty()).map(|(place, _)| place);
            ready.push((way, count, common(places)));
        }
    }
    let of = |way: &Way| u32::try_from(way.gateways.len()).unwrap_or(u32::MAX);
    let scale = ready.iter().fold(1, |scale, (way, ..)| multiple(scale, of(way)).unwrap_or(scale));
    for endpoint in endpoints.values_mut().flatten() {
        endpoint.weight = scale;
    }
    for (way, count, place) in ready {
        let weight = (u64::from(count) * u64::from(scale) / u64::from(of(&way))).max(1);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let via = Some(way.remote.target.object.cluster.clone());
        let all = way.gateways.into_iter().map(|(address, port)| Endpoint {
            via: via.clone(),
            weight,
            ..Endpoint::direct(address, port)
        });
        endpoints.entry(place).or_default().extend(all);
    }
}

/// The least common multiple, where it is fine enough.
fn multiple(a: u32, b: u32) -> Option<u32> {
    let (mut greater, mut smaller) = (a, b);
    while smaller != 0 {
        (greater, smaller) = (smaller, greater % smaller);
    }
    (a / greater.max(1)).checked_mul(b).filter(|multiple| *multiple <= FINEST)
}

/// The place that several have in common: their region, and their zone and sub-zone where these are the same too.
pub(super) fn common<'a>(mut places: impl Iterator<Item = &'a Locality>) -> Locality {
    let mut common = places.next().cloned().unwrap_or_default();
    for place in places {
        if place.region != common.region {
            return Locality::default();
        }
        if place.zone != common.zone {
            (common.zone, common.sub_zone) = (Name::default(), Name::default());
        } else if place.sub_zone != common.sub_zone {
            common.sub_zone = Name::default();
        }
    }
    common
}

// ---- the receiving side -------------------------------------------------------------------------------------------

/// That a gateway sends to a Service of another cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposure {
    /// The Service there.
    pub target: UpstreamId,
    /// Who sends.
    pub sender: GatewayId,
    /// As what it sends there.
    pub upstream: UpstreamId,
}

/// What a plan exposes in other clusters.
///
/// # Rule
/// R180.
pub fn exposures(plan: &GatewayPlan) -> impl Iterator<Item = Exposure> {
    plan.upstreams.values().flat_map(move |upstream| {
        let exposure = move |remote: &Remote| Exposure {
            target: remote.target.clone(),
            sender: plan.gateway.clone(),
            upstream: upstream.id.clone(),
        };
        upstream.remotes.values().map(exposure)
    })
}

/// The listeners of a gateway for gateways of other clusters, by the port that they bind; none for one that is no east-west
/// gateway.
///
/// `exposures` are those of Services of its cluster, in order; `identity` is who a gateway is. `taken` are ports that it
/// binds otherwise.
///
/// # Findings
/// [`Code::ListenerConflict`] on settings that choose a port which a virtual gateway has.
///
/// # Cost
/// In proportion to the exposures.
///
/// # Rule
/// R180 to R183.
pub fn crossings<'e, W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    exposures: impl Iterator<Item = &'e Exposure>,
    identity: impl Fn(&GatewayId) -> Option<Name>,
    taken: &BTreeSet<u16>,
    findings: &mut Findings,
) -> BTreeMap<u16, Arc<Listener>> {
    let mut listeners: BTreeMap<u16, Listener> = BTreeMap::new();
    let roster = world.roster();
    let Some(own) = roster.owner(&gateway.cluster, &gateway.namespace).map(|own| own.workspace.clone()) else {
        return BTreeMap::new();
    };
    let (Ok(trust), false) = (world.trust(), is_gateway_closed(world, gateway, &own)) else { return BTreeMap::new() };
    let ids = mesh_secrets(trust);
    let guard = access::at_gateway(world, gateway, &own).map(|guard| guard.for_connections(false));
    let mut targets: BTreeMap<&UpstreamId, BTreeSet<Name>> = BTreeMap::new();
    for exposure in exposures {
        targets.entry(&exposure.target).or_default().extend(identity(&exposure.sender));
    }
    let mut of_owner: BTreeMap<(&WorkspaceId, bool), Vec<Door>> = BTreeMap::new();
    for (target, names) in targets {
        let (Some(owner), Ok(server_name)) = (roster.owner_of(&target.object), target.server_name()) else { continue };
        // Where TLS is passed through, the Pods see who connects, and nobody else does.
        let is_passed = target.purpose == Purpose::Passing;
        if (names.is_empty() && !is_passed) || is_closed_by_policy(world, target) {
            continue;
        }
        let doors = of_owner.entry((owner, is_passed)).or_insert_with(|| {
            let mut doors = doors(world, owner, &gateway.cluster, target.purpose).unwrap_or_default();
            doors.retain(|door| {
                door.service.id.namespace == gateway.namespace && gateway.services.contains(&door.service.id.name)
            });
            for door in doors.iter().filter(|door| taken.contains(&door.bind_port)) {
                let message = format!(
                    "another listener has port {} of `{}`, where gateways of other clusters would connect; let one of the two have another port",
                    door.service_port, door.service.id
                );
                let settings = settings_of(world, owner);
                findings.push(told(settings.as_ref(), &door.service.id, Severity::Error, Code::ListenerConflict, message));
            }
            doors.retain(|door| !taken.contains(&door.bind_port));
            doors
        });
        for door in doors.iter() {
            let listener: &mut Listener = listeners.entry(door.bind_port).or_insert_with(|| Listener {
                bind_port: door.bind_port,
                purpose: ListenerPurpose::Crossing,
                service_ports: BTreeSet::new(),
                gateways: Vec::new(),
                chains: Vec::new(),
            });
            listener.service_ports.insert(door.service_port);
            if listener.chains.last().is_some_and(|chain| chain.name == server_name) {
                continue;
            }
            let client = ClientCertificate {
                trust: TrustSource::Roots(ids.roots.clone()),
                names: names.iter().cloned().map(AltName).collect(),
            };
            listener.chains.push(Chain {
                name: server_name.clone(),
                gateways: Vec::new(),
                client: None,
                server_names: [Host::verbatim(&server_name)].into(),
                tls: (!is_passed).then(|| Tls {
                    certificate: CertificateSource::Secret(ids.identity.clone()),
                    client: Some(client),
                    minimum: TlsVersion::V1_2,
                    maximum: TlsVersion::V1_3,
                    ciphers: Vec::new(),
                }),
                guards: guard.iter().cloned().collect(),
                serves: Serves::Relay { upstream: target.clone() },
            });
        }
    }
    listeners.into_iter().map(|(port, listener)| (port, Arc::new(listener))).collect()
}

/// Whether a port of an item is none, which is told where it is written.
fn has_no_number(item: &EastWestItem) -> bool {
    [&item.port, &item.termination_port].contains(&&Some(Port::Number(0)))
}

/// A finding on the settings that choose a gateway Service, or on the Service where nobody chose it by settings.
fn told(settings: Option<&ObjectRef>, service: &ObjectRef, severity: Severity, code: Code, message: String) -> Finding {
    let finding = |subject| Finding { severity, ..Finding::error(subject, code, message) };
    match settings {
        Some(settings) => finding(settings).at(FieldPath::new("spec.options.eastWestGateways")).with(service),
        None => finding(service),
    }
}

/// The settings that choose the east-west gateways of a workspace, if any do.
fn settings_of<W: World + ?Sized>(world: &W, workspace: &WorkspaceId) -> Option<ObjectRef> {
    let member = world.roster().workspaces.get(workspace)?;
    member.options.east_west.as_ref()?;
    let own = member.settings.as_ref().filter(|own| own.options.east_west == member.options.east_west);
    let options = world.options();
    let global = || {
        let kind = Kind::WorkspaceSettings;
        ObjectRef::new(kind, &options.management_cluster, &options.admin_namespace, "global")
    };
    Some(own.map_or_else(global, |own| own.id.clone()))
}

/// What is wrong with the east-west gateways that workspaces choose.
///
/// # Findings
/// [`Code::NoEastWestGateway`] on settings, or on Services that are labelled so.
///
/// # Cost
/// In proportion to the workspaces with settings of their own, to their items and to the clusters.
///
/// # Rule
/// R185.
pub fn east_west_findings<W: World + ?Sized>(world: &W, findings: &mut Findings) {
    let mut seen: BTreeSet<Option<ObjectRef>> = BTreeSet::new();
    let roster = world.roster();
    for (workspace, member) in &roster.workspaces {
        let settings = settings_of(world, workspace);
        // Several workspaces have the global ones, or none.
        if !seen.insert(settings.clone()) {
            continue;
        }
        // Where there is no other cluster, a gateway that only its label chooses is for clients inside.
        if settings.is_none() && roster.clusters.len() < 2 {
            continue;
        }
        let mut clusters: BTreeMap<usize, BTreeSet<&Name>> = BTreeMap::new();
        for cluster in roster.clusters.keys() {
            let chosen = match settings {
                Some(_) => east_west_gateways(world, cluster, workspace),
                None => labelled(world, cluster),
            };
            for gateway in chosen {
                clusters.entry(gateway.item.unwrap_or_default()).or_default().insert(cluster);
                let item = gateway.item.and_then(|index| member.options.east_west.as_ref()?.get(index));
                if item.is_some_and(has_no_number) {
                    continue;
                }
                if let Err(Unusable { severity, message }) = door(world, &gateway, Purpose::Crossing) {
                    let id = &gateway.service.id;
                    findings.push(told(settings.as_ref(), id, severity, Code::NoEastWestGateway, message));
                } else if !has_ready_pods(world, &gateway.service) {
                    let id = &gateway.service.id;
                    let message = format!(
                        "no Pod of east-west gateway `{id}` is ready, so nothing is sent there until one is: look at its Deployment"
                    );
                    let (settings, code) = (settings.as_ref(), Code::NoEastWestGateway);
                    findings.push(told(settings, id, Severity::Warning, code, message));
                }
            }
        }
        let Some(settings) = settings else { continue };
        for (index, item) in member.options.east_west.iter().flatten().enumerate() {
            let found = clusters.get(&index).map_or(0, BTreeSet::len);
            let message = match found {
                0 => {
                    "no Service with Pods is selected, beside those of items above, so no traffic comes in this way; compare `selector` with the labels of gateway Services"
                }
                1 => continue,
                _ if item.overrides.is_empty() => continue,
                _ => {
                    "the item selects gateways of several clusters, and `hostInfoOverrides` would lead to all of them; write one item for each cluster, with `selector.cluster`"
                }
            };
            let at = FieldPath::new("spec.options.eastWestGateways").index(index);
            findings.push(Finding::warning(&settings, Code::NoEastWestGateway, message).at(at));
        }
    }
}
