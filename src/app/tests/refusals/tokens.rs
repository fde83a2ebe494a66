//! Filters that all routes share: what routes of a moment ago name stays, and what gateways refuse costs nobody else anything.

use super::*;
use crate::snapshot::verify::verify;

/// What the policies of both teams verify with, by the issuers of their tokens.
fn issuers(shop: &str, team: &str) -> Event {
    let policy = |team: &str, issuer: &str| {
        format!(
            "
---
apiVersion: security.policy.gloo.solo.io/v2
kind: JWTPolicy
metadata: {{name: tokens, namespace: {team}}}
spec:
  applyToRoutes: [{{route: {{labels: {{tokens: {team}}}}}}}]
  config: {{providers: {{p: {{issuer: 'https://{issuer}', remote: {{url: 'http://{team}.example:8080/keys'}}}}}}}}
"
        )
    };
    let text = WORLD.replace("SHOP", "/a").replace("TEAM", "/b").replace("SERVICE", "old");
    let text = text.replace("{name: front,", "{name: front, labels: {tokens: shop},");
    let text = text.replace("{name: back,", "{name: back, labels: {tokens: team},");
    batch_of(&format!("{text}{}{}", policy("shop", shop), policy("team", team)))
}

/// One whose Envoys take routes with the policies of `a` and `b`.
fn issued(shop: &str, team: &str) -> World {
    let mut world = world(GOOD).with_clock();
    world.compiler.step(std::iter::once(issuers(shop, team)));
    world
}

impl World {
    fn issues(&mut self, shop: &str, team: &str, envoys: &mut [&mut Envoy]) {
        self.compiler.step(std::iter::once(issuers(shop, team)));
        self.settle(envoys);
    }

    fn policy(&self, team: &str) -> (Approval, String) {
        let state = self.state.borrow();
        let id: ObjectRef = format!("JWTPolicy/{team}/tokens@cluster-1").parse().unwrap();
        let verdict = &state.as_ref().expect("compiled").verdicts[&id];
        (verdict.approval, verdict.message.clone())
    }
}

impl Envoy {
    /// Whether it verifies tokens of an issuer.
    fn verifies(&self, issuer: &str) -> bool {
        let issuer = format!("https://{issuer}");
        self.holds.iter().any(|((of, _), text)| *of == ResourceType::Extension && text.contains(&issuer))
    }

    fn routes(&self) -> &str {
        &self.holds[&(ResourceType::Route, ROUTES.into())]
    }
}

/// Ample for whatever only waits.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_a_gateway_that_does_not_read_still_names_stays() {
    let mut world = issued("a", "b");
    let (mut deaf, mut good) = (world.connect(1, 40, ""), world.connect(2, 40, ""));
    world.issues("new", "b", &mut [&mut good]);
    assert!(good.verifies("a") && good.verifies("new"));
    world.pass(LONG, &mut [&mut good]);
    assert!(good.verifies("a"), "the other has routes that name it");
    world.pass(LONG, &mut [&mut good, &mut deaf]);
    assert!(deaf.verifies("new"));
    world.pass(LONG, &mut [&mut good, &mut deaf]);
    assert!(!good.verifies("a") && !deaf.verifies("a") && good.verifies("new") && good.verifies("b"));
    assert_eq!(world.compiler.due(), None);
}

#[test]
fn one_that_has_said_nothing_yet_may_have_old_routes() {
    let mut world = issued("a", "b");
    let mut good = world.connect(1, 40, "");
    let silent = world.begin(2, web(2, 40), "");
    world.issues("new", "b", &mut [&mut good]);
    world.pass(LONG, &mut [&mut good]);
    assert!(good.verifies("a"));
    world.disconnect(silent);
    world.pass(LONG, &mut [&mut good]);
    assert!(!good.verifies("a") && good.verifies("new"));
}

#[test]
fn what_routes_name_that_stand_in_stays_however_long() {
    let mut world = issued("a", "b");
    let mut picky = world.connect(1, 40, "poison");
    picky.only = Some(ResourceType::Route);
    // The routes are refused for something else.
    let poisoned = |issuer: &str| {
        let Event::Source(batch) = issuers(issuer, "b") else { unreachable!() };
        let poison = batch_of(&WORLD.replace("SHOP", "/a").replace("TEAM", "/poison").replace("SERVICE", "old"));
        let Event::Source(poison) = poison else { unreachable!() };
        let of_team = |change: &Change| matches!(change, Change::Put(object) if object.meta.id.namespace == "team" && object.meta.id.kind == Kind::RouteTable);
        let mut changes: Vec<Change> = batch.changes.into_iter().filter(|change| !of_team(change)).collect();
        changes.extend(poison.changes.into_iter().filter(of_team));
        Event::Source(Batch { changes, ..poison })
    };
    world.compiler.step(std::iter::once(poisoned("new")));
    world.settle(&mut [&mut picky]);
    world.pass(LONG, &mut [&mut picky]);
    world.pass(LONG, &mut [&mut picky]);
    assert!(picky.verifies("a") && picky.verifies("new") && picky.routes_hold("/b"));
    let late = world.connect(2, 40, "");
    assert!(late.verifies("a") && late.routes_hold("/b"), "what it is sent instead is whole");
    assert_eq!(verify(&world.publisher.current(&key(40)).expect("a snapshot")), []);
    world.disconnect(late);
    world.issues("new", "b", &mut [&mut picky]);
    world.pass(LONG, &mut [&mut picky]);
    world.pass(LONG, &mut [&mut picky]);
    assert!(!picky.verifies("a"));
}

#[test]
fn case_8_r130_a_refused_verification_is_left_out_and_closes_its_own_routes_only() {
    let mut world = issued("a", "b");
    let mut envoy = world.connect(1, 40, "https://poison");
    world.issues("poison", "b", &mut [&mut envoy]);
    assert!(envoy.verifies("b") && !envoy.verifies("poison"));
    assert!(envoy.routes().contains("REFUSED_BY_GATEWAY"), "closed");
    assert!(envoy.routes_hold(OLD), "the other team's are not");
    let (approval, message) = world.policy("shop");
    assert_eq!(approval, Approval::Failed);
    for part in ["REFUSED_BY_GATEWAY", "of gateway `cluster-1/edge/web`", "Envoy 1.40", "answer 500", "poison\\\""] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(world.policy("team").0, Approval::Accepted);
    // One that starts is sent nothing that was refused.
    let late = world.connect(2, 40, "https://poison");
    assert!(late.verifies("b") && late.routes_hold(OLD) && late.holds(ResourceType::Route, ROUTES));
    assert_eq!(verify(&world.publisher.current(&key(40)).expect("a snapshot")), []);
    // Others' edits go on, and cost no refusal.
    world.issues("poison", "c", &mut [&mut envoy]);
    assert!(envoy.verifies("c") && world.policy("shop").0 == Approval::Failed);
    world.issues("good", "c", &mut [&mut envoy]);
    assert!(envoy.verifies("good") && !envoy.routes().contains("REFUSED_BY_GATEWAY"));
    assert_eq!((world.policy("shop").0, world.policy("team").0), (Approval::Accepted, Approval::Accepted));
}

#[test]
fn case_8_of_verifications_that_are_refused_together_the_bad_one_is_found() {
    let mut world = issued("a", "poison");
    let envoy = world.connect(1, 40, "https://poison");
    assert!(envoy.verifies("a") && !envoy.verifies("poison"));
    assert_eq!((world.policy("shop").0, world.policy("team").0), (Approval::Accepted, Approval::Failed));
    assert!(envoy.routes().contains("REFUSED_BY_GATEWAY") && !envoy.routes_hold(OLD));
    assert_eq!(verify(&world.publisher.current(&key(40)).expect("a snapshot")), []);
}

#[test]
fn a_filter_needs_the_clusters_that_it_asks() {
    use crate::memory::refusals::references::{references, verifications};
    let mut world = issued("a", "b");
    world.connect(1, 40, "");
    let served = world.publisher.current(&key(40)).expect("a snapshot");
    let filter = served.get(ResourceType::Extension, "chancery.jwt.pre.0").expect("a filter");
    let needed = references(ResourceType::Extension, &filter.body);
    assert_eq!(needed.len(), 2, "{needed:?}");
    for (resource_type, name) in &needed {
        assert!(*resource_type == ResourceType::Cluster && served.get(*resource_type, name).is_some(), "{name}");
    }
    assert_eq!(verifications(&filter.body).len(), 2);
    let listener = served.get(ResourceType::Listener, "listener/8080").expect("a listener");
    assert!(
        references(ResourceType::Listener, &listener.body).contains(&(ResourceType::Extension, filter.name.clone()))
    );
}
