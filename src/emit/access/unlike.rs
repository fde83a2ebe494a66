//! What does not fit a pattern, as a pattern: expressions of Envoy have no complement.
//!
//! Of a header that is sent in several lines Envoy says whether some line fits. That every line fits is therefore asked as:
//! there is no line that does not.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::policy::TextPattern;

/// How many bytes the expression for a part between two `*` may have.
///
/// It grows with the part, but may double with each place at which the part repeats its own head.
const MAX_LACK: usize = 8192;

/// An expression (RE2, for the whole text) that fits the texts a pattern does not fit; none where every text fits.
///
/// It never fits a text that the pattern fits. It leaves out texts in three cases: what differs from a character that is not
/// ASCII fits only where it is ASCII; a part between two `*` counts as a further `*` where it is not ASCII or its expression
/// would be longer than [`MAX_LACK`]; and releases that read characters, not bytes (those without the fix of CVE-2026-73552),
/// find no difference in a byte that is no text.
///
/// # Cost
/// The length is that of the pattern times its logarithm.
pub(super) fn unlike(pattern: &TextPattern) -> Option<String> {
    match pattern {
        TextPattern::Any => None,
        TextPattern::Exact(text) => {
            let longer = format!(r"{}\C+", regex::escape(text));
            Some(either(unlike_head(&characters(text)), longer))
        }
        TextPattern::Prefix(text) => unlike_head(&characters(text)),
        TextPattern::Suffix(text) => unlike_tail(&characters(text)),
        TextPattern::Regex(glob) => unlike_glob(&parts(glob)),
    }
}

fn characters(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// The literal parts of an expression that was made of a text with `*`, with an empty one at an end that is open.
fn parts(glob: &str) -> Vec<String> {
    let glob = glob.strip_prefix("(?s)").unwrap_or(glob);
    let literal = |escaped: &str| {
        let mut text = String::new();
        let mut rest = escaped.chars();
        while let Some(character) = rest.next() {
            text.extend(if character == '\\' { rest.next() } else { Some(character) });
        }
        text
    };
    glob.split(".*").map(literal).collect()
}

fn unlike_glob(parts: &[String]) -> Option<String> {
    let [head, middle @ .., tail] = parts else { return None };
    let mut rest = unlike_tail(&characters(tail));
    for part in middle.iter().rev() {
        if let Some(search) = Search::of(part) {
            rest = Some(search.or_then(rest.as_deref()));
        }
    }
    let Some(rest) = rest else { return unlike_head(&characters(head)) };
    Some(either(unlike_head(&characters(head)), format!("{}(?:{rest})", regex::escape(head))))
}

fn either(one: Option<String>, other: String) -> String {
    match one {
        Some(one) => format!("{one}|{other}"),
        None => other,
    }
}

/// Texts that do not begin so; halves, so that neither depth nor length grows with the square of the text.
fn unlike_head(text: &[char]) -> Option<String> {
    Some(match text {
        [] => return None,
        [one] => format!(r"(?:{}\C*)?", other_than(*one)),
        _ => {
            let (left, right) = text.split_at(text.len() / 2);
            format!("(?:{}|{}{})", unlike_head(left)?, literal(left), unlike_head(right)?)
        }
    })
}

/// Texts that do not end so.
fn unlike_tail(text: &[char]) -> Option<String> {
    Some(match text {
        [] => return None,
        [one] => format!(r"(?:\C*{})?", other_than(*one)),
        _ => {
            let (left, right) = text.split_at(text.len() / 2);
            format!("(?:{}|{}{})", unlike_tail(right)?, unlike_tail(left)?, literal(right))
        }
    })
}

fn literal(text: &[char]) -> String {
    regex::escape(&text.iter().collect::<String>())
}

fn other_than(character: char) -> String {
    match u8::try_from(character) {
        Ok(byte) if byte.is_ascii() => format!("[^{}]", member(byte)),
        _ => r"[\x00-\x7F]".to_owned(),
    }
}

/// A byte within brackets.
fn member(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!(r"\x{byte:02X}") }
}

/// How a text is searched for a part: the states of Knuth, Morris and Pratt, put together to expressions.
struct Search {
    /// What leads from the start of the search to its start.
    again: String,
    /// What then follows in a text that lacks the part.
    without: String,
    /// What then follows up to the end of the part's first place.
    with: String,
}

impl Search {
    /// None for a part that is empty or has no expression; see [`unlike`].
    fn of(part: &str) -> Option<Self> {
        let part = part.as_bytes();
        if part.is_empty() || !part.is_ascii() {
            return None;
        }
        let letters: BTreeSet<u8> = part.iter().copied().collect();
        // How much of the part's head is found after a byte more, with the first `found` bytes of it before.
        let after = |found: usize, byte: u8| {
            let seen: Vec<u8> = part[..found].iter().copied().chain([byte]).collect();
            (0..=seen.len()).rev().find(|length| seen.ends_with(&part[..*length])).unwrap_or_default()
        };
        // From the last state to the first, which leaves each with ways to earlier ones only.
        let mut back: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let (mut again, mut without, mut with) = (String::new(), String::new(), String::new());
        for (found, next) in part.iter().copied().enumerate().rev() {
            let step = format!("{}{again}", regex::escape(&char::from(next).to_string()));
            for way in back.values_mut().flatten() {
                way.insert_str(0, &step);
            }
            without = if found + 1 == part.len() { String::new() } else { format!("(?:{step}{without})?") };
            with.insert_str(0, &step);
            let mut forward = member(next);
            let mut classes: BTreeMap<usize, String> = BTreeMap::new();
            for byte in letters.iter().copied().filter(|byte| *byte != next) {
                let state = after(found, byte);
                if state > 0 {
                    classes.entry(state).or_default().push_str(&member(byte));
                    forward.push_str(&member(byte));
                }
            }
            for (state, class) in classes {
                back.entry(state).or_default().push(format!("[{class}]"));
            }
            back.entry(0).or_default().push(format!("[^{forward}]"));
            again = match back.remove(&found) {
                Some(ways) => format!("(?:{})*", ways.join("|")),
                None => String::new(),
            };
            let length = back.values().flatten().map(String::len).sum::<usize>();
            if length + again.len() + without.len() + with.len() > MAX_LACK {
                return None;
            }
        }
        Some(Self { again, without, with })
    }

    /// Texts that lack the part, or of which something fits what follows its first place.
    fn or_then(&self, rest: Option<&str>) -> String {
        let Self { again, without, with } = self;
        match rest {
            Some(rest) => format!("{again}(?:{without}|{with}(?:{rest}))"),
            None => format!("{again}{without}"),
        }
    }
}

#[cfg(test)]
mod tests;
