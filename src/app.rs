//! Composition root: joins source, compiler, publisher and xDS server; the closed event enum and its loop.
//!
//! ```text
//! source ────► lane ──► events ──► compile thread ──► lane ──► publisher ──► streams ──► ledger, refusals
//!                          ▲              │                                      │
//!            a stream asks ┤              └──► state (nodes, health)             │
//!                          └──────────── a gateway refused something new, or left ┘
//! ```
//!
//! One thread compiles, one batch at a time; whatever arrives meanwhile joins the next. Endpoints don't wait for it: the
//! lane serves them. Nothing is published before the first complete list (R10). A snapshot that `verify` objects to is not
//! published: its gateway keeps what it has. So does every gateway when compiling panics: the next batch compiles from
//! scratch.
//!
//! Certificates of gateways that are due for renewal wake the thread too; they change secrets and compile nothing
//! ([`trust`](crate::trust)).
//!
//! What gateways refuse is replaced by what they accepted last, and told to the authors with the next compile
//! ([`Refusals`]); what they acknowledge never causes a compile.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::Sources;
use crate::api::metering::Metered;
use crate::compile::{Compiled, Compiler, Reported};
use crate::emit::EmitOptions;
use crate::ir::GatewayPlan;
use crate::ir::frozen::Remembered;
use crate::memory::Memory;
use crate::memory::refusals::document::Document;
use crate::memory::refusals::{Overlay, Refusals};
use crate::model::{Code, Finding, Findings, GatewayId, Name, ObjectRef, Severity};
use crate::publish::{GatewayKey, NotInForce, Publisher};
use crate::resolve::Options;
use crate::resolve::world::World;
use crate::settings::Settings;
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::source::kubernetes::{AccessError, Kubernetes, RootSecrets, SecretQuery};
use crate::source::{Batch, Extent, Places, SourceError};
use crate::status::Ledger;
use crate::status::clock::Clock;
use crate::status::voices::Pod;
use crate::store::{Applied, Store};
use crate::telemetry::Logging;
use crate::telemetry::metrics::Metrics;
use crate::xds::credentials::{CredentialError, Credentials};
use crate::xds::inspection::Sessions;
use crate::xds::server::{Access, ServeError, ServerSettings};

use audit::{Audit, Sample};
use clients::{Asker, Gateways};
use emission::{Emission, Serving, StandIns};
use identities::Identities;
use keys::Keys;
use lane::{Lane, Made, PutOff, Step};
use limits::LimitServers;
use origin::{Opened, Way};
use reporting::{Leadership, Reporter};
use secrets::Secrets;

mod audit;
mod clients;
mod descriptors;
mod emission;
mod exchange;
mod expiry;
pub(crate) mod identities;
mod keys;
mod lane;
mod limits;
mod origin;
mod refusals;
mod releases;
mod reporting;
mod roots;
mod secrets;
mod tokens;

/// How long the compile thread waits for other gateways to refuse what one has refused, so that authors are told once how many
/// do. Anything else ends the wait. Half of it tells them twice in a large fleet; double makes new gateways wait as long
/// for what works.
const OTHERS_REFUSE: Duration = Duration::from_millis(100);

/// Every reason to wake the compile thread.
enum Event {
    /// The source has something new.
    Source(Batch),
    /// The source has slices that are others, and the lane serves them already.
    Endpoints(Batch),
    /// A gateway asks for the snapshots of a key, as long as it holds by what it was matched.
    Gateway(GatewayKey, Arc<Asker>),
    /// The source has answered these questions for Secrets.
    Secrets(Arc<BTreeSet<SecretQuery>>),
    /// What is known of the Secrets in which generated roots of trust are kept.
    Roots(RootSecrets),
    /// A rate-limit service asks for its limits.
    LimitServer,
    /// Some gateway refused something that it, or anybody, had not refused before. At most one waits.
    Refused,
    /// Some stream ended. At most one waits.
    Left,
}

/// Why `serve` ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The directory cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no credential of an API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The credential of an API server cannot be used.
    #[error("{credential}: the credential for {server} cannot be used: {reason}")]
    Client {
        /// Where it was found.
        credential: String,
        /// Address of the API server.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
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
    /// The credentials of the xDS port cannot be used.
    #[error("--xds-credentials: {0}")]
    Credentials(#[from] CredentialError),
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
    /// No thread for compiling, or for the audit.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The state directory is another process's, or nothing can write there.
    #[error(transparent)]
    State(#[from] crate::memory::OpenError),
}

/// What the compile thread last made; `None` before the first complete compile.
type State = watch::Receiver<Option<Arc<Compiled>>>;

/// Serves a directory, or what API servers hold, until `shutdown` is ready.
///
/// `at_work` is dropped when all that is to be kept is kept, after the last of the runtime's tasks. Statuses are written by `clock`.
///
/// # Errors
/// [`AppError`], each with one clear line; the program ends with exit code 1.
pub async fn serve(
    settings: Settings,
    options: Options,
    logging: Logging,
    shutdown: impl Future<Output = ()> + Send + 'static,
    at_work: std_mpsc::Sender<Infallible>,
    clock: Clock,
) -> Result<(), AppError> {
    let origin = Opened::open(&settings.origin, &options).await?;
    let (management, admin_namespace) = (options.management_cluster.clone(), options.admin_namespace.clone());
    let credentials = settings.xds_credentials.as_deref();
    let credentials = credentials.map(|files| Credentials::open_with(files, origin.reviewer())).transpose()?;
    let access = credentials.clone().map_or(Access::Anybody, Access::Credentials);
    // After the directory: the wrong directory is the likelier mistake, and the one to be told first.
    let xds = listen(settings.xds_address, "xDS", "xds-address").await?;
    let admin = listen(settings.admin_address, "health", "admin-address").await?;

    let (publisher, limits) = (Arc::new(Publisher::new()), Arc::new(Publisher::new()));
    let (events, inbox) = std_mpsc::channel();
    let (state_sender, mut state) = watch::channel(None);
    let memory = match &settings.state {
        Some(directory) => Memory::open(directory)?,
        None => Memory::of_this_run(),
    };
    let (ledger, shared) =
        (Arc::new(Ledger::new()), Arc::new(refusals::Shared::of_earlier_run(memory.refused().clone())));
    let sources = Sources {
        compiled: state.clone(),
        ledger: ledger.clone(),
        publisher: publisher.clone(),
        limits: limits.clone(),
        places: origin.places(),
        missing: Arc::default(),
        stale: Arc::default(),
        metrics: Metrics::new(),
        credentials,
    };
    let told = (ledger.clone(), shared.clone());
    let places = origin.places();
    let (maker, new_roots) = mpsc::unbounded_channel();
    let identities = Identities::open(settings.state.as_deref(), jiff::Timestamp::now);
    let identities = origin.keeps_root(identities, (!settings.read_only).then_some(maker));
    let compiler = CompileLoop::new(options, publisher.clone(), state_sender, places, memory, told);
    let mut compiler = compiler.with_identities(identities);
    let lane = Arc::new(Lane::new(publisher.clone(), shared.clone(), sources.metrics.clone()));
    (compiler.metrics, compiler.lane) = (sources.metrics.clone(), lane.clone());
    compiler.limits = LimitServers::new(limits.clone());
    let asked;
    (compiler.secrets, asked) = origin.secrets();
    if let Some(every) = settings.audit {
        compiler.audit = Some(Audit::start(every, sources.metrics.clone()).map_err(AppError::Thread)?);
    }
    std::thread::Builder::new()
        .name("compile".to_owned())
        .spawn({
            let at_work = at_work.clone();
            move || {
                compiler.run(&inbox);
                drop(at_work);
            }
        })
        .map_err(AppError::Thread)?;
    let (over, is_over) = oneshot::channel();
    let trusts_labels = origin.trusts_labels();
    let way = Way { lane, events: events.clone(), asked, new_roots, state: settings.state.clone(), over, at_work };
    let followed = origin.follow(way)?;
    let reporter = Reporter {
        state: state.clone(),
        ledger: sources.ledger.clone(),
        publisher: publisher.clone(),
        shared: shared.clone(),
        events: events.clone(),
        pod: settings.namespace.as_ref().and_then(|_| Pod::of_this_process()),
        namespace: settings.namespace.clone().unwrap_or_else(|| admin_namespace.to_string()),
        management,
        admin_namespace,
        metrics: sources.metrics.clone(),
        clock,
    };
    let (stop_sender, stop) = watch::channel(false);
    let report = report(reporter, followed.kubernetes().filter(|_| !settings.read_only), stopped(stop.clone()));
    // Set once, here.
    let _ = followed.missing().map(|missing| sources.missing.set(missing));
    let _ = followed.stale().map(|stale| sources.stale.set(stale));
    let follow = async {
        if is_over.await.is_err() {
            tracing::error!("the thread that follows the source ended; changes have no effect");
            std::future::pending::<()>().await;
        }
    };

    let addresses = (local_address(&xds)?, local_address(&admin)?);
    let witness = refusals::Witness { ledger, shared, events: events.clone() };
    let observer = Arc::new(Metered { observer: witness, metrics: sources.metrics.clone() });
    let gateways = Arc::new(Gateways { state: state.clone(), publisher, limits, events, trusts_labels });
    let sessions = Sessions::default();
    let services = tonic::service::Routes::new(crate::xds::csds::service(sessions.clone()));
    let settings_of_server = ServerSettings { connections: descriptors::connections(), ..ServerSettings::default() };
    let xds = crate::xds::server::serve(
        (xds, access),
        gateways,
        observer,
        sessions,
        settings_of_server,
        stopped(stop.clone()),
    );
    let admin = crate::admin::serve(admin, sources, logging, services, stopped(stop.clone()));
    let ready = async {
        // What is awaited may never come, and a stop is heard all the same. The wait ends with an error only when the
        // compile thread is gone, which ends the program anyway.
        tokio::select! {
            _ = state.wait_for(Option::is_some) => {}
            () = stopped(stop) => return Ok(()),
        }
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
    let work = async { tokio::join!(servers, ready, stopper, report) };
    tokio::select! {
        (served, ready, (), ()) = work => served.map(|_| ()).and(ready),
        // The only way for it to end: nobody takes batches any more.
        () = follow => Err(AppError::Compile),
    }
}

/// Has statuses written until a stop, and gives the Lease up then, and what was told of the own gateways.
async fn report(reporter: Reporter, kubernetes: Option<Arc<Kubernetes>>, stopped: impl Future<Output = ()>) {
    let Some(kubernetes) = kubernetes else { return };
    let leadership = Leadership::default();
    let mut task = tokio::spawn(reporter.run(kubernetes, leadership.clone()));
    tokio::pin!(stopped);
    tokio::select! {
        _ = &mut task => {
            tracing::error!(
                "the task that writes statuses ended; this is a fault of Chancery, and statuses stay as they are"
            );
            stopped.await;
        }
        () = &mut stopped => {
            task.abort();
            // It ends with an error, because it was ended.
            let _ = task.await;
        }
    }
    leadership.release().await;
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

/// Compiles, as [`Compiler::step`] does.
type Compile = fn(&mut Compiler, &Store, &[Finding], &Options, &BTreeSet<GatewayId>, &Arc<Remembered>) -> Compiled;

/// The single writer: holds the inputs, compiles, publishes.
struct CompileLoop {
    options: Options,
    compiler: Compiler,
    /// [`Compiler::step`], unless a test has it fail.
    compile: Compile,
    /// Compares with compiling from scratch, where it is asked for.
    audit: Option<Audit>,
    publisher: Arc<Publisher>,
    lane: Arc<Lane>,
    limits: LimitServers,
    secrets: Secrets,
    state: watch::Sender<Option<Arc<Compiled>>>,
    places: Places,
    memory: Memory,
    identities: Identities,
    store: Store,
    /// How many batches came.
    batches: u64,
    /// Endpoints that the lane serves and the store does not have yet.
    put_off: PutOff,
    /// Those of them that the store has by now, each with its batch, since the lane was told.
    taken_up: Vec<(ObjectRef, u64)>,
    /// Whether a complete list has arrived.
    is_listed: bool,
    /// Whether something changed since the last compile that was finished.
    is_stale: bool,
    source_findings: Findings,
    /// What gateways refused, as the last compile was given it.
    refusal_findings: Findings,
    /// What releases of gateways cannot do, as the last compile was given it.
    release_findings: Findings,
    /// What the clock says of the root of trust, as the last compile was given it.
    clock_findings: Findings,
    /// All of these; none when one is another now.
    given: Option<Arc<Findings>>,
    keys: Keys,
    /// Tells the time for what is kept for a while.
    now: fn() -> Instant,
    serving: Serving,
    /// How the snapshots of each key are made, and what was made last.
    emissions: BTreeMap<GatewayKey, Emission>,
    emitted: BTreeMap<GatewayKey, Emitted>,
    told: Reported,
    /// What is to be told of.
    done: Option<Done>,
    metrics: Metrics,
    ledger: Arc<Ledger>,
    refusals: Arc<refusals::Shared>,
}

/// A compile that is done, and is to be told of.
struct Done {
    sample: Sample,
    /// What came of the one before.
    before: Option<Arc<Compiled>>,
    took: Duration,
    /// Since the epoch.
    at: Duration,
}

/// What was made for one key.
struct Emitted {
    plan: Arc<GatewayPlan>,
    /// The gateway's own certificate, where it has one.
    identity: Option<Version>,
    /// The plan's snapshot.
    compiled: Arc<Snapshot>,
    /// The same with accepted versions in place of refused ones, and what was replaced. None before there was one to publish.
    published: Option<Arc<Snapshot>>,
    kept: BTreeSet<(ResourceType, Name)>,
    /// What stands in for what was replaced, with what that refers to.
    stand_ins: StandIns,
    /// One with accepted versions that must not be published.
    impossible: Option<Arc<Snapshot>>,
}

impl CompileLoop {
    fn new(
        options: Options,
        publisher: Arc<Publisher>,
        state: watch::Sender<Option<Arc<Compiled>>>,
        places: Places,
        memory: Memory,
        (ledger, refusals): (Arc<Ledger>, Arc<refusals::Shared>),
    ) -> Self {
        Self {
            compiler: Compiler::new(&options),
            options,
            compile: Compiler::step,
            audit: None,
            lane: Arc::new(Lane::new(publisher.clone(), refusals.clone(), Metrics::new())),
            publisher,
            limits: LimitServers::default(),
            secrets: Secrets::all_given(),
            state,
            places,
            memory,
            identities: Identities::open(None, jiff::Timestamp::now),
            store: Store::default(),
            batches: 0,
            put_off: PutOff::default(),
            taken_up: Vec::new(),
            is_listed: false,
            is_stale: true,
            source_findings: Findings::new(),
            refusal_findings: Findings::new(),
            release_findings: Findings::new(),
            clock_findings: Findings::new(),
            given: None,
            keys: Keys::default(),
            now: Instant::now,
            serving: EmitOptions::serving,
            emissions: BTreeMap::new(),
            emitted: BTreeMap::new(),
            told: Reported::default(),
            done: None,
            metrics: Metrics::new(),
            ledger,
            refusals,
        }
        .with_identities(Identities::open(None, jiff::Timestamp::now))
    }

    /// The same with a clock and a root of trust; without, there is no place to keep a root.
    fn with_identities(mut self, mut identities: Identities) -> Self {
        self.options.kept_root = identities.kept_root(None);
        self.identities = identities;
        self
    }

    /// Works until every sender is gone.
    fn run(mut self, inbox: &std_mpsc::Receiver<Event>) {
        loop {
            let first = match self.due() {
                None => inbox.recv().map_err(RecvTimeoutError::from),
                Some(wait) => inbox.recv_timeout(wait),
            };
            let first = match first {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let next = match first {
                Some(Event::Refused) => inbox.recv_timeout(OTHERS_REFUSE).ok(),
                Some(
                    Event::Source(_)
                    | Event::Endpoints(_)
                    | Event::Gateway(..)
                    | Event::Secrets(_)
                    | Event::Roots(_)
                    | Event::LimitServer
                    | Event::Left,
                )
                | None => None,
            };
            // What arrived while the last step ran joins this one.
            self.step(first.into_iter().chain(next).chain(inbox.try_iter()));
        }
    }

    /// How long until a certificate is to be renewed, or something is to be forgotten.
    fn due(&self) -> Option<Duration> {
        let renewal = self.state.borrow().as_ref().and_then(|compiled| self.identities.due(compiled));
        let awaited = self.identities.is_root_awaited().then_some(Duration::from_secs(1));
        let renewal = renewal.into_iter().chain(awaited).min();
        let standing_by = self.emissions.values().filter_map(Emission::due).min();
        let forgetting = [self.keys.due(), self.refusals.lock().due(), standing_by].into_iter().flatten().min();
        let wait = |at: Instant| at.saturating_duration_since((self.now)());
        // Never at once: what could not be done must not be tried without a pause.
        let forgetting = forgetting.map(|at| wait(at).max(Duration::from_secs(1)));
        renewal.into_iter().chain(forgetting).chain(self.put_off.due().map(wait)).min()
    }

    /// Takes events in, compiles if need be, publishes.
    fn step(&mut self, events: impl Iterator<Item = Event>) {
        let (begun, mut is_all_served) = (Instant::now(), None);
        for event in events {
            is_all_served = Some(is_all_served != Some(false) && matches!(event, Event::Endpoints(_)));
            self.is_stale |= self.take(event);
        }
        let taken_up = self.put_off.take((self.now)(), is_all_served == Some(false));
        // R10: gateways keep what they have until there is a complete list.
        if !self.is_listed || (is_all_served == Some(true) && taken_up.is_empty() && !self.is_stale) {
            return;
        }
        for (batch, change) in taken_up {
            self.taken_up.push((change.id().clone(), batch));
            self.is_stale |= self.store.apply([change]) == Applied::Changed;
        }
        // What a panic leaves behind is whole: a snapshot is published or not, and everything else is made anew.
        if let Err(panicked) = catch_unwind(AssertUnwindSafe(|| self.work(begun))) {
            self.is_stale = true;
            // The next step begins with nothing that this one kept.
            self.compiler = Compiler::new(&self.options);
            self.emissions.clear();
            let reason = panicked.downcast_ref::<&str>().copied().map(str::to_owned);
            let reason = reason.or_else(|| panicked.downcast_ref::<String>().cloned()).unwrap_or_default();
            self.tell();
            tracing::error!(reason, "compiling failed, this is a fault of Chancery; gateways keep what they have");
        }
    }

    /// Takes an event in; whether it makes a compile necessary.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Endpoints(batch) => {
                self.batches += 1;
                self.put_off.add(self.batches, batch.changes, (self.now)());
                self.take_findings(batch.findings)
            }
            Event::Source(batch) => {
                self.batches += 1;
                self.put_off.replaced_by(&batch);
                let findings_changed = self.take_findings(batch.findings);
                if batch.extent == Extent::Complete {
                    self.store = Store::default();
                    self.is_listed = true;
                }
                self.store.apply(batch.changes) == Applied::Changed || findings_changed
            }
            Event::Gateway(key, asker) => {
                let known = self.state.borrow().as_ref().is_some_and(|c| c.plans.contains_key(&key.gateway));
                self.keys.ask(key, &asker);
                !known
            }
            Event::Secrets(answered) => {
                self.secrets.take(answered);
                false
            }
            // Whether it makes a difference shows when the clock is followed.
            Event::Roots(known) => {
                self.identities.take(known);
                false
            }
            // It gets them when gateways get theirs.
            Event::LimitServer => false,
            Event::Left => {
                self.refusals.looked_who_left();
                self.keys.left();
                false
            }
            Event::Refused => {
                self.refusals.looked();
                // It compiles if it makes a difference to what authors are told, which shows when it is published.
                false
            }
        }
    }

    /// Takes over what is wrong with the source; whether that is something else than before.
    fn take_findings(&mut self, findings: Findings) -> bool {
        let is_other = self.source_findings != findings;
        if is_other {
            (self.source_findings, self.given) = (findings, None);
        }
        is_other
    }

    fn work(&mut self, begun: Instant) {
        let last = self.state.borrow().clone();
        self.is_stale |= last.is_some_and(|compiled| self.follow_clock(&compiled));
        if self.is_stale && !self.compile(begun) {
            return;
        }
        self.publish();
        // Gateways do not wait for what people are told.
        self.tell();
        // A second time, with the same plans, if what is refused or cannot be done is another matter now.
        let releases = self.releases();
        let (words, heard) = self.words_of_gateways(&releases);
        let findings = (words, releases);
        if (&self.refusal_findings, &self.release_findings) != (&findings.0, &findings.1) {
            (self.refusal_findings, self.release_findings) = findings;
            self.given = None;
            self.is_stale = true;
            if !self.compile(Instant::now()) {
                return;
            }
            self.tell();
        }
        self.all_published(heard);
        self.memory.keep(|| refused(&self.emitted, &self.refusals));
        self.memory.share(self.emissions.iter().map(|(key, emission)| (key, emission.shared())));
    }

    /// Compiles; nothing comes of it while it is unknown whether a Secret is there that somebody asks for. The answer comes as an
    /// event.
    fn compile(&mut self, begun: Instant) -> bool {
        let wanted = self.keys.gateways();
        let mut sample = self.compiled(&wanted);
        // The root that a policy asks for, then what the clock says of it.
        for _ in 0..2 {
            if self.follow_clock(&sample.compiled) {
                sample = self.compiled(&wanted);
            }
        }
        let is_root_awaited = self.identities.is_root_awaited();
        if !self.secrets.are_known(&self.compiler) || is_root_awaited {
            return false;
        }
        let before = self.state.send_replace(Some(sample.compiled.clone()));
        self.is_stale = false;
        self.done = Some(Done { sample, before, took: begun.elapsed(), at: UNIX_EPOCH.elapsed().unwrap_or_default() });
        true
    }

    /// Compiles once, and hands on what is remembered.
    fn compiled(&mut self, wanted: &BTreeSet<GatewayId>) -> Sample {
        let gateways = self.refusal_findings.iter().chain(&self.release_findings);
        let all = self.source_findings.iter().chain(gateways).chain(&self.clock_findings);
        let given = self.given.get_or_insert_with(|| Arc::new(all.cloned().collect())).clone();
        let (options, remembered) = (self.options.clone(), self.memory.frozen().clone());
        let compiled = (self.compile)(&mut self.compiler, &self.store, &given, &options, wanted, &remembered);
        self.memory.take(&compiled.remembered);
        Sample { options, given, wanted: wanted.clone(), remembered, compiled: Arc::new(compiled) }
    }

    /// Brings what the next compile is told of the root of trust up to date; whether that changed.
    fn follow_clock(&mut self, compiled: &Compiled) -> bool {
        let root = self.identities.kept_root(compiled.inputs.generated_root());
        let findings = self.identities.findings(compiled);
        self.metrics.certificates(&self.identities.earliest_ends());
        let findings_changed = self.clock_findings != findings;
        if findings_changed {
            (self.clock_findings, self.given) = (findings, None);
        }
        let changed = self.options.kept_root != root || findings_changed;
        self.options.kept_root = root;
        changed
    }

    /// Logs what came of a compile, with findings that were not there before, and has it audited. Refusals are logged by
    /// themselves: one may concern thousands of objects.
    fn tell(&mut self) {
        let Some(Done { sample, before, took, at }) = self.done.take() else { return };
        drop(before);
        let findings = &sample.compiled.findings;
        tracing::info!(
            objects = sample.compiled.objects.len(),
            findings = findings.len(),
            gateways = sample.compiled.plans.len(),
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "compiled"
        );
        self.metrics.compiled(took, at);
        let is_told = |f: &&Finding| f.severity > Severity::Info && f.code != Code::RefusedByGateway;
        let mut new: Findings = findings
            .changes(&self.told)
            .flat_map(|(before, now)| now.iter().filter(|finding| !before.contains(finding)))
            .filter(is_told)
            .cloned()
            .collect();
        self.places.locate(&mut new);
        for finding in new {
            let object = finding.subject.as_ref().map(ToString::to_string).unwrap_or_default();
            let place = finding.location.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(code = %finding.code, object, field = %finding.field, place, "{}", finding.message);
        }
        self.told = findings.clone();
        if let Some(audit) = &mut self.audit {
            audit.offer(sample);
        }
    }

    /// Brings every key that is asked for up to date, and closes those whose Services select other Pods now.
    fn publish(&mut self) {
        let Some(compiled) = self.state.borrow().clone() else { return };
        self.limits.publish(&compiled);
        let now = (self.now)();
        self.keys.tidy(&self.publisher, now);
        self.emitted.retain(|key, _| self.keys.contains(key));
        self.emissions.retain(|key, _| self.keys.contains(key));
        let mut left: Vec<GatewayKey> = Vec::new();
        let connected = OnceCell::new();
        let connected = || connected.get_or_init(|| self.ledger.view());
        for (key, mut askers) in self.keys.iter() {
            if !askers.all(|asker| asker.may_have(&compiled.inputs, &key.gateway)) {
                tracing::info!(gateway = %key, "its Services or accounts changed; its Envoys are matched anew");
                self.publisher.remove(key);
                self.emitted.remove(key);
                self.emissions.remove(key);
                left.push(key.clone());
                continue;
            }
            let Some(plan) = compiled.plans.get(&key.gateway) else { continue };
            let identity = self.identities.wanted(plan);
            let new = || Emission::new(self.memory.shared(key));
            let emission = self.emissions.entry(key.clone()).or_insert_with(new);
            let before = self.emitted.get_mut(key);
            let keeps_listener = |before: &Emitted| before.kept.iter().any(|(of, _)| *of == ResourceType::Listener);
            let is_kept = before.as_deref().is_some_and(keeps_listener);
            let is_laid_out_anew = emission.follow(key, (now, is_kept), &self.refusals.lock(), connected);
            let is_same = |before: &Emitted| Arc::ptr_eq(&before.plan, plan) && before.identity == identity;
            if !is_laid_out_anew && before.as_deref().is_some_and(is_same) {
                continue;
            }
            let Ok(bind) = key.bind.parse() else { continue };
            let fill = |snapshot| self.identities.fill(plan, compiled.inputs.trust(), snapshot);
            let snapshot = match emission.emit(plan, (self.serving)(bind, key.envoy), now, fill) {
                Ok(snapshot) => snapshot,
                Err(reason) => {
                    tracing::error!(gateway = %key, "not published, its own certificate cannot be issued: {reason}");
                    continue;
                }
            };
            match before {
                Some(before) if Arc::ptr_eq(&before.compiled, &snapshot) => {
                    (before.plan, before.identity) = (plan.clone(), identity);
                }
                before if emission.is_publishable(key, &snapshot, &StandIns::new()) => {
                    if before.is_none() {
                        self.refusals.lock().recall(key);
                    }
                    let published = before.and_then(|before| before.published.take());
                    let emitted = Emitted {
                        plan: plan.clone(),
                        identity,
                        compiled: snapshot,
                        published,
                        kept: BTreeSet::new(),
                        stand_ins: BTreeMap::new(),
                        impossible: None,
                    };
                    self.emitted.insert(key.clone(), emitted);
                }
                _ => {}
            }
        }
        // Labels of Envoys that are gone must not close the key again when others come back to it.
        for key in left {
            self.keys.remove(&key);
        }
        self.identities.retain(&self.emitted.values().filter_map(|emitted| emitted.identity.as_ref()).collect());
        self.look_at_refusals();
        let refusals = self.refusals.copy();
        let (mut made, mut withheld) = (BTreeMap::new(), Vec::new());
        for (key, emitted) in &mut self.emitted {
            let emission = self.emissions.entry(key.clone()).or_insert_with(|| Emission::new(self.memory.shared(key)));
            let is_of_plan = compiled.plans.get(&key.gateway).is_some_and(|plan| Arc::ptr_eq(plan, &emitted.plan));
            let (snapshot, not_in_force) = emitted.overlaid(key, emission, &refusals);
            made.insert(key.clone(), Made { snapshot, is_of_plan });
            withheld.push((key.clone(), not_in_force));
        }
        let (put_off, endpoints) = (std::mem::take(&mut self.taken_up), self.compiler.endpoints(&compiled));
        for key in self.lane.publish(Step { batches: self.batches, put_off, endpoints }, made) {
            let kept = self.emitted.get(&key).map_or(0, |emitted| emitted.kept.len());
            tracing::info!(gateway = %key, kept, "published");
        }
        for (key, not_in_force) in withheld {
            self.publisher.withhold(&key, not_in_force);
        }
        self.refusals.await_filters(self.emissions.values().any(Emission::awaits_filters));
    }

    /// Forgets refusals of what is no longer wanted and of gateways that have left, and finds out who is to blame for new ones.
    fn look_at_refusals(&self) {
        let emitted = &self.emitted;
        let refusals = {
            let mut refusals = self.refusals.lock();
            if refusals.is_empty() {
                refusals.retain(|key| emitted.get(key).map(|emitted| &emitted.compiled));
                return;
            }
            let connected = self.ledger.view();
            let have_left = refusals.expire((self.now)(), |envoy, class, nodes| {
                refusals::is_some_connected(&connected, envoy, class, nodes)
            });
            if refusals.retain(|key| emitted.get(key).map(|emitted| &emitted.compiled)) || have_left {
                self.ledger
                    .retain_refusals(|resource_type, name, version| refusals.is_refused(resource_type, name, version));
            }
            refusals.clone()
        };
        let verdicts = refusals.verdicts(|bytes, refused, accepted| {
            let emitted = emitted.get(&refused.first)?;
            let resource = emitted.compiled.get(bytes.resource_type, &bytes.name)?;
            let is_judgeable = bytes.resource_type == ResourceType::Route && resource.version == bytes.version;
            is_judgeable.then(|| refusals::judge(&emitted.plan, resource, accepted)).flatten()
        });
        let mut refusals = self.refusals.lock();
        refusals.judged(&verdicts);
        for (bytes, refused) in refusals.iter().filter(|(bytes, _)| verdicts.contains_key(*bytes)) {
            refusals::log(bytes, refused);
        }
    }
}

/// What is kept of refusals over a restart.
fn refused(emitted: &BTreeMap<GatewayKey, Emitted>, refusals: &refusals::Shared) -> Document {
    let stand_ins = emitted.iter().map(|(key, emitted)| (key, &emitted.stand_ins)).collect();
    refusals.copy().document(&stand_ins)
}

impl Emitted {
    /// The snapshot with accepted versions in place of refused ones, and what of the compiled one is not in force then.
    fn overlaid(
        &mut self,
        key: &GatewayKey,
        emission: &mut Emission,
        refused: &Refusals,
    ) -> (Arc<Snapshot>, NotInForce) {
        let overlay = self.overlay(key, emission, refused);
        let not_in_force = refusals::not_in_force(key, &self.compiled, refused, &overlay.kept);
        emission.published(&self.compiled, &overlay.snapshot, &overlay.stand_ins);
        self.kept = overlay.kept;
        self.stand_ins = overlay.stand_ins;
        self.published = Some(overlay.snapshot.clone());
        (overlay.snapshot, not_in_force)
    }

    /// What to publish: the compiled snapshot with what was accepted in place of what was refused, if that fits.
    fn overlay(&mut self, key: &GatewayKey, emission: &mut Emission, refused: &Refusals) -> Overlay {
        let overlay = emission.overlay(key, &self.compiled, refused);
        if overlay.kept.is_empty() || self.published.as_ref() == Some(&overlay.snapshot) {
            return overlay;
        }
        // What was accepted once may not fit to the rest any more.
        if self.impossible.as_ref() != Some(&overlay.snapshot) {
            if emission.is_publishable(key, &overlay.snapshot, &overlay.stand_ins) {
                return overlay;
            }
            self.impossible = Some(overlay.snapshot);
        }
        Overlay { snapshot: self.compiled.clone(), kept: BTreeSet::new(), stand_ins: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests;
