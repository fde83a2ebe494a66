//! Identities from manifests to snapshots, with a clock that the test sets.

use std::cell::Cell;

use jiff::Timestamp;

use super::*;
use crate::resolve::world::World as _;
use crate::snapshot::Resource;
use crate::testing::authority::Authority;
use crate::testing::{cluster_of, yaml};

const DAY: i64 = 86_400;

/// The first day of 2026.
const START: i64 = 1_767_225_600;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(START) };
}

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

/// A workspace with two gateways: `web` shows its own identity on one of its ports, `other` has nothing to do with it.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: all, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: edge}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: edge}
spec: {selector: {app: other}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners: [{http: {}, port: {number: 80}}, {http: {}, port: {number: 443}, tls: {mode: ISTIO_MUTUAL}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: other, namespace: edge}
spec: {workloads: [{selector: {labels: {app: other}}}], listeners: [{http: {}, port: {number: 80}}]}
";

const POLICY: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: RootTrustPolicy
metadata: {name: root, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {config: {intermediateCertOptions: {ttlDays: 10}, mgmtServerCa: ";

/// Ten days and no RSA: keys of 4096 bits take a second.
const GENERATED: &str = "{generated: {ttlDays: 100, rsaKeySizeBytes: 2048}}}}";
const FROM_SECRET: &str = "{secretRef: {name: ca}}}}";

/// The program without its edges.
struct World {
    compiler: CompileLoop,
    publisher: Arc<Publisher>,
    state: State,
    /// Keys live as long as somebody watches them.
    _watched: Vec<watch::Receiver<crate::publish::Watched>>,
}

impl World {
    /// Starts with a policy, the Secret `ca` if there is one, and a place for what is kept.
    fn start(policy: &str, ca: Option<&Authority>, state: Option<&Path>) -> Self {
        let (compiler, publisher, compiled) = compile_loop();
        let mut compiler = compiler.with_identities(Identities::open(state, clock));
        let mut manifests = yaml::documents(&format!("{WORLD}---{POLICY}{policy}")).unwrap();
        if let Some(ca) = ca {
            manifests.push(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "ca", "namespace": "gloo-mesh", "annotations": {"cluster.solo.io/cluster": "mgmt"}},
                "stringData": {"tls.crt": ca.certificate, "tls.key": ca.key.serialize_pem()},
            }));
        }
        let (objects, findings) = decode(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)));
        assert_eq!(findings, []);
        let changes = objects.into_iter().map(Change::Put).collect();
        let mut events = vec![Event::Source(Batch { extent: Extent::Complete, changes, findings })];
        let mut watched = Vec::new();
        for key in
            [key("web", EnvoyRelease::NEWEST), key("web", EnvoyRelease::OLDEST), key("other", EnvoyRelease::NEWEST)]
        {
            watched.push(publisher.subscribe(&key));
            let app = key.gateway.services[0].clone();
            events.push(Event::Gateway(key, super::asker([("app".into(), app)].into())));
        }
        compiler.step(events.into_iter());
        Self { compiler, publisher, state: compiled, _watched: watched }
    }

    /// Moves the clock, and lets what is due be done.
    fn at(&mut self, seconds: i64) -> Arc<Snapshot> {
        NOW.set(seconds);
        self.compiler.step(std::iter::empty());
        self.snapshot("web")
    }

    fn snapshot(&self, gateway: &str) -> Arc<Snapshot> {
        self.publisher.current(&key(gateway, EnvoyRelease::NEWEST)).expect("a snapshot")
    }

    /// What the author of an object is told.
    fn status(&self, id: &str) -> String {
        let compiled = self.state.borrow().clone().expect("a compile");
        let verdict = &compiled.verdicts[&id.parse::<ObjectRef>().unwrap()];
        format!("{} {}", verdict.approval, verdict.message)
    }

    fn policy(&self) -> String {
        self.status("RootTrustPolicy/gloo-mesh/root@mgmt")
    }
}

fn key(gateway: &str, envoy: EnvoyRelease) -> GatewayKey {
    let gateway = format!("cluster-1/edge/{gateway}").parse().unwrap();
    GatewayKey { gateway, bind: "0.0.0.0".into(), envoy }
}

fn secret(snapshot: &Snapshot, name: &str) -> Arc<Resource> {
    snapshot.get(ResourceType::Secret, name).unwrap_or_else(|| panic!("no {name}")).clone()
}

fn bound(snapshot: &Snapshot) -> Vec<Name> {
    snapshot.resources(ResourceType::Listener).keys().cloned().collect()
}

/// Times a text stands in bytes.
fn count(bytes: &[u8], text: &str) -> usize {
    String::from_utf8_lossy(bytes).matches(text).count()
}

#[test]
fn r193_identities_reach_the_gateways_that_show_them_and_no_others() {
    let world = World::start(FROM_SECRET, Some(&Authority::new("root", None)), None);
    assert!(world.policy().starts_with("ACCEPTED"), "{}", world.policy());
    let web = world.snapshot("web");
    let own = secret(&web, "trust/identity");
    assert_eq!((count(&own.body, "BEGIN CERTIFICATE"), count(&own.body, "BEGIN PRIVATE KEY")), (1, 1));
    let roots = secret(&web, "trust/roots");
    assert_eq!((count(&roots.body, "BEGIN CERTIFICATE"), count(&roots.body, "PRIVATE KEY")), (1, 0));
    assert!(world.snapshot("other").resources(ResourceType::Secret).is_empty());
    // All Envoys of a gateway are sent one version, and so one content.
    let oldest = world.publisher.current(&key("web", EnvoyRelease::OLDEST)).unwrap();
    assert_eq!(secret(&oldest, "trust/identity"), own);
}

#[test]
fn r193_renewal_changes_the_secret_and_nothing_else() {
    let mut world = World::start(FROM_SECRET, Some(&Authority::new("root", None)), None);
    let first = world.snapshot("web");
    let due = world.compiler.due().expect("something is due");
    assert!(!due.is_zero() && due <= Duration::from_secs(600), "it looks at the clock now and then: {due:?}");
    // Ten days, of which one is left: within nine days there is one renewal, and after an hour mostly none.
    let mut renewals = 0;
    let mut last = first.clone();
    for hour in 1..=9 * 24 {
        let now = world.at(START + hour * 3600);
        if now == last {
            assert!(Arc::ptr_eq(&now, &last), "what is equal is not published again");
            continue;
        }
        renewals += 1;
        let (old, new) = (secret(&last, "trust/identity"), secret(&now, "trust/identity"));
        assert!(old.version != new.version && old.body != new.body);
        assert_eq!(secret(&last, "trust/roots"), secret(&now, "trust/roots"));
        for resource_type in ResourceType::ALL.into_iter().filter(|t| *t != ResourceType::Secret) {
            assert_eq!(last.type_version(resource_type), now.type_version(resource_type), "{resource_type:?}");
        }
        last = now;
    }
    assert_eq!(renewals, 1);
    assert_eq!(world.compiler.identities.issued(), 1, "what nobody has any more is forgotten");
}

#[test]
fn r191_a_generated_root_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let first = World::start(GENERATED, None, Some(folder.path()));
    assert!(first.policy().starts_with("ACCEPTED"), "{}", first.policy());
    let (roots, own) =
        (secret(&first.snapshot("web"), "trust/roots"), secret(&first.snapshot("web"), "trust/identity"));
    drop(first);
    let second = World::start(GENERATED, None, Some(folder.path()));
    assert_eq!(secret(&second.snapshot("web"), "trust/roots"), roots);
    let again = secret(&second.snapshot("web"), "trust/identity");
    assert_eq!(again.version, own.version, "a gateway that comes back keeps the certificate that it holds");
    assert_ne!(again.body, own.body, "of the keys only the root's is kept");
    let kept: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["root.pem"]);
    // Another place has another root.
    let elsewhere = tempfile::tempdir().unwrap();
    let third = World::start(GENERATED, None, Some(elsewhere.path()));
    assert_ne!(secret(&third.snapshot("web"), "trust/roots"), roots);
}

#[test]
fn r191_a_generated_root_needs_a_place() {
    let world = World::start(GENERATED, None, None);
    assert!(world.policy().starts_with("INVALID CERTIFICATE: a generated root needs a place"), "{}", world.policy());
    assert!(world.policy().contains("`--state`"), "{}", world.policy());
    assert_eq!(bound(&world.snapshot("web")), ["listener/8080"], "its other port serves");
    let told = world.status("VirtualGateway/edge/web@cluster-1");
    assert!(told.starts_with("WARNING CERTIFICATE") && told.contains("`--state`"), "{told}");
}

#[test]
fn r191_a_root_file_that_is_broken_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root.pem");
    std::fs::write(&file, "CANARY").unwrap();
    let world = World::start(GENERATED, None, Some(folder.path()));
    let said = world.policy();
    assert!(said.starts_with("INVALID") && said.contains("root.pem: it holds no root"), "{said}");
    assert!(!said.contains("CANARY"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "CANARY");
    assert_eq!(bound(&world.snapshot("web")), ["listener/8080"]);
}

#[test]
fn r191_a_place_that_cannot_be_written_is_told_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("state");
    std::fs::write(&blocked, "no directory").unwrap();
    let mut world = World::start(GENERATED, None, Some(&blocked));
    assert!(world.policy().starts_with("INVALID"), "{}", world.policy());
    std::fs::remove_file(&blocked).unwrap();
    assert_eq!(bound(&world.at(START + 60)), ["listener/8080", "listener/8443"]);
    assert!(world.policy().starts_with("ACCEPTED"), "{}", world.policy());
    assert!(blocked.join("root.pem").is_file());
}

#[test]
fn r191_a_generated_root_is_followed_by_another_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(GENERATED, None, Some(folder.path()));
    let trusted = |snapshot: &Snapshot| count(&secret(snapshot, "trust/roots").body, "BEGIN CERTIFICATE");
    assert_eq!(trusted(&world.at(START + 80 * DAY)), 1);
    let both = world.at(START + 91 * DAY);
    assert_eq!(trusted(&both), 2, "both are trusted before the new one signs");
    let signs = |world: &World| {
        let compiled = world.state.borrow().clone().unwrap();
        compiled.inputs.trust().as_ref().unwrap().signer.as_ref().unwrap().id.clone()
    };
    let old = signs(&world);
    world.at(START + 96 * DAY);
    assert_ne!(signs(&world), old);
    assert_eq!(trusted(&world.snapshot("web")), 2);
    assert_eq!(trusted(&world.at(START + 101 * DAY)), 1, "what has ended is not trusted any more");
    assert_eq!(world.snapshot("web").type_version(ResourceType::Listener), both.type_version(ResourceType::Listener));
    // A program that starts now finds the new one.
    let next = World::start(GENERATED, None, Some(folder.path()));
    assert_eq!(signs(&next), signs(&world));
}

#[test]
fn r191_a_root_that_has_ended_or_not_begun_is_told() {
    // It holds from 2020 to the end of 2026.
    let root = Authority::until(2027, "root", None);
    let mut world = World::start(FROM_SECRET, Some(&root), None);
    assert!(world.policy().starts_with("ACCEPTED"), "{}", world.policy());
    let before = world.at(START + 364 * DAY);
    let after = world.at(START + 366 * DAY);
    let said = world.policy();
    assert!(said.starts_with("INVALID CERTIFICATE: the certificate that signs ended at 2027-01-01"), "{said}");
    for resource_type in [ResourceType::Listener, ResourceType::Route] {
        assert_eq!(before.type_version(resource_type), after.type_version(resource_type), "the rest goes on");
    }
    world.at(0);
    assert!(world.policy().contains("holds from 2020-01-01"), "{}", world.policy());
    world.at(START);
    assert!(world.policy().starts_with("ACCEPTED"), "{}", world.policy());
}

#[test]
fn r191_a_root_above_what_signs_that_has_ended_is_told_with_what_it_is() {
    // What signs holds to 2040, what stands between to 2030, and the root to the end of 2026.
    let root = Authority::until(2027, "root", None);
    let between = Authority::until(2030, "between", Some(&root));
    let signer = Authority::new("signer", Some(&between));
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let secret = format!(
        "{FROM_SECRET}
---
apiVersion: v1
kind: Secret
metadata: {{name: ca, namespace: gloo-mesh, annotations: {{cluster.solo.io/cluster: mgmt}}}}
stringData: {{ca-cert.pem: {}, ca-key.pem: {}, cert-chain.pem: {}, root-cert.pem: {}}}
",
        quoted(&signer.certificate),
        quoted(&signer.key.serialize_pem()),
        quoted(&between.certificate),
        quoted(&root.certificate),
    );
    let mut world = World::start(&secret, None, None);
    assert!(world.policy().starts_with("ACCEPTED"), "{}", world.policy());
    let before = world.at(START + 364 * DAY);
    let after = world.at(START + 366 * DAY);
    let said = world.policy();
    assert!(said.starts_with("INVALID CERTIFICATE: the root that signed it ended at 2027-01-01"), "{said}");
    for resource_type in [ResourceType::Listener, ResourceType::Route] {
        assert_eq!(before.type_version(resource_type), after.type_version(resource_type), "the rest goes on");
    }
    world.at(START + 5 * 366 * DAY);
    let said = world.policy();
    assert!(said.contains("a certificate between the one that signs and the root ended at 2030-01-01"), "{said}");
}

/// What the clock says of the certificates that listeners show: a warning from 14 days before the end, and a gauge.
#[test]
fn r60_a_certificate_that_is_about_to_end_or_has_ended_is_told_and_measured() {
    // It holds to the end of 2026, which has 365 days.
    let shop = Authority::until(2027, "shop", None);
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let (chain, private) = (quoted(&shop.certificate), quoted(&shop.key.serialize_pem()));
    let listener = format!(
        "{FROM_SECRET}
---
apiVersion: v1
kind: Service
metadata: {{name: tls, namespace: edge}}
spec: {{selector: {{app: tls}}, ports: [{{name: https, port: 443}}]}}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {{name: tls, namespace: edge}}
spec:
  workloads: [{{selector: {{labels: {{app: tls}}}}}}]
  listeners: [{{http: {{}}, port: {{number: 443}}, tls: {{mode: SIMPLE, secretName: shop}}}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: shop, namespace: edge}}
stringData: {{tls.crt: {chain}, tls.key: {private}}}
"
    );
    let mut world = World::start(&listener, Some(&Authority::new("root", None)), None);
    let told = |world: &mut World, day: i64| {
        world.at(START + day * DAY);
        world.status("VirtualGateway/edge/tls@cluster-1")
    };
    assert!(told(&mut world, 350).starts_with("ACCEPTED"));
    let plan =
        |world: &World| world.state.borrow().as_ref().unwrap().plans[&key("tls", EnvoyRelease::NEWEST).gateway].clone();
    let before = plan(&world);
    let soon = told(&mut world, 352);
    let ends = "WARNING CERTIFICATE: the certificate of `Secret/edge/shop@cluster-1` ends at 2027-01-01T00:00:00Z";
    assert!(soon.starts_with(ends), "{soon}");
    assert_eq!(told(&mut world, 360), soon, "no other words from day to day");
    let after = told(&mut world, 366);
    assert!(after.starts_with("WARNING CERTIFICATE") && after.contains("ended at 2027-01-01"), "{after}");
    assert_eq!(plan(&world), before, "what is served does not follow the clock");
    assert!(told(&mut world, 0).starts_with("ACCEPTED"), "a clock that is put right");
    let text = world.compiler.metrics.write(&Default::default(), crate::telemetry::metrics::Exposition::Text);
    let line = "chancery_certificate_expiry_timestamp_seconds{source=\"secret\"} 1798761600.0";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(text.contains("timestamp_seconds{source=\"root\"}"), "{text}");
}
