//! Log lines on standard error, for people or as JSON, and a brake for those that repeat.
//!
//! Times are RFC 3339 in UTC with milliseconds. No line has a body, a password or a key in it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::IsTerminal;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock;
use crate::config::{Log, LogFormat, LogLevel};
use crate::ids::Timestamp;

/// The variable that beats `[log] level`: `debug`, or by module, `warn,simcast::net=debug`.
pub const FILTER_VARIABLE: &str = "SIMCAST_LOG";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The environment's filter makes no sense.
    #[error(
        "{FILTER_VARIABLE}={0:?} is no log filter; write a level, or `warn,simcast::net=debug`"
    )]
    Filter(String),
    /// Somebody else in this process logs already.
    #[error("a log is set up already")]
    Taken,
}

/// Starts to write log lines to standard error.
///
/// # Errors
/// [`LogError`].
pub fn init(log: Log) -> Result<(), LogError> {
    let filter = filter(log, std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let ansi = std::io::stderr().is_terminal();
    subscriber(log, filter, ansi, std::io::stderr).try_init().map_err(|_| LogError::Taken)
}

fn filter(log: Log, variable: Option<&str>) -> Result<EnvFilter, LogError> {
    if let Some(text) = variable.filter(|text| !text.is_empty()) {
        return EnvFilter::try_new(text).map_err(|_| LogError::Filter(text.to_owned()));
    }
    Ok(EnvFilter::new(match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }))
}

fn subscriber<W>(
    log: Log,
    filter: EnvFilter,
    ansi: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_timer(Utc)
        .with_ansi(ansi)
        .with_writer(writer);
    match log.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

/// Wall-clock time as `2026-11-23T14:05:09.042Z`.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", Rfc3339(clock::wall_timestamp()))
    }
}

/// A moment in UTC as `2026-11-23T14:05:09.042Z`. What is later than the year 9999, which has no
/// such form, prints as its end.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.0) * 1_000_000;
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .unwrap_or(time::PrimitiveDateTime::MAX.assume_utc());
        let (date, month, time) = (at.date(), u8::from(at.month()), at.time());
        write!(f, "{:04}-{month:02}-{:02}T", date.year(), date.day())?;
        let (hour, minute, second, milli) = time.as_hms_milli();
        write!(f, "{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// A name that a peer has chosen, fit for a line: what could end the line, colour it or turn it
/// around is escaped, and a long name is cut.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

/// Line and paragraph separators, and what changes the direction of writing.
fn turns(char: char) -> bool {
    matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters of a name that are logged.
const SHOWN_CHARS: usize = 128;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, char) in self.0.chars().enumerate() {
            if at == SHOWN_CHARS {
                return f.write_str("…");
            }
            if char.is_control() || turns(char) {
                write!(f, "{}", char.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, char)?;
            }
        }
        Ok(())
    }
}

/// Lets one line per reason pass in each interval and counts the others, so that a flood of bad
/// peers is no flood of lines (case D21). The number of reasons it remembers is bounded: those
/// beyond share one place.
#[derive(Debug)]
pub struct Throttle<K> {
    interval: Duration,
    reasons_max: usize,
    reasons: HashMap<K, Window>,
    others: Option<Window>,
}

/// What happened since a line passed.
#[derive(Clone, Copy, Debug)]
struct Window {
    opened: Timestamp,
    suppressed: u64,
}

/// Lines that were held back; prints as `37 more like this in the last 10 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// How many; may be zero.
    pub count: u64,
    /// In which time.
    pub within: Duration,
}

impl Repeats {
    /// Of a line that nothing holds back.
    pub const NONE: Self = Self { count: 0, within: Duration::ZERO };

    /// How many lines were held back, if any: a field of the line that passes.
    #[must_use]
    pub fn field(&self) -> Option<u64> {
        (self.count > 0).then_some(self.count)
    }
}

impl fmt::Display for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more like this in the last {} s", self.count, self.within.as_secs())
    }
}

impl<K: Clone + Eq + Hash> Throttle<K> {
    /// One line per reason and interval.
    #[must_use]
    pub fn new(interval: Duration, reasons_max: usize) -> Self {
        Self { interval, reasons_max, reasons: HashMap::new(), others: None }
    }

    /// Whether to write a line now; if so, with how many were held back since the last one.
    #[must_use]
    pub fn admit(&mut self, reason: K, now: Timestamp) -> Option<Repeats> {
        if let Some(window) = self.reasons.get_mut(&reason) {
            return window.admit(self.interval, now);
        }
        if self.reasons.len() >= self.reasons_max {
            let interval = self.interval;
            self.reasons.retain(|_, window| window.suppressed > 0 || !window.over(interval, now));
        }
        let fresh = Window { opened: now, suppressed: 0 };
        if self.reasons.len() < self.reasons_max {
            self.reasons.insert(reason, fresh);
            return Some(Repeats::NONE);
        }
        match &mut self.others {
            Some(window) => window.admit(self.interval, now),
            None => {
                self.others = Some(fresh);
                Some(Repeats::NONE)
            }
        }
    }

    /// Reasons that have gone quiet with lines still held back, each once: call it now and then,
    /// so that the end of a flood is logged too.
    #[must_use]
    pub fn quiet(&mut self, now: Timestamp) -> Vec<(K, Repeats)> {
        let interval = self.interval;
        let held = self.reasons.iter_mut().filter(|(_, window)| window.suppressed > 0);
        held.filter_map(|(reason, window)| {
            Some((reason.clone(), window.admit_over(interval, now)?))
        })
        .collect()
    }
}

impl Window {
    fn over(&self, interval: Duration, now: Timestamp) -> bool {
        now.since(self.opened) >= interval
    }

    fn admit(&mut self, interval: Duration, now: Timestamp) -> Option<Repeats> {
        let repeats = self.admit_over(interval, now);
        if repeats.is_none() {
            self.suppressed += 1;
        }
        repeats
    }

    fn admit_over(&mut self, interval: Duration, now: Timestamp) -> Option<Repeats> {
        if !self.over(interval, now) {
            return None;
        }
        let repeats = Repeats { count: self.suppressed, within: now.since(self.opened) };
        *self = Self { opened: now, suppressed: 0 };
        Some(repeats)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where a test's lines go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, variable: Option<&str>) -> String {
        let log = Log { format, level: LogLevel::Info };
        let written = Lines::default();
        let writer = written.clone();
        let filter = filter(log, variable).unwrap();
        let subscriber = subscriber(log, filter, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer = "192.0.2.1:5", "hello");
            tracing::debug!("detail");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_name_stays_within_its_line() {
        let evil = "a\nINFO \u{1b}[31m\u{202e}b é";
        assert_eq!(Shown(evil).to_string(), r"a\u{a}INFO \u{1b}[31m\u{202e}b é");
        let long = "x".repeat(SHOWN_CHARS + 1);
        assert_eq!(Shown(&long).to_string().chars().count(), SHOWN_CHARS + 1);
        assert!(Shown(&long).to_string().ends_with('…'));
    }

    #[test]
    fn a_text_line_has_time_level_message_and_fields() {
        let text = lines(LogFormat::Text, None);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("Z  INFO simcast::log::tests: hello peer=\"192.0.2.1:5\""), "{text}");
        assert_eq!(&text[10..11], "T");
        assert_eq!(&text[23..24], "Z", "milliseconds: {text}");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let text = lines(LogFormat::Json, None);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "hello");
        assert_eq!(line["peer"], "192.0.2.1:5");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }

    #[test]
    fn the_environment_beats_the_file() {
        assert!(lines(LogFormat::Text, Some("debug")).contains("DEBUG"));
        assert_eq!(lines(LogFormat::Text, Some("warn")), "");
        assert!(lines(LogFormat::Text, Some("")).contains("INFO"));
        let error = filter(Log::default(), Some("a=b=c")).unwrap_err();
        assert!(error.to_string().starts_with("SIMCAST_LOG=\"a=b=c\" is no log filter"));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(Rfc3339(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000Z");
        let leap = Rfc3339(Timestamp(1_709_210_096_007));
        assert_eq!(leap.to_string(), "2024-02-29T12:34:56.007Z");
        assert_eq!(Rfc3339(Timestamp::NEVER).to_string(), "9999-12-31T23:59:59.999Z");
    }

    const TEN_SECS: Duration = Duration::from_secs(10);

    #[test]
    fn a_flood_is_one_line_per_interval() {
        // case D21: 100,000 in one minute
        let mut throttle = Throttle::new(TEN_SECS, 8);
        let mut written = Vec::new();
        for i in 0..100_000_u64 {
            written.extend(throttle.admit("bad connect", Timestamp(i * 60_000 / 100_000)));
        }
        assert_eq!(written.len(), 6);
        assert_eq!(written[0].count, 0);
        assert_eq!(written[1].to_string(), "16666 more like this in the last 10 s");
        let held = throttle.quiet(Timestamp(60_000));
        assert_eq!(held.len(), 1, "the end of the flood");
        let all = written.iter().map(|r| r.count + 1).sum::<u64>() + held[0].1.count;
        assert_eq!(all, 100_000, "each is written or counted");
        assert_eq!(throttle.quiet(Timestamp(90_000)), [], "and that is said once");
    }

    #[test]
    fn reasons_do_not_hide_each_other() {
        let mut throttle = Throttle::new(TEN_SECS, 8);
        assert!(throttle.admit(1, Timestamp(0)).is_some());
        assert!(throttle.admit(2, Timestamp(0)).is_some());
        assert!(throttle.admit(1, Timestamp(9_999)).is_none());
        let repeats = throttle.admit(1, Timestamp(10_000)).unwrap();
        assert_eq!((repeats.count, repeats.within), (1, TEN_SECS));
    }

    #[test]
    fn the_number_of_reasons_is_bounded() {
        let mut throttle = Throttle::new(TEN_SECS, 4);
        let written = (0..1_000).filter_map(|i| throttle.admit(i, Timestamp(0))).count();
        assert_eq!(written, 5, "four with a place of their own, and one for all others");
        assert_eq!(throttle.reasons.len(), 4);
        assert!(throttle.admit(2_000, Timestamp(10_000)).is_some());
        assert_eq!(throttle.reasons.len(), 1, "quiet reasons make room");
    }
}
