//! Public keys as a JWKS document, from PEM or from such a document.
//!
//! Envoy refuses a whole listener for a document that it cannot read or that has no usable key, so every key is checked
//! here. What comes out is canonical and has public parts alone. Messages never quote keys.
//!
//! # Rule
//! RFC 7517, RFC 7518 section 6, RFC 8037.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
};
use serde_json::{Map, Value, json};
use x509_parser::asn1_rs::{FromDer as _, Oid};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::ir::policy::jwt::Jwks;

/// Longest text that is read, in bytes.
const MAX_LENGTH: usize = 65_536;

/// Sizes of RSA keys, in bits: the least that RFC 7518 allows for signatures, and the most that Envoy's library takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16_384;

/// Keys that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The document.
    pub jwks: Jwks,
    /// What to tell the author about keys that are not used.
    pub left_out: Option<String>,
}

/// Reads public keys in PEM, or a JWKS document.
///
/// Keys of Secrets too must be public: what attaches is remembered in files.
///
/// # Errors
/// One sentence for the author, without any part of the keys.
pub fn read(text: &str) -> Result<Read, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("the keys are longer than {MAX_LENGTH} bytes; leave out those that are not used"));
    }
    let (keys, left_out) = match text.trim_start().as_bytes().first() {
        None => return Err("there are no keys: write public keys in PEM, or a JWKS document".to_owned()),
        Some(b'{' | b'[') => of_document(text)?,
        Some(_) => (of_pem(text)?, None),
    };
    Ok(Read { jwks: Jwks(json!({ "keys": keys }).to_string().into()), left_out })
}

fn of_pem(text: &str) -> Result<Vec<Value>, String> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|_| "this is neither PEM nor a JWKS document; copy the whole key".to_owned())?;
        let unreadable = || format!("the PEM block `{}` cannot be read; copy the whole key", label(&block.label));
        let key = match block.label.as_str() {
            "PUBLIC KEY" => {
                let (rest, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| unreadable())?;
                if !rest.is_empty() {
                    return Err(unreadable());
                }
                of_info(&info)?
            }
            "CERTIFICATE" => {
                let (_, certificate) =
                    x509_parser::parse_x509_certificate(&block.contents).map_err(|_| unreadable())?;
                of_info(certificate.public_key())?
            }
            "RSA PUBLIC KEY" => {
                let (_, key) = RSAPublicKey::from_der(&block.contents).map_err(|_| unreadable())?;
                rsa(key.modulus, key.exponent)?
            }
            private if private.ends_with("PRIVATE KEY") => {
                return Err("this is a private key, which now has to be replaced; write the public one".to_owned());
            }
            other => return Err(format!("the PEM block `{}` holds no public key; write `PUBLIC KEY`", label(other))),
        };
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("this is neither PEM nor a JWKS document; write `-----BEGIN PUBLIC KEY-----` and so on".to_owned());
    }
    Ok(keys)
}

/// The label of a PEM block, bounded.
fn label(written: &str) -> String {
    written.chars().filter(|c| !c.is_control()).take(30).collect()
}

fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Value, String> {
    let algorithm = &info.algorithm.algorithm;
    let bytes: &[u8] = &info.subject_public_key.data;
    if *algorithm == OID_SIG_ED25519 {
        return ed25519(bytes);
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return match info.parsed() {
            Ok(PublicKey::RSA(key)) => rsa(key.modulus, key.exponent),
            _ => Err("the RSA key cannot be read; copy the whole key".to_owned()),
        };
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let known = |curve: &Oid<'_>| {
            [(OID_EC_P256, Curve::P256), (OID_NIST_EC_P384, Curve::P384), (OID_NIST_EC_P521, Curve::P521)]
                .into_iter()
                .find(|(oid, _)| oid == curve)
                .map(|(_, curve)| curve)
        };
        let curve = curve.as_ref().and_then(known).ok_or("the curve is not one of P-256, P-384 and P-521")?;
        return ec(curve, bytes);
    }
    Err("the key is none of RSA, EC and Ed25519, the kinds that verify tokens".to_owned())
}

/// The keys of a document, and what to say about those that are left out.
fn of_document(text: &str) -> Result<(Vec<Value>, Option<String>), String> {
    let document: Value = serde_json::from_str(text).map_err(|_| "the JWKS document is not JSON".to_owned())?;
    let list = match &document {
        Value::Object(map) if map.contains_key("kty") => std::slice::from_ref(&document),
        Value::Object(map) => match map.get("keys") {
            Some(Value::Array(keys)) => keys.as_slice(),
            _ => return Err("the JWKS document has no list `keys`".to_owned()),
        },
        _ => return Err("the JWKS document is no object with a list `keys`".to_owned()),
    };
    let mut keys = Vec::new();
    let mut unused = Vec::new();
    for (index, written) in list.iter().enumerate() {
        let Value::Object(written) = written else {
            return Err(format!("key {index} of the JWKS document is no object"));
        };
        match of_jwk(written).map_err(|reason| format!("key {index} of the JWKS document: {reason}"))? {
            Some(key) => keys.push(key),
            None => unused.push(index.to_string()),
        }
    }
    if keys.is_empty() {
        return Err("the JWKS document has no key of a kind that verifies tokens: RSA, EC or Ed25519".to_owned());
    }
    let left_out = (!unused.is_empty()).then(|| {
        let unused = unused.join(", ");
        format!("keys that verify no tokens are left out, by their positions: {unused}")
    });
    Ok((keys, left_out))
}

/// The public part of a key with what names and restricts it; nothing for keys that verify no tokens.
fn of_jwk(written: &Map<String, Value>) -> Result<Option<Value>, String> {
    let text = |field: &str| written.get(field).and_then(Value::as_str).unwrap_or_default();
    let bytes =
        |field: &str| base64url_decode(text(field)).ok_or_else(|| format!("`{field}` is missing or not base64url"));
    if text("use") == "enc" {
        return Ok(None);
    }
    let mut key = match text("kty") {
        "RSA" => rsa(&bytes("n")?, &bytes("e")?)?,
        "EC" => {
            let curve = match text("crv") {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                _ => return Ok(None),
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != curve.bytes() || y.len() != curve.bytes() {
                return Err("`x` or `y` has not the length of its curve".to_owned());
            }
            ec(curve, &[&[4], x.as_slice(), y.as_slice()].concat())?
        }
        "OKP" if text("crv") == "Ed25519" => ed25519(&bytes("x")?)?,
        "oct" => {
            let why = "a symmetric key cannot be used: gateways hold public keys alone; sign by RSA, EC or Ed25519";
            return Err(why.to_owned());
        }
        "" => return Err("`kty` is missing".to_owned()),
        _ => return Ok(None),
    };
    // Envoy lets both restrict which key a token is verified with.
    for field in ["kid", "alg"] {
        match written.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if !text.contains(char::is_control) => key[field] = Value::from(text.as_str()),
            Some(_) => return Err(format!("`{field}` is no text")),
        }
    }
    check_algorithm(&key)?;
    Ok(Some(key))
}

/// Refuses an `alg` that does not fit the kind of the key: Envoy would not read it.
fn check_algorithm(key: &Value) -> Result<(), String> {
    let Some(algorithm) = key["alg"].as_str() else { return Ok(()) };
    let fitting: &[&str] = match (key["kty"].as_str(), key["crv"].as_str()) {
        (Some("RSA"), _) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        (Some("EC"), Some("P-256")) => &["ES256"],
        (Some("EC"), Some("P-384")) => &["ES384"],
        (Some("EC"), _) => &["ES512"],
        _ => &["EdDSA"],
    };
    if fitting.contains(&algorithm) {
        return Ok(());
    }
    Err(format!("`alg` does not fit the key: write one of {}, or leave it out", fitting.join(", ")))
}

/// An RSA key of its modulus and exponent, big-endian.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Value, String> {
    let significant = |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0).map(|start| bytes[start..].to_vec());
    let (Some(modulus), Some(exponent)) = (significant(modulus), significant(exponent)) else {
        return Err("the RSA key is empty".to_owned());
    };
    let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
    if !RSA_BITS.contains(&bits) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!("the RSA key has {bits} bits; use {least} to {most}"));
    }
    let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|byte| byte % 2 == 1);
    if !is_odd(&modulus) || !is_odd(&exponent) || exponent == [1] || exponent.len() > 4 {
        return Err("the RSA key is not valid; copy the whole key".to_owned());
    }
    Ok(json!({"kty": "RSA", "n": base64url(&modulus), "e": base64url(&exponent)}))
}

/// Curves for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Length of a coordinate.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// An EC key of its point, which is not compressed.
fn ec(curve: Curve, point: &[u8]) -> Result<Value, String> {
    let algorithm = match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
    };
    let Some([4, coordinates @ ..]) = point.get(..) else {
        return Err("the EC key has a compressed point, which cannot be read; export it uncompressed".to_owned());
    };
    if coordinates.len() != 2 * curve.bytes() || ParsedPublicKey::new(algorithm, point).is_err() {
        return Err(format!("the key is no point of {}", curve.name()));
    }
    let (x, y) = coordinates.split_at(curve.bytes());
    Ok(json!({"kty": "EC", "crv": curve.name(), "x": base64url(x), "y": base64url(y)}))
}

fn ed25519(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() != 32 {
        return Err("the Ed25519 key has not 32 bytes".to_owned());
    }
    Ok(json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes)}))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding (RFC 4648 section 5).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// The reverse of [`base64url`]; padding may be there.
fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        word = (word << 6) | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    // What is left over is padding, and less than a letter.
    (bits < 6 && word == 0 && !bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests;
