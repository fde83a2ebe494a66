//! What authors read by kubectl: verdicts, conditions, events; who writes them, and that nothing is written in vain.

use super::*;
use crate::support::http;

/// A condition of an object: its status and reason.
pub(super) fn condition(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == name);
    let text = |key: &str| found.and_then(|condition| condition[key].as_str()).unwrap_or_default().to_owned();
    format!("{}/{}", text("status"), text("reason"))
}

/// Waits until an object's status is right.
pub(super) async fn until_object(
    kube: &Kube,
    chancery: &Chancery,
    what: [&str; 2],
    mut is_right: impl FnMut(&Value) -> bool,
) -> anyhow::Result<Value> {
    until(STATUSES, &format!("the status of {what:?}"), async || {
        let namespace = if what[0].starts_with("kubernetescluster") { "gloo-mesh" } else { "shop" };
        let object = kube.get(&[what[0], what[1], "-n", namespace]).map_err(|error| format!("{error:#}"))?;
        if is_right(&object) { Ok(object) } else { Err(Not::Yet(object["status"].to_string())) }
    })
    .await
    .with_context(|| chancery.log_tail())
}

pub(super) fn approval(object: &Value) -> &str {
    object["status"]["common"]["State"]["approval"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn r132_r137_verdicts_stand_in_the_objects_and_follow_them() -> anyhow::Result<()> {
    let kube = Kube::start_defined("statuses").await?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let table_is = ["routetable", "cart"];
    let good = until_object(&kube, &chancery, table_is, |object| approval(object) == "ACCEPTED").await?;
    ensure!(condition(&good, "Accepted") == "True/Accepted", "{good}");
    ensure!(condition(&good, "Programmed") == "Unknown/NoGateways", "{good}");
    ensure!(good["status"]["ownedByWorkspace"] == "shop" && good["status"]["numAllowedVirtualGateways"] == 1, "{good}");
    let cluster = ["kubernetescluster", "mgmt"];
    until_object(&kube, &chancery, cluster, |object| condition(object, "Synced") == "True/Synced").await?;

    // What does not exist is told, with an event; what is right again too.
    let mut broken = table("/");
    broken["spec"]["http"][0]["forwardTo"]["destinations"][0]["ref"]["name"] = json!("nowhere");
    kube.apply(&[broken])?;
    let invalid = until_object(&kube, &chancery, table_is, |object| approval(object) == "INVALID").await?;
    ensure!(condition(&invalid, "ResolvedRefs") == "False/DestinationNotFound", "{invalid}");
    ensure!(
        invalid["status"]["common"]["State"]["observedGeneration"] == invalid["metadata"]["generation"],
        "{invalid}"
    );
    let columns = kube.kubectl(&["get", "routetable", "cart", "-n", "shop"])?;
    ensure!(columns.contains("INVALID") && columns.contains("DestinationNotFound"), "{columns}");
    kube.apply(&[table("/")])?;
    let again = until_object(&kube, &chancery, table_is, |object| approval(object) == "ACCEPTED").await?;
    let reasons = async || {
        let events = kube.get(&["events.events.k8s.io", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        let items = events["items"].as_array().cloned().unwrap_or_default();
        let own = items.iter().filter(|event| event["regarding"]["kind"] == "RouteTable");
        let mut told: Vec<(String, String)> = own
            .map(|event| (event["eventTime"].to_string(), event["reason"].as_str().unwrap_or_default().to_owned()))
            .collect();
        told.sort();
        let told: Vec<String> = told.into_iter().map(|(_, reason)| reason).collect();
        if told == ["DestinationNotFound", "Accepted"] { Ok(()) } else { Err(Not::Yet(format!("{told:?}"))) }
    };
    until(STATUSES, "an event for each change", reasons).await?;

    // Nothing is written while nothing is another: a change elsewhere is looked at, and this one stays as it is.
    let settled = |object: &Value| object["metadata"]["resourceVersion"].to_string();
    kube.apply(&[slice("10.1.0.55")])?;
    kube.kubectl(&["label", "workspace", "shop", "-n", "gloo-mesh", "note=1"])?;
    let workspace = kube.get(&["workspace", "shop", "-n", "gloo-mesh"])?;
    ensure!(workspace["status"]["numSelectedNamespaces"] == 1, "{workspace}");
    let still = kube.get(&["routetable", "cart", "-n", "shop"])?;
    ensure!(settled(&again) == settled(&still), "{again}\n{still}");
    Ok(())
}

/// Definitions of another installation, which drop what they do not know of a status.
pub(super) fn pruning_definitions() -> Vec<Value> {
    let mut definitions = loose_definitions();
    for definition in &mut definitions {
        let text = json!({"type": "string"});
        let state = json!({"type": "object", "properties": {"approval": text, "message": text}});
        let common = json!({"type": "object", "properties": {"State": state}});
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
            "type": "object",
            "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {"type": "object", "properties": {"common": common}},
            },
        });
    }
    definitions
}

#[tokio::test]
async fn r137_fields_that_foreign_definitions_drop_are_written_once() -> anyhow::Result<()> {
    let kube = Kube::start("pruned").await?;
    kube.apply(&pruning_definitions())?;
    kube.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let good = until_object(&kube, &chancery, ["routetable", "cart"], |object| approval(object) == "ACCEPTED").await?;
    ensure!(good["status"]["conditions"].is_null(), "{good}");
    // Every look at the objects would write again, if what is dropped counted as missing.
    let before = writes(&chancery).await?;
    for address in ["10.1.0.21", "10.1.0.22", "10.1.0.23"] {
        let known = served(&chancery, "mgmt").await?;
        kube.apply(&[slice(address)])?;
        until_served(&chancery, "mgmt", "the other address", |served| *served != known).await?;
    }
    let log = chancery.log()?;
    ensure!(log.contains("drops fields of the status"), "{log}");
    let after = writes(&chancery).await?;
    ensure!(after <= before + 1.0, "{before} writes, then {after}");
    Ok(())
}

/// How many statuses were written.
pub(super) async fn writes(chancery: &Chancery) -> anyhow::Result<f64> {
    metric(chancery, "chancery_status_writes_total{result=\"written\"} ").await
}

/// A metric, by its name and labels and the space after them; 0 where it is absent.
pub(super) async fn metric(chancery: &Chancery, name: &str) -> anyhow::Result<f64> {
    let text = http::get(chancery.admin(), "admin", "/metrics").await?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("0").parse().with_context(|| name.to_owned())
}

#[tokio::test]
async fn one_of_two_replicas_writes_and_one_that_only_reads_never_does() -> anyhow::Result<()> {
    let kube = Kube::start("replicas").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let quiet = Settings { read_only: true, ..Settings::default() };
    let reader = Chancery::serve_kubernetes(&kube.kubeconfig(), &quiet).await?;
    let expected = served(&reader, "mgmt").await?;
    ensure!(kube.get(&["leases", "-n", "gloo-mesh"])?["items"] == json!([]), "a reader has a Lease");
    let one = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    until_object(&kube, &one, ["routetable", "cart"], |object| approval(object) == "ACCEPTED").await?;
    let mut one = one;
    let two = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    ensure!(served(&one, "mgmt").await? == expected && served(&two, "mgmt").await? == expected, "versions differ");
    ensure!(writes(&one).await? > 0.0 && writes(&two).await? == 0.0 && writes(&reader).await? == 0.0, "who wrote");
    // The holder is killed: the other one writes what comes after.
    one.kill();
    let mut broken = table("/");
    broken["spec"]["http"][0]["forwardTo"]["destinations"][0]["ref"]["name"] = json!("nowhere");
    kube.apply(&[broken])?;
    until_object(&kube, &two, ["routetable", "cart"], |object| approval(object) == "INVALID").await?;
    ensure!(writes(&reader).await? == 0.0, "the reader wrote");
    Ok(())
}
