//! A world in files, the control plane that serves it, and Envoys for its gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::ads::{self, Holder};
use super::probe::Probe;
use super::report::milliseconds;
use crate::support::bench_world::{self, CLUSTER_NAME, GATEWAY_NAME, NAMESPACE, PORTS, World};
use crate::support::chancery::{Chancery, Settings};
use crate::support::net::Network;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Gateway, RunningGateway};

/// No message for so long means that there is none left.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// A world that is served.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Its size.
    pub(crate) world: World,
    /// The control plane.
    pub(crate) chancery: Chancery,
    network: Network,
    folder: TempDir,
}

impl Scene {
    /// Writes a world, and whatever else belongs to it, and serves it. Its first probe answers `answer`.
    pub(crate) async fn start(
        world: World,
        answer: &str,
        more: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::start_in(tempfile::tempdir().context("make a folder for the manifests")?, world, answer, more).await
    }

    /// The same in a folder.
    pub(crate) async fn start_in(
        folder: TempDir,
        world: World,
        answer: &str,
        more: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        world.write(folder.path())?;
        world.first_probe().answer(folder.path(), answer)?;
        more(folder.path())?;
        let chancery = Chancery::serve(folder.path(), &Settings::default()).await?;
        Ok(Self { world, chancery, network: Network::claim()?, folder })
    }

    /// The files.
    pub(crate) fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Changes the route of the first probe.
    pub(crate) fn edit(&self, answer: &str) -> anyhow::Result<()> {
        self.world.first_probe().answer(self.directory(), answer)
    }

    /// An address for a gateway.
    pub(crate) fn address(&self) -> anyhow::Result<Ipv4Addr> {
        self.network.next_address()
    }

    /// A client that stands for a gateway, and holds everything.
    pub(crate) async fn holder(&self, bind: Ipv4Addr) -> anyhow::Result<Holder> {
        let mut holder =
            Holder::open(self.chancery.xds(), ads::envoy_node("holder", GATEWAY_NAME, &bind.to_string())).await?;
        holder.settle(SILENCE).await?;
        Ok(holder)
    }

    /// An error with what the control plane logged last.
    pub(crate) fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(self.chancery.log_tail())
    }
}

/// Starts an Envoy for the gateway.
pub(crate) async fn envoy(bind: Ipv4Addr, xds: SocketAddr) -> anyhow::Result<RunningGateway> {
    let gateway = Gateway {
        cluster: CLUSTER_NAME.to_owned(),
        namespace: NAMESPACE.to_owned(),
        service: GATEWAY_NAME.to_owned(),
        labels: [("app".to_owned(), GATEWAY_NAME.to_owned())].into_iter().collect(),
        ports: [PORTS].into_iter().collect(),
    };
    RunningGateway::start(gateway, bind, xds).await
}

/// Waits until a gateway answers a probe as it should, and says when it first did.
pub(crate) async fn served(
    bind: Ipv4Addr,
    asks: bench_world::Probe,
    answer: &'static str,
) -> anyhow::Result<(Probe, Instant)> {
    let address = SocketAddr::from((bind, PORTS.1));
    // There is no event for a port that a foreign process opens.
    until(2 * PATIENCE, &format!("{address} to listen"), async || {
        TcpStream::connect(address).await.map(drop).map_err(|error| Not::Yet(error.to_string()))
    })
    .await?;
    tokio::task::spawn_blocking(move || {
        let mut probe = Probe::open(address, asks)?;
        let (status, body) = probe.ask()?;
        let at = Instant::now();
        ensure!((status, body.as_str()) == (200, answer), "the first answer is {status} {body:?}");
        Ok((probe, at))
    })
    .await?
}

/// What [`change`] does.
pub(crate) type Act = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// Does something, and waits until a probe sees it: how long it took.
pub(crate) async fn change(
    mut probe: Probe,
    (old, new): (&'static str, &'static str),
    act: Act,
) -> anyhow::Result<(Probe, Duration)> {
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        act()?;
        let at = probe.until(old, new)?;
        Ok((probe, at.duration_since(begun)))
    })
    .await?
}

/// A file that is written beside its place, to be renamed into it.
pub(crate) fn rename(file: &Path, text: &str) -> anyhow::Result<Act> {
    let (beside, file) = (file.with_extension("tmp"), file.to_owned());
    std::fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    Ok(Box::new(move || std::fs::rename(&beside, &file).with_context(|| format!("rename to {}", file.display()))))
}

/// A port that takes connections before there is a server behind it, so that an Envoy need not try again and again.
#[derive(Debug)]
pub(crate) struct Gate {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    task: AbortHandle,
}

impl Gate {
    /// Opens the port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the gate cannot listen")?;
        let (address, target) = (listener.local_addr()?, watch::Sender::new(None));
        let targets = target.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, targets.clone()));
            }
        });
        Ok(Self { address, target, task: task.abort_handle() })
    }

    /// Where Envoys connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets those who wait through to a server.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        self.target.send_replace(Some(server));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut stream: TcpStream, mut targets: watch::Receiver<Option<SocketAddr>>) -> anyhow::Result<()> {
    let target = *targets.wait_for(Option::is_some).await?;
    let mut server = TcpStream::connect(target.context("no target")?).await?;
    stream.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// The ratio of two durations.
pub(crate) fn ratio(of: Duration, to: Duration) -> f64 {
    milliseconds(of) / milliseconds(to)
}
