//! What gateways send to other clusters, and what these open for it: made anew when somebody sends to something else, not
//! when an endpoint comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{GatewayPlan, Listener, Secret, SecretId, Upstream, UpstreamId};
use crate::model::{Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::crossing::{Exposure, crossings};
use crate::resolve::gateway::{Membership, membership};

use super::outcome::Origin;
use super::serving::{Around, Serving};
use super::slots::{Reader, Recording};

/// Who sends to what, and which clusters must look at it again.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    all: BTreeSet<Exposure>,
    stale: BTreeSet<Name>,
}

impl Exposed {
    fn add(&mut self, exposure: Exposure) {
        if !self.all.contains(&exposure) {
            self.stale.insert(exposure.target.object.cluster.clone());
            self.all.insert(exposure);
        }
    }

    fn remove(&mut self, exposure: &Exposure) {
        if self.all.remove(exposure) {
            self.stale.insert(exposure.target.object.cluster.clone());
        }
    }

    /// Takes the clusters to whose Services somebody sends who did not before, or the other way round.
    pub(super) fn take_stale(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.stale)
    }

    /// Those of Services of a cluster.
    fn within<'e>(&'e self, cluster: &'e Name) -> impl Iterator<Item = &'e Exposure> {
        let object = ObjectRef::new(Kind::Service, cluster, "", "");
        let nothing = UpstreamId::new(&object, 0);
        let sender = GatewayId::new("", "", Vec::new());
        let first = Exposure { target: nothing.clone(), sender, upstream: nothing };
        self.all.range(first..).take_while(move |exposure| exposure.target.object.cluster == *cluster)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// A gateway's part in the mesh.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    /// What its upstreams expose.
    exposing: BTreeMap<UpstreamId, Vec<Exposure>>,
    /// Those of its upstreams that need its identity.
    needing: BTreeSet<UpstreamId>,
    /// What its upstreams need beside its identity, and how many do.
    secrets: BTreeMap<SecretId, (Secret, usize)>,
    /// Who it is, while it sends or receives.
    member: Option<Membership>,
    /// What gateways of other clusters connect to.
    pub(super) listeners: BTreeMap<u16, Arc<Listener>>,
    /// What of the plan's secrets its own listeners need.
    pub(super) of_listeners: BTreeMap<SecretId, Secret>,
    pub(super) are_secrets_stale: bool,
    /// Ports of its own listeners.
    pub(super) taken: BTreeSet<u16>,
}

impl Crossing {
    /// Who the gateway is to others.
    pub(super) fn identity(&self) -> Option<&Name> {
        self.member.as_ref().map(|member| &member.uri)
    }

    /// The upstreams of what others connect to.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &UpstreamId> {
        self.listeners.values().flat_map(|listener| listener.relayed())
    }

    /// How many parts are held.
    pub(super) fn len(&self) -> usize {
        self.exposing.len()
            + self.needing.len()
            + self.secrets.len()
            + self.of_listeners.len()
            + self.upstreams().count()
    }
}

impl Serving {
    /// Notes what an upstream exposes and needs, which was another or none before.
    pub(super) fn note_upstream(
        &mut self,
        id: &UpstreamId,
        before: Option<&Upstream>,
        now: Option<&Upstream>,
        exposed: &mut Exposed,
    ) {
        let of = |upstream: Option<&Upstream>| upstream.map(|upstream| upstream.secrets.clone()).unwrap_or_default();
        let (gone, come) = (of(before), of(now));
        if gone != come {
            self.crossing.are_secrets_stale = true;
            for (secret, content) in come {
                let entry = self.crossing.secrets.entry(secret).or_insert((content.clone(), 0));
                *entry = (content, entry.1 + 1);
            }
            for (secret, _) in gone {
                if let Some((_, uses)) = self.crossing.secrets.get_mut(&secret) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.crossing.secrets.remove(&secret);
                    }
                }
            }
        }
        let exposure = |target: &UpstreamId| Exposure {
            target: target.clone(),
            sender: self.gateway.clone(),
            upstream: id.clone(),
        };
        let needs = now.is_some_and(Upstream::needs_identity);
        let changed = if needs { self.crossing.needing.insert(id.clone()) } else { self.crossing.needing.remove(id) };
        self.crossing.are_secrets_stale |= changed;
        let now: Vec<Exposure> =
            now.into_iter().flat_map(|now| now.remotes.values()).map(|remote| exposure(&remote.target)).collect();
        let before = self.crossing.exposing.remove(id).unwrap_or_default();
        now.iter().filter(|exposure| !before.contains(exposure)).for_each(|exposure| exposed.add(exposure.clone()));
        before.iter().filter(|exposure| !now.contains(exposure)).for_each(|exposure| exposed.remove(exposure));
        if !now.is_empty() {
            self.crossing.exposing.insert(id.clone(), now);
        }
    }

    /// Brings the plan's secrets up to date, and who the gateway is; `is_stale` says that this may be another.
    pub(super) fn settle_secrets(&mut self, plan: &mut Arc<GatewayPlan>, is_stale: bool, around: &mut Around<'_>) {
        if !std::mem::take(&mut self.crossing.are_secrets_stale) && !is_stale {
            return;
        }
        let reader = Reader::Identity(self.gateway.clone());
        let is_member = !self.crossing.needing.is_empty()
            || self.crossing.listeners.values().any(|listener| listener.ends_crossings());
        let origin = Origin::Identity(self.gateway.clone());
        let before = self.crossing.identity().cloned();
        if is_member && (is_stale || self.crossing.member.is_none()) {
            let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
            self.crossing.member = membership(&world, &self.gateway, &mut findings);
            around.reads.record(&reader, world.into_slots());
            around.outcome.set(origin, findings);
        } else if !is_member && self.crossing.member.take().is_some() {
            around.reads.forget(&reader);
            around.outcome.forget(&origin);
        }
        if self.crossing.identity() != before.as_ref() {
            let targets = self.crossing.exposing.values().flatten().map(|exposure| &exposure.target.object.cluster);
            around.exposed.stale.extend(targets.cloned());
        }
        let mut secrets = self.crossing.of_listeners.clone();
        secrets.extend(self.crossing.secrets.iter().map(|(id, (content, _))| (id.clone(), content.clone())));
        secrets.extend(self.crossing.member.iter().flat_map(|member| member.secrets.iter().cloned()));
        if plan.secrets != secrets {
            Arc::make_mut(plan).secrets = secrets;
        }
    }

    /// Makes anew what gateways of other clusters connect to. Returns the upstreams that it names more or less than before.
    ///
    /// # Cost
    /// In proportion to what others send to in the gateway's cluster.
    pub(super) fn cross(
        &mut self,
        plan: &mut Arc<GatewayPlan>,
        identities: &BTreeMap<GatewayId, Name>,
        around: &mut Around<'_>,
    ) -> BTreeSet<UpstreamId> {
        let (own, taken) = (&self.crossing.listeners, &self.crossing.taken);
        let (world, mut findings) = (Recording::new(around.inputs), Findings::new());
        let here = around.exposed.within(&self.gateway.cluster);
        let identity = |gateway: &GatewayId| identities.get(gateway).cloned();
        let listeners = crossings(&world, &self.gateway, here, identity, taken, &mut findings);
        let (reader, origin) = (Reader::Crossing(self.gateway.clone()), Origin::Crossing(self.gateway.clone()));
        around.reads.record(&reader, world.into_slots());
        around.outcome.set(origin, findings);
        if listeners == *own {
            return BTreeSet::new();
        }
        let before: BTreeSet<UpstreamId> = self.crossing.upstreams().cloned().collect();
        let changed = Arc::make_mut(plan);
        changed.listeners.retain(|port, _| taken.contains(port));
        changed.listeners.extend(listeners.clone());
        let ends = |all: &BTreeMap<u16, Arc<Listener>>| all.values().any(|listener| listener.ends_crossings());
        self.crossing.are_secrets_stale |= ends(own) != ends(&listeners);
        self.crossing.listeners = listeners;
        let now: BTreeSet<UpstreamId> = self.crossing.upstreams().cloned().collect();
        for id in now.difference(&before) {
            *self.wanted.entry(id.clone()).or_default() += 1;
        }
        for id in before.difference(&now) {
            self.release(id);
        }
        now.symmetric_difference(&before).cloned().collect()
    }

    /// Leaves nothing of what the gateway sends behind.
    pub(super) fn forget_crossing(&self, exposed: &mut Exposed) {
        self.crossing.exposing.values().flatten().for_each(|exposure| exposed.remove(exposure));
    }
}

/// Who is who to other clusters.
pub(super) fn identities(serving: &BTreeMap<GatewayId, Serving>) -> BTreeMap<GatewayId, Name> {
    let known = serving.iter().filter_map(|(gateway, own)| Some((gateway.clone(), own.crossing.identity()?.clone())));
    known.collect()
}
