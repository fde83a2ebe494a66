//! B5: from the start of the process to a gateway that is served, and what it holds then.
//!
//! Two ends: a light client has every resource, and a real Envoy answers on a route near the end of the world. The Envoy
//! runs and waits before the clock starts. The floor is what that Envoy takes when the bytes are there.

use std::time::Instant;

use super::ads;
use super::cpu;
use super::floor::Floor;
use super::report::{Report, Samples, mebibytes, milliseconds, spread};
use super::scene::{Gate, SILENCE, Scene, envoy, ratio, served};
use crate::support::bench_world::{GATEWAY_NAME, World};
use crate::support::chancery::{Chancery, Settings};

const ANSWER: &str = "served";

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    // Tables, runs, and the goals: seconds and MB.
    let sizes = report.scale.pick(vec![(1_000, 7, (0.5, 64.0)), (10_000, 3, (4.0, 350.0))], vec![(20, 2, (0.0, 0.0))]);
    report.line("milliseconds, median / 99th percentile; memory as the largest of the runs")?;
    report.line(&format!(
        "{:>7} {:>4} {:>19} {:>19} {:>19} {:>6} {:>19} {:>10} {:>10}",
        "routes", "runs", "all at a client", "Envoy serves", "floor", "C/F", "chancery CPU", "RSS", "peak RSS"
    ))?;
    for (tables, runs, (seconds, memory)) in sizes {
        let world = World { tables };
        let (mut client, mut envoys, mut floors, mut cpu) =
            (Samples::default(), Samples::default(), Samples::default(), Samples::default());
        let (mut resident, mut peak) = (0, 0);
        let scene = Scene::start(world, ANSWER, |directory| world.last_probe().answer(directory, ANSWER)).await?;
        let (below, above) = (scene.address()?, scene.address()?);
        let floor = Floor::start(scene.holder(below).await?.world)?;
        for _ in 0..runs {
            floors.push(warm(&scene, below, floor.address()).await?);

            let begun = Instant::now();
            let chancery = Chancery::serve(scene.directory(), &Settings::default()).await?;
            let node = ads::envoy_node("cold", GATEWAY_NAME, &above.to_string());
            let mut holder = ads::Holder::open(chancery.xds(), node).await?;
            let mut last = holder.next().await?.at;
            while let Some(received) = holder.follower.next_within(SILENCE).await? {
                holder.world.take(&received)?;
                last = received.at;
            }
            client.push(last - begun);
            drop((holder, chancery));

            let gate = Gate::start().await?;
            let gateway = envoy(above, gate.address()).await?;
            let begun = Instant::now();
            let chancery = Chancery::serve(scene.directory(), &Settings::default()).await?;
            gate.lead_to(chancery.xds());
            let (_, at) = served(above, world.last_probe(), ANSWER).await?;
            envoys.push(at - begun);
            cpu.push(cpu::whole(chancery.pid())?);
            let held = cpu::memory(chancery.pid())?;
            (resident, peak) = (held.now.max(resident), held.peak.max(peak));
            drop((gateway, chancery));
        }
        let times = ratio(envoys.median(), floors.median());
        report.line(&format!(
            "{:>7} {runs:>4} {:>19} {:>19} {:>19} {times:>6.2} {:>19} {:>10} {:>10}",
            world.routes(),
            spread(&client),
            spread(&envoys),
            spread(&floors),
            spread(&cpu),
            format!("{:.0} MiB", mebibytes(resident)),
            format!("{:.0} MiB", mebibytes(peak)),
        ))?;
        let routes = world.routes();
        let served = milliseconds(envoys.median()) / 1e3;
        report.goal(&format!("B5 cold start to served at {routes} routes"), served, seconds, "s")?;
        report.goal(&format!("B5 memory at {routes} routes"), resident as f64 / 1e6, memory, "MB")?;
    }
    Ok(())
}

/// What an Envoy takes from the first byte to the first answer.
async fn warm(
    scene: &Scene,
    bind: std::net::Ipv4Addr,
    xds: std::net::SocketAddr,
) -> anyhow::Result<std::time::Duration> {
    let gate = Gate::start().await?;
    let _gateway = envoy(bind, gate.address()).await?;
    let begun = Instant::now();
    gate.lead_to(xds);
    let (_, at) = served(bind, scene.world.last_probe(), ANSWER).await?;
    Ok(at - begun)
}
