//! `chancery serve`.

use crate::app;
use crate::settings::{RawSettings, Settings};
use crate::telemetry::LogFormat;

use super::{EXIT_CODES, Outcome, Rules, Usage};

/// Serve a directory of manifests to Envoys over delta ADS, and follow its changes.
///
/// A file that stops parsing keeps its last good objects. Logs go to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery serve config/demo --allow-loopback-endpoints\n  chancery serve manifests --xds-address 127.0.0.1:0 --ready-file ready.json\n\n{EXIT_CODES}"))]
pub(super) struct Serve {
    #[command(flatten)]
    settings: RawSettings,
    /// How logs look; auto is text on a terminal and JSON elsewhere.
    #[arg(long, env = "CHANCERY_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    #[command(flatten)]
    rules: Rules,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        crate::telemetry::start(self.log_format);
        let settings = Settings::try_from(self.settings).map_err(Usage)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(app::serve(settings, self.rules.options(), interrupted()));
        runtime.shutdown_background();
        result?;
        Ok(Outcome::Clean)
    }
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
