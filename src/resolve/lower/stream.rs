//! Routes of whole connections: `spec.tcp` and `spec.tls` of a RouteTable.

use std::sync::Arc;

use crate::crd::Object;
use crate::crd::route_table as written;
use crate::model::{Code, FieldPath, Finding, Findings, Host};
use crate::resolve::facts::{Fault, StreamMatcher, StreamRoute};

use super::port_number;
use super::table::lower_forward;

/// The routes of whole connections, in order, `tcp` before `tls`; what is wrong with one is reported and stands in it.
pub(super) fn streams(object: &Object, spec: &written::RouteTable, findings: &mut Findings) -> Vec<StreamRoute> {
    let mut streams = Vec::with_capacity(spec.tcp.len() + spec.tls.len());
    for (index, route) in spec.tcp.iter().enumerate() {
        let field = FieldPath::new("spec.tcp").index(index);
        streams.push(lower(object, spec, field.clone(), || tcp_matcher(route, &field), route.forward_to.as_ref()));
    }
    for (index, route) in spec.tls.iter().enumerate() {
        let field = FieldPath::new("spec.tls").index(index);
        let forward = route.forward_to.as_ref().map(|forward| written::ForwardTo {
            destinations: forward.destinations.clone(),
            ..written::ForwardTo::default()
        });
        streams.push(lower(object, spec, field.clone(), || sni_matcher(route, &field), forward.as_ref()));
    }
    for fault in streams.iter().filter_map(|stream| stream.fault.as_ref()) {
        findings.push(Finding::error(&object.meta.id, fault.code, fault.message.clone()).at(fault.field.clone()));
    }
    streams
}

fn lower(
    object: &Object,
    spec: &written::RouteTable,
    field: FieldPath,
    matcher: impl FnOnce() -> Result<StreamMatcher, Fault>,
    forward: Option<&written::ForwardTo>,
) -> StreamRoute {
    let broken = |matcher: StreamMatcher, fault: Fault| StreamRoute {
        field: field.clone(),
        matcher,
        destinations: Arc::default(),
        fault: Some(Fault { message: format!("{}; its connections are closed", fault.message), ..fault }),
    };
    // Of a route whose matchers cannot be read nobody knows what it would take.
    let nothing = StreamMatcher::Sni(Vec::new());
    let of_defect = |at: &FieldPath| {
        let defect = object.defects.iter().find(|defect| defect.field.is_within(at) || at.is_within(&defect.field))?;
        Some(Fault { code: Code::InvalidField, field: defect.field.clone(), message: defect.message.clone() })
    };
    if let Some(fault) = of_defect(&field.field("matchers")) {
        return broken(nothing, fault);
    }
    let matcher = match matcher() {
        Ok(matcher) => matcher,
        Err(fault) => return broken(nothing, fault),
    };
    if let Some(fault) = of_defect(&field) {
        return broken(matcher, fault);
    }
    let at = field.field("forwardTo");
    let invalid = |at: FieldPath, message: &str| Fault { code: Code::InvalidField, field: at, message: message.into() };
    let Some(forward) = forward.filter(|forward| !forward.destinations.is_empty()) else {
        let fault = invalid(at.field("destinations"), "the route forwards to nothing: write at least one destination");
        return broken(matcher, fault);
    };
    let rewrites = forward.path_rewrite.is_some()
        || forward.regex_rewrite.is_some()
        || forward.host_rewrite.is_some()
        || forward.auto_host_rewrite == Some(true);
    if rewrites {
        return broken(matcher, invalid(at, "a connection has no path and no host to rewrite: leave the rewrite out"));
    }
    let mut faults = Vec::new();
    let destinations = match lower_forward(spec, forward, &at, &mut faults) {
        Ok(forward) => forward.destinations,
        Err(fault) => {
            faults.push(fault);
            Arc::default()
        }
    };
    match faults.into_iter().min_by_key(|fault| fault.code) {
        Some(fault) => broken(matcher, fault),
        None => StreamRoute { field, matcher, destinations, fault: None },
    }
}

fn tcp_matcher(route: &written::TcpRoute, field: &FieldPath) -> Result<StreamMatcher, Fault> {
    let mut ports = Vec::with_capacity(route.matchers.len());
    for (index, matcher) in route.matchers.iter().enumerate() {
        let at = field.field("matchers").index(index).field("port");
        let fault = |message| Fault { code: Code::InvalidField, field: at, message };
        if matcher.port == 0 {
            return Ok(StreamMatcher::Tcp(Vec::new()));
        }
        ports.push(port_number(matcher.port).map_err(fault)?);
    }
    Ok(StreamMatcher::Tcp(ports))
}

fn sni_matcher(route: &written::TlsRoute, field: &FieldPath) -> Result<StreamMatcher, Fault> {
    let mut names = Vec::new();
    for (index, matcher) in route.matchers.iter().enumerate() {
        let at = field.field("matchers").index(index);
        let fault = |at: FieldPath, message| Fault { code: Code::InvalidField, field: at, message };
        let port = match matcher.port {
            0 => None,
            number => Some(port_number(number).map_err(|message| fault(at.field("port"), message))?),
        };
        for (position, host) in matcher.sni_hosts.iter().enumerate() {
            let host =
                Host::parse(host).map_err(|error| fault(at.field("sniHosts").index(position), error.to_string()))?;
            names.push((host, port));
        }
    }
    if names.is_empty() {
        return Err(Fault {
            code: Code::InvalidField,
            field: field.field("matchers"),
            message: "the route states no server name: write `matchers` with `sniHosts`".to_owned(),
        });
    }
    Ok(StreamMatcher::Sni(names))
}
