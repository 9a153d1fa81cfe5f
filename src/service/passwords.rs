//! Password files: who may log in at each listener.

use std::path::Path;
use std::sync::Arc;

use super::StartError;
use super::files::{FileError, Files, broken};
use crate::auth::{Disguise, PASSWORD_FILE_BYTES_MAX, PasswordMistake, Passwords};
use crate::broker::Broker;
use crate::config::{Auth, Config};
use crate::net::Users;

/// Every password file of a configuration, and the users that its listeners ask.
#[derive(Debug)]
pub(super) struct PasswordFiles {
    files: Files<Users>,
    /// The same as long as the process lives: strangers must not see a reload.
    disguise: Disguise,
}

impl PasswordFiles {
    /// Listeners under one `[auth]` section share its users and the brake on guessing.
    pub(super) fn load(config: &Config) -> Result<Self, StartError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| StartError::NoRandom)?;
        let disguise = Disguise::new(&secret);
        let own = config.listeners.iter().filter_map(|listener| listener.auth.as_ref());
        let paths: Vec<_> =
            std::iter::once(&config.auth).chain(own).map(|auth| &auth.password_file).collect();
        let number = |auth: &Auth| paths.iter().position(|path| **path == auth.password_file);
        let files = Files::load(
            config,
            PASSWORD_FILE_BYTES_MAX,
            |auth| auth.password_file.as_ref(),
            |auth, path, bytes| {
                let passwords = parse(path, bytes, &disguise)?;
                let file = number(auth).expect("all sections have been counted");
                Ok(Users::new(passwords, file, auth.max_failures))
            },
        )?;
        Ok(Self { files, disguise })
    }

    /// Who may log in at the listener at this position of the configuration.
    pub(super) fn of_listener(&self, index: usize) -> Option<Arc<Users>> {
        self.files.of_listener(index)
    }

    /// Reads all files again and puts them in place of what holds; clients whose line has changed
    /// or gone have to go. Gives the number of files.
    pub(super) fn reload(&self, broker: &Broker) -> Result<usize, FileError> {
        let fresh = self.files.reread(|path, bytes| parse(path, bytes, &self.disguise))?;
        let count = fresh.len();
        fresh.into_iter().for_each(|(users, passwords)| users.replace(passwords));
        if count > 0 {
            broker.users_changed();
        }
        Ok(count)
    }
}

fn parse(path: &Path, bytes: &[u8], disguise: &Disguise) -> Result<Passwords, FileError> {
    let line = |mistake: PasswordMistake| (mistake.line, mistake.fault.to_string());
    Passwords::parse(bytes, disguise)
        .map_err(|mistakes| broken(path, mistakes.into_iter().map(line)))
}
