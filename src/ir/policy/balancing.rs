//! How a gateway chooses among the endpoints of a destination: which it leaves alone, and which take over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Name;

/// When endpoints are ejected, and for how long.
///
/// # Rule
/// R174.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outlier {
    /// Failures in a row, at least 1.
    pub consecutive_errors: u32,
    /// Failures of gateways in a row, at least 1; absent does not count them apart.
    pub consecutive_gateway_errors: Option<u32>,
    /// Between two looks, at least 1 ms.
    pub interval: Duration,
    /// For the first ejection, at least 1 ms.
    pub base_ejection_time: Duration,
    /// The largest part that may be ejected, in percent, 1 to 100.
    pub max_ejection_percent: u32,
}

/// The order in which endpoints are used.
///
/// # Rule
/// R176.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Failover {
    /// By the place of the gateway: those of the mapping that fits best, else the nearest.
    ByPlace(Vec<Mapping>),
    /// By what they have in common with the gateway, the most important first.
    ByLabel(Vec<PriorityLabel>),
}

/// Where gateways of a place send to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mapping {
    /// The place of the gateways.
    pub from: Area,
    /// Where to.
    pub to: Leads,
}

/// Places that take requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Leads {
    /// One after the other, behind the gateway's own region.
    InOrder(Vec<Area>),
    /// All at once, in these shares in percent, which are 100 together.
    InShares(Vec<(Area, u32)>),
}

/// A region, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Area {
    /// Region, never empty.
    pub region: Name,
    /// Zone; empty for all.
    pub zone: Name,
    /// Sub-zone; empty for all.
    pub sub_zone: Name,
}

/// A label by which endpoints are ranked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PriorityLabel {
    /// Its key.
    pub key: Name,
    /// What it should be; absent for what it is on the gateway.
    pub value: Option<Name>,
}
