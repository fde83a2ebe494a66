//! `chancery explain`.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::compile::explain::{
    Explanation, MatchedRoute, ObjectExplanation, Request, describe, explain, explain_object,
};
use crate::model::{GatewayId, ObjectRef};
use crate::resolve::attachment::NotAttached;

use super::{EXIT_CODES, Offline, Outcome, Rules, TextOrJson, Usage, json, offline, table};

/// Say what a gateway does with a request, or what became of an object, and why.
///
/// For a request: listener, host, route, the tables on the way, labels with their origin, policies attached and not with
/// the reason, destinations. For an object: verdict, findings, the routes that it is on.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery explain config/demo --host web.istioinaction.io --allow-loopback-endpoints\n  chancery explain config/demo RouteTable/recommendation/recs@cluster-1 -o json\n\n{EXIT_CODES}"))]
pub(super) struct Explain {
    /// Directory or file of manifests
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// An object: Kind/namespace/name@cluster
    #[arg(value_name = "OBJECT", conflicts_with_all = ["gateway", "host"], required_unless_present = "host")]
    object: Option<ObjectRef>,
    /// The gateway that gets the request: cluster/namespace/service; may be left out where there is only one
    #[arg(short, long, value_name = "GATEWAY", requires = "host", help_heading = "Request")]
    gateway: Option<GatewayId>,
    /// Port of the gateway Service; its lowest unless stated
    #[arg(long, value_name = "PORT", help_heading = "Request")]
    port: Option<u16>,
    /// Host header
    #[arg(long, value_name = "HOST", help_heading = "Request")]
    host: Option<String>,
    /// Server name that the client states in TLS; the host unless stated
    #[arg(long, value_name = "NAME", help_heading = "Request")]
    server_name: Option<String>,
    /// Path with query
    #[arg(long = "path", value_name = "PATH", default_value = "/", help_heading = "Request")]
    path_and_query: String,
    /// Method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET", help_heading = "Request")]
    method: String,
    /// A header, as 'name: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER", help_heading = "Request")]
    headers: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: TextOrJson,
    #[command(flatten)]
    rules: Rules,
}

impl Explain {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let offline = offline(std::slice::from_ref(&self.path), &self.rules, self.gateway.as_ref())?;
        match (&self.object, &self.gateway) {
            (Some(object), _) => self.object(&offline, object, out),
            (None, Some(gateway)) => self.request(&offline, gateway, out),
            (None, None) => self.request(&offline, only_gateway(&offline)?, out),
        }
    }

    fn request(&self, offline: &Offline, gateway: &GatewayId, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let mut request = Request {
            port: self.port,
            host: self.host.clone().unwrap_or_default(),
            server_name: self.server_name.clone(),
            path: self.path_and_query.clone(),
            method: self.method.to_ascii_uppercase(),
            headers: Vec::new(),
        };
        for header in &self.headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| Usage(format!("`{header}` is no header: write 'name: value'")))?;
            request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let explanation = explain(&offline.compiled, gateway, &request).map_err(Usage)?;
        match self.output {
            TextOrJson::Text => request_text(&request, &explanation, out)?,
            TextOrJson::Json => json::print(out, &request_json(&request, &explanation))?,
        }
        Ok(Outcome::Clean)
    }

    fn object(&self, offline: &Offline, id: &ObjectRef, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let known = offline.loaded.objects.iter().any(|object| object.meta.id == *id);
        let explanation = explain_object(&offline.compiled, known, id).map_err(Usage)?;
        match self.output {
            TextOrJson::Text => object_text(id, &explanation, out)?,
            TextOrJson::Json => json::print(out, &object_json(id, &explanation))?,
        }
        Ok(Outcome::Clean)
    }
}

/// The gateway that a request means that names none.
fn only_gateway(offline: &Offline) -> Result<&GatewayId, Usage> {
    let known: Vec<&GatewayId> = offline.compiled.plans.keys().collect();
    match known.as_slice() {
        [only] => Ok(only),
        [] => Err(Usage("there is no gateway: no VirtualGateway selects a Service".to_owned())),
        several => {
            let several: Vec<String> = several.iter().map(|id| format!("`{id}`")).collect();
            Err(Usage(format!("name one of the gateways with --gateway: {}", several.join(", "))))
        }
    }
}

fn request_text(request: &Request, explanation: &Explanation<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    let scheme = if explanation.chain.is_some_and(|chain| chain.tls.is_some()) { "https" } else { "http" };
    writeln!(out, "Request:   {} {scheme}://{}{}", request.method, request.host, request.path)?;
    writeln!(out, "Gateway:   {}", explanation.gateway)?;
    if let Some(port) = explanation.listener {
        writeln!(out, "Listener:  port {port}")?;
    }
    if let Some(chain) = explanation.chain {
        let ends = if chain.tls.is_some() { "ends here" } else { "is passed through" };
        writeln!(out, "TLS:       {ends}, listener `{}` of {}", chain.name, chain.gateways[0].short())?;
    }
    if let Some(host) = &explanation.virtual_host {
        writeln!(out, "Host:      {host}")?;
    }
    if let Some(route) = &explanation.route {
        route_text(route, out)?;
    }
    if let Some(answer) = &explanation.answer {
        let location = answer.location.as_ref().map(|location| format!(" to {location}")).unwrap_or_default();
        if answer.status == 0 {
            writeln!(out, "Answer:    none: {}", answer.body)?;
        } else {
            let why = if answer.body.is_empty() { String::new() } else { format!(": {}", answer.body) };
            writeln!(out, "Answer:    {}{location}{why}", answer.status)?;
        }
    }
    Ok(())
}

fn route_text(route: &MatchedRoute<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "Route:     {} ({})", route.name, describe(&route.matcher))?;
    for (index, hop) in route.body.chain.iter().enumerate() {
        let heading = if index == 0 { "Chain:" } else { "" };
        writeln!(out, "{heading:<11}{hop}  (workspace {}, {}, spec.http[{}])", hop.owner, hop.table, hop.index)?;
    }
    if route.is_frozen {
        writeln!(out, "Frozen:    as it was accepted last, because a route of its tree is invalid")?;
    }
    if let Some(fault) = &route.body.fault {
        writeln!(out, "Fault:     {}: {}", fault.code, fault.message)?;
    }
    let labels: Vec<Vec<String>> = route
        .body
        .labels
        .iter()
        .map(|(key, label)| vec![format!("{key}={}", label.value), route.label_origin(key)])
        .collect();
    let attached: Vec<Vec<String>> = route
        .body
        .attached
        .iter()
        .map(|a| vec![a.policy.to_string(), a.owner.to_string(), a.selected_by.to_string()])
        .collect();
    let off: Vec<Vec<String>> =
        route.off.iter().map(|not| vec![not.policy.to_string(), not.off.to_string(), not.reason.clone()]).collect();
    let destinations: Vec<Vec<String>> = route
        .destinations
        .iter()
        .map(|(id, weight, upstream)| {
            let endpoints = upstream.map(|u| endpoints(u).join(", ")).unwrap_or_default();
            let endpoints = if endpoints.is_empty() { "none ready: 503".to_owned() } else { endpoints };
            vec![id.to_string(), weight.to_string(), endpoints]
        })
        .collect();
    for (headers, rows) in [
        (&["LABEL", "FROM"][..], labels),
        (&["POLICY", "WORKSPACE", "SELECTED BY"][..], attached),
        (&["NOT ATTACHED", "WHY", "REASON"][..], off),
        (&["DESTINATION", "WEIGHT", "ENDPOINTS"][..], destinations),
    ] {
        if !rows.is_empty() {
            writeln!(out)?;
            table::print(out, headers, &rows)?;
        }
    }
    Ok(())
}

fn endpoints(upstream: &crate::ir::Upstream) -> Vec<String> {
    upstream.endpoints.values().flatten().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect()
}

fn request_json(request: &Request, explanation: &Explanation<'_>) -> Value {
    let headers: Vec<Value> =
        request.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let answer = explanation.answer.as_ref();
    let mut value = json!({
        "apiVersion": json::API_VERSION,
        "kind": "Explanation",
        "request": {
            "host": request.host,
            "path": request.path,
            "method": request.method,
            "headers": headers,
        },
        "gateway": explanation.gateway.to_string(),
        "outcome": {
            "status": answer.map(|answer| answer.status).filter(|status| *status != 0),
            "body": answer.map(|answer| &answer.body),
            "location": answer.and_then(|answer| answer.location.as_ref()),
        },
        "listener": explanation.listener.map(|port| json!({
            "port": port,
            "tls": explanation.chain.map(|chain| json!({
                "name": chain.name.as_str(),
                "terminated": chain.tls.is_some(),
                "gateways": chain.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })),
        })),
        "virtualHost": explanation.virtual_host.as_deref(),
        "route": null,
        "policies": [],
        "notAttached": [],
        "destinations": [],
    });
    if let Some(route) = &explanation.route {
        let labels: Map<String, Value> = route
            .body
            .labels
            .iter()
            .map(|(key, label)| (key.to_string(), json!({"value": &*label.value, "from": route.label_origin(key)})))
            .collect();
        value["route"] = json!({
            "name": &*route.name,
            "matches": describe(&route.matcher),
            "chain": route.body.chain.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tables": route.body.chain.iter().map(|hop| hop.table.to_string()).collect::<Vec<_>>(),
            "chainWorkspaces": route.body.owners().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "labels": labels,
            "fault": route.body.fault.as_ref().map(|fault| json!({"code": fault.code.as_str(), "message": fault.message})),
            "frozen": route.is_frozen,
        });
        value["policies"] = route
            .body
            .attached
            .iter()
            .map(|a| {
                json!({
                    "policy": a.policy.to_string(),
                    "owner": a.owner.to_string(),
                    "selectedBy": &*a.selected_by,
                    "destination": a.destination.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        value["notAttached"] = route
            .off
            .iter()
            .map(|not| json!({"policy": not.policy.to_string(), "code": not.off.as_str(), "reason": not.reason}))
            .collect();
        value["destinations"] = route
            .destinations
            .iter()
            .map(|(id, weight, upstream)| {
                json!({
                    "upstream": id.to_string(),
                    "weight": weight,
                    "endpoints": upstream.map(|u| endpoints(u)).unwrap_or_default(),
                })
            })
            .collect();
    }
    value
}

fn object_text(id: &ObjectRef, explanation: &ObjectExplanation<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "Object:     {id}")?;
    if let Some(owner) = &explanation.owner {
        writeln!(out, "Workspace:  {owner}")?;
    }
    if let Some(verdict) = explanation.verdict {
        writeln!(out, "Approval:   {}", verdict.approval)?;
        for (index, (what, number)) in verdict.counts.iter().enumerate() {
            let heading = if index == 0 { "Counts:" } else { "" };
            writeln!(out, "{heading:<12}{}: {number}", in_words(what))?;
        }
    }
    for finding in &explanation.findings {
        let place = finding.location.as_ref().map(|location| format!(" ({location})")).unwrap_or_default();
        writeln!(out, "Finding:    {} {}: {}{place}", finding.severity, finding.code, finding.message)?;
    }
    for (heading, list) in &explanation.related {
        writeln!(out, "{:<12}{}", format!("{}{}:", heading[..1].to_uppercase(), &heading[1..]), list.join(", "))?;
    }
    if !explanation.routes.is_empty() {
        let rows: Vec<Vec<String>> = explanation
            .routes
            .iter()
            .map(|route| {
                let labels: Vec<String> = route.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let policies: Vec<String> =
                    route.policies.iter().map(|policy| format!("{}/{}", policy.kind, policy.short())).collect();
                vec![
                    route.chain.join(" > "),
                    route.matches.join(" or "),
                    labels.join(","),
                    frozen(route.fault.clone().unwrap_or_else(|| policies.join(", ")), route.is_frozen),
                ]
            })
            .collect();
        writeln!(out)?;
        table::print(out, &["ROUTE", "MATCHES", "LABELS", "POLICIES OR FAULT"], &rows)?;
    }
    if !explanation.not_on.is_empty() {
        let row = |(chain, not): &(Vec<String>, NotAttached)| {
            vec![chain.join(" > "), not.off.to_string(), not.reason.clone()]
        };
        let rows: Vec<Vec<String>> = explanation.not_on.iter().take(MOST_ROWS).map(row).collect();
        writeln!(out)?;
        table::print(out, &["NOT ATTACHED TO", "WHY", "REASON"], &rows)?;
        let left = explanation.not_on.len() - rows.len();
        if left > 0 {
            writeln!(out, "and {left} more; -o json has them all")?;
        }
    }
    Ok(())
}

/// What is on a route, and whether it is as it was accepted last.
fn frozen(text: String, is_frozen: bool) -> String {
    match (is_frozen, text.is_empty()) {
        (false, _) => text,
        (true, true) => "frozen".to_owned(),
        (true, false) => format!("frozen: {text}"),
    }
}

/// Rows of a table in which every route of the mesh may stand; about what a terminal shows at once.
const MOST_ROWS: usize = 30;

/// A counter of the API's status in words: `numSelectedRoutes` is `selected routes`.
fn in_words(counter: &str) -> String {
    if let Some((_, kind)) = counter.split_once("Kind=") {
        return format!("{kind} on its routes");
    }
    let name = counter.strip_prefix("num").unwrap_or(counter);
    let name = name.strip_suffix("Count").unwrap_or(name);
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

fn object_json(id: &ObjectRef, explanation: &ObjectExplanation<'_>) -> Value {
    let routes: Vec<Value> = explanation
        .routes
        .iter()
        .map(|route| {
            let labels: Map<String, Value> =
                route.labels.iter().map(|(key, value)| (key.to_string(), Value::from(value.as_str()))).collect();
            json!({
                "chain": route.chain,
                "matches": route.matches,
                "labels": labels,
                "policies": route.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "fault": route.fault,
                "frozen": route.is_frozen,
            })
        })
        .collect();
    let related: Map<String, Value> =
        explanation.related.iter().map(|(heading, list)| ((*heading).to_owned(), json!(list))).collect();
    json!({
        "apiVersion": json::API_VERSION,
        "kind": "ObjectExplanation",
        "object": id.to_string(),
        "workspace": explanation.owner.as_deref(),
        "approval": explanation.verdict.map(|verdict| verdict.approval.as_str()),
        "message": explanation.verdict.map(|verdict| &verdict.message),
        "counts": explanation.verdict.map(|verdict| &verdict.counts),
        "findings": explanation.findings.iter().map(|finding| json::finding(finding)).collect::<Vec<_>>(),
        "related": related,
        "routes": routes,
        "notAttachedTo": explanation
            .not_on
            .iter()
            .map(|(chain, not)| json!({"chain": chain, "code": not.off.as_str(), "reason": not.reason}))
            .collect::<Vec<_>>(),
    })
}
