//! Clients inside a cluster: who sends a request, by the address that it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::model::{Name, WorkspaceId};

use super::route::{HeaderMatch, ValueMatch};

/// The header by which a gateway knows a client: [`Client`] as text. What a client writes there himself is taken away, and no
/// upstream sees it.
pub const CLIENT_HEADER: &str = "x-chancery-client";

/// The clients of a cluster by their addresses.
///
/// # Rule
/// R186.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clients(pub BTreeMap<IpAddr, Client>);

/// A client: a Pod, by what rules ask about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Who owns its namespace.
    pub workspace: WorkspaceId,
    /// Its namespace.
    pub namespace: Name,
    /// The service account as which it runs.
    pub account: Name,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.workspace, self.namespace, self.account)
    }
}

/// What the requests of a workspace's clients have, and no others. Names of workspaces hold no slash.
#[must_use]
pub fn is_of(workspace: &WorkspaceId) -> HeaderMatch {
    HeaderMatch { name: CLIENT_HEADER.into(), value: ValueMatch::Prefix(format!("{workspace}/").into()), invert: false }
}
