//! A store copied while it is written, brought back, and made small.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::check::{ATTEMPTS, Check, check, is_gone};
use super::disk::{Disk, RealDisk};
use super::log::Log;
use super::segment::{self, UNFINISHED_SUFFIX};
use super::{Options, Progress, Stage, StoreError};

/// Copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Puts a copy of a store into another directory, also while a broker has it open, and checks it.
/// The copy is the log up to some point, so everything in it is as it was at one moment, and what
/// was acknowledged before the call is in it. Segments that are not written any more are linked
/// where both directories are on one file system: that takes no time and no space, and is no help
/// when that file system is lost.
///
/// # Errors
/// [`StoreError::NotEmpty`], [`StoreError::Damaged`] (the copy is left as it is), and others.
pub fn backup(
    folder: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Check, StoreError> {
    let from = RealDisk::look(folder)?;
    let copy = empty(to)?;
    let mut attempt = 1;
    loop {
        match copy_log(&from, &copy) {
            Err(error) if attempt < ATTEMPTS && is_gone(&error) => {
                attempt += 1;
                clear(&copy).map_err(|source| StoreError::file(to, source))?;
            }
            copied => break copied?,
        }
    }
    whole(to, progress)
}

/// Puts a backup where a broker will look for it.
///
/// # Errors
/// [`StoreError::NotEmpty`], [`StoreError::Damaged`], and others.
pub fn restore(
    backup: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Check, StoreError> {
    whole(backup, progress)?;
    bring_back(&RealDisk::look(backup)?, &empty(folder)?, progress)?;
    whole(folder, progress)
}

/// Copies a whole log. The oldest segment gets its name last: a log without it is not taken for a
/// whole one, so a crash in between leaves nothing that a broker would begin with.
pub(super) fn bring_back(
    from: &dyn Disk,
    to: &dyn Disk,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut numbers = numbers(from)?;
    numbers.reverse();
    let total = numbers.len() as u64;
    let unfinished = |name: &str| format!("{name}{UNFINISHED_SUFFIX}");
    for (done, number) in (1..).zip(&numbers) {
        let name = segment::name(*number);
        copy_file(from, to, &name, &unfinished(&name))
            .map_err(|source| StoreError::file(&to.path(&name), source))?;
        progress(Progress { stage: Stage::Rows, done, total });
    }
    for number in &numbers {
        let name = segment::name(*number);
        to.rename(&unfinished(&name), &name)
            .and_then(|()| to.sync_names())
            .map_err(|source| StoreError::file(&to.path(&name), source))?;
    }
    Ok(())
}

/// Writes what lives into new segments and removes the others. Nobody may have the store open. A
/// crash in between leaves a store with the same rows.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::Damaged`], and others.
pub fn compact(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Check, StoreError> {
    RealDisk::look(folder)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::lock(folder)?);
    let failed = |source| StoreError::file(folder, source);
    let mut log = Log::open(Arc::clone(&disk), &Options::default(), "", progress)?;
    log.rewrite(progress).and_then(|()| log.finish()).map_err(failed)?;
    disk.sync_names().map_err(failed)?;
    whole(folder, progress)
}

/// A directory to write into, with nothing in it.
fn empty(folder: &Path) -> Result<RealDisk, StoreError> {
    let not_empty = || StoreError::NotEmpty(folder.to_owned());
    let disk = RealDisk::lock(folder).map_err(|error| match error {
        StoreError::NotAStore(_) => not_empty(),
        error => error,
    })?;
    let names = disk.names().map_err(|source| StoreError::file(folder, source))?;
    if names.iter().any(|name| !RealDisk::is_lock(name)) {
        return Err(not_empty());
    }
    Ok(disk)
}

/// A checked store, in which nothing is damaged.
fn whole(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Check, StoreError> {
    let checked = check(folder, progress)?;
    if checked.damages.count > 0 {
        return Err(StoreError::Damaged { folder: folder.to_owned(), damages: checked.damages });
    }
    Ok(checked)
}

fn numbers(disk: &dyn Disk) -> Result<Vec<u32>, StoreError> {
    let names = disk.names().map_err(|source| StoreError::file(&disk.path(""), source))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// All segments in their order, the newest, which grows, last: so the copy ends somewhere in it.
fn copy_log(from: &RealDisk, to: &RealDisk) -> Result<(), StoreError> {
    let numbers = numbers(from)?;
    for (i, number) in numbers.iter().enumerate() {
        let name = segment::name(*number);
        let copied = if i + 1 < numbers.len() {
            to.take(from, &name)
        } else {
            copy_file(from, to, &name, &name)
        };
        copied.map_err(|source| StoreError::file(&from.path(&name), source))?;
    }
    to.sync_names().map_err(|source| StoreError::file(&to.path(""), source))
}

fn copy_file(from: &dyn Disk, to: &dyn Disk, name: &str, new_name: &str) -> io::Result<()> {
    let (file, copy) = (from.open(name)?, to.create(new_name)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        copy.write_at(&buffer[..read], at)?;
        at += read as u64;
        if read < buffer.len() {
            return copy.sync();
        }
    }
}

fn clear(disk: &RealDisk) -> io::Result<()> {
    let names = disk.names()?;
    names
        .iter()
        .filter(|name| segment::number(name).is_some())
        .try_for_each(|name| disk.remove(name))
}
