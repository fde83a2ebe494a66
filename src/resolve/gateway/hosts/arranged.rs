//! A virtual host in pieces that stand by themselves.
//!
//! A piece is the routes of one stretch of a tree. Where no entry of a piece hides one of another, is hidden by one, or
//! would have its name, the piece can be made anew without the others; so it can where its entries only do something else. Whatever is not plainly so is arranged as a whole.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Entry, HostKey, Portless, Rows, Stretch, assemble, base_name, below, settle, stretches};
use crate::ir::route::changed;
use crate::ir::{Route, UpstreamId, VirtualHost};
use crate::model::{Findings, Name, PathMatch};
use crate::resolve::gateway::{Served, upstreams_of};

/// From how many pieces on it is worth to remember what is in them.
const MANY: usize = 16;

/// A virtual host as it was made last.
#[derive(Debug)]
pub struct Arranged {
    host: Arc<VirtualHost>,
    stretches: Vec<Stretch>,
    /// How many pieces name an upstream.
    upstreams: BTreeMap<UpstreamId, usize>,
    /// Where there is one tree.
    parts: Option<Parts>,
}

/// The pieces of the one tree that a virtual host serves.
#[derive(Debug)]
struct Parts {
    sources: Vec<Served>,
    /// Where there are many.
    index: Option<Index>,
}

/// How a virtual host differs from the one before.
#[derive(Debug, Default)]
pub struct Difference {
    /// Whether it does.
    pub is_other: bool,
    /// Upstreams that it names and did not.
    pub came: Vec<UpstreamId>,
    /// Upstreams that it named and does not.
    pub gone: Vec<UpstreamId>,
}

impl Arranged {
    /// Arranges a virtual host.
    #[must_use]
    pub fn new(key: &HostKey, trees: &[Rows<'_>]) -> Self {
        Self::after(key, trees, &[])
    }

    /// The same, of which the pieces before and behind all that differ are those of another one.
    fn after(key: &HostKey, trees: &[Rows<'_>], before: &[Stretch]) -> Self {
        let mut stretches = stretches(key, trees);
        let (old, new) = changed(before, &stretches, |old, new| old.routes == new.routes);
        let (front, rest) = stretches.split_at_mut(new.start);
        let behind = rest[new.len()..].iter_mut().zip(&before[old.end..]);
        for (stretch, known) in front.iter_mut().zip(before).chain(behind) {
            stretch.routes = known.routes.clone();
        }
        let mut arranged = Self {
            host: Arc::new(assemble(key, &stretches)),
            stretches: Vec::new(),
            upstreams: BTreeMap::new(),
            parts: None,
        };
        for stretch in &stretches {
            arranged.enter(stretch, &mut Difference::default());
        }
        arranged.stretches = stretches;
        if let [rows] = trees
            && !rows.is_frozen
            && key.views.is_empty()
        {
            let index = (rows.pieces.len() >= MANY).then(|| {
                let mut index = Index::default();
                rows.entries(key, 0..rows.pieces.len()).for_each(|entry| index.add(&entry));
                index
            });
            arranged.parts = Some(Parts { sources: rows.pieces.to_vec(), index });
        }
        arranged
    }

    /// The virtual host.
    #[must_use]
    pub fn host(&self) -> &Arc<VirtualHost> {
        &self.host
    }

    /// The upstreams that it names.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamId> {
        self.upstreams.keys()
    }

    /// What is wrong with routes on it.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.stretches.iter().flat_map(|stretch| stretch.findings.iter().cloned()).collect()
    }

    /// Arranges it anew with other pieces.
    ///
    /// # Cost
    /// Two words for every piece, and in proportion to the routes of those that are others; where these stand in the way of
    /// other pieces, as [`new`](Self::new).
    pub fn update(&mut self, key: &HostKey, trees: &[Rows<'_>]) -> Difference {
        let mut difference = Difference::default();
        if let Some((old, new)) = self.replace(key, trees) {
            for stretch in &old {
                self.leave(stretch, &mut difference);
            }
            for stretch in &new {
                self.enter(stretch, &mut difference);
            }
            difference.came.retain(|id| !difference.gone.contains(id));
            difference.is_other =
                old.len() != new.len() || old.iter().zip(&new).any(|(old, new)| old.routes != new.routes);
            difference.gone.retain(|id| !self.upstreams.contains_key(id));
            if difference.is_other {
                self.host = Arc::new(assemble(key, &self.stretches));
            }
            return difference;
        }
        let arranged = Self::after(key, trees, &self.stretches);
        let before = std::mem::replace(self, arranged);
        if before.host == self.host {
            self.host = before.host;
            return difference;
        }
        let only = |a: &Self, b: &Self| a.upstreams().filter(|id| !b.upstreams.contains_key(*id)).cloned().collect();
        Difference { is_other: true, came: only(self, &before), gone: only(&before, self) }
    }

    /// Takes pieces that are others in place of those before. Returns both; nothing where that cannot be done without the
    /// others.
    fn replace(&mut self, key: &HostKey, trees: &[Rows<'_>]) -> Option<(Vec<Stretch>, Vec<Stretch>)> {
        let ([rows], Some(parts)) = (trees, &mut self.parts) else { return None };
        if rows.is_frozen {
            return None;
        }
        let (old, new) = changed(&parts.sources, rows.pieces, Arc::ptr_eq);
        let before = Rows { pieces: &parts.sources, ..*rows };
        let pairs = || old.clone().zip(new.clone());
        let alike = pairs().map(|(old, new)| alike(key, &self.stretches[old], (before, old), (*rows, new)));
        if old.len() == new.len()
            && let Some(made) = alike.collect::<Option<Vec<Stretch>>>()
        {
            parts.sources.splice(old.clone(), rows.pieces[new].iter().cloned());
            let before: Vec<Stretch> = self.stretches.splice(old, made.iter().cloned()).collect();
            return Some((before, made));
        }
        let index = parts.index.as_mut()?;
        let gone: Vec<Entry<'_>> = before.entries(key, old.clone()).collect();
        let came: Vec<Entry<'_>> = rows.entries(key, new.clone()).collect();
        gone.iter().for_each(|entry| index.remove(entry));
        if gone.iter().chain(&came).any(|entry| index.is_touched_by(entry)) {
            return None;
        }
        // What takes everything hides whatever follows.
        let earlier = self.stretches[..old.start].iter().flat_map(|stretch| stretch.routes.last());
        if earlier.into_iter().any(|route| route.matcher.is_catch_all()) {
            return None;
        }
        came.iter().for_each(|entry| index.add(entry));
        let made: Vec<Entry<'_>> =
            came.iter().map(|entry| Entry { piece: entry.piece - new.start, ..*entry }).collect();
        let made = settle(&made, new.len(), &key.domain);
        parts.sources.splice(old.clone(), rows.pieces[new].iter().cloned());
        let before: Vec<Stretch> = self.stretches.splice(old, made.iter().cloned()).collect();
        Some((before, made))
    }

    fn enter(&mut self, stretch: &Stretch, difference: &mut Difference) {
        for id in named(stretch) {
            let uses = self.upstreams.entry(id.clone()).or_default();
            *uses += 1;
            if *uses == 1 {
                difference.came.push(id.clone());
            }
        }
    }

    fn leave(&mut self, stretch: &Stretch, difference: &mut Difference) {
        for id in named(stretch) {
            if let Some(uses) = self.upstreams.get_mut(id) {
                *uses -= 1;
                if *uses == 0 {
                    self.upstreams.remove(id);
                    difference.gone.push(id.clone());
                }
            }
        }
    }
}

/// A piece whose entries match the same and are called the same as those of the piece before, and only do something else: what is
/// hidden, and by whom, is as it was.
fn alike(
    key: &HostKey,
    stretch: &Stretch,
    (before, old): (Rows<'_>, usize),
    (rows, new): (Rows<'_>, usize),
) -> Option<Stretch> {
    let mut kept = stretch.routes.iter().peekable();
    let mut routes = Vec::with_capacity(stretch.routes.len());
    let (mut older, mut newer) = (before.entries(key, old..old + 1), rows.entries(key, new..new + 1));
    loop {
        let (older, newer) = match (older.next(), newer.next()) {
            (Some(older), Some(newer)) => (older, newer),
            (None, None) => break,
            _ => return None,
        };
        let is_alike = older.matcher == newer.matcher
            && older.route.is_remainder == newer.route.is_remainder
            && older.route.body.chain.last() == newer.route.body.chain.last();
        if !is_alike {
            return None;
        }
        let is_kept = |route: &&Route| Arc::ptr_eq(&route.body, &older.route.body) && route.matcher == *older.matcher;
        if let Some(route) = kept.next_if(is_kept) {
            routes.push(Route { body: newer.route.body.clone(), ..route.clone() });
        }
    }
    kept.next().is_none().then(|| Stretch { routes: routes.into(), findings: stretch.findings.clone() })
}

/// The upstreams that a piece names, neighbours of the same once.
fn named(stretch: &Stretch) -> impl Iterator<Item = &UpstreamId> {
    let mut before = None;
    let all = stretch.routes.iter().flat_map(|route| upstreams_of(&route.body));
    all.filter(move |id| before.replace(*id) != Some(*id))
}

/// What the entries of all pieces match and what they are called; a text stands for itself by its hash, so that two that
/// have the same are taken for the same.
#[derive(Debug, Default)]
struct Index {
    matchers: HashMap<u64, usize>,
    names: HashMap<u64, usize>,
    /// Of prefixes without further conditions.
    prefixes: BTreeMap<Name, usize>,
    /// Of exact matches and prefixes.
    paths: BTreeMap<Name, usize>,
}

impl Index {
    fn add(&mut self, entry: &Entry<'_>) {
        *self.matchers.entry(hash(&Portless(entry.matcher))).or_default() += 1;
        *self.names.entry(hash(&base_name(entry))).or_default() += 1;
        if let Some(path) = Portless(entry.matcher).bare_prefix() {
            *self.prefixes.entry(path.clone()).or_default() += 1;
        }
        if let Some(path) = path(entry) {
            *self.paths.entry(path.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, entry: &Entry<'_>) {
        subtract_hash(&mut self.matchers, hash(&Portless(entry.matcher)));
        subtract_hash(&mut self.names, hash(&base_name(entry)));
        if let Some(path) = Portless(entry.matcher).bare_prefix() {
            subtract(&mut self.prefixes, path);
        }
        if let Some(path) = path(entry) {
            subtract(&mut self.paths, path);
        }
    }

    /// Whether an entry of another piece may hide, be hidden by, or be called as one entry.
    fn is_touched_by(&self, entry: &Entry<'_>) -> bool {
        let starts = |prefix: &Name| {
            let mut from = self.paths.range(prefix.clone()..);
            from.next().is_some_and(|(path, _)| path.starts_with(prefix.as_str()))
        };
        entry.matcher.is_catch_all()
            || self.matchers.contains_key(&hash(&Portless(entry.matcher)))
            || self.names.contains_key(&hash(&base_name(entry)))
            || below(entry.matcher, &self.prefixes).is_some()
            || Portless(entry.matcher).bare_prefix().is_some_and(starts)
    }
}

fn path<'r>(entry: &Entry<'r>) -> Option<&'r Name> {
    match &entry.matcher.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path),
        PathMatch::Any | PathMatch::Regex(_) => None,
    }
}

fn subtract(counts: &mut BTreeMap<Name, usize>, name: &Name) {
    if let Some(uses) = counts.get_mut(name) {
        *uses -= 1;
        if *uses == 0 {
            counts.remove(name);
        }
    }
}

fn subtract_hash(counts: &mut HashMap<u64, usize>, hash: u64) {
    if let Some(uses) = counts.get_mut(&hash) {
        *uses -= 1;
        if *uses == 0 {
            counts.remove(&hash);
        }
    }
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
