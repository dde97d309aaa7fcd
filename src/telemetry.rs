//! Logging.
//!
//! Owns where log lines go (stderr, by way of a bounded queue) and how they look. Logging
//! never blocks, never panics, and never ends anything: lines that cannot be written are
//! dropped, counted, and told of when writing works again. Must not know what is logged.

mod panics;
mod queue;
mod throttle;

use std::{io, sync::OnceLock, time::Duration};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
    fmt::MakeWriter,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::LogFormat;
use queue::{Notice, Queue};

pub use panics::log_panics;
pub use throttle::Throttle;

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("{filter:?} is not a log filter: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a subscriber already.
    #[error("logging has begun already: {0}")]
    Begun(#[from] TryInitError),
    /// The system has no thread for the log's writer.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

/// The queue of the process, once logging has begun.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Begins to write log lines to stderr, for the rest of the process.
///
/// `filter` says which: a level or directives, as [`EnvFilter`] reads them. Times
/// are in UTC, as RFC 3339 with microseconds. As text, lines have colours if
/// stderr is a terminal that shows them (and `NO_COLOR` is not set); as JSON each
/// line is one object, with the fields of every span that it is in.
///
/// At most 1 MiB of lines waits to be written; further ones are dropped and counted.
///
/// # Errors
/// A malformed filter; a second call in one process; no thread for the writer.
pub fn init(filter: &str, format: LogFormat) -> Result<(), Error> {
    let colours = console::colors_enabled_stderr();
    let queue = Queue::start(io::stderr(), notice(format))?;
    let writer = queue.clone();
    subscriber(filter, format, colours, move || writer.clone())?.try_init()?;
    let _ = QUEUE.set(queue);
    throttle::start()?;
    Ok(())
}

/// Gives what was logged the time to be written, at most `limit`. For the end of the
/// process; what is logged later may be lost.
pub fn flush(limit: Duration) {
    throttle::tell(true);
    if let Some(queue) = QUEUE.get() {
        queue.flush(limit);
    }
}

/// The line that tells of dropped ones. It does not pass the filter: it is told whatever
/// is left out else.
fn notice(format: LogFormat) -> Notice {
    const WHY: &str = "log lines were dropped: they could not be written, or not fast enough";
    match format {
        LogFormat::Text => |dropped| {
            let now = jiff::Timestamp::now();
            format!("{now:.6} ERROR {}: {dropped} {WHY}\n", module_path!())
        },
        LogFormat::Json => |dropped| {
            let line = serde_json::json!({
                "timestamp": format!("{:.6}", jiff::Timestamp::now()),
                "level": "ERROR",
                "message": WHY,
                "dropped": dropped,
                "target": module_path!(),
            });
            format!("{line}\n")
        },
    }
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level: Result<LevelFilter, _> = filter.parse();
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::Filter { filter: filter.into(), source })?;
    // What cannot be formatted would be told on stderr, past the queue.
    let lines = || tracing_subscriber::fmt().with_ansi(colours).log_internal_errors(false);
    let json = || lines().json().flatten_event(true).with_current_span(false);
    // A filter that is only a level, as most are, needs no directives to be
    // looked through whenever a span is entered.
    Ok(match (format, level) {
        (LogFormat::Text, Ok(level)) => {
            Box::new(lines().with_max_level(level).with_writer(writer).finish())
        }
        (LogFormat::Json, Ok(level)) => {
            Box::new(json().with_max_level(level).with_writer(writer).finish())
        }
        (LogFormat::Text, Err(_)) => {
            Box::new(lines().with_env_filter(filter).with_writer(writer).finish())
        }
        (LogFormat::Json, Err(_)) => {
            Box::new(json().with_env_filter(filter).with_writer(writer).finish())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What two events, one of them too detailed, make of a filter and a format.
    fn logged(filter: &str, format: LogFormat, colours: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(filter, format, colours, move || writer.clone());
        tracing::subscriber::with_default(subscriber.expect("a good filter"), || {
            let _span = tracing::info_span!("attempt", worker = 3).entered();
            tracing::info!(task = "t1", "started");
            tracing::debug!("detail");
        });
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_spans() {
        let text = logged("info", LogFormat::Json, true);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!((&line["message"], &line["task"]), (&"started".into(), &"t1".into()));
        assert_eq!(line["spans"][0]["worker"], 3);
        let time: jiff::Timestamp =
            line["timestamp"].as_str().expect("text").parse().expect("RFC 3339");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
    }

    #[test]
    fn a_text_line_has_colours_only_if_they_are_shown() {
        let plain = logged("info", LogFormat::Text, false);
        assert_eq!(plain.lines().count(), 1, "{plain}");
        assert!(plain.contains("started") && plain.contains("worker=3"), "{plain}");
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(logged("info", LogFormat::Text, true).contains('\x1b'));
    }

    #[test]
    fn the_filter_chooses() {
        assert_eq!(logged("debug", LogFormat::Text, false).lines().count(), 2);
        assert_eq!(logged("off", LogFormat::Text, false), "");
    }

    #[test]
    fn a_malformed_filter_is_refused() {
        let wrong = init("taskyard=loud", LogFormat::Text).expect_err("refused").to_string();
        assert!(wrong.starts_with("\"taskyard=loud\" is not a log filter: "), "{wrong}");
    }
}
