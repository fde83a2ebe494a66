//! The ways in which a gateway may ask: delta or state of the world, over ADS or with services of their own.
//!
//! Each serves the same, follows edits without a failed request, and outlives its control plane.

use anyhow::Context;
use serde_json::{Value, json};

use crate::restart::{connected, updates};
use crate::scenarios::find;
use crate::support::backend::Echo;
use crate::support::http::{Client, Request};
use crate::support::manifests::Manifest;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{Mesh, Speech};

const ROOT: &str = "source-apps/parent";
const CHILD: &str = "RouteTable/target-apps/child@cluster-1";
const POLICY: &str = "HeaderManipulationPolicy/source-apps/policy-1@cluster-1";

/// Requests that are sent while the control plane is away; each must succeed.
const REQUESTS_MEANWHILE: usize = 100;

/// Clusters that are renamed under traffic.
const SWITCHES: [&str; 4] = ["app-b", "app-a", "app-b", "app-a"];

pub(crate) const STATE_OF_THE_WORLD: Speech<'_> =
    Speech { flags: &["--xds-variant", "sotw"], change: None, binary: None, through: None, dns: None };

/// A founding scenario with a second service that nothing refers to yet.
fn manifests() -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = find("delegated-1")?.manifests()?;
    let twins: Vec<Manifest> = manifests
        .iter()
        .filter(|manifest| {
            matches!(manifest.kind(), "Service" | "EndpointSlice") && manifest.namespace() == "target-apps"
        })
        .map(|manifest| {
            let text = manifest.object.to_string().replace("app-a", "app-b").replace("10.1.0.14", "10.1.0.15");
            Ok(Manifest { cluster: manifest.cluster.clone(), object: serde_json::from_str(&text)? })
        })
        .collect::<anyhow::Result<_>>()?;
    manifests.extend(twins);
    Ok(manifests)
}

/// Clusters and listeners from services of their own; endpoints and routes stay with ADS, as the resources say.
fn separate(bootstrap: &mut Value) {
    for source in ["cds_config", "lds_config"] {
        let ads = bootstrap["dynamic_resources"]["ads_config"].clone();
        let config = &mut bootstrap["dynamic_resources"][source];
        config["api_config_source"] = ads;
        if let Some(config) = config.as_object_mut() {
            config.remove("ads");
        }
    }
}

/// One request, which must succeed: the service that answered and the policy's header.
async fn ask(client: &mut Client) -> anyhow::Result<(String, String)> {
    let response = client.send(&Request::get("www.example.com", "/a")).await?;
    anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
    let echo: Echo = serde_json::from_value(response.json()?)?;
    Ok((echo.identity.service, response.header("x-policy-1").context("no x-policy-1")?))
}

/// Asks until the answer is as wanted; a failed request is never right.
async fn becomes(client: &mut Client, what: &str, wanted: &(String, String)) -> anyhow::Result<()> {
    until(PATIENCE, what, async || match ask(client).await {
        Ok(answer) if answer == *wanted => Ok(()),
        Ok(answer) => Err(Not::Yet(format!("{answer:?}"))),
        Err(error) => Err(Not::Ever(format!("{error:#}"))),
    })
    .await
}

fn switch(mesh: &mut Mesh, service: &str) -> anyhow::Result<()> {
    mesh.edit(CHILD, |table| table["spec"]["http"][0]["forwardTo"]["destinations"][0]["ref"]["name"] = json!(service))
}

fn set_policy(mesh: &mut Mesh, value: &str) -> anyhow::Result<()> {
    mesh.edit(POLICY, |policy| policy["spec"]["config"]["appendResponseHeaders"] = json!({ "x-policy-1": value }))
}

async fn refusals(mesh: &Mesh) -> anyhow::Result<u64> {
    let mut refused = 0;
    for running in &mesh.gateways {
        refused += running.envoy.stats(r"update_rejected$").await?.values().sum::<u64>();
    }
    Ok(refused)
}

/// What every variant has to do; `ads` says that everything comes over one stream.
async fn serve(mesh: &mut Mesh, ads: bool) -> anyhow::Result<()> {
    let mut client = Client::new(mesh.entrance(ROOT)?.1);
    let answer = |service: &str, policy: &str| (service.to_owned(), policy.to_owned());
    assert_eq!(ask(&mut client).await?, answer("app-a", "applied"));

    // Make before break: every switch adds a cluster and removes one.
    if ads {
        for service in SWITCHES {
            switch(mesh, service)?;
            becomes(&mut client, &format!("the switch to {service}"), &answer(service, "applied")).await?;
        }
    }
    set_policy(mesh, "edited")?;
    becomes(&mut client, "the edited policy", &answer("app-a", "edited")).await?;
    quiet(mesh).await?;
    let before = updates(&mesh.gateways[0].envoy).await?;

    mesh.chancery.kill();
    if ads {
        connected(&mesh.gateways[0].envoy, 0).await?;
    }
    for number in 0..REQUESTS_MEANWHILE {
        let got = ask(&mut client).await.with_context(|| format!("request {number} without control plane"))?;
        assert_eq!(got, answer("app-a", "edited"));
    }
    mesh.chancery.restart().await?;
    mesh.chancery.is_ready().await?;
    set_policy(mesh, "again")?;
    becomes(&mut client, "the policy that was edited after the restart", &answer("app-a", "again")).await?;
    let after = updates(&mesh.gateways[0].envoy).await?;
    for lane in ["CDS", "LDS"] {
        assert_eq!(before[lane], after[lane], "{lane} was sent again: {before:?}, {after:?}");
    }
    if ads {
        switch(mesh, "app-b")?;
        becomes(&mut client, "the switch after the restart", &answer("app-b", "again")).await?;
    }
    assert_eq!(refusals(mesh).await?, 0);
    Ok(())
}

/// Waits until the removal of what is unused has arrived: one cluster of the objects is left.
async fn quiet(mesh: &Mesh) -> anyhow::Result<()> {
    let envoy = &mesh.gateways[0].envoy;
    until(PATIENCE, "one upstream of target-apps", async || {
        let clusters = envoy.admin("/clusters").await.map_err(|error| format!("{error:#}"))?;
        let mut names: Vec<&str> = clusters.lines().filter_map(|line| line.split_once("::")).map(|(n, _)| n).collect();
        names.retain(|name| name.contains("app-"));
        names.dedup();
        if names.len() == 1 { Ok(()) } else { Err(Not::Yet(format!("{names:?}"))) }
    })
    .await
}

async fn run(speech: Speech<'_>, ads: bool) -> anyhow::Result<()> {
    let mut mesh = Mesh::start_speaking(manifests()?, Default::default(), &speech).await?;
    let outcome = serve(&mut mesh, ads).await;
    outcome.map_err(|error| mesh.with_logs(error))
}

#[tokio::test]
async fn state_of_the_world_over_ads() -> anyhow::Result<()> {
    run(STATE_OF_THE_WORLD, true).await
}

#[tokio::test]
async fn delta_over_ads() -> anyhow::Result<()> {
    run(Speech::default(), true).await
}

#[tokio::test]
async fn case_42_state_of_the_world_with_services_of_their_own() -> anyhow::Result<()> {
    run(Speech { change: Some(separate), ..STATE_OF_THE_WORLD }, false).await
}

#[tokio::test]
async fn case_42_delta_with_services_of_their_own() -> anyhow::Result<()> {
    run(Speech { change: Some(separate), ..Speech::default() }, false).await
}

/// Without an answer on clusters, Envoy never asks for listeners.
#[tokio::test]
async fn case_12_a_gateway_without_clusters_listens() -> anyhow::Result<()> {
    for speech in [Speech::default(), STATE_OF_THE_WORLD] {
        let mut manifests = manifests()?;
        manifests.retain(|manifest| manifest.kind() != "RouteTable");
        let mesh = Mesh::start_speaking(manifests, Default::default(), &speech).await?;
        assert_eq!(mesh.gateways.len(), 1);
    }
    Ok(())
}
