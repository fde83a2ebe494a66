//! The mesh in boxes: it runs, and the containers are those of the same manifests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::support::boxes::{BOOTSTRAPS, Boxes, MANIFESTS, envoy_version};
use crate::support::manifests::{self, list, text};
use crate::support::{project, yaml};

fn boxes() -> anyhow::Result<Boxes> {
    Boxes::of(&manifests::read(&project().join(MANIFESTS))?)
}

fn compose() -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(project().join("docker-compose.yml"))?;
    yaml::documents(&text)?.into_iter().next().context("docker-compose.yml is empty")
}

#[test]
fn the_mesh_answers_as_expected() -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(std::path::Path::parent).context("the test has no folder")?;
    let program: PathBuf = profile.join("examples/mesh");
    ensure!(program.is_file(), "{} is missing: run `cargo build --examples`", program.display());
    let folder = tempfile::tempdir()?;
    let output = Command::new(program).args(["--once", "--isolated", "--directory"]).arg(folder.path()).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{text}");
    for part in [
        "over mutual TLS",
        "200 cluster-1 web-api v1, 200 cluster-1 web-api v2",
        "403 -",
        "404 -",
        "200 cluster-2 recs, after",
        "200 cluster-1 recs, after",
        "Every answer is as expected",
    ] {
        ensure!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    Ok(())
}

#[test]
fn containers_are_started_from_the_same_manifests() -> anyhow::Result<()> {
    let boxes = boxes()?;
    let stale = "is not what the manifests say: run `make compose`";
    let written = std::fs::read_to_string(project().join("docker-compose.yml"))?;
    ensure!(written == boxes.compose()?, "docker-compose.yml {stale}");
    let made = boxes.bootstraps()?;
    let there: BTreeSet<String> = std::fs::read_dir(project().join(BOOTSTRAPS))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    ensure!(there == made.keys().cloned().collect(), "{BOOTSTRAPS} {stale}");
    for (name, text) in made {
        ensure!(std::fs::read_to_string(project().join(BOOTSTRAPS).join(&name))? == text, "{name} {stale}");
    }
    Ok(())
}

/// Read by another parser than what wrote it, and held against what the manifests say.
#[test]
fn the_compose_file_is_whole_and_nothing_in_it_is_insecure() -> anyhow::Result<()> {
    let (compose, boxes) = (compose()?, boxes()?);
    let services = compose.pointer("/services").and_then(Value::as_object).context("no services")?;
    let networks = compose.pointer("/networks").and_then(Value::as_object).context("no networks")?;
    let volumes = compose.pointer("/volumes").and_then(Value::as_object).context("no volumes")?;
    let whole = std::fs::read_to_string(project().join("docker-compose.yml"))?;
    ensure!(!whole.contains("insecure") && !whole.contains("loopback"), "{whole}");
    ensure!(services.len() == 2 + boxes.gateways.len() + boxes.apps.len(), "{:?}", services.keys());

    let dockerfile = std::fs::read_to_string(project().join("Dockerfile"))?;
    let mut addresses = BTreeSet::new();
    for (name, service) in services {
        ensure!(text(service, "/user") == "65532:65532", "{name} runs as another user");
        if let Some(target) = service.pointer("/build/target").and_then(Value::as_str) {
            ensure!(dockerfile.contains(&format!(" AS {target}\n")), "the Dockerfile builds no {target}");
        }
        let on = service.get("networks");
        let named: Vec<&str> = match on {
            Some(Value::Object(on)) => on.keys().map(String::as_str).collect(),
            on => on.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        for network in named {
            let subnet = networks.get(network).with_context(|| format!("{name}: no network {network}"))?;
            let address = text(service, &format!("/networks/{network}/ipv4_address"));
            if !address.is_empty() {
                let subnet = text(subnet, "/ipam/config/0/subnet").trim_end_matches("0/24");
                ensure!(!subnet.is_empty() && address.starts_with(subnet), "{name}: {address} is not in {subnet}");
                ensure!(addresses.insert(address.to_owned()), "{name}: {address} twice");
            }
        }
        for mount in list(service, "/volumes") {
            let source = mount
                .as_str()
                .map_or_else(|| text(mount, "/source"), |mount| mount.split(':').next().unwrap_or_default());
            match source.strip_prefix("./") {
                Some(path) => ensure!(project().join(path).exists(), "{name}: {path} does not exist"),
                None => ensure!(volumes.contains_key(source), "{name}: no volume {source}"),
            }
        }
        for needed in service.pointer("/depends_on").and_then(Value::as_object).into_iter().flatten() {
            ensure!(services.contains_key(needed.0), "{name} waits for {}", needed.0);
        }
    }
    let image = format!("envoyproxy/envoy:v{}", envoy_version()?);
    for gateway in &boxes.gateways {
        let service = &services[&gateway.name()];
        assert_eq!(text(service, "/image"), image);
        // It has its own credentials, and nobody else's.
        let keys =
            list(service, "/volumes").iter().filter(|mount| text(mount, "/source") == "keys").collect::<Vec<_>>();
        assert_eq!(keys.len(), 1, "{}", gateway.name());
        assert_eq!(text(keys[0], "/volume/subpath"), format!("gateways/{}", gateway.path()));
        ensure!(keys[0]["read_only"] == true && addresses.contains(&gateway.address.to_string()), "{service}");
    }
    Ok(())
}
