//! tonic and tokio: accepts connections and starts a task per stream. It owns no rule.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::http::Response;
use tonic::codegen::http::request::Parts;

use super::commons::Commons;
use super::credentials::Admitted;
use super::door::{self, Arrival};
use super::grpc::{Requests, Responses, Rooms};
use super::inspection::Sessions;
use super::lobby::{Lobby, Shares};
use super::observation::{Observer, Reason, StreamId};
use super::session::SessionSettings;
use super::slot;
use super::source::SnapshotSource;
use super::spread;
use super::stream::Stream;
use super::turnstile::Turnstile;
use super::wire::Protocol;
use crate::snapshot::ResourceType;

pub use super::door::Access;

mod services;

/// The largest request that can be allowed. One request that nothing is known of is decoded into about three times its
/// size.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// Bytes of header lists; Envoy's requests have a few hundred.
const HEADER_BYTES: u32 = 16 << 10;

/// Bytes that a client may send ahead on a connection: requests are small but for the first ones.
const WINDOW_BYTES: u32 = 256 << 10;

/// The same on a stream. Half of it doubles the round trips of a first request; at double, a thousand clients that connect
/// again at once cost twice the memory.
const STREAM_WINDOW_BYTES: u32 = 32 << 10;

/// The header in which a client says how its messages are compressed, and how it says that they aren't.
const ENCODING: &str = "grpc-encoding";
const IDENTITY: &str = "identity";

/// The name by which gRPC health knows the server as a whole.
const EVERYTHING: &str = "";

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// How each stream behaves.
    pub session: SessionSettings,
    /// Largest request in bytes; values above 256 MiB count as that. A delta reconnect states a version per resource.
    pub request_bytes: usize,
    /// Streams at a time; more are refused with `RESOURCE_EXHAUSTED`.
    pub streams: usize,
    /// Streams at a time on one connection.
    pub streams_per_connection: u32,
    /// Streams at a time of one account; more are refused with `RESOURCE_EXHAUSTED`.
    pub streams_per_account: usize,
    /// Connections at a time; more wait until there is room.
    pub connections: usize,
    /// Connections at a time of one account; more are closed.
    pub connections_per_account: usize,
    /// Connections at a time on which nothing was proven yet, where credentials are wanted; those that waited for some
    /// seconds make room for more.
    pub unproven: usize,
    /// How long a client may take for the handshake and to prove who it is, where credentials are wanted; then its
    /// connection is closed.
    pub proof: Duration,
    /// How long a stream may stay without its first message.
    pub first_message: Duration,
    /// Time between HTTP/2 pings on a connection.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before the connection is closed.
    pub keepalive_timeout: Duration,
    /// How old a stream gets, 25 % more or less; then it ends with `UNAVAILABLE`, so that clients spread over replicas
    /// again. Ages above a year count as that.
    pub stream_age: Duration,
    /// How long streams have to end when the server stops.
    pub drain: Duration,
}

impl Default for ServerSettings {
    /// 32 MiB, 20,000 streams, 32 per connection, 1,000 of an account, as many connections as the process may have and 1,000 of
    /// an account, 512 on which nothing is proven, 10 s for the proof, 30 s for the first message, pings every 30 s with 10 s to answer, 4 h of
    /// age, 5 s to drain.
    fn default() -> Self {
        Self {
            session: SessionSettings::default(),
            request_bytes: 32 << 20,
            streams: 20_000,
            streams_per_connection: 32,
            streams_per_account: 1_000,
            connections: usize::MAX,
            connections_per_account: 1_000,
            unproven: 512,
            proof: Duration::from_secs(10),
            first_message: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            stream_age: Duration::from_secs(4 * 3600),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why the server stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Connections can't be accepted or served.
    #[error("the xDS server failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves ADS, a service per type, and gRPC health, on a listener until `shutdown` is ready, to those whom [`Access`] lets in;
/// health to everybody.
///
/// Then health says so, no stream is accepted any more, and those that are open are served on and end one by one with
/// `UNAVAILABLE`, which makes clients connect again elsewhere. Returns when all have ended, or after
/// [`ServerSettings::drain`]. `sessions` holds what is being served, for whoever wants to look.
///
/// # Errors
/// [`ServeError`] if the listener fails.
pub async fn serve<S: SnapshotSource, O: Observer>(
    (listener, access): (TcpListener, Access),
    source: Arc<S>,
    observer: Arc<O>,
    sessions: Sessions,
    settings: ServerSettings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (close, closing) = watch::channel(None);
    let places = Arc::new(Semaphore::new(settings.streams));
    let turnstile = Arc::new(Turnstile::new(observer.clone()));
    let streams = Arc::new(Streams {
        source,
        observer,
        access: access.clone(),
        turnstile: turnstile.clone(),
        sessions,
        settings: Arc::new(settings),
        commons: Commons::default(),
        rooms: Rooms::default(),
        closing: closing.clone(),
        places: places.clone(),
        shares: Shares::new(settings.streams_per_account),
        next_id: AtomicU64::new(1),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    let routes = services::routes(&streams, health_service);
    let stop = async move {
        shutdown.await;
        health.set_service_status(EVERYTHING, tonic_health::ServingStatus::NotServing).await;
        close.send_replace(Some(settings.streams.saturating_sub(places.available_permits())));
    };
    let (connections, accepted) = door::channel();
    let accepting = door::accept(listener, access.clone(), turnstile, Lobby::new(&settings), connections);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(settings.keepalive_interval))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .http2_max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(settings.streams_per_connection)
        .max_connection_age(spread::connection_age(settings.stream_age))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop);
    let work = async { tokio::join!(accepting, served).1 };
    tokio::select! {
        result = work => result.map_err(ServeError::Transport),
        () = access.follow() => Ok(()),
        () = drained(closing, settings.drain) => Ok(()),
    }
}

/// Waits until streams had their time to end.
async fn drained(mut closing: watch::Receiver<Option<usize>>, drain: Duration) {
    // The sender lives in the server's own future, so an error can't come first.
    let _ = closing.wait_for(Option::is_some).await;
    tokio::time::sleep(drain).await;
}

/// Opens streams, whatever the service.
#[derive(Debug)]
struct Streams<S, O> {
    source: Arc<S>,
    observer: Arc<O>,
    access: Access,
    turnstile: Arc<Turnstile<O>>,
    sessions: Sessions,
    settings: Arc<ServerSettings>,
    commons: Commons,
    rooms: Rooms,
    closing: watch::Receiver<Option<usize>>,
    places: Arc<Semaphore>,
    /// Of them, those of each account.
    shares: Arc<Shares>,
    next_id: AtomicU64,
}

impl<S: SnapshotSource, O: Observer> Streams<S, O> {
    /// Who asks, whatever for.
    async fn admit(&self, request: &Parts) -> Result<Admitted, Status> {
        let arrival = request.extensions.get::<Arrival>();
        self.access.admit(arrival, &request.headers).await.map_err(|(reason, why)| {
            self.turnstile.turn_away(reason, arrival.and_then(|arrival| arrival.peer), &why);
            if reason == Reason::Limit { Status::resource_exhausted(why) } else { Status::unauthenticated(why) }
        })
    }

    /// Answers a request that opens a stream.
    async fn answer<P: Protocol>(&self, request: Request, only: Option<ResourceType>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        match self.admit(&parts).await {
            Ok(admitted) => {
                let request = Request::from_parts(parts, body);
                self.open::<P>(admitted, request, only).unwrap_or_else(Status::into_http)
            }
            Err(refused) => refused.into_http(),
        }
    }

    fn open<P: Protocol>(
        &self,
        admitted: Admitted,
        request: Request,
        only: Option<ResourceType>,
    ) -> Result<Response<Body>, Status> {
        if let Some(encoding) = request.headers().get(ENCODING).filter(|encoding| *encoding != IDENTITY) {
            return Err(Status::unimplemented(format!("messages are read uncompressed, not as {encoding:?}")));
        }
        if self.closing.borrow().is_some() {
            return Err(Status::unavailable("the control plane is stopping: connect again"));
        }
        let peer = request.extensions().get::<Arrival>().and_then(|arrival| arrival.peer);
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.turnstile.turn_away(Reason::Limit, peer, "too many streams");
            return Err(Status::resource_exhausted("too many streams: connect to another replica"));
        };
        let share = match admitted.caller.account() {
            None => None,
            Some(account) => Some(self.shares.take(account).ok_or_else(|| {
                self.turnstile.turn_away(Reason::Limit, peer, "too many streams of one account");
                Status::resource_exhausted("this account has too many streams")
            })?),
        };
        let stream = Stream {
            id: StreamId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            only,
            admitted,
            peer,
            source: self.source.clone(),
            observer: self.observer.clone(),
            turnstile: self.turnstile.clone(),
            sessions: self.sessions.clone(),
            settings: self.settings.clone(),
            commons: self.commons.clone(),
            closing: self.closing.clone(),
        };
        let (outbound, outgoing) = slot::channel();
        let limit = self.settings.request_bytes.min(REQUEST_BYTES_MAX);
        let inbound = Requests::new(request.into_body(), limit, self.rooms.clone());
        tokio::spawn(async move {
            stream.run::<P>(inbound, outbound).await;
            drop((place, share));
        });
        Ok(Responses::answer(outgoing))
    }
}

#[cfg(test)]
mod tests;
