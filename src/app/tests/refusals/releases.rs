//! Policies that a release cannot do: closed for its gateways, told to the author, open where they can be honoured.

use super::*;
use crate::api::document::of_request;
use crate::compile::explain::Request;

/// Everything, with a policy of the made-up kind on the routes of `team`.
fn brewing(tea: &str) -> Event {
    let (shop, team, service) = GOOD;
    let text = WORLD.replace("SHOP", shop).replace("TEAM", team).replace("SERVICE", service);
    let policy = format!(
        "{text}---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: TeapotPolicy
metadata: {{name: pot, namespace: team}}
spec: {{applyToRoutes: [{{route: {{namespace: team}}}}], config: {{tea: {tea}}}}}
"
    );
    let manifests = yaml::documents(&policy).expect("YAML").into_iter();
    let (objects, findings) = decode(manifests.map(|manifest| (cluster_of(&manifest), manifest)));
    assert_eq!(findings, []);
    Event::Source(Batch { extent: Extent::Complete, changes: objects.into_iter().map(Change::Put).collect(), findings })
}

impl World {
    fn brew(&mut self, tea: &str, envoys: &mut [&mut Envoy]) {
        self.compiler.step(std::iter::once(brewing(tea)));
        self.settle(envoys);
    }

    fn pot(&self) -> (Approval, String) {
        let state = self.state.borrow();
        let id: ObjectRef = "TeapotPolicy/team/pot@cluster-1".parse().unwrap();
        let verdict = &state.as_ref().expect("compiled").verdicts[&id];
        (verdict.approval, verdict.message.clone())
    }
}

const CLOSED: &str = "chancery: route misconfigured (UNSUPPORTED)";

#[test]
fn r130_a_policy_that_a_release_cannot_do_closes_its_routes_there_and_its_author_is_told() {
    let mut world = world(GOOD);
    let (mut old, mut new) = (world.connect(1, 36, ""), world.connect(2, 40, ""));
    assert!(!old.routes_hold(CLOSED) && !new.routes_hold(CLOSED));

    world.brew("green", &mut [&mut old, &mut new]);
    assert!(old.routes_hold("x-teapot") && new.routes_hold("x-teapot"));
    assert_eq!(world.pot(), (Approval::Accepted, String::new()));

    world.brew("iced", &mut [&mut old, &mut new]);
    assert!(new.routes_hold("x-teapot") && !new.routes_hold(CLOSED));
    assert!(!old.routes_hold("x-teapot") && old.routes_hold(CLOSED) && old.routes_hold("/b"), "closed, with its match");
    assert!(old.routes_hold("/a"), "others' routes go on");
    let (approval, message) = world.pot();
    assert_eq!(approval, Approval::Failed, "{message}");
    for part in ["UNSUPPORTED", "gateway `cluster-1/edge/web` runs Envoy 1.36", "iced tea needs 1.38 or newer"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(world.verdict("team"), (Approval::Accepted, String::new()), "the table is as it should be");
    let compiled = world.state.borrow().clone().expect("compiled");
    let request = Request { host: "team.example".into(), path: "/b".into(), ..Request::default() };
    let explained = of_request(&compiled, &GATEWAY.parse().unwrap(), &request).expect("a gateway");
    assert!(explained.policies[0].errors[0].contains("runs Envoy 1.36"), "{:?}", explained.policies);

    // Told once: nothing is compiled again when nothing has changed.
    world.compiled();
    world.settle(&mut [&mut old, &mut new]);
    world.compiler.step(std::iter::empty());
    assert!(!world.compiled());

    world.brew("dry", &mut [&mut old, &mut new]);
    assert!(old.routes_hold(CLOSED) && new.routes_hold(CLOSED), "no release that is served can do it");
    let (_, message) = world.pot();
    assert!(message.contains("runs Envoy 1.36") && message.contains("runs Envoy 1.40"), "{message}");

    world.brew("green", &mut [&mut old, &mut new]);
    assert!(old.routes_hold("x-teapot") && !old.routes_hold(CLOSED));
    assert_eq!(world.pot(), (Approval::Accepted, String::new()));
}

#[test]
fn a_gateway_of_an_older_release_never_gets_the_route_open_and_leaves_no_finding_behind() {
    let mut world = world(GOOD).with_clock();
    world.brew("iced", &mut []);
    assert_eq!(world.pot(), (Approval::Accepted, String::new()), "no gateway of an older release is there");
    let old = world.connect(1, 36, "");
    assert!(old.routes_hold(CLOSED) && !old.routes_hold("x-teapot"));
    assert_eq!((old.route_pushes(), world.pot().0), (1, Approval::Failed));
    world.disconnect(old);
    world.pass(crate::memory::refusals::GRACE, &mut []);
    assert_eq!(world.pot(), (Approval::Accepted, String::new()));
}
