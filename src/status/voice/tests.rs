//! Documents: what they hold, what they leave out, and which are not read.

use super::*;
use crate::model::{GatewayId, Kind};

fn table(number: usize) -> ObjectRef {
    ObjectRef::new(Kind::RouteTable, "mgmt", "shop", format!("table-{number}").as_str())
}

fn key() -> GatewayKey {
    let gateway = GatewayId::new("mgmt", "edge", vec!["web".into()]);
    GatewayKey { gateway, bind: "0.0.0.0".into(), envoy: EnvoyRelease::NEWEST }
}

fn generations(objects: usize) -> Generations {
    let mut generations = Generations::default();
    for number in 0..objects {
        generations.add(&table(number), 1);
    }
    generations
}

fn refused(words: &str, objects: usize) -> Refused {
    let blamed = (0..objects).map(|number| Blamed { object: table(number), generation: 1 });
    let who = Who::of(["envoy-1".into(), "envoy-2".into()].iter());
    Refused {
        envoy: (1, 40),
        class: None,
        type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".to_owned(),
        name: "route/80".into(),
        version: "1".to_owned(),
        words: words.to_owned(),
        nodes: [("mgmt/edge/web".to_owned(), who)].into(),
        blamed: blamed.collect(),
        is_kept: true,
    }
}

#[test]
fn what_is_said_is_heard_as_it_was_said() {
    let behind = [(table(1), Standing::Behind), (table(2), Standing::Refused)];
    let groups = vec![
        Group { nodes: [1, u64::MAX].into(), ..Group::default() },
        Group { nodes: [7].into(), lacks: behind.into(), ..Group::default() },
    ];
    let standings = Standings::from([(key(), groups)]);
    let about = Blamed { object: table(3), generation: 4 };
    let told = Told { about, severity: Severity::Warning, code: Code::PolicyRemark, message: "it waits".to_owned() };
    let text = Voice::text(&generations(3), &standings, &[refused("\"no\"", 2)], std::slice::from_ref(&told));
    let voice = Voice::read(&text).expect("a voice");
    assert_eq!(
        (&voice.standings, &voice.refusals[..], &voice.findings[..]),
        (&standings, &[refused("\"no\"", 2)][..], &[told][..])
    );
    assert!(generations(3).differing(&voice).is_empty());
}

#[test]
fn where_generations_differ_is_known_by_object() {
    let mut own = generations(1000);
    let voice = Voice::read(&Voice::text(&own, &Standings::new(), &[], &[])).expect("a voice");
    own.remove(&table(7), 1);
    own.add(&table(7), 2);
    own.add(&table(1000), 1);
    let differing = own.differing(&voice);
    assert!(differing.contains(&table(7)) && differing.contains(&table(1000)));
    let others = (0..1000).filter(|number| differing.contains(&table(*number))).count();
    assert!(others <= 10, "{others} of 1,000 count as others because of two");
    own.remove(&table(7), 2);
    own.add(&table(7), 1);
    own.remove(&table(1000), 1);
    assert!(own.differing(&voice).is_empty());
}

#[test]
fn what_is_too_much_is_left_out_and_counts_as_behind() {
    let lacks: BTreeMap<ObjectRef, Standing> = (0..50_000).map(|number| (table(number), Standing::Behind)).collect();
    let whole = Group { nodes: (0..20_000).collect(), ..Group::default() };
    let partial = Group { nodes: (20_000..20_003).collect(), lacks, ..Group::default() };
    let standings = Standings::from([(key(), vec![whole, partial])]);
    let words = "é\"".repeat(10_000);
    let refusals: Vec<Refused> = (0..500).map(|_| refused(&words, 300)).collect();
    let text = Voice::text(&generations(50_000), &standings, &refusals, &[]);
    assert!(text.len() <= LONGEST, "{} bytes", text.len());
    let voice = Voice::read(&text).expect("a voice");
    let groups = &voice.standings[&key()];
    let numbers: Vec<usize> = groups.iter().map(|group| group.nodes.len() + group.more).collect();
    assert_eq!(numbers, [20_000, 3], "none is lost");
    assert!(!groups[0].is_cut && groups[1].is_cut && !groups[1].lacks.is_empty());
    assert!(!voice.refusals.is_empty() && voice.refusals.iter().all(|refused| refused.words.len() <= WORDS));
}

#[test]
fn what_no_replica_of_this_version_says_is_not_heard() {
    let good = Voice::text(&generations(1), &Standings::from([(key(), Vec::new())]), &[refused("no", 1)], &[]);
    assert!(Voice::read(&good).is_ok());
    assert_eq!(Voice::read(&good.replacen("\"format\":1", "\"format\":2", 1)), Err(Unheard::Format(2)));
    assert_eq!(Voice::read("{\"format\": 9, \"anything\": []}"), Err(Unheard::Format(9)));
    let long = format!("{good}{}", " ".repeat(LONGEST));
    assert_eq!(Voice::read(&long), Err(Unheard::TooLong(long.len())));
    let broken = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        good.replace("mgmt/edge/web", "nothing"),
        good.replace("0.0.0.0", "everywhere"),
        good.replace("RouteTable/", "Nothing/"),
        good.replace("\"objects\":\"", "\"objects\":\"x"),
        good.replace("\"objects\":\"", "\"objects\":\"00000000"),
    ];
    for text in broken {
        assert!(matches!(Voice::read(&text), Err(Unheard::Broken(_))), "{text}");
    }
}

#[test]
fn gateways_that_two_replicas_name_are_one() {
    let mut own = Who::of(["a".into(), "b".into()].iter());
    own.join(&Who { count: 30, named: ["b".to_owned(), "c".to_owned()].into() });
    assert_eq!((own.count, own.named.len()), (31, 3));
}
