//! How streams and connections end, and what the server says about itself.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

/// An address that leads to the server until `cut` is dropped; then nothing passes any more, in neither direction, and
/// nobody is told.
async fn cable(to: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (cut, mut pulled) = oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {
                // Whoever ends the connection ends the other side too.
                let _ = near.shutdown().await;
            }
            _ = &mut pulled => {
                // Both sockets stay open as long as the test runs.
                std::future::pending::<()>().await;
            }
        }
    });
    (address, cut)
}

#[tokio::test]
async fn case_29_a_pulled_cable_is_noticed_within_two_intervals() {
    let interval = Duration::from_secs(1);
    let settings = ServerSettings { keepalive_interval: interval, keepalive_timeout: interval, ..Default::default() };
    let mut bench = start(settings).await;
    bench.publish(&[("a", "1")]);
    let (address, cut) = cable(bench.address).await;
    let mut client = Client::open(address).await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    for expected in ["web web-1 connected", "Cluster 0 outstanding"] {
        assert_eq!(bench.note().await, expected);
    }
    assert_eq!(bench.sessions.peers().len(), 1);
    drop(cut);
    let pulled = Instant::now();
    assert_eq!(bench.note().await, "web web-1 disconnected");
    // The rest is for a machine that is busy.
    assert!(pulled.elapsed() < 2 * interval + Duration::from_secs(2), "{:?}", pulled.elapsed());
    assert!(bench.sessions.peers().is_empty());
}

#[tokio::test]
async fn case_29_an_idle_connection_lives() {
    let interval = Duration::from_millis(50);
    let settings = ServerSettings {
        keepalive_interval: interval,
        keepalive_timeout: Duration::from_secs(5),
        ..Default::default()
    };
    let bench = start(settings).await;
    bench.publish(&[("a", "1")]);
    let mut client = bench.open().await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    // Nothing is said for many intervals.
    assert!(tokio::time::timeout(10 * interval, client.responses.message()).await.is_err());
    bench.publish(&[("a", "2")]);
    assert_eq!(client.accept().await, "a@2");
}

#[tokio::test]
async fn case_30_a_drain_is_spread_and_serves_to_its_end() {
    const STREAMS: usize = 60;
    let Bench { source, address, notes: _notes, sessions, stop, served } = start(ServerSettings::default()).await;
    let publish = |version: &str| {
        let resource =
            Resource { name: "a".into(), version: Version::new(version), body: "".into(), owners: Arc::from([]) };
        source.0.publish(&"web", Arc::new(Snapshot::new().with(ResourceType::Cluster, [resource])));
    };
    publish("1");
    let mut clients = Vec::new();
    for number in 0..STREAMS {
        let mut client = Client::open(address).await;
        client.send(first(&format!("web-{number}"))).await;
        client.receive().await.unwrap().unwrap();
        clients.push(client);
    }
    let probe = Client::connect(address).await;
    stop.send(()).unwrap();
    let stopped = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for mut client in clients {
        waiting.spawn(async move {
            let status = client.refusal().await;
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            stopped.elapsed()
        });
    }
    let ends = waiting.join_all().await;
    // 10 ms for each of them: the last is long after the first.
    let (first_end, last_end) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*last_end - *first_end > Duration::from_millis(300), "{ends:?}");
    // Neither on a connection that was there nor on a new one.
    let (_requests, receiver) = mpsc::channel(1);
    let mut probe = AggregatedDiscoveryServiceClient::new(probe);
    let refused = probe.delta_aggregated_resources(ReceiverStream::new(receiver)).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::Unavailable);
    drop(probe);
    tokio::time::timeout(PATIENCE, served).await.expect("the server returns").unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert!(sessions.peers().is_empty());
}

#[tokio::test]
async fn case_30_health_says_when_the_server_stops() {
    let bench = start(ServerSettings::default()).await;
    let mut health = HealthClient::new(bench.channel().await);
    let everything = HealthCheckRequest { service: String::new() };
    let status = health.check(everything.clone()).await.unwrap().into_inner().status();
    assert_eq!(status.as_str_name(), "SERVING");
    let mut watch = health.watch(everything).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status().as_str_name(), "SERVING");
    bench.stop.send(()).unwrap();
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("news in time");
    assert_eq!(next.unwrap().unwrap().status().as_str_name(), "NOT_SERVING");
}

/// An address that leads to the server, and the number of connections that were made to it.
async fn counter(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut far = TcpStream::connect(to).await.unwrap();
            // Ends when either side does.
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop) });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn streams_end_at_their_age_and_their_connections_make_room() {
    let age = Duration::from_millis(800);
    let mut bench = start(ServerSettings { stream_age: age, ..ServerSettings::default() }).await;
    bench.publish(&[("a", "1")]);
    let (address, connections) = counter(bench.address).await;
    let channel = Client::connect(address).await;
    let begin = Instant::now();
    let mut client = Client::open_on(channel.clone()).await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    let status = client.refusal().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("reached its age: connect again"), "{status:?}");
    assert!(begin.elapsed() >= age.mul_f64(0.75), "{:?}", begin.elapsed());
    for expected in ["web web-1 connected", "Cluster 0 outstanding", "web web-1 disconnected"] {
        assert_eq!(bench.note().await, expected);
    }
    // The connection has been told to go, so that the next stream is opened on another: perhaps elsewhere.
    let mut client = Client::open_on(channel).await;
    client.send(first("web-1")).await;
    assert_eq!(client.accept().await, "a@1");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn case_27_an_envoy_that_asks_for_no_clusters_is_reported_once() {
    let mut settings = ServerSettings::default();
    settings.session.stuck_after = Some(Duration::from_millis(100));
    let mut bench = start(settings).await;
    bench.publish(&[("a", "1")]);
    let envoy = |id: &str, version: Option<u32>| {
        let version = version.map(|minor_number| {
            let version =
                envoy_types::pb::envoy::r#type::v3::SemanticVersion { major_number: 1, minor_number, patch: 0 };
            let build = core_pb::BuildVersion { version: Some(version), metadata: None };
            core_pb::node::UserAgentVersionType::UserAgentBuildVersion(build)
        });
        let node = core_pb::Node { id: id.to_owned(), user_agent_version_type: version, ..core_pb::Node::default() };
        let type_url = ResourceType::Listener.type_url().to_owned();
        DeltaDiscoveryRequest { node: Some(node), type_url, ..DeltaDiscoveryRequest::default() }
    };
    // A client that is no Envoy may never need clusters.
    let grpc = bench.open().await;
    grpc.send(envoy("web-grpc", None)).await;
    for expected in ["web web-grpc connected", "Listener 0 outstanding"] {
        assert_eq!(bench.note().await, expected);
    }
    let mut stuck = bench.open().await;
    stuck.send(envoy("web-stuck", Some(40))).await;
    assert!(bench.note().await.ends_with("web-stuck connected"));
    assert_eq!(bench.note().await, "Listener 0 outstanding");
    let note = bench.note().await;
    let waited: u64 = note.strip_prefix("web-stuck stuck for ").unwrap().strip_suffix(" ms").unwrap().parse().unwrap();
    assert!(waited >= 100, "{note}");
    // It is served all the same when it comes round to it; the listeners' empty answer comes first.
    assert!(stuck.receive().await.unwrap().unwrap().resources.is_empty());
    stuck.send(clusters()).await;
    assert_eq!(stuck.accept().await, "a@1");
    assert_eq!(bench.note().await, "Cluster 0 outstanding");
    drop(stuck);
    assert_eq!(bench.note().await, "web web-stuck disconnected");
}
