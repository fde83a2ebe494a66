//! Limits on routes, and what rate-limit services are told.

use std::sync::Arc;

use super::*;
use crate::emit::{Emitter, Layout};
use crate::ir::policy::jwt::{ClearRouteCache, Jwt, Mode, Verification};
use crate::ir::policy::rate_limit::{
    Bucket, ConfigurationLimits, Counter, Limit, LimitAction, LimitHeader, LimitHeaderValue, LimitItem, LimitNode,
    LimitPlan, LimitService, LimitUnit, Limits, MetadataPath, MetadataSource, NamedLimit,
};
use crate::ir::policy::{Phase, Place, TextPattern};
use crate::ir::upstream::{Purpose, Upstream, UpstreamId};
use crate::ir::{Extensions, GatewayPlan};
use crate::model::WorkspaceId;

const LIMITER: &str = "svc/cluster-1/shop/limiter/80#grpc";

fn limiter() -> UpstreamId {
    UpstreamId { purpose: Purpose::GrpcServer, ..service("limiter") }
}

fn limits(name: &str, phase: Phase, priority: i32, actions: Vec<LimitAction>) -> Arc<Limits> {
    let service = LimitService { server: limiter(), timeout: Duration::from_millis(250), deny_on_fail: true };
    let place = Place { phase, priority };
    Arc::new(Limits {
        policy: object(Kind::RateLimitPolicy, name),
        place,
        counter: Counter::Service(service),
        items: vec![LimitItem { actions, limit: None }],
    })
}

fn generic(value: &str) -> Vec<LimitAction> {
    vec![LimitAction::Generic { key: None, value: value.into() }]
}

/// The Envoy route of a route, with the cluster of the service beside it.
fn shown(route: TestRoute) -> Value {
    let server = Upstream { id: limiter(), protocol: UpstreamProtocol::Http2, ..upstream("limiter") };
    let upstreams = [upstream("cart"), upstream("cart-v2"), server];
    let snapshot = emit(&plan([host("shop.example", [route])], upstreams));
    show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone()
}

/// The filter in a holder.
fn held(config: &Value) -> Value {
    let action = &config["matcher"]["on_no_match"]["action"]["typed_config"];
    assert_eq!(action["@type"], "type.googleapis.com/envoy.extensions.filters.http.composite.v3.ExecuteFilterAction");
    action["typed_config"]["typed_config"].clone()
}

#[test]
fn a_limit_is_a_filter_that_its_route_brings_whole() {
    let path = MetadataPath { filter: "f".into(), steps: vec!["a".into(), "b".into()] };
    let header = |value, invert| LimitHeader { name: "x-a".into(), value, invert };
    let text = |pattern| LimitHeaderValue::Text(pattern);
    let headers = vec![
        header(LimitHeaderValue::Present(true), true),
        header(text(TextPattern::Exact("a".into())), false),
        header(text(TextPattern::Prefix("a".into())), true),
        header(text(TextPattern::Suffix("a".into())), false),
        header(text(TextPattern::Regex("a+".into())), false),
        header(LimitHeaderValue::Range(-1, 5), true),
    ];
    let actions = vec![
        LimitAction::Generic { key: Some("chancery.config".into()), value: "c1/shop/orders".into() },
        LimitAction::Generic { key: None, value: "100%".into() },
        LimitAction::RequestHeader { header: "x-who".into(), key: "who".into() },
        LimitAction::RemoteAddress,
        LimitAction::SourceCluster,
        LimitAction::DestinationCluster,
        LimitAction::HeaderMatch { value: "robot".into(), expect: false, headers },
        LimitAction::Metadata {
            key: "account".into(),
            path: path.clone(),
            default: Some("none".into()),
            source: MetadataSource::Route,
        },
    ];
    let mut one = (*limits("p", Phase::PostAuthz, 0, actions)).clone();
    one.items[0].limit = Some(path);
    let route = shown(route("a").forward("cart", 1).policy(Policy::RateLimit(vec![Arc::new(one)])));
    let slots = route["typed_per_filter_config"].as_object().unwrap();
    assert_eq!(slots.keys().collect::<Vec<_>>(), ["chancery.post.3"]);
    let key = json!({"key": "f", "path": [{"key": "a"}, {"key": "b"}]});
    let expected = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "chancery",
        "request_type": "both",
        "timeout": "0.250s",
        "failure_mode_deny": true,
        "rate_limit_service": {
            "grpc_service": {"envoy_grpc": {"cluster_name": LIMITER, "authority": "limiter.shop"}},
            "transport_api_version": "V3",
        },
        "rate_limits": [{
            "actions": [
                {"generic_key": {"descriptor_key": "chancery.config", "descriptor_value": "c1/shop/orders"}},
                {"generic_key": {"descriptor_value": "100%"}},
                {"request_headers": {"header_name": "x-who", "descriptor_key": "who"}},
                {"remote_address": {}},
                {"source_cluster": {}},
                {"destination_cluster": {}},
                {"header_value_match": {"descriptor_value": "robot", "expect_match": false, "headers": [
                    {"name": "x-a", "present_match": true, "invert_match": true},
                    {"name": "x-a", "string_match": {"exact": "a"}},
                    {"name": "x-a", "string_match": {"prefix": "a"}, "invert_match": true, "treat_missing_header_as_empty": true},
                    {"name": "x-a", "string_match": {"suffix": "a"}},
                    {"name": "x-a", "string_match": {"safe_regex": {"regex": "a+"}}},
                    {"name": "x-a", "range_match": {"start": -1, "end": 5}, "invert_match": true, "treat_missing_header_as_empty": true},
                ]}},
                {"metadata": {"descriptor_key": "account", "metadata_key": key, "default_value": "none", "source": "ROUTE_ENTRY"}},
            ],
            "limit": {"dynamic_metadata": {"metadata_key": key}},
        }],
    });
    assert_eq!(held(&slots["chancery.post.3"]), expected);
}

fn tokens(phase: Phase, priority: i32) -> Policy {
    Policy::Jwt(Arc::new(Verification {
        name: "v".into(),
        policy: object(Kind::JwtPolicy, "p"),
        jwt: Jwt {
            providers: [].into(),
            mode: Mode::AllowMissing,
            place: Place { phase, priority },
            clear_route_cache: ClearRouteCache::Auto,
            claims: [].into(),
            scopes: [].into(),
        },
    }))
}

/// The slots of lanes, with the fixed values that each asks about.
fn lanes(slots: &Value) -> Vec<String> {
    let slots = slots.as_object().cloned().unwrap_or_default();
    let is_of_lane = |slot: &str| slot.starts_with("chancery.pre.") || slot.starts_with("chancery.post.");
    let of_lanes = slots.iter().filter(|(slot, _)| is_of_lane(slot));
    let line = |(slot, config): (&String, &Value)| {
        let filter = held(config);
        let values = filter["rate_limits"].as_array().unwrap().iter();
        let values: Vec<&str> =
            values.map(|item| item["actions"][0]["generic_key"]["descriptor_value"].as_str().unwrap()).collect();
        format!("{slot} {}", values.join(" "))
    };
    of_lanes.map(line).collect()
}

#[test]
fn r125_priority_gives_each_limit_its_place() {
    let of = |name: &str, phase, priority| limits(name, phase, priority, generic(name));
    let list = vec![
        of("a", Phase::PreAuthz, -3),
        of("b", Phase::PreAuthz, 0),
        of("c", Phase::PostAuthz, i32::MIN),
        of("d", Phase::PostAuthz, 0),
        of("e", Phase::PostAuthz, 0),
        of("f", Phase::PostAuthz, i32::MAX),
    ];
    let plain = shown(route("a").forward("cart", 1).policy(Policy::RateLimit(list.clone())));
    assert_eq!(
        lanes(&plain["typed_per_filter_config"]),
        ["chancery.post.0 c", "chancery.post.3 d e", "chancery.post.4 f", "chancery.pre.0 a", "chancery.pre.3 b"],
        "as beside tokens, which may bring requests here from elsewhere"
    );
    // Tokens stand between the third and the fourth place. What names them needs the filter that has them, so the
    // checker is not asked.
    let with_tokens = route("a")
        .forward("cart", 1)
        .policy(Policy::RateLimit(list))
        .policy(tokens(Phase::PreAuthz, 0))
        .policy(tokens(Phase::PostAuthz, 0));
    let plan = plan([host("shop.example", [with_tokens])], [upstream("cart")]);
    let snapshot = emit_gateway(&plan, &EmitOptions::default());
    let route = show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone();
    assert_eq!(
        lanes(&route["typed_per_filter_config"]),
        ["chancery.post.0 c", "chancery.post.3 d e", "chancery.post.4 f", "chancery.pre.0 a", "chancery.pre.3 b"]
    );
}

/// A provider of a JWTPolicy beside the limit is meant by the name that its author gave it.
#[test]
fn claims_are_named_by_their_provider() {
    let path = |filter: &str, provider: &str| MetadataPath {
        filter: filter.into(),
        steps: vec![provider.into(), "org".into()],
    };
    let claim = |filter: &str, provider: &str| LimitAction::Metadata {
        key: "org".into(),
        path: path(filter, provider),
        default: None,
        source: MetadataSource::Dynamic,
    };
    let jwt = "envoy.filters.http.jwt_authn";
    let actions = vec![claim(jwt, "a"), claim(jwt, "other"), claim("some.filter", "a")];
    let Policy::Jwt(mut verification) = tokens(Phase::PreAuthz, 0) else { panic!() };
    let provider = crate::ir::policy::jwt::Provider {
        issuer: None,
        audiences: [].into(),
        headers: Vec::new(),
        parameters: Vec::new(),
        keys: crate::ir::policy::jwt::KeySource::Inline(crate::ir::policy::jwt::Jwks("{}".into())),
        claims_to_headers: [].into(),
        payload_header: None,
        keep_token: false,
        clock_skew_seconds: 60,
    };
    Arc::make_mut(&mut verification).jwt.providers = [("a".into(), provider)].into();
    let limits = limits("p", Phase::PostAuthz, 0, actions);
    let route = route("a").forward("cart", 1).policy(Policy::RateLimit(vec![limits])).policy(Policy::Jwt(verification));
    let snapshot = emit_gateway(&plan([host("shop.example", [route])], [upstream("cart")]), &EmitOptions::default());
    let shown = show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone();
    let actions = held(&shown["typed_per_filter_config"]["chancery.post.3"])["rate_limits"][0]["actions"].clone();
    let keys: Vec<&str> = actions
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["metadata"]["metadata_key"]["path"][0]["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["v/0", "other", "a"]);
}

#[test]
fn limits_of_a_destination_stand_on_each_and_not_on_the_route() {
    let of = |name: &str| limits(name, Phase::PostAuthz, 0, generic(name));
    let route = shown(
        route("a")
            .weighted("cart", 50, [Policy::RateLimit(vec![of("a"), of("b")])])
            .weighted("cart-v2", 50, [Policy::RateLimit(vec![of("a")])])
            .policy(Policy::RateLimit(vec![of("a")])),
    );
    assert_eq!(route.get("typed_per_filter_config"), None);
    let clusters = &route["route"]["weighted_clusters"]["clusters"];
    assert_eq!(lanes(&clusters[0]["typed_per_filter_config"]), ["chancery.post.3 a b"]);
    assert_eq!(lanes(&clusters[1]["typed_per_filter_config"]), ["chancery.post.3 a"]);
}

#[test]
fn a_release_without_holders_closes_what_is_limited() {
    let limited = |is_local: bool| {
        let mut limits = (*limits("p", Phase::PostAuthz, 0, generic("a"))).clone();
        if is_local {
            limits.counter = Counter::Gateways([].into());
        }
        route("a").forward("cart", 1).policy(Policy::RateLimit(vec![Arc::new(limits)]))
    };
    let server = Upstream { id: limiter(), ..upstream("limiter") };
    for (minor, is_local, is_closed) in [
        (36, false, true),
        (39, false, true),
        (40, false, false),
        (36, true, true),
        (38, true, true),
        (39, true, false),
        (40, true, false),
    ] {
        let options = EmitOptions { release: crate::model::EnvoyRelease::new(1, minor), ..EmitOptions::default() };
        let snapshot = emit_gateway(
            &plan([host("shop.example", [limited(is_local)])], [upstream("cart"), server.clone()]),
            &options,
        );
        let route = show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone();
        assert_eq!(route["direct_response"]["status"].as_u64(), is_closed.then_some(500), "1.{minor}");
        assert_eq!(verify(&snapshot), [], "1.{minor}");
    }
}

#[test]
fn a_limit_whose_service_has_no_cluster_is_not_published() {
    let limits = limits("p", Phase::PostAuthz, 0, generic("a"));
    let route = route("a").forward("cart", 1).policy(Policy::RateLimit(vec![limits]));
    let snapshot = emit_gateway(&plan([host("shop.example", [route])], [upstream("cart")]), &EmitOptions::default());
    let said: Vec<String> = verify(&snapshot).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&format!("asks cluster `{LIMITER}`, which does not exist")), "{said:?}");
}

#[test]
fn a_service_gets_every_rule_below_its_configuration() {
    let named = |name: &str, unit, replaces: &[&str]| {
        Some(NamedLimit {
            name: name.into(),
            limit: Limit { unit, requests: 7 },
            replaces: replaces.iter().map(|name| (*name).into()).collect(),
        })
    };
    let leaf = |key: &str, value: Option<&str>, limit| LimitNode {
        key: key.into(),
        value: value.map(Into::into),
        limit,
        nodes: Vec::new(),
    };
    let id = object(Kind::RateLimitServerConfig, "orders");
    let nodes = vec![
        leaf("a", None, named("r0", LimitUnit::Second, &["r1", "r2"])),
        leaf("a", Some("b"), named("r1", LimitUnit::Minute, &[])),
        leaf("c", None, named("r2", LimitUnit::Hour, &[])),
        leaf("d", None, named("r3", LimitUnit::Day, &[])),
        leaf("e", Some("f"), None),
    ];
    let node = LimitNode { key: "chancery.config".into(), value: Some("c1/shop/orders".into()), limit: None, nodes };
    let limits = Arc::new(ConfigurationLimits { id: id.clone(), node });
    let server = object(Kind::Service, "limiter");
    let snapshot = super::super::emit_limits(&LimitPlan { server: server.clone(), configurations: vec![limits] });
    let expected = json!({
        "name": "chancery",
        "domain": "chancery",
        "descriptors": [{"key": "chancery.config", "value": "c1/shop/orders", "descriptors": [
            {"key": "a", "rate_limit": {"unit": "SECOND", "requests_per_unit": 7, "name": "r0", "replaces": [{"name": "r1"}, {"name": "r2"}]}},
            {"key": "a", "value": "b", "rate_limit": {"unit": "MINUTE", "requests_per_unit": 7, "name": "r1"}},
            {"key": "c", "rate_limit": {"unit": "HOUR", "requests_per_unit": 7, "name": "r2"}},
            {"key": "d", "rate_limit": {"unit": "DAY", "requests_per_unit": 7, "name": "r3"}},
            {"key": "e", "value": "f"},
        ]}],
    });
    assert_eq!(show(&snapshot, ResourceType::RateLimit, "chancery"), expected);
    assert_eq!(*snapshot.get(ResourceType::RateLimit, "chancery").unwrap().owners, [id]);
    let nothing = super::super::emit_limits(&LimitPlan { server, configurations: Vec::new() });
    assert!(nothing.is_empty(), "no resource, and so no domain");
}

/// Counted by the gateway itself: all policies of one place in one filter, what two have alike once.
#[test]
fn a_gateway_that_counts_has_the_buckets_of_all_policies_of_a_place() {
    let header = |key: &str| LimitAction::RequestHeader { header: "x-a".into(), key: key.into() };
    let bucket = |value: Option<&str>, limit| Bucket { entries: vec![("a".into(), value.map(Into::into))], limit };
    let day = |requests| Some(Limit { unit: LimitUnit::Day, requests });
    let of = |name: &str, actions, buckets: &[Bucket]| {
        let mut limits = (*limits(name, Phase::PostAuthz, 0, actions)).clone();
        limits.counter = Counter::Gateways(buckets.iter().cloned().collect());
        Arc::new(limits)
    };
    let (any, vip) = (bucket(None, day(2)), bucket(Some("vip"), None));
    let list = vec![
        of("p", vec![header("a")], std::slice::from_ref(&any)),
        of("q", vec![header("a")], &[any.clone(), vip]),
        of("r", vec![header("b")], &[bucket(Some("x"), day(7))]),
    ];
    let route = shown(route("a").forward("cart", 1).policy(Policy::RateLimit(list.clone())));
    let filter = held(&route["typed_per_filter_config"]["chancery.post.3"]);
    let tokens = |number: u32, interval: &str| json!({"max_tokens": number, "tokens_per_fill": number, "fill_interval": interval});
    let always = json!({"default_value": {"numerator": 100}});
    let action = |key: &str| json!({"actions": [{"request_headers": {"header_name": "x-a", "descriptor_key": key}}]});
    assert_eq!(
        filter,
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "chancery",
            "filter_enabled": always,
            "filter_enforced": always,
            "descriptors": [
                {"entries": [{"key": "a"}], "token_bucket": tokens(2, "86400s")},
                {"entries": [{"key": "a", "value": "vip"}], "token_bucket": tokens(u32::MAX, "1s")},
                {"entries": [{"key": "a", "value": "x"}], "token_bucket": tokens(7, "86400s")},
            ],
            "max_dynamic_descriptors": 1_000,
            "rate_limits": [action("a"), action("b")],
        })
    );
    assert!(route["typed_per_filter_config"]["chancery.post.4"].is_null());
}

/// A service and the gateway count in filters of their own, and what the gateway answers itself is counted by it.
#[test]
fn a_gateway_counts_what_it_answers_itself() {
    let mut local = (*limits("p", Phase::PreAuthz, 0, generic("a"))).clone();
    local.counter = Counter::Gateways([].into());
    let asked = limits("q", Phase::PreAuthz, 0, generic("b"));
    let route = shown(route("a").direct(299, "").policy(Policy::RateLimit(vec![Arc::new(local), asked])));
    let kind =
        |slot: &str| held(&route["typed_per_filter_config"][slot])["@type"].as_str().unwrap_or_default().to_owned();
    assert!(kind("chancery.pre.3").ends_with("local_ratelimit.v3.LocalRateLimit"));
    assert!(kind("chancery.pre.4").ends_with("ratelimit.v3.RateLimit"));
    assert_eq!(route["direct_response"]["status"], 299);
}

/// A route that stands in has the steps of then beside the tokens of now; resolving leaves no other with too many.
#[test]
fn a_route_with_more_steps_than_places_lets_nothing_pass() {
    let list: Vec<Arc<Limits>> = (0..4).map(|at| limits("p", Phase::PostAuthz, at, generic("a"))).collect();
    let with = |verified: Option<i32>| {
        let mut route = route("a").forward("cart", 1).policy(Policy::RateLimit(list.clone()));
        if let Some(priority) = verified {
            route = route.policy(tokens(Phase::PostAuthz, priority));
        }
        let snapshot =
            emit_gateway(&plan([host("shop.example", [route])], [upstream("cart")]), &EmitOptions::default());
        show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone()
    };
    assert!(with(None)["direct_response"].is_null() && with(Some(2))["direct_response"].is_null());
    for verified in [0, 9] {
        assert_eq!(with(Some(verified))["direct_response"]["status"], 500, "all four on one side of tokens");
    }
}

/// A route that stands in has limits of its own, and its destination verifies tokens since: they count, not what was then.
#[test]
fn limits_of_a_route_keep_their_side_of_the_tokens_of_its_destination() {
    let of = |priority| limits("p", Phase::PostAuthz, priority, generic("a"));
    let route = route("a")
        .weighted("cart", 50, [tokens(Phase::PostAuthz, 5)])
        .weighted("cart-v2", 50, [])
        .policy(Policy::RateLimit(vec![of(0), of(7)]));
    let snapshot = emit_gateway(
        &plan([host("shop.example", [route])], [upstream("cart"), upstream("cart-v2")]),
        &EmitOptions::default(),
    );
    let route = show(&snapshot, ResourceType::Route, "route/8080")["virtual_hosts"][0]["routes"][0].clone();
    let clusters = &route["route"]["weighted_clusters"]["clusters"];
    assert_eq!(lanes(&clusters[0]["typed_per_filter_config"]), ["chancery.post.0 a", "chancery.post.3 a"]);
    assert_eq!(lanes(&clusters[1]["typed_per_filter_config"]), ["chancery.post.3 a", "chancery.post.4 a"]);
    assert!(route["typed_per_filter_config"].is_null());
}

/// Where the gateway has less room for a workspace, its routes count fewer values apart, and those of others as many as before.
#[test]
fn routes_of_whoever_needs_too_much_count_fewer_values_apart() {
    let counted = || {
        let mut limits = (*limits("p", Phase::PostAuthz, 0, generic("a"))).clone();
        limits.counter = Counter::Gateways([Bucket { entries: vec![("who".into(), None)], limit: None }].into());
        Policy::RateLimit(vec![Arc::new(limits)])
    };
    let route_of = |owner: &'static str| route("a").owner(owner).forward("cart", 1).policy(counted());
    let hosts = [host("one.example", [route_of("one")]), host("two.example", [route_of("two")])];
    let all = plan(hosts, [upstream("cart")]);
    let with = |values: &[(&str, u32)]| {
        let values = values.iter().map(|(owner, values)| (WorkspaceId((*owner).into()), *values)).collect();
        GatewayPlan { extensions: Arc::new(Extensions { values, ..Extensions::default() }), ..all.clone() }
    };
    let mut emitter = Emitter::new(Layout::default());
    let mut shown = |values: &[(&str, u32)]| -> Vec<Value> {
        let plan = with(values);
        let snapshot = emitter.emit(&plan, &EmitOptions::default());
        assert_eq!(snapshot, emit_gateway(&plan, &EmitOptions::default()), "as if it were made anew");
        let routes = show(&snapshot, ResourceType::Route, "route/8080");
        let hosts = routes["virtual_hosts"].as_array().expect("hosts").iter();
        hosts.map(|host| find(host, "max_dynamic_descriptors").expect("it counts").clone()).collect()
    };
    assert_eq!(shown(&[]), [1000, 1000]);
    assert_eq!(shown(&[("one", 250)]), [250, 1000]);
    assert_eq!(shown(&[("one", 250), ("two", 7)]), [250, 7]);
    assert_eq!(shown(&[("two", 7)]), [1000, 7]);
    assert_eq!(shown(&[]), [1000, 1000]);
}

/// The first value of a key, wherever it stands.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
