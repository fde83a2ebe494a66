//! A request as Envoy's matching sees it, and matchers on it.
//!
//! Connection manager and router of Envoy 1.40, with the settings that every listener has. What Envoy adds to a request
//! with a value that nobody can know beforehand (`x-request-id`, `x-forwarded-for`) is left out.

use std::collections::BTreeMap;

use regex::bytes::Regex;

use crate::ir::Matcher;
use crate::ir::route::{HeaderMatch, QueryMatch, ValueMatch};
use crate::model::PathMatch;

use super::Request;

/// A request after normalisation.
pub(super) struct Wire {
    /// Lower case, without port: what domains are compared with.
    pub(super) host: String,
    /// Host header as sent.
    pub(super) authority: String,
    /// Without query.
    pub(super) path: String,
    /// With query: what redirects keep.
    pub(super) path_and_query: String,
    query: Vec<(String, String)>,
    method: String,
    /// Each line of a header by itself, as Envoy compares them.
    headers: BTreeMap<String, Vec<String>>,
    /// The path had `%2F` or `%5C`, which a listener answers with a redirect to the path without.
    pub(super) has_escaped_slash: bool,
}

/// The host of a request, in lower case and without a port.
pub(super) fn host_of(request: &Request) -> String {
    without_port(&request.host).to_ascii_lowercase()
}

impl Wire {
    pub(super) fn new(request: &Request, scheme: &str) -> Self {
        let target = request.path.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let unescaped = ["%2f", "%2F"].iter().fold(path.to_owned(), |path, escaped| path.replace(escaped, "/"));
        let unescaped = ["%5c", "%5C"].iter().fold(unescaped, |path, escaped| path.replace(escaped, "\\"));
        let has_escaped_slash = unescaped != path;
        let path = merge_slashes(&canonical(&unescaped));
        let path_and_query = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &request.headers {
            headers.entry(name.to_ascii_lowercase()).or_default().push(value.clone());
        }
        let method = if request.method.is_empty() { "GET" } else { &request.method };
        for (name, value) in [
            (":method", method),
            (":authority", &request.host),
            ("host", &request.host),
            (":path", &path_and_query),
            (":scheme", scheme),
            // As on every gateway at the edge, whatever the client claims.
            ("x-forwarded-proto", scheme),
        ] {
            headers.insert(name.to_owned(), vec![value.to_owned()]);
        }
        Self {
            host: host_of(request),
            authority: request.host.clone(),
            path,
            path_and_query,
            query: query
                .into_iter()
                .flat_map(|query| query.split('&'))
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            method: method.to_owned(),
            headers,
            has_escaped_slash,
        }
    }

    /// A header that is there and not empty, by its lower-case name.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the method is the given one, upper case.
    pub(super) fn has_method(&self, method: &str) -> bool {
        self.method == method
    }

    /// R73.
    pub(super) fn matches(&self, matcher: &Matcher) -> bool {
        let path = match &matcher.path {
            PathMatch::Any => true,
            PathMatch::Exact(path) if matcher.ignore_case => path.eq_ignore_ascii_case(&self.path),
            PathMatch::Exact(path) => *path == self.path.as_str(),
            PathMatch::Prefix(path) if matcher.ignore_case => {
                self.path.get(..path.len()).is_some_and(|head| head.eq_ignore_ascii_case(path))
            }
            PathMatch::Prefix(path) => self.path.starts_with(path.as_str()),
            PathMatch::Regex(path) => whole(path).is_some_and(|regex| regex.is_match(self.path.as_bytes())),
        };
        path && matcher.method.as_ref().is_none_or(|method| self.has_method(method))
            && matcher.headers.iter().all(|header| self.has_header(header))
            && matcher.query_parameters.iter().all(|parameter| self.has_parameter(parameter))
    }

    /// Of a repeated header one value is enough; negated, none may be as the condition says.
    fn has_header(&self, header: &HeaderMatch) -> bool {
        let values = self.headers.get(header.name.as_str());
        let mut values = values.into_iter().flatten();
        let holds = match &header.value {
            ValueMatch::Present => values.next().is_some(),
            ValueMatch::Exact(wanted) => values.any(|value| *wanted == value.as_str()),
            ValueMatch::Prefix(wanted) => values.any(|value| value.starts_with(wanted.as_str())),
            ValueMatch::Regex(wanted) => {
                let regex = whole(wanted);
                values.any(|value| regex.as_ref().is_some_and(|regex| regex.is_match(value.as_bytes())))
            }
        };
        holds != header.invert
    }

    /// Of a repeated parameter the first counts; nothing is decoded.
    fn has_parameter(&self, parameter: &QueryMatch) -> bool {
        let Some((_, value)) = self.query.iter().find(|(key, _)| *parameter.name == *key.as_str()) else {
            return false;
        };
        match &parameter.value {
            ValueMatch::Present => true,
            ValueMatch::Exact(wanted) => *wanted == value.as_str(),
            ValueMatch::Prefix(wanted) => value.starts_with(wanted.as_str()),
            ValueMatch::Regex(wanted) => whole(wanted).is_some_and(|regex| regex.is_match(value.as_bytes())),
        }
    }
}

/// An expression that matches a whole text.
pub(super) fn whole(expression: &str) -> Option<Regex> {
    crate::resolve::expression::compile(expression)
}

/// What stands before the last `:` that is not part of an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host.rfind(']').is_none_or(|bracket| bracket < colon) => &host[..colon],
        _ => host,
    }
}

/// A path with dot segments resolved, `\` turned round, needless escapes undone and needed ones made.
///
/// An empty segment is a segment here: `/a//../b` is `/a/b`, because slashes are merged afterwards.
fn canonical(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, length) = decoded(&bytes[at..]);
        if byte == b'.' && out.last() == Some(&b'/') {
            at += length;
            let (second, second_length) = bytes.get(at..).filter(|rest| !rest.is_empty()).map_or((0, 0), decoded);
            let ends = |at: usize| bytes.get(at).is_none_or(|byte| matches!(byte, b'/' | b'\\'));
            if ends(at) {
                at += 1;
            } else if second == b'.' && ends(at + second_length) {
                at += second_length + 1;
                if out.len() > 1 {
                    out.pop();
                    let slash = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    out.truncate(slash + 1);
                }
            } else {
                out.push(b'.');
            }
            continue;
        }
        match byte {
            b'\\' if length == 1 => out.push(b'/'),
            b'%' => out.push(b'%'),
            _ if length == 3 && is_plain(byte) => out.push(byte),
            _ if length == 3 => out.extend_from_slice(&bytes[at..at + 3]),
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'}' | 0x00..=0x1f | 0x7f.. => {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => out.push(byte),
        }
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The first byte of a text, and how many it takes: three where it is escaped.
fn decoded(text: &[u8]) -> (u8, usize) {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (text[0], digit(1), digit(2)) {
        (b'%', Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or(b'%'), 3),
        (byte, ..) => (byte, 1),
    }
}

/// Whether an escape of it means nothing.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn merge_slashes(path: &str) -> String {
    if !path.contains("//") {
        return path.to_owned();
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let end = if path.ends_with('/') { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_listeners_do() {
        for (path, expected) in [
            ("/a//b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/./b/", "/a/b/"),
            ("/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/", "/"),
            ("/a//../b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.b/..c/d.", "/a/.b/..c/d."),
            ("/%61%2d%7e", "/a-~"),
            ("/%3a%zz", "/%3a%zz"),
            ("/a\\b\\..\\c", "/a/c"),
        ] {
            assert_eq!(merge_slashes(&canonical(path)), expected, "{path}");
        }
    }

    #[test]
    fn ports_are_no_part_of_hosts() {
        for (host, expected) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test"),
            ("a.test:", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), expected, "{host}");
        }
    }
}
