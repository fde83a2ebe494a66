//! When streams end that all could end at once: spread out, so that their clients don't come to another replica as a herd.
//!
//! Where a stream stands in the spread follows from its number alone, so there is no chance in it, and the streams of one
//! server are spread evenly.

use std::time::Duration;

use super::observation::StreamId;

/// Time per stream in a drain. At half of it a thousand clients would be gone in 5 s, and each costs its next server a
/// few milliseconds.
const DRAIN_PACE: Duration = Duration::from_millis(10);

/// The part of the drain time in which streams end; the rest is for their last words.
const DRAIN_SHARE: f64 = 0.8;

/// The age that is the end of no stream; clocks can't count for ever.
const AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// How old a stream gets: `age`, 25 % more or less.
pub(super) fn age(stream: StreamId, age: Duration) -> Duration {
    age.min(AGE_MAX).mul_f64(0.75 + 0.5 * fraction(stream))
}

/// When the server begins to tell connections to make room for others: before the first of their streams can end of age,
/// because a client opens its next stream on the connection that it has.
pub(super) fn connection_age(age: Duration) -> Duration {
    age.min(AGE_MAX).mul_f64(0.75)
}

/// How long a stream stays once the server stops, of `open` streams: a few only as long as they need.
pub(super) fn drain(stream: StreamId, open: usize, drain: Duration) -> Duration {
    let needed = DRAIN_PACE.saturating_mul(u32::try_from(open).unwrap_or(u32::MAX));
    needed.min(drain.mul_f64(DRAIN_SHARE)).mul_f64(fraction(stream))
}

/// Where a stream stands between 0 and 1: multiples of the golden ratio, which lie evenly however many there are.
fn fraction(stream: StreamId) -> f64 {
    let bits = stream.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
    // 53 bits, which a double holds exactly.
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// How many of 1,000 streams end in each tenth of a time.
    fn tenths(from: Duration, to: Duration, end: impl Fn(StreamId) -> Duration) -> [usize; 10] {
        let mut counts = [0; 10];
        for stream in 1..=1000 {
            let at = end(StreamId(stream));
            assert!(at >= from && at < to, "{at:?}");
            counts[((at - from).as_secs_f64() / (to - from).as_secs_f64() * 10.0) as usize] += 1;
        }
        counts
    }

    #[test]
    fn ages_are_spread_evenly() {
        let counts = tenths(3 * HOUR, 5 * HOUR, |stream| age(stream, 4 * HOUR));
        assert!(counts.iter().all(|count| (95..=105).contains(count)), "{counts:?}");
        assert!(connection_age(4 * HOUR) <= 3 * HOUR);
        // No settings overflow.
        assert!(age(StreamId(u64::MAX), Duration::MAX) < 2 * AGE_MAX);
    }

    #[test]
    fn case_30_a_drain_takes_no_longer_than_it_needs() {
        let seconds = Duration::from_secs;
        let counts = tenths(seconds(0), seconds(4), |stream| drain(stream, 1000, seconds(5)));
        assert!(counts.iter().all(|count| (95..=105).contains(count)), "{counts:?}");
        assert!((1..100).all(|stream| drain(StreamId(stream), 1, seconds(5)) < DRAIN_PACE));
        assert!((1..100).all(|stream| drain(StreamId(stream), 10_000, Duration::ZERO).is_zero()));
    }
}
