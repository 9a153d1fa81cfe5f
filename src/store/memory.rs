//! A store that keeps nothing: everything is as durable as it will ever be at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Changes, Commit, Figures, Health, Store, Urgency};

/// See [`memory()`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    last: AtomicU64,
}

/// A store for [`super::Durability::Memory`]: changes are counted and dropped.
#[must_use]
pub fn memory() -> MemoryStore {
    MemoryStore::default()
}

impl Store for MemoryStore {
    fn commit(&self, changes: Changes, _urgency: Urgency) -> Commit {
        let new = u64::from(!changes.is_empty());
        Commit(self.last.fetch_add(new, Ordering::AcqRel) + new)
    }

    fn durable(&self) -> Commit {
        Commit(self.last.load(Ordering::Acquire))
    }

    fn health(&self) -> Health {
        Health::Good
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn close(&self, _timeout: Duration) -> bool {
        true
    }
}
