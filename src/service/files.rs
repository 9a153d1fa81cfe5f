//! Files of users and of rights: which listener looks into which; read at start and on SIGHUP.
//! And how any file that is bounded is read, and found broken.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Auth, Config};

/// The files of one kind that a configuration names, and what the listeners look into: a place
/// where newer contents are put.
#[derive(Debug)]
pub(super) struct Files<P> {
    files: Vec<(PathBuf, Arc<P>)>,
    /// In the order of the listeners.
    of_listeners: Vec<Option<Arc<P>>>,
    bytes_max: usize,
}

/// Why a file was not taken. Broken lines are printed one below the other, in the
/// `file:line: text` form that editors jump to.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It has broken lines; half of the users or rights are none.
    #[error("{}", Lines(path, lines))]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Its broken lines, from 1, and what is wrong with them.
        lines: Vec<(usize, String)>,
    },
    /// Nothing is in it, where something was before: somebody may be writing it.
    #[error("{}: is empty; write a comment into it if it shall permit nothing", .0.display())]
    Emptied(PathBuf),
}

struct Lines<'a>(&'a Path, &'a [(usize, String)]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (line, fault)) in self.1.iter().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            write!(f, "{separator}{}:{line}: {fault}", self.0.display())?;
        }
        Ok(())
    }
}

impl<P> Files<P> {
    /// Reads the files that `path` finds in the listeners' `[auth]` sections. Listeners under one
    /// section share one place.
    pub(super) fn load(
        config: &Config,
        bytes_max: usize,
        path: impl Fn(&Auth) -> Option<&PathBuf>,
        place: impl Fn(&Auth, &Path, &[u8]) -> Result<P, FileError>,
    ) -> Result<Self, FileError> {
        let mut files = Vec::new();
        let mut open = |auth: &Auth| -> Result<_, FileError> {
            let Some(path) = path(auth) else { return Ok(None) };
            let place = Arc::new(place(auth, path, &read(path, bytes_max)?)?);
            files.push((path.clone(), Arc::clone(&place)));
            Ok(Some(place))
        };
        let common = open(&config.auth)?;
        let of_listener = |own: Option<&Auth>| own.map_or_else(|| Ok(common.clone()), &mut open);
        let of_listeners = config.listeners.iter().map(|l| l.auth.as_ref()).map(of_listener);
        let of_listeners = of_listeners.collect::<Result<_, _>>()?;
        Ok(Self { files, of_listeners, bytes_max })
    }

    /// What the listener at this position of the configuration looks into.
    pub(super) fn of_listener(&self, index: usize) -> Option<Arc<P>> {
        self.of_listeners.get(index).cloned().flatten()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<P>> {
        self.files.iter().map(|(_, place)| Arc::clone(place)).collect()
    }

    /// Reads all files again. One that is not in order changes nothing anywhere (case S10).
    pub(super) fn reread<T>(
        &self,
        parse: impl Fn(&Path, &[u8]) -> Result<T, FileError>,
    ) -> Result<Vec<(Arc<P>, T)>, FileError> {
        let fresh = |(path, place): &(PathBuf, Arc<P>)| {
            let bytes = read(path, self.bytes_max)?;
            if bytes.trim_ascii().is_empty() {
                return Err(FileError::Emptied(path.clone()));
            }
            Ok((Arc::clone(place), parse(path, &bytes)?))
        };
        self.files.iter().map(fresh).collect()
    }
}

/// The bytes of a file, and one more than it may have where there are more: its parser says so.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    Ok(bytes)
}

/// The error of a file with broken lines.
pub(super) fn broken(path: &Path, lines: impl Iterator<Item = (usize, String)>) -> FileError {
    FileError::Broken { path: path.to_owned(), lines: lines.collect() }
}
