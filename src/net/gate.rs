//! How many may come in, and how fast. Who is refused is told why, as long as that costs little.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::ids::Timestamp;
use crate::metrics::ConnectResult;
use crate::mqtt::ReasonCode;

/// The gate that all listeners share.
#[derive(Debug)]
pub(super) struct Gate {
    connections: Arc<Semaphore>,
    /// Who is refused and being told.
    refused: Arc<Semaphore>,
    rate: Option<Mutex<Rate>>,
}

/// A place in the crowd; given back when it is dropped.
pub(super) type Place = [OwnedSemaphorePermit; 2];

/// Who is at the gate.
#[derive(Debug)]
pub(super) enum Admission {
    /// Come in.
    Admitted(Place),
    /// No; there is time to say why.
    Told(NoEntry, OwnedSemaphorePermit),
    /// No.
    Closed(NoEntry),
}

/// Why somebody stays outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoEntry {
    #[error("the listener's `max_connections` is reached")]
    Listener,
    #[error("`limits.max_connections` is reached")]
    Broker,
    #[error("`limits.connect_rate` is reached")]
    Rate,
}

/// Connections that are refused and told so at the same time; they take TLS handshakes and file
/// descriptors too. The others are closed at once.
const TOLD_MAX: usize = 128;

/// How long somebody who is refused may take to a whole CONNECT.
pub(super) const TOLD_PATIENCE: Duration = Duration::from_secs(2);

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            refused: Arc::new(Semaphore::new(TOLD_MAX)),
            rate: (limits.connect_rate > 0).then(|| Mutex::new(Rate::new(limits.connect_rate))),
        }
    }

    /// Judges a connection to a listener with these places of its own.
    pub(super) fn ask(&self, listener: &Arc<Semaphore>, now: Timestamp) -> Admission {
        let no_entry = match self.place(listener, now) {
            Ok(place) => return Admission::Admitted(place),
            Err(no_entry) => no_entry,
        };
        match Arc::clone(&self.refused).try_acquire_owned() {
            Ok(permit) => Admission::Told(no_entry, permit),
            Err(_many) => Admission::Closed(no_entry),
        }
    }

    fn place(&self, listener: &Arc<Semaphore>, now: Timestamp) -> Result<Place, NoEntry> {
        if let Some(rate) = &self.rate
            && !rate.lock().unwrap_or_else(PoisonError::into_inner).admits(now)
        {
            return Err(NoEntry::Rate);
        }
        let place = |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).try_acquire_owned();
        let own = place(listener).map_err(|_| NoEntry::Listener)?;
        let all = place(&self.connections).map_err(|_| NoEntry::Broker)?;
        Ok([own, all])
    }
}

impl NoEntry {
    pub(super) fn reason(self) -> ReasonCode {
        match self {
            // Table 3-1 of version 5: "an implementation or administrative imposed limit". "Server
            // busy" (0x89) would be about load, and invite everybody to come back at once.
            Self::Listener | Self::Broker => ReasonCode::QuotaExceeded,
            Self::Rate => ReasonCode::ConnectionRateExceeded,
        }
    }

    pub(super) fn result(self) -> ConnectResult {
        match self {
            Self::Listener | Self::Broker => ConnectResult::QuotaExceeded,
            Self::Rate => ConnectResult::RateExceeded,
        }
    }
}

/// A bucket of connects: full it holds those of one second.
#[derive(Debug)]
struct Rate {
    a_second: u64,
    thousandths: u64,
    filled: Timestamp,
}

impl Rate {
    fn new(a_second: u32) -> Self {
        let a_second = u64::from(a_second);
        Self { a_second, thousandths: a_second * 1000, filled: Timestamp::default() }
    }

    fn admits(&mut self, now: Timestamp) -> bool {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        self.filled = self.filled.max(now);
        let gained = millis.saturating_mul(self.a_second);
        self.thousandths = self.thousandths.saturating_add(gained).min(self.a_second * 1000);
        if self.thousandths < 1000 {
            return false;
        }
        self.thousandths -= 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_its_connects_and_no_more() {
        let mut rate = Rate::new(3);
        let start = Timestamp(1_000_000);
        let admitted =
            |rate: &mut Rate, now: Timestamp| (0..10).filter(|_| rate.admits(now)).count();
        assert_eq!(admitted(&mut rate, start), 3);
        assert_eq!(admitted(&mut rate, Timestamp(start.0 + 333)), 0);
        assert_eq!(admitted(&mut rate, Timestamp(start.0 + 334)), 1);
        assert_eq!(admitted(&mut rate, Timestamp(start.0 + 1_000_000)), 3);
        // A clock that other threads have read later is no gain.
        assert_eq!(admitted(&mut rate, start), 0);
        assert_eq!(admitted(&mut rate, Timestamp(start.0 + 1_000_100)), 0);
    }

    #[test]
    fn few_are_told_and_the_others_closed() {
        let limits = Limits { max_connections: 1, ..Limits::default() };
        let gate = Gate::new(&limits);
        let listener = Arc::new(Semaphore::new(2));
        let now = Timestamp(1);
        let Admission::Admitted(_place) = gate.ask(&listener, now) else { panic!("there is room") };
        let mut told = Vec::new();
        for _ in 0..TOLD_MAX {
            let Admission::Told(NoEntry::Broker, permit) = gate.ask(&listener, now) else {
                panic!("not told")
            };
            told.push(permit);
        }
        assert!(matches!(gate.ask(&listener, now), Admission::Closed(NoEntry::Broker)));
        drop(told);
        assert!(matches!(gate.ask(&listener, now), Admission::Told(NoEntry::Broker, _)));
    }
}
