//! Who is heard and for how long, and when something is said.

use super::super::programmed::Standings;
use super::super::voice::Generations;
use super::*;

fn listed(name: &str, version: &str, document: &str) -> Listed {
    Listed { name: name.to_owned(), version: version.to_owned(), document: document.to_owned() }
}

/// What a replica says with this many objects.
fn said(objects: i64) -> String {
    let mut generations = Generations::default();
    let id = "RouteTable/shop/cart@mgmt".parse().expect("an object");
    (0..objects).for_each(|generation| generations.add(&id, generation));
    Voice::text(&generations, &Standings::new(), &[], &[])
}

#[test]
fn who_is_silent_counts_no_more_and_only_time_with_answers_is_counted() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let (text, mut hearing) = (said(1), Hearing::default());
    let mut hears = |second, version: &str| {
        let forgotten = hearing.take(vec![listed("one", version, &text)], at(second));
        (hearing.heard().len(), hearing.revision, forgotten.len())
    };
    assert_eq!(hears(0, "1"), (1, 1, 0));
    assert_eq!(hears(5, "1"), (1, 1, 0));
    // A beat.
    assert_eq!(hears(10, "2"), (1, 1, 0));
    assert_eq!(hears(18, "2"), (1, 1, 0));
    // The API server was away for an hour: that is not the other's silence.
    assert_eq!(hears(18 + 3600, "3"), (1, 1, 0));
    assert_eq!(hears(18 + 7200, "3"), (1, 1, 0));
    assert_eq!(hears(18 + 7206, "3"), (0, 2, 0), "silent for 16 s of which something was heard");
    assert_eq!(hears(18 + 7210, "4"), (1, 3, 0), "it is back");
    for second in (0..600).step_by(10) {
        assert_eq!(hears(18 + 7220 + second, "4").2, usize::from(second == 590), "after {second} s");
    }
}

#[test]
fn who_said_something_last_comes_first_and_who_is_gone_is_not_heard() {
    let (begin, mut hearing) = (Instant::now(), Hearing::default());
    let objects = |hearing: &Hearing| -> Vec<usize> {
        let own = Generations::default();
        hearing.heard().iter().map(|voice| usize::from(own.differing(voice).is_empty())).collect()
    };
    // One says that it has no object, the other that it has one.
    hearing.take(vec![listed("one", "1", &said(0))], begin);
    hearing.take(vec![listed("one", "1", &said(0)), listed("two", "2", &said(1))], begin);
    assert_eq!(objects(&hearing), [0, 1]);
    // A beat is nothing new.
    hearing.take(vec![listed("one", "3", &said(0)), listed("two", "2", &said(1))], begin);
    assert_eq!((objects(&hearing), hearing.revision), (vec![0, 1], 2));
    hearing.take(vec![listed("two", "2", &said(1))], begin);
    assert_eq!((objects(&hearing), hearing.revision), (vec![0], 3));
}

#[test]
fn what_cannot_be_read_is_no_voice_and_disturbs_no_other() {
    let (begin, mut hearing) = (Instant::now(), Hearing::default());
    let strange = ["{\"format\": 2}", "", "not JSON"].map(|text| listed(&format!("{text:?}"), "1", text));
    hearing.take(strange.into_iter().chain([listed("one", "1", &said(1))]).collect(), begin);
    assert_eq!((hearing.heard().len(), hearing.known.len()), (1, 4));
}

#[test]
fn something_is_said_when_it_is_another_and_not_more_often_than_once_a_second() {
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let mut speech = Speech::default();
    assert_eq!(speech.next(None, at(0)), Act::Nothing);
    assert_eq!(speech.next(Some("a"), at(0)), Act::Write);
    (speech.said, speech.at) = (Some("a".to_owned()), Some(at(0)));
    for (wanted, millis, expected) in [
        (Some("a"), 4999, Act::Nothing),
        (Some("a"), 5000, Act::Beat),
        (Some("b"), 999, Act::Nothing),
        (Some("b"), 1000, Act::Write),
        (None, 10, Act::Remove),
    ] {
        assert_eq!(speech.next(wanted, at(millis)), expected, "{wanted:?} after {millis} ms");
    }
    speech.pause = Some(at(60_000));
    assert_eq!(speech.next(Some("b"), at(59_999)), Act::Nothing);
    assert_eq!(speech.next(Some("b"), at(60_000)), Act::Write);
}

#[test]
fn an_object_of_a_replica_has_a_name_that_an_api_server_takes() {
    assert_eq!(name_of("chancery-7d4b9_1"), "chancery-gateways-chancery-7d4b9-1");
    assert_eq!(name_of("Häuser.local_77"), "chancery-gateways-h-user-local-77");
    assert!(name_of(&format!("{}_1", "x".repeat(400))).len() <= 253);
}
