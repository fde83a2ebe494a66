//! Authorization servers: one speaks Envoy's authorization protocol over gRPC and plain HTTP, on one port, keeps what it
//! was asked, and decides by a function of the test.
//!
//! It can be stopped and started again where it was, and be made to hold its answers back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::service::auth::v3 as auth_pb;
use envoy_types::pb::envoy::r#type::v3 as type_pb;
use envoy_types::pb::google::rpc;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tonic::codegen::Service as _;

use auth_pb::authorization_server::{Authorization, AuthorizationServer};
use auth_pb::check_response::HttpResponse;

/// What an authorization server is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Envoy's authorization protocol.
    Grpc,
    /// A request like the client's.
    Http,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// How it came.
    pub(crate) by: Asked,
    /// Method of the client's request.
    pub(crate) method: String,
    /// Its host.
    pub(crate) host: String,
    /// Its path and query; over HTTP behind the prefix, or replaced.
    pub(crate) path: String,
    /// Its headers as they were passed on, names in lower case; several of one name are joined.
    pub(crate) headers: BTreeMap<String, String>,
    /// Its body as far as it was passed on.
    pub(crate) body: Bytes,
    /// What the policy tells the server; gRPC alone.
    pub(crate) context: BTreeMap<String, String>,
    /// Names of the filters whose findings were passed on; gRPC alone.
    pub(crate) metadata: Vec<String>,
}

impl Check {
    /// A header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// 200 lets the request pass; anything else is the client's answer.
    pub(crate) status: u16,
    /// For the backend where the request passes, else for the client.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Headers that the backend must not get; gRPC alone.
    pub(crate) removed: Vec<&'static str>,
    /// For the client.
    pub(crate) body: String,
    /// Before the answer.
    pub(crate) delay: Duration,
}

impl Verdict {
    /// The request passes.
    pub(crate) fn pass() -> Self {
        Self { status: 200, headers: Vec::new(), removed: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }

    /// The request is refused.
    pub(crate) fn refuse(status: u16) -> Self {
        Self { status, ..Self::pass() }
    }

    /// The same with one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Judge = dyn Fn(&Check) -> Verdict + Send + Sync;

/// A running authorization server; stops, connections included, when dropped.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    desk: Desk,
    task: AbortHandle,
}

impl Authorizer {
    /// Starts a server on an address; port 0 lets the system pick. It listens when this returns.
    pub(crate) async fn start(
        address: SocketAddr,
        judge: impl Fn(&Check) -> Verdict + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let desk = Desk { judge: Arc::new(judge), checks: Arc::default(), is_held: watch::Sender::new(false) };
        let (address, task) = listen(address, &desk).await?;
        Ok(Self { address, desk, task })
    }

    /// All that it was asked, in order.
    pub(crate) fn checks(&self) -> Vec<Check> {
        self.desk.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.desk.checks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The last that it was asked.
    pub(crate) fn last(&self) -> anyhow::Result<Check> {
        self.checks().pop().context("nobody has asked the authorization server")
    }

    /// Holds answers back until [`Authorizer::release`].
    pub(crate) fn hold(&self) {
        self.desk.is_held.send_replace(true);
    }

    /// Answers all that is held back, and what comes.
    pub(crate) fn release(&self) {
        self.desk.is_held.send_replace(false);
    }

    /// Ends it, with its connections.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.task = listen(self.address, &self.desk).await?.1;
        Ok(())
    }
}

impl Drop for Authorizer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: SocketAddr, desk: &Desk) -> anyhow::Result<(SocketAddr, AbortHandle)> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("the authorization server cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((address, tokio::spawn(serve(listener, desk.clone())).abort_handle()))
}

/// Who answers.
#[derive(Clone)]
struct Desk {
    judge: Arc<Judge>,
    checks: Arc<Mutex<Vec<Check>>>,
    is_held: watch::Sender<bool>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl Desk {
    async fn decide(&self, check: Check) -> Verdict {
        let verdict = (self.judge)(&check);
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).push(check);
        tokio::time::sleep(verdict.delay).await;
        // The sender is never dropped before its receivers.
        let _ = self.is_held.subscribe().wait_for(|is_held| !is_held).await;
        verdict
    }
}

async fn serve(listener: TcpListener, desk: Desk) {
    // Connections live in the set, so that they end with the task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, desk.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, desk: Desk) {
    // Without this, small answers wait for the peer's delayed acknowledgement. A failure only costs speed.
    let _ = stream.set_nodelay(true);
    let server = AuthorizationServer::new(desk.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut server, desk) = (server.clone(), desk.clone());
        async move {
            let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            if kind.starts_with(b"application/grpc") {
                return server.call(request).await;
            }
            Ok::<_, Infallible>(over_http(request, &desk).await)
        }
    });
    // A gateway that goes away in the middle is not this server's business.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn over_http(request: hyper::Request<Incoming>, desk: &Desk) -> hyper::Response<tonic::body::Body> {
    let (head, body) = request.into_parts();
    let host = head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let check = Check {
        by: Asked::Http,
        method: head.method.to_string(),
        host: host.or_else(|| head.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: joined(&head.headers),
        body: body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
        context: BTreeMap::new(),
        metadata: Vec::new(),
    };
    let verdict = desk.decide(check).await;
    let mut response = hyper::Response::new(tonic::body::Body::new(Full::from(verdict.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(verdict.status).unwrap_or_default();
    for (name, value) in verdict.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|joined| *joined = format!("{joined}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    all
}

#[tonic::async_trait]
impl Authorization for Desk {
    async fn check(
        &self,
        request: tonic::Request<auth_pb::CheckRequest>,
    ) -> Result<tonic::Response<auth_pb::CheckResponse>, tonic::Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.unwrap_or_default().http.unwrap_or_default();
        let body = if http.raw_body.is_empty() { http.body.into_bytes() } else { http.raw_body };
        let mut metadata: Vec<String> =
            attributes.metadata_context.unwrap_or_default().filter_metadata.into_keys().collect();
        metadata.sort();
        let check = Check {
            by: Asked::Grpc,
            method: http.method,
            host: http.host,
            path: http.path,
            headers: http.headers.into_iter().collect(),
            body: body.into(),
            context: attributes.context_extensions.into_iter().collect(),
            metadata,
        };
        Ok(tonic::Response::new(check_response(self.decide(check).await)))
    }
}

fn check_response(verdict: Verdict) -> auth_pb::CheckResponse {
    use core_pb::header_value_option::HeaderAppendAction;
    let headers = verdict.headers.iter().map(|(name, value)| core_pb::HeaderValueOption {
        header: Some(core_pb::HeaderValue { key: (*name).to_owned(), value: value.clone(), ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    });
    let headers = headers.collect();
    // 7 is `PERMISSION_DENIED`.
    let (code, answer) = match verdict.status {
        200 => {
            let headers_to_remove = verdict.removed.iter().map(|name| (*name).to_owned()).collect();
            (0, HttpResponse::OkResponse(auth_pb::OkHttpResponse { headers, headers_to_remove, ..Default::default() }))
        }
        status => {
            let status = Some(type_pb::HttpStatus { code: i32::from(status) });
            (7, HttpResponse::DeniedResponse(auth_pb::DeniedHttpResponse { status, headers, body: verdict.body }))
        }
    };
    auth_pb::CheckResponse {
        status: Some(rpc::Status { code, ..Default::default() }),
        http_response: Some(answer),
        ..Default::default()
    }
}
