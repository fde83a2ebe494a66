//! `failureMode: FREEZE_CONFIG`: a tree with an invalid route keeps what was accepted last.
//!
//! What is kept are routes: matchers, actions, policies, labels and where they come from. What is decided anew in every
//! compile: on which hosts and gateways the root table serves, what a gateway may reach (R146), what protecting policies
//! and the default-deny switch refuse (R130, R51), and endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::frozen::{Accepted, Remembered};
use crate::ir::route::{Action, RouteBody};
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef, Severity};
use crate::resolve::delegation::is_too_large;
use crate::resolve::facts::{FailureMode, RootTable, Table, TableRole};
use crate::resolve::policy;
use crate::resolve::world::World;

use super::growth::{GrownTree, guard};

/// Where a table's routes stand.
const ROUTES: &str = "spec.http";

/// Route tables with an error in their routes by themselves, among findings that no tree made.
#[must_use]
pub fn broken_tables(findings: &[Finding]) -> BTreeSet<ObjectRef> {
    findings.iter().filter(|finding| is_broken(finding)).filter_map(|finding| finding.subject.clone()).collect()
}

/// Whether a finding says that its table is one of [`broken_tables`].
#[must_use]
pub fn is_broken(finding: &Finding) -> bool {
    finding.severity == Severity::Error && finding.field.is_within(&FieldPath::new(ROUTES))
}

/// Whether findings of the sources say that some file, or a part of one, holds no object that can be read.
#[must_use]
pub fn is_unread(given: &[Finding]) -> bool {
    given.iter().any(|finding| finding.subject.is_none() && finding.severity == Severity::Error)
}

/// What is remembered of root tables before their trees are looked at: what a table that serves nowhere at present kept,
/// and which tables replace invalid routes.
///
/// While some file is unread (`is_unread`), nobody knows that a table is gone, or whose it is, so nothing is forgotten but
/// what a table that is there says itself.
///
/// # Cost
/// In proportion to the root tables and to what is remembered.
///
/// # Rule
/// R140, R141.
#[must_use]
pub fn carry_over<W: World + ?Sized>(world: &W, before: &Remembered, is_unread: bool) -> Remembered {
    let mut after = Remembered::default();
    if is_unread {
        after.accepted.clone_from(&before.accepted);
    }
    for table in world.root_tables() {
        carry_over_table(world, &table, before, &mut after);
    }
    after
}

/// The same for one table; `after` holds what is remembered of it while some file is unread.
pub fn carry_over_table<W: World + ?Sized>(world: &W, table: &Table, before: &Remembered, after: &mut Remembered) {
    let TableRole::Root(root) = &table.role else { return };
    match kept(world, table, root, before) {
        Some(accepted) => {
            after.accepted.insert(table.id.clone(), accepted.clone());
        }
        None if root.failure_mode != FailureMode::FreezeConfig => {
            if root.failure_mode == FailureMode::RouteReplacement {
                after.accepted.remove(&table.id);
            }
            after.replacing.insert(table.id.clone());
        }
        None => {}
    }
}

/// Whether what a table kept is still its own, so that it is remembered though every file is read.
pub fn is_remembered<W: World + ?Sized>(world: &W, id: &ObjectRef, before: &Remembered) -> bool {
    world.table(id).is_some_and(|table| match &table.role {
        TableRole::Root(root) => kept(world, &table, root, before).is_some(),
        _ => false,
    })
}

/// What a root table kept, if it still freezes and belongs to the same workspace.
fn kept<'r, W: World + ?Sized>(
    world: &W,
    table: &Table,
    root: &RootTable,
    before: &'r Remembered,
) -> Option<&'r Arc<Accepted>> {
    if root.failure_mode == FailureMode::RouteReplacement {
        return None;
    }
    let owner = world.roster().owner_of(&table.id)?;
    before.accepted.get(&table.id).filter(|accepted| accepted.owner == *owner)
}

/// Decides whether a tree is frozen, and what is remembered of it.
///
/// `broken` are tables with errors of their own ([`broken_tables`]); `after` begins as [`carry_over`] gives it.
///
/// # Findings
/// [`Code::FreezeConfig`] on the tables of a tree with an invalid route; what a kept route is refused for.
///
/// # Cost
/// In proportion to the routes of the tree, and nothing where it replaces invalid routes.
///
/// # Rule
/// R138 to R141.
pub fn freeze<W: World + ?Sized>(
    world: &W,
    grown: &mut GrownTree,
    broken: &BTreeSet<ObjectRef>,
    before: &Remembered,
    after: &mut Remembered,
    findings: &mut Findings,
) {
    let table = grown.tree.root.clone();
    let TableRole::Root(root) = &table.role else { return };
    let kept = kept(world, &table, root, before);
    if root.failure_mode != FailureMode::FreezeConfig && kept.is_none() {
        return;
    }
    if !is_invalid(grown, broken) {
        let now = accept(grown);
        // The same memory as long as nothing changes, so that nothing is written.
        let accepted = kept.filter(|kept| ***kept == now).cloned().unwrap_or_else(|| Arc::new(now));
        after.accepted.insert(table.id.clone(), accepted);
        return;
    }
    let field = FieldPath::new("spec.failureMode");
    let accepted = match kept {
        Some(kept) => kept.clone(),
        None if before.replacing.contains(&table.id) => Arc::new(accept(grown)),
        None => {
            let message = "a route of the tree is invalid and no accepted configuration is kept, so the tree works as with ROUTE_REPLACEMENT until all its routes are valid";
            findings.push(Finding::warning(&table.id, Code::FreezeConfig, message).at(field));
            return;
        }
    };
    after.accepted.insert(table.id.clone(), accepted.clone());
    let entries: usize = accepted.routes.iter().map(|route| route.matchers.len()).sum();
    let (served, guarded) = guard(world, &accepted);
    let hosts = root.hosts.len().max(1);
    let in_all = |bytes: fn(&RouteBody) -> usize| -> usize {
        let entries = served.iter().map(|route| bytes(&route.body).saturating_mul(route.matchers.len()));
        entries.sum::<usize>().saturating_mul(hosts)
    };
    let entries = entries.saturating_mul(hosts);
    // Bodies have a limit, and policies as much.
    if is_too_large(entries, in_all(bytes_of_body)) || is_too_large(entries, in_all(bytes_of_policies)) {
        let message = "the configuration that is kept is too large for the hosts that the table has now, so invalid routes answer 500; use fewer hosts, or correct the routes";
        findings.push(Finding::error(&table.id, Code::LimitExceeded, message).at(FieldPath::new("spec.hosts")));
        return;
    }
    let message = "a route of the tree is invalid, so the last accepted configuration of the whole tree stays in force, since an earlier time that is not known; changes wait until every route is valid";
    findings.push(Finding::warning(&table.id, Code::FreezeConfig, message).at(field));
    for child in grown.tree.parents.keys() {
        let message = format!(
            "the tree of `{}` keeps its last accepted configuration, because a route of it is invalid; changes of this table wait there until every route is valid",
            table.id.short()
        );
        findings.push(Finding::warning(child, Code::FreezeConfig, message).with(&table.id));
    }
    findings.extend(guarded);
    grown.kept = served;
    grown.frozen = Some(accepted);
}

/// What a direct response carries.
fn bytes_of_body(body: &RouteBody) -> usize {
    match &body.action {
        Action::Direct(direct) => direct.body.len(),
        Action::Forward(_) | Action::Redirect(_) => 0,
    }
}

/// What policies take, of the route and of its destinations.
fn bytes_of_policies(body: &RouteBody) -> usize {
    let there = match &body.action {
        Action::Forward(forward) => &forward.destinations[..],
        Action::Direct(_) | Action::Redirect(_) => &[],
    };
    body.policies.iter().chain(there.iter().flat_map(|destination| &destination.policies)).map(policy::bytes).sum()
}

/// Whether some route of a tree is invalid, wherever it is served.
///
/// A route that a policy keeps closed (R130) is not: the fault is the policy's.
fn is_invalid(grown: &GrownTree, broken: &BTreeSet<ObjectRef>) -> bool {
    grown.tree.routes().any(|route| route.fault.is_some())
        // Routes that are left out altogether.
        || grown.tree.findings.iter().any(|finding| finding.severity == Severity::Error)
        || std::iter::once(&grown.tree.root.id).chain(grown.tree.parents.keys()).any(|table| broken.contains(table))
}

/// A tree as it is, for keeping.
fn accept(grown: &GrownTree) -> Accepted {
    Accepted {
        root: grown.tree.root.id.clone(),
        owner: grown.tree.owner.clone(),
        routes: grown.tree.segments.iter().flat_map(|segment| segment.served.iter().cloned()).collect(),
    }
}
