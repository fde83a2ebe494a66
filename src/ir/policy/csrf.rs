//! CSRFPolicy: what is refused because it comes from another origin.

use serde::{Deserialize, Serialize};

use super::OriginMatch;

/// What is refused because it comes from another origin.
///
/// With nothing enforced and no shadow the policy does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Csrf {
    /// Share of requests that are judged and refused, in parts per million, 0 to 1,000,000.
    pub enforced_per_million: u32,
    /// Whether every request is judged and none refused; only where nothing is enforced. Never a share: the proxy draws
    /// twice then, and refuses requests of which the draws differ.
    pub shadow: bool,
    /// Further origins that are allowed, as `host` or `host:port`, in the order written.
    pub additional_origins: Vec<OriginMatch>,
    /// Whether it stands for a policy that is invalid (R130): everything is judged and refused.
    pub is_strict: bool,
}
