//! Files that are whole or absent, and keys that nobody else can read at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::PkiError;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Everyone (0644): certificates, lists.
    Public,
    /// The owner alone (0600): keys.
    Secret,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Secret => 0o600,
        }
    }
}

/// Writes a file that appears complete or not at all, and replaces what was there.
pub(super) fn replace(path: &Path, contents: &str, secrecy: Secrecy) -> Result<(), PkiError> {
    let temporary = write_beside(path, contents, secrecy)?;
    fs::rename(&temporary, path).map_err(|error| {
        remove_quietly(&temporary);
        file_error(path, error)
    })
}

/// Like [`replace`], but a file that is there already stays and is an error.
pub(super) fn create(path: &Path, contents: &str, secrecy: Secrecy) -> Result<(), PkiError> {
    let temporary = write_beside(path, contents, secrecy)?;
    // A hard link never replaces anything: no moment between looking and writing.
    let linked = fs::hard_link(&temporary, path);
    remove_quietly(&temporary);
    linked.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return PkiError::Exists(path.into());
        }
        file_error(path, error)
    })
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|error| file_error(path, error))
}

/// Holds off every other process that changes the same authority, until dropped.
pub(super) fn lock(path: &Path) -> Result<File, PkiError> {
    let file = File::open(path).map_err(|error| file_error(path, error))?;
    file.lock().map_err(|error| file_error(path, error))?;
    Ok(file)
}

pub(super) fn file_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::File { path: path.into(), source }
}

fn write_beside(path: &Path, contents: &str, secrecy: Secrecy) -> Result<PathBuf, PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", process::id()));
    let temporary = path.with_file_name(name);
    remove_quietly(&temporary);
    write_new(&temporary, contents, secrecy).map_err(|error| {
        remove_quietly(&temporary);
        file_error(&temporary, error)
    })?;
    Ok(temporary)
}

fn write_new(path: &Path, contents: &str, secrecy: Secrecy) -> io::Result<()> {
    let mode = secrecy.mode();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask can only have taken bits away; this gives the owner's back.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

/// A temporary file that stays behind harms nobody; the error that matters is another one.
fn remove_quietly(path: &Path) {
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_keeps_what_is_there_and_replace_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        create(&path, "one", Secrecy::Secret).unwrap();
        assert!(matches!(create(&path, "two", Secrecy::Secret), Err(PkiError::Exists(_))));
        assert_eq!(read(&path).unwrap(), "one");
        replace(&path, "two", Secrecy::Secret).unwrap();
        assert_eq!(read(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_key_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        create(&path, "k", Secrecy::Secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
