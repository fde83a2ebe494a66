//! What operators see of the streams, over CSDS (case 45).

use envoy_types::pb::envoy::service::status::v3 as status_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use status_pb::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use status_pb::{ClientStatusRequest, ClientStatusResponse, ConfigStatus};

use tonic::transport::server::TcpIncoming;

use super::*;

const SECRET: &str = "CANARY-PRIVATE-KEY";

/// A client of CSDS, mounted as the admin port would.
async fn operator(sessions: &Sessions) -> ClientStatusDiscoveryServiceClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = tonic::service::Routes::new(crate::xds::csds::service(sessions.clone()));
    tokio::spawn(
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(listener)),
    );
    ClientStatusDiscoveryServiceClient::new(Client::connect(address).await)
}

/// What is said of the stream with an id: `name@version STATUS client-status: words`, line by line.
fn lines(response: &ClientStatusResponse, id: &str) -> Vec<String> {
    let config = response.config.iter().find(|config| config.node.as_ref().unwrap().id == id).expect("the node");
    let line = |resource: &status_pb::client_config::GenericXdsConfig| {
        assert!(resource.xds_config.is_none(), "a body");
        let kind = resource.type_url.rsplit('.').next().unwrap();
        let status = resource.config_status().as_str_name();
        let error = resource.error_state.as_ref().map(|e| format!(" {} of {}", e.details, e.version_info));
        format!("{kind} {}@{} {status}{}", resource.name, resource.version_info, error.unwrap_or_default())
    };
    config.generic_xds_configs.iter().map(line).collect()
}

fn about(id: &str) -> ClientStatusRequest {
    let pattern = matcher_pb::string_matcher::MatchPattern::Exact(id.to_owned());
    let node_id = Some(matcher_pb::StringMatcher { match_pattern: Some(pattern), ..Default::default() });
    let matcher = matcher_pb::NodeMatcher { node_id, ..Default::default() };
    ClientStatusRequest { node_matchers: vec![matcher], ..Default::default() }
}

#[tokio::test]
async fn case_45_csds_agrees_with_what_clients_said() {
    let mut bench = start(ServerSettings::default()).await;
    let mut operator = operator(&bench.sessions).await;
    let everybody = operator.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    assert!(everybody.config.is_empty());

    bench.publish(&[("a", "1"), ("b", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(bench.note().await, "web web-1 connected");
    let response = client.receive().await.unwrap().unwrap();
    let sent = operator.fetch_client_status(about("web-1")).await.unwrap().into_inner();
    assert_eq!(lines(&sent, "web-1"), ["Cluster a@ STALE", "Cluster b@ STALE"]);
    client.send(DeltaDiscoveryRequest { response_nonce: response.nonce, ..clusters() }).await;
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    let held = operator.fetch_client_status(about("web-1")).await.unwrap().into_inner();
    assert_eq!(lines(&held, "web-1"), ["Cluster a@1 SYNCED", "Cluster b@1 SYNCED"]);
    assert!(held.config[0].client_scope.starts_with("gateway web, stream 1, ADS, delta"), "{held:?}");

    // A refusal, with the client's words; and what waits behind a response.
    bench.publish(&[("a", "1"), ("b", "2")]);
    let response = client.receive().await.unwrap().unwrap();
    bench.publish(&[("a", "2"), ("b", "2"), ("c", "1")]);
    let words = "Error adding/updating cluster(s) b: no\n".to_owned();
    let mut stream = operator.stream_client_status(tokio_stream::iter([about("web-1")])).await.unwrap().into_inner();
    let waiting = stream.message().await.unwrap().unwrap();
    assert_eq!(lines(&waiting, "web-1"), ["Cluster a@1 NOT_SENT", "Cluster b@1 STALE", "Cluster c@ NOT_SENT"]);
    let error_detail = Some(rpc::Status { message: words, ..rpc::Status::default() });
    client.send(DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..clusters() }).await;
    assert_eq!(client.accept().await, "a@2 c@1");
    while bench.note().await != "Cluster 1 outstanding" {}
    let refused = operator.fetch_client_status(about("web-1")).await.unwrap().into_inner();
    let error = "Cluster b@1 ERROR Error adding/updating cluster(s) b: no of 2";
    assert_eq!(lines(&refused, "web-1"), ["Cluster a@2 SYNCED", error, "Cluster c@1 SYNCED"]);

    // Another stream of the same node, and another node: only who is asked about.
    let other = bench.open().await;
    other.send(first("web-10")).await;
    while bench.note().await != "web web-10 connected" {}
    let twin = bench.open().await;
    twin.send(first("web-1")).await;
    while bench.note().await != "web web-1 connected" {}
    let ids = |response: &ClientStatusResponse| {
        response.config.iter().map(|config| config.node.as_ref().unwrap().id.clone()).collect::<Vec<_>>()
    };
    let everybody = operator.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(ids(&everybody), ["web-1", "web-10", "web-1"]);
    let asked = operator.fetch_client_status(about("web-1")).await.unwrap().into_inner();
    assert_eq!(ids(&asked), ["web-1", "web-1"]);
    drop(client);
    while bench.note().await != "web web-1 disconnected" {}
    assert_eq!(ids(&operator.fetch_client_status(about("web-1")).await.unwrap().into_inner()), ["web-1"]);
}

#[tokio::test]
async fn case_45_csds_has_no_bodies() {
    let mut bench = start(ServerSettings::default()).await;
    let secret =
        || Resource { name: "s".into(), version: Version::new("1"), body: SECRET.into(), owners: Arc::from([]) };
    let snapshot = Snapshot::new().with(ResourceType::Secret, [secret()]);
    bench.source.0.publish(&"web", Arc::new(snapshot));
    let mut client = bench.open().await;
    let type_url = ResourceType::Secret.type_url().to_owned();
    let names = vec!["gone".to_owned(), "s".to_owned()];
    let asks = DeltaDiscoveryRequest { type_url: type_url.clone(), resource_names_subscribe: names, ..first("web-1") };
    client.send(asks).await;
    let response = client.receive().await.unwrap().unwrap();
    let body = response.resources[0].resource.as_ref().unwrap();
    assert_eq!(body.value, SECRET.as_bytes());
    let acknowledges = DeltaDiscoveryRequest { type_url, response_nonce: response.nonce, ..Default::default() };
    client.send(acknowledges).await;
    while bench.note().await != "Secret 0 outstanding" {}
    let mut operator = operator(&bench.sessions).await;
    let answer = operator.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(lines(&answer, "web-1"), ["Secret s@1 SYNCED", "Secret gone@ NOT_SENT"]);
    let missing = &answer.config[0].generic_xds_configs[1];
    assert_eq!(missing.client_status().as_str_name(), "DOES_NOT_EXIST");
    assert_eq!(missing.config_status(), ConfigStatus::NotSent);
    let bytes = prost::Message::encode_to_vec(&answer);
    assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[tokio::test]
async fn case_45_csds_refuses_what_it_cannot_match_and_is_not_on_the_xds_port() {
    let bench = start(ServerSettings::default()).await;
    let mut operator = operator(&bench.sessions).await;
    let matcher = matcher_pb::NodeMatcher { node_metadatas: vec![Default::default()], ..Default::default() };
    let request = || ClientStatusRequest { node_matchers: vec![matcher.clone()], ..Default::default() };
    let status = operator.fetch_client_status(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut stream = operator.stream_client_status(tokio_stream::iter([request()])).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::InvalidArgument);
    let mut gateway = ClientStatusDiscoveryServiceClient::new(bench.channel().await);
    let status = gateway.fetch_client_status(ClientStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn answers_have_a_limit() {
    let mut bench = start(ServerSettings::default()).await;
    bench.publish(&[("a", "1"), ("b", "1")]);
    let client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(bench.note().await, "web web-1 connected");
    assert_eq!(bench.sessions.inspect(2, |_| true).await.unwrap()[0].resources.len(), 2);
    let error = bench.sessions.inspect(1, |_| true).await.unwrap_err();
    assert_eq!(error.to_string(), "more than 1 resources of these gateways together: ask for fewer gateways");
}
