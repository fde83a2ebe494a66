//! A real Envoy whose connection breaks while it takes a cluster in (case 24).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::snapshot::{Resource, ResourceType, Snapshot};
use chancery::xds::inspection::Sessions;
use chancery::xds::observation::{Observation, StreamId};
use chancery::xds::server::{Access, ServerSettings, serve};
use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_pb;
use envoy_types::pb::google::protobuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::refusals::{Events, Shared, bootstrap, listener, resource};
use crate::support::envoy::Envoy;
use crate::support::wait::{Not, PATIENCE, until};

/// Endpoints of the cluster: more bytes than [`CUT_AFTER`], far more than the cluster itself.
const ENDPOINTS: u32 = 4000;

/// What a connection is to suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    /// The server is heard for [`CUT_AFTER`] bytes more.
    Held,
    /// Who is held is cut off; everybody else is passed on.
    Cut,
}

/// Bytes of the server that still pass while a connection is held.
const CUT_AFTER: usize = 20_000;

/// How long Envoy waits for the endpoints of a cluster that is warming.
const WARMING: Duration = Duration::from_secs(15);

/// Passes connections on, or not.
async fn proxy(to: SocketAddr, fate: watch::Receiver<Fate>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let (Ok((near, _)), Ok(far)) = (listener.accept().await, TcpStream::connect(to).await) {
            let mut fate = fate.clone();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = near.into_split();
                let (mut from_server, mut to_server) = far.into_split();
                let down = async {
                    let mut buffer = vec![0; 4096];
                    let mut passed = 0;
                    loop {
                        let count = from_server.read(&mut buffer).await?;
                        if count == 0 {
                            return Ok(());
                        }
                        to_client.write_all(&buffer[..count]).await?;
                        passed = if *fate.borrow() == Fate::Held { passed + count } else { 0 };
                        if passed > CUT_AFTER {
                            // An error means that the test is over.
                            let _ = fate.wait_for(|fate| *fate == Fate::Cut).await;
                            return Ok::<_, std::io::Error>(());
                        }
                    }
                };
                // Whichever side ends, both do.
                tokio::select! {
                    _ = down => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    Ok(address)
}

/// A cluster with endpoints by EDS; the timeout makes one content differ from another.
fn cluster(timeout: i64) -> Resource {
    let ads = core_pb::config_source::ConfigSourceSpecifier::Ads(core_pb::AggregatedConfigSource {});
    let source = core_pb::ConfigSource {
        resource_api_version: core_pb::ApiVersion::V3.into(),
        config_source_specifier: Some(ads),
        ..Default::default()
    };
    let eds = cluster_pb::cluster::EdsClusterConfig { eds_config: Some(source), ..Default::default() };
    let kind = cluster_pb::cluster::ClusterDiscoveryType::Type(cluster_pb::cluster::DiscoveryType::Eds.into());
    let cluster = cluster_pb::Cluster {
        name: "a".to_owned(),
        connect_timeout: Some(protobuf::Duration { seconds: timeout, nanos: 0 }),
        cluster_discovery_type: Some(kind),
        eds_cluster_config: Some(eds),
        ..Default::default()
    };
    resource("a", &cluster)
}

fn endpoints() -> Resource {
    let endpoint = |port| {
        let socket = core_pb::SocketAddress {
            address: Ipv4Addr::LOCALHOST.to_string(),
            port_specifier: Some(core_pb::socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        };
        let address = core_pb::Address { address: Some(core_pb::address::Address::SocketAddress(socket)) };
        let endpoint = endpoint_pb::Endpoint { address: Some(address), ..Default::default() };
        let identifier = endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint);
        endpoint_pb::LbEndpoint { host_identifier: Some(identifier), ..Default::default() }
    };
    let locality = endpoint_pb::LocalityLbEndpoints {
        lb_endpoints: (1..=ENDPOINTS).map(endpoint).collect(),
        ..Default::default()
    };
    let assignment = endpoint_pb::ClusterLoadAssignment {
        cluster_name: "a".to_owned(),
        endpoints: vec![locality],
        ..Default::default()
    };
    resource("a", &assignment)
}

fn snapshot(timeout: i64, listeners: &[&str]) -> Arc<Snapshot> {
    let snapshot = Snapshot::new().with(ResourceType::Cluster, [cluster(timeout)]);
    let snapshot = snapshot.with(ResourceType::Endpoint, [endpoints()]);
    Arc::new(snapshot.with(ResourceType::Listener, listeners.iter().map(|name| listener(name, true))))
}

/// Waits until a stream holds all resources of a type; which stream, and on which others were sent before, in order.
async fn settled(
    events: &mut mpsc::UnboundedReceiver<Observation>,
    resource_type: ResourceType,
) -> anyhow::Result<(StreamId, Vec<(StreamId, ResourceType)>)> {
    let mut sent = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        match event.with_context(|| format!("only {sent:?} in time"))?.context("the server ended")? {
            Observation::Sent(peer, sending) => sent.push((peer.stream, sending.resource_type)),
            Observation::Acknowledged(peer, news) if news.resource_type == resource_type && news.outstanding == 0 => {
                return Ok((peer.stream, sent));
            }
            _ => {}
        }
    }
}

/// While the cluster is warming and nobody is connected, a listener comes. Envoy may have it only after the clusters.
async fn check(api_type: &str) -> anyhow::Result<()> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (fate, fates) = watch::channel(Fate::Passed);
    let address = proxy(port.local_addr()?, fates).await?;
    let source = Arc::new(Shared(watch::Sender::new(Some(snapshot(1, &["listener/80"])))));
    let (sender, mut events) = mpsc::unbounded_channel();
    let settings = ServerSettings::default();
    let observer = Arc::new(Events(sender));
    let server = tokio::spawn(serve(
        (port, Access::Anybody),
        source.clone(),
        observer,
        Sessions::default(),
        settings,
        std::future::pending(),
    ));
    let envoy = Envoy::start("warming", &bootstrap(address, api_type)).await?;
    let failed = |error: anyhow::Error| error.context(envoy.log_tail()).context(api_type.to_owned());
    let (before, _) = settled(&mut events, ResourceType::Listener).await.map_err(failed)?;

    // The cluster arrives, and its endpoints don't.
    fate.send_replace(Fate::Held);
    source.0.send_replace(Some(snapshot(2, &["listener/80"])));
    until(PATIENCE, "a cluster that is warming", async || {
        match envoy.stats("^cluster_manager.warming_clusters$").await {
            Ok(stats) if stats.values().eq([&1]) => Ok(()),
            Ok(stats) => Err(Not::Yet(format!("{stats:?}"))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        }
    })
    .await?;
    source.0.send_replace(Some(snapshot(3, &["listener/80", "listener/90"])));
    fate.send_replace(Fate::Cut);
    let begun = Instant::now();
    let (after, mut sent) = settled(&mut events, ResourceType::Cluster).await.map_err(failed)?;
    ensure!(before != after, "{api_type}: the connection was not cut in between");
    ensure!(begun.elapsed() < WARMING - Duration::from_secs(3), "{api_type}: it took {:?}", begun.elapsed());
    let (held, more) = settled(&mut events, ResourceType::Listener).await.map_err(failed)?;
    ensure!(held == after, "{api_type}: another stream");
    sent.extend(more);
    let first = |wanted| sent.iter().position(|(stream, sent)| *stream == after && *sent == wanted);
    let (cluster, listener) = (first(ResourceType::Cluster), first(ResourceType::Listener));
    ensure!(cluster.is_some() && cluster < listener, "{api_type}: {sent:?}");
    server.abort();
    Ok(())
}

#[tokio::test]
async fn case_24_a_connection_that_breaks_while_a_cluster_is_warming_costs_no_time() -> anyhow::Result<()> {
    check("DELTA_GRPC").await
}

#[tokio::test]
async fn case_24_it_costs_no_time_with_the_state_of_the_world_either() -> anyhow::Result<()> {
    check("GRPC").await
}
