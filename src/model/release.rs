//! Releases of Envoy, as far as one takes what another refuses.
//!
//! What is emitted is what the oldest that is served understands, which `e2e/versions.rs` verifies with each of them, but for
//! what [needs](crate::emit::filter::needs) a newer one. What they refuse differs, so each release of a class of gateways has a snapshot of its own, in which accepted
//! versions stand in for what that release refused.

use std::fmt;

/// A minor release of Envoy, within the range that Chancery serves.
///
/// Gateways of one release understand the same configuration, so what one of them refuses the others would refuse too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvoyRelease {
    major: u32,
    minor: u32,
}

impl EnvoyRelease {
    /// The oldest release that is served; nothing is emitted that it does not understand.
    pub const OLDEST: Self = Self { major: 1, minor: 36 };
    /// The newest release that is known; newer gateways get what it gets.
    pub const NEWEST: Self = Self { major: 1, minor: 40 };

    /// A release by its numbers, which may lie outside the range.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Major and minor number.
    #[must_use]
    pub fn numbers(self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// The release as which a gateway of some version is served: its own, or the nearest that is served.
    ///
    /// A client that states no version counts as the oldest.
    #[must_use]
    pub fn serving(stated: Option<(u32, u32)>) -> Self {
        let Some((major, minor)) = stated else { return Self::OLDEST };
        Self { major, minor }.clamp(Self::OLDEST, Self::NEWEST)
    }
}

impl fmt::Display for EnvoyRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_is_served_as_a_release_that_it_understands() {
        for (stated, expected) in [
            (Some((1, 38)), "1.38"),
            (Some((1, 30)), "1.36"),
            (Some((0, 99)), "1.36"),
            (Some((1, 41)), "1.40"),
            (Some((2, 0)), "1.40"),
            (None, "1.36"),
        ] {
            assert_eq!(EnvoyRelease::serving(stated).to_string(), expected, "{stated:?}");
        }
    }
}
