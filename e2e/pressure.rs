//! More than one can take at once: a burst of edits, and a gateway that does not read.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use chancery::snapshot::ResourceType;
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::support::bench_world::{GATEWAY_NAME, Probe, World};
use crate::support::chancery::{Chancery, Settings};
use crate::the_bench::cells::ads::{self, Follower, Holder};
use crate::the_bench::cells::scene::{Scene, change, envoy, rename, served};

/// Edits of one burst, over this many files.
const EDITS: usize = 10_000;
const FILES: usize = 10;

async fn holder(chancery: &Chancery, id: &str) -> anyhow::Result<Holder> {
    let node = ads::envoy_node(id, GATEWAY_NAME, &Ipv4Addr::LOCALHOST.to_string());
    let mut holder = Holder::open(chancery.xds(), node).await?;
    while !answers(&holder, &BTreeSet::from(["first".to_owned()])) {
        holder.next().await?;
    }
    Ok(holder)
}

/// Whether the routes that a client holds give all of these answers.
fn answers(holder: &Holder, wanted: &BTreeSet<String>) -> bool {
    let routes = holder.world.0.get(&ResourceType::Route);
    let mut bodies = routes.into_iter().flatten().map(|(_, item)| &item.body);
    wanted
        .iter()
        .all(|answer| bodies.clone().any(|body| body.windows(answer.len()).any(|bytes| bytes == answer.as_bytes())))
        && bodies.next().is_some()
}

/// A burst joins: whoever waits gets its last state in as many messages as were under way, and what everybody holds in the
/// end are the bytes that a control plane makes which never saw anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_edits_ends_in_the_bytes_of_its_last_state() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    World { tables: 2 * FILES }.write(folder.path())?;
    let write = |file: usize, answer: &str| Probe::App(file).answer(folder.path(), answer);
    (0..FILES).try_for_each(|file| write(file, "first"))?;
    let chancery = Chancery::serve(folder.path(), &Settings::default()).await?;
    let (mut waits, mut follows) = (holder(&chancery, "waits").await?, holder(&chancery, "follows").await?);

    for edit in 0..EDITS {
        write(edit % FILES, &format!("edit-{edit}"))?;
    }
    let last: BTreeSet<String> = (EDITS - FILES..EDITS).map(|edit| format!("edit-{edit}")).collect();
    while !answers(&follows, &last) {
        follows.next().await.map_err(|error| error.context(chancery.log_tail()))?;
    }
    let mut messages = 0;
    while !answers(&waits, &last) {
        waits.next().await?;
        messages += 1;
    }
    // One was on its way when it stopped to read; the other has all the rest.
    ensure!(messages <= 2, "{messages} messages");

    let fresh = Chancery::serve(folder.path(), &Settings::default()).await?;
    let mut afresh =
        Holder::open(fresh.xds(), ads::envoy_node("afresh", GATEWAY_NAME, &Ipv4Addr::LOCALHOST.to_string())).await?;
    while afresh.world != follows.world {
        afresh.next().await.context("the bytes are others")?;
    }
    ensure!(waits.world == follows.world, "two clients of one control plane differ");
    Ok(())
}

/// A gateway whose window is full takes nothing from others, and what it missed it gets as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_read_slows_nobody() -> anyhow::Result<()> {
    let scene = Scene::start(World { tables: 40 }, "first", |_| Ok(())).await?;
    let bind = scene.address()?;
    // The smallest windows there are, and it never acknowledges: it is sent one response of a type, and no end of all.
    let narrow = Endpoint::new(format!("http://{}", scene.chancery.xds()))?;
    let narrow = narrow.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect().await?;
    let node = ads::envoy_node("stuck", GATEWAY_NAME, &bind.to_string());
    let first = ads::of_node(node, &ads::subscriptions(&ResourceType::ALL, &ads::World::default()));
    let mut stuck = Holder { follower: Follower::open(narrow, &first).await?, world: ads::World::default() };

    let gateway = envoy(bind, scene.chancery.xds()).await?;
    let (mut probe, _) =
        served(bind, scene.world.first_probe(), "first").await.map_err(|error| scene.with_log(error))?;
    for edit in 0..20 {
        let (old, new) = [("first", "other"), ("other", "first")][edit % 2];
        let probed = scene.world.first_probe();
        let act = rename(&probed.file(scene.directory()), &probed.table(new))?;
        probe = change(probe, (old, new), act).await?.0;
    }
    drop(probe);
    let refused = gateway.envoy.stats("update_rejected$").await?;
    ensure!(refused.values().all(|count| *count == 0), "{refused:?}");

    let other = scene.holder(bind).await?;
    let mut routes = 0;
    while stuck.world != other.world {
        let received = stuck.next().await.map_err(|error| scene.with_log(error))?;
        routes += usize::from(received.response.type_url == ResourceType::Route.type_url());
    }
    ensure!(routes <= 2, "{routes} messages of routes, for 20 edits that it did not read");
    Ok(())
}
