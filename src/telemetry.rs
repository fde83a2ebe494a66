//! Logs and metrics.
//!
//! Logs go to stderr, one line per change of state: text for people, or one JSON object per line ([`lines`]). What is
//! logged can change at run time ([`Logging::change`]). Metrics have their names in [`metrics`].

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

pub mod lines;
pub mod metrics;

/// Form of the log lines on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A handle on what is logged. Clones are the same.
#[derive(Clone, Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Why what is logged stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter has no meaning.
    #[error("{0}")]
    Meaningless(String),
    /// Nothing is logged any more, or logging was started by someone else.
    #[error("the logs of this process cannot be changed")]
    Fixed,
}

/// Libraries that log each attempt that fails, and say nothing that is not told by us, once. A filter that names one hears it.
const QUIET: [&str; 2] = ["kube_client", "kube_runtime"];

impl Logging {
    /// A handle, and the layer that lets through what the handle says.
    ///
    /// # Errors
    /// [`LoggingError::Meaningless`].
    pub fn new(filter: &str) -> Result<(Self, reload::Layer<Targets, Registry>), LoggingError> {
        let (layer, handle) = reload::Layer::new(read(filter)?);
        Ok((Self { filter: handle }, layer))
    }

    /// Logs from now on what another filter lets through: `info,chancery::xds=debug`.
    ///
    /// # Errors
    /// [`LoggingError`]; then everything stays as it is.
    pub fn change(&self, filter: &str) -> Result<(), LoggingError> {
        self.filter.reload(read(filter)?).map_err(|_| LoggingError::Fixed)
    }

    /// The filter in force, in the form that [`change`](Self::change) takes.
    ///
    /// # Errors
    /// [`LoggingError::Fixed`].
    pub fn in_force(&self) -> Result<String, LoggingError> {
        self.filter.with_current(ToString::to_string).map_err(|_| LoggingError::Fixed)
    }
}

/// Starts logging what a filter lets through, by module: `info,chancery::xds=debug`. A second call has no effect.
///
/// # Errors
/// A sentence where the filter has no meaning.
pub fn start(format: LogFormat, filter: &str) -> Result<Logging, LoggingError> {
    let (logging, filter) = Logging::new(filter)?;
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let stderr = if json {
        stderr.with_ansi(false).event_format(lines::JsonLines).boxed()
    } else {
        stderr.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    if tracing_subscriber::registry().with(stderr.with_filter(filter)).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(logging)
}

fn read(text: &str) -> Result<Targets, LoggingError> {
    let filter: Targets = text.parse().map_err(|error| {
        LoggingError::Meaningless(format!(
            "`{text}` says nothing about what to log: {error}; write a level, such as info"
        ))
    })?;
    let quiet = |filter: Targets, target: &str| {
        if text.contains(target) { filter } else { filter.with_target(target, LevelFilter::OFF) }
    };
    Ok(QUIET.iter().fold(filter, |filter, target| quiet(filter, target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_changes_at_run_time_and_a_bad_one_changes_nothing() {
        let (logging, layer) = Logging::new("info").unwrap();
        assert_eq!(logging.in_force().unwrap(), "kube_runtime=off,kube_client=off,info");
        logging.change("warn,chancery::xds=debug").unwrap();
        assert_eq!(logging.in_force().unwrap(), "chancery::xds=debug,kube_runtime=off,kube_client=off,warn");
        let refused = logging.change("a=b=c").unwrap_err().to_string();
        assert!(refused.contains("`a=b=c` says nothing about what to log"), "{refused}");
        assert_eq!(logging.in_force().unwrap(), "chancery::xds=debug,kube_runtime=off,kube_client=off,warn");
        logging.change(&logging.in_force().unwrap()).unwrap();
        drop(layer);
        assert!(matches!(logging.change("info"), Err(LoggingError::Fixed)));
    }
}
