//! What a first visitor does: the demo must run, judge itself, and notice when the world is not as explained.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::support::kube::Kube;
use crate::support::manifests::{list, text as text_of};
use crate::support::wait::{Not, PATIENCE, until};

/// The example program that cargo builds beside this test.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the running test")?;
    let profile = own.parent().and_then(std::path::Path::parent).context("the test has no folder")?;
    let program = profile.join("examples/demo");
    if !program.is_file() {
        bail!("{} is missing: run `cargo build --examples`", program.display());
    }
    Ok(program)
}

/// Runs the demo once on addresses of its own, without some of its files.
fn demo(without: &[&str]) -> anyhow::Result<Output> {
    demo_with(&["--isolated"], without)
}

fn demo_with(flags: &[&str], without: &[&str]) -> anyhow::Result<Output> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program()?);
    command.arg("--once").args(flags).arg("--directory").arg(folder.path());
    for file in without {
        command.args(["--without", file]);
    }
    command.output().context("run the demo")
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_demo_answers_as_explained() -> anyhow::Result<()> {
    let output = demo(&[])?;
    let text = shown(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "REQUEST",
        "gateway/edge-headers",
        "recommendation/recs-headers",
        "recommendation/recs-tokens",
        "<401",
        ">x-person",
        "web-api/web-api",
    ] {
        assert!(text.contains(part), "`{part}` is not in the table:\n{text}");
    }
    Ok(())
}

#[test]
fn a_deleted_policy_file_changes_explanation_and_answer() -> anyhow::Result<()> {
    let output = demo(&["cluster-1/gateway/edge-headers.yaml"])?;
    let text = shown(&output);
    assert!(output.status.success(), "explanation and answers differ:\n{text}");
    assert!(!text.contains("gateway/edge-headers"), "the deleted policy is still in the table:\n{text}");
    assert!(text.contains("recommendation/recs-headers"), "another policy is gone too:\n{text}");
    Ok(())
}

#[test]
fn a_deleted_guard_lets_everybody_in_and_the_demo_knows() -> anyhow::Result<()> {
    let output = demo(&["cluster-1/recommendation/recs-tokens.yaml"])?;
    let text = shown(&output);
    assert!(output.status.success(), "explanation and answers differ:\n{text}");
    assert!(
        !text.contains("<401") && !text.contains("recs-tokens"),
        "the deleted policy is still in the table:\n{text}"
    );
    Ok(())
}

#[test]
fn behind_api_servers_it_answers_as_explained_and_every_status_says_what_check_says() -> anyhow::Result<()> {
    let output = demo_with(&["--kubernetes"], &[])?;
    let text = shown(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "statuses say what `chancery check` says",
        "APPROVAL",
        "PROGRAMMED",
        "GATEWAYS",
        "It moved",
        "given to kubectl",
    ] {
        assert!(text.contains(part), "`{part}` is not in what it prints:\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn on_an_api_server_that_is_given_it_does_the_same_and_leaves_nothing() -> anyhow::Result<()> {
    let kube = Kube::start("given").await?;
    let namespaces = "--field-selector=metadata.name!=kube-node-lease,metadata.name!=kube-public";
    let kubeconfig = kube.kubeconfig();
    let demo = tokio::task::spawn_blocking(move || demo_with(&["--kubeconfig", &kubeconfig.to_string_lossy()], &[]));
    let output = demo.await??;
    let text = shown(&output);
    assert!(output.status.success(), "{text}");
    for part in ["statuses say what `chancery check` says", "It moved", "Deleting what was made"] {
        assert!(text.contains(part), "`{part}` is not in what it prints:\n{text}");
    }
    // It asks for their end and does not wait for it.
    until(PATIENCE, "no definition to be left", async || {
        let left = kube.kubectl(&["get", "customresourcedefinitions", "-o", "name"]);
        let left = left.map_err(|error| Not::Ever(format!("{error:#}")))?;
        if left.trim().is_empty() { Ok(()) } else { Err(Not::Yet(left)) }
    })
    .await?;
    // Nobody empties namespaces here, so they end only as far as that.
    let left = kube.get(&["namespaces", namespaces])?;
    let ending = |one: &&Value| one["metadata"]["deletionTimestamp"].is_null();
    let left: Vec<&str> =
        list(&left, "/items").iter().filter(ending).map(|one| text_of(one, "/metadata/name")).collect();
    assert!(left.iter().all(|name| ["default", "kube-system"].contains(name)), "{left:?}");
    Ok(())
}
