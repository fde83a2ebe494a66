//! Rounds of garbage: random bytes, frames that make no sense, sessions that break at every byte (case 44).
//!
//! HTTP/2 is written by hand here, since no client library can be talked into this.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::wait::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// HTTP/2 frame types and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
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
    let text = |out: &mut Vec<u8>, text: &str| {
        // A length of 7 bits and, above that, groups of 7 bits.
        let mut rest = text.len();
        if rest < 127 {
            out.push(rest as u8);
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
    };
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn grpc_headers<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "chancery"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    hpack(&[usual.as_slice(), more].concat())
}

/// A gRPC message: whether it says that it is compressed, its length, its bytes.
fn message(compressed: bool, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[u8::from(compressed)], length.as_slice(), bytes].concat()
}

/// A connection with one stream that sends messages.
fn session(path: &str, more: &[(&str, &str)], messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &grpc_headers(path, more)));
    for message in messages {
        bytes.extend(frame(DATA, 0, 1, message));
    }
    bytes
}

/// Sends bytes, and gives back what comes within a moment.
async fn send(address: SocketAddr, bytes: &[u8], patience: Duration) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // An end, a reset and silence are all fine.
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    Ok(answer)
}

/// What a session of one message is answered with: the bytes of its trailers.
async fn answer(address: SocketAddr, name: &str, bytes: Vec<u8>, says: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&bytes).await?;
    let mut seen = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        // Trailers come uncompressed or by Huffman code; either way they end the stream.
        while !ends_stream(&seen) {
            let count = stream.read(&mut chunk).await?;
            if count == 0 {
                break;
            }
            seen.extend_from_slice(&chunk[..count]);
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::time::timeout(PATIENCE, read).await.with_context(|| format!("{name}: no answer"))??;
    ensure!(ends_stream(&seen), "{name}: the connection ended without an answer");
    let text = String::from_utf8_lossy(&seen);
    ensure!(text.contains(says), "{name}: `{says}` is not in {text:?}");
    Ok(())
}

/// Whether a frame in these bytes ends stream 1: headers with that flag, or a reset.
fn ends_stream(mut bytes: &[u8]) -> bool {
    while let [a, b, c, kind, flags, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if rest.len() < 4 + length {
            return false;
        }
        let stream = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        if stream == 1 && ((*kind == HEADERS && flags & END_STREAM != 0) || *kind == 3) {
            return true;
        }
        bytes = &rest[4 + length..];
    }
    false
}

fn first_message(node: Node) -> Vec<u8> {
    let type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let request = DeltaDiscoveryRequest { node: Some(node), type_url, ..DeltaDiscoveryRequest::default() };
    message(false, &request.encode_to_vec())
}

/// Sends all kinds of garbage, hundreds of connections of it; the server lives on if it takes another afterwards.
pub(super) async fn throw(address: SocketAddr, node: Node) -> anyhow::Result<usize> {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let valid = session(ADS, &[], &[first_message(node.clone())]);
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
        rounds.push(session(ADS, &[], &[first_message(node.clone()), bytes]));
    }
    let count = rounds.len();
    let mut running = JoinSet::new();
    for bytes in rounds {
        running.spawn(async move { send(address, &bytes, GLIMPSE).await });
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
    let huge = "x".repeat(64 << 10);
    for (name, bytes, says) in [
        ("a compressed message", session(ADS, &[], &[message(true, b"\x1f\x8b")]), "compress"),
        ("an unknown compression", session(ADS, &[("grpc-encoding", "zstd")], &[first()]), "zstd"),
        ("no message at all", session(ADS, &[], &[message(false, &[0xff; 40])]), "decode"),
        ("an unknown service", session("/chancery.Nothing/Here", &[], &[first()]), "served"),
        ("headers of 64 kB", session(ADS, &[("x-huge", &huge)], &[first()]), ""),
    ] {
        answer(address, name, bytes, says).await?;
    }
    Ok(())
}
