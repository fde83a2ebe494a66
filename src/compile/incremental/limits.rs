//! What rate-limit services are told, made anew when a configuration or a server that it names is another.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Findings, ObjectRef};
use crate::resolve::policy::rate_limit::serving::{deliver, plan};
use crate::resolve::world::World;

use super::Made;
use super::outcome::{Count, Origin};
use super::slots::{Dirty, Reader, Recording, take};

impl Made {
    /// Finds out where configurations go, and what their services are told.
    ///
    /// # Cost
    /// In proportion to the configurations that are others, and to all of the services that they go to.
    pub(super) fn deliver(&mut self, dirty: &mut Dirty) {
        let mut stale: BTreeSet<ObjectRef> = BTreeSet::new();
        for reader in take(dirty, |reader| matches!(reader, Reader::Delivery(_))) {
            let Reader::Delivery(id) = &reader else { continue };
            let origin = Origin::Delivery(id.clone());
            let before = self.deliveries.remove(id);
            let Some(object) = self.inputs.limit_object(id) else {
                self.reads.forget(&reader);
                self.outcome.forget(&origin);
                stale.extend(before.into_iter().flat_map(|delivery| delivery.servers));
                continue;
            };
            let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
            let now = deliver(&world, &object, &mut findings);
            self.reads.record(&reader, world.into_slots());
            self.outcome.set(origin.clone(), findings);
            let servers = now.as_ref().map_or(0, |delivery| delivery.servers.len());
            self.outcome.count(&origin, vec![Count::new(id, "numSelectedDestinationServers", servers)]);
            if before != now {
                stale.extend(before.iter().chain(&now).flat_map(|delivery| delivery.servers.iter().cloned()));
            }
            if let Some(now) = now {
                self.deliveries.insert(id.clone(), now);
            }
        }
        for server in stale {
            let origin = Origin::LimitServer(server.clone());
            let mut own = self.deliveries.values().filter(|delivery| delivery.servers.contains(&server)).peekable();
            if own.peek().is_none() {
                self.limits.remove(&server);
                self.outcome.forget(&origin);
                continue;
            }
            let mut findings = Findings::new();
            let now = plan(&server, own, &mut findings);
            self.outcome.set(origin, findings);
            if self.limits.get(&server).is_none_or(|before| **before != now) {
                self.limits.insert(server, Arc::new(now));
            }
        }
    }
}
