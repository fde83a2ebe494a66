//! A small HTTP client: where a request goes and which host it names are two things.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;

use super::tls::Dial;

/// How long one exchange may take; nothing under test is slower than a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method, `GET` unless stated.
    pub(crate) method: String,
    /// Host header, or `:authority`.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: String,
    /// Further headers, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// Body, empty unless stated.
    pub(crate) body: Bytes,
}

impl Request {
    /// A GET.
    pub(crate) fn get(host: &str, path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// The same request with one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same request with a body.
    pub(crate) fn with_body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }
}

/// One complete response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Status.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
}

impl Response {
    /// All values of a header, joined as one field line; none if the header is absent.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// Which protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// One connection to one address; opened on first use and again after the server closed it.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Dial>,
    /// The address that its connections come from, if not the system's choice.
    source: Option<Ipv4Addr>,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    driver: AbortHandle,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// A client of an address, HTTP/1.1.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::speaking(address, Protocol::Http1)
    }

    /// A client of an address.
    pub(crate) fn speaking(address: SocketAddr, protocol: Protocol) -> Self {
        Self { address, protocol, tls: None, source: None, connection: None }
    }

    /// A client whose connections come from an address of its own, HTTP/1.1.
    pub(crate) fn from(source: Ipv4Addr, address: SocketAddr) -> Self {
        Self { source: Some(source), ..Self::new(address) }
    }

    /// A client that opens its connections with TLS.
    pub(crate) fn with_tls(address: SocketAddr, protocol: Protocol, dial: Dial) -> Self {
        Self { address, protocol, tls: Some(dial), source: None, connection: None }
    }

    /// Sends a request and reads the whole response.
    pub(crate) async fn send(&mut self, request: &Request) -> anyhow::Result<Response> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(request)).await;
        let what = || format!("{} http://{}{} at {}", request.method, request.host, request.path, self.address);
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let what = what();
                self.connection = None;
                Err(error.context(what))
            }
            Err(_) => {
                let what = what();
                self.connection = None;
                anyhow::bail!("{what}: no answer within {TIMEOUT:?}")
            }
        }
    }

    async fn exchange(&mut self, request: &Request) -> anyhow::Result<Response> {
        let outgoing = build(request, self.protocol)?;
        let sender = self.sender().await?;
        let response = match sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(outgoing).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(outgoing).await?
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("read body")?.to_bytes();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn sender(&mut self) -> anyhow::Result<&mut Sender> {
        let usable = self.connection.as_ref().is_some_and(|connection| !connection.sender.is_closed());
        if !usable {
            self.connection = None;
            let stream = connect(self.source, self.address).await.context("connect")?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Duplex> = match &self.tls {
                None => Box::new(stream),
                Some(dial) => Box::new(dial.over(stream).await?),
            };
            let io = TokioIo::new(stream);
            // How a connection ends is seen by the request that is on it.
            let (sender, driver) = match self.protocol {
                Protocol::Http1 => {
                    let (sender, connection) = http1::handshake(io).await?;
                    (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }).abort_handle())
                }
                Protocol::Http2 => {
                    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                    (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }).abort_handle())
                }
            };
            self.connection = Some(Connection { sender, driver });
        }
        self.connection.as_mut().map(|connection| &mut connection.sender).context("no connection")
    }
}

/// Connects from an address, or from any.
pub(crate) async fn connect(source: Option<Ipv4Addr>, address: SocketAddr) -> std::io::Result<TcpStream> {
    match source {
        None => TcpStream::connect(address).await,
        Some(source) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((source, 0)))?;
            socket.connect(address).await
        }
    }
}

/// A connection, with TLS or without.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Response> {
    Client::new(address).send(&Request::get(host, path)).await
}

fn build(request: &Request, protocol: Protocol) -> anyhow::Result<hyper::Request<Full<Bytes>>> {
    let uri = match protocol {
        Protocol::Http1 => request.path.clone(),
        Protocol::Http2 => format!("http://{}{}", request.host, request.path),
    };
    let outgoing = hyper::Request::builder().method(request.method.as_str()).uri(uri);
    let mut outgoing = outgoing.body(Full::from(request.body.clone()))?;
    let headers = outgoing.headers_mut();
    if protocol == Protocol::Http1 {
        headers.insert(hyper::header::HOST, HeaderValue::from_str(&request.host)?);
    }
    for (name, value) in &request.headers {
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(outgoing)
}
