//! Composition root: joins source, compiler, publisher and xDS server; the closed event enum and its loop.
//!
//! ```text
//! directory ──► events ──► compile thread ──► publisher ──► streams
//!                 ▲              │
//!   a stream asks ┘              └──► state (for matching nodes, health, logs)
//! ```
//!
//! One thread compiles, one batch at a time; whatever arrives meanwhile joins the next. Nothing is published before the
//! first complete list (R10). A snapshot that `verify` objects to is not published: its gateway keeps what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::compile::{Compiled, compile};
use crate::emit::{EmitOptions, emit_gateway};
use crate::ir::GatewayPlan;
use crate::model::{EnvoyRelease, Finding, Findings, GatewayId, Kind, Labels, ObjectRef};
use crate::publish::{GatewayKey, Publisher};
use crate::resolve::Options;
use crate::resolve::gateway::class_of;
use crate::resolve::world::World;
use crate::settings::Settings;
use crate::snapshot::verify::verify;
use crate::source::{self, Batch, Directory, Extent, Places, SourceError};
use crate::store::{Applied, Store};
use crate::xds::inspection::Sessions;
use crate::xds::node::{Node, NodeError};
use crate::xds::server::{ServeError, ServerSettings};
use crate::xds::source::{SnapshotSource, Subscription};

/// Every reason to wake the compile thread.
enum Event {
    /// The source has something new.
    Source(Batch),
    /// A gateway with these Pod labels asks for the snapshots of a key.
    Gateway(GatewayKey, Labels),
}

/// Why `serve` ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The directory cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {reason}; choose another address with --{flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// The system's words.
        reason: std::io::Error,
    },
    /// The xDS server failed.
    #[error("xDS server")]
    Serve(#[from] ServeError),
    /// The admin server failed.
    #[error("admin server")]
    Admin(#[source] std::io::Error),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {file}")]
    Ready {
        /// The file.
        file: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The compile thread is gone: files have no effect any more, and a restart is better than silence.
    #[error("the compile thread ended; this is a fault of Chancery, and its log says more")]
    Compile,
    /// No thread for compiling.
    #[error("cannot start the compile thread")]
    Thread(#[source] std::io::Error),
}

/// What the compile thread last made; `None` before the first complete compile.
type State = watch::Receiver<Option<Arc<Compiled>>>;

/// Serves a directory until `shutdown` is ready.
///
/// # Errors
/// [`AppError`], each with one clear line; the program ends with exit code 1.
pub async fn serve(
    settings: Settings,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AppError> {
    let source_options =
        source::Options { management: options.management_cluster.clone(), ..source::Options::default() };
    let directory = settings.directory.clone();
    let opened = tokio::task::spawn_blocking(move || Directory::open(&directory, source_options)).await;
    let (mut directory, first) = match opened {
        Ok(opened) => opened?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    // After the directory: the wrong directory is the likelier mistake, and the one to be told first.
    let xds = listen(settings.xds_address, "xDS", "xds-address").await?;
    let admin = listen(settings.admin_address, "health", "admin-address").await?;

    let publisher = Arc::new(Publisher::new());
    let (events, inbox) = std_mpsc::channel();
    let (state_sender, mut state) = watch::channel(None);
    let compiler = CompileLoop::new(options, publisher.clone(), state_sender, directory.places().clone());
    std::thread::Builder::new()
        .name("compile".to_owned())
        .spawn(move || compiler.run(&inbox))
        .map_err(AppError::Thread)?;
    // The receiver lives as long as this function's senders, so sending cannot fail before the end.
    let _ = events.send(Event::Source(first));
    let batches = events.clone();
    let follow = async move {
        loop {
            let batch = directory.next().await;
            if batches.send(Event::Source(batch)).is_err() {
                return;
            }
        }
    };

    let (stop_sender, stop) = watch::channel(false);
    let addresses = (local_address(&xds)?, local_address(&admin)?);
    let gateways = Arc::new(Gateways { state: state.clone(), publisher, events });
    let xds = crate::xds::server::serve(
        xds,
        gateways,
        Arc::new(()),
        Sessions::default(),
        ServerSettings::default(),
        stopped(stop.clone()),
    );
    let admin = crate::admin::serve(admin, state.clone(), stopped(stop));
    let ready = async {
        // Ends with an error only when the compile thread is gone, which ends the program anyway.
        let _ = state.wait_for(Option::is_some).await;
        tracing::info!(xds = %addresses.0, admin = %addresses.1, "serving");
        match &settings.ready_file {
            Some(file) => write_ready_file(file, addresses),
            None => Ok(()),
        }
    };
    let stopper = async move {
        shutdown.await;
        stop_sender.send_replace(true);
    };
    let servers = async {
        tokio::try_join!(async { xds.await.map_err(AppError::from) }, async { admin.await.map_err(AppError::Admin) })
    };
    let work = async { tokio::join!(servers, ready, stopper) };
    tokio::select! {
        (served, ready, ()) = work => served.map(|_| ()).and(ready),
        // The only way for it to end: nobody takes batches any more.
        () = follow => Err(AppError::Compile),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn listen(address: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|reason| AppError::Listen { address, what, flag, reason })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener.local_addr().map_err(AppError::Admin)
}

/// Writes the addresses in use, at once or not at all.
fn write_ready_file(file: &Path, (xds, admin): (SocketAddr, SocketAddr)) -> Result<(), AppError> {
    let text = serde_json::json!({"xds": xds.to_string(), "admin": admin.to_string(), "pid": std::process::id()});
    let temporary = file.with_extension("tmp");
    std::fs::write(&temporary, text.to_string())
        .and_then(|()| std::fs::rename(&temporary, file))
        .map_err(|source| AppError::Ready { file: file.display().to_string(), source })
}

/// Matches nodes to gateways and hands out their snapshots.
struct Gateways {
    state: State,
    publisher: Arc<Publisher>,
    events: std_mpsc::Sender<Event>,
}

impl SnapshotSource for Gateways {
    async fn subscribe(&self, node: &Node) -> Result<Subscription, NodeError> {
        let mut state = self.state.clone();
        let gone = |_| NodeError::Unavailable("the control plane is stopping: connect again".to_owned());
        let compiled = state.wait_for(Option::is_some).await.map_err(gone)?.clone();
        let Some(compiled) = compiled else {
            return Err(NodeError::Unavailable("nothing is compiled yet: connect again".to_owned()));
        };
        let (gateway, labels) = match_node(&compiled, node)?;
        let envoy = EnvoyRelease::serving(node.version.map(|version| (version.major, version.minor)));
        let key = GatewayKey { gateway: gateway.clone(), bind: node.bind.clone(), envoy };
        let snapshots = self.publisher.subscribe(&key);
        if self.events.send(Event::Gateway(key, labels)).is_err() {
            return Err(NodeError::Unavailable("the control plane is stopping: connect again".to_owned()));
        }
        Ok(Subscription { gateway: gateway.to_string().into(), snapshots })
    }
}

/// The class of a node, and the Pod labels by which it was found.
///
/// # Errors
/// What the node leaves out, or that no Service selects it.
///
/// # Rule
/// R15.
fn match_node(compiled: &Compiled, node: &Node) -> Result<(GatewayId, Labels), NodeError> {
    let (Some(cluster), Some(namespace)) = (&node.cluster, &node.namespace) else {
        return Err(NodeError::Invalid(
            "the node's metadata must state `cluster` and `namespace`; `chancery bootstrap` writes a bootstrap that does".to_owned(),
        ));
    };
    let pod =
        node.pod.as_ref().and_then(|pod| compiled.inputs.pod(&ObjectRef::new(Kind::Pod, cluster, namespace, pod)));
    let labels = pod.map_or_else(|| node.labels.clone(), |pod| pod.labels.clone());
    let class = class_of(&compiled.inputs, cluster, namespace, &labels);
    class.map(|class| (class, labels.clone())).ok_or_else(|| {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        NodeError::Unknown(format!(
            "no Service of namespace {namespace:?} in cluster {cluster:?} selects a Pod with labels {labels:?}: a gateway needs one"
        ))
    })
}

/// The single writer: holds the inputs, compiles, publishes.
struct CompileLoop {
    options: Options,
    publisher: Arc<Publisher>,
    state: watch::Sender<Option<Arc<Compiled>>>,
    places: Places,
    store: Store,
    /// Whether a complete list has arrived.
    is_listed: bool,
    source_findings: Findings,
    /// Keys that some stream asked for, with the Pod labels that led there.
    keys: BTreeMap<GatewayKey, BTreeSet<Labels>>,
    /// The plan behind each key's snapshot.
    emitted: BTreeMap<GatewayKey, Arc<GatewayPlan>>,
    told: BTreeSet<Finding>,
}

impl CompileLoop {
    fn new(
        options: Options,
        publisher: Arc<Publisher>,
        state: watch::Sender<Option<Arc<Compiled>>>,
        places: Places,
    ) -> Self {
        Self {
            options,
            publisher,
            state,
            places,
            store: Store::default(),
            is_listed: false,
            source_findings: Findings::new(),
            keys: BTreeMap::new(),
            emitted: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Works until every sender is gone.
    fn run(mut self, inbox: &std_mpsc::Receiver<Event>) {
        while let Ok(first) = inbox.recv() {
            // What arrived while the last step ran joins this one.
            self.step(std::iter::once(first).chain(inbox.try_iter()));
        }
    }

    /// Takes events in, compiles if need be, publishes.
    fn step(&mut self, events: impl Iterator<Item = Event>) {
        let begun = Instant::now();
        let mut needs_compile = false;
        for event in events {
            needs_compile |= self.take(event);
        }
        // R10: gateways keep what they have until there is a complete list.
        if !self.is_listed {
            return;
        }
        if needs_compile || self.state.borrow().is_none() {
            self.compile(begun);
        }
        self.publish();
    }

    /// Takes an event in; whether it makes a compile necessary.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Source(batch) => {
                let findings_changed = self.source_findings != batch.findings;
                self.source_findings = batch.findings;
                if batch.extent == Extent::Complete {
                    self.store = Store::default();
                    self.is_listed = true;
                }
                self.store.apply(batch.changes) == Applied::Changed || findings_changed
            }
            Event::Gateway(key, labels) => {
                let known = self.state.borrow().as_ref().is_some_and(|c| c.plans.contains_key(&key.gateway));
                self.keys.entry(key).or_default().insert(labels);
                !known
            }
        }
    }

    fn compile(&mut self, begun: Instant) {
        let wanted = self.keys.keys().map(|key| key.gateway.clone()).collect();
        let compiled = compile(&self.store, &self.source_findings, &self.options, &wanted);
        tracing::info!(
            objects = self.store.len(),
            findings = compiled.findings.len(),
            gateways = compiled.plans.len(),
            micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            "compiled"
        );
        self.tell(&compiled.findings);
        self.state.send_replace(Some(Arc::new(compiled)));
    }

    /// Logs findings that were not there before.
    fn tell(&mut self, findings: &[Finding]) {
        let now: BTreeSet<Finding> =
            findings.iter().filter(|f| f.severity > crate::model::Severity::Info).cloned().collect();
        let mut new: Findings = now.difference(&self.told).cloned().collect();
        self.places.locate(&mut new);
        for finding in new {
            let object = finding.subject.as_ref().map(ToString::to_string).unwrap_or_default();
            let place = finding.location.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(code = %finding.code, object, field = %finding.field, place, "{}", finding.message);
        }
        self.told = now;
    }

    /// Brings every key that is asked for up to date, and closes those whose Services select other Pods now.
    fn publish(&mut self) {
        let Some(compiled) = self.state.borrow().clone() else { return };
        let watched: BTreeSet<GatewayKey> = self.publisher.keys().into_iter().collect();
        self.keys.retain(|key, _| watched.contains(key));
        self.emitted.retain(|key, _| watched.contains(key));
        let mut left: Vec<GatewayKey> = Vec::new();
        for (key, labels) in &self.keys {
            let still = |labels: &Labels| {
                class_of(&compiled.inputs, &key.gateway.cluster, &key.gateway.namespace, labels).as_ref()
                    == Some(&key.gateway)
            };
            if !labels.iter().all(still) {
                tracing::info!(gateway = %key, "its Services changed; its Envoys are matched anew");
                self.publisher.remove(key);
                self.emitted.remove(key);
                left.push(key.clone());
                continue;
            }
            let Some(plan) = compiled.plans.get(&key.gateway) else { continue };
            if self.emitted.get(key).is_some_and(|emitted| emitted == plan) {
                continue;
            }
            let Ok(bind) = key.bind.parse() else { continue };
            let snapshot = emit_gateway(plan, &EmitOptions { bind });
            let violations = verify(&snapshot);
            if violations.is_empty() {
                if self.publisher.publish(key, Arc::new(snapshot)) {
                    tracing::info!(gateway = %key, "published");
                }
                self.emitted.insert(key.clone(), plan.clone());
            } else {
                for violation in violations {
                    tracing::error!(gateway = %key, "not published, this is a fault of Chancery: {violation}");
                }
            }
        }
        // Labels of Envoys that are gone must not close the key again when others come back to it.
        for key in left {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
