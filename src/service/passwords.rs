//! Password files: read at start and again on SIGHUP.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::{Disguise, PASSWORD_FILE_BYTES_MAX, PasswordMistake, Passwords};
use crate::broker::Broker;
use crate::config::{Auth, Config};
use crate::net::Users;

/// Every password file of a configuration, and the users that its listeners ask.
#[derive(Debug)]
pub(super) struct PasswordFiles {
    files: Vec<PasswordFile>,
    /// In the order of the listeners.
    of_listeners: Vec<Option<Arc<Users>>>,
    /// The same as long as the process lives: strangers must not see a reload.
    disguise: Disguise,
}

#[derive(Debug)]
struct PasswordFile {
    path: PathBuf,
    users: Arc<Users>,
}

/// Why a password file was not taken. Broken lines are printed one below the other, in the
/// `file:line: text` form that editors jump to.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It has broken lines; half of the users are none.
    #[error("{}", Mistakes(path, mistakes))]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Its broken lines.
        mistakes: Vec<PasswordMistake>,
    },
    /// Nothing is in it, where users were before: somebody may be writing it.
    #[error("{}: is empty; write a comment into it if nobody may log in", .0.display())]
    Emptied(PathBuf),
    /// The system has no random numbers.
    #[error("no random numbers from the system")]
    NoRandom,
}

struct Mistakes<'a>(&'a Path, &'a [PasswordMistake]);

impl fmt::Display for Mistakes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, PasswordMistake { line, fault }) in self.1.iter().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            write!(f, "{separator}{}:{line}: {fault}", self.0.display())?;
        }
        Ok(())
    }
}

impl PasswordFiles {
    /// Reads the files that the listeners' `[auth]` sections name. Listeners under one section
    /// share its users and the brake on guessing.
    pub(super) fn load(config: &Config) -> Result<Self, PasswordFileError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| PasswordFileError::NoRandom)?;
        let disguise = Disguise::new(&secret);
        let mut files = Vec::new();
        let mut users = |auth: &Auth| -> Result<_, PasswordFileError> {
            let Some(path) = &auth.password_file else { return Ok(None) };
            let passwords = parse(path, &read(path)?, &disguise)?;
            let users = Arc::new(Users::new(passwords, auth.max_failures));
            files.push(PasswordFile { path: path.clone(), users: Arc::clone(&users) });
            Ok(Some(users))
        };
        let common = users(&config.auth)?;
        let of_listener = |own: Option<&Auth>| own.map_or_else(|| Ok(common.clone()), &mut users);
        let of_listeners = config.listeners.iter().map(|l| l.auth.as_ref()).map(of_listener);
        let of_listeners = of_listeners.collect::<Result<_, _>>()?;
        Ok(Self { files, of_listeners, disguise })
    }

    /// Who may log in at the listener at this position of the configuration.
    pub(super) fn of_listener(&self, index: usize) -> Option<Arc<Users>> {
        self.of_listeners.get(index).cloned().flatten()
    }

    /// Reads all files again and puts them in place of what holds; clients whose line has changed
    /// or gone have to go. A file that is not in order changes nothing anywhere (case S10). Gives
    /// the number of files.
    pub(super) fn reload(&self, broker: &Broker) -> Result<usize, PasswordFileError> {
        let mut fresh = Vec::with_capacity(self.files.len());
        for PasswordFile { path, users } in &self.files {
            let bytes = read(path)?;
            if bytes.trim_ascii().is_empty() {
                return Err(PasswordFileError::Emptied(path.clone()));
            }
            fresh.push((users, parse(path, &bytes, &self.disguise)?));
        }
        fresh.into_iter().for_each(|(users, passwords)| users.replace(passwords));
        if !self.files.is_empty() {
            broker.users_changed();
        }
        Ok(self.files.len())
    }
}

/// The bytes of a file, and one more than it may have where there are more.
fn read(path: &Path) -> Result<Vec<u8>, PasswordFileError> {
    let mut bytes = Vec::new();
    let bound = PASSWORD_FILE_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(bound).read_to_end(&mut bytes))
        .map_err(|error| PasswordFileError::Unreadable { path: path.to_owned(), error })?;
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8], disguise: &Disguise) -> Result<Passwords, PasswordFileError> {
    let broken = |mistakes| PasswordFileError::Broken { path: path.to_owned(), mistakes };
    Passwords::parse(bytes, disguise).map_err(broken)
}
