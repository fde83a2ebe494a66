//! What authors are told of policies that gateways cannot do, because of their release of Envoy or by their own words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::emit::Beyond;
use crate::model::{Code, EnvoyRelease, Finding, Findings, GatewayId, ObjectRef};
use crate::publish::GatewayKey;
use crate::status::View;
use crate::xds::observation::excerpt;

use super::emission::Emission;
use super::refusals::WORDS;

/// A finding for each policy, class of gateways and release, as long as gateways of that release ask to be served; and for
/// each policy that gateways refused, or whose routes are closed until gateways take others.
///
/// How many routes are closed is not told: it changes with edits of others, and each change of a message costs a compile.
///
/// # Rule
/// R130: the routes answer 500 there, and what goes to a destination 503.
pub(super) fn findings<'v>(emissions: &BTreeMap<GatewayKey, Emission>, connected: impl Fn() -> &'v View) -> Findings {
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
    let waiting = emissions.iter().flat_map(|(key, emission)| emission.waiting(key, &connected));
    let waiting: BTreeSet<(ObjectRef, String)> = waiting.collect();
    let wait = |(policy, message): (ObjectRef, String)| Finding::warning(&policy, Code::PolicyRemark, message);
    beyond.into_iter().map(tell).chain(refused(emissions)).chain(waiting.into_iter().map(wait)).collect()
}

/// A finding for each policy that gateways refused to verify tokens for.
fn refused(emissions: &BTreeMap<GatewayKey, Emission>) -> BTreeSet<Finding> {
    let tell = |key: &GatewayKey, (policy, words): (&ObjectRef, &Arc<str>)| {
        let (gateway, envoy, words) = (&key.gateway, key.envoy, excerpt(words, WORDS));
        let message = format!(
            "Envoys of gateway `{gateway}` refused its verification of tokens as made for Envoy {envoy}; it is left out there, and the policy's routes answer 500; Envoy says: {words:?}"
        );
        Finding::error(policy, Code::RefusedByGateway, message)
    };
    emissions.iter().flat_map(|(key, emission)| emission.refused().map(move |refused| tell(key, refused))).collect()
}
