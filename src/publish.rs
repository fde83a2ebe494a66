//! Ring 6: the current snapshot of every class of gateways, and of every rate-limit service.
//!
//! The compile loop publishes, streams subscribe. Publishing compares before it wakes: an equal snapshot wakes nobody.
//! A slow reader sees the newest snapshot only. What is published is immutable behind [`Arc`].
//!
//! Keys hold text that clients choose, so they go with their watchers: at once where nothing was published, else when
//! whoever publishes [retires](Publisher::retire) them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::{EnvoyRelease, GatewayId, Kind, Name, ObjectRef};
use crate::snapshot::{ResourceType, Snapshot, Version};

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

/// How the node ids of rate-limit services begin.
const LIMIT_SERVER: &str = "ratelimit~";

/// Which rate-limit service a client is, by its node id: `ratelimit~<cluster>~<namespace>~<Service>`; none for gateways.
///
/// Names of Kubernetes objects hold no `~`. An id of this kind that names nothing names a Service that there is not.
#[must_use]
pub fn limit_server(node_id: &str) -> Option<ObjectRef> {
    let rest = node_id.strip_prefix(LIMIT_SERVER)?;
    let mut parts = rest.splitn(3, '~');
    let mut part = || parts.next().unwrap_or_default();
    let (cluster, namespace, name) = (part(), part(), part());
    Some(ObjectRef::new(Kind::Service, cluster, namespace, name))
}

/// What a subscriber watches; `None` until something was published under the key.
pub type Watched = Option<Arc<Snapshot>>;

/// What was compiled for a key and is not in force, because it was refused: by type and name.
pub type NotInForce = BTreeMap<(ResourceType, Name), Withheld>;

/// One resource that is not in force; an older version of it stands in the published snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// The version that was compiled.
    pub version: Version,
    /// The objects that it was made from.
    pub owners: Arc<[ObjectRef]>,
    /// The words of who refused it. Foreign text: quote it where it is shown.
    pub message: Arc<str>,
}

/// The current snapshot per key.
///
/// # Cost
/// One lock per call, never held across an `await`; comparing costs a pass over the resources that aren't shared.
#[derive(Debug)]
pub struct Publisher<K = GatewayKey> {
    channels: Mutex<BTreeMap<K, Channel>>,
}

#[derive(Debug)]
struct Channel {
    sender: watch::Sender<Watched>,
    not_in_force: Arc<NotInForce>,
}

impl Default for Channel {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), not_in_force: Arc::default() }
    }
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
        replace(&channels.entry(key.clone()).or_default().sender, snapshot)
    }

    /// The same for a key under which something is published already, and nothing for others: whoever does not know which keys
    /// are served brings none back.
    pub fn renew(&self, key: &K, snapshot: Arc<Snapshot>) -> bool {
        let channels = self.lock();
        let sender = channels.get(key).map(|channel| &channel.sender);
        sender.filter(|sender| sender.borrow().is_some()).is_some_and(|sender| replace(sender, snapshot))
    }

    /// Notes what of a key's compiled snapshot is not in the published one.
    pub fn withhold(&self, key: &K, not_in_force: NotInForce) {
        if let Some(channel) = self.lock().get_mut(key)
            && *channel.not_in_force != not_in_force
        {
            channel.not_in_force = Arc::new(not_in_force);
        }
    }

    /// What of a key's compiled snapshot is not in the published one.
    #[must_use]
    pub fn not_in_force(&self, key: &K) -> Arc<NotInForce> {
        self.lock().get(key).map(|channel| channel.not_in_force.clone()).unwrap_or_default()
    }

    /// Watches a key, whether or not something was published under it.
    ///
    /// The channel closes when the key is removed; who watches it then has to find its key anew.
    #[must_use]
    pub fn subscribe(&self, key: &K) -> watch::Receiver<Watched> {
        let mut channels = self.lock();
        // Keys hold text that clients choose: those that nobody watches and nobody published must not pile up.
        channels.retain(|_, channel| channel.is_watched() || channel.sender.borrow().is_some());
        channels.entry(key.clone()).or_default().sender.subscribe()
    }

    /// The current snapshot of a key.
    #[must_use]
    pub fn current(&self, key: &K) -> Watched {
        self.lock().get(key).and_then(|channel| channel.sender.borrow().clone())
    }

    /// The keys that are published or watched, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }

    /// The keys that nobody watches.
    #[must_use]
    pub fn unwatched(&self) -> BTreeSet<K> {
        self.lock().iter().filter(|(_, channel)| !channel.is_watched()).map(|(key, _)| key.clone()).collect()
    }

    /// Removes a key unless somebody watches it; whether it is gone now.
    pub fn retire(&self, key: &K) -> bool {
        let mut channels = self.lock();
        let is_watched = channels.get(key).is_some_and(Channel::is_watched);
        if !is_watched {
            channels.remove(key);
        }
        !is_watched
    }

    /// Removes one key and closes its channel; whether it was there.
    pub fn remove(&self, key: &K) -> bool {
        self.lock().remove(key).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Channel>> {
        // Every change under the lock is a single step, so a panic elsewhere leaves nothing half done.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a snapshot in the place of another; whether it differs.
fn replace(sender: &watch::Sender<Watched>, snapshot: Arc<Snapshot>) -> bool {
    sender.send_if_modified(|current| {
        if current.as_ref() == Some(&snapshot) {
            return false;
        }
        *current = Some(snapshot);
        true
    })
}

impl Channel {
    fn is_watched(&self) -> bool {
        self.sender.receiver_count() > 0
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
        assert!(publisher.remove(&"api"));
        assert!(web.has_changed().is_ok());
        assert!(api.has_changed().is_err());
    }

    #[test]
    fn renewing_brings_no_key_back() {
        let publisher = Publisher::<&str>::new();
        let mut watched = publisher.subscribe(&"web");
        assert!(!publisher.renew(&"web", snapshot("1")), "nothing is published yet");
        publisher.publish(&"web", snapshot("1"));
        assert!(publisher.renew(&"web", snapshot("2")) && !publisher.renew(&"web", snapshot("2")));
        assert_eq!(*watched.borrow_and_update(), Some(snapshot("2")));
        publisher.remove(&"web");
        assert!(!publisher.renew(&"web", snapshot("3")));
        assert_eq!(publisher.keys(), [""; 0]);
    }

    #[test]
    fn keys_are_retired_unless_somebody_watches_them() {
        let publisher = Publisher::<&str>::new();
        let watched = publisher.subscribe(&"web");
        publisher.publish(&"web", snapshot("1"));
        publisher.publish(&"api", snapshot("1"));
        assert_eq!(publisher.unwatched(), BTreeSet::from(["api"]));
        assert!(publisher.retire(&"api") && !publisher.retire(&"web"));
        assert_eq!(publisher.keys(), ["web"]);
        drop(watched);
        assert!(publisher.retire(&"web"));
        assert_eq!(publisher.current(&"web"), None);
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
    fn rate_limit_services_are_told_by_their_ids() {
        let shown = |id: &str| limit_server(id).map(|server| server.to_string());
        assert_eq!(shown("ratelimit~c1~shop~limiter").as_deref(), Some("Service/shop/limiter@c1"));
        assert_eq!(shown("ratelimit~c1~shop~limiter~x").as_deref(), Some("Service/shop/limiter~x@c1"), "there is none");
        assert!(shown("ratelimit~").is_some(), "no gateway is meant");
        assert_eq!(shown("ratelimit-7"), None);
        assert_eq!(shown("edge/gw-1"), None);
    }

    #[test]
    fn gateway_keys_are_readable() {
        let key =
            GatewayKey { gateway: "c1/edge/web".parse().unwrap(), bind: "0.0.0.0".into(), envoy: EnvoyRelease::NEWEST };
        assert_eq!(key.to_string(), "c1/edge/web@0.0.0.0 (Envoy 1.40)");
    }
}
