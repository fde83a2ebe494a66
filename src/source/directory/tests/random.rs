//! Whatever happens to files, in the end the changes add up to what a fresh look finds.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{Watched, manifests, options};
use crate::source::directory::{Options, read};

/// One thing that happens. Files and folders are numbered; what does not apply does nothing.
#[derive(Clone, Debug)]
enum Operation {
    Write {
        file: usize,
        object: u8,
        revision: u8,
    },
    Place {
        file: usize,
        object: u8,
        revision: u8,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Remove {
        file: usize,
    },
    RenameFolder {
        from: usize,
        to: usize,
    },
    RemoveFolder {
        folder: usize,
    },
    Link {
        file: usize,
        to: usize,
    },
    /// Waits for some batch, so that operations meet different states of the source.
    Next,
}

const FILES: [&str; 6] = ["a.yaml", "b.yaml", "west/a.yaml", "west/x/b.yaml", "east/a.yaml", "east/x/c.json"];
const FOLDERS: [&str; 5] = ["west", "east", "west/x", "east/x", "mgmt"];

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let file = 0..FILES.len();
    let folder = 0..FOLDERS.len();
    let operation = prop_oneof![
        4 => (file.clone(), 0..4_u8, 0..4_u8)
            .prop_map(|(file, object, revision)| Operation::Write { file, object, revision }),
        3 => (file.clone(), 0..4_u8, 0..4_u8)
            .prop_map(|(file, object, revision)| Operation::Place { file, object, revision }),
        2 => (file.clone(), file.clone()).prop_map(|(from, to)| Operation::Rename { from, to }),
        2 => file.clone().prop_map(|file| Operation::Remove { file }),
        1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Operation::RenameFolder { from, to }),
        1 => folder.prop_map(|folder| Operation::RemoveFolder { folder }),
        1 => (file.clone(), file).prop_map(|(file, to)| Operation::Link { file, to }),
        2 => Just(Operation::Next),
    ];
    prop::collection::vec(operation, 1..25)
}

/// Does one thing. It may fail, as things do.
async fn perform(watched: &mut Watched, operation: &Operation) {
    let files = &watched.files;
    let text = |object: u8, revision: u8| {
        manifests(&[(&format!("o{object}"), &revision.to_string()), (&format!("p{object}"), &revision.to_string())])
    };
    let with_folder = |file: usize| drop(fs::create_dir_all(files.path(FILES[file]).parent().unwrap()));
    match *operation {
        Operation::Write { file, object, revision } => {
            with_folder(file);
            drop(fs::write(files.path(FILES[file]), text(object, revision)));
        }
        Operation::Place { file, object, revision } => {
            with_folder(file);
            fs::write(files.beside("unplaced"), text(object, revision)).unwrap();
            drop(fs::rename(files.beside("unplaced"), files.path(FILES[file])));
        }
        Operation::Rename { from, to } => {
            with_folder(to);
            drop(fs::rename(files.path(FILES[from]), files.path(FILES[to])));
        }
        Operation::Remove { file } => drop(fs::remove_file(files.path(FILES[file]))),
        Operation::RenameFolder { from, to } => {
            drop(fs::rename(files.path(FOLDERS[from]), files.path(FOLDERS[to])));
        }
        Operation::RemoveFolder { folder } => drop(fs::remove_dir_all(files.path(FOLDERS[folder]))),
        Operation::Link { file, to } => {
            let target = files.path(FILES[to]);
            if file != to && target.is_file() && !target.is_symlink() {
                with_folder(file);
                drop(fs::remove_file(files.path(FILES[file])));
                drop(std::os::unix::fs::symlink(target, files.path(FILES[file])));
            }
        }
        Operation::Next => {
            let wanted = files.read();
            let quickly = std::time::Duration::from_millis(30);
            if watched.summary() != wanted
                && let Ok(batch) = tokio::time::timeout(quickly, watched.directory.next()).await
            {
                watched.take(batch);
            }
        }
    }
}

/// Links that lead nowhere keep objects that a fresh look does not know, so they are removed in the end.
fn remove_dangling_links(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path).unwrap();
        } else if path.is_dir() {
            remove_dangling_links(&path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48),
        max_shrink_iters: 20,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn changes_add_up_to_a_fresh_look(before in operations(), after in operations(), sweeps in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut empty = Watched::new(&[]);
            for operation in before.iter().filter(|operation| !matches!(operation, Operation::Next)) {
                perform(&mut empty, operation).await;
            }
            // Events alone must do; and who looks around all the time must not be in their way.
            let options = Options { resync: if sweeps { Duration::from_millis(2) } else { options().resync }, ..options() };
            let mut watched = Watched::open(empty.files, options.clone());
            for operation in &after {
                perform(&mut watched, operation).await;
            }
            // Once more for links to links.
            remove_dangling_links(&watched.files.root());
            remove_dangling_links(&watched.files.root());
            let fresh = read(&[watched.files.root()], &options).unwrap();
            let wanted = watched.files.read();
            let findings = fresh.findings.len();
            watched.until(|watched| watched.summary() == wanted && watched.findings.len() == findings).await;
        });
    }
}
