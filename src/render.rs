//! Resources as text: Envoy messages in JSON and YAML.
//!
//! The generated message types know nothing of JSON, so a resource is decoded with the descriptors that build.rs takes
//! from `envoy-types` (`proto/emitted.proto` lists them). Field names are the proto names, as Envoy's documentation and
//! `config_dump` write them; an `Any` shows its content. Objects have `@type` and `name` first and the rest in the
//! order of the alphabet, so equal messages give equal text.
//!
//! Used by `chancery render`, the admin surface and tests; not on the way to a gateway.
//!
//! # Cost
//! The first call loads the descriptors (1.2 MB); after that linear in the bytes of the resource.

use std::fmt::Write as _;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};

use crate::snapshot::{Resource, ResourceType, Snapshot};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/emitted.bin")).as_slice())
        .expect("build.rs wrote a complete descriptor set")
});

/// Why a resource cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The type has no descriptor.
    #[error("no descriptor for `{0}`: proto/emitted.proto does not reach it")]
    UnknownType(String),
    /// The bytes are not a message of the type.
    #[error("`{name}` is not a {type_url}")]
    Malformed {
        /// Name of the resource.
        name: String,
        /// The type that it should have.
        type_url: &'static str,
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
    /// The message has no JSON form, for instance because it holds an `Any` of a type without a descriptor.
    #[error("`{name}` has no JSON form")]
    NotJson {
        /// Name of the resource.
        name: String,
        /// What the serializer says.
        #[source]
        source: serde_json::Error,
    },
}

/// The descriptors of all messages that Chancery emits.
#[must_use]
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

/// A resource in protobuf's JSON form. Of a secret only the name and the shape are shown.
///
/// # Errors
/// A type without descriptor, bytes that do not decode, or an `Any` of an unknown type.
pub fn to_json(resource_type: ResourceType, resource: &Resource) -> Result<Value, RenderError> {
    let type_url = resource_type.type_url();
    let full_name = type_url.rsplit('/').next().unwrap_or(type_url);
    let name = || resource.name.to_string();
    let descriptor =
        POOL.get_message_by_name(full_name).ok_or_else(|| RenderError::UnknownType(full_name.to_owned()))?;
    let message = DynamicMessage::decode(descriptor, resource.body.clone())
        .map_err(|source| RenderError::Malformed { name: name(), type_url, source })?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let value = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|source| RenderError::NotJson { name: name(), source })?;
    let mut value = ordered(value);
    match resource_type {
        ResourceType::Secret => redact(&mut value),
        ResourceType::Route => redact_credentials(&mut value),
        _ => {}
    }
    Ok(value)
}

/// What stands in place of everything that a secret is made of.
const REDACTED: &str = "[redacted]";

/// Hides all texts and bytes of a secret but its name: certificates too, so that nothing depends on telling them apart.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) => REDACTED.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(object) => {
            object.iter_mut().filter(|(key, _)| key.as_str() != "name").for_each(|(_, value)| redact(value));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides what routes have of passwords and keys: what the filters compare, and what comes of a Secret.
fn redact_credentials(value: &mut Value) {
    const RULE: &str = "chancery.auth.or";
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_credentials),
        Value::Object(object) => {
            let message = object.get("@type").and_then(Value::as_str).unwrap_or_default();
            let message = message.rsplit('.').next().unwrap_or_default();
            let secret = match message {
                "BasicAuth" => Some("users"),
                "ApiKeyAuth" => Some("credentials"),
                "LuaPerRoute" => Some("filter_context"),
                _ => None,
            };
            if let Some(secret) = secret.and_then(|field| object.get_mut(field)) {
                *secret = Value::from(REDACTED);
            }
            if let Some(rule) = object.get_mut(RULE) {
                redact_headers(rule);
            }
            object.values_mut().for_each(redact_credentials);
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides what headers are compared with.
fn redact_headers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_headers),
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value.get_mut("string_match")) {
                    ("header", Some(compared)) => redact(compared),
                    _ => redact_headers(value),
                }
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// All resources of a snapshot: an object from type to the list of its resources, in the order of their names.
///
/// A resource that cannot be shown is an object with its `name` and an `error`.
#[must_use]
pub fn snapshot_json(snapshot: &Snapshot) -> Value {
    let mut types = Map::new();
    for resource_type in ResourceType::ALL {
        let resources = snapshot.resources(resource_type);
        if resources.is_empty() {
            continue;
        }
        let shown = resources.values().map(|resource| {
            to_json(resource_type, resource)
                .unwrap_or_else(|error| serde_json::json!({"name": resource.name.as_str(), "error": error.to_string()}))
        });
        let key = resource_type.type_url().rsplit('/').next().unwrap_or_default();
        types.insert(key.to_owned(), shown.collect());
    }
    Value::Object(types)
}

/// `@type` and `name` first, then by key, at every depth.
fn ordered(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(String, Value)> =
                object.into_iter().map(|(key, value)| (key, ordered(value))).collect();
            entries.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(ordered).collect()),
        other => other,
    }
}

fn rank(key: &str) -> u8 {
    match key {
        "@type" => 0,
        "name" => 1,
        _ => 2,
    }
}

/// A JSON value as YAML that means the same to a reader of YAML 1.1, such as Envoy.
///
/// Text that some reader could take for a boolean, a number, a date or nothing is quoted.
///
/// # Rule
/// F12 of the notes on clients: an unquoted node id `n` turns into `false`.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => write_object(&mut out, object, 0),
        Value::Array(items) if !items.is_empty() => write_array(&mut out, items, 0),
        scalar => {
            write_scalar(&mut out, scalar);
            out.push('\n');
        }
    }
    out
}

fn write_object(out: &mut String, object: &Map<String, Value>, indent: usize) {
    for (position, (key, value)) in object.iter().enumerate() {
        if position > 0 {
            push_indent(out, indent);
        }
        write_text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                push_indent(out, indent + 2);
                write_object(out, inner, indent + 2);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                push_indent(out, indent);
                write_array(out, inner, indent);
            }
            scalar => {
                out.push(' ');
                write_scalar(out, scalar);
                out.push('\n');
            }
        }
    }
}

fn write_array(out: &mut String, items: &[Value], indent: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            push_indent(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => write_object(out, inner, indent + 2),
            Value::Array(inner) if !inner.is_empty() => write_array(out, inner, indent + 2),
            scalar => {
                write_scalar(out, scalar);
                out.push('\n');
            }
        }
    }
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        // Empty objects and arrays, numbers, booleans and null read the same in YAML's flow form.
        other => _ = write!(out, "{other}"),
    }
}

fn write_text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        // A JSON string is a double-quoted YAML scalar.
        _ = write!(out, "{}", Value::String(text.to_owned()));
    }
}

/// Whether a text needs no quotes under YAML 1.1. Anything that does not begin with a letter or `/` is quoted, which
/// leaves only words to look out for.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./@-".contains(&b))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_routes_have_of_secrets_is_hidden() {
        let config = |message: &str, rest: Value| {
            let mut config = json!({"@type": format!("type.googleapis.com/envoy.{message}")});
            config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            config
        };
        let mut route = json!({"typed_per_filter_config": {
            "a": {"action": config("BasicAuth", json!({"users": {"inline_string": "CANARY"}}))},
            "b": {"action": config("ApiKeyAuth", json!({"credentials": [{"key": "CANARY", "client": "c"}]}))},
            "c": config("LuaPerRoute", json!({"name": "s", "filter_context": {"clients": {"CANARY": {"a": "CANARY"}}}})),
            "chancery.auth.or": {"rules": [
                {"header": {"name": "x-key", "string_match": {"exact": "CANARY"}}}, {"not_rule": {"any": true}},
            ]},
            "chancery.jwt-claims.pre.0": {"rules": [{"header": {"name": "x-org", "string_match": {"exact": "seen"}}}]},
        }});
        redact_credentials(&mut route);
        let shown = route.to_string();
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(["x-key", "seen", "not_rule", "BasicAuth"].iter().all(|text| shown.contains(text)), "{shown}");
    }

    #[test]
    fn yaml_keeps_types_under_yaml_1_1() {
        let value = json!({
            "name": "n",
            "route": "/cart",
            "on": [true, 1, 1.5, null, "1", "1:30", "yes", "NO", "~", "", "a b", "a: b", "0x1F", "2024-01-01"],
            "empty": {}, "none": [],
            "list": [{"a": "x", "b": ["c", ["d"]]}, {"a": "line\nbreak \"q\" \u{e9}"}],
            "deep": {"deeper": {"@type": "type.googleapis.com/x"}},
        });
        let expected = r#"name: "n"
route: /cart
"on":
- true
- 1
- 1.5
- null
- "1"
- "1:30"
- "yes"
- "NO"
- "~"
- ""
- "a b"
- "a: b"
- "0x1F"
- "2024-01-01"
empty: {}
none: []
list:
- a: x
  b:
  - c
  - - d
- a: "line\nbreak \"q\" é"
deep:
  deeper:
    "@type": type.googleapis.com/x
"#;
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn every_type_that_is_served_has_a_descriptor() {
        for resource_type in ResourceType::ALL {
            let full_name = resource_type.type_url().rsplit('/').next().unwrap();
            assert!(descriptors().get_message_by_name(full_name).is_some(), "{full_name}");
        }
    }

    #[test]
    fn bytes_of_another_type_are_an_error_and_not_a_panic() {
        let resource = Resource::from_content("x".into(), vec![0xff, 0xff].into(), [].into());
        assert!(matches!(to_json(ResourceType::Cluster, &resource), Err(RenderError::Malformed { .. })));
    }
}
