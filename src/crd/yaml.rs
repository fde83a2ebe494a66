//! Bytes to objects, with the place of everything that is wrong.
//!
//! A file may hold several documents, `List`s, JSON, anchors and merge keys. It is usable as a whole or not at all: a
//! syntax error or a limit refuses it, while a document that is no readable object is a finding beside the others.

mod place;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

pub use super::decode::decode_value;
use super::decode::{self, Outcome};
use super::object::Object;
use crate::model::{Code, FieldPath, Finding, Findings, Location, Name, ObjectRef, Severity};
use tree::{Fault, Node, Tree};

/// Where bytes come from and whose objects they hold.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path of the file, for findings.
    pub file: Arc<str>,
    /// Cluster of the objects.
    pub cluster: Name,
    /// Namespace of objects that name none.
    pub default_namespace: Name,
}

/// How much a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a file in bytes, and of its texts after aliases are expanded. A bundle of 10,000 objects has about 10.
    pub file_bytes: usize,
    /// Values in a file, after aliases are expanded.
    pub nodes: usize,
    /// Lists and objects within each other. The deepest real manifest has about 15.
    pub depth: usize,
    /// Documents in a file.
    pub documents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 16 << 20, nodes: 1_000_000, depth: 64, documents: 10_000 }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Objects in the order of the file.
    pub objects: Vec<Object>,
    /// Unknown fields and kinds, defects, and documents that are no objects; each with its place.
    pub findings: Findings,
}

/// Decodes a file.
///
/// # Errors
/// `SYNTAX_ERROR` or `LIMIT_EXCEEDED` with the place: nothing of the file can be used.
///
/// # Cost
/// Linear in the size of the file after aliases are expanded.
#[allow(clippy::result_large_err, reason = "once per file, and the caller hands the finding on as it is")]
pub fn decode(text: &[u8], source: &Source, limits: &Limits) -> Result<Decoded, Finding> {
    let mut decoder = Decoder { source, decoded: Decoded::default(), set_aside: BTreeSet::new() };
    match tree::read(text, limits, &mut |document| decoder.document(document)) {
        Ok(()) => Ok(decoder.decoded),
        Err(fault) => {
            let Fault { line, column, code, message, .. } = fault;
            Err(Finding::in_file(source.location(line, column), Severity::Error, code, message))
        }
    }
}

/// The line and column of a field of an object in a file, counted from 1.
///
/// Where the field itself is not written, the nearest one around it that is.
#[must_use]
pub fn locate(text: &[u8], subject: &ObjectRef, cluster: &Name, field: &FieldPath) -> Option<(u32, u32)> {
    if subject.cluster != *cluster {
        return None;
    }
    let mut place = None;
    let mut search = |node: &Node| {
        if place.is_none() && is_object(node, subject) {
            place = Some(place::of(node, field));
        }
    };
    // What stands before a syntax error can still be found.
    let _ = tree::read(text, &Limits::default(), &mut |document| for_each_object(document, &mut search));
    place
}

/// Whether a document is the object; one without a namespace is taken to be in the right one.
fn is_object(node: &Node, subject: &ObjectRef) -> bool {
    let text = |node: Option<&Node>| node.and_then(Node::as_text).map(str::to_owned);
    let metadata = node.get("metadata");
    let namespace = metadata.and_then(|metadata| text(metadata.get("namespace"))).unwrap_or_default();
    text(node.get("kind")).as_deref() == Some(subject.kind.as_str())
        && text(node.get("apiVersion")).as_deref() == Some(subject.kind.group().api_version())
        && metadata.and_then(|metadata| text(metadata.get("name"))).as_deref() == Some(subject.name.as_str())
        && (namespace.is_empty() || subject.namespace.is_empty() || subject.namespace == namespace.as_str())
}

/// Visits a document, or the items of a list.
fn for_each_object(node: &Node, visit: &mut dyn FnMut(&Node)) {
    let kind = node.get("kind").and_then(Node::as_text).unwrap_or_default();
    match node.get("items").map(|items| &items.resolved().tree) {
        Some(Tree::List(items)) if kind.ends_with("List") => {
            for item in items {
                for_each_object(item, visit);
            }
        }
        _ => visit(node),
    }
}

impl Source {
    fn location(&self, line: u32, column: u32) -> Location {
        Location { file: Arc::clone(&self.file), line, column }
    }
}

/// Gathers the objects of a file.
struct Decoder<'a> {
    source: &'a Source,
    decoded: Decoded,
    /// Kinds for which it has been said that they are ignored.
    set_aside: BTreeSet<String>,
}

impl Decoder<'_> {
    fn document(&mut self, document: &Node) {
        for_each_object(document, &mut |node| self.object(node));
    }

    fn object(&mut self, node: &Node) {
        let value = node.value();
        if value.is_null() {
            return;
        }
        let location = self.source.location(node.line, node.column);
        let Outcome { object, findings, set_aside } = self.decode(value);
        if let Some(mut object) = object {
            object.meta.location = Some(location.clone());
            self.decoded.objects.push(object);
        }
        for finding in findings {
            let (line, column) = place::of(node, &finding.field);
            self.decoded.findings.push(finding.located(self.source.location(line, column)));
        }
        if let Some(kind) = set_aside.filter(|kind| !self.set_aside.contains(kind)) {
            let message = format!("objects of kind `{kind}` say nothing to a gateway and are ignored: nothing to do");
            self.decoded.findings.push(Finding::in_file(location, Severity::Info, Code::UnknownKind, message));
            self.set_aside.insert(kind);
        }
    }

    fn decode(&self, value: Value) -> Outcome {
        decode::decode_document(value, &self.source.cluster, &self.source.default_namespace)
    }
}
