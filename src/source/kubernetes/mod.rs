//! Objects from API servers: the management cluster's, and those of every cluster that is registered there.
//!
//! ```text
//! watch per kind ──┐
//! watch per kind ──┼──► hub ──► batches, as a directory gives them
//! Secrets, named ──┘     ▲
//!                        └── which Secrets somebody asked for
//! ```
//!
//! Each kind of each cluster has a watch of its own (`watch`). What they say comes together in the hub, which decides
//! what counts (`held`) and which clusters there are (`registry`). All of it runs on one thread of its own.
//!
//! # Secrets
//! Only those are read that were asked for: whoever compiles says which (R7), and gets an answer for each, also where there
//! is none, so that nothing is published before it is known whether a certificate is there. Generated roots of trust are
//! Secrets too, and handed on apart from the objects (`roots`).
//!
//! # What goes wrong, and what then
//! - A server that does not answer, a list that fails half-way, a watch that ends: what was read last stays in force, and
//!   it is asked again, after pauses that grow from 0.25 to 10 s. Of those who ask a server that is out of reach one tries, and
//!   the others go when it got through; all of them together make at most 20 attempts after failures in a second (`pace`).
//! - `410 Gone`, and a server that was away and may have been restored from a copy: everything of the kind is listed again and
//!   compared; what is the same wakes nobody.
//! - A kind that is not served has no objects, if no definition of it is there either (`definitions`): a server that starts
//!   answers 404 for a while. One that was served before keeps them.
//! - A cluster that cannot be reached delays nobody, but at a start one that had been connected before (R10).
//! - At a start without an API server what an earlier run kept of its cluster is in force (`kept`), where there is a place to
//!   keep it.
//! - All of it is in the findings, for as long as it lasts.
//!
//! # Cost
//! One connection for each kind and named Secret of each cluster. An event costs what its object costs to decode.

mod access;
mod definitions;
mod held;
mod hub;
mod kept;
mod narrator;
mod observed;
mod pace;
mod registry;
mod roots;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch as channel};

pub use access::{Access, AccessError, Credential};
pub use kept::{Current, Document, Earlier, Manifest, Shelf};
pub use observed::{Observed, Written};
pub use registry::Health;
pub use roots::{NewRoot, RootSecret, RootSecrets};
pub use watch::resource;

use self::held::Trouble;
use super::Batch;
use crate::model::{Labels, Name, ObjectRef};

/// What the source must know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the management cluster.
    pub management: Name,
    /// The namespace there that registers clusters (R3).
    pub admin_namespace: Name,
    /// Address of the management cluster's API server, for people.
    pub server: String,
    /// Where the credential for it was found, for people.
    pub credential: String,
}

/// A question for Secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretQuery {
    /// One Secret.
    One(ObjectRef),
    /// All with these labels, in every cluster.
    Labelled(Labels),
}

/// What the source gives.
#[derive(Clone, Debug)]
pub enum Given {
    /// Objects.
    Batch(Batch),
    /// The questions for Secrets that are answered now, by what the batches before it hold. Replaces what was given before.
    Answered(Arc<BTreeSet<SecretQuery>>),
    /// What is known of the Secrets in which generated roots of trust are kept. Replaces what was given before.
    Roots(RootSecrets),
}

/// API servers that are followed for as long as this is kept.
#[derive(Debug)]
pub struct Kubernetes {
    observed: Observed,
    missing: Missing,
    stale: Stale,
    clients: Clients,
    health: channel::Receiver<BTreeMap<Name, Health>>,
    _running: oneshot::Sender<()>,
}

/// How the API servers of clusters are asked. Clones are the same.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<BTreeMap<Name, kube::Client>>>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// That of a cluster; none while it is not connected.
    #[must_use]
    pub fn get(&self, cluster: &Name) -> Option<kube::Client> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned()
    }

    /// All of them, by the names of their clusters.
    #[must_use]
    pub fn all(&self) -> Vec<(Name, kube::Client)> {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().map(|(name, client)| (name.clone(), client.clone())).collect()
    }

    fn set(&self, cluster: &Name, client: Option<kube::Client>) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match client {
            Some(client) => clients.insert(cluster.clone(), client),
            None => clients.remove(cluster),
        };
    }
}

/// What the first complete list still waits for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Missing(Arc<Mutex<Vec<String>>>);

impl Missing {
    /// In sentences for people; empty once everything was listed.
    #[must_use]
    pub fn get(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, missing: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }
}

/// Clusters whose objects are not known to be what they are at their API servers. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stale(Arc<Mutex<BTreeMap<Name, Since>>>);

/// Since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Since when; for objects that were kept over a restart, when they were kept.
    pub at: Timestamp,
    /// Whether they were kept over a restart.
    pub is_recalled: bool,
    /// What is wrong, for people.
    pub reason: String,
}

impl Stale {
    /// By cluster; empty where all are followed.
    #[must_use]
    pub fn get(&self) -> BTreeMap<Name, Since> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over which are, with when they were kept where they were.
    fn set<'a>(&self, ill: impl Iterator<Item = (&'a Name, Option<Timestamp>, String)>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |(name, recalled, reason): (&Name, Option<Timestamp>, String)| {
            let known = table.get(name).filter(|known| !known.is_recalled).map(|known| known.at);
            let at = recalled.or(known).unwrap_or_else(Timestamp::now);
            (name.clone(), Since { at, is_recalled: recalled.is_some(), reason })
        };
        let now: BTreeMap<Name, Since> = ill.map(since).collect();
        *table = now;
    }
}

/// What it works with.
#[derive(Debug)]
pub struct With {
    /// Which Secrets are to be read.
    pub asked: channel::Receiver<BTreeSet<SecretQuery>>,
    /// Roots of trust that are to be kept in Secrets.
    pub new_roots: mpsc::UnboundedReceiver<NewRoot>,
    /// Is told how connected clusters are asked.
    pub clients: Clients,
    /// Where what was read last is kept over a restart.
    pub shelf: Option<Shelf>,
    /// Dropped at its end, when that is kept.
    pub at_work: std::sync::mpsc::Sender<std::convert::Infallible>,
}

impl Kubernetes {
    /// Follows API servers, by a thread of its own, which gives everything first and then every difference. Ends when nobody
    /// wants more, or with what this returns.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        config: kube::Config,
        options: Options,
        with: With,
        take: impl FnMut(Given) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (running, stop) = oneshot::channel();
        let (tell, health) = channel::channel(BTreeMap::new());
        let (observed, missing, stale) = (Observed::default(), Missing::default(), Stale::default());
        let With { asked, new_roots, clients, shelf, at_work } = with;
        let shared = (observed.clone(), missing.clone(), clients.clone(), stale.clone());
        let hub = hub::Hub::new(options, take, shared, tell, shelf);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(hub.run(config, (asked, new_roots), stop));
            drop(at_work);
        })?;
        Ok(Self { observed, missing, stale, clients, health, _running: running })
    }

    /// Which clusters are not what they are at their API servers.
    #[must_use]
    pub fn stale(&self) -> &Stale {
        &self.stale
    }

    /// The statuses that objects have now.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// How the API servers of connected clusters are asked.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What the first complete list waits for.
    #[must_use]
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// How it stands with each registered cluster.
    #[must_use]
    pub fn health(&self) -> channel::Receiver<BTreeMap<Name, Health>> {
        self.health.clone()
    }
}

/// Longest text of a server or a library that is quoted.
const WORDS: usize = 300;

/// What a failed request means.
fn trouble(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) => trouble_of_code(status.code, &status.message),
        error => {
            // The chain says more than its head, and no part of it holds a credential.
            let mut words = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let text = cause.to_string();
                if !words.contains(&text) {
                    words = format!("{words}: {text}");
                }
                source = cause.source();
            }
            Trouble::Unreachable(excerpt(&words))
        }
    }
}

/// What a status code means.
fn trouble_of_code(code: u16, message: &str) -> Trouble {
    match code {
        404 => Trouble::NotServed,
        401 | 403 => Trouble::Refused(excerpt(message)),
        code => Trouble::Unreachable(excerpt(&format!("{code} {message}"))),
    }
}

/// The beginning of a foreign text, quoted.
fn excerpt(words: &str) -> String {
    let end = words.char_indices().nth(WORDS).map_or(words.len(), |(end, _)| end);
    format!("{:?}", &words[..end])
}
