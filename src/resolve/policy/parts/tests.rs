use super::*;

fn at() -> FieldPath {
    FieldPath::new("f")
}

#[test]
fn stars_stand_for_any_run_of_characters() {
    use TextPattern::{Any, Exact, Prefix, Regex, Suffix};
    for (text, expected) in [
        ("a", Exact("a".into())),
        ("a.b", Exact("a.b".into())),
        ("*", Any),
        ("**", Any),
        ("a*", Prefix("a".into())),
        ("*a", Suffix("a".into())),
        ("a*b", Regex("(?s)a.*b".into())),
        ("*a*", Regex("(?s).*a.*".into())),
        ("a.b*c+", Regex(r"(?s)a\.b.*c\+".into())),
        ("(*)|x", Regex(r"(?s)\(.*\)\|x".into())),
    ] {
        assert_eq!(glob(&at(), text), Ok(expected), "{text}");
    }
    assert!(glob(&at(), "").is_err() && glob(&at(), "a\nb").is_err());
    assert!(glob(&at(), &format!("a*{}c*d", "b".repeat(10_000))).is_err(), "longer than an expression may be");
    assert!(glob(&at(), &"b".repeat(4096)).is_ok() && glob(&at(), &"b".repeat(4097)).is_err());
    assert!(edge_glob(&at(), "a*b").is_err() && edge_glob(&at(), "*a*").is_err());
    assert_eq!(edge_glob(&at(), "a*"), Ok(Prefix("a".into())));
}

#[test]
fn a_pattern_with_a_star_inside_takes_line_breaks_too() {
    let Ok(TextPattern::Regex(regex)) = glob(&at(), "a*b") else { panic!() };
    assert!(crate::resolve::expression::compile(&regex).unwrap().is_match(b"a\nb"), "or `notValues` could be evaded");
}

#[test]
fn urls_rows() {
    for (text, expected) in [
        ("https://a.example", (true, "a.example", 443, "/")),
        ("http://a.example", (false, "a.example", 80, "/")),
        ("HTTPS://A.Example:8443/keys?x=1", (true, "a.example", 8443, "/keys?x=1")),
        ("http://10.0.0.1:8080/a", (false, "10.0.0.1", 8080, "/a")),
        ("http://[fd00::1]/a", (false, "fd00::1", 80, "/a")),
        ("http://a?b", (false, "a", 80, "/?b")),
    ] {
        let url = url(&at(), text).unwrap_or_else(|fault| panic!("{text}: {}", fault.message));
        assert_eq!((url.tls, url.authority.host.as_str(), url.authority.port, url.path.as_str()), expected, "{text}");
    }
    for text in [
        "",
        "a.example/keys",
        "ftp://a.example",
        "https://",
        "https:///keys",
        "https://:443/",
        "https://user:word@a.example/",
        "https://a.example:0/",
        "https://a.example:65536/",
        "https://a.example:+80/",
        "https://a.example:/",
        "https://a b/",
        "https://a.example/a b",
        "https://a.example/\u{e9}",
        "https://a.example/a#b",
        "https://-a.example/",
        "https://a..example/",
        "https://[fd00::1/",
        "https://[::1]x/",
        "https://[a]/",
        "https://a\r\nx/",
    ] {
        assert!(url(&at(), text).is_err(), "{text:?}");
    }
    let message = url(&at(), "https://user:CANARY@a/").unwrap_err().message;
    assert!(!message.contains("CANARY"), "{message}");
}

#[test]
fn addresses_need_a_port() {
    let read = |text: &str| address(&at(), text).map(|address| (address.host.to_string(), address.port));
    assert_eq!(read("auth.shop.svc:9001").unwrap(), ("auth.shop.svc".to_owned(), 9001));
    assert_eq!(read("[::1]:1").unwrap(), ("::1".to_owned(), 1));
    for text in ["", "auth", "auth:", "auth:0", ":9001", "auth:9001/x", "http://auth:9001", "[::1]", "fd00::1:9001"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn blocks_are_canonical() {
    let shown = |text: &str| cidr(&at(), text).map(|block| format!("{}/{}", block.address, block.prefix));
    for (text, expected) in [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("255.255.255.255/0", "0.0.0.0/0"),
        ("fd00::1", "fd00::1/128"),
        ("fd00:1::1/16", "fd00::/16"),
        ("ffff::/0", "::/0"),
    ] {
        assert_eq!(shown(text).unwrap(), expected, "{text}");
    }
    for text in
        ["", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/+8", "10.1.2.3/8/8", "fd00::/129", "a/8", "10.0.0.0/-1"]
    {
        assert!(shown(text).is_err(), "{text}");
    }
}

#[test]
fn references_have_the_place_of_their_holder() {
    let holder = ObjectRef::new(Kind::JwtPolicy, "c1", "shop", "p");
    let read = |name: &str, namespace: &str, cluster: &str| {
        let written =
            ObjectReference { name: name.to_owned(), namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        reference(&at(), Kind::Secret, &written, &holder).map(|found| found.to_string())
    };
    assert_eq!(read("s", "", "").unwrap(), "Secret/shop/s@c1");
    assert_eq!(read("s", "team", "c2").unwrap(), "Secret/team/s@c2");
    assert_eq!(read("", "team", "").unwrap_err().field.as_str(), "f.name");
}

#[test]
fn a_host_header_and_pseudo_headers_are_not_set() {
    assert_eq!(settable_header(&at(), "X-User").unwrap(), "x-user");
    for name in ["Host", ":path", ":authority", "", "x user", "x\r\ny: z"] {
        assert!(settable_header(&at(), name).is_err(), "{name:?}");
    }
}

#[test]
fn user_texts_in_messages_are_short_and_on_one_line() {
    let shown = quoted(&format!("a\nb{}", "c".repeat(200)));
    assert!(shown.starts_with("`a b") && shown.chars().count() < 70 && !shown.contains('\n'), "{shown}");
}
