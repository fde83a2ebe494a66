use regex::bytes::Regex;

use super::*;

/// An expression for a whole text, in the syntax of the crate.
fn compiled(expression: &str) -> Regex {
    let expression = expression.replace(r"\C", r"(?s-u:.)");
    regex::bytes::RegexBuilder::new(&format!("^(?:{expression})$")).unicode(false).build().unwrap()
}

/// As policies are read: `*` stands for anything.
fn pattern(written: &str) -> TextPattern {
    let parts: Vec<&str> = written.split('*').collect();
    match parts.as_slice() {
        [whole] => TextPattern::Exact((*whole).into()),
        [head, ""] => TextPattern::Prefix((*head).into()),
        ["", tail] => TextPattern::Suffix((*tail).into()),
        parts => {
            let escaped: Vec<String> = parts.iter().map(|part| regex::escape(part)).collect();
            TextPattern::Regex(format!("(?s){}", escaped.join(".*")).into())
        }
    }
}

fn fits(written: &str) -> Regex {
    compiled(&regex::escape(written).replace(r"\*", r"\C*"))
}

/// All texts of some letters up to a length.
fn texts(letters: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last.iter().flat_map(|text| letters.iter().map(|letter| [text, &[*letter][..]].concat())).collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn every_text_fits_a_pattern_or_its_complement() {
    let texts = texts(b"ab\xff", 7);
    for written in [
        "a", "ab", "aba", "abbab", "a*", "ab*", "abaab*", "*a", "*ba", "*babba", "a*b", "ab*ba", "aba*aba", "*a*",
        "*ab*", "*aa*", "*aba*", "*abab*", "*aabaa*", "*abaab*", "a*a*a", "ab*bb*a", "*ab*ba*", "*a*b*a*", "a**b",
        "b*aba*",
    ] {
        let fits = fits(written);
        let unlike = compiled(&unlike(&pattern(written)).unwrap());
        for text in &texts {
            let shown = text.escape_ascii();
            assert_ne!(fits.is_match(text), unlike.is_match(text), "{written} {shown}");
        }
    }
}

#[test]
fn literals_are_no_expressions() {
    for (written, like, other) in [
        ("a.b", "a.b", "axb"),
        ("a.b*", "a.bc", "axbc"),
        ("*[^a]", "x[^a]", "b"),
        (r"*\*]-*", r"a\b]-c", "a]-c"),
        ("a.*^$*z", "a.b^$cz", "ab^$cz"),
        ("grün", "grün", "grun"),
        ("*ü", "grü", "gru"),
        ("a*ü*z", "aüz", "aüx"),
    ] {
        let unlike = compiled(&unlike(&pattern(written)).unwrap());
        assert!(fits(written).is_match(like.as_bytes()), "{written}");
        assert!(!unlike.is_match(like.as_bytes()), "{written} {like}");
        assert!(unlike.is_match(other.as_bytes()), "{written} {other}");
    }
    assert_eq!(unlike(&TextPattern::Any), None);
}

/// What a policy may hold stays short, whatever it is.
#[test]
fn long_patterns_have_short_complements() {
    let long = "0123456789abcdef".repeat(256);
    let unlike_long = unlike(&pattern(&long)).unwrap();
    assert!(unlike_long.len() < 32 * long.len(), "{}", unlike_long.len());
    let part = &long[..MAX_PART];
    let part = unlike(&pattern(&format!("*{part}*"))).unwrap();
    assert!(part.len() < 40 * MAX_PART, "{}", part.len());
    let many = unlike(&pattern(&format!("a{}", "*abaababaab".repeat(370)))).unwrap();
    assert!(many.len() < 2 * MAX_SEARCHES, "{}", many.len());
    // Heads within heads: each letter more would double it.
    let (mut shorter, mut fibonacci) = ("a".to_owned(), "ab".to_owned());
    while fibonacci.len() < 80 {
        (shorter, fibonacci) = (fibonacci.clone(), fibonacci + &shorter);
    }
    let unlike = unlike(&pattern(&format!("x*{fibonacci}*y"))).unwrap();
    assert!(unlike.len() < 100, "{unlike}");
    assert!(
        compiled(&unlike).is_match(b"xy-") && !compiled(&unlike).is_match(b"x-y"),
        "it counts as a further asterisk"
    );
}
