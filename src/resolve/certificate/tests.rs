//! R59, R60 and R191 on Secrets by themselves.

use rcgen::{CertificateParams, CertifiedKey, KeyPair, PKCS_ED25519, generate_simple_self_signed};

use crate::model::{Kind, Name, ObjectRef};
use crate::resolve::facts::Age;
use crate::testing::authority::Authority;

use super::*;

fn secret(data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| (Name::from(*key), SecretBytes::new(value.as_bytes()))).collect();
    let id = ObjectRef::new(Kind::Secret, "cluster-1", "edge", "web");
    let age = Age::new(None, &id);
    Secret { id, age, labels: [].into(), kind: "kubernetes.io/tls".into(), data }
}

fn pair() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

#[test]
fn r59_certificate_and_key_stand_under_either_name() {
    let (cert, key) = pair();
    for names in [["tls.crt", "tls.key"], ["cert", "key"]] {
        let found = key_pair(&secret(&[(names[0], &cert), (names[1], &key)])).unwrap();
        let Material::KeyPair { chain, key: found, ocsp_staple: None } = found else { panic!("a key pair") };
        assert_eq!((chain.expose(), found.expose()), (cert.as_bytes(), key.as_bytes()));
    }
    for name in ["ca.crt", "cacert"] {
        assert!(matches!(authorities(&secret(&[(name, &cert)])), Ok(Material::Trust { revoked: None, .. })), "{name}");
    }
}

#[test]
fn r60_what_cannot_be_used_is_said_without_a_word_of_it() {
    let (cert, key) = pair();
    let (other, _) = pair();
    let odd = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let odd_cert = CertificateParams::new(["shop.example".to_owned()]).unwrap().self_signed(&odd).unwrap();
    let cut = &cert[..cert.len() / 2];
    let canary = "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n";
    for (data, expected) in [
        (vec![("tls.key", key.as_str())], "neither `tls.crt` nor `cert`"),
        (vec![("tls.crt", cert.as_str())], "neither `tls.key` nor `key`"),
        (vec![("tls.crt", ""), ("tls.key", &key)], "`tls.crt` holds no certificate in PEM"),
        (vec![("tls.crt", "CANARY"), ("tls.key", &key)], "`tls.crt` holds no certificate in PEM"),
        (vec![("tls.crt", cut), ("tls.key", &key)], "`tls.crt`"),
        (vec![("tls.crt", &cert), ("tls.key", "CANARY")], "`tls.key` holds no private key in PEM"),
        (vec![("tls.crt", &cert), ("tls.key", canary)], "`tls.key`"),
        (vec![("tls.crt", &other), ("tls.key", &key)], "is not that of the first certificate"),
        (vec![("tls.crt", &cert), ("tls.key", &key), ("tls.ocsp-staple", "")], "no OCSP response"),
        (vec![("tls.crt", &cert), ("tls.key", &key), ("tls.ocsp-staple", "CANARY")], "no OCSP response"),
        (vec![("tls.crt", &odd_cert.pem()), ("tls.key", &odd.serialize_pem())], "neither an RSA nor an ECDSA key"),
    ] {
        let problem = key_pair(&secret(&data)).unwrap_err();
        assert!(problem.contains(expected), "{problem}, not {expected}");
        assert!(!problem.contains("CANARY"), "{problem}");
    }
    for (data, expected) in [
        (vec![("tls.crt", cert.as_str())], "neither `ca.crt` nor `cacert`"),
        (vec![("ca.crt", "")], "holds no certificate"),
        (vec![("ca.crt", &cert), ("ca.crl", "CANARY")], "`ca.crl` holds no revocation list"),
    ] {
        let problem = authorities(&secret(&data)).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("CANARY"), "{problem}, not {expected}");
    }
}

fn root(data: &[(&str, &str)]) -> Result<FoundSigner, String> {
    super::signer(&secret(data))
}

#[test]
fn r191_what_a_peer_needs_leads_from_the_signer_to_the_root() {
    let top = Authority::new("top", None);
    let middle = Authority::new("middle", Some(&top));
    let low = Authority::new("low", Some(&middle));
    let key = low.key.serialize_pem();
    let count = |text: &SecretBytes| CertificateDer::pem_slice_iter(text.expose()).count();

    // Chains may hold too much, in any order; the root itself is not shown, since peers have it.
    let all = [top.certificate.as_str(), &low.certificate, &middle.certificate].concat();
    let common = [("ca-cert.pem", low.certificate.as_str()), ("ca-key.pem", &key), ("root-cert.pem", &top.certificate)];
    let found = root(&[common.as_slice(), &[("cert-chain.pem", &all)]].concat()).unwrap();
    assert_eq!((count(&found.signer.chain), count(&found.root)), (2, 1));
    let problem = root(&common).unwrap_err();
    assert!(problem.contains("no chain of signatures leads from `ca-cert.pem` to `root-cert.pem`"), "{problem}");

    let bundle = [low.certificate.as_str(), &middle.certificate].concat();
    let found = root(&[("tls.crt", bundle.as_str()), ("tls.key", &key), ("ca.crt", &top.certificate)]).unwrap();
    assert_eq!((count(&found.signer.certificate), count(&found.signer.chain)), (1, 2));

    // A root that signs is shown to nobody.
    let own = top.key.serialize_pem();
    let found = root(&[("ca-cert.pem", top.certificate.as_str()), ("ca-key.pem", &own)]).unwrap();
    assert_eq!((count(&found.signer.chain), count(&found.root)), (0, 1));
    assert_eq!(found.signer.certificate, found.root);
    let again = root(&[("tls.crt", top.certificate.as_str()), ("tls.key", &own)]).unwrap();
    assert_eq!(again.signer.id, found.signer.id, "the same root by other names");
}

#[test]
fn r191_roots_that_cannot_be_used_are_said_without_a_word_of_them() {
    let top = Authority::new("top", None);
    let namesake = Authority::new("top", None);
    let low = Authority::new("low", Some(&top));
    let key = low.key.serialize_pem();
    let nameless = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for (data, expected) in [
        (vec![("ca-cert.pem", low.certificate.as_str())], "neither `ca-key.pem` nor `tls.key`"),
        (vec![("ca-key.pem", key.as_str())], "neither `ca-cert.pem` nor `tls.crt`"),
        (vec![("ca-cert.pem", "CANARY"), ("ca-key.pem", &key)], "`ca-cert.pem` holds no certificate in PEM"),
        (vec![("ca-cert.pem", &low.certificate), ("ca-key.pem", "CANARY")], "`ca-key.pem` holds no private key"),
        (
            vec![("ca-cert.pem", &low.certificate), ("ca-key.pem", &key), ("root-cert.pem", "CANARY")],
            "`root-cert.pem` holds no certificate",
        ),
        (
            vec![("ca-cert.pem", &low.certificate), ("ca-key.pem", &key), ("root-cert.pem", &namesake.certificate)],
            "no chain of signatures",
        ),
        (vec![("tls.crt", &nameless.0), ("tls.key", &nameless.1)], "the subject of the certificate in `tls.crt`"),
    ] {
        let problem = root(&data).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("CANARY"), "{problem}, not {expected}");
    }
    let problem = passive(&secret(&[("ca.crt", &pair().0)])).unwrap_err();
    assert!(problem.contains("may not sign others"), "{problem}");
}

#[test]
fn r191_pem_is_written_as_it_is_read() {
    let (cert, _) = pair();
    for length in 0..70_u8 {
        let odd = CertificateDer::from((0..length).collect::<Vec<u8>>());
        let text = pem(std::slice::from_ref(&odd));
        assert_eq!(CertificateDer::from_pem_slice(text.expose()).unwrap(), odd, "{length} bytes");
    }
    let der = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    assert_eq!(CertificateDer::from_pem_slice(pem(std::slice::from_ref(&der)).expose()).unwrap(), der);
}
