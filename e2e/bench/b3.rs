//! B3: the bytes that one edit sends to a gateway, by kind of edit.
//!
//! Two light clients listen, as two gateways: one serves the whole world, the other a table of its own. What changes
//! nothing sends nothing, and neither does what a gateway cannot see.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use prost::Message;

use super::ads::{self, Holder};
use super::cpu::Clock;
use super::report::Report;
use super::scene::{SILENCE, Scene, rename};
use crate::support::bench_world::{OTHER_NAME, World, place, second_gateway};

/// How much a response may add to the resource that it brings.
const AROUND: f64 = 80.0;

/// An edit: what it is, and whether the first gateway has to hear of it.
struct Edit {
    what: &'static str,
    file: PathBuf,
    text: String,
    is_seen: bool,
}

/// What a client was sent for one edit.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    resources: usize,
    resource_bytes: usize,
}

/// Runs it.
pub(crate) async fn run(report: &mut Report<'_>) -> anyhow::Result<()> {
    let world = World { tables: report.scale.pick(10_000, 20) };
    let scene = Scene::start(world, "first", |directory| {
        let (file, text) = second_gateway(directory, "same");
        place(&file, &text)
    })
    .await?;
    let mut seeing = scene.holder(scene.address()?).await?;
    let node = ads::envoy_node("other", OTHER_NAME, &scene.address()?.to_string());
    let mut other = Holder::open(scene.chancery.xds(), node).await?;
    other.settle(SILENCE).await?;
    ensure!(other.world.len() < seeing.world.len(), "the second gateway sees the whole world");
    let (held, bytes) = (seeing.world.len(), seeing.world.bytes());
    report.line(&format!(
        "bytes of one edit at {} tables; the gateway holds {held} resources of {bytes} bytes",
        world.tables
    ))?;
    report.line(&format!(
        "{:>44} {:>10} {:>10} {:>14} {:>14}",
        "edit", "bytes", "resources", "their bytes", "other gateway"
    ))?;
    let mut clock = Clock::of(scene.chancery.pid());
    for edit in edits(&scene) {
        clock.quiet().await?;
        rename(&edit.file, &edit.text)?()?;
        let mut sent = Sent::default();
        if edit.is_seen {
            take(&mut sent, &seeing.next().await.context(edit.what)?)?;
        }
        // Nothing tells that nothing comes: the control plane has had its time when it rests, and what was made is on its way.
        clock.quiet().await?;
        while let Some(received) = seeing.follower.next_within(LATE).await? {
            take(&mut sent, &received)?;
        }
        let mut unseen = Sent::default();
        while let Some(received) = other.follower.next_within(LATE).await? {
            take(&mut unseen, &received)?;
        }
        let Sent { bytes, resources, resource_bytes } = sent;
        report.line(&format!(
            "{:>44} {bytes:>10} {resources:>10} {resource_bytes:>14} {:>14}",
            edit.what, unseen.bytes
        ))?;
        if edit.is_seen {
            report.goal(
                &format!("B3 bytes beside one resource, {}", edit.what),
                (bytes - resource_bytes) as f64,
                AROUND,
                "B",
            )?;
            report.goal(&format!("B3 resources, {}", edit.what), resources as f64, 1.0, "")?;
        } else if bytes > 0 {
            bail!("{}: {bytes} bytes were sent for nothing", edit.what);
        }
        if unseen.bytes > 0 {
            bail!("{}: {} bytes were sent to a gateway that cannot see it", edit.what, unseen.bytes);
        }
    }
    Ok(())
}

/// How long what was sent may be on its way.
const LATE: Duration = Duration::from_millis(20);

fn take(sent: &mut Sent, received: &ads::Received) -> anyhow::Result<()> {
    sent.bytes += received.bytes;
    for item in received.items()? {
        sent.resources += 1;
        sent.resource_bytes += item.encoded_len();
    }
    Ok(())
}

fn edits(scene: &Scene) -> Vec<Edit> {
    let probe = scene.world.first_probe();
    let file = probe.file(scene.directory());
    let mut all = Vec::new();
    let mut edit = |what: &'static str, file: &PathBuf, text: String, is_seen: bool| {
        all.push(Edit { what, file: file.clone(), text, is_seen });
    };
    let table = probe.table("other");
    edit("one route", &file, table.clone(), true);
    edit("white space and a comment", &file, format!("# The same.\n\n{}\n\n", table.replace(": ", ":  ")), false);
    let kind = "kind: RouteTable\n";
    edit("order of keys", &file, format!("{}{kind}", table.replacen(kind, "", 1)), false);
    let annotated = |line: &str| table.replacen("metadata:\n", &format!("metadata:\n{line}\n"), 1);
    edit("an annotation", &file, annotated("  annotations: {note: nothing}"), false);
    edit("a resourceVersion", &file, annotated("  resourceVersion: '17'"), false);
    edit("back", &file, table.clone(), false);
    let (policy, text) = crate::support::bench_world::reaching_policy(scene.directory(), 20, "nobody");
    let nobody = text.replace("reach-20: 'yes'", "reach-20: 'no'");
    edit("a policy that selects nothing", &policy, nobody.clone(), false);
    edit("another value in it", &policy, nobody.replace(": nobody", ": somebody"), false);
    edit("one route again", &file, probe.table("first"), true);
    all
}
