//! `simcast passwd`, and mosquitto on the other side of its files.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::program::{Program, is_here};
use common::{Client, Denied, Dial, Rig, in_time};
use simcast::mqtt::ReasonCode;
use tempfile::TempDir;
use tokio::net::TcpStream;

const BAD: Denied = Denied::ConnAck(ReasonCode::NotAuthorized); // in 3.1.1

/// A folder with a password file in it, or not yet.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("passwords")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// With these arguments before the file, and this on standard input.
    fn run(&self, options: &[&str], user: &str, input: &str) -> Output {
        run(&self.file(), options, user, input)
    }

    fn add(&self, options: &[&str], user: &str, password: &str) {
        let output = self.run(options, user, &format!("{password}\n"));
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Fails with this exit code and these words, and leaves the file as it was.
    fn refuses(&self, options: &[&str], user: &str, input: &str, code: i32, words: &str) {
        let before = std::fs::read(self.file()).ok();
        let output = self.run(options, user, input);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(std::fs::read(self.file()).ok(), before, "the file was changed");
        let entries = std::fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(entries, usize::from(before.is_some()), "nothing else stays");
    }
}

fn run(file: &Path, options: &[&str], user: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simcast"));
    command.arg("passwd").args(options).arg("--").arg(file).arg(user);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that does not ask for a password closes its input.
    let _taken_or_not = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn its_users_log_in() {
    let place = Place::new();
    place.add(&["--create"], "ann", "secret");
    place.add(&["--hash", "sha512-pbkdf2"], "bob", "pass word: $");
    place.add(&["--hash", "scram-sha-256"], "carol ö", "pä\tss");
    assert_eq!(mode(&place.file()), 0o600);
    let kinds =
        ["ann:$argon2id$v=19$m=47104,t=1,p=1$", "bob:$7$210000$", "carol ö:$scram-sha-256$"];
    for (line, kind) in place.text().lines().zip(kinds) {
        assert!(line.starts_with(kind), "{line}");
    }
    let rig = Rig::with(|config| {
        config.auth.password_file = Some(place.file());
        config.listeners[0].allow_anonymous = false;
    });
    let rig = rig.await;
    for (user, password) in [("ann", "secret"), ("bob", "pass word: $"), ("carol ö", "pä\tss")] {
        rig.client(Dial::v311("c").user(user, password)).await.ping().await;
        let wrong = rig.try_client(Dial::v311("c").user(user, "secre")).await.err();
        assert_eq!(wrong, Some(BAD), "{user}");
    }
    place.add(&[], "ann", "changed");
    place.run(&["--delete"], "bob", "");
    assert_eq!(place.text().lines().count(), 2);
    rig.service.reload_passwords().unwrap();
    rig.client(Dial::v311("c").user("ann", "changed")).await.ping().await;
    for (user, password) in [("ann", "secret"), ("bob", "pass word: $")] {
        let gone = rig.try_client(Dial::v311("c").user(user, password)).await.err();
        assert_eq!(gone, Some(BAD), "{user}");
    }
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let place = Place::new();
    place.refuses(&[], "ann", "x\n", 1, "--create makes it");
    place.add(&["--create"], "ann", "secret");
    place.refuses(&["--create"], "bob", "x\n", 1, "is there already");
    place.refuses(&["--delete"], "bob", "", 1, "no user of this name");
    place.refuses(&[], "bob", "", 1, "an empty password");
    place.refuses(&[], "bob", "\n", 1, "an empty password");
    place.refuses(&[], "bob", &"x".repeat(65_536), 1, "at most 65535 bytes");
    for name in ["", "a:b", "#a", " a", "a ", "a\tb\u{7}"] {
        place.refuses(&[], name, "x\n", 2, "this cannot be a user name");
    }
    place.refuses(&["--delete", "--hash", "argon2id"], "ann", "", 2, "cannot be used with");
    place.refuses(&["--hash", "md5"], "bob", "x\n", 2, "argon2id");
    // Somebody else's mistake is not made worse.
    std::fs::write(place.file(), place.text() + "bob:plain\n").unwrap();
    place.refuses(&[], "ann", "x\n", 1, "passwords:2: no hash that is known here");
    place.refuses(&["--delete"], "ann", "", 1, "first put this line in order");
    place.add(&["--hash", "scram-sha-256"], "bob", "secret");
}

#[test]
fn other_lines_and_the_place_of_the_file_stay() {
    let place = Place::new();
    place.add(&["--create"], "ann", "secret");
    let ann = place.text();
    let around = |bob: &str| format!("# our users\r\n\r\n{ann}{bob}#ann:\n");
    std::fs::write(place.file(), around("")).unwrap();
    place.add(&["--hash", "scram-sha-256"], "bob", "other");
    let text = place.text();
    let bob = text.strip_prefix(around("").as_str()).expect("all that was there");
    assert!(bob.starts_with("bob:$scram-sha-256$") && bob.ends_with('\n'), "{bob}");
    let output = place.run(&["--delete"], "bob", "");
    assert!(output.status.success());
    assert_eq!(place.text(), around(""));
    // A link stays a link.
    let link = place.dir.path().join("link");
    symlink(place.file(), &link).unwrap();
    assert!(run(&link, &["--delete"], "ann", "").status.success());
    assert!(link.is_symlink());
    assert_eq!(place.text(), "# our users\r\n\r\n#ann:\n");
}

#[test]
fn its_help_teaches() {
    let output = Command::new(env!("CARGO_BIN_EXE_simcast")).args(["passwd", "--help"]).output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    for part in ["standard input", "Examples:", "SIGHUP", "scram-sha-256", "--delete", "2.1"] {
        assert!(help.contains(part), "{part} is missing:\n{help}");
    }
}

fn mosquitto_is_here() -> bool {
    is_here(
        "mosquitto and mosquitto_passwd",
        "Debian: mosquitto",
        Command::new("which").args(["mosquitto", "mosquitto_passwd"]),
    )
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

async fn log_in(port: u16, user: &str, password: &str) -> Result<(), Denied> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = in_time("a TCP connection", TcpStream::connect(address)).await.unwrap();
    Client::open(stream, &Dial::v311("c").user(user, password)).await.map(drop)
}

#[tokio::test]
async fn mosquitto_takes_our_file() {
    if !mosquitto_is_here() {
        return;
    }
    let place = Place::new();
    place.add(&["--create", "--hash", "sha512-pbkdf2"], "ann", "secret");
    let port = free_port();
    let conf = place.dir.path().join("mosquitto.conf");
    // Started by root it would become a user that may not read our file.
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let text = format!(
        "listener {port} 127.0.0.1\npassword_file {}\nuser {user}\n",
        place.file().display()
    );
    std::fs::write(&conf, text).unwrap();
    let mut mosquitto = Program::start(Command::new("mosquitto").arg("-c").arg(&conf));
    mosquitto.until(" running").await;
    assert_eq!(log_in(port, "ann", "secret").await, Ok(()));
    assert_ne!(log_in(port, "ann", "wrong").await, Ok(()));
}

#[tokio::test]
async fn mosquittos_file_is_taken_unchanged() {
    if !mosquitto_is_here() {
        return;
    }
    let place = Place::new();
    std::fs::write(place.file(), "").unwrap();
    for (kind, user) in [("sha512", "ann"), ("sha512-pbkdf2", "bob")] {
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-H", kind, "-b"]).arg(place.file()).args([user, "secret"]);
        assert!(command.status().unwrap().success());
    }
    let rig = Rig::with(|config| {
        config.auth.password_file = Some(place.file());
        config.listeners[0].allow_anonymous = false;
    });
    let rig = rig.await;
    for user in ["ann", "bob"] {
        assert_eq!(log_in(rig.plain.port(), user, "secret").await, Ok(()));
        assert_eq!(log_in(rig.plain.port(), user, "secre").await, Err(BAD));
    }
}
