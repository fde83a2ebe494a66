//! The `chancery` binary: `serve` as a process, the other commands as calls.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Request};
use super::process::Process;
use super::wait::{Not, PATIENCE, until};

/// The folder under which the management cluster's objects stand.
pub(crate) const MANAGEMENT_CLUSTER: &str = "mgmt";

/// The folder for what is kept over a restart, beside the ready file.
const STATE: &str = "state";

/// The binary: what cargo built for this test, else the one beside the folder of the running example.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    if let Some(built) = option_env!("CARGO_BIN_EXE_chancery") {
        return Ok(PathBuf::from(built));
    }
    // target/<profile>/examples/demo and target/<profile>/deps/bench-… stand one folder below it.
    let own = std::env::current_exe().context("find the running program")?;
    let folder = own.parent().and_then(Path::parent).context("the running program has no folder")?;
    let binary = folder.join("chancery");
    if !binary.is_file() {
        bail!("{} is missing: run `cargo build`", binary.display());
    }
    Ok(binary)
}

/// What decides how a directory is read, for `serve` and for the commands alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `--delegation-consent`, if not the default.
    pub(crate) consent: Option<&'static str>,
    /// `--require-auth`.
    pub(crate) require_auth: bool,
    /// `--management-cluster`, if not [`MANAGEMENT_CLUSTER`].
    pub(crate) management: Option<&'static str>,
    /// `--kubeconfig` of `serve`, in place of a directory.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `--read-only` of `serve`.
    pub(crate) read_only: bool,
    /// `--xds-credentials` of `serve`.
    pub(crate) xds_credentials: Option<PathBuf>,
    /// How many files and connections `serve` may have open.
    pub(crate) open_files: Option<u32>,
}

impl Settings {
    fn apply(&self, command: &mut Command) {
        let management = self.management.unwrap_or(MANAGEMENT_CLUSTER);
        command.args(["--management-cluster", management, "--allow-loopback-endpoints"]);
        if let Some(consent) = self.consent {
            command.args(["--delegation-consent", consent]);
        }
        if self.require_auth {
            command.arg("--require-auth");
        }
    }
}

/// What `serve` writes once it listens and has published its first snapshots.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Ready {
    xds: SocketAddr,
    admin: SocketAddr,
    pid: u32,
}

/// A running control plane; killed when dropped.
#[derive(Debug)]
pub(crate) struct Chancery {
    directory: PathBuf,
    settings: Settings,
    folder: TempDir,
    process: Process,
    ready: Ready,
}

impl Chancery {
    /// Serves a directory on ports that the system picks, and waits until the first snapshots are published.
    pub(crate) async fn serve(directory: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for chancery")?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (process, ready) = start(directory, settings, &folder, any).await?;
        Ok(Self { directory: directory.to_owned(), settings: settings.clone(), folder, process, ready })
    }

    /// The same for what API servers hold.
    pub(crate) async fn serve_kubernetes(kubeconfig: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let settings = Settings { kubeconfig: Some(kubeconfig.to_owned()), ..settings.clone() };
        Self::serve(Path::new(""), &settings).await
    }

    /// Where gateways connect.
    pub(crate) fn xds(&self) -> SocketAddr {
        self.ready.xds
    }

    /// Where the admin interface listens.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    /// What it keeps over a restart.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join(STATE)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// The end of the log, for error messages.
    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// The whole log, of all its processes.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        self.process.log()
    }

    /// Ends the control plane as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks the control plane to end, as an orchestrator does, and waits until it has.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status().context("run kill")?;
        ensure!(asked.success(), "kill ended with {asked}");
        let ended =
            until(PATIENCE, "chancery to end", async || self.process.ended().ok_or(Not::Yet("it runs".to_owned())))
                .await?;
        ensure!(ended.success(), "it ended with {ended}");
        Ok(())
    }

    /// Starts the control plane again, on the xDS port that gateways know.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let (process, ready) = start(&self.directory, &self.settings, &self.folder, self.ready.xds).await?;
        self.process = process;
        self.ready = ready;
        Ok(())
    }

    /// Waits until the admin interface calls the control plane ready.
    pub(crate) async fn is_ready(&self) -> anyhow::Result<()> {
        until(PATIENCE, "200 from /readyz", async || match http::get(self.ready.admin, "admin", "/readyz").await {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(Not::Yet(format!("{}: {}", response.status, response.text()))),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await
    }
}

async fn start(
    directory: &Path,
    settings: &Settings,
    folder: &TempDir,
    xds: SocketAddr,
) -> anyhow::Result<(Process, Ready)> {
    let ready_file = folder.path().join("ready.json");
    if ready_file.exists() {
        std::fs::remove_file(&ready_file).context("remove the old ready file")?;
    }
    let mut command = match settings.open_files {
        None => Command::new(binary()?),
        Some(limit) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(binary()?);
            command
        }
    };
    match &settings.kubeconfig {
        Some(kubeconfig) => command.arg("serve").arg("--kubeconfig").arg(kubeconfig),
        None => command.arg("serve").arg(directory),
    };
    if settings.read_only {
        command.arg("--read-only");
    }
    command.args(["--xds-address", &xds.to_string(), "--admin-address", "127.0.0.1:0"]);
    command.arg("--ready-file").arg(&ready_file);
    command.arg("--state").arg(folder.path().join(STATE));
    if let Some(credentials) = &settings.xds_credentials {
        command.arg("--xds-credentials").arg(credentials);
    }
    settings.apply(&mut command);
    let mut process = Process::start("chancery serve", &mut command, folder.path().join("log"))?;
    let waited = until(PATIENCE, "chancery to be ready", async || {
        if let Some(status) = process.ended() {
            return Err(Not::Ever(format!("it ended with {status}")));
        }
        let text = std::fs::read_to_string(&ready_file).map_err(|error| format!("no ready file ({error})"))?;
        serde_json::from_str::<Ready>(&text)
            .map_err(|error| Not::Ever(format!("a ready file that is not valid: {error}")))
    })
    .await;
    match waited {
        Ok(ready) => Ok((process, ready)),
        Err(error) => Err(error.context(process.log_tail())),
    }
}

/// Makes the credentials of xDS in a directory, with `chancery credentials`; `path` is that of a ServiceAccount, in `gateways` too.
pub(crate) fn credentials(directory: &Path, server: bool, accounts: &[&str], token: bool) -> anyhow::Result<()> {
    let mut command = Command::new(binary()?);
    command.arg("credentials").arg(directory);
    if server {
        command.args(["--server", "127.0.0.1", "--server", "control.example"]);
    }
    for account in accounts {
        command.args(["--gateway", account]);
    }
    if token {
        command.arg("--token");
    }
    let output = run(&mut command)?;
    ensure!(output.status.success(), "chancery credentials: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Answers `chancery status` of a running control plane.
pub(crate) fn status(admin: SocketAddr) -> anyhow::Result<Value> {
    let output =
        Command::new(binary()?).args(["status", "--server", &format!("http://{admin}"), "-o", "json"]).output()?;
    ensure!(output.status.success(), "chancery status: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Answers `chancery explain` for one request to a gateway, `cluster/namespace/service`.
pub(crate) fn explain(
    directory: &Path,
    settings: &Settings,
    gateway: &str,
    request: &Request,
) -> anyhow::Result<Value> {
    explain_at(directory, settings, gateway, None, request)
}

/// The same for a port of an east-west gateway and who sends the request.
pub(crate) fn explain_for(
    directory: &Path,
    settings: &Settings,
    gateway: &str,
    port: u16,
    client: &str,
    request: &Request,
) -> anyhow::Result<Value> {
    let further = ["--port", &port.to_string(), "--client", client];
    explain_with(directory, settings, gateway, &further, request)
}

/// The same for one port of the gateway Service.
pub(crate) fn explain_at(
    directory: &Path,
    settings: &Settings,
    gateway: &str,
    port: Option<u16>,
    request: &Request,
) -> anyhow::Result<Value> {
    let port = port.map(|port| port.to_string());
    let further: Vec<&str> = port.iter().flat_map(|port| ["--port", port]).collect();
    explain_with(directory, settings, gateway, &further, request)
}

fn explain_with(
    directory: &Path,
    settings: &Settings,
    gateway: &str,
    further: &[&str],
    request: &Request,
) -> anyhow::Result<Value> {
    let mut command = Command::new(binary()?);
    command.arg("explain").arg(directory).args(["--gateway", gateway]);
    command.args(["--host", &request.host, "--path", &request.path, "--method", &request.method]);
    command.args(further);
    for (name, value) in &request.headers {
        command.args(["--header", &format!("{name}: {value}")]);
    }
    command.args(["-o", "json"]);
    settings.apply(&mut command);
    let output = run(&mut command)?;
    if !output.status.success() {
        bail!("chancery explain ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&output)
}

/// The same of a running control plane, with who acknowledged the answer, for a connection that names a server.
pub(crate) fn explain_of_server(
    admin: SocketAddr,
    gateway: &str,
    port: u16,
    server_name: &str,
    request: &Request,
) -> anyhow::Result<Value> {
    explain_live(admin, gateway, &["--port", &port.to_string(), "--server-name", server_name], request)
}

/// The same with any further flags.
pub(crate) fn explain_live(
    admin: SocketAddr,
    gateway: &str,
    further: &[&str],
    request: &Request,
) -> anyhow::Result<Value> {
    let mut command = Command::new(binary()?);
    command.args(["explain", "--server", &format!("http://{admin}"), "--gateway", gateway]);
    command.args(["--host", &request.host, "--path", &request.path, "--method", &request.method]);
    command.args(further).args(["-o", "json"]);
    let output = run(&mut command)?;
    ensure!(output.status.success(), "chancery explain: {}", String::from_utf8_lossy(&output.stderr));
    parse(&output)
}

/// Answers `chancery render` for a gateway, byte for byte.
pub(crate) fn render(directory: &Path, settings: &Settings, gateway: &str) -> anyhow::Result<String> {
    let mut command = Command::new(binary()?);
    command.arg("render").arg(directory).args(["--gateway", gateway]);
    settings.apply(&mut command);
    let output = run(&mut command)?;
    if !output.status.success() {
        bail!("chancery render ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("the resources are not UTF-8")
}

/// Answers `chancery check`: the report, and whether the command calls the directory free of errors.
pub(crate) fn check(directory: &Path, settings: &Settings) -> anyhow::Result<(Value, bool)> {
    let mut command = Command::new(binary()?);
    command.arg("check").arg(directory).args(["-o", "json"]);
    settings.apply(&mut command);
    let output = run(&mut command)?;
    match output.status.code() {
        Some(0) => Ok((parse(&output)?, true)),
        Some(1) => Ok((parse(&output)?, false)),
        _ => bail!("chancery check ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// Who an Envoy says that it is.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// Cluster.
    pub(crate) cluster: &'a str,
    /// Namespace.
    pub(crate) namespace: &'a str,
    /// Pod name.
    pub(crate) pod: &'a str,
    /// Pod labels.
    pub(crate) labels: Vec<(&'a str, &'a str)>,
    /// Address that its listeners bind.
    pub(crate) bind: std::net::Ipv4Addr,
}

/// An Envoy bootstrap for a control plane, made by `chancery bootstrap`; the admin interface gets any port.
pub(crate) fn bootstrap(xds: SocketAddr, node: &Node<'_>, flags: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(binary()?);
    command.args(["bootstrap", "--xds-address", &xds.to_string(), "--admin-address", "127.0.0.1:0"]);
    command.args(["--cluster", node.cluster, "--namespace", node.namespace, "--pod", node.pod]);
    command.args(["--bind", &node.bind.to_string()]);
    for (key, value) in &node.labels {
        command.args(["--label", &format!("{key}={value}")]);
    }
    command.args(flags);
    let output = run(&mut command)?;
    if !output.status.success() {
        bail!("chancery bootstrap ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("the bootstrap is not UTF-8")
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let shown = format!("chancery {}", arguments.join(" "));
    command.output().with_context(|| format!("run {shown}"))
}

fn parse(output: &Output) -> anyhow::Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "the answer is not JSON: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
