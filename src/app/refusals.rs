//! From what a gateway refused to what its authors are told.
//!
//! ```text
//! streams ──► Witness ──► Ledger (who holds what)
//!                └──────► Refusals ──► compile thread: what is kept, and findings for the next compile
//! ```
//!
//! Streams write into tables and go on; only something new wakes the compile thread, and at most once until it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use crate::ir::GatewayPlan;
use crate::memory::refusals::blame::{blamed, changes};
use crate::memory::refusals::document::Document;
use crate::memory::refusals::{Bytes, Refusals, Refused};
use crate::model::{Code, EnvoyRelease, Finding, Findings, GatewayId, Name, ObjectRef};
use crate::publish::{GatewayKey, NotInForce, Withheld, limit_server};
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};
use crate::status::view::{NodeView, StreamView};
use crate::status::voice::{self, Blamed, Who};
use crate::status::{Ledger, View};
use crate::xds::node::Node;
use crate::xds::observation::{Acknowledgement, Blame, Observation, Observer, Peer, Refusal, RefusedResource, excerpt};

use super::Event;
use super::exchange::Exchange;
use super::limits::RefusedLimits;

/// Most bytes of Envoy's words in a finding, which has 2 KiB for everything. The whole stands in the log and the status.
pub(super) const WORDS: usize = 1024;

/// Most classes of gateways that a finding names, and most nodes of each.
pub(super) const NAMED: usize = 3;

/// After which a gateway that has asked for no routes has none, from an earlier connection either: Envoy asks for what it
/// has as soon as it may, at the latest when it gives up warming clusters after 15 s. Half of it would do.
const UNASKED: Duration = Duration::from_secs(60);

/// Most classes of gateways whose texts are remembered; few have as many.
const CLASSES: usize = 1024;

/// What was refused and accepted, shared between the streams and the compile thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    refusals: Mutex<Refusals>,
    /// What rate-limit services refused last and have not acknowledged since.
    limits: Mutex<BTreeMap<ObjectRef, RefusedLimits>>,
    /// Whether the compile thread is told already and didn't look yet.
    is_told: AtomicBool,
    /// The same of streams that ended.
    is_told_who_left: AtomicBool,
    /// Whether it makes a difference what filters gateways take.
    awaits_filters: AtomicBool,
    /// Classes by their text, as streams bear it.
    classes: Mutex<BTreeMap<Name, GatewayId>>,
    /// What other replicas tell, and are told.
    pub(super) exchange: Exchange,
}

impl Shared {
    /// Begins with what an earlier run kept.
    pub(super) fn of_earlier_run(document: Document) -> Self {
        Self { refusals: Mutex::new(Refusals::of_earlier_run(document)), ..Self::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Refusals> {
        // Every change under the lock is whole by itself.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is refused, and what was accepted in its place, so that streams don't wait while it is read.
    ///
    /// # Cost
    /// None, if nothing is refused: then only what an earlier run kept is in it.
    pub(super) fn copy(&self) -> Refusals {
        self.lock().copy()
    }

    /// What rate-limit services refused.
    pub(super) fn refused_limits(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, RefusedLimits>> {
        // Every change under the lock is whole by itself.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which key a client is served.
    ///
    /// # Cost
    /// A lookup; the text of a class is read once.
    fn key_of(&self, peer: &Peer) -> Option<GatewayKey> {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = classes.get(&peer.gateway) {
            return Some(key(class.clone(), &peer.node));
        }
        let class: GatewayId = peer.gateway.parse().ok()?;
        if classes.len() >= CLASSES {
            classes.clear();
        }
        classes.insert(peer.gateway.clone(), class.clone());
        Some(key(class, &peer.node))
    }

    /// Whether the compile thread is to be woken when a gateway takes filters.
    pub(super) fn await_filters(&self, awaits: bool) {
        self.awaits_filters.store(awaits, Ordering::SeqCst);
    }

    /// The compile thread looks now: what comes later wakes it again.
    pub(super) fn looked(&self) {
        self.is_told.store(false, Ordering::SeqCst);
    }

    /// The same of streams that ended.
    pub(super) fn looked_who_left(&self) {
        self.is_told_who_left.store(false, Ordering::SeqCst);
    }
}

/// Hears what happens on the streams.
pub(super) struct Witness {
    pub(super) ledger: Arc<Ledger>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: std_mpsc::Sender<Event>,
}

impl Observer for Witness {
    fn observe(&self, event: Observation) {
        let mut has_left = false;
        match &event {
            Observation::Acknowledged(peer, held) => self.acknowledged(peer, held),
            Observation::Refused(peer, refusal) => self.refused(peer, refusal),
            Observation::Disconnected(_) => has_left = true,
            Observation::Connected(_)
            | Observation::Sent(..)
            | Observation::Ignored(..)
            | Observation::Stuck(..)
            | Observation::TurnedAway(_) => {}
        }
        self.ledger.observe(event);
        // After the ledger, which says who is still there.
        if has_left && !self.shared.is_told_who_left.swap(true, Ordering::SeqCst) {
            // Fails only when the compile thread is gone, which ends the program.
            let _ = self.events.send(Event::Left);
        }
    }
}

impl Witness {
    fn acknowledged(&self, peer: &Peer, held: &Acknowledgement) {
        let Some(key) = self.shared.key_of(peer) else {
            let has_all = held.resource_type == ResourceType::RateLimit && held.outstanding == 0;
            let server = limit_server(&peer.node.id).filter(|_| has_all);
            if server.is_some_and(|server| self.shared.refused_limits().remove(&server).is_some()) {
                self.wake();
            }
            return;
        };
        let mut refusals = self.shared.lock();
        refusals.accept(&key, held.resource_type, &held.version, held.resources.iter(), held.outstanding);
        let has_ended = refusals.reconsider(&key, &peer.node.id, held.resource_type, held.resources.iter());
        drop(refusals);
        let is_filter = held.resource_type == ResourceType::Extension;
        if has_ended || (is_filter && self.shared.awaits_filters.load(Ordering::SeqCst)) {
            self.wake();
        }
    }

    fn wake(&self) {
        if !self.shared.is_told.swap(true, Ordering::SeqCst) {
            // Fails only when the compile thread is gone, which ends the program.
            let _ = self.events.send(Event::Refused);
        }
    }

    fn refused(&self, peer: &Peer, refusal: &Refusal) {
        // What is only suspected travels again in parts, and what is bad among it is refused by itself (F3).
        let Some(key) = self.shared.key_of(peer) else {
            self.refused_limits(peer, refusal);
            return;
        };
        if refusal.blame != Blame::Exact {
            return;
        }
        let mut is_news = false;
        for resource in &refusal.resources {
            let RefusedResource { name, version, owners } = resource;
            let bytes = Bytes::new(&key, refusal.resource_type, name, version);
            is_news |= self.shared.lock().refuse(&key, &peer.node.id, bytes, owners.clone(), &refusal.message);
        }
        if is_news {
            self.wake();
        }
    }
}

impl Witness {
    /// A rate-limit service keeps what it had.
    fn refused_limits(&self, peer: &Peer, refusal: &Refusal) {
        let server = limit_server(&peer.node.id).filter(|_| refusal.resource_type == ResourceType::RateLimit);
        let (Some(server), Some(resource)) = (server, refusal.resources.first()) else { return };
        let RefusedResource { version, owners, .. } = resource;
        let (version, owners) = (version.clone(), owners.clone());
        let words = excerpt(&refusal.message, WORDS);
        let refused = RefusedLimits { version, owners, words };
        if self.shared.refused_limits().insert(server, refused.clone()).as_ref() != Some(&refused) {
            tracing::warn!(client = %peer.gateway.escape_debug(), reason = %refused.words.escape_debug(), "refused its limits");
            self.wake();
        }
    }
}

/// Under which key a node of a class is served.
pub(super) fn key(gateway: GatewayId, node: &Node) -> GatewayKey {
    GatewayKey { gateway, bind: node.bind.clone(), envoy: release(node) }
}

fn release(node: &Node) -> EnvoyRelease {
    EnvoyRelease::serving(node.version.map(|version| (version.major, version.minor)))
}

/// Who is to blame for a refused resource, if it is known better than by what it was made from.
///
/// `compiled` is the resource as it was refused, `accepted` what the gateways took before.
pub(super) fn judge(plan: &GatewayPlan, compiled: &Resource, accepted: Option<&Resource>) -> Option<Arc<[ObjectRef]>> {
    let changes = changes(&accepted?.body, &compiled.body);
    Some(blamed(plan, &changes)?.into_iter().collect())
}

/// Whether some of these nodes is connected at a release.
pub(super) fn is_some_connected(
    connected: &View,
    envoy: EnvoyRelease,
    class: &GatewayId,
    nodes: &BTreeSet<Name>,
) -> bool {
    let Some(class) = connected.gateways.get(class.to_string().as_str()) else { return false };
    let mut present = nodes.iter().filter_map(|node| class.nodes.get(node));
    present.any(|node| node.streams.values().any(|stream| release(&stream.node) == envoy))
}

/// The connected gateways of a key that have not taken routes of a version for which a condition holds, or may hold others.
///
/// One that has asked for no routes for [`UNASKED`] has none. Names are foreign text: quote them where they are shown.
pub(super) fn behind<'v>(connected: &'v View, key: &GatewayKey, is_new: impl Fn(&Version) -> bool) -> Vec<&'v Name> {
    let Some(class) = connected.gateways.get(key.gateway.to_string().as_str()) else { return Vec::new() };
    let routes = |stream: &StreamView| stream.types.get(&ResourceType::Route).map(|routes| routes.acknowledged.clone());
    let has_taken = |node: &NodeView| {
        let own: Vec<&StreamView> = node.streams.values().filter(|stream| is_of(stream, key)).collect();
        let mut asked = own.iter().filter_map(|stream| routes(stream)).peekable();
        let is_silent = asked.peek().is_none();
        asked.all(|taken| taken.as_ref().is_some_and(&is_new))
            && (!is_silent || own.iter().all(|stream| stream.connected_for >= UNASKED))
    };
    class.nodes.iter().filter(|(_, node)| !has_taken(node)).map(|(name, _)| name).collect()
}

/// The gateways of a key with their streams.
pub(super) fn own_nodes<'v>(connected: &'v View, key: &GatewayKey) -> impl Iterator<Item = Vec<&'v StreamView>> {
    let class = connected.gateways.get(key.gateway.to_string().as_str());
    let nodes = class.into_iter().flat_map(|class| class.nodes.values());
    let own = move |node: &'v NodeView| node.streams.values().filter(|stream| is_of(stream, key)).collect::<Vec<_>>();
    nodes.map(own).filter(|streams| !streams.is_empty())
}

fn is_of(stream: &StreamView, key: &GatewayKey) -> bool {
    stream.node.bind == key.bind && release(&stream.node) == key.envoy
}

/// What of a compiled snapshot is not in force: what was kept in its place was accepted before.
pub(super) fn not_in_force(
    key: &GatewayKey,
    compiled: &Snapshot,
    refusals: &Refusals,
    kept: &BTreeSet<(ResourceType, Name)>,
) -> NotInForce {
    let withheld = |(resource_type, name): &(ResourceType, Name)| {
        let Resource { version, owners, .. } = &**compiled.get(*resource_type, name)?;
        let message = refusals.get(&Bytes::new(key, *resource_type, name, version))?.message.clone();
        Some(((*resource_type, name.clone()), Withheld { version: version.clone(), owners: owners.clone(), message }))
    };
    kept.iter().filter_map(withheld).collect()
}

/// What is kept in place of refused resources, by key.
pub(super) type Kept<'a> = BTreeMap<&'a GatewayKey, &'a BTreeSet<(ResourceType, Name)>>;

/// What is refused now, as other replicas are told of it too: of objects in the generation that was compiled.
pub(super) fn refused(
    refusals: &Refusals,
    kept: &Kept<'_>,
    generation: impl Fn(&ObjectRef) -> Option<i64>,
) -> Vec<voice::Refused> {
    let refused = |(bytes, refused): (&Bytes, &Refused)| {
        let of_this = (bytes.resource_type, bytes.name.clone());
        let blamed = refused.blamed.iter().map(|object| {
            let generation = generation(object).unwrap_or_default();
            Blamed { object: object.clone(), generation }
        });
        let who = |(class, nodes): (&GatewayId, &BTreeSet<Name>)| (class.to_string(), Who::of(nodes.iter()));
        voice::Refused {
            envoy: bytes.envoy.numbers(),
            class: bytes.class.as_ref().map(ToString::to_string),
            type_url: bytes.resource_type.type_url().to_owned(),
            name: bytes.name.clone(),
            version: bytes.version.to_string(),
            words: refused.message.to_string(),
            nodes: refused.nodes.iter().map(who).collect(),
            blamed: blamed.collect(),
            is_kept: kept.iter().any(|(key, kept)| bytes.concern(key) && kept.contains(&of_this)),
        }
    };
    refusals.iter().map(refused).collect()
}

/// Adds what gateways of another replica refused, as far as it is about objects as they are here.
pub(super) fn join(
    known: &mut Vec<voice::Refused>,
    other: &voice::Refused,
    generation: impl Fn(&ObjectRef) -> Option<i64>,
) {
    let is_here = |blamed: &&Blamed| generation(&blamed.object) == Some(blamed.generation);
    let blamed: Vec<Blamed> = other.blamed.iter().filter(is_here).cloned().collect();
    let same = known.iter_mut().find(|one| {
        (&one.type_url, &one.name, &one.version) == (&other.type_url, &other.name, &other.version)
            && (one.envoy, &one.class) == (other.envoy, &other.class)
    });
    match same {
        None if blamed.is_empty() => {}
        None => known.push(voice::Refused { blamed, ..other.clone() }),
        Some(one) => {
            for (class, who) in &other.nodes {
                one.nodes.entry(class.clone()).or_default().join(who);
            }
            let new: Vec<Blamed> = blamed.into_iter().filter(|blamed| !one.blamed.contains(blamed)).collect();
            one.blamed.extend(new);
            one.is_kept |= other.is_kept;
        }
    }
}

/// A finding for each object that is to blame for something that is refused now.
///
/// # Rule
/// R132: these make its approval FAILED.
pub(super) fn findings(refusals: &[voice::Refused]) -> Findings {
    let mut findings = Findings::new();
    for refused in refusals {
        let message = message(refused);
        let finding = |blamed: &Blamed| Finding::error(&blamed.object, Code::RefusedByGateway, message.clone());
        findings.extend(refused.blamed.iter().map(finding));
    }
    findings
}

/// How many refused is told roughly where it is many, and how many did not is not told: either changes with every Envoy that
/// comes or goes, and each change of a message costs a compile.
fn message(refused: &voice::Refused) -> String {
    let mut text = String::new();
    for (index, (gateway, nodes)) in refused.nodes.iter().take(NAMED).enumerate() {
        let names: Vec<String> =
            nodes.named.iter().take(NAMED).map(|node| format!("{:?}", excerpt(node, 128))).collect();
        let more = if nodes.count > NAMED { ", …" } else { "" };
        let _ = write!(
            text,
            "{}{} of gateway `{gateway}` ({}{more})",
            if index > 0 { ", " } else { "" },
            envoys(nodes.count),
            names.join(", ")
        );
    }
    if refused.nodes.len() > NAMED {
        let _ = write!(text, " and Envoys of {} more gateways", refused.nodes.len() - NAMED);
    }
    let is_cluster = refused.type_url == ResourceType::Cluster.type_url();
    let outcome = if refused.is_kept && is_cluster {
        "the last accepted version stays in force, and its endpoints as they were, if the new one speaks to them in another way"
    } else if refused.is_kept {
        "the last accepted version stays in force"
    } else {
        "no accepted version of it is known, so new gateways do without it"
    };
    let words = excerpt(&refused.words, WORDS);
    let (name, envoy) = (&refused.name, EnvoyRelease::serving(Some(refused.envoy)));
    let _ = write!(text, " refused `{name}` as made for Envoy {envoy}; {outcome}; Envoy says: {words:?}");
    text
}

/// A number of Envoys in words that seldom change.
fn envoys(number: usize) -> String {
    match [1000, 500, 200, 100, 50, 20, 10].into_iter().find(|step| number >= *step) {
        Some(step) => format!("{step} Envoys or more"),
        None if number == 1 => "1 Envoy".to_owned(),
        None => format!("{number} Envoys"),
    }
}

/// One line for what was refused, however many objects and nodes it concerns.
pub(super) fn log(bytes: &Bytes, refused: &Refused) {
    let objects: Vec<String> = refused.blamed.iter().take(NAMED).map(ToString::to_string).collect();
    let nodes: Vec<&str> = refused.nodes.values().flatten().take(NAMED).map(Name::as_str).collect();
    tracing::warn!(
        code = %Code::RefusedByGateway,
        gateway = %refused.first.gateway,
        release = %refused.first.envoy,
        node = nodes.join(" "),
        nodes = refused.nodes.values().map(BTreeSet::len).sum::<usize>(),
        type_url = bytes.resource_type.type_url(),
        resource = %bytes.name,
        version = %bytes.version,
        reason = %refused.message.escape_debug(),
        objects = refused.blamed.len(),
        object = objects.join(" "),
        "Envoy refused a resource"
    );
}
