//! What policies refer to by name: destinations, addresses, objects by label.

use serde::{Deserialize, Serialize};

use crate::model::{Labels, Name, ObjectRef};

/// A destination that a policy names. Whether it exists and is visible is decided later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DestinationRef {
    /// Service, VirtualDestination or ExternalService; namespace and cluster are those of the object that names it where
    /// none are written.
    pub object: ObjectRef,
    /// Its port; may be absent where it has only one.
    pub port: Option<PortRef>,
    /// Only endpoints of Pods with these labels; empty means all.
    pub subset: Labels,
}

/// A port that is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// Not empty.
    Name(Name),
}

/// Objects by labels and place. All that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectPick {
    /// Labels that the object carries.
    pub labels: Labels,
    /// Exact name.
    pub name: Option<Name>,
    /// Exact namespace.
    pub namespace: Option<Name>,
    /// Exact cluster.
    pub cluster: Option<Name>,
    /// Owning workspace.
    pub workspace: Option<Name>,
}

impl ObjectPick {
    /// Name, namespace and cluster, where all three are there: such an object need not exist.
    #[must_use]
    pub fn place(&self) -> Option<(&Name, &Name, &Name)> {
        Some((self.name.as_ref()?, self.namespace.as_ref()?, self.cluster.as_ref()?))
    }
}

/// An HTTP address that gateways call.
///
/// The host may be an address that reaches the gateway itself: whoever opens connections to it refuses those, as for
/// endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpUrl {
    /// `https`.
    pub tls: bool,
    /// Where it is.
    pub authority: HostPort,
    /// The path with its query; starts with a slash.
    pub path: Name,
}

/// Host and port.
///
/// As for [`HttpUrl`], the host may be one that must not be called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: Name,
    /// 1 to 65535.
    pub port: u16,
}
