//! Rounds of garbage: random bytes, frames that make no sense, sessions that break at every byte (case 44).
//!
//! HTTP/2 is written by hand here, since no client library can be talked into this.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::wait::{Not, PATIENCE, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// HTTP/2 frame types and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

/// How long a connection is listened to that the server may rightly keep open.
const GLIMPSE: Duration = Duration::from_millis(20);

/// Connections at a time.
const AT_ONCE: usize = 16;

/// Numbers that look random and are the same in every run.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end.max(1)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next() as u8).take(length).collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers in HPACK, each a literal that is not indexed.
fn hpack(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            // Lengths below 127 are one byte.
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn grpc_headers() -> Vec<u8> {
    hpack(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", ADS),
        (":authority", "chancery"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// A gRPC message: whether it says that it is compressed, its length, its bytes.
fn message(compressed: bool, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[u8::from(compressed)], length.as_slice(), bytes].concat()
}

/// A connection with one stream that sends messages.
fn session(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &grpc_headers()));
    for message in messages {
        bytes.extend(frame(DATA, 0, 1, message));
    }
    bytes
}

/// Sends bytes, listens for a moment and goes.
async fn send(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // An end, a reset and silence are all fine.
    let _ = tokio::time::timeout(GLIMPSE, stream.read_to_end(&mut answer)).await;
    Ok(answer)
}

/// What a request of one message is answered with: HTTP status, gRPC status and its text, as far as there are any.
async fn answer(
    address: SocketAddr,
    path: &str,
    more: &[(&str, &str)],
    message: Vec<u8>,
) -> anyhow::Result<(u16, String, String)> {
    let mut request = hyper::Request::post(format!("http://{address}{path}"));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(more) {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let answers = async {
        let response = client.request(request.body(Full::new(Bytes::from(message)))?).await?;
        let (head, body) = response.into_parts();
        let trailers = body.collect().await?.trailers().cloned().unwrap_or_default();
        let field = |name| {
            let value = head.headers.get(name).or(trailers.get(name));
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).replace("%20", " ")).unwrap_or_default()
        };
        Ok((head.status.as_u16(), field("grpc-status"), field("grpc-message")))
    };
    tokio::time::timeout(PATIENCE, answers).await.context("no answer")?
}

fn first_message(node: Node) -> Vec<u8> {
    let type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let request = DeltaDiscoveryRequest { node: Some(node), type_url, ..DeltaDiscoveryRequest::default() };
    message(false, &request.encode_to_vec())
}

/// Sends all kinds of garbage, hundreds of connections of it; the server lives on if it takes another afterwards.
pub(super) async fn throw(address: SocketAddr, node: Node) -> anyhow::Result<usize> {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let valid = session(&[first_message(node.clone())]);
    // What is broken below is right as long as it is whole.
    let served = until(PATIENCE, "an answer to the session", async || {
        let answer = send(address, &valid).await.map_err(|error| error.to_string())?;
        let type_url = b"envoy.config.cluster.v3.Cluster";
        let is_served = answer.windows(type_url.len()).any(|window| window == type_url);
        if is_served { Ok(()) } else { Err(Not::Yet(format!("{answer:?}"))) }
    });
    served.await?;
    let mut rounds: Vec<Vec<u8>> = Vec::new();
    // Noise alone, and noise after a right beginning.
    for _ in 0..50 {
        let length = noise.below(4096);
        rounds.push(noise.bytes(length));
        let length = noise.below(4096);
        rounds.push([PREFACE, &frame(SETTINGS, 0, 0, &[]), &noise.bytes(length)].concat());
    }
    // Frames of any type, with any flags, on any stream.
    for _ in 0..100 {
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for _ in 0..noise.below(20) {
            let length = noise.below(64);
            let payload = noise.bytes(length);
            let (kind, flags, stream) = (noise.below(12) as u8, noise.next() as u8, noise.below(6) as u32);
            bytes.extend(frame(kind, flags, stream, &payload));
        }
        rounds.push(bytes);
    }
    // A session that ends at every byte.
    rounds.extend((0..valid.len()).map(|end| valid[..end].to_vec()));
    // A session with a few bytes changed.
    for _ in 0..200 {
        let mut bytes = valid.clone();
        for _ in 0..=noise.below(4) {
            let at = noise.below(bytes.len());
            bytes[at] = noise.next() as u8;
        }
        rounds.push(bytes);
    }
    // Messages that are none, whole and announced longer than they are.
    for _ in 0..50 {
        let length = noise.below(512);
        let mut bytes = message(false, &noise.bytes(length));
        if noise.below(2) == 0 {
            bytes[4] = bytes[4].wrapping_add(40);
        }
        rounds.push(session(&[first_message(node.clone()), bytes]));
    }
    let count = rounds.len();
    let mut running = JoinSet::new();
    for bytes in rounds {
        running.spawn(async move { send(address, &bytes).await });
        if running.len() == AT_ONCE {
            running.join_next().await.context("no round")???;
        }
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(count)
}

/// What is wrong is named where a client can read it.
pub(super) async fn is_told_why(address: SocketAddr, node: Node) -> anyhow::Result<()> {
    let first = || first_message(node.clone());
    for (name, path, more, message, code, says) in [
        ("a compressed message", ADS, [].as_slice(), message(true, b"\x1f\x8b"), Code::Internal, "compress"),
        ("an unknown compression", ADS, &[("grpc-encoding", "zstd")], first(), Code::Unimplemented, "zstd"),
        ("no message at all", ADS, &[], message(false, &[0xff; 40]), Code::Internal, "decode"),
        ("an unknown service", "/chancery.Nothing/Here", &[], first(), Code::Unimplemented, "served are ADS"),
    ] {
        let (_, status, text) = answer(address, path, more, message).await.context(name)?;
        ensure!(status == (code as i32).to_string(), "{name}: status {status}, {text}");
        ensure!(text.contains(says), "{name}: `{says}` is not in {text}");
    }
    // Before there is a request there is no gRPC status.
    let huge = "x".repeat(64 << 10);
    match answer(address, ADS, &[("x-huge", &huge)], first()).await {
        Ok((status, ..)) => ensure!(status == 431, "headers of 64 kB: HTTP status {status}"),
        Err(error) => ensure!(!format!("{error:#}").contains("no answer"), "headers of 64 kB: {error:#}"),
    }
    Ok(())
}
