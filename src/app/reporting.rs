//! Statuses for API servers: looks at what was compiled and at what gateways told, and has written what differs. Nothing
//! waits for it, and it makes nobody else wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::State;
use crate::compile::Compiled;
use crate::model::{Approval, Kind, Name};
use crate::publish::Publisher;
use crate::resolve::world::World;
use crate::source::kubernetes::{Health, Kubernetes};
use crate::status::Ledger;
use crate::status::clock::Clock;
use crate::status::document::{Connection, Judged, camel, document, says};
use crate::status::lease::{LOOK_EVERY, Lease};
use crate::status::programmed::programmed;
use crate::status::writer::{Event, Learned, WITHIN, Wanted, identity, write};
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
    /// Where the Lease is: the own namespace, else the admin namespace.
    pub(super) namespace: String,
    pub(super) management: Name,
    /// Where clusters are registered.
    pub(super) admin_namespace: Name,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
}

/// How long a stop waits for the Lease to be given up: an API server that is away has to wait for its end.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);

/// The Lease, once there is one. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Leadership(Arc<tokio::sync::Mutex<Option<Lease>>>);

impl Leadership {
    /// Gives it up.
    pub(super) async fn release(&self) {
        let release = async {
            match self.0.lock().await.as_mut() {
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
    compiled: usize,
    heard: u64,
    observed: u64,
    health: BTreeMap<Name, Health>,
    leads: bool,
}

impl Reporter {
    /// `leadership` holds the Lease, for whoever gives it up at the end.
    pub(super) async fn run(mut self, kubernetes: Arc<Kubernetes>, leadership: Leadership) {
        let mut learned = Learned::default();
        let (mut written, mut last) = (Seen::default(), Seen::default());
        let (mut changed, mut looked): (Option<Instant>, Option<Instant>) = (None, None);
        let observed_changes = kubernetes.observed().changes();
        let health = kubernetes.health();
        let mut next = self.clock.now();
        loop {
            self.clock.until(next).await;
            next = self.clock.now() + LOOK;
            let Some(client) = kubernetes.clients().get(&self.management) else { continue };
            let mut guard = leadership.0.lock().await;
            let lease = guard.get_or_insert_with(|| Lease::new(client, &self.namespace, identity()));
            let now = self.clock.now();
            if looked.is_none_or(|looked| now >= looked + LOOK_EVERY) {
                looked = Some(now);
                match tokio::time::timeout(WITHIN, lease.turn(now)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("the Lease of who writes statuses cannot be had: {error}"),
                    Err(_) => tracing::debug!("the Lease of who writes statuses cannot be had: no answer"),
                }
            }
            let Some(compiled) = self.state.borrow().clone() else { continue };
            let seen = Seen {
                compiled: Arc::as_ptr(&compiled) as usize,
                heard: self.ledger.revision(),
                observed: *observed_changes.borrow(),
                health: health.borrow().clone(),
                leads: lease.is_held(now),
            };
            self.metrics.leads(seen.leads);
            if !seen.leads {
                written = Seen::default();
                continue;
            }
            let is_retry = learned.due().is_some_and(|due| now >= due);
            if seen == written && !is_retry {
                continue;
            }
            // Once nothing changed between two looks, or after a while.
            let since = *changed.get_or_insert(now);
            if seen != last && now < since + SETTLES {
                last = seen;
                continue;
            }
            (changed, last) = (None, seen.clone());
            // It is no work for a thread on which streams wait.
            let wanted = tokio::task::block_in_place(|| self.wanted(&compiled, &kubernetes, &mut learned, now));
            written = seen;
            if wanted.is_empty() {
                continue;
            }
            let until = lease.held_until().unwrap_or(now);
            drop(guard);
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
    /// In proportion to the objects of the v2 API, and to what [`programmed`] costs.
    fn wanted(&self, compiled: &Compiled, kubernetes: &Kubernetes, learned: &mut Learned, now: Instant) -> Vec<Wanted> {
        let observed = kubernetes.observed();
        let held = programmed(&self.ledger.view(), &self.publisher);
        let health = kubernetes.health().borrow().clone();
        let connected: BTreeSet<Name> = kubernetes.clients().all().into_iter().map(|(name, _)| name).collect();
        let mut right = BTreeSet::new();
        let time = format!("{:.0}", self.clock.timestamp());
        let mut wanted = Vec::new();
        for (id, verdict) in &compiled.verdicts {
            let is_writable = connected.contains(&id.cluster) && !learned.waits(id, now);
            let Some(written) = observed.get(id).filter(|_| is_writable) else { continue };
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
            wanted.push(Wanted { id: id.clone(), written, status, event });
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
