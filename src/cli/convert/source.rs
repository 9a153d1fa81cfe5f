//! The lines of a mosquitto.conf and of the files that it includes.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a directive stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    /// From 1.
    pub(super) line: usize,
}

impl Place {
    /// Without the directories: for comments in the converted file.
    pub(super) fn short(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        format!("{}:{}", name.to_string_lossy(), self.line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) place: Place,
    pub(super) key: String,
    /// All that follows the key, without spaces around it.
    pub(super) value: String,
}

impl Directive {
    /// The first word of the value: what mosquitto reads of numbers and of yes and no.
    pub(super) fn word(&self) -> &str {
        self.value.split_ascii_whitespace().next().unwrap_or_default()
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: larger than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("{0}: include_dir is for the main file alone")]
    Nested(Place),
    #[error("{0}: more than {FILES_MAX} files")]
    TooManyFiles(Place),
}

/// No configuration is as large as this.
const FILE_BYTES_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 1000;

/// Everything that a configuration says, in mosquitto's order: an included directory counts where
/// it is named, its files by name. Paths in it are relative to the directory mosquitto runs in,
/// here `cwd`.
pub(super) fn read(path: &Path, cwd: &Path) -> Result<Vec<Directive>, SourceError> {
    let mut all = Vec::new();
    for directive in lines_of(path)? {
        if directive.key != "include_dir" {
            all.push(directive);
            continue;
        }
        for file in included(&cwd.join(&directive.value), &directive.place)? {
            let lines = lines_of(&file)?;
            if let Some(nested) = lines.iter().find(|line| line.key == "include_dir") {
                return Err(SourceError::Nested(nested.place.clone()));
            }
            all.extend(lines);
        }
    }
    Ok(all)
}

/// The files of a directory that count, sorted as mosquitto does: without regard to case.
fn included(dir: &Path, place: &Place) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |error| SourceError::Unreadable { path: dir.to_owned(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(SourceError::TooManyFiles(place.clone()));
        }
    }
    files.sort_by_cached_key(|path| path.to_string_lossy().to_lowercase());
    Ok(files)
}

fn lines_of(path: &Path) -> Result<Vec<Directive>, SourceError> {
    let failed = |error| SourceError::Unreadable { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(SourceError::TooLarge(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(failed)?;
    Ok(directives(&String::from_utf8_lossy(&bytes), path))
}

/// The directives of a text. Line ends of Windows and a byte order mark are none of them.
pub(super) fn directives(text: &str, path: &Path) -> Vec<Directive> {
    let file: Arc<Path> = path.into();
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(line, text)| {
        let (key, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let place = Place { file: Arc::clone(&file), line };
        Directive { place, key: key.to_owned(), value: value.trim().to_owned() }
    })
    .collect()
}
