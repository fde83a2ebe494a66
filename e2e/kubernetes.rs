//! Objects from API servers: what a directory serves, they serve too, and they are survived.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use chancery::model::Kind;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use serde_json::{Value, json};

use crate::support::chancery::{Chancery, Settings};
use crate::support::kube::{Kube, kubectl_with};
use crate::support::wait::{Not, PATIENCE, STATUSES, until};
use crate::xds_port::{labels, node, text};

mod away;
mod bad_input;
mod chart;
mod clusters;
mod conformance;
mod deployed;
mod faults;
mod gateways;
mod hour;
mod kept;
mod killed;
mod many;
mod replicas;
mod restored;
mod scenarios;
mod secrets;
mod shop;
mod statuses;
mod tokens;
mod writing;

/// Definitions that keep whatever is written, as those of another installation may be.
fn loose_definitions() -> Vec<Value> {
    let definition = |kind: &Kind| {
        let (group, version) = kind.group().api_version().split_once('/')?;
        let (name, plural) = (kind.as_str(), kind.plural());
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        Some(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": name, "listKind": format!("{name}List"), "plural": plural, "singular": name.to_lowercase()},
                "versions": [{
                    "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": open},
                }],
            },
        }))
    };
    Kind::ALL.iter().filter(|kind| kind.is_v2()).filter_map(definition).collect()
}

/// Installs [`loose_definitions`] and waits until they are served.
fn install_loose(kube: &Kube) -> anyhow::Result<()> {
    kube.apply(&loose_definitions())?;
    kube.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).map(drop)
}

/// The objects of a team with one gateway, one table and one backend, in the order in which they may be applied.
fn objects(cluster: &str) -> Vec<Value> {
    let admin = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "admin.gloo.solo.io/v2", "kind": kind,
            "metadata": {"name": name, "namespace": "gloo-mesh"}, "spec": spec,
        })
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gloo-mesh"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}}),
        admin("KubernetesCluster", cluster, json!({"clusterDomain": "cluster.local"})),
        admin("Workspace", "shop", json!({"workloadClusters": [{"name": "*", "namespaces": [{"name": "shop"}]}]})),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]},
        }),
        slice("10.1.0.11"),
        json!({
            "apiVersion": "networking.gloo.solo.io/v2", "kind": "VirtualGateway",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "workloads": [{"selector": {"labels": {"app": "web"}, "cluster": cluster}}],
                "listeners": [{"http": {}, "port": {"number": 8080}}],
            },
        }),
        table("/"),
    ]
}

fn slice(address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

fn table(prefix: &str) -> Value {
    json!({
        "apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "hosts": ["shop.example.com"], "virtualGateways": [{"name": "web"}],
            "http": [{
                "name": "cart", "matchers": [{"uri": {"prefix": prefix}}],
                "forwardTo": {"destinations": [{"ref": {"name": "cart"}, "port": {"number": 80}}]},
            }],
        },
    })
}

/// The Envoy of Pod `web-1`.
fn gateway(cluster: &str) -> Node {
    let stated = [
        ("cluster", text(cluster)),
        ("namespace", text("shop")),
        ("pod", text("web-1")),
        ("labels", labels(&[("app", "web")])),
    ];
    // What it is sent depends on its release.
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let build = BuildVersion { version: Some(version), ..BuildVersion::default() };
    Node {
        user_agent_name: "envoy".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        ..node("web-1", &stated)
    }
}

/// The types that are asked for, and by which names; clusters and listeners are all.
const ASKED: [(&str, &[&str]); 4] = [
    ("envoy.config.cluster.v3.Cluster", &[]),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", &["svc/CLUSTER/shop/cart/80"]),
    ("envoy.config.listener.v3.Listener", &[]),
    ("envoy.config.route.v3.RouteConfiguration", &["route/8080"]),
];

/// A gateway that asks for everything: versions by type and name.
type Served = BTreeMap<(String, String), String>;

/// What a gateway of a cluster is served at first.
async fn served(chancery: &Chancery, cluster: &str) -> anyhow::Result<Served> {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", chancery.xds())).await?;
    let (ask, asked) = tokio::sync::mpsc::unbounded_channel();
    let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(asked);
    for (index, (kind, names)) in ASKED.into_iter().enumerate() {
        let names = names.iter().map(|name| name.replace("CLUSTER", cluster)).collect();
        ask.send(DeltaDiscoveryRequest {
            node: (index == 0).then(|| gateway(cluster)),
            type_url: format!("type.googleapis.com/{kind}"),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        })?;
    }
    let mut served = Served::new();
    let all = async {
        let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
        let mut kinds = std::collections::BTreeSet::new();
        while kinds.len() < ASKED.len() {
            let response = responses.message().await?.context("the stream ended")?;
            ask.send(DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            })?;
            for resource in response.resources {
                served.insert((response.type_url.clone(), resource.name), resource.version);
            }
            kinds.insert(response.type_url);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await.context("not everything is served")??;
    Ok(served)
}

/// Waits until a gateway is served something that a question approves.
async fn until_served(
    chancery: &Chancery,
    cluster: &str,
    what: &str,
    mut is_right: impl FnMut(&Served) -> bool,
) -> anyhow::Result<Served> {
    until(PATIENCE, what, async || match served(chancery, cluster).await {
        Ok(served) if is_right(&served) => Ok(served),
        Ok(served) => Err(Not::Yet(format!("{served:?}"))),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
    })
    .await
    .with_context(|| chancery.log_tail())
}

/// Writes what an API server holds as a directory of manifests, with their times of creation.
fn export(kube: &Kube, folder: &Path) -> anyhow::Result<()> {
    let mut kinds: Vec<String> = ["namespaces", "services", "endpointslices", "pods"].map(str::to_owned).to_vec();
    let v2 = Kind::ALL.iter().filter(|kind| kind.is_v2());
    kinds.extend(v2.map(|kind| format!("{}.{}", kind.plural(), kind.group().api_version().replace("/v2", ""))));
    let all = kube.get(&[&kinds.join(","), "--all-namespaces"])?;
    ensure!(all["items"].as_array().is_some_and(|items| !items.is_empty()), "nothing is there");
    std::fs::write(folder.join("all.json"), all.to_string()).context("write the manifests")
}
