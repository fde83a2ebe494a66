//! The root that the control plane makes itself: of all keys the only one that is kept.
//!
//! `DIR/root.pem` holds each root that has not ended, the oldest first, as its certificate and its key. Mode 0600; written
//! whole or not at all. What is there and cannot be understood is left as it is, and nothing is made in its place: another
//! root would cut the trust of every gateway.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use xxhash_rust::xxh3::xxh3_128;

use crate::ir::trust::{Signer, Terms};
use crate::model::SecretBytes;

use super::{TrustError, crypto, new_key, private, set_validity, validity};

/// How long before it is made a root holds already, in seconds: clocks differ.
const CLOCKS_DIFFER: i64 = 3600;

/// Largest file that is read, in bytes; a root takes some thousand.
const MAX_BYTES: u64 = 1 << 20;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// A root that the control plane made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    certificate: SecretBytes,
    key: SecretBytes,
    /// When it began and ends, in seconds since 1970.
    begins: i64,
    ends: i64,
}

impl Root {
    /// A new one, which signs itself.
    ///
    /// # Errors
    /// The library fails.
    ///
    /// # Cost
    /// An RSA key of 4096 bits, which is the default, takes a second or so.
    pub fn make(terms: &Terms, now: i64) -> Result<Self, TrustError> {
        let key = new_key(terms.key)?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - CLOCKS_DIFFER, now + i64::from(terms.days) * 86_400);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, terms.organization.as_str());
        params.distinguished_name.push(DnType::CommonName, format!("Chancery root {now}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(crypto("a root cannot be signed"))?;
        Self::read(&certificate.pem(), &key.serialize_pem())
            .map_err(|reason| TrustError::Crypto { what: "a root cannot be made", reason: reason.to_owned() })
    }

    /// One that stands in PEM, certificate and key apart.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is quoted.
    pub fn of_secrets(certificate: &SecretBytes, key: &SecretBytes) -> Result<Self, &'static str> {
        let text = |bytes: &SecretBytes| std::str::from_utf8(bytes.expose()).map(str::to_owned);
        let (Ok(certificate), Ok(key)) = (text(certificate), text(key)) else { return Err("it is no text") };
        Self::read(&certificate, &key)
    }

    /// Its certificate and key, in PEM.
    #[must_use]
    pub fn pair(&self) -> (SecretBytes, SecretBytes) {
        (self.certificate.clone(), self.key.clone())
    }

    /// From when it holds, in seconds since 1970.
    #[must_use]
    pub fn begins(&self) -> i64 {
        self.begins
    }

    /// A certificate and key, which must belong together.
    fn read(certificate: &str, key: &str) -> Result<Self, &'static str> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| "a certificate cannot be read")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| "a certificate cannot be read")?;
        let own = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "a key cannot be read")?;
        let own = KeyPair::try_from(&own).map_err(|_| "a key cannot be read")?;
        if own.subject_public_key_info() != parsed.public_key().raw {
            return Err("a key is not that of its certificate");
        }
        let certificate = SecretBytes::new(certificate.as_bytes());
        let (begins, ends) = validity(&certificate).map_err(|_| "a certificate cannot be read")?;
        Ok(Self { certificate, key: SecretBytes::new(key.as_bytes()), begins, ends })
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn lasts(&self, now: i64) -> bool {
        now < self.ends
    }

    /// When a successor is made, which is trusted from then on; half of the time that is left it still signs.
    fn replaced(&self, terms: &Terms) -> i64 {
        self.ends - self.left(terms)
    }

    /// When it no longer signs.
    fn retired(&self, terms: &Terms) -> i64 {
        self.ends - self.left(terms) / 2
    }

    fn left(&self, terms: &Terms) -> i64 {
        (self.ends - self.begins) / 1_000 * i64::from(terms.renew_with_left) / 1_000
    }
}

/// Whether another root is needed: there is none that is not about to end.
#[must_use]
pub fn needs_another(roots: &[Root], terms: &Terms, now: i64) -> bool {
    roots.iter().all(|root| now >= root.replaced(terms))
}

/// What signs at a moment: the oldest that is not about to end, so that everybody trusts a successor before it signs.
#[must_use]
pub fn signing(roots: &[Root], terms: &Terms, now: i64) -> Option<Signer> {
    let root = roots.iter().find(|root| now < root.retired(terms)).or(roots.last())?;
    let id = format!("{:032x}", xxh3_128(root.certificate.expose())).into();
    let (certificate, key) = (root.certificate.clone(), root.key.clone());
    Some(Signer { id, certificate, key, chain: SecretBytes::default() })
}

/// What is trusted at a moment, in PEM: all that has not ended, and the newest in any case.
#[must_use]
pub fn trusted(roots: &[Root], now: i64) -> SecretBytes {
    let count = roots.len();
    let lasting = roots.iter().enumerate().filter(|(index, root)| root.lasts(now) || index + 1 == count);
    SecretBytes::new(&lasting.map(|(_, root)| root.certificate.expose()).collect::<Vec<_>>().concat())
}

/// When the answers to the questions above change next, in seconds since 1970.
#[must_use]
pub fn next_change(roots: &[Root], terms: &Terms, now: i64) -> Option<i64> {
    let times = roots.iter().flat_map(|root| [root.replaced(terms), root.retired(terms), root.ends]);
    times.filter(|time| *time > now).min()
}

/// The file of the roots.
#[derive(Clone, Debug)]
pub struct RootFile {
    path: PathBuf,
}

impl RootFile {
    /// The one of a state directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { path: directory.join("root.pem") }
    }

    /// Its roots, the oldest first; none where there is no file.
    ///
    /// # Errors
    /// It cannot be read or understood. It is left as it is.
    pub fn load(&self) -> Result<Vec<Root>, TrustError> {
        let length = match std::fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.wrong(&error.to_string())),
        };
        if length > MAX_BYTES {
            return Err(self.wrong("it is too long to be a root"));
        }
        let text = std::fs::read_to_string(&self.path).map_err(|error| self.wrong(&error.to_string()))?;
        self.keep_private()?;
        let mut roots = Vec::new();
        let mut starts: Vec<usize> = text.match_indices(CERTIFICATE).map(|(at, _)| at).collect();
        starts.push(text.len());
        for bounds in starts.windows(2) {
            let part = &text[bounds[0]..bounds[1]];
            let (certificate, key) =
                part.find(KEY).map(|at| part.split_at(at)).ok_or_else(|| self.wrong("a certificate has no key"))?;
            roots.push(Root::read(certificate, key).map_err(|reason| self.wrong(reason))?);
        }
        if roots.is_empty() {
            return Err(self.wrong("it holds no root; restore it, or delete it to begin with a new root"));
        }
        Ok(roots)
    }

    /// Takes from others what only its owner may read.
    fn keep_private(&self) -> Result<(), TrustError> {
        let found = std::fs::metadata(&self.path).map_err(|error| self.wrong(&error.to_string()))?;
        if found.permissions().mode() & 0o077 != 0 {
            tracing::warn!(file = %self.path.display(), "the root's key was readable for others, who may have it; it is not any more");
            std::fs::set_permissions(&self.path, Permissions::from_mode(0o600))
                .map_err(|error| self.wrong(&error.to_string()))?;
        }
        Ok(())
    }

    /// Writes roots, all or nothing, readable for their owner only.
    ///
    /// # Errors
    /// The system's. What was there before is still there.
    ///
    /// # Cost
    /// Waits for the disk.
    pub fn save(&self, roots: &[Root]) -> Result<(), TrustError> {
        let parts: Vec<&[u8]> = roots.iter().flat_map(|root| [root.certificate.expose(), root.key.expose()]).collect();
        private::write(&self.path, &parts).map_err(|error| self.wrong(&error.to_string()))
    }

    fn wrong(&self, reason: &str) -> TrustError {
        TrustError::File { file: self.path.display().to_string(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests;
