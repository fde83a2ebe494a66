//! The certificates of gateways.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use xxhash_rust::xxh3::xxh3_64;

use crate::ir::trust::{Identity, KeyType, Signer};
use crate::model::SecretBytes;
use crate::snapshot::Version;

use super::{TrustError, crypto, new_key, set_validity, validity};

/// How long before the beginning of its period a certificate holds already, in seconds: clocks differ.
pub(super) const CLOCKS_DIFFER: i64 = 3600;

/// Shortest time between two renewals, and shortest time that is left when one is due, in seconds.
const SHORTEST: i64 = 3600;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The time between two renewals of a gateway's certificate.
///
/// Periods of one identity follow each other from the beginning of time, so that every server knows, without asking another,
/// in which one a moment lies. Each identity has its own beginning: a fleet does not renew at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Which one it is.
    pub number: i64,
    /// When it begins, in seconds since 1970.
    pub begins: i64,
    /// When the next one begins.
    pub renewed: i64,
    /// When its certificate ends, unless what signs ends before.
    pub ends: i64,
}

impl Period {
    /// The period in which a moment lies, in seconds since 1970.
    #[must_use]
    pub fn at(identity: &Identity, now: i64) -> Self {
        let life = i64::from(identity.terms.days) * DAY;
        let left = life * i64::from(identity.terms.renew_with_left) / 1_000_000;
        let length = (life - left).clamp(SHORTEST, life - SHORTEST);
        let phase = i64::try_from(xxh3_64(identity.uri.as_bytes()) >> 1).unwrap_or_default() % length;
        let number = (now - phase).div_euclid(length);
        let begins = number * length + phase;
        Self { number, begins, renewed: begins + length, ends: begins + life }
    }
}

/// The version of the certificate of a period: what signs, whose it is, how it is made and when; not its bytes, which
/// differ from server to server.
#[must_use]
pub fn version(identity: &Identity, period: &Period) -> Version {
    let Identity { uri, signer, terms } = identity;
    let content = format!(
        "{signer} {uri} {} {} {:?} {} {}",
        period.number, terms.days, terms.key, terms.renew_with_left, terms.organization
    );
    Version::of_content(content.as_bytes())
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its own certificate, and what leads from it to the root.
    pub chain: SecretBytes,
    /// The key.
    pub key: SecretBytes,
}

/// Issues the certificate of a gateway for a period.
///
/// It ends when what signs it ends, if that is sooner. What signs may have ended already: then nobody accepts it.
///
/// # Errors
/// What signs cannot be used, which is found before a plan names it; or the library fails.
///
/// # Cost
/// A key and a signature: below a millisecond, but for RSA keys.
pub fn issue(signer: &Signer, identity: &Identity, period: &Period) -> Result<Issued, TrustError> {
    let uri = identity.uri.as_str().try_into().map_err(crypto("an identity cannot be written"))?;
    let wanted = Wanted {
        names: vec![SanType::URI(uri)],
        uses: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        key: identity.terms.key,
        organization: &identity.terms.organization,
        begins: period.begins - CLOCKS_DIFFER,
        ends: period.ends,
    };
    sign(signer, wanted)
}

/// What a certificate is to say.
pub(super) struct Wanted<'a> {
    pub(super) names: Vec<SanType>,
    pub(super) uses: Vec<ExtendedKeyUsagePurpose>,
    pub(super) key: KeyType,
    pub(super) organization: &'a str,
    /// In seconds since 1970.
    pub(super) begins: i64,
    /// The same, unless what signs ends before.
    pub(super) ends: i64,
}

/// Makes a key, and signs what it is for.
pub(super) fn sign(signer: &Signer, wanted: Wanted<'_>) -> Result<Issued, TrustError> {
    let unusable = |reason: &str| TrustError::Crypto { what: "what signs cannot be used", reason: reason.to_owned() };
    let above = CertificateDer::from_pem_slice(signer.certificate.expose()).map_err(|_| unusable("no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(signer.key.expose()).map_err(|_| unusable("no key"))?;
    let key = KeyPair::try_from(&key).map_err(crypto("what signs cannot be used"))?;
    let issuer = Issuer::from_ca_cert_der(&above, key).map_err(crypto("what signs cannot be used"))?;

    let own = new_key(wanted.key)?;
    let (_, last) = validity(&signer.certificate)?;
    let mut params = CertificateParams::default();
    set_validity(&mut params, wanted.begins, wanted.ends.min(last));
    params.subject_alt_names = wanted.names;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, wanted.organization);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if wanted.key != KeyType::EcdsaP256 {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = wanted.uses;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&own, &issuer).map_err(crypto("a certificate cannot be signed"))?;
    if !is_signed_by(certificate.der(), &above) {
        return Err(TrustError::Signature);
    }
    let chain = [certificate.pem().as_bytes(), signer.chain.expose()].concat();
    Ok(Issued { chain: SecretBytes::new(&chain), key: SecretBytes::new(own.serialize_pem().as_bytes()) })
}

/// Whether those who trust one certificate accept what it signed.
fn is_signed_by(certificate: &CertificateDer<'_>, above: &CertificateDer<'_>) -> bool {
    let parsed = (x509_parser::parse_x509_certificate(certificate), x509_parser::parse_x509_certificate(above));
    let (Ok((_, certificate)), Ok((_, above))) = parsed else { return false };
    certificate.issuer().as_raw() == above.subject().as_raw()
        && certificate.verify_signature(Some(above.public_key())).is_ok()
}

#[cfg(test)]
mod tests;
