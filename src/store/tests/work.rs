//! The store at work: the thread that writes, and what callers see of it.

use std::io::ErrorKind::{Other, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::sim::{Faults, SimDisk};
use super::{Model, OPTIONS, key, open, rows};
use crate::store::{
    Changes, Commit, DiskStore, Health, Hooks, Notice, Options, Store, Trouble, Urgency,
};

/// Longer than anything takes, unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store at work, and what it says.
struct Place {
    disk: SimDisk,
    store: DiskStore,
    notices: Receiver<Notice>,
}

impl Place {
    fn new(options: &Options) -> Self {
        Self::on(SimDisk::new(1), options)
    }

    fn on(disk: SimDisk, options: &Options) -> Self {
        let (tell, notices) = mpsc::channel();
        let hooks = Hooks {
            rows: &mut |_, _| {},
            progress: &mut |_| {},
            listener: Box::new(move |notice| tell.send(notice).unwrap_or_default()),
        };
        let store = DiskStore::open(Arc::new(disk.clone()), options, hooks).unwrap();
        Self { disk, store, notices }
    }

    fn commit(&self, id: u64, urgency: Urgency) -> Commit {
        self.store.commit(put(id), urgency)
    }

    /// The next notice of a batch.
    fn batch(&self) -> (Commit, usize) {
        loop {
            if let Notice::Durable { commit, commits, .. } = self.notice() {
                return (commit, commits);
            }
        }
    }

    fn notice(&self) -> Notice {
        self.notices.recv_timeout(PATIENCE).unwrap()
    }

    fn wait_for(&self, commit: Commit) {
        while self.batch().0 < commit {}
        assert!(self.store.durable() >= commit);
    }

    /// After a power cut.
    fn found(self) -> Model {
        let Self { disk, store, .. } = self;
        assert!(store.close(PATIENCE));
        disk.power_on();
        rows(&open(&disk, &OPTIONS).unwrap()).unwrap()
    }
}

fn put(id: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(key(0, id, 0), b"value").unwrap();
    changes
}

fn put_long(id: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(key(0, id, 0), &[1; 1000]).unwrap();
    changes
}

#[test]
fn what_waits_while_the_disk_is_busy_is_written_together() {
    // case C11: nobody waits but for the number
    let place = Place::new(&OPTIONS);
    let held = place.disk.hold_syncs();
    let first = place.commit(0, Urgency::Now);
    let syncs_before = place.disk.syncs();
    let last = (1..100).map(|id| place.commit(id, Urgency::Now)).last().unwrap();
    assert_eq!((first, last), (Commit(1), Commit(100)));
    assert_eq!(place.store.durable(), Commit(0));
    assert_eq!(place.store.health(), Health::Good);
    assert!(place.store.figures().queued_bytes >= 100 * 40);
    drop(held);
    place.wait_for(last);
    // Header and first batch; then all that waited, however it fell.
    assert!(place.disk.syncs() - syncs_before <= 4, "{}", place.disk.syncs());
    let figures = place.store.figures();
    assert_eq!((figures.queued_bytes, figures.rows, figures.segments), (0, 100, 1));
    assert_eq!(place.found().len(), 100);
}

#[test]
fn a_full_queue_is_told_before_more_is_taken() {
    let options = Options { queue_bytes_max: 1000, ..OPTIONS };
    let place = Place::new(&options);
    let held = place.disk.hold_syncs();
    let mut last = Commit(0);
    while place.store.health() == Health::Good {
        last = place.commit(last.0, Urgency::Now);
    }
    assert_eq!((place.store.health(), last), (Health::Behind, Commit(26)));
    drop(held);
    place.wait_for(last);
    assert_eq!(place.store.health(), Health::Good);
    assert_eq!(place.found().len(), 26, "what was taken nevertheless is kept");
}

#[test]
fn what_is_not_urgent_goes_with_the_next_or_after_a_while() {
    let place = Place::new(&OPTIONS);
    let first = place.commit(1, Urgency::Lazy);
    assert_eq!(place.batch(), (first, 1), "after a while");
    let held = place.disk.hold_syncs();
    let lazy = place.commit(2, Urgency::Lazy);
    let urgent = place.commit(3, Urgency::Now);
    drop(held);
    assert_eq!((lazy, urgent), (Commit(2), Commit(3)));
    place.wait_for(urgent);
    let lazy = place.commit(4, Urgency::Lazy);
    assert_eq!(place.store.commit(Changes::new(), Urgency::Now), lazy, "nothing hurries the last");
    place.wait_for(lazy);
    assert_eq!(place.found().len(), 4);
}

#[test]
fn a_disk_that_fails_for_a_time_loses_nothing() {
    // cases C6, C17, D18
    let kinds = [
        (StorageFull, Trouble::Full),
        (QuotaExceeded, Trouble::Full),
        (ReadOnlyFilesystem, Trouble::ReadOnly),
        (Other, Trouble::Io),
    ];
    for (kind, trouble) in kinds {
        let place = Place::new(&OPTIONS);
        let first = place.commit(1, Urgency::Now);
        place.wait_for(first);
        place.disk.set_broken(Some(kind));
        let second = place.commit(2, Urgency::Now);
        assert_eq!(place.notice(), Notice::Failing(trouble), "{kind}");
        assert_eq!(place.store.health(), Health::Failing(trouble));
        assert_eq!(place.store.durable(), first);
        let third = place.commit(3, Urgency::Now);
        place.disk.set_broken(None);
        assert_eq!(place.notice(), Notice::Recovered);
        place.wait_for(third);
        assert_eq!(place.store.health(), Health::Good);
        let errors = place.store.figures().errors;
        assert!(errors[trouble as usize - 1] >= 1 && second < third);
        assert_eq!(errors.iter().sum::<u64>(), errors[trouble as usize - 1]);
        assert_eq!(place.found().len(), 3);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_closed_nevertheless_and_says_so() {
    let place = Place::new(&OPTIONS);
    let first = place.commit(1, Urgency::Now);
    place.wait_for(first);
    place.disk.set_broken(Some(StorageFull));
    place.commit(2, Urgency::Now);
    assert_eq!(place.notice(), Notice::Failing(Trouble::Full));
    assert!(!place.store.close(Duration::from_millis(10)));
    assert!(!place.store.close(PATIENCE), "it is closed");
    // The thread lets go of the listener.
    while place.notices.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Disconnected) {}
    place.disk.set_broken(None);
    place.disk.power_on();
    assert_eq!(rows(&open(&place.disk, &OPTIONS).unwrap()).unwrap().len(), 1);
}

#[test]
fn a_segment_that_cannot_be_read_for_a_time_stops_nothing() {
    let place = Place::new(&OPTIONS);
    for id in 0..400 {
        let last = place.store.commit(put_long(id), Urgency::Now);
        if id % 10 == 9 {
            place.wait_for(last);
        }
    }
    place.disk.set_faults(Faults { read_fails: 1, ..Faults::default() });
    let mut changes = Changes::new();
    (0..400).for_each(|id| changes.delete(key(0, id, 0)).unwrap());
    let last = place.store.commit(changes, Urgency::Now);
    place.wait_for(last);
    while place.store.figures().errors[Trouble::Io as usize - 1] == 0 {
        std::thread::yield_now();
    }
    assert_eq!(place.store.health(), Health::Good);
    let last = place.commit(1000, Urgency::Now);
    place.wait_for(last);
    place.disk.set_faults(Faults::default());
    while place.store.figures().segments > 4 {
        place.batch();
    }
    assert_eq!(place.found().len(), 1);
}

#[test]
fn a_listener_that_panics_is_no_silent_end() {
    let listener = Box::new(|_| panic!("a mistake"));
    let hooks = Hooks { rows: &mut |_, _| {}, progress: &mut |_| {}, listener };
    let store = DiskStore::open(Arc::new(SimDisk::new(1)), &OPTIONS, hooks).unwrap();
    store.commit(put(1), Urgency::Now);
    while store.health() == Health::Good {
        std::thread::yield_now();
    }
    assert!(!store.close(PATIENCE));
}

#[test]
fn closing_writes_what_waits_and_numbers_go_on() {
    let place = Place::new(&OPTIONS);
    let last = (0..50).map(|id| place.commit(id, Urgency::Lazy)).last().unwrap();
    assert!(place.store.close(PATIENCE));
    assert_eq!(place.store.durable(), last);
    assert_eq!(place.store.commit(put(99), Urgency::Now), Commit(51), "it has a number");
    assert_eq!(place.store.durable(), last, "and is nowhere");
    let place = Place::on(place.disk, &OPTIONS);
    assert_eq!((place.store.durable(), place.store.figures().rows), (last, 50));
    let next = place.commit(50, Urgency::Now);
    assert_eq!(next, Commit(51));
    place.wait_for(next);
    assert_eq!(place.found().len(), 51);
}

#[test]
fn what_is_too_long_is_cleaned_though_nothing_is_committed() {
    let place = Place::new(&OPTIONS);
    for id in 0..400 {
        let last = place.store.commit(put_long(id), Urgency::Now);
        if id % 10 == 9 {
            place.wait_for(last); // so that not all is one batch
        }
    }
    assert!(place.store.figures().segments > 20);
    let mut changes = Changes::new();
    (0..400).for_each(|id| changes.delete(key(0, id, 0)).unwrap());
    let last = place.store.commit(changes, Urgency::Now);
    place.wait_for(last);
    let mut figures = place.store.figures();
    while figures.segments > 4 {
        place.batch();
        figures = place.store.figures();
    }
    assert_eq!((figures.rows, figures.live_bytes), (0, 0));
    assert_eq!(place.disk.segments().len() as u64, figures.segments);
}

#[test]
fn many_threads_get_increasing_numbers_and_all_is_kept() {
    let place = Place::new(&OPTIONS);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let place = &place.store;
            scope.spawn(move || {
                let mut before = Commit(0);
                for id in 0..200 {
                    let urgency = if id % 3 == 0 { Urgency::Lazy } else { Urgency::Now };
                    let commit = place.commit(put(thread * 1000 + id), urgency);
                    assert!(commit > before);
                    before = commit;
                }
            });
        }
    });
    assert_eq!(place.store.commit(Changes::new(), Urgency::Now), Commit(800));
    assert_eq!(place.found().len(), 800);
}
