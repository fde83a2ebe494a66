//! TLS that gateways start towards destinations: as an author says it, and as one gateway does it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SecretId;
use super::listener::CertificateSource;
use super::secret::{AltName, SecretPart};
use crate::model::Name;

/// What an author says about TLS towards a destination. Secrets are names in the gateway's own namespace and cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origination {
    /// Server name that is asked for; absent for the destination's own.
    pub server_name: Option<Name>,
    /// Names of which one must be in the server's certificate; empty for the server name.
    pub names: Vec<Name>,
    /// What the gateway shows.
    pub shows: Shows,
    /// Whom the gateway trusts.
    pub trusts: Trusts,
}

/// What a gateway shows to a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Shows {
    /// Nothing.
    Nothing,
    /// Certificate and key of a Secret.
    Credential(Name),
    /// Files on the gateway's disk.
    Files {
        /// Path of the certificate chain.
        chain: Name,
        /// Path of the key.
        key: Name,
    },
    /// Its identity in the mesh.
    Identity,
}

/// Whom a gateway trusts as a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trusts {
    /// Whom its system trusts.
    System,
    /// The authorities of a Secret, which must have some.
    Credential(Name),
    /// The authorities of a Secret that has some, else whom its system trusts.
    CredentialOrSystem(Name),
    /// Authorities in a file on the gateway's disk.
    File(Name),
    /// The roots of the mesh.
    Roots,
    /// Anybody.
    Anybody,
}

impl Origination {
    /// A verified server, and nothing that is shown.
    #[must_use]
    pub fn verified() -> Self {
        Self { server_name: None, names: Vec::new(), shows: Shows::Nothing, trusts: Trusts::System }
    }

    /// Whether it needs something that belongs to the gateway: its identity, a Secret of its namespace or a file on its disk.
    #[must_use]
    pub fn uses_gateways_own(&self) -> bool {
        self.shows != Shows::Nothing
            || matches!(self.trusts, Trusts::Credential(_) | Trusts::CredentialOrSystem(_) | Trusts::File(_))
    }
}

/// TLS that a gateway starts itself, from 1.2 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Server name that is asked for; absent asks for none.
    pub server_name: Option<Name>,
    /// What is shown.
    pub certificate: Option<CertificateSource>,
    /// Who is trusted, and as whom; absent for anybody.
    pub verification: Option<Verification>,
    /// What is offered to speak.
    pub offers: Offers,
}

impl ClientTls {
    /// Whether the gateway shows its identity in the mesh.
    #[must_use]
    pub fn shows_identity(&self) -> bool {
        matches!(&self.certificate, Some(CertificateSource::Secret(id)) if id.part == SecretPart::Identity)
    }
}

/// Who is trusted as a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verification {
    /// Authorities, one of which must have signed.
    pub authorities: Authorities,
    /// Names of which one must be in the certificate; never empty.
    pub names: Vec<PeerName>,
}

/// Authorities that sign the certificates of servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authorities {
    /// Whom the gateway's system trusts.
    System,
    /// A file on the gateway's disk.
    File(Name),
    /// Part of a Secret, or of the root of trust.
    Secret(SecretId),
}

/// A name in a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerName {
    /// A DNS name, or an IP address.
    Host(Name),
    /// Any DNS name that ends so; it begins with a dot.
    Below(Name),
    /// A name of any type.
    Any(AltName),
    /// The identity of somebody in the mesh.
    Identity,
}

/// What a client offers to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offers {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing: whatever passes through is for the ends to know.
    Nothing,
}

/// `TLS sni=NAME shows=WHAT trusts=WHOM as=NAME|NAME`, for people.
impl fmt::Display for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS")?;
        if let Some(name) = &self.server_name {
            write!(f, " sni={name}")?;
        }
        match &self.certificate {
            None => {}
            Some(CertificateSource::Secret(id)) => write!(f, " shows={id}")?,
            Some(CertificateSource::Files { chain, .. }) => write!(f, " shows={chain}")?,
        }
        let Some(Verification { authorities, names }) = &self.verification else {
            return f.write_str(" trusts=anybody");
        };
        match authorities {
            Authorities::System => f.write_str(" trusts=system")?,
            Authorities::File(path) => write!(f, " trusts={path}")?,
            Authorities::Secret(id) => write!(f, " trusts={id}")?,
        }
        for (index, name) in names.iter().enumerate() {
            f.write_str(if index == 0 { " as=" } else { "|" })?;
            match name {
                PeerName::Host(name) | PeerName::Any(AltName(name)) => f.write_str(name)?,
                PeerName::Below(suffix) => write!(f, "*{suffix}")?,
                PeerName::Identity => f.write_str("spiffe://*")?,
            }
        }
        Ok(())
    }
}
