//! `chancery status`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::api::document::{API_VERSION, FindingPart};
use crate::api::pb;
use crate::snapshot::ResourceType;

use super::live::{SERVER_DEFAULT, Server};
use super::{Outcome, SERVER_EXIT_CODES, TextOrJson, json, table};

/// Show the gateways that are connected to a running control plane, what they hold, refuse or lag behind, and the objects
/// with findings.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery status\n  chancery status --server http://127.0.0.1:18001 -o json\n\n{SERVER_EXIT_CODES}"))]
pub(super) struct Show {
    /// Admin address of the control plane
    #[arg(long, env = "CHANCERY_SERVER", value_name = "URL", default_value = SERVER_DEFAULT)]
    server: String,
    /// Keep asking, and print again whenever something changed
    #[arg(short, long)]
    watch: bool,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: TextOrJson,
}

impl Show {
    pub(super) fn run(&self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let mut server = Server::connect(&self.server)?;
        let mut status = server.status()?;
        self.print(&status, out)?;
        if !self.watch {
            return Ok(Outcome::Clean);
        }
        // Ends with the server, or with whoever reads.
        loop {
            server.pause();
            let now = server.status()?;
            if timeless(&now) != timeless(&status) {
                status = now;
                if self.output == TextOrJson::Text {
                    writeln!(out)?;
                }
                self.print(&status, out)?;
            }
        }
    }

    fn print(&self, status: &pb::StatusResponse, out: &mut impl Write) -> anyhow::Result<()> {
        match self.output {
            TextOrJson::Text => text(status, jiff::Timestamp::now(), out)?,
            TextOrJson::Json => json::print(out, &document(status.clone()))?,
        }
        out.flush()?;
        Ok(())
    }
}

/// A status without the times of connecting, which are told to the second and may fall on either side of one.
fn timeless(status: &pb::StatusResponse) -> pb::StatusResponse {
    let mut status = status.clone();
    for gateway in &mut status.gateways {
        gateway.since.clear();
    }
    status
}

/// The columns of types, in the order in which they are sent.
const COLUMNS: [(ResourceType, &str); 8] = [
    (ResourceType::Cluster, "CLUSTERS"),
    (ResourceType::Endpoint, "ENDPOINTS"),
    (ResourceType::Listener, "LISTENERS"),
    (ResourceType::Route, "ROUTES"),
    (ResourceType::Secret, "SECRETS"),
    (ResourceType::Extension, "EXTENSIONS"),
    (ResourceType::ScopedRoute, "SCOPES"),
    (ResourceType::RateLimit, "LIMITS"),
];

fn text(status: &pb::StatusResponse, now: jiff::Timestamp, out: &mut impl Write) -> anyhow::Result<()> {
    if status.gateways.is_empty() {
        writeln!(out, "no gateway is connected")?;
    } else {
        gateways(status, now, out)?;
    }
    let refusals: Vec<Vec<String>> = status
        .gateways
        .iter()
        .flat_map(|gateway| gateway.types.iter().map(move |of_type| (gateway, of_type)))
        .flat_map(|(gateway, of_type)| of_type.refusals.iter().map(move |refusal| (gateway, refusal)))
        .map(|(gateway, refusal)| {
            vec![gateway.node.clone(), refusal.resource.clone(), refusal.owners.join(", "), refusal.message.clone()]
        })
        .collect();
    if !refusals.is_empty() {
        writeln!(out)?;
        table::print(out, &["REFUSED BY", "RESOURCE", "MADE FROM", "ENVOY SAYS"], &refusals)?;
    }
    for gateway in status.gateways.iter().filter(|gateway| gateway.stuck) {
        writeln!(out, "\n{} asks for no clusters, so it takes nothing in: restart that Envoy", gateway.node)?;
    }
    objects(status, out)?;
    writeln!(out, "\n{}", sums(&status.counts))?;
    Ok(())
}

fn gateways(status: &pb::StatusResponse, now: jiff::Timestamp, out: &mut impl Write) -> anyhow::Result<()> {
    let state = |gateway: &pb::Gateway, resource_type: ResourceType| {
        gateway.types.iter().find(|of_type| of_type.type_url == resource_type.type_url()).map(cell)
    };
    // The four that every gateway has; the others where some gateway uses them.
    let used = COLUMNS.iter().enumerate().filter(|(index, (resource_type, _))| {
        *index < 4 || status.gateways.iter().any(|gateway| state(gateway, *resource_type).is_some())
    });
    let used: Vec<&(ResourceType, &str)> = used.map(|(_, column)| column).collect();
    let mut headers = vec!["GATEWAY", "NODE", "ENVOY", "AGE"];
    headers.extend(used.iter().map(|(_, header)| *header));
    let none = || "-".to_owned();
    let rows: Vec<Vec<String>> = status
        .gateways
        .iter()
        .map(|gateway| {
            let envoy = if gateway.envoy.is_empty() { none() } else { gateway.envoy.clone() };
            let age = gateway.since.parse().map_or_else(|_| none(), |since| age(now, since));
            let mut row = vec![gateway.gateway.clone(), gateway.node.clone(), envoy, age];
            row.extend(used.iter().map(|(resource_type, _)| state(gateway, *resource_type).unwrap_or_else(none)));
            row
        })
        .collect();
    table::print(out, &headers, &rows)?;
    Ok(())
}

/// One type in a few letters.
fn cell(of_type: &pb::TypeState) -> String {
    match of_type.state() {
        pb::State::Acknowledged => "ok".to_owned(),
        pb::State::Refused => format!("refused {}", of_type.refusals.len()),
        pb::State::Behind if of_type.outstanding > 0 => format!("behind {}", of_type.outstanding),
        pb::State::Behind => "behind".to_owned(),
        pb::State::Unspecified => "unknown".to_owned(),
    }
}

fn objects(status: &pb::StatusResponse, out: &mut impl Write) -> anyhow::Result<()> {
    let none = || "-".to_owned();
    let row = |object: String, approval: &str, finding: &FindingPart| {
        let place = finding.location.as_ref().map_or_else(none, ToString::to_string);
        let approval = if approval.is_empty() { none() } else { approval.to_owned() };
        vec![object, approval, finding.severity.clone(), finding.code.clone(), place, finding.message.clone()]
    };
    let mut rows = Vec::new();
    for object in &status.objects {
        for finding in &object.findings {
            rows.push(row(object.object.clone(), &object.approval, &FindingPart::from(finding.clone())));
        }
    }
    for finding in &status.findings {
        rows.push(row(none(), "", &FindingPart::from(finding.clone())));
    }
    if !rows.is_empty() {
        writeln!(out)?;
        table::print(out, &["OBJECT", "APPROVAL", "SEVERITY", "CODE", "PLACE", "MESSAGE"], &rows)?;
    }
    Ok(())
}

/// `26 objects: 12 accepted, 1 invalid, 13 of Kubernetes`.
fn sums(counts: &[pb::ObjectCount]) -> String {
    let mut by_approval: BTreeMap<&str, u64> = BTreeMap::new();
    for count in counts {
        *by_approval.entry(count.approval.as_str()).or_default() += count.objects;
    }
    let total: u64 = by_approval.values().sum();
    let of_kubernetes = by_approval.remove("");
    let mut parts: Vec<String> =
        by_approval.iter().map(|(approval, objects)| format!("{objects} {}", approval.to_ascii_lowercase())).collect();
    parts.extend(of_kubernetes.map(|objects| format!("{objects} of Kubernetes")));
    let list = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{total} object{}{list}", if total == 1 { "" } else { "s" })
}

/// As kubectl writes ages: `45s`, `12m`, `3h`, `8d`.
fn age(now: jiff::Timestamp, since: jiff::Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The JSON form.
fn document(status: pb::StatusResponse) -> Value {
    let findings = |findings: Vec<pb::Finding>| findings.into_iter().map(FindingPart::from).collect::<Vec<_>>();
    let types = |of_type: pb::TypeState| {
        let refusals = of_type.refusals.iter().map(|refusal| {
            json!({
                "resource": refusal.resource,
                "version": refusal.version,
                "message": refusal.message,
                "owners": refusal.owners,
            })
        });
        json!({
            "typeUrl": of_type.type_url,
            "state": of_type.state().word(),
            "version": of_type.version,
            "outstanding": of_type.outstanding,
            "refusals": refusals.collect::<Vec<_>>(),
        })
    };
    let gateways = status.gateways.into_iter().map(|gateway| {
        json!({
            "gateway": gateway.gateway,
            "node": gateway.node,
            "envoy": gateway.envoy,
            "since": gateway.since,
            "stuck": gateway.stuck,
            "types": gateway.types.into_iter().map(types).collect::<Vec<_>>(),
        })
    });
    let objects = status.objects.into_iter().map(|object| {
        json!({
            "object": object.object,
            "approval": (!object.approval.is_empty()).then_some(object.approval),
            "findings": findings(object.findings),
        })
    });
    let counts = status.counts.into_iter().map(|count| {
        json!({
            "kind": count.kind,
            "approval": (!count.approval.is_empty()).then_some(count.approval),
            "objects": count.objects,
        })
    });
    json!({
        "apiVersion": API_VERSION,
        "kind": "Status",
        "gateways": gateways.collect::<Vec<_>>(),
        "items": objects.collect::<Vec<_>>(),
        "findings": findings(status.findings),
        "counts": counts.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: &pb::StatusResponse) -> String {
        let mut out = Vec::new();
        text(status, "2026-01-01T01:00:00Z".parse().unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn of_type(resource_type: ResourceType, state: pb::State, outstanding: u64) -> pb::TypeState {
        pb::TypeState {
            type_url: resource_type.type_url().to_owned(),
            state: state.into(),
            outstanding,
            ..pb::TypeState::default()
        }
    }

    #[test]
    fn an_empty_mesh_says_so() {
        assert_eq!(shown(&pb::StatusResponse::default()), "no gateway is connected\n\n0 objects\n");
    }

    #[test]
    fn a_refusal_is_told_on_one_line_with_envoys_words_and_the_objects() {
        let refusal = pb::Refusal {
            resource: "route/8080".to_owned(),
            message: "bad regex\n\u{1b}[31mfake".to_owned(),
            owners: vec!["RouteTable/a/b@c".to_owned()],
            ..pb::Refusal::default()
        };
        let mut routes = of_type(ResourceType::Route, pb::State::Refused, 1);
        routes.refusals.push(refusal);
        let status = pb::StatusResponse {
            gateways: vec![pb::Gateway {
                gateway: "c/edge/web".to_owned(),
                node: "web-0".to_owned(),
                envoy: "1.40.0".to_owned(),
                stuck: false,
                since: "2026-01-01T00:50:00Z".to_owned(),
                types: vec![
                    of_type(ResourceType::Cluster, pb::State::Acknowledged, 0),
                    of_type(ResourceType::Endpoint, pb::State::Behind, 2),
                    routes,
                ],
            }],
            ..pb::StatusResponse::default()
        };
        let text = shown(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "GATEWAY     NODE   ENVOY   AGE  CLUSTERS  ENDPOINTS  LISTENERS  ROUTES");
        assert_eq!(lines[1], "c/edge/web  web-0  1.40.0  10m  ok        behind 2   -          refused 1");
        assert_eq!(lines[4], "web-0       route/8080  RouteTable/a/b@c  bad regex\\n\\u{1b}[31mfake");
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        let now: jiff::Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (since, expected) in [
            ("2026-01-09T23:59:15Z", "45s"),
            ("2026-01-09T23:48:00Z", "12m"),
            ("2026-01-09T20:59:00Z", "3h"),
            ("2026-01-02T00:00:00Z", "8d"),
            ("2026-01-11T00:00:00Z", "0s"),
        ] {
            assert_eq!(age(now, since.parse().unwrap()), expected);
        }
    }
}
