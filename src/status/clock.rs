//! The clock by which statuses are written: the system's, or one that is moved on.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Tells the time, and passes it.
#[derive(Debug, Default)]
pub struct Clock {
    /// How far it is ahead of the system's.
    ahead: Duration,
    /// How far it is to go ahead, step by step.
    steps: Option<mpsc::Receiver<Duration>>,
}

impl Clock {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// One that goes ahead of the system's. It takes a step whenever somebody waits by it, so an hour passes as fast as what
    /// happens in it is done.
    #[must_use]
    pub fn moved_by(steps: mpsc::Receiver<Duration>) -> Self {
        Self { ahead: Duration::ZERO, steps: Some(steps) }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// The time for people.
    #[must_use]
    pub fn timestamp(&self) -> jiff::Timestamp {
        // Only a clock that is moved by millennia leaves what can be told.
        jiff::Timestamp::now().checked_add(self.ahead).unwrap_or(jiff::Timestamp::MAX)
    }

    /// Waits until a time.
    pub async fn until(&mut self, time: Instant) {
        loop {
            let left = time.saturating_duration_since(self.now());
            if left.is_zero() {
                return;
            }
            let Some(steps) = &mut self.steps else {
                tokio::time::sleep(left).await;
                continue;
            };
            tokio::select! {
                step = steps.recv() => match step {
                    Some(step) => self.ahead += step,
                    None => self.steps = None,
                },
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_is_moved_takes_its_steps_as_somebody_waits() {
        let (go, steps) = mpsc::channel(4);
        let mut clock = Clock::moved_by(steps);
        let (begin, told) = (clock.now(), clock.timestamp());
        for _ in 0..3 {
            go.send(Duration::from_secs(1800)).await.expect("there is room");
        }
        clock.until(begin + Duration::from_secs(3600)).await;
        assert!(clock.now() >= begin + Duration::from_secs(3600));
        assert!(clock.timestamp().duration_since(told).as_secs() >= 3600);
        assert_eq!(go.capacity(), 3, "the step that is left is not taken before somebody waits");
        drop(go);
        clock.until(begin + Duration::from_secs(5400)).await;
        // And then it goes on as the system's does.
        clock.until(clock.now() + Duration::from_millis(1)).await;
    }
}
