//! Every service in every variant: what is served, what is refused and how.

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::scoped_routes_discovery_service_client::ScopedRoutesDiscoveryServiceClient;
use envoy_types::pb::envoy::service::route::v3::virtual_host_discovery_service_client::VirtualHostDiscoveryServiceClient;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;

use super::*;

use discovery_pb::{DiscoveryRequest, DiscoveryResponse};

/// One resource `a@1` of every type.
fn publish_one_of_each(bench: &Bench) {
    let resource =
        || Resource { name: "a".into(), version: Version::new("1"), body: "a 1".into(), owners: Arc::from([]) };
    let every = ResourceType::ALL.into_iter();
    let snapshot = every.fold(Snapshot::new(), |snapshot, resource_type| snapshot.with(resource_type, [resource()]));
    bench.source.0.publish(&"web", Arc::new(snapshot));
}

fn node(id: &str) -> Option<core_pb::Node> {
    Some(core_pb::Node { id: id.to_owned(), ..core_pb::Node::default() })
}

fn state(id: &str, type_url: &str, names: &[&str]) -> DiscoveryRequest {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { node: node(id), type_url: type_url.to_owned(), resource_names, ..DiscoveryRequest::default() }
}

fn delta(id: &str, type_url: &str) -> DeltaDiscoveryRequest {
    let resource_names_subscribe = vec!["a".to_owned()];
    let type_url = type_url.to_owned();
    DeltaDiscoveryRequest { node: node(id), type_url, resource_names_subscribe, ..DeltaDiscoveryRequest::default() }
}

/// Opens a stream with one request and gives the first answer.
macro_rules! first_answer {
    ($client:expr, $method:ident, $request:expr) => {{
        // The sender stays open, so that the stream does not end before its answer.
        let (requests, receiver) = mpsc::channel(1);
        requests.send($request).await.unwrap();
        let mut responses = $client.$method(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        tokio::time::timeout(PATIENCE, responses.message()).await.expect("an answer in time")
    }};
}

macro_rules! check_service {
    ($bench:expr, $client:ident, $type:ident, $stream:ident, $delta:ident, $fetch:ident) => {{
        let url = ResourceType::$type.type_url();
        let other = if url.ends_with("Listener") { ResourceType::Route } else { ResourceType::Listener }.type_url();
        let mut client = $client::new($bench.channel().await);
        // A service for one type knows which it is.
        for asked in [url, ""] {
            let response = first_answer!(client, $stream, state("web-1", asked, &["a"])).unwrap().unwrap();
            assert_eq!((response.type_url.as_str(), response.resources.len()), (url, 1), "{url}");
            assert_eq!(response.resources[0].type_url, url);
            let response = first_answer!(client, $delta, delta("web-1", asked)).unwrap().unwrap();
            assert_eq!((response.type_url.as_str(), response.resources[0].name.as_str()), (url, "a"), "{url}");
        }
        for (asked, id, code) in [
            (other, "web-1", Code::InvalidArgument),
            ("type.googleapis.com/envoy.api.v2.Cluster", "web-1", Code::InvalidArgument),
            (url, "", Code::InvalidArgument),
            (url, "api-1", Code::NotFound),
        ] {
            let status = first_answer!(client, $stream, state(id, asked, &["a"])).unwrap_err();
            assert_eq!(status.code(), code, "{url} asked for {asked}: {status:?}");
            let status = first_answer!(client, $delta, delta(id, asked)).unwrap_err();
            assert_eq!(status.code(), code, "{url} asked for {asked}: {status:?}");
        }
        let status = client.$fetch(state("web-1", url, &["a"])).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("open a stream"), "{status:?}");
    }};
}

#[tokio::test]
async fn cases_1_and_40_every_service_serves_its_type_and_no_other() {
    let bench = start(ServerSettings::default()).await;
    publish_one_of_each(&bench);
    check_service!(bench, ClusterDiscoveryServiceClient, Cluster, stream_clusters, delta_clusters, fetch_clusters);
    check_service!(bench, EndpointDiscoveryServiceClient, Endpoint, stream_endpoints, delta_endpoints, fetch_endpoints);
    check_service!(bench, ListenerDiscoveryServiceClient, Listener, stream_listeners, delta_listeners, fetch_listeners);
    check_service!(bench, RouteDiscoveryServiceClient, Route, stream_routes, delta_routes, fetch_routes);
    check_service!(
        bench,
        ScopedRoutesDiscoveryServiceClient,
        ScopedRoute,
        stream_scoped_routes,
        delta_scoped_routes,
        fetch_scoped_routes
    );
    check_service!(bench, SecretDiscoveryServiceClient, Secret, stream_secrets, delta_secrets, fetch_secrets);
    check_service!(
        bench,
        ExtensionConfigDiscoveryServiceClient,
        Extension,
        stream_extension_configs,
        delta_extension_configs,
        fetch_extension_configs
    );
}

#[tokio::test]
async fn other_services_say_what_is_served() {
    let bench = start(ServerSettings::default()).await;
    let (_requests, receiver) = mpsc::channel(1);
    let mut client = VirtualHostDiscoveryServiceClient::new(bench.channel().await);
    let status = client.delta_virtual_hosts(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("served are ADS, CDS, EDS"), "{status:?}");
}

/// A state-of-the-world client on ADS.
struct StateClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl StateClient {
    async fn open(bench: &Bench) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = AggregatedDiscoveryServiceClient::new(bench.channel().await);
        let responses = client.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a response in time")
    }

    /// The bodies of the next response, which is acknowledged, and its version.
    async fn accept(&mut self) -> (String, String) {
        let response = self.receive().await.unwrap().unwrap();
        let bodies = response.resources.iter().map(|any| String::from_utf8(any.value.clone()).unwrap());
        let text = bodies.collect::<Vec<_>>().join(", ");
        let (version_info, response_nonce) = (response.version_info.clone(), response.nonce);
        let clusters = state("", ResourceType::Cluster.type_url(), &[]);
        self.send(DiscoveryRequest { node: None, version_info, response_nonce, ..clusters }).await;
        (text, response.version_info)
    }
}

fn first_state(id: &str) -> DiscoveryRequest {
    state(id, ResourceType::Cluster.type_url(), &[])
}

#[tokio::test]
async fn state_of_the_world_is_sent_whole_and_not_twice() {
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1"), ("b", "1")]);
    let mut client = StateClient::open(&bench).await;
    client.send(first_state("web-1")).await;
    assert_eq!(client.accept().await.0, "a 1, b 1");
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    bench.publish(&[("a", "1"), ("b", "2")]);
    let (text, version) = client.accept().await;
    assert_eq!(text, "a 1, b 2");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    drop(client);
    assert_eq!(bench.note().await, "web web-1 disconnected");
    // Case 24: the last version and an empty nonce (F7).
    let mut client = StateClient::open(&bench).await;
    client.send(DiscoveryRequest { version_info: version, ..first_state("web-1") }).await;
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    bench.publish(&[("a", "3"), ("b", "2")]);
    assert_eq!(client.accept().await.0, "a 3, b 2");
}

#[tokio::test]
async fn case_1_and_2_nodes_of_the_state_of_the_world() {
    let bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    for (request, code) in [
        (DiscoveryRequest { node: None, ..first_state("") }, Code::InvalidArgument),
        (first_state(""), Code::InvalidArgument),
        (first_state("api-1"), Code::NotFound),
    ] {
        let mut client = StateClient::open(&bench).await;
        client.send(request).await;
        assert_eq!(client.receive().await.unwrap_err().code(), code);
    }
    // Without a node, and then with another.
    let mut client = StateClient::open(&bench).await;
    client.send(first_state("web-1")).await;
    assert_eq!(client.accept().await.0, "a 1");
    client.send(first_state("web-2")).await;
    assert_eq!(client.receive().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn case_33_a_client_that_does_not_read_the_state_of_the_world_holds_up_nobody() {
    let bench = start(ServerSettings::default()).await;
    let big = "x".repeat(4 << 20);
    bench.publish(&[("a", &big)]);
    let lazy = StateClient::open(&bench).await;
    lazy.send(first_state("web-lazy")).await;
    for version in ["2", "3", "4"] {
        bench.publish(&[("a", version)]);
        let mut client = StateClient::open(&bench).await;
        client.send(first_state("web-1")).await;
        assert_eq!(client.accept().await.0, format!("a {version}"));
    }
}

#[tokio::test]
async fn case_41_two_streams_of_one_node_are_two() {
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1")]);
    let mut delta = bench.open().await;
    delta.send(first("web-1")).await;
    assert_eq!(delta.accept().await, "a@1");
    for expected in ["web web-1 connected", "Cluster 0 outstanding"] {
        assert_eq!(bench.note().await, expected);
    }
    let mut state = StateClient::open(&bench).await;
    state.send(first_state("web-1")).await;
    assert_eq!(state.accept().await.0, "a 1");
    for expected in ["web web-1 connected", "Cluster 0 outstanding"] {
        assert_eq!(bench.note().await, expected);
    }
    drop(delta);
    assert_eq!(bench.note().await, "web web-1 disconnected");
    bench.publish(&[("a", "2")]);
    assert_eq!(state.accept().await.0, "a 2");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
}

#[tokio::test]
async fn case_42_ads_and_a_service_of_one_type_agree() {
    let bench = start(ServerSettings::default()).await;
    publish_one_of_each(&bench);
    let mut ads = bench.open().await;
    ads.send(first("web-1")).await;
    assert_eq!(ads.accept().await, "a@1");
    let mut client = RouteDiscoveryServiceClient::new(bench.channel().await);
    let routes = state("web-1", ResourceType::Route.type_url(), &["a"]);
    let response = first_answer!(client, stream_routes, routes).unwrap().unwrap();
    assert_eq!(response.resources[0].value, b"a 1");
}
