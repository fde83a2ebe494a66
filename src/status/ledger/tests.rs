//! What is known after which events.

use std::time::Duration;

use super::super::view::Standing;
use super::*;
use crate::model::Labels;
use crate::snapshot::{Resource, Resources};
use crate::xds::node::{EnvoyVersion, Node};
use crate::xds::observation::{Gained, RefusedResource, Sending};

const ROUTE: ResourceType = ResourceType::Route;

fn peer(stream: u64, gateway: &str, id: &str) -> Arc<Peer> {
    let node = Node {
        id: id.into(),
        cluster: None,
        namespace: None,
        pod: None,
        labels: Labels::new(),
        service_account: None,
        bind: "0.0.0.0".into(),
        revision: None,
        version: Some(EnvoyVersion { major: 1, minor: 36, patch: 2 }),
    };
    Arc::new(Peer { stream: StreamId(stream), gateway: gateway.into(), node: Arc::new(node) })
}

fn sent(peer: &Arc<Peer>, version: &str, resources: usize) -> Observation {
    let sending = Sending {
        resource_type: ROUTE,
        nonce: "1".into(),
        version: Version::new(version),
        resources,
        removed: 0,
        bytes: 10 * resources,
    };
    Observation::Sent(peer.clone(), sending)
}

fn acknowledged(peer: &Arc<Peer>, version: &str, resources: &[(&str, &str)], outstanding: usize) -> Observation {
    let acknowledgement = Acknowledgement {
        resource_type: ROUTE,
        version: Version::new(version),
        resources: Gained::Listed(
            resources.iter().map(|(name, version)| ((*name).into(), Version::new(version))).collect(),
        ),
        removed: Vec::new(),
        outstanding,
        after: Some(Duration::from_millis(7)),
    };
    Observation::Acknowledged(peer.clone(), acknowledgement)
}

fn refused(peer: &Arc<Peer>, blame: Blame, resources: &[(&str, &str)], message: &str) -> Observation {
    let refused = |(name, version): &(&str, &str)| RefusedResource {
        name: (*name).into(),
        version: Version::new(version),
        owners: Arc::from([]),
    };
    let refusal = Refusal {
        resource_type: ROUTE,
        nonce: "1".into(),
        resources: resources.iter().map(refused).collect(),
        blame,
        message: message.to_owned(),
    };
    Observation::Refused(peer.clone(), refusal)
}

fn resources(pairs: &[(&str, &str)]) -> Resources {
    let resource = |(name, version): &(&str, &str)| {
        let (body, owners) = (bytes::Bytes::new(), Arc::from([]));
        let resource = Resource { name: (*name).into(), version: Version::new(version), body, owners };
        (resource.name.clone(), Arc::new(resource))
    };
    pairs.iter().map(resource).collect()
}

/// The line of the one type of the one stream.
fn line(ledger: &Ledger) -> TypeView {
    let view = ledger.view();
    let (.., stream) = view.streams().next().expect("a stream");
    stream.types[&ROUTE].clone()
}

#[test]
fn case_41_two_streams_of_one_node_are_both_shown_and_end_apart() {
    let ledger = Ledger::new();
    let (old, new, other) = (peer(1, "edge", "envoy-1"), peer(2, "edge", "envoy-1"), peer(3, "inner", "envoy-1"));
    for peer in [&old, &new, &other] {
        ledger.observe(Observation::Connected(peer.clone()));
    }
    ledger.observe(sent(&old, "v1", 1));
    ledger.observe(acknowledged(&old, "v1", &[("http-80", "a")], 0));
    ledger.observe(sent(&new, "v1", 1));
    let streams =
        |view: &View| view.streams().map(|(gateway, _, id, _)| format!("{gateway} {}", id.0)).collect::<Vec<_>>();
    assert_eq!(streams(&ledger.view()), ["edge 1", "edge 2", "inner 3"]);

    ledger.observe(Observation::Disconnected(new));
    let view = ledger.view();
    assert_eq!(streams(&view), ["edge 1", "inner 3"]);
    let stays = &view.gateways["edge"].nodes["envoy-1"].streams[&StreamId(1)];
    assert!(stays.types[&ROUTE].is_current(&Version::new("v1")), "what the other stream told is kept");

    ledger.observe(Observation::Disconnected(old));
    ledger.observe(Observation::Disconnected(other));
    assert_eq!(ledger.view(), View::default());
}

#[test]
fn a_type_is_current_once_it_is_acknowledged_in_full() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    let (v1, wanted) = (Version::new("v1"), resources(&[("http-80", "a"), ("http-81", "b")]));
    ledger.observe(sent(&envoy, "v1", 1));
    assert_eq!((line(&ledger).outstanding, line(&ledger).is_current(&v1)), (1, false));
    ledger.observe(acknowledged(&envoy, "v1", &[("http-80", "a")], 1));
    assert_eq!(line(&ledger).standing(&wanted, &v1, "http-81"), Standing::Behind);
    assert_eq!(line(&ledger).acknowledged, None);
    ledger.observe(sent(&envoy, "v1", 1));
    ledger.observe(acknowledged(&envoy, "v1", &[("http-81", "b")], 0));
    assert!(line(&ledger).is_current(&v1));
    assert_eq!(line(&ledger).standing(&wanted, &v1, "http-81"), Standing::Current);

    // The next one is on its way: it lags behind, and still holds the first.
    ledger.observe(sent(&envoy, "v2", 1));
    assert!(!line(&ledger).is_current(&Version::new("v2")));
    assert_eq!(line(&ledger).standing(&wanted, &Version::new("v2"), "http-80"), Standing::Behind);
    assert_eq!(line(&ledger).acknowledged, Some(v1));
}

#[test]
fn case_8_a_refusal_is_shown_until_the_fix_lands() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    ledger.observe(sent(&envoy, "v1", 1));
    ledger.observe(refused(&envoy, Blame::Exact, &[("http-80", "bad")], "no such filter"));
    // What the session reports when nothing but the refused resource is left.
    ledger.observe(acknowledged(&envoy, "v1", &[], 1));
    let (v1, wanted) = (Version::new("v1"), resources(&[("http-80", "bad"), ("http-81", "b")]));
    let shown = line(&ledger);
    let refusal = &shown.refusals["http-80"];
    assert_eq!((&*refusal.message, refusal.version.as_str()), ("no such filter", "bad"));
    assert_eq!(shown.standing(&wanted, &v1, "http-80"), Standing::Refused);
    assert_eq!(shown.standing(&wanted, &v1, "http-81"), Standing::Current, "its sibling is not to blame");

    ledger.observe(sent(&envoy, "v2", 1));
    ledger.observe(acknowledged(&envoy, "v2", &[("http-80", "good")], 0));
    assert_eq!(line(&ledger).refusals, BTreeMap::new());
    assert!(line(&ledger).is_current(&Version::new("v2")));
}

#[test]
fn case_9_what_travelled_with_something_bad_is_only_suspected() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    ledger.observe(sent(&envoy, "v1", 2));
    ledger.observe(refused(&envoy, Blame::Suspected, &[("good", "1"), ("bad", "1")], "bad"));
    assert_eq!(line(&ledger).refusals["good"].blame, Blame::Suspected);
    ledger.observe(sent(&envoy, "v1", 1));
    ledger.observe(acknowledged(&envoy, "v1", &[("good", "1")], 1));
    ledger.observe(sent(&envoy, "v1", 1));
    ledger.observe(refused(&envoy, Blame::Exact, &[("bad", "1")], "bad"));
    let shown = line(&ledger);
    assert_eq!(shown.refusals.keys().map(|name| &**name).collect::<Vec<_>>(), ["bad"]);
    assert_eq!(shown.refusals["bad"].blame, Blame::Exact);
}

#[test]
fn what_one_client_refuses_is_bounded() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    for index in 0..1000 {
        ledger.observe(refused(&envoy, Blame::Exact, &[(&format!("r{index}"), "1")], &"x".repeat(4096)));
    }
    let shown = line(&ledger);
    assert_eq!((shown.refusals.len(), shown.refusals_unlisted), (REFUSALS, 744));
    let texts: usize = shown.refusals.values().map(|refusal| refusal.message.len()).sum();
    assert!((IN_FULL * 4096..=64 << 10).contains(&texts), "{texts}");
}

#[test]
fn more_than_a_few_refusals_are_told_apart_from_what_is_behind() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    ledger.observe(sent(&envoy, "v1", 31));
    let names: Vec<String> = (0..31).map(|index| format!("r{index}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    ledger.observe(refused(&envoy, Blame::Suspected, &pairs, "one of them"));
    for pair in &pairs[..30] {
        ledger.observe(refused(&envoy, Blame::Exact, &[*pair], &format!("no {}", pair.0)));
    }
    ledger.observe(acknowledged(&envoy, "v1", &[pairs[30]], 30));
    let (v1, wanted, shown) = (Version::new("v1"), resources(&pairs), line(&ledger));
    let refused = names.iter().filter(|name| shown.standing(&wanted, &v1, name) == Standing::Refused).count();
    assert_eq!((refused, shown.standing(&wanted, &v1, "r30")), (30, Standing::Current));
    assert_eq!(&*shown.refusals["r29"].message, "no r29");
}

#[test]
fn what_is_certain_displaces_what_is_only_suspected() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    let names: Vec<String> = (0..1000).map(|index| format!("r{index:03}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    ledger.observe(refused(&envoy, Blame::Suspected, &pairs, "one of them"));
    ledger.observe(refused(&envoy, Blame::Exact, &[("r999", "1")], "this one"));
    let shown = line(&ledger);
    assert_eq!((shown.refusals.len(), shown.refusals_unlisted), (REFUSALS, 0));
    assert_eq!((shown.refusals["r999"].blame, &*shown.refusals["r999"].message), (Blame::Exact, "this one"));
}

#[test]
fn refusals_of_what_nobody_wants_any_more_are_forgotten() {
    let ledger = Ledger::new();
    let envoy = peer(1, "edge", "envoy-1");
    ledger.observe(Observation::Connected(envoy.clone()));
    ledger.observe(refused(&envoy, Blame::Exact, &[("a", "1")], "no"));
    ledger.observe(refused(&envoy, Blame::Exact, &[("b", "1")], "no"));
    ledger.retain_refusals(|_, name, version| name == "a" && version.as_str() == "1");
    assert_eq!(line(&ledger).refusals.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn times_are_stated_as_ages() {
    let ledger = Ledger::new();
    let (envoy, begin) = (peer(1, "edge", "envoy-1"), Instant::now());
    let after = |seconds| begin + Duration::from_secs(seconds);
    ledger.record(Observation::Connected(envoy.clone()), begin);
    ledger.record(refused(&envoy, Blame::Exact, &[("a", "1")], "no"), after(5));
    let view = ledger.view_at(after(7));
    let (.., stream) = view.streams().next().expect("a stream");
    assert_eq!(stream.connected_for, Duration::from_secs(7));
    assert_eq!(stream.types[&ROUTE].refusals["a"].ago, Duration::from_secs(2));
}
