//! What the log asks of a disk, few enough calls that a test can stand in for it; and the real one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::segment;

/// Owner alone.
const FILE_MODE: u32 = 0o600;
/// Owner alone.
const FOLDER_MODE: u32 = 0o700;
/// Held by whoever has the store open.
const LOCK: &str = "lock";
/// What a file system itself puts into an empty directory.
const LOST_AND_FOUND: &str = "lost+found";

/// One directory of files. Names are plain, without separators.
///
/// Nothing is on the disk for good before it is synced: what a file holds by [`DiskFile::sync`],
/// that it has its name by [`Disk::sync_names`].
pub trait Disk: Send + Sync {
    /// All files there are, in any order.
    ///
    /// # Errors
    /// The system's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// An empty file to write; one that has the name already is emptied.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// A file that is there, to be read.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// A file that is there, to be written on.
    ///
    /// # Errors
    /// The system's.
    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, and takes that from whatever had it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Keeps what a file holds under a second name, whatever becomes of the first. It must not be
    /// written on any more.
    ///
    /// # Errors
    /// The system's.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names, as they are, survive a power cut.
    ///
    /// # Errors
    /// The system's.
    fn sync_names(&self) -> io::Result<()>;

    /// How people call a file.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from there; fewer bytes mean that the file ends.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all bytes there. After an error any of them may have been written.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Cuts it.
    ///
    /// # Errors
    /// The system's.
    fn cut(&self, bytes: u64) -> io::Result<()>;

    /// Returns when what it holds survives a power cut. After an error it may hold anything where
    /// it was written since the last success, whatever is read from it.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    /// `None` for one that only looks.
    _lock: Option<File>,
}

impl RealDisk {
    /// Makes the directory, unless it is there, and keeps other processes off until dropped. The
    /// directories above it must be there: a slip in a path makes no tree.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NotAStore`], [`StoreError::File`].
    pub fn lock(folder: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::file(folder, source);
        match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Whatever the umask: it has to be listed.
            made => made
                .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)))
                .map_err(failed)?,
        }
        let disk = Self { folder: folder.to_owned(), _lock: None };
        let names = disk.names().map_err(failed)?;
        if !names.is_empty() && !names.iter().any(|name| is_ours(name)) {
            return Err(StoreError::NotAStore(folder.to_owned()));
        }
        close_to_others(&File::open(folder).map_err(failed)?, FOLDER_MODE).map_err(failed)?;
        let lock = take_lock(&disk.path(LOCK), folder)?;
        Ok(Self { _lock: Some(lock), ..disk })
    }

    /// A directory to look at, which somebody else may have open.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::NotAStore`].
    pub(super) fn look(folder: &Path) -> Result<Self, StoreError> {
        let disk = Self { folder: folder.to_owned(), _lock: None };
        let names = disk.names().map_err(|source| StoreError::file(folder, source))?;
        if !names.iter().any(|name| is_ours(name)) {
            return Err(StoreError::NotAStore(folder.to_owned()));
        }
        Ok(disk)
    }

    /// Whether this is the file that keeps others off, which is in every directory that was open.
    pub(super) fn is_lock(name: &str) -> bool {
        name == LOCK
    }

    /// Takes a file of another directory in: by a link where that is possible, and otherwise as a
    /// copy. Nobody may write on it any more.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn take(&self, from: &Self, name: &str) -> io::Result<()> {
        link_or_copy(&from.path(name), &self.path(name))
    }
}

impl Disk for RealDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            // What is not UTF-8 is not ours; a name that says so keeps the directory from being
            // taken for an empty one.
            let name = name.to_string_lossy().into_owned();
            if name != LOST_AND_FOUND {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(self.path(name))?;
        close_to_others(&file, FILE_MODE)?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(self.path(name))?))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        close_to_others(&file, FILE_MODE)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        link_or_copy(&self.path(from), &self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether a store has files of this name.
fn is_ours(name: &str) -> bool {
    name == LOCK || segment::number(name).is_some()
}

fn take_lock(path: &Path, folder: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let lock = options.open(path).map_err(|source| StoreError::file(path, source))?;
    close_to_others(&lock, FILE_MODE).map_err(|source| StoreError::file(path, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::file(path, source)),
    }
}

/// Nobody but the owner reads it, whatever the umask and whoever made it.
fn close_to_others(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if cannot_link(&error) => {}
        linked => return linked,
    }
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(FILE_MODE).open(to)?;
    close_to_others(&copy, FILE_MODE)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Whether a copy may succeed where a link does not: another file system, or one without links.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}
