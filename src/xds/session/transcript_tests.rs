//! Sessions as transcripts: what goes in and what comes out, as text.
//!
//! A script holds both; a run keeps the inputs, makes the outputs anew and compares.
//!
//! - `snapshot CDS a@1 b@1 | EDS a@1`: a snapshot; types that aren't named stay as they were.
//! - `EDS vault@none`: endpoints that are none, and what begins with `vault` is protected by a policy.
//! - `→ CDS +a -b have c@1 ack 3`: a request: subscribe, unsubscribe, initial version, acknowledge.
//!   `nack 3: words` at the end refuses, `error: words` is an error without a nonce.
//! - `→ CDS a b holds a@1,b@1 ack 3`: the same for the state of the world: all names, and the version of what the client
//!   took last, or a word that is no version of ours. `''` is the empty name.
//! - `at 20s`: the time, with a tick.
//! - `← CDS #1 a@1 -b`: a response with its nonce, resources and removed names.
//! - `! CDS #1 exact a@1 (owner): words`: a refusal. `~ CDS stale nonce`: something ignored.
//!   With `~` at the end the response leaves something out, and its version says so (state of the world).
//! - `stuck for 60s`: the client asks for other types, but not for clusters.
//! - `= CDS a@1 -b, 0 outstanding`: what the client holds now; only in scripts that begin with `reports`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{Kind, ObjectRef};
use crate::snapshot::diff::without_endpoints;
use crate::snapshot::{Resource, Resources, Version};
use crate::xds::observation::Blame;

const TYPES: [(&str, ResourceType); 7] = [
    ("SDS", ResourceType::Secret),
    ("CDS", ResourceType::Cluster),
    ("EDS", ResourceType::Endpoint),
    ("LDS", ResourceType::Listener),
    ("ECDS", ResourceType::Extension),
    ("SRDS", ResourceType::ScopedRoute),
    ("RDS", ResourceType::Route),
];

fn type_of(short: &str) -> ResourceType {
    TYPES.iter().find(|(name, _)| *name == short).unwrap_or_else(|| panic!("no type {short}")).1
}

fn short(resource_type: ResourceType) -> &'static str {
    TYPES.iter().find(|(_, known)| *known == resource_type).unwrap().0
}

fn resource(text: &str) -> Resource {
    let (name, version) = text.split_once('@').unwrap();
    let kind = if name.starts_with("vault") { Kind::JwtPolicy } else { Kind::RouteTable };
    let owner = ObjectRef::new(kind, "c1", "shop", name);
    let resource =
        Resource { name: name.into(), version: Version::new(version), body: "".into(), owners: Arc::from([owner]) };
    if version == "none" { without_endpoints(&resource) } else { resource }
}

/// The version of a resource as scripts write it.
fn written(resource: &Resource) -> &str {
    if resource.version == without_endpoints(resource).version { "none" } else { resource.version.as_str() }
}

struct Run {
    session: Session,
    variant: Variant,
    snapshot: Snapshot,
    now: Duration,
    reports: bool,
    transcript: String,
}

/// Runs a script of delta ADS and compares its outputs.
#[track_caller]
fn check(script: &str) {
    run(Session::new(settings(), Variant::Delta), Variant::Delta, script);
}

/// Runs a script of state-of-the-world ADS.
#[track_caller]
fn check_state(script: &str) {
    run(Session::new(settings(), Variant::StateOfTheWorld), Variant::StateOfTheWorld, script);
}

/// Runs a script of a service for one type.
#[track_caller]
fn check_only(only: ResourceType, variant: Variant, script: &str) {
    run(Session::of_one_type(settings(), variant, only), variant, script);
}

/// Most scripts are about clients that don't ask for clusters.
fn settings() -> SessionSettings {
    SessionSettings { stuck_after: None, ..SessionSettings::default() }
}

#[track_caller]
fn run(session: Session, variant: Variant, script: &str) {
    let mut run = Run {
        session,
        variant,
        snapshot: Snapshot::new(),
        now: Duration::ZERO,
        reports: false,
        transcript: String::new(),
    };
    let mut expected = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(expected, "{line}").unwrap();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !["reports", "snapshot", "→", "at"].contains(&verb) {
            continue;
        }
        writeln!(run.transcript, "{line}").unwrap();
        let outputs = match verb {
            "reports" => {
                run.reports = true;
                continue;
            }
            "snapshot" => {
                for part in rest.split('|') {
                    let mut words = part.split_whitespace();
                    let resource_type = type_of(words.next().unwrap());
                    run.snapshot = std::mem::take(&mut run.snapshot).with(resource_type, words.map(resource));
                }
                run.session.snapshot(run.now, Arc::new(run.snapshot.clone()))
            }
            "at" => {
                run.now = Duration::from_secs(rest.strip_suffix('s').unwrap().parse().unwrap());
                run.session.tick(run.now)
            }
            _ if run.variant == Variant::Delta => run.session.request(run.now, &request(rest)).unwrap(),
            _ => run.session.request_state(run.now, &state_request(rest)).unwrap(),
        };
        outputs.iter().for_each(|output| run.write(output));
    }
    assert_eq!(run.transcript, expected, "\nthe session says:\n\n{}", run.transcript);
}

/// Type URL, error and the words in between.
fn parts(text: &str) -> (String, Option<String>, std::str::SplitWhitespace<'_>) {
    let (text, error) = text.split_once(": ").map_or((text, None), |(text, error)| (text, Some(error.to_owned())));
    let mut words = text.split_whitespace();
    let first = words.next().unwrap();
    let type_url = TYPES.iter().find(|(name, _)| *name == first).map_or(first, |(_, known)| known.type_url());
    (type_url.to_owned(), error, words)
}

fn state_request(text: &str) -> StateRequest {
    let (type_url, error, mut words) = parts(text);
    let mut request = StateRequest { type_url, error, ..StateRequest::default() };
    while let Some(word) = words.next() {
        match word {
            "ack" | "nack" => request.nonce = words.next().unwrap().to_owned(),
            "error" => {}
            "holds" => request.version = state_version(words.next().unwrap()),
            "''" => request.names.push("".into()),
            _ => request.names.push(word.into()),
        }
    }
    request
}

/// The version of `a@1,b@1`; any other text as it is.
fn state_version(text: &str) -> String {
    if !text.contains('@') {
        return text.to_owned();
    }
    let resources: Vec<Resource> = text.split(',').map(resource).collect();
    Version::of_resources(resources.iter()).to_string()
}

fn request(text: &str) -> DeltaRequest {
    let (type_url, error, mut words) = parts(text);
    let mut request = DeltaRequest { type_url, error, ..DeltaRequest::default() };
    while let Some(word) = words.next() {
        match word {
            "ack" | "nack" => request.nonce = words.next().unwrap().to_owned(),
            "error" => {}
            "have" => {
                let held = resource(words.next().unwrap());
                request.initial_versions.insert(held.name, held.version.to_string());
            }
            _ if word.starts_with('+') => request.subscribe.push(word[1..].into()),
            _ if word.starts_with('-') => request.unsubscribe.push(word[1..].into()),
            _ => panic!("what is {word}?"),
        }
    }
    request
}

impl Run {
    fn write(&mut self, output: &Output) {
        let text = &mut self.transcript;
        match output {
            Output::Respond(response) => {
                write!(text, "← {} #{}", short(response.resource_type), response.nonce).unwrap();
                for resource in &response.resources {
                    write!(text, " {}@{}", resource.name, written(resource)).unwrap();
                }
                for name in &response.removed {
                    write!(text, " -{name}").unwrap();
                }
                if response.version.as_str().ends_with('~') {
                    text.push_str(" ~");
                }
            }
            Output::Refused(refusal) => {
                let blame = match refusal.blame {
                    Blame::Exact => "exact",
                    Blame::Suspected => "suspected",
                };
                write!(text, "! {} #{} {blame}", short(refusal.resource_type), refusal.nonce).unwrap();
                for refused in &refusal.resources {
                    let owners: Vec<String> = refused.owners.iter().map(ToString::to_string).collect();
                    write!(text, " {}@{} ({})", refused.name, refused.version, owners.join(" ")).unwrap();
                }
                write!(text, ": {}", refusal.message).unwrap();
            }
            Output::Ignored(ignored) => {
                let name = ResourceType::from_url(&ignored.type_url)
                    .map_or_else(|| ignored.type_url.clone(), |known| short(known).to_owned());
                let reason = match ignored.reason {
                    IgnoredReason::StaleNonce => "stale nonce",
                    IgnoredReason::ErrorWithoutNonce => "error without a nonce",
                    IgnoredReason::UnknownType => "unknown type",
                };
                write!(text, "~ {name} {reason}").unwrap();
            }
            Output::Stuck(waited) => write!(text, "stuck for {waited:?}").unwrap(),
            Output::Acknowledged(_) if !self.reports => return,
            Output::Acknowledged(acknowledged) => {
                write!(text, "= {}", short(acknowledged.resource_type)).unwrap();
                for (name, version) in acknowledged.resources.iter() {
                    write!(text, " {name}@{version}").unwrap();
                }
                for name in &acknowledged.removed {
                    write!(text, " -{name}").unwrap();
                }
                write!(text, ", {} outstanding", acknowledged.outstanding).unwrap();
            }
        }
        text.push('\n');
    }
}

mod answers;
mod ordering;
mod reconnect;
mod separate;
mod state_answers;
mod state_ordering;
mod state_reconnect;
mod state_subscriptions;
mod subscriptions;
