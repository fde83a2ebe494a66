//! What the schemas promise.

use super::*;
use crate::crd::yaml::decode_value;
use serde_json::json;

#[test]
fn every_v2_kind_has_a_structural_schema_with_descriptions() {
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_v2()) {
        let schema = open_api(kind).unwrap_or_else(|| panic!("{kind} has no type"));
        assert_eq!(schema["type"], "object", "{kind}");
        structural(&schema, kind.as_str());
    }
}

/// Every value has one type, every property a description, and nothing refers elsewhere.
fn structural(schema: &Value, path: &str) {
    let free = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    let port = schema.get("x-kubernetes-int-or-string").is_some();
    assert!(schema["type"].is_string() || free || port, "{path}: {schema}");
    for word in ["$ref", "anyOf", "oneOf", "allOf", "default", "$defs", "x-oneof"] {
        assert!(schema.get(word).is_none(), "{path}: {word}");
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{path} has no description");
        structural(property, &path);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner) {
            structural(inner, path);
        }
    }
}

#[test]
fn full_examples_survive_writing_and_reading() {
    fn survives<T>(kind: Kind, spec: &Value)
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let typed: T = serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let written = serde_json::to_value(&typed).unwrap();
        let (again, problems) =
            normalise(compiled(kind).unwrap(), &crate::model::FieldPath::root(), Some(&written.into()), &[]);
        assert_eq!(problems, [], "{kind}");
        assert_eq!(serde_json::from_str::<T>(&again).unwrap(), typed, "{kind}");
    }
    macro_rules! every {
        ($($kind:ident: $type:ty,)+) => {
            for (kind, spec) in examples::all() {
                match kind {
                    $(Kind::$kind => survives::<$type>(kind, &spec),)+
                    Kind::Secret => {}
                    // It cannot be written, because it may hold secrets.
                    Kind::ExtAuthPolicy => {}
                    _ => survives::<policy::OpaquePolicy>(kind, &spec),
                }
            }
        };
    }
    every! {
        Namespace: core::Namespace, Service: core::Service, EndpointSlice: core::EndpointSlice, Pod: core::Pod,
        Node: core::Node, ServiceAccount: core::ServiceAccount, ConfigMap: core::ConfigMap, KubernetesCluster: workspace::KubernetesCluster,
        Workspace: workspace::Workspace, WorkspaceSettings: workspace::WorkspaceSettings,
        RootTrustPolicy: workspace::RootTrustPolicy, ExtAuthServer: server::ExtAuthServer,
        RateLimitServerSettings: server::RateLimitServerSettings,
        RateLimitServerConfig: server::RateLimitServerConfig, VirtualGateway: gateway::VirtualGateway,
        RouteTable: route_table::RouteTable, VirtualDestination: destination::VirtualDestination,
        ExternalService: destination::ExternalService, ExternalEndpoint: destination::ExternalEndpoint,
        RateLimitClientConfig: policy::RateLimitClientConfig, AccessPolicy: policy::AccessPolicy,
        ClientTlsPolicy: policy::ClientTlsPolicy, FailoverPolicy: policy::FailoverPolicy,
        OutlierDetectionPolicy: policy::OutlierDetectionPolicy,
        CsrfPolicy: policy::CsrfPolicy, JwtPolicy: policy::JwtPolicy, RateLimitPolicy: policy::RateLimitPolicy,
        CorsPolicy: policy::CorsPolicy, FaultInjectionPolicy: policy::FaultInjectionPolicy,
        HeaderManipulationPolicy: policy::HeaderManipulationPolicy, RetryTimeoutPolicy: policy::RetryTimeoutPolicy,
        TeapotPolicy: policy::TeapotPolicy,
    }
}

#[test]
fn full_examples_are_without_findings_in_either_spelling() {
    for (kind, spec) in examples::all().into_iter().filter(|(kind, _)| kind.is_v2()) {
        for spec in [spec.clone(), snake(spec)] {
            let value = json!({"apiVersion": kind.group().api_version(), "kind": kind.as_str(),
                "metadata": {"name": "x"}, "spec": spec});
            let (object, findings) = decode_value(value, &"c1".into());
            assert_eq!(findings, [], "{kind}");
            assert!(object.is_some_and(|object| object.defects.is_empty()), "{kind}");
        }
    }
}

fn snake(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(snake).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (snake_case(&key), snake(value))).collect(),
        value => value,
    }
}

#[test]
fn types_that_contain_themselves_are_read_at_every_level() {
    let level =
        |inner: Value| json!({"key": "k", "rateLimit": {"unit": 2, "requestsPerUnit": "5"}, "descriptors": inner});
    let spec = json!({"raw": {"descriptors": [level(json!([level(json!([level(json!([])), {"kye": "x"}]))]))]}});
    let value = json!({"apiVersion": "admin.gloo.solo.io/v2", "kind": "RateLimitServerConfig",
        "metadata": {"name": "x"}, "spec": spec});
    let (object, findings) = decode_value(value, &"c1".into());
    let fields: Vec<&str> = findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, ["spec.raw.descriptors[0].descriptors[0].descriptors[1].kye"]);
    let Some(Spec::RateLimitServerConfig(config)) = object.map(|object| object.spec().into_owned()) else { panic!() };
    let deepest = &config.raw.unwrap().descriptors[0].descriptors[0].descriptors[0];
    assert_eq!(deepest.rate_limit.as_ref().map(|limit| limit.unit), Some(server::RateLimitUnit::Minute));
}

#[test]
fn enum_values_that_yaml_reads_as_booleans_need_no_quotes() {
    let read = |value: Value| {
        let manifest = json!({"apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
            "metadata": {"name": "x"}, "spec": {"config": {"clearRouteCache": value}}});
        let (object, findings) = decode_value(manifest, &"c1".into());
        let Some(Spec::JwtPolicy(policy)) = object.map(|object| object.spec().into_owned()) else { panic!() };
        (policy.config.unwrap().clear_route_cache, findings.len())
    };
    use policy::jwt::ClearRouteCache::{Auto, False, True};
    for (value, expected) in
        [(json!(true), True), (json!("TRUE"), True), (json!(2), True), (json!(false), False), (json!("AUTO"), Auto)]
    {
        assert_eq!(read(value.clone()), (expected, 0), "{value}");
    }
    assert_eq!(read(json!("true")).1, 1, "a text is not a boolean");
    let (_, findings) = decode_value(
        json!({"apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy", "metadata": {"name": "x"},
            "spec": {"config": {"validationPolicy": true}}}),
        &"c1".into(),
    );
    assert_eq!(findings.len(), 1, "other enums have no such values");
}

#[test]
fn password_hashes_appear_in_no_message_and_no_print() {
    let read = |hash: Value| {
        let users = json!({"alice": {"salt": "CANARY-SALT", "hashedPassword": hash}});
        let method = json!({"basicAuth": {"encryption": {"sha1": {}}, "userList": {"users": users}}});
        decode_value(
            json!({"apiVersion": "security.policy.gloo.solo.io/v2", "kind": "ExtAuthPolicy", "metadata": {"name": "x"},
                "spec": {"config": {"glooAuth": {"configs": [method]}}}}),
            &"c1".into(),
        )
    };
    let (object, findings) = read(json!("CANARY-HASH"));
    assert_eq!(findings, []);
    let (object, shown) = (object.unwrap(), Kind::ExtAuthPolicy);
    for print in [format!("{object:?}"), format!("{:#?}", object.spec())] {
        assert!(print.contains("alice") && !print.contains("CANARY"), "{shown}: {print}");
    }
    for wrong in [json!(8_154_711), json!(["8154711"]), json!({"8154711": 1})] {
        let (object, findings) = read(wrong);
        assert_eq!(findings.len(), 1);
        assert!(!format!("{object:?} {findings:?}").contains("8154711"), "{findings:?}");
    }
}
