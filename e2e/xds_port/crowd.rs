//! Many streams that have nothing to do: what one costs, and how fast news reach all (case 43).

#![expect(clippy::print_stdout, reason = "the figures are what the test is for")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::gateway_node;
use crate::support::demo::Demo;
use crate::support::wait::PATIENCE;

/// Streams on one server, as many on a connection as it allows.
const STREAMS: usize = 2000;
const STREAMS_PER_CONNECTION: usize = 32;

/// Bytes of memory that a stream may cost, its part of the connection included.
const STREAM_BYTES: u64 = 64 << 10;

/// Every route configuration, by the explicit wildcard.
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process' status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kilobytes << 10)
}

/// One gateway that follows routes, acknowledges everything and tells each time that it got something.
async fn follow(channel: Channel, number: usize, news: mpsc::UnboundedSender<usize>) -> anyhow::Result<()> {
    let (requests, outgoing) = mpsc::channel(2);
    let request =
        |nonce: String| DeltaDiscoveryRequest { type_url: ROUTES.into(), response_nonce: nonce, ..Default::default() };
    let first = DeltaDiscoveryRequest {
        node: Some(gateway_node(&format!("cluster-1/gateway/idle-{number}"))),
        resource_names_subscribe: vec!["*".to_owned()],
        ..request(String::new())
    };
    requests.send(first).await?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        requests.send(request(response.nonce)).await?;
        if news.send(number).is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits until each of the streams has got something.
async fn all(news: &mut mpsc::UnboundedReceiver<usize>) -> anyhow::Result<()> {
    let mut told = vec![false; STREAMS];
    let mut left = STREAMS;
    while left > 0 {
        let number = tokio::time::timeout(PATIENCE, news.recv()).await;
        let number = number.with_context(|| format!("{left} streams got nothing"))?.context("all streams ended")?;
        left -= usize::from(!std::mem::replace(&mut told[number], true));
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::new(format!("http://{address}"))?.connect().await?)
}

#[tokio::test]
async fn case_43_two_thousand_idle_streams() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let (address, pid) = (demo.chancery.xds(), demo.chancery.pid());
    let before = resident(pid)?;
    let (sender, mut news) = mpsc::unbounded_channel();
    let mut streams = tokio::task::JoinSet::new();
    let mut channel = connect(address).await?;
    for number in 0..STREAMS {
        if number > 0 && number % STREAMS_PER_CONNECTION == 0 {
            channel = connect(address).await?;
        }
        streams.spawn(follow(channel.clone(), number, sender.clone()));
    }
    all(&mut news).await?;
    let per_stream = resident(pid)?.saturating_sub(before) / STREAMS as u64;

    let begun = Instant::now();
    let web = demo.read("gateway/web.yaml")?;
    demo.replace("gateway/web.yaml", &web.replace("namespace: web-api", "namespace: nowhere"))?;
    all(&mut news).await?;
    let took: Duration = begun.elapsed();
    println!("{STREAMS} idle streams: {per_stream} bytes each; from an edit to the last of them {took:?}");
    ensure!(per_stream <= STREAM_BYTES, "{per_stream} bytes per stream");
    ensure!(streams.try_join_next().is_none(), "a stream ended");
    Ok(())
}
