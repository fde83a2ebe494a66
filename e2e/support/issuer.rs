//! Issuers of tokens: real keys, tokens signed with them, and a server of their public halves that counts who asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Someone who signs tokens.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// What stands in `iss`.
    pub(crate) name: String,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Issuer {
    /// With an RSA key of 2048 bits.
    pub(crate) fn rsa(name: &str) -> anyhow::Result<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).context("make an RSA key")?;
        Ok(Self { name: name.to_owned(), key: Key::Rsa(key) })
    }

    /// With a key on P-256.
    pub(crate) fn ec(name: &str) -> anyhow::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("make an EC key")?;
        Ok(Self { name: name.to_owned(), key: Key::Ec(key) })
    }

    /// The public key in PEM.
    pub(crate) fn pem(&self) -> anyhow::Result<String> {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Rsa(key) => key.public_key().as_der(),
            Key::Ec(key) => key.public_key().as_der(),
        }
        .context("encode a key")?;
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(der.as_ref())))
    }

    /// The public key of an EC issuer as a JWKS document.
    pub(crate) fn jwks(&self) -> String {
        let Key::Ec(key) = &self.key else { return json!({"keys": []}).to_string() };
        // An uncompressed point: 4, then both coordinates.
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": url(x), "y": url(y)}]}).to_string()
    }

    /// A token of this issuer that is good for an hour, with more claims, or with these in place of the usual ones.
    pub(crate) fn token(&self, claims: &Value) -> anyhow::Result<String> {
        let mut payload = json!({"iss": self.name, "sub": "somebody", "exp": now() + 3600});
        for (name, value) in claims.as_object().into_iter().flatten() {
            payload[name] = value.clone();
        }
        let algorithm = match &self.key {
            Key::Rsa(_) => "RS256",
            Key::Ec(_) => "ES256",
        };
        let signed =
            format!("{}.{}", url(json!({"alg": algorithm, "typ": "JWT"}).to_string()), url(payload.to_string()));
        let chance = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &chance, signed.as_bytes(), &mut signature).context("sign")?;
                signature
            }
            Key::Ec(key) => key.sign(&chance, signed.as_bytes()).context("sign")?.as_ref().to_vec(),
        };
        Ok(format!("{signed}.{}", url(signature)))
    }

    /// A token that says it needs no signature.
    pub(crate) fn unsigned(&self) -> String {
        let payload = json!({"iss": self.name, "sub": "somebody", "exp": now() + 3600});
        format!("{}.{}.", url(json!({"alg": "none"}).to_string()), url(payload.to_string()))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Base64 as in PEM and `Authorization`.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    let text = encode(bytes.as_ref(), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    format!("{text}{padding}")
}

fn url(bytes: impl AsRef<[u8]>) -> String {
    encode(bytes.as_ref(), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}

/// Base64 without padding.
fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            text.push(char::from(alphabet[group >> (18 - 6 * position) & 63]));
        }
    }
    text
}

/// A running server of one document; stops when dropped.
#[derive(Debug)]
pub(crate) struct KeyServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    count: Arc<AtomicU64>,
    task: AbortHandle,
}

impl KeyServer {
    /// Serves a JWKS document under every path.
    pub(crate) async fn start(document: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen for keys")?;
        let address = listener.local_addr()?;
        let count = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(serve(listener, document, Arc::clone(&count))).abort_handle();
        Ok(Self { address, count, task })
    }

    /// How often it was asked.
    pub(crate) fn requests(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, document: String, count: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (document, count) = (document.clone(), Arc::clone(&count));
        connections.spawn(async move {
            let service = service_fn(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = hyper::Response::new(Full::new(Bytes::from(document.clone())));
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that goes away in the middle is not this server's business.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
