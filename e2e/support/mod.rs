//! What the end-to-end tests, the demo and the benches share: real processes, small clients, and patience.
//!
//! Nothing here knows routing. It starts Envoys, control planes and backends on loopback addresses of their own,
//! asks them things, and ends only what it started, by pid. Linux only: it relies on all of 127/8 being loopback.
//!
//! | module | is |
//! |---|---|
//! | [`authorizer`] | authorization servers, gRPC and HTTP, that count what they are asked |
//! | [`backend`] | echo backends, in this process |
//! | [`bench_world`] | the world that the bench measures |
//! | [`boxes`] | the mesh of `config/mesh`, as processes and as containers |
//! | [`chancery`] | the `chancery` binary: `serve`, and the commands that answer once |
//! | [`delegated`] | a small world with delegation, for tests of policies |
//! | [`demo`] | the demo's files, as written, on a network of their own |
//! | [`dns`] | a DNS server that knows a few names |
//! | [`envoy`] | an Envoy process with its admin interface |
//! | [`http`] | a client that keeps address and Host apart |
//! | [`issuer`] | signs tokens, and serves the keys that verify them |
//! | [`kube`] | a real API server with its store, and kubectl |
//! | [`kube_world`] | a world in an API server |
//! | [`limiter`] | the real rate-limit service, which reads its limits from a control plane |
//! | [`load`] | steady requests over many connections, and how they were answered |
//! | [`manifests`] | reading and writing directories of objects |
//! | [`net`] | a network of its own per cluster, 127.x or not loopback |
//! | [`process`] | a child process with a log, killed when dropped |
//! | [`proxy`] | stands between gateways and the control plane: notes what passes, changes what it is told to |
//! | [`random`] | random worlds and requests, from a seed |
//! | [`shop`] | a small world that is edited while it serves |
//! | [`tls`] | certificates, clients with TLS, a backend that ends it |
//! | [`wait`] | waiting for an event |
//! | [`world`] | objects to running processes: networks, backends, control plane, gateways |
//! | [`yaml`] | YAML to JSON values |

#![allow(dead_code, reason = "compiled into several binaries, each of which uses its part")]

pub(crate) mod authorizer;
pub(crate) mod backend;
pub(crate) mod bench_world;
pub(crate) mod boxes;
pub(crate) mod chancery;
pub(crate) mod delegated;
pub(crate) mod demo;
pub(crate) mod dns;
pub(crate) mod envoy;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod kube;
pub(crate) mod kube_world;
pub(crate) mod limiter;
pub(crate) mod load;
pub(crate) mod manifests;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod shop;
pub(crate) mod tls;
pub(crate) mod two_teams;
pub(crate) mod wait;
pub(crate) mod world;
pub(crate) mod yaml;

use std::path::Path;

/// The root of the checkout.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until the user or the system wants this program to end: Ctrl-C, or SIGTERM.
pub(crate) async fn ended() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}
