//! Power cuts at any moment: all that was acknowledged is there, transactions are whole, and what
//! is there is how it was at one moment.

use super::sim::{Faults, Random, SimDisk};
use super::{Model, OPTIONS, for_seeds, open, random_changes, rows};
use crate::store::log::Log;
use crate::store::{Durability, Options};

/// A broker on a disk, with all it may find there after a crash.
struct World {
    disk: SimDisk,
    random: Random,
    options: Options,
    /// What was acknowledged: the first state that may be found.
    durable: u64,
    /// The rows after each commit from the durable one on.
    states: Vec<(u64, Model)>,
}

impl World {
    fn new(seed: u64, durability: Durability) -> Self {
        let options = Options { durability, ..OPTIONS };
        let states = vec![(0, Model::new())];
        Self { disk: SimDisk::new(seed), random: Random(seed), options, durable: 0, states }
    }

    fn last(&self) -> &(u64, Model) {
        self.states.last().unwrap()
    }

    /// Writes batches until the power goes, or enough are written.
    fn work(&mut self, log: &mut Log, batches: u64) -> Option<()> {
        for _ in 0..batches {
            log.begin(true).ok().or_else(|| (!self.disk.is_dark()).then_some(()))?;
            for _ in 0..self.random.below(4) {
                let (commit, mut model) = self.last().clone();
                let changes = random_changes(&mut self.random, &mut model);
                self.states.push((commit + 1, model));
                log.add(changes.records());
            }
            self.write(log)?;
        }
        Some(())
    }

    /// Tries until it succeeds. `None`: the power is gone.
    fn write(&mut self, log: &mut Log) -> Option<()> {
        let commit = self.last().0;
        while !log.is_idle() {
            match log.write(commit) {
                Ok(()) => self.acknowledge(),
                Err(_) if self.disk.is_dark() => return None,
                Err(_) => {}
            }
        }
        Some(())
    }

    fn acknowledge(&mut self) {
        self.durable = self.last().0;
        if self.options.durability == Durability::Fsync {
            self.states.drain(..self.states.len() - 1);
        }
    }

    /// Opens what is there, though the power goes again and again, and checks it.
    fn recover(&mut self, power_cuts: bool) -> Log {
        let mut cuts = if power_cuts { self.random.below(3) } else { 0 };
        loop {
            if cuts > 0 {
                let calls = self.call_of_opening();
                self.disk.cut_power_after(calls);
            }
            match open(&self.disk, &self.options) {
                Ok(log) if !self.disk.is_dark() => {
                    self.disk.restart();
                    self.check(&log);
                    return log;
                }
                Ok(_) => {}
                Err(error) => assert!(self.disk.is_dark(), "{error}"),
            }
            self.disk.power_on();
            cuts -= 1;
        }
    }

    /// One of the calls that opening takes, with a liking for the last: those change something.
    fn call_of_opening(&mut self) -> u64 {
        let copy = self.disk.copy();
        drop(open(&copy, &self.options).unwrap());
        let calls = copy.calls();
        let first = if self.random.one_in(2) { 0 } else { calls.saturating_sub(12) };
        first + self.random.below(calls - first)
    }

    fn check(&mut self, log: &Log) {
        let found = rows(log).unwrap();
        let Some(at) = self.states.iter().position(|(_, model)| *model == found) else {
            panic!("{} rows as they never were, durable {}", found.len(), self.durable);
        };
        let (commit, _) = self.states[at];
        if self.options.durability == Durability::Fsync {
            assert!(commit >= self.durable, "{commit} of {}", self.durable);
        }
        // The same rows may have been there more than once.
        let commit = log.commit().max(commit);
        self.states = vec![(commit, found)];
        self.durable = commit;
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    // cases C2, C3, C4, C13
    for_seeds(400, |seed| {
        let mut world = World::new(seed, Durability::Fsync);
        let mut cleaned = 0;
        for _ in 0..6 {
            let mut log = world.recover(true);
            world.disk.cut_power_after(world.random.below(150));
            while world.work(&mut log, 10).is_some() {}
            cleaned += log.catalog().oldest().map_or(0, |oldest| oldest.number());
            drop(log);
            // Or the process alone dies: then what was not synced is there, and what is built on
            // it has to survive the next power cut.
            if world.random.one_in(2) { world.disk.restart() } else { world.disk.power_on() }
        }
        world.recover(false);
        assert!(cleaned > 0);
    });
}

#[test]
fn a_segment_is_removed_after_it_is_on_the_disk_that_it_is_not_needed() {
    // The process dies before the batch is synced that says so; the next one reads that batch all
    // the same; and while it opens the log, the power goes.
    let work = |seed: u64, calls: Option<u64>| {
        let mut world = World::new(seed, Durability::Fsync);
        let mut log = world.recover(false);
        if let Some(calls) = calls {
            world.disk.cut_power_after(calls - world.disk.calls());
        }
        let finished = world.work(&mut log, 120);
        assert_eq!(finished.is_none(), calls.is_some());
        drop(log);
        world.disk.restart();
        world
    };
    for seed in 0..3 {
        let removals = work(seed, None).disk.removals();
        assert!(removals.len() >= 2, "{removals:?}");
        for removal in removals {
            // The call before is the sync.
            for from_the_end in (0..10).flat_map(|call| [call; 4]) {
                let mut world = work(seed, Some(removal - 2));
                let copy = world.disk.copy();
                drop(open(&copy, &world.options).unwrap());
                world.disk.cut_power_after(copy.calls() - from_the_end);
                let _log_or_not = open(&world.disk, &world.options);
                world.disk.power_on();
                world.recover(false);
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts_on_a_disk_that_fails() {
    // cases C5, C6
    for_seeds(400, |seed| {
        let mut world = World::new(seed, Durability::Fsync);
        for _ in 0..6 {
            let mut log = world.recover(false);
            let one_in = 2 + world.random.below(8);
            let faults = Faults {
                write_full: one_in,
                sync_fails: one_in,
                name_fails: one_in,
                read_fails: one_in,
            };
            world.disk.set_faults(faults);
            world.disk.cut_power_after(world.random.below(200));
            while world.work(&mut log, 10).is_some() {}
            drop(log);
            world.disk.set_faults(Faults::default());
            world.disk.power_on();
        }
        world.recover(false);
    });
}

#[test]
fn a_power_cut_while_a_store_is_compacted_leaves_the_same_rows() {
    // case C13
    for_seeds(200, |seed| {
        let mut world = World::new(seed, Durability::Fsync);
        for _ in 0..4 {
            let mut log = world.recover(false);
            world.work(&mut log, 20).unwrap();
            drop(log);
            let mut log = world.recover(false);
            world.disk.cut_power_after(world.random.below(60));
            let done = log.rewrite(&mut |_| {}).and_then(|()| log.finish()).is_ok();
            drop(log);
            if done {
                world.disk.restart();
                let segments = world.disk.segments().len();
                assert!(segments <= 12, "{segments}");
            } else {
                world.disk.power_on();
            }
        }
        world.recover(false);
    });
}

#[test]
fn without_sync_a_crash_of_the_process_loses_nothing() {
    for_seeds(200, |seed| {
        let mut world = World::new(seed, Durability::Flush);
        for _ in 0..6 {
            let mut log = world.recover(false);
            world.disk.cut_power_after(world.random.below(150));
            while world.work(&mut log, 10).is_some() {}
            drop(log);
            world.disk.restart();
            let durable = world.durable;
            world.states.retain(|(commit, _)| *commit >= durable);
        }
        world.recover(false);
    });
}

#[test]
fn without_sync_a_power_cut_leaves_how_it_was_at_one_moment() {
    for_seeds(200, |seed| {
        let mut world = World::new(seed, Durability::Flush);
        for _ in 0..6 {
            let mut log = world.recover(true);
            world.disk.cut_power_after(world.random.below(150));
            while world.work(&mut log, 10).is_some() {}
            drop(log);
            world.disk.power_on();
        }
        world.recover(false);
    });
}
