//! Which layers edits of protecting policies run, and of the servers and limits that they refer to.

use super::layers::{TWO, edited_in, find, kept_hosts, world};
use super::*;

/// In a namespace of team `b`: policies on its routes, and what they ask.
const PROTECTED: &str = "
---
apiVersion: security.policy.gloo.solo.io/v2
kind: JWTPolicy
metadata: {name: tokens, namespace: b}
spec:
  applyToRoutes: [{route: {labels: {team: b}}}]
  config: {providers: {a: {issuer: 'https://a.example', audiences: [one], remote: {url: 'https://a.example/keys'}}}}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: ExtAuthPolicy
metadata: {name: ask, namespace: b}
spec:
  applyToRoutes: [{route: {labels: {team: b}}}]
  config: {server: {name: auth}, customAuth: {}}
---
apiVersion: admin.gloo.solo.io/v2
kind: ExtAuthServer
metadata: {name: auth, namespace: b}
spec: {destinationServer: {ref: {name: app}, port: {number: 80}}}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: RateLimitPolicy
metadata: {name: limit, namespace: b}
spec:
  applyToRoutes: [{route: {labels: {team: b}}}]
  config:
    ratelimitServerConfig: {name: rules}
    serverSettings: {name: ours}
    raw: {rateLimits: [{actions: [{remoteAddress: {}}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerSettings
metadata: {name: ours, namespace: b}
spec: {destinationServer: {ref: {name: app}, port: {number: 80}}}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerConfig
metadata: {name: rules, namespace: b}
spec:
  destinationServers: [{ref: {name: app}, port: {number: 80}}]
  raw: {descriptors: [{key: remote_address, rateLimit: {unit: DAY, requestsPerUnit: 7}}]}
";

fn edited(edit: impl FnOnce(&mut World)) -> (Compiled, Compiled, Step) {
    edited_in(world(&format!("{TWO}{PROTECTED}")), edit)
}

#[test]
fn an_edit_of_a_jwt_policy_makes_the_hosts_with_routes_that_it_selects() {
    let (before, after, step) = edited(|world| {
        find(world, "JWTPolicy", "b", "tokens")["spec"]["config"]["providers"]["a"]["audiences"] = json!(["two"]);
    });
    assert_eq!((step.lowered, step.trees, step.hosts, step.listeners, step.bindings), (1, 1, 1, 0, 0));
    assert_eq!(kept_hosts(&before, &after), [true, false]);
}

#[test]
fn an_edit_of_an_authorization_server_makes_the_hosts_with_routes_that_ask_it() {
    let (before, after, step) = edited(|world| {
        find(world, "ExtAuthServer", "b", "auth")["spec"]["requestTimeout"] = json!("3s");
    });
    assert_eq!((step.lowered, step.trees, step.hosts, step.listeners, step.bindings), (1, 1, 1, 0, 0));
    assert_eq!(kept_hosts(&before, &after), [true, false]);
}

#[test]
fn an_edit_of_limits_tells_their_service_and_makes_no_route() {
    let (before, after, step) = edited(|world| {
        find(world, "RateLimitServerConfig", "b", "rules")["spec"]["raw"]["descriptors"][0]["rateLimit"]["requestsPerUnit"] =
            json!(8);
    });
    assert_eq!((step.lowered, step.hosts, step.listeners, step.bindings), (1, 0, 0, 0));
    assert_eq!(kept_hosts(&before, &after), [true, true]);
    assert!(before.plans.ptr_eq(&after.plans));
    assert_eq!((before.limits.len(), after.limits.len()), (1, 1));
    assert!(before.limits != after.limits, "the service is told another number");
}

/// R37: who has an address is asked for that address alone.
#[test]
fn a_pod_that_comes_with_the_address_that_a_policy_asks_closes_its_routes_and_no_other_does() {
    let other = "
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: other, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: far}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: far}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: JWTPolicy
metadata: {name: tokens, namespace: b}
spec:
  applyToRoutes: [{route: {labels: {team: b}}}]
  config: {providers: {a: {issuer: 'https://a.example', remote: {url: 'http://10.9.9.9/keys'}}}}
";
    let tokens = PROTECTED.find("---\napiVersion: security.policy.gloo.solo.io/v2\nkind: ExtAuthPolicy").unwrap_or(0);
    let text = format!("{TWO}{other}{}", &PROTECTED[tokens..]);
    let pod = |address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "far"},
            "spec": {"serviceAccountName": "sa"}, "status": {"podIP": address},
        })
    };
    let hidden = |compiled: &Compiled| {
        compiled.findings.iter().any(|finding| finding.code == crate::model::Code::DestinationNotFound)
    };
    let (before, after, _) = edited_in(world(&text), |world| replace(world, ("cluster-1".to_owned(), pod("10.9.9.9"))));
    assert!(!hidden(&before) && hidden(&after));
    assert_eq!(kept_hosts(&before, &after), [true, false]);
    let (before, after, step) =
        edited_in(world(&text), |world| replace(world, ("cluster-1".to_owned(), pod("10.9.9.8"))));
    assert!(!hidden(&after));
    assert_eq!((step.trees, step.hosts, step.listeners), (0, 0, 0));
    assert_eq!(kept_hosts(&before, &after), [true, true]);
}

/// What a gateway counts by itself is summed up as its hosts, listeners and matchers change.
#[test]
fn room_for_limits_follows_what_is_served() {
    const COUNTED: &str = "
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: RateLimitPolicy
metadata: {name: here, namespace: b}
spec:
  applyToRoutes: [{route: {labels: {team: b}}}]
  config: {ratelimitServerConfig: {name: here}, raw: {rateLimits: [{actions: [{remoteAddress: {}}]}]}}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerConfig
metadata: {name: here, namespace: b, annotations: {chancery/rate-limiting: local}}
spec: {raw: {descriptors: [{key: remote_address, rateLimit: {unit: MINUTE, requestsPerUnit: 7}}]}}
";
    fn hosts(world: &mut World, count: usize) {
        let hosts = (0..count).map(|index| format!("b{index}.example"));
        find(world, "RouteTable", "edge", "b")["spec"]["hosts"] = hosts.collect();
    }
    fn matchers(world: &mut World, count: usize) {
        let matchers = (0..count).map(|index| json!({"uri": {"exact": format!("/{index}")}}));
        find(world, "RouteTable", "b", "shop")["spec"]["http"][0]["matchers"] = matchers.collect();
    }
    fn ports(world: &mut World, numbers: &[u16]) {
        let ports =
            numbers.iter().map(|port| json!({"name": format!("p{port}"), "port": port, "targetPort": 8000 + port}));
        find(world, "Service", "edge", "web")["spec"]["ports"] = ports.collect();
        let listeners = numbers.iter().map(|port| json!({"http": {}, "port": {"number": port}}));
        find(world, "VirtualGateway", "edge", "web")["spec"]["listeners"] = listeners.collect();
    }
    type Edit = fn(&mut World);
    let edits: [(Edit, Option<u32>); 9] = [
        (|world| matchers(world, 400), None),
        (|world| hosts(world, 3), Some(500)),
        (|world| ports(world, &[80, 81]), Some(250)),
        (|world| hosts(world, 1), None),
        (|world| matchers(world, 700), Some(500)),
        (|world| ports(world, &[81]), None),
        (|world| ports(world, &[80, 81, 82]), Some(250)),
        (|world| world.retain(|(_, object)| object["kind"] != "RateLimitPolicy"), None),
        (|world| world.extend(super::layers::world(COUNTED.trim_start_matches("\n---\n"))), Some(250)),
    ];
    let (mut world, mut pair) = (world(&format!("{TWO}{COUNTED}")), Pair::new());
    for (number, (edit, expected)) in edits.into_iter().enumerate() {
        edit(&mut world);
        let given = pair.put(&world);
        let (kept, afresh) = pair.compile(&given);
        same(&kept, &afresh).unwrap();
        let plan = kept.plans.values().next().expect("a gateway");
        let values: Vec<u32> = plan.extensions.values.values().copied().collect();
        assert_eq!(values, Vec::from_iter(expected), "edit {number}");
    }
}
