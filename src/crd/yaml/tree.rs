//! YAML events to trees with places, under limits.
//!
//! Aliases share what they stand for, so an alias bomb is counted, never built.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Value};

use super::{Limits, scalar};
use crate::model::Code;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Line, from 1; 0 where it means the whole file.
    pub(super) line: u32,
    /// Column, from 1.
    pub(super) column: u32,
    /// `SyntaxError` or `LimitExceeded`.
    pub(super) code: Code,
    /// What is wrong and what to do.
    pub(super) message: String,
    /// Whether the text is not YAML at all, as opposed to YAML that means nothing.
    pub(super) by_parser: bool,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(in crate::crd) struct Node {
    /// Line, from 1.
    pub(in crate::crd) line: u32,
    /// Column in characters, from 1.
    pub(in crate::crd) column: u32,
    /// The value.
    pub(in crate::crd) tree: Tree,
}

/// A value.
#[derive(Clone, Debug)]
pub(in crate::crd) enum Tree {
    /// Anything but a list or object.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Map(Vec<Entry>),
    /// What an anchor names.
    Shared(Rc<Node>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(in crate::crd) struct Entry {
    /// The key as a text.
    pub(in crate::crd) key: String,
    /// Line of the key.
    pub(in crate::crd) line: u32,
    /// Column of the key.
    pub(in crate::crd) column: u32,
    /// The value.
    pub(in crate::crd) node: Node,
}

impl Node {
    /// The node that an alias stands for, or this one.
    pub(in crate::crd) fn resolved(&self) -> &Self {
        let mut node = self;
        while let Tree::Shared(shared) = &node.tree {
            node = shared;
        }
        node
    }

    /// The value of a key.
    pub(in crate::crd) fn get(&self, key: &str) -> Option<&Self> {
        match &self.resolved().tree {
            Tree::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(in crate::crd) fn as_text(&self) -> Option<&str> {
        match &self.resolved().tree {
            Tree::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The value, if it is neither a list nor an object.
    pub(in crate::crd) fn as_scalar(&self) -> Option<&Value> {
        match &self.resolved().tree {
            Tree::Scalar(value) => Some(value),
            _ => None,
        }
    }

    /// Whether nothing is written here.
    pub(in crate::crd) fn is_null(&self) -> bool {
        matches!(&self.resolved().tree, Tree::Scalar(Value::Null))
    }

    /// The value without places, for messages and for what has no schema.
    pub(in crate::crd) fn value(&self) -> Value {
        match &self.resolved().tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Tree::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                map.extend(entries.iter().map(|entry| (entry.key.clone(), entry.node.value())));
                Value::Object(map)
            }
            Tree::Shared(_) => Value::Null,
        }
    }
}

/// A tree in which every place is unknown.
impl From<Value> for Node {
    fn from(value: Value) -> Self {
        let entry = |(key, value)| Entry { key, line: 0, column: 0, node: Self::from(value) };
        let tree = match value {
            Value::Array(items) => Tree::List(items.into_iter().map(Self::from).collect()),
            Value::Object(entries) => Tree::Map(entries.into_iter().map(entry).collect()),
            value => Tree::Scalar(value),
        };
        Self { line: 0, column: 0, tree }
    }
}

/// Reads a file and hands over each document.
///
/// # Errors
/// The first syntax error or exceeded limit; documents before it have been handed over.
pub(super) fn read(text: &[u8], limits: &Limits, visit: &mut dyn FnMut(&Node)) -> Result<(), Fault> {
    if text.len() > limits.file_bytes {
        let (size, limit) = (text.len(), limits.file_bytes);
        let message = format!("the file has {size} bytes, more than the limit of {limit} bytes per file: split it");
        return Err(Fault { line: 0, column: 0, code: Code::LimitExceeded, message, by_parser: false });
    }
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(text, error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with('{') {
        return Builder::new(limits).read(text, visit);
    }
    let mut documents = Vec::new();
    match Builder::new(limits).read(text, &mut |document| documents.push(document.clone())) {
        Ok(()) => documents.iter().for_each(visit),
        // JSON knows escapes and indentation that YAML does not; what is read this way has no places.
        Err(fault) if fault.by_parser => match serde_json::from_str::<Value>(text) {
            Ok(value) => visit(&without_places(value, limits)?),
            Err(_) => return Err(fault),
        },
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// A tree of a JSON document, in which every place is unknown.
fn without_places(value: Value, limits: &Limits) -> Result<Node, Fault> {
    let mut counter = Builder::new(limits);
    let node = counter.json(value, 0)?;
    Ok(node)
}

fn not_utf8(text: &[u8], valid: usize) -> Fault {
    let before = &text[..valid];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    let message = "this is not UTF-8 text: save the file as UTF-8".to_owned();
    Fault { line: narrow(line), column: narrow(column), code: Code::SyntaxError, message, by_parser: false }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Line and column of an event, from 1.
fn place(span: Span) -> (u32, u32) {
    (narrow(span.start.line()), narrow(span.start.col() + 1))
}

/// A place, at the end of the text where it lies beyond.
fn within(text: &str, line: u32, column: u32) -> (u32, u32) {
    let text = text.trim_end();
    let lines = narrow(text.lines().count().max(1));
    if line <= lines {
        return (line, column);
    }
    (lines, narrow(text.lines().last().unwrap_or_default().chars().count() + 1))
}

/// What is being built.
struct Frame {
    line: u32,
    column: u32,
    anchor: usize,
    /// Counters before it, to know its own size.
    nodes_before: usize,
    bytes_before: usize,
    /// Levels below it.
    height: usize,
    content: Content,
}

/// The part of a collection that has been read.
enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Key>, merges: Vec<Node> },
}

/// A key whose value is still to come.
struct Key {
    text: String,
    line: u32,
    column: u32,
    /// Whether it takes over another object's entries.
    merge: bool,
}

/// What an anchor names, with its size after expansion.
struct Anchor {
    node: Rc<Node>,
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// The key by which an object takes over another's entries.
const MERGE: &str = "<<";

/// Builds trees from events.
struct Builder<'a> {
    limits: &'a Limits,
    nodes: usize,
    bytes: usize,
    documents: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    document: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(limits: &'a Limits) -> Self {
        let (stack, anchors) = (Vec::new(), HashMap::new());
        Self { limits, nodes: 0, bytes: 0, documents: 0, stack, anchors, document: None }
    }

    fn read(mut self, text: &str, visit: &mut dyn FnMut(&Node)) -> Result<(), Fault> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| self.parser_fault(text, &error))?;
            let (line, column) = place(span);
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) => {
                    self.documents += 1;
                    if self.documents > self.limits.documents {
                        let limit = self.limits.documents;
                        return Err(limit_fault(line, column, &format!("more than {limit} documents in one file")));
                    }
                    self.anchors.clear();
                }
                Event::DocumentEnd => {
                    if let Some(document) = self.document.take() {
                        visit(&document);
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain_key = style == ScalarStyle::Plain;
                    self.count(1, text.len(), line, column)?;
                    let value = scalar::resolve(&text, style, tag.as_deref())
                        .map_err(|message| syntax_fault(line, column, message))?;
                    if plain_key && text == MERGE && self.expects_key() {
                        self.key(Key { text: MERGE.to_owned(), line, column, merge: true });
                        continue;
                    }
                    let node = Node { line, column, tree: Tree::Scalar(value) };
                    let sizes = Sizes { nodes: 1, bytes: text.len(), height: 0 };
                    self.complete(node, anchor, &sizes)?;
                }
                Event::SequenceStart(anchor, _) => {
                    self.open(anchor, line, column, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, _) => {
                    let content = Content::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                    self.open(anchor, line, column, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(id) => self.alias(id, line, column)?,
                Event::Nothing | Event::StreamStart => {}
            }
        }
        Ok(())
    }

    fn parser_fault(&self, text: &str, error: &ScanError) -> Fault {
        let (line, column) = within(text, narrow(error.marker().line()), narrow(error.marker().col() + 1));
        // The parser reads ahead, so its own limit may come before ours.
        if error.info().contains("recursion limit") {
            let limit = self.limits.depth;
            return limit_fault(line, column, &format!("more than {limit} lists and objects within each other"));
        }
        let opening = |frame: &&Frame| {
            let source = text.lines().nth(frame.line.checked_sub(1)? as usize)?;
            source.chars().nth(frame.column.checked_sub(1)? as usize).filter(|c| matches!(c, '[' | '{'))
        };
        // What is really wrong is seldom where the parser noticed it.
        let open = self.stack.iter().rev().find_map(|frame| Some((opening(&frame)?, frame)));
        let open = open
            .map(|(bracket, frame)| {
                format!(" (`{bracket}` of line {}, column {} is still open here)", frame.line, frame.column)
            })
            .unwrap_or_default();
        let message = format!("this is not YAML: {}{open}; correct it, until then the file is not read", error.info());
        Fault { line, column, code: Code::SyntaxError, message, by_parser: true }
    }

    fn count(&mut self, nodes: usize, bytes: usize, line: u32, column: u32) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > self.limits.nodes {
            let limit = self.limits.nodes;
            return Err(limit_fault(
                line,
                column,
                &format!("more than {limit} values in one file, with aliases expanded"),
            ));
        }
        if self.bytes > self.limits.file_bytes {
            let limit = self.limits.file_bytes;
            return Err(limit_fault(line, column, &format!("more than {limit} bytes of text, with aliases expanded")));
        }
        Ok(())
    }

    fn depth(&self, height: usize, line: u32, column: u32) -> Result<(), Fault> {
        let limit = self.limits.depth;
        if self.stack.len() + height > limit {
            return Err(limit_fault(line, column, &format!("more than {limit} lists and objects within each other")));
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { content: Content::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, anchor: usize, line: u32, column: u32, content: Content) -> Result<(), Fault> {
        if self.expects_key() {
            let message = "a key is a list or an object: write a text before the `:`, in quotes where it has braces";
            return Err(syntax_fault(line, column, message.to_owned()));
        }
        self.depth(1, line, column)?;
        let (nodes_before, bytes_before) = (self.nodes, self.bytes);
        self.count(1, 0, line, column)?;
        self.stack.push(Frame { line, column, anchor, nodes_before, bytes_before, height: 1, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let Frame { line, column, anchor, nodes_before, bytes_before, height, content } = frame;
        let tree = match content {
            Content::List(items) => Tree::List(items),
            Content::Map { mut entries, merges, .. } => {
                repeated_key(&entries)?;
                for merge in merges {
                    self.merge(&mut entries, &merge)?;
                }
                Tree::Map(entries)
            }
        };
        let sizes = Sizes { nodes: self.nodes - nodes_before, bytes: self.bytes - bytes_before, height };
        self.complete(Node { line, column, tree }, anchor, &sizes)
    }

    fn alias(&mut self, id: usize, line: u32, column: u32) -> Result<(), Fault> {
        let Some(anchor) = self.anchors.get(&id) else {
            let message = "this alias stands for something that contains it: remove the alias".to_owned();
            return Err(syntax_fault(line, column, message));
        };
        let sizes = Sizes { nodes: anchor.nodes, bytes: anchor.bytes, height: anchor.height };
        let node = Node { line, column, tree: Tree::Shared(Rc::clone(&anchor.node)) };
        self.depth(sizes.height, line, column)?;
        self.count(sizes.nodes, sizes.bytes, line, column)?;
        self.complete(node, 0, &sizes)
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, mut node: Node, anchor: usize, sizes: &Sizes) -> Result<(), Fault> {
        if anchor != 0 {
            let shared = Rc::new(node);
            node = Node { line: shared.line, column: shared.column, tree: Tree::Shared(Rc::clone(&shared)) };
            let Sizes { nodes, bytes, height } = *sizes;
            self.anchors.insert(anchor, Anchor { node: shared, nodes, bytes, height });
        }
        let (line, column) = (node.line, node.column);
        let Some(frame) = self.stack.last_mut() else {
            self.document = Some(node);
            return Ok(());
        };
        frame.height = frame.height.max(sizes.height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key: key @ Some(_), merges } => match key.take() {
                Some(key) if key.merge => merges.push(node),
                Some(Key { text, line, column, .. }) => entries.push(Entry { key: text, line, column, node }),
                None => {}
            },
            Content::Map { key: None, .. } => {
                let tree = match node.tree {
                    Tree::Shared(shared) => shared.resolved().tree.clone(),
                    tree => tree,
                };
                let key = match tree {
                    Tree::Scalar(Value::String(text)) => text,
                    Tree::Scalar(Value::Null) => {
                        let message = "a key is missing before the `:`: write one".to_owned();
                        return Err(syntax_fault(line, column, message));
                    }
                    Tree::Scalar(value) => value.to_string(),
                    _ => {
                        let message = "a key is a list or an object: write a text before the `:`".to_owned();
                        return Err(syntax_fault(line, column, message));
                    }
                };
                self.key(Key { text: key, line, column, merge: false });
            }
        }
        Ok(())
    }

    fn key(&mut self, key: Key) {
        if let Some(Frame { content: Content::Map { key: slot, .. }, .. }) = self.stack.last_mut() {
            *slot = Some(key);
        }
    }

    fn json(&mut self, value: Value, depth: usize) -> Result<Node, Fault> {
        self.count(1, 0, 0, 0)?;
        self.depth(depth, 0, 0)?;
        let tree = match value {
            Value::Array(items) => {
                Tree::List(items.into_iter().map(|item| self.json(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => {
                let entry = |(key, value)| Ok(Entry { key, line: 0, column: 0, node: self.json(value, depth + 1)? });
                Tree::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            value => Tree::Scalar(value),
        };
        Ok(Node { line: 0, column: 0, tree })
    }

    /// Adds the entries that an object does not have itself.
    fn merge(&mut self, entries: &mut Vec<Entry>, source: &Node) -> Result<(), Fault> {
        let (line, column) = (source.line, source.column);
        match &source.resolved().tree {
            Tree::Map(others) => {
                self.count(others.len(), 0, line, column)?;
                let mut known: std::collections::HashSet<String> =
                    entries.iter().map(|entry| entry.key.clone()).collect();
                for other in others {
                    if known.insert(other.key.clone()) {
                        entries.push(other.clone());
                    }
                }
                Ok(())
            }
            Tree::List(items) => {
                for item in items {
                    if !matches!(item.resolved().tree, Tree::Map(_)) {
                        break;
                    }
                    self.merge(entries, item)?;
                }
                match items.iter().find(|item| !matches!(item.resolved().tree, Tree::Map(_))) {
                    Some(item) => Err(not_mergeable(item.line, item.column)),
                    None => Ok(()),
                }
            }
            _ => Err(not_mergeable(line, column)),
        }
    }
}

/// Size of a finished node after expansion.
struct Sizes {
    nodes: usize,
    bytes: usize,
    /// Levels, 0 for a scalar.
    height: usize,
}

fn not_mergeable(line: u32, column: u32) -> Fault {
    syntax_fault(line, column, "`<<` takes over objects only: give it an object or a list of objects".to_owned())
}

fn syntax_fault(line: u32, column: u32, message: String) -> Fault {
    Fault { line, column, code: Code::SyntaxError, message, by_parser: false }
}

fn limit_fault(line: u32, column: u32, what: &str) -> Fault {
    Fault {
        line,
        column,
        code: Code::LimitExceeded,
        message: format!("{what}, which is the limit: split the file or simplify it"),
        by_parser: false,
    }
}

/// Refuses an object that has a key twice.
fn repeated_key(entries: &[Entry]) -> Result<(), Fault> {
    /// Up to here, comparing all pairs is cheaper than hashing.
    const FEW: usize = 12;
    let fault = |first: &Entry, second: &Entry| {
        let key: String = second.key.chars().take(60).collect();
        let message = format!("key `{key}` is already on line {}: remove one of the two", first.line);
        Err(syntax_fault(second.line, second.column, message))
    };
    if entries.len() <= FEW {
        for (index, second) in entries.iter().enumerate() {
            if let Some(first) = entries[..index].iter().find(|first| first.key == second.key) {
                return fault(first, second);
            }
        }
        return Ok(());
    }
    let mut known: HashMap<&str, &Entry> = HashMap::with_capacity(entries.len());
    for second in entries {
        if let Some(first) = known.insert(&second.key, second) {
            return fault(first, second);
        }
    }
    Ok(())
}
