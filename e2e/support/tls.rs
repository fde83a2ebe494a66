//! TLS for tests: an authority, certificates that it signs, clients that trust it, and a backend that ends TLS itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;

use super::http::Protocol;
use super::wait::PATIENCE;

/// Accepts a server whose certificate a root signed, whatever names are in it: gateways are called by address, and their
/// names are no hosts.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error};
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// The key.
    pub(crate) key: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a host. The common name tells certificates of one host apart.
    pub(crate) fn sign(&self, host: &str, common_name: &str) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A certificate for a user of an API server who is in a group.
    pub(crate) fn sign_user(&self, name: &str, group: &str) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A certificate for a host that ended long ago.
    pub(crate) fn sign_ended(&self, host: &str) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A certificate for who a URI names, as workloads of a mesh have it.
    pub(crate) fn sign_uri(&self, uri: &str) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// A client that trusts this authority and shows a certificate, or none.
    pub(crate) fn dial(&self, server_name: &str, shows: Option<&Pair>, protocol: Protocol) -> anyhow::Result<Dial> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (chain, key) = pair.parsed()?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![alpn(protocol)];
        // Each connection is a handshake of its own, so that what is shown is what is in force.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Dial { config: Arc::new(config), server_name: ServerName::try_from(server_name.to_owned())? })
    }
}

fn alpn(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Http1 => b"http/1.1".to_vec(),
        Protocol::Http2 => b"h2".to_vec(),
    }
}

impl Pair {
    /// A Secret of the management cluster's form, as a gateway needs it.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"namespace": namespace, "name": name},
            "stringData": {"tls.crt": self.certificate, "tls.key": self.key},
        })
    }

    fn parsed(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes())?))
    }
}

/// How to open TLS connections.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Dial {
    /// A client that trusts a root, given in PEM, whatever the server is called, and shows a certificate, or none.
    pub(crate) fn under(root: &str, shows: Option<&Pair>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(verifier)));
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (chain, key) = pair.parsed()?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![alpn(Protocol::Http1)];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config), server_name: ServerName::try_from("gateway.example")? })
    }

    /// The same, asking for another server name, or for none, to speak a protocol.
    pub(crate) fn asking(mut self, server_name: Option<&str>, protocol: Protocol) -> anyhow::Result<Self> {
        let config = Arc::make_mut(&mut self.config);
        config.enable_sni = server_name.is_some();
        config.alpn_protocols = vec![alpn(protocol)];
        if let Some(name) = server_name {
            self.server_name = ServerName::try_from(name.to_owned())?;
        }
        Ok(self)
    }

    /// The certificate that is shown at an address, in DER.
    pub(crate) async fn certificate(&self, address: SocketAddr) -> anyhow::Result<Vec<u8>> {
        let stream = self.over(TcpStream::connect(address).await?).await?;
        let (_, connection) = stream.get_ref();
        let first = connection.peer_certificates().and_then(<[_]>::first).context("no certificate is shown")?;
        Ok(first.to_vec())
    }

    /// The URIs in the certificate that is shown at an address.
    pub(crate) async fn uris(&self, address: SocketAddr) -> anyhow::Result<Vec<String>> {
        uris(&self.certificate(address).await?)
    }

    /// Opens TLS on a connection.
    pub(crate) async fn over(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(self.server_name.clone(), stream).await.context("TLS handshake")
    }

    /// Why the server at an address refuses who dials. With TLS 1.3 it says so when the client thinks that all is done.
    ///
    /// # Errors
    /// It refuses nobody, or says nothing.
    pub(crate) async fn refusal(&self, address: SocketAddr) -> anyhow::Result<String> {
        let mut stream = match self.over(TcpStream::connect(address).await?).await {
            Ok(stream) => stream,
            Err(error) => return Ok(format!("{error:#}")),
        };
        let mut byte = [0];
        match tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.context("it waits for a request")? {
            Ok(_) => bail!("it says nothing"),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// The common name of the certificate that is shown at an address.
    pub(crate) async fn shown(&self, address: SocketAddr) -> anyhow::Result<String> {
        common_name(&self.certificate(address).await?).context("no common name")
    }
}

/// How a client came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The name that it asked for.
    pub(crate) server_name: Option<String>,
    /// The common name of its certificate.
    pub(crate) client: Option<String>,
}

/// A server that ends TLS and passes the rest on to a backend; stops, connections included, when dropped.
#[derive(Debug)]
pub(crate) struct TlsFront {
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    /// The URIs in the certificates of clients.
    identities: Arc<Mutex<Vec<Vec<String>>>>,
    /// Why others did not get in.
    refusals: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl TlsFront {
    /// Starts it on an address. It listens when this returns.
    pub(crate) async fn start(address: SocketAddr, pair: &Pair, backend: SocketAddr) -> anyhow::Result<Self> {
        Self::start_under(address, pair, None, backend).await
    }

    /// The same for clients with a certificate that an authority signed, if one is given.
    pub(crate) async fn start_asking(
        address: SocketAddr,
        pair: &Pair,
        clients: Option<&Authority>,
        backend: SocketAddr,
    ) -> anyhow::Result<Self> {
        Self::start_under(address, pair, clients.map(Authority::pem).as_deref(), backend).await
    }

    /// The same for clients under a root, given in PEM.
    pub(crate) async fn start_under(
        address: SocketAddr,
        pair: &Pair,
        clients: Option<&str>,
        backend: SocketAddr,
    ) -> anyhow::Result<Self> {
        let (chain, key) = pair.parsed()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(root.as_bytes())?)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key)?));
        let listener = TcpListener::bind(address).await?;
        let handshakes: Arc<Mutex<Vec<Handshake>>> = Arc::default();
        let identities: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
        let refusals: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, known, refused) = (Arc::clone(&handshakes), Arc::clone(&identities), Arc::clone(&refusals));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let (acceptor, seen, known) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&known));
                        let refused = Arc::clone(&refused);
                        connections.spawn(async move {
                            let mut front = acceptor.accept(stream).await.inspect_err(|error| {
                                refused.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                            })?;
                            let connection = front.get_ref().1;
                            let server_name = connection.server_name().map(ToOwned::to_owned);
                            let shown = connection.peer_certificates().and_then(<[_]>::first);
                            let client = shown.and_then(|certificate| common_name(certificate));
                            let named = shown.and_then(|certificate| uris(certificate).ok()).unwrap_or_default();
                            known.lock().unwrap_or_else(PoisonError::into_inner).push(named);
                            seen.lock().unwrap_or_else(PoisonError::into_inner).push(Handshake { server_name, client });
                            let mut back = TcpStream::connect(backend).await?;
                            tokio::io::copy_bidirectional(&mut front, &mut back).await
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { handshakes, identities, refusals, task: task.abort_handle() })
    }

    /// Why others did not get in, in order.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The URIs in the certificates of those who came in so far, in order; none for who showed none.
    pub(crate) fn identities(&self) -> Vec<Vec<String>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who came in so far, in order.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The URIs in a certificate.
fn uris(certificate: &[u8]) -> anyhow::Result<Vec<String>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    let names = certificate.subject_alternative_name()?.context("no names")?;
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(uri).collect())
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(ToOwned::to_owned)
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
