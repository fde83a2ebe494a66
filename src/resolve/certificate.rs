//! Secrets as key pairs and authorities: what Envoy would refuse is found here, and told to the author.
//!
//! Messages never quote a secret, not even the parts of it that are public.
//!
//! # Rule
//! R59, R60; the keys of a Secret as the core API's reference lists them.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;

use crate::ir::Secret as Material;
use crate::model::SecretBytes;

use super::facts::Secret;

/// Smallest RSA key that Envoy takes for a server certificate, in bits.
const RSA_BITS: usize = 2048;

/// The certificate and key of a Secret.
///
/// # Errors
/// A part of a sentence: what is missing or wrong, and what to do.
///
/// # Cost
/// One parse of the key and of each certificate, below a millisecond.
pub(super) fn key_pair(secret: &Secret) -> Result<Material, String> {
    let (chain_key, chain) = first(secret, &["tls.crt", "cert"])
        .ok_or("it has neither `tls.crt` nor `cert`: add the certificate chain in PEM")?;
    let (key_key, key) =
        first(secret, &["tls.key", "key"]).ok_or("it has neither `tls.key` nor `key`: add the private key in PEM")?;
    let certificates = certificates(chain_key, chain)?;
    let private = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| format!("`{key_key}` holds no private key in PEM that can be read"))?;
    check_own(chain_key, &certificates[0])?;
    match CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(format!("the key in `{key_key}` is not that of the first certificate in `{chain_key}`"));
        }
        Err(_) => return Err(format!("the key in `{key_key}` cannot be used: write an RSA or ECDSA key")),
    }
    Ok(Material::KeyPair {
        chain: chain.clone(),
        key: key.clone(),
        ocsp_staple: first(secret, &["tls.ocsp-staple"]).map(|(_, staple)| staple.clone()),
    })
}

/// The authorities of a Secret.
///
/// # Errors
/// As [`key_pair`].
pub(super) fn authorities(secret: &Secret) -> Result<Material, String> {
    let (key, authorities) = first(secret, &["cacert", "ca.crt"])
        .ok_or("it has neither `ca.crt` nor `cacert`: add the authorities that sign client certificates, in PEM")?;
    certificates(key, authorities)?;
    let revoked = first(secret, &["crl", "ca.crl"]);
    if let Some((key, revoked)) = revoked {
        let is_readable = CertificateRevocationListDer::pem_slice_iter(revoked.expose())
            .map(|list| list.is_ok_and(|list| x509_parser::parse_x509_crl(&list).is_ok()))
            .reduce(|all, one| all && one);
        if is_readable != Some(true) {
            return Err(format!("`{key}` holds no revocation list in PEM that can be read"));
        }
    }
    Ok(Material::Trust { authorities: authorities.clone(), revoked: revoked.map(|(_, revoked)| revoked.clone()) })
}

/// The first of some keys that a Secret has.
fn first<'a>(secret: &'a Secret, keys: &[&'static str]) -> Option<(&'static str, &'a SecretBytes)> {
    keys.iter().find_map(|key| Some((*key, secret.data.get(*key)?)))
}

/// All certificates of a PEM text; at least one.
fn certificates(key: &str, text: &SecretBytes) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.expose()).collect();
    let certificates = parsed.map_err(|_| format!("`{key}` is no PEM that can be read"))?;
    if certificates.is_empty() {
        return Err(format!("`{key}` holds no certificate in PEM"));
    }
    for (index, certificate) in certificates.iter().enumerate() {
        if parse_x509_certificate(certificate).is_err() {
            return Err(format!("certificate {} in `{key}` cannot be read", index + 1));
        }
    }
    Ok(certificates)
}

/// What Envoy demands of the certificate that it shows itself.
fn check_own(key: &str, certificate: &CertificateDer<'_>) -> Result<(), String> {
    let unreadable = || format!("the public key of the first certificate in `{key}` cannot be read");
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    match certificate.public_key().parsed().map_err(|_| unreadable())? {
        PublicKey::RSA(rsa) if rsa.key_size() < RSA_BITS => {
            Err(format!("the RSA key of `{key}` has {} bits; Envoy takes {RSA_BITS} and more", rsa.key_size()))
        }
        PublicKey::RSA(_) | PublicKey::EC(_) => Ok(()),
        _ => Err(format!(
            "the first certificate in `{key}` has neither an RSA nor an ECDSA key, which is all that Envoy takes"
        )),
    }
}

#[cfg(test)]
mod tests;
