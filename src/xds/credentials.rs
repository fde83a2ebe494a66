//! What proves who opens a stream: the server's own certificate, the authorities of clients, and tokens, from files that are
//! read again when they change.
//!
//! A change holds for new connections and streams at once. What was let in by something that is no longer accepted ends: a
//! connection when its certificate ends or its authority goes, a stream when its token goes.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::codegen::http::{HeaderMap, header};
use x509_parser::extensions::GeneralName;

use super::caller::{Caller, TokenDigest, Tokens, account_of_uri};
use super::observation::Reason;
use super::review::{AGAIN, Review, Reviewer, Reviews};
use crate::model::{ObjectRef, SecretBytes};

/// The files of a directory of credentials. Those of a Secret of type `kubernetes.io/tls` have the same names.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const TOKENS: &str = "tokens";

/// Largest file that is read, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long before its end the server's certificate is warned of, in seconds.
const WARN_BEFORE: i64 = 14 * 86_400;

/// How a token is marked in the header `authorization`; a client may leave it out.
const BEARER: &str = "bearer ";

/// What a client that shows nothing is told.
const HOW_TO: &str = "show a client certificate that is signed under the server's ca.crt, or a token of its file of tokens; \
    `chancery credentials` makes both, and `chancery bootstrap --xds-credentials` writes a bootstrap that uses them";

/// Why credentials cannot be used. Nothing of a file is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct CredentialError {
    /// The file or directory.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The credentials of a server. Clones are the same.
#[derive(Clone, Debug)]
pub struct Credentials {
    directory: Arc<Path>,
    current: watch::Sender<Arc<InForce>>,
    /// Who is asked about tokens that stand in no file; absent where nobody is.
    reviews: Option<Reviews>,
}

/// What was read last, and could be used.
struct InForce {
    files: Files,
    tls: Arc<ServerConfig>,
    /// Absent where no certificate of a client is accepted.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    tokens: Tokens,
    /// When the server's certificate ends, in seconds since 1970.
    ends: i64,
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce").field("tokens", &self.tokens).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
    tokens: Option<Vec<u8>>,
}

impl Credentials {
    /// Reads a directory: `tls.crt` and `tls.key` of the server, and `ca.crt`, under which clients show certificates, or
    /// `tokens`, or both.
    ///
    /// # Errors
    /// A file is missing or cannot be understood, or there is neither of the two.
    pub fn open(directory: &Path) -> Result<Self, CredentialError> {
        Self::open_with(directory, None)
    }

    /// The same, where somebody else is asked about tokens that stand in no file; then there may be neither of the two.
    ///
    /// # Errors
    /// Those of [`Credentials::open`].
    pub fn open_with(directory: &Path, reviewer: Option<Arc<dyn Reviewer>>) -> Result<Self, CredentialError> {
        let read = InForce::of(directory, Files::read(directory)?, reviewer.is_some())?;
        let current = watch::Sender::new(Arc::new(read));
        Ok(Self { directory: directory.into(), current, reviews: reviewer.map(Reviews::new) })
    }

    /// When the server's certificate ends, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> i64 {
        self.current.borrow().ends
    }

    /// How to accept a connection now.
    pub(super) fn tls(&self) -> Arc<ServerConfig> {
        self.current.borrow().tls.clone()
    }

    /// Reads the files again and again, and takes what can be used. Never ends.
    pub(super) async fn follow(&self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut warned_of) = (None, None);
        loop {
            ticks.tick().await;
            let ends = self.ends();
            if ends - now() < WARN_BEFORE && warned_of != Some(ends) {
                tracing::warn!(seconds = ends - now(), "the certificate of the xDS server ends soon: replace it");
                warned_of = Some(ends);
            }
            let directory = self.directory.clone();
            // A file system that does not answer must not hold up others.
            let Ok(files) = tokio::task::spawn_blocking(move || Files::read(&directory)).await else { continue };
            let read = match files {
                Ok(files) if files == self.current.borrow().files => continue,
                files => files.and_then(|files| InForce::of(&self.directory, files, self.reviews.is_some())),
            };
            match read {
                Ok(read) => {
                    tracing::info!(tokens = read.tokens.count(), "the credentials of xDS changed, and are in force");
                    self.current.send_replace(Arc::new(read));
                    told = None;
                }
                Err(error) if told.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::error!(
                        "changed credentials of xDS cannot be used, and those before stay in force: {error}"
                    );
                    told = Some(error);
                }
            }
        }
    }

    /// Who opens a stream with these headers, over a connection on which somebody proved to be `shown`.
    pub(super) async fn admit(&self, shown: &Shown, headers: &HeaderMap) -> Result<Admitted, (Reason, String)> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let account = match (shown, values.next(), values.next()) {
            (Shown::Account(account), ..) => (account.clone(), None),
            (_, Some(_), Some(_)) => return Err((Reason::Token, "show one token".to_owned())),
            (_, Some(value), None) => {
                let token = token(value.as_bytes());
                let digest = TokenDigest::of(token);
                let known = self.current.borrow().tokens.account(&digest).cloned();
                match known {
                    Some(account) => (account, Some(digest)),
                    None => return self.reviewed(SecretBytes::new(token.trim_ascii())).await,
                }
            }
            (Shown::NoAccount, None, _) => {
                let says = "the client's certificate names no gateway: its one URI must be spiffe://<cluster>/ns/<namespace>/sa/<account>";
                return Err((Reason::Certificate, says.to_owned()));
            }
            (Shown::Nothing, None, _) => return Err((Reason::NoCredential, HOW_TO.to_owned())),
        };
        let (account, token) = account;
        let current = Some(self.current.subscribe());
        Ok(Admitted { caller: Caller::Account(account), token, current, reviewed: None })
    }

    /// Whom a token proves that stands in no file.
    async fn reviewed(&self, token: SecretBytes) -> Result<Admitted, (Reason, String)> {
        let refused = |why: &str| Err((Reason::Token, why.to_owned()));
        let Some(reviews) = &self.reviews else { return refused("the token is not accepted") };
        match reviews.review(&token).await {
            Review::Account(account, pod) => Ok(Admitted {
                caller: match pod {
                    Some(pod) => Caller::Pod(account, pod),
                    None => Caller::Account(account),
                },
                token: None,
                current: None,
                reviewed: Some((reviews.clone(), token)),
            }),
            Review::Nobody => {
                refused("the token is not accepted: it must be one of a ServiceAccount, for the audience `chancery`")
            }
            Review::Unavailable => refused("no API server can be asked about the token: connect again"),
        }
    }

    /// Ready when a certificate chain is no longer accepted.
    pub(super) async fn outlived(self, chain: Vec<CertificateDer<'static>>) {
        let Some((own, others)) = chain.split_first() else { return };
        let mut current = self.current.subscribe();
        loop {
            let clients = current.borrow_and_update().clients.clone();
            let is_accepted =
                |clients: Arc<dyn ClientCertVerifier>| clients.verify_client_cert(own, others, UnixTime::now()).is_ok();
            if !clients.is_some_and(is_accepted) {
                return;
            }
            let now = now();
            let next = chain.iter().filter_map(ends).map(|ends| ends + 1).filter(|ends| *ends > now).min();
            let until_next = async {
                match next.and_then(|next| u64::try_from(next - now).ok()) {
                    Some(left) => tokio::time::sleep(Duration::from_secs(left)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is ours.
                _ = current.changed() => {}
                () = until_next => {}
            }
        }
    }
}

/// A token as it stands in a header.
fn token(value: &[u8]) -> &[u8] {
    match value.split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER.as_bytes()) => token,
        _ => value,
    }
}

/// What a client proved on its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It showed no certificate.
    Nothing,
    /// It showed one that is accepted, and says of nobody that we know of how to name.
    NoAccount,
    /// It is who this is.
    Account(ObjectRef),
}

impl Shown {
    /// By a chain that was verified.
    pub(super) fn by(chain: &[CertificateDer<'_>]) -> Self {
        let Some(own) = chain.first() else { return Self::Nothing };
        identity(own).map_or(Self::NoAccount, Self::Account)
    }
}

/// The account that the only URI of a certificate names.
fn identity(certificate: &CertificateDer<'_>) -> Option<ObjectRef> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then(|| account_of_uri(uri)).flatten()
}

/// Whoever may open a stream, and by what.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) caller: Caller,
    token: Option<TokenDigest>,
    /// None where nobody is asked.
    current: Option<watch::Receiver<Arc<InForce>>>,
    /// A token that stands in no file, and who said whom it proves.
    reviewed: Option<(Reviews, SecretBytes)>,
}

impl Admitted {
    /// Where nobody is asked.
    pub(super) fn anybody() -> Self {
        Self { caller: Caller::Anybody, token: None, current: None, reviewed: None }
    }

    /// Ready when the token is no longer accepted; never for others.
    pub(super) async fn revoked(&mut self) {
        if let (Some((reviews, token)), Some(account)) = (&self.reviewed, self.caller.account()) {
            loop {
                tokio::time::sleep(AGAIN).await;
                match reviews.review(token).await {
                    Review::Account(still, pod) if still == *account && pod.as_ref() == self.caller.pod() => {}
                    // While nobody can be asked, what was said last holds.
                    Review::Unavailable => {}
                    Review::Account(..) | Review::Nobody => return,
                }
            }
        }
        let (Some(current), Some(token), Some(account)) = (&mut self.current, &self.token, self.caller.account())
        else {
            return std::future::pending().await;
        };
        // Fails when the server has gone, and with it the stream.
        if current.wait_for(|now| now.tokens.account(token) != Some(account)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Files {
    fn read(directory: &Path) -> Result<Self, CredentialError> {
        let needed = |name: &str| match read(&directory.join(name)) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(wrong(&directory.join(name), "it is missing")),
            Err(error) => Err(error),
        };
        Ok(Self {
            certificate: needed(CERTIFICATE)?,
            key: needed(KEY)?,
            authorities: read(&directory.join(AUTHORITIES))?,
            tokens: read(&directory.join(TOKENS))?,
        })
    }
}

/// A file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialError> {
    let failed = |error: std::io::Error| wrong(path, error.to_string());
    match std::fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES => Err(wrong(path, format!("it has more than {FILE_BYTES} bytes"))),
        Ok(_) => std::fs::read(path).map(Some).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn wrong(path: &Path, reason: impl Into<String>) -> CredentialError {
    CredentialError { file: path.display().to_string(), reason: reason.into() }
}

impl InForce {
    fn of(directory: &Path, files: Files, is_reviewed: bool) -> Result<Self, CredentialError> {
        let at = |name: &str| -> PathBuf { directory.join(name) };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&at(CERTIFICATE), &files.certificate)?;
        let ends = ends(&chain[0]).ok_or_else(|| wrong(&at(CERTIFICATE), "its certificate cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| wrong(&at(KEY), "it holds no key in PEM"))?;
        let clients = files.authorities.as_deref().map(|pem| authorities(&at(AUTHORITIES), pem, &provider));
        let clients = clients.transpose()?;
        let tokens = files.tokens.as_deref().map_or(Ok(Tokens::default()), |text| {
            let text = std::str::from_utf8(text).map_err(|_| wrong(&at(TOKENS), "it is no UTF-8"))?;
            Tokens::read(text).map_err(|reason| wrong(&at(TOKENS), reason))
        })?;
        if clients.is_none() && tokens.count() == 0 && !is_reviewed {
            return Err(wrong(
                directory,
                format!("no gateway can be let in: there is neither {AUTHORITIES} nor {TOKENS}"),
            ));
        }
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| wrong(directory, error.to_string()))?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let tls = builder.with_single_cert(chain, key);
        let mut tls = tls.map_err(|error| wrong(&at(KEY), format!("it does not serve with {CERTIFICATE}: {error}")))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { files, tls: Arc::new(tls), clients, tokens, ends })
    }
}

/// The certificates of a file, at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| wrong(path, format!("a certificate cannot be read: {error}")))?;
    if all.is_empty() {
        return Err(wrong(path, "it holds no certificate in PEM"));
    }
    Ok(all)
}

/// Accepts clients without a certificate too, so that they are told why they get nothing.
fn authorities(
    path: &Path,
    pem: &[u8],
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CredentialError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| wrong(path, format!("a certificate is no authority: {error}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    verifier.allow_unauthenticated().build().map_err(|error| wrong(path, error.to_string()))
}

/// When a certificate ends, in seconds since 1970.
fn ends(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

    use super::*;

    /// An authority, a directory of credentials under it, and what it signs for a gateway.
    struct Signer {
        certificate: rcgen::Certificate,
        key: KeyPair,
    }

    impl Signer {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self { certificate: params.self_signed(&key).unwrap(), key }
        }

        /// An authority below this one that has so many seconds left.
        fn authority(&self, seconds: u64) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, "between");
            let left = SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(seconds);
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + left;
            let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key).unwrap();
            Self { certificate: params.signed_by(&key, &issuer).unwrap(), key }
        }

        /// A certificate of a gateway that has so many seconds left.
        fn gateway(&self, seconds: u64) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            let names = ["spiffe://c1/ns/edge/sa/web"];
            params.subject_alt_names = names.map(|name| SanType::URI(name.try_into().unwrap())).to_vec();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let left = SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(seconds);
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + left;
            let key = KeyPair::generate().unwrap();
            let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key).unwrap();
            params.signed_by(&key, &issuer).unwrap().der().clone()
        }

        fn serve(&self, directory: &Path) {
            std::fs::write(directory.join(CERTIFICATE), self.certificate.pem()).unwrap();
            std::fs::write(directory.join(KEY), self.key.serialize_pem()).unwrap();
            std::fs::write(directory.join(AUTHORITIES), self.certificate.pem()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_outlives_neither_its_certificate_nor_its_authority() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::new();
        signer.serve(directory.path());
        let credentials = Credentials::open(directory.path()).unwrap();
        let web = signer.gateway(3600);
        assert_eq!(
            Shown::by(std::slice::from_ref(&web)),
            Shown::Account(account_of_uri("spiffe://c1/ns/edge/sa/web").unwrap())
        );

        credentials.clone().outlived(vec![signer.gateway(1)]).await;
        // Nor one of those between the two.
        let between = signer.authority(2);
        let chain = vec![between.gateway(3600), between.certificate.der().clone()];
        let ended = tokio::time::timeout(Duration::from_secs(20), credentials.clone().outlived(chain)).await;
        assert!(ended.is_ok(), "it lasts longer than who signed for it");

        let mut lasting = Box::pin(credentials.clone().outlived(vec![web]));
        tokio::select! {
            biased;
            () = &mut lasting => panic!("it ends too early"),
            () = std::future::ready(()) => {}
        }
        Signer::new().serve(directory.path());
        tokio::select! {
            () = credentials.follow() => {}
            () = lasting => {}
        }
    }

    #[test]
    fn a_token_is_taken_with_its_scheme_or_without() {
        for (value, expected) in [("Bearer x", "x"), ("bearer  x", " x"), ("x", "x"), ("Basic x", "Basic x"), ("", "")]
        {
            assert_eq!(token(value.as_bytes()), expected.as_bytes(), "{value}");
        }
    }
}
