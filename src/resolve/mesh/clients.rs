//! Who the clients inside a cluster are, by their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::client::{Client, Clients};
use crate::model::labels::contains_all;
use crate::model::{Code, Finding, Findings, Labels, Name, ObjectRef};
use crate::resolve::LoopbackEndpoints;
use crate::resolve::eastwest::serves_clients;
use crate::resolve::facts::{Selector, Service, VirtualGateway};
use crate::resolve::gateway::implements_a_port;
use crate::resolve::own_host::is_unsafe;
use crate::resolve::world::World;

/// The Pods of a namespace that send requests, with their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Those of gateways are nobody's.
    clients: Vec<(IpAddr, ObjectRef, Option<Client>)>,
    findings: Findings,
}

/// The clients in one namespace of a cluster. Pods of gateways are none: whoever can make a gateway send to another would be
/// the gateway's workspace there.
///
/// # Findings
/// [`Code::ClientLeftOut`] on Pods whose address says nothing.
///
/// # Cost
/// In proportion to the Pods and Services of the namespace, and to the virtual gateways.
///
/// # Rule
/// R186.
pub fn in_namespace<W: World + ?Sized>(world: &W, cluster: &Name, namespace: &Name) -> Pods {
    let mut found = Pods::default();
    let Some(ownership) = world.roster().owner(cluster, namespace) else { return found };
    let gateways = gateway_services(world, cluster, namespace);
    let is_gateway = |labels: &Labels| gateways.iter().any(|gateway| contains_all(labels, &gateway.selector));
    let allows_loopback = world.options().loopback_endpoints == LoopbackEndpoints::Allowed;
    for pod in world.pods(cluster, namespace).iter().filter(|pod| pod.is_client) {
        let client = Client {
            workspace: ownership.workspace.clone(),
            namespace: namespace.clone(),
            account: pod.service_account.clone(),
        };
        // What stands in a header must be one value of three parts.
        let is_plain = |name: &Name| name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b','));
        if ![&client.workspace.0, &client.namespace, &client.account].into_iter().all(is_plain) {
            let message = "the names of its workspace, namespace and service account hold characters that names of Kubernetes do not, so its requests to east-west gateways get 404";
            found.findings.push(Finding::warning(&pod.id, Code::ClientLeftOut, message));
            continue;
        }
        let client = Some(client).filter(|_| !is_gateway(&pod.labels));
        for address in &pod.addresses {
            match address.parse::<IpAddr>() {
                Ok(ip) if allows_loopback || !is_unsafe(ip) => {
                    found.clients.push((ip.to_canonical(), pod.id.clone(), client.clone()));
                }
                _ => {
                    let message = format!(
                        "requests from `{address}` are not known to be the Pod's, so they get 404 on east-west gateways: it is no address, or one of the gateway's own host"
                    );
                    found.findings.push(Finding::warning(&pod.id, Code::ClientLeftOut, message));
                }
            }
        }
    }
    found
}

/// The gateway Services of a namespace. What their Pods send is what others had them send, and not their workspace's.
fn gateway_services<W: World + ?Sized>(world: &W, cluster: &Name, namespace: &Name) -> Vec<Arc<Service>> {
    let here = Selector { namespace: Some(namespace.clone()), cluster: Some(cluster.clone()), ..Selector::default() };
    let virtual_gateways = world.virtual_gateways();
    let mut services = world.services(&here);
    services.retain(|service| {
        let implements = |gateway: &Arc<VirtualGateway>| implements_a_port(world, gateway, service);
        serves_clients(world.roster(), service) || virtual_gateways.iter().any(implements)
    });
    services
}

/// The namespaces of a cluster whose Pods are clients.
pub fn namespaces<W: World + ?Sized>(world: &W, cluster: &Name) -> BTreeSet<Name> {
    world.roster().namespaces_in(cluster).cloned().collect()
}

/// The clients of a cluster. An address of Pods that are not alike in workspace, namespace and account is nobody's.
///
/// # Findings
/// Those of [`in_namespace`], and [`Code::ClientLeftOut`] on Pods that share an address.
#[must_use]
pub fn in_cluster<'p>(namespaces: impl Iterator<Item = &'p Pods>) -> (Arc<Clients>, Findings) {
    let mut by_address: BTreeMap<IpAddr, Vec<(&ObjectRef, &Option<Client>)>> = BTreeMap::new();
    let mut findings = Findings::new();
    for found in namespaces {
        findings.extend(found.findings.iter().cloned());
        for (address, pod, client) in &found.clients {
            by_address.entry(*address).or_default().push((pod, client));
        }
    }
    let mut clients = Clients::default();
    for (address, pods) in by_address {
        let (first, client) = pods[0];
        let Some((other, _)) = pods.iter().find(|(_, other)| *other != client) else {
            clients.0.extend(client.clone().map(|client| (address, client)));
            continue;
        };
        for (pod, _) in &pods {
            let beside = if *pod == first { other } else { &first };
            let message = format!(
                "`{beside}` has the address {address} too, so nobody knows whose requests come from there: they get 404 on east-west gateways"
            );
            findings.push(Finding::warning(pod, Code::ClientLeftOut, message).with(beside));
        }
    }
    (Arc::new(clients), findings)
}
