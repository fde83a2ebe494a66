//! Regular expressions as users write them, checked before Envoy sees them.
//!
//! Envoy compiles RE2 and refuses a whole route configuration for one bad expression. The `regex` crate is of the same
//! family: no look-around, no back-references, linear time. Where the two differ the expression is refused here, with
//! the reason, rather than sent to find out.

use regex::Regex;

/// Longest expression that is accepted, in bytes. RE2 programs grow with the expression; Envoy's own default warns at a
/// program size of 100, which real expressions pass, so the bound is on the text and on the compiled size.
const MAX_LENGTH: usize = 4096;

/// Largest compiled program, in bytes, of the `regex` crate. Ten times this takes milliseconds per route to compile.
const MAX_PROGRAM: usize = 256 * 1024;

/// Compiles an expression that must match a whole text, as Envoy's `safe_regex` does.
///
/// # Errors
/// One sentence for the author.
pub fn compile(expression: &str) -> Result<Regex, String> {
    if expression.is_empty() {
        return Err("the expression is empty; write `.*` to match anything".to_owned());
    }
    if expression.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} bytes; shorten it or split the route"));
    }
    if let Some(difference) = differs_from_re2(expression) {
        return Err(difference.to_owned());
    }
    regex::RegexBuilder::new(&format!("^(?:{expression})$")).size_limit(MAX_PROGRAM).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => {
                "the expression compiles to too large a program; lower its repetition counts".to_owned()
            }
            _ => format!("`{expression}` is no RE2 expression: {}", reason(&error)),
        },
    )
}

/// Checks an expression that need not match the whole text (rewrites), and counts its groups.
///
/// # Errors
/// As [`compile`].
pub fn groups(expression: &str) -> Result<usize, String> {
    compile(expression).map(|regex| regex.captures_len() - 1)
}

/// The last line of the parser's report, which says what is wrong; those before it draw a caret.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.trim().trim_start_matches("error: ").to_owned()
}

/// Forms that the `regex` crate takes and RE2 does not.
fn differs_from_re2(expression: &str) -> Option<&'static str> {
    let bytes = expression.as_bytes();
    let mut in_class = false;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => {
                if !in_class && matches!(bytes.get(i + 1), Some(b'<' | b'>')) {
                    return Some("RE2 has no `\\<` and `\\>`; use `\\b`");
                }
                if matches!(bytes.get(i + 1), Some(b'u' | b'U')) {
                    return Some("RE2 has no `\\u`; write the character itself or `\\x{…}`");
                }
                i += 1;
            }
            b'[' if in_class && bytes.get(i + 1) != Some(&b':') => {
                return Some("RE2 has no classes within classes; escape the inner `[`");
            }
            b'[' if in_class => {
                // A POSIX class such as [:alpha:]; skip its own bracket.
                i += expression[i..].find(":]").map_or(0, |end| end + 1);
            }
            b'[' => {
                in_class = true;
                // A `]` directly after the opening is a literal.
                if bytes.get(i + 1) == Some(&b'^') {
                    i += 1;
                }
                if bytes.get(i + 1) == Some(&b']') {
                    i += 1;
                }
            }
            b']' => in_class = false,
            b'&' if in_class && bytes.get(i + 1) == Some(&b'&') => {
                return Some("RE2 has no `&&` in classes");
            }
            b'(' if !in_class && expression[i..].starts_with("(?") => {
                let flags = &expression[i + 2..];
                let end = flags.find([')', ':', '<', 'P', '=', '!']).unwrap_or(0);
                if flags[..end].contains(['x', 'R', 'u']) {
                    return Some("RE2 has no flags `x`, `R` and `u`");
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r73_expressions_match_the_whole_text() {
        let regex = compile("/foo/.*|/bar").unwrap();
        assert!(regex.is_match("/foo/x") && regex.is_match("/bar"));
        assert!(!regex.is_match("/bar/x") && !regex.is_match("x/foo/"));
    }

    #[test]
    fn what_re2_refuses_is_refused_with_a_reason() {
        for (expression, part) in [
            ("(?=a)b", "look-around"),
            ("(a)\\1", "backreferences"),
            ("a[", "unclosed"),
            ("(?x) a", "flags"),
            ("[a&&b]", "`&&`"),
            ("[a[b]]", "classes within classes"),
            ("\\<a", "`\\b`"),
            ("", "empty"),
            ("(a{1000}){1000}", "large"),
        ] {
            let error = compile(expression).unwrap_err();
            assert!(error.contains(part), "{expression}: {error}");
        }
    }

    #[test]
    fn ordinary_expressions_pass() {
        for expression in ["/v[0-9]+/.*", "[]a]", "[[:alpha:]]+", "(?i)abc", "(?P<x>a)", "a\\[b", "[^]]"] {
            assert!(compile(expression).is_ok(), "{expression}");
        }
        assert_eq!(groups("^/(a)/(b)$"), Ok(2));
    }
}
