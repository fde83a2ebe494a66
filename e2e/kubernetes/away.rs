//! An API server that is nowhere at the start, and credentials that lead nowhere: what is said, how often, and that a stop is
//! heard meanwhile.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::chancery::binary;
use crate::support::process::Process;

/// Lines that a start may log that leads nowhere: what it waits for, and a change of state or two.
const LINES: usize = 8;

pub(super) fn kubeconfig(server: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "pam", "user": {"token": "CANARY-TOKEN"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "pam"}}],
    })
}

pub(super) fn serve(folder: &Path, kubeconfig: &Path, further: &[&str]) -> Command {
    let mut command = Command::new(binary().expect("the binary"));
    command.arg("serve").arg("--kubeconfig").arg(kubeconfig).args(further);
    command.args(["--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"]);
    command.env("HOME", folder).env_remove("KUBECONFIG").env_remove("CHANCERY_LOG").env_remove("RUST_LOG");
    command
}

/// Nothing listens: few attempts, few lines, and a stop is heard.
#[tokio::test]
async fn a_server_that_is_nowhere_is_told_once_and_a_stop_is_heard() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Whatever connects is closed at once, and counted: nothing is there that speaks TLS.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let counting = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let file = folder.path().join("config");
    std::fs::write(&file, kubeconfig(&format!("https://{address}")).to_string())?;
    let mut process = Process::start("serve", &mut serve(folder.path(), &file, &[]), folder.path().join("log"))?;
    let kinds = Kind::ALL.len();
    until(PATIENCE, "some attempts more than one for each kind", async || match attempts.load(Ordering::SeqCst) {
        made if made >= kinds + 4 => Ok(()),
        made => Err(Not::Yet(format!("{made}"))),
    })
    .await
    .with_context(|| process.log_tail())?;
    let asked = Command::new("kill").arg("-TERM").arg(process.pid().to_string()).status()?;
    ensure!(asked.success(), "kill ended with {asked}");
    let ended = until(PATIENCE, "it to end", async || process.ended().ok_or(Not::Yet("it runs".to_owned()))).await?;
    ensure!(ended.success(), "it ended with {ended}");
    counting.abort();
    let log = process.log()?;
    let lines: Vec<&str> = log.lines().collect();
    ensure!(lines.len() <= LINES, "{log}");
    let told: Vec<&&str> = lines.iter().filter(|line| line.contains("does not answer")).collect();
    let [told] = told[..] else { anyhow::bail!("not told once:\n{log}") };
    for words in
        [&format!("https://{address}"), "look at the server", &*file.to_string_lossy(), "nothing is served yet"]
    {
        ensure!(told.contains(words), "without {words:?}: {told}");
    }
    ensure!(!log.contains("CANARY"), "the log quotes a credential:\n{log}");
    Ok(())
}

/// A kubeconfig that cannot be used ends the program, with what to do.
#[test]
fn a_kubeconfig_that_cannot_be_used_is_named_with_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config");
    let shown = file.to_string_lossy().into_owned();
    let good = kubeconfig("https://127.0.0.1:9");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut text = good.clone();
        change(&mut text);
        Some(text.to_string())
    };
    for (case, text, context, words) in [
        ("missing", None, None, vec!["cannot be read: No such file", "--kubeconfig"]),
        ("torn", Some("clusters:\n- name: a\n  cluster: {CANARY\n".to_owned()), None, vec!["line 3", "no kubeconfig"]),
        ("other", Some("[CANARY]".to_owned()), None, vec!["no kubeconfig"]),
        ("empty", Some(String::new()), None, vec!["no `current-context`", "--context", "it has none"]),
        ("no such context", Some(good.to_string()), Some("there"), vec!["no context \"there\"", "it has `here`"]),
        ("no context", with(&|text| text["current-context"] = Value::Null), None, vec!["--context; it has `here`"]),
        (
            "no cluster",
            with(&|text| text["clusters"] = json!([])),
            None,
            vec!["names the cluster \"here\"", "`clusters`"],
        ),
        ("no address", with(&|text| text["clusters"][0]["cluster"] = json!({})), None, vec!["no `server`"]),
        (
            "no file of a key",
            with(&|text| {
                text["users"][0]["user"] = json!({"client-certificate": "/nowhere", "client-key": "/nowhere"});
            }),
            None,
            vec!["/nowhere"],
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text)?;
        }
        let context: Vec<&str> = context.iter().flat_map(|context| ["--context", *context]).collect();
        let output = serve(folder.path(), &file, &context).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{case}: {}: {said}", output.status);
        ensure!(said.lines().count() == 1, "{case}: {said}");
        for words in words.iter().chain(&[&*shown]) {
            ensure!(said.contains(words), "{case}, without {words:?}: {said}");
        }
        ensure!(!said.contains("CANARY"), "{case}: {said}");
    }
    Ok(())
}
