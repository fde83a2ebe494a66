use serde_json::json;

use super::*;
use crate::crd::yaml::decode_value;

const MGMT: &str = "mgmt";

fn told(kind: Kind, cluster: &str, name: &str, revision: &str) -> Told {
    let value = json!({
        "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
        "metadata": {"name": name, "namespace": "shop", "labels": {"rev": revision}},
    });
    let (object, findings) = decode_value(value, &cluster.into());
    Told { object: Arc::new(object.unwrap()), findings, text: None }
}

fn id(kind: Kind, cluster: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, cluster, "shop", name)
}

/// Lists every kind of a cluster as empty, but for those that are named.
fn list_all(held: &mut Held, cluster: &str, but: &[Kind]) {
    for kind in kinds().filter(|kind| !but.contains(kind)) {
        held.listed(&cluster.into(), &What::Kind(kind), Vec::new());
    }
}

fn registration(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::KubernetesCluster, MGMT, "gloo-mesh", name)
}

/// Changes in short: `name@cluster=revision`, or `-name@cluster`.
fn summary(batch: Option<Batch>) -> Option<(Extent, Vec<String>)> {
    let line = |change: &Change| match change {
        Change::Put(object) => {
            let (id, revision) = (&object.meta.id, object.meta.labels.get("rev"));
            format!("{}@{}={}", id.name, id.cluster, revision.map_or("", |revision| revision.as_str()))
        }
        Change::Delete(id) => format!("-{}@{}", id.name, id.cluster),
    };
    batch.map(|batch| (batch.extent, batch.changes.iter().map(line).collect()))
}

fn lines(extent: Extent, lines: &[&str]) -> Option<(Extent, Vec<String>)> {
    Some((extent, lines.iter().map(|line| (*line).to_owned()).collect()))
}

/// A management cluster that was listed completely and given.
fn given() -> Held {
    let mut held = Held::new(&MGMT.into());
    held.listed(&MGMT.into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, MGMT, "a", "1")]);
    list_all(&mut held, MGMT, &[Kind::Pod]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Complete, &["a@mgmt=1"]));
    held
}

#[test]
fn r10_nothing_is_given_before_every_kind_was_listed() {
    let mut held = Held::new(&MGMT.into());
    held.listed(&MGMT.into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, MGMT, "a", "1")]);
    list_all(&mut held, MGMT, &[Kind::Pod, Kind::Node]);
    assert_eq!(held.batch(true), None);
    assert_eq!(held.missing(), ["cluster `mgmt`: 1 kinds are not listed, Node for one"]);
    // A failure of what a cluster always has is waited out.
    held.troubled(&MGMT.into(), &What::Kind(Kind::Node), Trouble::NotServed);
    assert_eq!(held.batch(true), None);
    held.troubled(&MGMT.into(), &What::Kind(Kind::Node), Trouble::Refused("\"forbidden\"".to_owned()));
    assert!(held.missing()[0].ends_with(": \"forbidden\""), "{:?}", held.missing());
    held.listed(&MGMT.into(), &What::Kind(Kind::Node), Vec::new());
    assert_eq!(held.batch(false), None, "not before it is known which clusters there are");
    assert_eq!(summary(held.batch(true)), lines(Extent::Complete, &["a@mgmt=1"]));
    assert!(held.missing().is_empty());
}

#[test]
fn what_is_the_same_is_not_given_again() {
    let mut held = given();
    let pods = What::Kind(Kind::Pod);
    held.put(&MGMT.into(), &pods, told(Kind::Pod, MGMT, "a", "1"));
    assert_eq!(held.batch(true), None);
    // After `410 Gone`: one is the same, one is new, and later one is missing.
    held.listed(&MGMT.into(), &pods, vec![told(Kind::Pod, MGMT, "a", "1"), told(Kind::Pod, MGMT, "b", "1")]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["b@mgmt=1"]));
    held.listed(&MGMT.into(), &pods, vec![told(Kind::Pod, MGMT, "b", "2")]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["-a@mgmt", "b@mgmt=2"]));
    // Gone and back between two batches is one change.
    held.deleted(&MGMT.into(), &pods, &id(Kind::Pod, MGMT, "b"));
    held.put(&MGMT.into(), &pods, told(Kind::Pod, MGMT, "b", "3"));
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["b@mgmt=3"]));
}

#[test]
fn r11_a_watch_that_gets_nothing_keeps_what_it_gave_and_says_so() {
    let mut held = given();
    let pods = What::Kind(Kind::Pod);
    for (trouble, code) in [
        (Trouble::Unreachable("\"refused\"".to_owned()), Code::ClusterUnreachable),
        (Trouble::Refused("\"forbidden\"".to_owned()), Code::ClusterRefuses),
        (Trouble::NotServed, Code::KindNotServed),
    ] {
        held.troubled(&MGMT.into(), &pods, trouble);
        let batch = held.batch(true).unwrap();
        assert_eq!((batch.changes.len(), batch.findings.len()), (0, 1), "{batch:?}");
        assert_eq!((batch.findings[0].code, batch.findings[0].severity), (code, Severity::Warning));
    }
    held.recovered(&MGMT.into(), &pods);
    assert_eq!(held.batch(true).unwrap().findings, []);
}

#[test]
fn a_kind_that_is_not_served_has_no_objects_and_is_told_of_once() {
    let mut held = Held::new(&MGMT.into());
    let absent = [Kind::RouteTable, Kind::Workspace];
    list_all(&mut held, MGMT, &absent);
    for kind in absent {
        held.troubled(&MGMT.into(), &What::Kind(kind), Trouble::NotServed);
    }
    assert_eq!(held.batch(true), None, "a server that starts may be about to serve it");
    let expected = [Kind::Workspace].into();
    held.defined(&MGMT.into(), Defined { expected, ..Defined::default() });
    assert_eq!(held.batch(true), None, "one of them is defined");
    held.defined(&MGMT.into(), Defined::default());
    let batch = held.batch(true).unwrap();
    assert_eq!(batch.findings.len(), 1, "{:?}", batch.findings);
    let message = &batch.findings[0].message;
    for part in ["`routetables.networking.gloo.solo.io/v2`", "`workspaces.admin.gloo.solo.io/v2`", "`chancery crds`"] {
        assert!(message.contains(part), "{message}");
    }
    // Once it is served, its objects count.
    held.listed(&MGMT.into(), &What::Kind(absent[0]), vec![told(absent[0], MGMT, "t", "1")]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["t@mgmt=1"]));
}

#[test]
fn definitions_of_another_version_are_told() {
    let mut held = given();
    let outdated: BTreeSet<Kind> = [Kind::RouteTable, Kind::Workspace].into();
    held.defined(&MGMT.into(), Defined { expected: outdated.clone(), outdated });
    let findings = held.batch(true).unwrap().findings;
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.code, Code::DefinitionOutdated);
    for part in ["`routetables`", "`workspaces`", "`chancery crds | kubectl apply -f -`"] {
        assert!(finding.message.contains(part), "{}", finding.message);
    }
    held.defined(&MGMT.into(), Defined::default());
    assert_eq!(held.batch(true).unwrap().findings, []);
}

#[test]
fn r3_a_registered_cluster_comes_as_a_whole_and_goes_as_a_whole() {
    let mut held = given();
    held.add(&"c1".into(), Some(registration("c1")));
    held.listed(&"c1".into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, "c1", "x", "1")]);
    assert_eq!(held.batch(true), None, "half of it is nobody's");
    list_all(&mut held, "c1", &[Kind::Pod]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["x@c1=1"]));
    // Few clusters have all kinds, and that is nothing to be told.
    held.defined(&"c1".into(), Defined::default());
    held.troubled(&"c1".into(), &What::Kind(Kind::RouteTable), Trouble::NotServed);
    assert_eq!(held.batch(true), None);
    held.troubled(&"c1".into(), &What::Kind(Kind::Pod), Trouble::Unreachable("\"away\"".to_owned()));
    let batch = held.batch(true).unwrap();
    assert_eq!(batch.findings[0].subject, Some(registration("c1")));
    held.remove(&"c1".into());
    let batch = held.batch(true);
    assert_eq!(batch.as_ref().unwrap().findings, []);
    assert_eq!(summary(batch), lines(Extent::Changes, &["-x@c1"]));
}

#[test]
fn r10_the_first_batch_waits_for_clusters_of_the_run_before_and_no_others() {
    let mut held = Held::new(&MGMT.into());
    list_all(&mut held, MGMT, &[]);
    for name in ["before", "new"] {
        held.add(&name.into(), Some(registration(name)));
    }
    held.wait_for(&"before".into());
    assert_eq!(held.batch(true), None);
    assert!(held.missing()[0].starts_with("cluster `before`: "), "{:?}", held.missing());
    held.listed(&"before".into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, "before", "x", "1")]);
    held.listed(&"new".into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, "new", "y", "1")]);
    list_all(&mut held, "before", &[Kind::Pod]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Complete, &["x@before=1"]));
    list_all(&mut held, "new", &[Kind::Pod]);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["y@new=1"]));
}

#[test]
fn r7_a_secret_stays_as_long_as_somebody_asks_for_it() {
    let mut held = given();
    let by_name = What::Secret("shop".into(), "tls".into());
    let by_label = What::Secrets([("rev".into(), "1".into())].into());
    assert!(!held.is_answered(&MGMT.into(), &by_name));
    for what in [&by_name, &by_label] {
        held.listed(&MGMT.into(), what, vec![told(Kind::Secret, MGMT, "tls", "1")]);
        assert!(held.is_answered(&MGMT.into(), what));
    }
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["tls@mgmt=1"]));
    held.forget(&MGMT.into(), &by_name);
    assert_eq!(held.batch(true), None);
    held.forget(&MGMT.into(), &by_label);
    assert_eq!(summary(held.batch(true)), lines(Extent::Changes, &["-tls@mgmt"]));
    // One that is not there is an answer too, and so is that nobody may know.
    held.listed(&MGMT.into(), &by_name, Vec::new());
    held.troubled(&MGMT.into(), &by_label, Trouble::Refused("\"forbidden\"".to_owned()));
    assert!(held.is_answered(&MGMT.into(), &by_name) && held.is_answered(&MGMT.into(), &by_label));
}

fn kept(held: &Held, cluster: &str) -> Recalled {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let current = held.kept(&cluster.into(), now, &[]).unwrap();
    // As it stands on the disk.
    let text = serde_json::to_string(&current).unwrap();
    let earlier: kept::Cluster<serde_json::Value> = serde_json::from_str(&text).unwrap();
    earlier.recall(&cluster.into()).unwrap()
}

#[test]
fn r10_r11_what_an_earlier_run_kept_is_in_force_until_everything_is_listed() {
    let mut before = given();
    let (pods, nodes) = (What::Kind(Kind::Pod), What::Kind(Kind::Node));
    let secret = What::Secret("shop".into(), "tls".into());
    before.listed(&MGMT.into(), &nodes, vec![told(Kind::Node, MGMT, "n", "1")]);
    before.listed(&MGMT.into(), &secret, vec![told(Kind::Secret, MGMT, "tls", "1")]);
    before.listed(&MGMT.into(), &What::Secret("shop".into(), "none".into()), Vec::new());

    let mut held = Held::new(&MGMT.into());
    held.troubled(&MGMT.into(), &pods, Trouble::Unreachable("\"refused\"".to_owned()));
    assert_eq!(held.batch(true), None);
    held.recall(&MGMT.into(), kept(&before, MGMT));
    assert!(held.is_managed() && held.missing().is_empty());
    let all = ["n@mgmt=1", "a@mgmt=1", "tls@mgmt=1"];
    let (extent, mut found) = summary(held.batch(true)).unwrap();
    found.sort();
    let mut wanted = all.map(str::to_owned).to_vec();
    wanted.sort();
    assert_eq!((extent, found), (Extent::Complete, wanted));
    assert!(held.is_answered(&MGMT.into(), &secret), "it is known");
    assert!(held.is_answered(&MGMT.into(), &What::Secret("shop".into(), "none".into())), "that there is none, too");
    let said = held.findings().iter().map(|finding| finding.message.clone()).collect::<String>();
    assert!(said.contains("as it was kept at 2026-01-01T00:00:00Z"), "{said}");

    // The server is back: nothing of it counts before every kind was listed.
    held.listed(&MGMT.into(), &pods, vec![told(Kind::Pod, MGMT, "a", "2")]);
    assert!(held.batch(true).is_none_or(|batch| batch.changes.is_empty()), "half of it is given");
    list_all(&mut held, MGMT, &[Kind::Pod]);
    assert_eq!(held.recalled(&MGMT.into()), None);
    let (extent, mut found) = summary(held.batch(true)).unwrap();
    found.sort();
    assert_eq!((extent, found), (Extent::Changes, vec!["-n@mgmt".to_owned(), "a@mgmt=2".to_owned()]));
}

#[test]
fn kinds_that_were_listed_count_before_what_was_kept() {
    let before = given();
    let mut held = Held::new(&MGMT.into());
    held.listed(&MGMT.into(), &What::Kind(Kind::Pod), vec![told(Kind::Pod, MGMT, "b", "9")]);
    held.recall(&MGMT.into(), kept(&before, MGMT));
    assert_eq!(summary(held.batch(true)), lines(Extent::Complete, &["b@mgmt=9"]));
}

#[test]
fn what_is_wrong_with_an_object_is_wrong_after_a_restart_too() {
    let manifest = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {"name": "a", "namespace": "shop"}, "spec": {"config": {"nope": 1}, "applyToRoutes": 3},
    });
    let (object, findings) = decode_value(manifest.clone(), &MGMT.into());
    let object = Arc::new(object.unwrap());
    assert!(!object.defects.is_empty());
    let text = Some(Arc::from(manifest.to_string()));
    let mut before = Held::new(&MGMT.into());
    let told = Told { object: object.clone(), findings: findings.clone(), text };
    before.listed(&MGMT.into(), &What::Kind(object.meta.id.kind), vec![told]);
    list_all(&mut before, MGMT, &[object.meta.id.kind]);
    let recalled = kept(&before, MGMT);
    assert!(same_content(&recalled.told[0].object, &object));
    assert_eq!(recalled.told[0].findings, findings);
}
