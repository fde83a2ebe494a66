//! What is counted from streams, and what is read when somebody asks for metrics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Sources, state};
use crate::model::Kind;
use crate::snapshot::ResourceType;
use crate::source::kubernetes::Since;
use crate::telemetry::metrics::{Blamed, Exposition, Gauges, Metrics};
use crate::xds::credentials::Credentials;
use crate::xds::observation::{Blame, IgnoredReason, Observation, Observer, Refusal};

/// Counts what happens on streams, and passes it on.
#[derive(Debug)]
pub struct Metered<O> {
    /// Who wants to know the whole.
    pub observer: O,
    /// Where it is counted.
    pub metrics: Metrics,
}

impl<O: Observer> Observer for Metered<O> {
    fn observe(&self, event: Observation) {
        count(&self.metrics, &event);
        self.observer.observe(event);
    }
}

fn count(metrics: &Metrics, event: &Observation) {
    match event {
        Observation::Sent(_, sending) => {
            metrics.pushed(label(sending.resource_type), sending.resources, sending.bytes);
        }
        Observation::Acknowledged(_, acknowledgement) => {
            if let Some(after) = acknowledgement.after {
                metrics.acknowledged(label(acknowledgement.resource_type), after);
            }
        }
        Observation::Refused(_, refusal) => count_refusal(metrics, refusal),
        Observation::Ignored(_, ignored) => metrics.ignored(match ignored.reason {
            IgnoredReason::StaleNonce => "stale_nonce",
            IgnoredReason::ErrorWithoutNonce => "error_without_nonce",
            IgnoredReason::UnknownType => "unknown_type",
        }),
        Observation::Stuck(..) => metrics.stuck(),
        Observation::TurnedAway(reason) => metrics.turned_away(reason.label()),
        Observation::Connected(_) | Observation::Disconnected(_) => {}
    }
}

fn count_refusal(metrics: &Metrics, refusal: &Refusal) {
    let owners = refusal.resources.iter().flat_map(|resource| resource.owners.iter());
    let kinds: BTreeSet<Kind> = owners.map(|owner| owner.kind).collect();
    let kinds: Vec<Kind> = kinds.into_iter().collect();
    let blamed = match refusal.blame {
        Blame::Exact => Blamed::Owners(&kinds),
        Blame::Suspected => Blamed::Nobody,
    };
    metrics.refused(label(refusal.resource_type), blamed);
}

/// The message's own name: `Listener`.
fn label(resource_type: ResourceType) -> &'static str {
    resource_type.type_url().rsplit('.').next().unwrap_or_default()
}

/// All metrics as text.
///
/// # Cost
/// In proportion to gateways, objects, findings and resources.
#[must_use]
pub fn write(sources: &Sources, exposition: Exposition) -> String {
    sources.metrics.write(&gauges(sources), exposition)
}

fn gauges(sources: &Sources) -> Gauges {
    let xds_certificate = sources.credentials.as_ref().map(Credentials::ends);
    let mut gauges = Gauges { xds_certificate, ..Gauges::default() };
    let view = sources.ledger.view();
    gauges.gateways = view.gateways.values().map(|class| class.nodes.len()).sum();
    for (_, _, _, stream) in view.streams() {
        for resource_type in stream.types.keys() {
            *gauges.streams.entry(label(*resource_type)).or_default() += 1;
        }
    }
    for snapshot in sources.publisher.keys().iter().filter_map(|key| sources.publisher.current(key)) {
        gauges.snapshots += 1;
        for resource_type in ResourceType::ALL {
            let bytes: usize = snapshot.resources(resource_type).values().map(|resource| resource.body.len()).sum();
            *gauges.snapshot_bytes.entry(label(resource_type)).or_default() += bytes;
        }
    }
    let now = jiff::Timestamp::now();
    let age = |(cluster, since): (_, Since)| (cluster, now.as_second().saturating_sub(since.at.as_second()).max(0));
    gauges.stale = sources.stale().into_iter().map(age).collect();
    if let Ok(compiled) = sources.compiled() {
        gauges.objects = state::objects_by_state(&compiled);
        let mut findings: BTreeMap<_, usize> = BTreeMap::new();
        for finding in compiled.findings.iter() {
            *findings.entry((finding.severity, finding.code)).or_default() += 1;
        }
        gauges.findings = findings;
    }
    gauges
}
