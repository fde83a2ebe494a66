//! Every release of Envoy that is served, in both variants of xDS: ten gateways of one class on one control plane.
//!
//! Each world is an edit of everything, so that what one gateway holds of another world shows. What the gateways do must
//! be what `explain` says, none may refuse anything, and none may get a field that it does not know.

use anyhow::{Context, ensure};

use crate::agreement::{ask, compiled, documents, judge};
use crate::support::chancery::Settings;
use crate::support::envoy::{RELEASES, find_release};
use crate::support::http::{Client, Request};
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

async fn start(mesh: &mut Mesh) -> anyhow::Result<Vec<Tested>> {
    let (namespace, name, ports) = GATEWAYS[GATEWAY];
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

async fn agree(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut tested = start(mesh).await?;
    let mut faults = Vec::new();
    for seed in 1..=WORLDS {
        faults.extend(play(mesh, &mut tested, &World::new(seed)).await?);
    }
    for (running, tested) in mesh.gateways.iter().zip(&tested) {
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
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn five_releases_in_both_variants_do_what_explain_says() -> anyhow::Result<()> {
    let mut mesh = Mesh::start_without_gateways(random::frame(), Settings::default()).await?;
    let outcome = agree(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
