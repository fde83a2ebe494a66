//! Ring 6: issues the certificates of gateways, and keeps the root that signs them where a policy leaves that to Chancery.
//!
//! | file | what it does |
//! |---|---|
//! | [`leaf`] | certificates of gateways: made in memory, never kept |
//! | [`authority`] | certificates of the xDS port, under a root of its own |
//! | [`private`] | files that only their owner may read |
//! | [`root`] | the root that the control plane makes itself: the one key that is kept, in a file of its own |
//!
//! The clock is an argument everywhere: what is issued for some moment is a function of the moment, but for the keys, which
//! are chance. So two servers with one root give a gateway two certificates that are worth the same, under one version.
//!
//! # Rule
//! R191, R193.

pub mod authority;
pub mod leaf;
pub mod private;
pub mod root;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::ir::trust::KeyType;
use crate::model::SecretBytes;

/// Why something cannot be issued. None of the texts quotes what is signed or signed with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The library cannot make or read a key or certificate.
    #[error("{what}: {reason}")]
    Crypto {
        /// What was to be done.
        what: &'static str,
        /// The library's words.
        reason: String,
    },
    /// A signature that does not fit to the certificate that it was made with.
    #[error("what was signed is not accepted under the certificate that signs")]
    Signature,
    /// The file of the root.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// Turns an error of the library into ours.
fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> TrustError {
    move |error| TrustError::Crypto { what, reason: error.to_string() }
}

/// A new private key.
///
/// # Cost
/// Microseconds for ECDSA; for RSA up to seconds.
fn new_key(kind: KeyType) -> Result<KeyPair, TrustError> {
    let key = match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    key.map_err(crypto("a key cannot be made"))
}

/// From when to when a certificate holds, in seconds since 1970.
///
/// # Errors
/// It cannot be read.
pub fn validity(pem: &SecretBytes) -> Result<(i64, i64), TrustError> {
    let unreadable = |reason: String| TrustError::Crypto { what: "a certificate cannot be read", reason };
    let certificate = CertificateDer::from_pem_slice(pem.expose()).map_err(|_| unreadable("no PEM".to_owned()))?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&certificate).map_err(|error| unreadable(error.to_string()))?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// A certificate, by what is asked of it as time goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who it is, in DER.
    pub subject: Vec<u8>,
    /// Who signed it, in DER.
    pub issuer: Vec<u8>,
    /// From when it holds, in seconds since 1970.
    pub begins: i64,
    /// Until when.
    pub ends: i64,
}

/// All certificates of a text in PEM that can be read, in order.
#[must_use]
pub fn held(pem: &SecretBytes) -> Vec<Held> {
    let all = CertificateDer::pem_slice_iter(pem.expose()).filter_map(Result::ok);
    let one = |certificate: CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let validity = certificate.validity();
        Some(Held {
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
        })
    };
    all.filter_map(one).collect()
}

/// Writes from when to when a certificate holds; what lies before 1970 counts as 1970.
fn set_validity(params: &mut rcgen::CertificateParams, begins: i64, ends: i64) {
    let since_1970 = |seconds: i64| std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + since_1970(begins), epoch + since_1970(ends));
}
