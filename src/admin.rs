//! Health and readiness over HTTP.
//!
//! `/healthz` says that the process is alive; `/readyz` that sources are in sync and a first compile is done, naming what
//! is missing. No GET changes anything.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::compile::Compiled;

/// Serves until `shutdown` is ready.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    state: watch::Receiver<Option<Arc<Compiled>>>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), std::io::Error> {
    let ready = move || async move {
        if state.borrow().is_some() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the first compile is not done\n")
        }
    };
    let router = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}
