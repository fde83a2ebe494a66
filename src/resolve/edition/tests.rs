use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model::Name;
use crate::resolve::Options;
use crate::testing::{cluster_of, compile_manifests, yaml};

/// A gateway of `team` leads to group `cart`, for requests and for whole connections: `open` in `cluster-1` and, once it has the
/// label, `vault` of `bank` in `cluster-2`.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-2, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: RootTrustPolicy
metadata: {name: root, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {config: {mgmtServerCa: {generated: {}}}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: '*', namespaces: [{name: apps}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: bank, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: '*', namespaces: [{name: bank}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: apps}
spec: {importFrom: [{workspaces: [{name: bank}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: bank, namespace: bank}
spec: {exportTo: [{workspaces: [{name: team}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 8090}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: apps}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners: [{http: {}, port: {number: 80}}, {tcp: {}, port: {number: 90}}]
---
apiVersion: v1
kind: Service
metadata: {name: open, namespace: apps, labels: {group: cart}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank, labels: {group: none}, annotations: {cluster.solo.io/cluster: cluster-2}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: apps}
spec: {services: [{labels: {group: cart}}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web}]
  http: [{name: all, labels: {route: all}, forwardTo: {destinations: [{ref: {name: cart}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: whole, namespace: apps}
spec:
  hosts: ['*']
  virtualGateways: [{name: web}]
  tcp: [{forwardTo: {destinations: [{ref: {name: cart}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

/// What may be put on `vault`, which is in `bank`.
const POLICIES: &str = "
apiVersion: security.policy.gloo.solo.io/v2
kind: JWTPolicy
metadata: {name: tokens, namespace: bank}
spec:
  applyToDestinations: [{selector: {name: vault}}]
  config: {providers: {a: {issuer: 'https://a.example', remote: {url: 'https://a.example/keys'}}}}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: AccessPolicy
metadata: {name: rules, namespace: bank}
spec:
  applyToDestinations: [{selector: {name: vault}}]
  config: {authzList: [{allowedPaths: [/public]}]}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: OutlierDetectionPolicy
metadata: {name: of-group, namespace: apps}
spec: {applyToDestinations: [{kind: VIRTUAL_DESTINATION, selector: {name: cart}}], config: {}}
---
apiVersion: security.policy.gloo.solo.io/v2
kind: JWTPolicy
metadata: {name: of-route, namespace: apps}
spec:
  applyToRoutes: [{route: {labels: {route: all}}}]
  config: {providers: {a: {issuer: 'https://a.example', remote: {url: 'https://a.example/keys'}}}}
";

struct World(Vec<Value>);

impl World {
    /// Without policies, and `vault` outside the group.
    fn new() -> Self {
        Self(yaml::documents(WORLD).expect("YAML"))
    }

    fn find(&mut self, kind: &str, name: &str) -> &mut Value {
        let is_it = |object: &&mut Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.0.iter_mut().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    fn vault_joins(mut self) -> Self {
        self.find("Service", "vault")["metadata"]["labels"] = json!({"group": "cart"});
        self
    }

    fn with(mut self, policy: &str) -> Self {
        let all = yaml::documents(POLICIES).expect("YAML");
        let found = all.into_iter().find(|object| object["metadata"]["name"] == policy);
        self.0.push(found.unwrap_or_else(|| panic!("no policy {policy}")));
        self
    }

    fn and(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    /// The clusters of the group that routes of the gateway lead to: those of requests, and those of whole connections.
    fn clusters(&self) -> [BTreeSet<Name>; 2] {
        let manifests = self.0.iter().map(|object| (cluster_of(object), object.clone()));
        let compiled = compile_manifests(manifests, &Options::default());
        let plan = compiled.plans.values().find(|plan| plan.gateway.services == ["web"]).expect("the gateway");
        let [mut requests, mut connections] = [BTreeSet::new(), BTreeSet::new()];
        for listener in plan.listeners.values() {
            for route in listener.routes() {
                let into = if route.body.chain[0].route.starts_with("tcp") { &mut connections } else { &mut requests };
                let all = crate::resolve::gateway::upstreams_of(&route.body);
                into.extend(all.map(|id| match id.edition.is_plain() {
                    true => id.to_string().into(),
                    false => format!("{} {}", id.of_any_edition(), id.edition).into(),
                }));
            }
        }
        assert!(!requests.is_empty(), "the route leads somewhere: {:?}", compiled.findings);
        [requests, connections]
    }

    fn of_requests(&self) -> BTreeSet<Name> {
        let [requests, _] = self.clusters();
        requests
    }
}

#[test]
fn r122_a_guarded_service_that_joins_a_group_makes_its_cluster_another() {
    let plain = World::new();
    assert_eq!(plain.of_requests(), ["VirtualDestination/apps/cart@cluster-1:80".into()].into());
    for guard in ["tokens", "rules"] {
        let before = World::new().with(guard);
        assert_eq!(before.of_requests(), plain.of_requests(), "{guard}: it is not in the group yet");
        assert_ne!(before.vault_joins().of_requests(), plain.of_requests(), "{guard}");
    }
    assert_eq!(World::new().vault_joins().of_requests(), plain.of_requests(), "nothing guards it");
}

/// Whose clients are shut out stands on routes too.
#[test]
fn r45_an_isolated_service_that_joins_a_group_makes_its_cluster_another() {
    let isolated = || {
        World::new().and(|world| {
            world.find("WorkspaceSettings", "bank")["spec"]["options"] = json!({"serviceIsolation": {"enabled": true}});
        })
    };
    assert_ne!(isolated().vault_joins().of_requests(), isolated().of_requests());
    let own = World::new().and(|world| {
        world.find("WorkspaceSettings", "team")["spec"]["options"] = json!({"serviceIsolation": {"enabled": true}});
    });
    assert_eq!(own.of_requests(), World::new().of_requests(), "who groups what is his shares it by that");
}

#[test]
fn r122_edits_of_policies_and_pods_leave_the_cluster_of_a_group_as_it_is() {
    let guarded = || World::new().with("tokens").vault_joins();
    let own = guarded().of_requests();
    let edits: [(&str, World); 5] = [
        (
            "another issuer",
            guarded().and(|world| {
                world.find("JWTPolicy", "tokens")["spec"]["config"]["providers"]["a"]["issuer"] = json!("https://b.example");
            }),
        ),
        (
            "rules that refuse nobody",
            guarded().with("rules").and(|world| {
                let config = json!({"authzList": [{"allowedPaths": ["/public"], "dryRun": true}]});
                world.find("AccessPolicy", "rules")["spec"]["config"] = config;
            }),
        ),
        ("a policy on the group", guarded().with("of-group")),
        ("a policy on the route", guarded().with("of-route")),
        (
            "a Pod",
            guarded().and(|world| {
                world.0.push(json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": "vault-1", "namespace": "bank", "labels": {"kubernetes.io/service-name": "vault"},
                        "annotations": {"cluster.solo.io/cluster": "cluster-2"}},
                    "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": [{"addresses": ["10.2.0.1"]}],
                }));
            }),
        ),
    ];
    for (what, edited) in edits {
        assert_eq!(edited.of_requests(), own, "{what}");
    }
    assert_ne!(World::new().vault_joins().of_requests(), own, "the last policy went");
    let ruled = guarded().with("rules").of_requests();
    assert_ne!(ruled, own, "its first rules, which listeners may have to ask for");
    let others = guarded().with("rules").and(|world| {
        world.find("AccessPolicy", "rules")["spec"]["config"] = json!({"authzList": [{"allowedPaths": ["/other"]}]});
    });
    assert_eq!(others.of_requests(), ruled);
}

/// Rules let gateways reach what is isolated, so that the first of them are a way to join.
#[test]
fn r46_rules_in_place_of_isolation_make_the_cluster_of_a_group_another() {
    let isolated = || {
        World::new().vault_joins().and(|world| {
            world.find("WorkspaceSettings", "bank")["spec"] =
                json!({"options": {"serviceIsolation": {"enabled": true}}});
            world.find("WorkspaceSettings", "bank")["spec"]["exportTo"] = json!([{"workspaces": [{"name": "team"}]}]);
        })
    };
    for (without, with) in isolated().clusters().into_iter().zip(isolated().with("rules").clusters()) {
        assert_ne!(without, with);
    }
}

/// Its routes learn of its tokens after its cluster.
#[test]
fn r130_a_service_that_a_bad_policy_closes_has_another_cluster_than_when_it_is_mended() {
    let world = |jwks: &str| {
        World::new().with("tokens").and(|world| {
            world.find("JWTPolicy", "tokens")["spec"]["config"]["providers"]["a"]["remote"]["url"] = json!(jwks);
            let to = json!([{"ref": {"name": "vault", "namespace": "bank"}, "port": {"number": 80}}]);
            world.find("RouteTable", "shop")["spec"]["http"][0]["forwardTo"]["destinations"] = to;
            world.find("Service", "vault")["metadata"]["annotations"] = json!({});
        })
    };
    let (closed, mended) = (world("no URL").of_requests(), world("https://a.example/keys").of_requests());
    assert_eq!(mended, ["Service/bank/vault@cluster-1:80".into()].into());
    assert_ne!(closed, mended);
    assert_eq!(closed, world("neither").of_requests(), "closed is closed");
}

/// A member that a bad policy closes is left out, and joins when the policy is mended, with the tokens that it asks for then.
#[test]
fn r130_a_closed_service_that_joins_a_group_makes_its_cluster_another() {
    let world = |is_good: bool| {
        let jwks = if is_good { "https://a.example/keys" } else { "no URL" };
        World::new().with("rules").with("tokens").vault_joins().and(|world| {
            world.find("JWTPolicy", "tokens")["spec"]["config"]["providers"]["a"]["remote"]["url"] = json!(jwks);
        })
    };
    assert_eq!(world(false).of_requests(), World::new().of_requests());
    assert_ne!(world(true).of_requests(), world(false).of_requests());
}

/// Who may open connections is judged by listeners, which come after clusters and endpoints as well.
#[test]
fn r122_a_guarded_service_that_joins_a_group_makes_its_cluster_another_for_whole_connections() {
    let rules = || {
        World::new().with("rules").and(|world| {
            world.find("AccessPolicy", "rules")["spec"]["config"] =
                json!({"authzList": [{"allowedIpBlocks": ["10.0.0.0/8"]}]});
        })
    };
    let [_, before] = rules().clusters();
    let [_, after] = rules().vault_joins().clusters();
    assert_eq!((before.len(), after.len()), (1, 1), "{before:?} {after:?}");
    assert_ne!(before, after);
}

#[test]
fn other_destinations_have_no_edition() {
    let plain = World::new().with("tokens").and(|world| {
        let to = json!([{"ref": {"name": "vault", "namespace": "bank"}, "port": {"number": 80}}]);
        world.find("RouteTable", "shop")["spec"]["http"][0]["forwardTo"]["destinations"] = to;
        world.find("Service", "vault")["metadata"]["annotations"] = json!({});
    });
    let [requests, _] = plain.clusters();
    assert_eq!(requests, ["Service/bank/vault@cluster-1:80".into()].into());
}
