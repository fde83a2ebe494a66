//! Rows of single values. Whole tables stand in `src/cases/tables.md`.

use super::*;

#[test]
fn r77_weight_rows() {
    type Row<'a> = (&'a [u32], Result<&'a [u32], &'a str>);
    let over = "add up to";
    let nothing_left = "each gets at least 1";
    let rows: &[Row<'_>] = &[
        (&[0], Ok(&[100])),
        (&[30], Ok(&[100])),
        (&[100], Ok(&[100])),
        (&[101], Err(over)),
        (&[80, 20], Ok(&[80, 20])),
        (&[80, 0], Ok(&[80, 20])),
        (&[80, 15, 0], Ok(&[80, 15, 5])),
        (&[0, 0], Ok(&[50, 50])),
        (&[0, 0, 0], Ok(&[34, 33, 33])),
        (&[50, 0, 0, 0], Ok(&[50, 17, 17, 16])),
        (&[98, 0, 0], Ok(&[98, 1, 1])),
        (&[80, 30], Err(over)),
        (&[40, 40], Err(over)),
        (&[100, 0], Err(nothing_left)),
        (&[99, 0, 0], Err(nothing_left)),
        (&[u32::MAX, u32::MAX], Err(over)),
    ];
    for (written, expected) in rows {
        let destinations: Vec<_> = written
            .iter()
            .map(|weight| written_common::DestinationReference { weight: *weight, ..Default::default() })
            .collect();
        match (weights(&destinations), expected) {
            (Ok(shares), Ok(wanted)) => assert_eq!(shares, *wanted, "{written:?}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{written:?}: {message}"),
            (found, wanted) => panic!("{written:?}: {found:?}, expected {wanted:?}"),
        }
    }
}

#[test]
fn r79_a_body_stays_below_its_bound() {
    let direct = |bytes: usize| written::DirectResponse { status: 200, body: "x".repeat(bytes) };
    assert!(lower_direct(&direct(MAX_BODY), &FieldPath::root()).is_ok());
    let fault = lower_direct(&direct(MAX_BODY + 1), &FieldPath::root()).unwrap_err();
    assert!(fault.message.contains("1048577 bytes"), "{}", fault.message);
}

#[test]
fn r82_label_rows() {
    for key in ["a", "A.b_c-1", "example.com/a", "route", &"a".repeat(63)] {
        assert!(is_label_key(key), "{key}");
    }
    for key in ["", "/a", "a/", "-a", "a-", "a b", "exa_mple/a", "*.example.com/a", "a/b/c", &"a".repeat(64)] {
        assert!(!is_label_key(key), "{key}");
    }
    for value in ["", "a", "1.2-b_C", &"a".repeat(63)] {
        assert!(is_label_value(value), "{value}");
    }
    for value in ["-", "a.", "a/b", "a b", "ä", &"a".repeat(64)] {
        assert!(!is_label_value(value), "{value}");
    }
}

#[test]
fn r80_name_rows() {
    let mut names = BTreeMap::new();
    let rows = [("a", "a"), ("insecure-a", "duplicate-a-1"), ("a", "duplicate-a-2"), ("", "route-3"), ("b", "b")];
    for (index, (written, expected)) in rows.into_iter().enumerate() {
        assert_eq!(unique(written, index, &mut names), expected, "{written}");
    }
}

#[test]
fn r78_substitution_rows() {
    for (substitution, groups, part) in [
        ("/plain", 0, None),
        ("/\\1/\\0", 1, None),
        ("/\\2", 1, Some("names group 2, the expression has 1")),
        ("/\\\\", 0, None),
        ("/\\", 0, Some("followed by a digit")),
        ("/\\x", 0, Some("followed by a digit")),
        ("/a\nb", 0, Some("no line breaks")),
    ] {
        let found = bad_substitution(substitution, groups);
        match part {
            None => assert_eq!(found, None, "{substitution:?}"),
            Some(part) => assert!(found.as_ref().is_some_and(|m| m.contains(part)), "{substitution:?}: {found:?}"),
        }
    }
}
