//! ExtAuthPolicy: how a request shows who sends it.
//!
//! [`ExtAuth`] is what a policy says, with names of Secrets and servers; [`Authorization`] is what routes get, with these
//! followed. Passwords and keys are [`Sealed`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jwt::{Keys, Verification};
use super::reference::{DestinationRef, HostPort, HttpUrl};
use super::sealed::Sealed;
use crate::ir::upstream::Server;
use crate::model::{FieldPath, Labels, Name, ObjectRef, SecretBytes};

/// How a request is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtAuth {
    /// By a server of the author's own.
    Custom(CustomAuth),
    /// By methods that are built in.
    Chain(AuthChain),
}

/// A check by a server of the author's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomAuth {
    /// The ExtAuthServer; absent means the oldest of the workspace.
    pub server: Option<ObjectRef>,
    /// What the server is told beside the request; for gRPC servers.
    pub context: BTreeMap<Name, Name>,
}

/// Methods that are built in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthChain {
    /// The methods that count, in the order written; at least one.
    pub methods: Vec<AuthMethod>,
    /// Positions of methods that must pass each by itself, ascending.
    pub mandatory: Vec<usize>,
    /// What must hold beside that, over methods of which [`Method::can_be_optional`] holds.
    pub rule: Option<AuthRule>,
    /// Answer 401 where a method would redirect to a login.
    pub fail_on_redirect: bool,
}

/// A method with its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthMethod {
    /// Unique within the policy.
    pub name: Name,
    /// Where it is written.
    pub field: FieldPath,
    /// What it is.
    pub method: Method,
}

/// A combination of methods, by their positions unless otherwise said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AuthRule<M = usize> {
    /// It passes.
    Method(M),
    /// It does not hold.
    Not(Box<AuthRule<M>>),
    /// All hold; at least two.
    All(Vec<AuthRule<M>>),
    /// One holds; at least two.
    Any(Vec<AuthRule<M>>),
}

/// A way to show who sends a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// User name and password.
    Basic(Basic),
    /// A key in a header.
    ApiKey(ApiKey),
    /// An access token that is a JWT.
    AccessToken(AccessToken),
    /// What a JWTPolicy on the same target found. Below an `or` or a `not` that policy must let every request pass.
    Jwt,
    /// A gRPC server of the author's own.
    Grpc(GrpcServer),
    /// An HTTP server of the author's own.
    Http(HttpServer),
}

impl Method {
    /// Whether a request may pass without it, so that it can stand below an `or` or a `not`.
    #[must_use]
    pub fn can_be_optional(&self) -> bool {
        matches!(self, Self::Basic(_) | Self::ApiKey(_) | Self::AccessToken(_) | Self::Jwt)
    }
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Basic {
    /// What a browser shows.
    pub realm: Option<Name>,
    /// Every user with the 20 bytes of the SHA-1 of the password; at least one, no name with a colon or a line break.
    pub users: Sealed<BTreeMap<Name, SecretBytes>>,
}

/// A key in a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey {
    /// Lower case.
    pub header: Name,
    /// Secrets by name, with the place that names each.
    pub secrets: BTreeMap<ObjectRef, FieldPath>,
    /// Further Secrets by label; never empty.
    pub secret_labels: Option<Labels>,
    /// Request headers, in lower case, out of other entries of the client's Secret.
    pub headers: BTreeMap<Name, SecretEntry>,
}

/// An entry of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Its name.
    pub name: Name,
    /// A key without this entry is not valid.
    pub required: bool,
}

/// An access token that is a JWT, in the usual places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessToken {
    /// What `iss` must be.
    pub issuer: Option<Name>,
    /// What tokens are verified with; not in a Secret.
    pub keys: Keys,
    /// All must be in the `scope` claim.
    pub scopes: BTreeSet<Name>,
}

/// A server that speaks Envoy's authorization protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrpcServer {
    /// Where it is.
    pub address: HostPort,
    /// Speak TLS.
    pub tls: bool,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Retries.
    pub retries: Option<CheckRetries>,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
}

/// Retries of a check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckRetries {
    /// After the first try.
    pub attempts: u32,
    /// Before the first retry, at least 1 ms.
    pub base_interval: Duration,
    /// At most, and not less than the base; absent means ten times as much.
    pub max_interval: Option<Duration>,
}

/// A server that answers requests like the client's. Header names are lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpServer {
    /// Where it is; no query.
    pub url: HttpUrl,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Headers of the client to forward.
    pub request_headers: BTreeSet<Name>,
    /// Headers to set, by name.
    pub added_headers: BTreeMap<Name, Name>,
    /// Headers of the answer added to the upstream request.
    pub upstream_append: BTreeSet<Name>,
    /// Headers of the answer that replace those of the upstream request.
    pub upstream_overwrite: BTreeSet<Name>,
    /// Headers of the answer that the client gets on denial.
    pub client_on_denied: BTreeSet<Name>,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
}

/// ExtAuthServer: how gateways ask a server of the author's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthServer {
    /// A Service or VirtualDestination; absent means the Service `ext-auth-service` in `gloo-mesh` of the gateway's
    /// cluster.
    pub destination: Option<DestinationRef>,
    /// What it speaks.
    pub protocol: Protocol,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
    /// Send the body too.
    pub body: Option<BodyToServer>,
    /// Choose the route again after a permitted check that changed headers.
    pub clear_route_cache: bool,
    /// Status when the server cannot be reached: one that Envoy has.
    pub status_on_error: u16,
    /// Further prefix of statistics.
    pub stat_prefix: Option<Name>,
}

/// What an authorization server speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Envoy's authorization protocol.
    Grpc,
    /// HTTP. Header names are lower case.
    Http {
        /// Prefix for the request's path; starts with a slash.
        path_prefix: Option<Name>,
        /// Headers of the client to forward.
        request_headers: BTreeSet<Name>,
        /// Headers to set, by name.
        added_headers: BTreeMap<Name, Name>,
        /// Headers of the answer copied onto the upstream request.
        upstream_headers: BTreeSet<Name>,
        /// Headers of the answer that the client gets on denial; empty means all but `Host`.
        client_headers: BTreeSet<Name>,
    },
}

/// How much of a body a server gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyToServer {
    /// Above 0; larger bodies are answered 413.
    pub max_bytes: u32,
    /// Send the first bytes in place of 413.
    pub allow_partial: bool,
    /// Send raw bytes; gRPC only.
    pub as_bytes: bool,
}

/// What routes get of a policy. All of it must hold for a request to pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Authorization {
    /// Whose it is.
    pub policy: ObjectRef,
    /// Servers that are asked.
    pub checks: Vec<Check>,
    /// Access tokens: those that a request must have, and those that `rule` asks about.
    pub tokens: Option<Arc<AccessTokens>>,
    /// User name and password.
    pub basic: Option<BasicCheck>,
    /// A key in a header.
    pub key: Option<KeyCheck>,
    /// What must hold beside that.
    pub rule: Option<AuthRule<Shown>>,
}

/// What a request shows, as a rule asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Shown {
    /// A user of [`Authorization::basic`].
    User,
    /// A token of this provider, by its position among those of [`Authorization::tokens`], with its scopes.
    Token(usize),
    /// One of these keys in this header, in lower case.
    Key(Name, Sealed<Vec<ApiClient>>),
    /// A token of the JWTPolicy on the same target.
    Jwt,
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Check {
    /// Who is asked.
    pub server: Server,
    /// For a check, at least 1 ms.
    pub timeout: Duration,
    /// What the server is told beside the request; for gRPC servers.
    pub context: BTreeMap<Name, Name>,
    /// What only the filter can have, for all routes.
    pub settings: CheckSettings,
    /// What it speaks.
    pub call: Call,
}

/// What a server speaks, and what is particular to that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Call {
    /// Envoy's authorization protocol.
    Grpc(Option<CheckRetries>),
    /// Requests like the client's.
    Http(HttpCall),
}

/// A request to a server. Header names are lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpCall {
    /// Which path is asked.
    pub path: CallPath,
    /// Headers to set, by name.
    pub added_headers: BTreeMap<Name, Name>,
    /// Headers of the answer that replace those of the upstream request.
    pub upstream_headers: BTreeSet<Name>,
    /// Headers of the answer added to the upstream request.
    pub upstream_append: BTreeSet<Name>,
    /// Headers of the answer that the client gets on denial; empty means all but `Host`.
    pub client_headers: BTreeSet<Name>,
}

/// Which path a server is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CallPath {
    /// That of the request behind this, which starts with a slash or is empty.
    Prefix(Name),
    /// This.
    Fixed(Name),
}

/// What of a check a filter has for all routes, so that checks with other settings need another filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckSettings {
    /// Let requests pass when the server fails.
    pub failure_mode_allow: bool,
    /// Status when the server cannot be reached: one that Envoy has.
    pub status_on_error: u16,
    /// Further prefix of statistics.
    pub stat_prefix: Option<Name>,
    /// Send the body too.
    pub body: Option<BodyToServer>,
    /// Over HTTP, with these headers of the client, in lower case; absent means gRPC.
    pub http: Option<BTreeSet<Name>>,
}

/// Access tokens of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessTokens {
    /// A provider for each, in the order of their names.
    pub verification: Verification,
    /// By provider, the scopes that its tokens must have.
    pub scopes: Vec<BTreeSet<Name>>,
    /// The providers of which a request must have a token.
    pub mandatory: BTreeSet<usize>,
}

/// User name and password on routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BasicCheck {
    /// What a browser shows.
    pub realm: Option<Name>,
    /// Who may pass, as in [`Basic`].
    pub users: Sealed<BTreeMap<Name, SecretBytes>>,
    /// Let requests pass that show no user; those that show a wrong one do not.
    pub is_optional: bool,
}

/// A key in a header on routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyCheck {
    /// Lower case.
    pub header: Name,
    /// Who may pass; no two have the same key.
    pub clients: Sealed<Vec<ApiClient>>,
    /// Request headers, in lower case, that come from the client's Secret alone.
    pub headers: BTreeSet<Name>,
    /// Let all requests pass, as a rule asks for the key; only the headers are set.
    pub is_optional: bool,
}

/// Someone who has a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiClient {
    /// The Secret.
    pub secret: ObjectRef,
    /// Visible characters.
    pub key: SecretBytes,
    /// Request headers with their values, which are texts without control characters.
    pub headers: BTreeMap<Name, SecretBytes>,
}

/// A place of an [`Authorization`] in the chain of filters that has room for one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Access tokens.
    Tokens,
    /// User name and password.
    Basic,
    /// A key in a header.
    Key,
    /// A rule over several.
    Rule,
}

impl CheckSettings {
    /// Whether routes that were made for the other may meet these for a moment: a server is asked in the same way, and as
    /// much passes when it fails.
    #[must_use]
    pub fn stands_in_for(&self, other: &Self) -> bool {
        self.failure_mode_allow == other.failure_mode_allow && self.body == other.body && self.http == other.http
    }
}

impl Authorization {
    /// What gateways ask for it.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        let tokens = self.tokens.iter().flat_map(|tokens| tokens.verification.servers());
        self.checks.iter().map(|check| &check.server).chain(tokens)
    }

    /// The places that it takes.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        [
            (Place::Tokens, self.tokens.is_some()),
            (Place::Basic, self.basic.is_some()),
            (Place::Key, self.key.is_some()),
            (Place::Rule, self.rule.is_some()),
        ]
        .into_iter()
        .filter_map(|(place, is_taken)| is_taken.then_some(place))
    }

    /// Whether a server is asked for a path of its own.
    #[must_use]
    pub fn asks_fixed_paths(&self) -> bool {
        self.checks.iter().any(|check| match &check.call {
            Call::Http(call) => matches!(call.path, CallPath::Fixed(_)),
            Call::Grpc(_) => false,
        })
    }

    /// Whether it asks what a JWTPolicy on the same target found.
    #[must_use]
    pub fn asks_jwt(&self) -> bool {
        self.rule.iter().flat_map(AuthRule::methods).any(|shown| *shown == Shown::Jwt)
    }

    /// Whether a request without a token of the JWTPolicy can satisfy it.
    #[must_use]
    pub fn passes_without_jwt(&self) -> bool {
        self.rule.as_ref().is_none_or(|rule| match rule {
            AuthRule::Method(shown) => *shown != Shown::Jwt,
            AuthRule::All(rules) => !rules.contains(&AuthRule::Method(Shown::Jwt)),
            AuthRule::Not(_) | AuthRule::Any(_) => true,
        })
    }

    /// Roughly the bytes of passwords and keys on each route.
    #[must_use]
    pub fn bytes_of_secrets(&self) -> usize {
        let users = self.basic.iter().filter_map(|basic| basic.users.get()).flatten();
        let users: usize = users.map(|(user, hash)| user.len() + hash.expose().len()).sum();
        let rule = self.rule.iter().flat_map(AuthRule::methods).filter_map(|shown| match shown {
            Shown::Key(_, clients) => clients.get(),
            Shown::User | Shown::Token(_) | Shown::Jwt => None,
        });
        let key = self.key.iter().filter_map(|key| key.clients.get());
        let clients = key.chain(rule).flatten().map(|client| {
            let headers = client.headers.iter().map(|(name, value)| name.len() + value.expose().len() + 16);
            2 * (client.key.expose().len() + 64) + headers.sum::<usize>()
        });
        users + clients.sum::<usize>()
    }

    /// Whether its passwords and keys are there. In what was read from a file they are not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.basic.as_ref().is_none_or(|basic| basic.users.get().is_some())
            && self.key.as_ref().is_none_or(|key| key.clients.get().is_some())
            && self.rule.iter().flat_map(AuthRule::methods).all(|shown| match shown {
                Shown::Key(_, clients) => clients.get().is_some(),
                Shown::User | Shown::Token(_) | Shown::Jwt => true,
            })
    }

    /// The same with the passwords and keys of another form of the policy; without any where it has none for them.
    #[must_use]
    pub fn with_secrets_of(&self, now: Option<&Self>) -> Self {
        let mut same = self.clone();
        if let Some(basic) = &mut same.basic {
            basic.users = now.and_then(|now| now.basic.as_ref()).map(|now| now.users.clone()).unwrap_or_default();
        }
        if let Some(key) = &mut same.key {
            let now = now.and_then(|now| now.key.as_ref());
            let now = now.filter(|now| (&now.header, &now.headers) == (&key.header, &key.headers));
            key.clients = now.map(|now| now.clients.clone()).unwrap_or_default();
        }
        if let Some(rule) = &mut same.rule {
            // Several keys may be in one header: which is whose only the whole rule says.
            let other = now.and_then(|now| now.rule.as_ref()).filter(|other| other.is_alike(rule));
            let others: Vec<&Shown> = other.map(AuthRule::methods).unwrap_or_default();
            for (index, shown) in rule.methods_mut().into_iter().enumerate() {
                if let Shown::Key(_, kept) = shown {
                    *kept = match others.get(index) {
                        Some(Shown::Key(_, clients)) => clients.clone(),
                        _ => Sealed::default(),
                    };
                }
            }
        }
        same
    }
}

impl AuthRule<Shown> {
    /// Whether it asks for the same, but for which keys there are.
    fn is_alike(&self, other: &Self) -> bool {
        let all = |own: &[Self], others: &[Self]| {
            own.len() == others.len() && own.iter().zip(others).all(|(own, other)| own.is_alike(other))
        };
        match (self, other) {
            (Self::Method(Shown::Key(header, _)), Self::Method(Shown::Key(other, _))) => header == other,
            (Self::Method(shown), Self::Method(other)) => shown == other,
            (Self::Not(own), Self::Not(other)) => own.is_alike(other),
            (Self::All(own), Self::All(other)) | (Self::Any(own), Self::Any(other)) => all(own, other),
            _ => false,
        }
    }
}

impl<M> AuthRule<M> {
    /// Its methods in order; some several times.
    #[must_use]
    pub fn methods(&self) -> Vec<&M> {
        match self {
            Self::Method(method) => vec![method],
            Self::Not(inner) => inner.methods(),
            Self::All(rules) | Self::Any(rules) => rules.iter().flat_map(Self::methods).collect(),
        }
    }

    fn methods_mut(&mut self) -> Vec<&mut M> {
        match self {
            Self::Method(method) => vec![method],
            Self::Not(inner) => inner.methods_mut(),
            Self::All(rules) | Self::Any(rules) => rules.iter_mut().flat_map(Self::methods_mut).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn authorization(key: Option<&str>) -> Authorization {
        let client = |key: &str| ApiClient {
            secret: ObjectRef::new(Kind::Secret, "c1", "shop", "key"),
            key: SecretBytes::new(key.as_bytes()),
            headers: [].into(),
        };
        let clients = || key.map(|key| Sealed::new(vec![client(key)])).unwrap_or_default();
        let users = [(Name::from("u"), SecretBytes::new(b"hash"))].into();
        Authorization {
            policy: ObjectRef::new(Kind::ExtAuthPolicy, "c1", "shop", "p"),
            checks: Vec::new(),
            tokens: None,
            basic: key.map(|_| BasicCheck { realm: None, users: Sealed::new(users), is_optional: true }),
            key: Some(KeyCheck { header: "k".into(), clients: clients(), headers: [].into(), is_optional: false }),
            rule: Some(AuthRule::Any(vec![
                AuthRule::Method(Shown::User),
                AuthRule::Method(Shown::Key("k".into(), clients())),
            ])),
        }
    }

    #[test]
    fn what_was_kept_in_a_file_has_the_secrets_of_now_or_none() {
        let kept = serde_json::to_string(&authorization(Some("CANARY"))).expect("JSON");
        assert!(!kept.contains("CANARY") && !kept.contains("hash"), "{kept}");
        let kept: Authorization = serde_json::from_str(&kept).expect("read");
        assert!(!kept.is_complete());
        let now = authorization(Some("other"));
        assert_eq!(kept.with_secrets_of(Some(&now)), now);
        assert_eq!(authorization(Some("withdrawn")).with_secrets_of(Some(&now)), now);
        assert!(!authorization(Some("withdrawn")).with_secrets_of(None).is_complete(), "the policy is gone");
        let mut elsewhere = now.clone();
        elsewhere.key = None;
        assert!(!now.with_secrets_of(Some(&elsewhere)).is_complete(), "the policy asks for no key any more");
    }

    #[test]
    fn each_key_of_a_rule_keeps_its_own_clients() {
        let key = |key: &str| match authorization(Some(key)).key {
            Some(check) => AuthRule::Method(Shown::Key("k".into(), check.clients)),
            None => panic!("a key"),
        };
        let with = |rule: AuthRule<Shown>| Authorization { rule: Some(rule), ..authorization(Some("a")) };
        let both = |staff: &str, admin: &str| {
            let user = || AuthRule::Method(Shown::User);
            with(AuthRule::All(vec![AuthRule::Any(vec![key(staff), user()]), AuthRule::Not(Box::new(key(admin)))]))
        };
        assert_eq!(both("old", "older").with_secrets_of(Some(&both("staff", "admin"))), both("staff", "admin"));
        let other = with(AuthRule::All(vec![key("staff"), AuthRule::Not(Box::new(key("admin")))]));
        assert!(!both("old", "older").with_secrets_of(Some(&other)).is_complete(), "another rule says nothing of them");
    }

    #[test]
    fn a_rule_says_whether_a_request_may_pass_without_a_token_of_the_jwt_policy() {
        let rule = |rule: AuthRule<Shown>| Authorization { rule: Some(rule), ..authorization(None) };
        let (jwt, user) = (AuthRule::Method(Shown::Jwt), AuthRule::Method(Shown::User));
        for (rule, asks, passes) in [
            (rule(jwt.clone()), true, false),
            (rule(AuthRule::All(vec![user.clone(), jwt.clone()])), true, false),
            (rule(AuthRule::Any(vec![user.clone(), jwt.clone()])), true, true),
            (rule(AuthRule::Not(Box::new(jwt))), true, true),
            (rule(user), false, true),
        ] {
            assert_eq!((rule.asks_jwt(), rule.passes_without_jwt()), (asks, passes), "{rule:?}");
        }
    }
}
