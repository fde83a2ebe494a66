//! `make mesh`: the founding walk-through over two clusters, as processes on this machine.
//!
//! Serves a copy of `config/mesh/manifests`, moved to networks on loopback, over mutual TLS. Sends the requests of the table, kills
//! the nearer copy of an app, and starts it again. `docker-compose.yml` starts the same from the same manifests.

#![expect(clippy::print_stdout, reason = "it talks to its user")]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use support::backend::{Echo, Identity};
use support::boxes::{self, AppBox, Boxes};
use support::chancery::{self, Chancery, Settings};
use support::http::{Client, Request};
use support::manifests;
use support::net::Network;
use support::process::Process;
use support::wait::{Not, PATIENCE, until};
use support::world::RunningGateway;

/// First octets of the clusters' networks, unless `--isolated` claims others.
const NETWORKS: [&str; 2] = ["127.0.21", "127.0.22"];

const WEB: &str = "web.istioinaction.io";
const RECS: &str = "test.recommendation.istioinaction.io";
/// The host of the virtual destination.
const VIRTUAL: &str = "recs.mesh.internal";

/// Requests by which a row is judged: each version of an app answers one of so many.
const REQUESTS: usize = 24;

/// The app that dies, by cluster and name.
const DIES: (&str, &str) = ("cluster-1", "recs");

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
    apps: Vec<App>,
    /// Where users come in.
    ingress: SocketAddr,
}

/// An app and its process.
struct App {
    what: AppBox,
    process: Process,
}

impl App {
    /// Starts it. It listens when this returns.
    async fn start(what: AppBox, boxes: &Boxes, logs: &Path) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find the running program")?;
        let program = own.with_file_name("echo");
        ensure!(program.is_file(), "{} is missing: run `cargo build --examples`", program.display());
        let mut command = Command::new(program);
        command.args(what.arguments(&boxes.leads_of(&what.identity.cluster)));
        let name = what.name();
        let mut process = Process::start(&name, &mut command, logs.join(format!("{name}.log")))?;
        for address in &what.addresses {
            until(PATIENCE, &format!("{name} at {address}"), async || {
                if let Some(status) = process.ended() {
                    return Err(Not::Ever(format!("it ended with {status}: {}", process.log_tail())));
                }
                tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string().into())
            })
            .await?;
        }
        Ok(Self { what, process })
    }
}

/// What a request of the table is.
#[derive(Clone, Copy)]
enum Ask {
    /// A user's, to a host.
    User(&'static str),
    /// The same, to delete something.
    Delete(&'static str),
    /// That of the web app to the virtual destination, which a user's causes.
    WebApp,
    /// That of another app of cluster-1.
    App(&'static str),
}

/// What came of a request: the status, and the cluster, name and version of the app that answered.
type Answer = (u16, String);

/// How others came to answer all requests.
struct Turn {
    /// From when they did.
    after: std::time::Duration,
    /// Requests that were answered by nobody until then.
    failed: usize,
}

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
            apps.push(App::start(app.clone(), &boxes, &arguments.directory).await?);
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
            println!("App            pid {}, {} at {}", app.process.pid(), app.what.name(), app.what.addresses[0]);
        }
        println!("Files          {}\n", self.directory.display());
    }

    fn logs_folder(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    fn logs(&self) -> String {
        let logs = self.gateways.iter().map(|running| running.envoy.log_tail());
        logs.chain([self.chancery.log_tail()]).collect::<Vec<_>>().join("\n")
    }

    fn app(&self, cluster: &str, service: &str) -> anyhow::Result<usize> {
        let is_it = |app: &App| {
            let Identity { cluster: own, service: name, .. } = &app.what.identity;
            (own.as_str(), name.as_str()) == (cluster, service)
        };
        self.apps.iter().position(is_it).with_context(|| format!("{service} does not run in {cluster}"))
    }

    async fn ask(&self, ask: Ask) -> anyhow::Result<Answer> {
        let shown = |status: u16, by: Option<&Identity>| {
            let who = |by: &Identity| format!("{} {} {}", by.cluster, by.service, by.version).trim_end().to_owned();
            (status, by.map_or_else(|| "-".to_owned(), who))
        };
        let call = format!("/?call={VIRTUAL}");
        let (at, host, path) = match ask {
            Ask::User(host) | Ask::Delete(host) => (self.ingress, host, "/"),
            Ask::WebApp => (self.ingress, WEB, call.as_str()),
            Ask::App(service) => (self.apps[self.app("cluster-1", service)?].what.addresses[0], "app", call.as_str()),
        };
        let mut request = Request::get(host, path);
        if let Ask::Delete(_) = ask {
            request.method = "DELETE".to_owned();
        }
        let response = Client::new(at).send(&request).await?;
        let echo: Option<Echo> = serde_json::from_slice(&response.body).ok();
        if let Ask::User(_) | Ask::Delete(_) = ask {
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

    /// Sends requests until as many in a row as judge a row are answered by one app.
    async fn turn(&self, ask: Ask, by: &str) -> anyhow::Result<Turn> {
        let (begun, mut turn, mut in_a_row) = (Instant::now(), Turn { after: PATIENCE, failed: 0 }, 0);
        let mut last = String::new();
        while in_a_row < REQUESTS {
            ensure!(begun.elapsed() < PATIENCE, "{by} did not take over, {} failed; last seen: {last}", turn.failed);
            match self.ask(ask).await {
                Ok((200, who)) if who == by => {
                    if in_a_row == 0 {
                        turn.after = begun.elapsed();
                    }
                    in_a_row += 1;
                    continue;
                }
                Ok((200, who)) => last = who,
                Ok((status, _)) => {
                    turn.failed += 1;
                    last = status.to_string();
                }
                Err(error) => {
                    turn.failed += 1;
                    last = format!("{error:#}");
                }
            }
            in_a_row = 0;
        }
        Ok(turn)
    }

    /// The web app and a user ask at once, each through a gateway of his own, until an app answers both; prints both rows.
    async fn turns(&self, what: &str, by: &str) -> bool {
        let (web_app, user) = tokio::join!(self.turn(Ask::WebApp, by), self.turn(Ask::User(RECS), by));
        let mut good = true;
        for (what, turn) in [(format!("{what}: the web app asks again"), web_app), ("and the user".to_owned(), user)] {
            match turn {
                Ok(Turn { after, failed }) => {
                    println!("{what:<66}  200 {by}, after {} ms, {failed} failed", after.as_millis());
                }
                Err(error) => {
                    println!("{what:<66}  !\n! {error:#}");
                    good = false;
                }
            }
        }
        good
    }

    async fn table(&mut self) -> anyhow::Result<bool> {
        let web = [(200, "cluster-1 web-api v1"), (200, "cluster-1 web-api v2")];
        let (near, far) = ("cluster-1 recs", "cluster-2 recs");
        println!("{:<66}  ANSWERS", "REQUESTS");
        let mut good = self.row("a user asks for the web app, which has two versions", Ask::User(WEB), &web).await?;
        good &=
            self.row("a user asks for recommendations, by a delegated table", Ask::User(RECS), &[(200, near)]).await?;
        good &= self
            .row("a user deletes some, and their team lets users only read", Ask::Delete(RECS), &[(403, "-")])
            .await?;
        good &= self
            .row("the web app asks for recommendations, by the virtual destination", Ask::WebApp, &[(200, near)])
            .await?;
        good &= self
            .row("the reports app asks too, and nobody shared them with its team", Ask::App("reports"), &[(404, "-")])
            .await?;

        let killed = self.app(DIES.0, DIES.1)?;
        let App { what, mut process } = self.apps.remove(killed);
        process.kill();
        good &= self.turns("the copy in cluster-1 is killed", far).await;
        self.apps.push(App::start(what, &self.boxes, self.logs_folder()).await?);
        good &= self.turns("it is started again", near).await;
        Ok(good)
    }

    fn suggest(&self) -> anyhow::Result<()> {
        let (directory, ingress) = (self.directory.display(), self.ingress);
        let pid = self.apps[self.app(DIES.0, DIES.1)?].process.pid();
        let program = chancery::binary()?;
        let program = program.strip_prefix(std::env::current_dir()?).unwrap_or(&program).display();
        println!(
            "
Running until Ctrl-C. To try:

  A user                    curl -H 'Host: {RECS}' http://{ingress}/
  The web app, which calls  curl -H 'Host: {WEB}' 'http://{ingress}/?call={VIRTUAL}'
  Kill the nearer copy      kill {pid}
                            and ask both again: cluster-2 answers
  Why that answer           {program} explain {directory} --allow-loopback-endpoints \\
                              --gateway cluster-1/gateway/ingress --host {RECS}
  Revoke consent            delete the exportTo of {directory}/cluster-1/recommendation/settings.yaml
                            and ask both again: 500 for the user, 404 for the web app
  What is wrong             {program} check {directory} --allow-loopback-endpoints"
        );
        Ok(())
    }
}
