//! The store of a broker: opened before anybody is served, and told when it is further.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use crate::broker::{Broker, Loaded};
use crate::config;
use crate::metrics::Metrics;
use crate::store::{
    DiskStore, Durability, Hooks, Notice, OnDamage, Options, Progress, RealDisk, Stage, StoreError,
};

/// A store, what was in it, and where to say who is to be told when it is further.
pub(super) struct Opened {
    pub(super) store: Arc<DiskStore>,
    pub(super) loaded: Loaded,
    listener: Arc<OnceLock<Weak<Broker>>>,
}

impl Opened {
    /// From now on the broker is told.
    pub(super) fn tell(&self, broker: &Arc<Broker>) {
        // It is called once.
        let _first = self.listener.set(Arc::downgrade(broker));
    }
}

/// Opens the store of a configuration, if it has one, and reads all of it. Takes as long as that
/// takes.
pub(super) fn open(
    config: &config::Store,
    metrics: &Arc<Metrics>,
) -> Result<Option<Opened>, StoreError> {
    let Some(folder) = config.folder() else { return Ok(None) };
    let disk = RealDisk::lock(folder)?;
    let (mut loaded, listener) = (Loaded::default(), Arc::new(OnceLock::new()));
    let (told, counted) = (Arc::clone(&listener), Arc::clone(metrics));
    let mut progress = Lines::new(folder);
    let hooks = Hooks {
        rows: &mut |key, value| loaded.take(key, value),
        progress: &mut |at| progress.note(at),
        listener: Box::new(move |notice| on_notice(notice, &told, &counted)),
    };
    let store = DiskStore::open(Arc::new(disk), &options(config), hooks)?;
    Ok(Some(Opened { store: Arc::new(store), loaded, listener }))
}

fn options(config: &config::Store) -> Options {
    Options {
        durability: match config.durability {
            config::Durability::Fsync => Durability::Fsync,
            config::Durability::Flush => Durability::Flush,
            config::Durability::Memory => Durability::Memory,
        },
        on_damage: match config.on_damage {
            config::OnDamage::Refuse => OnDamage::Refuse,
            config::OnDamage::Salvage => OnDamage::Salvage,
            config::OnDamage::SetAside => OnDamage::SetAside,
        },
        queue_bytes_max: config.max_queued_bytes,
        ..Options::default()
    }
}

fn on_notice(notice: Notice, broker: &OnceLock<Weak<Broker>>, metrics: &Metrics) {
    match notice {
        Notice::Durable { took, .. } => {
            metrics.store_committed(took);
            let broker = broker.get().and_then(Weak::upgrade);
            broker.into_iter().for_each(|broker| broker.on_durable());
        }
        Notice::Recovered => tracing::info!("the store is written again"),
        Notice::Failing(trouble) => tracing::error!(
            trouble = trouble.name(),
            "the store cannot be written: QoS 1 and 2 are refused until it can; what was not \
             acknowledged yet waits"
        ),
    }
}

/// A line for each tenth of what is read, where there is much.
struct Lines {
    folder: String,
    tenth: u64,
}

/// Less than this is read before anybody looks.
const WORTH_A_LINE_BYTES: u64 = 64 << 20;

impl Lines {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.display().to_string(), tenth: 0 }
    }

    fn note(&mut self, at: Progress) {
        let tenth = at.done.saturating_mul(10) / at.total.max(1);
        if at.total < WORTH_A_LINE_BYTES || tenth == self.tenth {
            return;
        }
        self.tenth = tenth;
        let stage = match at.stage {
            Stage::Reading => "checked",
            Stage::Rows => "loaded",
        };
        tracing::info!("store {}: {} % {stage}", self.folder, tenth * 10);
    }
}
