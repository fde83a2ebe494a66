//! Clients inside a cluster and the way between clusters on every release that is served: each finds what its workspace may see,
//! and gateways of any two releases understand each other.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Tested, complaints};
use crate::support::chancery::Settings;
use crate::support::envoy::{RELEASES, find_release};
use crate::support::http::{Client, Request};
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::world::{self, Mesh, Speech};
use crate::trust::Root;
use crate::variants::STATE_OF_THE_WORLD;
use crate::{crossing, mesh};

/// Starts a gateway Service's Envoy of every release, in the variants that are given.
async fn join(mesh: &mut Mesh, service: &str, variants: &[(&str, Speech<'_>)]) -> anyhow::Result<Vec<Tested>> {
    let found = world::gateways(&mesh.manifests).into_iter().find(|gateway| gateway.service == service);
    let gateway = found.with_context(|| format!("no gateway {service}"))?;
    let mut tested = Vec::new();
    for version in RELEASES {
        for (variant, speech) in variants {
            let (binary, bind) = (find_release(version)?, mesh.free_address(&gateway.cluster)?);
            mesh.join(&gateway, bind, &Speech { binary: Some(&binary), ..*speech }).await?;
            let what = format!("{service} on Envoy {version}, {variant}");
            tested.push(Tested { what, release: &version[..5], clients: Vec::new() });
        }
    }
    Ok(tested)
}

async fn serve_clients(mesh: &mut Mesh) -> anyhow::Result<()> {
    let variants = [("delta", Speech::default()), ("sotw", STATE_OF_THE_WORLD)];
    let tested = join(mesh, "east", &variants).await?;
    let [web, recs, ops] = ["web/site-0", "recs/recs-0", "platform/ops-0"].map(|pod| mesh::address(mesh, pod));
    let (web, recs, ops) = (web?, recs?, ops?);
    let stranger = mesh.free_address("cluster-1")?;
    let judge = async |mesh: &Mesh, rows: &[(&str, u16, std::net::Ipv4Addr, &str, &str)]| -> anyhow::Result<()> {
        for (running, tested) in mesh.gateways.iter().zip(&tested) {
            for (why, port, from, host, wanted) in rows {
                let (at, what) = (running.address(*port)?, format!("{}: {why}", tested.what));
                // What anybody writes himself says nothing.
                let request = Request::get(host, "/").header(mesh::TAG, "recs/recs/default");
                let request = request.header("x-forwarded-for", &recs.to_string());
                until(PATIENCE, &what, async || match Client::from(*from, at).send(&request).await {
                    Ok(answer) if mesh::answered(&answer) == *wanted => Ok(()),
                    Ok(answer) => Err(Not::Yet(mesh::answered(&answer))),
                    Err(error) => Err(Not::Yet(format!("{error:#}"))),
                })
                .await?;
            }
        }
        Ok(())
    };
    let rows = [
        ("who imports it", 80, web, "recs.mesh", mesh::RECS),
        ("its own", 80, web, "site.mesh", mesh::SITE),
        ("not shared with him", 80, recs, "site.mesh", "404"),
        ("not imported", 80, ops, "recs.mesh", "404"),
        ("nobody's address", 80, stranger, "recs.mesh", "404"),
        ("a whole connection", 9000, web, "any.example", mesh::RECS),
        ("another team's", 9000, ops, "any.example", mesh::SITE),
    ];
    judge(mesh, &rows).await?;
    for (running, tested) in mesh.gateways.iter().zip(&tested) {
        let answer = Client::from(stranger, running.address(9000)?).send(&Request::get("any.example", "/")).await;
        ensure!(answer.is_err(), "{}: who is no Pod gets {answer:?}", tested.what);
    }
    // A Pod moves.
    mesh.edit("Pod/web/site-0@cluster-1", |pod| pod["status"]["podIPs"] = json!([{"ip": stranger.to_string()}]))?;
    let rows = [
        ("a Pod that moved", 80, stranger, "recs.mesh", mesh::RECS),
        ("an address that was given back", 80, web, "recs.mesh", "404"),
        ("a whole connection of a Pod that moved", 9000, stranger, "any.example", mesh::RECS),
    ];
    judge(mesh, &rows).await?;
    let faults = complaints(mesh, &tested).await?;
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// R186 to R189, R76.
#[tokio::test]
async fn five_releases_serve_the_clients_of_a_cluster_alike() -> anyhow::Result<()> {
    let mut mesh = Mesh::start_without_gateways(mesh::world(mesh::WHOLE)?, Settings::default()).await?;
    let outcome = serve_clients(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}

async fn cross(mesh: &mut Mesh) -> anyhow::Result<()> {
    let variants = [("delta", Speech::default())];
    let mut tested = join(mesh, "web", &variants).await?;
    tested.extend(join(mesh, "ew", &variants).await?);
    let (callers, called) = mesh.gateways.split_at(RELEASES.len());
    let mut addresses = Vec::new();
    for running in called {
        addresses.push(SocketAddr::from((running.bind, *running.gateway.ports.values().next().context("no port")?)));
    }
    let callers: Vec<SocketAddr> = callers.iter().map(|running| running.address(80)).collect::<anyhow::Result<_>>()?;
    for (number, address) in addresses.iter().enumerate() {
        let at = RELEASES.len() + number;
        mesh.gateways[at].envoy.listens(*address).await?;
        mesh.edit("Service/apps/ew@cluster-2", |object| {
            object["status"]["loadBalancer"]["ingress"] = json!([{"ip": address.ip().to_string()}]);
        })?;
        let envoy = &mesh.gateways[at].envoy;
        until(PATIENCE, &format!("everybody at {}", tested[at].what), async || {
            for (caller, what) in callers.iter().zip(&tested) {
                for path in ["/there", "/two", "/"] {
                    let answer = Client::new(*caller).send(&Request::get("shop.example", path)).await;
                    let answer = answer.map_err(|error| Not::Yet(format!("{}: {error:#}", what.what)))?;
                    let place = answer.json().map(|echo| echo["cluster"].clone()).unwrap_or_default();
                    if answer.status != 200 || (path == "/there" && place != "cluster-2") {
                        return Err(Not::Yet(format!("{} {path}: {} {}", what.what, answer.status, answer.text())));
                    }
                }
            }
            // Each of them opened a connection.
            let handshakes = envoy.stats("ssl.handshake$").await.map_err(|error| Not::Yet(format!("{error:#}")))?;
            let handshakes: u64 = handshakes.values().sum();
            if handshakes >= callers.len() as u64 { Ok(()) } else { Err(Not::Yet(format!("{handshakes} handshakes"))) }
        })
        .await?;
    }
    let faults = complaints(mesh, &tested).await?;
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// R178 to R183.
#[tokio::test]
async fn gateways_of_any_two_releases_cross() -> anyhow::Result<()> {
    let root = Root::new("root")?;
    let mut mesh = Mesh::start_without_gateways(crossing::world(&root, "")?, Settings::default()).await?;
    let outcome = cross(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
