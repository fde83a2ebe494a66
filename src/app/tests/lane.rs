//! The lane of endpoints against the compile thread: who is first, what waits, and that both come to the same.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Barrier;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::testing::{cluster_of, yaml};

/// A gateway, three Services of a team, one of them behind a virtual destination only, and a table that leads to all.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}, {name: team}]}]}
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
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: group, namespace: team}
spec: {hosts: [group.mesh], services: [{labels: {group: 'yes'}}], ports: [{number: 80, protocol: HTTP, targetPort: {number: 80}}]}
---
";

const SERVICES: [&str; 3] = ["a", "b", "c"];

const DESTINATIONS: [&str; 3] = [
    "{ref: {name: a, namespace: team}, port: {number: 80}}",
    "{ref: {name: b, namespace: team}, port: {number: 80}, subset: {version: v1}}",
    "{ref: {name: group, namespace: team}, kind: VIRTUAL_DESTINATION, port: {number: 80}}",
];

fn table(prefix: &str, destinations: &[&str]) -> String {
    let route = |(index, destination): (usize, &&str)| {
        format!(
            "{{name: r{index}, matchers: [{{uri: {{prefix: {prefix}{index}}}}}], forwardTo: {{destinations: [{destination}]}}}}"
        )
    };
    let routes: Vec<String> = destinations.iter().enumerate().map(route).collect();
    format!(
        "apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {{name: team, namespace: team}}
spec: {{hosts: [team.example], virtualGateways: [{{name: web, namespace: edge}}], http: [{}]}}",
        routes.join(", ")
    )
}

/// `c` is behind the virtual destination; the name of a port is what slices are found by.
fn service(name: &str, port: &str) -> String {
    let group = if name == "c" { "'yes'" } else { "'no'" };
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: team, labels: {{group: {group}}}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: {port}, port: 80}}]}}"
    )
}

/// A slice of a Service, with one endpoint, which is a Pod.
fn slice(name: &str, service: &str, address: u8) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: team, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.0.0.{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: pod-{service}, namespace: team}}}}]"
    )
}

fn pod(service: &str, version: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: pod-{service}, namespace: team, labels: {{app: {service}, version: {version}}}}}
status: {{podIP: 10.0.1.1, conditions: [{{type: Ready, status: 'True'}}]}}"
    )
}

/// Who may call Pods with a label: nobody but for GET.
fn policy(version: &str) -> String {
    format!(
        "apiVersion: security.policy.gloo.solo.io/v2
kind: AccessPolicy
metadata: {{name: guard, namespace: team}}
spec: {{applyToWorkloads: [{{selector: {{labels: {{version: {version}}}}}}}], config: {{authzList: [{{allowedMethods: [GET]}}]}}}}"
    )
}

fn objects_of(text: &str) -> Vec<Arc<Object>> {
    let manifests: Vec<Value> = yaml::documents(text).expect("YAML");
    let (objects, findings) = decode(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)));
    assert_eq!(findings, []);
    objects
}

fn puts(texts: &[String]) -> Vec<Change> {
    texts.iter().flat_map(|text| objects_of(text)).map(Change::Put).collect()
}

thread_local! {
    static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn clock() -> Instant {
    CLOCK.get().unwrap_or_else(Instant::now)
}

/// The program without its edges; batches wait until they are compiled.
struct World {
    compiler: CompileLoop,
    publisher: Arc<Publisher>,
    queue: VecDeque<Event>,
    key: GatewayKey,
    watched: watch::Receiver<Option<Arc<Snapshot>>>,
    labels: Arc<Asker>,
}

impl World {
    /// Everything there, and an Envoy that asks.
    fn new(more: &[String]) -> Self {
        let key = GatewayKey {
            gateway: "cluster-1/edge/web".parse().unwrap(),
            bind: "0.0.0.0".into(),
            envoy: EnvoyRelease::NEWEST,
        };
        let publisher = Arc::new(Publisher::new());
        let (memory, told) = (Memory::of_this_run(), (Arc::new(Ledger::new()), Arc::default()));
        let options = Options { management_cluster: "mgmt".into(), ..Options::default() };
        let state = watch::Sender::new(None);
        let mut compiler = CompileLoop::new(options, publisher.clone(), state, Places::default(), memory, told);
        compiler.now = clock;
        CLOCK.set(Some(Instant::now()));
        let watched = publisher.subscribe(&key);
        let labels = super::asker([("app".into(), "web".into())].into());
        let mut world =
            Self { compiler, publisher, queue: VecDeque::new(), key: key.clone(), watched, labels: labels.clone() };
        let mut texts = vec![WORLD.to_owned()];
        texts.extend(SERVICES.map(|name| service(name, "http")));
        texts.extend_from_slice(more);
        world.add(Extent::Complete, puts(&texts));
        world.queue.push_back(Event::Gateway(key, labels));
        world.compile();
        assert!(world.watched.borrow_and_update().is_some());
        world
    }

    /// The source has something new; whether the lane served all of it.
    fn add(&mut self, extent: Extent, changes: Vec<Change>) -> bool {
        let batch = Batch { extent, changes, findings: Findings::new() };
        let is_served = self.compiler.lane.take(&batch);
        self.queue.push_back(if is_served { Event::Endpoints(batch) } else { Event::Source(batch) });
        is_served
    }

    fn put(&mut self, texts: &[String]) -> bool {
        self.add(Extent::Changes, puts(texts))
    }

    /// The compile thread takes everything that came so far, but for what it puts off.
    fn compile(&mut self) {
        self.compiler.step(std::mem::take(&mut self.queue).into_iter());
    }

    /// Time goes by until nothing is put off.
    fn settle(&mut self) {
        self.compile();
        while self.compiler.put_off.due().is_some() {
            CLOCK.set(Some(clock() + Duration::from_secs(1)));
            self.compiler.step(std::iter::empty());
        }
    }

    fn served(&self) -> Arc<Snapshot> {
        self.publisher.current(&self.key).expect("published")
    }

    /// The addresses of a cluster, as text in its bytes.
    fn has(&self, cluster: &str, address: &str) -> bool {
        has(&self.served(), cluster, address)
    }
}

fn has(snapshot: &Snapshot, cluster: &str, address: &str) -> bool {
    let resource = snapshot.get(ResourceType::Endpoint, &format!("{cluster}/80")).expect("a cluster");
    resource.body.windows(address.len()).any(|window| window == address.as_bytes())
}

const A: &str = "svc/cluster-1/team/a";
const GROUP: &str = "vd/cluster-1/team/group";

static GATE: Barrier = Barrier::new(2);

/// A step that takes until somebody lets it go on.
fn long_step(
    compiler: &mut Compiler,
    store: &Store,
    given: &[Finding],
    options: &Options,
    wanted: &BTreeSet<GatewayId>,
    remembered: &Arc<Remembered>,
) -> Compiled {
    GATE.wait();
    GATE.wait();
    compiler.step(store, given, options, wanted, remembered)
}

#[test]
fn endpoints_are_served_while_a_long_step_runs() {
    let mut world = World::new(&[table("/x", &DESTINATIONS)]);
    let lane = world.compiler.lane.clone();
    world.compiler.compile = long_step;
    world.put(&[table("/y", &DESTINATIONS)]);
    let (mut compiler, queue) = (world.compiler, std::mem::take(&mut world.queue));
    let batch = |text| Batch { extent: Extent::Changes, changes: puts(&[text]), findings: Findings::new() };
    let during = batch(slice("one", "a", 7));
    let routes = |snapshot: &Snapshot| snapshot.type_version(ResourceType::Route);
    let before = routes(&world.publisher.current(&world.key).unwrap());
    let compiler = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            compiler.step(queue.into_iter());
            compiler
        });
        GATE.wait();
        assert!(lane.take(&during), "nothing of it has to wait");
        let served = world.watched.borrow_and_update().clone().expect("published");
        assert!(has(&served, A, "10.0.0.7") && routes(&served) == before);
        GATE.wait();
        thread.join().expect("a compile thread")
    });
    // The step knew nothing of them, and does not take them back.
    let served = world.watched.borrow_and_update().clone().expect("published");
    assert!(has(&served, A, "10.0.0.7") && routes(&served) != before);
    world.compiler = compiler;
    world.compiler.compile = Compiler::step;
    world.queue.push_back(Event::Endpoints(during));
    world.settle();
    assert!(!world.watched.has_changed().unwrap(), "compiling them makes no difference");
}

#[test]
fn slices_are_found_behind_a_virtual_destination_and_where_they_went() {
    let mut world = World::new(&[table("/x", &DESTINATIONS), slice("one", "a", 1)]);
    assert!(world.put(&[slice("two", "c", 2)]));
    assert!(world.has(GROUP, "10.0.0.2"));
    // A slice that changes its Service leaves the one and comes to the other.
    assert!(world.put(&[slice("one", "c", 1)]));
    assert!(world.has(GROUP, "10.0.0.1") && !world.has(A, "10.0.0.1"));
    let id = objects_of(&slice("two", "c", 2))[0].meta.id.clone();
    assert!(world.add(Extent::Changes, vec![Change::Delete(id)]));
    assert!(!world.has(GROUP, "10.0.0.2"));
    let served = world.served();
    world.settle();
    assert!(Arc::ptr_eq(&served, &world.served()));
}

#[test]
fn many_edits_of_one_slice_are_compiled_once_and_the_last_counts() {
    let mut world = World::new(&[table("/x", &DESTINATIONS)]);
    let compiled = world.compiler.state.subscribe();
    for address in 1..=200 {
        assert!(world.put(&[slice("one", "a", address)]));
        world.compile();
    }
    assert!(!compiled.has_changed().unwrap(), "the lane serves them, the compile waits");
    assert!(world.has(A, "10.0.0.200") && !world.has(A, "10.0.0.199"));
    world.settle();
    assert!(compiled.has_changed().unwrap() && world.has(A, "10.0.0.200"));
    let store = &world.compiler.store;
    let id = objects_of(&slice("one", "a", 200))[0].meta.id.clone();
    assert_eq!(store.get(&id), Some(&objects_of(&slice("one", "a", 200))[0]));
}

#[test]
fn a_slice_that_was_served_and_moves_with_something_else_leaves_nothing_behind() {
    let mut world = World::new(&[table("/x", &DESTINATIONS)]);
    assert!(world.put(&[slice("one", "a", 1)]));
    assert!(world.put(&[slice("two", "a", 2)]));
    assert!(!world.put(&[slice("one", "b", 1), pod("b", "v2")]));
    world.compile();
    assert!(world.has(A, "10.0.0.2") && !world.has(A, "10.0.0.1"));
}

#[test]
fn what_belongs_together_waits_for_the_compile() {
    for (why, first, together) in [
        ("slices come with a table", vec![], vec![slice("one", "a", 1), table("/y", &DESTINATIONS)]),
        ("their Service is not compiled yet", vec![service("a", "other")], vec![slice("one", "a", 1)]),
        ("other slices of it wait", vec![slice("two", "a", 2), table("/y", &DESTINATIONS)], vec![slice("one", "a", 1)]),
    ] {
        let mut world = World::new(&[table("/x", &DESTINATIONS)]);
        let before = world.served();
        if !first.is_empty() {
            assert!(!world.put(&first), "{why}");
        }
        assert!(!world.put(&together), "{why}");
        assert!(Arc::ptr_eq(&before, &world.served()), "{why}");
        world.settle();
        assert_eq!(world.has(A, "10.0.0.1"), why != "their Service is not compiled yet", "{why}");
        // Then nothing waits any more.
        assert!(world.put(&[slice("three", "a", 3)]), "{why}");
    }
}

/// R130: what a policy protects is not reached before the policy is there.
#[test]
fn r130_no_endpoint_comes_before_the_policy_that_guards_it() {
    // The policy is compiled, and the Pod that it selects comes with a slice.
    let mut world = World::new(&[table("/x", &DESTINATIONS), policy("v2")]);
    assert!(!world.put(&[pod("a", "v2")]));
    assert!(!world.put(&[slice("one", "a", 1)]));
    assert!(!world.has(A, "10.0.0.1"));
    world.settle();
    assert!(world.has(A, "10.0.0.1"));
    // The Pod is there, and the policy is not compiled yet.
    let mut world = World::new(&[table("/x", &DESTINATIONS), pod("a", "v2")]);
    assert!(!world.put(&[policy("v2")]));
    assert!(!world.put(&[slice("one", "a", 1)]));
    assert!(!world.has(A, "10.0.0.1"));
    world.settle();
    assert!(world.has(A, "10.0.0.1"));
}

#[test]
fn nothing_is_served_between_two_complete_lists() {
    let mut world = World::new(&[table("/x", &DESTINATIONS), slice("one", "a", 1)]);
    let texts: Vec<String> = [WORLD.to_owned(), table("/x", &DESTINATIONS)]
        .into_iter()
        .chain(SERVICES.map(|name| service(name, "http")))
        .collect();
    assert!(world.put(&[slice("two", "a", 2)]));
    assert!(!world.add(Extent::Complete, puts(&texts)));
    assert!(!world.put(&[slice("three", "a", 3)]), "what it would come beside is not known yet");
    world.settle();
    assert!(world.has(A, "10.0.0.3") && !world.has(A, "10.0.0.1") && !world.has(A, "10.0.0.2"));
}

#[test]
fn keys_that_are_gone_do_not_come_back() {
    let mut world = World::new(&[table("/x", &DESTINATIONS)]);
    world.publisher.remove(&world.key);
    world.put(&[slice("one", "a", 1)]);
    assert_eq!(world.publisher.keys(), []);
}

/// A change in a random script.
#[derive(Clone, Debug)]
enum Edit {
    Slice(usize, usize, u8),
    NoSlice(usize),
    Pod(usize, bool),
    Table(bool, usize),
    Service(usize, bool),
    Policy(bool),
}

impl Edit {
    fn change(&self) -> Change {
        let put = |text: &str| Change::Put(objects_of(text).remove(0));
        match self {
            Self::Slice(name, service, address) => put(&slice(&format!("s{name}"), SERVICES[*service], *address)),
            Self::NoSlice(name) => Change::Delete(objects_of(&slice(&format!("s{name}"), "a", 1))[0].meta.id.clone()),
            Self::Pod(service, is_first) => put(&pod(SERVICES[*service], if *is_first { "v1" } else { "v2" })),
            Self::Table(is_first, destinations) => {
                put(&table(if *is_first { "/x" } else { "/y" }, &DESTINATIONS[..*destinations]))
            }
            Self::Service(service, is_plain) => {
                let text =
                    crate::app::tests::lane::service(SERVICES[*service], if *is_plain { "http" } else { "other" });
                put(&text)
            }
            Self::Policy(is_first) => put(&policy(if *is_first { "v1" } else { "v2" })),
        }
    }
}

fn slices() -> impl Strategy<Value = Edit> {
    prop_oneof![4 => (0..4_usize, 0..3_usize, 1..6_u8).prop_map(|(a, b, c)| Edit::Slice(a, b, c)), 1 => (0..4_usize).prop_map(Edit::NoSlice)]
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => slices(),
        1 => (0..3_usize, any::<bool>()).prop_map(|(a, b)| Edit::Pod(a, b)),
        2 => (any::<bool>(), 0..=3_usize).prop_map(|(a, b)| Edit::Table(a, b)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(a, b)| Edit::Service(a, b)),
        1 => any::<bool>().prop_map(Edit::Policy),
    ]
}

/// A step of a script: a batch, or none and the compile thread works, for so long.
fn steps() -> impl Strategy<Value = Vec<(Vec<Edit>, u8)>> {
    let batch = prop_oneof![
        3 => prop::collection::vec(slices(), 1..3),
        2 => prop::collection::vec(edits(), 1..3),
        2 => Just(Vec::new()),
    ];
    prop::collection::vec((batch, 0..3_u8), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever is first, both end in the bytes that compiling everything comes to; and where the lane says that it serves
    /// all, endpoints are at once what they would be then.
    #[test]
    fn the_lane_and_the_compile_come_to_the_same(script in steps()) {
        let mut world = World::new(&[table("/x", &DESTINATIONS), policy("v1")]);
        let mut all = world.compiler.store.clone();
        let mut is_ahead_of_nothing = true;
        for (edits, pause) in script {
            if edits.is_empty() {
                CLOCK.set(Some(clock() + Duration::from_millis(15 * u64::from(pause))));
                world.compile();
                is_ahead_of_nothing = true;
                continue;
            }
            let mut changes: BTreeMap<ObjectRef, Change> = BTreeMap::new();
            for change in edits.iter().map(Edit::change) {
                changes.insert(change.id().clone(), change);
            }
            let changes: Vec<Change> = changes.into_values().collect();
            all.apply(changes.clone());
            is_ahead_of_nothing &= world.add(Extent::Changes, changes);
            if is_ahead_of_nothing {
                let expected = afresh(&all);
                prop_assert_eq!(
                    world.served().resources(ResourceType::Endpoint), expected.resources(ResourceType::Endpoint)
                );
            }
            prop_assert_eq!(crate::snapshot::verify::verify(&world.served()), []);
        }
        world.settle();
        prop_assert_eq!(&*world.served(), &afresh(&all));
        prop_assert!(world.compiler.lane.is_idle());
        drop(world.labels);
    }
}

/// What compiling everything from scratch comes to.
fn afresh(store: &Store) -> Snapshot {
    let options = Options { management_cluster: "mgmt".into(), ..Options::default() };
    let compiled = compile(store, &[], &options, &BTreeSet::new(), &Remembered::default());
    let gateway: GatewayId = "cluster-1/edge/web".parse().unwrap();
    let options = EmitOptions::serving("0.0.0.0".parse().unwrap(), EnvoyRelease::NEWEST);
    crate::emit::emit_gateway(&compiled.plans[&gateway], &options)
}
