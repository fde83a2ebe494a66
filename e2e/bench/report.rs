//! What a bench found: rows, goals kept or missed, and cells that failed.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// What the goals are about.
    Full,
    /// Seconds: that everything works and counts what it says.
    Small,
}

impl Scale {
    /// The one or the other.
    pub(crate) fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Self::Full => full,
            Self::Small => small,
        }
    }
}

/// Where rows go, and what has become of the goals.
pub(crate) struct Report<'a> {
    /// How much is measured.
    pub(crate) scale: Scale,
    out: &'a mut (dyn Write + Send),
    goals: Vec<String>,
    missed: usize,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("scale", &self.scale).field("goals", &self.goals).finish_non_exhaustive()
    }
}

impl<'a> Report<'a> {
    /// An empty report.
    pub(crate) fn new(scale: Scale, out: &'a mut (dyn Write + Send)) -> Self {
        Self { scale, out, goals: Vec::new(), missed: 0 }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// Holds a figure against a goal: at most so much. Small sizes have no goals.
    pub(crate) fn goal(&mut self, what: &str, value: f64, most: f64, unit: &str) -> anyhow::Result<()> {
        if self.scale == Scale::Small {
            return Ok(());
        }
        let is_met = value <= most;
        self.missed += usize::from(!is_met);
        let verdict = if is_met { "met" } else { "MISSED" };
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let line = format!("  goal {verdict}: {what}: {value:.2} of at most {most}{unit}");
        self.goals.push(line.trim_start().to_owned());
        self.line(&line)
    }

    /// Goals that were missed.
    pub(crate) fn missed(&self) -> usize {
        self.missed
    }

    /// All goals, a line each.
    pub(crate) fn goals(&self) -> String {
        self.goals.iter().fold(String::new(), |mut text, goal| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{goal}");
            text
        })
    }
}

/// Durations of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The duration that so many of a hundred do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or_default()
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// By how much the median of the second half differs from that of the first.
    pub(crate) fn drift(&self) -> f64 {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let median = |half: &[Duration]| milliseconds(Self(half.to_vec()).median());
        (median(second) / median(first) - 1.0).abs()
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, samples: T) {
        self.0.extend(samples);
    }
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `1.23 / 4.56`: median and 99th percentile in milliseconds.
pub(crate) fn spread(samples: &Samples) -> String {
    format!("{:.2} / {:.2}", milliseconds(samples.median()), milliseconds(samples.percentile(99)))
}

/// The slope of a line through the logarithms of points: the exponent of growth.
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let above: f64 = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = logs.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}
