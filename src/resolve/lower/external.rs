//! External services and their endpoints.

use std::net::IpAddr;

use crate::crd::destination as written;
use crate::crd::destination::ClientsideTlsMode;
use crate::crd::{Object, common};
use crate::ir::client_tls::{Origination, Shows, Trusts};
use crate::ir::upstream::{Locality, UpstreamProtocol, is_crossing_name};
use crate::model::{Code, FieldPath, Finding, Findings, Host, Name};
use crate::resolve::facts::{
    Age, ExternalAddress, ExternalEndpoint, ExternalPort, ExternalService, Fault, Port, PortTls,
};
use crate::resolve::policy::client_tls::{names_a_crossing, server_name};

use super::{labels, lower_port, not_applicable, optional, port_number, stands_twice};

/// Longest path of a Unix socket, in bytes: Envoy refuses a whole cluster for a longer one.
const LONGEST_SOCKET: usize = 107;

/// R196 to R200, R202.
pub(super) fn external_service(
    object: &Object,
    spec: &written::ExternalService,
    findings: &mut Findings,
) -> ExternalService {
    let id = &object.meta.id;
    let hosts = hosts(object, spec, findings);
    let addresses = addresses(object, spec, findings);
    let fault = |field: &str, message: &str| Fault {
        code: Code::InvalidField,
        field: FieldPath::new(field),
        message: message.to_owned(),
    };
    let fault = match (spec.hosts.is_empty(), spec.addresses.is_empty()) {
        (false, false) => {
            Some(fault("spec.addresses", "`hosts` and `addresses` exclude each other: leave one of them out"))
        }
        (true, true) => {
            Some(fault("spec.hosts", "the external service has neither `hosts` nor `addresses`: write one"))
        }
        _ if hosts.is_empty() && addresses.is_empty() => {
            let field = if spec.hosts.is_empty() { "spec.addresses" } else { "spec.hosts" };
            Some(fault(field, "nothing of what is written here can be used: correct it"))
        }
        _ if spec.ports.is_empty() => Some(fault("spec.ports", "the external service has no port: write at least one")),
        _ => None,
    };
    if let Some(fault) = &fault {
        findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
    }
    let mut ports: Vec<ExternalPort> = Vec::with_capacity(spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate() {
        let field = FieldPath::new("spec.ports").index(index);
        let number = match port_number(port.number) {
            Ok(number) if ports.iter().any(|other| other.number == number) => {
                let message = format!("port {number} stands twice: the first counts");
                findings.push(Finding::error(id, Code::InvalidField, message).at(field.field("number")));
                continue;
            }
            Ok(number) => number,
            Err(message) => {
                findings.push(Finding::error(id, Code::InvalidField, message).at(field.field("number")));
                continue;
            }
        };
        if port.egress_gateway_routes.is_some() {
            let message = "`egressGatewayRoutes` has no effect: egress gateways are chosen for sidecars; serve the host through a route table";
            let at = field.field("egressGatewayRoutes");
            findings.push(Finding::warning(id, Code::NotApplicable, message).at(at));
        }
        let lowered = external_port(object, spec, (number, port), &field, findings);
        if let Some(fault) = &lowered.fault {
            findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
        }
        ports.push(lowered);
    }
    ExternalService {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        labels: object.meta.labels.clone(),
        hosts,
        addresses,
        selector: labels(&spec.selector),
        ports,
        fault,
    }
}

fn hosts(object: &Object, spec: &written::ExternalService, findings: &mut Findings) -> Vec<Host> {
    let id = &object.meta.id;
    let mut hosts: Vec<Host> = Vec::with_capacity(spec.hosts.len());
    for (index, text) in spec.hosts.iter().enumerate() {
        let at = FieldPath::new("spec.hosts").index(index);
        match Host::parse(text) {
            _ if is_crossing_name(text) => {
                findings.push(Finding::error(id, Code::InvalidField, names_a_crossing(text)).at(at));
            }
            Ok(_) if text.parse::<IpAddr>().is_ok() => {
                let message = format!("`{text}` is an address: write it into `addresses`");
                findings.push(Finding::error(id, Code::InvalidField, message).at(at));
            }
            Ok(host) if !hosts.contains(&host) => hosts.push(host),
            Ok(host) => findings.push(stands_twice(id, &host, at)),
            Err(error) => findings.push(Finding::error(id, Code::InvalidField, error.to_string()).at(at)),
        }
    }
    if let [first, _, ..] = hosts.as_slice() {
        let message = format!("gateways use the first of several hosts, `{first}`: write an external service for each");
        findings.push(Finding::warning(id, Code::NotApplicable, message).at(FieldPath::new("spec.hosts")));
    }
    hosts
}

fn addresses(object: &Object, spec: &written::ExternalService, findings: &mut Findings) -> Vec<Name> {
    let id = &object.meta.id;
    let mut addresses: Vec<Name> = Vec::with_capacity(spec.addresses.len());
    for (index, text) in spec.addresses.iter().enumerate() {
        let at = FieldPath::new("spec.addresses").index(index);
        let is_range = text.split_once('/').is_some_and(|(address, length)| {
            address.parse::<IpAddr>().is_ok() && length.parse::<u8>().is_ok_and(|length| length <= 128)
        });
        match text.parse::<IpAddr>() {
            Ok(address) => addresses.push(address.to_string().into()),
            Err(_) if is_range => {
                let message = format!("range `{text}` has no effect: gateways need an address, or external endpoints");
                findings.push(Finding::warning(id, Code::NotApplicable, message).at(at));
            }
            Err(_) => {
                let message = format!("{text:?} is no IP address: write one, or a name into `hosts`");
                findings.push(Finding::error(id, Code::InvalidField, message).at(at));
            }
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

fn external_port(
    object: &Object,
    spec: &written::ExternalService,
    (number, port): (u16, &written::ExternalServicePort),
    field: &FieldPath,
    findings: &mut Findings,
) -> ExternalPort {
    let mut lowered = ExternalPort {
        number,
        name: (&port.name).into(),
        target: Port::Number(number),
        protocol: None,
        tls: PortTls::Never,
        fault: None,
    };
    let fault = |field: FieldPath, message: String| Some(Fault { code: Code::InvalidField, field, message });
    match port.target_port.as_ref().map(lower_port) {
        Some(Err(message)) => lowered.fault = fault(field.field("targetPort"), message),
        Some(Ok(Some(target))) => lowered.target = target,
        Some(Ok(None)) | None => {}
    }
    let is_tls = match port.protocol.to_ascii_uppercase().as_str() {
        "HTTP" => {
            lowered.protocol = Some(UpstreamProtocol::Http1);
            false
        }
        "GRPC" | "HTTP2" => {
            lowered.protocol = Some(UpstreamProtocol::Http2);
            false
        }
        "HTTPS" | "TLS" => {
            lowered.protocol = Some(UpstreamProtocol::Http1);
            true
        }
        "TCP" | "MONGO" => false,
        _ => {
            let message =
                format!("{:?} is no protocol: write HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS", port.protocol);
            lowered.fault = fault(field.field("protocol"), message);
            false
        }
    };
    let at = field.field("clientsideTls");
    let names: Vec<Name> = spec.subject_alt_names.iter().filter_map(|name| optional(name)).collect();
    match &port.clientside_tls {
        Some(tls) => match origination(object, tls, names, &at, findings) {
            Ok(Some(tls)) => lowered.tls = PortTls::Always(tls),
            Ok(None) => {}
            Err(fault) => lowered.fault = Some(fault),
        },
        None if is_tls => lowered.tls = PortTls::ForHttp(Origination { names, ..Origination::verified() }),
        None => {}
    }
    lowered
}

/// TLS as a port writes it; nothing for `DISABLE`.
fn origination(
    object: &Object,
    written: &written::ClientsideTls,
    names: Vec<Name>,
    at: &FieldPath,
    findings: &mut Findings,
) -> Result<Option<Origination>, Fault> {
    let fault = |field: &str, message: &str| Fault {
        code: Code::InvalidField,
        field: if field.is_empty() { at.clone() } else { at.field(field) },
        message: message.to_owned(),
    };
    let server_name = match written.sni.as_str() {
        "" => None,
        text => Some(server_name(text).map_err(|message| fault("sni", &message))?),
    };
    let credential = optional(&written.credential_name);
    let files = (optional(&written.client_certificate), optional(&written.private_key));
    let authorities = optional(&written.ca_certificates);
    let has_files = files.0.is_some() || files.1.is_some() || authorities.is_some();
    for (name, path) in [("clientCertificate", &files.0), ("privateKey", &files.1), ("caCertificates", &authorities)] {
        if path.as_ref().is_some_and(|path| !is_path(path)) {
            return Err(fault(name, "this is no path of a file on the gateway: write an absolute one"));
        }
    }
    if credential.is_some() && has_files {
        return Err(fault("credentialName", "write either `credentialName` or files, not both"));
    }
    let trusts = match (authorities, &credential) {
        (Some(path), _) => Trusts::File(path),
        (None, Some(name)) if written.mode == ClientsideTlsMode::Simple => Trusts::Credential(name.clone()),
        (None, Some(name)) => Trusts::CredentialOrSystem(name.clone()),
        (None, None) => Trusts::System,
    };
    let (shows, trusts) = match written.mode {
        ClientsideTlsMode::Disable => return Ok(None),
        ClientsideTlsMode::Simple => (Shows::Nothing, trusts),
        ClientsideTlsMode::Mutual => match (credential, files) {
            (Some(name), _) => (Shows::Credential(name), trusts),
            (None, (Some(chain), Some(key))) => (Shows::Files { chain, key }, trusts),
            (None, _) => {
                let message =
                    "MUTUAL shows a certificate: write `credentialName`, or `clientCertificate` and `privateKey`";
                return Err(fault("", message));
            }
        },
        ClientsideTlsMode::IstioMutual if has_files || credential.is_some() => {
            return Err(fault(
                "",
                "ISTIO_MUTUAL shows the gateway's own identity: leave files and `credentialName` out",
            ));
        }
        ClientsideTlsMode::IstioMutual if written.insecure_skip_verify == Some(true) => {
            return Err(fault(
                "insecureSkipVerify",
                "ISTIO_MUTUAL trusts the mesh's root: leave `insecureSkipVerify` out",
            ));
        }
        ClientsideTlsMode::IstioMutual => {
            if names.is_empty() {
                let message = "without `subjectAltNames` whoever has an identity in the mesh may answer in place of the server, and read what is sent: name who it is, as spiffe://<cluster>/ns/<namespace>/sa/<account>";
                let finding = Finding::warning(&object.meta.id, Code::ServerNotVerified, message);
                findings.push(finding.at(FieldPath::new("spec.subjectAltNames")));
            }
            (Shows::Identity, Trusts::Roots)
        }
    };
    let trusts = if written.insecure_skip_verify == Some(true) {
        let message = "with `insecureSkipVerify` anybody may answer in place of the server, and read what is sent";
        let at = at.field("insecureSkipVerify");
        findings.push(Finding::warning(&object.meta.id, Code::ServerNotVerified, message).at(at));
        Trusts::Anybody
    } else {
        trusts
    };
    Ok(Some(Origination { server_name, names, shows, trusts }))
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(char::is_control)
}

/// R197.
pub(super) fn external_endpoint(
    object: &Object,
    spec: &written::ExternalEndpoint,
    findings: &mut Findings,
) -> ExternalEndpoint {
    let id = &object.meta.id;
    let mut error = |field: FieldPath, message: String| {
        findings.push(Finding::error(id, Code::InvalidField, message).at(field));
    };
    let at = FieldPath::new("spec.address");
    let address = match address(&spec.address) {
        Ok(address) => Some(address),
        Err(message) => {
            error(at, message);
            None
        }
    };
    let is_socket = matches!(address, Some(ExternalAddress::Socket(_)));
    if !is_socket && spec.ports.is_empty() {
        error(FieldPath::new("spec.ports"), "the endpoint has no port: write at least one".to_owned());
    }
    let mut ports: Vec<(Name, u16)> = Vec::with_capacity(spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate() {
        let field = FieldPath::new("spec.ports").index(index);
        match port_number(port.number) {
            Err(message) => error(field.field("number"), message),
            Ok(_) if port.name.is_empty() && spec.ports.len() > 1 => {
                error(field.field("name"), "several ports need a name each".to_owned());
            }
            Ok(number) => ports.push(((&port.name).into(), number)),
        }
    }
    if is_socket && !spec.ports.is_empty() {
        not_applicable(object, "ports", "a Unix socket has none", findings);
    }
    ExternalEndpoint {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        labels: object.meta.labels.clone(),
        address,
        ports,
        locality: spec.locality.as_ref().map(locality).unwrap_or_default(),
    }
}

fn locality(written: &common::Locality) -> Locality {
    Locality { region: (&written.region).into(), zone: (&written.zone).into(), sub_zone: (&written.sub_zone).into() }
}

fn address(text: &str) -> Result<ExternalAddress, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        return if !is_path(path) {
            Err("a Unix socket has an absolute path: write `unix:///` and the rest of it".to_owned())
        } else if path.len() > LONGEST_SOCKET {
            Err(format!("the path of a Unix socket has at most {LONGEST_SOCKET} bytes"))
        } else {
            Ok(ExternalAddress::Socket(path.into()))
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ExternalAddress::Ip(ip));
    }
    match Host::parse(text) {
        Ok(host) if !host.is_wildcard() => Ok(ExternalAddress::Name(host.name().clone())),
        _ => Err(format!(
            "{text:?} is no address: write an IP address, a DNS name without wildcard, or `unix:///` and a path"
        )),
    }
}
