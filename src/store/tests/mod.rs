//! The store against a disk that fails in every way, and on a real one.

mod crash;
mod damage;
mod real;
pub(crate) mod sim;
mod space;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::log::Log;
use super::{Changes, Key, OnDamage, Options, StoreError};
use sim::{Random, SimDisk};

/// What the rows should be.
type Model = BTreeMap<Key, Vec<u8>>;

/// Small segments, so that few changes fill many.
const OPTIONS: Options = Options {
    durability: super::Durability::Fsync,
    on_damage: OnDamage::Refuse,
    segment_bytes: 16 << 10,
    queue_bytes_max: 1 << 20,
};

const NOW: &str = "20261123T140509Z";

fn key(table: u8, id: u64, part: u32) -> Key {
    Key { table, id, part }
}

fn open(disk: &SimDisk, options: &Options) -> Result<Log, StoreError> {
    Log::open(Arc::new(disk.clone()), options, NOW, &mut |_| {})
}

/// All rows, each of which comes once and in its place.
fn rows(log: &Log) -> Result<Model, StoreError> {
    let mut rows: Vec<(Key, Vec<u8>)> = Vec::new();
    log.load(&mut |key, value| rows.push((key, value.to_vec())), &mut |_| {})?;
    assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(rows.len(), log.catalog().rows());
    Ok(rows.into_iter().collect())
}

/// Some rows put and deleted, in the model too.
fn random_changes(random: &mut Random, model: &mut Model) -> Changes {
    let mut changes = Changes::new();
    for _ in 0..=random.below(4) {
        let key = key(random.below(2) as u8, random.below(8), random.below(3) as u32);
        match random.below(8) {
            0 => {
                changes.delete_all(key.table, key.id).unwrap();
                model.retain(|other, _| (other.table, other.id) != (key.table, key.id));
            }
            1 | 2 => {
                changes.delete(key).unwrap();
                model.remove(&key);
            }
            _ => {
                let bytes = if random.one_in(8) { 4000 } else { 300 };
                let value = vec![random.next() as u8; random.below(bytes) as usize];
                changes.put(key, &value).unwrap();
                model.insert(key, value);
            }
        }
    }
    changes
}

/// Runs a test for many seeds: as many as `SIMCAST_SEEDS` says, or the one of `SIMCAST_SEED`.
fn for_seeds(usually: u64, test: impl Fn(u64)) {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = variable("SIMCAST_SEED") {
        return test(seed);
    }
    for seed in 0..variable("SIMCAST_SEEDS").unwrap_or(usually) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(seed)));
        assert!(result.is_ok(), "replay with SIMCAST_SEED={seed}");
    }
}
