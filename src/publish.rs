//! Ring 6: the current snapshot of every class of gateways.
//!
//! The compile loop publishes, streams subscribe. Publishing compares before it wakes: an equal snapshot wakes nobody.
//! A slow reader sees the newest snapshot only. What is published is immutable behind [`Arc`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::{EnvoyRelease, GatewayId, Name};
use crate::snapshot::Snapshot;

/// Which gateways share one snapshot: a class, the address that its listeners bind, and a release of Envoy.
///
/// The address is part of the key because it stands in the listeners' bytes, the release because one may refuse what another
/// takes. Usually all gateways of a class share both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayKey {
    /// The class.
    pub gateway: GatewayId,
    /// The address that listeners bind.
    pub bind: Name,
    /// The release that its Envoys are served as.
    pub envoy: EnvoyRelease,
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} (Envoy {})", self.gateway, self.bind, self.envoy)
    }
}

/// What a subscriber watches; `None` until something was published under the key.
pub type Watched = Option<Arc<Snapshot>>;

/// The current snapshot per key.
///
/// # Cost
/// One lock per call, never held across an `await`; comparing costs a pass over the resources that aren't shared.
#[derive(Debug)]
pub struct Publisher<K = GatewayKey> {
    channels: Mutex<BTreeMap<K, watch::Sender<Watched>>>,
}

impl<K> Default for Publisher<K> {
    fn default() -> Self {
        Self { channels: Mutex::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone> Publisher<K> {
    /// A publisher that holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a snapshot the current one of its key; whether it differs from the one before.
    ///
    /// An equal snapshot is dropped and wakes nobody.
    pub fn publish(&self, key: &K, snapshot: Arc<Snapshot>) -> bool {
        let mut channels = self.lock();
        let sender = channels.entry(key.clone()).or_insert_with(|| watch::Sender::new(None));
        sender.send_if_modified(|current| {
            if current.as_ref() == Some(&snapshot) {
                return false;
            }
            *current = Some(snapshot);
            true
        })
    }

    /// Watches a key, whether or not something was published under it.
    ///
    /// The channel closes when the key is removed; who watches it then has to find its key anew.
    #[must_use]
    pub fn subscribe(&self, key: &K) -> watch::Receiver<Watched> {
        let mut channels = self.lock();
        // Keys hold text that clients choose: those that nobody watches and nobody published must not pile up.
        channels.retain(|_, sender| sender.receiver_count() > 0 || sender.borrow().is_some());
        channels.entry(key.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// The current snapshot of a key.
    #[must_use]
    pub fn current(&self, key: &K) -> Watched {
        self.lock().get(key).and_then(|sender| sender.borrow().clone())
    }

    /// The keys that are published or watched, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }

    /// Keeps the keys that the question approves and closes the channels of all others.
    pub fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        self.lock().retain(|key, _| keep(key));
    }

    /// Removes one key and closes its channel; whether it was there.
    pub fn remove(&self, key: &K) -> bool {
        self.lock().remove(key).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, watch::Sender<Watched>>> {
        // Every change under the lock is a single step, so a panic elsewhere leaves nothing half done.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Resource, ResourceType};

    fn snapshot(body: &'static str) -> Arc<Snapshot> {
        let resource = Resource::from_content("a".into(), body.into(), Arc::from([]));
        Arc::new(Snapshot::new().with(ResourceType::Cluster, [resource]))
    }

    #[test]
    fn equal_snapshots_wake_nobody() {
        let publisher = Publisher::<&str>::new();
        let mut watched = publisher.subscribe(&"web");
        assert!(watched.borrow_and_update().is_none());
        assert!(publisher.publish(&"web", snapshot("1")));
        assert!(watched.has_changed().unwrap());
        assert_eq!(*watched.borrow_and_update(), Some(snapshot("1")));
        assert!(!publisher.publish(&"web", snapshot("1")), "equal content in a new allocation");
        assert!(!watched.has_changed().unwrap());
        assert!(publisher.publish(&"web", snapshot("2")));
        assert!(watched.has_changed().unwrap());
    }

    #[test]
    fn a_late_subscriber_finds_the_newest() {
        let publisher = Publisher::<&str>::new();
        publisher.publish(&"web", snapshot("1"));
        publisher.publish(&"web", snapshot("2"));
        assert_eq!(*publisher.subscribe(&"web").borrow(), Some(snapshot("2")));
        assert_eq!(publisher.current(&"web"), Some(snapshot("2")));
        assert_eq!(publisher.current(&"api"), None);
    }

    #[test]
    fn removed_keys_close_their_channels() {
        let publisher = Publisher::<&str>::new();
        let (web, api) = (publisher.subscribe(&"web"), publisher.subscribe(&"api"));
        publisher.retain(|key| *key == "web");
        assert!(web.has_changed().is_ok());
        assert!(api.has_changed().is_err());
        assert!(publisher.remove(&"web"));
        assert!(web.has_changed().is_err());
    }

    #[test]
    fn keys_that_nobody_published_or_watches_are_forgotten() {
        let publisher = Publisher::<u32>::new();
        for key in 0..100 {
            drop(publisher.subscribe(&key));
        }
        assert!(publisher.keys().len() <= 1);
    }

    #[test]
    fn gateway_keys_are_readable() {
        let key =
            GatewayKey { gateway: "c1/edge/web".parse().unwrap(), bind: "0.0.0.0".into(), envoy: EnvoyRelease::NEWEST };
        assert_eq!(key.to_string(), "c1/edge/web@0.0.0.0 (Envoy 1.40)");
    }
}
