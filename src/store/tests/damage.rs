//! Bits that turn over, files that are cut, emptied, missing or foreign: it is found, confined,
//! told, and got over if that is wanted.

use std::sync::Arc;

use super::sim::{Random, SimDisk};
use super::{Model, NOW, OPTIONS, key, open, random_changes, rows};
use crate::store::backup::bring_back;
use crate::store::record::{ALIGN, Batch, HEAD_BYTES, Head, Kind, Salt};
use crate::store::segment::{self, HEADER_BYTES, Header, Item, Scanner};
use crate::store::{
    Changes, Damage, Damaged, Damages, Disk, Key, OnDamage, Options, StoreError, repair,
};

const SALVAGE: Options = Options { on_damage: OnDamage::Salvage, ..OPTIONS };
const SET_ASIDE: Options = Options { on_damage: OnDamage::SetAside, ..OPTIONS };

/// A store of some segments that was closed in order.
struct Place {
    disk: SimDisk,
    model: Model,
    /// After each commit.
    states: Vec<Model>,
}

impl Place {
    fn new(seed: u64, commits: u64) -> Self {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed);
        let mut log = open(&disk, &OPTIONS).unwrap();
        let mut model = Model::new();
        let mut states = vec![model.clone()];
        for commit in 1..=commits {
            log.begin(false).unwrap();
            log.add(random_changes(&mut random, &mut model).records());
            log.write(commit).unwrap();
            states.push(model.clone());
        }
        log.finish().unwrap();
        Self { disk, model, states }
    }

    /// With this byte of a file changed.
    fn flipped(&self, name: &str, at: usize, bits: u8) -> SimDisk {
        let disk = self.disk.copy();
        let mut contents = disk.contents(name);
        contents[at] ^= bits;
        disk.replace(name, &contents);
        disk
    }

    /// All records of a segment with where they begin.
    fn records(&self, name: &str) -> Vec<(u32, Head)> {
        let number = segment::number(name).unwrap();
        let file = self.disk.open(name).unwrap();
        let (header, whole) = Header::read(&*file, number).unwrap().unwrap();
        assert!(whole);
        let end = file.bytes().unwrap() as u32;
        let mut scanner = Scanner::new(file, header.salt, HEADER_BYTES, end);
        let mut records = Vec::new();
        while let Some(item) = scanner.next().unwrap() {
            let Item::Record { at, head, .. } = item else { panic!("{item:?}") };
            records.push((at, head));
        }
        records
    }
}

fn damages(disk: &SimDisk) -> Damages {
    match open(disk, &OPTIONS) {
        Err(StoreError::Damaged { damages, .. }) => damages,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("no damage is found"),
    }
}

/// Opens it, puts right what can be, and opens it once more as if nothing had been.
fn salvaged(disk: &SimDisk) -> Model {
    let rows_found = rows(&open(disk, &SALVAGE).unwrap()).unwrap();
    assert_eq!(rows(&open(disk, &OPTIONS).unwrap()).unwrap(), rows_found);
    rows_found
}

/// Whether a record has to do with a row.
fn concerns(head: &Head, row: Key) -> bool {
    match head.kind {
        Kind::Batch => false,
        Kind::Put | Kind::Delete => head.key == row,
        Kind::DeleteAll => (head.key.table, head.key.id) == (row.table, row.id),
    }
}

#[test]
fn a_bit_that_turns_over_anywhere_is_found_and_costs_one_record() {
    // case C7
    let place = Place::new(1, 60);
    let mut random = Random(7);
    let segments = place.disk.segments();
    assert!(segments.len() >= 3);
    for name in &segments {
        let records = place.records(name);
        let bytes = place.disk.contents(name).len();
        for at in (0..bytes).step_by(23) {
            let disk = place.flipped(name, at, 1 << random.below(8));
            if is_last_mark(&place, name, at) {
                assert_eq!(rows(&open(&disk, &OPTIONS).unwrap()).unwrap(), place.model);
                continue;
            }
            let found = damages(&disk);
            assert_eq!((found.count, found.told.len()), (1, 1), "{name} {at}: {found:?}");
            let Damage { file, at: from, bytes, what } = &found.told[0];
            assert!(file == name && (*from..from + bytes).contains(&(at as u64)), "{at} {found:?}");
            let hit = records.iter().rev().find(|(begin, _)| *begin as usize <= at);
            let Some((_, head)) = hit else {
                assert_eq!(*what, Damaged::HeaderCopy);
                assert_eq!(salvaged(&disk), place.model);
                continue;
            };
            let kept = |model: &Model| {
                let mut model = model.clone();
                model.retain(|row, _| !concerns(head, *row));
                model
            };
            assert_eq!(kept(&salvaged(&disk)), kept(&place.model), "{name} {at}");
        }
    }
}

/// Whether this is the batch by which the log was closed: it says nothing that is missed.
fn is_last_mark(place: &Place, name: &str, at: usize) -> bool {
    let newest = place.disk.segments().pop().unwrap();
    name == newest && at >= place.disk.contents(name).len() - Batch::BYTES
}

#[test]
fn what_is_damaged_is_put_aside_and_told() {
    let place = Place::new(2, 60);
    let name = segment::name(2);
    let records = place.records(&name);
    let (at, head) = records.iter().find(|(_, head)| head.kind == Kind::Put).unwrap();
    let disk = place.flipped(&name, *at as usize + HEAD_BYTES, 1);
    let before = disk.contents(&name);
    let error = open(&disk, &OPTIONS).err().unwrap().to_string();
    let Key { table, id, part } = head.key;
    for words in [
        "store /sim/: damaged in 1 place;",
        &format!("{name}: at offset {at}"),
        &format!("table {table}, id {id}, part {part}"),
        "simcast store check",
        "on_damage = \"salvage\"",
        "Nothing was changed",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(disk.contents(&name), before, "and nothing was");
    salvaged(&disk);
    assert_eq!(disk.contents(&format!("{name}.corrupt-{NOW}")), before);
    assert_ne!(disk.contents(&name), before);
}

#[test]
fn a_file_that_was_cut_in_the_newest_segment_leaves_how_it_was_at_one_moment() {
    // case C8
    let place = Place::new(3, 12);
    let name = place.disk.segments().pop().unwrap();
    let contents = place.disk.contents(&name);
    for (at, _) in place.records(&name) {
        for bytes in [at - 1, at, at + 1] {
            let disk = place.disk.copy();
            disk.replace(&name, &contents[..bytes as usize]);
            if bytes < HEADER_BYTES {
                continue;
            }
            let log = open(&disk, &OPTIONS).unwrap();
            let commit = log.commit() as usize;
            assert_eq!(rows(&log).unwrap(), place.states[commit], "{bytes}");
        }
    }
}

#[test]
fn a_file_that_was_cut_in_an_older_segment_is_damage() {
    // case C8
    let place = Place::new(4, 40);
    let name = segment::name(1);
    let contents = place.disk.contents(&name);
    for (at, _) in place.records(&name) {
        for bytes in [at - 1, at, at + 1] {
            let disk = place.disk.copy();
            disk.replace(&name, &contents[..bytes as usize]);
            let found = damages(&disk);
            let cut =
                |damage: &Damage| matches!(damage.what, Damaged::CutOff | Damaged::HeaderCopy);
            assert!(found.told.iter().any(cut), "{bytes} {found:?}");
            salvaged(&disk);
        }
    }
}

#[test]
fn a_store_that_cannot_be_read_is_refused_or_set_aside() {
    // cases C8, C9
    let place = Place::new(5, 3);
    assert_eq!(place.disk.segments(), [segment::name(1)]);
    let length = place.disk.contents(&segment::name(1)).len();
    for contents in [vec![0; length], Vec::new(), b"something else".repeat(200)] {
        let disk = place.disk.copy();
        disk.replace(&segment::name(1), &contents);
        for options in [OPTIONS, SALVAGE] {
            let refused = open(&disk, &options).err().unwrap();
            assert!(matches!(refused, StoreError::Unreadable(_)), "{refused}");
            assert_eq!(disk.contents(&segment::name(1)), contents);
        }
        let log = open(&disk, &SET_ASIDE).unwrap();
        assert_eq!(rows(&log).unwrap(), Model::new());
        assert_eq!(disk.segments(), [""; 0]);
        assert_eq!(disk.contents(&format!("00000001.log.corrupt-{NOW}")), contents);
    }
}

#[test]
fn a_segment_without_header_is_got_over_when_others_have_one() {
    let place = Place::new(6, 60);
    let segments = place.disk.segments();
    for name in &segments {
        for contents in [vec![0; place.disk.contents(name).len()], Vec::new()] {
            let disk = place.disk.copy();
            disk.replace(name, &contents);
            let found = damages(&disk);
            assert_eq!((found.count, found.told[0].what), (1, Damaged::Header));
            let rows = salvaged(&disk);
            assert!(rows.len() < place.model.len() + 20);
            assert_eq!(disk.contents(&format!("{name}.corrupt-{NOW}")), contents);
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let place = Place::new(7, 60);
    let segments = place.disk.segments();
    for name in &segments[..segments.len() - 1] {
        let disk = place.disk.copy();
        disk.take_away(name);
        let found = damages(&disk);
        assert_eq!((found.count, found.told[0].what), (1, Damaged::Missing));
        assert_eq!(&found.told[0].file, name);
        salvaged(&disk);
    }
}

#[test]
fn a_later_format_is_refused_whatever_is_asked_for() {
    // cases C8, C10
    let place = Place::new(8, 3);
    let disk = place.disk.copy();
    let mut contents = disk.contents(&segment::name(1));
    for copy in contents[..HEADER_BYTES as usize].chunks_exact_mut(512) {
        copy[8] = 9;
        let crc = crc32c::crc32c(&copy[..508]);
        copy[508..].copy_from_slice(&crc.to_le_bytes());
    }
    disk.replace(&segment::name(1), &contents);
    for options in [OPTIONS, SALVAGE, SET_ASIDE] {
        let error = open(&disk, &options).err().unwrap();
        assert!(matches!(error, StoreError::Newer { version: 9, .. }));
        assert!(error.to_string().contains("a later simcast has written it"), "{error}");
        assert_eq!(disk.contents(&segment::name(1)), contents);
    }
}

#[test]
fn a_power_cut_during_a_repair_leaves_something_to_repair() {
    let place = Place::new(9, 60);
    let damaged = place.disk.copy();
    for number in [1, 3] {
        let name = segment::name(number);
        let mut contents = damaged.contents(&name);
        contents[2000] ^= 4;
        contents[5000] ^= 4;
        damaged.replace(&name, &contents);
    }
    let expected = salvaged(&damaged.copy());
    for calls in 0..200 {
        let disk = damaged.copy();
        disk.cut_power_after(calls);
        let opened = open(&disk, &SALVAGE).is_ok();
        disk.power_on();
        assert_eq!(salvaged(&disk), expected, "{calls}");
        if opened {
            return;
        }
    }
    panic!("a repair takes fewer calls");
}

#[test]
fn a_power_cut_while_a_store_is_set_aside_never_leaves_a_part_of_it() {
    let place = Place::new(10, 60);
    let newest = place.disk.segments().pop().unwrap();
    for calls in (0..60).flat_map(|calls| [calls; 10]) {
        let disk = place.flipped(&segment::name(2), 3000, 1);
        disk.cut_power_after(calls);
        // Nobody begins with it before it is done.
        let opened = open(&disk, &SET_ASIDE).is_ok();
        disk.power_on();
        match open(&disk, &OPTIONS) {
            Ok(log) => assert_eq!(rows(&log).unwrap(), Model::new()),
            Err(StoreError::Damaged { .. }) => {
                assert!(!opened && disk.segments().contains(&newest));
            }
            Err(error) => panic!("{error}"),
        }
        let log = open(&disk, &SET_ASIDE).unwrap();
        assert_eq!(rows(&log).unwrap(), Model::new());
    }
}

#[test]
fn a_power_cut_while_a_backup_is_brought_back_leaves_no_part_of_it_to_begin_with() {
    let place = Place::new(13, 60);
    let mut whole = 0;
    for calls in (0..60).flat_map(|calls| [calls; 10]) {
        let (backup, disk) = (place.disk.copy(), place.disk.copy());
        disk.all_names().iter().for_each(|name| disk.take_away(name));
        disk.cut_power_after(calls);
        let brought = bring_back(&backup, &disk, &mut |_| {}).is_ok();
        disk.power_on();
        match open(&disk, &OPTIONS) {
            Ok(log) if log.catalog().segments() > 0 => {
                assert_eq!(rows(&log).unwrap(), place.model);
                whole += 1;
            }
            Ok(_) => assert!(!brought && disk.segments().is_empty()),
            Err(StoreError::Damaged { .. }) => assert!(!brought),
            Err(error) => panic!("{error}"),
        }
    }
    assert!((10..590).contains(&whole), "{whole}");
}

#[test]
fn a_record_in_a_payload_is_no_record() {
    // Whoever knows the format and another store's checksums must not get a row in, not even where
    // the record around the payload is damaged.
    let disk = SimDisk::new(11);
    let mut log = open(&disk, &OPTIONS).unwrap();
    let (victim, inner) = (key(1, 1, 0), key(9, 9, 9));
    let mut forged = Changes::new();
    forged.put(inner, b"forged").unwrap();
    let mut payload = Vec::new();
    while payload.len() < 3000 {
        // As it would stand here, with a salt that is as good a guess as any.
        let at = HEADER_BYTES + (Batch::BYTES + HEAD_BYTES + payload.len()) as u32;
        let mut record = forged.records().to_vec();
        Salt { secret: 42, number: 1 }.seal(&mut record, at);
        assert_eq!(record.len() % ALIGN, 0);
        payload.extend(record);
    }
    let mut changes = Changes::new();
    changes.put(victim, &payload).unwrap();
    log.begin(false).unwrap();
    log.add(changes.records());
    log.write(1).unwrap();
    log.finish().unwrap();
    let name = segment::name(1);
    let mut contents = disk.contents(&name);
    contents[HEADER_BYTES as usize + Batch::BYTES] ^= 1; // the length of the victim
    disk.replace(&name, &contents);
    assert_eq!(damages(&disk).count, 1);
    assert_eq!(salvaged(&disk), Model::new());
}

#[test]
fn a_segment_that_is_damaged_while_it_is_used_is_kept_when_it_is_cleaned() {
    let disk = SimDisk::new(12);
    let mut log = open(&disk, &OPTIONS).unwrap();
    let write = |log: &mut crate::store::log::Log, commit: u64, id: u64| {
        let mut changes = Changes::new();
        changes.put(key(0, id, 0), &[7; 1000]).unwrap();
        log.begin(true).unwrap();
        log.add(changes.records());
        log.write(commit).unwrap();
    };
    (1..=40).for_each(|id| write(&mut log, id, id));
    let name = segment::name(1);
    let mut contents = disk.contents(&name);
    contents[HEADER_BYTES as usize + 200] ^= 1;
    disk.write_over(&name, &contents);
    (41..=400).for_each(|commit| write(&mut log, commit, 10 + commit % 30));
    assert_eq!(log.lost_rows(), 1);
    let mut names = disk.all_names();
    names.retain(|name| name.starts_with("00000001.log.corrupt-"));
    assert_eq!(names.len(), 1);
    assert_eq!(disk.contents(&names[0]), contents);
    let found = rows(&log).unwrap();
    assert_eq!(found.len(), log.catalog().rows());
    assert!(!found.contains_key(&key(0, 1, 0)) && found.contains_key(&key(0, 2, 0)));
    drop(log);
    assert_eq!(rows(&open(&disk, &OPTIONS).unwrap()).unwrap(), found);
    let (survey, ..) = repair::read_once(&*(Arc::new(disk) as Arc<dyn Disk>), &mut |_| {}).unwrap();
    assert_eq!(survey.damages.count, 0);
}
