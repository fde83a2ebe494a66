//! The plainest YAML, as machines write it and most people do, read in one pass over its bytes.
//!
//! Manifests are read at every edit, and the parser of all of YAML looks at each letter many times. What is read here is a
//! part of YAML of which there are no two opinions; of anything else, and of everything that is wrong, nothing is said, and
//! the other parser reads the file from its beginning. Both come to the same events at the same places, which a property test
//! holds them to.
//!
//! Read here: block mappings with keys of letters, digits and `_./-`; block sequences; flow collections, plain and quoted
//! texts of one line without escapes; comments on lines of their own; documents parted by `---`. All of it in printable
//! ASCII.

/// Something that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// A document begins.
    DocumentStart,
    /// It ends.
    DocumentEnd,
    /// A text, and whether it stands there without quotes.
    Scalar(&'a str, bool),
    /// A sequence begins.
    SequenceStart,
    /// A mapping begins.
    MappingStart,
    /// The last sequence or mapping that began ends.
    End,
}

/// Something that is read, and its line and column, from 1; of an end, nobody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// What it is.
    pub(super) what: What<'a>,
    /// Its line.
    pub(super) line: u32,
    /// Its column.
    pub(super) column: u32,
}

/// Sequences and mappings within each other that are read here; real manifests have about 15.
const DEPTH: usize = 32;

/// Bytes of a text that is read here. All events of it are held at a time, which are five times as large; files that are
/// edited have a few kilobytes.
const LONGEST: usize = 256 << 10;

/// The events of a text; none if there is something in it that is not read here.
///
/// # Cost
/// A look or two at each byte.
pub(super) fn read(text: &str) -> Option<Vec<Event<'_>>> {
    if text.len() > LONGEST {
        return None;
    }
    let mut reader =
        Reader { text, at: 0, line: 0, content: None, events: Vec::with_capacity(text.len() / 8), depth: 0 };
    reader.next_line()?;
    loop {
        let is_marked = reader.takes_marker()?;
        let Some(first) = reader.content else { return (!is_marked).then_some(reader.events) };
        reader.put(What::DocumentStart, first.line, 1);
        reader.block(None)?;
        reader.put(What::DocumentEnd, first.line, 1);
        // What follows is another document, or nothing.
        if reader.content.is_some_and(|line| !reader.is_marker(line)) {
            return None;
        }
    }
}

/// A line that says something.
#[derive(Clone, Copy)]
struct Line {
    /// Where its first letter is, and where it ends.
    start: usize,
    end: usize,
    /// Spaces before it.
    indent: usize,
    line: u32,
}

struct Reader<'a> {
    text: &'a str,
    /// Where the next line begins.
    at: usize,
    /// Lines so far.
    line: u32,
    /// The line that is to be read now; none at the end.
    content: Option<Line>,
    events: Vec<Event<'a>>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn put(&mut self, what: What<'a>, line: u32, column: usize) {
        self.events.push(Event { what, line, column: u32::try_from(column).unwrap_or(u32::MAX) });
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Goes to the next line that says something.
    fn next_line(&mut self) -> Option<()> {
        let bytes = self.bytes();
        loop {
            if self.at >= bytes.len() {
                self.content = None;
                return Some(());
            }
            let begin = self.at;
            let length = bytes[begin..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - begin);
            let mut end = begin + length;
            self.at = end + 1;
            self.line += 1;
            let indent = bytes[begin..end].iter().take_while(|byte| **byte == b' ').count();
            let start = begin + indent;
            if start == end || bytes[start] == b'#' {
                // Letters of a comment are anybody's, but nothing that other parsers may take for the end of a line.
                if !bytes[start..end].iter().all(|byte| matches!(byte, b' '..=b'~')) {
                    return None;
                }
                continue;
            }
            if !bytes[start..end].iter().all(|byte| matches!(byte, b' '..=b'~')) {
                return None;
            }
            while bytes[end - 1] == b' ' {
                end -= 1;
            }
            self.content = Some(Line { start, end, indent, line: self.line });
            return Some(());
        }
    }

    fn is_marker(&self, line: Line) -> bool {
        line.indent == 0 && &self.bytes()[line.start..line.end] == b"---"
    }

    /// Takes the marker of a document; whether there is one.
    fn takes_marker(&mut self) -> Option<bool> {
        let Some(line) = self.content.filter(|line| self.is_marker(*line)) else { return Some(false) };
        self.next_line()?;
        // Two in a row are a document that says nothing.
        if self.content.is_none_or(|next| self.is_marker(next) || next.line <= line.line) {
            return None;
        }
        Some(true)
    }

    /// Reads a sequence or mapping that begins with this line, further in than `outer`.
    fn block(&mut self, outer: Option<usize>) -> Option<()> {
        let line = self.content?;
        if outer.is_some_and(|outer| line.indent <= outer) {
            return None;
        }
        if self.is_entry(line) {
            self.sequence(line.indent, line.indent)
        } else {
            self.mapping(line.indent, line.start)
        }
    }

    /// Whether a line is an entry of a sequence.
    fn is_entry(&self, line: Line) -> bool {
        let bytes = &self.bytes()[line.start..line.end];
        bytes[0] == b'-' && bytes.get(1).is_none_or(|byte| *byte == b' ')
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= DEPTH).then_some(())
    }

    fn sequence(&mut self, indent: usize, column: usize) -> Option<()> {
        self.deeper()?;
        let first = self.content?;
        self.put(What::SequenceStart, first.line, column + 1);
        while let Some(line) = self.content.filter(|line| line.indent == indent && self.is_entry(*line)) {
            let bytes = self.bytes();
            let spaces = bytes[line.start + 1..line.end].iter().take_while(|byte| **byte == b' ').count();
            let start = line.start + 1 + spaces;
            if start >= line.end {
                return None;
            }
            let within = indent + 1 + spaces;
            if self.key(start, line.end).is_some() {
                self.mapping(within, start)?;
            } else {
                self.value(start, line, indent)?;
            }
            if self.content.is_some_and(|next| next.indent > indent) {
                return None;
            }
        }
        self.depth -= 1;
        self.put(What::End, first.line, 1);
        Some(())
    }

    /// Reads a mapping of which the first key stands at `start` of the line, with this many letters before it.
    fn mapping(&mut self, indent: usize, mut start: usize) -> Option<()> {
        self.deeper()?;
        let first = self.content?;
        self.put(What::MappingStart, first.line, indent + 1);
        loop {
            let line = self.content?;
            let (key, value) = self.key(start, line.end)?;
            self.put(What::Scalar(key, true), line.line, indent + 1);
            match value {
                Some(value) => self.value(value, line, indent)?,
                None => {
                    self.next_line()?;
                    let next = self.content?;
                    if self.is_marker(next) {
                        return None;
                    }
                    if next.indent == indent && self.is_entry(next) {
                        // Of one that stands no further in than its key, the place is that of its first entry.
                        let bytes = &self.bytes()[next.start + 1..next.end];
                        let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
                        self.sequence(indent, indent + 1 + spaces)?;
                    } else {
                        self.block(Some(indent))?;
                    }
                }
            }
            match self.content {
                Some(next) if next.indent > indent => return None,
                Some(next) if next.indent == indent && !self.is_entry(next) && !self.is_marker(next) => {
                    start = next.start
                }
                _ => break,
            }
        }
        self.depth -= 1;
        self.put(What::End, first.line, 1);
        Some(())
    }

    /// The key that stands at a place, and where its value begins if that stands in the same line.
    fn key(&self, start: usize, end: usize) -> Option<(&'a str, Option<usize>)> {
        let bytes = self.bytes().get(start..end)?;
        let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
        let length = bytes.iter().take_while(|byte| is_of_key(byte)).count();
        let first = *bytes.first()?;
        if length == 0
            || !(first.is_ascii_alphanumeric() || matches!(first, b'_' | b'/'))
            || bytes.get(length) != Some(&b':')
        {
            return None;
        }
        let key = &self.text[start..start + length];
        match bytes.get(length + 1) {
            None => Some((key, None)),
            Some(b' ') => {
                let spaces = bytes[length + 1..].iter().take_while(|byte| **byte == b' ').count();
                Some((key, Some(start + length + 1 + spaces)))
            }
            Some(_) => None,
        }
    }

    /// Reads a value that takes the rest of a line, and goes to the next.
    fn value(&mut self, start: usize, line: Line, indent: usize) -> Option<()> {
        let begin = line.start - line.indent;
        let end = self.flow(start, (line.end, begin, line.line), false)?;
        if end != line.end {
            return None;
        }
        self.next_line()?;
        // A text may go on in the next line.
        match self.content {
            Some(next) if next.indent > indent => None,
            _ => Some(()),
        }
    }

    /// Reads a value in one line; where it ends.
    fn flow(&mut self, start: usize, place: (usize, usize, u32), is_within: bool) -> Option<usize> {
        let (end, begin, line) = place;
        let bytes = &self.bytes()[..end];
        let column = start - begin + 1;
        match *bytes.get(start)? {
            b'[' => {
                self.deeper()?;
                self.put(What::SequenceStart, line, column);
                let mut at = start + 1;
                if bytes.get(at) != Some(&b']') {
                    loop {
                        at = self.flow(at, place, true)?;
                        match *bytes.get(at)? {
                            b',' if bytes.get(at + 1) == Some(&b' ') => at += 2,
                            b']' => break,
                            _ => return None,
                        }
                    }
                }
                self.depth -= 1;
                self.put(What::End, line, 1);
                Some(at + 1)
            }
            b'{' => {
                self.deeper()?;
                self.put(What::MappingStart, line, column);
                let mut at = start + 1;
                if bytes.get(at) != Some(&b'}') {
                    loop {
                        let (key, value) = self.key(at, end)?;
                        self.put(What::Scalar(key, true), line, at - begin + 1);
                        at = self.flow(value?, place, true)?;
                        match *bytes.get(at)? {
                            b',' if bytes.get(at + 1) == Some(&b' ') => at += 2,
                            b'}' => break,
                            _ => return None,
                        }
                    }
                }
                self.depth -= 1;
                self.put(What::End, line, 1);
                Some(at + 1)
            }
            quote @ (b'\'' | b'"') => {
                let length = bytes[start + 1..].iter().position(|byte| *byte == quote)?;
                let within = &self.text[start + 1..start + 1 + length];
                let after = start + length + 2;
                if within.contains('\\') && quote == b'"' {
                    return None;
                }
                // A second one stands for the quote itself; a colon makes it a key.
                if after < end && (!is_within || !matches!(bytes[after], b',' | b']' | b'}')) {
                    return None;
                }
                self.put(What::Scalar(within, false), line, column);
                Some(after)
            }
            first => {
                let follows = bytes.get(start + 1);
                let begins = first.is_ascii_alphanumeric()
                    || matches!(first, b'_' | b'/')
                    || (first == b'-' && follows.is_some_and(u8::is_ascii_alphanumeric));
                if !begins {
                    return None;
                }
                let mut at = start;
                while at < end {
                    let next = bytes.get(at + 1);
                    let is_of_text = match bytes[at] {
                        byte if byte.is_ascii_alphanumeric() => true,
                        b'_' | b'.' | b'/' | b'-' | b'+' | b'=' | b'@' | b'%' | b'*' | b'(' | b')' | b'^' | b'~'
                        | b';' | b'$' => true,
                        b':' => next.is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'/'),
                        b' ' => next.is_some_and(|next| next.is_ascii_alphanumeric()),
                        _ => false,
                    };
                    if !is_of_text {
                        break;
                    }
                    at += 1;
                }
                let is_end = at == end || (is_within && matches!(bytes[at], b',' | b']' | b'}'));
                if !is_end {
                    return None;
                }
                self.put(What::Scalar(&self.text[start..at], true), line, column);
                Some(at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saphyr_parser::{Event as Other, Parser, ScalarStyle};

    use super::*;

    /// What the other parser reads, but for the places of documents and ends; none if it reads what is not read here at all.
    fn by_the_other(text: &str) -> Option<Vec<String>> {
        let mut events = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.ok()?;
            let place = (span.start.line(), span.start.col() + 1);
            events.push(match event {
                Other::StreamStart | Other::StreamEnd | Other::Nothing => continue,
                Other::DocumentStart(_) => "document".to_owned(),
                Other::DocumentEnd => "document ends".to_owned(),
                Other::Scalar(text, style, 0, None) => format!("{text:?} {} {place:?}", style == ScalarStyle::Plain),
                Other::SequenceStart(0, None) => format!("sequence {place:?}"),
                Other::MappingStart(0, None) => format!("mapping {place:?}"),
                Other::SequenceEnd | Other::MappingEnd => "end".to_owned(),
                Other::Scalar(..) | Other::SequenceStart(..) | Other::MappingStart(..) | Other::Alias(_) => {
                    return None;
                }
            });
        }
        Some(events)
    }

    fn by_this(text: &str) -> Option<Vec<String>> {
        let shown = |event: Event<'_>| {
            let place = (event.line, event.column);
            match event.what {
                What::DocumentStart => "document".to_owned(),
                What::DocumentEnd => "document ends".to_owned(),
                What::Scalar(text, is_plain) => format!("{text:?} {is_plain} {place:?}"),
                What::SequenceStart => format!("sequence {place:?}"),
                What::MappingStart => format!("mapping {place:?}"),
                What::End => "end".to_owned(),
            }
        };
        Some(read(text)?.into_iter().map(shown).collect())
    }

    const MANIFESTS: &str = "\
# A gateway and a table.
apiVersion: v1
kind: Service
metadata:
  name: ingress
  labels: {app: ingress, tier: 'edge of it', empty: \"\"}
spec:
  ports:
    - name: http
      port: 80
      targetPort: -1
    - {name: https, port: 443}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata:
  name: cart
spec:
  hosts:
  - cart.example.com
  - 'www.example.com'
  http:
    # Only one.
    - name: r0
      matchers:
        - uri: {regex: '/items/[0-9]+'}
          headers:
            - name: x-beta
              value: 'true'
      forwardTo:
        destinations: [{ref: {name: cart, namespace: shop}, port: {number: 8080}}, {ref: {name: b}}]
        pathRewrite: https://a.example/b c
    - name: last
      directResponse: {body: [], status: 1.5}
";

    const PIECES: [&str; 44] = [
        "\n", " ", "  ", ":", ": ", "- ", "-", "#", " #", "'", "\"", "[", "]", "{", "}", ",", ", ", "a", "0",
        "key: v\n", "  x: y\n", "- z\n", "---\n", "---", "...\n", "~", "*", "&a ", "!t ", "|\n", ">\n", "\t", "\\",
        "?", "? ", "%", "@", "`", "<<: ", "null", "=", "\u{e9}", "\r", "\u{85}",
    ];

    #[test]
    fn manifests_are_read_here() {
        assert_eq!(by_this(MANIFESTS), by_the_other(MANIFESTS));
        assert!(by_this(MANIFESTS).is_some());
        assert_eq!(by_this(""), Some(vec![]));
    }

    #[test]
    fn what_has_two_opinions_is_left_to_the_other() {
        for text in [
            "a: 1 # one",
            "a: b: c",
            "a:\tb",
            "a: |\n  b\n",
            "a: &x b",
            "a: *x",
            "a: !!str b",
            "a: b\n  c",
            "a:\n",
            "- - a",
            "'a': b",
            "? a",
            "a: 'b''c'",
            "a: \"b\\n\"",
            "a: \u{e9}",
            "a: b\r\n",
            "%YAML 1.2\n---\na: b",
            "...",
            "a: [b,c]",
            "a: {b}",
            "<<: {a: b}",
            "text",
            "- a\nb: c",
            "  a: b\n c: d",
            "a: [b\n]",
            "---\n---\na: b",
            "a: b\n---\n",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let deep = "{a: ".repeat(DEPTH) + "b" + &"}".repeat(DEPTH);
        assert_eq!(read(&format!("a: {deep}")), None);
        assert_eq!(read(&format!("a: {}", "b".repeat(LONGEST))), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Whatever is read here, is read by the other parser too, and to the same.
        #[test]
        fn both_come_to_the_same(
            (from, lines) in (0..40_usize, 1..50_usize),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..PIECES.len() + 20, any::<prop::sample::Index>()), 0..5),
        ) {
            let mut text: String = MANIFESTS.split_inclusive('\n').skip(from).take(lines).collect();
            for (at, piece, other) in edits {
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
                let (at, other) = (*at.get(&places), *other.get(&places));
                match PIECES.get(piece) {
                    Some(piece) => text.insert_str(at, piece),
                    None => drop(text.drain(at.min(other)..at.max(other).min(at.min(other) + 12))),
                }
            }
            if let Some(events) = by_this(&text) {
                prop_assert_eq!(Some(events), by_the_other(&text), "{:?}", text);
            }
        }
    }
}
