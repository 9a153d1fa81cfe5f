//! The one place that reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Timestamp;

/// Turns the machine's monotonic clock into [`Timestamp`]s: the wall clock is read once, at
/// start, so that a step of the wall clock moves no deadline.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    origin_ms: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        Self { started: Instant::now(), origin_ms: wall_timestamp().0 }
    }

    /// The present moment.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.origin_ms).after(Instant::now().duration_since(self.started))
    }
}

/// Measures how long something takes, finer than [`Clock`] does.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(self.0)
    }
}

/// The wall clock, for what people read: log lines and certificates. It may be stepped, so no
/// deadline is made from it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// [`wall`] in milliseconds of Unix time.
#[must_use]
pub fn wall_timestamp() -> Timestamp {
    let unix = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(unix.as_millis()).unwrap_or(0))
}
