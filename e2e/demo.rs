//! The demo: the three teams of the founding walk-through on one ingress Envoy, judged against `explain`.
//!
//! Serves a copy of `config/demo`, so that edits do not dirty the checkout. For each request it asks
//! `chancery explain` what must happen, sends the request, and compares: the answer, which backend served it, and
//! which policies left their mark on what the backend and the client received. Nothing about the expected outcome is
//! written here; delete a policy file, and both sides change.

#![expect(clippy::print_stdout, reason = "the demo talks to its user")]

#[path = "demo/on_kubernetes.rs"]
mod on_kubernetes;
mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use on_kubernetes::Servers;
use serde_json::Value;
use support::backend::{Backend, Echo};
use support::chancery::{self, Chancery, Settings};
use support::http::{Client, Request, Response};
use support::manifests::{self, Manifest, list, text, texts};
use support::net::Network;
use support::wait::PATIENCE;
use support::world::{self, RunningGateway};

/// What the files say about backends; `--isolated` puts another network in its place.
const NETWORK: &str = "127.0.10.";
/// The file whose weights are edited, and the host that it serves.
const SPLIT: (&str, &str) = ("cluster-1/gateway/web.yaml", "web.istioinaction.io");
/// A token of the shop for `alice`, good until 2100. The key that signed it was thrown away.
const TOKEN: &str = "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL3Nob3AuaXN0aW9pbmFjdGlvbi5pbyIsInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.iEiMFLCeRN9R6nsquAhDgyefBup6dv098OOxWDpAzfwAiAy9cS1bnHjFVCRZFDinXCitAhIa6UGdu-ZRubQ76g";
/// Requests by which the split is judged: with 90 to 10, one standard deviation is 1.3 %.
const SPLIT_REQUESTS: u32 = 500;
/// Requests that a window of the moving split looks at.
const WINDOW: usize = 40;

/// Runs the founding walk-through and judges it.
#[derive(Debug, Parser)]
struct Arguments {
    /// End after the table: 0 when every answer is as explained, 1 otherwise
    #[arg(long)]
    once: bool,
    /// Use addresses of its own, so that several demos can run beside each other
    #[arg(long)]
    isolated: bool,
    /// Serve the objects from two real API servers in place of the directory, and judge their statuses too
    #[arg(long)]
    kubernetes: bool,
    /// Serve the objects from this API server, the current context of a kubeconfig, in place of two of its own; the demo runs
    /// beside it, and deletes at its end what it made there
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the served copy of config/demo goes; what is there is replaced
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    directory: PathBuf,
    /// Leave out a file of config/demo, by its path there
    #[arg(long, value_name = "FILE")]
    without: Vec<String>,
}

/// The requests of the table.
fn requests() -> Vec<Request> {
    let recommendation = "test.recommendation.istioinaction.io";
    vec![
        Request::get(SPLIT.1, "/"),
        Request::get(recommendation, "/"),
        Request::get(recommendation, "/").header("origin", "https://shop.istioinaction.io"),
        Request::get(recommendation, "/batch/today"),
        Request::get(recommendation, "/mine"),
        Request::get(recommendation, "/mine").header("authorization", TOKEN),
        Request::get("nobody.istioinaction.io", "/"),
    ]
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nThe demo cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; says whether every answer was as explained.
async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let network = match (arguments.kubernetes || arguments.kubeconfig.is_some(), arguments.isolated) {
        (true, _) => Some(Network::claim_routed()?),
        (false, true) => Some(Network::claim()?),
        (false, false) => None,
    };
    let demo = Demo::start(arguments, network.as_ref()).await?;
    demo.introduce();
    let mut good = demo.table().await?;
    good &= demo.judge_split().await?;
    if let Some(servers) = &demo.servers {
        good &= servers.judge_statuses(&demo.directory, &demo.settings).await?;
        demo.move_split().await?;
    }
    if good {
        println!("\nEvery answer is as explained.");
    } else {
        println!("\nSome answers are not as explained; they are marked.");
    }
    if !arguments.once {
        if demo.servers.is_none() {
            demo.move_split().await?;
        }
        demo.suggest()?;
        support::ended().await?;
        println!("\nEnding what was started.");
    }
    demo.servers.as_ref().map_or(Ok(()), Servers::leave)?;
    Ok(good)
}

/// Everything that runs.
struct Demo {
    directory: PathBuf,
    settings: Settings,
    effects: Vec<Effect>,
    /// The API servers, where they are the source.
    servers: Option<Servers>,
    chancery: Chancery,
    gateway: RunningGateway,
    address: SocketAddr,
    backends: Vec<Backend>,
}

impl Demo {
    async fn start(arguments: &Arguments, network: Option<&Network>) -> anyhow::Result<Self> {
        let source = support::project().join("config/demo");
        let directory = arguments.directory.clone();
        manifests::copy(&source, &directory)?;
        for file in &arguments.without {
            std::fs::remove_file(directory.join(file)).with_context(|| format!("leave out {file}"))?;
        }
        let bind = match network {
            Some(network) => {
                renumber(&directory, &format!("{}.", network.prefix()))?;
                network.next_address()?
            }
            None => Ipv4Addr::LOCALHOST,
        };
        if arguments.kubeconfig.is_some() {
            // One cluster is both.
            std::fs::rename(directory.join("mgmt"), directory.join("cluster-1/mgmt"))
                .context("move the admin's files")?;
        }
        let manifests = manifests::read(&directory)?;
        let backends = world::start_backends(&manifests).await?;
        let gateway = world::gateways(&manifests).into_iter().next().context("config/demo has no gateway")?;
        let target = gateway.ports.values().next().context("the gateway has no port")?;
        let address = SocketAddr::from((bind, *target));
        std::net::TcpListener::bind(address)
            .with_context(|| format!("the gateway cannot listen on {address}; does another demo run?"))?;

        let management = arguments.kubeconfig.as_ref().map(|_| "cluster-1");
        let settings = Settings { management, ..Settings::default() };
        let servers = match &arguments.kubeconfig {
            Some(given) => Some(Servers::given(given, &manifests, &gateway).await?),
            None if arguments.kubernetes => Some(Servers::start(&manifests, &gateway).await?),
            None => None,
        };
        let chancery = match &servers {
            Some(servers) => Chancery::serve_kubernetes(&servers.kubeconfig()?, &settings).await?,
            None => Chancery::serve(&directory, &settings).await?,
        };
        let mut gateway = RunningGateway::start(gateway, bind, chancery.xds()).await?;
        if let Err(error) = gateway.envoy.listens(address).await {
            bail!("{error:#}\n{}", chancery.log_tail());
        }
        // From the source: what a file that was left out would have done must not be seen either.
        let effects = effects(&manifests::read(&source)?);
        Ok(Self { directory, settings, effects, servers, chancery, gateway, address, backends })
    }

    fn introduce(&self) {
        println!(
            "Control plane  pid {}, xDS {}, admin http://{}",
            self.chancery.pid(),
            self.chancery.xds(),
            self.chancery.admin()
        );
        println!(
            "Gateway        pid {}, {} at http://{}",
            self.gateway.envoy.pid(),
            self.gateway.gateway.id(),
            self.address
        );
        for backend in &self.backends {
            println!(
                "Backend        {} {} at {}",
                backend.identity.backend(),
                backend.identity.version,
                backend.address
            );
        }
        println!("Files          {}\n", self.directory.display());
    }

    fn explain(&self, request: &Request) -> anyhow::Result<Value> {
        chancery::explain(&self.directory, &self.settings, &self.gateway.gateway.id(), request)
    }

    /// Sends the requests of the table and prints it; says whether all is as explained.
    async fn table(&self) -> anyhow::Result<bool> {
        let mut client = Client::new(self.address);
        let mut rows = vec![["REQUEST", "ANSWER", "BACKEND", "ROUTE", "POLICIES", "SEEN"].map(str::to_owned)];
        let mut faults = Vec::new();
        for request in requests() {
            let explanation = self.explain(&request)?;
            let response = client.send(&request).await?;
            let observed = Observed::new(&response, &self.effects);
            let differences = self.compare(&request, &explanation, &response, &observed);
            let mark = if differences.is_empty() { "" } else { " !" };
            let mut first = [
                shown(&request),
                format!("{}{mark}", response.status),
                observed.backend(),
                or_dash(text(&explanation, "/route/name")),
            ];
            for (policy, marks) in self.policies_and_marks(&explanation, &observed) {
                let [request, answer, backend, route] = std::mem::take(&mut first);
                rows.push([request, answer, backend, route, policy, or_dash(&marks.join(", "))]);
            }
            faults.extend(differences.into_iter().map(|difference| format!("! {}: {difference}", shown(&request))));
        }
        print_table(&rows);
        for fault in &faults {
            println!("{fault}");
        }
        Ok(faults.is_empty())
    }

    /// The explained policies, each with the marks of it that were seen; then marks that no such policy explains.
    fn policies_and_marks(&self, explanation: &Value, observed: &Observed) -> Vec<(String, Vec<String>)> {
        let marks_of = |policy: &str| {
            let own = self.effects.iter().filter(|effect| effect.policy == policy).map(Effect::mark);
            own.filter(|mark| observed.marks.contains(mark)).collect::<Vec<_>>()
        };
        let mut lines: Vec<_> = policies(explanation).into_iter().map(|policy| (marks_of(&policy), policy)).collect();
        let explained: Vec<&String> = lines.iter().flat_map(|(marks, _)| marks).collect();
        let stray: Vec<String> = observed.marks.iter().filter(|mark| !explained.contains(mark)).cloned().collect();
        if lines.is_empty() || !stray.is_empty() {
            lines.push((stray, "-".to_owned()));
        }
        lines.into_iter().map(|(marks, policy)| (policy, marks)).collect()
    }

    /// What is not as explained.
    fn compare(&self, request: &Request, explanation: &Value, response: &Response, observed: &Observed) -> Vec<String> {
        let mut differences = Vec::new();
        let refused = self.refusal(request, explanation);
        let direct = explanation.pointer("/outcome/status").and_then(Value::as_u64).or(refused);
        let expected = direct.unwrap_or(200);
        if u64::from(response.status) != expected {
            differences.push(format!("explained {expected}, answered {}", response.status));
        }
        let endpoints: Vec<&str> = list(explanation, "/destinations")
            .iter()
            .flat_map(|destination| list(destination, "/endpoints"))
            .filter_map(Value::as_str)
            .collect();
        match (&observed.echo, direct) {
            (Some(echo), None) if endpoints.contains(&echo.address.to_string().as_str()) => {}
            (Some(echo), _) => differences.push(format!("explained {endpoints:?}, served by {}", echo.address)),
            (None, None) => differences.push(format!("explained {endpoints:?}, no backend answered")),
            (None, Some(_)) => {}
        }
        let attached = policies(explanation);
        let shows = |effect: &&Effect| effect.would_show(request) && (refused.is_none() || effect.side == Side::Answer);
        for effect in self.effects.iter().filter(shows) {
            let explained = attached.contains(&effect.policy);
            if explained != observed.marks.contains(&effect.mark()) {
                let (said, saw) = if explained { ("attached", "absent") } else { ("not attached", "present") };
                differences.push(format!("{} is explained as {said}, but {} is {saw}", effect.policy, effect.mark()));
            }
        }
        differences
    }

    /// The answer to a request without a token, where an attached policy wants one.
    fn refusal(&self, request: &Request, explanation: &Value) -> Option<u64> {
        let attached = policies(explanation);
        let mut effects =
            self.effects.iter().filter(|effect| effect.side == Side::Answer && effect.would_show(request));
        effects.find(|effect| attached.contains(&effect.policy)).and_then(|effect| effect.value.parse().ok())
    }

    /// Compares the shares of the two versions with the explained weights.
    async fn judge_split(&self) -> anyhow::Result<bool> {
        let request = Request::get(SPLIT.1, "/");
        let explanation = self.explain(&request)?;
        let mut client = Client::new(self.address);
        let mut served: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..SPLIT_REQUESTS {
            *served.entry(send_echo(&mut client, &request).await?.address.to_string()).or_default() += 1;
        }
        println!("\n{SPLIT_REQUESTS} requests to {}", SPLIT.1);
        let mut rows = vec![["UPSTREAM", "WEIGHT", "SHARE"].map(str::to_owned)];
        let mut good = true;
        for destination in list(&explanation, "/destinations") {
            let weight = destination.pointer("/weight").and_then(Value::as_u64).unwrap_or(100);
            let endpoints = list(destination, "/endpoints").iter().filter_map(Value::as_str);
            let count: u32 = endpoints.filter_map(|endpoint| served.remove(endpoint)).sum();
            let fits = plausible(count, weight);
            good &= fits;
            let share = format!(
                "{:.1} %{}",
                f64::from(count) * 100.0 / f64::from(SPLIT_REQUESTS),
                if fits { "" } else { " !" }
            );
            rows.push([text(destination, "/upstream").to_owned(), format!("{weight} %"), share]);
        }
        print_table(&rows);
        for (address, count) in &served {
            println!("! {count} requests went to {address}, which is not explained");
        }
        Ok(good && served.is_empty())
    }

    /// Swaps the weights in their file and watches the traffic move.
    async fn move_split(&self) -> anyhow::Result<()> {
        let file = self.directory.join(SPLIT.0);
        let before = std::fs::read_to_string(&file)?;
        let after = swap(&before, "weight: 90", "weight: 10");
        if after == before {
            bail!("{} no longer has the weights 90 and 10", file.display());
        }
        println!("\nSwapping the weights 90 and 10 in {}", file.display());
        let request = Request::get(SPLIT.1, "/");
        let mut client = Client::new(self.address);
        // Per request: when the answer came, and whether v2 gave it.
        let mut answers: Vec<(Duration, bool)> = Vec::new();
        let start = Instant::now();
        manifests::replace(&file, &after)?;
        if let Some(servers) = &self.servers {
            servers.edit(&file)?;
            println!("kubectl applied it in {:.1} ms", ms(start.elapsed()));
        }
        loop {
            let echo = send_echo(&mut client, &request).await?;
            answers.push((start.elapsed(), echo.identity.version == "v2"));
            let window = &answers[answers.len().saturating_sub(WINDOW)..];
            if window.len() == WINDOW && window.iter().filter(|(_, second)| *second).count() > WINDOW * 3 / 4 {
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("the split has not moved after {PATIENCE:?}\n{}", self.chancery.log_tail());
            }
        }
        let moved = change_point(&answers);
        println!(
            "It moved {:.1} ms after the file was {}, judged by {} requests:",
            ms(answers[moved].0),
            if self.servers.is_some() { "given to kubectl" } else { "in place" },
            answers.len()
        );
        println!("v2 served {} before and {} after.", share(&answers[..moved]), share(&answers[moved..]));
        Ok(())
    }

    fn suggest(&self) -> anyhow::Result<()> {
        let directory = self.directory.display();
        let gateway = self.gateway.gateway.id();
        let address = self.address;
        let program = chancery::binary()?;
        let program = program.strip_prefix(std::env::current_dir()?).unwrap_or(&program).display();
        if let Some(servers) = &self.servers {
            println!("\nRunning until Ctrl-C. To try:\n");
            servers.suggest();
            println!("  A request           curl -H 'Host: test.recommendation.istioinaction.io' http://{address}/");
            return Ok(());
        }
        let flags = "--management-cluster mgmt --allow-loopback-endpoints";
        println!(
            "
Running until Ctrl-C. To try:

  A request           curl -H 'Host: test.recommendation.istioinaction.io' http://{address}/
  Why that answer     {program} explain {directory} {flags} \\
                        --gateway {gateway} --host test.recommendation.istioinaction.io --path /
  Take a policy away  rm {directory}/cluster-1/gateway/edge-headers.yaml
                      and ask both again: the header x-edge is gone, and so is its reason
  Take a guard away   rm {directory}/cluster-1/recommendation/recs-tokens.yaml
                      and ask for /mine on that host: 200, to anybody
  Revoke consent      delete the exportTo of {directory}/cluster-1/gateway/settings.yaml
                      and ask both again: 500 on the delegated host; web.istioinaction.io does not notice
  What is wrong       {program} check {directory} {flags}
  What Envoy has      curl http://{}/config_dump",
            self.gateway.envoy.admin_address(),
        );
        Ok(())
    }
}

/// What one policy does to a message, as far as it can be seen from outside.
struct Effect {
    /// `namespace/name`.
    policy: String,
    side: Side,
    header: String,
    value: String,
    on: On,
}

/// The requests on which an effect shows.
enum On {
    All,
    /// With this Origin.
    Origin(String),
    /// With a token.
    Token,
    /// Without one.
    NoToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// In what the backend received.
    Backend,
    /// In what the client received.
    Client,
    /// The status that the client received.
    Answer,
}

impl Effect {
    fn would_show(&self, request: &Request) -> bool {
        let header = |wanted: &str| request.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        match &self.on {
            On::All => true,
            On::Origin(wanted) => header("origin") == Some(wanted),
            On::Token => header("authorization").is_some(),
            On::NoToken => header("authorization").is_none(),
        }
    }

    /// The header, or the status, with an arrow in its direction.
    fn mark(&self) -> String {
        match self.side {
            Side::Answer => format!("<{}", self.value),
            Side::Backend => format!(">{}", self.header),
            Side::Client => format!("<{}", self.header),
        }
    }
}

/// The visible effects of all policies.
fn effects(manifests: &[Manifest]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for manifest in manifests {
        let policy = format!("{}/{}", manifest.namespace(), manifest.name());
        let mut add = |side, header: &str, value: &str, on| {
            let (policy, header, value) = (policy.clone(), header.to_owned(), value.to_owned());
            effects.push(Effect { policy, side, header, value, on });
        };
        match manifest.kind() {
            "HeaderManipulationPolicy" => {
                for (name, value) in texts(&manifest.object, "/spec/config/appendRequestHeaders") {
                    add(Side::Backend, &name, &value, On::All);
                }
                for (name, value) in texts(&manifest.object, "/spec/config/appendResponseHeaders") {
                    add(Side::Client, &name, &value, On::All);
                }
            }
            "CORSPolicy" => {
                let origins = list(&manifest.object, "/spec/config/allowOrigins");
                for exact in origins.iter().map(|origin| text(origin, "/exact")).filter(|exact| !exact.is_empty()) {
                    add(Side::Client, "access-control-allow-origin", exact, On::Origin(exact.to_owned()));
                }
            }
            "RetryTimeoutPolicy" => {
                // Envoy tells the backend how long it will wait, when it does not wait for ever.
                let timeout = text(&manifest.object, "/spec/config/requestTimeout");
                if let Some(seconds) = timeout.strip_suffix('s').and_then(|number| number.parse::<u64>().ok()) {
                    add(Side::Backend, "x-envoy-expected-rq-timeout-ms", &(seconds * 1000).to_string(), On::All);
                }
            }
            "JWTPolicy" => {
                add(Side::Answer, "", "401", On::NoToken);
                let providers = manifest.object.pointer("/spec/config/providers").and_then(Value::as_object);
                let claims =
                    providers.into_iter().flat_map(|all| all.values()).flat_map(|one| list(one, "/claimsToHeaders"));
                // Whose the demo's token is.
                for claim in claims.filter(|claim| text(claim, "/claim") == "sub") {
                    add(Side::Backend, text(claim, "/header"), "alice", On::Token);
                }
            }
            _ => {}
        }
    }
    effects
}

/// What came back.
struct Observed {
    echo: Option<Echo>,
    /// Marks of the effects that are there.
    marks: Vec<String>,
}

impl Observed {
    fn new(response: &Response, effects: &[Effect]) -> Self {
        let echo: Option<Echo> = serde_json::from_slice(&response.body).ok();
        let seen = |effect: &&Effect| {
            let value = match effect.side {
                Side::Answer => Some(response.status.to_string()),
                Side::Backend => echo.as_ref().and_then(|echo| echo.headers.get(&effect.header).cloned()),
                Side::Client => response.header(&effect.header),
            };
            value.as_ref() == Some(&effect.value)
        };
        let marks = effects.iter().filter(seen).map(Effect::mark).collect();
        Self { echo, marks }
    }

    fn backend(&self) -> String {
        self.echo.as_ref().map_or_else(
            || "-".to_owned(),
            |echo| format!("{}/{} {}", echo.identity.namespace, echo.identity.service, echo.identity.version),
        )
    }
}

/// `namespace/name` of the attached policies.
fn policies(explanation: &Value) -> Vec<String> {
    let short = |policy: &Value| {
        let object = text(policy, "/policy");
        let path = object.split_once('@').map_or(object, |(path, _)| path);
        path.split_once('/').map_or(path, |(_, short)| short).to_owned()
    };
    list(explanation, "/policies").iter().map(short).collect()
}

async fn send_echo(client: &mut Client, request: &Request) -> anyhow::Result<Echo> {
    let response = client.send(request).await?;
    let echo = response.json().and_then(|body| Ok(serde_json::from_value(body)?));
    echo.with_context(|| format!("{} answered {}", request.host, response.status))
}

/// Whether a count can come from a weight: within five standard deviations, so that one run in a million errs.
fn plausible(count: u32, weight: u64) -> bool {
    let share = f64::from(u32::try_from(weight).unwrap_or(u32::MAX)) / 100.0;
    let requests = f64::from(SPLIT_REQUESTS);
    let deviation = (requests * share * (1.0 - share)).sqrt();
    (f64::from(count) - requests * share).abs() <= 5.0 * deviation + 0.5
}

/// The position that best divides the answers into first v1, then v2.
fn change_point(answers: &[(Duration, bool)]) -> usize {
    let second_in_all = answers.iter().filter(|(_, second)| *second).count();
    let (mut best, mut fewest, mut errors) = (0, answers.len() - second_in_all, answers.len() - second_in_all);
    for (index, (_, second)) in answers.iter().enumerate() {
        // Moving the border behind this answer makes it wrong if it is v2, right if it is v1.
        errors = if *second { errors + 1 } else { errors - 1 };
        if errors < fewest {
            (best, fewest) = (index + 1, errors);
        }
    }
    best.min(answers.len() - 1)
}

fn share(answers: &[(Duration, bool)]) -> String {
    let second = answers.iter().filter(|(_, second)| *second).count();
    format!("{second} of {}", answers.len())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Exchanges two texts.
fn swap(text: &str, one: &str, other: &str) -> String {
    let parts = text.split(one).map(|part| part.replace(other, one));
    parts.collect::<Vec<_>>().join(other)
}

/// Puts another network in place of the demo's own.
fn renumber(directory: &Path, network: &str) -> anyhow::Result<()> {
    for file in manifests::files(directory)? {
        let text = std::fs::read_to_string(&file)?;
        if text.contains(NETWORK) {
            manifests::replace(&file, &text.replace(NETWORK, network))?;
        }
    }
    Ok(())
}

fn shown(request: &Request) -> String {
    let header = match request.headers.first().map(|(name, _)| name.as_str()) {
        None => "",
        Some("origin") => " (with Origin)",
        Some(_) => " (with a token)",
    };
    format!("{} {}{}{header}", request.method, request.host, request.path)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Prints rows as kubectl does: columns as wide as they must be, two blanks between them.
fn print_table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
