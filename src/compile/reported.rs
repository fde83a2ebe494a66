//! Findings as they are reported: by object, sorted, each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::model::finding::sort_findings;
use crate::model::{Code, Finding, Findings, ObjectRef};

/// All findings of a compile, by what they are about.
///
/// # Cost
/// A clone shares everything with the original.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    by_subject: OrdMap<Option<ObjectRef>, Arc<[Finding]>>,
    count: usize,
}

impl Reported {
    /// Brings findings into reporting order.
    #[must_use]
    pub fn new(findings: Findings) -> Self {
        let mut by_subject: BTreeMap<Option<ObjectRef>, Findings> = BTreeMap::new();
        for finding in findings {
            by_subject.entry(finding.subject.clone()).or_default().push(finding);
        }
        let mut reported = Self::default();
        for (subject, own) in by_subject {
            reported.set(subject, own);
        }
        reported
    }

    /// Replaces all findings about one subject. Returns whether that made a difference.
    ///
    /// # Cost
    /// In proportion to those findings.
    pub fn set(&mut self, subject: Option<ObjectRef>, mut findings: Findings) -> bool {
        sort_findings(&mut findings);
        drop_echoes(&mut findings);
        let before = self.by_subject.get(&subject);
        if before.map_or(&[] as &[Finding], |before| before) == findings.as_slice() {
            return false;
        }
        self.count = self.count + findings.len() - before.map_or(0, |before| before.len());
        if findings.is_empty() {
            self.by_subject.remove(&subject);
        } else {
            self.by_subject.insert(subject, findings.into());
        }
        true
    }

    /// All of them, sorted by object, then gravest first.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.by_subject.values().flat_map(|findings| findings.iter())
    }

    /// Those about an object, gravest first.
    #[must_use]
    pub fn about(&self, id: &ObjectRef) -> &[Finding] {
        self.by_subject.get(&Some(id.clone())).map_or(&[], |findings| findings)
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> Option<&Finding> {
        self.iter().next()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, to be changed.
    #[must_use]
    pub fn to_vec(&self) -> Findings {
        self.iter().cloned().collect()
    }

    /// Those about subjects that have other findings than they had earlier: what they had, and what they have.
    ///
    /// # Cost
    /// In proportion to what is different, where the two come from one another.
    pub fn changes<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (&'a [Finding], &'a [Finding])> {
        earlier.by_subject.diff(&self.by_subject).map(|item| match item {
            DiffItem::Add(_, new) => (&[] as &[Finding], &**new),
            DiffItem::Update { old: (_, old), new: (_, new) } => (&**old, &**new),
            DiffItem::Remove(_, old) => (&**old, &[] as &[Finding]),
        })
    }
}

/// Drops findings about one subject that another one says too, and says more: what was wrong when a field was decoded is
/// said again, with what comes of it, by the route that needed the field.
fn drop_echoes(findings: &mut Findings) {
    let mut same_place: BTreeMap<(Code, &str), Vec<usize>> = BTreeMap::new();
    for (index, finding) in findings.iter().enumerate().filter(|(_, finding)| finding.subject.is_some()) {
        same_place.entry((finding.code, finding.field.as_str())).or_default().push(index);
    }
    let echo = |index: &usize, others: &[usize]| {
        let (own, severity) = (&findings[*index].message, findings[*index].severity);
        let mut others = others.iter().map(|other| &findings[*other]);
        others.any(|other| {
            other.severity == severity && other.message.len() > own.len() && other.message.contains(own.as_str())
        })
    };
    // More than a few at one place are no echoes of each other.
    let few = same_place.values().filter(|indices| (2..=8).contains(&indices.len()));
    let mut echoes: Vec<usize> =
        few.flat_map(|indices| indices.iter().filter(|index| echo(index, indices))).copied().collect();
    echoes.sort_unstable();
    for index in echoes.into_iter().rev() {
        findings.remove(index);
    }
}
