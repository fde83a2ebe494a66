//! Stands between gateways and the control plane: a fault that is injected behind the compiler, and a witness.
//!
//! Everything passes as it is, in both variants of ADS, except resources whose content makes a given function answer with
//! other bytes. Versions stay those of the control plane, which knows nothing of it. What passed is noted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as discovery_pb;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use discovery_pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use discovery_pb::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};

/// From type, as in the type URL after its last dot, name and bytes to other bytes. A function of its arguments only: two
/// gateways that are sent the same get the same.
pub(crate) type Change = dyn Fn(&str, &str, &[u8]) -> Option<Vec<u8>> + Send + Sync;

/// A resource that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Id of the node that it went to.
    pub(crate) node: String,
    /// Its type: `Cluster`, `RouteConfiguration`.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// Its version; with state of the world that of its response.
    pub(crate) version: String,
    /// Hash of the bytes that the control plane sent.
    pub(crate) content: u128,
    /// Whether the gateway got other bytes.
    pub(crate) is_changed: bool,
}

/// A response that a gateway refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Id of the node.
    pub(crate) node: String,
    /// Type of the resources.
    pub(crate) kind: String,
    /// Envoy's words.
    pub(crate) message: String,
}

/// How many messages a transcript tells.
const TOLD: usize = 60;

#[derive(Debug, Default)]
struct Notes {
    leads_to: Option<SocketAddr>,
    transcript: VecDeque<String>,
    passed: Vec<Passed>,
    refused: Vec<Refused>,
}

/// A running proxy; stops taking connections when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    passage: Passage,
    task: AbortHandle,
}

impl Proxy {
    /// Starts a proxy that changes what the function says.
    pub(crate) async fn start(
        change: impl Fn(&str, &str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the proxy cannot listen")?;
        let address = listener.local_addr()?;
        let passage = Passage { change: Arc::new(change), notes: Arc::default(), messages: watch::channel(0).0 };
        let service = AggregatedDiscoveryServiceServer::new(passage.clone()).max_decoding_message_size(usize::MAX);
        let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        // How a connection ends is seen by the gateway, which connects again.
        let task = tokio::spawn(async { drop(server.await) }).abort_handle();
        Ok(Self { address, passage, task })
    }

    /// Starts a proxy that changes nothing.
    pub(crate) async fn witness() -> anyhow::Result<Self> {
        Self::start(|_, _, _| None).await
    }

    /// Where gateways connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says where the control plane is.
    pub(crate) fn lead_to(&self, xds: SocketAddr) {
        self.passage.notes().leads_to = Some(xds);
    }

    /// All resources that passed so far, in order.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.passage.notes().passed.clone()
    }

    /// All refusals that passed so far, in order.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        self.passage.notes().refused.clone()
    }

    /// The last messages, one a line, for error messages.
    pub(crate) fn transcript(&self) -> String {
        let notes = self.passage.notes();
        let lines: Vec<&str> = notes.transcript.iter().map(String::as_str).collect();
        format!("--- what passed the proxy last:\n{}", lines.join("\n"))
    }

    /// How many messages passed, in both directions.
    pub(crate) fn messages(&self) -> watch::Receiver<u64> {
        self.passage.messages.subscribe()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Passage {
    change: Arc<Change>,
    notes: Arc<Mutex<Notes>>,
    messages: watch::Sender<u64>,
}

impl std::fmt::Debug for Passage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passage").field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// The part of a type URL that tells types apart.
fn kind(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or_default()
}

/// What all resources have in common: their name is field 1.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// What both variants' requests have in common.
struct Asked<'a> {
    node: Option<&'a Node>,
    type_url: &'a str,
    nonce: &'a str,
    error: Option<&'a rpc::Status>,
    /// Names and versions, as the variant has them.
    what: String,
}

/// Whose stream it is: the first request says it.
#[derive(Clone, Default)]
struct Whose(Arc<Mutex<String>>);

impl Whose {
    fn node(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn control_plane(&self) -> Result<AggregatedDiscoveryServiceClient<Channel>, Status> {
        let address = self.notes().leads_to;
        let address = address.ok_or_else(|| Status::unavailable("the proxy leads nowhere yet"))?;
        let client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await;
        let client = client.map_err(|error| Status::unavailable(format!("no control plane: {error}")))?;
        Ok(client.max_decoding_message_size(usize::MAX))
    }

    fn request(&self, whose: &Whose, request: &Asked<'_>) {
        let mut known = whose.node();
        if let Some(node) = request.node {
            known.clone_from(&node.id);
        }
        let kind = kind(request.type_url);
        if let Some(error) = request.error {
            let (node, kind) = (known.clone(), kind.to_owned());
            self.notes().refused.push(Refused { node, kind, message: error.message.clone() });
        }
        let error = request.error.map(|error| error.message.as_str());
        self.tell(format!("{known} asks: {kind} nonce {:?} {} error {error:?}", request.nonce, request.what));
    }

    fn tell(&self, line: String) {
        let mut notes = self.notes();
        notes.transcript.push_back(line);
        if notes.transcript.len() > TOLD {
            notes.transcript.pop_front();
        }
        drop(notes);
        self.messages.send_modify(|count| *count += 1);
    }

    fn resource(&self, whose: &Whose, name: &str, version: &str, body: &mut Any) {
        let kind = kind(&body.type_url);
        let changed = (self.change)(kind, name, &body.value);
        let passed = Passed {
            node: whose.node().clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            content: xxhash_rust::xxh3::xxh3_128(&body.value),
            is_changed: changed.is_some(),
        };
        if let Some(changed) = changed {
            body.value = changed;
        }
        self.notes().passed.push(passed);
    }

    fn delta_response(&self, whose: &Whose, response: &mut discovery_pb::DeltaDiscoveryResponse) {
        let sent: Vec<String> = response.resources.iter().map(|r| format!("{}={}", r.name, r.version)).collect();
        let (kind, nonce, removed) = (kind(&response.type_url), &response.nonce, &response.removed_resources);
        let line = format!("{} is sent: {kind} nonce {nonce:?} {sent:?} removed {removed:?}", whose.node());
        for resource in &mut response.resources {
            if let Some(body) = &mut resource.resource {
                self.resource(whose, &resource.name, &resource.version, body);
            }
        }
        self.tell(line);
    }

    fn state_response(&self, whose: &Whose, response: &mut discovery_pb::DiscoveryResponse) {
        let name = |body: &Any| Named::decode(body.value.as_slice()).unwrap_or_default().name;
        let sent: Vec<String> = response.resources.iter().map(name).collect();
        let (kind, nonce, version) = (kind(&response.type_url), &response.nonce, &response.version_info);
        let line = format!("{} is sent: {kind} nonce {nonce:?} version {version} {sent:?}", whose.node());
        for body in &mut response.resources {
            self.resource(whose, &name(body), &response.version_info, body);
        }
        self.tell(line);
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Passage {
    type StreamAggregatedResourcesStream = Responses<discovery_pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<discovery_pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery_pb::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (passage, whose) = (self.clone(), Whose::default());
        let requests = request.into_inner().map_while(Result::ok).map({
            let (passage, whose) = (passage.clone(), whose.clone());
            move |request| {
                let asked = Asked {
                    node: request.node.as_ref(),
                    type_url: &request.type_url,
                    nonce: &request.response_nonce,
                    error: request.error_detail.as_ref(),
                    what: format!("version {:?} names {:?}", request.version_info, request.resource_names),
                };
                passage.request(&whose, &asked);
                request
            }
        });
        let responses = self.control_plane().await?.stream_aggregated_resources(requests).await?.into_inner();
        Ok(Response::new(Box::pin(responses.map(move |response| {
            let mut response = response?;
            passage.state_response(&whose, &mut response);
            Ok(response)
        }))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery_pb::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (passage, whose) = (self.clone(), Whose::default());
        let requests = request.into_inner().map_while(Result::ok).map({
            let (passage, whose) = (passage.clone(), whose.clone());
            move |request| {
                let asked = Asked {
                    node: request.node.as_ref(),
                    type_url: &request.type_url,
                    nonce: &request.response_nonce,
                    error: request.error_detail.as_ref(),
                    what: format!(
                        "+{:?} -{:?} has {:?}",
                        request.resource_names_subscribe,
                        request.resource_names_unsubscribe,
                        request.initial_resource_versions.iter().collect::<BTreeMap<_, _>>(),
                    ),
                };
                passage.request(&whose, &asked);
                request
            }
        });
        let responses = self.control_plane().await?.delta_aggregated_resources(requests).await?.into_inner();
        Ok(Response::new(Box::pin(responses.map(move |response| {
            let mut response = response?;
            passage.delta_response(&whose, &mut response);
            Ok(response)
        }))))
    }
}
