//! Real directories, real events. Nothing sleeps: tests wait for the batch that brings what they expect.

mod once;
mod random;
mod watched;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::{Directory, Options};
use crate::crd::{Change, Object};
use crate::model::{Code, Findings};
use crate::source::{Batch, Extent};

/// Long enough for the slowest machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A manifest of one object with something to tell its revisions apart.
fn manifest(name: &str, revision: &str) -> String {
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata:";
    format!("{head}\n  name: {name}\n  namespace: shop\n  labels:\n    rev: \"{revision}\"\n")
}

/// Several manifests in one file.
fn manifests(objects: &[(&str, &str)]) -> String {
    objects.iter().map(|(name, revision)| manifest(name, revision)).collect::<Vec<_>>().join("---\n")
}

/// A text that is not YAML, with the fault in line 2.
const BROKEN: &str = "apiVersion: v1\nkind: [\n";

/// The manifest that registers a cluster.
fn cluster(name: &str) -> String {
    let head = "apiVersion: admin.gloo.solo.io/v2\nkind: KubernetesCluster\nmetadata:";
    format!("{head}\n  name: {name}\n  namespace: gloo-mesh\n")
}

/// Objects in short: `name@cluster` to revision.
type Summary = BTreeMap<String, String>;

fn summarise<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Summary {
    let line = |object: &Object| {
        let id = &object.meta.id;
        let revision = object.meta.labels.get("rev").map_or("", |revision| revision.as_str());
        (format!("{}@{}", id.name, id.cluster), revision.to_owned())
    };
    objects.into_iter().map(line).collect()
}

fn summary(objects: &[(&str, &str)]) -> Summary {
    objects.iter().map(|(object, revision)| ((*object).to_owned(), (*revision).to_owned())).collect()
}

/// A directory of files, to be written to.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let files_on_disk = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(files_on_disk.root()).unwrap();
        for (path, text) in files {
            files_on_disk.write(path, text);
        }
        files_on_disk
    }

    /// The directory that is read. It has siblings for what must be on the same file system but is not read.
    fn root(&self) -> PathBuf {
        self.dir.path().join("conf")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn link(&self, target: impl AsRef<Path>, path: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
    }

    /// Writes beside the directory and renames into it.
    fn place(&self, path: &str, text: &str) {
        fs::write(self.beside("unplaced"), text).unwrap();
        fs::rename(self.beside("unplaced"), self.path(path)).unwrap();
    }

    /// What a fresh look finds.
    fn read(&self) -> Summary {
        let loaded = super::read(&[self.root()], &options()).unwrap();
        summarise(loaded.objects.iter().map(|object| &**object))
    }
}

/// Options under which only events bring changes to light.
fn options() -> Options {
    Options { resync: Duration::from_secs(3600), poll: Duration::from_millis(20), ..Options::default() }
}

/// A watched directory and what a consumer made of its batches.
struct Watched {
    files: Files,
    directory: Directory,
    objects: BTreeMap<crate::model::ObjectRef, std::sync::Arc<Object>>,
    findings: Findings,
    /// All changes of all batches after the first, in short.
    log: Vec<String>,
}

impl Watched {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::open(Files::new(files), options())
    }

    fn open(files: Files, options: Options) -> Self {
        let (directory, first) = Directory::open(&files.root(), options).unwrap();
        assert_eq!(first.extent, Extent::Complete);
        let mut watched =
            Self { files, directory, objects: BTreeMap::new(), findings: Findings::new(), log: Vec::new() };
        watched.take(first);
        watched.log.clear();
        watched
    }

    fn take(&mut self, batch: Batch) {
        assert!(batch.changes.is_sorted_by_key(|change| match change {
            Change::Put(object) => object.meta.id.clone(),
            Change::Delete(id) => id.clone(),
        }));
        for change in batch.changes {
            match change {
                Change::Put(object) => {
                    let id = object.meta.id.clone();
                    self.log.push(format!("+{}", id.name));
                    self.objects.insert(id, object);
                }
                Change::Delete(id) => {
                    self.log.push(format!("-{}", id.name));
                    assert!(self.objects.remove(&id).is_some(), "{id} was deleted but never given");
                }
            }
        }
        self.findings = batch.findings;
    }

    fn summary(&self) -> Summary {
        summarise(self.objects.values().map(|object| &**object))
    }

    fn codes(&self) -> Vec<Code> {
        self.findings.iter().map(|finding| finding.code).collect()
    }

    async fn next(&mut self) {
        let waiting = tokio::time::timeout(PATIENCE, self.directory.next()).await;
        let Ok(batch) = waiting else { panic!("no batch came; now {:?}, {:?}", self.summary(), self.findings) };
        self.take(batch);
    }

    /// Waits until a condition holds.
    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.next().await;
        }
    }

    /// Waits until these are the objects and there are no findings but these.
    async fn expect(&mut self, objects: &[(&str, &str)], codes: &[Code]) {
        let wanted = summary(objects);
        self.until(|watched| watched.summary() == wanted && watched.codes() == codes).await;
    }

    /// Waits for everything that happened before to be applied: a file that is written now is seen after it.
    ///
    /// The marker is written in place, so it waits for the same quiet moment.
    async fn flush(&mut self) {
        let before = self.log.len();
        self.files.write("zz-marker.yaml", &manifest("zz-marker", "1"));
        self.until(|watched| watched.log[before..].contains(&"+zz-marker".to_owned())).await;
        self.files.remove("zz-marker.yaml");
        self.until(|watched| watched.log[before..].contains(&"-zz-marker".to_owned())).await;
        self.log.retain(|line| !line.contains("zz-marker"));
    }
}
