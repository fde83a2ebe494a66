//! Where objects stand in files, for findings that are made long after the files were read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::crd::yaml;
use crate::model::{FieldPath, Finding, Location, ObjectRef};

/// Knows in which file each object stands. A handle: clones share one table, which the source keeps current.
///
/// # Cost
/// Finding a line reads and parses the file again, so it is for reports that people ask for; nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Places {
    table: Arc<RwLock<BTreeMap<ObjectRef, Place>>>,
}

/// Where one object stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where its text is.
    pub(super) text: Text,
    /// Its first line, as it was when the file was read.
    pub(super) location: Location,
}

/// Where to get the text of a file from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Text {
    /// A file that can be read again.
    File(Arc<Path>),
    /// Standard input or a pipe, kept because it can be read only once.
    Kept(Arc<[u8]>),
}

impl Places {
    /// The place of a finding: of its field if that is written in the file, else of the object's first line.
    ///
    /// A finding that knows its line keeps it. None where the object does not come from a file.
    #[must_use]
    pub fn place(&self, finding: &Finding) -> Option<Location> {
        if finding.location.as_ref().is_some_and(|location| location.line > 0) {
            return finding.location.clone();
        }
        let subject = finding.subject.as_ref()?;
        let place = self.get(subject)?;
        let bytes = place.text.bytes();
        Some(place.locate(bytes.as_deref(), subject, &finding.field))
    }

    /// Fills in the places of all findings that have none and whose object stands in a file.
    ///
    /// # Cost
    /// Reads each file once, one at a time.
    pub fn locate(&self, findings: &mut [Finding]) {
        let mut by_text: BTreeMap<Text, Vec<(usize, Place)>> = BTreeMap::new();
        for (index, finding) in findings.iter().enumerate() {
            let placed = finding.location.as_ref().is_some_and(|location| location.line > 0);
            if let Some(place) = finding.subject.as_ref().filter(|_| !placed).and_then(|subject| self.get(subject)) {
                by_text.entry(place.text.clone()).or_default().push((index, place));
            }
        }
        for (text, wanted) in by_text {
            let bytes = text.bytes();
            for (index, place) in wanted {
                let finding = &mut findings[index];
                if let Some(subject) = &finding.subject {
                    finding.location = Some(place.locate(bytes.as_deref(), subject, &finding.field));
                }
            }
        }
    }

    fn get(&self, subject: &ObjectRef) -> Option<Place> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(subject).cloned()
    }

    /// Replaces or, with none, removes the places of some objects.
    pub(super) fn update(&self, changes: Vec<(ObjectRef, Option<Place>)>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for (subject, place) in changes {
            match place {
                Some(place) => table.insert(subject, place),
                None => table.remove(&subject),
            };
        }
    }
}

impl Place {
    fn locate(&self, text: Option<&[u8]>, subject: &ObjectRef, field: &FieldPath) -> Location {
        match text.and_then(|text| yaml::locate(text, subject, &subject.cluster, field)) {
            Some((line, column)) => Location { file: self.location.file.clone(), line, column },
            None => self.location.clone(),
        }
    }
}

impl Text {
    /// The text; none if it is no longer readable.
    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Kept(bytes) => Some(bytes.to_vec()),
            Self::File(path) => {
                // Not opened if it is a pipe by now, which would block.
                std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
                let mut bytes = Vec::new();
                let most = yaml::Limits::default().file_bytes as u64;
                File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
                Some(bytes)
            }
        }
    }
}
