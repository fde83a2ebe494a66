//! Secrets as key pairs and authorities: what Envoy would refuse is found here, and told to the author.
//!
//! So are the Secrets that hold a root of trust, which the control plane signs with itself.
//!
//! Messages never quote a secret, not even the parts of it that are public.
//!
//! # Rule
//! R59, R60, R191; the keys of a Secret as the core API's reference lists them.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;

use crate::ir::Secret as Material;
use crate::ir::trust::Signer;
use crate::model::SecretBytes;

use super::facts::Secret;

/// Smallest RSA key that Envoy takes for a server certificate, in bits.
const RSA_BITS: usize = 2048;

/// The keys under which a Secret may have authorities.
const AUTHORITIES: &[&str] = &["cacert", "ca.crt"];

/// Whether a Secret says whom to trust.
pub(super) fn has_authorities(secret: &Secret) -> bool {
    first(secret, AUTHORITIES).is_some()
}

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
    check_pair((chain_key, &certificates), (key_key, key))?;
    let staple = first(secret, &["tls.ocsp-staple"]).map(|(_, staple)| staple);
    // A DER sequence that holds all of the bytes: a response and not an empty or a PEM text.
    if staple.is_some_and(|staple| !is_der_sequence(staple.expose())) {
        return Err("`tls.ocsp-staple` holds no OCSP response in DER: correct it, or leave it out".to_owned());
    }
    Ok(Material::KeyPair { chain: chain.clone(), key: key.clone(), ocsp_staple: staple.cloned() })
}

/// The authorities of a Secret.
///
/// # Errors
/// As [`key_pair`].
pub(super) fn authorities(secret: &Secret) -> Result<Material, String> {
    let (key, authorities) = first(secret, AUTHORITIES)
        .ok_or("it has neither `ca.crt` nor `cacert`: add the authorities to trust, in PEM")?;
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

/// A certificate that signs others, with the root above it.
#[derive(Debug)]
pub(super) struct FoundSigner {
    /// What signs.
    pub(super) signer: Signer,
    /// PEM.
    pub(super) root: SecretBytes,
}

/// What a Secret with a root of trust signs with.
///
/// # Errors
/// As [`key_pair`].
pub(super) fn signer(secret: &Secret) -> Result<FoundSigner, String> {
    let (own_key, own) = first(secret, &["ca-cert.pem", "tls.crt"])
        .ok_or("it has neither `ca-cert.pem` nor `tls.crt`: add the certificate that signs, in PEM")?;
    let (key_key, key) = first(secret, &["ca-key.pem", "tls.key"])
        .ok_or("it has neither `ca-key.pem` nor `tls.key`: add the key that signs, in PEM")?;
    let mut chain = certificates(own_key, own)?;
    check_pair((own_key, &chain), (key_key, key))?;
    let signing = chain.remove(0);
    if let Some((name, more)) = first(secret, &["cert-chain.pem"]) {
        chain.extend(certificates(name, more)?);
    }
    // What signs may be its own root, and then nobody has to write it twice.
    let (root_key, root) = first(secret, &["root-cert.pem", "ca.crt"]).unwrap_or((own_key, own));
    let root = if root_key == own_key { vec![signing.clone()] } else { certificates(root_key, root)? };
    for certificate in &root {
        check_signs(root_key, certificate)?;
    }
    check_signs(own_key, &signing)?;
    let chain = path(&signing, &chain, &root).ok_or_else(|| {
        format!(
            "no chain of signatures leads from `{own_key}` to `{root_key}`: add what is between to `cert-chain.pem`"
        )
    })?;
    let (certificate, chain) = (pem(&[signing]), pem(&chain));
    let shown = joined(&[certificate.clone(), chain.clone()]);
    let id = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(shown.expose())).into();
    let signer = Signer { id, certificate, key: key.clone(), chain };
    Ok(FoundSigner { signer, root: pem(&root) })
}

/// The roots of a Secret that verify and never sign.
///
/// # Errors
/// As [`key_pair`].
pub(super) fn passive(secret: &Secret) -> Result<SecretBytes, String> {
    let (key, roots) = first(secret, &["root-cert.pem", "ca.crt", "ca-cert.pem", "tls.crt"])
        .ok_or("it has neither `root-cert.pem` nor `ca.crt`: add the root, in PEM")?;
    let roots = certificates(key, roots)?;
    for root in &roots {
        check_signs(key, root)?;
    }
    Ok(pem(&roots))
}

/// Texts in PEM, one after the other.
pub(super) fn joined(texts: &[SecretBytes]) -> SecretBytes {
    SecretBytes::new(&texts.iter().map(SecretBytes::expose).collect::<Vec<_>>().concat())
}

/// What has to be shown beside a certificate for a peer that has the roots: itself, unless it is a root, and all that is
/// between. Nothing where no signatures lead there.
fn path(
    signing: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Option<Vec<CertificateDer<'static>>> {
    let mut path = Vec::new();
    let mut at = signing;
    while !roots.contains(at) {
        // No certificate stands in a path twice, so it ends.
        if path.contains(at) {
            return None;
        }
        path.push(at.clone());
        if roots.iter().any(|root| is_signed_by(at, root)) {
            break;
        }
        at = chain.iter().find(|above| *above != at && is_signed_by(at, above))?;
    }
    Some(path)
}

fn is_signed_by(certificate: &CertificateDer<'_>, above: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, above))) = (parse_x509_certificate(certificate), parse_x509_certificate(above))
    else {
        return false;
    };
    certificate.issuer().as_raw() == above.subject().as_raw()
        && certificate.verify_signature(Some(above.public_key())).is_ok()
}

/// What a certificate that signs others must say.
fn check_signs(key: &str, certificate: &CertificateDer<'_>) -> Result<(), String> {
    let unreadable = || format!("what the certificate in `{key}` is for cannot be read");
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let is_authority = certificate.basic_constraints().map_err(|_| unreadable())?.is_some_and(|found| found.value.ca);
    let usage = certificate.key_usage().map_err(|_| unreadable())?;
    if !is_authority || usage.is_some_and(|found| !found.value.key_cert_sign()) {
        return Err(format!(
            "the certificate in `{key}` may not sign others: it needs CA:TRUE and the use keyCertSign"
        ));
    }
    // What is signed repeats the subject as its issuer.
    let mut kinds = Vec::new();
    for part in certificate.subject().iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return Err(odd_subject(key)) };
        if attribute.as_str().is_err() || kinds.contains(attribute.attr_type()) {
            return Err(odd_subject(key));
        }
        kinds.push(attribute.attr_type().clone());
    }
    if kinds.is_empty() { Err(odd_subject(key)) } else { Ok(()) }
}

fn odd_subject(key: &str) -> String {
    format!("the subject of the certificate in `{key}` is empty, or has an attribute more than once or that is no text")
}

/// Certificates as PEM, and nothing else that stood around them.
fn pem(certificates: &[CertificateDer<'_>]) -> SecretBytes {
    const LINE: usize = 64;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for certificate in certificates {
        text.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
        let mut digits = Vec::with_capacity(certificate.len() / 3 * 4 + 4);
        for group in certificate.chunks(3) {
            let bytes = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
            let value = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for place in 0..4_usize {
                let digit = ALPHABET[(value >> (18 - 6 * place)) as usize & 63];
                digits.push(if place <= group.len() { digit } else { b'=' });
            }
        }
        for line in digits.chunks(LINE) {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    SecretBytes::new(&text)
}

fn is_der_sequence(bytes: &[u8]) -> bool {
    use x509_parser::asn1_rs::{FromDer as _, Sequence};
    Sequence::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty())
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

/// Whether a key is that of the first of some certificates, and both are of a kind that can be used.
fn check_pair(
    (chain_key, chain): (&str, &[CertificateDer<'static>]),
    (key_key, key): (&str, &SecretBytes),
) -> Result<(), String> {
    let private = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| format!("`{key_key}` holds no private key in PEM that can be read"))?;
    check_own(chain_key, &chain[0])?;
    match CertifiedKey::from_der(chain.to_vec(), private, &aws_lc_rs::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("the key in `{key_key}` is not that of the first certificate in `{chain_key}`"))
        }
        Err(_) => Err(format!("the key in `{key_key}` cannot be used: write an RSA or ECDSA key")),
    }
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
