//! An Envoy process with its admin interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::process::Process;
use super::wait::{Not, PATIENCE, until};
use super::{http, project};

/// Finds the Envoy to run: `ENVOY` if set, else `envoy` on PATH, else the one that `make envoy` installs.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("ENVOY").filter(|given| !given.is_empty()) {
        let given = PathBuf::from(given);
        if !given.is_file() {
            bail!("ENVOY names {}, which is not a file", given.display());
        }
        return Ok(given);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("envoy"));
    on_path
        .chain([project().join(".venv/bin/envoy")])
        .find(|candidate| candidate.is_file())
        .context("no Envoy found: run `make envoy`, put `envoy` on PATH, or set ENVOY")
}

/// The releases that are served, the newest patch of each, oldest first. The last is the one that [`find`] finds, the
/// others are those of the Makefile.
pub(crate) const RELEASES: [&str; 5] = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0"];

/// The oldest release that is served.
pub(crate) const OLDEST: &str = RELEASES[0];

/// Finds one of [`RELEASES`].
pub(crate) fn find_release(version: &str) -> anyhow::Result<PathBuf> {
    if RELEASES.last() == Some(&version) {
        return find();
    }
    let binary = project().join(".envoy").join(version).join("envoy/_bin/envoy");
    if !binary.is_file() {
        bail!("no Envoy {version} at {}: run `make envoys`", binary.display());
    }
    Ok(binary)
}

/// A running Envoy; killed when dropped.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Process,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Envoy {
    /// Starts an Envoy from a bootstrap (YAML or JSON, admin on port 0 of loopback) and waits for its admin interface.
    pub(crate) async fn start(name: &str, bootstrap: &str) -> anyhow::Result<Self> {
        Self::start_binary(&find()?, name, bootstrap).await
    }

    /// The same with a binary of one's choice.
    pub(crate) async fn start_binary(binary: &Path, name: &str, bootstrap: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Envoy")?;
        let file = folder.path().join("bootstrap.yaml");
        std::fs::write(&file, bootstrap).context("write the bootstrap")?;
        let admin_file = folder.path().join("admin");
        let mut command = Command::new(binary);
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin_file);
        // Without hot restart there is no base id to share, and nothing is left in shared memory by a kill.
        command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
        // As in a Pod, whose search list would complete names.
        command.env("LOCALDOMAIN", "svc.cluster.local").env("RES_OPTIONS", "ndots:5");
        let mut process = Process::start(&format!("envoy {name}"), &mut command, folder.path().join("log"))?;
        let admin = until(PATIENCE, "Envoy's admin address", async || read_admin(&admin_file, &mut process)).await;
        match admin {
            Ok(admin) => Ok(Self { process, admin, _folder: folder }),
            Err(error) => Err(error.context(process.log_tail())),
        }
    }

    /// Where the admin interface listens.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The end of the log, for error messages.
    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Asks the admin interface.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let response = http::get(self.admin, "admin", path).await?;
        if response.status != 200 {
            bail!("Envoy's admin answers {} to {path}: {}", response.status, response.text());
        }
        Ok(response.text())
    }

    /// Counters and gauges whose names match a regular expression; a stat that was never touched is absent.
    pub(crate) async fn stats(&self, filter: &str) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = self.admin(&format!("/stats?filter={filter}")).await?;
        // Histograms have values that are no numbers; they are not asked for here.
        let number = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(number).collect())
    }

    /// Waits until something accepts connections at an address of this Envoy.
    pub(crate) async fn listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let process = &mut self.process;
        let waited = until(PATIENCE, &format!("a listener on {address}"), async || {
            if let Some(status) = process.ended() {
                return Err(Not::Ever(format!("Envoy ended with {status}")));
            }
            tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string().into())
        })
        .await;
        waited.map_err(|error| error.context(self.process.log_tail()))
    }
}

fn read_admin(file: &Path, process: &mut Process) -> Result<SocketAddr, Not> {
    if let Some(status) = process.ended() {
        return Err(Not::Ever(format!("Envoy ended with {status}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("no address file ({error})"))?;
    text.trim().parse().map_err(|_| format!("`{}` in the address file", text.trim()).into())
}
