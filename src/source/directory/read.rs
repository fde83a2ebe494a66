//! Loading files once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::load::{Content, Job, Outcome, decode, load, too_large};
use super::path::RelPath;
use super::scan::{KEPT, Root, Signature, scan, trouble};
use super::tree::Tree;
use super::{Options, SourceError};
use crate::crd::Object;
use crate::model::{Code, Findings};
use crate::source::Places;

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The objects that count, sorted by what they are called.
    pub objects: Vec<Arc<Object>>,
    /// All that is wrong with the files, in reporting order.
    pub findings: Findings,
    /// The files that were read, in path order, as messages call them.
    pub files: Vec<Arc<str>>,
    /// Where the objects stand.
    pub places: Places,
}

/// Loads files and directories once.
///
/// A directory is read as a watched one would be: its first-level folders are clusters. A file belongs to the
/// management cluster, unless it lies in a directory that is given too. `-` is standard input. What is named twice is
/// read once.
///
/// # Errors
/// Where a given path does not exist or cannot be read. What is wrong inside is a finding.
pub fn read(paths: &[PathBuf], options: &Options) -> Result<Loaded, SourceError> {
    let mut reader = Reader { options, tree: Tree::new(options), roots: BTreeMap::new(), jobs: BTreeMap::new() };
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            continue;
        }
        if fs::metadata(path).map_err(|source| unreadable(path, source))?.is_dir() {
            reader.directory(path)?;
        } else {
            files.push(path);
        }
    }
    // Directories first: a file among theirs is already there, with its cluster.
    for path in files {
        reader.file(path)?;
    }
    reader.load();
    if paths.iter().any(|path| path.as_os_str() == "-") {
        let path = Path::new("-");
        reader.stream(path, io::stdin().lock()).map_err(|source| unreadable(path, source))?;
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    options: &'a Options,
    tree: Tree,
    /// Given directories by their real paths.
    roots: BTreeMap<PathBuf, Root>,
    /// Files to be read.
    jobs: BTreeMap<RelPath, Job>,
}

impl Reader<'_> {
    fn directory(&mut self, path: &Path) -> Result<(), SourceError> {
        let real = fs::canonicalize(path).map_err(|source| unreadable(path, source))?;
        if self.roots.contains_key(&real) {
            return Ok(());
        }
        let prefix = if path == Path::new(".") { PathBuf::new() } else { path.to_owned() };
        let root = Root { path: path.to_owned(), real: None, prefix, management: self.options.management.clone() };
        let listing = scan(&root, &RelPath::root(), self.options.max_files, &mut ())
            .map_err(|source| unreadable(path, source))?;
        if listing.truncated {
            let message = format!(
                "the directory has more than the limit of {} manifests or folders; those that come later in path \
                 order are not read",
                self.options.max_files
            );
            let finding = root.trouble(&RelPath::root(), Code::LimitExceeded, message);
            self.tree.set_overall("truncated", Some(finding));
        }
        for (rel, signature) in &listing.files {
            self.add(&root, rel, *signature);
        }
        let problems = listing.problems.into_iter().map(|(rel, finding)| (key(&root, &rel), finding)).collect();
        self.tree.set_troubles(&RelPath::new(path.as_os_str()), problems);
        self.roots.insert(real, root);
        Ok(())
    }

    fn add(&mut self, root: &Root, rel: &RelPath, signature: Signature) {
        let key = key(root, rel);
        let before = self.jobs.range(..&key).next_back().map(|(_, job)| job);
        let job = Job::new(root, rel, key.clone(), signature, before);
        self.jobs.insert(key, job);
    }

    fn file(&mut self, path: &Path) -> Result<(), SourceError> {
        let fail = |source| unreadable(path, source);
        let metadata = fs::metadata(path).map_err(fail)?;
        if !metadata.is_file() {
            let file = File::open(path).map_err(fail)?;
            return self.stream(path, file).map_err(fail);
        }
        let real = fs::canonicalize(path).map_err(fail)?;
        let signature = Signature::of(&metadata);
        let inside = self.roots.iter().rev().find_map(|(dir, root)| Some((root.clone(), real.strip_prefix(dir).ok()?)));
        if let Some((root, rel)) = inside {
            self.add(&root, &RelPath::new(rel.as_os_str()), signature);
            return Ok(());
        }
        let named_twice = self
            .jobs
            .values()
            .any(|job| job.signature == signature && fs::canonicalize(&job.path).is_ok_and(|other| other == real));
        if !named_twice {
            let parent = path.parent().unwrap_or(Path::new("")).to_owned();
            let root =
                Root { path: parent.clone(), real: None, prefix: parent, management: self.options.management.clone() };
            self.add(&root, &RelPath::new(path.file_name().unwrap_or_default()), signature);
        }
        Ok(())
    }

    /// Reads what can be read only once: standard input, a pipe.
    fn stream(&mut self, path: &Path, stream: impl Read) -> io::Result<()> {
        let most = self.options.limits.file_bytes as u64;
        let mut bytes = Vec::new();
        stream.take(most + 1).read_to_end(&mut bytes)?;
        let job = Job {
            key: RelPath::new(path.as_os_str()),
            path: Arc::from(path),
            label: Arc::from(&*path.to_string_lossy()),
            cluster: self.options.management.clone(),
            folder: None,
            signature: Signature::of_stream(bytes.len() as u64),
            known: None,
        };
        let outcome = if bytes.len() as u64 > most {
            Outcome::Refused(too_large(&job, None, most))
        } else {
            let decoding = decode(&bytes, &job, &self.options.limits);
            Outcome::Read(Content { signature: None, hash: xxh3_128(&bytes), len: bytes.len() as u64, decoding })
        };
        self.tree.apply(&job, outcome);
        self.tree.keep_text(&job.key, &bytes);
        Ok(())
    }

    /// Reads all files. One that changes meanwhile is read again, until it holds still for as long as reading takes.
    fn load(&mut self) {
        const ATTEMPTS: usize = 20;
        let (mut jobs, refused) = self.tree.admit(std::mem::take(&mut self.jobs).into_values().collect());
        for (job, outcome) in refused {
            self.tree.apply(&job, outcome);
        }
        for attempt in 1..=ATTEMPTS {
            let outcomes = load(&jobs, &self.options.limits);
            let mut again = Vec::new();
            for (mut job, outcome) in jobs.into_iter().zip(outcomes) {
                if !matches!(outcome, Outcome::Moving) {
                    self.tree.apply(&job, outcome);
                } else if attempt == ATTEMPTS {
                    let message = "the file keeps changing while it is being read, and was not read; try again";
                    let finding = trouble(job.label.clone(), Code::SyntaxError, message);
                    self.tree.apply(&job, Outcome::Refused(finding));
                } else if let Ok(metadata) = fs::metadata(&job.path) {
                    job.signature = Signature::of(&metadata);
                    again.push(job);
                }
            }
            if again.is_empty() {
                return;
            }
            jobs = again;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn finish(mut self) -> Loaded {
        let mut findings = self.tree.batch().map(|batch| batch.findings).unwrap_or_default();
        // Nothing was held before.
        for finding in &mut findings {
            if let Some(message) = finding.message.strip_suffix(&format!("; {KEPT}")) {
                finding.message = message.to_owned();
            }
        }
        Loaded {
            objects: self.tree.objects().cloned().collect(),
            findings,
            files: self.tree.labels().cloned().collect(),
            places: self.tree.places().clone(),
        }
    }
}

/// Path order over several given paths is the order of the names in messages.
fn key(root: &Root, rel: &RelPath) -> RelPath {
    RelPath::new(if rel.is_root() { root.prefix.clone() } else { root.prefix.join(rel.as_path()) }.as_os_str())
}

/// Part of a given path that is a file, instead of a folder, makes the whole a path that does not exist.
fn unreadable(path: &Path, source: io::Error) -> SourceError {
    match SourceError::new(path, source) {
        SourceError::NotADirectory { path } => SourceError::Missing { path },
        error => error,
    }
}
