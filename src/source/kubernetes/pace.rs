//! How often API servers are asked again after failures: pauses that grow, one scout for a server that is out of reach, and one
//! bound for all that this process does again.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::Instant;

/// The first pause after a failure; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause after failures. A server that is back, and a kind that is served now, are noticed that late.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Without a failure for this long, the next is the first again.
const FORGIVEN: Duration = Duration::from_secs(30);

/// How many attempts after failures there are in a second, of all watches of all clusters.
const PER_SECOND: u32 = 20;

/// How many of them may come at once: all watches of one cluster that is back.
const AT_ONCE: u32 = 60;

/// Pauses that grow with failures in a row, and differ from one to another, so that not all ask at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// After a failure: how long to wait.
    pub(super) fn pause(&mut self) -> Duration {
        self.pause_at(Instant::now())
    }

    fn pause_at(&mut self, now: Instant) -> Duration {
        if self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) > FORGIVEN) {
            self.failures = 0;
        }
        let whole = PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Between half and whole. The keys of a new hasher are chance enough.
        let chance = u32::try_from(RandomState::new().hash_one(0) % 1000).unwrap_or_default();
        whole / 2 + whole / 2 * chance / 1000
    }

    /// How many failures there were in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Bounds the attempts after failures. Clones share the bound.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// When an attempt is due that comes after all that were promised.
    next: Arc<StdMutex<Instant>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: Arc::new(StdMutex::new(Instant::now())) }
    }
}

impl Pace {
    /// Waits until another attempt may be made.
    pub(super) async fn turn(&self) {
        let due = self.due(Instant::now());
        tokio::time::sleep_until(due).await;
    }

    fn due(&self, now: Instant) -> Instant {
        let each = Duration::from_secs(1) / PER_SECOND;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now) + each;
        // Those that were not used up meanwhile may come at once.
        (*next - each * AT_ONCE).max(now)
    }
}

/// The way to one API server, for all who ask it. While nothing gets through, one of them tries, and the others wait for it.
#[derive(Debug)]
pub(super) struct Road {
    scout: Arc<Mutex<Backoff>>,
    /// Counts how often it was found open after it had been closed.
    opened: watch::Sender<u64>,
    pace: Pace,
}

/// Whoever has it is the one that tries.
pub(super) type Scout = OwnedMutexGuard<Backoff>;

impl Road {
    pub(super) fn new(pace: Pace) -> Self {
        Self { scout: Arc::default(), opened: watch::Sender::new(0), pace }
    }

    /// After an attempt that did not get through: waits until the next is to be made. With a scout, it is the one attempt that
    /// is made at present; whoever has none goes because somebody got through.
    pub(super) async fn wait(&self) -> Option<Scout> {
        let mut opened = self.opened.subscribe();
        let scouting = async {
            // The order of asking is the order of turns, so that one whose requests alone fail is not the scout for ever.
            let mut scout = self.scout.clone().lock_owned().await;
            let pause = scout.pause();
            tokio::time::sleep(pause).await;
            scout
        };
        let scout = tokio::select! {
            // Whoever may go leaves the turn, and the pause that grows with each, alone.
            biased;
            // An error means that the road is gone, and this with it.
            _ = opened.changed() => None,
            scout = scouting => Some(scout),
        };
        self.pace.turn().await;
        scout
    }

    /// Something got through: all who wait go.
    pub(super) fn is_open(&self, scout: Option<Scout>) {
        if let Some(mut scout) = scout {
            scout.reset();
            self.opened.send_modify(|count| *count += 1);
        }
    }

    /// Waits after an answer that is a failure.
    pub(super) async fn pause(&self, backoff: &mut Backoff) {
        tokio::time::sleep(backoff.pause()).await;
        self.pace.turn().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let begin = Instant::now();
        for failure in 0..40 {
            let whole = PAUSE.saturating_mul(1 << failure.min(10)).min(LONGEST_PAUSE);
            let pause = backoff.pause_at(begin);
            assert!((whole / 2..=whole).contains(&pause), "{failure}: {pause:?}");
        }
        assert_eq!(backoff.failures(), 40);
        assert!(backoff.pause_at(begin + FORGIVEN) > PAUSE);
        assert!(backoff.pause_at(begin + FORGIVEN * 3) <= PAUSE, "forgiven");
        backoff.pause_at(begin + FORGIVEN * 3);
        backoff.reset();
        assert!(backoff.pause_at(begin + FORGIVEN * 3) <= PAUSE);
    }

    #[test]
    fn attempts_of_a_process_are_bounded() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(pace.due(now), now, "what was not used up may come at once");
        }
        for attempt in 1..=PER_SECOND * 10 {
            assert_eq!(pace.due(now), now + Duration::from_secs(1) / PER_SECOND * attempt);
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.due(later), later);
    }

    /// Of 40 watches whose server is away one tries at a time; when it gets through, all go.
    #[tokio::test]
    async fn while_nothing_gets_through_one_tries_and_then_all_go() {
        let road = Arc::new(Road::new(Pace::default()));
        let (is_open, attempts, under_way) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let watches: Vec<_> = (0..40)
            .map(|_| {
                let (road, is_open) = (road.clone(), is_open.clone());
                let (attempts, under_way) = (attempts.clone(), under_way.clone());
                tokio::spawn(async move {
                    loop {
                        let scout = road.wait().await;
                        if is_open.load(Ordering::SeqCst) {
                            road.is_open(scout);
                            return;
                        }
                        assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        tokio::task::yield_now().await;
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        // The fourth finds it open.
                        is_open.store(attempts.fetch_add(1, Ordering::SeqCst) >= 2, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for watch in watches {
            watch.await.unwrap();
        }
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
        assert_eq!(road.scout.lock().await.failures(), 0, "the next outage begins with the first pause");
    }
}
