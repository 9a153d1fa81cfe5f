//! What the store says of itself.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Family, Registrar, observe};
use super::{Label, Snapshot, StoreTrouble};

const COMMIT_BUCKETS_SECS: &[f64] = &[0.0002, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0];

pub(super) struct StoreMetrics {
    commit: Histogram,
    bytes: IntGauge,
    queued_bytes: IntGauge,
    errors: Family<StoreTrouble>,
}

impl StoreMetrics {
    pub(super) fn new(add: &Registrar<'_>) -> Self {
        Self {
            commit: add.histogram(
                "store_commit_seconds",
                "Time to write and sync a batch of changes.",
                COMMIT_BUCKETS_SECS,
            ),
            bytes: add.gauge("store_bytes", "Bytes of the store's files."),
            queued_bytes: add.gauge("store_queued_bytes", "Bytes that wait for the disk."),
            errors: add.family(
                "store_errors_total",
                "Failures to write, each tried again.",
                "kind",
            ),
        }
    }

    pub(super) fn committed(&self, took: Duration) {
        observe(&self.commit, took);
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes.set(gauge(snapshot.store_bytes));
        self.queued_bytes.set(gauge(snapshot.store_queued_bytes));
        for (kind, count) in StoreTrouble::ALL.iter().zip(snapshot.store_errors) {
            let counter: &IntCounter = self.errors.of(*kind);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
