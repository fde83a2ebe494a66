//! Who opens a stream, as far as a credential proves it.
//!
//! What a client states about itself is not here: see [`node`](super::node).
//!
//! # Rule
//! R193, for the form of an identity.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{Kind, Name, ObjectRef};

/// Longest name of a part of an identity, as Kubernetes has it.
const NAME_BYTES: usize = 253;

/// Who opened a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody was asked: whoever reaches the port may open streams.
    Anybody,
    /// The ServiceAccount that a credential proves.
    Account(ObjectRef),
    /// The same, and the Pod for which the credential was made out, by its name.
    Pod(ObjectRef, Name),
}

impl Caller {
    /// The ServiceAccount that is proven; none where nobody was asked.
    #[must_use]
    pub fn account(&self) -> Option<&ObjectRef> {
        match self {
            Self::Anybody => None,
            Self::Account(account) | Self::Pod(account, _) => Some(account),
        }
    }

    /// The name of the Pod that is proven, if one is.
    #[must_use]
    pub fn pod(&self) -> Option<&Name> {
        match self {
            Self::Anybody | Self::Account(_) => None,
            Self::Pod(_, pod) => Some(pod),
        }
    }
}

impl fmt::Display for Caller {
    /// The identity as a URI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Account(account) | Self::Pod(account, _) => {
                write!(f, "spiffe://{}/ns/{}/sa/{}", account.cluster, account.namespace, account.name)
            }
        }
    }
}

/// The ServiceAccount of a URI `spiffe://<cluster>/ns/<namespace>/sa/<account>`; none if it is another one.
#[must_use]
pub fn account_of_uri(uri: &str) -> Option<ObjectRef> {
    let mut parts = uri.strip_prefix("spiffe://")?.split('/');
    let (cluster, ns, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let (sa, name) = (parts.next()?, parts.next()?);
    (ns == "ns" && sa == "sa" && parts.next().is_none()).then(|| account(cluster, namespace, name)).flatten()
}

/// The ServiceAccount that `<cluster>/<namespace>/<account>` names; none if a part cannot be a name.
#[must_use]
pub fn account_of_path(path: &str) -> Option<ObjectRef> {
    let mut parts = path.split('/');
    let (cluster, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then(|| account(cluster, namespace, name)).flatten()
}

fn account(cluster: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_name = |text: &str| {
        (1..=NAME_BYTES).contains(&text.len()) && text.chars().all(is_plain) && text.chars().any(|c| c != '.')
    };
    [cluster, namespace, name]
        .into_iter()
        .all(is_name)
        .then(|| ObjectRef::new(Kind::ServiceAccount, cluster, namespace, name))
}

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a token, without the white space around it.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.trim_ascii());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The tokens that are accepted, by their digests, and whom each proves.
///
/// Tokens themselves are not kept. Looking one up takes a time that depends on its digest, which says nothing of other tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<TokenDigest, ObjectRef>);

impl Tokens {
    /// Reads lines `<cluster>/<namespace>/<account> <SHA-256 of the token, in hexadecimal digits>`. Empty lines, and those that
    /// begin with `#`, are skipped. An account may have several tokens, so that one can follow another.
    ///
    /// # Errors
    /// A part of a sentence, with the number of the line. No part of the line is quoted: it may be a token.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tokens = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let read = (words.next().and_then(account_of_path), words.next().and_then(TokenDigest::read), words.next());
            let (Some(account), Some(digest), None) = read else {
                return Err(format!(
                    "line {number} is not `<cluster>/<namespace>/<account> <SHA-256 of the token in 64 hexadecimal digits>`"
                ));
            };
            if tokens.get(&digest).is_some_and(|other| *other != account) {
                return Err(format!("line {number} gives the token of another account once more"));
            }
            tokens.insert(digest, account);
        }
        Ok(Self(tokens))
    }

    /// Whom a token proves.
    #[must_use]
    pub fn account(&self, token: &TokenDigest) -> Option<&ObjectRef> {
        self.0.get(token)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(account: Option<ObjectRef>) -> Option<String> {
        account.map(|account| account.to_string())
    }

    #[test]
    fn r193_identities_are_read_in_one_form_only() {
        let uri = "spiffe://c1/ns/edge/sa/web";
        assert_eq!(shown(account_of_uri(uri)).as_deref(), Some("ServiceAccount/edge/web@c1"));
        assert_eq!(Caller::Account(account_of_uri(uri).unwrap()).to_string(), uri);
        assert_eq!(account_of_path("c1/edge/web"), account_of_uri(uri));
        for other in [
            "",
            "c1/edge/web",
            "https://c1/ns/edge/sa/web",
            "spiffe://c1/ns/edge/sa/",
            "spiffe:///ns/edge/sa/web",
            "spiffe://c1/ns/edge/sa/web/more",
            "spiffe://c1/ns/edge/sa/web?x",
            "spiffe://c1/ns/ed ge/sa/web",
            "spiffe://c1/ns/../sa/web",
            "spiffe://c1/sa/edge/ns/web",
            "SPIFFE://c1/ns/edge/sa/web",
        ] {
            assert_eq!(account_of_uri(other), None, "{other}");
        }
        for other in ["", "c1/edge", "c1/edge/web/", "/edge/web", "c1//web", "c1/edge/we b"] {
            assert_eq!(account_of_path(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let digest = TokenDigest::of(b"secret\n");
        // What `printf secret | sha256sum` prints.
        assert_eq!(digest.to_string(), "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
        let text = format!("# the web gateway\n\nc1/edge/web {digest}\n c1/edge/web\t{}\n", TokenDigest::of(b"next"));
        let tokens = Tokens::read(&text).unwrap();
        for token in ["secret", "next"] {
            let account = tokens.account(&TokenDigest::of(token.as_bytes())).cloned();
            assert_eq!(shown(account).as_deref(), Some("ServiceAccount/edge/web@c1"), "{token}");
        }
        assert_eq!(tokens.account(&TokenDigest::of(b"")), None);
        assert_eq!(tokens.account(&TokenDigest::of(digest.to_string().as_bytes())), None, "a digest is no token");
    }

    #[test]
    fn bad_lines_of_tokens_are_told_by_number_and_never_quoted() {
        let good = format!("c1/edge/web {}", TokenDigest::of(b"secret"));
        for bad in [
            "c1/edge/web secret".to_owned(),
            "c1/edge/web".to_owned(),
            format!("c1/edge {}", TokenDigest::of(b"secret")),
            format!("{good} more"),
            good.replace("2bb8", "2bü"),
            good.replace("c1/edge/web", "c1/edge/other"),
        ] {
            let error = Tokens::read(&format!("{good}\n{bad}\n")).unwrap_err();
            assert!(error.starts_with("line 2 ") && !error.contains("secret") && !error.contains("2b"), "{error}");
        }
    }
}
