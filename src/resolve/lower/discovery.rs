//! Services, slices, Pods, Nodes, and destinations made of them.

use std::net::IpAddr;

use crate::crd::core as k8s;
use crate::crd::{Object, destination as written};
use crate::ir::upstream::UpstreamProtocol;
use crate::model::{Code, FieldPath, Finding, Findings, Host, Kind, Name, ObjectRef};
use crate::resolve::facts::{
    Account, Age, ClientMode, Node, Pod, Port, Secret, Service, ServicePort, Slice, SliceEndpoint, VirtualDestination,
    VirtualPort,
};
use crate::resolve::own_host::may_reach_itself;

use super::{
    labels, lower_client_mode, lower_port, lower_selector, not_applicable, optional, port_number, stands_twice,
};

pub(super) fn service(object: &Object, spec: &k8s::Service, findings: &mut Findings) -> Service {
    let id = &object.meta.id;
    let mut ports = Vec::with_capacity(spec.spec.ports.len());
    for (index, written) in spec.spec.ports.iter().enumerate() {
        let field = FieldPath::new("spec.ports").index(index);
        let number = match port_number(written.port) {
            Ok(number) => number,
            Err(message) => {
                findings.push(Finding::warning(id, Code::InvalidField, message).at(field.field("port")));
                continue;
            }
        };
        let target = match &written.target_port {
            Some(k8s::IntOrString::Int(port)) => port_number(*port).map_or(Port::Number(number), Port::Number),
            Some(k8s::IntOrString::String(text)) => match text.parse::<u32>().map(port_number) {
                Ok(Ok(port)) => Port::Number(port),
                _ if text.is_empty() => Port::Number(number),
                _ => Port::Name(text.into()),
            },
            // What an API server would supply.
            None => Port::Number(number),
        };
        ports.push(ServicePort {
            name: (&written.name).into(),
            number,
            target,
            protocol: protocol(&written.app_protocol, &written.name),
            is_stream: matches!(
                said_protocol(&written.app_protocol, &written.name).as_str(),
                "tcp" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql"
            ),
            tcp: matches!(written.protocol.as_str(), "" | "TCP"),
            node_port: port_number(written.node_port).ok(),
        });
    }
    Service {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        labels: object.meta.labels.clone(),
        selector: labels(&spec.spec.selector),
        ports,
        outside: outside(spec),
        addresses: addresses(spec),
        alias: optional(&spec.spec.external_name).filter(|_| spec.spec.r#type == "ExternalName"),
    }
}

/// What the cluster gave it; none for a headless Service.
fn addresses(spec: &k8s::Service) -> Vec<IpAddr> {
    let written = [&spec.spec.cluster_ip].into_iter().chain(&spec.spec.cluster_ips);
    let mut addresses: Vec<IpAddr> =
        written.filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical())).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// R14: a load balancer's addresses come before others.
fn outside(spec: &k8s::Service) -> Vec<Name> {
    let balancers = &spec.status.load_balancer.ingress;
    let balanced = balancers.iter().filter_map(|at| optional(&at.ip).or_else(|| optional(&at.hostname)));
    let balanced: Vec<Name> = balanced.collect();
    if balanced.is_empty() { spec.spec.external_ips.iter().map(Name::from).collect() } else { balanced }
}

/// `appProtocol`, else the port name's first part (`grpc-api`).
fn said_protocol(app_protocol: &str, name: &str) -> String {
    let text = if app_protocol.is_empty() { name.split('-').next().unwrap_or_default() } else { app_protocol };
    text.to_ascii_lowercase()
}

/// `None` for TLS.
fn protocol(app_protocol: &str, name: &str) -> Option<UpstreamProtocol> {
    match said_protocol(app_protocol, name).as_str() {
        "grpc" | "http2" | "h2c" | "kubernetes.io/h2c" => Some(UpstreamProtocol::Http2),
        "https" | "tls" => None,
        _ => Some(UpstreamProtocol::Http1),
    }
}

/// The Service that a slice is of.
pub(crate) fn service_of_slice(slice: &Object) -> Option<ObjectRef> {
    let (id, service) = (&slice.meta.id, slice.meta.labels.get("kubernetes.io/service-name")?);
    Some(ObjectRef::new(Kind::Service, &id.cluster, &id.namespace, service))
}

pub(super) fn slice(object: &Object, spec: &k8s::EndpointSlice) -> Option<Slice> {
    let id = &object.meta.id;
    let service = service_of_slice(object)?;
    let endpoints = spec
        .endpoints
        .iter()
        .map(|endpoint| SliceEndpoint {
            addresses: endpoint.addresses.iter().map(Name::from).collect(),
            pod: endpoint.target_ref.as_ref().filter(|target| matches!(target.kind.as_str(), "" | "Pod")).map(
                |target| {
                    let namespace = optional(&target.namespace).unwrap_or_else(|| id.namespace.clone());
                    ObjectRef::new(Kind::Pod, &id.cluster, namespace, &target.name)
                },
            ),
            node: optional(&endpoint.node_name),
            zone: optional(&endpoint.zone),
            // R12: an absent condition counts as ready, as Kubernetes has it.
            is_ready: endpoint.conditions.ready != Some(false) && endpoint.conditions.terminating != Some(true),
        })
        .collect();
    Some(Slice {
        id: id.clone(),
        service,
        ports: spec
            .ports
            .iter()
            .filter_map(|port| Some((Name::from(&port.name), port_number(port.port?).ok()?)))
            .collect(),
        endpoints,
    })
}

pub(super) fn pod(object: &Object, spec: &k8s::Pod) -> Pod {
    let mut addresses: Vec<Name> = spec.status.pod_ips.iter().map(|ip| Name::from(&ip.ip)).collect();
    if addresses.is_empty() {
        addresses.extend(optional(&spec.status.pod_ip));
    }
    let not_ready = spec.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "False");
    let has_ended = matches!(spec.status.phase.as_str(), "Succeeded" | "Failed");
    Pod {
        id: object.meta.id.clone(),
        labels: object.meta.labels.clone(),
        service_account: optional(&spec.spec.service_account_name).unwrap_or_else(|| "default".into()),
        addresses,
        node: optional(&spec.spec.node_name),
        ports: spec
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .filter_map(|port| Some((optional(&port.name)?, port_number(port.container_port).ok()?)))
            .collect(),
        ready: !not_ready && !has_ended && spec.status.phase != "Pending",
        // One that is being set up sends requests too.
        is_client: !spec.spec.host_network && !has_ended,
        has_ended,
    }
}

pub(super) fn account(object: &Object) -> Account {
    let id = object.meta.id.clone();
    Account { age: Age::new(object.meta.created, &id), labels: object.meta.labels.clone(), id }
}

/// R13, R14.
pub(super) fn node(object: &Object, spec: &k8s::Node) -> Node {
    let of_type = |wanted: &str| -> Vec<Name> {
        let own = spec.status.addresses.iter().filter(|address| address.r#type == wanted);
        own.map(|address| Name::from(&address.address)).collect()
    };
    let external = of_type("ExternalIP");
    let pick = |keys: [&str; 2]| keys.iter().find_map(|key| object.meta.labels.get(*key)).cloned().unwrap_or_default();
    Node {
        id: object.meta.id.clone(),
        region: pick(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        zone: pick(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        sub_zone: object.meta.labels.get("topology.istio.io/subzone").cloned().unwrap_or_default(),
        addresses: if external.is_empty() { of_type("InternalIP") } else { external },
    }
}

/// R159, R162, R163.
pub(super) fn virtual_destination(
    object: &Object,
    spec: &written::VirtualDestination,
    findings: &mut Findings,
) -> VirtualDestination {
    let id = &object.meta.id;
    let mut hosts = Vec::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = FieldPath::new("spec.hosts").index(index);
        match Host::parse(host) {
            Ok(_) if host.parse::<IpAddr>().is_ok() => {
                let message = format!("`{host}` is an address, which clients dial without asking for it: write a name");
                findings.push(Finding::error(id, Code::InvalidField, message).at(field));
            }
            Ok(_) if may_reach_itself(host) => {
                let message = format!("by `{host}` clients reach themselves and no gateway: write another name");
                findings.push(Finding::error(id, Code::InvalidField, message).at(field));
            }
            Ok(host) if hosts.contains(host.name()) => findings.push(stands_twice(id, &host, field)),
            Ok(host) if !host.is_wildcard() => hosts.push(host.name().clone()),
            Ok(_) => findings.push(
                Finding::error(
                    id,
                    Code::InvalidField,
                    format!("`{host}` has a wildcard, which a virtual destination cannot have"),
                )
                .at(field),
            ),
            Err(error) => findings.push(Finding::error(id, Code::InvalidField, error.to_string()).at(field)),
        }
    }
    let nothing = spec.hosts.is_empty()
        && spec.services.is_empty()
        && spec.external_services.is_empty()
        && spec.external_workloads.is_empty();
    if nothing {
        let message = "write at least one of `hosts`, `services`, `externalServices` and `externalWorkloads`";
        findings.push(Finding::error(id, Code::InvalidField, message).at(FieldPath::new("spec")));
    }
    if spec.ports.is_empty() {
        findings.push(
            Finding::error(id, Code::InvalidField, "the virtual destination has no port: write at least one")
                .at(FieldPath::new("spec.ports")),
        );
    }
    if !spec.external_workloads.is_empty() {
        not_applicable(object, "externalWorkloads", "workloads outside clusters are not supported", findings);
    }
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (index, written) in spec.ports.iter().enumerate() {
        let field = FieldPath::new("spec.ports").index(index);
        let mut error = |at: FieldPath, message: String| {
            findings.push(Finding::error(id, Code::InvalidField, message).at(at));
        };
        let number = match port_number(written.number) {
            Ok(number) if ports.iter().any(|other: &VirtualPort| other.number == number) => {
                error(field.field("number"), format!("port {number} stands twice: the first counts"));
                continue;
            }
            Ok(number) => number,
            Err(message) => {
                error(field.field("number"), message);
                continue;
            }
        };
        if spec.services.is_empty() && spec.external_services.is_empty() && written.target_port.is_some() {
            let message = "`targetPort` is a port of what is selected, and nothing is: leave it out, or write `services` or `externalServices`";
            error(field.field("targetPort"), message.to_owned());
        }
        let target = match written.target_port.as_ref().map(lower_port) {
            Some(Err(message)) => {
                error(field.field("targetPort"), message);
                continue;
            }
            Some(Ok(Some(port))) => port,
            Some(Ok(None)) | None => Port::Number(number),
        };
        let protocol = match written.protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTPS" | "TLS" => Some(UpstreamProtocol::Http1),
            "GRPC" | "HTTP2" => Some(UpstreamProtocol::Http2),
            "TCP" | "MONGO" => None,
            other => {
                error(
                    field.field("protocol"),
                    format!("`{other}` is no protocol: write HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS"),
                );
                continue;
            }
        };
        ports.push(VirtualPort { number, target, protocol, is_tls: is_tls(&written.protocol) });
    }
    VirtualDestination {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        labels: object.meta.labels.clone(),
        hosts,
        services: spec.services.iter().map(lower_selector).collect(),
        external: spec.external_services.iter().map(lower_selector).collect(),
        ports,
        client_mode: client_mode(id, spec, findings),
    }
}

/// Whether a port's protocol says that its Pods speak TLS.
fn is_tls(protocol: &str) -> bool {
    matches!(protocol.to_ascii_uppercase().as_str(), "HTTPS" | "TLS")
}

/// R168, D26.
fn client_mode(id: &ObjectRef, spec: &written::VirtualDestination, findings: &mut Findings) -> Option<ClientMode> {
    let mode = spec.client_mode.as_ref().and_then(lower_client_mode)?;
    if let Some(port) = spec.ports.iter().find(|port| mode == ClientMode::Pod && !is_tls(&port.protocol)) {
        let message = format!(
            "`sniRouting` has no effect on port {}, whose protocol is neither HTTPS nor TLS: its Pods end no TLS, so the gateway that receives it does",
            port.number
        );
        let at = FieldPath::new("spec.clientMode.sniRouting");
        findings.push(Finding::warning(id, Code::NotApplicable, message).at(at));
    }
    Some(mode)
}

pub(super) fn secret(object: &Object, spec: &k8s::Secret) -> Secret {
    let data = spec.data.iter().map(|(key, value)| (key.into(), value.clone())).collect();
    let id = object.meta.id.clone();
    let age = Age::new(object.meta.created, &id);
    Secret { id, age, labels: object.meta.labels.clone(), kind: spec.r#type.as_str().into(), data }
}
