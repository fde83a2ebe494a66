use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::ir::trust::Terms;
use crate::testing::authority::Authority;

const URI: &str = "spiffe://cluster-1/ns/edge/sa/web";

/// The first day of 2026.
const NOW: i64 = 1_767_225_600;

fn identity(days: u32) -> Identity {
    let terms = Terms { days, key: KeyType::EcdsaP256, organization: "gloo-mesh".into(), renew_with_left: 100_000 };
    Identity { uri: URI.into(), signer: "root".into(), terms }
}

fn signer(own: &Authority) -> Signer {
    let secret = |text: &str| SecretBytes::new(text.as_bytes());
    let (certificate, key) = (secret(&own.certificate), secret(&own.key.serialize_pem()));
    Signer { id: "root".into(), chain: certificate.clone(), certificate, key }
}

fn parsed<T>(issued: &Issued, question: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = CertificateDer::from_pem_slice(issued.chain.expose()).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    question(&certificate)
}

#[test]
fn r193_a_certificate_says_who_the_gateway_is_and_nothing_more() {
    let (root, identity) = (Authority::new("root", None), identity(10));
    let issued = issue(&signer(&root), &identity, &Period::at(&identity, NOW)).unwrap();
    parsed(&issued, |certificate| {
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(matches!(names.as_slice(), [GeneralName::URI(URI)]), "{names:?}");
        assert_eq!(certificate.subject().to_string(), "O=gloo-mesh");
        assert!(!certificate.is_ca(), "it must not sign others");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && !usage.any);
    });
    let pems = CertificateDer::pem_slice_iter(issued.chain.expose()).count();
    assert_eq!(pems, 2, "its own, and what signed it");
    assert!(!String::from_utf8(issued.chain.expose().to_vec()).unwrap().contains("PRIVATE KEY"));
    assert!(!format!("{issued:?}").contains("BEGIN"), "keys never print");
}

#[test]
fn r193_periods_follow_each_other_and_a_certificate_outlives_its_own() {
    let identity = identity(10);
    let first = Period::at(&identity, NOW);
    assert!(first.begins <= NOW && NOW < first.renewed);
    assert_eq!(first.renewed - first.begins, 9 * DAY, "a tenth of ten days is left");
    assert_eq!(first.ends - first.renewed, DAY);
    assert_eq!(Period::at(&identity, first.renewed - 1), first);
    let second = Period::at(&identity, first.renewed);
    assert_eq!((second.number, second.begins), (first.number + 1, first.renewed));
    assert_eq!(Period::at(&identity, -NOW).begins.signum(), -1, "before 1970 the arithmetic still holds");
}

#[test]
fn r193_versions_say_root_identity_and_period_not_bytes() {
    let (root, identity) = (Authority::new("root", None), identity(10));
    let period = Period::at(&identity, NOW);
    let issue = || issue(&signer(&root), &identity, &period).unwrap();
    assert_ne!(issue(), issue(), "keys are chance");
    assert_eq!(version(&identity, &period), version(&identity.clone(), &Period::at(&identity, period.begins)));
    let later = Period::at(&identity, period.renewed);
    let other_root = Identity { signer: "next".into(), ..identity.clone() };
    let other_name = Identity { uri: "spiffe://cluster-1/ns/edge/sa/other".into(), ..identity.clone() };
    for other in [version(&identity, &later), version(&other_root, &period), version(&other_name, &period)] {
        assert_ne!(other, version(&identity, &period));
    }
}

#[test]
fn r193_edges_of_the_options() {
    for (days, left) in [(1, 1), (1, 999_999), (36_500, 1), (36_500, 999_999)] {
        let mut identity = identity(days);
        identity.terms.renew_with_left = left;
        let period = Period::at(&identity, NOW);
        assert!(period.begins <= NOW && NOW < period.renewed && period.renewed + 3600 <= period.ends, "{period:?}");
        assert!(period.renewed - period.begins >= 3600, "{period:?}");
    }
}

#[test]
fn r193_a_certificate_never_outlives_what_signs_it() {
    let (root, identity) = (Authority::until(2027, "root", None), identity(3650));
    let issued = issue(&signer(&root), &identity, &Period::at(&identity, NOW)).unwrap();
    let (_, end) = validity(&SecretBytes::new(root.certificate.as_bytes())).unwrap();
    assert_eq!(parsed(&issued, |certificate| certificate.validity().not_after.timestamp()), end);
}

#[test]
fn r191_rsa_keys_where_they_are_wanted() {
    let root = Authority::new("root", None);
    let mut identity = identity(10);
    identity.terms.key = KeyType::Rsa2048;
    let issued = issue(&signer(&root), &identity, &Period::at(&identity, NOW)).unwrap();
    let bits = parsed(&issued, |certificate| certificate.public_key().parsed().unwrap().key_size());
    assert_eq!(bits, 2048);
}

#[test]
fn what_cannot_sign_says_so_without_a_word_of_it() {
    let (root, other, identity) = (Authority::new("root", None), Authority::new("other", None), identity(10));
    let period = Period::at(&identity, NOW);
    let mut broken = signer(&root);
    broken.key = SecretBytes::new(b"CANARY");
    assert!(!issue(&broken, &identity, &period).unwrap_err().to_string().contains("CANARY"));
    broken.key = signer(&other).key;
    assert_eq!(issue(&broken, &identity, &period), Err(TrustError::Signature));
}
