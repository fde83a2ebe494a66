//! What the API's own definitions refuse when an object is written: only these three kinds, only these points.
//!
//! Everything else that is wrong with an object is a finding, because an API server that refuses it would keep its author
//! from what works elsewhere.

use serde_json::{Map, Value, json};

use crate::model::Kind;

/// A check at a place of a schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The place below `spec`: names, with `[]` behind lists. Empty for `spec` itself.
    pub(super) at: &'static str,
    /// What it checks.
    pub(super) check: Check,
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// These fields must be written.
    Required(&'static [&'static str]),
    /// A list has so many items at least.
    AtLeast(u32),
    /// A list has so many items at most.
    AtMost(u32),
    /// A text has so many characters at most.
    Length(u32),
    /// A number lies between these.
    Between(u32, u32),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A text fits an expression.
    Pattern(&'static str),
    /// An expression of CEL holds; the text says what to do.
    Holds(&'static str, &'static str),
}

use Check::{AtLeast, AtMost, Between, Holds, Length, OneOf, Pattern, Required};

const fn rule(at: &'static str, check: Check) -> Rule {
    Rule { at, check }
}

/// The checks of a kind; none for kinds that are open.
pub(super) fn rules(kind: Kind) -> Option<&'static [Rule]> {
    match kind {
        Kind::VirtualGateway => Some(VIRTUAL_GATEWAY),
        Kind::RouteTable => Some(ROUTE_TABLE),
        Kind::VirtualDestination => Some(VIRTUAL_DESTINATION),
        _ => None,
    }
}

const VIRTUAL_GATEWAY: &[Rule] = &[
    rule("", Required(&["listeners"])),
    rule("listeners", AtLeast(1)),
    rule("listeners", AtMost(300_000)),
    rule("listeners[]", Required(&["port"])),
    rule("listeners[].port", Holds("has(self.number) || has(self.name)", "write the number or the name of the port")),
    rule("listeners[].port.number", Between(1, 65_535)),
    rule("listeners[].appProtocol", Length(10)),
    rule(
        "listeners[].appProtocol",
        Pattern("^(?i:|GRPC|GRPC-WEB|HTTP|HTTPS|HTTP_PROXY|HTTP2|MONGO|MYSQL|REDIS|TCP|TLS)$"),
    ),
    rule(
        "listeners[]",
        Holds(
            "!has(self.http) || !has(self.tls) || !has(self.appProtocol) || self.appProtocol.upperAscii() in ['', 'HTTPS']",
            "with http and tls, appProtocol is HTTPS or left out",
        ),
    ),
    rule(
        "listeners[]",
        Holds(
            "!has(self.http) || has(self.tls) || !has(self.appProtocol) || self.appProtocol.upperAscii() in ['', 'GRPC', 'GRPC-WEB', 'HTTP', 'HTTP_PROXY', 'HTTP2']",
            "with http and no tls, appProtocol is GRPC, GRPC-WEB, HTTP, HTTP_PROXY, HTTP2 or left out",
        ),
    ),
    rule(
        "listeners[]",
        Holds(
            "!has(self.tcp) || !has(self.tls) || !has(self.appProtocol) || self.appProtocol.upperAscii() in ['', 'TLS']",
            "with tcp and tls, appProtocol is TLS or left out",
        ),
    ),
    rule(
        "listeners[]",
        Holds(
            "!has(self.tcp) || has(self.tls) || !has(self.appProtocol) || self.appProtocol.upperAscii() in ['', 'TCP', 'MONGO', 'REDIS', 'MYSQL']",
            "with tcp and no tls, appProtocol is TCP, MONGO, REDIS, MYSQL or left out",
        ),
    ),
    rule("listeners[]", Holds("has(self.http) || !has(self.httpsRedirect)", "httpsRedirect needs http beside it")),
    rule(
        "listeners[].tls",
        Holds(
            "!has(self.mode) || self.mode != 'SIMPLE' || has(self.secretName) || has(self.files) && has(self.files.serverCert) && has(self.files.privateKey)",
            "with mode SIMPLE, write secretName, or files with serverCert and privateKey",
        ),
    ),
    rule(
        "listeners[].tls",
        Holds(
            "!has(self.mode) || self.mode != 'MUTUAL' || has(self.secretName) || has(self.files) && has(self.files.serverCert) && has(self.files.privateKey) && has(self.files.caCerts)",
            "with mode MUTUAL, write secretName, or files with serverCert, privateKey and caCerts",
        ),
    ),
    rule(
        "listeners[].tls",
        Holds(
            "!has(self.mode) || self.mode != 'ISTIO_MUTUAL' || !has(self.secretName) && !has(self.files)",
            "with mode ISTIO_MUTUAL, leave out secretName and files",
        ),
    ),
    rule(
        "listeners[].tls.parameters",
        Holds(
            "!has(self.minimumProtocolVersion) || !(self.minimumProtocolVersion in ['TLSv1_0', 'TLSv1_1']) || has(self.cipherSuites) && size(self.cipherSuites) > 0",
            "with TLS 1.0 or 1.1, write cipherSuites",
        ),
    ),
    rule("listeners[].allowedRouteTables[]", Required(&["host"])),
    rule("listeners[].exposedExternalServices[]", Required(&["host"])),
];

const ROUTE_TABLE: &[Rule] = &[
    rule(
        "",
        Holds(
            "has(self.hosts) && size(self.hosts) > 0 || (!has(self.virtualGateways) || size(self.virtualGateways) == 0) && (!has(self.applyToDestinations) || size(self.applyToDestinations) == 0) && !has(self.failureMode)",
            "without hosts, leave out virtualGateways, applyToDestinations and failureMode",
        ),
    ),
    rule("", Holds("has(self.http) || has(self.tcp) || has(self.tls)", "write at least one of http, tcp and tls")),
    rule(
        "",
        Holds(
            "!has(self.defaultDestination) || has(self.http) && self.http.exists(route, has(route.forwardTo))",
            "defaultDestination needs an http route with forwardTo",
        ),
    ),
    rule(
        "",
        Holds(
            "has(self.defaultDestination) || !has(self.http) || self.http.all(route, !has(route.forwardTo) || !has(route.forwardTo.destinations) || size(route.forwardTo.destinations) > 0)",
            "a forwardTo with no destinations needs defaultDestination",
        ),
    ),
    rule("hosts", AtMost(10_000)),
    rule("virtualGateways", AtMost(10_000)),
    rule("workloadSelectors", AtMost(10_000)),
    rule("applyToDestinations", AtMost(10_000)),
    rule("http", AtMost(10_000)),
    rule("tcp", AtMost(10_000)),
    rule("tls", AtMost(10_000)),
    rule("workloadSelectors[].kind", OneOf(&["KUBE"])),
    rule("http[].forwardTo.destinations", AtMost(100)),
    rule("http[].directResponse.status", Between(100, 599)),
    rule("http[].directResponse.body", Length(1_048_576)),
    rule("tcp[].forwardTo", Required(&["destinations"])),
    rule("tcp[].forwardTo.destinations", AtLeast(1)),
    rule("tcp[].forwardTo.destinations", AtMost(100)),
    rule("tls[].forwardTo", Required(&["destinations"])),
    rule("tls[].forwardTo.destinations", AtLeast(1)),
    rule("tls[].forwardTo.destinations", AtMost(100)),
    rule("portalMetadata", Required(&["apiProductId", "apiVersion"])),
    rule("portalMetadata.apiProductId", Pattern(r"^\S*$")),
];

const VIRTUAL_DESTINATION: &[Rule] = &[
    rule("", Required(&["ports"])),
    rule(
        "",
        Holds(
            "has(self.hosts) || has(self.services) || has(self.externalServices) || has(self.externalWorkloads)",
            "write at least one of hosts, services, externalServices and externalWorkloads",
        ),
    ),
    rule(
        "",
        Holds(
            "has(self.services) || has(self.externalServices) || has(self.externalWorkloads) || self.ports.all(port, !has(port.targetPort))",
            "targetPort needs services, externalServices or externalWorkloads",
        ),
    ),
    rule("ports", AtLeast(1)),
    rule("ports[]", Required(&["number", "protocol"])),
    rule("ports[].number", Between(1, 65_535)),
    rule(
        "ports[].protocol",
        OneOf(&[
            "HTTP", "HTTPS", "GRPC", "HTTP2", "MONGO", "TCP", "TLS", "http", "https", "grpc", "http2", "mongo", "tcp",
            "tls", "gRPC",
        ]),
    ),
];

/// Writes the checks into the schema of a spec. A place that the schema does not have is left out; a test looks for such.
pub(super) fn apply(schema: &mut Value, rules: &[Rule]) {
    for rule in rules {
        let Some(map) = place(schema, rule.at).and_then(Value::as_object_mut) else { continue };
        write(map, rule.check);
    }
}

fn write(map: &mut Map<String, Value>, check: Check) {
    let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
    match check {
        Required(fields) => drop(put("required", json!(fields))),
        AtLeast(count) => drop(put("minItems", json!(count))),
        AtMost(count) => drop(put("maxItems", json!(count))),
        Length(length) => drop(put("maxLength", json!(length))),
        Between(least, most) => {
            put("minimum", json!(least));
            put("maximum", json!(most));
        }
        OneOf(texts) => drop(put("enum", json!(texts))),
        Pattern(expression) => drop(put("pattern", json!(expression))),
        Holds(expression, message) => {
            let rules = map.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
            if let Some(rules) = rules.as_array_mut() {
                rules.push(json!({"rule": expression, "message": message}));
            }
        }
    }
}

/// The schema at a place below another.
pub(super) fn place<'a>(schema: &'a mut Value, at: &str) -> Option<&'a mut Value> {
    let mut here = schema;
    for step in at.split('.').filter(|step| !step.is_empty()) {
        let name = step.strip_suffix("[]").unwrap_or(step);
        here = here.get_mut("properties")?.get_mut(name)?;
        if step.ends_with("[]") {
            here = here.get_mut("items")?;
        }
    }
    Some(here)
}
