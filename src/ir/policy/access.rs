//! AccessPolicy: who may call what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::TextPattern;
use super::reference::ObjectPick;
use crate::model::{Name, ObjectRef};

/// Who may call what on a target; several policies unite to one of these.
///
/// Clients are selectors in what a policy says, and [`Caller`]s in what a gateway judges by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Access<C = Client> {
    /// A request passes that one entry allows. Nothing in the list denies everything; without a list nothing is denied.
    pub enforced: Option<Vec<AccessEntry<C>>>,
    /// The same, evaluated and logged only, as if only these existed.
    pub dry_run: Option<Vec<AccessEntry<C>>>,
    /// Whether clients must show a certificate, where the gateway asks for one.
    pub require_peer_tls: bool,
}

impl<C> Default for Access<C> {
    fn default() -> Self {
        Self { enforced: None, dry_run: None, require_peer_tls: false }
    }
}

/// What some clients may call. Every part must hold; of a set one item, and an empty set does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccessEntry<C = Client> {
    /// The policy that says so.
    pub policy: ObjectRef,
    /// Position in its list.
    pub index: usize,
    /// Who calls; absent means any client. An empty list does not occur.
    pub clients: Option<Vec<C>>,
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

/// On whose behalf a gateway calls.
///
/// # Rule
/// R205.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Behalf {
    /// Anybody's.
    #[default]
    Any,
    /// Not that of a client inside the cluster.
    Own,
    /// That of a Pod of its cluster with one of these namespaces and accounts.
    Pods(BTreeSet<(Name, Name)>),
}

/// Who calls, as a gateway knows it. Every part must hold; an absent or empty one does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// On whose behalf.
    pub behalf: Behalf,
    /// URIs, one of which is in the verified certificate of the connection.
    pub identities: Option<BTreeSet<Name>>,
    /// As [`Client::principals`].
    pub principals: BTreeSet<TextPattern>,
    /// As [`Client::not_principals`].
    pub not_principals: BTreeSet<TextPattern>,
}

/// What some policies say together of a target, as one gateway judges what goes there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The policies, oldest first. One without entries may be among them.
    pub policies: Vec<ObjectRef>,
    /// What they allow.
    pub access: Access<Caller>,
}

impl Guard {
    /// The same for connections of which only the client is known, as where TLS is passed through. Entries that ask for
    /// anything else never hold there, and are left out; nothing is evaluated only. Of a client inside the cluster not even
    /// his account is known then.
    #[must_use]
    pub fn for_connections(&self, is_of_client: bool) -> Self {
        let fits = |entry: &&AccessEntry<Caller>| {
            entry.paths.is_empty() && entry.methods.is_empty() && entry.headers.is_empty()
        };
        let plain = |caller: &Caller| {
            let is_theirs = match caller.behalf {
                Behalf::Any => true,
                Behalf::Own => !is_of_client,
                Behalf::Pods(_) => false,
            };
            is_theirs && caller.principals.is_empty() && caller.not_principals.is_empty()
        };
        let enforced = self.access.enforced.as_ref().map(|entries| {
            let entries = entries.iter().filter(fits).cloned().filter_map(|mut entry| {
                if let Some(clients) = &mut entry.clients {
                    clients.retain(plain);
                    clients.iter_mut().for_each(|caller| caller.behalf = Behalf::Any);
                    clients.sort();
                    clients.dedup();
                    if clients.contains(&Caller::default()) {
                        entry.clients = None;
                        return Some(entry);
                    }
                    if clients.is_empty() {
                        return None;
                    }
                }
                Some(entry)
            });
            entries.collect()
        });
        Self { policies: self.policies.clone(), access: Access { enforced, dry_run: None, ..self.access.clone() } }
    }

    /// Whether some entry lets every request of the gateway itself pass, or nothing is denied at all.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        let itself = Caller { behalf: Behalf::Own, ..Caller::default() };
        let asks_nothing = |entry: &AccessEntry<Caller>| {
            entry.clients.as_ref().is_none_or(|clients| clients.contains(&itself))
                && entry.paths.is_empty()
                && entry.methods.is_empty()
                && entry.headers.is_empty()
                && entry.peers.is_empty()
                && entry.remotes.is_empty()
        };
        self.access.enforced.as_ref().is_none_or(|entries| entries.iter().any(asks_nothing))
    }

    /// Whether nothing can pass.
    #[must_use]
    pub fn denies_everything(&self) -> bool {
        self.access.enforced.as_ref().is_some_and(Vec::is_empty)
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

/// Values of a header. A header may be sent in several lines, and a line may have several values: of `values` one fits all
/// lines, each as a whole, and no value may match `not_values`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderRule {
    /// One of these matches every line; empty does not restrict. An absent header matches none.
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
