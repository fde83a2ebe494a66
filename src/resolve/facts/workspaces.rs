//! Clusters, workspaces and their settings, in checked form.

use crate::model::{Kind, Labels, Name, ObjectRef};

use super::{Age, Port, Selector};

/// A registered cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The object.
    pub id: ObjectRef,
    /// Its labels (R4).
    pub labels: Labels,
    /// DNS suffix of its Services (R5).
    pub domain: Name,
}

/// A Workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The object.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// Its labels, by which other workspaces select it.
    pub labels: Labels,
    /// What it owns.
    pub clusters: Vec<ClusterItem>,
}

/// One entry of `workloadClusters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterItem {
    /// Position in `workloadClusters`.
    pub index: usize,
    /// `*` pattern.
    pub name: Option<Name>,
    /// Labels of the KubernetesCluster.
    pub labels: Labels,
    /// Namespaces in it.
    pub namespaces: Vec<NamespaceItem>,
    /// Whether v2 objects count there (R21).
    pub config: bool,
}

/// One namespace item of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceItem {
    /// `*` pattern.
    pub name: Option<Name>,
    /// Labels of the Namespace.
    pub labels: Labels,
    /// Whether v2 objects count there (R21).
    pub config: bool,
}

/// WorkspaceSettings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The object.
    pub id: ObjectRef,
    /// Its age.
    pub age: Age,
    /// What it takes.
    pub import_from: Vec<ShareItem>,
    /// What it offers.
    pub export_to: Vec<ShareItem>,
    /// Options that are written.
    pub options: SettingsOptions,
}

/// Options of a workspace; absent where not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsOptions {
    /// R44.
    pub service_isolation: Option<bool>,
    /// R152.
    pub federation: Option<Federation>,
    /// R185. Without any item that can be read, no gateway is chosen.
    pub east_west: Option<Vec<EastWestItem>>,
    /// R168.
    pub client_mode: Option<ClientMode>,
}

/// Where TLS ends that crosses clusters.
///
/// # Rule
/// R169.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientMode {
    /// At the east-west gateway that receives it.
    #[default]
    Gateway,
    /// At the Pod.
    Pod,
}

/// One item of `eastWestGateways`.
///
/// # Rule
/// R185.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EastWestItem {
    /// The gateway Services; absent means those with the default label.
    pub selector: Option<Selector>,
    /// Port that passes TLS through; absent means the one named `tls`.
    pub port: Option<Port>,
    /// Port that ends TLS; absent means the one named `https`.
    pub termination_port: Option<Port>,
    /// Addresses to dial in place of the discovered ones.
    pub overrides: Vec<DialledAddress>,
}

/// An address to dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialledAddress {
    /// IP address or host name.
    pub address: Name,
    /// Port; absent means the discovered one.
    pub port: Option<u16>,
}

/// Which Services may be used from other clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federation {
    /// Off by default.
    pub enabled: bool,
    /// What the hosts end with, without a dot in front; empty adds nothing (D25).
    pub suffix: Name,
    /// None means all Services of the workspace.
    pub services: Vec<Selector>,
    /// None means all ports.
    pub ports: Vec<Port>,
}

/// One entry of `importFrom` or `exportTo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareItem {
    /// Partners; none matches nobody (R30).
    pub workspaces: Vec<WorkspacePattern>,
    /// Objects; none is every shareable kind (R31).
    pub resources: Vec<ResourceFilter>,
}

/// Names partner workspaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspacePattern {
    /// `*` pattern.
    pub name: Option<Name>,
    /// Labels of the Workspace.
    pub labels: Labels,
}

/// Names objects to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceFilter {
    /// `None` is every shareable kind; an inner `None` is a kind without effect here (R32).
    pub kind: Option<Option<Kind>>,
    /// Labels of the object.
    pub labels: Labels,
    /// Exact name.
    pub name: Option<Name>,
    /// Exact namespace.
    pub namespace: Option<Name>,
    /// Exact cluster.
    pub cluster: Option<Name>,
}
