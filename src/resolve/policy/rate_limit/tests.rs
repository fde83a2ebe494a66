use std::time::Duration;

use super::super::tests::{Checked, checked, faults};
use super::*;
use crate::crd::{Meta, Spec};
use crate::ir::policy::rate_limit::{
    Limit, LimitHeader, LimitHeaderValue, LimitNode, LimitRules, LimitServer, LimitUnit, MetadataSource,
};
use crate::ir::policy::{Place, TextPattern};
use crate::model::Labels;

fn policy(config: &str) -> Checked<RateLimit> {
    checked(Kind::RateLimitPolicy, &format!("{{config: {config}}}"), |id, spec, remarks| match spec {
        Spec::RateLimitPolicy(policy) => lower(id, policy, remarks),
        other => panic!("{other:?}"),
    })
}

fn client_config(spec: &str) -> Checked<Vec<LimitActions>> {
    checked(Kind::RateLimitClientConfig, spec, |id, spec, remarks| match spec {
        Spec::RateLimitClientConfig(config) => client(id, config, remarks),
        other => panic!("{other:?}"),
    })
}

/// A client configuration with one action.
fn action(action: &str) -> Checked<Vec<LimitActions>> {
    client_config(&format!("{{raw: {{rateLimits: [{{actions: [{action}]}}]}}}}"))
}

fn the(text: &str) -> LimitAction {
    action(text).valid().remove(0).actions.remove(0)
}

fn server_config(raw: &str) -> Checked<LimitRules> {
    rules_of(&format!("{{destinationServers: [{{ref: {{name: limiter}}}}], raw: {raw}}}"))
}

pub(super) fn rules_of(spec: &str) -> Checked<LimitRules> {
    annotated(None, spec)
}

/// Rules of a configuration that has a word in the annotation that says who counts.
pub(super) fn annotated(word: Option<&str>, spec: &str) -> Checked<LimitRules> {
    checked(Kind::RateLimitServerConfig, spec, |id, spec, remarks| {
        let meta = Meta {
            id: id.clone(),
            labels: Labels::new(),
            annotations: word.map(|word| (LOCAL.0.into(), word.into())).into_iter().collect(),
            created: None,
            generation: 0,
            location: None,
        };
        match spec {
            Spec::RateLimitServerConfig(config) => rules(&meta, config, remarks),
            other => panic!("{other:?}"),
        }
    })
}

fn settings(spec: &str) -> Checked<LimitServer> {
    checked(Kind::RateLimitServerSettings, spec, |id, spec, _| match spec {
        Spec::RateLimitServerSettings(settings) => server(id, settings),
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_policy_names_what_it_uses() {
    let found = policy(
        "{phase: {preAuthz: {priority: -1}}, ratelimitServerConfig: {name: rules}, serverSettings: {name: s, namespace: a, \
         cluster: c2}, ratelimitClientConfig: {name: c}}",
    );
    assert_eq!(found.remarks, Vec::<String>::new());
    let found = found.valid();
    assert_eq!(found.place, Place { phase: Phase::PreAuthz, priority: -1 });
    assert_eq!(found.rules.unwrap().to_string(), "RateLimitServerConfig/shop/rules@cluster-1");
    assert_eq!(found.server.unwrap().to_string(), "RateLimitServerSettings/a/s@c2");
    let LimitSource::Client(client) = found.source else { panic!() };
    assert_eq!(client.to_string(), "RateLimitClientConfig/shop/c@cluster-1");
}

#[test]
fn r125_the_phase_is_after_authorization_unless_said_otherwise() {
    let place = policy("{ratelimitServerConfig: {name: r}, ratelimitClientConfig: {name: c}}").valid().place;
    assert_eq!(place, Place { phase: Phase::PostAuthz, priority: 0 });
}

#[test]
fn a_policy_that_limits_nothing_says_so() {
    let found = policy("{}");
    assert_eq!(found.remarks, ["spec.config.ratelimitServerConfig", "spec.config"]);
    let found = found.valid();
    assert_eq!((found.rules, found.source), (None, LimitSource::Nothing));
    let found = policy("{ratelimitServerConfig: {name: r}}");
    assert_eq!(found.remarks, ["spec.config"]);
}

#[test]
fn every_action_has_its_entry() {
    let metadata = MetadataPath { filter: "f".into(), steps: vec!["a".into(), "b".into()] };
    assert_eq!(the("{sourceCluster: {}}"), LimitAction::SourceCluster);
    assert_eq!(the("{remoteAddress: {}}"), LimitAction::RemoteAddress);
    assert_eq!(the("{destinationCluster: {}}"), LimitAction::DestinationCluster);
    let list = "spec.raw.rateLimits[0].actions[0]";
    assert_eq!(action("{destinationCluster: {}}").remarks, [format!("{list}.destinationCluster")]);
    let header = the("{requestHeaders: {headerName: X-Tier, descriptorKey: Tier}}");
    assert_eq!(header, LimitAction::RequestHeader { header: "x-tier".into(), key: "Tier".into() });
    assert_eq!(the("{genericKey: {descriptorValue: a%b}}"), LimitAction::Generic { key: None, value: "a%b".into() });
    assert_eq!(
        the(
            "{metadata: {descriptorKey: k, metadataKey: {key: f, path: [{key: a}, {key: b}]}, defaultValue: d, source: ROUTE_ENTRY}}"
        ),
        LimitAction::Metadata {
            key: "k".into(),
            path: metadata.clone(),
            default: Some("d".into()),
            source: MetadataSource::Route
        }
    );
    let found = client_config(
        "{raw: {rateLimits: [{setActions: [{remoteAddress: {}}], limit: {dynamicMetadata: {metadataKey: {key: f, \
         path: [{key: a}, {key: b}]}}}}]}}",
    );
    let expected = LimitActions {
        set_actions: vec![LimitAction::RemoteAddress],
        limit: Some(metadata),
        ..LimitActions::default()
    };
    assert_eq!(found.valid(), [expected]);
}

#[test]
fn every_condition_on_a_header_is_read() {
    let header = |fields: &str| {
        let action = the(&format!("{{headerValueMatch: {{descriptorValue: v, headers: [{{name: X-A, {fields}}}]}}}}"));
        let LimitAction::HeaderMatch { value, expect: true, mut headers } = action else { panic!() };
        assert_eq!(value, "v");
        headers.remove(0)
    };
    let text = LimitHeaderValue::Text;
    for (fields, value, invert) in [
        ("exactMatch: a", text(TextPattern::Exact("a".into())), false),
        ("prefixMatch: a, invertMatch: true", text(TextPattern::Prefix("a".into())), true),
        ("suffixMatch: a", text(TextPattern::Suffix("a".into())), false),
        ("regexMatch: a+", text(TextPattern::Regex("a+".into())), false),
        ("rangeMatch: {start: -5, end: 5}", LimitHeaderValue::Range(-5, 5), false),
        ("presentMatch: false", LimitHeaderValue::Present(false), false),
        ("invertMatch: true", LimitHeaderValue::Present(true), true),
    ] {
        assert_eq!(header(fields), LimitHeader { name: "x-a".into(), value, invert }, "{fields}");
    }
    let not = the("{headerValueMatch: {descriptorValue: v, expectMatch: false, headers: [{name: a}]}}");
    assert!(matches!(not, LimitAction::HeaderMatch { expect: false, .. }));
}

#[test]
fn bad_actions_are_refused_at_their_field() {
    let list = "spec.raw.rateLimits[0].actions[0]";
    for (field, written) in [
        ("", "{}".to_owned()),
        (".requestHeaders.headerName", "{requestHeaders: {descriptorKey: a}}".to_owned()),
        (".requestHeaders.headerName", "{requestHeaders: {headerName: 'a b', descriptorKey: a}}".to_owned()),
        (".requestHeaders.descriptorKey", "{requestHeaders: {headerName: a}}".to_owned()),
        (".genericKey.descriptorValue", "{genericKey: {}}".to_owned()),
        (".headerValueMatch.headers", "{headerValueMatch: {descriptorValue: a}}".to_owned()),
        (".headerValueMatch.descriptorValue", "{headerValueMatch: {headers: [{name: a}]}}".to_owned()),
        (".metadata.descriptorKey", "{metadata: {metadataKey: {key: a, path: [{key: b}]}}}".to_owned()),
        (".metadata.metadataKey", "{metadata: {descriptorKey: a}}".to_owned()),
        (".metadata.metadataKey.key", "{metadata: {descriptorKey: a, metadataKey: {path: [{key: b}]}}}".to_owned()),
        (".metadata.metadataKey.path", "{metadata: {descriptorKey: a, metadataKey: {key: b}}}".to_owned()),
        (
            ".metadata.metadataKey.path[0].key",
            "{metadata: {descriptorKey: a, metadataKey: {key: b, path: [{}]}}}".to_owned(),
        ),
    ] {
        assert_eq!(action(&written).fault(), format!("{list}{field}"), "{written}");
    }
    for (field, condition) in [
        ("name", "exactMatch: a".to_owned()),
        ("exactMatch", "name: a, exactMatch: ''".to_owned()),
        ("prefixMatch", "name: a, prefixMatch: ''".to_owned()),
        ("suffixMatch", "name: a, suffixMatch: ''".to_owned()),
        ("regexMatch", "name: a, regexMatch: 'a(?=b)'".to_owned()),
        ("regexMatch", format!("name: a, regexMatch: {}", "a".repeat(1025))),
        ("rangeMatch", "name: a, rangeMatch: {start: 5, end: 5}".to_owned()),
    ] {
        let written = format!("{{headerValueMatch: {{descriptorValue: a, headers: [{{{condition}}}]}}}}");
        assert_eq!(action(&written).fault(), format!("{list}.headerValueMatch.headers[0].{field}"), "{condition}");
    }
    // Two at once.
    assert!(action("{remoteAddress: {}, genericKey: {descriptorValue: a}}").fault().starts_with(list));
    faults(
        &[
            ("spec.raw", "{}"),
            ("spec.raw.rateLimits", "{raw: {}}"),
            ("spec.raw.rateLimits[0]", "{raw: {rateLimits: [{}]}}"),
            (
                "spec.raw.rateLimits[0].limit.dynamicMetadata",
                "{raw: {rateLimits: [{actions: [{remoteAddress: {}}], limit: {}}]}}",
            ),
            ("spec.raw.rateLimits[0].setActions[0]", "{raw: {rateLimits: [{setActions: [{}]}]}}"),
        ],
        client_config,
    );
    faults(
        &[
            ("spec.config.ratelimitServerConfig.name", "{ratelimitServerConfig: {}}"),
            ("spec.config.serverSettings.name", "{serverSettings: {}}"),
            ("spec.config.ratelimitClientConfig.name", "{ratelimitClientConfig: {}}"),
            ("spec.config.raw.rateLimits[0].actions[0]", "{raw: {rateLimits: [{actions: [{}]}]}}"),
        ],
        policy,
    );
    assert!(policy("{raw: {}, ratelimitClientConfig: {name: a}}").fault().starts_with("spec.config."));
}

#[test]
fn settings_say_how_the_service_is_asked() {
    assert_eq!(settings("{}").valid(), LimitServer::default());
    assert_eq!(LimitServer::default().timeout, Duration::from_millis(100), "not Envoy's own 20 milliseconds");
    let found =
        settings("{destinationServer: {ref: {name: l}, port: {name: grpc}}, requestTimeout: 0s, denyOnFail: true}");
    let found = found.valid();
    assert_eq!((found.timeout, found.deny_on_fail), (Duration::ZERO, true));
    assert_eq!(found.destination.unwrap().object.to_string(), "Service/shop/l@cluster-1");
    faults(
        &[
            ("spec.destinationServer.ref", "{destinationServer: {}}"),
            ("spec.requestTimeout", "{requestTimeout: 2000000h}"),
        ],
        settings,
    );
}

#[test]
fn rules_are_read_as_trees_and_as_sets() {
    let found = server_config(
        "{descriptors: [{key: a, rateLimit: {unit: MINUTE, requestsPerUnit: 0}, descriptors: [{key: b, value: c}], weight: 3, \
         alwaysApply: true}], setDescriptors: [{simpleDescriptors: [{key: y, value: '1'}, {key: x}], rateLimit: {unit: DAY, \
         requestsPerUnit: 7}}, {rateLimit: {unit: SECOND, requestsPerUnit: 1}, alwaysApply: true}]}",
    );
    assert_eq!(found.remarks, Vec::<String>::new());
    let found = found.valid();
    assert_eq!(found.enforcers.services()[0].object.to_string(), "Service/shop/limiter@cluster-1");
    let rule = &found.tree[0];
    assert_eq!(
        (rule.limit, rule.weight, rule.always_apply),
        (Some(Limit { unit: LimitUnit::Minute, requests: 0 }), 3, true)
    );
    assert_eq!((rule.rules[0].value.as_deref(), rule.rules[0].limit), (Some("c"), None));
    assert_eq!(found.sets[0].entries, [("x".into(), None), ("y".into(), Some("1".into()))], "sorted by key");
    assert_eq!((found.sets[1].entries.len(), found.sets[1].always_apply), (0, true));
}

#[test]
fn what_the_service_would_refuse_is_refused_here() {
    let limit = "rateLimit: {unit: SECOND, requestsPerUnit: 1}";
    for (field, raw) in [
        (".descriptors[0].key", "{descriptors: [{value: a}]}".to_owned()),
        (".descriptors[0].rateLimit.unit", "{descriptors: [{key: a, rateLimit: {requestsPerUnit: 1}}]}".to_owned()),
        (".descriptors[1]", "{descriptors: [{key: a}, {key: a}]}".to_owned()),
        (".descriptors[1]", "{descriptors: [{key: a, value: b_c}, {key: a_b, value: c}]}".to_owned()),
        (".descriptors[1]", "{descriptors: [{key: a_b}, {key: a, value: b}]}".to_owned()),
        (".descriptors[0].descriptors[1]", "{descriptors: [{key: a, descriptors: [{key: b}, {key: b}]}]}".to_owned()),
        (".setDescriptors[0].rateLimit", "{setDescriptors: [{simpleDescriptors: [{key: a}]}]}".to_owned()),
        (".setDescriptors[0].rateLimit.unit", "{setDescriptors: [{rateLimit: {}}]}".to_owned()),
        (
            ".setDescriptors[0].simpleDescriptors[0].key",
            format!("{{setDescriptors: [{{simpleDescriptors: [{{}}], {limit}}}]}}"),
        ),
        (
            ".setDescriptors[0].simpleDescriptors[1].key",
            format!("{{setDescriptors: [{{simpleDescriptors: [{{key: a, value: b}}, {{key: a}}], {limit}}}]}}"),
        ),
        (".setDescriptors", format!("{{setDescriptors: [{}]}}", vec![format!("{{{limit}}}"); 501].join(", "))),
    ] {
        assert_eq!(server_config(&raw).fault(), format!("spec.raw{field}"), "{raw}");
    }
    faults(
        &[
            ("spec.destinationServers", "{raw: {}}"),
            ("spec.raw", "{destinationServers: [{ref: {name: a}}]}"),
            ("spec.destinationServers[0].ref", "{destinationServers: [{}], raw: {}}"),
        ],
        rules_of,
    );
    let nested = (0..17).fold(String::new(), |inner, _| format!("{{key: a, descriptors: [{inner}]}}"));
    assert!(server_config(&format!("{{descriptors: [{nested}]}}")).fault().ends_with(".descriptors"));
}

#[test]
fn a_star_in_a_value_is_remarked() {
    let found = server_config("{descriptors: [{key: a, value: 'b*'}]}");
    assert_eq!(found.remarks, ["spec.raw.descriptors[0].value"]);
}

#[test]
fn weights_become_names_that_cancel_lighter_limits() {
    let limit = "rateLimit: {unit: SECOND, requestsPerUnit: 1}";
    let found = server_config(&format!(
        "{{descriptors: [{{key: light, {limit}}}, {{key: heavy, weight: 2, {limit}}}, {{key: always, alwaysApply: true, {limit}}}, \
         {{key: outer, descriptors: [{{key: inner, weight: 1, {limit}}}]}}]}}"
    ));
    let config = ObjectRef::new(Kind::RateLimitServerConfig, "c1", "shop", "rules");
    let nodes = tree::nodes(&config, &found.valid().tree);
    let shown = |node: &LimitNode| {
        let limit = node.limit.as_ref().unwrap();
        format!("{} > {}", limit.name, limit.replaces.iter().map(Name::as_str).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(shown(&nodes[0]), "c1/shop/rules#t0 > ");
    assert_eq!(shown(&nodes[1]), "c1/shop/rules#t1 > c1/shop/rules#t0 c1/shop/rules#t3.0");
    assert_eq!(shown(&nodes[2]), "c1/shop/rules#t2 > ");
    assert_eq!(nodes[3].limit, None);
    assert_eq!(shown(&nodes[3].nodes[0]), "c1/shop/rules#t3.0 > c1/shop/rules#t0");
}

#[test]
fn an_item_starts_with_whose_rules_are_meant() {
    let config = ObjectRef::new(Kind::RateLimitServerConfig, "c1", "shop", "rules");
    let item = ordered_item(&config, &[LimitAction::RemoteAddress], None);
    let prefix = LimitAction::Generic { key: Some("chancery.config".into()), value: "c1/shop/rules".into() };
    assert_eq!((item.actions, item.limit), (vec![prefix, LimitAction::RemoteAddress], None));
}
