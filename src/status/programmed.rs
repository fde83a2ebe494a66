//! Which gateways hold what was made from an object.

use std::collections::{BTreeMap, BTreeSet};
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

/// Gateways of one key that stand alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Who they are, see [`number`].
    pub nodes: BTreeSet<u64>,
    /// How many they are beside those.
    pub more: usize,
    /// Of which objects they lack something, or refused something.
    pub lacks: BTreeMap<ObjectRef, Standing>,
    /// Whether they lack something of further objects.
    pub is_cut: bool,
}

/// How the connected gateways stand, by what they are served.
pub type Standings = BTreeMap<GatewayKey, Vec<Group>>;

/// What another replica says of its gateways.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    /// How they stand.
    pub standings: &'a Standings,
    /// Whether it speaks of an object as this replica knows it; none where it does so of all.
    pub is_same: Option<&'a dyn Fn(&ObjectRef) -> bool>,
}

impl std::fmt::Debug for Other<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Other").field("standings", &self.standings).finish_non_exhaustive()
    }
}

/// How many gateways of a group count, and who tells of them where it is another replica.
type Counted<'a> = (usize, &'a Group, Option<&'a Other<'a>>);

/// A number for a gateway, the same on all replicas. Two gateways have the same by a chance of one to 2^64.
#[must_use]
pub fn number(class: &str, node: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{class}\0{node}").as_bytes())
}

/// How all gateways stand that are connected to this replica.
///
/// # Cost
/// In proportion to the gateways; for each that does not hold all of its snapshot once more to the resources in that.
#[must_use]
pub fn standings(view: &View, publisher: &Publisher) -> Standings {
    let mut nodes: BTreeMap<GatewayKey, Vec<(u64, &NodeView)>> = BTreeMap::new();
    for (gateway, class) in &view.gateways {
        for (name, node) in &class.nodes {
            let key = node.streams.values().find_map(|stream| key(gateway, stream));
            if let Some(key) = key {
                nodes.entry(key).or_default().push((number(gateway, name), node));
            }
        }
    }
    let mut standings = Standings::new();
    for (key, nodes) in nodes {
        let Some(snapshot) = publisher.current(&key) else { continue };
        let withheld = publisher.not_in_force(&key);
        // It is in force nowhere, whoever said so.
        let withheld = withheld.values().flat_map(|withheld| withheld.owners.iter());
        let withheld: BTreeMap<ObjectRef, Standing> =
            withheld.map(|owner| (owner.clone(), Standing::Refused)).collect();
        let mut groups: BTreeMap<BTreeMap<ObjectRef, Standing>, BTreeSet<u64>> = BTreeMap::new();
        for (number, node) in nodes {
            let mut lacks = if holds_all(node, &snapshot) { BTreeMap::new() } else { lacking(node, &snapshot) };
            lacks.extend(withheld.iter().map(|(owner, standing)| (owner.clone(), *standing)));
            groups.entry(lacks).or_default().insert(number);
        }
        let group = |(lacks, nodes)| Group { nodes, more: 0, lacks, is_cut: false };
        standings.insert(key, groups.into_iter().map(group).collect());
    }
    standings
}

/// How far all connected gateways are with every object of which they hold something: those of this replica, and those of
/// others that are published here too.
///
/// One that several replicas tell of counts once, where it is told first: of this replica's, then in the order of `others`.
///
/// # Cost
/// For each published snapshot in proportion to its resources, and to what the gateways lack; for each replica that speaks of
/// other objects once more to the objects.
#[must_use]
pub fn programmed(own: &Standings, others: &[Other<'_>], publisher: &Publisher) -> BTreeMap<ObjectRef, Programmed> {
    let mut told: BTreeMap<&GatewayKey, Vec<Counted<'_>>> = BTreeMap::new();
    let mut counted: BTreeSet<u64> = BTreeSet::new();
    for (standings, other) in
        std::iter::once((own, None)).chain(others.iter().map(|other| (other.standings, Some(other))))
    {
        for (key, groups) in standings {
            for group in groups {
                let number = group.more + group.nodes.iter().filter(|node| counted.insert(**node)).count();
                told.entry(key).or_default().push((number, group, other));
            }
        }
    }
    let mut programmed: BTreeMap<ObjectRef, Programmed> = BTreeMap::new();
    for (key, told) in told {
        let Some(snapshot) = publisher.current(key) else { continue };
        // Of each object: how many lack something of it, and how many refused it.
        let mut owned: BTreeMap<ObjectRef, (usize, usize)> = BTreeMap::new();
        for resource_type in ResourceType::ALL {
            for resource in snapshot.resources(resource_type).values() {
                owned.extend(resource.owners.iter().map(|owner| (owner.clone(), (0, 0))));
            }
        }
        for withheld in publisher.not_in_force(key).values() {
            owned.extend(withheld.owners.iter().map(|owner| (owner.clone(), (0, 0))));
        }
        let gateways: usize = told.iter().map(|(number, ..)| number).sum();
        for (number, group, other) in told {
            let count = |(behind, refused): &mut (usize, usize), standing| match standing {
                Standing::Behind => *behind += number,
                Standing::Refused => *refused += number,
                Standing::Current => {}
            };
            let is_same = other.and_then(|other| other.is_same);
            if is_same.is_none() && !group.is_cut {
                for (owner, standing) in &group.lacks {
                    if let Some(counts) = owned.get_mut(owner) {
                        count(counts, *standing);
                    }
                }
                continue;
            }
            for (owner, counts) in &mut owned {
                let standing = match group.lacks.get(owner) {
                    _ if is_same.is_some_and(|is_same| !is_same(owner)) => Standing::Behind,
                    Some(standing) => *standing,
                    None if group.is_cut => Standing::Behind,
                    None => Standing::Current,
                };
                count(counts, standing);
            }
        }
        if gateways == 0 {
            continue;
        }
        for (owner, (behind, refused)) in owned {
            let of_object = programmed.entry(owner).or_default();
            of_object.gateways += gateways;
            of_object.refused += refused;
            of_object.acknowledged += gateways - behind - refused;
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
