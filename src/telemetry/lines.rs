//! Log lines as JSON: one object per line.
//!
//! `ts` (RFC 3339, UTC, microseconds), `level`, `target` (the module) and `msg` come first, then the fields of the event
//! under their own names: `gateway`, `workspace`, `object`, `type_url`, `version`, `nonce` are always spelled so. An error
//! is `err`, with its causes. Control characters of foreign text are escaped, so a line is always one line.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events as JSON lines. Spans are left out: no module of ours opens one.
#[derive(Clone, Copy, Debug)]
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line(Map::new());
        line.put("ts", format!("{:.6}", jiff::Timestamp::now()).into());
        line.put("level", event.metadata().level().to_string().to_ascii_lowercase().into());
        line.put("target", event.metadata().target().into());
        // Its place; the event fills it in.
        line.put("msg", Value::from(""));
        event.record(&mut line);
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// The keys that every line begins with.
const HEAD: [&str; 4] = ["ts", "level", "target", "msg"];

/// A line in the making.
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    fn field(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.put("msg", value),
            "error" | "err" => self.put("err", value),
            // A foreign crate's field must not hide ours.
            name if HEAD.contains(&name) => self.put(&format!("{name}_"), value),
            name => self.put(name, value),
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.field(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What was written, for a subscriber that wants to own its writer.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that something logs, each of which must be an object.
    fn lines(log: impl FnOnce()) -> Vec<Map<String, Value>> {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(JsonLines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_begins_with_time_level_target_and_message() {
        let lines = lines(|| {
            tracing::info!(gateway = %"c/n/s", type_url = "t", version = 7_u64, nonce = ?Some("a"), ok = true, "sent");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let keys: Vec<&str> = line.keys().map(String::as_str).collect();
        assert_eq!(keys, ["ts", "level", "target", "msg", "gateway", "type_url", "version", "nonce", "ok"]);
        assert_eq!(line["level"], "info");
        assert_eq!(line["target"], "chancery::telemetry::lines::tests");
        assert_eq!(line["msg"], "sent");
        assert_eq!((&line["gateway"], &line["version"], &line["ok"]), (&"c/n/s".into(), &7.into(), &true.into()));
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.parse::<jiff::Timestamp>().is_ok() && ts.ends_with('Z') && ts.len() == 27, "{ts}");
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_foreign_text_stays_on_its_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("the outer part")]
        struct Outer(#[source] std::io::Error);

        let outer = Outer(std::io::Error::other("the inner part\n{\"level\":\"error\"}"));
        let lines = lines(|| {
            tracing::warn!(error = &outer as &dyn Error, "failed\nhere");
            tracing::warn!(%outer, ts = "mine", target = 1, "failed");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["err"], "the outer part: the inner part\n{\"level\":\"error\"}");
        assert_eq!(lines[0]["msg"], "failed\nhere");
        assert_eq!((&lines[1]["ts_"], &lines[1]["target_"]), (&"mine".into(), &1.into()));
        assert_eq!(lines[1]["outer"], "the outer part");
    }
}
