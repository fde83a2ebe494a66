//! Names below the directory, and which of them are read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A path relative to the directory; empty for the directory itself. Sorted by its bytes: "path order".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RelPath(Arc<OsStr>);

impl RelPath {
    /// The directory itself.
    pub(super) fn root() -> Self {
        Self::new(OsStr::new(""))
    }

    /// A path from its text.
    pub(super) fn new(text: &OsStr) -> Self {
        Self(Arc::from(text))
    }

    /// The path of an entry of this folder.
    pub(super) fn join(&self, name: &OsStr) -> Self {
        if self.is_root() {
            return Self::new(name);
        }
        let mut text = OsString::with_capacity(self.0.len() + 1 + name.len());
        text.push(&self.0);
        text.push("/");
        text.push(name);
        Self::new(&text)
    }

    /// Whether this is the directory itself.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// As a path.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// The last part.
    pub(super) fn name(&self) -> &OsStr {
        self.as_path().file_name().unwrap_or_default()
    }

    /// The first-level folder that the path lies in; none for files directly in the directory.
    pub(super) fn first_folder(&self) -> Option<&OsStr> {
        let mut parts = self.as_path().iter();
        let first = parts.next()?;
        parts.next().map(|_| first)
    }

    /// Whether the other path is this one or lies below it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.is_root() || other.as_path().starts_with(self.as_path())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().display().fmt(f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The entries at a path and below it, in path order.
///
/// # Cost
/// Only those entries are looked at, except for the directory itself.
pub(super) fn within<'a, V>(
    map: &'a BTreeMap<RelPath, V>,
    scope: &RelPath,
) -> impl Iterator<Item = (&'a RelPath, &'a V)> {
    let itself = map.get_key_value(scope);
    let start = if scope.is_root() { scope.clone() } else { scope.join(OsStr::new("")) };
    let scope = scope.clone();
    // Everything from `scope/` on, up to the first path that does not begin so.
    let below = map
        .range(start..)
        .take_while(move |(path, _)| scope.holds(path))
        .filter(move |(path, _)| itself.is_none_or(|(itself, _)| itself != *path));
    itself.into_iter().chain(below)
}

/// Whether a file of this name holds manifests. Editors' droppings (`.a.yaml.swp`, `a.yaml~`, `#a.yaml#`, `4913`,
/// `a.yaml.tmp`) do not.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden(name)
        && extension.is_some_and(|text| ["yaml", "yml", "json"].iter().any(|known| text.eq_ignore_ascii_case(known)))
}

/// Whether a name is hidden. This covers `..data` and the other folders of a mounted `ConfigMap`, which are read only
/// through the links that lead into them.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a folder of this name is not looked into: hidden ones, backups, unfinished copies, and `lost+found`.
pub(super) fn is_ignored_folder(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    is_hidden(name) || bytes.ends_with(b"~") || bytes.ends_with(b".tmp") || bytes == b"lost+found"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(OsStr::new(text))
    }

    #[test]
    fn only_manifests_are_read() {
        for (name, read) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            ("A.YAML", true),
            ("a.b.yaml", true),
            (".a.yaml", false),
            (".a.yaml.swp", false),
            ("a.yaml~", false),
            ("#a.yaml#", false),
            (".#a.yaml", false),
            ("a.yaml.tmp", false),
            ("4913", false),
            ("..data", false),
            ("yaml", false),
            ("a.txt", false),
        ] {
            assert_eq!(is_manifest(OsStr::new(name)), read, "{name}");
        }
    }

    #[test]
    fn path_order_is_byte_order() {
        let mut paths = [path("a/b.yaml"), path("a.yaml"), path("a-b.yaml"), path("a/b/c.yaml")];
        paths.sort();
        assert_eq!(paths.map(|path| path.to_string()), ["a-b.yaml", "a.yaml", "a/b.yaml", "a/b/c.yaml"]);
    }

    #[test]
    fn within_takes_the_path_and_what_is_below() {
        let map: BTreeMap<_, _> =
            ["a", "a-b", "a.yaml", "a/b", "a/b/c", "a0", "b"].into_iter().map(|text| (path(text), ())).collect();
        let found = |scope| within(&map, &path(scope)).map(|(path, ())| path.to_string()).collect::<Vec<_>>();
        assert_eq!(found("a"), ["a", "a/b", "a/b/c"]);
        assert_eq!(found("a/b"), ["a/b", "a/b/c"]);
        assert_eq!(found("c"), Vec::<String>::new());
        assert_eq!(found("").len(), 7);
    }

    #[test]
    fn the_first_folder_is_the_cluster() {
        assert_eq!(path("a.yaml").first_folder(), None);
        assert_eq!(path("west/a.yaml").first_folder(), Some(OsStr::new("west")));
        assert_eq!(path("west/x/a.yaml").first_folder(), Some(OsStr::new("west")));
    }
}
