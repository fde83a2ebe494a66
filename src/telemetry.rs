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
    // The file watcher complains whenever a folder that it watches is gone, which a mounted ConfigMap does at each change.
    Ok(if text.contains("notify") { filter } else { filter.with_target("notify", LevelFilter::ERROR) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_changes_at_run_time_and_a_bad_one_changes_nothing() {
        let (logging, layer) = Logging::new("info").unwrap();
        assert_eq!(logging.in_force().unwrap(), "notify=error,info");
        logging.change("warn,chancery::xds=debug").unwrap();
        assert_eq!(logging.in_force().unwrap(), "chancery::xds=debug,notify=error,warn");
        let refused = logging.change("a=b=c").unwrap_err().to_string();
        assert!(refused.contains("`a=b=c` says nothing about what to log"), "{refused}");
        assert_eq!(logging.in_force().unwrap(), "chancery::xds=debug,notify=error,warn");
        logging.change(&logging.in_force().unwrap()).unwrap();
        drop(layer);
        assert!(matches!(logging.change("info"), Err(LoggingError::Fixed)));
    }
}
