//! An edit under load: everything changes all the time for a minute, and no request fails.
//!
//! The longest of all tests. Tests start in the order of their names, so this one has a name that lets the others run
//! beside it.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::MissedTickBehavior;

use crate::support::chancery::Settings;
use crate::support::shop::{self, Asked, Workers};
use crate::support::world::Mesh;

/// How long. The project's own measure; a leak of one request in ten thousand shows in it.
const DURATION: Duration = Duration::from_secs(60);

/// Requests a second that are asked for, and the least that must come of it.
const RATE: u32 = 250;
const LEAST_RATE: f64 = 200.0;

/// Connections that are kept busy.
const CONNECTIONS: usize = 60;

/// Between two edits at least; an edit also waits until the one before is in force.
const BETWEEN_EDITS: Duration = Duration::from_millis(100);

/// Edits that must come of it: one in a second even where the machine is busy.
const LEAST_EDITS: u64 = 60;

async fn edits(mesh: &mut Mesh) -> anyhow::Result<()> {
    let address = mesh.entrance("shop/www")?.1;
    let load = shop::load(address, Asked::Everything, CONNECTIONS, RATE);
    let start = Instant::now();
    let mut ticks = tokio::time::interval(BETWEEN_EDITS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    let mut edited = Ok(());
    while start.elapsed() < DURATION && edited.is_ok() {
        ticks.tick().await;
        number += 1;
        edited = match shop::edit(mesh, number) {
            Ok(()) => shop::shows(address, number, Workers::Any).await,
            Err(error) => Err(error),
        };
    }
    let tally = load.tally().await?;
    // Not captured, as the numbers are wanted of a test that passes too.
    writeln!(
        std::io::stderr(),
        "under load: {} requests, {:.0}/s over {} connections for {:.0} s, {number} edits, {} failed, p50 {:.1?}, p99 {:.1?}",
        tally.sent,
        tally.rate(),
        tally.connections,
        tally.duration.as_secs_f64(),
        tally.failed,
        tally.percentile(50),
        tally.percentile(99),
    )?;
    edited.with_context(|| format!("edit {number}"))?;
    tally.is_flawless()?;
    ensure!(tally.rate() >= LEAST_RATE, "only {:.0} requests a second", tally.rate());
    ensure!(number >= LEAST_EDITS, "only {number} edits");
    let refused = mesh.gateways[0].envoy.stats("update_rejected$").await?;
    ensure!(refused.values().all(|count| *count == 0), "{refused:?}");
    shop::shows(address, number, Workers::All).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_changes() -> anyhow::Result<()> {
    let mut mesh = Mesh::start(shop::manifests()?, Settings::default()).await?;
    let outcome = edits(&mut mesh).await;
    outcome.map_err(|error| mesh.with_logs(error))
}
