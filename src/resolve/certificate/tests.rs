//! R59 and R60 on Secrets by themselves.

use rcgen::{CertificateParams, CertifiedKey, KeyPair, PKCS_ED25519, generate_simple_self_signed};

use crate::model::{Kind, Name, ObjectRef};

use super::*;

fn secret(data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| (Name::from(*key), SecretBytes::new(value.as_bytes()))).collect();
    Secret { id: ObjectRef::new(Kind::Secret, "cluster-1", "edge", "web"), data }
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
