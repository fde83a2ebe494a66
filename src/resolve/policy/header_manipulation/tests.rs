use super::super::tests::{Meaning, meaning};
use super::*;
use crate::ir::policy::Policy;
use crate::model::Kind;

fn headers(config: &str) -> Meaning {
    meaning(Kind::HeaderManipulationPolicy, config)
}

fn valid(config: &str) -> HeaderManipulation {
    match headers(config).valid() {
        Policy::HeaderManipulation(headers) => headers,
        other => panic!("{other:?}"),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<Name, Name> {
    pairs.iter().map(|(name, value)| (Name::from(*name), Name::from(*value))).collect()
}

fn set(names: &[&str]) -> BTreeSet<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

#[test]
fn every_field_has_its_effect_and_names_lose_their_case() {
    let config = "
removeRequestHeaders: [X-Debug, x-b]
appendRequestHeaders: {X-A: '1', x-b: new}
removeResponseHeaders: [Server]
appendResponseHeaders: {x-c: ''}
";
    let expected = HeaderManipulation {
        append_request: map(&[("x-a", "1"), ("x-b", "new")]),
        remove_request: set(&["x-debug", "x-b"]),
        append_response: map(&[("x-c", "")]),
        remove_response: set(&["server"]),
        host: None,
    };
    assert_eq!(valid(config), expected);
}

#[test]
fn a_host_in_the_append_map_becomes_the_rewritten_host() {
    for name in ["Host", "host", "':authority'"] {
        let headers = valid(&format!("appendRequestHeaders: {{{name}: inner.example}}"));
        assert_eq!((headers.host.as_deref(), headers.append_request.len()), (Some("inner.example"), 0), "{name}");
    }
    assert_eq!(headers("appendRequestHeaders: {Host: 100%}").fault(), "spec.config.appendRequestHeaders.Host");
    let both = "appendRequestHeaders: {Host: a.example, ':authority': b.example}";
    assert_eq!(headers(both).fault(), "spec.config.appendRequestHeaders.Host");
}

#[test]
fn host_and_pseudo_headers_that_envoy_refuses_are_skipped_with_a_remark() {
    let remarks = |config: &str| {
        let meaning = headers(config);
        let remarks = meaning.remarks.clone();
        let kept = match meaning.valid() {
            Policy::HeaderManipulation(headers) => headers,
            other => panic!("{other:?}"),
        };
        assert_eq!(kept, valid("appendRequestHeaders: {x-kept: '1'}"), "{config}");
        remarks
    };
    let kept = "appendRequestHeaders: {x-kept: '1'}";
    for (field, config) in [
        ("appendRequestHeaders.Content-Length", "appendRequestHeaders: {x-kept: '1', Content-Length: '3'}".to_owned()),
        (
            "appendRequestHeaders.transfer-encoding",
            "appendRequestHeaders: {x-kept: '1', transfer-encoding: chunked}".to_owned(),
        ),
        ("appendResponseHeaders.content-length", format!("{kept}\nappendResponseHeaders: {{content-length: '3'}}")),
        ("appendRequestHeaders.connection", "appendRequestHeaders: {x-kept: '1', connection: x-a}".to_owned()),
        ("removeRequestHeaders[0]", format!("{kept}\nremoveRequestHeaders: [Host]")),
        ("removeRequestHeaders[0]", format!("{kept}\nremoveRequestHeaders: [':path']")),
        ("removeResponseHeaders[0]", format!("{kept}\nremoveResponseHeaders: [':status']")),
        ("appendRequestHeaders.:path", "appendRequestHeaders: {x-kept: '1', ':path': /}".to_owned()),
        ("appendResponseHeaders.:status", format!("{kept}\nappendResponseHeaders: {{':status': '200'}}")),
        ("appendResponseHeaders.host", format!("{kept}\nappendResponseHeaders: {{host: a}}")),
    ] {
        let found = remarks(&config);
        let expected = FieldPath::new("spec.config").to_string();
        assert_eq!(found.len(), 1, "{config}");
        assert!(found[0].starts_with(&expected) && found[0].contains(field.split('.').next().unwrap_or(field)));
    }
}

#[test]
fn what_envoy_refuses_or_takes_wrongly_makes_the_policy_invalid() {
    let long = "x".repeat(MAX_TEXT + 1);
    let many: Vec<String> = (0..=MAX_ADDED).map(|n| format!("x-{n}: a")).collect();
    for (what, config) in [
        ("a name with a space", "removeRequestHeaders: ['x a']".to_owned()),
        ("an empty name", "removeResponseHeaders: ['']".to_owned()),
        ("a name with a colon", "appendRequestHeaders: {'x:a': b}".to_owned()),
        ("a name that is not ASCII", "appendResponseHeaders: {'x-ä': b}".to_owned()),
        ("a name with a line break", "appendResponseHeaders: {\"x\\na\": b}".to_owned()),
        ("CR in a value", "appendRequestHeaders: {x-a: \"b\\rc\"}".to_owned()),
        ("LF in a value", "appendResponseHeaders: {x-a: \"b\\nx-injected: c\"}".to_owned()),
        ("NUL in a value", "appendRequestHeaders: {x-a: \"b\\0\"}".to_owned()),
        ("LF in a host", "appendRequestHeaders: {Host: \"b\\n\"}".to_owned()),
        ("one header twice", "appendRequestHeaders: {X-A: b, x-a: c}".to_owned()),
        ("a value that is too long", format!("appendRequestHeaders: {{x-a: {long}}}")),
        (
            "a value that is too long once written out",
            format!("appendRequestHeaders: {{x-a: '{}'}}", "%".repeat(16_383)),
        ),
        ("a name that is too long", format!("appendRequestHeaders: {{'{long}': a}}")),
        ("too many", format!("appendRequestHeaders: {{{}}}", many.join(", "))),
    ] {
        let field = headers(&config).fault();
        assert!(field.starts_with("spec.config."), "{what}: {field}");
    }
    valid(&format!("appendRequestHeaders: {{x-a: {}}}", "x".repeat(MAX_TEXT)));
}

#[test]
fn values_are_formats_only_where_all_of_it_parses() {
    for (value, expected) in [
        ("plain", "plain"),
        ("100%", "100%%"),
        ("%%", "%%"),
        ("%ROUTE_NAME%", "%ROUTE_NAME%"),
        ("%REQ(x-a?:path)%", "%REQ(x-a?:path)%"),
        ("%REQ(a%", "%%REQ(a%%"),
        ("%REQ()%", "%%REQ()%%"),
        ("%NO_SUCH_COMMAND%", "%%NO_SUCH_COMMAND%%"),
        ("%DYNAMIC_METADATA(x)%", "%%DYNAMIC_METADATA(x)%%"),
        ("%ROUTE_NAME% 100%", "%%ROUTE_NAME%% 100%%"),
    ] {
        assert_eq!(format_or_literal(value), expected);
    }
}

fn merged(configs: &[&str]) -> (HeaderManipulation, Vec<(String, String, String)>) {
    let policies: Vec<(ObjectRef, HeaderManipulation)> = configs
        .iter()
        .enumerate()
        .map(|(n, config)| {
            let id = ObjectRef::new(Kind::HeaderManipulationPolicy, "c", "ns", format!("p{n}"));
            (id, valid(config))
        })
        .collect();
    let mut beaten = Vec::new();
    let merged = merge(policies.iter().map(|(id, headers)| (id, headers)), &mut beaten);
    let beaten = beaten.into_iter().map(|b| (b.loser.name.to_string(), b.winner.name.to_string(), b.part)).collect();
    (merged, beaten)
}

/// R127.
#[test]
fn headers_of_all_policies_apply_and_the_oldest_decides_each() {
    let (headers, beaten) = merged(&[
        "{appendRequestHeaders: {x-team: shop, x-a: '1', Host: old.example}, removeResponseHeaders: [server]}",
        "{appendRequestHeaders: {X-Team: other, x-b: '2', Host: new.example}, appendResponseHeaders: {server: mine}}",
        "{removeRequestHeaders: [x-b], appendResponseHeaders: {x-team: back}}",
    ]);
    assert_eq!(headers.append_request, map(&[("x-team", "shop"), ("x-a", "1"), ("x-b", "2")]));
    assert_eq!(headers.host.as_deref(), Some("old.example"));
    assert_eq!(headers.append_response, map(&[("x-team", "back")]), "the other direction is another header");
    assert_eq!((headers.remove_request, headers.remove_response), (set(&[]), set(&["server"])));
    let lost = |loser: &str, winner: &str, part: &str| (loser.to_owned(), winner.to_owned(), part.to_owned());
    assert_eq!(
        beaten,
        [
            lost("p1", "p0", "the request header `host`"),
            lost("p1", "p0", "the request header `x-team`"),
            lost("p1", "p0", "the response header `server`"),
            lost("p2", "p1", "the request header `x-b`"),
        ]
    );
}

#[test]
fn one_policy_may_replace_a_header_by_removing_and_adding_it() {
    let (headers, beaten) = merged(&["{removeRequestHeaders: [x-a], appendRequestHeaders: {x-a: new}}"]);
    assert_eq!((headers.remove_request, headers.append_request), (set(&["x-a"]), map(&[("x-a", "new")])));
    assert_eq!(beaten, []);
}

#[test]
fn together_policies_add_no_more_than_envoy_takes() {
    let list = |from: usize| {
        let lines: Vec<String> = (from..from + 600).map(|n| format!("x-{n:04}: a")).collect();
        format!("appendResponseHeaders: {{{}}}", lines.join(", "))
    };
    let (headers, beaten) = merged(&[&list(0), &list(600)]);
    assert_eq!((headers.append_response.len(), beaten.len()), (MAX_ADDED, 200));
    assert!(beaten.iter().all(|(loser, winner, _)| (loser.as_str(), winner.as_str()) == ("p1", "p0")));
}
