//! The manifests of `config/kubernetes` as they are: kustomize builds and applies them, and the gateway of the example is let in by
//! the token that its Pod gets, and serves.

use std::fs;
use std::process::Command;

use super::shop::shows;
use super::*;
use crate::support::chancery::binary;
use crate::support::envoy::Envoy;
use crate::support::manifests::{list, text};
use crate::support::net::Network;
use crate::support::{project, yaml};

/// What kustomize is to build of.
const PARTS: [&str; 4] = ["cluster.yaml", "management.yaml", "deployment.yaml", "personas.yaml"];

/// What the example says of its cluster, which is the management cluster here.
const EXAMPLE: &str = "eu/edge/";

pub(super) fn folder() -> std::path::PathBuf {
    project().join("config/kubernetes")
}

pub(super) fn documents(file: &str) -> anyhow::Result<Vec<Value>> {
    yaml::documents(&fs::read_to_string(folder().join(file))?)
}

/// Kind, namespace and name, for comparisons, with the object.
pub(super) fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let part = |pointer| text(object, pointer).to_owned();
        [part("/kind"), part("/metadata/namespace"), part("/metadata/name")].join("/")
    };
    objects.into_iter().map(|object| (name(&object), object)).collect()
}

/// What kustomize builds of a folder.
pub(super) fn kustomized(folder: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let output = Command::new(crate::support::kube::find("kubectl")?).args(["kustomize"]).arg(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(by_name(yaml::documents(&String::from_utf8(output.stdout)?)?))
}

#[test]
fn kustomize_builds_what_the_files_say() -> anyhow::Result<()> {
    let built = kustomized(&folder())?;
    let mut files = Vec::new();
    for part in PARTS {
        files.extend(documents(part)?);
    }
    assert_eq!(built, by_name(files));
    Ok(())
}

/// The command in the comment of the example prints its bootstrap.
#[test]
fn the_bootstrap_of_the_example_is_what_its_comment_prints() -> anyhow::Result<()> {
    let written = fs::read_to_string(folder().join("gateway.yaml"))?;
    let (_, command) = written.split_once("#   chancery bootstrap ").context("the comment has no command")?;
    let words: Vec<&str> = command
        .lines()
        .enumerate()
        .take_while(|(number, line)| *number == 0 || line.starts_with("#     --"))
        .flat_map(|(_, line)| line.trim_start_matches('#').split_whitespace())
        .filter(|word| *word != "\\")
        .collect();
    let output = Command::new(binary()?).arg("bootstrap").args(&words).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let gateway = documents("gateway.yaml")?;
    let config = gateway.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
    assert_eq!(text(config, "/data/envoy.yaml"), String::from_utf8(output.stdout)?);
    Ok(())
}

#[tokio::test]
async fn r193_what_is_applied_with_kustomize_lets_the_gateway_of_the_example_in_and_it_serves() -> anyhow::Result<()> {
    let kube = Kube::start("deployed").await?;
    kube.install_crds().await?;
    super::chart::is_taken(&kube)?;
    let path = folder().to_string_lossy().into_owned();
    kube.kubectl(&["apply", "-k", &path])?;
    let again = kube.kubectl(&["apply", "-k", &path])?;
    // The selector of a disruption budget is always sent as a whole.
    let is_settled = |line: &str| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget");
    ensure!(again.lines().all(is_settled), "{again}");
    kube.kubectl(&["create", "namespace", "edge"])?;
    let example = folder().join("gateway.yaml").to_string_lossy().into_owned();
    kube.kubectl(&["apply", "--dry-run=server", "-f", &example])?;

    // The cluster is called otherwise here, Chancery listens elsewhere, and the gateway on addresses of its own.
    let (network, folder) = (Network::claim()?, tempfile::tempdir()?);
    let (bind, port) = (network.next_address()?, network.free_port()?);
    let keys = folder.path().join("keys");
    let made =
        Command::new(binary()?).arg("credentials").arg(&keys).args(["--server", "chancery.gloo-mesh.svc"]).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut objects = documents("gateway.yaml")?;
    for object in &mut objects {
        if object["kind"] == "Service" {
            object["spec"]["ports"][0]["targetPort"] = json!(port);
        }
    }
    kube.apply(&objects)?;
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
    let mut pod = deployment["spec"]["template"].clone();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    (pod["metadata"]["name"], pod["metadata"]["namespace"]) = (json!("web-0"), json!("edge"));
    let mut says = table("/");
    says["metadata"]["namespace"] = json!("edge");
    says["spec"]["http"] = json!([{"name": "number", "directResponse": {"status": 200, "body": "7"}}]);
    let mut listens = objects_of("VirtualGateway")?;
    listens["metadata"]["namespace"] = json!("edge");
    listens["spec"]["workloads"][0]["selector"] = json!({"labels": {"app": "web"}});
    listens["spec"]["listeners"][0]["port"] = json!({"number": 80});
    let mut workspace = objects_of("Workspace")?;
    workspace["spec"]["workloadClusters"][0]["namespaces"] = json!([{"name": "edge"}]);
    kube.apply(&[objects_of("KubernetesCluster")?, workspace, pod.clone(), listens, says])?;
    let settings = Settings { xds_credentials: Some(keys.join("server")), ..Settings::default() };
    let chancery = Chancery::serve_kubernetes(&kube.account("gloo-mesh", "chancery")?, &settings).await?;

    // What the kubelet does: files, the token, and the arguments with what the Pod knows.
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").context("no ConfigMap")?;
    let place = |path: &str| folder.path().join(path.trim_start_matches('/'));
    let moved = |text: &str| {
        let folder = folder.path().to_string_lossy();
        let paths = ["/etc/chancery", "/var/run/chancery", "/var/run/tokens"];
        paths.iter().fold(text.to_owned(), |text, path| text.replace(path, &format!("{folder}{path}")))
    };
    for path in ["/etc/chancery", "/var/run/chancery", "/var/run/tokens"] {
        fs::create_dir_all(place(path))?;
    }
    for file in ["roots.json", "token.json"] {
        fs::write(place("/etc/chancery").join(file), moved(text(config, &format!("/data/{file}"))))?;
    }
    fs::copy(keys.join("server/ca.crt"), place("/var/run/chancery/ca.crt"))?;
    let volumes = list(&pod, "/spec/volumes");
    let source = volumes.iter().find_map(|volume| volume.pointer("/projected/sources/0/serviceAccountToken"));
    let source = source.context("no token is projected")?;
    let (account, audience) =
        (text(&pod, "/spec/serviceAccountName"), format!("--audience={}", text(source, "/audience")));
    let token = kube.kubectl(&["create", "token", account, "-n", "edge", &audience])?;
    fs::write(place("/var/run/tokens").join(text(source, "/path")), token.trim())?;
    let mut bootstrap = yaml::documents(&moved(text(config, "/data/envoy.yaml")))?.pop().context("no bootstrap")?;
    let arguments = list(&pod, "/spec/containers/0/args");
    let own: Value =
        serde_json::from_str(&arguments[3].as_str().context("no argument")?.replace("$(POD_NAME)", "web-0"))?;
    ensure!(text(&own, "/node/id") == format!("{EXAMPLE}web-0"), "{own}");
    bootstrap["node"]["metadata"]["pod"] = own["node"]["metadata"]["pod"].clone();
    bootstrap["node"]["id"] = json!("mgmt/edge/web-0");
    bootstrap["node"]["metadata"]["cluster"] = json!("mgmt");
    bootstrap["node"]["metadata"]["bind"] = json!(bind.to_string());
    bootstrap["admin"]["address"] = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let server = &mut bootstrap["static_resources"]["clusters"][0];
    server["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] =
        json!({"address": chancery.xds().ip().to_string(), "port_value": chancery.xds().port()});
    let address = std::net::SocketAddr::from((bind, port));
    let mut envoy = Envoy::start("mgmt/edge/web-0", &bootstrap.to_string()).await?;
    envoy.listens(address).await.map_err(|error| error.context(chancery.log_tail()).context(envoy.log_tail()))?;
    shows(address, 7).await?;
    let log = chancery.log()?;
    ensure!(!log.contains(token.trim()), "the log quotes a token");
    Ok(())
}

/// One of the objects that other tests have.
fn objects_of(kind: &str) -> anyhow::Result<Value> {
    objects("mgmt").into_iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
}
