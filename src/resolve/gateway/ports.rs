//! Which listeners share which bound port of a gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Code, FieldPath, Finding, Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::facts::{GatewayListener, ListenerProtocol, Port, Service, VirtualGateway};
use crate::resolve::world::World;

use super::{find_port, is_implemented_by};

/// What one bound port of a gateway is made of.
pub(super) struct BoundPort {
    pub(super) protocol: ListenerProtocol,
    /// The virtual gateway whose listener decided on the protocol.
    oldest: ObjectRef,
    pub(super) service_ports: BTreeSet<u16>,
    pub(super) gateways: Vec<ObjectRef>,
    /// Those that are programmed, in age order, and with TLS those too that cannot be.
    pub(super) listeners: Vec<BoundListener>,
    first_hosts: BTreeMap<Name, (ObjectRef, usize)>,
}

/// One listener of a virtual gateway on a bound port.
#[derive(Clone, Debug)]
pub(super) struct BoundListener {
    pub(super) gateway: Arc<VirtualGateway>,
    pub(super) listener: GatewayListener,
}

impl BoundListener {
    /// The key of [`Bindings`](super::Bindings).
    pub(super) fn key(&self) -> (ObjectRef, usize) {
        (self.gateway.id.clone(), self.listener.index)
    }

    pub(super) fn field(&self) -> FieldPath {
        FieldPath::new("spec.listeners").index(self.listener.index)
    }
}

/// The ports that a gateway binds, with the listeners on each (R53 to R57).
pub(super) fn bound_ports<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    findings: &mut Findings,
) -> BTreeMap<u16, BoundPort> {
    let mut ports: BTreeMap<u16, BoundPort> = BTreeMap::new();
    let services: Vec<Arc<Service>> = gateway
        .services
        .iter()
        .filter_map(|name| world.service(&ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name)))
        .collect();
    for virtual_gateway in world.virtual_gateways() {
        for service in &services {
            if !is_implemented_by(world, &virtual_gateway, service) {
                continue;
            }
            for listener in &virtual_gateway.listeners {
                let field = FieldPath::new("spec.listeners").index(listener.index);
                let Some(port) = find_port(service, &listener.port) else {
                    if virtual_gateway.workloads.is_some() {
                        findings.push(
                            Finding::warning(
                                &virtual_gateway.id,
                                Code::ListenerPort,
                                format!(
                                    "`{}` has no port {}; the listener is left out there",
                                    service.id,
                                    listener.port_text()
                                ),
                            )
                            .at(field.field("port"))
                            .with(&service.id),
                        );
                    }
                    continue;
                };
                let Port::Number(bind_port) = port.target else {
                    findings.push(
                        Finding::warning(
                            &virtual_gateway.id,
                            Code::ListenerPort,
                            format!("port {} of `{}` has a named `targetPort`, Envoy binds numbers; the listener is left out there", port.number, service.id),
                        )
                        .at(field.field("port"))
                        .with(&service.id),
                    );
                    continue;
                };
                add_listener(&mut ports, bind_port, port.number, &virtual_gateway, listener, &field, findings);
            }
        }
    }
    ports
}

/// Adds a listener to its port, unless an older one excludes it (R55, R56).
fn add_listener(
    ports: &mut BTreeMap<u16, BoundPort>,
    bind_port: u16,
    service_port: u16,
    virtual_gateway: &Arc<VirtualGateway>,
    listener: &GatewayListener,
    field: &FieldPath,
    findings: &mut Findings,
) {
    let bound = ports.entry(bind_port).or_insert_with(|| BoundPort {
        protocol: listener.protocol,
        oldest: virtual_gateway.id.clone(),
        service_ports: BTreeSet::new(),
        gateways: Vec::new(),
        listeners: Vec::new(),
        first_hosts: BTreeMap::new(),
    });
    let own = (virtual_gateway.id.clone(), listener.index);
    if bound.protocol != listener.protocol {
        findings.push(
            Finding::error(
                &virtual_gateway.id,
                Code::ListenerConflict,
                format!(
                    "port {} already carries {} for an older listener of `{}`, and this one wants {}; use another port",
                    listener.port_text(),
                    bound.protocol.as_str(),
                    bound.oldest,
                    listener.protocol.as_str()
                ),
            )
            .at(field.clone())
            .with(&bound.oldest),
        );
        return;
    }
    match bound.first_hosts.get(&listener.first_host) {
        Some(older) if *older != own => {
            findings.push(
                Finding::error(
                    &virtual_gateway.id,
                    Code::ListenerConflict,
                    format!(
                        "an older listener of `{}` has the same port and first host `{}`; change one of the two",
                        older.0, listener.first_host
                    ),
                )
                .at(field.clone())
                .with(&older.0),
            );
            return;
        }
        Some(_) => {}
        None => {
            bound.first_hosts.insert(listener.first_host.clone(), own.clone());
        }
    }
    let is_tls = matches!(listener.protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
    if listener.fault.is_some() && !is_tls {
        // It keeps its port from younger listeners of another protocol, and serves nothing.
        return;
    }
    if listener.fault.is_some() {
        // It keeps its server names too, and closes them.
        if !bound.listeners.iter().any(|known| known.key() == own) {
            bound.listeners.push(BoundListener { gateway: virtual_gateway.clone(), listener: listener.clone() });
        }
        return;
    }
    bound.service_ports.insert(service_port);
    if !bound.gateways.contains(&virtual_gateway.id) {
        bound.gateways.push(virtual_gateway.id.clone());
    }
    if !bound.listeners.iter().any(|known| known.key() == own) {
        bound.listeners.push(BoundListener { gateway: virtual_gateway.clone(), listener: listener.clone() });
    }
}
