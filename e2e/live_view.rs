//! What an operator sees of a running control plane: status, explanations with acknowledgements, metrics, logs.

use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::support::chancery::binary;
use crate::support::demo::{Demo, RECS, WEB};
use crate::support::http::{self, Client, Request};
use crate::support::manifests::{list, text};
use crate::support::process::Process;
use crate::support::wait::{Not, PATIENCE, until};

/// The demo's gateway.
const GATEWAY: &str = "cluster-1/gateway/ingress-gateway";

/// An object of the demo that one edit changes.
const TABLE: &str = "RouteTable/recommendation/recs@cluster-1";

/// A command without the settings of whoever runs the tests.
fn chancery(arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(binary()?);
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("CHANCERY_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(arguments).output().context("run chancery")
}

/// What a command prints; it must end with exit code 0.
fn printed(arguments: &[&str]) -> anyhow::Result<String> {
    let output = chancery(arguments)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "chancery {arguments:?} ended with {}: {err}", output.status);
    Ok(out.into_owned())
}

fn as_json(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))
}

fn server(demo: &Demo) -> String {
    format!("http://{}", demo.chancery.admin())
}

/// Waits until a question has an answer in which all is acknowledged.
async fn all_acknowledged(arguments: &[&str], path: &str) -> anyhow::Result<Value> {
    until(PATIENCE, "every part to be acknowledged", async || {
        let answer =
            printed(arguments).and_then(|text| as_json(&text)).map_err(|error| Not::Ever(error.to_string()))?;
        let states = list(&answer, path);
        if states.len() > 1 && states.iter().all(|part| text(part, "/state") == "acknowledged") {
            return Ok(answer);
        }
        Err(Not::Yet(answer.to_string()))
    })
    .await
}

#[tokio::test]
async fn status_shows_a_real_envoy_that_acknowledged_all_types() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let server = server(&demo);
    let status = all_acknowledged(&["status", "--server", &server, "-o", "json"], "/gateways/0/types").await?;
    assert_eq!((text(&status, "/apiVersion"), text(&status, "/kind")), ("chancery/v1", "Status"));
    let gateways = list(&status, "/gateways");
    assert_eq!(gateways.len(), 1, "{status:#}");
    assert_eq!((text(&gateways[0], "/gateway"), text(&gateways[0], "/envoy")), (GATEWAY, "1.40.0"));
    assert!(!text(&gateways[0], "/node").is_empty() && !text(&gateways[0], "/since").is_empty());
    let types: Vec<&str> =
        list(&gateways[0], "/types").iter().filter_map(|of| text(of, "/typeUrl").rsplit('.').next()).collect();
    assert_eq!(types, ["Cluster", "ClusterLoadAssignment", "Listener", "TypedExtensionConfig", "RouteConfiguration"]);
    assert_eq!(list(&status, "/items"), [] as [Value; 0], "the demo is clean");

    let shown = printed(&["status", "--server", &server])?;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["GATEWAY", "NODE", "ENVOY", "AGE", "CLUSTERS", "ENDPOINTS", "LISTENERS", "ROUTES", "EXTENSIONS"]
    );
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((row[0], row[2], &row[4..]), (GATEWAY, "1.40.0", &["ok"; 5][..]), "{shown}");
    assert!(shown.ends_with("27 objects: 19 accepted, 8 of Kubernetes\n"), "{shown}");

    // An object that is wrong, with its place and what to do.
    let table = demo.read("recommendation/table.yaml")?;
    let broken = table.replacen("- ref:\n              name: recs", "- ref:\n              name: nobody", 1);
    ensure!(broken != table, "the demo's table has another form");
    demo.replace("recommendation/table.yaml", &broken)?;
    let status = until(PATIENCE, "a finding", async || {
        let status = printed(&["status", "--server", &server, "-o", "json"]).and_then(|text| as_json(&text));
        let status = status.map_err(|error| Not::Ever(error.to_string()))?;
        if list(&status, "/items").is_empty() { Err(Not::Yet(status.to_string())) } else { Ok(status) }
    })
    .await?;
    let item = list(&status, "/items").iter().find(|item| text(item, "/object") == TABLE).context("the table")?;
    assert_eq!((text(item, "/approval"), text(item, "/findings/0/code")), ("INVALID", "DESTINATION_NOT_FOUND"));
    assert!(text(item, "/findings/0/location/file").ends_with("table.yaml"), "{item:#}");
    let shown = printed(&["status", "--server", &server])?;
    ensure!(shown.contains("INVALID") && shown.contains("table.yaml:"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn who_watches_is_told_what_changed_and_that_the_server_is_gone() -> anyhow::Result<()> {
    let mut demo = Demo::start().await?;
    let server = server(&demo);
    all_acknowledged(&["status", "--server", &server, "-o", "json"], "/gateways/0/types").await?;
    let log = demo.directory().with_extension("watch");
    let mut command = Command::new(binary()?);
    command.args(["status", "--watch", "--server", &server]);
    let mut watch = Process::start("chancery status --watch", &mut command, log.clone())?;
    let shows = async |what: &str| {
        until(PATIENCE, what, async || {
            let text = std::fs::read_to_string(&log).map_err(|error| Not::Ever(error.to_string()))?;
            if text.contains(what) { Ok(text) } else { Err(Not::Yet(text)) }
        })
        .await
    };
    shows("27 objects: 19 accepted").await?;
    let table = demo.read("recommendation/table.yaml")?;
    demo.replace("recommendation/table.yaml", &table.replacen("kind: RouteTable", "kind: RouteTable\nodd: 1", 1))?;
    // The count comes last.
    let text = shows("18 accepted").await?;
    ensure!(text.contains("UNKNOWN_FIELD") && text.contains("table.yaml:"), "{text}");
    demo.chancery.kill();
    shows("no answer from").await?;
    let status =
        until(PATIENCE, "the end", async || watch.ended().ok_or_else(|| Not::Yet("running".to_owned()))).await?;
    assert_eq!(status.code(), Some(3));
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_seen_in_envoys_words_until_the_fix_lands() -> anyhow::Result<()> {
    const NACKS: &str = "chancery_xds_nacks_total{type=\"Listener\",kind=\"VirtualGateway\"}";
    let demo = Demo::start().await?;
    let server = server(&demo);
    let ask = ["status", "--server", &server, "-o", "json"];
    all_acknowledged(&ask, "/gateways/0/types").await?;

    // A second listener, on a port that somebody else has: Envoy cannot bind it.
    let taken = demo.free_port()?;
    let holder = std::net::TcpListener::bind((demo.address.ip(), taken))?;
    let before = demo.read("gateway/ingress.yaml")?;
    let port = format!("ports:\n    - name: more\n      port: 81\n      targetPort: {taken}\n");
    let more = "    - http: {}\n      port:\n        number: 81\n      allowedRouteTables:\n        - host: '*.istioinaction.io'\n";
    demo.replace("gateway/ingress.yaml", &format!("{}{more}", before.replacen("ports:\n", &port, 1)))?;
    let status = until(PATIENCE, "a refusal", async || {
        let status = printed(&ask).and_then(|text| as_json(&text)).map_err(|error| Not::Ever(error.to_string()))?;
        let objects = list(&status, "/items");
        let is_told = objects.iter().any(|item| text(item, "/approval") == "FAILED");
        let types = list(&status, "/gateways/0/types");
        let refused = types.iter().find(|of_type| text(of_type, "/state") == "refused");
        if is_told && refused.is_some() { Ok(status) } else { Err(Not::Yet(status.to_string())) }
    })
    .await?;
    let types = list(&status, "/gateways/0/types");
    for of_type in types {
        let is_listener = text(of_type, "/typeUrl").ends_with("Listener");
        let expected = if is_listener { "refused" } else { "acknowledged" };
        assert_eq!(text(of_type, "/state"), expected, "the rest proceeds: {status:#}");
        if is_listener {
            assert_eq!(text(of_type, "/refusals/0/resource"), format!("listener/{taken}"));
            assert!(text(of_type, "/refusals/0/message").contains("in use"), "{of_type:#}");
        }
    }
    let item = &list(&status, "/items")[0];
    assert_eq!(text(item, "/object"), "VirtualGateway/gateway/ingress@cluster-1");
    assert_eq!(text(item, "/findings/0/code"), "REFUSED_BY_GATEWAY");
    let shown = printed(&["status", "--server", &server])?;
    for part in ["refused 1", "REFUSED BY", "in use", "FAILED"] {
        ensure!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    let shown = printed(&["explain", "--server", &server, "--host", WEB, "--port", "81"])?;
    ensure!(shown.contains("Acknowledged: by 0 of 1") && shown.contains("in use"), "{shown}");
    let shown = printed(&["explain", "--server", &server, "--host", WEB, "--port", "80"])?;
    ensure!(shown.contains("Acknowledged: by 1 of 1") && !shown.contains("in use"), "{shown}");
    ensure!(metrics(&demo).await?.get(NACKS).is_some_and(|count| *count >= 1.0), "no {NACKS}");

    demo.replace("gateway/ingress.yaml", &before)?;
    all_acknowledged(&ask, "/gateways/0/types").await?;
    drop(holder);
    Ok(())
}

/// A document without what only a server knows, and with files as the directory source names them.
fn offline_form(mut document: Value) -> Value {
    if let Some(document) = document.as_object_mut() {
        document.remove("acknowledged");
    }
    document
}

#[tokio::test]
async fn explain_of_a_server_is_that_of_its_directory_and_who_acknowledged() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let (server, directory) = (server(&demo), demo.directory());
    let directory = directory.to_string_lossy();
    for question in [
        &["--host", WEB, "--path", "/"][..],
        &["--host", RECS, "--path", "/batch", "-H", "x: y", "--gateway", GATEWAY],
        &["--host", "nobody.example"],
        &[TABLE],
        &["VirtualGateway/gateway/ingress@cluster-1"],
    ] {
        let live = [&["explain", "--server", &server, "-o", "json"], question].concat();
        let document = all_acknowledged_or_single(&live).await?;
        let offline = [&["explain", &directory], question, &["-o", "json", "--allow-loopback-endpoints"]].concat();
        assert_eq!(offline_form(document), as_json(&printed(&offline)?)?, "{question:?}");

        // In text the answer comes first, and then who has it.
        let shown = printed(&[&["explain", "--server", &server], question].concat())?;
        let offline = printed(&[&["explain", &directory], question, &["--allow-loopback-endpoints"]].concat())?;
        let (answer, acknowledged) = shown.split_once("\nAcknowledged: ").with_context(|| shown.clone())?;
        assert_eq!(answer, offline, "{question:?}");
        ensure!(acknowledged.starts_with("by 1 of 1 connected gateways\nGATEWAY"), "{shown}");
        ensure!(acknowledged.contains("RouteConfiguration route/") && acknowledged.contains("acknowledged"), "{shown}");
    }
    // A Pod behind nothing: no gateway has anything of it.
    let folder = demo.directory();
    let workspace = list(&as_json(&printed(&["check", &folder.to_string_lossy(), "-o", "json"])?)?, "/items")
        .iter()
        .map(|item| text(item, "/object").to_owned())
        .find(|object| object.starts_with("Workspace/"))
        .context("the demo has workspaces")?;
    let shown = printed(&["explain", "--server", &server, &workspace])?;
    ensure!(shown.ends_with("\nAcknowledged: no connected gateway should hold it\n"), "{shown}");

    for (wrong, says) in [
        (&["RouteTable/a/b@c"][..], "no object `RouteTable/a/b@c`"),
        (&["--host", "a", "--gateway", "a/b/c"], "no gateway `a/b/c`"),
        (&["config/demo", "--host", "a"], "with --server there is no path"),
        (&[TABLE, TABLE], "no path"),
        (&[], "say what to explain"),
    ] {
        let output = chancery(&[&["explain", "--server", &server], wrong].concat())?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2) && err.contains(says) && err.lines().count() == 1, "{wrong:?}: {err}");
    }
    Ok(())
}

/// The answer, once all that it rests on is acknowledged.
async fn all_acknowledged_or_single(arguments: &[&str]) -> anyhow::Result<Value> {
    until(PATIENCE, "an acknowledged answer", async || {
        let answer =
            printed(arguments).and_then(|text| as_json(&text)).map_err(|error| Not::Ever(error.to_string()))?;
        let parts = list(&answer, "/acknowledged");
        if !parts.is_empty() && parts.iter().all(|part| text(part, "/state") == "acknowledged") {
            return Ok(answer);
        }
        Err(Not::Yet(answer.to_string()))
    })
    .await
}

#[test]
fn a_server_that_is_not_there_is_exit_code_3_and_one_clear_line() -> anyhow::Result<()> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let url = format!("http://{free}");
    for arguments in [
        &["status", "--server", &url][..],
        &["status", "--server", &free.to_string()],
        &["explain", "--server", &url, "--host", "a"],
        &["explain", "--server", &url, TABLE],
    ] {
        let output = chancery(arguments)?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(3), "{arguments:?}: {} {err}", output.status);
        ensure!(output.stdout.is_empty() && err.lines().count() == 1, "{arguments:?}: {err}");
        for part in [url.as_str(), "refused", "chancery serve"] {
            ensure!(err.contains(part), "`{part}` is not in: {err}");
        }
    }
    for (wrong, says) in
        [("https://localhost:1", "plain HTTP"), ("http://", "no address of a server"), ("a b", "no address")]
    {
        let output = chancery(&["status", "--server", wrong])?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2) && err.contains(says), "{wrong}: {} {err}", output.status);
    }
    for command in ["status", "explain"] {
        let help = printed(&[command, "--help"])?;
        ensure!(help.contains("  3  server not reachable"), "{help}");
    }
    Ok(())
}

#[tokio::test]
async fn the_examples_of_status_work_and_another_server_is_named() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let help = printed(&["status", "--help"])?;
    let (_, examples) = help.split_once("Examples:\n").context("no examples")?;
    let examples: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
    ensure!(examples.len() >= 2, "{examples:?}");
    let own = server(&demo);
    for example in examples {
        let example = example.trim().replace("http://127.0.0.1:18001", &own);
        let typed: Vec<&str> = example.split(' ').skip(1).collect();
        // The default address may be somebody's own.
        let typed = if typed.contains(&"--server") { typed } else { [&typed[..], &["--server", &own]].concat() };
        ensure!(printed(&typed)?.contains(GATEWAY), "{example}");
    }
    let xds = format!("http://{}", demo.chancery.xds());
    let output = chancery(&["status", "--server", &xds])?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(3) && err.contains("not the admin port"), "{} {err}", output.status);
    Ok(())
}

/// Metrics as a map from a sample with labels to its number.
async fn metrics(demo: &Demo) -> anyhow::Result<std::collections::BTreeMap<String, f64>> {
    let response = http::get(demo.chancery.admin(), "admin", "/metrics").await?;
    ensure!(response.status == 200, "{}: {}", response.status, response.text());
    let content_type = response.header("content-type").unwrap_or_default();
    ensure!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    let text = response.text();
    let mut samples = std::collections::BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
        ensure!(name.starts_with("chancery_"), "{line}");
        let value: f64 = value.parse().with_context(|| format!("no number: {line}"))?;
        ensure!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
    }
    Ok(samples)
}

#[tokio::test]
async fn metrics_count_a_push_after_an_edit() -> anyhow::Result<()> {
    const PUSHES: &str = "chancery_xds_pushes_total{type=\"RouteConfiguration\"}";
    const ANSWERS: &str = "chancery_xds_acknowledgement_seconds_count{type=\"RouteConfiguration\"}";
    let demo = Demo::start().await?;
    all_acknowledged(&["status", "--server", &server(&demo), "-o", "json"], "/gateways/0/types").await?;
    let before = metrics(&demo).await?;
    let of = |samples: &std::collections::BTreeMap<String, f64>, name: &str| samples.get(name).copied().unwrap_or(0.0);
    assert!((of(&before, "chancery_xds_gateways_connected") - 1.0).abs() < 0.5, "{before:#?}");
    for name in [
        "chancery_compile_duration_seconds_count",
        "chancery_compile_last_success_timestamp_seconds",
        "chancery_objects{kind=\"RouteTable\",state=\"ACCEPTED\"}",
        "chancery_snapshot_bytes{type=\"Cluster\"}",
        "chancery_xds_push_bytes_total{type=\"Listener\"}",
    ] {
        assert!(of(&before, name) > 0.0, "no {name} in {before:#?}");
    }

    let edited = demo.read("gateway/web-headers.yaml")?;
    demo.replace("gateway/web-headers.yaml", &edited.replacen("x-web-ab: applied", "x-web-ab: changed", 1))?;
    until(PATIENCE, "a push and its acknowledgement", async || {
        let now = metrics(&demo).await.map_err(|error| Not::Ever(format!("{error:#}")))?;
        let more = |name| of(&now, name) > of(&before, name);
        if more(PUSHES) && more(ANSWERS) && more("chancery_compile_duration_seconds_count") {
            return Ok(());
        }
        Err(Not::Yet(format!("{PUSHES} {} {ANSWERS} {}", of(&now, PUSHES), of(&now, ANSWERS))))
    })
    .await?;
    let nacks = metrics(&demo).await?.keys().filter(|name| name.contains("nacks")).count();
    assert_eq!(nacks, 0, "nothing was refused");
    Ok(())
}

/// Sends a POST without a body.
async fn post(demo: &Demo, path: &str) -> anyhow::Result<(u16, String)> {
    let own = vec![("x-chancery".to_owned(), "1".to_owned())];
    let request = Request { method: "POST".to_owned(), headers: own, ..Request::get("localhost", path) };
    let response = Client::new(demo.chancery.admin()).send(&request).await?;
    Ok((response.status, response.text()))
}

/// The lines that the control plane logged, each of which must be an object with the head of every line.
fn logged(demo: &Demo) -> anyhow::Result<Vec<Value>> {
    let tail = demo.chancery.log_tail();
    let lines: Vec<Value> = tail.lines().skip(1).map(as_json).collect::<anyhow::Result<_>>()?;
    for line in &lines {
        for key in ["ts", "level", "target", "msg"] {
            if !line[key].is_string() {
                bail!("no {key} in {line}");
            }
        }
    }
    Ok(lines)
}

#[tokio::test]
async fn log_lines_are_json_and_the_level_changes_at_run_time() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    all_acknowledged(&["status", "--server", &server(&demo), "-o", "json"], "/gateways/0/types").await?;
    let is_debug = |line: &Value| line["level"] == json!("debug");
    let lines = logged(&demo)?;
    assert!(!lines.iter().any(is_debug), "{lines:#?}");
    let connected = lines.iter().find(|line| line["msg"] == json!("gateway connected")).context("nobody connected")?;
    assert_eq!(connected["gateway"], json!(GATEWAY));

    let (status, filter) = post(&demo, "/logging?filter=info,chancery::xds%3Ddebug").await?;
    assert_eq!((status, filter.as_str()), (200, "chancery::xds=debug,kube_runtime=off,kube_client=off,info\n"));
    let shown = http::get(demo.chancery.admin(), "localhost", "/logging").await?;
    assert_eq!(shown.text(), filter);
    let edited = demo.read("gateway/web-headers.yaml")?;
    demo.replace("gateway/web-headers.yaml", &edited.replacen("x-web-ab: applied", "x-web-ab: changed", 1))?;
    let sent = until(PATIENCE, "a line at debug", async || {
        let lines = logged(&demo).map_err(|error| Not::Ever(format!("{error:#}")))?;
        let sent = lines.iter().find(|line| is_debug(line) && line["msg"] == json!("sent")).cloned();
        sent.ok_or_else(|| Not::Yet(format!("{} lines", lines.len())))
    })
    .await?;
    assert_eq!(sent["gateway"], json!(GATEWAY));
    for key in ["type_url", "version", "nonce"] {
        assert!(sent[key].as_str().is_some_and(|text| !text.is_empty()), "no {key} in {sent}");
    }

    let (status, why) = post(&demo, "/logging?filter=a%3Db%3Dc").await?;
    assert!(status == 400 && why.contains("`a=b=c` says nothing about what to log"), "{status} {why}");
    let shown = http::get(demo.chancery.admin(), "localhost", "/logging").await?;
    assert_eq!(shown.text(), filter, "a bad filter changes nothing");
    let unknown = http::get(demo.chancery.admin(), "localhost", "/console").await?;
    assert_eq!(unknown.status, 404);
    Ok(())
}
