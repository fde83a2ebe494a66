//! What policies share for all routes of a gateway, made anew when a policy or an owner comes or goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::{GatewayPlan, UpstreamId};
use crate::model::{Findings, ObjectRef};
use crate::resolve::gateway::{OpenEntries, Sharing, extensions, values};

use super::outcome::Origin;
use super::serving::{Around, Serving};
use super::slots::{Reader, Recording};

impl Serving {
    /// Takes in that a tree says something else than before.
    ///
    /// # Cost
    /// In proportion to its owners.
    pub(super) fn reshare(&mut self, root: &ObjectRef, before: &Sharing, now: &Sharing) {
        for owner in now.owners.difference(&before.owners) {
            let pieces = self.sharers.entry(owner.clone()).or_default();
            *pieces += 1;
            self.is_sharing_stale |= *pieces == 1;
        }
        for owner in before.owners.difference(&now.owners) {
            if let Some(pieces) = self.sharers.get_mut(owner) {
                *pieces -= 1;
                if *pieces == 0 {
                    self.sharers.remove(owner);
                    self.is_sharing_stale = true;
                }
            }
        }
        self.is_sharing_stale |= before.kept != now.kept;
        if before.open != now.open {
            self.is_sharing_stale = true;
            let open = self.open.entry(root.clone()).or_default();
            for (whose, own) in &now.open {
                *open.entry(whose.clone()).or_default() += own;
            }
            for (whose, own) in &before.open {
                if let Some(sum) = open.get_mut(whose) {
                    *sum -= own;
                    if *sum == 0 {
                        open.remove(whose);
                    }
                }
            }
            if open.is_empty() {
                self.open.remove(root);
            }
        }
    }

    /// What the gateway counts by itself on all its hosts.
    ///
    /// # Cost
    /// In proportion to the trees with such limits, their hosts and policies.
    fn open_entries(&self) -> OpenEntries {
        let mut all = OpenEntries::new();
        for (root, open) in &self.open {
            let times = self.times_served(root);
            for (whose, own) in open.iter().filter(|_| times > 0) {
                *all.entry(whose.clone()).or_default() += own.saturating_mul(times);
            }
        }
        all
    }

    /// Makes anew what policies share, if it may be another. Returns the upstreams that it names more or less than before.
    pub(super) fn share(&mut self, plan: &mut Arc<GatewayPlan>, around: &mut Around<'_>) -> BTreeSet<UpstreamId> {
        if !std::mem::take(&mut self.is_sharing_stale) {
            return BTreeSet::new();
        }
        let world = Recording::new(around.inputs);
        let kept = self.pieces.values().flat_map(|pieces| &pieces.sharing).map(|sharing| &sharing.kept);
        let mut findings = Findings::new();
        let mut now = extensions(&world, &self.gateway, self.sharers.keys(), kept, &mut findings);
        now.values = values(&self.gateway, &self.open_entries(), &mut findings);
        around.reads.record(&Reader::Extensions(self.gateway.clone()), world.into_slots());
        around.outcome.set(Origin::Extensions(self.gateway.clone()), findings);
        if *plan.extensions == now {
            return BTreeSet::new();
        }
        let upstreams: BTreeSet<UpstreamId> = now.upstreams().cloned().collect();
        let before = std::mem::replace(&mut self.of_extensions, upstreams);
        for id in self.of_extensions.difference(&before) {
            *self.wanted.entry(id.clone()).or_default() += 1;
        }
        for id in before.difference(&self.of_extensions) {
            if let Some(uses) = self.wanted.get_mut(id) {
                *uses -= 1;
                if *uses == 0 {
                    self.wanted.remove(id);
                }
            }
        }
        Arc::make_mut(plan).extensions = Arc::new(now);
        self.of_extensions.symmetric_difference(&before).cloned().collect()
    }
}
