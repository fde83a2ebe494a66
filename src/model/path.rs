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
            (Self::Prefix(parent), Self::Regex(child)) => {
                let parent = parent.strip_suffix('/').unwrap_or(parent);
                let slash = if child.starts_with('/') || child.starts_with("^/") || !child_is_literal_start(child) {
                    ""
                } else {
                    "/"
                };
                let child = child.strip_prefix('^').unwrap_or(child);
                // A group keeps an alternation of the child from escaping the parent's prefix.
                let child = if child.contains('|') { format!("(?:{child})") } else { child.to_owned() };
                Ok(Self::Regex(format!("{}{slash}{child}", regex::escape(parent)).into()))
            }
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

/// Whether an expression begins with a literal character, so that a `/` may be missing before it.
fn child_is_literal_start(expression: &str) -> bool {
    expression.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')
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

    #[test]
    fn r97_specificity_rows() {
        let mut paths = [PathMatch::Any, prefix("/a"), regex("/x.*"), exact("/a"), prefix("/a/b"), exact("/a/b")];
        paths.sort_by_key(PathMatch::specificity);
        assert_eq!(paths, [exact("/a/b"), exact("/a"), regex("/x.*"), prefix("/a/b"), prefix("/a"), PathMatch::Any]);
    }
}
