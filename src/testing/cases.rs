//! Rule cases in Markdown: the inputs as users write them, then what must come of them.
//!
//! Each file of `src/cases/` is one topic. A second-level heading begins a case; before the first heading stands what all
//! cases of the file share. Fenced blocks:
//!
//! * `yaml`: objects, in cluster `cluster-1` unless the annotation `cluster.solo.io/cluster` says otherwise. An object
//!   that the shared part has too replaces it. A Secret with the annotation `test/pair: HOST` gets a certificate for the
//!   host and its key, with `test/authority` the certificate of an authority.
//! * `options`: `consent either`, `require-auth`, `loopback-endpoints`, one per line.
//! * `routes`: the complete listing of every gateway, in order:
//!   `gateway/port host name: matcher -> action {labels} [policies]`; `(nothing)` where nothing is served. With TLS the
//!   name of the chain stands behind the port; a route of whole connections has `connections` in place of a host. What other
//!   clusters are let through to is `gateway/port/server name requests of identities -> upstream`, or `connections of`.
//! * `endpoints`: the complete listing of the upstreams, `gateway upstream protocol: addresses` or `closed`, with the TLS that
//!   the gateway starts; behind an address that leads to another cluster, or belongs to an external service behind a virtual
//!   destination, ` via cluster`, behind one with a weight other than 1 ` xWEIGHT`, behind one that
//!   waits for others to fail ` pPRIORITY`; behind a place with a share of its own that. The TLS of those comes last.
//! * `access`: the complete listing of who may call what, `gateway: …` for the gateway itself, `gateway/port: …` for whole
//!   connections, `gateway upstream: …` for what it sends there.
//! * `limits`: the complete listing of what is limited, and of what rate-limit services are told, as [`super::limits`] says.
//! * `status`: some verdicts, `Kind/ns/name@cluster APPROVAL part of the message`; `Kind… has no CODE` asks for absence, and
//!   `Kind… at FIELD CODE: part of the message` for a finding at a place.
//! * `counts`: complete counts of some objects, `Kind/ns/name@cluster name=number …`, in the order of the names.
//! * `requests`: `gateway METHOD host/path [header: value;…] => route name or status`.
//! * `off`: why policies are not on the route of a request, `gateway METHOD host/path Kind/ns/name@cluster CODE`.
//!
//! Some rules are about changes. All `yaml` blocks together are compiled first, then one step after the other, in the order
//! in which they stand; expectations are of the last state:
//!
//! * `then`: objects as in `yaml`, new or in place of those of the same name.
//! * `gone`: objects that are deleted, `Kind/ns/name@cluster`, one per line.
//! * `restart`: `with state` or `without state`, a restart of the control plane that kept its state or had none;
//!   `with state and require-auth`, one that switches default deny on.
//!
//! Each step is compiled in both ways, from scratch and from what is kept of the step before, and must give the same.
//!
//! What a case does not list is not tested by it. Expectations are written by hand from the rule, never copied from output.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::compile::explain::{Request, describe, describe_guard, explain};
use crate::compile::{Compiled, Compiler, compile};
use crate::ir::frozen::Remembered;
use crate::ir::route::{Action, Attachment, HostRewrite, PathRewrite, Route};
use crate::ir::{Guard, Serves};
use crate::model::{GatewayId, ObjectRef};
use crate::resolve::{Consent, LoopbackEndpoints, Options, RequireAuth};
use crate::store::Store;

use super::authority::Authority;
use super::{cluster_of, decode, limits, yaml};

/// One case with the blocks of its own.
struct Case {
    title: String,
    line: usize,
    blocks: Vec<Block>,
}

struct Block {
    kind: String,
    text: String,
    line: usize,
}

#[test]
fn every_case_holds() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cases");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the cases are part of the repository")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut failures = String::new();
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable case file");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut cases = parse(&text);
        let shared = cases.remove(0);
        for case in cases.iter().filter(|case| format!("{name} {}", case.title).contains(&wanted)) {
            count += 1;
            for failure in check(&shared, case) {
                let _ = writeln!(failures, "{name}:{} {}: {failure}", case.line, case.title);
            }
        }
    }
    assert!(count > 0, "no case was found");
    assert!(failures.is_empty(), "of {count} cases:\n{failures}");
}

/// The shared part, then every case.
fn parse(text: &str) -> Vec<Case> {
    let mut cases = vec![Case { title: String::new(), line: 1, blocks: Vec::new() }];
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                open = Some(Block { kind: kind.trim().to_owned(), text: String::new(), line: index + 1 });
            }
            (Some(_), Some("")) => {
                if let (Some(block), Some(case)) = (open.take(), cases.last_mut()) {
                    case.blocks.push(block);
                }
            }
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    cases.push(Case { title: title.to_owned(), line: index + 1, blocks: Vec::new() });
                }
            }
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    cases
}

/// Manifests with their clusters.
type World = Vec<(String, serde_json::Value)>;

/// Adds a block's objects to a world, in place of those of the same name.
fn put(objects: &mut World, block: &Block) -> Result<(), String> {
    for mut manifest in yaml::documents(&block.text).map_err(|error| format!("line {}: {error}", block.line))? {
        fill_secret(&mut manifest);
        let cluster = cluster_of(&manifest);
        let id = |m: &serde_json::Value| {
            (m["kind"].clone(), m["metadata"]["namespace"].clone(), m["metadata"]["name"].clone())
        };
        objects.retain(|(other, held)| *other != cluster || id(held) != id(&manifest));
        objects.push((cluster, manifest));
    }
    Ok(())
}

/// Takes the objects that a block names out of a world.
fn remove(objects: &mut World, block: &Block) -> Result<(), String> {
    for line in lines(&block.text) {
        let id: ObjectRef = line.parse().map_err(|error| format!("line {}: {error}", block.line))?;
        let is = |(cluster, held): &(String, serde_json::Value)| {
            *cluster == *id.cluster
                && held["kind"] == id.kind.as_str()
                && held["metadata"]["namespace"] == *id.namespace
                && held["metadata"]["name"] == *id.name
        };
        let before = objects.len();
        objects.retain(|object| !is(object));
        if objects.len() == before {
            return Err(format!("line {}: there is no {id} to delete", block.line));
        }
    }
    Ok(())
}

/// The state that a case ends in.
fn outcome(shared: &Case, case: &Case, mut options: Options) -> Result<Compiled, String> {
    let mut objects = World::new();
    for block in shared.blocks.iter().chain(&case.blocks).filter(|block| block.kind == "yaml") {
        put(&mut objects, block)?;
    }
    let mut both = Both::new(&options);
    let mut compiled = both.compile(&objects, &options, &Arc::default())?;
    for block in &case.blocks {
        let mut remembered = compiled.remembered.clone();
        match (block.kind.as_str(), block.text.trim()) {
            ("then", _) => put(&mut objects, block)?,
            ("gone", _) => remove(&mut objects, block)?,
            ("restart", restart @ ("with state" | "with state and require-auth")) => {
                if restart != "with state" {
                    options.require_auth = RequireAuth::On;
                }
                let kept = remembered.accepted.values().cloned().collect();
                remembered = Arc::new(Remembered::of_earlier_run(kept));
            }
            ("restart", "without state") => remembered = Arc::default(),
            ("restart", other) => return Err(format!("line {}: unknown restart {other:?}", block.line)),
            _ => continue,
        }
        compiled = both.compile(&objects, &options, &remembered)?;
    }
    Ok(compiled)
}

/// Compiles from scratch, and from what is kept of the step before.
struct Both {
    compiler: Compiler,
}

impl Both {
    fn new(options: &Options) -> Self {
        Self { compiler: Compiler::new(options) }
    }

    /// # Errors
    /// The two ways give different results.
    fn compile(
        &mut self,
        objects: &World,
        options: &Options,
        remembered: &Arc<Remembered>,
    ) -> Result<Compiled, String> {
        let (objects, given) = decode(objects.clone());
        let (store, nobody) = (Store::from_objects(objects), BTreeSet::new());
        let afresh = compile(&store, &given, options, &nobody, remembered);
        let kept = self.compiler.step(&store, &given, options, &nobody, remembered);
        let is_same = [
            ("trees", kept.trees == afresh.trees),
            ("plans", kept.plans == afresh.plans),
            ("findings", kept.findings == afresh.findings),
            ("verdicts", kept.verdicts == afresh.verdicts),
            ("limits", kept.limits == afresh.limits),
            ("remembered", kept.remembered == afresh.remembered),
        ];
        match is_same.into_iter().find(|(_, is_same)| !is_same) {
            Some((what, _)) => Err(format!("{what} are others than from scratch")),
            None => Ok(afresh),
        }
    }
}

fn check(shared: &Case, case: &Case) -> Vec<String> {
    let of = |kind: &'static str| move |block: &&Block| block.kind == kind;
    let mut options = Options::default();
    for line in case.blocks.iter().filter(of("options")).flat_map(|block| block.text.lines()) {
        match line.trim() {
            "consent either" => options.consent = Consent::Either,
            "require-auth" => options.require_auth = RequireAuth::On,
            "loopback-endpoints" => options.loopback_endpoints = LoopbackEndpoints::Allowed,
            other => return vec![format!("unknown option {other:?}")],
        }
    }
    let compiled = match outcome(shared, case, options) {
        Ok(compiled) => compiled,
        Err(error) => return vec![error],
    };
    let mut failures = Vec::new();
    let mut checked = false;
    for block in &case.blocks {
        checked |= !matches!(block.kind.as_str(), "yaml" | "options" | "then" | "gone" | "restart");
        match block.kind.as_str() {
            "yaml" | "options" | "then" | "gone" | "restart" => {}
            "routes" => same(&routes(&compiled), &block.text, &mut failures),
            "endpoints" => same(&endpoints(&compiled), &block.text, &mut failures),
            "access" => same(&access(&compiled), &block.text, &mut failures),
            "limits" => same(&limits::listing(&compiled), &block.text, &mut failures),
            "status" => failures.extend(lines(&block.text).filter_map(|line| status(&compiled, line).err())),
            "counts" => failures.extend(lines(&block.text).filter_map(|line| counts(&compiled, line).err())),
            "requests" => failures.extend(lines(&block.text).filter_map(|line| request(&compiled, line).err())),
            "off" => failures.extend(lines(&block.text).filter_map(|line| off(&compiled, line).err())),
            other => failures.push(format!("line {}: unknown block {other:?}", block.line)),
        }
    }
    if !checked {
        failures.push("the case expects nothing".to_owned());
    }
    failures
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn same(found: &[String], expected: &str, failures: &mut Vec<String>) {
    let expected: Vec<&str> = lines(expected).filter(|line| *line != "(nothing)").collect();
    if found.iter().map(String::as_str).ne(expected.iter().copied()) {
        failures.push(format!("\n  expected\n    {}\n  found\n    {}", expected.join("\n    "), found.join("\n    ")));
    }
}

fn routes(compiled: &Compiled) -> Vec<String> {
    let mut list = Vec::new();
    for plan in compiled.plans.values() {
        for listener in plan.listeners.values() {
            for chain in &listener.chains {
                let mut place = format!("{}/{}", plan.gateway, listener.bind_port);
                if !chain.name.is_empty() {
                    let _ = write!(place, "/{}", chain.name);
                }
                match &chain.serves {
                    Serves::Http(http) => {
                        for host in &http.virtual_hosts {
                            let routes = host.routes.iter();
                            list.extend(routes.map(|route| format!("{place} {} {}", host.domain, show_route(route))));
                        }
                    }
                    Serves::Tcp(Some(route)) => list.push(format!("{place} connections {}", show_route(route))),
                    Serves::Tcp(None) => list.push(format!("{place} connections closed")),
                    Serves::Relay { upstream } => {
                        let what = if upstream.purpose.is_crossing_whole() { "connections" } else { "requests" };
                        let client = chain.tls.as_ref().and_then(|tls| tls.client.as_ref());
                        let names: Vec<&str> =
                            client.iter().flat_map(|c| &c.names).map(|name| name.0.as_str()).collect();
                        let of = if chain.tls.is_some() { names.join(", ") } else { "everybody".to_owned() };
                        list.push(format!("{place} {what} of {of} -> {upstream}"));
                    }
                }
            }
        }
    }
    list
}

/// Puts what a case cannot write into a Secret: keys are made anew for each run.
fn fill_secret(manifest: &mut serde_json::Value) {
    if manifest["kind"] != "Secret" {
        return;
    }
    let annotations = manifest["metadata"]["annotations"].clone();
    let annotation = |name: &str| annotations[name].as_str().map(str::to_owned);
    let own = |host: String| rcgen::generate_simple_self_signed([host]).expect("a certificate");
    if let Some(made) = annotation("test/pair").map(own) {
        manifest["stringData"] =
            serde_json::json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
    } else if let Some(made) = annotation("test/authority").map(own) {
        manifest["stringData"] = serde_json::json!({"ca.crt": made.cert.pem()});
    } else if let Some(form) = annotation("test/root") {
        manifest["stringData"] = root_secret(&form);
    }
}

/// A Secret with a root of trust: `whole`, an intermediate under a root; `own`, a root that signs itself, by the names of TLS
/// Secrets; `keyless`; `mismatched`, with the key of another; `leaf`, which may not sign; `stranger`, under a root that did
/// not sign it.
fn root_secret(form: &str) -> serde_json::Value {
    let root = Authority::new("root", None);
    let between = Authority::new("between", Some(&root));
    let other = Authority::new("other", None);
    let mut secret = serde_json::json!({
        "ca-cert.pem": between.certificate, "ca-key.pem": between.key.serialize_pem(), "root-cert.pem": root.certificate,
    });
    match form {
        "whole" => {}
        "own" => secret = serde_json::json!({"tls.crt": root.certificate, "tls.key": root.key.serialize_pem()}),
        "keyless" => secret["ca-key.pem"] = serde_json::Value::Null,
        "mismatched" => secret["ca-key.pem"] = other.key.serialize_pem().into(),
        "leaf" => {
            let made = rcgen::generate_simple_self_signed(["leaf.example".to_owned()]).expect("a certificate");
            secret = serde_json::json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
        }
        "stranger" => secret["root-cert.pem"] = other.certificate.into(),
        other => panic!("there is no root {other:?}"),
    }
    secret.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    secret
}

fn show_route(route: &Route) -> String {
    let body = &route.body;
    let mut text = format!("{}: {} -> {}", route.name, describe(&route.matcher), show_action(&body.action));
    if !body.labels.is_empty() {
        let labels: Vec<String> = body.labels.iter().map(|(key, label)| format!("{key}={}", label.value)).collect();
        let _ = write!(text, " {{{}}}", labels.join(","));
    }
    if !body.attached.is_empty() {
        let show = |attachment: &Attachment| match &attachment.destination {
            None => attachment.policy.short(),
            Some(destination) => format!("{} on {destination}", attachment.policy.short()),
        };
        let policies: Vec<String> = body.attached.iter().map(show).collect();
        let _ = write!(text, " [{}]", policies.join(", "));
    }
    text
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Direct(direct) => format!("{} {:?}", direct.status, &*direct.body),
        Action::Redirect(redirect) => format!(
            "{} host {} path {}",
            redirect.status,
            redirect.host.as_deref().unwrap_or("-"),
            redirect.path.as_deref().unwrap_or("-")
        ),
        Action::Forward(forward) => {
            let mut destinations: Vec<String> = Vec::new();
            for destination in forward.destinations.iter() {
                let id = destination.upstream.to_string();
                destinations.push(if forward.destinations.len() == 1 {
                    id
                } else {
                    format!("{id} {}%", destination.weight)
                });
            }
            let mut text = destinations.join(" + ");
            match &forward.path_rewrite {
                Some(PathRewrite::Prefix(path)) => {
                    let _ = write!(text, " path {path}");
                }
                Some(PathRewrite::Regex { pattern, substitution }) => {
                    let _ = write!(text, " path s|{pattern}|{substitution}|");
                }
                None => {}
            }
            match &forward.host_rewrite {
                Some(HostRewrite::Literal(host)) => {
                    let _ = write!(text, " host {host}");
                }
                Some(HostRewrite::Auto) => text.push_str(" host auto"),
                None => {}
            }
            text
        }
    }
}

fn access(compiled: &Compiled) -> Vec<String> {
    let mut list = Vec::new();
    let mut add =
        |at: String, guard: &Guard| list.extend(describe_guard(guard).iter().map(|line| format!("{at}: {line}")));
    for plan in compiled.plans.values() {
        plan.guard.iter().for_each(|guard| add(plan.gateway.to_string(), guard));
        for (port, listener) in &plan.listeners {
            let guards = listener.chains.iter().flat_map(|chain| &chain.guards);
            guards.for_each(|guard| add(format!("{}/{port}", plan.gateway), guard));
        }
        for upstream in plan.upstreams.values() {
            upstream.guards.iter().for_each(|guard| add(format!("{} {}", plan.gateway, upstream.id), guard));
        }
    }
    list
}

fn endpoints(compiled: &Compiled) -> Vec<String> {
    let mut list = Vec::new();
    for plan in compiled.plans.values() {
        for upstream in plan.upstreams.values() {
            let mut parts: Vec<String> = Vec::new();
            for (locality, endpoints) in &upstream.endpoints {
                let place = [&locality.region, &locality.zone, &locality.sub_zone].map(|part| &**part);
                let share = upstream.shares.get(locality).map(|share| format!(" {share}")).unwrap_or_default();
                let place = if place.iter().all(|part| part.is_empty()) {
                    String::new()
                } else {
                    format!(" ({}{share})", place.join("/"))
                };
                parts.extend(endpoints.iter().map(|e| {
                    let via = e.via.as_ref().map(|cluster| format!(" via {cluster}")).unwrap_or_default();
                    let weight = if e.weight == 1 { String::new() } else { format!(" x{}", e.weight) };
                    let priority = if e.priority == 0 { String::new() } else { format!(" p{}", e.priority) };
                    format!("{}:{}{via}{weight}{priority}{place}", e.address, e.port)
                }));
            }
            let tls = upstream.tls.as_ref().map(|tls| format!(" {tls}")).unwrap_or_default();
            let externals = upstream.externals.iter().filter_map(|(key, tls)| Some((key, tls.as_ref()?)));
            parts.extend(externals.map(|(key, tls)| format!("{key} {tls}")));
            let passed = upstream.remotes.iter().filter_map(|(cluster, remote)| Some((cluster, remote.tls.as_ref()?)));
            parts.extend(passed.map(|(cluster, tls)| format!("{cluster} {tls}")));
            let closed = upstream.closed.as_ref().map(|closed| format!(" closed {closed:?}")).unwrap_or_default();
            list.push(
                format!("{} {} {:?}{tls}{closed}: {}", plan.gateway, upstream.id, upstream.protocol, parts.join(", "))
                    .trim_end()
                    .to_owned(),
            );
        }
    }
    list
}

/// `OBJECT APPROVAL part of the message`, `OBJECT has no CODE`, or `OBJECT at FIELD CODE: part of the message`.
fn status(compiled: &Compiled, line: &str) -> Result<(), String> {
    let mut words = line.splitn(3, ' ');
    let object = words.next().unwrap_or_default();
    let id: ObjectRef = object.parse().map_err(|error| format!("{error}"))?;
    let approval = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default();
    let findings: Vec<String> = compiled
        .findings
        .iter()
        .filter(|finding| finding.subject.as_ref() == Some(&id))
        .map(|finding| format!("{} {}: {}", finding.code, finding.field, finding.message))
        .collect();
    if approval == "has" {
        let code = rest.strip_prefix("no ").unwrap_or(rest);
        return match findings.iter().find(|finding| finding.starts_with(code)) {
            Some(finding) => Err(format!("{id} has {finding}")),
            None => Ok(()),
        };
    }
    if approval == "at" {
        let (field, wanted) = rest.split_once(' ').unwrap_or((rest, ""));
        let (code, part) = wanted.split_once(": ").unwrap_or((wanted, ""));
        let begin = format!("{code} {field}: ");
        let is_it = |finding: &String| finding.strip_prefix(&begin).is_some_and(|message| message.contains(part));
        return if findings.iter().any(is_it) { Ok(()) } else { Err(format!("{id} has {findings:?}")) };
    }
    let Some(verdict) = compiled.verdicts.get(&id) else {
        // Kubernetes' own kinds have findings and no verdict.
        return if approval == "-" && findings.iter().any(|finding| finding.contains(rest)) {
            Ok(())
        } else {
            Err(format!("{id} has no verdict; findings {findings:?}"))
        };
    };
    if verdict.approval.as_str() != approval || !verdict.message.contains(rest) {
        return Err(format!("{id} is {} {:?}, expected {approval} {rest:?}", verdict.approval, verdict.message));
    }
    Ok(())
}

/// `OBJECT name=number …`, all of them.
fn counts(compiled: &Compiled, line: &str) -> Result<(), String> {
    let (object, wanted) = line.split_once(' ').unwrap_or((line, ""));
    let id: ObjectRef = object.parse().map_err(|error| format!("{error}"))?;
    let verdict = compiled.verdicts.get(&id).ok_or_else(|| format!("{id} has no verdict"))?;
    let found: Vec<String> = verdict.counts.iter().map(|(name, number)| format!("{name}={number}")).collect();
    let found = found.join(" ");
    if found == wanted { Ok(()) } else { Err(format!("{id} counts {found:?}, expected {wanted:?}")) }
}

/// `gateway METHOD host/path POLICY CODE`.
fn off(compiled: &Compiled, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [gateway, method, target, policy, code] = words.as_slice() else {
        return Err(format!("{line:?} names no gateway, method, target, policy and code"));
    };
    let (host, path) = target.split_once('/').ok_or_else(|| format!("{target:?} has no path"))?;
    let request =
        Request { host: host.to_owned(), path: format!("/{path}"), method: (*method).to_owned(), ..Request::default() };
    let explanation = explain(compiled, &gateway.parse()?, &request)?;
    let route = explanation.route.ok_or_else(|| format!("no route takes {target}"))?;
    let found: Vec<&str> =
        route.off.iter().filter(|off| off.policy.to_string() == *policy).map(|off| off.off.as_str()).collect();
    if found == [*code] { Ok(()) } else { Err(format!("{policy} is off {target} with {found:?}, expected {code}")) }
}

/// `gateway METHOD host/path [port=N] [sni=NAME] [client=WHO] [name: value; …] => route or status`; 0 is a connection that is closed.
fn request(compiled: &Compiled, line: &str) -> Result<(), String> {
    let bad = || format!("{line:?} is no request");
    let (left, wanted) = line.split_once(" => ").ok_or_else(bad)?;
    let (left, headers) = match left.split_once(" [") {
        Some((left, headers)) => (left, headers.strip_suffix(']').ok_or_else(bad)?),
        None => (left, ""),
    };
    let mut words = left.split_whitespace();
    let (Some(gateway), Some(method), Some(target)) = (words.next(), words.next(), words.next()) else {
        return Err(bad());
    };
    let gateway: GatewayId = gateway.parse()?;
    let (host, path) = target.split_once('/').ok_or_else(bad)?;
    let options: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    let request = Request {
        port: options.get("port").map(|port| port.parse()).transpose().map_err(|_| bad())?,
        server_name: options.get("sni").map(|name| (*name).to_owned()),
        host: host.to_owned(),
        path: format!("/{path}"),
        method: method.to_owned(),
        headers: headers
            .split(';')
            .filter_map(|header| header.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect(),
        client: options.get("client").map(|client| (*client).to_owned()),
    };
    let explanation = explain(compiled, &gateway, &request)?;
    let found = match (&explanation.route, &explanation.answer) {
        (Some(route), None) => route.name.to_string(),
        (_, Some(answer)) => answer.status.to_string(),
        (None, None) => "nothing".to_owned(),
    };
    if found == wanted { Ok(()) } else { Err(format!("{left} goes to {found}, expected {wanted}")) }
}
