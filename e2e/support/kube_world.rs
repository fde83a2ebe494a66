//! A world in an API server: objects as tests and the demo have them, written as people and controllers would.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};

use super::kube::Kubectl;
use super::manifests::{Manifest, text};
use super::wait::{Not, PATIENCE, until};

/// Kinds whose status is written apart, by what observes them.
const OBSERVED: [&str; 3] = ["Node", "Pod", "Service"];

/// Which ages an API server is made to tell apart: it dates objects itself, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ages {
    /// All of them.
    Everything,
    /// Those of objects of one kind, which takes fewer seconds. Objects of two kinds may then be as old as each other.
    WithinKinds,
}

/// Writes the objects of some clusters into one API server, oldest first, and what would have been observed of them.
///
/// Objects with a `creationTimestamp` are created in that order, each age in a second of its own; objects without one come first,
/// in the order of their names, which decides where ages are equal (R1).
pub(crate) async fn fill(kube: &Kubectl, manifests: &[Manifest], clusters: &[&str], ages: Ages) -> anyhow::Result<()> {
    let own = manifests.iter().filter(|manifest| clusters.contains(&manifest.cluster.as_str()));
    let own: Vec<&Manifest> = own.collect();
    let step = |manifest: &Manifest| {
        let is_compared = |other: &&&Manifest| ages == Ages::Everything || other.kind() == manifest.kind();
        let known: BTreeSet<String> = own.iter().filter(is_compared).map(|other| age(other)).collect();
        known.range(..age(manifest)).count()
    };
    let mut objects: Vec<(usize, Value)> =
        own.iter().map(|manifest| (step(manifest), prepared(&manifest.object))).collect();
    objects.sort_by_key(|(step, object)| {
        let place = |pointer| text(object, pointer).to_owned();
        (*step, place("/metadata/namespace"), place("/metadata/name"))
    });
    let named: BTreeSet<String> = objects
        .iter()
        .map(|(_, object)| match text(object, "/kind") {
            "Namespace" => text(object, "/metadata/name").to_owned(),
            _ => text(object, "/metadata/namespace").to_owned(),
        })
        .filter(|namespace| !namespace.is_empty())
        .collect();
    let (own, objects): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|(_, object)| text(object, "/kind") == "Namespace");
    // What others are in comes first, and how old it is decides nothing.
    let namespace = |name: &String| {
        let own = own.iter().find(|(_, own)| text(own, "/metadata/name") == name).map(|(_, own)| own.clone());
        own.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    };
    let namespaces: Vec<Value> = named.iter().map(namespace).collect();
    if !namespaces.is_empty() {
        kube.apply(&namespaces)?;
    }
    let mut groups = objects.chunk_by(|(step, _), (next, _)| step == next).peekable();
    while let Some(group) = groups.next() {
        let group: Vec<Value> = group.iter().map(|(_, object)| object.clone()).collect();
        kube.apply(&group)?;
        if groups.peek().is_some() {
            next_second().await?;
        }
    }
    let observed = objects.into_iter().map(|(_, object)| object);
    let observed: Vec<Value> = observed.filter_map(|object| only_status(&object)).collect();
    if observed.is_empty() { Ok(()) } else { kube.apply_status(&observed) }
}

/// Empty where nothing is said.
fn age(manifest: &Manifest) -> String {
    text(&manifest.object, "/metadata/creationTimestamp").to_owned()
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
