//! What a rate-limit service is told to allow: the rules of all configurations that name it, each kept apart.
//!
//! The service takes all rules or none, so what it would refuse is refused here, configuration by configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::policy::rate_limit::{ConfigurationLimits, LimitNode, LimitPlan, LimitRules, Limits};
use crate::ir::policy::reference::DestinationRef;
use crate::ir::upstream::{Purpose, UpstreamId};
use crate::model::{Code, FieldPath, Finding, Findings, Kind, ObjectRef, WorkspaceId};
use crate::resolve::facts::{Age, Fault};
use crate::resolve::policy::settling::find_server;
use crate::resolve::upstream::behind;
use crate::resolve::world::World;

use super::{CONFIG_KEY, LimitContent, LimitObject, config_name, sets, tree};

/// Most bytes of one configuration, as the service gets it.
pub const LARGEST: usize = 512 << 10;

/// Most bytes of all configurations of a service: gRPC takes messages of up to 4 MiB unless told otherwise.
const LARGEST_TOGETHER: usize = (4 << 20) - (64 << 10);

/// Where a configuration goes, and what it says there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The services; at least one.
    pub servers: BTreeSet<ObjectRef>,
    /// Its age.
    pub age: Age,
    /// Its rules.
    pub limits: Arc<ConfigurationLimits>,
    /// About how many bytes that is.
    pub bytes: usize,
}

/// The node of a configuration.
#[must_use]
pub fn node(id: &ObjectRef, rules: &LimitRules) -> LimitNode {
    // What sets cannot be made into is a fault of the configuration already.
    let sets = sets::nodes(id, &rules.sets).unwrap_or_default();
    let nodes = tree::nodes(id, &rules.tree).into_iter().chain(sets.nodes).collect();
    LimitNode { key: CONFIG_KEY.into(), value: Some(config_name(id).into()), limit: None, nodes }
}

/// About how many bytes a node has as a message; not less.
#[must_use]
pub fn bytes(node: &LimitNode) -> usize {
    /// Tags and lengths of a message's fields.
    const FRAME: usize = 8;
    let limit = node.limit.as_ref().map_or(0, |limit| {
        let replaced: usize = limit.replaces.iter().map(|name| name.len() + FRAME).sum();
        limit.name.len() + replaced + 4 * FRAME
    });
    let value = node.value.as_ref().map_or(0, |value| value.len());
    2 * FRAME + node.key.len() + value + limit + node.nodes.iter().map(bytes).sum::<usize>()
}

/// Where a configuration goes; nothing where it says nothing, or goes nowhere.
///
/// # Findings
/// Servers that are not there: as errors where no other is left, else as warnings, on the configuration.
///
/// # Cost
/// In proportion to its rules and servers.
pub fn deliver<W: World + ?Sized>(world: &W, object: &LimitObject, findings: &mut Findings) -> Option<Delivery> {
    let Ok(LimitContent::Rules(rules)) = &object.content else { return None };
    let owner = world.roster().owner_of(&object.id)?;
    let mut lost: Vec<Fault> = Vec::new();
    let servers = destinations(world, &object.id, owner, rules.enforcers.services(), &mut lost);
    for Fault { code, field, message } in lost {
        let finding = match servers.is_empty() {
            true => Finding::error(&object.id, code, message),
            false => Finding::warning(&object.id, code, message),
        };
        findings.push(finding.at(field));
    }
    let limits = ConfigurationLimits { id: object.id.clone(), node: node(&object.id, rules) };
    let bytes = bytes(&limits.node);
    (!servers.is_empty()).then(|| Delivery { servers, age: object.age.clone(), limits: Arc::new(limits), bytes })
}

/// Whether a service gets the rules that limits are asked by.
pub fn reaches<W: World + ?Sized>(world: &W, limits: &Limits, server: &UpstreamId) -> bool {
    let Some(id) = limits.items.first().and_then(super::configuration_of) else { return false };
    let (Some(object), Some(owner)) = (world.limit_object(&id), world.roster().owner_of(&id)) else { return false };
    let Ok(LimitContent::Rules(rules)) = &object.content else { return false };
    let reached = destinations(world, &id, owner, rules.enforcers.services(), &mut Vec::new());
    services(world, server).any(|service| reached.contains(&service))
}

/// The Services that a configuration names, those behind virtual destinations too. What is wrong with others is added to
/// `lost`.
pub(super) fn destinations<W: World + ?Sized>(
    world: &W,
    holder: &ObjectRef,
    owner: &WorkspaceId,
    servers: &[DestinationRef],
    lost: &mut Vec<Fault>,
) -> BTreeSet<ObjectRef> {
    let list = FieldPath::new("spec.destinationServers");
    let mut found = BTreeSet::new();
    for (index, written) in servers.iter().enumerate() {
        match find_server(world, holder, owner, &list.index(index), written, &mut Findings::new()) {
            Ok(upstream) => found.extend(services(world, &upstream)),
            Err(fault) => lost.push(fault),
        }
    }
    found
}

/// A Service, or those behind a virtual destination.
pub(super) fn services<W: World + ?Sized>(world: &W, upstream: &UpstreamId) -> impl Iterator<Item = ObjectRef> {
    let upstream = UpstreamId { purpose: Purpose::Routes, ..upstream.clone() };
    let all = behind(world, &upstream).into_iter().map(|target| target.object);
    all.filter(|object| object.kind == Kind::Service)
}

/// What a service is told.
///
/// # Findings
/// As errors on configurations that are left out because the service would not take so much; older ones go first.
///
/// # Cost
/// In proportion to the configurations.
pub fn plan<'a>(
    server: &ObjectRef,
    deliveries: impl Iterator<Item = &'a Delivery>,
    findings: &mut Findings,
) -> LimitPlan {
    let mut by_age: Vec<&Delivery> = deliveries.collect();
    by_age.sort_by(|a, b| a.age.cmp(&b.age));
    let mut left = LARGEST_TOGETHER;
    let mut configurations: BTreeMap<&ObjectRef, Arc<ConfigurationLimits>> = BTreeMap::new();
    for delivery in by_age {
        let id = &delivery.limits.id;
        if delivery.bytes > left {
            let message = format!(
                "the older configurations of `{server}` leave no room for this one, so nothing of it is enforced there; shorten them, or use another server"
            );
            findings.push(Finding::error(id, Code::Unsupported, message).with(server));
            continue;
        }
        left -= delivery.bytes;
        configurations.insert(id, delivery.limits.clone());
    }
    LimitPlan { server: server.clone(), configurations: configurations.into_values().collect() }
}

#[cfg(test)]
mod tests;
