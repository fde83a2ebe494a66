//! Listeners, their filter chains, and virtual hosts.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Host, Name, ObjectRef, WorkspaceId};

use super::secret::{AltName, SecretId};
use super::{Guard, Route, Routes, UpstreamId};

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Whoever connects, as virtual gateways say.
    Gateway,
    /// Gateways of other clusters, which have routed and judged what they send (R180).
    Crossing,
    /// Clients inside the gateway's own cluster, each of whom finds the hosts of his workspace (R186).
    Mesh,
}

/// A bound port of a gateway.
///
/// Listeners of several virtual gateways that share a port are one listener (R57): in plaintext they share one chain, with
/// TLS each has its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The port that Envoy binds: the gateway Service port's `targetPort`.
    pub bind_port: u16,
    /// Whom it is for.
    pub purpose: Purpose,
    /// Ports of the gateway Services that lead here; what a client dials and a matcher's `port` means.
    pub service_ports: BTreeSet<u16>,
    /// The virtual gateways that declare it, in age order; none where it is not for them.
    pub gateways: Vec<ObjectRef>,
    /// At least one, each with server names of its own.
    pub chains: Vec<Chain>,
}

impl Listener {
    /// All virtual hosts of all chains.
    pub fn virtual_hosts(&self) -> impl Iterator<Item = &VirtualHost> {
        let hosts = self.chains.iter().filter_map(|chain| chain.serves.http()).flat_map(|http| &http.virtual_hosts);
        hosts.map(AsRef::as_ref)
    }

    /// All routes, of HTTP and of whole connections.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.virtual_hosts().flat_map(|host| &host.routes).chain(self.streams())
    }

    /// The routes of whole connections.
    pub fn streams(&self) -> impl Iterator<Item = &Route> {
        self.chains.iter().filter_map(|chain| match &chain.serves {
            Serves::Tcp(route) => route.as_ref(),
            Serves::Http(_) | Serves::Relay { .. } => None,
        })
    }

    /// What gateways of other clusters are let through to.
    pub fn relayed(&self) -> impl Iterator<Item = &UpstreamId> {
        self.chains.iter().filter_map(|chain| match &chain.serves {
            Serves::Relay { upstream, .. } => Some(upstream),
            Serves::Http(_) | Serves::Tcp(_) => None,
        })
    }

    /// Whether it ends the TLS of gateways of other clusters, and so shows who the gateway is.
    #[must_use]
    pub fn ends_crossings(&self) -> bool {
        self.chains.iter().any(|chain| chain.tls.is_some() && matches!(chain.serves, Serves::Relay { .. }))
    }

    /// Whether connections are told apart by the workspaces of those who open them.
    #[must_use]
    pub fn tells_clients_apart(&self) -> bool {
        self.chains.iter().any(|chain| chain.client.is_some())
    }

    /// The chain that clients of a workspace get, or clients of none.
    #[must_use]
    pub fn chain_of(&self, client: Option<&WorkspaceId>) -> Option<&Chain> {
        let own = self.chains.iter().find(|chain| chain.client.is_some() && chain.client.as_ref() == client);
        own.or_else(|| self.chains.iter().find(|chain| chain.client.is_none()))
    }

    /// Whether connections are told apart by what their first TLS message says.
    #[must_use]
    pub fn reads_tls(&self) -> bool {
        self.chains.iter().any(|chain| chain.tls.is_some() || !chain.server_names.is_empty())
    }

    /// The chain that a connection with some server name gets: that of the most specific name that fits, else the one
    /// that takes every name.
    ///
    /// # Rule
    /// R57; Envoy's order of `server_names`.
    #[must_use]
    pub fn chain_for(&self, server_name: Option<&str>) -> Option<&Chain> {
        let names = self.chains.iter().flat_map(|chain| chain.server_names.iter().map(move |name| (name, chain)));
        let fitting = names.filter(|(name, _)| server_name.is_some_and(|wanted| name.matches(wanted)));
        let best = fitting.max_by_key(|(name, _)| name.specificity()).map(|(_, chain)| chain);
        best.or_else(|| self.chains.iter().find(|chain| chain.server_names.is_empty()))
    }
}

/// What becomes of some of a listener's connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Unique within the listener, and stable: the listener's first host with TLS, empty in plaintext; of a relay its server
    /// name.
    pub name: Name,
    /// The virtual gateways that declare it, in age order; with TLS one.
    pub gateways: Vec<ObjectRef>,
    /// Whose clients inside the cluster it takes; none takes whoever is left, and where nobody is told from others, all.
    pub client: Option<WorkspaceId>,
    /// The server names (SNI) that choose it, whole or with `*.` in front; empty takes what fits no other chain.
    pub server_names: BTreeSet<Host>,
    /// How TLS ends here; absent in plaintext, and where TLS is passed through.
    pub tls: Option<Tls>,
    /// Who may open connections, where they are passed on whole or come from another cluster; one passes all of them. Empty
    /// where there is HTTP of clients.
    pub guards: Vec<Guard>,
    /// What is behind.
    pub serves: Serves,
}

/// What a chain serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Serves {
    /// HTTP requests.
    Http(HttpHosts),
    /// Whole connections, by the one route; without a route they are closed.
    Tcp(Option<Route>),
    /// What gateways of other clusters send to one destination, requests or whole connections: they have routed and judged it.
    Relay {
        /// The destination.
        upstream: UpstreamId,
    },
}

impl Serves {
    /// The hosts of an HTTP chain.
    #[must_use]
    pub fn http(&self) -> Option<&HttpHosts> {
        match self {
            Self::Http(hosts) => Some(hosts),
            Self::Tcp(_) | Self::Relay { .. } => None,
        }
    }
}

/// The hosts of an HTTP chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpHosts {
    /// Virtual hosts in the order of their domains; a request for another host gets 404 (R67).
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Hosts of other chains: a request for one of them gets 421 (R204). None of them is a domain above.
    pub misdirected: BTreeSet<Host>,
}

/// The routes of one domain, in the order in which Envoy tries them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// The domain, unique within the chain.
    pub domain: Host,
    /// The root tables that serve it, in age order.
    pub tables: Vec<ObjectRef>,
    /// Whether every request that came in plaintext is answered 301 to `https`, whatever the routes (R61).
    pub redirects_to_https: bool,
    /// Routes in order; the first match serves.
    pub routes: Routes,
}

/// How a chain ends TLS.
///
/// # Rule
/// R58 to R60.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// What the gateway shows.
    pub certificate: CertificateSource,
    /// What a client must show; absent asks for nothing.
    pub client: Option<ClientCertificate>,
    /// Lowest version.
    pub minimum: TlsVersion,
    /// Highest version.
    pub maximum: TlsVersion,
    /// Ciphers for TLS 1.2 and below, by OpenSSL's names; empty takes Envoy's default.
    pub ciphers: Vec<Name>,
}

/// Where a chain's certificate and key come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateSource {
    /// A secret of the plan.
    Secret(SecretId),
    /// Files on the gateway's disk.
    Files {
        /// Path of the certificate chain.
        chain: Name,
        /// Path of the private key.
        key: Name,
    },
}

/// What a client's certificate must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// Who must have signed it.
    pub trust: TrustSource,
    /// One of these must be in it; empty takes every name, under the roots of trust every identity. Under these they are
    /// identities.
    pub names: Vec<AltName>,
}

/// Where the authorities come from that sign client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrustSource {
    /// A secret of the plan.
    Secret(SecretId),
    /// A secret of the plan: the roots of trust, under which only identities count.
    Roots(SecretId),
    /// A file on the gateway's disk.
    File(Name),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}
