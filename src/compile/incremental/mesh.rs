//! What clients inside the clusters are offered, and who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir;
use crate::model::{Findings, Host, Kind, Name, ObjectRef, WorkspaceId};
use crate::resolve::mesh::clients::{self, Pods, in_cluster, in_namespace};
use crate::resolve::mesh::{clusters_with_clients, offer, unexposed};
use crate::resolve::world::World as _;

use super::Made;
use super::outcome::Origin;
use super::slots::{Dirty, Reader, Recording, Slot, take, touch};

/// The clients of a cluster, kept by their namespaces.
#[derive(Debug, Default)]
pub(super) struct Clients {
    namespaces: BTreeMap<Name, Pods>,
    pub(super) all: Arc<ir::Clients>,
}

impl Clients {
    /// How many parts are held.
    pub(super) fn len(&self) -> usize {
        self.namespaces.len() + self.all.0.len()
    }
}

impl Made {
    /// Takes in what objects offer now that are others than before. Returns the hosts that are served otherwise.
    ///
    /// # Cost
    /// In proportion to these objects and to the workspaces; with a wildcard, to all hosts.
    pub(super) fn offer(&mut self, objects: BTreeSet<ObjectRef>, dirty: &mut Dirty) -> BTreeSet<Host> {
        let mut hosts = BTreeSet::new();
        let mut is_moved = false;
        let (mut ports, mut owners): (BTreeSet<u16>, BTreeSet<WorkspaceId>) = (BTreeSet::new(), BTreeSet::new());
        for id in objects {
            ports.extend(self.mesh.ports_of(&id));
            owners.extend(self.mesh.owner_of(&id).filter(|_| id.kind == Kind::Service).cloned());
            let (changed, moves) = self.mesh.put(&id, offer(&self.inputs, &id));
            is_moved |= moves;
            owners.extend(self.mesh.owner_of(&id).filter(|_| id.kind == Kind::Service).cloned());
            ports.extend(self.mesh.ports_of(&id));
            // A table that is made up is another where its offer is; it has no tree without.
            if !changed.is_empty() || self.mesh.has(&id) || self.trees.contains_key(&id) {
                dirty.insert(Reader::Tree(id.clone()));
            }
            hosts.extend(changed);
            dirty.insert(Reader::Unexposed(id));
        }
        for host in &hosts {
            self.outcome.set(Origin::MeshHost(host.clone()), self.mesh.conflicts(host));
        }
        for port in ports {
            self.outcome.set(Origin::MeshPort(port), self.mesh.port_conflicts(port));
        }
        for owner in owners {
            let findings = self.mesh.told_of_many(self.inputs.roster(), &owner);
            self.outcome.set(Origin::Federation(owner), findings);
        }
        if is_moved {
            touch(&self.reads, &Slot::MeshPorts, dirty);
        }
        self.mesh.concerned(hosts)
    }

    /// Who the clients are of clusters with an east-west gateway, and which of their ports gateways lack.
    ///
    /// # Cost
    /// In proportion to the Pods of the namespaces in which one is another, and, where an address is, to the clients of the
    /// cluster.
    pub(super) fn tell_clients(&mut self, dirty: &mut Dirty) {
        for reader in take(dirty, |reader| matches!(reader, Reader::Unexposed(_))) {
            let Reader::Unexposed(id) = &reader else { continue };
            let origin = Origin::Unexposed(id.clone());
            if !self.mesh.has(id) {
                self.reads.forget(&reader);
                self.outcome.forget(&origin);
                continue;
            }
            let world = Recording::new(&self.inputs);
            world.note(Slot::Classes);
            let findings = unexposed(&world, id, &self.classes);
            self.reads.record(&reader, world.into_slots());
            self.outcome.set(origin, findings);
        }
        let wanted = clusters_with_clients(&self.inputs, self.classes.iter());
        let gone: Vec<Name> = self.clients.keys().filter(|cluster| !wanted.contains(*cluster)).cloned().collect();
        for cluster in gone {
            let namespaces = self.clients.remove(&cluster).map(|own| own.namespaces).unwrap_or_default();
            for namespace in namespaces.into_keys() {
                self.reads.forget(&Reader::Clients(cluster.clone(), namespace));
            }
            self.outcome.forget(&Origin::Clients(cluster));
        }
        let mut stale: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for reader in take(dirty, |reader| matches!(reader, Reader::Clients(..))) {
            let Reader::Clients(cluster, namespace) = reader else { continue };
            stale.entry(cluster).or_default().insert(namespace);
        }
        for cluster in wanted {
            let mut namespaces = stale.remove(&cluster).unwrap_or_default();
            let is_new = !self.clients.contains_key(&cluster);
            if is_new {
                namespaces = clients::namespaces(&self.inputs, &cluster);
            }
            let own = self.clients.entry(cluster.clone()).or_default();
            let mut is_other = is_new;
            for namespace in namespaces {
                let world = Recording::new(&self.inputs);
                let pods = in_namespace(&world, &cluster, &namespace);
                self.reads.record(&Reader::Clients(cluster.clone(), namespace.clone()), world.into_slots());
                is_other |= own.namespaces.get(&namespace) != Some(&pods);
                own.namespaces.insert(namespace, pods);
            }
            if is_other {
                let (all, findings): (_, Findings) = in_cluster(own.namespaces.values());
                if own.all != all {
                    own.all = all;
                }
                self.outcome.set(Origin::Clients(cluster), findings);
            }
        }
    }
}
