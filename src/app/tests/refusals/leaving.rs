//! What ends with the Envoys that caused it: refusals, and what is kept for clients.

use std::cell::Cell;

use super::*;
use crate::memory::refusals::GRACE;

thread_local! {
    static BEGIN: Instant = Instant::now();
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A clock that only moves when a test says so.
fn now() -> Instant {
    BEGIN.with(|begin| *begin) + PASSED.get()
}

impl World {
    pub(super) fn with_clock(mut self) -> Self {
        self.compiler.now = now;
        self
    }

    /// Lets time pass, and what is due be done.
    pub(super) fn pass(&mut self, time: Duration, envoys: &mut [&mut Envoy]) {
        PASSED.set(PASSED.get() + time);
        self.compiler.step(std::iter::empty());
        self.settle(envoys);
    }
}

const SHORT: Duration = Duration::from_secs(1);

#[test]
fn what_only_a_gateway_refused_that_is_gone_is_tried_again() {
    let mut world = world(GOOD).with_clock();
    let (mut bad, mut good) = (world.connect(1, 40, "poison"), world.connect(2, 40, ""));
    world.edit(BAD);
    world.settle(&mut [&mut bad, &mut good]);
    assert!(good.routes_hold("/b"), "all of the release are held back");

    world.disconnect(bad);
    world.pass(GRACE - SHORT, &mut [&mut good]);
    assert!(good.routes_hold("/b") && world.approval("team") == Approval::Failed, "it may come back");
    assert!(
        world.compiler.due().is_some_and(|due| due <= SHORT),
        "the thread wakes by itself: {:?}",
        world.compiler.due()
    );
    world.pass(SHORT, &mut [&mut good]);
    assert!(good.routes_hold("/poison"));
    assert_eq!(world.verdict("team"), (Approval::Accepted, String::new()));
    assert_eq!(world.compiler.due(), None);
}

#[test]
fn a_reconnect_ends_no_refusal() {
    let mut world = world(GOOD).with_clock();
    let mut bad = world.connect(1, 40, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut bad]);
    world.disconnect(bad);
    world.pass(GRACE - SHORT, &mut []);
    let mut back = world.connect(1, 40, "poison");
    world.pass(10 * GRACE, &mut [&mut back]);
    assert!(back.routes_hold("/b") && world.approval("team") == Approval::Failed);
    assert_eq!(back.route_pushes(), 1, "it is not asked again");
}

#[test]
fn an_old_envoy_that_was_upgraded_refuses_no_longer() {
    let mut world = world(GOOD).with_clock();
    let mut old = world.connect(1, 36, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut old]);
    world.disconnect(old);
    let mut new = world.connect(1, 40, "");
    world.pass(GRACE, &mut [&mut new]);
    assert!(new.routes_hold("/poison"));
    assert_eq!(world.approval("team"), Approval::Accepted);
}

#[test]
fn who_takes_it_after_all_refuses_no_longer() {
    let mut world = world(BAD).with_clock();
    let bad = world.connect(1, 40, "poison");
    assert_eq!(world.approval("team"), Approval::Failed, "nothing was accepted before");
    world.disconnect(bad);
    // What it lacked is there now.
    let repaired = world.connect(1, 40, "");
    assert!(repaired.routes_hold("/poison"));
    assert_eq!(world.verdict("team"), (Approval::Accepted, String::new()));
}

#[test]
fn while_something_is_refused_envoys_that_come_and_go_compile_nothing() {
    let mut world = world(GOOD).with_clock();
    let mut bad = world.connect(1, 40, "poison");
    world.edit(BAD);
    world.settle(&mut [&mut bad]);
    assert!(world.compiled());
    let others: Vec<Envoy> = (2..6).map(|id| world.connect(id, 40, "poison")).collect();
    assert!(others.iter().all(|envoy| envoy.routes_hold("/b")));
    others.into_iter().for_each(|envoy| world.disconnect(envoy));
    assert!(!world.compiled());
}

#[test]
fn addresses_that_clients_make_up_do_not_pile_up() {
    let mut world = world(GOOD).with_clock();
    let stays = world.connect(1, 40, "");
    for id in 2..202 {
        let bind = format!("10.0.0.{id}").into();
        let stated = Node { bind, version: stays.peer.node.version, ..(*stays.peer.node).clone() };
        let envoy = world.connect_as(id, stated, "");
        assert!(envoy.holds(ResourceType::Route, ROUTES), "it is served");
        world.disconnect(envoy);
    }
    assert!(world.publisher.keys().len() <= 65, "{}", world.publisher.keys().len());
    assert!(world.compiler.emitted.len() <= 65);
    world.pass(GRACE, &mut []);
    assert_eq!(world.publisher.keys(), [key(40)]);
    assert_eq!(world.compiler.emitted.keys().collect::<Vec<_>>(), [&key(40)]);

    // Who comes back to one that was forgotten is served like the first.
    let stated = Node { bind: "10.0.0.2".into(), ..(*stays.peer.node).clone() };
    assert!(world.connect_as(300, stated, "").holds(ResourceType::Route, ROUTES));
}

#[test]
fn labels_that_clients_make_up_do_not_pile_up() {
    let mut world = world(GOOD).with_clock();
    let _stays = world.connect(1, 40, "");
    for id in 2..202 {
        let text = id.to_string();
        let stated = node("cluster-1", "edge", None, &[("app", "web"), ("made-up", &text)]);
        let envoy = world.connect_as(id, Node { version: _stays.peer.node.version, ..stated }, "");
        world.disconnect(envoy);
    }
    let labels: usize = world.compiler.keys.iter().map(|(_, labels)| labels.count()).sum();
    assert_eq!(labels, 1);
}
