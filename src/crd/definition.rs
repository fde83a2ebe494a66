//! The CustomResourceDefinitions, made from the manifest types.
//!
//! What the API's own definitions leave open at admission is open here too: values of such kinds have no type, so that
//! whatever is admitted elsewhere is admitted here, and a finding says what is wrong with it. VirtualGateway, RouteTable
//! and VirtualDestination are checked when they are written, by `admission`. No kind drops fields that it does not know,
//! because a dropped field could not be reported.

mod admission;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::schema::open_api;
use crate::model::Kind;
use crate::model::id::Group;

/// The annotation that says which definition an API server holds: the [`fingerprint`] of ours.
pub const FINGERPRINT: &str = "chancery/definition";

/// The field of a status that says how many gateways serve what the object asks for, for instance `2/3`.
pub const GATEWAYS: &str = "gateways";

/// The field of a status that names the workspace of the object.
pub const WORKSPACE: &str = "ownedByWorkspace";

/// The CustomResourceDefinition of a v2 kind; none for Kubernetes' own kinds.
///
/// # Cost
/// A millisecond for a large kind: schemas are made anew.
#[must_use]
pub fn definition(kind: Kind) -> Option<Value> {
    if !kind.is_v2() {
        return None;
    }
    let spec = spec(kind)?;
    let (group, _) = group_and_version(kind.group());
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", kind.plural()),
            "annotations": { FINGERPRINT: hash(&spec) },
        },
        "spec": spec,
    }))
}

/// What [`FINGERPRINT`] of a kind's definition says: a hash of all that it holds.
#[must_use]
pub fn fingerprint(kind: Kind) -> Option<String> {
    if !kind.is_v2() {
        return None;
    }
    spec(kind).map(|spec| hash(&spec))
}

fn hash(spec: &Value) -> String {
    format!("{:016x}", xxh3_64(spec.to_string().as_bytes()))
}

/// `admin.gloo.solo.io/v2` in two.
fn group_and_version(group: Group) -> (&'static str, &'static str) {
    group.api_version().split_once('/').unwrap_or(("", group.api_version()))
}

fn spec(kind: Kind) -> Option<Value> {
    let (group, version) = group_and_version(kind.group());
    let mut names = json!({
        "kind": kind.as_str(),
        "listKind": format!("{kind}List"),
        "plural": kind.plural(),
        "singular": kind.as_str().to_lowercase(),
        "categories": ["chancery", "solo-io"],
    });
    let short = short_names(kind);
    if !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    let mut desired = open_api(kind)?;
    let description = desired.as_object_mut().and_then(|schema| schema.remove("description"));
    if let Some(rules) = admission::rules(kind) {
        keep_unknown(&mut desired);
        admission::apply(&mut desired, rules);
    } else {
        leave_open(&mut desired);
        desired["type"] = json!("object");
    }
    desired["description"] = json!("What is wanted.");
    Some(json!({
        "group": group,
        "names": names,
        "scope": "Namespaced",
        "versions": [{
            "name": version,
            "served": true,
            "storage": true,
            "schema": {"openAPIV3Schema": {
                "description": description,
                "type": "object",
                "properties": {"spec": desired, "status": status(kind)},
            }},
            "subresources": {"status": {}},
            "additionalPrinterColumns": columns(kind),
        }],
    }))
}

/// The names that people type.
fn short_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Workspace => &["ws"],
        Kind::WorkspaceSettings => &["wss"],
        Kind::KubernetesCluster => &["kc"],
        Kind::RootTrustPolicy | Kind::RetryTimeoutPolicy => &["rtp"],
        Kind::ExtAuthServer => &["eas"],
        Kind::RateLimitServerSettings => &["rlss"],
        Kind::RateLimitServerConfig => &["rlsc"],
        Kind::VirtualGateway => &["vg"],
        Kind::RouteTable => &["rt"],
        Kind::VirtualDestination => &["vd"],
        Kind::ExternalService => &["es"],
        Kind::ExternalEndpoint => &["ee"],
        Kind::AccessPolicy => &["ap"],
        Kind::WasmDeploymentPolicy => &["wdp"],
        Kind::HeaderManipulationPolicy => &["hmp"],
        Kind::LoadBalancerPolicy => &["lbp"],
        Kind::MirrorPolicy => &["mp"],
        Kind::RateLimitClientConfig => &["rlcc"],
        Kind::RateLimitPolicy => &["rlp"],
        Kind::TransformationPolicy => &["tp"],
        Kind::ActiveHealthCheckPolicy => &["ahcp"],
        Kind::AdaptiveRequestConcurrencyPolicy => &["arcp"],
        Kind::ConnectionPolicy => &["cp"],
        Kind::FailoverPolicy => &["fp"],
        Kind::FaultInjectionPolicy => &["fip"],
        Kind::GraphQlPersistedQueryCachePolicy => &["gqlpq", "gqlpqc"],
        Kind::ListenerConnectionPolicy => &["lcp"],
        Kind::OutlierDetectionPolicy => &["odp"],
        Kind::TrimProxyConfigPolicy => &["tpcp"],
        _ => &[],
    }
}

/// Whether approval stands directly in the status, not below `common.State`.
///
/// # Rule
/// R132.
#[must_use]
pub fn has_flat_status(kind: Kind) -> bool {
    matches!(kind, Kind::RootTrustPolicy | Kind::RateLimitServerSettings)
}

/// What `kubectl get` shows; with `-o wide` also the columns of priority 1.
fn columns(kind: Kind) -> Value {
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let wide = |name: &str, field: &str| json!({"name": name, "type": "string", "priority": 1, "jsonPath": format!(".status.{field}")});
    let condition = |name: &str, kind: &str| column(name, &format!(".status.conditions[?(@.type==\"{kind}\")].status"));
    let approval = if has_flat_status(kind) { ".status.state" } else { ".status.common.State.approval" };
    let mut columns = vec![column("Approval", approval), condition("Accepted", "Accepted")];
    if kind == Kind::KubernetesCluster {
        columns.extend([condition("Connected", "Connected"), condition("Synced", "Synced")]);
    } else {
        columns.push(condition("Programmed", "Programmed"));
    }
    columns.push(column("Reason", ".status.conditions[?(@.type==\"Accepted\")].reason"));
    columns.extend([wide("Gateways", GATEWAYS), wide("Workspace", WORKSPACE)]);
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    Value::Array(columns)
}

/// What is written about an object: the API's own shape, the standard conditions, and what counts for its kind.
fn status(kind: Kind) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let count = |description: &str| json!({"type": "integer", "format": "int64", "description": description});
    let generation = count("Generation of the object that this is about; where it differs, the rest is older.");
    let approval =
        text("`PENDING`, `ACCEPTED`, `INVALID`, `WARNING`, `FAILED` or `UNLICENSED`; left out means `PENDING`.");
    let mut properties = Map::new();
    if has_flat_status(kind) {
        properties.insert("observedGeneration".to_owned(), generation.clone());
        properties.insert("state".to_owned(), approval);
    } else {
        properties.insert(
            "common".to_owned(),
            open_object(
                "What every kind says.",
                &json!({
                    "State": open_object("Whether the object is in force.", &json!({
                        "approval": approval,
                        "message": text("What is wrong, and what to do."),
                        "observedGeneration": generation.clone(),
                    })),
                    "workspaceConditions": {
                        "type": "object",
                        "additionalProperties": {"type": "integer", "format": "int64"},
                        "description": "How many workspaces see the object in which state.",
                    },
                }),
            ),
        );
    }
    properties.insert(
        "conditions".to_owned(),
        json!({
            "type": "array",
            "description": "`Accepted`, `ResolvedRefs` and `Programmed`; others only while they are true.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "type": text("What it is about."),
                    "status": text("`True`, `False` or `Unknown`."),
                    "reason": text("Why, in one word."),
                    "message": text("Why, for people."),
                    "lastTransitionTime": text("Since when the condition has this status."),
                    "observedGeneration": generation,
                },
            },
        }),
    );
    properties.insert(
        "notApplicable".to_owned(),
        json!({
            "type": "array",
            "description": "Fields that mean nothing to gateways.",
            "items": open_object("One field.", &json!({"path": text("Where it stands."), "reason": text("Why it means nothing.")})),
        }),
    );
    properties.insert(GATEWAYS.to_owned(), text("How many gateways acknowledged it, of how many: `2/3`."));
    properties.insert(WORKSPACE.to_owned(), text("The workspace that owns the object."));
    open_object("What became of it.", &Value::Object(properties))
}

fn open_object(description: &str, properties: &Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": properties,
    })
}

/// Keeps fields that a schema does not name, at every level.
fn keep_unknown(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("type").and_then(Value::as_str) == Some("object") && !map.contains_key("additionalProperties") {
        map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
    for inner in inner(map) {
        keep_unknown(inner);
    }
}

/// Takes away what a schema would refuse, and leaves what it explains: names and descriptions.
fn leave_open(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(names) = map.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        let before = map.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{before} One of {}.", names.join(", "));
        map.insert("description".to_owned(), Value::from(text.trim_start()));
    }
    for word in ["type", "enum", "format", "minimum", "maximum", "x-kubernetes-int-or-string"] {
        map.remove(word);
    }
    map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    for inner in inner(map) {
        leave_open(inner);
    }
}

/// The schemas directly inside one.
fn inner(schema: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    schema.iter_mut().flat_map(|(name, part)| match name.as_str() {
        "properties" => part.as_object_mut().into_iter().flat_map(Map::values_mut).collect(),
        "items" | "additionalProperties" => vec![part],
        _ => Vec::new(),
    })
}
