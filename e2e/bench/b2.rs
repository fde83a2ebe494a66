//! B2: what one edit costs the control plane, by the size of the world and by what a policy reaches.
//!
//! CPU is the run time of all its threads from the rename until it is quiet again; wall is from the rename until a client
//! has the last byte. No Envoy takes part.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use chancery::snapshot::ResourceType;

use super::ads::Holder;
use super::cpu::Clock;
use super::report::{Report, Samples, exponent, milliseconds, spread};
use super::scene::{Act, SILENCE, Scene, rename};
use crate::support::bench_world::{
    FIRST_REACHED, REACHES, World, access_policy, auth_policy, cors_policy, csrf_policy, entries, limit_policy,
    local_limit_policy, place, reaching_policy, token_policy,
};

/// When nothing came for so long, nothing more comes.
const LAST: Duration = Duration::from_millis(100);

/// Makes a policy that reaches so many routes: its file and its text, which differs by a word.
type Policy = fn(&Path, usize, &str) -> (PathBuf, String);

/// Kinds that protect, with a text that stands in every route which has one; for rules at a destination, in its cluster. What
/// routes share of them, and servers, come in resources of their own.
const PROTECTING: [(&str, ResourceType, &str, Policy); 7] = [
    ("JWTPolicy", ResourceType::Route, "chancery.jwt-claims.pre.0", token_policy),
    ("ExtAuthPolicy", ResourceType::Route, ".authz.example:9000", auth_policy),
    ("RateLimitPolicy", ResourceType::Route, "chancery.limit", limit_policy),
    ("local RateLimitPolicy", ResourceType::Route, "chancery.limit", local_limit_policy),
    ("CORSPolicy", ResourceType::Route, ".cors.example", cors_policy),
    ("CSRFPolicy", ResourceType::Route, ".csrf.example", csrf_policy),
    ("AccessPolicy", ResourceType::Cluster, "/access/", access_policy),
];

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let sizes =
        report.scale.pick(vec![(100, 30), (300, 30), (1_000, 30), (3_000, 30), (10_000, 30)], vec![(10, 3), (100, 3)]);
    let reaches = report.scale.pick(&REACHES[..], &REACHES[..1]);
    report.line("milliseconds, median / 99th percentile")?;
    report.line(&format!(
        "{:>36} {:>7} {:>4} {:>17} {:>17}",
        "edit", "routes", "runs", "chancery CPU", "to the last byte"
    ))?;
    let mut by_size = Vec::new();
    let (mut by_reach, mut least_by_size) = (Vec::new(), Vec::new());
    let mut protecting_by_size = PROTECTING.map(|(kind, ..)| (kind, Vec::new()));
    let last = sizes.last().map(|size| size.0);
    for (tables, samples) in sizes {
        let world = World { tables };
        let scene = Scene::start(world, "first", |directory| {
            reaches.iter().try_for_each(|reach| {
                let (file, text) = reaching_policy(directory, *reach, "first");
                place(&file, &text)
            })
        })
        .await?;
        let mut holder = scene.holder(scene.address()?).await?;
        let probe = world.first_probe();
        let edit = |value: &str| rename(&probe.file(scene.directory()), &probe.table(value));
        let (cpu, wall) = measure(&scene, &mut holder, samples, &edit).await?;
        by_size.push((world.routes() as f64, milliseconds(cpu.median())));
        row(report, "one route", world, (&cpu, &wall))?;
        if world.apps() <= FIRST_REACHED {
            continue;
        }
        let reaches = if Some(tables) == last { reaches } else { &reaches[..1] };
        for reach in reaches {
            let edit = |value: &str| {
                let (file, text) = reaching_policy(scene.directory(), *reach, value);
                rename(&file, &text)
            };
            let (cpu, wall) = measure(&scene, &mut holder, samples, &edit).await?;
            if Some(tables) == last {
                reaches_as_many(&holder, reaches)?;
                by_reach.push((*reach as f64, milliseconds(cpu.median())));
            }
            if *reach == reaches[0] {
                least_by_size.push((world.routes() as f64, milliseconds(cpu.median())));
            }
            row(report, &format!("policy of {reach} routes"), world, (&cpu, &wall))?;
        }
        let reach = reaches[0];
        for ((kind, stands_in, mark, policy), (_, by_size)) in PROTECTING.iter().zip(&mut protecting_by_size) {
            let (file, text) = policy(scene.directory(), reach, "first");
            place(&file, &text)?;
            holder.settle(SILENCE).await?;
            let edit = |value: &str| rename(&file, &policy(scene.directory(), reach, value).1);
            let (cpu, wall) = measure(&scene, &mut holder, samples, &edit).await?;
            let found = count(&holder, *stands_in, mark.as_bytes());
            let least = if *stands_in == ResourceType::Route { reach } else { 1 };
            ensure!(found >= least, "the {kind} of {reach} routes is on {found}");
            by_size.push((world.routes() as f64, milliseconds(cpu.median())));
            row(report, &format!("{kind} of {reach} routes"), world, (&cpu, &wall))?;
            fs::remove_file(&file)?;
            holder.settle(SILENCE).await?;
        }
    }
    let growth = exponent(&by_size);
    report.line(&format!(
        "growth exponent of CPU: {growth:.2} in routes, {:.2} in routes that a policy reaches",
        exponent(&by_reach)
    ))?;
    report.goal("B2 growth exponent of one edit's CPU", growth, 0.05, "")?;
    let growth = exponent(&least_by_size);
    report.goal(&format!("B2 growth exponent of CPU, policy of {} routes", reaches[0]), growth, 0.05, "")?;
    for (kind, by_size) in protecting_by_size {
        let what = format!("B2 growth exponent of CPU, {kind} of {} routes", reaches[0]);
        report.goal(&what, exponent(&by_size), 0.05, "")?;
    }
    if let Some((routes, cpu)) = by_size.last() {
        report.goal(&format!("B2 CPU of one edit at {routes} routes"), cpu * 1e3, 300.0, "µs")?;
    }
    if let (Some((least, first)), Some((most, last))) = (by_reach.first(), by_reach.last()) {
        let growth = exponent(&by_reach);
        report.goal("B2 growth exponent in what a policy reaches", growth, 1.05, "")?;
        let world = by_size.last().map_or(0.0, |(_, cpu)| *cpu);
        let each = (last - first) / (most - least) * 1e3;
        report.line(&format!(
            "  each route more that a policy reaches costs {each:.1} µs; the least policy {:.2} times one route",
            first / world
        ))?;
    }
    Ok(())
}

fn row(report: &mut Report<'_>, edit: &str, world: World, (cpu, wall): (&Samples, &Samples)) -> anyhow::Result<()> {
    let (routes, runs) = (world.routes(), cpu.len());
    report.line(&format!("{edit:>36} {routes:>7} {runs:>4} {:>17} {:>17}", spread(cpu), spread(wall)))
}

async fn measure(
    scene: &Scene,
    holder: &mut Holder,
    samples: usize,
    edit: &impl Fn(&str) -> anyhow::Result<Act>,
) -> anyhow::Result<(Samples, Samples)> {
    let mut clock = Clock::of(scene.chancery.pid());
    let (mut cpu, mut wall) = (Samples::default(), Samples::default());
    for sample in 0..samples {
        let act = edit(["other", "first"][sample % 2])?;
        clock.quiet().await?;
        let (ran, begun) = (clock.read()?, Instant::now());
        act()?;
        let mut last = holder.next().await?.at;
        // A response more comes when the one before is acknowledged.
        while let Some(received) = holder.follower.next_within(LAST).await? {
            holder.world.take(&received)?;
            last = received.at;
        }
        clock.quiet().await?;
        cpu.push(clock.read()? - ran);
        wall.push(last - begun);
    }
    Ok((cpu, wall))
}

/// Fails unless the policies are on as many routes as their names say.
fn reaches_as_many(holder: &Holder, reaches: &[usize]) -> anyhow::Result<()> {
    let count = count(holder, ResourceType::Route, b"x-reach-");
    let expected: usize = reaches.iter().map(|reach| entries(*reach)).sum();
    // Where routes may have been cut in an earlier run, they are there twice as long as connections may use both.
    ensure!(count == expected || count == 2 * expected, "policies of {reaches:?} routes are on {count}");
    Ok(())
}

/// How often a text stands in resources of a type.
fn count(holder: &Holder, stands_in: ResourceType, text: &[u8]) -> usize {
    let resources = holder.world.0.get(&stands_in);
    let bodies = resources.into_iter().flatten().map(|(_, item)| &item.body);
    bodies.map(|body| body.windows(text.len()).filter(|bytes| *bytes == text).count()).sum()
}
