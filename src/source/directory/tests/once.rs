//! Loading once.

use std::fs::File;
use std::time::{Duration, Instant};

use super::{BROKEN, Files, cluster, manifest, manifests, options, summarise, summary};
use crate::model::{Code, Severity};
use crate::source::directory::{Directory, Loaded, Options, SourceError, read};

fn load(files: &Files) -> Loaded {
    read(&[files.root()], &options()).unwrap()
}

fn codes(loaded: &Loaded) -> Vec<Code> {
    loaded.findings.iter().map(|finding| finding.code).collect()
}

fn found(loaded: &Loaded) -> super::Summary {
    summarise(loaded.objects.iter().map(|object| &**object))
}

#[test]
fn folders_are_clusters() {
    let files = Files::new(&[
        ("a.yaml", &manifest("a", "1")),
        ("clusters.yaml", &[cluster("west"), cluster("east")].join("---\n")),
        ("mgmt/b.yml", &manifest("b", "1")),
        ("west/c.json", &manifest("c", "1")),
        ("west/deep/er/d.yaml", &manifest("d", "1")),
        ("east/a.yaml", &manifest("a", "2")),
    ]);
    let loaded = load(&files);
    let expected = [
        ("a@east", "2"),
        ("a@mgmt", "1"),
        ("b@mgmt", "1"),
        ("c@west", "1"),
        ("d@west", "1"),
        ("east@mgmt", ""),
        ("west@mgmt", ""),
    ];
    assert_eq!(found(&loaded), summary(&expected));
    assert_eq!(loaded.findings, []);
    assert!(loaded.objects.is_sorted_by_key(|object| object.meta.id.clone()));
    assert_eq!(loaded.files.len(), 6);
    let root = files.root();
    let other = read(&[root], &Options { management: "hub".into(), ..options() }).unwrap();
    assert!(found(&other).contains_key("a@hub") && found(&other).contains_key("b@mgmt"));
}

#[test]
fn what_is_not_a_manifest_is_not_read() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1"))]);
    for name in [".hidden.yaml", ".git/x.yaml", "a.yaml~", "#a.yaml#", "4913", "b.yaml.tmp", "old~/x.yaml", "notes.txt"]
    {
        files.write(name, &manifest("z", "1"));
    }
    files.write("docs/readme.md", "no manifests here, so no cluster");
    let loaded = load(&files);
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1")]));
    assert_eq!(loaded.findings, []);
}

#[test]
fn a_folder_without_a_kubernetes_cluster_is_reported() {
    let files = Files::new(&[("west/a.yaml", &manifest("a", "1")), ("west/cluster.yaml", &cluster("west"))]);
    let loaded = load(&files);
    assert_eq!(codes(&loaded), [Code::ClusterNotRegistered], "only the management cluster registers clusters");
    let finding = &loaded.findings[0];
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.location.as_ref().unwrap().file.ends_with("conf/west"));
    assert!(finding.message.contains("`metadata.name: west`"), "{}", finding.message);
}

#[test]
fn the_first_place_of_an_object_counts() {
    let files = Files::new(&[
        ("b.yaml", &manifests(&[("x", "b1"), ("x", "b2")])),
        ("a/a.yaml", &manifest("x", "elsewhere")),
        ("mgmt/a.yaml", &manifest("x", "m")),
        ("b-1.yaml", &manifest("x", "first")),
    ]);
    files.write("clusters.yaml", &cluster("a"));
    let loaded = load(&files);
    assert_eq!(found(&loaded)["x@mgmt"], "first");
    assert_eq!(codes(&loaded), [Code::DuplicateObject; 3]);
    for finding in &loaded.findings {
        assert!(finding.message.contains("conf/b-1.yaml:1:1"), "{}", finding.message);
        assert!(!finding.location.as_ref().unwrap().file.ends_with("b-1.yaml"));
    }
}

#[test]
fn a_broken_file_spoils_nothing_else() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1")), ("b.yaml", BROKEN)]);
    let loaded = load(&files);
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1")]));
    assert_eq!(codes(&loaded), [Code::SyntaxError]);
    let location = loaded.findings[0].location.clone().unwrap();
    assert!(location.file.ends_with("b.yaml") && location.line >= 2 && location.column > 0, "{location}");
}

#[test]
fn what_cannot_be_read_is_reported() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1"))]);
    std::fs::create_dir(files.path("folder.yaml")).unwrap();
    files.link("nowhere", "dangling.yaml");
    files.link("loop.yaml", "loop.yaml");
    files.link(".", "mgmt");
    let loaded = load(&files);
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1")]));
    assert_eq!(codes(&loaded), [Code::SyntaxError; 4], "{:?}", loaded.findings);
}

#[test]
fn links_are_followed_and_loops_are_not() {
    let files = Files::new(&[("clusters.yaml", &cluster("west"))]);
    std::fs::create_dir_all(files.beside("shared/deep")).unwrap();
    std::fs::write(files.beside("shared/deep/a.yaml"), manifest("a", "1")).unwrap();
    files.link(files.beside("shared"), "west");
    files.link(files.beside("shared/deep"), "mgmt");
    std::os::unix::fs::symlink("..", files.beside("shared/deep/up")).unwrap();
    let loaded = load(&files);
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1"), ("a@west", "1"), ("west@mgmt", "")]));
    assert!(codes(&loaded).iter().all(|code| *code == Code::SyntaxError) && !loaded.findings.is_empty());
}

#[test]
fn a_mounted_config_map_is_read_once() {
    let files = Files::new(&[("..2026_01/a.yaml", &manifest("a", "1"))]);
    files.link("..2026_01", "..data");
    files.link("..data/a.yaml", "a.yaml");
    let loaded = load(&files);
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1")]));
    assert_eq!(loaded.findings, []);
}

#[test]
fn a_huge_file_is_refused_unread() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1"))]);
    File::create(files.path("huge.yaml")).unwrap().set_len(100 << 20).unwrap();
    let start = Instant::now();
    let loaded = load(&files);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(found(&loaded), summary(&[("a@mgmt", "1")]));
    assert_eq!(codes(&loaded), [Code::LimitExceeded]);
    assert!(loaded.findings[0].message.contains("104857600 bytes"), "{}", loaded.findings[0].message);
}

#[test]
fn limits_cut_in_path_order() {
    let files = Files::new(&[
        ("a.yaml", &manifest("a", "1")),
        ("b.yaml", &manifest("b", "1")),
        ("c.yaml", &manifest("c", "1")),
    ]);
    let root = [files.root()];
    let few = read(&root, &Options { max_files: 2, ..options() }).unwrap();
    assert_eq!(found(&few), summary(&[("a@mgmt", "1"), ("b@mgmt", "1")]));
    assert_eq!(codes(&few), [Code::LimitExceeded]);
    let bytes = 2 * manifest("a", "1").len() as u64;
    let small = read(&root, &Options { max_bytes: bytes, ..options() }).unwrap();
    assert_eq!(found(&small), summary(&[("a@mgmt", "1"), ("b@mgmt", "1")]));
    assert_eq!(codes(&small), [Code::LimitExceeded]);
}

#[test]
fn files_can_be_given_one_by_one() {
    let files = Files::new(&[("west/a.yaml", &manifest("a", "1")), ("clusters.yaml", &cluster("west"))]);
    let alone = read(&[files.path("west/a.yaml")], &options()).unwrap();
    assert_eq!(found(&alone), summary(&[("a@mgmt", "1")]));
    assert_eq!(alone.findings, []);
    let inside =
        read(&[files.path("west/a.yaml"), files.root(), files.path("west/../west/a.yaml")], &options()).unwrap();
    assert_eq!(found(&inside), summary(&[("a@west", "1"), ("west@mgmt", "")]));
    assert_eq!(inside.findings, []);
    let twice = read(&[files.path("west/a.yaml"), files.path("./west/a.yaml")], &options()).unwrap();
    assert_eq!(twice.findings, []);
}

#[test]
fn what_does_not_exist_is_an_error() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1"))]);
    let missing = files.path("missing");
    let not_a_directory = files.path("a.yaml");
    for (error, message) in [
        (
            read(std::slice::from_ref(&missing), &options()).unwrap_err(),
            format!("`{}` does not exist", missing.display()),
        ),
        (Directory::open(&missing, options()).unwrap_err(), format!("`{}` does not exist", missing.display())),
        (
            Directory::open(&not_a_directory, options()).unwrap_err(),
            format!("`{}` is not a directory", not_a_directory.display()),
        ),
    ] {
        assert_eq!(error.to_string(), message);
    }
    let error = read(&[not_a_directory.join("x")], &options()).unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }));
}

#[test]
fn two_thousand_files_load_the_same_each_time() {
    let files = Files::new(&[]);
    for number in 0..2000 {
        // Every third object is defined twice.
        let twice = (number / 3 * 2).to_string();
        files.write(
            &format!("{}/f{number}.yaml", ["mgmt", "west"][number % 2]),
            &manifests(&[(&format!("o{number}"), "1"), (&format!("t{twice}"), &number.to_string())]),
        );
    }
    let first = load(&files);
    assert!(first.objects.len() > 3000);
    for _ in 0..3 {
        let again = load(&files);
        assert_eq!(again.objects, first.objects);
        assert_eq!(again.findings, first.findings);
    }
}

#[test]
fn findings_of_others_get_a_place() {
    let files = Files::new(&[("a.yaml", &manifests(&[("a", "1"), ("b", "1")]))]);
    let loaded = load(&files);
    let id = &loaded.objects[1].meta.id;
    let mut findings = vec![crate::model::Finding::error(id, Code::InvalidField, "no")];
    let place = loaded.places.place(&findings[0]).unwrap();
    assert!(place.file.ends_with("conf/a.yaml") && place.line > 7, "{place}");
    loaded.places.locate(&mut findings);
    assert_eq!(findings[0].location, Some(place));
}
