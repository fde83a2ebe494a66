//! Watching: each way in which files change under programs and people.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use inotify::{Inotify, WatchMask};

use super::{BROKEN, Files, Watched, cluster, manifest, manifests, options};
use crate::model::Code;
use crate::source::directory::{Options, Watching};

#[tokio::test]
async fn an_edit_in_place() {
    let mut watched =
        Watched::new(&[("a.yaml", &manifests(&[("a", "1"), ("b", "1")])), ("c.yaml", &manifest("c", "1"))]);
    watched.expect(&[("a@mgmt", "1"), ("b@mgmt", "1"), ("c@mgmt", "1")], &[]).await;
    watched.files.write("a.yaml", &manifests(&[("a", "2"), ("b", "1")]));
    watched.expect(&[("a@mgmt", "2"), ("b@mgmt", "1"), ("c@mgmt", "1")], &[]).await;
    assert_eq!(watched.log, ["+a"], "only what changed is given");
}

#[tokio::test]
async fn an_edit_reads_the_edited_file_only() {
    let mut files = Vec::new();
    for number in 0..50 {
        files.push((format!("x/f{number}.yaml"), manifest(&format!("o{number}"), "1")));
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut watched = Watched::new(&files);
    watched.flush().await;
    let mut spy = Inotify::init().unwrap();
    spy.watches().add(watched.files.path("x"), WatchMask::OPEN).unwrap();
    watched.files.place("x/f7.yaml", &manifest("o7", "2"));
    watched.until(|watched| watched.summary()["o7@x"] == "2").await;
    watched.flush().await;
    drop(fs::File::open(watched.files.path("x/f0.yaml")).unwrap());
    let mut buffer = [0; 4096];
    let opened: Vec<_> = spy.read_events(&mut buffer).unwrap().map(|event| event.name.unwrap().to_owned()).collect();
    assert_eq!(opened, ["f7.yaml", "f0.yaml"], "the second is the test's own");
}

#[tokio::test]
async fn a_rename_into_place() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1"))]);
    watched.files.place("a.yaml", &manifest("a", "2"));
    watched.expect(&[("a@mgmt", "2")], &[]).await;
    watched.files.write("a.yaml.tmp", &manifest("a", "3"));
    watched.files.rename("a.yaml.tmp", "a.yaml");
    watched.expect(&[("a@mgmt", "3")], &[]).await;
    assert_eq!(watched.log, ["+a", "+a"]);
}

#[tokio::test]
async fn a_rename_into_place_does_not_wait_for_quiet() {
    let patient = Options { quiet: Duration::from_secs(3600), max_delay: Duration::from_secs(3600), ..options() };
    let mut watched = Watched::open(Files::new(&[("a.yaml", &manifest("a", "1"))]), patient);
    watched.files.place("a.yaml", &manifest("a", "2"));
    watched.expect(&[("a@mgmt", "2")], &[]).await;
}

#[tokio::test]
async fn a_save_as_vim_does_it() {
    let slow = Options { quiet: Duration::from_millis(300), ..options() };
    let mut watched = Watched::open(Files::new(&[("a.yaml", &manifest("a", "1"))]), slow);
    watched.files.write("4913", "");
    watched.files.remove("4913");
    watched.files.rename("a.yaml", "a.yaml~");
    watched.files.write("a.yaml", &manifest("a", "2"));
    watched.files.remove("a.yaml~");
    watched.expect(&[("a@mgmt", "2")], &[]).await;
    assert_eq!(watched.log, ["+a"], "the object never goes away");
}

#[tokio::test]
async fn an_update_of_a_mounted_config_map() {
    let files = Files::new(&[("..2026_01/a.yaml", &manifest("a", "1")), ("..2026_01/b.yaml", &manifest("b", "1"))]);
    files.link("..2026_01", "..data");
    files.link("..data/a.yaml", "a.yaml");
    files.link("..data/b.yaml", "b.yaml");
    let mut watched = Watched::open(files, options());
    for revision in ["2", "3"] {
        let (old, new) = (format!("..2026_0{}", revision.parse::<u8>().unwrap() - 1), format!("..2026_0{revision}"));
        watched.files.write(&format!("{new}/a.yaml"), &manifest("a", revision));
        watched.files.write(&format!("{new}/b.yaml"), &manifest("b", revision));
        watched.files.link(&new, "..data_tmp");
        watched.files.rename("..data_tmp", "..data");
        fs::remove_dir_all(watched.files.path(&old)).unwrap();
        watched.expect(&[("a@mgmt", revision), ("b@mgmt", revision)], &[]).await;
    }
    assert_eq!(watched.log, ["+a", "+b", "+a", "+b"]);
    // A key is added and another removed.
    watched.files.write("..2026_04/a.yaml", &manifest("a", "4"));
    watched.files.write("..2026_04/c.yaml", &manifest("c", "4"));
    watched.files.link("..2026_04", "..data_tmp");
    watched.files.rename("..data_tmp", "..data");
    watched.files.link("..data/c.yaml", "c.yaml");
    watched.files.remove("b.yaml");
    watched.expect(&[("a@mgmt", "4"), ("c@mgmt", "4")], &[]).await;
}

#[tokio::test]
async fn a_file_behind_a_link_is_watched_too() {
    let files = Files::new(&[("clusters.yaml", &cluster("west"))]);
    fs::create_dir(files.beside("shared")).unwrap();
    fs::write(files.beside("shared/a.yaml"), manifest("a", "1")).unwrap();
    fs::create_dir(files.path("mgmt")).unwrap();
    files.link(files.beside("shared"), "west");
    files.link(files.beside("shared/a.yaml"), "mgmt/link.yaml");
    let mut watched = Watched::open(files, options());
    fs::write(watched.files.beside("shared/a.yaml"), manifest("a", "2")).unwrap();
    watched.expect(&[("a@mgmt", "2"), ("a@west", "2"), ("west@mgmt", "")], &[]).await;
    fs::remove_file(watched.files.beside("shared/a.yaml")).unwrap();
    // Gone from the folder; but the link is still there and leads nowhere.
    watched.expect(&[("a@mgmt", "2"), ("west@mgmt", "")], &[Code::SyntaxError]).await;
    fs::write(watched.files.beside("shared/a.yaml"), manifest("a", "3")).unwrap();
    watched.expect(&[("a@mgmt", "3"), ("a@west", "3"), ("west@mgmt", "")], &[]).await;
}

#[tokio::test]
async fn a_folder_on_the_way_of_a_link_is_watched_too() {
    let files = Files::new(&[("clusters.yaml", &cluster("west")), ("west/x/b.yaml", &manifest("b", "1"))]);
    files.link(files.path("west/x/b.yaml"), "a.yaml");
    let mut watched = Watched::open(files, options());
    watched.files.rename("west", "away");
    watched.until(|watched| watched.codes().contains(&Code::SyntaxError)).await;
    watched.files.rename("away", "west");
    watched.expect(&[("b@mgmt", "1"), ("b@west", "1"), ("west@mgmt", "")], &[]).await;
    watched.files.rename("west", ".away");
    watched.files.write("west/x/b.yaml", &manifest("b", "2"));
    watched.expect(&[("b@mgmt", "2"), ("b@west", "2"), ("west@mgmt", "")], &[]).await;
}

#[tokio::test]
async fn a_half_written_file_is_never_seen() {
    let slow = Options { quiet: Duration::from_millis(300), max_delay: Duration::from_secs(1), ..options() };
    let mut watched = Watched::open(Files::new(&[("a.yaml", &manifests(&[("a", "1"), ("b", "1")]))]), slow);
    let mut file = OpenOptions::new().write(true).truncate(true).open(watched.files.path("a.yaml")).unwrap();
    file.write_all(manifest("a", "2").as_bytes()).unwrap();
    file.sync_all().unwrap();
    file.write_all(b"---\n").unwrap();
    file.write_all(manifest("b", "2").as_bytes()).unwrap();
    watched.expect(&[("a@mgmt", "2"), ("b@mgmt", "2")], &[]).await;
    assert_eq!(watched.log, ["+a", "+b"]);
}

#[tokio::test]
async fn an_emptied_file_waits_for_longer() {
    let slow = Options { max_delay: Duration::from_secs(3600), ..options() };
    let mut watched = Watched::open(Files::new(&[("a.yaml", &manifest("a", "1"))]), slow);
    let mut file = OpenOptions::new().write(true).truncate(true).open(watched.files.path("a.yaml")).unwrap();
    watched.flush().await;
    assert_eq!(watched.log, [""; 0], "an empty file is the first half of writing one");
    file.write_all(manifest("a", "2").as_bytes()).unwrap();
    watched.expect(&[("a@mgmt", "2")], &[]).await;
}

#[tokio::test]
async fn a_file_emptied_for_good_loses_its_objects() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1"))]);
    watched.files.write("a.yaml", "");
    watched.expect(&[], &[]).await;
}

#[tokio::test]
async fn a_syntax_error_keeps_the_last_good_objects() {
    let mut watched = Watched::new(&[("a.yaml", &manifests(&[("a", "1"), ("b", "1")])), ("new.yaml", BROKEN)]);
    watched.expect(&[("a@mgmt", "1"), ("b@mgmt", "1")], &[Code::SyntaxError]).await;
    watched.files.write("a.yaml", BROKEN);
    watched.expect(&[("a@mgmt", "1"), ("b@mgmt", "1")], &[Code::SyntaxError, Code::SyntaxError]).await;
    let location = watched.findings[0].location.clone().unwrap();
    assert!(&*location.file == "a.yaml" && location.line >= 2 && location.column > 0, "{location}");
    watched.files.write("a.yaml", &manifests(&[("a", "2"), ("b", "1")]));
    watched.files.write("new.yaml", &manifest("new", "1"));
    watched.expect(&[("a@mgmt", "2"), ("b@mgmt", "1"), ("new@mgmt", "1")], &[]).await;
    assert_eq!(watched.log.iter().filter(|line| line.contains('b')).count(), 0);
}

#[tokio::test]
async fn deleted_files_and_folders() {
    let mut watched = Watched::new(&[
        ("clusters.yaml", &cluster("west")),
        ("a.yaml", &manifest("a", "1")),
        ("west/x/b.yaml", &manifest("b", "1")),
        ("west/c.yaml", &manifest("c", "1")),
    ]);
    watched.files.remove("a.yaml");
    watched.expect(&[("b@west", "1"), ("c@west", "1"), ("west@mgmt", "")], &[]).await;
    fs::remove_dir_all(watched.files.path("west/x")).unwrap();
    watched.expect(&[("c@west", "1"), ("west@mgmt", "")], &[]).await;
    fs::remove_dir_all(watched.files.path("west")).unwrap();
    watched.expect(&[("west@mgmt", "")], &[]).await;
    watched.files.write("west/x/b.yaml", &manifest("b", "2"));
    watched.expect(&[("b@west", "2"), ("west@mgmt", "")], &[]).await;
}

#[tokio::test]
async fn new_and_moved_folders() {
    let mut watched = Watched::new(&[("clusters.yaml", &[cluster("west"), cluster("east")].join("---\n"))]);
    watched.files.write("west/deep/er/a.yaml", &manifest("a", "1"));
    watched.expect(&[("a@west", "1"), ("east@mgmt", ""), ("west@mgmt", "")], &[]).await;
    watched.files.rename("west", "east");
    watched.expect(&[("a@east", "1"), ("east@mgmt", ""), ("west@mgmt", "")], &[]).await;
    // Watches moved with it.
    watched.files.write("east/deep/er/a.yaml", &manifest("a", "2"));
    watched.expect(&[("a@east", "2"), ("east@mgmt", ""), ("west@mgmt", "")], &[]).await;
    // In from outside, and out.
    fs::create_dir(watched.files.beside("outside")).unwrap();
    fs::write(watched.files.beside("outside/b.yaml"), manifest("b", "1")).unwrap();
    fs::rename(watched.files.beside("outside"), watched.files.path("west")).unwrap();
    watched.expect(&[("a@east", "2"), ("b@west", "1"), ("east@mgmt", ""), ("west@mgmt", "")], &[]).await;
    fs::rename(watched.files.path("west"), watched.files.beside("outside")).unwrap();
    watched.expect(&[("a@east", "2"), ("east@mgmt", ""), ("west@mgmt", "")], &[]).await;
}

#[tokio::test]
async fn a_folder_moved_within_its_cluster_changes_nothing() {
    let mut watched = Watched::new(&[("mgmt/x/a.yaml", &manifest("a", "1")), ("mgmt/b.yaml", &manifest("b", "1"))]);
    watched.files.rename("mgmt/x", "mgmt/y");
    watched.flush().await;
    assert_eq!(watched.log, [""; 0]);
    let id = watched.objects.keys().next().unwrap().clone();
    let finding = crate::model::Finding::error(&id, Code::InvalidField, "no");
    assert_eq!(&*watched.directory.places().place(&finding).unwrap().file, "mgmt/y/a.yaml");
}

#[tokio::test]
async fn clusters_come_and_go() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1"))]);
    watched.files.write("west/b.yaml", &manifest("b", "1"));
    watched.expect(&[("a@mgmt", "1"), ("b@west", "1")], &[Code::ClusterNotRegistered]).await;
    watched.files.write("mgmt/west.yaml", &cluster("west"));
    watched.expect(&[("a@mgmt", "1"), ("b@west", "1"), ("west@mgmt", "")], &[]).await;
    watched.files.remove("mgmt/west.yaml");
    watched.expect(&[("a@mgmt", "1"), ("b@west", "1")], &[Code::ClusterNotRegistered]).await;
    watched.files.remove("west/b.yaml");
    watched.expect(&[("a@mgmt", "1")], &[]).await;
}

#[tokio::test]
async fn one_object_in_two_files() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("x", "a")), ("b.yaml", &manifest("x", "b"))]);
    watched.expect(&[("x@mgmt", "a")], &[Code::DuplicateObject]).await;
    assert_eq!(watched.findings[0].location.as_ref().unwrap().to_string(), "b.yaml:1:1");
    assert!(watched.findings[0].message.contains("`a.yaml:1:1`"), "{}", watched.findings[0].message);
    watched.files.write("b.yaml", &manifest("x", "b2"));
    watched.flush().await;
    assert_eq!(watched.log, [""; 0], "the other has no effect");
    watched.files.remove("a.yaml");
    watched.expect(&[("x@mgmt", "b2")], &[]).await;
    watched.files.write("a.yaml", &manifest("x", "a"));
    watched.expect(&[("x@mgmt", "a")], &[Code::DuplicateObject]).await;
}

#[tokio::test]
async fn an_unreadable_file_is_not_a_deleted_file() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1")), ("b.yaml", &manifest("b", "1"))]);
    watched.files.link("nowhere", "new");
    watched.files.rename("new", "a.yaml");
    watched.expect(&[("a@mgmt", "1"), ("b@mgmt", "1")], &[Code::SyntaxError]).await;
    watched.files.remove("b.yaml");
    fs::create_dir(watched.files.path("b.yaml")).unwrap();
    watched.until(|watched| watched.codes() == [Code::SyntaxError, Code::SyntaxError]).await;
    watched.files.place("a.yaml", &manifest("a", "2"));
    fs::remove_dir(watched.files.path("b.yaml")).unwrap();
    watched.expect(&[("a@mgmt", "2")], &[]).await;
}

#[tokio::test]
async fn a_file_that_grows_too_large_keeps_its_objects() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1"))]);
    fs::File::options().write(true).open(watched.files.path("a.yaml")).unwrap().set_len(100 << 20).unwrap();
    watched.expect(&[("a@mgmt", "1")], &[Code::LimitExceeded]).await;
    watched.files.write("a.yaml", &manifest("a", "2"));
    watched.expect(&[("a@mgmt", "2")], &[]).await;
}

#[tokio::test]
async fn the_directory_itself_disappears_and_returns() {
    let slow = Options { quiet: Duration::from_millis(100), ..options() };
    let files = Files::new(&[("clusters.yaml", &cluster("west")), ("west/a.yaml", &manifest("a", "1"))]);
    let mut watched = Watched::open(files, slow);
    let all = [("a@west", "1"), ("west@mgmt", "")];
    fs::remove_dir_all(watched.files.root()).unwrap();
    watched.expect(&all, &[Code::SyntaxError]).await;
    assert!(watched.findings[0].message.contains("stays in force"), "{}", watched.findings[0].message);
    // An empty one in its place is not yet its return.
    fs::create_dir(watched.files.root()).unwrap();
    watched.until(|watched| watched.findings[0].message.contains("replaced by one without manifests")).await;
    watched.expect(&all, &[Code::SyntaxError]).await;
    assert_eq!(watched.log, [""; 0]);
    // The new directory comes as a whole.
    fs::remove_dir(watched.files.root()).unwrap();
    fs::create_dir_all(watched.files.beside("new/west")).unwrap();
    fs::write(watched.files.beside("new/clusters.yaml"), cluster("west")).unwrap();
    fs::write(watched.files.beside("new/west/a.yaml"), manifest("a", "2")).unwrap();
    fs::rename(watched.files.beside("new"), watched.files.root()).unwrap();
    watched.expect(&[("a@west", "2"), ("west@mgmt", "")], &[]).await;
    assert_eq!(watched.log, ["+a"]);
    watched.files.write("west/a.yaml", &manifest("a", "3"));
    watched.expect(&[("a@west", "3"), ("west@mgmt", "")], &[]).await;
}

#[tokio::test]
async fn the_directory_is_a_link_that_is_switched() {
    let files = Files::new(&[]);
    fs::remove_dir(files.root()).unwrap();
    for release in ["1", "2"] {
        fs::create_dir_all(files.beside("releases").join(release)).unwrap();
        fs::write(files.beside("releases").join(release).join("a.yaml"), manifest("a", release)).unwrap();
    }
    std::os::unix::fs::symlink("releases/1", files.root()).unwrap();
    let mut watched = Watched::open(files, options());
    watched.expect(&[("a@mgmt", "1")], &[]).await;
    std::os::unix::fs::symlink("releases/2", watched.files.beside("switch")).unwrap();
    fs::rename(watched.files.beside("switch"), watched.files.root()).unwrap();
    watched.expect(&[("a@mgmt", "2")], &[]).await;
    assert_eq!(watched.log, ["+a"]);
}

#[tokio::test]
async fn polling_finds_the_same() {
    let polling = Options { watching: Watching::Polling, ..options() };
    let mut watched = Watched::open(Files::new(&[("a.yaml", &manifest("a", "1"))]), polling);
    watched.files.write("a.yaml", &manifest("a", "2"));
    watched.expect(&[("a@mgmt", "2")], &[]).await;
    watched.files.write("west/b.yaml", &manifest("b", "1"));
    watched.expect(&[("a@mgmt", "2"), ("b@west", "1")], &[Code::ClusterNotRegistered]).await;
    fs::remove_dir_all(watched.files.path("west")).unwrap();
    watched.expect(&[("a@mgmt", "2")], &[]).await;
}

/// A file may be written under a name that lies elsewhere, of which no event tells.
#[tokio::test]
async fn what_no_event_tells_is_found_by_looking_around() {
    let files = Files::new(&[("a.yaml", &manifest("a", "1")), ("west/b.yaml", &manifest("b", "1"))]);
    for (file, name) in [("a.yaml", "first"), ("west/b.yaml", "second")] {
        fs::hard_link(files.path(file), files.beside(name)).unwrap();
    }
    let codes = [Code::ClusterNotRegistered];
    let mut watched = Watched::open(files, Options { resync: Duration::from_millis(20), ..options() });
    fs::write(watched.files.beside("second"), manifest("b", "2")).unwrap();
    watched.expect(&[("a@mgmt", "1"), ("b@west", "2")], &codes).await;
    fs::write(watched.files.beside("first"), manifest("a", "2")).unwrap();
    watched.expect(&[("a@mgmt", "2"), ("b@west", "2")], &codes).await;
    assert_eq!(watched.log, ["+b", "+a"], "and nothing else is looked at twice");
}

#[tokio::test]
async fn a_storm_of_writes_ends_in_the_last() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "0"))]);
    for number in 0..500 {
        watched
            .files
            .write(&format!("f{}.yaml", number % 50), &manifest(&format!("o{}", number % 50), &number.to_string()));
    }
    let wanted = watched.files.read();
    watched.until(|watched| watched.summary() == wanted).await;
}

#[tokio::test]
async fn one_file_that_never_rests_does_not_hold_up_the_others() {
    let files = Files::new(&[("busy.yaml", &manifest("busy", "0"))]);
    let brisk = Options { quiet: Duration::from_millis(20), max_delay: Duration::from_millis(50), ..options() };
    let mut watched = Watched::open(files, brisk);
    let busy = watched.files.path("busy.yaml");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let mut file = OpenOptions::new().append(true).open(&busy).unwrap();
            file.write_all(b"\n").unwrap();
        }
    });
    watched.files.write("calm.yaml", &manifest("calm", "1"));
    watched.until(|watched| watched.summary().contains_key("calm@mgmt")).await;
    drop(stop);
    writer.join().unwrap();
}

#[tokio::test]
async fn waiting_may_be_given_up() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1"))]);
    for revision in 2..6 {
        watched.files.write("a.yaml", &manifest("a", &revision.to_string()));
        // Polled once and dropped.
        let given_up = tokio::time::timeout(Duration::ZERO, watched.directory.next()).await;
        if let Ok(batch) = given_up {
            watched.take(batch);
        }
    }
    watched.expect(&[("a@mgmt", "5")], &[]).await;
}

#[tokio::test]
async fn a_rename_within_the_directory_is_one_change() {
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "1")), ("x/keep.yaml", &manifest("keep", "1"))]);
    for (from, to) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml"), ("a.yaml", "c.yaml"), ("c.yaml", "a.yaml")] {
        watched.files.rename(from, to);
        watched.flush().await;
    }
    assert_eq!(watched.log, [""; 0], "the object stays what it was, under whichever name of the file");
    // Into another cluster's folder: gone there and new here, never both or none.
    watched.files.rename("a.yaml", "x/a.yaml");
    watched.until(|watched| !watched.log.is_empty()).await;
    assert_eq!(watched.log, ["-a", "+a"]);
}

#[tokio::test]
async fn a_burst_of_ten_thousand_edits_ends_in_the_last_of_each_with_few_batches() {
    const FILES: usize = 100;
    let file = |number: usize| format!("f{}.yaml", number % FILES);
    let object = |number: usize, revision: usize| manifest(&format!("o{}", number % FILES), &revision.to_string());
    let first: Vec<_> = (0..FILES).map(|number| (file(number), object(number, number))).collect();
    let first: Vec<_> = first.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut watched = Watched::new(&first);
    let begun = std::time::Instant::now();
    let (root, beside) = (watched.files.root(), watched.files.beside("unplaced"));
    let writer = std::thread::spawn(move || {
        for revision in FILES..10_000 + FILES {
            fs::write(&beside, object(revision, revision)).unwrap();
            fs::rename(&beside, root.join(file(revision))).unwrap();
        }
    });
    let mut batches = 0;
    let is_last = |watched: &Watched| {
        let summary = watched.summary();
        (0..FILES).all(|number| summary[&format!("o{number}@mgmt")] == (10_000 + number).to_string())
    };
    while !is_last(&watched) {
        watched.next().await;
        batches += 1;
    }
    // One at its beginning, and then at most one in two milliseconds, however many edits there are.
    let most = begun.elapsed().as_millis() / 2 + 1;
    assert!(batches <= most, "{batches} batches, at most {most} were to come");
    writer.join().unwrap();
    assert_eq!(watched.summary(), watched.files.read());
    assert_eq!(watched.codes(), []);
}

/// The system keeps only so many events for whoever does not read them.
#[tokio::test]
async fn what_happens_while_events_are_lost_is_found() {
    const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";
    let kept: usize = fs::read_to_string(QUEUE).unwrap().trim().parse().unwrap();
    let mut watched = Watched::new(&[("a.yaml", &manifest("a", "0")), ("b.yaml", &manifest("b", "0"))]);
    // Nobody takes the second batch, so nobody reads events.
    for revision in 0..kept + 2_000 {
        let name = ["a", "b"][revision % 2];
        watched.files.place(&format!("{name}.yaml"), &manifest(name, &format!("r{revision}")));
    }
    watched.files.write("west/c.yaml", &manifest("c", "1"));
    watched.files.write("a.yaml", &manifest("a", "2"));
    watched.files.remove("b.yaml");
    watched.expect(&[("a@mgmt", "2"), ("c@west", "1")], &[Code::ClusterNotRegistered]).await;
    watched.files.place("west/c.yaml", &manifest("c", "2"));
    watched.expect(&[("a@mgmt", "2"), ("c@west", "2")], &[Code::ClusterNotRegistered]).await;
}

#[tokio::test]
async fn an_edit_that_says_the_same_is_no_change() {
    let head = "apiVersion: networking.gloo.solo.io/v2\nkind: RouteTable\nmetadata: {name: t, namespace: shop}\n";
    let written = format!("{head}spec: {{hosts: [a.example], http: [{{name: r, directResponse: {{status: 200}}}}]}}\n");
    let mut watched = Watched::new(&[("t.yaml", &written)]);
    for same in [
        format!("# A remark.\n{written}"),
        format!("{head}spec:\n  http:\n  - directResponse: {{status: 200}}\n    name: r\n  hosts:\n  - a.example\n"),
        format!(
            "{head}spec: {{hosts: [a.example], weight: 0, http: [{{name: r, directResponse: {{status: '200'}}}}]}}\n"
        ),
    ] {
        watched.files.place("t.yaml", &same);
        watched.flush().await;
        assert_eq!(watched.log, [""; 0], "{same}");
    }
    watched.files.place("t.yaml", &written.replace("200", "201"));
    watched.until(|watched| watched.log == ["+t"]).await;
}
