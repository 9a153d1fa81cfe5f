//! ACL files: what each listener's clients may do with ordinary topics.

use std::path::Path;
use std::sync::Arc;

use super::files::{FileError, Files, broken};
use crate::auth::{ACL_BYTES_MAX, Acl};
use crate::broker::{AclSlot, Broker};
use crate::config::Config;

/// Every ACL file of a configuration, and the slots that its listeners look into.
#[derive(Debug)]
pub(super) struct AclFiles(Files<AclSlot>);

impl AclFiles {
    pub(super) fn load(config: &Config) -> Result<Self, FileError> {
        let files = Files::load(
            config,
            ACL_BYTES_MAX,
            |auth| auth.acl_file.as_ref(),
            |auth, path, bytes| {
                let name = path.to_string_lossy();
                Ok(AclSlot::new(&name, parse(path, bytes)?, auth.subscribe))
            },
        )?;
        Ok(Self(files))
    }

    /// The ACL of the listener at this position of the configuration.
    pub(super) fn of_listener(&self, index: usize) -> Option<Arc<AclSlot>> {
        self.0.of_listener(index)
    }

    /// All of them.
    pub(super) fn slots(&self) -> Vec<Arc<AclSlot>> {
        self.0.all()
    }

    /// Reads all files again and puts them in place of what holds. Gives the number of files.
    pub(super) fn reload(&self, broker: &Broker) -> Result<usize, FileError> {
        let fresh = self.0.reread(parse)?;
        let count = fresh.len();
        broker.replace_acls(fresh);
        Ok(count)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Acl, FileError> {
    let line = |mistake: crate::auth::AclMistake| (mistake.line, mistake.fault.to_string());
    Acl::parse(bytes).map_err(|mistakes| broken(path, mistakes.into_iter().map(line)))
}
