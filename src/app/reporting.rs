//! Statuses for API servers: looks at what was compiled and at what gateways told, and has written what differs. Nothing
//! waits for it, and it makes nobody else wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use super::exchange::{Others, Same};
use super::{State, refusals};
use crate::compile::Compiled;
use crate::model::{Approval, Kind, Name};
use crate::publish::Publisher;
use crate::resolve::world::World;
use crate::source::kubernetes::{Health, Kubernetes};
use crate::status::Ledger;
use crate::status::clock::Clock;
use crate::status::document::{Connection, Judged, camel, document, says};
use crate::status::lease::{LOOK_EVERY, Lease};
use crate::status::programmed::standings;
use crate::status::voices::{Own, Pod, Voices};
use crate::status::writer::{Event, Learned, Read, WITHIN, Wanted, identity, write};
use crate::telemetry::metrics::Metrics;

/// How often it looks whether something is another. What changes within that time is written once.
const LOOK: Duration = Duration::from_millis(250);

/// How long it waits at most for things to settle before it writes.
const SETTLES: Duration = Duration::from_secs(2);

/// Writes statuses for as long as it is polled.
pub(super) struct Reporter {
    pub(super) state: State,
    pub(super) ledger: Arc<Ledger>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) shared: Arc<refusals::Shared>,
    /// To the compile thread.
    pub(super) events: std_mpsc::Sender<super::Event>,
    /// The Pod of this replica, where it is known and in that namespace.
    pub(super) pod: Option<Pod>,
    /// Where the Lease is: the own namespace, else the admin namespace.
    pub(super) namespace: String,
    pub(super) management: Name,
    /// Where clusters are registered.
    pub(super) admin_namespace: Name,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
}

/// How long a stop waits for the Lease to be given up and the own voice to be taken away: an API server that is away has to wait
/// for their end.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);

/// The Lease and the own voice, once there are such. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Leadership(Arc<tokio::sync::Mutex<Held>>);

#[derive(Default)]
struct Held {
    lease: Option<Lease>,
    voice: Option<Own>,
}

impl Leadership {
    /// Gives both up. The voice goes first: whoever writes next does not count what is ending.
    pub(super) async fn release(&self) {
        let release = async {
            let mut held = self.0.lock().await;
            let Held { lease, voice } = &mut *held;
            if let Some(Err(error)) = async { Some(voice.take()?.remove().await) }.await {
                tracing::debug!("what this replica said of its gateways cannot be taken away: {error}");
            }
            match lease {
                Some(lease) => lease.release().await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(RELEASED_WITHIN, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the Lease of who writes statuses cannot be given up: {error}"),
            Err(_) => tracing::debug!("the Lease of who writes statuses is not given up in time"),
        }
    }
}

/// What the last look saw.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    compiled: Same<Compiled>,
    heard: u64,
    observed: u64,
    health: BTreeMap<Name, Health>,
    leads: bool,
    /// What other replicas say, and whether all of it is understood.
    voices: (u64, bool),
}

impl Reporter {
    /// `leadership` holds what whoever ends this gives up at the end.
    pub(super) async fn run(mut self, kubernetes: Arc<Kubernetes>, leadership: Leadership) {
        let mut learned = Learned::default();
        let (mut written, mut last) = (Seen::default(), Seen::default());
        let (mut changed, mut looked): (Option<Instant>, Option<Instant>) = (None, None);
        let observed_changes = kubernetes.observed().changes();
        let health = kubernetes.health();
        let mut others = Others::new(self.shared.clone(), self.publisher.clone(), self.events.clone());
        let (mut voices, mut taken): (Option<Voices>, (u64, bool)) = (None, (0, false));
        let mut next = self.clock.now();
        loop {
            self.clock.until(next).await;
            next = self.clock.now() + LOOK;
            let Some(client) = kubernetes.clients().get(&self.management) else { continue };
            let mut guard = leadership.0.lock().await;
            let lease = guard.lease.get_or_insert_with(|| Lease::new(client.clone(), &self.namespace, identity()));
            let now = self.clock.now();
            if looked.is_none_or(|looked| now >= looked + LOOK_EVERY) {
                looked = Some(now);
                match tokio::time::timeout(WITHIN, lease.turn(now)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("the Lease of who writes statuses cannot be had: {error}"),
                    Err(_) => tracing::debug!("the Lease of who writes statuses cannot be had: no answer"),
                }
            }
            let (leads, until) = (lease.is_held(now), lease.held_until().unwrap_or(now));
            self.metrics.leads(leads);
            let voices =
                voices.get_or_insert_with(|| Voices::new(client, &self.namespace, &identity(), self.pod.clone()));
            voices.hear(leads, now).await;
            if taken != (voices.revision(), leads) {
                taken = (voices.revision(), leads);
                others.take(voices.heard(), leads);
            }
            let Some(compiled) = self.state.borrow().clone() else { continue };
            let heard = self.ledger.revision();
            // What is said of objects is true once gateways are served by them.
            let is_published = others.follow(&compiled);
            if is_published {
                let standings = || tokio::task::block_in_place(|| standings(&self.ledger.view(), &self.publisher));
                voices.speak(|| others.voice(&compiled, heard, standings), now).await;
                guard.voice = voices.own();
            }
            drop(guard);
            let seen = Seen {
                compiled: Same::of(&compiled),
                heard,
                observed: *observed_changes.borrow(),
                health: health.borrow().clone(),
                leads,
                voices: (voices.revision(), is_published && others.agree()),
            };
            if !leads || !voices.is_heard(now) {
                written = Seen::default();
                continue;
            }
            let is_retry = learned.due().is_some_and(|due| now >= due);
            if seen == written && !is_retry {
                continue;
            }
            // Once nothing changed between two looks and all speak of the same, or after a while.
            let since = *changed.get_or_insert(now);
            // What could not be written has settled before.
            if !is_retry && (seen != last || !seen.voices.1) && now < since + SETTLES {
                last = seen;
                continue;
            }
            (changed, last) = (None, seen.clone());
            // It is no work for a thread on which streams wait.
            let wanted =
                tokio::task::block_in_place(|| self.wanted(&compiled, &kubernetes, &others, &mut learned, now));
            written = seen;
            if wanted.is_empty() {
                continue;
            }
            let objects = wanted.len();
            let tally = write(wanted, kubernetes.clients(), &mut learned, until, &self.clock).await;
            self.metrics.statuses(tally.written, tally.failed);
            tracing::info!(objects, written = tally.written, failed = tally.failed, "statuses");
            if tally.written + tally.failed < objects {
                // Some were not come to, or are to be written otherwise.
                written = Seen::default();
            }
        }
    }

    /// What stands at API servers and differs from what is to stand there.
    ///
    /// # Cost
    /// In proportion to the objects of the v2 API, and to what [`Others::programmed`] costs.
    fn wanted(
        &self,
        compiled: &Compiled,
        kubernetes: &Kubernetes,
        others: &Others,
        learned: &mut Learned,
        now: Instant,
    ) -> Vec<Wanted> {
        let observed = kubernetes.observed();
        let held = others.programmed(&standings(&self.ledger.view(), &self.publisher));
        let health = kubernetes.health().borrow().clone();
        let connected: BTreeSet<Name> = kubernetes.clients().all().into_iter().map(|(name, _)| name).collect();
        let mut right = BTreeSet::new();
        let time = format!("{:.0}", self.clock.timestamp());
        let mut wanted = Vec::new();
        for (id, verdict) in &compiled.verdicts {
            let is_writable = connected.contains(&id.cluster) && !learned.waits(id, now);
            // In this order: what is read meanwhile has another number.
            let readings = observed.readings(id);
            let Some(written) = observed.get(id).filter(|_| is_writable) else { continue };
            let read = Read { written, readings };
            let written = learned.stands(id, &read);
            let owner = compiled.inputs.roster().owner_of(id);
            let registers = id.kind == Kind::KubernetesCluster
                && (&id.cluster, &id.namespace) == (&self.management, &self.admin_namespace);
            let connection = registers.then(|| health.get(&id.name)).flatten();
            let judged = Judged {
                kind: id.kind,
                generation: verdict.generation,
                approval: verdict.approval,
                message: &verdict.message,
                counts: &verdict.counts,
                workspace: owner.map(|workspace| &workspace.0),
                findings: compiled.findings.about(id),
                programmed: held.get(id).copied(),
                connection: connection.map(|health| Connection {
                    is_connected: health.is_connected,
                    is_synced: health.is_synced,
                    message: &health.message,
                }),
            };
            let status = learned.useful(id, document(&judged, &written.status, &time));
            if says(&written.status, &status) && !learned.has_fewer(id, &status) {
                right.insert(id);
                continue;
            }
            let event = event(&judged, &written.status);
            wanted.push(Wanted { id: id.clone(), written, read, status, event });
        }
        learned.retain(|id| observed.get(id).is_some(), |id| right.contains(id));
        learned.retain_away(|cluster| wanted.iter().any(|wanted| wanted.id.cluster == *cluster), now);
        wanted
    }
}

/// What to tell of a verdict that is another than the one that stands there. That an object is new and good is nothing to tell.
fn event(judged: &Judged<'_>, before: &serde_json::Value) -> Option<Event> {
    let state = before.get("common").and_then(|common| common.get("State"));
    let was = state.and_then(|state| state["approval"].as_str()).or_else(|| before["state"].as_str());
    if was == Some(judged.approval.as_str()) || (was.is_none() && judged.approval == Approval::Accepted) {
        return None;
    }
    let reason = judged.findings.first().map_or_else(|| "Accepted".to_owned(), |finding| camel(finding.code));
    let note = if judged.message.is_empty() { "understood and in force".to_owned() } else { judged.message.to_owned() };
    Some(Event { approval: judged.approval, reason, note })
}
