//! Two API servers: registration, loss, return, another credential, deregistration; and wrong credentials.

use super::*;
use crate::support::issuer::base64;

/// The Secret with the credential of a cluster.
pub(super) fn credential(cluster: &str, kubeconfig: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{cluster}-kubeconfig"), "namespace": "gloo-mesh"},
        "data": {"kubeconfig": base64(kubeconfig)},
    })
}

fn registration(cluster: &str) -> Value {
    json!({
        "apiVersion": "admin.gloo.solo.io/v2", "kind": "KubernetesCluster",
        "metadata": {"name": cluster, "namespace": "gloo-mesh"}, "spec": {"clusterDomain": "cluster.local"},
    })
}

/// Waits until `chancery status` tells a finding of a cluster with these words, or none of it.
async fn until_told(chancery: &Chancery, cluster: &str, words: Option<&str>) -> anyhow::Result<()> {
    let object = format!("KubernetesCluster/gloo-mesh/{cluster}@mgmt");
    until(PATIENCE, &format!("{words:?} about {object}"), async || {
        let status = crate::support::chancery::status(chancery.admin()).map_err(|error| format!("{error:#}"))?;
        let items = status["items"].as_array().cloned().unwrap_or_default();
        let found = items.iter().find(|item| item["object"] == object.as_str()).map(ToString::to_string);
        match (words, found) {
            (Some(words), Some(found)) if found.contains(words) => Ok(()),
            (None, None) => Ok(()),
            (_, found) => Err(Not::Yet(format!("{found:?}"))),
        }
    })
    .await
    .with_context(|| chancery.log_tail())
}

#[tokio::test]
async fn r3_r11_a_second_cluster_is_registered_lost_found_again_and_deregistered() -> anyhow::Result<()> {
    let (kube, mut other) = tokio::try_join!(Kube::start("first"), Kube::start("second"))?;
    install_loose(&kube)?;
    install_loose(&other)?;
    kube.apply(&objects("mgmt"))?;
    // The second cluster has its own gateway, table and backend; workspaces come from the first.
    other.apply(&objects("c1"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let own = served(&chancery, "mgmt").await?;

    // Registered by one object and one Secret.
    let kubeconfig = std::fs::read_to_string(other.kubeconfig())?;
    kube.apply(&[registration("c1")])?;
    until_told(&chancery, "c1", Some("there is no Secret `gloo-mesh/c1-kubeconfig`")).await?;
    kube.apply(&[credential("c1", &kubeconfig)])?;
    let theirs =
        until_served(&chancery, "c1", "the second cluster's gateway to be served", |served| served.len() >= 4).await?;
    until_told(&chancery, "c1", None).await?;

    // Lost: what it had stays in force, and the first cluster's edits go on.
    other.kill();
    until_told(&chancery, "c1", Some("CLUSTER_UNREACHABLE")).await?;
    ensure!(served(&chancery, "c1").await? == theirs, "something of the lost cluster is another now");
    kube.apply(&[table("/elsewhere")])?;
    until_served(&chancery, "mgmt", "an edit of the first cluster while the second is away", |now| *now != own).await?;

    // Back, with an edit of its own.
    other.resume().await?;
    other.apply(&[slice("10.1.0.99")])?;
    until_served(&chancery, "c1", "an edit of the second cluster", |now| *now != theirs).await?;
    until_told(&chancery, "c1", None).await?;

    // A bad credential, then a good one, without a restart.
    let bad = other.kubeconfig_by(other.address(), "nobody", "nobodies")?.to_string();
    kube.apply(&[credential("c1", &bad)])?;
    until_told(&chancery, "c1", Some("CLUSTER_CREDENTIAL")).await?;
    let before = served(&chancery, "c1").await?;
    kube.apply(&[credential("c1", &kubeconfig)])?;
    until_told(&chancery, "c1", None).await?;
    other.apply(&[slice("10.1.0.98")])?;
    until_served(&chancery, "c1", "an edit by the new credential", |now| *now != before).await?;

    // Deregistered: its gateway is unknown.
    kube.kubectl(&["delete", "kubernetescluster", "c1", "-n", "gloo-mesh"])?;
    until(PATIENCE, "the gateway of the second cluster to be refused", async || match served(&chancery, "c1").await {
        Err(error) if format!("{error:#}").contains("none of that name") => Ok(()),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
        Ok(_) => Err(Not::Yet("it is served".to_owned())),
    })
    .await
}

#[tokio::test]
async fn wrong_credentials_are_told_and_disturb_nobody() -> anyhow::Result<()> {
    let kube = Kube::start("only").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let own = served(&chancery, "mgmt").await?;
    let itself = std::fs::read_to_string(kube.kubeconfig())?;
    let mut nowhere: Value = serde_json::from_str(&itself)?;
    nowhere["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:9");
    let mut program = nowhere.clone();
    program["users"][0]["user"] = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "id"}});
    let mut file = nowhere.clone();
    file["users"][0]["user"] = json!({"tokenFile": "CANARY-FILE"});
    for (name, kubeconfig, words) in [
        ("no-kubeconfig", "- CANARY-TEXT".to_owned(), "holds no kubeconfig that can be read"),
        ("nowhere", nowhere.to_string(), "CLUSTER_UNREACHABLE"),
        ("program", program.to_string(), "names a program"),
        ("file", file.to_string(), "names a file"),
        ("twice", itself.clone(), "leads to the cluster that is `mgmt` already"),
    ] {
        kube.apply(&[registration(name), credential(name, &kubeconfig)])?;
        until_told(&chancery, name, Some(words)).await?;
    }
    let mut wrong_type = credential("wrong-type", "");
    wrong_type["data"] = json!({"tls.crt": "", "tls.key": ""});
    kube.apply(&[registration("wrong-type"), wrong_type])?;
    until_told(&chancery, "wrong-type", Some("has no entry `kubeconfig`")).await?;
    ensure!(served(&chancery, "mgmt").await? == own, "something is served otherwise");
    ensure!(!chancery.log()?.contains("CANARY"), "the log quotes a credential");
    Ok(())
}
