//! `simcast convert`: a mosquitto.conf becomes a simcast.toml.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a command")]

mod doors;
mod keys;
mod left;
mod plan;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::Config;
use doors::Machine;
use plan::{Note, Plan};
use text::Converted;

/// Make a simcast.toml out of a mosquitto.conf
///
/// Reads the file and what it includes. Writes a configuration that treats clients as mosquitto
/// does, with a comment for each value, and names every directive that it cannot take over on
/// standard error, with file, line and what to do about it. Password and ACL files are used where
/// they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 simcast starts with the result, whatever was named as not taken over; 1 it would
not (the result is written, and what is wrong is named), or the file is one that mosquitto itself
would refuse (nothing is written).

Relative paths start where mosquitto runs: call this in that directory, and on that machine.

Examples:
  simcast convert /etc/mosquitto/mosquitto.conf
  simcast convert /etc/mosquitto/mosquitto.conf -o /etc/simcast/simcast.toml
  simcast serve -c /etc/simcast/simcast.toml --test-config")]
pub struct Convert {
    /// The configuration of mosquitto
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write; standard output without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "output")]
    force: bool,
}

/// Why there is no working configuration.
#[derive(Debug, thiserror::Error)]
enum ConvertError {
    #[error(transparent)]
    Source(#[from] source::SourceError),
    #[error("mosquitto would not start with this; nothing was written")]
    Broken,
    #[error("no listener is left that anybody could connect to; nothing was written")]
    NoListener,
    #[error("{} is there already; --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("simcast would not start with the result: {0}")]
    NotAccepted(String),
}

impl Convert {
    /// Converts.
    ///
    /// # Errors
    /// [`Failure`] with what is wrong.
    pub fn run(self) -> Result<(), Failure> {
        self.convert().map_err(Failure::failed)
    }

    fn convert(&self) -> Result<(), ConvertError> {
        let machine = Machine::this();
        let plan = Plan::of(&source::read(&self.file, &machine.cwd)?);
        complain(&plan.broken, "");
        if !plan.broken.is_empty() {
            return Err(ConvertError::Broken);
        }
        let Converted { text, notes, listeners } = text::write(&plan, &self.file, &machine);
        complain(&notes, "not taken over: ");
        if listeners == 0 {
            return Err(ConvertError::NoListener);
        }
        match &self.output {
            Some(path) => self.write(path, &text)?,
            None => print!("{text}"),
        }
        // All paths in it are absolute.
        let accepted = Config::from_toml(&text, Path::new("/"));
        accepted.map(drop).map_err(|errors| ConvertError::NotAccepted(errors.to_string()))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), ConvertError> {
        let mut options = OpenOptions::new();
        options.write(true).truncate(true).create(self.force).create_new(!self.force);
        let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ConvertError::Exists(path.to_owned()),
            _ => ConvertError::Unwritable { path: path.to_owned(), error },
        })
    }
}

impl Machine {
    /// The machine that this runs on.
    fn this() -> Self {
        Self {
            ipv6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            resolve,
        }
    }
}

fn resolve(host: &str) -> Vec<IpAddr> {
    let addresses = (host, 0).to_socket_addrs();
    addresses.into_iter().flatten().map(|address| address.ip()).collect()
}

fn complain(notes: &[Note], what: &str) {
    for Note { place, key, text } in notes {
        eprintln!("{place}: {what}{key}: {text}");
    }
}
