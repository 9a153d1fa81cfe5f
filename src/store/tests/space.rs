//! What is not needed is given back, and what costs how much.

use std::time::Duration;

use super::sim::{Random, SimDisk};
use super::{OPTIONS, key, open};
use crate::store::log::Log;
use crate::store::{CHANGES_BYTES_MAX, Changes, TooLarge, VALUE_BYTES_MAX};
use crate::store::{Commit, Store, Urgency, memory};

fn write(log: &mut Log, changes: &Changes) {
    log.begin(true).unwrap();
    log.add(changes.records());
    log.write(log.commit() + 1).unwrap();
}

/// What all segments take, and what they may.
fn assert_bounded(log: &Log, disk: &SimDisk, slack: u64) {
    let on_disk: usize = disk.segments().iter().map(|name| disk.contents(name).len()).sum();
    assert_eq!(on_disk as u64, log.catalog().bytes());
    let may = 2 * log.catalog().live() + 5 * u64::from(OPTIONS.segment_bytes) + slack;
    assert!(on_disk as u64 <= may, "{on_disk} of {may}");
}

#[test]
fn under_steady_load_the_log_keeps_its_length() {
    for (rows, cold) in [(1, 0), (50, 0), (200, 0), (50, 150), (0, 150)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk, &OPTIONS).unwrap();
        for id in 0..cold {
            let mut changes = Changes::new();
            changes.put(key(1, id, 0), &[1; 500]).unwrap();
            write(&mut log, &changes);
        }
        let mut random = Random(3);
        for id in 0..3_000 {
            let mut changes = Changes::new();
            changes.put(key(0, id, 0), &vec![2; random.below(1000) as usize]).unwrap();
            if id >= rows {
                changes.delete(key(0, id - rows, 0)).unwrap();
            }
            write(&mut log, &changes);
            if id % 100 == 0 {
                assert_bounded(&log, &disk, 0);
            }
        }
        assert!(log.catalog().oldest().unwrap().number() > 20, "it has written much more");
        assert_eq!(log.catalog().rows() as u64, rows + cold);
        let found = super::rows(&log).unwrap();
        drop(log);
        assert_eq!(super::rows(&open(&disk, &OPTIONS).unwrap()).unwrap(), found);
    }
}

#[test]
fn cleaning_keeps_pace_with_large_commits() {
    let disk = SimDisk::new(5);
    let mut log = open(&disk, &OPTIONS).unwrap();
    for round in 0..200 {
        let mut changes = Changes::new();
        for id in 0..60 {
            changes.put(key(0, round * 60 + id, 0), &[1; 1000]).unwrap();
            if round > 1 {
                changes.delete(key(0, (round - 2) * 60 + id, 0)).unwrap();
            }
        }
        write(&mut log, &changes);
        assert_bounded(&log, &disk, 4 * changes.bytes() as u64);
    }
}

#[test]
fn restarts_and_failures_do_not_leave_thousands_of_segments() {
    let disk = SimDisk::new(2);
    for id in 0..400 {
        let mut log = open(&disk, &OPTIONS).unwrap();
        let mut changes = Changes::new();
        changes.put(key(0, 1, 0), &[0; 10]).unwrap();
        log.begin(true).unwrap();
        log.add(changes.records());
        disk.set_broken(Some(std::io::ErrorKind::StorageFull));
        assert!(log.write(id + 1).is_err());
        disk.set_broken(None);
        log.write(id + 1).unwrap();
    }
    assert!(disk.segments().len() < 30, "{}", disk.segments().len());
}

#[test]
fn an_outage_of_the_disk_leaves_no_files() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, &OPTIONS).unwrap();
    let mut changes = Changes::new();
    changes.put(key(0, 1, 0), &[0; 10]).unwrap();
    write(&mut log, &changes);
    log.begin(true).unwrap();
    log.add(changes.records());
    disk.set_faults(super::sim::Faults { write_full: 2, sync_fails: 2, ..Default::default() });
    for _ in 0..200 {
        if log.write(2).is_ok() {
            log.begin(true).unwrap();
            log.add(changes.records());
        }
    }
    disk.set_faults(super::sim::Faults::default());
    log.write(2).unwrap();
    assert!(disk.all_names().len() < 30, "{:?}", disk.all_names());
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let mut changes = Changes::new();
    changes.put(key(0, 1, 0), b"one").unwrap();
    let before = changes.clone();
    assert_eq!(changes.put(key(0, 2, 0), &vec![0; VALUE_BYTES_MAX + 1]), Err(TooLarge::Value));
    assert_eq!(changes, before);
    let value = vec![0; VALUE_BYTES_MAX];
    let mut rows = 0;
    while changes.put(key(0, 2, rows), &value).is_ok() {
        rows += 1;
    }
    assert_eq!(changes.put(key(0, 2, rows), &value), Err(TooLarge::Changes));
    assert!(changes.bytes() <= CHANGES_BYTES_MAX && rows == 7);
}

#[test]
fn the_largest_changes_are_written_and_read() {
    let disk = SimDisk::new(4);
    let mut log = open(&disk, &OPTIONS).unwrap();
    let mut changes = Changes::new();
    let value = vec![5; VALUE_BYTES_MAX];
    (0..7).for_each(|part| changes.put(key(0, 2, part), &value).unwrap());
    write(&mut log, &changes);
    drop(log);
    let mut log = open(&disk, &OPTIONS).unwrap();
    let found = super::rows(&log).unwrap();
    assert_eq!(found.len(), 7);
    assert!(found.values().all(|found| *found == value));
    let mut changes = Changes::new();
    changes.delete_all(0, 2).unwrap();
    write(&mut log, &changes);
    (0..9).for_each(|_| write(&mut log, &Changes::new()));
    assert_eq!(log.catalog().rows(), 0);
    assert!(log.catalog().bytes() < 100_000, "the space is given back");
}

#[test]
fn in_memory_everything_is_durable_at_once() {
    let store = memory();
    let mut changes = Changes::new();
    changes.put(key(0, 1, 0), b"one").unwrap();
    assert_eq!(store.commit(Changes::new(), Urgency::Now), Commit(0));
    assert_eq!(store.commit(changes.clone(), Urgency::Lazy), Commit(1));
    assert_eq!(store.commit(changes, Urgency::Now), Commit(2));
    assert_eq!(store.durable(), Commit(2));
    assert!(store.close(Duration::ZERO));
}
