//! What Envoy takes as a header name and a header value.
//!
//! # Rule
//! The policy reference in the manual, "HeaderManipulationPolicy": a lone `%`, an unclosed command and an empty name cost the
//! whole route configuration.

/// Whether a text is a token of RFC 9110, as header names are.
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Longest name or value of a header that Envoy takes, in bytes.
pub(super) const LONGEST: usize = 16_384;

/// Whether Envoy refuses to add or remove a header of a name.
pub(super) fn is_refused(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host") || !is_token(name)
}

/// Whether a value reads as a format string: `%%`, and `%COMMAND%`, `%COMMAND(arguments)%`, `%COMMAND:10%`.
///
/// Names of commands are not compared with Envoy's list.
pub(super) fn check(value: &str) -> Result<(), String> {
    let mut rest = value;
    while let Some(position) = rest.find('%') {
        let after = &rest[position + 1..];
        if let Some(escaped) = after.strip_prefix('%') {
            rest = escaped;
            continue;
        }
        rest = command(after).ok_or_else(|| format!("`%{after}` is not a command; a lone `%` is written `%%`"))?;
    }
    Ok(())
}

/// What follows a command, or nothing if there is none.
fn command(text: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let rest = text.trim_start_matches(is_name);
    if rest.len() == text.len() {
        return None;
    }
    let Some(arguments) = rest.strip_prefix('(') else { return end(rest) };
    // Arguments may hold parentheses themselves: they end at the first that the command's end follows.
    arguments.match_indices(')').find_map(|(position, _)| end(&arguments[position + 1..]))
}

/// What follows `%` or `:<length>%`.
fn end(text: &str) -> Option<&str> {
    let text = match text.strip_prefix(':') {
        Some(length) => {
            let rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.len() == length.len() {
                return None;
            }
            rest
        }
        None => text,
    };
    text.strip_prefix('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_string_rows() {
        for good in [
            "",
            "plain",
            "100%%",
            "%REQ(x-a)%",
            "%REQ(x-a?x-b):10%",
            "a %DOWNSTREAM_TLS_VERSION% b %PROTOCOL%",
            "%CEL(re.extract(request.path, '(.*)', '\\\\1'))%",
            "%START_TIME(%Y/%m)%",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["100%", "50% off", "%REQ(a", "%REQ(a)", "%req(a)%", "% %", "%REQ:%", "%%%"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_rows() {
        for (name, expected) in [("x-a", true), ("", false), ("a b", false), ("ä", false), (":path", false)] {
            assert_eq!(is_token(name), expected, "{name}");
        }
    }
}
