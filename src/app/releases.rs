//! What authors are told of policies that a gateway's release of Envoy cannot do.

use std::collections::{BTreeMap, BTreeSet};

use crate::emit::Beyond;
use crate::model::{Code, EnvoyRelease, Finding, Findings, GatewayId};
use crate::publish::GatewayKey;

use super::emission::Emission;

/// A finding for each policy, class of gateways and release, as long as gateways of that release ask to be served.
///
/// How many routes are closed is not told: it changes with edits of others, and each change of a message costs a compile.
///
/// # Rule
/// R130: the routes answer 500 there, and what goes to a destination 503.
pub(super) fn findings(emissions: &BTreeMap<GatewayKey, Emission>) -> Findings {
    let mut beyond: BTreeSet<(Beyond, &GatewayId, EnvoyRelease)> = BTreeSet::new();
    for (key, emission) in emissions {
        beyond.extend(emission.beyond().into_iter().map(|beyond| (beyond, &key.gateway, key.envoy)));
    }
    let tell = |(Beyond { policy, what, since, closes }, gateway, envoy): (Beyond, &GatewayId, EnvoyRelease)| {
        let until_then = if closes { "what the policy selects is closed there" } else { "it is left out there" };
        let message = format!(
            "gateway `{gateway}` runs Envoy {envoy}, and {what} needs {since} or newer: until then, {until_then}"
        );
        Finding::error(&policy, Code::Unsupported, message)
    };
    beyond.into_iter().map(tell).collect()
}
