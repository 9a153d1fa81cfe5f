//! The store at work: callers hand over changes and go on; one thread writes.
//!
//! What comes in while the thread is busy is written together: that is all there is to group
//! commit, and it adapts to the disk by itself. Changes stay in memory until they are on the disk,
//! so that a disk which fails for a time loses nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::Disk;
use super::log::{BATCH_BYTES_MAX, Log};
use super::{
    Changes, Commit, Figures, Health, Listener, Notice, Options, Progress, Rows, Store, StoreError,
    Trouble, Urgency, repair,
};
use crate::clock::{self, Stopwatch};

/// What is not urgent waits so long at most before it is written.
pub const LAZY_DELAY: Duration = Duration::from_millis(50);
/// After a failure the disk is tried again after this time.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Who is told what while a store is opened, and afterwards.
pub struct Hooks<'a> {
    /// Gets all rows, before [`DiskStore::open`] returns.
    pub rows: Rows<'a>,
    /// Hears how far that has got.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Hears of every batch, from the thread that writes.
    pub listener: Listener,
}

/// A store on a disk.
pub struct DiskStore {
    shared: Arc<Shared>,
    /// Ends when the thread does; says whether all is durable.
    ended: Mutex<Option<(JoinHandle<()>, Receiver<bool>)>>,
}

/// What callers and thread have in common.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    durable: AtomicU64,
    /// Of changes that are not durable.
    queued_bytes: AtomicUsize,
    queue_bytes_max: usize,
    /// A [`Trouble`]; 0 when there is none.
    trouble: AtomicU8,
    figures: Mutex<Figures>,
}

/// What waits to be written.
struct Queue {
    waiting: VecDeque<Changes>,
    /// Number of the last of them.
    last: u64,
    /// Somebody waits for one of them.
    urgent: bool,
    /// How long the first has waited for which nobody does.
    lazy: Option<Stopwatch>,
    ending: Ending,
}

/// Whether the thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// When everything is written.
    Drained,
    /// At the first failure, at the latest.
    Anyway,
}

impl DiskStore {
    /// Opens the store, or makes it, hands out all rows, and starts the thread. May take seconds.
    ///
    /// # Errors
    /// [`StoreError`]. Failures afterwards are told by [`Store::health`] and got over.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: &Options,
        hooks: Hooks<'_>,
    ) -> Result<Self, StoreError> {
        let Hooks { rows, progress, listener } = hooks;
        let now = repair::stamp(clock::wall_timestamp());
        let log = Log::open(disk, options, &now, progress)?;
        log.load(rows, progress)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                last: log.commit(),
                urgent: false,
                lazy: None,
                ending: Ending::No,
            }),
            wake: Condvar::new(),
            durable: AtomicU64::new(log.commit()),
            queued_bytes: AtomicUsize::new(0),
            queue_bytes_max: options.queue_bytes_max,
            trouble: AtomicU8::new(0),
            figures: Mutex::new(Figures::default()),
        });
        let writer =
            Writer { shared: Arc::clone(&shared), log, listener, paused: None, unreadable: false };
        writer.note_figures(|_| {});
        let (done, ended) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || writer.run(&done)).map_err(StoreError::Thread)?;
        Ok(Self { shared, ended: Mutex::new(Some((thread, ended))) })
    }

    fn end(&self, ending: Ending) {
        lock(&self.shared.queue).ending = ending;
        self.shared.wake.notify_one();
    }
}

impl Store for DiskStore {
    fn commit(&self, changes: Changes, urgency: Urgency) -> Commit {
        let mut queue = lock(&self.shared.queue);
        if !changes.is_empty() {
            queue.last += 1;
            self.shared.queued_bytes.fetch_add(changes.bytes(), Ordering::Relaxed);
            queue.waiting.push_back(changes);
        }
        let wake = match urgency {
            _ if queue.waiting.is_empty() => false,
            Urgency::Now => !std::mem::replace(&mut queue.urgent, true),
            Urgency::Lazy => {
                queue.lazy.is_none() && {
                    queue.lazy = Some(Stopwatch::start());
                    true
                }
            }
        };
        let number = queue.last;
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
        Commit(number)
    }

    fn durable(&self) -> Commit {
        Commit(self.shared.durable.load(Ordering::Acquire))
    }

    fn health(&self) -> Health {
        let trouble = self.shared.trouble.load(Ordering::Acquire);
        if let Some(trouble) = Trouble::ALL.into_iter().find(|known| *known as u8 == trouble) {
            return Health::Failing(trouble);
        }
        let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
        if queued > self.shared.queue_bytes_max { Health::Behind } else { Health::Good }
    }

    fn figures(&self) -> Figures {
        let queued_bytes = self.shared.queued_bytes.load(Ordering::Relaxed) as u64;
        Figures { queued_bytes, ..*lock(&self.shared.figures) }
    }

    fn close(&self, timeout: Duration) -> bool {
        let Some((thread, ended)) = lock(&self.ended).take() else { return false };
        self.end(Ending::Drained);
        let Ok(durable) = ended.recv_timeout(timeout) else {
            self.end(Ending::Anyway);
            return false;
        };
        // It has nothing left to do, and has not panicked before it said so.
        let _joined = thread.join();
        durable
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.end(Ending::Anyway);
    }
}

/// The thread's side.
struct Writer {
    shared: Arc<Shared>,
    log: Log,
    listener: Listener,
    /// Since the oldest segment could not be read; it is tried again after [`RETRY_DELAY`].
    paused: Option<Stopwatch>,
    /// That was so at the last attempt.
    unreadable: bool,
}

impl Writer {
    fn run(mut self, done: &SyncSender<bool>) {
        let mut taken = Vec::new();
        let mut durable = true;
        while durable && self.wait() {
            durable = self.round(&mut taken);
        }
        if durable && let Err(error) = self.log.finish() {
            // Everything is durable; only the word that it is one is missing.
            tracing::warn!("the store cannot be closed in order: {error}");
        }
        drop(self); // whoever hears it may open the store again
        // Nobody listens any more if it took too long.
        let _heard_or_not = done.send(durable);
    }

    /// Waits until there is something to write. `false`: there will be nothing any more.
    fn wait(&mut self) -> bool {
        if self.paused.is_some_and(|paused| paused.elapsed() >= RETRY_DELAY) {
            self.paused = None;
        }
        let idle_max = self.paused.map(|_| RETRY_DELAY);
        let cleans = self.paused.is_none() && self.log.wants_cleaning();
        let mut queue = lock(&self.shared.queue);
        loop {
            if queue.urgent || queue.ending != Ending::No {
                return !queue.waiting.is_empty() || queue.ending == Ending::No;
            }
            let lazy = queue.lazy.map(|lazy| LAZY_DELAY.saturating_sub(lazy.elapsed()));
            if cleans || lazy == Some(Duration::ZERO) {
                return true;
            }
            queue = match lazy.or(idle_max) {
                Some(time) => {
                    let waited = self.shared.wake.wait_timeout(queue, time);
                    let (queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() && idle_max.is_some() {
                        return true;
                    }
                    queue
                }
                None => self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes one batch. `false`: it is not written, and will not be.
    fn round(&mut self, taken: &mut Vec<Changes>) -> bool {
        match self.log.begin(self.paused.is_none()) {
            Ok(()) if self.paused.is_some() => {}
            Ok(()) => self.unreadable = false,
            Err(error) => self.cannot_clean(&error),
        }
        let commit = self.take(taken);
        let (commits, mut committed) = (taken.len(), 0);
        for changes in taken.drain(..) {
            committed += changes.bytes();
            self.log.add(changes.records());
        }
        if self.log.is_idle() {
            return true;
        }
        let bytes = self.log.batch_bytes();
        let Some(took) = self.write(commit) else { return false };
        self.shared.queued_bytes.fetch_sub(committed, Ordering::Relaxed);
        self.shared.durable.store(commit, Ordering::Release);
        self.note_figures(|figures| figures.batches += 1);
        (self.listener)(Notice::Durable { commit: Commit(commit), commits, bytes, took });
        true
    }

    /// Takes what goes into one batch, and gives the number of the last.
    fn take(&mut self, taken: &mut Vec<Changes>) -> u64 {
        let mut bytes = 0;
        let mut queue = lock(&self.shared.queue);
        while let Some(changes) = queue.waiting.front() {
            bytes += changes.bytes();
            if !taken.is_empty() && bytes > BATCH_BYTES_MAX {
                break;
            }
            taken.extend(queue.waiting.pop_front());
        }
        if queue.waiting.is_empty() {
            queue.urgent = false;
            queue.lazy = None;
        }
        queue.last - queue.waiting.len() as u64
    }

    /// Writes the batch, as often as it takes. Gives the time of the attempt that succeeded; `None`
    /// when it is to end before.
    fn write(&mut self, commit: u64) -> Option<Duration> {
        loop {
            let watch = Stopwatch::start();
            match self.log.write(commit) {
                Ok(()) => {
                    let took = watch.elapsed();
                    if self.shared.trouble.swap(0, Ordering::AcqRel) != 0 {
                        tracing::warn!("the store is written again; nothing is lost");
                        (self.listener)(Notice::Recovered);
                    }
                    return Some(took);
                }
                Err(error) => self.failed(&error),
            }
            if !self.wait_to_retry() {
                return None;
            }
        }
    }

    /// What is committed is written nevertheless; the log grows until it can be read again.
    fn cannot_clean(&mut self, error: &io::Error) {
        self.paused = Some(Stopwatch::start());
        self.note_figures(|figures| figures.errors[Trouble::of(error) as usize - 1] += 1);
        if !std::mem::replace(&mut self.unreadable, true) {
            tracing::error!(
                "the oldest segment of the store cannot be read: {error}; no space is given back \
                 until it can"
            );
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let trouble = Trouble::of(error);
        self.note_figures(|figures| figures.errors[trouble as usize - 1] += 1);
        if self.shared.trouble.swap(trouble as u8, Ordering::AcqRel) != trouble as u8 {
            tracing::error!(
                kind = trouble.name(),
                "the store cannot be written: {error}; tried again every second"
            );
            (self.listener)(Notice::Failing(trouble));
        }
    }

    /// `false`: it is not tried again.
    fn wait_to_retry(&self) -> bool {
        let queue = lock(&self.shared.queue);
        let before = queue.ending;
        if before == Ending::Anyway {
            return false;
        }
        let waited =
            self.shared.wake.wait_timeout_while(queue, RETRY_DELAY, |queue| queue.ending == before);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    fn note_figures(&self, change: impl FnOnce(&mut Figures)) {
        let catalog = self.log.catalog();
        let mut figures = lock(&self.shared.figures);
        figures.rows = catalog.rows() as u64;
        figures.bytes = catalog.bytes();
        figures.live_bytes = catalog.live();
        figures.segments = catalog.segments() as u64;
        figures.lost_rows = self.log.lost_rows();
        change(&mut figures);
    }
}

impl Drop for Writer {
    /// Nothing is durable any more after a panic: of the listener, or a mistake here.
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.trouble.store(Trouble::Io as u8, Ordering::Release);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
