//! The status of an object, as the API and its readers expect it: a function of what was judged and of what stood there.
//!
//! The API's own fields keep their meaning; conditions stand beside them, and a condition's time moves only with its value.
//!
//! # Rule
//! R132 to R137.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::programmed::Programmed;
use crate::model::{Approval, Code, Finding, Kind, Name, Severity};

/// Most bytes of a condition's message, as Kubernetes has it.
const MESSAGE: usize = 32 * 1024;

/// How a registered cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Whether its API server answers.
    pub is_connected: bool,
    /// Whether everything of it was read in this run.
    pub is_synced: bool,
    /// What is wrong; empty where nothing is.
    pub message: &'a str,
}

/// What is to be told of an object.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The generation that was judged.
    pub generation: i64,
    /// The verdict.
    pub approval: Approval,
    /// Every finding, for people.
    pub message: &'a str,
    /// Counts by the API's own names; a dot separates the key of a map.
    pub counts: &'a BTreeMap<String, u64>,
    /// The workspace that owns it.
    pub workspace: Option<&'a Name>,
    /// What was found, gravest first.
    pub findings: &'a [Finding],
    /// How far gateways are; none where none holds anything of it.
    pub programmed: Option<Programmed>,
    /// Of a `KubernetesCluster`: how it stands.
    pub connection: Option<Connection<'a>>,
}

/// One condition without its time.
struct Condition {
    name: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Condition {
    fn new(name: &'static str, is_true: bool, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name, status: if is_true { "True" } else { "False" }, reason: reason.into(), message: message.into() }
    }

    fn unknown(name: &'static str, reason: &str, message: &str) -> Self {
        Self { name, status: "Unknown", reason: reason.to_owned(), message: message.to_owned() }
    }
}

/// Codes that say that something is named which is not there, or may not be named.
const REFERENCES: &[Code] = &[
    Code::DelegationNotExported,
    Code::DelegationNotImported,
    Code::DelegationEmpty,
    Code::DestinationNotFound,
    Code::DestinationNotVisible,
    Code::DestinationPort,
    Code::RemoteServiceNotFederated,
    Code::GatewayNotUsable,
    Code::DelegationRefused,
    Code::Certificate,
    Code::ClusterCredential,
];

/// The status of an object. `before` is what stands there; `now` is the time, in RFC 3339.
#[must_use]
pub fn document(judged: &Judged<'_>, before: &Value, now: &str) -> Value {
    let mut status = Map::new();
    if is_flat(judged.kind) {
        status.insert("observedGeneration".to_owned(), judged.generation.into());
        status.insert("state".to_owned(), judged.approval.as_str().into());
    } else {
        let state = json!({
            "approval": judged.approval.as_str(),
            "message": judged.message,
            "observedGeneration": judged.generation,
        });
        status.insert("common".to_owned(), json!({"State": state}));
    }
    for (name, count) in judged.counts {
        match name.split_once('.') {
            None => drop(status.insert(name.clone(), (*count).into())),
            Some((map, key)) => {
                let map = status.entry(map).or_insert_with(|| Value::Object(Map::new()));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key.to_owned(), (*count).into());
                }
            }
        }
    }
    if let Some(workspace) = judged.workspace {
        status.insert("ownedByWorkspace".to_owned(), workspace.as_str().into());
    }
    let not_applicable: Vec<Value> = judged
        .findings
        .iter()
        .filter(|finding| finding.code == Code::NotApplicable)
        .map(|finding| json!({"path": finding.field.as_str(), "reason": finding.message}))
        .collect();
    if !not_applicable.is_empty() {
        status.insert("notApplicable".to_owned(), not_applicable.into());
    }
    if let Some(Programmed { gateways, acknowledged, .. }) = judged.programmed {
        status.insert("gateways".to_owned(), format!("{acknowledged}/{gateways}").into());
    }
    let conditions: Vec<Value> = conditions(judged, before)
        .into_iter()
        .map(|condition| timed(condition, judged.generation, before, now))
        .collect();
    status.insert("conditions".to_owned(), conditions.into());
    Value::Object(status)
}

/// Two kinds have a status without `common`.
fn is_flat(kind: Kind) -> bool {
    matches!(kind, Kind::RootTrustPolicy | Kind::RateLimitServerSettings)
}

/// The condition of a name in a status.
fn condition<'v>(status: &'v Value, name: &str) -> Option<&'v Value> {
    status.get("conditions")?.as_array()?.iter().find(|condition| condition["type"] == name)
}

fn timed(condition: Condition, generation: i64, before: &Value, now: &str) -> Value {
    let Condition { name, status, reason, message } = condition;
    let known = self::condition(before, name).filter(|known| known["status"] == status);
    let since = known.and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
    json!({
        "type": name,
        "status": status,
        "reason": reason,
        "message": bounded(message),
        "observedGeneration": generation,
        "lastTransitionTime": since,
    })
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE - 4).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

fn conditions(judged: &Judged<'_>, before: &Value) -> Vec<Condition> {
    let grave: Vec<&Finding> = judged.findings.iter().filter(|finding| finding.severity > Severity::Info).collect();
    let first = |codes: &dyn Fn(Code) -> bool| grave.iter().find(|finding| codes(finding.code));
    let reason = |fallback: &str| grave.first().map_or_else(|| fallback.to_owned(), |finding| camel(finding.code));
    let mut conditions = vec![match judged.approval {
        Approval::Accepted => Condition::new("Accepted", true, "Accepted", "understood and in force"),
        Approval::Warning => Condition::new("Accepted", true, reason("Warning"), judged.message),
        Approval::Invalid => Condition::new("Accepted", false, reason("Invalid"), judged.message),
        Approval::Failed => Condition::new("Accepted", false, reason("Failed"), judged.message),
        Approval::Pending => Condition::unknown("Accepted", "Pending", judged.message),
    }];
    let unresolved = first(&|code| REFERENCES.contains(&code));
    conditions.push(match unresolved {
        Some(finding) => Condition::new("ResolvedRefs", false, camel(finding.code), &*finding.message),
        None => Condition::new("ResolvedRefs", true, "Resolved", "what it names exists and may be named"),
    });
    if let Some(connection) = judged.connection {
        conditions.extend(connected(connection, before));
    } else if judged.kind != Kind::KubernetesCluster {
        conditions.push(programmed(judged));
    }
    let negative = [
        ("Conflicted", &[Code::BeatenByOlder, Code::ListenerConflict, Code::DuplicateObject][..]),
        ("Shadowed", &[Code::RouteShadowed]),
    ];
    for (name, codes) in negative {
        if let Some(finding) = first(&|code| codes.contains(&code)) {
            conditions.push(Condition::new(name, true, camel(finding.code), &*finding.message));
        }
    }
    let is_replaced =
        judged.kind == Kind::RouteTable && judged.approval == Approval::Invalid && judged.programmed.is_some();
    if is_replaced {
        let message = "routes that are invalid answer with an error, all others are served";
        conditions.push(Condition::new("PartiallyInvalid", true, reason("Invalid"), message));
    }
    conditions
}

fn programmed(judged: &Judged<'_>) -> Condition {
    let is_refused = judged.findings.iter().find(|finding| finding.code == Code::RefusedByGateway);
    match (judged.programmed, is_refused) {
        (_, Some(refusal)) => Condition::new("Programmed", false, "Refused", &*refusal.message),
        (None, None) => {
            let message = "no connected gateway is to hold anything that is made from it";
            Condition::unknown("Programmed", "NoGateways", message)
        }
        (Some(Programmed { gateways, acknowledged, refused }), None) => {
            let message = format!("{acknowledged} of {gateways} connected gateways acknowledged it");
            match () {
                () if acknowledged == gateways => Condition::new("Programmed", true, "Acknowledged", message),
                () if refused > 0 => {
                    Condition::new("Programmed", false, "Refused", format!("{message}, and {refused} refused it"))
                }
                () => Condition::new("Programmed", false, "Pending", message),
            }
        }
    }
}

/// R10 reads these after a restart: whether a cluster was connected before.
fn connected(connection: Connection<'_>, before: &Value) -> [Condition; 2] {
    let Connection { is_connected, is_synced, message } = connection;
    let was = condition(before, "Synced");
    let was_synced = was.is_some_and(|was| was["status"] == "True" || was["reason"] == "Lost");
    let lost = "its objects were read last before the connection was lost, and stay in force";
    [
        match is_connected {
            true => Condition::new("Connected", true, "Connected", "its API server answers"),
            false if message.is_empty() => Condition::new("Connected", false, "Connecting", "it is being connected"),
            false => Condition::new("Connected", false, "Unreachable", message),
        },
        match (is_connected && is_synced, is_synced || was_synced) {
            (true, _) => Condition::new("Synced", true, "Synced", "all its objects were read, and are followed"),
            (false, true) => Condition::new("Synced", false, "Lost", lost),
            (false, false) => Condition::new("Synced", false, "NeverConnected", "nothing of it was read yet"),
        },
    ]
}

/// A code as a reason: `DESTINATION_NOT_FOUND` is `DestinationNotFound`.
#[must_use]
pub fn camel(code: Code) -> String {
    let word = |word: &str| {
        let (head, tail) = word.split_at(usize::from(!word.is_empty()));
        format!("{head}{}", tail.to_ascii_lowercase())
    };
    code.as_str().split('_').map(word).collect()
}

/// Whether a status has everything that another one says, field for field. What others wrote beside it does not matter, but
/// for our conditions that are over, and for keys of our own maps.
#[must_use]
pub fn says(status: &Value, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    wanted.iter().all(|(key, wanted)| match (key.as_str(), status.get(key)) {
        ("conditions", Some(Value::Array(known))) => {
            let own = known.iter().filter(|condition| is_own(condition));
            let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
            own.clone().count() == wanted.len()
                && wanted.iter().all(|condition| own.clone().any(|own| own == condition))
        }
        ("common", Some(known)) => known.get("State") == wanted.get("State"),
        (_, known) => known == Some(wanted),
    })
}

/// Conditions that are ours.
fn is_own(condition: &Value) -> bool {
    const OWN: [&str; 8] =
        ["Accepted", "ResolvedRefs", "Programmed", "Connected", "Synced", "Conflicted", "Shadowed", "PartiallyInvalid"];
    condition["type"].as_str().is_some_and(|name| OWN.contains(&name))
}

#[cfg(test)]
mod tests;
