//! The server over real TCP, with the client that comes with the messages.

use std::net::SocketAddr;

use envoy_types::pb::envoy::service::discovery::v3 as discovery_pb;

use discovery_pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::google::rpc;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;
use crate::publish::Publisher;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};
use crate::xds::caller::Caller;
use crate::xds::inspection::Sessions;
use crate::xds::node::{Node, NodeError};
use crate::xds::observation::{IgnoredReason, Observation};
use crate::xds::source::Subscription;

use discovery_pb::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// One gateway, `web`; any node whose id begins with `web`.
#[derive(Default)]
struct Web(Publisher<&'static str>);

impl SnapshotSource for Web {
    async fn subscribe(&self, node: &Node, _: &Caller) -> Result<Subscription, NodeError> {
        if !node.id.starts_with("web") {
            return Err(NodeError::Unknown(format!("node {:?} matches no gateway", node.id)));
        }
        Ok(Subscription { gateway: "web".into(), snapshots: self.0.subscribe(&"web"), held: None })
    }
}

/// Keeps every observation as a short text.
struct Notes(mpsc::UnboundedSender<String>);

impl Observer for Notes {
    fn observe(&self, event: Observation) {
        let note = match event {
            Observation::Connected(peer) => format!("{} {} connected", peer.gateway, peer.node.id),
            Observation::Acknowledged(_, news) => format!("{:?} {} outstanding", news.resource_type, news.outstanding),
            Observation::Refused(_, refusal) => format!("refused {}: {}", refusal.resources[0].name, refusal.message),
            Observation::Disconnected(peer) => format!("{} {} disconnected", peer.gateway, peer.node.id),
            Observation::Stuck(peer, waited) => format!("{} stuck for {} ms", peer.node.id, waited.as_millis()),
            Observation::Ignored(_, ignored) if ignored.reason == IgnoredReason::UnknownType => {
                format!("ignored {}", ignored.type_url)
            }
            Observation::Sent(..) | Observation::Ignored(..) | Observation::TurnedAway(_) => return,
        };
        // Nobody listens in most tests.
        let _ = self.0.send(note);
    }
}

struct Bench {
    source: Arc<Web>,
    address: SocketAddr,
    notes: mpsc::UnboundedReceiver<String>,
    sessions: Sessions,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

async fn start(settings: ServerSettings) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (sender, notes) = mpsc::unbounded_channel();
    let source = Arc::new(Web::default());
    let stopped = async move {
        let _ = stopped.await;
    };
    let sessions = Sessions::default();
    let observer = Arc::new(Notes(sender));
    let served =
        tokio::spawn(serve((listener, Access::Anybody), source.clone(), observer, sessions.clone(), settings, stopped));
    Bench { source, address, notes, sessions, stop, served }
}

impl Bench {
    fn publish(&self, clusters: &[(&str, &str)]) {
        let cluster = |(name, version): &(&str, &str)| Resource {
            name: (*name).into(),
            version: Version::new(version),
            body: format!("{name} {version}").into(),
            owners: Arc::from([]),
        };
        let snapshot = Snapshot::new().with(ResourceType::Cluster, clusters.iter().map(cluster));
        self.source.0.publish(&"web", Arc::new(snapshot));
    }

    async fn note(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.notes.recv()).await.expect("an observation in time").expect("an observer")
    }

    async fn channel(&self) -> Channel {
        Client::connect(self.address).await
    }

    async fn open(&self) -> Client {
        Client::open(self.address).await
    }
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Channel {
        tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
    }

    async fn open(address: SocketAddr) -> Self {
        Self::open_on(Self::connect(address).await).await
    }

    async fn open_on(channel: Channel) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a response in time")
    }

    /// The next response as `name@version … -removed …`, acknowledged.
    async fn accept(&mut self) -> String {
        let response = self.receive().await.unwrap().unwrap();
        let resources = response.resources.iter().map(|resource| {
            let body = String::from_utf8(resource.resource.clone().unwrap().value).unwrap();
            assert_eq!(body, format!("{} {}", resource.name, resource.version));
            format!("{}@{}", resource.name, resource.version)
        });
        let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
        let text = resources.chain(removed).collect::<Vec<_>>().join(" ");
        self.send(DeltaDiscoveryRequest { response_nonce: response.nonce, ..clusters() }).await;
        text
    }

    async fn refusal(&mut self) -> Status {
        self.receive().await.unwrap_err()
    }
}

fn clusters() -> DeltaDiscoveryRequest {
    let type_url = ResourceType::Cluster.type_url().to_owned();
    DeltaDiscoveryRequest { type_url, ..DeltaDiscoveryRequest::default() }
}

fn first(id: &str) -> DeltaDiscoveryRequest {
    let node = core_pb::Node { id: id.to_owned(), ..core_pb::Node::default() };
    DeltaDiscoveryRequest { node: Some(node), ..clusters() }
}

#[tokio::test]
async fn cases_3_and_24_a_client_gets_what_it_needs_and_nothing_twice() {
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1"), ("b", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1 b@1");
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    bench.publish(&[("a", "1"), ("b", "1")]);
    bench.publish(&[("a", "1"), ("b", "2")]);
    assert_eq!(client.accept().await, "b@2");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    drop(client);
    assert_eq!(bench.note().await, "web web-1 disconnected");

    // Case 24: whoever holds everything is sent only what comes later.
    let mut client = bench.open().await;
    let versions = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
    client.send(DeltaDiscoveryRequest { initial_resource_versions: versions.into(), ..first("web-1") }).await;
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    bench.publish(&[("a", "3"), ("b", "2")]);
    assert_eq!(client.accept().await, "a@3");
}

#[tokio::test]
async fn case_8_a_refusal_reaches_the_observer() {
    let mut bench = start(ServerSettings::default()).await;
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    bench.publish(&[("a", "1")]);
    let response = client.receive().await.unwrap().unwrap();
    let error_detail = Some(rpc::Status { message: "no\nway".to_owned(), ..rpc::Status::default() });
    client.send(DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..clusters() }).await;
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.note().await, "refused a: no\nway");
    bench.publish(&[("a", "2")]);
    assert_eq!(client.accept().await, "a@2");
}

#[tokio::test]
async fn case_1_nodes_that_get_nothing_are_told_why() {
    let bench = start(ServerSettings::default()).await;
    for (request, code, text) in [
        (clusters(), Code::InvalidArgument, "set `node.id` in Envoy's bootstrap"),
        (first(""), Code::InvalidArgument, "set `node.id` in Envoy's bootstrap"),
        (first("api-1"), Code::NotFound, "node \"api-1\" matches no gateway"),
    ] {
        let mut client = bench.open().await;
        client.send(request).await;
        let status = client.refusal().await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
}

#[tokio::test]
async fn case_2_another_node_ends_the_stream() {
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    client.send(first("web-2")).await;
    assert_eq!(client.refusal().await.code(), Code::InvalidArgument);
    for expected in ["web web-1 connected", "Cluster 0 outstanding", "web web-1 disconnected"] {
        assert_eq!(bench.note().await, expected);
    }
}

#[tokio::test]
async fn case_21_limits_end_the_stream() {
    let bench = start(ServerSettings::default()).await;
    let mut client = bench.open().await;
    client.send(DeltaDiscoveryRequest { resource_names_subscribe: vec!["x".repeat(5000)], ..first("web-1") }).await;
    let status = client.refusal().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("a resource name of 5000 bytes"), "{status:?}");
}

#[tokio::test]
async fn case_10_the_same_bytes_refused_by_many_are_one_report_each() {
    const GATEWAYS: usize = 100;
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    let mut clients = Vec::new();
    for number in 0..GATEWAYS {
        let mut client = bench.open().await;
        client.send(first(&format!("web-{number}"))).await;
        let response = client.receive().await.unwrap().unwrap();
        let error_detail = Some(rpc::Status { message: "no".to_owned(), ..rpc::Status::default() });
        client.send(DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..clusters() }).await;
        clients.push(client);
    }
    // The same again: nobody is sent anything, so nobody refuses it once more.
    bench.publish(&[("a", "1")]);
    let mut refusals = 0;
    while refusals < GATEWAYS {
        refusals += usize::from(bench.note().await == "refused a: no");
    }
    bench.publish(&[("a", "2")]);
    for client in &mut clients {
        assert_eq!(client.accept().await, "a@2");
    }
    let mut landed = 0;
    while landed < GATEWAYS {
        let note = bench.note().await;
        assert!(!note.starts_with("refused"), "{note}");
        landed += usize::from(note == "Cluster 0 outstanding");
    }
}

#[tokio::test]
async fn case_35_a_resource_above_every_limit_is_delivered() {
    let bench = start(ServerSettings::default()).await;
    // 4 MiB is what gRPC clients take unless told otherwise, 16 MiB the window of many a proxy.
    let (small, large, huge) = ("s".repeat(3 << 20), "l".repeat(5 << 20), "h".repeat(17 << 20));
    bench.publish(&[("a", &small), ("b", &small), ("huge", &huge), ("large", &large)]);
    let (requests, receiver) = mpsc::channel(8);
    let client = AggregatedDiscoveryServiceClient::new(bench.channel().await);
    let mut client = client.max_decoding_message_size(64 << 20);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut client = Client { requests, responses };
    client.send(first("web-1")).await;
    // What fits travels together, what doesn't travels alone: nothing is held back by what is too large.
    for expected in [vec!["a"], vec!["b"], vec!["huge"], vec!["large"]] {
        let response = client.receive().await.unwrap().unwrap();
        assert_eq!(response.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), expected);
        client.send(DeltaDiscoveryRequest { response_nonce: response.nonce, ..clusters() }).await;
    }
}

#[tokio::test]
async fn large_requests_are_taken_up_to_the_limit() {
    let bench = start(ServerSettings { request_bytes: 8 << 20, ..ServerSettings::default() }).await;
    bench.publish(&[("a", "1")]);
    let padded = |bytes: usize| {
        let mut request = first("web-1");
        request.node.as_mut().unwrap().user_agent_name = "x".repeat(bytes);
        request
    };
    let mut client = bench.open().await;
    client.send(padded(6 << 20)).await;
    assert_eq!(client.accept().await, "a@1");
    let mut client = bench.open().await;
    client.send(padded(9 << 20)).await;
    assert_eq!(client.refusal().await.code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_gateway_that_goes_away_ends_its_streams() {
    let bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    bench.source.0.remove(&"web");
    assert_eq!(client.refusal().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn case_30_stopping_ends_streams_and_returns() {
    let bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    bench.stop.send(()).unwrap();
    let status = client.refusal().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the control plane is stopping: connect again"));
    drop(client);
    tokio::time::timeout(PATIENCE, bench.served).await.expect("the server returns").unwrap().unwrap();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let bench = start(ServerSettings { streams: 1, ..ServerSettings::default() }).await;
    let _first = bench.open().await;
    let mut client = AggregatedDiscoveryServiceClient::new(bench.channel().await);
    let (_requests, receiver) = mpsc::channel(1);
    let status = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn case_33_a_client_that_does_not_read_holds_up_nobody() {
    let bench = start(ServerSettings::default()).await;
    let big = "x".repeat(4 << 20);
    bench.publish(&[("a", &big)]);
    let lazy = bench.open().await;
    lazy.send(first("web-lazy")).await;
    for version in ["2", "3", "4"] {
        bench.publish(&[("a", version), ("big", &big)]);
        let mut client = bench.open().await;
        client.send(first("web-1")).await;
        let response = client.receive().await.unwrap().unwrap();
        assert!(response.resources.iter().any(|resource| resource.name == "a" && resource.version == version));
    }
}

mod inspected;
mod lifetime;
mod services;
