//! Places of fields in a tree.

use super::tree::{Node, Tree};
use crate::model::FieldPath;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

/// Line and column of a field, or of the nearest one around it that is written.
///
/// A field's place is that of its key, a list item's that of its first character. Fields are found in either spelling.
pub(super) fn of(node: &Node, field: &FieldPath) -> (u32, u32) {
    let (mut node, mut place) = (node, (node.line, node.column));
    for step in steps(field.as_str()) {
        match (&node.resolved().tree, step) {
            (Tree::Map(entries), Step::Field(name)) => {
                let exact = entries.iter().find(|entry| entry.key == name);
                let Some(entry) = exact.or_else(|| entries.iter().find(|entry| same_field(&entry.key, &name))) else {
                    break;
                };
                (node, place) = (&entry.node, (entry.line, entry.column));
            }
            (Tree::List(items), Step::Index(index)) => {
                let Some(item) = items.get(index) else { break };
                (node, place) = (item, (item.line, item.column));
            }
            _ => break,
        }
    }
    place
}

/// Whether a key is the protobuf spelling of a field.
fn same_field(key: &str, field: &str) -> bool {
    key.contains('_') && key.replace('_', "").eq_ignore_ascii_case(field)
}

/// The steps of a path in its text form.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, tail) = unquote(quoted);
            steps.push(Step::Field(key));
            rest = tail.strip_prefix(']').unwrap_or(tail);
        } else if let Some(bracket) = rest.strip_prefix('[') {
            let Some((index, tail)) = bracket.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            steps.push(Step::Index(index));
            rest = tail;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            steps.push(Step::Field(name[..end].to_owned()));
            rest = &name[end..];
        }
    }
    steps
}

/// Reads a quoted key up to its closing quote; the inverse of how a path writes it.
fn unquote(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return (key, &text[index + 1..]),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => key.push('\n'),
                Some('r') => key.push('\r'),
                Some('t') => key.push('\t'),
                Some('0') => key.push('\0'),
                Some('u') => {
                    let digits: String =
                        chars.by_ref().map(|(_, c)| c).skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
                    key.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                }
                Some(c) => key.push(c),
                None => {}
            },
            c => key.push(c),
        }
    }
    (key, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_into_their_steps() {
        let field = |name: &str| Step::Field(name.to_owned());
        let odd = "a.b/\"c\"\\[0]\n\u{7f}";
        let path = FieldPath::new("spec").field("http").index(2).field("labels").field(odd).field("x");
        let expected = vec![field("spec"), field("http"), Step::Index(2), field("labels"), field(odd), field("x")];
        assert_eq!(steps(path.as_str()), expected);
        assert_eq!(steps(""), vec![]);
    }
}
