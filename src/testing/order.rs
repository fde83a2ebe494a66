//! R2: the same objects give the same configuration, whatever order they arrive in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::compile::compile;
use crate::crd::Change;
use crate::emit::{EmitOptions, emit_gateway};
use crate::ir::frozen::Remembered;
use crate::model::{Findings, GatewayId};
use crate::resolve::Options;
use crate::store::Store;

use super::scenarios::{manifests, scenarios};
use super::{decode, yaml};

/// How many orders of arrival each set of objects is tried in.
const ORDERS: u32 = 4;

/// What must not depend on the order: findings, verdicts and plans as text, resources by name and version.
#[derive(Debug, PartialEq)]
struct Outcome {
    findings: Findings,
    verdicts: String,
    plans: String,
    resources: BTreeMap<GatewayId, Vec<(String, String)>>,
}

/// Compiles what arrives one object at a time.
fn outcome(arriving: Vec<(String, Value)>) -> Outcome {
    let (objects, given) = decode(arriving);
    let mut store = Store::default();
    for object in objects {
        store.apply([Change::Put(object)]);
    }
    let compiled = compile(&store, &given, &Options::default(), &BTreeSet::new(), &Remembered::default());
    let bind = "0.0.0.0".parse().expect("an address");
    let resources = compiled
        .plans
        .iter()
        .map(|(gateway, plan)| {
            let snapshot = emit_gateway(plan, &EmitOptions { bind, ..EmitOptions::default() });
            let named = crate::snapshot::ResourceType::ALL.iter().flat_map(|kind| {
                snapshot
                    .resources(*kind)
                    .iter()
                    .map(|(name, resource)| (format!("{kind:?} {name}"), resource.version.to_string()))
                    .collect::<Vec<_>>()
            });
            (gateway.clone(), named.collect())
        })
        .collect();
    Outcome {
        findings: compiled.findings.to_vec(),
        verdicts: format!("{:?}", compiled.verdicts),
        plans: format!("{:?}", compiled.plans),
        resources,
    }
}

/// The manifests below a cluster's folder of the demo.
fn demo(folder: &Path, cluster: &str, found: &mut Vec<(String, Value)>) {
    for entry in std::fs::read_dir(folder).expect("the demo is part of the repository") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            demo(&path, cluster, found);
        } else {
            let text = std::fs::read_to_string(&path).expect("a readable manifest");
            let documents = yaml::documents(&text).expect("the demo is YAML");
            found.extend(documents.into_iter().map(|document| (cluster.to_owned(), document)));
        }
    }
}

#[test]
fn r2_the_order_of_arrival_does_not_matter() {
    let mut worlds: Vec<(String, Vec<(String, Value)>)> = scenarios()
        .iter()
        .map(|scenario| (scenario["id"].as_str().unwrap_or_default().to_owned(), manifests(scenario)))
        .collect();
    let mut objects = Vec::new();
    for cluster in ["mgmt", "cluster-1"] {
        demo(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo").join(cluster), cluster, &mut objects);
    }
    worlds.push(("the demo".to_owned(), objects));
    for (name, objects) in worlds {
        assert!(objects.len() > 2, "{name} has only {} objects", objects.len());
        let expected = outcome(objects.clone());
        assert!(expected.resources.values().any(|resources| !resources.is_empty()), "{name} serves nothing");
        let config = Config { cases: ORDERS, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let tried = runner.run(&Just(objects).prop_shuffle(), |shuffled| {
            prop_assert_eq!(&outcome(shuffled), &expected);
            Ok(())
        });
        assert!(tried.is_ok(), "{name}: {}", tried.unwrap_err());
    }
}

/// R5: the domain shows in the host name of a destination.
#[test]
fn r5_a_cluster_domain_is_cluster_local_unless_stated() {
    let text = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: edge}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: edge}
spec: {workloads: [{selector: {}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: edge}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web}]
  http: [{forwardTo: {autoHostRewrite: true, destinations: [{ref: {name: web}}]}}]
";
    for (written, expected) in [("", "cluster.local"), ("clusterDomain: corp.internal", "corp.internal")] {
        let text = text.replace("spec: {}", &format!("spec: {{{written}}}"));
        let documents = yaml::documents(&text).expect("YAML");
        let compiled = super::compile_manifests(
            documents.into_iter().map(|document| (super::cluster_of(&document), document)),
            &Options::default(),
        );
        let hosts: Vec<String> = compiled
            .plans
            .values()
            .flat_map(|plan| plan.upstreams.values().map(|upstream| upstream.hostname.to_string()))
            .collect();
        assert_eq!(hosts, [format!("web.edge.svc.{expected}")]);
    }
}
