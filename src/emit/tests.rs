//! Goldens of single messages, and what must hold for all of them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ir::listener::{CertificateSource, ClientCertificate, Tls, TlsVersion, TrustSource};
use crate::ir::policy::csrf::Csrf;
use crate::ir::policy::{
    FaultDelay, FaultInjection, OriginMatch, OriginPattern, Policy, Retries, RetryTimeout, Teapot,
};
use crate::ir::route::{HostRewrite, PathRewrite, ValueMatch};
use crate::ir::secret::{AltName, SecretId, SecretPart};
use crate::ir::upstream::{Closed, Endpoint, Locality, UpstreamProtocol};
use crate::ir::{GatewayPlan, Secret, Serves};
use crate::model::{Host, Kind, PathMatch, SecretBytes};
use crate::render::to_json;
use crate::snapshot::verify::verify;
use crate::snapshot::{ResourceType, Snapshot};

mod limits;
mod transports;

use super::testing::*;
use super::{EmitOptions, emit_gateway};

/// Emits a plan and holds it against the independent checker.
fn emit(plan: &GatewayPlan) -> Snapshot {
    let snapshot = emit_gateway(plan, &EmitOptions::default());
    assert_eq!(verify(&snapshot), [], "the checker refuses what was emitted");
    snapshot
}

fn show(snapshot: &Snapshot, resource_type: ResourceType, name: &str) -> Value {
    to_json(resource_type, snapshot.get(resource_type, name).unwrap()).unwrap()
}

/// The Envoy routes that one route becomes, on a host of its own.
fn routes(route: TestRoute) -> Vec<Value> {
    let upstreams = ["cart", "cart-v2"].map(upstream);
    let snapshot = emit(&plan([host("shop.example", [route])], upstreams));
    let shown = show(&snapshot, ResourceType::Route, "route/8080");
    shown["virtual_hosts"][0]["routes"].as_array().unwrap().clone()
}

fn only(route: TestRoute) -> Value {
    let mut routes = routes(route);
    assert_eq!(routes.len(), 1, "{routes:#?}");
    routes.remove(0)
}

fn cluster(upstream: crate::ir::Upstream) -> (Value, Value) {
    let name = super::name::cluster(&upstream.id);
    let snapshot = emit(&plan([], [upstream]));
    (show(&snapshot, ResourceType::Cluster, &name), show(&snapshot, ResourceType::Endpoint, &name))
}

const CART: &str = "svc/cluster-1/shop/cart/80";

#[test]
fn listener_golden() {
    let snapshot = emit(&plan([], []));
    let expected = json!({
        "name": "listener/8080",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "forward_client_cert_details": "SANITIZE_SET",
                "http_filters": http_filters(),
                "merge_slashes": true,
                "normalize_path": true,
                "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
                "rds": {
                    "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                    "route_config_name": "route/8080",
                },
                "stat_prefix": "8080",
                "stream_idle_timeout": "300s",
                "use_remote_address": true,
            },
        }]}],
    });
    assert_eq!(show(&snapshot, ResourceType::Listener, "listener/8080"), expected);
}

/// The chain as the manual's reference orders it: phases from the outside in, and in them what is cheap first.
fn http_filters() -> Vec<Value> {
    let url = |filter: &str, message: &str| {
        format!("type.googleapis.com/envoy.extensions.filters.http.{filter}.v3.{message}")
    };
    let here = |name: &str, filter: &str, message: &str| json!({"name": name, "typed_config": {"@type": url(filter, message)}});
    let found = |name: &str, filter: &str, message: &str| {
        json!({"name": name, "config_discovery": {
            "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "type_urls": [url(filter, message)],
        }})
    };
    let holder = |name: &str| here(name, "composite", "Composite");
    let rules = |name: &str| here(name, "rbac", "RBAC");
    let lane = |lane: &str| {
        let name = |what: &str| format!("chancery.{what}");
        let headers = |what: &str| here(&name(what), "header_mutation", "HeaderMutation");
        let holders = |places: [u8; 3]| places.map(|place| holder(&name(&format!("{lane}.{place}"))));
        let verified = |level: u8| {
            let strip = headers(&format!("jwt-strip.{lane}.{level}"));
            [strip, found(&name(&format!("jwt.{lane}.{level}")), "jwt_authn", "JwtAuthentication")]
        };
        let claims = [0, 1].map(|level| rules(&name(&format!("jwt-claims.{lane}.{level}"))));
        let appended = [0, 1].map(|level| headers(&format!("jwt-headers.{lane}.{level}")));
        let before = holders([0, 1, 2]).into_iter().chain(verified(0)).chain(verified(1));
        before.chain(claims).chain(appended).chain(holders([3, 4, 5])).collect::<Vec<_>>()
    };
    let mut csrf = here("chancery.csrf", "csrf", "CsrfPolicy");
    csrf["typed_config"]["filter_enabled"] = json!({"default_value": {"denominator": "MILLION"}});
    let mut key_headers = here("chancery.auth.key-headers", "lua", "Lua");
    let script = super::filter::key_headers_script();
    key_headers["typed_config"]["source_codes"] = json!({"key-headers": {"inline_string": script}});
    let marks = ["pre.0", "pre.1", "post.0", "post.1"]
        .map(|place| here(&format!("chancery.jwt-mark.{place}"), "set_filter_state", "Config"));
    [
        marks.to_vec(),
        vec![here("chancery.fault", "fault", "HTTPFault"), here("chancery.cors", "cors", "Cors")],
        lane("pre"),
        vec![
            here("chancery.principal", "set_filter_state", "Config"),
            found("chancery.access", "rbac", "RBAC"),
            found("chancery.auth.jwt", "jwt_authn", "JwtAuthentication"),
            rules("chancery.auth.jwt-claims"),
            holder("chancery.auth.basic"),
            holder("chancery.auth.key"),
            key_headers,
            found("chancery.extauth.0", "ext_authz", "ExtAuthz"),
            found("chancery.extauth.1", "ext_authz", "ExtAuthz"),
            found("chancery.extauth.2", "ext_authz", "ExtAuthz"),
            found("chancery.extauth.3", "ext_authz", "ExtAuthz"),
            found("chancery.extauth.4", "ext_authz", "ExtAuthz"),
            found("chancery.extauth.5", "ext_authz", "ExtAuthz"),
            rules("chancery.auth.or"),
        ],
        lane("post"),
        vec![csrf, here("envoy.filters.http.router", "router", "Router")],
    ]
    .concat()
}

/// Filters that are discovered and have no policy: nothing is verified, nothing denied, and nobody to ask for permission.
#[test]
fn discovered_filters_golden() {
    let snapshot = emit(&plan([], []));
    let show = |name: &str| show(&snapshot, ResourceType::Extension, name)["typed_config"].clone();
    let url = |rest: &str| format!("type.googleapis.com/envoy.extensions.filters.http.{rest}");
    let tokens = ["pre.0", "pre.1", "post.0", "post.1"].map(|slot| format!("chancery.jwt.{slot}"));
    for name in tokens.iter().map(String::as_str).chain(["chancery.auth.jwt"]) {
        let expected = json!({"@type": url("jwt_authn.v3.JwtAuthentication"), "strip_failure_response": true});
        assert_eq!(show(name), expected);
    }
    assert_eq!(show("chancery.access"), json!({"@type": url("rbac.v3.RBAC")}));
    for slot in 0..6 {
        let expected = json!({
            "@type": url("ext_authz.v3.ExtAuthz"),
            "grpc_service": {"envoy_grpc": {"cluster_name": "chancery.nobody"}},
            "transport_api_version": "V3",
        });
        assert_eq!(show(&format!("chancery.extauth.{slot}")), expected);
    }
    assert_eq!(snapshot.resources(ResourceType::Extension).len(), 12);
}

#[test]
fn cluster_and_endpoint_golden() {
    let mut cart = upstream("cart");
    let zone = |zone: &str| Locality { region: "eu".into(), zone: zone.into(), sub_zone: "".into() };
    let endpoint = |address: &str| Endpoint::direct(address.into(), 8000);
    cart.protocol = UpstreamProtocol::Http2;
    cart.endpoints = [
        (zone("b"), vec![endpoint("10.0.0.3")]),
        (zone("a"), vec![endpoint("10.0.0.2"), endpoint("10.0.0.1"), endpoint("10.0.0.2")]),
        (zone("c"), Vec::new()),
    ]
    .into();
    let (cluster, endpoints) = cluster(cart);
    let expected = json!({
        "name": CART,
        "alt_stat_name": "shop/cart/80",
        "circuit_breakers": {"thresholds": [{
            "max_connections": 4_294_967_295_u32, "max_pending_requests": 4_294_967_295_u32,
            "max_requests": 4_294_967_295_u32, "max_retries": 4_294_967_295_u32,
        }]},
        "connect_timeout": "10s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": "envoy.load_balancing_policies.least_request",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            },
        }}]},
        "metadata": {"filter_metadata": {"chancery": {"objects": ["Service/shop/cart@cluster-1"]}}},
        "type": "EDS",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    });
    assert_eq!(cluster, expected);
    let shown = |address: &str| {
        json!({"endpoint": {
            "address": {"socket_address": {"address": address, "port_value": 8000}},
            "hostname": "cart.shop.svc.cluster.local",
        }})
    };
    let expected = json!({
        "cluster_name": CART,
        "endpoints": [
            {"lb_endpoints": [shown("10.0.0.1"), shown("10.0.0.2")], "locality": {"region": "eu", "zone": "a"}},
            {"lb_endpoints": [shown("10.0.0.3")], "locality": {"region": "eu", "zone": "b"}},
        ],
    });
    assert_eq!(endpoints, expected);
}

#[test]
fn closed_destinations() {
    let (denied, endpoints) = cluster(closed("cart", Closed::Deny));
    let options = &denied["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let expected = json!([
        {"name": "chancery.deny", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {}}},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"}},
    ]);
    assert_eq!(options["http_filters"], expected, "D2: rules without policies deny");
    assert!(endpoints.get("endpoints").is_some());

    let (hole, endpoints) = cluster(closed("cart", Closed::BlackHole));
    assert_eq!(hole["name"], CART);
    assert_eq!(endpoints, json!({"cluster_name": CART}), "D4: no endpoints");
}

#[test]
fn route_configuration_golden() {
    let unverified = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
    let off = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "disabled": true,
    });
    let snapshot = emit(&plan([host("*.shop.example", [route("gone").prefix("/old").direct(410, "gone")])], []));
    let expected = json!({
        "name": "route/8080",
        "ignore_port_in_host_matching": true,
        "max_direct_response_body_size_bytes": 1_048_576,
        "typed_per_filter_config": {
            "chancery.extauth.0": off, "chancery.extauth.1": off, "chancery.extauth.2": off, "chancery.extauth.3": off,
            "chancery.extauth.4": off, "chancery.extauth.5": off,
            "chancery.jwt.pre.0": unverified, "chancery.jwt.pre.1": unverified, "chancery.jwt.post.0": unverified,
            "chancery.jwt.post.1": unverified,
        },
        "validate_clusters": false,
        "virtual_hosts": [{
            "name": "*.shop.example",
            "domains": ["*.shop.example"],
            "metadata": {"filter_metadata": {"chancery": {"tables": ["RouteTable/shop/www@cluster-1"]}}},
            "routes": [{
                "name": "shop/www:gone",
                "direct_response": {"body": {"inline_string": "gone"}, "status": 410},
                "match": {"prefix": "/old"},
            }],
        }],
    });
    assert_eq!(show(&snapshot, ResourceType::Route, "route/8080"), expected);
}

#[test]
fn r67_no_hosts_is_404_for_all() {
    let snapshot = emit(&plan([], []));
    assert_eq!(show(&snapshot, ResourceType::Route, "route/8080").get("virtual_hosts"), None);
}

#[test]
fn forwarding_golden() {
    let expected = json!({
        "name": "shop/www:cart",
        "match": {"prefix": "/"},
        "route": {
            "cluster": CART,
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            "timeout": "0s",
        },
    });
    assert_eq!(only(route("cart").forward("cart", 100)), expected);
}

#[test]
fn baseline_retries_stand_on_the_virtual_host() {
    let host_of = |route: TestRoute| {
        let snapshot = emit(&plan([host("shop.example", [route])], [upstream("cart")]));
        show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0].clone()
    };
    let expected = json!({
        "host_selection_retry_max_attempts": 5,
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type":
                "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    });
    assert_eq!(host_of(route("a").forward("cart", 100))["retry_policy"], expected);
    assert_eq!(host_of(route("a").direct(200, "")).get("retry_policy"), None, "nothing to retry");
}

#[test]
fn r73_matchers() {
    let exact = |text: &str| ValueMatch::Exact(text.into());
    let regex = |text: &str| ValueMatch::Regex(text.into());
    for (route, expected) in [
        (route("a"), json!({"prefix": "/"})),
        (route("a").prefix(""), json!({"prefix": "/"})),
        (route("a").prefix("/foo"), json!({"prefix": "/foo"})),
        (route("a").prefix("/foo").ignoring_case(), json!({"prefix": "/foo", "case_sensitive": false})),
        (route("a").path(PathMatch::Exact("/a".into())), json!({"path": "/a"})),
        (route("a").path(PathMatch::Regex("/a.*".into())).ignoring_case(), json!({"safe_regex": {"regex": "/a.*"}})),
        (
            route("a").method("GET"),
            json!({"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}),
        ),
        (
            route("a").header("x", ValueMatch::Present).header("y", exact("1")).header("z", regex("[0-9]+")),
            json!({"prefix": "/", "headers": [
                {"name": "x", "present_match": true},
                {"name": "y", "string_match": {"exact": "1"}},
                {"name": "z", "string_match": {"safe_regex": {"regex": "[0-9]+"}}},
            ]}),
        ),
        (
            route("a").not_header("x", ValueMatch::Present).not_header("y", exact("1")),
            json!({"prefix": "/", "headers": [
                {"name": "x", "present_match": true, "invert_match": true},
                {"name": "y", "string_match": {"exact": "1"}, "invert_match": true,
                 "treat_missing_header_as_empty": true},
            ]}),
        ),
        (
            route("a").query("p", ValueMatch::Present).query("q", exact("1")).query("r", regex("a+")),
            json!({"prefix": "/", "query_parameters": [
                {"name": "p", "present_match": true},
                {"name": "q", "string_match": {"exact": "1"}},
                {"name": "r", "string_match": {"safe_regex": {"regex": "a+"}}},
            ]}),
        ),
    ] {
        let shown = only(route);
        assert_eq!(shown["match"], expected);
    }
}

#[test]
fn a_negated_expression_that_takes_nothing_has_two_alternatives() {
    let shown = routes(route("a").not_header("x", ValueMatch::Regex("a*".into())));
    let headers: Vec<&Value> = shown.iter().map(|route| &route["match"]["headers"]).collect();
    assert_eq!(
        headers,
        [
            &json!([{"name": "x", "present_match": true, "invert_match": true}]),
            &json!([{"name": "x", "string_match": {"safe_regex": {"regex": "a*"}}, "invert_match": true}]),
        ]
    );
    assert_eq!([&shown[0]["name"], &shown[1]["name"]], ["shop/www:a", "shop/www:a#2"]);

    let mut many = route("a");
    for _ in 0..20 {
        many = many.not_header("x", ValueMatch::Regex("a*".into()));
    }
    assert_eq!(routes(many).len(), 16, "a matcher cannot grow without bound");
}

#[test]
fn r78_rewrites_and_r79_redirects() {
    let rewritten = |path, host| {
        let shown = only(route("a").prefix("/a").forward("cart", 100).rewriting(path, host));
        let action = shown["route"].clone();
        ["prefix_rewrite", "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite"]
            .into_iter()
            .filter_map(|key| Some((key, action.get(key)?.clone())))
            .collect::<Vec<_>>()
    };
    assert_eq!(rewritten(None, None), []);
    assert_eq!(rewritten(Some(PathRewrite::Prefix("/b".into())), None), [("prefix_rewrite", json!("/b"))]);
    let regex = PathRewrite::Regex { pattern: "/a/(.*)".into(), substitution: "/b/\\1".into() };
    assert_eq!(
        rewritten(Some(regex), Some(HostRewrite::Literal("h.example".into()))),
        [
            ("regex_rewrite", json!({"pattern": {"regex": "/a/(.*)"}, "substitution": "/b/\\1"})),
            ("host_rewrite_literal", json!("h.example")),
        ]
    );
    assert_eq!(rewritten(None, Some(HostRewrite::Auto)), [("auto_host_rewrite", json!(true))]);

    for (route, expected) in [
        (
            route("r").redirect(Some("h.example"), Some("/b"), 308),
            json!({"host_redirect": "h.example", "path_redirect": "/b", "response_code": "PERMANENT_REDIRECT"}),
        ),
        (route("r").redirect(Some("h.example"), None, 301), json!({"host_redirect": "h.example"})),
        (route("r").redirect(None, Some("/b"), 302), json!({"path_redirect": "/b", "response_code": "FOUND"})),
    ] {
        assert_eq!(only(route)["redirect"], expected);
    }
}

#[test]
fn header_manipulation_on_route_and_destination() {
    let shown = only(
        route("a")
            .weighted("cart", 30, [request_headers(&[("x-d", "1")], &["x-e"]), new_host("d.example")])
            .forward("cart-v2", 70)
            .policy(request_headers(&[("x-b", "%REQ(x-c)%"), ("x-a", "1")], &["x-z", "x-y"]))
            .policy(response_headers(&[("x-r", "1")], &["server"])),
    );
    let added = |name: &str, value: &str| json!({"header": {"key": name, "value": value}});
    assert_eq!(shown["request_headers_to_add"], json!([added("x-a", "1"), added("x-b", "%REQ(x-c)%")]));
    assert_eq!(shown["request_headers_to_remove"], json!(["x-y", "x-z"]));
    assert_eq!(shown["response_headers_to_add"], json!([added("x-r", "1")]));
    assert_eq!(shown["response_headers_to_remove"], json!(["server"]));
    let expected = json!({"clusters": [
        {"name": CART, "host_rewrite_literal": "d.example", "request_headers_to_add": [added("x-d", "1")],
         "request_headers_to_remove": ["x-e"], "weight": 30},
        {"name": "svc/cluster-1/shop/cart-v2/80", "weight": 70},
    ]});
    assert_eq!(shown["route"]["weighted_clusters"], expected);

    let hosted = only(
        route("a")
            .forward("cart", 100)
            .rewriting(None, Some(HostRewrite::Literal("own.example".into())))
            .policy(new_host("policy.example")),
    );
    assert_eq!(hosted["route"]["host_rewrite_literal"], "policy.example", "the policy works on the route's result");
}

#[test]
fn a_lone_destination_with_policies_is_a_weighted_cluster() {
    let tea = Policy::Teapot(Teapot { tea: "assam".into() });
    let shown = only(route("a").weighted("cart", 7, [tea]));
    let expected = json!({"clusters": [{
        "name": CART,
        "response_headers_to_add": [{"header": {"key": "x-teapot", "value": "assam"}}],
        "weight": 100,
    }]});
    assert_eq!(shown["route"]["weighted_clusters"], expected);
}

#[test]
fn retry_timeout_rows() {
    let retries = Retries {
        attempts: 3,
        per_try_timeout: Some(Duration::from_millis(1500)),
        retry_on: vec!["reset".into(), "5xx".into(), "retriable-status-codes".into()],
        retriable_status_codes: vec![409],
        retry_remote_localities: true,
    };
    let action = |timeout: Option<Duration>, retries: Option<Retries>| {
        let policy = Policy::RetryTimeout(RetryTimeout { request_timeout: timeout, retries });
        only(route("a").forward("cart", 100).policy(policy))["route"].clone()
    };
    let shown = action(Some(Duration::from_secs(2)), Some(retries.clone()));
    assert_eq!(shown["timeout"], "2s");
    // Beside it Envoy would ignore the timeout.
    assert_eq!(shown["max_stream_duration"], json!(null));
    let policy = &shown["retry_policy"];
    assert_eq!(policy["num_retries"], 3);
    assert_eq!(policy["per_try_timeout"], "1.500s");
    assert_eq!(policy["retry_on"], "reset,5xx,retriable-status-codes");
    assert_eq!(policy["retriable_status_codes"], json!([409]));
    let expected = json!({
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type":
                "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 2,
        },
    });
    assert_eq!(policy["retry_priority"], expected);

    let none = action(None, Some(Retries { attempts: 0, ..retries.clone() }));
    assert_eq!(none["retry_policy"], json!({"num_retries": 0}), "0 attempts switch the host's retries off");
    assert_eq!(none["timeout"], "0s");
}

#[test]
fn fault_injection_golden() {
    let policy = Policy::FaultInjection(FaultInjection {
        delay: Some(FaultDelay { fixed_delay: Duration::from_millis(50), per_million: 1 }),
        abort: Some(crate::ir::policy::FaultAbort { http_status: 418, per_million: 1_000_000 }),
    });
    let expected = json!({"chancery.fault": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 418, "percentage": {"denominator": "MILLION", "numerator": 1_000_000}},
        "delay": {"fixed_delay": "0.050s", "percentage": {"denominator": "MILLION", "numerator": 1}},
        "disable_downstream_cluster_stats": true,
    }});
    let redirect = route("a").redirect(None, Some("/b"), 301).policy(policy);
    assert_eq!(only(redirect)["typed_per_filter_config"], expected);
}

#[test]
fn cors_golden_and_preflight_twin() {
    let expected = json!({"chancery.cors": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_credentials": true,
        "allow_headers": "x-a",
        "allow_methods": "GET, POST",
        "allow_origin_string_match": [{"prefix": "https://a."}],
        "max_age": "3600",
    }});
    let policy = || cors(OriginPattern::Prefix("https://a.".into()));
    assert_eq!(only(route("a").forward("cart", 100).policy(policy()))["typed_per_filter_config"], expected);
    assert_eq!(only(route("a").method("OPTIONS").policy(policy()))["typed_per_filter_config"], expected);

    let shown = routes(route("a").prefix("/p").method("POST").forward("cart", 100).policy(policy()));
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[1]["name"], "shop/www:a#preflight");
    let expected_match = json!({"prefix": "/p", "headers": [
        {"name": ":method", "string_match": {"exact": "OPTIONS"}},
        {"name": "access-control-request-method", "string_match": {"exact": "POST"}},
    ]});
    assert_eq!(shown[1]["match"], expected_match);
    assert_eq!(shown[1]["typed_per_filter_config"], expected);
    assert_eq!(shown[1]["route"], shown[0]["route"]);
}

/// The policy reference, CSRFPolicy: never a share of shadow, never without the switch that Envoy demands.
#[test]
fn csrf_golden() {
    let share = |per_million: u32| match per_million {
        0 => json!({"default_value": {"denominator": "MILLION"}}),
        some => json!({"default_value": {"numerator": some, "denominator": "MILLION"}}),
    };
    let slot = |csrf: Csrf| {
        let route = only(route("a").forward("cart", 100).policy(Policy::Csrf(csrf)));
        route["typed_per_filter_config"]["chancery.csrf"].clone()
    };
    let origin = OriginMatch { pattern: OriginPattern::Exact("login.example:8443".into()), ignore_case: true };
    let enforced = Csrf { enforced_per_million: 125_000, additional_origins: vec![origin], ..Default::default() };
    let expected = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
        "filter_enabled": share(125_000),
        "additional_origins": [{"exact": "login.example:8443", "ignore_case": true}],
    });
    assert_eq!(slot(enforced), expected);
    let shadow = slot(Csrf { shadow: true, ..Default::default() });
    assert_eq!((&shadow["filter_enabled"], &shadow["shadow_enabled"]), (&share(0), &share(1_000_000)));
    assert_eq!(slot(Csrf::default()), Value::Null, "it neither refuses nor counts");
}

#[test]
fn policies_do_not_touch_listeners_or_clusters() {
    let with = |route: TestRoute| emit(&plan([host("*", [route.forward("cart", 100)])], [upstream("cart")]));
    let bare = with(route("a"));
    for policy in [
        abort(503, 1),
        cors(OriginPattern::Exact("https://a.example".into())),
        request_headers(&[("a", "b")], &[]),
        Policy::Teapot(Teapot { tea: "sencha".into() }),
    ] {
        let policed = with(route("a").policy(policy));
        for resource_type in [ResourceType::Listener, ResourceType::Cluster, ResourceType::Endpoint] {
            assert_eq!(bare.type_version(resource_type), policed.type_version(resource_type), "{resource_type:?}");
        }
        assert_ne!(bare.type_version(ResourceType::Route), policed.type_version(ResourceType::Route));
    }
}

#[test]
fn endpoints_are_their_own_lane() {
    let with = |upstream| emit(&plan([host("*", [route("a").forward("cart", 100)])], [upstream]));
    let mut moved = upstream("cart");
    moved.endpoints.clear();
    let (before, after) = (with(upstream("cart")), with(moved));
    for resource_type in ResourceType::ALL {
        let changed = before.type_version(resource_type) != after.type_version(resource_type);
        assert_eq!(changed, resource_type == ResourceType::Endpoint, "{resource_type:?}");
    }
}

#[test]
fn equal_plans_have_equal_versions() {
    let first = emit(&everything());
    for _ in 0..20 {
        assert_eq!(emit(&everything()), first);
    }
}

#[test]
fn owners_are_those_whom_a_refusal_concerns() {
    let snapshot = emit(&everything());
    let owners = |resource_type, name: &str| {
        let resource = snapshot.get(resource_type, name).unwrap();
        resource.owners.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(owners(ResourceType::Listener, "listener/8080"), ["VirtualGateway/shop/edge@cluster-1"]);
    assert_eq!(
        owners(ResourceType::Route, "route/8080"),
        ["VirtualGateway/shop/edge@cluster-1", "RouteTable/shop/www@cluster-1", "CORSPolicy/shop/attached@cluster-1"]
    );
    assert_eq!(owners(ResourceType::Cluster, CART), ["Service/shop/cart@cluster-1"]);
    assert_eq!(owners(ResourceType::Endpoint, CART), ["Service/shop/cart@cluster-1"]);
}

#[test]
fn the_bound_address_is_a_setting() {
    let options = EmitOptions { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), ..EmitOptions::default() };
    let snapshot = emit_gateway(&plan([], []), &options);
    let shown = show(&snapshot, ResourceType::Listener, "listener/8080");
    assert_eq!(shown["address"]["socket_address"]["address"], "127.0.0.1");
}

/// R58 to R60, R204: one chain that ends TLS and asks clients for certificates.
#[test]
fn a_tls_chain_in_full() {
    let object = object(Kind::Secret, "bank");
    let pair = SecretId { object: object.clone(), part: SecretPart::KeyPair };
    let trust = SecretId { object, part: SecretPart::Trust };
    let mut bank = plain_chain([host("bank.example", [route("all")])]);
    bank.name = "bank.example".into();
    bank.server_names = [Host::parse("bank.example").unwrap()].into();
    bank.tls = Some(Tls {
        certificate: CertificateSource::Secret(pair.clone()),
        client: Some(ClientCertificate {
            trust: TrustSource::Secret(trust.clone()),
            names: vec![AltName("client.example".into())],
        }),
        minimum: TlsVersion::V1_2,
        maximum: TlsVersion::V1_3,
        ciphers: Vec::new(),
    });
    let Serves::Http(http) = &mut bank.serves else { panic!("an HTTP chain") };
    http.misdirected = [Host::parse("shop.example").unwrap()].into();
    let mut plan = plan([], []);
    std::sync::Arc::make_mut(plan.listeners.get_mut(&8080).unwrap()).chains = vec![bank];
    let content = SecretBytes::new(b"CANARY-PRIVATE-KEY");
    plan.secrets = [
        (pair, Secret::KeyPair { chain: content.clone(), key: content.clone(), ocsp_staple: None }),
        (trust, Secret::Trust { authorities: content, revoked: None }),
    ]
    .into();
    let snapshot = emit(&plan);

    let listener = show(&snapshot, ResourceType::Listener, "listener/8080");
    let chain = &listener["filter_chains"][0];
    assert_eq!(chain["filter_chain_match"], json!({"server_names": ["bank.example"], "transport_protocol": "tls"}));
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.tls_inspector");
    let over_ads = json!({"ads": {}, "initial_fetch_timeout": "5s", "resource_api_version": "V3"});
    let by_name = |san: &str| json!({"san_type": san, "matcher": {"exact": "client.example"}});
    assert_eq!(
        chain["transport_socket"]["typed_config"],
        json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [by_name("DNS"), by_name("URI"), by_name("EMAIL")],
                    },
                    "validation_context_sds_secret_config": {
                        "name": "secret/cluster-1/shop/bank/ca",
                        "sds_config": over_ads,
                    },
                },
                "tls_certificate_sds_secret_configs": [
                    {"name": "secret/cluster-1/shop/bank", "sds_config": over_ads},
                ],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3", "tls_minimum_protocol_version": "TLSv1_2"},
            },
            "require_client_certificate": true,
        })
    );

    let routes = show(&snapshot, ResourceType::Route, "route/8080/bank.example");
    assert_eq!(routes["virtual_hosts"][1]["domains"], json!(["shop.example"]));
    assert_eq!(routes["virtual_hosts"][1]["routes"][0]["direct_response"]["status"], 421);

    let redacted = json!({"inline_bytes": "[redacted]"});
    assert_eq!(
        show(&snapshot, ResourceType::Secret, "secret/cluster-1/shop/bank"),
        json!({
            "name": "secret/cluster-1/shop/bank",
            "tls_certificate": {"certificate_chain": redacted, "private_key": redacted},
        })
    );
    let secret = snapshot.get(ResourceType::Secret, "secret/cluster-1/shop/bank").unwrap();
    assert!(secret.body.windows(18).any(|window| window == b"CANARY-PRIVATE-KEY"));
    assert!(!format!("{snapshot:?} {plan:?}").contains("CANARY"));
}

/// A plan with every form that is emitted.
fn everything() -> GatewayPlan {
    let retries = Retries {
        attempts: 3,
        per_try_timeout: Some(Duration::from_secs(1)),
        retry_on: vec!["5xx".into()],
        retriable_status_codes: vec![409],
        retry_remote_localities: true,
    };
    let mut grpc = upstream("grpc");
    grpc.protocol = UpstreamProtocol::Http2;
    let hosts = [
        host(
            "shop.example",
            [
                route("fault").prefix("/fault").forward("cart", 100).policy(abort(418, 1_000_000)),
                route("delay").prefix("/delay").forward("cart", 100).policy(Policy::FaultInjection(FaultInjection {
                    delay: Some(FaultDelay { fixed_delay: Duration::from_millis(50), per_million: 1_000_000 }),
                    abort: None,
                })),
                route("cors")
                    .prefix("/cors")
                    .method("POST")
                    .forward("cart", 100)
                    .policy(cors(OriginPattern::Regex("https://[a-z]+\\.example".into()))),
                route("retry").prefix("/retry").forward("cart", 100).policy(Policy::RetryTimeout(RetryTimeout {
                    request_timeout: Some(Duration::from_secs(5)),
                    retries: Some(retries.clone()),
                })),
                route("once").prefix("/once").forward("dead", 100).policy(Policy::RetryTimeout(RetryTimeout {
                    request_timeout: None,
                    retries: Some(Retries { attempts: 0, ..retries.clone() }),
                })),
                route("dead").prefix("/dead").forward("dead", 100),
                route("headers")
                    .prefix("/headers")
                    .weighted("cart", 30, [request_headers(&[("x-d", "1")], &["x-e"]), new_host("d.example")])
                    .forward("grpc", 70)
                    .policy(request_headers(&[("x-b", "%REQ(x-c)% 100%%")], &["x-y"]))
                    .policy(response_headers(&[("x-r", "1")], &["server"])),
                route("lone").prefix("/lone").weighted("cart", 100, [new_host("lone.example")]),
                route("not")
                    .prefix("/not")
                    .not_header("x-a", ValueMatch::Regex("a*".into()))
                    .not_header("x-b", ValueMatch::Exact("1".into()))
                    .query("q", ValueMatch::Present)
                    .forward("cart", 100),
                route("exact")
                    .path(PathMatch::Exact("/exact".into()))
                    .forward("cart", 100)
                    .rewriting(Some(PathRewrite::Prefix("/whole".into())), Some(HostRewrite::Auto)),
                route("regex").path(PathMatch::Regex("/r/[0-9]+".into())).forward("cart", 100).rewriting(
                    Some(PathRewrite::Regex { pattern: "/r/([0-9]+)".into(), substitution: "/n/\\1".into() }),
                    Some(HostRewrite::Literal("literal.example".into())),
                ),
                route("redirect").prefix("/redirect").redirect(Some("other.example"), Some("/to"), 308),
                route("denied").prefix("/denied").forward("denied", 100),
                route("hole").prefix("/hole").forward("hole", 100),
                route("grpc").prefix("/grpc").ignoring_case().forward("grpc", 100),
                route("broken").direct(500, "chancery: route misconfigured (WEIGHTS)"),
            ],
        ),
        host("*-bar.shop.example", [route("a").direct(200, "")]),
        host("*", [route("big").direct(200, &"x".repeat(1 << 20))]),
    ];
    let mut dead = upstream("dead");
    let address = |port| Endpoint::direct("127.0.0.1".into(), port);
    dead.endpoints = [(Locality::default(), vec![address(1), address(2), address(3)])].into();
    plan(hosts, [upstream("cart"), grpc, dead, closed("denied", Closed::Deny), closed("hole", Closed::BlackHole)])
}

/// Everything inlined as static resources: `--mode validate` follows neither xDS nor files (F11).
fn bootstrap(snapshot: &Snapshot) -> Value {
    let all = |resource_type| {
        let resources = snapshot.resources(resource_type);
        resources.values().map(|resource| to_json(resource_type, resource).unwrap()).collect::<Vec<_>>()
    };
    let mut clusters = all(ResourceType::Cluster);
    for cluster in &mut clusters {
        let name = cluster["name"].as_str().unwrap().to_owned();
        let cluster = cluster.as_object_mut().unwrap();
        cluster.remove("eds_cluster_config");
        cluster.insert("type".to_owned(), json!("STATIC"));
        cluster.insert("load_assignment".to_owned(), show(snapshot, ResourceType::Endpoint, &name));
    }
    let mut listeners = all(ResourceType::Listener);
    for listener in &mut listeners {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let name = manager["rds"]["route_config_name"].as_str().unwrap().to_owned();
        let mut routes = show(snapshot, ResourceType::Route, &name);
        // Then Envoy checks that clusters exist, too.
        routes["validate_clusters"] = json!(true);
        let manager = manager.as_object_mut().unwrap();
        manager.remove("rds");
        manager.insert("route_config".to_owned(), routes);
        for filter in manager["http_filters"].as_array_mut().unwrap() {
            let name = filter["name"].as_str().unwrap().to_owned();
            let filter = filter.as_object_mut().unwrap();
            if filter.remove("config_discovery").is_some() {
                let found = show(snapshot, ResourceType::Extension, &name);
                filter.insert("typed_config".to_owned(), found["typed_config"].clone());
            }
        }
    }
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}

#[test]
fn accepted_by_envoy() {
    let envoy = crate::testing::envoy();
    let bootstrap = bootstrap(&emit(&everything()));
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [("envoy.json", bootstrap.to_string()), ("envoy.yaml", crate::render::to_yaml(&bootstrap))] {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let output = std::process::Command::new(&envoy)
            .args(["--mode", "validate", "-l", "warning", "-c"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
        assert!(!said.contains("deprecated"), "{file}: {said}");
    }
}

/// R58: without names of its own choice a listener takes identities, and nothing else that the root signed.
#[test]
fn r58_a_chain_under_the_root_of_trust_asks_for_an_identity() {
    let object = object(Kind::RootTrustPolicy, "root");
    let own = SecretId { object: object.clone(), part: SecretPart::Identity };
    let roots = SecretId { object, part: SecretPart::Roots };
    for (names, expected) in [
        (Vec::new(), json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://"}}])),
        (
            vec![AltName("spiffe://c/ns/n/sa/a".into())],
            json!([{"san_type": "URI", "matcher": {"exact": "spiffe://c/ns/n/sa/a"}}]),
        ),
    ] {
        let mut chain = plain_chain([host("shop.example", [route("all")])]);
        chain.tls = Some(Tls {
            certificate: CertificateSource::Secret(own.clone()),
            client: Some(ClientCertificate { trust: TrustSource::Roots(roots.clone()), names }),
            minimum: TlsVersion::V1_2,
            maximum: TlsVersion::V1_3,
            ciphers: Vec::new(),
        });
        let mut plan = plan([], []);
        std::sync::Arc::make_mut(plan.listeners.get_mut(&8080).unwrap()).chains = vec![chain];
        let key = crate::ir::trust::KeyType::EcdsaP256;
        let terms = crate::ir::trust::Terms { days: 1, key, organization: "o".into(), renew_with_left: 1 };
        let identity = crate::ir::Identity { uri: "spiffe://c/ns/n/sa/b".into(), signer: "s".into(), terms };
        let authorities = SecretBytes::new(b"CANARY");
        plan.secrets =
            [(own.clone(), Secret::Identity(identity)), (roots.clone(), Secret::Trust { authorities, revoked: None })]
                .into();
        let snapshot = emit(&plan);
        let listener = show(&snapshot, ResourceType::Listener, "listener/8080");
        let context = &listener["filter_chains"][0]["transport_socket"]["typed_config"];
        assert_eq!(context["require_client_certificate"], true);
        let common = &context["common_tls_context"];
        assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "trust/identity");
        let validation = &common["combined_validation_context"];
        assert_eq!(validation["validation_context_sds_secret_config"]["name"], "trust/roots");
        assert_eq!(validation["default_validation_context"]["match_typed_subject_alt_names"], expected);
    }
}
