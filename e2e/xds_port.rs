//! Whatever arrives at the xDS port: those who ask wrongly are told what is missing, and the gateways that are served
//! notice nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::restart::{connected, updates};
use crate::support::demo::{Demo, RECS, WEB};
use crate::support::wait::PATIENCE;

mod crowd;
mod garbage;
pub(crate) mod refusals;
mod warming;

/// Sends bytes that are no HTTP/2 and reads until the server closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset is a way to close too.
    closed.map(drop).context("the connection stays open")
}

pub(crate) fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// A map of texts.
pub(crate) fn labels(labels: &[(&str, &str)]) -> Value {
    let fields = labels.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

pub(crate) fn node(id: &str, metadata: &[(&str, Value)]) -> Node {
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

/// A node that is matched to the demo's gateway.
fn gateway_node(id: &str) -> Node {
    let labels = labels(&[("app", "ingress-gateway")]);
    node(id, &[("cluster", text("cluster-1")), ("namespace", text("gateway")), ("labels", labels)])
}

fn asks(node: Option<Node>) -> DeltaDiscoveryRequest {
    let type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    DeltaDiscoveryRequest { node, type_url, ..DeltaDiscoveryRequest::default() }
}

/// What a stream of these messages is refused with.
async fn refusal(address: SocketAddr, requests: Vec<DeltaDiscoveryRequest>) -> anyhow::Result<Status> {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await?;
    // The stream stays open: it is the server that ends it.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let answers = async {
        let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
        while responses.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    match tokio::time::timeout(PATIENCE, answers).await {
        Ok(Err(status)) => Ok(status),
        Ok(Ok(())) => bail!("the stream ended without an error"),
        Err(_) => bail!("the stream is not refused"),
    }
}

#[tokio::test]
async fn case_44_garbage_is_refused_with_reasons_and_others_are_untouched() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let address = demo.chancery.xds();
    connected(&demo.gateway.envoy, 1).await?;
    let before = updates(&demo.gateway.envoy).await?;
    let watch = demo.watch(2, &[(WEB, "/", "200 web-api"), (RECS, "/", "200 recs")]);

    let noise = garbage::Noise(1).bytes(64 * 1024);
    raw(address, &noise).await?;
    raw(address, b"GET / HTTP/1.1\r\nhost: chancery\r\n\r\n").await?;
    // A right beginning, then noise.
    raw(address, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &noise].concat()).await?;

    let labels = |app: &str| Value {
        kind: Some(Kind::StructValue(Struct { fields: [("app".to_owned(), text(app))].into_iter().collect() })),
    };
    let place = [("cluster", text("cluster-1")), ("namespace", text("gateway"))];
    let with =
        |app: &str| BTreeMap::from(place.clone()).into_iter().chain([("labels", labels(app))]).collect::<Vec<_>>();
    let known = || gateway_node("cluster-1/gateway/other-0");
    let odd_bind: Vec<_> = with("ingress-gateway").into_iter().chain([("bind", text("here"))]).collect();
    let cases: [(&str, Vec<DeltaDiscoveryRequest>, Code, &[&str]); 6] = [
        ("no node", vec![asks(None)], Code::InvalidArgument, &["first message", "node.id"]),
        ("an empty node", vec![asks(Some(Node::default()))], Code::InvalidArgument, &["first message", "node.id"]),
        (
            "no metadata",
            vec![asks(Some(node("one", &[])))],
            Code::InvalidArgument,
            &["`cluster`", "`namespace`", "chancery bootstrap"],
        ),
        (
            "labels that no Service selects",
            vec![asks(Some(node("one", &with("nobody"))))],
            Code::NotFound,
            &["no Service of namespace \"gateway\" in cluster \"cluster-1\"", "app=nobody"],
        ),
        (
            "an odd address to bind",
            vec![asks(Some(node("one", &odd_bind)))],
            Code::InvalidArgument,
            &["`bind`", "here"],
        ),
        (
            "a second node on a stream",
            vec![asks(Some(known())), asks(Some(node("another", &with("ingress-gateway"))))],
            Code::InvalidArgument,
            &["cluster-1/gateway/other-0", "another", "a stream per node"],
        ),
    ];
    for (name, requests, code, says) in cases {
        let status = refusal(address, requests).await.context(name)?;
        ensure!(status.code() == code, "{name}: {status:?}");
        for part in says {
            ensure!(status.message().contains(part), "{name}: `{part}` is not in: {}", status.message());
        }
    }

    let rounds = garbage::throw(address, gateway_node("cluster-1/gateway/garbage-0")).await?;
    ensure!(rounds > 500, "{rounds} rounds of garbage");
    garbage::is_told_why(address, gateway_node("cluster-1/gateway/garbage-0")).await?;

    watch.end().await?;
    let log = demo.chancery.log_tail();
    ensure!(!log.contains("panicked"), "{log}");
    connected(&demo.gateway.envoy, 1).await?;
    let after = updates(&demo.gateway.envoy).await?;
    ensure!(after == before, "updates before {before:?}, after the garbage {after:?}");
    // And it still follows.
    let web = demo.read("gateway/web.yaml")?;
    demo.replace("gateway/web.yaml", &web.replace("namespace: web-api", "namespace: nowhere"))?;
    demo.answers(WEB, "/", "500").await
}
