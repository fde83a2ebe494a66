//! RouteTables: hosts, matchers, actions, weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crd::Object;
use crate::crd::common::{self as written_common, HttpRequestMatcher, ObjectSelector, WorkloadKind, WorkloadSelector};
use crate::crd::route_table as written;
use crate::ir::route::{
    DirectResponse, HeaderMatch, HostRewrite, Matcher, PathRewrite, QueryMatch, Redirect, ValueMatch,
};
use crate::model::{Code, FieldPath, Finding, Findings, Host, Labels, Name, PathMatch, expression};

use crate::resolve::facts::{
    Age, Delegate, DestinationPlace, DestinationReference, FailureMode, Fault, RootTable, SortMethod, Table,
    TableAction, TableForward, TableRole, TableRoute,
};
use crate::resolve::policy::is_header_name;

use super::{labels, lower_kind, lower_port, lower_reference, lower_selector, not_applicable, port_number, stream};

/// Longest body of a direct response, in bytes. Envoy holds it in memory for every route that has it.
const MAX_BODY: usize = 1024 * 1024;

/// Longest name of a query parameter, in bytes: Envoy refuses a whole route configuration for a longer one.
const MAX_QUERY_NAME: usize = 1024;

/// Most hosts of one table. Each gets a copy of all of the table's routes.
const MAX_HOSTS: usize = 1000;

/// Most destinations of one route, as the API has it.
const MAX_DESTINATIONS: usize = 100;

/// R70 to R82.
pub(super) fn table(object: &Object, spec: &written::RouteTable, findings: &mut Findings) -> Table {
    let id = &object.meta.id;
    let is_root = !spec.hosts.is_empty() || object.defect_within(&FieldPath::new("spec.hosts")).is_some();
    let role = if is_root {
        TableRole::Root(RootTable {
            hosts: hosts(object, spec, findings),
            gateways: spec
                .virtual_gateways
                .iter()
                .enumerate()
                // A reference that cannot be read whole might name another gateway.
                .filter(|(index, _)| {
                    object.defect_within(&FieldPath::new("spec.virtualGateways").index(*index)).is_none()
                })
                .map(|(_, reference)| lower_reference(reference))
                .collect(),
            serves_mesh: serves_mesh(object, spec),
            failure_mode: failure_mode(object, spec),
        })
    } else {
        child_rules(object, spec, findings);
        TableRole::Child
    };
    remarks(object, spec, is_root, findings);
    let unreadable_labels = object.defect_within(&FieldPath::new("metadata.labels")).map(|defect| Fault {
        code: Code::InvalidField,
        field: defect.field.clone(),
        message: format!("the table's labels cannot be read, so policies might miss its routes: {}", defect.message),
    });
    let mut names: BTreeMap<Name, usize> = BTreeMap::new();
    let mut routes = Vec::with_capacity(spec.http.len());
    for (index, written) in spec.http.iter().enumerate() {
        let mut route = route(object, spec, index, written, findings);
        route.name = unique(&written.name, index, &mut names);
        route.faults.extend(unreadable_labels.clone());
        share_action(routes.last(), &mut route);
        routes.push(route);
    }
    Table {
        id: id.clone(),
        age: Age::new(object.meta.created, id),
        labels: object.meta.labels.clone(),
        role,
        is_for_some_clients: is_for_some_clients(object, spec),
        weight: spec.weight,
        routes,
        streams: stream::streams(object, spec, findings),
    }
}

/// R70, D12.
fn hosts(object: &Object, spec: &written::RouteTable, findings: &mut Findings) -> Vec<Host> {
    let id = &object.meta.id;
    let mut hosts: Vec<Host> = Vec::with_capacity(spec.hosts.len());
    for (index, text) in spec.hosts.iter().enumerate() {
        let field = FieldPath::new("spec.hosts").index(index);
        if index == MAX_HOSTS {
            let message = format!(
                "a table has at most {MAX_HOSTS} hosts; this one and those after it are not served, so split the table"
            );
            findings.push(Finding::error(id, Code::LimitExceeded, message).at(field));
            break;
        }
        if object.defect_within(&field).is_some() {
            continue;
        }
        match Host::parse(text) {
            Ok(host) => {
                if host.as_str() == "*" {
                    findings.push(
                        Finding::warning(
                            id,
                            Code::BareWildcardHost,
                            "`*` claims every host that no other table names; write the hosts out",
                        )
                        .at(field),
                    );
                }
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
            Err(error) => findings
                .push(Finding::error(id, Code::InvalidField, format!("{error}; the host is not served")).at(field)),
        }
    }
    hosts
}

/// R76, D13: a selector that picks some clients would have to be followed at each of them.
fn serves_mesh(object: &Object, spec: &written::RouteTable) -> bool {
    let is_unreadable = |field: &str| object.defect_within(&FieldPath::new(field)).is_some();
    if is_unreadable("spec.virtualGateways") || is_unreadable("spec.workloadSelectors") {
        return false;
    }
    if spec.workload_selectors.is_empty() {
        return spec.virtual_gateways.is_empty();
    }
    spec.workload_selectors.iter().any(takes_all)
}

/// R101: likewise for a child table, whose routes are off the mesh then. What cannot be read may pick some.
fn is_for_some_clients(object: &Object, spec: &written::RouteTable) -> bool {
    object.defect_within(&FieldPath::new("spec.workloadSelectors")).is_some()
        || (!spec.workload_selectors.is_empty() && !spec.workload_selectors.iter().any(takes_all))
}

/// Whether a selector restricts clients in no way.
fn takes_all(item: &WorkloadSelector) -> bool {
    item.selector.as_ref().is_none_or(|selector| *selector == ObjectSelector::default())
        && item.kind == WorkloadKind::default()
        && item.port.is_none()
}

/// R138.
fn failure_mode(object: &Object, spec: &written::RouteTable) -> FailureMode {
    if object.defect_within(&FieldPath::new("spec.failureMode")).is_some() {
        return FailureMode::Unreadable;
    }
    match spec.failure_mode {
        written::FailureMode::RouteReplacement => FailureMode::RouteReplacement,
        written::FailureMode::FreezeConfig => FailureMode::FreezeConfig,
    }
}

/// R71.
fn child_rules(object: &Object, spec: &written::RouteTable, findings: &mut Findings) {
    let set = [
        ("virtualGateways", !spec.virtual_gateways.is_empty()),
        ("applyToDestinations", !spec.apply_to_destinations.is_empty()),
        ("failureMode", spec.failure_mode != written::FailureMode::default()),
        ("virtualServiceAnnotations", !spec.virtual_service_annotations.is_empty()),
    ];
    for (field, is_set) in set {
        if is_set {
            findings.push(
                Finding::error(
                    &object.meta.id,
                    Code::InvalidField,
                    format!("`{field}` needs `hosts`: a table without hosts is a child, and its root table decides; add `hosts` or remove the field"),
                )
                .at(FieldPath::new(format!("spec.{field}"))),
            );
        }
    }
}

/// What is accepted and has no effect, or not yet.
fn remarks(object: &Object, spec: &written::RouteTable, is_root: bool, findings: &mut Findings) {
    let id = &object.meta.id;
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        findings.push(
            Finding::error(id, Code::InvalidField, "the table has no routes: write at least one in `http`")
                .at(FieldPath::new("spec.http")),
        );
    }
    let has_streams = !spec.tcp.is_empty() || !spec.tls.is_empty();
    if !is_root && has_streams {
        findings.push(
            Finding::warning(
                id,
                Code::Unsupported,
                "only HTTP routes are delegated: `tcp` and `tls` routes serve nothing in a table without `hosts`",
            )
            .at(FieldPath::new(if spec.tcp.is_empty() { "spec.tls" } else { "spec.tcp" })),
        );
    }
    if is_for_some_clients(object, spec) {
        findings.push(
            Finding::warning(
                id,
                Code::NotApplicable,
                "`workloadSelectors` that pick some clients need a proxy beside each of them; the table is not served to mesh clients, write `[{}]` for all",
            )
            .at(FieldPath::new("spec.workloadSelectors")),
        );
    }
    if is_root && !spec.apply_to_destinations.is_empty() {
        not_applicable(object, "applyToDestinations", "there are no waypoint proxies", findings);
    }
    if is_root && !spec.virtual_service_annotations.is_empty() {
        not_applicable(object, "virtualServiceAnnotations", "no Istio objects are made", findings);
    }
}

/// R80.
fn unique(written: &str, index: usize, names: &mut BTreeMap<Name, usize>) -> Name {
    let name = written.strip_prefix("insecure-").unwrap_or(written);
    let name: Name = if name.is_empty() { format!("route-{index}").into() } else { name.into() };
    let seen = names.entry(name.clone()).or_insert(0);
    *seen += 1;
    if *seen == 1 { name } else { format!("duplicate-{name}-{}", *seen - 1).into() }
}

fn route(
    object: &Object,
    spec: &written::RouteTable,
    index: usize,
    written: &written::HttpRoute,
    findings: &mut Findings,
) -> TableRoute {
    let field = FieldPath::new("spec.http").index(index);
    let mut faults: Vec<Fault> = Vec::new();
    let mut matchers = Vec::with_capacity(written.matchers.len().max(1));
    let mut seen: BTreeSet<Matcher> = BTreeSet::new();
    let list = field.field("matchers");
    for (position, matcher) in written.matchers.iter().enumerate() {
        let at = list.index(position);
        if let Some(defect) = object.defect_within(&at) {
            faults.push(left_out(&defect.field, &defect.message));
            continue;
        }
        match lower_matcher(object, matcher, &at, &mut faults, findings) {
            Ok(matcher) if seen.insert(matcher.clone()) => matchers.push(matcher),
            Ok(_) => {}
            Err(fault) => faults.push(left_out(&fault.field, &fault.message)),
        }
    }
    // Of a route that cannot be read nobody knows what it would match; taking everything would hide its siblings.
    let whole = object.defects.iter().find(|defect| defect.field == field);
    if written.matchers.is_empty() && whole.is_none() && object.defect_within(&list).is_none() {
        matchers.push(Matcher::any());
    }
    let in_matchers = |fault: &Fault| fault.field.is_within(&list);
    let defect = object.defects.iter().find(|d| d.field.is_within(&field) && !d.field.is_within(&list));
    if let Some(defect) = whole {
        let message = format!("{}; the route is left out, so its requests go on to later routes", defect.message);
        faults.push(Fault { code: Code::InvalidField, field: field.clone(), message });
    } else if let Some(defect) = defect {
        faults.push(Fault { code: Code::InvalidField, field: defect.field.clone(), message: defect.message.clone() });
    } else if let Some(defect) = object.defect_within(&list)
        && !faults.iter().any(in_matchers)
    {
        faults.push(left_out(&defect.field, &defect.message));
    }
    let is_default = written.forward_to.as_ref().is_some_and(|forward| forward.destinations.is_empty());
    if is_default && let Some(defect) = object.defect_within(&FieldPath::new("spec.defaultDestination")) {
        faults.push(Fault { code: Code::InvalidField, field: defect.field.clone(), message: defect.message.clone() });
    }
    for (key, value) in &written.labels {
        if !is_label_key(key) || !is_label_value(value) {
            findings.push(
                Finding::warning(
                    &object.meta.id,
                    Code::InvalidField,
                    format!("label `{key}: {value}` does not follow Kubernetes' label syntax"),
                )
                .at(field.field("labels")),
            );
        }
    }
    // What is left of an action that cannot be read would only be reported in misleading words.
    let action = if defect.is_some() { TableAction::None } else { action(spec, written, &field, &mut faults) };
    TableRoute {
        name: Name::default(),
        index,
        labels: labels(&written.labels).into_iter().collect(),
        matchers: matchers.into(),
        action,
        faults,
    }
}

/// Lets neighbours share where they forward to, which they nearly always have in common.
fn share_action(before: Option<&TableRoute>, route: &mut TableRoute) {
    if let (Some(TableAction::Forward(before)), TableAction::Forward(own)) =
        (before.map(|before| &before.action), &mut route.action)
        && own.destinations == before.destinations
    {
        if own == before {
            *own = before.clone();
        } else {
            Arc::make_mut(own).destinations = before.destinations.clone();
        }
    }
}

fn left_out(field: &FieldPath, message: &str) -> Fault {
    Fault {
        code: Code::InvalidField,
        field: field.clone(),
        message: format!("{message}; this alternative of the route is left out, so its requests go on to later routes"),
    }
}

/// R74.
fn action(
    spec: &written::RouteTable,
    route: &written::HttpRoute,
    field: &FieldPath,
    faults: &mut Vec<Fault>,
) -> TableAction {
    let result = if let Some(forward) = &route.forward_to {
        lower_forward(spec, forward, &field.field("forwardTo"), faults)
            .map(|forward| TableAction::Forward(forward.into()))
    } else if let Some(delegate) = &route.delegate {
        Ok(TableAction::Delegate(Box::new(Delegate {
            items: delegate.route_tables.iter().map(lower_selector).collect(),
            sort: match delegate.sort_method {
                written::SortMethod::TableWeight => SortMethod::TableWeight,
                written::SortMethod::RouteSpecificity => SortMethod::RouteSpecificity,
            },
        })))
    } else if let Some(redirect) = &route.redirect {
        lower_redirect(redirect, &field.field("redirect")).map(|redirect| TableAction::Redirect(redirect.into()))
    } else if let Some(direct) = &route.direct_response {
        lower_direct(direct, &field.field("directResponse")).map(TableAction::Direct)
    } else if route.graphql.is_some() {
        Err(Fault {
            code: Code::Unsupported,
            field: field.field("graphql"),
            message: "GraphQL is not supported: Envoy has no engine for it".to_owned(),
        })
    } else {
        Err(Fault {
            code: Code::InvalidField,
            field: field.clone(),
            message: "the route has no action: write `forwardTo`, `delegate`, `redirect` or `directResponse`"
                .to_owned(),
        })
    };
    result.unwrap_or_else(|fault| {
        faults.push(fault);
        TableAction::None
    })
}

fn lower_redirect(written: &written::RedirectAction, field: &FieldPath) -> Result<Redirect, Fault> {
    use written::RedirectResponseCode as ResponseCode;
    let fault = |at: &str, message: &str| Fault {
        code: Code::InvalidField,
        field: field.field(at),
        message: message.to_owned(),
    };
    let clean = |text: &str| !text.contains(['\r', '\n', '\0']);
    if !clean(&written.host_redirect) {
        return Err(fault("hostRedirect", "a host has no line breaks and no NUL"));
    }
    if !written.path_redirect.as_deref().is_none_or(clean) {
        return Err(fault("pathRedirect", "a path has no line breaks and no NUL"));
    }
    Ok(Redirect {
        host: super::optional(&written.host_redirect),
        path: written.path_redirect.as_deref().and_then(super::optional),
        status: match written.response_code {
            ResponseCode::MovedPermanently => 301,
            ResponseCode::Found => 302,
            ResponseCode::SeeOther => 303,
            ResponseCode::TemporaryRedirect => 307,
            ResponseCode::PermanentRedirect => 308,
        },
    })
}

/// R79.
fn lower_direct(written: &written::DirectResponse, field: &FieldPath) -> Result<DirectResponse, Fault> {
    let fault = |at: &str, message: String| Fault { code: Code::InvalidField, field: field.field(at), message };
    let status = u16::try_from(written.status).ok().filter(|status| (200..=599).contains(status)).ok_or_else(|| {
        fault("status", format!("{} is no status that can be sent: write 200 to 599", written.status))
    })?;
    if written.body.len() > MAX_BODY {
        return Err(fault("body", format!("the body has {} bytes; at most {MAX_BODY} are sent", written.body.len())));
    }
    Ok(DirectResponse { status, body: (&written.body).into() })
}

/// What is wrong with weights or single destinations goes to `faults` and the rest is still read, so that of several
/// reasons the first by code can be told (R145).
pub(super) fn lower_forward(
    spec: &written::RouteTable,
    written: &written::ForwardTo,
    field: &FieldPath,
    faults: &mut Vec<Fault>,
) -> Result<TableForward, Fault> {
    let fault = |code, at: FieldPath, message: String| Fault { code, field: at, message };
    let list = field.field("destinations");
    // R75: a child does not inherit its parent's default.
    let (references, at): (&[written_common::DestinationReference], FieldPath) =
        match (written.destinations.as_slice(), &spec.default_destination) {
            ([], Some(default)) => (std::slice::from_ref(default), FieldPath::new("spec.defaultDestination")),
            (list_written, _) => (list_written, list.clone()),
        };
    if references.is_empty() {
        return Err(fault(
            Code::DestinationNotFound,
            list,
            "the route forwards to nothing: write `destinations`, or `defaultDestination` for the table".to_owned(),
        ));
    }
    if references.len() > MAX_DESTINATIONS {
        return Err(fault(
            Code::InvalidField,
            list,
            format!("{} destinations; a route has at most {MAX_DESTINATIONS}", references.len()),
        ));
    }
    let weights = weights(references).unwrap_or_else(|message| {
        faults.push(fault(Code::Weights, list.clone(), message));
        vec![1; references.len()]
    });
    let mut destinations = Vec::with_capacity(references.len());
    for (index, (reference, weight)) in references.iter().zip(weights).enumerate() {
        let (at, place) = if written.destinations.is_empty() {
            (at.clone(), DestinationPlace::Default)
        } else {
            (at.index(index), DestinationPlace::Listed(index))
        };
        if reference.aws_lambda.is_some() {
            let message = "functions as destinations are not supported".to_owned();
            faults.push(fault(Code::Unsupported, at.field("awsLambda"), message));
            continue;
        }
        let Some(target) = &reference.r#ref else {
            let message = "the destination has no `ref`: write its name".to_owned();
            faults.push(fault(Code::DestinationNotFound, at, message));
            continue;
        };
        let port = match reference.port.as_ref().map(lower_port) {
            None => None,
            Some(Ok(port)) => port,
            Some(Err(message)) => {
                faults.push(fault(Code::DestinationPort, at.field("port"), message));
                continue;
            }
        };
        destinations.push(DestinationReference {
            reference: lower_reference(target),
            kind: lower_kind(reference.kind),
            port,
            subset: subset(&reference.subset)
                .map_err(|message| fault(Code::InvalidField, at.field("subset"), message))?,
            weight,
            place,
        });
    }
    let path_rewrite = match (&written.path_rewrite, &written.regex_rewrite) {
        (Some(path), _) => {
            if path.contains(['\r', '\n', '\0']) {
                return Err(fault(
                    Code::InvalidField,
                    field.field("pathRewrite"),
                    "a path has no line breaks and no NUL".to_owned(),
                ));
            }
            super::optional(path).map(PathRewrite::Prefix)
        }
        (None, Some(regex)) => {
            let pattern = regex.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
            let groups = expression::check(pattern).map_err(|message| {
                fault(Code::InvalidField, field.field("regexRewrite").field("pattern").field("regex"), message)
            })?;
            if let Some(message) = bad_substitution(&regex.substitution, groups) {
                return Err(fault(Code::InvalidField, field.field("regexRewrite").field("substitution"), message));
            }
            Some(PathRewrite::Regex { pattern: pattern.into(), substitution: (&regex.substitution).into() })
        }
        (None, None) => None,
    };
    let host_rewrite = match (&written.host_rewrite, written.auto_host_rewrite) {
        (Some(host), _) if !host.is_empty() => {
            if host.contains(['\r', '\n', '\0', ' ']) {
                return Err(fault(
                    Code::InvalidField,
                    field.field("hostRewrite"),
                    format!("`{}` is no host", host.escape_debug()),
                ));
            }
            Some(HostRewrite::Literal(host.into()))
        }
        (_, Some(true)) => Some(HostRewrite::Auto),
        _ => None,
    };
    Ok(TableForward { destinations: destinations.into(), path_rewrite, host_rewrite })
}

/// Labels of endpoints; what no Pod can carry would only make the names of two subsets alike.
fn subset(written: &BTreeMap<String, String>) -> Result<Labels, String> {
    match written.iter().find(|(key, value)| !is_label_key(key) || !is_label_value(value)) {
        Some((key, value)) => Err(format!("`{key}: {value}` is no label that a Pod can carry; correct it")),
        None => Ok(labels(written)),
    }
}

/// Shares in percent, worked out (R77).
fn weights(destinations: &[written_common::DestinationReference]) -> Result<Vec<u32>, String> {
    let stated: u64 = destinations.iter().map(|destination| u64::from(destination.weight)).sum();
    let unset = destinations.iter().filter(|destination| destination.weight == 0).count();
    if stated > 100 {
        return Err(format!("the weights add up to {stated}; they are percentages and add up to 100"));
    }
    if destinations.len() == 1 {
        return Ok(vec![100]);
    }
    let rest = u32::try_from(100 - stated).unwrap_or(0);
    if unset == 0 {
        return if rest == 0 {
            Ok(destinations.iter().map(|destination| destination.weight).collect())
        } else {
            Err(format!("the weights add up to {stated}; they are percentages and add up to 100"))
        };
    }
    let unset = u32::try_from(unset).unwrap_or(u32::MAX);
    if rest < unset {
        return Err(format!(
            "the weights leave {rest} for {unset} destinations without a weight; each gets at least 1"
        ));
    }
    let (each, mut left_over) = (rest / unset, rest % unset);
    Ok(destinations
        .iter()
        .map(|destination| {
            if destination.weight > 0 {
                return destination.weight;
            }
            let extra = u32::from(left_over > 0);
            left_over -= extra;
            each + extra
        })
        .collect())
}

/// Why a substitution does not fit an expression; Envoy would refuse it.
fn bad_substitution(substitution: &str, groups: usize) -> Option<String> {
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some('\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).unwrap_or(0) as usize;
                if group > groups {
                    return Some(format!("the substitution names group {group}, the expression has {groups}"));
                }
            }
            _ => return Some("a `\\` in a substitution is followed by a digit or another `\\`".to_owned()),
        }
    }
    substitution.contains(['\r', '\n', '\0']).then(|| "a path has no line breaks and no NUL".to_owned())
}

/// R73.
fn lower_matcher(
    object: &Object,
    written: &HttpRequestMatcher,
    field: &FieldPath,
    faults: &mut Vec<Fault>,
    findings: &mut Findings,
) -> Result<Matcher, Fault> {
    let fault = |at: FieldPath, message: String| Fault { code: Code::InvalidField, field: at, message };
    if !written.name.is_empty() {
        findings.push(
            Finding::warning(&object.meta.id, Code::NotApplicable, "`name` of a matcher has no effect; name the route")
                .at(field.field("name")),
        );
    }
    let mut matcher = Matcher::any();
    if let Some(uri) = &written.uri {
        let at = field.field("uri");
        matcher.path = match (&uri.exact, &uri.prefix, &uri.regex, &uri.suffix) {
            (Some(path), ..) => PathMatch::Exact(rooted(path, &at.field("exact"))?),
            (_, Some(path), ..) => PathMatch::Prefix(rooted(path, &at.field("prefix"))?),
            (_, _, Some(path), _) => {
                expression::check(path).map_err(|message| fault(at.field("regex"), message))?;
                PathMatch::Regex(path.into())
            }
            (.., Some(suffix)) => {
                faults.push(Fault {
                    code: Code::Unsupported,
                    field: at.field("suffix"),
                    message: "`suffix` is not supported in paths; use `regex`".to_owned(),
                });
                let path = format!(".*{}", regex::escape(suffix));
                expression::check(&path).map_err(|message| fault(at.field("suffix"), message))?;
                PathMatch::Regex(path.into())
            }
            _ => PathMatch::Any,
        };
        matcher.ignore_case = uri.ignore_case && matches!(matcher.path, PathMatch::Exact(_) | PathMatch::Prefix(_));
    }
    for (index, header) in written.headers.iter().enumerate() {
        let at = field.field("headers").index(index);
        if !is_header_name(header.name.strip_prefix(':').unwrap_or(&header.name)) {
            return Err(fault(at.field("name"), format!("`{}` is no header name", header.name.escape_debug())));
        }
        let value = value(&header.value, header.regex).map_err(|message| fault(at.field("value"), message))?;
        let header = HeaderMatch { name: header.name.to_ascii_lowercase().into(), value, invert: header.invert_match };
        if !matcher.headers.contains(&header) {
            matcher.headers.push(header);
        }
    }
    for (index, parameter) in written.query_parameters.iter().enumerate() {
        let at = field.field("queryParameters").index(index);
        if parameter.name.is_empty() {
            return Err(fault(at.field("name"), "a query parameter needs its name".to_owned()));
        }
        if parameter.name.len() > MAX_QUERY_NAME {
            return Err(fault(
                at.field("name"),
                format!("the name is longer than {MAX_QUERY_NAME} bytes, which Envoy refuses"),
            ));
        }
        let value = value(&parameter.value, parameter.regex).map_err(|message| fault(at.field("value"), message))?;
        let parameter = QueryMatch { name: (&parameter.name).into(), value };
        if !matcher.query_parameters.contains(&parameter) {
            matcher.query_parameters.push(parameter);
        }
    }
    if !written.method.is_empty() {
        if !is_header_name(&written.method) {
            return Err(fault(field.field("method"), format!("`{}` is no method", written.method.escape_debug())));
        }
        matcher.method = Some(written.method.to_ascii_uppercase().into());
    }
    if written.port != 0 {
        matcher.port = Some(port_number(written.port).map_err(|message| fault(field.field("port"), message))?);
    }
    Ok(matcher)
}

/// A path that requests can have. One that does not start with `/` can only match as the rest of a parent's prefix.
fn rooted(path: &str, field: &FieldPath) -> Result<Name, Fault> {
    let fault =
        |message: &str| Err(Fault { code: Code::InvalidField, field: field.clone(), message: message.to_owned() });
    if path.contains(['\r', '\n', '\0']) {
        return fault("a path has no line breaks and no NUL");
    }
    if path.contains(['?', '#']) {
        return fault("a path is matched without its query; use `queryParameters`");
    }
    Ok(path.into())
}

/// An empty value asks for presence, and so does the expression `*`.
fn value(written: &str, regex: bool) -> Result<ValueMatch, String> {
    if written.is_empty() || (regex && written == "*") {
        return Ok(ValueMatch::Present);
    }
    if regex {
        expression::check(written)?;
        return Ok(ValueMatch::Regex(written.into()));
    }
    if written.contains(['\r', '\n', '\0']) {
        return Err("a value has no line breaks and no NUL".to_owned());
    }
    Ok(ValueMatch::Exact(written.into()))
}

/// R82: the prefix is optional.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|prefix| Host::parse(prefix).is_ok_and(|host| !host.is_wildcard()))
        && !name.is_empty()
        && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && value.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric())
        && value.bytes().last().is_none_or(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
