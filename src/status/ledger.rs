//! The table of everything that gateways told us, kept up to date by the streams themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::view::{GatewayView, IN_FULL, REFUSALS, RefusalView, StreamView, TypeView, View, WORDS};
use crate::model::Name;
use crate::snapshot::{ResourceType, Version};
use crate::xds::observation::{Acknowledgement, Blame, Observation, Observer, Peer, Refusal, StreamId, excerpt};

/// Who is connected, and how each type stands on each stream.
///
/// # Cost
/// An event takes one short lock and a lookup by stream; an acknowledgement also one lookup per resource in it, if the
/// stream refused something before. Per stream about 200 bytes and 200 for each type, and what it refused.
///
/// # Rule
/// `reliability.md` cases 10, 11, 29 and 41; section 2, 2: what a client holds is what it acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    table: Mutex<Table>,
    /// How many events it heard.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<StreamId, Entry>,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    connected: Instant,
    stuck: bool,
    /// On the heap, because a map has room for eleven.
    types: BTreeMap<ResourceType, Box<Line>>,
}

/// One type on one stream.
#[derive(Debug, Default)]
struct Line {
    sent: Option<Version>,
    acknowledged: Option<Version>,
    compared: Option<Version>,
    outstanding: usize,
    on_its_way: usize,
    refusals: BTreeMap<Name, Refused>,
    refusals_unlisted: u64,
}

#[derive(Debug)]
struct Refused {
    version: Version,
    blame: Blame,
    message: Arc<str>,
    at: Instant,
}

impl Observer for Ledger {
    fn observe(&self, event: Observation) {
        self.record(event, Instant::now());
    }
}

impl Ledger {
    /// A ledger that heard nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another number once something was heard.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// A copy of what is known now.
    ///
    /// # Cost
    /// In proportion to the streams; the lock is held for that long, texts are shared.
    #[must_use]
    pub fn view(&self) -> View {
        self.view_at(Instant::now())
    }

    /// Forgets the refusals that nobody cares for any more, because what was refused is no longer wanted.
    ///
    /// # Cost
    /// In proportion to the streams.
    pub fn retain_refusals(&self, mut keep: impl FnMut(ResourceType, &Name, &Version) -> bool) {
        for entry in self.lock().streams.values_mut() {
            for (resource_type, line) in &mut entry.types {
                line.refusals.retain(|name, refused| keep(*resource_type, name, &refused.version));
            }
        }
    }

    fn record(&self, event: Observation, now: Instant) {
        let mut table = self.lock();
        self.heard.fetch_add(1, Ordering::Release);
        match event {
            Observation::Connected(peer) => {
                table.streams.insert(peer.stream, Entry { peer, connected: now, stuck: false, types: BTreeMap::new() });
            }
            Observation::Sent(peer, sending) => {
                if let Some(line) = table.line(&peer, sending.resource_type) {
                    line.sent = Some(sending.version);
                    line.on_its_way = sending.resources + sending.removed;
                }
            }
            Observation::Acknowledged(peer, acknowledgement) => {
                if let Some(line) = table.line(&peer, acknowledgement.resource_type) {
                    line.acknowledge(acknowledgement);
                }
            }
            Observation::Refused(peer, refusal) => {
                if let Some(line) = table.line(&peer, refusal.resource_type) {
                    line.refuse(refusal, now);
                }
            }
            Observation::Ignored(..) | Observation::TurnedAway(_) => {}
            Observation::Stuck(peer, _) => {
                if let Some(entry) = table.streams.get_mut(&peer.stream) {
                    entry.stuck = true;
                }
            }
            Observation::Disconnected(peer) => {
                table.streams.remove(&peer.stream);
            }
        }
    }

    fn view_at(&self, now: Instant) -> View {
        let table = self.lock();
        let mut gateways: BTreeMap<Name, GatewayView> = BTreeMap::new();
        for (stream, entry) in &table.streams {
            let nodes = &mut gateways.entry(entry.peer.gateway.clone()).or_default().nodes;
            nodes.entry(entry.peer.node.id.clone()).or_default().streams.insert(*stream, entry.view(now));
        }
        View { gateways }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves at worst one line of one stream half written.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn line(&mut self, peer: &Peer, resource_type: ResourceType) -> Option<&mut Line> {
        Some(self.streams.get_mut(&peer.stream)?.types.entry(resource_type).or_default())
    }
}

impl Entry {
    fn view(&self, now: Instant) -> StreamView {
        StreamView {
            node: self.peer.node.clone(),
            connected_for: now.saturating_duration_since(self.connected),
            // Once it asks for clusters, it is not.
            is_stuck: self.stuck && !self.types.contains_key(&ResourceType::Cluster),
            types: self.types.iter().map(|(resource_type, line)| (*resource_type, line.view(now))).collect(),
        }
    }
}

impl Line {
    fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        if !self.refusals.is_empty() {
            for name in acknowledgement.resources.iter().map(|(name, _)| name).chain(&acknowledgement.removed) {
                self.refusals.remove(name);
            }
        }
        if acknowledgement.outstanding == 0 {
            self.acknowledged = Some(acknowledgement.version.clone());
            self.refusals_unlisted = 0;
            // What travelled with something bad has arrived.
            self.refusals.retain(|_, refused| refused.blame == Blame::Exact);
        }
        self.compared = Some(acknowledgement.version);
        self.outstanding = acknowledgement.outstanding;
        self.on_its_way = 0;
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.on_its_way = 0;
        let message = self.words(refusal.blame, &refusal.message);
        for resource in refusal.resources {
            if self.refusals.len() >= REFUSALS && !self.refusals.contains_key(&resource.name) {
                // What is certain is worth more than what is only suspected.
                let suspected = self.refusals.iter().find(|(_, refused)| refused.blame == Blame::Suspected);
                match (refusal.blame, suspected.map(|(name, _)| name.clone())) {
                    (Blame::Exact, Some(name)) => {
                        self.refusals.remove(&name);
                    }
                    (Blame::Exact, None) => {
                        self.refusals_unlisted += 1;
                        continue;
                    }
                    (Blame::Suspected, _) => continue,
                }
            }
            let refused =
                Refused { version: resource.version, blame: refusal.blame, message: message.clone(), at: now };
            self.refusals.insert(resource.name, refused);
        }
    }

    /// What is kept of a client's words: all, if they are certain and few others are kept in full.
    fn words(&self, blame: Blame, words: &str) -> Arc<str> {
        let in_full = self.refusals.values().filter(|refused| refused.message.len() > WORDS).count();
        if blame == Blame::Exact && in_full < IN_FULL { words.into() } else { excerpt(words, WORDS).into() }
    }

    fn view(&self, now: Instant) -> TypeView {
        let refusal = |refused: &Refused| RefusalView {
            version: refused.version.clone(),
            blame: refused.blame,
            message: refused.message.clone(),
            ago: now.saturating_duration_since(refused.at),
        };
        TypeView {
            sent: self.sent.clone(),
            acknowledged: self.acknowledged.clone(),
            compared: self.compared.clone(),
            outstanding: self.outstanding.max(self.on_its_way),
            refusals: self.refusals.iter().map(|(name, refused)| (name.clone(), refusal(refused))).collect(),
            refusals_unlisted: self.refusals_unlisted,
        }
    }
}

#[cfg(test)]
mod tests;
