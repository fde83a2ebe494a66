//! TLS that a gateway starts: who wants it towards a destination, and what this gateway shows and trusts.
//!
//! What is said of a destination is said, in this order, by a ClientTLSPolicy of its owner; by the port of an external
//! service; by a ClientTLSPolicy on the virtual destination through which it is reached; by the protocol of its port; by that
//! of the virtual destination's port. What cannot be done as it is said is closed: nothing falls back to plaintext.
//!
//! # Rule
//! R195, R199, D32.

use std::sync::Arc;

use crate::ir::client_tls::{Authorities, ClientTls, Offers, Origination, PeerName, Shows, Trusts, Verification};
use crate::ir::listener::CertificateSource;
use crate::ir::policy::Policy;
use crate::ir::secret::{AltName, SecretPart};
use crate::ir::trust::Identity;
use crate::ir::upstream::{Purpose, UpstreamId, UpstreamProtocol};
use crate::ir::{Secret, SecretId};
use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Name, ObjectRef, WorkspaceId};

use super::certificate;
use super::destination::selects;
use super::external;
use super::facts::{
    ExternalPort, ExternalService, PolicyEffect, PolicyObject, PortTls, Service, ServicePort, VirtualDestination,
    VirtualPort,
};
use super::gateway::mesh_secrets;
use super::selection::destination_labels;
use super::visibility::is_visible;
use super::world::World;

/// The gateway that opens connections.
pub(super) struct Opener<'a, W: World + ?Sized> {
    pub(super) world: &'a W,
    pub(super) gateway: &'a GatewayId,
    /// Who owns it.
    pub(super) owner: &'a WorkspaceId,
}

/// How a gateway reaches something.
pub(super) enum Way {
    /// In plaintext.
    Plain,
    /// Over TLS.
    Tls(ClientTls),
    /// Not at all: what it is to show or trust is not there. In words.
    Closed(String),
}

impl Way {
    /// TLS, if there is any.
    pub(super) fn tls(self) -> Option<ClientTls> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Plain | Self::Closed(_) => None,
        }
    }
}

/// A destination as a TLS server.
pub(super) struct Server {
    /// What it is asked for as, if it has a name.
    pub(super) name: Option<Name>,
    /// What may be in its certificate.
    pub(super) names: Vec<PeerName>,
}

impl Server {
    /// One with a name.
    pub(super) fn named(name: Name) -> Self {
        Self { names: vec![PeerName::Host(name.clone())], name: Some(name) }
    }
}

/// The secrets that upstreams need.
pub(super) type Secrets = Vec<(SecretId, Secret)>;

/// The name that tells endpoints of an external service from others of an upstream. No cluster has such a name.
pub(super) fn key(service: &ObjectRef) -> Name {
    format!("es/{}/{}/{}", service.cluster, service.namespace, service.name).into()
}

/// What somebody says of TLS towards a destination.
struct Said<'a> {
    /// Absent for plaintext.
    tls: Option<Origination>,
    /// As whom it is reached.
    server: Server,
    /// Who says so, and where.
    by: (ObjectRef, FieldPath),
    /// Of which destination; what belongs to a gateway is used for those that its owner sees.
    of: &'a ObjectRef,
}

/// Through which virtual destination something is reached.
pub(super) type Through<'a> = Option<(&'a VirtualDestination, &'a VirtualPort)>;

/// How a gateway reaches a Service of its cluster.
///
/// # Findings
/// [`Code::Certificate`] on the policy where something is not there; [`Code::BeatenByOlder`] on policies that lose.
pub(super) fn to_service<W: World + ?Sized>(
    from: &Opener<'_, W>,
    (service, port): (&Service, &ServicePort),
    through: Through<'_>,
    purpose: Purpose,
    secrets: &mut Secrets,
    findings: &mut Findings,
) -> Way {
    // Who sends has started it.
    if purpose.is_tls_already() {
        return Way::Plain;
    }
    let hostname = hostname(from.world, &service.id);
    let target = (&service.id, port.number);
    let said = by_policy(from.world, target, || Server::named(hostname.clone()), findings)
        .or_else(|| through.and_then(|through| by_policy_on(from.world, through, findings)))
        .or_else(|| {
            let is_tls = port.protocol.is_none() && !purpose.is_stream();
            is_tls.then(|| Said {
                tls: Some(Origination::verified()),
                server: Server::named(hostname.clone()),
                by: (service.id.clone(), FieldPath::new("spec.ports")),
                of: &service.id,
            })
        })
        .or_else(|| through.and_then(|through| by_protocol(from.world, through, purpose)));
    done(from, said, offers(Some(port.protocol.unwrap_or(UpstreamProtocol::Http1)), purpose), secrets, findings)
}

/// How a gateway reaches an external service.
///
/// # Findings
/// [`Code::Certificate`] and [`Code::NoSharedTrust`] on who says what cannot be done; [`Code::BeatenByOlder`] on policies that
/// lose.
///
/// # Rule
/// R199.
pub(super) fn to_external<W: World + ?Sized>(
    from: &Opener<'_, W>,
    service: &ExternalService,
    port: &ExternalPort,
    through: Through<'_>,
    purpose: Purpose,
    secrets: &mut Secrets,
    findings: &mut Findings,
) -> Way {
    let server = || external::server(service);
    let of_port = |tls: &Origination| Said {
        tls: Some(tls.clone()),
        server: server(),
        by: (service.id.clone(), FieldPath::new("spec.ports")),
        of: &service.id,
    };
    let said = by_policy(from.world, (&service.id, port.number), server, findings)
        .or_else(|| match &port.tls {
            PortTls::Always(tls) => Some(of_port(tls)),
            PortTls::Never | PortTls::ForHttp(_) => None,
        })
        .or_else(|| {
            // It says who is shown what, and the external service as whom it is reached.
            let said = by_policy_on(from.world, through?, findings)?;
            Some(Said { server: server(), ..said })
        })
        .or_else(|| match &port.tls {
            PortTls::ForHttp(tls) if !purpose.is_stream() => Some(of_port(tls)),
            _ => None,
        });
    done(from, said, offers(port.protocol, purpose), secrets, findings)
}

/// As what something is sent to a Service of another cluster whose gateways end the TLS of gateways, if it arrives there as
/// is said here: they know only what is said of the Service itself.
///
/// # Errors
/// The code and message of a fault.
pub(super) fn crosses_as<W: World + ?Sized>(
    world: &W,
    (service, port): (&Service, &ServicePort),
    through: Through<'_>,
    purpose: Purpose,
) -> Result<Purpose, (Code, String)> {
    let crossing = if purpose.is_stream() { Purpose::CrossingStream } else { Purpose::Crossing };
    if !policies(world, (&service.id, port.number)).is_empty() {
        return Ok(crossing);
    }
    if port.protocol.is_none() {
        // Whole connections to a port that speaks TLS are TLS already.
        return Ok(if purpose.is_stream() { Purpose::CrossingTls } else { Purpose::Crossing });
    }
    let Some((vd, own)) = through else { return Ok(crossing) };
    let by_policy = policies(world, (&vd.id, own.number));
    let says_tls =
        |policy: &Arc<PolicyObject>| matches!(policy.effect, PolicyEffect::Valid(Policy::ClientTls(Some(_))));
    let wants_tls = by_policy.first().map_or(own.is_tls && !purpose.is_stream(), says_tls);
    if wants_tls {
        let message = format!(
            "TLS is to be started towards it, and the gateways of its cluster know only what is said of `{}` itself: put a ClientTLSPolicy on it, or let its port be one for HTTPS",
            service.id
        );
        return Err((Code::Unsupported, message));
    }
    Ok(crossing)
}

/// Whether connections that are passed on are reached in another way than requests.
pub(super) fn differs_for_connections<W: World + ?Sized>(world: &W, target: &UpstreamId) -> bool {
    let object = &target.object;
    let by_port = match object.kind {
        Kind::Service => world.service(object).is_some_and(|service| {
            service.ports.iter().any(|port| port.number == target.port && port.protocol.is_none())
        }),
        Kind::ExternalService => world.external_service(object).is_some_and(|service| {
            service.ports.iter().any(|port| port.number == target.port && port.tls != PortTls::Never)
        }),
        _ => false,
    };
    by_port || !policies(world, (object, target.port)).is_empty()
}

/// DNS name of a Service, or what a virtual destination without hosts is called.
pub(super) fn hostname<W: World + ?Sized>(world: &W, id: &ObjectRef) -> Name {
    let cluster = world.roster().clusters.get(&id.cluster);
    let domain = cluster.map_or_else(|| Name::from("cluster.local"), |cluster| cluster.domain.clone());
    format!("{}.{}.svc.{domain}", id.name, id.namespace).into()
}

fn offers(protocol: Option<UpstreamProtocol>, purpose: Purpose) -> Offers {
    match protocol {
        _ if purpose.is_stream() => Offers::Nothing,
        _ if purpose == Purpose::GrpcServer => Offers::Http2,
        Some(UpstreamProtocol::Http1) => Offers::Http1,
        Some(UpstreamProtocol::Http2) => Offers::Http2,
        Some(UpstreamProtocol::AsClient) | None => Offers::Nothing,
    }
}

// ---- who says what ------------------------------------------------------------------------------------------------

/// The valid ClientTLSPolicies on a port of a destination, in age order.
///
/// # Rule
/// R118, R123.
fn policies<W: World + ?Sized>(world: &W, (object, port): (&ObjectRef, u16)) -> Vec<Arc<PolicyObject>> {
    let Some(owner) = world.roster().owner_of(object) else { return Vec::new() };
    let Some(labels) = destination_labels(world, object) else { return Vec::new() };
    let target = UpstreamId::new(object, port);
    let mut found = world.connection_policies(owner, object, &labels);
    found.retain(|policy| {
        matches!(policy.effect, PolicyEffect::Valid(Policy::ClientTls(_)))
            && policy.targets.destinations.iter().any(|selector| selects(world, selector, &target))
    });
    found
}

/// What the oldest policy on a destination says.
fn by_policy<'a, W: World + ?Sized>(
    world: &W,
    (object, port): (&'a ObjectRef, u16),
    server: impl FnOnce() -> Server,
    findings: &mut Findings,
) -> Option<Said<'a>> {
    let found = policies(world, (object, port));
    let (winner, losers) = found.split_first()?;
    for loser in losers {
        let message = format!("on port {port} of `{object}` the older `{}` applies in place of this policy", winner.id);
        findings.push(Finding::warning(&loser.id, Code::BeatenByOlder, message).with(&winner.id));
    }
    let PolicyEffect::Valid(Policy::ClientTls(tls)) = &winner.effect else { return None };
    let tls = tls.as_ref().map(|tls| (**tls).clone());
    Some(Said { tls, server: server(), by: (winner.id.clone(), FieldPath::new("spec.config")), of: object })
}

/// The same of a virtual destination.
fn by_policy_on<'a, W: World + ?Sized>(
    world: &W,
    (vd, port): (&'a VirtualDestination, &VirtualPort),
    findings: &mut Findings,
) -> Option<Said<'a>> {
    by_policy(world, (&vd.id, port.number), || server_of(world, vd), findings)
}

fn server_of<W: World + ?Sized>(world: &W, vd: &VirtualDestination) -> Server {
    Server::named(vd.hosts.first().cloned().unwrap_or_else(|| hostname(world, &vd.id)))
}

/// What the protocol of a virtual destination's port says.
fn by_protocol<'a, W: World + ?Sized>(
    world: &W,
    (vd, port): (&'a VirtualDestination, &VirtualPort),
    purpose: Purpose,
) -> Option<Said<'a>> {
    (port.is_tls && !purpose.is_stream()).then(|| Said {
        tls: Some(Origination::verified()),
        server: server_of(world, vd),
        by: (vd.id.clone(), FieldPath::new("spec.ports")),
        of: &vd.id,
    })
}

// ---- what a gateway does ------------------------------------------------------------------------------------------

fn done<W: World + ?Sized>(
    from: &Opener<'_, W>,
    said: Option<Said<'_>>,
    offers: Offers,
    secrets: &mut Secrets,
    findings: &mut Findings,
) -> Way {
    let Some(Said { tls: Some(tls), server, by: (by, field), of }) = said else { return Way::Plain };
    match start(from, &tls, server, of, offers, secrets) {
        Ok(tls) => Way::Tls(tls),
        Err((code, problem)) => {
            let message = format!("gateway `{}` opens no connections to `{of}`: {problem}", from.gateway);
            findings.push(Finding::error(&by, code, message).at(field));
            Way::Closed(problem)
        }
    }
}

/// TLS as a gateway does it; its secrets join the others.
fn start<W: World + ?Sized>(
    from: &Opener<'_, W>,
    tls: &Origination,
    server: Server,
    of: &ObjectRef,
    offers: Offers,
    secrets: &mut Secrets,
) -> Result<ClientTls, (Code, String)> {
    let of_certificate = |problem: String| (Code::Certificate, problem);
    if tls.uses_gateways_own() {
        // Whoever writes a destination must not make use of what is another's.
        let labels = destination_labels(from.world, of).unwrap_or_default();
        if !is_visible(from.world, from.owner, of, &labels) {
            return Err(of_certificate(format!(
                "what it is to show or trust belongs to the gateway of workspace `{}`, which does not see `{of}`: export it there, and have it imported",
                from.owner
            )));
        }
    }
    let mut added = Secrets::new();
    let certificate = match &tls.shows {
        Shows::Nothing => None,
        Shows::Files { chain, key } => Some(CertificateSource::Files { chain: chain.clone(), key: key.clone() }),
        Shows::Credential(name) => {
            let object = secret_of(from.gateway, name);
            let secret = from.world.secret(&object).ok_or_else(|| of_certificate(missing(&object)))?;
            let pair =
                certificate::key_pair(&secret).map_err(|problem| of_certificate(format!("`{object}`: {problem}")))?;
            let id = SecretId { object, part: SecretPart::KeyPair };
            added.push((id.clone(), pair));
            Some(CertificateSource::Secret(id))
        }
        Shows::Identity => {
            let trust = from.world.trust().as_ref().map_err(|reason| (Code::NoSharedTrust, reason.to_string()))?;
            let gateway = from.gateway;
            Identity::uri(&gateway.cluster, &gateway.namespace, "default").map_err(of_certificate)?;
            Some(CertificateSource::Secret(mesh_secrets(trust).identity))
        }
    };
    let authorities = match &tls.trusts {
        Trusts::Anybody => None,
        Trusts::File(path) => Some(Authorities::File(path.clone())),
        Trusts::Credential(name) => {
            let (id, trust) = authorities(from, name).map_err(of_certificate)?;
            added.push((id.clone(), trust));
            Some(Authorities::Secret(id))
        }
        Trusts::CredentialOrSystem(name) if has_authorities(from, name) => {
            let (id, trust) = authorities(from, name).map_err(of_certificate)?;
            added.push((id.clone(), trust));
            Some(Authorities::Secret(id))
        }
        Trusts::System | Trusts::CredentialOrSystem(_) => Some(Authorities::System),
        Trusts::Roots => {
            let trust = from.world.trust().as_ref().map_err(|reason| (Code::NoSharedTrust, reason.to_string()))?;
            Some(Authorities::Secret(mesh_secrets(trust).roots))
        }
    };
    let names = if !tls.names.is_empty() {
        tls.names.iter().cloned().map(|name| PeerName::Any(AltName(name))).collect()
    } else if tls.trusts == Trusts::Roots {
        vec![PeerName::Identity]
    } else if let Some(name) = &tls.server_name {
        vec![PeerName::Host(name.clone())]
    } else {
        server.names
    };
    let verification = match authorities {
        Some(_) if names.is_empty() => {
            let problem = "no name is known that its certificate should have: write `sni` or `subjectAltNames`";
            return Err(of_certificate(problem.to_owned()));
        }
        authorities => authorities.map(|authorities| Verification { authorities, names }),
    };
    for (id, secret) in added {
        if !secrets.iter().any(|(known, _)| *known == id) {
            secrets.push((id, secret));
        }
    }
    Ok(ClientTls { server_name: tls.server_name.clone().or(server.name), certificate, verification, offers })
}

fn secret_of(gateway: &GatewayId, name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Secret, &gateway.cluster, &gateway.namespace, name)
}

fn missing(object: &ObjectRef) -> String {
    format!("`{object}` does not exist: add it in the gateway's own namespace and cluster")
}

/// What may hold the authorities of a credential: a Secret of their own, before that of the certificate.
fn holders<W: World + ?Sized>(from: &Opener<'_, W>, name: &str) -> [ObjectRef; 2] {
    [secret_of(from.gateway, &format!("{name}-cacert")), secret_of(from.gateway, name)]
}

/// Whether a credential says whom to trust.
fn has_authorities<W: World + ?Sized>(from: &Opener<'_, W>, name: &str) -> bool {
    let [apart, own] = holders(from, name);
    from.world.secret(&apart).is_some()
        || from.world.secret(&own).is_some_and(|secret| certificate::has_authorities(&secret))
}

fn authorities<W: World + ?Sized>(from: &Opener<'_, W>, name: &str) -> Result<(SecretId, Secret), String> {
    let [apart, own] = holders(from, name);
    let holder = from.world.secret(&apart).or_else(|| from.world.secret(&own)).ok_or_else(|| missing(&own))?;
    let trust = certificate::authorities(&holder).map_err(|problem| format!("`{}`: {problem}", holder.id))?;
    Ok((SecretId { object: holder.id.clone(), part: SecretPart::Trust }, trust))
}
