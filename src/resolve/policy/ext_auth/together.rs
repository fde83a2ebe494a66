//! What an ExtAuthPolicy needs of the other policies on its route.

use std::collections::BTreeMap;

use crate::ir::policy::ext_auth::{Authorization, Place};
use crate::ir::policy::jwt::{Mode, Verification};
use crate::ir::policy::{Phase, Policy};
use crate::ir::route::RouteFault;
use crate::ir::upstream::UpstreamId;
use crate::model::{Code, ObjectRef};

/// Why the ExtAuthPolicies of a route and of its destinations cannot all be enforced, so that the route is closed; with the
/// policy at fault.
///
/// A method that asks for a JWTPolicy must find one on the same target, before authorization, and where requests may pass
/// without its token, that policy must let them pass. For users, keys, access tokens and rules there is one place in the
/// chain of filters, which the configuration of a destination would take from the route's.
///
/// # Rule
/// R118, R130.
#[must_use]
pub fn clash(route: &[Policy], destinations: &BTreeMap<UpstreamId, Vec<Policy>>) -> Option<(ObjectRef, RouteFault)> {
    let of_route = authorization(route);
    let targets = std::iter::once((None, route)).chain(destinations.iter().map(|(id, own)| (Some(id), &own[..])));
    for (destination, policies) in targets {
        let Some(own) = authorization(policies) else { continue };
        if let Some((code, why)) = lacks(own, policies) {
            return Some(closed(own, code, &why));
        }
        let (Some(of_route), Some(destination)) = (of_route, destination) else { continue };
        if let Some(place) = own.places().find(|place| of_route.places().any(|other| other == *place)) {
            let what = match place {
                Place::Tokens => "access tokens",
                Place::Basic => "user name and password",
                Place::Key => "an API key",
                Place::Rule => "an expression or `jwt`",
            };
            let why = format!(
                "it asks for {what}, and so does `{}` on the route to `{destination}`; a request can be asked once: leave it to one of them, or ask a server",
                of_route.policy
            );
            return Some(closed(own, Code::Unsupported, &why));
        }
    }
    None
}

fn closed(own: &Authorization, code: Code, why: &str) -> (ObjectRef, RouteFault) {
    let message = format!("closed by `{}`, which protects it and cannot be applied: {why}", own.policy);
    (own.policy.clone(), RouteFault { code, message, gateway_specific: false })
}

fn authorization(policies: &[Policy]) -> Option<&Authorization> {
    policies.iter().find_map(|policy| match policy {
        Policy::ExtAuth(authorization) => Some(&**authorization),
        _ => None,
    })
}

fn verification(policies: &[Policy]) -> Option<&Verification> {
    policies.iter().find_map(|policy| match policy {
        Policy::Jwt(verification) => Some(&**verification),
        _ => None,
    })
}

/// What a policy misses that asks what a JWTPolicy found.
fn lacks(own: &Authorization, policies: &[Policy]) -> Option<(Code, String)> {
    if !own.asks_jwt() {
        return None;
    }
    let Some(verification) = verification(policies) else {
        let why = "`jwt` counts what a JWTPolicy on the same target found, and there is none: write one that selects the same";
        return Some((Code::InvalidField, why.to_owned()));
    };
    if verification.jwt.place.phase == Phase::PostAuthz {
        let why =
            format!("`{}` verifies tokens after authorization: write `preAuthz` as its phase", verification.policy);
        return Some((Code::InvalidField, why));
    }
    if own.passes_without_jwt() && verification.jwt.mode != Mode::AllowMissingOrFailed {
        let why = format!(
            "requests may pass without a token here, and `{}` refuses them: write `ALLOW_MISSING_OR_FAILED` there",
            verification.policy
        );
        return Some((Code::InvalidField, why));
    }
    None
}
