//! What the serving side tells the rest of the program: who is connected, who holds what, who refused what.
//!
//! One closed enum. Status, metrics and the console are made from it; nothing here waits for them.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use crate::model::{Name, ObjectRef};
use crate::snapshot::{ResourceType, Resources, Version};

/// Whoever wants to know what happens on the streams.
///
/// Called from the stream's own task: it must return at once (count, or put the event into a queue).
pub trait Observer: Send + Sync + 'static {
    /// One event. Those of one stream come in order; those of several streams come at the same time.
    fn observe(&self, event: Observation);
}

/// Nobody wants to know.
impl Observer for () {
    fn observe(&self, _: Observation) {}
}

/// One stream among all that the server ever had: two streams of one node are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Whose stream it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The stream.
    pub stream: StreamId,
    /// Text of the gateway's class, as the snapshot source named it.
    pub gateway: Name,
    /// What the client stated about itself.
    pub node: Arc<Node>,
}

/// Something happened on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A node was matched to a gateway. Each is followed by one `Disconnected`.
    Connected(Arc<Peer>),
    /// The server sent a response.
    Sent(Arc<Peer>, Sending),
    /// The client holds something new.
    Acknowledged(Arc<Peer>, Acknowledgement),
    /// The client refused something.
    Refused(Arc<Peer>, Refusal),
    /// The client sent something that has no meaning here; with delta it had no effect beyond its subscriptions, with
    /// state of the world none at all.
    Ignored(Arc<Peer>, Ignored),
    /// An Envoy has asked for other types on ADS for this long, and not for clusters: it waits for something that doesn't
    /// come, or lost its subscription. Comes at most once per stream.
    Stuck(Arc<Peer>, Duration),
    /// The stream ended.
    Disconnected(Arc<Peer>),
    /// A stream, or the connection before it, was refused.
    TurnedAway(Reason),
}

/// Why a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The client proved nothing.
    NoCredential,
    /// The client's certificate is not accepted, or names no gateway.
    Certificate,
    /// The client's token is not accepted.
    Token,
    /// No TLS came about, and not for the client's certificate.
    Handshake,
    /// The client is not the gateway that it says it is.
    NotItsOwn,
    /// The client states no node, or one without meaning.
    Node,
    /// The client's node matches no gateway.
    NoGateway,
    /// There are too many streams or connections, of all or of one account.
    Limit,
}

impl Reason {
    /// As a label of a metric and in the log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Handshake => "handshake",
            Self::NotItsOwn => "not_its_own",
            Self::Node => "node",
            Self::NoGateway => "no_gateway",
            Self::Limit => "limit",
        }
    }
}

/// A response on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The type.
    pub resource_type: ResourceType,
    /// The nonce, unique within the stream.
    pub nonce: Name,
    /// Version of the type in the snapshot.
    pub version: Version,
    /// Number of resources.
    pub resources: usize,
    /// Number of names that are removed or don't exist.
    pub removed: usize,
    /// Length of the resources' bodies together.
    pub bytes: usize,
}

/// What a client is known to hold now.
///
/// Comes with every acknowledgement, and also without one when a new snapshot, or what the client stated at a
/// reconnect, leaves nothing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The type.
    pub resource_type: ResourceType,
    /// Version of the type in the snapshot from which was sent.
    pub version: Version,
    /// What the client holds since this event.
    pub resources: Gained,
    /// What the client doesn't hold since this event.
    pub removed: Vec<Name>,
    /// How many resources of the type the client should hold otherwise than it does: still to be sent, or refused. With
    /// 0 it holds `version` in full.
    pub outstanding: usize,
    /// Time since the response was sent; none if no response led to this.
    pub after: Option<Duration>,
}

/// Resources that a client is known to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gained {
    /// These, by name.
    Listed(Vec<(Name, Version)>),
    /// Everything of the type, as a client that connects again states; shared, because a thousand may state the same.
    All(Arc<Resources>),
}

impl Gained {
    /// Each with its version.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Version)> {
        let (listed, all) = match self {
            Self::Listed(listed) => (Some(listed), None),
            Self::All(resources) => (None, Some(resources)),
        };
        let listed = listed.into_iter().flatten().map(|(name, version)| (name, version));
        listed.chain(all.into_iter().flat_map(|all| all.values()).map(|resource| (&resource.name, &resource.version)))
    }
}

impl Default for Gained {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// A response that a client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The type.
    pub resource_type: ResourceType,
    /// The nonce of the refused response.
    pub nonce: Name,
    /// What was in the response, or the one of it that the client named.
    pub resources: Vec<RefusedResource>,
    /// Whether the resources are to blame.
    pub blame: Blame,
    /// The client's words, at most 4 KiB of them.
    pub message: String,
}

/// One resource of a refused response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedResource {
    /// Its name.
    pub name: Name,
    /// The version that was refused.
    pub version: Version,
    /// The objects that it was made from.
    pub owners: Arc<[ObjectRef]>,
}

/// Whether a refusal says which resource is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// There is one resource: it was alone in the response, or the client named it. It is bad, and withheld until its
    /// content changes.
    Exact,
    /// The response held several: at least one is bad. They are sent again in smaller parts, and an exact refusal
    /// follows for each bad one.
    Suspected,
}

/// Something that a client sent and that had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The type URL as the client wrote it, at most 256 bytes of it.
    pub type_url: String,
    /// Why.
    pub reason: IgnoredReason,
}

/// Why something was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgnoredReason {
    /// The nonce isn't that of the last response of the type. With state of the world that is usual: a request that changes
    /// names may cross a response, and the answer to that response states the names again.
    StaleNonce,
    /// An error without a nonce refuses nothing.
    ErrorWithoutNonce,
    /// The type isn't served.
    UnknownType,
}

/// What of a client's error text may be kept and shown.
///
/// Envoy prints the message that it refuses, private keys included (seen on 1.40). So of a text about a secret only the
/// constraint that was violated remains, or the whole if it is one line without a dump. The same of a filter, which has what
/// the policies of all tenants share.
pub(super) fn quotable(resource_type: ResourceType, text: &str) -> &str {
    const CONSTRAINT: &str = "Proto constraint validation failed (";
    if !matches!(resource_type, ResourceType::Secret | ResourceType::Extension) {
        return text;
    }
    if let Some(at) = text.find(CONSTRAINT) {
        let end = text[at..].find([')', '{', '\n']).filter(|end| text[at + end..].starts_with(')'));
        return &text[at..at + end.map_or(CONSTRAINT.len() - 2, |end| end + 1)];
    }
    let is_dump = text.trim_end().contains(['{', '\n']) || text.contains("inline_");
    if is_dump { "the text is withheld, because it may hold the secret" } else { text }
}

/// A text within a number of bytes, or its beginning and its end.
///
/// Envoy prints the whole message that it refuses, sometimes before the reason and sometimes after it.
///
/// # Cost
/// In proportion to `bytes`.
#[must_use]
pub fn excerpt(text: &str, bytes: usize) -> String {
    const LEFT_OUT: &str = " […] ";
    let text = text.trim_end();
    if text.len() <= bytes || bytes < LEFT_OUT.len() {
        return truncated(text, bytes);
    }
    let head = truncated(text, (bytes - LEFT_OUT.len()) / 2);
    let start = text.len() - (bytes - LEFT_OUT.len() - head.len());
    let start = (start..=text.len()).find(|start| text.is_char_boundary(*start)).unwrap_or(text.len());
    format!("{head}{LEFT_OUT}{}", &text[start..])
}

/// The longest beginning of a text within a number of bytes.
pub(super) fn truncated(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_texts_both_ends_are_kept() {
        assert_eq!(excerpt("short \n", 20), "short");
        let long = format!("Proto: {} reason: bad", "{dump}".repeat(1000));
        let cut = excerpt(&long, 64);
        assert!(cut.len() <= 64 && cut.starts_with("Proto: {dump}") && cut.ends_with("} reason: bad"), "{cut}");
        assert!(excerpt(&"grün".repeat(100), 33).len() <= 33);
        assert_eq!(excerpt("anything", 3), "any");
    }

    #[test]
    fn words_about_a_secret_never_hold_it() {
        let reason = "Proto constraint validation failed (SecretValidationError.TlsCertificate: embedded message failed \
                      validation | caused by field: \"specifier\", reason: is required)";
        let dump = "name: \"s\"\ntls_certificate {\n  private_key {\n    inline_string: \"CANARY (1)\"\n  }\n}\n";
        for (words, expected) in [
            (format!("{dump}: {reason}"), reason),
            (format!("{reason}: {dump}"), reason),
            (dump.to_owned(), "the text is withheld, because it may hold the secret"),
            ("inline_string: CANARY".to_owned(), "the text is withheld, because it may hold the secret"),
            (format!("Proto constraint validation failed ({}", &dump[..40]), "Proto constraint validation failed"),
            ("Failed to load private key from <inline>".to_owned(), "Failed to load private key from <inline>"),
        ] {
            assert_eq!(quotable(ResourceType::Secret, &words), expected, "{words}");
            assert_eq!(quotable(ResourceType::Extension, &words), expected, "{words}");
        }
        assert_eq!(quotable(ResourceType::Cluster, "{\n"), "{\n", "nothing else is secret");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncated("short", 10), "short");
        assert_eq!(truncated("grün", 3), "gr");
        assert_eq!(truncated("grün", 4), "grü");
    }
}
