//! An hour in which nothing happens, behind definitions that drop what is written: nothing is written again. The clock is moved.

use std::time::Duration;

use chancery::resolve::Options;
use chancery::settings::{RawSettings, Settings as Served};
use chancery::status::clock::Clock;
use chancery::telemetry::Logging;
use clap::{Args, FromArgMatches};
use tokio::sync::{mpsc, oneshot};

use super::faults::Faulty;
use super::statuses::{approval, pruning_definitions};
use super::*;
use crate::support::http;

/// How far the clock goes at once: a Lease is renewed at each step, and held over all of them.
const STEP: Duration = Duration::from_secs(5);

/// How long a watch lasts before an API server ends it.
const WATCH: u32 = 300 / 5;

/// The versions of all objects that have a status, and how many events there are.
fn state(kube: &Kube) -> anyhow::Result<(BTreeMap<String, String>, usize)> {
    let kinds = "kubernetesclusters,workspaces,virtualgateways,routetables";
    let all = kube.get(&[kinds, "-A"])?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let version = |object: &Value| {
        (
            format!("{} {}", object["kind"], object["metadata"]["name"]),
            object["metadata"]["resourceVersion"].to_string(),
        )
    };
    let events = kube.get(&["events.events.k8s.io", "-A"])?["items"].as_array().map_or(0, Vec::len);
    Ok((items.iter().map(version).collect(), events))
}

/// In this process, because another one's clock cannot be moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r137_an_hour_of_idling_writes_nothing_behind_definitions_that_drop_fields() -> anyhow::Result<()> {
    let kube = Kube::start("hour").await?;
    kube.apply(&pruning_definitions())?;
    kube.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    kube.apply(&objects("mgmt"))?;
    let (faulty, folder) = (Faulty::before(&kube).await?, tempfile::tempdir()?);
    let (kubeconfig, ready) = (faulty.kubeconfig(folder.path())?, folder.path().join("ready.json"));
    let arguments = [
        "serve",
        "--kubeconfig",
        &kubeconfig.to_string_lossy(),
        "--ready-file",
        &ready.to_string_lossy(),
        "--xds-address=127.0.0.1:0",
        "--admin-address=127.0.0.1:0",
    ]
    .map(str::to_owned);
    let matches = RawSettings::augment_args(clap::Command::new("serve")).try_get_matches_from(arguments)?;
    let settings = Served::try_from(RawSettings::from_arg_matches(&matches)?).map_err(anyhow::Error::msg)?;
    let (go, steps) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // An error is a stop too.
        let _ = stopped.await;
    };
    let (at_work, _) = std::sync::mpsc::channel();
    let (logging, _layer) = Logging::new("off")?;
    let clock = Clock::moved_by(steps);
    let options = Options::default();
    let served = tokio::spawn(chancery::app::serve(settings, options, logging, shutdown, at_work, clock));
    let admin: std::net::SocketAddr = until(PATIENCE, "the ready file", async || {
        let text = std::fs::read_to_string(&ready).map_err(|error| error.to_string())?;
        let ready: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        ready["admin"].as_str().and_then(|address| address.parse().ok()).ok_or(Not::Yet(text))
    })
    .await?;
    until(STATUSES, "the status of the table", async || {
        let table = kube.get(&["routetable", "cart", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        if approval(&table) == "ACCEPTED" { Ok(()) } else { Err(Not::Yet(table["status"].to_string())) }
    })
    .await?;
    let writes = async || {
        let text = http::get(admin, "admin", "/metrics").await?.text();
        let lines = text.lines().filter(|line| line.starts_with("chancery_status_writes_total"));
        anyhow::Ok(lines.map(str::to_owned).collect::<Vec<_>>())
    };
    let pass = async |number: u32| {
        for step in 0..number {
            go.send(STEP).await?;
            if step % WATCH == WATCH - 1 {
                faulty.cut();
            }
        }
        anyhow::Ok(())
    };
    // What the definitions drop is learned within the first minute.
    pass(60 / 5).await?;
    let (before, written) = (state(&kube)?, writes().await?);
    ensure!(!written.is_empty() && before.0.len() == 4, "{written:?} {before:?}");
    let lease = kube.get(&["lease", "chancery-status", "-n", "gloo-mesh"])?;
    pass(3600 / 5).await?;
    ensure!(state(&kube)? == before, "{:?}\nand before\n{before:?}", state(&kube)?);
    ensure!(writes().await? == written, "{:?}, and before {written:?}", writes().await?);
    // It was at work: its Lease is renewed, and nobody else's in between.
    let renewed = kube.get(&["lease", "chancery-status", "-n", "gloo-mesh"])?;
    ensure!(renewed["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"], "{renewed}");
    ensure!(renewed["spec"]["leaseTransitions"] == 0, "{renewed}");
    // And it still writes what is another.
    let mut broken = table("/");
    broken["spec"]["http"][0]["forwardTo"]["destinations"][0]["ref"]["name"] = json!("nowhere");
    kube.apply(&[broken])?;
    until(STATUSES, "the other status", async || {
        let table = kube.get(&["routetable", "cart", "-n", "shop"]).map_err(|error| format!("{error:#}"))?;
        if approval(&table) == "INVALID" { Ok(()) } else { Err(Not::Yet(table["status"].to_string())) }
    })
    .await?;
    drop(stop);
    served.await??;
    Ok(())
}
