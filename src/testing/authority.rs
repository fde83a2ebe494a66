//! Authorities for tests: roots, and what they sign.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

/// A certificate that signs others, and its key.
pub(crate) struct Authority {
    /// PEM.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: KeyPair,
}

impl Authority {
    /// One of some name, under another or by itself; holds from 2020 to 2040.
    pub(crate) fn new(name: &str, above: Option<&Authority>) -> Self {
        Self::until(2040, name, above)
    }

    /// The same until the first day of a year.
    pub(crate) fn until(year: i32, name: &str, above: Option<&Authority>) -> Self {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = match above {
            None => params.self_signed(&key),
            Some(above) => {
                let issuer = Issuer::from_ca_cert_pem(&above.certificate, &above.key).expect("an issuer");
                params.signed_by(&key, &issuer)
            }
        };
        Self { certificate: certificate.expect("a certificate").pem(), key }
    }
}
