//! First endpoints: those of a destination that policies protect, where the client holds none yet.
//!
//! What protects a destination stands on routes and in its cluster, and endpoints wait for neither. Where they came in one edit
//! with it, routes as they were would lead to them for a moment. So they wait until the client has taken everything of the
//! snapshot in which they came; a cluster that cannot warm without them is told for the time that there are none.
//!
//! What a client holds is known by its version, so that it doesn't matter who told it. Endpoints of what nothing protects, and
//! those that follow, wait for nobody.
//!
//! # Rule
//! R13, R130.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Lane;
use crate::snapshot::diff::{Holding, without_endpoints};
use crate::snapshot::{Resource, ResourceType};

impl Lane {
    /// The number of the newest snapshot of which the client is known to have taken everything that it didn't refuse.
    pub(in crate::xds) fn whole(&self) -> u64 {
        let has_all = self.in_flight.is_none() && self.additions.is_empty() && self.batches.is_empty() && !self.stale;
        if has_all && self.opened { self.serial } else { self.whole }
    }

    /// Of what is due, that which waits for nobody. In the place of first endpoints that a cluster waits for: none.
    pub(super) fn set_firsts_apart(&mut self, due: Vec<Arc<Resource>>) -> Vec<Arc<Resource>> {
        if self.resource_type != ResourceType::Endpoint {
            return due;
        }
        let mut firsts = BTreeMap::new();
        let mut at_once = Vec::new();
        for resource in due {
            let Some(none) = self.none_before(&resource) else {
                at_once.push(resource);
                continue;
            };
            if self.again.contains(&resource.name) {
                at_once.push(Arc::new(none));
            }
            let serial = self.firsts.get(&resource.name).copied().unwrap_or(self.serial);
            firsts.insert(resource.name.clone(), serial);
        }
        self.firsts = firsts;
        at_once
    }

    /// If these are first endpoints of what is protected: what the client holds, which is none.
    fn none_before(&self, endpoints: &Resource) -> Option<Resource> {
        if !endpoints.owners.iter().any(|owner| owner.kind.protects()) {
            return None;
        }
        let Some(Holding::Version(held)) = self.held.get(&endpoints.name, &self.resources) else { return None };
        let none = without_endpoints(endpoints);
        (none.version == held && none.version != endpoints.version).then_some(none)
    }

    /// Lets those go whose snapshot is in force.
    pub(super) fn release_firsts(&mut self, now: Duration, in_force: u64) {
        let may_go = self.firsts.iter().filter(|(name, serial)| **serial <= in_force && !self.again.contains(*name));
        let released = may_go.filter_map(|(name, _)| self.resources.get(name)).cloned().collect::<Vec<_>>();
        for resource in released {
            self.firsts.remove(&resource.name);
            self.additions.push_back(resource);
        }
        self.firsts_since = (!self.firsts.is_empty()).then(|| self.firsts_since.unwrap_or(now));
    }
}
