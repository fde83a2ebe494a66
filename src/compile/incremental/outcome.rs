//! What authors are told, kept by who says it: findings, counts and verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::inputs::Inputs;
use crate::compile::report::{Verdict, verdict};
use crate::compile::reported::Reported;
use crate::ir::UpstreamId;
use crate::model::{Finding, Findings, GatewayId, Host, Name, ObjectRef, WorkspaceId};
use crate::resolve::attachment::Beaten;
use crate::resolve::gateway::{HostKey, is_broken};
use crate::store::Store;

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The sources, and gateways.
    Given,
    /// Who owns what.
    Roster,
    /// What all gateways trust.
    Trust,
    /// What the references of a policy lead to.
    Policy(ObjectRef),
    /// Which rate-limit services get a configuration.
    Delivery(ObjectRef),
    /// What has no room on a rate-limit service.
    LimitServer(ObjectRef),
    /// An object by itself, and where it stands.
    Object(ObjectRef),
    /// Where a root table binds.
    Binding(ObjectRef),
    /// A tree, and what became of its freezing.
    Tree(ObjectRef),
    /// What became of policies on a segment of a tree.
    Segment(ObjectRef, u64),
    /// That nobody delegates to a table.
    Orphan(ObjectRef),
    /// That one policy lost to another.
    Beaten(Beaten),
    /// The Services behind a virtual destination.
    Backing(ObjectRef),
    /// That virtual destinations have one host.
    MeshHost(Host),
    /// That a workspace federates many Services.
    Federation(WorkspaceId),
    /// That several use one port, of which one takes whole connections.
    MeshPort(u16),
    /// East-west gateways that lack a port of a virtual destination.
    Unexposed(ObjectRef),
    /// The clients of a cluster.
    Clients(Name),
    /// Selectors of a policy without effect.
    NoEffect(ObjectRef),
    /// Virtual gateways that nobody serves.
    Unimplemented,
    /// The east-west gateways that workspaces choose.
    EastWest,
    /// The listeners of a gateway.
    Listeners(GatewayId),
    /// What policies share for all routes of a gateway.
    Extensions(GatewayId),
    /// A piece of a tree on a gateway.
    Piece(GatewayId, ObjectRef, u64),
    /// A virtual host of a gateway.
    Host(GatewayId, HostKey),
    /// A destination of a gateway.
    Upstream(GatewayId, UpstreamId),
    /// Who a gateway is to others.
    Identity(GatewayId),
    /// What gateways of other clusters connect to on a gateway.
    Crossing(GatewayId),
}

impl Origin {
    /// Whether it speaks before trees are looked at.
    fn is_early(&self) -> bool {
        matches!(self, Self::Given | Self::Roster | Self::Trust | Self::Policy(_) | Self::Object(_) | Self::Binding(_))
    }
}

/// A part of a count on an object (R135).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// The object.
    pub(super) id: ObjectRef,
    /// What is counted, in the API's words.
    pub(super) what: String,
    /// How many.
    pub(super) number: u64,
    /// Where this is there, it counts once, whoever else says the same of it.
    pub(super) element: Option<ObjectRef>,
}

impl Count {
    pub(super) fn new(id: &ObjectRef, what: &str, number: usize) -> Self {
        Self { id: id.clone(), what: what.to_owned(), number: number as u64, element: None }
    }

    pub(super) fn of(id: &ObjectRef, what: &str, element: &ObjectRef) -> Self {
        Self { id: id.clone(), what: what.to_owned(), number: 1, element: Some(element.clone()) }
    }
}

/// Everything that is told.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    by_subject: BTreeMap<Option<ObjectRef>, BTreeMap<Origin, Findings>>,
    subjects: BTreeMap<Origin, BTreeSet<Option<ObjectRef>>>,
    counts: BTreeMap<Origin, Vec<Count>>,
    sums: BTreeMap<ObjectRef, BTreeMap<String, u64>>,
    elements: BTreeMap<(ObjectRef, String, ObjectRef), usize>,
    stale_subjects: BTreeSet<Option<ObjectRef>>,
    stale_verdicts: BTreeSet<ObjectRef>,
    /// Subjects whose findings before trees have changed.
    early: BTreeSet<ObjectRef>,
    pub(super) reported: Reported,
    pub(super) verdicts: OrdMap<ObjectRef, Arc<Verdict>>,
}

impl Outcome {
    /// Replaces what an origin says.
    ///
    /// # Cost
    /// In proportion to what it says and said.
    pub(super) fn set(&mut self, origin: Origin, findings: Findings) {
        if findings.is_empty() && !self.subjects.contains_key(&origin) {
            return;
        }
        let mut now: BTreeMap<Option<ObjectRef>, Findings> = BTreeMap::new();
        for finding in findings {
            now.entry(finding.subject.clone()).or_default().push(finding);
        }
        let subjects: BTreeSet<Option<ObjectRef>> = now.keys().cloned().collect();
        let before = self.subjects.remove(&origin).unwrap_or_default();
        for subject in before.difference(&subjects) {
            if let Some(own) = self.by_subject.get_mut(subject) {
                own.remove(&origin);
                if own.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
            self.stale(&origin, subject);
        }
        for (subject, findings) in now {
            let own = self.by_subject.entry(subject.clone()).or_default();
            if own.get(&origin) != Some(&findings) {
                own.insert(origin.clone(), findings);
                self.stale(&origin, &subject);
            }
        }
        if !subjects.is_empty() {
            self.subjects.insert(origin, subjects);
        }
    }

    fn stale(&mut self, origin: &Origin, subject: &Option<ObjectRef>) {
        self.stale_subjects.insert(subject.clone());
        if let (true, Some(subject)) = (origin.is_early(), subject) {
            self.early.insert(subject.clone());
        }
    }

    /// Replaces what an origin counts.
    pub(super) fn count(&mut self, origin: &Origin, mut counts: Vec<Count>) {
        // Zero counts are left out.
        counts.retain(|count| count.number > 0);
        let before = self.counts.remove(origin).unwrap_or_default();
        let is_same = before == counts;
        if !is_same {
            for count in &counts {
                self.add(count);
            }
            for count in &before {
                self.subtract(count);
            }
        }
        if !counts.is_empty() {
            self.counts.insert(origin.clone(), counts);
        }
    }

    fn add(&mut self, count: &Count) {
        if let Some(element) = &count.element {
            let uses = self.elements.entry((count.id.clone(), count.what.clone(), element.clone())).or_default();
            *uses += 1;
            if *uses > 1 {
                return;
            }
        }
        self.stale_verdicts.insert(count.id.clone());
        *self.sums.entry(count.id.clone()).or_default().entry(count.what.clone()).or_default() += count.number;
    }

    fn subtract(&mut self, count: &Count) {
        if let Some(element) = &count.element {
            let key = (count.id.clone(), count.what.clone(), element.clone());
            if let Some(uses) = self.elements.get_mut(&key) {
                *uses -= 1;
                if *uses > 0 {
                    return;
                }
            }
            self.elements.remove(&key);
        }
        self.stale_verdicts.insert(count.id.clone());
        let Some(sums) = self.sums.get_mut(&count.id) else { return };
        if let Some(sum) = sums.get_mut(&count.what) {
            *sum -= count.number;
            if *sum == 0 {
                sums.remove(&count.what);
            }
        }
        if sums.is_empty() {
            self.sums.remove(&count.id);
        }
    }

    /// Forgets an origin.
    pub(super) fn forget(&mut self, origin: &Origin) {
        self.set(origin.clone(), Findings::new());
        self.count(origin, Vec::new());
    }

    /// An object came, went, or has another generation.
    pub(super) fn changed(&mut self, id: &ObjectRef) {
        if id.kind.is_v2() {
            self.stale_verdicts.insert(id.clone());
        }
    }

    /// Takes the subjects whose findings before trees have changed, and whether one of these says that they are broken.
    pub(super) fn take_early(&mut self) -> Vec<(ObjectRef, bool)> {
        let early = std::mem::take(&mut self.early);
        let broken = |subject: &ObjectRef| {
            let origins = self.by_subject.get(&Some(subject.clone()));
            let mut early = origins.into_iter().flatten().filter(|(origin, _)| origin.is_early());
            early.any(|(_, findings)| findings.iter().any(is_broken))
        };
        early.iter().map(|subject| (subject.clone(), broken(subject))).collect()
    }

    /// Brings findings and verdicts up to date. Returns how many verdicts were rendered.
    ///
    /// # Cost
    /// In proportion to the objects about which something else is said or counted than before.
    pub(super) fn render(&mut self, store: &Store, inputs: &Inputs) -> usize {
        for subject in std::mem::take(&mut self.stale_subjects) {
            let findings: Findings = self
                .by_subject
                .get(&subject)
                .into_iter()
                .flat_map(|origins| origins.values().flatten())
                .cloned()
                .collect::<Vec<Finding>>();
            if self.reported.set(subject.clone(), findings)
                && let Some(subject) = subject
                && subject.kind.is_v2()
            {
                self.stale_verdicts.insert(subject);
            }
        }
        let stale = std::mem::take(&mut self.stale_verdicts);
        for id in &stale {
            let object = store.get(id).filter(|_| id.kind.is_v2());
            let Some(object) = object else {
                self.verdicts.remove(id);
                continue;
            };
            let counts = self.sums.get(id).cloned().unwrap_or_default();
            let new = verdict(object, self.reported.about(id), inputs.is_counted(id), counts);
            if self.verdicts.get(id).is_none_or(|old| **old != new) {
                self.verdicts.insert(id.clone(), Arc::new(new));
            }
        }
        stale.len()
    }

    /// How many entries are held.
    pub(super) fn len(&self) -> usize {
        self.by_subject.len() + self.subjects.len() + self.counts.len() + self.sums.len() + self.elements.len()
    }
}
