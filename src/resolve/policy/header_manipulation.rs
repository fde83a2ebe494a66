//! HeaderManipulationPolicy: headers removed and added. All policies on a target merge; the older decides a header.

use std::collections::{BTreeMap, BTreeSet};

use crate::crd::policy::HeaderManipulationPolicy;
use crate::ir::policy::HeaderManipulation;
use crate::model::{Code, FieldPath, Finding, Findings, Name, ObjectRef};
use crate::resolve::attachment::Beaten;
use crate::resolve::facts::Fault;

use super::parts::{MAX_TEXT, is_framing};
use super::{config_fault, is_header_name, no_config};

/// Most headers that Envoy adds in one direction on one target.
const MAX_ADDED: usize = 1_000;

/// What a HeaderManipulationPolicy means.
///
/// `Host` or `:authority` among the appended request headers becomes the rewritten host; other pseudo-headers, and headers
/// that frame messages, are skipped with a remark.
///
/// # Errors
/// A name that is no token or is added twice, a value with a line break or NUL, texts or lists beyond Envoy's limits.
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
            if name.len() > MAX_TEXT || value.len() > MAX_TEXT {
                return Err(config_fault(&place, format!("names and values have at most {MAX_TEXT} bytes")));
            }
            let twice = || config_fault(&place, "the header is written twice, in upper and lower case; keep one");
            match header_name(name) {
                HeaderName::Bad => return Err(config_fault(&place, format!("`{name}` is no header name"))),
                HeaderName::Reserved if request && is_host(name) => {
                    if value.contains('%') {
                        return Err(config_fault(&place, "a new `Host` is taken as it is and cannot hold `%`"));
                    }
                    if headers.host.replace(value).is_some() {
                        return Err(twice());
                    }
                }
                HeaderName::Reserved => {
                    skip(place, "pseudo-headers and a response's `Host` cannot be added; the entry is skipped");
                }
                HeaderName::Plain(name) if is_framing(&name) => {
                    skip(place, "the header says where a message ends and cannot be added; the entry is skipped");
                }
                HeaderName::Plain(name) => {
                    let appended = if request { &mut headers.append_request } else { &mut headers.append_response };
                    if appended.insert(name, value).is_some() {
                        return Err(twice());
                    }
                }
            }
        }
        if appended.len() > MAX_ADDED {
            return Err(config_fault(field, format!("at most {MAX_ADDED} headers can be added")));
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
    let mut request = Deciders { direction: "request", by: BTreeMap::new() };
    let mut response = Deciders { direction: "response", by: BTreeMap::new() };
    for (id, headers) in policies {
        if let Some(host) = &headers.host
            && request.decides(id, &"host".into(), beaten)
        {
            merged.host = Some(host.clone());
        }
        request.add(
            id,
            (&headers.append_request, &headers.remove_request),
            (&mut merged.append_request, &mut merged.remove_request),
            beaten,
        );
        response.add(
            id,
            (&headers.append_response, &headers.remove_response),
            (&mut merged.append_response, &mut merged.remove_response),
            beaten,
        );
    }
    merged
}

/// Which policy decides which header of one direction.
struct Deciders {
    direction: &'static str,
    by: BTreeMap<Name, ObjectRef>,
}

impl Deciders {
    /// Whether a policy decides a header: nobody older has it.
    fn decides(&mut self, id: &ObjectRef, name: &Name, beaten: &mut Vec<Beaten>) -> bool {
        if let Some(winner) = self.by.get(name) {
            let part = format!("the {} header `{name}`", self.direction);
            beaten.push(Beaten { loser: id.clone(), winner: winner.clone(), part });
            return false;
        }
        self.by.insert(name.clone(), id.clone());
        true
    }

    /// Adds what a policy decides: headers that it appends, headers that it removes.
    fn add(
        &mut self,
        id: &ObjectRef,
        (append, remove): (&BTreeMap<Name, Name>, &BTreeSet<Name>),
        (appended, removed): (&mut BTreeMap<Name, Name>, &mut BTreeSet<Name>),
        beaten: &mut Vec<Beaten>,
    ) {
        let names: BTreeSet<&Name> = append.keys().chain(remove).collect();
        for name in names {
            if !self.decides(id, name, beaten) {
                continue;
            }
            match append.get(name) {
                Some(_) if appended.len() == MAX_ADDED => {
                    let older = self.by.values().find(|other| *other != id).unwrap_or(id);
                    let part = format!("the last of the {MAX_ADDED} {} headers that a route can have", self.direction);
                    beaten.push(Beaten { loser: id.clone(), winner: older.clone(), part });
                }
                Some(value) => drop(appended.insert(name.clone(), value.clone())),
                None => {}
            }
            if remove.contains(name) {
                removed.insert(name.clone());
            }
        }
    }
}

enum HeaderName {
    Plain(Name),
    /// `Host` and pseudo-headers, which Envoy refuses in header lists.
    Reserved,
    Bad,
}

/// `Host`, under either of its names.
fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn header_name(name: &str) -> HeaderName {
    if name.starts_with(':') || is_host(name) {
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
                        // Envoy takes a header and one alternative.
                        && headers.split('?').count() <= 2
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
mod tests;
