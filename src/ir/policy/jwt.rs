//! JWTPolicy: which tokens pass, and what becomes of their claims.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reference::{DestinationRef, HttpUrl};
use super::{Place, TextPattern};
use crate::ir::upstream::Server;
use crate::model::{Name, ObjectRef};

/// Which tokens pass, with everything that gateways need for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Verification {
    /// Of the policy and of what gateways hold of it for all routes: its providers, mode and lane. Others have other
    /// names, so both can be held at once, and a route always means what it was made with.
    pub name: Name,
    /// Whose it is.
    pub policy: ObjectRef,
    /// What is verified.
    pub jwt: Jwt<KeySource>,
}

impl Verification {
    /// The name of a provider, unique among all; in it no character means something to Envoy.
    #[must_use]
    pub fn provider(&self, index: usize) -> Name {
        format!("{}/{index}", self.name).into()
    }

    /// Whether a claim whose name is a URL becomes a header.
    #[must_use]
    pub fn reads_url_claims(&self) -> bool {
        self.jwt.providers.values().flat_map(|provider| provider.claims_to_headers.values()).any(|claim| claim.is_url)
    }

    /// What gateways ask for it.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.jwt.providers.values().filter_map(|provider| match &provider.keys {
            KeySource::Inline(_) => None,
            KeySource::Remote(fetch) => Some(&fetch.server),
        })
    }
}

/// Where a gateway has keys from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeySource {
    /// They come with the configuration.
    Inline(Jwks),
    /// It fetches them.
    Remote(Fetch),
}

/// Keys that a gateway fetches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fetch {
    /// What it asks for.
    pub url: HttpUrl,
    /// Whom it asks.
    pub server: Server,
    /// How long it keeps them, at least 1 ms.
    pub cache: Duration,
    /// For one fetch, at least 1 ms.
    pub timeout: Duration,
    /// Fetch before the first request.
    pub fetch_early: bool,
}

/// Which tokens pass. `K` says where keys come from: as it is written, or once that was looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Jwt<K = Keys> {
    /// Issuers by name, at least one; a token of any of them suffices.
    pub providers: BTreeMap<Name, Provider<K>>,
    /// What becomes of requests without a valid token.
    pub mode: Mode,
    /// Where the policy runs.
    pub place: Place,
    /// Whether the route is chosen again after verification.
    pub clear_route_cache: ClearRouteCache,
    /// All must hold; in every mode, so a request without a token is refused where there is one.
    pub claims: BTreeSet<ClaimCheck>,
    /// All must be in the `scope` claim; in every mode.
    pub scopes: BTreeSet<Name>,
}

/// What becomes of requests without a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// They are refused.
    RequireValid,
    /// Requests without a token pass.
    AllowMissing,
    /// Requests without a token or with a bad one pass.
    AllowMissingOrFailed,
}

/// Whether the route is chosen again after verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClearRouteCache {
    /// Where it can make a difference.
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Provider<K = Keys> {
    /// What `iss` must be.
    pub issuer: Option<Name>,
    /// One of them must be in `aud`; empty means anything.
    pub audiences: BTreeSet<Name>,
    /// Headers that hold a token, in lower case, in the order written. With the next one also empty, the usual places.
    pub headers: Vec<TokenHeader>,
    /// Query parameters that hold a token.
    pub parameters: Vec<Name>,
    /// What tokens are verified with.
    pub keys: K,
    /// Claims that become request headers, by header in lower case; no header occurs twice in a policy.
    pub claims_to_headers: BTreeMap<Name, HeaderClaim>,
    /// Header for the whole payload, in lower case.
    pub payload_header: Option<Name>,
    /// Whether the token stays in the request.
    pub keep_token: bool,
    /// Tolerance for times in tokens, in seconds.
    pub clock_skew_seconds: u32,
}

/// A header that holds a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenHeader {
    /// Lower case.
    pub name: Name,
    /// What stands before the token.
    pub prefix: Name,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Keys {
    /// They are written in the policy.
    Inline(Jwks),
    /// An entry of a Secret: public keys in PEM or a JWKS document.
    Secret {
        /// The Secret.
        secret: ObjectRef,
        /// Its entry.
        key: Name,
    },
    /// They are fetched.
    Remote(RemoteKeys),
}

/// Public keys as a JWKS document in canonical form: at least one key, each checked, and no private part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Jwks(pub Name);

/// Keys that are fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RemoteKeys {
    /// Where.
    pub url: HttpUrl,
    /// What serves it; absent means the host of the URL. Its TLS is its own, whatever the URL's scheme.
    pub destination: Option<DestinationRef>,
    /// How long they are kept, at least 1 ms.
    pub cache: Duration,
    /// For one fetch, at least 1 ms.
    pub timeout: Duration,
    /// Fetch before the first request.
    pub fetch_early: bool,
}

/// A claim that becomes a request header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderClaim {
    /// The claim.
    pub claim: Name,
    /// The name is a URL, so its dots separate nothing.
    pub is_url: bool,
    /// Keep values that the header has.
    pub append: bool,
}

/// What a token must claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimCheck {
    /// Names from the outside in; at least one, none empty.
    pub path: Vec<Name>,
    /// One of these matches; empty does not restrict. With the next one also empty nothing is checked, which cannot occur.
    pub values: BTreeSet<ClaimValue>,
    /// None of these matches; an absent claim satisfies that.
    pub not_values: BTreeSet<ClaimValue>,
}

/// A value of a claim, or of an item of a claim that is a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimValue {
    /// For claims that are texts.
    pub text: TextPattern,
    /// For claims that are none, where the text says one.
    pub literal: Option<Literal>,
}

/// A value that is no text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Literal {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Decimal),
}

/// A number as JSON writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decimal(Name);

impl Decimal {
    /// A number, if the text is one as JSON writes it and is finite.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number: serde_json::Number = serde_json::from_str(text).ok()?;
        // White space around it is JSON, and no part of a number.
        (number.as_f64()?.is_finite() && text.trim() == text).then(|| Self(text.into()))
    }

    /// The nearest number of 64 bits.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.0.parse().unwrap_or_default()
    }
}
