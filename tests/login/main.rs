//! Logging in over real sockets: passwords, certificates, SCRAM, guessing, reload.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod brake;
mod logged;
mod names;
mod passwords;
mod process;
mod reload;
mod scram;

use std::num::NonZeroU32;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Client, Denied, Dial, Rig};
use simcast::auth::{Scheme, Stored};
use simcast::config::Config;
use simcast::mqtt::ReasonCode;
use tempfile::TempDir;

/// Wrong user name or password; return code 4 of 3.x.
const BAD: Denied = Denied::ConnAck(ReasonCode::BadUserNameOrPassword);
/// No right to be here; return code 5 of 3.x.
const NOT_AUTHORIZED: Denied = Denied::ConnAck(ReasonCode::NotAuthorized);

/// A line of a password file, with a hash that costs nothing.
fn line(name: &str, password: &str) -> String {
    let (salt, rounds, mut hash) = ([7; 12], NonZeroU32::new(101).unwrap(), [0; 64]);
    let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA512;
    aws_lc_rs::pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut hash);
    format!("{name}:$7$101${}${}\n", STANDARD.encode(salt), STANDARD.encode(hash))
}

/// A line of a user that may log in by SCRAM.
fn scram_line(name: &str, password: &str) -> String {
    let stored = Stored::new(Scheme::ScramSha256, password.as_bytes(), &[9; 16]);
    format!("{name}:{}\n", stored.encoded())
}

/// A broker whose clients have passwords.
struct Guarded {
    rig: Rig,
    file: PathBuf,
    _dir: TempDir,
}

impl Guarded {
    /// Nobody is anonymous at its plain port.
    async fn start(users: impl AsRef<str>) -> Self {
        Self::with(users, |_config| {}).await
    }

    async fn with(users: impl AsRef<str>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwords");
        std::fs::write(&file, users.as_ref()).unwrap();
        let path = file.clone();
        let rig = Rig::with(|config| {
            config.auth.password_file = Some(path);
            config.listeners[0].allow_anonymous = false;
            change(config);
        });
        Self { rig: rig.await, file, _dir: dir }
    }

    async fn try_user(&self, name: &str, password: &str) -> Result<Client, Denied> {
        self.rig.try_client(Dial::v5(name).user(name, password)).await
    }

    async fn user(&self, name: &str, password: &str) -> Client {
        self.try_user(name, password).await.expect("a connection")
    }

    /// Why this client does not come in.
    async fn refuses(&self, dial: Dial) -> Denied {
        match self.rig.try_client(dial).await {
            Ok(_client) => panic!("it came in"),
            Err(denied) => denied,
        }
    }
}
