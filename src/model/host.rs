//! Host patterns: their syntax, how they overlap and which is more specific.

use std::fmt;

use super::Name;

/// A host pattern in lower case: `*`, a name, or a pattern whose first label starts with `*`.
///
/// # Rule
/// R68, R70; Envoy's virtual host domains take the same three forms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Name);

/// Why a text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is not a host: {reason}")]
pub struct HostError {
    host: String,
    reason: &'static str,
}

impl Host {
    /// Checks a host pattern and brings it to lower case.
    ///
    /// # Errors
    /// Says which part breaks the rules for DNS names (1 to 255 characters, labels of 1 to 63 letters, digits and
    /// hyphens), or that a `*` stands anywhere but at the head of the first label.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let fail = |reason| Err(HostError { host: text.to_owned(), reason });
        let host = text.to_ascii_lowercase();
        if host == "*" {
            return Ok(Self(host.into()));
        }
        if host.is_empty() || host.len() > 255 {
            return fail("a host has 1 to 255 characters");
        }
        let (wild, rest) = match host.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, host.as_str()),
        };
        if rest.contains('*') {
            return fail("a wildcard may only stand at the head of the first label, as in `*.example.com`");
        }
        let labels = rest.strip_suffix('.').unwrap_or(rest);
        for (index, label) in labels.split('.').enumerate() {
            let wild_head = wild && index == 0;
            if label.is_empty() && !wild_head {
                return fail("a label is empty");
            }
            if label.len() > 63 {
                return fail("a label is longer than 63 characters");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return fail("a label has letters, digits and hyphens only");
            }
            if label.ends_with('-') || (label.starts_with('-') && !wild_head) {
                return fail("a label neither starts nor ends with a hyphen");
            }
        }
        Ok(Self(host.into()))
    }

    /// A name that nobody writes: what gateways call something among themselves, in lower case. It need not be a DNS name.
    #[must_use]
    pub fn verbatim(name: &Name) -> Self {
        Self(name.clone())
    }

    /// The pattern that takes every host.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern as a shared name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// Whether the pattern takes more than one host.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether this pattern takes the given host (lower case, without a port).
    ///
    /// A wildcard needs at least one character in its place, as Envoy matches; a lone `*` takes everything.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => self.as_str() == host,
        }
    }

    /// The narrower of two overlapping patterns, or nothing when no host fits both.
    ///
    /// # Rule
    /// R64.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        let covers = |wide: &Self, narrow: &Self| match wide.0.strip_prefix('*') {
            Some(suffix) => match narrow.0.strip_prefix('*') {
                Some(narrow_suffix) => narrow_suffix.ends_with(suffix),
                None => wide.matches(narrow.as_str()) || suffix.is_empty(),
            },
            None => wide == narrow,
        };
        if covers(self, other) {
            Some(other.clone())
        } else if covers(other, self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// Among patterns that match one host, the greater key is the one Envoy picks: exact before wildcard,
    /// the longer wildcard before the shorter.
    ///
    /// # Rule
    /// R68.
    #[must_use]
    pub fn specificity(&self) -> (bool, usize) {
        (!self.is_wildcard(), self.0.len())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r70_syntax_rows() {
        for good in ["*", "www.example.com", "WWW.Example.com", "*.foo.com", "*-bar.foo.com", "localhost", "foo."] {
            assert!(Host::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "foo.*.com", "a*.com", "foo..com", "-a.com", "a-.com", "foo_bar.com", "foo.com:80", "http://foo"]
        {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Host::parse("WWW.Example.com").unwrap().as_str(), "www.example.com");
    }

    #[test]
    fn r64_overlap_rows() {
        for (a, b, expected) in [
            ("*.foo.com", "a.foo.com", Some("a.foo.com")),
            ("a.foo.com", "*.foo.com", Some("a.foo.com")),
            ("*", "a.foo.com", Some("a.foo.com")),
            ("*", "*.foo.com", Some("*.foo.com")),
            ("*", "*", Some("*")),
            ("*.foo.com", "*.a.foo.com", Some("*.a.foo.com")),
            ("*.foo.com", "foo.com", None),
            ("a.foo.com", "b.foo.com", None),
            ("*-bar.foo.com", "*.foo.com", Some("*-bar.foo.com")),
        ] {
            let overlap = Host::parse(a).unwrap().overlap(&Host::parse(b).unwrap());
            assert_eq!(overlap.as_ref().map(Host::as_str), expected, "{a} and {b}");
        }
    }

    #[test]
    fn r68_specificity_rows() {
        let key = |host: &str| Host::parse(host).unwrap().specificity();
        assert!(key("a.foo.com") > key("*.very.long.example.foo.com"));
        assert!(key("*.a.foo.com") > key("*.foo.com"));
        assert!(key("*.foo.com") > key("*"));
        assert!(!Host::parse("*.foo.com").unwrap().matches(".foo.com"));
    }
}
