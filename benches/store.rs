//! The store: durable commits per second against what the disk can do, and how long a start takes.
//!
//! `cargo bench --bench store` prints a report first, whose ratios say more than its rates: disk
//! and neighbours are the same for both sides of each. The directory is that of the system's
//! temporary files, or `SIMCAST_BENCH_DIR`.

#![allow(clippy::print_stdout, reason = "the report")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use divan::{Bencher, black_box};
use simcast::clock::Stopwatch;
use simcast::store::{
    Changes, Commit, DiskStore, Durability, Hooks, Key, Notice, Options, RealDisk, Store, Urgency,
};

/// Shows what each benchmark allocates.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const THREADS: [usize; 4] = [1, 8, 64, 256];
/// Each side of a comparison runs so long, so often, in turns.
const TURN: Duration = Duration::from_secs(1);
const TURNS: u32 = 3;
/// A message and its head.
const ROW_BYTES: usize = 300;
const MESSAGES: u64 = 1_000_000;
const SESSIONS: u64 = 100_000;
const ROWS_PER_COMMIT: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        let dir =
            std::env::var_os("SIMCAST_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::tempdir_in(dir).expect("there is a directory");
        commits(dir.path());
        start(dir.path());
    }
    divan::main();
}

/// Threads that wait for what they have committed.
#[derive(Default)]
struct Waiting {
    threads: Mutex<Vec<(Commit, Thread)>>,
    batches: AtomicU64,
    bytes: AtomicU64,
}

impl Waiting {
    fn wake(&self, notice: Notice) {
        let Notice::Durable { commit, bytes, .. } = notice else { return };
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let mut threads = self.threads.lock().expect("nobody panics");
        threads.retain(|(number, thread)| {
            let waits = *number > commit;
            if !waits {
                thread.unpark();
            }
            waits
        });
    }

    fn wait(&self, store: &DiskStore, commit: Commit) {
        self.threads.lock().expect("nobody panics").push((commit, thread::current()));
        while store.durable() < commit {
            thread::park();
        }
    }
}

fn open(path: &Path, durability: Durability, waiting: &Arc<Waiting>) -> (DiskStore, u64) {
    let (waiting, mut rows) = (Arc::clone(waiting), 0);
    let hooks = Hooks {
        rows: &mut |_, value| rows += u64::from(!black_box(value).is_empty()),
        progress: &mut |_| {},
        listener: Box::new(move |notice| waiting.wake(notice)),
    };
    let disk = Arc::new(RealDisk::lock(path).expect("the directory is ours"));
    let options = Options { durability, ..Options::default() };
    (DiskStore::open(disk, &options, hooks).expect("the store opens"), rows)
}

fn key(table: u8, id: u64) -> Key {
    Key { table, id, part: 0 }
}

/// A message comes and an older one goes.
fn step(thread: u64, i: u64) -> Changes {
    let mut changes = Changes::with_room(2, ROW_BYTES);
    let id = thread << 32 | i;
    changes.put(key(1, id), &[i as u8; ROW_BYTES]).expect("is short");
    if i >= 10 {
        changes.delete(key(1, id - 10)).expect("is short");
    }
    changes
}

/// Commits, batches and bytes of one turn.
fn turn(store: &DiskStore, waiting: &Waiting, threads: usize, begin: u64) -> (u64, u64, u64) {
    let before = (waiting.batches.load(Ordering::Relaxed), waiting.bytes.load(Ordering::Relaxed));
    let (stop, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (stop, commits) = (&stop, &commits);
            scope.spawn(move || {
                for i in begin.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting.wait(store, store.commit(step(thread, i), Urgency::Now));
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(TURN);
        stop.store(true, Ordering::Relaxed);
    });
    let batches = waiting.batches.load(Ordering::Relaxed) - before.0;
    let bytes = waiting.bytes.load(Ordering::Relaxed) - before.1;
    (commits.into_inner(), batches, bytes)
}

/// How often the disk writes and syncs so many bytes in one turn.
fn raw(file: &File, at: &mut u64, bytes: usize) -> u64 {
    let (buffer, watch, mut syncs) = (vec![7; bytes], Stopwatch::start(), 0);
    while watch.elapsed() < TURN {
        file.write_all_at(&buffer, *at).and_then(|()| file.sync_data()).expect("the disk works");
        *at += bytes as u64;
        syncs += 1;
    }
    syncs
}

fn commits(dir: &Path) {
    println!("durable commits of {ROW_BYTES} B (one row comes, one goes), by threads that wait:\n");
    println!("threads  commits/s  batches/s  commits/batch  raw syncs/s  batches/raw  commits/raw");
    for threads in THREADS {
        let path = dir.join(format!("store{threads}"));
        let waiting = Arc::new(Waiting::default());
        let (store, _) = open(&path, Durability::Fsync, &waiting);
        let file = File::create(dir.join("raw")).expect("there is room");
        let (mut commits, mut batches, mut syncs, mut at) = (0, 0, 0, 0);
        for i in 0..u64::from(TURNS) {
            let (new_commits, new_batches, bytes) = turn(&store, &waiting, threads, i << 24);
            commits += new_commits;
            batches += new_batches;
            syncs += raw(&file, &mut at, (bytes / new_batches.max(1)) as usize);
        }
        assert!(store.close(PATIENCE));
        let per_second = |count: u64| count as f64 / (TURN * TURNS).as_secs_f64();
        let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        println!(
            "{threads:>7}  {:>9.0}  {:>9.0}  {:>13.1}  {:>11.0}  {:>11.2}  {:>11.1}",
            per_second(commits),
            per_second(batches),
            ratio(commits, batches),
            per_second(syncs),
            ratio(batches, syncs),
            ratio(commits, syncs)
        );
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn start(dir: &Path) {
    let path = dir.join("start");
    let waiting = Arc::new(Waiting::default());
    let (store, _) = open(&path, Durability::Flush, &waiting);
    let watch = Stopwatch::start();
    let mut last = Commit(0);
    for (table, rows) in [(1, MESSAGES), (0, SESSIONS)] {
        for first in (0..rows).step_by(ROWS_PER_COMMIT as usize) {
            let mut changes = Changes::with_room(ROWS_PER_COMMIT as usize, 0);
            for id in first..first + ROWS_PER_COMMIT {
                changes.put(key(table, id), &[id as u8; ROW_BYTES]).expect("is short");
            }
            last = store.commit(changes, Urgency::Now);
        }
    }
    waiting.wait(&store, last);
    let written = watch.elapsed();
    assert!(store.close(PATIENCE));
    drop(store);
    let (before, watch) = (resident(), Stopwatch::start());
    let (store, rows) = open(&path, Durability::Fsync, &waiting);
    let opened = watch.elapsed();
    assert_eq!(rows, MESSAGES + SESSIONS);
    println!(
        "\n{rows} rows of {ROW_BYTES} B: written in {:.2} s, opened in {:.2} s, {} B in memory",
        written.as_secs_f64(),
        opened.as_secs_f64(),
        resident().saturating_sub(before) / rows
    );
    assert!(store.close(PATIENCE));
}

/// What a step of the broker pays for its changes before it goes on.
#[divan::bench(args = [1, 10, 100])]
fn build_changes(bencher: Bencher<'_, '_>, rows: usize) {
    let value = [7; ROW_BYTES];
    let counted = bencher.counter(divan::counter::ItemsCount::new(rows));
    counted.bench(|| {
        let mut changes = Changes::with_room(rows, rows * ROW_BYTES);
        for id in 0..rows as u64 {
            changes.put(key(1, id), black_box(&value)).expect("is short");
        }
        changes
    });
}
