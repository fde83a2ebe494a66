//! Chains that are cut, from edits to what gateways hold: one edit is one part, also where something is refused.

use std::net::IpAddr;

use super::*;
use crate::app::emission::{DRAINED, LOOK, PATIENCE};
use crate::emit::EmitOptions;
use crate::memory::refusals::GRACE;
use crate::model::EnvoyRelease;
use crate::snapshot::verify::verify;

const LISTENER: &str = "listener/8080";

/// Cuts chains of two routes.
fn early(bind: IpAddr, release: EnvoyRelease) -> EmitOptions {
    EmitOptions { bind, cut_from_routes: 2, release }
}

/// Cuts nothing.
fn never(bind: IpAddr, release: EnvoyRelease) -> EmitOptions {
    EmitOptions { bind, cut_from_routes: usize::MAX, release }
}

fn cutting(first: Paths<'_>) -> World {
    let mut world = world(first).with_clock();
    world.compiler.serving = early;
    world
}

impl World {
    fn served(&self) -> Arc<Snapshot> {
        let key = GatewayKey {
            gateway: GATEWAY.parse().unwrap(),
            bind: "0.0.0.0".into(),
            envoy: EnvoyRelease::serving(Some((1, 40))),
        };
        let served = self.publisher.current(&key).expect("a snapshot");
        assert_eq!(verify(&served), []);
        served
    }
}

impl Envoy {
    /// The parts and the whole that it holds with some text.
    fn routes_with(&self, text: &str) -> Vec<&str> {
        let routes = self.holds.iter().filter(|((of, _), _)| *of == ResourceType::Route);
        routes.filter(|(_, routes)| routes.contains(text)).map(|((_, name), _)| name.as_str()).collect()
    }
}

#[test]
fn an_edit_sends_one_part_and_leaves_everything_else_the_same() {
    let mut world = cutting(GOOD);
    let mut envoy = world.connect(1, 40, "");
    let before = world.served();
    let shop = before
        .resources(ResourceType::Route)
        .keys()
        .find(|name| envoy.routes_with("/a").contains(&name.as_str()))
        .cloned();
    let shop = shop.expect("a part with the shop");
    assert!(shop.starts_with("route/8080/") && envoy.routes_with("/b") != [shop.as_str()], "two parts");

    world.edit(("/other", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    let after = world.served();
    let routes = after.changes_since(&before, ResourceType::Route);
    assert_eq!((routes.all().count(), &routes.differ), (1, &vec![shop.clone()]));
    for resource_type in ResourceType::ALL.into_iter().filter(|of| *of != ResourceType::Route) {
        let [before, after] = [&before, &after].map(|snapshot| snapshot.resources(resource_type));
        assert!(before.is_empty() || Arc::ptr_eq(&before, &after), "{resource_type:?}");
    }
    assert_eq!(envoy.routes_with("/other"), [shop.as_str()]);

    // The same again: nothing is made and nobody is woken.
    world.edit(("/other", "/b", "old"));
    assert!(Arc::ptr_eq(&world.served(), &after) && !envoy.work(&world.witness));
}

#[test]
fn case_6_a_refused_part_keeps_the_one_before_and_other_parts_go_on() {
    let mut world = cutting(GOOD);
    let mut envoy = world.connect(1, 40, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut envoy]);
    let (approval, message) = world.verdict("team");
    assert!(approval == Approval::Failed && message.contains("refused `route/8080/"), "{message}");
    assert_eq!(world.verdict("shop"), (Approval::Accepted, String::new()));
    assert_eq!(envoy.routes_with("/b").len(), 1);
    assert!(envoy.holds(ResourceType::Cluster, OLD), "the accepted part leads there");

    world.edit(("/other", "/poison", "new"));
    world.settle(&mut [&mut envoy]);
    assert_eq!((envoy.routes_with("/other").len(), envoy.routes_with("/b").len()), (1, 1));
    // One that comes later gets what was accepted.
    let late = world.connect(2, 40, "poison");
    assert_eq!((late.routes_with("/other").len(), late.routes_with("/b").len()), (1, 1));
    world.served();

    world.edit(("/other", "/fine", "new"));
    world.settle(&mut [&mut envoy]);
    assert_eq!((envoy.routes_with("/fine").len(), envoy.routes_with("/b").len()), (1, 0));
    assert_eq!(world.approval("team"), Approval::Accepted);
}

#[test]
fn parts_are_there_before_a_listener_uses_them() {
    let mut world = cutting(GOOD);
    world.compiler.serving = never;
    let mut envoy = world.connect(1, 40, "");
    let is_cut = |envoy: &Envoy| envoy.holds[&(ResourceType::Listener, LISTENER.into())].contains("x-chancery-part");
    world.compiler.serving = early;
    world.edit(("/other", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    assert!(!is_cut(&envoy) && !world.served().resources(ResourceType::ScopedRoute).is_empty());
    let due = world.compiler.due().expect("the thread wakes by itself");
    assert!(due <= LOOK, "{due:?}");
    world.pass(LOOK, &mut [&mut envoy]);
    assert!(!is_cut(&envoy), "what it asks for after its scopes may be on the way");
    world.pass(LOOK, &mut [&mut envoy]);
    assert!(is_cut(&envoy));
    assert_eq!((envoy.routes_with("/other").len(), world.compiler.due()), (1, None));
}

#[test]
fn a_gateway_that_takes_no_parts_is_waited_for_a_while() {
    let mut world = cutting(GOOD);
    let mut envoy = world.connect(1, 40, "");
    // It follows scopes: the chain was cut, and is put together, and stands by no more.
    world.compiler.serving = never;
    world.edit(("/other", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    world.pass(DRAINED, &mut [&mut envoy]);
    assert!(world.served().resources(ResourceType::ScopedRoute).is_empty());
    world.compiler.serving = early;
    world.edit(("/third", "/b", "old"));
    let is_cut = |world: &World| world.served().get(ResourceType::Route, ROUTES).is_none();
    world.pass(LOOK, &mut []);
    world.pass(LOOK, &mut []);
    assert!(!is_cut(&world), "it has taken nothing");
    world.pass(PATIENCE - LOOK * 3, &mut []);
    assert!(!is_cut(&world));
    world.pass(LOOK * 2, &mut []);
    assert!(is_cut(&world), "one gateway holds up the others");
}

#[test]
fn parts_stand_by_until_connections_have_ended() {
    let mut world = cutting(GOOD);
    let mut envoy = world.connect(1, 40, "");
    world.compiler.serving = never;
    world.edit(("/other", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    assert_eq!(envoy.routes_with("/other").len(), 2, "the whole, and the part");
    let due = world.compiler.due().expect("the thread wakes by itself");
    assert!(due <= DRAINED, "{due:?}");

    world.pass(DRAINED / 2, &mut [&mut envoy]);
    world.edit(("/third", "/b", "old"));
    world.settle(&mut [&mut envoy]);
    assert_eq!(envoy.routes_with("/third").len(), 2, "edits go on in both");
    world.pass(DRAINED / 2, &mut [&mut envoy]);
    assert_eq!(envoy.routes_with("/third"), [ROUTES]);
    assert!(world.served().resources(ResourceType::ScopedRoute).is_empty());
    assert_eq!(world.compiler.due(), None);
}

#[test]
fn a_gateway_whose_envoys_refuse_the_cut_is_served_whole() {
    let mut world = cutting(GOOD);
    let mut good = world.connect(2, 40, "");
    assert!(good.holds[&(ResourceType::Listener, LISTENER.into())].contains("x-chancery-part"));
    let mut bad = world.connect(1, 40, "x-chancery-part");
    world.settle(&mut [&mut bad, &mut good]);
    for envoy in [&bad, &good] {
        assert!(!envoy.holds[&(ResourceType::Listener, LISTENER.into())].contains("x-chancery-part"));
        assert!(envoy.routes_hold("/a") && envoy.routes_hold("/b"));
    }
    assert!(
        world.publisher.not_in_force(&crate::app::refusals::key(GATEWAY.parse().unwrap(), &bad.peer.node)).is_empty()
    );
    world.edit(("/other", "/b", "old"));
    world.pass(DRAINED, &mut [&mut bad, &mut good]);
    assert_eq!((good.routes_with("/other"), bad.routes_with("/other")), (vec![ROUTES], vec![ROUTES]));
    world.served();
}

#[test]
fn a_listener_that_cannot_have_its_address_stays_cut() {
    let mut world = cutting(GOOD);
    let mut good = world.connect(2, 40, "");
    let mut bad = world.begin(1, web(1, 40), "x-chancery-part");
    bad.words = "Error adding/updating listener(s) listener/8080: cannot bind '0.0.0.0:8080': Address already in use";
    world.settle(&mut [&mut bad, &mut good]);
    assert!(!bad.holds(ResourceType::Listener, LISTENER));
    assert!(good.holds[&(ResourceType::Listener, LISTENER.into())].contains("x-chancery-part"));
}

#[test]
fn chains_are_cut_again_when_those_that_refused_it_have_gone() {
    let mut world = cutting(GOOD);
    let mut good = world.connect(2, 40, "");
    let bad = world.connect(1, 40, "x-chancery-part");
    world.settle(&mut [&mut good]);
    let is_cut = |envoy: &Envoy| envoy.holds[&(ResourceType::Listener, LISTENER.into())].contains("x-chancery-part");
    world.pass(10 * GRACE, &mut [&mut good]);
    assert!(!is_cut(&good), "it is there");
    world.disconnect(bad);
    world.pass(GRACE, &mut [&mut good]);
    assert!(!is_cut(&good), "it may come back");
    assert!(world.compiler.due().is_some_and(|due| due <= GRACE), "the thread wakes by itself");
    world.pass(GRACE, &mut [&mut good]);
    assert!(is_cut(&good));
}

#[test]
fn case_6_a_refused_part_keeps_the_one_before_when_others_get_a_wildcard() {
    let many: String = (0..1100)
        .map(|n| format!(", {{name: r{n}, matchers: [{{uri: {{prefix: /r{n}/}}}}], directResponse: {{status: 200}}}}"))
        .collect();
    let wild = "
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: wild, namespace: shop}
spec:
  hosts: ['*.wild.example']
  virtualGateways: [{name: web, namespace: edge}]
  http: [{name: all, directResponse: {status: 200}}]
";
    let with = |(shop, team, service): Paths<'_>, wild: &str| {
        let text = WORLD.replace("SHOP", shop).replace("TEAM", team).replace("SERVICE", service);
        let text =
            text.replace("directResponse: {status: 200}}]", &format!("directResponse: {{status: 200}}}}{many}]"));
        batch_of(&format!("{text}{wild}"))
    };
    let mut world = cutting(GOOD);
    world.compiler.step(std::iter::once(with(GOOD, "")));
    let mut envoy = world.connect(1, 40, "poison");
    world.compiler.step(std::iter::once(with(BAD, "")));
    world.settle(&mut [&mut envoy]);
    assert_eq!(envoy.routes_with("/b").len(), 1);

    // Fewer parts are prepared, of which one is refused and has no accepted one before: the old ones stay in force.
    let is_coarse = |envoy: &Envoy| envoy.holds[&(ResourceType::Listener, LISTENER.into())].contains("%03x");
    world.compiler.step(std::iter::once(with(BAD, wild)));
    world.settle(&mut [&mut envoy]);
    let late = world.connect(2, 40, "poison");
    assert_eq!(late.routes_with("*.wild.example").len(), 4095 + 1023, "all parts but two have it");
    assert_eq!(late.routes_with("/b").len(), 1, "which is what was accepted");
    assert_eq!(world.approval("team"), Approval::Failed);
    world.disconnect(late);
    world.pass(PATIENCE * 2, &mut [&mut envoy]);
    assert!(!is_coarse(&envoy) && envoy.routes_with("/b").len() == 1, "its hosts would have no routes");

    world.compiler.step(std::iter::once(with(("/a", "/fine", "new"), wild)));
    world.settle(&mut [&mut envoy]);
    assert_eq!((envoy.routes_with("*.wild.example").len(), envoy.routes_with("/fine").len()), (4096 + 1024, 2));
    world.pass(LOOK, &mut [&mut envoy]);
    world.pass(LOOK, &mut [&mut envoy]);
    assert!(is_coarse(&envoy));
    world.pass(DRAINED, &mut [&mut envoy]);
    assert_eq!((envoy.routes_with("*.wild.example").len(), envoy.routes_with("/fine").len()), (1024, 1));
    world.served();
}
