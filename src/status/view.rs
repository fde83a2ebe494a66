//! What gateways told us, as plain values: gateways by class, their nodes, their streams, their types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Name;
use crate::snapshot::{ResourceType, Resources, Version};
use crate::xds::node::Node;
use crate::xds::observation::{Blame, StreamId};

/// Everything that is connected now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The connected gateways, by the text of their class. A class without a connected node is absent.
    pub gateways: BTreeMap<Name, GatewayView>,
}

/// The connected nodes of one class of gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayView {
    /// By node id; at least one.
    pub nodes: BTreeMap<Name, NodeView>,
}

/// One node id: usually one Envoy with one stream.
///
/// Two Envoys that state one id (a hot restart, a clone) are two streams here, and so is one Envoy that asks the separate
/// services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// By stream; at least one.
    pub streams: BTreeMap<StreamId, StreamView>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// What the client stated about itself, its version of Envoy included.
    pub node: Arc<Node>,
    /// How long the stream has been matched to its gateway.
    pub connected_for: Duration,
    /// Whether it asks for other types, and for too long not for clusters (case 27 of the sessions).
    pub is_stuck: bool,
    /// The types of which something was sent, acknowledged or refused.
    pub types: BTreeMap<ResourceType, TypeView>,
}

/// How one type stands on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeView {
    /// The type's version in the snapshot from which was sent last; none before the first response.
    pub sent: Option<Version>,
    /// The newest version of the type that the client held in full, and may still hold; none before the first.
    pub acknowledged: Option<Version>,
    /// The version that [`outstanding`](Self::outstanding) is about.
    pub compared: Option<Version>,
    /// How many resources the client should hold otherwise than it does: still to be sent, on their way, or refused. 0 is
    /// all that it asked for.
    pub outstanding: usize,
    /// What the client refused and wasn't given otherwise since, by name; at most [`REFUSALS`] of them.
    pub refusals: BTreeMap<Name, RefusalView>,
    /// How many further names it refused for what they are, since it last held everything.
    pub refusals_unlisted: u64,
}

/// Most refusals that are kept per stream and type. With [`IN_FULL`] and [`WORDS`] this bounds what a hostile client can make
/// the server keep: 64 KiB of text per type.
pub const REFUSALS: usize = 256;

/// Most refusals per stream and type whose words are kept in full, up to 4 KiB each; of the others [`WORDS`] bytes.
pub const IN_FULL: usize = 8;

/// How many bytes are kept of the words of other refusals, and of those where only something else may be bad.
pub const WORDS: usize = 128;

/// A refused resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalView {
    /// The version that was refused.
    pub version: Version,
    /// Whether the resource itself is to blame, or one that travelled with it.
    pub blame: Blame,
    /// The client's words, or both ends of them, see [`IN_FULL`]. Foreign text: quote it where it is shown.
    pub message: Arc<str>,
    /// How long ago.
    pub ago: Duration,
}

/// How a node stands with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It holds the snapshot's version, if it asked for the resource at all.
    Current,
    /// It isn't known to hold the snapshot's version yet.
    Behind,
    /// It refused the snapshot's version, and keeps what it had.
    Refused,
}

impl View {
    /// All streams, with the text of their gateway's class and their node id.
    pub fn streams(&self) -> impl Iterator<Item = (&Name, &Name, StreamId, &StreamView)> {
        self.gateways.iter().flat_map(|(gateway, view)| {
            view.nodes
                .iter()
                .flat_map(move |(node, view)| view.streams.iter().map(move |(id, stream)| (gateway, node, *id, stream)))
        })
    }
}

impl TypeView {
    /// Whether the client holds all that it asked for of a version of the type.
    #[must_use]
    pub fn is_current(&self, version: &Version) -> bool {
        self.outstanding == 0 && self.compared.as_ref() == Some(version)
    }

    /// How the client stands with one resource of the snapshot that it is served.
    ///
    /// `resources` and `version` are the snapshot's resources and version of the type. As far as it can be derived: while
    /// some resource is on its way, all others count as behind.
    ///
    /// # Cost
    /// At most [`REFUSALS`] lookups.
    #[must_use]
    pub fn standing(&self, resources: &Resources, version: &Version, name: &str) -> Standing {
        let is_refused = |(name, refusal): &(&Name, &RefusalView)| {
            resources.get(name.as_str()).is_some_and(|resource| resource.version == refusal.version)
        };
        if self.refusals.get_key_value(name).as_ref().is_some_and(is_refused) {
            return Standing::Refused;
        }
        // What is refused is all that it lacks.
        let refused = self.refusals.iter().filter(is_refused).count();
        if self.compared.as_ref() == Some(version) && self.outstanding as u64 <= refused as u64 + self.refusals_unlisted
        {
            return Standing::Current;
        }
        Standing::Behind
    }
}
