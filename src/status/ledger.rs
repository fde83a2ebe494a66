//! The table of everything that gateways told us, kept up to date by the streams themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::view::{GatewayView, REFUSALS, RefusalView, StreamView, Totals, TypeView, View};
use crate::model::Name;
use crate::snapshot::{ResourceType, Version};
use crate::xds::observation::{
    Acknowledgement, Blame, IgnoredReason, Observation, Observer, Peer, Refusal, Sending, StreamId,
};

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
}

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<StreamId, Entry>,
    totals: BTreeMap<ResourceType, Totals>,
    ignored: BTreeMap<IgnoredReason, u64>,
    connections: u64,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    connected: Instant,
    stuck: bool,
    types: BTreeMap<ResourceType, Line>,
}

/// One type on one stream.
#[derive(Debug, Default)]
struct Line {
    sent: Option<Version>,
    acknowledged: Option<Version>,
    compared: Option<Version>,
    outstanding: usize,
    on_its_way: usize,
    latency: Option<Duration>,
    acknowledged_at: Option<Instant>,
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
        match event {
            Observation::Connected(peer) => {
                table.connections += 1;
                table.streams.insert(peer.stream, Entry { peer, connected: now, stuck: false, types: BTreeMap::new() });
            }
            Observation::Sent(peer, sending) => {
                table.totals.entry(sending.resource_type).or_default().send(&sending);
                if let Some(line) = table.line(&peer, sending.resource_type) {
                    line.sent = Some(sending.version);
                    line.on_its_way = sending.resources + sending.removed;
                }
            }
            Observation::Acknowledged(peer, acknowledgement) => {
                if let Some(after) = acknowledgement.after {
                    let totals = table.totals.entry(acknowledgement.resource_type).or_default();
                    totals.acknowledged += 1;
                    totals.latency += after;
                }
                if let Some(line) = table.line(&peer, acknowledgement.resource_type) {
                    line.acknowledge(acknowledgement, now);
                }
            }
            Observation::Refused(peer, refusal) => {
                let totals = table.totals.entry(refusal.resource_type).or_default();
                match refusal.blame {
                    Blame::Exact => totals.refused += 1,
                    Blame::Suspected => totals.refused_together += 1,
                }
                if let Some(line) = table.line(&peer, refusal.resource_type) {
                    line.refuse(refusal, now);
                }
            }
            Observation::Ignored(_, ignored) => *table.ignored.entry(ignored.reason).or_default() += 1,
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
        let (totals, ignored) = (table.totals.clone(), table.ignored.clone());
        View { gateways, totals, ignored, connections: table.connections }
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

impl Totals {
    fn send(&mut self, sending: &Sending) {
        self.responses += 1;
        self.resources += sending.resources as u64;
        self.removed += sending.removed as u64;
        self.bytes += sending.bytes as u64;
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
    fn acknowledge(&mut self, acknowledgement: Acknowledgement, now: Instant) {
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
        if let Some(after) = acknowledgement.after {
            self.latency = Some(after);
            self.acknowledged_at = Some(now);
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.on_its_way = 0;
        let message: Arc<str> = refusal.message.into();
        for resource in refusal.resources {
            if self.refusals.len() >= REFUSALS && !self.refusals.contains_key(&resource.name) {
                self.refusals_unlisted += 1;
                continue;
            }
            let refused =
                Refused { version: resource.version, blame: refusal.blame, message: message.clone(), at: now };
            self.refusals.insert(resource.name, refused);
        }
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
            latency: self.latency,
            acknowledged_ago: self.acknowledged_at.map(|at| now.saturating_duration_since(at)),
            refusals: self.refusals.iter().map(|(name, refused)| (name.clone(), refusal(refused))).collect(),
            refusals_unlisted: self.refusals_unlisted,
        }
    }
}

#[cfg(test)]
mod tests;
