//! What filters ask that routes configure.

use super::extensions::{asked, unpacked};
use super::{composite_pb, core_pb, matching_pb, rate_limit_pb};

/// The cluster that a route's configuration of a slot asks: it has the filter itself, or the server that a filter asks.
///
/// # Cost
/// For anything else, a comparison or two.
#[must_use]
pub fn asked_cluster(type_url: &str, config: &[u8]) -> Option<String> {
    asked(type_url, config).or_else(|| asked_by_held(type_url, config))
}

fn asked_by_held(type_url: &str, config: &[u8]) -> Option<String> {
    use core_pb::grpc_service::TargetSpecifier;
    use matching_pb::matcher::on_match::OnMatch;
    let holder: composite_pb::CompositePerRoute = unpacked(type_url, config)?;
    let Some(OnMatch::Action(action)) = holder.matcher?.on_no_match?.on_match else { return None };
    let action = action.typed_config?;
    let action: composite_pb::ExecuteFilterAction = unpacked(&action.type_url, &action.value)?;
    let filter = action.typed_config?.typed_config?;
    let limit: rate_limit_pb::RateLimit = unpacked(&filter.type_url, &filter.value)?;
    match limit.rate_limit_service?.grpc_service?.target_specifier? {
        TargetSpecifier::EnvoyGrpc(envoy) => Some(envoy.cluster_name),
        TargetSpecifier::GoogleGrpc(_) => None,
    }
}
