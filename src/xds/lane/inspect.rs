//! What a lane knows of each resource, for people. Nothing here is remembered: it is what the lane decides from.

use std::collections::BTreeMap;

use super::super::inspection::{ResourceState, SyncStatus};
use super::Lane;
use crate::model::Name;
use crate::snapshot::diff::{Holding, refuses};
use crate::snapshot::{Resource, Version};

impl Lane {
    /// How each resource stands that the client asked for, or holds, in the order of names; those that go come last.
    ///
    /// # Cost
    /// A few lookups per resource.
    pub(in crate::xds) fn inspect(&self) -> Vec<ResourceState> {
        if !self.opened || !self.is_served {
            return Vec::new();
        }
        let resources = &self.resources;
        let flight = self.in_flight.as_ref();
        let sent = flight.map(|flight| flight.resources.as_slice()).unwrap_or_default();
        let sent: BTreeMap<&Name, &Version> = sent.iter().map(|r| (&r.name, &r.version)).collect();
        let existing = |resource: &Resource| ResourceState {
            resource_type: self.resource_type,
            name: resource.name.clone(),
            version: self.version_of(&resource.name),
            status: self.status_of(resource, sent.get(&resource.name).copied()),
        };
        let mut states: Vec<ResourceState> = if self.interest.everything() {
            resources.values().map(|resource| existing(resource)).collect()
        } else {
            self.interest.names().iter().filter_map(|name| resources.get(name)).map(|r| existing(r)).collect()
        };
        let state = |name: &Name, status| {
            let version = self.version_of(name);
            ResourceState { resource_type: self.resource_type, name: name.clone(), version, status }
        };
        let is_missing = |name: &&Name| self.held.get(name, resources).is_none();
        states.extend(self.absent.iter().filter(is_missing).map(|name| state(name, SyncStatus::Missing)));
        states.extend(self.held.gone(resources).map(|name| {
            let is_removed = flight.is_some_and(|flight| flight.removed.contains(name));
            state(name, if is_removed { SyncStatus::Sent } else { SyncStatus::NotSent })
        }));
        states
    }

    fn version_of(&self, name: &Name) -> Option<Version> {
        match self.held.get(name, &self.resources) {
            Some(Holding::Version(version)) => Some(version),
            Some(Holding::Uncertain) | None => None,
        }
    }

    fn status_of(&self, resource: &Resource, sent: Option<&Version>) -> SyncStatus {
        if sent == Some(&resource.version) {
            return SyncStatus::Sent;
        }
        if self.version_of(&resource.name).as_ref() == Some(&resource.version) {
            return SyncStatus::Synced;
        }
        match self.refused.get(&resource.name) {
            Some(objection) if refuses(&self.refused, resource) => SyncStatus::Refused(objection.clone()),
            Some(_) | None => SyncStatus::NotSent,
        }
    }
}
