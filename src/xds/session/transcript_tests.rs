//! Sessions as transcripts: what goes in and what comes out, as text.
//!
//! A script holds both; a run keeps the inputs, makes the outputs anew and compares.
//!
//! - `snapshot CDS a@1 b@1 | EDS a@1`: a snapshot; types that aren't named stay as they were.
//! - `→ CDS +a -b have c@1 ack 3`: a request: subscribe, unsubscribe, initial version, acknowledge.
//!   `nack 3: words` at the end refuses, `error: words` is an error without a nonce.
//! - `at 20s`: the time, with a tick.
//! - `← CDS #1 a@1 -b`: a response with its nonce, resources and removed names.
//! - `! CDS #1 exact a@1 (owner): words`: a refusal. `~ CDS stale nonce`: something ignored.
//! - `= CDS a@1 -b, 0 outstanding`: what the client holds now; only in scripts that begin with `reports`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{Kind, ObjectRef};
use crate::snapshot::Resources;
use crate::xds::observation::Blame;

const TYPES: [(&str, ResourceType); 6] = [
    ("SDS", ResourceType::Secret),
    ("CDS", ResourceType::Cluster),
    ("EDS", ResourceType::Endpoint),
    ("LDS", ResourceType::Listener),
    ("ECDS", ResourceType::Extension),
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
    let owner = ObjectRef::new(Kind::RouteTable, "c1", "shop", name);
    Resource { name: name.into(), version: Version::new(version), body: "".into(), owners: Arc::from([owner]) }
}

struct Run {
    session: Session,
    snapshot: Snapshot,
    now: Duration,
    reports: bool,
    transcript: String,
}

/// Runs a script and compares its outputs.
#[track_caller]
fn check(script: &str) {
    let mut run = Run {
        session: Session::new(SessionSettings::default()),
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
            _ => run.session.request(run.now, &request(rest)).unwrap(),
        };
        outputs.iter().for_each(|output| run.write(output));
    }
    assert_eq!(run.transcript, expected, "\nthe session says:\n\n{}", run.transcript);
}

fn request(text: &str) -> DeltaRequest {
    let (text, error) = text.split_once(": ").map_or((text, None), |(text, error)| (text, Some(error.to_owned())));
    let mut words = text.split_whitespace();
    let first = words.next().unwrap();
    let type_url = TYPES.iter().find(|(name, _)| *name == first).map_or(first, |(_, known)| known.type_url());
    let mut request = DeltaRequest { type_url: type_url.to_owned(), error, ..DeltaRequest::default() };
    while let Some(word) = words.next() {
        match word {
            "ack" | "nack" => request.nonce = words.next().unwrap().to_owned(),
            "error" => {}
            "have" => {
                let (name, version) = words.next().unwrap().split_once('@').unwrap();
                request.initial_versions.insert(name.into(), version.to_owned());
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
                    write!(text, " {}@{}", resource.name, resource.version).unwrap();
                }
                for name in &response.removed {
                    write!(text, " -{name}").unwrap();
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
            Output::Acknowledged(_) if !self.reports => return,
            Output::Acknowledged(acknowledged) => {
                write!(text, "= {}", short(acknowledged.resource_type)).unwrap();
                for (name, version) in &acknowledged.resources {
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

#[test]
fn first_load() {
    check(
        "→ CDS
         snapshot SDS s@1 | CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1
         ← CDS #1 a@1 b@1
         → EDS +a +b
         ← EDS #2 a@1 b@1
         → EDS ack 2
         → CDS ack 1
         → LDS
         ← LDS #3 l@1
         → LDS ack 3
         → RDS +r
         ← RDS #4 r@1
         → SDS +s
         ← SDS #5 s@1
         → RDS ack 4
         → SDS ack 5",
    );
}

#[test]
fn case_3_acknowledged_is_silent() {
    check(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → CDS ack 1
         → CDS ack 1
         ~ CDS stale nonce
         → CDS ack 1
         ~ CDS stale nonce
         snapshot CDS a@1",
    );
}

#[test]
fn case_5_a_nonce_of_another_type_is_stale() {
    check(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → LDS ack 1
         ~ LDS stale nonce
         → CDS ack 1
         ← LDS #2 l@1
         → CDS ack 2
         ~ CDS stale nonce
         → LDS ack 2",
    );
}

#[test]
fn case_6_refused_is_withheld_until_it_changes() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS nack 2: no such cluster
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no such cluster
         snapshot RDS r@2
         at 100s
         snapshot RDS r@3
         ← RDS #3 r@3
         → RDS ack 3
         snapshot RDS r@3",
    );
}

#[test]
fn case_6_back_to_what_is_held_is_silent() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS nack 2: no
         ! RDS #2 exact r@2 (RouteTable/shop/r@c1): no
         snapshot RDS r@1
         snapshot RDS r@2
         ← RDS #3 r@2",
    );
}

#[test]
fn case_7_a_refusal_may_change_subscriptions() {
    check(
        "snapshot RDS r@1 s@1
         → RDS +r
         ← RDS #1 r@1
         → RDS +s nack 1: no
         ! RDS #1 exact r@1 (RouteTable/shop/r@c1): no
         ← RDS #2 s@1
         → RDS -r ack 2
         snapshot RDS r@2 s@1",
    );
}

#[test]
fn case_8_a_fix_is_sent_once() {
    check(
        "reports
         snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS nack 1: no
         ! RDS #1 exact r@1 (RouteTable/shop/r@c1): no
         = RDS, 1 outstanding
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS ack 2
         = RDS r@2, 0 outstanding
         at 100s",
    );
}

#[test]
fn case_9_the_good_land_and_the_bad_is_withheld() {
    check(
        "snapshot CDS a@1 bad@1 c@1
         → CDS
         ← CDS #1 a@1 bad@1 c@1
         → CDS ack 1
         snapshot CDS a@2 bad@2 c@2
         ← CDS #2 a@2 bad@2 c@2
         → CDS nack 2: bad is bad
         ! CDS #2 suspected a@2 (RouteTable/shop/a@c1) bad@2 (RouteTable/shop/bad@c1) c@2 (RouteTable/shop/c@c1): bad is bad
         ← CDS #3 a@2 bad@2
         → CDS nack 3: bad is bad
         ← CDS #4 a@2
         → CDS ack 4
         ← CDS #5 bad@2
         → CDS nack 5: bad is bad
         ! CDS #5 exact bad@2 (RouteTable/shop/bad@c1): bad is bad
         ← CDS #6 c@2
         → CDS ack 6
         snapshot CDS a@2 bad@1 c@2
         snapshot CDS a@2 bad@3 c@2
         ← CDS #7 bad@3",
    );
}

#[test]
fn case_9_uncertain_members_are_sent_even_if_they_go_back() {
    check(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         snapshot CDS a@2 b@2
         ← CDS #2 a@2 b@2
         snapshot CDS a@1
         → CDS nack 2: no
         ! CDS #2 suspected a@2 (RouteTable/shop/a@c1) b@2 (RouteTable/shop/b@c1): no
         ← CDS #3 a@1
         → CDS ack 3
         at 5s
         ← CDS #4 -b",
    );
}

#[test]
fn case_9_a_new_resource_that_may_have_landed_is_removed() {
    check(
        "snapshot LDS bad@1 l@1
         → LDS
         ← LDS #1 bad@1 l@1
         snapshot LDS
         → LDS nack 1: no
         ! LDS #1 suspected bad@1 (RouteTable/shop/bad@c1) l@1 (RouteTable/shop/l@c1): no
         ← LDS #2 -bad -l
         → LDS ack 2",
    );
}

#[test]
fn case_12_empty_subscriptions() {
    check(
        "snapshot SDS s@1 | CDS a@1 | EDS a@1 | LDS l@1 | ECDS x@1 | RDS r@1
         → RDS
         → EDS
         → SDS
         → ECDS
         → CDS
         ← CDS #1 a@1
         → CDS ack 1
         → LDS
         ← LDS #2 l@1",
    );
}

#[test]
fn case_13_explicit_wildcard() {
    check(
        "snapshot CDS a@1 b@1
         → CDS +*
         ← CDS #1 a@1 b@1
         → CDS ack 1
         → CDS +a
         ← CDS #2 a@1
         → CDS ack 2
         → CDS -a
         ← CDS #3 a@1
         → CDS ack 3
         snapshot CDS a@2 b@2
         ← CDS #4 a@2 b@2
         → CDS ack 4
         → CDS +b
         ← CDS #5 b@2
         → CDS ack 5
         → CDS -*
         snapshot CDS a@3 b@3
         ← CDS #6 b@3",
    );
}

#[test]
fn case_13_a_missing_name_given_up_under_the_wildcard_is_answered() {
    check(
        "snapshot CDS a@1
         → CDS +* +gone
         ← CDS #1 a@1 -gone
         → CDS ack 1
         → CDS -gone
         ← CDS #2 -gone
         → CDS ack 2",
    );
}

#[test]
fn case_16_unsubscribed_is_silent() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS -r
         snapshot RDS r@2
         → RDS
         → RDS +r
         ← RDS #2 r@2",
    );
}

#[test]
fn case_16_unsubscribed_while_in_flight() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS -r
         → RDS ack 1
         snapshot RDS
         snapshot RDS r@1
         → RDS +r
         ← RDS #2 r@1",
    );
}

#[test]
fn case_17_subscribing_again_sends_again() {
    check(
        "snapshot RDS r@1
         → RDS +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS +r
         ← RDS #2 r@1
         → RDS +r
         → RDS ack 2
         ← RDS #3 r@1
         → RDS nack 3: no
         ! RDS #3 exact r@1 (RouteTable/shop/r@c1): no
         → RDS +r
         ← RDS #4 r@1",
    );
}

#[test]
fn case_18_missing_names_are_told_once_and_sent_when_they_appear() {
    check(
        "at 5s
         snapshot RDS r@1
         → RDS +r +later
         ← RDS #1 r@1 -later
         → RDS ack 1
         snapshot RDS r@2
         ← RDS #2 r@2
         → RDS ack 2
         snapshot RDS r@2 later@1
         ← RDS #3 later@1
         → RDS ack 3
         snapshot RDS r@2
         ← RDS #4 -later
         → RDS ack 4
         snapshot RDS r@3
         ← RDS #5 r@3",
    );
}

#[test]
fn case_19_two_names_one_missing() {
    check(
        "snapshot EDS a@1
         → EDS +a +b
         ← EDS #1 a@1 -b
         → EDS ack 1
         snapshot EDS a@1 b@1
         ← EDS #2 b@1",
    );
}

#[test]
fn case_20_repetitions_and_contradictions() {
    check(
        "snapshot RDS r@1
         → RDS +r +r +r
         ← RDS #1 r@1
         → RDS ack 1
         → RDS +r -r
         snapshot RDS r@2",
    );
}

#[test]
fn case_21_names_with_control_characters_are_names() {
    check(
        "snapshot RDS r@1
         → RDS +\u{1b}[31m
         ← RDS #1 -\u{1b}[31m
         → RDS ack 1",
    );
}

#[test]
fn case_22_removals_are_sent_once() {
    check(
        "snapshot CDS a@1 b@1
         → CDS
         ← CDS #1 a@1 b@1
         → CDS ack 1
         at 5s
         snapshot CDS a@1
         ← CDS #2 -b
         → CDS ack 2
         snapshot CDS a@1
         at 100s",
    );
}

#[test]
fn case_23_deleted_and_created_again_in_between() {
    check(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         snapshot CDS
         snapshot CDS a@2
         → CDS ack 1
         ← CDS #2 a@2
         → CDS ack 2",
    );
}

#[test]
fn case_24_reconnect_with_everything_current() {
    check(
        "reports
         snapshot CDS a@1 b@1 | EDS a@1 b@1 | LDS l@1 | RDS r@1
         → CDS have a@1 have b@1
         = CDS a@1 b@1, 0 outstanding
         → EDS +a +b have a@1 have b@1
         = EDS a@1 b@1, 0 outstanding
         → LDS have l@1
         = LDS l@1, 0 outstanding
         → RDS +r have r@1
         = RDS r@1, 0 outstanding",
    );
}

#[test]
fn case_24_a_cluster_that_is_sent_again_has_its_endpoints_sent_again() {
    check(
        "snapshot CDS a@2 b@1 | EDS a@1 b@1
         → CDS have a@1 have b@1
         ← CDS #1 a@2
         → EDS +a +b have a@1 have b@1
         ← EDS #2 a@1
         → EDS ack 2
         → CDS ack 1
         snapshot CDS a@2 b@2
         ← CDS #3 b@2
         ← EDS #4 b@1
         snapshot CDS a@2 b@3
         → CDS ack 3
         ← CDS #5 b@3
         → EDS ack 4
         ← EDS #6 b@1",
    );
}

#[test]
fn case_24_endpoints_that_are_gone_by_then_are_sent_all_the_same() {
    check(
        "at 5s
         snapshot CDS a@1 | EDS a@1
         → CDS have a@1
         → EDS +a have a@1
         snapshot CDS a@2 | EDS a@2
         ← CDS #1 a@2
         ← EDS #2 a@2
         snapshot CDS a@2 | EDS a@3
         snapshot CDS | EDS
         → EDS ack 2
         → CDS ack 1
         ← CDS #3 -a
         → CDS ack 3
         ← EDS #4 -a",
    );
    check(
        "snapshot CDS a@1 | EDS a@1
         → CDS have a@1
         → EDS +a
         ← EDS #1 a@1
         snapshot CDS a@2
         ← CDS #2 a@2
         snapshot CDS | EDS
         → EDS ack 1
         ← EDS #3 a@1
         → EDS ack 3
         → CDS ack 2
         at 5s
         ← CDS #4 -a
         → CDS ack 4
         ← EDS #5 -a",
    );
}

#[test]
fn case_28_a_cluster_that_is_sent_again_is_told_again_that_it_has_no_endpoints() {
    check(
        "snapshot CDS a@1
         → CDS
         ← CDS #1 a@1
         → EDS +a
         ← EDS #2 -a
         → EDS ack 2
         → CDS ack 1
         snapshot CDS a@2
         ← CDS #3 a@2
         ← EDS #4 -a",
    );
}

#[test]
fn case_25_reconnect_with_what_is_unknown_here() {
    check(
        "snapshot CDS a@1 b@1 | RDS r@1 | LDS l@1
         → CDS have a@0 have b@1 have gone@1
         ← CDS #1 a@1
         → LDS have l@1 have old@1
         ← LDS #2 -old
         → RDS +r have r@0
         → CDS ack 1
         ← RDS #3 r@1
         → LDS ack 2
         → RDS ack 3
         at 5s
         ← CDS #4 -gone",
    );
}

#[test]
fn case_26_nothing_is_sent_before_there_is_a_snapshot() {
    check(
        "→ CDS have a@1
         → LDS have l@1
         → RDS +r have r@1
         at 100s
         snapshot CDS a@1 | LDS l@1 | RDS r@1",
    );
}

#[test]
fn case_27_reconnect_after_a_refusal() {
    check(
        "snapshot CDS a@1 bad@1
         → CDS have a@1
         ← CDS #1 bad@1
         → CDS nack 1: bad
         ! CDS #1 exact bad@1 (RouteTable/shop/bad@c1): bad
         → LDS
         snapshot CDS a@1 bad@2 | LDS l@1
         ← CDS #2 bad@2
         → CDS ack 2
         ← LDS #3 l@1",
    );
}

#[test]
fn case_28_a_cluster_without_endpoints_is_told_so() {
    check(
        "snapshot CDS a@1 b@1 | EDS a@empty
         → CDS
         ← CDS #1 a@1 b@1
         → EDS +a +b
         ← EDS #2 a@empty -b
         → EDS ack 2
         → CDS ack 1",
    );
}

#[test]
fn case_31_make_before_break() {
    check(
        "at 5s
         snapshot CDS old@1 | EDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → EDS +old have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS new@1 | EDS new@1 | LDS l@2 | RDS r@2
         ← CDS #1 new@1
         → EDS +new
         ← EDS #2 new@1
         → EDS ack 2
         → CDS ack 1
         ← LDS #3 l@2
         → LDS ack 3
         ← RDS #4 r@2
         → RDS ack 4
         ← CDS #5 -old
         → EDS -old
         → CDS ack 5",
    );
}

#[test]
fn case_31_removals_wait_for_routes_that_a_new_listener_will_ask_for() {
    check(
        "at 5s
         snapshot CDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS new@1 | LDS l@2 | RDS q@1
         ← CDS #1 new@1
         → CDS ack 1
         ← LDS #2 l@2
         → LDS ack 2
         ← RDS #3 -r
         → RDS +q -r
         → RDS ack 3
         ← RDS #4 q@1
         → RDS ack 4
         ← CDS #5 -old",
    );
}

#[test]
fn case_31_what_a_refused_route_still_uses_stays() {
    check(
        "at 5s
         snapshot CDS old@1 | LDS l@1 | RDS r@1
         → CDS have old@1
         → LDS have l@1
         → RDS +r have r@1
         snapshot CDS | RDS r@2
         ← RDS #1 r@2
         → RDS nack 1: no
         ! RDS #1 exact r@2 (RouteTable/shop/r@c1): no
         at 1000s
         snapshot RDS r@3
         ← RDS #2 r@3
         → RDS ack 2
         ← CDS #3 -old",
    );
}

#[test]
fn case_31_a_listener_takes_an_address_over_in_one_response() {
    check(
        "snapshot LDS old@1
         → LDS have old@1
         snapshot LDS new@1
         ← LDS #1 new@1 -old
         → LDS nack 1: no
         ! LDS #1 suspected new@1 (RouteTable/shop/new@c1): no
         ← LDS #2 -old
         → LDS ack 2
         ← LDS #3 new@1",
    );
}

#[test]
fn case_32_a_client_that_never_acknowledges_clusters() {
    check(
        "snapshot CDS a@1 | LDS l@1
         → CDS
         ← CDS #1 a@1
         → LDS
         at 19s
         at 20s
         ← LDS #2 l@1
         → LDS ack 2
         snapshot CDS a@1 | RDS r@1
         → RDS +r
         ← RDS #3 r@1",
    );
}

#[test]
fn case_33_snapshots_in_between_collapse_into_the_newest() {
    check(
        "snapshot EDS a@1
         → EDS +a
         ← EDS #1 a@1
         snapshot EDS a@2
         snapshot EDS a@3
         snapshot EDS a@4
         → EDS ack 1
         ← EDS #2 a@4
         → EDS ack 2",
    );
}

#[test]
fn case_40_unknown_types_are_ignored() {
    check(
        "snapshot CDS a@1
         → type.googleapis.com/envoy.api.v2.Cluster
         ~ type.googleapis.com/envoy.api.v2.Cluster unknown type
         → CDS error: what?
         ~ CDS error without a nonce
         ← CDS #1 a@1",
    );
}

#[test]
fn f4_one_route_configuration_secret_or_extension_per_response() {
    check(
        "snapshot SDS s@1 t@1 | ECDS x@1 y@1 | RDS r@1 q@1
         → SDS +s +t
         ← SDS #1 s@1
         → SDS ack 1
         ← SDS #2 t@1
         → SDS ack 2
         → ECDS +x +y
         ← ECDS #3 x@1
         → ECDS ack 3
         ← ECDS #4 y@1
         → ECDS ack 4
         → RDS +r +q
         ← RDS #5 q@1
         → RDS ack 5
         ← RDS #6 r@1",
    );
}

#[test]
fn case_11_long_errors_are_cut() {
    let mut session = Session::new(SessionSettings::default());
    let snapshot = Snapshot::new().with(ResourceType::Route, [resource("r@1")]);
    assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
    session.request(Duration::ZERO, &request("RDS +r")).unwrap();
    let refusal = DeltaRequest { error: Some("ü".repeat(1 << 20)), ..request("RDS ack 1") };
    let outputs = session.request(Duration::ZERO, &refusal).unwrap();
    let [Output::Refused(refusal), ..] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(refusal.message, "ü".repeat(2048));
}

#[test]
fn case_21_a_hundred_thousand_names_and_no_more() {
    let names = |count: usize| (0..count).map(|i| i.to_string().into()).collect();
    for (count, expected) in [(100_000, true), (100_001, false)] {
        let request = DeltaRequest { subscribe: names(count), ..request("RDS") };
        let result = Session::new(SessionSettings::default()).request(Duration::ZERO, &request);
        assert_eq!(result.is_ok(), expected, "{count} names");
    }
    let long = DeltaRequest { subscribe: vec!["x".repeat(10_000).into()], ..request("RDS") };
    let error = Session::new(SessionSettings::default()).request(Duration::ZERO, &long).unwrap_err();
    assert!(error.to_string().starts_with("a resource name of 10000 bytes"), "{error}");
}

#[test]
fn case_35_responses_stay_below_the_limit_where_they_can() {
    let mut session = Session::new(SessionSettings::default());
    let big = |name: &str, bytes: usize| Arc::new(Resource { body: vec![0; bytes].into(), ..resource(name) });
    let resources: Resources = [("a@1", 3 << 20), ("b@1", 3 << 20), ("c@1", 9 << 20), ("d@1", 10)]
        .into_iter()
        .map(|(name, bytes)| (resource(name).name, big(name, bytes)))
        .collect();
    let snapshot = Snapshot::new().with_shared(ResourceType::Cluster, Arc::new(resources));
    let mut sent = Vec::new();
    assert!(session.snapshot(Duration::ZERO, Arc::new(snapshot)).is_empty());
    let mut outputs = session.request(Duration::ZERO, &request("CDS")).unwrap();
    while let Some(Output::Respond(response)) = outputs.last() {
        sent.push(response.resources.iter().map(|resource| resource.name.to_string()).collect::<Vec<_>>().join(" "));
        outputs = session.request(Duration::ZERO, &request(&format!("CDS ack {}", response.nonce))).unwrap();
    }
    assert_eq!(sent, ["a", "b", "c", "d"]);
}
