//! Registered clusters: which there are, which credential each has, and how each stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::held::Held;
use super::pace::Road;
use crate::crd::{Object, Spec};
use crate::model::{Kind, Name, ObjectRef, SecretBytes};

/// Names the Secret with the kubeconfig of a cluster, where it is not the cluster's name with [`SUFFIX`].
const ANNOTATION: &str = "chancery/kubeconfig";

/// What the name of the Secret ends in, unless [`ANNOTATION`] says otherwise. Cluster API has the same.
const SUFFIX: &str = "-kubeconfig";

/// How a registered cluster stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether its API server answers.
    pub is_connected: bool,
    /// Whether everything of it was listed in this run, so that its objects are in force.
    pub is_synced: bool,
    /// What is wrong; empty where nothing is.
    pub message: String,
}

/// A `KubernetesCluster` of the admin namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) id: ObjectRef,
    /// Name of the Secret with its kubeconfig.
    pub(super) secret: Name,
    /// `spec.skipWarming`.
    pub(super) skips_warming: bool,
}

/// The connection to one registered cluster.
pub(super) struct Link {
    pub(super) registration: Registration,
    /// Counts the connections, so that what an earlier one says late is nobody's.
    pub(super) turn: u64,
    /// The kubeconfig in use; none while there is no Secret.
    pub(super) kubeconfig: Option<SecretBytes>,
    /// Whether the Secret was looked for.
    pub(super) is_looked_for: bool,
    /// What makes the cluster itself: two of one are one.
    pub(super) uid: Option<String>,
    pub(super) client: Option<kube::Client>,
    /// The way to it over this connection.
    pub(super) road: Option<Arc<Road>>,
    pub(super) tasks: Vec<AbortHandle>,
}

impl Link {
    pub(super) fn new(registration: Registration) -> Self {
        let (kubeconfig, uid, client, road) = (None, None, None, None);
        Self { registration, turn: 0, kubeconfig, is_looked_for: false, uid, client, road, tasks: Vec::new() }
    }

    /// Ends what runs over the connection; what it says after this is nobody's.
    pub(super) fn end(&mut self) {
        self.turn += 1;
        self.client = None;
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

/// The clusters that are registered in the admin namespace, but for the management cluster itself (R16).
///
/// # Rule
/// R3.
pub(super) fn registrations(held: &Held, admin_namespace: &Name, management: &Name) -> BTreeMap<Name, Registration> {
    let objects = held.managed(Kind::KubernetesCluster).filter(|object| object.meta.id.namespace == *admin_namespace);
    let others = objects.filter(|object| object.meta.id.name != *management);
    others.map(|object| (object.meta.id.name.clone(), registration(object))).collect()
}

fn registration(object: &Object) -> Registration {
    let id = &object.meta.id;
    let named = object.meta.annotations.get(ANNOTATION).filter(|name| !name.is_empty());
    let secret = named.cloned().unwrap_or_else(|| format!("{}{SUFFIX}", id.name).into());
    let skips_warming = matches!(&*object.spec(), Spec::KubernetesCluster(cluster) if cluster.skip_warming);
    Registration { id: id.clone(), secret, skips_warming }
}
