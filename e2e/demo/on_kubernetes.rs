//! The demo behind API servers: a management cluster and a workload cluster that is registered there, with everything
//! that people do done by kubectl.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

use super::support::chancery::{self, MANAGEMENT_CLUSTER, Settings};
use super::support::kube::{Kube, Kubectl, kubectl_with};
use super::support::kube_world::{Ages, fill};
use super::support::manifests::{Manifest, list, text};
use super::support::project;
use super::support::wait::{Not, PATIENCE, until};
use super::support::world::Gateway;
use super::support::yaml;

/// The cluster that is registered.
const WORKLOADS: &str = "cluster-1";
/// Where clusters are registered.
const ADMIN: &str = "gloo-mesh";

/// API servers with the objects of the demo.
pub(super) enum Servers {
    /// Two that were started here, one for each cluster.
    Own {
        /// That of the management cluster.
        management: Box<Kube>,
        /// That of the cluster that is registered.
        workloads: Box<Kube>,
    },
    /// Somebody's, which is both clusters, and what was made there that is to go at the end.
    Given(Kubectl, Vec<Value>),
}

impl Servers {
    /// Starts both, and writes what a platform admin and the teams write.
    pub(super) async fn start(manifests: &[Manifest], gateway: &Gateway) -> anyhow::Result<Self> {
        println!("Starting two API servers");
        let (management, workloads) = tokio::try_join!(Kube::start(MANAGEMENT_CLUSTER), Kube::start(WORKLOADS))?;
        let files = project().join("config/kubernetes");
        for kube in [&management, &workloads] {
            kube.install_crds().await?;
            kube.apply_path(&files.join("cluster.yaml"))?;
        }
        management.apply_path(&files.join("management.yaml"))?;
        println!("Applying the objects of the demo with kubectl, one age a second");
        let mut objects = manifests.to_vec();
        objects.push(pod(gateway));
        fill(&workloads, &objects, &[WORKLOADS], Ages::Everything).await?;
        // One object and one Secret register a cluster; the object is among those of the demo.
        let credential = workloads.kubeconfig_of_account(ADMIN, "chancery")?;
        management.apply(&[json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{WORKLOADS}-kubeconfig"), "namespace": ADMIN},
            "stringData": {"kubeconfig": credential.to_string()},
        })])?;
        fill(&management, &objects, &[MANAGEMENT_CLUSTER], Ages::Everything).await?;
        Ok(Self::Own { management: Box::new(management), workloads: Box::new(workloads) })
    }

    /// Writes the same into somebody's API server, where none of it may be yet.
    pub(super) async fn given(kubeconfig: &Path, manifests: &[Manifest], gateway: &Gateway) -> anyhow::Result<Self> {
        let kube = Kubectl::given(kubeconfig)?;
        let there = kube.get(&["namespaces"])?;
        let own: Vec<&str> = manifests.iter().map(Manifest::namespace).chain([ADMIN]).collect();
        let taken =
            list(&there, "/items").iter().map(|one| text(one, "/metadata/name")).find(|name| own.contains(name));
        if let Some(name) = taken {
            bail!("the cluster of {} has a namespace `{name}` already: give an empty one", kubeconfig.display());
        }
        println!("Applying the objects of the demo with kubectl, one age a second");
        let mut made = kube.install_missing_crds().await?;
        let files = project().join("config/kubernetes");
        for file in ["cluster.yaml", "management.yaml"] {
            kube.apply_path(&files.join(file))?;
            made.extend(yaml::documents(&std::fs::read_to_string(files.join(file))?)?);
        }
        let mut objects = manifests.to_vec();
        objects.push(pod(gateway));
        fill(&kube, &objects, &[WORKLOADS], Ages::Everything).await?;
        let named = own.iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        made.extend(named.chain(objects.into_iter().map(|manifest| manifest.object)));
        Ok(Self::Given(kube, made))
    }

    /// Deletes what was made in somebody's API server.
    pub(super) fn leave(&self) -> anyhow::Result<()> {
        let Self::Given(kube, made) = self else { return Ok(()) };
        println!("\nDeleting what was made in the cluster.");
        // Definitions last: with one of them all its objects go.
        let made: Vec<&Value> = made.iter().rev().collect();
        let made = json!({"apiVersion": "v1", "kind": "List", "items": made}).to_string();
        let delete = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
        kubectl_with(&kube.kubeconfig(), &delete, Some(&made)).map(drop)
    }

    /// Each API server with the name of its cluster.
    fn all(&self) -> Vec<(&Kubectl, &'static str)> {
        match self {
            Self::Own { management, workloads } => vec![(management, MANAGEMENT_CLUSTER), (workloads, WORKLOADS)],
            Self::Given(kube, _) => vec![(kube, WORKLOADS)],
        }
    }

    /// The kubeconfig by which the control plane reaches the management cluster.
    pub(super) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        match self {
            Self::Own { management, .. } => management.account(ADMIN, "chancery"),
            Self::Given(kube, _) => kube.account(ADMIN, "chancery"),
        }
    }

    /// Applies an edited file of the workload cluster.
    pub(super) fn edit(&self, file: &Path) -> anyhow::Result<()> {
        match self {
            Self::Own { workloads, .. } => workloads.apply_path(file).map(drop),
            Self::Given(kube, _) => kube.apply_path(file).map(drop),
        }
    }

    /// What a visitor may try.
    pub(super) fn suggest(&self) {
        for (kube, name) in self.all() {
            println!("  The {name} cluster   kubectl --kubeconfig {} get chancery -A", kube.kubeconfig().display());
        }
        println!("  Take a policy away  kubectl --kubeconfig … delete hmp -n gateway edge-headers, and ask again");
    }

    /// Waits until every status says what `chancery check` says of the files, and prints what kubectl shows of them.
    pub(super) async fn judge_statuses(&self, directory: &Path, settings: &Settings) -> anyhow::Result<bool> {
        let (report, _) = chancery::check(directory, settings)?;
        let expected: BTreeMap<String, String> = list(&report, "/items")
            .iter()
            .map(|item| (text(item, "/object").to_owned(), text(item, "/approval").to_owned()))
            .collect();
        let judged = until(PATIENCE, "every status to be as `chancery check` says", async || {
            let written = self.approvals().map_err(|error| Not::Yet(format!("{error:#}")))?;
            let wrong = expected.iter().filter(|(object, approval)| written.get(*object) != Some(*approval));
            let wrong: Vec<String> = wrong
                .map(|(object, approval)| {
                    let seen = written.get(object).map_or("nothing", String::as_str);
                    format!("{object} is {approval}, and its status says {seen}")
                })
                .collect();
            if wrong.is_empty() { Ok(written.len()) } else { Err(Not::Yet(wrong.join("; "))) }
        });
        let judged = judged.await;
        println!();
        for (kube, name) in self.all() {
            println!("$ kubectl --context {name} get chancery -A -o wide");
            println!("{}", kube.kubectl(&["get", "chancery", "-A", "-o", "wide"])?.trim_end());
        }
        match judged {
            Ok(count) => {
                println!("\n{count} statuses say what `chancery check` says of the files.");
                Ok(true)
            }
            Err(error) => {
                println!("\n! {error:#}");
                Ok(false)
            }
        }
    }

    /// The approvals in all statuses, by object.
    fn approvals(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut approvals = BTreeMap::new();
        for (kube, cluster) in self.all() {
            let all = kube.get(&["chancery", "-A"])?;
            for object in list(&all, "/items") {
                let manifest = Manifest { cluster: cluster.to_owned(), object: object.clone() };
                let approval = [text(object, "/status/common/State/approval"), text(object, "/status/state")].concat();
                approvals.insert(manifest.key(), approval);
            }
        }
        Ok(approvals)
    }
}

/// The Pod that the gateway is: who it is, the API server says.
fn pod(gateway: &Gateway) -> Manifest {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{}-0", gateway.service), "namespace": gateway.namespace, "labels": gateway.labels},
        // It runs beside the cluster, so nothing is to run it there.
        "spec": {"schedulerName": "nobody", "containers": [{"name": "envoy", "image": "envoyproxy/envoy"}]},
    });
    Manifest { cluster: gateway.cluster.clone(), object }
}
