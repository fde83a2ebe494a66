//! A client, a network and the session under random scripts.
//!
//! The client behaves as Envoy does: clusters and listeners by wildcard, endpoints of clusters that it holds, routes
//! that its listeners name; it acknowledges clusters only when their endpoints came after them; it takes the good
//! members of a refused response of clusters or listeners and none of any other type. It answers types in any order and
//! after any delay, and the network may break at any step. It speaks either variant of the protocol.
//!
//! Promised in every run:
//! - Nonces are unique within a stream; no response without a cause.
//! - At rest the client holds exactly the snapshot, as far as it asked for it and didn't refuse it; no cluster waits.
//! - At rest an equal snapshot, or time, makes nobody speak.
//!
//! And when nothing is refused:
//! - The client is never sent a cluster, listener or route that it holds; with the state of the world, no route unless
//!   the connection broke.
//! - No route that a listener uses ever names a cluster that the client doesn't hold; with the state of the world, as long
//!   as the connection doesn't break: who connects again states one version for all clusters, and if that isn't the
//!   current one, the server can't know what to keep.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::snapshot::Version;
use crate::xds::message::Recognised;
use ResourceType::{Cluster, Endpoint, Listener, Route};

const TYPES: [ResourceType; 4] = [Cluster, Endpoint, Listener, Route];

/// What can happen next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A cluster changes.
    Cluster(u8),
    /// The endpoints of a cluster change.
    Endpoints(u8),
    /// A route leads to another cluster; the one before may go.
    Route(u8, u8),
    /// A listener names another route, or comes to be.
    Listener(u8, u8),
    /// A listener goes.
    Unlisten(u8),
    /// The client receives one response.
    Receive,
    /// The client gets round to one type, and its requests arrive.
    Flush(u8),
    /// The connection breaks, and the client connects again.
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..4u8;
    prop_oneof![
        1 => number.clone().prop_map(Step::Cluster),
        1 => number.clone().prop_map(Step::Endpoints),
        3 => (number.clone(), number.clone()).prop_map(|(route, cluster)| Step::Route(route, cluster)),
        2 => (number.clone(), number.clone()).prop_map(|(listener, route)| Step::Listener(listener, route)),
        1 => number.clone().prop_map(Step::Unlisten),
        12 => Just(Step::Receive),
        12 => number.prop_map(Step::Flush),
        1 => Just(Step::Reset),
    ]
}

/// The configuration: who uses what, and a serial number per content.
#[derive(Default)]
struct World {
    serial: u32,
    clusters: BTreeMap<u8, u32>,
    endpoints: BTreeMap<u8, u32>,
    routes: BTreeMap<u8, (u8, u32)>,
    listeners: BTreeMap<u8, (u8, u32)>,
}

impl World {
    fn edit(&mut self, step: &Step) {
        self.serial += 1;
        let serial = self.serial;
        match *step {
            Step::Cluster(cluster) => drop(self.clusters.insert(cluster, serial)),
            Step::Endpoints(cluster) => drop(self.endpoints.insert(cluster, serial)),
            Step::Route(route, cluster) => drop(self.routes.insert(route, (cluster, serial))),
            Step::Listener(listener, route) => drop(self.listeners.insert(listener, (route, serial))),
            Step::Unlisten(listener) => drop(self.listeners.remove(&listener)),
            Step::Receive | Step::Flush(_) | Step::Reset => {}
        }
    }

    /// Only what is used exists. A version says what the content refers to: `c1.7` is the 7th content, leading to `c1`.
    fn snapshot(&self) -> Arc<Snapshot> {
        let used_routes: BTreeSet<u8> = self.listeners.values().map(|(route, _)| *route).collect();
        let route = |route: &u8| self.routes.get(route).copied().unwrap_or((0, 0));
        let used_clusters: BTreeSet<u8> = used_routes.iter().map(|used| route(used).0).collect();
        let serial = |of: &BTreeMap<u8, u32>, cluster: &u8| of.get(cluster).copied().unwrap_or_default();
        let resource = |name: String, version: String| Resource {
            name: name.into(),
            version: Version::new(&version),
            body: "".into(),
            owners: Arc::from([]),
        };
        let clusters =
            used_clusters.iter().map(|c| resource(format!("c{c}"), format!(".{}", serial(&self.clusters, c))));
        let endpoints =
            used_clusters.iter().map(|c| resource(format!("c{c}"), format!(".{}", serial(&self.endpoints, c))));
        let listeners =
            self.listeners.iter().map(|(l, (r, serial))| resource(format!("l{l}"), format!("r{r}.{serial}")));
        let routes = used_routes.iter().map(|r| {
            let (cluster, serial) = route(r);
            resource(format!("r{r}"), format!("c{cluster}.{serial}"))
        });
        Arc::new(
            Snapshot::new()
                .with(Cluster, clusters)
                .with(Endpoint, endpoints)
                .with(Listener, listeners)
                .with(Route, routes),
        )
    }
}

/// Whether the client refuses a content: some serial numbers are bad.
fn is_bad(version: &str) -> bool {
    let serial = version.rsplit_once('.').and_then(|(_, serial)| serial.parse::<u32>().ok()).unwrap();
    serial % 5 == 3
}

/// The name that a content refers to.
fn target(version: &str) -> &str {
    version.split_once('.').unwrap().0
}

type Table = BTreeMap<String, String>;

/// A request of either variant.
enum Request {
    Delta(DeltaRequest),
    State(StateRequest),
}

#[derive(Default)]
struct Envoy {
    held: BTreeMap<ResourceType, Table>,
    asked: BTreeMap<ResourceType, BTreeSet<String>>,
    /// Requests that it didn't get round to.
    outbox: BTreeMap<ResourceType, VecDeque<Request>>,
    /// State of the world: the last nonce of each type on this stream, and the last version that it took.
    nonces: BTreeMap<ResourceType, String>,
    versions: BTreeMap<ResourceType, String>,
    /// Types of which it took a part since. Envoy would state the version of before, as if it had taken nothing; if
    /// that is the current version again, it keeps that part (`lane/state.rs`).
    doubtful: BTreeSet<ResourceType>,
    /// Clusters that wait for endpoints, and the nonce to acknowledge then.
    warming: BTreeSet<String>,
    unacknowledged: Option<Name>,
    /// Whether it connected again while clusters waited, and didn't ask for clusters yet.
    is_deferred: bool,
    /// Routes that it ever unsubscribed from: whoever subscribes again is sent again, even what is on its way.
    given_up: BTreeSet<String>,
}

struct Model {
    variant: Variant,
    refuses: bool,
    /// Whether its refusals name the bad clusters and listeners, as Envoy's do but for what it can't decode.
    names_them: bool,
    /// Whether the connection ever broke.
    broke: bool,
    world: World,
    session: Session,
    now: Duration,
    wire: VecDeque<Response>,
    envoy: Envoy,
    nonces: BTreeSet<Name>,
    /// The types that had a response on this stream.
    answered: BTreeSet<ResourceType>,
}

impl Model {
    fn new(variant: Variant, refuses: bool) -> Self {
        let session = Session::new(SessionSettings::default(), variant);
        let mut model = Self {
            variant,
            refuses,
            names_them: false,
            broke: false,
            world: World::default(),
            session,
            now: Duration::ZERO,
            wire: VecDeque::new(),
            envoy: Envoy::default(),
            nonces: BTreeSet::new(),
            answered: BTreeSet::new(),
        };
        model.reset();
        model.broke = false;
        model
    }

    fn is_delta(&self) -> bool {
        self.variant == Variant::Delta
    }

    /// Whether a response of a type carries everything.
    fn carries_all(&self, resource_type: ResourceType) -> bool {
        !self.is_delta() && resource_type.has_wildcard()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Receive => drop(self.receive()),
            Step::Flush(position) => drop(self.flush(TYPES[usize::from(*position)])),
            Step::Reset => self.reset(),
            edit => {
                self.world.edit(edit);
                let outputs = self.session.snapshot(self.now, self.world.snapshot());
                self.transmit(outputs);
            }
        }
    }

    fn transmit(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Output::Respond(response) = output else { continue };
            assert!(self.nonces.insert(response.nonce.clone()), "nonce {} twice", response.nonce);
            let first = self.answered.insert(response.resource_type);
            let says_something = !response.resources.is_empty() || !response.removed.is_empty();
            assert!(
                says_something || (first && matches!(response.resource_type, Cluster | Listener)),
                "an empty response"
            );
            if !self.is_delta() && !response.resource_type.has_wildcard() {
                assert!(response.removed.is_empty(), "removals can't be sent");
            }
            let names: Vec<&Name> = response.resources.iter().map(|r| &r.name).chain(&response.removed).collect();
            assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "case 36: a name twice in {names:?}");
            self.wire.push_back(response);
        }
    }

    fn flush(&mut self, resource_type: ResourceType) -> bool {
        let requests = std::mem::take(self.envoy.outbox.entry(resource_type).or_default());
        let any = !requests.is_empty();
        for request in requests {
            self.send(&request);
        }
        any
    }

    fn send(&mut self, request: &Request) {
        let outputs = match request {
            Request::Delta(request) => self.session.request(self.now, request),
            Request::State(request) => self.session.request_state(self.now, request),
        };
        self.transmit(outputs.unwrap());
    }

    /// What the state of the world says at any time: all names, the last version, the last nonce.
    fn state_request(&self, resource_type: ResourceType) -> StateRequest {
        let of = |texts: &BTreeMap<ResourceType, String>| texts.get(&resource_type).cloned().unwrap_or_default();
        let asked = self.envoy.asked.get(&resource_type).into_iter().flatten();
        StateRequest {
            type_url: resource_type.type_url().to_owned(),
            names: asked.map(Name::from).collect(),
            version: of(&self.envoy.versions),
            nonce: of(&self.envoy.nonces),
            error: None,
            recognised: Recognised::default(),
        }
    }

    /// A new stream, on which the client states what it holds, clusters first.
    fn reset(&mut self) {
        self.wire.clear();
        self.nonces.clear();
        self.session = Session::new(SessionSettings::default(), self.variant);
        self.broke = true;
        self.envoy.nonces.clear();
        for resource_type in std::mem::take(&mut self.envoy.doubtful) {
            self.envoy.versions.insert(resource_type, "a part".to_owned());
        }
        self.answered.clear();
        self.now = Duration::ZERO;
        self.envoy.outbox.clear();
        self.envoy.unacknowledged = None;
        // Envoy goes on waiting for endpoints, and asks for no clusters meanwhile. With the state of the world nobody can
        // tell it that there are none any more, so it waits for 15 s, as if it had come that much later.
        if !self.is_delta() {
            self.envoy.warming.clear();
        }
        self.envoy.is_deferred = !self.envoy.warming.is_empty();
        let outputs = self.session.snapshot(self.now, self.world.snapshot());
        self.transmit(outputs);
        for resource_type in TYPES {
            let request = self.first_request(resource_type);
            if resource_type != Cluster || !self.envoy.is_deferred {
                self.send(&request);
            }
        }
    }

    /// What the client says of a type when it connects: what it asks for, and what it holds.
    fn first_request(&mut self, resource_type: ResourceType) -> Request {
        let held = self.envoy.held.entry(resource_type).or_default();
        let initial_versions = held.iter().map(|(name, version)| (name.into(), version.clone())).collect();
        let asked = self.envoy.asked.entry(resource_type).or_default();
        let request = DeltaRequest {
            type_url: resource_type.type_url().to_owned(),
            subscribe: asked.iter().map(Name::from).collect(),
            initial_versions,
            ..DeltaRequest::default()
        };
        if self.is_delta() { Request::Delta(request) } else { Request::State(self.state_request(resource_type)) }
    }

    fn receive(&mut self) -> bool {
        let Some(response) = self.wire.pop_front() else { return false };
        let resource_type = response.resource_type;
        let bad = self.refuses && response.resources.iter().any(|resource| is_bad(resource.version.as_str()));
        let partial = matches!(resource_type, Cluster | Listener);
        for resource in &response.resources {
            let (name, version) = (resource.name.to_string(), resource.version.to_string());
            if bad && (!partial || is_bad(&version)) {
                continue;
            }
            let held = self.envoy.held.entry(resource_type).or_default().insert(name.clone(), version.clone());
            let again = held.as_ref() == Some(&version);
            let excused = resource_type == Endpoint || self.envoy.given_up.contains(&name);
            let may_come_again = self.carries_all(resource_type) || (!self.is_delta() && self.broke);
            if !self.refuses && !excused && !may_come_again {
                assert!(!again, "{resource_type:?} {name} sent twice");
            }
            match resource_type {
                // Envoy takes no notice of a cluster that is as before.
                Cluster if again && !self.is_delta() => {}
                Cluster => drop(self.envoy.warming.insert(name)),
                Endpoint => drop(self.envoy.warming.remove(&name)),
                _ => {}
            }
        }
        let carried: BTreeSet<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
        let removed: Vec<String> = if self.is_delta() {
            response.removed.iter().map(ToString::to_string).collect()
        } else if self.carries_all(resource_type) {
            self.envoy.held[&resource_type].keys().filter(|name| !carried.contains(name.as_str())).cloned().collect()
        } else {
            Vec::new()
        };
        for name in removed {
            self.envoy.held.entry(resource_type).or_default().remove(&name);
            self.envoy.warming.remove(&name);
        }
        if bad && resource_type == Endpoint {
            // A refusal ends the wait too.
            response.resources.iter().for_each(|resource| {
                let _ = self.envoy.warming.remove(resource.name.as_str());
            });
        }
        self.envoy.nonces.insert(resource_type, response.nonce.to_string());
        if !bad {
            self.envoy.versions.insert(resource_type, response.version.to_string());
            self.envoy.doubtful.remove(&resource_type);
        } else if self.carries_all(resource_type) {
            self.envoy.doubtful.insert(resource_type);
        }
        self.ask_for_what_is_named();
        let answer = DeltaRequest {
            type_url: resource_type.type_url().to_owned(),
            nonce: response.nonce.to_string(),
            error: bad.then(|| self.words(&response)),
            ..DeltaRequest::default()
        };
        let state = StateRequest { error: answer.error.clone(), ..self.state_request(resource_type) };
        let answer = if self.is_delta() { Request::Delta(answer) } else { Request::State(state) };
        if resource_type == Cluster && !bad {
            self.envoy.unacknowledged = Some(response.nonce);
        } else {
            self.envoy.outbox.entry(resource_type).or_default().push_back(answer);
        }
        if self.envoy.warming.is_empty() && std::mem::take(&mut self.envoy.is_deferred) {
            let request = self.first_request(Cluster);
            self.envoy.outbox.entry(Cluster).or_default().push_back(request);
        }
        if self.envoy.warming.is_empty()
            && let Some(nonce) = self.envoy.unacknowledged.take()
        {
            let type_url = Cluster.type_url().to_owned();
            let acknowledgement = DeltaRequest { type_url, nonce: nonce.to_string(), ..DeltaRequest::default() };
            let state = self.state_request(Cluster);
            let acknowledgement = if self.is_delta() { Request::Delta(acknowledgement) } else { Request::State(state) };
            self.envoy.outbox.entry(Cluster).or_default().push_back(acknowledgement);
        }
        self.check_references();
        true
    }

    /// What the client says of a response that it refuses.
    fn words(&self, response: &Response) -> String {
        let bad = response.resources.iter().filter(|resource| is_bad(resource.version.as_str()));
        let named = |separator: &str| bad.map(|r| format!("{}: bad", r.name)).collect::<Vec<_>>().join(separator);
        match response.resource_type {
            Cluster if self.names_them => format!("Error adding/updating cluster(s) {}", named(", ")),
            Listener if self.names_them => format!("Error adding/updating listener(s) {}\n", named("\n")),
            _ => "bad".to_owned(),
        }
    }

    /// Subscribes to the endpoints of clusters and the routes of listeners, and drops what nobody names any more.
    fn ask_for_what_is_named(&mut self) {
        let held = |resource_type| self.envoy.held.get(&resource_type).cloned().unwrap_or_default();
        let clusters: BTreeSet<String> = held(Cluster).into_keys().collect();
        let routes: BTreeSet<String> = held(Listener).values().map(|version| target(version).to_owned()).collect();
        for (resource_type, wanted) in [(Endpoint, clusters), (Route, routes)] {
            let asked = self.envoy.asked.insert(resource_type, wanted.clone()).unwrap_or_default();
            let subscribe: Vec<Name> = wanted.difference(&asked).map(Name::from).collect();
            self.envoy.given_up.extend(asked.difference(&wanted).cloned());
            let unsubscribe: Vec<Name> = asked.difference(&wanted).map(Name::from).collect();
            self.envoy.held.entry(resource_type).or_default().retain(|name, _| wanted.contains(name));
            if subscribe.is_empty() && unsubscribe.is_empty() {
                continue;
            }
            let type_url = resource_type.type_url().to_owned();
            let request = DeltaRequest { type_url, subscribe, unsubscribe, ..DeltaRequest::default() };
            let state = self.state_request(resource_type);
            let request = if self.is_delta() { Request::Delta(request) } else { Request::State(state) };
            self.envoy.outbox.entry(resource_type).or_default().push_back(request);
        }
    }

    /// Make before break, as traffic sees it.
    fn check_references(&self) {
        if self.refuses || (!self.is_delta() && self.broke) {
            return;
        }
        for (route, version) in &self.envoy.held[&Route] {
            let cluster = target(version);
            assert!(self.envoy.held[&Cluster].contains_key(cluster), "{route} leads to {cluster}, which isn't there");
        }
    }

    /// Lets everything arrive that is on its way, and time pass until nothing waits.
    fn rest(&mut self) {
        loop {
            let received = self.receive();
            let flushed = TYPES.into_iter().filter(|resource_type| self.flush(*resource_type)).count();
            if received || flushed > 0 {
                continue;
            }
            let Some(deadline) = self.session.next_deadline(self.now) else { break };
            assert!(deadline > self.now, "a deadline that has passed");
            assert!(deadline < Duration::from_secs(3600), "time passes and nothing happens");
            self.now = deadline;
            let outputs = self.session.tick(self.now);
            self.transmit(outputs);
        }
    }

    fn check_at_rest(&mut self) {
        let snapshot = self.world.snapshot();
        let waits = self.envoy.unacknowledged.is_some() || self.envoy.is_deferred;
        assert!(!waits, "clusters {:?} wait for endpoints", self.envoy.warming);
        for resource_type in TYPES {
            let asked = &self.envoy.asked[&resource_type];
            let held = &self.envoy.held[&resource_type];
            for (name, resource) in snapshot.resources(resource_type).iter() {
                let wanted = resource_type.has_wildcard() || asked.contains(name.as_str());
                if wanted && !(self.refuses && is_bad(resource.version.as_str())) {
                    assert_eq!(held.get(name.as_str()).map(String::as_str), Some(resource.version.as_str()), "{name}");
                }
            }
            // What a refused content would have replaced may stay, with what it uses.
            if !self.refuses {
                for name in held.keys() {
                    assert!(snapshot.get(resource_type, name).is_some(), "{resource_type:?} {name} should be gone");
                }
            }
        }
        let again = self.session.snapshot(self.now, snapshot);
        let later = self.session.tick(self.now + Duration::from_secs(100_000));
        let silent = |outputs: &[Output]| !outputs.iter().any(|output| matches!(output, Output::Respond(_)));
        assert!(silent(&again) && silent(&later), "a response without a cause: {again:?} {later:?}");
    }
}

fn run(variant: Variant, refuses: bool, steps: &[Step]) {
    play(Model::new(variant, refuses), steps);
}

/// The client says which clusters and listeners it refuses.
fn run_named(variant: Variant, steps: &[Step]) {
    play(Model { names_them: true, ..Model::new(variant, true) }, steps);
}

fn play(mut model: Model, steps: &[Step]) {
    for step in steps {
        model.step(step);
    }
    model.rest();
    model.check_at_rest();
    // And whatever happened, it works on.
    model.reset();
    model.rest();
    model.check_at_rest();
}

proptest! {
    // A failing script is worth a test of its own, with a name; seeds would pile up in the root.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_willing_client_ends_up_with_the_snapshot(steps in prop::collection::vec(step(), 0..150)) {
        run(Variant::Delta, false, &steps);
    }

    #[test]
    fn a_client_that_refuses_ends_up_with_all_the_rest(steps in prop::collection::vec(step(), 0..150)) {
        run(Variant::Delta, true, &steps);
    }

    #[test]
    fn a_client_that_names_what_it_refuses_ends_up_with_all_the_rest(steps in prop::collection::vec(step(), 0..150)) {
        run_named(Variant::Delta, &steps);
        run_named(Variant::StateOfTheWorld, &steps);
    }

    #[test]
    fn state_of_the_world_ends_up_with_the_snapshot(steps in prop::collection::vec(step(), 0..150)) {
        run(Variant::StateOfTheWorld, false, &steps);
    }

    #[test]
    fn state_of_the_world_on_one_connection(mut steps in prop::collection::vec(step(), 0..150)) {
        steps.retain(|step| !matches!(step, Step::Reset));
        run(Variant::StateOfTheWorld, false, &steps);
    }

    #[test]
    fn state_of_the_world_that_refuses_ends_up_with_all_the_rest(steps in prop::collection::vec(step(), 0..150)) {
        run(Variant::StateOfTheWorld, true, &steps);
    }
}

/// Steps as words: `c0` and `e0` change cluster 0 and its endpoints, `r0>1` and `l0>1` lead elsewhere, `-l0` goes, `.` is
/// a response received, `f0` a type flushed and `!` a connection that breaks.
fn script(text: &str) -> Vec<Step> {
    let step = |word: &str| {
        let number = |at: usize| word.as_bytes()[at] - b'0';
        match word.as_bytes()[0] {
            b'c' => Step::Cluster(number(1)),
            b'e' => Step::Endpoints(number(1)),
            b'r' => Step::Route(number(1), number(3)),
            b'l' => Step::Listener(number(1), number(3)),
            b'-' => Step::Unlisten(number(2)),
            b'.' => Step::Receive,
            b'f' => Step::Flush(number(1)),
            b'!' => Step::Reset,
            _ => panic!("{word}"),
        }
    };
    text.split_whitespace().map(step).collect()
}

/// A cluster that the client may have taken goes, with its endpoints, while another of the same response is refused: it is
/// carried on in the version before, and Envoy waits for its endpoints once more (case 24).
#[test]
fn a_cluster_that_is_carried_on_in_another_version_has_its_endpoints_sent() {
    for steps in [
        "c0 c0 c2 l0>0 . f0 r1>2 . . l0>0 f1 l0>0 l1>1 c0 . f1 f0 r0>1",
        "c0 c0 c0 e0 c1 . l0>3 . c2 r2>3 c0 f0 . f1 l1>2 c0 c0 c3 . f0 r2>1 -l0 f1",
    ] {
        run_named(Variant::StateOfTheWorld, &script(steps));
    }
}

/// The same, and by the time that its endpoints may be sent it is there again.
#[test]
fn a_cluster_that_is_carried_on_and_comes_back_has_its_endpoints_sent() {
    let steps = "c0 r3>2 c3 c0 r0>3 c0 c0 e0 e0 l0>0 c0 l0>3 c1 . c0 c0 . f0 . c0 f1 l3>0 c1 c2 . c0 f0 f1 c0 r0>0 r3>0 . \
                 c0 l0>1 f0 r0>2";
    run(Variant::StateOfTheWorld, true, &script(steps));
}
