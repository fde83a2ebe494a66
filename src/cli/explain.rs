//! `chancery explain`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::api::document::{
    FindingPart, Holding, ObjectDocument, RequestDocument, RoutePart, of_object, of_request, only_gateway,
};
use crate::api::pb;
use crate::compile::explain::Request;
use crate::model::{GatewayId, ObjectRef};

use super::live::{SERVER_DEFAULT, Server};
use super::{Outcome, Rules, SERVER_EXIT_CODES, TextOrJson, Usage, json, offline, table};

/// Say what a gateway does with a request, or what became of an object, and why.
///
/// For a request: listener, host, route, the tables on the way, labels with their origin, policies attached and not with
/// the reason, destinations. For an object: verdict, findings, the routes that it is on. With --server in place of a path,
/// the same of a running control plane, and which connected gateways have acknowledged it.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "chancery explain <PATH> [--gateway <GATEWAY>] --host <HOST> [OPTIONS]\n       \
                      chancery explain <PATH> <OBJECT> [OPTIONS]\n       \
                      chancery explain --server <URL> --host <HOST> [OPTIONS]\n       \
                      chancery explain --server <URL> <OBJECT> [OPTIONS]",
    after_help = format!("Examples:\n  chancery explain config/demo --host web.istioinaction.io --allow-loopback-endpoints\n  chancery explain config/demo RouteTable/recommendation/recs@cluster-1 -o json\n\n{SERVER_EXIT_CODES}")
)]
pub(super) struct Explain {
    /// Directory or file of manifests; not with --server
    #[arg(value_name = "PATH", required_unless_present = "server")]
    path: Option<PathBuf>,
    /// An object: Kind/namespace/name@cluster
    #[arg(value_name = "OBJECT", conflicts_with_all = ["gateway", "host"], required_unless_present_any = ["host", "server"])]
    object: Option<ObjectRef>,
    /// Ask the running control plane with this admin address, such as http://127.0.0.1:18001; its own rules count
    #[arg(long, value_name = "URL")]
    server: Option<String>,
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
    /// Who sends it, on an east-west gateway: an address, a Pod as namespace/name, or a workspace
    #[arg(long, value_name = "CLIENT", help_heading = "Request")]
    client: Option<String>,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: TextOrJson,
    #[command(flatten)]
    rules: Rules,
}

impl Explain {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        match (&self.server, &self.path) {
            (Some(server), _) => self.live(server, out),
            (None, Some(path)) => self.offline(path, out),
            (None, None) => Err(Usage("name a path, or a server with --server".to_owned()).into()),
        }
    }

    fn offline(&self, path: &PathBuf, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let offline = offline(std::slice::from_ref(path), &self.rules, self.gateway.as_ref())?;
        if let Some(id) = &self.object {
            let document = of_object(&offline.compiled, id, &offline.loaded.places).map_err(Usage)?;
            return self.print(&document, object_text, out);
        }
        let gateway = match &self.gateway {
            Some(gateway) => gateway,
            None => only_gateway(&offline.compiled).map_err(Usage)?,
        };
        let document = of_request(&offline.compiled, gateway, &self.request()?).map_err(Usage)?;
        self.print(&document, request_text, out)
    }

    fn live(&self, server: &str, out: &mut impl Write) -> anyhow::Result<Outcome> {
        // With a server there is no path, so what stands first is the object.
        let object = self.path.as_deref().map(object_of).transpose()?;
        match (object, &self.host) {
            (Some(object), None) if self.object.is_none() => {
                let subject = pb::explain_request::Subject::Object(object.to_string());
                let answer = Server::connect(server)?.explain(subject)?;
                let mut document: ObjectDocument = document(&answer)?;
                document.acknowledged = Some(holdings(answer));
                self.print(&document, object_text, out)
            }
            (None, Some(_)) => {
                let subject = pb::explain_request::Subject::Request(self.question()?);
                let answer = Server::connect(server)?.explain(subject)?;
                let mut document: RequestDocument = document(&answer)?;
                document.acknowledged = Some(holdings(answer));
                self.print(&document, request_text, out)
            }
            (None, None) => Err(Usage(format!(
                "say what to explain: `chancery explain --server {SERVER_DEFAULT} --host HOST`, or an object in place of \
                 --host"
            ))
            .into()),
            (Some(_), _) => {
                Err(Usage("with --server, name either --host or one object, and no path".to_owned()).into())
            }
        }
    }

    fn request(&self) -> Result<Request, Usage> {
        let mut request = Request {
            port: self.port,
            host: self.host.clone().unwrap_or_default(),
            server_name: self.server_name.clone(),
            path: self.path_and_query.clone(),
            method: self.method.to_ascii_uppercase(),
            headers: Vec::new(),
            client: self.client.clone(),
        };
        for header in &self.headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| Usage(format!("`{header}` is no header: write 'name: value'")))?;
            request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(request)
    }

    fn question(&self) -> Result<pb::HttpRequest, Usage> {
        let request = self.request()?;
        Ok(pb::HttpRequest {
            gateway: self.gateway.as_ref().map(ToString::to_string).unwrap_or_default(),
            port: request.port.map(u32::from).unwrap_or_default(),
            host: request.host,
            server_name: request.server_name,
            path: request.path,
            method: request.method,
            headers: request.headers.into_iter().map(|(name, value)| pb::Header { name, value }).collect(),
            client: request.client,
        })
    }

    fn print<D: Serialize, W: Write>(
        &self,
        document: &D,
        text: impl Fn(&D, &mut W) -> anyhow::Result<()>,
        out: &mut W,
    ) -> anyhow::Result<Outcome> {
        match self.output {
            TextOrJson::Text => text(document, out)?,
            TextOrJson::Json => json::print(out, &serde_json::to_value(document)?)?,
        }
        Ok(Outcome::Clean)
    }
}

fn object_of(word: &Path) -> Result<ObjectRef, Usage> {
    let word = word.to_string_lossy();
    word.parse().map_err(|error| Usage(format!("{error}; with --server there is no path")))
}

fn document<D: serde::de::DeserializeOwned>(answer: &pb::ExplainResponse) -> anyhow::Result<D> {
    let value: Value = serde_json::from_str(&answer.document)?;
    serde_json::from_value(value).map_err(|error| {
        anyhow::anyhow!("the server's answer is not understood ({error}): its version is another than this one's")
    })
}

fn holdings(answer: pb::ExplainResponse) -> Vec<Holding> {
    answer.holdings.into_iter().map(Holding::from).collect()
}

fn request_text(document: &RequestDocument, out: &mut impl Write) -> anyhow::Result<()> {
    let request = &document.request;
    let tls = document.listener.as_ref().and_then(|listener| listener.tls.as_ref());
    let scheme = if tls.is_some_and(|tls| tls.terminated) { "https" } else { "http" };
    writeln!(out, "Request:   {} {scheme}://{}{}", request.method, request.host, request.path)?;
    writeln!(out, "Gateway:   {}", document.gateway)?;
    if let Some(listener) = &document.listener {
        writeln!(out, "Listener:  port {}", listener.port)?;
    }
    if let Some(tls) = tls {
        let ends = if tls.terminated { "ends here" } else { "is passed through" };
        writeln!(out, "TLS:       {ends}, listener `{}` of {}", tls.name, tls.gateways.join(", "))?;
    }
    if let Some(client) = &document.client {
        writeln!(
            out,
            "Client:    namespace {}, account {} (workspace {})",
            client.namespace, client.account, client.workspace
        )?;
    }
    if let Some(host) = &document.virtual_host {
        writeln!(out, "Host:      {host}")?;
    }
    if let Some(route) = &document.route {
        route_text(document, route, out)?;
    }
    let outcome = &document.outcome;
    match (outcome.status, &outcome.body) {
        (None, Some(why)) => writeln!(out, "Answer:    none: {why}")?,
        (Some(status), body) => {
            let location = outcome.location.as_ref().map(|location| format!(" to {location}")).unwrap_or_default();
            let why = body.as_ref().filter(|body| !body.is_empty()).map(|body| format!(": {body}")).unwrap_or_default();
            writeln!(out, "Answer:    {status}{location}{why}")?;
        }
        (None, None) => {}
    }
    acknowledged_text(document.acknowledged.as_deref(), out)
}

fn route_text(document: &RequestDocument, route: &RoutePart, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "Route:     {} ({})", route.name, route.matches)?;
    for (index, hop) in route.hops.iter().enumerate() {
        let heading = if index == 0 { "Chain:" } else { "" };
        let (route, workspace, table) = (&hop.route, &hop.workspace, &hop.table);
        let list = if table.starts_with("RouteTable/") { "spec.http" } else { "spec.ports" };
        writeln!(out, "{heading:<11}{route}  (workspace {workspace}, {table}, {list}[{}])", hop.index)?;
    }
    if route.frozen {
        writeln!(out, "Frozen:    as it was accepted last, because a route of its tree is invalid")?;
    }
    if let Some(fault) = &route.fault {
        writeln!(out, "Fault:     {}: {}", fault.code, fault.message)?;
    }
    let labels: Vec<Vec<String>> =
        route.labels.iter().map(|(key, label)| vec![format!("{key}={}", label.value), label.from.clone()]).collect();
    let attached: Vec<Vec<String>> =
        document.policies.iter().map(|a| vec![a.policy.clone(), a.owner.clone(), a.selected_by.clone()]).collect();
    let asked: Vec<Vec<String>> = document
        .policies
        .iter()
        .flat_map(|policy| policy.servers.iter().map(|server| vec![policy.policy.clone(), server.clone()]))
        .collect();
    let off: Vec<Vec<String>> = document
        .not_attached
        .iter()
        .map(|not| vec![not.policy.clone(), not.code.clone(), not.reason.clone()])
        .collect();
    let destinations: Vec<Vec<String>> = document
        .destinations
        .iter()
        .map(|destination| {
            let endpoints = destination.endpoints.join(", ");
            let endpoints = match (endpoints.is_empty(), &destination.tls) {
                (true, _) => "none ready: 503".to_owned(),
                (false, None) => endpoints,
                (false, Some(tls)) => format!("{endpoints} over {tls}"),
            };
            vec![destination.upstream.clone(), destination.weight.to_string(), endpoints]
        })
        .collect();
    let on_gateway = document.access.iter().map(|line| vec!["the gateway".to_owned(), line.clone()]);
    let at_destinations = document
        .destinations
        .iter()
        .flat_map(|destination| destination.access.iter().map(|line| vec![destination.upstream.clone(), line.clone()]));
    let access: Vec<Vec<String>> = on_gateway.chain(at_destinations).collect();
    let on_route = document.limits.iter().map(|line| vec!["the route".to_owned(), line.clone()]);
    let on_the_way = document
        .destinations
        .iter()
        .flat_map(|destination| destination.limits.iter().map(|line| vec![destination.upstream.clone(), line.clone()]));
    let limits: Vec<Vec<String>> = on_route.chain(on_the_way).collect();
    for (headers, rows) in [
        (&["LABEL", "FROM"][..], labels),
        (&["POLICY", "WORKSPACE", "SELECTED BY"][..], attached),
        (&["POLICY", "ASKS"][..], asked),
        (&["NOT ATTACHED", "WHY", "REASON"][..], off),
        (&["DESTINATION", "WEIGHT", "ENDPOINTS"][..], destinations),
        (&["AT", "ACCESS"][..], access),
        (&["ON", "LIMITS"][..], limits),
    ] {
        if !rows.is_empty() {
            writeln!(out)?;
            table::print(out, headers, &rows)?;
        }
    }
    for policy in document.policies.iter().filter(|policy| !policy.errors.is_empty()) {
        writeln!(out)?;
        for error in &policy.errors {
            writeln!(out, "{}: {error}", policy.policy)?;
        }
    }
    Ok(())
}

/// Who has it; nothing where nobody was asked.
fn acknowledged_text(holdings: Option<&[Holding]>, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(holdings) = holdings else { return Ok(()) };
    if holdings.is_empty() {
        writeln!(out, "\nAcknowledged: no connected gateway should hold it")?;
        return Ok(());
    }
    let mut nodes: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for holding in holdings {
        let whole = nodes.entry((&holding.gateway, &holding.node)).or_insert(true);
        *whole &= holding.state == pb::State::Acknowledged.word();
    }
    let whole = nodes.values().filter(|whole| **whole).count();
    writeln!(out, "\nAcknowledged: by {whole} of {} connected gateways", nodes.len())?;
    let rows: Vec<Vec<String>> = holdings
        .iter()
        .map(|holding| {
            let of_type = holding.type_url.rsplit('.').next().unwrap_or_default();
            vec![
                holding.gateway.clone(),
                holding.node.clone(),
                format!("{of_type} {}", holding.resource),
                holding.state.clone(),
                holding.message.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table::print(out, &["GATEWAY", "NODE", "RESOURCE", "STATE", "ENVOY SAYS"], &rows)?;
    Ok(())
}

fn object_text(document: &ObjectDocument, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "Object:     {}", document.object)?;
    if let Some(owner) = &document.workspace {
        writeln!(out, "Workspace:  {owner}")?;
    }
    if let Some(approval) = &document.approval {
        writeln!(out, "Approval:   {approval}")?;
    }
    for (index, (what, number)) in document.counts.iter().flatten().enumerate() {
        let heading = if index == 0 { "Counts:" } else { "" };
        writeln!(out, "{heading:<12}{}: {number}", in_words(what))?;
    }
    for FindingPart { severity, code, message, location, .. } in &document.findings {
        let place = location.as_ref().map(|location| format!(" ({location})")).unwrap_or_default();
        writeln!(out, "Finding:    {severity} {code}: {message}{place}")?;
    }
    for (heading, list) in &document.related {
        let first: String = heading.chars().take(1).flat_map(char::to_uppercase).collect();
        let rest: String = heading.chars().skip(1).collect();
        writeln!(out, "{:<12}{}", format!("{first}{rest}:"), list.join(", "))?;
    }
    if !document.routes.is_empty() {
        let rows: Vec<Vec<String>> = document
            .routes
            .iter()
            .map(|route| {
                let labels: Vec<String> = route.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let policies: Vec<String> = route.policies.iter().map(|policy| in_short(policy)).collect();
                vec![
                    route.chain.join(" > "),
                    route.matches.join(" or "),
                    labels.join(","),
                    frozen(route.fault.clone().unwrap_or_else(|| policies.join(", ")), route.frozen),
                ]
            })
            .collect();
        writeln!(out)?;
        table::print(out, &["ROUTE", "MATCHES", "LABELS", "POLICIES OR FAULT"], &rows)?;
    }
    if !document.not_attached_to.is_empty() {
        let rows: Vec<Vec<String>> = document
            .not_attached_to
            .iter()
            .take(MOST_ROWS)
            .map(|not| vec![not.chain.join(" > "), not.code.clone(), not.reason.clone()])
            .collect();
        writeln!(out)?;
        table::print(out, &["NOT ATTACHED TO", "WHY", "REASON"], &rows)?;
        let left = document.not_attached_to.len() - rows.len();
        if left > 0 {
            writeln!(out, "and {left} more; -o json has them all")?;
        }
    }
    acknowledged_text(document.acknowledged.as_deref(), out)
}

/// An object without its cluster: `Kind/namespace/name`.
fn in_short(object: &str) -> String {
    object.rsplit_once('@').map_or(object, |(short, _)| short).to_owned()
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
