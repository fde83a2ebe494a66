//! The audit: now and then a thread of its own compiles from scratch what the compile thread compiled from what it keeps,
//! and counts what is different. Nothing ever should be.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::compile::{Compiled, compile};
use crate::ir::frozen::Remembered;
use crate::model::{Findings, GatewayId, ObjectRef};
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
        Self::start_with(every, metrics, differences)
    }

    /// The same with another judge, who says how many differences there are.
    fn start_with(every: Duration, metrics: Metrics, judge: fn(&Sample) -> u64) -> std::io::Result<Self> {
        let (samples, inbox) = sync_channel::<Sample>(0);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Ok(sample) = inbox.recv() {
                // What a panic leaves behind is dropped, and the next sample begins anew.
                let counted = catch_unwind(AssertUnwindSafe(|| judge(&sample))).unwrap_or_else(|_| {
                    tracing::error!(
                        "compiling from scratch failed, this is a fault of Chancery; counted as a difference"
                    );
                    1
                });
                metrics.audited(counted);
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

/// How many plans and limits, and whether findings or verdicts, are others than from scratch; each is logged.
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
    let servers: BTreeSet<&ObjectRef> = compiled.limits.keys().chain(afresh.limits.keys()).collect();
    for server in servers {
        if compiled.limits.get(server) != afresh.limits.get(server) {
            differences += 1;
            tracing::error!(%server, "the limits are others than from scratch, this is a fault of Chancery; a restart serves the right ones");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Exposition, Gauges};

    #[test]
    fn a_panic_counts_as_a_difference_and_ends_nothing() {
        let metrics = Metrics::new();
        let audit = Audit::start_with(Duration::ZERO, metrics.clone(), |_| panic!("from scratch")).expect("a thread");
        let sample = || Sample {
            options: Options::default(),
            given: Arc::default(),
            wanted: BTreeSet::new(),
            remembered: Arc::default(),
            compiled: Arc::new(compile(
                &Default::default(),
                &[],
                &Options::default(),
                &BTreeSet::new(),
                &Default::default(),
            )),
        };
        // A thread takes each only when it is done with the one before; the third shows that the second was counted.
        for _ in 0..3 {
            audit.samples.send(sample()).expect("the thread goes on");
        }
        let text = metrics.write(&Gauges::default(), Exposition::Text);
        let counted = text.lines().find_map(|line| line.strip_prefix("chancery_audit_differences_total "));
        assert!(counted.is_some_and(|counted| ["2", "3"].contains(&counted)), "{text}");
    }
}
