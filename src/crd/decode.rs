//! One document to one object: kind, metadata, spec.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::object::{Defect, Kept, Meta, Object, Spec};
use super::schema::{self, Problem, shape};
use super::yaml::tree::{Entry, Node, Tree};
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
    let mut outcome = decode_document(&Node::from(value), cluster, &Name::from("default"));
    for finding in &mut outcome.findings {
        finding.location = None;
    }
    (outcome.object, outcome.findings)
}

/// Decodes one document.
pub(super) fn decode_document(document: &Node, cluster: &Name, default_namespace: &Name) -> Outcome {
    let document = document.resolved();
    let Tree::Map(entries) = &document.tree else {
        let found = shape(document);
        let message = format!("expected an object with `kind` and `metadata`, found {found}: remove it");
        return Outcome::refused(Severity::Error, Code::InvalidField, FieldPath::root(), message);
    };
    let kind = match kind_of(document) {
        Ok(kind) => kind,
        Err(outcome) => return *outcome,
    };
    let (id, metadata) = match identity(kind, document, cluster, default_namespace) {
        Ok(read) => read,
        Err(outcome) => return *outcome,
    };
    let mut reading = Reading { id, findings: Vec::new(), defects: Vec::new() };
    let meta = reading.meta(metadata);
    let spec = reading.spec(kind, document, entries);
    let object = Object { meta, spec, defects: reading.defects };
    Outcome { object: Some(object), findings: reading.findings, set_aside: None }
}

/// The kind of a document, or what to say instead.
fn kind_of(document: &Node) -> Result<Kind, Box<Outcome>> {
    let text = |field: &str| match document.get(field).and_then(Node::as_text) {
        Some(text) if !text.is_empty() => Ok(text),
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

/// Name and place of an object, and its metadata.
fn identity<'n>(
    kind: Kind,
    document: &'n Node,
    cluster: &Name,
    default_namespace: &Name,
) -> Result<(ObjectRef, &'n Node), Box<Outcome>> {
    let refused = |field: &str, message: String| {
        let field = FieldPath::new("metadata").field(field);
        Box::new(Outcome::refused(Severity::Error, Code::InvalidField, field, message))
    };
    let unnamed = || refused("name", format!("this {kind} has no `metadata.name`: give it one"));
    let is_object = |node: &&Node| matches!(node.resolved().tree, Tree::Map(_));
    let Some(metadata) = document.get("metadata").filter(is_object) else { return Err(unnamed()) };
    let name = match metadata.get("name") {
        None => return Err(unnamed()),
        Some(value) if value.is_null() => return Err(unnamed()),
        Some(value) => value.as_text().ok_or(value),
    };
    let name = match name {
        Ok("") => return Err(unnamed()),
        Ok(name) => name,
        Err(value) => {
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
        None => default_namespace.clone(),
        Some(value) if value.is_null() || value.as_text() == Some("") => default_namespace.clone(),
        Some(value) if value.as_text().is_some_and(is_dns_label) => value.as_text().map(Name::from).unwrap_or_default(),
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
    fn meta(&mut self, metadata: &Node) -> Meta {
        let written = |key: &str| metadata.get(key).filter(|node| !node.is_null());
        let root = FieldPath::new("metadata");
        let labels = self.texts(written("labels"), &root.field("labels"), Texts::Labels);
        let annotations = self.texts(written("annotations"), &root.field("annotations"), Texts::Annotations);
        let created = match written("creationTimestamp") {
            None => None,
            Some(value) => {
                let time = value.as_text().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                if time.is_none() {
                    let message = "this is not an RFC 3339 time: write for instance `2024-05-01T12:00:00Z`";
                    self.defect(root.field("creationTimestamp"), message.to_owned());
                }
                time
            }
        };
        let generation = match written("generation") {
            None => 0,
            Some(value) => value.as_scalar().and_then(Value::as_i64).unwrap_or_else(|| {
                let message = format!("expected a whole number, found {}: leave it out", shape(value));
                self.defect(root.field("generation"), message);
                0
            }),
        };
        Meta { id: self.id.clone(), labels, annotations, created, generation, location: None }
    }

    fn texts(&mut self, value: Option<&Node>, path: &FieldPath, texts: Texts) -> Labels {
        let mut map = BTreeMap::new();
        let Some(value) = value.map(Node::resolved) else { return map };
        let Tree::Map(entries) = &value.tree else {
            let message = format!("expected an object with texts, found {}: write `key: \"value\"`", shape(value));
            self.defect(path.clone(), message);
            return map;
        };
        for Entry { key, node, .. } in entries {
            match node.as_scalar() {
                Some(Value::Null) => drop(map.insert(Name::from(key), Name::default())),
                Some(Value::String(text)) if texts == Texts::Annotations || is_label_value(text) => {
                    map.insert(Name::from(key), Name::from(text));
                }
                Some(Value::String(_)) => {
                    let message = "this is not a valid label value: use at most 63 letters, digits, `-`, `_` and `.`, \
                                   with a letter or digit at both ends";
                    self.defect(path.field(key), message.to_owned());
                }
                _ => {
                    let message = format!("expected a text, found {}: put it in quotes", shape(node));
                    self.defect(path.field(key), message);
                }
            }
        }
        map
    }

    fn spec(&mut self, kind: Kind, document: &Node, entries: &[Entry]) -> Kept {
        let Some(compiled) = schema::compiled(kind) else { return Spec::Unsupported.into() };
        let (root, (text, problems)) = if kind.is_v2() {
            let known = ["apiVersion", "kind", "metadata", "spec", "status"];
            for Entry { key, .. } in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
                let message =
                    format!("unknown field `{key}` is ignored: an object has `metadata`, `spec` and `status`");
                let finding = Finding::warning(&self.id, Code::UnknownField, message);
                self.findings.push(finding.at(FieldPath::root().field(key)));
            }
            let root = FieldPath::new("spec");
            let normalised = schema::normalise(compiled, &root, document.get("spec"), &[]);
            (root, normalised)
        } else {
            let root = FieldPath::root();
            let normalised = schema::normalise(compiled, &root, Some(document), &["apiVersion", "kind", "metadata"]);
            (root, normalised)
        };
        for problem in problems {
            match problem {
                Problem::Defect(field, message) => self.defect(field, message),
                // What a misspelt field was to demand, nobody would have to have.
                Problem::UnknownField(field, message) if kind.protects() => {
                    self.defect(field, message.replace(" is ignored", " closes what this policy protects"));
                }
                Problem::UnknownField(field, message) => {
                    self.findings.push(Finding::warning(&self.id, Code::UnknownField, message).at(field));
                }
            }
        }
        let (spec, result) = Kept::new(kind, text);
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
