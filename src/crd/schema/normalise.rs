//! Makes a value fit a schema and reports everything that did not.

use std::fmt::{Display, Write};

use serde_json::{Number, Value};

use super::old_names::{self, Remedy};
use super::{Field, Message, Node, Schema, Unknown, camel_case};
use crate::crd::duration::Duration;
use crate::crd::secret;
use crate::crd::yaml::tree::{Entry, Node as Tree, Tree as Content};
use crate::model::FieldPath;

/// Something that a manifest says and that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::crd) enum Problem {
    /// The value is gone; the message says why and what to do.
    Defect(FieldPath, String),
    /// The field does not exist or is an older spelling.
    UnknownField(FieldPath, String),
}

/// Brings a value into the form that the type's decoder accepts, as JSON.
///
/// Nulls are dropped, older and protobuf spellings become the JSON name, enum numbers become names and quoted numbers
/// numbers. What cannot be used is taken out and reported; in a list, a zero value takes its place, so that the
/// positions of the others stay. Keys of the value itself that are in `except` are somebody else's.
///
/// # Cost
/// Linear in the value, which is read where it stands.
pub(in crate::crd) fn normalise(
    schema: &Schema,
    root: &FieldPath,
    value: Option<&Tree>,
    except: &[&str],
) -> (String, Vec<Problem>) {
    let text = String::new();
    let mut walk = Walk { schema, root, except, path: Vec::new(), problems: Vec::new(), unknown: 0, text };
    if !value.is_some_and(|value| !value.is_null() && walk.visit(schema.root, value)) {
        walk.text.push_str("{}");
    }
    if let Some(more) = walk.unknown.checked_sub(MOST_UNKNOWN).filter(|more| *more > 0) {
        walk.problems.push(Problem::UnknownField(
            root.clone(),
            format!("{more} further unknown fields are ignored: remove them"),
        ));
    }
    (walk.text, walk.problems)
}

/// Unknown fields reported one by one for an object; an author reads the first ten, a file that is no manifest at all
/// may have a million.
const MOST_UNKNOWN: usize = 100;

/// One step from a value to a part of it.
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// A walk over one value.
struct Walk<'a> {
    schema: &'a Schema,
    root: &'a FieldPath,
    except: &'a [&'a str],
    path: Vec<Step<'a>>,
    problems: Vec<Problem>,
    /// Number of unknown fields so far.
    unknown: usize,
    /// What was written so far.
    text: String,
}

/// What an object has so far.
struct Written<'a> {
    message: &'a Message,
    /// Of each field whether it is there.
    fields: Vec<bool>,
    /// Of each group of fields that exclude each other the one that is there.
    groups: Vec<Option<&'a Field>>,
}

impl<'a> Walk<'a> {
    /// Writes a value in its accepted form; false, and nothing is written, if it has none.
    fn visit(&mut self, node: usize, value: &'a Tree) -> bool {
        let schema = self.schema;
        let value = value.resolved();
        match (&schema.nodes[node], &value.tree) {
            (Node::Any, _)
            | (Node::Bool, Content::Scalar(Value::Bool(_)))
            | (Node::Text | Node::Hidden | Node::IntOrText, Content::Scalar(Value::String(_))) => self.as_it_is(value),
            (Node::Integer { min, max }, _) => self.integer(value, *min, *max),
            (Node::IntOrText, _) => self.integer(value, 0, u32::MAX.into()),
            (Node::Number, _) => self.number(value),
            (Node::Duration, Content::Scalar(Value::String(text))) => match text.parse::<Duration>() {
                Ok(_) => self.quoted(text),
                Err(error) => self.defect(format!("{} {error}", quote(text))),
            },
            (Node::Bytes, Content::Scalar(Value::String(text))) => match secret::decode(text) {
                Some(_) => self.quoted(text),
                None => self.defect("this is not base64: encode the value, or write it below `stringData`".to_owned()),
            },
            (Node::Choice { name, names }, _) => self.choice(name, names, value),
            (Node::List(item), Content::List(items)) => self.list(*item, items),
            (Node::Map(item), Content::Map(entries)) => self.map(*item, entries),
            (Node::Message(message), Content::Map(entries)) => self.message(message, entries),
            (Node::Hidden, _) => {
                self.defect(format!("expected a text, found {}: {}", shape(value), advice(&Node::Hidden, value)))
            }
            (expected, _) => {
                let advice = advice(expected, value);
                self.mismatch(&what(expected), value, &advice)
            }
        }
    }

    fn as_it_is(&mut self, value: &Tree) -> bool {
        match value.as_scalar() {
            Some(Value::String(text)) => self.quoted(text),
            Some(value) => self.plain(value),
            None => self.plain(value.value()),
        }
    }

    fn plain(&mut self, value: impl Display) -> bool {
        write!(self.text, "{value}").is_ok()
    }

    fn quoted(&mut self, text: &str) -> bool {
        if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            return self.plain(Value::from(text));
        }
        self.text.extend(["\"", text, "\""]);
        true
    }

    /// Begins an entry of an object.
    fn key(&mut self, key: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.quoted(key);
        self.text.push(':');
    }

    fn list(&mut self, item: usize, items: &'a [Tree]) -> bool {
        self.text.push('[');
        for (index, value) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.path.push(Step::Index(index));
            if !self.visit(item, value) {
                self.zero(item);
            }
            self.path.pop();
        }
        self.text.push(']');
        true
    }

    fn map(&mut self, item: usize, entries: &'a [Entry]) -> bool {
        self.text.push('{');
        for Entry { key, node: value, .. } in entries {
            let before = self.text.len();
            self.key(key);
            // As the API server reads it; dropping the entry would widen a selector.
            if value.is_null() {
                self.zero(item);
                continue;
            }
            self.path.push(Step::Field(key));
            if !self.visit(item, value) {
                self.text.truncate(before);
            }
            self.path.pop();
        }
        self.text.push('}');
        true
    }

    fn message(&mut self, message: &'a Message, entries: &'a [Entry]) -> bool {
        self.text.push('{');
        let (fields, groups) = (vec![false; message.fields.len()], vec![None; message.groups]);
        let mut written = Written { message, fields, groups };
        let except = if self.path.is_empty() { self.except } else { &[] };
        let mut older = Vec::new();
        for entry in entries.iter().filter(|entry| !except.contains(&entry.key.as_str())) {
            match message.spellings.get(&entry.key) {
                Some(position) => self.field(*position, &entry.key, &entry.node, &mut written),
                // An older spelling gives way to the present one wherever that stands.
                None => older.push(entry),
            }
        }
        for Entry { key, node: value, .. } in older {
            if message.preserve {
                continue;
            }
            let remedy = old_names::field(&message.name, &camel_case(key));
            if let Some(Remedy::Rename(name)) = remedy
                && let Some(position) = message.spellings.get(name).filter(|position| !written.fields[**position])
            {
                let text = format!("`{key}` is an older name of `{name}` and is read as it: write `{name}`");
                let place = self.here().field(key);
                self.problems.push(Problem::UnknownField(place, text));
                self.field(*position, name, value, &mut written);
                continue;
            }
            match remedy {
                Some(Remedy::Refuse(remedy)) => {
                    let place = self.here().field(key);
                    self.problems.push(Problem::Defect(place, format!("there is no field `{key}` here: {remedy}")));
                }
                remedy => {
                    if self.schema.unknown == Unknown::Ignore {
                        continue;
                    }
                    self.unknown += 1;
                    if self.unknown <= MOST_UNKNOWN {
                        let text = unknown_field(message, key, remedy);
                        let place = self.here().field(key);
                        self.problems.push(Problem::UnknownField(place, text));
                    }
                }
            }
        }
        self.text.push('}');
        true
    }

    fn field(&mut self, position: usize, key: &str, value: &'a Tree, written: &mut Written<'a>) {
        if value.is_null() {
            return;
        }
        let field = &written.message.fields[position];
        self.path.push(Step::Field(&field.name));
        if written.fields[position] {
            self.defect(format!("`{key}` is written in two spellings: keep only `{}`", field.name));
        } else {
            let before = self.text.len();
            self.key(&field.name);
            let mut is_kept = self.visit(field.node, value);
            if let Some(slot) = field.group.filter(|_| is_kept).and_then(|group| written.groups.get_mut(group)) {
                match *slot {
                    Some(other) => {
                        is_kept =
                            self.defect(format!("`{}` and `{}` exclude each other: keep one", other.name, field.name));
                    }
                    None => *slot = Some(field),
                }
            }
            written.fields[position] = is_kept;
            if !is_kept {
                self.text.truncate(before);
            }
        }
        self.path.pop();
    }

    fn integer(&mut self, value: &Tree, min: i64, max: i64) -> bool {
        let number = match value.as_scalar() {
            Some(Value::Number(number)) => whole(number),
            Some(Value::String(text)) => text
                .parse::<i64>()
                .ok()
                .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64).as_ref().and_then(whole)),
            _ => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => self.plain(number),
            _ => self.mismatch(&format!("a whole number from {min} to {max}"), value, "write such a number"),
        }
    }

    fn number(&mut self, value: &Tree) -> bool {
        let number = match value.as_scalar() {
            Some(Value::Number(number)) => Some(number.clone()),
            Some(Value::String(text)) => text.parse::<f64>().ok().and_then(Number::from_f64),
            _ => None,
        };
        match number {
            Some(number) => self.plain(number),
            None => self.mismatch("a number", value, "write a number"),
        }
    }

    fn choice(&mut self, name: &str, names: &[String], value: &Tree) -> bool {
        let written = match value.as_scalar() {
            Some(Value::String(text)) if names.contains(text) => return self.quoted(text),
            Some(Value::Number(number)) => {
                if let Some(known) = whole(number).and_then(|n| usize::try_from(n).ok()).and_then(|n| names.get(n)) {
                    return self.quoted(known);
                }
                number.to_string()
            }
            Some(Value::String(text)) => text.clone(),
            // YAML takes `TRUE` and `FALSE` without quotes for what they say.
            Some(Value::Bool(value)) if names.iter().any(|name| name == boolean_name(*value)) => {
                return self.quoted(boolean_name(*value));
            }
            _ => {
                let expected = format!("one of {}", list_of(names));
                return self.mismatch(&expected, value, "write one of these names");
            }
        };
        let remedy = match (old_names::value(name, &written), closest(&written, names.iter().map(String::as_str))) {
            (Some(remedy), _) => remedy.to_owned(),
            (None, Some(close)) => format!("did you mean `{close}`?"),
            (None, None) => "write one of these names".to_owned(),
        };
        self.defect(format!("{} is not one of {}: {remedy}", quote(&written), list_of(names)))
    }

    /// Writes the value that stands for one that cannot be used.
    fn zero(&mut self, node: usize) {
        match &self.schema.nodes[node] {
            Node::Any => self.text.push_str("null"),
            Node::Bool => self.text.push_str("false"),
            Node::Integer { .. } | Node::Number | Node::IntOrText => self.text.push('0'),
            Node::Text | Node::Hidden | Node::Bytes => self.text.push_str("\"\""),
            Node::Duration => self.text.push_str("\"0s\""),
            Node::Choice { names, .. } => drop(self.plain(names.first().cloned().map_or(Value::Null, Value::String))),
            Node::List(_) => self.text.push_str("[]"),
            Node::Map(_) | Node::Message(_) => self.text.push_str("{}"),
        }
    }

    fn mismatch(&mut self, expected: &str, value: &Tree, advice: &str) -> bool {
        let found = if self.schema.secret { shape(value).to_owned() } else { found(value) };
        self.defect(format!("expected {expected}, found {found}: {advice}"))
    }

    fn defect(&mut self, message: String) -> bool {
        let place = self.here();
        self.problems.push(Problem::Defect(place, message));
        false
    }

    fn here(&self) -> FieldPath {
        self.path.iter().fold(self.root.clone(), |path, step| match step {
            Step::Field(name) => path.field(name),
            Step::Index(index) => path.index(*index),
        })
    }
}

/// The name of an enum's value that YAML reads as a boolean.
fn boolean_name(value: bool) -> &'static str {
    if value { "TRUE" } else { "FALSE" }
}

/// A number without a fraction.
fn whole(number: &Number) -> Option<i64> {
    /// Largest whole number up to which every whole number has an exact float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT)?;
        #[allow(clippy::cast_possible_truncation, reason = "whole and within the exact range")]
        Some(float as i64)
    })
}

fn unknown_field(message: &Message, key: &str, remedy: Option<Remedy>) -> String {
    // A slip of the pen is likelier than an older spelling that stands for any field.
    match (closest(key, message.fields.iter().map(|field| field.name.as_str())), remedy) {
        (Some(close), _) => format!("unknown field `{}` is ignored: did you mean `{close}`?", shorten(key)),
        (None, Some(Remedy::Hint(hint))) => format!("unknown field `{}` is ignored: {hint}", shorten(key)),
        (None, Some(Remedy::Rename(name))) => {
            format!("`{}` is an older name of `{name}`, which is written too: remove it", shorten(key))
        }
        (None, _) => format!("unknown field `{}` is ignored: remove it or correct its name", shorten(key)),
    }
}

/// What a node expects, for messages.
fn what(node: &Node) -> String {
    match node {
        Node::Any => "anything".to_owned(),
        Node::Bool => "`true` or `false`".to_owned(),
        Node::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Node::Number => "a number".to_owned(),
        Node::Text | Node::Hidden => "a text".to_owned(),
        Node::Duration => "a duration".to_owned(),
        Node::Bytes => "a text in base64".to_owned(),
        Node::IntOrText => "a number or a text".to_owned(),
        Node::Choice { names, .. } => format!("one of {}", list_of(names)),
        Node::List(_) => "a list".to_owned(),
        Node::Map(_) | Node::Message(_) => "an object".to_owned(),
    }
}

/// What to do about a value of the wrong type.
fn advice(expected: &Node, value: &Tree) -> String {
    match (expected, value.as_scalar()) {
        (Node::Text | Node::Hidden | Node::Bytes, Some(Value::Number(_) | Value::Bool(_))) => {
            "put it in quotes".to_owned()
        }
        (Node::Bool, Some(Value::String(text))) if matches!(text.as_str(), "true" | "false") => {
            "write it without quotes".to_owned()
        }
        (Node::Duration, _) => "write a number with a unit, for instance `5s`".to_owned(),
        (Node::List(_), Some(Value::Null)) => "write `[]` or leave the field out".to_owned(),
        (Node::List(_), _) => "start each item with `-`".to_owned(),
        (Node::Message(message), Some(Value::Bool(_))) if message.spellings.contains_key("enabled") => {
            "write `enabled` below it".to_owned()
        }
        (Node::Message(message), _) if !message.fields.is_empty() && message.fields.len() <= 6 => {
            let names: Vec<&str> = message.fields.iter().map(|field| field.name.as_str()).collect();
            format!("write {} below it", list_of(&names))
        }
        (Node::Message(_) | Node::Map(_), _) => "write fields below it".to_owned(),
        _ => "correct the value or leave it out".to_owned(),
    }
}

/// What a value is, without its content.
pub(in crate::crd) fn shape(value: &Tree) -> &'static str {
    match &value.resolved().tree {
        Content::Scalar(Value::Bool(_)) => "`true` or `false`",
        Content::Scalar(Value::Number(_)) => "a number",
        Content::Scalar(Value::String(_)) => "a text",
        Content::List(_) | Content::Scalar(Value::Array(_)) => "a list",
        Content::Map(_) | Content::Scalar(Value::Object(_)) => "an object",
        Content::Scalar(Value::Null) | Content::Shared(_) => "nothing",
    }
}

/// What a value is.
fn found(value: &Tree) -> String {
    match value.as_scalar() {
        Some(Value::Bool(value)) => format!("`{value}`"),
        Some(Value::Number(number)) => format!("the number {number}"),
        Some(Value::String(text)) => format!("the text {}", quote(text)),
        _ => shape(value).to_owned(),
    }
}

fn quote(text: &str) -> String {
    format!("`{}`", shorten(text))
}

/// The start of a text, without line breaks and other control characters.
fn shorten(text: &str) -> String {
    /// Long enough to find the value again, short enough for one line of a terminal.
    const LONGEST: usize = 60;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= LONGEST {
        return text.chars().map(clean).collect();
    }
    text.chars().take(LONGEST).map(clean).chain(['…']).collect()
}

fn list_of(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The one known name that a slip of the pen may have meant.
fn closest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let target = plain(written);
    if target.chars().count() > 64 {
        return None;
    }
    let allowed = (target.chars().count() / 3).min(2);
    let mut best: Option<(usize, &str)> = None;
    let mut tie = false;
    for name in names {
        let name_plain = plain(name);
        if name_plain.len().abs_diff(target.len()) > 2 * allowed {
            continue;
        }
        let distance = edits(&target, &name_plain);
        match best {
            Some((least, _)) if distance > least => {}
            Some((least, _)) if distance == least => tie = true,
            _ => (best, tie) = (Some((distance, name)), false),
        }
    }
    best.filter(|(distance, _)| *distance <= allowed && !tie).map(|(_, name)| name)
}

/// Number of letters to insert, delete, replace or swap with their neighbour.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
