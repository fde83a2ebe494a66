//! What replicas tell each other of their gateways, between the compile thread and the task that writes statuses.
//!
//! ```text
//! compile thread ──► said ──► Reporter ──► API server ──► Reporter of another replica
//!        ▲                                                     │
//!        └── findings of the next compile ◄── heard ◄──────────┘
//! ```
//!
//! What another replica's gateways refused becomes a finding here, as if they were connected here. It changes nothing of what
//! gateways are sent: those of this replica refuse it themselves, or take it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc as std_mpsc};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;

use crate::compile::Compiled;
use crate::compile::report::Verdict;
use crate::model::{Finding, Findings, GatewayId, ObjectRef};
use crate::publish::{GatewayKey, NotInForce, Publisher, Watched};
use crate::snapshot::Snapshot;
use crate::status::programmed::{Other, Programmed, Standings, programmed};
use crate::status::voice::{Blamed, Differing, Generations, Refused, Told, Voice};

use super::clients::Asker;
use super::{CompileLoop, Event, refusals, releases};

/// Most keys that are made here only because other replicas serve them.
const KEYS: usize = 256;

/// Refusals and findings because of gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) refusals: Vec<Refused>,
    pub(super) findings: Vec<Told>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    said: Mutex<Arc<Words>>,
    heard: Mutex<Arc<Words>>,
    /// What was compiled when everything of it was published last.
    published: Mutex<Same<Compiled>>,
    /// What of `heard` is in that.
    told: Mutex<Same<Words>>,
}

/// Which one of many of a kind, without keeping it. Its place is not given to another as long as this is there.
#[derive(Debug)]
pub(super) struct Same<T>(Weak<T>);

impl<T> Same<T> {
    pub(super) fn of(one: &Arc<T>) -> Self {
        Self(Arc::downgrade(one))
    }
}

impl<T> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Same<T> {
    fn default() -> Self {
        Self(Weak::new())
    }
}

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under the lock is whole by itself.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    fn has_published(&self, compiled: &Arc<Compiled>) -> bool {
        *lock(&self.published) == Same::of(compiled)
    }

    fn has_told_what_is_heard(&self) -> bool {
        *lock(&self.told) == Same::of(&lock(&self.heard))
    }
}

impl CompileLoop {
    /// What authors are told beside `releases` because of gateways, of all replicas.
    ///
    /// With it, of which words of others this is.
    pub(super) fn words_of_gateways(&self, releases: &Findings) -> (Findings, Same<Words>) {
        let compiled = self.state.borrow().clone();
        let generation = |id: &ObjectRef| Some(compiled.as_ref()?.verdicts.get(id)?.generation);
        let refusals = self.refusals.copy();
        let kept = self.emitted.iter().map(|(key, emitted)| (key, &emitted.kept)).collect();
        let own = refusals::refused(&refusals, &kept, generation);
        let limits = self.limits.findings(&self.refusals.refused_limits());
        let told = |finding: &Finding| {
            let (object, code, severity) = (finding.subject.clone()?, finding.code, finding.severity);
            let about = Blamed { generation: generation(&object)?, object };
            Some(Told { about, severity, code, message: finding.message.clone() })
        };
        let findings: Vec<Told> = limits.iter().chain(releases).filter_map(told).collect();
        let heard = lock(&self.refusals.exchange.heard).clone();
        let said = Words { refusals: own, findings };
        let mut known = said.refusals.clone();
        for refused in &heard.refusals {
            refusals::join(&mut known, refused, generation);
        }
        let mut findings = refusals::findings(&known);
        findings.extend(limits);
        let is_known: BTreeSet<(&ObjectRef, &str)> =
            said.findings.iter().map(|told| (&told.about.object, told.message.as_str())).collect();
        let mut more: Vec<Finding> = Vec::new();
        for Told { about: Blamed { object, generation: of }, severity, code, message } in &heard.findings {
            let finding = Finding::new(object, *severity, *code, message.clone());
            let is_new = !is_known.contains(&(object, message.as_str())) && !more.contains(&finding);
            if is_new && generation(object) == Some(*of) {
                more.push(finding);
            }
        }
        findings.extend(more);
        let mut before = lock(&self.refusals.exchange.said);
        if **before != said {
            *before = Arc::new(said);
        }
        drop(before);
        (findings, Same::of(&heard))
    }

    /// Everything that is compiled is published, as far as it can be, with these words of others.
    pub(super) fn all_published(&self, heard: Same<Words>) {
        *lock(&self.refusals.exchange.told) = heard;
        *lock(&self.refusals.exchange.published) = self.state.borrow().as_ref().map(Same::of).unwrap_or_default();
    }

    /// What releases of gateways cannot do.
    pub(super) fn releases(&self) -> Findings {
        let view = std::cell::OnceCell::new();
        releases::findings(&self.emissions, || view.get_or_init(|| self.ledger.view()))
    }
}

/// What the other replicas say, as it is used here.
pub(super) struct Others {
    shared: Arc<refusals::Shared>,
    publisher: Arc<Publisher>,
    events: std_mpsc::Sender<Event>,
    /// What was compiled when `generations` were brought up to date.
    verdicts: OrdMap<ObjectRef, Arc<Verdict>>,
    generations: Generations,
    voices: Vec<Arc<Voice>>,
    /// The keys that are made here because others serve them, each with what keeps it.
    asked: BTreeMap<GatewayKey, (watch::Receiver<Watched>, Arc<Asker>)>,
    /// What was said last, and of what it was made.
    said: Option<(Made, Option<String>)>,
}

/// Of what a voice is made.
#[derive(Debug, PartialEq)]
struct Made {
    compiled: Same<Compiled>,
    heard: u64,
    words: Same<Words>,
    /// What gateways are compared with.
    snapshots: Vec<(GatewayKey, Same<Snapshot>, Same<NotInForce>)>,
}

impl Others {
    pub(super) fn new(
        shared: Arc<refusals::Shared>,
        publisher: Arc<Publisher>,
        events: std_mpsc::Sender<Event>,
    ) -> Self {
        Self {
            shared,
            publisher,
            events,
            verdicts: OrdMap::new(),
            generations: Generations::default(),
            voices: Vec::new(),
            asked: BTreeMap::new(),
            said: None,
        }
    }

    /// Takes over what the others say. Who `leads` has the snapshots made by which it is understood.
    pub(super) fn take(&mut self, voices: Vec<Arc<Voice>>, leads: bool) {
        let keys: BTreeSet<&GatewayKey> =
            voices.iter().filter(|_| leads).flat_map(|voice| voice.standings.keys()).take(KEYS).collect();
        let before = self.asked.len();
        self.asked.retain(|key, _| keys.contains(key));
        let mut events: Vec<Event> = (self.asked.len() < before).then_some(Event::Left).into_iter().collect();
        for key in keys {
            if !self.asked.contains_key(key) {
                let asker = Arc::new(Asker::of_another(key.gateway.clone()));
                events.push(Event::Gateway(key.clone(), asker.clone()));
                self.asked.insert(key.clone(), (self.publisher.subscribe(key), asker));
            }
        }
        let heard = Words {
            refusals: voices.iter().flat_map(|voice| voice.refusals.iter().cloned()).collect(),
            findings: voices.iter().flat_map(|voice| voice.findings.iter().cloned()).collect(),
        };
        let mut before = lock(&self.shared.exchange.heard);
        if **before != heard {
            *before = Arc::new(heard);
            events.push(Event::Refused);
        }
        drop(before);
        self.voices = voices;
        for event in events {
            // Fails only when the compile thread is gone, which ends the program.
            let _ = self.events.send(event);
        }
    }

    /// Brings up to date which generations are compiled here; whether gateways are served by them already.
    ///
    /// # Cost
    /// In proportion to the objects that changed.
    pub(super) fn follow(&mut self, compiled: &Arc<Compiled>) -> bool {
        for change in self.verdicts.diff(&compiled.verdicts) {
            match change {
                DiffItem::Add(id, verdict) => self.generations.add(id, verdict.generation),
                DiffItem::Remove(id, verdict) => self.generations.remove(id, verdict.generation),
                DiffItem::Update { old: (id, old), new: (_, new) } if old.generation != new.generation => {
                    self.generations.remove(id, old.generation);
                    self.generations.add(id, new.generation);
                }
                DiffItem::Update { .. } => {}
            }
        }
        self.verdicts = compiled.verdicts.clone();
        self.shared.exchange.has_published(compiled)
    }

    /// Whether all others speak of the objects that are compiled here, and all of what they speak of is published and told here.
    pub(super) fn agree(&self) -> bool {
        self.voices.iter().all(|voice| self.generations.differing(voice).is_empty())
            && self.asked.values().all(|(snapshot, _)| snapshot.borrow().is_some())
            && self.shared.exchange.has_told_what_is_heard()
    }

    /// How far the gateways of all replicas are with every object.
    pub(super) fn programmed(&self, own: &Standings) -> BTreeMap<ObjectRef, Programmed> {
        let differing: Vec<Differing> = self.voices.iter().map(|voice| self.generations.differing(voice)).collect();
        let is_same: Vec<_> = differing.iter().map(|differing| |id: &ObjectRef| !differing.contains(id)).collect();
        let others = self.voices.iter().zip(&differing).zip(&is_same).map(|((voice, differing), is_same)| Other {
            standings: &voice.standings,
            is_same: (!differing.is_empty()).then_some(is_same as &dyn Fn(&ObjectRef) -> bool),
        });
        programmed(own, &others.collect::<Vec<_>>(), &self.publisher)
    }

    /// What to say of the own gateways; nothing where there are none, and nothing was refused.
    ///
    /// # Cost
    /// What `standings` costs, if something changed since the last time; else in proportion to the keys.
    pub(super) fn voice(
        &mut self,
        compiled: &Arc<Compiled>,
        heard: u64,
        standings: impl FnOnce() -> Standings,
    ) -> Option<String> {
        let snapshots = self.publisher.keys().into_iter().map(|key| {
            let withheld = Same::of(&self.publisher.not_in_force(&key));
            let snapshot = self.publisher.current(&key).as_ref().map(Same::of).unwrap_or_default();
            (key, snapshot, withheld)
        });
        let words = lock(&self.shared.exchange.said).clone();
        let (compiled, snapshots) = (Same::of(compiled), snapshots.collect());
        let made = Made { compiled, heard, words: Same::of(&words), snapshots };
        if let Some((_, said)) = self.said.as_ref().filter(|(of, _)| *of == made) {
            return said.clone();
        }
        let (standings, Words { refusals, findings }) = (standings(), &*words);
        let said = (!standings.is_empty() || !refusals.is_empty())
            .then(|| Voice::text(&self.generations, &standings, refusals, findings));
        self.said = Some((made, said.clone()));
        said
    }
}

impl Asker {
    /// For gateways that another replica serves, which looked who they are.
    fn of_another(class: GatewayId) -> Self {
        Self { served_elsewhere: Some(class), ..Self::default() }
    }
}
