//! Explanations as the stable JSON documents.
//!
//! `chancery explain` makes them from a directory, the [service](super::service) from what runs, and the command line
//! prints both from here: so that both say the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pb;
use super::report::{Report, report};
use crate::compile::Compiled;
use crate::compile::explain::{
    MatchedRoute, ObjectExplanation, Request, describe, describe_guard, describe_limits, explain, explain_object,
};
use crate::ir::route::RouteBody;
use crate::ir::upstream::Endpoint;
use crate::ir::{Action, Policy as Effect, Upstream, UpstreamId};
use crate::model::{Finding, GatewayId, ObjectRef, Severity};
use crate::source::Places;

/// The version of all JSON forms.
pub const API_VERSION: &str = "chancery/v1";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestDocument {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Explanation`.
    pub kind: String,
    /// The request.
    pub request: RequestPart,
    /// The gateway's class.
    pub gateway: String,
    /// What the gateway itself answers; nothing where it forwards.
    pub outcome: Outcome,
    /// The listener; none on that port.
    pub listener: Option<ListenerPart>,
    /// What policies for the gateway itself allow, an entry each; none where they say nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<String>,
    /// Who sends it, where the gateway knows clients by their addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientPart>,
    /// The domain that took it.
    pub virtual_host: Option<String>,
    /// The route that took it.
    pub route: Option<RoutePart>,
    /// What is attached to the route.
    pub policies: Vec<Policy>,
    /// What is not.
    pub not_attached: Vec<NotOnRoute>,
    /// What rate-limit services are asked on every way that the route goes; none where nothing is, or each destination has
    /// its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Where it may go.
    pub destinations: Vec<Destination>,
    /// How far the connected gateways are with it; only from a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Vec<Holding>>,
}

/// A request as a client sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestPart {
    /// Host header.
    pub host: String,
    /// Path with query.
    pub path: String,
    /// Method.
    pub method: String,
    /// Other headers.
    pub headers: Vec<HeaderPart>,
}

/// A client inside the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientPart {
    /// Who owns its namespace.
    pub workspace: String,
    /// Its namespace.
    pub namespace: String,
    /// The service account as which it runs.
    pub account: String,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderPart {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An answer that the gateway gives without asking an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// HTTP status; none where the connection is refused or the request is forwarded.
    pub status: Option<u16>,
    /// Why, or the body; none where the request is forwarded.
    pub body: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerPart {
    /// The port that Envoy binds.
    pub port: u16,
    /// Which of its chains takes the connection, where it tells TLS connections apart.
    pub tls: Option<TlsPart>,
}

/// A chain of a listener that tells TLS connections apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsPart {
    /// Its name: the first host of the listener that made it.
    pub name: String,
    /// Whether TLS ends at the gateway; else it is passed through.
    pub terminated: bool,
    /// The virtual gateways behind it.
    pub gateways: Vec<String>,
}

/// The route that took a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePart {
    /// As in Envoy.
    pub name: String,
    /// What it matched, in words.
    pub matches: String,
    /// `namespace/table:route` from the root to the end.
    pub chain: Vec<String>,
    /// The tables of the chain.
    pub tables: Vec<String>,
    /// The workspaces on the chain, each once.
    pub chain_workspaces: Vec<String>,
    /// The chain, step by step.
    pub hops: Vec<Hop>,
    /// Effective labels.
    pub labels: BTreeMap<String, LabelPart>,
    /// Why the gateway answers 500 in place of the route.
    pub fault: Option<Fault>,
    /// Whether it is as it was accepted last, because a route of its tree is invalid.
    pub frozen: bool,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// `namespace/table:route`.
    pub route: String,
    /// The table.
    pub table: String,
    /// Its workspace.
    pub workspace: String,
    /// Position of the route in the table's `spec.http`, from 0.
    pub index: usize,
}

/// A label with its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelPart {
    /// Its value.
    pub value: String,
    /// Where it comes from, in words.
    pub from: String,
}

/// What is wrong with a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The code.
    pub code: String,
    /// In words.
    pub message: String,
}

/// A policy on a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The policy.
    pub policy: String,
    /// Its workspace.
    pub owner: String,
    /// What selected it.
    pub selected_by: String,
    /// The destination that it is on; none for the whole route.
    pub destination: Option<String>,
    /// What gateways ask for it: authorization servers, and issuers for their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// What is wrong with it, in words: an invalid one may stand on the route in a strict form, and one that a gateway's
    /// release cannot do closes the route there.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// A policy that is not on a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotOnRoute {
    /// The policy.
    pub policy: String,
    /// The step that dropped it.
    pub code: String,
    /// In words.
    pub reason: String,
}

/// Where a request may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// The upstream.
    pub upstream: String,
    /// Its share.
    pub weight: u32,
    /// `address:port` of what is ready, or the path of a Unix socket, in the order of use; of an east-west gateway also the
    /// cluster that it leads into, and by which server name it is asked; of what takes over from others its rank.
    pub endpoints: Vec<String>,
    /// The TLS that the gateway starts towards these, as far as they are reached straight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What policies for it allow, an entry each; none where they say nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<String>,
    /// What rate-limit services are asked on the way to it, where that differs between destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectDocument {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ObjectExplanation`.
    pub kind: String,
    /// The object.
    pub object: String,
    /// The workspace that owns it.
    pub workspace: Option<String>,
    /// Its verdict; none for Kubernetes' own kinds.
    pub approval: Option<String>,
    /// Every finding in one text.
    pub message: Option<String>,
    /// Counts by the API's own names.
    pub counts: Option<BTreeMap<String, u64>>,
    /// What is wrong with it.
    pub findings: Vec<FindingPart>,
    /// Of a route table and of a policy that is on routes: the lists behind the counts, under the API's own names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What else it has to do with, by heading.
    pub related: BTreeMap<String, Vec<String>>,
    /// Routes that it is on.
    pub routes: Vec<RouteSummary>,
    /// Of a policy: routes that it is not on.
    pub not_attached_to: Vec<NotAttachedTo>,
    /// How far the connected gateways are with what was made from it; only from a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Vec<Holding>>,
}

/// One route in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteSummary {
    /// `namespace/table:route` from the root to the end.
    pub chain: Vec<String>,
    /// What it matches, in words.
    pub matches: Vec<String>,
    /// Effective labels.
    pub labels: BTreeMap<String, String>,
    /// Attached policies.
    pub policies: Vec<String>,
    /// The code of its fault.
    pub fault: Option<String>,
    /// Whether it is as it was accepted last.
    pub frozen: bool,
}

/// A route that a policy is not on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotAttachedTo {
    /// The route.
    pub chain: Vec<String>,
    /// The step that dropped the policy.
    pub code: String,
    /// In words.
    pub reason: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingPart {
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// The code.
    pub code: String,
    /// Path of the field.
    pub field: String,
    /// One sentence for the author.
    pub message: String,
    /// Other objects that it is about.
    pub related: Vec<String>,
    /// Where it is.
    pub location: Option<Place>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// From 1; 0 if only the file is known.
    pub line: u32,
    /// From 1; 0 if only the line is known.
    pub column: u32,
}

/// How far one gateway is with one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// Class of the gateway.
    pub gateway: String,
    /// Node id.
    pub node: String,
    /// Type of the resource.
    pub type_url: String,
    /// Name of the resource.
    pub resource: String,
    /// Version that the gateway should hold.
    pub version: String,
    /// `acknowledged`, `behind` or `refused`.
    pub state: String,
    /// Envoy's words, if it refuses.
    pub message: Option<String>,
}

impl From<&Finding> for FindingPart {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.to_string(),
            code: finding.code.as_str().to_owned(),
            field: finding.field.as_str().to_owned(),
            message: finding.message.clone(),
            related: finding.related.iter().map(ToString::to_string).collect(),
            location: finding.location.as_ref().map(|location| Place {
                file: location.file.to_string(),
                line: location.line,
                column: location.column,
            }),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

impl From<pb::Finding> for FindingPart {
    fn from(finding: pb::Finding) -> Self {
        Self {
            severity: finding.severity,
            code: finding.code,
            field: finding.field,
            message: finding.message,
            related: finding.related,
            location: finding.location.map(|place| Place { file: place.file, line: place.line, column: place.column }),
        }
    }
}

impl From<FindingPart> for pb::Finding {
    fn from(finding: FindingPart) -> Self {
        Self {
            severity: finding.severity,
            code: finding.code,
            field: finding.field,
            message: finding.message,
            related: finding.related,
            location: finding.location.map(|place| pb::Location {
                file: place.file,
                line: place.line,
                column: place.column,
            }),
        }
    }
}

impl pb::State {
    /// The state in a word, as documents and tables have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Acknowledged => "acknowledged",
            Self::Behind => "behind",
            Self::Refused => "refused",
        }
    }
}

impl From<pb::Holding> for Holding {
    fn from(holding: pb::Holding) -> Self {
        let state = holding.state().word().to_owned();
        Self {
            gateway: holding.gateway,
            node: holding.node,
            type_url: holding.type_url,
            resource: holding.resource,
            version: holding.version,
            state,
            message: (!holding.message.is_empty()).then_some(holding.message),
        }
    }
}

/// The gateway that a request means that names none.
///
/// # Errors
/// A sentence where there is none, or more than one.
pub fn only_gateway(compiled: &Compiled) -> Result<&GatewayId, String> {
    let known: Vec<&GatewayId> = compiled.plans.keys().collect();
    match known.as_slice() {
        [only] => Ok(only),
        [] => Err("there is no gateway: no VirtualGateway selects a Service".to_owned()),
        several => {
            let several: Vec<String> = several.iter().map(|id| format!("`{id}`")).collect();
            Err(format!("name one of the gateways with --gateway: {}", several.join(", ")))
        }
    }
}

/// Says what a gateway does with a request.
///
/// # Errors
/// A sentence where no such gateway is known.
///
/// # Cost
/// That of [`explain`].
pub fn of_request(compiled: &Compiled, gateway: &GatewayId, request: &Request) -> Result<RequestDocument, String> {
    let explanation = explain(compiled, gateway, request)?;
    let answer = explanation.answer.as_ref();
    let mut document = RequestDocument {
        api_version: API_VERSION.to_owned(),
        kind: "Explanation".to_owned(),
        request: RequestPart {
            host: request.host.clone(),
            path: request.path.clone(),
            method: request.method.clone(),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| HeaderPart { name: name.clone(), value: value.clone() })
                .collect(),
        },
        gateway: explanation.gateway.to_string(),
        outcome: Outcome {
            status: answer.map(|answer| answer.status).filter(|status| *status != 0),
            body: answer.map(|answer| answer.body.clone()),
            location: answer.and_then(|answer| answer.location.clone()),
        },
        listener: explanation.listener.map(|port| ListenerPart {
            port,
            tls: explanation.chain.map(|chain| TlsPart {
                name: chain.name.to_string(),
                terminated: chain.tls.is_some(),
                gateways: chain.gateways.iter().map(ToString::to_string).collect(),
            }),
        }),
        access: explanation.guards.iter().flat_map(|guard| describe_guard(guard)).collect(),
        client: explanation.client.as_ref().map(|client| ClientPart {
            workspace: client.workspace.to_string(),
            namespace: client.namespace.to_string(),
            account: client.account.to_string(),
        }),
        virtual_host: explanation.virtual_host.as_ref().map(ToString::to_string),
        route: None,
        policies: Vec::new(),
        not_attached: Vec::new(),
        limits: Vec::new(),
        destinations: Vec::new(),
        acknowledged: None,
    };
    if let Some(route) = &explanation.route {
        document.put(route);
        for (policy, attached) in document.policies.iter_mut().zip(route.body.attached.iter()) {
            let findings = compiled.findings.about(&attached.policy).iter();
            let errors = findings.filter(|finding| finding.severity == Severity::Error);
            policy.errors = errors.map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
        }
    }
    Ok(document)
}

impl RequestDocument {
    fn put(&mut self, route: &MatchedRoute<'_>) {
        let body = route.body;
        let labels = body.labels.iter().map(|(key, label)| {
            (key.to_string(), LabelPart { value: label.value.to_string(), from: route.label_origin(key) })
        });
        let hops = body.chain.iter().map(|hop| Hop {
            route: hop.to_string(),
            table: hop.table.to_string(),
            workspace: hop.owner.to_string(),
            index: hop.index,
        });
        self.route = Some(RoutePart {
            name: route.name.to_string(),
            matches: describe(&route.matcher),
            chain: body.chain.iter().map(ToString::to_string).collect(),
            tables: body.chain.iter().map(|hop| hop.table.to_string()).collect(),
            chain_workspaces: body.owners().iter().map(ToString::to_string).collect(),
            hops: hops.collect(),
            labels: labels.collect(),
            fault: body
                .fault
                .as_ref()
                .map(|fault| Fault { code: fault.code.as_str().to_owned(), message: fault.message.clone() }),
            frozen: route.is_frozen,
        });
        let attached = body.attached.iter().map(|attached| Policy {
            policy: attached.policy.to_string(),
            owner: attached.owner.to_string(),
            selected_by: attached.selected_by.to_string(),
            destination: attached.destination.as_ref().map(ToString::to_string),
            servers: body.servers_of(&attached.policy).iter().map(ToString::to_string).collect(),
            errors: Vec::new(),
        });
        self.policies = attached.collect();
        let off = route.off.iter().map(|not| NotOnRoute {
            policy: not.policy.to_string(),
            code: not.off.as_str().to_owned(),
            reason: not.reason.clone(),
        });
        self.not_attached = off.collect();
        let destinations = route.destinations.iter().map(|(id, weight, upstream)| Destination {
            upstream: id.to_string(),
            weight: *weight,
            endpoints: upstream.map(|upstream| endpoints(upstream)).unwrap_or_default(),
            tls: upstream.and_then(|upstream| upstream.tls.as_ref()).map(ToString::to_string),
            access: upstream.iter().flat_map(|upstream| &upstream.guards).flat_map(describe_guard).collect(),
            limits: describe_limits(policies_for(body, id)),
        });
        self.destinations = destinations.collect();
        if self.destinations.iter().all(|destination| destination.limits.is_empty()) {
            self.limits = describe_limits(&body.policies);
        }
    }
}

/// What policies that are limited to a destination of a route do.
fn policies_for<'a>(body: &'a RouteBody, id: &UpstreamId) -> &'a [Effect] {
    let Action::Forward(forward) = &body.action else { return &[] };
    let destination = forward.destinations.iter().find(|destination| destination.upstream == *id);
    destination.map(|destination| destination.policies.as_slice()).unwrap_or_default()
}

/// In the order in which they are used.
fn endpoints(upstream: &Upstream) -> Vec<String> {
    let mut all: Vec<_> = upstream.endpoints.values().flatten().collect();
    all.sort_by_key(|endpoint| endpoint.priority);
    let shown = |endpoint: &Endpoint| {
        let mut text = match endpoint.is_socket() {
            true => endpoint.address.to_string(),
            false => format!("{}:{}", endpoint.address, endpoint.port),
        };
        let remote = endpoint.via.as_ref().and_then(|cluster| Some((cluster, upstream.remotes.get(cluster)?)));
        if let Some((cluster, remote)) = remote {
            text = format!("{text} (into {cluster} as {})", remote.server_name);
        }
        if endpoint.priority > 0 {
            text = format!("{text} (rank {})", endpoint.priority + 1);
        }
        text
    };
    all.into_iter().map(shown).collect()
}

/// Says what became of an object.
///
/// # Errors
/// A sentence where there is no such object.
///
/// # Cost
/// That of [`explain_object`] and [`report`], and reading the files of its findings.
pub fn of_object(compiled: &Compiled, id: &ObjectRef, places: &Places) -> Result<ObjectDocument, String> {
    let explanation = explain_object(compiled, compiled.objects.contains(id), id)?;
    let mut findings: Vec<Finding> = explanation.findings.iter().copied().cloned().collect();
    places.locate(&mut findings);
    let ObjectExplanation { verdict, owner, routes, not_on, related, .. } = explanation;
    let routes = routes.into_iter().map(|route| RouteSummary {
        chain: route.chain,
        matches: route.matches,
        labels: route.labels.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        policies: route.policies.iter().map(ToString::to_string).collect(),
        fault: route.fault,
        frozen: route.is_frozen,
    });
    let not_on = not_on.into_iter().map(|(chain, not)| NotAttachedTo {
        chain,
        code: not.off.as_str().to_owned(),
        reason: not.reason,
    });
    Ok(ObjectDocument {
        api_version: API_VERSION.to_owned(),
        kind: "ObjectExplanation".to_owned(),
        object: id.to_string(),
        workspace: owner.map(|owner| owner.to_string()),
        approval: verdict.map(|verdict| verdict.approval.as_str().to_owned()),
        message: verdict.map(|verdict| verdict.message.clone()),
        counts: verdict.map(|verdict| verdict.counts.clone()),
        findings: findings.iter().map(FindingPart::from).collect(),
        report: report(compiled, id),
        related: related.into_iter().map(|(heading, list)| (heading.to_owned(), list)).collect(),
        routes: routes.collect(),
        not_attached_to: not_on.collect(),
        acknowledged: None,
    })
}
