//! Refusals from end to end, without a network: manifests, the compile loop, real sessions, and Envoys that refuse.

use std::collections::BTreeMap;

use super::*;
use crate::app::refusals::{Shared, Witness};
use crate::model::Approval;
use crate::snapshot::Resource;
use crate::status::view::Standing;
use crate::testing::{cluster_of, yaml};
use crate::xds::message::{DeltaRequest, Variant};
use crate::xds::node::EnvoyVersion;
use crate::xds::observation::{Blame, Observation, Observer, Peer, Refusal, RefusedResource, StreamId};
use crate::xds::session::{Output, Session, SessionSettings};

mod cut;
mod exchanged;
mod leaving;
mod releases;
mod tokens;
mod unfit;

/// One workspace with a gateway, two Services, and two teams with a host each. `SHOP` and `TEAM` are their routes.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}, {name: shop}, {name: team}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: team}
spec: {selector: {app: old}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: new, namespace: team}
spec: {selector: {app: new}, ports: [{port: 80}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: edge}]
  http: [{name: front, matchers: [{uri: {prefix: SHOP}}], directResponse: {status: 200}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: team, namespace: team}
spec:
  hosts: [team.example]
  virtualGateways: [{name: web, namespace: edge}]
  http:
    - {name: fixed, matchers: [{uri: {prefix: /fixed}}], directResponse: {status: 200}}
    - {name: back, matchers: [{uri: {prefix: TEAM}}], forwardTo: {destinations: [{ref: {name: SERVICE, namespace: team}, port: {number: 80}}]}}
";

const GATEWAY: &str = "cluster-1/edge/web";
const OLD: &str = "svc/cluster-1/team/old/80";
const NEW: &str = "svc/cluster-1/team/new/80";
const ROUTES: &str = "route/8080";
const WORDS: &str = "Proto constraint validation failed: \"poison\"";

/// What is edited: the path of `shop`, the path of `team`, and where that one leads.
type Paths<'a> = (&'a str, &'a str, &'a str);

const GOOD: Paths<'_> = ("/a", "/b", "old");
const BAD: Paths<'_> = ("/a", "/poison", "new");

/// The program without its edges.
struct World {
    compiler: CompileLoop,
    publisher: Arc<Publisher>,
    state: State,
    ledger: Arc<Ledger>,
    witness: Witness,
    inbox: std_mpsc::Receiver<Event>,
}

fn world(first: Paths<'_>) -> World {
    world_after(Document::default(), first)
}

/// The program as it starts with what an earlier run kept of refusals.
fn world_after(kept: Document, first: Paths<'_>) -> World {
    let (publisher, ledger) = (Arc::new(Publisher::new()), Arc::new(Ledger::new()));
    let shared = Arc::new(Shared::of_earlier_run(kept));
    let ((sender, state), (events, inbox)) = (watch::channel(None), std_mpsc::channel());
    let told = (ledger.clone(), shared.clone());
    let options = Options { management_cluster: "mgmt".into(), ..Options::default() };
    let mut compiler =
        CompileLoop::new(options, publisher.clone(), sender, Places::default(), Memory::of_this_run(), told);
    compiler.step(std::iter::once(batch(first)));
    let witness = Witness { ledger: ledger.clone(), shared, events };
    World { compiler, publisher, state, ledger, witness, inbox }
}

/// Everything, with these paths.
fn batch((shop, team, service): Paths<'_>) -> Event {
    batch_of(&WORLD.replace("SHOP", shop).replace("TEAM", team).replace("SERVICE", service))
}

/// Everything, as it is written.
fn batch_of(text: &str) -> Event {
    let manifests = yaml::documents(text).expect("YAML").into_iter();
    let (objects, findings) = decode(manifests.map(|manifest| (cluster_of(&manifest), manifest)));
    assert_eq!(findings, []);
    Event::Source(Batch { extent: Extent::Complete, changes: objects.into_iter().map(Change::Put).collect(), findings })
}

impl World {
    fn edit(&mut self, paths: Paths<'_>) {
        self.compiler.step(std::iter::once(batch(paths)));
    }

    /// Lets Envoys and compiler work until nothing happens any more.
    fn settle(&mut self, envoys: &mut [&mut Envoy]) {
        loop {
            let mut moved = false;
            for envoy in envoys.iter_mut() {
                moved |= envoy.work(&self.witness);
            }
            let events: Vec<Event> = self.inbox.try_iter().collect();
            if !events.is_empty() {
                self.compiler.step(events.into_iter());
            } else if !moved {
                return;
            }
        }
    }

    /// Connects an Envoy of a minor release.
    fn connect(&mut self, id: u64, minor: u32, refuses: &'static str) -> Envoy {
        self.connect_as(id, web(id, minor), refuses)
    }

    /// Connects an Envoy that states all this.
    fn connect_as(&mut self, id: u64, node: Node, refuses: &'static str) -> Envoy {
        let mut envoy = self.begin(id, node, refuses);
        self.settle(&mut [&mut envoy]);
        envoy
    }

    /// An Envoy that is connected and has said nothing.
    fn begin(&mut self, id: u64, node: Node, refuses: &'static str) -> Envoy {
        let key = crate::app::refusals::key(GATEWAY.parse().unwrap(), &node);
        let labels = super::asker(node.labels.clone());
        let peer = Arc::new(Peer { stream: StreamId(id), gateway: GATEWAY.into(), node: Arc::new(node) });
        self.witness.observe(Observation::Connected(peer.clone()));
        let mut snapshots = self.publisher.subscribe(&key);
        snapshots.mark_changed();
        let envoy = Envoy {
            peer,
            snapshots,
            session: Session::new(SessionSettings::default(), Variant::Delta),
            now: Duration::ZERO,
            _labels: labels.clone(),
            refuses,
            words: WORDS,
            only: None,
            holds: BTreeMap::new(),
            pushes: Vec::new(),
            asks: ResourceType::ALL
                .map(|resource_type| DeltaRequest {
                    type_url: resource_type.type_url().to_owned(),
                    subscribe: vec!["*".into()],
                    ..DeltaRequest::default()
                })
                .into(),
        };
        self.compiler.step(std::iter::once(Event::Gateway(key, labels)));
        envoy
    }

    /// An Envoy goes.
    fn disconnect(&mut self, envoy: Envoy) {
        let Envoy { peer, snapshots, _labels: labels, .. } = envoy;
        drop((snapshots, labels));
        self.witness.observe(Observation::Disconnected(peer));
        self.settle(&mut []);
    }

    fn approval(&self, table: &str) -> Approval {
        self.verdict(table).0
    }

    fn verdict(&self, table: &str) -> (Approval, String) {
        let state = self.state.borrow();
        let id: ObjectRef = format!("RouteTable/{table}/{table}@cluster-1").parse().unwrap();
        let verdict = &state.as_ref().expect("compiled").verdicts[&id];
        (verdict.approval, verdict.message.clone())
    }

    /// Whether something was compiled since this was asked last.
    fn compiled(&mut self) -> bool {
        let compiled = self.state.has_changed().unwrap();
        self.state.mark_unchanged();
        compiled
    }
}

/// A node of the gateway.
fn web(id: u64, minor: u32) -> Node {
    let version = Some(EnvoyVersion { major: 1, minor, patch: 0 });
    Node { id: format!("envoy-{id}").into(), version, ..node("cluster-1", "edge", None, &[("app", "web")]) }
}

/// A client that takes everything but resources whose bytes hold some text.
struct Envoy {
    peer: Arc<Peer>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    session: Session,
    now: Duration,
    _labels: Arc<Asker>,
    refuses: &'static str,
    /// What it says then.
    words: &'static str,
    /// Of which type it refuses; of all, if none.
    only: Option<ResourceType>,
    holds: BTreeMap<(ResourceType, Name), String>,
    /// Responses with resources, by type.
    pushes: Vec<ResourceType>,
    asks: Vec<DeltaRequest>,
}

impl Envoy {
    /// Takes what has come; whether anything has.
    fn work(&mut self, witness: &Witness) -> bool {
        let mut moved = false;
        let is_new = self.snapshots.has_changed().unwrap();
        let snapshot = self.snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot.filter(|_| is_new) {
            moved = true;
            let outputs = self.session.snapshot(self.now, snapshot);
            self.take(outputs, witness);
        }
        while let Some(ask) = self.asks.pop() {
            moved = true;
            let outputs = self.session.request(self.now, &ask).expect("a request");
            self.take(outputs, witness);
        }
        if !moved && let Some(deadline) = self.session.next_deadline(self.now) {
            self.now = deadline;
            moved = true;
            let outputs = self.session.tick(self.now);
            self.take(outputs, witness);
        }
        moved
    }

    fn take(&mut self, outputs: Vec<Output>, witness: &Witness) {
        let peer = self.peer.clone();
        for output in outputs {
            match output {
                Output::Acknowledged(held) => witness.observe(Observation::Acknowledged(peer.clone(), held)),
                Output::Refused(refusal) => witness.observe(Observation::Refused(peer.clone(), refusal)),
                Output::Ignored(ignored) => panic!("{ignored:?}"),
                Output::Stuck(waited) => panic!("stuck for {waited:?}"),
                Output::Respond(response) => {
                    let resource_type = response.resource_type;
                    if !response.resources.is_empty() {
                        self.pushes.push(resource_type);
                    }
                    let is_picky = !self.refuses.is_empty() && self.only.is_none_or(|only| only == resource_type);
                    let bad = response
                        .resources
                        .iter()
                        .find(|resource| is_picky && String::from_utf8_lossy(&resource.body).contains(self.refuses));
                    self.asks.push(DeltaRequest {
                        type_url: resource_type.type_url().to_owned(),
                        nonce: response.nonce.to_string(),
                        error: bad.map(|_| self.words.to_owned()),
                        ..DeltaRequest::default()
                    });
                    if bad.is_none() {
                        for name in response.removed {
                            self.holds.remove(&(resource_type, name));
                        }
                        for resource in response.resources {
                            let text = String::from_utf8_lossy(&resource.body).into_owned();
                            self.holds.insert((resource_type, resource.name.clone()), text);
                        }
                    }
                }
            }
        }
    }

    fn holds(&self, resource_type: ResourceType, name: &str) -> bool {
        self.holds.contains_key(&(resource_type, name.into()))
    }

    /// The path of the team's route, as far as the Envoy knows it.
    fn routes_hold(&self, text: &str) -> bool {
        self.holds.get(&(ResourceType::Route, ROUTES.into())).is_some_and(|routes| routes.contains(text))
    }

    fn route_pushes(&self) -> usize {
        self.pushes.iter().filter(|resource_type| **resource_type == ResourceType::Route).count()
    }
}

#[test]
fn case_8_r132_a_refusal_reaches_its_author_and_the_fix_lands_once() {
    let mut world = world(GOOD);
    let mut envoy = world.connect(1, 40, "poison");
    assert_eq!((envoy.route_pushes(), world.approval("team")), (1, Approval::Accepted));
    assert!(envoy.routes_hold("/b"));

    world.edit(BAD);
    world.settle(&mut [&mut envoy]);
    let (approval, message) = world.verdict("team");
    assert_eq!(approval, Approval::Failed, "{message}");
    for part in [
        "REFUSED_BY_GATEWAY",
        "1 Envoy of gateway `cluster-1/edge/web` (\"envoy-1\") refused `route/8080` as made for Envoy 1.40",
        "the last accepted version stays in force",
        "Envoy says: \"Proto constraint validation failed: \\\"poison\\\"\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(world.verdict("shop"), (Approval::Accepted, String::new()), "it changed nothing, so it is not to blame");
    assert!(envoy.routes_hold("/b") && envoy.holds(ResourceType::Cluster, OLD));
    assert!(envoy.holds(ResourceType::Cluster, NEW), "everything else of the edit has landed");
    assert_eq!(envoy.route_pushes(), 2, "what was refused isn't sent again");

    world.edit(("/a", "/fine", "new"));
    world.settle(&mut [&mut envoy]);
    assert_eq!(world.verdict("team"), (Approval::Accepted, String::new()));
    assert_eq!(envoy.route_pushes(), 3, "one push");
    assert!(envoy.routes_hold("/fine") && !envoy.holds(ResourceType::Cluster, OLD));
    let view = world.ledger.view();
    let (.., stream) = view.streams().next().unwrap();
    assert!(stream.types[&ResourceType::Route].refusals.is_empty());
}

#[test]
fn a_gateway_that_connects_after_a_refusal_gets_what_works() {
    let mut world = world(GOOD);
    let mut first = world.connect(1, 40, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut first]);
    let second = world.connect(2, 40, "poison");
    assert!(second.routes_hold("/b"), "the last accepted version");
    assert!(second.holds(ResourceType::Cluster, OLD), "and the cluster that only it uses");
    assert!(second.holds(ResourceType::Endpoint, OLD));
    assert_eq!(second.route_pushes(), 1, "it never sees what was refused");
    assert_eq!(world.approval("team"), Approval::Failed, "which is not forgotten");

    // The status shows both as up to date with what is served.
    let view = world.ledger.view();
    let served = world.publisher.current(&key(40)).expect("a snapshot");
    let (routes, version) = (served.resources(ResourceType::Route), served.type_version(ResourceType::Route));
    for (.., stream) in view.streams() {
        let routes = stream.types[&ResourceType::Route].standing(&routes, &version, ROUTES);
        assert_eq!(routes, Standing::Current);
    }
}

fn key(minor: u32) -> GatewayKey {
    let envoy = EnvoyRelease::serving(Some((1, minor)));
    GatewayKey { gateway: GATEWAY.parse().unwrap(), bind: "0.0.0.0".into(), envoy }
}

#[test]
fn an_old_envoy_that_refuses_holds_no_new_one_back() {
    let mut world = world(GOOD);
    let (mut old, mut new) = (world.connect(1, 36, "poison"), world.connect(2, 40, ""));
    world.edit(BAD);
    world.settle(&mut [&mut old, &mut new]);
    assert!(old.routes_hold("/b") && new.routes_hold("/poison"));
    let (approval, message) = world.verdict("team");
    assert_eq!(approval, Approval::Failed);
    assert!(message.contains("1 Envoy of gateway") && message.contains("as made for Envoy 1.36"), "{message}");
}

#[test]
fn without_an_accepted_version_every_owner_is_told() {
    let mut world = world(BAD);
    let envoy = world.connect(1, 40, "poison");
    assert!(!envoy.holds(ResourceType::Route, ROUTES) && envoy.holds(ResourceType::Cluster, NEW));
    for table in ["shop", "team"] {
        let (approval, message) = world.verdict(table);
        assert_eq!(approval, Approval::Failed, "{table}");
        assert!(message.contains("no accepted version of it is known"), "{message}");
    }
}

#[test]
fn after_a_restart_that_kept_its_state_a_gateway_is_not_sent_what_others_refused() {
    let mut before = world(GOOD);
    let mut envoy = before.connect(1, 40, "poison");
    before.edit(BAD);
    before.settle(&mut [&mut envoy]);
    let kept = refused(&before.compiler.emitted, &before.compiler.refusals);

    let mut after = world_after(kept, BAD);
    let late = after.connect(2, 40, "poison");
    assert!(late.routes_hold("/b") && late.holds(ResourceType::Cluster, OLD), "what was accepted before the restart");
    assert_eq!(late.pushes.iter().filter(|pushed| **pushed == ResourceType::Route).count(), 1, "{:?}", late.pushes);
    let (approval, message) = after.verdict("team");
    assert_eq!(approval, Approval::Failed);
    assert!(message.contains("poison"), "{message}");
    assert_ne!(after.approval("shop"), Approval::Failed);

    // Without state it refuses anew, which costs nobody else anything.
    let mut forgetful = world(BAD);
    let late = forgetful.connect(3, 40, "poison");
    assert!(!late.holds(ResourceType::Route, ROUTES));
}

#[test]
fn case_10_the_same_refusal_by_100_nodes_changes_the_status_once() {
    let mut world = world(GOOD);
    let mut envoys: Vec<Envoy> = (1..=100).map(|id| world.connect(id, 40, "poison")).collect();
    assert!(world.compiled());
    world.edit(BAD);
    assert!(world.compiled());
    // All of them refuse before the compile thread has looked.
    for envoy in &mut envoys {
        while envoy.work(&world.witness) {}
    }
    let events: Vec<Event> = world.inbox.try_iter().collect();
    assert_eq!(events.len(), 1, "one wakes it for all");
    world.compiler.step(events.into_iter());
    assert!(world.compiled());
    let (approval, message) = world.verdict("team");
    assert_eq!(approval, Approval::Failed);
    assert!(message.contains("100 Envoys or more") && message.len() < 600, "{message}");

    world.settle(&mut envoys.iter_mut().collect::<Vec<_>>());
    assert!(!world.compiled(), "nothing is left to do");
}

#[test]
fn case_11_words_of_any_length_and_kind_fit_into_a_status() {
    let mut world = world(GOOD);
    let envoy = world.connect(1, 40, "");
    let words = "\u{1b}[31m☃\n".repeat(500);
    let served = world.publisher.current(&key(40)).expect("a snapshot");
    let Resource { name, version, owners, .. } = (**served.get(ResourceType::Route, ROUTES).unwrap()).clone();
    let refusal = Refusal {
        resource_type: ResourceType::Route,
        nonce: "1".into(),
        resources: vec![RefusedResource { name, version, owners }],
        blame: Blame::Exact,
        message: words,
    };
    world.witness.observe(Observation::Refused(envoy.peer.clone(), refusal));
    world.settle(&mut []);
    let (approval, message) = world.verdict("team");
    assert_eq!(approval, Approval::Failed);
    assert!(message.len() < 2100 && !message.contains(char::is_control), "{message}");
    assert!(message.contains("Envoy says: \"\\u{1b}[31m☃"), "{message}");
}

#[test]
fn acknowledgements_compile_nothing() {
    let mut world = world(GOOD);
    let mut envoy = world.connect(1, 40, "poison");
    world.edit(("/c", "/d", "new"));
    assert!(world.compiled());
    world.settle(&mut [&mut envoy]);
    assert!(envoy.routes_hold("/d"));
    assert!(!world.compiled());
}

#[test]
fn what_was_refused_before_is_tried_again_with_every_edit_and_told_again() {
    let mut world = world(GOOD);
    let mut envoy = world.connect(1, 40, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut envoy]);
    // The other team edits the same port: its change waits with it, and both are told why.
    world.edit(("/elsewhere", "/poison", "new"));
    world.settle(&mut [&mut envoy]);
    assert_eq!((world.approval("team"), world.approval("shop")), (Approval::Failed, Approval::Failed));
    assert!(envoy.routes_hold("/b") && !envoy.routes_hold("/elsewhere"));
    assert_eq!(world.compiler.refusals.lock().iter().count(), 1, "of the bytes before nothing is kept");
    // Taken back: nothing is refused, and nothing has to be sent but what else changed.
    world.edit(("/elsewhere", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    assert_eq!((world.approval("team"), world.approval("shop")), (Approval::Accepted, Approval::Accepted));
    assert!(envoy.routes_hold("/elsewhere"));
}

#[test]
fn a_refused_cluster_keeps_its_last_accepted_version_and_blames_its_service() {
    let mut world = world(GOOD);
    let mut envoy = world.connect(1, 40, "svc/cluster-1/team/new");
    world.edit(("/a", "/b", "new"));
    world.settle(&mut [&mut envoy]);
    // The cluster is new, so nothing can stand in for it; its routes are not held back (F5).
    assert!(!envoy.holds(ResourceType::Cluster, NEW));
    let state = world.state.borrow();
    let refused: Vec<&Finding> =
        state.as_ref().unwrap().findings.iter().filter(|f| f.code == Code::RefusedByGateway).collect();
    let subjects: Vec<String> = refused.iter().filter_map(|f| f.subject.as_ref()).map(ToString::to_string).collect();
    assert!(subjects.contains(&"Service/team/new@cluster-1".to_owned()), "{subjects:?}");
}

#[test]
fn a_panic_while_compiling_leaves_gateways_what_they_have() {
    let mut world = world(GOOD);
    let mut envoy = world.connect(1, 40, "");
    world.compiler.compile = |_, _, _, _, _, _| panic!("a fault of ours");
    world.edit(("/a", "/lost", "old"));
    world.settle(&mut [&mut envoy]);
    assert!(envoy.routes_hold("/b"));
    let late = world.connect(2, 40, "");
    assert!(late.routes_hold("/b"), "those that connect meanwhile are served");

    // The next batch is about something else, and what was lost comes with it.
    world.compiler.compile = Compiler::step;
    world.compiler.step(std::iter::once(Event::Refused));
    world.settle(&mut [&mut envoy]);
    assert!(envoy.routes_hold("/lost"));
}
