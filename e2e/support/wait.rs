//! Waiting for an event: ask again and again until the answer is there, or patience ends.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, MissedTickBehavior};

/// How long anything may take that should take milliseconds.
///
/// Long enough for a machine that is compiling beside the tests; only a failing test ever waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The same for statuses: nobody waits for them, so they are the last that a busy machine comes to.
pub(crate) const STATUSES: Duration = Duration::from_secs(120);

/// Between two questions. Shorter costs the machine under test; ten times longer would show in the run time.
const INTERVAL: Duration = Duration::from_millis(5);

/// Why an answer is not there.
#[derive(Clone, Debug)]
pub(crate) enum Not {
    /// What was seen instead; it may still come.
    Yet(String),
    /// Why it can no longer come, for instance because the process has ended.
    Ever(String),
}

impl From<String> for Not {
    fn from(seen: String) -> Self {
        Self::Yet(seen)
    }
}

/// Asks `probe` until it answers `Ok`, for at most `patience`.
///
/// What `probe` saw last is in the error, beside `what` was awaited. A probe that hangs counts as not answering.
pub(crate) async fn until<T>(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, Not>,
) -> anyhow::Result<T> {
    let mut last = String::from("nothing yet");
    // The one place where time passes by itself: there is no event to subscribe to in a foreign process.
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        ticks.tick().await;
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Not::Yet(seen))) => last = seen,
            Ok(Err(Not::Ever(reason))) => return Err(anyhow!("waited for {what}, in vain: {reason}")),
            Err(_) => break,
        }
    }
    Err(anyhow!("waited {patience:?} for {what}; last seen: {last}"))
}
