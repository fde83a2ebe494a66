//! The floor: a server of ADS that knows nothing and sends bytes that Chancery made before.
//!
//! What a gateway asks for it gets from a [`World`]; a change is a row of ready messages. So all that is left of the time
//! between a change and its effect is the wire and Envoy. It runs on threads of its own in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::thread::JoinHandle;

use anyhow::Context;
use bytes::Bytes;
use chancery::snapshot::ResourceType;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use super::ads::{Item, MESSAGE_BYTES, Raw, World, response};

/// A running floor; ends when dropped.
#[derive(Debug)]
pub(crate) struct Floor {
    address: SocketAddr,
    replay: Replay,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Replay(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    world: World,
    /// The message with all of a type.
    whole: BTreeMap<ResourceType, Bytes>,
    streams: Vec<mpsc::UnboundedSender<Result<Bytes, Status>>>,
}

impl Floor {
    /// Starts a floor that serves a world.
    pub(crate) fn start(world: World) -> anyhow::Result<Self> {
        let replay = Replay::default();
        replay.hold(world);
        let (stop, stopped) = oneshot::channel();
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).context("the floor cannot listen")?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let service = replay.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let thread = std::thread::Builder::new().name("floor".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(socket) else { return };
                let server = Server::builder()
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(1 << 20)
                    .add_service(service)
                    .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
                // How a connection ends is seen by its client.
                tokio::select! {
                    _ = server => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { address, replay, stop: Some(stop), thread: Some(thread) })
    }

    /// Where gateways connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends messages on all streams.
    pub(crate) fn push(&self, messages: &[Bytes]) {
        let mut content = self.replay.content();
        content.streams.retain(|stream| messages.iter().all(|message| stream.send(Ok(message.clone())).is_ok()));
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Replay {
    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, world: World) {
        let whole = world.0.iter().map(|(kind, items)| (*kind, response(*kind, items.values(), Vec::new()))).collect();
        let mut content = self.content();
        content.world = world;
        content.whole = whole;
    }

    /// What a request is answered with: whatever it subscribes to, and nothing that the client knows.
    fn answer(&self, request: &DeltaDiscoveryRequest, is_first: bool) -> Option<Bytes> {
        let kind = ResourceType::from_url(&request.type_url)?;
        let content = self.content();
        let names: BTreeSet<&String> = request.resource_names_subscribe.iter().collect();
        let is_wildcard =
            names.iter().any(|name| *name == "*") || (is_first && names.is_empty() && kind.has_wildcard());
        let items = content.world.0.get(&kind);
        let all = items.map_or(0, BTreeMap::len);
        if is_wildcard || (all > 0 && names.len() == all) {
            let whole = content.whole.get(&kind).cloned();
            return Some(whole.unwrap_or_else(|| response(kind, std::iter::empty(), Vec::new())));
        }
        if names.is_empty() {
            return None;
        }
        let found: Vec<&Arc<Item>> = names.iter().filter_map(|name| items?.get(*name)).collect();
        let is_absent = |name: &&&String| items.is_none_or(|items| !items.contains_key(**name));
        let absent = names.iter().filter(is_absent).map(|name| (*name).clone()).collect();
        Some(response(kind, found.into_iter(), absent))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Replay {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let replay = self.clone();
        Box::pin(async move {
            let mut requests = request.into_inner();
            let (responses, outgoing) = mpsc::unbounded_channel();
            replay.content().streams.push(responses.clone());
            tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                while let Some(Ok(message)) = requests.next().await {
                    let Ok(request) = DeltaDiscoveryRequest::decode(message) else { break };
                    let is_first = seen.insert(request.type_url.clone());
                    if let Some(answer) = replay.answer(&request, is_first)
                        && responses.send(Ok(answer)).is_err()
                    {
                        break;
                    }
                }
            });
            let messages: Messages = Box::pin(UnboundedReceiverStream::new(outgoing));
            Ok(Response::new(messages))
        })
    }
}

impl NamedService for Replay {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for Replay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let replay = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(MESSAGE_BYTES);
            Ok(grpc.streaming(replay, request).await)
        })
    }
}
