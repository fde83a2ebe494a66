//! A world in an API server: objects as tests and the demo have them, written as people and controllers would.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};

use super::kube::Kube;
use super::manifests::{Manifest, text};
use super::wait::{Not, PATIENCE, until};

/// Kinds whose status is written apart, by what observes them.
const OBSERVED: [&str; 3] = ["Node", "Pod", "Service"];

/// Writes the objects of some clusters into one API server, oldest first, and what would have been observed of them.
///
/// An API server dates objects itself, to the second. Objects with a `creationTimestamp` are created in that order, each
/// age in a second of its own; objects without one come first, in the order of their names, which decides where ages are
/// equal (R1).
pub(crate) async fn fill(kube: &Kube, manifests: &[Manifest], clusters: &[&str]) -> anyhow::Result<()> {
    let own = manifests.iter().filter(|manifest| clusters.contains(&manifest.cluster.as_str()));
    let mut objects: Vec<(String, Value)> = own.map(|manifest| (age(manifest), prepared(&manifest.object))).collect();
    objects.sort_by_key(|(age, object)| {
        let place = |pointer| text(object, pointer).to_owned();
        (age.clone(), rank(object), place("/metadata/namespace"), place("/metadata/name"))
    });
    let named: BTreeSet<&str> = objects
        .iter()
        .map(|(_, object)| match text(object, "/kind") {
            "Namespace" => text(object, "/metadata/name"),
            _ => text(object, "/metadata/namespace"),
        })
        .filter(|namespace| !namespace.is_empty())
        .collect();
    // A Namespace of the world is applied over its bare twin.
    let namespace = |name: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    kube.apply(&named.iter().map(namespace).collect::<Vec<_>>())?;
    for group in objects.chunk_by(|(age, _), (next, _)| age == next) {
        let group: Vec<Value> = group.iter().map(|(_, object)| object.clone()).collect();
        kube.apply(&group)?;
        next_second().await?;
    }
    let observed = objects.into_iter().map(|(_, object)| object);
    let observed: Vec<Value> = observed.filter_map(|object| only_status(&object)).collect();
    if observed.is_empty() { Ok(()) } else { kube.apply_status(&observed) }
}

/// Empty where nothing is said.
fn age(manifest: &Manifest) -> String {
    text(&manifest.object, "/metadata/creationTimestamp").to_owned()
}

/// What others are in comes first.
fn rank(object: &Value) -> u8 {
    u8::from(text(object, "/kind") != "Namespace")
}

/// The object as an API server takes it.
fn prepared(object: &Value) -> Value {
    let mut object = object.clone();
    let kind = text(&object, "/kind").to_owned();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
        metadata.remove("generation");
        metadata.remove("uid");
    }
    if kind == "Pod" && object.pointer("/spec/containers").is_none() {
        object["spec"]["containers"] = json!([{"name": "app", "image": "app"}]);
    }
    if kind == "Service"
        && let Some(spec) = object["spec"].as_object_mut()
        && spec.get("clusterIP").and_then(Value::as_str) != Some("None")
    {
        // The server hands out addresses of a range of its own.
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    object
}

/// What was observed of an object, with the name of the object.
fn only_status(object: &Value) -> Option<Value> {
    if !OBSERVED.contains(&text(object, "/kind")) {
        return None;
    }
    let mut status =
        object.get("status").filter(|status| status.as_object().is_some_and(|map| !map.is_empty()))?.clone();
    if text(object, "/kind") == "Pod"
        && status.get("podIPs").is_none()
        && let Some(address) = status.get("podIP").cloned()
    {
        status["podIPs"] = json!([{ "ip": address }]);
    }
    let metadata = json!({"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"]});
    let written = metadata.as_object()?.iter().filter(|(_, value)| !value.is_null());
    let metadata: Value = written.map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "status": status}))
}

/// Waits until what is created from now on is younger than what was created before.
async fn next_second() -> anyhow::Result<()> {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let before = second().context("the clock stands before 1970")?;
    until(PATIENCE, "the next second", async || match second() {
        Ok(now) if now > before => Ok(()),
        _ => Err(Not::Yet("it is the same one".to_owned())),
    })
    .await
}
