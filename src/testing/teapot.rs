//! The made-up kind from a manifest to Envoy: how little a policy kind takes.
//!
//! TeapotPolicy exists under `cfg(test)` only. Nothing below is written for it alone: selection, delegation, age order,
//! status and `explain` come with the registrations of [`PLACES`].

use serde_json::Value;

use super::{cluster_of, compile_manifests, yaml};
use crate::compile::Compiled;
use crate::compile::explain::{Request, explain};
use crate::emit::{EmitOptions, beyond, emit_gateway};
use crate::model::{Approval, Code, EnvoyRelease, GatewayId, ObjectRef};
use crate::render::to_json;
use crate::resolve::Options;
use crate::resolve::attachment::Off;
use crate::snapshot::verify::verify;
use crate::snapshot::{ResourceType, Snapshot};

/// Every file that mentions the kind, and what it says of it. A rule of the repository compares the list with the files.
pub(crate) const PLACES: &[(&str, &str)] = &[
    ("src/crd/object.rs", "the variant of `Spec` that holds its manifest"),
    ("src/crd/policy/mod.rs", "its module"),
    ("src/crd/policy/teapot.rs", "its manifest"),
    ("src/crd/schema.rs", "which manifest type belongs to which kind"),
    ("src/emit/filter/mod.rs", "one line that dispatches to its emission"),
    ("src/emit/filter/release.rs", "what of it takes a newer Envoy"),
    ("src/emit/filter/teapot.rs", "its form in Envoy"),
    ("src/ir/policy.rs", "its effect"),
    ("src/model/id.rs", "its name, group and plural"),
    ("src/resolve/policy/mod.rs", "one line that dispatches to its meaning"),
    ("src/resolve/policy/teapot.rs", "its meaning: from manifest to effect"),
];

/// Workspace `shop` owns the gateway and delegates to workspace `team`, each with teapots of its own.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: team}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: shop, namespace: shop}
spec: {exportTo: [{workspaces: [{name: team}], resources: [{kind: ROUTE_TABLE}]}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: WorkspaceSettings
metadata: {name: team, namespace: team}
spec: {importFrom: [{workspaces: [{name: shop}], resources: [{kind: ROUTE_TABLE}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: www, namespace: shop}
spec:
  hosts: [www.example]
  virtualGateways: [{name: web}]
  http:
    - name: cup
      labels: {serves: tea}
      matchers: [{uri: {prefix: /cup}}]
      delegate: {routeTables: [{name: cup, namespace: team}]}
    - name: plain
      matchers: [{uri: {prefix: /plain}}]
      directResponse: {status: 200}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: cup, namespace: team}
spec: {http: [{name: pour, directResponse: {status: 200}}]}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: TeapotPolicy
metadata: {name: green, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {applyToRoutes: [{route: {labels: {serves: tea}}}], config: {tea: green}}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: TeapotPolicy
metadata: {name: black, namespace: team, creationTimestamp: '2024-02-01T00:00:00Z'}
spec: {applyToRoutes: [{route: {labels: {serves: tea}}}], config: {tea: black}}
---
apiVersion: trafficcontrol.policy.gloo.solo.io/v2
kind: TeapotPolicy
metadata: {name: empty, namespace: shop, creationTimestamp: '2023-01-01T00:00:00Z'}
spec: {applyToRoutes: [{route: {labels: {serves: tea}}}], config: {tea: ''}}
";

fn compiled(world: &str) -> Compiled {
    let manifests = yaml::documents(world).expect("the world is YAML");
    let placed = manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest));
    compile_manifests(placed, &Options::default())
}

fn gateway() -> GatewayId {
    "cluster-1/shop/web".parse().expect("a gateway")
}

/// What Envoy gets for a route, by its name.
fn envoy_route(compiled: &Compiled, name: &str) -> Value {
    route_of(&emit_gateway(&compiled.plans[&gateway()], &EmitOptions::default()), name)
}

fn route_of(snapshot: &Snapshot, name: &str) -> Value {
    let resources = snapshot.resources(ResourceType::Route);
    let shown: Vec<Value> =
        resources.values().map(|resource| to_json(ResourceType::Route, resource).expect("a known message")).collect();
    let routes = shown.iter().flat_map(|r| r["virtual_hosts"][0]["routes"].as_array().into_iter().flatten());
    routes.clone().find(|route| route["name"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {shown:?}"))
}

fn tea(compiled: &Compiled, name: &str) -> Option<String> {
    let header = envoy_route(compiled, name)["response_headers_to_add"][0]["header"].clone();
    (header["key"] == "x-teapot").then(|| header["value"].as_str().unwrap_or_default().to_owned())
}

fn short(policy: &str, workspace: &str) -> ObjectRef {
    format!("TeapotPolicy/{workspace}/{policy}@cluster-1").parse().expect("a name")
}

#[test]
fn a_made_up_kind_reaches_the_envoy_route_through_delegation_by_label() {
    let compiled = compiled(WORLD);
    assert_eq!(tea(&compiled, "team/cup:pour").as_deref(), Some("green"), "the parent's is older than the child's");
    assert_eq!(tea(&compiled, "shop/www:plain"), None, "the label is not on that route");
}

/// R126, R129, R130.
#[test]
fn its_verdicts_come_by_themselves() {
    let all = compiled(WORLD);
    let verdict = |policy: &str, workspace: &str| &all.verdicts[&short(policy, workspace)];
    let (green, black, empty) = (verdict("green", "shop"), verdict("black", "team"), verdict("empty", "shop"));
    assert_eq!((green.approval, green.counts["numSelectedRoutes"]), (Approval::Accepted, 1));
    assert_eq!(black.approval, Approval::Warning);
    assert!(black.message.contains("BEATEN_BY_OLDER") && black.message.contains("TeapotPolicy/shop/green@cluster-1"));
    assert_eq!(empty.approval, Approval::Invalid);
    let finding = all.findings.iter().find(|finding| finding.subject.as_ref() == Some(&short("empty", "shop")));
    let finding = finding.expect("the invalid one is reported");
    assert_eq!((finding.code, finding.field.to_string().as_str()), (Code::InvalidField, "spec.config.tea"));
    let alone = compiled(&WORLD.replace("{tea: green}", "{tea: ''}"));
    assert_eq!(tea(&alone, "team/cup:pour").as_deref(), Some("black"), "the next oldest takes over");
}

#[test]
fn explain_names_it_and_says_why_others_are_off() {
    let compiled = compiled(WORLD);
    let ask = |path: &str| {
        let request = Request { host: "www.example".into(), path: path.into(), ..Request::default() };
        let route = explain(&compiled, &gateway(), &request).expect("a gateway").route.expect("a route");
        let on: Vec<ObjectRef> = route.body.attached.iter().map(|attachment| attachment.policy.clone()).collect();
        let off: Vec<(ObjectRef, Off)> = route.off.into_iter().map(|off| (off.policy, off.off)).collect();
        (on, off)
    };
    let (black, green, empty) = (short("black", "team"), short("green", "shop"), short("empty", "shop"));
    let (on, mut off) = ask("/cup");
    off.sort();
    assert_eq!(on, std::slice::from_ref(&green));
    let mut expected = [(black.clone(), Off::OlderPolicyWins), (empty.clone(), Off::PolicyInvalid)];
    expected.sort();
    assert_eq!(off, expected);
    let (on, mut off) = ask("/plain");
    off.sort();
    assert_eq!(on, []);
    let mut expected = [(black, Off::OwnerNotOnChain), (empty, Off::LabelMismatch), (green, Off::LabelMismatch)];
    expected.sort();
    assert_eq!(off, expected);
}

/// R130: what the release cannot do is closed, and only that.
#[test]
fn what_a_release_cannot_do_is_closed_for_it() {
    let all = compiled(&WORLD.replace("{tea: green}", "{tea: iced}"));
    let plan = &all.plans[&gateway()];
    let at = |minor| EmitOptions { release: EnvoyRelease::new(1, minor), ..EmitOptions::default() };
    let snapshots = [36, 37, 38, 40].map(|minor| emit_gateway(plan, &at(minor)));
    for (snapshot, minor) in snapshots.iter().zip([36, 37, 38, 40]) {
        assert_eq!(verify(snapshot), []);
        let route = route_of(snapshot, "team/cup:pour");
        let is_closed = route["direct_response"]["status"] == 500;
        assert_eq!(is_closed, minor < 38, "{route:#}");
        assert_eq!(route["match"]["prefix"], "/cup");
        assert_eq!(route["response_headers_to_add"].is_null(), is_closed, "{route:#}");
        assert_eq!(route_of(snapshot, "shop/www:plain")["direct_response"]["status"], 200);
        let told = beyond(plan, EnvoyRelease::new(1, minor));
        let policies: Vec<String> = told.iter().map(|beyond| format!("{} {}", beyond.policy, beyond.since)).collect();
        let expected = if is_closed { vec!["TeapotPolicy/shop/green@cluster-1 1.38".to_owned()] } else { Vec::new() };
        assert_eq!(policies, expected);
    }
    assert!(snapshots[0] == snapshots[1] && snapshots[2] == snapshots[3]);
}
