//! Which gateways hold what was made from an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::View;
use super::view::{NodeView, Standing, StreamView, TypeView};
use crate::model::{EnvoyRelease, Name, ObjectRef};
use crate::publish::{GatewayKey, Publisher};
use crate::snapshot::{ResourceType, Snapshot};
use crate::xds::observation::Blame;

/// How many connected gateways were to hold something made from an object, and how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Connected gateways whose snapshot has something of it.
    pub gateways: usize,
    /// Those that hold all of it.
    pub acknowledged: usize,
    /// Those that refused some of it, or are served an older version because others did.
    pub refused: usize,
}

/// How far all connected gateways are with every object of which they hold something.
///
/// # Cost
/// For each published snapshot in proportion to its resources; once more for each gateway that does not hold all of it.
#[must_use]
pub fn programmed(view: &View, publisher: &Publisher) -> BTreeMap<ObjectRef, Programmed> {
    let mut groups: BTreeMap<GatewayKey, Vec<&NodeView>> = BTreeMap::new();
    for (gateway, class) in &view.gateways {
        for node in class.nodes.values() {
            let key = node.streams.values().find_map(|stream| key(gateway, stream));
            if let Some(key) = key {
                groups.entry(key).or_default().push(node);
            }
        }
    }
    let mut programmed: BTreeMap<ObjectRef, Programmed> = BTreeMap::new();
    for (key, nodes) in groups {
        let Some(snapshot) = publisher.current(&key) else { continue };
        let withheld = publisher.not_in_force(&key);
        let partial = nodes.iter().filter(|node| !holds_all(node, &snapshot));
        let mut owned: BTreeMap<ObjectRef, (usize, usize)> = BTreeMap::new();
        for resource_type in ResourceType::ALL {
            for resource in snapshot.resources(resource_type).values() {
                for owner in resource.owners.iter() {
                    owned.insert(owner.clone(), (0, 0));
                }
            }
        }
        for withheld in withheld.values() {
            for owner in withheld.owners.iter() {
                owned.insert(owner.clone(), (0, 0));
            }
        }
        // How many of those that lack something lack something of this object, and how many refused it.
        for node in partial {
            for (owner, standing) in lacking(node, &snapshot) {
                if let Some((behind, refused)) = owned.get_mut(&owner) {
                    *behind += usize::from(standing == Standing::Behind);
                    *refused += usize::from(standing == Standing::Refused);
                }
            }
        }
        for withheld in withheld.values() {
            for owner in withheld.owners.iter() {
                // It is in force nowhere, whoever said so.
                owned.insert(owner.clone(), (0, nodes.len()));
            }
        }
        for (owner, (behind, refused)) in owned {
            let of_object = programmed.entry(owner).or_default();
            of_object.gateways += nodes.len();
            of_object.refused += refused;
            of_object.acknowledged += nodes.len() - behind - refused;
        }
    }
    programmed
}

/// Under which key a stream is served.
fn key(gateway: &Name, stream: &StreamView) -> Option<GatewayKey> {
    let version = stream.node.version.map(|version| (version.major, version.minor));
    let envoy = EnvoyRelease::serving(version);
    Some(GatewayKey { gateway: gateway.parse().ok()?, bind: stream.node.bind.clone(), envoy })
}

/// A type of a node on the stream that asks for it; of several the first.
fn on_stream(node: &NodeView, resource_type: ResourceType) -> Option<&TypeView> {
    node.streams.values().find_map(|stream| stream.types.get(&resource_type))
}

fn holds_all(node: &NodeView, snapshot: &Arc<Snapshot>) -> bool {
    ResourceType::ALL.into_iter().all(|resource_type| {
        snapshot.resources(resource_type).is_empty()
            || on_stream(node, resource_type).is_some_and(|view| view.is_current(&snapshot.type_version(resource_type)))
    })
}

/// The objects of which a node lacks something, each with the gravest standing.
fn lacking(node: &NodeView, snapshot: &Arc<Snapshot>) -> BTreeMap<ObjectRef, Standing> {
    let mut lacking: BTreeMap<ObjectRef, Standing> = BTreeMap::new();
    for resource_type in ResourceType::ALL {
        let (resources, version) = (snapshot.resources(resource_type), snapshot.type_version(resource_type));
        let view = on_stream(node, resource_type);
        if resources.is_empty() || view.is_some_and(|view| view.is_current(&version)) {
            continue;
        }
        for (name, resource) in resources.iter() {
            let is_refused = |view: &TypeView| view.refusals.get(name).is_some_and(|r| r.blame == Blame::Exact);
            let standing = match view.map(|view| (view.standing(&resources, &version, name), is_refused(view))) {
                Some((Standing::Current, _)) => continue,
                Some((Standing::Refused, true)) => Standing::Refused,
                Some(_) | None => Standing::Behind,
            };
            for owner in resource.owners.iter() {
                let known = lacking.entry(owner.clone()).or_insert(standing);
                *known = (*known).max(standing);
            }
        }
    }
    lacking
}
