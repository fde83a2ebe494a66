//! What stands in the directory now: names and metadata, no contents.
//!
//! Links are followed one hop at a time, so that whoever watches learns every folder whose change can change what a
//! link leads to. A mounted `ConfigMap` is the case that matters: `a.yaml -> ..data/a.yaml`, `..data -> ..2026_01`,
//! and an update is one rename of `..data`.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::path::{RelPath, is_hidden, is_ignored_folder, is_manifest};
use crate::model::{Code, Finding, Location, Name, Severity};

/// The directory, and what its paths are called.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The folder that this led to when it was asked last; none before.
    pub(super) real: Option<PathBuf>,
    /// What stands before a relative path in messages; empty for a watched directory.
    pub(super) prefix: PathBuf,
    /// Name of the management cluster.
    pub(super) management: Name,
}

impl Root {
    /// Where a path is.
    pub(super) fn path(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// What a path is called in messages.
    pub(super) fn label(&self, path: &RelPath) -> Arc<str> {
        let label = if path.is_root() && self.prefix.as_os_str().is_empty() {
            self.path.to_string_lossy().into_owned()
        } else if path.is_root() {
            self.prefix.to_string_lossy().into_owned()
        } else {
            self.prefix.join(path.as_path()).to_string_lossy().into_owned()
        };
        Arc::from(label)
    }

    /// The cluster that a file belongs to.
    pub(super) fn cluster(&self, path: &RelPath) -> Name {
        path.first_folder().map_or_else(|| self.management.clone(), |name| Name::from(&*name.to_string_lossy()))
    }

    /// An error about a path as a whole.
    pub(super) fn trouble(&self, path: &RelPath, code: Code, message: impl Into<String>) -> Finding {
        trouble(self.label(path), code, message)
    }
}

/// An error about a file or folder as a whole.
pub(super) fn trouble(label: Arc<str>, code: Code, message: impl Into<String>) -> Finding {
    Finding::in_file(Location { file: label, line: 0, column: 0 }, Severity::Error, code, message)
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Size in bytes.
    pub(super) len: u64,
    /// Seconds and nanoseconds of the last write.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of content or metadata.
    changed: (i64, i64),
    /// Device and inode of the file that the path leads to in the end.
    file: (u64, u64),
}

impl Signature {
    /// The signature in a file's metadata.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            file: (metadata.dev(), metadata.ino()),
        }
    }

    /// The signature of something that is no file, by the number of bytes that came out of it.
    pub(super) fn of_stream(len: u64) -> Self {
        Self { len, modified: (0, 0), changed: (0, 0), file: (0, 0) }
    }

    /// Seconds since 1970 of the youngest time in it.
    pub(super) fn youngest(&self) -> f64 {
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        seconds as f64 + nanoseconds as f64 / 1e9
    }
}

/// What tells one folder from another that took its place. Inodes are used again, times of birth are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    folder: (u64, u64),
    born: Option<SystemTime>,
}

impl Identity {
    /// The identity of the folder that a path leads to.
    ///
    /// # Errors
    /// What the file system says; not being a folder is an error too.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(Self { folder: (metadata.dev(), metadata.ino()), born: metadata.created().ok() })
    }
}

/// Learns what a scan looks at, each before it is looked at, so that a watch set up there misses nothing.
pub(super) trait Observer {
    /// A folder, by its real path, that is about to be listed as one of ours.
    fn folder(&mut self, real: &Path, folder: &RelPath);
    /// One step on the way to what an entry leads to: a name in a folder with this real path.
    fn hop(&mut self, real: &Path, name: &OsStr, entry: &RelPath);
}

/// Nobody watches.
impl Observer for () {
    fn folder(&mut self, _: &Path, _: &RelPath) {}
    fn hop(&mut self, _: &Path, _: &OsStr, _: &RelPath) {}
}

/// The result of a scan.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// Manifest files.
    pub(super) files: BTreeMap<RelPath, Signature>,
    /// Files and folders that are there but not readable.
    pub(super) problems: BTreeMap<RelPath, Finding>,
    /// Whether the scan stopped at the limit of files.
    pub(super) truncated: bool,
}

/// The folder that the directory's path leads to.
///
/// # Errors
/// What the file system says of it, also where it cannot be read.
///
/// # Cost
/// One `stat` per part of the path.
pub(super) fn real(root: &Root, observer: &mut impl Observer) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(&root.path)?;
    let mut parts: VecDeque<OsString> = absolute.iter().map(OsStr::to_os_string).collect();
    let real = follow(PathBuf::new(), &mut parts, &mut |real, name| observer.hop(real, name, &RelPath::root()))?;
    fs::read_dir(&real)?;
    Ok(real)
}

/// Lists one path and everything below it. A path that does not exist gives an empty listing.
///
/// At most `most` files, and as many folders, are listed, in path order.
///
/// # Errors
/// What the file system says of the directory itself, where it is not known yet where that is.
///
/// # Cost
/// One `stat` per entry, and one per part of the path below the directory; one for a file that was listed before.
pub(super) fn scan(root: &Root, scope: &RelPath, most: usize, observer: &mut impl Observer) -> io::Result<Listing> {
    if let Some(listing) = scan_file(root, scope, most) {
        return Ok(listing);
    }
    let real = match &root.real {
        Some(real) => real.clone(),
        None => real(root, observer)?,
    };
    let mut walk = Walk { root, observer, listing: Listing::default(), chain: vec![real.clone()], most, folders: 0 };
    walk.descend(scope);
    let Walk { listing, .. } = walk;
    // Of a directory that is gone itself, nothing is known to be gone.
    if listing.files.is_empty() && !fs::metadata(&real)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(listing)
}

/// The same of a file that is no link, if that is what the path leads to. The folders on the way are looked at when something
/// happens to them.
fn scan_file(root: &Root, scope: &RelPath, most: usize) -> Option<Listing> {
    if root.real.is_none() || most == 0 || !is_manifest(scope.name()) {
        return None;
    }
    let metadata = fs::symlink_metadata(root.path(scope)).ok().filter(Metadata::is_file)?;
    let files = [(scope.clone(), Signature::of(&metadata))].into();
    Some(Listing { files, ..Listing::default() })
}

/// What an entry of a folder is.
enum Kind {
    File(Signature),
    Folder(PathBuf),
    Problem(Finding),
    Nothing,
}

struct Walk<'a, O> {
    root: &'a Root,
    observer: &'a mut O,
    listing: Listing,
    /// Real paths of the folders from the directory down to where the walk is.
    chain: Vec<PathBuf>,
    most: usize,
    folders: usize,
}

impl<O: Observer> Walk<'_, O> {
    /// Goes from the directory to the scope, then lists what is there.
    fn descend(&mut self, scope: &RelPath) {
        let mut path = RelPath::root();
        let mut kind = Kind::Folder(self.chain[0].clone());
        self.chain.clear();
        for name in scope.as_path() {
            let Kind::Folder(real) = kind else { break };
            path = path.join(name);
            kind = self.look(&real, &path);
            self.chain.push(real);
        }
        // A problem on the way is a problem of everything below it.
        if path == *scope || matches!(kind, Kind::Problem(_)) {
            self.take(&path, kind);
        }
    }

    fn take(&mut self, path: &RelPath, kind: Kind) {
        match kind {
            Kind::Nothing => {}
            Kind::Problem(finding) => drop(self.listing.problems.insert(path.clone(), finding)),
            Kind::File(_) | Kind::Folder(_) if self.listing.files.len() >= self.most || self.folders > self.most => {
                self.listing.truncated = true;
            }
            Kind::File(signature) => drop(self.listing.files.insert(path.clone(), signature)),
            Kind::Folder(real) => self.list(path, real),
        }
    }

    fn list(&mut self, folder: &RelPath, real: PathBuf) {
        if self.chain.contains(&real) {
            let message = "the link leads back to a folder that it lies in, and is not followed; remove it";
            self.listing.problems.insert(folder.clone(), self.root.trouble(folder, Code::SyntaxError, message));
            return;
        }
        self.folders += 1;
        self.observer.folder(&real, folder);
        let names = match fs::read_dir(&real).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries.into_iter().map(|entry| entry.file_name()),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                let message = format!("the folder cannot be read ({}); {KEPT}", reason(&error));
                self.listing.problems.insert(folder.clone(), self.root.trouble(folder, Code::SyntaxError, message));
                return;
            }
        };
        let mut entries: Vec<_> = names
            .filter(|name| !is_hidden(name))
            .map(|name| {
                let path = folder.join(&name);
                let kind = self.look(&real, &path);
                // In path order a folder sorts as if its name ended with the slash that follows it.
                let key = if matches!(kind, Kind::Folder(_)) { path.join(OsStr::new("")) } else { path.clone() };
                (key, path, kind)
            })
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        self.chain.push(real);
        for (_, path, kind) in entries {
            self.take(&path, kind);
        }
        self.chain.pop();
    }

    /// What a path is, given the real path of the folder that it lies in.
    fn look(&mut self, parent: &Path, path: &RelPath) -> Kind {
        let name = path.name();
        match self.resolve(parent, name, path) {
            Ok(None) => Kind::Nothing,
            Ok(Some((_, metadata))) if metadata.is_dir() && is_ignored_folder(name) => Kind::Nothing,
            Ok(Some((_, metadata))) if metadata.is_dir() && is_manifest(name) => self.problem(
                path,
                &format!(
                    "this is a folder, although its name is that of a manifest (Docker makes one when the file of a \
                     mount does not exist); rename or remove it; {KEPT}"
                ),
            ),
            Ok(Some((real, metadata))) if metadata.is_dir() => Kind::Folder(real),
            Ok(Some(_)) if !is_manifest(name) => Kind::Nothing,
            Ok(Some((_, metadata))) if metadata.is_file() => Kind::File(Signature::of(&metadata)),
            Ok(Some(_)) => self.problem(path, &format!("this is not a regular file and is not read; {KEPT}")),
            Err(error) if is_ignored_folder(name) => {
                tracing::debug!(path = %path, %error, "an ignored entry is not readable");
                Kind::Nothing
            }
            Err(error) => {
                let what = if error.kind() == ErrorKind::NotFound {
                    "the link leads to a file that does not exist".to_owned()
                } else {
                    format!("the file cannot be read ({})", reason(&error))
                };
                self.problem(path, &format!("{what}; {KEPT}"))
            }
        }
    }

    /// The real path and metadata of an entry; none if there is no such entry, an error if its link leads nowhere.
    fn resolve(&mut self, parent: &Path, name: &OsStr, path: &RelPath) -> io::Result<Option<(PathBuf, Metadata)>> {
        let direct = parent.join(name);
        let metadata = match fs::symlink_metadata(&direct) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_symlink() {
            return Ok(Some((direct, metadata)));
        }
        let mut parts = VecDeque::from([name.to_os_string()]);
        let observer = &mut *self.observer;
        let real = follow(parent.to_owned(), &mut parts, &mut |real, name| observer.hop(real, name, path))?;
        let metadata = fs::metadata(&real)?;
        Ok(Some((real, metadata)))
    }

    fn problem(&self, path: &RelPath, message: &str) -> Kind {
        Kind::Problem(self.root.trouble(path, Code::SyntaxError, message))
    }
}

/// What happens to the objects of something that cannot be read.
pub(super) const KEPT: &str = "the objects that it held last stay in force";

/// The system's words without the error number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Links that are followed from one name before it counts as a loop; the kernel's own number.
const MOST_LINKS: usize = 40;

/// Follows all links of a path below a real folder, and tells every step from the first link on, and the last.
///
/// The step to something that does not exist is told too, so that its creation is seen.
fn follow(
    mut real: PathBuf,
    parts: &mut VecDeque<OsString>,
    hop: &mut impl FnMut(&Path, &OsStr),
) -> io::Result<PathBuf> {
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir | Component::Prefix(_)) => real = PathBuf::from(part),
            Some(Component::ParentDir) => drop(real.pop()),
            Some(Component::CurDir) | None => {}
            Some(Component::Normal(name)) => {
                let next = real.join(name);
                let metadata = fs::symlink_metadata(&next);
                let is_link = metadata.as_ref().is_ok_and(Metadata::is_symlink);
                if is_link || links > 0 || metadata.is_err() || parts.is_empty() {
                    hop(&real, name);
                }
                metadata?;
                if !is_link {
                    real = next;
                    continue;
                }
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::other("too many links, or links in a circle"));
                }
                for part in fs::read_link(&next)?.iter().rev() {
                    parts.push_front(part.to_os_string());
                }
            }
        }
    }
    Ok(real)
}
