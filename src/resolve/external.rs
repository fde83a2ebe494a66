//! External services: what they lead to, and what is wrong with them beyond themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::client_tls::{ClientTls, PeerName};
use crate::ir::upstream::{Endpoint, Locality, Upstream, UpstreamId, UpstreamProtocol};
use crate::model::labels::contains_all;
use crate::model::{Code, FieldPath, Finding, Findings, Name, ObjectRef};

use super::LoopbackEndpoints;
use super::access;
use super::crossing::all_doors;
use super::destination::isolated_from;
use super::facts::{
    ExternalAddress, ExternalEndpoint, ExternalPort, ExternalService, Fault, Port, Selector, VirtualDestination,
    VirtualPort,
};
use super::hidden::{leads_to_others, stands_for_own_host};
use super::origination::{self, Opener, Server, Way};
use super::own_host::may_reach_itself;
use super::upstream::is_closed_by_policy;
use super::visibility::is_visible;
use super::world::World;

/// Where the addresses of an external service come from.
///
/// # Rule
/// R197, R200.
enum Source {
    /// External endpoints of the same owner.
    Endpoints(Vec<Arc<ExternalEndpoint>>),
    /// A name that the gateway looks up.
    Host(Name),
    /// Its own IP addresses.
    Addresses(Vec<Name>),
    /// Nowhere: why it cannot be a destination.
    Nothing(Fault),
}

/// The external endpoints that an external service picks, in age order.
///
/// # Rule
/// R197.
fn selected<W: World + ?Sized>(world: &W, service: &ExternalService) -> Vec<Arc<ExternalEndpoint>> {
    if service.selector.is_empty() {
        return Vec::new();
    }
    let roster = world.roster();
    let owner = roster.owner_of(&service.id);
    let selector = Selector { labels: service.selector.clone(), ..Selector::default() };
    let mut found = world.external_endpoints(&selector);
    found.retain(|endpoint| {
        owner.is_some() && roster.owner_of(&endpoint.id) == owner && contains_all(&endpoint.labels, &service.selector)
    });
    found
}

/// An address of an external service that an older one of the same owner has too, and that one. What is refused for this
/// reason has no addresses to refuse others for.
///
/// # Cost
/// In proportion to the external services.
///
/// # Rule
/// R196.
fn older_with_address<W: World + ?Sized>(world: &W, service: &ExternalService) -> Option<(Name, ObjectRef)> {
    if service.addresses.is_empty() {
        return None;
    }
    let owner = world.roster().owner_of(&service.id)?;
    let mut all = world.external_services(&Selector::default());
    all.retain(|other| {
        other.age <= service.age && other.fault.is_none() && world.roster().owner_of(&other.id) == Some(owner)
    });
    all.sort_by(|a, b| a.age.cmp(&b.age));
    let mut holders: BTreeMap<&Name, &ObjectRef> = BTreeMap::new();
    for other in &all {
        let taken = other.addresses.iter().find_map(|address| Some((address, *holders.get(address)?)));
        match taken {
            Some((address, holder)) if other.id == service.id => return Some((address.clone(), holder.clone())),
            Some(_) => {}
            None => holders.extend(other.addresses.iter().map(|address| (address, &other.id))),
        }
    }
    None
}

fn source<W: World + ?Sized>(world: &W, service: &ExternalService) -> Source {
    let fault = |field: &str, message: String| {
        Source::Nothing(Fault { code: Code::InvalidField, field: FieldPath::new(field), message })
    };
    if let Some(fault) = &service.fault {
        return Source::Nothing(fault.clone());
    }
    if let Some((address, holder)) = older_with_address(world, service) {
        return fault(
            "spec.addresses",
            format!("the older `{holder}` has address {address} too: write it in one of them, with the ports of both"),
        );
    }
    let endpoints = selected(world, service);
    if !endpoints.is_empty() {
        let has = |is: fn(&ExternalAddress) -> bool| {
            endpoints.iter().any(|endpoint| endpoint.address.as_ref().is_some_and(is))
        };
        let is_mixed = has(|address| matches!(address, ExternalAddress::Socket(_)))
            && has(|address| matches!(address, ExternalAddress::Name(_)));
        return if is_mixed {
            fault(
                "spec.selector",
                format!("among the external endpoints are {MIXED}: write an external service for each"),
            )
        } else {
            Source::Endpoints(endpoints)
        };
    }
    match service.hosts.first() {
        None => Source::Addresses(service.addresses.clone()),
        Some(host) if host.is_wildcard() => fault(
            "spec.hosts",
            format!(
                "`{host}` has a wildcard, and no DNS server knows where that is: let `selector` pick external endpoints, or write the hosts out"
            ),
        ),
        Some(host) => Source::Host(host.name().clone()),
    }
}

/// The port of an external service that a reference names.
///
/// # Errors
/// What is wrong with the reference, in words.
///
/// # Rule
/// R40.
pub(super) fn find_port<'a>(service: &'a ExternalService, wanted: Option<&Port>) -> Result<&'a ExternalPort, String> {
    let shown = || -> Vec<String> {
        let ports = service.ports.iter();
        ports
            .map(|port| match &*port.name {
                "" => port.number.to_string(),
                name => format!("{} (`{name}`)", port.number),
            })
            .collect()
    };
    let choice = || match shown().as_slice() {
        [] => "it has no port at all".to_owned(),
        [only] => format!("write {only}"),
        several => format!("write one of {}", several.join(", ")),
    };
    let found = match wanted {
        None => match service.ports.as_slice() {
            [only] => return Ok(only),
            _ => return Err(format!("the reference names no port of `{}`; {}", service.id, choice())),
        },
        Some(Port::Number(number)) => {
            (service.ports.iter().find(|port| port.number == *number), format!("port {number}"))
        }
        Some(Port::Name(name)) => {
            (service.ports.iter().find(|port| port.name == *name), format!("port named `{name}`"))
        }
    };
    found.0.ok_or_else(|| format!("`{}` has no {}; {}", service.id, found.1, choice()))
}

/// Why a port of an external service cannot be a destination.
///
/// # Errors
/// The fault, with its place in the external service.
///
/// # Rule
/// R196, R198 to R200.
pub(super) fn check<W: World + ?Sized>(world: &W, service: &ExternalService, port: &ExternalPort) -> Result<(), Fault> {
    let source = source(world, service);
    if let Source::Nothing(fault) = source {
        return Err(fault);
    }
    if let Some(fault) = &port.fault {
        return Err(fault.clone());
    }
    match (&port.target, source) {
        (Port::Name(name), Source::Host(_) | Source::Addresses(_)) => Err(Fault {
            code: Code::InvalidField,
            field: FieldPath::new("spec.ports"),
            message: format!(
                "port {} has `targetPort` `{name}`, and only external endpoints have names for ports: write a number",
                port.number
            ),
        }),
        _ => Ok(()),
    }
}

/// What a port of an external service leads gateways of a cluster to, by locality; nothing where it cannot be a destination.
/// Without a cluster, what it leads those of every cluster to.
///
/// # Findings
/// [`Code::UnsafeEndpoint`] where it could reach the gateway's own host, or what others own; [`Code::DestinationPort`] on the external service
/// where an endpoint lacks the port.
///
/// # Rule
/// R197, R198.
fn endpoints<W: World + ?Sized>(
    world: &W,
    cluster: Option<&Name>,
    service: &ExternalService,
    port: &ExternalPort,
    findings: &mut Findings,
) -> BTreeMap<Locality, Vec<Endpoint>> {
    let mut result: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    if check(world, service, port).is_err() {
        return result;
    }
    let mut found: Vec<(ObjectRef, Locality, Name, u16)> = Vec::new();
    let mut own = |address: Name| {
        if let Port::Number(number) = port.target {
            found.push((service.id.clone(), Locality::default(), address, number));
        }
    };
    match source(world, service) {
        Source::Nothing(_) => {}
        Source::Host(host) => own(host),
        Source::Addresses(addresses) => addresses.into_iter().for_each(own),
        Source::Endpoints(endpoints) => {
            for endpoint in endpoints {
                let (address, number) = match (&endpoint.address, port_of(&endpoint, &port.target)) {
                    (None, _) => continue,
                    (Some(ExternalAddress::Socket(path)), _) => (path.clone(), 0),
                    (Some(ExternalAddress::Ip(ip)), Some(number)) => (ip.to_string().into(), number),
                    (Some(ExternalAddress::Name(name)), Some(number)) => (name.clone(), number),
                    (Some(_), None) => {
                        let target = match &port.target {
                            Port::Number(number) => number.to_string(),
                            Port::Name(name) => format!("named `{name}`"),
                        };
                        let message = format!(
                            "`{}` has no port {target}, to which port {} leads: it is left out there",
                            endpoint.id, port.number
                        );
                        let finding = Finding::warning(&service.id, Code::DestinationPort, message);
                        findings.push(finding.with(&endpoint.id));
                        continue;
                    }
                };
                found.push((endpoint.id.clone(), endpoint.locality.clone(), address, number));
            }
        }
    }
    let owner = world.roster().owner_of(&service.id);
    for (origin, locality, address, number) in found {
        // Nobody reaches by name or address what others own, past what they say about it.
        let clusters = || cluster.into_iter().chain(world.roster().clusters.keys().filter(|_| cluster.is_none()));
        let is_foreign = |cluster: &&Name| owner.is_none_or(|owner| leads_to_others(world, owner, cluster, &address));
        let foreign: Vec<String> = clusters().filter(is_foreign).map(|cluster| format!("`{cluster}`")).collect();
        if !foreign.is_empty() {
            let message = format!(
                "`{address}` leads to a Service or Pod of another workspace, past what its owner says about it, and is left out on gateways of cluster {}; have the owner export the Service, import it here and name it in routes as a Service, or name another host",
                foreign.join(", ")
            );
            findings.push(Finding::warning(&origin, Code::UnsafeEndpoint, message));
            continue;
        }
        let is_own = may_reach_itself(&address) || clusters().any(|on| stands_for_own_host(world, on, &address));
        if world.options().loopback_endpoints == LoopbackEndpoints::Refused && is_own {
            let message = format!(
                "`{address}` could be the gateway's own host and is left out; `--allow-loopback-endpoints` permits it for a mesh on one machine"
            );
            findings.push(Finding::warning(&origin, Code::UnsafeEndpoint, message));
        } else {
            result.entry(locality).or_default().push(Endpoint::direct(address, number));
        }
    }
    result
}

/// What Envoy cannot have in one cluster.
const MIXED: &str = "DNS names and Unix sockets, which Envoy cannot have side by side";

/// Why endpoints cannot be those of one upstream.
fn mixed<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Option<String> {
    let (mut has_sockets, mut has_names) = (false, false);
    for endpoint in endpoints {
        has_sockets |= endpoint.address.starts_with('/');
        has_names |= !endpoint.address.starts_with('/') && endpoint.address.parse::<IpAddr>().is_err();
    }
    (has_sockets && has_names).then(|| format!("with it there would be {MIXED}"))
}

fn port_of(endpoint: &ExternalEndpoint, target: &Port) -> Option<u16> {
    endpoint.ports.iter().find_map(|(name, number)| {
        let is_it = match target {
            Port::Number(wanted) => wanted == number,
            Port::Name(wanted) => wanted == name,
        };
        is_it.then_some(*number)
    })
}

/// What is wrong with an external service beyond itself, whether or not a route leads there. Returns how many external
/// endpoints it picks.
///
/// # Findings
/// On the external service where it cannot be a destination, or picks no endpoint; those of its endpoints.
///
/// # Cost
/// In proportion to its ports and endpoints.
///
/// # Rule
/// R197, R198, R200.
pub fn judge<W: World + ?Sized>(world: &W, service: &ExternalService, findings: &mut Findings) -> usize {
    let picked = selected(world, service).len();
    // Faults of its own are told where they are found.
    if service.fault.is_some() {
        return picked;
    }
    if let Source::Nothing(fault) = source(world, service) {
        findings.push(Finding::error(&service.id, fault.code, fault.message).at(fault.field));
        return picked;
    }
    if !service.selector.is_empty() && picked == 0 {
        let instead = if service.hosts.is_empty() { "its addresses are" } else { "its host is looked up and" };
        let message = format!(
            "`selector` picks no external endpoint of this workspace; {instead} used instead, so correct the labels or leave it out"
        );
        let at = FieldPath::new("spec.selector");
        findings.push(Finding::warning(&service.id, Code::SelectorNoEffect, message).at(at));
    }
    for port in service.ports.iter().filter(|port| port.fault.is_none()) {
        match check(world, service, port) {
            Ok(()) => drop(endpoints(world, None, service, port, findings)),
            Err(fault) => findings.push(Finding::error(&service.id, fault.code, fault.message).at(fault.field)),
        }
    }
    picked
}

/// The name of an external service as a server, and the names that its certificate may have.
pub(super) fn server(service: &ExternalService) -> Server {
    match service.hosts.first() {
        Some(host) if host.is_wildcard() => {
            let below = host.as_str().trim_start_matches('*');
            let names = (!below.is_empty()).then(|| PeerName::Below(below.into()));
            Server { name: None, names: names.into_iter().collect() }
        }
        Some(host) => Server::named(host.name().trim_end_matches('.').into()),
        None => Server { name: None, names: service.addresses.iter().cloned().map(PeerName::Host).collect() },
    }
}

/// What a port of an external service leads to, as a gateway reaches it.
///
/// # Findings
/// Those of [`origination::to_external`]; what is wrong with the endpoints is told by [`judge`].
pub(super) fn lead<W: World + ?Sized>(from: &Opener<'_, W>, upstream: &mut Upstream, findings: &mut Findings) {
    let id = upstream.id.clone();
    let Some(service) = from.world.external_service(&id.object) else { return };
    upstream.hostname = hostname(&service);
    let Some(port) = service.ports.iter().find(|port| port.number == id.port) else { return };
    upstream.protocol = port.protocol.unwrap_or(UpstreamProtocol::Http1);
    match origination::to_external(from, &service, port, None, id.purpose, &mut upstream.secrets, findings) {
        Way::Plain => {}
        Way::Tls(tls) => upstream.tls = Some(tls),
        Way::Closed(_) => {
            upstream.close();
            return;
        }
    }
    upstream.endpoints = endpoints(from.world, Some(&from.gateway.cluster), &service, port, &mut Findings::new());
    leave_out_doors(from, &service, upstream.tls.as_ref(), &mut upstream.endpoints, findings);
}

/// Leaves out east-west gateways where a gateway shows who it is: those of other clusters take it for one that sends what its
/// policies let through.
///
/// # Findings
/// [`Code::UnsafeEndpoint`] on the external service.
fn leave_out_doors<W: World + ?Sized>(
    from: &Opener<'_, W>,
    service: &ExternalService,
    tls: Option<&ClientTls>,
    endpoints: &mut BTreeMap<Locality, Vec<Endpoint>>,
    findings: &mut Findings,
) {
    if !tls.is_some_and(ClientTls::shows_identity) {
        return;
    }
    let doors = all_doors(from.world);
    endpoints.retain(|_, list| {
        list.retain(|endpoint| {
            let Some(door) = doors.get(&(endpoint.address.clone(), endpoint.port)) else { return true };
            let message = format!(
                "`{}` is the east-west gateway `{door}`, to which gateways show who they are for nobody else, and is left out: name the Service behind it",
                endpoint.address
            );
            findings.push(Finding::warning(&service.id, Code::UnsafeEndpoint, message).with(door));
            false
        });
        !list.is_empty()
    });
}

fn hostname(service: &ExternalService) -> Name {
    let host = service.hosts.first().map(|host| host.name().clone());
    host.or_else(|| service.addresses.first().cloned()).unwrap_or_default()
}

/// The external services behind a virtual destination, in age order.
///
/// # Rule
/// R167.
pub fn backing<W: World + ?Sized>(world: &W, vd: &VirtualDestination) -> Vec<Arc<ExternalService>> {
    let Some(owner) = world.roster().owner_of(&vd.id).cloned() else { return Vec::new() };
    let mut found: Vec<Arc<ExternalService>> = Vec::new();
    for selector in &vd.external {
        found.extend(
            world
                .external_services(selector)
                .into_iter()
                .filter(|service| selector.fits_owner(world.roster().owner_of(&service.id)))
                .filter(|service| is_visible(world, &owner, &service.id, &service.labels)),
        );
    }
    found.sort_by(|a, b| a.age.cmp(&b.age));
    found.dedup_by(|a, b| a.id == b.id);
    found
}

/// Adds what the external services behind a virtual destination lead to.
///
/// # Findings
/// [`Code::BackendLeftOut`] on the virtual destination for those that cannot be used.
///
/// # Rule
/// R46, R167.
pub(super) fn join<W: World + ?Sized>(
    from: &Opener<'_, W>,
    vd: &VirtualDestination,
    port: &VirtualPort,
    upstream: &mut Upstream,
    findings: &mut Findings,
) {
    for service in backing(from.world, vd) {
        let found = join_one(from, vd, port, &service, upstream, findings);
        if let Err(reason) = found {
            let message = format!("`{}` is left out{reason}", service.id);
            findings.push(Finding::warning(&vd.id, Code::BackendLeftOut, message).with(&service.id));
        }
    }
}

fn join_one<W: World + ?Sized>(
    from: &Opener<'_, W>,
    vd: &VirtualDestination,
    port: &VirtualPort,
    service: &ExternalService,
    upstream: &mut Upstream,
    findings: &mut Findings,
) -> Result<(), String> {
    let own = find_port(service, Some(&port.target)).map_err(|reason| format!(": {reason} as `targetPort`"));
    let purpose = upstream.id.purpose;
    let target = |own: &ExternalPort| UpstreamId { purpose, ..UpstreamId::new(&service.id, own.number) };
    // What a filter asks there, Envoy compares with no rules.
    let is_judged = || {
        upstream.id.purpose.is_judged()
            && own.as_ref().is_ok_and(|own| access::replaces_isolation(from.world, &target(own)))
    };
    // Grouping does not pass on what an isolated workspace shared with the group's owner only.
    if let Some(reason) = isolated_from(from.world, from.owner, &service.id).filter(|_| !is_judged()) {
        return Err(format!(" on some gateways: {reason}"));
    }
    let own = own?;
    check(from.world, service, own).map_err(|fault| format!(": {}", fault.message))?;
    let target = target(own);
    if is_closed_by_policy(from.world, &target) {
        return Err(": a policy that protects it cannot be applied".to_owned());
    }
    if own.protocol.is_none() && port.protocol.is_some() {
        return Err(format!(": its port {} does not speak HTTP", own.number));
    }
    let through = Some((vd, port));
    let way = origination::to_external(from, service, own, through, purpose, &mut upstream.secrets, findings);
    let tls = match way {
        Way::Plain => None,
        Way::Tls(tls) => Some(tls),
        Way::Closed(reason) => return Err(format!(" on some gateways: {reason}")),
    };
    let key = origination::key(&service.id);
    let mut found = endpoints(from.world, Some(&from.gateway.cluster), service, own, &mut Findings::new());
    leave_out_doors(from, service, tls.as_ref(), &mut found, findings);
    if let Some(reason) = mixed(upstream.endpoints.values().chain(found.values()).flatten()) {
        return Err(format!(": {reason}"));
    }
    for (locality, list) in found {
        let list = list.into_iter().map(|endpoint| Endpoint { via: Some(key.clone()), ..endpoint });
        upstream.endpoints.entry(locality).or_default().extend(list);
    }
    upstream.externals.insert(key, tls);
    Ok(())
}
