//! ACL files: read at start and again on SIGHUP.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::{ACL_BYTES_MAX, Acl, AclMistake};
use crate::broker::{AclSlot, Broker};
use crate::config::{Auth, Config};

/// Every ACL file of a configuration, and the slots that its listeners look into.
#[derive(Debug)]
pub(super) struct AclFiles {
    files: Vec<AclFile>,
    /// In the order of the listeners.
    of_listeners: Vec<Option<Arc<AclSlot>>>,
}

#[derive(Debug)]
struct AclFile {
    path: PathBuf,
    slot: Arc<AclSlot>,
}

/// Why an ACL file was not taken. Broken lines are printed one below the other, in the
/// `file:line: text` form that editors jump to.
#[derive(Debug, thiserror::Error)]
pub enum AclFileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It has broken lines; half of the rights are none.
    #[error("{}", Mistakes(path, mistakes))]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Its broken lines.
        mistakes: Vec<AclMistake>,
    },
    /// Nothing is in it, where something was before: somebody may be writing it.
    #[error("{}: is empty; write a comment into it if nobody may do anything", .0.display())]
    Emptied(PathBuf),
}

struct Mistakes<'a>(&'a Path, &'a [AclMistake]);

impl fmt::Display for Mistakes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, AclMistake { line, fault }) in self.1.iter().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            write!(f, "{separator}{}:{line}: {fault}", self.0.display())?;
        }
        Ok(())
    }
}

impl AclFiles {
    /// Reads the files that the listeners' `[auth]` sections name. Listeners under one section
    /// share one ACL.
    pub(super) fn load(config: &Config) -> Result<Self, AclFileError> {
        let mut files = Vec::new();
        let mut slot = |auth: &Auth| -> Result<_, AclFileError> {
            let Some(path) = &auth.acl_file else { return Ok(None) };
            let slot = Arc::new(AclSlot::new(parse(path, &read(path)?)?, auth.subscribe));
            files.push(AclFile { path: path.clone(), slot: Arc::clone(&slot) });
            Ok(Some(slot))
        };
        let common = slot(&config.auth)?;
        let of_listener = |own: Option<&Auth>| own.map_or_else(|| Ok(common.clone()), &mut slot);
        let of_listeners = config.listeners.iter().map(|l| l.auth.as_ref()).map(of_listener);
        let of_listeners = of_listeners.collect::<Result<_, _>>()?;
        Ok(Self { files, of_listeners })
    }

    /// The ACL of the listener at this position of the configuration.
    pub(super) fn of_listener(&self, index: usize) -> Option<Arc<AclSlot>> {
        self.of_listeners.get(index).cloned().flatten()
    }

    /// Reads all files again and puts them in place of what holds. One that is not in order changes
    /// nothing anywhere. Gives the number of files.
    pub(super) fn reload(&self, broker: &Broker) -> Result<usize, AclFileError> {
        let mut fresh = Vec::with_capacity(self.files.len());
        for AclFile { path, slot } in &self.files {
            let bytes = read(path)?;
            if bytes.iter().all(u8::is_ascii_whitespace) {
                return Err(AclFileError::Emptied(path.clone()));
            }
            fresh.push((Arc::clone(slot), parse(path, &bytes)?));
        }
        broker.replace_acls(fresh);
        Ok(self.files.len())
    }
}

/// The bytes of a file, and one more than an ACL may have where there are more.
fn read(path: &Path) -> Result<Vec<u8>, AclFileError> {
    let mut bytes = Vec::new();
    let bound = ACL_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(bound).read_to_end(&mut bytes))
        .map_err(|error| AclFileError::Unreadable { path: path.to_owned(), error })?;
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Acl, AclFileError> {
    Acl::parse(bytes).map_err(|mistakes| AclFileError::Broken { path: path.to_owned(), mistakes })
}
