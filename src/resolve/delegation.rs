//! The tree of a root table: walk, inherit, order, cycles, refusals.
//!
//! Expanding a root table gives its ordered list of final routes, as the manual's page on delegation describes in one
//! piece: extend the chain, merge labels, combine matchers, check destinations, walk into usable child tables, order what
//! comes back, and add an error route where something failed.
//!
//! What a tree does not know: gateways. What holds on one gateway only is decided by [`super::gateway`].
//!
//! What a delegation brings, and what a table brings below it, are [fragments]: the same wherever they stand in the tree, so
//! that a compiler that keeps them makes only those anew that read something else.
//!
//! # Cost
//! In proportion to the final routes times the length of their chains, and never more than `MAX_COST` for one tree.

pub mod fragments;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::route::{
    DirectResponse, EffectiveLabels, HeaderMatch, Hop, HostRewrite, LabelOrigin, Matcher, PathRewrite, QueryMatch,
    Redirect, RouteFault, ValueMatch,
};
use crate::ir::upstream::UpstreamId;
use crate::model::path::Uncombinable;
use crate::model::{Code, FieldPath, Finding, Findings, ObjectRef, PathMatch, WorkspaceId};

use super::Consent;
use super::destination::{Speaks, resolve_destination};
use super::facts::{Delegate, Fault, Selector, SortMethod, Table, TableAction, TableRole, TableRoute};
use super::gateway::Segment;
use super::roster::list;
use super::selection::Holder;
use super::visibility::share;
use super::world::World;
use fragments::{Budget, Fragment, Fragments, Place};

/// Longest chain of tables (R90). Real trees have two or three levels; the bound keeps a mistake from walking for ever.
const MAX_CHAIN: usize = 16;

/// Most combinations of matchers along one chain. Each is an entry that Envoy tries in turn.
const MAX_COMBINATIONS: usize = 1_000;

/// What the expansion of one root table may cost. A visited route costs the length of its chain, its labels, and four times
/// the matchers that it tries, each of which becomes an entry of its own; a table that a selector finds costs 1.
///
/// A tree of three levels with five labels on each route has some 80,000 routes at this cost. Tables that each delegate
/// twice to the next double at every level: 16 levels of them cost more. The worst trees take 300 MB; twice as much here
/// is twice as much there.
const MAX_COST: usize = 1_000_000;

/// Most entries of one tree in Envoy's lists: matchers times hosts. A gateway holds each with 2 kB and more.
const MAX_ENTRIES: usize = 2_000_000;

/// Most bytes in bodies of direct responses of one tree, counted for each entry that carries one.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Whether routes, counted as entries of Envoy's lists and as bytes of direct responses in them, are more than one tree
/// may have.
pub(super) fn is_too_large(entries: usize, body_bytes: usize) -> bool {
    entries > MAX_ENTRIES || body_bytes > MAX_BODY_BYTES
}

/// A root table with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The root table.
    pub root: Arc<Table>,
    /// Its owner.
    pub owner: WorkspaceId,
    /// Final routes in order, with what attaches to each.
    pub segments: Vec<Arc<Segment>>,
    /// Child tables that were reached, each with the tables that delegate to it.
    pub parents: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    /// Those of them whose routes clients inside the clusters do not find (R101).
    pub off_mesh: BTreeSet<ObjectRef>,
    /// What is wrong.
    pub findings: Findings,
}

impl Tree {
    /// Final routes in order.
    pub fn routes(&self) -> impl Iterator<Item = &FinalRoute> {
        self.segments.iter().flat_map(|segment| &segment.routes)
    }
}

/// One route at the end of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalRoute {
    /// Alternatives; at least one.
    pub matchers: Arc<[Matcher]>,
    /// From the root table to the one that ends the route.
    pub chain: Arc<[Hop]>,
    /// Effective labels (R103).
    pub labels: EffectiveLabels,
    /// What it does when it is valid.
    pub action: FinalAction,
    /// Why it is not.
    pub fault: Option<Box<RouteFault>>,
    /// Whether it is the error route that a delegation leaves for what no valid child serves (R89).
    pub is_remainder: bool,
}

/// What a valid final route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalAction {
    /// Forward to these, with weights.
    Forward(Arc<FinalForward>),
    /// Redirect.
    Redirect(Arc<Redirect>),
    /// Answer.
    Direct(DirectResponse),
    /// None: the route has a fault.
    None,
}

/// Where a valid final route forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalForward {
    /// Destinations with their weights.
    pub destinations: Arc<[(UpstreamId, u32)]>,
    /// Path.
    pub path_rewrite: Option<PathRewrite>,
    /// Host.
    pub host_rewrite: Option<HostRewrite>,
}

/// Expands a root table.
///
/// # Findings
/// Every code up to `UNSUPPORTED` on the table that holds a faulty route and on its ancestors (R133);
/// [`Code::DelegationRefused`] on child tables without consent (R134); [`Code::NotAChildTable`] (R84).
///
/// # Rule
/// R83 to R107.
pub fn expand(world: &dyn World, root: &Arc<Table>, fragments: &mut dyn Fragments) -> Option<Tree> {
    let owner = world.roster().owner_of(&root.id)?.clone();
    let budget = Budget {
        left: MAX_COST,
        is_cut: false,
        hosts: match &root.role {
            TableRole::Root(root) => root.hosts.len().max(1),
            TableRole::Child => 1,
        },
        entries_left: MAX_ENTRIES,
        body_bytes_left: MAX_BODY_BYTES,
    };
    let start = Branch {
        chain: Arc::default(),
        tables: Arc::default(),
        labels: EffectiveLabels::default(),
        matchers: [Matcher::any()].into(),
    };
    let mut walk = Walk::new(world, fragments, &owner, budget);
    let mut expansion = walk.table(root, &start);
    expansion.close(world);
    let findings = walk.findings.into_iter().collect();
    let mut parents: BTreeMap<ObjectRef, BTreeSet<ObjectRef>> = BTreeMap::new();
    for (child, parent) in walk.parents {
        parents.entry(child).or_default().insert(parent);
    }
    let is_off = |child: &&ObjectRef| world.table(child).is_some_and(|table| table.is_for_some_clients);
    let off_mesh = parents.keys().filter(is_off).cloned().collect();
    Some(Tree { root: root.clone(), owner, segments: expansion.segments, parents, off_mesh, findings })
}

/// How far the walk has come on one chain.
#[derive(Clone, Debug)]
pub struct Branch {
    chain: Arc<[Hop]>,
    tables: Arc<[Arc<Table>]>,
    labels: EffectiveLabels,
    matchers: Arc<[Matcher]>,
}

/// What one table contributes under one branch.
#[derive(Default)]
struct Expansion {
    segments: Vec<Arc<Segment>>,
    /// Routes after these.
    open: Vec<FinalRoute>,
    /// Child routes none of whose combinations can match (R94).
    conflicts: Vec<String>,
}

impl Expansion {
    /// Puts policies on what is open.
    fn close(&mut self, world: &dyn World) {
        if !self.open.is_empty() {
            self.segments.push(Arc::new(Segment::grow(world, std::mem::take(&mut self.open))));
        }
    }

    fn append(&mut self, world: &dyn World, segments: &[Arc<Segment>]) {
        if !segments.is_empty() {
            self.close(world);
            self.segments.extend_from_slice(segments);
        }
    }
}

struct Walk<'w> {
    world: &'w dyn World,
    fragments: &'w mut dyn Fragments,
    root_owner: WorkspaceId,
    /// Child tables, each with one that delegates to it.
    parents: BTreeSet<(ObjectRef, ObjectRef)>,
    /// Chains that meet say the same things about the same tables.
    findings: BTreeSet<Finding>,
    budget: Budget,
    /// Whether a limit left something out.
    is_limited: bool,
}

impl<'w> Walk<'w> {
    fn new(world: &'w dyn World, fragments: &'w mut dyn Fragments, root_owner: &WorkspaceId, budget: Budget) -> Self {
        Self {
            world,
            fragments,
            root_owner: root_owner.clone(),
            parents: BTreeSet::new(),
            findings: BTreeSet::new(),
            budget,
            is_limited: false,
        }
    }

    /// Takes a fragment, which is kept or made now.
    fn fragment(&mut self, place: &Place, make: &mut dyn FnMut(&mut Walk<'_>) -> Expansion) -> Arc<Fragment> {
        let (start, root_owner) = (self.budget, self.root_owner.clone());
        let fragment = self.fragments.fragment(place, &start, &mut |world, fragments| {
            let mut walk = Walk::new(world, fragments, &root_owner, start);
            let mut expansion = make(&mut walk);
            expansion.close(world);
            Fragment::new(expansion.segments, expansion.conflicts, walk, &start)
        });
        self.budget = fragment.spend(&self.budget);
        self.is_limited |= !fragment.is_whole();
        self.findings.extend(fragment.findings.iter().cloned());
        self.parents.extend(fragment.parents.iter().cloned());
        fragment
    }

    /// Expands one table under a branch; steps 2 to 4 of the procedure.
    fn table(&mut self, table: &Arc<Table>, above: &Branch) -> Expansion {
        let mut expansion = Expansion::default();
        let Some(owner) = self.world.roster().owner_of(&table.id).cloned() else { return expansion };
        // All routes of the table share the tables above them, and its labels where they have none of their own.
        let depth = above.chain.len();
        let tables: Arc<[Arc<Table>]> = above.tables.iter().chain([table]).cloned().collect();
        let labels = above.labels.with(&table.labels, depth, LabelOrigin::Table);
        for route in &table.routes {
            let hop =
                Hop { table: table.id.clone(), owner: owner.clone(), route: route.name.clone(), index: route.index };
            let mut branch = Branch {
                chain: above.chain.iter().cloned().chain([hop]).collect(),
                tables: tables.clone(),
                labels: labels.with(route.labels.iter().map(|(key, value)| (key, value)), depth, LabelOrigin::Route),
                matchers: Arc::default(),
            };
            let combinations = above.matchers.len().saturating_mul(route.matchers.len());
            self.spend(branch.chain.len() + branch.labels.iter().count() + 4 * combinations.min(MAX_COMBINATIONS));
            let (matchers, unusable) = combine_all(&above.matchers, &route.matchers);
            branch.matchers = matchers.into();
            if combinations > MAX_COMBINATIONS {
                let fault = own_fault(
                    route,
                    Code::Unsupported,
                    format!(
                        "its matchers and its parents' make more than {MAX_COMBINATIONS} combinations, and what goes beyond is left out; use fewer alternatives"
                    ),
                );
                self.finish(&branch, FinalAction::None, &[fault], &mut expansion.open, false);
                continue;
            }
            // Every alternative of the route was unreadable; its findings say so.
            if route.matchers.is_empty() {
                self.report(&branch, &route.faults, false);
                continue;
            }
            if let Some(message) = unusable {
                let message =
                    format!("below `{}` {message}; this alternative of the route is left out", parent_name(above));
                let mut faults = route.faults.clone();
                faults.push(own_fault(route, Code::InvalidField, message));
                self.finish(&branch, FinalAction::None, &faults, &mut expansion.open, false);
                continue;
            }
            if branch.matchers.is_empty() {
                expansion.conflicts.push(format!("{}:{}", table.id.short(), route.name));
                self.findings.insert(
                    Finding::warning(
                        &table.id,
                        Code::MatcherConflict,
                        format!(
                            "route `{}` can never match below `{}`: their matchers exclude each other",
                            route.name,
                            parent_name(above)
                        ),
                    )
                    .at(route_field(route)),
                );
                continue;
            }
            match &route.action {
                TableAction::Delegate(delegate) if route.faults.is_empty() => {
                    if self.budget.left == 0 {
                        self.too_large(&branch, &mut expansion.open);
                        continue;
                    }
                    let place = Place::delegation(table, route.index, &branch);
                    let fragment =
                        self.fragment(&place, &mut |walk| walk.delegate(table, &owner, route, delegate, &branch));
                    expansion.append(self.world, &fragment.segments);
                }
                _ => self.leaf(table, &owner, route, &branch, &mut expansion.open),
            }
        }
        expansion
    }

    /// A route that ends the chain.
    fn leaf(
        &mut self,
        table: &Table,
        owner: &WorkspaceId,
        route: &TableRoute,
        branch: &Branch,
        routes: &mut Vec<FinalRoute>,
    ) {
        let mut faults = route.faults.clone();
        let action = match &route.action {
            TableAction::Forward(forward) => {
                let holder = Holder { id: &table.id, owner };
                let mut destinations = Vec::with_capacity(forward.destinations.len());
                let mut findings = Findings::new();
                let stands = || branch.chain.last().map(Hop::field).unwrap_or_default();
                for written in forward.destinations.iter() {
                    match resolve_destination(
                        self.world,
                        holder,
                        &self.root_owner,
                        written,
                        &|| written.field(&stands()),
                        Speaks::Http,
                        &mut findings,
                    ) {
                        Ok(upstream) => destinations.push((upstream, written.weight)),
                        Err(fault) => faults.push(fault),
                    }
                }
                self.findings.extend(findings);
                let prefix_on_regex = matches!(forward.path_rewrite, Some(PathRewrite::Prefix(_)))
                    && branch.matchers.iter().any(|matcher| matches!(matcher.path, PathMatch::Regex(_)));
                if prefix_on_regex {
                    faults.push(own_fault(
                        route,
                        Code::Unsupported,
                        "`pathRewrite` cannot be used on a route that matches by regex; use `regexRewrite`".to_owned(),
                    ));
                }
                FinalAction::Forward(Arc::new(FinalForward {
                    destinations: destinations.into(),
                    path_rewrite: forward.path_rewrite.clone(),
                    host_rewrite: forward.host_rewrite.clone(),
                }))
            }
            TableAction::Redirect(redirect) => FinalAction::Redirect(redirect.clone()),
            TableAction::Direct(direct) => FinalAction::Direct(direct.clone()),
            TableAction::Delegate(_) | TableAction::None => FinalAction::None,
        };
        self.finish(branch, action, &faults, routes, false);
    }

    /// A route that hands over to child tables (R83 to R90, R95 to R98).
    fn delegate(
        &mut self,
        table: &Arc<Table>,
        owner: &WorkspaceId,
        route: &TableRoute,
        delegate: &Delegate,
        branch: &Branch,
    ) -> Expansion {
        let field = route_field(route).field("delegate").field("routeTables");
        let mut faults: Vec<Fault> = Vec::new();
        let mut expansion = Expansion::default();
        let mut children: Vec<Arc<Table>> = Vec::new();
        if delegate.items.is_empty() {
            faults.push(Fault {
                code: Code::DelegationEmpty,
                field: field.clone(),
                message: "`delegate` selects no table: write at least one item in `routeTables`".to_owned(),
            });
        }
        for (position, item) in delegate.items.iter().enumerate() {
            self.select(table, owner, item, &field.index(position), branch, &mut children, &mut faults);
        }
        // R83: a table that several items select counts at its first place.
        let mut seen: BTreeSet<ObjectRef> = BTreeSet::new();
        children.retain(|child| seen.insert(child.id.clone()));
        // R96: equal weights stay in the order of items, then age.
        children.sort_by_key(|child| Reverse(child.weight));
        let mut is_complete = true;
        for child in children {
            if self.budget.left == 0 {
                is_complete = false;
                break;
            }
            self.parents.insert((child.id.clone(), table.id.clone()));
            let place = Place::child(&child, branch);
            let fragment = self.fragment(&place, &mut |walk| walk.table(&child, branch));
            if !fragment.conflicts.is_empty() {
                faults.push(Fault {
                    code: Code::MatcherConflict,
                    field: route_field(route),
                    message: format!(
                        "{} cannot match below this route: combine paths by prefix only, and do not ask for two values of one header, method or port",
                        list(&fragment.conflicts, 5)
                    ),
                });
            }
            expansion.append(self.world, &fragment.segments);
        }
        if delegate.sort == SortMethod::RouteSpecificity && !expansion.segments.is_empty() {
            let sorted = Segment::sorted(&expansion.segments, specificity);
            expansion.segments = vec![Arc::new(sorted)];
        }
        if !faults.is_empty() {
            self.finish(branch, FinalAction::None, &faults, &mut expansion.open, true);
        } else if !is_complete {
            self.too_large(branch, &mut expansion.open);
        }
        expansion
    }

    /// Ends a delegation for which nothing is left of [`MAX_COST`]. The first one is reported; the tables of its chain are
    /// those of all others.
    fn too_large(&mut self, branch: &Branch, routes: &mut Vec<FinalRoute>) {
        let fault = Fault {
            code: Code::DelegationTooDeep,
            field: branch.chain.last().map(|hop| FieldPath::new("spec.http").index(hop.index)).unwrap_or_default(),
            message: "the tree of the root table is too large, because tables are reached again and again on different ways; what follows here answers 500, so delegate to each table from fewer routes".to_owned(),
        };
        self.is_limited = true;
        if !std::mem::replace(&mut self.budget.is_cut, true) {
            self.report(branch, std::slice::from_ref(&fault), true);
        }
        push(branch, FinalAction::None, &[fault], routes, true);
    }

    /// The usable tables of one selector item (R83 to R90).
    #[expect(clippy::too_many_arguments, reason = "the walk's state, once, in one private place")]
    fn select(
        &mut self,
        table: &Table,
        owner: &WorkspaceId,
        item: &Selector,
        field: &FieldPath,
        branch: &Branch,
        children: &mut Vec<Arc<Table>>,
        faults: &mut Vec<Fault>,
    ) {
        let roster = self.world.roster();
        let mut usable = 0_usize;
        let mut refusals: Vec<(Code, String)> = Vec::new();
        let (mut cycles, mut too_deep) = (Vec::new(), Vec::new());
        for candidate in self.world.tables(item) {
            let Some(child_owner) = roster.owner_of(&candidate.id) else { continue };
            self.spend(1);
            if !item.fits_owner(Some(child_owner)) {
                continue;
            }
            if matches!(candidate.role, TableRole::Root(_)) {
                // Tables that a workspace may not know of are not told to it.
                let is_known = child_owner == owner || self.consent(branch, &candidate, child_owner).is_ok();
                if is_known {
                    self.findings.insert(
                        Finding::warning(
                            &table.id,
                            Code::NotAChildTable,
                            format!("`{}` is selected but has hosts of its own, so it is skipped: only tables without `hosts` can be delegated to", candidate.id.short()),
                        )
                        .at(field.clone())
                        .with(&candidate.id),
                    );
                }
                continue;
            }
            if let Err(refusal) = self.consent(branch, &candidate, child_owner) {
                let (code, message) = refusal;
                self.findings.insert(
                    Finding::warning(
                        &candidate.id,
                        Code::DelegationRefused,
                        format!("`{}` selects this table for delegation, but {message}", table.id.short()),
                    )
                    .with(&table.id),
                );
                let message = if item.name.is_some() && item.namespace.is_some() {
                    format!("`{}` of workspace `{child_owner}` cannot be delegated to: {message}", candidate.id.short())
                } else {
                    format!("a table of workspace `{child_owner}` cannot be delegated to: {message}")
                };
                refusals.push((code, message));
                continue;
            }
            usable += 1;
            if branch.tables.iter().any(|above| above.id == candidate.id) {
                cycles.push(candidate.id.short());
            } else if branch.tables.len() >= MAX_CHAIN {
                too_deep.push(candidate.id.short());
            } else {
                children.push(candidate);
            }
        }
        if !cycles.is_empty() {
            let message = format!(
                "{} cannot be entered again from below itself; take the delegation out, or narrow its selector",
                list(&cycles, 5)
            );
            faults.push(Fault { code: Code::DelegationCycle, field: field.clone(), message });
        }
        if !too_deep.is_empty() {
            let message = format!(
                "a chain has at most {MAX_CHAIN} tables and {} would be one more; delegate from a table further up",
                list(&too_deep, 5)
            );
            faults.push(Fault { code: Code::DelegationTooDeep, field: field.clone(), message });
        }
        if usable == 0 {
            let fault = match refusals.into_iter().min() {
                Some((code, message)) => Fault { code, field: field.clone(), message },
                None => Fault {
                    code: Code::DelegationEmpty,
                    field: field.clone(),
                    message: format!(
                        "no child table fits {}; label a table so, or correct the selector",
                        item.describe()
                    ),
                },
            };
            faults.push(fault);
        }
    }

    /// Whether every ancestor may delegate to a child (R85 to R87, D14).
    fn consent(&self, branch: &Branch, child: &Table, child_owner: &WorkspaceId) -> Result<(), (Code, String)> {
        let world = self.world;
        let mut missing: Option<(Code, String)> = None;
        for (hop, ancestor) in branch.chain.iter().zip(branch.tables.iter()) {
            if hop.owner == *child_owner {
                continue;
            }
            let share = share(world, &hop.owner, child_owner, &ancestor.id, &ancestor.labels);
            let half = if !share.exported {
                (
                    Code::DelegationNotExported,
                    format!(
                        "workspace `{}` does not export its table `{}` to workspace `{child_owner}` (`exportTo`, kind ROUTE_TABLE)",
                        hop.owner,
                        ancestor.id.short()
                    ),
                )
            } else if !share.imported {
                (
                    Code::DelegationNotImported,
                    format!(
                        "workspace `{child_owner}` does not import the table `{}` from workspace `{}` (`importFrom`, kind ROUTE_TABLE)",
                        ancestor.id.short(),
                        hop.owner
                    ),
                )
            } else {
                continue;
            };
            missing = Some(missing.map_or(half.clone(), |first| first.min(half)));
        }
        let Some((code, message)) = missing else { return Ok(()) };
        let reverse = branch.chain.last().is_some_and(|parent| {
            parent.owner == *child_owner
                || share(world, child_owner, &parent.owner, &child.id, &child.labels).is_whole()
        });
        match (reverse, world.options().consent) {
            (true, Consent::Either) => Ok(()),
            (true, Consent::ParentExports) => Err((
                code,
                format!(
                    "{message}; the child's workspace shares its table with the parent's, which `--delegation-consent either` would accept"
                ),
            )),
            (false, _) => Err((code, message)),
        }
    }

    /// Ends a chain: a final route, with the first of its faults if it has any.
    fn finish(
        &mut self,
        branch: &Branch,
        action: FinalAction,
        faults: &[Fault],
        routes: &mut Vec<FinalRoute>,
        is_remainder: bool,
    ) {
        let entries = branch.matchers.len() * self.budget.hosts;
        let too_much = |message: String| Fault {
            code: Code::LimitExceeded,
            field: branch.chain.last().map(|hop| FieldPath::new("spec.http").index(hop.index)).unwrap_or_default(),
            message,
        };
        if entries > self.budget.entries_left {
            self.is_limited = true;
            let fault = too_much(format!(
                "the root table's hosts and routes make more than {MAX_ENTRIES} entries, and this one is left out; use fewer hosts or matchers"
            ));
            self.report(branch, &[fault], is_remainder);
            return;
        }
        self.budget.entries_left -= entries;
        let mut faults = faults.to_vec();
        if let FinalAction::Direct(direct) = &action {
            let bytes = entries.saturating_mul(direct.body.len());
            if bytes > self.budget.body_bytes_left {
                self.is_limited = true;
                faults.push(too_much(format!(
                    "the bodies of direct responses, one for each host and matcher, make more than {MAX_BODY_BYTES} bytes; shorten them"
                )));
            } else {
                self.budget.body_bytes_left -= bytes;
            }
        }
        self.report(branch, &faults, is_remainder);
        push(branch, action, &faults, routes, is_remainder);
    }

    fn spend(&mut self, cost: usize) {
        self.budget.left = self.budget.left.saturating_sub(cost);
    }

    /// Tells the table that holds a faulty route and every ancestor up to the root (R133).
    fn report(&mut self, branch: &Branch, faults: &[Fault], is_remainder: bool) {
        let Some(last) = branch.chain.last() else { return };
        for fault in faults {
            let what = if is_remainder { "delegation" } else { "route" };
            self.findings.insert(
                Finding::error(&last.table, fault.code, format!("{what} `{}`: {}", last.route, fault.message))
                    .at(fault.field.clone()),
            );
            for above in &branch.chain[..branch.chain.len() - 1] {
                if above.table == last.table {
                    continue;
                }
                self.findings.insert(
                    Finding::error(
                        &above.table,
                        fault.code,
                        format!(
                            "route `{}` leads to {what} `{}` of `{}`, which is invalid: {}",
                            above.route,
                            last.route,
                            last.table.short(),
                            fault.message
                        ),
                    )
                    .at(FieldPath::new("spec.http").index(above.index))
                    .with(&last.table),
                );
            }
        }
    }
}

/// Adds a final route, with the first of its faults if it has any (R145).
fn push(branch: &Branch, action: FinalAction, faults: &[Fault], routes: &mut Vec<FinalRoute>, is_remainder: bool) {
    if branch.matchers.is_empty() {
        return;
    }
    let fault = faults.iter().min_by_key(|fault| fault.code).map(|fault| {
        Box::new(RouteFault { code: fault.code, message: fault.message.clone(), gateway_specific: false })
    });
    routes.push(FinalRoute {
        matchers: branch.matchers.clone(),
        chain: branch.chain.clone(),
        labels: branch.labels.clone(),
        action: if fault.is_some() { FinalAction::None } else { action },
        fault,
        is_remainder,
    });
}

/// `spec.http[n]` of a route.
fn route_field(route: &TableRoute) -> FieldPath {
    FieldPath::new("spec.http").index(route.index)
}

fn own_fault(route: &TableRoute, code: Code, message: String) -> Fault {
    Fault { code, field: route_field(route), message }
}

fn parent_name(branch: &Branch) -> String {
    branch.chain.last().map_or_else(|| "its parents".to_owned(), ToString::to_string)
}

/// R97: exact, regex, prefix; long to short; a route counts by its most specific matcher. The remainder of a delegation
/// counts by its least specific one and follows equals, so that it stays behind the group that it ends (R98).
fn specificity(route: &FinalRoute) -> (u8, Reverse<usize>) {
    let keys = route.matchers.iter().map(|matcher| matcher.path.specificity());
    let key = if route.is_remainder { keys.max() } else { keys.min() };
    key.unwrap_or((2, Reverse(1)))
}

/// The combinations of a parent's and a route's alternatives that can match, of the first [`MAX_COMBINATIONS`] (R93, R94),
/// and what is wrong with the first that makes an expression that cannot be used.
fn combine_all(parents: &[Matcher], own: &[Matcher]) -> (Vec<Matcher>, Option<String>) {
    let pairs = parents.iter().flat_map(|parent| own.iter().map(move |child| (parent, child)));
    let (mut matchers, mut unusable) = (Vec::new(), None);
    for (parent, child) in pairs.take(MAX_COMBINATIONS) {
        match combine(parent, child) {
            Ok(matcher) => matchers.push(matcher),
            Err(Uncombinable::Expression(message)) => {
                unusable.get_or_insert(message);
            }
            Err(Uncombinable::Conflict) => {}
        }
    }
    (matchers, unusable)
}

/// One parent's and one child's conditions together.
///
/// # Rule
/// R93.
fn combine(parent: &Matcher, child: &Matcher) -> Result<Matcher, Uncombinable> {
    let both_paths = parent.path != PathMatch::Any && child.path != PathMatch::Any;
    if both_paths && parent.ignore_case != child.ignore_case {
        return Err(Uncombinable::Conflict);
    }
    let ignore_case = if child.path == PathMatch::Any { parent.ignore_case } else { child.ignore_case };
    let method = same_or_either(&parent.method, &child.method).ok_or(Uncombinable::Conflict)?;
    let port = same_or_either(&parent.port, &child.port).ok_or(Uncombinable::Conflict)?;
    let mut headers = parent.headers.clone();
    for header in &child.headers {
        if parent.headers.iter().any(|other| headers_conflict(other, header)) {
            return Err(Uncombinable::Conflict);
        }
        if !headers.contains(header) {
            headers.push(header.clone());
        }
    }
    let mut query_parameters = parent.query_parameters.clone();
    for parameter in &child.query_parameters {
        if parent.query_parameters.iter().any(|other| queries_conflict(other, parameter)) {
            return Err(Uncombinable::Conflict);
        }
        if !query_parameters.contains(parameter) {
            query_parameters.push(parameter.clone());
        }
    }
    let path = parent.path.combine(&child.path)?;
    Ok(Matcher { path, ignore_case, method, headers, query_parameters, port })
}

/// Two optional values that must agree; `None` outside means they do not.
fn same_or_either<T: Clone + PartialEq>(a: &Option<T>, b: &Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => None,
        (Some(a), _) => Some(Some(a.clone())),
        (None, b) => Some(b.clone()),
    }
}

fn headers_conflict(a: &HeaderMatch, b: &HeaderMatch) -> bool {
    a.name == b.name && !a.invert && !b.invert && values_conflict(&a.value, &b.value)
}

fn queries_conflict(a: &QueryMatch, b: &QueryMatch) -> bool {
    a.name == b.name && values_conflict(&a.value, &b.value)
}

fn values_conflict(a: &ValueMatch, b: &ValueMatch) -> bool {
    matches!((a, b), (ValueMatch::Exact(a), ValueMatch::Exact(b)) if a != b)
}

#[cfg(test)]
mod tests;
