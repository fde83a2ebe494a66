//! Virtual hosts: the routes of all tables that serve a domain, in the order in which Envoy tries them.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::OrdMap;

use crate::ir::client::is_of;
use crate::ir::frozen::AcceptedRoute;
use crate::ir::{Matcher, Route, RouteBody, Routes, VirtualHost};
use crate::model::{Code, Finding, Findings, Host, Name, ObjectRef, PathMatch, WorkspaceId};
use crate::resolve::world::World;

use super::ports::BoundListener;
use super::{Bindings, GrownTree, ListenerKey, OnGateway, Served, isolation};

pub(super) mod arranged;

/// The virtual hosts that listeners share, in the order of their domains (R64, R67 to R69).
///
/// Where a listener redirects to https, so do its hosts, those too that no table serves (R61). A domain that several
/// listeners let in follows the one that names it most specifically; among equals, one that redirects.
pub(super) fn virtual_hosts<W: World + ?Sized>(
    here: &mut OnGateway<'_, W>,
    listeners: &[BoundListener],
    service_ports: &BTreeSet<u16>,
) -> Vec<Arc<VirtualHost>> {
    let mut by_domain: BTreeMap<Host, Vec<Claim<'_>>> = BTreeMap::new();
    for listener in listeners {
        let bound = here.bindings.tables.get(&listener.key());
        for (table, hosts) in bound.into_iter().flat_map(|tables| tables.values()).map(|bound| &**bound) {
            // A table without HTTP routes claims no HTTP host.
            let Some(grown) = here.trees.get(table).filter(|grown| grown.claims_http()) else {
                continue;
            };
            for (host, written) in hosts {
                by_domain.entry(host.clone()).or_default().push((written, grown));
            }
        }
    }
    let redirecting = listeners.iter().filter(|bound| bound.listener.redirects_to_https);
    for host in redirecting.flat_map(|bound| bound.listener.hosts()) {
        by_domain.entry(host).or_default();
    }
    by_domain
        .into_iter()
        .map(|(domain, claims)| {
            let (key, trees) = settled(listeners, service_ports, domain, claims);
            here.hosts.host(key, &trees)
        })
        .collect()
}

/// A table's own pattern for a domain, and its tree.
type Claim<'a> = (&'a Host, &'a Arc<GrownTree>);

/// Which of those who claim a domain serve it.
fn settled<'a>(
    listeners: &[BoundListener],
    service_ports: &BTreeSet<u16>,
    domain: Host,
    claims: Vec<Claim<'a>>,
) -> (HostKey, Vec<&'a Arc<GrownTree>>) {
    // A listener that narrows a wildcard to one host must not let it take that host from a table that names it (R68); among
    // equals the older goes first (R69).
    let most = claims.iter().map(|(written, _)| written.specificity()).max();
    let mut trees: Vec<&Arc<GrownTree>> =
        claims.into_iter().filter(|(written, _)| Some(written.specificity()) == most).map(|(_, grown)| grown).collect();
    trees.sort_by(|a, b| a.tree.root.age.cmp(&b.tree.root.age));
    trees.dedup_by(|a, b| a.tree.root.id == b.tree.root.id);
    let key = HostKey {
        redirects_to_https: redirects_to_https(listeners, &domain),
        domain,
        service_ports: service_ports.clone(),
        tables: trees.iter().map(|grown| grown.tree.root.id.clone()).collect(),
        views: Vec::new(),
    };
    (key, trees)
}

/// A bound port in plaintext, whose listeners share their virtual hosts: there each domain is settled by itself.
#[derive(Clone, Debug)]
pub struct PlainPort {
    pub(super) listeners: Vec<BoundListener>,
    pub(super) service_ports: BTreeSet<u16>,
}

impl PlainPort {
    /// Whether a listener of a virtual gateway is one of its own.
    #[must_use]
    pub fn has(&self, listener: &ListenerKey) -> bool {
        self.listeners.iter().any(|own| own.key() == *listener)
    }

    /// The virtual host of one domain, and what it is made from; none where nobody claims it.
    ///
    /// # Cost
    /// In proportion to those who claim it.
    pub fn host(
        &self,
        bindings: &Bindings,
        trees: &OrdMap<ObjectRef, Arc<GrownTree>>,
        domain: &Host,
        hosts: &mut dyn Hosts,
    ) -> Option<(HostKey, Arc<VirtualHost>)> {
        let keys: Vec<ListenerKey> = self.listeners.iter().map(BoundListener::key).collect();
        let bound = keys.iter().flat_map(|key| bindings.of_host(key, domain));
        let claims: Vec<Claim<'_>> = bound
            .filter_map(|(table, written)| Some((written, trees.get(table).filter(|grown| grown.claims_http())?)))
            .collect();
        let redirects = |bound: &BoundListener| {
            bound.listener.redirects_to_https && bound.listener.hosts().any(|host| host == *domain)
        };
        if claims.is_empty() && !self.listeners.iter().any(redirects) {
            return None;
        }
        let (key, trees) = settled(&self.listeners, &self.service_ports, domain.clone(), claims);
        let host = hosts.host(key.clone(), &trees);
        Some((key, host))
    }
}

/// R61.
fn redirects_to_https(listeners: &[BoundListener], domain: &Host) -> bool {
    let covering = listeners.iter().filter_map(|bound| {
        let hosts = bound.listener.hosts().filter(|host| host.overlap(domain).as_ref() == Some(domain));
        Some((hosts.map(|host| host.specificity()).max()?, bound.listener.redirects_to_https))
    });
    covering.max().is_some_and(|(_, redirects)| redirects)
}

/// One entry of a virtual host before it has its name.
#[derive(Clone, Copy)]
struct Entry<'r> {
    matcher: &'r Matcher,
    route: &'r AcceptedRoute,
    root: &'r ObjectRef,
    is_frozen: bool,
    /// Which piece of the virtual host it is part of.
    piece: usize,
}

/// The pieces of one tree on a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'t> {
    root: &'t ObjectRef,
    is_frozen: bool,
    off_mesh: &'t BTreeSet<ObjectRef>,
    pieces: &'t [Served],
}

impl<'t> Rows<'t> {
    /// The pieces of a tree with what is wrong on a gateway only.
    #[must_use]
    pub fn new(grown: &'t GrownTree, pieces: &'t [Served]) -> Self {
        let tree = &grown.tree;
        Self { root: &tree.root.id, is_frozen: grown.frozen.is_some(), off_mesh: &tree.off_mesh, pieces }
    }

    /// The entries of some pieces that exist behind the ports of a virtual host.
    fn entries(self, key: &HostKey, pieces: std::ops::Range<usize>) -> impl Iterator<Item = Entry<'t>> {
        let Self { root, is_frozen, off_mesh, pieces: all } = self;
        // Nearly no table is for some clients only.
        let is_checked = !off_mesh.is_empty() && !key.views.is_empty();
        let is_there = move |route: &&AcceptedRoute| {
            !is_checked || !route.body.chain.iter().any(|hop| off_mesh.contains(&hop.table))
        };
        let exists = |matcher: &Matcher| matcher.port.is_none_or(|port| key.service_ports.contains(&port));
        pieces.flat_map(move |piece| {
            let routes = all[piece]
                .iter()
                .filter(is_there)
                .flat_map(|route| route.matchers.iter().map(move |matcher| (matcher, route)));
            let own = routes.filter(move |(matcher, _)| exists(matcher));
            own.map(move |(matcher, route)| Entry { matcher, route, root, is_frozen, piece })
        })
    }
}

/// A piece of a virtual host.
#[derive(Clone, Debug)]
struct Stretch {
    routes: Arc<[Route]>,
    findings: Findings,
}

/// What a virtual host is made from, beside the trees of its tables and what is wrong with them on its gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostKey {
    /// The domain.
    pub domain: Host,
    /// The ports of the gateway Service that lead to it.
    pub service_ports: BTreeSet<u16>,
    /// Whether requests are sent on to `https`.
    pub redirects_to_https: bool,
    /// The root tables that serve it, in age order; for several views, those of each.
    pub tables: Vec<ObjectRef>,
    /// Who finds which of them; none where everybody finds all.
    pub views: Vec<View>,
}

impl HostKey {
    /// How often the routes of a root table stand in the virtual host: once for each workspace that finds them.
    #[must_use]
    pub fn times(&self, root: &ObjectRef) -> u64 {
        let among = |tables: &[ObjectRef]| tables.iter().filter(|table| *table == root).count() as u64;
        if self.views.is_empty() {
            return among(&self.tables);
        }
        self.views.iter().map(|View { tables: (start, end), .. }| among(&self.tables[*start..*end])).sum()
    }
}

/// What clients of one workspace find under a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// The workspace.
    pub client: WorkspaceId,
    /// Which of the key's tables: from the first up to the second position.
    pub tables: (usize, usize),
}

/// Makes virtual hosts, or has them already.
pub trait Hosts {
    /// The virtual host; `trees` are those of the key's tables, in the same order.
    fn host(&mut self, key: HostKey, trees: &[&Arc<GrownTree>]) -> Arc<VirtualHost>;
}

/// The routes of one domain: tables in age order, catch-alls of several tables last (R69, D11).
///
/// # Findings
/// [`Code::RouteShadowed`] and [`Code::BeatenByOlder`] on tables.
///
/// # Cost
/// In proportion to the routes.
pub fn virtual_host(key: &HostKey, trees: &[Rows<'_>], findings: &mut Findings) -> VirtualHost {
    let stretches = stretches(key, trees);
    let host = assemble(key, &stretches);
    findings.extend(stretches.into_iter().flat_map(|stretch| stretch.findings));
    host
}

fn assemble(key: &HostKey, stretches: &[Stretch]) -> VirtualHost {
    let pieces = stretches.iter().filter(|stretch| !stretch.routes.is_empty());
    let mut tables = key.tables.clone();
    if !key.views.is_empty() {
        tables.sort();
        tables.dedup();
    }
    VirtualHost {
        domain: key.domain.clone(),
        tables,
        redirects_to_https: key.redirects_to_https,
        routes: Routes::new(pieces.map(|stretch| stretch.routes.clone()).collect()),
    }
}

/// All pieces of a virtual host. What several workspaces find is settled once for each of its forms, and has a copy for each
/// of them that takes their clients' requests only.
fn stretches(key: &HostKey, trees: &[Rows<'_>]) -> Vec<Stretch> {
    if key.views.is_empty() {
        return settled_stretches(key, trees);
    }
    let mut forms: BTreeMap<(usize, usize), Vec<Stretch>> = BTreeMap::new();
    let mut all = Vec::new();
    for view in &key.views {
        let (start, end) = view.tables;
        let (own, is_first) = match forms.entry((start, end)) {
            Place::Occupied(form) => (form.into_mut(), false),
            Place::Vacant(place) => {
                (place.insert(settled_stretches(key, trees.get(start..end).unwrap_or_default())), true)
            }
        };
        let shut = shut_out(trees.get(start..end).unwrap_or_default(), &view.client);
        all.extend(own.iter().map(|stretch| {
            let routes = stretch.routes.iter().map(|route| for_client(route, &view.client, &shut));
            // What is wrong is told once.
            let findings = if is_first { stretch.findings.clone() } else { Findings::new() };
            Stretch { routes: routes.collect(), findings }
        }));
    }
    all
}

/// The routes of some trees that lead a workspace's clients nowhere, by their places in memory.
fn shut_out(trees: &[Rows<'_>], client: &WorkspaceId) -> BTreeSet<*const RouteBody> {
    let routes = trees.iter().flat_map(|rows| rows.pieces.iter()).flat_map(|piece| piece.iter());
    routes.filter(|route| route.shut_out.contains(client)).map(|route| Arc::as_ptr(&route.body)).collect()
}

/// A route for clients of one workspace.
fn for_client(route: &Route, client: &WorkspaceId, shut_out: &BTreeSet<*const RouteBody>) -> Route {
    let mut matcher = route.matcher.clone();
    matcher.headers.push(is_of(client));
    let is_shut = shut_out.contains(&Arc::as_ptr(&route.body));
    let body = if is_shut { isolation::shut(&route.body) } else { route.body.clone() };
    Route { name: format!("{}@{client}", route.name).into(), matcher, body }
}

/// The pieces for those who find all of some trees: those of the trees, and one for the catch-alls of several tables.
fn settled_stretches(key: &HostKey, trees: &[Rows<'_>]) -> Vec<Stretch> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut catch_alls: Vec<Entry<'_>> = Vec::new();
    let mut count = 0;
    for rows in trees {
        for mut entry in rows.entries(key, 0..rows.pieces.len()) {
            entry.piece += count;
            if trees.len() > 1 && entry.matcher.is_catch_all() {
                catch_alls.push(entry);
            } else {
                entries.push(entry);
            }
        }
        count += rows.pieces.len();
    }
    if !catch_alls.is_empty() {
        catch_alls.iter_mut().for_each(|entry| entry.piece = count);
        entries.append(&mut catch_alls);
        count += 1;
    }
    settle(&entries, count, &key.domain)
}

/// Leaves out entries that can never match, and names the others.
fn settle(entries: &[Entry<'_>], count: usize, domain: &Host) -> Vec<Stretch> {
    let mut findings: Vec<Findings> = vec![Findings::new(); count];
    let mut routes: Vec<Vec<Route>> = (0..count).map(|_| Vec::new()).collect();
    let kept = unshadowed(entries, domain, &mut findings);
    let mut names = Names::default();
    for entry in kept {
        let route = Route { name: names.of(entry), matcher: entry.matcher.clone(), body: entry.route.body.clone() };
        routes[entry.piece].push(route);
    }
    let stretches = routes.into_iter().zip(findings);
    stretches.map(|(routes, findings)| Stretch { routes: routes.into(), findings }).collect()
}

/// A matcher, whatever its port.
struct Portless<'m>(&'m Matcher);

impl Portless<'_> {
    fn conditions(&self) -> impl Eq + Hash {
        let Matcher { path, ignore_case, method, headers, query_parameters, port: _ } = self.0;
        (path, ignore_case, method, headers, query_parameters)
    }

    /// Whether it is a prefix without further conditions.
    fn bare_prefix(&self) -> Option<&Name> {
        let Matcher { path, ignore_case, method, headers, query_parameters, port: _ } = self.0;
        match path {
            PathMatch::Prefix(path)
                if !ignore_case && method.is_none() && headers.is_empty() && query_parameters.is_empty() =>
            {
                Some(path)
            }
            _ => None,
        }
    }
}

impl PartialEq for Portless<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.conditions() == other.conditions()
    }
}

impl Eq for Portless<'_> {}

impl Hash for Portless<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.conditions().hash(state);
    }
}

/// Leaves out entries that an earlier one hides completely: one that takes everything, or the very same matcher, or a prefix
/// without further conditions.
fn unshadowed<'e, 'r>(entries: &'e [Entry<'r>], domain: &Host, findings: &mut [Findings]) -> Vec<&'e Entry<'r>> {
    let mut kept: Vec<&Entry<'_>> = Vec::with_capacity(entries.len());
    let mut seen: HashMap<Portless<'_>, usize> = HashMap::with_capacity(entries.len());
    let mut prefixes: BTreeMap<Name, usize> = BTreeMap::new();
    let mut catch_all: Option<usize> = None;
    for entry in entries {
        let key = Portless(entry.matcher);
        let hidden_by = catch_all.or_else(|| seen.get(&key).copied()).or_else(|| below(entry.matcher, &prefixes));
        if let Some(position) = hidden_by {
            shadowed(entry, kept[position], domain, &mut findings[entry.piece]);
            continue;
        }
        if let Some(path) = key.bare_prefix() {
            prefixes.insert(path.clone(), kept.len());
        }
        seen.insert(key, kept.len());
        if entry.matcher.is_catch_all() {
            catch_all = Some(kept.len());
        }
        kept.push(entry);
    }
    kept
}

/// The prefix, of those that take all requests below them, that takes everything that a matcher does.
fn below<T: Copy>(matcher: &Matcher, prefixes: &BTreeMap<Name, T>) -> Option<T> {
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &matcher.path else { return None };
    if matcher.ignore_case || prefixes.is_empty() {
        return None;
    }
    path.char_indices().find_map(|(at, character)| prefixes.get(&path[..at + character.len_utf8()]).copied())
}

/// Tells the table whose route can never match.
fn shadowed(entry: &Entry<'_>, by: &Entry<'_>, domain: &Host, findings: &mut Findings) {
    // The remainder of a delegation is ours, not an author's: where valid children serve everything, nothing is left.
    let (Some(last), Some(winner)) = (entry.route.body.chain.last(), by.route.body.chain.last()) else { return };
    // A frozen route may no longer be what its table says.
    if entry.route.is_remainder || entry.is_frozen {
        return;
    }
    let code = if entry.root == by.root { Code::RouteShadowed } else { Code::BeatenByOlder };
    let older = if entry.root == by.root { "an earlier route" } else { "the older table" };
    findings.push(
        Finding::warning(
            &last.table,
            code,
            format!(
                "on host `{domain}` route `{}` ({}) is never reached: {older} `{winner}` takes {} first",
                last.route, entry.matcher.path, by.matcher.path
            ),
        )
        .at(last.field())
        .with(&winner.table),
    );
}

/// Names of entries that are unique within the virtual host and say where they come from.
#[derive(Default)]
struct Names(HashMap<String, usize>);

impl Names {
    fn of(&mut self, entry: &Entry<'_>) -> Name {
        let base = base_name(entry);
        let count = self.0.entry(base.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { base.into() } else { format!("{base}[{}]", *count - 1).into() }
    }
}

fn base_name(entry: &Entry<'_>) -> String {
    entry.route.body.chain.last().map_or_else(|| "route".to_owned(), ToString::to_string)
}
