//! What does not fit a pattern, as a pattern: expressions of Envoy have no complement.
//!
//! Of a header that is sent in several lines Envoy says whether some line fits. That every line fits is therefore asked as:
//! there is no line that does not.

use std::collections::BTreeMap;

use crate::ir::policy::TextPattern;

/// How many bytes a part between two `*` may have: its expression is as deep.
const MAX_PART: usize = 128;

/// How many bytes the expressions for all parts between two `*` may have.
///
/// One may double with each place at which the part repeats its own head.
const MAX_SEARCHES: usize = 8192;

/// An expression (RE2, for the whole text) that fits the texts a pattern does not fit; none where every text fits.
///
/// It never fits a text that the pattern fits. It leaves out texts in three cases: what differs from a character that is not
/// ASCII fits only where it is ASCII; a part between two `*` counts as a further `*` where it is not ASCII, or longer than
/// [`MAX_PART`], or the expressions longer than [`MAX_SEARCHES`]; and releases that read characters, not bytes (those without the fix of CVE-2026-73552),
/// find no difference in a byte that is no text.
///
/// # Cost
/// The length is that of the pattern times its logarithm; 4096 bytes make 100 KB, and 76,000 instructions of RE2, which is
/// within [`PROXY_LEVEL`](crate::model::expression::PROXY_LEVEL).
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
    let mut left = MAX_SEARCHES;
    for part in middle.iter().rev() {
        if let Some(search) = Search::of(part, left) {
            left -= search.length();
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
    /// None for a part that is empty or has no expression of that many bytes; see [`unlike`].
    fn of(part: &str, most: usize) -> Option<Self> {
        let part = part.as_bytes();
        if part.is_empty() || part.len() > MAX_PART || !part.is_ascii() {
            return None;
        }
        let states = states(part);
        // From the last state to the first, which leaves each with ways to earlier ones only.
        let mut back: BTreeMap<usize, String> = BTreeMap::new();
        let mut search = Self { again: String::new(), without: String::new(), with: String::new() };
        for (found, next) in part.iter().copied().enumerate().rev() {
            let step = format!("{}{}", regex::escape(&char::from(next).to_string()), search.again);
            for way in back.values_mut() {
                *way = format!("{step}(?:{way})");
            }
            if found + 1 < part.len() {
                search.without = format!("(?:{step}{})?", search.without);
            }
            search.with.insert_str(0, &step);
            let mut classes: BTreeMap<usize, String> = BTreeMap::new();
            let mut rest = "^".to_owned();
            for (byte, state) in &states[found] {
                if *state > 0 {
                    rest.push_str(&member(*byte));
                    if *byte != next {
                        classes.entry(*state).or_default().push_str(&member(*byte));
                    }
                }
            }
            classes.insert(0, rest);
            for (state, class) in classes {
                let ways = back.entry(state).or_default();
                *ways = if ways.is_empty() { format!("[{class}]") } else { format!("[{class}]|{ways}") };
            }
            search.again = back.remove(&found).map(|ways| format!("(?:{ways})*")).unwrap_or_default();
            if back.values().map(String::len).sum::<usize>() + search.length() > most {
                return None;
            }
        }
        Some(search)
    }

    fn length(&self) -> usize {
        self.again.len() + self.without.len() + self.with.len()
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

/// How many bytes of a part's head are found after each of its bytes, by how many were found before. After any other byte
/// it is none.
fn states(part: &[u8]) -> Vec<BTreeMap<u8, usize>> {
    let mut states: Vec<BTreeMap<u8, usize>> = Vec::new();
    let mut shorter = 0;
    for (found, next) in part.iter().copied().enumerate() {
        let mut after: BTreeMap<u8, usize> = match found {
            0 => part.iter().map(|byte| (*byte, 0)).collect(),
            _ => states[shorter].clone(),
        };
        if found > 0 {
            shorter = states[shorter].get(&next).copied().unwrap_or_default();
        }
        after.insert(next, found + 1);
        states.push(after);
    }
    states
}

#[cfg(test)]
mod tests;
