//! Checked expressions as Envoy matches them, for `explain`. What is accepted is `model::expression`'s.

use regex::bytes::{Regex, RegexBuilder};

/// Compiles an expression that must match a whole text, as Envoy's `safe_regex` does: byte by byte, where the `regex`
/// crate can.
#[must_use]
pub fn compile(expression: &str) -> Option<Regex> {
    crate::model::expression::check(expression).ok()?;
    let whole = format!("^(?:{expression})$");
    let build = |unicode: bool| RegexBuilder::new(&whole).unicode(unicode).build();
    build(false).or_else(|_| build(true)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r73_expressions_match_the_whole_text() {
        let regex = compile("/foo/.*|/bar").unwrap();
        assert!(regex.is_match(b"/foo/x") && regex.is_match(b"/bar"));
        assert!(!regex.is_match(b"/bar/x") && !regex.is_match(b"x/foo/"));
    }

    #[test]
    fn the_classes_of_an_expression_are_ascii_as_in_re2() {
        let matches = |expression: &str, text: &str| compile(expression).unwrap().is_match(text.as_bytes());
        assert!(matches("\\w{900}", &"a".repeat(900)));
        assert!(!matches("\\w", "\u{e9}") && matches("..", "\u{e9}") && matches("\u{e9}", "\u{e9}"));
        assert!(matches("\\p{L}", "a") && matches("[a\u{e9}]", "a"));
    }
}
