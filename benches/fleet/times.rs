//! How long things take: one number for each time something was done.

use std::time::{Duration, Instant};

/// Reads the clock that measures; the simulation itself has a clock of its own.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures time as it passes")]
pub fn start() -> Instant {
    Instant::now()
}

/// Measured times.
#[derive(Debug, Default)]
pub struct Samples {
    nanos: Vec<u32>,
}

impl Samples {
    /// Room for so many, so that nothing is allocated while something else is measured.
    pub fn with_capacity(count: usize) -> Self {
        Self { nanos: Vec::with_capacity(count) }
    }

    /// What began then is done now.
    pub fn note(&mut self, began: Instant) {
        let nanos = u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX);
        self.nanos.push(nanos);
    }

    /// What half of them took at most.
    pub fn median(&self) -> Duration {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).copied();
        Duration::from_nanos(u64::from(middle.unwrap_or_default()))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(u64::from(self.nanos.iter().copied().max().unwrap_or_default()))
    }
}
