//! Faults of an API server, by a proxy in front of a real one: whatever it does, what was read last stays in force.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::*;
use crate::support::kube::find;
use crate::support::process::Process;

/// What becomes of a request in place of its answer.
pub(super) enum Fault {
    /// It is answered so.
    Answer(String),
    /// It is never answered, as long as its connection lasts.
    Hold,
}

/// Decides by the method, path and query of a request, with a space between.
type Rule = dyn Fn(&str) -> Option<Fault> + Send + Sync;

/// Stands between Chancery and an API server. It speaks plaintext, as `kubectl proxy` behind it does.
pub(super) struct Faulty {
    address: SocketAddr,
    rule: Arc<Mutex<Arc<Rule>>>,
    /// How many requests were answered by the rule.
    answered: Arc<AtomicUsize>,
    accepting: AbortHandle,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    _folder: tempfile::TempDir,
    _proxy: Process,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Faulty {
    pub(super) async fn before(kube: &Kube) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("socket");
        let mut command = std::process::Command::new(find("kubectl")?);
        command.env("KUBECONFIG", kube.kubeconfig()).arg("proxy").arg("--unix-socket").arg(&socket);
        let proxy = Process::start("kubectl proxy", &mut command, folder.path().join("log"))?;
        until(PATIENCE, "kubectl proxy to listen", async || {
            if socket.exists() { Ok(()) } else { Err(Not::Yet("no socket".to_owned())) }
        })
        .await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let nothing: Arc<Rule> = Arc::new(|_| None);
        let rule = Arc::new(Mutex::new(nothing));
        let answered = Arc::new(AtomicUsize::new(0));
        let open: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let (rules, count, passing) = (rule.clone(), answered.clone(), open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (rules, count, socket) = (rules.clone(), count.clone(), socket.clone());
                let task = tokio::spawn(async move {
                    // A connection that ends early is one of the faults.
                    let _ = pass(stream, &rules, &count, &socket).await;
                });
                let mut passing = passing.lock().unwrap_or_else(PoisonError::into_inner);
                passing.retain(|task| !task.is_finished());
                passing.push(task.abort_handle());
            }
        });
        let accepting = accepting.abort_handle();
        Ok(Self { address, rule, answered, accepting, open, _folder: folder, _proxy: proxy })
    }

    pub(super) fn set(&self, rule: impl Fn(&str) -> Option<Fault> + Send + Sync + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rule);
    }

    /// Ends every connection.
    pub(super) fn cut(&self) {
        for task in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    pub(super) fn kubeconfig(&self, folder: &Path) -> anyhow::Result<std::path::PathBuf> {
        let file = folder.join("faulty.kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "faulty",
            "clusters": [{"name": "faulty", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "faulty", "user": {}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "faulty"}}],
        });
        std::fs::write(&file, text.to_string())?;
        Ok(file)
    }
}

/// One request of a connection: answered by the rule, or passed on; then the connection ends.
async fn pass(
    mut stream: TcpStream,
    rules: &Mutex<Arc<Rule>>,
    answered: &AtomicUsize,
    socket: &Path,
) -> anyhow::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut more = [0; 4096];
        let read = stream.read(&mut more).await?;
        ensure!(read > 0, "no request");
        head.extend_from_slice(&more[..read]);
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let asked = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let rule = rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(fault) = rule(&asked) {
        answered.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Answer(answer) => stream.write_all(answer.as_bytes()).await?,
            Fault::Hold => std::future::pending().await,
        }
        return Ok(());
    }
    let mut server = tokio::net::UnixStream::connect(socket).await?;
    let kept: Vec<&str> =
        text.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    server.write_all(format!("{}\r\nConnection: close", kept.join("\r\n")).as_bytes()).await?;
    server.write_all(&head[end..]).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

pub(super) fn answer(status: &str, body: &str) -> Option<Fault> {
    let length = body.len();
    Some(Fault::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )))
}

pub(super) fn failure(code: u16, reason: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": reason, "reason": reason,
        "code": code,
    })
    .to_string()
}

/// A world behind a faulty API server.
struct World {
    kube: Kube,
    faulty: Faulty,
    chancery: Chancery,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(name: &str) -> anyhow::Result<Self> {
        let kube = Kube::start(name).await?;
        install_loose(&kube)?;
        kube.apply(&objects("mgmt"))?;
        let faulty = Faulty::before(&kube).await?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = faulty.kubeconfig(folder.path())?;
        let chancery = Chancery::serve_kubernetes(&kubeconfig, &Settings::default()).await?;
        Ok(Self { kube, faulty, chancery, _folder: folder })
    }

    /// Waits until the rule has answered some more requests.
    async fn until_answered(&self, more: usize) -> anyhow::Result<()> {
        let before = self.faulty.answered();
        until(PATIENCE, "requests that the fault meets", async || match self.faulty.answered() {
            now if now >= before + more => Ok(()),
            now => Err(Not::Yet(format!("{} of {more}", now - before))),
        })
        .await
        .with_context(|| self.chancery.log_tail())
    }
}

/// Watches end with 410 Gone, lists after them fail on their second page: nothing is forgotten, and once lists are whole again
/// an edit that was made meanwhile arrives.
#[tokio::test]
async fn a_list_that_fails_half_way_and_410_gone_empty_nothing() -> anyhow::Result<()> {
    let world = World::start("gone").await?;
    let before = served(&world.chancery, "mgmt").await?;
    let gone = json!({"type": "ERROR", "object": serde_json::from_str::<Value>(&failure(410, "Expired"))?}).to_string();
    // A first page, of nothing, that promises a second one, which fails.
    let page = |path: &str| {
        let kind = if path.contains("routetables") {
            ("networking.gloo.solo.io/v2", "RouteTableList")
        } else {
            ("v1", "ServiceList")
        };
        json!({
            "apiVersion": kind.0, "kind": kind.1, "metadata": {"resourceVersion": "1", "continue": "more"}, "items": [],
        })
        .to_string()
    };
    world.faulty.set(move |path| {
        let is_met = path.contains("/routetables") || path.contains("/v1/services?");
        match () {
            () if !is_met => None,
            () if path.contains("watch=true") => answer("200 OK", &gone),
            () if path.contains("continue=") => answer("500 Internal Server Error", &failure(500, "InternalError")),
            () => answer("200 OK", &page(path)),
        }
    });
    world.faulty.cut();
    world.until_answered(12).await?;
    ensure!(served(&world.chancery, "mgmt").await? == before, "something is served otherwise");
    world.kube.apply(&[table("/cart")])?;
    world.faulty.set(|_| None);
    let after = until_served(&world.chancery, "mgmt", "the edit that was made meanwhile", |now| *now != before).await?;
    ensure!(after.keys().eq(before.keys()), "{after:?}\nand before:\n{before:?}");
    Ok(())
}

/// A server that refuses everything, and then is itself again.
#[tokio::test]
async fn r11_a_server_that_answers_with_errors_changes_nothing_and_is_found_again() -> anyhow::Result<()> {
    let mut world = World::start("errors").await?;
    let before = served(&world.chancery, "mgmt").await?;
    world.faulty.set(|_| answer("503 Service Unavailable", &failure(503, "ServiceUnavailable")));
    world.kube.kill();
    world.until_answered(60).await?;
    ensure!(served(&world.chancery, "mgmt").await? == before, "something is served otherwise");
    world.kube.resume().await?;
    world.kube.apply(&[slice("10.1.0.77")])?;
    world.faulty.set(|_| None);
    until_served(&world.chancery, "mgmt", "the edit that was made meanwhile", |served| *served != before).await?;
    Ok(())
}

/// Every watch ends, and many do not get through when they are opened again, once. A watch that is opened says nothing as long
/// as nothing changes, and the one that tries for all must keep nobody waiting for that.
#[tokio::test]
async fn r11_a_short_outage_holds_nobody_up() -> anyhow::Result<()> {
    let world = World::start("short").await?;
    let mut last = served(&world.chancery, "mgmt").await?;
    for (prefix, address) in [("/one", "10.1.0.81"), ("/two", "10.1.0.82"), ("/three", "10.1.0.83")] {
        let failed = AtomicUsize::new(0);
        // The connection ends without an answer.
        world.faulty.set(move |_| (failed.fetch_add(1, Ordering::SeqCst) < 30).then(|| Fault::Answer(String::new())));
        world.faulty.cut();
        world.kube.apply(&[table(prefix), slice(address)])?;
        let is_new = |now: &Served, what: &str| {
            now.iter().any(|(name, version)| name.0.ends_with(what) && last[name] != *version)
        };
        let both = |now: &Served| is_new(now, "RouteConfiguration") && is_new(now, "ClusterLoadAssignment");
        last = until_served(&world.chancery, "mgmt", "the two edits", both).await?;
    }
    Ok(())
}
