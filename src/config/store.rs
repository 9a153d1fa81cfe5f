//! `[store]`: what outlives a restart, and where.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units;

/// The directory of a file that names none, beside the file.
pub(super) const FOLDER: &str = "simcast-data";

/// Where the broker writes down what it must not lose. A configuration that was made by a program
/// keeps nothing; one that was read from a file has a directory unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The directory; it is made if need be, not those above it. Only one broker may use it.
    pub path: Option<PathBuf>,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What is done at start with a directory that is damaged.
    pub on_damage: OnDamage,
    /// Above this, messages of QoS 1 and 2 are refused until the disk has caught up, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_queued_bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: None,
            durability: Durability::Fsync,
            on_damage: OnDamage::Refuse,
            max_queued_bytes: 64 << 20,
        }
    }
}

impl Store {
    /// The directory, where anything is to be written.
    #[must_use]
    pub fn folder(&self) -> Option<&PathBuf> {
        self.path.as_ref().filter(|_| self.durability != Durability::Memory)
    }
}

/// What an acknowledged message survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A power cut: it is acknowledged when the disk says that it has it.
    Fsync,
    /// A crash of the broker, not of the machine.
    Flush,
    /// Nothing: everything is kept in memory alone.
    Memory,
}

/// What is done with a store that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDamage {
    /// The broker does not start.
    Refuse,
    /// Damaged files are put aside, and the broker goes on with what can be read.
    Salvage,
    /// Everything is put aside, and the broker begins anew.
    SetAside,
}
