//! What clients and the server say to each other, without Envoy's types.
//!
//! The two variants of the protocol differ in how a client states its interest and in what a response carries; type,
//! nonce and refusal are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::commons::NameSet;
use super::subscription::LimitExceeded;
use crate::model::Name;
use crate::snapshot::{Resource, ResourceType, Resources, Version};

/// Which of the two protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Changes only: resources and removed names, each resource with its own version.
    Delta,
    /// Everything that was asked for; one version per type. What clients that know nothing else speak.
    StateOfTheWorld,
}

/// What a delta request says, apart from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaRequest {
    /// The type, as the client wrote it.
    pub type_url: String,
    /// Names to subscribe to.
    pub subscribe: Vec<Name>,
    /// Names to unsubscribe from.
    pub unsubscribe: Vec<Name>,
    /// What the client holds when it connects again, by name.
    pub initial_versions: BTreeMap<Name, String>,
    /// The nonce of the response that this answers; empty if it answers none.
    pub nonce: String,
    /// Why the client refuses that response.
    pub error: Option<String>,
    /// What stands in for lists that are left empty.
    pub recognised: Recognised,
}

/// Long lists in a request that were recognised on the wire, so that nobody looks at each name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognised {
    /// The names that are asked for; within the limits of length, and without the wildcard.
    pub(super) names: Option<Arc<NameSet>>,
    /// The initial versions: those of all these resources, and no others.
    pub(super) held: Option<Arc<Resources>>,
}

/// What a state-of-the-world request says, apart from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRequest {
    /// The type, as the client wrote it.
    pub type_url: String,
    /// All names that are asked for now.
    pub names: Vec<Name>,
    /// The version that the client accepted last, on this stream or on one before; empty if none.
    pub version: String,
    /// The nonce of the last response that the client has seen on this stream; empty if none.
    pub nonce: String,
    /// Why the client refuses that response.
    pub error: Option<String>,
    /// What stands in for the names, which are left empty then.
    pub recognised: Recognised,
}

/// A response of either variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The type.
    pub resource_type: ResourceType,
    /// Unique within the stream.
    pub nonce: Name,
    /// The version of the type in the snapshot; for people, delta doesn't use it. With state of the world, of clusters and
    /// listeners, the version of all that the client will hold; it states that when it connects again.
    pub version: Version,
    /// Resources to add or replace. With state of the world, for clusters and listeners, all that the client shall hold.
    pub resources: Vec<Arc<Resource>>,
    /// Names to drop, and with delta names that were asked for and don't exist. State of the world says so by silence.
    pub removed: Vec<Name>,
}

/// A request that ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It asks for too much.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// It asks a service that serves one type for another.
    #[error("this service serves {served}, and a request asks for {asked:?}: open a stream per type, or use ADS")]
    Type {
        /// The one type.
        served: &'static str,
        /// The other, at most 256 bytes of it.
        asked: String,
    },
}
