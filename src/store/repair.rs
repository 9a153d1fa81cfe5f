//! What is done at start about damage: nothing, going on without it, or beginning anew. No byte
//! that was there is thrown away.

use std::io;

use super::catalog::Catalog;
use super::disk::Disk;
use super::log::put_segment;
use super::record::{Batch, HEAD_BYTES, Salt};
use super::segment::{self, HEADER_BYTES, Header, Item, Scanner};
use super::survey::Survey;
use super::{OnDamage, Progress, StoreError};
use crate::ids::Timestamp;

/// What a file is called that was put aside.
pub(super) fn aside(name: &str, when: &str) -> String {
    format!("{name}.corrupt-{when}")
}

/// A moment in UTC as `20261123T140509Z`.
pub(super) fn stamp(now: Timestamp) -> String {
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    let at = time::OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(time::PrimitiveDateTime::MAX.assume_utc());
    let (date, (hour, minute, second)) = (at.date(), at.time().as_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Everything there is, and the last commit; after a repair, if one is due and wanted.
pub(super) fn read(
    disk: &dyn Disk,
    on_damage: OnDamage,
    now: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Survey, Catalog, u64), StoreError> {
    match read_once(disk, progress) {
        Err(StoreError::Unreadable(_)) if on_damage == OnDamage::SetAside => set_aside(disk, now)?,
        Ok((survey, catalog, commit)) if survey.damages.count == 0 => {
            return Ok((survey, catalog, commit));
        }
        Ok((survey, ..)) => match on_damage {
            OnDamage::Refuse => return Err(damaged(disk, survey)),
            OnDamage::Salvage => salvage(disk, &survey, now)?,
            OnDamage::SetAside => set_aside(disk, now)?,
        },
        Err(error) => return Err(error),
    }
    let (survey, catalog, commit) = read_once(disk, progress)?;
    if survey.damages.count > 0 {
        return Err(damaged(disk, survey));
    }
    Ok((survey, catalog, commit))
}

/// Everything there is, with its damages, and the last commit.
pub(super) fn read_once(
    disk: &dyn Disk,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Survey, Catalog, u64), StoreError> {
    let mut survey = Survey::of(disk)?;
    let mut catalog = Catalog::default();
    let commit = survey.replay(disk, &mut catalog, progress)?;
    Ok((survey, catalog, commit))
}

fn damaged(disk: &dyn Disk, survey: Survey) -> StoreError {
    StoreError::Damaged { folder: disk.path(""), damages: survey.damages }
}

/// Puts each damaged segment aside, and in its place what could be read of it. A crash in between
/// leaves some of them as they were.
fn salvage(disk: &dyn Disk, survey: &Survey, now: &str) -> Result<(), StoreError> {
    for number in &survey.damages.segments {
        let name = segment::name(*number);
        let failed = |source| StoreError::file(&disk.path(&name), source);
        let there = survey.segments.iter().any(|seen| seen.number == *number);
        if there {
            keep(disk, &name, now).map_err(failed)?;
        }
        rewrite(disk, survey, *number).map_err(failed)?;
        tracing::warn!(
            path = %disk.path(&name).display(),
            kept = there.then(|| aside(&name, now)),
            "a damaged segment of the store was replaced by what could be read of it"
        );
    }
    Ok(())
}

fn keep(disk: &dyn Disk, name: &str, now: &str) -> io::Result<()> {
    match disk.link(name, &aside(name, now)) {
        // A repair of this second that did not get further.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    disk.sync_names()
}

/// The segment with its good records alone; an empty one where there are none.
fn rewrite(disk: &dyn Disk, survey: &Survey, number: u32) -> io::Result<()> {
    let mut records = vec![0; Batch::BYTES];
    let mut commit = 0;
    let seen = survey.segments.iter().find(|seen| seen.number == number);
    if let Some((header, end)) = seen.and_then(|seen| Some((seen.header?, seen.end))) {
        let file = disk.open(&segment::name(number))?;
        let mut scanner = Scanner::new(file, header.salt, HEADER_BYTES, end);
        while let Some(item) = scanner.next()? {
            let Item::Record { head, bytes, .. } = item else { continue };
            match Batch::read(&head, &bytes[HEAD_BYTES..]) {
                Some(batch) => commit = commit.max(batch.commit),
                None => records.extend_from_slice(bytes),
            }
        }
    }
    let length = u32::try_from(records.len()).map_err(io::Error::other)?;
    let body = length - Batch::BYTES as u32;
    let oldest = survey.oldest;
    Batch { commit, synced: HEADER_BYTES, body, oldest }.write(&mut records);
    let salt = Salt::new(number);
    salt.seal(&mut records, HEADER_BYTES);
    let previous = survey.segments.iter().find(|seen| seen.number + 1 == number);
    let previous_end = previous.map_or(0, |previous| previous.end);
    let end = HEADER_BYTES + length;
    put_segment(disk, &Header { salt, previous_end, end, oldest }, &records)?;
    Ok(())
}

/// Puts all segments aside. The oldest goes first: as long as others are there, its absence shows
/// that they are no whole log.
fn set_aside(disk: &dyn Disk, now: &str) -> Result<(), StoreError> {
    let failed = |source| StoreError::file(&disk.path(""), source);
    let names = disk.names().map_err(failed)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    for number in numbers {
        let name = segment::name(number);
        let failed = |source| StoreError::file(&disk.path(&name), source);
        disk.rename(&name, &aside(&name, now)).map_err(failed)?;
        disk.sync_names().map_err(failed)?;
    }
    tracing::warn!(
        path = %disk.path("").display(),
        "the damaged store was put aside; a new one is begun, and nothing is in it"
    );
    Ok(())
}
