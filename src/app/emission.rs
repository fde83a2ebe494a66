//! From the plans of one key to snapshots that may be published: one edit emits and checks what it changed.
//!
//! The clock enters here: parts that stand by for connections of a time when their chain was cut
//! ([`Form::StandingBy`](crate::emit::Form)) go when such connections have ended.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::emit::{Beyond, EmitOptions, Emitter, Layout};
use crate::ir::GatewayPlan;
use crate::memory::refusals::{Bytes, Refusals};
use crate::model::EnvoyRelease;
use crate::publish::GatewayKey;
use crate::snapshot::verify::Verifier;
use crate::snapshot::{ResourceType, Snapshot};

/// How long after a chain was put together again its parts stand by. Envoy drains connections for ten minutes unless it
/// is started with another `--drain-time-s`; half of this loses requests, double keeps parts twice as long for nobody.
pub(super) const DRAINED: Duration = Duration::from_secs(15 * 60);

/// The settings for gateways of a release: [`EmitOptions::serving`], unless a test cuts earlier.
pub(super) type Serving = fn(IpAddr, EnvoyRelease) -> EmitOptions;

/// What is kept for one key from one emission to the next.
#[derive(Debug)]
pub(super) struct Emission {
    emitter: Emitter,
    verifier: Verifier,
    last: Option<Arc<Snapshot>>,
    /// When something began to stand by, the last time.
    standing_by: Option<Instant>,
    /// Whether a listener was refused while a chain of it was cut: some Envoys are built without what that takes.
    refuses_cuts: bool,
}

impl Emission {
    /// Of gateways that may hold anything, from an earlier run or another replica.
    pub(super) fn new() -> Self {
        Self {
            emitter: Emitter::new(Layout::uncertain()),
            verifier: Verifier::new(),
            last: None,
            standing_by: None,
            refuses_cuts: false,
        }
    }

    /// The snapshot of a plan, completed by `fill`; the very same as before if nothing differs.
    ///
    /// # Errors
    /// What `fill` objects to: there is nothing to publish.
    pub(super) fn emit(
        &mut self,
        plan: &GatewayPlan,
        mut options: EmitOptions,
        now: Instant,
        fill: impl FnOnce(Snapshot) -> Result<Snapshot, String>,
    ) -> Result<Arc<Snapshot>, String> {
        if self.refuses_cuts {
            options.cut_from_routes = usize::MAX;
        }
        let before = self.emitter.layout().clone();
        let emitted = self.emitter.emit(plan, &options);
        #[cfg(test)]
        {
            assert!(
                emitted == crate::emit::emit_gateway_after(plan, &options, &before),
                "not what is made from scratch"
            );
            assert_eq!(self.beyond(), crate::emit::beyond(plan, options.release));
        }
        if !self.emitter.layout().is_standing_by() {
            self.standing_by = None;
        } else if *self.emitter.layout() != before {
            self.standing_by = Some(now);
        }
        let filled = fill(emitted)?;
        match &self.last {
            Some(last) if **last == filled => Ok(last.clone()),
            last => {
                let filled = last.as_ref().map_or(filled.clone(), |last| filled.sharing(last));
                Ok(self.last.insert(Arc::new(filled)).clone())
            }
        }
    }

    /// The policies whose routes are closed, because the gateways' release cannot do them.
    pub(super) fn beyond(&self) -> BTreeSet<Beyond> {
        self.emitter.beyond()
    }

    /// Whether the checker has nothing against a snapshot; what it has is logged.
    pub(super) fn is_publishable(&mut self, key: &GatewayKey, snapshot: &Snapshot) -> bool {
        let violations = self.verifier.verify(snapshot);
        for violation in &violations {
            tracing::error!(gateway = %key, "not published, this is a fault of Chancery: {violation}");
        }
        violations.is_empty()
    }

    /// When what stands by may go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.standing_by.map(|since| since + DRAINED)
    }

    /// Lets go what has stood by long enough; whether there is such.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.standing_by = None;
            self.emitter.settle();
        }
        is_due
    }

    /// Stops cutting, if the gateways refused a listener with a chain that is cut; whether that is so since now.
    ///
    /// Whatever the reason was: the whole is what every Envoy understands.
    pub(super) fn give_up_cutting(&mut self, key: &GatewayKey, refusals: &Refusals) -> bool {
        if self.refuses_cuts || refusals.is_empty() || !self.emitter.layout().is_cut() {
            return false;
        }
        let listeners = self.last.as_ref().map(|last| last.resources(ResourceType::Listener)).unwrap_or_default();
        let refused = listeners.values().find(|listener| {
            let bytes = Bytes::new(key, ResourceType::Listener, &listener.name, &listener.version);
            refusals.get(&bytes).is_some()
        });
        if let Some(listener) = refused {
            tracing::warn!(gateway = %key, listener = %listener.name, "refused while routes are cut; they are sent whole");
            self.refuses_cuts = true;
        }
        refused.is_some()
    }
}
