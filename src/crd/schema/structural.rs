//! Schemas as CustomResourceDefinitions want them.

use serde_json::{Map, Value, json};

use super::{derived, names_of, reference, type_of, without_null};
use crate::model::Kind;

/// The structural OpenAPI v3 schema of what a kind's type holds: `spec` of the v2 kinds.
///
/// References are inlined; where a type contains itself, the inner one is free-form. Comments of the fields are the
/// descriptions.
#[must_use]
pub fn open_api(kind: Kind) -> Option<Value> {
    let root = derived(kind)?;
    let mut inliner = Inliner { root: &root, open: Vec::new() };
    Some(inliner.convert(&root, None))
}

struct Inliner<'a> {
    root: &'a Value,
    /// Definitions that are being written.
    open: Vec<&'a str>,
}

impl<'a> Inliner<'a> {
    fn convert(&mut self, schema: &'a Value, description: Option<&str>) -> Value {
        let description = schema.get("description").and_then(Value::as_str).or(description);
        let schema = without_null(schema);
        if let Some(name) = reference(schema) {
            if self.open.contains(&name) {
                return described(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), description);
            }
            self.open.push(name);
            let mut value = self.convert(&self.root["$defs"][name], None);
            self.open.pop();
            if let (Some(text), Some(map)) = (description, value.as_object_mut()) {
                map.insert("description".to_owned(), Value::from(text));
            }
            return value;
        }
        if let Some(names) = names_of(schema) {
            return described(json!({"type": "string", "enum": names}), description);
        }
        let value = match type_of(schema) {
            _ if schema.get("x-kubernetes-int-or-string").is_some() => json!({"x-kubernetes-int-or-string": true}),
            Some("array") => json!({"type": "array", "items": self.convert(&schema["items"], None)}),
            Some("object") => self.object(schema),
            Some("integer") => match schema.get("format").and_then(Value::as_str) {
                Some("uint32") => json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX}),
                Some("int32") => json!({"type": "integer", "format": "int32"}),
                _ => json!({"type": "integer", "format": "int64"}),
            },
            Some(name) => json!({"type": name}),
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        described(value, description)
    }

    fn object(&mut self, schema: &'a Value) -> Value {
        let mut map = Map::new();
        map.insert("type".to_owned(), Value::from("object"));
        if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
            map.insert("additionalProperties".to_owned(), self.convert(values, None));
            return Value::Object(map);
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let properties: Map<String, Value> =
                properties.iter().map(|(name, schema)| (name.clone(), self.convert(schema, None))).collect();
            map.insert("properties".to_owned(), Value::Object(properties));
        }
        if schema.get("x-kubernetes-preserve-unknown-fields").is_some() {
            map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
        }
        Value::Object(map)
    }
}

fn described(mut value: Value, description: Option<&str>) -> Value {
    if let (Some(text), Some(map)) = (description, value.as_object_mut()) {
        map.insert("description".to_owned(), Value::from(text));
    }
    value
}
