//! AccessPolicy: who may call what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::TextPattern;
use super::reference::ObjectPick;
use crate::model::{Name, ObjectRef};

/// Who may call what on a target; several policies unite to one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Access {
    /// A request passes that one entry allows. Nothing in the list denies everything; without a list nothing is denied.
    pub enforced: Option<Vec<AccessEntry>>,
    /// The same, evaluated and logged only, as if only these existed.
    pub dry_run: Option<Vec<AccessEntry>>,
    /// Whether clients must show a certificate, where the gateway asks for one.
    pub require_peer_tls: bool,
}

/// What some clients may call. Every part must hold; of a set one item, and an empty set does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessEntry {
    /// The policy that says so.
    pub policy: ObjectRef,
    /// Position in its list.
    pub index: usize,
    /// Who calls; absent means any client. An empty list cannot occur.
    pub clients: Option<Vec<Client>>,
    /// Paths without query.
    pub paths: BTreeSet<TextPattern>,
    /// HTTP methods; case counts.
    pub methods: BTreeSet<Name>,
    /// By header, in lower case; each must hold.
    pub headers: BTreeMap<Name, HeaderRule>,
    /// Where the connection comes from.
    pub peers: BTreeSet<Cidr>,
    /// Which address the client has, as proxies on the way report it.
    pub remotes: BTreeSet<Cidr>,
}

impl AccessEntry {
    /// Whether the entry can hold for a connection of which only the client is known, as where TLS is passed through.
    #[must_use]
    pub fn fits_connections(&self) -> bool {
        let plain = |client: &Client| client.principals.is_empty() && client.not_principals.is_empty();
        self.paths.is_empty()
            && self.methods.is_empty()
            && self.headers.is_empty()
            && self.clients.as_ref().is_none_or(|clients| clients.iter().any(plain))
    }
}

/// A kind of client. Every part must hold; an absent or empty one does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Client {
    /// ServiceAccounts; one that finds none is nobody.
    pub service_accounts: Option<ObjectPick>,
    /// Workloads outside the clusters; one that finds none is nobody.
    pub external_workloads: Option<ObjectPick>,
    /// `issuer/subject` of a verified token, one of these. [`TextPattern::Any`] still wants a token.
    pub principals: BTreeSet<TextPattern>,
    /// None of these; a request without a token satisfies that.
    pub not_principals: BTreeSet<TextPattern>,
}

/// Values of a header. A header that is repeated has several values: one of them satisfies `values`, and none may match
/// `not_values`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderRule {
    /// One of these matches; empty does not restrict. An absent header matches none.
    pub values: BTreeSet<TextPattern>,
    /// None of these matches; an absent header satisfies that.
    pub not_values: BTreeSet<TextPattern>,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cidr {
    /// The first address: the bits beyond the prefix are 0.
    pub address: IpAddr,
    /// 0 to 32, or to 128 for IPv6.
    pub prefix: u8,
}
