//! Every release of Envoy that is served, in both variants of xDS: ten gateways of one class on one control plane.
//!
//! In random worlds, each of which is an edit of everything, the gateways must do what `explain` says. In the world of the
//! policies, all must answer alike, edits included. None may refuse anything, or get a field that it does not know.

mod between;
mod protecting;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::agreement::{ask, compiled, documents, judge};
use crate::policies::{self, HOST, preflight};
use crate::support::backend::Echo;
use crate::support::chancery::Settings;
use crate::support::envoy::{RELEASES, find_release};
use crate::support::http::{Client, Request, Response};
use crate::support::manifests;
use crate::support::random::{self, Dice, GATEWAYS, MARKER_HOST, World};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{self, Mesh, Speech};
use crate::variants::STATE_OF_THE_WORLD;

/// Worlds, of the seeds from 1 on.
const WORLDS: u64 = 12;

/// Requests to each gateway in each world.
const REQUESTS: usize = 10;

/// The gateway of the random worlds that is started ten times.
const GATEWAY: usize = 0;

/// Counters of Envoy that stay 0: what it refused, and what it took without understanding it, or will not take for long.
const COMPLAINTS: &str = r"(update_rejected|update_failure|dynamic_unknown_fields|dynamic_wip_protos|deprecated_feature_use|envoy_bug_failures)$";

/// One of the ten.
struct Tested {
    /// Release and variant.
    what: String,
    /// The release without its patch: `1.36.`.
    release: &'static str,
    /// One connection per Service port.
    clients: Vec<(u16, Client)>,
}

async fn start(mesh: &mut Mesh, namespace: &str, name: &str, ports: &[u16]) -> anyhow::Result<Vec<Tested>> {
    let (gateway, _) = world::gateway_of(&mesh.manifests, ("cluster-1", namespace, name))?;
    let mut tested = Vec::new();
    for version in RELEASES {
        for (variant, speech) in [("delta", Speech::default()), ("sotw", STATE_OF_THE_WORLD)] {
            let (binary, bind) = (find_release(version)?, mesh.free_address("cluster-1")?);
            let running = mesh.join(&gateway, bind, &Speech { binary: Some(&binary), ..speech }).await?;
            let mut clients = Vec::new();
            for port in ports {
                clients.push((*port, Client::new(running.address(*port)?)));
            }
            tested.push(Tested { what: format!("Envoy {version}, {variant}"), release: &version[..5], clients });
        }
    }
    for (running, tested) in mesh.gateways.iter_mut().zip(&tested) {
        for port in ports {
            let address = running.address(*port)?;
            running.envoy.listens(address).await.with_context(|| tested.what.clone())?;
        }
    }
    Ok(tested)
}

/// Brings a world on and asks every gateway the same about it. Answers what is wrong.
async fn play(mesh: &Mesh, tested: &mut [Tested], world: &World) -> anyhow::Result<Vec<String>> {
    let (namespace, name, _) = GATEWAYS[GATEWAY];
    let id = format!("cluster-1/{namespace}/{name}");
    manifests::replace(&mesh.directory().join("cluster-1").join("world.yaml"), &documents(&world.objects)?)?;
    let compiled = compiled(mesh.directory())?;
    let mut dice = Dice::new(!world.seed);
    let asked = std::iter::repeat_with(|| random::request(&mut dice)).filter(|(gateway, ..)| *gateway == GATEWAY);
    let asked: Vec<(usize, u16, Request)> = asked.take(REQUESTS).collect();
    let mut faults = Vec::new();
    for tested in tested {
        for (port, client) in &mut tested.clients {
            until(PATIENCE, &format!("world {} at {} {port}", world.seed, tested.what), async || {
                let marker = client.send(&Request::get(MARKER_HOST, "/")).await;
                let seen = marker.map_err(|error| format!("{error:#}"))?.text();
                if seen == world.seed.to_string() { Ok(()) } else { Err(Not::Yet(format!("world {seen}"))) }
            })
            .await?;
            for (_, _, request) in asked.iter().filter(|(_, asked, _)| asked == port) {
                let said = ask(&compiled, &id, *port, request)?;
                let response = client.send(request).await.with_context(|| tested.what.clone())?;
                for fault in judge(&world.effects, request, &said, &response) {
                    faults.push(format!("{}, world {}, {request:?}: {fault}", tested.what, world.seed));
                }
            }
        }
    }
    Ok(faults)
}

/// What the gateways complain about, or that they are not what they should be.
async fn complaints(mesh: &Mesh, tested: &[Tested]) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (running, tested) in mesh.gateways.iter().zip(tested) {
        let told = running.envoy.admin("/server_info").await?;
        if !told.contains(&format!("/{}", tested.release)) {
            faults.push(format!("{} runs another release: {told}", tested.what));
        }
        let mut complaints = running.envoy.stats(COMPLAINTS).await?;
        ensure!(complaints.contains_key("server.dynamic_unknown_fields"), "what is not counted: {complaints:?}");
        complaints.retain(|_, count| *count > 0);
        if !complaints.is_empty() {
            faults.push(format!("{} complains: {complaints:?}\n{}", tested.what, running.envoy.log_tail()));
        }
    }
    Ok(faults)
}

async fn agree(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (namespace, name, ports) = GATEWAYS[GATEWAY];
    let mut tested = start(mesh, namespace, name, ports).await?;
    let mut faults = Vec::new();
    for seed in 1..=WORLDS {
        faults.extend(play(mesh, &mut tested, &World::new(seed)).await?);
    }
    faults.extend(complaints(mesh, &tested).await?);
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn five_releases_in_both_variants_do_what_explain_says() -> anyhow::Result<()> {
    let mut mesh = Mesh::start_without_gateways(random::frame(), Settings::default()).await?;
    let outcome = agree(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}

/// What a client learns, without what differs from request to request.
fn seen(response: &Response) -> String {
    let mut headers: Vec<String> = response.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    let varies = ["content-length: ", "date: ", "x-envoy-upstream-service-time: "];
    headers.retain(|header| !varies.iter().any(|name| header.starts_with(name)));
    headers.sort();
    let body = match response.json().and_then(|body| Ok(serde_json::from_value::<Echo>(body)?)) {
        Ok(mut echo) => {
            echo.count = 0;
            echo.headers.remove("x-request-id");
            format!("{echo:?}")
        }
        Err(_) => response.text(),
    };
    format!("{} {headers:?} {body}", response.status)
}

/// One request to every policy, with the status that is right. Each has a query of its own, so that backends count it apart.
fn requests(number: usize) -> Vec<(Request, u16)> {
    let get = |path: &str| Request::get(HOST, path).header("x-id", "7").header("x-debug", "1");
    let foreign = |path: &str| get(path).header("origin", "https://app.test");
    vec![
        (get("/plain"), 200),
        (get("/headers"), 200),
        (get("/timeout?delay=8000"), 504),
        (get(&format!("/retries?fail=3&n={number}")), 200),
        (get(&format!("/retries?fail=9&n={number}")), 503),
        (get(&format!("/once?fail=1&n={number}")), 503),
        (get("/abort"), 418),
        (get("/never"), 200),
        (get("/slow"), 200),
        (foreign("/cors"), 200),
        (preflight("/cors", "https://app.test", "GET"), 200),
        (preflight("/post/cors", "https://app.test", "PUT"), 404),
    ]
}

/// Compares what every gateway answers with what the first answers.
async fn compare(tested: &mut [Tested]) -> anyhow::Result<Vec<String>> {
    let (mut faults, mut first): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, tested) in tested.iter_mut().enumerate() {
        let (_, client) = tested.clients.first_mut().context("no client")?;
        for (index, (request, status)) in requests(number).iter().enumerate() {
            let response = client.send(request).await.with_context(|| tested.what.clone())?;
            let seen = seen(&response).replace(&format!("&n={number}"), "");
            if number == 0 {
                first.push(seen.clone());
            }
            if response.status != *status || seen != first[index] {
                faults.push(format!("{}, {}: {seen}\n    not {}", tested.what, request.path, first[index]));
            }
        }
    }
    Ok(faults)
}

async fn answer_alike(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut tested = start(mesh, "shop", "ingress", &[80]).await?;
    let mut faults = compare(&mut tested).await?;
    mesh.edit("HeaderManipulationPolicy/team/of-the-child@cluster-1", |policy| {
        policy["spec"]["config"]["appendResponseHeaders"] = json!({"x-team": "edited"});
    })?;
    for tested in &mut tested {
        let (_, client) = tested.clients.first_mut().context("no client")?;
        until(PATIENCE, &format!("the edit at {}", tested.what), async || {
            let response = client.send(&Request::get(HOST, "/headers")).await.map_err(|error| format!("{error:#}"))?;
            match response.header("x-team") {
                Some(value) if value == "edited" => Ok(()),
                value => Err(Not::Yet(format!("{value:?}"))),
            }
        })
        .await?;
    }
    faults.extend(complaints(mesh, &tested).await?);
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn five_releases_in_both_variants_answer_alike_to_every_policy() -> anyhow::Result<()> {
    let mut mesh = Mesh::start_without_gateways(policies::manifests()?, Settings::default()).await?;
    let outcome = answer_alike(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
