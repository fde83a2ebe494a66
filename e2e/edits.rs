//! Files that people save while gateways serve: broken ones, partial ones, moved ones. The running gateway keeps every
//! route that the rules do not take away, `check` says where and what to do, and nothing is sent that changes nothing.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::restart::{connected, updates};
use crate::support::chancery;
use crate::support::demo::{Demo, RECS, WEB};
use crate::support::http::{Client, Request};
use crate::support::manifests::{list, text};
use crate::support::wait::{Not, PATIENCE, until};

/// The table that is edited, and the root table that delegates to it.
const TABLE: &str = "recommendation/table.yaml";
const ROOT: &str = "gateway/recommendation.yaml";

/// What is asked without a pause while files change.
const WEB_APP: (&str, &str, &str) = (WEB, "/", "200 web-api");
const TEST: (&str, &str, &str) = (RECS, "/", "200 recs");
const BATCH: (&str, &str, &str) = (RECS, "/batch/x", "200 recs");

/// Replaces the one occurrence of a text.
fn swap(whole: &str, old: &str, new: &str) -> anyhow::Result<String> {
    ensure!(whole.matches(old).count() == 1, "`{old}` stands {} times in\n{whole}", whole.matches(old).count());
    Ok(whole.replacen(old, new, 1))
}

/// Line and column of the first occurrence of a text, counted from 1 in characters.
fn place(whole: &str, part: &str) -> anyhow::Result<(u64, u64)> {
    let at = whole.find(part).with_context(|| format!("`{part}` is not in\n{whole}"))?;
    let start = whole[..at].rfind('\n').map_or(0, |end| end + 1);
    Ok((whole[..at].matches('\n').count() as u64 + 1, whole[start..at].chars().count() as u64 + 1))
}

/// The demo's table with one more route, which answers a status by itself: it tells which version of the file is in force.
fn probing(table: &str, status: u16) -> anyhow::Result<String> {
    let probe = format!(
        "    - name: probe\n      matchers:\n        - uri:\n            prefix: /probe\n      directResponse:\n        \
         status: {status}\n    - name: test\n"
    );
    swap(table, "    - name: test\n", &probe)
}

/// All findings of `check`, with their objects or not.
fn findings(demo: &Demo) -> anyhow::Result<(Vec<Value>, bool)> {
    let (report, clean) = chancery::check(&demo.directory(), &demo.settings)?;
    let of_objects = list(&report, "/items").iter().flat_map(|item| list(item, "/findings"));
    Ok((of_objects.chain(list(&report, "/findings")).cloned().collect(), clean))
}

/// Asserts that `check` reports a code at exactly one place of a file, in a message that says what to do.
fn reported(demo: &Demo, file: &str, at: (u64, u64), code: &str, says: &[&str]) -> anyhow::Result<()> {
    let (findings, _) = findings(demo)?;
    let fits = |finding: &&Value| {
        let location = &finding["location"];
        text(finding, "/code") == code
            && text(location, "/file").ends_with(file)
            && (location["line"].as_u64(), location["column"].as_u64()) == (Some(at.0), Some(at.1))
    };
    let found: Vec<&str> = findings.iter().filter(fits).map(|finding| text(finding, "/message")).collect();
    ensure!(found.len() == 1, "{} times {code} at {file}:{at:?}: {findings:#?}", found.len());
    for part in says {
        ensure!(found[0].contains(part), "`{part}` is not in: {}", found[0]);
    }
    Ok(())
}

/// Waits until the log of `serve` names a place.
async fn logged(demo: &Demo, part: &str) -> anyhow::Result<()> {
    until(PATIENCE, &format!("`{part}` in the log"), async || {
        let log = demo.chancery.log_tail();
        if log.contains(part) { Ok(()) } else { Err(Not::Yet(log)) }
    })
    .await
}

/// A file that is saved with a mistake in it.
struct Mistake {
    name: &'static str,
    /// What stands there, and the mistake instead.
    old: &'static str,
    new: &'static str,
    /// Where the mistake is: where this text begins.
    at: &'static str,
    code: &'static str,
    says: &'static [&'static str],
    /// Whether the rest of the file is in force, mistake and all.
    taken: bool,
    /// What the route with the mistake answers.
    batch: &'static str,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a syntax error",
        old: "            prefix: /batch\n",
        new: "            prefix: /batch\n           oops\n",
        at: "oops",
        code: "SYNTAX_ERROR",
        says: &["not YAML", "until then the file is not read"],
        taken: false,
        batch: "200 recs",
    },
    Mistake {
        name: "a bracket that is not closed",
        old: "            prefix: /batch\n",
        new: "            prefix: [/batch\n",
        at: ":\n        destinations:",
        code: "SYNTAX_ERROR",
        says: &["`[` of line 18, column 21 is still open here"],
        taken: false,
        batch: "200 recs",
    },
    Mistake {
        name: "an unknown field",
        old: "        tier: batch\n",
        new: "        tier: batch\n      matcher:\n        - uri: {prefix: /x}\n",
        at: "matcher:\n        - uri: {prefix: /x}",
        code: "UNKNOWN_FIELD",
        says: &["`matcher`", "did you mean `matchers`?"],
        taken: true,
        batch: "200 recs",
    },
    Mistake {
        name: "a wrong type in one route",
        old: "number: 8080\n    - name: personal",
        new: "number: eighty\n    - name: personal",
        at: "number: eighty",
        code: "INVALID_FIELD",
        says: &["expected a whole number", "the text `eighty`", "route `batch`"],
        taken: true,
        batch: "500",
    },
    Mistake {
        name: "a reference to nothing",
        old: "              name: recs\n              namespace: recommendation\n            port:\n              number: 8080\n    - name: personal",
        new: "              name: rcs\n              namespace: recommendation\n            port:\n              number: 8080\n    - name: personal",
        at: "ref:\n              name: rcs",
        code: "DESTINATION_NOT_FOUND",
        says: &["Service/recommendation/rcs@cluster-1", "check the reference"],
        taken: true,
        batch: "500",
    },
];

/// Saves every mistake in turn, and corrects it.
async fn mistakes(demo: &Demo) -> anyhow::Result<()> {
    let original = demo.read(TABLE)?;
    for (number, mistake) in (0..).zip(MISTAKES) {
        let (broken, mended) = (210 + 2 * number, 211 + 2 * number);
        let text = swap(&probing(&original, broken)?, mistake.old, mistake.new)?;
        let at = place(&text, mistake.at)?;
        let mut asked = vec![WEB_APP, TEST];
        if mistake.batch == BATCH.2 {
            asked.push(BATCH);
        }
        let watch = demo.watch(2, &asked);
        let saved = async {
            demo.write(TABLE, &text)?;
            logged(demo, &format!("{TABLE}:{}:{}", at.0, at.1)).await?;
            if mistake.taken {
                demo.answers(RECS, "/probe", &broken.to_string()).await?;
            }
            demo.answers(RECS, "/batch/x", mistake.batch).await?;
            reported(demo, TABLE, at, mistake.code, mistake.says)?;
            demo.write(TABLE, &probing(&original, mended)?)?;
            demo.answers(RECS, "/probe", &mended.to_string()).await?;
            demo.answers(RECS, "/batch/x", BATCH.2).await?;
            ensure!(findings(demo)?.0.is_empty(), "check still finds something");
            watch.goes_on(4).await
        };
        let saved = saved.await;
        watch.end().await.with_context(|| mistake.name)?;
        saved.with_context(|| mistake.name)?;
    }
    demo.replace(TABLE, &original)
}

/// Half of a file stays half for as long as its writer takes; until then its objects stay as they were.
async fn half_a_file(demo: &Demo) -> anyhow::Result<()> {
    let whole = probing(&demo.read(TABLE)?, 231)?;
    let cut = whole.find("        app: recs").context("no labels")? - "els:\n".len();
    let watch = demo.watch(2, &[WEB_APP, TEST, BATCH]);
    demo.write(TABLE, &whole[..cut])?;
    // The end of what is written: line and column after the last letter.
    let end = place(&whole, &whole[cut..])?;
    logged(demo, &format!("{TABLE}:{}:{}", end.0, end.1)).await?;
    reported(demo, TABLE, end, "SYNTAX_ERROR", &["until then the file is not read"])?;
    demo.write(TABLE, &whole)?;
    demo.answers(RECS, "/probe", "231").await?;
    watch.end().await.map(drop)
}

/// A deleted file takes its objects along; what led to them says so, and nothing else moves.
async fn deleted_and_renamed_into_place(demo: &Demo) -> anyhow::Result<()> {
    let table = demo.read(TABLE)?;
    let watch = demo.watch(2, &[WEB_APP]);
    std::fs::remove_file(demo.file(TABLE))?;
    demo.answers(RECS, "/", "500").await?;
    let at = place(&demo.read(ROOT)?, "labels:\n              expose")?;
    reported(
        demo,
        ROOT,
        at,
        "DELEGATION_EMPTY",
        &["expose=recommendation", "label a table so, or correct the selector"],
    )?;
    demo.replace(TABLE, &table)?;
    demo.answers(RECS, "/", TEST.2).await?;
    watch.end().await?;

    let watch = demo.watch(2, &[WEB_APP, TEST, BATCH]);
    demo.replace(TABLE, &swap(&table, "status: 231", "status: 232")?)?;
    demo.answers(RECS, "/probe", "232").await?;
    watch.end().await.map(drop)
}

/// Files beyond a limit are refused at once, and everything else is served on.
async fn beyond_the_limits(demo: &Demo) -> anyhow::Result<()> {
    let watch = demo.watch(2, &[WEB_APP, TEST, BATCH]);
    let (huge, bomb) = (demo.file("gateway/huge.yaml"), demo.file("gateway/bomb.yaml"));
    std::fs::File::create(&huge)?.set_len(100 << 20)?;
    demo.write("gateway/bomb.yaml", &alias_bomb())?;
    logged(demo, "more than the limit of 16777216 bytes per file").await?;
    logged(demo, "more than 1000000 values in one file, with aliases expanded").await?;
    let table = demo.read(TABLE)?;
    demo.replace(TABLE, &swap(&table, "status: 232", "status: 233")?)?;
    demo.answers(RECS, "/probe", "233").await?;
    std::fs::remove_file(huge)?;
    std::fs::remove_file(bomb)?;
    watch.end().await.map(drop)
}

/// Nine times nine times nine and so on.
pub(crate) fn alias_bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    text
}

#[tokio::test]
async fn mistakes_in_a_file_take_away_only_what_they_must() -> anyhow::Result<()> {
    let demo = Demo::start().await?;
    let outcome = async {
        mistakes(&demo).await?;
        half_a_file(&demo).await.context("half a file")?;
        deleted_and_renamed_into_place(&demo).await.context("deleted, and renamed into place")?;
        beyond_the_limits(&demo).await.context("beyond the limits")
    };
    outcome.await.map_err(|error| error.context(demo.chancery.log_tail()))
}

/// Puts a version of a folder's files in place as a mounted ConfigMap does: a folder of its own, a link to it that is
/// renamed into place, and a link per file through that link.
fn mount(folder: &Path, version: &str, files: &[(String, String)]) -> anyhow::Result<()> {
    let data = folder.join(format!("..{version}"));
    std::fs::create_dir(&data)?;
    for (name, text) in files {
        std::fs::write(data.join(name), text)?;
    }
    let beside = folder.join("..data_tmp");
    symlink(format!("..{version}"), &beside)?;
    std::fs::rename(&beside, folder.join("..data"))?;
    for (name, _) in files {
        let file = folder.join(name);
        if !file.is_symlink() {
            let beside = folder.join("..file_tmp");
            symlink(format!("..data/{name}"), &beside)?;
            std::fs::rename(&beside, file)?;
        }
    }
    Ok(())
}

/// The files of a folder, by name; not what a mount keeps beside them.
fn files_of(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("..") {
            continue;
        }
        files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path())?));
    }
    Ok(files)
}

/// Edits that mean nothing: each is another text of the same objects.
fn edits_that_mean_nothing(table: &str) -> anyhow::Result<Vec<String>> {
    Ok(vec![
        format!("# A comment.\n\n{}\n\n# Another.\n", table.replace(":\n", ":   # here\n")),
        swap(
            table,
            "  name: recs\n  namespace: recommendation\n  labels:",
            "  namespace: recommendation\n  name: recs\n  labels:",
        )?,
        swap(
            table,
            "  namespace: recommendation\n  labels:",
            "  namespace: recommendation\n  annotations: {seen: today}\n  labels:",
        )?,
        swap(table, "prefix: /batch", "prefix: \"/batch\"")?,
    ])
}

#[tokio::test]
async fn what_changes_nothing_sends_nothing_and_endpoints_travel_alone() -> anyhow::Result<()> {
    let mut demo = Demo::start().await?;
    connected(&demo.gateway.envoy, 1).await?;
    demo.answers(RECS, "/", TEST.2).await?;
    let before = updates(&demo.gateway.envoy).await?;
    ensure!(before.values().all(|count| *count > 0), "a lane without updates is not counted: {before:?}");

    let table = demo.read(TABLE)?;
    for text in edits_that_mean_nothing(&table)? {
        demo.replace(TABLE, &text)?;
        // Every one is read and compiled by itself: `check` after it sees it, and so does `serve` by the log.
        ensure!(findings(&demo)?.0.is_empty(), "an edit that means nothing is found fault with:\n{text}");
    }
    // The endpoint comes after them on the same stream: what they had sent would be counted when it has arrived.
    let more = demo.backend("recs-more", 77).await?;
    let recs = demo.read("recommendation/recs.yaml")?;
    let endpoint = format!("endpoints:\n  - addresses:\n      - {}\n", more.ip());
    demo.replace("recommendation/recs.yaml", &swap(&recs, "endpoints:\n", &endpoint)?)?;
    demo.answers_once(RECS, "/", "200 recs-more").await?;
    let after = updates(&demo.gateway.envoy).await?;
    let mut expected = before.clone();
    *expected.entry("EDS").or_default() += 1;
    ensure!(after == expected, "updates before {before:?}, after four edits and one endpoint {after:?}");
    Ok(())
}

/// How long requests are sent while a Service is renamed again and again, four times at least.
const UNDER_LOAD: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_mounted_folder_is_swapped_and_a_service_renamed_under_load() -> anyhow::Result<()> {
    let mounted = |directory: &Path| {
        let folder = directory.join("cluster-1/recommendation");
        mount(&folder, "0", &files_of(&folder)?)
    };
    let mut demo = Demo::start_with(mounted).await?;
    let folder = demo.file("recommendation");
    let files = files_of(&folder)?;
    let two = demo.backend("recs-two", 78).await?;
    let own = demo.read("recommendation/recs.yaml")?;
    let address = own.lines().find_map(|line| line.trim().strip_prefix("- 127.")).context("no address")?;
    let renamed: Vec<(String, String)> = files
        .iter()
        .map(|(name, text)| {
            let text = match name.as_str() {
                "recs.yaml" => text
                    .replace("  name: recs\n", "  name: recs-two\n")
                    .replace("service-name: recs\n", "service-name: recs-two\n")
                    .replace(&format!("127.{address}"), &two.ip().to_string()),
                "table.yaml" => text.replace("              name: recs\n", "              name: recs-two\n"),
                _ => text.clone(),
            };
            (name.clone(), text)
        })
        .collect();

    let watch = demo.watch(4, &[WEB_APP, (RECS, "/", "200 recs"), (RECS, "/batch", "200 recs")]);
    let start = Instant::now();
    let mut version = 0;
    while start.elapsed() < UNDER_LOAD || version < 4 {
        for (files, wanted) in [(&renamed, "200 recs-two"), (&files, "200 recs")] {
            version += 1;
            mount(&folder, &version.to_string(), files)?;
            std::fs::remove_dir_all(folder.join(format!("..{}", version - 1)))?;
            demo.answers(RECS, "/", wanted).await?;
            watch.goes_on(20).await?;
        }
    }
    watch.end().await.with_context(|| demo.chancery.log_tail())?;
    Ok(())
}

/// One answer at another port of the gateway.
async fn at(address: SocketAddr) -> anyhow::Result<u16> {
    Ok(Client::new(address).send(&Request::get(WEB, "/")).await?.status)
}

async fn refuses(address: SocketAddr) -> anyhow::Result<()> {
    until(PATIENCE, &format!("{address} to refuse connections"), async || {
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => Err(Not::Yet("it accepts them".to_owned())),
            Err(_) => Ok(()),
        }
    })
    .await
}

/// R15 and R57: an Envoy gets the ports of all Services that select it, and loses them with their listeners.
#[tokio::test]
async fn gateways_gain_and_lose_ports_services_and_themselves() -> anyhow::Result<()> {
    const INGRESS: &str = "gateway/ingress.yaml";
    let mut demo = Demo::start().await?;
    let original = demo.read(INGRESS)?;
    let ip = demo.address.ip();
    let (second, third) = (SocketAddr::new(ip, demo.free_port()?), SocketAddr::new(ip, demo.free_port()?));
    let everything = [WEB_APP, TEST, BATCH];
    let listener = |port: u16| {
        format!(
            "  listeners:\n    - http: {{}}\n      port:\n        number: {port}\n      allowedRouteTables:\n        - host: '*'\n"
        )
    };

    // A second listener, on a port of the same Service.
    let watch = demo.watch(2, &everything);
    let port = format!("  ports:\n    - name: second\n      port: 81\n      targetPort: {}\n", second.port());
    let text = swap(&swap(&original, "  ports:\n", &port)?, "  listeners:\n", &listener(81))?;
    demo.replace(INGRESS, &text)?;
    demo.gateway.envoy.listens(second).await?;
    ensure!(at(second).await? == 200, "the second port serves the same tables");

    // Another Service that selects the same Envoy, with a port of its own.
    let extra = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: ingress-extra\n  namespace: gateway\nspec:\n  selector:\n    app: \
         ingress-gateway\n  ports:\n    - name: third\n      port: 82\n      targetPort: {}\n",
        third.port()
    );
    demo.replace("gateway/extra.yaml", &extra)?;
    demo.replace(INGRESS, &swap(&text, "  listeners:\n", &listener(82))?)?;
    demo.gateway.envoy.listens(third).await.map_err(|error| error.context(demo.chancery.log_tail()))?;
    ensure!(at(second).await? == 200 && at(third).await? == 200, "the ports of both Services are served");

    // All of it back.
    std::fs::remove_file(demo.file("gateway/extra.yaml"))?;
    refuses(third).await?;
    demo.replace(INGRESS, &original)?;
    refuses(second).await?;

    // A Service that selects other Pods: the Envoy has no gateway any more, keeps what it has, and is told why.
    demo.replace(INGRESS, &swap(&original, "  selector:\n    app: ingress-gateway", "  selector:\n    app: other")?)?;
    connected(&demo.gateway.envoy, 0).await?;
    demo.replace(INGRESS, &original)?;
    connected(&demo.gateway.envoy, 1).await?;
    let table = demo.read(TABLE)?;
    demo.replace(TABLE, &probing(&table, 234)?)?;
    demo.answers(RECS, "/probe", "234").await?;
    watch.end().await.with_context(|| demo.chancery.log_tail())?;

    // No virtual gateway at all: nothing is served, until there is one again.
    let (service, _) = original.split_once("---\n").context("two objects")?;
    demo.replace(INGRESS, service)?;
    refuses(demo.address).await?;
    connected(&demo.gateway.envoy, 1).await?;
    demo.replace(INGRESS, &original)?;
    demo.gateway.envoy.listens(demo.address).await?;
    demo.answers(RECS, "/probe", "234").await
}
