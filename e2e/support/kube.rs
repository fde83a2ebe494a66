//! A real Kubernetes API: etcd and kube-apiserver as processes, and kubectl against them.
//!
//! There are no controllers and no nodes: what those would write (status of Services and Pods, EndpointSlices, the default
//! ServiceAccount), a test writes itself. `make kube-tools` builds the binaries from `e2e/kube`; `KUBEBUILDER_ASSETS`
//! names a folder with others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore};

use super::http::{Client, Protocol, Request};
use super::issuer::base64;
use super::manifests;
use super::net::Network;
use super::process::Process;
use super::project;
use super::tls::Authority;
use super::wait::{Not, until};

/// How long an API server may take to start. On an idle machine it takes some three seconds.
const START: Duration = Duration::from_secs(120);

/// A store in which all kinds are defined, for servers to begin with: to define them costs more than to start.
static DEFINED: OnceCell<Vec<Kept>> = OnceCell::const_new();

/// Where a server writes what was asked of it.
const AUDIT: &str = "audit.log";

/// Finds one of the binaries: in `KUBEBUILDER_ASSETS` if that is set, else where `make kube-tools` puts them.
///
/// # Errors
/// Where it is not there; says how to get it.
pub(crate) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").filter(|given| !given.is_empty());
    let built = given.is_none();
    let folder = given.map_or_else(|| project().join(".kube/bin"), PathBuf::from);
    let binary = folder.join(name);
    let remedy =
        if built { "run `make kube-tools`" } else { "KUBEBUILDER_ASSETS names that folder, which must have it" };
    ensure!(binary.is_file(), "no {name} at {}: {remedy}", binary.display());
    Ok(binary)
}

/// kubectl for one API server, as a user who may do everything.
#[derive(Debug)]
pub(crate) struct Kubectl {
    /// Has the kubeconfig, and what kubectl remembers of the server.
    folder: TempDir,
}

/// A running API server with a store of its own; both are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Kube {
    name: String,
    server: Option<Process>,
    etcd: Process,
    address: SocketAddr,
    store: SocketAddr,
    /// Where the store would listen for others of its kind.
    peer: SocketAddr,
    authority: Keys,
    _network: Network,
    /// Last, so that its folder goes when nobody writes there any more.
    kubectl: Kubectl,
    _room: Arc<OwnedSemaphorePermit>,
}

/// How many tests have API servers at a time. Each of these and its store keep a core busy; with more of them on two cores,
/// requests go without an answer for longer than anybody waits.
const WORLDS: usize = 2;

/// The room of the test that asks, for all its API servers, once there is some.
async fn room() -> anyhow::Result<Arc<OwnedSemaphorePermit>> {
    type OfTest = Arc<Mutex<Weak<OwnedSemaphorePermit>>>;
    static FREE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(WORLDS)));
    static TESTS: LazyLock<StdMutex<BTreeMap<String, OfTest>>> = LazyLock::new(StdMutex::default);
    // The harness names the threads on which tests run.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let of_test = TESTS.lock().unwrap_or_else(PoisonError::into_inner).entry(test).or_default().clone();
    let mut held = of_test.lock().await;
    if let Some(room) = held.upgrade() {
        return Ok(room);
    }
    let room = Arc::new(FREE.clone().acquire_owned().await?);
    *held = Arc::downgrade(&room);
    Ok(room)
}

impl std::ops::Deref for Kube {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

/// A file of a store that does not run.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Without the zeros at its end, which are most of it.
    content: Vec<u8>,
    length: u64,
}

/// The authority behind an API server and its users.
struct Keys(Authority);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Kubectl {
    /// For somebody's API server: the current context of a kubeconfig.
    pub(crate) fn given(kubeconfig: &Path) -> anyhow::Result<Self> {
        let flat = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"];
        let kubeconfig = std::path::absolute(kubeconfig)?;
        let text = kubectl_with(&kubeconfig, &flat, None)?;
        let kubectl = Self { folder: tempfile::tempdir().context("make a folder for a kubeconfig")? };
        std::fs::write(kubectl.kubeconfig(), text).context("write the kubeconfig")?;
        Ok(kubectl)
    }

    /// The kubeconfig of a user who may do everything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// The kubeconfig of a ServiceAccount, with a token that the server made for it.
    pub(crate) fn kubeconfig_of_account(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=8h"])?;
        let own = self.kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])?;
        let mut kubeconfig: Value = serde_json::from_str(&own).context("the kubeconfig")?;
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        Ok(kubeconfig)
    }

    /// The same as a file.
    pub(crate) fn account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let file = self.file(&format!("{namespace}-{name}.kubeconfig"));
        let text = self.kubeconfig_of_account(namespace, name)?.to_string();
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    /// Runs kubectl as the user who may do everything, and returns what it printed.
    ///
    /// # Errors
    /// What it said, where it failed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        kubectl_with(&self.kubeconfig(), arguments, None)
    }

    /// The same, and reads what it printed as JSON; `-o json` is added.
    pub(crate) fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let arguments: Vec<&str> = ["get"].iter().chain(arguments).chain(&["-o", "json"]).copied().collect();
        let text = self.kubectl(&arguments)?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {}: {text}", arguments.join(" ")))
    }

    /// Applies objects, in their order, as `kubectl apply` does: with strict validation.
    pub(crate) fn apply(&self, objects: &[Value]) -> anyhow::Result<String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        kubectl_with(&self.kubeconfig(), &["apply", "-f", "-"], Some(&list.to_string()))
    }

    /// Applies a file, or all files of a folder and its folders.
    pub(crate) fn apply_path(&self, path: &Path) -> anyhow::Result<String> {
        self.kubectl(&["apply", "--recursive", "-f", &path.to_string_lossy()])
    }

    /// Writes the status of objects, which is apart from the objects themselves, as what observes them does.
    pub(crate) fn apply_status(&self, objects: &[Value]) -> anyhow::Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let arguments = [
            "apply",
            "--server-side",
            "--subresource=status",
            "--field-manager=observer",
            "--force-conflicts",
            "-f",
            "-",
        ];
        kubectl_with(&self.kubeconfig(), &arguments, Some(&list)).map(drop)
    }

    /// Creates those CustomResourceDefinitions of this checkout that are not there, and returns them. Those that are there
    /// may be another installation's.
    pub(crate) async fn install_missing_crds(&self) -> anyhow::Result<Vec<Value>> {
        let known = self.get(&["customresourcedefinitions"])?;
        let known: BTreeSet<&str> =
            manifests::list(&known, "/items").iter().map(|one| manifests::text(one, "/metadata/name")).collect();
        let mut missing = Vec::new();
        for file in manifests::files(&project().join("config/crds"))? {
            missing.extend(super::yaml::documents(&std::fs::read_to_string(file)?)?);
        }
        missing.retain(|one| !known.contains(manifests::text(one, "/metadata/name")));
        if !missing.is_empty() {
            self.apply(&missing)?;
        }
        self.crds_are_served().await?;
        Ok(missing)
    }

    /// Applies the CustomResourceDefinitions of this checkout and waits until they are served.
    pub(crate) async fn install_crds(&self) -> anyhow::Result<()> {
        self.apply_path(&project().join("config/crds"))?;
        self.crds_are_served().await
    }

    async fn crds_are_served(&self) -> anyhow::Result<()> {
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        self.kinds_are_served().await
    }

    async fn kinds_are_served(&self) -> anyhow::Result<()> {
        let wanted = manifests::files(&project().join("config/crds"))?.len();
        let names = ["api-resources", "--cached=false", "--categories=chancery", "--no-headers", "-o", "name"];
        until(START, "all kinds to be served", async || match self.kubectl(&names) {
            Ok(names) if names.lines().count() >= wanted => Ok(()),
            Ok(names) => Err(Not::Yet(names)),
            Err(error) => Err(Not::Yet(format!("{error:#}"))),
        })
        .await?;
        // What kubectl remembers is older than the definitions.
        let remembered = self.folder.path().join(".kube");
        if remembered.exists() { std::fs::remove_dir_all(remembered).context("make kubectl forget") } else { Ok(()) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Kube {
    /// Starts a store and a server, and waits until the server calls itself ready.
    pub(crate) async fn start(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, &[]).await
    }

    /// The same with the CustomResourceDefinitions of this checkout, as after [`Kubectl::install_crds`].
    ///
    /// All of these are one cluster to whoever asks for its identity, which is in the store: a mesh has at most one of them.
    pub(crate) async fn start_defined(name: &str) -> anyhow::Result<Self> {
        // Before the store is waited for, so that whoever makes it has room.
        let _room = room().await?;
        let store = DEFINED.get_or_try_init(async || {
            let mut kube = Self::start("definitions").await?;
            kube.install_crds().await?;
            kube.kill_with_store();
            let (folder, mut store) = (kube.file("etcd"), Vec::new());
            keep(&folder, &folder, &mut store)?;
            anyhow::Ok(store)
        });
        let kube = Self::start_with(name, store.await?).await?;
        kube.kinds_are_served().await?;
        Ok(kube)
    }

    async fn start_with(name: &str, store: &[Kept]) -> anyhow::Result<Self> {
        let room = room().await?;
        let network = Network::claim()?;
        let host = network.next_address()?;
        let folder = tempfile::tempdir().context("make a folder for an API server")?;
        unpack(store, &folder.path().join("etcd"))?;
        let store = SocketAddr::from((host, network.free_port()?));
        let peer = SocketAddr::from((network.next_address()?, store.port()));
        let etcd = start_etcd(name, folder.path(), store, peer)?;
        let address = SocketAddr::from((host, network.free_port()?));
        let authority = Keys(Authority::new(&format!("authority of {name}"))?);
        let kubectl = Kubectl { folder };
        let mut kube = Self {
            name: name.to_owned(),
            server: None,
            etcd,
            address,
            store,
            peer,
            authority,
            _network: network,
            kubectl,
            _room: room,
        };
        kube.write_keys(host)?;
        kube.write_kubeconfig("admin", "system:masters")?;
        kube.resume().await?;
        Ok(kube)
    }

    /// Where the server listens, with TLS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig of a user, who may do what roles allow: a certificate for the name, and a group.
    pub(crate) fn user(&self, name: &str, group: &str) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig(name, group)
    }

    /// A kubeconfig that leads to this server by way of another address, for instance that of a proxy.
    pub(crate) fn kubeconfig_by(&self, address: SocketAddr, name: &str, group: &str) -> anyhow::Result<Value> {
        let pair = self.authority.0.sign_user(name, group)?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": self.name,
            "clusters": [{"name": self.name, "cluster": {
                "server": format!("https://{address}"),
                "tls-server-name": self.address.ip().to_string(),
                "certificate-authority-data": base64(self.authority.0.pem()),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": base64(pair.certificate),
                "client-key-data": base64(pair.key),
            }}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": name}}],
        }))
    }

    /// What ServiceAccounts of the admin namespace asked of the server so far: verb, resource with its group, and whether it was
    /// allowed.
    pub(crate) fn asked(&self) -> anyhow::Result<BTreeSet<(String, String, bool)>> {
        let text = std::fs::read_to_string(self.file(AUDIT)).context("read the audit log")?;
        let mut asked = BTreeSet::new();
        // The last line may be half written.
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let part = |pointer: &str| manifests::text(&event, pointer).to_owned();
            let resource = [part("/objectRef/resource"), part("/objectRef/subresource")];
            if resource[0].is_empty() {
                continue;
            }
            let resource = resource.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
            let group = part("/objectRef/apiGroup");
            let is_allowed = part("/annotations/authorization.k8s.io~1decision") == "allow";
            asked.insert((part("/verb"), format!("{group}:{resource}"), is_allowed));
        }
        Ok(asked)
    }

    /// Ends the server at once, and leaves its store as it is.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Ends the server and its store at once, the store first.
    pub(crate) fn kill_with_store(&mut self) {
        self.etcd.kill();
        self.kill();
    }

    /// Keeps a copy of the store as it is now. Ends both for it, and starts them again.
    pub(crate) async fn save(&mut self) -> anyhow::Result<()> {
        self.kill_with_store();
        copy(&self.file("etcd"), &self.file("saved"))?;
        self.resume().await
    }

    /// Puts the copy in place of the store, as after a disaster: what was written since is gone, and versions begin again where
    /// they were.
    pub(crate) async fn restore(&mut self) -> anyhow::Result<()> {
        self.kill_with_store();
        std::fs::remove_dir_all(self.file("etcd")).context("remove the store")?;
        copy(&self.file("saved"), &self.file("etcd"))?;
        self.resume().await
    }

    /// Starts the server, where it was, and waits until it calls itself ready.
    pub(crate) async fn resume(&mut self) -> anyhow::Result<()> {
        if self.etcd.ended().is_some() {
            self.etcd = start_etcd(&self.name, self.kubectl.folder.path(), self.store, self.peer)?;
        }
        let mut server = self.start_server()?;
        let what = format!("API server {} to be ready", self.name);
        let (host, user) = (self.address.ip().to_string(), self.authority.0.sign_user("admin", "system:masters")?);
        let dial = self.authority.0.dial(&host, Some(&user), Protocol::Http1)?;
        let mut client = Client::with_tls(self.address, Protocol::Http1, dial);
        let ready = until(START, &what, async || {
            for process in [&mut server, &mut self.etcd] {
                if let Some(status) = process.ended() {
                    return Err(Not::Ever(format!("a part of it ended with {status}")));
                }
            }
            let answer = client.send(&Request::get(&host, "/readyz")).await.map_err(|error| format!("{error:#}"))?;
            if answer.status == 200 { Ok(()) } else { Err(Not::Yet(answer.text())) }
        });
        ready.await.map_err(|error| error.context(server.log_tail()).context(self.etcd.log_tail()))?;
        self.server = Some(server);
        Ok(())
    }

    /// The end of the logs, for error messages.
    pub(crate) fn log_tail(&self) -> String {
        let server = self.server.as_ref().map(Process::log_tail).unwrap_or_default();
        format!("{server}\n{}", self.etcd.log_tail())
    }

    fn write_keys(&self, host: Ipv4Addr) -> anyhow::Result<()> {
        let serving = self.authority.0.sign(&host.to_string(), "kube-apiserver")?;
        let accounts = KeyPair::generate()?;
        let files = [
            ("ca.crt", self.authority.0.pem()),
            ("server.crt", serving.certificate),
            ("server.key", serving.key),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
        ];
        for (name, text) in files {
            std::fs::write(self.file(name), text).with_context(|| format!("write {name}"))?;
        }
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:gloo-mesh"]}, {"level": "None"}],
        });
        std::fs::write(self.file("audit-policy.json"), policy.to_string()).context("write the audit policy")
    }

    fn write_kubeconfig(&self, name: &str, group: &str) -> anyhow::Result<PathBuf> {
        let file = self.file(&format!("{}.kubeconfig", name.replace([':', '/'], "-")));
        let text = self.kubeconfig_by(self.address, name, group)?.to_string();
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }

    fn start_server(&self) -> anyhow::Result<Process> {
        let path = |name: &str| self.file(name).to_string_lossy().into_owned();
        let flags = [
            ("etcd-servers", format!("http://{}", self.store)),
            ("bind-address", self.address.ip().to_string()),
            ("advertise-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            // The address in the Service `kubernetes` may not be loopback, and nobody asks for it.
            ("endpoint-reconciler-type", "none".to_owned()),
            ("cert-dir", path("certificates")),
            ("tls-cert-file", path("server.crt")),
            ("tls-private-key-file", path("server.key")),
            ("client-ca-file", path("ca.crt")),
            ("authorization-mode", "RBAC".to_owned()),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", path("accounts.pub")),
            ("service-account-signing-key-file", path("accounts.key")),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            // Its controller does not run, so Pods would wait for a ServiceAccount for ever.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("audit-policy-file", path("audit-policy.json")),
            ("audit-log-path", path(AUDIT)),
        ];
        let mut command = Command::new(find("kube-apiserver")?);
        command.args(flags.map(|(name, value)| format!("--{name}={value}"))).current_dir(self.kubectl.folder.path());
        Process::start(&format!("API server {}", self.name), &mut command, self.file("server.log"))
    }
}

/// Reads what a folder has, and its folders, as it stands under `root`.
fn keep(root: &Path, folder: &Path, kept: &mut Vec<Kept>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            keep(root, &path, kept)?;
            continue;
        }
        let mut content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let length = content.len().try_into()?;
        content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        content.shrink_to_fit();
        kept.push(Kept { path: path.strip_prefix(root)?.to_owned(), content, length });
    }
    Ok(())
}

/// Writes it into another folder.
fn unpack(kept: &[Kept], folder: &Path) -> anyhow::Result<()> {
    for Kept { path, content, length } in kept {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        let mut file = std::fs::File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
        file.write_all(content)?;
        file.set_len(*length)?;
    }
    Ok(())
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status().context("run cp")?;
    ensure!(copied.success(), "{} could not be copied", from.display());
    Ok(())
}

fn start_etcd(name: &str, folder: &Path, clients: SocketAddr, peers: SocketAddr) -> anyhow::Result<Process> {
    let (clients, peers) = (format!("http://{clients}"), format!("http://{peers}"));
    let mut command = Command::new(find("etcd")?);
    command.current_dir(folder).args(["--data-dir", "etcd", "--name", "store", "--log-level", "error"]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("store={peers}")]);
    // What a test stores need not outlive the machine.
    command.arg("--unsafe-no-fsync");
    Process::start(&format!("etcd of {name}"), &mut command, folder.join("etcd.log"))
}

/// Runs kubectl with a kubeconfig, which may feed it, and returns what it printed.
///
/// # Errors
/// What it said, where it failed.
pub(crate) fn kubectl_with(kubeconfig: &Path, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let output = run(kubeconfig, arguments, input)?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("kubectl {} ended with {}: {wrong}{said}", arguments.join(" "), output.status);
    }
    Ok(said.into_owned())
}

/// The same, whatever came of it.
pub(crate) fn run(kubeconfig: &Path, arguments: &[&str], input: Option<&str>) -> anyhow::Result<Output> {
    // What it remembers of a server stands beside the kubeconfig, and goes with it.
    let folder = kubeconfig.parent().context("the kubeconfig is in no folder")?;
    let mut command = Command::new(find("kubectl")?);
    command.env("HOME", folder).env("KUBECONFIG", kubeconfig).args(arguments);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
    // It reads to the end before it prints more than a pipe holds; where it ends without reading, its own words say why.
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().context("run kubectl")
}
