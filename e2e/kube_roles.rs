//! What Chancery asks of an API server is what its roles grant: a verb less and something fails, a verb more and it is unused.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::support::chancery::{self, Chancery, Settings};
use crate::support::kube::Kube;
use crate::support::manifests::{self, list, text};
use crate::support::wait::{Not, until};
use crate::support::{project, yaml};

/// The Lease is renewed every few seconds, and statuses of all kinds are written before.
const ALL_OF_IT: Duration = Duration::from_secs(90);

/// What is asked only of gateways' tokens, which `kubernetes::tokens` shows, and where there are gateways, which
/// `kubernetes::replicas` does.
const ELSEWHERE: [(&str, &str); 4] = [
    ("create", "authentication.k8s.io:tokenreviews"),
    ("create", ":configmaps"),
    ("delete", ":configmaps"),
    ("patch", ":configmaps"),
];

/// What the roles of some files grant: verb and resource with its group.
fn granted(files: &[&str]) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut grants = BTreeSet::new();
    for file in files {
        let documents = yaml::documents(&fs::read_to_string(project().join("config/kubernetes").join(file))?)?;
        for rule in documents.iter().flat_map(|document| list(document, "/rules")) {
            let texts = |name: &str| {
                let values = rule[name].as_array().into_iter().flatten();
                values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
            };
            for (group, resource) in texts("apiGroups")
                .iter()
                .flat_map(|group| texts("resources").into_iter().map(move |name| (group, name)))
            {
                grants.extend(texts("verbs").into_iter().map(|verb| (verb, format!("{group}:{resource}"))));
            }
        }
    }
    Ok(grants)
}

/// One object of every kind, as bare as its definition allows.
fn one_of_each() -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in manifests::files(&project().join("config/crds"))? {
        let definition = yaml::documents(&fs::read_to_string(&file)?)?.pop().context("a definition")?;
        let kind = text(&definition, "/spec/names/kind");
        let (name, namespace, spec) = match kind {
            "KubernetesCluster" => ("mgmt", "gloo-mesh", json!({})),
            "Workspace" => {
                let selector = json!([{"name": "*", "namespaces": [{"name": "shop"}]}]);
                ("shop", "gloo-mesh", json!({"workloadClusters": selector}))
            }
            "RootTrustPolicy" => ("root", "gloo-mesh", json!({})),
            // Its certificate is the Secret that is named.
            "VirtualGateway" => {
                let tls = json!({"mode": "SIMPLE", "secretName": "edge"});
                let workloads = json!([{"selector": {"labels": {"app": "web"}}}]);
                (
                    "one",
                    "shop",
                    json!({"workloads": workloads, "listeners": [{"port": {"number": 443}, "http": {}, "tls": tls}]}),
                )
            }
            "RouteTable" => ("one", "shop", json!({"http": [{"name": "all"}]})),
            "VirtualDestination" => {
                ("one", "shop", json!({"hosts": ["a.mesh"], "ports": [{"number": 80, "protocol": "HTTP"}]}))
            }
            _ => ("one", "shop", json!({})),
        };
        objects.push(json!({
            "apiVersion": format!("{}/v2", text(&definition, "/spec/group")), "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }));
    }
    Ok(objects)
}

#[test]
fn the_deployment_starts_what_there_is() -> anyhow::Result<()> {
    let file = project().join("config/kubernetes/deployment.yaml");
    let documents = yaml::documents(&fs::read_to_string(file)?)?;
    let deployment = documents.first().context("a Deployment")?;
    let arguments = list(deployment, "/spec/template/spec/containers/0/args").iter().filter_map(Value::as_str);
    let output = Command::new(chancery::binary()?).args(arguments).arg("--print-config").output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn the_roles_grant_what_chancery_asks_and_nothing_else() -> anyhow::Result<()> {
    let kube = Kube::start_defined("roles").await?;
    for file in ["cluster.yaml", "management.yaml", "deployment.yaml"] {
        kube.apply_path(&project().join("config/kubernetes").join(file))?;
    }
    kube.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "https", "port": 443}]},
        }),
    ])?;
    let account = "--serviceaccount=gloo-mesh:chancery";
    kube.kubectl(&["create", "rolebinding", "secrets", "-n", "shop", "--clusterrole=chancery-secrets", account])?;
    kube.apply(&one_of_each()?)?;
    let mut granted = granted(&["cluster.yaml", "management.yaml"])?;
    for (verb, resource) in ELSEWHERE {
        assert!(granted.remove(&(verb.to_owned(), resource.to_owned())), "the role to {verb} {resource} is gone");
    }

    let chancery = Chancery::serve_kubernetes(&kube.account("gloo-mesh", "chancery")?, &Settings::default()).await?;
    let asked = until(ALL_OF_IT, "everything that the roles grant to be asked", async || {
        let asked = kube.asked().map_err(|error| Not::Ever(format!("{error:#}")))?;
        let used: BTreeSet<(String, String)> =
            asked.iter().map(|(verb, resource, _)| (verb.clone(), resource.clone())).collect();
        let unused: Vec<_> = granted.difference(&used).collect();
        if unused.is_empty() { Ok(asked) } else { Err(Not::Yet(format!("unused: {unused:?}"))) }
    })
    .await
    .map_err(|error| error.context(chancery.log_tail()))?;
    let refused: Vec<_> = asked.iter().filter(|(_, _, is_allowed)| !is_allowed).collect();
    assert!(refused.is_empty(), "the roles lack {refused:?}");
    Ok(())
}
