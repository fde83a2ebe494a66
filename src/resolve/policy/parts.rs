//! What several kinds check alike: names, patterns, references, addresses, times.
//!
//! Every function takes the field that it is about and gives the fault there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::crd;
use crate::crd::common::{DestinationKind, DestinationReference, ObjectReference, ObjectSelector, StringMatch};
use crate::crd::policy::selector;
use crate::ir::client::CLIENT_HEADER;
use crate::ir::policy::reference::{DestinationRef, HostPort, HttpUrl, ObjectPick, PortRef};
use crate::ir::policy::{OriginMatch, OriginPattern, Phase, Place, TextPattern};
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Name, ObjectRef, expression};
use crate::resolve::facts::{Fault, Port};
use crate::resolve::lower::{labels, lower_port, optional};

use super::is_header_name;

/// Longest name or value of a header that Envoy takes, in bytes; one that is longer costs the whole route configuration.
pub(super) const MAX_TEXT: usize = 16_384;

/// Longest text of other sorts, in bytes. It stands in format strings and, escaped and wrapped, in expressions: of this
/// length Envoy takes both.
pub(super) const LONGEST: usize = 4096;

/// Least time that Envoy counts.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// Longest time that an HTTP call of Envoy itself may take: just under 2^32 seconds.
pub(super) const LONGEST_CALL: Duration = Duration::from_secs(4_294_967_295);

/// `spec.config`.
pub(super) fn config() -> FieldPath {
    FieldPath::new("spec.config")
}

/// What is wrong at a field.
pub(super) fn fault(field: &FieldPath, message: impl Into<String>) -> Fault {
    Fault { code: Code::InvalidField, field: field.clone(), message: message.into() }
}

/// What stock Envoy cannot do.
pub(super) fn unsupported(field: &FieldPath, message: impl Into<String>) -> Fault {
    Fault { code: Code::Unsupported, field: field.clone(), message: message.into() }
}

/// Says that a setting works differently from what its author may expect.
pub(super) fn remark(id: &ObjectRef, field: &FieldPath, message: impl Into<String>, remarks: &mut Findings) {
    remarks.push(Finding::warning(id, Code::PolicyRemark, message).at(field.clone()));
}

/// A text that is there, is not longer than [`LONGEST`], and has no control characters.
pub(super) fn text(field: &FieldPath, written: &str) -> Result<Name, Fault> {
    if written.len() > LONGEST {
        return Err(fault(field, format!("the text is longer than {LONGEST} bytes; shorten it")));
    }
    if written.is_empty() {
        return Err(fault(field, "the text is empty; write it or leave the entry out"));
    }
    if written.contains(char::is_control) {
        return Err(fault(field, "the text has a line break or another control character; remove it"));
    }
    Ok(written.into())
}

/// A text that may be left out.
pub(super) fn optional_text(field: &FieldPath, written: &str) -> Result<Option<Name>, Fault> {
    if written.is_empty() { Ok(None) } else { text(field, written).map(Some) }
}

/// The name of a header in lower case.
pub(super) fn header(field: &FieldPath, written: &str) -> Result<Name, Fault> {
    if written.len() > MAX_TEXT {
        return Err(fault(field, format!("the name is longer than {MAX_TEXT} bytes; shorten it")));
    }
    if is_header_name(written) {
        return Ok(written.to_ascii_lowercase().into());
    }
    Err(fault(field, format!("{} is no header name: write letters, digits and `-`", quoted(written))))
}

/// The name of a header that a policy sets, in lower case.
pub(super) fn settable_header(field: &FieldPath, written: &str) -> Result<Name, Fault> {
    let name = header(field, written)?;
    if name == "host" {
        return Err(fault(field, "`Host` decides the route and cannot be set here; choose another header"));
    }
    if name == CLIENT_HEADER {
        // By it the route of a client inside the cluster is chosen.
        return Err(fault(field, "this header is the gateway's own and cannot be set; choose another"));
    }
    let frames = is_framing(&name) || SETTLED_BY_PROXIES.iter().any(|head| name.starts_with(head));
    if frames || name == "te" {
        let name = quoted(&name);
        let message = format!("{name} is between the gateway and its neighbours and cannot be set; choose another");
        return Err(fault(field, message));
    }
    Ok(name)
}

/// Whether a header, in lower case, says where a message ends or what the connection is for. Envoy sends it as it is told
/// (seen on 1.40), so that what was the body of one request could be the next request on a shared connection.
pub(super) fn is_framing(name: &str) -> bool {
    const FRAMING: &[&str] = &[
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    FRAMING.contains(&name)
}

/// How headers begin that proxies write for each other; what a token or a server says must not be among it.
const SETTLED_BY_PROXIES: &[&str] = &["proxy-", "x-envoy-", "x-forwarded-"];

/// Headers that a server of the author's own gets beside the client's, by their name in lower case.
pub(super) fn added_headers(
    field: &FieldPath,
    written: &BTreeMap<String, String>,
) -> Result<BTreeMap<Name, Name>, Fault> {
    let mut headers = BTreeMap::new();
    for (name, value) in written {
        let field = field.field(name);
        let name = settable_header(&field, name)?;
        if value.contains(char::is_control) {
            return Err(fault(&field, "the value has a line break or another control character; remove it"));
        }
        if headers.insert(name, Name::from(value)).is_some() {
            return Err(fault(&field, "the header is named twice in different case; keep one"));
        }
    }
    Ok(headers)
}

/// A user's text in a message: short, and without line breaks.
pub(super) fn quoted(written: &str) -> String {
    const SHOWN: usize = 60;
    let short: String = written.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let more = if written.chars().count() > SHOWN { "…" } else { "" };
    format!("`{short}{more}`")
}

/// A condition on an origin.
pub(super) fn string_match(field: &FieldPath, written: &StringMatch) -> Result<OriginMatch, Fault> {
    let pattern = match (&written.exact, &written.prefix, &written.suffix, &written.regex) {
        (Some(text), ..) if !text.is_empty() => OriginPattern::Exact(text.into()),
        (_, Some(text), ..) if !text.is_empty() => OriginPattern::Prefix(text.into()),
        (_, _, Some(text), _) if !text.is_empty() => OriginPattern::Suffix(text.into()),
        (.., Some(text)) => {
            expression::check(text).map_err(|reason| fault(&field.field("regex"), reason))?;
            OriginPattern::Regex(text.into())
        }
        _ => {
            return Err(fault(field, "the origin has no condition: write `exact`, `prefix`, `suffix` or `regex`"));
        }
    };
    Ok(OriginMatch { pattern, ignore_case: written.ignore_case })
}

/// A text in which `*` stands for any run of characters, anywhere.
pub(super) fn glob(field: &FieldPath, written: &str) -> Result<TextPattern, Fault> {
    text(field, written)?;
    let parts: Vec<&str> = written.split('*').collect();
    Ok(match parts.as_slice() {
        [whole] => TextPattern::Exact((*whole).into()),
        parts if parts.iter().all(|part| part.is_empty()) => TextPattern::Any,
        [head, ""] => TextPattern::Prefix((*head).into()),
        ["", tail] => TextPattern::Suffix((*tail).into()),
        parts => {
            let escaped: Vec<String> = parts.iter().map(|part| regex::escape(part)).collect();
            // Line breaks too, so that no text escapes a pattern that must not match.
            let regex = format!("(?s){}", escaped.join(".*"));
            expression::check(&regex).map_err(|_| fault(field, "the pattern is too long; shorten it"))?;
            TextPattern::Regex(regex.into())
        }
    })
}

/// A text in which `*` stands for any run of characters, at one end only.
pub(super) fn edge_glob(field: &FieldPath, written: &str) -> Result<TextPattern, Fault> {
    match glob(field, written)? {
        TextPattern::Regex(_) => {
            Err(fault(field, format!("{} has a `*` inside; it stands at one end only", quoted(written))))
        }
        pattern => Ok(pattern),
    }
}

/// Checks that a list has not more items than that.
///
/// Routes copy what policies say of them, so a list without bound would cost every gateway.
pub(super) fn at_most(field: &FieldPath, items: usize, most: usize) -> Result<(), Fault> {
    match items > most {
        true => Err(fault(field, format!("there are {items} items, and at most {most} can be; leave some out"))),
        false => Ok(()),
    }
}

/// A list of which the order means nothing.
pub(super) fn set<T: Ord>(
    field: &FieldPath,
    written: &[String],
    mut read: impl FnMut(&FieldPath, &str) -> Result<T, Fault>,
) -> Result<BTreeSet<T>, Fault> {
    written.iter().enumerate().map(|(index, text)| read(&field.index(index), text)).collect()
}

/// A reference with the place of the object that holds it where none is written.
pub(super) fn reference(
    field: &FieldPath,
    kind: Kind,
    written: &ObjectReference,
    holder: &ObjectRef,
) -> Result<ObjectRef, Fault> {
    if written.name.is_empty() {
        return Err(fault(&field.field("name"), format!("the reference has no name: write that of the {kind}")));
    }
    let or = |written: &str, own: &Name| if written.is_empty() { own.clone() } else { written.into() };
    Ok(ObjectRef::new(
        kind,
        or(&written.cluster, &holder.cluster),
        or(&written.namespace, &holder.namespace),
        &written.name,
    ))
}

/// A destination that is named.
pub(super) fn destination(
    field: &FieldPath,
    written: &DestinationReference,
    holder: &ObjectRef,
) -> Result<DestinationRef, Fault> {
    if written.aws_lambda.is_some() {
        return Err(unsupported(&field.field("awsLambda"), "a function cannot be asked here; name a Service by `ref`"));
    }
    let Some(target) = &written.r#ref else {
        return Err(fault(&field.field("ref"), "the destination has no `ref`: write the name of a Service"));
    };
    let kind = match written.kind {
        DestinationKind::Service => Kind::Service,
        DestinationKind::VirtualDestination => Kind::VirtualDestination,
        DestinationKind::ExternalService => Kind::ExternalService,
    };
    let port = match &written.port {
        Some(port) => lower_port(port).map_err(|reason| fault(&field.field("port"), reason))?,
        None => None,
    };
    Ok(DestinationRef {
        object: reference(&field.field("ref"), kind, target, holder)?,
        port: port.map(|port| match port {
            Port::Number(number) => PortRef::Number(number),
            Port::Name(name) => PortRef::Name(name),
        }),
        subset: labels(&written.subset),
    })
}

/// Checks that a policy selects destinations of kinds that it can protect.
pub(super) fn destination_kinds(
    written: &[selector::DestinationSelector],
    allowed: &[DestinationKind],
    advice: &str,
) -> Result<(), Fault> {
    let Some(index) = written.iter().position(|item| !allowed.contains(&item.kind)) else { return Ok(()) };
    let field = FieldPath::new("spec.applyToDestinations").index(index).field("kind");
    Err(fault(&field, format!("the policy cannot be enforced on destinations of this kind: {advice}")))
}

/// Objects by labels and place.
pub(super) fn pick(written: &ObjectSelector) -> ObjectPick {
    ObjectPick {
        labels: labels(&written.labels),
        name: optional(&written.name),
        namespace: optional(&written.namespace),
        cluster: optional(&written.cluster),
        workspace: optional(&written.workspace),
    }
}

/// Where a policy runs.
pub(super) fn place(written: Option<&crd::common::PrioritizedPhase>, default: Phase) -> Place {
    match written.map(|phase| (&phase.pre_authz, &phase.post_authz)) {
        Some((Some(at), _)) => Place { phase: Phase::PreAuthz, priority: at.priority },
        Some((None, Some(at))) => Place { phase: Phase::PostAuthz, priority: at.priority },
        _ => Place { phase: default, priority: 0 },
    }
}

/// A duration in a range.
pub(super) fn span(
    field: &FieldPath,
    written: Option<crd::Duration>,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Fault> {
    let Some(written) = written.map(crd::Duration::get) else { return Ok(default) };
    if range.contains(&written) {
        return Ok(written);
    }
    let shown = |duration: &Duration| crd::Duration::from(*duration);
    let (least, most) = (shown(range.start()), shown(range.end()));
    Err(fault(field, format!("the duration is out of range: write {least} to {most}")))
}

/// `scheme://host:port/path`.
pub(super) fn url(field: &FieldPath, written: &str) -> Result<HttpUrl, Fault> {
    let wrong = |what: &str| fault(field, format!("{what}: write for instance `https://issuer.example.com/keys`"));
    if written.is_empty() {
        return Err(wrong("there is no URL"));
    }
    let (tls, rest) = match written.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        _ => return Err(wrong("the URL starts with neither `https://` nor `http://`")),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(wrong("the URL has a user name, which would be sent in the clear"));
    }
    if path.contains('#') || path.bytes().any(|byte| !(b'!'..=b'~').contains(&byte)) {
        return Err(wrong("the path has characters that no URL has; encode them with `%`"));
    }
    let authority = host_and_port(authority, Some(if tls { 443 } else { 80 })).map_err(wrong)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(HttpUrl { tls, authority, path: path.into() })
}

/// `host:port`.
pub(super) fn address(field: &FieldPath, written: &str) -> Result<HostPort, Fault> {
    host_and_port(written, None)
        .map_err(|what| fault(field, format!("{what}: write for instance `auth.shop.svc.cluster.local:9001`")))
}

fn host_and_port(written: &str, default: Option<u16>) -> Result<HostPort, &'static str> {
    let (host, port) = if let Some(rest) = written.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("the IPv6 address has no `]`")?;
        host.parse::<Ipv6Addr>().map_err(|_| "there is no IPv6 address between the brackets")?;
        (host, port)
    } else {
        let (host, port) = written.split_at(written.find(':').unwrap_or(written.len()));
        let is_name = |part: &str| {
            let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = part.as_bytes();
            bytes.len() <= 63
                && edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() {
            return Err("there is no host");
        }
        if host.len() > 253 || !name.split('.').all(is_name) {
            return Err("the host is neither a DNS name nor an IP address");
        }
        (host, port)
    };
    let port = match (port.strip_prefix(':'), default) {
        (Some(port), _) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse::<u16>().ok().filter(|port| *port != 0).ok_or("the port is not one of 1 to 65535")?
        }
        (Some(_), _) => return Err("the port is not one of 1 to 65535"),
        (None, Some(default)) if port.is_empty() => default,
        (None, _) if port.is_empty() => return Err("there is no port"),
        (None, _) => return Err("something other than a port follows the address"),
    };
    Ok(HostPort { host: host.to_ascii_lowercase().into(), port })
}

/// An address, or a block of addresses, with the bits beyond the prefix cleared.
pub(super) fn cidr(field: &FieldPath, written: &str) -> Result<crate::ir::policy::access::Cidr, Fault> {
    let wrong = || fault(field, format!("{} is no address: write `10.1.2.3`, `10.0.0.0/8` or IPv6", quoted(written)));
    let (address, prefix) = match written.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (written, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse::<u8>().ok().filter(|prefix| *prefix <= longest).ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    let address = match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => {
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into())
        }
    };
    Ok(crate::ir::policy::access::Cidr { address, prefix })
}

#[cfg(test)]
mod tests;
