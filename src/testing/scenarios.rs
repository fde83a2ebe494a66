//! The reference scenarios on the plan: routes, labels, attached and not attached policies with codes, statuses.
//!
//! Reads the project's copy of the file itself, so a scenario that is added there is tested without new code. What gateways
//! answer is tested against a real Envoy by `e2e/scenarios.rs`.

use serde_json::Value;

use crate::api::report::{ObjectReference, report};
use crate::compile::Compiled;
use crate::compile::explain::{MatchedRoute, Request, explain};
use crate::model::{GatewayId, Kind};
use crate::resolve::Options;

use super::{compile_manifests, yaml};

pub(crate) fn scenarios() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/scenarios.yaml");
    let text = std::fs::read_to_string(path).expect("the scenarios are part of the repository");
    let documents = yaml::documents(&text).expect("the scenarios are YAML");
    documents[0]["scenarios"].as_array().expect("a list of scenarios").clone()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn compiled(scenario: &Value) -> Compiled {
    compile_manifests(manifests(scenario), &Options::default())
}

/// The objects of a scenario with their clusters.
pub(crate) fn manifests(scenario: &Value) -> Vec<(String, Value)> {
    list(scenario, "objects").iter().map(|object| (super::cluster_of(object), object.clone())).collect()
}

/// R83 to R117, R126 and R133 as the founding scenarios work them out: R85, R87, R103, R109, R110, R112, R142.
#[test]
fn every_scenario_plans_as_written() {
    let mut failures: Vec<String> = Vec::new();
    let mut checked = 0;
    for scenario in scenarios() {
        let compiled = compiled(&scenario);
        for route in list(&scenario["expect"], "routes") {
            let paths = std::iter::once(text(&route["request"], "path").to_owned())
                .chain(strings(&route["request"], "morePaths"));
            for path in paths {
                checked += 1;
                let case = format!("{} {} {path}", text(&scenario, "id"), text(route, "id"));
                failures.extend(check_route(&compiled, route, &path).into_iter().map(|f| format!("{case}: {f}")));
            }
        }
        for asked in list(&scenario["expect"], "mesh") {
            checked += 1;
            let case =
                format!("{} {} from {}", text(&scenario, "id"), text(&asked["request"], "host"), text(asked, "from"));
            failures.extend(check_mesh(&compiled, asked).err().map(|failure| format!("{case}: {failure}")));
        }
        for status in list(&scenario["expect"], "statuses") {
            checked += 1;
            let case = format!("{} {}", text(&scenario, "id"), text(status, "object"));
            failures.extend(check_status(&compiled, status).into_iter().map(|f| format!("{case}: {f}")));
        }
    }
    assert!(checked > 50, "only {checked} expectations were found; is the file read?");
    assert!(failures.is_empty(), "{} of {checked} differ:\n{}", failures.len(), failures.join("\n"));
}

/// R135 in the API's own report fields: of each table which policies are on which of its routes, of each policy the routes; as many
/// as the statuses count.
#[test]
fn every_scenario_reports_which_policies_attach_where() {
    let mut failures: Vec<String> = Vec::new();
    let mut checked = 0;
    for scenario in scenarios() {
        let compiled = compiled(&scenario);
        for route in list(&scenario["expect"], "routes").iter().filter(|route| route["response"]["error"].is_null()) {
            checked += 1;
            let case = format!("{} {}", text(&scenario, "id"), text(route, "id"));
            failures.extend(check_report(&compiled, route).into_iter().map(|f| format!("{case}: {f}")));
        }
        for (id, verdict) in &compiled.verdicts {
            let Some(report) = report(&compiled, id) else { continue };
            let counted = |name: &str| verdict.counts.get(name).copied().unwrap_or_default();
            if id.kind.is_policy() && counted("numSelectedRoutes") != report.selected_routes.len() as u64 {
                failures.push(format!("{id}: {:?}, and {:?}", verdict.counts, report.selected_routes));
            }
            for (kind, applied) in &report.applied_route_policies {
                if counted(&format!("numAppliedRoutePolicies.{kind}")) != applied.policies.len() as u64 {
                    failures.push(format!("{id}: {:?}, and {applied:?}", verdict.counts));
                }
            }
            if counted("numParentRouteTables") != report.parent_route_tables.len() as u64 {
                failures.push(format!("{id}: {:?}, and {:?}", verdict.counts, report.parent_route_tables));
            }
        }
    }
    assert!(checked > 40, "only {checked} routes were found; is the file read?");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

fn check_report(compiled: &Compiled, expected: &Value) -> Vec<String> {
    let chain = strings(expected, "chain");
    let hop =
        |hop: &str| hop.split_once(':').map(|(table, route)| (table.to_owned(), route.to_owned())).unwrap_or_default();
    let (root, (table, route)) = (hop(&chain[0]).0, chain.last().map(|last| hop(last)).expect("a chain has a table"));
    let short = |reference: &ObjectReference| format!("{}/{}", reference.namespace, reference.name);
    let id = compiled.verdicts.keys().find(|id| id.kind == Kind::RouteTable && id.short() == table);
    let report = report(compiled, id.expect("the table has a status")).expect("a table has a report");
    let applied = report.applied_route_policies.values().flat_map(|applied| &applied.policies);
    let own: Vec<_> = applied.filter(|applied| applied.route_name == route).collect();
    let mut found: Vec<String> = own.iter().map(|applied| short(&applied.policy)).collect();
    found.sort();
    let mut wanted = strings(expected, "policies");
    wanted.sort();
    let mut failures = Vec::new();
    if found != wanted {
        failures.push(format!("its table reports {found:?}, expected {wanted:?}"));
    }
    let by = (root != table).then_some(&root);
    let roots: Vec<Option<String>> = own.iter().map(|applied| applied.root_route_table.as_ref().map(short)).collect();
    if roots.iter().any(|found| found.as_ref() != by) {
        failures.push(format!("its table reports the roots {roots:?}, expected {by:?}"));
    }
    failures
}

/// Every gateway is asked; the one that serves the host answers.
fn check_route(compiled: &Compiled, expected: &Value, path: &str) -> Vec<String> {
    let request =
        Request { host: text(&expected["request"], "host").to_owned(), path: path.to_owned(), ..Request::default() };
    let gateways: Vec<&GatewayId> = compiled.plans.keys().collect();
    let answers = gateways.iter().filter_map(|gateway| explain(compiled, gateway, &request).ok());
    let Some(explanation) = answers.into_iter().find(|explanation| explanation.virtual_host.is_some()) else {
        return vec![format!("no gateway serves the host; there are {gateways:?}")];
    };
    let Some(route) = &explanation.route else { return vec![format!("no route matches: {:?}", explanation.answer)] };
    let mut failures = check_provenance(route, expected);
    let response = &expected["response"];
    let status = explanation.answer.as_ref().map_or(200, |answer| u64::from(answer.status));
    if Some(status) != response["status"].as_u64() {
        failures.push(format!("status {status}, expected {}", response["status"]));
    }
    let fault = route.body.fault.as_ref().map(|fault| fault.code.as_str()).unwrap_or_default();
    if fault != text(response, "error") {
        failures.push(format!("fault {fault:?}, expected {:?}: {:?}", text(response, "error"), route.body.fault));
    }
    if let Some(backend) = response.get("backend").and_then(Value::as_str) {
        let found: Vec<String> = route
            .destinations
            .iter()
            .map(|(id, ..)| format!("{}/{}/{}", id.object.cluster, id.object.namespace, id.object.name))
            .collect();
        let is_virtual =
            route.destinations.iter().any(|(id, ..)| id.object.kind == crate::model::Kind::VirtualDestination);
        if !is_virtual && !found.iter().any(|f| f == backend) {
            failures.push(format!("forwards to {found:?}, expected {backend}"));
        }
    }
    failures
}

/// A client of a workspace asks the east-west gateway of its cluster (R186).
fn check_mesh(compiled: &Compiled, expected: &Value) -> Result<(), String> {
    let gateway: GatewayId = format!("{}/{}", text(expected, "cluster"), text(expected, "viaGateway")).parse()?;
    let asked = &expected["request"];
    let request = Request {
        host: text(asked, "host").to_owned(),
        path: text(asked, "path").to_owned(),
        port: asked["port"].as_u64().and_then(|port| port.try_into().ok()),
        client: Some(text(expected, "from").to_owned()),
        ..Request::default()
    };
    let explanation = explain(compiled, &gateway, &request)?;
    let found = explanation.answer.as_ref().map_or(200, |answer| u64::from(answer.status));
    let wanted = &expected["response"]["status"];
    if Some(found) == wanted.as_u64() {
        return Ok(());
    }
    Err(format!("status {found}, expected {wanted}: {:?}", explanation.answer))
}

fn check_provenance(route: &MatchedRoute<'_>, expected: &Value) -> Vec<String> {
    let mut failures = Vec::new();
    let mut same = |what: &str, found: Vec<String>, wanted: Vec<String>| {
        if found != wanted {
            failures.push(format!("{what} {found:?}, expected {wanted:?}"));
        }
    };
    same("chain", route.body.chain.iter().map(ToString::to_string).collect(), strings(expected, "chain"));
    same("owners", route.body.owners().iter().map(ToString::to_string).collect(), strings(expected, "chainWorkspaces"));
    if let Some(labels) = expected.get("labels").and_then(Value::as_object) {
        let wanted: Vec<String> =
            labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        let mut wanted = wanted;
        wanted.sort();
        same("labels", route.body.labels.iter().map(|(k, l)| format!("{k}={}", l.value)).collect(), wanted);
    }
    let mut attached: Vec<String> = route.body.attached.iter().map(|a| a.policy.short()).collect();
    attached.sort();
    let mut wanted = strings(expected, "policies");
    wanted.sort();
    same("policies", attached, wanted);
    for off in list(expected, "mustNotAttach") {
        let found = route.off.iter().find(|not| not.policy.short() == text(off, "policy"));
        match found {
            Some(not) if not.off.as_str() == text(off, "code") => {}
            other => {
                failures.push(format!("{} is off as {other:?}, expected {}", text(off, "policy"), text(off, "code")));
            }
        }
    }
    failures
}

fn check_status(compiled: &Compiled, expected: &Value) -> Vec<String> {
    let (kind, name) = text(expected, "object").split_once(' ').unwrap_or_default();
    let found = compiled.verdicts.iter().find(|(id, _)| id.kind.as_str() == kind && id.short() == name);
    let Some((_, verdict)) = found else { return vec!["has no status".to_owned()] };
    let mut failures = Vec::new();
    if verdict.approval.as_str() != text(expected, "state") {
        failures.push(format!("{} ({}), expected {}", verdict.approval, verdict.message, text(expected, "state")));
    }
    let part = text(expected, "messageContains");
    if !verdict.message.contains(part) {
        failures.push(format!("message {:?} does not contain {part:?}", verdict.message));
    }
    failures
}
