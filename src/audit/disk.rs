//! The files of the log: appended to, synced, rotated, and found again after a crash or a failure.
//!
//! A line stays in memory until it is known to be on the disk. After a failure the file is opened
//! anew, cut to what was known, and the rest is written again: so nothing is lost or doubled as
//! long as there is room for what waits.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{LINE_BYTES_MAX, Line, Link};
use super::entry::TEXT_BYTES_MAX;
use super::verify::Flaw;
use crate::config::Audit;

/// Bytes of lines that wait to be on the disk.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Where the end of the last line is looked for: a crash of the machine may leave as much of
/// nothing behind it as was not yet on the disk.
const TAIL_BYTES_MAX: u64 = (WAITING_BYTES_MAX + 2 * LINE_BYTES_MAX) as u64;
/// About as many bytes are given to the system at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Owner alone.
const FILE_MODE: u32 = 0o600;
/// With what every line begins.
const LINE_BEGINS: &[u8] = b"{\"seq\":";

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The system refuses something.
    #[error("audit log {}: {source}", path.display())]
    File {
        /// What it is about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Its path is taken by something that is no file.
    #[error("audit log {}: is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// Another process writes it; two would break the chain.
    #[error("audit log {}: another simcast writes it; each needs its own", .0.display())]
    Locked(PathBuf),
    /// There is no chain that could be continued.
    #[error(
        "audit log {}: its last line cannot be continued ({flaw}); `simcast audit verify` says \
         more. Move the file away to begin another one",
        path.display()
    )]
    Tail {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its last line.
        flaw: Flaw,
    },
    /// It is not as it was left: somebody has moved, replaced or changed it.
    #[error("audit log {}: was moved, replaced or changed by somebody else", .0.display())]
    Foreign(PathBuf),
    /// The system gives no thread to write with.
    #[error("audit log: the system gives no thread: {0}")]
    Thread(io::Error),
}

/// What a crash has left of a last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// How many bytes.
    pub(super) bytes: u64,
    /// The first of them.
    pub(super) begins: String,
}

/// The files, and the lines that are not known to be on the disk.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    file_bytes_max: u64,
    keep: u16,
    /// Held as long as the log is written.
    _lock: File,
    /// `None` after a failure.
    open: Option<Open>,
    /// How far the newest file is known to be in order.
    safe: Safe,
    /// Lines with where the chain stands after them, oldest first; the first `written` of them are
    /// in the file.
    waiting: VecDeque<(Arc<str>, Link)>,
    waiting_bytes: usize,
    written: usize,
    /// Lines that got onto the disk.
    settled: u64,
}

/// The file that is written.
#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// How far the newest file is known to be in order.
#[derive(Clone, Copy, Debug)]
struct Safe {
    /// Which file: device and number.
    id: (u64, u64),
    bytes: u64,
    /// Where the chain stands there.
    link: Link,
}

impl Disk {
    /// Finds or makes the file. Gives what was cut off, too.
    pub(super) fn open(options: &Audit, path: &Path) -> Result<(Self, Option<Torn>), AuditError> {
        make_folder(path)?;
        let lock = lock(path)?;
        let (open, safe, torn) = find(path, options.keep)?;
        let disk = Self {
            path: path.to_owned(),
            file_bytes_max: options.max_bytes,
            keep: options.keep,
            _lock: lock,
            open: Some(open),
            safe,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            written: 0,
            settled: 0,
        };
        Ok((disk, torn))
    }

    /// Where the chain stands on the disk.
    pub(super) fn link(&self) -> Link {
        self.safe.link
    }

    /// Lines that got onto the disk.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether all lines are on the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a line of any length may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.waiting_bytes + LINE_BYTES_MAX < WAITING_BYTES_MAX
    }

    /// Takes the next line, and where the chain stands after it.
    pub(super) fn push(&mut self, line: Arc<str>, link: Link) {
        self.waiting_bytes += line.len() + 1;
        self.waiting.push_back((line, link));
    }

    /// Writes what waits into the file: it survives the end of this process.
    pub(super) fn write(&mut self) -> Result<(), AuditError> {
        let result = self.try_write();
        self.checked(result)
    }

    /// Makes sure of what was written: it survives the end of the machine.
    pub(super) fn sync(&mut self) -> Result<(), AuditError> {
        let result = self.try_sync();
        self.checked(result)
    }

    /// After a failure nobody knows what the file has beyond what is safe.
    fn checked(&mut self, result: Result<(), AuditError>) -> Result<(), AuditError> {
        if result.is_err() {
            self.open = None;
            self.written = 0;
        }
        result
    }

    fn try_write(&mut self) -> Result<(), AuditError> {
        if self.written == self.waiting.len() {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|open| !self.is_in_place(open)) {
            // Wherever the file is now, it shall have what was written to it.
            self.try_sync()?;
            return Err(AuditError::Foreign(self.path.clone()));
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.find_again()?,
        };
        while self.written < self.waiting.len() {
            if self.is_full(&open) {
                self.open = Some(open);
                self.try_sync()?;
                open = self.rotate()?;
            }
            self.append(&mut open)?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Whether the file is the one that the path names, and nobody else has written to it.
    fn is_in_place(&self, open: &Open) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|found| id(&found) == self.safe.id && found.len() == open.bytes)
    }

    /// Whether there is no room for the next line. An empty file has room for any.
    fn is_full(&self, open: &Open) -> bool {
        let next = self.waiting.get(self.written).map_or(0, |(line, _)| line.len() as u64 + 1);
        open.bytes > 0 && open.bytes + next > self.file_bytes_max
    }

    /// Writes some lines at once: at least one, then as many as the file has room for.
    fn append(&mut self, open: &mut Open) -> Result<(), AuditError> {
        let (mut chunk, mut lines) = (Vec::new(), 0);
        for (line, _) in self.waiting.iter().skip(self.written) {
            let after = open.bytes + (chunk.len() + line.len() + 1) as u64;
            if lines > 0 && (after > self.file_bytes_max || chunk.len() >= CHUNK_BYTES) {
                break;
            }
            chunk.extend_from_slice(line.as_bytes());
            chunk.push(b'\n');
            lines += 1;
        }
        open.file.write_all(&chunk).map_err(failed(&self.path))?;
        open.bytes += chunk.len() as u64;
        self.written += lines;
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), AuditError> {
        let Some(open) = self.open.as_ref().filter(|_| self.written > 0) else { return Ok(()) };
        open.file.sync_data().map_err(failed(&self.path))?;
        self.safe.bytes = open.bytes;
        for (line, link) in self.waiting.drain(..self.written) {
            self.waiting_bytes -= line.len() + 1;
            self.safe.link = link;
        }
        self.settled += self.written as u64;
        self.written = 0;
        Ok(())
    }

    /// Puts the file, all of which is on the disk, behind a new one.
    fn rotate(&mut self) -> Result<Open, AuditError> {
        make_way(&self.path, self.keep).map_err(failed(&self.path))?;
        fs::rename(&self.path, numbered(&self.path, 1)).map_err(failed(&self.path))?;
        self.begin()
    }

    /// A new file, in which the chain goes on.
    fn begin(&mut self) -> Result<Open, AuditError> {
        let (file, id) = create(&self.path)?;
        self.safe = Safe { id, bytes: 0, ..self.safe };
        Ok(Open { file, bytes: 0 })
    }

    /// The file after a failure, cut to what is known to be in order.
    fn find_again(&mut self) -> Result<Open, AuditError> {
        make_folder(&self.path)?;
        let Some((file, found)) = open_existing(&self.path)? else { return self.begin() };
        if found.len() == 0 {
            self.safe = Safe { id: id(&found), bytes: 0, ..self.safe };
        } else if !self.continues(&file, &found) {
            return Err(AuditError::Foreign(self.path.clone()));
        }
        self.safe.id = id(&found);
        let bytes = self.safe.bytes;
        file.set_len(bytes).map_err(failed(&self.path))?;
        Ok(Open { file, bytes })
    }

    /// Whether a file that has something in it has our last line where it was.
    fn continues(&self, file: &File, found: &Metadata) -> bool {
        let Safe { id: ours, bytes, link } = self.safe;
        if bytes == 0 {
            return id(found) == ours;
        }
        let tail = (found.len() >= bytes).then(|| Tail::of(file, bytes, &self.path));
        matches!(tail, Some(Ok(Tail { link: Some(found), torn: None, .. })) if found == link)
    }
}

/// The file at start.
fn find(path: &Path, keep: u16) -> Result<(Open, Safe, Option<Torn>), AuditError> {
    let Some((file, found)) = open_existing(path)? else {
        let link = link_of_older(path, keep)?;
        let (file, id) = create(path)?;
        return Ok((Open { file, bytes: 0 }, Safe { id, bytes: 0, link }, None));
    };
    let Tail { link, end, torn } = Tail::of(&file, found.len(), path)?;
    let link = match link {
        Some(link) => link,
        None => link_of_older(path, keep)?,
    };
    if torn.is_some() {
        file.set_len(end).and_then(|()| file.sync_all()).map_err(failed(path))?;
    }
    Ok((Open { file, bytes: end }, Safe { id: id(&found), bytes: end, link }, torn))
}

/// Where the chain stands at the end of the newest file that was rotated away.
fn link_of_older(path: &Path, keep: u16) -> Result<Link, AuditError> {
    for number in 1..=u32::from(keep) {
        let path = numbered(path, number);
        let Some((file, found)) = open_existing(&path)? else { continue };
        return match Tail::of(&file, found.len(), &path)? {
            Tail { link: Some(link), torn: None, .. } => Ok(link),
            Tail { .. } => Err(AuditError::Tail { path, flaw: Flaw::BrokenOff }),
        };
    }
    Ok(Link::start())
}

/// The end of a file.
#[derive(Debug)]
struct Tail {
    /// Where the chain stands, if there is a whole line.
    link: Option<Link>,
    /// Where the last whole line ends.
    end: u64,
    /// What is behind it.
    torn: Option<Torn>,
}

impl Tail {
    /// Of the first so many bytes of a file. A file that does not look like an audit log is an
    /// error: nobody shall lose another one by a slip in a path.
    fn of(file: &File, bytes: u64, path: &Path) -> Result<Self, AuditError> {
        let wrong = |flaw| AuditError::Tail { path: path.to_owned(), flaw };
        let start = bytes.saturating_sub(TAIL_BYTES_MAX);
        let mut tail = vec![0; usize::try_from(bytes - start).unwrap_or(0)];
        file.read_exact_at(&mut tail, start).map_err(failed(path))?;
        let newline = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = newline(&tail) else {
            if start > 0 || !may_be_torn(&tail) {
                return Err(wrong(Flaw::NoLine("it has no end".to_owned())));
            }
            return Ok(Self { link: None, end: 0, torn: Torn::of(&tail) });
        };
        let line = newline(&tail[..end]).map_or(0, |before| before + 1);
        let line = Line::read(&tail[line..end]).map_err(wrong)?;
        let torn = Torn::of(&tail[end + 1..]);
        Ok(Self { link: Some(line.link()), end: start + end as u64 + 1, torn })
    }
}

impl Torn {
    fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let begins = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
        let begins = String::from_utf8_lossy(begins).into_owned();
        Some(Self { bytes: bytes.len() as u64, begins })
    }
}

/// Whether this can be what a crash left of a first line: its beginning, or room that was never
/// filled.
fn may_be_torn(bytes: &[u8]) -> bool {
    let begins = bytes.starts_with(LINE_BEGINS) || LINE_BEGINS.starts_with(bytes);
    begins || bytes.iter().all(|byte| *byte == 0)
}

/// Moves older files so that the number 1 becomes free, and removes those beyond `keep`. Where it
/// is free nothing is moved: a rotation that fails and is tried again pushes no file out.
fn make_way(path: &Path, keep: u16) -> io::Result<()> {
    let keep = u32::from(keep.max(1));
    let is_free = |number: &u32| fs::symlink_metadata(numbered(path, *number)).is_err();
    let free = (1..=keep).find(is_free).unwrap_or(keep);
    for number in (1..free).rev() {
        fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    let beyond = (keep + 1..).map(|number| numbered(path, number));
    beyond.map(fs::remove_file).take_while(Result::is_ok).for_each(drop);
    Ok(())
}

/// `audit.log.1`: the newest that was rotated away.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder, not those above it: a slip in a path makes no tree.
fn make_folder(path: &Path) -> Result<(), AuditError> {
    let folder = folder(path);
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        made => made.map_err(failed(folder)),
    }
}

/// Holds off other processes until dropped. A file of its own: the log's is renamed.
fn lock(path: &Path) -> Result<File, AuditError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let file = path.with_file_name(name);
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file);
    let lock = lock.map_err(failed(&file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(&file)(error)),
    }
}

/// A file that must not be there yet, for its owner alone.
fn create(path: &Path) -> Result<(File, (u64, u64)), AuditError> {
    let file = OpenOptions::new().append(true).read(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(failed(path))?;
    let found = close_to_others(&file).and_then(|()| file.metadata()).map_err(failed(path))?;
    // So that its name is there after a crash of the machine, too.
    File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(failed(path))?;
    Ok((file, id(&found)))
}

/// A file that is there, or `None`.
fn open_existing(path: &Path) -> Result<Option<(File, Metadata)>, AuditError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    if !found.is_file() {
        return Err(AuditError::NotAFile(path.to_owned()));
    }
    let file = OpenOptions::new().append(true).read(true).open(path).map_err(failed(path))?;
    let found = close_to_others(&file).and_then(|()| file.metadata()).map_err(failed(path))?;
    Ok(Some((file, found)))
}

/// Nobody but the owner reads it, whatever the umask and whoever made it.
fn close_to_others(file: &File) -> io::Result<()> {
    if file.metadata()?.mode() & 0o7777 == FILE_MODE {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(FILE_MODE))
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    move |source| AuditError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
