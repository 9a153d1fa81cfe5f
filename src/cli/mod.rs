//! The commands, one file each, and what they have in common: help, errors, exit codes.
//!
//! To add a command: its module, its variant of [`Command`], its arm of [`Command::run`].
#![allow(clippy::print_stderr, reason = "the last words of a command")]

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigErrors;
use crate::service::StartError;

pub mod audit;
pub mod certs;
pub mod convert;
pub mod ctl;
pub mod demo;
mod development;
pub mod device;
mod endpoint;
pub mod passwd;
pub mod serve;
pub mod server;
pub mod store;
pub mod version;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "simcast", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true, after_help = EXIT_CODES, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Certs(certs::Certs),
    Passwd(passwd::Passwd),
    Convert(convert::Convert),
    Ctl(ctl::Ctl),
    Audit(audit::Audit),
    Store(store::Store),
    Device(device::Device),
    Server(server::Server),
    Version(version::Version),
}

impl Command {
    async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Serve(command) => command.run().await,
            Self::Demo(command) => command.run().await.map_err(Failure::failed),
            Self::Convert(command) => command.run(),
            Self::Ctl(command) => command.run().await,
            Self::Audit(command) => command.run().map_err(Failure::failed),
            Self::Store(command) => command.run().map_err(Failure::failed),
            Self::Certs(command) => command.run().map_err(Failure::failed),
            Self::Passwd(command) => command.run(),
            Self::Device(command) => command.run().await.map_err(Failure::failed),
            Self::Server(command) => command.run().await.map_err(Failure::failed),
            Self::Version(command) => {
                command.run();
                Ok(())
            }
        }
    }
}

const ABOUT: &str = "MQTT broker and provisioning control unit for eSIM IoT fleets";

const LONG_ABOUT: &str = "\
MQTT broker and provisioning control unit for eSIM IoT fleets

simcast is a complete MQTT 3.1.1 and 5 broker. On two of its topics it is more: devices subscribe \
to To_eUICC and get only what is addressed to them or to their group; SM-SR servers subscribe to \
To_SM-SR and hear their answers. Who is who comes from client certificates.";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 invalid configuration";

const EXAMPLES: &str = "\
First steps:
  simcast demo                            see every flow on this machine, with real TLS
  simcast serve                           a broker for development on 127.0.0.1
  simcast serve -c simcast.toml --test-config
                                          check a configuration, its files and ports
  simcast certs init --dir pki            a small CA for your own rig
  simcast ctl sessions list               who is connected to the broker on this machine
  simcast passwd --create passwords ann   a user with a password
  simcast convert /etc/mosquitto/mosquitto.conf
                                          a configuration for mosquitto becomes one for simcast
  simcast audit verify audit.log          has anybody changed the audit log?
  simcast store check simcast-data        is the store in order?
  simcast COMMAND --help                  more on each command

Environment:
  SIMCAST_LOG   what is logged: a level, or by module: warn,simcast::net=debug

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 invalid configuration";

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// It was tried and did not succeed.
    Failed(Box<dyn Error + Send + Sync>),
    /// The arguments make no sense together.
    Usage(String),
    /// The configuration is wrong.
    Config(ConfigErrors),
    /// The configuration asks for what cannot be had.
    Start(StartError),
}

impl Failure {
    /// Whatever went wrong.
    #[must_use]
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// As mosquitto's: 3 is what systemd shows as an invalid configuration.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) | Self::Start(_) => 3,
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "simcast: {error}"),
            Self::Start(error) => write!(f, "simcast: {error}"),
            Self::Usage(message) => write!(f, "simcast: {message}"),
            // One line per mistake, as compilers print them.
            Self::Config(errors) => errors.fmt(f),
        }
    }
}

impl Cli {
    /// Runs the command and says on standard error what went wrong.
    pub async fn run(self) -> ExitCode {
        match self.command.run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::from(failure.exit_code())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn failures_have_their_exit_codes() {
        assert_eq!(Failure::failed("broken").exit_code(), 1);
        assert_eq!(Failure::Usage("odd".to_owned()).exit_code(), 2);
        let errors = Config::from_toml("lmits = 1", Path::new("")).unwrap_err();
        let failure = Failure::from(errors);
        assert_eq!(failure.exit_code(), 3);
        let expected = "line 1: lmits: unknown key `lmits`; did you mean `limits`?";
        assert_eq!(failure.to_string(), expected);
    }
}
