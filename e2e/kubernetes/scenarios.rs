//! The founding scenarios behind real API servers: every object by kubectl, oldest first; the statuses that kubectl reads back
//! are what `chancery check` says of the same objects in a directory and what the scenario says; `explain` is asked of the
//! control plane that runs, and real Envoys answer.
//!
//! Two worlds, each with an API server, take the scenarios of one cluster in turn. Those of two clusters come last: then the
//! second server is that of the other cluster, registered at the first. Envoys and backends stay from one scenario to the
//! next, and so does what no rule compares by age; the rest is deleted and made anew.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use anyhow::anyhow;

use super::clusters::credential;
use super::*;
use crate::scenarios::{Scenario, judge_inside, judge_route, judge_statuses, wanted};
use crate::support::backend::Backend;
use crate::support::chancery;
use crate::support::kube_world::{Ages, fill};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::world::{self, Relocation, RunningGateway};

/// The cluster of most scenarios. It is the management cluster here too (R16).
const FIRST: &str = "cluster-1";
const SECOND: &str = "cluster-2";

/// Kinds of which an object stays when the next scenario has the same.
const STAYING: [&str; 7] =
    ["EndpointSlice", "KubernetesCluster", "Pod", "RootTrustPolicy", "Service", "VirtualGateway", "Workspace"];

/// A scenario with its objects where they are to be.
struct Act<'s> {
    scenario: &'s Scenario,
    manifests: Vec<Manifest>,
}

/// The scenarios on networks that API servers take, with the Pods of their gateways.
fn acts(scenarios: &[Scenario]) -> anyhow::Result<(Vec<Act<'_>>, Relocation)> {
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        let mut manifests = scenario.manifests()?;
        for manifest in &mut manifests {
            if manifest.cluster == chancery::MANAGEMENT_CLUSTER {
                FIRST.clone_into(&mut manifest.cluster);
            }
        }
        sizes.push(manifests.len());
        all.extend(manifests);
    }
    // All at once, so that what is equal stays equal.
    let relocation = world::relocate_routed(&mut all)?;
    let mut rest = all.into_iter();
    let act = |(scenario, size)| {
        let mut manifests: Vec<Manifest> = rest.by_ref().take(size).collect();
        let gateways = world::gateways(&manifests);
        manifests.extend(gateways.iter().map(|gateway| pod(gateway, relocation.bind(gateway))));
        Act { scenario, manifests }
    };
    let acts = scenarios.iter().zip(sizes).map(act).collect();
    Ok((acts, relocation))
}

/// The Pod that a gateway's Envoy is.
fn pod(gateway: &world::Gateway, address: Ipv4Addr) -> Manifest {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{}-0", gateway.service), "namespace": gateway.namespace, "labels": gateway.labels},
        "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
        "status": {"phase": "Running", "podIP": address.to_string(), "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Manifest { cluster: gateway.cluster.clone(), object }
}

/// A world that runs.
struct Stage<'s> {
    kube: Kube,
    /// The server of the second cluster, once it is part of this world.
    other: Option<Kube>,
    settings: Settings,
    chancery: Chancery,
    acts: Vec<Act<'s>>,
    relocation: Relocation,
    gateways: BTreeMap<String, RunningGateway>,
    /// What is there now.
    there: Vec<Manifest>,
    _backends: Vec<Backend>,
}

impl<'s> Stage<'s> {
    async fn start(name: &str, scenarios: &'s [Scenario]) -> anyhow::Result<Self> {
        let (acts, relocation) = acts(scenarios)?;
        let all: Vec<Manifest> = acts.iter().flat_map(|act| act.manifests.clone()).collect();
        let mut endpoints = world::endpoints(&all)?;
        endpoints.dedup();
        let mut backends = Vec::new();
        for endpoint in endpoints {
            backends.push(Backend::start(endpoint.identity, endpoint.address).await?);
        }
        let kube = Kube::start(name).await?;
        kube.install_crds().await?;
        let settings = Settings { management: Some(FIRST), ..Settings::default() };
        let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &settings).await?;
        let (gateways, there) = (BTreeMap::new(), Vec::new());
        Ok(Self { kube, other: None, settings, chancery, acts, relocation, gateways, there, _backends: backends })
    }

    fn server(&self, cluster: &str) -> anyhow::Result<&Kube> {
        if cluster == FIRST {
            return Ok(&self.kube);
        }
        self.other.as_ref().with_context(|| format!("no API server of {cluster}"))
    }

    fn clusters(&self) -> impl Iterator<Item = &'static str> {
        [FIRST, SECOND].into_iter().take(1 + usize::from(self.other.is_some()))
    }

    /// Makes the servers hold these objects and no others; Namespaces stay.
    async fn show(&mut self, manifests: &[Manifest]) -> anyhow::Result<()> {
        let stays = |one: &Manifest, others: &[Manifest]| {
            STAYING.contains(&one.kind())
                && others.iter().any(|other| other.key() == one.key() && other.object == one.object)
        };
        for cluster in self.clusters() {
            let is_over =
                |one: &&Manifest| one.cluster == cluster && one.kind() != "Namespace" && !stays(one, manifests);
            let over: Vec<Value> = self.there.iter().filter(is_over).map(|one| one.object.clone()).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": over});
            if !over.is_empty() {
                let flags = ["delete", "--wait=false", "--ignore-not-found", "-f", "-"];
                kubectl_with(&self.server(cluster)?.kubeconfig(), &flags, Some(&list.to_string()))?;
            }
        }
        let new: Vec<Manifest> = manifests.iter().filter(|one| !stays(one, &self.there)).cloned().collect();
        // What the first cluster says of the second is known once it is there.
        for cluster in self.clusters().collect::<Vec<_>>().into_iter().rev() {
            fill(self.server(cluster)?, &new, &[cluster], Ages::WithinKinds).await?;
        }
        self.there = manifests.to_vec();
        Ok(())
    }

    /// Runs one scenario and returns everything that is wrong.
    async fn run(&mut self, index: usize) -> anyhow::Result<Vec<String>> {
        let act = &self.acts[index];
        let (scenario, manifests) = (act.scenario, act.manifests.clone());
        self.show(&manifests).await?;
        for gateway in world::gateways(&manifests) {
            if !self.gateways.contains_key(&gateway.id()) {
                let (id, bind) = (gateway.id(), self.relocation.bind(&gateway));
                self.gateways.insert(id, RunningGateway::start(gateway, bind, self.chancery.xds()).await?);
            }
        }
        let folder = tempfile::tempdir()?;
        manifests::write(folder.path(), &manifests)?;
        let (report, _) = chancery::check(folder.path(), &self.settings)?;
        let mut faults = judge_statuses(&scenario.expect.statuses, &report);
        let judged = until(STATUSES, "the statuses that `check` tells", async || {
            let wrong = self.differences(&report).map_err(|error| Not::Yet(format!("{error:#}")))?;
            if wrong.is_empty() { Ok(()) } else { Err(Not::Yet(wrong.join("\n"))) }
        });
        faults.extend(judged.await.err().map(|error| format!("{error:#}")));
        for route in &scenario.expect.routes {
            let (gateway, port) = world::gateway_of_table(&manifests, route.root()?)?;
            let address = self.address(&gateway.id(), port)?;
            let explain = |request: &_| chancery::explain_live(self.chancery.admin(), &gateway.id(), &[], request);
            let outcome = judge_route(route, address, explain).await?;
            faults.extend(outcome.into_iter().map(|fault| format!("{}: {fault}", route.id)));
        }
        for inside in &scenario.expect.mesh {
            let port = inside.request.port;
            let address = self.address(&inside.gateway(), port)?;
            let explain = |client: &str, request: &_| {
                let further = ["--port", &port.to_string(), "--client", client];
                chancery::explain_live(self.chancery.admin(), &inside.gateway(), &further, request)
            };
            let outcome = judge_inside(inside, &manifests, address, explain).await?;
            let what = format!("{} from {}", inside.request.host, inside.from);
            faults.extend(outcome.into_iter().map(|fault| format!("{what}: {fault}")));
        }
        Ok(faults)
    }

    fn address(&self, gateway: &str, port: u16) -> anyhow::Result<std::net::SocketAddr> {
        self.gateways.get(gateway).with_context(|| format!("{gateway} does not run"))?.address(port)
    }

    /// What the objects' statuses say otherwise than a report; and those that gateways are still to acknowledge.
    fn differences(&self, report: &Value) -> anyhow::Result<Vec<String>> {
        let mut written = BTreeMap::new();
        for cluster in self.clusters() {
            for object in list(&self.server(cluster)?.get(&["chancery", "-A"])?, "/items") {
                let manifest = Manifest { cluster: cluster.to_owned(), object: object.clone() };
                written.insert(manifest.key(), manifest.object);
            }
        }
        let mut wrong = Vec::new();
        for item in list(report, "/items").iter().filter(|item| item.get("approval").is_some()) {
            let key = text(item, "/object");
            let Some(object) = written.remove(key) else {
                wrong.push(format!("{key} is not there"));
                continue;
            };
            let expected = (text(item, "/approval"), text(item, "/message"), item["counts"].clone());
            let found = (told(&object, "approval"), told(&object, "message"), counts(&object["status"]));
            // Two kinds have no message.
            let is_flat = object["status"]["common"].is_null();
            if (expected.0, &expected.2) != (&*found.0, &found.2) || (!is_flat && expected.1 != found.1) {
                wrong.push(format!("{key}: expected {expected:?}, and its status is {}", object["status"]));
            } else if observed(&object) != &object["metadata"]["generation"] {
                wrong.push(format!("{key}: its status is of another generation: {}", object["status"]));
            } else if list(&object, "/status/conditions").iter().any(|one| one["reason"] == "Pending") {
                wrong.push(format!("{key}: it is not acknowledged: {}", object["status"]));
            }
        }
        wrong.extend(written.keys().map(|key| format!("{key} is there")));
        Ok(wrong)
    }

    /// Takes scenarios off the list until none is left.
    async fn work(&mut self, chosen: &[usize], next: &AtomicUsize, faults: &Mutex<Vec<String>>) -> anyhow::Result<()> {
        while let Some(index) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut found = self.run(*index).await.unwrap_or_else(|error| vec![format!("{error:#}")]);
            if !found.is_empty() {
                found.push(self.chancery.log_tail());
            }
            let id = &self.acts[*index].scenario.id;
            let mut faults = faults.lock().map_err(|_| anyhow!("another worker panicked"))?;
            faults.extend(found.into_iter().map(|fault| format!("{id}: {fault}")));
        }
        Ok(())
    }
}

/// A field of what is said of an object, in either form.
fn told(object: &Value, field: &str) -> String {
    let flat = if field == "approval" { "/status/state" } else { "/status/none" };
    [text(object, &format!("/status/common/State/{field}")), text(object, flat)].concat()
}

/// The generation that a status is of, in either form.
fn observed(object: &Value) -> &Value {
    let status = &object["status"];
    if status["common"].is_null() {
        &status["observedGeneration"]
    } else {
        &status["common"]["State"]["observedGeneration"]
    }
}

/// The numbers of a status, by the names that `check` has for them.
fn counts(status: &Value) -> Value {
    let mut counts = serde_json::Map::new();
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::Number(_) if name != "observedGeneration" => drop(counts.insert(name.clone(), value.clone())),
            Value::Object(map) if name != "common" => {
                counts.extend(map.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())));
            }
            _ => {}
        }
    }
    Value::Object(counts)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[test]
fn r132_the_founding_scenarios_hold_behind_api_servers() -> anyhow::Result<()> {
    let scenarios = wanted()?;
    let (next, after, faults) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let has_second = |index: &usize| acts_of_two(&scenarios[*index]);
    let (double, single): (Vec<usize>, Vec<usize>) = (0..scenarios.len()).partition(has_second);
    let (give, take) = mpsc::channel::<Kube>();
    std::thread::scope(|scope| {
        let (scenarios, single, double, next, after, faults) = (&scenarios, &single, &double, &next, &after, &faults);
        let second = scope.spawn(move || {
            runtime()?.block_on(async {
                let mut stage = Stage::start("second", scenarios).await?;
                stage.work(single, next, faults).await?;
                stage.show(&[]).await?;
                let Stage { kube, chancery, .. } = stage;
                drop(chancery);
                give.send(kube).map_err(|_| anyhow!("the first world is gone"))
            })
        });
        let first = scope.spawn(move || {
            runtime()?.block_on(async {
                let mut stage = Stage::start("first", scenarios).await?;
                stage.work(single, next, faults).await?;
                stage.show(&[]).await?;
                let other = take.recv().context("the second world is gone")?;
                let credential = credential(SECOND, &std::fs::read_to_string(other.kubeconfig())?);
                let admin = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gloo-mesh"}});
                stage.kube.apply(&[admin, credential])?;
                stage.other = Some(other);
                stage.work(double, after, faults).await
            })
        });
        let done = [second.join(), first.join()];
        done.into_iter().try_for_each(|done| done.map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let mut faults = faults.into_inner()?;
    faults.sort();
    ensure!(faults.is_empty(), "{} differences in {} scenarios:\n{}", faults.len(), scenarios.len(), faults.join("\n"));
    Ok(())
}

fn acts_of_two(scenario: &Scenario) -> bool {
    scenario.manifests().is_ok_and(|manifests| manifests.iter().any(|manifest| manifest.cluster == SECOND))
}
