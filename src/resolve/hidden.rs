//! Names and addresses by which gateways would reach what a workspace may not use.
//!
//! Authors write names and addresses of servers, and a gateway asks the DNS server of its cluster about them, as they are
//! written: no search list makes another name of one. So a name means something in a gateway's cluster alone, and what
//! somebody calls a Service of his in another cluster ends nobody's policy.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::model::labels::contains_all;
use crate::model::{Kind, Name, ObjectRef, WorkspaceId};

use super::facts::{Selector, Service};
use super::own_host::{is_unsafe, may_reach_itself};
use super::visibility::is_visible;
use super::world::World;

/// What the DNS server of a cluster makes of a name below the cluster's domain.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A Service, or a Pod of it, by name and namespace.
    Service(Name, Name),
    /// A Service or Pod by its address.
    Address(IpAddr),
}

/// What a name or address must not lead to.
#[derive(Clone, Copy)]
enum Barred<'o> {
    /// What a workspace neither owns nor is given; for nobody, everything.
    Hidden(Option<&'o WorkspaceId>),
    /// What a workspace does not own.
    Foreign(&'o WorkspaceId),
}

impl<'o> Barred<'o> {
    fn owner(self) -> Option<&'o WorkspaceId> {
        match self {
            Self::Hidden(owner) => owner,
            Self::Foreign(owner) => Some(owner),
        }
    }
}

/// How many Services that stand for another name are followed. No DNS server follows as many.
const MOST_NAMES: usize = 8;

/// Whether a host leads gateways of a cluster to something that a workspace neither owns nor is given: a Service by its name
/// or its own address, a Pod by its name or address. A workspace that is gone owns nothing.
///
/// Names below the domain of other clusters mean these clusters, if the gateway's has another one. In a namespace of another
/// workspace a name that no Service has is as hidden as one that a Service has, so that nobody learns which there are. A
/// Service that stands for another name leads where that does, and where the addresses in its slices are. What other names
/// lead to nobody knows before a gateway looks them up; and what a Service shows outside its cluster, at a load balancer or
/// at `externalIPs`, is for whoever gets there.
///
/// # Rule
/// R37.
pub fn leads_to_hidden<W: World + ?Sized>(world: &W, owner: Option<&WorkspaceId>, cluster: &Name, host: &str) -> bool {
    Way { world, cluster, barred: Barred::Hidden(owner), names: MOST_NAMES }.leads_to_barred(host)
}

/// Whether a host leads gateways of a cluster to something of another workspace, shared or not: past the policies and the
/// isolation of its owner, which hold for who names the Service itself. Otherwise as [`leads_to_hidden`].
///
/// # Rule
/// R37, R47.
pub fn leads_to_others<W: World + ?Sized>(world: &W, owner: &WorkspaceId, cluster: &Name, host: &str) -> bool {
    Way { world, cluster, barred: Barred::Foreign(owner), names: MOST_NAMES }.leads_to_barred(host)
}

/// The Services that a host leads gateways of a cluster to, as [`leads_to_hidden`] finds them: by name, by address, or because
/// they pick the Pod.
///
/// # Rule
/// R37.
pub fn services_at<W: World + ?Sized>(world: &W, cluster: &Name, host: &str) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    Way { world, cluster, barred: Barred::Hidden(None), names: MOST_NAMES }.collect(host, &mut services);
    services.sort_by(|one, other| one.id.cmp(&other.id));
    services.dedup_by(|one, other| one.id == other.id);
    services
}

/// Whether a host that does not look so leads gateways of a cluster to their own host, because something that the control plane
/// knows stands for it: an `ExternalName`, also after others, an address in a slice, or a Pod's name. Any longer row of names
/// counts as one that does.
///
/// # Rule
/// R197.
pub fn stands_for_own_host<W: World + ?Sized>(world: &W, cluster: &Name, host: &str) -> bool {
    Way { world, cluster, barred: Barred::Hidden(None), names: MOST_NAMES }.leads_home(host)
}

/// From a cluster, along names.
struct Way<'a, W: World + ?Sized> {
    world: &'a W,
    cluster: &'a Name,
    barred: Barred<'a>,
    /// How many more are followed.
    names: usize,
}

impl<W: World + ?Sized> Way<'_, W> {
    fn leads_to_barred(&self, host: &str) -> bool {
        self.meanings(host).into_iter().any(|(cluster, meaning)| match meaning {
            Meaning::Service(name, namespace) => {
                let id = ObjectRef::new(Kind::Service, &cluster, namespace, name);
                match self.world.service(&id) {
                    Some(service) => self.is_barred(&service) || self.goes_on_to_barred(&service),
                    None => {
                        let owner = self.world.roster().owner_of(&id);
                        owner.is_some() && owner != self.barred.owner()
                    }
                }
            }
            Meaning::Address(address) => self.is_barred_at(&cluster, address),
        })
    }

    /// Whether something barred is behind a Service that is not.
    fn goes_on_to_barred(&self, service: &Service) -> bool {
        // Whoever shares it says where it leads.
        let barred = match (self.barred, self.world.roster().owner_of(&service.id)) {
            (Barred::Hidden(_), Some(owner)) => Barred::Hidden(Some(owner)),
            (barred, _) => barred,
        };
        let on = Way { barred, ..*self };
        slices_of(self.world, service).into_iter().any(|address| on.is_barred_at(&service.id.cluster, address))
            || service.alias.as_ref().is_some_and(|alias| match self.names {
                0 => true,
                more => Way { names: more - 1, ..on }.leads_to_barred(alias),
            })
    }

    fn leads_home(&self, host: &str) -> bool {
        self.meanings(host).into_iter().any(|(cluster, meaning)| {
            let (name, namespace) = match meaning {
                Meaning::Address(address) => return is_unsafe(address),
                Meaning::Service(name, namespace) => (name, namespace),
            };
            let Some(service) = self.world.service(&ObjectRef::new(Kind::Service, &cluster, namespace, name)) else {
                return false;
            };
            slices_of(self.world, &service).into_iter().any(is_unsafe)
                || service.alias.as_ref().is_some_and(|alias| match self.names {
                    0 => true,
                    more => may_reach_itself(alias) || Way { names: more - 1, ..*self }.leads_home(alias),
                })
        })
    }

    /// Adds the Services that a host leads to, on its way and in the end.
    fn collect(&self, host: &str, services: &mut Vec<Arc<Service>>) {
        let at = |cluster: &Name, address: IpAddr| -> Vec<Arc<Service>> {
            let found = self.world.at_address(cluster, address.to_canonical());
            let behind = found.iter().flat_map(|id| match id.kind {
                Kind::Service => self.world.service(id).into_iter().collect(),
                _ => picking(self.world, id),
            });
            behind.collect()
        };
        for (cluster, meaning) in self.meanings(host) {
            let (name, namespace) = match meaning {
                Meaning::Address(address) => {
                    services.extend(at(&cluster, address));
                    continue;
                }
                Meaning::Service(name, namespace) => (name, namespace),
            };
            let id = ObjectRef::new(Kind::Service, &cluster, namespace, name);
            let Some(service) = self.world.service(&id) else { continue };
            services.extend(slices_of(self.world, &service).into_iter().flat_map(|address| at(&cluster, address)));
            if let Some(alias) = service.alias.as_ref().filter(|_| self.names > 0) {
                Way { names: self.names - 1, ..*self }.collect(alias, services);
            }
            services.push(service);
        }
    }

    /// What a host means, each in its cluster.
    fn meanings(&self, host: &str) -> Vec<(Name, Meaning)> {
        if let Ok(address) = host.parse() {
            return vec![(self.cluster.clone(), Meaning::Address(address))];
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let clusters = &self.world.roster().clusters;
        let own = clusters.get(self.cluster).and_then(|own| below(&host, &own.domain));
        let heads: Vec<(&Name, &str)> = match own {
            Some(head) => vec![(self.cluster, head)],
            None => clusters.iter().filter_map(|(name, other)| Some((name, below(&host, &other.domain)?))).collect(),
        };
        heads.into_iter().filter_map(|(cluster, head)| Some((cluster.clone(), meaning(head)?))).collect()
    }

    fn is_barred(&self, service: &Service) -> bool {
        let roster = self.world.roster();
        match self.barred {
            Barred::Hidden(owner) => {
                owner.is_none_or(|owner| !is_visible(self.world, owner, &service.id, &service.labels))
            }
            Barred::Foreign(owner) => roster.owner_of(&service.id) != Some(owner),
        }
    }

    /// Whether an address is that of a Service or Pod of a cluster that is barred. A Pod is not hidden from whoever sees a
    /// Service that picks it.
    fn is_barred_at(&self, cluster: &Name, address: IpAddr) -> bool {
        let roster = self.world.roster();
        self.world.at_address(cluster, address.to_canonical()).iter().any(|id| match id.kind {
            Kind::Service => self.world.service(id).is_some_and(|service| self.is_barred(&service)),
            _ if self.barred.owner().is_some() && roster.owner_of(id) == self.barred.owner() => false,
            _ => match self.barred {
                Barred::Foreign(_) => true,
                Barred::Hidden(_) => picking(self.world, id).iter().all(|service| self.is_barred(service)),
            },
        })
    }
}

/// The addresses that are written into the slices of a Service.
fn slices_of<W: World + ?Sized>(world: &W, service: &Service) -> Vec<IpAddr> {
    let slices = world.slices(&service.id);
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
}

/// The Services beside a Pod that pick it.
fn picking<W: World + ?Sized>(world: &W, id: &ObjectRef) -> Vec<Arc<Service>> {
    let Some(pod) = world.pod(id) else { return Vec::new() };
    let (namespace, cluster) = (Some(id.namespace.clone()), Some(id.cluster.clone()));
    let beside = Selector { namespace, cluster, ..Selector::default() };
    let mut services = world.services(&beside);
    services.retain(|service| !service.selector.is_empty() && contains_all(&pod.labels, &service.selector));
    services
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
            address.ok().map(Meaning::Address)
        }
        _ => None,
    }
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
            ("10-1-0-9.edge.pod", Some(Meaning::Address(IpAddr::from([10, 1, 0, 9])))),
            ("fd00--9.edge.pod", "fd00::9".parse().ok().map(Meaning::Address)),
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
