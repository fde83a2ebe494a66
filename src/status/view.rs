//! What gateways told us, as plain values: gateways by class, their nodes, their streams, their types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Name;
use crate::snapshot::{ResourceType, Resources, Version};
use crate::xds::node::Node;
use crate::xds::observation::{Blame, IgnoredReason, StreamId};

/// Everything that is connected now, and what happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The connected gateways, by the text of their class. A class without a connected node is absent.
    pub gateways: BTreeMap<Name, GatewayView>,
    /// What happened per type on all streams since the start, those that are gone included.
    pub totals: BTreeMap<ResourceType, Totals>,
    /// How many requests had no effect since the start, by reason.
    pub ignored: BTreeMap<IgnoredReason, u64>,
    /// How many streams were matched to a gateway since the start.
    pub connections: u64,
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
    /// How long the last acknowledged response took from being sent to its acknowledgement.
    pub latency: Option<Duration>,
    /// How long ago the client last acknowledged something.
    pub acknowledged_ago: Option<Duration>,
    /// What the client refused and wasn't given otherwise since, by name; at most [`REFUSALS`] of them.
    pub refusals: BTreeMap<Name, RefusalView>,
    /// How many further names it refused.
    pub refusals_unlisted: u64,
}

/// Most refusals that are kept per stream and type. A refusal has up to 4 KiB of text, so this bounds what a hostile
/// client can make the server keep: 32 KiB per type.
pub const REFUSALS: usize = 8;

/// A refused resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalView {
    /// The version that was refused.
    pub version: Version,
    /// Whether the resource itself is to blame, or one that travelled with it.
    pub blame: Blame,
    /// The client's words, at most 4 KiB of them. Foreign text: quote it where it is shown.
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

/// What happened since the start, of one type on all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Responses that were sent.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Names in them that are removed or don't exist.
    pub removed: u64,
    /// Bytes of the resources' bodies.
    pub bytes: u64,
    /// Responses that were acknowledged.
    pub acknowledged: u64,
    /// Time from sending to acknowledging, of all acknowledged responses together.
    pub latency: Duration,
    /// Refused responses that name the bad resource: they held just one.
    pub refused: u64,
    /// Refused responses of several resources, which are sent again in parts.
    pub refused_together: u64,
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
        if self.compared.as_ref() == Some(version) && self.outstanding == refused {
            return Standing::Current;
        }
        Standing::Behind
    }
}
