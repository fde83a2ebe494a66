//! Filter chains: which connections of a bound port are told apart, and what is behind each.
//!
//! In plaintext a port has one chain that all its listeners share. With TLS each listener has its own, chosen by server
//! name, and each `tls` route of a listener that passes TLS through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::Guard;
use crate::ir::listener::{
    CertificateSource, Chain, ClientCertificate, HttpHosts, Serves, Tls, TrustSource, VirtualHost,
};
use crate::ir::route::{Action, EffectiveLabels, Forward, Hop, Matcher, Route, RouteBody, Routes, WeightedDestination};
use crate::ir::secret::{AltName, SecretId, SecretPart};
use crate::ir::upstream::Purpose;
use crate::model::{Code, FieldPath, Finding, Host, Kind, Name, ObjectRef, WorkspaceId};
use crate::resolve::attachment::{edition_for_connections, is_protected};
use crate::resolve::destination::{Speaks, check_on_gateway, resolve_destination};
use crate::resolve::facts::{
    Fault, ListenerProtocol, StreamMatcher, StreamRoute, Table, Termination, TlsMaterial, TlsMode,
};
use crate::resolve::mesh::{Mesh, MeshPort, table_for};
use crate::resolve::selection::Holder;
use crate::resolve::upstream::is_closed_by_policy;
use crate::resolve::world::World;
use crate::resolve::{access, certificate};

use super::hosts::virtual_hosts;
use super::isolation::hidden_from;
use super::ports::{BoundListener, BoundPort};
use super::{OnGateway, closed_host, identity};

/// The chains of one bound port; none where nothing can be programmed, and then the port is not bound.
///
/// # Findings
/// [`Code::Certificate`] on virtual gateways whose chain is left out (R60); [`Code::ListenerConflict`] on those that lose a
/// server name (R57); on tables what is wrong with their routes of whole connections.
pub(super) fn chains<W: World + ?Sized>(here: &mut OnGateway<'_, W>, bound: &BoundPort) -> Vec<Chain> {
    match bound.protocol {
        ListenerProtocol::Http => {
            let virtual_hosts = hosts(here, &bound.listeners, bound);
            vec![plain(bound, Serves::Http(HttpHosts { virtual_hosts, misdirected: BTreeSet::new() }))]
        }
        ListenerProtocol::Tcp => {
            let route = tcp_route(here, &bound.listeners, bound);
            vec![guarded(here, plain(bound, Serves::Tcp(route)))]
        }
        ListenerProtocol::Https | ListenerProtocol::Tls => by_server_name(here, bound),
    }
}

fn plain(bound: &BoundPort, serves: Serves) -> Chain {
    let gateways = bound.gateways.clone();
    let (server_names, guards) = (BTreeSet::new(), Vec::new());
    Chain { name: Name::default(), gateways, client: None, server_names, tls: None, guards, serves }
}

fn hosts<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    listeners: &[BoundListener],
    bound: &BoundPort,
) -> Vec<Arc<VirtualHost>> {
    if here.is_closed { vec![Arc::new(closed_host())] } else { virtual_hosts(here, listeners, &bound.service_ports) }
}

// ---- TLS ----------------------------------------------------------------------------------------------------------

/// Who has which server name of a port, a virtual gateway or a table; `*` is the name of those who take what nobody else
/// does.
type Claims = BTreeMap<Host, ObjectRef>;

fn by_server_name<W: World + ?Sized>(here: &mut OnGateway<'_, W>, bound: &BoundPort) -> Vec<Chain> {
    let mut claims = Claims::new();
    let mut chains: Vec<Chain> = Vec::new();
    for listener in &bound.listeners {
        let mode = listener.listener.tls.as_ref().filter(|_| listener.listener.fault.is_none());
        let terminated = match mode {
            Some(TlsMode::Passthrough) => {
                pass_through(here, listener, bound, &mut claims, &mut chains);
                continue;
            }
            Some(TlsMode::Terminate(termination)) => Some(termination),
            None => None,
        };
        let Some(names) = claim_listener(here, listener, &mut claims) else { continue };
        let tls = terminated.map(|termination| terminate(here, termination)).transpose().unwrap_or_else(|problem| {
            left_out(here, listener, &problem);
            None
        });
        let own = std::slice::from_ref(listener);
        let serves = match (&tls, bound.protocol) {
            // What cannot be programmed closes its names: nobody else's listener is to take their connections, with another
            // certificate or without asking for the client's.
            (None, _) => Serves::Tcp(None),
            (Some(_), ListenerProtocol::Https) => {
                let virtual_hosts = hosts(here, own, bound);
                Serves::Http(HttpHosts { virtual_hosts, misdirected: BTreeSet::new() })
            }
            (Some(_), _) => Serves::Tcp(tcp_route(here, own, bound)),
        };
        let chain = chain(listener, names, tls, serves);
        chains.push(guarded(here, chain));
    }
    if chains.iter().all(|chain| chain.serves == Serves::Tcp(None)) {
        return Vec::new();
    }
    keep_apart(here, &mut chains);
    chains
}

/// A chain that names choose; `*` among them means that it takes what fits no other.
fn chain(listener: &BoundListener, names: BTreeSet<Host>, tls: Option<Tls>, serves: Serves) -> Chain {
    let first = &listener.listener.first_host;
    let name = if names.iter().any(|name| name.name() == first) { Some(first) } else { names.first().map(Host::name) };
    let name = name.cloned().unwrap_or_default();
    let server_names = if names.contains(&Host::any()) { BTreeSet::new() } else { names };
    let gateways = vec![listener.gateway.id.clone()];
    Chain { name, gateways, client: None, server_names, tls, guards: Vec::new(), serves }
}

/// The server names that a listener gets; nothing when all of its hosts are taken (R57).
fn claim_listener<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    bound: &BoundListener,
    claims: &mut Claims,
) -> Option<BTreeSet<Host>> {
    let id = &bound.gateway.id;
    let mut names = BTreeSet::new();
    let mut lost = Vec::new();
    for host in bound.listener.hosts().collect::<BTreeSet<_>>() {
        let problem = if !is_server_name(&host) {
            Some(format!("Envoy cannot choose by `{host}`: write `*.` and whole labels"))
        } else {
            claims
                .get(&host)
                .map(|other| format!("an older listener of `{other}` on this port has server name `{host}`"))
        };
        match problem {
            Some(problem) => lost.push(problem),
            None => {
                claims.insert(host.clone(), id.clone());
                names.insert(host);
            }
        }
    }
    let at = bound.field().field("allowedRouteTables");
    for problem in lost {
        let (severe, what) = (names.is_empty(), "this listener does not serve it on TLS");
        let finding = if severe { Finding::error } else { Finding::warning };
        here.findings.push(finding(id, Code::ListenerConflict, format!("{problem}; {what}")).at(at.clone()));
    }
    (!names.is_empty()).then_some(names)
}

/// Whether Envoy can choose a chain by a pattern.
fn is_server_name(host: &Host) -> bool {
    !host.is_wildcard() || host.as_str() == "*" || host.as_str().starts_with("*.")
}

/// Tells a virtual gateway that a chain is left out, which is never served in plaintext instead (R60).
fn left_out<W: World + ?Sized>(here: &mut OnGateway<'_, W>, bound: &BoundListener, problem: &str) {
    let message = format!("on gateway `{}` {problem}; TLS connections to this listener fail until then", here.gateway);
    let id = &bound.gateway.id;
    let is_only = bound.gateway.listeners.len() == 1;
    let finding = if is_only { Finding::error } else { Finding::warning };
    here.findings.push(finding(id, Code::Certificate, message).at(bound.field().field("tls")));
}

/// What a chain shows and asks for; its secrets join those of the gateway.
fn terminate<W: World + ?Sized>(here: &mut OnGateway<'_, W>, written: &Termination) -> Result<Tls, String> {
    let (certificate, trust) = match &written.material {
        TlsMaterial::Files { chain, key, authorities } => (
            CertificateSource::Files { chain: chain.clone(), key: key.clone() },
            written.mutual.then(|| TrustSource::File(authorities.clone())),
        ),
        TlsMaterial::Secret(name) => {
            let id = |name: &str| ObjectRef::new(Kind::Secret, &here.gateway.cluster, &here.gateway.namespace, name);
            let object = id(name);
            let secret = here.world.secret(&object).ok_or_else(|| {
                format!("`{object}` does not exist: add it in the gateway's own namespace and cluster")
            })?;
            let pair = certificate::key_pair(&secret).map_err(|problem| format!("`{object}`: {problem}"))?;
            let trust = if written.mutual {
                let apart = here.world.secret(&id(&format!("{name}-cacert")));
                let holder = apart.as_ref().unwrap_or(&secret);
                let trust =
                    certificate::authorities(holder).map_err(|problem| format!("`{}`: {problem}", holder.id))?;
                let id = SecretId { object: holder.id.clone(), part: SecretPart::Trust };
                here.secrets.insert(id.clone(), trust);
                Some(TrustSource::Secret(id))
            } else {
                None
            };
            let id = SecretId { object, part: SecretPart::KeyPair };
            here.secrets.insert(id.clone(), pair);
            (CertificateSource::Secret(id), trust)
        }
        TlsMaterial::Workload => workload(here)?,
    };
    let client =
        trust.map(|trust| ClientCertificate { trust, names: written.names.iter().cloned().map(AltName).collect() });
    Ok(Tls {
        certificate,
        client,
        minimum: written.minimum,
        maximum: written.maximum,
        ciphers: written.ciphers.clone(),
    })
}

/// The gateway's own identity, and the roots under which it trusts others.
///
/// # Rule
/// R58, R193.
fn workload<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
) -> Result<(CertificateSource, Option<TrustSource>), String> {
    let trust = here.world.trust().clone().map_err(|reason| reason.to_string())?;
    let uri = identity::of_gateway(here.world, here.gateway, here.findings)?;
    here.secrets.extend(identity::secrets(&trust, uri));
    let identity::MeshSecrets { identity, roots } = identity::mesh_secrets(&trust);
    Ok((CertificateSource::Secret(identity), Some(TrustSource::Roots(roots))))
}

/// Names of other chains that a chain knows one by one. Beyond, every host that is not its own is another's: all chains
/// of a port would know all names of the port, and one more listener would change the routes of all.
const MOST_MISDIRECTED: usize = 64;

/// Lets each HTTP chain serve only what its server names are for (R204).
///
/// A host that another chain's names are for is not served here, whatever its tables say: its own chain may ask for more,
/// a client's certificate for instance.
fn keep_apart<W: World + ?Sized>(here: &mut OnGateway<'_, W>, chains: &mut [Chain]) {
    let names: Vec<BTreeSet<Host>> = chains
        .iter()
        .map(|chain| if chain.server_names.is_empty() { [Host::any()].into() } else { chain.server_names.clone() })
        .collect();
    for (index, chain) in chains.iter_mut().enumerate() {
        let Serves::Http(http) = &mut chain.serves else { continue };
        let covering = |domain: &Host| {
            let all = names.iter().enumerate().flat_map(|(at, names)| names.iter().map(move |name| (name, at)));
            let covering = all.filter(|(name, _)| name.overlap(domain).as_ref() == Some(domain));
            covering.max_by_key(|(name, _)| name.specificity()).map(|(_, at)| at)
        };
        http.virtual_hosts.retain(|host| {
            let is_own = here.is_closed || covering(&host.domain).is_none_or(|at| at == index);
            if !is_own {
                for table in &host.tables {
                    let message = format!(
                        "host `{}` is not served by the listener `{}` of `{}`: connections for it go to another listener of that port",
                        host.domain, chain.name, chain.gateways[0]
                    );
                    let at = FieldPath::new("spec.hosts");
                    here.findings.push(Finding::warning(table, Code::ListenerFilter, message).at(at));
                }
            }
            is_own
        });
        let domains: BTreeSet<&Host> = http.virtual_hosts.iter().map(|host| &host.domain).collect();
        let others = names.iter().enumerate().filter(|(at, _)| *at != index).flat_map(|(_, names)| names);
        http.misdirected = others.filter(|name| !domains.contains(name)).cloned().collect();
        if http.misdirected.len() > MOST_MISDIRECTED {
            http.misdirected = [Host::any()].into();
        }
        // A host of its own that nobody serves is not found, which is not for another chain to say.
        let unserved = names[index].iter().filter(|own| {
            !domains.contains(own) && http.misdirected.iter().any(|other| other.overlap(own).as_ref() == Some(own))
        });
        let unserved: Vec<Arc<VirtualHost>> = unserved.map(|own| Arc::new(empty_host(own.clone()))).collect();
        http.virtual_hosts.extend(unserved);
        http.virtual_hosts.sort_by(|a, b| a.domain.cmp(&b.domain));
    }
}

fn empty_host(domain: Host) -> VirtualHost {
    VirtualHost { domain, tables: Vec::new(), redirects_to_https: false, routes: Routes::default() }
}

// ---- whole connections --------------------------------------------------------------------------------------------

/// A chain for each `tls` route that a listener lets in.
fn pass_through<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    listener: &BoundListener,
    bound: &BoundPort,
    claims: &mut Claims,
    chains: &mut Vec<Chain>,
) {
    for (table, hosts) in bound_tables(here, listener) {
        for stream in &table.streams {
            let StreamMatcher::Sni(wanted) = &stream.matcher else { continue };
            let mut names = BTreeSet::new();
            for (name, port) in wanted {
                if port.is_some_and(|port| !bound.service_ports.contains(&port)) {
                    continue;
                }
                let served: BTreeSet<Host> = hosts.iter().filter_map(|host| host.overlap(name)).collect();
                if served.is_empty() {
                    let message = format!(
                        "server name `{name}` is none of the table's hosts on `{}`; it is not served there",
                        listener.gateway.id
                    );
                    let finding = Finding::warning(&table.id, Code::ListenerFilter, message);
                    here.findings.push(finding.at(stream.field.clone()));
                }
                for name in served {
                    let problem = match claims.get(&name) {
                        _ if !is_server_name(&name) => {
                            "Envoy cannot choose by it: write `*.` and whole labels".to_owned()
                        }
                        Some(older) => format!("`{older}` has it on this port already"),
                        None => {
                            claims.insert(name.clone(), table.id.clone());
                            names.insert(name);
                            continue;
                        }
                    };
                    let message = format!(
                        "server name `{name}` is not served on port {}: {problem}",
                        listener.listener.port_text()
                    );
                    let finding = Finding::warning(&table.id, Code::BeatenByOlder, message);
                    here.findings.push(finding.at(stream.field.clone()));
                }
            }
            if names.is_empty() {
                continue;
            }
            // What is misconfigured closes its names: they are not for a wider route of somebody else.
            let route = stream_route(here, &table, stream, false).filter(|_| !here.is_closed);
            let chain = chain(listener, names, None, Serves::Tcp(route));
            chains.push(guarded(here, chain));
        }
    }
}

/// The first `tcp` route, in age order of the tables, that takes connections to the port.
fn tcp_route<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    listeners: &[BoundListener],
    bound: &BoundPort,
) -> Option<Route> {
    let mut tables: Vec<Arc<Table>> = Vec::new();
    for listener in listeners {
        tables.extend(bound_tables(here, listener).into_iter().map(|(table, _)| table));
    }
    tables.sort_by(|a, b| a.age.cmp(&b.age));
    tables.dedup_by(|a, b| a.id == b.id);
    let mut winner: Option<(ObjectRef, Option<Route>)> = None;
    for table in tables {
        for stream in &table.streams {
            let StreamMatcher::Tcp(ports) = &stream.matcher else { continue };
            if !ports.is_empty() && ports.iter().all(|port| !bound.service_ports.contains(port)) {
                continue;
            }
            match &winner {
                None => winner = Some((table.id.clone(), stream_route(here, &table, stream, false))),
                Some((older, _)) => {
                    let code = if *older == table.id { Code::RouteShadowed } else { Code::BeatenByOlder };
                    let message =
                        format!("never reached: a route of `{older}` takes every connection of the listener first");
                    let finding = Finding::warning(&table.id, code, message).at(stream.field.clone());
                    here.findings.push(finding.with(older));
                }
            }
        }
    }
    winner.and_then(|(_, route)| route).filter(|_| !here.is_closed)
}

/// The chains for clients of workspaces whose connections to a port are taken whole (R188).
pub(super) fn client_chains<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    mesh: &Mesh,
    port: &MeshPort,
) -> Vec<Chain> {
    let streams: Vec<(WorkspaceId, ObjectRef, u16)> =
        port.streams(mesh).map(|(client, root, port)| (client.clone(), root.clone(), port)).collect();
    let mut chains = Vec::with_capacity(streams.len());
    for (client, root, number) in streams {
        let Some(table) = table_for(here.world, &root) else { continue };
        let takes =
            |stream: &&StreamRoute| matches!(&stream.matcher, StreamMatcher::Tcp(ports) if ports.contains(&number));
        let Some(stream) = table.streams.iter().find(takes) else { continue };
        let route = stream_route(here, &table, stream, true).filter(|route| {
            let shut = |upstream| !hidden_from(here.world, std::slice::from_ref(&client), upstream).is_empty();
            !here.is_closed && !super::destinations_of(&route.body).any(shut)
        });
        let chain = Chain {
            name: format!("tcp/{client}").into(),
            gateways: Vec::new(),
            client: Some(client),
            server_names: BTreeSet::new(),
            tls: None,
            guards: Vec::new(),
            serves: Serves::Tcp(route),
        };
        chains.push(guarded(here, chain));
    }
    chains
}

/// A chain with who may open connections that it passes on: what is said of the gateway, and of the route's destinations.
///
/// # Rule
/// R120, R122.
fn guarded<W: World + ?Sized>(here: &OnGateway<'_, W>, mut chain: Chain) -> Chain {
    let Serves::Tcp(Some(route)) = &chain.serves else { return chain };
    let is_of_client = chain.client.is_some();
    let mut guards: Vec<Guard> = here.guard.map(|guard| guard.for_connections(is_of_client)).into_iter().collect();
    if let Action::Forward(forward) = &route.body.action {
        for destination in forward.destinations.iter() {
            let own = access::at_destination(here.world, here.gateway, &destination.upstream);
            guards.extend(own.iter().map(|guard| guard.for_connections(is_of_client)));
        }
    }
    guards.retain(|guard| guard.access.enforced.is_some());
    guards.dedup();
    chain.guards = guards;
    chain
}

/// The tables that a listener lets in, in age order, with the hosts that they have there.
fn bound_tables<W: World + ?Sized>(here: &OnGateway<'_, W>, listener: &BoundListener) -> Vec<(Arc<Table>, Vec<Host>)> {
    let bound = here.bindings.tables.get(&listener.key()).into_iter().flat_map(|tables| tables.values());
    bound
        .filter_map(|bound| {
            let (table, hosts) = &**bound;
            let table = here.world.table(table).filter(|table| !table.streams.is_empty())?;
            Some((table, hosts.iter().map(|(host, _)| host.clone()).collect()))
        })
        .collect()
}

/// A route of whole connections with its destinations found; nothing where connections must be closed instead.
fn stream_route<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    table: &Table,
    stream: &StreamRoute,
    is_of_client: bool,
) -> Option<Route> {
    if stream.fault.is_some() {
        return None;
    }
    let owner = here.world.roster().owner_of(&table.id)?.clone();
    match destinations(here, table, &owner, stream, is_of_client) {
        Ok(destinations) => Some(route(table, owner, stream, destinations)),
        Err(fault) => {
            let message = format!("connections are closed on gateway `{}`: {}", here.gateway, fault.message);
            here.findings.push(Finding::error(&table.id, fault.code, message).at(fault.field));
            None
        }
    }
}

fn destinations<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    table: &Table,
    owner: &WorkspaceId,
    stream: &StreamRoute,
    is_of_client: bool,
) -> Result<Vec<WeightedDestination>, Fault> {
    let mut destinations = Vec::with_capacity(stream.destinations.len());
    for written in stream.destinations.iter() {
        let holder = Holder { id: &table.id, owner };
        let field = || written.field(&stream.field);
        let mut upstream =
            resolve_destination(here.world, holder, owner, written, &field, Speaks::Anything, here.findings)?;
        // Where they cross clusters, the gateway there passes them on whole, and requests to the same port not.
        let object = &upstream.object;
        if object.kind == Kind::VirtualDestination
            || (object.kind == Kind::Service && object.cluster != here.gateway.cluster)
        {
            upstream.purpose = Purpose::Connections;
        }
        let fault = |(code, message)| Fault { code, field: field(), message };
        check_on_gateway(here.world, here.gateway, here.owner, &upstream).map_err(fault)?;
        if is_closed_by_policy(here.world, &upstream) || is_protected(here.world, &upstream) {
            let message = format!("a policy protects `{upstream}`, and it cannot be applied to whole connections");
            return Err(fault((Code::Unsupported, message)));
        }
        let guards = access::at_destination(here.world, here.gateway, &upstream);
        if let Some(guard) = guards.iter().find(|guard| guard.for_connections(is_of_client).denies_everything()) {
            let policies: Vec<String> = guard.policies.iter().map(|policy| format!("`{policy}`")).collect();
            let message = format!(
                "a policy protects `{upstream}`, {}, and lets nobody open a connection of which only the client's address is known",
                policies.join(", ")
            );
            return Err(fault((Code::Unsupported, message)));
        }
        upstream.edition = edition_for_connections(here.world, &upstream);
        destinations.push(WeightedDestination { upstream, weight: written.weight, policies: Vec::new() });
    }
    Ok(destinations)
}

fn route(table: &Table, owner: WorkspaceId, stream: &StreamRoute, destinations: Vec<WeightedDestination>) -> Route {
    let label: Name = stream.field.as_str().trim_start_matches("spec.").into();
    let hop = Hop { table: table.id.clone(), owner, route: label, index: 0 };
    let name = Name::from(hop.to_string());
    let forward = Forward { destinations: destinations.into(), path_rewrite: None, host_rewrite: None };
    let body = RouteBody {
        action: Action::Forward(forward.into()),
        policies: Arc::default(),
        chain: [hop].into(),
        labels: EffectiveLabels::default(),
        attached: Arc::default(),
        fault: None,
    };
    Route { name, matcher: Matcher::any(), body: Arc::new(body) }
}
