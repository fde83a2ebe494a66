//! The state of now, as the API tells it: gateways with what they hold, objects with what is wrong.
//!
//! An Envoy may be several streams (the separate services) and two Envoys may state one node id (a hot restart, a clone).
//! A gateway here is a node id of a class; of several streams the gravest state counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::document::FindingPart;
use super::{Sources, pb};
use crate::compile::Compiled;
use crate::emit::{listener_name, part_suffixes, route_configuration_name};
use crate::model::{Approval, EnvoyRelease, Finding, Kind, Name, ObjectRef};
use crate::publish::{GatewayKey, Withheld, limit_server};
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::status::View;
use crate::status::view::{NodeView, RefusalView, Standing, StreamView, TypeView};
use crate::xds::observation::Blame;

/// Tells everything, with ages counted back from a time.
///
/// # Cost
/// In proportion to gateways and objects; reads the files of objects with findings.
#[must_use]
pub fn status(sources: &Sources, compiled: &Compiled, now: jiff::Timestamp) -> pb::StatusResponse {
    let view = sources.ledger.view();
    let mut response = pb::StatusResponse { counts: counts(compiled), ..pb::StatusResponse::default() };
    for (gateway, node, view) in nodes(&view) {
        response.gateways.push(gateway_state(sources, gateway, node, view, now));
    }
    let mut findings = compiled.findings.to_vec();
    sources.places.locate(&mut findings);
    let mut by_object: BTreeMap<&ObjectRef, Vec<&Finding>> = BTreeMap::new();
    for finding in &findings {
        match &finding.subject {
            Some(subject) => by_object.entry(subject).or_default().push(finding),
            None => response.findings.push(FindingPart::from(finding).into()),
        }
    }
    let refused = refused_objects(sources, &view);
    let mentioned: BTreeSet<&ObjectRef> = by_object.keys().copied().chain(&refused).collect();
    response.objects = mentioned
        .into_iter()
        .map(|id| pb::Object {
            object: id.to_string(),
            approval: compiled.verdicts.get(id).map(|verdict| verdict.approval.to_string()).unwrap_or_default(),
            findings: by_object.remove(id).into_iter().flatten().map(|f| FindingPart::from(f).into()).collect(),
        })
        .collect();
    response
}

/// How many objects there are.
#[must_use]
pub fn objects_by_state(compiled: &Compiled) -> BTreeMap<(Kind, Option<Approval>), usize> {
    let mut counts = BTreeMap::new();
    for object in compiled.objects.objects() {
        let id = &object.meta.id;
        let approval = compiled.verdicts.get(id).map(|verdict| verdict.approval);
        *counts.entry((id.kind, approval)).or_default() += 1;
    }
    counts
}

fn counts(compiled: &Compiled) -> Vec<pb::ObjectCount> {
    objects_by_state(compiled)
        .into_iter()
        .map(|((kind, approval), objects)| pb::ObjectCount {
            kind: kind.to_string(),
            approval: approval.map(|approval| approval.to_string()).unwrap_or_default(),
            objects: objects as u64,
        })
        .collect()
}

/// All connected node ids with their class.
fn nodes(view: &View) -> impl Iterator<Item = (&Name, &Name, &NodeView)> {
    view.gateways.iter().flat_map(|(gateway, class)| class.nodes.iter().map(move |(id, node)| (gateway, id, node)))
}

/// Under which key a stream is served.
fn key(gateway: &Name, stream: &StreamView) -> Option<GatewayKey> {
    let version = stream.node.version.map(|version| (version.major, version.minor));
    Some(GatewayKey {
        gateway: gateway.parse().ok()?,
        bind: stream.node.bind.clone(),
        envoy: EnvoyRelease::serving(version),
    })
}

/// The snapshot that a stream is served.
fn snapshot(sources: &Sources, gateway: &Name, stream: &StreamView) -> Option<Arc<Snapshot>> {
    match limit_server(gateway) {
        Some(server) => sources.limits.current(&server),
        None => sources.publisher.current(&key(gateway, stream)?),
    }
}

fn gateway_state(sources: &Sources, gateway: &Name, node: &Name, view: &NodeView, now: jiff::Timestamp) -> pb::Gateway {
    let mut types: BTreeMap<ResourceType, pb::TypeState> = BTreeMap::new();
    for stream in view.streams.values() {
        let snapshot = snapshot(sources, gateway, stream);
        for (resource_type, on_stream) in &stream.types {
            let told = type_state(*resource_type, on_stream, snapshot.as_deref());
            match types.get_mut(resource_type) {
                Some(known) if known.state >= told.state => {}
                Some(known) => *known = told,
                None => {
                    types.insert(*resource_type, told);
                }
            }
        }
    }
    let connected_for = view.streams.values().map(|stream| stream.connected_for).max().unwrap_or_default();
    let version = view.streams.values().find_map(|stream| stream.node.version);
    pb::Gateway {
        gateway: gateway.to_string(),
        node: node.to_string(),
        envoy: version.map(|version| version.to_string()).unwrap_or_default(),
        since: since(now, connected_for),
        types: types.into_values().collect(),
        stuck: view.streams.values().any(|stream| stream.is_stuck),
    }
}

/// In RFC 3339, to the second.
fn since(now: jiff::Timestamp, ago: Duration) -> String {
    let then = jiff::SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok());
    format!("{:.0}", then.unwrap_or(now))
}

fn type_state(resource_type: ResourceType, view: &TypeView, snapshot: Option<&Snapshot>) -> pb::TypeState {
    let refusals: Vec<pb::Refusal> = exact(view)
        .map(|(name, refusal)| pb::Refusal {
            resource: name.to_string(),
            version: refusal.version.to_string(),
            message: refusal.message.to_string(),
            owners: owners(snapshot, resource_type, name).iter().map(ToString::to_string).collect(),
        })
        .collect();
    let is_current = snapshot.is_none_or(|snapshot| view.is_current(&snapshot.type_version(resource_type)));
    let state = if !refusals.is_empty() || view.refusals_unlisted > 0 {
        pb::State::Refused
    } else if is_current {
        pb::State::Acknowledged
    } else {
        pb::State::Behind
    };
    pb::TypeState {
        type_url: resource_type.type_url().to_owned(),
        state: state.into(),
        version: view.acknowledged.as_ref().map(ToString::to_string).unwrap_or_default(),
        outstanding: view.outstanding as u64,
        refusals,
    }
}

/// What a client refuses for what it is. What travelled with something bad is sent again by itself, and is only behind.
fn exact(view: &TypeView) -> impl Iterator<Item = (&Name, &RefusalView)> {
    view.refusals.iter().filter(|(_, refusal)| refusal.blame == Blame::Exact)
}

/// The objects that a resource was made from.
fn owners(snapshot: Option<&Snapshot>, resource_type: ResourceType, name: &str) -> Arc<[ObjectRef]> {
    let resource = snapshot.and_then(|snapshot| snapshot.get(resource_type, name));
    resource.map_or_else(|| Arc::from([]), |resource| resource.owners.clone())
}

fn refused_objects(sources: &Sources, view: &View) -> BTreeSet<ObjectRef> {
    let mut objects = BTreeSet::new();
    for (gateway, _, _, stream) in view.streams() {
        let snapshot = snapshot(sources, gateway, stream);
        for (resource_type, on_stream) in &stream.types {
            for (name, _) in exact(on_stream) {
                objects.extend(owners(snapshot.as_deref(), *resource_type, name).iter().cloned());
            }
        }
    }
    objects
}

/// How far the gateways of a class are with the listener of a port and the routes there; of a chain that is cut, with the
/// part for a host.
#[must_use]
pub fn holdings_of_request(sources: &Sources, gateway: &str, port: u16, host: &str) -> Vec<pb::Holding> {
    let (listener, routes) = (listener_name(port), route_configuration_name(port, ""));
    let parts = part_suffixes(host);
    // One per filter chain, where there are several.
    let is_of_port =
        |name: &Name| name.strip_prefix(routes.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let belongs = |snapshot: &Snapshot, resource_type, name: &Name| match resource_type {
        ResourceType::Listener => *name == listener,
        ResourceType::Route | ResourceType::ScopedRoute if !is_of_port(name) => false,
        // Beside the whole, parts stand by for connections that end; of parts of two numbers, each has connections that use it.
        ResourceType::Route | ResourceType::ScopedRoute if snapshot.get(ResourceType::ScopedRoute, name).is_some() => {
            let whole = name.rsplit_once('/').map_or("", |(whole, _)| whole);
            parts.iter().any(|part| name.ends_with(part)) && snapshot.get(ResourceType::Route, whole).is_none()
        }
        resource_type => resource_type == ResourceType::Route,
    };
    holdings(sources, |class, snapshot, resource_type, name, _| {
        class == gateway && belongs(snapshot, resource_type, name)
    })
}

/// How far all gateways are with what was made from an object.
#[must_use]
pub fn holdings_of_object(sources: &Sources, object: &ObjectRef) -> Vec<pb::Holding> {
    holdings(sources, |_, _, _, _, owners| owners.contains(object))
}

/// How far gateways are with those resources of their snapshots that a question approves.
///
/// The answer to the question is about what was compiled. Where that is not in force because it was refused, it is told as
/// refused, also of gateways that hold what stands in for it.
///
/// # Cost
/// In proportion to the gateways, times the resources of a snapshot.
fn holdings(
    sources: &Sources,
    wanted: impl Fn(&str, &Snapshot, ResourceType, &Name, &[ObjectRef]) -> bool,
) -> Vec<pb::Holding> {
    let view = sources.ledger.view();
    let mut holdings = Vec::new();
    for (gateway, node, view) in nodes(&view) {
        let mut of_node: BTreeMap<(ResourceType, String), pb::Holding> = BTreeMap::new();
        for stream in view.streams.values() {
            let Some(snapshot) = snapshot(sources, gateway, stream) else { continue };
            let not_in_force = key(gateway, stream).map(|key| sources.publisher.not_in_force(&key)).unwrap_or_default();
            for resource_type in ResourceType::ALL {
                let (resources, version) = (snapshot.resources(resource_type), snapshot.type_version(resource_type));
                let on_stream = stream.types.get(&resource_type);
                let mut told: Vec<pb::Holding> = Vec::new();
                let holding = |name: &Name, version: &Version, state: pb::State, message: &str| pb::Holding {
                    gateway: gateway.to_string(),
                    node: node.to_string(),
                    type_url: resource_type.type_url().to_owned(),
                    resource: name.to_string(),
                    version: version.to_string(),
                    state: state.into(),
                    message: message.to_owned(),
                };
                for (name, resource) in resources.iter() {
                    let withheld = not_in_force.get(&(resource_type, name.clone()));
                    let owners = withheld.map_or(&resource.owners, |withheld| &withheld.owners);
                    if !wanted(gateway, &snapshot, resource_type, name, owners) {
                        continue;
                    }
                    if let Some(Withheld { version, message, .. }) = withheld {
                        let words = format!("not in force, the last accepted version is; refused: {message}");
                        told.push(holding(name, version, pb::State::Refused, &words));
                        continue;
                    }
                    let refusal = on_stream.and_then(|view| exact(view).find(|(refused, _)| *refused == name));
                    let state = match on_stream.map(|view| view.standing(&resources, &version, name)) {
                        _ if refusal.is_some() => pb::State::Refused,
                        Some(Standing::Current) => pb::State::Acknowledged,
                        Some(Standing::Behind | Standing::Refused) | None => pb::State::Behind,
                    };
                    let words = refusal.map_or("", |(_, refusal)| &refusal.message);
                    told.push(holding(name, &resource.version, state, words));
                }
                // What was refused and never accepted is not served any more.
                let gone = on_stream.into_iter().flat_map(exact).filter(|(name, _)| !resources.contains_key(*name));
                for (name, refusal) in gone.filter(|(name, _)| wanted(gateway, &snapshot, resource_type, name, &[])) {
                    told.push(holding(name, &refusal.version, pb::State::Refused, &refusal.message));
                }
                // A stream without the type says nothing where another one has it: the separate services.
                let others = view.streams.values().any(|other| other.types.contains_key(&resource_type));
                if on_stream.is_none() && others {
                    continue;
                }
                for holding in told {
                    let key = (resource_type, holding.resource.clone());
                    if of_node.get(&key).is_none_or(|known| known.state < holding.state) {
                        of_node.insert(key, holding);
                    }
                }
            }
        }
        holdings.extend(of_node.into_values());
    }
    holdings
}
