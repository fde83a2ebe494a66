//! The audit: now and then a thread of its own compiles from scratch what the compile thread compiled from what it keeps,
//! and counts what is different. Nothing ever should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::compile::{Compiled, compile};
use crate::ir::frozen::Remembered;
use crate::model::{Findings, GatewayId};
use crate::resolve::Options;
use crate::telemetry::metrics::Metrics;

/// What one step of the compiler was given, and what came of it.
///
/// # Cost
/// Everything is shared with the compile thread.
pub(super) struct Sample {
    pub(super) options: Options,
    pub(super) given: Arc<Findings>,
    pub(super) wanted: BTreeSet<GatewayId>,
    /// As the step was given it.
    pub(super) remembered: Arc<Remembered>,
    pub(super) compiled: Arc<Compiled>,
}

/// Takes samples and judges them.
pub(super) struct Audit {
    every: Duration,
    last: Instant,
    samples: SyncSender<Sample>,
}

impl Audit {
    /// Starts the thread, which ends with this value.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(every: Duration, metrics: Metrics) -> std::io::Result<Self> {
        let (samples, inbox) = sync_channel::<Sample>(0);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Ok(sample) = inbox.recv() {
                metrics.audited(differences(&sample));
            }
        })?;
        Ok(Self { every, last: Instant::now(), samples })
    }

    /// Takes a sample, if it is time and the thread is done with the last one.
    pub(super) fn offer(&mut self, sample: Sample) {
        if self.last.elapsed() >= self.every && self.samples.try_send(sample).is_ok() {
            self.last = Instant::now();
        }
    }
}

/// How many plans, and whether findings or verdicts, are others than from scratch; each is logged.
///
/// # Cost
/// That of compiling from scratch, in time and memory.
pub(super) fn differences(sample: &Sample) -> u64 {
    let Sample { options, given, wanted, remembered, compiled } = sample;
    let afresh = compile(&compiled.objects, given, options, wanted, remembered);
    let mut differences = 0;
    let gateways: BTreeSet<&GatewayId> = compiled.plans.keys().chain(afresh.plans.keys()).collect();
    for gateway in gateways {
        if compiled.plans.get(gateway) != afresh.plans.get(gateway) {
            differences += 1;
            tracing::error!(%gateway, "the plan is another than from scratch, this is a fault of Chancery; a restart serves the right one");
        }
    }
    if compiled.findings != afresh.findings || compiled.verdicts != afresh.verdicts {
        differences += 1;
        tracing::error!(
            "findings or verdicts are others than from scratch, this is a fault of Chancery; a restart tells the right ones"
        );
    }
    tracing::debug!(differences, "audited");
    differences
}
