//! What has been counted since the start, for the `$SYS` tree.

use std::sync::atomic::Ordering;

use super::label::{Direction, DropReason, Label, PacketType};
use super::{Metrics, OpenConnection};

/// Counts since the broker started, over all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of MQTT read and written.
    pub bytes: Both,
    /// Control packets of any type read and written.
    pub packets: Both,
    /// PUBLISH packets read and written.
    pub publishes: Both,
    /// Bytes of payload in messages taken and sent.
    pub payload_bytes: Both,
    /// Messages that a limit kept from a receiver, or from being retained.
    pub dropped: u64,
    /// Connections accepted, before anything was said.
    pub sockets: u64,
    /// CONNECT packets read.
    pub connects: u64,
    /// Sessions ended because their clients stayed away.
    pub sessions_expired: u64,
    /// Clients connected now.
    pub clients: u64,
    /// Packets that wait for sockets which take no more, and their bytes.
    pub waiting: Waiting,
}

/// One figure for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// From clients.
    pub received: u64,
    /// To clients.
    pub sent: u64,
}

/// Output of connections that their sockets have not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Packets encoded since the output was last empty.
    pub packets: u64,
    /// Bytes that are still to be written.
    pub bytes: u64,
}

impl Metrics {
    /// The counts of this moment.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let both = |of: &dyn Fn(Direction) -> u64| Both {
            received: of(Direction::In),
            sent: of(Direction::Out),
        };
        let limits = [DropReason::QueueFull, DropReason::InboxFull, DropReason::SlowReader];
        let sizes = [DropReason::TooLarge, DropReason::RetainedFull];
        let dropped = limits.iter().chain(&sizes).map(|r| self.messages_dropped.of(*r).get()).sum();
        let every = |way| PacketType::ALL.iter().map(|kind| self.packets.get(way, *kind)).sum();
        Totals {
            bytes: both(&|way| self.bytes.of(way).get()),
            packets: both(&every),
            publishes: both(&|way| self.packets.get(way, PacketType::Publish)),
            payload_bytes: both(&|way| self.payload_bytes.of(way).get()),
            dropped,
            sockets: self.sockets.get(),
            connects: self.packets.get(Direction::In, PacketType::Connect),
            sessions_expired: self.sessions_expired.get(),
            clients: self.clients.load(Ordering::Relaxed),
            waiting: Waiting {
                packets: unsigned(self.waiting_packets.get()),
                bytes: unsigned(self.waiting_bytes.get()),
            },
        }
    }
}

impl OpenConnection {
    /// What this connection's output holds that its socket has not taken.
    pub fn output_waits(&mut self, now: Waiting) {
        if now != self.waits {
            self.waiting_packets.add(signed(now.packets) - signed(self.waits.packets));
            self.waiting_bytes.add(signed(now.bytes) - signed(self.waits.bytes));
            self.waits = now;
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.output_waits(Waiting::default());
        self.open.dec();
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of memory that this process has and that stand for no file: heap, stacks and buffers.
/// `None` where the system does not tell.
#[must_use]
pub fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A gauge of what cannot be negative may be so for a moment, between two threads.
fn unsigned(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or(0)
}
