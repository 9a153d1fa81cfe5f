//! The whole log, with its thread.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::audit::{Verified, Verifier};

const LONG: Duration = Duration::from_secs(30);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    fn open(&self) -> AuditLog {
        let options = Audit { path: Some(self.path()), recent: 50, ..Audit::default() };
        AuditLog::open(&options, Clock::start()).unwrap()
    }

    fn verified(&self) -> Verified {
        verified(&[self.path()])
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

fn verified(files: &[PathBuf]) -> Verified {
    let mut verifier = Verifier::new();
    for file in files {
        verifier.file(&*fs::read(file).unwrap()).unwrap();
    }
    verifier.finish().unwrap()
}

fn refusal(i: u64) -> Entry {
    Entry::new("refusal", "device 8904").with("i", i)
}

/// The lines as JSON.
fn json(lines: &[Arc<str>]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_recorded_is_in_the_file_and_in_memory() {
    let place = Place::new();
    let log = place.open();
    let before = clock::wall_timestamp();
    for i in 0..100 {
        log.clone().record(refusal(i));
    }
    assert!(log.flush(LONG));
    assert_eq!((log.written(), log.dropped(), log.errors()), (100, 0, 0));
    let verified = place.verified();
    assert_eq!((verified.lines, verified.first.seq), (100, 1));
    assert!(verified.first.time >= Rfc3339(before).to_string());
    assert!(verified.last.time <= Rfc3339(clock::wall_timestamp()).to_string());

    let page = log.since(0, 1_000);
    assert_eq!((page.lines.len(), page.first, page.newest), (50, 51, 100));
    let text = place.text();
    assert!(page.lines.iter().map(|line| &**line).eq(text.lines().skip(50)), "the same lines");
    assert_eq!(json(&log.since(98, 1).lines)[0]["details"]["i"], 98);
}

#[test]
fn a_log_without_a_file_is_a_chain_in_memory() {
    let log = AuditLog::open(&Audit::default(), Clock::start()).unwrap();
    (0..10).for_each(|i| log.record(refusal(i)));
    assert!(log.flush(LONG));
    let mut verifier = Verifier::new();
    let text = log.since(0, 100).lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    verifier.file(text.as_bytes()).unwrap();
    assert_eq!(verifier.finish().unwrap().lines, 10);
    assert_eq!(log.written(), 10);
}

#[test]
fn the_next_start_continues_the_chain() {
    let place = Place::new();
    for start in 0..3 {
        let log = place.open();
        assert_eq!(log.since(0, 9).newest, start * 2, "known before anything is recorded");
        log.record(refusal(1));
        log.record(refusal(2));
        assert!(log.close(LONG));
        assert_eq!(log.since(0, 9).first, start * 2 + 1);
    }
    assert_eq!(place.verified().lines, 6);
}

#[test]
fn a_torn_line_is_an_entry_of_the_next_start() {
    let place = Place::new();
    let log = place.open();
    (0..3).for_each(|i| log.record(refusal(i)));
    assert!(log.close(LONG));
    let text = place.text();
    fs::write(place.path(), &text[..text.len() - 20]).unwrap();
    let log = place.open();
    log.record(refusal(9));
    assert!(log.flush(LONG));
    let verified = place.verified();
    assert_eq!((verified.lines, verified.holes), (4, 1));
    let lines = json(&log.since(0, 9).lines);
    assert_eq!((&lines[0]["seq"], &lines[0]["event"]), (&3.into(), &TORN_LINE.into()));
    let torn = text.lines().last().unwrap();
    assert_eq!(lines[0]["details"]["bytes"], torn.len() - 19);
    assert_eq!(lines[0]["details"]["begins"], torn[..torn.len() - 19]);
    assert_eq!(lines[1]["details"]["i"], 9);
}

#[test]
fn what_the_queue_has_no_room_for_is_counted_and_told() {
    let place = Place::new();
    let log = place.open();
    // The thread waits for this test when it adds a line.
    let held = lock(&log.shared.recent);
    let all = QUEUE_ENTRIES_MAX as u64 + 1_000;
    (0..all).for_each(|i| log.record(refusal(i)));
    let dropped = log.dropped();
    assert!((1..=1_000).contains(&dropped), "{dropped}");
    drop(held);
    assert!(log.flush(LONG));
    assert_eq!(log.written(), all - dropped + 1);
    let text = place.text();
    let told = text.lines().find(|line| line.contains(DROPPED)).unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!((&told["event"], &told["actor"]), (&DROPPED.into(), &"broker".into()));
    assert_eq!(told["details"]["count"], dropped);
    let verified = place.verified();
    assert_eq!((verified.lines, verified.holes), (all - dropped + 1, 1));
    // And then it goes on.
    log.record(refusal(0));
    assert!(log.flush(LONG));
    assert_eq!((log.dropped(), place.verified().holes), (dropped, 1));
}

#[test]
fn a_disk_that_fails_and_comes_back_leaves_a_gap_entry() {
    let place = Place::new();
    let log = place.open();
    log.record(refusal(0));
    assert!(log.flush(LONG));
    // Its place is taken by a folder.
    let aside = place.dir.path().join("aside");
    fs::rename(place.path(), &aside).unwrap();
    fs::create_dir(place.path()).unwrap();
    log.record(refusal(1));
    assert!(!log.flush(LONG), "it says so, and at once");
    assert!(!log.flush(LONG));
    assert_eq!((log.dropped(), log.written()), (0, 1));
    assert!(log.errors() >= 2);
    assert_eq!(log.since(0, 9).newest, 2, "memory has it");
    fs::remove_dir(place.path()).unwrap();
    log.record(refusal(2));
    assert!(log.flush(LONG));
    let verified = verified(&[aside, place.path()]);
    assert_eq!((verified.lines, verified.holes), (4, 1));
    let gap = &json(&log.since(3, 1).lines)[0];
    assert_eq!((&gap["event"], &gap["details"]["lost"]), (&GAP.into(), &0.into()));
    assert!(gap["details"]["error"].as_str().unwrap().contains("by somebody else"), "{gap}");
    assert!(gap["details"]["since"].as_str().unwrap().ends_with('Z'), "{gap}");
}

#[test]
fn what_a_failing_disk_had_no_room_for_is_counted_in_the_gap() {
    let place = Place::new();
    let log = place.open();
    fs::rename(place.path(), place.dir.path().join("aside")).unwrap();
    fs::create_dir(place.path()).unwrap();
    let long = "x".repeat(500);
    let mut recorded = 0;
    while log.dropped() == 0 {
        for _ in 0..QUEUE_ENTRIES_MAX / 2 {
            let entry = refusal(recorded);
            let names = ["a", "b", "c", "d", "e", "f", "g"];
            log.record(names.into_iter().fold(entry, |e, name| e.with(name, long.as_str())));
            recorded += 1;
        }
        assert!(!log.flush(LONG));
        assert!(recorded < 100_000, "what waits is bounded");
    }
    let lost = log.dropped();
    assert!(log.errors() > 0);
    fs::remove_dir(place.path()).unwrap();
    assert!(log.flush(LONG));
    let verified = place.verified();
    assert_eq!((verified.lines, verified.holes), (recorded - lost + 1, 1));
    let gap = json(&log.since(verified.last.seq - 1, 1).lines).remove(0);
    assert_eq!((&gap["event"], &gap["details"]["lost"]), (&GAP.into(), &lost.into()));
    assert!(gap["details"]["error"].as_str().unwrap().contains("by somebody else"), "{gap}");
}

#[test]
fn many_threads_make_one_chain() {
    let place = Place::new();
    let log = place.open();
    thread::scope(|scope| {
        for t in 0..4 {
            let log = log.clone();
            scope.spawn(move || (0..500).for_each(|i| log.record(refusal(t * 1_000 + i))));
        }
    });
    assert!(log.flush(LONG));
    assert_eq!((place.verified().lines, log.dropped()), (2_000, 0));
    for t in 0..4 {
        let own = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["details"]["i"].as_u64().filter(|i| i / 1_000 == t)
        };
        let text = place.text();
        assert!(text.lines().filter_map(own).is_sorted(), "in the order of each thread");
    }
}

#[test]
fn a_log_that_is_closed_or_dropped_lets_go_of_its_file() {
    let place = Place::new();
    let log = place.open();
    let options = Audit { path: Some(place.path()), ..Audit::default() };
    let second = AuditLog::open(&options, Clock::start());
    assert!(matches!(second, Err(AuditError::Locked(_))));
    log.record(refusal(0));
    assert!(log.close(LONG));
    let next = place.open();
    log.record(refusal(1));
    assert!(!log.flush(LONG) && !log.close(LONG), "it is closed");
    assert_eq!(log.dropped(), 1);
    next.record(refusal(2));
    drop(next);
    // Its thread writes what is there before it ends.
    let third = iter_until(|| AuditLog::open(&options, Clock::start()).ok());
    assert_eq!(place.verified().lines, 2);
    drop(third);
}

fn iter_until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never came");
}

#[test]
fn what_was_recorded_is_on_the_disk_without_being_asked_for() {
    let place = Place::new();
    let log = place.open();
    for i in 0..3 {
        log.record(refusal(i));
        iter_until(|| (log.written() == i + 1).then_some(()));
        assert_eq!(place.verified().lines, i + 1);
    }
}
