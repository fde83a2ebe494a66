//! Lengths of time as manifests write them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time: a sequence of numbers with units, as `1h`, `1m30s`, `1.5h`, `100ms` or `0.5s`.
///
/// Units are `ns`, `us` (or `µs`), `ms`, `s`, `m` and `h`. Never negative; at most about 292 years. Parts of a
/// nanosecond are cut off.
///
/// # Rule
/// Go's `time.ParseDuration`, which contains the protobuf form of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// The length of time.
    #[must_use]
    pub fn get(self) -> std::time::Duration {
        self.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

/// Why a text is not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// It is no number with a unit.
    #[error("is not a duration: write a number with a unit, for instance `5s`, `1m30s` or `100ms`")]
    Malformed,
    /// A number has no unit.
    #[error("has no unit: write for instance `5s`, `1m30s` or `100ms`")]
    NoUnit,
    /// It is below zero.
    #[error("is negative: write a duration of zero or more")]
    Negative,
    /// It is longer than Envoy takes.
    #[error("is too long: write at most 2500000h")]
    TooLong,
}

/// Longest length of time, in nanoseconds: 2,500,000 hours. Go can say 2% more, of which Envoy refuses the last second and
/// with it a whole route configuration.
const LONGEST_NANOS: u128 = 9_000_000_000_000_000_000;

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let mut nanos = 0_u128;
        if unsigned != "0" {
            let mut rest = unsigned;
            if rest.is_empty() {
                return Err(ParseDurationError::Malformed);
            }
            while !rest.is_empty() {
                let (part, tail) = parse_part(rest)?;
                nanos = nanos.saturating_add(part);
                rest = tail;
            }
        }
        if nanos > LONGEST_NANOS {
            return Err(ParseDurationError::TooLong);
        }
        if negative && nanos > 0 {
            return Err(ParseDurationError::Negative);
        }
        u64::try_from(nanos)
            .map(|nanos| Self(std::time::Duration::from_nanos(nanos)))
            .map_err(|_| ParseDurationError::TooLong)
    }
}

/// Reads one number with its unit; gives nanoseconds and what follows.
fn parse_part(text: &str) -> Result<(u128, &str), ParseDurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(ParseDurationError::Malformed);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale: u128 = match unit {
        "" => return Err(ParseDurationError::NoUnit),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(ParseDurationError::Malformed),
    };
    // Twenty digits overflow any unit, so longer numbers need not be read.
    let leading = whole.trim_start_matches('0');
    if leading.len() > 20 {
        return Err(ParseDurationError::TooLong);
    }
    let mut nanos = leading.bytes().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0')) * scale;
    let mut place = scale;
    let mut remainder = 0_u128;
    for digit in fraction.bytes().take(15) {
        // Each digit is worth a tenth of the one before; what a place cannot say whole is carried on.
        let value = place * 10_u128.pow(15);
        place /= 10;
        remainder += value / 10 * u128::from(digit - b'0');
        if place == 0 {
            break;
        }
    }
    nanos += remainder / 10_u128.pow(15);
    Ok((nanos, rest))
}

/// Splits leading decimal digits off.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return write!(f, "{seconds}s");
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format_args!("`{text}` {error}")))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "duration"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show() {
        for (text, nanos, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("-0s", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("+5s", 5_000_000_000, "5s"),
            ("0.5s", 500_000_000, "0.5s"),
            (".5s", 500_000_000, "0.5s"),
            ("1.s", 1_000_000_000, "1s"),
            ("1h", 3_600_000_000_000, "3600s"),
            ("1m30s", 90_000_000_000, "90s"),
            ("1.5h", 5_400_000_000_000, "5400s"),
            ("100ms", 100_000_000, "0.1s"),
            ("1s500ms", 1_500_000_000, "1.5s"),
            ("1us", 1_000, "0.000001s"),
            ("1µs", 1_000, "0.000001s"),
            ("1ns", 1, "0.000000001s"),
            ("0.0000000019s", 1, "0.000000001s"),
            ("0.333333333333333333333h", 1_199_999_999_999, "1199.999999999s"),
            ("9000000000000000000ns", 9_000_000_000_000_000_000, "9000000000s"),
            ("00000000000000000000000005s", 5_000_000_000, "5s"),
        ] {
            let duration: Duration = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(duration.get().as_nanos(), nanos, "{text}");
            assert_eq!(duration.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(duration), "{text}");
        }
    }

    #[test]
    fn durations_that_are_none() {
        use ParseDurationError::{Malformed, Negative, NoUnit, TooLong};
        for (text, expected) in [
            ("", Malformed),
            ("-", Malformed),
            ("s", Malformed),
            (".s", Malformed),
            ("5", NoUnit),
            ("1m30", NoUnit),
            ("5 s", Malformed),
            ("5sec", Malformed),
            ("5d", Malformed),
            ("1e3s", Malformed),
            ("-5s", Negative),
            ("9000000000000000001ns", TooLong),
            ("99999999999999999999999999999999h", TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(expected), "{text}");
        }
    }
}
