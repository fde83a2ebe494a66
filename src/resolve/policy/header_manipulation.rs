//! HeaderManipulationPolicy: headers removed and added. All policies on a target merge; the older decides a header.

use std::collections::BTreeMap;

use crate::crd::policy::HeaderManipulationPolicy;
use crate::ir::policy::HeaderManipulation;
use crate::model::{Code, FieldPath, Finding, Findings, Name, ObjectRef};
use crate::resolve::attachment::Beaten;
use crate::resolve::facts::Fault;

use super::{config_fault, is_header_name, no_config};

/// What a HeaderManipulationPolicy means.
///
/// `Host` among the appended request headers becomes a rewritten host; pseudo-headers are skipped with a remark.
///
/// # Errors
/// A name that is no token, a value with a line break or NUL.
///
/// # Rule
/// The manual's page on policies, HeaderManipulationPolicy.
pub fn lower(
    id: &ObjectRef,
    policy: &HeaderManipulationPolicy,
    remarks: &mut Findings,
) -> Result<HeaderManipulation, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let mut headers = HeaderManipulation::default();
    let mut skip = |field: String, message: &str| {
        remarks.push(
            Finding::warning(id, Code::PolicyRemark, message.to_owned())
                .at(FieldPath::new(format!("spec.config.{field}"))),
        );
    };
    for (field, removed, request) in [
        ("removeRequestHeaders", &config.remove_request_headers, true),
        ("removeResponseHeaders", &config.remove_response_headers, false),
    ] {
        for (index, name) in removed.iter().enumerate() {
            let place = format!("{field}[{index}]");
            match header_name(name) {
                HeaderName::Bad => return Err(config_fault(&place, format!("`{name}` is no header name"))),
                HeaderName::Reserved => {
                    skip(place, "`Host` and pseudo-headers cannot be removed; the entry is skipped");
                }
                HeaderName::Plain(name) if request => {
                    headers.remove_request.insert(name);
                }
                HeaderName::Plain(name) => {
                    headers.remove_response.insert(name);
                }
            }
        }
    }
    for (field, appended, request) in [
        ("appendRequestHeaders", &config.append_request_headers, true),
        ("appendResponseHeaders", &config.append_response_headers, false),
    ] {
        for (name, value) in appended {
            let place = FieldPath::new(field).field(name).to_string();
            if value.contains(['\r', '\n', '\0']) {
                return Err(config_fault(&place, "a header value has no line breaks and no NUL"));
            }
            let value: Name = format_or_literal(value).into();
            match header_name(name) {
                HeaderName::Bad => return Err(config_fault(&place, format!("`{name}` is no header name"))),
                HeaderName::Reserved if request && !name.starts_with(':') => {
                    if value.contains('%') {
                        return Err(config_fault(&place, "a new `Host` is taken as it is and cannot hold `%`"));
                    }
                    headers.host = Some(value);
                }
                HeaderName::Reserved => {
                    skip(place, "pseudo-headers and a response's `Host` cannot be added; the entry is skipped");
                }
                HeaderName::Plain(name) if request => {
                    headers.append_request.insert(name, value);
                }
                HeaderName::Plain(name) => {
                    headers.append_response.insert(name, value);
                }
            }
        }
    }
    Ok(headers)
}

/// Merges the policies on one target, oldest first. Per direction the oldest that removes or adds a header decides it.
///
/// # Rule
/// R127, D23.
pub fn merge<'a>(
    policies: impl Iterator<Item = (&'a ObjectRef, &'a HeaderManipulation)>,
    beaten: &mut Vec<Beaten>,
) -> HeaderManipulation {
    let mut merged = HeaderManipulation::default();
    let mut request: BTreeMap<Name, ObjectRef> = BTreeMap::new();
    let mut response: BTreeMap<Name, ObjectRef> = BTreeMap::new();
    let host: Name = "host".into();
    for (id, headers) in policies {
        let names = |append: &BTreeMap<Name, Name>, remove: &std::collections::BTreeSet<Name>| {
            let mut names: Vec<Name> = append.keys().chain(remove).cloned().collect();
            names.sort();
            names.dedup();
            names
        };
        let mut own = names(&headers.append_request, &headers.remove_request);
        own.extend(headers.host.as_ref().map(|_| host.clone()));
        for name in own {
            match request.get(&name) {
                Some(winner) => beaten.push(Beaten {
                    loser: id.clone(),
                    winner: winner.clone(),
                    part: format!("the request header `{name}`"),
                }),
                None => {
                    if name == host {
                        merged.host.clone_from(&headers.host);
                    }
                    if let Some(value) = headers.append_request.get(&name) {
                        merged.append_request.insert(name.clone(), value.clone());
                    }
                    if headers.remove_request.contains(&name) {
                        merged.remove_request.insert(name.clone());
                    }
                    request.insert(name, id.clone());
                }
            }
        }
        for name in names(&headers.append_response, &headers.remove_response) {
            match response.get(&name) {
                Some(winner) => beaten.push(Beaten {
                    loser: id.clone(),
                    winner: winner.clone(),
                    part: format!("the response header `{name}`"),
                }),
                None => {
                    if let Some(value) = headers.append_response.get(&name) {
                        merged.append_response.insert(name.clone(), value.clone());
                    }
                    if headers.remove_response.contains(&name) {
                        merged.remove_response.insert(name.clone());
                    }
                    response.insert(name, id.clone());
                }
            }
        }
    }
    merged
}

enum HeaderName {
    Plain(Name),
    /// `Host` and pseudo-headers, which Envoy refuses in header lists.
    Reserved,
    Bad,
}

fn header_name(name: &str) -> HeaderName {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        HeaderName::Reserved
    } else if is_header_name(name) {
        HeaderName::Plain(name.to_ascii_lowercase().into())
    } else {
        HeaderName::Bad
    }
}

/// Substitution commands that pass through to Envoy, by name; each is known to parse there.
const COMMANDS: &[&str] = &[
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "HOSTNAME",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "ROUTE_NAME",
    "STREAM_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS",
    "VIRTUAL_CLUSTER_NAME",
];

/// Commands with an argument of header names.
const HEADER_COMMANDS: &[&str] = &["REQ", "RESP", "TRAILER"];

/// A value as Envoy's format string: its commands where all of it parses, else the text itself with every `%` doubled.
fn format_or_literal(value: &str) -> String {
    if is_format(value) { value.to_owned() } else { value.replace('%', "%%") }
}

/// Whether every `%` belongs to `%%` or to a command of the lists above.
fn is_format(value: &str) -> bool {
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let Some(end) = rest.find('%') else { return false };
        let command = &rest[..end];
        let known = match command.split_once('(') {
            None => COMMANDS.contains(&command),
            Some((name, argument)) => {
                HEADER_COMMANDS.contains(&name)
                    && argument.strip_suffix(')').is_some_and(|headers| {
                        !headers.is_empty()
                            && headers.split('?').all(|h| is_header_name(h.strip_prefix(':').unwrap_or(h)))
                    })
            }
        };
        if !known {
            return false;
        }
        rest = &rest[end + 1..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_formats_only_where_all_of_it_parses() {
        for (value, expected) in [
            ("plain", "plain"),
            ("100%", "100%%"),
            ("%%", "%%"),
            ("%ROUTE_NAME%", "%ROUTE_NAME%"),
            ("%REQ(x-a?:path)%", "%REQ(x-a?:path)%"),
            ("%REQ(a%", "%%REQ(a%%"),
            ("%DYNAMIC_METADATA(x)%", "%%DYNAMIC_METADATA(x)%%"),
            ("%ROUTE_NAME% 100%", "%%ROUTE_NAME%% 100%%"),
        ] {
            assert_eq!(format_or_literal(value), expected);
        }
    }
}
