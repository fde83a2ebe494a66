//! In which order the endpoints of a destination are used: by how far they are from the gateway, where outlier detection says
//! which of them still answer, or as a FailoverPolicy says.
//!
//! # Rule
//! R172 to R177.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::Upstream;
use crate::ir::policy::Policy;
use crate::ir::policy::balancing::{Area, Failover, Leads, Mapping, PriorityLabel};
use crate::ir::upstream::{Endpoint, Locality, UpstreamId};
use crate::model::labels::contains_all;
use crate::model::{Code, Finding, Findings, GatewayId, Kind, Labels, Name, ObjectRef};

use super::crossing::common;
use super::destination::selects;
use super::facts::{PolicyEffect, PolicyObject, Service};
use super::selection::destination_labels;
use super::world::World;

/// Shares of places are whole numbers of this part of a percent.
const FINENESS: u64 = 1_000;

/// Where a gateway is: what the Pods of its class have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Region, then zone and sub-zone.
    pub locality: Locality,
    /// Labels, those of the place among them.
    pub labels: Labels,
}

impl Place {
    /// Where a gateway is.
    ///
    /// # Cost
    /// In proportion to the Pods of its namespace.
    pub fn of<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> Self {
        let service = |name: &Name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
        let services: Vec<_> = gateway.services.iter().filter_map(|name| world.service(&service(name))).collect();
        let mut pods = world.pods(&gateway.cluster, &gateway.namespace);
        pods.retain(|pod| {
            let selects =
                |service: &Arc<Service>| !service.selector.is_empty() && contains_all(&pod.labels, &service.selector);
            !services.is_empty() && services.iter().all(selects)
        });
        let place = |node: &Name| {
            let node = world.node(&gateway.cluster, node)?;
            Some(Locality { region: node.region.clone(), zone: node.zone.clone(), sub_zone: node.sub_zone.clone() })
        };
        let places: Vec<Locality> =
            pods.iter().map(|pod| pod.node.as_ref().and_then(place).unwrap_or_default()).collect();
        let locality = common(places.iter());
        let mut labels = common_labels(pods.iter().map(|pod| &pod.labels));
        labels.extend(topology(&locality));
        Self { locality, labels }
    }
}

/// The labels of a place.
pub(super) fn topology(locality: &Locality) -> Labels {
    let named = [
        ("topology.kubernetes.io/region", &locality.region),
        ("topology.kubernetes.io/zone", &locality.zone),
        ("topology.istio.io/subzone", &locality.sub_zone),
    ];
    let known = named.into_iter().filter(|(_, name)| !name.is_empty());
    known.map(|(key, name)| (Name::from(key), name.clone())).collect()
}

/// What the owner of a destination says of its endpoints.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    outlier: Option<Arc<PolicyObject>>,
    failover: Option<Arc<PolicyObject>>,
}

/// The labels of endpoints, by address and port; for east-west gateways those that all behind them have.
pub(super) type EndpointLabels = BTreeMap<(Name, u16), Labels>;

impl Balancing {
    /// The oldest valid policies of both kinds that select a destination.
    ///
    /// # Findings
    /// [`Code::BeatenByOlder`] on the others; [`Code::PolicyRemark`] on a FailoverPolicy where nothing says which endpoints
    /// fail.
    ///
    /// # Rule
    /// R118, R126, R175, R177.
    pub(super) fn of<W: World + ?Sized>(world: &W, upstream: &UpstreamId, findings: &mut Findings) -> Self {
        let id = &upstream.object;
        let mut balancing = Self::default();
        if id.kind == Kind::Service {
            return balancing;
        }
        let (Some(owner), Some(labels)) = (world.roster().owner_of(id), destination_labels(world, id)) else {
            return balancing;
        };
        for policy in world.connection_policies(owner, id, &labels) {
            if !policy.targets.destinations.iter().any(|selector| selects(world, selector, upstream)) {
                continue;
            }
            let place = match &policy.effect {
                PolicyEffect::Valid(Policy::Outlier(_)) => &mut balancing.outlier,
                PolicyEffect::Valid(Policy::Failover(_)) if id.kind != Kind::ExternalService => &mut balancing.failover,
                _ => continue,
            };
            match place {
                None => *place = Some(policy),
                Some(winner) => {
                    let message = format!("for `{id}` the older `{}` applies in place of this policy", winner.id);
                    let finding = Finding::warning(&policy.id, Code::BeatenByOlder, message);
                    findings.push(finding.with(&winner.id).with(id));
                }
            }
        }
        if let (Some(failover), None) = (&balancing.failover, &balancing.outlier) {
            let message =
                format!("nothing fails over at `{id}`: no OutlierDetectionPolicy says when its endpoints have failed");
            findings.push(Finding::warning(&failover.id, Code::PolicyRemark, message).with(id));
        }
        balancing
    }

    /// Whether endpoints are ranked by their labels.
    pub(super) fn reads_labels(&self) -> bool {
        self.outlier.is_some() && matches!(self.order(), Some(Failover::ByLabel(_)))
    }

    fn order(&self) -> Option<&Failover> {
        match &self.failover.as_ref()?.effect {
            PolicyEffect::Valid(Policy::Failover(order)) => Some(order),
            _ => None,
        }
    }

    /// Says which endpoints are left alone when they fail, and puts them in order.
    ///
    /// # Findings
    /// [`Code::PolicyRemark`] on a FailoverPolicy that leads where there are no endpoints.
    ///
    /// # Cost
    /// In proportion to the endpoints.
    ///
    /// # Rule
    /// R173, R174, R176.
    pub(super) fn arrange<W: World + ?Sized>(
        &self,
        world: &W,
        gateway: &GatewayId,
        labels: &EndpointLabels,
        upstream: &mut Upstream,
        findings: &mut Findings,
    ) {
        let Some(PolicyEffect::Valid(Policy::Outlier(outlier))) = self.outlier.as_ref().map(|policy| &policy.effect)
        else {
            return;
        };
        upstream.outlier = Some(outlier.clone());
        let Place { locality: place, labels: own } = world.place(gateway);
        let mapping = match self.order() {
            Some(Failover::ByLabel(wanted)) => {
                rank(upstream, |_, endpoint| {
                    let none = Labels::new();
                    let labels = labels.get(&(endpoint.address.clone(), endpoint.port)).unwrap_or(&none);
                    Some(by_label(wanted, &own, labels))
                });
                return;
            }
            Some(Failover::ByPlace(mappings)) => fitting(mappings, &place),
            None => None,
        };
        match mapping.map(|mapping| &mapping.to) {
            None => rank(upstream, |locality, endpoint| Some(distance(&place, locality, endpoint))),
            Some(Leads::InOrder(areas)) => {
                self.tell_empty(areas.iter(), upstream, findings);
                rank(upstream, |locality, endpoint| {
                    if locality.region == place.region {
                        return Some(distance(&place, locality, endpoint));
                    }
                    let position = areas.iter().position(|area| has(area, locality))?;
                    Some(FARTHEST.saturating_add(u32::try_from(position).unwrap_or(u32::MAX)))
                });
            }
            Some(Leads::InShares(areas)) => {
                self.tell_empty(areas.iter().map(|(area, _)| area), upstream, findings);
                share(upstream, areas);
            }
        }
    }

    fn tell_empty<'a>(&self, areas: impl Iterator<Item = &'a Area>, upstream: &Upstream, findings: &mut Findings) {
        let Some(policy) = &self.failover else { return };
        for area in areas.filter(|area| !upstream.endpoints.keys().any(|locality| has(area, locality))) {
            let message = format!("`{}` has no endpoint in {}", upstream.id.object, shown(area));
            findings.push(Finding::warning(&policy.id, Code::PolicyRemark, message).with(&upstream.id.object));
        }
    }
}

fn shown(area: &Area) -> String {
    let parts = [("region", &area.region), ("zone", &area.zone), ("sub-zone", &area.sub_zone)];
    let parts = parts.into_iter().filter(|(_, name)| !name.is_empty());
    parts.map(|(what, name)| format!("{what} `{name}`")).collect::<Vec<_>>().join(", ")
}

/// The mapping for gateways of a place: the narrowest, of several the first.
fn fitting<'m>(mappings: &'m [Mapping], place: &Locality) -> Option<&'m Mapping> {
    let narrow = |area: &Area| u8::from(!area.zone.is_empty()) + u8::from(!area.sub_zone.is_empty());
    let fits = mappings.iter().filter(|mapping| has(&mapping.from, place));
    // The first of those that are as narrow.
    fits.rev().max_by_key(|mapping| narrow(&mapping.from))
}

fn has(area: &Area, locality: &Locality) -> bool {
    let is = |wanted: &Name, own: &Name| wanted.is_empty() || wanted == own;
    area.region == locality.region && is(&area.zone, &locality.zone) && is(&area.sub_zone, &locality.sub_zone)
}

/// The rank of what is in no way near.
const FARTHEST: u32 = 4;

/// R173: the own cluster comes first where the place is the same, also where both are unknown.
fn distance(place: &Locality, locality: &Locality, endpoint: &Endpoint) -> u32 {
    if locality == place {
        return u32::from(endpoint.via.is_some());
    }
    if place.region.is_empty() || locality.region != place.region {
        return FARTHEST;
    }
    if locality.zone == place.zone { 2 } else { 3 }
}

/// How many labels, from the first that differs on, are not as wanted.
fn by_label(wanted: &[PriorityLabel], own: &Labels, labels: &Labels) -> u32 {
    let is_same = |label: &PriorityLabel| {
        let value = label.value.as_ref().or_else(|| own.get(&label.key));
        value.is_some() && labels.get(&label.key) == value
    };
    let same = wanted.iter().take_while(|label| is_same(label)).count();
    u32::try_from(wanted.len() - same).unwrap_or(u32::MAX)
}

/// Gives each endpoint the priority of its rank, without gaps; what has none goes.
fn rank(upstream: &mut Upstream, of: impl Fn(&Locality, &Endpoint) -> Option<u32>) {
    let mut ranks: BTreeSet<u32> = BTreeSet::new();
    for (locality, endpoints) in &mut upstream.endpoints {
        endpoints.retain_mut(|endpoint| {
            let rank = of(locality, endpoint);
            endpoint.priority = rank.unwrap_or_default();
            ranks.extend(rank);
            rank.is_some()
        });
    }
    let priorities: BTreeMap<u32, u32> = ranks.into_iter().zip(0..).collect();
    for endpoint in upstream.endpoints.values_mut().flatten() {
        endpoint.priority = priorities.get(&endpoint.priority).copied().unwrap_or_default();
    }
    upstream.endpoints.retain(|_, endpoints| !endpoints.is_empty());
}

/// Gives each place of some areas its part of the area's share; what is in none of them goes.
fn share(upstream: &mut Upstream, areas: &[(Area, u32)]) {
    let area_of = |locality: &Locality| areas.iter().position(|(area, _)| has(area, locality));
    upstream.endpoints.retain(|locality, endpoints| area_of(locality).is_some() && !endpoints.is_empty());
    let weight = |endpoints: &[Endpoint]| endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum::<u64>();
    let mut all: BTreeMap<usize, u64> = BTreeMap::new();
    for (locality, endpoints) in &upstream.endpoints {
        *all.entry(area_of(locality).unwrap_or_default()).or_default() += weight(endpoints);
    }
    for (locality, endpoints) in &upstream.endpoints {
        let area = area_of(locality).unwrap_or_default();
        let whole = all.get(&area).copied().unwrap_or_default().max(1);
        let own = u64::from(areas[area].1) * FINENESS * weight(endpoints) / whole;
        upstream.shares.insert(locality.clone(), u32::try_from(own.max(1)).unwrap_or(u32::MAX));
    }
}

/// What several sets of labels have in common.
pub(super) fn common_labels<'a>(mut sets: impl Iterator<Item = &'a Labels>) -> Labels {
    let mut common = sets.next().cloned().unwrap_or_default();
    for set in sets {
        common.retain(|key, value| set.get(key) == Some(value));
    }
    common
}
