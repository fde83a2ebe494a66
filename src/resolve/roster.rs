//! Which namespaces and clusters belong to which workspace, and what each workspace's settings are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::labels::{contains_all, glob};
use crate::model::{Code, FieldPath, Finding, Findings, Labels, Name, ObjectRef, WorkspaceId};

use super::Options;
use super::facts::{Cluster, ClusterItem, Federation, NamespaceItem, Settings, SettingsOptions, Workspace};

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Workspaces by name.
    pub workspaces: BTreeMap<WorkspaceId, Arc<Member>>,
    /// Registered clusters by name.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    owners: BTreeMap<Name, BTreeMap<Name, Ownership>>,
}

/// A workspace with what applies to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The Workspace.
    pub workspace: Arc<Workspace>,
    /// Its own settings, if it has any.
    pub settings: Option<Arc<Settings>>,
    /// Options with the global settings worked in (R50).
    pub options: SettingsOptions,
}

impl Member {
    /// Whether the workspace is isolated (R44).
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.options.service_isolation.unwrap_or(false)
    }

    /// What the workspace federates (R152).
    #[must_use]
    pub fn federation(&self) -> Option<&Federation> {
        self.options.federation.as_ref().filter(|federation| federation.enabled)
    }
}

/// Who owns a namespace of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Whether v2 objects in it count (R21).
    pub config: bool,
}

impl Roster {
    /// The owner of a namespace, if it has one.
    ///
    /// # Rule
    /// R23.
    #[must_use]
    pub fn owner(&self, cluster: &str, namespace: &str) -> Option<&Ownership> {
        self.owners.get(cluster)?.get(namespace)
    }

    /// The workspace that owns an object.
    #[must_use]
    pub fn owner_of(&self, id: &ObjectRef) -> Option<&WorkspaceId> {
        self.owner(&id.cluster, &id.namespace).map(|ownership| &ownership.workspace)
    }

    /// The namespaces of a cluster that some workspace owns.
    pub fn namespaces_in(&self, cluster: &str) -> impl Iterator<Item = &Name> {
        self.owners.get(cluster).into_iter().flat_map(BTreeMap::keys)
    }

    /// The workspaces that own a namespace of a cluster, in the order of their names.
    #[must_use]
    pub fn workspaces_in(&self, cluster: &str) -> Vec<WorkspaceId> {
        let owners = self.owners.get(cluster).into_iter().flat_map(BTreeMap::values);
        let owners: BTreeSet<&WorkspaceId> = owners.map(|ownership| &ownership.workspace).collect();
        owners.into_iter().cloned().collect()
    }

    /// The namespaces that a workspace owns, as (cluster, namespace).
    pub fn namespaces_of<'a>(&'a self, id: &'a WorkspaceId) -> impl Iterator<Item = (&'a Name, &'a Name)> {
        self.owners.iter().flat_map(move |(cluster, namespaces)| {
            namespaces.iter().filter(move |(_, owner)| owner.workspace == *id).map(move |(ns, _)| (cluster, ns))
        })
    }
}

/// The inputs of [`resolve_roster`].
#[derive(Clone, Debug, Default)]
pub struct RosterInputs {
    /// Registered clusters, in the admin namespace (R3).
    pub clusters: Vec<Arc<Cluster>>,
    /// Workspaces in the admin namespace (R17).
    pub workspaces: Vec<Arc<Workspace>>,
    /// All WorkspaceSettings, wherever they stand.
    pub settings: Vec<Arc<Settings>>,
    /// Every namespace that exists, by cluster, with its labels.
    pub namespaces: BTreeMap<Name, BTreeMap<Name, Labels>>,
}

/// Decides ownership and settings.
///
/// # Findings
/// [`Code::BeatenByOlder`] on a Workspace that loses namespaces (D3) and on superfluous settings (R27);
/// [`Code::ClusterNotRegistered`] on a Workspace that names a cluster that is not there (R3);
/// [`Code::NotApplicable`] where the global settings try to share (D8).
///
/// # Rule
/// R17 to R28, R49, R50.
#[must_use]
pub fn resolve_roster(inputs: &RosterInputs, options: &Options) -> (Roster, Findings) {
    let mut findings = Findings::new();
    let mut roster = Roster::default();
    for cluster in &inputs.clusters {
        roster.clusters.insert(cluster.id.name.clone(), cluster.clone());
    }
    let mut workspaces = inputs.workspaces.clone();
    workspaces.sort_by(|a, b| a.age.cmp(&b.age));
    for workspace in &workspaces {
        claim(&mut roster, workspace, &inputs.namespaces, &mut findings);
    }
    let (own, global) = settle(&roster, &inputs.settings, options, &mut findings);
    for workspace in workspaces {
        let id = WorkspaceId(workspace.id.name.clone());
        let settings = own.get(&id).cloned();
        let mut merged = settings.as_ref().map(|s| s.options.clone()).unwrap_or_default();
        if let Some(global) = &global {
            // R50: a field of the global options replaces the workspace's own.
            merged.service_isolation = global.options.service_isolation.or(merged.service_isolation);
            merged.federation = global.options.federation.clone().or(merged.federation);
            merged.east_west = global.options.east_west.clone().or(merged.east_west);
            merged.client_mode = global.options.client_mode.or(merged.client_mode);
        }
        roster.workspaces.insert(id, Arc::new(Member { workspace, settings, options: merged }));
    }
    (roster, findings)
}

/// Gives a workspace what it picks and no older one has.
fn claim(
    roster: &mut Roster,
    workspace: &Workspace,
    namespaces: &BTreeMap<Name, BTreeMap<Name, Labels>>,
    findings: &mut Findings,
) {
    let id = WorkspaceId(workspace.id.name.clone());
    let mut lost: BTreeMap<WorkspaceId, Vec<String>> = BTreeMap::new();
    for item in &workspace.clusters {
        if let Some(name) =
            item.name.as_ref().filter(|name| !name.contains('*') && !roster.clusters.contains_key(*name))
        {
            findings.push(
                Finding::warning(
                    &workspace.id,
                    Code::ClusterNotRegistered,
                    format!(
                        "there is no cluster `{name}`, so the entry picks nothing; register it with a KubernetesCluster"
                    ),
                )
                .at(FieldPath::new("spec.workloadClusters").index(item.index).field("name")),
            );
        }
        let picked: Vec<_> = roster.clusters.values().filter(|cluster| picks_cluster(item, cluster)).cloned().collect();
        for cluster in picked {
            let Some(known) = namespaces.get(&cluster.id.name) else { continue };
            let owners = roster.owners.entry(cluster.id.name.clone()).or_default();
            for (namespace, labels) in known {
                let Some(matched) = item.namespaces.iter().find(|ns| picks_namespace(ns, namespace, labels)) else {
                    continue;
                };
                let config = item.config && matched.config;
                match owners.get_mut(namespace) {
                    None => {
                        owners.insert(namespace.clone(), Ownership { workspace: id.clone(), config });
                    }
                    Some(owner) if owner.workspace == id => owner.config |= config,
                    Some(owner) => lost
                        .entry(owner.workspace.clone())
                        .or_default()
                        .push(format!("{}/{namespace}", cluster.id.name)),
                }
            }
        }
    }
    for (winner, mut namespaces) in lost {
        namespaces.sort();
        namespaces.dedup();
        findings.push(Finding::warning(
            &workspace.id,
            Code::BeatenByOlder,
            format!(
                "the older workspace `{winner}` owns {}, which this one picks too; narrow one of the two selections",
                list(&namespaces, 10)
            ),
        ));
    }
}

/// Chooses each workspace's settings and the global ones.
fn settle(
    roster: &Roster,
    settings: &[Arc<Settings>],
    options: &Options,
    findings: &mut Findings,
) -> (BTreeMap<WorkspaceId, Arc<Settings>>, Option<Arc<Settings>>) {
    let mut sorted = settings.to_vec();
    sorted.sort_by(|a, b| a.age.cmp(&b.age));
    let mut own: BTreeMap<WorkspaceId, Arc<Settings>> = BTreeMap::new();
    let mut global = None;
    for settings in sorted {
        let id = &settings.id;
        if id.name == "global" && id.namespace == options.admin_namespace && id.cluster == options.management_cluster {
            if !settings.import_from.is_empty() || !settings.export_to.is_empty() {
                findings.push(Finding::warning(
                    id,
                    Code::NotApplicable,
                    "the global settings never share resources: `importFrom` and `exportTo` are ignored here; write them in each workspace's own settings",
                ));
            }
            global = Some(settings);
            continue;
        }
        // Settings without an owner are reported like every other object of that kind (R24).
        let Some(owner) = roster.owner(&id.cluster, &id.namespace).filter(|owner| owner.config) else { continue };
        match own.get(&owner.workspace) {
            None => {
                own.insert(owner.workspace.clone(), settings);
            }
            Some(winner) => findings.push(
                Finding::error(
                    id,
                    Code::BeatenByOlder,
                    format!(
                        "workspace `{}` already has the older settings `{}`; one object counts, so move these into it",
                        owner.workspace,
                        winner.id.short()
                    ),
                )
                .with(&winner.id),
            ),
        }
    }
    (own, global)
}

/// R19: an entry with neither name nor labels picks every registered cluster.
fn picks_cluster(item: &ClusterItem, cluster: &Cluster) -> bool {
    item.name.as_ref().is_none_or(|pattern| glob(pattern, &cluster.id.name))
        && contains_all(&cluster.labels, &item.labels)
}

/// R20: an empty item picks nothing.
fn picks_namespace(item: &NamespaceItem, name: &str, labels: &Labels) -> bool {
    (item.name.is_some() || !item.labels.is_empty())
        && item.name.as_ref().is_none_or(|pattern| glob(pattern, name))
        && contains_all(labels, &item.labels)
}

/// Some names as text, cut after `most`.
#[must_use]
pub fn list(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown} and {} more", names.len() - most) } else { shown }
}
