//! Endpoints: what a cluster's name leads to now.
//!
//! Every cluster has an assignment, also an empty one: Envoy waits for it, and answers 503 without a host. An endpoint that is
//! an east-west gateway of another cluster says so, and the cluster says how such a one is spoken to.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_pb;

use crate::ir::Upstream;
use crate::ir::upstream::{Closed, Endpoint, Locality};
use crate::model::Name;
use crate::snapshot::Resource;

use super::cluster::Transports;
use super::{name, pb, wire};

/// The endpoints of one upstream, by priority and locality, each address once. Policies that protect it are among the owners.
///
/// # Rule
/// R130: by these owners, streams know which first endpoints wait. R143: a destination without ready endpoints answers 503. D4 of the failure shapes: so does a black hole.
#[must_use]
pub fn emit_endpoints(upstream: &Upstream) -> Resource {
    let name = name_of(upstream);
    let message = assignment(upstream, &name);
    Resource::from_content(
        name,
        wire::encode(&message),
        pb::owners([&upstream.id.object].into_iter().chain(&upstream.protected_by)),
    )
}

/// What the endpoints of an upstream are called.
pub(super) fn name_of(upstream: &Upstream) -> Name {
    Transports::of(upstream).endpoints(&name::cluster(&upstream.id))
}

/// The same as a part of a cluster that looks names up itself.
pub(super) fn assignment(upstream: &Upstream, name: &Name) -> endpoint_pb::ClusterLoadAssignment {
    let endpoints = match upstream.closed {
        Some(Closed::BlackHole) => Vec::new(),
        Some(Closed::Deny) | None => {
            let mut groups: BTreeMap<(u32, &Locality), BTreeSet<&Endpoint>> = BTreeMap::new();
            for (locality, endpoint) in upstream.endpoints.iter().flat_map(|(at, all)| all.iter().map(move |e| (at, e)))
            {
                groups.entry((endpoint.priority, locality)).or_default().insert(endpoint);
            }
            groups.into_iter().map(|(at, endpoints)| emit_locality(at, endpoints, upstream)).collect()
        }
    };
    endpoint_pb::ClusterLoadAssignment { cluster_name: name.to_string(), endpoints, ..Default::default() }
}

fn emit_locality(
    (priority, locality): (u32, &Locality),
    endpoints: BTreeSet<&Endpoint>,
    upstream: &Upstream,
) -> endpoint_pb::LocalityLbEndpoints {
    let known = *locality != Locality::default();
    endpoint_pb::LocalityLbEndpoints {
        locality: known.then(|| core_pb::Locality {
            region: locality.region.to_string(),
            zone: locality.zone.to_string(),
            sub_zone: locality.sub_zone.to_string(),
        }),
        lb_endpoints: endpoints.into_iter().map(|endpoint| emit_endpoint(endpoint, upstream)).collect(),
        load_balancing_weight: upstream.shares.get(locality).copied().and_then(pb::uint32),
        priority,
        ..Default::default()
    }
}

fn emit_endpoint(endpoint: &Endpoint, upstream: &Upstream) -> endpoint_pb::LbEndpoint {
    let address = if endpoint.is_socket() {
        pb::pipe(endpoint.address.to_string())
    } else {
        pb::socket_address(pb::absolute(&endpoint.address), endpoint.port)
    };
    let message = endpoint_pb::Endpoint {
        address: Some(address),
        // What `autoHostRewrite` puts into the Host header.
        hostname: upstream.hostname.to_string(),
        ..Default::default()
    };
    endpoint_pb::LbEndpoint {
        host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(message)),
        metadata: endpoint.via.as_ref().map(|cluster| via(cluster, upstream)),
        load_balancing_weight: pb::uint32(endpoint.weight).filter(|weight| weight.value != 1),
        ..Default::default()
    }
}

/// What chooses the transport socket of an endpoint in another cluster.
fn via(cluster: &Name, upstream: &Upstream) -> core_pb::Metadata {
    let is_passed = upstream.remotes.get(cluster).is_some_and(|remote| remote.tls.is_some());
    let filter_metadata = [("envoy.transport_socket_match".to_owned(), pb::leading_to(cluster, is_passed))].into();
    core_pb::Metadata { filter_metadata, ..Default::default() }
}
