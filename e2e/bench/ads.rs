//! A light client of ADS, delta: messages as bytes, read as far as a bench needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes};
use chancery::snapshot::ResourceType;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::support::bench_world;
use crate::support::wait::PATIENCE;

/// The path of delta ADS.
pub(crate) const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// How much may come in one message.
pub(crate) const MESSAGE_BYTES: usize = 256 << 20;

/// What a message costs on a stream beside its own bytes.
const FRAME_BYTES: usize = 5;

/// Messages are what they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        *self
    }

    fn decoder(&mut self) -> Raw {
        *self
    }
}

/// Small: thousands of streams have one each.
fn buffers() -> BufferSettings {
    BufferSettings::new(256, 32 << 10)
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// `DeltaDiscoveryResponse`, with the resources as they are on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    /// `Resource` messages.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) resources: Vec<Bytes>,
    /// Type of all of them.
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    /// What an acknowledgement names.
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    /// Names of what is gone.
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed: Vec<String>,
}

/// `Resource`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Item {
    /// Version.
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    /// `Any`.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) body: Bytes,
    /// Name.
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

/// A response and when its last byte was there.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When.
    pub(crate) at: Instant,
    /// Bytes of the stream that it took.
    pub(crate) bytes: usize,
    /// The response.
    pub(crate) response: Response,
}

impl Received {
    /// The resources in it.
    pub(crate) fn items(&self) -> anyhow::Result<Vec<Item>> {
        self.response.resources.iter().map(|item| Ok(Item::decode(item.clone())?)).collect()
    }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// The same as an Envoy of the newest release: what it is sent depends on that.
pub(crate) fn envoy_node(id: &str, gateway: &str, bind: &str) -> Node {
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let build = BuildVersion { version: Some(version), ..BuildVersion::default() };
    Node {
        user_agent_name: "envoy".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        ..node(id, gateway, bind)
    }
}

/// A node of a gateway of the bench's world, which doesn't say what it is.
pub(crate) fn node(id: &str, gateway: &str, bind: &str) -> Node {
    let app = [("app".to_owned(), text(gateway))];
    let labels = Value { kind: Some(Kind::StructValue(Struct { fields: app.into_iter().collect() })) };
    let fields = [
        ("cluster", text(bench_world::CLUSTER_NAME)),
        ("namespace", text(bench_world::NAMESPACE)),
        ("labels", labels),
        ("bind", text(bind)),
    ];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

/// The types that a gateway holds something of, in the order in which Envoy asks.
pub(crate) const TYPES: [ResourceType; 5] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::ScopedRoute,
    ResourceType::Route,
];

/// The message that acknowledges a response.
fn acknowledgement(response: &Response) -> Bytes {
    let request = DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    };
    request.encode_to_vec().into()
}

/// The first messages of a client that follows these types whole, but for its node.
///
/// What a client knows already it names with its version, as an Envoy that connects again does.
pub(crate) fn subscriptions(types: &[ResourceType], known: &World) -> Vec<Bytes> {
    let request = |kind: &ResourceType| {
        let versions = known.0.get(kind);
        let names = versions.filter(|_| !kind.has_wildcard()).map(|items| items.keys().cloned().collect());
        let versions = versions.into_iter().flatten().map(|(name, item)| (name.clone(), item.version.clone()));
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.unwrap_or_else(|| vec!["*".to_owned()]),
            initial_resource_versions: versions.collect(),
            ..DeltaDiscoveryRequest::default()
        };
        Bytes::from(request.encode_to_vec())
    };
    types.iter().map(request).collect()
}

/// The same messages, with a node in the first.
pub(crate) fn of_node(node: Node, messages: &[Bytes]) -> Vec<Bytes> {
    let node = DeltaDiscoveryRequest { node: Some(node), ..DeltaDiscoveryRequest::default() }.encode_to_vec();
    let mut messages = messages.to_vec();
    if let Some(first) = messages.first_mut() {
        // Two messages in a row are read as one that says what both say.
        *first = [node.as_slice(), first].concat().into();
    }
    messages
}

/// Opens a connection.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::new(format!("http://{address}"))?.tcp_nodelay(true);
    // Wide windows, so that it is never the client whom the server waits for.
    let endpoint = endpoint.initial_stream_window_size(16 << 20).initial_connection_window_size(16 << 20);
    endpoint.connect().await.with_context(|| format!("connect to {address}"))
}

/// A stream that acknowledges everything.
#[derive(Debug)]
pub(crate) struct Follower {
    requests: mpsc::UnboundedSender<Bytes>,
    responses: Streaming<Bytes>,
}

impl Follower {
    /// Opens a stream and sends these messages.
    pub(crate) async fn open(channel: Channel, first: &[Bytes]) -> anyhow::Result<Self> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        for message in first {
            requests.send(message.clone())?;
        }
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        grpc.ready().await?;
        let outgoing = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        let responses = grpc.streaming(outgoing, PathAndQuery::from_static(DELTA), Raw).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// The next response, which is acknowledged when this returns.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Received> {
        let message = self.responses.message().await?.context("the server ended the stream")?;
        let (at, bytes) = (Instant::now(), message.len() + FRAME_BYTES);
        let response = Response::decode(message)?;
        self.requests.send(acknowledgement(&response))?;
        Ok(Received { at, bytes, response })
    }

    /// The same, or nothing if none comes in time.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> anyhow::Result<Option<Received>> {
        tokio::time::timeout(patience, self.next()).await.ok().transpose()
    }
}

/// What a gateway holds: resources by type and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct World(pub(crate) BTreeMap<ResourceType, BTreeMap<String, Arc<Item>>>);

impl World {
    /// Takes a response in.
    pub(crate) fn take(&mut self, received: &Received) -> anyhow::Result<()> {
        let kind = ResourceType::from_url(&received.response.type_url).context("a type that nobody asked for")?;
        let held = self.0.entry(kind).or_default();
        for item in received.items()? {
            held.insert(item.name.clone(), Arc::new(item));
        }
        for name in &received.response.removed {
            held.remove(name);
        }
        Ok(())
    }

    /// Bytes of all resources.
    pub(crate) fn bytes(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(|item| item.body.len()).sum()
    }

    /// How many resources there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// What it takes to come from `before` to here, in the order in which nothing is missing meanwhile.
    pub(crate) fn changes(&self, before: &Self) -> anyhow::Result<Vec<Bytes>> {
        let mut messages = Vec::new();
        for (kind, items) in &self.0 {
            let old = before.0.get(kind);
            let is_new = |(name, item): &(&String, &Arc<Item>)| old.and_then(|old| old.get(*name)) != Some(*item);
            let changed: Vec<_> = items.iter().filter(is_new).map(|(_, item)| Arc::clone(item)).collect();
            let gone = old.into_iter().flat_map(BTreeMap::keys).filter(|name| !items.contains_key(*name)).cloned();
            let gone: Vec<String> = gone.collect();
            if !changed.is_empty() || !gone.is_empty() {
                messages.push(response(*kind, changed.iter(), gone));
            }
        }
        ensure!(!messages.is_empty(), "the edit changes nothing");
        Ok(messages)
    }
}

/// A response with these resources.
pub(crate) fn response<'a>(kind: ResourceType, items: impl Iterator<Item = &'a Arc<Item>>, gone: Vec<String>) -> Bytes {
    let response = Response {
        resources: items.map(|item| item.encode_to_vec().into()).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: "1".to_owned(),
        removed: gone,
    };
    response.encode_to_vec().into()
}

/// A client that holds what it was sent.
#[derive(Debug)]
pub(crate) struct Holder {
    /// Its stream.
    pub(crate) follower: Follower,
    /// What it holds.
    pub(crate) world: World,
}

impl Holder {
    /// Connects and follows every type.
    pub(crate) async fn open(address: SocketAddr, node: Node) -> anyhow::Result<Self> {
        let first = of_node(node, &subscriptions(&ResourceType::ALL, &World::default()));
        Ok(Self { follower: Follower::open(connect(address).await?, &first).await?, world: World::default() })
    }

    /// Takes responses until none comes for so long, after the first.
    pub(crate) async fn settle(&mut self, quiet: Duration) -> anyhow::Result<()> {
        self.next().await?;
        while let Some(received) = self.follower.next_within(quiet).await? {
            self.world.take(&received)?;
        }
        Ok(())
    }

    /// Takes one response.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Received> {
        let received = self.follower.next_within(PATIENCE).await?;
        let Some(received) = received else { bail!("nothing was sent within {PATIENCE:?}") };
        self.world.take(&received)?;
        Ok(received)
    }
}
