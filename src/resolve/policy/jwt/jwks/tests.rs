use super::*;

const RSA: &str = include_str!("rsa.pem");
const RSA_PKCS1: &str = include_str!("rsa-pkcs1.pem");
const P256: &str = include_str!("p256.pem");
const P384: &str = include_str!("p384.pem");
const P521: &str = include_str!("p521.pem");
const ED25519: &str = include_str!("ed25519.pem");
const CERTIFICATE: &str = include_str!("certificate.pem");

/// The document that is made of a text in a policy.
fn document(text: &str) -> Value {
    let read = read(text).unwrap_or_else(|reason| panic!("{reason}"));
    serde_json::from_str(&read.jwks.0).unwrap()
}

fn refusal(text: &str) -> String {
    let reason = read(text).unwrap_err();
    assert!(!reason.ends_with('.') && !reason.contains('\n'), "{reason}");
    reason
}

/// A document with one key.
fn jwk(key: &Value) -> String {
    json!({"keys": [key]}).to_string()
}

#[test]
fn pem_of_every_kind_becomes_a_document_without_names() {
    let kind = |text: &str| {
        let document = document(text);
        let key = &document["keys"][0];
        assert_eq!(document["keys"].as_array().unwrap().len(), 1);
        assert!(key.get("kid").is_none() && key.get("alg").is_none(), "they would restrict what matches");
        (key["kty"].as_str().unwrap().to_owned(), key["crv"].as_str().unwrap_or_default().to_owned())
    };
    let pair = |kind: &str, curve: &str| (kind.to_owned(), curve.to_owned());
    assert_eq!(kind(RSA), pair("RSA", ""));
    assert_eq!(kind(P256), pair("EC", "P-256"));
    assert_eq!(kind(P384), pair("EC", "P-384"));
    assert_eq!(kind(P521), pair("EC", "P-521"));
    assert_eq!(kind(ED25519), pair("OKP", "Ed25519"));
    assert_eq!(document(RSA), document(RSA_PKCS1), "two forms of one key");
    assert_eq!(document(P256), document(CERTIFICATE), "the certificate's key");
    assert_eq!(document(RSA)["keys"][0]["e"], "AQAB");
    let two = document(&format!("{RSA}\n{ED25519}"));
    assert_eq!(two["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn an_ed25519_key_has_the_bytes_of_its_pem() {
    // The last 32 bytes of the 44 that the PEM block holds.
    let (_, pem) = x509_parser::pem::parse_x509_pem(ED25519.as_bytes()).unwrap();
    assert_eq!(document(ED25519)["keys"][0]["x"], base64url(&pem.contents[12..]));
}

#[test]
fn a_document_passes_as_it_is_but_for_what_is_private() {
    let mut key = document(RSA)["keys"][0].clone();
    key["kid"] = json!("one");
    key["alg"] = json!("RS256");
    key["use"] = json!("sig");
    let mut written = key.clone();
    written["d"] = json!("CANARYPRIVATE");
    written["x5c"] = json!(["MIIB"]);
    let found = document(&jwk(&written));
    assert_eq!((found["keys"][0]["kid"].clone(), found["keys"][0]["alg"].clone()), (json!("one"), json!("RS256")));
    assert!(!found.to_string().contains("CANARY"));
    // One key without its list, and a second reading of what came out.
    assert_eq!(document(&key.to_string())["keys"][0]["n"], key["n"]);
    assert_eq!(document(&found.to_string()), found);
}

#[test]
fn keys_that_verify_no_tokens_are_left_out() {
    let ec = document(P256)["keys"][0].clone();
    let mut encrypts = ec.clone();
    encrypts["use"] = json!("enc");
    let other = json!({"kty": "OKP", "crv": "X25519", "x": "AA"});
    let both = json!({"keys": [encrypts, ec, other, {"kty": "NEW"}]}).to_string();
    let found = read(&both).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&found.jwks.0).unwrap(), document(P256));
    assert!(found.left_out.unwrap().ends_with("0, 2, 3"));
    assert!(refusal(&jwk(&encrypts)).contains("no key"), "Envoy would refuse an empty document");
}

#[test]
fn symmetric_keys_are_not_used_wherever_they_stand() {
    let key = jwk(&json!({"kty": "oct", "k": base64url(b"CANARY-SYMMETRIC"), "alg": "HS256"}));
    let reason = refusal(&key);
    assert!(reason.contains("symmetric") && !reason.contains("CANARY") && !reason.contains("Q0F"), "{reason}");
}

#[test]
fn what_envoy_cannot_read_is_refused() {
    for text in [
        "",
        "  \n",
        "no key",
        "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMFkw\n",
        "-----BEGIN NOTHING-----\nMFkw\n-----END NOTHING-----\n",
        include_str!("rsa-1024.pem"),
        include_str!("secp256k1.pem"),
        include_str!("p256-compressed.pem"),
        "{}",
        "{",
        "[]",
        "{\"keys\": {}}",
        "{\"keys\": []}",
        "{\"keys\": [1]}",
        "{\"keys\": [{}]}",
    ] {
        refusal(text);
    }
    let good = |text: &str| document(text)["keys"][0].clone();
    let changed = |text: &str, field: &str, value: Value| {
        let mut key = good(text);
        key[field] = value;
        refusal(&jwk(&key))
    };
    changed(RSA, "n", json!(""));
    changed(RSA, "n", json!("***"));
    changed(RSA, "n", json!("AQAB"));
    changed(RSA, "e", json!("AQ"));
    changed(RSA, "alg", json!("ES256"));
    changed(RSA, "kid", json!(7));
    changed(P256, "x", good(P384)["x"].clone());
    assert!(changed(P256, "y", good(P256)["x"].clone()).contains("no point of P-256"));
    changed(P384, "alg", json!("ES256"));
    changed(ED25519, "x", json!("AQAB"));
    assert!(refusal(&"a".repeat(MAX_LENGTH + 1)).contains("longer"));
}

#[test]
fn a_private_key_is_refused_and_not_quoted() {
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let reason = refusal(&format!("-----BEGIN {label}-----\nQ0FOQVJZ\n-----END {label}-----\n"));
        assert!(reason.contains("private key") && !reason.contains("Q0FO"), "{reason}");
    }
}

#[test]
fn base64url_rows() {
    for (bytes, text) in [(&b"f"[..], "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"\xff\xef\xbe", "_---")] {
        assert_eq!(base64url(bytes), text);
        assert_eq!(base64url_decode(text).as_deref(), Some(bytes));
    }
    for text in ["", "Z", "Zh", "Zm9v Zg", "Zm+v", "Zm/v", "=="] {
        assert_eq!(base64url_decode(text), None, "{text:?}");
    }
    assert_eq!(base64url_decode("Zg==").as_deref(), Some(&b"f"[..]));
}
