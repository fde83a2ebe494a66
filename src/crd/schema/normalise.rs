//! Makes a value fit a schema and reports everything that did not.

use serde_json::{Map, Number, Value};

use super::old_names::{self, Remedy};
use super::{Field, Message, Node, Schema, Unknown, camel_case};
use crate::crd::duration::Duration;
use crate::crd::secret;
use crate::model::FieldPath;

/// Something that a manifest says and that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::crd) enum Problem {
    /// The value is gone; the message says why and what to do.
    Defect(FieldPath, String),
    /// The field does not exist or is an older spelling.
    UnknownField(FieldPath, String),
}

/// Brings a value into the form that the type's decoder accepts.
///
/// Nulls are dropped, older and protobuf spellings become the JSON name, enum numbers become names and quoted numbers
/// numbers. What cannot be used is taken out and reported; in a list, a zero value takes its place, so that the
/// positions of the others stay.
pub(in crate::crd) fn normalise(schema: &Schema, root: &FieldPath, value: Value) -> (Value, Vec<Problem>) {
    let mut walk = Walk { schema, root, path: Vec::new(), problems: Vec::new(), unknown: 0 };
    let value = match value {
        Value::Null => Value::Object(Map::new()),
        value => walk.visit(schema.root, value).unwrap_or_else(|| Value::Object(Map::new())),
    };
    if let Some(more) = walk.unknown.checked_sub(MOST_UNKNOWN).filter(|more| *more > 0) {
        walk.problems.push(Problem::UnknownField(
            root.clone(),
            format!("{more} further unknown fields are ignored: remove them"),
        ));
    }
    (value, walk.problems)
}

/// Unknown fields reported one by one for an object; an author reads the first ten, a file that is no manifest at all
/// may have a million.
const MOST_UNKNOWN: usize = 100;

/// One step from a value to a part of it.
enum Step<'a> {
    Field(&'a str),
    Key(String),
    Index(usize),
}

/// A walk over one value.
struct Walk<'a> {
    schema: &'a Schema,
    root: &'a FieldPath,
    path: Vec<Step<'a>>,
    problems: Vec<Problem>,
    /// Number of unknown fields so far.
    unknown: usize,
}

impl<'a> Walk<'a> {
    /// The value in its accepted form, or nothing.
    fn visit(&mut self, node: usize, value: Value) -> Option<Value> {
        let schema = self.schema;
        match (&schema.nodes[node], value) {
            (Node::Any, value)
            | (Node::Bool, value @ Value::Bool(_))
            | (Node::Text | Node::IntOrText, value @ Value::String(_)) => Some(value),
            (Node::Integer { min, max }, value) => self.integer(&value, *min, *max),
            (Node::IntOrText, value) => self.integer(&value, 0, u32::MAX.into()),
            (Node::Number, value) => self.number(value),
            (Node::Duration, Value::String(text)) => match text.parse::<Duration>() {
                Ok(_) => Some(Value::String(text)),
                Err(error) => self.defect(format!("{} {error}", quote(&text))),
            },
            (Node::Bytes, Value::String(text)) => match secret::decode(&text) {
                Some(_) => Some(Value::String(text)),
                None => self.defect("this is not base64: encode the value, or write it below `stringData`".to_owned()),
            },
            (Node::Choice { name, names }, value) => self.choice(name, names, value),
            (Node::List(item), Value::Array(items)) => Some(self.list(*item, items)),
            (Node::Map(item), Value::Object(entries)) => Some(self.map(*item, entries)),
            (Node::Message(message), Value::Object(entries)) => Some(self.message(message, entries)),
            (expected, value) => {
                let advice = advice(expected, &value);
                self.mismatch(&what(expected), &value, &advice)
            }
        }
    }

    fn list(&mut self, item: usize, items: Vec<Value>) -> Value {
        let mut list = Vec::with_capacity(items.len());
        for (index, value) in items.into_iter().enumerate() {
            self.path.push(Step::Index(index));
            list.push(self.visit(item, value).unwrap_or_else(|| self.zero(item)));
            self.path.pop();
        }
        Value::Array(list)
    }

    fn map(&mut self, item: usize, entries: Map<String, Value>) -> Value {
        let mut map = Map::with_capacity(entries.len());
        for (key, value) in entries {
            let value = match value {
                // As the API server reads it; dropping the entry would widen a selector.
                Value::Null => Some(self.zero(item)),
                value @ Value::String(_) if matches!(self.schema.nodes[item], Node::Text) => Some(value),
                value => {
                    self.path.push(Step::Key(key.clone()));
                    let value = self.visit(item, value);
                    self.path.pop();
                    value
                }
            };
            if let Some(value) = value {
                map.insert(key, value);
            }
        }
        Value::Object(map)
    }

    fn message(&mut self, message: &'a Message, entries: Map<String, Value>) -> Value {
        let mut map = Map::with_capacity(entries.len());
        let mut taken: Vec<Option<&'a Field>> = vec![None; message.groups];
        // An older spelling gives way to the present one wherever that stands.
        let (present, older): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, _)| message.spellings.contains_key(key));
        for (key, value) in present {
            let field = &message.fields[message.spellings[&key]];
            self.field(field, &key, value, &mut map, &mut taken);
        }
        for (key, value) in older {
            if message.preserve {
                continue;
            }
            match old_names::field(&message.name, &camel_case(&key)) {
                Some(Remedy::Rename(name)) if !map.contains_key(name) && message.spellings.contains_key(name) => {
                    let field = &message.fields[message.spellings[name]];
                    let text = format!("`{key}` is an older name of `{name}` and is read as it: write `{name}`");
                    let place = self.here().field(&key);
                    self.problems.push(Problem::UnknownField(place, text));
                    self.field(field, name, value, &mut map, &mut taken);
                }
                Some(Remedy::Refuse(remedy)) => {
                    let place = self.here().field(&key);
                    self.problems.push(Problem::Defect(place, format!("there is no field `{key}` here: {remedy}")));
                }
                remedy => {
                    if self.schema.unknown == Unknown::Ignore {
                        continue;
                    }
                    self.unknown += 1;
                    if self.unknown <= MOST_UNKNOWN {
                        let text = unknown_field(message, &key, remedy);
                        let place = self.here().field(&key);
                        self.problems.push(Problem::UnknownField(place, text));
                    }
                }
            }
        }
        Value::Object(map)
    }

    fn field(
        &mut self,
        field: &'a Field,
        key: &str,
        value: Value,
        map: &mut Map<String, Value>,
        taken: &mut [Option<&'a Field>],
    ) {
        if value.is_null() {
            return;
        }
        self.path.push(Step::Field(&field.name));
        if map.contains_key(&field.name) {
            self.defect::<()>(format!("`{key}` is written in two spellings: keep only `{}`", field.name));
        } else if let Some(value) = self.visit(field.node, value) {
            let other = field.group.and_then(|group| taken.get_mut(group)).and_then(|slot| slot.replace(field));
            if let (Some(other), Some(slot)) = (other, field.group.and_then(|group| taken.get_mut(group))) {
                *slot = Some(other);
                self.defect::<()>(format!("`{}` and `{}` exclude each other: keep one", other.name, field.name));
            } else {
                map.insert(field.name.clone(), value);
            }
        }
        self.path.pop();
    }

    fn integer(&mut self, value: &Value, min: i64, max: i64) -> Option<Value> {
        let number = match value {
            Value::Number(number) => whole(number),
            Value::String(text) => text
                .parse::<i64>()
                .ok()
                .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64).as_ref().and_then(whole)),
            _ => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Some(Value::from(number)),
            _ => self.mismatch(&format!("a whole number from {min} to {max}"), value, "write such a number"),
        }
    }

    fn number(&mut self, value: Value) -> Option<Value> {
        let number = match &value {
            Value::Number(_) => return Some(value),
            Value::String(text) => text.parse::<f64>().ok().and_then(Number::from_f64),
            _ => None,
        };
        match number {
            Some(number) => Some(Value::Number(number)),
            None => self.mismatch("a number", &value, "write a number"),
        }
    }

    fn choice(&mut self, name: &str, names: &[String], value: Value) -> Option<Value> {
        let written = match value {
            Value::String(text) if names.contains(&text) => return Some(Value::String(text)),
            Value::Number(number) => {
                if let Some(known) = whole(&number).and_then(|n| usize::try_from(n).ok()).and_then(|n| names.get(n)) {
                    return Some(Value::String(known.clone()));
                }
                number.to_string()
            }
            Value::String(text) => text,
            value => {
                let expected = format!("one of {}", list_of(names));
                return self.mismatch(&expected, &value, "write one of these names");
            }
        };
        let remedy = match (old_names::value(name, &written), closest(&written, names.iter().map(String::as_str))) {
            (Some(remedy), _) => remedy.to_owned(),
            (None, Some(close)) => format!("did you mean `{close}`?"),
            (None, None) => "write one of these names".to_owned(),
        };
        self.defect(format!("{} is not one of {}: {remedy}", quote(&written), list_of(names)))
    }

    /// The value that stands for a list item that cannot be used.
    fn zero(&self, node: usize) -> Value {
        match &self.schema.nodes[node] {
            Node::Any => Value::Null,
            Node::Bool => Value::Bool(false),
            Node::Integer { .. } | Node::Number | Node::IntOrText => Value::from(0),
            Node::Text | Node::Bytes => Value::String(String::new()),
            Node::Duration => Value::String("0s".to_owned()),
            Node::Choice { names, .. } => names.first().cloned().map_or(Value::Null, Value::String),
            Node::List(_) => Value::Array(Vec::new()),
            Node::Map(_) | Node::Message(_) => Value::Object(Map::new()),
        }
    }

    fn mismatch(&mut self, expected: &str, value: &Value, advice: &str) -> Option<Value> {
        let found = if self.schema.secret { shape(value).to_owned() } else { found(value) };
        self.defect(format!("expected {expected}, found {found}: {advice}"))
    }

    fn defect<T>(&mut self, message: String) -> Option<T> {
        let place = self.here();
        self.problems.push(Problem::Defect(place, message));
        None
    }

    fn here(&self) -> FieldPath {
        self.path.iter().fold(self.root.clone(), |path, step| match step {
            Step::Field(name) => path.field(name),
            Step::Key(key) => path.field(key),
            Step::Index(index) => path.index(*index),
        })
    }
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
        Node::Text => "a text".to_owned(),
        Node::Duration => "a duration".to_owned(),
        Node::Bytes => "a text in base64".to_owned(),
        Node::IntOrText => "a number or a text".to_owned(),
        Node::Choice { names, .. } => format!("one of {}", list_of(names)),
        Node::List(_) => "a list".to_owned(),
        Node::Map(_) | Node::Message(_) => "an object".to_owned(),
    }
}

/// What to do about a value of the wrong type.
fn advice(expected: &Node, value: &Value) -> String {
    match (expected, value) {
        (Node::Text | Node::Bytes, Value::Number(_) | Value::Bool(_)) => "put it in quotes".to_owned(),
        (Node::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => {
            "write it without quotes".to_owned()
        }
        (Node::Duration, _) => "write a number with a unit, for instance `5s`".to_owned(),
        (Node::List(_), Value::Null) => "write `[]` or leave the field out".to_owned(),
        (Node::List(_), _) => "start each item with `-`".to_owned(),
        (Node::Message(message), Value::Bool(_)) if message.spellings.contains_key("enabled") => {
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
pub(in crate::crd) fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What a value is.
fn found(value: &Value) -> String {
    match value {
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quote(text)),
        value => shape(value).to_owned(),
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
