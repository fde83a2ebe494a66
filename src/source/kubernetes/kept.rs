//! What was read last, as it is kept over a restart: all objects of all clusters, for a start at which an API server does not
//! answer. A cache and never a source: whatever a server says replaces it.
//!
//! Secrets are in it, because a listener without its certificate would be another listener. Credentials of registered clusters
//! are not: such a cluster stays as it was kept until the management cluster is back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::held::{Told, What};
use crate::crd::Object;
use crate::crd::yaml::decode_value;
use crate::model::{Kind, Name, ObjectRef};

/// What of all clusters is kept.
#[derive(Serialize, Deserialize)]
pub struct Document<O> {
    /// Address of the management cluster's API server: what another one had is of no use.
    pub(super) server: String,
    pub(super) clusters: BTreeMap<String, Cluster<O>>,
}

/// What of a cluster is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Cluster<O> {
    /// When it was so.
    at: String,
    objects: Vec<O>,
    /// Which Secrets each question found.
    secrets: Vec<Found>,
    /// Secrets with roots of trust, of the management cluster.
    roots: Vec<O>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    asked: Asked,
    /// Namespace and name.
    found: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
enum Asked {
    One(String, String),
    Labelled(BTreeMap<String, String>),
}

/// As it was kept in an earlier run.
pub type Earlier = Document<Value>;

/// As it is now.
pub type Current = Document<Manifest>;

impl<O> fmt::Debug for Document<O> {
    /// Secrets are in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("clusters", &self.clusters.keys()).finish_non_exhaustive()
    }
}

/// An object on its way to the disk.
pub struct Manifest {
    object: Arc<Object>,
    /// Its text, where something is wrong with it.
    text: Option<Arc<str>>,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object.meta.id)
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let manifest = match &self.text {
            Some(text) => serde_json::from_str(text).map_err(serde::ser::Error::custom)?,
            None => self.object.manifest(),
        };
        manifest.serialize(serializer)
    }
}

/// Where it is kept.
pub struct Shelf {
    /// What an earlier run kept.
    pub earlier: Option<Earlier>,
    /// Keeps it, on another thread.
    pub keep: Box<dyn FnMut(Current) + Send>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("earlier", &self.earlier).finish_non_exhaustive()
    }
}

/// A cluster as it was kept.
#[derive(Debug)]
pub(super) struct Recalled {
    pub(super) at: Timestamp,
    pub(super) told: Vec<Told>,
    pub(super) secrets: BTreeMap<What, BTreeSet<ObjectRef>>,
    pub(super) roots: Vec<Told>,
}

impl Cluster<Manifest> {
    pub(super) fn new<'a>(
        at: Timestamp,
        objects: impl Iterator<Item = (&'a Arc<Object>, Option<&'a Arc<str>>)>,
        secrets: &BTreeMap<What, BTreeSet<ObjectRef>>,
        roots: impl Iterator<Item = &'a Arc<Object>>,
    ) -> Self {
        let texts = |texts: &BTreeMap<Name, Name>| {
            texts.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let asked = |what: &What| match what {
            What::Secret(namespace, name) => Some(Asked::One(namespace.to_string(), name.to_string())),
            What::Secrets(labels) => Some(Asked::Labelled(texts(labels))),
            What::Kind(_) | What::Credential(_) | What::Roots | What::Definitions => None,
        };
        let names =
            |ids: &BTreeSet<ObjectRef>| ids.iter().map(|id| (id.namespace.to_string(), id.name.to_string())).collect();
        let found = secrets.iter().filter_map(|(what, ids)| Some(Found { asked: asked(what)?, found: names(ids) }));
        Self {
            at: at.to_string(),
            objects: objects.map(|(object, text)| Manifest { object: object.clone(), text: text.cloned() }).collect(),
            secrets: found.collect(),
            roots: roots.map(|object| Manifest { object: object.clone(), text: None }).collect(),
        }
    }
}

impl Cluster<Value> {
    /// Reads it; none where nothing can be made of it.
    ///
    /// # Cost
    /// That of decoding its objects.
    pub(super) fn recall(self, cluster: &Name) -> Option<Recalled> {
        let read = |value| {
            let (object, findings) = decode_value(value, cluster);
            Some(Told { object: Arc::new(object?), findings, text: None })
        };
        let secret = |(namespace, name): (String, String)| {
            ObjectRef::new(Kind::Secret, cluster.clone(), namespace.as_str(), name.as_str())
        };
        let names = |texts: BTreeMap<String, String>| {
            texts.iter().map(|(key, value)| (Name::from(key.as_str()), Name::from(value.as_str()))).collect()
        };
        let what = |asked| match asked {
            Asked::One(namespace, name) => What::Secret(namespace.as_str().into(), name.as_str().into()),
            Asked::Labelled(labels) => What::Secrets(names(labels)),
        };
        let found = self.secrets.into_iter();
        Some(Recalled {
            at: self.at.parse().ok()?,
            told: self.objects.into_iter().filter_map(read).collect(),
            secrets: found.map(|found| (what(found.asked), found.found.into_iter().map(secret).collect())).collect(),
            roots: self.roots.into_iter().filter_map(read).collect(),
        })
    }
}
