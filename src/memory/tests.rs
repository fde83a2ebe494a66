//! What is kept comes back as it was, and whatever lies in its place harms nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::compile::Compiled;
use crate::model::{Code, Finding, GatewayId, Location, ObjectRef, Severity};
use crate::resolve::Options;
use crate::testing::scenarios::{manifests, scenarios};
use crate::testing::{cluster_of, compile_after, yaml};

/// Every kind of matcher, action and policy on a tree that freezes, and a Secret beside it.
const WORLD: &str = r#"
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {tier: front}}
spec: {selector: {app: cart}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
stringData: {tls.key: CANARY-PRIVATE-KEY}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: www, namespace: shop, labels: {of: table}}
spec:
  hosts: [www.example]
  virtualGateways: [{name: web}]
  failureMode: FREEZE_CONFIG
  http:
    - name: many
      labels: {step: "☃ \"quoted\"\n"}
      matchers:
        - {uri: {exact: /a, ignoreCase: true}, method: POST}
        - {uri: {regex: "/b/[0-9]+"}, headers: [{name: x-a, value: "1"}, {name: x-b, value: "b.*", regex: true, invertMatch: true}]}
        - {uri: {prefix: /c}, queryParameters: [{name: q, value: v}, {name: r}], port: 80}
      forwardTo:
        hostRewrite: inner.example
        destinations:
          - {ref: {name: cart}, weight: 30}
          - {ref: {name: cart}, subset: {version: v2}, weight: 70}
    - name: plain
      matchers: [{uri: {prefix: /plain}}]
      forwardTo: {pathRewrite: /d, destinations: [{ref: {name: cart}}]}
    - name: moved
      matchers: [{uri: {prefix: /old}}]
      redirect: {hostRedirect: new.example, pathRedirect: /new}
    - name: rest
      directResponse: {status: 200, body: hello}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: HeaderManipulationPolicy
metadata: {name: mark, namespace: shop}
spec: {config: {appendResponseHeaders: {x-mark: old}, removeRequestHeaders: [x-gone], appendRequestHeaders: {host: h.example}}}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: RetryTimeoutPolicy
metadata: {name: slow, namespace: shop}
spec: {config: {requestTimeout: 1.5s, retries: {attempts: 3, perTryTimeout: 200ms, retryOn: 5xx}}}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: FaultInjectionPolicy
metadata: {name: fault, namespace: shop}
spec: {config: {delay: {fixedDelay: 10ms, percentage: 0.5}, abort: {httpStatus: 418, percentage: 1}}}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: CORSPolicy
metadata: {name: cors, namespace: shop}
spec: {config: {allowOrigins: [{exact: "https://a.example"}, {regex: "https://.*"}], allowMethods: [GET], maxAge: 60s, allowCredentials: true}}
"#;

type World = Vec<(String, Value)>;

fn world() -> World {
    let documents = yaml::documents(WORLD).expect("the world is YAML");
    documents.into_iter().map(|object| (cluster_of(&object), object)).collect()
}

fn compiled(world: &World, remembered: &Remembered) -> Compiled {
    compile_after(world.clone(), &Options::default(), remembered)
}

/// The same world with a route in every table that leads nowhere, before all others, and without the others.
fn broken(world: &World) -> World {
    let mut world = world.clone();
    for (_, table) in world.iter_mut().filter(|(_, object)| object["kind"] == "RouteTable") {
        let lost = json!({"name": "lost", "forwardTo": {"destinations": [{"ref": {"name": "nowhere"}}]}});
        table["spec"]["http"] = json!([lost]);
    }
    world
}

/// The same world with every root table freezing.
fn freezing(mut world: World) -> World {
    for (_, table) in world.iter_mut().filter(|(_, object)| object["kind"] == "RouteTable") {
        if table["spec"].get("hosts").is_some() {
            table["spec"]["failureMode"] = json!("FREEZE_CONFIG");
        }
    }
    world
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Keeps what a compile hands on, and ends; the drop waits for the disk.
fn keep(folder: &Path, compiled: &Compiled) {
    let mut memory = Memory::open(folder).expect("a thread");
    memory.take(&compiled.remembered);
    memory.keep(Document::default);
}

fn kept(folder: &Path) -> Arc<Remembered> {
    Memory::open(folder).expect("a thread").frozen().clone()
}

fn document(folder: &Path) -> std::path::PathBuf {
    folder.join("frozen.json")
}

#[test]
fn r141_what_is_kept_comes_back_as_it_was() {
    let folder = folder();
    let accepted = compiled(&world(), &Remembered::default());
    let www: ObjectRef = "RouteTable/shop/www@cluster-1".parse().expect("a name");
    let routes = &accepted.remembered.accepted[&www].routes;
    assert!(routes.iter().all(|route| route.body.fault.is_none() && route.body.attached.len() == 4), "{routes:?}");
    keep(folder.path(), &accepted);
    assert_eq!(kept(folder.path()).accepted, accepted.remembered.accepted);
}

/// R140: with equal objects and an equal memory, a replica that was restarted serves and says what one that was not does;
/// for every tree of the scenarios and for one of every kind of route.
#[test]
fn r140_r141_a_replica_that_was_restarted_agrees_with_one_that_was_not() {
    let scenarios = scenarios();
    let worlds = scenarios.iter().map(manifests).chain([world()]);
    let (mut trees, mut frozen) = (0, 0);
    for world in worlds.map(freezing) {
        let folder = folder();
        let before = compiled(&world, &Remembered::default());
        keep(folder.path(), &before);
        let loaded = kept(folder.path());
        assert_eq!(loaded.accepted, before.remembered.accepted);
        let (stayed, restarted) = (compiled(&broken(&world), &before.remembered), compiled(&broken(&world), &loaded));
        assert_eq!(stayed.plans, restarted.plans);
        assert_eq!(stayed.findings, restarted.findings);
        assert_eq!(stayed.remembered.accepted, restarted.remembered.accepted);
        trees += stayed.remembered.accepted.len();
        frozen += stayed.trees.values().filter(|grown| grown.frozen.is_some()).count();
        // What was accepted is what is served.
        for root in before.remembered.accepted.keys() {
            let routes = |compiled: &Compiled| {
                let served = compiled.trees[root].served();
                served.map(|route| (route.matchers.to_vec(), route.body.clone())).collect::<Vec<_>>()
            };
            assert_eq!(routes(&before), routes(&restarted), "{root}");
        }
    }
    assert!(trees > 10 && frozen == trees, "{frozen} of {trees} trees are frozen");
}

#[test]
fn files_are_private_and_hold_no_secret() {
    let folder = folder();
    let state = folder.path().join("made/on/demand");
    keep(&state, &compiled(&world(), &Remembered::default()));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&document(&state))), (0o700, 0o600));
    let text = fs::read_to_string(document(&state)).expect("a text");
    assert!(text.contains("www.example") || text.contains("inner.example"), "{text}");
    assert!(!text.contains("CANARY") && !text.contains("Q0FOQVJZ"), "{text}");
    let names: BTreeSet<_> =
        fs::read_dir(&state).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["frozen.json", "lock"].map(Into::into).into());
    assert_eq!(mode(&state.join("lock")), 0o600);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let folder = folder();
    let first = compiled(&world(), &Remembered::default());
    keep(folder.path(), &first);
    let inode = || fs::metadata(document(folder.path())).expect("it is there").ino();
    // A rename gives another file, so the number of the file tells whether it was written.
    let before = inode();
    let mut memory = Memory::open(folder.path()).expect("a thread");
    for world in [world(), broken(&world())] {
        memory.take(&compiled(&world, memory.frozen()).remembered);
        memory.keep(Document::default);
    }
    drop(memory);
    assert_eq!(inode(), before, "an equal or frozen tree is the same memory");
    let mut changed = world();
    changed.retain(|(_, object)| object["kind"] != "CORSPolicy");
    keep(folder.path(), &compiled(&changed, &Remembered::default()));
    assert_ne!(inode(), before);
}

/// A file that is not what was written: ignored, put aside as it is, and in nobody's way.
fn put_aside(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = folder();
    fs::write(document(folder.path()), bytes).expect("written");
    prop_assert_eq!(&*kept(folder.path()), &Remembered::default());
    prop_assert_eq!(fs::read(folder.path().join("frozen.json.bad")).expect("put aside"), bytes);
    prop_assert!(!document(folder.path()).exists());
    let now = compiled(&world(), &Remembered::default());
    keep(folder.path(), &now);
    prop_assert_eq!(&kept(folder.path()).accepted, &now.remembered.accepted);
    Ok(())
}

fn written() -> Vec<u8> {
    let folder = folder();
    keep(folder.path(), &compiled(&world(), &Remembered::default()));
    fs::read(document(folder.path())).expect("it is there")
}

#[test]
fn r141_foreign_files_are_put_aside() {
    let whole = written();
    let text = String::from_utf8(whole.clone()).expect("a text");
    let end = text.find('\n').expect("two lines");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for foreign in ["", "\n", "null", "[]", "{}", &text[..end], &text[end + 1..], &format!("{text}\n"), &deep] {
        put_aside(foreign.as_bytes()).expect("put aside");
    }
    // Written by Chancery, in a form that it does not read.
    let folder = folder();
    for content in [json!([{"root": 1}]), json!({"a": "b"}), json!([[[]]])] {
        Documents::open(folder.path()).save(FROZEN, &content).expect("written");
        assert_eq!(*kept(folder.path()), Remembered::default());
        assert!(folder.path().join("frozen.json.bad").is_file());
    }
    assert!(folder.path().join("frozen.json.bad-3").is_file());
}

#[test]
fn what_was_put_aside_before_is_not_overwritten() {
    let folder = folder();
    let texts = ["first", "second", "third"];
    for text in texts {
        fs::write(document(folder.path()), text).expect("written");
        let _ = kept(folder.path());
    }
    let aside = ["frozen.json.bad", "frozen.json.bad-2", "frozen.json.bad-3"];
    let found = aside.map(|name| fs::read_to_string(folder.path().join(name)).expect("put aside"));
    assert_eq!(found, texts);
}

/// What the system does not give, or a newer version wrote, may be whole: neither put aside nor written over.
#[test]
fn r141_what_may_be_whole_is_left_as_it_is() {
    let now = compiled(&world(), &Remembered::default());
    let whole = written();
    let text = String::from_utf8(whole).expect("a text");
    for foreign in [
        text.replacen("\"format\":1", "\"format\":2", 1),
        "{\"format\":7,\"new\":true}\n[]".to_owned(),
        text.replacen("\"document\":\"frozen\"", "\"document\":\"other\"", 1),
    ] {
        let folder = folder();
        fs::write(document(folder.path()), &foreign).expect("written");
        assert_eq!(*kept(folder.path()), Remembered::default());
        keep(folder.path(), &now);
        assert_eq!(fs::read_to_string(document(folder.path())).expect("still there"), foreign);
        assert!(!folder.path().join("frozen.json.bad").exists());
    }
    // Not even a file: the system gives an error, whatever the user's rights.
    let folder = folder();
    fs::create_dir(document(folder.path())).expect("made");
    keep(folder.path(), &now);
    assert!(document(folder.path()).is_dir() && !folder.path().join("frozen.json.bad").exists());
    // When it can be read again, it is written again.
    fs::remove_dir(document(folder.path())).expect("removed");
    keep(folder.path(), &now);
    assert_eq!(kept(folder.path()).accepted, now.remembered.accepted);
}

/// Two processes that write one directory would overwrite each other's documents half-way.
#[test]
fn a_state_directory_has_one_owner_at_a_time() {
    let folder = folder();
    let first = Memory::open(folder.path()).expect("free");
    let error = Memory::open(folder.path()).expect_err("taken").to_string();
    let path = folder.path().display().to_string();
    assert!(error.contains(&path) && error.contains("in use by another process"), "{error}");
    drop(first);
    drop(Memory::open(folder.path()).expect("free again"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r141_torn_files_are_put_aside(share in 0.0..1.0_f64, flip in 1_u8..=255, cut: bool) {
        let mut bytes = written();
        let at = ((bytes.len() as f64) * share) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        if cut || at > end {
            put_aside(&bytes)?;
        } else {
            // It may look like another document now, which is left alone.
            let folder = folder();
            fs::write(document(folder.path()), &bytes).expect("written");
            prop_assert_eq!(&*kept(folder.path()), &Remembered::default());
            let path = [document(folder.path()), folder.path().join("frozen.json.bad")].into_iter().find(|p| p.exists());
            prop_assert_eq!(fs::read(path.expect("it is somewhere")).expect("a file"), bytes);
        }
    }

    #[test]
    fn any_bytes_are_put_aside(bytes: Vec<u8>) {
        put_aside(&bytes)?;
    }
}

#[test]
fn a_directory_that_cannot_be_written_harms_nobody_and_is_tried_again() {
    let folder = folder();
    let state = folder.path().join("state");
    // A file where the directory should be: no user may create it, whatever their rights.
    fs::write(&state, "in the way").expect("written");
    let now = compiled(&world(), &Remembered::default());
    let mut memory = Memory::open(&state).expect("a thread");
    memory.take(&now.remembered);
    memory.keep(Document::default);
    let failed = |memory: &Memory| memory.keeper.as_ref().is_some_and(|keeper| keeper.has_failed(FROZEN));
    let begun = std::time::Instant::now();
    while !failed(&memory) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "the failure is not noticed");
        std::thread::yield_now();
    }
    assert_eq!(memory.frozen().accepted, now.remembered.accepted, "it is remembered all the same");
    fs::remove_file(&state).expect("removed");
    fs::create_dir(&state).expect("made");
    // Nothing has changed since, and yet it is kept now.
    memory.keep(Document::default);
    drop(memory);
    assert_eq!(kept(&state).accepted, now.remembered.accepted);
}

#[test]
fn a_failed_save_leaves_the_older_document_whole() {
    let folder = folder();
    let mut documents = Documents::open(folder.path());
    documents.save(FROZEN, &["old"]).expect("written");
    // Something in the place where documents grow, that cannot be removed as a file.
    fs::create_dir(folder.path().join("frozen.json.tmp")).expect("made");
    documents.save(FROZEN, &["new"]).expect_err("nowhere to write");
    assert_eq!(documents.load::<Vec<String>>(FROZEN), Some(vec!["old".to_owned()]));
    // What a crash left there is no hindrance.
    fs::remove_dir(folder.path().join("frozen.json.tmp")).expect("removed");
    fs::write(folder.path().join("frozen.json.tmp"), "half a docu").expect("written");
    documents.save(FROZEN, &["new"]).expect("written");
    assert_eq!(documents.load::<Vec<String>>(FROZEN), Some(vec!["new".to_owned()]));
}

/// Log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(work: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let text = lines.0.lock().expect("nobody panicked").clone();
    String::from_utf8(text).expect("a text").lines().map(str::to_owned).collect()
}

#[test]
fn an_error_is_logged_once_until_it_changes() {
    let folder = folder();
    let documents = Documents::open(folder.path());
    let failures = keeper::Failures::default();
    let full = || Err(std::io::Error::other("disk full"));
    let lines = logged(|| {
        for written in [Ok(()), full(), full(), full(), Err(std::io::Error::other("read-only")), Ok(()), Ok(()), full()]
        {
            keeper::settle(&documents, &failures, FROZEN, written);
        }
    });
    let parts = ["disk full", "read-only", "is written again", "disk full"];
    assert_eq!(lines.len(), parts.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part) && line.contains("frozen.json"), "{line}");
    }
}

#[test]
fn a_file_that_is_put_aside_is_named_in_the_log() {
    let folder = folder();
    fs::write(document(folder.path()), "{\"form\":7}").expect("written");
    let lines = logged(|| drop(kept(folder.path())));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["ERROR", "frozen.json", "frozen.json.bad", "not a document of Chancery"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

/// R140, R141: a restart that finds a file unreadable, of the root table or of its workspace, forgets nothing: when the file can
/// be read again, the tree is what it was.
#[test]
fn r141_what_a_file_holds_that_cannot_be_read_is_not_forgotten() {
    let unread = [Finding::in_file(
        Location { file: "shop.yaml".into(), line: 1, column: 1 },
        Severity::Error,
        Code::SyntaxError,
        "not YAML",
    )];
    let compile = |world: &World, given: &[Finding], remembered: &Remembered| {
        let (objects, mut findings) = crate::testing::decode(world.clone());
        findings.extend(given.iter().cloned());
        let store = crate::store::Store::from_objects(objects);
        crate::compile::compile(&store, &findings, &Options::default(), &BTreeSet::new(), remembered)
    };
    let before = compile(&world(), &[], &Remembered::default());
    for kind in ["RouteTable", "Workspace"] {
        let mut without = world();
        without.retain(|(_, object)| object["kind"] != kind);
        let started = compile(
            &without,
            &unread,
            &Remembered::of_earlier_run(before.remembered.accepted.values().cloned().collect()),
        );
        assert!(started.trees.is_empty(), "nothing serves without the {kind}");
        assert_eq!(started.remembered.accepted, before.remembered.accepted, "{kind}");
        let readable = compile(&broken(&world()), &[], &started.remembered);
        assert!(readable.trees.values().all(|grown| grown.frozen.is_some()) && !readable.trees.is_empty(), "{kind}");
        // Gone for good, it is forgotten.
        assert!(compile(&without, &[], &started.remembered).remembered.accepted.is_empty(), "{kind}");
    }
    // What a table says itself counts.
    let mut thawed = broken(&world());
    for (_, table) in thawed.iter_mut().filter(|(_, object)| object["kind"] == "RouteTable") {
        table["spec"]["failureMode"] = json!("ROUTE_REPLACEMENT");
    }
    assert!(compile(&thawed, &unread, &before.remembered).remembered.accepted.is_empty());
}

/// R140: `explain` says that a route is frozen, and keeps its provenance.
#[test]
fn r140_explain_says_what_is_frozen_and_why() {
    use crate::compile::explain::{Request, explain, explain_object};
    let before = compiled(&world(), &Remembered::default());
    let now = compiled(&broken(&world()), &before.remembered);
    let gateway: GatewayId = "cluster-1/shop/web".parse().expect("a gateway");
    let request = Request {
        host: "www.example".to_owned(),
        path: "/a".to_owned(),
        method: "POST".to_owned(),
        ..Request::default()
    };
    let route = |compiled: &Compiled| {
        let explanation = explain(compiled, &gateway, &request).expect("a gateway");
        let route = explanation.route.expect("a route");
        (route.is_frozen, route.body.clone(), route.label_origin("step"))
    };
    let ((was_frozen, old, _), (is_frozen, body, origin)) = (route(&before), route(&now));
    assert_eq!((was_frozen, is_frozen), (false, true));
    assert_eq!(body, old);
    assert_eq!(origin, "route shop/www:many");
    let policies: BTreeSet<String> = body.attached.iter().map(|a| a.policy.short()).collect();
    assert_eq!(policies, ["shop/cors", "shop/fault", "shop/mark", "shop/slow"].map(str::to_owned).into());
    let www = "RouteTable/shop/www@cluster-1".parse().expect("a name");
    let routes = explain_object(&now, true, &www).expect("it is known").routes;
    let shown: Vec<_> = routes.iter().map(|route| (route.chain.join(" > "), route.is_frozen)).collect();
    assert_eq!(shown, ["many", "plain", "moved", "rest"].map(|name| (format!("shop/www:{name}"), true)));
}

/// R140: what is kept is not multiplied beyond what a tree may be, by hosts that come while it is frozen.
#[test]
fn r140_hosts_do_not_multiply_what_is_kept_without_bound() {
    let root = |hosts: usize, http: Value| {
        let mut world = world();
        world.retain(|(_, object)| object["kind"] != "RouteTable" && object["kind"] != "CORSPolicy");
        let hosts: Vec<String> = (0..hosts).map(|host| format!("h{host}.example")).collect();
        let table = json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": "www", "namespace": "shop"},
            "spec": {"hosts": hosts, "virtualGateways": [{"name": "web"}], "failureMode": "FREEZE_CONFIG", "http": http},
        });
        world.push(("cluster-1".to_owned(), table));
        world
    };
    // One body of 1 MiB, of which a tree may have 64, once for every host.
    let large = json!([{"name": "large", "directResponse": {"status": 200, "body": "x".repeat(1 << 20)}}]);
    let lost = json!([{"name": "lost", "forwardTo": {"destinations": [{"ref": {"name": "nowhere"}}]}}]);
    let before = compiled(&root(1, large), &Remembered::default());
    for (hosts, freezes) in [(64, true), (65, false)] {
        let now = compiled(&root(hosts, lost.clone()), &before.remembered);
        assert_eq!(
            now.trees.values().filter(|grown| grown.frozen.is_some()).count(),
            usize::from(freezes),
            "{hosts} hosts"
        );
        let told = now.findings.iter().any(|finding| finding.code == crate::model::Code::LimitExceeded);
        assert_eq!(told, !freezes, "{:#?}", now.findings);
        // With fewer hosts it is as it was.
        let again = compiled(&root(1, lost.clone()), &now.remembered);
        assert_eq!(again.remembered.accepted, before.remembered.accepted);
        assert!(again.trees.values().all(|grown| grown.frozen.is_some()));
    }
}
