//! Names of resources: stable, independent of content, readable in a dump of Envoy.
//!
//! | resource | name |
//! |---|---|
//! | listener | `listener/<bound port>` |
//! | route configuration | `route/<bound port>`; of a TLS chain `route/<bound port>/<first host>`; of a part `…/<three hexadecimal digits>` |
//! | scope | as the route configuration that it leads to |
//! | secret | `secret/<cluster>/<namespace>/<name>`; authorities `…/ca` |
//! | own certificate, roots of trust | `trust/identity`, `trust/roots`: whoever signs, no listener changes |
//! | endpoints | as their cluster; where that has transports, or is a guarded group, with `@` and their hash: no cluster takes endpoints of others |
//! | cluster | `svc/<cluster>/<namespace>/<name>/<port>[/<subset>]`; `vd/…` and `es/…` likewise; `#http` or `#grpc` at the end where filters ask it, `#tcp` for whole connections, `#crossing` and the like where gateways of other clusters do |
//! | cluster outside the mesh | `dial/<host>/<port>`, with `#tls` and `#grpc` at the end |
//!
//! At the end of a virtual destination's cluster stands `+` and a hash of the guarded Services behind it, if there are some:
//! routes that know nothing of them never lead to them.
//!
//! A subset is written out, `version=v1,zone=a`, or where that is long, `~` and its hash. Names of Kubernetes objects
//! hold none of `/`, `~`, `#`, `@` and `+`, and a label never begins with `~`, so different things have different names.
//!
//! # Rule
//! The manual's conventions, "Names"; R57 for listeners that share a port.

use std::fmt::Write as _;

use crate::ir::UpstreamId;
use crate::ir::secret::{SecretId, SecretPart};
use crate::ir::upstream::{Dial, Server};
use crate::model::{Kind, Labels, Name};
use crate::snapshot::Version;

/// Subsets longer than this are hashed; cluster names stand in every route that uses them.
const LONGEST_SUBSET: usize = 63;

/// The listener of a bound port.
pub(crate) fn listener(bind_port: u16) -> Name {
    format!("listener/{bind_port}").into()
}

/// The routes of a chain of a bound port.
pub(crate) fn route_configuration(bind_port: u16, chain: &str) -> Name {
    if chain.is_empty() { format!("route/{bind_port}").into() } else { format!("route/{bind_port}/{chain}").into() }
}

/// The gateway's own certificate in the mesh.
pub(super) const IDENTITY: &str = "trust/identity";

/// What gateways trust each other by.
pub(super) const ROOTS: &str = "trust/roots";

/// A part of a Secret.
pub(crate) fn secret(id: &SecretId) -> Name {
    let object = &id.object;
    let part = match id.part {
        SecretPart::KeyPair => "",
        SecretPart::Trust => "/ca",
        SecretPart::Identity => return IDENTITY.into(),
        SecretPart::Roots => return ROOTS.into(),
    };
    format!("secret/{}/{}/{}{part}", object.cluster, object.namespace, object.name).into()
}

/// The cluster of an upstream.
pub(crate) fn cluster(upstream: &UpstreamId) -> Name {
    let object = &upstream.object;
    let prefix = match object.kind {
        Kind::Service => "svc",
        Kind::VirtualDestination => "vd",
        Kind::ExternalService => "es",
        other => other.plural(),
    };
    let mut name = format!("{prefix}/{}/{}/{}/{}", object.cluster, object.namespace, object.name, upstream.port);
    if !upstream.subset.is_empty() {
        name.push('/');
        name.push_str(&subset(&upstream.subset));
    }
    name.push_str(upstream.purpose.suffix());
    if !upstream.edition.is_plain() {
        let _ = write!(name, "+{}", upstream.edition);
    }
    name.into()
}

/// The endpoints of a cluster with transports.
pub(super) fn endpoints(cluster: &Name, transports: &Version) -> Name {
    format!("{cluster}@{transports}").into()
}

/// The cluster of an address outside the mesh.
pub(crate) fn dial(dial: &Dial) -> Name {
    let tls = if dial.tls { "#tls" } else { "" };
    let http2 = if dial.http2 { "#grpc" } else { "" };
    format!("dial/{}/{}{tls}{http2}", dial.host, dial.port).into()
}

/// The cluster of what a filter asks.
pub(crate) fn server(server: &Server) -> Name {
    match server {
        Server::Upstream(upstream) => cluster(upstream),
        Server::Dial(address) => dial(address),
    }
}

/// What a filter calls a server itself: names of clusters are no hosts, and servers refuse them (HTTP/2 as a protocol error).
pub(crate) fn authority(server: &Server) -> String {
    match server {
        Server::Upstream(id) => format!("{}.{}:{}", id.object.name, id.object.namespace, id.port),
        Server::Dial(dial) if dial.host.contains(':') => format!("[{}]:{}", dial.host, dial.port),
        Server::Dial(dial) => format!("{}:{}", dial.host, dial.port),
    }
}

/// The name of an upstream in Envoy's statistics: short, because it stands in dozens of them.
///
/// A Service of the gateway's own cluster is `namespace/name/port`; everything else keeps the name of its cluster, whoever is
/// behind it.
pub(crate) fn stat(upstream: &UpstreamId, gateway_cluster: &str) -> String {
    let full = cluster(&upstream.of_any_edition());
    let own = format!("svc/{gateway_cluster}/");
    full.strip_prefix(own.as_str()).unwrap_or(&full).to_owned()
}

fn subset(labels: &Labels) -> String {
    let text = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    if text.len() <= LONGEST_SUBSET { text } else { format!("~{}", Version::of_content(text.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectRef;

    fn id(kind: Kind, subset: &[(&str, &str)]) -> UpstreamId {
        UpstreamId {
            subset: subset.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect(),
            ..UpstreamId::new(&ObjectRef::new(kind, "cluster-1", "shop", "cart"), 80)
        }
    }

    #[test]
    fn names_read_well_and_differ() {
        let long = "a-value-that-goes-on-and-on-for-sixty-characters-or-so-really";
        for (upstream, expected) in [
            (id(Kind::Service, &[]), "svc/cluster-1/shop/cart/80"),
            (id(Kind::VirtualDestination, &[]), "vd/cluster-1/shop/cart/80"),
            (id(Kind::ExternalService, &[]), "es/cluster-1/shop/cart/80"),
            (id(Kind::Service, &[("v", "1"), ("app.io/tier", "")]), "svc/cluster-1/shop/cart/80/app.io/tier=,v=1"),
            (id(Kind::Service, &[("label", long)]), "svc/cluster-1/shop/cart/80/~awcj2w1brxdw"),
        ] {
            assert_eq!(cluster(&upstream), expected);
        }
    }

    #[test]
    fn stat_names_are_short_at_home() {
        let subset = id(Kind::Service, &[("v", "1")]);
        assert_eq!(stat(&subset, "cluster-1"), "shop/cart/80/v=1");
        assert_eq!(stat(&subset, "cluster-2"), "svc/cluster-1/shop/cart/80/v=1");
        assert_eq!(stat(&id(Kind::VirtualDestination, &[]), "cluster-1"), "vd/cluster-1/shop/cart/80");
    }
}
