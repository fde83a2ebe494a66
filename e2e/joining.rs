//! A guarded Service joins a group that serves already, or gets its first endpoints with its first guard: nobody reaches it past
//! what guards it, not for one request.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message;
use serde_json::{Value, json};

use crate::crossing::place;
use crate::support::chancery::Settings;
use crate::support::http::{Client, Request, Response};
use crate::support::issuer::Issuer;
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::{self, Manifest};
use crate::support::proxy::Proxy;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech, gateway_of};
use crate::support::yaml;
use crate::variants::STATE_OF_THE_WORLD;

/// How often the Service joins. Before, one to four requests got through in four of four attempts.
const ROUNDS: usize = 20;

/// Connections in a row that must meet the same, after which both workers have.
const IN_A_ROW: usize = 12;

/// A gateway leads to the group, which has `open`. `vault` is beside it, and asks for a token or for POST.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {in: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: team, namespace: gloo-mesh, annotations: {in: mgmt}}
spec: {workloadClusters: [{namespaces: [{name: apps}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: apps}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: apps}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: open, namespace: apps}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: open-1, namespace: apps, labels: {kubernetes.io/service-name: open}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.1.0.11], targetRef: {kind: Pod, name: open-0}}]
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: apps}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: vault-1, namespace: apps, labels: {kubernetes.io/service-name: vault}}
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.1.0.12], targetRef: {kind: Pod, name: vault-0}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: apps}
spec: {services: [{name: open}], ports: [{number: 80, protocol: HTTP}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: shop, namespace: apps}
spec:
  hosts: [shop.example]
  virtualGateways: [{name: web, namespace: apps}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: cart, namespace: apps}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}]
";

const GROUP: &str = "VirtualDestination/apps/cart@cluster-1";

/// A token, which is asked for on routes.
fn by_token() -> anyhow::Result<Value> {
    Ok(json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "JWTPolicy",
        "metadata": {"name": "guard", "namespace": "apps"},
        "spec": {
            "applyToDestinations": [{"selector": {"name": "vault"}}],
            "config": {"providers": {"a": {"issuer": "https://a", "local": {"inline": Issuer::ec("https://a")?.jwks()}}}},
        },
    }))
}

/// Another method, which is asked for by the cluster.
fn by_method() -> Value {
    json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": "AccessPolicy",
        "metadata": {"name": "guard", "namespace": "apps"},
        "spec": {
            "applyToDestinations": [{"selector": {"name": "vault"}}],
            "config": {"authzList": [{"allowedMethods": ["POST"]}]},
        },
    })
}

fn world(guard: Value) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests: Vec<Manifest> = yaml::documents(WORLD)?.into_iter().map(place).collect();
    manifests.push(place(guard));
    Ok(manifests)
}

/// Who answered, or with what status somebody was refused.
fn outcome(response: &Response) -> String {
    match (response.status, response.json()) {
        (200, Ok(echo)) => echo["service"].as_str().unwrap_or_default().to_owned(),
        (status, _) => status.to_string(),
    }
}

/// Waits until new connections meet nothing else.
async fn answers(address: SocketAddr, wanted: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("nothing but `{wanted}`"), async || {
        for _ in 0..IN_A_ROW {
            let response = Client::new(address).send(&Request::get("shop.example", "/")).await;
            let found = outcome(&response.map_err(|error| Not::Yet(format!("{error:#}")))?);
            if found != wanted {
                return Err(Not::Yet(found));
            }
        }
        Ok(())
    })
    .await
}

/// Requests with one of some outcomes; nothing else may happen to them.
fn load<const N: usize>(address: SocketAddr, lasts: Lasts, outcomes: [&'static str; N]) -> Load {
    let requests = vec![Request::get("shop.example", "/")];
    Load::start_with(
        move || Client::new(address),
        lasts,
        4,
        Pace::PerSecond(400),
        requests,
        move |_, response| {
            let found = outcome(response);
            ensure!(outcomes.contains(&&*found), "{found}");
            Ok(())
        },
    )
}

/// The same by connections that stay, and by one each.
fn loads(address: SocketAddr, outcomes: [&'static str; 2]) -> [Load; 2] {
    [Lasts::AllTheTime, Lasts::OneRequest].map(|lasts| load(address, lasts, outcomes))
}

async fn joins_and_leaves(guard: Value, refused: &'static str, speech: &Speech<'_>) -> anyhow::Result<()> {
    let mut mesh = Mesh::start_speaking(world(guard)?, Settings::default(), speech).await?;
    let web = mesh.gateways.first().context("no gateway")?.address(80)?;
    answers(web, "open").await.map_err(|error| mesh.with_logs(error))?;
    let loads = loads(web, ["open", refused]);
    for _ in 0..ROUNDS {
        for (service, met) in [("vault", refused), ("open", "open")] {
            mesh.edit(GROUP, |object| object["spec"]["services"] = json!([{"name": service}]))?;
            answers(web, met).await.map_err(|error| mesh.with_logs(error))?;
        }
    }
    for load in loads {
        load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))?;
    }
    Ok(())
}

/// Old routes lead to the old cluster, which never gets the endpoints of the Service that joins.
#[tokio::test(flavor = "multi_thread")]
async fn r122_r130_a_service_that_joins_a_group_is_never_reached_without_a_token() -> anyhow::Result<()> {
    joins_and_leaves(by_token()?, "401", &Speech::default()).await
}

/// The same where Envoy is told everything of a type at once.
#[tokio::test(flavor = "multi_thread")]
async fn r122_r130_a_service_that_joins_a_group_is_never_reached_without_a_token_in_the_state_of_the_world()
-> anyhow::Result<()> {
    joins_and_leaves(by_token()?, "401", &STATE_OF_THE_WORLD).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r122_r130_a_service_that_joins_a_group_is_never_reached_past_its_access_policy() -> anyhow::Result<()> {
    joins_and_leaves(by_method(), "403", &Speech::default()).await
}

/// Its first endpoints come in one edit with what guards it, and go with it.
async fn opens_with_its_guard(guard: Value, refused: &'static str, speech: &Speech<'_>) -> anyhow::Result<()> {
    let mut manifests = world(guard)?;
    let guard = manifests.pop().context("no guard")?;
    for manifest in manifests.iter_mut().filter(|manifest| manifest.object["kind"] == "RouteTable") {
        let to = json!([{"ref": {"name": "vault", "namespace": "apps"}, "port": {"number": 80}}]);
        manifest.object["spec"]["http"][0]["forwardTo"]["destinations"] = to;
    }
    let mesh = Mesh::start_speaking(manifests, Settings::default(), speech).await?;
    let web = mesh.gateways.first().context("no gateway")?.address(80)?;
    answers(web, "vault").await.map_err(|error| mesh.with_logs(error))?;
    let index = mesh.manifests.iter().position(|manifest| manifest.key() == "EndpointSlice/apps/vault-1@cluster-1");
    let index = index.context("no slice")?;
    let mut slice = mesh.manifests[index].object.clone();
    let open = format!("{slice}\n---\n{}\n", guard.object);
    slice["endpoints"] = json!([]);
    let shut = slice.to_string();
    manifests::replace(&mesh.files[index], &shut)?;
    answers(web, "503").await.map_err(|error| mesh.with_logs(error))?;
    let loads = loads(web, ["503", refused]);
    for _ in 0..ROUNDS {
        for (text, met) in [(&open, refused), (&shut, "503")] {
            manifests::replace(&mesh.files[index], text)?;
            answers(web, met).await.map_err(|error| mesh.with_logs(error))?;
        }
    }
    for load in loads {
        load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))?;
    }
    Ok(())
}

/// Routes that ask for a token come before the endpoints.
#[tokio::test(flavor = "multi_thread")]
async fn r13_r130_first_endpoints_are_never_reached_without_a_token() -> anyhow::Result<()> {
    opens_with_its_guard(by_token()?, "401", &Speech::default()).await
}

/// The cluster that asks for the method takes none at first, so that the one before it never has them.
#[tokio::test(flavor = "multi_thread")]
async fn r13_r130_first_endpoints_are_never_reached_past_an_access_policy() -> anyhow::Result<()> {
    opens_with_its_guard(by_method(), "403", &Speech::default()).await
}

/// The same where Envoy is told everything of a type at once.
#[tokio::test(flavor = "multi_thread")]
async fn r13_r130_first_endpoints_are_never_reached_without_a_token_in_the_state_of_the_world() -> anyhow::Result<()> {
    opens_with_its_guard(by_token()?, "401", &STATE_OF_THE_WORLD).await
}

/// What closes a Service is in its cluster, and what asks for tokens is on routes, which come later.
#[tokio::test(flavor = "multi_thread")]
async fn r130_a_service_that_a_bad_policy_closed_is_never_reached_without_a_token_when_it_is_mended()
-> anyhow::Result<()> {
    let good = by_token()?;
    let keys = good["spec"]["config"]["providers"]["a"]["local"]["inline"].clone();
    let mut manifests = world(good)?;
    for manifest in &mut manifests {
        if manifest.object["kind"] == "RouteTable" {
            let to = json!([{"ref": {"name": "vault", "namespace": "apps"}, "port": {"number": 80}}]);
            manifest.object["spec"]["http"][0]["forwardTo"]["destinations"] = to;
        }
    }
    let mut mesh = Mesh::start_speaking(manifests, Settings::default(), &Speech::default()).await?;
    let web = mesh.gateways.first().context("no gateway")?.address(80)?;
    answers(web, "401").await.map_err(|error| mesh.with_logs(error))?;
    let loads = loads(web, ["401", "403"]);
    for _ in 0..ROUNDS {
        for (keys, met) in [(json!("no keys"), "403"), (keys.clone(), "401")] {
            mesh.edit("JWTPolicy/apps/guard@cluster-1", |object| {
                object["spec"]["config"]["providers"]["a"]["local"]["inline"] = keys;
            })?;
            answers(web, met).await.map_err(|error| mesh.with_logs(error))?;
        }
    }
    for load in loads {
        load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))?;
    }
    Ok(())
}

/// What the cluster of the group is called once a guarded Service is in it, but for the end.
const GUARDED: &str = "/cart/80+";

/// As long as the new routes are refused, what was served goes on, also for a gateway that comes later.
#[tokio::test(flavor = "multi_thread")]
async fn r130_r132_a_service_that_joins_a_group_stays_closed_while_the_routes_that_guard_it_are_refused()
-> anyhow::Result<()> {
    let proxy = Proxy::start(|kind, _, bytes| {
        let leads_there = kind == "RouteConfiguration" && String::from_utf8_lossy(bytes).contains(GUARDED);
        let mut configuration = RouteConfiguration::decode(bytes).ok().filter(|_| leads_there)?;
        for host in &mut configuration.virtual_hosts {
            host.domains.extend(host.domains.clone());
        }
        Some(configuration.encode_to_vec())
    })
    .await?;
    let mut mesh = Mesh::start_without_gateways(world(by_token()?)?, Settings::default()).await?;
    let (gateway, _) = gateway_of(&mesh.manifests, ("cluster-1", "apps", "web"))?;
    let speech = Speech { through: Some(&proxy), ..Speech::default() };
    let bind = mesh.bind(&gateway);
    let first = mesh.join(&gateway, bind, &speech).await?.address(80)?;
    answers(first, "open").await.map_err(|error| mesh.with_logs(error))?;
    let load = load(first, Lasts::OneRequest, ["open"]);

    mesh.edit(GROUP, |object| object["spec"]["services"] = json!([{"name": "vault"}]))?;
    until(PATIENCE, "the new routes to be refused", async || {
        let refused = proxy.refused();
        let fits = refused.iter().any(|refused| refused.kind == "RouteConfiguration");
        if fits { Ok(()) } else { Err(Not::Yet(format!("{refused:?}"))) }
    })
    .await?;
    load.goes_on(400).await?;

    let bind = mesh.free_address("cluster-1")?;
    let second = mesh.join(&gateway, bind, &speech).await?.address(80)?;
    answers(second, "open").await.map_err(|error| mesh.with_logs(error))?;
    load.tally().await?.is_flawless().map_err(|error| mesh.with_logs(error))?;

    mesh.edit(GROUP, |object| object["spec"]["services"] = json!([{"name": "open"}]))?;
    for address in [first, second] {
        answers(address, "open").await.map_err(|error| mesh.with_logs(error))?;
    }
    Ok(())
}
