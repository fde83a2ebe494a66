//! `make mesh`: the founding walk-through over two clusters, as processes on this machine.
//!
//! Serves a copy of `config/mesh/manifests`, moved to networks on loopback, over mutual TLS. Sends the requests of the table, takes
//! the nearer copy of an app away, and brings it back. `docker-compose.yml` starts the same from the same manifests.

#![expect(clippy::print_stdout, reason = "it talks to its user")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use support::backend::{Backend, Echo, Identity};
use support::boxes::{self, Boxes};
use support::chancery::{self, Chancery, Settings};
use support::http::{Client, Request};
use support::manifests;
use support::net::Network;
use support::wait::{Not, PATIENCE, until};
use support::world::RunningGateway;

/// First octets of the clusters' networks, unless `--isolated` claims others.
const NETWORKS: [&str; 2] = ["127.0.21", "127.0.22"];

const WEB: &str = "web.istioinaction.io";
const RECS: &str = "test.recommendation.istioinaction.io";
/// The host of the virtual destination.
const VIRTUAL: &str = "recs.mesh.internal";

/// Requests by which a row is judged: each copy of an app answers one of so many.
const REQUESTS: usize = 24;

/// Runs the mesh in boxes and judges it.
#[derive(Debug, Parser)]
struct Arguments {
    /// End after the table: 0 when every answer is as expected, 1 otherwise
    #[arg(long)]
    once: bool,
    /// Use addresses of its own, so that several can run beside each other
    #[arg(long)]
    isolated: bool,
    /// Where the served copy of the manifests and the credentials go; what is there is replaced
    #[arg(long, value_name = "DIR", default_value = "target/mesh")]
    directory: PathBuf,
    /// Write docker-compose.yml and the bootstraps of its Envoys, and end
    #[arg(long)]
    compose: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nThe mesh cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.compose {
        Boxes::of(&manifests::read(&support::project().join(boxes::MANIFESTS))?)?.write()?;
        return Ok(true);
    }
    let claimed = if arguments.isolated { vec![Network::claim()?, Network::claim()?] } else { Vec::new() };
    let networks = match claimed.as_slice() {
        [] => NETWORKS.map(str::to_owned).to_vec(),
        claimed => claimed.iter().map(Network::prefix).collect(),
    };
    let mut mesh = Mesh::start(arguments, &networks).await?;
    mesh.introduce();
    let good = mesh.table().await.map_err(|error| error.context(mesh.logs()))?;
    println!(
        "\n{}",
        if good { "Every answer is as expected." } else { "Some answers are not as expected; they are marked." }
    );
    if !arguments.once {
        mesh.suggest()?;
        support::ended().await?;
        println!("\nEnding what was started.");
    }
    Ok(good)
}

/// Everything that runs.
struct Mesh {
    directory: PathBuf,
    boxes: Boxes,
    chancery: Chancery,
    gateways: Vec<RunningGateway>,
    apps: Vec<Backend>,
    /// Where users come in.
    ingress: SocketAddr,
}

/// What a request of the table is.
#[derive(Clone, Copy)]
enum Ask {
    /// A user's, to a host.
    User(&'static str),
    /// That of the web app to the virtual destination, which a user's causes.
    WebApp,
    /// That of another app of cluster-1.
    App(&'static str),
}

/// What came of a request: the status, and the cluster and name of the app that answered.
type Answer = (u16, String);

impl Mesh {
    async fn start(arguments: &Arguments, networks: &[String]) -> anyhow::Result<Self> {
        let (directory, keys) = (arguments.directory.join("manifests"), arguments.directory.join("keys"));
        manifests::copy(&support::project().join(boxes::MANIFESTS), &directory)?;
        let boxes = Boxes::of(&manifests::read(&directory)?)?;
        boxes::move_to_loopback(&directory, &boxes, networks)?;
        let boxes = Boxes::of(&manifests::read(&directory)?)?;

        let accounts: Vec<String> = boxes.gateways.iter().map(boxes::GatewayBox::path).collect();
        chancery::credentials(&keys, true, &accounts.iter().map(String::as_str).collect::<Vec<_>>(), false)?;
        let settings = Settings { xds_credentials: Some(keys.join("server")), ..Settings::default() };
        let chancery = Chancery::serve(&directory, &settings).await?;
        let mut apps = Vec::new();
        for app in &boxes.apps {
            for address in &app.addresses {
                let leads = boxes.leads.get(&app.identity.cluster).cloned().unwrap_or_default();
                apps.push(Backend::start_app(app.identity.clone(), *address, leads).await?);
            }
        }
        let (mut gateways, mut ingress) = (Vec::new(), None);
        for gateway in &boxes.gateways {
            let own = keys.join("gateways").join(gateway.path());
            let own = own.to_str().context("the directory is no UTF-8")?;
            let flags = ["--xds-credentials", own, "--service-account", &gateway.account];
            let mut running =
                RunningGateway::start_with(gateway.gateway.clone(), gateway.address, chancery.xds(), &flags).await?;
            for port in gateway.gateway.ports.values() {
                let address = SocketAddr::from((gateway.address, *port));
                let listens = running.envoy.listens(address).await;
                listens.map_err(|error| error.context(chancery.log_tail()))?;
                if gateway.is_ingress {
                    ingress = Some(address);
                }
            }
            gateways.push(running);
        }
        let ingress = ingress.context("there is no ingress gateway")?;
        Ok(Self { directory, boxes, chancery, gateways, apps, ingress })
    }

    fn introduce(&self) {
        let (xds, admin) = (self.chancery.xds(), self.chancery.admin());
        println!("Control plane  pid {}, xDS {xds} over mutual TLS, admin http://{admin}", self.chancery.pid());
        for (running, gateway) in self.gateways.iter().zip(&self.boxes.gateways) {
            println!("Gateway        pid {}, {} on {}", running.envoy.pid(), running.gateway.id(), gateway.address);
        }
        for app in &self.apps {
            println!("App            {} at {}", app.identity.backend(), app.address);
        }
        println!("Files          {}\n", self.directory.display());
    }

    fn logs(&self) -> String {
        let logs = self.gateways.iter().map(|running| running.envoy.log_tail());
        logs.chain([self.chancery.log_tail()]).collect::<Vec<_>>().join("\n")
    }

    fn app(&self, cluster: &str, service: &str) -> anyhow::Result<usize> {
        let is_it =
            |app: &Backend| (app.identity.cluster.as_str(), app.identity.service.as_str()) == (cluster, service);
        self.apps.iter().position(is_it).with_context(|| format!("{service} does not run in {cluster}"))
    }

    async fn ask(&self, ask: Ask) -> anyhow::Result<Answer> {
        let shown = |status: u16, by: Option<&Identity>| {
            (status, by.map_or_else(|| "-".to_owned(), |by| format!("{} {}", by.cluster, by.service)))
        };
        let call = format!("/?call={VIRTUAL}");
        let (at, host, path) = match ask {
            Ask::User(host) => (self.ingress, host, "/"),
            Ask::WebApp => (self.ingress, WEB, call.as_str()),
            Ask::App(service) => (self.apps[self.app("cluster-1", service)?].address, "app", call.as_str()),
        };
        let response = Client::new(at).send(&Request::get(host, path)).await?;
        let echo: Option<Echo> = serde_json::from_slice(&response.body).ok();
        if let Ask::User(_) = ask {
            return Ok(shown(response.status, echo.as_ref().map(|echo| &echo.identity)));
        }
        let called = echo.and_then(|echo| echo.called).context("the app called nobody")?;
        ensure!(called.error.is_empty(), "a call of {VIRTUAL}: {}", called.error);
        Ok(shown(called.status, called.by.as_ref()))
    }

    /// Sends the requests of a row until they are answered as expected, and prints it; says whether they ever were.
    async fn row(&self, what: &str, ask: Ask, expected: &[(u16, &str)]) -> anyhow::Result<bool> {
        let mut seen = Vec::new();
        let as_expected = until(PATIENCE, what, async || {
            let mut answers = Vec::new();
            for _ in 0..REQUESTS {
                match self.ask(ask).await {
                    Ok(answer) => answers.push(answer),
                    Err(error) => return Err(Not::Yet(format!("{error:#}"))),
                }
            }
            answers.sort();
            answers.dedup();
            let is_it = answers.iter().map(|(status, by)| (*status, by.as_str())).eq(expected.iter().copied());
            seen = answers;
            if is_it { Ok(()) } else { Err(Not::Yet(format!("{seen:?}"))) }
        });
        let good = as_expected.await;
        let shown: Vec<String> = seen.iter().map(|(status, by)| format!("{status} {by}")).collect();
        println!("{what:<66}  {}{}", shown.join(", "), if good.is_ok() { "" } else { " !" });
        if let Err(error) = &good {
            println!("! {error:#}");
        }
        Ok(good.is_ok())
    }

    async fn table(&mut self) -> anyhow::Result<bool> {
        let web = [(200, "cluster-1 web-api")];
        let both = [(200, "cluster-1 recs"), (200, "cluster-2 recs")];
        let far = [(200, "cluster-2 recs")];
        println!("{:<66}  ANSWERS", "REQUESTS");
        let mut good = self.row("a user asks for the web app", Ask::User(WEB), &web).await?;
        good &= self.row("a user asks for recommendations, by a delegated table", Ask::User(RECS), &both).await?;
        good &=
            self.row("the web app asks for recommendations, by the virtual destination", Ask::WebApp, &both).await?;
        good &= self
            .row("the reports app asks too, and nobody shared them with its team", Ask::App("reports"), &[(404, "-")])
            .await?;

        let (file, near) = (self.directory.join("cluster-1/recommendation/recs.yaml"), self.app("cluster-1", "recs")?);
        let (identity, address) = (self.apps[near].identity.clone(), self.apps[near].address);
        let text = std::fs::read_to_string(&file)?;
        manifests::replace(&file, &text.replace("ready: true", "ready: false"))?;
        good &= self.row("cluster-1 loses its copy: the web app asks again", Ask::WebApp, &far).await?;
        drop(self.apps.remove(near));
        good &= self.row("and the user", Ask::User(RECS), &far).await?;

        self.apps.push(Backend::start_app(identity, address, support::backend::Leads::new()).await?);
        manifests::replace(&file, &text)?;
        good &= self.row("it is back: the web app asks again", Ask::WebApp, &both).await?;
        good &= self.row("and the user", Ask::User(RECS), &both).await?;
        Ok(good)
    }

    fn suggest(&self) -> anyhow::Result<()> {
        let (directory, ingress) = (self.directory.display(), self.ingress);
        let program = chancery::binary()?;
        let program = program.strip_prefix(std::env::current_dir()?).unwrap_or(&program).display();
        println!(
            "
Running until Ctrl-C. To try:

  A user                    curl -H 'Host: {RECS}' http://{ingress}/
  The web app, which calls  curl -H 'Host: {WEB}' 'http://{ingress}/?call={VIRTUAL}'
  Why that answer           {program} explain {directory} --allow-loopback-endpoints \\
                              --gateway cluster-1/gateway/ingress --host {RECS}
  Revoke consent            delete the exportTo of {directory}/cluster-1/recommendation/settings.yaml
                            and ask both again: 500 for the user, 404 for the web app
  What is wrong             {program} check {directory} --allow-loopback-endpoints"
        );
        Ok(())
    }
}
