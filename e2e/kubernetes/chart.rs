//! The Helm chart of `config/chart`: it makes what `config/kubernetes` has, a real API server takes what it makes of many values,
//! and wrong values are refused with words.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use super::deployed::{by_name, documents, folder, kustomized};
use super::*;
use crate::support::chancery::binary;
use crate::support::manifests::{list, text};
use crate::support::{kube, project, yaml};

/// What `helm install` of the chart is told beside its values.
const RELEASE: [&str; 4] = ["chancery", "config/chart", "--namespace", "gloo-mesh"];

/// Values that change what is made, each alone.
const VALUES: &[&str] = &[
    "replicas=3",
    "autoscaling.enabled=true",
    "revision=r2",
    "serviceMonitor.enabled=true,serviceMonitor.labels.team=ops",
    "generatedRoot=false",
    "readOnly=true",
    "state.claim=chancery",
    "mode=registered,personas=false,secretsIn={shop}",
    "secretsIn={gloo-mesh,shop},secretsEverywhere=true",
    "managementCluster=eu,args={--require-auth,--delegation-consent=either}",
    "image.repository=mirror/chancery,image.tag=v2,image.pullPolicy=Always,imagePullSecrets={mirror}",
    "service.type=LoadBalancer,service.annotations.a=b,serviceAccount.annotations.a=b,podLabels.a=b,podAnnotations.a=b",
    "resources.limits.memory=1Gi,priorityClassName=system-cluster-critical,nodeSelector.disk=ssd,tolerations[0].operator=Exists",
    "topologySpread.whenUnsatisfiable=DoNotSchedule,disruptionBudget.maxUnavailable=50%",
];

/// Values that are wrong, and what is said of them.
const WRONG: &[(&str, &[&str])] = &[
    ("replicas=two", &["/replicas", "got string, want integer"]),
    ("replica=2", &["at ''", "additional properties 'replica' not allowed"]),
    ("image.tga=1", &["/image", "additional properties 'tga' not allowed"]),
    // Written as a number, 1.10 would be 1.1.
    ("image.tag=2", &["/image/tag", "got number, want string"]),
    ("mode=remote", &["/mode", "'management', 'registered'"]),
    ("revision=R_2", &["/revision", "does not match pattern"]),
    ("secretsIn=shop", &["/secretsIn", "got string, want array"]),
    ("autoscaling.enabled=yes", &["/autoscaling/enabled", "want boolean"]),
    ("autoscaling.maxReplicas=0", &["/autoscaling/maxReplicas", "got 0, want 1"]),
    ("autoscaling.enabled=true,autoscaling.minReplicas=9", &["minReplicas is greater than autoscaling.maxReplicas"]),
    ("disruptionBudget.maxUnavailable=0", &["/disruptionBudget/maxUnavailable"]),
    ("resources.limits.memory=lots", &["/resources/limits/memory"]),
    ("state.claim=disk,replicas=2", &["state.claim is for one replica"]),
    ("state.claim=disk,autoscaling.enabled=true", &["state.claim is for one replica"]),
    ("args={--state=/elsewhere}", &["args has --state"]),
    ("podLabels.app=mine", &["podLabels has app"]),
];

/// helm, in the project's folder. What it remembers goes to a folder of its own.
fn helm(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(kube::find("helm")?);
    command.current_dir(project()).args(arguments).env("HOME", folder);
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, folder.join("helm"));
    }
    command.env("KUBECONFIG", folder.join("admin.kubeconfig")).output().context("run helm")
}

/// The same; returns what it printed.
///
/// # Errors
/// What it said, where it failed.
fn helm_says(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = helm(folder, arguments)?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "helm {arguments:?}: {}{said}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// What the chart makes of values, by kind, namespace and name.
fn made_of(values: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let folder = tempfile::tempdir()?;
    let arguments = [&["template"], &RELEASE[..], &["--set", values]].concat();
    Ok(by_name(yaml::documents(&helm_says(folder.path(), &arguments)?)?))
}

/// Objects without what only helm reads, and without the namespace, which helm makes by itself.
fn without_packaging(mut objects: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    objects.remove("Namespace//gloo-mesh");
    for object in objects.values_mut() {
        if let Some(Value::Object(annotations)) = object["metadata"].get_mut("annotations") {
            annotations.retain(|name, _| !name.starts_with("helm.sh/"));
            if annotations.is_empty() {
                object["metadata"].as_object_mut().map(|metadata| metadata.remove("annotations"));
            }
        }
    }
    objects
}

/// A kind and name among what was made.
fn one<'a>(made: &'a BTreeMap<String, Value>, name: &str) -> anyhow::Result<&'a Value> {
    made.get(name).with_context(|| format!("no {name}: {:?}", made.keys()))
}

#[test]
fn with_its_own_values_the_chart_makes_what_kustomize_makes() -> anyhow::Result<()> {
    assert_eq!(without_packaging(made_of("")?), without_packaging(kustomized(&folder())?));
    Ok(())
}

#[test]
fn in_a_registered_cluster_the_chart_makes_what_the_file_for_it_has() -> anyhow::Result<()> {
    let made = made_of("mode=registered,personas=false")?;
    assert_eq!(made, without_packaging(by_name(documents("cluster.yaml")?)));
    Ok(())
}

/// The manual says how a second installation is made with kustomize.
#[test]
fn a_revision_is_what_the_manual_tells_kustomize() -> anyhow::Result<()> {
    let manual = fs::read_to_string(project().join("src/manual/kubernetes.md"))?;
    let (_, rest) =
        manual.split_once("```yaml\n# kustomization.yaml of r2\n").context("the manual has no such file")?;
    let (written, _) = rest.split_once("```").context("the file has no end")?;
    let place = tempfile::tempdir()?;
    for file in ["cluster.yaml", "management.yaml", "deployment.yaml"] {
        fs::copy(folder().join(file), place.path().join(file))?;
    }
    fs::write(place.path().join("kustomization.yaml"), written)?;
    let (made, kustomized) = (made_of("revision=r2")?, kustomized(place.path())?);
    assert_eq!(made, without_packaging(kustomized));
    // Beside the first one: nothing has its name, and no selector finds its Pods.
    let first = made_of("")?;
    let common: Vec<&String> = made.keys().filter(|name| first.contains_key(*name)).collect();
    assert!(common.is_empty(), "{common:?}");
    for (name, pointer) in [
        ("Service/gloo-mesh/chancery", "/spec/selector"),
        ("Deployment/gloo-mesh/chancery", "/spec/selector/matchLabels"),
        ("PodDisruptionBudget/gloo-mesh/chancery", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(one(&first, name)?.pointer(pointer), Some(&json!({"app": "chancery"})), "{name}");
        assert_eq!(one(&made, &format!("{name}-r2"))?.pointer(pointer), Some(&json!({"app": "chancery-r2"})), "{name}");
    }
    Ok(())
}

#[test]
fn values_do_what_they_say() -> anyhow::Result<()> {
    let (deployment, role) = ("Deployment/gloo-mesh/chancery", "Role/gloo-mesh/chancery");
    let made = made_of("autoscaling.enabled=true,autoscaling.maxReplicas=7,replicas=3")?;
    assert_eq!(one(&made, deployment)?["spec"].get("replicas"), None, "the autoscaler and the chart write one field");
    let scaler = one(&made, "HorizontalPodAutoscaler/gloo-mesh/chancery")?;
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], json!("chancery"));
    assert_eq!(scaler["spec"]["maxReplicas"], json!(7));

    let made = made_of("generatedRoot=false")?;
    assert!(!one(&made, role)?["rules"].to_string().contains("secrets"), "{}", made[role]);

    let made = made_of("readOnly=true")?;
    for name in ["ClusterRole//chancery-writer", "ClusterRoleBinding//chancery-writer", role] {
        assert!(!made.contains_key(name), "{name} is there though nothing is written");
    }
    // Whose tokens are is asked still.
    assert!(one(&made, "ClusterRole//chancery-reader")?["rules"].to_string().contains("tokenreviews"));

    let made = made_of("state.claim=disk")?;
    assert_eq!(one(&made, deployment)?["spec"]["strategy"], json!({"type": "Recreate"}), "two would have one state");

    let made = made_of("serviceMonitor.enabled=true")?;
    let selector = &one(&made, "ServiceMonitor/gloo-mesh/chancery")?["spec"]["selector"]["matchLabels"];
    let monitored: Vec<&str> = made
        .values()
        .filter(|object| object["kind"] == "Service" && object["metadata"].get("labels") == Some(selector))
        .map(|object| text(object, "/metadata/name"))
        .collect();
    assert_eq!(monitored, ["chancery-metrics"]);

    let made = made_of("secretsIn={shop}")?;
    let bindings: Vec<&String> = made.keys().filter(|name| name.ends_with("/chancery-secrets")).collect();
    assert_eq!(
        bindings,
        [
            "ClusterRole//chancery-secrets",
            "RoleBinding/gloo-mesh/chancery-secrets",
            "RoleBinding/shop/chancery-secrets"
        ]
    );

    let digest = format!("sha256:{}", "0".repeat(64));
    let made = made_of(&format!("image.repository=mirror/chancery,image.tag=v2,image.digest={digest}"))?;
    let image = one(&made, deployment)?.pointer("/spec/template/spec/containers/0/image");
    assert_eq!(image, Some(&json!(format!("mirror/chancery@{digest}"))));
    Ok(())
}

#[test]
fn chancery_takes_the_arguments_of_every_value_and_helm_finds_nothing_to_say() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    for values in [""].iter().chain(VALUES) {
        helm_says(place.path(), &["lint", "--strict", "config/chart", "--set", values])?;
        let Some(deployment) = made_of(values)?.into_values().find(|object| object["kind"] == "Deployment") else {
            ensure!(values.contains("registered"), "{values}: no Deployment");
            continue;
        };
        let arguments = list(&deployment, "/spec/template/spec/containers/0/args").iter().filter_map(Value::as_str);
        let output = Command::new(binary()?).args(arguments).arg("--print-config").output()?;
        assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn the_chart_and_the_image_have_the_version_of_the_program() -> anyhow::Result<()> {
    let chart = fs::read_to_string(project().join("config/chart/Chart.yaml"))?;
    let chart = yaml::documents(&chart)?.pop().context("an empty file")?;
    let version = json!(env!("CARGO_PKG_VERSION"));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version, &version));
    let deployment = documents("deployment.yaml")?;
    let image = deployment[0].pointer("/spec/template/spec/containers/0/image");
    assert_eq!(image, Some(&json!(concat!("chancery:", env!("CARGO_PKG_VERSION")))));
    Ok(())
}

#[test]
fn wrong_values_are_refused_with_words() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    for (values, words) in WRONG {
        for arguments in [
            [&["template"], &RELEASE[..], &["--set", values]].concat(),
            ["lint", "config/chart", "--set", values].to_vec(),
        ] {
            let output = helm(place.path(), &arguments)?;
            let (printed, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let said = format!("{printed}{wrong}");
            // What a template refuses, a lint says without an error.
            let may_pass = arguments[0] == "lint" && !said.contains("- at '");
            assert!(may_pass || !output.status.success(), "{arguments:?} is taken: {said}");
            for word in *words {
                assert!(said.contains(word), "{arguments:?} says {said:?}, without {word:?}");
            }
        }
    }
    Ok(())
}

/// An API server takes what the chart makes, under strict validation; two installations stand beside each other, and one goes
/// without the other. At the end nothing is left of it but what people are bound to.
pub(super) fn is_taken(kube: &Kube) -> anyhow::Result<()> {
    let kubeconfig = kube.kubeconfig();
    let place = kubeconfig.parent().context("the kubeconfig is in no folder")?;
    let install = |name: &str, values: &str| {
        let rest = ["config/chart", "--namespace", "gloo-mesh", "--create-namespace", "--set", values];
        helm_says(place, &[&["install", name], &rest[..]].concat())
    };
    kube.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})])?;

    // Without the definitions of the operator it says so, and leaves nothing behind.
    let monitored = "serviceMonitor.enabled=true";
    let refused = install("early", monitored).err().context("a ServiceMonitor is taken that nobody defined")?;
    assert!(format!("{refused:#}").contains("no matches for kind \"ServiceMonitor\""), "{refused:#}");
    let left = kube.kubectl(&["get", "clusterroles,deployments.apps", "-A", "-o", "name"])?;
    assert!(!left.contains("chancery"), "{left}");
    kube.apply(&[service_monitors()])?;
    kube.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/servicemonitors.monitoring.coreos.com",
        "--timeout=60s",
    ])?;

    let notes = install("chancery", "")?;
    for said in ["chancery crds | kubectl apply -f -", "kubectl create secret generic chancery-xds -n gloo-mesh"] {
        assert!(notes.contains(said), "{notes}");
    }
    for values in VALUES {
        let made: Vec<Value> = made_of(values)?.into_values().collect();
        let made = json!({"apiVersion": "v1", "kind": "List", "items": made}).to_string();
        let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        kubectl_with(&kubeconfig, &arguments, Some(&made)).with_context(|| (*values).to_owned())?;
    }

    // The next one, beside it, with all that makes objects.
    install("next", &format!("revision=r2,autoscaling.enabled=true,secretsIn={{shop}},{monitored}"))?;
    let replicas =
        |name: &str| kube.kubectl(&["get", "deployment", name, "-n", "gloo-mesh", "-o", "jsonpath={.spec.replicas}"]);
    kube.kubectl(&["scale", "deployment", "chancery-r2", "-n", "gloo-mesh", "--replicas=4"])?;
    let upgrade = ["upgrade", "next", "config/chart", "--namespace", "gloo-mesh", "--reuse-values"];
    helm_says(place, &[&upgrade[..], &["--set", "podAnnotations.a=b"]].concat())?;
    assert_eq!(replicas("chancery-r2")?, "4", "an upgrade undoes what the autoscaler did");
    let upgrade = ["upgrade", "chancery", "config/chart", "--namespace", "gloo-mesh", "--set", "replicas=3"];
    helm_says(place, &upgrade)?;
    assert_eq!(replicas("chancery")?, "3");

    helm_says(place, &["uninstall", "chancery", "--namespace", "gloo-mesh"])?;
    let left = kube.kubectl(&["get", "clusterroles,deployments.apps,services", "-A", "-o", "name"])?;
    let left: BTreeSet<&str> = left.lines().filter(|name| name.contains("chancery")).collect();
    for name in
        ["deployment.apps/chancery", "service/chancery", "clusterrole.rbac.authorization.k8s.io/chancery-reader"]
    {
        assert!(!left.contains(name), "{name} is left");
        assert!(left.contains(&*format!("{name}-r2")), "{left:?}");
    }
    assert!(left.contains("clusterrole.rbac.authorization.k8s.io/chancery-operator"), "people lose their roles");
    for (namespace, expected) in [("shop", "yes"), ("default", "no")] {
        let account = "system:serviceaccount:gloo-mesh:chancery-r2";
        let ask = ["auth", "can-i", "list", "secrets", "-n", namespace, "--as", account];
        let answer = kube::run(&kubeconfig, &ask, None)?;
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), expected, "Secrets of {namespace}");
    }
    helm_says(place, &["uninstall", "next", "--namespace", "gloo-mesh"]).map(drop)
}

/// As bare as it can be.
fn service_monitors() -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    })
}
