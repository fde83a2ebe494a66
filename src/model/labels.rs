//! Labels and the patterns that select by name.

use std::collections::BTreeMap;

use super::Name;

/// A set of labels, as on Kubernetes objects and routes.
pub type Labels = BTreeMap<Name, Name>;

/// Whether every wanted pair is among the labels. No wanted pairs match everything.
#[must_use]
pub fn contains_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a `*` pattern covers the whole text; `*` stands for any run of characters, anywhere.
///
/// # Cost
/// `pattern × text` at worst; no recursion.
///
/// # Rule
/// R19.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_rows() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("cluster-1", "cluster-1", true),
            ("cluster-1", "cluster-11", false),
            ("cluster-*", "cluster-1", true),
            ("*-prod-*", "eu-prod-1", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*a", "banana", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "R19 {pattern} {text}");
        }
    }
}
