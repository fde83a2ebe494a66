//! Parts of a tree that do not know what stands beside them.
//!
//! A fragment is what one delegation brings, or one table below a delegation: a function of its [`Place`], of what it reads,
//! and of what is left of the tree's limits as long as they are not reached. So an edit of one table makes its own fragment
//! and those above it, and every other one is taken as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::route::{EffectiveLabels, Hop, Matcher};
use crate::model::{Finding, ObjectRef};
use crate::resolve::facts::{Table, TableAction};
use crate::resolve::gateway::Segment;
use crate::resolve::world::World;

use super::{Branch, Walk};

/// What is left of the limits of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Of the cost of the walk. At zero no further table is entered; those that have been are finished.
    pub(super) left: usize,
    /// Whether some delegation has been cut off for that.
    pub(super) is_cut: bool,
    /// Hosts of the root table: each has every route.
    pub(super) hosts: usize,
    /// Of entries in Envoy's lists.
    pub(super) entries_left: usize,
    /// Of bytes in bodies of direct responses.
    pub(super) body_bytes_left: usize,
}

/// What a fragment is made from, beside what it reads.
#[derive(Clone, Debug)]
pub struct Place {
    /// The table that is expanded or delegates.
    table: Arc<Table>,
    /// The delegating route; none for a table as a whole.
    route: Option<usize>,
    chain: Arc<[Hop]>,
    labels: EffectiveLabels,
    matchers: Arc<[Matcher]>,
    /// The tables of the chain, where the fragment asks for their consent.
    tables: Option<Arc<[Arc<Table>]>>,
}

impl Place {
    /// A delegating route.
    pub(super) fn delegation(table: &Arc<Table>, route: usize, branch: &Branch) -> Self {
        Self::new(table, Some(route), branch, true)
    }

    /// A table below a delegation.
    pub(super) fn child(table: &Arc<Table>, branch: &Branch) -> Self {
        let delegates = table.routes.iter().any(|route| matches!(route.action, TableAction::Delegate(_)));
        Self::new(table, None, branch, delegates)
    }

    fn new(table: &Arc<Table>, route: Option<usize>, branch: &Branch, delegates: bool) -> Self {
        Self {
            table: table.clone(),
            route,
            chain: branch.chain.clone(),
            labels: branch.labels.clone(),
            matchers: branch.matchers.clone(),
            tables: delegates.then(|| branch.tables.clone()),
        }
    }

    /// The table that is expanded or delegates.
    #[must_use]
    pub fn table(&self) -> &ObjectRef {
        &self.table.id
    }

    /// Whether the same table, or route of it, stands here, whatever else is different.
    #[must_use]
    pub fn is_about(&self, other: &Self) -> bool {
        self.route == other.route && self.table.id == other.table.id && self.chain == other.chain
    }

    /// Whether nothing is different.
    ///
    /// # Cost
    /// In proportion to the chain, its labels and matchers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let tables = match (&self.tables, &other.tables) {
            (None, None) => true,
            (Some(own), Some(others)) => {
                own.len() == others.len() && own.iter().zip(others.iter()).all(|(own, other)| Arc::ptr_eq(own, other))
            }
            _ => false,
        };
        tables
            && Arc::ptr_eq(&self.table, &other.table)
            && self.is_about(other)
            && self.labels == other.labels
            && self.matchers == other.matchers
    }
}

/// What a delegation, or a table below one, brings.
#[derive(Debug)]
pub struct Fragment {
    pub(super) segments: Vec<Arc<Segment>>,
    /// Child routes none of whose combinations can match (R94).
    pub(super) conflicts: Vec<String>,
    pub(super) findings: BTreeSet<Finding>,
    /// Child tables, each with one that delegates to it.
    pub(super) parents: BTreeSet<(ObjectRef, ObjectRef)>,
    hosts: usize,
    cost: usize,
    entries: usize,
    body_bytes: usize,
    is_cut: bool,
    is_whole: bool,
}

impl Fragment {
    pub(super) fn new(segments: Vec<Arc<Segment>>, conflicts: Vec<String>, walk: Walk<'_>, start: &Budget) -> Self {
        let end = walk.budget;
        Self {
            segments,
            conflicts,
            findings: walk.findings,
            parents: walk.parents,
            hosts: start.hosts,
            cost: start.left - end.left,
            entries: start.entries_left - end.entries_left,
            body_bytes: start.body_bytes_left - end.body_bytes_left,
            is_cut: end.is_cut,
            is_whole: !walk.is_limited && end.left > 0,
        }
    }

    /// Takes segments of before in place of equal ones, so that nothing is made from them again.
    pub fn share_with(&mut self, before: &Self) {
        share(&mut self.segments, &before.segments);
    }

    /// Whether no limit left anything out.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it would be the same where this much is left.
    #[must_use]
    pub fn fits(&self, budget: &Budget) -> bool {
        self.is_whole
            && self.hosts == budget.hosts
            && self.cost < budget.left
            && self.entries <= budget.entries_left
            && self.body_bytes <= budget.body_bytes_left
    }

    /// What is left beside it.
    pub(super) fn spend(&self, budget: &Budget) -> Budget {
        Budget {
            left: budget.left.saturating_sub(self.cost),
            is_cut: budget.is_cut || self.is_cut,
            hosts: budget.hosts,
            entries_left: budget.entries_left.saturating_sub(self.entries),
            body_bytes_left: budget.body_bytes_left.saturating_sub(self.body_bytes),
        }
    }
}

/// Takes segments of before in place of equal ones that stand as far from either end.
pub fn share(segments: &mut [Arc<Segment>], before: &[Arc<Segment>]) {
    let take = |(own, before): (&mut Arc<Segment>, &Arc<Segment>)| {
        if !Arc::ptr_eq(own, before) && own == before {
            *own = before.clone();
        }
    };
    segments.iter_mut().zip(before).for_each(take);
    if segments.len() != before.len() {
        segments.iter_mut().rev().zip(before.iter().rev()).for_each(take);
    }
}

/// Makes a fragment from what a world says, with fragments inside.
pub type Make<'m> = &'m mut dyn FnMut(&dyn World, &mut dyn Fragments) -> Fragment;

/// Makes fragments, or has them already.
pub trait Fragments {
    /// The fragment at a place; one that is kept must [fit](Fragment::fits) what is left.
    fn fragment(&mut self, place: &Place, budget: &Budget, make: Make<'_>) -> Arc<Fragment>;
}

/// Makes every fragment.
#[expect(missing_debug_implementations, reason = "a world has nothing to show")]
#[derive(Clone, Copy)]
pub struct Afresh<'w>(pub &'w dyn World);

impl Fragments for Afresh<'_> {
    fn fragment(&mut self, _: &Place, _: &Budget, make: Make<'_>) -> Arc<Fragment> {
        let world = self.0;
        Arc::new(make(world, self))
    }
}
