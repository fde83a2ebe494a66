//! Who is at the other end of a stream: decoded once, the rest of the 61 kB dropped.
//!
//! What a node states is for finding its gateway, never for authorization: that is the [caller](super::caller)'s.
//!
//! # Rule
//! `conventions.md` section 8; R15; `reliability.md` cases 1 and 2.

use std::fmt;
use std::net::IpAddr;

use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::protobuf::{Struct, Value, value};

use crate::model::{Labels, Name};

/// Bytes that the node id, and each text of the metadata that is kept, may have.
const TEXT_BYTES: usize = 1024;

/// Labels that a node may state; a Pod in practice has a dozen.
const LABELS: usize = 256;

/// The address that listeners bind unless the node states one.
const BIND_DEFAULT: &str = "0.0.0.0";

/// The part of `envoy.config.core.v3.Node` that is looked at; every other field is skipped, the 516 extensions that an
/// Envoy lists first of all.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatedNode {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<Struct>,
    #[prost(message, optional, tag = "8")]
    pub(super) user_agent_build_version: Option<StatedBuild>,
}

/// The part of `envoy.config.core.v3.BuildVersion` that is looked at.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StatedBuild {
    #[prost(message, optional, tag = "1")]
    pub(super) version: Option<SemanticVersion>,
}

/// What a client states about itself with its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `node.id`, unique per Envoy.
    pub id: Name,
    /// Metadata `cluster`: where the gateway runs.
    pub cluster: Option<Name>,
    /// Metadata `namespace`: of the gateway's Pod.
    pub namespace: Option<Name>,
    /// Metadata `pod`: its name.
    pub pod: Option<Name>,
    /// Metadata `labels`: they stand in for the Pod's where a directory source holds no such Pod.
    pub labels: Labels,
    /// Metadata `service_account`.
    pub service_account: Option<Name>,
    /// Metadata `bind`: the IP address that listeners bind; `0.0.0.0` unless stated.
    pub bind: Name,
    /// Metadata `revision`: which control plane the gateway wants during an upgrade.
    pub revision: Option<Name>,
    /// Envoy's version; none for another client.
    pub version: Option<EnvoyVersion>,
}

/// A version of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvoyVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch number.
    pub patch: u32,
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why a node gets nothing. Every variant ends the stream; the text is for whoever runs the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The first message has no node, or one without an id.
    #[error(
        "the first message of a stream must state a node with an id: \
         set `node.id` in Envoy's bootstrap, for instance with `--service-node`"
    )]
    Missing,
    /// A later message states another id.
    #[error("this stream belongs to node {was:?}, and a message states {now:?}: open a stream per node")]
    Changed {
        /// The id that the stream began with.
        was: Name,
        /// The other id.
        now: String,
    },
    /// The node states something that has no meaning.
    #[error("{0}")]
    Invalid(String),
    /// The node matches no gateway.
    #[error("{0}")]
    Unknown(String),
    /// The node may not have what it asks for.
    #[error("{0}")]
    Denied(String),
    /// The question can't be answered now; the client should ask again later.
    #[error("{0}")]
    Unavailable(String),
}

impl Node {
    /// Reads the node of a stream's first message.
    ///
    /// # Errors
    /// [`NodeError::Missing`], or [`NodeError::Invalid`] naming the field. Metadata that is absent is no error: which
    /// of it is needed is the snapshot source's to say.
    pub(super) fn decode(node: Option<StatedNode>) -> Result<Self, NodeError> {
        let node = node.filter(|node| !node.id.is_empty()).ok_or(NodeError::Missing)?;
        let metadata = node.metadata.unwrap_or_default();
        let id = checked("node.id", &node.id)?;
        let bind = text(&metadata, "bind")?.unwrap_or_else(|| BIND_DEFAULT.into());
        let bind: IpAddr = bind
            .parse()
            .map_err(|_| NodeError::Invalid(format!("node metadata `bind` is {:?}: state an IP address", &*bind)))?;
        Ok(Self {
            id,
            cluster: text(&metadata, "cluster")?,
            namespace: text(&metadata, "namespace")?,
            pod: text(&metadata, "pod")?,
            labels: labels(&metadata)?,
            service_account: text(&metadata, "service_account")?,
            bind: bind.to_string().into(),
            revision: text(&metadata, "revision")?,
            version: node.user_agent_build_version.and_then(envoy_version),
        })
    }

    /// Checks the node of a later message: absent, or the same.
    ///
    /// # Errors
    /// [`NodeError::Changed`]; a stream is never given another node's configuration.
    pub(super) fn confirm(&self, later: Option<&StatedNode>) -> Result<(), NodeError> {
        match later {
            Some(node) if !node.id.is_empty() && node.id != *self.id => {
                let now = super::observation::truncated(&node.id, TEXT_BYTES);
                Err(NodeError::Changed { was: self.id.clone(), now })
            }
            _ => Ok(()),
        }
    }
}

/// A text of the metadata; absent and empty are the same.
fn text(metadata: &Struct, field: &str) -> Result<Option<Name>, NodeError> {
    match metadata.fields.get(field).and_then(|value| value.kind.as_ref()) {
        None | Some(value::Kind::NullValue(_)) => Ok(None),
        Some(value::Kind::StringValue(text)) if text.is_empty() => Ok(None),
        Some(value::Kind::StringValue(text)) => checked(field, text).map(Some),
        Some(_) => Err(NodeError::Invalid(format!("node metadata `{field}` must be a text"))),
    }
}

fn checked(field: &str, text: &str) -> Result<Name, NodeError> {
    if text.len() > TEXT_BYTES {
        let length = text.len();
        return Err(NodeError::Invalid(format!("`{field}` has {length} bytes: state at most {TEXT_BYTES}")));
    }
    Ok(text.into())
}

fn labels(metadata: &Struct) -> Result<Labels, NodeError> {
    let fields = match metadata.fields.get("labels").and_then(|value| value.kind.as_ref()) {
        None | Some(value::Kind::NullValue(_)) => return Ok(Labels::new()),
        Some(value::Kind::StructValue(labels)) => &labels.fields,
        Some(_) => return Err(NodeError::Invalid("node metadata `labels` must be a map of texts".to_owned())),
    };
    if fields.len() > LABELS {
        let count = fields.len();
        return Err(NodeError::Invalid(format!("node metadata `labels` has {count} entries: state at most {LABELS}")));
    }
    let label = |(key, value): (&String, &Value)| match &value.kind {
        Some(value::Kind::StringValue(text)) => Ok((checked("labels", key)?, checked("labels", text)?)),
        _ => Err(NodeError::Invalid(format!("node metadata `labels`: the value of {key:?} must be a text"))),
    };
    fields.iter().map(label).collect()
}

fn envoy_version(build: StatedBuild) -> Option<EnvoyVersion> {
    let version = build.version?;
    Some(EnvoyVersion { major: version.major_number, minor: version.minor_number, patch: version.patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: value::Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn string(text: &str) -> Value {
        value(value::Kind::StringValue(text.to_owned()))
    }

    fn map<const N: usize>(fields: [(&str, Value); N]) -> Struct {
        Struct { fields: fields.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    fn node(id: &str, metadata: Struct) -> Option<StatedNode> {
        Some(StatedNode { id: id.to_owned(), metadata: Some(metadata), user_agent_build_version: None })
    }

    #[test]
    fn everything_that_a_gateway_states_is_read() {
        let labels = map([("app", string("gateway"))]);
        let mut stated = node(
            "c1/edge/gw-1",
            map([
                ("cluster", string("c1")),
                ("namespace", string("edge")),
                ("pod", string("gw-1")),
                ("service_account", string("gw")),
                ("bind", string("127.0.0.2")),
                ("labels", value(value::Kind::StructValue(labels))),
            ]),
        );
        let version = Some(SemanticVersion { major_number: 1, minor_number: 40, patch: 2 });
        stated.as_mut().unwrap().user_agent_build_version = Some(StatedBuild { version });
        let node = Node::decode(stated).unwrap();
        assert_eq!(node.cluster.as_deref(), Some("c1"));
        assert_eq!(node.namespace.as_deref(), Some("edge"));
        assert_eq!(node.pod.as_deref(), Some("gw-1"));
        assert_eq!(node.service_account.as_deref(), Some("gw"));
        assert_eq!(node.bind, "127.0.0.2");
        assert_eq!(node.labels, Labels::from([("app".into(), "gateway".into())]));
        assert_eq!(node.version.unwrap().to_string(), "1.40.2");
    }

    #[test]
    fn an_id_is_enough() {
        let node = Node::decode(node("n", Struct::default())).unwrap();
        assert_eq!((node.bind.as_str(), node.cluster, node.version), ("0.0.0.0", None, None));
    }

    #[test]
    fn case_1_a_missing_node_is_told_what_to_do() {
        for missing in [None, node("", Struct::default())] {
            let error = Node::decode(missing).unwrap_err();
            assert_eq!(error, NodeError::Missing);
            assert!(error.to_string().contains("set `node.id` in Envoy's bootstrap"), "{error}");
        }
    }

    #[test]
    fn case_2_a_node_never_changes() {
        let first = Node::decode(node("a", Struct::default())).unwrap();
        assert_eq!(first.confirm(None), Ok(()));
        assert_eq!(first.confirm(node("", Struct::default()).as_ref()), Ok(()));
        assert_eq!(first.confirm(node("a", Struct::default()).as_ref()), Ok(()));
        let error = first.confirm(node("b\n", Struct::default()).as_ref()).unwrap_err().to_string();
        assert!(error.contains(r#"node "a", and a message states "b\n""#), "{error}");
    }

    #[test]
    fn nonsense_is_named() {
        for (metadata, expected) in [
            (map([("bind", string("everywhere"))]), "`bind` is \"everywhere\": state an IP address"),
            (map([("cluster", value(value::Kind::NumberValue(1.0)))]), "`cluster` must be a text"),
            (map([("pod", string(&"x".repeat(2000)))]), "`pod` has 2000 bytes: state at most 1024"),
            (map([("labels", string("app=gateway"))]), "`labels` must be a map of texts"),
            (
                map([("labels", value(value::Kind::StructValue(map([("a", value(value::Kind::BoolValue(true)))]))))]),
                "the value of \"a\" must be a text",
            ),
        ] {
            let error = Node::decode(node("n", metadata)).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
