//! YAML to JSON values, with aliases resolved: what a YAML parser of any language makes of the reference scenarios.
//!
//! Deliberately not the decoder under test, so that a fault there cannot hide in the input.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, bail};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};

/// All documents of a text, empty ones left out.
pub(crate) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new() };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                let event = reader.next()?;
                documents.push(reader.value(event)?);
            }
            _ => {}
        }
        documents.retain(|document| !document.is_null());
    }
}

struct Reader<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> {
    events: I,
    anchors: HashMap<usize, Value>,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Reader<'a, I> {
    fn next(&mut self) -> anyhow::Result<Event<'a>> {
        let (event, _) = self.events.next().context("the YAML ends early")??;
        Ok(event)
    }

    /// The value that begins with an event.
    fn value(&mut self, event: Event<'a>) -> anyhow::Result<Value> {
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(text, style)),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence()?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping()?),
            Event::Alias(anchor) => {
                return self.anchors.get(&anchor).cloned().context("an alias without its anchor");
            }
            other => bail!("{other:?} where a value belongs"),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self) -> anyhow::Result<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.value(event)?),
            }
        }
    }

    fn mapping(&mut self) -> anyhow::Result<Value> {
        let mut entries = Map::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Value::Object(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                other => bail!("{other:?} where a key belongs"),
            };
            let event = self.next()?;
            let value = self.value(event)?;
            if entries.insert(key.clone(), value).is_some() {
                bail!("the key `{key}` stands twice in one mapping");
            }
        }
    }
}

/// The core schema of YAML 1.2: null, booleans and numbers when plain, else text.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        plain => {
            let starts_as_number = plain.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
            let whole = || plain.parse::<i64>().ok().map(Number::from);
            let real = || plain.parse::<f64>().ok().and_then(Number::from_f64);
            starts_as_number
                .then(|| whole().or_else(real))
                .flatten()
                .map_or_else(|| Value::String(text.into_owned()), Value::Number)
        }
    }
}
