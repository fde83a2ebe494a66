//! Bytes to objects, with the place of everything that is wrong.
//!
//! A file may hold several documents, `List`s, JSON, anchors and merge keys. It is usable as a whole or not at all: a
//! syntax error or a limit refuses it, while a document that is no readable object is a finding beside the others.

mod place;
mod scalar;
#[cfg(test)]
mod tests;
pub(super) mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

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
    let (mut exact, mut likely) = (None, None);
    let mut search = |node: &Node| match written_namespace(node, subject) {
        Some(namespace) if exact.is_none() && *subject.namespace == *namespace => exact = Some(place::of(node, field)),
        Some("") if likely.is_none() => likely = Some(place::of(node, field)),
        _ => {}
    };
    // What stands before a syntax error can still be found.
    let _ = tree::read(text, &Limits::default(), &mut |document| for_each_object(document, &mut search));
    exact.or(likely)
}

/// The namespace that an object of the wanted kind and name writes; empty where it writes none.
fn written_namespace<'n>(node: &'n Node, subject: &ObjectRef) -> Option<&'n str> {
    let text = |node: Option<&'n Node>| node.and_then(Node::as_text);
    let metadata = node.get("metadata")?;
    let wanted = text(node.get("kind")) == Some(subject.kind.as_str())
        && text(node.get("apiVersion")) == Some(subject.kind.group().api_version())
        && text(metadata.get("name")) == Some(subject.name.as_str());
    match text(metadata.get("namespace")) {
        _ if !wanted => None,
        Some(namespace) if !subject.kind.is_cluster_scoped() => Some(namespace),
        _ => Some(""),
    }
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

/// Findings of a file that say their exact place; further ones say where their object begins.
const MOST_PLACES: usize = 1000;

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
        if node.is_null() {
            return;
        }
        let location = self.source.location(node.line, node.column);
        let Outcome { object, findings, set_aside } = self.decode(node);
        if let Some(mut object) = object {
            object.meta.location = Some(location.clone());
            self.decoded.objects.push(object);
        }
        for finding in findings {
            // Looking for a place reads the object; a file with more findings is not corrected one by one.
            let exact = self.decoded.findings.len() < MOST_PLACES;
            let (line, column) = if exact { place::of(node, &finding.field) } else { (node.line, node.column) };
            self.decoded.findings.push(finding.located(self.source.location(line, column)));
        }
        if let Some(kind) = set_aside.filter(|kind| !self.set_aside.contains(kind)) {
            let message = format!("objects of kind `{kind}` say nothing to a gateway and are ignored: nothing to do");
            self.decoded.findings.push(Finding::in_file(location, Severity::Info, Code::UnknownKind, message));
            self.set_aside.insert(kind);
        }
    }

    fn decode(&self, node: &Node) -> Outcome {
        decode::decode_document(node, &self.source.cluster, &self.source.default_namespace)
    }
}
