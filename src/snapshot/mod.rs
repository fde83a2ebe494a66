//! Ring 4: the product. What one class of gateways gets: named, content-versioned resources per type.
//!
//! A snapshot is immutable. It knows nothing of how a resource was made; `xds` sends it, [`verify`] judges it.

pub mod diff;
mod resources;
pub mod verify;

pub use resources::{Changes, Resources};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Name, ObjectRef};

/// The xDS resource types that Chancery serves, in the order in which additions are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.core.v3.TypedExtensionConfig`
    Extension,
    /// `envoy.config.route.v3.ScopedRouteConfiguration`: which requests use which route configuration.
    ///
    /// Before the routes, because a gateway asks for a scope's routes when it has the scope; requests of a scope that
    /// is new have no routes until these come, as before. An existing scope never changes.
    ScopedRoute,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `ratelimit.config.ratelimit.v3.RateLimitConfig`: what a rate-limit service allows. No gateway has any, and such a service
    /// has nothing else.
    RateLimit,
}

impl ResourceType {
    /// All types, in the order in which additions are sent.
    pub const ALL: [Self; 8] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Extension,
        Self::ScopedRoute,
        Self::Route,
        Self::RateLimit,
    ];

    /// The type URL, version 3 of the API.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::ScopedRoute => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::RateLimit => "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig",
        }
    }

    /// The type of a URL, if it is one of ours.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// Whether an empty first subscription means everything (clusters, listeners, scopes, limits), or nothing.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::ScopedRoute | Self::RateLimit)
    }
}

/// What a resource's content is called. Equal versions of one resource mean equal bytes.
///
/// Ours is a short text form of a 128-bit hash: of the bytes, or of the hashes of the pieces that they are spliced
/// from. Either way equal inputs have equal versions on every replica. A source of its own may choose any text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// A version of the caller's choice.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The version of some content: 12 characters of its hash.
    ///
    /// A version is only ever compared with another of the same name, so 60 bits are enough, and clients send every
    /// version back when they reconnect.
    ///
    /// # Cost
    /// One pass over the bytes, about 0.1 ns each.
    #[must_use]
    pub fn of_content(bytes: &[u8]) -> Self {
        Self::of_hash(Self::hash(bytes))
    }

    /// The version of content that is spliced from pieces in a fixed order: the hash of their [hashes](Self::hash).
    ///
    /// It differs from [`of_content`](Self::of_content) of the same bytes, so a resource always takes one of the two
    /// ways: route configurations this one, because one changed virtual host must not cost a pass over megabytes.
    #[must_use]
    pub fn of_pieces(hashes: impl Iterator<Item = u128>) -> Self {
        Self::of_content(&hashes.flat_map(u128::to_le_bytes).collect::<Vec<u8>>())
    }

    /// The hash that versions are made of.
    #[must_use]
    pub fn hash(bytes: &[u8]) -> u128 {
        xxhash_rust::xxh3::xxh3_128(bytes)
    }

    /// The same of bytes that lie in stretches.
    #[must_use]
    pub fn hash_of<'a>(stretches: impl Iterator<Item = &'a [u8]>) -> u128 {
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        stretches.for_each(|stretch| hasher.update(stretch));
        hasher.digest128()
    }

    fn of_hash(mut hash: u128) -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut text = String::with_capacity(12);
        for _ in 0..12 {
            text.push(char::from(ALPHABET[(hash & 31) as usize]));
            hash >>= 5;
        }
        Self(text.into())
    }

    /// The version of some resources of one type together, in whatever order; [`Resources::version`] of the same.
    #[must_use]
    pub fn of_resources<'a>(resources: impl Iterator<Item = &'a Resource>) -> Self {
        Self::of_hash(Resources::sum_of(resources))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One named resource. Printing it shows no content: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name, unique within its type.
    pub name: Name,
    /// Its content's version.
    pub version: Version,
    /// The encoded message, without the surrounding `Any`.
    pub body: Bytes,
    /// The objects that it was made from; a refusal by Envoy is theirs to know.
    pub owners: Arc<[ObjectRef]>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

impl Resource {
    /// A resource whose version is its content's hash.
    #[must_use]
    pub fn from_content(name: Name, body: Bytes, owners: Arc<[ObjectRef]>) -> Self {
        let version = Version::of_content(&body);
        Self { name, version, body, owners }
    }
}

/// Everything that one class of gateways should hold at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    types: BTreeMap<ResourceType, Arc<Resources>>,
}

impl Snapshot {
    /// A snapshot without resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same snapshot with the resources of one type replaced.
    #[must_use]
    pub fn with(mut self, resource_type: ResourceType, resources: impl IntoIterator<Item = Resource>) -> Self {
        let resources = resources.into_iter().map(|resource| (resource.name.clone(), Arc::new(resource))).collect();
        self.types.insert(resource_type, Arc::new(resources));
        self
    }

    /// The same snapshot with the resources of one type shared from elsewhere.
    #[must_use]
    pub fn with_shared(mut self, resource_type: ResourceType, resources: Arc<Resources>) -> Self {
        self.types.insert(resource_type, resources);
        self
    }

    /// The same snapshot, in memory the same as an older one in each type that does not differ.
    #[must_use]
    pub fn sharing(mut self, older: &Self) -> Self {
        for (resource_type, resources) in &mut self.types {
            if let Some(before) = older.types.get(resource_type).filter(|before| *before == resources) {
                *resources = before.clone();
            }
        }
        self
    }

    /// The resources of a type; empty if there are none.
    #[must_use]
    pub fn resources(&self, resource_type: ResourceType) -> Arc<Resources> {
        self.types.get(&resource_type).cloned().unwrap_or_default()
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.types.get(&resource_type)?.get(name)
    }

    /// The version of a type, from names and versions.
    #[must_use]
    pub fn type_version(&self, resource_type: ResourceType) -> Version {
        self.types.get(&resource_type).map_or_else(|| Resources::new().version(), |resources| resources.version())
    }

    /// What of a type differs from an older snapshot.
    ///
    /// # Cost
    /// In proportion to what differs, if both come from one [`Emitter`](crate::emit::Emitter); else to the resources.
    #[must_use]
    pub fn changes_since(&self, older: &Self, resource_type: ResourceType) -> Changes {
        let (before, now) = (older.resources(resource_type), self.resources(resource_type));
        if Arc::ptr_eq(&before, &now) { Changes::default() } else { now.changes_since(&before) }
    }

    /// Whether there is no resource of any type.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.values().all(|resources| resources.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_stable_across_builds() {
        assert_eq!(Version::of_content(b"chancery").as_str().len(), 12);
        assert_eq!(Version::of_content(b"chancery"), Version::of_content(b"chancery"));
        assert_ne!(Version::of_content(b"chancery"), Version::of_content(b"Chancery"));
        let bytes: Vec<u8> = (0..2_000_u32).map(|at| (at % 251) as u8).collect();
        for size in [1, 7, 300, 1_999, 2_000] {
            assert_eq!(Version::hash_of(bytes.chunks(size)), Version::hash(&bytes), "in stretches of {size}");
        }
        assert_eq!(Version::hash_of([].into_iter()), Version::hash(b""));
    }
}
