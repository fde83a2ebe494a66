//! Who is turned away: counted each time, and logged so that nobody fills the log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::observation::{Observation, Observer, Reason};

/// Time between two lines of one reason.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Tells of streams and connections that are turned away.
#[derive(Debug)]
pub(super) struct Turnstile<O> {
    observer: Arc<O>,
    /// When each reason was logged last, and how often it was not since.
    said: Mutex<BTreeMap<Reason, (Instant, u64)>>,
}

impl<O: Observer> Turnstile<O> {
    pub(super) fn new(observer: Arc<O>) -> Self {
        Self { observer, said: Mutex::default() }
    }

    /// Counts one, and logs it unless another was logged for the same reason just before.
    pub(super) fn turn_away(&self, reason: Reason, peer: Option<SocketAddr>, why: &str) {
        self.observer.observe(Observation::TurnedAway(reason));
        let Some(unsaid) = self.unsaid(reason, Instant::now()) else { return };
        let peer = peer.map(tracing::field::display);
        tracing::warn!(peer, reason = reason.label(), why = ?why, unsaid, "turned away from the xDS port");
    }

    /// How many were not logged since the last line, if it is time for another one.
    fn unsaid(&self, reason: Reason, now: Instant) -> Option<u64> {
        // A panic elsewhere leaves nothing half done.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match said.get_mut(&reason) {
            Some((last, unsaid)) if now.saturating_duration_since(*last) < SAY_EVERY => {
                *unsaid += 1;
                None
            }
            before => {
                let unsaid = before.map_or(0, |(_, unsaid)| *unsaid);
                said.insert(reason, (now, 0));
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_in_ten_seconds_for_each_reason() {
        let turnstile = Turnstile::new(Arc::new(()));
        let begin = Instant::now();
        assert_eq!(turnstile.unsaid(Reason::Token, begin), Some(0));
        for _ in 0..5 {
            assert_eq!(turnstile.unsaid(Reason::Token, begin + SAY_EVERY / 2), None);
        }
        assert_eq!(turnstile.unsaid(Reason::NoCredential, begin + SAY_EVERY / 2), Some(0));
        assert_eq!(turnstile.unsaid(Reason::Token, begin + SAY_EVERY), Some(5));
        assert_eq!(turnstile.unsaid(Reason::Token, begin + SAY_EVERY * 2), Some(0));
    }
}
