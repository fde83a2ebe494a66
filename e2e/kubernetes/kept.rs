//! What outlives a server, an API server, and a replica: what was read last, the generated root of trust, the Lease; and the
//! Secrets that are read for it.

use std::os::unix::fs::PermissionsExt as _;

use super::away::{kubeconfig, serve};
use super::*;
use crate::support::http;
use crate::support::issuer::base64;
use crate::support::process::Process;
use crate::support::tls::Authority;

/// A listener with a certificate of a Secret, and a policy whose keys are in Secrets that it selects by labels.
pub(super) fn with_secrets(certificate: &str, key: &str, api_key: &str) -> Vec<Value> {
    let mut all = objects("mgmt");
    let tls = json!({"http": {}, "port": {"number": 8443}, "tls": {"mode": "SIMPLE", "secretName": "edge-tls"}});
    for object in &mut all {
        match (object["kind"].as_str(), object["metadata"]["name"].as_str()) {
            (Some("VirtualGateway"), _) => {
                object["spec"]["listeners"].as_array_mut().expect("listeners").push(tls.clone());
            }
            (Some("Service"), Some("web")) => {
                let port = json!({"name": "https", "port": 8443});
                object["spec"]["ports"].as_array_mut().expect("ports").push(port);
            }
            (Some("RouteTable"), _) => object["spec"]["http"][0]["labels"] = json!({"route": "cart"}),
            _ => {}
        }
    }
    let storage = json!({"labelSelector": {"keys": "cart"}});
    all.extend([
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "edge-tls", "namespace": "shop"},
            "data": {"tls.crt": base64(certificate), "tls.key": base64(key)},
        }),
        api_key_secret(api_key),
        json!({
            "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ExtAuthPolicy",
            "metadata": {"name": "keys", "namespace": "shop"},
            "spec": {
                "applyToRoutes": [{"route": {"labels": {"route": "cart"}}}],
                "config": {"glooAuth": {"configs": [{"apiKeyAuth": {"k8sSecretApikeyStorage": storage}}]}},
            },
        }),
    ]);
    all
}

fn api_key_secret(key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "extauth.solo.io/apikey",
        "metadata": {"name": "key-1", "namespace": "shop", "labels": {"keys": "cart"}},
        "data": {"api-key": base64(key)},
    })
}

async fn page(chancery: &Chancery, path: &str) -> anyhow::Result<String> {
    Ok(http::get(chancery.admin(), "localhost", path).await?.text())
}

/// R7: Secrets that are named, and those that are selected by labels, are what a directory of the same objects has. Then the API
/// server goes away, and a restart serves the same from what was kept, says so, and follows again when it is back.
#[tokio::test]
async fn r7_r11_secrets_are_read_and_what_was_read_last_outlives_a_restart_without_the_api_server() -> anyhow::Result<()>
{
    let mut kube = Kube::start("kept").await?;
    install_loose(&kube)?;
    let authority = Authority::new("shop")?;
    let pair = authority.sign("shop.example.com", "shop")?;
    kube.apply(&with_secrets(&pair.certificate, &pair.key, "CANARY-KEY-1"))?;
    let mut chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let folder = tempfile::tempdir()?;
    export(&kube, folder.path())?;
    let secrets = kube.get(&["secrets", "-n", "shop"])?;
    std::fs::write(folder.path().join("secrets.json"), secrets.to_string())?;
    let of_directory = Chancery::serve(folder.path(), &Settings::default()).await?;
    let expected = served(&of_directory, "mgmt").await?;
    let listeners = |served: &Served| served.keys().filter(|(kind, _)| kind.ends_with(".Listener")).count();
    ensure!(listeners(&expected) == 2, "{expected:?}");
    let first = until_served(&chancery, "mgmt", "the same as of a directory", |found| *found == expected).await?;
    kube.apply(&[api_key_secret("CANARY-KEY-2")])?;
    let before = until_served(&chancery, "mgmt", "the other key", |found| *found != first).await?;

    // It is kept, for its owner only.
    let kept = chancery.state().join("objects.json");
    until(PATIENCE, "the other key to be kept", async || match std::fs::read_to_string(&kept) {
        Ok(text) if text.contains(&base64("CANARY-KEY-2")) && text.contains("edge-tls") => Ok(()),
        Ok(_) => Err(Not::Yet("something else is kept".to_owned())),
        Err(error) => Err(Not::Yet(error.to_string())),
    })
    .await?;
    ensure!(std::fs::metadata(&kept)?.permissions().mode() & 0o077 == 0, "others may read it");
    ensure!(page(&chancery, "/readyz").await? == "ready\n", "{}", page(&chancery, "/readyz").await?);

    kube.kill();
    chancery.restart().await.with_context(|| chancery.log_tail())?;
    let now = served(&chancery, "mgmt").await.with_context(|| chancery.log_tail())?;
    ensure!(now == before, "{now:#?}\nbut before:\n{before:#?}");
    let ready = page(&chancery, "/readyz").await?;
    ensure!(ready.starts_with("ready\ndegraded=stale\n"), "{ready}");
    ensure!(ready.contains("cluster `mgmt` is served as it was kept at"), "{ready}");
    let metrics = page(&chancery, "/metrics").await?;
    ensure!(metrics.contains("chancery_source_stale_seconds{cluster=\"mgmt\"}"), "{metrics}");

    // Back, with an edit that was made without it.
    kube.resume().await?;
    kube.apply(&[slice("10.1.0.99")])?;
    until_served(&chancery, "mgmt", "the edit after the return", |found| *found != before).await?;
    until(PATIENCE, "nothing to be stale", async || match page(&chancery, "/readyz").await {
        Ok(ready) if ready == "ready\n" => Ok(()),
        Ok(ready) => Err(Not::Yet(ready)),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await
    .with_context(|| chancery.log_tail())?;
    ensure!(!chancery.log()?.contains("CANARY"), "the log quotes a key");
    Ok(())
}

/// What was kept of another server, or is torn, is not served.
#[tokio::test]
async fn what_was_kept_of_another_server_and_a_torn_file_are_not_served() -> anyhow::Result<()> {
    let kube = Kube::start("other").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let mut chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    chancery.stop().await?;
    let kept = chancery.state().join("objects.json");
    ensure!(kept.exists(), "a stop keeps what was read: {}", chancery.log_tail());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config");
    std::fs::write(&file, kubeconfig("https://127.0.0.1:9").to_string())?;
    let torn = tempfile::tempdir()?;
    let text = std::fs::read_to_string(&kept)?;
    std::fs::write(torn.path().join("objects.json"), &text[..text.len() / 2])?;
    for (state, words) in [(chancery.state(), ""), (torn.path().to_owned(), "was put aside")] {
        let state = state.to_string_lossy().into_owned();
        let mut command = serve(folder.path(), &file, &["--state", &state, "--management-cluster", "mgmt"]);
        let log = tempfile::tempdir()?;
        let mut process = Process::start("serve", &mut command, log.path().join("log"))?;
        until(PATIENCE, "it to say that nothing is served", async || match process.log() {
            Ok(log) if log.contains("nothing is served yet") && log.contains(words) => Ok(()),
            log => Err(Not::Yet(format!("{log:?}"))),
        })
        .await?;
        ensure!(!process.log()?.contains("were kept then"), "{}", process.log()?);
        process.kill();
    }
    Ok(())
}

/// R10: a cluster that had been connected is waited for after a restart, and one that was kept is not.
#[tokio::test]
async fn r10_a_restart_waits_for_a_cluster_that_had_been_connected_or_serves_what_was_kept() -> anyhow::Result<()> {
    let (kube, mut other) = tokio::try_join!(Kube::start("waits"), Kube::start("waited"))?;
    install_loose(&kube)?;
    install_loose(&other)?;
    kube.apply(&objects("mgmt"))?;
    other.apply(&objects("c1"))?;
    let text = std::fs::read_to_string(other.kubeconfig())?;
    let registration = json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "KubernetesCluster",
        "metadata": {"name": "c1", "namespace": "gloo-mesh"}, "spec": {"clusterDomain": "cluster.local"},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c1-kubeconfig", "namespace": "gloo-mesh"},
        "data": {"kubeconfig": base64(&text)},
    });
    kube.apply(&[registration, secret])?;
    let mut chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let theirs = until_served(&chancery, "c1", "the other cluster's gateway", |served| served.len() >= 4).await?;
    let is_synced = async || {
        let object = kube.get(&["kubernetescluster", "c1", "-n", "gloo-mesh"]).map_err(|error| format!("{error:#}"))?;
        let text = object["status"].to_string();
        if text.contains("Synced") && text.contains("\"True\"") { Ok(()) } else { Err(Not::Yet(text)) }
    };
    until(STATUSES, "the status of the other cluster", is_synced).await.with_context(|| chancery.log_tail())?;

    // Kept: the other cluster is served as it was, at once.
    other.kill();
    chancery.stop().await?;
    chancery.restart().await?;
    ensure!(served(&chancery, "c1").await? == theirs, "the lost cluster is served otherwise");
    let ready = page(&chancery, "/readyz").await?;
    ensure!(ready.contains("cluster `c1` is served as it was kept at"), "{ready}");

    // Not kept: nothing is served before it is back.
    chancery.stop().await?;
    std::fs::remove_file(chancery.state().join("objects.json"))?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state").to_string_lossy().into_owned();
    let mut command = serve(folder.path(), &kube.kubeconfig(), &["--state", &state, "--management-cluster", "mgmt"]);
    let process = Process::start("serve", &mut command, folder.path().join("log"))?;
    let says = async |words: &str| {
        until(PATIENCE, words, async || match process.log() {
            Ok(log) if log.contains(words) => Ok(()),
            log => Err(Not::Yet(format!("{log:?}"))),
        })
        .await
    };
    says("nothing is served yet: cluster `c1` was connected before and is waited for (R10): its API server does not answer").await?;
    ensure!(!process.log()?.contains("published") && !process.log()?.contains("serving"), "{}", process.log()?);
    other.resume().await?;
    says("everything was listed").await?;
    says("serving").await
}

/// R191: of replicas that start together one makes the root, in a Secret that nobody changes, and all serve it; a restart and
/// another replica find it.
#[tokio::test]
async fn r191_replicas_share_a_generated_root_in_a_secret_that_is_made_once() -> anyhow::Result<()> {
    let kube = Kube::start("roots").await?;
    install_loose(&kube)?;
    let mut all = objects("mgmt");
    for object in &mut all {
        if object["kind"] == "VirtualGateway" {
            object["spec"]["listeners"][0]["tls"] = json!({"mode": "ISTIO_MUTUAL"});
        }
    }
    all.push(json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "RootTrustPolicy",
        "metadata": {"name": "root", "namespace": "gloo-mesh"},
        "spec": {"config": {"mgmtServerCa": {"generated": {"rsaKeySizeBytes": 2048}}}},
    }));
    kube.apply(&all)?;
    let (config, settings) = (kube.kubeconfig(), Settings::default());
    let (mut first, second) = tokio::try_join!(
        Chancery::serve_kubernetes(&config, &settings),
        Chancery::serve_kubernetes(&config, &settings)
    )?;
    let secrets = || kube.get(&["secrets", "-n", "gloo-mesh", "-l", "chancery/root"]);
    let is_made = async || {
        let found = secrets().map_err(|error| format!("{error:#}"))?;
        match found["items"].as_array().map(Vec::len) {
            Some(1) => Ok(found["items"][0].clone()),
            _ => Err(Not::Yet(found.to_string())),
        }
    };
    let made = until(PATIENCE, "one root", is_made).await.with_context(|| first.log_tail())?;
    ensure!(made["metadata"]["name"] == "chancery-root" && made["type"] == "kubernetes.io/tls", "{}", made["metadata"]);
    let theirs = until_served(&first, "mgmt", "a gateway with an identity", |served| served.len() >= 3).await?;
    until_served(&second, "mgmt", "the same of the other replica", |served| *served == theirs).await?;
    for replica in [&first, &second] {
        let status = crate::support::chancery::status(replica.admin())?.to_string();
        ensure!(!status.contains("CERTIFICATE"), "{status}");
        ensure!(!replica.state().join("root.pem").exists(), "it is kept in a file too");
    }
    let change = kube.kubectl(&[
        "patch",
        "secret",
        "chancery-root",
        "-n",
        "gloo-mesh",
        "--patch",
        "{\"data\":{\"tls.crt\":\"\"}}",
    ]);
    ensure!(change.is_err(), "it can be changed: {change:?}");
    // A restart, and a replica without any memory.
    first.restart().await?;
    ensure!(served(&first, "mgmt").await? == theirs, "a restart serves otherwise");
    let third = Chancery::serve_kubernetes(&config, &settings).await?;
    ensure!(served(&third, "mgmt").await? == theirs, "another replica serves otherwise");
    let now = secrets()?;
    ensure!(now["items"].as_array().map(Vec::len) == Some(1) && now["items"][0] == made, "it is another now");
    Ok(())
}

/// A replica that stops gives the Lease up, so that another one writes at once.
#[tokio::test]
async fn a_replica_that_stops_gives_the_lease_up() -> anyhow::Result<()> {
    let kube = Kube::start("handover").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let mut chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let holder = || -> anyhow::Result<String> {
        let lease = kube.get(&["lease", "chancery-status", "-n", "gloo-mesh"])?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    until(STATUSES, "somebody to hold the Lease", async || match holder() {
        Ok(holder) if !holder.is_empty() => Ok(()),
        holder => Err(Not::Yet(format!("{holder:?}"))),
    })
    .await?;
    chancery.stop().await?;
    ensure!(holder()?.is_empty(), "it is still held by {}", holder()?);
    Ok(())
}
