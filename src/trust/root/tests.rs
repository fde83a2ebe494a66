use super::*;
use crate::ir::trust::KeyType;

const DAY: i64 = 86_400;

/// The first day of 2026.
const NOW: i64 = 1_767_225_600;

/// Ten days, of which one is left when a successor is made.
fn terms() -> Terms {
    Terms { days: 10, key: KeyType::EcdsaP256, organization: "gloo-mesh".into(), renew_with_left: 100_000 }
}

fn file() -> (tempfile::TempDir, RootFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = RootFile::of(&folder.path().join("state"));
    (folder, file)
}

#[test]
fn r191_a_root_is_kept_and_found_again() {
    let (_folder, file) = file();
    assert_eq!(file.load().unwrap(), []);
    let root = Root::make(&terms(), NOW).unwrap();
    file.save(std::slice::from_ref(&root)).unwrap();
    assert_eq!(file.load().unwrap(), std::slice::from_ref(&root));
    let mode = std::fs::metadata(&file.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{root:?}").contains("BEGIN"), "keys never print");
    let trusted = trusted(&[root], NOW);
    assert!(
        !String::from_utf8(trusted.expose().to_vec()).unwrap().contains("PRIVATE"),
        "only the certificate is trusted"
    );
}

#[test]
fn r191_a_root_that_is_there_and_not_understood_is_left_as_it_is() {
    let (_folder, file) = file();
    let [one, two] = [(); 2].map(|()| Root::make(&terms(), NOW).unwrap());
    file.save(std::slice::from_ref(&one)).unwrap();
    let text = std::fs::read_to_string(&file.path).unwrap();
    let foreign = [two.certificate.expose(), one.key.expose()].concat();
    for (bad, expected) in [
        (Vec::new(), "it holds no root"),
        (b"CANARY".to_vec(), "it holds no root"),
        (text.as_bytes()[..text.len() / 2].to_vec(), ""),
        (one.certificate.expose().to_vec(), "a certificate has no key"),
        (foreign, "a key is not that of its certificate"),
        (vec![b'x'; 2 << 20], "too long"),
        (vec![0xff; 100], ""),
    ] {
        std::fs::write(&file.path, &bad).unwrap();
        let said = file.load().unwrap_err().to_string();
        assert!(said.contains(expected) && !said.contains("CANARY") && !said.contains("BEGIN"), "{said}");
        assert_eq!(std::fs::read(&file.path).unwrap(), bad);
    }
}

#[test]
fn r191_a_key_that_others_may_read_is_taken_from_them() {
    let (_folder, file) = file();
    file.save(&[Root::make(&terms(), NOW).unwrap()]).unwrap();
    std::fs::set_permissions(&file.path, Permissions::from_mode(0o644)).unwrap();
    file.load().unwrap();
    assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn r191_a_place_that_cannot_be_written_is_an_error_and_keeps_what_it_has() {
    let (folder, _) = file();
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, "no directory").unwrap();
    let root = Root::make(&terms(), NOW).unwrap();
    let said = RootFile::of(&blocked).save(&[root]).unwrap_err().to_string();
    assert!(said.contains("root.pem") && !said.contains("BEGIN"), "{said}");
    assert_eq!(std::fs::read_to_string(&blocked).unwrap(), "no directory");
}

/// R191: first trust both, then sign with the new one, then drop the old one.
#[test]
fn r191_a_successor_is_trusted_before_it_signs() {
    let terms = terms();
    let old = Root::make(&terms, NOW).unwrap();
    let mut roots = vec![old.clone()];
    let signs = |roots: &[Root], root: &Root, now| {
        signing(roots, &terms, now).unwrap().certificate.expose() == root.certificate.expose()
    };
    let trusts = |roots: &[Root], now| CertificateDer::pem_slice_iter(trusted(roots, now).expose()).count();
    assert!(!needs_another(&roots, &terms, NOW + 8 * DAY));
    let first = next_change(&roots, &terms, NOW).unwrap();
    assert!(first > NOW + 8 * DAY && first < NOW + 10 * DAY);
    assert!(needs_another(&roots, &terms, first));

    let new = Root::make(&terms, first).unwrap();
    roots.push(new.clone());
    assert!(!needs_another(&roots, &terms, first));
    assert_eq!(trusts(&roots, first), 2);
    assert!(signs(&roots, &old, first), "the old one signs while everybody learns of the new one");
    let second = next_change(&roots, &terms, first).unwrap();
    assert!(second < old.ends && signs(&roots, &new, second) && trusts(&roots, second) == 2);
    let third = next_change(&roots, &terms, second).unwrap();
    assert_eq!((third, trusts(&roots, third)), (old.ends, 1));

    // Nothing is left: the newest goes on signing, since none would be worse.
    let late = NOW + 1000 * DAY;
    assert!(signs(&roots, &new, late) && trusts(&roots, late) == 1 && needs_another(&roots, &terms, late));
}
