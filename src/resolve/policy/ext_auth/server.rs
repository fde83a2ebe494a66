//! ExtAuthServer: how gateways ask a server of the author's own.

use std::time::Duration;

use crate::crd::common::DestinationKind;
use crate::crd::server as written;
use crate::crd::{ExtAuthServer, Object};
use crate::ir::policy::ext_auth::{AuthServer, BodyToServer, Protocol};
use crate::model::{FieldPath, Finding, Findings, ObjectRef};
use crate::resolve::facts::{Age, AuthServerObject, Fault};

use super::super::parts::{
    LONGEST_CALL, MILLISECOND, added_headers, destination, fault, header, optional_text, set, settable_header, span,
};

/// Time for a check.
const CHECK: Duration = Duration::from_secs(2);

/// Largest body that is sent, in bytes.
const BODY: u32 = 4096;

/// Status where the server cannot be reached.
const STATUS: u16 = 403;

/// Statuses that Envoy can answer with.
const STATUSES: &[std::ops::RangeInclusive<u32>] = &[
    100..=100,
    200..=208,
    226..=226,
    300..=305,
    307..=308,
    400..=417,
    421..=424,
    426..=426,
    428..=429,
    431..=431,
    500..=508,
    510..=511,
];

/// An ExtAuthServer in its checked form.
///
/// # Findings
/// [`Code::InvalidField`](crate::model::Code) as an error, unless the decoder has reported one already.
pub fn server_object(object: &Object, written: &ExtAuthServer, findings: &mut Findings) -> AuthServerObject {
    let id = &object.meta.id;
    let server = match object.defects.first() {
        Some(defect) => Err(fault(&defect.field, defect.message.clone())),
        None => server(id, written).inspect_err(|fault| {
            findings.push(Finding::error(id, fault.code, fault.message.clone()).at(fault.field.clone()));
        }),
    };
    AuthServerObject { id: id.clone(), age: Age::new(object.meta.created, id), server }
}

/// What an ExtAuthServer means.
///
/// # Errors
/// A destination that is an ExternalService or cannot be one; a header that is none; a status that Envoy does not have; a
/// path prefix without a slash.
pub fn server(id: &ObjectRef, server: &ExtAuthServer) -> Result<AuthServer, Fault> {
    let root = FieldPath::new("spec");
    let target = match &server.destination_server {
        Some(written) => {
            let field = root.field("destinationServer");
            if written.kind == DestinationKind::ExternalService {
                return Err(fault(
                    &field.field("kind"),
                    "an ExternalService cannot be asked; name a Service in front of it",
                ));
            }
            Some(destination(&field, written, id)?)
        }
        None => None,
    };
    let field = root.field("statusOnError");
    let status_on_error = match server.status_on_error {
        0 => STATUS,
        status if STATUSES.iter().any(|range| range.contains(&status)) => {
            u16::try_from(status).map_err(|_| fault(&field, "the status is too large"))?
        }
        status => {
            return Err(fault(&field, format!("Envoy cannot answer with {status}; write for instance 403 or 503")));
        }
    };
    Ok(AuthServer {
        destination: target,
        protocol: match &server.http_service {
            None => Protocol::Grpc,
            Some(http) => protocol(&root.field("httpService"), http)?,
        },
        timeout: span(&root.field("requestTimeout"), server.request_timeout, CHECK, MILLISECOND..=LONGEST_CALL)?,
        failure_mode_allow: server.failure_mode_allow,
        body: server.request_body.as_ref().map(|body| BodyToServer {
            max_bytes: if body.max_request_bytes == 0 { BODY } else { body.max_request_bytes },
            allow_partial: body.allow_partial_message,
            as_bytes: body.pack_as_bytes,
        }),
        clear_route_cache: server.clear_route_cache,
        status_on_error,
        stat_prefix: optional_text(&root.field("statPrefix"), &server.stat_prefix)?,
    })
}

fn protocol(field: &FieldPath, written: &written::HttpAuthService) -> Result<Protocol, Fault> {
    let request = written.request.clone().unwrap_or_default();
    let response = written.response.clone().unwrap_or_default();
    let (asked, answered) = (field.field("request"), field.field("response"));
    let path_prefix = optional_text(&field.field("pathPrefix"), &written.path_prefix)?;
    if path_prefix.as_ref().is_some_and(|prefix| !prefix.starts_with('/')) {
        return Err(fault(&field.field("pathPrefix"), "the prefix of a path starts with `/`"));
    }
    Ok(Protocol::Http {
        path_prefix,
        request_headers: set(&asked.field("allowedHeaders"), &request.allowed_headers, header)?,
        added_headers: added_headers(&asked.field("headersToAdd"), &request.headers_to_add)?,
        upstream_headers: set(
            &answered.field("allowedUpstreamHeaders"),
            &response.allowed_upstream_headers,
            settable_header,
        )?,
        client_headers: set(&answered.field("allowedClientHeaders"), &response.allowed_client_headers, header)?,
    })
}
