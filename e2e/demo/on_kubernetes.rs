//! The demo behind API servers: a management cluster and a workload cluster that is registered there, with everything
//! that people do done by kubectl.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::support::chancery::{self, MANAGEMENT_CLUSTER, Settings};
use super::support::kube::Kube;
use super::support::kube_world::{Ages, fill};
use super::support::manifests::{Manifest, list, text};
use super::support::project;
use super::support::wait::{Not, PATIENCE, until};
use super::support::world::Gateway;

/// The cluster that is registered.
const WORKLOADS: &str = "cluster-1";
/// Where clusters are registered.
const ADMIN: &str = "gloo-mesh";

/// Two API servers with the objects of the demo.
pub(super) struct Servers {
    management: Kube,
    workloads: Kube,
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
        // The gateway is a Pod: who it is, the API server says.
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{}-0", gateway.service), "namespace": gateway.namespace, "labels": gateway.labels},
            "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy"}]},
        });
        let mut objects = manifests.to_vec();
        objects.push(Manifest { cluster: WORKLOADS.to_owned(), object: pod });
        fill(&workloads, &objects, &[WORKLOADS], Ages::Everything).await?;
        // One object and one Secret register a cluster; the object is among those of the demo.
        let credential = workloads.kubeconfig_of_account(ADMIN, "chancery")?;
        management.apply(&[json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{WORKLOADS}-kubeconfig"), "namespace": ADMIN},
            "stringData": {"kubeconfig": credential.to_string()},
        })])?;
        fill(&management, &objects, &[MANAGEMENT_CLUSTER], Ages::Everything).await?;
        Ok(Self { management, workloads })
    }

    /// The kubeconfig by which the control plane reaches the management cluster.
    pub(super) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.management.account(ADMIN, "chancery")
    }

    /// Applies an edited file of the workload cluster.
    pub(super) fn edit(&self, file: &Path) -> anyhow::Result<()> {
        self.workloads.apply_path(file).map(drop)
    }

    /// What a visitor may try.
    pub(super) fn suggest(&self) {
        for (kube, name) in [(&self.management, "management"), (&self.workloads, WORKLOADS)] {
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
        for (kube, name) in [(&self.management, "management"), (&self.workloads, WORKLOADS)] {
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
        for (kube, cluster) in [(&self.management, MANAGEMENT_CLUSTER), (&self.workloads, WORKLOADS)] {
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
