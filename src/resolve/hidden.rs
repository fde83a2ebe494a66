//! Names and addresses by which gateways would reach what a workspace may not use.
//!
//! Authors write names and addresses of servers, and a gateway asks the DNS server of its cluster about them, as they are
//! written: no search list makes another name of one. So a name means something in a gateway's cluster alone, and what
//! somebody calls a Service of his in another cluster ends nobody's policy.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::labels::contains_all;
use crate::model::{Kind, Name, ObjectRef, WorkspaceId};

use super::facts::{Selector, Service};
use super::visibility::is_visible;
use super::world::World;

/// What the DNS server of a cluster makes of a name below the cluster's domain.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A Service, or a Pod of it, by name and namespace.
    Service(Name, Name),
    /// A Pod by its address.
    Pod(IpAddr),
}

/// What a name or address must not lead to.
#[derive(Clone, Copy)]
enum Barred<'o> {
    /// What a workspace neither owns nor is given.
    Hidden(&'o WorkspaceId),
    /// What a workspace does not own.
    Foreign(&'o WorkspaceId),
}

/// Whether a host leads gateways of a cluster to something that a workspace neither owns nor is given: a Service by its name
/// or its own address, a Pod by its name or address.
///
/// Names below the domain of other clusters mean these clusters, if the gateway's has another one. What other names lead to
/// nobody knows before a gateway looks them up.
///
/// # Rule
/// R37.
pub fn leads_to_hidden<W: World + ?Sized>(world: &W, owner: &WorkspaceId, cluster: &Name, host: &str) -> bool {
    leads_to(world, Barred::Hidden(owner), cluster, host)
}

/// Whether a host leads gateways of a cluster to something of another workspace, shared or not: past the policies and the
/// isolation of its owner, which hold for who names the Service itself. Otherwise as [`leads_to_hidden`].
///
/// # Rule
/// R37, R47.
pub fn leads_to_others<W: World + ?Sized>(world: &W, owner: &WorkspaceId, cluster: &Name, host: &str) -> bool {
    leads_to(world, Barred::Foreign(owner), cluster, host)
}

fn leads_to<W: World + ?Sized>(world: &W, barred: Barred<'_>, cluster: &Name, host: &str) -> bool {
    if let Ok(address) = host.parse() {
        return is_barred_at(world, barred, cluster, address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let clusters = &world.roster().clusters;
    let own = clusters.get(cluster).and_then(|own| below(&host, &own.domain));
    let meant: Vec<(&Name, &str)> = match own {
        Some(head) => vec![(cluster, head)],
        None => clusters.iter().filter_map(|(name, other)| Some((name, below(&host, &other.domain)?))).collect(),
    };
    meant.into_iter().any(|(cluster, head)| match meaning(head) {
        Some(Meaning::Service(name, namespace)) => {
            let id = ObjectRef::new(Kind::Service, cluster, namespace, name);
            world.service(&id).is_some_and(|service| is_barred(world, barred, &service))
        }
        Some(Meaning::Pod(address)) => is_barred_at(world, barred, cluster, address),
        None => false,
    })
}

/// What of a host stands before a domain.
fn below<'h>(host: &'h str, domain: &str) -> Option<&'h str> {
    host.strip_suffix(&domain.to_ascii_lowercase())?.strip_suffix('.')
}

/// What a name means, in lower case and without the domain of its cluster.
fn meaning(head: &str) -> Option<Meaning> {
    let mut labels = head.rsplit('.');
    match (labels.next()?, labels.next()?, labels.next()) {
        // Before the Service may stand the name of one of its Pods, or of a port.
        ("svc", namespace, Some(name)) => Some(Meaning::Service(name.into(), namespace.into())),
        ("pod", _, Some(address)) => {
            let v4 = || address.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
            let address = v4().or_else(|_| address.replace('-', ":").parse());
            address.ok().map(Meaning::Pod)
        }
        _ => None,
    }
}

fn is_barred<W: World + ?Sized>(world: &W, barred: Barred<'_>, service: &Service) -> bool {
    match barred {
        Barred::Hidden(owner) => !is_visible(world, owner, &service.id, &service.labels),
        Barred::Foreign(owner) => world.roster().owner_of(&service.id) != Some(owner),
    }
}

/// Whether an address is that of a Service or Pod of a cluster that is barred. A Pod is not hidden from whoever sees a Service
/// that picks it.
fn is_barred_at<W: World + ?Sized>(world: &W, barred: Barred<'_>, cluster: &Name, address: IpAddr) -> bool {
    world.at_address(cluster, address.to_canonical()).iter().any(|id| match (id.kind, barred) {
        (Kind::Service, _) => world.service(id).is_some_and(|service| is_barred(world, barred, &service)),
        (_, Barred::Foreign(owner)) => world.roster().owner_of(id) != Some(owner),
        (_, Barred::Hidden(owner)) => {
            let Some(pod) = world.pod(id) else { return false };
            let beside = Selector {
                namespace: Some(id.namespace.clone()),
                cluster: Some(id.cluster.clone()),
                ..Selector::default()
            };
            let picks = |service: &Service| {
                !service.selector.is_empty()
                    && contains_all(&pod.labels, &service.selector)
                    && !is_barred(world, barred, service)
            };
            world.roster().owner_of(id) != Some(owner) && !world.services(&beside).iter().any(|service| picks(service))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r37_names_by_which_gateways_find_services_and_pods() {
        let service = |name: &str, namespace: &str| Some(Meaning::Service(name.into(), namespace.into()));
        for (head, expected) in [
            ("web.edge.svc", service("web", "edge")),
            ("web-0.web.edge.svc", service("web", "edge")),
            ("_http._tcp.web.edge.svc", service("web", "edge")),
            ("10-1-0-9.web.edge.svc", service("web", "edge")),
            ("10-1-0-9.edge.pod", Some(Meaning::Pod(IpAddr::from([10, 1, 0, 9])))),
            ("fd00--9.edge.pod", "fd00::9".parse().ok().map(Meaning::Pod)),
            ("web.edge.pod", None),
            ("edge.svc", None),
            ("svc", None),
            ("web.edge", None),
            ("", None),
        ] {
            assert_eq!(meaning(head), expected, "{head}");
        }
        assert_eq!(below("web.edge.svc.cluster.local", "Cluster.local"), Some("web.edge.svc"));
        assert_eq!(below("web.edge.svcluster.local", "cluster.local"), None);
        assert_eq!(below("cluster.local", "cluster.local"), None);
    }
}
