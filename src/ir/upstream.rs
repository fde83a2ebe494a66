//! Upstreams: where requests go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};

use crate::model::{Labels, Name, ObjectName, ObjectRef};

use super::policy::balancing::Outlier;
use super::{ClientTls, Guard, Secret, SecretId};

/// Names one destination: object, port and subset, and what it is for.
///
/// Shown as `Service/ns/name@cluster:port{key=value}`, with `#http` or `#grpc` for servers that filters ask, `#tcp` for whole
/// connections, and `#crossing`, `#crossing-tcp`, `#crossing-tls` or `#passing` for what gateways of other clusters send.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct UpstreamId {
    /// A Service, VirtualDestination or ExternalService.
    pub object: ObjectRef,
    /// Port of that object (never a container port).
    pub port: u16,
    /// Labels that endpoints must carry; empty takes all.
    pub subset: Labels,
    /// Who calls it.
    #[serde(default, skip_serializing_if = "Purpose::is_routes")]
    pub purpose: Purpose,
    /// What of that which guards it only routes and listeners know. Not shown.
    #[serde(default, skip_serializing_if = "Edition::is_plain")]
    pub edition: Edition,
}

/// One state of a destination out of those that need clusters of their own, as a digest; the default where nothing of the kind
/// is to be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Edition([u64; 2]);

impl Edition {
    /// That of a state. Tenants choose the names in it, so that it must not be possible to find two with one digest.
    #[must_use]
    pub fn of(state: &str) -> Self {
        let digest = digest(&SHA256, state.as_bytes());
        let part =
            |at: usize| digest.as_ref()[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Self([part(0), part(8)])
    }

    /// Whether it is the default.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([high, low]) = self;
        write!(f, "{high:016x}{low:016x}")
    }
}

/// Who calls an upstream. What is called for different purposes is set up apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Purpose {
    /// Routes that forward to it.
    #[default]
    Routes,
    /// A filter that asks it over HTTP. Policies for the destination decide whether it may at all.
    HttpServer,
    /// A filter that asks it over gRPC, so always HTTP/2. Policies for the destination decide whether it may at all.
    GrpcServer,
    /// Routes that pass whole connections on, where these go there in another way than requests, or may cross clusters.
    Connections,
    /// Gateways of other clusters that send requests, through an east-west gateway of its own: they have judged them.
    Crossing,
    /// The same for whole connections.
    CrossingStream,
    /// The same for whole connections where what they pass on is TLS already, which is not started once more.
    CrossingTls,
    /// Gateways of other clusters that start TLS with the Pods themselves: the east-west gateway passes it through.
    Passing,
}

impl Purpose {
    /// What tells its upstreams apart in names; empty for routes.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Routes => "",
            Self::HttpServer => "#http",
            Self::GrpcServer => "#grpc",
            Self::Connections => "#tcp",
            Self::Crossing => "#crossing",
            Self::CrossingStream => "#crossing-tcp",
            Self::CrossingTls => "#crossing-tls",
            Self::Passing => "#passing",
        }
    }

    /// Whether gateways of other clusters call it.
    #[must_use]
    pub fn is_crossing(self) -> bool {
        self == Self::Crossing || self.is_crossing_whole()
    }

    /// Whether gateways of other clusters pass whole connections on to it.
    #[must_use]
    pub fn is_crossing_whole(self) -> bool {
        matches!(self, Self::CrossingStream | Self::CrossingTls | Self::Passing)
    }

    /// Whether whole connections go there, of which nobody knows what they carry.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Connections | Self::CrossingStream)
    }

    /// Whether a gateway judges by the rules of the destination's owner what it sends there; what a filter asks, Envoy compares
    /// with none, and what comes from another cluster is judged there.
    #[must_use]
    pub fn is_judged(self) -> bool {
        matches!(self, Self::Routes | Self::Connections)
    }

    /// Whether what comes from other clusters goes to the Pods as it is, because it is TLS already.
    #[must_use]
    pub fn is_tls_already(self) -> bool {
        matches!(self, Self::CrossingTls | Self::Passing)
    }

    /// Whether a filter asks it.
    #[must_use]
    pub fn is_asked(self) -> bool {
        matches!(self, Self::HttpServer | Self::GrpcServer)
    }

    fn is_routes(&self) -> bool {
        *self == Self::Routes
    }
}

/// What a filter asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Server {
    /// A destination of the mesh.
    Upstream(UpstreamId),
    /// An address outside it.
    Dial(Dial),
}

/// An address that gateways look up and call themselves. It is none that reaches the gateway's own host by its looks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Dial {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: Name,
    /// 1 to 65535.
    pub port: u16,
    /// TLS, verified with the system's authorities and for this host.
    pub tls: bool,
    /// HTTP/2 with prior knowledge, or by ALPN.
    pub http2: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(upstream) => upstream.fmt(f),
            Self::Dial(dial) if dial.host.contains(':') => write!(f, "[{}]:{}", dial.host, dial.port),
            Self::Dial(dial) => write!(f, "{}:{}", dial.host, dial.port),
        }
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.object, self.port)?;
        if !self.subset.is_empty() {
            f.write_str("{")?;
            for (i, (key, value)) in self.subset.iter().enumerate() {
                write!(f, "{}{key}={value}", if i > 0 { "," } else { "" })?;
            }
            f.write_str("}")?;
        }
        f.write_str(self.purpose.suffix())
    }
}

impl fmt::Debug for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl UpstreamId {
    /// All endpoints of a port of an object, for routes.
    #[must_use]
    pub fn new(object: &ObjectRef, port: u16) -> Self {
        let (subset, purpose) = (Labels::new(), Purpose::Routes);
        Self { object: object.clone(), port, subset, purpose, edition: Edition::default() }
    }

    /// The same whatever is behind it, as policies know it.
    #[must_use]
    pub fn of_any_edition(&self) -> Self {
        Self { edition: Edition::default(), ..self.clone() }
    }

    /// Whether both are the same but for what is behind them.
    #[must_use]
    pub fn is_edition_of(&self, other: &Self) -> bool {
        let Self { object, port, subset, purpose, edition: _ } = self;
        (object, port, subset, purpose) == (&other.object, &other.port, &other.subset, &other.purpose)
    }

    /// The server name by which gateways of other clusters ask an east-west gateway for a Service.
    ///
    /// # Errors
    /// A part of a sentence: it would be longer than TLS has room for.
    ///
    /// # Rule
    /// R179.
    pub fn server_name(&self) -> Result<Name, String> {
        let Self { object, port, subset, purpose, edition: _ } = self;
        // One chain for each: they differ in where TLS ends.
        let what = match purpose {
            Purpose::Passing => "passthrough",
            Purpose::CrossingTls => "tls",
            Purpose::CrossingStream => "tcp",
            _ => "outbound",
        };
        let mut subset_hash = String::new();
        if !subset.is_empty() {
            let text = subset.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            subset_hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        }
        let ObjectName { cluster, namespace, name, .. } = &**object;
        let is_label =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        // Others could be read in two ways.
        if !is_label(name) || !is_label(namespace) {
            return Err(format!("the names of `{object}` and its namespace cannot be part of a TLS server name"));
        }
        let text = format!("{what}_.{port}_.{subset_hash}_.{name}.{namespace}.svc.{cluster}").to_ascii_lowercase();
        if text.len() > LONGEST_SERVER_NAME {
            return Err(format!(
                "the names of `{object}`, its namespace and its cluster are too long to be a TLS server name together"
            ));
        }
        Ok(text.into())
    }
}

/// Whether a TLS server name is one by which a gateway asks another for a Service, or looks like it. No host has an underscore.
#[must_use]
pub fn is_crossing_name(text: &str) -> bool {
    text.contains("_.")
}

/// What a TLS client may state.
const LONGEST_SERVER_NAME: usize = 255;

/// A destination with its endpoints, as one gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Its name.
    pub id: UpstreamId,
    /// How to speak to it.
    pub protocol: UpstreamProtocol,
    /// DNS name of the destination, what `autoHostRewrite` puts into the Host header.
    pub hostname: Name,
    /// Ready endpoints by locality; empty answers 503.
    pub endpoints: BTreeMap<Locality, Vec<Endpoint>>,
    /// The shares of places, where they are said: those without endpoints are left out. Empty where endpoints share alike.
    pub shares: BTreeMap<Locality, u32>,
    /// When endpoints that fail are left alone; absent never does.
    pub outlier: Option<Outlier>,
    /// TLS towards endpoints that are reached straight; absent for plaintext.
    pub tls: Option<ClientTls>,
    /// The same for external services behind it, by what [`Endpoint::via`] says of their endpoints.
    pub externals: BTreeMap<Name, Option<ClientTls>>,
    /// Other clusters that endpoints may lead to, whether or not one does now.
    pub remotes: BTreeMap<Name, Remote>,
    /// What the gateway shows and trusts when it opens connections, beside its identity in the mesh; each once.
    pub secrets: Vec<(SecretId, Secret)>,
    /// Set when a protecting policy on the destination cannot be honoured: nothing passes.
    pub closed: Option<Closed>,
    /// Who may call what there, as this gateway judges; a request passes all of them.
    pub guards: Vec<Guard>,
    /// The policies that protect it, on routes or in its cluster; of what is no group. Its first endpoints wait for them.
    pub protected_by: Vec<ObjectRef>,
}

/// What is behind the east-west gateways of another cluster, for one destination.
///
/// Connections to them show the gateway's identity in the mesh, and take only gateways of the namespaces of those that were
/// chosen there; where TLS is passed through, they are connections to the Pods.
///
/// # Rule
/// R169, R178, R194.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// The Service there, for one of the purposes of gateways of other clusters.
    pub target: UpstreamId,
    /// Its server name (R179).
    pub server_name: Name,
    /// TLS with the Pods, which asks for that server name, where it is passed through to them; else absent.
    pub tls: Option<ClientTls>,
    /// The namespaces of the east-west gateways there.
    pub namespaces: BTreeSet<Name>,
}

impl Remote {
    /// Whether connections show the gateway's identity in the mesh.
    fn shows_identity(&self) -> bool {
        self.tls.as_ref().is_none_or(ClientTls::shows_identity)
    }
}

impl Upstream {
    /// Closes it, because what connections to it need is not there. It never falls back to plaintext.
    pub fn close(&mut self) {
        self.endpoints.clear();
        if !self.id.purpose.is_asked() {
            self.closed = Some(self.closed.take().map_or(Closed::BlackHole, |other| other.min(Closed::BlackHole)));
        }
    }

    /// Whether another differs from it in nothing but in what its cluster is told apart from itself: in endpoints, and in how
    /// much of the requests each place gets.
    #[must_use]
    pub fn is_same_but_for_endpoints(&self, other: &Self) -> bool {
        // Names are looked up by the cluster itself, which has the endpoints then.
        let is_apart = !self.is_looked_up() && !other.is_looked_up();
        let Self { id, protocol, hostname, endpoints: _, shares, outlier, .. } = self;
        let Self { tls, externals, remotes, secrets, closed, guards, protected_by: _, .. } = self;
        is_apart
            && (shares.is_empty(), outlier) == (other.shares.is_empty(), &other.outlier)
            && (id, protocol, hostname) == (&other.id, &other.protocol, &other.hostname)
            && (closed, guards) == (&other.closed, &other.guards)
            && (tls, externals, remotes, secrets) == (&other.tls, &other.externals, &other.remotes, &other.secrets)
    }

    /// Whether connections to it need the gateway's identity in the mesh, and the roots of trust.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        let started = self.tls.iter().chain(self.externals.values().flatten());
        self.remotes.values().any(Remote::shows_identity) || started.into_iter().any(ClientTls::shows_identity)
    }

    /// Leaves nothing that it leads to, nor what connections need.
    pub fn cut_off(&mut self) {
        self.endpoints.clear();
        self.remotes.clear();
        self.externals.clear();
        self.tls = None;
        self.secrets.clear();
    }

    /// Whether gateways look up some of its endpoints by name.
    #[must_use]
    pub fn is_looked_up(&self) -> bool {
        self.closed != Some(Closed::BlackHole) && self.endpoints.values().flatten().any(Endpoint::is_name)
    }
}

/// Protocol towards the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge (gRPC, h2c).
    Http2,
    /// What the client speaks.
    AsClient,
}

/// Region, zone and sub-zone of endpoints; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: Name,
    /// Zone.
    pub zone: Name,
    /// Sub-zone.
    pub sub_zone: Name,
}

/// One address of a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IP address; of an external service also a DNS name, or the path of a Unix socket.
    pub address: Name,
    /// Container port, or port of an east-west gateway, 1 to 65535; 0 for a Unix socket.
    pub port: u16,
    /// The other cluster whose east-west gateway this is, or the external service behind a virtual destination that it belongs
    /// to; absent for what is reached straight.
    pub via: Option<Name>,
    /// Its share of the requests, in proportion to the weights of the others of its place; at least 1.
    pub weight: u32,
    /// It is used where those of lower numbers fail; from 0 without gaps.
    pub priority: u32,
}

impl Endpoint {
    /// One that is reached straight, and counts like every other.
    #[must_use]
    pub fn direct(address: Name, port: u16) -> Self {
        Self { address, port, via: None, weight: 1, priority: 0 }
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.address.starts_with('/')
    }

    /// Whether it is a DNS name.
    #[must_use]
    pub fn is_name(&self) -> bool {
        !self.is_socket() && self.address.parse::<IpAddr>().is_err()
    }
}

/// How a destination is kept closed.
///
/// # Rule
/// R130; shape deny and shape black hole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Closed {
    /// 403 on every route to it, before any connection is made.
    Deny,
    /// A cluster without endpoints: 503.
    BlackHole,
}
