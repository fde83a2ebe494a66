//! Two replicas that tell each other of their gateways, without an API server between them.

use super::*;
use crate::app::exchange::Others;
use crate::status::programmed::{Programmed, standings};
use crate::status::voice::Voice;

/// One of them.
struct Replica {
    world: World,
    others: Others,
}

impl Replica {
    fn start(first: Paths<'_>) -> Self {
        let world = world(first);
        let (shared, events) = (world.witness.shared.clone(), world.witness.events.clone());
        let others = Others::new(shared, world.publisher.clone(), events);
        Self { world, others }
    }

    /// What it says, as it is sent.
    fn says(&mut self) -> Option<String> {
        let compiled = self.world.state.borrow().clone().expect("compiled");
        assert!(self.others.follow(&compiled), "all of it is published");
        let standings = || standings(&self.world.ledger.view(), &self.world.publisher);
        self.others.voice(&compiled, self.world.ledger.revision(), standings)
    }

    /// Hears all that others say, and works until all of it is told; whether it understands all of it.
    fn hears(&mut self, texts: &[String], envoys: &mut [&mut Envoy]) -> bool {
        let voices = texts.iter().map(|text| Arc::new(Voice::read(text).expect("a voice")));
        self.others.take(voices.collect(), true);
        self.world.settle(envoys);
        let compiled = self.world.state.borrow().clone().expect("compiled");
        self.others.follow(&compiled) && self.others.agree()
    }

    /// How far gateways are with a table: all, those that acknowledged, those that refused.
    fn programmed(&self, table: &str) -> [usize; 3] {
        let own = standings(&self.world.ledger.view(), &self.world.publisher);
        let id: ObjectRef = format!("RouteTable/{table}/{table}@cluster-1").parse().unwrap();
        let Programmed { gateways, acknowledged, refused } =
            self.others.programmed(&own).get(&id).copied().unwrap_or_default();
        [gateways, acknowledged, refused]
    }
}

#[test]
fn case_8_r132_what_another_replica_s_gateway_refused_is_told_like_the_own() {
    let (mut near, mut far) = (Replica::start(GOOD), Replica::start(GOOD));
    let mut first = near.world.connect(1, 40, "");
    let mut second = far.world.connect(2, 40, "poison");
    let good = far.says().expect("it has a gateway");
    assert!(near.hears(&[good], &mut [&mut first]));
    assert_eq!(near.programmed("team"), [2, 2, 0]);

    near.world.edit(BAD);
    near.world.settle(&mut [&mut first]);
    far.world.edit(BAD);
    far.world.settle(&mut [&mut second]);
    let refused = far.says().expect("it has a gateway");
    assert!(near.hears(std::slice::from_ref(&refused), &mut [&mut first]));
    assert_eq!((near.programmed("team"), near.programmed("shop")), ([2, 1, 1], [2, 1, 1]), "they share a resource");
    let (approval, message) = near.world.verdict("team");
    assert_eq!((approval, &message), (Approval::Failed, &far.world.verdict("team").1));
    assert!(
        message.contains("1 Envoy of gateway `cluster-1/edge/web` (\"envoy-2\") refused `route/8080`"),
        "{message}"
    );
    assert!(message.contains(&format!("{WORDS:?}")), "{message}");
    assert_eq!(near.world.approval("shop"), Approval::Accepted, "its author is not to blame");
    assert!(first.routes_hold("poison"), "who takes it has it");

    // Both replicas have one that refuses: it is told once, with both.
    let mut third = near.world.connect(3, 40, "poison");
    assert!(near.hears(&[refused], &mut [&mut first, &mut third]));
    let (_, message) = near.world.verdict("team");
    assert!(message.contains("2 Envoys of gateway `cluster-1/edge/web` (\"envoy-2\", \"envoy-3\")"), "{message}");
    assert_eq!(message.matches("Envoy says").count(), 1, "{message}");

    // Corrected on both, and the other one goes: what it said is over.
    for (replica, envoys) in [(&mut near, &mut [&mut first, &mut third][..]), (&mut far, &mut [&mut second][..])] {
        replica.world.edit(GOOD);
        replica.world.settle(envoys);
    }
    let corrected = far.says().expect("it has a gateway");
    assert!(near.hears(&[corrected], &mut [&mut first, &mut third]));
    assert_eq!((near.programmed("team"), near.world.approval("team")), ([3, 3, 0], Approval::Accepted));
    far.world.disconnect(second);
    assert_eq!(far.says(), None, "nothing to say without a gateway");
    assert!(near.hears(&[], &mut [&mut first, &mut third]));
    assert_eq!(near.programmed("team"), [2, 2, 0]);
}

#[test]
fn case_10_a_voice_about_another_generation_is_behind_and_says_nothing_of_this_one() {
    let edited = |generation: u32, (shop, team, service): Paths<'_>| {
        let named = format!("{{name: team, namespace: team, generation: {generation}}}\nspec:\n  hosts");
        let text = WORLD.replace("{name: team, namespace: team}\nspec:\n  hosts", &named);
        batch_of(&text.replace("SHOP", shop).replace("TEAM", team).replace("SERVICE", service))
    };
    let (mut near, mut far) = (Replica::start(GOOD), Replica::start(GOOD));
    let mut first = near.world.connect(1, 40, "");
    let mut second = far.world.connect(2, 40, "poison");
    let early = far.says().expect("it has a gateway");
    far.world.compiler.step(std::iter::once(edited(1, BAD)));
    far.world.settle(&mut [&mut second]);
    let refused = far.says().expect("it has a gateway");
    near.world.compiler.step(std::iter::once(edited(2, GOOD)));
    near.world.settle(&mut [&mut first]);

    // What was acknowledged before the edit is not said of what came by it, and another table is as it was.
    assert!(!near.hears(&[early], &mut [&mut first]), "they speak of other objects");
    assert_eq!((near.programmed("team"), near.programmed("shop")), ([2, 1, 0], [2, 2, 0]));
    assert!(!near.hears(&[refused], &mut [&mut first]));
    assert_eq!((near.programmed("team"), near.world.approval("team")), ([2, 1, 0], Approval::Accepted));

    far.world.compiler.step(std::iter::once(edited(2, GOOD)));
    far.world.settle(&mut [&mut second]);
    let same = far.says().expect("it has a gateway");
    assert!(near.hears(&[same], &mut [&mut first]));
    assert_eq!(near.programmed("team"), [2, 2, 0]);
}

#[test]
fn r132_whoever_writes_counts_gateways_of_classes_that_only_others_serve_and_each_once() {
    let (mut writer, mut one, mut two) = (Replica::start(GOOD), Replica::start(GOOD), Replica::start(GOOD));
    assert_eq!(writer.says(), None);
    let mut envoy = one.world.connect(1, 40, "");
    let before = one.says().expect("it has a gateway");
    assert_eq!(one.says(), Some(before.clone()), "the same is said of the same");
    assert!(writer.hears(std::slice::from_ref(&before), &mut []));
    assert_eq!(writer.programmed("team"), [1, 1, 0]);

    // The gateway went to another replica before the first one noticed, or after it was killed.
    let mut moved = two.world.connect(1, 40, "");
    let after = two.says().expect("it has a gateway");
    assert!(writer.hears(&[after.clone(), before], &mut []));
    assert_eq!(writer.programmed("team"), [1, 1, 0], "it is one gateway");
    let mut here = writer.world.connect(1, 40, "");
    assert!(writer.hears(&[after], &mut [&mut here]));
    assert_eq!(writer.programmed("team"), [1, 1, 0], "and the writer's own, if it is here");
    one.world.settle(&mut [&mut envoy]);
    two.world.settle(&mut [&mut moved]);
}
