//! Which snapshots are asked for, and how long they are kept.
//!
//! Clients choose much of a key: the address that listeners bind, the release, the labels that lead to a class. So nothing here
//! outlives them for long: labels go with the last stream that stated them, a key [`GRACE`] after its last stream, and
//! of those that wait for that only the youngest [`IDLE`] are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::memory::refusals::GRACE;
use crate::model::GatewayId;
use crate::publish::{GatewayKey, Publisher};

use super::clients::Asker;

/// Most keys that are kept for clients that may come back. A fleet that restarts has a few; each costs a snapshot.
const IDLE: usize = 64;

/// The keys that streams asked for.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// With who was led there, each with the streams for which that holds.
    asked: BTreeMap<GatewayKey, BTreeMap<Asker, Vec<Weak<Asker>>>>,
    /// Those that nobody watches, and since when.
    idle: BTreeMap<GatewayKey, Instant>,
    /// Whether streams came or ended since the last look.
    is_untidy: bool,
}

impl Keys {
    /// A stream asks for a key, as long as it holds by what it was led there.
    pub(super) fn ask(&mut self, key: GatewayKey, asker: &Arc<Asker>) {
        self.is_untidy = true;
        let of_key = self.asked.entry(key).or_default();
        of_key.entry((**asker).clone()).or_default().push(Arc::downgrade(asker));
    }

    /// Some streams ended.
    pub(super) fn left(&mut self) {
        self.is_untidy = true;
    }

    /// The classes that are asked for.
    pub(super) fn gateways(&self) -> BTreeSet<GatewayId> {
        self.asked.keys().map(|key| key.gateway.clone()).collect()
    }

    /// The keys, with who was led there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&GatewayKey, impl Iterator<Item = &Asker>)> {
        self.asked.iter().map(|(key, askers)| (key, askers.keys()))
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &GatewayKey) {
        self.asked.remove(key);
    }

    /// Forgets labels and keys that nobody needs any more, here and in the publisher.
    ///
    /// # Cost
    /// In proportion to the streams, if some came or ended since the last time or something is to be forgotten now; else none.
    pub(super) fn tidy(&mut self, publisher: &Publisher, now: Instant) {
        let is_due = self.due().is_some_and(|due| due <= now);
        if !std::mem::take(&mut self.is_untidy) && !is_due {
            return;
        }
        let unwatched = publisher.unwatched();
        self.idle.retain(|key, _| unwatched.contains(key));
        for key in unwatched {
            self.idle.entry(key).or_insert(now);
        }
        let mut idle: Vec<(Instant, GatewayKey)> = self.idle.iter().map(|(key, since)| (*since, key.clone())).collect();
        idle.sort();
        let surplus = idle.len().saturating_sub(IDLE);
        for (index, (since, key)) in idle.into_iter().enumerate() {
            let is_over = index < surplus || now.saturating_duration_since(since) >= GRACE;
            if is_over && publisher.retire(&key) {
                self.idle.remove(&key);
                self.asked.remove(&key);
            }
        }
        for askers in self.asked.values_mut() {
            askers.retain(|_, streams| {
                streams.retain(|stream| stream.strong_count() > 0);
                !streams.is_empty()
            });
        }
        let known: BTreeSet<GatewayKey> = publisher.keys().into_iter().collect();
        self.asked.retain(|key, _| known.contains(key));
    }

    /// Whether somebody asked for a key, and it was not forgotten since.
    pub(super) fn contains(&self, key: &GatewayKey) -> bool {
        self.asked.contains_key(key)
    }

    /// When the next key is to be forgotten, unless somebody comes back to it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.idle.values().min().map(|since| *since + GRACE)
    }
}
