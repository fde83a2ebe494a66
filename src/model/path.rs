//! Path matches: how a parent's and a child's combine, and which comes first.

use std::cmp::Reverse;
use std::fmt;

use super::Name;

/// What a request's path (without the query) must be.
///
/// # Rule
/// R73, R93.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// No condition.
    Any,
    /// The whole path equals the text.
    Exact(Name),
    /// The path starts with the text, not on segment borders.
    Prefix(Name),
    /// The whole path matches the RE2 expression.
    Regex(Name),
}

/// Two levels of a chain that no path can satisfy together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathConflict;

impl PathMatch {
    /// What a parent's path and a child's path match together.
    ///
    /// Prefixes are concatenated: the parent's loses a trailing `/`, the child's starts with `/`, and a child `/` adds
    /// nothing. Every operation that a child's matcher can bring is in the table of R93.
    ///
    /// # Errors
    /// [`PathConflict`] where the table says so.
    ///
    /// # Rule
    /// R93, D17.
    pub fn combine(&self, child: &Self) -> Result<Self, PathConflict> {
        match (self, child) {
            (Self::Any, child) => Ok(child.clone()),
            (parent, Self::Any) => Ok(parent.clone()),
            (Self::Prefix(parent), Self::Prefix(child)) => Ok(Self::Prefix(join(parent, child))),
            (Self::Prefix(parent), Self::Exact(child)) => Ok(Self::Exact(join(parent, child))),
            (Self::Prefix(parent), Self::Regex(child)) => Ok(Self::Regex(join_regex(parent, child))),
            (Self::Exact(parent), Self::Exact(child)) if parent == child => Ok(self.clone()),
            (Self::Exact(_) | Self::Regex(_), _) => Err(PathConflict),
        }
    }

    /// Sort key of `ROUTE_SPECIFICITY`, most specific first: exact, regex, prefix; exact and prefix by length, long to
    /// short; no path counts as prefix `/`.
    ///
    /// # Rule
    /// R97.
    #[must_use]
    pub fn specificity(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(path) => (0, Reverse(path.len())),
            Self::Regex(_) => (1, Reverse(0)),
            Self::Prefix(path) => (2, Reverse(path.len())),
            Self::Any => (2, Reverse(1)),
        }
    }

    /// Whether every path matches.
    ///
    /// # Rule
    /// R69: no path or prefix `/`; the API's text adds the expression `.*`.
    #[must_use]
    pub fn takes_everything(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(path) => matches!(path.as_str(), "" | "/"),
            Self::Regex(path) => matches!(path.as_str(), ".*" | "/.*"),
            Self::Exact(_) => false,
        }
    }
}

/// Parent prefix and child expression as one expression.
///
/// Each alternative of the child is joined by itself, so that none escapes the parent's prefix: a slash at the end of the
/// prefix stays where the alternative brings none of its own.
fn join_regex(parent: &Name, child: &Name) -> Name {
    let stem = parent.strip_suffix('/').unwrap_or(parent);
    let ends_in_slash = stem != parent.as_str() && !stem.is_empty();
    let parts: Vec<String> = alternatives(child)
        .into_iter()
        .map(|alternative| {
            let (flags, rest) = leading_flags(alternative);
            // The whole path is matched, so an anchor says nothing; in the middle it would match nothing.
            let rest = rest.strip_prefix('^').unwrap_or(rest);
            let is_literal = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let slash = if !rest.starts_with('/') && (is_literal || ends_in_slash) { "/" } else { "" };
            format!("{flags}{slash}{rest}")
        })
        .collect();
    let stem = regex::escape(stem);
    match parts.as_slice() {
        [only] => format!("{stem}{only}").into(),
        several => format!("{stem}(?:{})", several.join("|")).into(),
    }
}

/// The alternatives of an expression: what stands between the `|` outside its groups and classes.
fn alternatives(expression: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    let mut class: Option<usize> = None;
    let mut characters = expression.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, class) {
            ('\\', _) => {
                characters.next();
            }
            // A `]` is a literal directly after the opening, or after `^` there.
            (']', Some(opening)) if !matches!(&expression[opening..at], "[" | "[^") => class = None,
            ('[', None) => class = Some(at),
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            ('|', None) if depth == 0 => {
                parts.push(&expression[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

/// Flags such as `(?i)` at the head, and the rest.
fn leading_flags(expression: &str) -> (&str, &str) {
    let is_flag = |c: char| c.is_ascii_alphabetic() || c == '-';
    let end = expression
        .strip_prefix("(?")
        .map(|rest| rest.trim_start_matches(is_flag))
        .and_then(|rest| rest.strip_prefix(')'))
        .map_or(0, |rest| expression.len() - rest.len());
    expression.split_at(end)
}

/// Parent prefix and child path as one path.
fn join(parent: &Name, child: &Name) -> Name {
    if child.as_str() == "/" || child.is_empty() {
        return parent.clone();
    }
    let parent = parent.strip_suffix('/').unwrap_or(parent);
    let slash = if child.starts_with('/') { "" } else { "/" };
    format!("{parent}{slash}{child}").into()
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any path"),
            Self::Exact(path) => write!(f, "exact {path}"),
            Self::Prefix(path) => write!(f, "prefix {path}"),
            Self::Regex(path) => write!(f, "regex {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }
    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }
    fn regex(path: &str) -> PathMatch {
        PathMatch::Regex(path.into())
    }

    #[test]
    fn r93_rows() {
        for (parent, child, expected) in [
            (PathMatch::Any, exact("/a"), Ok(exact("/a"))),
            (prefix("/a"), PathMatch::Any, Ok(prefix("/a"))),
            (prefix("/product-1"), prefix("/foo"), Ok(prefix("/product-1/foo"))),
            (prefix("/"), prefix("/foo"), Ok(prefix("/foo"))),
            (prefix("/a/"), prefix("/b"), Ok(prefix("/a/b"))),
            (prefix("/a"), prefix("b"), Ok(prefix("/a/b"))),
            (prefix("/a"), prefix("/"), Ok(prefix("/a"))),
            (prefix("/api"), prefix("/api/v1"), Ok(prefix("/api/api/v1"))),
            (prefix("/a"), exact("/b"), Ok(exact("/a/b"))),
            (prefix("/a.b"), regex("/c.*"), Ok(regex("/a\\.b/c.*"))),
            (prefix("/a"), regex("/b|/c"), Ok(regex("/a(?:/b|/c)"))),
            (prefix("/a/"), regex("/b/(c|d)[|(]"), Ok(regex("/a/b/(c|d)[|(]"))),
            (prefix("/a/"), regex("(?i)/b"), Ok(regex("/a(?i)/b"))),
            (prefix("/a"), regex("^b$"), Ok(regex("/a/b$"))),
            (prefix("/"), regex(".*/b"), Ok(regex(".*/b"))),
            (exact("/a"), exact("/a"), Ok(exact("/a"))),
            (exact("/a"), PathMatch::Any, Ok(exact("/a"))),
            (exact("/a"), exact("/b"), Err(PathConflict)),
            (exact("/a"), prefix("/a"), Err(PathConflict)),
            (regex("/a.*"), exact("/a"), Err(PathConflict)),
            (regex("/a.*"), PathMatch::Any, Ok(regex("/a.*"))),
        ] {
            assert_eq!(parent.combine(&child), expected, "R93 {parent} over {child}");
        }
    }

    /// A final route matches what all levels match: no alternative of a child leaves its parent's prefix.
    #[test]
    fn r93_an_expression_stays_below_the_prefix_of_its_parent() {
        for (parent, child, inside) in [
            ("/a", ".*", "/a/x"),
            ("/a/", ".*", "/a/x"),
            ("/a/", "/b|c|(d|/e)", "/a/b"),
            ("/a/", "/b|c|(d|/e)", "/a/c"),
            ("/a/", "/b|c|(d|/e)", "/a/d"),
            ("/a", "|/b", "/a/b"),
            ("/a.b", "[^/]*|\\||[]|]/x", "/a.b]/x"),
        ] {
            let Ok(PathMatch::Regex(expression)) = prefix(parent).combine(&regex(child)) else { unreachable!() };
            let combined = regex::Regex::new(&format!("^(?:{expression})$")).unwrap();
            let shown = format!("{parent} over {child} is {expression}");
            assert!(combined.is_match(inside), "{shown}: {inside} belongs to it");
            for path in ["/b", "/c", "/x", "/ab", "/acc", "/ac", "/axb", "/aXb", "/d", ""] {
                assert!(!combined.is_match(path) || path.starts_with(parent), "{shown}: {path} is not below {parent}");
            }
        }
    }

    #[test]
    fn r97_specificity_rows() {
        let mut paths = [PathMatch::Any, prefix("/a"), regex("/x.*"), exact("/a"), prefix("/a/b"), exact("/a/b")];
        paths.sort_by_key(PathMatch::specificity);
        assert_eq!(paths, [exact("/a/b"), exact("/a"), regex("/x.*"), prefix("/a/b"), prefix("/a"), PathMatch::Any]);
    }
}
