//! `chancery serve`.

use std::convert::Infallible;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use crate::app::{self, AppError};
use crate::settings::{self, RawSettings, Settings};
use crate::status::clock::Clock;
use crate::telemetry::{self, LogFormat};

use super::{EXIT_CODES, Outcome, Rules, Usage, table, wrong_path};

/// How long a stop waits for a compile under way and for the disk. What stops us waits 30 s before it kills, and the drain
/// comes first.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Another tool's name for the log filter; taken where ours is not given.
const RUST_LOG: &str = "RUST_LOG";

/// Serve a directory of manifests, or what API servers hold, to Envoys over xDS, and follow its changes.
///
/// A file that stops parsing keeps its last good objects, and so does a server that stops answering. Logs go to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery serve config/demo --allow-loopback-endpoints\n  chancery serve config/demo --xds-address 127.0.0.1:0 --print-config\n  chancery serve --kubeconfig management.kubeconfig\n\n{EXIT_CODES}"))]
pub(super) struct Serve {
    #[command(flatten)]
    settings: RawSettings,
    /// How logs look; auto is text on a terminal and JSON elsewhere.
    #[arg(long, env = "CHANCERY_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// What is logged: a level, or levels of modules, such as info,chancery::xds=debug; RUST_LOG is read too.
    #[arg(long, env = "CHANCERY_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Print the settings in force and where each came from, and end.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    rules: Rules,
}

impl Serve {
    pub(super) fn run(mut self, matches: &ArgMatches) -> anyhow::Result<Outcome> {
        let rust_log = std::env::var(RUST_LOG).ok().filter(|filter| !filter.is_empty());
        let rust_log = rust_log.filter(|_| matches.value_source("log") == Some(ValueSource::DefaultValue));
        if let Some(filter) = &rust_log {
            self.log.clone_from(filter);
        }
        let logging = telemetry::start(self.log_format, &self.log).map_err(|error| Usage(error.to_string()))?;
        let settings = Settings::try_from(self.settings).map_err(Usage)?;
        if self.print_config {
            print_config(matches, rust_log.as_deref())?;
            return Ok(Outcome::Clean);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (at_work, ended) = mpsc::channel::<Infallible>();
        let result = runtime.block_on(app::serve(
            settings,
            self.rules.options(),
            logging,
            interrupted(),
            at_work,
            Clock::system(),
        ));
        // With the tasks goes the last that could ask for a compile, and what was compiled last is written.
        let begun = Instant::now();
        runtime.shutdown_timeout(LAST_WRITES);
        if ended.recv_timeout(LAST_WRITES.saturating_sub(begun.elapsed())) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(
                "what is to be kept over a restart was not written in time; the restart may find an older state"
            );
        }
        match result {
            Ok(()) => Ok(Outcome::Clean),
            Err(AppError::Source(error)) => Err(wrong_path(error)),
            Err(error) => Err(error.into()),
        }
    }
}

fn print_config(matches: &ArgMatches, rust_log: Option<&str>) -> anyhow::Result<()> {
    let command = Serve::augment_args(clap::Command::new("serve"));
    let mut rows = Vec::new();
    for mut setting in settings::in_force(&command, matches, &["print_config"]) {
        if let Some(filter) = rust_log.filter(|_| setting.name == "--log") {
            setting.value = Some(filter.to_owned());
            setting.from = RUST_LOG.to_owned();
        }
        rows.push(vec![setting.name, setting.value.unwrap_or_else(|| "-".to_owned()), setting.from]);
    }
    table::print(&mut std::io::stdout().lock(), &["SETTING", "VALUE", "FROM"], &rows)?;
    std::io::stdout().flush()?;
    Ok(())
}

/// Ready on Ctrl-C or SIGTERM.
async fn interrupted() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
