//! The log at work: callers hand over what happened and go on; one thread writes.
//!
//! What comes in while the thread is busy is written together. A line is in the file as soon as it
//! is written, so that it survives a crash of the process; once in [`SYNC_INTERVAL`] the file is
//! synced, so that a crash of the machine takes the lines of that time at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::chain::Link;
use super::disk::{AuditError, Disk, Torn};
use super::entry::Entry;
use super::recent::{Page, Recent};
use super::{DROPPED, GAP, SELF, TORN_LINE};
use crate::clock::{self, Clock};
use crate::config::Audit;
use crate::ids::Timestamp;
use crate::log::{Rfc3339, Throttle};

/// Entries that wait for the thread; what comes beyond is counted.
const QUEUE_ENTRIES_MAX: usize = 4096;
/// Entries that are written together.
const BATCH_ENTRIES_MAX: usize = 1024;
/// A written line is synced after this time at the latest.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure the disk is tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// One failure is logged in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// How long [`AuditLog::flush`] waits for room in the queue before it looks again.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// The audit log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct AuditLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    clock: Clock,
}

/// What handles and thread have in common.
#[derive(Debug)]
struct Shared {
    recent: Mutex<Recent>,
    written: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    /// Dropped, and not yet said so in the log.
    untold: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Entry(Timestamp, Entry),
    /// Write and sync all; say whether that succeeded; and, perhaps, end.
    Settle {
        done: SyncSender<bool>,
        end: bool,
    },
}

impl AuditLog {
    /// Opens the log, or makes it, and continues its chain. Without a path it is in memory alone.
    ///
    /// # Errors
    /// [`AuditError`]: there is no file that can be written or continued. Failures afterwards are
    /// counted and logged, and the file is written again as soon as that is possible.
    pub fn open(options: &Audit, clock: Clock) -> Result<Self, AuditError> {
        let opened = options.path.as_ref().map(|path| Disk::open(options, path)).transpose()?;
        let (disk, torn) = opened.map_or((None, None), |(disk, torn)| (Some(disk), torn));
        let link = disk.as_ref().map_or(Link::start(), Disk::link);
        let shared = Arc::new(Shared {
            recent: Mutex::new(Recent::new(options.recent, link.seq)),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        });
        let (queue, messages) = mpsc::sync_channel(QUEUE_ENTRIES_MAX);
        let mut writer = Writer {
            messages,
            clock,
            shared: Arc::clone(&shared),
            link,
            disk,
            synced_at: clock.now(),
            trouble: None,
            complaints: Throttle::new(COMPLAINT_INTERVAL, 1),
        };
        if let Some(torn) = torn {
            writer.note_torn(torn);
        }
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run()).map_err(AuditError::Thread)?;
        Ok(Self { queue, shared, clock })
    }

    /// Records what happened, now. Never waits: what the queue has no room for is counted, and the
    /// log says so with an entry [`DROPPED`].
    pub fn record(&self, entry: Entry) {
        let message = Message::Entry(clock::wall_timestamp(), entry);
        if self.queue.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The entries in memory with numbers above `seq`, oldest first, at most `limit` of them.
    #[must_use]
    pub fn since(&self, seq: u64, limit: usize) -> Page {
        lock(&self.shared.recent).since(seq, limit)
    }

    /// The newest entries, oldest first, at most `limit` of them.
    #[must_use]
    pub fn latest(&self, limit: usize) -> Page {
        lock(&self.shared.recent).latest(limit)
    }

    /// Waits until what was recorded before is on the disk. `false`: it is not, after this time.
    /// Blocks the thread it is called from.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.settle(false, timeout)
    }

    /// As [`AuditLog::flush`], and lets go of the file: another log may be opened on it. What is
    /// recorded afterwards is counted as dropped. A log that is closed already gives `false`.
    #[must_use]
    pub fn close(&self, timeout: Duration) -> bool {
        self.settle(true, timeout)
    }

    /// Entries that are on the disk; of a log in memory, all.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Entries that are nowhere: the queue was full, or the disk failed for too long.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Attempts to write that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    fn settle(&self, end: bool, timeout: Duration) -> bool {
        let deadline = self.clock.now().after(timeout);
        let (done, answer) = mpsc::sync_channel(1);
        let mut message = Message::Settle { done, end };
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(message)) if self.clock.now() < deadline => message,
                Err(_) => return false,
            };
            thread::sleep(FULL_WAIT);
        }
        answer.recv_timeout(deadline.since(self.clock.now())).unwrap_or(false)
    }
}

/// The answer to whoever closes the log.
#[derive(Debug)]
struct Closing {
    done: SyncSender<bool>,
    settled: bool,
}

/// The thread's side.
#[derive(Debug)]
struct Writer {
    messages: Receiver<Message>,
    clock: Clock,
    shared: Arc<Shared>,
    /// Where the chain stands.
    link: Link,
    /// `None`: in memory alone.
    disk: Option<Disk>,
    synced_at: Timestamp,
    /// Since the last failure; `None` when all is well.
    trouble: Option<Trouble>,
    complaints: Throttle<()>,
}

/// A time in which the file cannot be written.
#[derive(Debug)]
struct Trouble {
    /// Wall clock.
    since: Timestamp,
    /// The first failure.
    error: String,
    /// Entries for which there was no room any more.
    lost: u64,
    retry_at: Timestamp,
}

impl Writer {
    /// Writes until the last handle is gone, or somebody closes the log.
    fn run(mut self) {
        loop {
            match self.messages.recv_timeout(self.wait()) {
                Ok(message) => {
                    if let Some(closing) = self.take_batch(message) {
                        return self.close(&closing);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.note_dropped();
                    self.settle_at_once();
                    return;
                }
            }
            self.note_dropped();
            self.settle(false);
        }
    }

    /// Lets go of everything before it says so: whoever hears it may open the file.
    fn close(self, closing: &Closing) {
        let Self { messages, shared, disk, .. } = self;
        drop(disk);
        let late = messages.try_iter().filter(|late| matches!(late, Message::Entry(..))).count();
        shared.dropped.fetch_add(late as u64, Ordering::Relaxed);
        drop(messages);
        // Nobody listens any more if it took too long.
        let _heard_or_not = closing.done.send(closing.settled);
    }

    /// How long nothing has to be done, unless something comes in.
    fn wait(&self) -> Duration {
        let settled = self.disk.as_ref().is_none_or(Disk::is_settled);
        if settled || self.trouble.is_some() {
            return RETRY_INTERVAL;
        }
        SYNC_INTERVAL.saturating_sub(self.clock.now().since(self.synced_at))
    }

    /// Takes a message and some of those behind it, until one closes the log.
    fn take_batch(&mut self, first: Message) -> Option<Closing> {
        let mut closing = self.take(first);
        let mut taken = 1;
        while closing.is_none()
            && taken < BATCH_ENTRIES_MAX
            && let Ok(message) = self.messages.try_recv()
        {
            closing = self.take(message);
            taken += 1;
        }
        closing
    }

    fn take(&mut self, message: Message) -> Option<Closing> {
        let (done, end) = match message {
            Message::Entry(time, entry) => {
                self.take_entry(time, &entry);
                return None;
            }
            Message::Settle { done, end } => (done, end),
        };
        self.note_dropped();
        let settled = self.settle_at_once();
        if end {
            return Some(Closing { done, settled });
        }
        // Nobody listens any more if it took too long.
        let _heard_or_not = done.send(settled);
        None
    }

    fn take_entry(&mut self, time: Timestamp, entry: &Entry) {
        if !self.has_room() {
            self.settle(true);
        }
        if self.has_room() {
            self.chain(time, entry);
            return;
        }
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(trouble) = &mut self.trouble {
            trouble.lost += 1;
        }
    }

    fn has_room(&self) -> bool {
        self.disk.as_ref().is_none_or(Disk::has_room)
    }

    /// Makes the next line.
    fn chain(&mut self, time: Timestamp, entry: &Entry) {
        let line: Arc<str> = self.link.append(time, entry).into();
        lock(&self.shared.recent).push(Arc::clone(&line));
        match &mut self.disk {
            Some(disk) => disk.push(line, self.link),
            None => {
                self.shared.written.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Says how many entries the queue had no room for.
    fn note_dropped(&mut self) {
        if !self.has_room() {
            return;
        }
        let count = self.shared.untold.swap(0, Ordering::Relaxed);
        if count > 0 {
            let entry = Entry::new(DROPPED, SELF).with("count", count);
            self.chain(clock::wall_timestamp(), &entry);
        }
    }

    /// Says what a crash has left of a last line.
    fn note_torn(&mut self, torn: Torn) {
        let entry = Entry::new(TORN_LINE, SELF);
        let entry = entry.with("bytes", torn.bytes).with("begins", torn.begins);
        self.chain(clock::wall_timestamp(), &entry);
    }

    /// As [`Writer::settle`], without waiting for the time of the next attempt.
    fn settle_at_once(&mut self) -> bool {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = self.clock.now();
        }
        self.settle(true)
    }

    /// Writes what waits, and syncs when that is asked for or due. Whether all is on the disk.
    fn settle(&mut self, sync: bool) -> bool {
        let now = self.clock.now();
        let Some(disk) = &mut self.disk else { return true };
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            return false;
        }
        // What was in trouble is over when the disk has it.
        let sync = sync || self.trouble.is_some() || now.since(self.synced_at) >= SYNC_INTERVAL;
        let result = disk.write().and_then(|()| if sync { disk.sync() } else { Ok(()) });
        let (settled, written) = (disk.is_settled(), disk.settled());
        self.shared.written.store(written, Ordering::Relaxed);
        if sync {
            self.synced_at = now;
        }
        match (result, self.trouble.take()) {
            (Ok(()), None) => settled,
            (Ok(()), Some(trouble)) => {
                self.recovered(&trouble);
                self.settle(true)
            }
            (Err(error), trouble) => {
                self.failed(&error, trouble, now);
                false
            }
        }
    }

    fn failed(&mut self, error: &AuditError, trouble: Option<Trouble>, now: Timestamp) {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        if let Some(repeats) = self.complaints.admit((), now) {
            tracing::error!(repeats = repeats.field(), "{error}; tried again every second");
        }
        let since = clock::wall_timestamp();
        let first = || Trouble { since, error: error.to_string(), lost: 0, retry_at: now };
        let retry_at = now.after(RETRY_INTERVAL);
        self.trouble = Some(Trouble { retry_at, ..trouble.unwrap_or_else(first) });
    }

    fn recovered(&mut self, trouble: &Trouble) {
        let since = Rfc3339(trouble.since).to_string();
        tracing::warn!(lost = trouble.lost, since, "the audit log is written again");
        let entry = Entry::new(GAP, SELF)
            .with("lost", trouble.lost)
            .with("since", since)
            .with("error", trouble.error.as_str());
        self.chain(clock::wall_timestamp(), &entry);
    }
}

fn lock(recent: &Mutex<Recent>) -> MutexGuard<'_, Recent> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
