use std::collections::BTreeSet;
use std::sync::Arc;

use regex::bytes::Regex;
use serde_json::{Value, json};

use super::*;
use crate::emit::testing::{object, plan, upstream};
use crate::emit::{EmitOptions, Emitter, beyond, emit_gateway};
use crate::ir::policy::access::Access;
use crate::ir::upstream::Closed;
use crate::ir::{GatewayPlan, Upstream};
use crate::model::{EnvoyRelease, Kind};
use crate::render::to_json;
use crate::snapshot::ResourceType;
use crate::snapshot::verify::verify;

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

fn entry(index: usize) -> AccessEntry<Caller> {
    AccessEntry {
        policy: object(Kind::AccessPolicy, "read"),
        index,
        clients: None,
        paths: BTreeSet::new(),
        methods: BTreeSet::new(),
        headers: Default::default(),
        peers: BTreeSet::new(),
        remotes: BTreeSet::new(),
    }
}

fn guard(enforced: Option<Vec<AccessEntry<Caller>>>, dry_run: Option<Vec<AccessEntry<Caller>>>) -> Guard {
    let access = Access { enforced, dry_run, require_peer_tls: false };
    Guard { policies: vec![object(Kind::AccessPolicy, "read")], access }
}

fn block(text: &str, prefix: u8) -> Cidr {
    Cidr { address: text.parse().unwrap(), prefix }
}

fn shown(plan: &GatewayPlan, kind: ResourceType, name: &str) -> Value {
    let snapshot = emit_gateway(plan, &EmitOptions::default());
    assert_eq!(verify(&snapshot), [], "the checker refuses what was emitted");
    to_json(kind, snapshot.get(kind, name).unwrap()).unwrap()
}

/// The filters of a cluster with guards.
fn filters(guards: Vec<Guard>) -> Value {
    let plan = plan([], [Upstream { guards, ..upstream("cart") }]);
    let cluster = shown(&plan, ResourceType::Cluster, "svc/cluster-1/shop/cart/80");
    cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
        ["http_filters"]
        .clone()
}

#[test]
fn a_cluster_judges_requests_before_it_chooses_a_host() {
    let mut read = entry(0);
    read.paths = [TextPattern::Prefix("/a".into()), TextPattern::Exact("/b".into())].into();
    read.methods = ["GET".into()].into();
    read.headers = [(
        "x-role".into(),
        HeaderRule {
            values: [TextPattern::Suffix("min".into())].into(),
            not_values: [TextPattern::Exact("a.b".into()), TextPattern::Any].into(),
        },
    )]
    .into();
    read.peers = [block("10.0.0.0", 8)].into();
    read.remotes = [block("fd00::1", 128), block("192.0.2.1", 32)].into();
    let path = |matcher: Value| json!({"url_path": {"path": matcher}});
    let header = |name: &str, matcher: Value| json!({"header": {"name": name, "string_match": matcher}});
    let ip = |address: &str, length: u32| json!({"address_prefix": address, "prefix_len": length});
    let expected = json!([
        {"name": "chancery.access", "typed_config": {"@type": RBAC, "rules": {"policies": {"cluster-1/shop/read#0": {
            "permissions": [{"and_rules": {"rules": [
                {"or_rules": {"rules": [path(json!({"exact": "/b"})), path(json!({"prefix": "/a"}))]}},
                header(":method", json!({"exact": "GET"})),
                {"and_rules": {"rules": [
                    header("x-role", json!({"suffix": "min"})),
                    {"not_rule": header("x-role",
                        json!({"safe_regex": {"regex": r"(?:(?:(?:\C*[^n])?|(?:\C*[^i])?n)|(?:\C*[^m])?in)"}}))},
                ]}},
                {"not_rule": {"header": {"name": "x-role", "present_match": true}}},
                {"not_rule": header("x-role",
                    json!({"safe_regex": {"regex": r"(?:\C*,)?[ \t]*(?:a\.b)[ \t]*(?:,\C*)?"}}))},
            ]}}],
            "principals": [{"and_ids": {"ids": [
                {"direct_remote_ip": ip("10.0.0.0", 8)},
                {"or_ids": {"ids": [{"remote_ip": ip("192.0.2.1", 32)}, {"remote_ip": ip("fd00::1", 128)}]}},
            ]}}],
        }}}}},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}},
    ]);
    assert_eq!(filters(vec![guard(Some(vec![read]), None)]), expected);
}

/// The arithmetic of the filter: no rules allow everything, rules without entries nothing.
#[test]
fn nothing_is_denied_without_rules_and_everything_without_entries() {
    assert_eq!(filters(Vec::new()), Value::Null);
    let config = |guard: Guard| filters(vec![guard])[0]["typed_config"].clone();
    assert_eq!(config(guard(Some(Vec::new()), None)), json!({"@type": RBAC, "rules": {}}));
    let any = json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
    let dry = config(guard(None, Some(vec![entry(3)])));
    let expected = json!({
        "@type": RBAC, "shadow_rules_stat_prefix": "chancery_dry_run_",
        "shadow_rules": {"policies": {"cluster-1/shop/read#3": any}},
    });
    assert_eq!(dry, expected, "what is only evaluated denies nothing");
}

#[test]
fn several_guards_all_judge() {
    let all = filters(vec![guard(Some(vec![entry(0)]), None), guard(Some(Vec::new()), None)]);
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["chancery.access", "chancery.access.1", "envoy.filters.http.upstream_codec"]);
}

#[test]
fn on_a_gateway_the_caller_is_known_by_its_certificate_and_listeners_stay() {
    let mut mine = entry(0);
    let identities = Some([Name::from("spiffe://c1/ns/a/sa/b")].into());
    mine.clients = Some(vec![Caller { identities, ..Caller::default() }]);
    let open = plan([], []);
    let closed = GatewayPlan { guard: Some(Arc::new(guard(Some(vec![mine]), None))), ..open.clone() };
    let config = shown(&closed, ResourceType::Extension, "chancery.access");
    let expected = json!({"custom": {
        "name": "envoy.rbac.principals.mtls_authenticated",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
            "san_matcher": {"san_type": "URI", "matcher": {"exact": "spiffe://c1/ns/a/sa/b"}},
        },
    }});
    let rules = &config["typed_config"]["rules"];
    assert_eq!(rules["policies"]["cluster-1/shop/read#0"]["principals"], json!([expected]));
    let listener = |plan| shown(plan, ResourceType::Listener, "listener/8080");
    assert_eq!(listener(&open), listener(&closed));
}

#[test]
fn connections_are_judged_first_by_what_is_known_of_them() {
    let (mut by_path, mut by_token, mut by_address) = (entry(0), entry(1), entry(2));
    by_path.paths = [TextPattern::Exact("/a".into())].into();
    let principals = [TextPattern::Any].into();
    by_token.clients = Some(vec![Caller { principals, ..Caller::default() }]);
    by_address.peers = [block("10.0.0.0", 8)].into();
    let requests = guard(Some(vec![by_path, by_token.clone(), by_address.clone()]), Some(vec![by_token.clone()]));
    let connections = requests.for_connections(false);
    assert_eq!(connections.access.enforced, Some(vec![by_address]));
    assert_eq!(connections.access.dry_run, None);
    assert!(!connections.denies_everything());
    assert!(guard(Some(vec![by_token]), None).for_connections(false).denies_everything());
    let network = emit_network(&connections, "9000".to_owned());
    assert_eq!(network.rules.unwrap().policies.keys().collect::<Vec<_>>(), ["cluster-1/shop/read#2"]);
}

/// Tokens are known by the keys that routes set: one for each provider, since several tokens may have been verified.
#[test]
fn bearers_of_tokens_are_found_under_every_key() {
    let mut by_token = entry(0);
    by_token.clients = Some(vec![Caller {
        principals: [TextPattern::Any].into(),
        not_principals: [TextPattern::Prefix("https://bad/".into())].into(),
        ..Caller::default()
    }]);
    let shown = filters(vec![guard(Some(vec![by_token]), None)]);
    let rules = &shown[0]["typed_config"]["rules"]["policies"]["cluster-1/shop/read#0"]["principals"][0];
    let state = |key: &str, matcher: Value| json!({"filter_state": {"key": key, "string_match": matcher}});
    let keys =
        ["route", "destination"].map(|level| (0..4).map(move |index| format!("chancery.principal.{level}.{index}")));
    let keys: Vec<String> = keys.into_iter().flatten().collect();
    // Where no token was verified the key holds `-/-`.
    let some = |key: &String| {
        let any = state(key, json!({"safe_regex": {"regex": r"\C+"}}));
        json!({"and_ids": {"ids": [any, {"not_id": state(key, json!({"exact": "-/-"}))}]}})
    };
    let bad = |key: &String| state(key, json!({"prefix": "https://bad/"}));
    let expected = json!({"and_ids": {"ids": [
        {"or_ids": {"ids": keys.iter().map(some).collect::<Vec<_>>()}},
        {"not_id": {"or_ids": {"ids": keys.iter().map(bad).collect::<Vec<_>>()}}},
        // Where tokens are verified that nobody writes down, nobody is told from others.
        {"not_id": state("chancery.principal.more", json!({"exact": "yes"}))},
    ]}});
    assert_eq!(*rules, expected);
}

/// A repeated header reaches the filter as one, joined by commas: `notValues` holds for each value, whatever stands around.
#[test]
fn none_of_several_values_of_a_header_hides_behind_others() {
    use TextPattern::{Exact, Prefix, Suffix};
    let glob = TextPattern::Regex("(?s)ad.*in".into());
    for (pattern, found, not_found) in [
        (
            Exact("admin".into()),
            vec!["admin", "user,admin", "admin,user", "a, admin ,b", "\u{fffd},admin"],
            vec!["admins", "badmin", "a,admins", ""],
        ),
        (Exact("a.b*".into()), vec!["a.b*", "x,a.b*"], vec!["aXb*", "a.bb"]),
        (Prefix("adm".into()), vec!["admin", "user, admin", "adm", "adm,x"], vec!["xadm", "user,xadm"]),
        (Suffix("min".into()), vec!["admin", "admin,user", "min"], vec!["minx", "a,minx"]),
        (glob, vec!["admin", "adxin,user", "user,ad in"], vec!["xadin", "user,xadin"]),
    ] {
        // The same in the syntax of the crate: any byte.
        let regex = among_values(&pattern, false).replace(r"\C", "(?s-u:.)");
        let regex = Regex::new(&format!("^(?:{regex})$")).unwrap();
        for text in found {
            assert!(regex.is_match(text.as_bytes()), "{pattern:?} {text}");
        }
        for text in not_found {
            assert!(!regex.is_match(text.as_bytes()), "{pattern:?} {text}");
        }
        let no_text = b"\xff\xfe,".iter().chain(b"admin,a.b*,adxin,x").copied().collect::<Vec<u8>>();
        assert!(regex.is_match(&no_text) || matches!(pattern, Suffix(_)), "{pattern:?} behind bytes that are no text");
    }
}

/// Before the fix of CVE-2026-26308 `a` and `z` in two lines fit `a*z`, seen on 1.36.4 and 1.37.0; the host is one.
#[test]
fn where_lines_may_be_joined_nothing_with_a_comma_fits() {
    let glob = || [TextPattern::Regex("(?s)a.*z".into())].into();
    let rule = |values| HeaderRule { values, not_values: BTreeSet::new() };
    for (name, values, is_refused) in [
        ("x-a", glob(), true),
        ("x-a", [TextPattern::Exact("b,c".into())].into(), true),
        ("x-a", [TextPattern::Any].into(), false),
        ("x-a", BTreeSet::new(), false),
        ("host", glob(), false),
    ] {
        let mut own = entry(0);
        own.headers = [(name.into(), rule(values))].into();
        let guard = guard(Some(vec![own]), None);
        for (minor, may_join) in [(36, true), (37, true), (38, false), (40, false)] {
            let emitted = format!("{:?}", emit_http(&guard, EnvoyRelease::new(1, minor)));
            assert_eq!(emitted.contains(r#"Contains(",")"#), is_refused && may_join, "{name} {minor}: {emitted}");
        }
    }
}

#[test]
fn hosts_are_alike_in_either_case_with_a_dot_at_their_end_and_with_any_port() {
    let mut inside = entry(0);
    let (values, not_values) =
        ([TextPattern::Exact("a.example".into())].into(), [TextPattern::Exact("b.example".into())].into());
    inside.headers = [("host".into(), HeaderRule { values, not_values })].into();
    let all = filters(vec![guard(Some(vec![inside]), None)]);
    let rules = &all[0]["typed_config"]["rules"]["policies"]["cluster-1/shop/read#0"]["permissions"][0];
    let expected = json!({"and_rules": {"rules": [
        {"header": {"name": ":authority", "string_match": {
            "safe_regex": {"regex": r"(?i)(?:a\.example)\.?(?::[0-9]*)?"}}}},
        {"not_rule": {"header": {"name": ":authority", "string_match": {
            "safe_regex": {"regex": r"(?i)(?:\C*,)?[ \t]*(?:(?:b\.example)\.?(?::[0-9]*)?)[ \t]*(?:,\C*)?"}}}}},
    ]}});
    assert_eq!(*rules, expected);
    for (pattern, text, expected) in [
        (TextPattern::Exact("a.example".into()), "A.example", true),
        (TextPattern::Exact("a.example".into()), "a.example:8080", true),
        (TextPattern::Exact("a.example".into()), "a.example.:80", true),
        (TextPattern::Exact("a.example".into()), "a.example:", true),
        (TextPattern::Exact("a.example:8080".into()), "a.example:8080", true),
        (TextPattern::Exact("a.example:8080".into()), "a.example", false),
        (TextPattern::Exact("a.example".into()), "a.example.net", false),
        (TextPattern::Suffix(".example".into()), "b.example:1", true),
        (TextPattern::Suffix(".example".into()), "b.example.net:1", false),
        (TextPattern::Prefix("a.".into()), "a.b:1", true),
        (TextPattern::Regex(r"(?s)a.*\.example".into()), "ab.example.:443", true),
    ] {
        let regex = format!("(?i)^(?:{})$", host(&pattern).replace(r"\C", "(?s-u:.)"));
        assert_eq!(Regex::new(&regex).unwrap().is_match(text.as_bytes()), expected, "{pattern:?} {text}");
    }
}

/// R130: a release that refuses the filter gets a cluster without it, and where it would refuse requests, without hosts.
#[test]
fn r130_a_release_that_cannot_guard_a_destination_sends_nothing_there() {
    let judged = |guard: Guard| plan([], [Upstream { guards: vec![guard], ..upstream("cart") }]);
    let invalid = plan([], [Upstream { closed: Some(Closed::Deny), ..upstream("cart") }]);
    for (plan, is_served, told) in [
        (judged(guard(Some(vec![entry(0)]), None)), false, vec![true]),
        (judged(guard(Some(vec![]), None)), false, vec![true]),
        // What is evaluated only is left out.
        (judged(guard(None, Some(vec![entry(0)]))), true, vec![false]),
        // Its policy says already that it is invalid.
        (invalid, false, vec![]),
    ] {
        for (minor, can) in [(36, false), (38, false), (39, true)] {
            let options = EmitOptions { release: EnvoyRelease::new(1, minor), ..EmitOptions::default() };
            let snapshot = emit_gateway(&plan, &options);
            assert_eq!(verify(&snapshot), [], "1.{minor}");
            let shown = |kind| {
                let resource = snapshot.get(kind, "svc/cluster-1/shop/cart/80").unwrap();
                to_json(kind, resource).unwrap().to_string()
            };
            assert_eq!(shown(ResourceType::Cluster).contains("rbac"), can, "1.{minor}");
            assert_eq!(shown(ResourceType::Endpoint).contains("lb_endpoints"), can || is_served, "1.{minor}");
            let beyond = beyond(&plan, options.release);
            let closes: Vec<bool> = beyond.iter().map(|beyond| beyond.closes).collect();
            assert_eq!(closes, if can { vec![] } else { told.clone() }, "1.{minor}");
            let mut emitter = Emitter::default();
            assert_eq!(emitter.emit(&plan, &options), snapshot, "1.{minor}");
            assert_eq!(emitter.beyond(), beyond, "1.{minor}");
        }
    }
}
