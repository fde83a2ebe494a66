//! What the definitions promise; that an API server takes them is shown end to end.

use std::collections::BTreeMap;

use super::*;

/// `kubectl apply` keeps a copy of what it applied in an annotation, and all annotations together have this limit.
const ANNOTATIONS: usize = 256 * 1024;

fn definitions() -> Vec<(Kind, Value)> {
    Kind::ALL.iter().filter_map(|kind| Some((*kind, definition(*kind)?))).collect()
}

fn spec_schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

#[test]
fn every_v2_kind_has_one_and_no_other() {
    for kind in Kind::ALL {
        assert_eq!(definition(*kind).is_some(), kind.is_v2(), "{kind}");
        assert_eq!(fingerprint(*kind).is_some(), kind.is_v2(), "{kind}");
    }
}

#[test]
fn a_definition_says_which_it_is() {
    let told: BTreeMap<String, Kind> = definitions()
        .into_iter()
        .map(|(kind, definition)| {
            let told = definition["metadata"]["annotations"][FINGERPRINT].as_str().unwrap().to_owned();
            assert_eq!(Some(&told), fingerprint(kind).as_ref(), "{kind}");
            (told, kind)
        })
        .collect();
    assert_eq!(told.len(), definitions().len(), "two kinds look alike");
}

#[test]
fn names_that_people_type_are_unique_in_their_group() {
    let mut taken: BTreeMap<(Group, String), Kind> = BTreeMap::new();
    for (kind, definition) in definitions() {
        let names = &definition["spec"]["names"];
        assert_eq!(names["categories"], json!(["chancery", "solo-io"]), "{kind}");
        let short = names["shortNames"].as_array().cloned().unwrap_or_default();
        for name in short.iter().chain([&names["plural"], &names["kind"]]) {
            let name = name.as_str().unwrap().to_owned();
            let before = taken.insert((kind.group(), name.clone()), kind);
            assert_eq!(before, None, "{kind} and another are called {name}");
        }
    }
}

#[test]
fn kubectl_can_apply_them() {
    for (kind, definition) in definitions() {
        let length = definition.to_string().len();
        assert!(length < ANNOTATIONS / 2, "{kind}: {length} bytes");
    }
}

#[test]
fn checks_stand_where_the_types_have_a_place() {
    for kind in [Kind::VirtualGateway, Kind::RouteTable, Kind::VirtualDestination] {
        let mut schema = open_api(kind).unwrap();
        for rule in admission::rules(kind).unwrap() {
            assert!(admission::place(&mut schema, rule.at).is_some(), "{kind}: nothing stands at {:?}", rule.at);
        }
    }
}

/// Calls with each schema and its path.
fn each(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        each(property, &format!("{path}.{name}"), visit);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(word) {
            each(inner, &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn kinds_that_the_api_leaves_open_refuse_nothing() {
    let mut open = 0;
    for (kind, definition) in definitions().iter().filter(|(kind, _)| admission::rules(*kind).is_none()) {
        open += 1;
        each(spec_schema(definition), "spec", &mut |path, schema| {
            let schema = schema.as_object().unwrap();
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], json!(true), "{kind} {path}");
            let explains = |word: &str| {
                let words = ["properties", "items", "additionalProperties", "description"];
                words.contains(&word) || word == "x-kubernetes-preserve-unknown-fields"
            };
            let is_object = |word: &str| path == "spec" && word == "type";
            let refusing = schema.keys().find(|word| !explains(word) && !is_object(word));
            assert_eq!(refusing, None, "{kind} {path}");
        });
    }
    assert!(open > 30, "only {open} kinds are open");
}

#[test]
fn no_kind_drops_a_field_before_it_can_be_reported() {
    for (kind, definition) in definitions() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            each(&schema["properties"][part], part, &mut |path, schema| {
                let is_message = schema["type"] == "object" && schema.get("additionalProperties").is_none();
                let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
                assert!(!is_message || keeps, "{kind} {path} drops unknown fields");
            });
        }
    }
}

#[test]
fn what_an_enum_takes_is_told_where_it_is_not_checked() {
    let definition = definition(Kind::WorkspaceSettings).unwrap();
    let kind = &spec_schema(&definition)["properties"]["importFrom"]["items"]["properties"]["resources"]["items"]["properties"]
        ["kind"];
    let text = kind["description"].as_str().unwrap();
    assert!(text.contains("`ROUTE_TABLE`") && text.contains("`EXTERNAL_SERVICE`"), "{text}");
}
