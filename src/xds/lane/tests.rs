//! What a lane finds to send, given what its client wants and holds.

use super::*;
use crate::snapshot::diff::Objection;

fn resources(text: &str) -> Arc<Resources> {
    let resource = |(name, version)| {
        let (name, version) = (Name::from(name), Version::new(version));
        (name.clone(), Arc::new(Resource { name, version, body: "".into(), owners: Arc::from([]) }))
    };
    Arc::new(pairs(text).map(resource).collect())
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_whitespace().map(|pair| pair.split_once('@').unwrap())
}

/// Reason, resources, what is asked for, held, to be sent again and refused, and what comes of it.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

/// Runs one row; `asked` of `*` is the wildcard, `held` of `a@?` is an uncertain holding.
fn check((reason, existing, asked, held, again, refused, expected): Row<'_>) {
    let commons = Commons::default();
    // A type without a legacy wildcard.
    let mut lane = Lane::new(ResourceType::Route, Variant::Delta);
    lane.update(resources(existing), 1, &commons);
    let subscribe = asked.split_whitespace().map(Name::from).collect();
    let request = DeltaRequest { subscribe, ..DeltaRequest::default() };
    lane.subscribe(&request, &Limits::default(), &commons).unwrap();
    for (name, version) in pairs(held) {
        let holding = if version == "?" { Holding::Uncertain } else { Holding::Version(Version::new(version)) };
        lane.held.set(&name.into(), Some(holding), &lane.resources);
    }
    let objection = |version| Objection { version: Version::new(version), reason: "no".into(), exact: true };
    lane.refused = pairs(refused).map(|(name, version)| (name.into(), objection(version))).collect();
    lane.again = again.split_whitespace().map(Name::from).collect();
    let due = lane.due();
    let mut words: Vec<String> = due.iter().map(|resource| format!("{}@{}", resource.name, resource.version)).collect();
    words.extend(lane.held.gone(&lane.resources).map(|name| format!("-{name}")));
    words.extend(lane.lacking().iter().map(|name| format!("?{name}")));
    assert_eq!(words.join(" "), expected, "{reason}");
}

#[test]
fn rows() {
    for row in [
        ("first load", "a@1 b@1", "*", "", "", "", "a@1 b@1"),
        ("case 3: up to date", "a@1 b@1", "*", "a@1 b@1", "", "", ""),
        ("one changed", "a@1 b@2", "*", "a@1 b@1", "", "", "b@2"),
        ("case 22: one gone", "a@1", "*", "a@1 b@1", "", "", "-b"),
        ("case 12: nothing asked for", "a@1", "", "", "", "", ""),
        ("only what was asked for", "a@1 b@1", "b", "", "", "", "b@1"),
        ("case 18: missing", "a@1", "a c", "a@1", "", "", "?c"),
        ("held and gone is removed, not missing", "", "a", "a@1", "", "", "-a"),
        ("case 17: again although equal", "a@1", "a", "a@1", "a", "", "a@1"),
        ("again, but not asked for", "a@1", "", "", "a", "", ""),
        ("case 13: owed an answer, and gone", "", "*", "", "a", "", "?a"),
        ("case 6: refused is withheld", "a@2 b@1", "*", "a@1", "", "a@2", "b@1"),
        ("refused, then changed", "a@3", "*", "a@1", "", "a@2", "a@3"),
        ("refused, then back", "a@1", "*", "a@1", "", "a@2", ""),
        ("refused, and asked for again", "a@2", "a", "", "a", "a@2", "a@2"),
        ("uncertain is sent again", "a@1", "*", "a@?", "", "", "a@1"),
        ("uncertain and gone is removed", "", "*", "a@?", "", "", "-a"),
    ] {
        check(row);
    }
}

#[test]
fn what_is_asked_for_later_is_not_held() {
    let commons = Commons::default();
    let limits = Limits::default();
    let mut lane = Lane::new(ResourceType::Route, Variant::Delta);
    lane.update(resources("a@1 b@1 c@1"), 1, &commons);
    let request = |subscribe: &[&str], unsubscribe: &[&str]| DeltaRequest {
        subscribe: subscribe.iter().map(|name| Name::from(*name)).collect(),
        unsubscribe: unsubscribe.iter().map(|name| Name::from(*name)).collect(),
        ..DeltaRequest::default()
    };
    let mut take = |subscribe: &[&str], unsubscribe: &[&str]| {
        lane.subscribe(&request(subscribe, unsubscribe), &limits, &commons).unwrap();
        lane.again.clear();
        let due = lane.due().iter().map(|resource| resource.name.to_string()).collect::<Vec<_>>().join(" ");
        // It takes everything at once.
        lane.held.settle();
        due
    };
    assert_eq!(take(&["a"], &[]), "a");
    assert_eq!(take(&["b"], &["a"]), "b");
    assert_eq!(take(&["a"], &[]), "a", "dropped when it was given up");
    assert_eq!(take(&["*"], &[]), "c");
    assert_eq!(take(&[], &["*"]), "");
    assert_eq!(take(&["c"], &["b"]), "c");
    assert_eq!(take(&["*"], &["c"]), "b c", "given up and asked for at once");
}
