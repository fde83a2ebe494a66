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
//! | a route, a matcher, a policy on routes | the route configuration of each port with it, or its part | none on connections |
//! | a provider of tokens, of any policy that could be attached | the filter that verifies them | keys are fetched again |
//! | a ready Pod more or less | the endpoints of its destinations | none on others |
//! | protocol or protection of a destination, who may call it | its cluster, and its endpoints with it | new connections to it |
//! | a Pod with another address, in a cluster where an east-west gateway serves clients | a part of the filters that know clients | none |
//! | who may call a gateway | the filter that judges requests; listeners with routes of whole connections | none; those chains drain |
//! | a virtual gateway's ports or TLS | listeners, their route configurations | the changed chains drain |
//! | a certificate, a key, an authority, an identity | that secret | new connections use it |
//!
//! A listener depends on its port and on settings only: every filter that a policy may need stands in its chain from
//! the start, doing nothing ([`filter::SLOTS`]). There is one route configuration per plaintext port and one per TLS
//! chain; where it has many routes it is cut into parts by host ([`Layout`]), which the listener has to know.
//!
//! Resources name the objects that a refusal by Envoy concerns: a listener its virtual gateways, a route configuration
//! these and every table and policy on it, a cluster and its endpoints the destination object.

pub mod filter;

mod access;
mod clients;
mod cluster;
mod emitter;
#[cfg(test)]
mod emitter_tests;
mod endpoint;
mod layout;
mod limits;
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
mod upstream_tls;
mod wire;

pub use emitter::Emitter;
pub use endpoint::emit_endpoints;
pub use filter::{Beyond, check_slot};
pub(crate) use layout::part_suffixes;
pub use layout::{Form, Layout, Parts, Prepares, Ready};
pub use limits::emit_limits;
pub(crate) use name::{listener as listener_name, route_configuration as route_configuration_name};
pub use route::route_entries;
pub use secret::emit_issued;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::listener::{HttpHosts, Purpose};
use crate::ir::{Chain, GatewayPlan, Listener, Upstream, VirtualHost};
use crate::model::EnvoyRelease;
use crate::snapshot::{Resource, ResourceType, Snapshot};

/// Settings of the server that reach Envoy's configuration.
///
/// They are inputs of [`emit_gateway`] like the plan: the same settings on every replica give the same versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EmitOptions {
    /// The address that listeners bind; unspecified (`0.0.0.0`, `::`) takes every interface.
    pub bind: IpAddr,
    /// How many routes an HTTP chain must have for its routes to be cut into parts by host. Whole, a change among 2,000
    /// routes costs an Envoy 7 ms and more; half of it cuts chains that gain little, double makes changes slow.
    pub cut_from_routes: usize,
    /// The release of the Envoys that get it: routes with a policy that it cannot do are closed ([`filter::needs`]).
    pub release: EnvoyRelease,
}

impl EmitOptions {
    /// The settings for gateways of a release.
    ///
    /// Releases before 1.38 never have their chains cut: there, a listener that changes to scoped routes serves before
    /// it has asked for scopes, and answers 404 (seen on 1.36.4 and 1.37.0).
    #[must_use]
    pub fn serving(bind: IpAddr, release: EnvoyRelease) -> Self {
        let whole = release < EnvoyRelease::serving(Some((1, 38)));
        let cut_from_routes = if whole { usize::MAX } else { Self::default().cut_from_routes };
        Self { bind, cut_from_routes, release }
    }
}

impl Default for EmitOptions {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            cut_from_routes: 2_000,
            release: EnvoyRelease::NEWEST,
        }
    }
}

/// Everything that the Envoys of one gateway should hold.
///
/// Every upstream of the plan becomes a cluster with its endpoints (an empty list where there are none), every listener
/// a listener and its route configurations.
///
/// Makes everything anew; [`Emitter`] makes the same of what changed.
///
/// # Cost
/// Linear in routes and endpoints; in memory, little more than the snapshot itself. Measured by `make bench`.
#[must_use]
pub fn emit_gateway(plan: &GatewayPlan, options: &EmitOptions) -> Snapshot {
    emit_gateway_after(plan, options, &Layout::default())
}

/// Everything that the Envoys of one gateway should hold, if their chains are laid out as a layout says.
#[must_use]
pub fn emit_gateway_after(plan: &GatewayPlan, options: &EmitOptions, before: &Layout) -> Snapshot {
    let gateway_cluster = &plan.gateway.cluster;
    let upstreams = || plan.upstreams.values().map(|upstream| filter::as_served(upstream, options.release));
    let clusters = upstreams().map(|upstream| cluster::emit_cluster(&upstream, gateway_cluster));
    let dialled = cluster::dialled(&plan.extensions);
    let clusters = clusters.chain(dialled.into_iter().map(|(dial, owners)| cluster::emit_dialled(dial, owners)));
    let apart = upstreams().filter(|upstream| !upstream.is_looked_up());
    let endpoints = apart.map(|upstream| endpoint::emit_endpoints(&upstream));
    let secrets = plan.secrets.iter().map(|(id, secret)| secret::emit_secret(id, secret));
    let form = |port: u16, chain: &Chain| {
        chain.serves.http().map_or(Form::Whole, |http| {
            let mut weight = layout::Weight::default();
            http.virtual_hosts.iter().for_each(|host| weight.add(host));
            weight.form(&http.misdirected, before.form(port, &chain.name), before.turn(), options)
        })
    };
    let listeners = plan.listeners.values().map(|listener| {
        listener::emit_listener(listener, plan.clients.as_deref(), options, &|chain: &Chain| {
            form(listener.bind_port, chain).cut()
        })
    });
    let (mut routes, mut scopes) = (Vec::new(), Vec::new());
    let chains = plan.listeners.values().flat_map(|own| own.chains.iter().map(move |chain| (own, chain)));
    for (listener, chain) in chains {
        if let Some(http) = chain.serves.http() {
            let target = route::Target { release: options.release, extensions: &plan.extensions };
            let form = form(listener.bind_port, chain);
            emit_chain_routes((listener, chain, http), form, target, (&mut routes, &mut scopes));
        }
    }
    let guard = filter::emit_guard(plan.guard.as_deref(), options.release);
    let clients = clients::emit_clients(plan.clients.as_deref()).filter_map(|(_, part)| part);
    let extensions = filter::emit_extensions(&plan.extensions, options.release).chain([guard]).chain(clients);
    Snapshot::new()
        .with(ResourceType::Cluster, clusters)
        .with(ResourceType::Endpoint, endpoints)
        .with(ResourceType::Listener, listeners)
        .with(ResourceType::Extension, extensions)
        .with(ResourceType::ScopedRoute, scopes)
        .with(ResourceType::Route, routes)
        .with(ResourceType::Secret, secrets)
}

/// The policies of a plan that a release cannot do.
///
/// # Cost
/// Linear in routes and upstreams; [`Emitter::beyond`] knows it of what it made.
#[must_use]
pub fn beyond(plan: &GatewayPlan, release: EnvoyRelease) -> BTreeSet<Beyond> {
    let chains = plan.listeners.values().flat_map(|listener| &listener.chains);
    let hosts = chains.filter_map(|chain| chain.serves.http()).flat_map(|http| &http.virtual_hosts);
    let of_routes = hosts.flat_map(|host| route::beyond(host, release));
    of_routes.chain(plan.upstreams.values().flat_map(|upstream| filter::beyond_at(upstream, release))).collect()
}

/// Whether gateways of a release can be given a destination as it is, with its endpoints.
#[must_use]
pub fn is_served_whole(upstream: &Upstream, release: EnvoyRelease) -> bool {
    matches!(filter::as_served(upstream, release), Cow::Borrowed(_))
}

fn emit_chain_routes(
    (listener, chain, http): (&Listener, &Chain, &HttpHosts),
    form: Form,
    target: route::Target<'_>,
    (routes, scopes): (&mut Vec<Resource>, &mut Vec<Resource>),
) {
    let encode = |host: &Arc<VirtualHost>| (layout::Place::of(&host.domain), route::encode_host(host, target));
    let hosts: Vec<_> = http.virtual_hosts.iter().map(encode).collect();
    let misdirected = layout::encode_all_misdirected(http, form);
    for piece in form.pieces() {
        let own = hosts.iter().filter(|(place, _)| piece.has(*place)).map(|(_, host)| host);
        let own = own.chain(misdirected.get(&piece));
        let name = piece.name(listener.bind_port, chain);
        if piece != layout::Piece::Whole {
            if own.clone().next().is_none() {
                continue;
            }
            scopes.push(layout::emit_scope(&name, chain));
        }
        let owners = route::owners(&chain.gateways, own.clone());
        let removed = layout::headers_to_remove(piece, listener.purpose == Purpose::Mesh);
        routes.push(route::emit_route_configuration(name, removed, own, owners));
    }
}
