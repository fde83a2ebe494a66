//! The reference scenarios of the founding documents, on a real Envoy.
//!
//! `scenarios.yaml` says what exists and what must come of it: the route's chain, labels and policies (asked of
//! `explain`), the statuses (asked of `check`) and the answers to requests (asked of the gateway). A scenario added to
//! the file needs no code. `SCENARIO=text` runs those whose id contains the text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::support::backend::Echo;
use crate::support::chancery::{self, Settings};
use crate::support::http::{Client, Request, Response};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::Mesh;
use crate::support::{project, yaml};

/// The groups of the file.
const GROUPS: [&str; 7] = ["basic", "delegated", "advanced", "labels", "consent", "personas", "federation"];

/// How many scenarios run at once: each is an Envoy, a control plane and a client.
const AT_ONCE: usize = 3;

/// One entry of the file.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    group: String,
    objects: Vec<Value>,
    pub(crate) expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Expect {
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) mesh: Vec<Inside>,
    #[serde(default)]
    pub(crate) statuses: Vec<Status>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Route {
    pub(crate) id: String,
    chain: Vec<String>,
    chain_workspaces: Vec<String>,
    request: Asked,
    labels: Option<BTreeMap<String, String>>,
    policies: BTreeSet<String>,
    #[serde(default)]
    must_not_attach: Vec<Off>,
    response: Answer,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    host: String,
    path: String,
    #[serde(default)]
    more_paths: Vec<String>,
}

/// A request of a Pod to the east-west gateway of its cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inside {
    /// The workspace of the Pod, which is called like its namespace here.
    pub(crate) from: String,
    cluster: String,
    via_gateway: String,
    pub(crate) request: AskedInside,
    response: Answer,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AskedInside {
    pub(crate) host: String,
    path: String,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
struct Off {
    policy: String,
    code: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    absent_headers: Vec<String>,
    backend: Option<String>,
    backends_any_of: Option<Vec<String>>,
    error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    object: String,
    state: String,
    message_contains: Option<String>,
}

impl Route {
    /// The table from which the route starts, `namespace/name`.
    pub(crate) fn root(&self) -> anyhow::Result<&str> {
        Ok(self.chain.first().and_then(|first| first.split_once(':')).context("a chain without a root")?.0)
    }
}

impl Inside {
    /// The gateway that is asked, `cluster/namespace/service`.
    pub(crate) fn gateway(&self) -> String {
        format!("{}/{}", self.cluster, self.via_gateway)
    }
}

impl Scenario {
    /// The objects, each at its cluster.
    pub(crate) fn manifests(&self) -> anyhow::Result<Vec<Manifest>> {
        manifests::by_annotation(&self.objects)
    }
}

/// All scenarios of the file that `SCENARIO` wants.
pub(crate) fn wanted() -> anyhow::Result<Vec<Scenario>> {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let mut scenarios = load()?;
    scenarios.retain(|scenario| GROUPS.contains(&scenario.group.as_str()) && scenario.id.contains(&wanted));
    if scenarios.is_empty() {
        bail!("no scenario has `{wanted}` in its id");
    }
    Ok(scenarios)
}

/// All scenarios of the file.
fn load() -> anyhow::Result<Vec<Scenario>> {
    let file = project().join("e2e/scenarios.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let documents = yaml::documents(&text)?;
    let scenarios = documents.first().and_then(|document| document.get("scenarios")).context("no scenarios")?;
    Ok(serde_json::from_value(scenarios.clone())?)
}

/// One scenario by its id.
pub(crate) fn find(id: &str) -> anyhow::Result<Scenario> {
    load()?.into_iter().find(|scenario| scenario.id == id).with_context(|| format!("no scenario {id}"))
}

/// The body of the answer in place of an invalid route.
///
/// # Rule
/// R142.
pub(crate) fn misconfigured(code: &str) -> String {
    format!("chancery: route misconfigured ({code})")
}

/// Checks one answer; returns what is wrong with it.
fn judge(expected: &Answer, response: &Response) -> Vec<String> {
    let mut faults = Vec::new();
    differ(&mut faults, "status", &expected.status, &response.status);
    for (name, value) in &expected.headers {
        differ(&mut faults, &format!("header {name}"), &Some(value.clone()), &response.header(name));
    }
    for name in &expected.absent_headers {
        differ(&mut faults, &format!("header {name}"), &None, &response.header(name));
    }
    if let Some(code) = &expected.error {
        differ(&mut faults, "body", &misconfigured(code), &response.text());
    }
    let allowed: Vec<_> = expected.backend.iter().chain(expected.backends_any_of.iter().flatten()).collect();
    if !allowed.is_empty() {
        match response.json().and_then(|body| Ok(serde_json::from_value::<Echo>(body)?)) {
            Ok(echo) if allowed.contains(&&echo.identity.backend()) => {}
            Ok(echo) => faults.push(format!("backend: expected one of {allowed:?}, got {}", echo.identity.backend())),
            Err(_) => faults.push(format!("backend: expected one of {allowed:?}, got {}", response.text())),
        }
    }
    faults
}

/// Notes a difference, in one form for everything that is compared.
fn differ<T: PartialEq + Debug>(faults: &mut Vec<String>, what: &str, expected: &T, got: &T) {
    if expected != got {
        faults.push(format!("{what}: expected {expected:?}, got {got:?}"));
    }
}

/// `namespace/name` of `Kind/namespace/name@cluster`.
fn short(object: &str) -> String {
    let path = object.split_once('@').map_or(object, |(path, _)| path);
    path.split_once('/').map_or(path, |(_, short)| short).to_owned()
}

/// Compares what `explain` says about a route with what the scenario says.
fn judge_explanation(route: &Route, explanation: &Value) -> Vec<String> {
    let strings = |pointer: &str| -> Vec<String> {
        list(explanation, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut faults = Vec::new();
    differ(&mut faults, "explain, chain", &route.chain, &strings("/route/chain"));
    differ(&mut faults, "explain, owners of the chain", &route.chain_workspaces, &strings("/route/chainWorkspaces"));
    let policies = list(explanation, "/policies").iter().map(|policy| short(text(policy, "/policy"))).collect();
    differ(&mut faults, "explain, policies", &route.policies, &policies);
    if let Some(labels) = &route.labels {
        let entries = explanation.pointer("/route/labels").and_then(Value::as_object);
        let entry = |(key, entry): (&String, &Value)| (key.clone(), text(entry, "/value").to_owned());
        let got = entries.map(|entries| entries.iter().map(entry).collect()).unwrap_or_default();
        differ(&mut faults, "explain, labels", labels, &got);
    }
    for off in &route.must_not_attach {
        let entry = list(explanation, "/notAttached").iter().find(|entry| short(text(entry, "/policy")) == off.policy);
        let code = entry.map(|entry| text(entry, "/code").to_owned());
        differ(&mut faults, &format!("explain, why {} is off", off.policy), &Some(off.code.clone()), &code);
    }
    differ(
        &mut faults,
        "explain, fault",
        &route.response.error.as_deref().unwrap_or_default(),
        &text(explanation, "/route/fault/code"),
    );
    faults
}

/// Compares the statuses that `check` reports with those that the scenario names.
pub(crate) fn judge_statuses(statuses: &[Status], report: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for status in statuses {
        // `Kind namespace/name` here, `Kind/namespace/name@cluster` there.
        let start = format!("{}@", status.object.replacen(' ', "/", 1));
        let Some(item) = list(report, "/items").iter().find(|item| text(item, "/object").starts_with(&start)) else {
            faults.push(format!("check, {}: no status", status.object));
            continue;
        };
        differ(&mut faults, &format!("check, {}", status.object), &status.state.as_str(), &text(item, "/approval"));
        let message = text(item, "/message");
        if let Some(part) = status.message_contains.as_deref().filter(|part| !message.contains(part)) {
            faults.push(format!("check, {}: `{part}` is not in the message `{message}`", status.object));
        }
    }
    faults
}

/// Runs one scenario and returns everything that is wrong.
async fn run(scenario: &Scenario) -> anyhow::Result<Vec<String>> {
    let mesh = Mesh::start(scenario.manifests()?, Settings::default()).await?;
    let mut faults = Vec::new();
    for route in &scenario.expect.routes {
        let outcome = run_route(&mesh, route).await.map_err(|error| mesh.with_logs(error))?;
        faults.extend(outcome.into_iter().map(|fault| format!("{}: {fault}", route.id)));
    }
    for inside in &scenario.expect.mesh {
        let outcome = run_inside(&mesh, inside).await.map_err(|error| mesh.with_logs(error))?;
        faults
            .extend(outcome.into_iter().map(|fault| format!("{} from {}: {fault}", inside.request.host, inside.from)));
    }
    if !scenario.expect.statuses.is_empty() {
        let (report, _) = chancery::check(mesh.directory(), &mesh.settings)?;
        faults.extend(judge_statuses(&scenario.expect.statuses, &report));
    }
    Ok(faults)
}

async fn run_route(mesh: &Mesh, route: &Route) -> anyhow::Result<Vec<String>> {
    let (running, address) = mesh.entrance(route.root()?)?;
    let gateway = running.gateway.id();
    let explain = |request: &Request| chancery::explain(mesh.directory(), &mesh.settings, &gateway, request);
    judge_route(route, address, explain).await
}

/// Sends the requests of a route to where its root table is served, and asks what is said about them.
pub(crate) async fn judge_route(
    route: &Route,
    address: SocketAddr,
    explain: impl Fn(&Request) -> anyhow::Result<Value>,
) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in [&route.request.path].into_iter().chain(&route.request.more_paths) {
        let request = Request::get(&route.request.host, path);
        // What another cluster serves is there once its gateways are.
        let answered = until(PATIENCE, "the answer", async || {
            let response = Client::new(address).send(&request).await;
            let faults = judge(&route.response, &response.map_err(|error| Not::Yet(format!("{error:#}")))?);
            if faults.is_empty() { Ok(()) } else { Err(Not::Yet(faults.join("; "))) }
        });
        faults.extend(answered.await.err().map(|error| format!("{path}: {error:#}")));
        let explanation = explain(&request)?;
        faults.extend(judge_explanation(route, &explanation).into_iter().map(|fault| format!("{path}: {fault}")));
    }
    Ok(faults)
}

/// Sends a request from the address of a Pod, R186.
async fn run_inside(mesh: &Mesh, inside: &Inside) -> anyhow::Result<Vec<String>> {
    let gateway = inside.gateway();
    let running = mesh.gateways.iter().find(|running| running.gateway.id() == gateway);
    let address = running.with_context(|| format!("{gateway} does not run"))?.address(inside.request.port)?;
    let explain = |client: &str, request: &Request| {
        chancery::explain_for(mesh.directory(), &mesh.settings, &gateway, inside.request.port, client, request)
    };
    judge_inside(inside, &mesh.manifests, address, explain).await
}

/// Sends the request of a Pod to an east-west gateway, and asks what is said about it.
pub(crate) async fn judge_inside(
    inside: &Inside,
    manifests: &[Manifest],
    address: SocketAddr,
    explain: impl Fn(&str, &Request) -> anyhow::Result<Value>,
) -> anyhow::Result<Vec<String>> {
    let is_client = |manifest: &&Manifest| {
        manifest.kind() == "Pod" && manifest.cluster == inside.cluster && manifest.namespace() == inside.from
    };
    let pod = manifests.iter().find(is_client).with_context(|| format!("no Pod of {}", inside.from))?;
    let source: Ipv4Addr = text(&pod.object, "/status/podIP").parse()?;
    let request = Request::get(&inside.request.host, &inside.request.path);
    // The gateway may be up for some moments before it has its listener.
    let answered = until(PATIENCE, "an answer", async || {
        let response = Client::from(source, address).send(&request).await;
        let response = response.map_err(|error| Not::Yet(format!("{error:#}")))?;
        let faults = judge(&inside.response, &response);
        if faults.is_empty() { Ok(()) } else { Err(Not::Yet(faults.join("; "))) }
    });
    let mut faults: Vec<String> = answered.await.err().map(|error| format!("{error:#}")).into_iter().collect();
    let told = explain(&source.to_string(), &request)?;
    let status = told.pointer("/outcome/status").and_then(Value::as_u64).unwrap_or(200);
    differ(&mut faults, "explain, status", &u64::from(inside.response.status), &status);
    Ok(faults)
}

/// Takes scenarios off the list, each with a runtime of its own, until none is left.
fn work(scenarios: &[Scenario], next: &AtomicUsize, faults: &Mutex<Vec<String>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
        let found = runtime.block_on(run(scenario)).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let mut faults = faults.lock().map_err(|_| anyhow::anyhow!("another worker panicked"))?;
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", scenario.id)));
    }
    Ok(())
}

#[test]
fn every_scenario_holds() -> anyhow::Result<()> {
    let scenarios = wanted()?;
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| work(&scenarios, &next, &faults))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let mut faults = faults.into_inner()?;
    faults.sort();
    assert!(faults.is_empty(), "{} differences in {} scenarios:\n{}", faults.len(), scenarios.len(), faults.join("\n"));
    Ok(())
}

#[test]
fn every_group_has_scenarios() -> anyhow::Result<()> {
    let scenarios = load()?;
    for group in GROUPS {
        assert!(scenarios.iter().any(|scenario| scenario.group == group), "no scenario in group {group}");
    }
    Ok(())
}
