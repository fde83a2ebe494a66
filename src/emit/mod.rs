//! Ring 4: the plan as Envoy messages. The only place that builds them.
//!
//! In goes a [`GatewayPlan`], out comes a [`Snapshot`]: clusters, endpoints, listeners, route configurations, secrets. Pure:
//! no clock, no environment, no files, no randomness, no findings. What can be wrong with an input was found by
//! `resolve`; everything that can reach bytes is ordered here and encoded by `wire`, so equal plans give equal
//! versions.
//!
//! One file per message (`listener`, `tls`, `route`, `cluster`, `endpoint`, `secret`) and one per policy kind ([`filter`]).
//!
//! # Granularity
//! What one edit sends again, and what it does to Envoy:
//!
//! | edit | sent again | effect |
//! |---|---|---|
//! | a route, a matcher, a policy on routes | the route configuration of each port with it | none on connections |
//! | a ready Pod more or less | the endpoints of its destinations | none on others |
//! | protocol or protection of a destination | its cluster, and its endpoints with it | new connections to it |
//! | a virtual gateway's ports or TLS | listeners, their route configurations | the changed chains drain |
//! | a certificate, a key, an authority, an identity | that secret | new connections use it |
//!
//! A listener depends on its port and on settings only: every filter that a policy may need stands in its chain from
//! the start, doing nothing ([`filter::SLOTS`]). There is one route configuration per plaintext port and one per TLS
//! chain; cutting it smaller is decided by measurements, not here.
//!
//! Resources name the objects that a refusal by Envoy concerns: a listener its virtual gateways, a route configuration
//! these and every table and policy on it, a cluster and its endpoints the destination object.

pub mod filter;

mod cluster;
mod endpoint;
mod listener;
mod name;
mod pb;
mod route;
mod secret;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub(crate) use name::{listener as listener_name, route_configuration as route_configuration_name};
pub use route::route_entries;
pub use secret::emit_issued;

use std::net::IpAddr;

use crate::ir::GatewayPlan;
use crate::snapshot::{ResourceType, Snapshot};

/// Settings of the server that reach Envoy's configuration.
///
/// They are inputs of [`emit_gateway`] like the plan: the same settings on every replica give the same versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmitOptions {
    /// The address that listeners bind; unspecified (`0.0.0.0`, `::`) takes every interface.
    pub bind: IpAddr,
}

impl Default for EmitOptions {
    fn default() -> Self {
        Self { bind: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED) }
    }
}

/// Everything that the Envoys of one gateway should hold.
///
/// Every upstream of the plan becomes a cluster with its endpoints (an empty list where there are none), every listener
/// a listener and its route configuration.
///
/// # Cost
/// Linear in routes and endpoints; in memory, little more than the snapshot itself. Measured by `make bench`.
#[must_use]
pub fn emit_gateway(plan: &GatewayPlan, options: &EmitOptions) -> Snapshot {
    let gateway_cluster = &plan.gateway.cluster;
    let clusters = plan.upstreams.values().map(|upstream| cluster::emit_cluster(upstream, gateway_cluster));
    let endpoints = plan.upstreams.values().map(|upstream| endpoint::emit_endpoints(upstream));
    let listeners = plan.listeners.values().map(|listener| listener::emit_listener(listener, options));
    let chains = plan.listeners.values().flat_map(|l| l.chains.iter().map(move |chain| (l.bind_port, chain)));
    let routes = chains
        .filter_map(|(port, chain)| chain.serves.http().map(|http| route::emit_route_configuration(port, chain, http)));
    let secrets = plan.secrets.iter().map(|(id, secret)| secret::emit_secret(id, secret));
    Snapshot::new()
        .with(ResourceType::Cluster, clusters)
        .with(ResourceType::Endpoint, endpoints)
        .with(ResourceType::Listener, listeners)
        .with(ResourceType::Route, routes)
        .with(ResourceType::Secret, secrets)
}
