//! The demo's files on a network of their own, as they are written: comments, several objects per file, real lines.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::backend::{Backend, Identity};
use super::chancery::{Chancery, Settings};
use super::http::{Client, Request, Response};
use super::load::{Load, Pace};
use super::manifests;
use super::net::Network;
use super::project;
use super::wait::{Not, PATIENCE, until};
use super::world::{self, RunningGateway};

/// The host of the web app, and that of the recommendation team.
pub(crate) const WEB: &str = "web.istioinaction.io";
pub(crate) const RECS: &str = "test.recommendation.istioinaction.io";

/// Connections that must be answered alike before every worker counts as changed: the kernel spreads them by chance, so
/// the odds that all of them meet one of two workers are one to two thousand.
const IN_A_ROW: usize = 12;

/// A running demo; everything in it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Demo {
    /// The control plane.
    pub(crate) chancery: Chancery,
    /// The ingress gateway, with statistics of each upstream cluster.
    pub(crate) gateway: RunningGateway,
    /// Where the gateway serves port 80.
    pub(crate) address: SocketAddr,
    /// How the directory is read.
    pub(crate) settings: Settings,
    network: Network,
    backends: Vec<Backend>,
    folder: TempDir,
}

impl Demo {
    /// Copies the files, moves their addresses and ports, and starts everything.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| Ok(())).await
    }

    /// The same with files that are arranged otherwise, before they are served.
    pub(crate) async fn start_with(arrange: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let bind = network.next_address()?;
        let folder = tempfile::tempdir().context("make a folder for the manifests")?;
        let directory = folder.path().join("demo");
        manifests::copy(&project().join("config/demo"), &directory)?;
        let (listen, backend) = (network.free_port()?, network.free_port()?);
        for file in manifests::files(&directory)? {
            let text = std::fs::read_to_string(&file)?;
            let text = text.replace("127.0.10.", &format!("{}.", network.prefix()));
            let text = text.replace("18080", &listen.to_string()).replace("9080", &backend.to_string());
            std::fs::write(&file, text)?;
        }
        let objects = manifests::read(&directory)?;
        arrange(&directory)?;
        let backends = world::start_backends(&objects).await?;
        let settings = Settings::default();
        let chancery = Chancery::serve(&directory, &settings).await?;
        let gateway = world::gateways(&objects).into_iter().next().context("the demo has no gateway")?;
        let mut gateway = RunningGateway::start_with(gateway, bind, chancery.xds(), &["--cluster-stats"]).await?;
        let address = SocketAddr::from((bind, listen));
        gateway.envoy.listens(address).await.map_err(|error| error.context(chancery.log_tail()))?;
        Ok(Self { chancery, gateway, address, settings, network, backends, folder })
    }

    /// The directory that is served.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    /// A file of cluster-1: `gateway/web.yaml`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join("cluster-1").join(name)
    }

    /// The text of a file.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.file(name)).with_context(|| format!("read {name}"))
    }

    /// Puts a text in place of a file, by a rename.
    pub(crate) fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        manifests::replace(&self.file(name), text)
    }

    /// Writes a file in place, as `echo >` does.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.file(name), text).with_context(|| format!("write {name}"))
    }

    /// One more backend, at an address of the demo's network that no file names; and its address and port.
    pub(crate) async fn backend(&mut self, service: &str, host: u8) -> anyhow::Result<SocketAddr> {
        let address: Ipv4Addr = format!("{}.{host}", self.network.prefix()).parse()?;
        let port = self.backends.first().context("no backend")?.address.port();
        let identity =
            Identity { service: service.to_owned(), pod: format!("{service}-{host}"), ..Identity::default() };
        let backend = Backend::start(identity, SocketAddr::from((address, port))).await?;
        let address = backend.address;
        self.backends.push(backend);
        Ok(address)
    }

    /// A port that is free on the demo's network.
    pub(crate) fn free_port(&self) -> anyhow::Result<u16> {
        self.network.free_port()
    }

    /// One request on a connection of its own: the status, and the path and Service that the backend names.
    pub(crate) async fn ask(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        ask(&mut Client::new(self.address), &Request::get(host, path)).await
    }

    /// Waits until a request is answered as wanted, by every worker of the gateway: they change one after the other.
    pub(crate) async fn answers(&self, host: &str, path: &str, wanted: &str) -> anyhow::Result<()> {
        self.answers_times(IN_A_ROW, host, path, wanted).await
    }

    /// Waits until a request is answered as wanted once.
    pub(crate) async fn answers_once(&self, host: &str, path: &str, wanted: &str) -> anyhow::Result<()> {
        self.answers_times(1, host, path, wanted).await
    }

    async fn answers_times(&self, times: usize, host: &str, path: &str, wanted: &str) -> anyhow::Result<()> {
        let what = format!("{wanted} from {host}{path}");
        let waited = until(PATIENCE, &what, async || {
            for _ in 0..times {
                match self.ask(host, path).await {
                    Ok(answer) if answer.to_string() == wanted => {}
                    Ok(answer) => return Err(Not::Yet(answer.to_string())),
                    Err(error) => return Err(Not::Yet(format!("{error:#}"))),
                }
            }
            Ok(())
        });
        waited.await.map_err(|error| error.context(self.chancery.log_tail()))
    }

    /// Sends requests without a pause, on some connections, until told to stop; each answer must begin as wanted.
    pub(crate) fn watch(&self, connections: usize, requests: &[(&str, &str, &str)]) -> Load {
        let wanted: Vec<String> = requests.iter().map(|(_, _, wanted)| (*wanted).to_owned()).collect();
        let requests = requests.iter().map(|(host, path, _)| Request::get(host, path)).collect();
        Load::start(self.address, connections, Pace::Unbounded, requests, move |index, response| {
            let (answer, wanted) = (Answer::of(response).to_string(), &wanted[index]);
            ensure!(answer.starts_with(wanted.as_str()), "{answer}, not {wanted}");
            Ok(())
        })
    }
}

/// What a client learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    status: u16,
    /// The Service that answered; empty where the gateway itself did.
    service: String,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.service.is_empty() {
            write!(f, "{}", self.status)
        } else {
            write!(f, "{} {}", self.status, self.service)
        }
    }
}

impl Answer {
    fn of(response: &Response) -> Self {
        let service = response.json().map(|body| manifests::text(&body, "/service").to_owned()).unwrap_or_default();
        Self { status: response.status, service }
    }
}

async fn ask(client: &mut Client, request: &Request) -> anyhow::Result<Answer> {
    client.send(request).await.map(|response| Answer::of(&response))
}
