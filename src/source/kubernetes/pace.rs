//! How often API servers are asked again after failures: pauses that grow, one scout for a server that is out of reach, and one
//! bound for all that this process does again.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
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

/// How long one attempt may take until another is made beside it: what that one asks for may be what hangs. Half of it asks a
/// server that is merely slow twice; double lets all others wait longer for one kind that is never answered.
const PATIENT: Duration = Duration::from_secs(5);

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
        let mut next = lock(&self.next);
        *next = (*next).max(now) + each;
        // Those that were not used up meanwhile may come at once.
        (*next - each * AT_ONCE).max(now)
    }
}

/// The way to one API server, for all who ask it. While nothing gets through, one of them tries, and the others wait for it; if
/// it has to wait itself, the next of them tries beside it.
#[derive(Debug)]
pub(super) struct Road {
    scout: Arc<Mutex<Backoff>>,
    /// Since when whoever tries has waited for its answer, or somebody went beside it.
    tries: Arc<StdMutex<Option<Instant>>>,
    patient: Duration,
    /// Counts how often it was found open after it had been closed.
    opened: watch::Sender<u64>,
    pace: Pace,
}

/// Whoever has it tries for all.
#[derive(Debug)]
pub(super) struct Scout {
    tries: Arc<StdMutex<Option<Instant>>>,
    /// None for whoever goes beside another one.
    turn: Option<OwnedMutexGuard<Backoff>>,
}

impl Drop for Scout {
    fn drop(&mut self) {
        // Nobody tries until the next has paused.
        if self.turn.is_some() {
            *lock(&self.tries) = None;
        }
    }
}

fn lock<T>(shared: &StdMutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Road {
    pub(super) fn new(pace: Pace) -> Self {
        let (scout, tries, opened) = (Arc::default(), Arc::default(), watch::Sender::new(0));
        Self { scout, tries, patient: PATIENT, opened, pace }
    }

    /// After an attempt that did not get through: waits until the next is to be made. With a scout, it is the one attempt that
    /// is made at present, or one beside another that has not ended for long; whoever has none goes because somebody got through.
    pub(super) async fn wait(&self) -> Option<Scout> {
        let mut opened = self.opened.subscribe();
        let scouting = async {
            // The order of asking is the order of turns, so that one whose requests alone fail is not the scout for ever.
            let mut turn = self.scout.clone().lock_owned().await;
            let pause = turn.pause();
            tokio::time::sleep(pause).await;
            Scout { tries: self.tries.clone(), turn: Some(turn) }
        };
        let scout = tokio::select! {
            // Whoever may go leaves the turn, and the pause that grows with each, alone.
            biased;
            // An error means that the road is gone, and this with it.
            _ = opened.changed() => None,
            scout = scouting => Some(scout),
            scout = self.beside() => Some(scout),
        };
        self.pace.turn().await;
        if scout.is_some() {
            *lock(&self.tries) = Some(Instant::now());
        }
        scout
    }

    /// Waits until whoever tries has waited for too long.
    async fn beside(&self) -> Scout {
        loop {
            let since = lock(&self.tries).unwrap_or_else(Instant::now);
            tokio::time::sleep_until(since + self.patient).await;
            let mut tries = lock(&self.tries);
            // One at a time goes beside it.
            if tries.is_some_and(|since| since.elapsed() >= self.patient) {
                *tries = Some(Instant::now());
                return Scout { tries: self.tries.clone(), turn: None };
            }
        }
    }

    /// Something got through: all who wait go.
    pub(super) fn is_open(&self, scout: Option<Scout>) {
        if let Some(mut scout) = scout {
            if let Some(turn) = &mut scout.turn {
                turn.reset();
            }
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
    /// One kind may hang while all others would be answered.
    #[tokio::test]
    async fn whoever_tries_and_is_not_answered_does_not_hold_the_others_up() {
        let road = Arc::new(Road { patient: Duration::from_millis(20), ..Road::new(Pace::default()) });
        let hangs = road.wait().await.expect("the first tries");
        let others: Vec<_> = (0..10)
            .map(|_| {
                let road = road.clone();
                tokio::spawn(async move {
                    let scout = road.wait().await;
                    let is_beside = scout.is_some();
                    road.is_open(scout);
                    is_beside
                })
            })
            .collect();
        let mut beside = 0;
        for other in others {
            beside += usize::from(other.await.unwrap());
        }
        assert!((1..10).contains(&beside), "{beside} went beside it, and the others when one was answered");
        // In the next outage it hangs still.
        let again = road.wait().await.expect("beside it");
        assert!(again.turn.is_none());
        drop(hangs);
        let next = road.wait().await.expect("the next tries");
        assert!(next.turn.is_some(), "once it has ended, one tries at a time again");
    }
}
