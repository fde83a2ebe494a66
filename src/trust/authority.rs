//! The authority of the xDS port: an own root, apart from that of the mesh, which signs for the control plane and for gateways
//! as clients of it.
//!
//! It is used by `chancery credentials` and by nobody else: a server that runs needs its certificate only.

use std::path::Path;

use rcgen::{ExtendedKeyUsagePurpose, SanType};

use crate::ir::trust::{KeyType, Signer, Terms};
use crate::model::{Name, SecretBytes};

use super::leaf::{CLOCKS_DIFFER, Issued, Wanted, sign};
use super::root::{self, Root, RootFile};
use super::{TrustError, crypto};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The organization in all subjects.
const ORGANIZATION: &str = "Chancery xDS";

/// Days for which a root holds; another follows when a third of them is left, and signs when a sixth is.
const ROOT_DAYS: u32 = 3650;
const RENEW_WITH_LEFT: u32 = 333_333;

/// Signs with the root of a directory.
#[derive(Debug)]
pub struct Authority {
    roots: Vec<Root>,
    signer: Signer,
    now: i64,
}

impl Authority {
    /// That of a directory. A root is made where there is none, or none that lasts.
    ///
    /// # Errors
    /// The file of the root cannot be read, understood or written.
    pub fn open(directory: &Path, now: i64) -> Result<Self, TrustError> {
        let file = RootFile::of(directory);
        let mut roots = file.load()?;
        let terms = terms();
        if root::needs_another(&roots, &terms, now) {
            roots.retain(|root| root.lasts(now));
            roots.push(Root::make(&terms, now)?);
            file.save(&roots)?;
        }
        let signer = root::signing(&roots, &terms, now).ok_or(TrustError::Signature)?;
        Ok(Self { roots, signer, now })
    }

    /// What is trusted, in PEM.
    #[must_use]
    pub fn trusted(&self) -> SecretBytes {
        root::trusted(&self.roots, self.now)
    }

    /// A certificate of the server, for the host names and addresses by which gateways reach it.
    ///
    /// # Errors
    /// A name that is none; or the library fails.
    pub fn server(&self, names: &[String], days: u32) -> Result<Issued, TrustError> {
        let name = |name: &String| match name.parse() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName).map_err(crypto("no host name")),
        };
        let names = names.iter().map(name).collect::<Result<_, _>>()?;
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, days)
    }

    /// A certificate of a gateway, as whom a URI names. It proves nothing of a server.
    ///
    /// # Errors
    /// No URI; or the library fails.
    pub fn gateway(&self, uri: &str, days: u32) -> Result<Issued, TrustError> {
        let uri = uri.try_into().map_err(crypto("an identity cannot be written"))?;
        self.sign(vec![SanType::URI(uri)], ExtendedKeyUsagePurpose::ClientAuth, days)
    }

    fn sign(&self, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose, days: u32) -> Result<Issued, TrustError> {
        let wanted = Wanted {
            names,
            uses: vec![purpose],
            key: KeyType::EcdsaP256,
            organization: ORGANIZATION,
            begins: self.now - CLOCKS_DIFFER,
            ends: self.now + i64::from(days) * DAY,
        };
        sign(&self.signer, wanted)
    }
}

fn terms() -> Terms {
    let organization = Name::from(ORGANIZATION);
    Terms { days: ROOT_DAYS, key: KeyType::EcdsaP256, organization, renew_with_left: RENEW_WITH_LEFT }
}
