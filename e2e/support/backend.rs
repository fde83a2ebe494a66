//! Echo backends: servers that answer who they are and what they received.
//!
//! HTTP/1.1 and, with prior knowledge, HTTP/2 on one port. `echo.rs` is the same as a program.
//!
//! A request's query may ask for a bad answer; such requests are counted by path and query ([`Backend::tries`]):
//!
//! | parameter | effect |
//! |---|---|
//! | `delay=300` | the answer comes after so many milliseconds |
//! | `fail=2` | the first two requests of this path and query get 503 |
//! | `unavailable=2` | the first two have `grpc-status: 14` in the answer |
//!
//! A backend that knows where hosts lead plays an app that calls another one: `call=recs.mesh` asks that host, from the backend's own
//! address, and has what came of it in the answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Who a backend is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Cluster that it stands for.
    pub(crate) cluster: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Service that it is an endpoint of.
    pub(crate) service: String,
    /// Pod; the address where no Pod is named.
    pub(crate) pod: String,
    /// The Pod's `version` label; empty without one.
    pub(crate) version: String,
}

impl Identity {
    /// `cluster/namespace/service`, as the scenarios name backends.
    pub(crate) fn backend(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.service)
    }
}

/// What a backend answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Echo {
    /// Who answers.
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Address that the backend listens on.
    pub(crate) address: SocketAddr,
    /// Which request of this backend it was, counted from 1.
    pub(crate) count: u64,
    /// Method received.
    pub(crate) method: String,
    /// Host received.
    pub(crate) host: String,
    /// Path and query received.
    pub(crate) path: String,
    /// Protocol received, `HTTP/1.1` or `HTTP/2.0`.
    pub(crate) protocol: String,
    /// Headers received, names in lower case; several lines of one name are joined.
    pub(crate) headers: BTreeMap<String, String>,
    /// What came of the call that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) called: Option<Called>,
}

/// What came of a call of another app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Called {
    /// The host that was asked.
    pub(crate) host: String,
    /// The status; 0 if there was no answer.
    pub(crate) status: u16,
    /// Who answered; none if it was no app.
    pub(crate) by: Option<Identity>,
    /// What was wrong; empty if nothing was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

/// Where the hosts lead that a backend may call.
pub(crate) type Leads = BTreeMap<String, SocketAddr>;

/// A running echo backend; stops, connections included, when dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    count: Arc<AtomicU64>,
    tries: Arc<Mutex<BTreeMap<String, u64>>>,
    task: AbortHandle,
}

impl Backend {
    /// Starts a backend on an address; port 0 lets the system pick. It listens when this returns.
    pub(crate) async fn start(identity: Identity, address: SocketAddr) -> anyhow::Result<Self> {
        Self::start_app(identity, address, Leads::new()).await
    }

    /// The same for an app that calls others.
    pub(crate) async fn start_app(identity: Identity, address: SocketAddr, leads: Leads) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("the backend {} cannot listen on {address}; is something else there?", identity.backend())
        })?;
        let address = listener.local_addr()?;
        let count = Arc::new(AtomicU64::new(0));
        let tries = Arc::default();
        let echo =
            Echoer { identity: identity.clone(), address, count: Arc::clone(&count), tries: Arc::clone(&tries), leads };
        let task = tokio::spawn(serve(listener, Arc::new(echo))).abort_handle();
        Ok(Self { identity, address, count, tries, task })
    }

    /// How often it has received a path and query that ask for a bad answer.
    pub(crate) fn tries(&self, path: &str) -> u64 {
        self.tries.lock().ok().and_then(|tries| tries.get(path).copied()).unwrap_or_default()
    }

    /// How many requests it has received.
    pub(crate) fn requests(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Echoer {
    identity: Identity,
    address: SocketAddr,
    count: Arc<AtomicU64>,
    tries: Arc<Mutex<BTreeMap<String, u64>>>,
    leads: Leads,
}

async fn serve(listener: TcpListener, echo: Arc<Echoer>) {
    // Connections live in the set, so that they end with the task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, Arc::clone(&echo)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, echo: Arc<Echoer>) {
    // Without this, small responses wait for the peer's delayed acknowledgement. A failure only costs speed.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let echo = Arc::clone(&echo);
        async move {
            let bad = echo.bad_answer(&request);
            let called = echo.call(&request).await;
            let mut response = echo.answer(&request, called);
            // The one thing that this server is asked to do: to be slow.
            tokio::time::sleep(bad.delay).await;
            if bad.fails {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            if bad.is_unavailable {
                response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    // A client that goes away in the middle is not this server's business.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// What a request's query asks for.
#[derive(Clone, Copy, Debug, Default)]
struct BadAnswer {
    delay: Duration,
    fails: bool,
    is_unavailable: bool,
}

impl Echoer {
    fn bad_answer(&self, request: &hyper::Request<Incoming>) -> BadAnswer {
        let number = |wanted: &str| {
            let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == wanted).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let (delay, fail, unavailable) = (number("delay"), number("fail"), number("unavailable"));
        if delay.or(fail).or(unavailable).is_none() {
            return BadAnswer::default();
        }
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let tries = self.tries.lock().map_or(0, |mut tries| {
            let tries = tries.entry(path).or_default();
            *tries += 1;
            *tries
        });
        BadAnswer {
            delay: Duration::from_millis(delay.unwrap_or_default()),
            fails: fail.is_some_and(|first| tries <= first),
            is_unavailable: unavailable.is_some_and(|first| tries <= first),
        }
    }

    /// Calls the host that a request asks for; none if it asks for none.
    async fn call(&self, request: &hyper::Request<Incoming>) -> Option<Called> {
        let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let (_, host) = pairs.into_iter().find(|(name, _)| *name == "call")?;
        let asked = async {
            let address = *self.leads.get(host).context("nobody told where this host leads")?;
            ask(self.address.ip(), address, host).await
        };
        let host = host.to_owned();
        Some(match asked.await {
            Ok((status, by)) => Called { host, status, by, error: String::new() },
            Err(error) => Called { host, status: 0, by: None, error: format!("{error:#}") },
        })
    }

    fn answer(&self, request: &hyper::Request<Incoming>, called: Option<Called>) -> hyper::Response<Full<Bytes>> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in request.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str().to_owned())
                .and_modify(|joined| *joined = format!("{joined}, {value}"))
                .or_insert_with(|| value.into_owned());
        }
        let host = request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let echo = Echo {
            identity: self.identity.clone(),
            address: self.address,
            count: self.count.fetch_add(1, Ordering::Relaxed) + 1,
            method: request.method().to_string(),
            host: host.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default(),
            path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            protocol: format!("{:?}", request.version()),
            headers,
            called,
        };
        let body = serde_json::to_vec(&echo).unwrap_or_default();
        let mut response = hyper::Response::new(Full::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// One GET from an address; the status, and which app answered.
async fn ask(from: IpAddr, to: SocketAddr, host: &str) -> anyhow::Result<(u16, Option<Identity>)> {
    let socket = TcpSocket::new_v4()?;
    // By its address a gateway knows whose Pod calls.
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await.with_context(|| format!("connect to {to}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/").header(HOST, host).body(Full::<Bytes>::default())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice::<Echo>(&body).ok().map(|echo| echo.identity)))
    };
    tokio::select! {
        answer = asked => answer,
        ended = connection => Err(ended.err().map_or_else(|| anyhow::anyhow!("no answer"), Into::into)),
    }
}
