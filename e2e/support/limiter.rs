//! The real rate-limit service: reads its limits from a control plane and answers gateways.
//!
//! `make ratelimit` builds it from `e2e/ratelimit`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use tempfile::TempDir;

use super::http::{Client, Request};
use super::net::Network;
use super::process::Process;
use super::project;
use super::wait::{Not, PATIENCE, until};

/// A running service; killed when dropped.
#[derive(Debug)]
pub(crate) struct Limiter {
    id: String,
    xds: SocketAddr,
    process: Process,
    /// Where it shows its limits.
    debug: SocketAddr,
    /// Where gateways ask.
    pub(crate) address: SocketAddr,
    network: Network,
    folder: TempDir,
}

fn find() -> anyhow::Result<PathBuf> {
    let binary = project().join(".ratelimit/ratelimit");
    ensure!(binary.is_file(), "no rate-limit service at {}: run `make ratelimit`", binary.display());
    Ok(binary)
}

impl Limiter {
    /// Starts a service that states an id to a control plane, and waits until it answers.
    pub(crate) async fn start(id: &str, xds: SocketAddr) -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let host = network.next_address()?;
        let (address, debug) =
            (SocketAddr::from((host, network.free_port()?)), SocketAddr::from((host, network.free_port()?)));
        let folder = tempfile::tempdir()?;
        let process = run(id, xds, (address, debug), &network, &folder)?;
        let limiter = Self { id: id.to_owned(), xds, process, debug, address, network, folder };
        limiter.ready().await?;
        Ok(limiter)
    }

    /// Ends it; gateways that ask get no answer.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was, with counters of zero.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        self.process = run(&self.id, self.xds, (self.address, self.debug), &self.network, &self.folder)?;
        self.ready().await
    }

    async fn ready(&self) -> anyhow::Result<()> {
        self.shows("its limits", |_| true).await
    }

    /// The limits in force, one to a line.
    pub(crate) async fn limits(&self) -> anyhow::Result<String> {
        Ok(Client::new(self.debug).send(&Request::get("debug", "/rlconfig")).await?.text())
    }

    /// Waits until the limits in force are as wanted.
    pub(crate) async fn shows(&self, what: &str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let seen = until(PATIENCE, what, async || match self.limits().await {
            Ok(limits) if is_it(&limits) => Ok(()),
            Ok(limits) => Err(Not::Yet(limits)),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        });
        seen.await.map_err(|error| error.context(self.process.log_tail()))
    }
}

fn run(
    id: &str,
    xds: SocketAddr,
    (address, debug): (SocketAddr, SocketAddr),
    network: &Network,
    folder: &TempDir,
) -> anyhow::Result<Process> {
    let host = address.ip().to_string();
    let mut command = Command::new(find()?);
    command
        .current_dir(folder.path())
        .env("CONFIG_TYPE", "GRPC_XDS_SOTW")
        .env("CONFIG_GRPC_XDS_SERVER_URL", xds.to_string())
        .env("CONFIG_GRPC_XDS_NODE_ID", id)
        .env("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "100ms")
        .env("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "1s")
        .env("USE_STATSD", "false")
        .env("DISABLE_STATS", "true")
        .env("LOG_LEVEL", "INFO")
        .env("HOST", &host)
        .env("GRPC_HOST", &host)
        .env("DEBUG_HOST", &host)
        .env("PORT", network.free_port()?.to_string())
        .env("GRPC_PORT", address.port().to_string())
        .env("DEBUG_PORT", debug.port().to_string());
    Process::start(&format!("rate-limit service {id}"), &mut command, folder.path().join("log"))
}
