//! `simcast passwd`: users of a password file.
#![allow(clippy::print_stdout, reason = "the output of a command")]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::auth::{
    Disguise, PasswordFault, PasswordMistake, Passwords, Scheme, Stored, check_user_name,
};

/// Longest password, in bytes: the longest that MQTT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Add, change or delete a user of a password file
///
/// The password is asked for twice on a terminal, and otherwise read from standard input, one line.
/// It is never an argument: arguments are seen by everybody on the machine. All other lines of the
/// file stay as they are, and the file is replaced as a whole: a broker that reads it meanwhile
/// sees the old one or the new one.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is mosquitto's: one user a line, `name:hash`. A broker reads it again on SIGHUP and then
sends away who was deleted or has a new password.

Examples:
  simcast passwd --create /etc/simcast/passwords ann   a new file with one user
  simcast passwd /etc/simcast/passwords bob            another user, or another password
  simcast passwd --delete /etc/simcast/passwords bob   nobody's bob any more
  simcast passwd --hash scram-sha-256 passwords carol  for clients that log in by SCRAM
  printf '%s\\n' \"$SECRET\" | simcast passwd passwords d  from a script")]
pub struct Passwd {
    /// The password file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user name
    #[arg(value_name = "USER")]
    user: String,
    /// How the password is stored
    #[arg(long, value_enum, default_value_t = Hash::Argon2id, conflicts_with = "delete")]
    hash: Hash,
    /// Make the file; it must not be there
    #[arg(long, conflicts_with = "delete")]
    create: bool,
    /// Delete the user
    #[arg(long)]
    delete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hash {
    /// The strongest: 46 MiB of memory for each guess. Mosquitto reads it from version 2.1 on
    Argon2id,
    /// For mosquitto 1.6 to 2.0, too: 210,000 rounds of PBKDF2
    Sha512Pbkdf2,
    /// For SCRAM-SHA-256 of MQTT 5, where the password never leaves the client; plain logins work,
    /// too
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

impl Hash {
    fn scheme(self) -> Scheme {
        match self {
            Self::Argon2id => Scheme::Argon2id,
            Self::Sha512Pbkdf2 => Scheme::Sha512Pbkdf2,
            Self::ScramSha256 => Scheme::ScramSha256,
        }
    }
}

/// Why the file stays as it was.
#[derive(Debug, thiserror::Error)]
enum PasswdError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is there already; leave out --create to add a user to it", .0.display())]
    Exists(PathBuf),
    #[error("{} is not there; --create makes it", .0.display())]
    Missing(PathBuf),
    #[error("{}: there is no user of this name", .0.display())]
    NoSuchUser(PathBuf),
    #[error("{path}:{line}: {fault}\nnothing was changed: first put this line in order",
        path = path.display())]
    Broken { path: PathBuf, line: usize, fault: PasswordFault },
    #[error("the password cannot be read: {0}")]
    Input(io::Error),
    #[error("the two passwords differ; nothing was changed")]
    Differ,
    #[error("an empty password protects nothing")]
    Empty,
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("the system gives no random numbers")]
    NoRandom,
}

impl Passwd {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`], worded for the terminal; then the file is as it was.
    pub fn run(self) -> Result<(), Failure> {
        self.check_name()?;
        self.change().map_err(Failure::failed)
    }

    fn check_name(&self) -> Result<(), Failure> {
        let wrong = |why: &str| Err(Failure::Usage(format!("this cannot be a user name: {why}")));
        if let Err(fault) = check_user_name(&self.user) {
            return wrong(&fault.to_string());
        }
        if self.user.contains(':') {
            return wrong("the colon ends the name in the file");
        }
        if self.user.starts_with('#') {
            return wrong("a line that begins with # is a comment");
        }
        if self.user.trim_ascii() != self.user {
            return wrong("blanks at its ends do not belong to a name");
        }
        Ok(())
    }

    fn change(&self) -> Result<(), PasswdError> {
        // What would fail anyway fails before anybody types a password.
        self.read()?;
        let stored = if self.delete { None } else { Some(self.new_password()?) };
        let path = self.target();
        let failed = |source| PasswdError::File { path: path.clone(), source };
        // Two changes at once must not lose one of each other.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        folder.lock().map_err(failed)?;
        let before = self.read()?;
        let line = stored.map(|stored| format!("{}:{}", self.user, stored.encoded()));
        let (after, known) = replaced(&before, &self.user, line.as_deref());
        if self.delete && !known {
            return Err(PasswdError::NoSuchUser(self.file.clone()));
        }
        self.check(&after)?;
        replace(&path, &after).map_err(failed)?;
        let what = match (self.delete, known) {
            (true, _) => "deleted from",
            (false, true) => "changed in",
            (false, false) => "added to",
        };
        println!("{} {what} {}", self.user, self.file.display());
        Ok(())
    }

    /// The file itself, where the path is a link to it.
    fn target(&self) -> PathBuf {
        fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone())
    }

    fn read(&self) -> Result<Vec<u8>, PasswdError> {
        let path = self.file.clone();
        match (fs::read(&self.file), self.create) {
            (Ok(_), true) => Err(PasswdError::Exists(path)),
            (Ok(bytes), false) => Ok(bytes),
            (Err(error), create) if error.kind() == io::ErrorKind::NotFound => {
                if create {
                    Ok(Vec::new())
                } else {
                    Err(PasswdError::Missing(path))
                }
            }
            (Err(source), _) => Err(PasswdError::File { path, source }),
        }
    }

    /// A file that no broker would take is not written.
    fn check(&self, bytes: &[u8]) -> Result<(), PasswdError> {
        let broken = |mistakes: Vec<PasswordMistake>| {
            let first = mistakes.into_iter().next();
            let (line, fault) = first.map_or((1, PasswordFault::NoColon), |m| (m.line, m.fault));
            PasswdError::Broken { path: self.file.clone(), line, fault }
        };
        // Nobody is asked for a password here: the disguise hides nothing.
        Passwords::parse(bytes, &Disguise::new(&[0; 32])).map(drop).map_err(broken)
    }

    fn new_password(&self) -> Result<Stored, PasswdError> {
        let password = if io::stdin().is_terminal() { typed()? } else { piped()? };
        if password.is_empty() {
            return Err(PasswdError::Empty);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswdError::TooLong);
        }
        let scheme = self.hash.scheme();
        let mut salt = vec![0; scheme.salt_bytes()];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| PasswdError::NoRandom)?;
        Ok(Stored::new(scheme, &password, &salt))
    }
}

fn typed() -> Result<Vec<u8>, PasswdError> {
    let ask = |prompt| rpassword::prompt_password(prompt).map_err(PasswdError::Input);
    let (first, second) = (ask("Password: ")?, ask("Again: ")?);
    if first == second { Ok(first.into_bytes()) } else { Err(PasswdError::Differ) }
}

fn piped() -> Result<Vec<u8>, PasswdError> {
    let mut line = Vec::new();
    // The end of the line, and one byte too much to know of it.
    let bound = PASSWORD_BYTES_MAX as u64 + 3;
    let mut input = io::stdin().lock().take(bound);
    input.read_until(b'\n', &mut line).map_err(PasswdError::Input)?;
    let ended = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(ended.unwrap_or(&line).to_vec())
}

/// The file with this line in place of the user's, or behind all others, or without it; and
/// whether the user was there.
fn replaced(before: &[u8], user: &str, line: Option<&str>) -> (Vec<u8>, bool) {
    let mut after = Vec::with_capacity(before.len() + line.map_or(0, |line| line.len() + 2));
    let (mut known, mut line) = (false, line);
    for old in before.split_inclusive(|byte| *byte == b'\n') {
        if name_of(old) != Some(user.as_bytes()) {
            after.extend_from_slice(old);
            continue;
        }
        known = true;
        if let Some(line) = line.take() {
            after.extend_from_slice(line.as_bytes());
            after.extend_from_slice(line_end(old));
        }
    }
    if let Some(line) = line {
        if !after.is_empty() && !after.ends_with(b"\n") {
            after.push(b'\n');
        }
        after.extend_from_slice(line.as_bytes());
        after.push(b'\n');
    }
    (after, known)
}

/// The user of a line, as the broker reads it.
fn name_of(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    (!line.starts_with(b"#")).then(|| line[..colon].trim_ascii())
}

fn line_end(line: &[u8]) -> &[u8] {
    [&b"\r\n"[..], b"\n"].into_iter().find(|end| line.ends_with(end)).unwrap_or_default()
}

/// Writes the file anew beside the old one and puts it in its place. It belongs to whom it belonged
/// to; nobody but the owner and those who read for the group may read it.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", process::id()));
    let beside = path.with_file_name(name);
    let written = write_new(&beside, path, contents).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The error that matters is another one.
        let _gone_or_not = fs::remove_file(&beside);
    }
    written
}

fn write_new(beside: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    if let Ok(old) = fs::metadata(path) {
        let own = file.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o040 | 0o600))?;
    }
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lines_stay_byte_for_byte() {
        let file = b"# users\r\n\nann:1\r\n bob :2\n\xff:3\nann:4";
        assert_eq!(
            replaced(file, "ann", Some("ann:new")),
            (b"# users\r\n\nann:new\r\n bob :2\n\xff:3\n".to_vec(), true)
        );
        assert_eq!(
            replaced(file, "bob", None),
            (b"# users\r\n\nann:1\r\n\xff:3\nann:4".to_vec(), true)
        );
        let (after, known) = replaced(file, "carol", Some("carol:new"));
        assert_eq!(after, [&file[..], b"\ncarol:new\n"].concat());
        assert!(!known);
        assert_eq!(replaced(b"", "ann", Some("ann:x")), (b"ann:x\n".to_vec(), false));
        assert_eq!(replaced(b"#ann:x\n", "ann", None), (b"#ann:x\n".to_vec(), false));
    }

    #[test]
    fn the_owners_choice_of_readers_is_kept_and_others_are_shut_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace(&path, b"new").unwrap();
        assert_eq!(mode(), 0o600);
        for (before, after) in [(0o666, 0o640), (0o640, 0o640), (0o604, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            replace(&path, b"new").unwrap();
            assert_eq!(mode(), after);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
