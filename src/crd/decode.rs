//! One document to one object: kind, metadata, spec.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::object::{Defect, Kept, Meta, Object, Spec};
use super::schema::{self, Problem, shape};
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Labels, Location, Name, ObjectRef, Severity};

/// What one document came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The object, if the document is one of a kind that is read.
    pub(super) object: Option<Object>,
    /// What is wrong with it; the places are still to be filled in.
    pub(super) findings: Findings,
    /// The kind, if it belongs to a part of the API that is accepted and ignored.
    pub(super) set_aside: Option<String>,
}

impl Outcome {
    fn refused(severity: Severity, code: Code, field: FieldPath, message: impl Into<String>) -> Self {
        let place = Location { file: Arc::from(""), line: 0, column: 0 };
        let finding = Finding::in_file(place, severity, code, message).at(field);
        Self { findings: vec![finding], ..Self::default() }
    }
}

/// Groups whose kinds say nothing to a gateway: cloud accounts, portals and API documents.
const SET_ASIDE: &[&str] = &["infrastructure.gloo.solo.io", "apimanagement.gloo.solo.io"];

/// Decodes an object that does not come from a file, with findings that name no place.
///
/// Without `metadata.namespace` it lives in `default`. Kinds that are not read give no object.
#[must_use]
pub fn decode_value(value: Value, cluster: &Name) -> (Option<Object>, Findings) {
    let mut outcome = decode_document(value, cluster, &Name::from("default"));
    for finding in &mut outcome.findings {
        finding.location = None;
    }
    (outcome.object, outcome.findings)
}

/// Decodes one document.
pub(super) fn decode_document(value: Value, cluster: &Name, default_namespace: &Name) -> Outcome {
    let mut document = match value {
        Value::Object(document) => document,
        value => {
            let message = format!("expected an object with `kind` and `metadata`, found {}: remove it", shape(&value));
            return Outcome::refused(Severity::Error, Code::InvalidField, FieldPath::root(), message);
        }
    };
    let kind = match kind_of(&document) {
        Ok(kind) => kind,
        Err(outcome) => return *outcome,
    };
    let (id, metadata) = match identity(kind, &mut document, cluster, default_namespace) {
        Ok(read) => read,
        Err(outcome) => return *outcome,
    };
    let mut reading = Reading { id, findings: Vec::new(), defects: Vec::new() };
    let meta = reading.meta(&metadata);
    let spec = reading.spec(kind, document);
    let object = Object { meta, spec, defects: reading.defects };
    Outcome { object: Some(object), findings: reading.findings, set_aside: None }
}

/// The kind of a document, or what to say instead.
fn kind_of(document: &Map<String, Value>) -> Result<Kind, Box<Outcome>> {
    let text = |field: &str| match document.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        _ => {
            let message = format!("there is no text `{field}`: every object starts with `apiVersion` and `kind`");
            let field = FieldPath::new(field);
            Err(Box::new(Outcome::refused(Severity::Error, Code::InvalidField, field, message)))
        }
    };
    let (name, api_version) = (text("kind")?, text("apiVersion")?);
    if let Some(kind) = Kind::find(api_version, name) {
        return Ok(kind);
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if SET_ASIDE.contains(&group) {
        return Err(Box::new(Outcome { set_aside: Some(name.to_owned()), ..Outcome::default() }));
    }
    let ours = group.ends_with(".gloo.solo.io");
    let known = Kind::ALL.iter().copied().find(|kind| {
        let right = kind.group().api_version().split_once('/').map_or("", |(group, _)| group);
        kind.as_str() == name && (ours || (right == group && !group.is_empty()))
    });
    Err(Box::new(match known {
        Some(kind) => {
            let right = kind.group().api_version();
            let message = format!("`{name}` of `{api_version}` is not read: write `apiVersion: {right}`");
            Outcome::refused(Severity::Warning, Code::UnknownKind, FieldPath::new("apiVersion"), message)
        }
        None if ours => {
            let message =
                format!("kind `{name}` of `{api_version}` is not known: the object is ignored, correct the kind");
            Outcome::refused(Severity::Warning, Code::UnknownKind, FieldPath::new("kind"), message)
        }
        // Deployments and the like stand beside ours in every real directory.
        None => Outcome::default(),
    }))
}

/// Name and place of an object, and the rest of its metadata.
fn identity(
    kind: Kind,
    document: &mut Map<String, Value>,
    cluster: &Name,
    default_namespace: &Name,
) -> Result<(ObjectRef, Map<String, Value>), Box<Outcome>> {
    let refused = |field: &str, message: String| {
        let field = FieldPath::new("metadata").field(field);
        Box::new(Outcome::refused(Severity::Error, Code::InvalidField, field, message))
    };
    let unnamed = || refused("name", format!("this {kind} has no `metadata.name`: give it one"));
    let Some(Value::Object(metadata)) = document.remove("metadata") else { return Err(unnamed()) };
    let name = match metadata.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        None | Some(Value::Null | Value::String(_)) => return Err(unnamed()),
        Some(value) => {
            let found = shape(value);
            return Err(refused("name", format!("`metadata.name` is {found}, not a text: put it in quotes")));
        }
    };
    if !is_subdomain(name) {
        let message = "`metadata.name` is not a valid name: use at most 253 lower-case letters, digits, `-` and `.`, \
                       with a letter or digit at both ends of every part";
        return Err(refused("name", message.to_owned()));
    }
    let namespace = match metadata.get("namespace") {
        _ if kind.is_cluster_scoped() => Name::default(),
        None | Some(Value::Null) => default_namespace.clone(),
        Some(Value::String(namespace)) if namespace.is_empty() => default_namespace.clone(),
        Some(Value::String(namespace)) if is_dns_label(namespace) => Name::from(namespace),
        Some(_) => {
            let message = "`metadata.namespace` is not a valid name: use at most 63 lower-case letters, digits and \
                           `-`, with a letter or digit at both ends";
            return Err(refused("namespace", message.to_owned()));
        }
    };
    let id = ObjectRef::new(kind, cluster, namespace, name);
    Ok((id, metadata))
}

/// An object of which the identity is known.
struct Reading {
    id: ObjectRef,
    findings: Findings,
    defects: Vec<Defect>,
}

impl Reading {
    fn meta(&mut self, metadata: &Map<String, Value>) -> Meta {
        let root = FieldPath::new("metadata");
        let labels = self.texts(metadata.get("labels"), &root.field("labels"), Texts::Labels);
        let annotations = self.texts(metadata.get("annotations"), &root.field("annotations"), Texts::Annotations);
        let created = match metadata.get("creationTimestamp") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                if time.is_none() {
                    let message = "this is not an RFC 3339 time: write for instance `2024-05-01T12:00:00Z`";
                    self.defect(root.field("creationTimestamp"), message.to_owned());
                }
                time
            }
        };
        let generation = match metadata.get("generation") {
            None | Some(Value::Null) => 0,
            Some(value) => value.as_i64().unwrap_or_else(|| {
                let message = format!("expected a whole number, found {}: leave it out", shape(value));
                self.defect(root.field("generation"), message);
                0
            }),
        };
        Meta { id: self.id.clone(), labels, annotations, created, generation, location: None }
    }

    fn texts(&mut self, value: Option<&Value>, path: &FieldPath, texts: Texts) -> Labels {
        let mut map = BTreeMap::new();
        let entries = match value {
            None | Some(Value::Null) => return map,
            Some(Value::Object(entries)) => entries,
            Some(value) => {
                let message = format!("expected an object with texts, found {}: write `key: \"value\"`", shape(value));
                self.defect(path.clone(), message);
                return map;
            }
        };
        for (key, value) in entries {
            match value {
                Value::Null => drop(map.insert(Name::from(key), Name::default())),
                Value::String(text) if texts == Texts::Annotations || is_label_value(text) => {
                    map.insert(Name::from(key), Name::from(text));
                }
                Value::String(_) => {
                    let message = "this is not a valid label value: use at most 63 letters, digits, `-`, `_` and `.`, \
                                   with a letter or digit at both ends";
                    self.defect(path.field(key), message.to_owned());
                }
                value => {
                    let message = format!("expected a text, found {}: put it in quotes", shape(value));
                    self.defect(path.field(key), message);
                }
            }
        }
        map
    }

    fn spec(&mut self, kind: Kind, mut document: Map<String, Value>) -> Kept {
        let Some(compiled) = schema::compiled(kind) else { return Spec::Unsupported.into() };
        let (root, value) = if kind.is_v2() {
            for field in
                document.keys().filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "spec" | "status"))
            {
                let message =
                    format!("unknown field `{field}` is ignored: an object has `metadata`, `spec` and `status`");
                let finding = Finding::warning(&self.id, Code::UnknownField, message);
                self.findings.push(finding.at(FieldPath::root().field(field)));
            }
            (FieldPath::new("spec"), document.remove("spec").unwrap_or(Value::Null))
        } else {
            document.remove("apiVersion");
            document.remove("kind");
            (FieldPath::root(), Value::Object(document))
        };
        let (value, problems) = schema::normalise(compiled, &root, value);
        for problem in problems {
            match problem {
                Problem::Defect(field, message) => self.defect(field, message),
                Problem::UnknownField(field, message) => {
                    self.findings.push(Finding::warning(&self.id, Code::UnknownField, message).at(field));
                }
            }
        }
        let (spec, result) = Kept::new(kind, value);
        if let Err(error) = result {
            debug_assert!(kind == Kind::Secret, "normalised values decode: {error}");
            self.defect(root, "this cannot be read: compare it with the reference of its kind".to_owned());
        }
        spec
    }

    fn defect(&mut self, field: FieldPath, message: String) {
        self.findings.push(Finding::error(&self.id, Code::InvalidField, message.clone()).at(field.clone()));
        self.defects.push(Defect { field, message });
    }
}

/// What a map of texts holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    Labels,
    Annotations,
}

/// One part of a DNS name: at most 63 lower-case letters, digits and hyphens, not at the ends.
fn is_dns_label(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Kubernetes' form of a name: like a DNS name, where one part may be longer than 63.
fn is_subdomain(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 253
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}

/// A label's value: empty, or at most 63 letters, digits, `-`, `_` and `.` with a letter or digit at both ends.
fn is_label_value(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
