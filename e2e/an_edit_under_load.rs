//! An edit under load: everything changes all the time for a minute, and no request fails, in neither variant of xDS.
//!
//! The longest of all tests. Tests start in the order of their names, so this one has a name that lets the others run
//! beside it.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::support::chancery::Settings;
use crate::support::http::{Client, Protocol, Request};
use crate::support::load::{Lasts, Load, Pace};
use crate::support::manifests::Manifest;
use crate::support::shop::{self, Asked, Workers};
use crate::support::tls::Authority;
use crate::support::world::{Mesh, Speech, gateway_of};
use crate::variants::STATE_OF_THE_WORLD;

/// How long. The project's own measure; a leak of one request in ten thousand shows in it.
const DURATION: Duration = Duration::from_secs(60);

/// Requests a second to each of two gateways, and the least that must come of it for both together.
const RATE: u32 = 130;
const LEAST_RATE: f64 = 200.0;

/// Connections to each that are kept busy.
const CONNECTIONS: usize = 30;

/// Between two edits at least; an edit also waits until the one before is in force.
const BETWEEN_EDITS: Duration = Duration::from_millis(100);

/// Edits that must come of it: one in a second even where the machine is busy.
const LEAST_EDITS: u64 = 60;

/// Requests a second over TLS to each gateway, each on a connection of its own, beside those above.
const TLS_RATE: u32 = 10;

/// Between two certificates, in edits.
const EDITS_PER_CERTIFICATE: u64 = 10;

/// The host that has a certificate, and the Secret that holds it.
const TLS_HOST: &str = "tls.hosts.example";
const SECRET: &str = "Secret/shop/tls@cluster-1";

/// The shop with a TLS port.
fn manifests(authority: &Authority) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = shop::manifests()?;
    for manifest in manifests.iter_mut().filter(|manifest| manifest.name() == "ingress") {
        let (list, item) = match manifest.kind() {
            "Service" => ("ports", json!({"name": "https", "port": 443, "targetPort": 8443})),
            _ => {
                let tls = json!({"mode": "SIMPLE", "secretName": "tls"});
                ("listeners", json!({"http": {}, "port": {"number": 443}, "tls": tls}))
            }
        };
        manifest.object["spec"][list].as_array_mut().context("a list")?.push(item);
    }
    let object = authority.sign(TLS_HOST, "first")?.secret("shop", "tls");
    manifests.push(Manifest { cluster: "cluster-1".to_owned(), object });
    Ok(manifests)
}

/// Edits as long as the load lasts. Answers how many there were.
async fn edits(mesh: &mut Mesh, addresses: &[SocketAddr], authority: &Authority) -> anyhow::Result<u64> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(BETWEEN_EDITS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while start.elapsed() < DURATION {
        ticks.tick().await;
        number += 1;
        shop::edit(mesh, number)?;
        if number.is_multiple_of(EDITS_PER_CERTIFICATE) {
            let next = authority.sign(TLS_HOST, &number.to_string())?.secret("shop", "tls");
            mesh.edit(SECRET, |object| *object = next)?;
        }
        for address in addresses {
            shop::shows(*address, number, Workers::Any).await?;
        }
    }
    for address in addresses {
        shop::shows(*address, number, Workers::All).await?;
    }
    Ok(number)
}

async fn judge(mesh: &mut Mesh, authority: &Authority) -> anyhow::Result<()> {
    let (gateway, port) = gateway_of(&mesh.manifests, ("cluster-1", "shop", "ingress"))?;
    let (mut addresses, mut tls_addresses) = (Vec::new(), Vec::new());
    for speech in [Speech::default(), STATE_OF_THE_WORLD] {
        let bind = mesh.free_address("cluster-1")?;
        let joined = mesh.join(&gateway, bind, &speech).await?;
        let address = joined.address(port)?;
        joined.envoy.listens(address).await?;
        addresses.push(address);
        let tls_address = joined.address(443)?;
        joined.envoy.listens(tls_address).await?;
        tls_addresses.push(tls_address);
    }
    let dial = authority.dial(TLS_HOST, None, Protocol::Http1)?;
    let handshakes = tls_addresses.into_iter().map(|address| {
        let dial = dial.clone();
        let client = move || Client::with_tls(address, Protocol::Http1, dial.clone());
        let requests = vec![Request::get(TLS_HOST, "/")];
        Load::start_with(client, Lasts::OneRequest, 2, Pace::PerSecond(TLS_RATE), requests, |_, response| {
            ensure!(response.status == 200, "{}: {}", response.status, response.text());
            Ok(())
        })
    });
    let handshakes: Vec<Load> = handshakes.collect();
    let loads: Vec<Load> =
        addresses.iter().map(|address| shop::load(*address, Asked::Everything, CONNECTIONS, RATE)).collect();
    let edited = edits(mesh, &addresses, authority).await;
    let (mut rate, mut tallies) = (0.0, Vec::new());
    let kinds = ["delta", "state of the world", "delta, TLS handshakes", "state of the world, TLS handshakes"];
    for (load, variant) in loads.into_iter().chain(handshakes).zip(kinds) {
        let tally = load.tally().await?;
        rate += tally.rate();
        // Not captured, as the numbers are wanted of a test that passes too.
        writeln!(
            std::io::stderr(),
            "edits under load, {variant}: {} requests, {:.0}/s over {} connections for {:.0} s, {} edits, {} failed, p50 {:.1?}, p99 {:.1?}",
            tally.sent,
            tally.rate(),
            tally.connections,
            tally.duration.as_secs_f64(),
            edited.as_ref().map_or(0, |edits| *edits),
            tally.failed,
            tally.percentile(50),
            tally.percentile(99),
        )?;
        tallies.push((variant, tally));
    }
    for (variant, tally) in tallies {
        tally.is_flawless().context(variant)?;
    }
    let edits = edited?;
    ensure!(rate >= LEAST_RATE, "only {rate:.0} requests a second");
    ensure!(edits >= LEAST_EDITS, "only {edits} edits");
    for running in &mesh.gateways {
        let refused = running.envoy.stats("update_rejected$").await?;
        ensure!(refused.values().all(|count| *count == 0), "{refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_changes() -> anyhow::Result<()> {
    let authority = Authority::new("servers")?;
    let mut mesh = Mesh::start_without_gateways(manifests(&authority)?, Settings::default()).await?;
    let outcome = judge(&mut mesh, &authority).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
