//! Path matches: how a parent's and a child's combine, and which comes first.

use std::cmp::Reverse;
use std::fmt;

use super::{Name, expression};

/// What a request's path (without the query) must be.
///
/// # Rule
/// R73, R93.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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

/// Why two levels of a chain have no path together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncombinable {
    /// They exclude each other.
    Conflict,
    /// What they make together is no expression that can be used; one sentence for the author.
    Expression(String),
}

impl PathMatch {
    /// What a parent's path and a child's path match together.
    ///
    /// Prefixes are concatenated: the parent's loses a trailing `/`, the child's starts with `/`, and a child `/` adds
    /// nothing. Every operation that a child's matcher can bring is in the table of R93.
    ///
    /// # Errors
    /// [`Uncombinable::Conflict`] where the table says so, [`Uncombinable::Expression`] where the result fails
    /// [`expression::check`].
    ///
    /// # Rule
    /// R93, D17.
    pub fn combine(&self, child: &Self) -> Result<Self, Uncombinable> {
        match (self, child) {
            (Self::Any, child) => Ok(child.clone()),
            (parent, Self::Any) => Ok(parent.clone()),
            (Self::Prefix(parent), Self::Prefix(child)) => Ok(Self::Prefix(join(parent, child))),
            (Self::Prefix(parent), Self::Exact(child)) => Ok(Self::Exact(join(parent, child))),
            (Self::Prefix(parent), Self::Regex(child)) => {
                join_regex(parent, child).map(Self::Regex).map_err(Uncombinable::Expression)
            }
            (Self::Exact(parent), Self::Exact(child)) if parent == child => Ok(self.clone()),
            (Self::Exact(_) | Self::Regex(_), _) => Err(Uncombinable::Conflict),
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
fn join_regex(parent: &Name, child: &Name) -> Result<Name, String> {
    let stem = parent.strip_suffix('/').unwrap_or(parent);
    let ends_in_slash = stem != parent.as_str() && !stem.is_empty();
    // The whole path is matched, so an anchor at the head says nothing; behind the prefix it would match nothing.
    let parts: Vec<String> = expression::alternatives(child)?
        .into_iter()
        .map(|expression::Alternative { flags, rest }| {
            let is_literal = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let slash = if !rest.starts_with('/') && (is_literal || ends_in_slash) { "/" } else { "" };
            format!("{flags}{slash}{rest}")
        })
        .collect();
    let stem = regex::escape(stem);
    let joined = match parts.as_slice() {
        [only] => format!("{stem}{only}"),
        several => format!("{stem}(?:{})", several.join("|")),
    };
    expression::check(&joined)?;
    Ok(joined.into())
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
            (exact("/a"), exact("/b"), Err(Uncombinable::Conflict)),
            (exact("/a"), prefix("/a"), Err(Uncombinable::Conflict)),
            (regex("/a.*"), exact("/a"), Err(Uncombinable::Conflict)),
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

    /// Each of these, taken as text behind the prefix, would be an expression of its own or change the prefix.
    #[test]
    fn r93_no_expression_breaks_out_of_the_prefix_of_its_parent() {
        for child in ["a)(?:b", ")(", "x)|(?:.*", "/x)|(/.*", "*", "?/x", "{0}", "(?x)a #", "[[:alpha:]", ""] {
            let combined = prefix("/team-a").combine(&regex(child));
            assert!(matches!(combined, Err(Uncombinable::Expression(_))), "{child}: {combined:?}");
        }
        for (child, expected) in [
            ("^?/x", "/team\\-a^?/x"),
            ("^*b", "/team\\-a^*b"),
            ("[[:alpha:]|x]/y|z", "/team\\-a(?:[[:alpha:]|x]/y|/z)"),
            ("^(?i)\\Ab|c", "/team\\-a(?:(?i)/b|/c)"),
        ] {
            assert_eq!(prefix("/team-a").combine(&regex(child)), Ok(regex(expected)), "{child}");
        }
    }

    #[test]
    fn r93_prefix_and_expression_together_keep_to_the_limits_of_one_expression() {
        let long = "/a".repeat(expression::MAX_LENGTH / 2);
        assert_eq!(expression::check(&long), Ok(0));
        let Err(Uncombinable::Expression(reason)) = prefix("/b").combine(&regex(&long)) else { unreachable!() };
        assert!(reason.contains("longer"), "{reason}");
        assert!(matches!(prefix("/").combine(&regex("^")), Err(Uncombinable::Expression(_))), "nothing is left");
    }

    #[test]
    fn r97_specificity_rows() {
        let mut paths = [PathMatch::Any, prefix("/a"), regex("/x.*"), exact("/a"), prefix("/a/b"), exact("/a/b")];
        paths.sort_by_key(PathMatch::specificity);
        assert_eq!(paths, [exact("/a/b"), exact("/a"), regex("/x.*"), prefix("/a/b"), prefix("/a"), PathMatch::Any]);
    }
}
