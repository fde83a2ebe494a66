//! The admin port: health, readiness, metrics and the log level over HTTP, our own API over gRPC.
//!
//! | path | is |
//! |---|---|
//! | `GET /healthz` | the process is alive |
//! | `GET /readyz` | sources are in sync and a first compile is done; else 503, naming what is missing; `degraded=stale` where they no longer are |
//! | `GET /metrics` | Prometheus' text format, or `OpenMetrics` where `Accept` asks for it |
//! | `GET /logging` | the log filter in force |
//! | `POST /logging?filter=…` | another log filter, until the process ends; with the header `X-Chancery: 1` |
//! | gRPC `chancery.v1.Live` | `proto/chancery/v1/live.proto` |
//! | gRPC `grpc.health.v1.Health` | the standard health service |
//!
//! No GET changes anything. Peers that are not on this host get health, readiness and metrics alone; everything else says
//! who runs what here, and asks for no credential. The address of the peer counts, not the one that was bound.
//!
//! A browser on this host is such a peer, and runs what web pages send it. So beyond those three, what a page causes is
//! refused: requests with an `Origin`, and those for a `Host` that is a name other than `localhost`, which may have been
//! made to mean this host. What changes something also needs a header that no page can send without being asked first.
//!
//! # Rule
//! `reliability.md` section 4, CVE-2020-15127.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::pb::live_server::SERVICE_NAME;
use crate::api::{self, Sources};
use crate::model::Name;
use crate::source::kubernetes::Since;
use crate::telemetry::metrics::Exposition;
use crate::telemetry::{Logging, LoggingError};

/// What peers beyond loopback may ask.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The header that whatever changes something must have.
const OURS: &str = "x-chancery";

/// Longest log filter in bytes: about twenty modules.
const FILTER_BYTES: usize = 1024;

/// How long answers have to end when the server stops: somebody who watches the health service never ends by himself.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is ready, and then until answers have ended or had their time.
///
/// `services` are gRPC services of other modules that belong on this port.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    logging: Logging,
    services: Routes,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), std::io::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let readiness = report_readiness(reporter, sources.clone());
    let services = services.add_service(health).add_service(api::service::server(sources.clone()));
    let router = router(sources, logging, services);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // The receiver lives as long as this server.
        let _ = stopping.send(());
    };
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown)
        .into_future();
    let drained = async {
        let _ = stopped.await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served,
        () = drained => Ok(()),
        never = readiness => match never {},
    }
}

/// Tells the health service when there is something to serve; then rests.
async fn report_readiness(reporter: HealthReporter, mut sources: Sources) -> std::convert::Infallible {
    for service in ["", SERVICE_NAME] {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    // An error means that the program ends.
    if sources.compiled.wait_for(Option::is_some).await.is_ok() {
        for service in ["", SERVICE_NAME] {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
    }
    std::future::pending().await
}

/// All paths, behind the guard.
fn router(sources: Sources, logging: Logging, services: Routes) -> Router {
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(sources);
    let logs = Router::new().route("/logging", get(filter_in_force).post(change_filter)).with_state(logging);
    services
        .into_axum_router()
        .merge(pages)
        .merge(logs)
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "this path has other methods\n") })
        .fallback(nothing_here)
        .layer(middleware::from_fn(guard))
}

/// Lets peers of other hosts, and web pages, see health, readiness and metrics alone.
async fn guard(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let reason = if !is_own_host(peer.ip()) {
        "only /healthz, /readyz and /metrics are served beyond loopback: ask from the host itself, for \
         instance through `kubectl port-forward` or ssh"
    } else if request.headers().contains_key(header::ORIGIN) {
        "web pages are served /healthz, /readyz and /metrics only: ask without the header `Origin`"
    } else if !names_own_host(&request) {
        "only /healthz, /readyz and /metrics are served under any host name: ask for `localhost` or an address"
    } else {
        return next.run(request).await;
    };
    if is_grpc(request.headers()) {
        return tonic::Status::permission_denied(reason).into_http();
    }
    (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response()
}

fn is_own_host(peer: IpAddr) -> bool {
    // An IPv6 socket sees IPv4 peers mapped.
    peer.to_canonical().is_loopback()
}

/// Whether a request is for an address or `localhost`, or says nothing. A name that a page was loaded from may have been made
/// to mean this host since.
fn names_own_host(request: &Request) -> bool {
    let written = request.headers().get_all(header::HOST).iter();
    let written = written.map(|host| host.to_str().ok().and_then(|host| host.parse().ok()));
    let mut stated = written.chain(request.uri().authority().cloned().map(Some));
    stated.all(|authority: Option<Authority>| {
        authority.is_some_and(|authority| {
            let host = authority.host();
            let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
        })
    })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("application/grpc"))
}

async fn nothing_here(headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        return tonic::Status::unimplemented("this port has no such service").into_http();
    }
    let pages = "there are /healthz, /readyz, /metrics and /logging, and gRPC: chancery.v1.Live and health";
    (StatusCode::NOT_FOUND, format!("nothing is here; {pages}\n")).into_response()
}

async fn readyz(State(sources): State<Sources>) -> (StatusCode, String) {
    match sources.compiled() {
        Ok(_) => (StatusCode::OK, ready(&sources.stale())),
        Err(missing) => {
            let more: String = sources.missing().iter().map(|missing| format!("{missing}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n{more}"))
        }
    }
}

/// The first line says that it is ready; what is served is not known to be what API servers hold where others follow.
fn ready(stale: &BTreeMap<Name, Since>) -> String {
    let mut text = "ready\n".to_owned();
    if !stale.is_empty() {
        text.push_str("degraded=stale\n");
    }
    for (cluster, since) in stale {
        let what = if since.is_recalled { "is served as it was kept at" } else { "is not followed since" };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "cluster `{cluster}` {what} {:.0}: {}", since.at, since.reason);
    }
    text
}

async fn metrics(State(sources): State<Sources>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let exposition = Exposition::accepted(accept);
    match tokio::task::spawn_blocking(move || api::metering::write(&sources, exposition)).await {
        Ok(text) => ([(header::CONTENT_TYPE, exposition.content_type())], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no metrics; this is a fault of Chancery\n").into_response(),
    }
}

async fn filter_in_force(State(logging): State<Logging>) -> Response {
    told(logging.in_force())
}

#[derive(Deserialize)]
struct Change {
    filter: Option<String>,
}

async fn change_filter(State(logging): State<Logging>, headers: HeaderMap, Query(change): Query<Change>) -> Response {
    if headers.get(OURS).is_none_or(|value| value != "1") {
        return (StatusCode::FORBIDDEN, "only with the header `X-Chancery: 1`, which web pages cannot send\n")
            .into_response();
    }
    let Some(filter) = change.filter.filter(|filter| !filter.is_empty()) else {
        return (StatusCode::BAD_REQUEST, "say what to log: POST /logging?filter=info,chancery::xds=debug\n")
            .into_response();
    };
    if filter.len() > FILTER_BYTES {
        return (StatusCode::BAD_REQUEST, format!("a filter has at most {FILTER_BYTES} bytes\n")).into_response();
    }
    if let Err(error) = logging.change(&filter) {
        return told(Err(error));
    }
    tracing::info!(%filter, "the log filter changed");
    told(logging.in_force())
}

fn told(filter: Result<String, LoggingError>) -> Response {
    match filter {
        Ok(filter) => format!("{filter}\n").into_response(),
        Err(error @ LoggingError::Meaningless(_)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        Err(error @ LoggingError::Fixed) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
