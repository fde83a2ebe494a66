//! Directories of objects: `DIR/<cluster>/**/*.yaml`, as the directory source reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use super::yaml;

/// The annotation that says which cluster holds an object of the reference scenarios.
const CLUSTER_ANNOTATION: &str = "/metadata/annotations/cluster.solo.io~1cluster";

/// One object and the cluster that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// Folder name, and so cluster name.
    pub(crate) cluster: String,
    /// The object as written.
    pub(crate) object: Value,
}

impl Manifest {
    /// Kind.
    pub(crate) fn kind(&self) -> &str {
        text(&self.object, "/kind")
    }

    /// Name.
    pub(crate) fn name(&self) -> &str {
        text(&self.object, "/metadata/name")
    }

    /// Namespace; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        text(&self.object, "/metadata/namespace")
    }

    /// One label; empty if absent.
    pub(crate) fn label(&self, key: &str) -> &str {
        let labels = self.object.pointer("/metadata/labels");
        labels.and_then(|labels| labels.get(key)).and_then(Value::as_str).unwrap_or_default()
    }

    /// `Kind/namespace/name@cluster`, as Chancery writes it.
    pub(crate) fn key(&self) -> String {
        let namespace = if self.namespace().is_empty() { String::new() } else { format!("{}/", self.namespace()) };
        format!("{}/{namespace}{}@{}", self.kind(), self.name(), self.cluster)
    }
}

/// A text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A list at a JSON pointer; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A map of texts at a JSON pointer; empty if there is none.
pub(crate) fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = value.pointer(pointer).and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    entries.map(|entries| entries.iter().filter_map(text).collect()).unwrap_or_default()
}

/// A port number at a JSON pointer.
pub(crate) fn port(value: &Value, pointer: &str) -> Option<u16> {
    value.pointer(pointer).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok())
}

/// Places objects by their cluster annotation.
pub(crate) fn by_annotation(objects: &[Value]) -> anyhow::Result<Vec<Manifest>> {
    let place = |object: &Value| {
        let cluster = text(object, CLUSTER_ANNOTATION).to_owned();
        if cluster.is_empty() {
            bail!("{} {} lacks the cluster annotation", text(object, "/kind"), text(object, "/metadata/name"));
        }
        Ok(Manifest { cluster, object: object.clone() })
    };
    objects.iter().map(place).collect()
}

/// Reads a directory, in path order.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in files(directory)? {
        let inside = file.strip_prefix(directory)?;
        let cluster = inside.iter().next().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let objects = yaml::documents(&text).with_context(|| format!("parse {}", file.display()))?;
        manifests.extend(objects.into_iter().map(|object| Manifest { cluster: cluster.clone(), object }));
    }
    Ok(manifests)
}

/// Writes one file per object, named after it, and returns the paths in the order of the objects.
///
/// The text is JSON, which is YAML too.
pub(crate) fn write(directory: &Path, manifests: &[Manifest]) -> anyhow::Result<Vec<PathBuf>> {
    let write = |manifest: &Manifest| {
        let folder = directory.join(&manifest.cluster).join(manifest.namespace());
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}-{}.yaml", manifest.kind().to_lowercase(), manifest.name()));
        replace(&file, &serde_json::to_string_pretty(&manifest.object)?)?;
        Ok(file)
    };
    manifests.iter().map(write).collect()
}

/// Writes a file as editors do that never leave half a file: beside it first, then a rename.
pub(crate) fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let beside = file.with_extension("tmp");
    fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, file).with_context(|| format!("rename to {}", file.display()))
}

/// Copies a directory; what the target held before is gone afterwards.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("empty {}", to.display()))?;
    }
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from)?);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::copy(&file, &target).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

/// All YAML files below a directory, sorted by path.
pub(crate) fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
