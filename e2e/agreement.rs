//! `explain` says what a gateway does: random worlds and requests, on real Envoys.
//!
//! For each request the route, the policies and the destination that `explain` names must be those that the gateway
//! used, and where the gateway itself answers, status, body and location must be as `explain` says. A route shows its
//! name by a policy that adds it to responses; each other policy has an effect that no other has.
//!
//! `SEED` and `WORLDS` say which worlds; a failure prints both, so that one world can be run again alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use chancery::compile::explain::{self, Explanation};
use chancery::compile::{Compiled, compile};
use chancery::ir::frozen::Remembered;
use chancery::resolve::{LoopbackEndpoints, Options};
use chancery::source;
use chancery::store::Store;
use serde_json::Value;

use crate::support::backend::Echo;
use crate::support::chancery::{Settings, explain_at, render};
use crate::support::http::{Client, Request, Response};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::random::{self, Dice, ENDPOINT_HEADER, Effect, GATEWAYS, MARKER_HOST, ROUTE_HEADER, World};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, relocate};

/// How many worlds, unless `WORLDS` says otherwise.
const WORLDS: u64 = 50;

/// Requests to each.
const REQUESTS: usize = 10;

/// Of these, how many ask the command line as well; it starts a process and compiles each time.
const BY_COMMAND: usize = 1;

/// What the fault filter answers.
const ABORTED: &str = "fault filter abort";

/// What `explain` says about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Of an answer by the gateway itself.
    status: Option<u16>,
    body: String,
    location: Option<String>,
    pub(crate) route: Option<String>,
    fault: Option<String>,
    /// By policy, the destinations that it is limited to, or none.
    policies: BTreeMap<String, Vec<Option<String>>>,
    destinations: Vec<Destination>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Destination {
    upstream: String,
    weight: u64,
    endpoints: Vec<String>,
}

impl Said {
    fn of(explanation: &Explanation<'_>) -> Self {
        let mut said = Self::default();
        if let Some(answer) = &explanation.answer {
            said.status = Some(answer.status).filter(|status| *status != 0);
            said.body.clone_from(&answer.body);
            said.location.clone_from(&answer.location);
        }
        let Some(route) = &explanation.route else { return said };
        said.route = Some(route.name.to_string());
        said.fault = route.body.fault.as_ref().map(|fault| fault.code.to_string());
        for attachment in route.body.attached.iter() {
            let destination = attachment.destination.as_ref().map(ToString::to_string);
            said.policies.entry(attachment.policy.to_string()).or_default().push(destination);
        }
        said.destinations = route
            .destinations
            .iter()
            .map(|(id, weight, upstream)| Destination {
                upstream: id.to_string(),
                weight: u64::from(*weight),
                endpoints: upstream
                    .iter()
                    .flat_map(|upstream| upstream.endpoints.values().flatten())
                    .map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port))
                    .collect(),
            })
            .collect();
        said
    }

    fn of_command(json: &Value) -> Self {
        let maybe = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut said = Self {
            status: json.pointer("/outcome/status").and_then(Value::as_u64).and_then(|status| status.try_into().ok()),
            body: text(json, "/outcome/body").to_owned(),
            location: maybe("/outcome/location"),
            route: maybe("/route/name"),
            fault: maybe("/route/fault/code"),
            ..Self::default()
        };
        for policy in list(json, "/policies") {
            let destination = policy.pointer("/destination").and_then(Value::as_str).map(str::to_owned);
            said.policies.entry(text(policy, "/policy").to_owned()).or_default().push(destination);
        }
        let destination = |item: &Value| Destination {
            upstream: text(item, "/upstream").to_owned(),
            weight: item.pointer("/weight").and_then(Value::as_u64).unwrap_or_default(),
            endpoints: list(item, "/endpoints").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        said.destinations = list(json, "/destinations").iter().map(destination).collect();
        said
    }

    /// Whether a filter answers before the route does what it is for.
    fn by_filter(&self) -> bool {
        self.route.is_some() && (self.body == ABORTED || (self.status == Some(200) && self.body.is_empty()))
    }
}

/// A directory, compiled as `serve` does.
pub(crate) fn compiled(directory: &Path) -> anyhow::Result<Compiled> {
    let loaded = source::read(&[directory.to_owned()], &source::Options::default())?;
    let options = Options { loopback_endpoints: LoopbackEndpoints::Allowed, ..Options::default() };
    let store = Store::from_objects(loaded.objects.iter().cloned());
    Ok(compile(&store, &loaded.findings, &options, &BTreeSet::new(), &Remembered::default()))
}

/// Asks the library what becomes of a request.
pub(crate) fn ask(compiled: &Compiled, gateway: &str, port: u16, request: &Request) -> anyhow::Result<Said> {
    let gateway = gateway.parse().map_err(|error| anyhow::anyhow!("{gateway}: {error}"))?;
    let request = explain::Request {
        port: Some(port),
        server_name: None,
        host: request.host.clone(),
        path: request.path.clone(),
        method: request.method.clone(),
        headers: request.headers.clone(),
        client: None,
    };
    let explanation = explain::explain(compiled, &gateway, &request).map_err(anyhow::Error::msg)?;
    Ok(Said::of(&explanation))
}

fn differ<T: PartialEq + std::fmt::Debug>(faults: &mut Vec<String>, what: &str, said: &T, seen: &T) {
    if said != seen {
        faults.push(format!("{what}: explain says {said:?}, the gateway {seen:?}"));
    }
}

/// Compares what `explain` says with what the gateway did.
pub(crate) fn judge(
    effects: &BTreeMap<String, Effect>,
    request: &Request,
    said: &Said,
    response: &Response,
) -> Vec<String> {
    let mut faults = Vec::new();
    let is_aborted = said.body == ABORTED;
    // Answers by filters lack the headers that routes add, but for aborts where the route would have forwarded.
    let is_forward = !said.destinations.is_empty();
    let is_normal = said.fault.is_none() && (!said.by_filter() || (is_aborted && is_forward));
    // A redirect to a path without escaped slashes is no route's, though Envoy may add the headers of one.
    let is_unescaped = said.route.is_none() && said.status == Some(307);
    if !is_unescaped {
        let name = said.route.clone().filter(|_| is_normal);
        differ(&mut faults, "route", &name, &response.header(ROUTE_HEADER));
    }
    let endpoint = response.header(ENDPOINT_HEADER).filter(|_| said.status.is_none()).unwrap_or_default();
    match said.status {
        Some(status) => {
            differ(&mut faults, "status", &status, &response.status);
            differ(&mut faults, "location", &said.location, &response.header("location"));
            if said.route.is_some() && request.method != "HEAD" {
                differ(&mut faults, "body", &said.body, &response.text());
            }
        }
        None => {
            let used = said.destinations.iter().filter(|destination| destination.weight > 0);
            let (ready, gone): (Vec<_>, Vec<_>) = used.partition(|destination| !destination.endpoints.is_empty());
            let answered = response.status == 200 && ready.iter().any(|ready| ready.endpoints.contains(&endpoint));
            let refused = !gone.is_empty() && response.status == 503;
            if !answered && !refused {
                faults.push(format!(
                    "destination: explain says {:?}, the gateway answers {} from `{endpoint}`",
                    said.destinations, response.status
                ));
            }
        }
    }
    let holders: Vec<&str> =
        said.destinations.iter().filter(|d| d.endpoints.contains(&endpoint)).map(|d| d.upstream.as_str()).collect();
    let origin = request.headers.iter().find(|(name, _)| name == "Origin").map(|(_, value)| value.as_str());
    let mut timeout = None;
    for (policy, effect) in effects {
        let attached = said.policies.get(policy);
        match effect {
            Effect::Header(header) => {
                let seen = response.header(header).is_some();
                let limited: Vec<&str> =
                    attached.into_iter().flatten().filter_map(|destination| destination.as_deref()).collect();
                let on_route = attached.is_some_and(|places| places.contains(&None));
                // Where one endpoint belongs to several destinations, nobody can tell which of them answered.
                let certain = holders.iter().all(|holder| limited.contains(holder) == limited.contains(&holders[0]));
                if (on_route || (certain && !is_aborted)) && !is_unescaped {
                    let here = holders.first().is_some_and(|holder| limited.contains(holder));
                    differ(&mut faults, policy, &(is_normal && (on_route || here)), &seen);
                }
            }
            Effect::Timeout(milliseconds) => timeout = timeout.or(attached.map(|_| milliseconds.to_string())),
            Effect::Abort(status) if attached.is_some() => {
                differ(&mut faults, policy, &Some(*status), &said.status);
            }
            Effect::Cors(header) => {
                let allowed = attached.is_some() && is_forward && !is_aborted && origin == Some("https://ok.test");
                let seen = response.header("access-control-expose-headers").is_some_and(|exposed| exposed == *header);
                differ(&mut faults, policy, &allowed, &seen);
            }
            Effect::Abort(_) | Effect::Unseen => {}
        }
    }
    if said.status.is_none() && response.status == 200 && request.method != "HEAD" {
        match response.json().and_then(|body| Ok(serde_json::from_value::<Echo>(body)?)) {
            Ok(echo) => {
                differ(&mut faults, "endpoint", &endpoint, &echo.address.to_string());
                let told = echo.headers.get("x-envoy-expected-rq-timeout-ms").cloned();
                differ(&mut faults, "timeout", &timeout, &told);
            }
            Err(_) => faults.push(format!("no backend answered, but: {}", response.text())),
        }
    }
    faults
}

/// The running frame; worlds come and go in it.
struct Stage {
    mesh: Mesh,
    /// By gateway and Service port. One connection each: what was seen on it holds for the next request on it.
    clients: BTreeMap<(usize, u16), Client>,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let mesh = Mesh::start(random::frame(), Settings::default()).await?;
        let mut clients = BTreeMap::new();
        for (index, (namespace, name, ports)) in GATEWAYS.iter().enumerate() {
            for port in *ports {
                clients.insert((index, *port), Client::new(address(&mesh, namespace, name, *port)?));
            }
        }
        Ok(Self { mesh, clients })
    }

    /// Brings a world on, in one write, and waits until every port of every gateway has it.
    async fn show(&mut self, world: &World) -> anyhow::Result<()> {
        let file = self.mesh.directory().join("cluster-1").join("world.yaml");
        manifests::replace(&file, &documents(&world.objects)?)?;
        let marker = Request::get(MARKER_HOST, "/");
        for client in self.clients.values_mut() {
            until(PATIENCE, &format!("world {} at the gateway", world.seed), async || {
                let response = client.send(&marker).await.map_err(|error| format!("{error:#}"))?;
                let seen = response.text();
                if seen == world.seed.to_string() { Ok(()) } else { Err(Not::Yet(format!("world {seen}"))) }
            })
            .await?;
        }
        Ok(())
    }

    /// Asks everything about one world. Answers what is wrong, and how many requests a route took.
    async fn play(&mut self, world: &World) -> anyhow::Result<(Vec<String>, usize)> {
        self.show(world).await?;
        let compiled = compiled(self.mesh.directory())?;
        let mut dice = Dice::new(!world.seed);
        let (mut faults, mut matched) = (Vec::new(), 0);
        for number in 0..REQUESTS {
            let (gateway, port, request) = random::request(&mut dice);
            let (namespace, name, _) = GATEWAYS[gateway];
            let id = format!("cluster-1/{namespace}/{name}");
            let said = ask(&compiled, &id, port, &request)?;
            matched += usize::from(said.route.is_some());
            let client = self.clients.get_mut(&(gateway, port)).context("a port without a client")?;
            let mut found = match client.send(&request).await {
                Ok(response) => judge(&world.effects, &request, &said, &response),
                Err(error) => vec![format!("no answer: {error:#}")],
            };
            if number < BY_COMMAND {
                let json = explain_at(self.mesh.directory(), &self.mesh.settings, &id, Some(port), &request)?;
                differ(&mut found, "the command line", &said, &Said::of_command(&json));
            }
            if !found.is_empty() {
                let headers: Vec<String> =
                    request.headers.iter().map(|(name, value)| format!(" {name}:{value}")).collect();
                faults.push(format!(
                    "SEED={} WORLDS=1: {} http://{}{}{} at {id}:{port}, said {said:?}:\n    {}",
                    world.seed,
                    request.method,
                    request.host,
                    request.path,
                    headers.concat(),
                    found.join("\n    ")
                ));
            }
        }
        Ok((faults, matched))
    }
}

fn address(mesh: &Mesh, namespace: &str, name: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let id = format!("cluster-1/{namespace}/{name}");
    let running = mesh.gateways.iter().find(|running| running.gateway.id() == id);
    running.with_context(|| format!("{id} does not run"))?.address(port)
}

/// Objects as one file.
pub(crate) fn documents(objects: &[Value]) -> anyhow::Result<String> {
    let texts: Vec<String> = objects.iter().map(serde_json::to_string_pretty).collect::<Result<_, _>>()?;
    Ok(texts.join("\n---\n"))
}

/// A number from the environment.
pub(crate) fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is not a number: {text}")),
        Err(_) => Ok(default),
    }
}

#[tokio::test]
async fn explanations_agree_with_the_gateway() -> anyhow::Result<()> {
    let (seed, worlds) = (number("SEED", 1)?, number("WORLDS", WORLDS)?);
    let mut stage = Stage::set().await?;
    let (mut faults, mut matched) = (Vec::new(), 0);
    for seed in seed..seed + worlds {
        match stage.play(&World::new(seed)).await {
            Ok((found, routed)) => {
                faults.extend(found);
                matched += routed;
            }
            Err(error) => return Err(stage.mesh.with_logs(error).context(format!("SEED={seed} WORLDS=1"))),
        }
    }
    ensure!(faults.is_empty(), "{} disagreements in {worlds} worlds:\n{}", faults.len(), faults.join("\n"));
    let asked = usize::try_from(worlds)? * REQUESTS;
    // A world that takes no requests proves nothing.
    ensure!(worlds < 10 || matched * 2 > asked, "routes took only {matched} of {asked} requests");
    Ok(())
}

/// Writes objects in a random layout: any order, any number of files, names that say nothing.
fn scatter(directory: &Path, manifests: &[Manifest], files: usize, dice: &mut Dice) -> anyhow::Result<()> {
    let mut shuffled: Vec<&Manifest> = manifests.iter().collect();
    dice.shuffle(&mut shuffled);
    let mut contents: BTreeMap<(&str, usize), Vec<Value>> = BTreeMap::new();
    for manifest in shuffled {
        let key = (manifest.cluster.as_str(), dice.below(files));
        contents.entry(key).or_default().push(manifest.object.clone());
    }
    let mut names: Vec<usize> = (0..files).collect();
    dice.shuffle(&mut names);
    for ((cluster, file), objects) in contents {
        let mut folder = directory.join(cluster);
        if file % 2 == 0 {
            folder.push("deep/er");
        }
        fs::create_dir_all(&folder)?;
        manifests::replace(&folder.join(format!("{}.yaml", names[file])), &documents(&objects)?)?;
    }
    Ok(())
}

#[test]
fn r2_files_and_their_order_change_no_byte() -> anyhow::Result<()> {
    let seed = number("SEED", 1)?;
    for seed in seed..seed + 3 {
        let mut manifests = random::frame();
        let objects = World::new(seed).objects.into_iter();
        manifests.extend(objects.map(|object| Manifest { cluster: "cluster-1".to_owned(), object }));
        let _networks = relocate(&mut manifests)?;
        let mut dice = Dice::new(seed);
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        for files in [1, 3, 200] {
            let folder = tempfile::tempdir()?;
            scatter(folder.path(), &manifests, files, &mut dice)?;
            for (namespace, name, _) in GATEWAYS {
                let id = format!("cluster-1/{namespace}/{name}");
                let rendered = render(folder.path(), &Settings::default(), &id)?;
                let before = first.entry(id.clone()).or_insert_with(|| rendered.clone());
                if *before != rendered {
                    let line = before.lines().zip(rendered.lines()).find(|(before, now)| before != now);
                    bail!("SEED={seed}: {id} from up to {files} files differs from one file per cluster: {line:?}");
                }
            }
        }
    }
    Ok(())
}
