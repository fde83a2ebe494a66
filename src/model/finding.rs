//! Findings: what is wrong with an object, where, and what to do.
//!
//! A user's mistake is a value that travels beside the result, never an error that stops it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ObjectRef;

/// How bad a finding is for the object that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; the object does what it says.
    Info,
    /// In force in part, without effect, or beaten by an older object.
    Warning,
    /// Wrong content, or a reference or delegation that cannot be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $code:ident = $text:literal,)+) => {
        /// What a finding is about: one closed list, stable by name.
        ///
        /// The first codes, up to `Unsupported`, are those of R144 and in its order: where several hold for one
        /// route, the first is reported (R145).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])+ $code,)+
        }

        impl Code {
            /// All codes in their order.
            pub const ALL: &'static [Code] = &[$(Code::$code,)+];

            /// The stable text form.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)+ }
            }
        }
    };
}

codes! {
    /// An ancestor's workspace does not export its table to the descendant's workspace (R88). The delegating route answers 500 for what no valid child serves.
    DelegationNotExported = "DELEGATION_NOT_EXPORTED",
    /// The descendant's workspace does not import an ancestor's table (R88). As above.
    DelegationNotImported = "DELEGATION_NOT_IMPORTED",
    /// A selector item of a delegating route finds no child table (R88). As above.
    DelegationEmpty = "DELEGATION_EMPTY",
    /// A delegation re-enters a table that is already on its chain (R90). As above.
    DelegationCycle = "DELEGATION_CYCLE",
    /// A chain of more than 16 tables (R90), or a tree that is too large. As above.
    DelegationTooDeep = "DELEGATION_TOO_DEEP",
    /// No combination of a child route's matchers with its parents' can match (R94). As above.
    MatcherConflict = "MATCHER_CONFLICT",
    /// Nothing visible to the owner of the table that names the destination (R42). The route answers 500.
    DestinationNotFound = "DESTINATION_NOT_FOUND",
    /// The destination is visible to the naming table's owner, not to the root table's (R43). The route answers 500.
    DestinationNotVisible = "DESTINATION_NOT_VISIBLE",
    /// The destination's port is missing, ambiguous or unknown (R40). The route answers 500.
    DestinationPort = "DESTINATION_PORT",
    /// The weights of a route's destinations do not work out (R77). The route answers 500.
    Weights = "WEIGHTS",
    /// A Service of another cluster that federation does not cover (R156). The route answers 500 on that gateway.
    RemoteServiceNotFederated = "REMOTE_SERVICE_NOT_FEDERATED",
    /// A remote destination without a usable east-west gateway (R170), or a gateway Service that settings choose and that cannot be one (R185). A route answers 500 on gateways of other clusters; a backend is left out there.
    NoEastWestGateway = "NO_EAST_WEST_GATEWAY",
    /// A remote destination without a shared root of trust (R192). A route answers 500 on gateways of other clusters.
    NoSharedTrust = "NO_SHARED_TRUST",
    /// The destination's workspace is isolated from the gateway's owner (R47). The route answers 500 on that gateway.
    ServiceIsolated = "SERVICE_ISOLATED",
    /// A kind, action, matcher, destination or option that Chancery does not have. A route answers 500; a protecting policy fails closed; anything else is as if absent.
    Unsupported = "UNSUPPORTED",
    /// A file is not YAML, or is not readable. The objects that it held last stay in force.
    SyntaxError = "SYNTAX_ERROR",
    /// A file, a directory, or what a root table makes of its hosts, matchers and bodies goes beyond a limit that the
    /// message names. What lies beyond is not read or not served; a route with too large a body answers 500.
    LimitExceeded = "LIMIT_EXCEEDED",
    /// Two places define one object. The first in path order counts.
    DuplicateObject = "DUPLICATE_OBJECT",
    /// A field that this kind does not have. It is ignored.
    UnknownField = "UNKNOWN_FIELD",
    /// A kind or `apiVersion` that Chancery does not read. The object is ignored.
    UnknownKind = "UNKNOWN_KIND",
    /// A value of the wrong type, form or range. The part that holds it is invalid: of a table the route, of a policy the policy.
    InvalidField = "INVALID_FIELD",
    /// A field that means nothing without Istio, sidecars or cloud functions. It has no effect.
    NotApplicable = "NOT_APPLICABLE",
    /// The object lives in a namespace that no workspace owns, or that is not read for configuration (R21, R24). It has no effect.
    NoWorkspace = "NO_WORKSPACE",
    /// A kind that counts only in the admin namespace of the management cluster stands elsewhere (R17). It has no effect.
    NotInAdminNamespace = "NOT_IN_ADMIN_NAMESPACE",
    /// A folder, or an object, names a cluster without a `KubernetesCluster` (R3). Its objects have no effect.
    ClusterNotRegistered = "CLUSTER_NOT_REGISTERED",
    /// An API server does not serve a kind, because its CustomResourceDefinition is missing or older. There are no objects of it;
    /// those that were read before stay in force.
    KindNotServed = "KIND_NOT_SERVED",
    /// The CustomResourceDefinition of a kind is that of another version of Chancery. Objects of it go on as they are.
    DefinitionOutdated = "DEFINITION_OUTDATED",
    /// An API server does not answer (R11). What was read last stays in force.
    ClusterUnreachable = "CLUSTER_UNREACHABLE",
    /// An API server refuses to let a kind or a Secret be read. What was read last stays in force.
    ClusterRefuses = "CLUSTER_REFUSES",
    /// The kubeconfig of a registered cluster is missing, unusable or leads elsewhere. Nothing new is read from the cluster; what
    /// was read last stays in force.
    ClusterCredential = "CLUSTER_CREDENTIAL",
    /// An older object has the namespace, host, listener, matcher or target that this one claims too.
    BeatenByOlder = "BEATEN_BY_OLDER",
    /// A reference finds its object only because one object of that name is visible in some other cluster (D5).
    AmbiguousReference = "AMBIGUOUS_REFERENCE",
    /// A table names a gateway that does not exist, or that may not serve it (R66).
    GatewayNotUsable = "GATEWAY_NOT_USABLE",
    /// No listener of the gateways that a table names lets its hosts in (R66).
    ListenerFilter = "LISTENER_FILTER",
    /// A gateway selects no workload, or a port is not one of the gateway Service (R54, R188).
    ListenerPort = "LISTENER_PORT",
    /// A child table that no bound root table reaches (R91). It serves nothing.
    OrphanTable = "ORPHAN_TABLE",
    /// A child table lacks the consent to be delegated to (R134).
    DelegationRefused = "DELEGATION_REFUSED",
    /// A `delegate` selects a table that has hosts (R84). That table is skipped.
    NotAChildTable = "NOT_A_CHILD_TABLE",
    /// A route that an earlier one hides completely. It is left out.
    RouteShadowed = "ROUTE_SHADOWED",
    /// A selector picks only objects on which it has no effect (R119, R120, R177).
    SelectorNoEffect = "SELECTOR_NO_EFFECT",
    /// A bare `*` host (D12).
    BareWildcardHost = "BARE_WILDCARD_HOST",
    /// A listener whose settings contradict each other or another listener (R55, R56).
    ListenerConflict = "LISTENER_CONFLICT",
    /// A route of a tree of tables with `failureMode: FREEZE_CONFIG` is invalid (R140, R141). The last accepted configuration of
    /// the whole tree stays in force; where none is kept, invalid routes answer 500.
    FreezeConfig = "FREEZE_CONFIG",
    /// An endpoint address that could reach the gateway itself (loopback, link-local). It is not used.
    UnsafeEndpoint = "UNSAFE_ENDPOINT",
    /// A backend of a virtual destination that cannot be used (R45, R161, R162, R170). The others serve.
    BackendLeftOut = "BACKEND_LEFT_OUT",
    /// The certificate, key or authorities of a TLS listener are missing or cannot be used (R60). Its chain is left out.
    Certificate = "CERTIFICATE",
    /// TLS towards a server that anybody may claim to be, because its author switched verification off (D32).
    ServerNotVerified = "SERVER_NOT_VERIFIED",
    /// A policy for destinations or workloads, which gateways alone enforce: requests from Pod to Pod are not covered.
    EnforcedAtGatewaysOnly = "ENFORCED_AT_GATEWAYS_ONLY",
    /// A Pod whose requests to east-west gateways are nobody's, because its address does not say whose they are (R186, R187).
    /// They get 404.
    ClientLeftOut = "CLIENT_LEFT_OUT",
    /// A policy's setting that works differently from what its author may expect.
    PolicyRemark = "POLICY_REMARK",
    /// Envoys refused a resource that was made from this object (R132). The last accepted version stays in force; without one the
    /// resource is missing on them.
    RefusedByGateway = "REFUSED_BY_GATEWAY",
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|code| code.as_str() == text);
        known.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no code")))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place inside an object, as `spec.http[2].forwardTo`; empty for the object as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    /// The object as a whole.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from its text form.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same path with a field appended. A key with a dot or bracket is written in quotes: `labels["a.b/c"]`.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if name.is_empty() || name.contains(['.', '[', ']']) || name.contains(char::is_control) {
            return Self(format!("{}[{name:?}]", self.0));
        }
        if self.0.is_empty() {
            return Self(name.to_owned());
        }
        // Not by `format!`: lowering makes a dozen paths for every route, nearly all of which nobody ever sees.
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        path.push_str(&self.0);
        path.push('.');
        path.push_str(name);
        Self(path)
    }

    /// The same path with a list position appended, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let index = index.to_string();
        let mut path = String::with_capacity(self.0.len() + 2 + index.len());
        path.push_str(&self.0);
        path.push('[');
        path.push_str(&index);
        path.push(']');
        Self(path)
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this path is the other one or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(&other.0)
            .is_some_and(|rest| rest.is_empty() || other.0.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a file. Line and column count from 1; 0 means unknown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Path of the file as the user gave it, or relative to the watched directory.
    pub file: Arc<str>,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// One thing to tell the author of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// The object that it is about; none for a file that holds no readable object.
    pub subject: Option<ObjectRef>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: Code,
    /// Where in the object.
    pub field: FieldPath,
    /// What is wrong and what to do, in one sentence for the author, without a final period.
    pub message: String,
    /// Other objects that it involves, for instance the winner of a conflict.
    pub related: Vec<ObjectRef>,
    /// Where in a file, when it is known.
    pub location: Option<Location>,
}

impl Finding {
    /// A finding about an object as a whole.
    #[must_use]
    pub fn new(subject: &ObjectRef, severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.clone()),
            severity,
            code,
            field: FieldPath::root(),
            message: one_line(message.into()),
            related: Vec::new(),
            location: None,
        }
    }

    /// An error about an object.
    #[must_use]
    pub fn error(subject: &ObjectRef, code: Code, message: impl Into<String>) -> Self {
        Self::new(subject, Severity::Error, code, message)
    }

    /// A warning about an object.
    #[must_use]
    pub fn warning(subject: &ObjectRef, code: Code, message: impl Into<String>) -> Self {
        Self::new(subject, Severity::Warning, code, message)
    }

    /// A notice about an object.
    #[must_use]
    pub fn info(subject: &ObjectRef, code: Code, message: impl Into<String>) -> Self {
        Self::new(subject, Severity::Info, code, message)
    }

    /// A finding about a place in a file that holds no readable object.
    #[must_use]
    pub fn in_file(location: Location, severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            subject: None,
            severity,
            code,
            field: FieldPath::root(),
            message: one_line(message.into()),
            related: Vec::new(),
            location: Some(location),
        }
    }

    /// The same finding at a field.
    #[must_use]
    pub fn at(mut self, field: FieldPath) -> Self {
        self.field = field;
        self
    }

    /// The same finding with a related object.
    #[must_use]
    pub fn with(mut self, related: &ObjectRef) -> Self {
        self.related.push(related.clone());
        self
    }

    /// The same finding with a place in a file.
    #[must_use]
    pub fn located(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }
}

/// Most bytes of a message. The longest of ours have a few hundred, so what is cut is a text of the author's.
const MESSAGE_BYTES: usize = 2048;

/// A message on one line and of bounded length, whatever it quotes: it is printed, logged and kept in statuses.
fn one_line(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    if message.contains(char::is_control) {
        let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        message = message.chars().map(escape).collect();
    }
    message
}

/// Findings in the order in which they were made; [`sort_findings`] brings them into reporting order.
pub type Findings = Vec<Finding>;

/// Sorts findings by object, then gravest first, and drops repetitions.
pub fn sort_findings(findings: &mut Findings) {
    findings.sort_by(|a, b| {
        (&a.subject, std::cmp::Reverse(a.severity), a.code, &a.field, &a.message, &a.location).cmp(&(
            &b.subject,
            std::cmp::Reverse(b.severity),
            b.code,
            &b.field,
            &b.message,
            &b.location,
        ))
    });
    findings.dedup();
}

/// The verdict on an object, in the API's own words.
///
/// # Rule
/// R132.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Approval {
    /// Not processed yet, or without an owner.
    Pending,
    /// Valid and in force.
    Accepted,
    /// In force in part, or beaten by an older object.
    Warning,
    /// Wrong content, or a reference or delegation that cannot be used.
    Invalid,
    /// Right content, but it could not be applied: refused by Envoy, or not expressible on stock Envoy.
    Failed,
}

impl Approval {
    /// The API's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Accepted => "ACCEPTED",
            Self::Warning => "WARNING",
            Self::Invalid => "INVALID",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_paths_quote_odd_keys() {
        let path = FieldPath::new("metadata").field("labels").field("a.b/c");
        assert_eq!(path.as_str(), "metadata.labels[\"a.b/c\"]");
        assert_eq!(FieldPath::root().field("spec").field("http").index(2).as_str(), "spec.http[2]");
    }

    #[test]
    fn messages_are_one_line_of_bounded_length() {
        let id = ObjectRef::new(super::super::Kind::Service, "c", "n", "s");
        let message = |text: &str| Finding::error(&id, Code::InvalidField, text).message;
        assert_eq!(message("`a\nb\u{1b}[31m` is odd ☃"), "`a\\nb\\u{1b}[31m` is odd ☃");
        let long = message(&"☃".repeat(10_000));
        assert!(long.ends_with('…') && long.len() < 2060);
    }

    #[test]
    fn field_paths_know_what_lies_below() {
        let route = FieldPath::new("spec.http[1]");
        assert!(FieldPath::new("spec.http[1].matchers").is_within(&route));
        assert!(!FieldPath::new("spec.http[11]").is_within(&route));
        assert!(route.is_within(&FieldPath::root()));
    }

    #[test]
    fn r145_codes_stand_in_the_order_of_r144() {
        assert!(Code::DelegationNotExported < Code::DelegationNotImported);
        assert!(Code::DestinationNotVisible < Code::DestinationPort);
        assert!(Code::ServiceIsolated < Code::Unsupported);
    }
}
