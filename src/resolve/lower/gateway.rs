//! VirtualGateways.

use crate::crd::Object;
use crate::crd::gateway as written;
use crate::model::{Code, FieldPath, Finding, Findings, Host, Name};
use crate::resolve::facts::{Age, AllowedTables, Fault, GatewayListener, ListenerProtocol, Port, VirtualGateway};

use super::{listener_tls, lower_port, lower_selector, optional};

/// R52 to R56, R63.
pub(super) fn gateway(object: &Object, spec: &written::VirtualGateway, findings: &mut Findings) -> VirtualGateway {
    let id = &object.meta.id;
    let workloads = if spec.workloads.is_empty() && object.defect_within(&FieldPath::new("spec.workloads")).is_none() {
        None
    } else {
        let field = FieldPath::new("spec.workloads");
        let items = spec.workloads.iter().enumerate();
        // A selector that cannot be read whole would pick more gateways than its author means.
        let readable = items.filter(|(index, _)| object.defect_within(&field.index(*index)).is_none());
        Some(readable.filter_map(|(_, item)| item.selector.as_ref().map(lower_selector)).collect())
    };
    if spec.listeners.is_empty() {
        findings.push(
            Finding::error(id, Code::InvalidField, "the gateway has no listener: write at least one")
                .at(FieldPath::new("spec.listeners")),
        );
    }
    let mut listeners = Vec::with_capacity(spec.listeners.len());
    for (index, written) in spec.listeners.iter().enumerate() {
        let field = FieldPath::new("spec.listeners").index(index);
        if !written.exposed_external_services.is_empty() {
            let message = "`exposedExternalServices` has no effect: egress gateways are chosen for sidecars; serve the host through a route table";
            let at = field.field("exposedExternalServices");
            findings.push(Finding::warning(id, Code::NotApplicable, message).at(at));
        }
        match listener(object, index, written, &field, findings) {
            Ok(listener) => {
                if let Some(fault) = &listener.fault {
                    findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
                }
                listeners.push(listener);
            }
            Err(fault) => findings.push(Finding::error(id, fault.code, fault.message).at(fault.field)),
        }
    }
    VirtualGateway { id: id.clone(), age: Age::new(object.meta.created, id), workloads, listeners }
}

fn listener(
    object: &Object,
    index: usize,
    written: &written::Listener,
    field: &FieldPath,
    findings: &mut Findings,
) -> Result<GatewayListener, Fault> {
    let fault = |code, at: FieldPath, message: &str| Fault { code, field: at, message: message.to_owned() };
    let port = match written.port.as_ref().map(lower_port) {
        Some(Ok(Some(port))) => port,
        Some(Err(message)) => return Err(fault(Code::InvalidField, field.field("port"), &message)),
        _ => {
            return Err(fault(
                Code::InvalidField,
                field.field("port"),
                "the listener has no port: write `port: {number: …}` with a port of the gateway Service",
            ));
        }
    };
    let is_http = written.http.is_some();
    let has_tls = written.tls.is_some();
    let protocol = match (is_http, has_tls) {
        (true, false) => ListenerProtocol::Http,
        (true, true) => ListenerProtocol::Https,
        (false, false) => ListenerProtocol::Tcp,
        (false, true) => ListenerProtocol::Tls,
    };
    let mut tls = None;
    let own_fault = if let Some(defect) = object.defect_within(field) {
        Some(fault(
            Code::InvalidField,
            defect.field.clone(),
            &format!("the listener is not programmed: {}", defect.message),
        ))
    } else if let Some(message) = wrong_app_protocol(protocol, &written.app_protocol) {
        Some(fault(Code::ListenerConflict, field.field("appProtocol"), &message))
    } else if written.https_redirect.is_some() && !is_http {
        let message = "only HTTP can be redirected: leave `httpsRedirect` out, or write `http: {}`; the listener is not programmed";
        Some(fault(Code::InvalidField, field.field("httpsRedirect"), message))
    } else {
        let lowered = written
            .tls
            .as_ref()
            .map(|tls| listener_tls::tls(&object.meta.id, written, tls, &field.field("tls"), findings));
        match lowered.transpose() {
            Ok(mode) => {
                tls = mode;
                None
            }
            Err(fault) => Some(fault),
        }
    };
    let allowed = if written.allowed_route_tables.is_empty() {
        None
    } else {
        let mut items = Vec::with_capacity(written.allowed_route_tables.len());
        for (position, item) in written.allowed_route_tables.iter().enumerate() {
            let at = field.field("allowedRouteTables").index(position);
            let (namespace, host) = match item.host.split_once('/') {
                Some((namespace, host)) => (Some(namespace), host),
                None => (None, item.host.as_str()),
            };
            match Host::parse(host) {
                Ok(host) => items.push(AllowedTables {
                    host,
                    namespace: match namespace {
                        None | Some("*" | "") => None,
                        Some(".") => Some(object.meta.id.namespace.clone()),
                        Some(namespace) => optional(namespace),
                    },
                    selector: item.selector.as_ref().map(lower_selector).unwrap_or_default(),
                }),
                Err(error) => findings.push(
                    Finding::error(&object.meta.id, Code::InvalidField, format!("{error}; the item lets nothing in"))
                        .at(at.field("host")),
                ),
            }
        }
        Some(items)
    };
    let first_host = written
        .allowed_route_tables
        .first()
        .map(|item| item.host.as_str())
        .or_else(|| written.exposed_external_services.first().map(|item| item.host.as_str()))
        .unwrap_or("*");
    let first_host = Name::from(first_host.rsplit('/').next().unwrap_or(first_host).to_ascii_lowercase());
    let redirects_to_https = written.https_redirect == Some(true);
    Ok(GatewayListener { index, port, protocol, fault: own_fault, allowed, first_host, tls, redirects_to_https })
}

/// Why a hint contradicts what the listener is, if it does.
fn wrong_app_protocol(protocol: ListenerProtocol, hint: &str) -> Option<String> {
    let (fitting, what): (&[&str], &str) = match protocol {
        ListenerProtocol::Http => (&["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"], "`http` without `tls`"),
        ListenerProtocol::Https => (&["HTTPS"], "`http` with `tls`"),
        ListenerProtocol::Tcp => (&["TCP", "MONGO", "MYSQL", "REDIS"], "a listener without `http` and `tls`"),
        ListenerProtocol::Tls => (&["TLS"], "`tls` without `http`"),
    };
    let fits = hint.is_empty() || fitting.iter().any(|known| known.eq_ignore_ascii_case(hint));
    (!fits).then(|| {
        format!(
            "`{}` contradicts {what}: write {}, or leave it out; the listener is not programmed",
            hint.escape_debug(),
            fitting.join(", ")
        )
    })
}

impl GatewayListener {
    /// The port in words, for messages.
    #[must_use]
    pub fn port_text(&self) -> String {
        match &self.port {
            Port::Number(number) => number.to_string(),
            Port::Name(name) => format!("`{name}`"),
        }
    }
}
