//! What is measured, under which names: `chancery_<area>_<what>_<unit>`, base units, counters end in `_total`.
//!
//! Labels are closed sets (types, kinds, codes, severities); no node, no stream and no resource is a label, so the number
//! of series is bounded whatever clients and tenants do. Counters and histograms are told as things happen; gauges are
//! read when somebody asks ([`Gauges`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{Approval, Code, Kind, Name, Severity};

/// A form in which metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// The form that an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Who is to blame for a NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blamed<'k> {
    /// Objects of these kinds: the response held the one resource that was made from them.
    Owners(&'k [Kind]),
    /// Nobody yet: the response held several resources, which are sent again in parts.
    Nobody,
}

/// What is read when somebody asks, not counted as it happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Node ids with at least one stream.
    pub gateways: usize,
    /// Streams on which a type is in use.
    pub streams: BTreeMap<&'static str, usize>,
    /// Objects by kind and, for those that have one, verdict.
    pub objects: BTreeMap<(Kind, Option<Approval>), usize>,
    /// Findings that hold now.
    pub findings: BTreeMap<(Severity, Code), usize>,
    /// Snapshots that are published.
    pub snapshots: usize,
    /// When the certificate of the xDS port ends, in seconds since the Unix epoch; none where it has none.
    pub xds_certificate: Option<i64>,
    /// Bytes of the resources of all published snapshots, by type.
    pub snapshot_bytes: BTreeMap<&'static str, usize>,
    /// By cluster that is not followed, for how many seconds.
    pub stale: BTreeMap<Name, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTypeAndKind {
    r#type: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKindAndState {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSeverityAndCode {
    severity: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCluster {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

/// Everything that is measured. Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Measured>);

struct Measured {
    pushes: Family<OfType, Counter>,
    push_resources: Family<OfType, Counter>,
    push_bytes: Family<OfType, Counter>,
    nacks: Family<OfTypeAndKind, Counter>,
    ignored: Family<OfReason, Counter>,
    turned_away: Family<OfReason, Counter>,
    status_writes: Family<OfResult, Counter>,
    leads: Gauge,
    stuck: Counter,
    audit_differences: Counter,
    latency: Family<OfType, Histogram>,
    compile: Histogram,
    compile_end: Gauge<f64, AtomicU64>,
    gateways: Gauge,
    streams: Family<OfType, Gauge>,
    objects: Family<OfKindAndState, Gauge>,
    findings: Family<OfSeverityAndCode, Gauge>,
    snapshots: Gauge,
    snapshot_change: Gauge<f64, AtomicU64>,
    certificates: Family<OfSource, Gauge<f64, AtomicU64>>,
    snapshot_bytes: Family<OfType, Gauge>,
    stale: Family<OfCluster, Gauge>,
    /// Locked while gauges are set and everything is written, so that two readers do not mix.
    registry: Mutex<Registry>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// 100 µs to 26 s: a small edit compiles in less than the first, a cold start of a large mesh in less than the last.
fn compile_times() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

/// 1 ms to 65 s: a gateway on the same host answers in a few milliseconds, one that warms clusters takes seconds.
fn answer_times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("chancery");
        let measured = Measured {
            pushes: Family::default(),
            push_resources: Family::default(),
            push_bytes: Family::default(),
            nacks: Family::default(),
            ignored: Family::default(),
            turned_away: Family::default(),
            status_writes: Family::default(),
            leads: Gauge::default(),
            stuck: Counter::default(),
            audit_differences: Counter::default(),
            latency: Family::new_with_constructor(answer_times),
            compile: compile_times(),
            compile_end: Gauge::default(),
            gateways: Gauge::default(),
            streams: Family::default(),
            objects: Family::default(),
            findings: Family::default(),
            snapshots: Gauge::default(),
            snapshot_change: Gauge::default(),
            certificates: Family::default(),
            snapshot_bytes: Family::default(),
            stale: Family::default(),
            registry: Mutex::default(),
        };
        measured.register(&mut registry);
        registry.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self(Arc::new(Measured { registry: Mutex::new(registry), ..measured }))
    }

    /// A response was sent.
    pub fn pushed(&self, r#type: &'static str, resources: usize, bytes: usize) {
        let of = OfType { r#type };
        self.0.pushes.get_or_create(&of).inc();
        self.0.push_resources.get_or_create(&of).inc_by(resources as u64);
        self.0.push_bytes.get_or_create(&of).inc_by(bytes as u64);
    }

    /// A response was acknowledged, some time after it was sent.
    pub fn acknowledged(&self, r#type: &'static str, after: Duration) {
        self.0.latency.get_or_create(&OfType { r#type }).observe(after.as_secs_f64());
    }

    /// A response was refused.
    pub fn refused(&self, r#type: &'static str, blamed: Blamed<'_>) {
        let count = |kind| self.0.nacks.get_or_create(&OfTypeAndKind { r#type, kind }).inc();
        match blamed {
            Blamed::Owners(kinds) if !kinds.is_empty() => {
                for kind in kinds {
                    count(kind.as_str());
                }
            }
            Blamed::Owners(_) | Blamed::Nobody => {
                count("");
            }
        }
    }

    /// Statuses were written to API servers, or could not be.
    pub fn statuses(&self, written: usize, failed: usize) {
        for (result, number) in [("written", written), ("failed", failed)] {
            self.0.status_writes.get_or_create(&OfResult { result }).inc_by(number as u64);
        }
    }

    /// Whether this replica is the one that writes statuses.
    pub fn leads(&self, leads: bool) {
        self.0.leads.set(i64::from(leads));
    }

    /// A request had no effect.
    pub fn ignored(&self, reason: &'static str) {
        self.0.ignored.get_or_create(&OfReason { reason }).inc();
    }

    /// A stream was refused, or the connection before it.
    pub fn turned_away(&self, reason: &'static str) {
        self.0.turned_away.get_or_create(&OfReason { reason }).inc();
    }

    /// An Envoy asked for everything but clusters for too long.
    pub fn stuck(&self) {
        self.0.stuck.inc();
    }

    /// An audit ended, with so many differences.
    pub fn audited(&self, differences: u64) {
        self.0.audit_differences.inc_by(differences);
    }

    /// A compile ended, at a time since the Unix epoch.
    pub fn compiled(&self, took: Duration, at: Duration) {
        self.0.compile.observe(took.as_secs_f64());
        self.0.compile_end.set(at.as_secs_f64());
    }

    /// A snapshot that differs from the one before was published, at a time since the Unix epoch.
    pub fn published(&self, at: Duration) {
        self.0.snapshot_change.set(at.as_secs_f64());
    }

    /// When the first certificate of each source ends, in seconds since the Unix epoch; sources without one are absent.
    pub fn certificates(&self, ends: &BTreeMap<&'static str, i64>) {
        // Whoever writes meanwhile would miss some.
        let _registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.certificates.clear();
        for (source, ends) in ends {
            self.0.certificate(source, *ends);
        }
    }

    /// Writes everything.
    ///
    /// # Cost
    /// In proportion to the series: types, kinds and codes.
    #[must_use]
    pub fn write(&self, gauges: &Gauges, exposition: Exposition) -> String {
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.read(gauges);
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &registry);
        match exposition {
            Exposition::OpenMetrics => text,
            Exposition::Text => as_text_format(&text),
        }
    }
}

impl Measured {
    /// All names and help texts. The prefix is `chancery_`; the encoder adds units and `_total`.
    fn register(&self, registry: &mut Registry) {
        registry.register("xds_gateways_connected", "Node ids with at least one stream", self.gateways.clone());
        registry.register("xds_streams", "Streams on which a type is in use", self.streams.clone());
        registry.register("xds_pushes", "Responses that were sent", self.pushes.clone());
        registry.register("xds_push_resources", "Resources in responses that were sent", self.push_resources.clone());
        registry.register_with_unit(
            "xds_push",
            "Bodies of the resources in responses that were sent",
            Unit::Bytes,
            self.push_bytes.clone(),
        );
        registry.register(
            "xds_nacks",
            "Refused responses; kind is that of the objects that a single refused resource was made from, each kind \
             counted once, and empty where the response held several resources and is sent again in parts",
            self.nacks.clone(),
        );
        registry.register(
            "xds_stuck_streams",
            "Streams on which an Envoy asked for other types for too long, and not for clusters",
            self.stuck.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses that were written to API servers, by what came of it",
            self.status_writes.clone(),
        );
        registry.register("leader", "Whether this replica is the one that writes statuses", self.leads.clone());
        registry.register("xds_ignored_requests", "Requests of clients that had no effect", self.ignored.clone());
        registry.register(
            "xds_refused_streams",
            "Streams that were refused, or whose connection was",
            self.turned_away.clone(),
        );
        registry.register_with_unit(
            "xds_acknowledgement",
            "Time from sending a response to its ACK",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_with_unit(
            "compile_duration",
            "Time that a compile took",
            Unit::Seconds,
            self.compile.clone(),
        );
        registry.register_with_unit(
            "compile_last_success_timestamp",
            "When the last compile ended, since the Unix epoch",
            Unit::Seconds,
            self.compile_end.clone(),
        );
        registry.register(
            "audit_differences",
            "Plans, findings or verdicts that an audit found to be others than from scratch; a fault of Chancery",
            self.audit_differences.clone(),
        );
        registry.register(
            "objects",
            "Objects by kind and approval, which is empty for the kinds of Kubernetes itself",
            self.objects.clone(),
        );
        registry.register("findings", "Findings that hold now", self.findings.clone());
        registry.register("snapshots", "Snapshots that are published", self.snapshots.clone());
        registry.register_with_unit(
            "snapshot_last_change_timestamp",
            "When a snapshot was last published that differs from the one before, since the Unix epoch",
            Unit::Seconds,
            self.snapshot_change.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the first certificate of a source ends, since the Unix epoch: secret, those that listeners show; root, \
             the one that signs for gateways",
            Unit::Seconds,
            self.certificates.clone(),
        );
        registry.register_with_unit(
            "snapshot",
            "Bodies of the resources of all published snapshots",
            Unit::Bytes,
            self.snapshot_bytes.clone(),
        );
        registry.register_with_unit(
            "source_stale",
            "How old the objects of a cluster are that is not followed; absent where one is",
            Unit::Seconds,
            self.stale.clone(),
        );
    }

    fn certificate(&self, source: &'static str, ends: i64) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 stay far below 2^52")]
        self.certificates.get_or_create(&OfSource { source }).set(ends as f64);
    }

    fn read(&self, gauges: &Gauges) {
        if let Some(ends) = gauges.xds_certificate {
            self.certificate("xds", ends);
        }
        self.gateways.set(number(gauges.gateways));
        self.snapshots.set(number(gauges.snapshots));
        self.streams.clear();
        for (r#type, streams) in &gauges.streams {
            self.streams.get_or_create(&OfType { r#type }).set(number(*streams));
        }
        self.objects.clear();
        for ((kind, approval), objects) in &gauges.objects {
            let of = OfKindAndState { kind: kind.as_str(), state: approval.map_or("", Approval::as_str) };
            self.objects.get_or_create(&of).set(number(*objects));
        }
        self.findings.clear();
        for ((severity, code), findings) in &gauges.findings {
            let severity = match severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            let of = OfSeverityAndCode { severity, code: code.as_str() };
            self.findings.get_or_create(&of).set(number(*findings));
        }
        self.stale.clear();
        for (cluster, seconds) in &gauges.stale {
            self.stale.get_or_create(&OfCluster { cluster: cluster.to_string() }).set(*seconds);
        }
        self.snapshot_bytes.clear();
        for (r#type, bytes) in &gauges.snapshot_bytes {
            self.snapshot_bytes.get_or_create(&OfType { r#type }).set(number(*bytes));
        }
    }
}

fn number(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// `OpenMetrics` as Prometheus' older text format, in which a counter's name has its `_total`, and there are no units and
/// no end.
fn as_text_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map(|(_, words)| words);
        } else if let Some((name, form)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (ending, form) = match form {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                form => ("", form),
            };
            let help = help.take().unwrap_or_default();
            text.push_str(&format!("# HELP {name}{ending} {help}\n# TYPE {name}{ending} {form}\n"));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(exposition: Exposition) -> String {
        let metrics = Metrics::new();
        metrics.pushed("Listener", 2, 300);
        metrics.pushed("Listener", 1, 100);
        metrics.acknowledged("Listener", Duration::from_millis(3));
        metrics.refused("Listener", Blamed::Nobody);
        metrics.refused("Listener", Blamed::Owners(&[Kind::VirtualGateway, Kind::RouteTable]));
        metrics.ignored("stale nonce");
        metrics.turned_away("token");
        metrics.stuck();
        metrics.published(Duration::from_secs(1_700_000_001));
        metrics.certificates(&[("root", 1)].into());
        metrics.certificates(&[("secret", 1_800_000_000)].into());
        metrics.compiled(Duration::from_micros(1500), Duration::from_secs(1_700_000_000));
        let gauges = Gauges {
            gateways: 2,
            streams: [("Listener", 2)].into(),
            objects: [((Kind::RouteTable, Some(Approval::Accepted)), 3), ((Kind::Pod, None), 4)].into(),
            findings: [((Severity::Warning, Code::Unsupported), 1)].into(),
            snapshots: 1,
            xds_certificate: Some(2_000_000_000),
            snapshot_bytes: [("Listener", 1000)].into(),
            stale: [("c1".into(), 17)].into(),
        };
        let stale = Gauges { objects: [((Kind::RouteTable, Some(Approval::Failed)), 1)].into(), ..Gauges::default() };
        let _ = metrics.write(&stale, exposition);
        metrics.write(&gauges, exposition)
    }

    /// The names of samples, without labels.
    fn names(text: &str) -> Vec<&str> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.split(['{', ' ']).next()).collect()
    }

    #[test]
    fn the_text_format_has_every_name_with_its_unit_and_a_type() {
        let text = written(Exposition::Text);
        for line in [
            "chancery_xds_gateways_connected 2",
            "chancery_xds_streams{type=\"Listener\"} 2",
            "chancery_xds_pushes_total{type=\"Listener\"} 2",
            "chancery_xds_push_resources_total{type=\"Listener\"} 3",
            "chancery_xds_push_bytes_total{type=\"Listener\"} 400",
            "chancery_xds_nacks_total{type=\"Listener\",kind=\"\"} 1",
            "chancery_xds_nacks_total{type=\"Listener\",kind=\"RouteTable\"} 1",
            "chancery_xds_nacks_total{type=\"Listener\",kind=\"VirtualGateway\"} 1",
            "chancery_xds_ignored_requests_total{reason=\"stale nonce\"} 1",
            "chancery_xds_refused_streams_total{reason=\"token\"} 1",
            "chancery_xds_acknowledgement_seconds_count{type=\"Listener\"} 1",
            "chancery_xds_acknowledgement_seconds_bucket{le=\"0.004\",type=\"Listener\"} 1",
            "chancery_compile_duration_seconds_count 1",
            "chancery_compile_last_success_timestamp_seconds 1700000000.0",
            "chancery_objects{kind=\"RouteTable\",state=\"ACCEPTED\"} 3",
            "chancery_objects{kind=\"Pod\",state=\"\"} 4",
            "chancery_findings{severity=\"warning\",code=\"UNSUPPORTED\"} 1",
            "chancery_snapshots 1",
            "chancery_snapshot_last_change_timestamp_seconds 1700000001.0",
            "chancery_certificate_expiry_timestamp_seconds{source=\"secret\"} 1800000000.0",
            "chancery_certificate_expiry_timestamp_seconds{source=\"xds\"} 2000000000.0",
            "chancery_xds_stuck_streams_total 1",
            "chancery_snapshot_bytes{type=\"Listener\"} 1000",
            "chancery_source_stale_seconds{cluster=\"c1\"} 17",
            "# TYPE chancery_xds_pushes_total counter",
            "# TYPE chancery_build_info gauge",
            "# TYPE chancery_compile_duration_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
        assert!(text.contains("chancery_build_info{version=\""), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "that is OpenMetrics:\n{text}");
        assert!(!text.contains("FAILED"), "a verdict that holds no more:\n{text}");
        assert!(!text.contains("source=\"root\""), "a certificate that is gone:\n{text}");
        let typed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        for name in names(&text) {
            let family = typed.iter().filter_map(|typed| typed.split(' ').next()).any(|family| {
                let rest = name.strip_prefix(family);
                rest.is_some_and(|rest| ["", "_bucket", "_count", "_sum"].contains(&rest))
            });
            assert!(family, "`{name}` has no type in:\n{text}");
        }
    }

    #[test]
    fn open_metrics_ends_and_has_units() {
        let text = written(Exposition::OpenMetrics);
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("# UNIT chancery_snapshot_bytes bytes\n"), "{text}");
        assert!(text.contains("# TYPE chancery_xds_pushes counter\n"), "{text}");
        assert_eq!(names(&text), names(&written(Exposition::Text)));
    }

    #[test]
    fn the_form_follows_the_accept_header() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Exposition::accepted(prometheus), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted("text/plain"), Exposition::Text);
        assert_eq!(Exposition::accepted(""), Exposition::Text);
    }
}
